"""Every head of a photo in the tab of TANN: found, framed as the network has learnt, recovered."""

import logging
import math
from typing import Any

import gradio as gr
import numpy as np
from PIL import Image

from face_destyle import PictureError, UserError, pasting
from face_destyle.faces import FRAME_LANDMARKS, Face, Matrix, find_faces
from face_destyle.recovery import LOOSE
from spaces_app.common import LONG, TANN, hand_out, read_upload, speaks_plainly
from spaces_app.results import SIDE, build_gallery, recover_square
from spaces_app.whole import MOST_FACES

SMALLEST = 48  # pixels: the shorter side of a photo in which several heads are looked for
FILLED = 0.6  # of a photo's shorter side: the square holds a head of this size as it comes
IN_A_ROW = 3  # pictures of each head
NO_FACE = "no face was found in this photo: choose another, or frame the head by hand"
NO_FINDER = (
    "This demo cannot look for faces, so frame each head by hand; its owner can change that with "
    "pip install 'face-destyle[faces]'."
)

Rows = list[tuple[Any, str]]

logger = logging.getLogger(__name__)


@speaks_plainly
def recover_tiny_faces(picture: dict[str, Any] | None) -> Rows:
    """Find the faces of a photo, and recover the frontal face of each from 16 x 16 pixels of it.

    Args:
        picture: a picture file.

    Returns:
        Pairs of a picture, 128 x 128, and a caption, three for each face, the largest face first
        and at most 16 of them: the part of the photo, its 16 x 16 pixels that the network sees,
        enlarged without smoothing, and a PNG of the frontal face.
    """
    photo = read_upload(picture)
    found = _found_in(photo)
    if not found:
        raise PictureError(NO_FACE)
    return _rows(photo, found)


def _found_in(photo: Image.Image) -> list[Face]:
    """The faces of a photo, the largest first.

    Raises:
        PictureError: nothing that finds faces is installed.
    """
    try:
        return find_faces(photo)
    except UserError as error:
        # Its own words are for the owner; a visitor can still frame a head.
        logger.info("the demo looks for no faces: %s", error)
        raise PictureError(NO_FINDER) from None


def _rows(photo: Image.Image, found: list[Face]) -> Rows:
    rows: Rows = []
    for number, face in enumerate(found[:MOST_FACES], 1):
        part = pasting.crop(photo, head_frame(face))
        outcome = recover_square(TANN, part)
        path = hand_out(outcome.face, TANN, f"face-{number}-{TANN}")
        rows += [(part, f"Face {number}"), (outcome.seen, f"{number}: 16 × 16")]
        rows += [(path, f"{number}: frontal")]
    return rows


def head_frame(face: Face) -> Matrix:
    """Where the network expects a head: a similarity `(2, 3)`, crop of 128 x 128 -> photo.

    The eyes of a head that is turned away are near each other, and a frame by them alone would
    hold little but eyes. As in training, all landmarks that are known come nearest to their places.
    """
    frame = face.matrix
    if face.landmarks:
        seen, places = (np.array(p, np.float32) for p in (face.landmarks, FRAME_LANDMARKS))
        frame = pasting.invert(pasting.similarity(seen, places))
    aside = (1 - LOOSE) * (SIDE - 1) / 2
    return pasting.compose(frame, np.array([[LOOSE, 0, aside], [0, LOOSE, aside]]))


@speaks_plainly
def _recover_faces_for_page(upload: dict[str, Any] | None) -> tuple[Any, Any, Any]:
    try:
        photo = read_upload(upload)
    except PictureError:
        return gr.skip(), gr.skip(), gr.skip()  # the other answer to the button says it
    try:
        found = _found_in(photo) if min(photo.size) >= SMALLEST else []
    except PictureError as error:
        return gr.Column(visible=False), [], str(error)
    if not found or (len(found) == 1 and _side(found[0]) >= FILLED * min(photo.size)):
        return gr.Column(visible=False), [], ""
    return gr.Column(visible=True), _rows(photo, found), _count(len(found))


def _side(face: Face) -> float:
    """Of the square that the network expects round a head, in pixels of the photo."""
    return SIDE * math.hypot(*head_frame(face)[:, 0])


def _count(found: int) -> str:
    number, which = (f"{found} faces were", "each") if found > 1 else ("One face was", "it")
    which = which if found <= MOST_FACES else f"each of the largest {MOST_FACES}"
    return (
        f"{number} found in the whole photo; {which} is recovered below, at full strength. "
        "Above is the square that you framed."
    )


def build_faces(picture: gr.Image, button: gr.Button) -> None:
    """Lay out the faces that are small in a photo, and fill them at the click of the button.

    Args:
        picture: what the visitor chose.
        button: recovers the square that is framed, too; that says what is wrong with a picture.
    """
    text = gr.Markdown(elem_id="tiny-count", elem_classes="hint")
    with gr.Column(visible=False) as place:
        faces = build_gallery("The faces of the photo", "tiny-faces", columns=IN_A_ROW)
    options: dict[str, Any] = {"preprocess": False, **LONG}
    button.click(
        _recover_faces_for_page,
        picture,
        [place, faces, text],
        api_visibility="private",
        show_progress="hidden",
        # While many files of others are waited for, the visitor may choose another photo.
        trigger_mode="always_last",
        **options,
    )
    gr.on([], recover_tiny_faces, picture, faces, api_name="recover_tiny_faces", **options)
