"""From a run to what is uploaded: float16 weights, card, and the guard over pair datasets.

python -m train.publish pack --weights RUN/weights --name fdnn
python -m train.evaluate --weights cards/fdnn ... --out cards/fdnn/metrics.json
python -m train.publish card --name fdnn --beside "pix2pix=benchmarks/results/pix2pix.json"
"""

import argparse
import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import EvalResult, HfApi, ModelCard, ModelCardData

from face_destyle import HubModel, Stylizer
from face_destyle.errors import UserError
from face_destyle.models.base import WEIGHTS_FILE
from face_destyle.published import WEIGHTS, Published
from train.console import one_line_errors
from train.evaluate import table
from train.frozen import sha256
from train.photos import load_table

TEMPLATES = Path(__file__).parent / "templates"
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
    """The mean of the weights of a network and its earlier states.

    Between the state that the pixel loss led to and the one that the discriminator sharpened lies
    a network that is nearly as faithful as the first and nearly as sharp as the second (network
    interpolation: Wang et al., ESRGAN, 2018).

    Raises:
        UserError: another network.
    """
    states = [network.state_dict()]
    for folder in others:
        other = HubModel.from_pretrained(folder)
        if type(other) is not type(network) or other.config != network.config:
            raise UserError(f"{folder} holds another network: only states of one can be averaged")
        states.append(other.state_dict())
    network.load_state_dict(
        {name: torch.stack([state[name] for state in states]).mean(0) for name in states[0]}
    )
    return network


def pack(weights: Path, recipe: Path | None, folder: Path, others: list[Path]) -> str:
    """Write float16 copies of the networks in `weights` to `folder`; returns the sha256.

    `recipe` goes beside them; else the one that lies beside the weights. The generator is
    averaged with those in `others`.
    The mixin's stand-in README of the run is not taken along: the card is written by `card`.
    """
    for part in ("", "discriminator"):
        if not (weights / part).is_dir():
            continue
        network = HubModel.from_pretrained(weights / part)
        target = folder / part
        if not part:
            network = average(network, others)
        network.to(torch.float16).save_pretrained(target)
        if part:
            (target / "README.md").unlink()
    recipe = recipe or weights / "recipe.yaml"
    if recipe.is_file():
        shutil.copyfile(recipe, folder / "recipe.yaml")
    return sha256(folder / WEIGHTS_FILE)


def card_data(row: Published, metrics: dict[str, Any]) -> ModelCardData:
    """The front matter of a card, with the figures as a model index."""
    results = [
        EvalResult(
            task_type="image-to-image",
            dataset_type="aligned-face-portraits",
            dataset_name=f"stylized test photos, {group} styles",
            metric_type=measure,
            metric_name=measure.upper(),
            metric_value=figures["recovered"][measure],
        )
        for group, figures in metrics.get("means", {}).items()
        for measure in ("psnr", "ssim")
    ]
    return ModelCardData(
        license="other",
        license_name="research-non-commercial",
        license_link="https://github.com/face-destyle/face-destyle#licences",
        library_name="face_destyle",
        pipeline_tag="image-to-image",
        tags=["face", "portrait", "face-destyle"],
        metrics=["psnr", "ssim"] if results else None,
        model_name=row.name,
        eval_results=results or None,
    )


