"""The control plane on the shared Redis: slot table, registry of workers, orders for a color."""

from __future__ import annotations

from collections.abc import Awaitable, Collection, Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Literal, cast

import msgspec
from redis.asyncio import Redis

from shards.errors import StaleVersion
from shards.router.table import SlotTable

WORKER_DEAD_AFTER_MS = 4000
"""A worker that has said nothing for so long is gone: four missed heartbeats."""

_TABLE, _WORKERS, _SEEN, _METRICS, _ORDERS, _JOURNAL = (
    f"shards:{name}" for name in ("table", "workers", "seen", "metrics", "orders", "journal:")
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


@dataclass(frozen=True)
class Orders:
    """What the workers of a color, or of one replica, shall do.

    Attributes:
        state: ``ready``: stand by; ``active``: serve; ``draining``: send the sockets elsewhere.
        drain_ms: within which a drain shall be through, in milliseconds.
    """

    state: ColorState
    drain_ms: int = 0


def _script(name: str) -> str:
    return (files("shards.router") / "lua" / f"{name}.lua").read_text()


class Control:
    """Reads and writes the control plane.

    Args:
        redis: a client of the shared Redis; it gives bytes, not text. The caller closes it.

    Every method raises `redis.exceptions.RedisError` where the server does not answer.
    """

    def __init__(self, redis: Redis) -> None:
        self.redis = redis
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
            keys=[_WORKERS, _SEEN, _METRICS, _TABLE, _ORDERS],
            args=[
                record.name,
                msgspec.json.encode(record),
                metrics,
                record.replica,
                record.color,
                WORKER_DEAD_AFTER_MS,
            ],
        )
        return int(version), (msgspec.json.decode(orders, type=Orders) if orders else None)

    async def forget(self, worker: str) -> None:
        """Take a worker that stops out of the registry."""
        async with self.redis.pipeline(transaction=True) as pipe:
            pipe.hdel(_WORKERS, worker)
            pipe.hdel(_METRICS, worker)
            pipe.zrem(_SEEN, worker)
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
        """
        given = {name: msgspec.json.encode(order) for name, order in orders.items() if order}
        taken = [name for name, order in orders.items() if not order]
        async with self.redis.pipeline(transaction=True) as pipe:
            if given:
                pipe.hset(_ORDERS, mapping=cast(dict[Any, Any], given))
            if taken:
                pipe.hdel(_ORDERS, *taken)
            await pipe.execute()

    async def journal(self, procedure: Procedure = "cutover") -> dict[str, Any] | None:
        """Read where a procedure that is under way, or was cut short, stands; None: there is none."""
        data = await self.redis.get(_JOURNAL + procedure)
        return msgspec.json.decode(data) if data else None

    async def write_journal(self, entry: dict[str, Any] | None, procedure: Procedure = "cutover") -> None:
        """Write where a procedure stands; None: it is through."""
        if entry is None:
            await self.redis.delete(_JOURNAL + procedure)
        else:
            await self.redis.set(_JOURNAL + procedure, msgspec.json.encode(entry))
