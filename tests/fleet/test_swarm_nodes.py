"""Which part of a fleet goes to which node of a swarm, and what happens to that when nodes come and go."""

from __future__ import annotations

from dataclasses import replace

import pytest

from shards.errors import ShardsError
from shards.fleet.engines.swarm.nodes import Node, check, place, read
from shards.fleet.state import Place

MANAGER, *WORKERS = [Node(f"id{i}", f"n{i}", f"10.0.0.{i}", True, True, i == 1, 4) for i in (1, 2, 3)]
NODES = [MANAGER, *WORKERS]
REDIS = ["redis_blue", "redis_green", "redis_shared"]


def nodes_of(placed: dict[str, Place], *names: str) -> list[str]:
    return [placed[name].node for name in names]


def test_each_kind_is_spread_over_all_nodes() -> None:
    names = [f"{kind}-{i}" for kind in ("shared", "blue", "edge") for i in range(3)]
    placed = place(names, {}, NODES)
    for kind in ("shared", "blue", "edge"):
        assert sorted(nodes_of(placed, *(f"{kind}-{i}" for i in range(3)))) == ["n1", "n2", "n3"]


def test_the_control_redis_is_on_a_manager() -> None:
    assert set(nodes_of(place(REDIS, {}, NODES), *REDIS)) == {"n1"}


def test_both_colors_of_a_number_share_a_node_since_only_there_sockets_are_handed_over() -> None:
    blue, green = [f"blue-{i}" for i in range(4)], [f"green-{i}" for i in range(4)]
    placed = place([*blue, *green], place(blue, {}, NODES), NODES)
    assert nodes_of(placed, *blue) == nodes_of(placed, *green)


def test_what_has_data_stays_with_it_and_the_rest_leaves_a_node_that_is_gone() -> None:
    names = ["shared-0", "shared-1", "shared-2", "blue-0", "blue-1", "blue-2"]
    before = place(names, {}, NODES)
    gone = [MANAGER, WORKERS[0], replace(WORKERS[1], usable=False, answers=False)]
    after = place(names, before, gone)
    assert after["shared-2"] == before["shared-2"] == Place("n3", "10.0.0.3")
    assert "n3" not in nodes_of(after, "blue-0", "blue-1", "blue-2")
    assert [after[name] for name in ("blue-0", "blue-1")] == [before[name] for name in ("blue-0", "blue-1")]


def test_a_node_that_is_drained_keeps_nothing_that_can_go() -> None:
    drained = [MANAGER, replace(WORKERS[0], usable=False), WORKERS[1]]
    assert place(["edge-1"], {"edge-1": WORKERS[0].place}, drained)["edge-1"].node != "n2"


def test_a_node_that_comes_back_under_another_address_is_found_there() -> None:
    moved = [MANAGER, replace(WORKERS[0], address="10.0.0.99"), WORKERS[1]]
    assert place(["shared-0"], {"shared-0": WORKERS[0].place}, moved)["shared-0"] == Place("n2", "10.0.0.99")


def test_parts_that_were_stopped_are_remembered() -> None:
    before = place(["shared-0", "blue-0"], {}, NODES)
    assert place(["shared-0"], before, NODES) == before


def test_two_nodes_of_one_name_are_refused_since_parts_are_pinned_by_it() -> None:
    check(NODES)
    with pytest.raises(ShardsError, match="two nodes of the swarm are called n1"):
        check([MANAGER, replace(WORKERS[0], name="n1")])
    with pytest.raises(ShardsError, match="no node of the swarm takes parts"):
        check([replace(MANAGER, usable=False)])


def test_a_manager_that_knows_itself_as_no_address_is_found_by_the_one_it_gave_the_others() -> None:
    said = {
        "ID": "x",
        "Spec": {"Availability": "active"},
        "Description": {"Hostname": "m", "Resources": {"NanoCPUs": 2_000_000_000}},
        "Status": {"State": "ready", "Addr": "0.0.0.0"},
        "ManagerStatus": {"Addr": "10.0.0.7:2377"},
    }
    worker = {"ID": "w", "Description": {"Hostname": "a"}, "Status": {"State": "down", "Addr": "10.0.0.8"}}
    assert read([worker, said]) == [
        Node("x", "m", "10.0.0.7", True, True, True, 2),
        Node("w", "a", "10.0.0.8", False, False, False, 0),
    ]
