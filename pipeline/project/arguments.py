"""Types of the arguments of commands."""

import argparse
import math
from collections.abc import Callable
from typing import TypeVar

Number = TypeVar("Number", int, float)


def above(bound: Number, most: float = math.inf) -> Callable[[str], Number]:
    """An argument's type: a finite number of the bound's type, above the bound and at most `most`."""

    def parse(text: str) -> Number:
        if len(text) > 100:
            raise argparse.ArgumentTypeError(f"a number of {len(text):,} digits is too long")
        number = type(bound)(text)
        if not bound < number < math.inf:
            raise argparse.ArgumentTypeError(f"{text} is not above {bound}")
        if number > most:
            raise argparse.ArgumentTypeError(f"{text} is above {most}")
        return number

    parse.__name__ = type(bound).__name__  # argparse names it when the text is no number
    return parse
