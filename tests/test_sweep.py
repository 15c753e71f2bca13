"""Sweeps: what a file may contain, and that each trial is run exactly once, whatever happens to the workers."""

import csv
import math
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import chdir, closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from mlflow import MlflowClient
from mlflow.entities import Run
from optuna.trial import FixedTrial
from optuna.trial import Trial as OptunaTrial
from ruamel.yaml import YAML

from pipeline import sweep as command
from pipeline.artifacts.trials import EndedTrial, KeptStudy, State, read_study, write_study
from pipeline.corpus.ids import Corpus, load_corpus
from pipeline.demo import workspace_environment
from pipeline.lm.training import Training
from pipeline.project.console import UserError
from pipeline.settings.mistakes import NEXT_LINE
from pipeline.settings.overlay import flattened
from pipeline.settings.params import parse_params, parse_yaml
from pipeline.settings.recipes import apply_recipe
from pipeline.settings.schema import CorpusSizes
from pipeline.sweeps.report import write_files
from pipeline.sweeps.space import MOST_COMBINATIONS, Range, combinations, draw, overrides
from pipeline.sweeps.study import Study, identify
from pipeline.sweeps.sweep import Sampler, Sweep
from pipeline.sweeps.sweep_file import load_sweep
from pipeline.sweeps.tables import importance
from pipeline.sweeps.trial import TakenOverError, Trial
from pipeline.tracking.sweeps import open_sweep
from tests.histories import history
from tests.small import COMMITTED, ROOT, recipe_text, small_settings
from tests.workspaces import held_until_awaited, workspace

UPDATE = {
    "one_of": {
        "sgd": {
            "optimizer": {"name": "sgd", "momentum": [0.0, 0.8], "weight_decay": 0.0},
            "learning_rate": {"low": 0.2, "high": 2.0, "log": True},
        },
        "adamw": {"optimizer": {"name": "adamw", "weight_decay": 0.01}, "learning_rate": {"low": 0.001, "high": 0.01}},
    }
}
SETTINGS = {"epochs": 2, "hidden_size": 16, "embedding_size": 16, "cell": ["lstm", "gru"], "update": UPDATE}
SWEEP = {
    "params": "params.yaml",
    "model": "lstm",
    "trials": 4,
    "sampler": {"name": "tpe", "seed": 1},
    "pruner": {"percentile": 50.0, "startup_trials": 1, "min_epochs": 1},
    "grace_seconds": 4,
    "settings": SETTINGS,
}


GRID = {"name": "grid"}
RANGE = {"low": 5, "high": 9}


def write_sweep(folder: Path = Path(), name: str = "small", **changes: Any) -> Path:
    path = folder / f"{name}.yaml"
    with path.open("w") as file:
        document = {name: value for name, value in (SWEEP | changes).items() if value is not None}
        YAML(typ="safe", pure=True).dump(document, file)
    return path


def write_grid(**settings: Any) -> Path:
    return write_sweep(sampler=GRID, trials=None, pruner=None, settings=settings)


@pytest.fixture
def params() -> None:
    """The demo's params.yaml in the working folder."""
    Path("params.yaml").write_text(recipe_text("demo"))


@pytest.fixture
def sweep(params: None) -> Sweep:
    return load_sweep(write_sweep())


@pytest.fixture
def study(sweep: Sweep) -> Study:
    return Study(sweep, "small")


# Reading the file


