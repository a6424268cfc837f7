"""Push to a Hub and load from it, each in a process of its own; then every way that it fails."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from face_destyle import FDNN, FDNNConfig, FDNNDiscriminator, HubModel, published
from tests import hub_server
from tests.train import made
from train import publish
from train.frozen import sha256

ROOT = Path(__file__).parent.parent
PUBLISHED = "style-udnie"
# Several calls of the command in one process: importing torch takes longer than all the rest.
PUSH = """
import contextlib, io, json, os, sys
from train import publish
results = []
for step in json.loads(sys.argv[1]):
    os.environ.update(step["environment"])
    said, failed = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(failed):
        code = publish.main(step["arguments"])
    results.append([code, said.getvalue(), failed.getvalue()])
print(json.dumps(results))
"""
LOAD = """
import json, sys, time
import huggingface_hub.constants
from face_destyle import HubModel, UserError
time.sleep = lambda seconds: None  # between the tries to reach a Hub that is down
results = {}
for name, step in json.loads(sys.argv[1]).items():
    huggingface_hub.constants.HF_HUB_OFFLINE = step.pop("offline", False)
    try:
        model = HubModel.from_pretrained(**step)
        results[name] = sum(p.double().abs().sum().item() for p in model.parameters())
    except UserError as error:
        results[name] = str(error)
