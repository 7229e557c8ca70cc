"""The report as one HTML page that needs nothing else: no network, no script."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from importlib.resources import files
from string import Template
from typing import Any

from shards.load.chart import Line, Mark, Point, line_chart, share_bar, stack_chart
from shards.load.usage import tier_of

_TIER_STYLES = {"edges": "c0", "replicas": "c1", "shards": "c2", "redis": "c6", "generator": "c3"}
_COLOR_STYLES = {"blue": "c0", "green": "c5"}
_SHADES = ("", "s1", "s2", "s3", "s4")
_SHARD_STYLES = ("c0", "c1", "c2", "c3", "c4", "c5", "c7", "c6")
_ABSENT_SECONDS = 4.0
_SECOND_MS, _WHOLE_MS = 1000.0, 100.0
WRONG = ("lost", "duplicated", "reordered", "overtaken")
"""Of a report's messages, what no run may have."""

_CLIENTS_NAMED = 10
_QUIET_EVENTS = {"connected", "load"}


def render(report: Mapping[str, Any]) -> str:
    """Make the page from a report."""
    marks = marks_of(report["events"])
    right = max((second["t"] for second in report["timeline"]), default=None)
    timeline = report["timeline"]
    return page(
        "report.html",
        title=f"{report['scenario']}: {report['verdict']}",
        scenario=escape(report["scenario"]),
        verdict=escape(report["verdict"]),
        summary=escape(_summary(report)),
        tiles=_tiles(report),
        problems="".join(f"<p class=fail>{escape(problem)}</p>" for problem in _problems(report)),
        targets=_targets(report["targets"], report["left_out"]),
        steps=_steps(report),
        disruptions=_disruptions(report["disruptions"]),
        clients=_clients(report["clients"]),
        percentiles=_percentiles(report["latency_ms"]),
        rate=line_chart([Line("delivered", _series(timeline, "delivered"), "c0")], marks, right=right),
        latency=_latency(timeline, marks, right),
        connections_of=_connections_of(report["spread"]),
        sockets=_sockets(report, marks, right),
        cpu=line_chart(_process_lines(report["resources"], "cpu_percent", 1), marks, right=right),
        memory=line_chart(_process_lines(report["resources"], "rss_bytes", 1e6), marks, right=right),
        events=_events(marks),
        ring=_ring(report["ring"]),
        resources=_resources(report["resources"], report["wear"] if _judges_growth(report) else ()),
        least=escape(least_leaks(report) or ""),
        figures=_figures(report),
    )


def _judges_growth(report: Mapping[str, Any]) -> bool:
    """Tell whether the load was long enough for growth to mean something."""
    return any(target["name"] == "leak_bytes_per_message" for target in report["targets"])


def least_leaks(report: Mapping[str, Any]) -> str | None:
    """Say how little growth this load can't tell from chance, of each tier; None where it looks for none."""
    least = {one["name"]: one["least_bytes_per_message"] for one in report["wear_together"]}
    told = [f"{name} {size:,.3g}" for name, size in least.items() if size is not None]
    if not told or not _judges_growth(report):
        return None
    return f"growth below so many bytes a message is not told from chance in so short a load: {', '.join(told)}"


def saturated(generator: Mapping[str, Any]) -> str | None:
    """Say in what the generator was at its end, so that the figures may be its own; None: it was not."""
    if not generator["saturated"]:
        return None
    why = ", ".join(generator["saturated_by"])
    return (
        f"the generator was saturated: {why}. The figures may be its own; fewer connections, a lower rate, a host that "
        "does less besides, or --worker on other hosts would tell"
    )


def page(template: str, **parts: str) -> str:
    """Fill a template of this package in; all have one style."""
    folder = files("shards.load")
    return Template((folder / template).read_text()).substitute(parts, style=(folder / "page.css").read_text())


def shown(measured: float | None) -> str:
    """Give a figure as people read it."""
    return "not measured" if measured is None else f"{measured:,}"


def duration(ms: float) -> str:
    """Give a duration as people read it."""
    if ms >= _SECOND_MS:
        return f"{ms / _SECOND_MS:,.1f} s"
    return f"{ms:.0f} ms" if ms >= _WHOLE_MS else f"{ms:.1f} ms"


