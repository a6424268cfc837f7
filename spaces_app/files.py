"""Several files at once: a zip of recovered faces, and a table of what became of each file."""

import os
import re
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import gradio as gr
from PIL import Image

from face_destyle import FaceModel, FaceRecovery, PictureError, images
from face_destyle.published import WEIGHTS as TABLE
from spaces_app.batching import BATCH_SIZE, processor
from spaces_app.common import (
    FDNN,
    LONG,
    card_link,
    check_choice,
    new_folder,
    portrait_networks,
    recoverer,
    speaks_plainly,
    upload_bytes,
)
from spaces_app.results import build_download, build_network_choice

MOST_FILES = 64
LONGEST_NAME = 80
FACES, WHOLE = "faces", "whole"
WAYS = [
    ("The face fills each picture: recover its centre square", FACES),
    ("Find the faces of each picture, and put them back", WHOLE),
]

Upload = dict[str, Any]
Rows = list[list[str]]
# What became of one file: its name, and the picture or why there is none.
Result = tuple[str, Image.Image | None, str]


@speaks_plainly
def recover_files(
    files: list[Upload] | None,
    weights: str = FDNN,
    way: str = FACES,
    progress: gr.Progress = gr.Progress(),  # noqa: B008  # that is how Gradio is asked for it
) -> tuple[str | None, Rows]:
    """Recover the faces of several picture files.

    Args:
        files: picture files, at most 64.
        weights: the name of the published network that recovers the faces.
        way: `faces` takes the centre square of each as the face; `whole` finds the faces of each
            and puts them back.
        progress: is shown on the page.

    Returns:
        The path of a zip with a PNG for each file that could be recovered, None without any; and
        a table of file, PNG and what became of it.
    """
    check_choice("weights", weights, portrait_networks())
    check_choice("way", way, [name for _, name in WAYS])
    if not files:
        raise PictureError("choose some pictures first")
    if len(files) > MOST_FILES:
        raise PictureError(f"{len(files)} files are too many: choose at most {MOST_FILES}")
    model = recoverer(weights)
    results = _squares(files, model) if way == FACES else _wholes(files, model)
    return _zipped(progress.tqdm(results, total=len(files), unit="files"), weights)


def _zipped(results: Iterable[Result], weights: str) -> tuple[str | None, Rows]:
    """Write what was recovered into a zip, one picture in memory at a time."""
    folder = new_folder()
    partial, single = folder / "recovered.partial", folder / "single.png"
    rows: Rows = []
    taken: set[str] = set()
    try:
        with zipfile.ZipFile(partial, "w") as archive:
            for name, picture, reason in results:
                entry = _entry(name, taken) if picture else ""
                if picture:
                    images.save_png(picture, single, weights, overwrite=True)
                    archive.write(single, entry)  # a PNG is compressed already
                rows.append([name, entry, reason])
        path = folder / f"recovered-{weights}.zip"
        if taken:
            os.replace(partial, path)
        return (str(path) if taken else None), rows
    finally:
        partial.unlink(missing_ok=True)
        single.unlink(missing_ok=True)


def _squares(files: list[Upload], model: FaceModel) -> Iterator[Result]:
    """Faces that fill their pictures, a batch at a time; in memory there is one batch."""
    for start in range(0, len(files), BATCH_SIZE):
        batch = files[start : start + BATCH_SIZE]
        portraits = [_portrait(file, model.input_size) for file in batch]
        with processor:
            recovered = model.recover([p for p in portraits if not isinstance(p, str)])
        photos = iter(recovered)
        for file, portrait in zip(batch, portraits, strict=True):
            if isinstance(portrait, str):
                yield shown_name(file), None, portrait
            else:
                yield shown_name(file), next(photos), "recovered"


def _portrait(file: Upload, side: int) -> Image.Image | str:
    """What a network sees of a file, or why it sees nothing."""
    try:
        square = images.centre_square(images.load_picture(upload_bytes(file)))
    except PictureError as error:
        return str(error)
    return square.resize((side, side), Image.Resampling.LANCZOS)


def _wholes(files: list[Upload], model: FaceModel) -> Iterator[Result]:
    recovery = FaceRecovery(model)
    for file in files:
        try:
            result = recovery(upload_bytes(file))
        except PictureError as error:
            yield shown_name(file), None, str(error)
            continue
        yield shown_name(file), result.picture if result.faces else None, result.message


def shown_name(file: Upload) -> str:
    """The name that a visitor's file had, without folders and control characters."""
    given = str(file.get("orig_name") or Path(file["path"]).name)
    name = PurePosixPath(given.replace("\\", "/")).name
    name = re.sub(r"[\x00-\x1f\x7f]", "", name)[-LONGEST_NAME:]
    return name if name.strip(" .") else "picture"


def _entry(name: str, taken: set[str]) -> str:
    """The name of a PNG in the zip: that of the file, with a number where it is taken."""
    stem = re.sub(r'[<>:"|?*]', "_", PurePosixPath(name).stem).strip(" .") or "picture"
    entry, number = f"{stem}.png", 2
    while entry.casefold() in taken:
        entry, number = f"{stem}-{number}.png", number + 1
    taken.add(entry.casefold())
    return entry


@speaks_plainly
def _recover_for_page(
    files: list[Upload] | None,
    weights: str,
    way: str,
    progress: gr.Progress = gr.Progress(),  # noqa: B008
) -> tuple[Any, Rows, str]:
    path, rows = recover_files(files, weights, way, progress)
    done = sum(bool(entry) for _, entry, _ in rows)
    text = (
        f"{done} of {len(rows)} files were recovered by [{weights}]({card_link(weights)}): "
        f"guesses, not photographs. Weights: {TABLE[weights].licence}."
    )
    return gr.DownloadButton(value=path, interactive=path is not None), rows, text


def build_files() -> None:
    """Lay out the part of a tab; called inside it."""
    with gr.Row(elem_classes="work"):
        with gr.Column(min_width=300):
            files = gr.File(
                label=f"Pictures, at most {MOST_FILES} of 10 MB each",
                file_count="multiple",
                file_types=["image"],
                height=200,
                elem_id="files-pictures",
            )
            network = build_network_choice("files")
            way = gr.Radio(WAYS, value=FACES, label="What to do", elem_id="files-way")
            button = gr.Button("Recover them all", variant="primary", elem_id="files-run")
        with gr.Column(min_width=300):
            table = gr.Dataframe(
                headers=["File", "PNG", "What became of it"],
                datatype="str",
                type="array",
                interactive=False,
                wrap=True,
                buttons=[],
                label="Files",
                elem_id="files-table",
            )
            text = gr.Markdown(
                "A zip with a PNG for each file, and what became of each, appear here.",
                elem_id="files-note",
                elem_classes="hint",
            )
            download = build_download("files", "Download the zip")
    options: dict[str, Any] = {"preprocess": False, **LONG}
    button.click(
        _recover_for_page,
        [files, network, way],
        [download, table, text],
        api_visibility="private",
        show_progress_on=[table],
        **options,
    )
    gr.on(
        [],
        recover_files,
        [files, network, way],
        [download, table],
        api_name="recover_files",
        **options,
    )
