"""Cards are made from files, and closed photos stay closed."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError

from face_destyle import FDNN, FDNNConfig, FDNNDiscriminator, HubModel, Stylizer, published
from face_destyle.errors import UserError
from face_destyle.models.base import REGISTRY
from tests.train import made
from train import card as cards
from train import groups, publish, stylize
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


def pairs_of(folder: Path, photos: str, **more: object) -> Path:
    """A folder with the stylize.json of a run, which is all that the card is made from."""
    folder.mkdir()
    made_by = {"photos": photos, "styles": {"udnie": "style-udnie"}, "variants": 2}
    (folder / "stylize.json").write_text(json.dumps(made_by | more))
    return folder


def refused(status: int) -> HfHubHTTPError:
    response: Any = SimpleNamespace(status_code=status, headers={}, request=None)
    return HfHubHTTPError(f"{status} of the Hub\nand more of it", response=response)


def failing(error: Exception) -> Callable[..., Any]:
    def raises(*_: object, **__: object) -> None:
        raise error

    return raises


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (refused(403), "does not let you write to org/pairs: log in by `hf auth login`"),
        (refused(500), "the Hub refuses org/pairs: 500 of the Hub"),
        (publish.HTTPError("no way there"), "org/pairs is not uploaded, try again: no way there"),
        (RuntimeError("xet is cut off"), "org/pairs is not uploaded, try again: xet is cut off"),
    ],
)
def test_pairs_that_the_hub_does_not_take_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, said: str
) -> None:
    photos = made.photos(tmp_path / "photos", 2)
    pairs = pairs_of(tmp_path / "pairs", str(photos))
    monkeypatch.setattr(publish.HfApi, "create_repo", failing(error))
    with pytest.raises(UserError) as raised:
        publish.push_pairs(pairs, "org/pairs", str(photos), "cc0-1.0")
    (line,) = str(raised.value).splitlines()
    assert said in line
    assert line.endswith(f"; the pairs stay in {pairs}, the same command uploads them")


@pytest.mark.parametrize(
    ("repo", "error", "said"),
    [
        ("org--pairs", None, "org--pairs is not uploaded, give another id"),
        ("org/pairs", LocalTokenNotFoundError("Token is required"), "log in by `hf auth login`"),
        ("org/pairs", refused(401), "log in by `hf auth login`"),
    ],
)
def test_who_pushes_is_asked_before_the_work(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    repo: str,
    error: Exception | None,
    said: str,
) -> None:
    monkeypatch.setattr(publish.HfApi, "whoami", failing(error or AssertionError("a bad id")))
    photos, out = made.photos(tmp_path / "photos", 2), tmp_path / "pairs"
    arguments = ["--photos", str(photos), "--style", "udnie=style-udnie", "--out", str(out)]
    assert stylize.main([*arguments, "--push-to-hub", repo, "--licence", "cc0-1.0"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line
    assert not out.exists()


@pytest.mark.parametrize(
    ("declared", "given", "refuses"),
    [
        ("cc-by-nc-4.0", "cc-by-4.0", True),
        (["cc0-1.0", "other"], "cc0-1.0", True),
        ("cc-by-4.0", "CC-BY-4.0", False),
        (["cc0-1.0"], "cc0-1.0", False),
        (None, "cc0-1.0", False),
    ],
)
def test_the_licence_of_a_dataset_on_the_hub_is_its_own(
    monkeypatch: pytest.MonkeyPatch, declared: object, given: str, refuses: bool
) -> None:
    asked = []

    def dataset_info(_: object, name: str) -> SimpleNamespace:
        asked.append(name)
        return SimpleNamespace(card_data=SimpleNamespace(license=declared))

    monkeypatch.setattr(publish.HfApi, "dataset_info", dataset_info)
    monkeypatch.setattr(publish, "load_table", lambda _: {})
    if refuses:
        with pytest.raises(UserError, match=f"--licence is {given}, and org/photos is under"):
            publish.check_may_share("org/photos", given)
    else:
        publish.check_may_share("org/photos", given)
    assert asked == ["org/photos"]


def test_a_licence_that_cannot_be_looked_up_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publish.HfApi, "dataset_info", failing(refused(404)))
    with pytest.raises(UserError, match=r"licence of org/photos cannot be .*: 404 of the Hub$"):
        publish.check_may_share("org/photos", "cc0-1.0")


def test_the_card_of_pairs_names_no_place_on_this_machine(tmp_path: Path) -> None:
    photos = made.photos(tmp_path / "my-photos", 1)
    text = publish.pair_card(pairs_of(tmp_path / "local", f"{photos}/"), "cc0-1.0")
    assert "- photos: my-photos (cc0-1.0)\n" in text and str(tmp_path) not in text
    text = publish.pair_card(pairs_of(tmp_path / "hub", "org/photos"), "cc0-1.0")
    assert "- photos: org/photos (cc0-1.0)\n" in text


def test_the_card_of_pairs_tells_the_variants(tmp_path: Path) -> None:
    def told(name: str, **more: object) -> str:
        return publish.pair_card(pairs_of(tmp_path / name, "own", **more), "cc0-1.0")

    plain = told("plain")
    assert "- portraits of each photo and style: 2\n" in plain
    assert "`variant` (0 is the plain portrait; in the others the strokes are turned" in plain
    turned = told("turned", misalign=True, angles=[], each=0)
    assert "plain portrait" not in turned
    assert (
        "turned, shifted and scaled anew for each; from 1 on the strokes are scaled too" in turned
    )
    angles = told("angles", misalign=True, angles=[0.0, 22.5], each=0)
    assert "turned by 0, 22.5 degrees in this order" in angles and "all strokes are plain" in angles
    each = told("each", each=3, styles=dict.fromkeys("abcd", "w"))
    assert "- portraits of each photo: 6, each variant in 3 of the styles\n" in each


def test_free_pairs_are_uploaded_with_a_card(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos = made.photos(tmp_path / "photos", 2)
    pairs = pairs_of(tmp_path / "pairs", "own")
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


def test_weights_that_are_not_those_of_the_figures_stay_here(tmp_path: Path) -> None:
    folder = packed(tmp_path)
    measured(folder)
    (folder / "README.md").write_text("---\nlicense: other\n---\n")
    assert "model.safetensors" in publish.uploaded(folder)
    FDNN(FDNNConfig(encoder_blocks=(0, 0, 0, 0))).half().save_pretrained(folder)
    with pytest.raises(UserError, match="measured on other weights"):
        publish.stage(folder, tmp_path / "out")
    (folder / "metrics.json").unlink()
    (folder / "discriminator" / "model.safetensors").write_bytes(b"half")
    with pytest.raises(UserError, match="is damaged"):
        publish.stage(folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


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
