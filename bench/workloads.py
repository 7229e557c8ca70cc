"""The workloads: what is asked of a peer, and when it counts as carried."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import msgspec

from bench.climb import climb
from bench.measure import Seen, measure
from bench.peers.base import Peer, Started
from shards.load.coordinator import Load
from shards.load.limits import Limits

ROOM_MEMBERS = 10
_CONNECTED = 0.999
_CONNECT_PER_S = 2000.0
_STORM_PER_S = 1e6
_IDLE_SECONDS = 0.5
_SETTLE_SECONDS = 5.0
_PROCESSES = 2


@dataclass(frozen=True)
class Goal:
    """When a load counts as carried.

    Attributes:
        delivered: the part of the publishes that must be taken, and of the expected deliveries that must be made.
        p99_ms: what p99 must be below, if anything.
    """

    delivered: float
    p99_ms: float | None = None


ROOMS = Goal(0.999, 50.0)
BROADCAST = Goal(1.0, 1000.0)
ALL = Goal(1.0)


@dataclass(frozen=True)
class Options:
    """What the command line asks for.

    Attributes:
        connections: sockets of every workload but echo.
        echo_clients: sockets of echo.
        duration_s: of each step.
        rooms: rates to try, messages delivered a second, ascending; `broadcast`: likewise.
        common_rate: at which CPU is compared.
    """

    connections: int
    echo_clients: int
    duration_s: float
    rooms: tuple[float, ...]
    broadcast: tuple[float, ...]
    common_rate: float


class Result(msgspec.Struct):
    """What a workload came to on a peer.

    Attributes:
        tries: in their order.
        failed: why it could not be run to its end, where it could not.
    """

    workload: str
    peer: str
    repeat: int
    tries: list[Seen]
    failed: str = ""


Say = Callable[[str], None]


class Host:
    """Holds a peer that runs, and starts it anew where that is asked for. Use as a context manager."""

    def __init__(self, peer: Peer, cache: Path) -> None:
        self._peer = peer
        self._cache = cache
        self._stack = contextlib.ExitStack()
        self.started: Started | None = None

    def __enter__(self) -> Host:
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()

    def run(self, load: Callable[[Started], Load], anew: bool) -> Seen:
        """Run a load on it; `anew`: on a fresh one."""
        if anew or self.started is None:
            self._stack.close()
            self.started = self._stack.enter_context(self._peer.start(self._cache))
        return measure(load(self.started), self.started)


class Workload:
    """A workload on a peer.

    Args:
        options: what the command line asks for.
        peer: on which.
        host: where it runs.
        say: takes a line on each try.

    Attributes:
        tries: what was measured so far.
    """

    def __init__(self, options: Options, peer: Peer, host: Host, say: Say) -> None:
        self.options = options
        self._peer = peer
        self._host = host
        self._say = say
        self.tries: list[Seen] = []

    def rooms(self) -> None:
        """Find the highest rate in groups of ten."""
        climb(self.options.rooms, lambda rate: self._step(rate, ROOM_MEMBERS, ROOMS))

    def broadcast(self) -> None:
        """Find the highest rate in one group of all."""
        climb(self.options.broadcast, lambda rate: self._step(rate, self.options.connections, BROADCAST))

    def echo(self) -> None:
        """Let each of some clients, alone in its group, send as soon as it has received."""
        self._try(lambda started: self._load(started, looping=True), ALL)

    def connect(self) -> None:
        """Let all connect at once; then see what they take while nothing is sent."""
        storm = partial(self._load, connect_rate=_STORM_PER_S, duration_s=_IDLE_SECONDS)
        self._try(storm, ALL)

    def _step(self, rate: float, size: int, goal: Goal) -> Seen:
        return self._try(lambda started: self._load(started, rate=rate, size=size), goal)

    def _try(self, load: Callable[[Started], Load], goal: Goal) -> Seen:
        """Run a load; after one that was missed on a fresh server, for what that left may still be under way."""
        seen = self._host.run(load, anew=bool(self.tries) and not self.tries[-1].passed)
        seen.missed = shortfall(seen, goal)
        seen.passed = not seen.missed
        self.tries.append(seen)
        self._say(_line(seen))
        return seen

    def _load(
        self,
        started: Started,
        *,
        rate: float = 1.0,
        size: int = ROOM_MEMBERS,
        looping: bool = False,
        connect_rate: float = _CONNECT_PER_S,
        duration_s: float | None = None,
    ) -> Load:
        return Load(
            url=started.url,
            connections=self.options.echo_clients if looping else self.options.connections,
            duration_s=duration_s or self.options.duration_s,
            rate=rate,
            group_size=1 if looping else size,
            connect_rate=connect_rate,
            processes=_PROCESSES,
            sockets_per_address=Limits.of_this_host().sockets_per_address,
            dialect=self._peer.dialect,
            looping=looping,
            settle_s=_SETTLE_SECONDS,
            # What a server takes once all has come would be counted as the price of it.
            linger_s=0,
        )


WORKLOADS: dict[str, Callable[[Workload], None]] = {
    "rooms": Workload.rooms,
    "broadcast": Workload.broadcast,
    "echo": Workload.echo,
    "connect": Workload.connect,
}


def shortfall(seen: Seen, goal: Goal) -> str:
    """Say what a load fell short of; empty: of nothing."""
    if seen.opened < _CONNECTED * seen.connections:
        return f"{seen.opened:,} of {seen.connections:,} connected"
    if seen.expected == 0:
        return "nothing was published"
    if seen.published - seen.unacked < goal.delivered * seen.published:
        return f"{seen.unacked:,} of {seen.published:,} publishes not acked"
    if seen.expected - seen.lost < goal.delivered * seen.expected:
        return f"{seen.lost:,} of {seen.expected:,} lost"
    if seen.duplicated:
        return f"{seen.duplicated:,} came twice"
    if goal.p99_ms is not None and seen.p99_ms >= goal.p99_ms:
        return f"p99 {seen.p99_ms:,.0f} ms"
    return ""


def _line(seen: Seen) -> str:
    wanted = f"{seen.rate:>8,.0f}/s wanted  " if seen.rate > 1 else ""
    cpu = " + ".join(f"{tier} {cost.cpu_us:.0f}" for tier, cost in seen.tiers.items())
    return (
        f"{wanted}{seen.delivered_per_s:>8,.0f}/s  p50 {seen.p50_ms:,.1f} ms  p99 {seen.p99_ms:,.1f} ms  "
        f"connected {seen.connect_per_s:,.0f}/s  CPU µs {cpu}  {'MISSED: ' + seen.missed if seen.missed else 'ok'}"
    )
