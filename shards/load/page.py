"""The report as one HTML page that needs nothing else: no network, no script."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from html import escape
from importlib.resources import files
from string import Template
from typing import Any

_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP, _RIGHT = 720, 240, 56, 28, 12, 26
_TICKS = 4

Point = tuple[float, float]


def render(report: dict[str, Any]) -> str:
    """Make the page from a report."""
    template = Template((files("shards.load") / "report.html").read_text())
    timeline = report["timeline"]
    marks = [(event["t"], event["name"]) for event in report["events"]]
    return template.substitute(
        scenario=escape(report["scenario"]),
        verdict=escape(report["verdict"]),
        summary=escape(_summary(report)),
        problems="".join(f"<p class=fail>{escape(problem)}</p>" for problem in report["problems"]),
        targets=_targets(report["targets"], report["left_out"]),
        percentiles=_percentiles(report["latency_ms"]["percentiles"]),
        rate=chart([("delivered a second", _series(timeline, "delivered"))], marks),
        latency=chart([(p, _series(timeline, f"{p}_ms")) for p in ("p50", "p99")], marks, "ms"),
        sockets=chart([("connections", _series(timeline, "connections"))], marks),
        figures=_figures(report),
        resources=_resources(report["resources"]),
    )


def _summary(report: dict[str, Any]) -> str:
    connections, messages, latency = report["connections"], report["messages"], report["latency_ms"]
    return (
        f"{connections['opened']:,} of {connections['wanted']:,} connections at {connections['rate_per_s']:,.0f}/s · "
        f"{messages['per_s']:,.0f} messages delivered/s · p50 {latency['p50']:.1f} ms, p99 {latency['p99']:.1f} ms · "
        f"lost {messages['lost']:,} · {report['started']}, {report['duration_s']:.0f} s"
    )


def _row(cells: Sequence[object], tag: str = "td") -> str:
    return "<tr>" + "".join(f"<{tag}>{escape(str(cell))}</{tag}>" for cell in cells) + "</tr>"


def _targets(targets: list[dict[str, Any]], left_out: dict[str, str]) -> str:
    return "".join(
        f"<tr class={'ok' if t['ok'] else 'fail'}><td>{escape(t['name'])}<td>{escape(t['target'])}"
        f"<td>{shown(t['measured'])}<td>{'✓ met' if t['ok'] else '✗ missed'}"
        for t in targets
    ) + "".join(f"<tr><td>{escape(name)}<td colspan=3>left out: {escape(why)}" for name, why in left_out.items())


def shown(measured: float | None) -> str:
    """Give a figure as people read it."""
    return "not measured" if measured is None else f"{measured:,}"


def _figures(report: dict[str, Any]) -> str:
    rows = []
    for section in ("connections", "messages", "resume_ms", "generator", "host", "http"):
        for name, value in (report[section] or {}).items():
            rows.append(_row([f"{section} · {name}", f"{value:,}" if isinstance(value, int) else value]))
    rows += [_row([f"error · {e['kind']}", f"{e['count']:,} x {e['example']}"]) for e in report["errors"]]
    rows += [_row([f"event · {e['name']}", f"at {e['t']} s"]) for e in report["events"]]
    return "".join(rows)


def _resources(resources: list[dict[str, Any]]) -> str:
    head = _row(["process", "memory, most", "CPU, mean", "CPU, most"], "th")
    return head + "".join(
        _row(
            [
                r["name"],
                f"{r['rss_max_bytes'] / 1e6:,.0f} MB",
                f"{r['cpu_mean_percent']:.0f} %",
                f"{r['cpu_max_percent']:.0f} %",
            ]
        )
        for r in resources
    )


def _series(timeline: list[dict[str, Any]], name: str) -> list[Point]:
    return [(second["t"], second[name]) for second in timeline]


def _percentiles(percentiles: list[dict[str, float]]) -> str:
    """Chart latency over "one in": each step right is ten times rarer, so that the tail is seen."""
    points = [(_rarity(p["percentile"]), p["ms"]) for p in percentiles if p["percentile"] < 100]
    labels = [(_rarity(p), f"{p:g} %") for p in (0, 90, 99, 99.9, 99.99)]
    return chart([("latency", points)], unit="ms", x_labels=labels)


def _rarity(percentile: float) -> float:
    return -math.log10(1 - percentile / 100)


def chart(
    lines: Sequence[tuple[str, Sequence[Point]]],
    marks: Sequence[tuple[float, str]] = (),
    unit: str = "",
    x_labels: Sequence[Point | tuple[float, str]] | None = None,
) -> str:
    """Draw lines over a common x as an SVG; `marks` are vertical lines with a name."""
    points = [point for _, line in lines for point in line]
    if not points:
        return "<p>nothing was measured</p>"
    right = max((x for x, _ in points), default=1) or 1
    top = _round_up(max(y for _, y in points))

    def x_at(x: float) -> float:
        return _LEFT + x / right * (_WIDTH - _LEFT - _RIGHT)

    def y_at(y: float) -> float:
        return _HEIGHT - _BOTTOM - y / top * (_HEIGHT - _BOTTOM - _TOP)

    labels = x_labels or [(right * i / _TICKS, f"{right * i / _TICKS:.0f} s") for i in range(_TICKS + 1)]
    parts = [_y_axis(top, unit, y_at), _x_axis(labels, x_at), _marks(marks, x_at)]
    for index, (name, line) in enumerate(lines):
        path = " ".join(f"{x_at(x):.1f},{y_at(y):.1f}" for x, y in line)
        parts.append(f'<polyline class="line l{index}" points="{path}"/>')
        parts.append(f'<text class="key l{index}" x="{_LEFT + 8 + 130 * index}" y="{_TOP + 10}">{escape(name)}</text>')
    return f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img">{"".join(parts)}</svg>'


def _y_axis(top: float, unit: str, y_at: Callable[[float], float]) -> str:
    parts = []
    for index in range(_TICKS + 1):
        value = top * index / _TICKS
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y_at(value)}" y2="{y_at(value)}"/>')
        parts.append(f'<text class="y" x="{_LEFT - 6}" y="{y_at(value) + 4}">{value:,.6g} {unit}</text>')
    return "".join(parts)


def _x_axis(labels: Sequence[tuple[float, Any]], x_at: Callable[[float], float]) -> str:
    return "".join(
        f'<text class="x" x="{x_at(x):.1f}" y="{_HEIGHT - 8}">{escape(str(label))}</text>' for x, label in labels
    )


def _marks(marks: Sequence[tuple[float, str]], x_at: Callable[[float], float]) -> str:
    return "".join(
        f'<line class="mark" x1="{x_at(t):.1f}" x2="{x_at(t):.1f}" y1="{_TOP}" y2="{_HEIGHT - _BOTTOM}">'
        f"<title>{escape(name)} at {t:.1f} s</title></line>"
        for t, name in marks
    )


def _round_up(value: float) -> float:
    """Give the next of 1, 2, 4, 5, 10 times a power of ten: an axis that ends on a round number."""
    if value <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in (1, 2, 4, 5, 10) if step * power >= value)
