"""What one meets is told with what speaks for it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from shards.host.symptoms import CPU, DISK, FILES, MEMORY, REFUSED, Evidence, PartSeen, RedisSeen, Symptom, symptoms

UNHEALTHY = 'WRN Health check failed. error="HTTP request failed: Get \\"http://127.0.0.1:20007/\\": {}"'

WELL = Evidence(
    [PartSeen("edge-0", files=500, files_limit=20_000), PartSeen("blue-0", files=300, files_limit=20_000)],
    [RedisSeen("shared-0", 9, 19_968, 0, 10**6, 0)],
    [("blue-0", "all is well")],
    cores=2,
    memory_available=8 * 10**9,
    memory_total=10**10,
)


def symptom(name: str, **found: object) -> Symptom:
    evidence = replace(WELL, **found)  # type: ignore[arg-type]
    told = {one.name: one for one in symptoms(evidence)}
    # One thing speaks for one symptom.
    assert all(one.verdict == "ok" for one in told.values() if one.name != name)
    return told[name]


def test_a_fleet_that_is_well_has_none() -> None:
    for one in symptoms(WELL):
        assert (one.verdict, one.evidence, one.mend) == ("ok", [], "")


@pytest.mark.parametrize(
    ("name", "found", "verdict", "evidence"),
    [
        (FILES, {"parts": [PartSeen("edge-0", files=19_990, files_limit=20_000)]}, "fail", "19,990 of 20,000 files"),
        (FILES, {"parts": [PartSeen("edge-0", files=17_000, files_limit=20_000)]}, "warn", "17,000 of 20,000 files"),
        (FILES, {"lines": [("edge-0", "accept tcp [::]:8000: accept4: too many open files")]}, "warn", "accept4"),
        (FILES, {"lines": [("blue-0", "OSError: [Errno 24] Too many open files")]}, "warn", "Errno 24"),
        (REFUSED, {"parts": [PartSeen("blue-0", healthy=False)]}, "fail", "blue-0 does not answer"),
        (
            REFUSED,
            {"redis": [RedisSeen("redis_blue", 9, 100, 3, 1, 0)]},
            "warn",
            "redis_blue has turned away 3 clients since it started (",
        ),
        (
            REFUSED,
            {"redis": [RedisSeen("redis_blue", 9, 100, 3, 1, 0, rejecting=2)]},
            "fail",
            "turned away 2 clients just now (",
        ),
        (REFUSED, {"redis": [RedisSeen("redis_blue", 100, 100, 0, 1, 0)]}, "fail", "100 of 100 clients"),
        (REFUSED, {"redis": [RedisSeen("redis_blue", 90, 100, 0, 1, 0)]}, "warn", "90 of 100 clients"),
        (REFUSED, {"overflows": {"this host started": 12}}, "warn", "full backlog since this host started"),
        (
            REFUSED,
            {"overflows": {"the network of edge-0 was made": 12}},
            "warn",
            "12 connections met a full backlog since the network of edge-0 was made",
        ),
        (REFUSED, {"lines": [("edge-0", "dial tcp 127.0.0.1:20001: connect: connection refused")]}, "warn", "dial tcp"),
        (REFUSED, {"lines": [("edge-0", UNHEALTHY.format("read: connection reset by peer"))]}, "warn", "reset by peer"),
        (REFUSED, {"lines": [("edge-0", UNHEALTHY.format("EOF"))]}, "warn", "EOF"),
        (MEMORY, {"parts": [PartSeen("blue-0", oom_killed=True)]}, "fail", "OOMKilled"),
        (MEMORY, {"parts": [PartSeen("blue-0", rss_bytes=90, memory_limit_bytes=100)]}, "warn", "90%"),
        (MEMORY, {"redis": [RedisSeen("shared-0", 9, 100, 0, 90, 100)]}, "warn", "90% of its maxmemory"),
        (MEMORY, {"oom_kills": 2}, "warn", "killed 2 processes"),
        (MEMORY, {"memory_available": 10**8}, "warn", "0.1 GB of memory are left"),
        (MEMORY, {"lines": [("shared-0", "Can't save: fork: Cannot allocate memory")]}, "warn", "fork"),
        (DISK, {"redis": [RedisSeen("shared-0", 9, 100, 0, 1, 0, unwritten=True)]}, "fail", "shared-0 can't write"),
        (
            DISK,
            {"lines": [("shared-0", "# Short write while writing to the AOF file: (nwritten=28)")]},
            "warn",
            "nwritten",
        ),
        (DISK, {"lines": [("blue-0", "OSError: [Errno 28] No space left on device")]}, "warn", "Errno 28"),
        (CPU, {"parts": [PartSeen("blue-0", cpu_percent=95)]}, "fail", "blue-0 uses 95 %"),
        (
            CPU,
            {"parts": [PartSeen("blue-0", cpu_percent=103, cores=2, busiest_percent=99)]},
            "fail",
            "a worker of blue-0 uses 99 % of a core",
        ),
        (CPU, {"parts": [PartSeen("edge-0", throttled=7)]}, "warn", "held up 7 times"),
        (CPU, {"busy_percent": 97.0}, "fail", "2 cores of this host are 97 % busy"),
    ],
)
def test_what_speaks_for_it_is_said(name: str, found: dict[str, object], verdict: str, evidence: str) -> None:
    told = symptom(name, **found)
    assert told.verdict == verdict
    assert evidence in told.evidence[0]
    assert told.mend


def test_what_could_not_be_looked_at_is_not_called_well() -> None:
    told = symptom(FILES, unseen={FILES: ["edge-0, blue-0: another user's process"]})
    assert (told.verdict, told.evidence) == ("unknown", ["not looked at: edge-0, blue-0: another user's process"])


def test_what_is_known_to_be_wrong_outweighs_what_is_not_known() -> None:
    full = [PartSeen("blue-0", files=19_990, files_limit=20_000)]
    told = symptom(FILES, parts=full, unseen={FILES: ["edge-0: another user's process"]})
    assert (told.verdict, len(told.evidence)) == ("fail", 2)
    assert told.mend


def test_a_counter_of_another_network_that_is_0_says_nothing() -> None:
    assert symptom(REFUSED, overflows={"this host started": 0}).verdict == "ok"


def test_memory_of_a_host_that_nobody_looked_at_is_not_short() -> None:
    assert symptom(MEMORY, memory_available=None).verdict == "ok"


def test_a_part_that_may_use_several_cores_is_not_busy_with_one() -> None:
    assert symptom(CPU, parts=[PartSeen("blue-0", cpu_percent=95, cores=2)]).verdict == "ok"


def test_lines_are_counted_and_the_last_one_quoted() -> None:
    told = symptom(FILES, lines=[("edge-0", f"accept {i}: too many open files") for i in range(3)])
    assert told.evidence == ["edge-0 said so 3 times, last: accept 2: too many open files"]
