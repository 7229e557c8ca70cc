"""Every target can be missed: a run that is well passes all scenarios, and one that is not in one thing misses that."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from shards.load import report, scenarios
from shards.load.coordinator import Load, Outcome, Second
from shards.load.histogram import Histogram, steps
from shards.load.ledger import Tally
from shards.load.probe import HttpProbe
from shards.load.report import FIGURES, Run
from shards.load.scenarios import Event, Target

SCENARIOS = scenarios.read(scenarios.repository() / "invoke.yaml")
OF_NO_SCENARIO = {
    "p50_ms": Target("< 5"),
    "p95_ms": Target("< 40"),
    "resume_max_ms": Target("< 60000"),
    "late": Target("== 0"),
    "connect_p99_ms": Target("< 1000"),
}
"""Figures that only who asks for them is judged by."""

SECONDS = 30
HALF_A_SECOND = 500_000_000
MS = 1_000_000


def histogram(counts: Mapping[int, int]) -> Histogram:
    """Make a histogram of durations in nanoseconds, each so many times."""
    made = Histogram()
    for duration, count in counts.items():
        made.record({step: count * one for step, one in steps([duration]).items()})
    return made


def process(name: str = "blue-0", seconds: int = SECONDS, **of_second: Callable[[int], float]) -> dict[str, Any]:
    values = {"rss_bytes": lambda t: 100e6, "cpu_percent": lambda t: 50.0, "files": lambda t: 10, **of_second}
    samples = [{"t": float(t), **{key: value(t) for key, value in values.items()}} for t in range(seconds + 1)]
    return {
        "name": name,
        "samples": samples,
        "rss_max_bytes": max(sample["rss_bytes"] for sample in samples),
        "cpu_max_percent": 0.0,
        "cpu_mean_percent": 0.0,
        "files_max": 0,
    }


def well() -> Run:
    """A run with nothing amiss: 10,000 sockets, a replica and an edge that are killed, all of whose clients return."""
    timeline = {t: Second(10_000, 1050, 10_500, 2, 2) for t in range(SECONDS)}
    timeline[5].back = timeline[13].back = 1000
    probe = HttpProbe("http://127.0.0.1:1/")
    probe.requests = 10
    outcome = Outcome(
        load_s=SECONDS,
        opened=10_000,
        open=10_000,
        connect_s=6.0,
        connecting=histogram({5 * MS: 10_000}),
        tally=Tally(published=31_500, acked=31_500, expected=315_000, delivered=315_000),
        publishers=10_000,
        latency=histogram({2 * MS: 1000}),
        away=histogram({HALF_A_SECOND: 2000}),
        lost_in={tenth: Counter(dict.fromkeys(steps([HALF_A_SECOND]), 1000)) for tenth in (45, 125)},
        timeline=timeline,
        events=[
            {"t": 0.0, "name": "load"},
            {"t": 4.0, "name": "kill replica: blue-1", "pid": 1},
            {"t": 12.0, "name": "kill edge: edge-1", "pid": 2},
        ],
        probe=probe,
        during_exit=0,
    )
    load = Load(
        url="ws://127.0.0.1:1/ws/",
        connections=10_000,
        duration_s=SECONDS,
        rate=10_500,
        events=(Event(at=4, kill="replica"), Event(at=12, kill="edge"), Event(at=20, kill="shard")),
        probe_url="http://127.0.0.1:1/livez",
    )
    fleet = {"state": "steady", "replicas": [{"name": "blue-0", "cpu_limit_percent": 200.0}]}
    return Run(load, outcome, fleet, [process()], redis_clients=(7, 7))


def seen(**changes: Any) -> Callable[[], Run]:
    """A run whose outcome is another one in this."""
    return lambda: replace(well(), outcome=replace(well().outcome, **changes))


def counted(**changes: int) -> Callable[[], Run]:
    """A run whose ledger's sums are others in this."""
    return seen(tally=msgspec.structs.replace(well().outcome.tally, **changes))


def grown(**of_second: Callable[[int], float]) -> Callable[[], Run]:
    """A run in which a process of the fleet took something else."""
    return lambda: replace(well(), resources=[process(**of_second)])


def lost_in(tenth: int, counts: Mapping[int, int]) -> Callable[[], Run]:
    """A run in which others lost their socket in a tenth of a second, and were back after so many nanoseconds."""

    def made() -> Run:
        run = well()
        away = Counter({step: count for duration, count in counts.items() for step in steps([duration])})
        run.outcome.lost_in[tenth] = away
        return run

    return made