def mistakes(**changes: Any) -> list[str]:
    """The lines of the error for a file, without the file's name."""
    with pytest.raises(UserError) as fault:
        load_sweep(write_sweep(**changes))
    lines = str(fault.value).split(NEXT_LINE)
    assert all(line.startswith("small.yaml: ") for line in lines)
    return [line.removeprefix("small.yaml: ") for line in lines]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "lsmt"}, "model = 'lsmt': params.yaml has lstm_dropout, lstm, gru_dropout, gru"),
        ({"trials": 10**9}, "trials = 1000000000: input should be less than or equal to 100000"),
        ({"grace_seconds": 10**12}, "grace_seconds = 1000000000000: input should be less than or equal to"),
        ({"settings": {"epochs": {"low": 1, "high": 10**30}}}, "settings.epochs = 1000"),
        ({"settings": {"dropout": {"low": 0.1, "high": 0.2}, "seed": [*range(3, 20_000), -1]}}, "seed = -1"),
        (
            {"settings": {n: [False, True] for n in ("tied_weights", "locked_dropout")} | {"init_range": [1, 2, 1e9]}},
            "settings.init_range = 1000000000.0: input should be less than",
        ),
        ({"trials": 0}, "trials = 0: input should be greater than or equal to 1"),
        ({"budget": 3}, "budget: no such setting; known here: params, model, trials"),
        ({"sampler": {"name": "bayes"}}, "sampler.name = 'bayes': input should be one of 'tpe', 'random', 'grid'"),
        ({"sampler": {"name": "grid", "seed": 1}}, "sampler.seed: no such setting; known here: name"),
        ({"sampler": GRID}, "settings.learning_rate: a grid takes no ranges: give a [list]"),
        ({"sampler": GRID, "settings": {"seed": [1, 2]}}, "trials = 4: this grid has 2 combinations: leave"),
        (
            {"sampler": GRID, "settings": {f"optimizer.{n}": [*range(9)] for n in "abcdefghijkl"}},
            "a grid of 282429536481 combinations: at most 100,000 are possible",
        ),
        (
            {"sampler": GRID, "settings": {"update": {"one_of": {"a": {"bptt": [5, 6]}, "b": {"bptt": RANGE}}}}},
            "settings.bptt: a grid takes no ranges: give a [list]",
        ),
        ({"settings": {"optimizer.kind": UPDATE}}, "settings.optimizer.kind: a one_of needs a name without a dot"),
        ({"settings": {"optimizer": {"kind": UPDATE}}}, "settings.optimizer: a one_of needs a name without a dot"),
        ({"trials": None}, "trials is missing"),
        ({"settings": {"epochs": 3}}, "settings: nothing to search"),
        ({"settings": {"droput": [0.1, 0.2]}}, "settings.droput: no such setting; did you mean dropout?"),
        ({"settings": {"cell": ["lstm", "rnn"]}}, "settings.cell = 'rnn': input should be 'lstm', 'gru'"),
        ({"settings": {"cell": ["lstm"]}}, "settings.cell = ['lstm']: a choice needs two or more different"),
        ({"settings": {"cell": ["lstm", "lstm"]}}, "a choice needs two or more different values"),
        ({"settings": {"schedule": [{"name": "decay"}, {}]}}, "settings.schedule: a list may only have plain values"),
        ({"settings": {"dropout": {"low": 0.0, "high": 1.5}}}, "settings.dropout = 1.5: input should be less than 1"),
        ({"settings": {"dropout": {"low": 0.5, "high": 0.1}}}, "settings.dropout.high = 0.1: has to be greater than"),
        ({"settings": {"dropout": {"low": 0.0, "high": 0.5, "log": True}}}, "settings.dropout.log = True: low has to"),
        ({"settings": {"dropout": {"lo": 0.0, "high": 0.5}}}, "settings.dropout.lo: no such setting; did you mean low"),
        ({"settings": {"update": {"one_of": {"sgd": {}}}}}, "settings.update.one_of: expected two or more names"),
        (
            {"settings": {"update": UPDATE | {"high": 3}}},
            "settings.update: one_of has to be the only key: remove high",
        ),
        (
            {"settings": {"optimizer": {"name": "adamw", "momentum": [0.1, 0.2]}}},
            "settings.optimizer.momentum: no such setting",
        ),
        (  # wrong only in combination
            {"settings": {"tied_weights": [False, True], "hidden_size": [48, 64]}},
            "settings.tied_weights = True: embedding_size and hidden_size must be equal",
        ),
    ],
)
def test_a_mistake_is_one_line_and_nothing_is_trained(changes: dict, message: str, params: None) -> None:
    assert any(message in line for line in mistakes(**changes))


def test_all_mistakes_in_a_file_are_reported_at_once(params: None) -> None:
    update = {"one_of": {"one": {"learning_rate": [0.1]}, "other": {"bptt": {"low": 2, "high": 1}}}}
    found = mistakes(model="lsmt", trials=0, grace_seconds=1, settings=SETTINGS | {"update": update})
    assert [line.split(" = ")[0] for line in found] == [
        "trials",
        "grace_seconds",
        "settings.update.one.learning_rate",
        "settings.update.other.bptt.high",
        "model",
    ]
    found = mistakes(trials=0, settings={"dropout": [0.1, 1.5], "epochs": [1, 0]})
    assert [line.split(":")[0] for line in found] == ["trials = 0", "settings.epochs = 0", "settings.dropout = 1.5"]
    found = mistakes(sampler=GRID, settings={"dropout": 1.5})
    assert [line.split(": ")[:2] for line in found] == [
        ["settings", "nothing to search"],
        ["settings.dropout = 1.5", "input should be less than 1"],
    ]


def test_a_minimal_file_gets_defaults(params: None) -> None:
    Path("little.yaml").write_text("{params: params.yaml, model: lstm, trials: 3, settings: {dropout: [0.1, 0.2]}}")
    sweep = load_sweep(Path("little.yaml"))
    assert (sweep.file.sampler, sweep.file.pruner, sweep.file.grace_seconds) == (Sampler(name="tpe", seed=1), None, 120)


