"""What is remembered of a fleet: written in one piece, private, and changed by one command at a time."""

from __future__ import annotations

import errno
import json
import os
import stat
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from shards.errors import ShardsError
from shards.fleet.spec import FleetSpec
from shards.fleet.state import Deployment, FleetDir, FleetState, write_atomically

STATE = FleetState(FleetSpec(), {"blue-0": 1}, "green", {"green": Deployment("r", 3, 1)}, "before", True)


@pytest.fixture
def directory(tmp_path: Path) -> FleetDir:
    made = FleetDir(tmp_path / "fleets", "one")
    made.create()
    return made


def test_what_is_written_is_read(directory: FleetDir) -> None:
    assert directory.read() is None
    directory.write(STATE)
    assert directory.read() == STATE


def test_a_failed_first_start_leaves_nothing_to_remember(directory: FleetDir) -> None:
    directory.write(STATE)
    directory.forget(replace(STATE, up=False))
    assert directory.read() == replace(STATE, up=False)
    directory.forget(None)
    assert directory.read() is None
    assert not (directory.path / "data").exists()


def test_secrets_are_private_and_stay(directory: FleetDir) -> None:
    before = directory.password()
    directory.create()
    assert directory.password() == before
    assert len({before, directory.secret_key_file.read_text()}) == 2
    for path in (directory.path, directory.path / "secrets"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
    for path in (directory.password_file, directory.secret_key_file):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_the_directory_of_all_fleets_is_private_where_it_is_made(tmp_path: Path) -> None:
    """Which fleets there are is nobody's business either."""
    before = os.umask(0o022)
    try:
        FleetDir(tmp_path / "made", "one").create()
        with FleetDir(tmp_path / "locked", "one").lock("up"):
            pass
        (tmp_path / "there").mkdir()
        FleetDir(tmp_path / "there", "one").create()
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert modes == {"made": 0o700, "locked": 0o700, "there": 0o755}


def test_a_color_is_deployed_and_taken_away() -> None:
    both = STATE.with_deployed("blue", Deployment("s", 1, 1))
    assert set(both.deployed) == {"blue", "green"}
    assert set(both.with_deployed("green", None).deployed) == {"blue"}
    assert set(STATE.deployed) == {"green"}


def test_a_file_for_which_there_is_no_room_stays_as_it_was_and_nothing_else_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    write_atomically(path, "before")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(path, "after")
    assert [(one.name, one.read_text()) for one in tmp_path.iterdir()] == [("file", "before")]


def test_a_full_disk_keeps_nobody_from_the_lock(directory: FleetDir) -> None:
    """Or it would keep `down --purge` from making room. A limit that allows no byte stands in for such a disk."""
    locks = (
        "import pathlib, resource, sys\n"
        "from shards.fleet.state import FleetDir\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))\n"
        "directory = FleetDir(pathlib.Path(sys.argv[1]), sys.argv[2])\n"
        "with directory.lock('down'):\n"
        "    assert directory.holder() is None\n"
    )
    command = [sys.executable, "-c", locks, str(directory.path.parent), directory.project]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_second_command_is_told_who_is_at_it(directory: FleetDir) -> None:
    assert directory.holder() is None
    with directory.lock("up"):
        with (
            pytest.raises(ShardsError, match=rf"`inv up` \(pid {os.getpid()}, since \d\d:\d\d:\d\d\)"),
            directory.lock("down"),
        ):
            pass
        holder = directory.holder()
        assert holder is not None
        assert (holder.command, holder.pid) == ("up", os.getpid())
    assert directory.holder() is None
    with directory.lock("down"):
        pass


def test_a_command_that_died_holds_nothing(directory: FleetDir) -> None:
    # Of a process that has the number now and is younger than the lock is old.
    (directory.path / "lock").write_text(json.dumps({"command": "up", "pid": os.getpid(), "since": 1.0}))
    assert directory.holder() is None
    (directory.path / "lock").write_text("half a li")
    assert directory.holder() is None
    with directory.lock("down"):
        pass


def test_damage_is_told_with_what_to_do(directory: FleetDir) -> None:
    (directory.path / "fleet.json").write_text('{"spec": 1}')
    with pytest.raises(ShardsError, match=r"damaged.*--purge --project one"):
        directory.read()


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    blocked = FleetDir(tmp_path / "file", "one")
    for attempt in (blocked.create, lambda: blocked.write(STATE), lambda: blocked.lock("up").__enter__()):
        with pytest.raises(ShardsError, match=r"cannot write .*STATE_DIR"):
            attempt()
    assert blocked.read() is None


def test_a_file_is_replaced_in_one_piece(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomically(path, "one")
    before = path.stat().st_ino
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    write_atomically(path, "two", elsewhere)
    assert path.read_text() == "two"
    assert path.stat().st_ino != before
    assert [p.name for p in tmp_path.rglob("*") if p.is_file()] == ["file"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
