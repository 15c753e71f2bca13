"""Settings small enough to train in a test, a model of such a size, and the project's root."""

from pathlib import Path
from typing import Any

from pipeline.artifacts.weights import save_weights
from pipeline.lm.model import build_model
from pipeline.lm.settings import Settings
from pipeline.project.files import MODELS

ROOT = Path(__file__).parent.parent

CELLS = ["lstm", "gru", "gru_textbook"]


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


def save_small_model(
    name: str, vocabulary: tuple[str, ...], fingerprint: str = "f1a9", **overrides: Any
) -> tuple[Path, Settings]:
    """An untrained model's file under results/models of the current folder."""
    settings = small_settings(init_range=0.5, **overrides)
    path = MODELS / name / "model.safetensors"
    weights = build_model(settings, len(vocabulary)).state_dict()
    save_weights(path, weights, settings, vocabulary, fingerprint)
    return path, settings
