"""What every network of the package shares: config <-> folder <-> Hub, and `recover`.

A saved network is a folder with `config.json` (its `model_type` and the fields of its config
dataclass) and one `model.safetensors`. It builds on huggingface_hub's `PyTorchModelHubMixin` for
`push_to_hub`, but loads by itself: the mixin's own loader accepts missing keys and unknown config
fields without a word.
"""

import contextlib
import dataclasses
import hashlib
import json
import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self, cast, overload

import torch
from huggingface_hub import PyTorchModelHubMixin, hf_hub_download
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import nn

from face_destyle import images, published
from face_destyle.configs import config_from_dict
from face_destyle.errors import WeightsError
from face_destyle.version import __version__

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
FORMAT_VERSION = 1
# httpx in huggingface_hub 1.x, httpx2 in 2.x: what it raises where the Hub is not reached.
HTTPError = cast(type[Exception], HfHubHTTPError.__mro__[1])
REGISTRY: dict[str, type["HubModel"]] = {}

logger = logging.getLogger(__name__)

CARD_TEMPLATE = """---
{{ card_data }}
---

Saved with [face_destyle](https://github.com/face-destyle/face-destyle).

```python
from face_destyle import HubModel
model = HubModel.from_pretrained("this folder or its id on the Hub")
```
"""


@contextlib.contextmanager
def inference(network: nn.Module) -> Iterator[None]:
    """Run a network as in use, without gradients; then it is in the mode that it was in."""
    was_training = network.training
    network.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        network.train(was_training)


