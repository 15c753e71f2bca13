"""A trained model as a single data file: weights, settings and vocabulary (safetensors, nothing is ever unpickled)."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError
from safetensors import SafetensorError, safe_open

from pipeline.lm.settings import Settings, Strict
from pipeline.project.console import UserError, ran_out_of_memory
from pipeline.project.files import MODELS, atomic_write

if TYPE_CHECKING:  # torch takes seconds to import, and a description is read without it
    from torch import Tensor

    from pipeline.lm.model import LanguageModel


class Description(Strict):
    """What a file says about its weights.

    lower_case: whether the model's text was turned into lower case
    gpu: what it was trained on; None for a CPU
    data_sha256: the fingerprint of the corpus that it was trained on; None in older files
    sha256: of the description's other entries and of the weights; None in older files
    """

    settings: Settings
    vocabulary: list[str]
    fingerprint: str
    lower_case: bool = False
    gpu: str | None = None
    data_sha256: str | None = None
    sha256: str | None = None


@dataclass(frozen=True)
class TrainedModel:
    """A model with its best weights, and what it was trained with."""

    model: "LanguageModel"
    settings: Settings
    vocabulary: tuple[str, ...]
    fingerprint: str
    lower_case: bool = False
    gpu: str | None = None


def weights_path(model: str) -> Path:
    return MODELS / model / "model.safetensors"


def save_weights(
    path: Path,
    weights: dict[str, "Tensor"],
    settings: Settings,
    vocabulary: tuple[str, ...],
    fingerprint: str,
    *,
    lower_case: bool = False,
    gpu: str | None = None,
    data_sha256: str | None = None,
) -> None:
    """Write a model's file; the same model gives the same bytes. See `Description` for what goes into it."""
    from safetensors.torch import save

    weights = {name: weight.cpu().contiguous() for name, weight in weights.items()}
    description: dict[str, Any] = {
        "settings": settings.essentials(),
        "vocabulary": vocabulary,
        "fingerprint": fingerprint,
    }
    if lower_case:
        description["lower_case"] = True
    if gpu:
        description["gpu"] = gpu
    if data_sha256:
        description["data_sha256"] = data_sha256
    description["sha256"] = _sha256(description, weights)
    # One entry, because the format does not promise an order of several.
    data = save(weights, {"model": json.dumps(description, ensure_ascii=False)})
    with atomic_write(path, "wb") as file:
        file.write(data)


def load_weights(path: Path) -> TrainedModel:
    """Build the model anew, on the CPU, and load the saved weights into it.

    Raises UserError if the file is missing, damaged, or not a model of this project.
    """
    from pipeline.lm.model import build_model

    description = read_description(path)
    try:
        with safe_open(path, framework="pt") as file:
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
            rest = json.loads(file.metadata()["model"])
        if description.sha256 and rest.pop("sha256") != _sha256(rest, weights):
            raise _damaged(path, ValueError("its SHA-256 is another"))
        model = build_model(description.settings, len(description.vocabulary))
        model.load_state_dict(weights)
    except (SafetensorError, RuntimeError) as error:
        if ran_out_of_memory(error):
            raise
        raise _damaged(path, error) from None
    return TrainedModel(
        model,
        description.settings,
        tuple(description.vocabulary),
        description.fingerprint,
        description.lower_case,
        description.gpu,
    )


def read_description(path: Path) -> Description:
    """Read it without PyTorch. Raises UserError if the file is missing or not a model of this project."""
    if not path.exists():
        raise UserError(
            f"{path} not found: `make repro` brings it or trains it; `dvc pull` brings it from a store that you share"
        )
    try:
        with safe_open(path, framework="np") as file:
            return Description.model_validate_json(file.metadata()["model"])
    except (SafetensorError, ValidationError, KeyError, TypeError) as error:
        raise _damaged(path, error) from None
    except OSError as error:  # whose words do not name the file
        raise UserError(f"{path} cannot be read ({error}): move it away, then `dvc checkout {path}`") from None


def _sha256(description: dict[str, Any], weights: dict[str, "Tensor"]) -> str:
    digest = hashlib.sha256(json.dumps(description, ensure_ascii=False).encode())
    for name, weight in sorted(weights.items()):
        digest.update(f"{name} {weight.dtype} {list(weight.shape)}".encode())
        digest.update(weight.numpy().tobytes())
    return digest.hexdigest()


def _damaged(path: Path, error: Exception) -> UserError:
    reason = str(error).splitlines()[0]
    return UserError(f"{path} is not a whole model of this project ({reason}): run `dvc checkout {path}`")
