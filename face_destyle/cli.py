"""The command line: `face-destyle recover`, `export`, `list`, `info`.

What needs torch is imported inside the functions, so that the help appears at once.
"""

import argparse
import json
import logging
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

from face_destyle import published
from face_destyle.errors import UserError, WeightsError
from face_destyle.telling import tell
from face_destyle.version import __version__

EXIT_USER_ERROR = 2
EXIT_STOPPED = 130  # of a process that an interrupt ends


class _Parser(argparse.ArgumentParser):
    """One line for a wrong command line too, as for every other error."""

    def error(self, message: str) -> NoReturn:
        self.exit(EXIT_USER_ERROR, f"{self.prog}: {message}; see {self.prog} --help\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        argv: the arguments; those of the process where None.

    Returns:
        The exit code: 0; 1 where some pictures of a folder failed; 2 where the user can put
        something right, which one line on stderr then says; 130 where the user stopped it.
    """
    arguments = _parser().parse_args(argv)
    try:
        return int(arguments.command(arguments) or 0)
    except UserError as error:
        one_line = " ".join(str(error).split())
        sys.stderr.write(f"face-destyle: {one_line}\n")
        return EXIT_USER_ERROR
    except KeyboardInterrupt:
        sys.stderr.write("\nface-destyle: stopped\n")
        return EXIT_STOPPED


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="face-destyle", description="Recover faces from stylized portraits.")
    parser.add_argument("--version", action="version", version=f"face-destyle {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    _add_recover(commands)

    export = commands.add_parser(
        "export",
        help="write a network as ONNX",
        description="Write a recovery network as one ONNX file, with a free batch size.",
    )
    export.add_argument("model", metavar="MODEL", help="published name, folder or Hub id")
    export.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="OUT.onnx",
        help="default: the name of the network with .onnx, in the current folder",
    )
    export.add_argument("--overwrite", action="store_true", help="replace an existing OUT.onnx")
    export.set_defaults(command=_export)

    listing = commands.add_parser("list", help="list the published weights")
    listing.set_defaults(command=_list)

    info = commands.add_parser("info", help="say all that is known of published weights")
    info.add_argument("name", metavar="NAME", help="as in the list")
    info.set_defaults(command=_info)
    return parser


def _add_recover(commands: Any) -> None:
    recover = commands.add_parser(
        "recover",
        help="recover the face of a portrait, or of every portrait of a folder",
        description="Recover faces. The centre square of a portrait is taken as the face; with "
        "--whole all faces of a picture are found, recovered and pasted back.",
    )
    recover.add_argument(
        "input", type=Path, metavar="INPUT", help="a picture file, or a folder of them"
    )
    recover.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="OUT",
        help="a PNG file, or for a folder a folder, where photos keep the names of portraits and "
        "results.jsonl tells of each; default: the name of INPUT with -recovered, in the current "
        "folder",
    )
    recover.add_argument(
        "--model",
        metavar="NAME",
        help="published name, folder, Hub id or ONNX file (default: "
        f"{published.DEFAULT_MODEL}, with --attributes {published.GUIDED_MODEL})",
    )
    recover.add_argument(
        "--overwrite",
        action="store_true",
        help="replace what exists; of a folder, what is there is else left as it is",
    )
    recover.add_argument(
        "--strength",
        type=float,
        default=1.0,
        metavar="0..1",
        help="how much of the photo is shown over the portrait (default: %(default)s)",
    )
    recover.add_argument(
        "--attributes",
        metavar="TEXT",
        help="what the face shall have and, after a minus, not have: --attributes=Smiling,-Young",
    )
    recover.add_argument(
        "--batch-size",
        type=int,
        default=16,
        metavar="N",
        help="how many faces go through the network at a time (default: %(default)s)",
    )
    recover.add_argument(
        "--backend",
        choices=("torch", "onnx"),
        default="torch",
        help="what runs the network; onnx exports it once (default: %(default)s)",
    )
    whole = recover.add_argument_group("whole pictures")
    whole.add_argument("--whole", action="store_true", help="find the faces and paste them back")
    whole.add_argument(
        "--match-colour",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="give each face the light and tint of its surroundings (default: yes)",
    )
    whole.add_argument(
        "--finder",
        metavar="YUNET.onnx",
        help="the face detector's file (default: from the Hub or its cache)",
    )
    recover.set_defaults(command=_recover)


def _recover(arguments: argparse.Namespace) -> int:
    from face_destyle import recover_command

    return recover_command.run(arguments)


def _export(arguments: argparse.Namespace) -> None:
    from face_destyle.models import FaceModel
    from face_destyle.onnx_backend import check_onnx_path, write_onnx

    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    output = arguments.output or Path(f"{Path(arguments.model).name}.onnx")
    check_onnx_path(output, arguments.overwrite)  # before the work, not after it
    write_onnx(FaceModel.from_pretrained(arguments.model), output)
    tell(output)


def _list(arguments: argparse.Namespace) -> None:
    rows = [("name", "licence", "size", "paper")]
    rows += [(row.name, row.licence, _size(row), row.paper) for row in published.WEIGHTS.values()]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        tell("  ".join(cells).rstrip())


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
        tell(line)


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
