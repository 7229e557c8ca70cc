"""Do the two tools agree, and does each tell what the server counted? Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from statistics import median, median_low
from typing import Any

import msgspec

from bench.crosscheck.plan import FIGURES, TOLERANCE

OURS, THEIRS = "ours", "tsung"
TOOLS = (OURS, THEIRS)


class Turn(msgspec.Struct):
    """One tool's turn.

    Attributes:
        tool: one of `TOOLS`.
        round: from 0; each tool has one turn in it.
        counted: figure → what the server counted.
        said: figure → what the tool says, where it does.
        latency_ms: what the tool measured, by its own names.
        publish_ms: what the server measured: the mean from a publish's arrival to its ack.
        problems: what the tool says went wrong, in words.
    """

    tool: str
    round: int
    counted: dict[str, float]
    said: dict[str, float]
    latency_ms: dict[str, float]
    publish_ms: float
    problems: list[str]


class Row(msgspec.Struct):
    """Two measurements of one figure that must be near each other.

    Attributes:
        figure: one of `plan.FIGURES`.
        pair: whose they are, in words.
        first, second: the medians over the rounds.
        low, high: how far apart the two were in a single round, at least and at most, as parts of the first.
        difference: of the medians, as a part of the first; None: the first saw nothing, so there is nothing to be near.
        ok: whether they were within `plan.TOLERANCE` of each other in every round.
    """

    figure: str
    pair: str
    first: float
    second: float
    low: float | None
    high: float | None
    difference: float | None
    ok: bool


Take = Callable[[Turn], Mapping[str, float]]


def compare(turns: Sequence[Turn]) -> list[Row]:
    """Give the rows: the tools beside each other by what the server counted, then each beside the server."""
    mine = [turn for turn in turns if turn.tool == OURS]
    theirs = [turn for turn in turns if turn.tool == THEIRS]
    between = [_row(figure, f"{OURS}, {THEIRS}", mine, _counted, theirs, _counted) for figure in FIGURES]
    return [*between, *_claims(OURS, mine), *_claims(THEIRS, theirs)]


def _claims(tool: str, turns: Sequence[Turn]) -> Iterator[Row]:
    for figure in FIGURES:
        if all(figure in turn.said for turn in turns):
            yield _row(figure, f"server, {tool} says", turns, _counted, turns, _said)


def _counted(turn: Turn) -> Mapping[str, float]:
    return turn.counted


def _said(turn: Turn) -> Mapping[str, float]:
    return turn.said


def _row(figure: str, pair: str, first: Sequence[Turn], take: Take, second: Sequence[Turn], other: Take) -> Row:
    ours, theirs = [take(turn)[figure] for turn in first], [other(turn)[figure] for turn in second]
    apart = [part for one, two in zip(ours, theirs, strict=True) if (part := _apart(one, two)) is not None]
    difference = _apart(median(ours), median(theirs))
    return Row(
        figure,
        pair,
        round(median(ours), 2),
        round(median(theirs), 2),
        min(apart, default=None),
        max(apart, default=None),
        difference,
        ok=len(apart) == len(ours) and all(abs(part) <= TOLERANCE for part in apart),
    )


def _apart(first: float, second: float) -> float | None:
    return round((second - first) / first, 4) if first else None


def problems(turns: Sequence[Turn]) -> list[str]:
    """Say what went wrong with the tools themselves: with that, agreement means nothing."""
    return [f"round {turn.round + 1}, {turn.tool}: {problem}" for turn in turns for problem in turn.problems]


def verdict(rows: Sequence[Row], wrong: Sequence[str]) -> str:
    """Give ``pass`` where all agree and nothing went wrong."""
    return "pass" if rows and all(row.ok for row in rows) and not wrong else "fail"


def latency(turns: Sequence[Turn]) -> dict[str, dict[str, float]]:
    """Give tool → what it measured, and `server_publish_mean`: of its turns the one in the middle, and the highest max.

    Of an even number of turns it is the lower of the two in the middle: percentiles are never averaged.
    """
    return {tool: _of_turns([turn for turn in turns if turn.tool == tool]) for tool in TOOLS}


def _of_turns(turns: Sequence[Turn]) -> dict[str, float]:
    measured = {name: [turn.latency_ms[name] for turn in turns] for name in turns[0].latency_ms}
    measured["server_publish_mean"] = [turn.publish_ms for turn in turns]
    return {name: round(max(some) if name == "max" else median_low(some), 3) for name, some in measured.items()}


_TITLES = {
    "sockets": "sockets opened",
    "sockets_at_once": "sockets at once",
    "connects_per_s": "connects a second",
    "published": "messages published",
    "published_per_s": "published a second",
    "delivered": "messages delivered",
    "delivered_per_s": "delivered a second",
}

HEADER = ("", "planned", "ours", "tsung", "apart", "ours says", "tsung says")


def table(document: Mapping[str, Any]) -> list[list[str]]:
    """Give a line a figure: what was planned, what the server counted under each tool, what each says of itself."""
    found = {(row["figure"], row["pair"]): row for row in document["rows"]}
    lines = []
    for figure in FIGURES:
        both = found[figure, f"{OURS}, {THEIRS}"]
        says = [found.get((figure, f"server, {tool} says")) for tool in TOOLS]
        cells = [_number(document["planned"][figure]), _number(both["first"]), _number(both["second"]), _percent(both)]
        lines.append([_TITLES[figure], *cells, *(_claim(row) for row in says)])
    return lines


def _claim(row: Mapping[str, Any] | None) -> str:
    if row is None:
        return "-"
    return _number(row["second"]) + ("" if row["ok"] else f" ({_percent(row)})")


def _percent(row: Mapping[str, Any]) -> str:
    text = "nothing seen" if row["difference"] is None else f"{100 * row['difference']:+.1f} %"
    return text if row["ok"] else f"{text} DISAGREE"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 or value == int(value) else f"{value:,.1f}"


LATENCY_HEADER = ("ms", "mean", "p50", "p99", "max")

_LATENCIES = (
    (OURS, "ours: from due to received, every delivery", ("", "p50", "p99", "max")),
    (OURS, "ours: as a closed loop sees it", ("naive_mean", "naive_p50", "naive_p99", "")),
    (THEIRS, "tsung: from sent to the first frame back", ("mean", "p50", "p99", "max")),
    (OURS, "server under ours: from a publish's arrival to its ack", ("server_publish_mean", "", "", "")),
    (THEIRS, "server under tsung", ("server_publish_mean", "", "", "")),
)


def latency_table(document: Mapping[str, Any]) -> list[list[str]]:
    """Give a line for each way of measuring a latency."""
    found = document["latency_ms"]
    return [
        [what, *(f"{found[tool][name]:,.1f}" if name else "" for name in names)] for tool, what, names in _LATENCIES
    ]


def markdown(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Give a table as the documentation can take it."""
    return "".join("| " + " | ".join(cells) + " |\n" for cells in (header, ["---"] * len(header), *lines))
