"""Recipes and `--set`: numbers as people write them, and mistakes in one line."""

from pathlib import Path

import pytest

from face_destyle.errors import UserError
from tests.train import made
from train.recipe import load_recipe


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return made.recipe(tmp_path, tmp_path)


@pytest.mark.parametrize("text", ["1e-4", "1E-4", "0.0001", "1.0e-4", "'0.0001'"])
def test_a_number_may_be_written_in_any_way(text: str, path: Path) -> None:
    assert load_recipe(path, [f"optimizer.learning_rate={text}"]).optimizer.learning_rate == 1e-4
    path.write_text(path.read_text().replace("warmup: 0", f"learning_rate: {text}"))
    assert load_recipe(path).optimizer.learning_rate == 1e-4


def test_numbers_in_lists_and_of_networks(path: Path) -> None:
    recipe = load_recipe(path, ["optimizer.betas=[0, 99e-2]", "optimizer.eps=1"])
    assert recipe.optimizer.betas == (0.0, 0.99)
    assert recipe.optimizer.eps == 1.0 and isinstance(recipe.optimizer.eps, float)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("data.styles=[a", "--set data.styles=[a is no YAML: expected ',' or ']'"),
        ("data.styles=@", "--set data.styles=@ is no YAML: found character '@'"),
        ("name=2026-13-01", "--set name=2026-13-01 is no YAML: month must be in 1..12"),
        ("name.x=1", "--set name.x=1: name is 'tiny', which is no section"),
        ("name.x.y=1", "name is 'tiny', which is no section"),
        ("train.images.x=1", "images is 80, which is no section"),
        ("data", "--set data: write section.key=value"),
        ("data={1: 2, x: 3}", "unknown key 1, x; DataConfig has pairs"),
        ("optimizer.learning_rate=fast", "learning_rate is 'fast', which is no float"),
        ("optimizer.learning_rate=nan", "learning_rate is 'nan', which is no float"),
        ("optimizer.learning_rate=true", "learning_rate is True, which is no float"),
        ("train.images='5'", "images is '5', which is no int"),
        (f"loss.pixel=1{'0' * 400}", "which is no float"),
    ],
)
def test_a_wrong_set_is_one_line(text: str, said: str, path: Path) -> None:
    with pytest.raises(UserError) as raised:
        load_recipe(path, [text])
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"name: a\ndata: [1\n", "recipe.yaml is no YAML in line 3: expected ',' or ']'"),
        (b"name: caf\xe9\n", "recipe.yaml is no text file"),
        (b"[1]\n", "recipe.yaml holds no mapping"),
    ],
)
def test_a_wrong_file_is_one_line(content: bytes, said: str, path: Path) -> None:
    path.write_bytes(content)
    with pytest.raises(UserError) as raised:
        load_recipe(path)
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)
