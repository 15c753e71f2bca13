"""A fresh clone: the same files whatever git is set to, and a place for the corpus that keeps it out of git."""

import re
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from pipeline import score
from tests.small import ROOT


def clone(folder: Path, autocrlf: str = "false") -> Path:
    """What git has of this project, in another folder."""
    subprocess.run(["git", "clone", "-q", "-c", f"core.autocrlf={autocrlf}", ROOT, folder], check=True)
    return folder


def contents(folder: Path) -> dict[Path, bytes]:
    """Every file that git has, by its path."""
    names = subprocess.check_output(["git", "ls-files", "-z"], cwd=folder, text=True).split("\0")[:-1]
    return {Path(name): (folder / name).read_bytes() for name in names}


def test_a_git_that_changes_line_ends_changes_none_here(tmp_path: Path) -> None:
    """DVC would take every line of code for edited, and train all models again."""
    plain = contents(clone(tmp_path / "plain"))
    assert Path("pipeline/train.py") in plain
    assert contents(clone(tmp_path / "turned", autocrlf="true")) == plain


def test_git_has_a_word_on_the_corpus_and_sees_none_of_it(tmp_path: Path) -> None:
    folder = clone(tmp_path / "clone")
    (tracked,) = (folder / "data").rglob("*")
    assert tracked.name == "README.md"
    for name in ("raw/train.txt", "processed/train.npy", "ptb/ptb.train.txt", "ptb.train.txt"):
        (folder / "data" / name).parent.mkdir(exist_ok=True)
        (folder / "data" / name).touch()
    assert subprocess.check_output(["git", "status", "--porcelain"], cwd=folder) == b""


def test_a_fresh_clone_has_models_to_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """Those of the reference run, whatever has been trained and committed since."""
    folder = clone(tmp_path / "clone")
    run = partial(subprocess.check_output, cwd=folder, text=True, stderr=subprocess.STDOUT)
    commit = run(["git", "log", "-1", "--format=%H", "--", "results/reference/files"]).strip()
    run(["git", "checkout", "-q", commit, "--", "dvc.lock", "params.yaml"])
    assert "the weights of lstm_dropout, lstm, gru_dropout, gru" in run([sys.executable, "-m", "pipeline.reference"])
    assert run(["git", "status", "--porcelain", "--", "results"]) == ""
    monkeypatch.chdir(folder)
    Path("said.txt").write_text("the company said it expects to report a loss\n")
    for model in ("lstm_dropout", "lstm", "gru_dropout", "gru"):
        monkeypatch.setattr(sys, "argv", ["score", model, "said.txt"])
        score.main()
        said = capsys.readouterr().out
        assert 5 < float(re.search(r"said.txt: perplexity ([\d.]+) of 10 tokens", said)[1]) < 50
