"""Recover photorealistic faces from stylized portraits.

The names below are imported on first use: `import face_destyle` and the help of the command line
do not wait for torch.
"""

import importlib
from typing import TYPE_CHECKING

from face_destyle.errors import PictureError, UserError, WeightsError
from face_destyle.version import __version__

if TYPE_CHECKING:
    from face_destyle.models import (
        FDNN,
        IFRP,
        FaceModel,
        FDNNConfig,
        FDNNDiscriminator,
        FDNNDiscriminatorConfig,
        HubModel,
        IFRPConfig,
        IFRPDiscriminator,
        Recovered,
        Stylizer,
        StylizerConfig,
    )

__all__ = [
    "FDNN",
    "FDNNConfig",
    "FDNNDiscriminator",
    "FDNNDiscriminatorConfig",
    "FaceModel",
    "HubModel",
    "IFRP",
    "IFRPConfig",
    "IFRPDiscriminator",
    "PictureError",
    "Recovered",
    "Stylizer",
    "StylizerConfig",
    "UserError",
    "WeightsError",
    "__version__",
]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(importlib.import_module("face_destyle.models"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
