"""Style networks of other releases: more hands to learn from than Johnson's own layout has.

Each takes photos `(N, 3, H, W)` in [-1, 1], H and W multiples of 4, and gives portraits of the
same shape in [-1, 1], as `Stylizer` does. They make training pairs and are not published.
"""

from collections.abc import Mapping

import torch
from torch import nn
from torch.nn import functional as F

State = Mapping[str, torch.Tensor]


class ExamplesStylizer(nn.Module):
    """The layout of pytorch/examples' fast_neural_style: nearest doubling, reflected borders."""

    def __init__(self, width: int, blocks: int = 5):
        super().__init__()
        narrow, middle, wide = width, 2 * width, 4 * width
        self.conv1, self.in1 = _reflecting(3, narrow, 9), _norm(narrow)
        self.conv2, self.in2 = _reflecting(narrow, middle, 3, 2), _norm(middle)
        self.conv3, self.in3 = _reflecting(middle, wide, 3, 2), _norm(wide)
        self.res = nn.ModuleList([_ExamplesBlock(wide) for _ in range(blocks)])
        self.deconv1, self.in4 = _reflecting(wide, middle, 3), _norm(middle)
        self.deconv2, self.in5 = _reflecting(middle, narrow, 3), _norm(narrow)
        self.deconv3 = _reflecting(narrow, 3, 9)

    @classmethod
    def of(cls, state: State) -> "ExamplesStylizer":
        """The network of a released file."""
        network = cls(state["conv1.conv2d.weight"].shape[0])
        renamed = {_inside_list(name.replace(".conv2d", "")): state[name] for name in state}
        network.load_state_dict(renamed)
        return network

    def forward(self, photos: torch.Tensor) -> torch.Tensor:
        """Stylize."""
        features = F.relu(self.in1(self.conv1((photos + 1) * 127.5)))
        features = F.relu(self.in2(self.conv2(features)))
        features = F.relu(self.in3(self.conv3(features)))
        for block in self.res:
            features = block(features)
        features = F.relu(self.in4(self.deconv1(_doubled(features))))
        features = F.relu(self.in5(self.deconv2(_doubled(features))))
        return (self.deconv3(features) / 127.5 - 1).clamp(-1, 1)


