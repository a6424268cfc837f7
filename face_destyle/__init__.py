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
        AFRP,
        FDNN,
        IFRP,
        TANN,
        AFRPConfig,
        AFRPDiscriminator,
        AFRPDiscriminatorConfig,
        AttributeClassifier,
        AttributeClassifierConfig,
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
        TANNConfig,
        TANNDiscriminator,
        TANNDiscriminatorConfig,
    )
    from face_destyle.recovery import FaceRecovery, RecoveredFace, Recovery

__all__ = [
    "AFRP",
    "AFRPConfig",
    "AFRPDiscriminator",
    "AFRPDiscriminatorConfig",
    "AttributeClassifier",
    "AttributeClassifierConfig",
    "FDNN",
    "FDNNConfig",
    "FDNNDiscriminator",
    "FDNNDiscriminatorConfig",
    "FaceModel",
    "FaceRecovery",
    "HubModel",
    "IFRP",
    "IFRPConfig",
    "IFRPDiscriminator",
    "PictureError",
    "Recovered",
    "RecoveredFace",
    "Recovery",
    "Stylizer",
    "StylizerConfig",
    "TANN",
    "TANNConfig",
    "TANNDiscriminator",
    "TANNDiscriminatorConfig",
    "UserError",
    "WeightsError",
    "__version__",
]


_OF_RECOVERY = {"FaceRecovery", "RecoveredFace", "Recovery"}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = "face_destyle.recovery" if name in _OF_RECOVERY else "face_destyle.models"
    value: object = getattr(importlib.import_module(module), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
