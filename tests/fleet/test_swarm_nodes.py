"""Which part of a fleet goes to which node of a swarm, and what happens to that when nodes come and go."""

from __future__ import annotations

from dataclasses import replace

import pytest

from shards.errors import ShardsError
from shards.fleet import layout, sharding
from shards.fleet.engines.swarm.nodes import Node, check, lost, place, read
from shards.fleet.shard_list import FleetShard
from shards.fleet.spec import FleetSpec
from shards.fleet.state import Deployment, FleetState, Place

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
    drained = [MANAGER, replace(WORKERS[0], usable=False, drained=True), WORKERS[1]]
    assert place(["edge-1"], {"edge-1": WORKERS[0].place}, drained)["edge-1"].node != "n2"


def test_a_node_that_is_paused_keeps_what_it_has_and_gets_nothing_new() -> None:
    paused = [MANAGER, replace(WORKERS[0], usable=False), WORKERS[1]]
    placed = place(["edge-0", "edge-1", "edge-2"], {"edge-1": WORKERS[0].place}, paused)
    assert nodes_of(placed, "edge-0", "edge-1", "edge-2") == ["n1", "n2", "n3"]


def test_a_host_that_was_made_anew_at_the_same_address_is_not_lost() -> None:
    before, anew = Node("old", "n2-old", "10.0.0.2", False, False, False, 0), WORKERS[0]
    assert lost([before.place], [MANAGER, anew, before, WORKERS[1]]) == set()
    assert lost([before.place], [MANAGER, before]) == {"10.0.0.2"}


def test_a_node_that_comes_back_under_another_address_is_found_there() -> None:
    moved = [MANAGER, replace(WORKERS[0], address="10.0.0.99"), WORKERS[1]]
    assert place(["shared-0"], {"shared-0": WORKERS[0].place}, moved)["shared-0"] == Place("n2", "10.0.0.99")


def test_only_what_is_started_leaves_a_node_that_is_gone() -> None:
    """What is remembered of the others must be where they are: else one would wait for an edge that nobody starts."""
    names = ["blue-2", "green-2", "edge-2"]
    before = place(["blue-2", "edge-2"], {"blue-2": WORKERS[1].place, "edge-2": WORKERS[1].place}, NODES)
    gone = [MANAGER, WORKERS[0], replace(WORKERS[1], usable=False, answers=False)]
    after = place(names, before, gone, only=["green-2"])
    assert nodes_of(after, "blue-2", "edge-2") == ["n3", "n3"]
    assert after["green-2"].node != "n3"
    again = place(names, after, gone, only=["blue-2"])
    assert again["blue-2"] == again["green-2"], "and the other color's finds its twin where that has gone"


def test_what_is_started_alone_is_spread_beside_the_others() -> None:
    names = [f"edge-{i}" for i in range(3)]
    before = place(names[:2], {}, NODES)
    assert place(names, before, NODES, only=["edge-2"])["edge-2"].node == "n3"


def test_what_stands_in_shares_a_node_with_the_part_it_stands_in_for() -> None:
    names = [f"edge-{i}" for i in range(4)]
    before = place(names[:3], {}, NODES)
    for name in names[:3]:
        assert place(names, before, NODES, [name, "edge-3"], {"edge-3": name})["edge-3"] == before[name]
    gone = [MANAGER, replace(WORKERS[0], usable=False, answers=False), WORKERS[1]]
    after = place(names, before, gone, ["edge-1", "edge-3"], {"edge-3": "edge-1"})
    assert after["edge-3"] == after["edge-1"] != before["edge-1"], "both are elsewhere where its node is gone"


def test_it_is_told_for_whom_a_part_stands_in() -> None:
    state = FleetState(FleetSpec(edges=2, replicas=2), deployed={"blue": Deployment("r", 3, 1)})
    assert layout.stand_ins(state) == {}
    assert layout.stand_ins(replace(state, restarting="edge-0")) == {"edge-2": "edge-0"}
    assert layout.stand_ins(replace(state, restarting="blue-1")) == {"blue-2": "blue-1"}


