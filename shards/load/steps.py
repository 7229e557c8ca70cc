"""One load after the other, each with more connections: which bends the service, and one report of them all. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec

from shards.load.ledger import ACCOUNTS, Account, worst
from shards.load.usage import tiers

Report = dict[str, Any]

FAILURES = 5
"""How many reasons why connections failed are told, the most frequent ones."""

_BEND_FOLD = 3.0
_BEND_MS = 10.0
_SUMS = (
    "published",
    "acked",
    "ackless",
    "expected",
    "delivered",
    "lost",
    "skipped",
    "duplicated",
    "reordered",
    "overtaken",
    "gaps",
    "unannounced_gaps",
    "late",
)


def load_window(report: Mapping[str, Any]) -> tuple[float, float]:
    """Give when a report's load began and ended, in its own seconds."""
    begin = next((event["t"] for event in report["events"] if event["name"] == "load"), 0.0)
    return begin, begin + report["load_s"]


def step_of(report: Report) -> dict[str, Any]:
    """Sum up the report of one step."""
    latency, messages, connections = report["latency_ms"], report["messages"], report["connections"]
    used = tiers(report["resources"], *load_window(report))
    return {
        "connections": connections["wanted"],
        "opened": connections["opened"],
        "verdict": report["verdict"],
        "missed": [target["name"] for target in report["targets"] if not target["ok"]],
        "connect_rate_per_s": connections["rate_per_s"],
        "delivered_per_s": messages["per_s"],
        "lost": messages["lost"],
        **{f"{name}_ms": latency[name] for name in ("p50", "p95", "p99", "max")},
        "cpu_percent": {tier: one["cpu_percent"] for tier, one in used.items()},
        "rss_bytes": {tier: one["rss_bytes"] for tier, one in used.items()},
        "generator_saturated": report["generator"]["saturated"],
    }