def beside_table(others: dict[str, Path]) -> str:
    """Means of other evaluations as a Markdown table."""
    lines = [
        "| | photos | seen PSNR | SSIM | identity | unseen PSNR | SSIM | identity |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for label, path in others.items():
        if not path.is_file():
            raise UserError(f"{path} does not exist: run train.evaluate --out {path} first")
        content = json.loads(path.read_text())
        means, cells = content["means"], [str(content["photos"])]
        for group in ("seen", "unseen"):
            found = means[group]["recovered"]
            cells += [f"{found['psnr']:.2f}", f"{found['ssim']:.3f}", f"{found['identity']:.3f}"]
        lines.append(f"| {label} | {' | '.join(cells)} |")
    return "\n".join(lines)


def write_card(row: Published, folder: Path, others: dict[str, Path], notes: str = "") -> None:
    """Write README.md from the weights, metrics.json and the row of the table.

    Raises:
        UserError: metrics.json is missing, or belongs to other weights.
    """
    network = HubModel.from_pretrained(folder)
    path = folder / "metrics.json"
    is_stylizer = isinstance(network, Stylizer)
    if not is_stylizer and not path.is_file():
        raise UserError(f"{path} is missing: run train.evaluate --weights {folder} --out {path}")
    metrics = json.loads(path.read_text()) if path.is_file() else {}
    if metrics and metrics["weights_sha256"] != sha256(folder / WEIGHTS_FILE):
        raise UserError(f"{path} was measured on other weights: run train.evaluate again")
    card = ModelCard.from_template(
        card_data(row, metrics),
        template_path=str(TEMPLATES / ("stylizer.md" if is_stylizer else "recovery.md")),
        name=row.name,
        row=row,
        metrics=metrics,
        artwork=row.data.split(";")[0].removesuffix(" (public domain)"),
        parameters=f"{sum(p.numel() for p in network.parameters()) / 1e6:.2f} million",
        megabytes=f"{(folder / WEIGHTS_FILE).stat().st_size / 1e6:.1f}",
        table=table(metrics) if metrics else "",
        beside=beside_table(others) if others else "",
        notes=f"\n{notes}\n" if notes else "",
    )
    (folder / "README.md").write_text(str(card))


def check_may_share(photos: str, licence: str | None) -> None:
    """Whether portraits of these photos may be published.

    Raises:
        UserError: the licence is not given, not a free one, or the photos come from a set whose
            terms forbid it.
    """
    if licence is None or licence.lower() not in FREE:
        raise UserError(
            f"the pairs are not uploaded: --licence is {licence}, and passing on changed photos "
            f"needs one of {', '.join(FREE)}"
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


def pair_card(folder: Path, licence: str) -> str:
    """The dataset card of a folder of pairs."""
    made = json.loads((folder / "stylize.json").read_text())
    return (
        f"---\nlicense: {licence.lower()}\ntask_categories: [image-to-image]\n"
        "tags: [face-destyle, style-transfer, portraits]\n---\n\n"
        "# Portraits and their photos\n\n"
        "Aligned 128 x 128 face photos and the portraits that style networks made from them, for\n"
        "learning the way back. Made by `python -m train.stylize` of face_destyle.\n\n"
        f"- photos: {made['photos']} ({licence})\n- styles: {', '.join(made['styles'])}\n"
        f"- portraits of each photo and style: {made['variants']}\n\n"
        "Columns: `portrait`, `photo`, `style`, `identity`, `attributes`, `split`, `photo_key`,\n"
        "`variant` (0 is the plain portrait; in the others the strokes are turned and scaled),\n"
        "`alignment` (how the face lies in the portrait: a similarity, frame -> portrait, in\n"
        "normalised coordinates), `margin` (real surroundings of the photo, in pixels).\n"
    )


def push_pairs(folder: Path, repo_id: str, photos: str, licence: str | None) -> None:
    """Upload a folder of pairs with its card, if the photos' licence allows it.

    Raises:
        UserError: it does not; nothing has been uploaded.
    """
    check_may_share(photos, licence)
    (folder / "README.md").write_text(pair_card(folder, str(licence)))
    api = HfApi()
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
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    packing = commands.add_parser("pack", help="float16 copies of a run's networks")
    packing.add_argument("--weights", required=True, type=Path)
    packing.add_argument("--average", action="append", default=[], type=Path, metavar="WEIGHTS")
    packing.add_argument("--recipe", type=Path, help="else the one beside the weights")
    writing = commands.add_parser("card", help="README.md from metrics.json")
    writing.add_argument("--beside", action="append", default=[], metavar="LABEL=METRICS.json")
    writing.add_argument("--notes", default="", help="a sentence on the training")
    for command in (packing, writing):
        command.add_argument("--name", required=True, help="as in face_destyle/published.py")
        command.add_argument("--cards", type=Path, default=Path("cards"))
    given = parser.parse_args(argv)
    row, folder = published_row(given.name), given.cards / given.name
    if given.command == "pack":
        print(pack(given.weights, given.recipe, folder, given.average))  # noqa: T201
    else:
        others = {k: Path(v) for k, _, v in (text.partition("=") for text in given.beside)}
        write_card(row, folder, others, given.notes)
    return 0


if __name__ == "__main__":
    sys.exit(main())
