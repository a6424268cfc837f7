"""A recipe: everything that decides how a published weight is trained, in one YAML file."""

from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Literal

import yaml
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

from face_destyle.configs import config_from_dict
from face_destyle.errors import UserError, WeightsError
from face_destyle.models.base import find_file, weights_file
from train.augment import AugmentConfig
from train.misalign import MisalignConfig
from train.precision import Precision
from train.tiny import TinyConfig


@dataclass(frozen=True)
class NetworkConfig:
    """A network by its `model_type`; `config` gives the fields that differ from the default."""

    type: str
    config: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class AttributesConfig:
    """What is asked of a network that takes attributes; chances in [0, 1]."""

    drop_all: float = 0.0  # chance that nothing is known of a face
    # Else each attribute is unknown with a chance that is drawn from 0 to this: at 1 one that is
    # asked for alone comes as often as all of them.
    drop_each: float = 0.0
    flip: float = 0.0  # chance of a second photo with one attribute flipped
    neighbours: int = 0  # alike photos with the attribute, and without it, that it is made by
    strength: float = 1.5  # times the difference of their means


@dataclass(frozen=True)
class ViewsConfig:
    """What is learnt of the views of train.views, in place of pairs: always in triplets."""

    use: bool = False  # data.pairs names views
    widest: float = 90.0  # no head is turned further, in degrees; 0: frontal ones alone
    target: Literal["photo", "view"] = "photo"  # the frontal photo, or the view, upright
    # The other person's head: as in the study, or turned, so that two thirds of a batch are.
    negative: Literal["frontal", "turned"] = "frontal"
    tiny: TinyConfig = TinyConfig()  # how a view is made tiny


@dataclass(frozen=True)
class DataConfig:
    """Which pairs are learnt from."""

    pairs: str = ""  # folder, parquet folder or Hub id; --data on the command line wins
    split: str = "train"
    styles: tuple[str, ...] = ()  # all where none is given
    variants: int = 0  # how many variants of a portrait are used; 0 for all
    limit: int = 0  # the first so many rows; 0 for all
    workers: int = 0
    cache: bool = True  # keep decoded pictures in memory: 49 kB each
    turned: float = 0.0  # chance that a portrait is turned, shifted, scaled, strokes and all
    turns: MisalignConfig = MisalignConfig()  # where its face may lie then
    views: ViewsConfig = ViewsConfig()
    attributes: AttributesConfig = AttributesConfig()


@dataclass(frozen=True)
class OptimizerConfig:
    """One optimizer a network, with one schedule, counted in images and epochs."""

    name: Literal["rmsprop", "adam"] = "adam"
    learning_rate: float = 0.001
    discriminator_rate: float = 0.0  # 0: as the generator's
    attribute_gain: float = 1.0  # times learning_rate, of the layers that attributes enter by
    # RMSprop's smoothing; the thesis prints 0.01, the authors' code uses 0.9 (papers 6.1).
    alpha: float = 0.9
    betas: tuple[float, ...] = (0.5, 0.99)
    eps: float = 1e-8
    schedule: Literal["papers", "cosine", "linear"] = "cosine"  # linear: constant, then to 0
    epoch_factor: float = 0.99  # "papers": the rate is multiplied by this after each epoch
    floor: float = 1e-6  # "papers": and never falls below this
    warmup: int = 2000  # images over which the rate rises to its value


@dataclass(frozen=True)
class LossConfig:
    """Weights of the losses; 0 leaves a loss out."""

    pixel: float = 1.0
    l1: float = 0.0
    detail: float = 0.0  # l2 of what photos of a quarter of the side do not show
    adversarial: float = 0.01
    adversarial_edited: float = 1.0  # times adversarial, of photos with an attribute flipped
    adversarial_after: int = 0  # images that are learnt from by the other losses alone
    jitter: int = 0  # pixels by which what judging networks see moves from step to step
    soften: float = 0.0  # pixels: sigma of the Gaussian through which they see it
    identity: float = 0.0
    identity_sha256: str = ""  # of the network's file: another is refused
    identity_network: str = ""  # a face embedding: path or Hub file; never the one that judges
    perceptual: float = 0.0
    perceptual_layers: tuple[str, ...] = ("relu3_2",)
    perceptual_network: str = ""  # a distilled VGG-19: path or Hub file
    alignment: float = 0.0  # of a network with spatial transformers, against the true alignment
    reading: float = 0.0  # cross entropy of what the network reads in the portrait
    edited: float = 0.0  # relative l2 of what a flip changes (data.attributes.neighbours)
    obedience: float = 0.0  # of the flipped attributes of data.attributes.flip
    obedience_sha256: str = ""  # of the classifier's weights: it never judges what it trained
    obedience_network: str = ""  # an attribute classifier: name, folder or Hub id
    earlier_sha256: tuple[str, ...] = ()  # as both above, of the weights that a run starts from
    obedience_identity: float = 0.0  # how like each other photos with and without the flip are
    obedience_pixel: float = 0.0  # how near each other they are
    triplet: float = 0.0  # on the latent codes of views
    triplet_margin: float = 0.0  # alpha
    triplet_symmetric: bool = False  # all three codes move, not the anchor's alone
    discriminator: float = 1.0
    epoch_decay: float = 0.995  # of the adversarial weight, down to its half (eq. 3.8)

    def __post_init__(self) -> None:
        if min(self.jitter, self.soften) < 0:
            raise ValueError("jitter and soften start at 0")


