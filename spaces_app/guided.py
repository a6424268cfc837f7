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
from spaces_app.batching import processor
from spaces_app.common import (
    AFRP,
    NET,
    classifier,
    hand_out,
    recoverer,
    speaks_plainly,
)
from spaces_app.framing import Framing, build_framing, frame_upload
from spaces_app.results import (
    Outcome,
    build_gallery,
    build_panel,
    connect,
    recover_square,
    shown,
)

YES, NO, OPEN = "yes", "no", "open"
VALUES = {YES: 1.0, NO: 0.0, OPEN: math.nan}
SEEN = "seen"
# Shown beside the result, each alone: what is asked for, or else what is seen, turned round.
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
    return path, edits(square, wish, outcome)


def edits(square: Image.Image, wish: Vector, outcome: Outcome) -> Strip:
    """The face with one attribute changed at a time: paths of PNGs, and what people read."""
    seen = see(outcome.face)
    changes = [(name, _other(name, wish, seen)) for name in EDITS]
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


def see(face: Image.Image) -> Vector:
    """What the classifier sees in a recovered face."""
    model = classifier()
    with processor:
        return model.decide(model.predict(face))


def _other(name: str, wish: Vector, seen: Vector) -> bool:
    """Whether an attribute shall be there, so that the face is another one."""
    place = NAMES.index(name)
    value = seen[place] if math.isnan(wish[place]) else wish[place]
    return value < 0.5


@speaks_plainly
def _recover_for_page(picture: dict[str, Any] | None, *values: Any) -> tuple[Any, ...]:
    *frame, strength = values[: -len(NAMES)]
    square = frame_upload(picture, *frame)
    wish = tuple(VALUES.get(value, math.nan) for value in values[-len(NAMES) :])
    outcome = recover_square(AFRP, square, wish)
    return *shown(outcome, strength), edits(square, wish, outcome)


def _read(picture: dict[str, Any] | None, *frame: float) -> list[dict[str, Any]]:
    """The form, with what is seen in the face that the portrait gives by itself.

    It marks, and does not choose: what a classifier says of a portrait, asked for, makes the face
    worse than what the network sees in it by itself.
    """
    if not picture:
        return _marked(UNKNOWN)
    seen = see(recover_square(AFRP, frame_upload(picture, *frame)).face)
    return _marked(seen)


def _read_chosen(picture: dict[str, Any] | None, *frame: float) -> list[dict[str, Any]]:
    """The same where a picture was just chosen: that it is bad was said by the view of it."""
    try:
        marked = _read(picture, *frame)
    except PictureError:
        marked = _marked(UNKNOWN)
    # What was known of the face before is not known of this one.
    return [row | {"value": OPEN} for row in marked]


def _marked(seen: Vector) -> list[dict[str, Any]]:
    """The choices for each attribute, with the one that is seen marked."""
    return [
        gr.update(choices=_choices(name, value)) for name, value in zip(NAMES, seen, strict=True)
    ]


def _choices(name: str, seen: float = math.nan) -> list[tuple[str, str]]:
    attribute = BY_NAME[name]
    labels = {YES: attribute.label, NO: attribute.opposite, OPEN: "as painted"}
    return [
        (f"{label} ({SEEN})" if VALUES[value] == seen else label, value)
        for value, label in labels.items()
    ]


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
    """The attributes by group, each yes, no, or open; what the classifier sees is marked."""
    with gr.Accordion("What is known of the face", elem_id="guided-form"):
        gr.Markdown(
            f"What a small classifier sees in the recovered face is marked *({SEEN})*. Choose what "
            "you know better; *as painted* leaves it to the portrait.",
            elem_classes="hint",
        )
        form: dict[str, gr.Radio] = {}
        with gr.Column(elem_classes="wishes"):
            for group, names in GROUPS.items():
                gr.Markdown(f"**{group.capitalize()}**", elem_classes="group")
                form |= {name: _build_wish(name) for name in names}
        wishes = [form[name] for name in NAMES]
        with gr.Row():
            read = gr.Button("See what is painted", size="sm", elem_id="guided-read")
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
    return gr.Radio(
        _choices(name),
        value=OPEN,
        label=BY_NAME[name].label.capitalize(),
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
