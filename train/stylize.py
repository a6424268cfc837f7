"""Make training pairs: photos x style networks -> portraits, as a `datasets` dataset.

    python -m train.stylize --photos PHOTOS --out PAIRS \
        --style the_scream=johnson_the_scream.safetensors --style candy=CANDY

With --turns each photo is turned, shifted and scaled before it is stylized, so that the strokes
stay upright. The column `alignment` says how, as in train/misalign.py, and is the identity where
nothing is turned; `margin` says how much of the photo's real surroundings there was to turn in.

The work is cut into chunks of photos; a chunk is one parquet file, complete or absent, so a
killed run goes on where it was. Under `torchrun` or `accelerate launch` the processes share the
chunks; the result does not depend on how many there are.
"""

import argparse
import hashlib
import random
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from datasets import DatasetDict, disable_progress_bars
from PIL import Image as PILImage
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional as F
from tqdm import tqdm

from face_destyle import Stylizer, StylizerConfig, images
from face_destyle.errors import UserError
from face_destyle.models.base import load_weights
from train.chunks import (
    Chunk,
    Place,
    claim,
    encode_png,
    one_ahead,
    read_chunk,
    row_counts,
    skipped_file,
    write_chunk,
)
from train.console import one_line_errors
from train.memory import keep_freed_memory
from train.misalign import MisalignConfig, Misalignment, named_misalignment
from train.photos import Photo, open_photos
from train.publish import check_may_share, push_pairs
from train.style_layouts import stylizer_of

# Stroke scales of the further variants: the photo is stylized at this multiple of 128.
SCALES = (0.75, 1.0, 1.25, 1.5)


@dataclass(frozen=True)
class StylizeArguments:
    """What a run makes; a folder that holds another run's pairs is refused."""

    photos: str
    styles: dict[str, str]
    splits: tuple[str, ...] = ()
    variants: int = 1
    limit: int = 0
    chunk: int = 256
    seed: int = 0
    precision: str = "fp32"
    batch_size: int = field(default=32)
    misalign: bool = False
    angles: tuple[float, ...] = ()  # how far each variant is turned, in degrees; else drawn
    bounds: MisalignConfig = MisalignConfig()
    each: int = 0  # how many of the styles each variant of a photo is painted in; 0 for all

    def styles_of(self, key: str, variant: int) -> set[str]:
        """The styles of one variant of a photo, drawn from its name."""
        if not self.each:
            return set(self.styles)
        digest = hashlib.sha256(f"{self.seed}/{key}/{variant}/styles".encode()).digest()
        return set(random.Random(digest).sample(sorted(self.styles), self.each))

    def misalignment(self, variant: int, key: str) -> Misalignment:
        """How a variant of a photo is turned: the same for all styles."""
        if not self.misalign:
            return Misalignment()
        angle = self.angles[variant] if self.angles else None
        return named_misalignment(self.bounds, self.seed, key, variant, angle)

    def stroke(self, key: str, style: str, variant: int) -> "Stroke":
        """How a portrait is stylized: of a turned photo the strokes stay upright.

        Where the angles are given they are all that differs between the variants.
        """
        stroke = draw_stroke(self.seed, key, style, variant)
        if self.angles:
            return Stroke()
        return Stroke(stroke.scale) if self.misalign else stroke


@dataclass(frozen=True)
class Stroke:
    """How one portrait is stylized: at `scale` times 128 pixels, turned by `turn` quarters."""

    scale: float = 1.0
    turn: int = 0


def draw_stroke(seed: int, key: str, style: str, variant: int) -> Stroke:
    """Variant 0 is the plain portrait; the others draw scale and turn from their own name."""
    if variant == 0:
        return Stroke()
    digest = hashlib.sha256(f"{seed}/{key}/{style}/{variant}".encode()).digest()
    draw = random.Random(digest)
    return Stroke(draw.choice(SCALES), draw.randrange(4))


def load_stylizer(source: str, style: str) -> nn.Module:
    """A style network by published name, folder or Hub id; or a bare file of a known layout.

    A file of a network for many styles is given with that of its vectors, as `FILE@VECTORS#KEY`;
    without a key the style's own name is looked for.

    Raises:
        UserError: not to be found, or other layers.
    """
    path, _, rest = source.partition("@")
    vectors, _, key = rest.partition("#")
    if not Path(path).is_file():
        return Stylizer.from_pretrained(source)
    state = _tensors(path)
    network = stylizer_of(state, _vector(vectors, key or style) if vectors else None)
    if network is None:
        if "up1.bias" not in state:
            raise UserError(f"{source} holds no style network in a layout that is known")
        width = state["conv1.weight"].shape[0]
        network = Stylizer(StylizerConfig(width=width, style=style))
        load_weights(network, Path(path))
    return network.eval()


def _tensors(path: str) -> dict[str, torch.Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} is damaged or no safetensors file: {error}") from error


def _vector(path: str, key: str) -> torch.Tensor:
    vectors = _tensors(path)
    if key not in vectors:
        raise UserError(f"{path} has no style {key}; it has {', '.join(sorted(vectors))}")
    return vectors[key]


