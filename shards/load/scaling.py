"""``python -m shards.load.scaling``: measures what a socket and a message cost each tier, and fits lines through it.

For each number of sockets, on one fleet and in ascending order: a quiet load (one message a second in all) shows memory
and the CPU of silent sockets; a busy one, half a message a second to each socket, shows what messages cost on top.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from shards.load import files, report, target
from shards.load.__main__ import measure_once
from shards.load.arguments import Parser
from shards.load.command import carry_out
from shards.load.fit import fit
from shards.load.scenarios import Scenario, Target
from shards.load.spread import settled
from shards.load.steps import load_window
from shards.load.usage import tier_of, tiers
from shards.load.watch import Show

STEPS = (1_000, 2_000, 5_000, 10_000, 20_000)
TIERS = ("edges", "replicas", "shards")
_QUIET_SECONDS, _BUSY_SECONDS = 12.0, 15.0
_QUIET_RATE, _BUSY_RATE = 1.0, 0.5
_EDGE_SECONDS = 2.0


def measured(quiet: Mapping[str, Any], busy: Mapping[str, Any]) -> dict[str, Any]:
    """Take from the reports of one number of sockets what the fits need."""
    idle, loaded = (tiers(one["resources"], *_middle(one)) for one in (quiet, busy))
    return {
        "connections": quiet["connections"]["opened"],
        "delivered_per_s": busy["messages"]["per_s"],
        "verdict": "pass" if quiet["verdict"] == busy["verdict"] == "pass" else "fail",
        "lost": quiet["messages"]["lost"] + busy["messages"]["lost"],
        "p99_ms": busy["latency_ms"]["p99"],
        "processes": {tier: _processes(quiet, tier) for tier in TIERS},
        "quiet": {tier: idle[tier] for tier in TIERS},
        "busy": {tier: loaded[tier] for tier in TIERS},
    }


def _middle(one: Mapping[str, Any]) -> tuple[float, float]:
    """Give the load's time without its first and last two seconds."""
    begin, end = load_window(one)
    return begin + _EDGE_SECONDS, end - _EDGE_SECONDS


def _processes(one: Mapping[str, Any], tier: str) -> int:
    return sum(1 for process in one["resources"] if tier_of(process["name"]) == tier)


def costs(runs: Sequence[Mapping[str, Any]], host: Mapping[str, Any], when: str) -> dict[str, Any]:
    """Fit the measurements, and give what `shards.host.capacity.Costs` reads."""
    return {
        "tiers": {tier: _cost(runs, tier) for tier in TIERS},
        "most_sockets": max(run["connections"] for run in runs),
        "host": dict(host),
        "measured": when,
        "runs": list(runs),
    }


def _cost(runs: Sequence[Mapping[str, Any]], tier: str) -> dict[str, float]:
    memory = fit([(run["connections"], run["quiet"][tier]["rss_bytes"]) for run in runs])
    silent = fit([(run["connections"], run["quiet"][tier]["cpu_percent"] / 100) for run in runs])
    busy = fit([(run["delivered_per_s"], _more_cpu(run, tier)) for run in runs])
    return {
        "base_bytes": round(max(0.0, memory.base) / runs[0]["processes"][tier]),
        "socket_bytes": round(max(0.0, memory.slope), 1),
        "socket_bytes_error": round(memory.error, 1),
        "socket_cpu_s": max(0.0, _short(silent.slope)),
        "socket_cpu_s_error": _short(silent.error),
        "message_cpu_s": max(0.0, _short(busy.slope)),
        "message_cpu_s_error": _short(busy.error),
        "memory_residual_bytes": round(memory.residual),
        "socket_cpu_residual": _short(silent.residual),
        "cpu_residual": _short(busy.residual),
    }


def _more_cpu(run: Mapping[str, Any], tier: str) -> float:
    """Give the CPU seconds a second that messages took on top of silent sockets."""
    more: float = run["busy"][tier]["cpu_percent"] - run["quiet"][tier]["cpu_percent"]
    return more / 100


def _short(value: float) -> float:
    return float(f"{value:.3g}")


def table(found: Mapping[str, Any]) -> list[str]:
    """Give the fits as lines to read."""
    return [
        f"{tier:9} {cost['socket_bytes'] / 1e3:7.1f} ± {cost['socket_bytes_error'] / 1e3:.1f} kB a socket   "
        f"{_micro(cost, 'socket_cpu_s', 5)} µs/s of CPU a silent one   "
        f"{_micro(cost, 'message_cpu_s', 6)} µs of CPU a delivered message"
        for tier, cost in found["tiers"].items()
    ]


def _micro(cost: Mapping[str, float], name: str, width: int = 0) -> str:
    return f"{cost[name] * 1e6:{width}.1f} ± {cost[f'{name}_error'] * 1e6:.1f}"


