"""From one artwork and a folder of photos to a model of one's own.

    python -m train.your_artist --artwork my.jpg --photos PHOTOS --init fdnn --out MY-MODEL \
        --perceptual vgg19_cd16x_5SE.safetensors --embedding EMBEDDING.safetensors

It trains a style network from the artwork, makes portraits of the photos in the new style and in
the old ones that the weights know (so that these are not forgotten), fine-tunes generator and
discriminator on them, and measures both, before and after, on photos that were held out: of other
people, where the photos have an `identity`. What is left in OUT/model is ready for
`train.publish push`.

The lengths are chosen to fill --minutes on this machine, and told before the work starts. The same
command goes on where a killed one was: each stage leaves one thing, complete or absent.
"""

import argparse
import json
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from face_destyle import FaceModel, HubModel
from face_destyle.errors import UserError
from face_destyle.published import WEIGHTS, Published
from train.card import write_finetuned_card
from train.chunks import claim
from train.console import one_line_errors
from train.doctor import inspect
from train.evaluate import evaluate
from train.figures import judge_sha256, write_figures
from train.fit import fit
from train.frozen import PerceptualNetwork, sha256
from train.holdout import count_photos, hold_out
from train.memory import keep_freed_memory
from train.publish import pack
from train.recipe import NetworkConfig, Recipe, load_recipe, recipe_beside
from train.sizing import Plan, choose, measure, told
from train.start import discriminator_beside
from train.style import StyleArguments, load_artwork, train_style
from train.stylize import StylizeArguments, stylize

RECIPE = Path(__file__).parent / "recipes" / "finetune.yaml"
NETWORKS = ("fdnn", "ifrp")  # what is learnt from portraits and photos alone
LAST_PART = 0.25  # of the images, in which the discriminator takes part
LOOKED_AT = 2000  # pairs


@dataclass(frozen=True)
class ArtistArguments:
    """What a folder is for; one that is for something else is refused."""

    artwork: str
    photos: str
    init: str
    perceptual: str
    embedding: str
    old: dict[str, str]
    recipe: str = str(RECIPE)
    held_out: int = 100
    variants: int = 2
    seed: int = 0
    repo: str = ""

    @property
    def style(self) -> str:
        """What the new style is called."""
        return Path(self.artwork).stem.lower().replace("-", "_").replace(" ", "_")


def known_styles(init: str) -> list[str]:
    """The styles that weights were trained on, as the recipe beside them says; else none."""
    return list((recipe_beside(init).get("data") or {}).get("styles") or [])


def old_styles(init: str) -> dict[str, str]:
    """The published style networks of the styles that weights know; all where none is known."""
    published = {
        name.removeprefix("style-").replace("-", "_"): name
        for name in WEIGHTS
        if name.startswith("style-")
    }
    known = {style: published[style] for style in known_styles(init) if style in published}
    return known or published


