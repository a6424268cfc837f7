"""The tab of whole pictures: faces are found, recovered, and put back where they were."""

import time
from typing import Any

import gradio as gr
from PIL import Image, ImageDraw, ImageFont

from face_destyle import FaceRecovery, PictureError, Recovery
from face_destyle.faces import Face, find_faces
from spaces_app.common import (
    FDNN,
    LONG,
    LOOK,
    check_choice,
    hand_out,
    note,
    portrait_networks,
    read_upload,
    recoverer,
    speaks_plainly,
    warn,
)
from spaces_app.files import build_files
from spaces_app.framing import build_examples, build_picture
from spaces_app.results import (
    build_comparison,
    build_download,
    build_gallery,
    build_network_choice,
    build_strength,
)

PREVIEW = 1000  # pixels of the longer side: what the page shows; the file has them all
MOST_FACES = 16
NO_FACE = (
    "no face was found in this picture: choose another, or crop the face by hand in the first tab"
)


@speaks_plainly
def recover_whole(
    picture: dict[str, Any] | None,
    weights: str = FDNN,
    face: float = 0,
    match_colour: bool = True,
    strength: float = 1,
) -> tuple[str, list[tuple[str, str]]]:
    """Find the faces of a whole picture, recover them, and put them back where they were.

    Args:
        picture: a picture file.
        weights: the name of the published network that recovers the faces.
        face: 0 for all, else the number of one, the largest being 1.
        match_colour: give the faces the light and tint of their surroundings.
        strength: from 0 (the picture as it is) to 1 (the recovered faces).

    Returns:
        The path of a PNG of the size of the picture (one of many millions of pixels is reduced);
        and the recovered faces alone, as pairs of a PNG, 128 x 128, and a caption.
    """
    whole = read_upload(picture)
    _check(weights, strength)
    found = _find_some(whole)
    if face not in range(len(found) + 1):
        raise PictureError(f"face must be a whole number from 0 (all) to {len(found)}")
    recovery, _ = _recover(whole, _chosen(found, face), weights, match_colour, strength)
    return hand_out(recovery.picture, weights, f"picture-{weights}"), _faces(recovery, weights)


def _check(weights: str, strength: float) -> None:
    check_choice("weights", weights, portrait_networks())
    if not isinstance(strength, int | float) or not 0 <= strength <= 1:
        raise PictureError("strength must be a number from 0 to 1")


def _find_some(whole: Image.Image) -> list[Face]:
    found = list(find_faces(whole))
    if not found:
        raise PictureError(NO_FACE)
    return found


def _chosen(found: list[Face], face: float) -> list[Face]:
    return [found[int(face) - 1]] if face else found


def _recover(
    whole: Image.Image, faces: list[Face], weights: str, match_colour: bool, strength: float
) -> tuple[Recovery, float]:
    """Recover these faces; also how many seconds that took, without the loading of the network."""
    recovery = FaceRecovery(recoverer(weights), lambda _: faces)
    start = time.perf_counter()
    recovered = recovery(
        whole, strength=strength, match_colour=bool(match_colour), max_faces=MOST_FACES
    )
    return recovered, time.perf_counter() - start


def _faces(recovery: Recovery, weights: str) -> list[tuple[str, str]]:
    return [
        (hand_out(face.photo, weights, f"face-{number}-{weights}"), f"Face {number}")
        for number, face in enumerate(recovery.faces, 1)
    ]


