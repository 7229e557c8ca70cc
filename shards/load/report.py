"""From what was seen to a verdict, and the two files that say so: `<scenario>.json`, and beside it `.html`.

The page is made from the JSON alone.
"""

from __future__ import annotations

import math
import os
import platform
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec
import psutil

from shards.errors import UsageError
from shards.load import files
from shards.load.containers import KINDS
from shards.load.coordinator import Load, Outcome
from shards.load.dialects import DIALECTS
from shards.load.disruptions import HOLDERS, disruptions, kills
from shards.load.histogram import Histogram
from shards.load.limits import Limits
from shards.load.page import render
from shards.load.scenarios import Target
from shards.load.steps import FAILURES, load_window
from shards.load.target import STEADY, public
from shards.load.usage import cpu_percent, ended, tier_of, together, wear

SATURATED_CPU_PERCENT = 95.0
_GB = 1_000_000_000
_PERCENTILES = [0, 10, 25, 50, 75, 90, 95, 99, 99.5, 99.9, 99.95, 99.99, 100]


def saturated(outcome: Outcome, lag_ms: float) -> list[str]:
    """Say why the figures may be the generator's own and not the service's: in what it was at its end.

    It was where, in the load phase, one in a hundred of its publishes or wake-ups came over `lag_ms` late, where one of
    its processes used over 95 % of a core, connecting or in the load, or where one had no file left to open.
    """
    lag = outcome.lag.percentiles_ms([99])[0]
    why = []
    if lag > lag_ms:
        why.append(f"it was {lag:.1f} ms behind its schedule at p99 ({lag_ms:g} ms may be)")
    for phase, percent in (("connecting", outcome.connect_cpu_percent), ("in the load", outcome.cpu_percent)):
        if percent > SATURATED_CPU_PERCENT:
            why.append(
                f"one of its processes used {percent:.1f} % of a core {phase} ({SATURATED_CPU_PERCENT:g} % may be)"
            )
    if outcome.out_of_descriptors:
        why.append("one of its processes had no file left to open")
    return why


@dataclass(frozen=True)
class Run:
    """What a report is made from.

    Attributes:
        load: what was run.
        outcome: what was seen.
        fleet: what `inv status --json` said of the fleet; empty where nobody knows.
        resources: what `Resources.report` gave.
        spread: what `Spread.samples` held.
        ring: what `Spread.ring` gave.
        redis_clients: of all its Redis servers together, when the load began, meanwhile, and after it, while the
            sockets were still open; empty where nobody knows.
    """

    load: Load
    outcome: Outcome
    fleet: dict[str, Any]
    resources: list[dict[str, Any]]
    spread: list[dict[str, Any]] = field(default_factory=list)
    ring: dict[str, Any] | None = None
    redis_clients: tuple[int, ...] = ()

    @property
    def window(self) -> tuple[float, float]:
        """When the load began and ended, in seconds of the timeline."""
        return _window(self.outcome)

    @cached_property
    def wear(self) -> list[dict[str, Any]]:
        """How each process grew; see `usage.wear`."""
        return wear(self.resources, *self.window)

    @cached_property
    def together(self) -> list[dict[str, Any]]:
        """How the processes of each tier grew together; see `usage.together`."""
        return together(self.resources, *self.window, self.outcome.tally.published)

    @cached_property
    def disruptions(self) -> list[dict[str, Any]]:
        """What each event did to the clients; see `disruptions.disruptions`."""
        return disruptions(
            self.outcome.events,
            self.outcome.lost_in,
            {number: second.p99_ms for number, second in self.outcome.timeline.items()},
        )

    @property
    def kills(self) -> int:
        """How many parts that hold sockets were to be killed."""
        return sum(1 for event in self.load.events if event.kill in HOLDERS)


def _window(outcome: Outcome) -> tuple[float, float]:
    return load_window({"events": outcome.events, "load_s": outcome.load_s})


def _per(amount: float, seconds: float) -> float:
    return amount / seconds if seconds else 0.0


def _percentile(percentile: float, of: str = "latency") -> Callable[[Run], float | None]:
    """Give a percentile of one of the outcome's histograms, in milliseconds; None where it has counted nothing."""

    def measured(run: Run) -> float | None:
        histogram: Histogram = getattr(run.outcome, of)
        return histogram.percentiles_ms([percentile])[0] if histogram.count else None

    return measured


def _worst(name: str) -> Callable[[Run], float | None]:
    """Give the highest of a figure that `wear` has of each process."""
    return lambda run: max((one[name] for one in run.wear if one[name] is not None), default=None)


