"""Write the folder that is uploaded as a Space: `python -m spaces_app.bundle OUT`.

The Space runs the package from its source and the weights from `cards/`, as a checkout does, so
it needs neither a release of the package nor the Hub.
"""

import argparse
import os
import re
import shutil
import sys
from pathlib import Path

from face_destyle import UserError
from face_destyle.published import WEIGHTS

ROOT = Path(__file__).parents[1]
CODE = ("face_destyle", "spaces_app")
FILES = ("app.py", "LICENSE")
AT_ROOT = ("README.md", "requirements.txt")  # a Space looks for them there, not in spaces_app
OF_A_CARD = ("README.md", "config.json", "model.safetensors")
FIGURES = "metrics.json"  # says which styles the weights have seen; style networks have none
UNUSED = shutil.ignore_patterns("__pycache__", "*.pyc", ".*", "cards", *AT_ROOT)


def bundle(out: Path) -> None:
    """Write the folder, complete or not at all.

    Args:
        out: does not exist yet.

    Raises:
        UserError: it exists, cannot be written, or a file of published weights is missing.
    """
    if out.exists():
        raise UserError(f"{out} exists: give the name of a new folder")
    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        _fill(partial)
        os.replace(partial, out)
    except OSError as error:
        name = error.filename or out
        raise UserError(f"{out} cannot be written: {name}: {error.strerror}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _fill(folder: Path) -> None:
    for name in CODE:
        shutil.copytree(ROOT / name, folder / name, ignore=UNUSED)
    for name in FILES:
        shutil.copy(ROOT / name, folder / name)
    for row in WEIGHTS.values():
        card = folder / "cards" / row.name
        card.mkdir(parents=True)
        for name in OF_A_CARD:
            shutil.copy(row.folder() / name, card / name)
        if (row.folder() / FIGURES).is_file():
            shutil.copy(row.folder() / FIGURES, card / FIGURES)
    text = (ROOT / "spaces_app" / "README.md").read_text()
    (folder / "README.md").write_text(with_models(text))
    shutil.copy(ROOT / "spaces_app" / "requirements.txt", folder / "requirements.txt")


def with_models(readme: str) -> str:
    """The README with `models:` in its front matter: the weights that the table has."""
    models = "".join(f"  - {row.repo_id}\n" for row in WEIGHTS.values())
    return re.sub(r"^models:\n(?:  - .*\n)*", f"models:\n{models}", readme, count=1, flags=re.M)


def main(arguments: list[str] | None = None) -> int:
    """Run the command; the exit code is 2 where the folder cannot be written."""
    parser = argparse.ArgumentParser(prog="python -m spaces_app.bundle", description=__doc__)
    parser.add_argument("out", type=Path, metavar="OUT", help="a folder that does not exist yet")
    out: Path = parser.parse_args(arguments).out
    try:
        bundle(out)
    except UserError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    megabytes = sum(path.stat().st_size for path in out.rglob("*") if path.is_file()) / 1e6
    sys.stdout.write(f"{out}: {megabytes:.1f} MB; upload it with: hf upload --repo-type space ")
    sys.stdout.write(f"face-destyle/demo {out}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
