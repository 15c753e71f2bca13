"""Faults that the user can fix end in one line on stderr and an exit code."""

import errno
import fcntl
import math
import os
import pty
import re
import shlex
import signal
import subprocess
import sys
import termios
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.lm import errors
from pipeline.lm.device import choose_device
from pipeline.project.console import UserError, naming, run
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


@pytest.mark.parametrize("number", sorted(errno.errorcode))
def test_whatever_the_system_refuses_is_one_line_with_the_file_and_a_remedy(
    number: int, capsys: pytest.CaptureFixture[str]
) -> None:
    error = OSError(number, os.strerror(number), "results/x")
    _, code = message_of(error, capsys)
    if not isinstance(error, BrokenPipeError):
        assert re.fullmatch(rf"error: {re.escape(os.strerror(number))}: results/x: .+, then run it again", str(code))


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (OSError(errno.ENOSPC, "No space left"), "error: No space left: free some space, then run it again"),
        (OSError(errno.EXDEV, "Cross-device link", "a", None, "b\n"), r"a -> 'b\n': fix that, then run it again"),
        (OSError("a library's own words\nin two lines"), "error: a library's own words in two lines: fix that,"),
        (OSError(errno.ENAMETOOLONG, "File name too long", "x" * 9999), f"too long: '{'x' * 100}': give it a shorter"),
        (UnicodeEncodeError("ascii", "\udcff", 0, 1, "surrogates"), "error: a text or a file name that cannot be"),
        (MemoryError(), "error: out of memory: lower batch_size, bptt or hidden_size"),
        (
            RuntimeError("[enforce] DefaultCPUAllocator: can't allocate memory: you tried to allocate 400 bytes."),
            "400 b",
        ),
        (RuntimeError("CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0"), "when 20.00 MiB more were requested"),
    ],
)
def test_a_refusal_is_told_in_its_own_line(error: Exception, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    _, code = message_of(error, capsys)
    assert line in str(code)
    assert str(code).isprintable()


SAYING = r"""
from pipeline.project.console import run, say, warn
run(lambda: (say('caf\xe9 \udcff'), warn('\u4e2d')))
"""


@pytest.mark.parametrize("encoding", ["ascii", "utf-8", "latin-1"])
def test_what_an_output_cannot_encode_is_written_as_its_code(encoding: str) -> None:
    environment = os.environ | {"PYTHONIOENCODING": encoding}
    said = subprocess.run([sys.executable, "-c", SAYING], cwd=ROOT, env=environment, capture_output=True, check=True)
    assert said.stdout == "caf\xe9 ".encode(encoding, "backslashreplace") + b"\\udcff\n"
    assert said.stderr == "warning: \u4e2d\n".encode(encoding, "backslashreplace")


@pytest.mark.parametrize("closing", [">&-", "2>&-", "<&-", "<&- >&- 2>&-"])
def test_a_closed_stream_is_none_that_a_file_takes_the_number_of(closing: str, tmp_path: Path) -> None:
    program = (
        "import os, sys\n"
        "from pipeline.project.console import run, say, warn\n"
        "def main():\n"
        "    with open(sys.argv[1], 'w') as file:\n"
        "        say('said'); warn('warned'); os.write(1, b'by a library'); assert sys.stdin.read() == ''\n"
        "        file.write(str(file.fileno() > 2))\n"
        "run(main)\n"
    )
    command = f'{sys.executable} -c "$0" {tmp_path / "written"} {closing}'
    done = subprocess.run(["sh", "-c", command, program], cwd=ROOT, stdin=subprocess.DEVNULL, check=False)
    assert done.returncode == 0
    assert (tmp_path / "written").read_text() == "True"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("ending", ["", "; sys.exit(0)"])
def test_an_output_that_is_full_is_one_line(ending: str) -> None:
    program = f"import sys\nfrom pipeline.project.console import run\ndef main(): print('a'){ending}\nrun(main)"
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-c", program], cwd=ROOT, stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.stderr == "error: No space left on device: free some space, then run it again\n"
    assert done.returncode == 1


def test_an_interruption_says_how_to_go_on(capsys: pytest.CaptureFixture[str]) -> None:
    assert message_of(KeyboardInterrupt(), capsys) == ("interrupted: run the same command to continue", 130)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_to_a_command_that_is_over_ends_it_without_a_word(number: signal.Signals) -> None:
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", ENDING], cwd=ROOT, **streams) as command:
        assert command.stdout.readline() == b"ending\n"
        command.send_signal(number)
        assert command.communicate(timeout=200) == (b"", b"")
        assert command.returncode == -number


def test_an_interruption_before_a_command_has_begun_ends_it_without_a_word(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("import time\nprint('importing', flush=True)\ntime.sleep(200)\n")
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-m", "pipeline.generate"], cwd=ROOT, env=environment, **streams) as command:
        assert command.stdout.readline() == b"importing\n"
        command.send_signal(signal.SIGINT)
        assert command.communicate(timeout=200) == (b"", b"")
        assert command.returncode == -signal.SIGINT


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


def test_tests_in_the_background_start_programs_that_hear_signals() -> None:
    child = "import signal; print(signal.SIG_IGN in map(signal.getsignal, (signal.SIGINT, signal.SIGHUP)))"
    program = f"import subprocess, sys, tests.conftest; subprocess.run([sys.executable, '-c', {child!r}])"
    line = f"trap '' HUP; {shlex.quote(sys.executable)} -c {shlex.quote(program)} & wait"
    told = subprocess.run(["bash", "-c", line], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert told == "False\n"


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
    with pytest.raises(UserError, match=r"^lstm: device is cuda.*set device: auto or cpu$"), naming("lstm"):
        choose_device("cuda")
    assert choose_device("auto").type == "cpu"


WORDS = [
    (errors.NoCudaError(), "PyTorch finds no CUDA here; set device: auto or cpu"),
    (errors.TooFewGpusError(1), "more processes than GPUs, of which this machine has 1: set device: cpu"),
    (
        errors.NoTF32Error(),
        "precision is tf32, which NVIDIA's GPUs have from Ampere on: set precision: auto or float32",
    ),
    (errors.NoBfloat16Error(), "lacks the instructions for it (on x86: AVX-512); set precision: auto or float32"),
    (errors.NotRecordableError("no"), "a training step cannot be recorded (no): set cuda_graph: off"),
    (
        errors.SharesError(4, 6),
        "4 processes cannot share a batch_size of 6 evenly: set processes to one of 1, 2, 3, 6,",
    ),
    (
        errors.DivergedError(math.nan, 1, 2),
        "the loss is nan at step 1 of epoch 2: lower learning_rate or max_grad_norm",
    ),
    (errors.OverflowedError(3), "overflows in epoch 3: lower learning_rate or max_grad_norm"),
]


@pytest.mark.parametrize(("error", "words"), WORDS, ids=[type(error).__name__ for error, _ in WORDS])
def test_what_the_language_model_raises_is_put_into_words(error: errors.TrainingError, words: str) -> None:
    with pytest.raises(UserError) as told, naming("lstm"):
        raise error
    assert str(told.value).startswith("lstm: ")
    assert words in str(told.value)


def test_nothing_that_it_raises_is_left_without_words() -> None:
    kinds = {kind for kind in vars(errors).values() if isinstance(kind, type) and not kind.__subclasses__()}
    assert kinds <= {type(error) for error, _ in WORDS}
    assert len(kinds) == 7
