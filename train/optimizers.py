"""The optimizers of a run, and how their rate changes with it."""

import math

import torch
from torch import nn

from face_destyle.models.afrp import AFRP
from train.recipe import OptimizerConfig


def build_optimizer(
    config: OptimizerConfig, network: nn.Module, rate: float
) -> torch.optim.Optimizer:
    """One optimizer for one network (eqs. 3.4 to 3.7 for RMSprop).

    The layers that attributes enter by are a group of their own, whose `gain` multiplies the rate.
    """
    entrance = network.attribute_parameters() if isinstance(network, AFRP) else []
    apart = set(entrance)
    rest = [parameter for parameter in network.parameters() if parameter not in apart]
    groups = [{"params": rest, "gain": 1.0}]
    if entrance:
        groups.append({"params": entrance, "gain": config.attribute_gain})
    if config.name == "rmsprop":
        return torch.optim.RMSprop(groups, rate, config.alpha, config.eps)
    betas = (config.betas[0], config.betas[1])
    return torch.optim.Adam(groups, rate, betas, config.eps, fused=True)


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Give every group the rate, times its gain."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get("gain", 1.0)


def learning_rate_factor(
    config: OptimizerConfig, images_seen: int, epoch: int, total: int
) -> float:
    """What the learning rate is multiplied by after `images_seen` of `total` images."""
    warm = min(1.0, (images_seen + 1) / config.warmup) if config.warmup else 1.0
    if config.schedule == "cosine":
        return warm * 0.5 * (1 + math.cos(math.pi * min(1.0, images_seen / total)))
    if config.schedule == "linear":
        return warm * min(1.0, 2 * (1 - images_seen / total))
    return warm * max(config.epoch_factor**epoch, config.floor / config.learning_rate)
