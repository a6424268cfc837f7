"""The one training loop of all studies.

    accelerate launch -m train.fit --recipe train/recipes/fdnn.yaml --data PAIRS --out RUN

The same command on the same folder goes on where a killed run was, exactly. Several processes
on a CPU: `torchrun --nproc_per_node 2 -m train.fit ...`.
"""

import argparse
import re
import sys
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
from accelerate import Accelerator
from accelerate.utils import DataLoaderConfiguration, set_seed
from torch import nn
from torch.nn import functional as F

from face_destyle.errors import UserError
from face_destyle.models.base import REGISTRY, HubModel, Recovered
from train.checkpoints import Counter, checkpoints, last_checkpoint, open_run, save
from train.console import one_line_errors
from train.data import Batch, to_batch
from train.doctor import inspect
from train.editing import Edited, EditedLoss, ReadingLoss, stated
from train.ema import EMA
from train.journal import Journal
from train.loader import make_loader
from train.losses import (
    AlignmentLoss,
    DiscriminatorLoss,
    GeneratorLoss,
    moved,
    softened,
)
from train.memory import keep_freed_memory
from train.optimizers import build_optimizer, learning_rate_factor, set_rate
from train.precision import mixed
from train.recipe import Recipe, dump_recipe, load_recipe
from train.start import build_networks, build_obedience, build_photo_losses, pin_networks
from train.triplet import TripletLoss, to_triplets

LOOKED_AT = 500  # pairs of each split, before a run
# What gloo and NCCL say where a process does not answer.
LOST = re.compile(r"gloo|NCCL|[Cc]onnection (closed|reset|refused)|[Tt]imed? ?out")


class TrainingError(UserError):
    """The run cannot go on; says at which image, and which checkpoint is good."""


@dataclass(frozen=True)
class Part:
    """Of how many parts of a batch this is one, and whether it is the last."""

    count: int = 1
    last: bool = True


WHOLE = Part()


