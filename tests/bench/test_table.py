"""From tries to the table: figures, medians, ratios, what was missed, and the pages made of them."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree

import msgspec
import pytest

from bench import page, table
from bench.measure import Seen, Tier
from bench.workloads import ALL, Goal, Options, Result, shortfall

OPTIONS = Options(5000, 64, 10, (10_000, 20_000, 30_000), (5000,), 20_000)


def seen(rate: float, missed: str = "", cpu: float = 10, **more: Any) -> Seen:
    tiers = {"app": Tier(cpu, 9000), "redis": Tier(cpu / 2, 1), "edge": Tier(26, 50_000)}
    values: dict[str, Any] = {
        **{"rate": rate, "connections": 5000, "opened": 5000, "connect_per_s": 1000, "delivered_per_s": rate},
        **{
            "p50_ms": 1,
            "p99_ms": 20,
            "max_ms": 30,
            "published": 10,
            "unacked": 0,
            "expected": 100,
            "lost": 0,
            "duplicated": 0,
            "reordered": 0,
        },
        **{"published": 10, "unacked": 0, "saturated": False, "errors": [], "tiers": tiers},
        **{"passed": not missed, "missed": missed},
    }
    return Seen(**values | more)


RESULTS = [
    Result("rooms", "ours", 0, [seen(10_000), seen(20_000), seen(30_000, "p99 90 ms")]),
    Result("rooms", "other", 0, [seen(10_000, cpu=40), seen(20_000, "p99 <b>900</b> ms")]),
    Result("echo", "ours", 0, [seen(0, delivered_per_s=15_000)]),
    Result("echo", "other", 0, [seen(0, delivered_per_s=5_000)]),
    Result("connect", "other", 0, [], failed="did not start"),
    Result("rooms", "ours", 1, [seen(10_000), seen(20_000), seen(30_000)]),
]


def document() -> dict[str, Any]:
    return {
        "started": "2026-01-01",
        "duration_s": 1200,
        "host": {"cpus": 2, "system": "Linux"},
        "options": msgspec.to_builtins(OPTIONS),
        "repeats": 2,
        "peers": {
            "ours": {"what": "shards", "missing": ""},
            "other": {"what": "The other & co", "missing": ""},
            "absent": {"what": "Absent", "missing": "not installed"},
        },
        "summary": table.summary(RESULTS, OPTIONS),
        "missed": table.missed(RESULTS),
        "results": msgspec.to_builtins(RESULTS),
    }


def test_ratios_are_to_our_median() -> None:
    summary = table.summary(RESULTS, OPTIONS)
    assert summary["ours"]["rooms_per_s"] == {"median": 25_000, "low": 20_000, "high": 30_000, "ratio": 1}
    assert summary["other"]["rooms_per_s"]["ratio"] == 0.4
    assert summary["other"]["echo_per_s"]["ratio"] == pytest.approx(1 / 3, abs=1e-4)
    assert "idle_bytes" not in summary["other"]


def test_cpu_is_compared_at_a_rate_that_both_carried() -> None:
    ours = Result("rooms", "ours", 0, [seen(10_000, cpu=20), seen(20_000)])
    summary = table.summary([ours, RESULTS[1]], OPTIONS)
    assert (summary["ours"]["cpu_us"]["median"], summary["ours"]["cpu_us"]["at_rate"]) == (15, 20_000)
    other = summary["other"]["cpu_us"]
    assert (other["median"], other["at_rate"], other["ratio"]) == (60, 10_000, 2)
    assert summary["other"]["cpu_edge_us"]["median"] == 26


def test_cpu_of_repeats_that_ended_at_different_rates_is_of_one_rate() -> None:
    repeats = [
        Result("rooms", "ours", 0, [seen(10_000, cpu=20), seen(20_000)]),
        Result("rooms", "ours", 1, [seen(10_000)]),
    ]
    cpu = table.summary(repeats, OPTIONS)["ours"]["cpu_us"]
    assert (cpu["at_rate"], cpu["high"]) == (10_000, 30)


def test_where_every_rate_is_above_the_common_one_the_lowest_is_compared() -> None:
    cpu = table.summary([Result("rooms", "ours", 0, [seen(25_000), seen(30_000)])], OPTIONS)["ours"]["cpu_us"]
    assert (cpu["at_rate"], cpu["median"]) == (25_000, 15)


def test_a_miss_where_the_generator_was_at_its_end_says_so() -> None:
    results = [Result("rooms", "other", 0, [seen(10_000, "p99 900 ms", saturated=True)] * 2)]
    assert table.missed(results)["other"]["rooms"] == "10,000/s: p99 900 ms, the generator being at its own end"


def test_without_ours_there_are_figures_and_no_ratios() -> None:
    summary = table.summary([result for result in RESULTS if result.peer == "other"], OPTIONS)
    assert summary["other"]["rooms_per_s"] == {"median": 10_000, "low": 10_000, "high": 10_000}


def test_nothing_carried_is_zero_and_said() -> None:
    results = [Result("rooms", "other", 0, [seen(10_000, "p99 900 ms"), seen(10_000, "p99 800 ms")])]
    assert table.summary(results, OPTIONS)["other"]["rooms_per_s"]["median"] == 0
    assert table.missed(results) == {"other": {"rooms": "10,000/s: p99 800 ms"}}


def test_a_peer_that_is_not_there_has_a_row_that_says_so() -> None:
    rows = table.rows(document())
    assert rows[2][:2] == ["Absent", "not measured"]
    assert table.notes(document())[0] == "absent: not measured: not installed"
    assert {len(row) for row in rows} == {len(table.header())}
    assert rows[1][1] == "10,000 · 0.4x"
    assert rows[0][1] == "25,000 (20,000-30,000) · 1"
    assert rows[1][4] == "-"


def test_the_markdown_has_every_peer_and_every_miss() -> None:
    text = table.markdown(document())
    assert text.count("\n| ") == 4
    assert "- other, connect: missed the rest: did not start\n" in text


def test_the_page_opens_offline_and_escapes_what_it_shows() -> None:
    text = page.render(document())
    assert "The other &amp; co" in text and "<b>900" not in text
    assert "http" not in text and "<script" not in text
    drawings = text.split("<svg")[1:]
    assert len(drawings) == 4  # of what was measured, and CPU by tier
    for drawing in drawings:
        ElementTree.fromstring("<svg" + drawing.split("</svg>")[0] + "</svg>")


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({}, ""),
        ({"opened": 4000}, "4,000 of 5,000 connected"),
        ({"expected": 0}, "nothing was published"),
        ({"lost": 1}, "1 of 100 lost"),
        ({"unacked": 1}, "1 of 10 publishes not acked"),
        ({"duplicated": 2}, "2 came twice"),
        ({"p99_ms": 50.0}, "p99 50 ms"),
    ],
)
def test_what_counts_as_carried(more: dict[str, Any], said: str) -> None:
    assert shortfall(seen(1000, **more), Goal(1.0, 50.0)) == said


def test_a_loss_within_the_leeway_is_none() -> None:
    assert shortfall(seen(1000, lost=1), Goal(0.99)) == ""
    assert shortfall(seen(1000, p99_ms=9_999), ALL) == ""
