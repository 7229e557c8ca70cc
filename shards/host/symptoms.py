"""What ails a fleet that runs, by what one meets: from the evidence found to a verdict and what to do. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from shards.host.checks import TUNE, Verdict

NEAR = 0.8
"""Of a limit: beyond that, one is told."""

FILES, REFUSED, MEMORY, CPU = "too many open files", "connection refused", "out of memory", "high CPU"
DISK = "disk full"

_SAID: Mapping[str, re.Pattern[str]] = {
    FILES: re.compile(r"too many open files|EMFILE|\[Errno 24\]", re.IGNORECASE),
    # A worker without a file left takes who comes and closes at once: all that is seen of it is how its edges find it.
    REFUSED: re.compile(
        r"connection refused|ECONNREFUSED|max number of clients reached"
        r"|Health check failed.*(?:connection reset|\bEOF\b)",
        re.IGNORECASE,
    ),
    MEMORY: re.compile(r"out of memory|cannot allocate memory|\bMemoryError\b|OOM command not allowed", re.IGNORECASE),
    DISK: re.compile(r"no space left on device|ENOSPC|short write while writing", re.IGNORECASE),
}


@dataclass(frozen=True)
class PartSeen:
    """A part of the fleet, as it is now.

    Attributes:
        name: of it.
        healthy: it answers.
        files: that its process has open which has the fewest left; None: unknown.
        files_limit: how many that may.
        rss_bytes: its memory.
        memory_limit_bytes: the most it may have; None: there is no limit.
        cpu_percent: of one core.
        cores: that it can make use of.
        busiest_percent: of one core, that one of its several workers which uses the most; 0: unknown, or it has one.
        oom_killed: the kernel has killed a process of it for want of memory.
        throttled: times it was held up, since it had used the CPU that it may.
    """

    name: str
    healthy: bool = True
    files: int | None = None
    files_limit: int | None = None
    rss_bytes: int = 0
    memory_limit_bytes: int | None = None
    cpu_percent: float = 0.0
    cores: float = 1.0
    busiest_percent: float = 0.0
    oom_killed: bool = False
    throttled: int = 0


@dataclass(frozen=True)
class RedisSeen:
    """What a Redis server says of itself.

    Attributes:
        name: of it.
        clients: that it has.
        maxclients: that it takes.
        rejected: that it has turned away since it started.
        rejecting: those of them that it has turned away while one looked.
        used_bytes: its data.
        maxmemory_bytes: the most it may have; 0: there is no limit.
        unwritten: it could not write its append-only file the last time, and takes no writes.
    """

    name: str
    clients: int
    maxclients: int
    rejected: int
    used_bytes: int
    maxmemory_bytes: int
    unwritten: bool = False
    rejecting: int = 0


@dataclass(frozen=True)
class Evidence:
    """What was found.

    Attributes:
        parts: of the fleet.
        redis: its servers that answer.
        lines: the last that each part has said: (part, line).
        overflows: connections that were dropped since a backlog was full, by what the count began with: ``this host
            started``.
        oom_kills: processes that the kernel has killed for want of memory since the host started.
        busy_percent: of all the host's cores together.
        cores: of the host.
        memory_available: bytes; None: the parts are on other hosts, as far as one knows.
        memory_total: bytes.
        unseen: what could not be looked at, and why, by the symptom that might have shown.
    """

    parts: Sequence[PartSeen]
    redis: Sequence[RedisSeen] = ()
    lines: Sequence[tuple[str, str]] = ()
    overflows: Mapping[str, int] = field(default_factory=dict)
    oom_kills: int = 0
    busy_percent: float = 0.0
    cores: int = 1
    memory_available: int | None = None
    memory_total: int = 1
    unseen: Mapping[str, Sequence[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Symptom:
    """Something one meets, and what speaks for it.

    Attributes:
        name: as one meets it.
        verdict: ``fail``: it is so now; ``warn``: it was, or nearly is; ``unknown``: nothing speaks for it, but not
            all could be looked at; ``ok``: nothing speaks for it.
        evidence: what was found.
        mend: what to do about it.
    """

    name: str
    verdict: Verdict
    evidence: list[str] = field(default_factory=list)
    mend: str = ""


Found = tuple[Verdict, str]

_WORST_FIRST: Sequence[Verdict] = ("fail", "warn", "unknown", "ok")


def symptoms(evidence: Evidence) -> list[Symptom]:
    """Judge the evidence: a verdict for each symptom, the worst that anything speaks for."""
    return [_symptom(name, [*look(evidence), *_unseen(evidence, name)], mend) for name, look, mend in _TABLE]


def _unseen(evidence: Evidence, name: str) -> Iterable[Found]:
    for what in evidence.unseen.get(name, ()):
        yield "unknown", f"not looked at: {what}"


def _symptom(name: str, found: Sequence[Found], mend: str) -> Symptom:
    worst: Verdict = min((verdict for verdict, _ in found), key=_WORST_FIRST.index, default="ok")
    return Symptom(name, worst, [text for _, text in found], mend if worst in {"fail", "warn"} else "")


def _files(evidence: Evidence) -> Iterable[Found]:
    for part in evidence.parts:
        if part.files is not None and part.files_limit and part.files >= NEAR * part.files_limit:
            text = f"{part.name} has {part.files:,} of {part.files_limit:,} files open"
            yield ("fail" if part.files_limit - part.files < 20 else "warn"), text
    yield from _said(evidence, FILES)


def _refused(evidence: Evidence) -> Iterable[Found]:
    for part in evidence.parts:
        if not part.healthy:
            yield "fail", f"{part.name} does not answer"
    for server in evidence.redis:
        if server.rejecting:
            yield "fail", f"{server.name} has turned away {server.rejecting:,} clients just now (rejected_connections)"
        elif server.rejected:
            said = f"{server.name} has turned away {server.rejected:,} clients since it started (rejected_connections)"
            yield "warn", said
        if server.clients >= NEAR * server.maxclients:
            full: Verdict = "fail" if server.clients >= server.maxclients else "warn"
            yield full, f"{server.name} has {server.clients:,} of {server.maxclients:,} clients"
    for began, count in evidence.overflows.items():
        if count:
            yield "warn", f"{count:,} connections met a full backlog since {began} (ListenOverflows)"
    yield from _said(evidence, REFUSED)


def _memory(evidence: Evidence) -> Iterable[Found]:
    for part in evidence.parts:
        if part.oom_killed:
            yield "fail", f"the kernel has killed a process of {part.name} for want of memory (OOMKilled)"
        limit = part.memory_limit_bytes
        if limit and part.rss_bytes >= NEAR * limit:
            yield "warn", f"{part.name} uses {part.rss_bytes / limit:.0%} of the {limit / 1e9:,.1f} GB that it may"
    for server in evidence.redis:
        if server.maxmemory_bytes and server.used_bytes >= NEAR * server.maxmemory_bytes:
            yield "warn", f"{server.name} holds {server.used_bytes / server.maxmemory_bytes:.0%} of its maxmemory"
    if evidence.oom_kills:
        yield (
            "warn",
            f"the kernel has killed {evidence.oom_kills} processes, of whomever, since this host started (oom_kill)",
        )
    available = evidence.memory_available
    if available is not None and available < (1 - NEAR) * evidence.memory_total / 2:
        yield "warn", f"{available / 1e9:,.1f} GB of memory are left on this host"
    yield from _said(evidence, MEMORY)


def _cpu(evidence: Evidence) -> Iterable[Found]:
    for part in evidence.parts:
        if part.cpu_percent >= NEAR * 100 * part.cores:
            yield "fail", f"{part.name} uses {part.cpu_percent:,.0f} % of a core, of the {part.cores * 100:,.0f} it can"
        elif part.busiest_percent >= NEAR * 100:
            yield "fail", f"a worker of {part.name} uses {part.busiest_percent:,.0f} % of a core, of the 100 it can"
        if part.throttled:
            yield "warn", f"{part.name} was held up {part.throttled:,} times by its CPU limit (nr_throttled)"
    if evidence.busy_percent >= NEAR * 100:
        yield "fail", f"the {evidence.cores} cores of this host are {evidence.busy_percent:.0f} % busy"


def _disk(evidence: Evidence) -> Iterable[Found]:
    for server in evidence.redis:
        if server.unwritten:
            yield "fail", f"{server.name} can't write its append-only file, and takes no writes (aof_last_write_status)"
    yield from _said(evidence, DISK)


def _said(evidence: Evidence, name: str) -> Iterable[Found]:
    """Quote the last line of each part that speaks of it: that was, and may be over."""
    last: dict[str, tuple[int, str]] = {}
    for part, line in evidence.lines:
        if _SAID[name].search(line):
            last[part] = (last.get(part, (0, ""))[0] + 1, line)
    for part, (count, line) in last.items():
        times = "time" if count == 1 else "times"
        yield "warn", f"{part} said so {count:,} {times}, last: {line.strip()[:200]}"


_BACKLOGS = f"{TUNE} for backlogs of this host, inv down and inv up for those of containers"

_TABLE: Sequence[tuple[str, Callable[[Evidence], Iterable[Found]], str]] = (
    (FILES, _files, "more edges or replicas (inv up --edges N --replicas N), or a higher nofile: see the line above"),
    (REFUSED, _refused, f"inv logs NAME of what does not answer, inv up; {_BACKLOGS}; maxclients for Redis"),
    (
        MEMORY,
        _memory,
        "more memory, fewer sockets, or in containers a higher limit (INVOKE_DOCKER_APP_MEMORY and its like)",
    ),
    (DISK, _disk, "make room before any Redis server is killed or started again: what it acked last is in its memory"),
    (CPU, _cpu, "inv up --replicas N or inv reshard --shards N while cores are idle; else more cores or hosts"),
)
