"""How the highest rate that a peer carries is looked for: pure, no clock and no load."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

_HALVINGS = 3


class Passes(Protocol):
    """What one try came to."""

    @property
    def rate(self) -> float:
        """The rate that was tried."""

    @property
    def passed(self) -> bool:
        """Whether it was carried."""


Try = TypeVar("Try", bound=Passes)


def climb(rates: Sequence[float], attempt: Callable[[float], Try]) -> list[Try]:
    """Try each rate in turn until one is missed twice in a row: a noisy machine may make a peer miss once.

    Where the first one is missed already, its half is tried, and the half of that: up to three times, until one passes.

    Args:
        rates: ascending.
        attempt: tries a rate.

    Returns:
        All tries, in their order.
    """
    tries: list[Try] = []
    for rate in rates:
        tries += _twice(rate, attempt)
        if not tries[-1].passed:
            break
    rate = rates[0]
    for _ in range(_HALVINGS):
        if any(one.passed for one in tries):
            break
        rate /= 2
        tries += _twice(rate, attempt)
    return tries


def _twice(rate: float, attempt: Callable[[float], Try]) -> list[Try]:
    first = attempt(rate)
    return [first] if first.passed else [first, attempt(rate)]


def highest(tries: Sequence[Try]) -> Try | None:
    """Give the try of the highest rate that passed; None: none did."""
    return max((one for one in tries if one.passed), key=lambda one: one.rate, default=None)


def missed(tries: Sequence[Try]) -> Try | None:
    """Give the last try of the lowest rate that was missed twice; None: none was."""
    passed = {one.rate for one in tries if one.passed}
    failed = [one for one in tries if one.rate not in passed]
    lowest = min((one.rate for one in failed), default=None)
    return next((one for one in reversed(failed) if one.rate == lowest), None)


def common(tries: Sequence[Try], rate: float) -> Try | None:
    """Give the try to compare peers by: the highest that passed up to `rate`, or the lowest that did, or was missed."""
    passed = [one for one in tries if one.passed]
    lowest = min(passed, key=lambda one: one.rate, default=None)
    return highest([one for one in tries if one.rate <= rate]) or lowest or missed(tries)
