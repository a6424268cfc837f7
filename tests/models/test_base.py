"""Saving and loading: what does not fit is named, nothing is filled in silently."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from face_destyle import (
    FDNN,
    FaceModel,
    FDNNConfig,
    FDNNDiscriminator,
    FDNNDiscriminatorConfig,
    HubModel,
    Stylizer,
    StylizerConfig,
    UserError,
    WeightsError,
    published,
)
from face_destyle.models import base

CONFIG = FDNNConfig(
    encoder_widths=(8, 8, 8, 8), code_rank=4, decoder_widths=(8, 8, 8), tail_width=8
)
JUDGE = FDNNDiscriminatorConfig(widths=(8, 8, 8, 8), full_width=8)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A small FDNN with its discriminator."""
    folder = tmp_path / "saved"
    FDNN(CONFIG).save_pretrained(folder)
    FDNNDiscriminator(JUDGE).save_pretrained(folder / "discriminator")
    return folder


def change_config(folder: Path, **fields: object) -> None:
    config = json.loads((folder / "config.json").read_text()) | fields
    (folder / "config.json").write_text(json.dumps(config))


def failure(folder: Path | str, loader: type[HubModel] = FaceModel, **options: Any) -> str:
    with pytest.raises(WeightsError) as caught:
        loader.from_pretrained(folder, **options)
    message = str(caught.value)
    assert isinstance(caught.value, UserError)
    assert "\n" not in message
    return message


def test_what_is_written(saved: Path) -> None:
    config = json.loads((saved / "config.json").read_text())
    assert config["model_type"] == "fdnn"
    assert config["format_version"] == 1
    assert config["encoder_widths"] == [8, 8, 8, 8]
    assert {path.name for path in saved.iterdir()} == {
        "README.md",
        "config.json",
        "discriminator",
        "model.safetensors",
    }


def test_saving_over_a_network_replaces_it(saved: Path) -> None:
    other = Stylizer(StylizerConfig(width=4, blocks=1))
    other.save_pretrained(saved)
    assert isinstance(HubModel.from_pretrained(saved), Stylizer)


def test_discriminator_of_a_subfolder(saved: Path) -> None:
    model = FDNNDiscriminator.from_pretrained(saved, subfolder="discriminator")
    assert model.config == JUDGE
    stored = load_file(saved / "discriminator" / "model.safetensors")
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, stored[name])


def test_subfolder_that_is_not_there(saved: Path) -> None:
    assert "judge has no config.json" in failure(saved, subfolder="judge")


def test_wrong_class_says_which(saved: Path) -> None:
    assert "load it with FDNN, not Stylizer" in failure(saved, Stylizer)
    message = failure(saved, FaceModel, subfolder="discriminator")
    assert "load it with FDNNDiscriminator, not FaceModel" in message


def test_missing_weight(saved: Path) -> None:
    state = load_file(saved / "model.safetensors")
    del state["head.bias"]
    save_file(state, saved / "model.safetensors")
    assert "missing head.bias" in failure(saved)


def test_unexpected_weight(saved: Path) -> None:
    state = load_file(saved / "model.safetensors") | {"neck.bias": torch.zeros(1)}
    save_file(state, saved / "model.safetensors")
    assert "unexpected neck.bias" in failure(saved)


def test_other_shape(saved: Path) -> None:
    state = load_file(saved / "model.safetensors") | {"head.bias": torch.zeros(5)}
    save_file(state, saved / "model.safetensors")
    assert "head.bias is [5], the network has [12]" in failure(saved)


def test_many_problems_are_counted(saved: Path) -> None:
    save_file({"head.bias": torch.zeros(12)}, saved / "model.safetensors")
    count = len(FDNN(CONFIG).state_dict()) - 1
    assert f"(and {count - 3} more)" in failure(saved)


@pytest.mark.parametrize("keep", [0, 5, 200, -1])
def test_truncated_weights(saved: Path, keep: int) -> None:
    path = saved / "model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    assert "model.safetensors is damaged" in failure(saved)


def test_no_weights(saved: Path) -> None:
    (saved / "model.safetensors").unlink()
    assert "has no model.safetensors" in failure(saved)


def test_no_config(saved: Path) -> None:
    (saved / "config.json").unlink()
    assert "saved is no saved network: it has no config.json" in failure(saved)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"depth": 3, "wide": 1}, "unknown key depth, wide; FDNNConfig has image_size"),
        ({"model_type": "resnet"}, "model_type is 'resnet'; known are afrp, "),
        ({"model_type": None}, "model_type is None"),
        ({"model_type": ["fdnn"]}, "model_type is ['fdnn']"),
        ({"format_version": 2}, "format_version is 2, this release reads 1"),
        ({"image_size": "128"}, "image_size is '128', which is no int"),
        ({"image_size": True}, "image_size is True, which is no int"),
        ({"image_size": 128.5}, "image_size is 128.5, which is no int"),
        ({"pool": 1}, "pool is 1, which is no bool"),
        ({"encoder_widths": 8}, "encoder_widths is 8"),
        ({"encoder_widths": [8, "8", 8, 8]}, "encoder_widths is '8'"),
        ({"norm": "layer"}, "norm is 'layer'; use instance, group, batch, pixel, none"),
        ({"encoder_widths": [8, 8]}, "no network has these numbers"),
        ({"tail_width": -8}, "no network has these numbers"),
        ({"code_rank": 6}, "does not fit its config: code.layers.0.weight is [4, "),
    ],
)
def test_config_that_does_not_fit(saved: Path, fields: dict[str, object], message: str) -> None:
    change_config(saved, **fields)
    assert message in failure(saved)