class Trainer:
    """Two networks, their optimizers and the state of a run."""

    def __init__(self, recipe: Recipe, accelerator: Accelerator, init: str | None = None):
        self.recipe, self.accelerator = recipe, accelerator
        set_seed(recipe.train.seed)
        generator, discriminator = build_networks(recipe, init)
        self.asks = generator.takes_attributes
        self.conditional, self.matches = discriminator.conditional, discriminator.takes_attributes
        self.input_size = int(generator.config.image_size)
        self.photo_size = int(getattr(generator.config, "photo_size", self.input_size))
        self.ema = EMA(generator.to(accelerator.device), recipe.train.ema_half_life)
        if accelerator.device.type == "cuda":
            # On a CPU the bf16 group normalization of torch is several times slower in this layout.
            generator = generator.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            discriminator = discriminator.to(  # type: ignore[call-overload]
                memory_format=torch.channels_last
            )
        config = recipe.optimizer
        self.rates = (config.learning_rate, config.discriminator_rate or config.learning_rate)
        # The order of the four is the identity of a checkpoint's files.
        (
            self.generator,
            self.discriminator,
            self.generator_optimizer,
            self.discriminator_optimizer,
        ) = accelerator.prepare(
            generator,
            discriminator,
            build_optimizer(config, generator, self.rates[0]),
            build_optimizer(config, discriminator, self.rates[1]),
        )
        self.loss = loss = recipe.loss
        self.generator_loss = GeneratorLoss(loss)
        self.alignment_loss = AlignmentLoss(loss.alignment)
        self.triplet_loss = TripletLoss(loss.triplet, loss.triplet_margin, loss.triplet_symmetric)
        self.photo_losses = build_photo_losses(loss, accelerator.device)
        self.obedience_loss = build_obedience(loss, accelerator.device)
        self.edited_loss = EditedLoss(loss.edited)
        self.reading_loss = ReadingLoss(loss.reading)
        self.discriminator_loss = DiscriminatorLoss(loss)
        self.counter = Counter()
        accelerator.register_for_checkpointing(self.counter, self.ema)

    @property
    def adversarial(self) -> bool:
        """Whether the discriminator takes part by now."""
        return self.loss.adversarial > 0 and self.counter.images >= self.loss.adversarial_after

    def step(self, batch: Batch, epoch: int) -> dict[str, torch.Tensor]:
        """One batch for both networks; returns every loss by name."""
        count = self.recipe.train.accumulate
        if count > 1:
            return self.step_in_parts(batch.parts(count), epoch)
        recovered, edited = self.photos(batch)
        losses = {}
        if self.adversarial:
            cut_off = edited.detached() if edited else None
            losses = self.discriminator_step(recovered.photo.detach(), batch, cut_off)
        return losses | self.generator_step(recovered, batch, epoch, edited)

    def step_in_parts(self, batches: list[Batch], epoch: int) -> dict[str, torch.Tensor]:
        """The same of a batch in parts, of which one at a time is in memory.

        The discriminator has moved before the generator learns from it, as with the whole batch:
        so the photos that it saw are made again.
        """
        count = len(batches)
        means: dict[str, torch.Tensor] = {}

        def add(losses: dict[str, torch.Tensor]) -> None:
            for name, loss in losses.items():
                means[name] = means.get(name, torch.zeros_like(loss)) + loss.detach() / count

        parts = [Part(count, number == count) for number in range(1, count + 1)]
        for batch, part in zip(batches, parts, strict=True) if self.adversarial else ():
            with torch.no_grad():
                recovered, edited = self.photos(batch)
            with self.exchange(self.discriminator, part):
                add(self.discriminator_step(recovered.photo, batch, edited, part))
        for batch, part in zip(batches, parts, strict=True):
            with self.exchange(self.generator, part):
                recovered, edited = self.photos(batch)
                add(self.generator_step(recovered, batch, epoch, edited, part))
        return means

    def exchange(self, network: nn.Module, part: Part) -> AbstractContextManager[None]:
        """Within it the processes exchange gradients with the last part of a batch alone."""
        return nullcontext() if part.last else self.accelerator.no_sync(network)

    def photos(self, batch: Batch) -> tuple[Recovered, Edited | None]:
        """What the generator makes of a batch: photos in float32, and edited ones."""
        recovered = self.recover(self.generator, batch)
        return replace(recovered, photo=recovered.photo.float()), self.edit(batch)

    def gather(self, item: dict[str, Any]) -> Batch:
        """A batch of collated items, on the device."""
        if self.recipe.data.views.use:
            return to_triplets(item, self.accelerator.device, self.input_size)
        return to_batch(item, self.accelerator.device)

    def recover(self, generator: nn.Module, batch: Batch) -> Recovered:
        """What a generator makes of the portraits, with attributes where it takes them."""
        if self.asks:
            return generator(batch.portraits, batch.attributes)
        return generator(batch.portraits)

    def edit(self, batch: Batch) -> Edited | None:
        """Second photos of the batch, one attribute flipped; None where none is asked for."""
        wanted = self.obedience_loss or self.loss.edited
        if not self.asks or not wanted or batch.attributes is None:
            return None
        rows = stated(batch.flipped)
        if batch.flipped is None or not len(rows):
            return None
        asked, wished = batch.attributes[rows], batch.flipped[rows]
        photos = self.generator(batch.portraits[rows], wished).photo.float()
        return Edited(rows, asked, wished, photos)

    def view(self, pictures: torch.Tensor) -> torch.Tensor:
        """What the networks that judge pictures `(N, C, H, W)` see of them at this step."""
        moving = moved(pictures, self.loss.jitter, self.counter.images)
        return softened(moving, self.loss.soften)

    def judge(
        self,
        photos: torch.Tensor,
        portraits: torch.Tensor,
        attributes: torch.Tensor | None,
        frozen: bool = False,
    ) -> torch.Tensor:
        """The discriminator's logits for photos `(N, 3, H, W)`, from as much as it looks at.

        Where it is `frozen` it has no gradients, and processes do not wait for any to exchange.
        """
        network = self.discriminator
        if frozen:
            network = self.accelerator.unwrap_model(network)
        given = [self.view(photos)]
        if self.conditional:
            given.append(self.view(portraits))
        if self.matches:
            return network(*given, attributes).float()
        return network(*given).float()

    def discriminator_step(
        self,
        fake: torch.Tensor,
        batch: Batch,
        edited: Edited | None = None,
        part: Part = WHOLE,
    ) -> dict[str, torch.Tensor]:
        """Update the discriminator on generated and true photos `(N, 3, H, W)`.

        One that sees attributes also learns to refuse true photos with wrong ones.
        """
        real, portraits = batch.photos, batch.portraits
        judged_real = self.judge(real, portraits, batch.attributes)
        judged_fake = self.judge(fake, portraits, batch.attributes)
        refused = {}
        rows = stated(batch.wrong)
        if self.matches and batch.wrong is not None and len(rows):
            refused["wrong"] = (self.judge(real[rows], portraits[rows], batch.wrong[rows]), rows)
        if edited:
            rows = edited.rows
            refused["edited"] = (self.judge(edited.photos, portraits[rows], edited.wished), rows)
        losses = self.discriminator_loss(judged_real, judged_fake, refused)
        self._update(self.discriminator_optimizer, losses, part)
        return losses

    def generator_step(
        self,
        recovered: Recovered,
        batch: Batch,
        epoch: int,
        edited: Edited | None = None,
        part: Part = WHOLE,
    ) -> dict[str, torch.Tensor]:
        """Update the generator; the discriminator is frozen meanwhile.

        Otherwise this backward pass would leave gradients in it for its next update.
        """
        self.discriminator.requires_grad_(False)
        fake, real = recovered.photo, batch.photos
        judged = None
        if self.adversarial:
            judged = self.judge(fake, batch.portraits, batch.attributes, frozen=True)
        losses = self.generator_loss(fake, real, judged, epoch)
        for loss in self.photo_losses:
            losses |= loss(self.view(fake), self.view(real))
        if self.loss.alignment:
            losses |= self.alignment_loss(recovered.alignment, batch.alignment)
        if self.loss.triplet and batch.triplets:
            losses |= self.triplet_loss(getattr(recovered, "code", None))
        if self.loss.reading and batch.attributes is not None:
            losses |= self.reading_loss(recovered.attributes, batch.attributes)
        if edited and self.loss.edited and batch.edited is not None:
            losses |= self.edited_loss(edited, fake, (batch.edited - real)[edited.rows])
        if edited and self.obedience_loss:
            seen = replace(edited, photos=self.view(edited.photos))
            losses |= self.obedience_loss(seen, self.view(fake))
        if edited and self.adversarial:
            portraits = batch.portraits[edited.rows]
            judged = self.judge(edited.photos, portraits, edited.wished, frozen=True)
            weight = self.loss.adversarial_edited * len(edited.rows) / len(fake)
            losses["adversarial_edited"] = weight * self.generator_loss.adversarial(judged, epoch)
        self._update(self.generator_optimizer, losses, part)
        self.discriminator.requires_grad_(True)
        return losses

    def _update(
        self, optimizer: torch.optim.Optimizer, losses: dict[str, torch.Tensor], part: Part
    ) -> None:
        total = torch.stack(list(losses.values())).sum()
        if not torch.isfinite(total):
            raise FloatingPointError(", ".join(f"{k} {v.item():g}" for k, v in losses.items()))
        self.accelerator.backward(total / part.count)
        if part.last:
            optimizer.step()
            optimizer.zero_grad()

    def set_rates(self, epoch: int) -> None:
        """The learning rates for the images seen so far."""
        factor = learning_rate_factor(
            self.recipe.optimizer, self.counter.images, epoch, self.recipe.train.images
        )
        optimizers = (self.generator_optimizer, self.discriminator_optimizer)
        for optimizer, rate in zip(optimizers, self.rates, strict=True):
            set_rate(optimizer, rate * factor)

    def export(self, folder: Path) -> None:
        """Write the averaged generator, and the discriminator, in `from_pretrained` form."""
        if self.accelerator.is_main_process:
            discriminator = self.accelerator.unwrap_model(self.discriminator)
            cast(HubModel, self.ema.network).save_pretrained(folder)
            cast(HubModel, discriminator).save_pretrained(folder / "discriminator")
            (folder / "recipe.yaml").write_text(dump_recipe(self.recipe))


