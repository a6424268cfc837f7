"""Recovery networks that run in ONNX Runtime instead of torch."""

import copy
import hashlib
import os
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import nn

from face_destyle.attributes import UNKNOWN, Attributes, to_vector
from face_destyle.errors import UserError, WeightsError
from face_destyle.export import ALIGNMENT, ATTRIBUTES, INPUT, OUTPUT, to_onnx
from face_destyle.models.base import CONFIG_FILE, WEIGHTS_FILE, FaceModel, Recovered, find_file
from face_destyle.version import __version__

SUFFIX = ".onnx"
DOWNLOAD: dict[str, Any] = {"revision": None, "force_download": False}


class OnnxModel(FaceModel):
    """A recovery network in an ONNX file: it recovers portraits, and is neither trained nor saved.

    Args:
        path: a file that `export.to_onnx` wrote.

    Raises:
        UserError: the extra `onnx` is not installed.
        WeightsError: no such file, or one that holds no recovery network.
    """

    def __init__(self, path: str | Path):
        super().__init__()
        self.session = _session(Path(path))
        shapes = {entry.name: entry.shape for entry in self.session.get_inputs()}
        outputs = [entry.name for entry in self.session.get_outputs()]
        side = shapes.get(INPUT, [None])[-1]
        if not isinstance(side, int) or OUTPUT not in outputs:
            raise WeightsError(
                f"{path} holds no recovery network: write one with face-destyle export"
            )
        self.config = SimpleNamespace(image_size=side)
        self.path = path
        self.outputs = [name for name in (OUTPUT, ALIGNMENT) if name in outputs]
        # What a class says of its networks, a file says of the one in it.
        self.expects_aligned = ALIGNMENT not in outputs  # type: ignore[misc]
        self.wish = UNKNOWN if ATTRIBUTES in shapes else None
        # Portraits are put where the parameters of a network are, in their dtype.
        self.place = nn.Parameter(torch.zeros(()))
        self.eval()

    def forward(self, portraits: torch.Tensor) -> Recovered:
        """Recover photos.

        Args:
            portraits: `(N, 3, S, S)` in [-1, 1].

        Returns:
            `photo`, clamped to [-1, 1], and `alignment`, None where the file does not give it.

        Raises:
            ValueError: another shape.
        """
        self.check_input(portraits)
        values = {INPUT: portraits.numpy()}
        if self.wish is not None:
            values[ATTRIBUTES] = np.array([self.wish] * len(portraits), np.float32)
        results = self.session.run(self.outputs, values)
        return Recovered(*map(torch.from_numpy, results))

    def with_attributes(self, attributes: Attributes) -> "OnnxModel":
        """The same file with attributes set.

        Raises:
            UserError: its network takes none, or as in `attributes.to_vector`.
        """
        if self.wish is None:
            raise UserError(f"{self.path} takes no attributes: leave them out, or export an AFRP")
        model = copy.copy(self)
        model.wish = to_vector(attributes)
        return model

    def _save_pretrained(self, save_directory: Path) -> None:
        raise UserError("an ONNX file is not saved as weights: save the network that it is of")


def check_onnx_path(path: Path, overwrite: bool = False) -> None:
    """Raise a UserError where no ONNX file may be written to a path."""
    try:
        if path.suffix.lower() != SUFFIX:
            raise UserError(f"{path} must end in {SUFFIX}")
        if path.is_dir():
            raise UserError(f"{path} is a folder; give the name of a file")
        if path.exists() and not overwrite:
            raise UserError(f"{path} exists; choose another name or allow overwriting")
        if not path.parent.is_dir():
            raise UserError(f"{path} cannot be written: {path.parent} is no folder")
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror}") from error


def write_onnx(model: FaceModel, path: Path) -> None:
    """Export a network: the file is complete or not there.

    Raises:
        UserError: as in `export.to_onnx`.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        to_onnx(model, partial)
        os.replace(partial, path)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror or error}") from error
    finally:
        partial.unlink(missing_ok=True)


def exported(name: str) -> Path:
    """The ONNX file of a network, exported at the first call and then kept in the Hub's cache.

    Args:
        name: a published name, a folder, an id on the Hub, or an ONNX file.

    Raises:
        UserError: the extra `onnx` is not installed, or the cache cannot be written.
        WeightsError: nothing by that name.
    """
    if name.endswith(SUFFIX):
        return Path(name)
    from huggingface_hub import cached_assets_path

    key = hashlib.sha256(f"{__version__} {torch.__version__}".encode())
    for file in (CONFIG_FILE, WEIGHTS_FILE):
        key.update(find_file(name, file, None, DOWNLOAD).read_bytes())
    try:
        folder = cached_assets_path("face_destyle", namespace="onnx")
    except OSError as error:
        raise UserError(f"the cache cannot be written: {error}; set HF_HOME") from error
    path = folder / f"{key.hexdigest()[:32]}{SUFFIX}"
    if not path.is_file():
        sys.stderr.write(f"face-destyle: {name} is written as ONNX, which is done once\n")
        write_onnx(FaceModel.from_pretrained(name), path)
    return path


def _session(path: Path) -> Any:
    runtime = _onnxruntime()
    if not os.path.isfile(path):
        raise WeightsError(f"{path} does not exist: write it with face-destyle export")
    try:
        return runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    except Exception as error:  # the runtime has a class of its own for each kind of damage
        raise WeightsError(f"{path} is damaged or no ONNX file") from error


def _onnxruntime() -> ModuleType:
    try:
        import onnxruntime
    except ImportError as error:
        raise UserError(
            "this backend needs onnxruntime: pip install 'face-destyle[onnx]'"
        ) from error
    return onnxruntime  # type: ignore[no-any-return]
