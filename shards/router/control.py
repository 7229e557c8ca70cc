"""The control plane on the shared Redis: slot table, registry of workers, orders for a color."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Literal, cast

import msgspec
from redis.asyncio import Redis
from redis.asyncio.client import Pipeline
from redis.exceptions import WatchError

from shards.addresses import Peer
from shards.errors import Overtaken, StaleVersion
from shards.router.lease import FENCE
from shards.router.table import SlotTable

WORKER_DEAD_AFTER_MS = 4000
"""A worker that has said nothing for so long is gone: four missed heartbeats."""

EVENTS_KEPT = 200

_TABLE, _WORKERS, _SEEN, _METRICS, _ORDERS, _EVENTS, _JOURNAL, _ROUTE = (
    f"shards:{name}" for name in ("table", "workers", "seen", "metrics", "orders", "events", "journal:", "route")
)

WorkerState = Literal["starting", "ready", "active", "draining", "retired"]
ColorState = Literal["ready", "active", "draining"]
Procedure = Literal["cutover", "reshard"]


@dataclass(frozen=True)
class WorkerRecord:
    """What a worker says of itself at each heartbeat.

    Attributes:
        name: unique in the fleet: ``<replica>/<worker>``.
        color: ``blue`` or ``green``.
        replica: for instance ``blue-0``.
        worker: its label within the replica.
        pid: its process, on its host.
        state: what it is doing.
        connections: WebSockets open.
        release: which release of the app it runs.
        ring_version: the version of the slot table it works by.
        started: when it started, seconds since 1970.
        accept_ms: how long a handshake took lately, in milliseconds.
        cpu_percent: what it takes of a core.
        handoff: path of the UNIX socket, on its host, over which it takes sockets; empty: it takes none.
    """

    name: str
    color: str
    replica: str
    worker: str
    pid: int
    state: WorkerState
    connections: int
    release: str
    ring_version: int
    started: float
    accept_ms: float = 0.0
    cpu_percent: float = 0.0
    handoff: str = ""


@dataclass(frozen=True)
class Orders:
    """What the workers of a color, or of one replica, shall do.

    Attributes:
        state: ``ready``: stand by; ``active``: serve; ``draining``: send the sockets elsewhere.
        drain_ms: within which a drain shall be through, in milliseconds.
        to: replicas that shall get the sockets of those that drain.
        through: addresses and ports of an edge that stops; sockets that come from these shall reconnect within
            `drain_ms`.
    """

    state: ColorState
    drain_ms: int = 0
    to: tuple[str, ...] = ()
    through: tuple[Peer, ...] = ()


@dataclass(frozen=True)
class Event:
    """Something that happened to the fleet.

    Attributes:
        at_ms: when, by the control Redis's clock, milliseconds since 1970.
        kind: ``worker``, ``cutover`` or ``reshard``.
        text: what.
    """

    at_ms: int
    kind: str
    text: str


def _script(name: str) -> str:
    return (files("shards.router") / "lua" / f"{name}.lua").read_text()


class Control:
    """Reads and writes the control plane.

    Args:
        redis: a client of the shared Redis; it gives bytes, not text. The caller closes it.
        fence: number of the lease (`shards.router.lease`) under which orders and journals are written; None: of none.

    Every method raises `redis.exceptions.RedisError` where the server does not answer.
    """

    def __init__(self, redis: Redis, fence: int | None = None) -> None:
        self.redis = redis
        self._fence = fence
        self._swap = redis.register_script(_script("swap_table"))
        self._heartbeat = redis.register_script(_script("heartbeat"))
        self._alive = redis.register_script(_script("workers"))

    async def table(self) -> SlotTable | None:
        """Read the slot table; None before the first one is written."""
        data = await cast(Awaitable[bytes | None], self.redis.hget(_TABLE, "table"))
        return SlotTable.decode(data) if data else None

    async def swap_table(self, table: SlotTable, expected: int) -> None:
        """Put `table` in the place of version `expected` (0: of none).

        Raises:
            StaleVersion: another version is there.
        """
        swapped, found = await self._swap(keys=[_TABLE], args=[expected, table.version, table.encode()])
        if not swapped:
            raise StaleVersion(expected, int(found))

    async def heartbeat(self, record: WorkerRecord, metrics: bytes) -> tuple[int, Orders | None]:
        """Say that a worker lives.

        Args:
            record: how it does.
            metrics: its samples, as `shards.server.metrics` encodes them.

        Returns:
            The slot table's version, and the orders for the worker's replica, else for its color, where there
            are any.
        """
        version, orders = await self._heartbeat(
            keys=[_WORKERS, _SEEN, _METRICS, _TABLE, _ORDERS, _EVENTS],
            args=[
                record.name,
                msgspec.json.encode(record),
                metrics,
                record.replica,
                record.color,
                WORKER_DEAD_AFTER_MS,
                EVENTS_KEPT,
            ],
        )
        return int(version), (msgspec.json.decode(orders, type=Orders) if orders else None)

    async def forget(self, worker: str) -> None:
        """Take a worker that stops out of the registry."""
        async with self.redis.pipeline(transaction=True) as pipe:
            pipe.hdel(_WORKERS, worker)
            pipe.hdel(_METRICS, worker)
            pipe.zrem(_SEEN, worker)
            _tell(pipe, "worker", f"{worker} left")
            await pipe.execute()

    async def workers(self) -> list[WorkerRecord]:
        """Read the records of the workers that live, by name."""
        records = [msgspec.json.decode(r, type=WorkerRecord) for r in await self._living(_WORKERS)]
        return sorted(records, key=lambda record: record.name)

    async def metrics(self, workers: Collection[str]) -> list[bytes]:
        """Read the samples of the workers of these names."""
        if not workers:
            return []
        values = await cast(Awaitable[list[bytes | None]], self.redis.hmget(_METRICS, list(workers)))
        return [value for value in values if value is not None]

    async def _living(self, key: str) -> list[bytes]:
        values: list[bytes | None] = await self._alive(keys=[key, _SEEN], args=[WORKER_DEAD_AFTER_MS])
        return [value for value in values if value is not None]

    async def orders(self, name: str) -> Orders | None:
        """Read the orders for a color or a replica; None where there are none."""
        data = await cast(Awaitable[bytes | None], self.redis.hget(_ORDERS, name))
        return msgspec.json.decode(data, type=Orders) if data else None

    async def order(self, orders: Mapping[str, Orders | None]) -> None:
        """Give orders to colors and replicas, all at once; workers learn of them with their next heartbeat.

        Args:
            orders: by a color's or a replica's name, where a replica's own go before its color's; None takes
                back what was ordered.

        Raises:
            Overtaken: another controller has taken the lease.
        """
        given = {name: msgspec.json.encode(order) for name, order in orders.items() if order}
        taken = [name for name, order in orders.items() if not order]

        def write(pipe: Pipeline) -> None:
            if given:
                pipe.hset(_ORDERS, mapping=cast(dict[Any, Any], given))
            if taken:
                pipe.hdel(_ORDERS, *taken)

        await self._write(write)

    async def route(self) -> bytes | None:
        """Read where edges that no file reaches shall send requests; None: that was never said."""
        return cast(bytes | None, await self.redis.get(_ROUTE))

    async def write_route(self, configuration: bytes) -> None:
        """Say where edges that no file reaches shall send requests, in the proxy's own words."""
        await self.redis.set(_ROUTE, configuration)

    async def journal(self, procedure: Procedure = "cutover") -> dict[str, Any] | None:
        """Read where a procedure that is under way, or was cut short, stands; None: there is none."""
        data = await self.redis.get(_JOURNAL + procedure)
        return msgspec.json.decode(data) if data else None

    async def events(self, most: int = EVENTS_KEPT) -> list[Event]:
        """Read what happened lately, the newest first."""
        entries = cast(list[tuple[bytes, dict[bytes, bytes]]], await self.redis.xrevrange(_EVENTS, count=most))
        return [
            Event(int(id.partition(b"-")[0]), said[b"kind"].decode(), said[b"text"].decode()) for id, said in entries
        ]

    async def write_journal(
        self, entry: dict[str, Any] | None, procedure: Procedure = "cutover", event: str = ""
    ) -> None:
        """Write where a procedure stands; None: it is through.

        Args:
            entry: where it stands.
            procedure: which.
            event: what is told of that among the `events`; empty: nothing.

        Raises:
            Overtaken: another controller has taken the lease.
        """

        def write(pipe: Pipeline) -> None:
            if entry is None:
                pipe.delete(_JOURNAL + procedure)
            else:
                pipe.set(_JOURNAL + procedure, msgspec.json.encode(entry))
            if event:
                _tell(pipe, procedure, event)

        await self._write(write)

    async def _write(self, write: Callable[[Pipeline], None]) -> None:
        """Write at once, and only while nobody else has taken the lease."""
        async with self.redis.pipeline(transaction=True) as pipe:
            if self._fence is not None:
                await pipe.watch(FENCE)
                if int(await pipe.get(FENCE) or 0) != self._fence:
                    raise Overtaken
                pipe.multi()  # type: ignore[no-untyped-call]
            write(pipe)
            try:
                await pipe.execute()
            except WatchError:
                raise Overtaken from None


def _tell(pipe: Pipeline, kind: str, text: str) -> None:
    pipe.xadd(_EVENTS, {"kind": kind, "text": text}, maxlen=EVENTS_KEPT, approximate=False)
