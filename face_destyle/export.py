"""Networks in the exchange format ONNX, for runtimes other than torch."""

import copy
import importlib
import logging
from pathlib import Path
from typing import cast

import torch
from torch import nn

from face_destyle.errors import UserError
from face_destyle.models.base import FaceModel

INPUT, OUTPUT = "portraits", "photo"
MODULES = ("onnx", "onnxscript")


class PhotoOnly(nn.Module):
    """A recovery network that gives its photo alone: a graph has tensors for results."""

    def __init__(self, model: FaceModel):
        super().__init__()
        self.model = model

    def forward(self, portraits: torch.Tensor) -> torch.Tensor:
        """Photos of the same form as `FaceModel.forward`."""
        return cast(torch.Tensor, self.model(portraits).photo)


def to_onnx(model: FaceModel, path: str | Path) -> Path:
    """Write a recovery network as one ONNX file, with a free batch size.

    The graph maps `portraits` `(N, 3, S, S)` in [-1, 1] to `photo` `(N, 3, S, S)`, clamped to the
    same range. The network is left in the mode that it was in.

    Args:
        model: the network, on the CPU.
        path: the file to write; replaced where it exists.

    Raises:
        UserError: the extra `onnx` is not installed, or the file cannot be written.

    Example:

    ```python
    from face_destyle import FDNN
    from face_destyle.export import to_onnx
    to_onnx(FDNN.from_pretrained("fdnn"), "fdnn.onnx")
    ```
    """
    _require_onnx()
    path = Path(path)
    if not path.parent.is_dir():
        raise UserError(f"{path} cannot be written: {path.parent} is no folder")
    side = model.input_size
    # Two pictures: of a batch of one the exporter would make a constant.
    portraits = torch.zeros(2, 3, side, side, dtype=next(model.parameters()).dtype)
    program = torch.onnx.export(
        PhotoOnly(_with_instance_norms(model)).eval(),
        (portraits,),
        input_names=[INPUT],
        output_names=[OUTPUT],
        dynamic_shapes=({0: torch.export.Dim("batch", min=1)},),
        dynamo=True,
        verbose=False,
    )
    if program is None:
        raise RuntimeError("the exporter of torch returned no program")
    try:
        program.save(path)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror or error}") from error
    return path


def _with_instance_norms(model: FaceModel) -> FaceModel:
    """A copy whose normalizations of one channel a group are ONNX's own InstanceNormalization.

    A group normalization becomes five operations, two of which go over the whole feature map.
    """
    model = copy.deepcopy(model)
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.GroupNorm) and child.num_groups == child.num_channels:
                norm = nn.InstanceNorm2d(child.num_channels, child.eps, affine=True)
                norm.load_state_dict(child.state_dict())
                setattr(module, name, norm.to(child.weight))
    return model


def _require_onnx() -> None:
    for name in MODULES:
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise UserError(f"the export needs {name}: pip install 'face-destyle[onnx]'") from error
    # The exporter reports on every operator of torchvision that it does not find.
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
