"""When each thing is due, and who does it: pure arithmetic on numbers, no clock.

The schedule is *open-loop*: a message is due at its moment whether or not the service keeps up, and its latency counts
from that moment. A closed loop (send, wait, send) slows down with the service it measures and so never sees the
queue ("coordinated omission"; Gil Tene, "How NOT to Measure Latency", 2015).

All processes share one schedule and each takes its own part, so together they send evenly without talking.
"""

from __future__ import annotations

import heapq
import itertools
import math
import random
import re
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


_RATE = r"[0-9]+(?:\.[0-9]+)?"
_SHAPES = "constant:5000, ramp:0-20000, step:1000,2000,5000 or spike:2000-20000"


@dataclass(frozen=True)
class Shape:
    """How a rate goes over time: straight pieces, one after the other. After the last one its end's rate stays.

    Attributes:
        pieces: of each its length in seconds, and the rate a second at its begin and at its end.
    """

    pieces: tuple[tuple[float, float, float], ...]

    @classmethod
    def constant(cls, rate: float) -> Shape:
        """Give the same rate for ever."""
        return cls(((1.0, rate, rate),))

    @classmethod
    def parse(cls, text: str) -> Shape:
        """Read a shape; as it stands it lasts a second, see `over`.

        Args:
            text: ``constant:R`` · ``ramp:A-B``, from A to B · ``step:A,B,C``, each as long as the others ·
                ``spike:A-B``, A, in the middle fifth of the time B.

        Raises:
            ValueError: it is none of these, or sends nothing.
        """
        rates = [float(rate) for rate in re.findall(_RATE, text)]
        if re.fullmatch(f"constant:{_RATE}", text):
            shape = cls.constant(rates[0])
        elif re.fullmatch(f"ramp:{_RATE}-{_RATE}", text):
            shape = cls(((1.0, rates[0], rates[1]),))
        elif re.fullmatch(f"step:{_RATE}(,{_RATE})*", text):
            shape = cls(tuple((1 / len(rates), rate, rate) for rate in rates))
        elif re.fullmatch(f"spike:{_RATE}-{_RATE}", text):
            low, high = rates
            shape = cls(((0.4, low, low), (0.2, high, high), (0.4, low, low)))
        else:
            raise ValueError(f"{text!r} is no shape: write for instance {_SHAPES}")
        if not shape.mean:
            raise ValueError(f"{text!r} is 0 all the time")
        return shape

    @property
    def length(self) -> float:
        """Seconds that its pieces take."""
        return sum(seconds for seconds, _, _ in self.pieces)

    @property
    def mean(self) -> float:
        """The mean rate of its pieces."""
        return sum(seconds * (begin + end) / 2 for seconds, begin, end in self.pieces) / self.length

    def over(self, seconds: float) -> Shape:
        """Give the same rates, stretched over `seconds`."""
        factor = seconds / self.length
        return Shape(tuple((length * factor, begin, end) for length, begin, end in self.pieces))

    def times(self, factor: float) -> Shape:
        """Give the same course at `factor` times the rates."""
        return Shape(tuple((length, begin * factor, end * factor) for length, begin, end in self.pieces))

    def when(self, count: float) -> float:
        """Tell when `count` are due: the seconds after which the rate adds up to it; infinite where it never does."""
        begun = 0.0
        for seconds, begin, end in self.pieces:
            area = seconds * (begin + end) / 2
            if count < area:
                slope = (end - begin) / seconds
                # The root of begin * t + slope * t² / 2 = count that is good for a slope of 0, too.
                divisor = begin + math.sqrt(max(0.0, begin * begin + 2 * slope * count))
                return begun + (2 * count / divisor if divisor else 0.0)
            begun, count = begun + seconds, count - area
        rate = self.pieces[-1][2]
        return begun + count / rate if rate else math.inf


def shape_times(text: str, factor: float) -> str:
    """Give a shape as text at `factor` times its rates: all numbers in such a text are rates."""
    return re.sub(_RATE, lambda rate: f"{float(rate[0]) * factor:.6f}".rstrip("0").rstrip("."), text)


@dataclass(frozen=True)
class Group:
    """A group of clients, and when it publishes where the load is even; a `Shape` bends that time.

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


def bent(seconds: float, rate: float, shape: Shape | None) -> float:
    """Tell when that is due under `shape`, which is due after `seconds` at an even `rate`."""
    return seconds if shape is None else shape.when(seconds * rate)


def connects(connections: int, rate: float, shape: Shape | None) -> Shape:
    """Give the course of connecting: an even `rate` a second, or `shape`, stretched until all have connected.

    Client `n` (from 0) is due at ``.when(n)``.
    """
    return Shape.constant(rate) if shape is None else shape.over(connections / shape.mean)
