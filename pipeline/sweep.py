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
from pipeline.artifacts.history import best_epoch
from pipeline.artifacts.resumable import resumable
from pipeline.artifacts.trials import EndedTrial, KeptStudy, State, read_study, study_path
from pipeline.corpus.ids import Corpus, load_corpus
from pipeline.lm.device import choose_device, choose_precision, set_up_process
from pipeline.lm.errors import DivergedError
from pipeline.lm.evaluation import evaluate, in_columns, perplexity
from pipeline.lm.record import EpochRecord
from pipeline.lm.settings import Settings
from pipeline.lm.training import Training, check_runs_here
from pipeline.project.console import counted, naming, progress, run, say
from pipeline.project.faults import explain
from pipeline.project.files import PROCESSED
from pipeline.project.hardware import describe
from pipeline.project.memory import check_fits
from pipeline.reporting.spread import grouped
from pipeline.settings.params import load_params
from pipeline.sweeps.groups import group_metrics
from pipeline.sweeps.identity import identity
from pipeline.sweeps.report import show, summary, write_files
from pipeline.sweeps.study import Study
from pipeline.sweeps.sweep_file import Sweep, load_sweep
from pipeline.sweeps.trial import TakenOverError, Trial
from pipeline.sweeps.words import group_name, in_words
from pipeline.tracking.facts import RunFacts, shown
from pipeline.tracking.live import live_run
from pipeline.tracking.sweeps import REMEDY, EndedRun, close_sweep, open_sweep

SECONDS_BETWEEN_LOOKS = 2


def work(sweep: Sweep, study: Study, corpus: Corpus, facts: KeptStudy) -> None:
    """Run trials until none is left, neither waiting nor being run by another worker. Raises UserError."""
    if study.is_finished():
        return
    set_up_process()
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
                kept, _ = keep(sweep, study, facts)
                say(f"trial {trial.number}/{sweep.trials}: {state}; {summary(sweep, kept.ended)}")
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
    minutes = load_params().checkpoint_minutes
    say(f"{title}: {in_words(sweep.tried(trial.pick))}")
    name = f"{checkpoints_of(study)}-{trial.number}"
    # A worker that was presumed dead may only have been silent, as in a suspended machine, and still have the trial.
    with resumable(name, settings, corpus, minutes, waiting=title) as training:
        history, steps = training.history, settings.epochs * len(training.train)
        if place := training.place():
            say(f"{title}: going on after {place}")
        facts = run_facts(sweep, study, trial, settings, corpus, parent, training.circumstances())
        with (
            live_run(facts, history) as tracked,
            progress(steps, title, "step", initial=training.steps_taken) as bar,
        ):
            failure, test = "", None
            try:
                while not (state := verdict(trial, training)):
                    record = training.run_epoch(lambda: bar.update(training.steps_taken - bar.n))
                    tracked.publish(history)
                    say(f"{title}: epoch {record.epoch}/{settings.epochs}  valid {record.valid_perplexity:.6g}")
            except DivergedError as error:
                state, failure = "diverged", explain(error)
            except TakenOverError:
                tracked.leave()
                raise
            if sweep.evaluate and state == "complete":
                test = test_perplexity(training, corpus)
                say(f"{title}: test {test:.6g}")
            tracked.end(
                "FAILED" if failure else "FINISHED",
                failure=failure,
                tags={"trial_state": state},
                metrics=final_figures(history, test),
            )
        trial.end(state, history, failure, test)  # last, because from then on no other worker would take over
        delete_checkpoint(training.checkpoint)
    return state


def verdict(trial: Trial, training: Training) -> State | None:
    """Report the epochs so far to the study; returns how the trial ends, if it does. Raises TakenOverError."""
    worse = bool(training.history) and trial.report(training.history)
    return "complete" if training.finished else "pruned" if worse else None


