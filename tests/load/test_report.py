"""The verdict follows from the targets, and the files say what was seen."""

from __future__ import annotations

import errno
import json
import os
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from shards.errors import ShardsError, UsageError
from shards.load import page, report
from shards.load.coordinator import Load, Outcome, Second
from shards.load.histogram import Histogram, steps
from shards.load.ledger import Account, Tally
from shards.load.probe import HttpProbe
from shards.load.report import Run
from shards.load.scenarios import Event, Target

LOAD = Load(url="ws://127.0.0.1:1/ws/", connections=100, duration_s=10, rate=1000)
TARGETS = {"connect_success": Target(">= 0.999"), "lost": Target("== 0"), "p99_ms": Target("< 50")}


def outcome(**changes: object) -> Outcome:
    made = Outcome(
        opened=100,
        open=100,
        load_s=10,
        connect_s=0.1,
        tally=Tally(published=1000, acked=1000, expected=10_000, delivered=10_000),
    )
    made.latency.record(steps([5_000_000] * 1000))
    made.timeline = {-1: Second(), 0: Second(100, 100, 5000, 5, 6), 1: Second(100, 100, 5000, 5, 60)}
    made.events = [{"t": 0.5, "name": "<b>promote"}]
    for name, value in changes.items():
        setattr(made, name, value)
    return made


def document(seen: Outcome) -> dict[str, Any]:
    resources = [
        {
            "name": "edge-0",
            "rss_max_bytes": 5,
            "cpu_max_percent": 1.0,
            "cpu_mean_percent": 1.0,
            "files_max": 3,
            "samples": [],
        },
    ]
    return report.build("loadtest-10k", TARGETS, Run(LOAD, seen, {}, resources))


def references(page: str) -> list[str]:
    """Find what a page would have a browser fetch or run, and whatever else names another host: of SVG only what its
    format is called, and of text the address that was loaded."""
    return re.findall(
        r"\b(?:src|srcset|href|action|poster)\s*=[^\s>]*|url\(|@import|<script|//",
        re.sub(r'xmlns(:\w+)?="http://www\.w3\.org/[^"]*"|>wss?://', "", page),
        re.IGNORECASE,
    )


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        ({}, "pass"),
        ({"opened": 99}, "fail"),
        ({"tally": Tally(lost=1)}, "fail"),
        ({"problems": ["generator process 1 ended before it was through"]}, "fail"),
        ({"aborted": True}, "aborted"),
    ],
    ids=["well", "connections", "lost", "problem", "aborted"],
)
def test_the_verdict(changes: dict[str, object], verdict: str) -> None:
    assert document(outcome(**changes))["verdict"] == verdict


@pytest.mark.parametrize("figure", ["gaps", "unannounced_gaps", "unacked", "overtaken"])
def test_what_a_dialect_without_offsets_can_not_show_is_left_out(figure: str) -> None:
    run = Run(replace(LOAD, dialect="plain"), outcome(), {}, [])
    assert report.judge({figure: Target("== 0")}, run) == []


def lagging(ms: float) -> Histogram:
    made = Histogram()
    made.record(steps([int(ms * 1e6)]))
    return made


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"lag": lagging(12)}, "it was 12.0 ms behind its schedule at p99 (10 ms may be)"),
        ({"cpu_percent": 96.0}, "one of its processes used 96.0 % of a core in the load (95 % may be)"),
        ({"connect_cpu_percent": 97.0}, "one of its processes used 97.0 % of a core connecting (95 % may be)"),
        ({"failures": Counter({os.strerror(errno.EMFILE): 1})}, "one of its processes had no file left to open"),
    ],
)
def test_a_saturated_generator_is_one_in_words_that_say_in_what(changes: dict[str, Any], why: str) -> None:
    found = document(outcome(**changes))
    assert (found["verdict"], found["generator"]["saturated_by"]) == ("fail", [why])
    assert f"saturated: {why}." in page.render(found)


