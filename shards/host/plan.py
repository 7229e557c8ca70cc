"""A fleet, as its spec has it, on this host or on the nodes of a swarm: which parts count, and what limits them."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace
from pathlib import Path

from shards.errors import ShardsError
from shards.fleet import status as looking
from shards.fleet.engines.docker.options import DockerOptions
from shards.fleet.fleet import Fleet as Commanded
from shards.fleet.spec import FleetSpec
from shards.fleet.status import DOWN, Status
from shards.host import nodes
from shards.host.capacity import Fleet, Host, measured_costs
from shards.host.checks import programs
from shards.host.doctor import warnings
from shards.host.evidence import files_limit
from shards.host.facts import DEFAULT_PORTS, facts, this_host
from shards.host.running import use

_CONTAINER_PORTS = 65_535 - 1024 + 1 - 101
"""The engine gives containers the ports 1024-65535, without those that parts listen on."""


def parts_of(spec: FleetSpec, edges: int | None, docker: DockerOptions) -> Fleet:
    """Give the parts of a fleet.

    Args:
        spec: what it is.
        edges: how many it has; None: as many as the sockets take.
        docker: what containers may use.
    """
    shards = spec.shards if isinstance(spec.shards, int) else len(spec.shards)
    parts = Fleet(edges, spec.replicas, spec.workers, shards)
    if spec.engine == "local":
        return parts
    return replace(parts, edge_memory_bytes=docker.edge.memory_bytes, replica_memory_bytes=docker.app.memory_bytes)


def host_of(spec: FleetSpec, docker: DockerOptions, directory: Path) -> Host:
    """Look at where a fleet's parts run as they meet it: in containers, files and ports are what the engine gives.

    Args:
        spec: the fleet.
        docker: what containers may use.
        directory: the fleet's, where the engine notes how many files a container can have.

    Raises:
        ShardsError: it is the nodes of a swarm, and its manager does not tell of them.
    """
    if spec.engine == "local":
        return this_host()
    nofile = docker.nofile
    with contextlib.suppress(OSError, ValueError):
        nofile = int((directory / spec.engine / "nofile").read_text())
    if spec.engine == "swarm":
        # Parts are in the networks of their nodes, whose ranges of ports nobody tells: as a kernel has it at first.
        return Host(*nodes.ask(), descriptors=nofile, ports=DEFAULT_PORTS)
    return replace(this_host(), descriptors=nofile, ports=_CONTAINER_PORTS)


async def forewarned(fleet: Commanded, wanted: FleetSpec) -> list[str]:
    """Say, before anything is started, what will not do where a fleet shall run: a line each, with what mends it.

    Nothing is refused here, and nothing raised: what can't be told is a line too.

    Args:
        fleet: which.
        wanted: what it shall be.
    """
    try:
        status = await _running(fleet)
        return await asyncio.to_thread(_forewarned, fleet, wanted, status)
    except (ShardsError, OSError, ValueError) as error:
        return [f"whether {wanted.connections:,} sockets fit could not be told: {error}"]


def files_of(spec: FleetSpec, status: Status) -> int | None:
    """Tell how many files the parts of a fleet may open where it runs on this host itself.

    Args:
        spec: what it is, or shall be.
        status: what `inv status` says of it.

    Returns:
        None: it does not run there, or nobody can tell.
    """
    return files_limit(status) if spec.engine == status.get("engine") == "local" else None


async def _running(fleet: Commanded) -> Status:
    state = fleet.directory.read()
    runs = state is not None and state.up and await fleet.engine(state.spec).alive()
    return await looking.status(fleet) if runs else DOWN


def _forewarned(fleet: Commanded, wanted: FleetSpec, status: Status) -> list[str]:
    docker, directory = fleet.docker or DockerOptions(fleet.options.root), fleet.directory.path
    host, asked = host_of(wanted, docker, directory), programs(wanted.engine)
    seen = facts(wanted.engine, host, directory, fleet.options.redis_server, fleet.options.traefik, asked)
    seen = replace(seen, own=use(status)).started_with(files_of(wanted, status))
    return warnings(wanted.connections, parts_of(wanted, wanted.edges, docker), measured_costs(), seen)
