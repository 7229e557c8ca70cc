"""The cross-check with tsung: both tools are given the same load, and a difference is found."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import psutil
import pytest

from bench.crosscheck import __main__ as command
from bench.crosscheck import agreement, referee, tools, tsung
from bench.crosscheck.agreement import OURS, THEIRS, Turn
from bench.crosscheck.plan import FIGURES, Plan
from bench.crosscheck.referee import Counts
from shards.consumers import origin_allowed
from shards.errors import ShardsError, UsageError
from shards.load.frames import Stamp, publish_template
from shards.load.schedule import even_groups, publishes
from tests.load.server import running

PLAN = Plan(connections=40, connect_rate=20, publish_rate=10, wanted_s=21)

LOG = """\
# stats: dump at 1795578299
stats: users 10 10
stats: {cpu,"tsung_controller@127.0.0.1"} 1 73.49703386648645 0 73.49703386648645 73.49703386648645 0 0
stats: users_count 10 10
stats: request 73 3.2710136986301372 4.670049178389824 23.452 0.482 0 0
stats: tr_publish 63 3.0051111111111095 3.834712092051261 27.45 0.95 0 0
stats: async_unknown_data_rcv 586 586
stats: connected 10 10
stats: websocket_succ 10 10
# stats: dump at 1795578309
stats: users 10 10
stats: tr_publish 100 3.1 2.8 27.45 0.785 3.0051111111111095 63
stats: connected 0 10
stats: websocket_succ 0 10
# stats: dump at 1795578319
stats: users 0 10
stats: tr_publish 57 3.67180701754386 2.840265205300727 27.45 0.785 3.0051111111111095 163
stats: connected -10 0
stats: websocket_succ 0 10
EndMonitor:{1795,578307,205808}
"""

SAMPLES = """\
{sample,page,[2.054,1.46,1.35,0.905,2.086]}
[{sum,size_sent,450},{sum,async_unknown_data_rcv,45},{sum,size_rcv,5834}]
{sample,request,[1.064,4.391,1.887,7.278,14.78]}
[{sample,tr_publish,1.0},
 {sample,tr_publish,2},
 {sample,tr_publish,9.0}]
{sample,tr_publish,[3.0,10.0]}
"""


def test_tsung_publishes_when_ours_does() -> None:
    """Our schedule, and what tsung is told, agree on the moment of each socket's first message."""
    groups = even_groups(PLAN.connections, PLAN.group_size, PLAN.publish_rate * PLAN.group_size)
    due = {
        groups[position].members[turn % PLAN.group_size]: seconds
        for seconds, position, turn in islice(publishes(groups), PLAN.connections)
    }
    theirs = [socket.start_s + socket.wait_s - PLAN.begin_s for socket in PLAN.sockets()]
    assert theirs == pytest.approx([due[number] for number in range(PLAN.connections)])


def test_each_socket_has_its_turn_equally_often() -> None:
    assert (PLAN.each, PLAN.interval_s, PLAN.duration_s) == (5, 4.0, 20.0)
    assert PLAN.expected()["published"] == 200
    assert PLAN.expected()["delivered"] == 2000