def numbered(whole: Image.Image, found: list[Face]) -> Image.Image:
    """The picture, as large as the page shows it, with a numbered box round each face."""
    shown = preview(whole)
    scale = shown.width / whole.width
    draw = ImageDraw.Draw(shown)
    font = ImageFont.load_default(max(12, max(shown.size) // 40))
    for number, face in enumerate(found[:MOST_FACES], 1):
        box = [(value + 0.5) * scale for value in face.box]
        for colour, width in (("black", 5), ("white", 2)):
            draw.rectangle(box, outline=colour, width=width)
        draw.text(
            (box[0] + 6, box[1] + 3),
            str(number),
            "white",
            font,
            stroke_width=2,
            stroke_fill="black",
        )
    return shown


def preview(picture: Image.Image) -> Image.Image:
    """A copy of the picture with its longer side at most `PREVIEW`."""
    small = picture.copy()
    small.thumbnail((PREVIEW, PREVIEW), Image.Resampling.LANCZOS)
    return small


@speaks_plainly
def _find(upload: dict[str, Any] | None) -> tuple[Any, Any, str]:
    nothing = None, gr.Radio([("All faces", 0)], value=0), ""
    if not upload:
        return nothing
    try:
        whole = read_upload(upload)
        found = _find_some(whole)
    except PictureError as error:
        warn(error)
        return nothing  # the boxes and numbers of the last picture are not those of this one
    numbers = [(f"Face {number}", number) for number in range(1, min(len(found), MOST_FACES) + 1)]
    count = "One face was found." if len(found) == 1 else f"{len(found)} faces were found."
    return numbered(whole, found), gr.Radio([("All faces", 0), *numbers], value=0), count


@speaks_plainly
def _recover_for_page(
    upload: dict[str, Any] | None, weights: str, face: float, match_colour: bool, strength: float
) -> tuple[Any, ...]:
    whole = read_upload(upload)
    _check(weights, strength)
    found = _find_some(whole)
    if face not in range(len(found) + 1):
        face = 0  # chosen for the last picture, before the faces of this one were shown
    recovery, seconds = _recover(whole, _chosen(found, face), weights, match_colour, strength)
    path = hand_out(recovery.picture, weights, f"picture-{weights}")
    text = note(weights, seconds, recovery.picture.size, f"{recovery.message} ")
    button = gr.DownloadButton(value=path, interactive=True)
    pair = (preview(whole), preview(recovery.picture))
    return pair, button, text, _faces(recovery, weights)


def build_whole() -> None:
    """Lay out the tab; called inside it."""
    with gr.Row(elem_classes="work"):
        with gr.Column(min_width=300):
            picture = build_picture("Picture", "whole")
            build_examples(picture, "whole", "whole", "Or try one with two faces")
            network = build_network_choice("whole")
            seen, face = _build_finder(picture)
            match = gr.Checkbox(
                True, label="Match the colours of the surroundings", elem_id="whole-match"
            )
            strength = build_strength("whole", "Press the button to see another strength.")
            button = gr.Button("Recover the faces", variant="primary", elem_id="whole-run")
        with gr.Column(min_width=300):
            comparison = build_comparison("whole", "The picture | The faces recovered", "whole")
            text = gr.Markdown(
                "The picture with its faces recovered appears here; the rest of it stays as it is.",
                elem_id="whole-note",
                elem_classes="hint",
            )
            download = build_download("whole")
            faces = build_gallery("The faces alone", "whole-faces")
    number = gr.Number(0, visible=False, label="face")  # programs count the faces
    options: dict[str, Any] = {"preprocess": False, **LONG}
    button.click(
        _recover_for_page,
        [picture, network, face, match, strength],
        [comparison, download, text, faces],
        api_visibility="private",
        show_progress_on=[comparison],
        **options,
    )
    gr.on(
        [],
        recover_whole,
        [picture, network, number, match, strength],
        [download, faces],
        api_name="recover_whole",
        **options,
    )
    with gr.Accordion("Several files at once", open=False, elem_id="files"):
        build_files()


def _build_finder(picture: gr.Image) -> tuple[gr.Image, gr.Radio]:
    """Where the faces of a picture are, and which of them to recover."""
    seen = gr.Image(
        label="The faces that were found",
        type="pil",
        format="png",
        interactive=False,
        buttons=[],
        elem_id="whole-found",
        alt_text="Your picture with a numbered box round each face that was found",
    )
    face = gr.Radio([("All faces", 0)], value=0, label="Recover", elem_id="whole-face")
    count = gr.Markdown(elem_id="whole-count", elem_classes="hint")
    picture.change(
        _find,
        picture,
        [seen, face, count],
        preprocess=False,
        show_progress="hidden",
        api_visibility="private",
        trigger_mode="always_last",
        **LOOK,
    )
    return seen, face
