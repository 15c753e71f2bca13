"""A trained model as one file of data: weights, settings and vocabulary (safetensors, nothing is ever unpickled)."""

import json
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from pipeline.console import UserError
from pipeline.files import atomic_write
from pipeline.lm.model import LanguageModel, build_model
from pipeline.lm.settings import Settings


@dataclass(frozen=True)
class TrainedModel:
    """A model with its best weights, and what it came from."""

    model: LanguageModel
    settings: Settings
    vocabulary: tuple[str, ...]
    fingerprint: str


def save_weights(
    path: Path, weights: dict[str, Tensor], settings: Settings, vocabulary: tuple[str, ...], fingerprint: str
) -> None:
    """Write a model's file; the same model gives the same bytes."""
    description = {"settings": settings.model_dump(), "vocabulary": vocabulary, "fingerprint": fingerprint}
    # One entry, because the format does not promise an order of several.
    metadata = {"model": json.dumps(description, ensure_ascii=False)}
    data = save({name: weight.cpu().contiguous() for name, weight in weights.items()}, metadata)
    with atomic_write(path, "wb") as file:
        file.write(data)


def load_weights(path: Path) -> TrainedModel:
    """Build the model afresh, on the CPU, and fill it with the saved weights.

    Raises UserError when the file is missing, truncated, or not such a model.
    """
    if not path.exists():
        raise UserError(f"{path} not found: train it with `dvc repro`, or restore it with `dvc checkout` or `dvc pull`")
    try:
        with safe_open(path, framework="pt") as file:
            description = json.loads(file.metadata()["model"])
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        settings = Settings.model_validate(description["settings"])
        vocabulary = tuple(description["vocabulary"])
        model = build_model(settings, len(vocabulary))
        model.load_state_dict(weights)
        return TrainedModel(model, settings, vocabulary, description["fingerprint"])
    except (SafetensorError, ValidationError, KeyError, TypeError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{path} is not a whole model of this project ({reason}): run `dvc repro` again") from None