def test_every_value_of_a_huge_space_is_checked(params: None) -> None:
    wide = {"low": 0.0, "high": 0.5}
    names = ["dropout", "embedding_dropout", "output_dropout", "weight_dropout", "optimizer.momentum"]
    names += [f"more.{number}" for number in range(25)]
    endless = dict.fromkeys(names, wide)
    assert len(list(combinations({name: Range(low=0.0, high=0.5) for name in names}))) == MOST_COMBINATIONS
    for settings in (endless, {"update": {"one_of": {"one": endless, "other": endless}}}):
        with pytest.raises(UserError, match=r"settings\.more: no such setting"):
            load_sweep(write_sweep(settings=settings))
    last = {"init_range": [0.1, 0.2, -1.0]} | dict.fromkeys(names[:5], wide) | {"seed": list(range(9999))}
    with pytest.raises(UserError, match=r"init_range = -1\.0"):
        load_sweep(write_sweep(settings=last))


def test_an_impossible_params_file_is_named(params: None) -> None:
    with pytest.raises(UserError, match=r"'a\\x00b' is not a file name"):
        load_sweep(write_sweep(params="a\0b"))
    with pytest.raises(UserError, match=r"small\.yaml: params = '\\ud800'"):
        load_sweep(write_sweep(params="\ud800"))


@pytest.mark.parametrize("name", ["My sweep", "a" * 101, "Ä", "x.y"])
def test_a_sweeps_name_has_to_be_valid_for_a_recipe(name: str, params: None) -> None:
    with pytest.raises(UserError, match="the file's name is the sweep's, and may have at most 100 lower-case"):
        load_sweep(write_sweep(name=name))


@pytest.fixture
def project() -> None:
    """The repository's params.yaml, as committed, and recipes in the working folder."""
    Path("params.yaml").write_text(COMMITTED)
    shutil.copytree(ROOT / "recipes", "recipes")


def test_the_sweeps_in_the_repository_are_valid(project: None) -> None:
    for path in (ROOT / "sweeps").glob("*.yaml"):
        assert load_sweep(path).trials > 0


CELL = {"one_of": {"gru": {"cell": "gru"}, "lstm": {"cell": "lstm", "learning_rate": [1.0, 2.0]}}}


def test_a_grid_has_every_combination_once_and_the_seed_varies_slowest(params: None) -> None:
    sweep = load_sweep(write_grid(bptt=[10, 20], cell=CELL, seed=[1, 2, 3], epochs=1))
    tried = list(map(sweep.tried, sweep.grid))
    assert sweep.trials == len({*map(str, tried)}) == 2 * 3 * 3
    assert [values["seed"] for values in tried] == [1] * 6 + [2] * 6 + [3] * 6
    assert [(values["cell"], values["learning_rate"]) for values in tried[:3]] == [
        ("gru", 1.0),
        ("lstm", 1.0),
        ("lstm", 2.0),
    ]
    assert {values["bptt"] for values in tried[:3]} == {10}

    study = Study(sweep, "small")
    with pytest.raises(KeyboardInterrupt), claim(study):
        raise KeyboardInterrupt  # before it has picked anything
    assert [sweep.tried(trial.picked) for trial in finished(study)] == tried


def test_combinations_are_those_of_choices_and_ends_of_ranges(sweep: Sweep) -> None:
    found = [overrides(sweep.space, picked) for picked in combinations(sweep.space)]
    assert len(found) == 2 * (2 * 2 + 2)
    assert {flat["learning_rate"] for flat in found if flat["optimizer.name"] == "adamw"} == {0.001, 0.01}


@pytest.fixture(scope="module")
def small_sweep(tmp_path_factory: pytest.TempPathFactory) -> Sweep:
    folder = tmp_path_factory.mktemp("space")
    (folder / "params.yaml").write_text(recipe_text("demo"))
    with chdir(folder):
        return load_sweep(write_sweep())


class Drawn(FixedTrial):
    """An Optuna trial with values from hypothesis."""

    def __init__(self, data: st.DataObject) -> None:
        super().__init__({})
        self.data = data

    def suggest_float(self, name: str, low: float, high: float, **_: object) -> float:
        return self.data.draw(st.floats(low, high), name)

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        return self.data.draw(st.sampled_from(choices), name)


@given(data=st.data())
def test_what_is_picked_changes_these_settings_and_no_others(small_sweep: Sweep, data: st.DataObject) -> None:
    sweep = small_sweep
    picked = draw(sweep.space, Drawn(data))
    flat, settings = overrides(sweep.space, picked), flattened(sweep.settings(picked))
    changed = {name for name, value in settings.items() if flattened(sweep.source.base).get(name) != value}
    assert changed <= set(flat)
    assert all(settings[name] == value for name, value in flat.items())
    tried = sweep.tried(picked)
    assert tried["update"] == picked["update"]
    assert tried["learning_rate"] == picked[f"update.{picked['update']}.learning_rate"]


def test_an_edited_sweep_is_another_study_but_with_more_trials_it_is_the_same(params: None) -> None:
    name = load_sweep(write_sweep()).study_name("corpus")
    assert load_sweep(write_sweep(trials=9)).study_name("corpus") == name
    edited = load_sweep(write_sweep(settings=SETTINGS | {"epochs": 3}))
    assert len({name, edited.study_name("corpus"), load_sweep(write_sweep()).study_name("other")}) == 3


# The trials


