"""The tab of TANN: a tiny, turned head in, a frontal face out; `tiny_faces` takes several heads."""

from typing import Any

import gradio as gr
from PIL import Image

from spaces_app.common import NET, TANN, hand_out, speaks_plainly
from spaces_app.framing import build_framing, enlarged, frame_upload
from spaces_app.results import (
    SIDE,
    Outcome,
    build_download,
    build_face,
    build_strength,
    connect,
    recover_square,
)
from spaces_app.tiny_faces import build_faces

LARGE = 48  # pixels: the square of a photo in which more is seen than the network sees


@speaks_plainly
def recover_tiny(
    picture: dict[str, Any] | None,
    size: float = 100,
    across: float = 0,
    down: float = 0,
    tilt: float = 0,
    strength: float = 1,
) -> tuple[Image.Image, str]:
    """Recover the frontal face from the head in a square of a photo, reduced to 16 x 16.

    Args:
        picture: a picture file.
        size: side of the square in percent of the shorter side of the picture.
        across: where the square lies, from -100 (left) over 0 (centre) to 100 (right).
        down: where the square lies, from -100 (top) over 0 (centre) to 100 (bottom).
        tilt: degrees by which the square is turned, from -45 to 45.
        strength: from 0 (the 16 x 16 pixels, enlarged) to 1 (the recovered face).

    Returns:
        The 16 x 16 pixels that the network sees, enlarged to 128 x 128 without smoothing, and
        the path of a PNG, 128 x 128.
    """
    outcome = recover_square(TANN, frame_upload(picture, size, across, down, tilt))
    return outcome.seen, hand_out(outcome.mixed(strength), TANN, f"recovered-{TANN}")


@speaks_plainly
def _recover_for_page(picture: dict[str, Any] | None, *frame: float) -> tuple[Any, ...]:
    *square_frame, strength = frame
    square = frame_upload(picture, *square_frame)
    outcome = recover_square(TANN, square)
    path = hand_out(outcome.mixed(strength), TANN, f"recovered-{TANN}")
    photo = enlarged(square) if square.width >= LARGE else None
    button = gr.DownloadButton(value=path, interactive=True)
    return outcome.seen, path, gr.Image(photo, visible=photo is not None), button, _note(outcome)


def _note(outcome: Outcome) -> str:
    return f"{outcome.note} 768 numbers went in; most of what you see is the network's guess."


def build_tiny() -> None:
    """Lay out the tab; called inside it."""
    with gr.Row(elem_classes="work"):
        with gr.Column(min_width=300):
            framing = build_framing(
                "Photo",
                "tiny",
                "Or try a tiny one",
                webcam=True,
                hint="Keep the head inside; the network sees 16 × 16 pixels of it. The head may be "
                "turned to the side.",
                rings=False,
            )
            button = gr.Button("Recover the frontal face", variant="primary", elem_id="tiny-run")
        with gr.Column(min_width=300):
            photo, seen, face = _build_row()
            strength = build_strength("tiny")
            text = gr.Markdown(
                f"The 16 × 16 pixels that the network sees and the frontal face of {SIDE} × {SIDE} "
                "appear here.",
                elem_id="tiny-note",
                elem_classes="hint",
            )
            download = build_download("tiny")
            build_faces(framing.picture, button)
    inputs = [*framing.inputs, strength]
    again = [strength.input, strength.release]
    connect(button, again, _recover_for_page, inputs, [seen, face, photo, download, text])
    gr.on(
        [],
        recover_tiny,
        inputs,
        [seen, download],
        preprocess=False,
        api_name="recover_tiny",
        **NET,
    )


def _build_row() -> tuple[gr.Image, gr.Image, gr.Image]:
    with gr.Row(elem_classes="triple"):
        photo = build_face("Photo", "tiny-photo", "The part of your photo that is used")
        seen = build_face("16 × 16", "tiny-seen", "The 16 by 16 pixels that the network sees")
        face = build_face("Frontal", "tiny-face", "The frontal face that was recovered")
    return photo, seen, face
