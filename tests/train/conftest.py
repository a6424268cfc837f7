"""What holds for the tests of training: only the commands' own lines on stderr."""

import datasets
import pytest
import torch
import yaml

from face_destyle import FDNN
from tests.train import made
from tests.train.evaluated import PEOPLE, SMALL


@pytest.fixture(autouse=True, scope="session")
def _no_bars_of_datasets() -> None:
    datasets.disable_progress_bars()


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Weights, pairs and embedding, by the name of their argument."""
    folder = tmp_path_factory.mktemp("parts")
    torch.manual_seed(0)
    FDNN(SMALL).save_pretrained(folder / "tiny")
    recipe = {"name": "tiny", "data": {"styles": ["negative"]}}
    (folder / "tiny" / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    return {
        "weights": str(folder / "tiny"),
        "data": str(made.pairs(folder / "pairs", count=PEOPLE, splits=("test",))),
        "embedding": str(made.face_embedding(folder / "face.safetensors")),
    }
