"""Weights are packed as they are, cards are made from files, and what does not fit stays here."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from face_destyle import FDNN, FDNNConfig, FDNNDiscriminator, HubModel, Stylizer, published
from face_destyle.errors import UserError
from face_destyle.models.base import REGISTRY
from tests.train import made
from train import card as cards
from train import groups, publish
from train.frozen import sha256

# With counters among its weights.
NORMED = FDNNConfig(
    encoder_widths=(8, 8, 8, 8),
    code_rank=4,
    decoder_widths=(8, 8, 8),
    tail_width=8,
    norm="batch",
)
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


def test_a_wrong_folder_does_not_pass_for_the_old_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    old = packed(tmp_path).rename(tmp_path / "fdnn")
    before = {path: path.read_bytes() for path in old.rglob("*") if path.is_file()}
    (tmp_path / "empty").mkdir()
    into = ["pack", "--name", "fdnn", "--cards", str(tmp_path)]
    for wrong in ("run/weights", "nowhere", "empty"):
        for given in (["--weights", wrong], ["--weights", "run", "--average", wrong]):
            assert publish.main([*into, *given]) == 2
            said = capsys.readouterr()
            (line,) = said.err.splitlines()
            assert line.startswith(f"{wrong} has no model.safetensors: give") and not said.out
    assert {path: path.read_bytes() for path in old.rglob("*") if path.is_file()} == before


def test_a_recipe_that_is_not_there_is_named(tmp_path: Path) -> None:
    FDNN(FDNNConfig(encoder_blocks=(0, 0, 0, 0))).save_pretrained(tmp_path / "run")
    missing = tmp_path / "no.yaml"
    with pytest.raises(UserError, match=r"there is no recipe .*no\.yaml"):
        publish.pack(tmp_path / "run", missing, tmp_path / "card", [])
    assert not (tmp_path / "card").exists()


def test_counters_are_packed_and_have_no_mean(tmp_path: Path) -> None:
    one, two = FDNN(NORMED), FDNN(NORMED)
    two.load_state_dict(
        {k: v + (1 if v.is_floating_point() else 7) for k, v in one.state_dict().items()}
    )
    one.save_pretrained(tmp_path / "one")
    two.save_pretrained(tmp_path / "two")
    for name, others, moved in (("alone", [], 0.0), ("mean", [tmp_path / "two"], 0.5)):
        publish.pack(tmp_path / "one", None, tmp_path / name, others)
        found = HubModel.from_pretrained(tmp_path / name).state_dict()
        counters = [key for key, value in found.items() if not value.is_floating_point()]
        assert counters
        for key, tensor in one.state_dict().items():
            expected = tensor if key in counters else tensor + moved
            assert torch.allclose(found[key], expected, atol=1e-3)


def test_a_card_tells_the_measured_figures(tmp_path: Path, row: published.Published) -> None:
    card = packed(tmp_path)
    measured(card)
    other = tmp_path / "other.json"
    means = {group: {"recovered": SCORES | {"psnr": 17.25}} for group in ("seen", "unseen")}
    other.write_text(json.dumps({"photos": 300, "means": means}))
    publish.write_card(row, card, {"pix2pix": other})
    text = (card / "README.md").read_text()
    assert "| candy | seen | 19.50 -> 19.50 |" in text
    assert "| pix2pix | 300 | 17.25 | 0.700 | 0.800 | 0.400 | " in text
    assert "non-commercial" in text and "model-index" in text and "value: 19.5" in text
    assert "pipeline_tag: image-to-image" in text


def test_a_card_of_a_stylizer_names_the_artwork(tmp_path: Path) -> None:
    Stylizer().save_pretrained(tmp_path)
    publish.write_card(published.WEIGHTS["style-udnie"], tmp_path, {})
    text = (tmp_path / "README.md").read_text()
    assert "Picabia, Udnie" in text and 'from_pretrained("style-udnie")' in text
    assert "recipe.yaml" not in text


def test_the_recipe_of_a_stylizer_goes_along(tmp_path: Path) -> None:
    Stylizer().save_pretrained(tmp_path / "run")
    (tmp_path / "run" / "recipe.yaml").write_text("artwork: my.jpg\n")
    card = tmp_path / "card"
    publish.pack(tmp_path / "run", None, card, [])
    publish.write_card(published.WEIGHTS["style-udnie"], card, {})
    assert "`recipe.yaml`" in (card / "README.md").read_text()
    assert "recipe.yaml" in publish.stage(card, tmp_path / "out")
    assert (tmp_path / "out" / "recipe.yaml").read_text() == "artwork: my.jpg\n"


def test_figures_of_other_weights_are_refused(tmp_path: Path, row: published.Published) -> None:
    card = packed(tmp_path)
    with pytest.raises(UserError, match=r"metrics\.json is missing: run train\.evaluate"):
        publish.write_card(row, card, {})
    assert not (card / "README.md").exists()
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


def test_a_card_shows_groups_of_people(tmp_path: Path, row: published.Published) -> None:
    card = packed(tmp_path)
    measured(card)
    publish.write_card(row, card, {})
    text = (card / "README.md").read_text()
    assert "By gender and age" not in text and "No\n  figures by group" in text
    assert "datasets:\n- flwrlabs/celeba" in text
    metrics = json.loads((card / "metrics.json").read_text())
    figures = {"photos": 12, "seen": SCORES, "unseen": SCORES | {"psnr": 14.5}}
    metrics["groups"] = {
        "gender": {"female": figures, "male": figures | {"photos": 9}},
        "age": {"0 to 17": figures},
    }
    (card / "metrics.json").write_text(json.dumps(metrics))
    publish.write_card(row, card, {})
    text = (card / "README.md").read_text()
    assert "| male | 9 | 19.50 | 0.700 | 0.400 | 30.0% | 14.50 | 0.700 |" in text
    assert "| 0 to 17 | 12 |" in text
    assert "The\n  figures by group are above." in text and "No\n  figures" not in text


def test_every_study_has_its_card(tmp_path: Path, row: published.Published) -> None:
    said = {
        "fdnn": "an aligned",
        "ifrp": "need not be aligned",
        "afrp": "attributes=",
        "tann": "16",
    }
    for name, text in said.items():
        facts = cards.study(REGISTRY[name]())
        assert facts.keys() == {"takes", "snippet", "contract", "limit", "cite"}
        assert any(text in value for value in facts.values())
        assert max(map(len, facts["contract"].splitlines())) <= 102
    with pytest.raises(UserError, match=r"studies\.yaml says nothing of stylizer"):
        cards.study(Stylizer())


def test_a_dry_run_writes_what_would_be_uploaded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert publish.main(["push", "fdnn", "--dry-run", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    assert said.startswith("face-destyle/fdnn, tag v") and "discriminator/config.json" in said
    folder = Path("cards/fdnn")
    names = {name for name in publish.PUBLISHED if name != "obedience.json"}  # FDNN obeys nobody
    for name in names:
        assert (tmp_path / "out" / name).read_bytes() == (folder / name).read_bytes()
    written = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert len(written) == len(names)
    assert publish.main(["push", "fdnn", "--dry-run", str(tmp_path / "out")]) == 2
    assert "choose another folder" in capsys.readouterr().err


def test_a_folder_needs_a_card_and_a_place(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out = packed(tmp_path), tmp_path / "out"
    steps = [
        (["push", str(folder)], "--repo ORG/NAME"),
        (["push", "nobody"], "neither a published name nor a folder"),
        (["push", str(folder), "--repo", "a/b", "--dry-run", str(out)], "has no README.md"),
        (["push", "fdnn", "--cards", str(tmp_path), "--dry-run", str(out)], "has no README.md"),
    ]
    for arguments, said in steps:
        assert publish.main(arguments) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert said in line
        assert not out.exists()


def test_weights_that_are_not_those_of_the_figures_stay_here(
    tmp_path: Path, row: published.Published
) -> None:
    folder = packed(tmp_path)
    measured(folder)
    publish.write_card(row, folder, {})
    assert "model.safetensors" in publish.uploaded(folder)
    FDNN(FDNNConfig(encoder_blocks=(0, 0, 0, 0))).half().save_pretrained(folder)
    with pytest.raises(UserError, match="measured on other weights"):
        publish.stage(folder, tmp_path / "out")
    (folder / "metrics.json").unlink()
    (folder / "discriminator" / "model.safetensors").write_bytes(b"half")
    with pytest.raises(UserError, match="is damaged"):
        publish.stage(folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_figures_that_are_not_those_of_the_card_stay_here(
    tmp_path: Path, row: published.Published
) -> None:
    folder = packed(tmp_path)
    measured(folder)
    publish.write_card(row, folder, {})
    own = {"weights_sha256": sha256(folder / "model.safetensors")}
    (folder / "obedience.json").write_text(json.dumps(own))
    assert "obedience.json" in publish.uploaded(folder)
    (folder / "obedience.json").write_text(json.dumps({"weights_sha256": "another"}))
    with pytest.raises(UserError, match=r"obedience\.json was measured on other weights"):
        publish.stage(folder, tmp_path / "out")
    (folder / "obedience.json").unlink()
    metrics = (folder / "metrics.json").read_text()
    (folder / "metrics.json").write_text(metrics.replace("19.5", "21.5"))
    with pytest.raises(UserError, match=r"README\.md does not tell the figures of metrics\.json"):
        publish.stage(folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", published.WEIGHTS)
def test_the_published_cards_can_be_uploaded(name: str) -> None:
    assert "model.safetensors" in publish.uploaded(Path("cards") / name)


def test_other_weights_do_not_go_by_a_published_name(tmp_path: Path) -> None:
    Stylizer().save_pretrained(tmp_path / "style-udnie")
    with pytest.raises(UserError, match=r"is not the file of face_destyle/published\.py"):
        publish.push_target("style-udnie", tmp_path, None, None)


def test_without_a_network_a_push_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = packed(tmp_path)
    (folder / "README.md").write_text("---\nlicense: other\n---\n")
    assert publish.main(["push", str(folder), "--repo", "org/name"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "org/name is not uploaded, try again: " in line


def test_groups_of_people_are_told_apart(tmp_path: Path) -> None:
    ages = [None, 5.0, 17.9, 18.0, 59.0, 60.0, 99.0]
    assert [groups.age_group(age) for age in ages] == [
        None,
        "0 to 17",
        "0 to 17",
        "18 to 39",
        "40 to 59",
        "60 and over",
        "60 and over",
    ]
    photos = made.photos(tmp_path / "photos", count=4)
    metadata = photos / "train" / "metadata.jsonl"
    told = [{"gender": "female", "age": 30.0}, {"gender": "male", "age": None}] * 2
    lines = metadata.read_text().splitlines()
    rows = [json.loads(line) | more for line, more in zip(lines, told, strict=True)]
    metadata.write_text("\n".join(map(json.dumps, rows)))
    found = groups.people(str(photos), "train")
    assert found["gender"]["train-000001"] == "male"
    assert found["age"] == {"train-000000": "18 to 39", "train-000002": "18 to 39"}


def test_figures_of_groups_are_means(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(groups, "SMALLEST", 2)
    people = {"gender": {"a": "female", "b": "female", "c": "male"}}
    raw = {
        "style": np.array(["candy", "candy", "candy", "mosaic", "mosaic", "candy"]),
        "photo": np.array(["a", "b", "c", "a", "b", "unknown"]),
        **{f"recovered_{m}": np.array([1.0, 3, 50, 7, 9, 90]) for m in groups.MEASURES},
    }
    found = groups.group_figures(raw, ["candy"], people)
    assert set(found) == {"gender"} and set(found["gender"]) == {"female"}  # one man is too few
    row = found["gender"]["female"]
    assert row["photos"] == 2 and row["seen"]["psnr"] == 2 and row["unseen"]["rank1"] == 8
