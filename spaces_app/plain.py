"""Recovery over plain HTTP: a picture is posted, the PNG comes back in the answer.

Gradio's own way takes four requests and two files for each face, which cost more than the network.
This is for programs that recover many: the same function as the tab's, one request, no file.
"""

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import gradio as gr
from fastapi import Request, Response
from gradio.routes import App

from face_destyle import PictureError, images
from spaces_app.common import (
    AT_ONCE,
    FAILED,
    FDNN,
    MAX_FILE_BYTES,
    MAX_FILE_MB,
    MOST_WAITING,
    speaks_plainly,
)
from spaces_app.destylize import recovered

PATH = "/gradio_api/recover"  # where Gradio has a proxy before it, that passes this on
ARGUMENTS = ("size", "across", "down", "tilt", "strength")
SLOWEST_UPLOAD = 60  # seconds: whoever sends has a place in the queue meanwhile

logger = logging.getLogger(__name__)
_threads = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="plain")


class RefusalError(Exception):
    """An answer without a picture: a status and a sentence."""

    def __init__(self, status: int, sentence: str):
        super().__init__(sentence)
        self.status = status


class PlainRecovery:
    """Answers requests; knows how many are inside."""

    def __init__(self) -> None:
        self.inside = 0

    async def answer(self, request: Request) -> Response:
        """The PNG, or one sentence with the status 400, 408, 413, 500 or 503."""
        self.inside += 1
        try:
            self._check_queue(request.app)
            picture = await _body(request)
            png = await asyncio.get_running_loop().run_in_executor(
                _threads, _recover, picture, dict(request.query_params)
            )
        except RefusalError as refusal:
            return Response(str(refusal), refusal.status, media_type="text/plain")
        except gr.Error as error:
            return Response(error.message, 400, media_type="text/plain")
        except Exception:
            logger.exception("A plain recovery failed")
            return Response(f"{FAILED}.", 500, media_type="text/plain")
        finally:
            self.inside -= 1
        headers = {
            "Cache-Control": "no-store",
            "Content-Disposition": f'attachment; filename="recovered-{FDNN}.png"',
        }
        return Response(png, headers=headers, media_type="image/png")

    def _check_queue(self, app: App) -> None:
        """Those who wait here and those who wait at the page share the limit of the queue."""
        waiting = max(0, self.inside - 1 - AT_ONCE) + len(app.get_blocks()._queue)
        if waiting >= MOST_WAITING:
            raise RefusalError(503, "Too many are waiting: try again in a minute.")


async def _body(request: Request) -> bytes:
    """What was posted, as long as it is no larger than a file may be."""
    content = bytearray()
    try:
        async with asyncio.timeout(SLOWEST_UPLOAD):
            async for part in request.stream():
                content += part
                if len(content) > MAX_FILE_BYTES:
                    sentence = f"The file is too large: send at most {MAX_FILE_MB} MB."
                    raise RefusalError(413, sentence)
    except TimeoutError:
        raise RefusalError(408, "The file took too long to arrive: try again.") from None
    return bytes(content)


@speaks_plainly
def _recover(content: bytes, query: dict[str, str]) -> bytes:
    if not query.keys() <= set(ARGUMENTS):
        raise PictureError(f"the arguments that can be given are {', '.join(ARGUMENTS)}")
    if not content:
        raise PictureError("send a picture")
    arguments: dict[str, Any] = {name: _number(value) for name, value in query.items()}
    return images.to_png(recovered(images.load_picture(content), **arguments), FDNN)


def _number(text: str) -> float | str:
    """What it says; text that is no number is refused as such, with what it is for."""
    try:
        return float(text)
    except ValueError:
        return text