def disrupted(one: Mapping[str, Any]) -> str:
    """Say in a line what an event did."""
    slowest = f"slowest second's p99 {duration(one['slowest_p99_ms'])}"
    if not one["clients"]:
        return f"no client moved or cut, {slowest}"
    return (
        f"{one['clients']:,} clients moved or cut, back after p50 {duration(one['p50_ms'])}, "
        f"p95 {duration(one['p95_ms'])}, at most {duration(one['max_ms'])}; {slowest}"
    )


def marks_of(events: Iterable[Mapping[str, Any]]) -> list[Mark]:
    """Number what happened; a command's start and end are one mark."""
    marks: list[Mark] = []
    for event in events:
        name, t = str(event["name"]), float(event["t"])
        kind, _, edge = name.rpartition(": ")
        if edge == "end":
            marks = [Mark(m.number, m.begin, t, m.name) if m.name == kind and m.end == m.begin else m for m in marks]
        elif name not in _QUIET_EVENTS:
            marks.append(Mark(len(marks) + 1, t, t, kind if edge == "start" else name))
    return marks


def row(cells: Sequence[object], tag: str = "td", numbers: int | None = None) -> str:
    """Give a table's row; cells from `numbers` on are set as numbers."""
    first = len(cells) if numbers is None else numbers
    return "<tr>" + "".join(
        f"<{tag}{' class=n' if index >= first else ''}>{escape(str(cell))}</{tag}>" for index, cell in enumerate(cells)
    )


def _summary(report: Mapping[str, Any]) -> str:
    host, load = report["host"], report["load"]
    others = len({one["host"] for one in report["hosts"]})
    where = f"generators on {others} other host{'s' if others > 1 else ''}, led from" if others else "generator on"
    fleet = ", as is the fleet" if report["fleet"] and not others else ""
    steps: Sequence[Mapping[str, Any]] = report.get("steps") or ()
    sockets = f"{steps[0]['connections']:,} to " if len(steps) > 1 else ""
    rate = "up to " if len(steps) > 1 else ""
    return (
        f"{load['url']}, dialect {load['dialect']} · {sockets}{load['connections']:,} sockets in groups of "
        f"{load['group_size']}, {rate}{load['rate']:,.0f} deliveries a second for {report['load_s']:,.0f} s · "
        f"{report['started']}, {report['duration_s']:,.0f} s in all · {where} a host of {host['cpus']} cores, "
        f"{host['memory_bytes'] / 1e9:.0f} GB, {host['system']}{fleet}"
    )


def _tiles(report: Mapping[str, Any]) -> str:
    connections, messages, latency = report["connections"], report["messages"], report["latency_ms"]
    wrong = sum(messages[name] for name in WRONG)
    tiles = [
        (
            "connections",
            f"{connections['opened']:,}",
            f"of {connections['wanted']:,}, {connections['rate_per_s']:,.0f}/s",
        ),
        ("delivered", f"{messages['per_s']:,.0f}/s", f"{messages['delivered']:,} in all"),
        ("latency p50", duration(latency["p50"]), f"p95 {duration(latency['p95'])}"),
        ("latency p99", duration(latency["p99"]), f"max {duration(latency['max'])}"),
        ("lost or wrong", f"{wrong:,}", f"{messages['gaps']:,} gaps"),
        ("reconnects", f"{connections['reconnects']:,}", _resumed(report["resume_ms"])),
    ]
    return "".join(
        f"<li{' class=fail' if index == 4 and wrong else ''}><span class=soft>{escape(name)}</span>"
        f"<b>{escape(value)}</b><span class=soft>{escape(more)}</span></li>"
        for index, (name, value, more) in enumerate(tiles)
    )


def _problems(report: Mapping[str, Any]) -> list[str]:
    told = saturated(report["generator"])
    return [*report["problems"], *([told] if told else [])]


def _resumed(resume: Mapping[str, float] | None) -> str:
    return f"back: p95 {duration(resume['p95'])}" if resume else "nobody was cut"


def _targets(targets: Iterable[Mapping[str, Any]], left_out: Mapping[str, str]) -> str:
    return "".join(
        f"<li class={'ok' if t['ok'] else 'fail'}><b>{'✓' if t['ok'] else '✗'}</b> {escape(t['name'])} "
        f"<span class=measured>{shown(t['measured'])}</span> <span class=soft>{escape(t['target'])}</span>"
        f"{'' if t['ok'] else ' missed'}</li>"
        for t in targets
    ) + "".join(f"<li class=soft>left out: {escape(name)} ({escape(why)})</li>" for name, why in left_out.items())