def fit(
    recipe: Recipe,
    run: Path,
    init: str | None = None,
    stop_at: int | None = None,
    cpu: bool = False,
) -> Path:
    """Train, or go on training; returns the folder with the exported networks.

    Args:
        recipe: what to train.
        run: folder of the run; made, or continued where it holds the same recipe.
        init: weights to start from, instead of fresh ones.
        stop_at: stop with a checkpoint at this many images, to go on another time.
        cpu: train on the CPU though there is a GPU.

    Raises:
        UserError: pairs, folder or recipe do not fit.
        TrainingError: a loss is no number any more, or another process was lost.
    """
    config = recipe.train
    accelerator = Accelerator(
        mixed_precision=mixed(config.precision, "cpu" if cpu else None),
        log_with="tensorboard",
        project_dir=str(run),
        # Without an accelerator accelerate joins the processes only where it is told of the CPU.
        cpu=cpu or not torch.accelerator.is_available(),
        # A batch of the loader is the batch of all processes together.
        dataloader_config=DataLoaderConfiguration(split_batches=True),
    )
    recipe = pin_networks(recipe, *([init] if init else []))
    open_run(run, recipe, accelerator)
    trainer = Trainer(recipe, accelerator, init)
    saved = checkpoints(run)
    if saved:
        accelerator.load_state(str(saved[-1]))
    start = trainer.counter.images
    loader, epoch_length = make_loader(
        recipe, accelerator, start, (trainer.input_size, trainer.photo_size)
    )
    accelerator.init_trackers("tensorboard")
    journal = Journal(run, recipe, accelerator, start)
    try:
        _loop(trainer, loader, epoch_length, journal, stop_at or config.images)
    except FloatingPointError as error:
        raise TrainingError(
            f"at image {trainer.counter.images} a loss is no number any more ({error}); "
            f"last good checkpoint: {last_checkpoint(run)}; lower the learning rate"
        ) from error
    except RuntimeError as error:
        if accelerator.num_processes == 1 or not LOST.search(str(error)):
            raise
        raise TrainingError(
            f"at image {trainer.counter.images} another process was lost "
            f"({str(error).splitlines()[0]}); the same command goes on from the last checkpoint: "
            f"{last_checkpoint(run)}"
        ) from error
    finally:
        journal.bar.close()
        accelerator.end_training()
    trainer.export(run / "weights")
    return run / "weights"


