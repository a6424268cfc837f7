"""Make training pairs: photos x style networks -> portraits, as a `datasets` dataset.

    python -m train.stylize --photos PHOTOS --out PAIRS \
        --style the_scream=johnson_the_scream.safetensors --style candy=CANDY

The work is cut into chunks of photos; a chunk is one parquet file, complete or absent, so a
killed run goes on where it was. Under `torchrun` or `accelerate launch` the processes share the
chunks; the result does not depend on how many there are.
"""

import argparse
import hashlib
import io
import json
import os
import random
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from datasets import Dataset, DatasetDict, Features, Image, Value, disable_progress_bars
from PIL import Image as PILImage
from safetensors import safe_open
from torch.nn import functional as F
from tqdm import tqdm

from face_destyle import Stylizer, StylizerConfig, images
from face_destyle.errors import UserError
from face_destyle.models.base import load_weights
from train.console import one_line_errors
from train.photos import Photo, attribute_names, open_photos, read_photos
from train.publish import check_may_share, push_pairs

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


def load_stylizer(source: str, style: str) -> Stylizer:
    """A style network by published name, folder or Hub id; or a bare file of Johnson's layout.

    Raises:
        UserError: not to be found, or other layers.
    """
    if not Path(source).is_file():
        return Stylizer.from_pretrained(source)
    with safe_open(source, "pt") as file:
        if "conv1.weight" not in file.keys():  # noqa: SIM118  # it is no mapping
            raise UserError(f"{source} holds no style network in the layout of Johnson et al.")
        width = file.get_slice("conv1.weight").get_shape()[0]
    network = Stylizer(StylizerConfig(width=width, style=style))
    load_weights(network, Path(source))
    return network.eval()


