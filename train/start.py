"""What a run starts with: its two networks, and the frozen ones of its losses."""

from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import torch

from face_destyle.configs import config_from_dict
from face_destyle.errors import UserError
from face_destyle.models.afrp import AFRP, AFRPConfig
from face_destyle.models.base import (
    CONFIG_FILE,
    REGISTRY,
    WEIGHTS_FILE,
    HubModel,
    weights_file,
)
from face_destyle.models.classifier import AttributeClassifier
from face_destyle.models.ifrp import IFRP
from train.editing import ObedienceLoss
from train.frozen import FaceEmbedding, PerceptualNetwork, find_frozen, sha256
from train.losses import IdentityLoss, PerceptualLoss
from train.recipe import (
    LossConfig,
    NetworkConfig,
    Recipe,
    file_beside,
    recipe_beside,
    trained_with,
)


def numbers(config: NetworkConfig) -> Any:
    """The numbers of a network, as its config dataclass.

    Raises:
        UserError: no such type, or a config that is not of it.
    """
    if config.type not in REGISTRY:
        raise UserError(f"model type {config.type!r} is unknown; use {', '.join(sorted(REGISTRY))}")
    config_class = REGISTRY[config.type].config_class
    return config_from_dict(config_class, config.config, f"{config.type} config")


def build(config: NetworkConfig) -> HubModel:
    """A network with fresh weights.

    Raises:
        UserError: as in `numbers`.
    """
    found = numbers(config)
    return REGISTRY[config.type](found)


def build_networks(recipe: Recipe, init: str | None) -> tuple[HubModel, HubModel]:
    """Generator and discriminator, in training mode.

    Args:
        recipe: which of them; of weights to go on with it is the file that says so.
        init: weights to start from, or None for fresh ones. An AFRP also starts from an IFRP,
            with a fresh discriminator: that of the IFRP has not seen attributes. The
            discriminator is fresh too where the weights have none, or the recipe gives it another
            config.

    Raises:
        UserError: no such weights or types, or a generator of another config.
    """
    if not init:
        return build(recipe.model), build(recipe.discriminator)
    source = HubModel.from_pretrained(init).train()
    if type(source) is IFRP and recipe.model.type == AFRP.model_type:
        return afrp_from(source, recipe.model), build(recipe.discriminator)
    if source.model_type != recipe.model.type:
        raise UserError(
            f"{init} holds a {source.model_type} network and the recipe says {recipe.model.type}: "
            f"--set model.type={source.model_type} and the discriminator.type of its recipe"
        )
    if recipe.model.config and numbers(recipe.model) != source.config:
        raise UserError(
            f"{init} holds a {recipe.model.type} of another config: leave out model.config"
        )
    judge, wanted = discriminator_beside(init), recipe.discriminator
    if judge is None:
        return source, build(wanted)
    if wanted.config and (wanted.type, numbers(wanted)) != (judge.model_type, judge.config):
        judge = build(wanted)
    return source, judge.train()


def discriminator_beside(weights: str) -> HubModel | None:
    """The discriminator that lies beside weights; None where there is none.

    Raises:
        UserError: one that cannot be read, no such weights, a Hub that was not reached.
    """
    parts = (CONFIG_FILE, WEIGHTS_FILE)
    if all(file_beside(weights, part, "discriminator") is None for part in parts):
        return None
    return HubModel.from_pretrained(weights, subfolder="discriminator")


def afrp_from(source: IFRP, config: NetworkConfig) -> AFRP:
    """The AFRP of a recipe, with the weights of an IFRP.

    Raises:
        UserError: the recipe asks for another IFRP beneath.
    """
    shared = asdict(source.config)
    wanted = config_from_dict(AFRPConfig, shared | config.config, f"{config.type} config")
    for name, value in shared.items():
        if getattr(wanted, name) != value:
            raise UserError(
                f"--init holds a network with {name} {value}: leave {name} out of model.config"
            )
    own = {
        entry.name: getattr(wanted, entry.name)
        for entry in fields(AFRPConfig)
        if entry.name not in shared
    }
    return AFRP.from_ifrp(source, **own)


def build_photo_losses(
    config: LossConfig, device: torch.device
) -> list[IdentityLoss | PerceptualLoss]:
    """The losses of a frozen network between fake and real photos.

    Raises:
        UserError: a weight is given and no network for it.
    """
    losses: list[IdentityLoss | PerceptualLoss] = []
    for name in ("identity", "perceptual"):
        _require_network(config, name, "FILE")
    if config.identity:
        embedding = FaceEmbedding.load(config.identity_network).to(device)
        losses.append(IdentityLoss(embedding, config.identity))
    if config.perceptual:
        network = PerceptualNetwork.load(config.perceptual_network).to(device)
        layers = dict.fromkeys(config.perceptual_layers, config.perceptual)
        losses.append(PerceptualLoss(network, layers))
    return losses


def build_obedience(config: LossConfig, device: torch.device) -> ObedienceLoss | None:
    """The loss of edited photos; None where it has no weight.

    Raises:
        UserError: a weight is given and no network for it.
    """
    _require_network(config, "obedience", "FOLDER")
    if not config.obedience:
        return None
    judge = AttributeClassifier.from_pretrained(config.obedience_network).to(device)
    identity = None
    if config.obedience_identity:
        if not config.identity_network:
            wanted = "--set loss.identity_network=FILE"
            raise UserError(f"loss.obedience_identity needs a network: {wanted}")
        embedding = FaceEmbedding.load(config.identity_network).to(device)
        identity = IdentityLoss(embedding, config.obedience_identity)
    return ObedienceLoss(judge, config.obedience, identity, config.obedience_pixel)


def _require_network(config: LossConfig, name: str, what: str) -> None:
    if getattr(config, name) and not getattr(config, f"{name}_network"):
        raise UserError(f"loss.{name} needs a network: --set loss.{name}_network={what}")


def pin_networks(recipe: Recipe, *inits: str) -> Recipe:
    """The recipe with the hashes of face embedding and attribute classifier.

    By these they are known again where they would judge what was trained to please them. Those
    that judged the weights to start from still do not judge what becomes of these.

    Args:
        recipe: what is trained.
        inits: weights to start from; none for fresh ones.

    Raises:
        UserError: the recipe was written for another file.
    """
    loss = recipe.loss
    if (loss.identity or loss.obedience_identity) and loss.identity_network:
        path = find_frozen(loss.identity_network, "a face embedding")
        loss = _pinned(loss, "identity", path, "the face embedding")
    if loss.obedience and loss.obedience_network:
        path = weights_file(loss.obedience_network)
        loss = _pinned(loss, "obedience", path, "the attribute classifier")
    if inits:
        judges = (trained_with(recipe_beside(init)) for init in inits)
        earlier = {*loss.earlier_sha256}.union(*judges)
        own = {loss.identity_sha256, loss.obedience_sha256}
        loss = replace(loss, earlier_sha256=tuple(sorted(earlier - own)))
    return replace(recipe, loss=loss)


def _pinned(loss: LossConfig, name: str, path: Path, what: str) -> LossConfig:
    found, key = sha256(path), f"{name}_sha256"
    wanted = getattr(loss, key)
    if wanted not in ("", found):
        raise UserError(
            f"{getattr(loss, f'{name}_network')} is not {what} of the recipe "
            f"(sha256 {wanted}); set loss.{key} to {found} to use it"
        )
    changes: dict[str, Any] = {key: found}
    return replace(loss, **changes)
