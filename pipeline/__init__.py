"""Recurrent language models on Penn Treebank: one module per command, and the packages that the commands share."""

import errno
import signal
import sys
from types import TracebackType


def _excepthook(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    """Report in one line that there is no memory for the libraries, whose import no command can catch."""
    out_of_memory = isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM
    if out_of_memory or "failed to map segment" in str(error):
        print("error: out of memory: raise its limit (`ulimit -v`), or stop other programs", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, traceback)


# Imports take seconds before `pipeline.project.console.run` takes over: until then, Ctrl-C ends a command silently.
if sys.argv[:1] == ["-m"] and signal.getsignal(signal.SIGINT) == signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
if sys.argv[:1] == ["-m"]:
    sys.excepthook = _excepthook
