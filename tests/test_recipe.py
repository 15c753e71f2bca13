"""Recipes: laid over params.yaml whole and valid, its comments kept, and no edit lost."""

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from dvc.utils.serialize import parse_yaml as parse_as_dvc
from ruamel.yaml import YAML

from pipeline import recipe as command
from pipeline.project.console import UserError
from pipeline.recipe import use_recipe
from pipeline.settings.overlay import overlay
from pipeline.settings.params import load_params, parse_params, parse_yaml, read_yaml
from pipeline.settings.recipes import apply_recipe, differences, read_base
from tests.small import ROOT, default_params

RECIPES = sorted(path.stem for path in (ROOT / "recipes").glob("*.yaml"))
PARAMS = Path("params.yaml")

# The settings of the kept runs in a layout with comments wherever they may be.
BASE = """\
# Before all.

recipe: default             # a name

train:                      # shared
  # Above the first.
  cell: lstm                # lstm | gru
  num_layers: 2
  hidden_size: 200
  embedding_size: 200
  init_range: 0.1           # uniform

  epochs: 70
  batch_size: 20
  bptt: 25                  # tokens
  loss: mean
  optimizer: {name: sgd, momentum: 0.8, weight_decay: 0.0}  # or adamw
  learning_rate: 1.0
  schedule: {name: decay, constant_epochs: 15, decay: 0.98}  # or linear
  max_grad_norm: 5.0        # null: none
  seed: 1
  device: auto
  precision: auto           # the last

# Above the models.
models:
  wide:
    hidden_size: 400
    epochs: 3

# Above the rest.
processes: 1
download:
  timeout_seconds: 30
  sources:
    - data/ptb              # a source
  files:
    train: {name: a, sha256: "0000000000000000000000000000000000000000000000000000000000000000"}
    valid: {name: b, sha256: "0000000000000000000000000000000000000000000000000000000000000000"}
    test: {name: c, sha256: "0000000000000000000000000000000000000000000000000000000000000000"}
preprocess:
  expected:                 # any
evaluate:
  # How.
  dynamic:
report:
  course_report:
"""


def git(*arguments: str) -> None:
    identity = ["-c", "user.name=test", "-c", "user.email=test@example.org"]
    subprocess.run(["git", *identity, *arguments], check=True)


def commit() -> None:
    git("add", ".")
    git("commit", "-q", "-m", "a change")


@pytest.fixture
def project() -> None:
    """A folder without git that has a params.yaml and this project's recipes."""
    PARAMS.write_text(default_params())
    shutil.copytree(ROOT / "recipes", "recipes")


@pytest.fixture
def repository(project: None) -> None:
    """The same, in git."""
    git("init", "-q")
    commit()


def recipe(text: str, name: str = "mine") -> Path:
    path = Path(f"recipes/{name}.yaml")
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return path


def laid(text: str, base: str = BASE) -> tuple[str, Any]:
    """The file that a recipe makes of the base, as text and as DVC reads it."""
    made = apply_recipe(base, recipe(text))
    document = parse_as_dvc(made, "params.yaml")
    assert document == parse_yaml(made, PARAMS)
    return made, document


# Laying one over the other


def test_comments_and_order_stay_and_only_what_differs_changes() -> None:
    text, _ = laid(
        "train: {bptt: 35, optimizer: {momentum: 0.0}, schedule: {name: linear, warmup: 0.02}, max_grad_norm: null}"
    )
    changed = {
        "recipe: default": "recipe: mine",
        "bptt: 25": "bptt: 35",
        "momentum: 0.8": "momentum: 0.0",
        "name: decay, constant_epochs: 15, decay: 0.98": "name: linear, warmup: 0.02",
        "max_grad_norm: 5.0": "max_grad_norm:",
    }
    expected = BASE
    for old, new in changed.items():
        expected = expected.replace(old, new)
    assert [line.split() for line in text.splitlines()] == [line.split() for line in expected.splitlines()]


def test_the_models_are_replaced_and_the_comments_around_them_stay() -> None:
    small = "{dropout: 0.2, learning_rate: 0.01, optimizer: {name: adamw, weight_decay: 0.1}}"
    text, document = laid(f"models: {{small: {small}}}")
    adamw = {"name": "adamw", "weight_decay": 0.1}
    assert document["models"] == {"small": {"dropout": 0.2, "learning_rate": 0.01, "optimizer": adamw}}
    around = ["# Above the models.", "models:", "# Above the rest.", "processes: 1"]
    assert [line for line in text.splitlines() if line in around] == around


