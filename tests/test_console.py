"""Faults that the user can mend end in one line on stderr and an exit code."""

import errno
import fcntl
import os
import pty
import signal
import subprocess
import sys
import termios
from collections.abc import Iterator
from pathlib import Path

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


WORKING = """
import time
from pathlib import Path
from tqdm import tqdm
from pipeline.project.console import progress, run, say

def work():
    try:
        with progress(10, "work", "step") as bar:
            say("working")
            while True:
                bar.update(0)
                time.sleep(0.01)
    except BaseException as error:
        Path("ended").write_text(type(error).__name__)
        raise

run(work)
"""


def working(**options: object) -> subprocess.Popen:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.Popen([sys.executable, "-c", WORKING], env=environment, start_new_session=True, **options)


def test_a_terminal_that_is_closed_ends_a_command_as_an_interruption_does() -> None:
    ours, theirs = pty.openpty()

    def take_terminal() -> None:
        fcntl.ioctl(theirs, termios.TIOCSCTTY, 0)

    with working(stdin=theirs, stdout=theirs, stderr=theirs, preexec_fn=take_terminal) as command:
        os.close(theirs)
        output = b""
        while b"working" not in output:
            output += os.read(ours, 1000)
        os.close(ours)  # the kernel sends SIGHUP, and whatever is written fails
        assert command.wait(timeout=200) == 130
    assert Path("ended").read_text() == "KeyboardInterrupt"


def test_nohup_keeps_a_command_going_when_its_terminal_is_closed() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # what nohup does; children have it too
    with working(stdout=subprocess.PIPE, stderr=subprocess.PIPE) as command:
        assert command.stdout.readline() == b"working\n"
        command.send_signal(signal.SIGHUP)
        with pytest.raises(subprocess.TimeoutExpired):
            command.wait(timeout=1)
        command.terminate()
        assert command.wait(timeout=200) == 130


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
