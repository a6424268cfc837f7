"""The table of published weights: what each is, where it is, what it may be used for."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).parent
DEFAULT_MODEL, GUIDED_MODEL = "fdnn", "fdnn-afrp"  # of the command line; with attributes


@dataclass(frozen=True)
class Published:
    """One row of the table.

    Attributes:
        name: what `from_pretrained` takes.
        repo_id, tag: where it is on the Hub.
        licence: of the weights; the code has its own.
        sha256: of model.safetensors.
        paper: where the network comes from.
        data: what it was trained on.
    """

    name: str
    repo_id: str
    tag: str
    licence: str
    sha256: str
    paper: str
    data: str

    def folder(self) -> Path:
        """Where the files lie: inside the installed package, or in cards/ of a checkout."""
        inside = PACKAGE / "cards" / self.name
        return inside if inside.is_dir() else PACKAGE.parent / "cards" / self.name

    def figures(self) -> dict[str, Any]:
        """The content of metrics.json as train.evaluate wrote it; empty where there is none."""
        path = self.folder() / "metrics.json"
        return json.loads(path.read_text()) if path.is_file() else {}


RESEARCH = "research, non-commercial"
PHOTOS = "CelebA (test partition), All-Age-Faces, synthetic faces"
MANY_STYLES = f"{PHOTOS}; 14,490 photos in 32 styles after 16 artworks; 88 CUFS sketches"
STYLE_PAPER = "Johnson, Alahi, Fei-Fei: Perceptual Losses, ECCV 2016"


def _row(name: str, sha256: str, paper: str, data: str) -> Published:
    return Published(name, f"face-destyle/{name}", "v0.1.0", RESEARCH, sha256, paper, data)


def _style(artwork: str, title: str, sha256: str) -> Published:
    data = f"{title} (public domain); {PHOTOS}"
    return _row(f"style-{artwork}", sha256, STYLE_PAPER, data)


_ROWS = (
    _row(
        name="fdnn",
        sha256="6cc6bd27ea67ad800abcb77f14f674dc70e1bb4ebf1b38d749991a86b5a7db58",
        paper="Shiri et al.: Face Destylization, DICTA 2017",
        data=f"{PHOTOS}; 14,490 photos in 3 styles (The Scream, Candy, Feathers)",
    ),
    _row(
        name="fdnn-ifrp",
        sha256="9764a6468d8d1da35242e7d16970a427f07b7697fda204f9980673364d29f8b7",
        paper="Shiri et al.: Identity-preserving Face Recovery from Portraits, IJCV 2019",
        data=MANY_STYLES,
    ),
    _row(
        name="fdnn-ifrp-protocol",
        sha256="6382d8f9f0d2e138c9e5cfa46fb42baf651c7ca713facadd2a8ec8d6879802ae",
        paper="Shiri et al.: Identity-preserving Face Recovery from Portraits, IJCV 2019",
        data=f"{PHOTOS}; 14,490 photos in 3 styles (The Scream, Candy, Feathers), turned",
    ),
    _row(
        name="fdnn-afrp",
        sha256="e64cbf66474b86d389be6ae77335c08b1033a7eedd878e026080d39d0825444e",
        paper="Shiri et al.: Recovering Faces from Portraits with Auxiliary Facial Attributes, "
        "WACV 2019",
        data=MANY_STYLES,
    ),
    _row(
        name="fdnn-tann",
        sha256="33e3e9e7efef0ad8b5331da6ac528e1d12bf4d9c538d4e24383f222c25fe52ef",
        paper="Yu, Shiri et al.: Can We See More?, TPAMI 2020",
        data=f"{PHOTOS}; 13,167 near-frontal photos seen from five angles each",
    ),
    _row(
        name="attributes",
        sha256="12589dd0d0d8a1d2596767d0cb62c8691e71302cc69c64126c4d1a21aca1b31b",
        paper="Liu et al.: Deep Learning Face Attributes in the Wild, ICCV 2015 (the labels)",
        data="CelebA (test partition); portraits of its photos in 8 styles",
    ),
    _style(
        "the-scream",
        "Munch, The Scream",
        "86782c00e7dfbf56e23c2f830d7628baa6d0bf9cbecb711274cb82c540c058e1",
    ),
    _style(
        "starry-night",
        "van Gogh, The Starry Night",
        "7ec2a24b11f8cf53da70486b3e101b7a23af34e6d6af3e813020ab165e2bf9a4",
    ),
    _style(
        "composition-vii",
        "Kandinsky, Composition VII",
        "ef78836def72d7be43080048b5249c41a9101ceee9d291fc31345d68deb2e4f0",
    ),
    _style(
        "udnie",
        "Picabia, Udnie",
        "f43b92ae7b2494f3aa652b981b2e94b0de12dc58feafd1d91a170085af2c2648",
    ),
)

WEIGHTS: dict[str, Published] = {row.name: row for row in _ROWS}
