"""A folder of portraits in, a folder of photos out: the same names, and a line about each.

What is there already is left out, so that a run that was stopped goes on where it was.
"""

import json
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Generic, Literal, TextIO, TypeVar

from PIL import Image

from face_destyle import images
from face_destyle.errors import UserError

Read = TypeVar("Read")

RECORDS = "results.jsonl"
START = '{"file": "'  # of each of its lines
SUFFIXES = {".avif", ".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"}
REPORT_EVERY = 10.0  # seconds, where nobody watches a line that changes


@dataclass(frozen=True)
class Record:
    """A line of results.jsonl.

    Attributes:
        file: the portrait, in the input folder.
        status: skipped is what was there before, without a line of its own.
        seconds: a picture's share of what its batch took.
        weights: what recovered it: the name, and the version where that does not say it.
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
        version: of the weights, where others may have the same name.
    """

    read: Callable[[Path], Read]
    recover: Callable[[Sequence[Read]], Sequence[Image.Image]]
    weights: str
    options: str = ""
    batch_size: int = 16
    version: str = ""

    @property
    def made_by(self) -> str:
        """What the records say of the weights."""
        return f"{self.weights} {self.version}".strip()


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
    folder has a line about each; it grows with every batch. Where the photo that a portrait would
    have is by that file another portrait's, .png is appended to its name.

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
    present: set[str] = set()
    if not overwrite:
        _check_same(records.values(), recoverer, output)
        owners = _owners(records.values(), output)
        portraits = _apart(portraits, owners)
        present = {
            name
            for name, photo in portraits.items()
            if (output / photo).exists() and owners.get(photo.casefold(), name) == name
        }
    for name in present:
        if name not in records or records[name].status == "failed":
            records[name] = Record(name, "skipped", 0.0, recoverer.made_by, portraits[name])
    todo = [name for name in portraits if name not in present]
    done: list[Record] = []
    progress = Progress(len(todo), stream)
    with _writing(output):
        output.mkdir(exist_ok=True)
    # Without a line that was cut off: what is added would continue it.
    _write_records(output / RECORDS, records.values())
    for start in range(0, len(todo), recoverer.batch_size):
        names = todo[start : start + recoverer.batch_size]
        batch = _recover_batch(names, portraits, source, output, recoverer, overwrite)
        _add_records(output / RECORDS, batch)
        done += batch
        progress.advance(len(names))
    _write_records(output / RECORDS, _together(records, done))
    seconds = progress.close()
    failed = tuple(record for record in done if record.status == "failed")
    return Summary(len(todo) - len(failed), len(present), failed, seconds)


def _owners(records: Iterable[Record], output: Path) -> dict[str, str]:
    """The portraits of the photos that are there, by the photos' names in lower case."""
    # What was only found there is whose it was done for, where that is known.
    known = sorted(records, key=lambda record: record.status == "done")
    return {
        record.output.casefold(): record.file
        for record in known
        if record.output and (output / record.output).exists()
    }


def _apart(portraits: dict[str, str], owners: dict[str, str]) -> dict[str, str]:
    """Another name for a photo where a portrait that is gone, or renamed, has that one."""
    return {
        name: photo if owners.get(photo.casefold(), name) == name else f"{name}.png"
        for name, photo in portraits.items()
    }


def _together(records: dict[str, Record], done: Sequence[Record]) -> list[Record]:
    """The records before and of this run, without those whose photo another's has replaced."""
    replaced = {record.output: record.file for record in done if record.output}
    together = records | {record.file: record for record in done}
    return [
        record
        for record in together.values()
        if replaced.get(record.output, record.file) == record.file
    ]


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
    done = Record("", "done", seconds, recoverer.made_by, options=recoverer.options)
    return [
        replace(done, file=name, status="failed", error=" ".join(str(errors[name]).split()))
        if name in errors
        else replace(done, file=name, output=portraits[name])
        for name in names
    ]


def _save(photo: Image.Image, path: Path, weights: str, overwrite: bool) -> None:
    with _writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    images.save_png(photo, path, weights, overwrite)


def read_records(path: Path) -> dict[str, Record]:
    """The lines of a results.jsonl by file, the last of each; none where it does not exist.

    A last line that was cut off, by a run that was killed or by a full disk, is left out.

    Raises:
        UserError: it cannot be read, or is another program's.
    """
    try:
        text = path.read_text(encoding="utf-8") if path.exists() else ""
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read: move it away, or choose another folder") from error
    *lines, last = text.split("\n")
    records = {}
    for number, line in enumerate([*lines, *([] if _cut_off(last) else [last])], 1):
        try:
            record = Record(**json.loads(line))
        except (ValueError, TypeError) as error:
            raise UserError(
                f"line {number} of {path} is no record of a photo: move the file away, or choose "
                "another folder"
            ) from error
        records[record.file] = record
    return records


def _cut_off(last: str) -> bool:
    """Whether what follows the last end of a line is nothing, or the beginning of a record."""
    if not (last.startswith(START) or START.startswith(last)):
        return False
    try:
        json.loads(last)
    except ValueError:
        return True
    return False


def _check_same(records: Iterable[Record], recoverer: Recoverer[Any], output: Path) -> None:
    """Refuse to mix the results of two networks in one folder."""
    for record in records:
        if record.status != "done" or not (output / record.output).exists():
            continue
        if (record.weights, record.options) != (recoverer.made_by, recoverer.options):
            made = f"{record.weights} {record.options}".strip()
            raise UserError(
                f"{output} holds results of {made}: choose another folder, or allow overwriting"
            )


def _write_records(path: Path, records: Iterable[Record]) -> None:
    partial = path.with_name(f"{path.name}.partial")
    lines = [_line(record) for record in sorted(records, key=lambda record: record.file)]
    with _writing(path):
        try:
            partial.write_text("".join(lines), encoding="utf-8")
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)


def _add_records(path: Path, records: Iterable[Record]) -> None:
    # Opened each time: a full disk may show as late as when the file is closed.
    with _writing(path), path.open("a", encoding="utf-8") as file:
        file.writelines(map(_line, records))


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror or error}") from error


def _line(record: Record) -> str:
    # In ASCII: a file's name may hold bytes that are no UTF-8, or what ends a line elsewhere.
    fields = {name: value for name, value in asdict(record).items() if value != ""}
    return json.dumps(fields) + "\n"


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
