"""Faces of several visitors go through a network together.

A network takes hardly longer for eight faces than for two, so whoever waits for it is taken along.
Each visitor's error stays with that visitor, which a batch of Gradio's own cannot do.
"""

import os
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

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
    answer: Future[Answer] = field(default_factory=Future)


# As many networks side by side as there are processors for the threads of each: more would wait
# for each other's threads.
LANES = max(1, (os.cpu_count() or 1) // torch.get_num_threads())
processor = threading.BoundedSemaphore(LANES)
# Threads of their own: each thread that has run a network keeps the memory that it took.
_lanes = ThreadPoolExecutor(LANES, thread_name_prefix="network")
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
    _lanes.submit(_serve)
    return request.answer.result()


def _serve() -> None:
    """Answer whoever waits longest, and others along with them; a batch before may have."""
    with processor:
        batch = _next_batch()
        results = _results(batch) if batch else []
    for request, result in zip(batch, results, strict=True):
        if isinstance(result, Answer):
            request.answer.set_result(result)
        else:
            request.answer.set_exception(result)


def _next_batch() -> list[_Request]:
    """Those that wait for the same network as the first, no longer waiting."""
    with _changing:
        batch = [r for r in _waiting if r.model is _waiting[0].model][:BATCH_SIZE]
        _waiting[:] = [waiting for waiting in _waiting if waiting not in batch]
    return batch


def _results(batch: list[_Request]) -> list[Answer | Exception]:
    """What the network made of each; where it fails, each is tried alone, and fails alone."""
    try:
        return [*_run(batch)]
    except Exception as error:
        return [error] if len(batch) == 1 else [_alone(request) for request in batch]


def _alone(request: _Request) -> Answer | Exception:
    try:
        return _run([request])[0]
    except Exception as error:
        return error


def _run(batch: list[_Request]) -> list[Answer]:
    model = batch[0].model
    portraits = torch.cat([request.portrait for request in batch])
    asked = {}
    if any(request.attributes is not UNKNOWN for request in batch):
        asked["attributes"] = torch.tensor([request.attributes for request in batch])
    start = time.perf_counter()
    with inference(model):
        out = model(portraits, **asked)
    seconds = time.perf_counter() - start
    answers = []
    for number in range(len(batch)):
        own = slice(number, number + 1)
        alignment = None if out.alignment is None else out.alignment[own]
        answers.append(Answer(out.photo[own], alignment, seconds))
    return answers
