"""The load that both tools are given, and when each socket of it does what: pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from shards.errors import UsageError

FIGURES = (
    "sockets",
    "sockets_at_once",
    "connects_per_s",
    "published",
    "published_per_s",
    "delivered",
    "delivered_per_s",
)
"""What is compared. `sockets` are those opened in all."""

TOLERANCE = 0.05

_PAUSE_SECONDS = 2.0
_SILENT_SECONDS = 20.0
"""The service pings a socket that has been silent for so long, and tsung answers no pings."""


@dataclass(frozen=True)
class Socket:
    """A socket's part of the load.

    Attributes:
        group: the number of its group.
        start_s: when it connects, after the start.
        wait_s: from there to its first message; the others follow at the plan's interval.
    """

    group: int
    start_s: float
    wait_s: float


@dataclass(frozen=True)
class Plan:
    """A load in which all sockets publish in turn, as ours does with groups of one size.

    Attributes:
        connections: sockets in all.
        connect_rate: of these, a second.
        publish_rate: messages published a second, by all sockets together.
        wanted_s: for how long; see `duration_s`.
        group_size: members a group, all of whom get what one publishes.
    """

    connections: int
    connect_rate: float
    publish_rate: float
    wanted_s: float
    group_size: int = 10

    def check(self) -> None:
        """Refuse what the two tools would not do alike.

        Raises:
            UsageError: says what, and what to do.
        """
        if self.connections % self.group_size:
            raise UsageError(f"{self.connections} sockets are no whole groups of {self.group_size}")
        if (silent := self.begin_s + self.interval_s) >= _SILENT_SECONDS:
            raise UsageError(
                f"a socket would be silent for {silent:.0f} s, and tsung answers no ping, which comes after "
                f"{_SILENT_SECONDS:.0f}: raise the connect or the publish rate"
            )

    @property
    def interval_s(self) -> float:
        """Seconds between two messages of one socket."""
        return self.connections / self.publish_rate

    @property
    def each(self) -> int:
        """Messages that each socket publishes."""
        return max(1, round(self.wanted_s / self.interval_s))

    @property
    def duration_s(self) -> float:
        """Seconds of publishing: `wanted_s`, rounded so that each socket's turn comes equally often."""
        return self.each * self.interval_s

    @property
    def begin_s(self) -> float:
        """When publishing begins."""
        return self.connections / self.connect_rate + _PAUSE_SECONDS

    def sockets(self) -> Iterator[Socket]:
        """Give each socket's part, in the order they connect.

        First messages are due as `schedule.even_groups` has them. A group's members connect together: each wait of
        tsung's launcher ends up to a millisecond late, and that adds up. With a wait for each socket 100 a second
        became 87, where this was tried, and with one for ten 96.
        """
        groups = self.connections // self.group_size
        turn_s = self.interval_s / self.group_size
        for group in range(groups):
            start_s = group * self.group_size / self.connect_rate
            for member in range(self.group_size):
                due_s = self.begin_s + (member + group / groups) * turn_s
                yield Socket(group, start_s, due_s - start_s)

    def expected(self) -> dict[str, float]:
        """Give what each figure is to be."""
        published = self.connections * self.each
        return {
            "sockets": self.connections,
            "sockets_at_once": self.connections,
            "connects_per_s": self.connect_rate,
            "published": published,
            "published_per_s": self.publish_rate,
            "delivered": published * self.group_size,
            "delivered_per_s": self.publish_rate * self.group_size,
        }