@torch.inference_mode()
def stylize_batch(
    network: Stylizer, photos: torch.Tensor, stroke: Stroke, bf16: bool = False
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
    """Turns photos into rows of pairs on one device."""

    def __init__(self, arguments: StylizeArguments, device: torch.device):
        self.arguments = arguments
        self.device = device
        self.networks = {
            style: load_stylizer(source, style).to(device)
            for style, source in arguments.styles.items()
        }

    def rows(
        self, photos: list[Photo], split: str, pool: ThreadPoolExecutor
    ) -> Iterator[dict[str, Any]]:
        """One row for each photo, style and variant, in this order.

        The PNGs are encoded in `pool` while the network works on the next batch.
        """
        if not photos:
            return
        batch = images.to_tensor([photo.picture for photo in photos], images.FACE_SIDE)
        batch = batch.to(self.device)
        encoded = list(pool.map(_png, (photo.picture for photo in photos)))
        portraits: dict[tuple[int, str, int], Any] = {}
        for style, network in self.networks.items():
            for variant in range(self.arguments.variants):
                for members, stroke in self._groups(photos, style, variant):
                    painted = self._paint(network, batch[members], stroke)
                    for member, pixels in zip(members, painted, strict=True):
                        future = pool.submit(_png, PILImage.fromarray(pixels))
                        portraits[member, style, variant] = future
        for index, photo in enumerate(photos):
            for style in self.networks:
                for variant in range(self.arguments.variants):
                    yield {
                        "portrait": {"bytes": portraits[index, style, variant].result()},
                        "photo": {"bytes": encoded[index]},
                        "style": style,
                        "identity": photo.identity,
                        "attributes": photo.attributes,
                        "split": split,
                        "photo_key": photo.key,
                        "variant": variant,
                    }

    def _groups(
        self, photos: list[Photo], style: str, variant: int
    ) -> list[tuple[list[int], Stroke]]:
        """Photos of the same stroke, in batches: one call of the network each."""
        by_stroke: dict[Stroke, list[int]] = {}
        for index, photo in enumerate(photos):
            stroke = draw_stroke(self.arguments.seed, photo.key, style, variant)
            by_stroke.setdefault(stroke, []).append(index)
        size = self.arguments.batch_size
        return [
            (members[start : start + size], stroke)
            for stroke, members in by_stroke.items()
            for start in range(0, len(members), size)
        ]

    def _paint(self, network: Stylizer, photos: torch.Tensor, stroke: Stroke) -> np.ndarray:
        painted = stylize_batch(network, photos, stroke, self.arguments.precision == "bf16")
        return images.to_uint8(painted).permute(0, 2, 3, 1).cpu().numpy()


def _png(picture: PILImage.Image) -> bytes:
    buffer = io.BytesIO()
    # The fastest level: the files are a tenth larger and written in a third of the time.
    picture.save(buffer, format="PNG", compress_level=1)
    return buffer.getvalue()


def features(attributes: list[str]) -> Features:
    """The columns of a pair dataset."""
    return Features(
        {
            "portrait": Image(),
            "photo": Image(),
            "style": Value("string"),
            "identity": Value("string"),
            "attributes": {name: Value("bool") for name in attributes or ["unknown"]},
            "split": Value("string"),
            "photo_key": Value("string"),
            "variant": Value("int32"),
        }
    )


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


def claim(out: Path, arguments: StylizeArguments) -> None:
    """Write down what the folder is for, or check that it is for the same.

    Raises:
        UserError: the folder holds something else.
    """
    description = json.dumps(asdict(arguments), indent=2)
    path = out / "stylize.json"
    if path.is_file():
        if path.read_text() != description:
            raise UserError(f"{out} holds pairs of another run (see {path}): choose another --out")
        return
    try:
        if out.exists() and any(out.iterdir()):
            raise UserError(f"{out} is not empty and holds no pairs: choose another --out")
        out.mkdir(parents=True, exist_ok=True)
        path.write_text(description)
    except OSError as error:
        raise UserError(f"{out} cannot be written: {error.strerror}") from error


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
        claim(out, arguments)
    skipped: list[str] = []
    mine = chunks[state.process_index :: state.num_processes]
    photos = sum(len(rows) for _, _, rows in mine)
    with (
        tqdm(total=photos, unit="photo", disable=not state.is_local_main_process) as bar,
        ThreadPoolExecutor(2) as pool,
    ):
        for split, number, rows in mine:
            target = out / f"{split}-{number:05d}.parquet"
            if not target.exists():
                _write_chunk(maker, table[split], split, rows, target, pool)
            if _skipped(target).exists():
                skipped += _skipped(target).read_text().splitlines()
            bar.update(len(rows))
    skipped = gather_object(skipped)
    if state.is_main_process:
        for line in skipped:
            tqdm.write(f"skipped {line}", file=sys.stderr)
    return skipped


def _write_chunk(
    maker: PairMaker,
    dataset: Dataset,
    split: str,
    rows: range,
    target: Path,
    pool: ThreadPoolExecutor,
) -> None:
    read = list(read_photos(dataset, split, rows))
    photos = [item for item in read if isinstance(item, Photo)]
    columns = features(attribute_names(dataset))
    rows_made = list(maker.rows(photos, split, pool))
    # Of no rows at all from_list would take no columns.
    by_column = {name: [row[name] for row in rows_made] for name in columns}
    pairs = Dataset.from_dict(by_column, features=columns)
    partial = target.with_suffix(".partial")
    pairs.to_parquet(str(partial))
    broken = [" ".join(str(item).split()) for item in read if not isinstance(item, Photo)]
    if broken:
        _skipped(target).write_text("\n".join(broken) + "\n")
    os.replace(partial, target)


def _skipped(target: Path) -> Path:
    """Where the broken pictures of a chunk are named, for a run that goes on to report too."""
    return target.with_suffix(".skipped")


@one_line_errors
def main(argv: list[str] | None = None) -> int:
    """Entry point; returns the exit code: 0, 1 where pictures were skipped, 2 on bad arguments."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--photos", required=True, help="folder, parquet folder or Hub id")
    parser.add_argument("--style", action="append", default=[], metavar="NAME=WEIGHTS")
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--split", action="append", default=[], help="all where none is given")
    parser.add_argument(
        "--variants",
        type=int,
        default=1,
        help="portraits of each photo and style; the second on have strokes turned and scaled",
    )
    parser.add_argument("--limit", type=int, default=0, help="photos of each split; 0 for all")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--push-to-hub", metavar="ORG/NAME")
    parser.add_argument("--licence", help="of the photos: needed to push")
    given = parser.parse_args(argv)
    try:
        styles = dict(_named(text) for text in given.style)
        if not styles:
            raise UserError("give at least one --style NAME=WEIGHTS")
        if given.variants < 1 or given.batch_size < 1 or given.limit < 0:
            raise UserError("--variants and --batch-size start at 1, --limit at 0")
        arguments = StylizeArguments(
            given.photos,
            styles,
            tuple(given.split),
            given.variants,
            given.limit,
            seed=given.seed,
            precision=given.precision,
            batch_size=given.batch_size,
        )
        if given.push_to_hub:
            check_may_share(given.photos, given.licence)  # before the work, not after it
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


def _named(text: str) -> tuple[str, str]:
    name, separator, source = text.partition("=")
    if not separator or not name or not source:
        raise UserError(f"--style {text}: write NAME=WEIGHTS")
    return name, source


if __name__ == "__main__":
    sys.exit(main())
