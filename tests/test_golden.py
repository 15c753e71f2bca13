"""The first steps of every default model, pinned: a refactoring or a change of speed must not move them.

When a change is meant to move them, `python -m tests.test_golden` prints the new trajectories.
"""

import tempfile
from pathlib import Path

import pytest
import torch

from pipeline.lm.batching import Batches
from pipeline.lm.model import build_model
from pipeline.lm.training import Training, train_epoch
from pipeline.params import load_params
from pipeline.preprocess import build_vocabulary, encode
from pipeline.sample import write
from tests.small import ROOT

WINDOWS = (1, 2, 5, 10, 20)

# Mean loss in nats a token over the first so many windows of the sample corpus, dropout included, in float32.
GOLDEN: dict[str, list[float]] = {
    "lstm_dropout": [4.40036, 4.383995, 4.306053, 4.202999, 4.116596],
    "lstm": [4.398481, 4.383104, 4.304703, 4.19764, 4.115031],
    "gru_dropout": [4.407463, 4.389339, 4.290374, 4.195959, 4.118281],
    "gru": [4.405766, 4.380979, 4.282297, 4.184601, 4.10857],
}


def trajectory(name: str, folder: Path) -> list[float]:
    """As in GOLDEN, of a model of params.yaml."""
    write(folder)
    text = folder / "sample.train.txt"
    vocabulary = build_vocabulary(text)
    ids = torch.from_numpy(encode(text, vocabulary).astype("int64"))
    recipe = load_params(ROOT / "params.yaml").model(name)
    settings = recipe.model_copy(update={"device": "cpu", "precision": "float32"})
    losses = []
    for windows in WINDOWS:
        training = Training(build_model(settings, len(vocabulary)), settings)
        batches = Batches(ids[: windows * settings.batch_size * settings.bptt + 1], settings.batch_size, settings.bptt)
        torch.manual_seed(settings.seed)
        losses.append(train_epoch(training.model, training.optimizer, batches, settings)[0])
    return losses


@pytest.mark.parametrize("name", GOLDEN)
def test_the_first_steps_are_as_they_were(name: str, tmp_path: Path) -> None:
    assert trajectory(name, tmp_path) == pytest.approx(GOLDEN[name], rel=1e-4)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        for name in GOLDEN:
            print(f'    "{name}": {[round(loss, 6) for loss in trajectory(name, Path(folder))]},')