def finish(trial: Trial, valid: list[float], state: State = "complete", **details: Any) -> bool:
    """Do what a worker does, without training; returns whether the trial should have been pruned."""
    with trial:
        assert trial.picked
        pruned = bool(valid) and trial.report(history(valid))
        trial.end(state, history(valid), **details)
    return pruned


def finished(study: Study) -> list[EndedTrial]:
    """Complete the remaining trials; returns all of them."""
    while trial := study.claim():
        finish(trial, [100.0])
    return study.ended()


def claim(study: Study) -> Trial:
    trial = study.claim()
    assert trial is not None
    return trial


LONG_AGO = "2000-01-01 00:00:00"


def heartbeat() -> str:
    with closing(sqlite3.connect("sweeps.db", timeout=60)) as database:
        ((last,),) = database.execute("SELECT heartbeat FROM trial_heartbeats")
    return last


def make_heartbeats_stale() -> None:
    with closing(sqlite3.connect("sweeps.db", timeout=60)) as database, database:
        database.execute("UPDATE trial_heartbeats SET heartbeat = ?", [LONG_AGO])


def test_each_trial_is_claimed_once(study: Study, sweep: Sweep) -> None:
    other = Study(sweep, "small")
    trials = [claim(worker) for worker in (study, other, study, other)]
    assert [trial.number for trial in trials] == [1, 2, 3, 4]
    assert study.claim() is None
    assert not study.is_finished()
    for trial in trials:
        finish(trial, [100.0 - trial.number, 200.0])
    assert [(trial.state, trial.valid_perplexity) for trial in other.ended()] == [
        ("complete", 99.0),
        ("complete", 98.0),
        ("complete", 97.0),
        ("complete", 96.0),
    ]
    assert study.is_finished()
    assert study.claim() is None
    assert len(Study(replace(sweep, trials=6), "small").ended()) == 4  # and more may be requested later
    assert claim(Study(replace(sweep, trials=6), "small")).number == 5


def test_the_settings_of_a_trial_do_not_depend_on_the_worker(sweep: Sweep) -> None:
    first, second = Study(sweep, "one"), Study(sweep, "two")
    claim(second)
    skipped = claim(first), claim(first)
    assert sweep.settings(skipped[1].picked) == sweep.settings(claim(second).picked)
    assert sweep.settings(skipped[0].picked) != sweep.settings(skipped[1].picked)


@pytest.mark.parametrize("reason", [KeyboardInterrupt, ZeroDivisionError])
def test_an_interrupted_trial_is_claimed_next_with_the_same_settings(
    reason: type[BaseException], study: Study, sweep: Sweep
) -> None:
    tried = []

    def be_interrupted() -> None:
        with claim(study) as trial:
            tried.append(sweep.settings(trial.picked))
            trial.report(history([100.0]))
            raise reason

    with pytest.raises(reason):
        be_interrupted()
    again = claim(study)
    assert again.number == 1
    assert sweep.settings(again.picked) == tried[0]
    assert [claim(study).number for _ in range(3)] == [2, 3, 4]
    assert study.claim() is None


