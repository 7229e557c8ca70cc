"""A fleet, as its spec has it, on this host: which parts count, and what limits them."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path

from shards.errors import ShardsError
from shards.fleet.engines.docker.options import DockerOptions
from shards.fleet.spec import FleetSpec
from shards.host.capacity import Fleet, Host, measured_costs
from shards.host.doctor import warning
from shards.host.facts import limits_of, this_host

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
    if spec.engine != "docker":
        return parts
    return replace(parts, edge_memory_bytes=docker.edge.memory_bytes, replica_memory_bytes=docker.app.memory_bytes)


def host_of(spec: FleetSpec, docker: DockerOptions, directory: Path) -> Host:
    """Look at this host as a fleet's parts meet it: in containers, files and ports are what the engine gives.

    Args:
        spec: the fleet.
        docker: what containers may use.
        directory: the fleet's, where the engine notes how many files a container can have.
    """
    host = this_host()
    if spec.engine != "docker":
        return host
    nofile = docker.nofile
    with contextlib.suppress(OSError, ValueError):
        nofile = int((directory / "docker" / "nofile").read_text())
    return replace(host, descriptors=nofile, ports=_CONTAINER_PORTS)


def shortfall(spec: FleetSpec, docker: DockerOptions, directory: Path) -> str | None:
    """Say in one line that the host does not hold what a fleet is for; None: it does, or that can't be told."""
    with contextlib.suppress(ShardsError, OSError, ValueError):
        facts = limits_of(spec.engine, host_of(spec, docker, directory))
        return warning(spec.connections, parts_of(spec, spec.edges, docker), measured_costs(), facts)
    return None
