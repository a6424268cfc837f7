"""Recipes and `--set`: numbers as people write them, and mistakes in one line."""

import functools
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub
import pytest
import yaml

from face_destyle import FDNN, FDNNConfig
from face_destyle.errors import UserError
from face_destyle.models import base
from tests import hub_server
from tests.train import made
from train.evaluate import seen_styles
from train.figures import judge_sha256
from train.frozen import sha256
from train.obedience import classifier_sha256
from train.recipe import load_recipe, recipe_beside


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
        ("loss.soften=-1", "jitter and soften start at 0"),
        ("loss.jitter=-1", "jitter and soften start at 0"),
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


class TestBesideWeightsOnTheHub:
    """The recipe is fetched as the weights are: it says who may not judge them."""

    SMALL = FDNNConfig(
        encoder_widths=(8, 8, 8, 8), code_rank=4, decoder_widths=(8, 8, 8), tail_width=8
    )

    @pytest.fixture
    def hub(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[hub_server.Hub]:
        """It holds `org/bare`, weights without a recipe."""
        FDNN(self.SMALL).save_pretrained(tmp_path / "run")
        bare = hub_server.Repository.empty()
        bare.commit({path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()})
        with hub_server.serve() as hub:
            hub.repositories["org/bare"] = bare
            fetch = functools.partial(
                huggingface_hub.hf_hub_download, endpoint=hub.url, cache_dir=tmp_path / "cache"
            )
            monkeypatch.setattr(base, "hf_hub_download", fetch)
            monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
            monkeypatch.setenv("NO_PROXY", "127.0.0.1")
            yield hub

    def test_it_is_read(self, hub: hub_server.Hub, tmp_path: Path) -> None:
        embedding = made.face_embedding(tmp_path / "face.safetensors")
        judge = tmp_path / "run"  # any weights
        loss = {
            "identity_sha256": sha256(embedding),
            "obedience_sha256": sha256(judge / "model.safetensors"),
        }
        recipe = {"loss": loss, "data": {"styles": ["candy"]}}
        bare = hub.repositories["org/bare"]
        bare.commit({"recipe.yaml": yaml.safe_dump(recipe).encode()})
        assert seen_styles("org/bare") == ["candy"]
        with pytest.raises(UserError, match="judge by another face embedding"):
            judge_sha256("org/bare", str(embedding))
        with pytest.raises(UserError, match="judge by another classifier"):
            classifier_sha256("org/bare", str(judge))

    def test_it_may_be_missing(self, hub: hub_server.Hub) -> None:
        assert recipe_beside("org/bare") == {}
        with pytest.raises(UserError, match="not on the Hub"):
            recipe_beside("org/none")

    def test_it_is_not_missing_where_the_hub_is(
        self, hub: hub_server.Hub, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The weights may be in the cache; what judged them is not known."""
        base.weights_file("org/bare")
        offline = functools.partial(base.hf_hub_download, local_files_only=True)
        monkeypatch.setattr(base, "hf_hub_download", offline)
        assert base.weights_file("org/bare").is_file()
        with pytest.raises(UserError, match="the Hub was not reached"):
            recipe_beside("org/bare")


def test_a_recipe_beside_weights_is_a_mapping(tmp_path: Path) -> None:
    FDNN(TestBesideWeightsOnTheHub.SMALL).save_pretrained(tmp_path)
    assert recipe_beside(tmp_path) == {}
    (tmp_path / "recipe.yaml").write_text("[1]")
    with pytest.raises(UserError, match=r"recipe\.yaml holds no mapping"):
        recipe_beside(tmp_path)
