"""Pairs are published where their photos may be, and closed photos stay closed."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError

from face_destyle.errors import UserError
from tests.train import made
from train import publish, stylize


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