def test_a_trial_interrupted_while_picking_gets_the_settings_it_would_have_had(
    study: Study, sweep: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    def be_interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    expected = claim(Study(sweep, "undisturbed")).picked
    with monkeypatch.context() as interrupted:
        interrupted.setattr(OptunaTrial, "suggest_float", be_interrupted)
        with pytest.raises(KeyboardInterrupt), claim(study) as trial:
            assert trial.picked
    assert claim(study).picked == expected


def test_a_silent_workers_trial_is_taken_over_and_counts_once(params: None) -> None:
    sweep = load_sweep(write_sweep(trials=1, grace_seconds=60))
    silent, other = Study(sweep, "small"), Study(sweep, "small")
    trial = claim(silent)  # never records a heartbeat, like a killed worker
    settings = sweep.settings(trial.picked)
    assert other.claim() is None
    make_heartbeats_stale()
    again = claim(other)
    assert (again.number, sweep.settings(again.picked)) == (1, settings)
    for late in (lambda: trial.report(history([50.0])), lambda: trial.end("pruned", history([50.0]))):
        with pytest.raises(TakenOverError):
            late()
    finish(again, [100.0])
    with pytest.raises(TakenOverError):
        trial.end("complete", history([50.0]))
    assert [trial.valid_perplexity for trial in silent.ended()] == [100.0]


def test_heartbeats_keep_a_trial_from_being_taken_over(params: None) -> None:
    sweep = load_sweep(write_sweep(trials=1, grace_seconds=12))
    with claim(Study(sweep, "small")) as trial:
        make_heartbeats_stale()
        while heartbeat() == LONG_AGO:
            time.sleep(0.1)
        assert Study(sweep, "small").claim() is None
        trial.end("complete", history([100.0]))


def test_a_trial_worse_than_the_median_is_pruned_and_a_diverged_one_is_not_repeated(study: Study) -> None:
    finish(claim(study), [100.0, 90.0])
    assert finish(claim(study), [101.0], "pruned")
    assert not finish(claim(study), [99.0], "diverged", failure="the loss is nan at step 3 of epoch 2")
    finish(claim(study), [], "diverged", failure="the loss is nan at step 3 of epoch 1")
    assert [(t.state, t.valid_perplexity, len(t.history)) for t in study.ended()] == [
        ("complete", 90.0, 2),
        ("pruned", 101.0, 1),
        ("diverged", 99.0, 1),
        ("diverged", float("inf"), 0),
    ]
    assert study.is_finished()


def test_the_setting_that_decides_the_result_is_the_most_important(params: None) -> None:
    sweep = load_sweep(write_sweep(trials=16, sampler={"name": "random", "seed": 1}))
    study = Study(sweep, "small")
    assert importance(sweep, study.ended()) == {}
    while trial := study.claim():
        finish(trial, [100.0 if sweep.settings(trial.picked).cell == "lstm" else 50.0])
    shares = importance(sweep, study.ended())
    assert next(iter(shares)) == "cell"
    assert sum(shares.values()) == pytest.approx(1)


# Continuing on another machine


def kept(sweep: Sweep, ended: list[EndedTrial]) -> KeptStudy:
    sizes = CorpusSizes(train_tokens=1, valid_tokens=1, test_tokens=1, vocabulary_size=1)
    name = sweep.study_name("corpus")
    return KeptStudy(name=name, data_sha256="corpus", corpus=sizes, trials=sweep.trials, ended=ended)


def test_a_study_continues_elsewhere_from_its_file(study: Study, sweep: Sweep) -> None:
    finish(claim(study), [100.0, 90.0])
    finish(claim(study), [], "diverged", failure="the loss is nan at step 3 of epoch 1")
    finish(claim(study), [80.0], test_perplexity=79.0)
    write_study(Path("trials.jsonl"), kept(sweep, study.ended()))
    read = read_study(Path("trials.jsonl"))
    assert read is not None
    assert read.ended == study.ended()

    other = Study(sweep, "small", "sqlite:///other.db")
    with claim(other) as running:  # the second trial is waiting: the one that has ended replaces it
        assert other.add(read.ended) == 2
        assert other.add(read.ended) == 0
        assert [trial.number for trial in other.ended()] == [2, 3]
        assert other.ended() == read.ended[1:]
        assert running.picked
        running.report(history([70.0]))
        running.end("complete", history([70.0]))
    finish(claim(other), [60.0])
    assert [trial.valid_perplexity for trial in other.ended()] == [70.0, math.inf, 80.0, 60.0]
    assert other.claim() is None
    assert other.is_finished()


def test_the_file_of_another_study_is_not_overwritten(study: Study, sweep: Sweep) -> None:
    mine = kept(sweep, [])
    assert identify(sweep, mine, None) == mine
    edited = load_sweep(write_sweep(settings=SETTINGS | {"epochs": 3}))
    assert identify(edited, mine, None).name == edited.study_name("corpus")  # no trial has ended: nothing would be lost
    finish(claim(study), [100.0])
    mine = kept(sweep, study.ended())
    with pytest.raises(UserError, match=r"trials\.jsonl is of the study small-.*, which small\.yaml does not") as fault:
        identify(edited, mine, None)
    assert "\n" not in str(fault.value)


@pytest.mark.parametrize(
    "altered",
    [
        lambda picked: {},
        lambda picked: picked | {"cell": "rnn"},
        lambda picked: picked | {"bptt": 20},
        lambda picked: {place: 1e9 if "learning_rate" in place else value for place, value in picked.items()},
    ],
)
def test_a_trial_from_outside_the_space_is_an_error_in_one_line(
    altered: Callable[[dict], dict], study: Study, sweep: Sweep
) -> None:
    finish(claim(study), [100.0])
    (trial,) = study.ended()
    assert altered(trial.picked) != trial.picked
    other = Study(sweep, "other")
    with (
        pytest.raises(UserError, match=r"small/trials\.jsonl, trial 1: .*: restore the file with git"),
        warnings.catch_warnings(action="error", category=UserWarning),  # which would be another line
    ):
        other.add([trial.model_copy(update={"picked": altered(trial.picked)})])


def test_a_grid_continues_if_seeds_are_added_at_the_end_of_the_list(params: None) -> None:
    def with_seeds(*seeds: int) -> Sweep:
        return load_sweep(write_grid(dropout=[0.0, 0.1], seed=list(seeds)))

    shorter = with_seeds(1, 2)
    before = kept(shorter, finished(Study(shorter, "small")))

    longer = with_seeds(1, 2, 3)
    facts = identify(longer, before, None)
    assert (facts.name != before.name, facts.trials) == (True, 6)
    more = Study(longer, facts.name)
    assert more.add(before.ended) == 4
    assert [claim(more).number, claim(more).number] == [5, 6]
    for other in (with_seeds(2, 1, 3), with_seeds(1, 3), with_seeds(1, 3, 2)):
        with pytest.raises(UserError, match="does not continue"):
            identify(other, before, None)


def test_committed_studies_give_their_committed_files_byte_for_byte(project: None) -> None:
    shutil.copytree(ROOT / "sweeps", "sweeps")
    for study in (ROOT / "results/sweeps").glob("*/trials.jsonl"):
        name, before = study.parent.name, {path.name: path.read_bytes() for path in study.parent.iterdir()}
        sweep, committed = load_sweep(Path(f"sweeps/{name}.yaml")), read_study(study)
        assert committed
        facts = identify(sweep, committed, None)
        files = write_files(sweep, facts.model_copy(update={"ended": committed.ended}))
        assert {path.name: path.read_bytes() for path in files} == before


def test_the_files_do_not_depend_on_how_the_path_of_the_sweep_was_given(study: Study, sweep: Sweep) -> None:
    finish(claim(study), [100.0])
    contents = []
    for path in (Path("small.yaml"), Path("small.yaml").absolute()):
        files = write_files(load_sweep(path), kept(sweep, study.ended()))
        contents.append({file: file.read_bytes() for file in files})
    assert contents[0] == contents[1]


def test_a_setting_named_like_a_column_gets_a_separate_column(params: None) -> None:
    sweep = load_sweep(write_grid(epochs=[2, 9]))
    write_files(sweep, kept(sweep, finished(Study(sweep, "small"))))
    with Path("results/sweeps/small/trials.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["epochs"], row["settings.epochs"]) for row in rows] == [("1", "2"), ("1", "9")]


def test_the_test_perplexity_is_of_the_best_weights() -> None:
    ids = torch.arange(60) % 7
    settings = small_settings(epochs=2)
    training = Training(settings, ids, ids, vocabulary_size=7)
    while not training.finished:
        training.run_epoch()
    with torch.no_grad():
        for weight in training.model.parameters():
            weight.zero_()
    corpus = Corpus(train=ids, valid=ids, test=ids, vocabulary=tuple("abcdefg"))
    assert command.test_perplexity(training, corpus) == min(record.valid_perplexity for record in training.history)


# The database


@pytest.mark.parametrize(
    ("storage", "message"),
    [
        ("somewhere", "--storage: not a database's URL: expected sqlite:///FILE or postgresql://"),
        ("mysql://root@localhost/x", "--storage: expected sqlite:///FILE or postgresql://"),
        ("sqlite://", "--storage: expected sqlite:///FILE"),
        ("sqlite:///none/x.db", "--storage: no folder none"),
        ("postgresql://me:planted-93f1@127.0.0.1:1/x", "the sweep's database: "),
        ("postgresql://me:planted-93f1@localhost:abc/x", "--storage: not a database's URL: expected"),
        ("postgresql+psycpg://me:planted-93f1@localhost/x", "the sweep's database: Can't load plugin"),
        ("sqlite:///mlflow.db", "--storage: mlflow.db is MLflow's database: use a separate one for sweeps"),
        ("sqlite:///shop.db", "--storage: shop.db is another program's database: use a separate one for sweeps"),
        ("sqlite:///newer.db", "--storage: newer.db was written by another version of Optuna: use a new one"),
    ],
)
def test_an_unusable_database_is_an_error_in_one_line_without_the_password(
    storage: str, message: str, sweep: Sweep
) -> None:
    with closing(sqlite3.connect("mlflow.db")) as database:
        database.execute("CREATE TABLE experiments (experiment_id INTEGER)")
    with closing(sqlite3.connect("shop.db")) as database:
        database.execute("CREATE TABLE alembic_version (version_num VARCHAR(32))")
    Study(sweep, "small", "sqlite:///newer.db")
    with closing(sqlite3.connect("newer.db")) as database, database:
        database.execute("UPDATE alembic_version SET version_num = 'v99.0.0'")
    with pytest.raises(UserError, match=re.escape(message)) as fault:
        Study(sweep, "small", storage)
    assert "planted" not in str(fault.value)
    assert "\n" not in str(fault.value)


def test_a_database_with_other_tables_can_be_used(sweep: Sweep) -> None:
    with closing(sqlite3.connect("shop.db")) as database:
        database.execute("CREATE TABLE orders (number INTEGER)")
    assert claim(Study(sweep, "small", "sqlite:///shop.db")).number == 1


def test_a_missing_driver_is_an_error_in_one_line(sweep: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(UserError, match=r"has no driver installed: pip install -r requirements-stores\.txt"):
        Study(sweep, "small", "postgresql://me@127.0.0.1:1/x")


def test_a_damaged_database_is_an_error_in_one_line(sweep: Sweep) -> None:
    Path("sweeps.db").write_text("not a database, but a text that someone left here" * 9)
    with pytest.raises(UserError, match="the sweep's database: file is not a database"):
        Study(sweep, "small")


# Complete sweeps


def runs_of(folder: Path) -> tuple[Run, list[Run]]:
    """The sweep's run, and those of its trials in the order of their numbers."""
    client = MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    runs = client.search_runs([client.get_experiment_by_name("recurrent-lm").experiment_id])
    (parent,) = [run for run in runs if "sweep_parent" in run.data.tags]
    trials = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    assert len(trials) == len(runs) - 1
    return parent, sorted(trials, key=lambda run: int(run.data.tags["trial"]))


def assert_complete(folder: Path, trials: int) -> None:
    """Every trial has ended once: in the study, in the table, and in MLflow."""
    with (folder / "results/sweeps/small/trials.csv").open() as file:
        rows = list(csv.DictReader(file))
    states = {int(row["trial"]): row["state"] for row in rows}
    assert len(rows) == trials
    assert set(states) == set(range(1, trials + 1))
    parent, runs = runs_of(folder)
    assert parent.info.status == "FINISHED"
    ended = [run for run in runs if "trial_state" in run.data.tags]
    assert {int(run.data.tags["trial"]): run.data.tags["trial_state"] for run in ended} == states
    assert len(ended) == trials
    assert all(run.info.status == "KILLED" for run in runs if run not in ended)
    for row in rows:
        run = ended[int(row["trial"]) - 1]
        assert run.data.params["cell"] == row.get("cell", row.get("model"))
        assert float(run.data.params["learning_rate"]) == pytest.approx(float(row.get("learning_rate", 1)))
    assert not list((folder / ".checkpoints").glob("*"))


@pytest.fixture
def run_sweep(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> Callable[..., str]:
    def run(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["sweep", *arguments])
        command.main()
        return capsys.readouterr().out

    return run


@pytest.mark.slow
def test_a_sweep_continues_after_an_interrupt_and_each_trial_ends_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run_sweep: Callable[..., str]
) -> None:
    folder = workspace(tmp_path / "workspace", epochs=2)
    monkeypatch.chdir(folder)
    write_sweep()
    assert "no trial has ended" in run_sweep("small.yaml", "--report")
    run_epoch = Training.run_epoch
    epochs: list[int] = []

    def run_epoch_until_interrupted(training: Training, *arguments: Any) -> Any:
        if epochs == [1, 2, 1]:  # in the middle of the second trial
            raise KeyboardInterrupt
        epochs.append(len(training.history) + 1)
        return run_epoch(training, *arguments)

    with monkeypatch.context() as interrupted:
        interrupted.setattr(Training, "run_epoch", run_epoch_until_interrupted)
        with pytest.raises(KeyboardInterrupt):
            run_sweep("small.yaml")
    assert runs_of(folder)[1][1].info.status == "KILLED"
    partial = run_sweep("small.yaml", "--report")
    assert "1 of 4 trials have ended" in partial

    (interrupted_trial,) = (folder / ".checkpoints").glob("sweep-*.pt")
    with held_until_awaited(interrupted_trial, monkeypatch):  # by a worker that was wrongly presumed dead
        out = run_sweep("small.yaml")
    assert "1 of 4 trials have ended" in out
    assert out.count(f"trial 2/4: process {os.getpid()} is already training this model; waiting for it") == 1
    if "trial 2/4: continuing after epoch 1" not in out:
        assert "trial 2/4: pruned" in out
    assert_complete(folder, 4)
    assert len(runs_of(folder)[1]) == 4
    parent, _ = runs_of(folder)
    files = {file.path for file in MlflowClient(f"sqlite:///{folder / 'mlflow.db'}").list_artifacts(parent.info.run_id)}
    assert files == {"trials.jsonl", "trials.csv", "importance.csv", "parallel_coordinates.svg", "small.yaml"}

    monkeypatch.setattr(Training, "run_epoch", None)
    again = run_sweep("small.yaml")
    assert "4 of 4 trials have ended" in again
    recipe = "results/sweeps/small/small.yaml"
    assert f"mkdir recipes && cp {recipe} recipes/ && python -m pipeline.recipe small && dvc repro" in again
    assert_complete(folder, 4)

    best = parse_params(parse_yaml(apply_recipe(Path("params.yaml").read_text(), Path(recipe)), Path(recipe)))
    (winner,) = re.findall(r"best: trial (\d+), validation perplexity ([\d.]+)", again)
    assert best.recipe == "small"
    run = runs_of(folder)[1][int(winner[0]) - 1]
    assert {name: str(value) for name, value in flattened(best.model("best")).items()} == run.data.params
    assert f"{parent.data.metrics['best_valid_perplexity']:.2f}" == winner[1]


def assert_report_is_reproduced(folder: Path, monkeypatch: pytest.MonkeyPatch, run_sweep: Callable[..., str]) -> None:
    """From trials.jsonl alone, without database and corpus, byte for byte."""
    monkeypatch.chdir(folder)
    results = Path("results/sweeps/small")
    before = {path.name: path.read_bytes() for path in results.iterdir()}
    Path("sweeps.db").unlink()
    shutil.rmtree("data")
    for path in results.iterdir():
        if path.name != "trials.jsonl":
            path.unlink()
    run_sweep("small.yaml", "--report")
    assert {path.name: path.read_bytes() for path in results.iterdir()} == before


@pytest.mark.slow
def test_the_report_writes_what_mlflow_missed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run_sweep: Callable[..., str]
) -> None:
    folder = workspace(tmp_path / "workspace", epochs=1)
    monkeypatch.chdir(folder)
    sizes = {"epochs": 1, "hidden_size": 16, "embedding_size": 16}
    write_sweep(sampler=GRID, trials=None, evaluate=True, settings=sizes | {"cell": ["gru", "lstm"], "seed": [1, 2]})
    with monkeypatch.context() as down:
        down.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
        out = run_sweep("small.yaml")
    assert "`python -m pipeline.sweep ... --report` writes what is missing" in out
    assert re.search(r"cell lstm +test +2 ", out)
    run_sweep("small.yaml", "--report")
    assert_complete(folder, 4)
    parent, runs = runs_of(folder)
    assert [run.data.tags["group"] for run in runs] == ["cell gru", "cell lstm"] * 2
    tests = [run.data.metrics["best_test_perplexity"] for run in runs]
    assert parent.data.metrics["mean_test_perplexity/cell lstm"] == pytest.approx((tests[1] + tests[3]) / 2, abs=1e-4)
    assert_report_is_reproduced(folder, monkeypatch, run_sweep)
    assert len(runs_of(folder)[1]) == 4


@pytest.mark.slow
def test_a_worker_whose_trial_was_taken_over_leaves_its_run_to_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = workspace(tmp_path / "workspace", epochs=2)
    monkeypatch.chdir(folder)
    sweep = load_sweep(write_sweep())
    study = Study(sweep, "small")

    def report_too_late(*_: Any) -> bool:
        while not runs_of(folder)[1]:  # another thread writes to MLflow
            time.sleep(0.1)
        raise TakenOverError

    monkeypatch.setattr(Trial, "report", report_too_late)
    parent = open_sweep(study.name, sweep.name)
    with pytest.raises(TakenOverError), claim(study) as trial:
        command.run_trial(trial, study, load_corpus(), parent)
    (run,) = runs_of(folder)[1]
    assert (run.info.status, run.data.tags.get("failure")) == ("RUNNING", None)


def start_worker(folder: Path, *arguments: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "pipeline.sweep", "small.yaml", *arguments],
        cwd=folder,
        env=workspace_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def lines_until(worker: subprocess.Popen, pattern: str) -> Iterator[str]:
    assert worker.stdout is not None
    for line in worker.stdout:
        yield line
        if re.search(pattern, line):
            return
    raise AssertionError(f"no line matches {pattern}")


def check_that_killing_a_worker_loses_no_trial(folder: Path, *arguments: str, **changes: Any) -> None:
    trials = 12
    changes = {"trials": trials, "settings": SETTINGS | {"epochs": 3}} | changes
    write_sweep(folder, **changes, pruner=None, grace_seconds=20)
    killed, survivor = start_worker(folder, *arguments), start_worker(folder, *arguments)
    seen = list(lines_until(killed, r"trial \d+/\d+: epoch 2"))
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    (number,) = re.findall(r"trial (\d+)/\d+: epoch 2", seen[-1])
    output, _ = survivor.communicate()
    assert survivor.returncode == 0, output

    done = re.findall(r"trial (\d+)/\d+: complete", "".join(seen) + output)
    assert Counter(done) == {str(number): 1 for number in range(1, trials + 1)}
    assert f"trial {number}/{trials}: continuing after epoch" in output
    assert "planted" not in output
    assert_complete(folder, trials)
    _, runs = runs_of(folder)
    assert len(runs) == trials  # the killed worker's run was continued, too


@pytest.mark.long
@pytest.mark.timeout(600)
def test_killing_one_of_two_workers_loses_no_trial_and_runs_none_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run_sweep: Callable[..., str]
) -> None:
    folder = workspace(tmp_path / "workspace", epochs=3)
    model = {"one_of": {"gru": {"cell": "gru", "dropout": [0.0, 0.2]}, "lstm": {"cell": "lstm", "dropout": [0.0, 0.2]}}}
    settings = {"epochs": 3, "hidden_size": 16, "embedding_size": 16, "model": model, "seed": [1, 2, 3]}
    check_that_killing_a_worker_loses_no_trial(folder, sampler=GRID, trials=None, evaluate=True, settings=settings)
    assert_report_is_reproduced(folder, monkeypatch, run_sweep)


@pytest.mark.stores
@pytest.mark.timeout(600)
def test_the_same_on_postgresql(tmp_path: Path) -> None:
    from tests.services import postgresql

    folder = workspace(tmp_path / "workspace", epochs=3)
    with postgresql() as url:
        check_that_killing_a_worker_loses_no_trial(folder, "--storage", url)
        secret = url.split(":")[2].split("@")[0]
        assert not [path for path in folder.rglob("*") if path.is_file() and secret.encode() in path.read_bytes()]
    assert not (folder / "sweeps.db").exists()
