"""How well a network finds how a face lies in its portrait."""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from face_destyle import images
from face_destyle.faces import FRAME_LANDMARKS
from face_destyle.models.similarity import parameters_of, transform
from train.data import ALIGNED

ERRORS = ("angle_error", "shift_error")
ANGLES = (0, 15, 30, 45)  # degrees; a portrait is counted with the nearest


def alignment_errors(
    found: torch.Tensor, true: torch.Tensor
) -> dict[str, npt.NDArray[np.floating[Any]]]:
    """How far alignments `(N, 2, 3)` are from the true ones.

    Returns:
        `angle_error` in degrees, and `shift_error`: the mean distance of the five landmarks of
        the frame in the portrait, in pixels of 128; each `(N,)`.
    """
    angles = parameters_of(found)[:, 0] - parameters_of(true)[:, 0]
    half = images.FACE_SIDE / 2
    landmarks = (found.new_tensor(FRAME_LANDMARKS) + 0.5) / half - 1
    away = transform(found, landmarks) - transform(true, landmarks)
    return {
        "angle_error": ((angles + 180) % 360 - 180).abs().numpy(),
        "shift_error": (away.norm(dim=2).mean(1) * half).numpy(),
    }


def summarize_alignment(
    true: torch.Tensor, recovered: dict[str, npt.NDArray[Any]]
) -> dict[str, Any]:
    """Medians of the errors, by the true angle; nothing where nothing is turned or aligned.

    Args:
        true: alignments, `(N, 2, 3)`.
        recovered: scores, each `(N,)`; those of a network that aligns hold the errors.
    """
    if "angle_error" not in recovered or torch.equal(true, ALIGNED.expand_as(true)):
        return {}
    angles = parameters_of(true)[:, 0].abs().numpy()
    nearest = np.abs(angles[:, None] - np.array(ANGLES)).argmin(1)
    groups = {}
    for number, angle in enumerate(ANGLES):
        chosen = nearest == number
        if chosen.any():
            groups[str(angle)] = {
                "portraits": int(chosen.sum()),
                **{m: round(float(np.median(recovered[m][chosen])), 3) for m in ERRORS},
            }
    return {"alignment": groups}


def alignment_table(groups: dict[str, Any]) -> list[str]:
    """The lines of a Markdown table of `summarize_alignment`'s groups; none of none."""
    if not groups:
        return []
    return [
        "",
        "| true angle (degrees) | portraits | angle error (degrees) | shift error (pixels) |",
        "|---|---|---|---|",
        *(
            f"| {angle} | {row['portraits']} | {row['angle_error']:.1f} "
            f"| {row['shift_error']:.1f} |"
            for angle, row in groups.items()
        ),
    ]
