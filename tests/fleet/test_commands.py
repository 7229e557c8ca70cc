"""The thin layer of commands: what they list, what they are given, how they show progress."""

from __future__ import annotations

import io
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import pyte
import pytest
import yaml
from invoke.config import Config
from invoke.context import Context
from invoke.exceptions import Exit
from rich.console import Console

from shards.fleet import status as looking
from shards.fleet.engines.local import LocalOptions
from shards.fleet.engines.log_files import _Tail
from shards.fleet.fleet import Fleet
from shards.fleet.logs import lines
from shards.fleet.spec import FleetSpec
from shards.fleet.state import FleetDir, FleetState
from shards.settings_table import commented, variables
from shards.tasks import console, view
from shards.tasks import fleet as commands
from shards.tasks.fleet import names_a_part

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = [
    *("build", "doctor", "down", "logs", "promote", "publish", "render"),
    *("reshard", "restart", "rollback", "status", "token", "tune", "up"),
]


def inv(*arguments: str) -> str:
    command = [sys.executable, "-m", "invoke", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60).stdout


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


def context_of(state_dir: Path) -> Context:
    """Give what a task is given in the clone."""
    settings = yaml.safe_load((ROOT / "invoke.yaml").read_text())
    settings["fleet"] |= {"root": str(ROOT), "state_dir": str(state_dir), "app_dir": str(ROOT)}
    return Context(Config(defaults=settings))


@pytest.mark.parametrize(("state", "code"), [("steady", 0), ("degraded", 0), ("resharding", 0), ("down", 1)])
def test_status_fails_only_where_nothing_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: str, code: int
) -> None:
    async def found(fleet: Fleet) -> dict[str, str]:
        return {"state": state}

    monkeypatch.setattr(looking, "status", found)
    with pytest.raises(Exit) if code else nullcontext() as ended:
        commands.status.body(context_of(tmp_path), json=True)
    assert (ended.value.code if ended else 0) == code
    assert "1: nothing does" in (ROOT / "README.md").read_text()


def test_up_after_down_goes_on_with_the_data_and_so_with_the_engine_that_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    was = FleetState(FleetSpec(engine="docker", replicas=7, durability="always"), up=False)
    found = commands.spec_of(context_of(tmp_path), {}, was)
    assert (found.engine, found.durability) == ("docker", "always")
    assert found.replicas != 7, "the rest is what is asked for"
    assert commands.spec_of(context_of(tmp_path), {"engine": "local"}, was).engine == "local"
    monkeypatch.setenv("INVOKE_FLEET_ENGINE", "local")
    assert commands.spec_of(context_of(tmp_path), {}, was).engine == "local"


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("INVOKE_FLEET_PROT", "did you mean INVOKE_FLEET_PORT?"),
        ("INVOKE_DOCKER_REDISIMAGE", "did you mean INVOKE_DOCKER_REDIS_IMAGE?"),
        ("INVOKE_FLEET_CANARY_SECOND", "did you mean INVOKE_FLEET_CANARY_SECONDS?"),
        # Right, but for the section.
        ("INVOKE_FLEET_APP_MEMORY", "did you mean INVOKE_DOCKER_APP_MEMORY?"),
        ("INVOKE_FLEET_QQQ", "docs/settings.md has all"),
    ],
)
def test_a_variable_that_is_no_setting_is_told_with_the_one_that_is_meant(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, advice: str
) -> None:
    monkeypatch.setenv(name, "1")
    told = console.Kept()
    commands.fleet_of(context_of(tmp_path), None, told)
    assert told.lines == [f"warning: {name} is no setting, and does nothing: {advice}"]


def test_variables_that_are_settings_or_nothing_of_ours_are_not_told_of(tmp_path: Path) -> None:
    ours = {
        f"INVOKE_{section}_{name}".replace(".", "_").upper()
        for section in ("fleet", "docker")
        for name, default, _ in commented(section)
        if default is not None
    } | {name for name in variables() if name.startswith("INVOKE_")}
    assert {"INVOKE_FLEET_STATE_DIR", "INVOKE_FLEET_CANARY_P99_MS", "INVOKE_DOCKER_NOFILE"} <= ours
    config = {section: dict(context_of(tmp_path).config[section]) for section in ("fleet", "docker")}
    assert console.unknown_variables([*ours, "INVOKE_RUN_ECHO", "INVOKE_FLEET", "FLEET_PROT"], config) == []


def test_progress_says_each_thing_once_and_counts_down_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    with console.progress() as told:
        for text in (
            "starting Redis",
            "starting edges",
            "waiting for a, b",
            "waiting for b",
            "draining: 2",
            "draining: 1",
        ):
            told.say(text)
        told.keep("draining: 0")
    assert capsys.readouterr().err.splitlines() == [
        "starting Redis",
        "starting edges",
        "waiting for a, b",
        "draining: 2",
        "draining: 0",
    ]


def test_on_a_terminal_what_was_done_stays_above_what_is_being_done(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.StringIO()
    terminal = Console(file=written, force_terminal=True, width=40)
    monkeypatch.setattr(console, "Console", lambda **_: terminal)
    with console.progress() as told:
        told.say("draining: [2] sockets left")
        told.keep("move: [2] sockets handed over alive, all of them, none closed")
    screen = pyte.Screen(80, 10)
    pyte.Stream(screen).feed(written.getvalue().replace("\n", "\r\n"))
    assert [line.rstrip() for line in screen.display if line.strip()] == [
        "move: [2] sockets handed over alive, all of them, none closed"
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
    assert view.headline({"state": "down", "project": "p", "others": []}) == (
        "fleet p does not run: `inv up --project p` starts it"
    )
    assert view.headline({"state": "down", "project": "p", "others": ["a", "b"]}).endswith(
        "; those that run: a, b (say --project)"
    )


def test_a_view_shows_limits_beside_what_is_used_and_the_warnings(capsys: pytest.CaptureFixture[str]) -> None:
    used = {"rss_bytes": 52 * 2**20, "cpu_percent": 12.5, "memory_limit_bytes": 64 * 2**20, "cpu_limit_percent": 200.0}
    shard = {"name": "shared-0", "state": "active", "healthy": True, "slots": 1024, "clients": 9, "pid": None, **used}
    status = {
        "state": "steady", "project": "p", "url": "u", "active_color": "blue", "connections": 1,
        "ring": {"version": 1}, "shards": [shard], "warnings": ["shared-0 uses 81% of the memory it may (64 MB)"],
    }  # fmt: skip
    assert view._rows(status)[0][1][-2:] == ["52 MB of 64 MB", "12.5 of 200.0"]
    view.show(status)
    assert capsys.readouterr().out.splitlines()[-1] == "warning: shared-0 uses 81% of the memory it may (64 MB)"


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