class _ExamplesBlock(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.conv1, self.in1 = _reflecting(channels, channels, 3), _norm(channels)
        self.conv2, self.in2 = _reflecting(channels, channels, 3), _norm(channels)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        inner = F.relu(self.in1(self.conv1(features)))
        return features + self.in2(self.conv2(inner))


class FritzStylizer(nn.Module):
    """The layout of fritz-models: no biases, zero borders of TensorFlow, normalized to the end."""

    EPSILON = 1e-3

    def __init__(self, state: State):
        super().__init__()
        self.blocks = len({name.split(".")[1] for name in state if name.startswith("res.")})
        for name, tensor in state.items():
            self.register_buffer(name.replace(".", "_"), tensor.clone())

    def forward(self, photos: torch.Tensor) -> torch.Tensor:
        """Stylize."""
        features = F.relu(self._layer("conv1", (photos + 1) * 127.5))
        features = F.relu(self._layer("conv2", features, 2))
        features = F.relu(self._layer("conv3", features, 2))
        for block in range(self.blocks):
            inner = F.relu(self._layer(f"res_{block}_c1", features))
            features = features + self._layer(f"res_{block}_c2", inner)
        features = F.relu(self._layer("up1", _doubled(features)))
        features = F.relu(self._layer("up2", _doubled(features)))
        return torch.tanh(self._layer("out", features))

    def _layer(self, name: str, features: torch.Tensor, stride: int = 1) -> torch.Tensor:
        weight, scale, shift = (
            self.get_buffer(f"{name}_{part}") for part in ("weight", "scale", "shift")
        )
        # TensorFlow's "same": where a stride leaves an odd border, the larger part is at the end.
        before = (weight.shape[-1] - stride) // 2
        after = weight.shape[-1] - stride - before
        padded = F.pad(features, (before, after, before, after))
        out = F.conv2d(padded, weight, stride=stride)
        return F.instance_norm(out, weight=scale, bias=shift, eps=self.EPSILON)


class MagentaStylizer(nn.Module):
    """Magenta's arbitrary style network (Ghiasi et al., BMVC 2017) for one style vector.

    It paints at twice the size, where its strokes are finer, and the result is reduced.
    """

    BLOCKS = 5

    def __init__(self, state: State, vector: torch.Tensor):
        super().__init__()
        for name, tensor in state.items():
            if ".gamma" not in name and ".beta" not in name:
                self.register_buffer(name.replace(".", "_"), tensor.clone())
        # A style is no more than the scales and shifts of the normalizations.
        for name in state:
            if name.endswith("gamma.weight"):
                place = name.removesuffix(".gamma.weight")
                for part in ("gamma", "beta"):
                    weight, bias = state[f"{place}.{part}.weight"], state[f"{place}.{part}.bias"]
                    value = F.linear(vector.reshape(1, -1), weight, bias)[0]
                    self.register_buffer(f"{place}_{part}".replace(".", "_"), value)

    def forward(self, photos: torch.Tensor) -> torch.Tensor:
        """Stylize."""
        large = F.interpolate(photos, scale_factor=2, mode="bicubic", align_corners=False)
        features = F.relu(self._conv("c1", (large + 1) / 2))
        features = F.relu(self._conv("c2", features, 2))
        features = F.relu(self._conv("c3", features, 2))
        for block in range(self.BLOCKS):
            inner = F.relu(self._normed(f"r_{block}_1", self._conv(f"r_{block}_0", features)))
            inner = self._conv(f"r_{block}_2", inner)
            features = features + self._normed(f"r_{block}_3", inner)
        features = F.relu(self._normed("n1", self._conv("e1", _doubled(features))))
        features = F.relu(self._normed("n2", self._conv("e2", _doubled(features))))
        painted = torch.sigmoid(self._normed("n3", self._conv("e3", features)))
        return F.avg_pool2d(painted, 2) * 2 - 1

    def _conv(self, name: str, features: torch.Tensor, stride: int = 1) -> torch.Tensor:
        weight, bias = (self.get_buffer(f"{name}_conv2d_{part}") for part in ("weight", "bias"))
        border = weight.shape[-1] // 2
        padded = F.pad(features, (border,) * 4, mode="reflect")
        return F.conv2d(padded, weight, bias, stride)

    def _normed(self, name: str, features: torch.Tensor) -> torch.Tensor:
        gamma, beta = (self.get_buffer(f"{name}_{part}") for part in ("gamma", "beta"))
        return F.instance_norm(features, weight=gamma, bias=beta)


def stylizer_of(state: State, vector: torch.Tensor | None = None) -> nn.Module | None:
    """The network that a file's tensors are of; None where no layout here has such names.

    Args:
        state: the tensors, by name.
        vector: the style vector, for a network of many styles.
    """
    state = {name: tensor.float() for name, tensor in state.items()}
    if "deconv1.conv2d.weight" in state:
        return ExamplesStylizer.of(state)
    if "e1.conv2d.weight" in state and vector is not None:
        return MagentaStylizer(state, vector.float())
    if "conv1.shift" in state:
        return FritzStylizer(state)
    return None


def _reflecting(before: int, after: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(before, after, kernel, stride, kernel // 2, padding_mode="reflect")


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(channels, channels)


def _doubled(features: torch.Tensor) -> torch.Tensor:
    return F.interpolate(features, scale_factor=2.0, mode="nearest")


def _inside_list(name: str) -> str:
    """`res1.` -> `res.0.`: the release counts its blocks from one, in names."""
    if not name.startswith("res"):
        return name
    block, rest = name.removeprefix("res").split(".", 1)
    return f"res.{int(block) - 1}.{rest}"
