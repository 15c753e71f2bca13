"""Search over settings of params.yaml for the lowest validation perplexity, as described by a file in `sweeps`.

The same command starts a sweep, continues one that was interrupted, and joins one that other workers are running: on
this machine without further options, on several with --storage postgresql://... If a worker dies, the others take over
its trial.
"""

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
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
from pipeline.settings.params import load_params
from pipeline.sweeps.report import print_summary, summary, write_files
from pipeline.sweeps.study import Study, identify
from pipeline.sweeps.sweep import in_words
from pipeline.sweeps.sweep_file import load_sweep
from pipeline.sweeps.tables import best_of, group_metrics, groups_of
from pipeline.sweeps.trial import TakenOverError, Trial
from pipeline.tracking.facts import RunFacts, shown
from pipeline.tracking.live import live_run
from pipeline.tracking.sweeps import REMEDY, EndedRun, close_sweep, open_sweep

SECONDS_BETWEEN_CHECKS = 2


def work(study: Study, corpus: Corpus, kept: KeptStudy) -> None:
    """Run trials until none is waiting or being run by another worker. Raises UserError."""
    if study.is_finished():
        return
    sweep, base = study.sweep, study.sweep.source.base
    set_up_process()
    for settings in sweep.corners():  # fail now, and not in some trial, if one cannot run here
        check_runs_here(settings)
        check_fits(settings, len(corpus.train), len(corpus.vocabulary))
    device = choose_device(base.device)
    say(describe(base, device, choose_precision(base.precision, device)))
    with study.lock():
        parent = open_sweep(study.name, sweep.name)
    waiting = False
    while not study.is_finished():
        if trial := study.claim():
            waiting = False
            try:
                with trial:
                    state = run_trial(trial, study, corpus, parent)
                kept, _ = keep(study, kept)
                say(f"trial {trial.number}/{sweep.trials}: {state}; {summary(sweep, kept.ended)}")
            except TakenOverError:
                say(f"trial {trial.number}: taken over by another worker, as this one was silent for too long")
        else:
            if not waiting:
                say("no trial is left to start: waiting for those that other workers run (Ctrl-C loses nothing)")
            waiting = True
            time.sleep(SECONDS_BETWEEN_CHECKS)


def run_trial(trial: Trial, study: Study, corpus: Corpus, parent: str | None) -> State:
    """Train one combination of settings until it is done, pruned or diverged. Raises TakenOverError, UserError."""
    sweep, title = study.sweep, f"trial {trial.number}/{study.sweep.trials}"
    settings, minutes = sweep.settings(trial.picked), load_params().checkpoint_minutes
    say(f"{title}: {in_words(sweep.tried(trial.picked))}")
    # A worker presumed dead may only have been suspended with its machine, and still have the trial.
    with resumable(f"{checkpoints_of(study)}-{trial.number}", settings, corpus, minutes, waiting=title) as training:
        if position := training.position():
            say(f"{title}: continuing after {position}")
        history, test = training.history, None
        tags = training.environment() | ({"mlflow.parentRunId": parent} if parent else {})
        with live_run(run_facts(study, trial, settings, corpus, tags), history) as tracked:
            try:
                state, failure = train(trial, training, tracked.publish, title)
            except TakenOverError:
                tracked.leave()
                raise
            if sweep.file.evaluate and state == "complete":
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


def train(
    trial: Trial, training: Training, publish: Callable[[Sequence[EpochRecord]], None], title: str
) -> tuple[State, str]:
    """Train until the trial ends; returns how, and why if it diverged. Raises TakenOverError.

    publish: is given all epochs so far, after each of them
    """
    epochs = training.settings.epochs
    steps = epochs * len(training.train)
    pruned = bool(training.history) and trial.report(training.history)
    try:
        with progress(steps, title, "step", initial=training.steps_taken) as bar:
            while not (training.finished or pruned):
                record = training.run_epoch(lambda: bar.update(training.steps_taken - bar.n))
                publish(training.history)
                say(f"{title}: epoch {record.epoch}/{epochs}  valid {record.valid_perplexity:.6g}")
                pruned = trial.report(training.history)
    except DivergedError as error:
        return "diverged", explain(error)
    return "complete" if training.finished else "pruned", ""


