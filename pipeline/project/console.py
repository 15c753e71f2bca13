"""What a person reads on the terminal: one-line errors, messages and progress bars."""

import errno
import io
import os
import re
import signal
import sys
import termios
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from tqdm import tqdm

from pipeline.lm.errors import TrainingError
from pipeline.project.faults import explain
from pipeline.project.files import NO_ROOM, clear_partial_files, kept_folders
from pipeline.project.lines import Lines

# How to fix what the system refuses to do; other errors explain themselves.
_PERMISSIONS = "fix the permissions"
_REMEDIES = dict.fromkeys(NO_ROOM, "free some space") | {
    errno.EROFS: _PERMISSIONS,
    errno.EACCES: _PERMISSIONS,
    errno.EPERM: _PERMISSIONS,
    errno.EFBIG: "raise the limit of a file's size (`ulimit -f`)",
    errno.ENOENT: "correct the name, or restore it",
    errno.EISDIR: "a file belongs there: move the folder away",
    errno.ENOTDIR: "a folder belongs there: move the file away, or give another path",
    errno.EEXIST: "a folder belongs there: move the file away",
    errno.ELOOP: "links form a loop: remove one",
    errno.ENAMETOOLONG: "give it a shorter name",
    errno.EMFILE: "raise the limit of open files (`ulimit -n`)",
    errno.ENOMEM: "stop other programs",
}
_OUT_OF_MEMORY = ("can't allocate memory", "not enough memory", "out of memory")  # PyTorch's words, in lower case


class UserError(Exception):
    """A fault that the user can fix. Its text is the one line to show: what, where and how to fix it."""


def run(main: Callable[[], None], interrupted: str = "interrupted: run the same command to continue") -> None:
    """Run a command, turning faults that the user can fix into one line on stderr and exit code 1.

    SIGTERM, and the SIGHUP of a closed terminal, end it as Ctrl-C does, so that it cleans up; once the command is over,
    they end the process at once. A reader that stops reading, such as `head`, ends it too. Errors of the operating
    system, running out of memory included, count as faults that the user can fix.
    """
    endings = [signal.SIGINT, signal.SIGTERM]
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:  # set by a shell for background jobs
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # set by nohup
        endings.append(signal.SIGHUP)
        signal.signal(signal.SIGHUP, _hang_up)
    open_streams()
    try:
        for folder in kept_folders():
            clear_partial_files(folder)
        try:
            main()
        except SystemExit:
            sys.stdout.flush()
            raise
        sys.stdout.flush()  # here, where a failure to write can still be reported
    except UserError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        print(interrupted, file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        _silence_stdout()
        sys.exit(1)
    except (OSError, UnicodeError, MemoryError, RuntimeError) as error:
        if not (line := system_error(error)):
            raise
        _silence_stdout()
        sys.exit(f"error: {line}")
    finally:
        for number in endings:
            signal.signal(number, signal.SIG_DFL)


def _hang_up(number: int, frame: FrameType | None) -> None:
    """End the command as Ctrl-C does, printing nothing to a terminal that is gone: writing to it would fail."""
    for stream in (sys.stdout, sys.stderr):
        try:
            termios.tcgetattr(stream.fileno())
        except termios.error as error:
            if error.args[0] == errno.EIO:
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    signal.default_int_handler(number, frame)


def system_error(error: BaseException) -> str | None:
    """An error of the operating system in one line: what, where and how to fix it. None for any other error."""
    if ran_out_of_memory(error):
        wanted = re.search(r"allocate ([\d.]+ ?\w+)", str(error))
        tried = f", when {wanted[1]} more were requested" if wanted else ""
        return f"out of memory{tried}: lower batch_size, bptt or hidden_size, or stop other programs"
    if isinstance(error, UnicodeError):
        return f"a text or a file name that cannot be written ({_one_line(error)}): leave out what is not UTF-8"
    if not isinstance(error, OSError):
        return None
    what, remedy = refused(error)
    return f"{what}: {remedy}, then run it again"


def refused(error: OSError, place: str = "") -> tuple[str, str]:
    """What the system refused and where, and how to fix it.

    place: where, if the error itself does not say
    """
    # Names are quoted where they could upset the terminal or break the line.
    places = [os.fsdecode(place) for place in (error.filename, error.filename2) if isinstance(place, str | bytes)]
    where = [name if name.isprintable() and len(name) < 1000 else f"{name[:100]!r}" for name in places] or [place]
    what = error.strerror or _one_line(error) or type(error).__name__
    return ": ".join(filter(None, [what, " -> ".join(where)])), _REMEDIES.get(error.errno or 0, "fix that")


def ran_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, which PyTorch reports as a plain RuntimeError."""
    words = str(error).lower()
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(phrase in words for phrase in _OUT_OF_MEMORY)
    )


def open_streams() -> None:
    """Make the three standard streams usable, however the process was started.

    A closed one is sent to /dev/null, so that no file opened later gets its number and whatever a library prints.
    Characters that a stream's encoding lacks are escaped: `\\xe9` in ASCII.
    """
    for number, (name, mode) in enumerate({"stdin": "r", "stdout": "w", "stderr": "w"}.items()):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, which is this one
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, mode, closefd=False))  # noqa: SIM115 (open for as long as the process is)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _silence_stdout() -> None:
    """Send stdout to /dev/null if it can no longer be written to: Python flushes it again as it exits."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]


@contextmanager
def naming(model: str) -> Iterator[None]:
    """Turn what keeps a model from being trained or evaluated into a UserError that names the model."""
    try:
        yield
    except TrainingError as error:
        raise UserError(f"{model}: {explain(error)}") from None


def say(message: str) -> None:
    """Print a line without breaking a progress bar that is being drawn."""
    tqdm.write(message)
    sys.stdout.flush()


def warn(message: str) -> None:
    """Print a warning on stderr, so that it stays out of results piped to a file or a program."""
    tqdm.write(f"warning: {message}", file=sys.stderr)


def progress(
    total: int | None, description: str, unit: str, initial: int = 0, detail: Callable[[], str] | None = None
) -> "tqdm | Lines":
    """A progress bar with the time left, removed when done; bytes as 5.10M. Without a terminal, a line per minute.

    total: None if unknown
    detail: the progress so far, for those lines; by default the number of units
    """
    if not sys.stderr.isatty():
        return Lines(total, description, unit, initial, detail)
    return tqdm(
        total=total,
        desc=description,
        unit=unit,
        unit_scale=unit == "B",
        initial=initial,
        leave=False,
        dynamic_ncols=True,
    )


def counted(number: int, noun: str) -> str:
    """`1 epoch`, `1,200 epochs`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def command_hint(make: str, command: str) -> str:
    """The command to name in a hint: the demo's folder has no Makefile."""
    return f"`make {make}`" if Path("Makefile").exists() else f"`{command}`"
