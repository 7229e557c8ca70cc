"""How fast a drain sends sockets elsewhere: as fast as those who take them can stand. Pure.

Additive increase, multiplicative decrease, as TCP does it: a little faster each second while the workers that take the
sockets are at ease, half as fast as soon as one of them is not. Several workers that drain at once need not know of
each other.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

from shards.router.control import WorkerRecord

MOST_ACCEPT_MS = 100.0
MOST_CPU_PERCENT = 90.0
"""What a worker that takes sockets may report, and be at ease."""

_FIRST_SHARE = 0.5
_SLOWEST = 1 / 16
_FASTER = 0.1

HINT_MS = 2000.0
"""Within which a client that is told to go shall go, where there is so much time."""

GRACE_MS = 1000.0
"""How much later it is closed, if it is still there."""


@dataclass(frozen=True)
class Strain:
    """How those who take the sockets are, at the worst.

    Attributes:
        accept_ms: how long a handshake takes.
        cpu_percent: of a core.
    """

    accept_ms: float = 0.0
    cpu_percent: float = 0.0

    @property
    def too_much(self) -> bool:
        """Whether they need more time."""
        return self.accept_ms > MOST_ACCEPT_MS or self.cpu_percent > MOST_CPU_PERCENT


NOBODY = Strain(accept_ms=math.inf)
"""Where nobody is there who could take a socket."""


def strain_on(workers: Iterable[WorkerRecord], draining: str) -> Strain:
    """Give the strain on the workers that serve.

    Args:
        workers: all there are.
        draining: the replica that drains; its own figures do not count.
    """
    serving = [one for one in workers if one.state == "active" and one.replica != draining]
    if not serving:
        return NOBODY
    return Strain(max(one.accept_ms for one in serving), max(one.cpu_percent for one in serving))


@dataclass(frozen=True)
class Pace:
    """How many sockets a second are sent elsewhere.

    Attributes:
        rate: now.
        first: at the beginning.
    """

    rate: float
    first: float

    @classmethod
    def begin(cls, sockets: int, drain_ms: float) -> Pace:
        """Begin with the pace at which `sockets` are through in half of `drain_ms`, the window of the drain."""
        first = max(1.0, sockets / max(1.0, _FIRST_SHARE * drain_ms / 1000))
        return cls(first, first)

    def after(self, strain: Strain) -> Pace:
        """Give the pace of the next second, after one in which the others were under `strain`."""
        if strain.too_much:
            return replace(self, rate=max(self.rate / 2, self.first * _SLOWEST))
        return replace(self, rate=self.rate + self.first * _FASTER)


def hint_ms(left_ms: float) -> float:
    """Give within how many milliseconds a client shall go that is told so `left_ms` before the drain's end."""
    return max(0.0, min(HINT_MS, left_ms - GRACE_MS, left_ms / 2))
