"""A run of train.your_artist that is killed in every stage goes on to the same model."""

from pathlib import Path

import pytest

from tests.train import artist
from tests.train.artist import PLAN, SPEEDS, is_ready, line
from tests.train.runs import KILLED, lives
from train import your_artist

# The plan of a machine that takes seconds.
QUICK = f"""
from train import your_artist
from train.sizing import Plan, Speeds
your_artist.measure = lambda *parts: {SPEEDS!r}
your_artist.choose = lambda *parts: {PLAN!r}
"""
# In every stage, as they follow each other; of the style network in a step, of the pairs with one
# of two files there, of the fine-tuning in a step after its first checkpoint.
DEATHS = [
    ["before", "plan.json"],
    ["before", "photos"],
    ["step", 2],
    ["before", "pairs/train-*.parquet"],
    ["before", "before.json"],
    ["step", 3],
    ["before", "model"],
]


def test_a_run_that_is_killed_in_every_stage_goes_on_to_the_same_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    artist.quick(monkeypatch)
    (tmp_path / "parts").mkdir()
    parts = artist.parts(tmp_path / "parts")
    killed = tmp_path / "killed"
    codes = lives(
        tmp_path,
        module="train.your_artist",
        changes=QUICK,
        arguments=line(parts, killed),
        deaths=[*DEATHS, None],
    )
    assert codes == [*[KILLED] * len(DEATHS), 0]
    whole = tmp_path / "whole"
    assert your_artist.main(line(parts, whole)) == 0
    for name in ("model.safetensors", "discriminator/model.safetensors"):
        assert (killed / "model" / name).read_bytes() == (whole / "model" / name).read_bytes()
    is_ready(killed, parts)
