"""What users get wrong: one clear line, the right exit code, and nothing left behind."""

from __future__ import annotations

import signal
import socket
import time
from pathlib import Path

import pytest

from shards.descriptors import descriptor_limit, sockets_per_edge
from tests.fleet.runner import Commands, Result, finish

SMALL = ("--replicas", "1", "--shards", "1", "--edges", "1")


def one_line(result: Result, code: int, *words: str) -> None:
    assert result.code == code, result
    assert "Traceback" not in result.stderr
    assert result.last.startswith("error: ")
    for word in words:
        assert word in result.last
    assert result.stdout == ""


@pytest.mark.parametrize(
    "arguments,words",
    [
        (("up", "--engine", "moon"), ("moon", "local")),
        (("up", "--engine", "moon"), ("moon", "choose local, docker or swarm")),
        (("up", "--replicas", "0"), ("--replicas", "1 or more")),
        (("up", "--replicas", "-1"), ("--replicas", "1 or more")),
        (("up", "--replicas", "10000"), ("--replicas", "64 or less")),
        (("up", "--replicas", "abc"), ("whole number",)),
        (("up", "--edges", "many"), ("--edges", "whole number or auto")),
        (("up", "--port", "99999"), ("--port",)),
        (("up", "--project", "../x"), ("--project",)),
        (("up", "--app", "nope"), ("module:attribute",)),
        (("up", "--app-dir", "/nonexistent"), ("/nonexistent",)),
        (("up", "--app", "no_such_site.asgi:application"), ("does not import", "no_such_site")),
        (("promote", "--canary", "some"), ("--canary", "percentage")),
        (("promote", "--canary", "0"), ("--canary", "between")),
        (("promote", "--canary", "100"), ("--canary", "between")),
        (("promote", "--canary", "nan"), ("--canary", "between")),
        (("promote", "--drain-seconds", "soon"), ("--drain-seconds",)),
        (("restart",), ("inv restart blue-0",)),
        (("status", "--json", "--watch"), ("--watch",)),
        (("token",), ("groups",)),
        (("token", "--group", "a b"), ("groups",)),
        (("token", "--group", "a", "--ttl", "0"), ("--ttl",)),
        (("token", "--group", "a", "--ttl", "long"), ("--ttl",)),
        (("token", "--group", "a", "--may", "shout"), ("subscribe", "publish")),
        (("publish", "--data", "1"), ("group",)),
        (("publish", "--group", "a b", "--data", "1"), ("group",)),
        (("publish", "--group", "a"), ("--data", "JSON")),
        (("publish", "--group", "a", "--data", "hello"), ("--data", "JSON")),
        (("publish", "--group", "a", "--data", "NaN"), ("--data", "JSON")),
        (("publish", "--group", "a", "--data", "1", "--id", "i" * 65), ("id", "64")),
    ],
    ids=" ".join,
)
def test_wrong_usage(commands: Commands, arguments: tuple[str, ...], words: tuple[str, ...]) -> None:
    one_line(commands(*arguments), 2, *words)


def test_a_wrong_number_in_the_environment_is_wrong_usage_too(commands: Commands) -> None:
    one_line(commands("up", INVOKE_FLEET_REPLICAS="abc"), 2, "--replicas", "INVOKE_FLEET_REPLICAS")
    one_line(commands("up", INVOKE_FLEET_PORT="0"), 2, "--port (INVOKE_FLEET_PORT) must be 1 or more")
    one_line(commands("up", INVOKE_FLEET_ENGINE="moon"), 2, "moon", "INVOKE_FLEET_ENGINE")
    one_line(commands("promote", INVOKE_FLEET_DRAIN_SECONDS="soon"), 2, "INVOKE_FLEET_DRAIN_SECONDS must be")
    # A flag is what was said then.
    refused = commands("up", "--port", "0", INVOKE_FLEET_PORT="1")
    one_line(refused, 2, "--port must be")
    assert "INVOKE" not in refused.last


def test_a_setting_of_the_app_that_makes_no_sense_starts_nothing(commands: Commands) -> None:
    one_line(commands("up", *SMALL, SHARDS_RATE_LIMIT="many"), 2, "SHARDS_RATE_LIMIT", "many")
    commands.gone()


def test_what_will_not_fit_is_said_before_anything_is_started(commands: Commands) -> None:
    """It warns, and goes on; where what is asked for is refused, that is all that is said."""
    held = sockets_per_edge(descriptor_limit())
    more = {"INVOKE_FLEET_CONNECTIONS": str(held + 1)}
    wrong = commands("up", "--edges", "1", "--app", "no_such_site.asgi:application", **more)
    one_line(wrong, 2, "does not import")
    assert "warning" not in wrong.stderr
    said = commands.ok("up", *SMALL, **more).stderr.splitlines()
    at = next(number for number, line in enumerate(said) if line.startswith("starting Redis"))
    first, second, *_ = (line for line in said[:at] if line.startswith("warning: "))
    assert first.startswith(f"warning: this host can hold {held:,} of {held + 1:,} sockets (nofile: ")
    assert second.startswith("warning: nofile: ")
    assert "inv up --edges 2" in second
    assert "warning: this host" not in commands.ok("up", INVOKE_FLEET_CONNECTIONS="10").stderr
    commands.ok("down")
    commands.gone()


@pytest.mark.parametrize("words", ["promote", "rollback", "promote --hold", "restart blue-0", "reshard --shards 3"])
def test_nothing_to_promote(commands: Commands, words: str) -> None:
    one_line(commands(*words.split()), 1, "not up", "inv up")
    assert not commands.directory.exists(), "nothing is left of what never was"


def test_nothing_to_publish_to(commands: Commands) -> None:
    one_line(commands("publish", "--group", "a", "--data", "1"), 1, "not up", "inv up")


