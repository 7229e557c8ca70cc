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


Take = Callable[[Seen], float | None]


@dataclass(frozen=True)
class Figure:
    """A column of the table.

    Attributes:
        name: in the JSON.
        title: for people, with its unit.
        workload: that gives it.
        of: takes it from one try; None: it was not measured.
        choose: which try of a result that is.
        same_rate: others are compared with our try at the rate of theirs: what a message costs falls as the rate grows.
        more_is_better: how ratios are read.
    """

    name: str
    title: str
    workload: str
    of: Take
    choose: Callable[[Sequence[Seen], Options], Seen | None]
    same_rate: bool = False
    more_is_better: bool = True


def _highest(tries: Sequence[Seen], options: Options) -> Seen | None:
    return climb.highest(tries)


def _first(tries: Sequence[Seen], options: Options) -> Seen | None:
    return tries[0]


def _common(tries: Sequence[Seen], options: Options) -> Seen | None:
    return climb.common(tries, options.common_rate)


def _rate(seen: Seen) -> float:
    return seen.rate


def _cpu(tiers: Sequence[str]) -> Take:
    return lambda seen: sum(seen.tiers[tier].cpu_us for tier in tiers) if seen.delivered_per_s else None


def _cpu_figure(name: str, title: str, tiers: Sequence[str]) -> Figure:
    return Figure(name, title, "rooms", _cpu(tiers), _common, same_rate=True, more_is_better=False)


FIGURES = (
    Figure("rooms_per_s", "rooms: messages/s, p99 < 50 ms", "rooms", _rate, _highest),
    Figure("broadcast_per_s", "broadcast: messages/s, p99 < 1 s, none lost", "broadcast", _rate, _highest),
    Figure("echo_per_s", "echo: messages/s", "echo", lambda seen: seen.delivered_per_s, _first),
    Figure("connects_per_s", "connects/s", "connect", lambda seen: seen.connect_per_s, _first),
    Figure(
        *("idle_bytes", "bytes a socket in the app", "connect"),
        *(lambda seen: seen.tiers["app"].idle_bytes or None, _first),
        more_is_better=False,
    ),
    _cpu_figure("cpu_us", "CPU µs a message: app + Redis", ("app", "redis")),
)
CPU_FIGURES = tuple(_cpu_figure(f"cpu_{tier}_us", tier, (tier,)) for tier in TIERS)


def summary(results: Sequence[Result], options: Options) -> dict[str, dict[str, dict[str, float]]]:
    """Give peer → figure → `median`, `low`, `high` over the repeats, and `ratio` to ours where there is one.

    Where a cost is compared, `at_rate` says at which rate it was measured, and the ratio is to ours at that rate.
    """
    mine = [result for result in results if result.peer == BASE]
    found: dict[str, dict[str, dict[str, float]]] = {}
    for peer in dict.fromkeys(result.peer for result in results):
        theirs = [result for result in results if result.peer == peer]
        found[peer] = {
            figure.name: values
            for figure in (*FIGURES, *CPU_FIGURES)
            if (values := _compared(figure, theirs, mine, options)) is not None
        }
    return found


def _compared(
    figure: Figure, theirs: Sequence[Result], mine: Sequence[Result], options: Options
) -> dict[str, float] | None:
    chosen, ours = _chosen(figure, theirs, options), _chosen(figure, mine, options)
    at_rate = {}
    if figure.same_rate and chosen:
        # Repeats may have ended at different rates: they are compared at the lowest of these.
        at_rate["at_rate"] = rate = min(one.rate for one in chosen)
        chosen, ours = _carried_at(figure, theirs, rate) or chosen, _carried_at(figure, mine, rate)
    values, base = _taken(figure, chosen, theirs), _taken(figure, ours, mine)
    if not values:
        return None
    found = {"median": median(values), "low": min(values), "high": max(values), **at_rate}
    if base and median(base):
        found["ratio"] = round(found["median"] / median(base), 4)
    return found


def _carried_at(figure: Figure, results: Sequence[Result], rate: float) -> list[Seen]:
    tries = (one for result in results if result.workload == figure.workload for one in result.tries)
    return [one for one in tries if one.passed and one.rate == rate]


def _chosen(figure: Figure, results: Sequence[Result], options: Options) -> list[Seen]:
    tries = [result.tries for result in results if result.workload == figure.workload and result.tries]
    return [one for each in tries if (one := figure.choose(each, options)) is not None]


def _taken(figure: Figure, chosen: Sequence[Seen], results: Sequence[Result]) -> list[float]:
    """Give the figure of each chosen try; a peer that was tried and carried no rate carried 0."""
    if not chosen and any(result.workload == figure.workload and result.tries for result in results):
        return [0.0]
    return [value for one in chosen if (value := figure.of(one)) is not None]


def missed(results: Sequence[Result]) -> dict[str, dict[str, str]]:
    """Give peer → workload → the first rate that was missed, and how; the rest was carried."""
    found: dict[str, dict[str, str]] = {}
    for result in results:
        if result.failed:
            found.setdefault(result.peer, {})[result.workload] = f"the rest: {result.failed}"
        elif one := climb.missed(result.tries):
            rate = f"{one.rate:,.0f}/s: " if one.rate > 1 else "all: "
            limit = ", the generator being at its own end" if one.saturated else ""
            found.setdefault(result.peer, {})[result.workload] = f"{rate}{one.missed}{limit}"
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
    if "at_rate" in values:
        text += f" at {values['at_rate']:,.0f}/s"
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
