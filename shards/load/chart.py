"""Charts as SVG, small enough to be read: lines, stacked areas and bars. Colors come from the page's style sheet."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from html import escape

Point = tuple[float, float]

NOTHING = "<p class=soft>nothing was measured</p>"
_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP, _RIGHT = 480, 230, 58, 26, 20, 12
_PLOT_WIDTH, _PLOT_HEIGHT = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _BOTTOM - _TOP
_TICKS = 4
_MOST_POINTS = 600
_LOG_STEPS = (1, 2, 5)
_SECOND_STEPS = (1, 2, 3, 5)
_LINEAR_STEPS = (1, 1.2, 1.6, 2, 3, 4, 5, 6, 8)


@dataclass(frozen=True)
class Line:
    """A line of a chart, or a layer of a stack.

    Attributes:
        name: what it shows; lines of one name are explained once.
        points: (x, y), x ascending.
        style: its CSS class.
        title: what is told of the line alone, where others have its name.
    """

    name: str
    points: Sequence[Point]
    style: str
    title: str = ""


@dataclass(frozen=True)
class Mark:
    """Something that happened: a line, or where it took time a band, with its number at the top."""

    number: int
    begin: float
    end: float
    name: str


@dataclass(frozen=True)
class Scale:
    """From a value to its place, in a range of either kind.

    Attributes:
        low, high: the values at both ends.
        log: whether each step up multiplies.
    """

    low: float
    high: float
    log: bool = False

    def part(self, value: float) -> float:
        """Give how far up `value` lies, 0 to 1."""
        if self.log:
            value, low, high = (math.log10(max(v, self.low)) for v in (value, self.low, self.high))
        else:
            low, high = self.low, self.high
        return min(1.0, max(0.0, (value - low) / (high - low)))

    def ticks(self) -> list[float]:
        """Give the values to write beside the axis."""
        if not self.log:
            return [self.low + (self.high - self.low) * i / _TICKS for i in range(_TICKS + 1)]
        powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        steps = _LOG_STEPS if len(powers) < _TICKS else (1,)
        values = [step * 10.0**power for power in powers for step in steps]
        return [value for value in values if self.low * 0.999 <= value <= self.high * 1.001]


def scale_for(values: Sequence[float], log: bool = False) -> Scale:
    """Give a scale for values: linear from 0, or logarithmic from the next 1, 2 or 5 below the least above 0."""
    most = max(values, default=0.0)
    if not log:
        return Scale(0.0, round_up(most))
    least = min((value for value in values if value > 0), default=1.0)
    low = 10.0 ** math.floor(math.log10(least))
    return Scale(low, max(round_up(most, _LOG_STEPS), low * 10), log=True)


def round_up(value: float, steps: Sequence[float] = _LINEAR_STEPS) -> float:
    """Give the next of `steps` times a power of ten: an axis that ends on a round number."""
    if value <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in (*steps, 10) if step * power >= value * (1 - 1e-9))


@dataclass(frozen=True)
class Frame:
    """What a chart is drawn in.

    Attributes:
        right: the greatest x; the least is 0.
        y: the scale of y.
        marks: what happened.
        x_labels: (x, text); empty: seconds.
        label: what the chart shows, for who cannot see it.
    """

    right: float
    y: Scale
    marks: Sequence[Mark] = ()
    x_labels: Sequence[tuple[float, str]] = field(default=())
    label: str = ""

    def x_at(self, x: float) -> float:
        """Give the place of x."""
        return round(_LEFT + min(1.0, x / self.right) * _PLOT_WIDTH, 1)

    def y_at(self, y: float) -> float:
        """Give the place of y."""
        return round(_HEIGHT - _BOTTOM - self.y.part(y) * _PLOT_HEIGHT, 1)

    def around(self, content: str) -> str:
        """Give the whole chart, `content` being what is between its axes."""
        parts = [*map(self._mark, self.marks), *map(self._y_tick, self.y.ticks()), *self._x_ticks(), content]
        title = f"<title>{escape(self.label)}</title>" if self.label else ""
        return f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img">{title}{"".join(parts)}</svg>'

    def _y_tick(self, value: float) -> str:
        at = self.y_at(value)
        return (
            f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{at}" y2="{at}"/>'
            f'<text class="y" x="{_LEFT - 6}" y="{at + 4}">{value:,.6g}</text>'
        )

    def _x_ticks(self) -> list[str]:
        step = round_up(self.right / _TICKS, _SECOND_STEPS)
        times = [(step * i, f"{step * i:g} s") for i in range(math.floor(self.right / step * (1 + 1e-9)) + 1)]
        places = [(self.x_at(x), text) for x, text in self.x_labels or times]
        return [
            f'<text class="x{" last" if at > _WIDTH - _LEFT else ""}" x="{at}" y="{_HEIGHT - 8}">{escape(text)}</text>'
            for at, text in places
        ]

    def _mark(self, mark: Mark) -> str:
        left, right = self.x_at(mark.begin), self.x_at(mark.end)
        title = f"<title>{escape(mark.name)} at {mark.begin:.1f} s</title>"
        high = _HEIGHT - _BOTTOM - _TOP
        return (
            f'<g class="mark">{title}<rect x="{left}" y="{_TOP}" width="{max(1.0, right - left):.1f}" height="{high}"/>'
            f'<line x1="{left}" x2="{left}" y1="{_TOP}" y2="{_HEIGHT - _BOTTOM}"/>'
            f'<text x="{left}" y="{_TOP - 6}">{mark.number}</text></g>'
        )


def thinned(points: Sequence[Point]) -> Sequence[Point]:
    """Give at most about 600 points; of several, the highest, so that no peak disappears."""
    step = -(-len(points) // _MOST_POINTS)
    if step <= 1:
        return points
    return [max(points[i : i + step], key=lambda point: point[1]) for i in range(0, len(points), step)]


def legend(lines: Sequence[Line]) -> str:
    """Explain the lines, each name once."""
    known = {line.name: line.style for line in lines}
    items = "".join(f'<li><i class="{style}"></i>{escape(name)}</li>' for name, style in known.items())
    return f'<ul class="legend">{items}</ul>'


def line_chart(
    lines: Sequence[Line],
    marks: Sequence[Mark] = (),
    *,
    log: bool = False,
    x_labels: Sequence[tuple[float, str]] = (),
    right: float | None = None,
    label: str = "",
) -> str:
    """Draw lines over a common x.

    Args:
        lines: what to draw.
        marks: what happened meanwhile.
        log: y on a logarithmic scale.
        x_labels: what to write below instead of seconds.
        right: where x ends; None: with the last point.
        label: what the chart shows, for who cannot see it.
    """
    lines = [replace(line, points=thinned(line.points)) for line in lines if line.points]
    if not lines:
        return NOTHING
    last = max(x for line in lines for x, _ in line.points)
    frame = Frame(
        right or last or 1, scale_for([y for line in lines for _, y in line.points], log), marks, x_labels, label
    )
    drawn = []
    for line in lines:
        path = " ".join(f"{frame.x_at(x)},{frame.y_at(y)}" for x, y in line.points)
        title = f"<title>{escape(line.title or line.name)}</title>"
        drawn.append(f'<polyline class="line {line.style}" points="{path}">{title}</polyline>')
    return frame.around("".join(drawn)) + legend(lines)


def stack_chart(
    layers: Sequence[Line], marks: Sequence[Mark] = (), *, right: float | None = None, label: str = ""
) -> str:
    """Draw layers on top of each other; all have the same x."""
    layers = [layer for layer in layers if layer.points]
    if not layers:
        return NOTHING
    times = [x for x, _ in layers[0].points]
    bases = [[0.0] * len(times)]
    for layer in layers:
        bases.append([below + y for below, (_, y) in zip(bases[-1], layer.points, strict=True)])
    frame = Frame(right or times[-1] or 1, scale_for(bases[-1]), marks, (), label)
    drawn = []
    for layer, below, above in zip(layers, bases, bases[1:], strict=False):
        edge = [*zip(times, above, strict=True), *reversed(list(zip(times, below, strict=True)))]
        path = " ".join(f"{frame.x_at(x)},{frame.y_at(y)}" for x, y in edge)
        drawn.append(
            f'<polygon class="layer {layer.style}" points="{path}"><title>{escape(layer.name)}</title></polygon>'
        )
    return frame.around("".join(drawn)) + legend(layers)


def share_bar(parts: Sequence[tuple[str, float, str]], label: str) -> str:
    """Draw one bar of parts (name, size, style), each as long as its size."""
    whole = sum(size for _, size, _ in parts) or 1.0
    cells = "".join(
        f'<span class="{style}" style="flex-grow:{size / whole:.4f}" title="{escape(name)}: {size:,.0f}">'
        f"<b>{escape(name)}</b> {size:,.0f}</span>"
        for name, size, style in parts
        if size
    )
    return f'<div class="share" role="img" aria-label="{escape(label)}">{cells}</div>'
