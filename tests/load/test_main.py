"""The command, from its arguments to its exit status and report, with real generator processes."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from shards.load import scenarios
from tests.load.server import running, until

SMALL = ("--connections", "20", "--group-size", "20", "--rate", "2000", "--duration", "1.5", "--processes", "1")


@pytest.fixture
def tmp_path(tmp_path: Path) -> Path:
    """A folder whose scenarios put up with a generator that shares its cores with other tests."""
    text = (scenarios.repository() / "invoke.yaml").read_text()
    (tmp_path / "invoke.yaml").write_text(text.replace("  run:  ", "  run:\n    lag_ms: 2000\n  #"))
    return tmp_path


async def start(folder: Path, *arguments: str, **environment: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "shards.load", *arguments),
        cwd=folder,
        env=os.environ | environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def load(folder: Path, *arguments: str, **environment: str) -> tuple[int | None, str]:
    """Run the command; give its exit status and the last line it said."""
    process = await start(folder, *arguments, **environment)
    async with asyncio.timeout(60):
        out, err = await process.communicate()
    return process.returncode, (out or err).decode().strip().splitlines()[-1]


def report(folder: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((folder / "reports" / "run.json").read_text())
    return document


async def test_a_run_that_passes(tmp_path: Path) -> None:
    async with running() as server:
        status, said = await load(tmp_path, "run", "--url", server.url, *SMALL, "--during", "echo done")
    document = report(tmp_path)
    assert (status, document["verdict"]) == (0, "pass"), document
    assert said == "run: pass — reports/run.json and run.html"
    assert (tmp_path / "reports" / "run.html").is_file()
    messages = document["messages"]
    assert messages["expected"] == messages["delivered"] == 20 * messages["published"] > 0
    assert sum(second["delivered"] for second in document["timeline"]) == messages["delivered"]
    names = [event["name"] for event in document["events"]]
    assert names == ["connected", "echo done: start", "echo done: end"]
    assert document["events"][-1]["output"] == ["done"]


async def test_a_loss_fails_the_run(tmp_path: Path) -> None:
    async with running(deliver=lambda s, offset, frame: [] if (s, offset) == (3, 7) else [frame]) as server:
        status, said = await load(tmp_path, "run", "--url", server.url, *SMALL)
    document = report(tmp_path)
    assert (status, said) == (1, "run: fail — reports/run.json and run.html")
    assert {t["name"] for t in document["targets"] if not t["ok"]} == {"lost", "unannounced_gaps"}
    assert document["messages"]["lost"] == 1


async def test_a_command_that_fails_meanwhile_fails_the_run(tmp_path: Path) -> None:
    async with running() as server:
        status, _ = await load(tmp_path, "run", "--url", server.url, *SMALL, "--during", "exit 3")
    assert status == 1
    assert [(t["name"], t["measured"]) for t in report(tmp_path)["targets"] if not t["ok"]] == [("during_exit", 3)]


async def test_many_runs_are_summed_up_and_one_failure_fails_them(tmp_path: Path) -> None:
    """The second run's clients are sockets 20 to 39, its messages those from 151 on."""
    lost = (23, 200)
    async with running(deliver=lambda s, offset, frame: [] if (s, offset) == lost else [frame]) as server:
        status, said = await load(tmp_path, "run", "--url", server.url, *SMALL, RUNS="2")
    assert (status, said) == (1, "run: passed 1 of 2")
    summary = json.loads((tmp_path / "reports" / "run-runs.json").read_text())
    assert (summary["verdict"], summary["runs"], summary["passed"]) == ("fail", 2, 1)
    assert [one["missed"] for one in summary["results"]] == [[], ["lost", "unannounced_gaps"]]
    assert summary["results"][1]["seed"] == summary["results"][0]["seed"] + 1
    for one in summary["results"]:
        assert json.loads((tmp_path / "reports" / one["report"]).read_text())["load"]["seed"] == one["seed"]


async def test_a_stall_is_seen_by_all_who_were_due_in_it(tmp_path: Path) -> None:
    """Coordinated omission: one publish in 150 stalls for half a second; a third of them were due meanwhile."""
    async with running(stall=(50, 0.5)) as server:
        await load(tmp_path, "run", "--url", server.url, *SMALL)
    latency = report(tmp_path)["latency_ms"]
    assert latency["p95"] > 300, latency


async def test_stopped_it_still_reports(tmp_path: Path) -> None:
    async with running() as server:
        process = await start(tmp_path, "run", "--url", server.url, *SMALL, "--duration", "60")
        await until(lambda: len(server.log) > 20, seconds=30)
        process.send_signal(signal.SIGINT)
        async with asyncio.timeout(30):
            await process.communicate()
    assert (process.returncode, report(tmp_path)["verdict"]) == (1, "aborted")
    assert report(tmp_path)["messages"]["delivered"] > 0


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (("loadtest-10k", "--connections", "0"), 2, "'0' is no whole number from 1 up"),
        (("loadtest-10k", "--connections", "9000000"), 2, "at most "),
        (("loadtest-10k", "--rate", "-1"), 2, "is no number above 0"),
        (("nonsense",), 2, "invalid choice: 'nonsense'"),
        (("run", "--url", "http://127.0.0.1:1/"), 2, "is no WebSocket address"),
        (("run", "--url", "ws://127.0.0.1:1/ws/"), 1, "nobody answers at ws://127.0.0.1:1/ws/"),
    ],
)
async def test_wrong_usage_is_one_line(tmp_path: Path, arguments: tuple[str, ...], status: int, says: str) -> None:
    got, said = await load(tmp_path, *arguments)
    assert got == status
    assert says in said


async def test_the_environment_gives_defaults(tmp_path: Path) -> None:
    assert await load(tmp_path, "loadtest-10k", N="0") == await load(tmp_path, "loadtest-10k", "--connections", "0")
