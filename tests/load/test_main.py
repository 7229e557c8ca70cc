"""The command, from its arguments to its exit status and report, with real generator processes."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from websockets.protocol import State

from shards.errors import ShardsError
from shards.load import __main__ as command
from shards.load import scenarios
from shards.load.coordinator import Load
from shards.load.report import Run
from shards.load.scenarios import Scenario
from shards.load.watch import Show
from tests.load.server import Server, running, until
from tests.load.test_report import outcome

SMALL = ("--connections", "20", "--group-size", "20", "--rate", "2000", "--duration", "1.5", "--processes", "1")


def patient(folder: Path) -> Path:
    """Have the scenarios of a folder put up with a generator that shares its cores with other tests."""
    text = (scenarios.repository() / "invoke.yaml").read_text()
    (folder / "invoke.yaml").write_text(text.replace("  run:  ", "  run:\n    lag_ms: 20000\n  #"))
    return folder


@pytest.fixture
def tmp_path(tmp_path: Path) -> Path:
    return patient(tmp_path)


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
    async with asyncio.timeout(240):
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
    assert names == ["connected", "load", "echo done: start", "echo done: end"]
    assert document["events"][-1]["output"] == ["done"]


async def test_a_load_of_a_second_knows_how_late_its_generator_was(tmp_path: Path) -> None:
    async with running() as server:
        await load(tmp_path, "run", "--url", server.url, *SMALL, "--duration", "1")
    assert report(tmp_path)["generator"]["max_lag_ms"] > 0


async def test_a_loss_fails_the_run(tmp_path: Path) -> None:
    async with running(deliver=lambda s, offset, frame: [] if (s, offset) == (3, 7) else [frame]) as server:
        status, said = await load(tmp_path, "run", "--url", server.url, *SMALL)
    document = report(tmp_path)
    assert (status, said) == (1, "run: fail — reports/run.json and run.html")
    assert {t["name"] for t in document["targets"] if not t["ok"]} == {"lost", "unannounced_gaps"}
    assert document["messages"]["lost"] == 1


async def test_a_target_may_be_set_on_the_command_line(tmp_path: Path) -> None:
    async with running() as server:
        status, _ = await load(tmp_path, "run", "--url", server.url, *SMALL, "--target", "p50_ms<0.0001")
    assert (status, missed(report(tmp_path))) == (1, {"p50_ms"})


def missed(document: dict[str, Any]) -> set[str]:
    return {target["name"] for target in document["targets"] if not target["ok"]}


async def error_frame(server: Server) -> None:
    await server.say(server.sockets[3], type="error", code="bad_message", message="what?")


async def throw_out(server: Server) -> None:
    await server.sockets[3].close(1008)


async def lock_out(server: Server) -> None:
    server.refuse = 503
    await server.sockets[3].close(1012)


@pytest.mark.parametrize(
    ("mistake", "figure", "kind"),
    [
        ({"at": {7: error_frame}}, "protocol_errors", "error frame bad_message"),
        ({"unavailable": {"7": 10**6}}, "unacked", "publish refused: unavailable"),
        ({"at": {7: throw_out}}, "not_back", "closed for good with 1008"),
        ({"at": {7: lock_out}}, "not_back", "reconnect failed: HTTP 503"),
    ],
)
async def test_whatever_goes_wrong_with_a_client_fails_the_run(
    tmp_path: Path, mistake: dict[str, Any], figure: str, kind: str
) -> None:
    async with running(**mistake) as server:
        status, _ = await load(tmp_path, "run", "--url", server.url, *SMALL)
    document = report(tmp_path)
    assert status == 1
    assert figure in missed(document) <= {figure, "unacked", "lost", "delivered_share"}, document["targets"]
    assert kind in [error["kind"] for error in document["errors"]]


async def test_a_publish_that_was_refused_and_then_acked_is_told_and_no_failure(tmp_path: Path) -> None:
    """Its publisher has nothing else to say until then, which would overtake it."""
    async with running(unavailable={"7": 1}) as server:
        status, _ = await load(tmp_path, "run", "--url", server.url, *SMALL, "--rate", "150")
    document = report(tmp_path)
    assert status == 0, document["targets"]
    assert document["errors"] == [{"kind": "publish refused: unavailable", "count": 1, "example": "publish it again"}]


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


async def test_steps_become_one_report_and_runs_are_kept(tmp_path: Path) -> None:
    async with running() as server:
        status, _ = await load(tmp_path, "run", "--url", server.url, *SMALL, "--steps", "10,20")
    document = report(tmp_path)
    assert (status, document["verdict"]) == (0, "pass"), document
    assert [(step["connections"], step["opened"]) for step in document["steps"]] == [(10, 10), (20, 20)]
    assert document["steps"][1]["delivered_per_s"] > document["steps"][0]["delivered_per_s"]
    assert "passed 1 of 1" in (tmp_path / "reports" / "index.html").read_text()
    assert len(list((tmp_path / "reports" / "history" / "run").glob("*.html"))) == 1


async def test_a_stall_is_seen_by_all_who_were_due_in_it(tmp_path: Path) -> None:
    """Coordinated omission: one publish in 150 stalls for half a second; a third of them were due meanwhile."""
    async with running(stall=(50, 0.5)) as server:
        await load(tmp_path, "run", "--url", server.url, *SMALL)
    latency = report(tmp_path)["latency_ms"]
    assert latency["p95"] > 300, latency


async def test_a_stall_of_a_second_each_5_s_is_in_the_corrected_p99_and_not_in_the_naive_one(tmp_path: Path) -> None:
    """Both from one run: 1 in 5 messages is due in a stall, and of 400 of them a closed loop would have sent one.

    So long a stall, that those of a busy machine are nothing beside it.
    """
    two = ("--connections", "2", "--group-size", "2", "--rate", "800", "--duration", "10.5", "--processes", "1")
    async with running(pause=(5, 1)) as server:
        await load(tmp_path, "run", "--url", server.url, *two)
    latency = report(tmp_path)["latency_ms"]
    assert latency["p99"] > 500, latency
    assert latency["naive_p99"] < latency["p99"] / 2, latency


async def test_a_stall_of_200_ms_each_5_s_is_in_the_corrected_p99_only(tmp_path: Path) -> None:
    """1 in 25 messages is due in a stall, and a closed loop would have sent 1 in 2,000 then, two in all.

    What else keeps a busy machine is in both figures, and less than a quarter of a stall.
    """
    two = ("--connections", "2", "--group-size", "2", "--rate", "800", "--duration", "10.5", "--processes", "1")
    async with running(pause=(5, 0.2)) as server:
        await load(tmp_path, "run", "--url", server.url, *two)
    latency = report(tmp_path)["latency_ms"]
    assert latency["p99"] > 100, latency
    assert latency["naive_p99"] < latency["p99"] / 4, latency
    assert latency["naive_p99"] < 50, latency


async def test_a_rate_follows_its_shape_and_so_do_connects(tmp_path: Path) -> None:
    """A ramp sends a quarter of its messages in the first half of the time; half of the connects come in the spike."""
    shapes = ("--shape", "ramp:0-4000", "--connect-shape", "spike:25-100")
    async with running() as server:
        arguments = (*SMALL[:2], *SMALL[2:4], "--duration", "4", "--processes", "1", *shapes)
        status, _ = await load(tmp_path, "run", "--url", server.url, *arguments)
        published = [json.loads(frame)["data"]["t"] for frame in server.log]
    document = report(tmp_path)
    assert status == 0, document
    assert len(published) == document["messages"]["published"] == 400
    half = (min(published) + max(published)) / 2
    assert sum(1 for due in published if due < half) == pytest.approx(100, abs=12)
    assert document["load"]["rate"] == 2000
    assert document["connections"]["rate_per_s"] > 25


async def test_stopped_it_still_reports(tmp_path: Path) -> None:
    async with running() as server:
        process = await start(tmp_path, "run", "--url", server.url, *SMALL, "--duration", "60")
        await until(lambda: len(server.log) > 20, seconds=120)
        process.send_signal(signal.SIGINT)
        async with asyncio.timeout(120):
            await process.communicate()
    assert (process.returncode, report(tmp_path)["verdict"]) == (1, "aborted")
    assert report(tmp_path)["messages"]["delivered"] > 0


@pytest.mark.parametrize("often", [1, 2])
async def test_stopped_while_it_settles_it_still_reports_and_stopped_again_it_waits_no_more(
    tmp_path: Path, often: int
) -> None:
    """One publish is never acked, so that it would settle for 15 s."""
    async with running(mute=1) as server:
        process = await start(tmp_path, "run", "--url", server.url, *SMALL)
        assert process.stderr is not None
        async with asyncio.timeout(120):
            while b"settle" not in await process.stderr.readline():
                pass
            begin = time.monotonic()
            for _ in range(often):
                await asyncio.sleep(1)
                process.send_signal(signal.SIGINT)
            await process.communicate()
    document = report(tmp_path)
    assert (process.returncode, document["verdict"]) == (1, "aborted")
    assert sum(second["delivered"] for second in document["timeline"]) > 0
    if often == 1:
        assert (document["messages"]["delivered"] > 0, document["problems"]) == (True, [])
    else:
        assert document["problems"][0].startswith("stopped before 1 of 1 generator processes were through")
        assert time.monotonic() - begin < 12


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_stopped_between_two_steps_it_reports_those_that_were_made(tmp_path: Path, number: int) -> None:
    """The server says that it holds sockets, so that the second step waits for them to go."""
    async with running(metrics='app_active_connections{replica="blue-0",color="blue"} 5\n') as server:
        process = await start(tmp_path, "run", "--url", server.url, *SMALL, "--steps", "10,20")
        await until(
            lambda: len(server.sockets) == 10 and all(socket.state is State.CLOSED for socket in server.sockets),
            seconds=120,
        )
        await asyncio.sleep(2)
        process.send_signal(number)
        async with asyncio.timeout(60):
            await process.communicate()
    document = report(tmp_path)
    assert (process.returncode, document["verdict"]) == (1, "aborted")
    assert [step["connections"] for step in document["steps"]] == [10]
    assert document["problems"] == ["the step of 20 connections did not come about: stopped"]


def test_a_step_that_does_not_come_about_takes_no_other_away(monkeypatch: pytest.MonkeyPatch) -> None:
    runs = iter([Run(Load("ws://127.0.0.1:1/ws/", 10, 1, 10), outcome(opened=10, open=10), {}, [])])

    async def run(*_: object) -> Run:
        for one in runs:
            return one
        raise ShardsError("the server is gone")

    monkeypatch.setattr(command, "_run", run)
    scenario = Scenario("run", 20, 1, 10, processes=1, steps=(10, 20))
    options = command._parser(["run"]).parse_args(["run"])
    document = command._document(scenario, "ws://127.0.0.1:1/ws/", None, 1, options, Show())
    assert (document["verdict"], [step["connections"] for step in document["steps"]]) == ("fail", [10])
    assert document["problems"] == ["the step of 20 connections did not come about: the server is gone"]
    with pytest.raises(ShardsError, match="the server is gone"):
        command._document(scenario, "ws://127.0.0.1:1/ws/", None, 1, options, Show())


async def test_a_token_is_in_no_file(tmp_path: Path) -> None:
    async with running() as server:
        await load(tmp_path, "run", "--url", f"{server.url}?token=swordfish", *SMALL, "--http-probe")
    assert report(tmp_path)["load"]["url"] == f"{server.url}?…"
    written = [path for path in (tmp_path / "reports").rglob("*") if path.is_file()]
    assert len(written) > 3
    assert not [path for path in written if b"swordfish" in path.read_bytes()]


async def test_nobody_is_killed_for_a_fleet_that_is_not_known_here(tmp_path: Path) -> None:
    async with running() as server:
        status, said = await load(tmp_path, "spike", "--url", server.url, "--project", "no-such-fleet", N="20")
        assert not server.sockets
    assert status == 2
    assert said.startswith(f"error: `inv status --project no-such-fleet` knows no fleet at {server.url}, so nothing")


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (("loadtest-10k", "--connections", "0"), 2, "'0' is no whole number from 1 up"),
        (("loadtest-10k", "--connections", "9000000"), 2, "at most "),
        (("loadtest-10k", "--connections", "9" * 12), 2, "need more ports than this host gives"),
        (("loadtest-10k", "--rate", "-1"), 2, "is no number above 0"),
        (("gradual", "--steps", "1000,many"), 2, "'many' is no whole number from 1 up"),
        (("gradual", "--steps", "1000,9000000"), 2, "at most "),
        (
            ("run", "--connections", "1000000"),
            2,
            "1000000 connections are more than a fleet on this host",
        ),
        (("run", "--target", "p99_ms fast"), 2, "'fast' is no target: write for instance '>= 0.999' or '< 50'"),
        (("run", "--target", "speed > 9"), 2, "no figure is called speed; there are: connect_success"),
        (("run", "--shape", "hill:1-2"), 2, "'hill:1-2' is no shape: write for instance constant:5000, ramp:0-20000"),
        (("run", "--shape", "ramp:0-9", "--rate", "5"), 2, "give one of them"),
        (("run", "--group-size", "25000", "--connections", "25000"), 2, "25000 connections in one process"),
        (
            ("run", "--url", "wss://127.0.0.1:1/ws/", "--ca", "/dev/null"),
            2,
            "--ca /dev/null is no file of certificates",
        ),
        (("run", "--url", "wss://127.0.0.1:1/ws/", "--ca", "nowhere"), 2, "No such file"),
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
