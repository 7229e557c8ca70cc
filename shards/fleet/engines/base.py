"""The contract of an engine: what it must do so that `up`, `promote` and `status` need not know where a fleet runs.

An engine keeps parts alive. It knows nothing of the order in which they are brought up, of colors' states or of the
slot table: `shards.fleet.reconcile` and `shards.fleet.rollout` do.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from shards.fleet.processes import Usage
from shards.fleet.spec import Color
from shards.fleet.state import FleetState


@dataclass(frozen=True)
class Twin:
    """What a server of a pair knows of the other: ``durability: replicated`` gives each shard two servers.

    Attributes:
        shard: the shard's name, by which Sentinel knows the pair.
        port: of the other server.
        leads: this one is the primary until a Sentinel says otherwise.
        sentinels: ports of the Sentinels.
    """

    shard: str
    port: int
    leads: bool
    sentinels: tuple[int, ...]


@dataclass(frozen=True)
class RedisPart:
    """A Redis server: a shard or one of its two, a color's own, or the shared control Redis.

    Attributes:
        name: what it is called.
        port: where it listens.
        sync_first: it syncs its file before it answers.
        twin: the other server of the pair; None: it is alone.
    """

    name: str
    port: int
    sync_first: bool = False
    twin: Twin | None = None


@dataclass(frozen=True)
class SentinelPart:
    """A Redis Sentinel, which watches every pair of servers."""

    name: str
    port: int
    pairs: tuple[str, ...]


@dataclass(frozen=True)
class ReplicaPart:
    """An app server of a color; `redis_port` is where the color's own Redis listens, `control_port` the shared one."""

    name: str
    port: int
    color: Color
    workers: int
    release: str
    redis_port: int
    control_port: int


@dataclass(frozen=True)
class EdgePart:
    """A proxy on the fleet's port; `port` is where it answers questions about itself, on loopback only."""

    name: str
    port: int


Part = RedisPart | SentinelPart | ReplicaPart | EdgePart


@dataclass(frozen=True)
class Route:
    """Where the edges send requests.

    Attributes:
        active: the color that gets them.
        replicas: the replicas of each color the edges know of.
    """

    active: Color
    replicas: Mapping[Color, Sequence[ReplicaPart]]


@dataclass(frozen=True)
class Running:
    """What an engine knows of a part it keeps.

    Attributes:
        up: it runs now.
        pid: its process, where it is one of this host.
        container: its container, where it is in one.
        kept: the engine starts it again when it dies.
        retried: it died as soon as it was started, and the engine waits before it tries again.
    """

    up: bool
    pid: int | None = None
    container: str | None = None
    kept: bool = True
    retried: bool = False


class Engine(ABC):
    """Keeps the parts of one fleet alive.

    Every method may be called again and then changes nothing that is right already. Methods raise `ShardsError`
    where the engine itself fails; whether a *part* is healthy, callers find out by asking the part.
    """

    @abstractmethod
    def check(self, port_is_ours: bool) -> None:
        """See whether this host has what a fleet needs, before anything is started.

        Args:
            port_is_ours: the fleet runs, so that its port must be in use.

        Raises:
            ShardsError: something is missing, or the port is taken.
        """

    @abstractmethod
    async def check_app(self) -> None:
        """Import the app the way a replica will.

        Raises:
            UsageError: that fails; the message ends with the exception.
        """

    @abstractmethod
    async def alive(self) -> bool:
        """Tell whether the engine keeps this fleet: parts that die are started again."""

    @abstractmethod
    async def start(self) -> None:
        """Begin to keep the fleet, with no part yet; ends what an earlier run has left behind."""

    @abstractmethod
    async def stop(self) -> bool:
        """Stop every part and the keeper; after it no process, no port and no socket file of the fleet is left.

        Returns:
            Whether there was anything to stop.
        """

    @abstractmethod
    async def add(self, parts: Sequence[Part]) -> None:
        """Start parts. One that is kept already is left as it is, and started where it was stopped."""

    @abstractmethod
    async def remove(self, names: Collection[str]) -> None:
        """Stop parts and forget them."""

    @abstractmethod
    async def running(self) -> dict[str, Running]:
        """Tell what is known of each part, kept or left behind, by name."""

    @abstractmethod
    async def usage(self, running: Mapping[str, Running]) -> dict[str, Usage]:
        """Measure what each part uses."""

    @abstractmethod
    def route(self, route: Route) -> None:
        """Tell the edges where to send requests; they take it up within moments, see `routed`."""

    @abstractmethod
    async def routed(self, edge: EdgePart, route: Route) -> bool:
        """Tell whether an edge says that it works by `route`."""

    @abstractmethod
    def newest(self, state: FleetState) -> dict[str, str]:
        """Find, while nothing of the fleet runs, the server of each pair that has all that was ever acked.

        Returns:
            Its name, by the shard's.
        """

    @abstractmethod
    def log(self, name: str) -> Path:
        """Give the file that a part's output goes to."""
