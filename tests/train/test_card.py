"""Cards of networks that read attributes, of those that obey them, of those that frontalize."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard

from face_destyle import AFRP, TANN, AttributeClassifier, TANNConfig, published
from face_destyle.attributes import NAMES
from face_destyle.configs import config_from_dict
from face_destyle.errors import UserError
from tests.train.test_triplet import TINY_TANN
from train import card as cards
from train import publish
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
    alone = tmp_path / "alone.json"
    alone.write_text(json.dumps(metrics))  # nothing is unseen
    cards.write_card(ROW, guided, {"rival": other, "alone": alone})
    text = (guided / "README.md").read_text()
    assert "Identity and rank-1\n(-) were not measured" in text
    assert "Rank-1: the share" not in text and "took no part in training" not in text
    assert "| candy | seen | 19.50 -> 19.50 | 0.700 -> 0.700 | 0.800 -> 0.800 | - | - |" in text
    assert "| rival | 3 | 19.50 | 0.700 | 0.800 | - | - | 19.50 | 0.700 | 0.800 | - | - |" in text
    assert "| alone | 3 | 19.50 | 0.700 | 0.800 |" + " - |" * 7 in text


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
    told = "as it is, and flipped; all others are {}"
    assert told.format("left to the portrait") in text
    stated = obedience()
    stated["obedience"]["rest"] = "true"
    write(guided, "obedience.json", stated)
    cards.write_card(ROW, guided, {})
    assert told.format("asked for as they are") in (guided / "README.md").read_text()
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


def seen_from(psnr: float) -> dict[str, Any]:
    """The figures of an angle, as train.evaluate writes them of views."""
    scores = {"psnr": psnr, "ssim": 0.5, "identity": 0.25, "rank1": 0.125}
    enlarged = scores | {"psnr": 12.5, "rank1": 0.0}
    return {"views": 4, "input": enlarged, "recovered": scores, "own": 0.375, "other": 0.75}


@pytest.fixture
def frontal(tmp_path: Path) -> Path:
    """A TANN as train.publish packs one, with its metrics.json."""
    folder = tmp_path / "fdnn-tann"
    TANN(config_from_dict(TANNConfig, TINY_TANN, "")).save_pretrained(folder)
    means = {kind: seen_from(17.25)[kind] for kind in ("input", "recovered")}
    figures = {
        "photos": 4,
        "gallery": 4,
        "identities": 3,
        "identity_network_sha256": "judge",
        "angles": {"0": seen_from(19.5), "30": seen_from(18.5), "90": seen_from(16.0)},
        "means": {"turned": means},
    }
    write(folder, "metrics.json", figures)
    return folder


FRONTAL_ROW = replace(ROW, name="fdnn-tann", paper="Yu et al.: Can We See More?, TPAMI 2020")


class TestFrontal:
    def test_the_card(self, frontal: Path) -> None:
        cards.write_card(FRONTAL_ROW, frontal, {}, "In two parts.")
        text = (frontal / "README.md").read_text()
        assert (
            "| 30 | 4 | 12.50 -> 18.50 | 0.500 -> 0.500 | 0.250 -> 0.250 | 0.0% -> 12.5% " in text
        )
        assert "| **mean turned** |  | 12.50 -> 17.25 |" in text
        assert "| 0.375 / 0.75 |" in text and "Codes: the mean" in text
        assert "on 4 test photos of 3 people" in text and "Rank-1: the share" in text
        assert "In two parts." in text and "CelebA (test partition)" in text
        assert "It finds no face by itself." in text and "yu2020can" in text
        for of_portraits in ("portrait", "styl", "painting", "FSIM", "Beside others"):
            assert of_portraits not in text.replace("face_destyle", "").replace("face-destyle", "")

    def test_the_model_index(self, frontal: Path) -> None:
        cards.write_card(FRONTAL_ROW, frontal, {})
        data = ModelCard.load(frontal / "README.md").data.to_dict()
        assert data["tags"] == ["face", "super-resolution", "face-destyle"]
        (index,) = data["model-index"]
        (result,) = index["results"]
        assert result["dataset"] == {
            "name": "tiny test photos of turned heads, 30 to 90 degrees",
            "type": "tiny-turned-faces",
            "config": "30 to 90 degrees",
            "split": "test",
        }
        found = {measure["name"]: measure["value"] for measure in result["metrics"]}
        assert found == {"PSNR": 17.25, "SSIM": 0.5}

    def test_a_discriminator_that_took_no_part_is_not_told_of(self, frontal: Path) -> None:
        def told() -> bool:
            cards.write_card(FRONTAL_ROW, frontal, {})
            return "The discriminator it was trained with" in (frontal / "README.md").read_text()

        assert not told()
        (frontal / "discriminator").mkdir()
        assert told()
        (frontal / "recipe.yaml").write_text("loss: {adversarial: 0.0}")
        assert not told()
        (frontal / "recipe.yaml").write_text("loss: {adversarial: 0.01}")
        assert told()

    def test_what_was_not_measured(self, frontal: Path) -> None:
        metrics = json.loads((frontal / "metrics.json").read_text())
        del metrics["identity_network_sha256"], metrics["means"]
        metrics["angles"] = {"0": metrics["angles"]["0"]}
        row = metrics["angles"]["0"]
        del row["own"], row["other"]
        for kind in ("input", "recovered"):
            row[kind] = {m: row[kind][m] for m in ("psnr", "ssim")}
        (frontal / "metrics.json").write_text(json.dumps(metrics))
        cards.write_card(FRONTAL_ROW, frontal, {})
        text = (frontal / "README.md").read_text()
        assert "| 0 | 4 | 12.50 -> 19.50 | 0.500 -> 0.500 | - | - |\n" in text
        assert "Identity and rank-1\n(-) were not measured" in text
        for absent in ("Rank-1: the share", "took no part", "Codes", "ean turned", "model-index"):
            assert absent not in text

    def test_figures_that_are_not_those_of_the_card(self, frontal: Path) -> None:
        cards.write_card(FRONTAL_ROW, frontal, {})
        network = TANN.from_pretrained(frontal)
        cards.check_card(network, frontal)
        metrics = (frontal / "metrics.json").read_text()
        (frontal / "metrics.json").write_text(metrics.replace("18.5", "21.5"))
        with pytest.raises(UserError, match="does not tell the figures"):
            cards.check_card(network, frontal)
        other = metrics.replace(json.loads(metrics)["weights_sha256"], "another")
        (frontal / "metrics.json").write_text(other)
        with pytest.raises(UserError, match="measured on other weights"):
            cards.check_card(network, frontal)

    def test_the_command(
        self,
        frontal: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        monkeypatch.setitem(published.WEIGHTS, "fdnn-tann", FRONTAL_ROW)
        path = two_stage(frontal)
        command = ["card", "--name", "fdnn-tann", "--cards", str(tmp_path)]
        assert publish.main([*command, "--beside", f"Two networks in a row={path}"]) == 0
        text = (frontal / "README.md").read_text()
        assert (
            "Two networks in a row, on 4 photos:\n\n| angle (degrees) | tann | two | bicubic |"
            in text
        )
        assert "| 0 | 19.50 / 0.250 / 12.5% | 18.00 / 0.250 / 12.5% | 12.50 / " in text
        assert "README.md" in publish.stage(frontal, tmp_path / "out")
        assert publish.main([*command, "--beside", f"no={tmp_path / 'no.json'}"]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert "run benchmarks.two_stage" in line


def two_stage(folder: Path, **changes: Any) -> Path:
    """A file as benchmarks.two_stage writes it, of the weights in a folder."""
    measured = {
        name: seen_from(psnr)["recovered"] | {"behind": [1.0, 0.5, 1.5]}
        for name, psnr in (("tann", 19.5), ("two", 18.0), ("bicubic", 12.5))
    }
    content = {
        "weights_sha256": {"tann": [sha256(folder / "model.safetensors")], "two": ["a", "b"]},
        "identity_network_sha256": "judge",
        "angles": {angle: {"views": 4, "photos": 4, **measured} for angle in ("0", "30")},
    }
    path = folder.parent / "two-stage.json"
    path.write_text(json.dumps(content | changes))
    return path


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"weights_sha256": {"tann": ["another"]}}, "measured without these weights"),
        ({"weights_sha256": "of a metrics.json"}, "measured without these weights"),
        ({"identity_network_sha256": "another"}, "measured by another face embedding"),
    ],
)
def test_what_does_not_belong_beside_is_refused(
    frontal: Path, changes: dict[str, Any], said: str
) -> None:
    before = (frontal / "README.md").read_text()
    with pytest.raises(UserError, match=said):
        cards.write_card(FRONTAL_ROW, frontal, {"two": two_stage(frontal, **changes)})
    assert (frontal / "README.md").read_text() == before


def test_figures_of_pairs_and_of_views_are_not_beside_each_other(
    guided: Path, frontal: Path
) -> None:
    with pytest.raises(UserError, match=r"has no means: .* takes what train\.evaluate writes"):
        cards.write_card(ROW, guided, {"two": two_stage(frontal)})
    with pytest.raises(UserError, match=r"has no angles: .* takes what benchmarks\.two_stage"):
        cards.write_card(FRONTAL_ROW, frontal, {"other": guided / "metrics.json"})


def test_where_nobody_judged_the_others_are_told_by_pixels(frontal: Path) -> None:
    metrics = json.loads((frontal / "metrics.json").read_text())
    del metrics["identity_network_sha256"]
    for row in (*metrics["angles"].values(), *metrics["means"].values()):
        for kind in ("input", "recovered"):
            del row[kind]["identity"], row[kind]["rank1"]
    (frontal / "metrics.json").write_text(json.dumps(metrics))
    cards.write_card(FRONTAL_ROW, frontal, {"two": two_stage(frontal)})
    text = (frontal / "README.md").read_text()
    assert "| 30 | 19.50 | 18.00 | 12.50 |" in text
    assert "Each cell is PSNR in dB. All networks" in text
