"""When each thing is due, and who does it: pure arithmetic on numbers, no clock.

The schedule is *open-loop*: a message is due at its moment whether or not the service keeps up, and its latency counts
from that moment. A closed loop (send, wait, send) slows down with the service it measures and so never sees the
queue ("coordinated omission"; Gil Tene, "How NOT to Measure Latency", 2015).

All processes share one schedule and each takes its own part, so together they send evenly without talking.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Rooms:
    """Who is in which group: clients are numbered in the order they connect, and fill one group after the other.

    A group's members are neighbours in that order, so the edge spreads them over replicas; they all belong to one
    generator process, so that one process can check the whole group.

    Attributes:
        clients: how many there are in all.
        size: members a group; the last group may be smaller.
        processes: how many generator processes share them.
    """

    clients: int
    size: int
    processes: int = 1

    @property
    def groups(self) -> int:
        """How many groups there are."""
        return -(-self.clients // self.size)

    def members(self, group: int) -> range:
        """Give the numbers of the clients in `group`."""
        return range(group * self.size, min((group + 1) * self.size, self.clients))

    def groups_of(self, process: int) -> range:
        """Give the groups that `process` carries."""
        return range(process, self.groups, self.processes)


@dataclass(frozen=True)
class Publishes:
    """One process's part of an even stream of publishes, round-robin over all groups.

    The whole stream's message k is due k / `rate` seconds after the start and goes to group k mod `groups`; this
    process sends those that go to every `step`-th group from `first` on.

    Attributes:
        rate: messages published a second, by all processes together.
        groups: how many groups there are in all.
        first: this process's first group.
        step: how many processes there are.
    """

    rate: float
    groups: int
    first: int = 0
    step: int = 1

    def due(self, number: int) -> tuple[float, int, int]:
        """Tell when this process's publish `number` (from 0) is due, and where.

        Returns:
            Seconds after the start; the group's position among the process's own; the round, from 0.
        """
        turn, position = divmod(number, len(range(self.first, self.groups, self.step)))
        return (turn * self.groups + self.first + position * self.step) / self.rate, position, turn


def publish_rate(rooms: Rooms, delivered_per_s: float) -> float:
    """Give the publishes a second that make `delivered_per_s`: each is delivered to its whole group."""
    return delivered_per_s * rooms.groups / rooms.clients


def connect_due(client: int, rate: float) -> float:
    """Tell when `client` shall connect, in seconds after the start, at `rate` connections a second."""
    return client / rate
