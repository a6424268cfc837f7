"""Model cards: everything on them comes from the weights, metrics.json and a row of the table."""

import json
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import EvalResult, ModelCard, ModelCardData

from face_destyle import AttributeClassifier, HubModel, Stylizer
from face_destyle.errors import UserError
from face_destyle.models.base import WEIGHTS_FILE
from face_destyle.published import Published
from train import classify, evaluate_views, obedience
from train.evaluate import table
from train.evaluate_views import TURNED
from train.figures import MEASURES, told
from train.frozen import sha256
from train.recipe import recipe_beside

TEMPLATES = Path(__file__).parent / "templates"
# Photo sets of the table of published weights that are on the Hub too.
DATASETS = {"CelebA": "flwrlabs/celeba"}
OBEDIENCE_FILE = "obedience.json"
# The columns of the smaller tables.
SHOWN = ("psnr", "ssim", "identity", "rank1")
BESIDE = ("psnr", "identity", "rank1")  # what a cell holds where several networks are columns


def card_data(
    row: Published, metrics: dict[str, Any], base: str = "", pipeline_tag: str = "image-to-image"
) -> ModelCardData:
    """The front matter of a card, with the figures as a model index.

    Args:
        row: whose card.
        metrics: the content of metrics.json.
        base: repository or name of the weights that these were fine-tuned from.
        pipeline_tag: the Hub's word for what the network does.
    """
    results = model_index(metrics)
    return ModelCardData(
        license="other",
        license_name="research-non-commercial",
        license_link="https://github.com/face-destyle/face-destyle#licences",
        library_name="face_destyle",
        pipeline_tag=pipeline_tag,
        tags=["face", "super-resolution" if of_views(metrics) else "portrait", "face-destyle"],
        datasets=[repo for name, repo in DATASETS.items() if name in row.data] or None,
        base_model=base or None,
        metrics=["psnr", "ssim"] if results else None,
        model_name=row.name,
        eval_results=results or None,
    )


def of_views(metrics: dict[str, Any]) -> bool:
    """Whether figures are of a network that learns from views, which are told by angle."""
    return "angles" in metrics


def model_index(metrics: dict[str, Any]) -> list[EvalResult]:
    """The means of metrics.json as the Hub shows them."""
    kind, tested = "aligned-face-portraits", "stylized test photos"
    # What is the same but for its name is merged into one.
    configs = {group: f"{group} styles" for group in ("seen", "unseen")}
    if of_views(metrics):
        kind, tested = "tiny-turned-faces", "tiny test photos of turned heads"
        turned = [angle for angle in metrics["angles"] if int(angle) >= TURNED]
        configs = {"turned": " to ".join(dict.fromkeys(turned[:1] + turned[-1:])) + " degrees"}
    return [
        EvalResult(
            task_type="image-to-image",
            dataset_type=kind,
            dataset_name=f"{tested}, {configs[group]}",
            dataset_config=configs[group],
            dataset_split="test",
            metric_type=measure,
            metric_name=measure.upper(),
            metric_value=figures["recovered"][measure],
        )
        for group, figures in metrics.get("means", {}).items()
        for measure in ("psnr", "ssim")
    ]


def figures_table(network: HubModel, metrics: dict[str, Any]) -> str:
    """The figures of metrics.json as the table of a card."""
    if isinstance(network, AttributeClassifier):
        return classify.markdown(metrics)
    return evaluate_views.table(metrics) if of_views(metrics) else table(metrics)


def read_beside(path: Path, section: str, command: str) -> dict[str, Any]:
    """The content of a file of other figures.

    Raises:
        UserError: it is missing, or has no such section; says which command writes one.
    """
    if not path.is_file():
        raise UserError(f"{path} does not exist: run {command} --out {path} first")
    content: dict[str, Any] = json.loads(path.read_text())
    if section not in content:
        raise UserError(f"{path} has no {section}: this card takes what {command} writes")
    return content


