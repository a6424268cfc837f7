"""Visitors' pictures are deleted here, whatever Gradio does.

Gradio deletes what it made itself, as long as it runs and no file is made while it looks. What an
earlier run left behind, and the folders, it leaves lying.
"""

import os
import re
import threading
import time
from contextlib import suppress
from pathlib import Path

import gradio as gr

PREFIX = "face-destyle-"  # of the folders that this project makes
# Gradio names its folders by hashes. Whatever else lies there is somebody else's.
OURS = re.compile(rf"[0-9a-f]{{64}}|{PREFIX}.*")


def sweep(folder: Path, age: float, keep: frozenset[Path] = frozenset()) -> None:
    """Delete old files of Gradio's and this project's folders, and such folders once empty.

    What cannot be deleted now is left for the next time. A folder that was just made is about to
    be written to, so it stays as a file would.

    Args:
        folder: Gradio's cache.
        age: in seconds; what was changed longer ago is old.
        keep: the files that stay, resolved.
    """
    before = time.time() - age
    with suppress(OSError):
        for entry in list(os.scandir(folder)):
            if entry.is_dir(follow_symlinks=False) and OURS.fullmatch(entry.name):
                _sweep_folder(Path(entry), before, keep)


def _sweep_folder(folder: Path, before: float, keep: frozenset[Path]) -> None:
    for place, _, names in os.walk(folder, topdown=False):
        here = Path(place)
        with suppress(OSError):
            was_changed = here.lstat().st_mtime  # deleting its files changes it
            for name in names:
                _delete_old(here / name, before, keep)
            if was_changed < before:
                here.rmdir()  # refused where something is left


def _delete_old(path: Path, before: float, keep: frozenset[Path]) -> None:
    with suppress(OSError):
        if path.lstat().st_mtime < before and path.resolve() not in keep:
            path.unlink()


def kept_by(app: gr.Blocks) -> frozenset[Path]:
    """The files of Gradio's cache that belong to the page itself, such as its examples."""
    return frozenset(
        Path(path).resolve() for block in app.blocks.values() for path in block.keep_in_cache
    )


def keep_sweeping(folder: Path, age: float, keep: frozenset[Path], every: float) -> None:
    """Sweep now and every so many seconds, beside the server, as long as the process lives."""

    def work() -> None:
        while True:
            sweep(folder, age, keep)
            time.sleep(every)

    threading.Thread(target=work, name="sweeping", daemon=True).start()