def test_no_tokens_of_a_fleet_that_never_was(commands: Commands) -> None:
    one_line(commands("token", "--group", "a"), 1, "no key", "inv up")
    assert not commands.directory.exists()


def test_nothing_to_take_down(commands: Commands) -> None:
    for purge in ((), ("--purge",)):
        done = commands.ok("down", *purge)
        assert (done.stdout.strip(), done.stderr) == ("fleet t was not up", "")
    assert not commands.directory.exists()


def test_no_status_without_a_fleet(commands: Commands) -> None:
    found = commands("status", "--json")
    assert (found.code, found.stdout.strip(), found.stderr) == (1, '{"state": "down"}', "")
    told = commands("status")
    assert (told.code, told.stdout.strip()) == (1, "fleet t does not run: `inv up --project t` starts it")
    assert not commands.directory.exists()


def test_the_port_is_taken(commands: Commands) -> None:
    with socket.create_server(("127.0.0.1", commands.port)):
        one_line(commands("up"), 1, f"port {commands.port} is in use by", "python", "--port")
    assert not commands.directory.exists(), "nothing was started"


def test_the_port_is_shared_by_a_stranger(commands: Commands) -> None:
    with socket.create_server(("127.0.0.1", commands.port), reuse_port=True):
        one_line(commands("up"), 1, "in use")


def test_a_directory_that_cannot_be_written(commands: Commands, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    one_line(commands("up", INVOKE_FLEET_STATE_DIR=str(tmp_path / "file")), 1, "cannot write", "STATE_DIR")


def test_state_that_is_damaged(commands: Commands) -> None:
    commands.directory.mkdir(parents=True)
    (commands.directory / "fleet.json").write_text("{")
    one_line(commands("up"), 1, "damaged", "--purge")
    done = commands.ok("down", "--purge")
    assert done.stdout.strip() == "fleet t was not up, and its data, logs and secrets are deleted"
    assert "stopping" not in done.stderr
    assert not commands.directory.exists()


@pytest.mark.fleet
class TestPartsThatDoNotStart:
    def test_no_redis_at_all(self, commands: Commands, tmp_path: Path) -> None:
        one_line(commands("up", INVOKE_FLEET_REDIS_SERVER=str(tmp_path / "none")), 1, "redis_server")

    def test_a_redis_that_does_not_start(self, commands: Commands, tmp_path: Path) -> None:
        failed = commands("up", *SMALL, INVOKE_FLEET_REDIS_SERVER=script(tmp_path, "no memory"))
        one_line(failed, 1, "does not stay up: no memory", "logs/")
        assert not (commands.directory / "data").exists()

    def test_an_edge_that_does_not_start(self, commands: Commands, tmp_path: Path) -> None:
        failed = commands("up", *SMALL, INVOKE_FLEET_TRAEFIK=script(tmp_path, "bad entry point"))
        one_line(failed, 1, "edge-0 does not stay up: bad entry point", "logs/edge-0.log")
        assert commands.processes() == []

    def test_an_app_that_breaks_while_it_starts(self, commands: Commands, tmp_path: Path) -> None:
        # It imports here, where the commands run, and not in the replica.
        (tmp_path / "site_of_ours.py").write_text(
            "import os\nif os.environ['SHARDS_PORT'] != '1': raise RuntimeError('no license')\nasync def app(*a): ...\n"
        )
        failed = commands("up", *SMALL, "--app", "site_of_ours:app", "--app-dir", str(tmp_path))
        one_line(failed, 1, "blue-0 does not stay up", "no license", "logs/blue-0.log")
        assert commands.processes() == []


def script(directory: Path, says: str) -> str:
    path = directory / "broken"
    path.write_text(f"#!/bin/sh\necho {says}\nexit 1\n")
    path.chmod(0o755)
    return str(path)


@pytest.mark.fleet
@pytest.mark.parametrize("moment", ["checking", "starting Redis", "starting 1 replicas", "having 1 edges listen"])
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "terminated"])
def test_up_that_is_interrupted_takes_everything_back(commands: Commands, moment: str, signum: signal.Signals) -> None:
    up = commands.start("up", *SMALL)
    assert up.stderr is not None
    for line in up.stderr:
        if line.startswith(moment):
            break
    up.send_signal(signum)
    result = finish(up)
    assert (result.code, result.last) == (130, "interrupted")
    commands.gone()
    assert commands.status() == {"state": "down"}


@pytest.mark.fleet
def test_one_command_at_a_time(commands: Commands, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    waits = f"import pathlib, time\nwhile not pathlib.Path({str(gate)!r}).exists(): time.sleep(0.05)\n"
    (tmp_path / "slow.py").write_text(waits + "async def app(*a): ...\n")
    first = commands.start("up", *SMALL, "--app", "slow:app", "--app-dir", str(tmp_path))
    lock, end = commands.directory / "lock", time.monotonic() + 60
    while not (lock.exists() and lock.read_text()):
        assert time.monotonic() < end
        time.sleep(0.02)
    for second in [commands.start(verb) for verb in ("up", "down", "promote")]:
        one_line(finish(second), 1, f"`inv up` (pid {first.pid}", "wait")
    gate.touch()
    assert finish(first).code == 0
    for arguments, words in {
        ("reshard", "--shards", "0"): ("--shards",),
        ("reshard", "--shards", "x"): ("--shards",),
        ("up", "--port", "1234"): ("--port", "inv down"),
        ("up", "--app", "a:b"): ("--app", "inv down"),
    }.items():
        one_line(commands(*arguments), 2, *words)
    one_line(commands("rollback"), 1, "nothing to roll back to")
    commands.ok("down")
