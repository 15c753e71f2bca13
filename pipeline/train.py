"""Train one model of params.yaml. After an interruption, the same command continues where it stopped.

Several processes share the work if torchrun starts them or `processes` in params.yaml says so: the result is the same.
"""

import argparse
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import NamedTuple

from pipeline.artifacts.checkpoint import CODE
from pipeline.artifacts.code_digest import code_digest
from pipeline.artifacts.history import best_epoch, history_path, write_history
from pipeline.artifacts.metrics import worse_than_guessing
from pipeline.artifacts.resumable import ResumableTraining, resumable
from pipeline.artifacts.teachers import (
    TEACHER,
    cached_features,
    check_disk_space,
    delete_former_teachers,
    named_teachers,
    teacher_history_path,
)
from pipeline.artifacts.weights import save_weights, weights_path
from pipeline.corpus.ids import Corpus, corpus_digests, load_corpus
from pipeline.lm.device import set_up_process
from pipeline.lm.distillation import Teacher
from pipeline.lm.distributed import check_shares, rank, world_size
from pipeline.lm.evaluation import perplexity
from pipeline.lm.model import num_parameters
from pipeline.lm.record import EpochRecord
from pipeline.lm.settings import Settings
from pipeline.lm.training import Training, check_runs_here, train_layout
from pipeline.project.console import counted, naming, progress, run, say, warn
from pipeline.project.files import PARAMS, PROCESSED
from pipeline.project.inputs import FixedInputs, Inputs
from pipeline.project.memory import check_fits
from pipeline.project.processes import ending_with_dvc, fail_together, launch, launched, peer_failures, process_group
from pipeline.settings.params import load_params, read_text
from pipeline.settings.schema import Params
from pipeline.tracking.facts import RunFacts
from pipeline.tracking.finished import publish
from pipeline.tracking.live import LiveRun, live_run

Keep = Callable[[ResumableTraining], list[Path]]  # writes the results so far, and returns the files


class Start(NamedTuple):
    """What a training run was started with; model: the one to be trained in the end, also while a teacher is."""

    model: str
    params_text: str
    params: Params
    corpus: Corpus
    inputs: FixedInputs


def train(name: str) -> None:
    """Train a model to its end, its teachers first, keeping its best weights and its history. Raises UserError."""
    set_up_process()
    with fail_together(), naming(name):
        inputs = FixedInputs(name, partial(training_inputs, name))
        start = Start(name, read_text(PARAMS), load_params(), load_corpus(), inputs)
        settings = start.params.model(name)
        check(name, settings, start.corpus)
    with naming(name), inputs:
        delete_former_teachers(name, settings)
        teachers = train_teachers(name, settings, start)
        minutes = start.params.checkpoint_minutes
        with resumable(name, settings, start.corpus, minutes, teachers, waiting=name) as training:
            run_to_end(name, training, start, partial(keep_model, name, start.corpus))


def check(name: str, settings: Settings, corpus: Corpus) -> None:
    """Raise UserError if a model or one of its teachers cannot be trained here."""
    for title, teacher in named_teachers(name, settings):
        check(title, teacher, corpus)
    with naming(name):
        check_runs_here(settings)
        check_fits(settings, len(corpus.train), len(corpus.vocabulary))
        check_disk_space(settings, corpus)


def train_teachers(name: str, settings: Settings, start: Start) -> list[Teacher]:
    """A model's teachers, which have read the text. Their checkpoints serve other models with the same teachers."""
    trained = []
    for title, wanted in named_teachers(name, settings):
        teachers = train_teachers(title, wanted, start)
        minutes = start.params.checkpoint_minutes
        with naming(title), resumable(TEACHER, wanted, start.corpus, minutes, teachers, waiting=title) as training:
            run_to_end(title, training, start, partial(keep_history, teacher_history_path(start.model, title)))
            trained.append(let_teacher_read(title, training, settings, start.corpus))
    return trained


def let_teacher_read(title: str, training: ResumableTraining, settings: Settings, corpus: Corpus) -> Teacher:
    """A teacher with its best weights that has read the training text, laid out for a model with these settings."""
    training.model.load_state_dict(training.best_weights)
    text = train_layout(corpus.train.to(training.device), settings)
    reading = partial(cached_features, training.checkpoint, training.model, training.settings.precision, text)
    if rank() > 0:
        features = reading()
    else:
        with progress(len(text), f"{title} reads the text", "window") as bar:
            features = reading(bar.update)
    output = training.model.output
    return Teacher(features, output.weight.detach(), output.bias.detach())


