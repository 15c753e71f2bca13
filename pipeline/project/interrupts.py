"""Interrupts that wait until nothing can be lost."""

import signal
import threading
from types import FrameType, TracebackType
from typing import Self

INTERRUPTS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class HeldInterrupts:
    """A `with` block in which Ctrl-C, SIGTERM and SIGHUP wait until they are let through or the block ends.

    pending: the first one waiting, or None. Signals that the process ignores stay ignored.
    """

    def __init__(self) -> None:
        self.pending: signal.Signals | None = None

    def __enter__(self) -> Self:
        is_main = threading.current_thread() is threading.main_thread()  # the only one that receives signals
        held = [number for number in INTERRUPTS if is_main and signal.getsignal(number) != signal.SIG_IGN]
        self._handlers = {number: signal.signal(number, self._hold) for number in held}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        if self.pending:
            signal.raise_signal(self.pending)

    def let_through(self) -> None:
        """Deliver the waiting signal now. Raises KeyboardInterrupt if that is its effect."""
        number, self.pending = self.pending, None
        if number:
            signal.signal(number, self._handlers[number])
            signal.raise_signal(number)

    def _hold(self, number: int, frame: FrameType | None) -> None:
        self.pending = self.pending or signal.Signals(number)
