"""A canary is judged by what both colors did in the same time; noise of a few requests is no ailment."""

from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry, Counter

from shards.fleet.canary import SOCKET_BYTES, Figures, Limits, ailment, summary
from shards.fleet.watch import Reading, counts_of, since
from shards.metrics import Buckets, Durations, quantile
from shards.server.exposition import encode

LIMITS = Limits(factor=2.0, failed=0.01, p99_ms=25.0, grown_mb=64.0)
INF = float("inf")
FAST: Buckets = {0.01: 990, 0.05: 1000, INF: 1000}
SLOW: Buckets = {0.01: 900, 0.05: 900, 0.1: 1000, INF: 1000}
WELL = Figures(opened=100, published=1000, failures=2, latencies={"delivery": FAST})


def with_(**changes: object) -> Figures:
    return Figures(**{**vars(WELL), **changes})  # type: ignore[arg-type]


def test_a_color_that_does_as_well_as_the_other_is_well() -> None:
    assert ailment(WELL, WELL, LIMITS) is None


@pytest.mark.parametrize(
    "new,words",
    [
        (with_(failures=40), "3.5% of what it was asked failed"),
        (with_(latencies={"delivery": SLOW}), "p99 of a delivery is 95 ms, and 10 ms"),
        (with_(grown_bytes=80 * 2**20), "grew by 80 MiB"),
    ],
)
def test_a_color_that_does_worse_is_told_of(new: Figures, words: str) -> None:
    assert words in (ailment(WELL, new, LIMITS) or "")
    assert ailment(new, new, LIMITS) is None, "where the other does no better, it is not the release"


def test_what_the_old_color_does_badly_the_new_one_may_too_up_to_the_factor() -> None:
    old = with_(failures=100)  # 8.3 %
    assert ailment(old, with_(failures=200), LIMITS) is None
    assert ailment(old, with_(failures=300), LIMITS)


def test_one_failure_of_three_requests_is_no_figure() -> None:
    assert ailment(WELL, Figures(opened=2, failures=1), LIMITS) is None


def test_of_few_samples_nobody_knows_the_percentile() -> None:
    few = with_(latencies={"delivery": {0.1: 0, INF: 50}})
    assert ailment(WELL, few, LIMITS) is None
    assert ailment(few, with_(latencies={"delivery": SLOW}), LIMITS) is None
    assert few.p99_ms("delivery") is None


def test_quantiles_lie_within_their_bucket() -> None:
    assert quantile({0.1: 500, 0.2: 1000, INF: 1000}, 0.5) == pytest.approx(0.1)
    assert quantile({0.1: 500, 0.2: 1000, INF: 1000}, 0.75) == pytest.approx(0.15)
    assert quantile({0.1: 500, INF: 1000}, 0.99) == pytest.approx(0.1), "all that is known: more than that"


def test_it_says_what_there_was_to_judge_by() -> None:
    assert summary(WELL) == "100 sockets, 1,000 publishes, 0.2% of them failed, p99 of a delivery 10 ms"
    assert "no socket came" in summary(Figures())


def samples(worker: str, opened: int, failed: int, latencies: list[float]) -> bytes:
    registry = CollectorRegistry()
    Counter("app_connections_total", "", registry=registry).inc(opened)
    Counter("app_errors_total", "", ["code"], registry=registry).labels("forbidden").inc(failed)
    durations = Durations("app_delivery_seconds", "", registry)
    for seconds in latencies:
        durations.observe(seconds)
    return encode(registry, {"color": "green", "replica": "green-0", "worker": worker})


def test_what_was_counted_before_the_canary_does_not_count() -> None:
    before = Reading(counts_of([samples("1", 50, 7, [5.0] * 500)]))
    now = Reading(counts_of([samples("1", 60, 8, [5.0] * 500 + [0.001] * 200), samples("2", 5, 1, [])]))
    did = since(before, now)
    assert (did.opened, did.failures) == (15, 2), "a worker that is new has counted from nothing"
    assert did.p99_ms("delivery") == pytest.approx(1, abs=0.2)


def test_memory_that_new_sockets_take_is_no_leak() -> None:
    before = Reading(sockets={"a": 0, "b": 0}, rss_bytes={"a": 100, "b": 100})
    now = Reading(sockets={"a": 10, "b": 0}, rss_bytes={"a": 100 + 10 * SOCKET_BYTES, "b": 150})
    assert since(before, now).grown_bytes == 50
    assert since(Reading(), now).grown_bytes == 0, "a replica that was not there has no growth"
