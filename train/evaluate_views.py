"""Figures by the angle of the head, for networks that make a frontal face of a tiny turned one.

    python -m train.evaluate --weights cards/fdnn-tann --data VIEWS \
        --embedding mobilefacenet_xiaoccer.safetensors --out cards/fdnn-tann/metrics.json

`train.evaluate` does this where a network takes faces of 16 x 16. Views are those of train.views;
every one is made tiny by numbers that depend on its name alone. What the network makes of it is
held against the frontal photo, beside bicubic enlargement, on 8-bit RGB: PSNR on RGB, SSIM on
luma, identity as the cosine of face embeddings, and rank-1 retrieval among all true test photos.
Of a network with latent codes it is told too how far the code of a view is from that of the same
person's frontal view, and from that of another person's.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F
from torch.utils.data import default_collate
from tqdm import tqdm

from face_destyle import FaceModel, images, metrics
from face_destyle.errors import UserError
from train.data import decode
from train.figures import header, judge_sha256, mean_of, means, told_change
from train.frozen import FaceEmbedding
from train.tiny import TinyConfig, make_tiny, named_tiny
from train.triplet import distances, open_views

MEASURES = ("psnr", "ssim", "identity", "rank1")
PIXEL_MEASURES = ("psnr", "ssim")
CODES = ("own", "other")
BICUBIC = "bicubic"
BATCH = 32
TURNED = 15  # degrees from which a head counts as turned

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Pipeline:
    """Networks that a tiny face goes through; none of them for bicubic enlargement.

    Between two it is an 8-bit picture, resized where the next one takes another size.
    """

    name: str
    stages: tuple[FaceModel, ...] = ()

    def __call__(self, tiny: torch.Tensor) -> torch.Tensor:
        """`(N, 3, 16, 16)` -> `(N, 3, 128, 128)`, both in [-1, 1]."""
        return self.with_codes(tiny)[0]

    def with_codes(self, tiny: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """The same, and the latent codes `(N, D)` of the first network; None where it has none."""
        pictures, codes = tiny, None
        for number, stage in enumerate(self.stages):
            out = stage(resized(pictures, stage.input_size))
            codes = codes if number else getattr(out, "code", None)
            pictures = images.from_uint8(images.to_uint8(out.photo))
        return resized(pictures, images.FACE_SIDE), codes


@dataclass(frozen=True)
class ViewSet:
    """Views of the photos that are evaluated.

    Attributes:
        views: the whole split.
        rows: those of it that are evaluated.
        angles: of their heads, in whole degrees to either side.
        photos: of which photo each is, `(rows,)`, by its place in the next three.
        keys: of the photos.
        frontal: of each photo, the row of its frontal view.
        people: of each photo, whose it is, as a number.
    """

    views: Any
    rows: list[int]
    angles: Array
    photos: Array
    keys: list[str]
    frontal: list[int]
    people: torch.Tensor

    @classmethod
    def open(cls, source: str, split: str, limit: int) -> "ViewSet":
        """Open a split; `limit` is a number of photos, 0 for all.

        Raises:
            UserError: no views, or of some photo no frontal one.
        """
        views = open_views(source, split)
        yaws, every, identities = (list(views[name]) for name in ("yaw", "photo_key", "identity"))
        place = {key: n for n, key in enumerate(list(dict.fromkeys(every))[: limit or None])}
        rows = [row for row, key in enumerate(every) if key in place]
        frontal = {every[row]: row for row in rows if yaws[row] == 0}
        missing = sorted(set(place) - set(frontal))
        if missing:
            raise UserError(f"{source}: photo {missing[0]} has no frontal view")
        owners = [identities[frontal[key]] for key in place]
        return cls(
            views,
            rows,
            np.array([round(abs(yaws[row])) for row in rows]),
            np.array([place[every[row]] for row in rows]),
            list(place),
            [frontal[key] for key in place],
            torch.from_numpy(np.unique(owners, return_inverse=True)[1]),
        )

    def tiny(self, rows: list[int], config: TinyConfig, seed: int) -> torch.Tensor:
        """The views of these rows made tiny, `(N, 3, 16, 16)` in [-1, 1]."""
        records = [self.views[row] for row in rows]
        names = [f"{record['photo_key']}/{record['yaw']:g}" for record in records]
        draws = default_collate([named_tiny(config, seed, name) for name in names])
        return make_tiny(self._pictures(rows, "view"), draws)

    def true(self, rows: list[int]) -> torch.Tensor:
        """The frontal photos of these rows, `(N, 3, 128, 128)` in [-1, 1]."""
        return self._pictures(rows, "photo")

    def _pictures(self, rows: list[int], name: str) -> torch.Tensor:
        pixels = [decode(self.views[row][name], images.FACE_SIDE) for row in rows]
        return images.from_uint8(torch.stack(pixels))

    def by_angle(self) -> Iterator[tuple[str, npt.NDArray[np.bool_]]]:
        """Each angle, and which of the rows are seen from it."""
        for angle in sorted(set(self.angles.tolist())):
            yield str(angle), self.angles == angle

    def strangers(self) -> list[int] | None:
        """For each photo one of another person, half the list away or soon after.

        None where all are of one person.
        """
        people = self.people.tolist()
        if len(set(people)) < 2:
            return None
        count = len(people)
        further = [(count // 2 + step) % count for step in range(count)]
        return [
            next((n + step) % count for step in further if people[(n + step) % count] != who)
            for n, who in enumerate(people)
        ]


def resized(pictures: torch.Tensor, side: int) -> torch.Tensor:
    """Pictures `(N, 3, S, S)` in [-1, 1] at another side: bicubic, antialiased."""
    if pictures.shape[-1] == side:
        return pictures
    return F.interpolate(pictures, size=(side, side), mode="bicubic", antialias=True).clamp(-1, 1)


@torch.inference_mode()
def score(
    pipelines: list[Pipeline],
    test: ViewSet,
    judge: FaceEmbedding | None,
    config: TinyConfig,
    seed: int,
) -> dict[str, dict[str, Array]]:
    """Every measure of every row, by pipeline.

    `identity` and `rank1` are there where somebody judges, `own` and `other` where a pipeline has
    codes and the photos show two people.
    """
    found: dict[str, dict[str, list[torch.Tensor]]] = {
        one.name: {name: [] for name in (*PIXEL_MEASURES, "vectors", *CODES)} for one in pipelines
    }
    strangers = test.strangers()
    # Another draw than the row's own: where the view is frontal, it is not the same picture.
    frontal = frontal_codes(pipelines, test, config, seed + 1) if strangers else {}
    for start in tqdm(range(0, len(test.rows), BATCH), unit_scale=BATCH, unit="view"):
        part = slice(start, start + BATCH)
        rows, photos = test.rows[part], test.photos[part]
        true, tiny = test.true(rows), test.tiny(rows, config, seed)
        for one in pipelines:
            made, codes = one.with_codes(tiny)
            fake, scores = images.from_uint8(images.to_uint8(made)), found[one.name]
            scores["psnr"].append(metrics.psnr(fake, true))
            scores["ssim"].append(metrics.ssim(fake, true))
            if judge:
                scores["vectors"].append(judge(fake))
            if strangers and one.name in frontal:
                reference = frontal[one.name]
                assert codes is not None  # its frontal views had some
                others = [strangers[photo] for photo in photos]
                scores["own"].append(distances(codes, reference[photos]))
                scores["other"].append(distances(codes, reference[others]))
    gallery = (
        torch.cat([judge(test.true(rows)) for rows in batches(test.frontal)]) if judge else None
    )
    return {name: _joined(scores, gallery, test) for name, scores in found.items()}


def _joined(
    scores: dict[str, list[torch.Tensor]], gallery: torch.Tensor | None, test: ViewSet
) -> dict[str, Array]:
    """The batches of each measure as one array; embedded faces become likeness."""
    joined = {name: torch.cat(values) for name, values in scores.items() if values}
    if gallery is not None:
        joined |= likeness_of_people(joined.pop("vectors"), gallery, test)
    return {name: values.numpy() for name, values in joined.items()}


def batches(rows: list[int]) -> list[list[int]]:
    """Rows, `BATCH` at a time."""
    return [rows[start : start + BATCH] for start in range(0, len(rows), BATCH)]


def frontal_codes(
    pipelines: list[Pipeline], test: ViewSet, config: TinyConfig, seed: int
) -> dict[str, torch.Tensor]:
    """The codes `(P, D)` of the frontal view of each photo, by pipeline that has some."""
    found: dict[str, list[torch.Tensor]] = {}
    for rows in batches(test.frontal):
        tiny = test.tiny(rows, config, seed)
        for one in pipelines:
            _, codes = one.with_codes(tiny)
            if codes is not None:
                found.setdefault(one.name, []).append(codes)
    return {name: torch.cat(codes) for name, codes in found.items()}


def likeness_of_people(
    query: torch.Tensor, gallery: torch.Tensor, test: ViewSet
) -> dict[str, torch.Tensor]:
    """`identity` and `rank1`, `(N,)`, of embedded faces `(N, D)` among the photos `(P, D)`."""
    hits = metrics.rank1(query, gallery, test.people[test.photos], test.people)
    cosines = metrics.identity_cosine(query, gallery[test.photos])
    return {"identity": cosines, "rank1": hits.float()}


def summarize(
    test: ViewSet, recovered: dict[str, Array], enlarged: dict[str, Array]
) -> dict[str, Any]:
    """Means by angle, and over the angles at which a head is turned."""
    measured = [name for name in MEASURES if name in recovered]
    angles: dict[str, Any] = {}
    for angle, chosen in test.by_angle():
        angles[angle] = {
            "views": int(chosen.sum()),
            "input": means(enlarged, chosen, measured),
            "recovered": means(recovered, chosen, measured),
            **means(recovered, chosen, [name for name in CODES if name in recovered]),
        }
    turned = [row for angle, row in angles.items() if int(angle) >= TURNED]
    if not turned:
        return {"angles": angles}
    groups = {kind: mean_of([row[kind] for row in turned]) for kind in ("input", "recovered")}
    return {"angles": angles, "means": {"turned": groups}}


def table(summary: dict[str, Any]) -> str:
    """The figures as a Markdown table, bicubic -> recovered; "-" for what was not measured."""
    angles = summary["angles"]
    coded = any("own" in row for row in angles.values())
    head = ["angle (degrees)", "views", "PSNR (dB)", "SSIM", "identity", "rank-1"]
    head += ["codes"] * coded
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    rows = [(angle, str(row["views"]), row) for angle, row in angles.items()]
    rows += [(f"**mean {name}**", "", row) for name, row in summary.get("means", {}).items()]
    for name, views, row in rows:
        cells = [name, views, *told_change(row["input"], row["recovered"], MEASURES)]
        cells += [told_codes(row)] * coded
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def told_codes(figures: dict[str, Any]) -> str:
    """The distances of codes as a cell, own / other; empty without any."""
    return f"{figures['own']:.3g} / {figures['other']:.3g}" if "own" in figures else ""


def evaluate(
    model: FaceModel, weights: str, data: str, embedding: str | None, split: str, limit: int
) -> tuple[dict[str, Any], dict[str, Array]]:
    """Evaluate a network on views; returns the content of metrics.json and the raw scores.

    Args:
        model: the network.
        weights: name, folder or Hub id that it was loaded by.
        data: views of train.views.
        embedding: that judges; without it identity and rank-1 are not measured.
        split: of the views.
        limit: photos, 0 for all.

    Raises:
        UserError: views or embedding that cannot be used.
    """
    judged_by = judge_sha256(weights, embedding) if embedding else None
    test = ViewSet.open(data, split, limit)
    judge = FaceEmbedding.load(embedding) if embedding else None
    pipelines = [Pipeline("recovered", (model,)), Pipeline("input")]
    scores = score(pipelines, test, judge, TinyConfig(), 0)
    identities = len(set(test.people.tolist()))
    summary = {
        **header(weights, model, len(test.keys), identities, judged_by),
        **summarize(test, scores["recovered"], scores["input"]),
    }
    raw = {f"{kind}_{name}": v for kind, found in scores.items() for name, v in found.items()}
    photos = np.array(test.keys, dtype=str)[test.photos]
    return summary, raw | {"angle": test.angles, "photo": photos}
