"""Find faces in a picture, and cut them out in the frame of the networks.

Positions are `(x, y)` in pixels of the upright picture, counted from the middle of its upper left
pixel. A matrix `(2, 3)` is a similarity that takes positions in the frame to positions in the
picture, as the `alignment` of a network does in normalised coordinates.

OpenCV is imported inside the functions that need it.
"""

import functools
import hashlib
import logging
import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

from face_destyle.errors import UserError, WeightsError

Point = tuple[float, float]
Matrix = npt.NDArray[np.float64]

# Where an aligned 128 x 128 photo has its eyes (always), nose and mouth corners (on average).
FRAME_LANDMARKS = ((44.8, 55.0), (83.2, 55.0), (64.3, 78.0), (47.1, 93.5), (80.7, 93.6))
FRAME_EYES = FRAME_LANDMARKS[:2]

YUNET_REPO, YUNET_FILE = "opencv/face_detection_yunet", "face_detection_yunet_2023mar.onnx"
YUNET_SHA256 = "8f2383e4dd3cfbb4553ea8718107fc0423210dc964f9f4280604804ed2552fa4"
HUB_PATIENCE = 5.0  # seconds
YUNET_SCORE, YUNET_OVERLAP, YUNET_MOST = 0.5, 0.3, 500
# YuNet (Wu et al., 2023) sees faces of 10 to 300 pixels: the longer side is brought to each of
# these, with so much more of it all round (a face that touches the edge is seldom found): the
# first for a face that fills the picture, the last for a crowd.
YUNET_LOOKS = ((128, 0.5), (320, 0.25), (960, 0.03))
MOST_ENLARGED = 3.0  # a look that enlarges the picture more than this finds faces that are none
SAME_FACE = 0.4  # intersection over union
SMALLEST_EYES = 2.0  # pixels between the eyes

# Where faces of the frame have their eyes in a box of the cascade, in widths of the box.
CASCADE_FILE, CASCADE_EYES = "haarcascade_frontalface_alt2.xml", ((0.318, 0.389), (0.698, 0.389))
CASCADE_EYE_FILE = "haarcascade_eye_tree_eyeglasses.xml"
CASCADE_SIDE, CASCADE_SMALLEST, CASCADE_STEP, CASCADE_NEIGHBOURS = 640, 24, 1.1, 3
CASCADE_PADDING = 0.1  # of the side, all round
CASCADE_EYES_END = 0.6  # of the box: eyes are above it
CASCADE_EYE_REACH = 0.15  # of the box: an eye farther from its usual place is none

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Face:
    """Where a face is.

    Attributes:
        box: left, top, right, bottom.
        score: how sure the finder is, 0 to 1; not comparable between finders.
        eyes: the middles of the eyes, first that at the left of the face as one sees it.
        landmarks: both eyes, nose, both corners of the mouth, where the finder knows them.
    """

    box: tuple[float, float, float, float]
    score: float
    eyes: tuple[Point, Point]
    landmarks: tuple[Point, ...] | None = None

    @property
    def angle(self) -> float:
        """How far the face is turned clockwise, in degrees in (-180, 180]."""
        (left, top), (right, bottom) = self.eyes
        return math.degrees(math.atan2(bottom - top, right - left))

    @property
    def area(self) -> float:
        """Of the box, in square pixels."""
        left, top, right, bottom = self.box
        return max(right - left, 0.0) * max(bottom - top, 0.0)

    @property
    def matrix(self) -> Matrix:
        """The similarity `(2, 3)`, frame -> picture, that brings the eyes to `FRAME_EYES`."""
        # A similarity is one complex factor and one complex shift; two points say both.
        left, right = (complex(*eye) for eye in self.eyes)
        frame_left, frame_right = (complex(*eye) for eye in FRAME_EYES)
        factor = (right - left) / (frame_right - frame_left)
        shift = left - factor * frame_left
        return np.array(
            [[factor.real, -factor.imag, shift.real], [factor.imag, factor.real, shift.imag]]
        )


