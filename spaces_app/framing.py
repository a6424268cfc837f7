"""Crop by hand: which square of a picture is the face, and a view of what the network sees."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr
from PIL import Image, ImageDraw

from face_destyle import PictureError, images
from face_destyle.faces import FRAME_EYES
from spaces_app.common import LOOK, read_upload, warn

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


def enlarged(square: Image.Image) -> Image.Image:
    """A square at the size in which the page shows one."""
    return images.centre_square(square).resize((VIEW_SIDE, VIEW_SIDE), Image.Resampling.LANCZOS)


def view(square: Image.Image) -> Image.Image:
    """The square as the network sees it, enlarged, with rings where it expects the eyes."""
    shown = enlarged(square)
    scale, radius = VIEW_SIDE / images.FACE_SIDE, 13
    draw = ImageDraw.Draw(shown)
    for x, y in FRAME_EYES:
        box = [x * scale - radius, y * scale - radius, x * scale + radius, y * scale + radius]
        draw.ellipse([box[0] - 1, box[1] - 1, box[2] + 1, box[3] + 1], outline="black", width=4)
        draw.ellipse(box, outline="white", width=2)
    return shown


@dataclass(frozen=True)
class Framing:
    """The controls of one tab: the picture, and the four sliders that frame the face in it.

    Attributes:
        picture: what the visitor chose.
        sliders: size, across, down and tilt of the square.
        view: the square.
        chosen: happens when a picture was chosen and the sliders are back at their start.
    """

    picture: gr.Image
    sliders: list[gr.Slider]
    view: gr.Image
    chosen: gr.events.Dependency

    @property
    def inputs(self) -> list[gr.components.Component]:
        """What a function behind a button takes: `(upload, size, across, down, tilt)`."""
        return [self.picture, *self.sliders]


def build_picture(label: str, prefix: str, webcam: bool = False) -> gr.Image:
    """A place for a picture file, which goes to the functions as it is.

    Args:
        label: what the picture is, for the visitor.
        prefix: what it is in the names of elements.
        webcam: whether the picture may be taken by a camera.
    """
    return gr.Image(
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


def build_examples(picture: gr.Image, kind: str, prefix: str, invitation: str) -> None:
    """Examples to click: the files of `EXAMPLES` whose names begin with `kind`."""
    with gr.Column(elem_classes="examples"):
        gr.Examples(
            [[str(path)] for path in sorted(EXAMPLES.glob(f"{kind}-*.png"))],
            picture,
            label=invitation,
            elem_id=f"{prefix}-examples",
            api_visibility="private",
        )


def build_framing(
    label: str,
    prefix: str,
    invitation: str,
    *,
    examples: str = "",
    webcam: bool = False,
    hint: str = "Move the eyes into the rings.",
    rings: bool = True,
) -> Framing:
    """Lay out upload, examples, sliders and view, and keep the view up to date.

    Args:
        label: what the picture is, for the visitor.
        prefix: what it is in the names of elements.
        invitation: the line above the examples.
        examples: what the names of the examples' files begin with; `prefix` where empty.
        webcam: whether the picture may be taken by a camera.
        hint: what the visitor shall do.
        rings: whether rings show where the network expects the eyes.
    """
    picture = build_picture(label, prefix, webcam)
    build_examples(picture, examples or prefix, prefix, invitation)
    with gr.Row(elem_classes="framing", equal_height=False):
        with gr.Column(scale=2, min_width=170):
            seen = gr.Image(
                label="The part that is used",
                type="pil",
                format="png",
                interactive=False,
                buttons=[],
                elem_id=f"{prefix}-view",
                elem_classes="square",
                alt_text="The square of your picture that is taken as the face",
            )
        with gr.Column(scale=3, min_width=170, elem_classes="sliders"):
            gr.Markdown(hint, elem_classes="hint")
            sliders = [
                _slider("Size (% of the shorter side)", "size", 100),
                _slider("Left – right", "across", 0),
                _slider("Up – down", "down", 0),
                _slider("Tilt (degrees)", "tilt", 0),
            ]
    chosen = _keep_up_to_date(picture, sliders, seen, view if rings else enlarged)
    return Framing(picture, sliders, seen, chosen)


def look(
    show: Callable[[Image.Image], Image.Image], upload: dict[str, Any] | None, *frame: float
) -> Image.Image | None:
    """The square of an upload as `show` draws it; a bad file is told, and leaves no square."""
    if not upload:
        return None
    try:
        return show(frame_upload(upload, *frame))
    except PictureError as error:
        warn(error)
        return None


def _keep_up_to_date(
    picture: gr.Image,
    sliders: list[gr.Slider],
    seen: gr.Image,
    show: Callable[[Image.Image], Image.Image],
) -> gr.events.Dependency:
    looking = partial(look, show)
    quiet: dict[str, Any] = {
        "preprocess": False,
        "show_progress": "hidden",
        "api_visibility": "private",
        "trigger_mode": "always_last",
        **LOOK,
    }
    moved = [slider.input for slider in sliders] + [slider.release for slider in sliders]
    gr.on(moved, looking, [picture, *sliders], seen, **quiet)
    start = [slider.value for slider in sliders]
    reset = picture.change(
        lambda: start, None, sliders, show_progress="hidden", api_visibility="private"
    )
    then: gr.events.Dependency = reset.then(looking, [picture, *sliders], seen, **quiet)
    return then


def _slider(label: str, name: str, value: int) -> gr.Slider:
    low, high = LIMITS[name]
    return gr.Slider(low, high, value=value, step=1, label=label, buttons=[], elem_classes="frame")