def test_a_group_of_the_same_kind_is_merged_and_one_of_another_kind_replaced() -> None:
    _, document = laid("train: {optimizer: {momentum: 0.5}, schedule: {name: linear, warmup: 0.1}}")
    assert document["train"]["optimizer"] == {"name": "sgd", "momentum": 0.5, "weight_decay": 0.0}
    assert document["train"]["schedule"] == {"name": "linear", "warmup": 0.1}


def test_a_setting_that_the_base_leaves_out_stands_within_its_group() -> None:
    text, document = laid("train: {weight_dropout: 0.2}")
    assert document["train"]["weight_dropout"] == 0.2
    places = [text.index(part) for part in ("weight_dropout", "precision: auto", "# Above the models")]
    assert places == sorted(places)


def test_models_that_are_replaced_are_no_longer_evaluated_dynamically() -> None:
    how = "{learning_rate: 0.001, decay: 0.01, epsilon: 0.001, bptt: 5}"
    base = BASE.replace("dynamic:", f"dynamic: {{wide: {how}}}")
    assert laid("train: {epochs: 4}", base)[1]["evaluate"]["dynamic"].keys() == {"wide"}
    assert laid("models: {small: {}}", base)[1]["evaluate"] == {"dynamic": None}
    text = f"models: {{small: {{}}}}\nevaluate: {{dynamic: {{small: {how}}}}}"
    assert laid(text, base)[1]["evaluate"]["dynamic"].keys() == {"small"}


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_lays_its_settings_as_a_model_does_and_says_nothing_that_does_not_differ(name: str) -> None:
    base, changes = parse_yaml(default_params(), PARAMS), read_yaml(ROOT / f"recipes/{name}.yaml")
    made = parse_yaml(apply_recipe(default_params(), ROOT / f"recipes/{name}.yaml"), PARAMS)
    assert made["recipe"] == name
    assert made["train"] == overlay(base["train"], changes["train"])
    assert made["models"] == changes["models"]
    assert differences(base["train"], made["train"]) == changes["train"]
    for section in changes.keys() - {"models"}:
        assert differences(base[section], made[section]) == changes[section]


@pytest.mark.parametrize("name", RECIPES)
def test_the_comments_of_params_yaml_itself_stay(name: str) -> None:
    base = read_base(ROOT)
    try:
        made = apply_recipe(base, ROOT / f"recipes/{name}.yaml")
    except UserError as error:  # which tells whoever has edited it, not the developers of recipes
        pytest.skip(str(error))
    base, made = (re.sub(r"(?ms)^models:.*?^(?=\S)", "", text) for text in (base, made))
    comments = [line for line in base.splitlines() if line.lstrip().startswith("#")]
    assert comments
    assert [line for line in made.splitlines() if line.lstrip().startswith("#")] == comments


def test_the_best_trials_that_are_kept_are_recipes() -> None:
    paths = list((ROOT / "results/sweeps").glob("*/*.yaml"))
    for path in paths:
        made = parse_params(parse_yaml(apply_recipe(default_params(), path), path))
        assert made.recipe == path.stem
        assert list(made.models) == ["best"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train: {epochs: four}", r"recipes/mine\.yaml: train\.epochs = 'four'"),
        ("train: {epohcs: 4}", r"recipes/mine\.yaml: train\.epohcs: no such setting; did you mean epochs\?"),
        ("trian: {epochs: 4}", r"recipes/mine\.yaml: trian: no such setting; did you mean train\?"),
        ("train: 4", r"recipes/mine\.yaml: train = 4: expected a group of settings"),
        ("models: {}", r"recipes/mine\.yaml: models = \{\}"),
        ("models: 4", r"recipes/mine\.yaml: models = 4: expected a group of settings"),
        ("evaluate: {dynamic: 4}", r"recipes/mine\.yaml: evaluate\.dynamic = 4"),
        ("report: null", r"recipes/mine\.yaml: report = None"),
        ("train: {epochs: 4", r"recipes/mine\.yaml, line 1: not valid YAML"),
        ("# nothing", r"recipes/mine\.yaml: expected what differs from params\.yaml"),
    ],
)
def test_a_mistake_is_one_line_and_params_yaml_stays_as_it_was(text: str, message: str, repository: None) -> None:
    recipe(text)
    before = PARAMS.read_bytes()
    with pytest.raises(UserError, match=message) as fault:
        use_recipe("mine")
    assert "\n" not in str(fault.value)
    assert PARAMS.read_bytes() == before


# Over which params.yaml, and what becomes of edits


