"""Style networks of other releases: their files are recognized and computed as they were made."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from face_destyle.errors import UserError
from tests import drawn
from train.style_layouts import FritzStylizer, stylizer_of
from train.stylize import load_stylizer

WIDTH, BLOCKS = 2, 2


def fill(*shape: int) -> torch.Tensor:
    return torch.randn(shape) * 0.2


def examples_file() -> dict[str, torch.Tensor]:
    wide = 4 * WIDTH
    state = {}
    for name, before, after, kernel in (
        ("conv1", 3, WIDTH, 9),
        ("conv2", WIDTH, 2 * WIDTH, 3),
        ("conv3", 2 * WIDTH, wide, 3),
        ("deconv1", wide, 2 * WIDTH, 3),
        ("deconv2", 2 * WIDTH, WIDTH, 3),
        ("deconv3", WIDTH, 3, 9),
        *((f"res{block}.conv{layer}", wide, wide, 3) for block in range(1, 6) for layer in (1, 2)),
    ):
        state[f"{name}.conv2d.weight"] = fill(after, before, kernel, kernel)
        state[f"{name}.conv2d.bias"] = fill(after)
        norm = name.replace("conv", "in")
        norm = {"dein1": "in4", "dein2": "in5"}.get(norm, norm)
        if name != "deconv3":
            state |= {f"{norm}.weight": fill(after) + 1, f"{norm}.bias": fill(after)}
    # It paints in levels of 0 to 255.
    state["deconv3.conv2d.weight"] *= 20
    state["deconv3.conv2d.bias"] += 127
    return state


def fritz_file() -> dict[str, torch.Tensor]:
    state = {}
    for name, before, after, kernel in (
        ("conv1", 3, WIDTH, 9),
        ("conv2", WIDTH, WIDTH, 3),
        ("conv3", WIDTH, WIDTH, 3),
        ("up1", WIDTH, WIDTH, 3),
        ("up2", WIDTH, WIDTH, 3),
        ("out", WIDTH, 3, 9),
        *((f"res.{n}.c{layer}", WIDTH, WIDTH, 3) for n in range(BLOCKS) for layer in (1, 2)),
    ):
        state[f"{name}.weight"] = fill(after, before, kernel, kernel)
        state |= {f"{name}.scale": fill(after) + 1, f"{name}.shift": fill(after)}
    return state


def magenta_file(vector: int = 5) -> dict[str, torch.Tensor]:
    state = {}
    convs = [("c1", 3, WIDTH, 9), ("c2", WIDTH, WIDTH, 3), ("c3", WIDTH, WIDTH, 3)]
    convs += [(f"r.{n}.{place}", WIDTH, WIDTH, 3) for n in range(5) for place in (0, 2)]
    convs += [("e1", WIDTH, WIDTH, 3), ("e2", WIDTH, WIDTH, 3), ("e3", WIDTH, 3, 9)]
    for name, before, after, kernel in convs:
        state[f"{name}.conv2d.weight"] = fill(after, before, kernel, kernel)
        state[f"{name}.conv2d.bias"] = fill(after)
    norms = [(f"r.{n}.{place}", WIDTH) for n in range(5) for place in (1, 3)]
    for name, channels in [*norms, ("n1", WIDTH), ("n2", WIDTH), ("n3", 3)]:
        for part in ("gamma", "beta"):
            state[f"{name}.{part}.weight"] = fill(channels, vector)
            state[f"{name}.{part}.bias"] = fill(channels) + 1
    return state


@pytest.mark.parametrize("made", [examples_file, fritz_file, magenta_file])
def test_every_layout_paints_and_uses_every_tensor(
    made: Callable[[], dict[str, torch.Tensor]],
) -> None:
    torch.manual_seed(0)
    state, vector, photos = made(), torch.randn(5), drawn.faces(2)
    with torch.inference_mode():
        network = stylizer_of(state, vector).eval()
        painted = network(photos)
        assert painted.shape == photos.shape
        assert painted.abs().max() <= 1
        assert painted.std() > 0.01
        torch.testing.assert_close(network(photos[:1]), painted[:1])
        # A bias before a normalization is taken away again.
        used = [name for name in state if not name.endswith("conv2d.bias")]
        unused = [
            name
            for name in used
            if torch.equal(stylizer_of(state | {name: state[name] + 0.5}, vector)(photos), painted)
        ]
    assert unused == []


def test_half_precision_files_are_computed_in_full() -> None:
    half = {name: tensor.half() for name, tensor in examples_file().items()}
    assert {parameter.dtype for parameter in stylizer_of(half).parameters()} == {torch.float32}


def test_the_odd_border_of_a_stride_is_at_the_end() -> None:
    """TensorFlow's "same" puts no zero before the first pixel where two pixels make one."""
    state = fritz_file()
    weight = torch.zeros_like(state["conv2.weight"])
    weight[:, 0, 0, 0] = 1  # takes the first pixel of each window alone
    network = FritzStylizer(state | {"conv2.weight": weight})
    features = torch.rand(1, WIDTH, 8, 8)
    out = network._layer("conv2", features, 2)
    first = features[:, :1, ::2, ::2].expand(-1, WIDTH, -1, -1)
    scale, shift = state["conv2.scale"], state["conv2.shift"]
    wanted = torch.nn.functional.instance_norm(first, weight=scale, bias=shift, eps=1e-3)
    torch.testing.assert_close(out, wanted)


def test_a_style_vector_decides_what_magenta_paints(tmp_path: Path) -> None:
    save_file(magenta_file(), tmp_path / "many.safetensors")
    vectors = {"wave": torch.ones(1, 5), "muse": -torch.ones(1, 5)}
    save_file(vectors, tmp_path / "vectors.safetensors")
    source = f"{tmp_path / 'many.safetensors'}@{tmp_path / 'vectors.safetensors'}"
    with torch.inference_mode():
        wave, muse = (load_stylizer(source, name)(drawn.faces(1)) for name in ("wave", "muse"))
        named = load_stylizer(f"{source}#wave", "magenta-wave")(drawn.faces(1))
    assert not torch.equal(wave, muse)
    assert torch.equal(wave, named)
    with pytest.raises(UserError, match="no style candy; it has muse, wave"):
        load_stylizer(source, "candy")


def test_a_file_of_another_layout_is_refused(tmp_path: Path) -> None:
    save_file({"weight": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(UserError, match="layout"):
        load_stylizer(str(tmp_path / "other.safetensors"), "odd")
    (tmp_path / "cut.safetensors").write_bytes(b"0123456789")
    with pytest.raises(UserError, match="damaged"):
        load_stylizer(str(tmp_path / "cut.safetensors"), "odd")
