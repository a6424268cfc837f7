"""The networks: importing this package fills the registry that `from_pretrained` dispatches on."""

from face_destyle.models.afrp import (
    AFRP,
    AFRPConfig,
    AFRPDiscriminator,
    AFRPDiscriminatorConfig,
)
from face_destyle.models.base import FaceModel, HubModel, Recovered
from face_destyle.models.classifier import AttributeClassifier, AttributeClassifierConfig
from face_destyle.models.fdnn import (
    FDNN,
    FDNNConfig,
    FDNNDiscriminator,
    FDNNDiscriminatorConfig,
)
from face_destyle.models.ifrp import IFRP, IFRPConfig, IFRPDiscriminator
from face_destyle.models.stylizer import Stylizer, StylizerConfig
from face_destyle.models.tann import (
    TANN,
    TANNConfig,
    TANNDiscriminator,
    TANNDiscriminatorConfig,
)

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
    "HubModel",
    "IFRP",
    "IFRPConfig",
    "IFRPDiscriminator",
    "Recovered",
    "Stylizer",
    "StylizerConfig",
    "TANN",
    "TANNConfig",
    "TANNDiscriminator",
    "TANNDiscriminatorConfig",
]
