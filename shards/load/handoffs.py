"""``python -m shards.load.handoffs``: tells how long the sockets were paused that the serving color was handed.

For an event of a scenario: exit status 1 where less than `--share` of them were silent for `--most-ms` at most, where
from the first to the last of them it took longer than `--within-s`, or where fewer were handed over than `--least`:
as an event, than 99 % of what the load has.
"""

from __future__ import annotations

import os
import urllib.request
from collections.abc import Iterable

from prometheus_client.parser import text_string_to_metric_families

from shards.errors import ShardsError
from shards.load import target
from shards.load.arguments import Parser
from shards.load.command import carry_out
from shards.load.faults import CONNECTIONS_VARIABLE, URL_VARIABLE

_SECONDS = 10.0
_FIRST, _LAST = "app_handoff_first_timestamp_seconds", "app_handoff_last_timestamp_seconds"


def pauses(metrics: str) -> dict[float, float]:
    """Read how many sockets were paused for so many seconds or less, over all workers.

    Args:
        metrics: a fleet's, in Prometheus' text.
    """
    counts: dict[float, float] = {}
    for family in text_string_to_metric_families(metrics):
        for sample in family.samples:
            if sample.name == "app_handoff_seconds_bucket":
                bound = float(sample.labels["le"])
                counts[bound] = counts.get(bound, 0.0) + sample.value
    return counts


def moved_s(metrics: str) -> float:
    """Read how long it took to hand all sockets over, in seconds, from the first to the last; 0 where none was.

    Args:
        metrics: a fleet's, in Prometheus' text. Its workers are on hosts whose clocks agree.
    """
    times: dict[str, list[float]] = {_FIRST: [], _LAST: []}
    for family in text_string_to_metric_families(metrics):
        for sample in family.samples:
            if sample.name in times:
                times[sample.name].append(sample.value)
    return max(times[_LAST], default=0.0) - min(times[_FIRST], default=0.0)


def share_within(counts: dict[float, float], seconds: float) -> float:
    """Give the share of pauses that were no longer, as far as the histogram's bounds tell; 0 where there was none."""
    total = counts.get(float("inf"), 0.0)
    within = max((count for bound, count in counts.items() if bound <= seconds), default=0.0)
    return within / total if total else 0.0


def run(arguments: Iterable[str]) -> int:
    """Run the command line; give the exit status.

    Raises:
        UsageError: the address is none.
        ShardsError: nobody answers.
    """
    wanted = int(os.environ.get(CONNECTIONS_VARIABLE, "1"))
    parser = Parser(prog="python -m shards.load.handoffs")
    parser.add_argument("--url", default=os.environ.get(URL_VARIABLE, "ws://127.0.0.1:8000/ws/"))
    parser.add_argument("--most-ms", type=float, default=100.0)
    parser.add_argument("--share", type=float, default=0.99)
    parser.add_argument("--within-s", type=float, default=10.0)
    parser.add_argument("--least", type=int, default=max(1, int(0.99 * wanted)))
    options = parser.parse_args(list(arguments))
    target.address(options.url)
    url = target.http_url(options.url, "/metrics")
    try:
        with urllib.request.urlopen(url, timeout=_SECONDS) as answer:
            metrics = answer.read().decode()
    except OSError as error:
        raise ShardsError(f"cannot read {url}: {error}") from error
    counts, took_s = pauses(metrics), moved_s(metrics)
    total, share = counts.get(float("inf"), 0.0), share_within(counts, options.most_ms / 1000)
    paused = f"{share:.2%} of them paused for {options.most_ms:g} ms at most"
    print(f"{total:,.0f} sockets handed over within {took_s:.1f} s, {paused}")
    for bound, count in sorted(counts.items()):
        print(f"  {bound * 1000:g} ms or less: {count:,.0f}")
    return 0 if share >= options.share and total >= options.least and took_s < options.within_s else 1


if __name__ == "__main__":
    carry_out(run)