print(json.dumps(results))
"""


@dataclass(frozen=True)
class Journey:
    """What the processes said, and what the Hub holds at the end."""

    folder: Path
    hub: hub_server.Hub
    pushed: list[tuple[int, str, str]]
    fresh: dict[str, Any]
    later: dict[str, Any]


def python(code: str, steps: object, environment: dict[str, str]) -> Any:
    """The JSON that a fresh process prints."""
    command = [sys.executable, "-c", code, json.dumps(steps)]
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGING"))}
    found = subprocess.run(
        command, env=clean | environment, capture_output=True, text=True, timeout=300
    )
    assert found.returncode == 0, found.stderr
    return json.loads(found.stdout.splitlines()[-1])


def checkpoint(weights: Path) -> float:
    """What `LOAD` prints of these weights."""
    model = HubModel.from_pretrained(weights)
    return sum(p.double().abs().sum().item() for p in model.parameters())


@pytest.fixture(scope="module")
def journey(tmp_path_factory: pytest.TempPathFactory) -> Journey:
    folder = tmp_path_factory.mktemp("hub")
    torch.manual_seed(0)
    config = FDNNConfig(
        encoder_widths=(8, 8, 8, 8), code_rank=4, decoder_widths=(8, 8, 8), tail_width=8
    )
    FDNN(config).save_pretrained(folder / "run")
    FDNNDiscriminator().save_pretrained(folder / "run" / "discriminator")
    publish.pack(folder / "run", made.recipe(folder, folder), folder / "tiny", [])
    (folder / "tiny" / "README.md").write_text("---\nlicense: other\n---\n# tiny\n")
    (folder / "tiny" / "sample.png").write_bytes(b"a picture of somebody")
    environment = {
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "NO_PROXY": "127.0.0.1",
        "OMP_NUM_THREADS": "1",
    }
    target = ["push", str(folder / "tiny"), "--repo", "org/tiny", "--tag", "v1"]
    allowed = {"HF_TOKEN": hub_server.TOKEN}
    steps = [
        {"arguments": target, "environment": {}},
        {"arguments": target, "environment": allowed},
        {"arguments": target, "environment": {}},
        {"arguments": ["push", PUBLISHED, "--cards", str(ROOT / "cards")], "environment": allowed},
    ]
    with hub_server.serve() as hub:
        online = environment | {"HF_ENDPOINT": hub.url}
        pushed = python(PUSH, steps, online | {"HF_HOME": str(folder / "first")})
        for how in ("cut", "scrambled", "once"):
            hub.repositories[f"org/{how}"] = hub.repositories["org/tiny"]
            hub.broken[f"org/{how}"] = how
        loads = {
            "tag": load("org/tiny", revision="v1"),
            "commit": load("org/tiny", revision=hub.repositories["org/tiny"].main),
            "discriminator": load("org/tiny", revision="v1", subfolder="discriminator"),
            "wrong revision": load("org/tiny", revision="v9"),
            "nobody": load("org/nobody"),
            "cut": load("org/cut", revision="v1"),
            "scrambled": load("org/scrambled", revision="v1"),
            "damaged": load("org/once", revision="v1"),
            "once more": load("org/once", revision="v1", force_download=True),
            "published": load(PUBLISHED, force_download=True),
        }
        home = {"HF_HOME": str(folder / "second")}
        fresh = python(LOAD, loads, online | home)
    empty = str(folder / "empty")
    loads = {
        "no network": load("org/tiny", revision="v1"),
        "offline": load("org/tiny", revision="v1", offline=True),
        "local files only": load("org/tiny", revision="v1", local_files_only=True),
        "other revision": load("org/tiny", revision="v2", local_files_only=True),
        "no network, no cache": load("org/tiny", revision="v1", cache_dir=empty),
        "offline, no cache": load("org/tiny", revision="v1", cache_dir=empty, offline=True),
        "published": load(PUBLISHED, cache_dir=empty),
    }
    later = python(LOAD, loads, online | home)
    return Journey(folder, hub, [tuple(result) for result in pushed], fresh, later)


def load(name: str, **options: object) -> dict[str, object]:
    return {"pretrained_model_name_or_path": name, **options}


def test_a_push_needs_a_token(journey: Journey) -> None:
    code, said, failed = journey.pushed[0]
    assert (code, said) == (2, "")
    (line,) = failed.splitlines()
    assert "does not let you write to org/tiny" in line and "hf auth login" in line


def test_a_push_is_one_commit_with_a_tag(journey: Journey) -> None:
    repository = journey.hub.repositories["org/tiny"]
    assert journey.pushed[1] == (0, f"{journey.hub.url}/org/tiny/commit/{repository.main}\n", "")
    assert repository.tags == {"v1": repository.main}
    assert len(repository.commits) == 2  # the empty one, and ours
    files = repository.commits[repository.main]
    assert set(files) == set(publish.uploaded(journey.folder / "tiny"))
    assert "discriminator/model.safetensors" in files and "sample.png" not in files
    for name, content in files.items():
        assert content == (journey.folder / "tiny" / name).read_bytes(), name


def test_a_published_name_is_pushed_to_and_loaded_from_its_own_place(journey: Journey) -> None:
    row = published.WEIGHTS[PUBLISHED]
    repository = journey.hub.repositories[row.repo_id]
    address = f"{journey.hub.url}/{row.repo_id}/commit/{repository.main}\n"
    assert journey.pushed[3] == (0, address, "")
    assert repository.tags == {row.tag: repository.main}
    assert ("GET", f"/{row.repo_id}/resolve/{row.tag}/model.safetensors") in journey.hub.requests
    # And without a network from the package itself.
    assert journey.fresh["published"] == journey.later["published"] == checkpoint(row.folder())


def test_a_damaged_download_is_mended_as_its_error_says(journey: Journey) -> None:
    assert "load it once more with force_download=True" in journey.fresh["damaged"]
    assert journey.fresh["once more"] == journey.fresh["tag"]


def test_a_tag_is_never_moved(journey: Journey) -> None:
    code, _, failed = journey.pushed[2]
    assert code == 2
    assert failed == "org/tiny has a tag v1 already: give another --tag\n"


def test_a_fresh_process_loads_what_was_pushed(journey: Journey) -> None:
    weights = checkpoint(journey.folder / "tiny")
    assert journey.fresh["tag"] == journey.fresh["commit"] == weights
    judge = checkpoint(journey.folder / "tiny" / "discriminator")
    assert journey.fresh["discriminator"] == judge != weights
    blobs = list(
        (journey.folder / "second").rglob(sha256(journey.folder / "tiny" / "model.safetensors"))
    )
    assert blobs, "loaded from the cache of the second process, not from anywhere else"


@pytest.mark.parametrize("name", ["no network", "offline", "local files only"])
def test_without_a_network_the_cache_serves(journey: Journey, name: str) -> None:
    assert journey.later[name] == journey.fresh["tag"]


@pytest.mark.parametrize(
    ("when", "name", "said"),
    [
        ("fresh", "wrong revision", "org/tiny has no revision v9"),
        ("fresh", "nobody", "org/nobody is not on the Hub, or not for you"),
        ("fresh", "cut", "cannot get model.safetensors of org/cut from the Hub: Consistency check"),
        ("fresh", "scrambled", "is damaged: load it once more with force_download=True"),
        ("later", "other revision", "org/tiny is not in the local cache"),
        ("later", "no network, no cache", "the Hub was not reached: connect once"),
        ("later", "offline, no cache", "the Hub was not reached: connect once"),
    ],
)
def test_each_failure_is_one_line(journey: Journey, when: str, name: str, said: str) -> None:
    (line,) = str(getattr(journey, when)[name]).splitlines()
    assert said in line


def test_half_a_download_is_not_kept(journey: Journey) -> None:
    cached = journey.folder / "second" / "hub" / "models--org--cut"
    assert [path.name for path in cached.rglob("*.json")] == ["config.json"]
    assert not list(cached.rglob("*.incomplete"))
    assert not list(cached.rglob("*.safetensors"))
