"""Crop by hand: which square of a picture is the face, and a view of what the network sees."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
from PIL import Image, ImageDraw

from face_destyle import PictureError, images
from face_destyle.faces import FRAME_EYES
from spaces_app.common import LOOK, read_upload, speaks_plainly

EXAMPLES = Path(__file__).parent / "examples"
VIEW_SIDE = 256
LIMITS = {"size": (10, 100), "across": (-100, 100), "down": (-100, 100), "tilt": (-45, 45)}


def cut_square(
    picture: Image.Image, size: float, across: float, down: float, tilt: float
) -> Image.Image:
    """Cut the square that is to be taken as the face.

    Args:
        picture: upright RGB.
        size: side of the square in percent of the shorter side of the picture.
        across: where it lies in the room it has, from -100 (left) over 0 (centre) to 100 (right).
        down: where it lies in the room it has, from -100 (top) over 0 (centre) to 100 (bottom).
        tilt: degrees by which the face leans to its left shoulder, taken out by turning.

    Returns:
        An RGB square; with 100, 0, 0, 0 exactly the centre square that `recover` takes.

    Raises:
        PictureError: a value beyond `LIMITS`.
    """
    values = {"size": size, "across": across, "down": down, "tilt": tilt}
    for name, value in values.items():
        low, high = LIMITS[name]
        if not isinstance(value, int | float) or not low <= value <= high:
            raise PictureError(f"{name} must be a number from {low} to {high}")
    side = max(1, round(min(picture.size) * size / 100))
    left = math.floor((picture.width - side) * (1 + across / 100) / 2)
    top = math.floor((picture.height - side) * (1 + down / 100) / 2)
    if tilt == 0:
        return picture.crop((left, top, left + side, top + side))
    cos, sin = math.cos(math.radians(tilt)), math.sin(math.radians(tilt))
    half = side / 2
    # Output pixel -> input pixel: turned about the middle of the square.
    matrix = (
        *(cos, -sin, left + half - cos * half + sin * half),
        *(sin, cos, top + half - sin * half - cos * half),
    )
    return picture.transform(
        (side, side),
        Image.Transform.AFFINE,
        matrix,
        resample=Image.Resampling.BICUBIC,
        fillcolor="white",
    )


def frame_upload(
    upload: dict[str, Any] | None, size: float, across: float, down: float, tilt: float
) -> Image.Image:
    """Read an upload and cut its square."""
    return cut_square(read_upload(upload), size, across, down, tilt)


def view(square: Image.Image) -> Image.Image:
    """The square as the network sees it, enlarged, with rings where it expects the eyes."""
    shown = images.centre_square(square).resize((VIEW_SIDE, VIEW_SIDE), Image.Resampling.LANCZOS)
    scale, radius = VIEW_SIDE / images.FACE_SIDE, 13
    draw = ImageDraw.Draw(shown)
    for x, y in FRAME_EYES:
        box = [x * scale - radius, y * scale - radius, x * scale + radius, y * scale + radius]
        draw.ellipse([box[0] - 1, box[1] - 1, box[2] + 1, box[3] + 1], outline="black", width=4)
        draw.ellipse(box, outline="white", width=2)
    return shown


@speaks_plainly
def _look(
    upload: dict[str, Any] | None, size: float, across: float, down: float, tilt: float
) -> Image.Image | None:
    return view(frame_upload(upload, size, across, down, tilt)) if upload else None


@dataclass(frozen=True)
class Framing:
    """The controls of one tab: the picture, and the four sliders that frame the face in it."""

    picture: gr.Image
    sliders: list[gr.Slider]
    view: gr.Image

    @property
    def inputs(self) -> list[gr.components.Component]:
        """What a function behind a button takes: `(upload, size, across, down, tilt)`."""
        return [self.picture, *self.sliders]


def build_framing(label: str, prefix: str, invitation: str, webcam: bool = False) -> Framing:
    """Lay out upload, examples, sliders and view, and keep the view up to date.

    Args:
        label: what the picture is, for the visitor.
        prefix: what it is in the names of elements and of the examples' files.
        invitation: the line above the examples.
        webcam: whether the picture may be taken by a camera.
    """
    picture = gr.Image(
        label=label,
        type="filepath",
        image_mode=None,
        format="png",
        sources=["upload", "webcam", "clipboard"] if webcam else ["upload", "clipboard"],
        buttons=[],
        height=300,
        elem_id=f"{prefix}-picture",
        alt_text=f"{label}: the picture you chose",
        placeholder="Drop a picture here\nor click to choose one, up to 10 MB",
    )
    with gr.Column(elem_classes="examples"):
        gr.Examples(
            [[str(path)] for path in sorted(EXAMPLES.glob(f"{prefix}-*.png"))],
            picture,
            label=invitation,
            elem_id=f"{prefix}-examples",
            api_visibility="private",
        )
    with gr.Row(elem_classes="framing", equal_height=False):
        with gr.Column(scale=2, min_width=170):
            seen = gr.Image(
                label="What the network sees",
                type="pil",
                format="png",
                interactive=False,
                buttons=[],
                elem_id=f"{prefix}-view",
                elem_classes="square",
                alt_text="The square of your picture that is taken as the face",
            )
        with gr.Column(scale=3, min_width=170, elem_classes="sliders"):
            gr.Markdown("Move the eyes into the rings.", elem_classes="hint")
            sliders = [
                _slider("Size (% of the shorter side)", "size", 100),
                _slider("Left – right", "across", 0),
                _slider("Up – down", "down", 0),
                _slider("Tilt (degrees)", "tilt", 0),
            ]
    framing = Framing(picture, sliders, seen)
    quiet: dict[str, Any] = {
        "preprocess": False,
        "show_progress": "hidden",
        "api_visibility": "private",
        "trigger_mode": "always_last",
        **LOOK,
    }
    gr.on(
        [slider.input for slider in sliders] + [slider.release for slider in sliders],
        _look,
        framing.inputs,
        seen,
        **quiet,
    )
    start = [slider.value for slider in sliders]
    picture.change(
        lambda: start, None, sliders, show_progress="hidden", api_visibility="private"
    ).then(_look, framing.inputs, seen, **quiet)
    return framing


def _slider(label: str, name: str, value: int) -> gr.Slider:
    low, high = LIMITS[name]
    return gr.Slider(low, high, value=value, step=1, label=label, buttons=[], elem_classes="frame")