class Finder(Protocol):
    """What finds faces: called with an upright RGB picture, it returns them in any order."""

    def __call__(self, picture: Image.Image) -> list[Face]:
        """Find all faces."""


def find_faces(picture: Image.Image, finder: Finder | None = None) -> list[Face]:
    """The faces of an upright RGB picture, the largest first; none is an empty list.

    Args:
        picture: as `images.load_picture` returns it.
        finder: `default_finder()` where None.

    Raises:
        UserError: no finder is given, and none is installed; says which extra has one.
    """
    finder = default_finder() if finder is None else finder
    faces = [face for face in finder(picture) if math.dist(*face.eyes) >= SMALLEST_EYES]
    return sorted(faces, key=lambda face: face.area, reverse=True)


@functools.lru_cache(maxsize=1)
def default_finder() -> Finder:
    """The best finder there is: YuNet from the Hub or its cache, then OpenCV's cascades.

    Raises:
        UserError: OpenCV is not installed, or has no cascades while YuNet cannot be had.
    """
    try:
        yunet = YuNetFinder()
    except WeightsError as error:
        logger.info("faces are found by the cascades of OpenCV: %s", error)
        return CascadeFinder()
    return with_cascades(yunet)


def with_cascades(finder: Finder) -> Finder:
    """A finder and, where it finds nothing, OpenCV's cascades; alone where OpenCV has none.

    The cascades look at light and dark alone, and so find faces in strokes that hide them from a
    network trained on photos.

    Raises:
        UserError: OpenCV is not installed.
    """
    return InTurn(finder, CascadeFinder()) if has_cascades() else finder


class InTurn:
    """Several finders as one: the faces of the first that finds any.

    Args:
        finders: the best one first.
    """

    def __init__(self, *finders: Finder):
        self.finders = finders

    def __call__(self, picture: Image.Image) -> list[Face]:
        """Find all faces of an upright RGB picture, with one finder."""
        found = (finder(picture) for finder in self.finders)  # a later one only where it is needed
        return next((faces for faces in found if faces), [])


class YuNetFinder:
    """YuNet (Wu et al., 2023) in OpenCV: finds five landmarks too, in paintings as well.

    Args:
        model: the path of `face_detection_yunet_2023mar.onnx`; from the Hub or its cache
            where None.
        score: what is less sure is not a face.

    Raises:
        UserError: OpenCV is not installed.
        WeightsError: no such file and no Hub, or a file that OpenCV cannot read.
    """

    def __init__(self, model: str | Path | None = None, score: float = YUNET_SCORE):
        opencv = _opencv()
        path = _yunet_file() if model is None else Path(model)
        if not path.is_file():
            raise WeightsError(f"{path} does not exist: give the path of {YUNET_FILE}")
        # OpenCV reports on stderr what the one line below says.
        level = opencv.utils.logging.setLogLevel(opencv.utils.logging.LOG_LEVEL_SILENT)
        try:
            self.detector: Any = opencv.FaceDetectorYN.create(
                str(path), "", (320, 320), score, YUNET_OVERLAP, YUNET_MOST
            )
        except opencv.error as error:
            raise WeightsError(
                f"OpenCV {opencv.__version__} cannot read {path}: give the path of {YUNET_FILE}"
            ) from error
        finally:
            opencv.utils.logging.setLogLevel(level)
        self.lock = threading.Lock()  # the detector remembers the size between two calls

    def __call__(self, picture: Image.Image) -> list[Face]:
        """Find all faces of an upright RGB picture, the surest first."""
        looks = YUNET_LOOKS[:1] + tuple(
            look for look in YUNET_LOOKS[1:] if look[0] <= MOST_ENLARGED * max(picture.size)
        )
        return _merged([face for look in looks for face in self._look(picture, *look)])

    def _look(self, picture: Image.Image, side: int, padding_share: float) -> list[Face]:
        small, scale = _resized(picture, side)
        edge = round(side * padding_share)
        padding = ((edge, edge), (edge, edge), (0, 0))
        pixels = np.pad(np.asarray(small)[:, :, ::-1], padding, mode="edge")  # OpenCV takes BGR
        with self.lock:
            self.detector.setInputSize((pixels.shape[1], pixels.shape[0]))
            _, rows = self.detector.detect(pixels)
        return [] if rows is None else [_from_row(row, edge, scale, picture.size) for row in rows]


