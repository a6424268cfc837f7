"""What make leaves behind where a step fails."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# As Debian's Python without python3-venv: it fails, and leaves a Python without pip.
HALF = """#!/bin/sh
if [ "$1" = -c ]; then exit 0; fi
mkdir -p "$3/bin"
touch "$3/bin/python"
exit 1
"""


@pytest.mark.skipif(os.name == "nt", reason="the Makefile is not for Windows")
def test_a_half_made_environment_is_not_taken_for_whole(tmp_path: Path) -> None:
    shutil.copy(ROOT / "Makefile", tmp_path)
    python = tmp_path / "half-python"
    python.write_text(HALF)
    python.chmod(0o755)
    for _ in range(2):
        made = subprocess.run(
            ["make", f"PYTHON={python}", ".venv/bin/python"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )
        assert made.returncode != 0
        assert "apt install python3-venv" in made.stdout
        assert not (tmp_path / ".venv").exists()
