"""The results in git: those of the reference run and of recipes, and nothing else."""

import configparser
import shutil
from collections.abc import Callable

import pytest
from dvc.repo import Repo

from pipeline.artifacts.dvc_lock import LOCK, Lock, LockedStage, dvc_md5
from pipeline.artifacts.reference import KEPT_STAGES, RUNS, current_code, kept_path, kept_runs
from pipeline.artifacts.weights import weights_path
from pipeline.project.console import UserError
from pipeline.project.files import REFERENCE
from pipeline.settings.params import parse_yaml
from pipeline.settings.schema import Evaluate
from pipeline.tracking.origin import last_commit_of, text_at
from tests.small import ROOT, recipe_params

KEPT_RECIPES = ("default", "best", "wikitext2")


def digests_of_weights(lock: str) -> set[str]:
    """Of all trained models in a dvc.lock, given as text."""
    stages = Lock.model_validate(parse_yaml(lock, LOCK)).stages
    trained = {name.partition("@")[2]: stage for name, stage in stages.items() if name.startswith("train@")}
    return {digest for model, stage in trained.items() if (digest := stage.md5(weights_path(model)))}


def test_git_has_the_results_of_kept_runs_with_the_weights_in_dvc_lock_and_no_other_files(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Above all no corpus, whose licence does not allow it. dvc.lock is that of the commit that added the results."""
    monkeypatch.chdir(ROOT)
    files = {path for path in (REFERENCE / "files").rglob("*") if path.is_file()}
    commit = last_commit_of(REFERENCE / "files")
    in_lock = digests_of_weights(text_at(commit, LOCK) if commit else LOCK.read_text())
    of_runs = {out["md5"] for _, run in kept_runs() for out in run["outs"]}
    assert len(in_lock) == 4
    assert in_lock <= of_runs
    assert files == {kept_path(digest) for digest in of_runs}
    assert files == {kept_path(dvc_md5(path)) for path in files}


def test_kept_runs_have_the_settings_of_their_recipe_and_the_current_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise DVC would not find them, and would train. A recipe is kept with all of its models or not at all."""
    monkeypatch.chdir(ROOT)
    recipes = {name: recipe_params(name) for name in KEPT_RECIPES}
    with Repo() as repo:
        code = current_code(repo)
    runs: dict[str, list[tuple[str, LockedStage]]] = {stage: [] for stage in KEPT_STAGES}
    for _, entry in kept_runs():
        *_, command, model = entry["cmd"].split()
        made_by = {dep["path"]: dep["md5"] for dep in entry["deps"] if dep["path"] in code}
        assert made_by == {path: code[path]["md5"] for path in made_by}, "run pipeline.accept"
        assert "pipeline/lm" in made_by
        runs[f"{command.removeprefix('pipeline.')}@"].append((model, LockedStage.model_validate(entry)))
    trained = {}
    for model, run in runs["train@"]:
        (recipe,) = (name for name, params in recipes.items() if params.models.get(model) == run.settings(model))
        trained[run.md5(weights_path(model))] = recipe, model
    evaluated = set()
    for model, run in runs["evaluate@"]:
        recipe, _ = of = trained[run.md5(weights_path(model))]
        assert Evaluate.model_validate(run.params["params.yaml"]["evaluate"]) == recipes[recipe].evaluate
        evaluated.add(of)
    every = {(name, model) for name, params in recipes.items() for model in params.models}
    assert set(trained.values()) == evaluated == every


@pytest.mark.parametrize(
    "damage", [lambda text: "{a: [", lambda text: text[:40], lambda text: text.replace("a", "b", 1)]
)
def test_a_damaged_entry_is_named(damage: Callable[[str], str]) -> None:
    shutil.copytree(ROOT / RUNS, RUNS)
    file, _ = next(kept_runs())
    file.write_text(damage(file.read_text()))
    with pytest.raises(UserError, match=rf"damaged: {file}: run `git checkout results/reference`"):
        list(kept_runs())


def test_a_plain_dvc_push_does_not_use_this_remote() -> None:
    """DVC pushes to the default remote or to one that is named explicitly."""
    config = configparser.ConfigParser()
    config.read(ROOT / ".dvc/config")
    assert (ROOT / ".dvc" / config["'remote \"reference\"'"]["url"]).resolve() == ROOT / REFERENCE
    assert "remote" not in config["core"]
    assert not any("remote:" in line for line in (ROOT / "dvc.yaml").read_text().splitlines())