@pytest.mark.parametrize("text", ["", "{", "[]", '"fdnn"', "null"])
def test_config_that_is_none(saved: Path, text: str) -> None:
    (saved / "config.json").write_text(text)
    assert "config.json" in failure(saved)


def test_a_config_that_leaves_fields_out_gets_their_defaults(saved: Path) -> None:
    config = json.loads((saved / "config.json").read_text())
    del config["norm"]
    (saved / "config.json").write_text(json.dumps(config))
    assert FDNN.from_pretrained(saved).config == CONFIG


def test_unknown_keyword_is_refused(saved: Path) -> None:
    with pytest.raises(TypeError, match="widht"):
        FDNN.from_pretrained(saved, widht=3)


class TestNames:
    def test_published_name_before_a_folder_of_that_name(
        self, saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        shutil.copytree(saved, "fdnn")
        assert FDNN.from_pretrained("fdnn").config != CONFIG
        assert FDNN.from_pretrained("./fdnn").config == CONFIG

    def test_folder_with_one_slash_before_the_hub(
        self, saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        shutil.copytree(saved, "org/name")
        assert FDNN.from_pretrained("org/name").config == CONFIG

    def test_unknown_name_says_what_there_is(self) -> None:
        message = failure("fdn")
        assert all(name in message for name in published.WEIGHTS)
        assert "org/name on the Hub" in message

    def test_hub_that_is_not_reached(self) -> None:
        assert "org/absent is not in the local cache" in failure("org/absent")

    def test_impossible_hub_name(self) -> None:
        assert "cannot get config.json of a b/c" in failure("a b/c")

    def test_a_name_that_no_file_can_have(self) -> None:
        assert "no weights named" in failure("n" * 5000)

    @pytest.mark.parametrize(
        ("options", "revision"),
        [({"revision": "main"}, "main"), ({"force_download": True}, "v0.1.0")],
    )
    def test_a_revision_of_a_published_name_is_asked_of_the_hub(
        self, options: dict[str, Any], revision: str, saved: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked: list[tuple[str, str]] = []

        def download(repo: str, filename: str, **keywords: Any) -> str:
            asked.append((repo, keywords["revision"]))
            return str(saved / filename)

        monkeypatch.setattr(base, "hf_hub_download", download)
        assert FDNN.from_pretrained("fdnn", **options).config == CONFIG
        assert asked == [("face-destyle/fdnn", revision)] * 2

    def test_what_a_download_is_given(self, saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        given: dict[str, Any] = {}

        def download(repo: str, filename: str, **keywords: Any) -> str:
            given.update(keywords)
            return str(saved / "discriminator" / filename)

        monkeypatch.setattr(base, "hf_hub_download", download)
        FDNNDiscriminator.from_pretrained(
            "org/name", subfolder="discriminator", token="t", cache_dir="c", local_files_only=True
        )
        assert given["subfolder"] == "discriminator"
        assert given["token"] == "t"
        assert given["cache_dir"] == "c"
        assert given["local_files_only"] is True
        assert given["revision"] is None
        assert given["library_name"] == "face_destyle"


def test_a_failed_save_leaves_no_half_of_a_network(
    saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (saved / "model.safetensors").read_bytes()

    def full(path: Path, content: bytes) -> int:
        with path.open("wb") as file:
            file.write(content[:10])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space"):
        FDNN(CONFIG).save_pretrained(saved)
    assert (saved / "model.safetensors").read_bytes() == before
    assert not list(saved.glob(".*"))
    assert "has no config.json" in failure(saved)


def test_every_network_is_registered() -> None:
    assert base.REGISTRY["fdnn"] is FDNN
    assert base.REGISTRY["fdnn-discriminator"] is FDNNDiscriminator
    assert base.REGISTRY["stylizer"] is Stylizer


def test_the_file_behind_a_name(saved: Path) -> None:
    assert base.weights_file(str(saved)) == saved / "model.safetensors"
    assert base.weights_file(str(saved), "discriminator").parent == saved / "discriminator"
    assert base.weights_file("fdnn") == published.WEIGHTS["fdnn"].folder() / "model.safetensors"
    with pytest.raises(WeightsError, match="no weights named nobody"):
        base.weights_file("nobody")


def test_attributes_are_declared() -> None:
    taking = {name for name, network in base.REGISTRY.items() if network.takes_attributes}
    assert taking == {"afrp", "afrp-discriminator"}
