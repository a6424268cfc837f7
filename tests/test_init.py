"""The package itself: every name is there, and none is paid for before it is used."""

import subprocess
import sys
from pathlib import Path

import pytest

import face_destyle

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("name", face_destyle.__all__)
def test_every_public_name(name: str) -> None:
    value = getattr(face_destyle, name)
    assert value == face_destyle.__version__ or value.__name__ == name
    assert name in dir(face_destyle)


def test_an_unknown_name() -> None:
    with pytest.raises(AttributeError, match="'face_destyle' has no attribute 'FDN'"):
        face_destyle.FDN  # noqa: B018


@pytest.mark.parametrize(
    ("statement", "brought"),
    [
        ("import face_destyle", "False"),
        ("from face_destyle import UserError, cli", "False"),
        ("from face_destyle import FDNN", "True"),
    ],
)
def test_torch_comes_with_the_first_network(statement: str, brought: str) -> None:
    code = f"{statement}\nimport sys; print('torch' in sys.modules)"
    command = [sys.executable, "-c", code]
    run = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    assert run.stdout.strip() == brought
