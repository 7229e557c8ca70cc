"""Earlier runs: each report is kept under ``history/`` beside it, and `index.html` compares them.

The newest 30 runs of a scenario are kept: page, report, and a small summary from which the index is made.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from html import escape
from itertools import groupby
from pathlib import Path
from typing import Any

import msgspec

from shards.errors import ShardsError
from shards.load import files
from shards.load.chart import Point
from shards.load.page import WRONG, page, render

KEPT = 30
_MARK = "<title>Load runs</title>"
_SUMMARY = ".run.json"


class Kept(msgspec.Struct):
    """A run as the index tells of it.

    Attributes:
        page: the report's, relative to the index.
    """

    scenario: str
    started: str
    verdict: str
    duration_s: float
    connections: int
    connect_rate_per_s: float
    delivered_per_s: float
    p50_ms: float
    p99_ms: float
    wrong: int
    reconnects: int
    missed: list[str]
    page: str


def kept(report: Mapping[str, Any], page: str) -> Kept:
    """Sum a report up."""
    connections, messages, latency = report["connections"], report["messages"], report["latency_ms"]
    return Kept(
        scenario=report["scenario"],
        started=report["started"],
        verdict=report["verdict"],
        duration_s=report["duration_s"],
        connections=connections["opened"],
        connect_rate_per_s=connections["rate_per_s"],
        delivered_per_s=messages["per_s"],
        p50_ms=latency["p50"],
        p99_ms=latency["p99"],
        wrong=sum(messages[name] for name in WRONG),
        reconnects=connections["reconnects"],
        missed=[target["name"] for target in report["targets"] if not target["ok"]],
        page=page,
    )


def keep(report: Mapping[str, Any], path: Path) -> str | None:
    """Keep a report that was written to `path`, forget the oldest, and write the index beside it.

    Raises:
        ShardsError: it could not be written; says why.

    Returns:
        What is to be said of it; None: nothing.
    """
    folder = path.parent / "history" / report["scenario"]
    stamp = datetime.fromisoformat(report["started"]).strftime("%Y%m%dT%H%M%SZ")
    files.write(folder / f"{stamp}.html", render(report).encode())
    files.write_json(report, folder / f"{stamp}.json")
    files.write_json(kept(report, f"history/{report['scenario']}/{stamp}.html"), folder / f"{stamp}{_SUMMARY}")
    _forget(folder)
    page_of_all = path.parent / "index.html"
    if not is_mine(page_of_all):
        return f"{page_of_all} is a page of somebody else's: it stays, and the runs beside it have no index"
    files.write(page_of_all, index(known(path.parent / "history")).encode())
    return None


def is_mine(page_of_all: Path) -> bool:
    """Tell whether an index may be written there: there is none, or one of an earlier run.

    Raises:
        ShardsError: it can't be read.
    """
    try:
        return _MARK in page_of_all.read_text(errors="replace")
    except FileNotFoundError:
        return True
    except OSError as error:
        raise ShardsError(f"cannot read {page_of_all}: {error.strerror or error}") from error


def _forget(folder: Path) -> None:
    stamps = sorted(one.name.removesuffix(_SUMMARY) for one in folder.glob(f"*{_SUMMARY}"))
    for stamp in stamps[:-KEPT]:
        for suffix in (".html", ".json", _SUMMARY):
            (folder / f"{stamp}{suffix}").unlink(missing_ok=True)


def known(folder: Path) -> list[Kept]:
    """Read the summaries of all that is kept; what cannot be read is left out."""
    found = []
    for path in folder.glob(f"*/*{_SUMMARY}"):
        try:
            found.append(msgspec.json.decode(path.read_bytes(), type=Kept))
        except (OSError, msgspec.DecodeError):
            continue
    return found


def index(runs: Iterable[Kept]) -> str:
    """Make the page that compares runs, those of a scenario together, the newest first."""
    ordered = sorted(runs, key=lambda run: (run.scenario, run.started))
    sections = [_section(name, list(some)) for name, some in groupby(ordered, key=lambda run: run.scenario)]
    return page("index.html", sections="".join(sections))


def _section(scenario: str, runs: Sequence[Kept]) -> str:
    heads = (
        "run",
        "verdict",
        "sockets",
        "connects/s",
        "delivered/s",
        "p50 ms",
        "p99 ms",
        "lost or wrong",
        "reconnects",
    )
    head = "<tr>" + "".join(f"<th{' class=n' if n > 1 else ''}>{name}" for n, name in enumerate(heads))
    passed = sum(1 for run in runs if run.verdict == "pass")
    return (
        f"<section><h2>{escape(scenario)} <small>passed {passed} of {len(runs)}</small></h2>"
        f"{_trends(runs) if len(runs) > 1 else ''}"
        f'<div class="scroll"><table>{head}{"".join(map(_row, reversed(runs)))}</table></div></section>'
    )


def _when(started: str) -> str:
    return datetime.fromisoformat(started).strftime("%Y-%m-%d %H:%M")


def _row(run: Kept) -> str:
    missed = f" <span class=soft>{escape(', '.join(run.missed))}</span>" if run.missed else ""
    numbers = [
        f"{run.connections:,}",
        f"{run.connect_rate_per_s:,.0f}",
        f"{run.delivered_per_s:,.0f}",
        f"{run.p50_ms:,.1f}",
        f"{run.p99_ms:,.1f}",
        f"{run.wrong:,}",
        f"{run.reconnects:,}",
    ]
    return (
        f'<tr><td><a href="{escape(run.page)}">{escape(_when(run.started))}</a>'
        f'<td><span class="badge {escape(run.verdict)}">{escape(run.verdict)}</span>{missed}'
        + "".join(f"<td class=n>{number}" for number in numbers)
    )


def _trends(runs: Sequence[Kept]) -> str:
    p99, rate = ([run.p99_ms for run in runs], [run.delivered_per_s for run in runs])
    return f"<p class=soft>p99 {_trend(p99)} · delivered/s {_trend(rate)}</p>"


def _trend(values: Sequence[float]) -> str:
    """Draw values as a small line, the latest at the right."""
    top = max(values) or 1.0
    points: list[Point] = [(120 * i / (len(values) - 1) + 2, 28 - 26 * value / top) for i, value in enumerate(values)]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    x, y = points[-1]
    return (
        f'<svg class="trend" style="display:inline-block;vertical-align:middle" viewBox="0 0 126 30">'
        f'<polyline class="line" points="{path}"/><circle cx="{x:.1f}" cy="{y:.1f}" r="2.5" fill="currentColor"/></svg>'
    )
