"""The figures of an evaluation by groups of people: does a network serve some of them worse?"""

from collections.abc import Callable
from typing import Any

import numpy as np

from face_destyle.errors import UserError
from train.photos import load_table

MEASURES = ("psnr", "ssim", "fsim", "identity", "rank1")
AGES = ((0, 17), (18, 39), (40, 59), (60, 120))
SMALLEST = 10  # photos; of fewer a mean says nothing


def age_group(age: float | None) -> str | None:
    """Such as "18 to 39"; None where the age is not known."""
    for low, high in AGES:
        if age is not None and low <= age < high + 1:
            return f"{low} to {high}" if high < AGES[-1][1] else f"{low} and over"
    return None


# Column of the photo dataset, and what group a value of it is of.
KINDS: dict[str, Callable[[Any], str | None]] = {
    "gender": lambda value: None if value is None else str(value),
    "age": age_group,
}


def people(photos: str, split: str) -> dict[str, dict[str, str]]:
    """The groups of each photo, `{"gender": {key: group}, "age": ...}`; unknown ones left out.

    The keys are those of train.photos, by which a pair names its photo.

    Raises:
        UserError: no such photos, or no such split of them.
    """
    splits = load_table(photos)
    if split not in splits:
        raise UserError(f"{photos} has no split {split}; it has {', '.join(splits)}")
    table = splits[split]
    found: dict[str, dict[str, str]] = {}
    for kind, group in KINDS.items():
        if kind in table.column_names:
            named = ((row, group(value)) for row, value in enumerate(table[kind]))
            found[kind] = {f"{split}-{row:06d}": name for row, name in named if name}
    return found


def group_figures(
    raw: dict[str, np.ndarray], seen: list[str], groups: dict[str, dict[str, str]]
) -> dict[str, Any]:
    """Means of the recovered faces of each group, for metrics.json.

    Args:
        raw: the single scores that train.evaluate writes, with `style` and `photo` of each.
        seen: the styles that were trained on.
        groups: of `people`.

    Returns:
        `{"gender": {"female": {"photos": 612, "seen": {"psnr": ...}, "unseen": {...}}}}`; means
        over all portraits of a group, where it has `SMALLEST` photos or more.
    """
    is_seen = np.isin(raw["style"], seen)
    found: dict[str, Any] = {}
    for kind, names in groups.items():
        of_row = np.array([names.get(key, "") for key in raw["photo"]])
        for name in sorted(set(of_row) - {""}):
            members = of_row == name
            photos = len(set(raw["photo"][members]))
            if photos < SMALLEST:
                continue
            row: dict[str, Any] = {"photos": photos}
            for half, chosen in (("seen", members & is_seen), ("unseen", members & ~is_seen)):
                if chosen.any():
                    row[half] = {
                        m: round(float(raw[f"recovered_{m}"][chosen].mean()), 4) for m in MEASURES
                    }
            found.setdefault(kind, {})[name] = row
    return found