@pytest.mark.parametrize(
    ("plan", "says"),
    [
        (replace(PLAN, connections=41), "whole groups"),
        (replace(PLAN, publish_rate=2), "silent"),
        (replace(PLAN, connect_rate=2), "silent"),
    ],
)
def test_a_load_that_both_would_not_do_alike_is_refused(plan: Plan, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        plan.check()


def test_the_scenario_starts_every_socket_and_sends_the_frame_that_ours_sends(tmp_path: Path) -> None:
    root = ElementTree.fromstring(tsung.scenario(PLAN, "127.0.0.1", 8000, tmp_path / "a & b.csv"))
    starts = [int(user.attrib["start_time"]) for user in root.iter("user")]
    assert len(starts) == PLAN.connections
    assert starts == sorted(starts) and starts[-1] - starts[0] == 1500
    (message,) = (one for one in root.iter("websocket") if one.attrib["type"] == "message")
    assert message.text is not None
    sent = message.text.replace("%%_group%%", "room").replace("%%_number%%", "7")
    assert len(sent) == len(publish_template("room", 10**14) % (7, 10**14))
    frame = json.loads(sent)
    assert (frame["type"], frame["group"], frame["id"]) == ("publish", "room", "7")
    assert "t" in Stamp.__struct_fields__ and frame["data"]["t"] > 0


def test_the_service_lets_tsung_in(tmp_path: Path) -> None:
    """It takes tsung for a page of its own host: tsung says the host without a port."""
    root = ElementTree.fromstring(tsung.scenario(PLAN, "127.0.0.1", 8000, tmp_path / "sockets.csv"))
    (connect,) = (one for one in root.iter("websocket") if one.attrib["type"] == "connect")
    assert origin_allowed([(b"host", b"127.0.0.1"), (b"origin", connect.attrib["origin"].encode())], "")
    assert not origin_allowed([(b"host", b"127.0.0.1"), (b"origin", b"127.0.0.1")], "")


def test_each_socket_has_a_line_of_its_own() -> None:
    lines = tsung.socket_lines(PLAN, "a").splitlines()
    assert len(lines) == PLAN.connections
    assert [line.split(";")[0] for line in lines[8:12]] == ["crosscheck-a-0"] * 2 + ["crosscheck-a-1"] * 2


def test_what_tsung_says_is_read_from_its_log() -> None:
    said = tsung.said(tsung.dumps(LOG))
    assert said == {"sockets": 10, "sockets_at_once": 10, "published": 220, "published_per_s": 10.0}


def test_a_rate_is_told_only_by_a_whole_interval() -> None:
    """The first and the last ten seconds hold a part of the load each."""
    assert "published_per_s" not in tsung.said(tsung.dumps(LOG)[1:])


def test_a_log_without_its_end_is_not_complete() -> None:
    assert tsung.complete(LOG)
    assert not tsung.complete(LOG.replace("EndMonitor", "EndMo"))


def test_what_failed_in_tsung_is_named() -> None:
    wrong = LOG.replace("stats: websocket_succ 0 10\nEnd", "stats: error_connect_econnrefused 3 3\nEnd")
    assert tsung.failures(tsung.dumps(LOG)) == []
    assert tsung.failures(tsung.dumps(wrong)) == ["tsung counts 3 x error_connect_econnrefused"]


def test_latencies_are_of_publishes_alone() -> None:
    assert tsung.latency_ms(SAMPLES) == pytest.approx({"mean": 5.0, "p50": 3.0, "p99": 10.0, "max": 10.0}, rel=0.001)


def page(connected: int, published: int) -> str:
    labels = '{color="blue",replica="blue-0",worker="blue-0"}'
    values = {
        "app_active_connections": connected,
        "app_connections_total": connected,
        "app_messages_published_total": published,
        "app_messages_delivered_total": 10 * published,
        "app_publish_seconds_sum": 0.002 * published,
        "app_publish_seconds_count": published,
        "app_gaps_total": 1,
    }
    return "# HELP app_gaps_total Gaps\n" + "".join(f"{name}{labels} {value}\n" for name, value in values.items())


def test_the_referee_sums_up_all_replicas() -> None:
    counts = referee.read(1.0, [page(3, 100), page(4, 50)])
    assert (counts.open, counts.connected, counts.published, counts.delivered) == (7, 7, 150, 1500)


def test_a_page_without_the_counters_is_refused() -> None:
    with pytest.raises(ShardsError, match="app_connections_total"):
        referee.read(1.0, ["", page(1, 1)])


def test_a_pace_is_that_of_the_way_and_not_of_the_waiting() -> None:
    waited = [(0.0, 5.0), (10.0, 5.0), (11.0, 105.0), (12.0, 205.0), (13.0, 305.0), (60.0, 305.0)]
    assert referee.pace(waited) == pytest.approx(100.0)
    assert referee.pace([(0.0, 5.0), (1.0, 5.0)]) == 0.0


def test_a_turn_is_what_came_on_top_of_the_turn_before() -> None:
    readings = [
        Counts(0, 0, 100, 500, 5000, 1.0, 500),
        Counts(1, 50, 150, 500, 5000, 1.0, 500),
        Counts(11, 50, 150, 600, 6000, 1.5, 600),
        Counts(12, 0, 150, 600, 6000, 1.5, 600),
    ]
    found = referee.figures(readings)
    assert tuple(found) == FIGURES
    assert (found["sockets"], found["sockets_at_once"], found["published"], found["delivered"]) == (50, 50, 100, 1000)
    assert (found["connects_per_s"], found["published_per_s"]) == (50.0, 10.0)
    assert referee.publish_ms(readings) == 5.0


LATENCY = {
    OURS: dict.fromkeys(("p50", "p95", "p99", "max", "naive_mean", "naive_p50", "naive_p99"), 1.0),
    THEIRS: dict.fromkeys(("mean", "p50", "p99", "max"), 1.0),
}


def turn(tool: str, number: int, factor: float = 1.0, **more: Any) -> Turn:
    counted = {name: value * factor for name, value in PLAN.expected().items()}
    return Turn(
        **{
            "tool": tool,
            "round": number,
            "counted": counted,
            "said": {"sockets": counted["sockets"], "published": counted["published"]},
            "latency_ms": LATENCY[tool],
            "publish_ms": 1.0,
            "problems": [],
            **more,
        }
    )


def verdict(turns: Sequence[Turn]) -> str:
    return agreement.verdict(agreement.compare(turns), agreement.problems(turns))


@pytest.mark.parametrize(
    ("factor", "expected"), [(1.0, "pass"), (1.04, "pass"), (0.96, "pass"), (1.06, "fail"), (0.94, "fail")]
)
def test_more_than_five_percent_apart_fails(factor: float, expected: str) -> None:
    assert verdict([turn(OURS, 0), turn(THEIRS, 0, factor), turn(OURS, 1), turn(THEIRS, 1, factor)]) == expected


def test_rounds_that_err_to_either_side_do_not_make_up_for_each_other() -> None:
    assert verdict([turn(OURS, 0), turn(THEIRS, 0, 1.2), turn(OURS, 1), turn(THEIRS, 1, 0.8)]) == "fail"


def test_percentiles_of_several_rounds_are_not_averaged() -> None:
    found = [{**LATENCY[OURS], "p99": ms, "max": 10 * ms} for ms in (2.0, 100.0)]
    turns = [turn(OURS, number, latency_ms=one) for number, one in enumerate(found)]
    ours = agreement.latency([*turns, turn(THEIRS, 0)])[OURS]
    assert (ours["p99"], ours["max"]) == (2.0, 1000.0)


@pytest.mark.parametrize("figure", FIGURES)
def test_one_figure_apart_fails(figure: str) -> None:
    theirs = turn(THEIRS, 0)
    theirs.counted[figure] *= 1.1
    rows = agreement.compare([turn(OURS, 0), theirs])
    assert figure in {row.figure for row in rows if not row.ok}


@pytest.mark.parametrize("tool", agreement.TOOLS)
def test_a_tool_that_tells_other_than_the_server_counted_fails(tool: str) -> None:
    turns = [turn(OURS, 0), turn(THEIRS, 0)]
    (liar,) = (one for one in turns if one.tool == tool)
    liar.said["published"] *= 1.06
    assert verdict(turns) == "fail"


def test_where_nothing_was_seen_nothing_agrees() -> None:
    assert verdict([turn(OURS, 0, 0.0), turn(THEIRS, 0, 0.0)]) == "fail"


def test_a_tool_in_trouble_fails() -> None:
    turns = [turn(OURS, 0, problems=["the generator was saturated"]), turn(THEIRS, 0)]
    assert agreement.problems(turns) == ["round 1, ours: the generator was saturated"]
    assert verdict(turns) == "fail"


def test_what_ours_says_of_itself_is_read_from_its_report() -> None:
    report = {
        "problems": [],
        "connections": {"opened": 9, "failed": 1, "rate_per_s": 20.0},
        "messages": {"published": 90, "delivered": 890, "per_s": 89.0, "lost": 10},
        "latency_ms": LATENCY[OURS],
        "generator": {"saturated": True},
        "timeline": [{"connections": 4}, {"connections": 9}],
    }
    claim = tools.claim(report)
    assert claim.said["sockets"] == claim.said["sockets_at_once"] == 9
    assert [problem.split()[-1] for problem in claim.problems] == ["failed", "lost", "saturated"]


@pytest.mark.parametrize(("factor", "status", "word"), [(1.0, 0, "pass"), (1.1, 1, "fail")])
def test_the_command_ends_with_its_verdict(
    factor: float,
    status: int,
    word: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(tools, "check", lambda: None)
    monkeypatch.setattr(command, "_turns", lambda *_: [turn(OURS, 0), turn(THEIRS, 0, factor)])
    path = tmp_path / "crosscheck.json"
    assert command.run(["--connections", "40", "--report", str(path)]) == status
    assert json.loads(path.read_text())["verdict"] == word
    out = capsys.readouterr().out
    assert f"crosscheck: {word}" in out
    assert ("DISAGREE" in out) == (status == 1)
    assert "| messages published |" in path.with_suffix(".md").read_text()


def test_without_tsung_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ShardsError, match="apt-get install tsung"):
        command.run([])


def processes_with(folder: Path) -> list[psutil.Process]:
    return [
        one
        for one in psutil.process_iter(["cmdline"])
        if any(str(folder) in word for word in one.info["cmdline"] or ())
    ]


@pytest.mark.skipif(shutil.which("tsung") is None, reason="no tsung on PATH: apt-get install tsung")
async def test_tsung_does_what_it_is_told_and_leaves_nothing_running(tmp_path: Path) -> None:
    plan = Plan(connections=20, connect_rate=20, publish_rate=20, wanted_s=3)
    async with running() as server:
        claim = await asyncio.to_thread(tools.theirs, plan, server.url, tmp_path)
        groups = [json.loads(text)["group"] for text in server.log]
    assert claim.problems == []
    assert (claim.said["sockets"], claim.said["published"]) == (20, 60)
    assert {group: groups.count(group) for group in groups} == {
        f"crosscheck-{tmp_path.name}-0": 30,
        f"crosscheck-{tmp_path.name}-1": 30,
    }
    assert 0 < claim.latency_ms["p50"] <= claim.latency_ms["max"]
    assert processes_with(tmp_path) == []


@pytest.mark.skipif(shutil.which("tsung") is None, reason="no tsung on PATH: apt-get install tsung")
async def test_sockets_that_tsung_did_not_get_are_a_problem(tmp_path: Path) -> None:
    plan = Plan(connections=10, connect_rate=20, publish_rate=10, wanted_s=1)
    async with running(refuse=503) as server:
        claim = await asyncio.to_thread(tools.theirs, plan, server.url, tmp_path)
    assert claim.said["sockets"] == 0
    assert claim.problems


@pytest.mark.skipif(shutil.which("tsung") is None, reason="no tsung on PATH: apt-get install tsung")
async def test_why_latencies_differ_where_a_server_stalls(tmp_path: Path) -> None:
    """A stall of 200 ms each 5 s: 1 in 25 messages is due in one, and of those tsung sends one a user."""
    plan = Plan(connections=2, connect_rate=2, publish_rate=200, wanted_s=10.5, group_size=2)

    async def latency(tool: tools.Tool, name: str) -> dict[str, float]:
        folder = tmp_path / name
        folder.mkdir()
        async with running(pause=(5, 0.2)) as server:
            claim = await asyncio.to_thread(tool, plan, server.url, folder)
        assert claim.said["published"] == pytest.approx(plan.expected()["published"], rel=0.05)
        return claim.latency_ms

    ours, theirs = await asyncio.gather(latency(tools.ours, OURS), latency(tools.theirs, THEIRS))
    assert ours["p99"] > 100, ours
    assert ours["naive_p99"] < ours["p99"] / 2, ours
    assert theirs["p99"] < ours["p99"] / 2, theirs
    assert theirs["max"] > 100, theirs
