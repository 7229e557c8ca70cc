"""The contract of an engine: what it must do so that `up`, `promote` and `status` need not know where a fleet runs.

An engine keeps parts alive. It knows nothing of the order in which they are brought up, of colors' states or of the
slot table: `shards.fleet.reconcile` and `shards.fleet.rollout` do.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from shards.addresses import Peer
from shards.descriptors import descriptor_limit
from shards.fleet import probe
from shards.fleet.processes import Usage
from shards.fleet.spec import Color
from shards.fleet.state import LOOPBACK, FleetState, Place
from shards.ports import free_port


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
        host: where commands, and parts on other hosts, reach it.
    """

    name: str
    port: int
    sync_first: bool = False
    twin: Twin | None = None
    host: str = LOOPBACK


@dataclass(frozen=True)
class SentinelPart:
    """A Redis Sentinel, which watches every pair of servers."""

    name: str
    port: int
    pairs: tuple[str, ...]


@dataclass(frozen=True)
class ReplicaPart:
    """An app server of a color; `redis_port` is where the color's own Redis listens, `control_port` the shared one.

    Commands find it at its port on `host`. Edges do too, or at `address`, ``host:port``, where that is not empty.
    """

    name: str
    port: int
    color: Color
    workers: int
    release: str
    redis_port: int
    control_port: int
    address: str = ""
    host: str = LOOPBACK


@dataclass(frozen=True)
class EdgePart:
    """A proxy on the fleet's port, on `host`; `port` is where it answers questions about itself, on loopback only."""

    name: str
    port: int
    host: str = LOOPBACK


Part = RedisPart | SentinelPart | ReplicaPart | EdgePart


@dataclass(frozen=True)
class AddressLimits:
    """What one address may do at an edge; 0: any number.

    Attributes:
        connects: requests a second, twice that at once.
        sockets: that it has at a time.
    """

    connects: int = 0
    sockets: int = 0


@dataclass(frozen=True)
class Route:
    """Where the edges send requests.

    Attributes:
        active: the color that gets them.
        replicas: the replicas of each color the edges know of.
        percent: of new requests that the other color gets, as a canary; 0: none.
        limits: what one address may do.
    """

    active: Color
    replicas: Mapping[Color, Sequence[ReplicaPart]]
    percent: float = 0.0
    limits: AddressLimits = AddressLimits()


@dataclass(frozen=True)
class Running:
    """What an engine knows of a part it keeps.

    Attributes:
        up: it runs now.
        pid: its process, where it is one of this host.
        container: its container, where it is in one.
        kept: the engine starts it again when it dies.
        retried: it died as soon as it was started, and the engine waits before it tries again.
        note: what befell it, in a few words; empty: nothing that the engine knows of.
    """

    up: bool
    pid: int | None = None
    container: str | None = None
    kept: bool = True
    retried: bool = False
    note: str = ""


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

    async def descriptors(self) -> int:
        """Tell how many files one part may open, before there is any.

        Raises:
            ShardsError: it can't be told.
        """
        return descriptor_limit()

    def free_port(self, taken: Iterable[int]) -> int:
        """Choose a port for a part, none of those that are `taken`."""
        return free_port(taken)

    def place(self, state: FleetState, only: Collection[str] | None = None) -> dict[str, Place]:
        """Say which host each part is on; nothing: all are on this one.

        Args:
            state: the fleet.
            only: the names of the parts that are started now: of the others nothing is changed. None: all are.

        Raises:
            ShardsError: there is no host for a part.
        """
        return {}

    @abstractmethod
    async def check_app(self, release: str) -> str | None:
        """Import the app the way a replica will.

        Args:
            release: what it is called from now on.

        Returns:
            Its default channel layer, where it has one that is not of this project; None: nothing to be told of.

        Raises:
            UsageError: that fails; the message ends with the exception, and where it was raised.
        """

    def holds(self, release: str) -> str:
        """Say which release runs in a replica of `release` that is started now: that one, where the engine keeps it."""
        return release

    @abstractmethod
    async def forget_releases(self, stay: Collection[str]) -> None:
        """Delete what the engine keeps of releases, but for those that `stay`."""

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

    async def lost_hosts(self) -> Collection[str]:
        """Give the addresses of the hosts on which nothing runs, as far as the engine can tell.

        Nobody waits for a part there; one that has no data there is started elsewhere.
        """
        return ()

    async def ask_edge(self, edge: EdgePart, path: str) -> probe.Answer | None:
        """Ask an edge about itself; None: it does not answer."""
        return await probe.get(edge.port, path)

    @abstractmethod
    async def route(self, route: Route) -> None:
        """Tell the edges where to send requests; they take it up within moments, see `routed`."""

    @abstractmethod
    async def routed(self, edge: EdgePart, route: Route) -> bool:
        """Tell whether an edge says that it works by `route`."""

    async def connects_from(self, edge: EdgePart) -> set[Peer]:
        """Tell from where an edge is connected to replicas, as these see it: those of today, and those before.

        Where that can't be told there is nothing: then the clients of an edge that goes are cut off.
        """
        return set()

    async def kept(self) -> set[str]:
        """Name the parts whose data is kept elsewhere than in the fleet's directory: of it, nothing remembered says."""
        return set()

    @abstractmethod
    def newest(self, state: FleetState) -> dict[str, str]:
        """Find, while nothing of the fleet runs, the server of each pair that has all that was ever acked.

        Returns:
            Its name, by the shard's.
        """

    @abstractmethod
    async def log(self, name: str) -> Path:
        """Give the file that a part's output goes to; where it is kept elsewhere, the last of it is put there now."""

    @abstractmethod
    def lines(self, name: str | None, follow: bool) -> AsyncIterator[tuple[str, str]]:
        """Give the last lines that the parts have said, and what they add while one follows.

        Args:
            name: of one part; None: of all.
            follow: go on until cancelled.

        Yields:
            (part, line)

        Raises:
            UsageError: no part of that name has said anything.
        """

    @abstractmethod
    async def forget_data(self, names: Collection[str]) -> None:
        """Delete the data of parts that are gone for good."""

    @abstractmethod
    async def spread_secrets(self, parts: Sequence[Part]) -> None:
        """Bring the fleet's secrets, which have changed, to where those read them that connect or start from now on.

        Args:
            parts: the Redis servers and Sentinels that there are.

        Raises:
            ShardsError: they can't be changed while the fleet is up; the message says what to do.
        """

    @abstractmethod
    async def purge(self) -> None:
        """Delete what is kept of a fleet that does not run elsewhere than in its directory: all its data."""

    async def has_ours(self) -> bool:
        """Tell whether anything that is kept elsewhere than in the fleet's directory carries its mark."""
        return False

    async def left_alone(self) -> str:
        """Say what there is of a fleet of the same name that this one did not make; empty: there is nothing."""
        return ""
