"""A swarm has what those of its nodes have that take parts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from shards.errors import ShardsError
from shards.fleet.engines.docker.options import DockerOptions
from shards.fleet.engines.local import LocalOptions
from shards.fleet.fleet import Fleet
from shards.fleet.spec import FleetSpec
from shards.fleet.state import FleetDir
from shards.host import nodes, plan
from shards.host.facts import DEFAULT_PORTS, limits_of
from shards.host.sysctl import Kernel
from tests.host.test_capacity import HOST


def node(cores: int, gigabytes: int, state: str = "ready", availability: str = "active") -> dict[str, Any]:
    resources = {"NanoCPUs": cores * 10**9, "MemoryBytes": gigabytes * 10**9}
    return {
        "Description": {"Resources": resources},
        "Status": {"State": state},
        "Spec": {"Availability": availability},
    }


def test_nodes_are_added_up_as_far_as_they_take_parts() -> None:
    said = [node(4, 16), node(2, 8), node(64, 256, state="down"), node(64, 256, availability="drain")]
    assert nodes.cores_and_memory(said) == (6, 24 * 10**9)


def test_a_swarm_without_such_a_node_is_no_host_of_nothing() -> None:
    with pytest.raises(ShardsError, match="docker node ls"):
        nodes.cores_and_memory([node(4, 16, state="down")])


def test_a_fleet_in_a_swarm_is_limited_by_the_nodes_and_not_by_this_host(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nodes, "ask", lambda: (96, 10**12))
    spec, docker = FleetSpec(engine="swarm"), DockerOptions(tmp_path)
    host = plan.host_of(spec, docker, tmp_path)
    assert (host.cores, host.memory_bytes, host.descriptors, host.ports) == (96, 10**12, docker.nofile, DEFAULT_PORTS)
    # What the engine has found out, once a fleet was started.
    (tmp_path / "swarm").mkdir()
    (tmp_path / "swarm" / "nofile").write_text("20000")
    assert plan.host_of(spec, docker, tmp_path).descriptors == 20_000
    assert plan.parts_of(spec, 1, docker).edge_memory_bytes == docker.edge.memory_bytes


def test_what_is_of_this_host_is_not_taken_for_what_the_nodes_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nodes, "ask", lambda: (96, 10**12))
    host = plan.host_of(FleetSpec(engine="swarm"), DockerOptions(tmp_path), tmp_path)
    seen = limits_of("swarm", host)
    assert (seen.somaxconn, seen.conntrack, seen.memory_available, seen.synchronised) == (None, None, None, None)


def test_the_backlog_of_this_host_is_not_taken_for_that_of_its_containers() -> None:
    assert limits_of("local", HOST).somaxconn == Kernel().number("net.core.somaxconn")
    seen = limits_of("docker", HOST)
    assert (seen.somaxconn, seen.synchronised) == (None, limits_of("local", HOST).synchronised)


async def test_a_swarm_that_does_not_answer_stops_no_one_who_starts_a_fleet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def silent() -> tuple[int, int]:
        raise ShardsError("no Docker daemon answers")

    monkeypatch.setattr(nodes, "ask", silent)
    fleet = Fleet(FleetDir(tmp_path, "t"), LocalOptions(tmp_path), print)
    (said,) = await plan.forewarned(fleet, FleetSpec(engine="swarm", connections=5_000))
    assert said == "whether 5,000 sockets fit could not be told: no Docker daemon answers"