def test_a_part_that_no_node_takes_is_told() -> None:
    with pytest.raises(ShardsError, match="no node of the swarm takes parts"):
        place(["blue-0"], {}, [replace(MANAGER, usable=False)])
    assert place(["shared-0"], {"shared-0": MANAGER.place}, []) == {"shared-0": MANAGER.place}, "it is where it is"


def test_nothing_runs_on_nodes_that_are_gone_or_drained_or_have_left() -> None:
    drained, silent = replace(WORKERS[0], usable=False, drained=True), replace(WORKERS[1], usable=False, answers=False)
    left = Place("n9", "10.0.0.9")
    assert lost([left, MANAGER.place], [MANAGER, drained, silent]) == {"10.0.0.2", "10.0.0.3", "10.0.0.9"}
    paused = replace(MANAGER, usable=False)
    assert lost([MANAGER.place], [paused, *WORKERS]) == set(), "a node that takes nothing more keeps what it has"


def test_a_server_on_a_node_that_is_gone_is_named() -> None:
    ports = dict.fromkeys(("shared-0", "shared-1", *REDIS), 1)
    places = {"shared-0": MANAGER.place, "shared-1": WORKERS[0].place, **dict.fromkeys(REDIS, MANAGER.place)}
    shards = (FleetShard("shared-0"), FleetShard("shared-1"))
    state = FleetState(FleetSpec(engine="swarm", shards=2), ports, shards=shards, places=places)
    assert sharding.stranded(state, {"10.0.0.2"}) == ["shared-1"]
    assert sharding.stranded(state, set()) == []
    given_up = replace(state, shards=(FleetShard("shared-0"), replace(shards[1], lost=True)))
    assert sharding.stranded(given_up, {"10.0.0.2"}) == [], "nobody needs it any more"


def test_parts_that_were_stopped_are_remembered() -> None:
    before = place(["shared-0", "blue-0"], {}, NODES)
    assert place(["shared-0"], before, NODES) == before


def test_two_nodes_of_one_name_are_refused_since_parts_are_pinned_by_it() -> None:
    check(NODES)
    with pytest.raises(ShardsError, match="two nodes of the swarm are called n1"):
        check([MANAGER, replace(WORKERS[0], name="n1")])
    with pytest.raises(ShardsError, match="no node of the swarm takes parts"):
        check([replace(MANAGER, usable=False)])


@pytest.mark.parametrize(
    ("version", "good"), [("19.03.15", False), ("20.10.24+dfsg1", True), ("29.0.1", True), ("", True)]
)
def test_a_node_whose_docker_is_too_old_is_named(version: str, good: bool) -> None:
    nodes = [MANAGER, replace(WORKERS[0], engine=version)]
    if good:
        check(nodes)
    else:
        with pytest.raises(ShardsError, match=r"node n2 has Docker 19\.03\.15: .*20\.10 or newer"):
            check(nodes)


def test_a_host_that_has_left_and_joined_anew_is_one_node() -> None:
    def said(id: str, state: str) -> dict[str, object]:
        return {"ID": id, "Description": {"Hostname": "a"}, "Status": {"State": state, "Addr": "10.0.0.8"}}

    assert [node.id for node in read([said("before", "down"), said("now", "ready")])] == ["now"]
    assert [node.id for node in read([said("before", "down"), said("now", "down")])] == ["now"]


def test_what_the_swarm_says_of_a_node_is_read() -> None:
    said = {
        "ID": "x",
        "Spec": {"Availability": "drain"},
        "Description": {"Hostname": "a", "Engine": {"EngineVersion": "20.10.24"}},
        "Status": {"State": "ready", "Addr": "10.0.0.8"},
    }
    assert read([said]) == [Node("x", "a", "10.0.0.8", False, True, False, 0, drained=True, engine="20.10.24")]


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
