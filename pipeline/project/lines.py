"""Progress where no bar can be drawn, in a log or a pipe: a line after some seconds, then one per minute."""

import sys
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Self

FIRST_SECONDS, SECONDS = 15.0, 60.0
WARM_UP_SECONDS = FIRST_SECONDS / 2  # slower than the rest, so not part of the estimate


class Lines:
    """Prints on stderr how far something is and roughly how much time is left. Used like a tqdm bar.

    total: None if unknown
    n: how much is done, `initial` of it earlier
    """

    def __init__(
        self, total: int | None, description: str, unit: str, initial: int = 0, detail: Callable[[], str] | None = None
    ) -> None:
        self.n: float = initial
        self._total, self._description = total, description
        self._initial: float = initial
        of, units = "" if total is None else f" of {total:,}", unit if unit == "B" else f"{unit}s"
        self._detail = detail or (lambda: f"{self.n:,}{of} {units}")
        self._start, self._warm = time.monotonic(), False
        self._next = self._start + FIRST_SECONDS

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *fault: object) -> None:
        pass

    def update(self, n: float = 1) -> None:
        self.n += n
        now = time.monotonic()
        if not self._warm and now >= self._start + WARM_UP_SECONDS:
            self._start, self._initial, self._warm = now, self.n, True
        if now >= self._next:
            self._next = now + SECONDS
            print(self._line(now - self._start), file=sys.stderr, flush=True)

    def _line(self, seconds: float) -> str:
        done = self.n - self._initial
        if self._total is None or done <= 0 or self.n >= self._total:
            return f"{self._description}  {self._detail()}"
        left = timedelta(seconds=round(seconds / done * (self._total - self.n)))
        return f"{self._description}  {self._detail()}  about {left} left"
