"""All the mistakes in a sweep's file, reported at once."""

from collections.abc import Callable
from typing import TypeVar

from pipeline.project.console import UserError
from pipeline.settings.mistakes import NEXT_LINE, refuse

T = TypeVar("T")


class Complaints:
    """Collects the mistakes that several checks find, each once."""

    def __init__(self) -> None:
        self._lines: dict[str, None] = {}

    def of(self, check: Callable[[], T]) -> T | None:
        """The check's result; if it raises UserError, the mistake is noted and the result is None."""
        try:
            return check()
        except UserError as error:
            self._lines |= dict.fromkeys(str(error).split(NEXT_LINE))
            return None

    def raise_all(self) -> None:
        """Raise UserError, a line for each mistake, if there are any."""
        refuse(list(self._lines))
