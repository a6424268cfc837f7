"""A few steps of a style network on drawn artwork."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml

from face_destyle import Stylizer, StylizerConfig, UserError
from tests import drawn
from tests.train import made
from train.frozen import PerceptualNetwork, sha256
from train.style import (
    StyleArguments,
    StyleLoss,
    gram,
    load_artwork,
    main,
    public_name,
    recipe,
    train_style,
)


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Artwork, photos and perceptual network, by the name of their argument."""
    folder = tmp_path_factory.mktemp("parts")
    drawn.quarters(120, 90).save(folder / "quarters.png")
    return {
        "artwork": str(folder / "quarters.png"),
        "photos": str(made.photos(folder / "photos", count=3)),
        "perceptual": str(made.perceptual_network(folder / "vgg.safetensors")),
    }


def short(parts: dict[str, str], **more: float) -> StyleArguments:
    return StyleArguments(**parts, **({"steps": 2, "batch_size": 2, "artwork_side": 64} | more))


def command(parts: dict[str, str], out: Path, **changed: str) -> int:
    arguments = ["--steps", "1", "--batch-size", "1", "--artwork-side", "64", "--out", str(out)]
    for name, value in (parts | changed).items():
        arguments += [f"--{name}", value]
    return main(arguments)


def total(network: Stylizer, parts: dict[str, str]) -> float:
    """The loss on all photos."""
    arguments = short(parts)
    loss = StyleLoss(
        PerceptualNetwork.load(parts["perceptual"]), load_artwork(parts["artwork"], 64), arguments
    )
    with torch.no_grad():
        return sum(part.item() for part in loss(network(drawn.faces(3)), drawn.faces(3)).values())


def test_the_saved_folder_is_a_style_network(parts: dict[str, str], tmp_path: Path) -> None:
    assert command(parts, tmp_path / "out") == 0
    network = Stylizer.from_pretrained(tmp_path / "out")
    assert network.config == StylizerConfig(style="quarters")
    assert network.stylize(drawn.face()).size == (128, 128)


def test_the_recipe_lies_beside_the_weights(parts: dict[str, str], tmp_path: Path) -> None:
    assert command(parts, tmp_path / "out") == 0
    found = yaml.safe_load((tmp_path / "out" / "recipe.yaml").read_text())
    assert found.pop("artwork_sha256") == sha256(Path(parts["artwork"]))
    assert found.pop("perceptual_sha256") == sha256(Path(parts["perceptual"]))
    # It says all that was given, and nothing of where that lies on this machine.
    names = {name: Path(path).name for name, path in parts.items()}
    assert StyleArguments(**found) == StyleArguments(
        **names, steps=1, batch_size=1, artwork_side=64
    )
    start = replace(short(parts), init=str(tmp_path / "out"))
    told = recipe(start)
    assert told["init"] == "out"
    assert told["init_sha256"] == sha256(tmp_path / "out" / "model.safetensors")


def test_what_is_told_of_a_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert public_name(f"{tmp_path}/") == tmp_path.name
    assert public_name("org/photos") == "org/photos"
    monkeypatch.chdir(tmp_path)
    assert public_name(".") == tmp_path.name


@pytest.mark.parametrize("path", sorted(Path("cards").glob("style-*")), ids=lambda path: path.name)
def test_published_recipes(path: Path) -> None:
    found = yaml.safe_load((path / "recipe.yaml").read_text())
    assert Path(found["artwork"]).stem.replace("_", "-") == path.name.removeprefix("style-")
    hashes = {name for name in found if name.endswith("_sha256")}
    assert hashes == {"artwork_sha256", "perceptual_sha256"}
    StyleArguments(**{name: value for name, value in found.items() if name not in hashes})


def test_the_loss_falls(parts: dict[str, str]) -> None:
    torch.manual_seed(0)
    fresh = Stylizer(StylizerConfig(style="quarters")).eval()
    trained = train_style(short(parts, steps=12, learning_rate=5e-3), precision="fp32")
    assert not trained.training
    assert total(trained, parts) < 0.9 * total(fresh, parts)


def test_the_same_twice_but_for_another_seed(parts: dict[str, str]) -> None:
    first, second, other = (train_style(short(parts, seed=seed)).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["conv1.weight"], other["conv1.weight"])


def test_the_gram_matrix() -> None:
    features = torch.tensor([[[[1.0, 2.0]], [[3.0, 0.0]]]])
    assert torch.equal(gram(features), torch.tensor([[[5.0, 3.0], [3.0, 9.0]]]) / 4)
    # Where the features lie does not matter, and a repeated picture has the same style.
    assert torch.equal(gram(features.flip(3)), gram(features))
    assert torch.allclose(gram(features.repeat(1, 1, 2, 2)), gram(features))


def test_the_parts_of_the_loss(parts: dict[str, str]) -> None:
    perceptual = PerceptualNetwork.load(parts["perceptual"])
    artwork = load_artwork(parts["artwork"], 64)
    loss = StyleLoss(perceptual, artwork, short(parts))
    photos = drawn.faces(2, 64)
    unchanged = loss(photos, photos)
    assert unchanged["content"] == 0
    assert unchanged["style"] > 0 and unchanged["variation"] > 0
    painted = loss(artwork[..., :64], artwork[..., :64] * 0.5)
    assert painted["style"] < unchanged["style"] and painted["content"] > 0
    assert loss(torch.zeros(1, 3, 64, 64), photos[:1])["variation"] == 0


def test_what_the_perceptual_network_sees_moves(parts: dict[str, str]) -> None:
    perceptual = PerceptualNetwork.load(parts["perceptual"])
    loss = StyleLoss(perceptual, load_artwork(parts["artwork"], 64), short(parts, jitter=5))
    portraits, photos = drawn.faces(2, 64), drawn.faces(2, 64).flip(3)
    found = [loss(portraits, photos, step) for step in (1, 1, 2)]
    assert found[0] == found[1]
    assert found[0]["style"] != found[2]["style"] and found[0]["content"] != found[2]["content"]
    assert found[0]["variation"] == found[2]["variation"]


def test_the_whole_artwork_is_taken(parts: dict[str, str]) -> None:
    artwork = load_artwork(parts["artwork"], 64)
    assert artwork.shape == (1, 3, 64, 85)
    assert artwork.min() == -1 and artwork.max() == 1


def test_a_loss_that_is_no_number_stops(parts: dict[str, str]) -> None:
    with pytest.raises(UserError, match="no number any more: lower --learning-rate"):
        train_style(short(parts, style_weight=float("inf")))


def test_bad_arguments_end_in_one_line(
    parts: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = tmp_path / "text.png"
    text.write_text("no picture")
    cases = {
        "artwork": [("nowhere.jpg", "nowhere.jpg does not exist"), (str(text), "not a picture")],
        "photos": [(str(text), "is no folder"), ("/nowhere", "/nowhere")],
        "perceptual": [("none.safetensors", "give the distilled VGG-19"), (str(text), "damaged")],
    }
    for name, pairs in cases.items():
        for value, said in pairs:
            assert command(parts, tmp_path / "out", **{name: value}) == 2
            (line,) = capsys.readouterr().err.splitlines()
            assert said in line
            assert not (tmp_path / "out").exists()


def test_a_folder_with_something_in_it_is_refused(
    parts: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "notes.txt").write_text("keep")
    assert command(parts, tmp_path) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "not empty" in line
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
