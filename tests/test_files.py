"""Files appear whole or not at all, and what a killed writer leaves is cleared away, a living one's never."""

import errno
import fcntl
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pipeline.project.console import run
from pipeline.project.files import MODELS, atomic_write, clear_partial_files
from tests.small import ROOT

WRITING = """
import sys
from pathlib import Path
from pipeline.project.files import atomic_write
with atomic_write(Path(sys.argv[1])) as file:
    file.write("half")
    file.flush()
    print("writing", flush=True)
    sys.stdin.read()
    file.write(" and half")
"""


@contextmanager
def writer(path: Path) -> Iterator[subprocess.Popen]:
    """Another process in the middle of writing a file."""
    command = [sys.executable, "-c", WRITING, str(path)]
    streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, env=os.environ | {"PYTHONPATH": str(ROOT)}, **streams) as process:
        assert process.stdout.readline() == b"writing\n"
        yield process


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_what_a_killed_writer_left_is_cleared_by_the_next_write(tmp_path: Path) -> None:
    with writer(tmp_path / "weights") as process:
        process.kill()
    assert names(tmp_path) == [f".weights.{process.pid}.partial"]
    with atomic_write(tmp_path / "history") as file:
        file.write("other")
    assert names(tmp_path) == ["history"]


def test_what_a_killed_writer_left_is_cleared_as_the_next_command_starts(tmp_path: Path) -> None:
    folder = MODELS / "lstm"
    with writer(folder / "weights") as process:
        process.kill()
    run(lambda: None)
    assert names(folder) == []


def test_what_a_living_writer_writes_is_left_alone(tmp_path: Path) -> None:
    with writer(tmp_path / "weights") as process:
        with atomic_write(tmp_path / "weights") as file:
            file.write("ours")
        clear_partial_files(tmp_path)
        assert names(tmp_path) == [f".weights.{process.pid}.partial", "weights"]
        process.communicate()
    assert (tmp_path / "weights").read_text() == "half and half"
    assert names(tmp_path) == ["weights"]


def test_a_dead_process_of_the_same_number_leaves_nothing_in_the_file(tmp_path: Path) -> None:
    (tmp_path / f".x.{os.getpid()}.partial").write_text("a long text of the process that had this number before")
    with atomic_write(tmp_path / "x") as file:
        file.write("short")
    assert (tmp_path / "x").read_text() == "short"
    assert names(tmp_path) == ["x"]


def test_several_files_of_one_process_may_be_written_at_once(tmp_path: Path) -> None:
    with atomic_write(tmp_path / "a") as one, atomic_write(tmp_path / "b") as other:
        one.write("a")
        other.write("b")
    assert [(tmp_path / name).read_text() for name in names(tmp_path)] == ["a", "b"]


def test_where_the_file_system_has_no_locks_files_are_written_and_nothing_is_cleared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    other = tmp_path / ".y.1.partial"
    other.touch()
    with atomic_write(tmp_path / "x", "wb") as file:
        file.write(b"x")
    assert names(tmp_path) == [".y.1.partial", "x"]


def test_neither_git_nor_dvc_looks_at_what_is_unfinished() -> None:
    assert "*.partial" in (ROOT / ".gitignore").read_text().splitlines()
    assert "*.partial" in (ROOT / ".dvcignore").read_text().splitlines()