@dataclass(frozen=True)
class TrainConfig:
    """The length of a run and what is written while it runs; all counts are images seen."""

    images: int = 400_000
    batch_size: int = 16  # of all processes together
    accumulate: int = 1  # parts that a process learns its batch in: less memory, the same step
    ema_half_life: int = 5000
    precision: Precision = "auto"  # auto: bf16 where the machine has instructions for it
    seed: int = 0
    log_every: int = 1600
    sample_every: int = 20_000
    save_every: int = 20_000
    keep: int = 2  # checkpoints
    milestones: tuple[int, ...] = ()  # export the networks here too, to compare at equal counts

    def __post_init__(self) -> None:
        if self.accumulate < 1:
            raise ValueError("accumulate starts at 1")


@dataclass(frozen=True)
class Recipe:
    """The whole file."""

    name: str
    model: NetworkConfig
    discriminator: NetworkConfig
    data: DataConfig = DataConfig()
    augment: AugmentConfig = AugmentConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    loss: LossConfig = LossConfig()
    train: TrainConfig = TrainConfig()

    def __post_init__(self) -> None:
        if self.loss.edited and not self.data.attributes.neighbours:
            raise ValueError("loss.edited learns from data.attributes.neighbours: set it")


def load_recipe(path: str | Path, overrides: list[str] | None = None) -> Recipe:
    """Read a recipe, with `section.key=value` overrides on top.

    Raises:
        UserError: no such file, no YAML, an unknown key or section, a value of the wrong type;
            named.
    """
    try:
        fields = _parse(Path(path).read_text(), str(path))
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is no text file") from error
    if not isinstance(fields, dict):
        raise UserError(f"{path} holds no mapping")
    for text in overrides or []:
        _override(fields, text)
    missing = [key for key in ("name", "model", "discriminator") if key not in fields]
    if missing:
        raise UserError(f"{path}: key {missing[0]} is missing")
    recipe: Recipe = config_from_dict(Recipe, fields, str(path))
    return recipe


def file_beside(weights: str | Path, filename: str, subfolder: str | None = None) -> Path | None:
    """A file that lies beside weights; None where there is none.

    Args:
        weights: name, folder or Hub id.
        filename, subfolder: of the file.

    Raises:
        UserError: no such weights, or a Hub that was not reached.
    """
    weights_file(str(weights))  # it says what is wrong where there are none
    download = {"revision": None, "force_download": False}
    try:
        return find_file(str(weights), filename, subfolder, download)
    except WeightsError as error:
        why = error.__cause__  # None: a folder without the file
        unreached = isinstance(why, LocalEntryNotFoundError)  # which is an EntryNotFoundError too
        if unreached or not isinstance(why, EntryNotFoundError | None):
            raise
        return None


def recipe_beside(weights: str | Path) -> dict[str, Any]:
    """The content of the recipe.yaml that lies beside weights; empty where none does.

    Raises:
        UserError: as `file_beside`; a recipe that cannot be read.
    """
    path = file_beside(weights, "recipe.yaml")
    if path is None:
        return {}
    found = _parse(path.read_text(), str(path))
    if not isinstance(found or {}, dict):
        raise UserError(f"{path} holds no mapping")
    return found or {}


def trained_with(recipe: dict[str, Any]) -> set[str]:
    """The hashes of all judging networks that a recipe.yaml says were pleased, now or earlier."""
    loss = recipe.get("loss") or {}
    own = (loss.get("identity_sha256"), loss.get("obedience_sha256"))
    return {found for found in (*own, *loss.get("earlier_sha256", ())) if found}


def dump_recipe(recipe: Recipe) -> str:
    """As YAML: what differs from the defaults, without what belongs to one machine."""
    networks = ("identity_network", "perceptual_network", "obedience_network")
    names: dict[str, Any] = {name: Path(getattr(recipe.loss, name)).name for name in networks}
    loss = replace(recipe.loss, **names)
    shared = replace(recipe, data=replace(recipe.data, pairs=""), loss=loss)
    return yaml.safe_dump(_beside_defaults(shared), sort_keys=False)


def _beside_defaults(config: Any) -> dict[str, Any]:
    found = {}
    for entry in fields(config):
        value = getattr(config, entry.name)
        if value == entry.default:
            continue
        if is_dataclass(entry.default):
            found[entry.name] = _beside_defaults(value)
        else:
            found[entry.name] = _plain(value)
    return found


def _plain(value: Any) -> Any:
    """Tuples are lists in YAML, a network is a mapping."""
    if isinstance(value, NetworkConfig):
        return {name: _plain(inner) for name, inner in asdict(value).items() if inner}
    return list(value) if isinstance(value, tuple) else value


def _override(fields: dict[str, Any], text: str) -> None:
    key, separator, value = text.partition("=")
    if not separator:
        raise UserError(f"--set {text}: write section.key=value")
    *sections, last = key.split(".")
    for section in sections:
        inner = fields.setdefault(section, {})
        if not isinstance(inner, dict):
            raise UserError(f"--set {text}: {section} is {inner!r}, which is no section")
        fields = inner
    fields[last] = _parse(value, f"--set {text}")


def _parse(text: str, where: str) -> Any:
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError) as error:  # a date may have a thirteenth month
        first_line = " ".join(str(error).splitlines()[:1])
        problem = getattr(error, "problem", None) or first_line
        mark = getattr(error, "problem_mark", None)
        line = f" in line {mark.line + 1}" if mark and "\n" in text else ""
        raise UserError(f"{where} is no YAML{line}: {problem}") from error
