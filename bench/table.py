"""From results to figures, and from figures to rows: pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from bench import climb
from bench.measure import Seen
from bench.peers.base import TIERS
from bench.workloads import Options, Result

BASE = "ours"


@dataclass(frozen=True)
class Figure:
    """A column of the table.

    Attributes:
        name: in the JSON.
        title: for people, with its unit.
        workload: that gives it.
        of: takes it from the tries of one result; None: it was not measured.
        more_is_better: how ratios are read.
    """

    name: str
    title: str
    workload: str
    of: Callable[[Sequence[Seen], Options], float | None]
    more_is_better: bool = True


def _highest(tries: Sequence[Seen], options: Options) -> float | None:
    best = climb.highest(tries)
    return best.rate if best else 0.0


def _loop(tries: Sequence[Seen], options: Options) -> float | None:
    return tries[0].delivered_per_s


def _connects(tries: Sequence[Seen], options: Options) -> float | None:
    return tries[0].connect_per_s


def _idle_bytes(tries: Sequence[Seen], options: Options) -> float | None:
    return tries[0].tiers["app"].idle_bytes or None


def _cpu(tiers: Sequence[str]) -> Callable[[Sequence[Seen], Options], float | None]:
    def of(tries: Sequence[Seen], options: Options) -> float | None:
        one = climb.common(tries, options.common_rate)
        return sum(one.tiers[tier].cpu_us for tier in tiers) if one and one.delivered_per_s else None

    return of


FIGURES = (
    Figure("rooms_per_s", "rooms: messages/s, p99 < 50 ms", "rooms", _highest),
    Figure("broadcast_per_s", "broadcast: messages/s, p99 < 1 s, none lost", "broadcast", _highest),
    Figure("echo_per_s", "echo: messages/s", "echo", _loop),
    Figure("connects_per_s", "connects/s", "connect", _connects),
    Figure("idle_bytes", "bytes a socket in the app", "connect", _idle_bytes, more_is_better=False),
    Figure("cpu_us", "CPU µs a message: app + Redis", "rooms", _cpu(("app", "redis")), more_is_better=False),
)
CPU_FIGURES = tuple(Figure(f"cpu_{tier}_us", tier, "rooms", _cpu((tier,)), more_is_better=False) for tier in TIERS)


def summary(results: Sequence[Result], options: Options) -> dict[str, dict[str, dict[str, float]]]:
    """Give peer → figure → `median`, `low`, `high` over the repeats, and `ratio` to ours where there is one."""
    peers = list(dict.fromkeys(result.peer for result in results))
    figures = {peer: _figures([result for result in results if result.peer == peer], options) for peer in peers}
    base = figures.get(BASE, {})
    for mine in figures.values():
        for name, values in mine.items():
            if base.get(name, {}).get("median"):
                values["ratio"] = round(values["median"] / base[name]["median"], 4)
    return figures


def _figures(results: Sequence[Result], options: Options) -> dict[str, dict[str, float]]:
    found = {}
    for figure in (*FIGURES, *CPU_FIGURES):
        tries = [result.tries for result in results if result.workload == figure.workload and result.tries]
        values = [value for one in tries if (value := figure.of(one, options)) is not None]
        if values:
            found[figure.name] = {"median": median(values), "low": min(values), "high": max(values)}
    return found


def missed(results: Sequence[Result]) -> dict[str, dict[str, str]]:
    """Give peer → workload → the first rate that was missed, and how; the rest was carried."""
    found: dict[str, dict[str, str]] = {}
    for result in results:
        if result.failed:
            found.setdefault(result.peer, {})[result.workload] = f"the rest: {result.failed}"
        elif one := climb.missed(result.tries):
            rate = f"{one.rate:,.0f}/s: " if one.rate > 1 else "all: "
            found.setdefault(result.peer, {})[result.workload] = f"{rate}{one.missed}"
    return found


def header() -> list[str]:
    """Give the table's headings."""
    return ["", *(figure.title for figure in FIGURES)]


def rows(document: Mapping[str, Any]) -> list[list[str]]:
    """Give the table's rows: each figure and, in brackets, how many times ours it is."""
    made = []
    for name, peer in document["peers"].items():
        if peer["missing"]:
            made.append([peer["what"], "not measured", *[""] * (len(FIGURES) - 1)])
        else:
            figures = document["summary"].get(name, {})
            made.append([peer["what"], *(_cell(figures.get(figure.name), name == BASE) for figure in FIGURES)])
    return made


def _cell(values: Mapping[str, float] | None, base: bool) -> str:
    if values is None:
        return "-"
    text = number(values["median"])
    if values["low"] != values["high"]:
        text += f" ({number(values['low'])}-{number(values['high'])})"
    if "ratio" in values:
        text += " · 1" if base else f" · {values['ratio']:.2g}x"
    return text


def number(value: float) -> str:
    """Write a figure: whole where it is large, two digits where it is not."""
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:,.1f}"


def notes(document: Mapping[str, Any]) -> list[str]:
    """Say why a peer was not measured, and what each of the others missed first, one line each."""
    absent = [f"{name}: not measured: {peer['missing']}" for name, peer in document["peers"].items() if peer["missing"]]
    return absent + [
        f"{peer}, {workload}: missed {what}"
        for peer, misses in document["missed"].items()
        for workload, what in misses.items()
    ]


def markdown(document: Mapping[str, Any]) -> str:
    """Give the table as the README can take it."""
    lines = [header(), ["---"] * (len(FIGURES) + 1), *rows(document)]
    table = "\n".join("| " + " | ".join(cells) + " |" for cells in lines)
    return table + "\n\n" + "".join(f"- {note}\n" for note in notes(document))
