"""`face-destyle recover`: one portrait, a whole picture, or a folder of either."""

import argparse
import functools
import hashlib
import logging
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from PIL import Image

from face_destyle import faces, images, published
from face_destyle.attributes import to_text, to_vector
from face_destyle.errors import PictureError, UserError
from face_destyle.folders import Recoverer, Summary, recover_folder
from face_destyle.models import FaceModel
from face_destyle.models.base import weights_file
from face_destyle.recovery import (
    FaceRecovery,
    Recovery,
    check_strength,
    read_portrait,
    recover_portraits,
    with_attributes,
)
from face_destyle.telling import tell

ONNX_SUFFIX = ".onnx"


def run(arguments: argparse.Namespace) -> int:
    """Recover what the command line names.

    Returns:
        0; 1 where some pictures of a folder were not recovered.

    Raises:
        UserError: something that the user can put right.
    """
    # PIL warns of oddities in files; those that matter are errors already.
    warnings.filterwarnings("ignore", module="PIL")
    # The Hub's client reports each of its retries; the one line at the end says what to do.
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    _check(arguments)
    if arguments.model is None:
        plain = arguments.attributes is None
        arguments.model = published.DEFAULT_MODEL if plain else published.GUIDED_MODEL
    # os.path answers False for a name that no file can have; Path raises.
    return (_folder if os.path.isdir(arguments.input) else _file)(arguments)


def _check(arguments: argparse.Namespace) -> None:
    check_strength(arguments.strength)
    if arguments.batch_size < 1:
        raise UserError(f"--batch-size must be 1 or more, not {arguments.batch_size}")
    if arguments.attributes is not None:
        to_vector(arguments.attributes)
    for option, given in (
        ("--finder", arguments.finder is not None),
        ("--no-match-colour", not arguments.match_colour),
    ):
        if given and not arguments.whole:
            raise UserError(f"{option} is for whole pictures: add --whole")


def _file(arguments: argparse.Namespace) -> int:
    output = arguments.output or Path(f"{arguments.input.stem}-recovered.png")
    images.check_png_path(output, arguments.overwrite)  # before the work, not after it
    recoverer = _recoverer(arguments)
    (recovered,) = recoverer.recover([recoverer.read(arguments.input)])
    images.save_png(recovered, output, recoverer.weights, arguments.overwrite)
    tell(output)
    return 0


def _folder(arguments: argparse.Namespace) -> int:
    source = arguments.input
    output = arguments.output or Path(f"{source.resolve().name}-recovered")
    if output.suffix.lower() == ".png" or (output.exists() and not output.is_dir()):
        raise PictureError(f"{source} is a folder: give the name of a folder for its photos too")
    if not output.resolve().parent.is_dir():
        raise PictureError(f"{output} cannot be written: {output.parent} is no folder")
    recoverer = replace(_recoverer(arguments), version=_version(arguments.model))
    summary = recover_folder(source, output, recoverer, arguments.overwrite, sys.stderr)
    _report(summary)
    tell(output)
    return 1 if summary.failed else 0


def _recoverer(arguments: argparse.Namespace) -> Recoverer[Any]:
    model = with_attributes(_load(arguments), arguments.attributes)
    weights, options = _public_name(arguments.model), _options(arguments)
    if not arguments.whole:
        return Recoverer(
            read=functools.partial(read_portrait, model=model),
            recover=functools.partial(recover_portraits, model, strength=arguments.strength),
            weights=weights,
            options=options,
            batch_size=arguments.batch_size,
        )
    recover = functools.partial(
        FaceRecovery(model, _finder(arguments)),
        strength=arguments.strength,
        match_colour=arguments.match_colour,
        batch_size=arguments.batch_size,
    )
    return Recoverer(
        read=lambda path: path,  # left to FaceRecovery, a picture is in memory once less
        recover=functools.partial(_whole_pictures, recover),
        weights=weights,
        options=options,
        batch_size=1,  # large pictures; what a batch gains is had by the faces of one
    )


def _finder(arguments: argparse.Namespace) -> faces.Finder:
    if arguments.finder is None:
        return faces.default_finder()
    return faces.with_cascades(faces.YuNetFinder(arguments.finder))


def _whole_pictures(
    recover: Callable[[Path], Recovery], paths: Sequence[Path]
) -> list[Image.Image]:
    results = []
    for path in paths:
        result = recover(path)
        if not result.faces:
            raise PictureError(
                f"no face was found in {path}: crop the face by hand and leave --whole out"
            )
        results.append(result.picture)
    return results


def _load(arguments: argparse.Namespace) -> FaceModel:
    if arguments.backend == "torch" and not arguments.model.endswith(ONNX_SUFFIX):
        return FaceModel.from_pretrained(arguments.model)
    from face_destyle.onnx_backend import OnnxModel, exported

    return OnnxModel(exported(arguments.model))


def _public_name(model: str) -> str:
    """What the PNG says of the weights: of a folder or file its name, not where it lies."""
    if model in published.WEIGHTS or not os.path.exists(model):
        return model
    return Path(model).resolve().name


def _version(model: str) -> str:
    """What tells two networks of one name apart; nothing of the published ones, which are one."""
    if model in published.WEIGHTS:
        return ""
    path = Path(model) if model.endswith(ONNX_SUFFIX) else weights_file(model)
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:8]


def _options(arguments: argparse.Namespace) -> str:
    """What changes a photo, as one would write it: photos of one folder have it in common."""
    words = ["--whole"] if arguments.whole else []
    if arguments.whole and not arguments.match_colour:
        words.append("--no-match-colour")
    if arguments.strength < 1:
        words.append(f"--strength {arguments.strength:g}")
    if arguments.attributes is not None and (wishes := to_text(arguments.attributes)):
        words.append(f"--attributes={wishes}")
    return " ".join(words)


def _report(summary: Summary) -> None:
    """What became of a folder, and what failed by name, on stderr."""
    rate = summary.recovered / max(summary.seconds, 1e-6)
    sys.stderr.write(
        f"face-destyle: {summary.recovered} recovered ({rate:.1f} a second), "
        f"{summary.present} there already, {len(summary.failed)} failed\n"
    )
    for record in summary.failed:
        sys.stderr.write(f"face-destyle: {record.error}\n")
