"""From a run to the Hub: float16 weights, card, upload, and the guard over pair datasets.

python -m train.publish pack --weights RUN/weights --name fdnn
python -m train.evaluate --weights cards/fdnn ... --out cards/fdnn/metrics.json
python -m train.publish card --name fdnn --beside "pix2pix=benchmarks/results/pix2pix.json"
python -m train.publish push fdnn --dry-run OUT
python -m train.publish push MY-MODEL --repo me/my-model --tag v1
"""

import argparse
import json
import os
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalTokenNotFoundError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

from face_destyle import HubModel
from face_destyle.errors import UserError
from face_destyle.models.base import CONFIG_FILE, WEIGHTS_FILE
from face_destyle.published import WEIGHTS, Published
from face_destyle.version import __version__
from train.card import OBEDIENCE_FILE, check_card, write_card
from train.console import one_line_errors
from train.frozen import sha256
from train.photos import load_table
from train.style import public_name

DISCRIMINATOR = "discriminator"
# What a repository of weights holds.
PUBLISHED = (
    "README.md",
    CONFIG_FILE,
    WEIGHTS_FILE,
    "metrics.json",
    OBEDIENCE_FILE,
    "recipe.yaml",
    f"{DISCRIMINATOR}/{CONFIG_FILE}",
    f"{DISCRIMINATOR}/{WEIGHTS_FILE}",
)
# httpx in huggingface_hub 1.x, httpx2 in 2.x: what it raises where the Hub is not reached.
HTTPError = cast(type[Exception], HfHubHTTPError.__mro__[1])
# The last is how hf_xet, which sends large files, says that it failed.
FAILURES = (HTTPError, OSError, HFValidationError, RuntimeError)
# Licences under which changed copies of a photo may be passed on.
FREE = (
    "cc0-1.0",
    "cc-by-2.0",
    "cc-by-3.0",
    "cc-by-4.0",
    "cc-by-sa-4.0",
    "pddl",
    "mit",
    "apache-2.0",
)
# Photo sets whose terms forbid passing on pictures made from them.
CLOSED = re.compile(r"\b(celeba\w*|aaf|all-age-faces|cfp|cufs|cuhk|rap3df|multi-?pie)\b")


def published_row(name: str) -> Published:
    """The row of the table of published weights.

    Raises:
        UserError: there is none.
    """
    if name not in WEIGHTS:
        raise UserError(f"{name} is not in face_destyle/published.py; it has {', '.join(WEIGHTS)}")
    return WEIGHTS[name]


def average(network: HubModel, others: list[Path]) -> HubModel:
    """The mean of the weights of a network and its earlier states; of none, the network itself.

    Between the state that the pixel loss led to and the one that the discriminator sharpened lies
    a network that is nearly as faithful as the first and nearly as sharp as the second (network
    interpolation: Wang et al., ESRGAN, 2018).

    Raises:
        UserError: another network.
    """
    if not others:
        return network
    states = [network.state_dict()]
    for folder in others:
        other = HubModel.from_pretrained(folder)
        if type(other) is not type(network) or other.config != network.config:
            raise UserError(f"{folder} holds another network: only states of one can be averaged")
        states.append(other.state_dict())
    # Counters, as batch normalisation has, have no mean: those of the network stay.
    means = {
        name: torch.stack([state[name] for state in states]).mean(0)
        for name, tensor in states[0].items()
        if tensor.is_floating_point()
    }
    network.load_state_dict(states[0] | means)
    return network


