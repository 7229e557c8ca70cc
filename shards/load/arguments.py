"""The command line: numbers on it, and what is said where it makes no sense."""

from __future__ import annotations

import argparse
import math
from typing import NoReturn

from shards.errors import UsageError


class Parser(argparse.ArgumentParser):
    """One that says what is wrong in a line."""

    def error(self, message: str) -> NoReturn:
        """Refuse the command line.

        Raises:
            UsageError: always.
        """
        raise UsageError(f"{message.removeprefix('argument ')}; --help tells what may be given")


def count(text: str) -> int:
    """Read a whole number from 1 up.

    Raises:
        argparse.ArgumentTypeError: it is none.
    """
    if not (text.isdecimal() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1 up")
    return int(text)


def amount(text: str) -> float:
    """Read a number above 0.

    Raises:
        argparse.ArgumentTypeError: it is none.
    """
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is no number above 0")
    return value
