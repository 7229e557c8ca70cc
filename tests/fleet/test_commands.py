"""The thin layer of commands: what they list, what they are given, how they show progress."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from shards.fleet.engines.local import LocalOptions
from shards.fleet.fleet import Fleet
from shards.fleet.logs import _Tail, lines
from shards.fleet.state import FleetDir
from shards.tasks import console, view
from shards.tasks.fleet import names_a_part

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = ["down", "logs", "promote", "publish", "rollback", "status", "token", "up"]


def inv(*arguments: str) -> str:
    command = [sys.executable, "-m", "invoke", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=30).stdout


def test_every_command_is_listed() -> None:
    listed = inv("-l")
    for command in COMMANDS:
        assert f"\n  {command} " in listed


@pytest.mark.parametrize("command", COMMANDS)
def test_every_flag_has_its_help(command: str) -> None:
    options = inv(command, "--help").split("Options:")[1].splitlines()
    flags = [line.split() for line in options if line.strip().startswith("--")]
    assert flags
    assert all(len(words) > 1 for words in flags), flags


@pytest.mark.parametrize(
    "line,named",
    [
        ("inv logs", False),
        ("inv logs blue-0", True),
        ("inv logs --follow", False),
        ("inv logs --follow blue-0", True),
        ("inv logs --project a", False),
        ("inv logs --project a blue-0", True),
        ("inv up", False),
        ("pytest", False),
    ],
)
def test_logs_takes_a_name_where_one_is_given(line: str, named: bool) -> None:
    assert names_a_part(line.split()) is named


def test_progress_says_each_thing_once_and_counts_down_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    with console.progress() as say:
        for text in (
            "starting Redis",
            "starting edges",
            "waiting for a, b",
            "waiting for b",
            "draining: 2",
            "draining: 1",
        ):
            say(text)
    assert capsys.readouterr().err.splitlines() == [
        "starting Redis",
        "starting edges",
        "waiting for a, b",
        "draining: 2",
    ]


def test_errors_are_one_line() -> None:
    assert console.one_line("a\n  b\tc") == "a b c"


def test_a_view_shows_what_is_unknown_and_what_is_ill() -> None:
    edge = {"name": "edge-0", "healthy": False, "pid": None, "rss_bytes": 2**21, "cpu_percent": 1.0}
    status = {
        "state": "degraded", "project": "p", "url": "u", "active_color": "blue", "connections": None,
        "ring": {"version": None}, "edges": [edge],
    }  # fmt: skip
    assert "- connections" in view.headline(status)
    assert view._rows(status)[0][1] == ["edge-0", "NO", "-", "2 MB", "1.0"]
    assert "inv up" in view.headline({"state": "down"})


def test_a_log_is_followed_through_its_rotation(tmp_path: Path) -> None:
    log = tmp_path / "part.log"
    log.write_text("one\ntw")
    tail = _Tail(log)
    assert tail.new() == ["one"]
    with log.open("a") as file:
        file.write("o\nthree\n")
    assert tail.new() == ["two", "three"]
    log.rename(tmp_path / "part.log.1")
    log.write_text("four\n")
    assert tail.new() == ["four"]
    log.unlink()
    assert tail.new() == []


async def test_of_a_long_log_whole_lines_are_shown(tmp_path: Path) -> None:
    said: list[str] = []
    fleet = Fleet(FleetDir(tmp_path, "p"), LocalOptions(ROOT), said.append)
    assert [line async for line in lines(fleet, None, follow=False)] == []
    assert "no logs" in said[0]
    fleet.directory.create()
    (fleet.directory.logs / "part.log").write_text("".join(f"line {i:06}\n" for i in range(5000)))
    shown = [line async for line in lines(fleet, "part", follow=False)]
    assert 100 < len(shown) < 5000
    assert {len(line) for _, line in shown} == {11}
    assert shown[-1] == ("part", "line 004999")
