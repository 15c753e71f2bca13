"""The recipes are whole and valid, and laying one over params.yaml loses no edit."""

import shutil
import subprocess
from pathlib import Path

import pytest

from pipeline.project.console import UserError
from pipeline.project.params import load_params
from pipeline.recipe import use_recipe
from tests.small import ROOT

RECIPES = sorted(path.stem for path in (ROOT / "recipes").glob("*.yaml"))


@pytest.fixture(autouse=True)
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A git repository with this project's params.yaml and recipes."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(ROOT / "params.yaml", "params.yaml")
    shutil.copytree(ROOT / "recipes", "recipes")
    git = ["git", "-c", "user.name=test", "-c", "user.email=test@example.org"]
    for arguments in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "recipes"]):
        subprocess.run([*git, *arguments], check=True)


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_is_valid_and_goes_by_its_files_name(name: str) -> None:
    use_recipe(name)
    assert load_params().recipe == name


def test_one_recipe_may_follow_another() -> None:
    for name in (*RECIPES, RECIPES[0]):
        use_recipe(name)


def test_edits_that_are_nowhere_else_are_not_lost() -> None:
    path = Path("params.yaml")
    edited = path.read_text() + "# mine\n"
    path.write_text(edited)
    with pytest.raises(UserError, match="edits that would be lost"):
        use_recipe("demo")
    assert path.read_text() == edited
    subprocess.run(["git", "checkout", "-q", "params.yaml"], check=True)
    use_recipe("demo")


def test_an_unknown_recipe_lists_those_there_are() -> None:
    with pytest.raises(UserError, match="no recipe 'bset' in recipes: there are best, demo, fast, zaremba"):
        use_recipe("bset")


def test_a_recipe_with_a_mistake_is_refused() -> None:
    path = Path("recipes/fast.yaml")
    path.write_text(path.read_text().replace("epochs: 4", "epochs: four"))
    with pytest.raises(UserError, match=r"recipes/fast\.yaml: train\.epochs = 'four'"):
        use_recipe("fast")


def test_in_a_project_unpacked_without_git_an_edit_is_kept_and_the_remedy_works() -> None:
    shutil.rmtree(".git")
    with Path("params.yaml").open("a") as file:
        file.write("# mine\n")
    with pytest.raises(UserError, match=r"no git here to tell: `mv params\.yaml mine\.yaml` first"):
        use_recipe("demo")
    Path("params.yaml").rename("mine.yaml")
    use_recipe("demo")


def test_without_git_an_edit_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with Path("params.yaml").open("a") as file:
        file.write("# mine\n")
    with pytest.raises(UserError, match="git not found"):
        use_recipe("demo")