class HubModel(
    nn.Module,
    PyTorchModelHubMixin,
    library_name="face_destyle",
    pipeline_tag="image-to-image",
    model_card_template=CARD_TEMPLATE,
):
    """A network that is saved to and loaded from a folder or the Hub.

    A subclass declares `model_type`, the key that config.json and the registry know it by, and
    `config_class`, a frozen dataclass with a default for every field.
    """

    model_type: ClassVar[str] = ""
    conditional: ClassVar[bool] = False  # a discriminator that sees the portrait too
    takes_attributes: ClassVar[bool] = False  # `forward` has a last argument `attributes`
    config_class: ClassVar[type[Any]]
    config: Any

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if cls.model_type:
            REGISTRY[cls.model_type] = cls

    def _save_pretrained(self, save_directory: Path) -> None:
        """Write config and weights, each complete or not at all, in the network's own dtype."""
        fields = {
            "model_type": self.model_type,
            "format_version": FORMAT_VERSION,
            "face_destyle_version": __version__,
            **dataclasses.asdict(self.config),
        }
        # safetensors stores plain memory: channels_last weights are laid out anew.
        state = {name: tensor.contiguous() for name, tensor in self.state_dict().items()}
        _write(save_directory / WEIGHTS_FILE, save(state, metadata={"format": "pt"}))
        # Last: the mixin has removed an older one, so that a save that fails leaves no folder
        # in which weights and config belong to different networks.
        _write(save_directory / CONFIG_FILE, (json.dumps(fields, indent=2) + "\n").encode())

    @classmethod
    def from_pretrained(  # type: ignore[override]  # the mixin takes **model_kwargs, we refuse them
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        force_download: bool = False,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        revision: str | None = None,
        subfolder: str | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> Self:
        """Load a network, in eval mode, on the CPU.

        Args:
            pretrained_model_name_or_path: a published name such as `"fdnn"`; else a folder with
                a config.json; else `"org/name"` on the Hub. In this order.
            subfolder: `"discriminator"` for the discriminator beside a generator.
            dtype: of the parameters; published files are stored in float16.
            force_download, token, cache_dir, local_files_only, revision: as in huggingface_hub.
                A published name comes from the installed package, unless a `revision` or
                `force_download` asks for the Hub.

        Returns:
            The class that the config names, which must be the class that was asked for, or one
            of its subclasses.

        Raises:
            WeightsError: nothing by that name, or files that do not fit the network.
        """
        name = str(pretrained_model_name_or_path)
        download = {
            "force_download": force_download,
            "token": token,
            "cache_dir": cache_dir,
            "local_files_only": local_files_only,
            "revision": revision,
        }
        config_path = find_file(name, CONFIG_FILE, subfolder, download)
        klass, config = read_config(config_path)
        if not issubclass(klass, cls):
            raise WeightsError(
                f"{name} holds a {klass.model_type} network: load it with {klass.__name__}, "
                f"not {cls.__name__}"
            )
        try:
            model = klass(config)
        except (ValueError, TypeError, RuntimeError, ArithmeticError) as error:
            raise WeightsError(f"{config_path}: no network has these numbers: {error}") from error
        load_weights(model, find_file(name, WEIGHTS_FILE, subfolder, download))
        return model.to(dtype).eval()


def _write(path: Path, content: bytes) -> None:
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.write_bytes(content)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def find_file(name: str, filename: str, subfolder: str | None, download: dict[str, Any]) -> Path:
    """One file of a saved network: published name -> folder with config.json -> Hub id.

    Raises:
        WeightsError: it is in none of the three places; says what to do.
    """
    row = published.WEIGHTS.get(name)
    folder = row.folder() if row else Path(name)
    inner = folder / subfolder if subfolder else folder
    from_hub = bool(row) and bool(download["revision"] or download["force_download"])
    # os.path answers False for a name that no file can have; Path raises.
    if not from_hub and os.path.isdir(folder) and (row or os.path.isfile(folder / CONFIG_FILE)):
        if os.path.isfile(inner / filename):
            return inner / filename
        raise WeightsError(f"{inner} has no {filename}")
    if row is None and os.path.exists(folder):
        raise WeightsError(f"{folder} is no saved network: it has no {CONFIG_FILE}")
    if row is None and name.count("/") != 1:
        known = ", ".join(published.WEIGHTS)
        raise WeightsError(
            f"no weights named {name}: use a published name ({known}), "
            f"a folder with {CONFIG_FILE}, or org/name on the Hub"
        )
    repo, tag = (row.repo_id, row.tag) if row else (name, None)
    download = {**download, "revision": download["revision"] or tag}
    return _download(repo, filename, subfolder, download)


def weights_file(name: str, subfolder: str | None = None) -> Path:
    """The file with the weights that `from_pretrained` loads by this name.

    Raises:
        WeightsError: it is in none of the three places; says what to do.
    """
    download = {"revision": None, "force_download": False}
    return find_file(str(name), WEIGHTS_FILE, subfolder, download)


def _download(repo: str, filename: str, subfolder: str | None, download: dict[str, Any]) -> Path:
    try:
        path = Path(
            hf_hub_download(
                repo,
                filename,
                subfolder=subfolder,
                library_name="face_destyle",
                library_version=__version__,
                **download,
            )
        )
    except LocalEntryNotFoundError as error:
        raise WeightsError(
            f"{repo} is not in the local cache and the Hub was not reached: "
            "connect once, or give the path of a downloaded folder"
        ) from error
    except RevisionNotFoundError as error:
        raise WeightsError(f"{repo} has no revision {download['revision']} on the Hub") from error
    except RepositoryNotFoundError as error:
        raise WeightsError(
            f"{repo} is not on the Hub, or not for you: check the name, "
            "or log in by `hf auth login`"
        ) from error
    # ValueError: force_download without a network.
    except (HTTPError, HFValidationError, OSError, ValueError) as error:
        first_line = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise WeightsError(f"cannot get {filename} of {repo} from the Hub: {first_line}") from error
    _check_content(path, repo)
    return path


def _check_content(path: Path, repo: str) -> None:
    """Raise a WeightsError where a large file is not what the Hub says it is.

    It lies in the cache under its sha256, which huggingface_hub itself never looks at.
    """
    wanted = path.resolve().name
    if len(wanted) == 64 and hashlib.sha256(path.read_bytes()).hexdigest() != wanted:
        raise WeightsError(
            f"{path.name} of {repo} is damaged: load it once more with force_download=True"
        )


def read_config(path: Path) -> tuple[type[HubModel], Any]:
    """The class and the config that a config.json names.

    Raises:
        WeightsError: no JSON object, an unknown model_type, an unknown key, a value of the
            wrong type; named.
    """
    try:
        fields = json.loads(path.read_text())
    except (ValueError, OSError) as error:
        raise WeightsError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(fields, dict):
        raise WeightsError(f"{path} holds no JSON object")
    model_type = fields.pop("model_type", None)
    if not isinstance(model_type, str) or model_type not in REGISTRY:
        raise WeightsError(
            f"{path}: model_type is {model_type!r}; known are {', '.join(sorted(REGISTRY))}"
        )
    version = fields.pop("format_version", None)
    fields.pop("face_destyle_version", None)
    if version != FORMAT_VERSION:
        raise WeightsError(
            f"{path}: format_version is {version!r}, this release reads {FORMAT_VERSION}; "
            "update face_destyle"
        )
    klass = REGISTRY[model_type]
    return klass, config_from_dict(klass.config_class, fields, str(path))


def load_weights(model: nn.Module, path: Path) -> None:
    """Load a safetensors file into a network, strictly; the network keeps its dtype.

    Raises:
        WeightsError: a truncated file, missing or unexpected keys, other shapes; named.
    """
    try:
        state = load_file(path)
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path} is damaged or no safetensors file: {error}") from error
    expected = model.state_dict()
    problems = [f"missing {key}" for key in expected if key not in state]
    problems += [f"unexpected {key}" for key in state if key not in expected]
    problems += [
        f"{key} is {list(state[key].shape)}, the network has {list(tensor.shape)}"
        for key, tensor in expected.items()
        if key in state and state[key].shape != tensor.shape
    ]
    if problems:
        more = f" (and {len(problems) - 3} more)" if len(problems) > 3 else ""
        raise WeightsError(f"{path} does not fit its config: {'; '.join(problems[:3])}{more}")
    model.load_state_dict(state)