def test_perplexity(training: Training, corpus: Corpus) -> float:
    """Of the best epoch's weights, whose validation perplexity is in the history."""
    training.model.load_state_dict(training.best_weights)
    return perplexity(evaluate(training.model, in_columns(corpus.test.to(training.device))))


def final_figures(history: Sequence[EpochRecord], test: float | None) -> dict[str, float]:
    """The perplexities of the best epoch's weights, by name; none if they were not evaluated."""
    return {"valid_perplexity": best_epoch(history).valid_perplexity, "test_perplexity": test} if test else {}


def keep(study: Study, kept: KeptStudy) -> tuple[KeptStudy, list[Path]]:
    """Bring results/sweeps/NAME up to date; returns what it then holds, and the files."""
    with study.lock():
        kept = kept.model_copy(update={"ended": study.ended()})
        return kept, write_files(study.sweep, kept)


def close(study: Study, corpus: Corpus, trials: Sequence[EndedTrial], files: Sequence[Path]) -> None:
    """Bring MLflow up to date with a sweep that has ended, and delete what was kept for resuming it."""
    ended = [
        EndedRun(
            run_facts(study, trial, trial.settings, corpus, {}),
            trial.history,
            {"trial_state": trial.state},
            trial.failure,
            final_figures(trial.history, trial.test_perplexity),
        )
        for trial in trials
        if trial.history
    ]
    metrics = group_metrics(groups_of(study.sweep, trials))
    if best := best_of(trials):
        metrics[shown("valid_perplexity")] = best.valid_perplexity
    with study.lock():
        close_sweep(study.name, study.sweep.name, ended, files, metrics)
        delete_checkpoints(f"{checkpoints_of(study)}-")


def checkpoints_of(study: Study) -> str:
    """The prefix of its trials' checkpoint names."""
    return f"sweep-{study.name}"


def run_facts(
    study: Study, trial: Trial | EndedTrial, settings: Settings, corpus: Corpus, tags: Mapping[str, str]
) -> RunFacts:
    """What MLflow is told about a trial; two trials with equal settings stay two runs."""
    sweep, number = study.sweep, trial.number
    own_tags = {"recipe": sweep.name, "sweep": study.name, "trial": str(number)}
    if sweep.over_seeds:
        own_tags["group"] = sweep.group_name(trial.picked)
    # Every worker that gets the trial uses this id: the study gives it to only one at a time.
    return RunFacts(
        f"{sweep.name}-{number:0{len(str(sweep.trials))}}",
        f"{fingerprint(settings, corpus.fingerprint)}-{study.name}-{number}",
        settings,
        corpus,
        {**own_tags, **tags},
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
    before = read_study(study_path(sweep.name))
    corpus = None if arguments.report and before and not PROCESSED.exists() else load_corpus()
    kept = identify(sweep, before, corpus)
    study = Study(sweep, kept.name, arguments.storage)
    with study.faults():
        study.add(before.ended if before else [])
        say(f"{sweep.name}: {summary(sweep, study.ended())}; the study {study.name} in {study.place}")
        if corpus and not arguments.report:
            with naming(str(sweep.path)):
                work(study, corpus, kept)
        kept, files = keep(study, kept)
        print_summary(sweep, kept)
        if not study.is_finished():
            remaining = counted(sweep.trials - len(kept.ended), "trial")
            say(f"{remaining} left: python -m pipeline.sweep {arguments.file} continues")
        elif corpus:
            close(study, corpus, kept.ended, files)


if __name__ == "__main__":
    run(main)