@torch.inference_mode()
def stylize_batch(
    network: nn.Module, photos: torch.Tensor, stroke: Stroke, bf16: bool = False
) -> torch.Tensor:
    """Stylize `(N, 3, 128, 128)` in [-1, 1] with strokes turned and scaled; same shape back."""
    side = photos.shape[-1]
    scaled = _resize(photos, round(side * stroke.scale / 4) * 4)
    turned = torch.rot90(scaled, stroke.turn, (2, 3))
    with torch.autocast(photos.device.type, torch.bfloat16, enabled=bf16):
        painted = network(turned)
    return _resize(torch.rot90(painted.float(), -stroke.turn, (2, 3)), side).clamp(-1, 1)


def _resize(pictures: torch.Tensor, side: int) -> torch.Tensor:
    if pictures.shape[-1] == side:
        return pictures
    size = (side, side)
    return F.interpolate(pictures, size, mode="bicubic", antialias=True, align_corners=False)


class PairMaker:
    """Turns photos into portraits on one device."""

    def __init__(self, arguments: StylizeArguments, device: torch.device):
        self.arguments = arguments
        self.device = device
        self.overlaps = device.type != "cpu"
        self.networks = {
            style: load_stylizer(source, style).to(device)
            for style, source in arguments.styles.items()
        }

    def paint(self, chunk: Chunk, pool: ThreadPoolExecutor) -> dict[Place, Future[bytes]]:
        """The PNG of every photo, style and variant, in this order.

        They are encoded in `pool`: beside the next batch on an accelerator, before it on a CPU,
        where torch's threads would wait at every layer for the one that shares its core.
        """
        portraits: dict[Place, Future[bytes]] = {}
        for variant, pixels in enumerate(chunk.pictures):
            batch = images.from_uint8(pixels.to(self.device))
            for style, network in self.networks.items():
                for members, stroke in self._groups(chunk.photos, style, variant):
                    painted = self._paint(network, batch[members], stroke)
                    for member, portrait in zip(members, painted, strict=True):
                        future = pool.submit(encode_png, PILImage.fromarray(portrait))
                        portraits[member, style, variant] = future
                    if not self.overlaps:
                        wait(portraits.values())
        variants = range(len(chunk.pictures))
        places = product(range(len(chunk.photos)), self.networks, variants)
        return {place: portraits[place] for place in places if place in portraits}

    def _groups(
        self, photos: list[Photo], style: str, variant: int
    ) -> list[tuple[list[int], Stroke]]:
        """Photos of the same stroke, in batches: one call of the network each."""
        by_stroke: dict[Stroke, list[int]] = {}
        for index, photo in enumerate(photos):
            if style not in self.arguments.styles_of(photo.key, variant):
                continue
            stroke = self.arguments.stroke(photo.key, style, variant)
            by_stroke.setdefault(stroke, []).append(index)
        size = self.arguments.batch_size
        return [
            (members[start : start + size], stroke)
            for stroke, members in by_stroke.items()
            for start in range(0, len(members), size)
        ]

    def _paint(self, network: nn.Module, photos: torch.Tensor, stroke: Stroke) -> np.ndarray:
        painted = stylize_batch(network, photos, stroke, self.arguments.precision == "bf16")
        return images.to_uint8(painted).permute(0, 2, 3, 1).cpu().numpy()


def plan(table: DatasetDict, arguments: StylizeArguments) -> list[tuple[str, int, range]]:
    """The chunks: split, number within the split, rows."""
    missing = [name for name in arguments.splits if name not in table]
    if missing:
        raise UserError(f"{arguments.photos} has no split {missing[0]}; it has {', '.join(table)}")
    chunks = []
    for split in arguments.splits or tuple(table):
        count = min(len(table[split]), arguments.limit or len(table[split]))
        starts = range(0, count, arguments.chunk)
        chunks += [
            (split, number, range(start, min(start + arguments.chunk, count)))
            for number, start in enumerate(starts)
        ]
    return chunks


def stylize(arguments: StylizeArguments, out: Path) -> list[str]:
    """Make all pairs that are not there yet.

    Returns:
        One line for each picture that could not be read, and was skipped; on every process.
    """
    # Without an accelerator accelerate joins the processes only where it is told of the CPU.
    state = PartialState(cpu=not torch.accelerator.is_available())
    table = open_photos(arguments.photos)
    disable_progress_bars()  # datasets draws one for each file, over that of the run
    chunks = plan(table, arguments)
    maker = PairMaker(arguments, state.device)
    with state.main_process_first():
        claim(out, "stylize.json", arguments, "pairs", row_counts(table))
    turns = [partial(arguments.misalignment, variant) for variant in range(arguments.variants)]
    targets, tasks, photos = [], [], 0
    for split, number, rows in chunks[state.process_index :: state.num_processes]:
        target = out / f"{split}-{number:05d}.parquet"
        targets.append(target)
        if not target.exists():
            tasks.append(partial(read_chunk, table[split], split, rows, target, turns))
            photos += len(rows)
    with (
        tqdm(total=photos, unit="photo", disable=not state.is_local_main_process) as bar,
        ThreadPoolExecutor(2) as pool,
    ):
        _make_files(maker, tasks, pool, bar)
    reports = [path for path in map(skipped_file, targets) if path.exists()]
    skipped: list[str] = gather_object(
        [line for path in reports for line in path.read_text().splitlines()]
    )
    if state.is_main_process:
        for line in skipped:
            tqdm.write(f"skipped {line}", file=sys.stderr)
    return skipped


