"""Faces of several visitors go through a network together.

A network takes hardly longer for eight faces than for two, so whoever waits for it is taken along.
Each visitor's error stays with that visitor, which a batch of Gradio's own cannot do.
"""

import threading
import time
from dataclasses import dataclass

import torch

from face_destyle import FaceModel
from face_destyle.attributes import UNKNOWN, Vector
from face_destyle.models.base import inference

BATCH_SIZE = 8


@dataclass(frozen=True)
class Answer:
    """What a network made of one face.

    Attributes:
        photo: `(1, 3, 128, 128)` RGB in [-1, 1].
        alignment: `(1, 2, 3)`, frame -> input, or None where a network does not align.
        seconds: how long the network ran, without the wait for it.
    """

    photo: torch.Tensor
    alignment: torch.Tensor | None
    seconds: float


@dataclass(eq=False)
class _Request:
    model: FaceModel
    portrait: torch.Tensor
    attributes: Vector
    answer: Answer | None = None


# Networks side by side would wait for each other's threads.
processor = threading.Lock()
_waiting: list[_Request] = []
_changing = threading.Lock()


def recover_one(model: FaceModel, portrait: torch.Tensor, attributes: Vector = UNKNOWN) -> Answer:
    """Recover one face, along with those that wait for the same network.

    Args:
        model: a recovery network.
        portrait: `(1, 3, S, S)` in [-1, 1].
        attributes: what is asked of the face, by a network that takes attributes.

    Returns:
        Alone what the network gives, with others at most one of 255 levels from it.
    """
    request = _Request(model, portrait, attributes)
    with _changing:
        _waiting.append(request)
    with processor:
        # Whoever held the processor before may have taken this one along.
        if request.answer is None:
            _run(_batch(request))
    assert request.answer is not None
    return request.answer


def _batch(request: _Request) -> list[_Request]:
    """This request and others of its kind, no longer waiting."""
    with _changing:
        others = [r for r in _waiting if r is not request and r.model is request.model]
        batch = [request, *others[: BATCH_SIZE - 1]]
        _waiting[:] = [waiting for waiting in _waiting if waiting not in batch]
    return batch


def _run(batch: list[_Request]) -> None:
    model = batch[0].model
    portraits = torch.cat([request.portrait for request in batch])
    asked = {}
    if any(request.attributes is not UNKNOWN for request in batch):
        asked["attributes"] = torch.tensor([request.attributes for request in batch])
    start = time.perf_counter()
    with inference(model):
        out = model(portraits, **asked)
    seconds = time.perf_counter() - start
    for number, request in enumerate(batch):
        own = slice(number, number + 1)
        alignment = None if out.alignment is None else out.alignment[own]
        request.answer = Answer(out.photo[own], alignment, seconds)
