"""The losses: small callables that hold hyper-parameters and return named scalars."""

import math
from dataclasses import dataclass, field

import numpy as np
import torch
from torch.nn import functional as F

from face_destyle.errors import UserError
from face_destyle.models.similarity import transform
from train.frozen import FaceEmbedding, PerceptualNetwork
from train.recipe import LossConfig

# Columns and rows of points over the face frame, in half sides: the centres of 5 x 5 cells.
POINTS = torch.cartesian_prod(*[torch.linspace(-0.8, 0.8, 5)] * 2)


@dataclass(frozen=True)
class DiscriminatorLoss:
    """Binary cross entropy of real and fake (thesis eq. 3.2), each a mean over the batch.

    With attributes there is more to be refused than the fake: true photos with wrong attributes
    (papers 3.3), and photos that were edited.
    """

    config: LossConfig

    def __call__(
        self,
        real: torch.Tensor,
        fake: torch.Tensor,
        refused: dict[str, tuple[torch.Tensor, torch.Tensor]] | None = None,
    ) -> dict[str, torch.Tensor]:
        """The weighted parts.

        All that is to be refused of one row weighs as much as its true photo.

        Args:
            real: logits for true photos, `(N, ...)`.
            fake: for generated ones.
            refused: what else is to be refused, by name: the logits `(K, ...)` and the rows `(K,)`
                of the batch that they belong to.
        """
        weight, refused = self.config.discriminator, refused or {}
        count = torch.ones(len(fake), device=fake.device)
        for _, rows in refused.values():
            count[rows] += 1
        # softplus(-x) = -log sigmoid(x): the logarithm never sees a rounded zero.
        losses = {
            "d_real": weight * F.softplus(-real).mean(),
            "d_fake": weight * (_row_means(F.softplus(fake)) / count).mean(),
        }
        for name, (logits, rows) in refused.items():
            shares = _row_means(F.softplus(logits)) / count[rows]
            losses[f"d_{name}"] = weight * shares.sum() / len(fake)
        return losses


def moved(pictures: torch.Tensor, reach: int, step: int) -> torch.Tensor:
    """Pictures `(N, C, H, W)` moved by up to `reach` pixels, as drawn for this step.

    A network with strides weighs the pixels of each of its cells differently, the same way at
    every step, and a generator that interleaves pixels answers with a grid of that period. Seen
    through a view that moves, the grid earns nothing.

    Args:
        pictures: all that the network looks at.
        reach: pixels; 0 leaves the pictures as they are.
        step: a number of its own for each step: the same views for real and fake.
    """
    if not reach:
        return pictures
    down, right = np.random.default_rng(step).integers(0, 2 * reach + 1, 2).tolist()
    height, width = pictures.shape[-2:]
    wide = F.pad(pictures, (reach, reach, reach, reach), mode="reflect")
    return wide[..., down : down + height, right : right + width]


def softened(pictures: torch.Tensor, sigma: float) -> torch.Tensor:
    """Pictures `(N, C, H, W)` under a Gaussian of `sigma` pixels; 0 leaves them as they are.

    What a judging network knows of single pixels it learns long before the generator can draw
    them, and what the generator draws for it there are dots. Seen softened, they earn nothing,
    and cost what they cost in the pixel loss.
    """
    if not sigma:
        return pictures
    reach = math.ceil(3 * sigma)
    places = torch.arange(-reach, reach + 1, dtype=pictures.dtype, device=pictures.device)
    row = torch.exp(-((places / sigma) ** 2) / 2)
    row = (row / row.sum()).expand(pictures.shape[1], 1, 1, -1)
    wide = F.pad(pictures, (reach, reach, reach, reach), mode="reflect")
    across = F.conv2d(wide, row, groups=pictures.shape[1])
    return F.conv2d(across, row.transpose(2, 3), groups=pictures.shape[1])