def test_perplexity(training: Training, corpus: Corpus) -> float:
    """Of the best epoch's weights, whose validation perplexity is in the history."""
    training.model.load_state_dict(training.best_weights)
    return perplexity(evaluate(training.model, in_columns(corpus.test.to(training.device))))


def final_figures(history: Sequence[EpochRecord], test: float | None) -> dict[str, float]:
    """The perplexities of the best epoch's weights, by name; none if they were not evaluated."""
    return {"valid_perplexity": best_epoch(history).valid_perplexity, "test_perplexity": test} if test else {}


def keep(sweep: Sweep, study: Study, facts: KeptStudy) -> tuple[KeptStudy, list[Path]]:
    """Bring results/sweeps/NAME up to date; returns what it then has, and the files."""
    with study.alone():
        kept = facts.model_copy(update={"ended": study.ended()})
        return kept, write_files(sweep, kept)


def close(sweep: Sweep, study: Study, corpus: Corpus, trials: Sequence[EndedTrial], files: Sequence[Path]) -> None:
    """Bring MLflow up to date with a sweep that has ended, and delete what was kept for resuming it."""
    ended = [
        EndedRun(
            run_facts(sweep, study, trial, trial.settings, corpus),
            trial.history,
            {"trial_state": trial.state},
            trial.failure,
            final_figures(trial.history, trial.test_perplexity),
        )
        for trial in trials
        if trial.history
    ]
    perplexities = [trial.valid_perplexity for trial in trials if trial.state == "complete"]
    metrics = {shown("valid_perplexity"): min(perplexities)} if perplexities else {}
    if sweep.over_seeds:
        metrics |= group_metrics(grouped(trials))
    with study.alone():
        close_sweep(study.name, sweep.name, ended, files, metrics)
        delete_checkpoints(f"{checkpoints_of(study)}-")


def checkpoints_of(study: Study) -> str:
    """How the names of its trials' checkpoints begin."""
    return f"sweep-{study.name}"


def run_facts(
    sweep: Sweep,
    study: Study,
    trial: Trial | EndedTrial,
    settings: Settings,
    corpus: Corpus,
    parent: str | None = None,
    circumstances: dict[str, str] | None = None,
) -> RunFacts:
    """What MLflow is told about a trial; two trials with equal settings remain two runs."""
    number = trial.number
    tags = {"recipe": sweep.name, "sweep": study.name, "trial": str(number)} | (circumstances or {})
    if sweep.over_seeds:
        tags["group"] = group_name(sweep, trial.pick)
    if parent:
        tags["mlflow.parentRunId"] = parent
    identity = f"{fingerprint(settings, corpus.fingerprint)}-{study.name}-{number}"
    name = f"{sweep.name}-{number:0{len(str(sweep.trials))}}"
    # Whichever worker has the trial uses this id: the study makes sure that only one has it at a time.
    return RunFacts(
        name,
        identity,
        settings,
        corpus,
        tags,
        REMEDY,
        training_id=f"{study.name}-{number}",
        corpus_name=load_params().preprocess.corpus,
    )


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
    sweep = load_sweep(arguments.file)
    kept = read_study(study_path(sweep.name))
    corpus = None if arguments.report and kept and not PROCESSED.exists() else load_corpus()
    facts = identity(sweep, kept, corpus)
    study = Study(sweep, facts.name, arguments.storage)
    with study.faults():
        study.take_in(kept.ended if kept else [])
        say(f"{sweep.name}: {summary(sweep, study.ended())}; the study {study.name} in {study.place}")
        if corpus and not arguments.report:
            with naming(str(sweep.path)):
                work(sweep, study, corpus, facts)
        kept, files = keep(sweep, study, facts)
        show(sweep, kept)
        if not study.is_finished():
            to_come = counted(sweep.trials - len(kept.ended), "trial")
            say(f"{to_come} to come: python -m pipeline.sweep {arguments.file} goes on")
        elif corpus:
            close(sweep, study, corpus, kept.ended, files)


if __name__ == "__main__":
    run(main)