def test_a_generator_that_keeps_up_is_not_saturated() -> None:
    assert report.saturated(outcome(lag=lagging(9.9), cpu_percent=95.0, connect_cpu_percent=95.0), lag_ms=10) == []


def test_latency_beyond_its_target_fails() -> None:
    slow = outcome()
    slow.latency.record(steps([60_000_000] * 20))
    assert document(slow)["verdict"] == "fail"


def test_what_was_not_measured_is_missed() -> None:
    judged = report.judge({"p99_ms": Target("< 50")}, Run(LOAD, Outcome(), {}, []))
    assert judged == [{"name": "p99_ms", "target": "< 50", "measured": None, "ok": False}]


@pytest.mark.parametrize(
    ("figure", "changes"),
    [
        ("http_errors", {"probe_url": "http://127.0.0.1:1/"}),
        ("during_exit", {"events": (Event(1, command="true"),)}),
        ("memory_gb", {"project": "mine"}),
        ("not_steady", {"project": "mine"}),
    ],
)
def test_what_a_run_does_not_have_is_left_out_and_said(figure: str, changes: dict[str, Any], tmp_path: Path) -> None:
    targets = {figure: Target("== 0")}
    without, asked = Run(LOAD, Outcome(), {}, []), Run(replace(LOAD, **changes), Outcome(), {}, [])
    assert (report.judge(targets, without), list(report.left_out(targets, without))) == ([], [figure])
    report.write(report.build("run", targets, without), tmp_path / "r.json")
    assert "left out: " in (tmp_path / "r.html").read_text()
    assert [target["ok"] for target in report.judge(targets, asked)] == [False]
    assert report.left_out(targets, asked) == {}


@pytest.mark.parametrize(
    ("figure", "run"),
    [
        ("redis_clients_risen", {"redis_clients": (7,)}),
        ("memory_gb", {"resources": [{"name": "generator-0", "rss_max_bytes": 1, "samples": []}]}),
        ("ended", {"resources": [{"name": "generator-0", "samples": [{"t": 0.0}]}]}),
        ("http_errors", {"outcome": outcome(probe=HttpProbe("http://127.0.0.1:1/"))}),
    ],
)
def test_what_nobody_saw_of_the_fleet_was_not_measured(figure: str, run: dict[str, Any]) -> None:
    load = replace(LOAD, project="mine", probe_url="http://127.0.0.1:1/")
    made = Run(**{"load": load, "outcome": outcome(), "fleet": {}, "resources": [], **run})
    assert report.judge({figure: Target("< 4")}, made)[0]["measured"] is None


def test_a_process_that_is_in_a_container_takes_what_the_fleet_says_that_it_takes() -> None:
    fleet = {"edges": [{"name": "edge-0", "pid": None, "rss_bytes": 5_000_000_000}]}
    judged = report.judge({"memory_gb": Target("< 4")}, Run(LOAD, outcome(), fleet, []))
    assert [(target["measured"], target["ok"]) for target in judged] == [(5.0, False)]


@pytest.mark.parametrize(
    ("sampled", "told"), [((2, 5, 1), (3,)), ((2, 1), (5, 3))], ids=["one of this host", "one in a container elsewhere"]
)
def test_memory_is_that_of_the_largest_process_wherever_that_is(
    sampled: tuple[int, ...], told: tuple[int, ...]
) -> None:
    """The generator's, which is larger still, is not the fleet's."""
    seen = [{"name": f"blue-{n}", "rss_max_bytes": gb * 10**9} for n, gb in enumerate(sampled)]
    generator = {"name": "generator-0", "rss_max_bytes": 9 * 10**9}
    fleet = {"edges": [{"name": f"edge-{n}", "rss_bytes": gb * 10**9} for n, gb in enumerate(told)]}
    [judged] = report.judge({"memory_gb": Target("< 4")}, Run(LOAD, outcome(), fleet, [*seen, generator]))
    assert (judged["measured"], judged["ok"]) == (5.0, False)


