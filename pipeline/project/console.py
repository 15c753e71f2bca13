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

# How to mend what the system refuses; what is not listed says enough by its own words.
_PERMISSIONS = "mend the permissions"
_REMEDIES = dict.fromkeys(NO_ROOM, "free some space") | {
    errno.EROFS: _PERMISSIONS,
    errno.EACCES: _PERMISSIONS,
    errno.EPERM: _PERMISSIONS,
    errno.EFBIG: "raise the limit of a file's size (`ulimit -f`)",
    errno.ENOENT: "name what there is, or bring it back",
    errno.EISDIR: "a file belongs there: move the folder away",
    errno.ENOTDIR: "a folder belongs there: move the file away, or name another place",
    errno.EEXIST: "a folder belongs there: move the file away",
    errno.ELOOP: "links lead in a circle: remove one",
    errno.ENAMETOOLONG: "give it a shorter name",
    errno.EMFILE: "raise the limit of open files (`ulimit -n`)",
    errno.ENOMEM: "end what else is running",
}
_LACKS_MEMORY = ("can't allocate memory", "not enough memory", "out of memory")  # PyTorch's words, in lower case


class UserError(Exception):
    """A fault that the user can mend. Its text is the one line to show: what, where and how to mend it."""


def run(main: Callable[[], None], interrupted: str = "interrupted: the same command goes on from here") -> None:
    """Run a command, turning faults that the user can mend into one line on stderr and exit code 1.

    SIGTERM, and the SIGHUP of a terminal that is closed, end it as Ctrl-C does, so that whatever is going on is closed
    in good order; once the command is over, they end what is left of the process at once. A reader that has seen
    enough, such as `head`, ends it too. Whatever the system refuses, memory included, is the person's to mend.
    """
    endings = [signal.SIGINT, signal.SIGTERM]
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:  # as a shell has it for what it runs in the background
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # as nohup has it
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
        sys.stdout.flush()  # here, where it can be told that what was said could not be written
    except UserError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        print(interrupted, file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        _say_no_more()
        sys.exit(1)
    except (OSError, UnicodeError, MemoryError, RuntimeError) as error:
        if not (line := refusal(error)):
            raise
        _say_no_more()
        sys.exit(f"error: {line}")
    finally:
        for number in endings:
            signal.signal(number, signal.SIG_DFL)


def _hang_up(number: int, frame: FrameType | None) -> None:
    """End the command as Ctrl-C does, without a word to a terminal that is gone: to write there would fail."""
    for stream in (sys.stdout, sys.stderr):
        try:
            termios.tcgetattr(stream.fileno())
        except termios.error as error:
            if error.args[0] == errno.EIO:
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    signal.default_int_handler(number, frame)


def refusal(error: BaseException) -> str | None:
    """What the system refuses a program, in one line: what, where and how to mend it. None for any other fault."""
    if lacks_memory(error):
        wanted = re.search(r"allocate ([\d.]+ ?\w+)", str(error))
        tried = f", when {wanted[1]} more were asked for" if wanted else ""
        return f"out of memory{tried}: lower batch_size, bptt or hidden_size, or end what else is running"
    if isinstance(error, UnicodeError):
        return f"a text or a file's name that cannot be written ({_one_line(error)}): leave out what is not UTF-8"
    if not isinstance(error, OSError):
        return None
    what, remedy = refused(error)
    return f"{what}: {remedy}, then run it again"


def refused(error: OSError, place: str = "") -> tuple[str, str]:
    """What the system refuses and where, and how to mend it.

    place: where, if the error itself does not say
    """
    # Names are quoted where they could do harm to a terminal, or to the line.
    places = [os.fsdecode(place) for place in (error.filename, error.filename2) if isinstance(place, str | bytes)]
    where = [name if name.isprintable() and len(name) < 1000 else f"{name[:100]!r}" for name in places] or [place]
    what = error.strerror or _one_line(error) or type(error).__name__
    return ": ".join(filter(None, [what, " -> ".join(where)])), _REMEDIES.get(error.errno or 0, "mend that")


def lacks_memory(error: BaseException) -> bool:
    """Whether memory ran out, which PyTorch tells as a plain RuntimeError."""
    words = str(error).lower()
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(lacking in words for lacking in _LACKS_MEMORY)
    )


def open_streams() -> None:
    """Make the three standard streams fit to use, whatever the process was started with.

    A closed one leads nowhere, so that no file that is opened later takes its number, and what a library prints with
    it. What a stream's encoding lacks is written as its code: `\\xe9` in ASCII.
    """
    for number, (name, mode) in enumerate({"stdin": "r", "stdout": "w", "stderr": "w"}.items()):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free, which is this one
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, mode, closefd=False))  # noqa: SIM115 (open for as long as the process is)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _say_no_more() -> None:
    """Lead stdout nowhere, for what Python flushes as it ends, if it still takes what has been said."""
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
    """Print a warning on stderr, so that it stays out of a result that goes to a file or a program."""
    tqdm.write(f"warning: {message}", file=sys.stderr)


def progress(
    total: int | None, description: str, unit: str, initial: int = 0, detail: Callable[[], str] | None = None
) -> "tqdm | Lines":
    """A progress bar with the time left, gone when it is done; bytes as 5.10M. Off a terminal, a line a minute.

    total: None when nobody knows
    detail: how far it is, for the lines; by itself, the number of units
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


def here(make: str, command: str) -> str:
    """The command to name in a hint: the demo's folder has no Makefile."""
    return f"`make {make}`" if Path("Makefile").exists() else f"`{command}`"
