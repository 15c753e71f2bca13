"""Search over settings of params.yaml for the lowest validation perplexity, as described by a file in `sweeps`.

The same command starts a sweep, continues one that was interrupted, and joins one that other workers are running: on
this machine without further options, on several with --storage postgresql://... If a worker dies, the others take over
its trial.
"""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

from pipeline.artifacts.checkpoint import delete_checkpoint, delete_checkpoints, fingerprint
from pipeline.artifacts.resumable import resumable
from pipeline.corpus.ids import Corpus, load_corpus
from pipeline.lm.device import choose_device, choose_precision, describe, keep_freed_memory
from pipeline.lm.errors import DivergedError
from pipeline.lm.memory import check_fits
from pipeline.lm.settings import Settings
from pipeline.lm.training import Training, check_runs_here
from pipeline.project.console import naming, progress, run, say
from pipeline.search.report import in_words, summary, write_report
from pipeline.search.study import Study
from pipeline.search.sweep_file import Sweep, load_sweep
from pipeline.search.trial import EndedTrial, State, TakenOverError, Trial
from pipeline.tracking.facts import RunFacts
from pipeline.tracking.live import live_run
from pipeline.tracking.sweeps import REMEDY, EndedRun, close_sweep, open_sweep

SECONDS_BETWEEN_LOOKS = 2


def work(sweep: Sweep, study: Study, corpus: Corpus) -> None:
    """Run trials until none is left, neither waiting nor being run by another worker. Raises UserError."""
    if study.is_finished():
        return
    keep_freed_memory()
    for settings in sweep.corners():  # find out now, and not in some trial, what the machine lacks
        check_runs_here(settings)
        check_fits(settings, len(corpus.train), len(corpus.vocabulary))
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
                say(f"trial {trial.number}/{sweep.trials}: {state}; {summary(sweep, study.ended())}")
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
    title = f"trial {trial.number}/{sweep.trials}"
    say(f"{title}: {in_words(sweep.tried(trial.pick))}")
    with resumable(f"{checkpoints_of(study)}-{trial.number}", settings, corpus) as training:
        history, steps = training.history, len(training.train)
        if history:
            say(f"{title}: going on after epoch {len(history)}")
        facts = run_facts(sweep, study, trial.number, settings, corpus, parent, training.circumstances())
        with (
            live_run(facts, history) as tracked,
            progress(settings.epochs * steps, title, "step", initial=len(history) * steps) as bar,
        ):
            failure = ""
            try:
                while not (state := verdict(trial, training)):
                    record = training.run_epoch(bar.update)
                    tracked.publish(history)
                    say(f"{title}: epoch {record.epoch}/{settings.epochs}  valid {record.valid_perplexity:.6g}")
            except DivergedError as error:
                state, failure = "diverged", str(error)
            tracked.end("FAILED" if failure else "FINISHED", failure=failure, tags={"trial_state": state})
        trial.end(state, history, failure)  # last, because from then on no other worker would take over this trial
        delete_checkpoint(training.checkpoint)
    return state


def verdict(trial: Trial, training: Training) -> State | None:
    """Report the epochs so far to the study; returns how the trial ends, if it does. Raises TakenOverError."""
    worse = bool(training.history) and trial.report(training.history)
    return "complete" if training.finished else "pruned" if worse else None


def close(sweep: Sweep, study: Study, corpus: Corpus, trials: Sequence[EndedTrial], files: Sequence[Path]) -> None:
    """Bring MLflow up to date with a sweep that has ended, and delete what was kept for resuming it."""
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
    best = {"valid_perplexity": min(perplexities)} if perplexities else {}
    with study.alone():
        close_sweep(study.name, sweep.name, ended, files, best)
        delete_checkpoints(f"{checkpoints_of(study)}-")


def checkpoints_of(study: Study) -> str:
    """How the names of its trials' checkpoints begin."""
    return f"sweep-{study.name}"


def run_facts(
    sweep: Sweep,
    study: Study,
    number: int,
    settings: Settings,
    corpus: Corpus,
    parent: str | None = None,
    circumstances: dict[str, str] | None = None,
) -> RunFacts:
    """What MLflow is told about a trial; two trials with equal settings remain two runs."""
    tags = {"recipe": sweep.name, "sweep": study.name, "trial": str(number)} | (circumstances or {})
    if parent:
        tags["mlflow.parentRunId"] = parent
    identity = f"{fingerprint(settings, corpus.fingerprint)}-{study.name}-{number}"
    name = f"{sweep.name}-{number:0{len(str(sweep.trials))}}"
    # Whichever worker has the trial uses this id: the study makes sure that only one has it at a time.
    return RunFacts(name, identity, settings, corpus, tags, REMEDY, training_id=f"{study.name}-{number}")


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.sweep", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", type=Path, help="the sweep's file, such as sweeps/schedules_and_optimizers.yaml")
    parser.add_argument(
        "--storage",
        metavar="URL",
        help="the database that holds the trials: postgresql://USER@HOST/DATABASE (keep the password in ~/.pgpass or"
        " PGPASSWORD, where no process listing shows it), or sqlite:///FILE; the default is sweeps.db",
    )
    parser.add_argument("--report", action="store_true", help="train nothing, only write the results so far")
    arguments = parser.parse_args()
    sweep, corpus = load_sweep(arguments.file), load_corpus()
    study = Study(sweep, sweep.study_name(corpus.fingerprint), arguments.storage)
    with study.faults():
        say(f"{sweep.name}: {summary(sweep, study.ended())}; the study {study.name} in {study.place}")
        if not arguments.report:
            with naming(str(sweep.path)):
                work(sweep, study, corpus)
        trials = study.ended()
        files = write_report(sweep, trials, study.importance())
        if study.is_finished():
            close(sweep, study, corpus, trials, files)
        else:
            say(f"{sweep.trials - len(trials)} trials are to come: python -m pipeline.sweep {arguments.file} goes on")


if __name__ == "__main__":
    run(main)