def _make_files(
    maker: PairMaker, tasks: Sequence[Callable[[], Chunk]], pool: ThreadPoolExecutor, bar: tqdm
) -> None:
    """Paint chunk after chunk.

    On an accelerator the next one is read and the last one is written beside the network.
    """
    writing: Future[None] | None = None
    for chunk in one_ahead(tasks, pool) if maker.overlaps else (task() for task in tasks):
        photos = [pool.submit(encode_png, photo.picture) for photo in chunk.photos]
        portraits = maker.paint(chunk, pool)
        if writing:
            writing.result()  # no more than two chunks are in memory
        writing = pool.submit(write_chunk, chunk, portraits, photos)
        if not maker.overlaps:
            writing.result()
        bar.update(len(chunk.photos) + len(chunk.broken))
    if writing:
        writing.result()


@one_line_errors
def main(argv: list[str] | None = None) -> int:
    """Entry point; returns the exit code: 0, 1 where pictures were skipped, 2 on bad arguments."""
    given = _parser().parse_args(argv)
    keep_freed_memory()
    try:
        arguments = _arguments(given)
        if given.push_to_hub:
            # Before the work, not after it.
            check_may_share(given.photos, given.licence, given.push_to_hub)
        skipped = stylize(arguments, given.out)
        if given.push_to_hub:
            # The others wait: one that ends with code 1 would make torchrun end the upload.
            with PartialState().main_process_first():
                if PartialState().is_main_process:
                    push_pairs(given.out, given.push_to_hub, given.photos, given.licence)
    finally:
        # The threads of an open process group abort a process that ends.
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
    return 1 if skipped else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--photos", required=True, help="folder, parquet folder or Hub id")
    parser.add_argument(
        "--style",
        action="append",
        default=[],
        metavar="NAME=WEIGHTS",
        help="published name, folder, Hub id or file; FILE@VECTORS#KEY of one for many styles",
    )
    parser.add_argument(
        "--each", type=int, default=0, help="paint each photo in so many styles, drawn; 0 for all"
    )
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--split", action="append", default=[], help="all where none is given")
    parser.add_argument(
        "--variants",
        type=int,
        help="portraits of each photo and style, 1 where it is not given; the second on have\n"
        "strokes turned and scaled, or scaled alone with --turns",
    )
    parser.add_argument(
        "--turns",
        action="store_true",
        help="turn, shift and scale each photo anew for each variant, then stylize it",
    )
    parser.add_argument(
        "--angles",
        metavar="0,15,30,45",
        help="as --turns, but one variant for each of these angles, to either side; plain strokes",
    )
    parser.add_argument("--limit", type=int, default=0, help="photos of each split; 0 for all")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--push-to-hub", metavar="ORG/NAME")
    parser.add_argument("--licence", help="of the photos: needed to push")
    return parser


def _arguments(given: argparse.Namespace) -> StylizeArguments:
    styles = dict(_named(text) for text in given.style)
    if not styles:
        raise UserError("give at least one --style NAME=WEIGHTS")
    angles = () if given.angles is None else _angles(given.angles)
    if angles and given.variants is not None:
        raise UserError("--angles makes a variant for each angle: leave --variants out")
    variants = len(angles) or (1 if given.variants is None else given.variants)
    if variants < 1 or given.batch_size < 1 or given.limit < 0:
        raise UserError("--variants and --batch-size start at 1, --limit at 0")
    if not 0 <= given.each <= len(styles):
        raise UserError(f"--each {given.each}: there are {len(styles)} styles")
    return StylizeArguments(
        given.photos,
        styles,
        tuple(given.split),
        variants,
        given.limit,
        seed=given.seed,
        precision=given.precision,
        batch_size=given.batch_size,
        misalign=given.turns or bool(angles),
        angles=angles,
        each=given.each,
    )


def _named(text: str) -> tuple[str, str]:
    name, separator, source = text.partition("=")
    if not separator or not name or not source:
        raise UserError(f"--style {text}: write NAME=WEIGHTS")
    return name, source


def _angles(text: str) -> tuple[float, ...]:
    try:
        angles = tuple(float(part) for part in text.split(","))
    except ValueError:
        angles = ()
    if not angles or not all(0 <= angle <= 180 for angle in angles):
        raise UserError(f"--angles {text}: write degrees from 0 to 180, with commas between")
    return angles


if __name__ == "__main__":
    sys.exit(main())
