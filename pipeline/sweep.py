"""Search settings of params.yaml for the lowest valid perplexity, as a file in `sweeps` says.

The same command starts a sweep, goes on with one that was interrupted, and joins one that other workers are at: on this
machine as it is, on others with --storage postgresql://... A worker that dies leaves its trial to the others.
"""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from pipeline.checkpoint import checkpoint_path, exclusive, fingerprint, load_checkpoint, save_checkpoint
from pipeline.console import UserError, progress, run, say
from pipeline.corpus import Corpus, load_corpus
from pipeline.files import project_root
from pipeline.lm.batching import Batches
from pipeline.lm.device import DeviceError, choose_device, choose_precision, describe, keep_freed_memory
from pipeline.lm.model import build_model
from pipeline.lm.settings import Settings
from pipeline.lm.training import DivergedError, Training
from pipeline.study import EndedTrial, State, Study, TakenOverError, Trial
from pipeline.sweep_file import Sweep, load_sweep
from pipeline.sweep_report import in_words, standing, write_report
from pipeline.sweep_tracking import REMEDY, EndedRun, close_sweep, open_sweep
from pipeline.tracking import RunFacts, live_run

SECONDS_BETWEEN_LOOKS = 2


def work(sweep: Sweep, study: Study, corpus: Corpus) -> None:
    """Run trials until none is left, neither waiting nor with another worker. Raises UserError."""
    if study.is_finished():
        return
    keep_freed_memory()
    device = choose_device(sweep.base.device)
    say(describe(sweep.base, device, choose_precision(sweep.base.precision, device)))
    with study.alone():
        parent = open_sweep(study.name, sweep.name)
    waiting = False
    while not study.is_finished():
        if trial := study.claim():
            waiting = False
            try:
                with trial:
                    state = run_trial(trial, sweep, study, corpus, parent)
                say(f"trial {trial.number}/{sweep.trials}: {state}; {standing(sweep, study.ended())}")
            except TakenOverError as error:
                say(f"trial {trial.number}: {error}")
        else:
            if not waiting:
                say("no trial is left to start: waiting for those that other workers run (Ctrl-C loses nothing)")
            waiting = True
            time.sleep(SECONDS_BETWEEN_LOOKS)


def run_trial(trial: Trial, sweep: Sweep, study: Study, corpus: Corpus, parent: str | None) -> State:
    """Train one combination of settings until it is done, pruned or diverged. Raises TakenOverError, UserError."""
    settings = sweep.settings(trial.pick)
    device = choose_device(settings.device)
    precision = choose_precision(settings.precision, device)
    training = Training(build_model(settings, len(corpus.vocabulary)).to(device), settings, precision)
    train_batches = Batches(corpus.train.to(device), settings.batch_size, settings.bptt)
    valid_batches = Batches(corpus.valid.to(device), settings.batch_size, settings.bptt)
    title, steps = f"trial {trial.number}/{sweep.trials}", len(train_batches)
    say(f"{title}: {in_words(sweep.tried(trial.pick))}")

    checkpoint = checkpoint_path(f"sweep-{study.name}-{trial.number}", fingerprint(settings, corpus.fingerprint))
    circumstances = {"device": str(device), "precision": str(precision), "threads": str(torch.get_num_threads())}
    facts = run_facts(sweep, study, trial.number, settings, corpus, parent, circumstances)
    with exclusive(checkpoint):
        if saved := load_checkpoint(checkpoint):
            training.load_state_dict(saved)
            say(f"{title}: going on after epoch {len(training.history)}")
        history = training.history
        with (
            live_run(facts, history) as tracked,
            progress(settings.epochs * steps, title, "step", initial=len(history) * steps) as bar,
        ):
            failure = ""
            try:
                while not (state := verdict(trial, training)):
                    record = training.run_epoch(train_batches, valid_batches, bar.update)
                    save_checkpoint(checkpoint, training.state_dict())
                    tracked.publish(history)
                    say(f"{title}: epoch {record.epoch}/{settings.epochs}  valid {record.valid_perplexity:.6g}")
            except DivergedError as error:
                state, failure = "diverged", str(error)
            tracked.end("FAILED" if failure else "FINISHED", failure=failure, tags={"trial_state": state})
        trial.end(state, history, failure)  # last, for then no other worker minds this trial any more
        checkpoint.unlink(missing_ok=True)
    return state


def verdict(trial: Trial, training: Training) -> State | None:
    """Tell the study of the epochs so far; returns how the trial ends, if it does. Raises TakenOverError."""
    worse = bool(training.history) and trial.report(training.history)
    return "complete" if training.finished else "pruned" if worse else None


def close(sweep: Sweep, study: Study, corpus: Corpus, trials: Sequence[EndedTrial], files: Sequence[Path]) -> None:
    """Bring MLflow up to date with a sweep that has ended, and delete what was kept for going on with it."""
    ended = [
        EndedRun(
            run_facts(sweep, study, trial.number, sweep.settings(trial.pick), corpus),
            trial.history,
            {"trial_state": trial.state},
            trial.failure,
        )
        for trial in trials
        if trial.history
    ]
    perplexities = [trial.valid_perplexity for trial in trials if trial.state == "complete"]
    best = {"final/valid_perplexity": min(perplexities)} if perplexities else {}
    with study.alone():
        close_sweep(study.name, sweep.name, ended, files, best)
        for kept in (project_root() / ".checkpoints").glob(f"sweep-{study.name}-*"):
            kept.unlink(missing_ok=True)


def run_facts(
    sweep: Sweep,
    study: Study,
    number: int,
    settings: Settings,
    corpus: Corpus,
    parent: str | None = None,
    circumstances: dict[str, str] | None = None,
) -> RunFacts:
    """What MLflow is told of a trial; two trials of equal settings remain two runs."""
    tags = {"recipe": sweep.name, "sweep": study.name, "trial": str(number)} | (circumstances or {})
    if parent:
        tags["mlflow.parentRunId"] = parent
    identity = f"{fingerprint(settings, corpus.fingerprint)}-{study.name}-{number}"
    name = f"{sweep.name}-{number:0{len(str(sweep.trials))}}"
    return RunFacts(name, identity, settings, corpus, tags, REMEDY)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.sweep", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", type=Path, help="such as sweeps/schedules_and_optimizers.yaml")
    parser.add_argument(
        "--storage",
        metavar="URL",
        help="the database that holds the trials: postgresql://USER@HOST/DATABASE (the password is better in ~/.pgpass"
        " or PGPASSWORD, where no list of processes shows it), or sqlite:///FILE; sweeps.db unless given",
    )
    parser.add_argument("--report", action="store_true", help="train nothing: write what has come out so far")
    arguments = parser.parse_args()
    sweep, corpus = load_sweep(arguments.file), load_corpus()
    study = Study(sweep, sweep.study_name(corpus.fingerprint), arguments.storage)
    with study.faults():
        say(f"{sweep.name}: {standing(sweep, study.ended())}; the study {study.name} in {study.place}")
        if not arguments.report:
            try:
                work(sweep, study, corpus)
            except DeviceError as error:
                raise UserError(f"{sweep.path}: {error}") from None
        trials = study.ended()
        files = write_report(sweep, trials, study.importance())
        if study.is_finished():
            close(sweep, study, corpus, trials, files)
        else:
            say(f"{sweep.trials - len(trials)} trials are to come: python -m pipeline.sweep {arguments.file} goes on")


if __name__ == "__main__":
    run(main)