def make_recipe(arguments: ArtistArguments, pairs: Path, images: int) -> Recipe:
    """finetune.yaml with the networks of the weights it starts from, and its lengths.

    Raises:
        UserError: weights that need more than portraits to learn from.
    """
    recipe = load_recipe(arguments.recipe)
    model = FaceModel.from_pretrained(arguments.init)
    if model.model_type not in NETWORKS:
        raise UserError(
            f"{arguments.init} holds a {model.model_type} network: "
            f"your_artist fine-tunes {' and '.join(NETWORKS)}"
        )
    judge = discriminator_beside(arguments.init)
    fresh = NetworkConfig(f"{model.model_type}-discriminator")
    batch = recipe.train.batch_size
    images = max(1, images // batch) * batch
    interval = max(1, images // 10 // batch) * batch
    return replace(
        recipe,
        name=arguments.style,
        model=_network(model),
        discriminator=_network(judge) if judge else fresh,
        data=replace(
            recipe.data, pairs=str(pairs), styles=(arguments.style, *sorted(arguments.old))
        ),
        loss=replace(
            recipe.loss,
            adversarial_after=round(images * (1 - LAST_PART)),
            alignment=0.0 if model.expects_aligned else 1.0,
        ),
        train=replace(
            recipe.train,
            images=images,
            seed=arguments.seed,
            log_every=interval,
            sample_every=interval,
            save_every=interval,
        ),
    )


def _network(network: HubModel) -> NetworkConfig:
    default = asdict(network.config_class())
    fields = {k: v for k, v in asdict(network.config).items() if v != default[k]}
    return NetworkConfig(network.model_type, json.loads(json.dumps(fields)))


class Artist:
    """The stages, in their order; each is skipped where what it leaves is there."""

    def __init__(self, arguments: ArtistArguments, out: Path, minutes: float):
        self.arguments, self.out, self.minutes = arguments, out, minutes
        self.aligned = FaceModel.from_pretrained(arguments.init).expects_aligned
        self.styles = {arguments.style: str(out / "style"), **arguments.old}
        # The copy that the stage "photos" makes is what all the others learn from.
        self.style_arguments = StyleArguments(
            arguments.artwork, str(out / "photos"), arguments.perceptual, seed=arguments.seed
        )

    def run(self) -> Path:
        """Everything that is not there yet; returns the folder that is ready to publish.

        Raises:
            UserError: something that has to be put right first, said before the work where it
                can be known.
        """
        plan = self.plan()
        self.stage("photos", lambda path: self.photos(path, plan))
        self.stage("style", lambda path: self.style(path, plan))
        self.pairs()
        self.stage("before.json", self.before)
        self.train(plan)
        self.stage("model", self.model)
        return self.out / "model"

    def stage(self, name: str, make: Callable[[Path], None]) -> None:
        """Let `make` write a file or folder beside its place; it is moved there once whole."""
        final, partial = self.out / name, self.out / f"{name}.partial"
        if final.exists():
            return
        if partial.is_dir():
            shutil.rmtree(partial)
        make(partial)
        os.replace(partial, final)

    def plan(self) -> Plan:
        """How long the stages are: chosen once, as another length would be another run."""
        path = self.out / "plan.json"
        if not path.is_file():
            self.stage("plan.json", self.choose)
        return Plan(**json.loads(path.read_text()))

    def choose(self, path: Path) -> None:
        """Time a few steps and tell the plan."""
        given = self.arguments
        available, tested = count_photos(given.photos)
        held_out = min(given.held_out, tested or max(1, available // 10))
        # The stage "photos" has not been yet: the steps are timed on the source itself.
        timed = replace(self.style_arguments, photos=given.photos)
        recipe = make_recipe(given, self.out / "pairs", 0)
        speeds = measure(timed, recipe, given.init)
        left = available if tested else available - held_out
        plan = choose(speeds, self.minutes, left, held_out, len(self.styles), given.variants)
        print(told(plan, speeds, len(self.styles), given.variants), flush=True)  # noqa: T201
        path.write_text(json.dumps(asdict(plan)))

    def photos(self, path: Path, plan: Plan) -> None:
        """A part of the photos, and others to test on."""
        hold_out(self.arguments.photos, path, plan.photos, plan.held_out, self.arguments.seed)

    def style(self, path: Path, plan: Plan) -> None:
        """The style network of the artwork."""
        arguments = replace(self.style_arguments, steps=plan.style_steps)
        train_style(arguments).save_pretrained(path)

    def pairs(self) -> None:
        """Portraits in all styles; it goes on by itself, file by file.

        Raises:
            UserError: something in them would spoil the training.
        """
        arguments = StylizeArguments(
            str(self.out / "photos"),
            self.styles,
            variants=self.arguments.variants,
            seed=self.arguments.seed,
            misalign=not self.aligned,
        )
        stylize(arguments, self.out / "pairs")
        if (self.out / "before.json").exists():
            return
        found = inspect(str(self.out / "pairs"), LOOKED_AT)
        # A portrait that is made of its photo matches it, however wild the style.
        stops = [one for one in found if one.stops and one.kind != "mismatch"]
        if stops:
            raise UserError(f"{self.out / 'pairs'} would spoil the training: {stops[0].text}")

    def before(self, path: Path) -> None:
        """The figures of the weights as they are."""
        known = known_styles(self.arguments.init) or sorted(self.arguments.old)
        write_figures(self.figures(self.arguments.init, known), path)

    def figures(self, weights: str, seen: list[str]) -> dict[str, Any]:
        """The content of a metrics.json over the photos that were held out."""
        data, embedding = str(self.out / "pairs"), self.arguments.embedding
        return evaluate(weights, data, embedding, "test", [], seen, 0)[0]

    def train(self, plan: Plan) -> None:
        """Fine-tune both networks; it goes on by itself, checkpoint by checkpoint."""
        # Written last of what a run exports.
        if not (self.out / "run" / "weights" / "recipe.yaml").is_file():
            recipe = make_recipe(self.arguments, self.out / "pairs", plan.images)
            fit(recipe, self.out / "run", self.arguments.init)

    def model(self, path: Path) -> None:
        """Float16 weights, their figures and their card."""
        given = self.arguments
        pack(self.out / "run" / "weights", None, path, [])
        metrics = self.figures(str(path), sorted(self.styles))
        write_figures(metrics, path / "metrics.json")
        before = json.loads((self.out / "before.json").read_text())
        base = Path(given.init).name if Path(given.init).is_dir() else given.init
        base = WEIGHTS[given.init].repo_id if given.init in WEIGHTS else base
        count = json.loads((self.out / "plan.json").read_text())["photos"]
        old = f" and {', '.join(sorted(given.old))}" if given.old else ""
        row = Published(
            name=given.style.replace("_", "-"),
            repo_id=given.repo or "this folder, or its id on the Hub",
            tag="",
            licence="research, non-commercial",
            sha256=sha256(path / "model.safetensors"),
            paper="",
            data=f"Up to {count} photos of {Path(given.photos).name}, stylized after "
            f"{given.style}{old}",
        )
        write_finetuned_card(row, path, base, given.style.replace("_", " "), before)


def check(arguments: ArtistArguments) -> None:
    """Look at everything that is given, before the first minute of work.

    Raises:
        UserError: what cannot be used, named.
    """
    load_artwork(arguments.artwork, 64)
    PerceptualNetwork.load(arguments.perceptual)
    make_recipe(arguments, Path("pairs"), 0)
    judge_sha256(arguments.init, arguments.embedding)
    if arguments.style in arguments.old:
        raise UserError(f"the style {arguments.style} is known already: name the artwork otherwise")
    if count_photos(arguments.photos)[0] < 2:
        raise UserError(f"{arguments.photos} has too few photos: give hundreds, of many people")


@one_line_errors
def main(argv: list[str] | None = None) -> int:
    """Entry point; exit code 2 with one line where something must be put right first."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--artwork", required=True, help="picture; its name is that of the style")
    parser.add_argument("--photos", required=True, help="folder, parquet folder or Hub id")
    parser.add_argument("--init", default="fdnn", help="weights to start from")
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--perceptual", required=True, help="distilled VGG-19: path or Hub file")
    parser.add_argument("--embedding", required=True, help="face embedding that judges")
    parser.add_argument(
        "--old",
        action="append",
        default=[],
        metavar="NAME=WEIGHTS",
        help="style networks of styles that shall not be forgotten; else those of --init\n"
        "that are published",
    )
    parser.add_argument("--minutes", type=float, default=60.0, help="for everything")
    parser.add_argument("--held-out", type=int, default=100, help="photos to test on")
    parser.add_argument("--variants", type=int, default=2, help="of each photo and style")
    parser.add_argument("--recipe", default=str(RECIPE))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--repo", default="", metavar="ORG/NAME", help="the card tells to load it")
    given = parser.parse_args(argv)
    keep_freed_memory()
    if given.minutes <= 0 or min(given.held_out, given.variants) < 1:
        raise UserError("--held-out and --variants start at 1, --minutes above 0")
    old = dict(_named(text) for text in given.old) or old_styles(given.init)
    arguments = ArtistArguments(
        given.artwork,
        given.photos,
        given.init,
        given.perceptual,
        given.embedding,
        old,
        given.recipe,
        given.held_out,
        given.variants,
        given.seed,
        given.repo,
    )
    check(arguments)
    claim(given.out, "your_artist.json", arguments, "models")
    folder = Artist(arguments, given.out, given.minutes).run()
    print(f"{folder} is ready: train.publish push {folder} --repo ORG/NAME")  # noqa: T201
    return 0


def _named(text: str) -> tuple[str, str]:
    name, separator, source = text.partition("=")
    if not separator or not name or not source:
        raise UserError(f"--old {text}: write NAME=WEIGHTS")
    return name, source


if __name__ == "__main__":
    sys.exit(main())
