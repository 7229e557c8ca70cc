"""The report as one HTML page that needs nothing else: no network, no script."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from string import Template
from typing import Any

from bench import table
from bench.peers.base import TIERS

_WIDTH, _ROW, _LEFT, _RIGHT = 440, 24, 76, 90
_TEMPLATE = Path(__file__).with_name("page.html")

Bars = Sequence[tuple[str, Sequence[tuple[str, float]]]]
"""(name, (class, value) of each piece)."""


def render(document: Mapping[str, Any]) -> str:
    """Make the page from the report."""
    options = document["options"]
    return Template(_TEMPLATE.read_text()).substitute(
        about=escape(_about(document)),
        rows=_row(table.header(), "th") + "".join(_row(cells) for cells in table.rows(document)),
        notes="".join(f"<li>{escape(note)}" for note in table.notes(document)),
        charts="".join(_figure(figure, document["summary"]) for figure in table.FIGURES),
        cpu=bars(_cpu(document["summary"]), "µs"),
        common=f"at {options['common_rate']:,.0f}/s, or the peer's own highest rate where that is lower",
        tries=_tries(document["results"]),
    )


def _about(document: Mapping[str, Any]) -> str:
    options, host = document["options"], document["host"]
    return (
        f"{options['connections']:,} sockets through Traefik, 64-byte payloads, one generator · "
        f"{options['duration_s']:g} s a step, repeats: {document['repeats']} · took {document['duration_s']:,} s · "
        f"{host['cpus']} cores, {host['system']} · {document['started']}"
    )


def _row(cells: Sequence[object], tag: str = "td", kind: str = "") -> str:
    opening = f"<tr class={kind}>" if kind else "<tr>"
    return opening + "".join(f"<{tag}>{escape(str(cell))}</{tag}>" for cell in cells) + "</tr>"


def _figure(figure: table.Figure, summary: Mapping[str, Any]) -> str:
    lines = [
        (peer, [("ours" if peer == table.BASE else "", figures[figure.name]["median"])])
        for peer, figures in summary.items()
        if figure.name in figures
    ]
    better = "more" if figure.more_is_better else "less"
    return f"<figure><figcaption>{escape(figure.title)} ({better} is better)</figcaption>{bars(lines)}</figure>"


def _cpu(summary: Mapping[str, Any]) -> Bars:
    return [
        (peer, [(tier, figures[f"cpu_{tier}_us"]["median"]) for tier in TIERS])
        for peer, figures in summary.items()
        if "cpu_app_us" in figures
    ]


def bars(lines: Bars, unit: str = "") -> str:
    """Draw horizontal bars as an SVG, each of one or more pieces, its sum beside it."""
    if not lines:
        return "<p>nothing was measured</p>"
    longest = max(sum(value for _, value in pieces) for _, pieces in lines) or 1
    scale = (_WIDTH - _LEFT - _RIGHT) / longest
    drawn = "".join(_bar(number * _ROW, name, pieces, scale, unit) for number, (name, pieces) in enumerate(lines))
    return f'<svg viewBox="0 0 {_WIDTH} {_ROW * len(lines)}" role="img">{drawn}</svg>'


def _bar(top: int, name: str, pieces: Sequence[tuple[str, float]], scale: float, unit: str) -> str:
    parts = [f'<text class="name" x="{_LEFT - 8}" y="{top + 16}">{escape(name)}</text>']
    x = float(_LEFT)
    for kind, value in pieces:
        width = max(0.0, value) * scale
        said = escape(f"{kind or name}: {table.number(value)} {unit}".strip())
        box = f'x="{x:.1f}" y="{top + 4}" width="{width:.1f}" height="{_ROW - 8}"'
        parts.append(f'<rect class="bar {kind}" {box}><title>{said}</title></rect>')
        x += width
    total = table.number(sum(value for _, value in pieces))
    parts.append(f'<text x="{x + 6:.1f}" y="{top + 16}">{escape(f"{total} {unit}".strip())}</text>')
    return "".join(parts)


def _tries(results: Sequence[Mapping[str, Any]]) -> str:
    names = ["workload", "peer", "wanted/s", "delivered/s", "p50 ms", "p99 ms", "max ms", "lost", "connected/s", ""]
    lines = [_row(names, "th")]
    for result in results:
        if result["failed"]:
            lines.append(_row([result["workload"], result["peer"], *[""] * 7, result["failed"]], kind="fail"))
        lines += [_try(result, one) for one in result["tries"]]
    return "".join(lines)


def _try(result: Mapping[str, Any], one: Mapping[str, Any]) -> str:
    numbers = [one[name] for name in ("delivered_per_s", "p50_ms", "p99_ms", "max_ms", "lost", "connect_per_s")]
    wanted = f"{one['rate']:,.0f}" if one["rate"] > 1 else "all"
    said = "; ".join(filter(None, [one["missed"], *one["errors"], "generator saturated" if one["saturated"] else ""]))
    cells = [result["workload"], result["peer"], wanted, *map(table.number, numbers), said or "ok"]
    return _row(cells, kind="" if one["passed"] else "fail")
