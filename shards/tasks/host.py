"""Commands about the host: doctor."""

from __future__ import annotations

import asyncio
import contextlib
import json as jsonlib
import time
from dataclasses import replace
from typing import Any

from invoke.context import Context
from invoke.exceptions import Exit
from invoke.tasks import task

from shards.descriptors import descriptor_limit
from shards.errors import ShardsError, UsageError
from shards.fleet import certificate
from shards.fleet import status as looking
from shards.fleet.engines.docker.options import DockerOptions
from shards.fleet.fleet import Fleet
from shards.fleet.spec import FleetSpec
from shards.fleet.state import FleetState
from shards.host import doctor as examining
from shards.host.capacity import measured_costs
from shards.host.evidence import gather, kernels_inside
from shards.host.facts import facts
from shards.host.plan import files_of, host_of, parts_of
from shards.host.running import use
from shards.host.symptoms import symptoms
from shards.tasks.console import given, run, setting
from shards.tasks.fleet import DEBUG, PROJECT, fleet_of

_MOST = 1_000_000_000
_PARTS = ("replicas", "workers", "shards", "edges", "engine")


@task(
    auto_shortflags=False,
    help={
        "connections": "sockets to hold (default: as the fleet is set to, 10000)",
        "rate": "messages delivered a second, to all of them together (default: one to each)",
        "engine": "where the fleet would run: local (default), docker, swarm",
        "project": f"{PROJECT}; where it runs, it is looked at too",
        "json": "print one JSON object",
        "debug": DEBUG,
    },
)
def doctor(
    context: Context,
    connections: str | None = None,
    rate: str | None = None,
    engine: str | None = None,
    project: str | None = None,
    json: bool = False,
    debug: bool = False,
) -> None:
    """Tell what this host can hold, what stops it and what to do; of a fleet that runs, also what ails it."""

    async def work() -> bool:
        sockets = _number("--connections", str(setting(context, "fleet", "connections", connections)))
        delivered = _number("--rate", rate) if rate is not None else sockets
        with fleet_of(context, project) as fleet:
            found = await _examine(context, fleet, engine, sockets, delivered)
        print(jsonlib.dumps(found) if json else "\n".join(examining.lines(found)), flush=True)
        return bool(found["fits"])

    if not run(work(), debug=debug):
        raise Exit(code=1)


async def _examine(
    context: Context, fleet: Fleet, engine: str | None, sockets: int, delivered: float
) -> dict[str, Any]:
    state = fleet.remembered()
    spec, edges = _spec(context, engine, state if state and state.up else None)
    docker = DockerOptions.read(fleet.options.root, dict(context.config["docker"]))
    status = await looking.status(fleet)
    parts, host = parts_of(spec, edges, docker), host_of(spec, docker, fleet.directory.path)
    looked = await asyncio.to_thread(
        facts, spec.engine, host, fleet.directory.path, fleet.options.redis_server, fleet.options.traefik
    )
    if state is None or status["state"] == "down":
        return examining.examine(sockets, delivered, measured_costs(), looked, parts)
    looked = replace(looked, certificate_s=_certificate_s(fleet, state))
    if spec.engine == "docker":
        looked = replace(looked, containers=await asyncio.to_thread(kernels_inside, status))
    if state.spec.engine != "swarm":
        looked = replace(looked, own=use(status))
    evidence = await gather(fleet, state, status)
    looked = looked.started_with(await asyncio.to_thread(files_of, spec, status))
    if evidence.redis and spec.engine == state.spec.engine:
        looked = replace(looked, maxclients=min(server.maxclients for server in evidence.redis))
    ails = examining.seen(status, symptoms(evidence))
    return examining.examine(sockets, delivered, measured_costs(), looked, parts, ails)


def _certificate_s(fleet: Fleet, state: FleetState) -> float | None:
    # One that can't be read is among the warnings of the fleet's status.
    with contextlib.suppress(ShardsError):
        until = certificate.expires(fleet.directory, state.spec)
        return None if until is None else until - time.time()
    return None


def _spec(context: Context, engine: str | None, running: FleetState | None) -> tuple[FleetSpec, int | None]:
    """Give what the fleet is, or would be, and its edges; None: as many as the sockets take."""
    flags = {"engine": engine}
    values: dict[str, object] = {}
    for name in _PARTS:
        kept = running is not None and not given("fleet", name, flags.get(name))
        values[name] = (
            getattr(running.spec, name) if running and kept else setting(context, "fleet", name, flags.get(name))
        )
    counted = str(values["edges"]) == "auto"
    # Its edges are counted elsewhere: so many sockets may not fit, and that is an answer here.
    spec = FleetSpec.read({**values, "edges": 1} if counted else values, descriptor_limit())
    return spec, None if counted else spec.edges


def _number(flag: str, text: str) -> int:
    if not (text.isdecimal() and 0 < int(text) <= _MOST):
        raise UsageError(f"{flag} must be a whole number from 1 to {_MOST:,}, not {text!r}")
    return int(text)
