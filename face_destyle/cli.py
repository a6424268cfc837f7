"""The command line: `face-destyle recover`, `list`, `info`.

What needs torch is imported inside the functions, so that the help appears at once.
"""

import argparse
import json
import logging
import sys
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

from face_destyle import published
from face_destyle.errors import UserError, WeightsError
from face_destyle.version import __version__

DEFAULT_MODEL = "fdnn"
EXIT_USER_ERROR = 2


class _Parser(argparse.ArgumentParser):
    """One line for a wrong command line too, as for every other error."""

    def error(self, message: str) -> NoReturn:
        self.exit(EXIT_USER_ERROR, f"{self.prog}: {message}; see {self.prog} --help\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        argv: the arguments; those of the process where None.

    Returns:
        The exit code: 0, or 2 where the user can put something right, which one line on stderr
        then says.
    """
    arguments = _parser().parse_args(argv)
    try:
        arguments.command(arguments)
    except UserError as error:
        one_line = " ".join(str(error).split())
        sys.stderr.write(f"face-destyle: {one_line}\n")
        return EXIT_USER_ERROR
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="face-destyle", description="Recover faces from stylized portraits.")
    parser.add_argument("--version", action="version", version=f"face-destyle {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    recover = commands.add_parser(
        "recover",
        help="recover the face of one portrait",
        description="Recover a face. The centre square of the portrait is taken as the face.",
    )
    recover.add_argument("input", type=Path, metavar="INPUT", help="the portrait: a picture file")
    recover.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="OUT.png",
        help="default: the name of the portrait with -recovered.png, in the current folder",
    )
    recover.add_argument(
        "--model",
        default=DEFAULT_MODEL,
        metavar="NAME",
        help=f"published name, folder or Hub id (default: {DEFAULT_MODEL})",
    )
    recover.add_argument("--overwrite", action="store_true", help="replace an existing OUT.png")
    recover.set_defaults(command=_recover)

    listing = commands.add_parser("list", help="list the published weights")
    listing.set_defaults(command=_list)

    info = commands.add_parser("info", help="say all that is known of published weights")
    info.add_argument("name", metavar="NAME", help="as in the list")
    info.set_defaults(command=_info)
    return parser


def _recover(arguments: argparse.Namespace) -> None:
    output = arguments.output or Path(f"{arguments.input.stem}-recovered.png")
    # PIL warns of oddities in files; those that matter are errors already.
    warnings.filterwarnings("ignore", module="PIL")
    from face_destyle import images
    from face_destyle.models import FaceModel

    # The Hub's client reports each of its retries; the one line at the end says what to do.
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    images.check_png_path(output, arguments.overwrite)  # before the work, not after it
    portrait = images.load_picture(arguments.input)
    photo = FaceModel.from_pretrained(arguments.model).recover(portrait)
    images.save_png(photo, output, _public_name(arguments.model), arguments.overwrite)
    sys.stdout.write(f"{output}\n")


def _public_name(model: str) -> str:
    """What the PNG says of the weights: of a folder its name only, not where it lies."""
    folder = Path(model)
    return folder.resolve().name if model not in published.WEIGHTS and folder.is_dir() else model


def _list(arguments: argparse.Namespace) -> None:
    rows = [("name", "licence", "size", "paper")]
    rows += [(row.name, row.licence, _size(row), row.paper) for row in published.WEIGHTS.values()]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        sys.stdout.write("  ".join(cells).rstrip() + "\n")


def _size(row: published.Published) -> str:
    path = row.folder() / "model.safetensors"
    return f"{path.stat().st_size / 1e6:.1f} MB" if path.is_file() else "on the Hub"


def _info(arguments: argparse.Namespace) -> None:
    row = published.WEIGHTS.get(arguments.name)
    if row is None:
        known = ", ".join(published.WEIGHTS)
        raise WeightsError(f"no published weights named {arguments.name}; known are {known}")
    config_path = row.folder() / "config.json"
    facts: dict[str, Any] = {
        "name": row.name,
        "paper": row.paper,
        "repo": f"https://huggingface.co/{row.repo_id}",
        "tag": row.tag,
        "licence": row.licence,
        "data": row.data,
        "size": _size(row),
        "sha256": row.sha256,
        "config": json.loads(config_path.read_text()) if config_path.is_file() else {},
        "figures": row.figures(),
    }
    for line in _lines(facts):
        sys.stdout.write(line + "\n")


def _lines(facts: dict[str, Any], indent: str = "") -> Iterator[str]:
    """`key: value` lines; a dictionary goes below its key, indented."""
    width = max(map(len, facts), default=0) + 1
    for key, value in facts.items():
        if isinstance(value, dict):
            yield f"{indent}{key}:" + ("" if value else " none")
            yield from _lines(value, indent + "  ")
        else:
            yield f"{indent}{f'{key}:':<{width}} {_text(value)}"


def _text(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return ", ".join(map(_text, value)) if isinstance(value, list) else str(value)
