"""`inv doctor`: what a host holds, in lines or as one JSON object, the answer first."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace

import pytest

from shards.descriptors import descriptor_limit
from shards.fleet.spec import edges_for
from shards.host.capacity import Fleet, measured_costs
from shards.host.checks import Facts, Use
from shards.host.doctor import examine, lines, warnings
from shards.host.facts import this_host, usable_ports, version_of
from shards.host.sysctl import Kernel
from shards.load.scenarios import repository
from tests.host.test_capacity import BIG, HOST

VERSIONS = {"python": "3.11.7", "redis-server": "7.0.15", "traefik": "3.7.15", "docker": None}
FACTS = Facts(HOST, "local", 1024, False, 4096, (500, 262_144), 20 * 10**9, 19_968, True, 10**11, VERSIONS)
COSTS = measured_costs()


def doctor(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "invoke", "doctor", *arguments]
    return subprocess.run(
        command,
        cwd=repository(),
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_this_host_is_looked_at() -> None:
    host = this_host()
    assert host.cores >= 1
    assert host.memory_bytes > 10**8
    assert host.descriptors >= 256
    assert host.ports > 1000


def test_the_answer_names_the_limit_and_the_edges() -> None:
    found = examine(10_000, 10_000, COSTS, FACTS, Fleet())
    assert (found["fits"], found["limit"], found["edges"]) == (True, "nofile", 2)
    assert found["answer"] == "this host can hold 19,500 sockets with 2 edges; the limit is nofile: 10,000 fit"
    assert lines(found)[0] == found["answer"]


def test_what_a_number_of_edges_promises_is_the_edge_of_what_fits() -> None:
    one = Fleet(edges=1)
    promised = examine(1, 1, COSTS, FACTS, one)["holds"]["sockets"]
    assert examine(promised, 1000, COSTS, FACTS, one)["fits"]
    assert not examine(promised + 1, 1000, COSTS, FACTS, one)["fits"]
    beyond = examine(promised * 12 // 10, 1000, COSTS, FACTS, one)
    check = next(check for check in beyond["checks"] if check["name"] == "nofile")
    assert check["verdict"] == "fail"
    assert "inv up --edges 2" in check["mend"]


def test_messages_that_the_cpu_does_not_carry_are_told_apart_from_sockets() -> None:
    found = examine(10_000, 1_000_000, COSTS, FACTS, Fleet())
    assert not found["fits"]
    assert "10,000 would fit, but not with 1,000,000 messages a second" in found["answer"]
    carries = found["holds"]["messages_per_s"]
    assert examine(10_000, carries, COSTS, FACTS, Fleet())["fits"]


@pytest.mark.parametrize(
    ("facts", "fleet", "limit"),
    [
        (FACTS, Fleet(edges=16, replicas=1), "nofile"),
        (replace(FACTS, host=BIG), Fleet(edges=16, replicas=1), "ports"),
        (replace(FACTS, host=replace(BIG, memory_bytes=10**9)), Fleet(edges=2), "memory"),
        (replace(FACTS, memory_available=10**9), Fleet(edges=2), "memory"),
        (replace(FACTS, conntrack=(250_000, 262_144)), Fleet(), "conntrack"),
        (FACTS, Fleet(edges=2, replica_memory_bytes=100 * 10**6), "container memory"),
    ],
)
def test_the_resource_that_ends_first_is_the_limit(facts: Facts, fleet: Fleet, limit: str) -> None:
    assert examine(10_000, 1, COSTS, facts, fleet)["limit"] == limit


def test_what_was_found_can_be_made_into_lines_for_a_million_sockets_too() -> None:
    found = examine(1_000_000, 1_000_000, COSTS, FACTS, Fleet())
    told = "\n".join(lines(found))
    assert found["answer"].endswith("1,000,000 do not fit")
    for word in (
        "edges: 103 (for their descriptors",
        "replicas: ",
        "shards: ",
        "hosts like this one: ",
        "extrapolation",
    ):
        assert word in told


def test_memory_that_others_use_is_not_promised_to_anybody() -> None:
    """22 of 24 GB are taken: what is left holds the base of each process, and 146.6 kB a socket."""
    found = examine(10_000, 1, COSTS, replace(FACTS, memory_available=2 * 10**9), Fleet(edges=2))
    assert (found["fits"], found["limit"]) == (True, "memory")
    assert 10_000 < found["holds"]["sockets"] < 13_000
    assert "2.0 GB of memory that others leave" in found["holds"]["limits"][0]["of"]
    assert not examine(13_000, 1, COSTS, replace(FACTS, memory_available=2 * 10**9), Fleet(edges=2))["fits"]


def test_a_fleet_that_holds_its_sockets_is_not_told_that_they_do_not_fit() -> None:
    """Its entries and its memory are in use, by itself."""
    host = replace(HOST, descriptors=65_536)
    full = replace(FACTS, host=host, conntrack=(140_500, 262_144), memory_available=8 * 10**9)
    fleet = Fleet(edges=3, replicas=4)
    assert not examine(70_000, 1, COSTS, full, fleet)["fits"]
    assert examine(70_000, 1, COSTS, replace(full, own=Use(70_000, 10 * 10**9)), fleet)["fits"]


def test_what_the_costs_leave_out_is_said() -> None:
    assert "without TLS" in lines(examine(10_000, 1, COSTS, FACTS, Fleet()))[-1]


def test_the_nodes_of_a_swarm_are_not_called_this_host() -> None:
    found = examine(1_000_000, 1, COSTS, replace(FACTS, engine="swarm"), Fleet())
    told = "\n".join(lines(found))
    assert found["answer"].startswith("this swarm can hold ")
    assert "swarms like this one: " in told
    assert "this host" not in told


def test_who_starts_a_fleet_that_fits_is_told_nothing() -> None:
    assert warnings(10_000, Fleet(edges=2), COSTS, FACTS) == []


def test_who_starts_a_fleet_that_does_not_fit_is_told_which_check_fails_and_what_mends_it() -> None:
    first, second = warnings(10_000, Fleet(edges=1), COSTS, FACTS)
    assert first.startswith("this host can hold 9,750 of 10,000 sockets (nofile: 1 edge")
    assert second.startswith("nofile: ")
    assert "→ inv up --edges 2" in second
    assert not [line for line in (first, second) if "\n" in line]


@pytest.mark.parametrize(
    ("facts", "name"),
    [
        ({"somaxconn": 128}, "somaxconn"),
        ({"disk_free": 10**6}, "disk"),
        ({"maxclients": 100}, "maxclients"),
        ({"versions": {"traefik": "2.11.0"}}, "traefik"),
    ],
)
def test_who_starts_a_fleet_hears_of_more_than_limits(facts: dict[str, object], name: str) -> None:
    (said,) = warnings(10_000, Fleet(edges=2), COSTS, replace(FACTS, **facts))  # type: ignore[arg-type]
    assert said.startswith(f"{name}: ")
    assert " → " in said


def test_what_up_refuses_by_itself_or_has_no_bearing_on_sockets_is_not_said_twice() -> None:
    assert warnings(10_000, Fleet(edges=2), COSTS, replace(FACTS, synchronised=False)) == []
    assert warnings(10_000, Fleet(edges=2), COSTS, replace(FACTS, versions={"traefik": None})) == []


@pytest.mark.parametrize(
    ("days", "have", "verdict"),
    [(15, "expires in 15 days", "ok"), (14, "expires in 14 days", "warn"), (-3, "expired 3 days ago", "fail")],
)
def test_the_certificate_of_a_fleet_that_runs_is_looked_at(days: int, have: str, verdict: str) -> None:
    found = examine(10_000, 10_000, COSTS, replace(FACTS, certificate_s=days * 86_400.0), Fleet())
    (check,) = [check for check in found["checks"] if check["name"] == "certificate"]
    assert (check["have"], check["verdict"]) == (have, verdict)
    assert check["need"].startswith("more than 14 days")
    assert check["mend"] == ("" if days == 15 else "renew it, then inv up --tls-certificate FILE --tls-key FILE")
    assert found["fits"] is (days > 0), "nobody gets in who is shown one that is over"


def test_a_fleet_without_tls_has_no_certificate_to_look_at() -> None:
    assert "certificate" not in {check["name"] for check in examine(1, 1, COSTS, FACTS, Fleet())["checks"]}


def test_ports_that_are_reserved_do_not_count(tmp_path: object) -> None:
    class Told(Kernel):
        def read(self, key: str) -> str | None:
            return {"net.ipv4.ip_local_port_range": "1024 65535"}.get(key, "80,8000-8100,20000-32000")

    assert usable_ports(Told()) == 64_512 - 101 - 12_001


@pytest.mark.parametrize(
    ("said", "version"),
    [
        ("Redis server v=7.0.15 sha=00000000:0 malloc=jemalloc", "7.0.15"),
        ("Version:      3.7.15\nCodename:  x", "3.7.15"),
        ("no idea", None),
    ],
)
def test_programs_are_asked_for_their_versions(said: str, version: str | None) -> None:
    assert version_of(["printf", "%s", said]) == version


def test_a_program_that_is_not_there_has_no_version() -> None:
    assert version_of(["/nowhere/redis-server", "--version"]) is None


def test_json_is_one_object() -> None:
    done = doctor("--connections", "10000", "--project", "none-such", "--json")
    found = json.loads(done.stdout)
    assert done.returncode == (0 if found["fits"] else 1)
    assert found["edges"] == edges_for(10_000, descriptor_limit())
    assert {"nofile", "ports", "somaxconn", "conntrack", "memory", "cpu", "maxclients", "clock", "disk"} <= {
        check["name"] for check in found["checks"]
    }
    assert found["needed"]["tiers"]["edges"]["count"] >= 1
    assert found["fleet"] is None


def test_what_does_not_fit_is_exit_1() -> None:
    beyond = str((descriptor_limit() - 500) // 2 + 1)
    done = doctor("--connections", beyond, "--rate", "1", "--project", "none-such", INVOKE_FLEET_EDGES="1")
    assert done.returncode == 1
    assert "the limit is nofile" in done.stdout.splitlines()[0]
    assert "FAIL  nofile" in done.stdout


@pytest.mark.parametrize("arguments", [("--connections", "0"), ("--connections", "many"), ("--rate", "-1")])
def test_wrong_numbers_are_one_line(arguments: tuple[str, ...]) -> None:
    done = doctor(*arguments)
    assert done.returncode == 2
    assert "must be a whole number from 1" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
