"""Faces of several visitors go through a network together, and come back to their own."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from face_destyle import Recovered
from face_destyle.attributes import COUNT, UNKNOWN
from face_destyle.models.base import FaceModel
from spaces_app import batching
from tests import drawn


class Slow(FaceModel):
    """A network that takes its time, and doubles what it sees."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.batches: list[int] = []
        self.asked: list[torch.Tensor | None] = []
        self.fails_at: torch.Tensor | None = None

    def forward(self, portraits: torch.Tensor, attributes: torch.Tensor | None = None) -> Recovered:
        self.batches.append(len(portraits))
        self.asked.append(attributes)
        time.sleep(0.1)
        if self.fails_at is not None and any(torch.equal(p, self.fails_at) for p in portraits):
            raise RuntimeError("this face")
        alignment = portraits.mean((1, 2, 3))[:, None, None].expand(-1, 2, 3)
        return Recovered(2 * portraits, alignment)


def together(model: Slow, count: int) -> list[batching.Answer | Exception]:
    faces = drawn.faces(count)

    def ask(number: int) -> batching.Answer | Exception:
        try:
            return batching.recover_one(model, faces[number : number + 1])
        except RuntimeError as error:
            return error

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(ask, range(count)))


def test_each_gets_its_own() -> None:
    model, faces = Slow(), drawn.faces(12)
    for number, answer in enumerate(together(model, 12)):
        assert isinstance(answer, batching.Answer)
        own = faces[number : number + 1]
        assert torch.equal(answer.photo, 2 * own)
        assert answer.alignment is not None
        assert answer.alignment.shape == (1, 2, 3)
        torch.testing.assert_close(answer.alignment[0, 0, 0], own.mean())
    assert sum(model.batches) == 12
    assert max(model.batches) > 1
    assert max(model.batches) <= batching.BATCH_SIZE
    assert not batching._waiting


def test_one_failure_is_that_of_one_visitor() -> None:
    model = Slow()
    model.fails_at = drawn.faces(4)[2]
    answers = together(model, 4)
    assert [isinstance(answer, RuntimeError) for answer in answers] == [False, False, True, False]
    assert not batching._waiting


def test_the_wait_is_not_the_time_of_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    face = drawn.faces(1)
    monkeypatch.setattr(batching, "processor", threading.BoundedSemaphore(1))
    with ThreadPoolExecutor(1) as pool:
        with batching.processor:
            asked = pool.submit(batching.recover_one, Slow(), face)
            time.sleep(1)
        assert 0.1 <= asked.result().seconds < 1


def test_networks_are_not_mixed() -> None:
    models = Slow(), Slow()
    face = drawn.faces(1)
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda n: batching.recover_one(models[n % 2], face), range(6)))
    assert [sum(model.batches) for model in models] == [3, 3]


def test_attributes_stay_with_their_face(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batching, "processor", threading.BoundedSemaphore(1))
    model, face = Slow(), drawn.faces(1)
    batching.recover_one(model, face)
    assert model.asked == [None]
    started = threading.Barrier(2)

    def ask(wish: tuple[float, ...]) -> None:
        started.wait()
        batching.recover_one(model, face, wish)

    batching.processor.acquire()
    with ThreadPoolExecutor(2) as pool:
        asked = [pool.submit(ask, wish) for wish in (UNKNOWN, (1.0,) * COUNT)]
        deadline = time.monotonic() + 10
        while len(batching._waiting) < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        batching.processor.release()
        for future in asked:
            future.result()
    assert model.batches == [1, 2]
    rows = model.asked[1]
    assert rows is not None
    assert sorted(rows.isnan().all(1).tolist()) == [False, True]


@pytest.fixture(autouse=True)
def nobody_waits() -> None:
    assert not batching._waiting