@dataclasses.dataclass
class Recovered:
    """What a recovery network returns.

    Attributes:
        photo: `(N, 3, 128, 128)` RGB in [-1, 1], clamped in eval mode.
        alignment: `(N, 2, 3)`, frame -> input, or None where a network does not align.
        attributes: in training mode, of a network that reads them in the portrait: logits
            `(N, 18)`.
    """

    photo: torch.Tensor
    alignment: torch.Tensor | None = None
    attributes: torch.Tensor | None = None


class FaceModel(HubModel):
    """A network that recovers a photo of a face from another picture of it.

    Example:

    ```python
    from face_destyle import FaceModel
    model = FaceModel.from_pretrained("fdnn")
    model.recover("portrait.jpg").save("photo.png")
    ```
    """

    expects_aligned: ClassVar[bool] = False

    @property
    def input_size(self) -> int:
        """The side of the square picture that the network takes, in pixels."""
        return int(self.config.image_size)

    def check_input(self, portraits: torch.Tensor) -> None:
        """Raise a ValueError that names the shape to use, where the shape is another."""
        side = self.input_size
        if portraits.dim() != 4 or tuple(portraits.shape[1:]) != (3, side, side):
            raise ValueError(
                f"{type(self).__name__} takes (N, 3, {side}, {side}) in [-1, 1], "
                f"not {tuple(portraits.shape)}; for pictures of any size use recover()"
            )

    @overload  # a str is a sequence of str too, but as a picture it is the path of one
    def recover(  # type: ignore[overload-overlap]
        self, pictures: images.Source, *, batch_size: int = 8
    ) -> Image.Image: ...
    @overload
    def recover(
        self, pictures: Sequence[images.Source], *, batch_size: int = 8
    ) -> list[Image.Image]: ...
    def recover(
        self, pictures: images.Source | Sequence[images.Source], *, batch_size: int = 8
    ) -> Image.Image | list[Image.Image]:
        """Recover faces: the centre square of a picture, resized, is taken as the face.

        Args:
            pictures: a path, a PIL picture, an `(H, W, 3)` uint8 array, or a list of these.
            batch_size: how many of a list go through the network at a time.

        Returns:
            A 128 x 128 picture, or a list of them; the same picture for the same input, and
            alone or in a list the same but for the rounding of float32, at most one of 255
            levels.

        Raises:
            PictureError: a picture that cannot be read.
        """
        single = not isinstance(pictures, list | tuple)
        sources = [cast(images.Source, pictures)] if single else list(cast(Sequence[Any], pictures))
        recovered: list[Image.Image] = []
        for start in range(0, len(sources), batch_size):
            squares = [
                images.centre_square(images.load_picture(source))
                for source in sources[start : start + batch_size]
            ]
            recovered += self._recover_squares(squares)
        return recovered[0] if single else recovered

    def _recover_squares(self, squares: list[Image.Image]) -> list[Image.Image]:
        parameter = next(self.parameters())
        portraits = images.to_tensor(squares, self.input_size).to(parameter)
        with inference(self):
            photos = self(portraits).photo
        return [images.to_picture(photo) for photo in photos]