def _leak(name: str) -> Callable[[Run], float | None]:
    """Give the highest of a figure that `together` has of each tier."""
    return lambda run: max((one[name] for one in run.together), default=None)


def delivered_per_s(outcome: Outcome) -> float | None:
    """Give what was delivered a second in the load's whole seconds; what came once it was over was late."""
    begin, end = _window(outcome)
    first, last = math.ceil(begin), math.floor(end)
    delivered = sum(second.delivered for t, second in outcome.timeline.items() if first <= t < last)
    return delivered / (last - first) if last > first else None


def _delivered_share(run: Run) -> float | None:
    """Give what was delivered of what was due, sooner or later: 0 of a run in which nothing was published."""
    load, outcome = run.load, run.outcome
    due = load.rate * (load.duration_s if load.shape else outcome.load_s)
    return outcome.tally.delivered / due if due else None


def _ended(run: Run) -> float | None:
    names = ended(run.resources, *run.window)
    return None if names is None else len(names)


def _redis_clients_risen(run: Run) -> float | None:
    counts = run.redis_clients
    return counts[-1] - counts[0] if len(counts) > 1 else None


def _parts(run: Run) -> Iterator[dict[str, Any]]:
    return (part for kind in KINDS for part in run.fleet.get(kind, ()))


def _memory_gb(run: Run) -> float | None:
    """Give what the largest part of the fleet took: sampled where its process is known, else as the fleet says."""
    sampled = [one["rss_max_bytes"] for one in run.resources if tier_of(one["name"]) != "generator"]
    told = [part["rss_bytes"] for part in _parts(run) if part.get("rss_bytes")]
    return max(sampled + told) / _GB if sampled or told else None


def _limited(run: Run) -> list[dict[str, Any]]:
    """Give the parts of the fleet that may use only so much of the CPU."""
    return [part for part in _parts(run) if part.get("cpu_limit_percent")]


def _cpu_share(run: Run) -> float | None:
    """Give how much of its limit the busiest part used, the mean over the load; 1: all of it; None: nobody looked."""
    used = ((part, cpu_percent(run.resources, part["name"], *run.window)) for part in _limited(run))
    # A part that came when the load was all but over, with a promote or a reshard, has no samples of it.
    shares = [percent / float(part["cpu_limit_percent"]) for part, percent in used if percent is not None]
    return max(shares, default=None)


def _http_errors(run: Run) -> float | None:
    probe = run.outcome.probe
    return sum(probe.errors.values()) if probe and probe.requests else None


def _fastest_return(run: Run) -> float | None:
    """Give the most clients that came back within a second."""
    return max((second.back for second in run.outcome.timeline.values()), default=None)


def _kills_unfelt(run: Run) -> float:
    """Count the kills of parts which hold sockets that cut nobody, or did not come about: they show nothing."""
    return run.kills - sum(1 for one in kills(run.disruptions) if one["clients"])


def _kill_p95_ms(run: Run) -> float | None:
    """Give the p95 of how long clients were away, of that kill of which it is the highest."""
    return max((one["p95_ms"] for one in kills(run.disruptions) if one["clients"]), default=None)


def _unacked(run: Run) -> float | None:
    tally = run.outcome.tally
    return tally.published - tally.ackless - tally.acked if DIALECTS[run.load.dialect].acks else None


FIGURES: dict[str, Callable[[Run], float | None]] = {
    "connect_success": lambda run: run.outcome.opened / run.load.connections,
    "connect_rate_per_s": lambda run: _per(run.outcome.opened, run.outcome.connect_s),
    "connect_p99_ms": _percentile(99, "connecting"),
    "not_back": lambda run: run.outcome.opened - run.outcome.open,
    "delivered_per_s": lambda run: delivered_per_s(run.outcome),
    "delivered_share": _delivered_share,
    "p50_ms": _percentile(50),
    "p95_ms": _percentile(95),
    "p99_ms": _percentile(99),
    "resume_p95_ms": _percentile(95, "away"),
    "resume_max_ms": lambda run: run.outcome.away.max_ms if run.outcome.away.count else None,
    "kills_unfelt": _kills_unfelt,
    "kill_p95_ms": _kill_p95_ms,
    "reconnects": lambda run: run.outcome.reconnects,
    "closed_by_server": lambda run: run.outcome.closed_by_server,
    "publishers": lambda run: run.outcome.publishers,
    "lost": lambda run: run.outcome.tally.lost,
    "duplicated": lambda run: run.outcome.tally.duplicated,
    "reordered": lambda run: run.outcome.tally.reordered,
    "overtaken": lambda run: run.outcome.tally.overtaken,
    "late": lambda run: run.outcome.tally.late,
    "gaps": lambda run: run.outcome.tally.gaps,
    "unannounced_gaps": lambda run: run.outcome.tally.jumps,
    "unacked": _unacked,
    "protocol_errors": lambda run: run.outcome.protocol_errors,
    "http_errors": _http_errors,
    "not_steady": lambda run: run.fleet["state"] != STEADY if run.fleet else None,
    "during_exit": lambda run: run.outcome.during_exit,
    "leak_bytes_per_message": _leak("bytes_per_message"),
    "leak_share": _leak("share"),
    "ended": _ended,
    "files_risen": _worst("files_risen"),
    "redis_clients_risen": _redis_clients_risen,
    "back_per_s": _fastest_return,
    "memory_gb": _memory_gb,
    "cpu_share": _cpu_share,
}
"""Every figure that a target may be set for; one that gives None was not measured in that run."""

