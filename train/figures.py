"""What all evaluations share: who may judge, what a file of figures says, how figures are told."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from face_destyle import FaceModel
from face_destyle.errors import UserError
from face_destyle.models.base import weights_file
from train.frozen import find_frozen, sha256
from train.recipe import recipe_beside, trained_with

# What is measured, and how the tables tell it; the last two need a face embedding.
MEASURES = {
    "psnr": "{:.2f}",
    "ssim": "{:.3f}",
    "fsim": "{:.3f}",
    "identity": "{:.3f}",
    "rank1": "{:.1%}",
}


def judge_sha256(weights: str, embedding: str) -> str:
    """The hash of the face embedding that judges.

    Raises:
        UserError: the weights were trained to please it.
    """
    found = sha256(find_frozen(embedding, "a face embedding"))
    if found in trained_with(recipe_beside(weights)):
        raise UserError(f"{weights} was trained with {embedding}: judge by another face embedding")
    return found


def header(
    weights: str, model: FaceModel, photos: int, identities: int, judge: str | None
) -> dict[str, Any]:
    """What a metrics.json begins with; every test photo is in the gallery.

    Args:
        weights: name, folder or Hub id.
        model: their network.
        photos: that are tested on.
        identities: how many people they show.
        judge: the hash of the face embedding, None where there was none.
    """
    return {
        "weights_sha256": sha256(weights_file(weights)),
        "parameters": sum(p.numel() for p in model.parameters()),
        "photos": photos,
        "gallery": photos,
        "identities": identities,
    } | ({"identity_network_sha256": judge} if judge else {})


def means(
    scores: dict[str, npt.NDArray[Any]], chosen: npt.NDArray[np.bool_], names: list[str]
) -> dict[str, float]:
    """Means of the named scores, each `(N,)`, over the chosen rows."""
    return {name: round(float(scores[name][chosen].mean()), 4) for name in names}


def mean_of(rows: list[dict[str, float]]) -> dict[str, float]:
    """The mean of several rows of figures, each of which counts the same."""
    return {name: round(float(np.mean([row[name] for row in rows])), 4) for name in rows[0]}


def told(figures: dict[str, float], measures: tuple[str, ...]) -> list[str]:
    """Figures as the cells of a table; "-" for what was not measured."""
    return [MEASURES[m].format(figures[m]) if m in figures else "-" for m in measures]


def told_change(
    before: dict[str, float], after: dict[str, float], measures: tuple[str, ...]
) -> list[str]:
    """Figures before and after as the cells of a table; "-" for what was not measured."""
    pairs = zip(told(before, measures), told(after, measures), strict=True)
    return [f"{old} -> {new}" if new != "-" else "-" for old, new in pairs]


def write_figures(summary: dict[str, Any], out: Path) -> None:
    """Write figures as JSON; the file is whole or as it was."""
    partial = out.with_name(f"{out.name}.partial")
    partial.write_text(json.dumps(summary, indent=2) + "\n")
    os.replace(partial, out)