def limited(*samples: tuple[str, float, float]) -> Run:
    """A run whose load is from second 1 to 3, with a replica that may use two cores, and what was seen of processes."""
    fleet = {"replicas": [{"name": "blue-0", "cpu_limit_percent": 200.0}], "edges": [{"name": "edge-0"}]}
    names = dict.fromkeys(name for name, _, _ in samples)
    seen = [
        {"name": name, "samples": [{"t": t, "cpu_percent": cpu} for one, t, cpu in samples if one == name]}
        for name in names
    ]
    load = [{"t": 1.0, "name": "load"}]
    return Run(LOAD, outcome(events=load, load_s=2), fleet, seen)


def test_a_part_with_a_limit_is_held_against_it_with_its_workers_while_the_load_lasts() -> None:
    run = limited(
        ("blue-0", 0.5, 200), ("blue-0", 2, 90), ("blue-0/0", 2, 70), ("blue-0/0", 2.5, 80), ("edge-0", 2, 190)
    )
    (judged,) = report.judge({"cpu_share": Target("< 0.8")}, run)
    assert (judged["measured"], judged["ok"]) == (0.825, False)


def test_a_part_with_a_limit_that_nobody_looked_at_was_not_measured() -> None:
    assert [one["measured"] for one in report.judge({"cpu_share": Target("< 0.8")}, limited())] == [None]


def test_a_limited_part_that_came_after_the_load_hides_nothing_of_those_that_bore_it() -> None:
    run = limited(("blue-0", 2, 90), ("green-0", 4, 100))
    newcomer = {"name": "green-0", "cpu_limit_percent": 100.0}
    run.fleet["replicas"].insert(0, newcomer)
    (judged,) = report.judge({"cpu_share": Target("< 0.8")}, run)
    assert (judged["measured"], judged["ok"]) == (0.45, True)


def test_no_target_judged_is_no_pass() -> None:
    assert report.verdict([], outcome(), False) == "fail"


def test_a_target_for_no_figure_is_refused() -> None:
    with pytest.raises(UsageError, match=r"no figure is called losses; there are: connect_success, "):
        report.check({"losses": Target("== 0")})


def test_what_is_delivered_when_the_load_is_over_is_no_rate() -> None:
    behind = outcome()
    behind.timeline = {0: Second(100, 100, 0), 12: Second(100, 0, 10_000, 9000, 9000)}
    assert document(behind)["messages"]["per_s"] == 0


def test_the_files(tmp_path: Path) -> None:
    path = tmp_path / "reports" / "loadtest-10k.json"
    report.write(document(outcome()), path)
    written = json.loads(path.read_text())
    assert written["messages"]["per_s"] == 1000
    assert written["latency_ms"]["corrected"] is True
    assert [second["t"] for second in written["timeline"]] == [0, 1]
    page = path.with_suffix(".html").read_text()
    assert page.startswith("<!doctype html>")
    assert "<b>promote" not in page
    assert references(page) == []
    assert sorted(p.name for p in path.parent.iterdir()) == ["loadtest-10k.html", "loadtest-10k.json"]


def test_a_report_that_cannot_be_written_says_why(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ShardsError, match="cannot write the report"):
        report.write(document(outcome()), tmp_path / "file" / "r.json")


def test_a_run_that_saw_nothing_still_gives_a_page(tmp_path: Path) -> None:
    report.write(report.build("run", TARGETS, Run(LOAD, Outcome(), {}, [])), tmp_path / "r.json")
    page = (tmp_path / "r.html").read_text()
    assert "nothing was measured" in page
    assert "<span class=measured>not measured</span>" in page