_ONLY_WHERE: dict[str, tuple[Callable[[Run], bool], str]] = {
    "unacked": (lambda run: DIALECTS[run.load.dialect].acks, "this dialect has no acks"),
    "overtaken": (lambda run: DIALECTS[run.load.dialect].acks, "without offsets it is among the reordered"),
    **dict.fromkeys(
        ("gaps", "unannounced_gaps"), (lambda run: DIALECTS[run.load.dialect].acks, "this dialect has no offsets")
    ),
    "http_errors": (lambda run: bool(run.load.probe_url), "without --http-probe nothing is asked over HTTP"),
    "during_exit": (lambda run: bool(run.load.events), "nothing happens meanwhile"),
    **dict.fromkeys(
        ("kills_unfelt", "kill_p95_ms"), (lambda run: bool(run.kills), "nobody is killed who holds sockets")
    ),
    "cpu_share": (lambda run: bool(_limited(run)), "no part of this fleet has a limit of its CPU"),
    **dict.fromkeys(
        ("memory_gb", "not_steady"),
        (lambda run: bool(run.load.project or run.fleet), "nothing is known of this server's processes"),
    ),
}
"""Figures that not every run has: where it has them, and why it has not elsewhere."""


def check(targets: Mapping[str, Target]) -> None:
    """Refuse targets for figures that do not exist.

    Raises:
        UsageError: names them, and those there are.
    """
    if unknown := sorted(set(targets) - set(FIGURES)):
        raise UsageError(f"no figure is called {', '.join(unknown)}; there are: {', '.join(FIGURES)}")


def judge(targets: Mapping[str, Target], run: Run) -> list[dict[str, Any]]:
    """Hold the figures against the targets, but for those of `left_out`; one that was not measured is missed."""
    out = left_out(targets, run)
    return [_judged(name, target, FIGURES[name](run)) for name, target in targets.items() if name not in out]


def _judged(name: str, target: Target, value: float | None) -> dict[str, Any]:
    measured = None if value is None else round(value, 4)
    return {"name": name, "target": target.text, "measured": measured, "ok": value is not None and target.met(value)}


def left_out(targets: Mapping[str, Target], run: Run) -> dict[str, str]:
    """Give the targets for figures that such a run does not have, and why."""
    return {name: why for name, (has, why) in _ONLY_WHERE.items() if name in targets and not has(run)}


def verdict(targets: list[dict[str, Any]], outcome: Outcome, is_saturated: bool) -> str:
    """Say ``pass``, ``fail`` or ``aborted``."""
    if outcome.aborted:
        return "aborted"
    good = bool(targets) and all(target["ok"] for target in targets)
    return "pass" if good and not is_saturated and not outcome.problems else "fail"


