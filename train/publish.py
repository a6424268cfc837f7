"""Cards and uploads."""

from pathlib import Path

from face_destyle.errors import UserError


def push_pairs(folder: Path, repo_id: str, photos: str, licence: str | None) -> None:
    raise UserError("not yet")