def pack(weights: Path, recipe: Path | None, folder: Path, others: list[Path]) -> str:
    """Write float16 copies of the networks in `weights` to `folder`; returns the sha256.

    `recipe` goes beside them; else the one that lies beside the weights. The generator is
    averaged with those in `others`.
    The mixin's stand-in README is taken away: the card is written by `card`.

    Raises:
        UserError: `weights`, or one of `others`, is no folder with weights; there is no `recipe`.
    """
    if recipe and not recipe.is_file():
        raise UserError(f"there is no recipe {recipe}")
    for source in (weights, *others):
        if not (source / WEIGHTS_FILE).is_file():
            raise UserError(f"{source} has no {WEIGHTS_FILE}: give the folder with a run's weights")
    for part in ("", "discriminator"):
        if not (weights / part).is_dir():
            continue
        network = HubModel.from_pretrained(weights / part)
        target = folder / part
        has_card = not part and (target / "README.md").is_file()
        if not part:
            network = average(network, others)
        network.to(torch.float16).save_pretrained(target)
        if not has_card:
            (target / "README.md").unlink()
    recipe = recipe or weights / "recipe.yaml"
    if recipe.is_file():
        shutil.copyfile(recipe, folder / "recipe.yaml")
    return sha256(folder / WEIGHTS_FILE)


def uploaded(folder: Path) -> list[str]:
    """The files of a packed network that go to the Hub, as paths within `folder`.

    Nothing else does, whatever lies beside them.

    Raises:
        UserError: no card, no network in it, or weights that are not those of the figures, or a
            card that has other figures.
    """
    for name, made_by in (("README.md", "card"), (CONFIG_FILE, "pack"), (WEIGHTS_FILE, "pack")):
        if not (folder / name).is_file():
            raise UserError(f"{folder} has no {name}: run train.publish {made_by} first")
    check_card(HubModel.from_pretrained(folder), folder)
    names = [name for name in PUBLISHED if (folder / name).is_file()]
    if (folder / DISCRIMINATOR).is_dir():
        HubModel.from_pretrained(folder, subfolder=DISCRIMINATOR)
    return names


