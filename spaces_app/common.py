"""What the tabs share: the networks, files to hand out, errors as sentences, the limits."""

import functools
import logging
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, ParamSpec, TypeVar, cast

import gradio as gr
from gradio.utils import get_upload_folder
from PIL import Image

from face_destyle import (
    AttributeClassifier,
    FaceModel,
    HubModel,
    PictureError,
    Stylizer,
    UserError,
    images,
)
from face_destyle.published import WEIGHTS as TABLE
from spaces_app.batching import BATCH_SIZE
from spaces_app.sweeping import PREFIX

P = ParamSpec("P")
R = TypeVar("R")
M = TypeVar("M", bound=HubModel)

FDNN, IFRP, AFRP, TANN = "fdnn", "fdnn-ifrp", "fdnn-afrp", "fdnn-tann"
CLASSIFIER = "attributes"
# What the networks are called on the page; those that take a portrait, in the order shown.
TITLES = {FDNN: "FDNN", IFRP: "IFRP", AFRP: "AFRP", TANN: "TANN"}
PORTRAIT_NETWORKS = (FDNN, IFRP, AFRP)
# Which portraits each of those is for, where the visitor chooses among them.
SUITS = {FDNN: "upright, well framed", IFRP: "may lean", AFRP: "may lean"}

MAX_FILE_MB = 10
MAX_FILE_SIZE = f"{MAX_FILE_MB}mb"
MAX_FILE_BYTES = MAX_FILE_MB * 2**20  # the same, as Gradio counts it
MOST_WAITING = 32
FAILED = "That did not work"  # above every message
# Whatever runs a network on one face shares one queue; those that run go through it together:
# while the network has one batch, the next is got ready.
AT_ONCE = 2 * BATCH_SIZE
NET: dict[str, Any] = {"concurrency_id": "net", "concurrency_limit": AT_ONCE}
# Whole pictures and many files take long: they wait for each other, and keep no face waiting.
LONG: dict[str, Any] = {"concurrency_id": "long", "concurrency_limit": 1}
LOOK: dict[str, Any] = {"concurrency_id": "look", "concurrency_limit": 2}

logger = logging.getLogger(__name__)
_loading = threading.Lock()


def portrait_networks() -> list[str]:
    """The published networks that recover a face from a portrait."""
    return [name for name in PORTRAIT_NETWORKS if name in TABLE]


@functools.cache
def _load(kind: Any, name: str) -> Any:
    return kind.from_pretrained(name)


def _network(kind: type[M], name: str) -> M:
    with _loading:  # two visitors at once would load it twice
        network: M = _load(cast(Any, kind), name)
    return network


def recoverer(name: str) -> FaceModel:
    """A published recovery network, loaded at its first use."""
    return _network(FaceModel, name)


def stylizer(name: str) -> Stylizer:
    """A published style network, loaded at its first use."""
    return _network(Stylizer, name)


def classifier() -> AttributeClassifier:
    """The published attribute classifier, loaded at its first use."""
    return _network(AttributeClassifier, CLASSIFIER)


def forget_networks() -> None:
    """Load every network anew at its next use."""
    _load.cache_clear()


def check_choice(what: str, value: str, known: list[str]) -> None:
    """Raise a PictureError that names the choices where `value` is none of them."""
    if value not in known:
        raise PictureError(f"{what} must be one of {', '.join(known)}")


def speaks_plainly(function: Callable[P, R]) -> Callable[P, R]:
    """Turn the package's errors into a message on the page: one sentence, no path, no trace."""

    @functools.wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except PictureError as error:
            raise _message(str(error)) from None
        except UserError:
            # The other errors are about the installation and name its folders.
            logger.exception("The demo is not installed completely")
            raise _message("this demo lacks a part of itself; its owner has to mend it") from None

    return wrapped


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:].rstrip(".") + "."


def _message(text: str) -> gr.Error:
    return gr.Error(_sentence(text), title=FAILED, print_exception=False)


def warn(error: PictureError) -> None:
    """Say on the page what is wrong, where the outputs shall be emptied: an error keeps them."""
    gr.Warning(_sentence(str(error)), title=FAILED)


def upload_bytes(upload: dict[str, Any]) -> bytes:
    """The file behind an upload as Gradio passes it without preprocessing.

    As bytes, so that no message about the picture holds its path.

    Raises:
        PictureError: it is gone: the page was open for longer than pictures are kept.
    """
    try:
        return Path(upload["path"]).read_bytes()
    except OSError:
        raise PictureError("your picture was deleted meanwhile: choose it again") from None


def read_upload(upload: dict[str, Any] | None) -> Image.Image:
    """The picture behind an upload as Gradio passes it without preprocessing.

    Gradio's own preprocessing drops alpha and fails on a bad file without saying why.

    Raises:
        PictureError: nothing was chosen, it is gone, or it is no picture that can be read.
    """
    if not upload or not upload.get("path"):
        raise PictureError("choose a picture first")
    return images.load_picture(upload_bytes(upload))


def new_folder() -> Path:
    """A folder that only this request knows.

    It lies in Gradio's cache, which serves files as they are, with their metadata; `sweeping`
    deletes them later.
    """
    cache = Path(get_upload_folder())
    cache.mkdir(parents=True, exist_ok=True)
    return Path(tempfile.mkdtemp(prefix=PREFIX, dir=cache))


def hand_out(picture: Image.Image, weights: str, name: str) -> str:
    """Write a generated picture where only this request knows it; return the path."""
    path = new_folder() / f"{name}.png"
    images.save_png(picture, path, weights)
    return str(path)


def card_link(name: str) -> str:
    """Where the card of published weights is."""
    return f"https://huggingface.co/{TABLE[name].repo_id}"


def note(name: str, seconds: float, size: tuple[int, int], more: str = "") -> str:
    """What is said under a result, in Markdown: by which weights, their licence, what it is not."""
    return (
        f"Generated by [{name}]({card_link(name)}) in {seconds:.2f} s: a guess, not a photograph. "
        f"{more}PNG, {size[0]} × {size[1]} pixels. Weights: {TABLE[name].licence}."
    )