def test_the_page_counts_what_was_overtaken_among_what_is_wrong() -> None:
    found = page.render(document(outcome(tally=Tally(overtaken=5))))
    assert "<li class=fail><span class=soft>lost or wrong</span><b>5</b>" in found


def test_the_page_names_those_who_lost_something_and_not_those_to_whom_something_came_late() -> None:
    late, lossy = Account(1, Tally(late=3), [], "room-1"), Account(7, Tally(lost=1), ["lost: id 3"], "room-7")
    told = page.render(document(outcome(amiss=2, accounts=[lossy, late])))
    assert "client 7 of room-7" in told
    assert "lost: id 3" in told
    assert "client 1 of room-1" not in told
    assert "went wrong" not in page.render(document(outcome(amiss=1, accounts=[late])))


def test_the_page_says_where_the_generator_was() -> None:
    assert "generator on a host of " in page.render(document(outcome()))
    elsewhere = [{"process": n, "host": host} for n, host in enumerate(("a", "b", "b"))]
    assert "generators on 2 other hosts, led from a host of " in page.render(document(outcome(hosts=elsewhere)))


def test_the_naive_line_is_drawn_from_what_was_measured_at_each_percentile() -> None:
    seen = outcome()
    seen.naive.record(steps([1_000_000] * 94 + [9_000_000] * 6))
    found = {one["percentile"]: one["naive_ms"] for one in document(seen)["latency_ms"]["percentiles"]}
    assert (found[90], found[95]) == (pytest.approx(1, rel=0.01), pytest.approx(9, rel=0.01))


def test_what_a_closed_loop_would_have_found_is_told_by_the_same_percentiles() -> None:
    seen = outcome()
    seen.naive.record(steps([1_000_000] * 98 + [50_000_000] * 2))
    found = document(seen)["latency_ms"]
    assert [found[f"naive_{name}"] for name in ("p50", "p99", "mean")] == pytest.approx([1, 50, 1.98], rel=0.01)


def test_the_slowest_second_of_an_event_is_the_one_with_the_highest_p99() -> None:
    """Though others have a higher median."""
    seen = outcome(events=[{"t": 0.0, "name": "promote: start"}, {"t": 2.5, "name": "promote: end"}])
    seen.timeline = {0: Second(100, 100, 5000, 5, 6), 1: Second(100, 100, 5000, 4, 60), 2: Second(100, 100, 5000, 9, 9)}
    found = document(seen)
    assert [one["slowest_p99_ms"] for one in found["disruptions"]] == [60]
    assert [(second["p50_ms"], second["p99_ms"]) for second in found["timeline"]] == [(5, 6), (4, 60), (9, 9)]


def test_who_came_back_is_told_with_how_long_it_took() -> None:
    seen = outcome()
    assert document(seen)["resume_ms"] is None
    seen.away.record(steps([100_000_000] * 99 + [2_000_000_000]))
    found = document(seen)["resume_ms"]
    assert isinstance(found, dict)
    assert found["count"] == 100
    assert found["p50"] == pytest.approx(100, rel=0.01)
    assert found["max"] == pytest.approx(2000, rel=0.01)


@pytest.mark.parametrize(("state", "ok"), [("steady", True), ("degraded", False)])
def test_a_fleet_that_did_not_heal_is_seen(state: str, ok: bool) -> None:
    run = Run(LOAD, outcome(), {"state": state}, [])
    assert [target["ok"] for target in report.judge({"not_steady": Target("== 0")}, run)] == [ok]
    lost_sight_of = Run(replace(LOAD, project="mine"), outcome(), {}, [])
    assert not report.judge({"not_steady": Target("== 0")}, lost_sight_of)[0]["ok"]


def test_durations_are_told_as_people_read_them() -> None:
    assert [page.duration(ms) for ms in (1.234, 99.96, 354.3, 4_931.6, 61_000)] == [
        "1.2 ms",
        "100.0 ms",
        "354 ms",
        "4.9 s",
        "61.0 s",
    ]
