"""When each thing is due, and who does it: pure arithmetic on numbers, no clock.

The schedule is *open-loop*: a message is due at its moment whether or not the service keeps up, and its latency counts
from that moment. A closed loop (send, wait, send) slows down with the service it measures and so never sees the
queue ("coordinated omission"; Gil Tene, "How NOT to Measure Latency", 2015).

All processes share one schedule and each takes its own part, so together they send evenly without talking.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

_BANDS = (
    (1000, 1000, 0.5),
    (101, 300, 0.15),
    (31, 100, 0.1),
    (11, 30, 0.08),
    (4, 10, 0.07),
    (2, 3, 0.06),
    (1, 1, 0.04),
)
"""Sizes of mixed groups: from, to, and the part of all clients that are in such groups."""


@dataclass(frozen=True)
class Group:
    """A group of clients, and when it publishes.

    Clients are numbered in the order they connect, and a group's members are neighbours in that order, so the edge
    spreads them over replicas.

    Attributes:
        number: from 0.
        first: the number of its first member.
        size: how many members it has.
        rate: messages that its members together publish a second.
        phase: when the first is due, in intervals between two; below 1.
    """

    number: int
    first: int
    size: int
    rate: float
    phase: float = 0.0

    @property
    def members(self) -> range:
        """The numbers of its clients."""
        return range(self.first, self.first + self.size)

    @property
    def delivered(self) -> float:
        """Messages delivered a second to its members together."""
        return self.rate * self.size

    def due(self, turn: int) -> float:
        """Tell when its message `turn` (from 0) is due, in seconds after the start."""
        return (turn + self.phase) / self.rate


def even_groups(clients: int, size: int, delivered_per_s: float) -> list[Group]:
    """Give groups of `size` (the last may be smaller) that publish in turn and receive `delivered_per_s` in all."""
    count = -(-clients // size)
    rate = delivered_per_s / clients
    firsts = range(0, clients, size)
    return [Group(n, first, min(size, clients - first), rate, n / count) for n, first in enumerate(firsts)]


def mixed_groups(clients: int, delivered_per_s: float, seed: int) -> list[Group]:
    """Give groups of 1 to 1,000 members, a few large ones and many small ones, in an order of chance.

    Large and small groups receive alike: each band of sizes gets the same part of `delivered_per_s`, in which all its
    groups publish at one rate.

    Args:
        clients: how many there are in all.
        delivered_per_s: messages delivered a second, to all of them together.
        seed: the same one gives the same groups.
    """
    chance = random.Random(seed)
    bands = _band_sizes(clients, chance)
    groups = []
    for sizes in bands:
        rate = delivered_per_s / len(bands) / sum(sizes)
        groups += [Group(0, 0, size, rate, index / len(sizes)) for index, size in enumerate(sizes)]
    chance.shuffle(groups)
    firsts = itertools.accumulate((group.size for group in groups), initial=0)
    return [replace(group, number=n, first=first) for n, (group, first) in enumerate(zip(groups, firsts, strict=False))]


def _band_sizes(clients: int, chance: random.Random) -> list[list[int]]:
    """Draw the sizes in each band; who is left over by rounding is in the last one's groups."""
    bands: list[list[int]] = []
    left = clients
    for least, most, part in _BANDS:
        budget = left if least == 1 else min(left, round(part * clients))
        sizes = []
        while budget:
            sizes.append(min(budget, chance.randint(least, most)))
            budget -= sizes[-1]
        left -= sum(sizes)
        bands.append(sizes)
    return [sizes for sizes in bands if sizes]


def shares(groups: Sequence[Group], processes: int) -> list[list[Group]]:
    """Share groups out to at most `processes` processes, so that each has about as much to receive.

    A group is never divided: one process can then check all of it.
    """
    loads = [(0.0, process) for process in range(min(processes, len(groups)))]
    parts: list[list[Group]] = [[] for _ in loads]
    for group in sorted(groups, key=lambda group: -group.delivered):
        load, process = loads[0]
        heapq.heapreplace(loads, (load + group.delivered, process))
        parts[process].append(group)
    return [sorted(part, key=lambda group: group.number) for part in parts]


def publishes(groups: Sequence[Group]) -> Iterator[tuple[float, int, int]]:
    """Give all that is due, without end and in order.

    Yields:
        Seconds after the start; the group's position in `groups`; how often that group was due before.
    """
    return heapq.merge(*(_turns(group, position) for position, group in enumerate(groups)))


def _turns(group: Group, position: int) -> Iterator[tuple[float, int, int]]:
    return ((group.due(turn), position, turn) for turn in itertools.count())


def connect_due(client: int, rate: float) -> float:
    """Tell when `client` shall connect, in seconds after the start, at `rate` connections a second."""
    return client / rate
