"""A trained model as a single file: weights, settings and vocabulary (safetensors: nothing is ever unpickled)."""

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


TIED, TO = "output.weight", "embedding.weight"  # with tied weights one tensor, which is saved once


class Description(Strict):
    """The metadata in a file of weights.

    lower_case: whether the training text was converted to lower case
    gpu: the GPU that it was trained on; None for a CPU
    data_sha256: the fingerprint of its corpus; None in older files
    sha256: of the other metadata and of the weights; None in older files
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
    """A model with its best weights, its settings and its vocabulary."""

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

    tied = {TIED} if settings.tied_weights else set()
    weights = {name: weight.cpu().contiguous() for name, weight in weights.items() if name not in tied}
    description: dict[str, Any] = {
        "settings": settings.essentials(),
        "vocabulary": vocabulary,
        "fingerprint": fingerprint,
    }
    optional = {"lower_case": lower_case, "gpu": gpu, "data_sha256": data_sha256}
    description |= {name: value for name, value in optional.items() if value}
    description["sha256"] = _sha256(description, weights)
    # One entry, because the format guarantees no order among several.
    data = save(weights, {"model": json.dumps(description, ensure_ascii=False)})
    with atomic_write(path, "wb") as file:
        file.write(data)


def load_weights(path: Path) -> TrainedModel:
    """Build a new model on the CPU and load the saved weights into it.

    Raises UserError if the file is missing, damaged, or not a model of this project.
    """
    from pipeline.lm.model import build_model

    description = read_description(path)
    try:
        with safe_open(path, framework="pt") as file:
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
            rest = json.loads(file.metadata()["model"])
        if description.sha256 and rest.pop("sha256") != _sha256(rest, weights):
            raise _damaged(path, ValueError("its SHA-256 does not match"))
        if description.settings.tied_weights and TO in weights:
            weights[TIED] = weights[TO]
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
            f"{path} not found: `make repro` restores or trains it; `dvc pull` fetches it from a shared store"
        )
    try:
        with safe_open(path, framework="np") as file:
            return Description.model_validate_json(file.metadata()["model"])
    except (SafetensorError, ValidationError, KeyError, TypeError) as error:
        raise _damaged(path, error) from None
    except OSError as error:  # its message does not name the file
        raise UserError(f"{path} cannot be read ({error}): move it away, then `dvc checkout {path}`") from None


def _sha256(description: dict[str, Any], weights: dict[str, "Tensor"]) -> str:
    digest = hashlib.sha256(json.dumps(description, ensure_ascii=False).encode())
    for name, weight in sorted(weights.items()):
        digest.update(f"{name} {weight.dtype} {list(weight.shape)}".encode())
        digest.update(weight.numpy().tobytes())
    return digest.hexdigest()


def _damaged(path: Path, error: Exception) -> UserError:
    reason = str(error).splitlines()[0]
    return UserError(f"{path} is not a complete model of this project ({reason}): run `dvc checkout {path}`")