def _steps(report: Mapping[str, Any]) -> str:
    if not (steps := report.get("steps")):
        return ""
    tiers = [tier for tier in _TIER_STYLES if tier != "redis" and tier in steps[0]["cpu_percent"]]
    names = ["sockets", "connects/s", "delivered/s", "p50 ms", "p99 ms"]
    head = row([*names, *(f"{tier} %" for tier in tiers), "memory MB", "verdict"], "th", 0)
    rows = [
        row(
            [
                *(f"{step['connections']:,}", f"{step['connect_rate_per_s']:,.0f}", f"{step['delivered_per_s']:,.0f}"),
                *(f"{step['p50_ms']:,.1f}", f"{step['p99_ms']:,.1f}"),
                *(f"{step['cpu_percent'].get(tier, 0):,.0f}" for tier in tiers),
                f"{sum(bytes for tier, bytes in step['rss_bytes'].items() if tier != 'generator') / 1e6:,.0f}",
                step["verdict"],
            ],
            numbers=0,
        )
        for step in steps
    ]
    bend = report["bend"]
    where = f"bends at {bend['connections']:,} sockets" if bend["connections"] else "does not bend"
    return (
        f"<section><h2>Steps <small>{escape(where)}: {escape(bend['why'])}</small></h2>"
        f'<div class="scroll"><table>{head}{"".join(rows)}</table></div>'
        "<p class=soft>CPU of a tier in % of one core; memory of the whole fleet</p></section>"
    )


def _disruptions(disruptions: Sequence[Mapping[str, Any]]) -> str:
    if not disruptions:
        return ""
    names = ["event", "at", "clients moved or cut", "back p50 ms", "p95 ms", "max ms", "slowest second's p99 ms"]
    rows = [
        row(
            [one["name"], f"{one['t']:,.1f} s", f"{one['clients']:,}"]
            + ["-" if one[name] is None else f"{one[name]:,.0f}" for name in ("p50_ms", "p95_ms", "max_ms")]
            + [f"{one['slowest_p99_ms']:,.0f}"],
            numbers=1,
        )
        for one in disruptions
    ]
    table = f'<div class="scroll"><table>{row(names, "th", 1)}{"".join(rows)}</table></div>'
    return f"<section><h2>What happened to clients</h2>{table}</section>"


