"""A folder of portraits in, a folder of photos out: the same names, and a line about each.

What is there already is left out, so that a run that was stopped goes on where it was.
"""

import json
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Generic, Literal, TextIO, TypeVar

from PIL import Image

from face_destyle import images
from face_destyle.errors import UserError

Read = TypeVar("Read")

RECORDS = "results.jsonl"
SUFFIXES = {".avif", ".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"}
REPORT_EVERY = 10.0  # seconds, where nobody watches a line that changes


@dataclass(frozen=True)
class Record:
    """A line of results.jsonl.

    Attributes:
        file: the portrait, in the input folder.
        status: skipped is what was there before, without a line of its own.
        seconds: a picture's share of what its batch took.
        weights: what recovered it.
        output: the photo, in the output folder.
        options: of the command line, where they change the photo.
        error: why it failed, in one line.
    """

    file: str
    status: Literal["done", "failed", "skipped"]
    seconds: float
    weights: str
    output: str = ""
    options: str = ""
    error: str = ""


@dataclass(frozen=True)
class Summary:
    """What became of a folder.

    Attributes:
        recovered: how many photos were written.
        present: how many were there before, and stay as they are.
        failed: the portraits that have no photo.
        seconds: how long it took.
    """

    recovered: int
    present: int
    failed: tuple[Record, ...]
    seconds: float


@dataclass(frozen=True)
class Recoverer(Generic[Read]):
    """How portraits become photos.

    Attributes:
        read: from a file; a UserError says that this one cannot be.
        recover: several of them at a time; a UserError is true of each of them.
        weights: the name that the PNGs say.
        options: as in `Record`.
        batch_size: how many at a time.
    """

    read: Callable[[Path], Read]
    recover: Callable[[Sequence[Read]], Sequence[Image.Image]]
    weights: str
    options: str = ""
    batch_size: int = 16


def find_portraits(source: Path, output: Path) -> dict[str, str]:
    """The pictures of a folder and its sub-folders, by name, and the names of their photos.

    A photo keeps the name of its portrait but for .png; where two of them would have the same,
    .png is appended. Hidden files, files that are no pictures by their names, and what lies in
    the output folder are left out.
    """
    found = []
    for folder, inner, files in os.walk(source):
        inner[:] = [
            name
            for name in inner
            if not name.startswith(".") and not _same(Path(folder, name), output)
        ]
        found += [
            Path(folder, name).relative_to(source)
            for name in files
            if not name.startswith(".") and Path(name).suffix.lower() in SUFFIXES
        ]
    portraits = sorted(path.as_posix() for path in found)
    short = {name: Path(name).with_suffix(".png").as_posix() for name in portraits}
    # Two names that differ in case alone are one on some systems.
    claims = Counter(name.casefold() for name in short.values())
    claims += Counter(f"{name}.png".casefold() for name in portraits)
    return {
        name: photo if claims[photo.casefold()] == 1 else f"{name}.png"
        for name, photo in short.items()
    }


def recover_folder(
    source: Path,
    output: Path,
    recoverer: Recoverer[Any],
    overwrite: bool = False,
    stream: TextIO | None = None,
) -> Summary:
    """Recover all portraits of a folder that have no photo in the output folder yet.

    A picture that cannot be recovered does not stop the others. `results.jsonl` in the output
    folder has a line about each; it grows with every batch.

    Args:
        source: the folder of portraits.
        output: the folder of photos, made where it does not exist.
        recoverer: how portraits become photos.
        overwrite: recover those too that have a photo.
        stream: where progress is told; nowhere where None.

    Raises:
        UserError: no portraits, an output folder that cannot be written to, or one that holds the
            results of other weights or options while `overwrite` is False.
    """
    if _same(source, output):
        raise UserError(f"{output} is the folder of the portraits: choose another for the photos")
    portraits = find_portraits(source, output)
    if not portraits:
        raise UserError(f"{source} has no pictures: give a folder of portraits")
    records = read_records(output / RECORDS)
    if not overwrite:
        _check_same(records.values(), recoverer, output)
    present = {
        name for name, photo in portraits.items() if not overwrite and (output / photo).exists()
    }
    for name in present:
        if name not in records or records[name].status == "failed":
            records[name] = Record(name, "skipped", 0.0, recoverer.weights, portraits[name])
    todo = [name for name in portraits if name not in present]
    failed: list[Record] = []
    progress = Progress(len(todo), stream)
    with _opened(output, records) as lines:
        for start in range(0, len(todo), recoverer.batch_size):
            names = todo[start : start + recoverer.batch_size]
            for record in _recover_batch(names, portraits, source, output, recoverer, overwrite):
                lines.write(_line(record))
                records[record.file] = record
                failed += [record] if record.status == "failed" else []
            lines.flush()
            progress.advance(len(names))
    _write_records(output / RECORDS, records)
    seconds = progress.close()
    return Summary(len(todo) - len(failed), len(present), tuple(failed), seconds)


