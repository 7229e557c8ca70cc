"""`inv status`: what runs where, asked of the parts themselves, all at once.

The object it gives is a contract with scripts: names and types stay. What can't be known is null: figures of the
registry and the slot table while the control Redis is away, the pid of a part that does not run.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urlsplit

from redis.exceptions import RedisError

from shards.errors import ShardsError
from shards.fleet import certificate, health, layout, probe
from shards.fleet.cutover import Cutover
from shards.fleet.engines.base import EdgePart, Part, ReplicaPart, Running
from shards.fleet.fleet import Fleet
from shards.fleet.processes import Usage
from shards.fleet.shard_list import FleetShard
from shards.fleet.spec import COLORS
from shards.fleet.state import FleetState
from shards.ring import SLOTS
from shards.router.control import Control, WorkerRecord
from shards.router.table import SlotTable

Status = dict[str, Any]

DOWN: Status = {"state": "down"}

_RENEWED_S = 60.0
"""After which who watches asks anew for daemons, in seconds: what did not answer would else never be seen again."""


@dataclass(frozen=True)
class _Registry:
    """What the control Redis knows; `table` and `workers` are None where it does not answer."""

    table: SlotTable | None = None
    workers: Sequence[WorkerRecord] | None = None
    cutover: Cutover | None = None
    resharding: bool = False


@dataclass(frozen=True)
class _Seen:
    """All that was found out at one moment."""

    state: FleetState
    supervised: bool
    running: dict[str, Running]
    registry: _Registry
    usage: dict[str, Usage] = field(default_factory=dict)
    ailments: dict[str, str | None] = field(default_factory=dict)
    clients: dict[str, int | None] = field(default_factory=dict)
    primaries: dict[str, str] = field(default_factory=dict)
    command: str | None = None
    certificate: str | None = None

    def well(self, name: str) -> bool:
        if any(shard.name == name and shard.url for shard in self.state.shards):
            return self.clients.get(name) is not None
        return self.running.get(name, _GONE).up and self.ailments.get(name) is None


_GONE = Running(False)


async def status(fleet: Fleet) -> Status:
    """Look at a fleet.

    Returns:
        The object that `inv status --json` prints; ``{"state": "down"}`` where nothing of the fleet runs.
    """
    state = fleet.remembered()
    if state is None or not state.ports:
        return DOWN
    engine = fleet.engine(state.spec)
    running, supervised = await asyncio.gather(engine.running(), engine.alive())
    if not any(part.up for part in running.values()):
        return DOWN
    if not supervised:
        fleet.note("nothing keeps this fleet alive any more: what dies stays dead until `inv up`, which starts it anew")
    parts = _parts(state)
    registry, usage, clients, primaries, ailments = await asyncio.gather(
        _registry(fleet, state),
        engine.usage(running),
        _clients(fleet, state),
        _primaries(fleet, state),
        asyncio.gather(*(health.ailment(fleet, engine, part) for part in parts)),
    )
    found = dict(zip((part.name for part in parts), ailments, strict=True))
    holder = fleet.directory.holder()
    command = holder.command if holder else None
    living, amiss = _living(registry, running), _certificate(fleet, state)
    return _object(_Seen(state, supervised, running, living, usage, found, clients, primaries, command, amiss))


class Watch:
    """Looks at a fleet again and again, by the daemons that the looks before have opened.

    Args:
        fleet: which; its daemons are opened anew now and then.
    """

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._since = time.monotonic()

    async def look(self) -> Status:
        """Give what `status` does."""
        if time.monotonic() - self._since >= _RENEWED_S:
            await asyncio.to_thread(self._fleet.opened.close)
            self._since = time.monotonic()
        return await status(self._fleet)


def _parts(state: FleetState) -> list[Part]:
    replicas = [part for color in COLORS for part in layout.replica_parts(state, color)]
    return [*layout.redis_parts(state), *layout.sentinel_parts(state), *replicas, *layout.edge_parts(state)]


def _certificate(fleet: Fleet, state: FleetState) -> str | None:
    """Say what is amiss with the certificate that the edges show; None: nothing, or there is none."""
    try:
        until = certificate.expires(fleet.directory, state.spec)
    except ShardsError as error:
        return str(error)
    return None if until is None else certificate.warning(until - time.time())


async def _clients(fleet: Fleet, state: FleetState) -> dict[str, int | None]:
    password = fleet.directory.password()
    servers = {part.name: probe.redis_client(part.port, password, host=part.host) for part in layout.redis_parts(state)}
    for shard in state.shards:
        if shard.url:
            servers[shard.name] = probe.shard_client(shard.url, fleet.directory.credentials(shard.url))
    counts = await asyncio.gather(*map(probe.redis_clients, servers.values()))
    return dict(zip(servers, counts, strict=True))


async def _primaries(fleet: Fleet, state: FleetState) -> dict[str, str]:
    """Name the server that leads each pair: the one that Sentinel names, else the last one known to."""
    if not layout.is_replicated(state):
        return {}
    names = {port: name for name, port in state.ports.items()}
    password, sentinels = fleet.directory.password(), layout.sentinel_ports(state)
    shards = layout.local_shard_names(state)
    ports = await asyncio.gather(*(probe.primary_port(sentinels, password, shard) for shard in shards))
    return {
        shard: names.get(port or 0, state.primaries.get(shard, shard))
        for shard, port in zip(shards, ports, strict=True)
    }


async def _registry(fleet: Fleet, state: FleetState) -> _Registry:
    port, host = state.ports[layout.CONTROL], layout.host(state, layout.CONTROL)
    client = probe.redis_client(port, fleet.directory.password(), host=host)
    control = Control(client)
    try:
        async with asyncio.timeout(probe.PROBE_S):
            entry = await control.journal()
            cutover = Cutover.read(entry) if entry else None
            resharding = await control.journal("reshard") is not None
            return _Registry(await control.table(), await control.workers(), cutover, resharding)
    except (RedisError, OSError, TimeoutError, ShardsError):
        return _Registry()
    finally:
        await client.aclose()


def _living(registry: _Registry, running: dict[str, Running]) -> _Registry:
    """Leave out workers that have died since their last heartbeat, as far as this host can tell."""
    workers = registry.workers
    return registry if workers is None else replace(registry, workers=[w for w in workers if health.lives(w, running)])


def _object(seen: _Seen) -> Status:
    spec, workers, table = seen.state.spec, seen.registry.workers, seen.registry.table
    return {
        "project": spec.project,
        "engine": spec.engine,
        "url": layout.url(seen.state),
        "active_color": seen.state.active,
        "state": _fleet_state(seen),
        "cutover": _cutover(seen.registry.cutover),
        "durability": spec.durability,
        "connections": sum(worker.connections for worker in workers) if workers is not None else None,
        "ring": {"version": table.version if table else None, "slots": SLOTS},
        "edges": [_edge(seen, part) for part in layout.edge_parts(seen.state)],
        "replicas": [
            _replica(seen, part)
            for color in sorted(seen.state.deployed)
            for part in layout.replica_parts(seen.state, color)
        ],
        "shards": [_shard(seen, shard) for shard in seen.state.shards],
        "sentinels": [{"name": name, **_common(seen, name)} for name in layout.sentinel_names(seen.state)],
        "redis": [_redis(seen, name) for name in layout.redis_names(seen.state)],
        "warnings": _warnings(seen),
    }


def _cutover(cutover: Cutover | None) -> Status | None:
    """What is under way, or was left half-way."""
    if cutover is None:
        return None
    return {
        "verb": cutover.verb,
        "step": str(cutover.step),
        "old": cutover.old,
        "new": cutover.new,
        "release": cutover.release,
        "canary_percent": cutover.canary,
        "failure": cutover.failure,
    }


def _fleet_state(seen: _Seen) -> str:
    if seen.registry.cutover:
        return seen.registry.cutover.fleet_state
    if seen.registry.resharding:
        return "resharding"
    if seen.command in {"up", "promote", "rollback", "restart"} or seen.state.restarting:
        return "rolling_back" if seen.command == "rollback" else "deploying"
    names = [part.name for part in _parts(seen.state)] + [shard.name for shard in seen.state.shards]
    well = seen.supervised and seen.state.up and all(map(seen.well, names))
    return "steady" if well else "degraded"


def _common(seen: _Seen, name: str) -> Status:
    running, used = seen.running.get(name, _GONE), seen.usage.get(name, Usage())
    return {
        "healthy": seen.well(name),
        "pid": running.pid if running.up else None,
        "container": running.container,
        **({"node": seen.state.places[name].node} if name in seen.state.places else {}),
        "rss_bytes": used.rss_bytes,
        "cpu_percent": used.cpu_percent,
        **({"memory_limit_bytes": used.memory_limit_bytes} if used.memory_limit_bytes else {}),
        **({"cpu_limit_percent": used.cpu_limit_percent} if used.cpu_limit_percent else {}),
    }


_NEAR = 0.8
"""Of a limit: beyond that, one is told."""


def _warnings(seen: _Seen) -> list[str]:
    """Say which parts are near their limits, what befell others, and what is near its end."""
    found = [
        f"{name}: {running.note}; `inv logs {name}`" for name, running in sorted(seen.running.items()) if running.note
    ]
    if seen.certificate:
        found.append(seen.certificate)
    deployment = seen.state.deployed.get(seen.state.active)
    if deployment and deployment.layer:
        found.append(
            f"CHANNEL_LAYERS of {seen.state.spec.app} has {deployment.layer}, not shards.layer.ShardedChannelLayer: "
            "this fleet carries no group of it from replica to replica"
        )
    if seen.state.restarting and seen.command is None:
        name = seen.state.restarting
        found.append(
            f"a restart of {name} stopped half-way: `inv restart {name}` goes on, `inv up` takes away what stands in"
        )
    if seen.command is None and not seen.registry.resharding and (lacking := _lacking(seen)):
        least, project = 1 + max(shard.number for shard in lacking), seen.state.spec.project
        names = ", ".join(shard.name for shard in lacking)
        found.append(
            f"slots belong to {names}, which this fleet does not have, so no replica gets ready: have Compose run a "
            f"file with as many (`inv render --into DIR --shards {least}`), or `inv down`, then "
            f"`inv up --engine docker --project {project}` goes on with the data"
        )
    for name, used in sorted(seen.usage.items()):
        memory, cpu = used.memory_limit_bytes, used.cpu_limit_percent
        if memory and used.rss_bytes >= _NEAR * memory:
            found.append(f"{name} uses {used.rss_bytes / memory:.0%} of the memory it may ({memory / 2**20:,.0f} MB)")
        if cpu and used.cpu_percent >= _NEAR * cpu:
            found.append(f"{name} uses {used.cpu_percent / cpu:.0%} of the CPU it may ({cpu / 100:g} cores)")
    return found


def _lacking(seen: _Seen) -> list[FleetShard]:
    """Give the shards in containers that own slots though the fleet has none of that name.

    So it is where Compose runs a file on data that was resharded. Servers that run elsewhere may answer all the same.
    """
    table = seen.registry.table
    if table is None or seen.state.spec.engine != "docker":
        return []
    known, owners = {shard.name for shard in seen.state.shards}, set(table.owner_names())
    own = [shard.name for shard in table.shards if urlsplit(shard.url).hostname == shard.name]
    return [FleetShard(name) for name in own if name in owners - known]


def _edge(seen: _Seen, part: EdgePart) -> Status:
    return {"name": part.name, **_common(seen, part.name)}


def _replica(seen: _Seen, part: ReplicaPart) -> Status:
    workers = seen.registry.workers
    mine = [worker for worker in workers or () if worker.replica == part.name]
    return {
        "name": part.name,
        "color": part.color,
        "state": _replica_state(seen, part, mine),
        "workers": part.workers,
        "port": part.port,
        "connections": sum(worker.connections for worker in mine) if workers is not None else None,
        "release": _release(seen, part, mine),
        **_common(seen, part.name),
    }


def _release(seen: _Seen, part: ReplicaPart, workers: Sequence[WorkerRecord]) -> str | None:
    """Which release a replica runs, as its workers say: one that was started again may run another than its color's."""
    if not workers:
        return part.release if seen.registry.workers is None else None
    return ", ".join(sorted({worker.release for worker in workers}))


