"""Visitors' pictures are deleted in time, whoever left them behind."""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import gradio as gr
import pytest

from spaces_app import page, sweeping

AGE = 3600
# What folders of Gradio's and of this project's are called.
OLD, YOUNG, MIXED = "0" * 64, "face-destyle-abc", "face-destyle-def"


def written(path: Path, seconds_ago: float = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"a picture")
    aged(path, seconds_ago)
    return path


def aged(path: Path, seconds_ago: float) -> None:
    then = time.time() - seconds_ago
    os.utime(path, (then, then))


def names(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


def test_old_files_go_with_their_folders(tmp_path: Path) -> None:
    old = written(tmp_path / OLD / "face.png", AGE + 60)
    written(tmp_path / YOUNG / "face.png", AGE - 60)
    mixed = written(tmp_path / MIXED / "old.png", AGE + 60)
    written(mixed.with_name("young.png"))
    for folder in (old.parent, mixed.parent):
        aged(folder, AGE + 60)
    sweeping.sweep(tmp_path, AGE)
    assert names(tmp_path) == {YOUNG, f"{YOUNG}/face.png", MIXED, f"{MIXED}/young.png"}


def test_an_empty_folder_goes_when_it_is_old(tmp_path: Path) -> None:
    for name, seconds_ago in ((OLD, AGE + 60), (YOUNG, 1)):
        (tmp_path / name).mkdir()
        aged(tmp_path / name, seconds_ago)
    aged(tmp_path, AGE + 60)
    sweeping.sweep(tmp_path, AGE)
    assert names(tmp_path) == {YOUNG}
    aged(tmp_path / YOUNG, AGE + 60)
    aged(tmp_path, AGE + 60)
    sweeping.sweep(tmp_path, AGE)
    assert tmp_path.is_dir()
    assert names(tmp_path) == set()


def test_what_belongs_to_the_page_stays(tmp_path: Path) -> None:
    kept = written(tmp_path / OLD / "example.png", 9 * AGE)
    written(tmp_path / OLD / "face.png", 9 * AGE)
    aged(kept.parent, 9 * AGE)
    sweeping.sweep(tmp_path, AGE, frozenset({kept.resolve()}))
    assert names(tmp_path) == {OLD, f"{OLD}/example.png"}


def test_one_that_cannot_be_deleted_does_not_save_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(5):
        written(tmp_path / f"face-destyle-{number}" / "face.png", AGE + 60)
        written(tmp_path / f"face-destyle-{number}" / "stuck.png", AGE + 60)
    unlink = Path.unlink

    def refuse(path: Path) -> None:
        if path.name == "stuck.png":
            raise PermissionError(path)
        unlink(path)

    monkeypatch.setattr(Path, "unlink", refuse)
    sweeping.sweep(tmp_path, AGE)
    assert {path.name for path in tmp_path.rglob("*.png")} == {"stuck.png"}
    sweeping.sweep(tmp_path / "absent", AGE)


def test_a_link_goes_and_its_goal_stays(tmp_path: Path) -> None:
    goal = written(tmp_path / "elsewhere" / "mine.png", 9 * AGE)
    cache = tmp_path / "cache"
    (cache / OLD).mkdir(parents=True)
    for place in (cache, cache / OLD):
        (place / YOUNG).symlink_to(goal.parent, target_is_directory=True)
    sweeping.sweep(cache, AGE)
    assert goal.is_file()


def test_what_others_keep_there_stays(tmp_path: Path) -> None:
    letter = written(tmp_path / "letters" / "mine.txt", 9 * AGE)
    loose = written(tmp_path / "notes.txt", 9 * AGE)
    sweeping.sweep(tmp_path, AGE)
    assert letter.is_file() and loose.is_file()


def test_the_page_keeps_its_examples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    kept = sweeping.kept_by(page.build_app())
    assert kept == {path.resolve() for path in tmp_path.rglob("*.png")}
    assert len(kept) > 5


def test_what_an_earlier_run_left_is_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    monkeypatch.setattr(page, "SWEEP_SECONDS", 0.05)
    monkeypatch.setattr(gr.Blocks, "launch", lambda *_, **__: None)
    left = written(tmp_path / OLD / "face.png", 2 * AGE)
    aged(left.parent, 2 * AGE)
    with gr.Blocks() as app:
        pass
    page.launch(app)
    gone_in_time(left.parent)
    # And again while it runs.
    later = written(tmp_path / MIXED / "face.png", 2 * AGE)
    gone_in_time(later)


def gone_in_time(path: Path) -> None:
    deadline = time.monotonic() + 20
    while path.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not path.exists()


def test_the_folder_is_shared_with_no_other_page() -> None:
    others = {name: value for name, value in os.environ.items() if name != "GRADIO_TEMP_DIR"}

    def folder(**chosen: str) -> Path:
        code = "import os, spaces_app; print(os.environ['GRADIO_TEMP_DIR'])"
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={**others, **chosen},
            cwd=Path(page.__file__).parents[1],
            capture_output=True,
            check=True,
            text=True,
        )
        return Path(done.stdout.strip())

    gradio = Path(tempfile.gettempdir()).resolve() / "gradio"
    assert gradio in folder().parents
    assert folder(GRADIO_TEMP_DIR="/elsewhere") == Path("/elsewhere")
