"""The tab of AFRP: the visitor says what is known of the face; the portrait decides the rest."""

import math
from typing import Any

import gradio as gr
import torch
from PIL import Image

from face_destyle import PictureError, UserError, images
from face_destyle.attributes import (
    BY_NAME,
    GROUPS,
    NAMES,
    UNKNOWN,
    Vector,
    excluded_by,
    to_vector,
    with_attribute,
)
from face_destyle.models.base import inference
from face_destyle.published import WEIGHTS as TABLE
from spaces_app.batching import processor
from spaces_app.common import (
    AFRP,
    CLASSIFIER,
    NET,
    classifier,
    hand_out,
    recoverer,
    speaks_plainly,
)
from spaces_app.framing import Framing, build_framing, frame_upload
from spaces_app.results import build_gallery, build_panel, connect, recover_square, shown

YES, NO, OPEN = "yes", "no", "open"
VALUES = {YES: 1.0, NO: 0.0, OPEN: math.nan}
# Shown beside the result, each alone: turned round where the form says yes or no, else asked for,
# and for these two refused, because what a portrait leaves open is mostly young and beardless.
EDITS = (
    "Smiling",
    "Mouth_Slightly_Open",
    "Young",
    "Male",
    "Blond_Hair",
    "Black_Hair",
    "Heavy_Makeup",
    "No_Beard",
)
REFUSED_WHERE_OPEN = {"Young", "No_Beard"}
# Choosing one turns off what it excludes, without asking the server.
EXCLUDE = f'(chosen, ...others) => others.map((other) => (chosen === "{YES}" ? "{NO}" : other))'

Strip = list[tuple[str, str]]


@speaks_plainly
def recover_with_attributes(
    picture: dict[str, Any] | None,
    attributes: str = "",
    size: float = 100,
    across: float = 0,
    down: float = 0,
    tilt: float = 0,
    strength: float = 1,
) -> tuple[str, Strip]:
    """Recover the face in a square of a portrait, with attributes.

    Args:
        picture: a picture file.
        attributes: such as `Blond_Hair,Smiling,-Young`, by CelebA's names, a minus for "not"; the
            portrait decides what is not given.
        size: side of the square in percent of the shorter side of the picture.
        across: where the square lies, from -100 (left) over 0 (centre) to 100 (right).
        down: where the square lies, from -100 (top) over 0 (centre) to 100 (bottom).
        tilt: degrees by which the square is turned, from -45 to 45.
        strength: from 0 (the square, turned upright) to 1 (the recovered face).

    Returns:
        The path of a PNG, 128 x 128; and the same face with one attribute changed at a time, as
        pairs of a PNG and what was changed.
    """
    square = frame_upload(picture, size, across, down, tilt)
    try:
        wish = to_vector(attributes or "")
    except UserError as error:
        raise PictureError(str(error)) from None
    outcome = recover_square(AFRP, square, wish)
    path = hand_out(outcome.mixed(strength), AFRP, f"recovered-{AFRP}")
    return path, edits(square, wish)


def edits(square: Image.Image, wish: Vector) -> Strip:
    """The face with one attribute changed at a time: paths of PNGs, and what people read."""
    changes = [_change(name, wish) for name in EDITS]
    vectors = [with_attribute(wish, name, value) for name, value in changes]
    model = recoverer(AFRP)
    portrait = images.to_tensor([square], model.input_size).to(next(model.parameters()))
    with processor, inference(model):
        photos = model(portrait.expand(len(EDITS), -1, -1, -1), torch.tensor(vectors)).photo
    strip = []
    for photo, (name, value) in zip(photos, changes, strict=True):
        label = BY_NAME[name].label if value else BY_NAME[name].opposite
        strip.append((hand_out(images.to_picture(photo), AFRP, f"{AFRP}-{label}"), label))
    return strip


def _change(name: str, wish: Vector) -> tuple[str, bool]:
    value = wish[NAMES.index(name)]
    if math.isnan(value):
        return name, name not in REFUSED_WHERE_OPEN
    return name, value < 0.5


@speaks_plainly
def _recover_for_page(picture: dict[str, Any] | None, *values: Any) -> tuple[Any, ...]:
    *frame, strength = values[: -len(NAMES)]
    square = frame_upload(picture, *frame)
    wish = tuple(VALUES.get(value, math.nan) for value in values[-len(NAMES) :])
    return *shown(recover_square(AFRP, square, wish), strength), edits(square, wish)