def _loop(trainer: Trainer, loader: Any, epoch_length: int, journal: Journal, end: int) -> None:
    accelerator, config = trainer.accelerator, trainer.recipe.train
    for item in loader:
        if trainer.counter.images >= end:
            break
        epoch = trainer.counter.images // epoch_length
        trainer.set_rates(epoch)
        batch = trainer.gather(item)
        losses = trainer.step(batch, epoch)

        # Count, average, report.
        before = trainer.counter.images
        trainer.counter.images = seen = before + config.batch_size
        generator = accelerator.unwrap_model(trainer.generator)
        trainer.ema.update(generator, config.batch_size, seen)
        journal.record(losses, seen, trainer.generator_optimizer.param_groups[0]["lr"])
        if seen // config.sample_every > before // config.sample_every:
            with torch.inference_mode():
                photos = trainer.recover(trainer.ema.network, batch).photo
                shown = F.interpolate(batch.portraits, size=photos.shape[-2:], mode="nearest")
                journal.sample(shown, photos, batch.photos, seen)

        # Save.
        if any(before < count <= seen for count in config.milestones):
            trainer.export(journal.run / f"weights-{seen:010d}")
        if seen // config.save_every > before // config.save_every:
            save(accelerator, journal.run, seen, config.keep)
    if trainer.counter.images:
        save(accelerator, journal.run, trainer.counter.images, config.keep)


def check_pairs(recipe: Recipe) -> None:
    """Look through the pairs before the first step.

    Raises:
        UserError: something in them would spoil the training, or no pairs are there.
    """
    klass = REGISTRY.get(recipe.model.type)
    if klass and hasattr(klass.config_class, "photo_size"):
        return  # it learns from views, which check_data tells
    for found in inspect(recipe.data.pairs, LOOKED_AT) if recipe.data.pairs else ():
        if found.stops:
            raise UserError(
                f"{recipe.data.pairs}: {found.text}; train.doctor says more, --unchecked trains"
            )


@one_line_errors
def main(argv: list[str] | None = None) -> int:
    """Entry point; exit code 2 with one line where something must be put right first."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--recipe", required=True)
    parser.add_argument("--data", help="pairs: folder, parquet folder or Hub id")
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--init", help="weights to start from: name, folder or Hub id")
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE")
    parser.add_argument("--stop-at", type=int, help="stop with a checkpoint at this many images")
    parser.add_argument("--cpu", action="store_true", help="train on the CPU though there is a GPU")
    parser.add_argument("--unchecked", action="store_true", help="whatever train.doctor says")
    given = parser.parse_args(argv)
    keep_freed_memory()
    recipe = load_recipe(given.recipe, given.set)
    if given.data:
        recipe = replace(recipe, data=replace(recipe.data, pairs=given.data))
    if not given.unchecked and not recipe.data.views.use:
        check_pairs(recipe)
    weights = fit(recipe, given.out, given.init, given.stop_at, given.cpu)
    print(f"weights in {weights}")  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