def test_one_recipe_may_follow_another_and_nothing_of_it_is_left(repository: None) -> None:
    for name in (*RECIPES, RECIPES[0]):
        use_recipe(name)
        assert PARAMS.read_text() == apply_recipe(default_params(), Path(f"recipes/{name}.yaml"))
        assert load_params().recipe == name


def test_nor_is_anything_left_of_one_that_has_been_committed(repository: None) -> None:
    use_recipe("best")
    commit()
    use_recipe("zaremba")
    assert PARAMS.read_text() == apply_recipe(default_params(), Path("recipes/zaremba.yaml"))


def test_edits_that_are_committed_are_what_recipes_are_laid_over(repository: None) -> None:
    PARAMS.write_text(default_params().replace('"batch_size": 20', '"batch_size": 10'))
    commit()
    use_recipe("best")
    assert load_params().train.batch_size == 10


def test_edits_that_are_nowhere_else_are_not_lost(repository: None) -> None:
    for text in (default_params(), apply_recipe(default_params(), Path("recipes/best.yaml"))):
        PARAMS.write_text(edited := f"{text}# mine\n")
        with pytest.raises(UserError, match=r"edits that would be lost: `git commit params\.yaml`"):
            use_recipe("demo")
        assert PARAMS.read_text() == edited
    git("checkout", "-q", "params.yaml")
    use_recipe("demo")


@pytest.mark.parametrize("has_git", [True, False])
def test_without_a_repository_the_first_params_yaml_is_kept(
    has_git: bool, project: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    if not has_git:
        monkeypatch.setenv("PATH", "")
    PARAMS.write_text(first := default_params() + "# mine\n")
    for name in RECIPES:
        use_recipe(name)
        assert PARAMS.read_text() == apply_recipe(first, Path(f"recipes/{name}.yaml"))
    assert "`cp params.base.yaml params.yaml` undoes it" in capsys.readouterr().out
    assert Path("params.base.yaml").read_text() == first
    with PARAMS.open("a") as file:
        file.write("# mine\n")
    with pytest.raises(UserError, match=r"edits that would be lost: keep them with `cp params\.yaml params\.base"):
        use_recipe("best")


def test_a_products_base_that_is_nowhere_is_one_line(project: None) -> None:
    PARAMS.write_text(product := apply_recipe(default_params(), Path("recipes/best.yaml")))
    with pytest.raises(UserError, match=r"params\.yaml is already the recipe best") as fault:
        use_recipe("zaremba")
    assert "\n" not in str(fault.value)
    assert PARAMS.read_text() == product


# The command


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["recipe", *arguments])
    command.main()


def test_the_sample_corpus_is_written_for_the_recipe_that_needs_it(repository: None) -> None:
    use_recipe("best")
    assert not Path("data").exists()
    use_recipe("demo")
    assert len(list(Path("data/sample").iterdir())) == 3


def test_where_that_fails_params_yaml_stays_as_it_was(repository: None) -> None:
    Path("data").write_text("in the way")
    with pytest.raises(OSError, match="data"):
        use_recipe("demo")
    assert PARAMS.read_text() == default_params()


def test_the_whole_is_shown_and_nothing_written(
    repository: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    run(monkeypatch, "best", "--print")
    assert capsys.readouterr().out == apply_recipe(default_params(), Path("recipes/best.yaml"))
    assert PARAMS.read_text() == default_params()


def test_without_a_name_every_recipe_is_listed(
    project: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    recipe("train: {epochs: 4}")
    run(monkeypatch)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == sorted([*RECIPES, "mine"])
    assert "best            The lowest static perplexities we have found with 2 layers of 200 units." in lines
    Path("recipes/mine.yaml").write_bytes(b"\xff")
    with pytest.raises(UserError, match=r"recipes/mine\.yaml is not text in UTF-8"):
        run(monkeypatch)
    shutil.rmtree("recipes")
    with pytest.raises(UserError, match="no recipes here"):
        run(monkeypatch)


def test_an_unknown_recipe_lists_those_there_are(repository: None) -> None:
    with pytest.raises(
        UserError, match="no recipe 'bset' in recipes: there are best, demo, fast, wikitext2, wikitext2_fast, zaremba"
    ):
        use_recipe("bset")


def test_a_copy_of_a_whole_params_file_is_a_recipe_too(repository: None) -> None:
    whole = YAML(typ="safe", pure=True).load(BASE)
    with recipe("").open("w") as file:
        YAML(typ="safe", pure=True).dump(whole, file)
    use_recipe("mine")
    made = load_params()
    assert made.recipe == "mine"
    assert made.models == parse_params(whole).models
