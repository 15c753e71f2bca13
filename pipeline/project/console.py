"""What a person reads on the terminal: one-line errors, messages and progress bars."""

import errno
import os
import signal
import sys
import termios
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from tqdm import tqdm

from pipeline.lm.errors import TrainingError

_ENVIRONMENT_FAULTS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM}


class UserError(Exception):
    """A fault that the user can mend. Its text is the one line to show: what, where and how to mend it."""


def run(main: Callable[[], None], interrupted: str = "interrupted: the same command goes on from here") -> None:
    """Run a command, turning faults that the user can mend into one line on stderr and exit code 1.

    SIGTERM, and the SIGHUP of a terminal that is closed, end it as Ctrl-C does, so that whatever is going on is closed
    in good order; once the command is over, they end what is left of the process at once. A reader that has seen
    enough, such as `head`, ends it too.
    """
    endings = [signal.SIGINT, signal.SIGTERM]
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # as nohup has it
        endings.append(signal.SIGHUP)
        signal.signal(signal.SIGHUP, _hang_up)
    try:
        main()
    except UserError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        print(interrupted, file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what Python flushes as it ends
        sys.exit(1)
    except OSError as error:
        if error.errno not in _ENVIRONMENT_FAULTS:
            raise
        place = f": {error.filename}" if error.filename else ""
        sys.exit(f"error: {error.strerror}{place}: free some space or mend the permissions, then run it again")
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


@contextmanager
def naming(model: str) -> Iterator[None]:
    """Turn what keeps a model from being trained or evaluated into a UserError that names the model."""
    try:
        yield
    except TrainingError as error:
        raise UserError(f"{model}: {error}") from None


def say(message: str) -> None:
    """Print a line without breaking a progress bar that is being drawn."""
    tqdm.write(message)
    sys.stdout.flush()


def warn(message: str) -> None:
    """Print a warning on stderr, so that it stays out of a result that goes to a file or a program."""
    tqdm.write(f"warning: {message}", file=sys.stderr)


def progress(total: int | None, description: str, unit: str, initial: int = 0) -> tqdm:
    """A progress bar with the time left, drawn only on a terminal and gone when it is done; bytes as 5.10M.

    total: None when nobody knows.
    """
    return tqdm(
        total=total,
        desc=description,
        unit=unit,
        unit_scale=unit == "B",
        initial=initial,
        disable=None,
        leave=False,
        dynamic_ncols=True,
    )
