"""Faults that the user can mend end in one line on stderr and an exit code."""

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from pipeline.lm.device import choose_device
from pipeline.lm.errors import DeviceError
from pipeline.project.console import UserError, run
from tests.small import ROOT

ENDING = """
import atexit, sys, time
from pipeline.project.console import run

def last_words():
    print("ending", flush=True)
    time.sleep(300)

atexit.register(last_words)
run(lambda: sys.exit(0))
"""


@pytest.fixture(autouse=True)
def own_signals() -> Iterator[None]:
    """Leave the tests' process its handlers of signals."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def message_of(error: BaseException, capsys: pytest.CaptureFixture[str]) -> tuple[str, object]:
    def main() -> None:
        raise error

    with pytest.raises(SystemExit) as end:
        run(main)
    return capsys.readouterr().err.strip(), end.value.code


def test_a_users_mistake_is_its_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert message_of(UserError("params.yaml: what is wrong"), capsys)[1] == "error: params.yaml: what is wrong"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM])
def test_what_the_system_refuses_is_named_with_the_file(number: int, capsys: pytest.CaptureFixture[str]) -> None:
    _, code = message_of(OSError(number, os.strerror(number), "results/x"), capsys)
    assert code == (
        f"error: {os.strerror(number)}: results/x: free some space or mend the permissions, then run it again"
    )


def test_an_interruption_says_how_to_go_on(capsys: pytest.CaptureFixture[str]) -> None:
    assert message_of(KeyboardInterrupt(), capsys) == ("interrupted: the same command goes on from here", 130)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_to_a_command_that_is_over_ends_it_without_a_word(number: signal.Signals) -> None:
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", ENDING], cwd=ROOT, **streams) as command:
        assert command.stdout.readline() == b"ending\n"
        command.send_signal(number)
        assert command.communicate(timeout=200) == (b"", b"")
        assert command.returncode == -number


def test_a_fault_of_ours_is_not_hidden() -> None:
    def main() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run(main)


def test_cuda_asked_for_and_missing_says_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(DeviceError, match="set device: auto or cpu"):
        choose_device("cuda")
    assert choose_device("auto").type == "cpu"