def _from_row(row: npt.NDArray[np.float32], edge: int, scale: Point, size: tuple[int, int]) -> Face:
    """A face of YuNet's fifteen numbers: x, y, width, height, five landmarks, score."""
    left, top, width, height = (float(value) for value in row[:4])
    corners = np.array([[left, top], [left + width, top + height]])
    points = (np.concatenate([corners, row[4:14].reshape(5, 2)]) - edge + 0.5) / scale - 0.5
    corners = points[:2].clip(-0.5, np.array(size) - 0.5)
    landmarks = tuple((float(x), float(y)) for x, y in points[2:])
    box = (float(corners[0, 0]), float(corners[0, 1]), float(corners[1, 0]), float(corners[1, 1]))
    return Face(box, float(row[14]), (landmarks[0], landmarks[1]), landmarks)


def _merged(faces: Sequence[Face]) -> list[Face]:
    """One face of those that are the same: the mean of where they lie, by score.

    The landmarks of one look are off by 3 pixels of the frame; the errors of two looks differ.
    """
    groups: list[list[Face]] = []
    for face in sorted(faces, key=lambda face: face.score, reverse=True):
        same = next((group for group in groups if _overlap(group[0], face) > SAME_FACE), None)
        if same is None:
            groups.append([face])
        else:
            same.append(face)
    return [_mean(group) for group in groups]


def _mean(group: list[Face]) -> Face:
    weights = np.array([face.score for face in group])
    landmarks = np.average([face.landmarks or () for face in group], 0, weights)
    points = tuple((float(x), float(y)) for x, y in landmarks)
    return replace(group[0], eyes=(points[0], points[1]), landmarks=points)


def _overlap(first: Face, second: Face) -> float:
    """Intersection over union of the boxes."""
    width = min(first.box[2], second.box[2]) - max(first.box[0], second.box[0])
    height = min(first.box[3], second.box[3]) - max(first.box[1], second.box[1])
    common = max(width, 0.0) * max(height, 0.0)
    return common / max(first.area + second.area - common, 1e-9)


def _resized(picture: Image.Image, side: int) -> tuple[Image.Image, Point]:
    """The picture with its longer side so long, and by how much each axis was scaled."""
    scale = side / max(picture.size)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    small = picture.resize(size, Image.Resampling.BILINEAR)  # averages where it shrinks
    return small, (size[0] / picture.width, size[1] / picture.height)


