"""A small network that reads the attributes of a face: it fills forms and measures obedience."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from face_destyle import images
from face_destyle.attributes import COUNT, NAMES, Vector, excluded_by
from face_destyle.models.base import HubModel, inference
from face_destyle.models.layers import ConvBlock, Norm, ResidualBlock


@dataclass(frozen=True)
class AttributeClassifierConfig:
    """The numbers of the classifier."""

    image_size: int = 128
    stem_shuffle: int = 2  # space to depth before the first layer: no layer works at full size
    widths: tuple[int, ...] = (24, 48, 96, 128)  # each later level halves the map
    blocks: tuple[int, ...] = (0, 1, 1, 1)  # residual blocks of each level
    pooled: int = 4  # side of the map of means that the last layer sees: places of a face differ
    dropout: float = 0.2  # of the numbers that the last layer sees, in training
    norm: Norm = "group"
    # What a probability is compared with. Rare attributes never reach a half.
    thresholds: tuple[float, ...] = (0.5,) * COUNT

    def __post_init__(self) -> None:
        """Raise a ValueError for numbers that cannot classify."""
        if self.norm == "instance":
            raise ValueError(
                "norm is instance, which takes away the colour of hair and skin: use group"
            )
        if len(self.thresholds) != COUNT or not all(0 < value < 1 for value in self.thresholds):
            raise ValueError(f"thresholds are {COUNT} probabilities between 0 and 1")


class AttributeClassifier(HubModel, pipeline_tag="image-classification"):
    """The attributes of an aligned face, in a photo or a portrait.

    Example:

    ```python
    from face_destyle import AttributeClassifier
    model = AttributeClassifier.from_pretrained("attributes")
    model.predict("portrait.jpg")["Smiling"]  # a probability
    ```
    """

    model_type: ClassVar[str] = "attributes"
    config_class = AttributeClassifierConfig
    config: AttributeClassifierConfig

    def __init__(self, config: AttributeClassifierConfig | None = None):
        super().__init__()
        self.config = config = config or AttributeClassifierConfig()
        layers: list[nn.Module] = [nn.PixelUnshuffle(config.stem_shuffle)]
        channels = 3 * config.stem_shuffle**2
        for level, (width, blocks) in enumerate(zip(config.widths, config.blocks, strict=True)):
            # The first layer sees colours as they are: normalized among a few channels of their
            # own, pale and dark faces would come closer.
            norm = config.norm if level else "none"
            layers.append(ConvBlock(channels, width, 3, 2 if level else 1, norm))
            layers += [ResidualBlock(width, config.norm) for _ in range(blocks)]
            channels = width
        self.features = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(config.pooled)
        self.dropout = nn.Dropout(config.dropout)
        self.judge = nn.Linear(channels * config.pooled**2, COUNT)

    def forward(self, faces: torch.Tensor) -> torch.Tensor:
        """Classify aligned faces.

        Args:
            faces: `(N, 3, 128, 128)` in [-1, 1].

        Returns:
            Logits `(N, 18)` in the order of `attributes.NAMES`; their sigmoid is a probability.

        Raises:
            ValueError: another shape.
        """
        side = self.config.image_size
        if faces.dim() != 4 or tuple(faces.shape[1:]) != (3, side, side):
            raise ValueError(
                f"{type(self).__name__} takes (N, 3, {side}, {side}) in [-1, 1], "
                f"not {tuple(faces.shape)}; for pictures of any size use predict()"
            )
        features = self.pool(self.features(faces)).flatten(1)
        return self.judge(self.dropout(features))  # type: ignore[no-any-return]

    def predict(self, picture: images.Source) -> dict[str, float]:
        """The probability of each attribute, by its name.

        The centre square of the picture (path, PIL or array), resized, is taken as the face. The
        network is left in the mode that it was in.

        Raises:
            PictureError: a picture that cannot be read.
        """
        square = images.centre_square(images.load_picture(picture))
        face = images.to_tensor([square], self.config.image_size).to(next(self.parameters()))
        with inference(self):
            probabilities = self(face)[0].float().sigmoid().tolist()
        return dict(zip(NAMES, probabilities, strict=True))

    def decide(self, probabilities: dict[str, float]) -> Vector:
        """Probabilities of all attributes, such as `predict` gives -> a vector of 0 and 1.

        An attribute is there whose probability is above its threshold; of those that exclude each
        other the one that is further above, in logits.
        """
        margins = {
            name: _logit(probabilities[name]) - _logit(threshold)
            for name, threshold in zip(NAMES, self.config.thresholds, strict=True)
        }
        found: set[str] = set()
        for name in sorted(NAMES, key=lambda name: -margins[name]):
            if margins[name] > 0 and not found.intersection(excluded_by(name)):
                found.add(name)
        return tuple(float(name in found) for name in NAMES)


def _logit(probability: float) -> float:
    # A sigmoid in float32 reaches 1.
    bounded = min(max(probability, 1e-7), 1 - 1e-7)
    return math.log(bounded / (1 - bounded))
