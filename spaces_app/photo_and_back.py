"""The tab in which a photo becomes a portrait, the portrait a photo again: both are measured."""

import time
from typing import Any

import gradio as gr
from PIL import Image

from face_destyle import images, metrics
from spaces_app.batching import processor
from spaces_app.common import (
    FDNN,
    NET,
    card_link,
    check_choice,
    hand_out,
    note,
    portrait_networks,
    speaks_plainly,
    stylizer,
)
from spaces_app.framing import build_framing, frame_upload
from spaces_app.results import build_face, build_network_choice, recover_square

# `fdnn` learnt from portraits after the first artwork, by another network, and from none after the
# others.
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
        The photo as the networks see it, the portrait, the recovered face (PNG, 128 x 128),
        and a table of PSNR and SSIM to the photo.
    """
    check_choice("style", style, [name for _, name in STYLES])
    check_choice("weights", weights, portrait_networks())
    square = frame_upload(picture, size, across, down, tilt)
    side = images.FACE_SIDE
    photo = square.resize((side, side), Image.Resampling.LANCZOS)
    network = stylizer(style)
    with processor:
        portrait = network.stylize(photo, side)
    face = recover_square(weights, portrait).face
    return (
        photo,
        hand_out(portrait, style, f"portrait-{style}"),
        hand_out(face, weights, f"recovered-{weights}"),
        score_table(photo, portrait, face),
    )


@speaks_plainly
def _photo_and_back_for_page(
    picture: dict[str, Any] | None, style: str, *frame: Any
) -> tuple[Any, ...]:
    start = time.perf_counter()
    result = photo_and_back(picture, style, *frame)
    seconds = time.perf_counter() - start
    painted = f"The portrait is by [{style}]({card_link(style)}). "
    return *result, note(frame[-1], seconds, (images.FACE_SIDE,) * 2, painted)


def score_table(photo: Image.Image, portrait: Image.Image, face: Image.Image) -> str:
    """A Markdown table: how near portrait and recovered face are to the photo, all 128 x 128."""
    side = images.FACE_SIDE
    fake = images.to_tensor([portrait, face], side)
    real = images.to_tensor([photo, photo], side)
    psnr, ssim = metrics.psnr(fake, real).tolist(), metrics.ssim(fake, real).tolist()
    return (
        "| compared with the photo | PSNR (dB) | SSIM |\n|:--|--:|--:|\n"
        f"| portrait, as it is | {psnr[0]:.1f} | {ssim[0]:.2f} |\n"
        f"| **recovered face** | **{psnr[1]:.1f}** | **{ssim[1]:.2f}** |"
    )


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
                info="FDNN has learnt from another network's portraits after The Scream; the other "
                "three artworks are new to it.",
                elem_id="style",
            )
            network = build_network_choice("back")
            button = gr.Button("Paint it and recover it", variant="primary", elem_id="back-run")
        with gr.Column(min_width=300):
            with gr.Row(elem_classes="triple"):
                photo = build_face("Photo", "back-photo", "The photo as the network sees it")
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