def run_to_end(name: str, training: ResumableTraining, start: Start, keep: Keep) -> None:
    """Train to the end, reporting to the terminal and to MLflow.

    keep: called after every epoch; MLflow gets the files at the end
    """
    if rank() > 0:
        while not training.finished:
            training.run_epoch()
        return
    settings, params = training.settings, start.params
    size = f"{num_parameters(training.model):,} parameters, {counted(settings.epochs, 'epoch')}"
    if misnamed := params.misnamed():
        warn(misnamed)
    say(f"{name}: {size} of {counted(len(training.train), 'step')}; {training.description()}")
    facts = RunFacts(
        name,
        training.fingerprint,
        settings,
        start.corpus,
        {"recipe": params.recipe} | training.environment(),
        training_id=training.id,
        params=start.params_text,
        corpus_name=params.preprocess.corpus,
    )
    if training.finished:
        say(f"{name}: already finished after epoch {len(training.history)}")
        publish(facts, training.history, keep(training))
        return
    if training.history:
        keep(training)
    if position := training.position():
        say(f"{name}: continuing after {position}")
    with live_run(facts, training.history) as tracked:
        files = run_epochs(name, training, start, keep, tracked)
        tracked.end("FINISHED", files=files)


def run_epochs(name: str, training: ResumableTraining, start: Start, keep: Keep, tracked: LiveRun) -> list[Path]:
    """Train epoch by epoch; each is saved, printed and sent to MLflow -> the files that were written."""
    total, files = training.settings.epochs * len(training.train), []
    with progress(total, name, "step", training.steps_taken, lambda: so_far(training)) as bar, peer_failures():
        while not training.finished:
            record = training.run_epoch(lambda: bar.update(training.steps_taken - bar.n))
            files = keep(training)
            tracked.publish(training.history)
            best = record == best_epoch(training.history)
            line = epoch_line(name, record, training.settings.epochs, best=best)
            say(f"{line}  {worse_than_guessing(vars(record), len(start.corpus.vocabulary))}".rstrip())
            start.inputs.warn_once()
        if len(training.history) < training.settings.epochs:
            epoch = best_epoch(training.history).epoch
            say(f"{name}: stops here, as validation perplexity has not improved since epoch {epoch}")
    return files


def keep_model(name: str, corpus: Corpus, training: ResumableTraining) -> list[Path]:
    """Write a model's best weights so far and its history."""
    save_weights(
        weights_path(name),
        training.best_weights,
        training.settings,
        corpus.vocabulary,
        training.fingerprint,
        lower_case=corpus.lower_case,
        gpu=training.gpu,
        data_sha256=corpus.fingerprint,
    )
    return [*keep_history(history_path(name), training), weights_path(name)]


def keep_history(path: Path, training: ResumableTraining) -> list[Path]:
    """Write what has been trained so far, of a teacher without its weights."""
    write_history(path, training.history)
    return [path]


def so_far(training: Training) -> str:
    """Epoch, step and training perplexity of the epoch in progress; the perplexities after the one before."""
    current, history = training.current, training.history
    steps = current.steps if current else 0
    windows = current.results.shape[1] if current else len(training.train)  # with random windows, there may be one more
    parts = [f"epoch {len(history) + 1}/{training.settings.epochs}", f"step {steps:,}/{windows:,}"]
    if current and steps and world_size() == 1:
        parts.append(f"train {perplexity(current.mean_loss()):.2f} so far")
    if history:
        last = history[-1]
        parts.append(f"after epoch {last.epoch}: train {last.train_perplexity:.2f}  valid {last.valid_perplexity:.2f}")
    return "  ".join(parts)


def training_inputs(name: str) -> Inputs:
    """Everything that a model's training run depends on, in its current state."""
    return {
        PARAMS.name: load_params().model(name),
        PROCESSED.as_posix(): corpus_digests(),
        "pipeline/lm": code_digest(CODE),
    }


def epoch_line(name: str, record: EpochRecord, epochs: int, best: bool) -> str:
    """One line per finished epoch: learning rate, perplexities, speed, time."""
    return (
        f"{name}  epoch {record.epoch:>{len(str(epochs))}}/{epochs}  rate {record.learning_rate:.4g}"
        f"  train {record.train_perplexity:8.2f}  valid {record.valid_perplexity:8.2f}{'*' if best else ' '}"
        f"  {record.tokens_per_second:,.0f} tokens/s  {timedelta(seconds=round(record.seconds))}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m pipeline.train", description=__doc__)
    parser.add_argument("model", help="a name under `models` in params.yaml, such as lstm_dropout")
    name = parser.parse_args().model
    with ending_with_dvc():
        if not launched() and (params := load_params()).processes > 1:
            with naming(name):  # fail before starting processes that would all fail
                check_shares(params.model(name).batch_size, params.processes)
            launch(params.processes, "pipeline.train", name)
            return
        with process_group():
            train(name)


if __name__ == "__main__":
    run(main)