def stage(folder: Path, out: Path) -> list[str]:
    """Write to `out` what `push` would upload, complete or not at all; returns the files.

    Raises:
        UserError: as `uploaded`, or `out` is there already.
    """
    names = uploaded(folder)
    if out.exists():
        raise UserError(f"{out} exists: choose another folder for --dry-run")
    partial = out.with_name(f"{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    for name in names:
        (partial / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(folder / name, partial / name)
    os.replace(partial, out)
    return names


@contextmanager
def hub_errors(repo_id: str, kept: str = "") -> Iterator[None]:
    """What stops an upload to `repo_id`, as one line; `kept` is added to it.

    Raises:
        UserError: the Hub refuses or is not reached, or the id is none.
    """
    try:
        yield
    except FAILURES as error:
        status = error.response.status_code if isinstance(error, HfHubHTTPError) else None
        if status in (401, 403) or isinstance(error, LocalTokenNotFoundError):
            said = (
                f"the Hub does not let you write to {repo_id}: log in by `hf auth login`, "
                "or set HF_TOKEN, with a token that may write there"
            )
        elif status:
            said = f"the Hub refuses {repo_id}: {first_line(error)}"
        elif isinstance(error, HFValidationError):
            said = f"{repo_id} is not uploaded, give another id: {first_line(error)}"
        else:
            said = f"{repo_id} is not uploaded, try again: {first_line(error)}"
        raise UserError(said + kept) from error


def first_line(error: Exception) -> str:
    """What an error says, or its name where it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def push(folder: Path, repo_id: str, tag: str | None) -> str:
    """Upload a packed network to the Hub as one commit, and tag that; returns its address.

    Raises:
        UserError: as `uploaded`; the tag is taken; the Hub refuses or is not reached. A tag that
            is taken is found out before anything is uploaded.
    """
    names, api = uploaded(folder), HfApi()
    with hub_errors(repo_id):
        api.create_repo(repo_id, exist_ok=True)
        if tag and tag in {ref.name for ref in api.list_repo_refs(repo_id).tags}:
            raise UserError(f"{repo_id} has a tag {tag} already: give another --tag")
        commit = api.upload_folder(
            repo_id=repo_id,
            folder_path=folder,
            allow_patterns=names,
            commit_message=f"face_destyle {__version__}: {tag or 'weights and card'}",
        )
        if tag:
            api.create_tag(repo_id, tag=tag, revision=commit.oid)
    return commit.commit_url


def push_target(
    name: str, cards: Path, repo: str | None, tag: str | None
) -> tuple[Path, str, str | None]:
    """Folder, repository and tag that `push NAME` means: a published name first, then a folder.

    Raises:
        UserError: neither, or nowhere to upload it to; or a published name whose weights are not
            those of the table.
    """
    if name in WEIGHTS:
        row, folder = WEIGHTS[name], cards / name
        path = folder / WEIGHTS_FILE
        if path.is_file() and sha256(path) != row.sha256:
            raise UserError(f"{path} is not the file of face_destyle/published.py: set its sha256")
        return folder, repo or row.repo_id, tag or row.tag
    folder = Path(name)
    if not folder.is_dir():
        raise UserError(f"{name} is neither a published name nor a folder with weights")
    if repo is None:
        raise UserError(f"say where {name} shall go: --repo ORG/NAME")
    return folder, repo, tag


def check_may_share(photos: str, licence: str | None, repo_id: str | None = None) -> None:
    """Whether portraits of these photos may be published, and, where it is given, at `repo_id`.

    Raises:
        UserError: the licence is not given, not a free one, or not that of the photos' own card;
            or the photos come from a set whose terms forbid it; or `repo_id` is no id, or nobody
            is logged in to the Hub.
    """
    if licence is None or licence.lower() not in FREE:
        raise UserError(
            f"the pairs are not uploaded: --licence is {licence}, and passing on changed photos "
            f"needs one of {', '.join(FREE)}"
        )
    if repo_id is not None:
        with hub_errors(repo_id):
            validate_repo_id(repo_id)
            HfApi().whoami()
    declared = own_licences(photos)
    if declared - {licence.lower()}:
        raise UserError(
            f"the pairs are not uploaded: --licence is {licence}, and {photos} is under "
            f"{' and '.join(sorted(declared))} by its own card"
        )
    names = {photos.lower()}
    for split in load_table(photos).values():
        if "source" in split.column_names:
            names |= {str(name).lower() for name in split.unique("source")}
    closed = [name for name in sorted(names) if CLOSED.search(name.replace("_", "-"))]
    if closed:
        raise UserError(
            f"the pairs are not uploaded: {photos} holds photos of {closed[0]}, "
            "whose terms forbid passing on pictures made from them"
        )


def own_licences(photos: str) -> set[str]:
    """The licences that a dataset on the Hub declares; none of a folder, or where it is silent.

    Raises:
        UserError: the Hub does not tell.
    """
    if Path(photos).exists() or photos.startswith((".", "/")):
        return set()
    try:
        card = HfApi().dataset_info(photos).card_data
    except FAILURES as error:
        raise UserError(
            f"the pairs are not uploaded: the licence of {photos} cannot be looked up: "
            f"{first_line(error)}"
        ) from error
    declared = (card.license if card else None) or []
    return {str(one).lower() for one in ([declared] if isinstance(declared, str) else declared)}


def variants_told(made: dict[str, Any]) -> tuple[str, str]:
    """How many portraits there are, and what the number of a variant means, of a stylize.json."""
    count, each = made["variants"], made.get("each", 0)
    many = f"portraits of each photo and style: {count}"
    if each:
        many = f"portraits of each photo: {count * each}, each variant in {each} of the styles"
    if made.get("angles"):
        angles = ", ".join(f"{angle:g}" for angle in made["angles"])
        turned = f"turned by {angles} degrees in this order, to either side, shifted and scaled"
        return many, f"painted from the photo {turned}; all strokes are plain"
    if made.get("misalign"):
        turned = "turned, shifted and scaled anew for each"
        return many, f"painted from the photo {turned}; from 1 on the strokes are scaled too"
    return many, "0 is the plain portrait; in the others the strokes are turned and scaled"


def pair_card(folder: Path, licence: str) -> str:
    """The dataset card of a folder of pairs."""
    made = json.loads((folder / "stylize.json").read_text())
    many, variant = variants_told(made)
    return (
        f"---\nlicense: {licence.lower()}\ntask_categories: [image-to-image]\n"
        "tags: [face-destyle, style-transfer, portraits]\n---\n\n"
        "# Portraits and their photos\n\n"
        "Aligned 128 x 128 face photos and the portraits that style networks made from them, for\n"
        "learning the way back. Made by `python -m train.stylize` of face_destyle.\n\n"
        f"- photos: {public_name(made['photos'])} ({licence})\n"
        f"- styles: {', '.join(made['styles'])}\n- {many}\n\n"
        "Columns: `portrait`, `photo`, `style`, `identity`, `attributes`, `split`, `photo_key`,\n"
        f"`variant` ({variant}),\n"
        "`alignment` (how the face lies in the portrait: a similarity, frame -> portrait, in\n"
        "normalised coordinates), `margin` (real surroundings of the photo, in pixels).\n"
    )


def push_pairs(folder: Path, repo_id: str, photos: str, licence: str | None) -> None:
    """Upload a folder of pairs with its card, if the photos' licence allows it.

    Raises:
        UserError: it does not, or the Hub refuses or is not reached. The pairs stay where they
            are.
    """
    check_may_share(photos, licence)
    (folder / "README.md").write_text(pair_card(folder, str(licence)))
    api = HfApi()
    with hub_errors(repo_id, f"; the pairs stay in {folder}, the same command uploads them"):
        api.create_repo(repo_id, repo_type="dataset", exist_ok=True)
        api.upload_folder(
            repo_id=repo_id,
            repo_type="dataset",
            folder_path=folder,
            allow_patterns=["*.parquet", "README.md"],
        )


@one_line_errors
def main(argv: list[str] | None = None) -> int:
    """Entry point; exit code 2 with one line where something must be put right first."""
    given = _parser().parse_args(argv)
    if given.command == "push":
        folder, repo, tag = push_target(given.name, given.cards, given.repo, given.tag)
        if given.dry_run:
            names = stage(folder, given.dry_run)
            print(f"{repo}, tag {tag}: {', '.join(names)}")  # noqa: T201
        else:
            print(push(folder, repo, tag))  # noqa: T201
        return 0
    row, folder = published_row(given.name), given.cards / given.name
    if given.command == "pack":
        print(pack(given.weights, given.recipe, folder, given.average))  # noqa: T201
    else:
        others = {k: Path(v) for k, _, v in (text.partition("=") for text in given.beside)}
        write_card(row, folder, others, given.notes)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    packing = commands.add_parser("pack", help="float16 copies of a run's networks")
    packing.add_argument("--weights", required=True, type=Path)
    packing.add_argument("--average", action="append", default=[], type=Path, metavar="WEIGHTS")
    packing.add_argument("--recipe", type=Path, help="else the one beside the weights")
    writing = commands.add_parser("card", help="README.md from metrics.json")
    writing.add_argument(
        "--beside",
        action="append",
        default=[],
        metavar="LABEL=FILE.json",
        help="other networks' metrics.json; of tiny turned faces what benchmarks.two_stage wrote",
    )
    writing.add_argument("--notes", default="", help="a sentence on the training")
    pushing = commands.add_parser("push", help="upload to the Hub, and tag")
    pushing.add_argument("name", help="as in face_destyle/published.py, or a folder")
    pushing.add_argument("--repo", metavar="ORG/NAME", help="else the one of the table")
    pushing.add_argument("--tag", help="else the one of the table")
    pushing.add_argument("--dry-run", type=Path, metavar="OUT", help="only write it to this folder")
    for command in (packing, writing):
        command.add_argument("--name", required=True, help="as in face_destyle/published.py")
    for command in (packing, writing, pushing):
        command.add_argument("--cards", type=Path, default=Path("cards"))
    return parser


if __name__ == "__main__":
    sys.exit(main())
