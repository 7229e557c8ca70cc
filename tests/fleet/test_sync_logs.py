"""What Redis wrote reaches the disk each second, whichever way its version names its files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from shards.fleet.engines import sync_logs
from tests.fleet.runner import Commands


def test_append_only_files_of_old_and_new_servers_are_found(tmp_path: Path) -> None:
    old = tmp_path / "shared-0" / "appendonly.aof"
    new = tmp_path / "shared-1" / "appendonlydir" / "appendonly.aof.3.incr.aof"
    for file in (old, new, tmp_path / "shared-1" / "dump.rdb"):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("x")
    assert sorted(sync_logs.append_only_files(tmp_path)) == [old, new]


def test_a_sync_is_of_the_file_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it prevents needs a machine without power; this sees that the disk is asked."""
    synced: list[Path] = []
    monkeypatch.setattr(os, "fdatasync", lambda file: synced.append(Path(f"/proc/self/fd/{file}").readlink()))
    file = tmp_path / "appendonly.aof"
    file.write_text("x")
    sync_logs.sync(file)
    assert synced == [file]


def test_a_file_that_is_rewritten_meanwhile_does_no_harm(tmp_path: Path) -> None:
    sync_logs.sync(tmp_path / "gone")


@pytest.mark.fleet
def test_a_fleet_syncs_its_logs(fleet: Commands) -> None:
    syncing = [process for process in fleet.processes() if "shards.fleet.engines.sync_logs" in process.cmdline()]
    assert len(syncing) == 1
    assert syncing[0].cmdline()[-1] == str(fleet.directory / "data")
    assert sync_logs.append_only_files(fleet.directory / "data"), "there is something to sync where it looks"
