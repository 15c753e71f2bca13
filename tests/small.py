"""Settings small enough to train in a test, a model of such a size, the project's root and its params files."""

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pipeline.artifacts.weights import save_weights
from pipeline.lm.distillation import Teacher, read
from pipeline.lm.model import LanguageModel, build_model
from pipeline.lm.settings import Settings
from pipeline.lm.training import train_layout
from pipeline.project.files import MODELS
from pipeline.settings.params import parse_params, parse_yaml
from pipeline.settings.recipes import apply_recipe, read_base
from pipeline.settings.schema import Params

ROOT = Path(__file__).parent.parent
KEPT_SETTINGS: dict[str, dict[str, Any]] = json.loads((ROOT / "docs/recipes/settings.json").read_text())

COMMITTED = read_base(ROOT)  # params.yaml as committed, even where a recipe is applied to it

CELLS = ["lstm", "gru", "gru_textbook"]
OPTIMIZERS = [{"name": "sgd", "momentum": 0.8, "weight_decay": 0.01}, {"name": "adamw", "weight_decay": 0.01}]


def small_settings(**overrides: Any) -> Settings:
    """The default recipe with 16 units and 3 epochs, on the CPU; any setting may be overridden."""
    settings: dict[str, Any] = {
        "cell": "lstm",
        "num_layers": 2,
        "hidden_size": 16,
        "embedding_size": 16,
        "tied_weights": False,
        "dropout": 0.0,
        "embedding_dropout": None,
        "output_dropout": None,
        "locked_dropout": False,
        "weight_dropout": 0.0,
        "init_range": 0.1,
        "epochs": 3,
        "batch_size": 4,
        "bptt": 5,
        "random_windows": False,
        "loss": "mean",
        "optimizer": {"name": "sgd", "momentum": 0.8, "weight_decay": 0.0},
        "learning_rate": 1.0,
        "schedule": {"name": "decay", "constant_epochs": 15, "decay": 0.98},
        "max_grad_norm": 5.0,
        "seed": 1,
        "device": "cpu",
        "precision": "float32",
    }
    return Settings.model_validate(settings | overrides)


def that_have_read(
    text: Tensor, settings: Settings, models: Sequence[LanguageModel], dtype: torch.dtype = torch.float16
) -> list[Teacher]:
    """Models as teachers of one with these settings, which have read its training text [length]; as trained, in half
    precision.
    """
    layout = train_layout(text, settings)
    features = [torch.cat([part.to(dtype) for part in read(model, layout, "float32")]) for model in models]
    return [
        Teacher(its, model.output.weight.detach(), model.output.bias.detach())
        for its, model in zip(features, models, strict=True)
    ]


def everything(cell: str, optimizer: dict[str, Any]) -> Settings:
    """Small settings with tied weights, a schedule and dropout of every kind."""
    return small_settings(
        cell=cell,
        optimizer=optimizer,
        learning_rate=0.1,
        schedule={"name": "linear", "warmup": 0.1},
        dropout=0.4,
        weight_dropout=0.2,
        tied_weights=True,
    )


def committed_document() -> dict[str, Any]:
    return parse_yaml(COMMITTED, Path("params.yaml"))


def committed_params() -> Params:
    return parse_params(committed_document())


def default_params() -> str:
    """The text of a params.yaml with the settings of the kept default runs, whatever people make of the real one."""
    models = {
        run.removeprefix("default-"): settings for run, settings in KEPT_SETTINGS.items() if run.startswith("default-")
    }
    kept = {"recipe": "default", "processes": 1, "train": models["lstm"], "models": models}
    return json.dumps(committed_document() | kept | {"evaluate": {"dynamic": None}})


@cache
def recipe_text(name: str) -> str:
    """The text of the params file that one of the project's recipes makes of that; of `default`, that itself."""
    return default_params() if name == "default" else apply_recipe(default_params(), ROOT / f"recipes/{name}.yaml")


def recipe_params(name: str) -> Params:
    return parse_params(parse_yaml(recipe_text(name), Path(name)))


def save_small_model(
    name: str, vocabulary: tuple[str, ...], fingerprint: str = "f1a9", **overrides: Any
) -> tuple[Path, Settings]:
    """An untrained model's file under results/models of the current folder."""
    settings = small_settings(init_range=0.5, **overrides)
    path = MODELS / name / "model.safetensors"
    weights = build_model(settings, len(vocabulary)).state_dict()
    save_weights(path, weights, settings, vocabulary, fingerprint)
    return path, settings
