"""The losses: small callables that hold hyper-parameters and return named scalars."""

from dataclasses import dataclass

import torch
from torch.nn import functional as F

from train.recipe import LossConfig


@dataclass(frozen=True)
class DiscriminatorLoss:
    """Binary cross entropy of real and fake (thesis eq. 3.2), each a mean over the batch."""

    config: LossConfig

    def __call__(self, real: torch.Tensor, fake: torch.Tensor) -> dict[str, torch.Tensor]:
        """From logits, of any shape, for real and for generated photos."""
        # softplus(-x) = -log sigmoid(x): the logarithm never sees a rounded zero.
        weight = self.config.discriminator
        return {
            "d_real": weight * F.softplus(-real).mean(),
            "d_fake": weight * F.softplus(fake).mean(),
        }


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

    def __call__(
        self, fake: torch.Tensor, real: torch.Tensor, judged: torch.Tensor | None, epoch: int
    ) -> dict[str, torch.Tensor]:
        """Weighted parts for photos `(N, 3, H, W)` and the logits of the fake ones."""
        parts = {}
        if self.config.pixel:
            parts["pixel"] = self.config.pixel * F.mse_loss(fake, real)
        if self.config.l1:
            parts["l1"] = self.config.l1 * F.l1_loss(fake, real)
        if judged is not None:
            weight = self.adversarial_weight(epoch)
            parts["adversarial"] = weight * F.softplus(-judged).mean()
        return parts