def _recover_batch(
    names: Sequence[str],
    portraits: dict[str, str],
    source: Path,
    output: Path,
    recoverer: Recoverer[Any],
    overwrite: bool,
) -> list[Record]:
    started = time.perf_counter()
    read: dict[str, Any] = {}
    errors: dict[str, UserError] = {}
    for name in names:
        try:
            read[name] = recoverer.read(source / name)
        except UserError as error:
            errors[name] = error
    try:
        photos = recoverer.recover(list(read.values())) if read else []
        recovered = dict(zip(read, photos, strict=True))
    except UserError as error:
        recovered = {}
        errors |= dict.fromkeys(read, error)
    for name, photo in recovered.items():
        try:
            _save(photo, output / portraits[name], recoverer.weights, overwrite)
        except UserError as error:
            errors[name] = error
    seconds = round((time.perf_counter() - started) / len(names), 4)
    done = Record("", "done", seconds, recoverer.weights, options=recoverer.options)
    return [
        replace(done, file=name, status="failed", error=" ".join(str(errors[name]).split()))
        if name in errors
        else replace(done, file=name, output=portraits[name])
        for name in names
    ]


def _save(photo: Image.Image, path: Path, weights: str, overwrite: bool) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror or error}") from error
    images.save_png(photo, path, weights, overwrite)


def read_records(path: Path) -> dict[str, Record]:
    """The lines of a results.jsonl by file, the last of each; none where it does not exist.

    A last line that was cut off, by a run that was killed, is left out.

    Raises:
        UserError: it cannot be read, or is another program's.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read: move it away, or choose another folder") from error
    records = {}
    for number, line in enumerate(lines, 1):
        try:
            record = Record(**json.loads(line))
        except (ValueError, TypeError) as error:
            if number == len(lines):
                break
            raise UserError(
                f"line {number} of {path} is no record of a photo: move the file away, or choose "
                "another folder"
            ) from error
        records[record.file] = record
    return records


def _check_same(records: Iterable[Record], recoverer: Recoverer[Any], output: Path) -> None:
    """Refuse to mix the results of two networks in one folder."""
    for record in records:
        if record.status != "done" or not (output / record.output).exists():
            continue
        if (record.weights, record.options) != (recoverer.weights, recoverer.options):
            made = f"{record.weights} {record.options}".strip()
            raise UserError(
                f"{output} holds results of {made}: choose another folder, or allow overwriting"
            )


def _opened(output: Path, records: dict[str, Record]) -> TextIO:
    """The file of the records, to go on with; it has the earlier ones, each in a line of its own.

    A line that was cut off is gone: what is added would continue it.
    """
    path = output / RECORDS
    try:
        output.mkdir(exist_ok=True)
        _write_records(path, records)
        return path.open("a", encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror or error}") from error


def _write_records(path: Path, records: dict[str, Record]) -> None:
    partial = path.with_name(f"{path.name}.partial")
    try:
        lines = [_line(records[name]) for name in sorted(records)]
        partial.write_text("".join(lines), encoding="utf-8")
        os.replace(partial, path)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror or error}") from error
    finally:
        partial.unlink(missing_ok=True)


def _line(record: Record) -> str:
    fields = {name: value for name, value in asdict(record).items() if value != ""}
    return json.dumps(fields, ensure_ascii=False) + "\n"


def _same(first: Path, second: Path) -> bool:
    return os.path.realpath(first) == os.path.realpath(second)


class Progress:
    """How far a run is and how fast: one line that changes on a terminal, else one in a while.

    Args:
        total: how many pictures there are.
        stream: where it is told; nowhere where None.
    """

    def __init__(self, total: int, stream: TextIO | None):
        self.total, self.stream = total, stream
        self.started = self.told = time.perf_counter()
        self.count = 0

    def advance(self, count: int) -> None:
        """So many more are done with."""
        self.count += count
        now = time.perf_counter()
        if self.stream is None:
            return
        if self.stream.isatty():
            self.stream.write(f"\r\033[K{self.text(now)}")
        elif now - self.told >= REPORT_EVERY:
            self.stream.write(f"{self.text(now)}\n")
            self.told = now
        self.stream.flush()

    def close(self) -> float:
        """Leave the line to what comes next; return the seconds that it all took."""
        if self.stream is not None and self.stream.isatty():
            self.stream.write("\r\033[K")
        return time.perf_counter() - self.started

    def text(self, now: float) -> str:
        """Count, rate and the time that is left."""
        rate = self.count / max(now - self.started, 1e-6)
        left = round((self.total - self.count) / rate) if self.count else 0
        return (
            f"{self.count} of {self.total} pictures, {rate:.1f} a second, "
            f"{left // 60}:{left % 60:02} left"
        )
