"""What the tabs share: the networks, files to hand out, errors as sentences, the limits."""

import functools
import logging
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import gradio as gr
from gradio.utils import get_upload_folder
from PIL import Image

from face_destyle import FaceModel, PictureError, Stylizer, UserError, images

P = ParamSpec("P")
R = TypeVar("R")

WEIGHTS = "fdnn"
MAX_FILE_SIZE = "10mb"
# The networks share one processor: whatever runs one of them waits its turn in one queue.
NET: dict[str, Any] = {"concurrency_id": "net", "concurrency_limit": 1}
LOOK: dict[str, Any] = {"concurrency_id": "look", "concurrency_limit": 2}

logger = logging.getLogger(__name__)


@functools.cache
def recoverer() -> FaceModel:
    """The recovery network, loaded at its first use."""
    return FaceModel.from_pretrained(WEIGHTS)


@functools.cache
def stylizer(name: str) -> Stylizer:
    """A published style network, loaded at its first use."""
    return Stylizer.from_pretrained(name)


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
            raise _message("this demo cannot load its weights; its owner has to mend it") from None

    return wrapped


def _message(text: str) -> gr.Error:
    sentence = text[0].upper() + text[1:].rstrip(".") + "."
    return gr.Error(sentence, title="That did not work", print_exception=False)


def read_upload(upload: dict[str, Any] | None) -> Image.Image:
    """The picture behind an upload as Gradio passes it without preprocessing.

    Gradio's own preprocessing drops alpha and fails on a bad file without saying why. The file
    goes in as bytes, so that no message holds its path.

    Raises:
        PictureError: nothing was chosen, or it is no picture that can be read.
    """
    if not upload or not upload.get("path"):
        raise PictureError("choose a picture first")
    return images.load_picture(Path(upload["path"]).read_bytes())


def hand_out(picture: Image.Image, weights: str, name: str) -> str:
    """Write a generated picture where only this request knows it; return the path.

    The folder lies in Gradio's cache, which serves the file as it is, with its metadata, and
    deletes it later.
    """
    cache = Path(get_upload_folder())
    cache.mkdir(parents=True, exist_ok=True)
    path = Path(tempfile.mkdtemp(dir=cache)) / f"{name}.png"
    images.save_png(picture, path, weights)
    return str(path)
