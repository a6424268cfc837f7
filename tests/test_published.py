"""Every row of the table of published weights is true of the files that come with it."""

import hashlib
import json

import pytest
import torch
from huggingface_hub import ModelCard
from safetensors.torch import load_file

from face_destyle import AttributeClassifier, HubModel, Stylizer, published
from train import card
from train.evaluate import table

MEGABYTE = 1_000_000
LIMITS = {"fdnn": 8 * MEGABYTE, "attributes": 2 * MEGABYTE, "style": 1 * MEGABYTE}
# The thesis' protocol.
SEEN = ["candy", "feathers", "the_scream"]
UNSEEN = ["composition_vii", "la_muse", "mosaic", "starry_night", "udnie"]
ROWS = list(published.WEIGHTS.values())

every_row = pytest.mark.parametrize("row", ROWS, ids=[row.name for row in ROWS])


def test_the_names() -> None:
    assert set(published.WEIGHTS) == {
        "fdnn",
        "fdnn-ifrp",
        "fdnn-ifrp-protocol",
        "fdnn-afrp",
        "fdnn-tann",
        "attributes",
        "style-the-scream",
        "style-starry-night",
        "style-composition-vii",
        "style-udnie",
    }
    assert all(name == row.name for name, row in published.WEIGHTS.items())
    assert len({row.repo_id for row in ROWS}) == len(ROWS)


@every_row
def test_files(row: published.Published) -> None:
    for name in ("README.md", "config.json", "model.safetensors"):
        assert (row.folder() / name).is_file(), name


@every_row
def test_sha256(row: published.Published) -> None:
    content = (row.folder() / "model.safetensors").read_bytes()
    assert row.sha256 == hashlib.sha256(content).hexdigest()


@every_row
def test_facts(row: published.Published) -> None:
    assert row.repo_id == f"face-destyle/{row.name}"
    assert row.tag.startswith("v")
    assert row.licence == "research, non-commercial"
    assert row.paper
    assert row.data


@every_row
def test_size_and_dtype(row: published.Published) -> None:
    path = row.folder() / "model.safetensors"
    assert path.stat().st_size < LIMITS[row.name.split("-")[0]]
    assert {tensor.dtype for tensor in load_file(path).values()} == {torch.float16}


@every_row
def test_loads_as_what_it_says(row: published.Published) -> None:
    model = HubModel.from_pretrained(row.name)
    config = json.loads((row.folder() / "config.json").read_text())
    assert model.model_type == config["model_type"]
    kind = row.name.removeprefix("fdnn-").removesuffix("-protocol")
    assert config["model_type"] == ("stylizer" if isinstance(model, Stylizer) else kind)
    for name, weight in model.named_parameters():
        assert torch.isfinite(weight).all(), name


@pytest.mark.parametrize("name", ["fdnn", "fdnn-ifrp", "fdnn-ifrp-protocol", "fdnn-afrp"])
def test_the_discriminator_comes_along(name: str) -> None:
    path = published.WEIGHTS[name].folder() / "discriminator" / "model.safetensors"
    assert path.stat().st_size < 2 * MEGABYTE
    assert {tensor.dtype for tensor in load_file(path).values()} == {torch.float16}
    model = HubModel.from_pretrained(name, subfolder="discriminator")
    assert model.model_type == f"{HubModel.from_pretrained(name).model_type}-discriminator"


@every_row
def test_figures_are_those_of_the_file(row: published.Published) -> None:
    path = row.folder() / "metrics.json"
    assert row.figures() == (json.loads(path.read_text()) if path.exists() else {})


def test_a_row_without_figures(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:  # noqa: ANN001
    monkeypatch.setattr(published, "PACKAGE", tmp_path / "face_destyle")
    assert ROWS[0].figures() == {}
    inside = tmp_path / "face_destyle" / "cards" / ROWS[0].name
    inside.mkdir(parents=True)
    (inside / "metrics.json").write_text('{"seen": {"psnr": 20.5}}')
    assert ROWS[0].folder() == inside
    assert ROWS[0].figures() == {"seen": {"psnr": 20.5}}


@every_row
def test_the_card_is_that_of_the_row_and_its_figures(row: published.Published) -> None:
    model, figures = HubModel.from_pretrained(row.name), row.figures()
    assert bool(figures) != isinstance(model, Stylizer)
    if figures:
        assert figures["weights_sha256"] == row.sha256
        assert card.figures_table(model, figures) in (row.folder() / "README.md").read_text()
    kind = "classification" if isinstance(model, AttributeClassifier) else "to-image"
    expected = card.card_data(row, figures, pipeline_tag=f"image-{kind}")
    found = ModelCard.load(row.folder() / "README.md").data
    assert found.to_dict() == expected.to_dict()


def test_the_card_tells_the_figures_of_these_weights() -> None:
    row = published.WEIGHTS["fdnn"]
    figures = row.figures()
    assert figures["weights_sha256"] == row.sha256
    assert table(figures) in (row.folder() / "README.md").read_text()
    assert set(figures["styles"]) == set(SEEN + UNSEEN)
    assert [name for name in figures["styles"] if figures["styles"][name]["seen"]] == SEEN