def few_back() -> Run:
    run = well()
    run.outcome.timeline[5].back = run.outcome.timeline[13].back = 400
    return run


def slow_rate() -> Run:
    run = well()
    for second in run.outcome.timeline.values():
        second.delivered = 600
    return run


def failing_probe() -> Run:
    run = well()
    assert run.outcome.probe
    run.outcome.probe.errors["503"] = 1
    return run


def slow_connects(run: Run) -> Run:
    run.outcome.connecting = histogram({5 * MS: 900, 8_000 * MS: 100})
    return run


AMISS: dict[str, Callable[[], Run]] = {
    "connect_success": seen(opened=9980, open=9980),
    "connect_rate_per_s": seen(connect_s=100.0),
    "connect_p99_ms": lambda: slow_connects(well()),
    "not_back": seen(open=9999),
    "delivered_per_s": slow_rate,
    "delivered_share": counted(delivered=290_000),
    "p50_ms": seen(latency=histogram({6 * MS: 1000})),
    "p95_ms": seen(latency=histogram({2 * MS: 940, 45 * MS: 60})),
    "p99_ms": seen(latency=histogram({2 * MS: 980, 150 * MS: 20})),
    "resume_p95_ms": seen(away=histogram({HALF_A_SECOND: 90, 11_000 * MS: 10})),
    "resume_max_ms": seen(away=histogram({HALF_A_SECOND: 99, 70_000 * MS: 1})),
    "kills_unfelt": lost_in(125, {}),
    "kill_p95_ms": lost_in(130, {11_500 * MS: 200}),
    "reconnects": seen(reconnects=1),
    "closed_by_server": seen(closed_by_server=1),
    "publishers": seen(publishers=499),
    "lost": counted(lost=1),
    "duplicated": counted(duplicated=1),
    "reordered": counted(reordered=1),
    "overtaken": counted(overtaken=1),
    "late": counted(late=1),
    "gaps": counted(gaps=1),
    "unannounced_gaps": counted(jumps=1),
    "unacked": counted(acked=31_499),
    "protocol_errors": seen(errors=Counter({"protocol": 1})),
    "http_errors": failing_probe,
    "not_steady": lambda: replace(well(), fleet={**well().fleet, "state": "degraded"}),
    "during_exit": seen(during_exit=1),
    "leak_bytes_per_message": grown(rss_bytes=lambda t: 100e6 + 200e3 * t),
    "leak_share": lambda: replace(
        counted(published=10**8, acked=10**8)(), resources=[process(rss_bytes=lambda t: 100e6 + 600e3 * t)]
    ),
    "ended": lambda: replace(well(), resources=[process(), process("edge-0", seconds=10)]),
    "files_risen": grown(files=lambda t: 10 + t),
    "redis_clients_risen": lambda: replace(well(), redis_clients=(7, 12)),
    "back_per_s": few_back,
    "memory_gb": grown(rss_bytes=lambda t: 4e9),
    "cpu_share": grown(cpu_percent=lambda t: 160.0),
}
"""Figure → a run that differs from one that is well in this alone."""


def judged_by(figure: str) -> list[Mapping[str, Target]]:
    """Give all sets of targets that have one for a figure."""
    known = [scenario.targets for scenario in SCENARIOS.values()] + [OF_NO_SCENARIO]
    return [targets for targets in known if figure in targets]


def missed(targets: Mapping[str, Target], run: Run) -> set[str]:
    return {one["name"] for one in report.judge(targets, run) if not one["ok"]}


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_run_that_is_well_passes(name: str) -> None:
    targets = SCENARIOS[name].targets
    assert report.left_out(targets, well()) == {}
    assert missed(targets | OF_NO_SCENARIO, well()) == set()
    assert report.build(name, targets, well())["verdict"] == "pass"


@pytest.mark.parametrize("figure", FIGURES)
def test_a_run_that_is_amiss_in_one_thing_misses_its_target_and_no_other(figure: str) -> None:
    assert judged_by(figure), "nothing is judged by this figure"
    for targets in judged_by(figure):
        assert missed(targets, AMISS[figure]()) == {figure}
        assert report.build("run", targets, AMISS[figure]())["verdict"] == "fail"


def test_no_figure_is_without_such_a_run() -> None:
    assert list(AMISS) == list(FIGURES)
    assert not OF_NO_SCENARIO.keys() & {name for scenario in SCENARIOS.values() for name in scenario.targets}