def _read(picture: dict[str, Any] | None, *frame: float) -> list[str]:
    """What the classifier reads of the face, for the form."""
    if not picture:
        return _all_open()
    square, model = frame_upload(picture, *frame), classifier()
    with processor:
        found = model.decide(model.predict(square))
    return [YES if value else NO for value in found]


def _read_chosen(picture: dict[str, Any] | None, *frame: float) -> list[str]:
    """The same where a picture was just chosen: that it is bad was said by the view of it."""
    try:
        return _read(picture, *frame)
    except PictureError:
        return _all_open()


def _all_open() -> list[str]:
    return [OPEN] * len(UNKNOWN)


def build_guided() -> None:
    """Lay out the tab; called inside it."""
    with gr.Row(elem_classes="work"):
        with gr.Column(min_width=300):
            framing = build_framing(
                "Portrait", "guided", "Or try one that this project made", examples="portrait"
            )
            form = _build_form(framing)
            button = gr.Button("Recover the face", variant="primary", elem_id="guided-run")
        with gr.Column(min_width=300):
            panel = build_panel(
                "guided",
                "The portrait | The recovered face",
                "The recovered face appears here, and below it eight others, each with one "
                "attribute changed.",
            )
            strip = build_gallery("One attribute changed", "guided-edits")
    wishes = [form[name] for name in NAMES]
    # Hidden: programs give the attributes as text, people in the form.
    text = gr.Textbox("", visible=False, label="attributes")
    inputs = [*framing.inputs, panel.strength]
    again = [panel.strength.input, panel.strength.release]
    connect(button, again, _recover_for_page, [*inputs, *wishes], [*panel.outputs, strip])
    gr.on(
        [],
        recover_with_attributes,
        [framing.picture, text, *inputs[1:]],
        [panel.download, strip],
        preprocess=False,
        api_name="recover_with_attributes",
        **NET,
    )


def _build_form(framing: Framing) -> dict[str, gr.Radio]:
    """The attributes by group, each yes, no, or open; filled in by the classifier."""
    with gr.Accordion("What is known of the face", elem_id="guided-form"):
        reads = CLASSIFIER in TABLE
        gr.Markdown(
            ("A small classifier fills this in when you choose a picture. " if reads else "")
            + "Change what you know better; *as painted* leaves it to the portrait.",
            elem_classes="hint",
        )
        form: dict[str, gr.Radio] = {}
        with gr.Column(elem_classes="wishes"):
            for group, names in GROUPS.items():
                gr.Markdown(f"**{group.capitalize()}**", elem_classes="group")
                form |= {name: _build_wish(name) for name in names}
        wishes = [form[name] for name in NAMES]
        with gr.Row():
            if reads:
                read = gr.Button("Read it from the portrait", size="sm", elem_id="guided-read")
                _fill(framing, read, wishes)
            clear = gr.Button("Leave all to the portrait", size="sm", elem_id="guided-clear")
    options: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
    clear.click(_all_open, None, wishes, queue=False, **options)
    for name in NAMES:
        others = [form[other] for other in excluded_by(name)]
        if others:
            form[name].input(None, [form[name], *others], others, js=EXCLUDE, **options)
    return form


def _build_wish(name: str) -> gr.Radio:
    attribute = BY_NAME[name]
    return gr.Radio(
        [(attribute.label, YES), (attribute.opposite, NO), ("as painted", OPEN)],
        value=OPEN,
        label=attribute.label.capitalize(),
        show_label=False,
        container=False,
        elem_id=f"wish-{name}",
        elem_classes="wish",
    )


def _fill(framing: Framing, button: gr.Button, wishes: list[gr.Radio]) -> None:
    options: dict[str, Any] = {
        "preprocess": False,
        "show_progress": "hidden",
        "api_visibility": "private",
        "trigger_mode": "always_last",
        **NET,
    }
    # Earlier than that the sliders would still frame the face of the last picture.
    framing.chosen.then(speaks_plainly(_read_chosen), framing.inputs, wishes, **options)
    button.click(speaks_plainly(_read), framing.inputs, wishes, **options)
