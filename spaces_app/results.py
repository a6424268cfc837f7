"""What a recovery tab shows: the face laid over the portrait, how much of each, a note, a file."""

from dataclasses import dataclass
from typing import Any

import gradio as gr
import torch
from PIL import Image

from face_destyle import PictureError, images
from face_destyle.attributes import UNKNOWN, Vector
from face_destyle.recovery import upright
from spaces_app.batching import recover_one
from spaces_app.common import NET, SUITS, TITLES, hand_out, note, portrait_networks, recoverer

SIDE = images.FACE_SIDE
Payload = Any  # what Gradio passes and takes without its own conversions


@dataclass(frozen=True)
class Outcome:
    """What a network made of a square.

    Attributes:
        weights: the name of the network.
        seen: what it saw, 128 x 128 RGB, turned upright where the network did so.
        face: what it made of it, 128 x 128 RGB.
        alignment: `(1, 2, 3)`, frame -> input, or None where a network does not align.
        seconds: how long the network ran.
    """

    weights: str
    seen: Image.Image
    face: Image.Image
    alignment: torch.Tensor | None
    seconds: float

    def mixed(self, strength: float) -> Image.Image:
        """Input and output laid over each other: at 0 what the network saw, at 1 the face.

        Raises:
            PictureError: no number from 0 to 1.
        """
        if not isinstance(strength, int | float) or not 0 <= strength <= 1:
            raise PictureError("strength must be a number from 0 to 1")
        # `blend` rounds down: the ends shall be exact.
        return self.face if strength == 1 else Image.blend(self.seen, self.face, strength)

    @property
    def note(self) -> str:
        """What is said under the result."""
        return note(self.weights, self.seconds, self.face.size)


def recover_square(weights: str, square: Image.Image, attributes: Vector = UNKNOWN) -> Outcome:
    """Recover the face in a square as `FaceModel.recover` does."""
    model = recoverer(weights)
    parameter = next(model.parameters())
    portrait = images.to_tensor([square], model.input_size).to(parameter)
    out = recover_one(model, portrait, attributes)
    face = images.to_picture(out.photo[0])
    (seen,) = upright(portrait, out.alignment)
    return Outcome(weights, seen, face, out.alignment, out.seconds)


@dataclass(frozen=True)
class Panel:
    """The right half of a recovery tab."""

    comparison: gr.ImageSlider
    strength: gr.Slider
    note: gr.Markdown
    download: gr.DownloadButton

    @property
    def outputs(self) -> list[gr.components.Component]:
        """What `shown` gives, in this order."""
        return [self.comparison, self.download, self.note]


def shown(outcome: Outcome, strength: float) -> tuple[Payload, Payload, str]:
    """What goes into a panel."""
    path = hand_out(outcome.mixed(strength), outcome.weights, f"recovered-{outcome.weights}")
    button = gr.DownloadButton(value=path, interactive=True)
    return (outcome.seen, path), button, outcome.note


def build_panel(prefix: str, label: str, hint: str) -> Panel:
    """Lay out what a recovery tab shows.

    Args:
        prefix: what the tab is in the names of elements.
        label: what is left and right of the line, with `|` between: also the two alt texts.
        hint: what stands where the note comes.
    """
    comparison = build_comparison(prefix, label, "square")
    strength = build_strength(prefix)
    text = gr.Markdown(hint, elem_id=f"{prefix}-note", elem_classes="hint")
    return Panel(comparison, strength, text, build_download(prefix))


def build_comparison(prefix: str, label: str, classes: str) -> gr.ImageSlider:
    """Two pictures with a line between them that can be dragged."""
    return gr.ImageSlider(
        label=label,
        type="pil",
        format="png",
        interactive=False,
        buttons=[],
        slider_position=50,
        elem_id=f"{prefix}-comparison",
        elem_classes=["comparison", *classes.split()],
    )


def build_strength(prefix: str, info: str | None = None) -> gr.Slider:
    """How much of the recovered face is seen."""
    return gr.Slider(
        0,
        1,
        value=1,
        step=0.05,
        label="Strength (0 the input, 1 the recovered face)",
        info=info,
        buttons=[],
        elem_id=f"{prefix}-strength",
        elem_classes="strength",
    )


def build_download(prefix: str, label: str = "Download the PNG") -> gr.DownloadButton:
    """A button that waits for a file."""
    return gr.DownloadButton(label, interactive=False, elem_id=f"{prefix}-download")


def build_network_choice(prefix: str) -> gr.Radio:
    """Which published network recovers the face; hidden where there is one."""
    names = portrait_networks()
    return gr.Radio(
        [(f"{TITLES[name]}: {SUITS[name]}", name) for name in names],
        value=names[0],
        label="Recover it with",
        visible=len(names) > 1,
        elem_id=f"{prefix}-network",
    )


def build_face(
    label: str, elem_id: str, alt_text: str, buttons: list[Any] | None = None
) -> gr.Image:
    """One of several square pictures in a row."""
    return gr.Image(
        label=label,
        type="pil",
        format="png",
        interactive=False,
        buttons=buttons or [],
        min_width=90,
        elem_classes=["square", "face"],
        elem_id=elem_id,
        alt_text=alt_text,
    )


def build_gallery(label: str, elem_id: str, columns: int = 4) -> gr.Gallery:
    """Square pictures with a caption each, which a click enlarges."""
    return gr.Gallery(
        label=label,
        type="filepath",
        format="png",
        columns=columns,
        height="auto",
        object_fit="cover",
        interactive=False,
        buttons=["download"],
        elem_id=elem_id,
        elem_classes="faces",
    )


def connect(
    button: gr.Button,
    again: list[Any],
    function: Any,
    inputs: list[gr.components.Component],
    outputs: list[gr.components.Component],
) -> None:
    """Run a function at the click of a button, and, where it has run, at other events.

    Args:
        button: the button.
        again: events such as the moving of a slider.
        function: takes the inputs.
        inputs: as they come, without Gradio's conversions.
        outputs: the first is the picture that shows whether it has run.
    """
    options: dict[str, Any] = {"preprocess": False, "api_visibility": "private", **NET}
    button.click(function, inputs, outputs, show_progress_on=outputs[:1], **options)

    def once_more(before: Payload, *values: Payload) -> Any:
        return function(*values) if before and any(before) else gr.skip()

    gr.on(
        again,
        once_more,
        [outputs[0], *inputs],
        outputs,
        show_progress="hidden",
        trigger_mode="always_last",
        **options,
    )
