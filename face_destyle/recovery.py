"""A whole picture in, a whole picture out: find the faces, recover them, paste them back."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self, runtime_checkable

import numpy as np
import torch
from PIL import Image

from face_destyle import images, pasting
from face_destyle.attributes import Attributes
from face_destyle.errors import UserError
from face_destyle.faces import Face, Finder, Matrix, find_faces
from face_destyle.models.base import FaceModel, Recovered, inference
from face_destyle.models.similarity import warp

BATCH_SIZE = 8
MAX_FACES = 16
# A network that aligns its input is trained on faces of 0.8 to 1.0 times their size in the frame:
# what it is given is larger than the frame by so much, which leaves it room on every side.
LOOSE = 1 / 0.9


@dataclass(frozen=True)
class RecoveredFace:
    """One face of a picture.

    Attributes:
        crop: what the network saw, RGB, 128 x 128: the frame, or, of a network that aligns its
            input, a square a little larger.
        photo: what it made of it, in the frame: RGB, 128 x 128.
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
        picture: upright RGB, with the recovered faces where they were pasted; everywhere else
            pixel for pixel the input, as `images.load_picture` reads it.
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
        attributes: Attributes | None = None,
        strength: float = 1.0,
        paste: bool = True,
        match_colour: bool = True,
        max_faces: int = MAX_FACES,
        batch_size: int = BATCH_SIZE,
    ) -> Recovery:
        """Find, align and recover the faces of a picture, and paste them back.

        Args:
            picture: a path, the bytes of a file, a PIL picture, or a uint8 array.
            attributes: of all the faces, for a network that takes them: as in
                `attributes.to_vector`; each portrait decides what is not given.
            strength: how much of a photo is pasted over the portrait, 0 to 1; `faces` has the
                photos themselves.
            paste: False leaves `picture` as it is.
            match_colour: give the pasted photos the light and tint of their surroundings.
            max_faces: recover no more than this many, the largest.
            batch_size: how many faces go through the network at a time.

        Returns:
            The same for the same picture. One without a face comes back unchanged: no error.

        Raises:
            PictureError: a picture that cannot be read.
            UserError: a number out of its range, no finder is installed, or the network takes no
                attributes.
        """
        check_strength(strength)
        for name, value in (("max_faces", max_faces), ("batch_size", batch_size)):
            if value < 1:
                raise UserError(f"{name} must be 1 or more, not {value}")
        model = with_attributes(self.model, attributes)
        whole = images.load_picture(picture, reduce=False)
        found = find_faces(whole, self.finder)
        chosen = found[:max_faces]
        faces: list[RecoveredFace] = []
        for start in range(0, len(chosen), batch_size):
            faces += _recovered(model, whole, chosen[start : start + batch_size])
        pasted = _pasted(whole, faces, strength, match_colour) if paste and faces else whole
        return Recovery(pasted, tuple(faces), len(found))


def _recovered(model: FaceModel, whole: Image.Image, found: Sequence[Face]) -> list[RecoveredFace]:
    """The photos of some faces of a picture, and where in it they belong."""
    cuts = [face.matrix if model.expects_aligned else _loose(face.matrix) for face in found]
    crops = [pasting.crop(whole, cut) for cut in cuts]
    out = _through(model, _to_tensor(model, crops))
    matrices = [face.matrix for face in found]
    if out.alignment is not None:
        # A network that aligns its input says where in the crop its photo belongs.
        inner = out.alignment.double().cpu().numpy()
        matrices = [
            pasting.compose(cut, _in_pixels(alignment))
            for cut, alignment in zip(cuts, inner, strict=True)
        ]
    return [
        RecoveredFace(crop, images.to_picture(photo), face.box, face.score, matrix)
        for crop, photo, face, matrix in zip(crops, out.photo, found, matrices, strict=True)
    ]


