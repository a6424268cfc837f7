"""Which kinds of picture are taken, and what is said of the others."""

import io

import numpy as np
import pytest
from PIL import Image, features

from face_destyle import images
from face_destyle.errors import PictureError
from tests import drawn
from tests.test_images import BLUE, GREEN, RED, WHITE, corners


def test_a_refusal_names_what_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    given = "BMP, GIF, JPEG, JPEG2000, PNG, PPM, TIFF or WEBP"
    for has_avif, names in ((True, f"AVIF, {given}"), (False, given)):
        monkeypatch.setattr(images, "HAS_AVIF", has_avif)
        if not has_avif:
            monkeypatch.delitem(Image.OPEN, "AVIF", raising=False)
        with pytest.raises(PictureError) as caught:
            images.load_picture(b"no picture")
        assert str(caught.value) == f"the file is not a picture that can be read: give {names}"


@pytest.mark.parametrize(
    "kind", ["AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "MPO", "PNG", "PPM", "TIFF", "WEBP"]
)
def test_every_kind_that_is_taken(kind: str) -> None:
    if kind == "AVIF" and not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    file = io.BytesIO()
    more = {"save_all": True, "append_images": [drawn.face()]} if kind == "MPO" else {}
    drawn.quarters().save(file, format=kind, **more)
    found = np.array(corners(images.load_picture(file.getvalue())))
    assert np.abs(found - np.array([RED, GREEN, BLUE, WHITE])).max() < 60  # lossy formats bleed
