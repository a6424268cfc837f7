"""How much a machine can do in a given time: time a few steps, then choose the lengths."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch
from accelerate import Accelerator

from face_destyle import FaceModel, Stylizer, images
from train.data import ALIGNED, Batch
from train.evaluate import feature_similarity
from train.fit import Trainer
from train.precision import mixed
from train.recipe import Recipe
from train.style import StyleArguments, train_style
from train.stylize import Stroke, stylize_batch

STYLE_STEPS = (150, 600)  # of a style network: at least, and where there is time enough
STYLE_SHARE = 0.25  # of the time, at most, above the least
IMAGES = (1600, 160_000)  # of the fine-tuning
PASSES = 8  # how often a pair is seen, where there are photos enough
PHOTOS = (16, 4000)
WRITING = 0.004  # seconds to encode and store a portrait


@dataclass(frozen=True)
class Speeds:
    """Seconds on this machine.

    Attributes:
        style_step: a step of a style network.
        portrait: one stylized, encoded and stored.
        image: one of the fine-tuning, forwards and backwards through both networks.
        figure: one portrait recovered and measured.
    """

    style_step: float
    portrait: float
    image: float
    figure: float


@dataclass(frozen=True)
class Plan:
    """How long each stage is."""

    style_steps: int
    photos: int
    held_out: int
    images: int

    def seconds(self, speeds: Speeds, styles: int, variants: int) -> dict[str, float]:
        """What each stage will take, by its name."""
        people = self.photos + self.held_out
        return {
            "style network": self.style_steps * speeds.style_step,
            "pairs": people * styles * variants * speeds.portrait,
            "fine-tuning": self.images * speeds.image,
            "figures": 2 * self.held_out * styles * speeds.figure,
        }


def choose(
    speeds: Speeds, minutes: float, available: int, held_out: int, styles: int, variants: int
) -> Plan:
    """The plan that fills a time; the least that makes sense where it is too short for that.

    Args:
        speeds: of this machine.
        minutes: for all stages together.
        available: photos to learn from.
        held_out: photos to test on.
        styles: the new one and the old ones.
        variants: portraits of each photo and style.
    """
    left = 60 * minutes
    least, enough = STYLE_STEPS
    steps = min(enough, max(least, int(STYLE_SHARE * left / speeds.style_step)))
    plan = Plan(steps, 0, held_out, 0)
    left -= sum(plan.seconds(speeds, styles, variants).values())
    # A photo costs its portraits, and the images in which these are learnt from.
    each = styles * variants * (speeds.portrait + PASSES * speeds.image)
    photos = min(available, max(PHOTOS[0], min(PHOTOS[1], int(left / each))))
    left -= photos * styles * variants * speeds.portrait
    images_seen = min(IMAGES[1], max(IMAGES[0], int(left / speeds.image)))
    return replace(plan, photos=photos, images=images_seen)


def told(plan: Plan, speeds: Speeds, styles: int, variants: int) -> str:
    """The plan for people: a line a stage, and the sum."""
    seconds = plan.seconds(speeds, styles, variants)
    what = {
        "style network": f"{plan.style_steps} steps",
        "pairs": f"{plan.photos} + {plan.held_out} photos, {styles} styles, {variants} variants",
        "fine-tuning": f"{plan.images} images",
        "figures": f"{plan.held_out} photos, {styles} styles, before and after",
    }
    lines = [f"{name}: {what[name]}, about {minutes(seconds[name])}" for name in seconds]
    return "\n".join([*lines, f"in all about {minutes(sum(seconds.values()))}"])


def minutes(seconds: float) -> str:
    """Such as "12 min", never less than one."""
    whole = max(1, math.ceil(seconds / 60))
    return f"{whole // 60} h {whole % 60} min" if whole >= 60 else f"{whole} min"


def measure(style: StyleArguments, recipe: Recipe, init: str) -> Speeds:
    """Time a few steps of every stage, with the networks and the batches that will be used."""
    short = replace(style, pool=style.batch_size)
    # The first step of a process takes many times as long as the others.
    train_style(replace(short, steps=1))
    # What is loaded and prepared takes part in both, and not in the difference.
    once, thrice = (_timed(partial(train_style, replace(short, steps=n))) for n in (1, 3))
    faces = torch.rand(8, 3, images.FACE_SIDE, images.FACE_SIDE) * 2 - 1
    painter = Stylizer().eval()
    painting = _warm(lambda: stylize_batch(painter, faces, Stroke()))
    model = FaceModel.from_pretrained(init)
    with torch.inference_mode():
        recovering = _warm(lambda: model(faces))
        measuring = _warm(lambda: feature_similarity((faces, faces), faces, list(range(8))))
    return Speeds(
        style_step=max(thrice - once, 1e-3) / 2,
        portrait=painting / len(faces) + WRITING,
        image=_training(recipe, init) / recipe.train.batch_size,
        # The embeddings of three pictures cost about as much as the rest of the measures.
        figure=(recovering + 2 * measuring) / len(faces),
    )


def _training(recipe: Recipe, init: str) -> float:
    cpu = not torch.accelerator.is_available()
    precision = mixed(recipe.train.precision)
    trainer = Trainer(recipe, Accelerator(mixed_precision=precision, cpu=cpu), init)
    trainer.counter.images = recipe.loss.adversarial_after  # with the discriminator
    shape = (recipe.train.batch_size, 3, trainer.input_size, trainer.input_size)
    pictures = (torch.rand(shape) * 2 - 1).to(trainer.accelerator.device)
    batch = Batch(pictures, pictures, ALIGNED.to(pictures).expand(len(pictures), 2, 3))
    return _warm(lambda: trainer.step(batch, 0))


def _warm(call: Callable[[], object]) -> float:
    call()
    return min(_timed(call) for _ in range(2))


def _timed(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start
