"""Lives of a command that end by kill -9 at chosen moments, and a last one that goes on to its end.

    python -m tests.train.killing LIVES.json

The file says which module's `main` is called with which arguments, and for each life the moment of
its death: `[what, which time]` of what is in `MOMENTS`, `["time", seconds]`, or null for none. The
exit codes are printed as JSON: that of a kill is negative.
"""

import importlib
import io
import json
import multiprocessing
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from PIL import Image

# Where a process can be copied, everything is imported once for all lives.
HOW = "fork" if sys.platform == "linux" else "spawn"


def die() -> None:
    """At once, as by kill -9 from outside: nothing is tidied up."""
    os.kill(os.getpid(), 9)


def at(time: int, do: Callable[..., object], real: Callable[..., Any]) -> Callable[..., Any]:
    """`real`, but `do` the so manieth time that it is called."""
    calls = 0

    def instead(*arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == time:
            do(*arguments, **options)
        return real(*arguments, **options)

    return instead


def in_a_step(time: int) -> None:
    """With the gradients of a network, before it moves: odd times the discriminator's."""
    torch.optim.Adam.step = at(time, lambda *_, **__: die(), torch.optim.Adam.step)


def in_a_save(time: int) -> None:
    """With the half of a file of a checkpoint on the disk."""
    real = torch.save

    def half(what: object, path: Any, *_: Any, **__: Any) -> None:
        content = io.BytesIO()
        real(what, content)
        Path(path).write_bytes(content.getvalue()[: content.tell() // 2])
        die()

    torch.save = at(time, half, real)


def before_a_rename(time: int) -> None:
    """With a checkpoint that is complete, and not yet called one."""
    os.rename = at(time, lambda *_, **__: die(), os.rename)


def in_a_removal(time: int) -> None:
    """With an old checkpoint of which a part is gone."""
    real = shutil.rmtree

    def remove(path: Any, *arguments: Any, **options: Any) -> None:
        if Path(path).is_dir() and Path(path).suffix != ".partial":
            first(path)
        real(path, *arguments, **options)

    def half(path: Any) -> None:
        next(entry for entry in Path(path).iterdir() if entry.is_file()).unlink()
        die()

    first = at(time, half, lambda path: None)
    shutil.rmtree = remove


def in_a_sample(time: int) -> None:
    """With the half of a picture of the faces so far on the disk."""
    real = Image.Image.save

    def half(picture: Image.Image, path: Any, *_: Any, **__: Any) -> None:
        content = io.BytesIO()
        real(picture, content, format="PNG")
        Path(path).write_bytes(content.getvalue()[: content.tell() // 2])
        die()

    Image.Image.save = at(time, half, real)


def in_an_export(time: int) -> None:
    """With a part of the result written."""
    from face_destyle.models import base

    base._write = at(time, lambda *_, **__: die(), base._write)


def before(name: str) -> None:
    """With all of a file or folder `name` written beside its place, and not yet moved there."""
    real = os.replace

    def replace(source: Any, target: Any) -> None:
        if Path(target).match(name):
            die()
        real(source, target)

    os.replace = replace


MOMENTS: dict[str, Callable[[Any], None]] = {
    "step": in_a_step,
    "save": in_a_save,
    "rename": before_a_rename,
    "removal": in_a_removal,
    "sample": in_a_sample,
    "export": in_an_export,
    "before": before,
}


def live(module: str, changes: str, arguments: list[str], death: list[Any] | None) -> None:
    """One life; `changes` is code that is run first."""
    with open(os.devnull, "w") as silence:
        os.dup2(silence.fileno(), 1)
        os.dup2(silence.fileno(), 2)
    torch.set_num_threads(1)
    main = importlib.import_module(module).main
    exec(changes, {})
    if death and death[0] != "time":
        MOMENTS[death[0]](death[1])
    sys.exit(main(arguments))


def run(lives: dict[str, Any]) -> list[int | None]:
    """Live them one after the other; returns the exit codes."""
    context = multiprocessing.get_context(HOW)
    if HOW == "fork":
        for name in (lives["module"], "torch._dynamo", "torch.utils.tensorboard"):
            importlib.import_module(name)
    codes = []
    for death in lives["deaths"]:
        given = (lives["module"], lives.get("changes", ""), lives["arguments"], death)
        process = context.Process(target=live, args=given)
        process.start()
        if death and death[0] == "time":
            process.join(death[1])
            process.kill()
        process.join()
        codes.append(process.exitcode)
    return codes


if __name__ == "__main__":
    sys.stdout.write(json.dumps(run(json.loads(Path(sys.argv[1]).read_text()))) + "\n")
