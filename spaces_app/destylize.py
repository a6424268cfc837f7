"""The tab of FDNN: a portrait in, the recovered face out."""

from typing import Any

import gradio as gr
from PIL import Image

from spaces_app.common import FDNN, NET, hand_out, read_upload, speaks_plainly
from spaces_app.framing import build_framing, cut_square, frame_upload
from spaces_app.results import build_panel, connect, recover_square, shown


@speaks_plainly
def recover(
    picture: dict[str, Any] | None,
    size: float = 100,
    across: float = 0,
    down: float = 0,
    tilt: float = 0,
    strength: float = 1,
) -> str:
    """Recover the face in a square of a portrait.

    Args:
        picture: a picture file.
        size: side of the square in percent of the shorter side of the picture.
        across: where the square lies, from -100 (left) over 0 (centre) to 100 (right).
        down: where the square lies, from -100 (top) over 0 (centre) to 100 (bottom).
        tilt: degrees by which the square is turned, from -45 to 45.
        strength: from 0 (the square itself) to 1 (the recovered face).

    Returns:
        The path of a PNG, 128 x 128; without the other arguments the picture that
        `FaceModel.recover` gives.
    """
    face = recovered(read_upload(picture), size, across, down, tilt, strength)
    return hand_out(face, FDNN, f"recovered-{FDNN}")


def recovered(
    picture: Image.Image,
    size: float = 100,
    across: float = 0,
    down: float = 0,
    tilt: float = 0,
    strength: float = 1,
) -> Image.Image:
    """The recovered face of a picture; the other arguments are those of `recover`."""
    return recover_square(FDNN, cut_square(picture, size, across, down, tilt)).mixed(strength)


@speaks_plainly
def _recover_for_page(picture: dict[str, Any] | None, *frame: float) -> tuple[Any, ...]:
    *square, strength = frame
    return shown(recover_square(FDNN, frame_upload(picture, *square)), strength)


def build_destylize() -> None:
    """Lay out the tab; called inside it."""
    with gr.Row(elem_classes="work"):
        with gr.Column(min_width=300):
            framing = build_framing("Portrait", "portrait", "Or try one that this project made")
            button = gr.Button("Recover the face", variant="primary", elem_id="portrait-run")
        with gr.Column(min_width=300):
            panel = build_panel(
                "portrait",
                "The portrait | The recovered face",
                "The recovered face appears here. Drag the line to compare it with the portrait.",
            )
    inputs = [*framing.inputs, panel.strength]
    again = [panel.strength.input, panel.strength.release]
    connect(button, again, _recover_for_page, inputs, panel.outputs)
    gr.on([], recover, inputs, panel.download, preprocess=False, api_name="recover", **NET)
