"""From what was seen to a verdict, and the two files that say so: `<scenario>.json`, and beside it `.html`.

The page is made from the JSON alone.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import psutil

from shards.errors import ShardsError, UsageError
from shards.load.coordinator import Load, Outcome
from shards.load.dialects import DIALECTS
from shards.load.limits import Limits
from shards.load.page import render
from shards.load.scenarios import Target

SATURATED_CPU_PERCENT = 95.0
_GB = 1_000_000_000
_PERCENTILES = [0, 10, 25, 50, 75, 90, 95, 99, 99.5, 99.9, 99.95, 99.99, 100]


def saturated(lag_p99_ms: float, cpu_percent: float, lag_ms: float) -> bool:
    """Tell whether the generator was at its end, so that the figures may be its own and not the service's.

    It was where, in the load phase, one in a hundred of its publishes or wake-ups came over `lag_ms` late, or where one
    of its processes used over 95 % of a core.
    """
    return lag_p99_ms > lag_ms or cpu_percent > SATURATED_CPU_PERCENT


@dataclass(frozen=True)
class Run:
    """What a report is made from.

    Attributes:
        load: what was run.
        outcome: what was seen.
        fleet: what `inv status --json` said of the fleet; empty where nobody knows.
        resources: what `Resources.report` gave.
    """

    load: Load
    outcome: Outcome
    fleet: dict[str, Any]
    resources: list[dict[str, Any]]


def _per(amount: float, seconds: float) -> float:
    return amount / seconds if seconds else 0.0


def _percentile(percentile: float) -> Callable[[Run], float | None]:
    return lambda run: run.outcome.latency.percentiles_ms([percentile])[0] if run.outcome.latency.count else None


def _unacked(run: Run) -> float | None:
    tally = run.outcome.tally
    return tally.published - tally.acked if DIALECTS[run.load.dialect].acks else None


FIGURES: dict[str, Callable[[Run], float | None]] = {
    "connect_success": lambda run: run.outcome.opened / run.load.connections,
    "connect_rate_per_s": lambda run: _per(run.outcome.opened, run.outcome.connect_s),
    "not_back": lambda run: run.outcome.opened - run.outcome.open,
    "delivered_per_s": lambda run: _per(run.outcome.tally.delivered, run.outcome.load_s),
    "p50_ms": _percentile(50),
    "p95_ms": _percentile(95),
    "p99_ms": _percentile(99),
    "resume_p95_ms": lambda run: run.outcome.away.percentiles_ms([95])[0] if run.outcome.away.count else None,
    "resume_max_ms": lambda run: run.outcome.away.max_ms if run.outcome.away.count else None,
    "publishers": lambda run: run.outcome.publishers,
    "lost": lambda run: run.outcome.tally.lost,
    "duplicated": lambda run: run.outcome.tally.duplicated,
    "reordered": lambda run: run.outcome.tally.reordered,
    "overtaken": lambda run: run.outcome.tally.overtaken,
    "gaps": lambda run: run.outcome.tally.gaps,
    "unannounced_gaps": lambda run: run.outcome.tally.jumps,
    "unacked": _unacked,
    "protocol_errors": lambda run: run.outcome.errors["protocol"],
    "http_errors": lambda run: sum(run.outcome.probe.errors.values()) if run.outcome.probe else None,
    "not_steady": lambda run: run.fleet["state"] != "steady" if run.fleet else None,
    "during_exit": lambda run: run.outcome.during_exit,
    "memory_gb": lambda run: max((r["rss_max_bytes"] / _GB for r in run.resources), default=None),
}
"""Every figure that a target may be set for; one that gives None was not measured in that run."""

_ONLY_WHERE: dict[str, tuple[Callable[[Run], bool], str]] = {
    "unacked": (lambda run: DIALECTS[run.load.dialect].acks, "this dialect has no acks"),
    "http_errors": (lambda run: bool(run.load.probe_url), "without --http-probe nothing is asked over HTTP"),
    "during_exit": (lambda run: bool(run.load.events), "nothing happens meanwhile"),
    "memory_gb": (lambda run: bool(run.load.project or run.fleet), "nothing is known of this server's processes"),
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
    lag_p99 = outcome.lag.percentiles_ms([99])[0]
    is_saturated = saturated(lag_p99, outcome.cpu_percent, load.lag_ms)
    return {
        "scenario": scenario,
        "verdict": verdict(judged, outcome, is_saturated),
        "started": datetime.fromtimestamp(outcome.started, UTC).isoformat(timespec="seconds"),
        "duration_s": round(outcome.duration_s, 3),
        "host": host(),
        "fleet": run.fleet,
        "load": msgspec.to_builtins(load),
        "targets": judged,
        "left_out": left_out(targets, run),
        "problems": outcome.problems,
        "connections": _connections(run),
        "messages": _messages(run),
        "latency_ms": _latency(outcome),
        "resume_ms": _resume(outcome),
        "http": _http(outcome),
        "errors": [
            {"kind": kind, "count": count, "example": outcome.examples.get(kind, "")}
            for kind, count in outcome.errors.most_common()
        ],
        "generator": {
            "processes": load.processes,
            "max_lag_ms": outcome.lag.max_ms,
            "p99_lag_ms": lag_p99,
            "max_cpu_percent": round(outcome.cpu_percent, 1),
            "saturated": is_saturated,
        },
        "timeline": [
            {"t": t, "connections": s.open, "published": s.published, "delivered": s.delivered}
            | {"p50_ms": s.p50_ms, "p99_ms": s.p99_ms}
            for t, s in sorted(outcome.timeline.items())
            if t >= 0
        ],
        "events": outcome.events,
        "resources": run.resources,
    }


def _connections(run: Run) -> dict[str, Any]:
    load, outcome = run.load, run.outcome
    return {
        "wanted": load.connections,
        "opened": outcome.opened,
        "failed": load.connections - outcome.opened,
        "rate_per_s": round(FIGURES["connect_rate_per_s"](run) or 0, 1),
        "not_back": outcome.opened - outcome.open,
        "reconnects": outcome.reconnects,
        "closed_by_server": outcome.closed_by_server,
        "failures": [{"reason": reason, "count": n} for reason, n in outcome.failures.most_common(5)],
    }


def _messages(run: Run) -> dict[str, Any]:
    tally: dict[str, Any] = msgspec.to_builtins(run.outcome.tally)
    tally["unannounced_gaps"] = tally.pop("jumps")
    tally["publishers"] = run.outcome.publishers
    return tally | {"per_s": round(FIGURES["delivered_per_s"](run) or 0, 1)}


def _latency(outcome: Outcome) -> dict[str, Any]:
    latency = outcome.latency
    values = dict(zip(_PERCENTILES, latency.percentiles_ms(_PERCENTILES), strict=True))
    return {
        "p50": values[50],
        "p95": values[95],
        "p99": values[99],
        "max": latency.max_ms,
        "corrected": True,
        "percentiles": [{"percentile": p, "ms": ms} for p, ms in values.items()],
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
    try:
        write_json(report, path)
        _replace(path.with_suffix(".html"), render(report).encode())
    except OSError as error:
        raise ShardsError(f"cannot write the report {path}: {error.strerror or error}") from error


def write_json(document: dict[str, Any], path: Path) -> None:
    """Write a document to `path`, whole or not at all.

    Raises:
        ShardsError: it could not be written; says why.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _replace(path, msgspec.json.format(msgspec.json.encode(document), indent=1))
    except OSError as error:
        raise ShardsError(f"cannot write the report {path}: {error.strerror or error}") from error


def _replace(path: Path, content: bytes) -> None:
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        part.write_bytes(content)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
