"""Networks in the exchange format ONNX, for runtimes other than torch."""

import copy
import importlib
import logging
from pathlib import Path

import torch
from torch import nn

from face_destyle.attributes import COUNT
from face_destyle.errors import UserError
from face_destyle.models.base import FaceModel

INPUT, ATTRIBUTES = "portraits", "attributes"
OUTPUT, ALIGNMENT = "photo", "alignment"
MODULES = ("onnx", "onnxscript")


class Tensors(nn.Module):
    """A recovery network that gives tensors, as a graph does."""

    def __init__(self, model: FaceModel):
        super().__init__()
        self.model = model

    def forward(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Photos, and alignments where the network has them, from what it takes."""
        out = self.model(*inputs)
        return (out.photo,) if out.alignment is None else (out.photo, out.alignment)


def to_onnx(model: FaceModel, path: str | Path) -> Path:
    """Write a recovery network as one ONNX file, with a free batch size.

    The graph maps `portraits` `(N, 3, S, S)` in [-1, 1] to `photo` `(N, 3, S, S)`, clamped to the
    same range. Of a network that takes attributes it has a second input `attributes` `(N, 18)`,
    from 0 to 1, nan for unknown; of one that aligns a second output `alignment` `(N, 2, 3)`. The
    network is left in the mode that it was in.

    Args:
        model: the network, on the CPU; `AFRP.with_attributes` gives one without the second input.
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
    attributes = [torch.zeros(2, COUNT)] if model.takes_attributes else []
    inputs = (portraits, *attributes)
    network = Tensors(_with_instance_norms(model)).eval()
    with torch.inference_mode():
        outputs = len(network(*inputs))
    program = torch.onnx.export(
        network,
        inputs,
        input_names=[INPUT, ATTRIBUTES][: len(inputs)],
        output_names=[OUTPUT, ALIGNMENT][:outputs],
        dynamic_shapes=(tuple({0: torch.export.Dim("batch", min=1)} for _ in inputs),),
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
