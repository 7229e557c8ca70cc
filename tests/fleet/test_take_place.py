"""Which server of a pair leads, at the start and when one comes back: here data gets lost, or does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from shards.fleet import layout
from shards.fleet.engines import redis_server, sentinel
from shards.fleet.engines.base import RedisPart, Twin
from shards.fleet.engines.promotable import MAY, NEVER, priority
from shards.fleet.engines.take_place import SWITCH_S, place
from shards.fleet.shard_list import FleetShard
from shards.fleet.spec import FleetSpec
from shards.fleet.state import FleetState

ME, TWIN = 7001, 7002
LEADER = RedisPart("shared-0", ME, twin=Twin("shared-0", TWIN, True, (1, 2, 3)))
FOLLOWER = RedisPart("shared-0", ME, twin=Twin("shared-0", TWIN, False, (1, 2, 3)))


@pytest.mark.parametrize("named", [[], [ME], [TWIN], [None]], ids=str)
def test_it_waits_where_less_than_a_majority_of_the_sentinels_answers(named: list[int | None]) -> None:
    assert place(LEADER, named, 100, data=True, twin_up=True) == "wait"


def test_a_fleet_that_is_being_started_says_itself_who_leads() -> None:
    assert place(LEADER, [None, None, None], 0, data=False, twin_up=True) == "primary"
    assert place(FOLLOWER, [None, None, None], 0, data=True, twin_up=True) == "copy"


@pytest.mark.parametrize("part", [LEADER, FOLLOWER], ids=["led", "followed"])
@pytest.mark.parametrize("named", [[TWIN, TWIN, TWIN], [TWIN, ME, TWIN], [TWIN, TWIN]], ids=str)
def test_it_is_a_copy_where_most_name_its_twin(part: RedisPart, named: list[int | None]) -> None:
    assert place(part, named, 0, data=True, twin_up=True) == "copy"


@pytest.mark.parametrize("named", [[ME, ME, ME], [ME, TWIN, ME]], ids=str)
def test_a_primary_that_comes_back_leaves_its_twin_the_time_to_take_over(named: list[int | None]) -> None:
    assert place(LEADER, named, SWITCH_S - 1, data=True, twin_up=True) == "wait"
    assert place(LEADER, named, SWITCH_S, data=True, twin_up=True) == "primary", (
        "nobody took over, and it has all that was acked"
    )
    assert place(LEADER, named, 1e6, data=False, twin_up=True) == "wait", "its copy would copy that there is nothing"


def test_a_copy_waits_for_what_it_shall_copy() -> None:
    assert place(FOLLOWER, [None, None], 100, data=True, twin_up=False) == "wait"
    assert place(LEADER, [TWIN, TWIN, TWIN], 100, data=True, twin_up=False) == "wait"


def test_sentinels_that_differ_are_asked_again() -> None:
    assert place(LEADER, [ME, TWIN], 100, data=True, twin_up=True) == "wait"
    assert place(LEADER, [ME, TWIN, None], 100, data=True, twin_up=True) == "wait"


def test_only_a_copy_that_has_been_linked_may_be_made_the_primary() -> None:
    assert priority([b"slave", b"127.0.0.1", 1, b"connected", 9], named=True) == MAY
    assert priority([b"slave", b"127.0.0.1", 1, b"connect", 9], named=True) is None, "it stays what it was"
    assert priority([b"master", 9, []], named=True) is None
    assert priority([b"master", 9, []], named=False) == NEVER, "cut off, it has what nobody acked, and lacks the rest"


SWITCHED = """port 23010
requirepass "x"
sentinel current-epoch 3
sentinel monitor shared-0 127.0.0.1 7002 2
sentinel config-epoch shared-0 3
sentinel monitor shared-1 127.0.0.1 7003 2
sentinel config-epoch shared-1 0
"""


def test_the_newest_switch_that_any_sentinel_wrote_down_counts() -> None:
    behind = SWITCHED.replace("7002", "7001").replace("config-epoch shared-0 3", "config-epoch shared-0 2")
    fresh = 'port 23010\nrequirepass "x"\n'
    for files in ([SWITCHED, behind, fresh], [fresh, behind, SWITCHED]):
        assert sentinel.written_primaries(files) == {"shared-0": 7002, "shared-1": 7003}
    assert sentinel.written_primaries([fresh]) == {}


def test_who_led_last_leads_unless_its_data_is_gone() -> None:
    servers = ["shared-0", "shared-0-twin"]
    assert sentinel.choose_primary(servers, None, []) == "shared-0"
    assert sentinel.choose_primary(servers, "shared-0-twin", servers) == "shared-0-twin"
    assert sentinel.choose_primary(servers, "shared-0-twin", ["shared-0"]) == "shared-0"
    assert sentinel.choose_primary(servers, "shared-0-twin", []) == "shared-0-twin"
    assert sentinel.choose_primary(servers, "shared-7", ["shared-0-twin"]) == "shared-0-twin"


def test_data_is_what_was_appended_whichever_way_the_version_names_its_files(tmp_path: Path) -> None:
    assert not redis_server.has_data(tmp_path / "none")
    (tmp_path / "appendonly.aof").write_text("")
    (tmp_path / "dump.rdb").write_text("x")
    assert not redis_server.has_data(tmp_path)
    (tmp_path / "appendonlydir").mkdir()
    (tmp_path / "appendonlydir" / "appendonly.aof.1.base.rdb").write_text("x")
    assert redis_server.has_data(tmp_path)


def test_a_replicated_shard_is_two_parts_of_which_one_leads_and_workers_ask_the_sentinels() -> None:
    fresh = FleetState(
        FleetSpec(shards=2, durability="replicated"),
        shards=(FleetShard("shared-0"), FleetShard("shared-1")),
        primaries={"shared-1": "shared-1-twin"},
    )
    state = layout.with_ports(fresh, lambda taken: max(taken) + 1)
    parts = {part.name: part for part in layout.redis_parts(state) if part.twin}
    assert [name for name, part in parts.items() if part.twin and part.twin.leads] == ["shared-0", "shared-1-twin"]
    assert parts["shared-0"].twin is not None
    assert parts["shared-0"].twin.port == parts["shared-0-twin"].port
    ports = [state.ports[f"sentinel-{i}"] for i in range(3)]
    hosts = ",".join(f"127.0.0.1:{port}" for port in ports)
    assert [shard.url for shard in layout.shards(state)] == [
        f"redis+sentinel://{hosts}/shared-0",
        f"redis+sentinel://{hosts}/shared-1",
    ]
    assert not layout.sentinel_parts(FleetState(FleetSpec()))