@pytest.mark.parametrize(
    ("changes", "figures"),
    [
        ({"dialect": "plain"}, {"unacked", "overtaken", "gaps", "unannounced_gaps"}),
        ({"events": (Event(at=1, command="true"),)}, {"kills_unfelt", "kill_p95_ms"}),
    ],
)
def test_what_such_a_load_does_not_have_is_left_out(changes: dict[str, Any], figures: set[str]) -> None:
    run = replace(well(), load=replace(well().load, **changes))
    assert set(report.left_out(SCENARIOS["failover"].targets, run)) == figures


def test_a_kill_that_did_not_come_about_shows_nothing() -> None:
    run = well()
    planned = replace(run.load, events=(*run.load.events, Event(at=25, kill="worker")))
    assert missed(SCENARIOS["failover"].targets, replace(run, load=planned)) == {"kills_unfelt"}


@pytest.mark.parametrize("name", SCENARIOS)
def test_no_scenario_passes_where_not_one_message_was_published(name: str) -> None:
    silent = well()
    silent.outcome.tally = Tally()
    for second in silent.outcome.timeline.values():
        second.delivered = 0
    assert "delivered_share" in missed(SCENARIOS[name].targets, silent)


@pytest.mark.parametrize(
    ("kind", "counts"),
    [
        ("protocol", True),
        ("error frame bad_message", True),
        ("publish refused: unavailable", False),
        ("reconnect failed: timeout", False),
        ("closed for good with 1008", False),
    ],
)
def test_a_protocol_error_is_what_the_protocol_does_not_know_and_what_it_refused_for_good(
    kind: str, counts: bool
) -> None:
    """The others are judged by what came of them: `unacked`, `not_back`."""
    run = seen(errors=Counter({kind: 1}))()
    assert missed({"protocol_errors": Target("== 0")}, run) == ({"protocol_errors"} if counts else set())


@pytest.mark.parametrize("why", ["Too many open files", "Too many open files in system"])
def test_a_generator_without_a_file_left_is_saturated_when_its_clients_come_back_too(why: str) -> None:
    run = seen(errors=Counter({f"reconnect failed: {why}": 1}))()
    document = report.build("run", SCENARIOS["run"].targets, run)
    assert (document["generator"]["saturated"], document["verdict"]) == (True, "fail")


def test_a_generator_that_is_late_in_the_load_is_saturated() -> None:
    for late, verdict in [(10, "fail"), (9, "pass")]:
        run = seen(lag=histogram({0: 980, late * MS + MS // 2: 20}))()
        document = report.build("run", SCENARIOS["run"].targets, run)
        assert (document["generator"]["saturated"], document["verdict"]) == (verdict == "fail", verdict)


def test_a_shape_that_ends_before_its_events_owes_no_more_than_the_shape() -> None:
    run = well()
    shape = scenarios.Shape.parse("constant:10500")
    longer = replace(run, load=replace(run.load, shape=shape), outcome=replace(run.outcome, load_s=2 * SECONDS))
    assert missed({"delivered_share": Target(">= 0.95")}, longer) == set()
    assert missed({"delivered_share": Target(">= 0.95")}, replace(longer, load=run.load)) == {"delivered_share"}


@pytest.mark.parametrize(
    ("begin", "seconds", "delivered", "rate"),
    [
        (0.05, 10.0, {10: 10_000}, 0),
        (0.05, 10.0, dict.fromkeys(range(11), 1000), 1000),
        (3.0, 10.0, dict.fromkeys(range(3, 13), 1000) | {13: 5000}, 1000),
        (3.0, 2.5, {3: 1000, 4: 2000, 5: 9000}, 1500),
    ],
    ids=["all of it afterwards", "even", "whole seconds", "half a second more"],
)
def test_a_rate_is_of_whole_seconds_within_the_load(
    begin: float, seconds: float, delivered: dict[int, int], rate: float
) -> None:
    timeline = {t: Second(delivered=count) for t, count in delivered.items()}
    run = seen(timeline=timeline, load_s=seconds, events=[{"t": begin, "name": "load"}])()
    assert FIGURES["delivered_per_s"](run) == rate


def test_a_load_without_a_whole_second_has_no_rate() -> None:
    run = seen(load_s=0.9, events=[{"t": 3.0, "name": "load"}])()
    assert FIGURES["delivered_per_s"](run) is None