class CascadeFinder:
    """The Haar cascades that OpenCV 4 carries (Viola, Jones, 2001): upright, frontal faces.

    It works offline. A face's place and size come from its box; where both eyes are found in it,
    they say how it is turned.

    Raises:
        UserError: OpenCV is not installed, or has no cascades (5 and later).
    """

    def __init__(self) -> None:
        opencv = _opencv()
        if not has_cascades():
            raise UserError(
                f"OpenCV {opencv.__version__} has no Haar cascades: pip install "
                f"'face-destyle[faces]', or give the path of {YUNET_FILE}"
            )
        self.grey: Any = functools.partial(opencv.cvtColor, code=opencv.COLOR_RGB2GRAY)
        self.face, self.eye = (
            opencv.CascadeClassifier(opencv.data.haarcascades + file)
            for file in (CASCADE_FILE, CASCADE_EYE_FILE)
        )
        self.lock = threading.Lock()  # a cascade keeps what it is working on

    def __call__(self, picture: Image.Image) -> list[Face]:
        """Find all faces of an upright RGB picture."""
        side = min(CASCADE_SIDE, round(MOST_ENLARGED * max(picture.size)))
        small, scale = _resized(picture, side)
        edge = round(side * CASCADE_PADDING)
        pixels = np.pad(self.grey(np.asarray(small)), edge, mode="edge")
        with self.lock:
            boxes, neighbours = self.face.detectMultiScale2(
                pixels,
                scaleFactor=CASCADE_STEP,
                minNeighbors=CASCADE_NEIGHBOURS,
                minSize=(CASCADE_SMALLEST, CASCADE_SMALLEST),
            )
            eyes = [self._eyes(pixels[y : y + h, x : x + w]) + (x, y) for x, y, w, h in boxes]
        faces = []
        for (x, y, width, height), pair, count in zip(boxes, eyes, neighbours, strict=True):
            landmarks = np.concatenate([pair, np.zeros((3, 2))])
            score = float(count) / (float(count) + CASCADE_NEIGHBOURS)
            row = np.array([x, y, width, height, *landmarks.ravel(), score], np.float32)
            face = _from_row(row, edge, scale, picture.size)
            faces.append(Face(face.box, face.score, face.eyes))
        return faces

    def _eyes(self, face: npt.NDArray[np.uint8]) -> Matrix:
        """Both eyes of a box, in its pixels: usual places, turned as the eyes found in it are."""
        side = face.shape[1]
        usual: Matrix = np.array(CASCADE_EYES) * side
        seen = self.eye.detectMultiScale(face[: round(side * CASCADE_EYES_END)])
        middles = [
            np.array([x + (width - 1) / 2, y + (height - 1) / 2]) for x, y, width, height in seen
        ]
        pair = []
        for eye in usual:
            near = min(middles, key=lambda middle: math.dist(middle, eye), default=None)
            if near is None or math.dist(near, eye) > CASCADE_EYE_REACH * side:
                return usual
            pair.append(near)
        line = pair[1] - pair[0]
        half = line / np.hypot(*line) * np.hypot(*(usual[1] - usual[0])) / 2
        middle = usual.mean(0)
        return np.array([middle - half, middle + half])


def has_cascades() -> bool:
    """Whether the OpenCV that is installed carries cascades: 4 does, 5 does not.

    Raises:
        UserError: OpenCV is not installed.
    """
    return hasattr(_opencv(), "CascadeClassifier")


def _yunet_file() -> Path:
    """YuNet from the Hub's cache, or fetched from the Hub.

    Raises:
        WeightsError: it is not in the cache and the Hub was not reached, or it is another file.
    """
    from huggingface_hub import (
        get_hf_file_metadata,
        hf_hub_download,
        hf_hub_url,
        try_to_load_from_cache,
    )

    found = try_to_load_from_cache(YUNET_REPO, YUNET_FILE)
    try:
        if not isinstance(found, str):
            # Without a network the download alone would try again for half a minute.
            get_hf_file_metadata(hf_hub_url(YUNET_REPO, YUNET_FILE), timeout=HUB_PATIENCE)
            found = hf_hub_download(YUNET_REPO, YUNET_FILE)
        path = Path(found)
        content = path.read_bytes()
    except Exception as error:  # what a lost connection is called differs between its versions
        raise WeightsError(
            f"{YUNET_FILE} is not in the local cache and {YUNET_REPO} was not reached on the Hub: "
            "connect once, or give its path"
        ) from error
    if hashlib.sha256(content).hexdigest() != YUNET_SHA256:
        raise WeightsError(f"{path} is damaged or another file: delete it, or give another path")
    return path


def _opencv() -> ModuleType:
    try:
        import cv2
    except ImportError as error:
        raise UserError(
            "finding faces needs OpenCV: pip install 'face-destyle[faces]', or crop the face by "
            "hand and recover it as it is"
        ) from error
    return cv2
