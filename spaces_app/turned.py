"""The tab of IFRP: the face may be turned, shifted and scaled; the network finds how."""

from typing import Any

import gradio as gr
import torch
from PIL import Image, ImageDraw

from face_destyle import images
from face_destyle.faces import FRAME_EYES
from face_destyle.models.similarity import parameters_of, transform
from spaces_app.common import IFRP, NET, hand_out, speaks_plainly
from spaces_app.framing import VIEW_SIDE, build_framing, enlarged, frame_upload
from spaces_app.results import build_panel, connect, recover_square, shown

Points = tuple[tuple[float, float], ...]


@speaks_plainly
def recover_turned(
    picture: dict[str, Any] | None,
    size: float = 100,
    across: float = 0,
    down: float = 0,
    tilt: float = 0,
    strength: float = 1,
) -> tuple[str, Image.Image]:
    """Recover the upright face from a square of a portrait in which it may be turned and shifted.

    Args:
        picture: a picture file.
        size: side of the square in percent of the shorter side of the picture.
        across: where the square lies, from -100 (left) over 0 (centre) to 100 (right).
        down: where the square lies, from -100 (top) over 0 (centre) to 100 (bottom).
        tilt: degrees by which the square is turned, from -45 to 45.
        strength: from 0 (the square, turned upright) to 1 (the recovered face).

    Returns:
        The path of a PNG, 128 x 128, and the square with the alignment that was found drawn into
        it, 256 x 256.
    """
    square = frame_upload(picture, size, across, down, tilt)
    outcome = recover_square(IFRP, square)
    path = hand_out(outcome.mixed(strength), IFRP, f"recovered-{IFRP}")
    return path, overlay(square, outcome.alignment)


def overlay(square: Image.Image, alignment: torch.Tensor | None) -> Image.Image:
    """The square, enlarged, with the frame and the eyes of the face where a network found them.

    Args:
        square: what the network saw.
        alignment: `(1, 2, 3)`, frame -> square; None draws nothing.
    """
    drawn = enlarged(square)
    if alignment is None:
        return drawn
    draw = ImageDraw.Draw(drawn)
    frame = _in_view(alignment, ((-1, -1), (1, -1), (1, 1), (-1, 1)))
    half = images.FACE_SIDE / 2
    middles = tuple(((x + 0.5) / half - 1, (y + 0.5) / half - 1) for x, y in FRAME_EYES)
    eyes = _in_view(alignment, middles)
    # A light line on a dark one is seen on any picture.
    for colour, width in (("black", 4), ("white", 2)):
        draw.line([*frame, frame[0]], fill=colour, width=width, joint="curve")
        draw.line(frame[:2], fill=colour, width=width + 3)  # the top, to show which way is up
        for eye in eyes:
            draw.circle(eye, 6 + width // 2, outline=colour, width=width)
    return drawn


def _in_view(alignment: torch.Tensor, points: Points) -> list[tuple[float, float]]:
    """Points of the frame, normalised, in pixels of the view."""
    found = transform(alignment.float().cpu(), torch.tensor(points, dtype=torch.float32))
    half = VIEW_SIDE / 2
    return [((x + 1) * half - 0.5, (y + 1) * half - 0.5) for x, y in found[0].tolist()]


def words(alignment: torch.Tensor | None) -> str:
    """The alignment as a sentence."""
    if alignment is None:
        return ""
    angle, scale, _, _ = parameters_of(alignment)[0].tolist()
    way = "clockwise" if angle >= 0 else "counterclockwise"
    return f"Found: turned {abs(angle):.0f}° {way}, {scale:.2f} times the usual size."


@speaks_plainly
def _recover_for_page(picture: dict[str, Any] | None, *frame: float) -> tuple[Any, ...]:
    *square_frame, strength = frame
    square = frame_upload(picture, *square_frame)
    outcome = recover_square(IFRP, square)
    found = words(outcome.alignment)
    return (*shown(outcome, strength), overlay(square, outcome.alignment), found)


def build_turned() -> None:
    """Lay out the tab; called inside it."""
    with gr.Row(elem_classes="work"):
        with gr.Column(min_width=300):
            framing = build_framing(
                "Portrait",
                "turned",
                "Or try one that leans",
                hint="Keep the whole face inside. It may lean by up to 45 degrees and need not be "
                "in the middle.",
                rings=False,
            )
            button = gr.Button("Recover the face", variant="primary", elem_id="turned-run")
        with gr.Column(min_width=300):
            panel = build_panel(
                "turned",
                "The portrait, turned upright | The recovered face",
                "The recovered face appears here, upright.",
            )
            found, text = _build_overlay()
    inputs = [*framing.inputs, panel.strength]
    again = [panel.strength.input, panel.strength.release]
    connect(button, again, _recover_for_page, inputs, [*panel.outputs, found, text])
    gr.on(
        [],
        recover_turned,
        inputs,
        [panel.download, found],
        preprocess=False,
        api_name="recover_turned",
        **NET,
    )


def _build_overlay() -> tuple[gr.Image, gr.Markdown]:
    with gr.Row(elem_classes="framing", equal_height=False):
        with gr.Column(scale=2, min_width=170):
            found = gr.Image(
                label="Where the face was found",
                type="pil",
                format="png",
                interactive=False,
                buttons=[],
                elem_id="turned-overlay",
                elem_classes="square",
                alt_text="Your picture with a square where the face was found, and two rings at "
                "its eyes",
            )
        with gr.Column(scale=3, min_width=170):
            text = gr.Markdown(
                "The square that the network takes for the upright face is drawn here, its top "
                "thicker, with rings at the eyes.",
                elem_id="turned-words",
                elem_classes="hint",
            )
    return found, text