def markdown(found: Mapping[str, Any]) -> str:
    """Give the fits, how far measurements are from them, and the measurements, as docs/scaling.md has them."""
    costs_of = found["tiers"]
    fits = [
        ["tier", "a process", "a socket, memory", "a silent socket, CPU", "a delivered message, CPU"],
        *(
            [
                *(tier, f"{cost['base_bytes'] / 1e6:.0f} MB"),
                f"{cost['socket_bytes'] / 1e3:.1f} ± {cost['socket_bytes_error'] / 1e3:.2f} kB",
                *(f"{_micro(cost, 'socket_cpu_s')} µs/s", f"{_micro(cost, 'message_cpu_s')} µs"),
            ]
            for tier, cost in costs_of.items()
        ),
    ]
    seen = [
        ["sockets", "delivered", *costs_of, "p99"],
        *(
            [f"{run['connections']:,}", f"{run['delivered_per_s']:,.0f}/s"]
            + [_seen(run, tier) for tier in costs_of]
            + [f"{run['p99_ms']:.1f} ms"]
            for run in found["runs"]
        ),
    ]
    return f"{_rows(fits)}\n{_residuals(costs_of)}\n\n{_rows(seen)}"


def _seen(run: Mapping[str, Any], tier: str) -> str:
    quiet, busy = run["quiet"][tier], run["busy"][tier]
    return f"{quiet['rss_bytes'] / 1e6:,.0f} MB, {quiet['cpu_percent']:.1f} → {busy['cpu_percent']:.1f} %"


def _residuals(costs_of: Mapping[str, Mapping[str, float]]) -> str:
    memory, silent, busy = (
        max(cost[name] for cost in costs_of.values())
        for name in ("memory_residual_bytes", "socket_cpu_residual", "cpu_residual")
    )
    return (
        f"The measurement that is farthest from its line is {memory / 1e6:.1f} MB from it in memory, "
        f"{100 * silent:.1f} % of a core in the CPU of\nsilent sockets, and {100 * busy:.1f} % in that of messages."
    )


def _rows(rows: Sequence[Sequence[str]]) -> str:
    lines = [rows[0], ["---"] * len(rows[0]), *rows[1:]]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _scenario(most: int, processes: int) -> Scenario:
    kept = {"lost": Target("== 0"), "connect_success": Target(">= 0.999")}
    return Scenario("scaling", most, _QUIET_SECONDS, 0, processes=processes, lag_ms=250, targets=kept)


def run(arguments: list[str]) -> int:
    """Measure, fit and write; give the exit status.

    Raises:
        ShardsError: it could not be measured; says why.
    """
    parser = Parser(prog="python -m shards.load.scaling", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--steps", default=",".join(map(str, STEPS)), help="numbers of sockets (default: %(default)s)")
    parser.add_argument("--output", type=Path, default=Path("reports/scaling.json"), help="(default: %(default)s)")
    options = parser.parse_args(arguments)
    try:
        steps = sorted({int(part) for part in options.steps.split(",")})
    except ValueError:
        parser.error(f"--steps: {options.steps!r} is no list of numbers like 1000,2000,5000")
    if len(steps) < 3 or steps[0] < 1:
        parser.error("--steps: a fit takes three different numbers of sockets or more")
    runs = _measure(_scenario(steps[-1], processes=2), steps)
    found = costs(runs, report.host(), datetime.now(UTC).isoformat(timespec="seconds"))
    files.write_json(found, options.output)
    files.write(options.output.with_suffix(".md"), markdown(found).encode())
    print("\n".join([*table(found), f"{options.output} and {options.output.with_suffix('.md').name}"]))
    if failed := [f"{one['connections']:,}" for one in runs if one["verdict"] != "pass"]:
        print(f"the fit is not to be trusted: something went wrong with {', '.join(failed)} sockets")
    return 1 if failed else 0


def _measure(scenario: Scenario, steps: Sequence[int]) -> list[dict[str, Any]]:
    found = []
    with target.own_fleet(scenario, os.environ.get("INVOKE_FLEET_ENGINE")) as (url, project), Show() as show:
        for number in steps:
            of_size = replace(scenario, connections=number)
            quiet = measure_once(replace(of_size, rate=_QUIET_RATE), url, project, show)
            asyncio.run(settled(target.http_url(url, "/metrics")))
            busy = replace(of_size, rate=_BUSY_RATE * number, duration=_BUSY_SECONDS)
            found.append(measured(quiet, measure_once(busy, url, project, show)))
            asyncio.run(settled(target.http_url(url, "/metrics")))
    return found


if __name__ == "__main__":
    carry_out(run)
