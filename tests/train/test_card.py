"""Cards of networks that read attributes, and of those that obey them."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard

from face_destyle import AFRP, AttributeClassifier, published
from face_destyle.attributes import NAMES
from face_destyle.errors import UserError
from train import card as cards
from train.frozen import sha256

ROW = replace(published.WEIGHTS["fdnn"], name="guided", data="CelebA (test partition)")
SCORES = {"psnr": 19.5, "ssim": 0.7, "fsim": 0.8, "identity": 0.4, "rank1": 0.3}


def write(folder: Path, name: str, figures: dict[str, Any]) -> None:
    figures = {"weights_sha256": sha256(folder / "model.safetensors")} | figures
    (folder / name).write_text(json.dumps(figures))


def reading(**more: float) -> dict[str, Any]:
    row = {"with": 4, "without": 6, "accuracy": 0.9, "balanced": 0.8125} | more
    return {"mean": {"accuracy": 0.9, "balanced": 0.8125}, "attributes": dict.fromkeys(NAMES, row)}


@pytest.fixture
def classifier(tmp_path: Path) -> Path:
    AttributeClassifier().save_pretrained(tmp_path)
    training = {"photos": 30, "portraits": 20, "identities": 11}
    write(
        tmp_path,
        "metrics.json",
        reading(threshold=0.25) | {"test_photos": 10} | {"training": training},
    )
    return tmp_path


@pytest.fixture
def guided(tmp_path: Path) -> Path:
    AFRP().save_pretrained(tmp_path)
    style = {"seen": True, "portraits": 3, "recovered": SCORES, "input": SCORES}
    figures = {"photos": 3, "gallery": 3, "identities": 2, "styles": {"candy": style}}
    means = {"seen": {"recovered": SCORES, "input": SCORES}}
    write(tmp_path, "metrics.json", figures | {"means": means})
    return tmp_path


def without_people(folder: Path) -> dict[str, Any]:
    """The metrics.json of a folder as train.evaluate writes it where no embedding is given."""
    metrics = json.loads((folder / "metrics.json").read_text())
    for row in (*metrics["styles"].values(), *metrics["means"].values()):
        for kind in ("recovered", "input"):
            row[kind] = {m: row[kind][m] for m in ("psnr", "ssim", "fsim")}
    (folder / "metrics.json").write_text(json.dumps(metrics))
    return metrics


def test_a_card_says_what_was_not_measured(guided: Path, tmp_path: Path) -> None:
    cards.write_card(ROW, guided, {})
    text = (guided / "README.md").read_text()
    assert "Rank-1: the share" in text and "not measured" not in text
    metrics = without_people(guided)
    unseen = {"unseen": metrics["means"]["seen"]}
    other = tmp_path / "other.json"
    other.write_text(json.dumps(metrics | {"means": metrics["means"] | unseen}))
    cards.write_card(ROW, guided, {"rival": other})
    text = (guided / "README.md").read_text()
    assert "Identity and rank-1\n(-) were not measured" in text
    assert "Rank-1: the share" not in text and "took no part in training" not in text
    assert "| candy | seen | 19.50 -> 19.50 | 0.700 -> 0.700 | 0.800 -> 0.800 | - | - |" in text
    assert "| rival | 3 | 19.50 | 0.700 | - | 19.50 | 0.700 | - |" in text


def test_so_does_that_of_a_fine_tuning(guided: Path) -> None:
    before = without_people(guided)
    cards.write_finetuned_card(ROW, guided, "fdnn", "my artwork", before)
    text = (guided / "README.md").read_text()
    assert "Identity and rank-1\n(-) were not measured" in text
    assert "Rank-1: the share" not in text
    assert "| candy | 19.50 -> 19.50 | 0.700 -> 0.700 | - -> - | - -> - |" in text


def test_nobody_is_counted_where_every_photo_may_be_of_another(guided: Path) -> None:
    before = json.loads((guided / "metrics.json").read_text())
    cards.write_finetuned_card(ROW, guided, "fdnn", "my artwork", before)
    text = (guided / "README.md").read_text()
    assert "on 3 photos of 2 people that\nwere held out" in text
    (guided / "metrics.json").write_text(json.dumps(before | {"identities": 3}))
    cards.write_finetuned_card(ROW, guided, "fdnn", "my artwork", before)
    text = (guided / "README.md").read_text()
    assert "on 3 photos that\nwere held out" in text and "people that" not in text


def test_seen_and_unseen_styles_are_two_results_on_the_hub(guided: Path) -> None:
    metrics = json.loads((guided / "metrics.json").read_text())
    unseen = {"recovered": SCORES | {"psnr": 14.25, "ssim": 0.5}, "input": SCORES}
    metrics["means"]["unseen"] = unseen
    (guided / "metrics.json").write_text(json.dumps(metrics))
    cards.write_card(ROW, guided, {})
    (index,) = ModelCard.load(guided / "README.md").data.to_dict()["model-index"]
    found = {
        result["dataset"]["name"]: {m["name"]: m["value"] for m in result["metrics"]}
        for result in index["results"]
    }
    assert found == {
        "stylized test photos, seen styles": {"PSNR": 19.5, "SSIM": 0.7},
        "stylized test photos, unseen styles": {"PSNR": 14.25, "SSIM": 0.5},
    }


def obedience() -> dict[str, Any]:
    share = {"share": 0.7654, "interval": [0.7, 0.82]}
    row = {"portraits": 8, "photos": 4, "changed": share, "reached": share, "cosine": 0.625}
    differs = {"psnr": 14.5, "gender_differs": share, "age_differs": share}
    return {
        "photos": 4,
        "judge": reading(),
        "preservation": {"portrait": {"all": differs}},
        "obedience": {
            "mean_changed": 0.7654,
            "mean_reached": 0.8,
            "mean_cosine": 0.625,
            "attributes": dict.fromkeys(NAMES, row),
        },
    }


def test_a_classifier_has_its_own_card(classifier: Path) -> None:
    cards.write_card(ROW, classifier, {}, "Trained on portraits too.")
    text = (classifier / "README.md").read_text()
    assert "pipeline_tag: image-classification" in text
    assert "| Smiling | 0.250 | 4 | 6 | 90.0% | 81.2% |" in text
    assert "30 photos and 20 portraits of\n11 people" in text
    assert "Trained on portraits too." in text and "CelebA (test partition)" in text


def test_a_classifier_has_the_figures_of_its_card(classifier: Path) -> None:
    cards.write_card(ROW, classifier, {})
    network = AttributeClassifier.from_pretrained(classifier)
    cards.check_card(network, classifier)
    metrics = (classifier / "metrics.json").read_text()
    (classifier / "metrics.json").write_text(metrics.replace("0.8125", "0.8625"))
    with pytest.raises(UserError, match="does not tell the figures"):
        cards.check_card(network, classifier)


def test_a_classifier_without_figures_gets_none(tmp_path: Path) -> None:
    AttributeClassifier().save_pretrained(tmp_path)
    (tmp_path / "README.md").unlink()
    with pytest.raises(UserError, match=r"metrics\.json is missing: run train\.classify first"):
        cards.write_card(ROW, tmp_path, {})
    assert not (tmp_path / "README.md").exists()


def test_a_card_tells_how_a_network_obeys(guided: Path) -> None:
    cards.write_card(ROW, guided, {})
    assert "### Attributes" not in (guided / "README.md").read_text()
    write(guided, "obedience.json", obedience())
    cards.write_card(ROW, guided, {})
    text = (guided / "README.md").read_text()
    assert "Each attribute of each labelled face is flipped" in text
    assert "| Bald | 8 | 76.5% | 70.0% to 82.0% | 76.5% | 81.2% | 0.625 |" in text
    assert "| portrait | all | 14.50 | 76.5% | 76.5% |" in text


def test_a_network_without_attributes_flips_none(guided: Path) -> None:
    kept = obedience()
    del kept["obedience"]
    write(guided, "obedience.json", kept)
    cards.write_card(ROW, guided, {})
    text = (guided / "README.md").read_text()
    assert "part in training. It tells how often\ngender and age group are read otherwise" in text
    assert "flipped" not in text and "*Changed*" not in text and "(*portrait*)" not in text
    assert "| portrait | all | 14.50 | 76.5% | 76.5% |" in text


def test_obedience_of_other_weights_is_refused(guided: Path) -> None:
    write(guided, "obedience.json", obedience() | {"weights_sha256": "another"})
    with pytest.raises(UserError, match=r"obedience\.json was measured on other weights"):
        cards.write_card(ROW, guided, {})
