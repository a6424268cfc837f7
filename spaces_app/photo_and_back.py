"""The tab in which a photo becomes a portrait, the portrait a photo again: both are measured."""

import time
from dataclasses import dataclass
from typing import Any

import gradio as gr
from PIL import Image

from face_destyle import images, metrics
from face_destyle.published import WEIGHTS as TABLE
from face_destyle.recovery import upright
from spaces_app.batching import processor
from spaces_app.common import (
    FDNN,
    NET,
    TITLES,
    card_link,
    check_choice,
    hand_out,
    note,
    portrait_networks,
    speaks_plainly,
    stylizer,
)
from spaces_app.framing import build_framing, frame_upload
from spaces_app.results import Outcome, build_face, build_network_choice, recover_square

STYLES = [
    ("The Scream, Munch", "style-the-scream"),
    ("The Starry Night, van Gogh", "style-starry-night"),
    ("Composition VII, Kandinsky", "style-composition-vii"),
    ("Udnie, Picabia", "style-udnie"),
]


@speaks_plainly
def photo_and_back(
    picture: dict[str, Any] | None,
    style: str,
    size: float = 100,
    across: float = 0,
    down: float = 0,
    tilt: float = 0,
    weights: str = FDNN,
) -> tuple[Image.Image, str, str, str]:
    """Stylize the face in a square of a photo, and recover it.

    Args:
        picture: a picture file.
        style: the name of a published style network.
        size: side of the square in percent of the shorter side of the picture.
        across: where the square lies, from -100 (left) over 0 (centre) to 100 (right).
        down: where the square lies, from -100 (top) over 0 (centre) to 100 (bottom).
        tilt: degrees by which the square is turned, from -45 to 45.
        weights: the name of the published network that recovers the face.

    Returns:
        The photo, the portrait, the recovered face (PNG, 128 x 128), and a table of PSNR and SSIM
        to the photo. Photo and portrait are turned upright where the network turns the portrait.
    """
    trip = _travel(picture, style, size, across, down, tilt, weights)
    return _parts(trip, style)


@dataclass(frozen=True)
class _Trip:
    """The photo in the frame of the recovered face, what became of it, and how long that took."""

    photo: Image.Image
    outcome: Outcome
    seconds: float


def _travel(
    picture: dict[str, Any] | None,
    style: str,
    size: float,
    across: float,
    down: float,
    tilt: float,
    weights: str,
) -> _Trip:
    check_choice("style", style, [name for _, name in STYLES])
    check_choice("weights", weights, portrait_networks())
    square = frame_upload(picture, size, across, down, tilt)
    side = images.FACE_SIDE
    photo = square.resize((side, side), Image.Resampling.LANCZOS)
    network = stylizer(style)
    with processor:
        start = time.perf_counter()
        portrait = network.stylize(photo, side)
        seconds = time.perf_counter() - start
    outcome = recover_square(weights, portrait)
    # The face is in the frame that the network found: only there can it be compared.
    alignment = None if outcome.alignment is None else outcome.alignment.float().cpu()
    (framed,) = upright(images.to_tensor([photo], side), alignment)
    return _Trip(framed, outcome, seconds + outcome.seconds)


def _parts(trip: _Trip, style: str) -> tuple[Image.Image, str, str, str]:
    outcome = trip.outcome
    return (
        trip.photo,
        hand_out(outcome.seen, style, f"portrait-{style}"),
        hand_out(outcome.face, outcome.weights, f"recovered-{outcome.weights}"),
        score_table(trip.photo, outcome),
    )


@speaks_plainly
def _photo_and_back_for_page(
    picture: dict[str, Any] | None, style: str, *frame: Any
) -> tuple[Any, ...]:
    trip = _travel(picture, style, *frame)
    painted = f"The portrait is by [{style}]({card_link(style)}). "
    text = note(trip.outcome.weights, trip.seconds, trip.outcome.face.size, painted)
    return *_parts(trip, style), text


def score_table(photo: Image.Image, outcome: Outcome) -> str:
    """A Markdown table: how near portrait and recovered face are to the photo, all 128 x 128."""
    side = images.FACE_SIDE
    portrait, face = outcome.seen, outcome.face
    turned = outcome.alignment is not None
    compared, shown = (", turned upright", "turned upright") if turned else ("", "as it is")
    fake = images.to_tensor([portrait, face], side)
    real = images.to_tensor([photo, photo], side)
    psnr, ssim = metrics.psnr(fake, real).tolist(), metrics.ssim(fake, real).tolist()
    return (
        f"| compared with the photo{compared} | PSNR (dB) | SSIM |\n|:--|--:|--:|\n"
        f"| portrait, {shown} | {psnr[0]:.1f} | {ssim[0]:.2f} |\n"
        f"| **recovered face** | **{psnr[1]:.1f}** | **{ssim[1]:.2f}** |"
    )


def known_styles() -> str:
    """Which of the artworks each network has learnt from, as its figures say."""
    return " ".join(filter(None, map(_known_to, portrait_networks())))


def _known_to(weights: str) -> str:
    rows = TABLE[weights].figures().get("styles", {})
    # The figures call `style-the-scream` `the_scream`.
    keys = {title: name.removeprefix("style-").replace("-", "_") for title, name in STYLES}
    if not all(key in rows for key in keys.values()):
        return ""
    learnt = [title for title, key in keys.items() if rows[key]["seen"]]
    if len(learnt) == len(keys):
        return f"{TITLES[weights]} has learnt from portraits after all of these artworks."
    if not learnt:
        return f"All of these artworks are new to {TITLES[weights]}."
    named = ", ".join(title.partition(",")[0] for title in learnt)
    return f"{TITLES[weights]} has learnt from portraits after {named}; the others are new to it."


def build_photo_and_back() -> None:
    """Lay out the tab; called inside it."""
    with gr.Row(elem_classes="work"):
        with gr.Column(min_width=300):
            framing = build_framing(
                "Photo", "photo", "Or try a drawing, or a photo by NASA", webcam=True
            )
            style = gr.Radio(
                STYLES,
                value=STYLES[0][1],
                label="Paint it in the manner of",
                info=known_styles() or None,
                elem_id="style",
            )
            network = build_network_choice("back")
            button = gr.Button("Paint it and recover it", variant="primary", elem_id="back-run")
        with gr.Column(min_width=300):
            with gr.Row(elem_classes="triple"):
                photo = build_face("Photo", "back-photo", "The photo in the frame of the face")
                portrait = build_face(
                    "Portrait",
                    "back-portrait",
                    "The photo painted by the style network",
                    ["download"],
                )
                face = build_face(
                    "Recovered",
                    "back-recovered",
                    "The face recovered from the portrait",
                    ["download"],
                )
            scores = gr.Markdown(
                "Photo, portrait and recovered face appear here, with two measures of how near "
                "they are: PSNR (decibels) and SSIM (at most 1); higher is nearer.",
                elem_id="back-scores",
                elem_classes="hint",
            )
            text = gr.Markdown(elem_id="back-note", elem_classes="hint")
    inputs = [framing.picture, style, *framing.sliders, network]
    outputs = [photo, portrait, face, scores]
    button.click(
        _photo_and_back_for_page,
        inputs,
        [*outputs, text],
        preprocess=False,
        api_visibility="private",
        show_progress_on=[photo, portrait, face],
        **NET,
    )
    gr.on([], photo_and_back, inputs, outputs, preprocess=False, api_name="photo_and_back", **NET)
