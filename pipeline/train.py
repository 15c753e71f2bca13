"""Train one model of params.yaml. Interrupted, the same command goes on from the last finished epoch.

Several processes share the work where torchrun starts them, or by `processes` in params.yaml: the result is the same.
"""

import argparse
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from pipeline import figures
from pipeline.checkpoint import checkpoint_path, exclusive, fingerprint, load_checkpoint, save_checkpoint
from pipeline.console import UserError, progress, run, say
from pipeline.corpus import load_corpus
from pipeline.files import MODELS, PARAMS
from pipeline.history import best_epoch, write_history
from pipeline.lm.batching import Batches
from pipeline.lm.device import DeviceError, choose_device, choose_precision, describe, keep_freed_memory
from pipeline.lm.distributed import rank, world_size
from pipeline.lm.model import build_model, num_parameters
from pipeline.lm.record import EpochRecord
from pipeline.lm.settings import Settings
from pipeline.lm.training import DivergedError, Training
from pipeline.params import load_params
from pipeline.processes import companions, from_first, launch, launched, process_group, same_fate
from pipeline.tracking import LiveRun, RunFacts, live_run
from pipeline.weights import save_weights


def train(name: str) -> None:
    """Train a model to its last epoch, keeping its best weights and its history. Raises UserError."""
    keep_freed_memory()
    with same_fate():
        params = load_params()
        settings = params.model(name)
        corpus = load_corpus()
        try:
            device = choose_device(settings.device)
        except DeviceError as error:
            raise UserError(f"{name}: {error}") from None
        precision = choose_precision(settings.precision, device)
        check_shares(name, settings)
    model = build_model(settings, len(corpus.vocabulary)).to(device)
    training = Training(model, settings, precision)
    train_batches = Batches(corpus.train.to(device), settings.batch_size, settings.bptt)
    valid_batches = Batches(corpus.valid.to(device), settings.batch_size, settings.bptt)
    if rank() > 0:
        follow(training, train_batches, valid_batches)
        return
    say(f"{name}: {num_parameters(model):,} parameters; {describe(settings, device, precision)}")

    identity = fingerprint(settings, corpus.fingerprint)
    checkpoint = checkpoint_path(name, identity)
    weights_file, history_file = MODELS / name / "model.safetensors", MODELS / name / "history.csv"

    def keep_results() -> None:
        save_weights(weights_file, training.best_weights, settings, corpus.vocabulary, identity)
        write_history(history_file, training.history)

    tags = {
        "recipe": params.recipe,
        "device": str(device),
        "precision": str(precision),
        "processes": str(world_size()),
        "threads": str(torch.get_num_threads()),
    }
    with exclusive(checkpoint):
        if saved := from_first(load_checkpoint(checkpoint)):
            training.load_state_dict(saved)
            keep_results()
            say(f"{name}: going on after epoch {len(training.history)}")
        steps = len(train_batches)
        with (
            live_run(RunFacts(name, identity, settings, corpus, tags), training.history) as tracked,
            progress(settings.epochs * steps, name, "step", initial=len(training.history) * steps) as bar,
            companions(),
        ):
            while not training.finished:
                record = training.run_epoch(train_batches, valid_batches, bar.update)
                save_checkpoint(checkpoint, training.state_dict())
                keep_results()
                tracked.publish(training.history)
                say(epoch_line(name, record, settings.epochs, best=record == best_epoch(training.history)))
            finish_run(tracked, name, training.history, [PARAMS, history_file, weights_file])
        checkpoint.unlink(missing_ok=True)


def follow(training: Training, train_batches: Batches, valid_batches: Batches) -> None:
    """What every process but the first does: its share of each epoch, and nothing else."""
    if saved := from_first(None):
        training.load_state_dict(saved)
    while not training.finished:
        training.run_epoch(train_batches, valid_batches)


def check_shares(name: str, settings: Settings) -> None:
    """Raise UserError when the processes cannot share the batch evenly."""
    if settings.batch_size % world_size():
        divisors = [n for n in range(1, settings.batch_size + 1) if settings.batch_size % n == 0]
        raise UserError(
            f"{name}: {world_size()} processes cannot share a batch_size of {settings.batch_size} evenly: "
            f"set processes to one of {', '.join(map(str, divisors))}, or another batch_size"
        )


def finish_run(tracked: LiveRun, name: str, history: list[EpochRecord], files: list[Path]) -> None:
    """End the MLflow run with its files and a picture of its perplexities."""
    with TemporaryDirectory() as folder:
        picture = Path(folder) / "curve.png"
        figures.curve(history, picture)
        tracked.end("FINISHED", files=[*files, picture])


def epoch_line(name: str, record: EpochRecord, epochs: int, best: bool) -> str:
    """One line a finished epoch: rate, perplexities, speed, time."""
    return (
        f"{name}  epoch {record.epoch:>{len(str(epochs))}}/{epochs}  rate {record.learning_rate:.4g}"
        f"  train {record.train_perplexity:8.2f}  valid {record.valid_perplexity:8.2f}{'*' if best else ' '}"
        f"  {record.tokens_per_second:,.0f} tokens/s  {timedelta(seconds=round(record.seconds))}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m pipeline.train", description=__doc__)
    parser.add_argument("model", help="a name under `models` in params.yaml, such as lstm_dropout")
    arguments = parser.parse_args()
    if not launched() and (processes := load_params().processes) > 1:
        launch(processes, "pipeline.train", arguments.model)
        return
    with process_group():
        try:
            train(arguments.model)
        except DivergedError as error:
            raise UserError(f"{arguments.model}: {error}") from None


if __name__ == "__main__":
    run(main)
