"""What commands say of a fleet that Docker Compose has started; here nothing runs."""

from __future__ import annotations

import socket
from dataclasses import replace
from pathlib import Path

import pytest

from shards.errors import ShardsError
from shards.fleet import layout
from shards.fleet import status as looking
from shards.fleet.engines.docker import by_hand, compose
from shards.fleet.engines.local import LocalEngine, LocalOptions
from shards.fleet.shard_list import FleetShard
from shards.fleet.spec import FleetSpec
from shards.fleet.state import FleetDir
from shards.router.table import SlotTable
from tests.fleet.runner import ROOT

COMPOSED = compose.fresh(FleetSpec("c", shards=2))


@pytest.mark.parametrize(("its_port", "said"), [(True, "started by Docker Compose"), (False, "choose another with")])
def test_a_port_that_compose_published_for_this_fleet_is_told_as_such(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, its_port: bool, said: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        runs = replace(COMPOSED, spec=replace(COMPOSED.spec, port=port if its_port else port - 1))
        monkeypatch.setattr(by_hand, "find", {"c": runs}.get)
        engine = LocalEngine(FleetSpec("c", port=port, app_dir=str(ROOT)), FleetDir(tmp_path, "c"), LocalOptions(ROOT))
        with pytest.raises(ShardsError, match=said):
            engine.check(port_is_ours=False)


def _seen(table: SlotTable | None, resharding: bool = False) -> looking._Seen:
    return looking._Seen(COMPOSED, True, {}, looking._Registry(table, (), None, resharding))


def _table(*shards: FleetShard) -> SlotTable:
    return SlotTable.first([layout.as_shard(COMPOSED, shard) for shard in shards])


def test_a_file_with_fewer_shards_than_own_slots_is_told_with_what_to_do() -> None:
    table = _table(*(FleetShard(f"shared-{number}") for number in (0, 1, 3)))
    [warning] = looking._warnings(_seen(table))
    assert warning.startswith("slots belong to shared-3, which this fleet does not have, so no replica gets ready")
    assert "`inv render --into DIR --shards 4`" in warning
    assert "`inv up --engine docker --project c`" in warning
    assert not looking._warnings(_seen(table, resharding=True))


@pytest.mark.parametrize(
    "table",
    [
        None,
        _table(FleetShard("shared-0")),
        _table(FleetShard("shared-0"), FleetShard("shared-1")),
        # It runs elsewhere, and may well answer.
        _table(FleetShard("shared-0"), FleetShard("shared-2", "redis://10.0.0.5:6379/0")),
    ],
    ids=["unknown", "fewer", "as many", "elsewhere"],
)
def test_nothing_is_said_where_every_shard_may_answer(table: SlotTable | None) -> None:
    assert looking._warnings(_seen(table)) == []
