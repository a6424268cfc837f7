"""A whole picture in, a whole picture out: find the faces, recover them, paste them back."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from PIL import Image

from face_destyle import images, pasting
from face_destyle.errors import UserError
from face_destyle.faces import Face, Finder, Matrix, find_faces
from face_destyle.models.base import FaceModel, inference

BATCH_SIZE = 8
MAX_FACES = 16


@dataclass(frozen=True)
class RecoveredFace:
    """One face of a picture.

    Attributes:
        crop: what the network saw, cut out in the frame: RGB, 128 x 128.
        photo: what it made of it: RGB, 128 x 128.
        box: left, top, right, bottom in pixels of the picture.
        score: how sure the finder is, 0 to 1.
        matrix: the similarity `(2, 3)` from pixels of the photo to pixels of the picture, both
            counted from the middle of the upper left one.
    """

    crop: Image.Image
    photo: Image.Image
    box: tuple[float, float, float, float]
    score: float
    matrix: Matrix


@dataclass(frozen=True)
class Recovery:
    """What becomes of a whole picture.

    Attributes:
        picture: upright RGB, with the recovered faces where they were pasted.
        faces: the recovered faces, the largest first.
        found: how many faces there are in the picture.
    """

    picture: Image.Image
    faces: tuple[RecoveredFace, ...]
    found: int

    @property
    def message(self) -> str:
        """One sentence for people: how many faces were found and recovered."""
        if not self.found:
            return "No face was found, so the picture is unchanged; crop the face by hand."
        if self.found > len(self.faces):
            return f"{self.found} faces were found; the largest {len(self.faces)} were recovered."
        return f"{self.found} {'face was' if self.found == 1 else 'faces were'} recovered."


class FaceRecovery:
    """Recovers every face of a whole picture.

    Args:
        model: a recovery network.
        finder: what finds the faces; the best that is installed where None.

    Example:

    ```python
    from face_destyle import FaceRecovery
    recovery = FaceRecovery.from_pretrained("fdnn")
    result = recovery("painting.jpg")
    result.picture.save("recovered.png")
    print(result.message)
    ```
    """

    def __init__(self, model: FaceModel, finder: Finder | None = None):
        self.model = model
        self.finder = finder

    @classmethod
    def from_pretrained(
        cls, name: str | Path, *, finder: Finder | None = None, **kwargs: Any
    ) -> Self:
        """Load the network by a published name, a folder or an id on the Hub.

        Args:
            name: as in `FaceModel.from_pretrained`, which takes `kwargs` too.
            finder: what finds the faces; the best that is installed where None.

        Raises:
            WeightsError: nothing by that name, or files that do not fit the network.
        """
        return cls(FaceModel.from_pretrained(name, **kwargs), finder)

    def __call__(
        self,
        picture: images.Source,
        *,
        strength: float = 1.0,
        paste: bool = True,
        colour_match: bool = True,
        max_faces: int = MAX_FACES,
    ) -> Recovery:
        """Find, align and recover the faces of a picture, and paste them back.

        Args:
            picture: a path, the bytes of a file, a PIL picture, or a uint8 array.
            strength: how much of a photo is pasted over the portrait, 0 to 1; `faces` has the
                photos themselves.
            paste: False leaves `picture` as it is.
            colour_match: give the pasted photos the light and tint of their surroundings.
            max_faces: recover no more than this many, the largest.

        Returns:
            The same for the same picture. One without a face comes back unchanged: no error.

        Raises:
            PictureError: a picture that cannot be read.
            UserError: a number out of its range, or no finder is installed.
        """
        if not 0 <= strength <= 1:
            raise UserError(f"strength must be from 0 to 1, not {strength}")
        if max_faces < 1:
            raise UserError(f"max_faces must be 1 or more, not {max_faces}")
        whole = images.load_picture(picture)
        found = find_faces(whole, self.finder)
        chosen = found[:max_faces]
        faces: list[RecoveredFace] = []
        for start in range(0, len(chosen), BATCH_SIZE):
            faces += self._recover(whole, chosen[start : start + BATCH_SIZE])
        pasted = _pasted(whole, faces, strength, colour_match) if paste and faces else whole
        return Recovery(pasted, tuple(faces), len(found))

    def _recover(self, whole: Image.Image, found: Sequence[Face]) -> list[RecoveredFace]:
        crops = [pasting.crop(whole, face.matrix) for face in found]
        parameter = next(self.model.parameters())
        portraits = images.to_tensor(crops, self.model.input_size).to(parameter)
        with inference(self.model):
            out = self.model(portraits)
        matrices = [face.matrix for face in found]
        if out.alignment is not None:
            # A network that aligns its input says where in the crop its photo belongs.
            inner = out.alignment.double().cpu().numpy()
            matrices = [
                pasting.compose(matrix, _in_pixels(alignment))
                for matrix, alignment in zip(matrices, inner, strict=True)
            ]
        return [
            RecoveredFace(crop, images.to_picture(photo), face.box, face.score, matrix)
            for crop, photo, face, matrix in zip(crops, out.photo, found, matrices, strict=True)
        ]


def _in_pixels(alignment: Matrix) -> Matrix:
    """A similarity of normalised coordinates (see `models.similarity`) in pixels of the frame."""
    half = images.FACE_SIDE / 2
    pixels = np.array([[half, 0, half - 0.5], [0, half, half - 0.5]])
    return pasting.compose(pixels, pasting.compose(alignment, pasting.invert(pixels)))


def _pasted(
    whole: Image.Image, faces: Sequence[RecoveredFace], strength: float, colour_match: bool
) -> Image.Image:
    patches = []
    for face in faces:
        photo = face.photo
        if colour_match:
            photo = pasting.match_colours(photo, pasting.crop(whole, face.matrix))
        patches.append(pasting.Patch(photo, face.matrix))
    return pasting.paste(whole, patches, strength)
