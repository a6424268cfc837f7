"""The second tab: a photo becomes a portrait, the portrait a photo again, and both are measured."""

from typing import Any

import gradio as gr
from PIL import Image

from face_destyle import PictureError, images, metrics
from spaces_app.common import NET, WEIGHTS, hand_out, recoverer, speaks_plainly, stylizer
from spaces_app.framing import build_framing, frame_upload

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
) -> tuple[Image.Image, str, str, str]:
    """Stylize the face in a square of a photo, and recover it.

    Args:
        picture: a picture file.
        style: the name of a published style network.
        size: side of the square in percent of the shorter side of the picture.
        across: where the square lies, from -100 (left) over 0 (centre) to 100 (right).
        down: where the square lies, from -100 (top) over 0 (centre) to 100 (bottom).
        tilt: degrees by which the square is turned, from -45 to 45.

    Returns:
        The photo as the networks see it, the portrait, the recovered face (PNG, 128 x 128),
        and a table of PSNR and SSIM to the photo.
    """
    names = [name for _, name in STYLES]
    if style not in names:
        raise PictureError(f"style must be one of {', '.join(names)}")
    square = frame_upload(picture, size, across, down, tilt)
    side = images.FACE_SIDE
    photo = square.resize((side, side), Image.Resampling.LANCZOS)
    portrait = stylizer(style).stylize(photo, side)
    face = recoverer().recover(portrait)
    return (
        photo,
        hand_out(portrait, style, f"portrait-{style}"),
        hand_out(face, WEIGHTS, "recovered-fdnn"),
        score_table(photo, portrait, face),
    )


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
                info="The recovery network has learnt from another network's portraits after "
                "The Scream; the other three artworks are new to it.",
                elem_id="style",
            )
            button = gr.Button("Paint it and recover it", variant="primary", elem_id="back")
        with gr.Column(min_width=300):
            with gr.Row(elem_classes="triple"):
                photo = _output("Photo", "The photo as the network sees it", [])
                portrait = _output(
                    "Portrait", "The photo painted by the style network", ["download"]
                )
                face = _output("Recovered", "The face recovered from the portrait", ["download"])
            scores = gr.Markdown(
                "Photo, portrait and recovered face appear here, with two measures of how near "
                "they are: PSNR (decibels) and SSIM (at most 1); higher is nearer.",
                elem_id="scores",
                elem_classes="hint",
            )
    button.click(
        photo_and_back,
        [framing.picture, style, *framing.sliders],
        [photo, portrait, face, scores],
        preprocess=False,
        api_name="photo_and_back",
        show_progress_on=[photo, portrait, face],
        **NET,
    )


def _output(label: str, alt_text: str, buttons: list[Any]) -> gr.Image:
    return gr.Image(
        label=label,
        type="pil",
        format="png",
        interactive=False,
        buttons=buttons,
        min_width=90,
        elem_classes=["square", "face"],
        elem_id=f"back-{label.lower()}",
        alt_text=alt_text,
    )
