"""Who may watch: a page that everybody may open must be no load of its own, nor kept from those on call. Pure."""

from __future__ import annotations

from collections import Counter

from shards.addresses import is_loopback, network_of

_LOOPBACK = "loopback"


class Seats:
    """A number of seats, of which nobody takes all.

    Args:
        most: how many there are.
        each: those that one address may take.
        kept: those that only this host's own loopback may take, through a tunnel for instance: who may log in here.
    """

    def __init__(self, most: int = 50, each: int = 10, kept: int = 10) -> None:
        self._most, self._each, self._kept = most, each, kept
        self._taken: Counter[str] = Counter()

    def take(self, address: str) -> bool:
        """Take a seat for somebody at `address`; False: there is none for him."""
        who = _who(address)
        kept = 0 if who == _LOOPBACK else max(0, self._kept - self._taken[_LOOPBACK])
        if self._taken.total() + kept >= self._most or self._taken[who] >= self._each:
            return False
        self._taken[who] += 1
        return True

    def give_back(self, address: str) -> None:
        """Give a seat back that was taken."""
        self._taken[_who(address)] -= 1
        self._taken += Counter()


def _who(address: str) -> str:
    return _LOOPBACK if is_loopback(address) else network_of(address)