def _replica_state(seen: _Seen, part: ReplicaPart, workers: Sequence[WorkerRecord]) -> str:
    if not seen.running.get(part.name, _GONE).up:
        return "down"
    said = {worker.state for worker in workers}
    for state in ("draining", "starting", "ready", "active", "retired"):
        if state in said:
            return state
    if seen.registry.workers is None and seen.well(part.name):
        return "active" if part.color == seen.state.active else "ready"
    return "starting"


def _shard(seen: _Seen, shard: FleetShard) -> Status:
    """A shard is what its primary is; `servers` are the two of a pair."""
    table, name = seen.registry.table, shard.name
    primary = seen.primaries.get(name, name)
    servers = [] if shard.url else layout.server_names(seen.state, name)
    return {
        "name": name,
        "state": "active" if seen.well(primary) else "down",
        "slots": len(table.slots_of(name)) if table else None,
        "clients": seen.clients.get(primary),
        "url": layout.as_shard(seen.state, shard).url,
        **_common(seen, primary),
        "servers": [_server(seen, server, primary) for server in servers] if len(servers) > 1 else [],
    }


def _server(seen: _Seen, name: str, primary: str) -> Status:
    return {"name": name, "role": "primary" if name == primary else "copy", **_common(seen, name)}


def _redis(seen: _Seen, name: str) -> Status:
    return {"name": name, "clients": seen.clients.get(name), **_common(seen, name)}
