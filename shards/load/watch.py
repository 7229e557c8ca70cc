"""Shows a run as it goes: a live view on a terminal, plain lines every five seconds elsewhere. All on stderr."""

from __future__ import annotations

from collections import deque
from types import TracebackType

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from shards.load.coordinator import Load, Second
from shards.load.spread import Spread

_PLAIN_EVERY = 5
_BARS = "▁▂▃▄▅▆▇█"
_SECONDS = 60
_EVENTS = 6
_BAR_WIDTH = 30


def sparkline(values: list[float]) -> str:
    """Draw values as a row of bars, the highest one full."""
    top = max(values, default=0.0)
    if top <= 0:
        return _BARS[0] * len(values)
    return "".join(_BARS[min(len(_BARS) - 1, int(value / top * len(_BARS)))] for value in values)


class Show:
    """A `Watch` for people. Use as a context manager.

    Args:
        console: where to show it; None: stderr.
    """

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True)
        self._live: Live | None = None
        if self._console.is_terminal:
            self._live = Live(console=self._console, auto_refresh=False, transient=True)
        self._phase = "starting"
        self._wanted = 0
        self._seconds: deque[Second] = deque(maxlen=_SECONDS)
        self._number = 0
        self._reconnects = 0
        self._events: deque[str] = deque(maxlen=_EVENTS)
        self._spread = Spread(None)

    def __enter__(self) -> Show:
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()

    def begin(self, load: Load, spread: Spread) -> None:
        """A load begins; `spread` will know where its sockets are."""
        self._wanted, self._spread, self._reconnects = load.connections, spread, 0
        self._seconds.clear()
        if not self._live:
            self._print(f"{load.connections:,} sockets, {load.rate:,.0f} messages a second, {load.duration_s:.0f} s")

    def phase(self, name: str) -> None:
        """A phase begins."""
        self._phase = name
        if self._live:
            self._refresh()
        else:
            self._print(f"{name} …")

    def second(self, number: int, second: Second) -> None:
        """A second is complete."""
        self._number = number
        self._reconnects += second.back
        self._seconds.append(second)
        if self._live:
            self._refresh()
        elif number % _PLAIN_EVERY == 0:
            self._print(self.line())

    def event(self, text: str) -> None:
        """Something happened."""
        self._events.append(f"{max(0, self._number):4} s  {text}")
        if self._live:
            self._refresh()
        else:
            self._print(f"· {text}")

    def line(self) -> str:
        """Give the last second as a line."""
        last = self._seconds[-1] if self._seconds else Second()
        return (
            f"{self._phase:8} {self._number:4} s  {last.open:,} sockets  {last.delivered:,} msg/s  "
            f"p50 {last.p50_ms:.1f} ms  p99 {last.p99_ms:.1f} ms"
        )

    def view(self) -> Group:
        """Give the live view."""
        last = self._seconds[-1] if self._seconds else Second()
        figures = Table.grid(padding=(0, 2))
        for name, now, values in (
            ("sockets", f"{last.open:,} of {self._wanted:,}", [float(s.open) for s in self._seconds]),
            ("reconnects", f"{self._reconnects:,}", [float(s.back) for s in self._seconds]),
            ("delivered", f"{last.delivered:,}/s", [float(s.delivered) for s in self._seconds]),
            ("p50", f"{last.p50_ms:.1f} ms", [s.p50_ms for s in self._seconds]),
            ("p99", f"{last.p99_ms:.1f} ms", [s.p99_ms for s in self._seconds]),
        ):
            figures.add_row(name, Text(now, style="bold"), Text(sparkline(values), style="cyan"))
        parts: list[RenderableType] = [
            figures,
            *self._replicas(),
            *(Text(f"· {event}", style="dim") for event in self._events),
        ]
        return Group(Panel(Group(*parts), title=f"{self._phase}, {self._number} s", title_align="left"))

    def _replicas(self) -> list[Table]:
        sockets = self._spread.samples[-1]["replicas"] if self._spread.samples else {}
        if not sockets:
            return []
        table, most = Table.grid(padding=(0, 2)), max(1, *sockets.values())
        for name, count in sorted(sockets.items()):
            style = "green" if name.startswith("green") else "blue"
            table.add_row(
                name, Text(f"{count:,}", justify="right"), Text("█" * (_BAR_WIDTH * count // most), style=style)
            )
        return [table]

    def _refresh(self) -> None:
        assert self._live
        self._live.update(self.view(), refresh=True)

    def _print(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)
