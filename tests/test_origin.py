"""What a run records of where it comes from: edits since the commit, without secrets, and what git and DVC know."""

import subprocess
from pathlib import Path

import pytest

from pipeline.tracking import origin
from pipeline.tracking.live import live_run
from tests.test_tracking import AS_TESTER
from tests.tracked import FACTS, artifacts, epochs, runs

SECRET = "planted-in-an-address"
FILES = {".gitignore": "/data\n/mlflow.db\n/mlruns\n", "code.py": "one\n", "results/a.csv": "1\n"}


def git(*arguments: str) -> str:
    return subprocess.check_output(["git", *AS_TESTER, *arguments], text=True)


@pytest.fixture
def repository() -> None:
    """The test's folder as a repository of one commit."""
    for path, text in FILES.items():
        Path(path).parent.mkdir(exist_ok=True)
        Path(path).write_text(text)
    git("init", "-q")
    git("add", "-A")
    git("commit", "-qm", "start")


@pytest.mark.usefixtures("repository")
def test_edits_are_recorded_without_what_git_ignores_what_dvc_writes_and_secrets_in_addresses() -> None:
    assert origin.uncommitted_changes() == ""
    Path("data").mkdir()
    Path("data/text.txt").write_text("the corpus\n")
    Path("results/a.csv").write_text("2\n")
    addresses = [f"https://me:{SECRET}@host/a", f"s3://{SECRET}@host/b", f"https://host/c?key={SECRET}&x=1 end"]
    Path("code.py").write_text("one\ntwo\n" + "".join(f"source: {address}\n" for address in addresses))
    diff = origin.uncommitted_changes()
    assert "+two\n" in diff
    for address in ("https://***@host/a", "s3://***@host/b", "https://host/c?*** end"):
        assert f"+source: {address}\n" in diff
    for absent in (SECRET, "the corpus", "a.csv"):
        assert absent not in diff


@pytest.mark.usefixtures("repository")
def test_edits_without_end_are_cut() -> None:
    Path("code.py").write_text("line\n" * origin.LONGEST_DIFF)
    diff = origin.uncommitted_changes()
    assert len(diff) < origin.LONGEST_DIFF + 100
    assert diff.endswith(" characters in all]\n")


@pytest.mark.usefixtures("repository", "empty_store")
def test_a_run_has_the_edits_that_it_started_with_and_the_packages() -> None:
    Path("code.py").write_text("two\n")
    with live_run(FACTS) as tracked:
        Path("code.py").write_text("three\n")
        tracked.publish(epochs(1))
        tracked.end("FINISHED")
    (run,) = runs()
    assert artifacts(run) == {"uncommitted.diff", "packages.txt"}
    (diff,) = Path("mlruns").rglob("uncommitted.diff")
    assert "+two" in diff.read_text()
    assert "three" not in diff.read_text()
    (packages,) = Path("mlruns").rglob("packages.txt")
    assert any(line.startswith("mlflow==") for line in packages.read_text().splitlines())
    assert run.data.tags["mlflow.source.git.commit"] == git("rev-parse", "HEAD").strip()


@pytest.mark.usefixtures("repository")
def test_the_commit_of_a_file_is_the_newest_that_has_it_as_it_is() -> None:
    first = git("rev-parse", "HEAD").strip()
    assert origin.text_at(first, Path("code.py")) == "one\n"
    git("commit", "-q", "--allow-empty", "-m", "of something else")
    assert origin.last_commit_of(Path("code.py")) == first
    Path("code.py").write_text("two\n")
    assert origin.last_commit_of(Path("code.py")) == ""
    Path("data").mkdir()
    Path("data/new").touch()
    assert origin.last_commit_of(Path("data/new")) == ""
    assert origin.last_commit_of(Path("missing")) == ""