def wronged(clients: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Give the clients that have more to tell than that something came late, those first with whom most went wrong."""
    return [one for one in clients["worst"] if one["examples"]]


def _clients(clients: Mapping[str, Any]) -> str:
    found = wronged(clients)
    if not found:
        return ""
    items = "".join(
        f"<li>client {one['client']} of {escape(one['group'])} "
        f"<span class=soft>{escape('; '.join(one['examples']))}</span></li>"
        for one in found[:_CLIENTS_NAMED]
    )
    rest = "<p class=soft>and more: the books of up to 50 are in the JSON</p>" if found[_CLIENTS_NAMED:] else ""
    return f"<section><h2>Clients with whom something went wrong</h2><ul>{items}</ul>{rest}</section>"


def _series(timeline: Iterable[Mapping[str, Any]], name: str) -> list[Point]:
    return [(second["t"], second[name]) for second in timeline]


def _latency(timeline: Sequence[Mapping[str, Any]], marks: Sequence[Mark], right: float | None) -> str:
    """Chart the seconds in which something was delivered."""
    busy = [second for second in timeline if second["delivered"]]
    lines = [Line(name, _series(busy, f"{name}_ms"), style) for name, style in (("p50", "c0"), ("p99", "c1"))]
    return line_chart(lines, marks, log=True, right=right)


def _percentiles(latency: Mapping[str, Any]) -> str:
    """Chart latency over "one in": each step right is ten times rarer, so that the tail is seen."""
    tail = [(_rarity(p["percentile"]), p["ms"]) for p in latency["percentiles"] if p["percentile"] < 100]
    naive = [(_rarity(p["percentile"]), p["naive_ms"]) for p in latency["percentiles"] if p["percentile"] < 100]
    lines = [Line("from when a message was due", tail, "c0")]
    if any(ms for _, ms in naive):
        lines.append(Line("as a tool would say that waits for answers", naive, "c1 naive"))
    if not any(ms for line in lines for _, ms in line.points):
        return line_chart([])
    labels = [(_rarity(p), f"{p:g} %") for p in (0, 90, 99, 99.9, 99.99)]
    return line_chart(lines, log=True, x_labels=labels)


def _rarity(percentile: float) -> float:
    return -math.log10(1 - percentile / 100)


def _connections_of(spread: Sequence[Mapping[str, Any]]) -> str:
    return "<small>of each replica, as the service says</small>" if spread else ""


def _sockets(report: Mapping[str, Any], marks: Sequence[Mark], right: float | None) -> str:
    spread = report["spread"]
    if not spread:
        return line_chart([Line("connections", _series(report["timeline"], "connections"), "c0")], marks, right=right)
    names = sorted({name for sample in spread for name in sample["replicas"]})
    layers = [
        Line(name, [(sample["t"], sample["replicas"].get(name, 0)) for sample in spread], _replica_style(name))
        for name in names
    ]
    return stack_chart(layers, marks, right=right)


def _replica_style(name: str) -> str:
    color, _, number = name.partition("-")
    shade = _SHADES[int(number) % len(_SHADES)] if number.isdecimal() else ""
    return f"{_COLOR_STYLES.get(color, 'c6')} {shade}".strip()


def _process_lines(resources: Iterable[Mapping[str, Any]], name: str, unit: float) -> list[Line]:
    lines = []
    for process in resources:
        tier = tier_of(process["name"])
        points = [(sample["t"], round(sample[name] / unit, 2)) for sample in process["samples"]]
        lines += [Line(tier, piece, _TIER_STYLES[tier], process["name"]) for piece in _pieces(points)]
    return sorted(lines, key=lambda line: list(_TIER_STYLES).index(line.name))


def _pieces(points: Sequence[Point]) -> list[list[Point]]:
    """Part a line where nothing was sampled for a while: the process was not there."""
    pieces: list[list[Point]] = []
    for point in points:
        if not pieces or point[0] - pieces[-1][-1][0] > _ABSENT_SECONDS:
            pieces.append([])
        pieces[-1].append(point)
    return pieces


def _events(marks: Sequence[Mark]) -> str:
    if not marks:
        return ""
    items = "".join(f"<li>{escape(m.name)} <span class=soft>at {_span(m)}</span></li>" for m in marks)
    return f"<section><h2>Events <small>numbered in the charts</small></h2><ol class=events>{items}</ol></section>"


def _span(mark: Mark) -> str:
    return f"{mark.begin:,.1f} s" if mark.end == mark.begin else f"{mark.begin:,.1f} to {mark.end:,.1f} s"


def _ring(ring: Mapping[str, Any] | None) -> str:
    if not ring:
        return ""
    names = sorted({name for one in ring.values() for name in one["slots"]})
    styles = {name: _SHARD_STYLES[index % len(_SHARD_STYLES)] for index, name in enumerate(names)}
    bars = "".join(
        f"<div class=soft>{when}: version {one['version']}</div>"
        + share_bar([(name, one["slots"].get(name, 0), styles[name]) for name in names], f"slots {when}")
        for when, one in ring.items()
    )
    return f"<section><h2>Ring <small>slots of each shard</small></h2>{bars}</section>"


def _resources(resources: Iterable[Mapping[str, Any]], wear: Iterable[Mapping[str, Any]]) -> str:
    grown = {one["name"]: one for one in wear}
    head = row(["process", "memory, most", "growth, sustained", "CPU, mean", "CPU, most", "open files, most"], "th", 1)
    return head + "".join(
        row(
            [
                process["name"],
                f"{process['rss_max_bytes'] / 1e6:,.0f} MB",
                _growth(grown.get(process["name"])),
                f"{process['cpu_mean_percent']:.0f} %",
                f"{process['cpu_max_percent']:.0f} %",
                f"{process['files_max']:,}" if process["files_max"] else "-",
            ],
            numbers=1,
        )
        for process in resources
    )


def _growth(one: Mapping[str, Any] | None) -> str:
    return f"{one['rss_bytes_per_s'] / 1e3:,.1f} kB/s" if one else "-"


def _figures(report: Mapping[str, Any]) -> str:
    rows = []
    for section in ("connections", "messages", "resume_ms", "generator", "host", "http"):
        for name, value in (report[section] or {}).items():
            rows.append(row([f"{section} · {name}", f"{value:,}" if isinstance(value, int) else value]))
    rows += [row([f"error · {e['kind']}", f"{e['count']:,} x {e['example']}"]) for e in report["errors"]]
    rows += [row([f"event · {e['name']}", f"at {e['t']} s"]) for e in report["events"]]
    return "".join(rows)