def build(scenario: str, targets: Mapping[str, Target], run: Run) -> dict[str, Any]:
    """Make the report of a run of `scenario`, judged by `targets` (figure → what it must be)."""
    load, outcome = run.load, run.outcome
    judged = judge(targets, run)
    saturated_by = saturated(outcome, load.lag_ms)
    return {
        "scenario": scenario,
        "verdict": verdict(judged, outcome, bool(saturated_by)),
        "started": datetime.fromtimestamp(outcome.started, UTC).isoformat(timespec="seconds"),
        "duration_s": round(outcome.duration_s, 3),
        "load_s": round(outcome.load_s, 3),
        "host": host(),
        "fleet": run.fleet,
        "load": _load(load),
        "targets": judged,
        "left_out": left_out(targets, run),
        "problems": outcome.problems,
        "connections": _connections(run),
        "messages": _messages(run),
        "latency_ms": _latency(outcome),
        "resume_ms": _resume(outcome),
        "disruptions": run.disruptions,
        "http": _http(outcome),
        "errors": [
            {"kind": kind, "count": count, "example": outcome.examples.get(kind, "")}
            for kind, count in outcome.errors.most_common()
        ],
        "generator": {
            "processes": outcome.processes,
            "max_lag_ms": outcome.lag.max_ms,
            "p99_lag_ms": outcome.lag.percentiles_ms([99])[0],
            "max_cpu_percent": round(outcome.cpu_percent, 1),
            "connect_cpu_percent": round(outcome.connect_cpu_percent, 1),
            "max_descriptors": outcome.descriptors[0],
            "descriptor_limit": outcome.descriptors[1],
            "saturated": bool(saturated_by),
            "saturated_by": saturated_by,
        },
        "hosts": outcome.hosts,
        "clients": {"amiss": outcome.amiss, "worst": msgspec.to_builtins(outcome.accounts)},
        "timeline": [
            {"t": t, "connections": s.open, "published": s.published, "delivered": s.delivered}
            | {"p50_ms": s.p50_ms, "p99_ms": s.p99_ms, "back": s.back}
            for t, s in sorted(outcome.timeline.items())
            if t >= 0
        ],
        "events": outcome.events,
        "ring": run.ring,
        "spread": run.spread,
        "wear": run.wear,
        "wear_together": run.together,
        "redis_clients": list(run.redis_clients),
        "resources": run.resources,
    }


def _load(load: Load) -> dict[str, Any]:
    """Give what was run, without what is secret in its addresses: a report is kept and handed round."""
    shown: dict[str, Any] = msgspec.to_builtins(load)
    return shown | {name: shown[name] and public(shown[name]) for name in ("url", "probe_url")}


def _connections(run: Run) -> dict[str, Any]:
    load, outcome = run.load, run.outcome
    return {
        "wanted": load.connections,
        "opened": outcome.opened,
        "failed": load.connections - outcome.opened,
        "rate_per_s": round(FIGURES["connect_rate_per_s"](run) or 0, 1),
        **dict(zip(("took_p50_ms", "took_p99_ms"), outcome.connecting.percentiles_ms([50, 99]), strict=True)),
        "took_max_ms": outcome.connecting.max_ms,
        "not_back": outcome.opened - outcome.open,
        "reconnects": outcome.reconnects,
        "closed_by_server": outcome.closed_by_server,
        "failures": [{"reason": reason, "count": n} for reason, n in outcome.failures.most_common(FAILURES)],
    }


def _messages(run: Run) -> dict[str, Any]:
    tally: dict[str, Any] = msgspec.to_builtins(run.outcome.tally)
    tally["unannounced_gaps"] = tally.pop("jumps")
    tally["publishers"] = run.outcome.publishers
    return tally | {"per_s": round(FIGURES["delivered_per_s"](run) or 0, 1)}


def _latency(outcome: Outcome) -> dict[str, Any]:
    latency = outcome.latency
    naive = dict(zip(_PERCENTILES, outcome.naive.percentiles_ms(_PERCENTILES), strict=True))
    values = dict(zip(_PERCENTILES, latency.percentiles_ms(_PERCENTILES), strict=True))
    return {
        "p50": values[50],
        "p95": values[95],
        "p99": values[99],
        "max": latency.max_ms,
        "count": latency.count,
        "corrected": True,
        "naive_p50": naive[50],
        "naive_p99": naive[99],
        "naive_mean": round(outcome.naive.mean_ms, 3),
        "percentiles": [{"percentile": p, "ms": ms, "naive_ms": naive[p]} for p, ms in values.items()],
    }


def _resume(outcome: Outcome) -> dict[str, Any] | None:
    """Tell how long those who came back had no socket; None where nobody lost one."""
    away = outcome.away
    if not away.count:
        return None
    p50, p95 = away.percentiles_ms([50, 95])
    return {"count": away.count, "p50": p50, "p95": p95, "max": away.max_ms}


def _http(outcome: Outcome) -> dict[str, Any] | None:
    probe = outcome.probe
    return {"requests": probe.requests, "errors": dict(probe.errors)} if probe else None


def host() -> dict[str, Any]:
    """Describe this host, as far as it matters to the figures."""
    limits = Limits.of_this_host()
    return {
        "system": platform.platform(),
        "python": platform.python_version(),
        "cpus": len(os.sched_getaffinity(0)),
        "memory_bytes": psutil.virtual_memory().total,
        "descriptors": limits.descriptors,
        "ports": limits.ports,
    }


def write(report: dict[str, Any], path: Path) -> None:
    """Write the JSON to `path` and the page beside it, each whole or not at all.

    Raises:
        ShardsError: it could not be written; says why.
    """
    files.write_json(report, path)
    files.write(path.with_suffix(".html"), render(report).encode())
