"""A batch in parts, and shared by processes: the step is that of the whole batch."""

import math
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator

from face_destyle.errors import UserError
from tests.train import made
from tests.train.runs import CALM, curve, states, torchrun, world
from train.data import ALIGNED, Batch
from train.fit import Trainer, TrainingError, fit, main
from train.recipe import load_recipe


def assert_the_same_curve(one: Path, two: Path) -> None:
    first, second = curve(one), curve(two)
    assert len(first) == len(second) > 3
    for left, right in zip(first, second, strict=True):
        assert left.keys() == right.keys() >= {"pixel", "adversarial", "d_real", "d_fake", "psnr"}
        for name in left.keys() - {"images_per_second"}:
            assert left[name] == pytest.approx(right[name], rel=1e-4), name
    assert first[0]["pixel"] > 1.05 * first[-1]["pixel"], "nothing was learnt"


def assert_close(one: Path, two: Path) -> None:
    first, second = states(one / "weights"), states(two / "weights")
    assert max(float((first[name] - second[name]).abs().max()) for name in first) < 1e-5


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made.pairs(tmp_path_factory.mktemp("pairs"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Path:
    """The run of one process that learns whole batches."""
    folder = tmp_path_factory.mktemp("whole")
    fit(load_recipe(made.recipe(folder, data, optimizer=CALM)), folder / "run", cpu=True)
    return folder / "run"


@pytest.mark.parametrize("parts", [2, 4])
def test_a_batch_in_parts_is_learnt_as_a_whole(
    tmp_path: Path, data: Path, whole: Path, parts: int
) -> None:
    recipe = made.recipe(tmp_path, data, optimizer=CALM, train={"accumulate": parts})
    sizes: set[int] = set()
    recover = Trainer.recover

    def noted(self: Trainer, generator: torch.nn.Module, batch: Batch) -> object:
        if generator is self.generator:
            sizes.add(len(batch.portraits))
        return recover(self, generator, batch)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "recover", noted)
        fit(load_recipe(recipe), tmp_path / "run", cpu=True)
    assert sizes == {8 // parts}
    assert_the_same_curve(whole, tmp_path / "run")
    assert_close(whole, tmp_path / "run")


def test_two_processes_have_the_curve_of_one(tmp_path: Path, data: Path, whole: Path) -> None:
    recipe = made.recipe(tmp_path, data, optimizer=CALM)
    process = torchrun(tmp_path, recipe, tmp_path / "run")
    _, said = process.communicate(timeout=600)
    assert process.returncode == 0, said
    assert [count for count, _ in world(tmp_path)] == [2, 2]
    assert_the_same_curve(whole, tmp_path / "run")
    assert_close(whole, tmp_path / "run")


@pytest.mark.parametrize("lost", [True, False])
def test_a_lost_process_is_one_line_that_says_how_to_go_on(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch, lost: bool
) -> None:
    recipe = load_recipe(made.recipe(tmp_path, data))
    fit(recipe, tmp_path / "run", stop_at=40, cpu=True)
    said = "[gloo/transport/tcp/pair.cc:534] Connection closed by peer" if lost else "no memory"

    def fail(*_: object) -> None:
        raise RuntimeError(said)

    monkeypatch.setattr("train.fit._loop", fail)
    monkeypatch.setattr(Accelerator, "num_processes", 2)
    expected = r"at image 40 another process was lost \(.*closed by peer\); .*images-0000000040$"
    kind = TrainingError if lost else RuntimeError
    with pytest.raises(kind, match=expected if lost else "no memory"):
        fit(recipe, tmp_path / "run", cpu=True)


def test_the_parts_of_a_batch() -> None:
    pictures = torch.arange(12.0)[:, None, None, None].expand(12, 3, 2, 2)
    batch = Batch(pictures, -pictures, ALIGNED.expand(12, 2, 3), attributes=torch.rand(12, 18))
    (alone,) = batch.parts(1)
    assert alone is batch
    parts = batch.parts(3)
    assert [part.portraits[:, 0, 0, 0].tolist() for part in parts] == [
        [0, 1, 2, 3],
        [4, 5, 6, 7],
        [8, 9, 10, 11],
    ]
    assert torch.equal(torch.cat([part.attributes for part in parts]), batch.attributes)
    assert all(torch.equal(part.photos, -part.portraits) for part in parts)
    assert all(part.wrong is None and not part.triplets for part in parts)
    triplets = Batch(pictures, pictures, ALIGNED.expand(12, 2, 3), triplets=True).parts(2)
    # Anchors, positives and negatives of the same triplets.
    assert [part.portraits[:, 0, 0, 0].tolist() for part in triplets] == [
        [0, 1, 4, 5, 8, 9],
        [2, 3, 6, 7, 10, 11],
    ]
    assert all(part.triplets for part in triplets)


def test_a_loss_that_is_no_number_is_found_in_every_part(tmp_path: Path, data: Path) -> None:
    path = made.recipe(tmp_path, data, train={"accumulate": 2}, loss={"adversarial": 0.0})
    recipe = load_recipe(path)
    trainer = Trainer(recipe, Accelerator(cpu=True))
    pictures = torch.rand(4, 3, 32, 32) * 2 - 1
    photos = pictures.clone()
    photos[3] = math.nan
    before = {name: value.clone() for name, value in trainer.generator.state_dict().items()}
    with pytest.raises(FloatingPointError, match="pixel nan"):
        trainer.step(Batch(pictures, photos, ALIGNED.expand(4, 2, 3)), 0)
    after = trainer.generator.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_a_batch_that_cannot_be_shared_out_is_one_line(
    tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = made.recipe(tmp_path, data)
    for change, said in (
        ("train.accumulate=3", "train.batch_size is 8: 1 processes with train.accumulate 3 need"),
        ("train.accumulate=0", "accumulate starts at 1"),
    ):
        command = ["--recipe", str(path), "--out", str(tmp_path / "run"), "--cpu", "--set", change]
        assert main(command) == 2
        (line,) = [row for row in capsys.readouterr().err.splitlines() if "decoding" not in row]
        assert said in line


def test_parts_need_whole_batches(data: Path, tmp_path: Path) -> None:
    recipe = load_recipe(made.recipe(tmp_path, data, train={"batch_size": 6, "accumulate": 4}))
    with pytest.raises(UserError, match="need a multiple of 4 images"):
        fit(recipe, tmp_path / "run", cpu=True)
