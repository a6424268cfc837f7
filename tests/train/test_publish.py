"""Cards are made from files, and closed photos stay closed."""

import json
from pathlib import Path

import pytest
import torch

from face_destyle import FDNN, FDNNConfig, FDNNDiscriminator, HubModel, Stylizer, published
from face_destyle.errors import UserError
from tests.train import made
from train import publish
from train.frozen import sha256

SCORES = {"psnr": 19.5, "ssim": 0.7, "fsim": 0.8, "identity": 0.4, "rank1": 0.3}


@pytest.fixture
def row() -> published.Published:
    return published.WEIGHTS["fdnn"]


def packed(folder: Path) -> Path:
    run = folder / "run"
    FDNN(FDNNConfig(encoder_blocks=(0, 0, 0, 0))).save_pretrained(run)
    FDNNDiscriminator().save_pretrained(run / "discriminator")
    recipe = made.recipe(folder, folder)
    publish.pack(run, recipe, folder / "card", [])
    return folder / "card"


def measured(card: Path) -> None:
    style = {"seen": True, "portraits": 3, "recovered": SCORES, "input": SCORES}
    metrics = {
        "weights_sha256": sha256(card / "model.safetensors"),
        "photos": 3,
        "gallery": 3,
        "identities": 2,
        "styles": {"candy": style},
        "means": {"seen": {"recovered": SCORES, "input": SCORES}},
    }
    (card / "metrics.json").write_text(json.dumps(metrics))


def test_packed_weights_are_half_and_load_single(tmp_path: Path) -> None:
    card = packed(tmp_path)
    half = HubModel.from_pretrained(card, dtype=torch.float16).state_dict()
    whole = HubModel.from_pretrained(tmp_path / "run").state_dict()
    assert all(torch.equal(half[key], whole[key].half()) for key in whole)
    assert next(HubModel.from_pretrained(card).parameters()).dtype == torch.float32
    judge = HubModel.from_pretrained(card, subfolder="discriminator")
    assert isinstance(judge, FDNNDiscriminator)
    assert (card / "recipe.yaml").read_text() == (tmp_path / "recipe.yaml").read_text()


def test_states_of_one_network_are_averaged(tmp_path: Path) -> None:
    one, two = FDNN(), FDNN()
    one.save_pretrained(tmp_path / "one")
    two.save_pretrained(tmp_path / "two")
    publish.pack(tmp_path / "one", None, tmp_path / "mean", [tmp_path / "two"])
    mean = HubModel.from_pretrained(tmp_path / "mean").state_dict()
    for name, tensor in one.state_dict().items():
        assert torch.allclose(mean[name], (tensor + two.state_dict()[name]) / 2, atol=1e-3)
    FDNNDiscriminator().save_pretrained(tmp_path / "other")
    with pytest.raises(UserError, match="other holds another network"):
        publish.pack(tmp_path / "one", None, tmp_path / "none", [tmp_path / "other"])
    assert not (tmp_path / "none").exists()


def test_a_card_tells_the_measured_figures(tmp_path: Path, row: published.Published) -> None:
    card = packed(tmp_path)
    measured(card)
    other = tmp_path / "other.json"
    means = {group: {"recovered": SCORES | {"psnr": 17.25}} for group in ("seen", "unseen")}
    other.write_text(json.dumps({"photos": 300, "means": means}))
    publish.write_card(row, card, {"pix2pix": other})
    text = (card / "README.md").read_text()
    assert "| candy | seen | 19.50 -> 19.50 |" in text
    assert "| pix2pix | 300 | 17.25 | 0.700 | 0.400 | 17.25 |" in text
    assert "non-commercial" in text and "model-index" in text and "value: 19.5" in text
    assert "pipeline_tag: image-to-image" in text


def test_a_card_of_a_stylizer_names_the_artwork(tmp_path: Path) -> None:
    Stylizer().save_pretrained(tmp_path)
    publish.write_card(published.WEIGHTS["style-udnie"], tmp_path, {})
    text = (tmp_path / "README.md").read_text()
    assert "Picabia, Udnie" in text and 'from_pretrained("style-udnie")' in text


def test_figures_of_other_weights_are_refused(tmp_path: Path, row: published.Published) -> None:
    card = packed(tmp_path)
    with pytest.raises(UserError, match=r"metrics\.json is missing: run train\.evaluate"):
        publish.write_card(row, card, {})
    measured(card)
    torch.manual_seed(1)
    FDNN(FDNNConfig(encoder_blocks=(0, 0, 0, 0))).half().save_pretrained(card)
    before = (card / "README.md").read_text()
    with pytest.raises(UserError, match="measured on other weights"):
        publish.write_card(row, card, {})
    assert (card / "README.md").read_text() == before


def test_an_unknown_name_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert publish.main(["card", "--name", "nobody"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize("licence", [None, "celeba-agreement", "cc-by-nc-4.0"])
def test_pairs_without_a_free_licence_are_not_uploaded(tmp_path: Path, licence: str | None) -> None:
    photos = made.photos(tmp_path / "photos", 2)
    with pytest.raises(UserError, match="not uploaded: --licence"):
        publish.push_pairs(tmp_path, "org/pairs", str(photos), licence)


@pytest.mark.parametrize("source", ["celebat", "aaf", "CelebA-HQ"])
def test_pairs_of_closed_photos_are_not_uploaded(tmp_path: Path, source: str) -> None:
    photos = made.photos(tmp_path / "photos", 2)
    metadata = photos / "train" / "metadata.jsonl"
    lines = [json.loads(line) | {"source": source} for line in metadata.read_text().splitlines()]
    metadata.write_text("\n".join(json.dumps(line) for line in lines))
    with pytest.raises(UserError, match=f"not uploaded: .*{source.lower()}"):
        publish.check_may_share(str(photos), "cc0-1.0")


def test_free_pairs_are_uploaded_with_a_card(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos = made.photos(tmp_path / "photos", 2)
    pairs = tmp_path / "pairs"
    pairs.mkdir()
    made_by = {"photos": "own", "styles": {"udnie": "style-udnie"}, "variants": 2}
    (pairs / "stylize.json").write_text(json.dumps(made_by))
    calls: list[dict[str, object]] = []

    class Api:
        def create_repo(self, repo_id: str, **options: object) -> None:
            calls.append({"repo_id": repo_id, **options})

        def upload_folder(self, **options: object) -> None:
            calls.append(options)

    monkeypatch.setattr(publish, "HfApi", Api)
    publish.push_pairs(pairs, "org/pairs", str(photos), "CC0-1.0")
    assert [call["repo_type"] for call in calls] == ["dataset", "dataset"]
    assert calls[1]["folder_path"] == pairs
    text = (pairs / "README.md").read_text()
    assert "license: cc0-1.0" in text and "styles: udnie" in text