def read_portrait(picture: images.Source, model: FaceModel) -> Image.Image:
    """The centre square of a picture, as small as the network takes it.

    Raises:
        PictureError: a picture that cannot be read.
    """
    square = images.centre_square(images.load_picture(picture))
    return square.resize((model.input_size, model.input_size), Image.Resampling.LANCZOS)


def recover_portraits(
    model: FaceModel, portraits: Sequence[Image.Image], strength: float = 1.0
) -> list[Image.Image]:
    """Recover portraits as `FaceModel.recover` does, and mix each photo with its portrait.

    Args:
        model: a recovery network.
        portraits: of `read_portrait`; they go through the network together.
        strength: of the photo, 0 to 1; the rest is the portrait as the network saw it, turned
            upright where it did so.

    Raises:
        UserError: a strength out of its range.
    """
    check_strength(strength)
    seen = _to_tensor(model, portraits)
    out = _through(model, seen)
    photos = [images.to_picture(photo) for photo in out.photo]
    if strength == 1:
        return photos
    return [
        Image.blend(portrait, photo, strength)
        for portrait, photo in zip(upright(seen, out.alignment), photos, strict=True)
    ]


def upright(portraits: torch.Tensor, alignment: torch.Tensor | None) -> list[Image.Image]:
    """`(N, 3, S, S)` as pictures of the size of a photo, turned as the network turned them."""
    size = (images.FACE_SIDE, images.FACE_SIDE)
    if portraits.shape[-1] < images.FACE_SIDE:
        # Few pixels are shown as they are: turned upright they would be blurred.
        pictures = [images.to_picture(portrait) for portrait in portraits]
        return [picture.resize(size, Image.Resampling.NEAREST) for picture in pictures]
    turned = portraits if alignment is None else warp(portraits, alignment)
    return [images.to_picture(portrait) for portrait in turned]


@runtime_checkable
class TakesAttributes(Protocol):
    """A network that can be asked for attributes, such as AFRP."""

    def with_attributes(self, attributes: Attributes) -> FaceModel:
        """The network with these set."""


def with_attributes(model: FaceModel, attributes: Attributes | None) -> FaceModel:
    """The network with attributes set; as it is where none are asked for.

    Raises:
        UserError: a network that takes none, or as in `attributes.to_vector`.
    """
    if attributes is None:
        return model
    if not isinstance(model, TakesAttributes):
        raise UserError(
            "this network takes no attributes: leave them out, or use one that does (fdnn-afrp)"
        )
    return model.with_attributes(attributes)


def check_strength(strength: float) -> None:
    """Raise a UserError where it is out of its range."""
    if not 0 <= strength <= 1:
        raise UserError(f"strength must be from 0 to 1, not {strength}")


def _to_tensor(model: FaceModel, pictures: Sequence[Image.Image]) -> torch.Tensor:
    return images.to_tensor(pictures, model.input_size).to(next(model.parameters()))


def _through(model: FaceModel, portraits: torch.Tensor) -> Recovered:
    with inference(model):
        out: Recovered = model(portraits)
    return out


def _loose(matrix: Matrix) -> Matrix:
    """A frame so much larger about the same middle."""
    shift = (1 - LOOSE) * (images.FACE_SIDE - 1) / 2
    return pasting.compose(matrix, np.array([[LOOSE, 0, shift], [0, LOOSE, shift]]))


def _in_pixels(alignment: Matrix) -> Matrix:
    """A similarity of normalised coordinates (see `models.similarity`) in pixels of the frame."""
    half = images.FACE_SIDE / 2
    pixels = np.array([[half, 0, half - 0.5], [0, half, half - 0.5]])
    return pasting.compose(pixels, pasting.compose(alignment, pasting.invert(pixels)))


def _pasted(
    whole: Image.Image, faces: Sequence[RecoveredFace], strength: float, match_colour: bool
) -> Image.Image:
    patches = []
    for face in faces:
        photo = face.photo
        if match_colour:
            photo = pasting.match_colours(photo, pasting.crop(whole, face.matrix))
        patches.append(pasting.Patch(photo, face.matrix))
    return pasting.paste(whole, patches, strength)