def bend(steps: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Tell where a service bends: the first step that misses a target, or whose p99 rises out of all proportion.

    That is over 10 ms, and over three times the lowest p99 of the steps before it.

    Returns:
        ``connections`` of that step, None where there is none; ``why``, in words.
    """
    for number, step in enumerate(steps):
        if step["missed"]:
            return {"connections": step["connections"], "why": f"it misses {', '.join(step['missed'])}"}
        lowest = min((one["p99_ms"] for one in steps[:number]), default=step["p99_ms"])
        if step["p99_ms"] > max(_BEND_MS, _BEND_FOLD * lowest):
            why = f"p99 is {step['p99_ms']:.1f} ms, {step['p99_ms'] / lowest:.1f} times the lowest before it"
            return {"connections": step["connections"], "why": why}
    most = max((step["connections"] for step in steps), default=0)
    return {"connections": None, "why": f"no bend up to {most:,} connections"}


def merged(reports: Sequence[Report]) -> Report:
    """Make one report of the steps': the last one's figures, all of their messages, time going on from one to the next.

    What went wrong is that of all steps. A target's row is that of the first step that missed it, else of the last. Of
    what can't be summed, as a percentile, the highest of a step counts.
    """
    last = reports[-1]
    offsets = [_seconds_between(reports[0], one) for one in reports]
    steps = [step_of(one) for one in reports]
    return {
        **last,
        "verdict": _verdict([one["verdict"] for one in reports]),
        "started": reports[0]["started"],
        "duration_s": round(offsets[-1] + last["duration_s"], 3),
        "load_s": round(sum(one["load_s"] for one in reports), 3),
        "targets": _targets(reports),
        "left_out": {name: why for one in reports for name, why in one["left_out"].items()},
        "problems": [problem for one in reports for problem in one["problems"]],
        "connections": _connections(reports),
        "messages": last["messages"] | {name: sum(one["messages"][name] for one in reports) for name in _SUMS},
        "errors": _errors(reports),
        "clients": _clients(reports),
        "disruptions": _moved(reports, offsets, "disruptions"),
        "resume_ms": _resumed([one["resume_ms"] for one in reports if one["resume_ms"]]),
        "generator": _generator(reports),
        "ring": _ring([one["ring"] for one in reports if one["ring"]]),
        "wear": _wear([process for one in reports for process in one["wear"]]),
        "wear_together": _wear([tier for one in reports for tier in one["wear_together"]]),
        "redis_clients": [count for one in reports for count in one["redis_clients"]],
        "steps": steps,
        "bend": bend(steps),
        "timeline": _moved(reports, offsets, "timeline"),
        "events": _moved(reports, offsets, "events"),
        "spread": _moved(reports, offsets, "spread"),
        "resources": _resources(reports, offsets),
    }


def cut_short(whole: Report, why: str, stopped: bool) -> Report:
    """Say in the report of the steps that were made why no more of them were; where somebody `stopped` it, it is
    aborted, else it has failed."""
    return {**whole, "verdict": "aborted" if stopped else "fail", "problems": [*whole["problems"], why]}


def _resumed(found: Sequence[Mapping[str, float]]) -> dict[str, float] | None:
    if not found:
        return None
    return {"count": sum(one["count"] for one in found), **_highest(found, ("p50", "p95", "max"))}


def _generator(reports: Sequence[Report]) -> dict[str, Any]:
    found = [one["generator"] for one in reports]
    names = ("processes", "max_lag_ms", "p99_lag_ms", "max_cpu_percent", "connect_cpu_percent")
    why = [
        f"at {one['connections']['wanted']:,} connections {why}"
        for one in reports
        for why in one["generator"]["saturated_by"]
    ]
    return {
        **found[-1],
        **_highest(found, (*names, "max_descriptors")),
        "saturated": bool(why),
        "saturated_by": why,
    }


def _highest(found: Sequence[Mapping[str, Any]], names: Sequence[str]) -> dict[str, Any]:
    """Give the highest of each figure; None where nobody has it."""
    return {name: max((one[name] for one in found if one[name] is not None), default=None) for name in names}


def _ring(found: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    return {"before": found[0]["before"], "after": found[-1]["after"]} if found else None


def _wear(found: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Give of each process or tier how it grew in the step in which it grew most."""
    by_name: dict[str, list[Mapping[str, Any]]] = {}
    for one in found:
        by_name.setdefault(one["name"], []).append(one)
    return [{"name": name, **_highest(some, [n for n in some[0] if n != "name"])} for name, some in by_name.items()]


def _verdict(verdicts: Sequence[str]) -> str:
    if "aborted" in verdicts:
        return "aborted"
    return "pass" if all(verdict == "pass" for verdict in verdicts) else "fail"


def _seconds_between(first: Report, other: Report) -> float:
    return (datetime.fromisoformat(other["started"]) - datetime.fromisoformat(first["started"])).total_seconds()


def _targets(reports: Sequence[Report]) -> list[dict[str, Any]]:
    rows = {target["name"]: target for target in reports[-1]["targets"]}
    for report in reversed(reports):
        rows |= {target["name"]: target for target in report["targets"] if not target["ok"]}
    return list(rows.values())


def _connections(reports: Sequence[Report]) -> dict[str, Any]:
    """Give the last step's, with what became of them in all steps."""
    all_of = [one["connections"] for one in reports]
    failures: Counter[str] = Counter()
    for one in all_of:
        failures.update({failure["reason"]: failure["count"] for failure in one["failures"]})
    return {
        **all_of[-1],
        **{name: sum(one[name] for one in all_of) for name in ("not_back", "reconnects", "closed_by_server")},
        "failures": [{"reason": reason, "count": count} for reason, count in failures.most_common(FAILURES)],
    }


def _errors(reports: Sequence[Report]) -> list[dict[str, Any]]:
    counts: Counter[str] = Counter()
    examples: dict[str, str] = {}
    for error in (error for one in reports for error in one["errors"]):
        counts[error["kind"]] += error["count"]
        examples.setdefault(error["kind"], error["example"])
    return [{"kind": kind, "count": count, "example": examples[kind]} for kind, count in counts.most_common()]


def _clients(reports: Sequence[Report]) -> dict[str, Any]:
    """Tell with how many clients something went wrong, each step having its own, and give the worst of them."""
    accounts = [msgspec.convert(account, Account) for one in reports for account in one["clients"]["worst"]]
    return {
        "amiss": sum(one["clients"]["amiss"] for one in reports),
        "worst": msgspec.to_builtins(worst(accounts, ACCOUNTS)),
    }


def _moved(reports: Sequence[Report], offsets: Sequence[float], name: str) -> list[dict[str, Any]]:
    """Give a list of the reports' as one, its times moved."""
    return [
        {**one, "t": round(one["t"] + offset, 3)}
        for report, offset in zip(reports, offsets, strict=True)
        for one in report[name]
    ]


def _resources(reports: Sequence[Report], offsets: Sequence[float]) -> list[dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for report, offset in zip(reports, offsets, strict=True):
        for process in report["resources"]:
            samples = [{**sample, "t": round(sample["t"] + offset, 1)} for sample in process["samples"]]
            known = found.setdefault(process["name"], {**process, "samples": []})
            known["samples"] += samples
            for name in ("rss_max_bytes", "cpu_max_percent", "files_max"):
                known[name] = max(known[name], process[name])
    for process in found.values():
        values = [sample["cpu_percent"] for sample in process["samples"]]
        process["cpu_mean_percent"] = round(sum(values) / len(values), 1)
    return list(found.values())