def beside_views(others: dict[str, Path], metrics: dict[str, Any]) -> str:
    """What benchmarks.two_stage wrote as Markdown: of each file a line and a table.

    Args:
        others: the files, by what they are called.
        metrics: the content of the network's own metrics.json.

    Raises:
        UserError: a file is missing, is of something else, was measured without the network's own
            weights, or by another face embedding.
    """
    tables, judge = [], "identity_network_sha256"
    for label, path in others.items():
        content = read_beside(path, "angles", "benchmarks.two_stage")
        measured = content.get("weights_sha256")
        if not isinstance(measured, dict) or [metrics["weights_sha256"]] not in measured.values():
            raise UserError(
                f"{path} was measured without these weights: measure them beside others"
            )
        if judge in metrics and content[judge] != metrics[judge]:
            raise UserError(f"{path} was measured by another face embedding: measure again")
        photos = max(row["photos"] for row in content["angles"].values())
        measures = BESIDE if judge in metrics else BESIDE[:1]
        tables += [f"{label}, on {photos} photos:", pipelines_table(content["angles"], measures)]
    return "\n\n".join(tables)


def pipelines_table(angles: dict[str, Any], measures: tuple[str, ...]) -> str:
    """Figures by angle as a Markdown table, one column a pipeline."""
    names = [name for name, row in next(iter(angles.values())).items() if isinstance(row, dict)]
    head = ["angle (degrees)", *names]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for angle, row in angles.items():
        cells = [angle, *(" / ".join(told(row[name], measures)) for name in names)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def beside_table(others: dict[str, Path]) -> str:
    """Means of other evaluations as a Markdown table."""
    lines = [
        "| | photos | seen PSNR | SSIM | FSIM | identity | rank-1 "
        "| unseen PSNR | SSIM | FSIM | identity | rank-1 |",
        "|---" * 12 + "|",
    ]
    for label, path in others.items():
        content = read_beside(path, "means", "train.evaluate")
        means, cells = content["means"], [str(content["photos"])]
        for group in ("seen", "unseen"):
            figures = means[group]["recovered"] if group in means else {}  # all styles were seen
            cells += told(figures, tuple(MEASURES))
        lines.append(f"| {label} | {' | '.join(cells)} |")
    return "\n".join(lines)


def groups_table(metrics: dict[str, Any]) -> str:
    """Means of recovered faces by groups of people, as train.groups wrote them; "" without any."""
    lines = []
    for kind, groups in metrics.get("groups", {}).items():
        halves = [
            half for half in ("seen", "unseen") if any(half in row for row in groups.values())
        ]
        names = ["PSNR (dB)", "SSIM", "identity", "rank-1"]
        head = [kind, "photos", *(f"{half} {name}" for half in halves for name in names)]
        lines += ["", f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
        for name, row in groups.items():
            cells = [str(row["photos"])]
            for half in halves:
                cells += told(row[half], SHOWN)
            lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines[1:])


def change_table(before: dict[str, Any], after: dict[str, Any]) -> str:
    """What a fine-tuning changed, style by style, as a Markdown table."""
    lines = [
        "| style | PSNR (dB) | SSIM | identity | rank-1 |",
        "|---|---|---|---|---|",
    ]
    for style, row in after["styles"].items():
        old, new = (told(one["recovered"], SHOWN) for one in (before["styles"][style], row))
        cells = [f"{a} -> {b}" for a, b in zip(old, new, strict=True)]
        lines.append(f"| {style} | {' | '.join(cells)} |")
    return "\n".join(lines)


def measures_people(metrics: dict[str, Any]) -> bool:
    """Whether identity and rank-1 were measured, which need a face embedding."""
    rows = metrics["angles" if of_views(metrics) else "styles"].values()
    return all("identity" in row["recovered"] for row in rows)


def read_metrics(folder: Path, name: str = "metrics.json") -> dict[str, Any]:
    """The content of a file of figures; nothing where there is none.

    Raises:
        UserError: it was measured on other weights.
    """
    path = folder / name
    if not path.is_file():
        return {}
    metrics: dict[str, Any] = json.loads(path.read_text())
    if metrics["weights_sha256"] != sha256(folder / WEIGHTS_FILE):
        raise UserError(f"{path} was measured on other weights: measure again")
    return metrics


def check_card(network: HubModel, folder: Path) -> None:
    """Whether the figures beside a network are its own, and README.md tells those of metrics.json.

    Raises:
        UserError: they are of other weights, or the card has others.
    """
    metrics = read_metrics(folder)
    read_metrics(folder, OBEDIENCE_FILE)
    if not metrics or isinstance(network, Stylizer):
        return  # the card has no table
    path = folder / "README.md"
    if figures_table(network, metrics) not in path.read_text(encoding="utf-8"):
        raise UserError(
            f"{path} does not tell the figures of metrics.json: write it anew, "
            "by train.publish card or train.your_artist"
        )


def study(network: HubModel) -> dict[str, str]:
    """What templates/studies.yaml says of a recovery network.

    Raises:
        UserError: nothing.
    """
    studies = yaml.safe_load((TEMPLATES / "studies.yaml").read_text())
    if network.model_type not in studies:
        raise UserError(
            f"train/templates/studies.yaml says nothing of {network.model_type}: add a section"
        )
    found: dict[str, str] = studies[network.model_type]
    return found


def _facts(row: Published, network: HubModel, folder: Path) -> dict[str, Any]:
    return {
        "name": row.name,
        "row": row,
        "parameters": f"{sum(p.numel() for p in network.parameters()) / 1e6:.2f} million",
        "megabytes": f"{(folder / WEIGHTS_FILE).stat().st_size / 1e6:.1f}",
    }


def write_card(row: Published, folder: Path, others: dict[str, Path], notes: str = "") -> None:
    """Write README.md from the weights, their files of figures and the row of the table.

    Raises:
        UserError: metrics.json is missing, or figures belong to other weights.
    """
    network = HubModel.from_pretrained(folder)
    facts = _facts(row, network, folder) | {"notes": f"\n{notes}\n" if notes else ""}
    metrics, tag = read_metrics(folder), "image-to-image"
    if isinstance(network, Stylizer):
        template = "stylizer.md"
        facts["has_recipe"] = (folder / "recipe.yaml").is_file()
        facts["artwork"] = row.data.split(";")[0].removesuffix(" (public domain)")
    elif not metrics:
        command = "classify" if isinstance(network, AttributeClassifier) else "evaluate"
        raise UserError(f"{folder / 'metrics.json'} is missing: run train.{command} first")
    elif isinstance(network, AttributeClassifier):
        template, tag = "classifier.md", "image-classification"
        facts |= {"metrics": metrics, "table": figures_table(network, metrics)}
    elif of_views(metrics):
        template = "frontal.md"
        facts |= _frontal_facts(network, folder, metrics, others)
    else:
        template = "recovery.md"
        facts |= _recovery_facts(network, folder, metrics, others)
    data = card_data(row, metrics, pipeline_tag=tag)
    card = ModelCard.from_template(data, template_path=str(TEMPLATES / template), **facts)
    (folder / "README.md").write_text(str(card))


def _recovery_facts(
    network: HubModel, folder: Path, metrics: dict[str, Any], others: dict[str, Path]
) -> dict[str, Any]:
    obeyed = read_metrics(folder, OBEDIENCE_FILE)
    return {
        "study": study(network),
        "metrics": metrics,
        "people": measures_people(metrics),
        "table": figures_table(network, metrics),
        "groups": groups_table(metrics),
        "obeyed": obeyed,
        "obedience": obedience.table(obeyed) if obeyed else "",
        "beside": beside_table(others) if others else "",
    }


def _frontal_facts(
    network: HubModel, folder: Path, metrics: dict[str, Any], others: dict[str, Path]
) -> dict[str, Any]:
    # train.fit saves a discriminator that took no part too.
    loss = recipe_beside(folder).get("loss") or {}
    return {
        "study": study(network),
        "judged": (folder / "discriminator").is_dir() and loss.get("adversarial") != 0,
        "metrics": metrics,
        "people": measures_people(metrics),
        "coded": any("own" in row for row in metrics["angles"].values()),
        "turned": TURNED,
        "table": figures_table(network, metrics),
        "beside": beside_views(others, metrics),
    }


def write_finetuned_card(
    row: Published, folder: Path, base: str, artwork: str, before: dict[str, Any]
) -> None:
    """Write README.md of weights that were fine-tuned.

    Args:
        row: name, licence and data of the new weights; the repository is told by its `repo_id`.
        folder: the weights, with metrics.json of the same styles as `before`.
        base: the repository that they were fine-tuned from, or its folder's name.
        artwork: what it is called.
        before: metrics.json of `base` on the same test.
    """
    network, metrics = HubModel.from_pretrained(folder), read_metrics(folder)
    card = ModelCard.from_template(
        card_data(row, metrics, base),
        template_path=str(TEMPLATES / "finetuned.md"),
        **_facts(row, network, folder),
        study=study(network),
        metrics=metrics,
        people=measures_people(metrics),
        base=base,
        artwork=artwork,
        repo=row.repo_id,
        table=table(metrics),
        change=change_table(before, metrics),
    )
    (folder / "README.md").write_text(str(card))