def details(pictures: torch.Tensor) -> torch.Tensor:
    """What pictures `(N, C, H, W)` show beyond the same ones at a quarter of the side.

    A photo of a face that is guessed is wrong in its coarse parts most of all, and what the pixel
    loss says of them drowns what it says of eyelids and lips: those that a network for small photos
    left to its finer levels were not learnt in 9,000 images. Here they are by themselves.
    """
    height, width = pictures.shape[-2:]
    small = F.interpolate(pictures, (height // 4, width // 4), mode="bicubic", antialias=True)
    return pictures - F.interpolate(small, (height, width), mode="bicubic")


def _row_means(values: torch.Tensor) -> torch.Tensor:
    return values.reshape(len(values), -1).mean(1)


@dataclass(frozen=True)
class GeneratorLoss:
    """Pixel l2 (eq. 3.1) and the adversarial part in its non-saturating form.

    Eq. 3.3 as printed minimises log D(G(s)), which would drive D(G(s)) to 0; the authors' code
    uses the cross entropy with target 1, as here.
    """

    config: LossConfig

    def adversarial_weight(self, epoch: int) -> float:
        """Lambda after `epoch` whole epochs (eq. 3.8)."""
        start = self.config.adversarial
        return max(start * self.config.epoch_decay**epoch, start / 2)

    def adversarial(self, judged: torch.Tensor, epoch: int) -> torch.Tensor:
        """The weighted part for the logits of generated photos."""
        return self.adversarial_weight(epoch) * F.softplus(-judged).mean()

    def __call__(
        self, fake: torch.Tensor, real: torch.Tensor, judged: torch.Tensor | None, epoch: int
    ) -> dict[str, torch.Tensor]:
        """Weighted parts for photos `(N, 3, H, W)` and the logits of the fake ones."""
        parts = {}
        if self.config.pixel:
            parts["pixel"] = self.config.pixel * F.mse_loss(fake, real)
        if self.config.l1:
            parts["l1"] = self.config.l1 * F.l1_loss(fake, real)
        if self.config.detail:
            parts["detail"] = self.config.detail * details(fake - real).square().mean()
        if judged is not None:
            parts["adversarial"] = self.adversarial(judged, epoch)
        return parts


@dataclass(frozen=True)
class IdentityLoss:
    """1 - cosine of the face embeddings of fake and real (IJCV version; papers 2.5).

    A cosine has no scale of its own: a weight means the same with every embedding.

    Attributes:
        network: frozen, in eval mode; it warps the aligned frame to its own.
        weight: papers 2.5 propose 0.1 beside the l2 of pixels.
    """

    network: FaceEmbedding
    weight: float = 0.1

    def __call__(self, fake: torch.Tensor, real: torch.Tensor) -> dict[str, torch.Tensor]:
        """The weighted part for photos `(N, 3, 128, 128)` in [-1, 1]: `identity`."""
        with torch.no_grad():
            wanted = self.network(real)
        cosine = (self.network(fake) * wanted).sum(1)
        return {"identity": self.weight * (1 - cosine).mean()}


@dataclass(frozen=True)
class PerceptualLoss:
    """Mean squared difference of the feature maps of fake and real (WACV version; papers 2.5).

    Its size is that of the features, which another VGG, another range of its input or another
    layer changes a thousandfold: no weight can be taken over from elsewhere, the authors' 0.01
    in particular belongs to a gradient without the factor of their 0 to 255 range.

    Attributes:
        network: frozen, in eval mode.
        layers: weights by name, such as `relu3_2`.
        weight: of all together.

    Raises:
        UserError: a layer that the network does not have, a weight that is no number.
    """

    network: PerceptualNetwork
    layers: dict[str, float] = field(default_factory=lambda: {"relu3_2": 1.0})
    weight: float = 1.0

    def __post_init__(self) -> None:
        """Refuse what the network would leave out without a word."""
        known = [f"relu{name[0]}_{name[1]}" for name in self.network.LAYERS if name != "P"]
        for name, weight in self.layers.items():
            if name not in known:
                raise UserError(f"perceptual layer {name} is unknown; use {', '.join(known)}")
            if not isinstance(weight, int | float):
                raise UserError(f"perceptual layer {name} has weight {weight!r}: give a number")

    def __call__(self, fake: torch.Tensor, real: torch.Tensor) -> dict[str, torch.Tensor]:
        """Weighted parts for photos `(N, 3, H, W)` in [-1, 1]: one a layer, by its name."""
        names = tuple(self.layers)
        with torch.no_grad():
            wanted = self.network(real, names)
        found = self.network(fake, names)
        return {
            f"perceptual_{name}": self.weight * weight * F.mse_loss(found[name], wanted[name])
            for name, weight in self.layers.items()
        }


@dataclass(frozen=True)
class AlignmentLoss:
    """Mean squared distance between where found and true alignment send points of the face.

    In half sides: at 128 x 128 a mean distance of 3 pixels is 0.047, squared 0.0022. Angle, scale
    and shift weigh as much as they move the face.
    """

    weight: float = 1.0

    def __call__(self, found: torch.Tensor | None, true: torch.Tensor) -> dict[str, torch.Tensor]:
        """The weighted part for matrices `(N, 2, 3)`, frame -> input: `alignment`.

        Raises:
            UserError: the network returned no alignment.
        """
        if found is None:
            raise UserError(
                "the network returns no alignment: set loss.alignment to 0, "
                "or give its config transformers"
            )
        points = POINTS.to(true)
        distance = transform(found.to(true), points) - transform(true, points)
        return {"alignment": self.weight * distance.square().sum(2).mean()}


def attributes_loss(
    logits: torch.Tensor, known: torch.Tensor, weights: torch.Tensor | None = None
) -> torch.Tensor:
    """Mean cross entropy over what is known of attributes, weighted; 0 where nothing is.

    Args:
        logits: of a classifier, `(N, A)`.
        known: `(N, A)`: 1 with, 0 without, nan where nothing is said.
        weights: of those without and of those with, `(2, A)`; none: all alike.
    """
    asked, targets = (~known.isnan()).float(), known.nan_to_num()
    entropy = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    if weights is not None:
        asked = asked * torch.where(targets > 0.5, weights[1], weights[0])
    return (asked * entropy).sum() / asked.sum().clamp(min=1e-8)
