"""Recurrent language models on Penn Treebank: one module per command, and the packages that the commands share."""

import signal
import sys

# A command imports for seconds before `pipeline.project.console.run` takes over: until then Ctrl-C ends it in silence.
if sys.argv[:1] == ["-m"] and signal.getsignal(signal.SIGINT) == signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
