"""Shows a run as it goes: a live line on a terminal, plain lines every five seconds elsewhere. All on stderr."""

from __future__ import annotations

import sys
from types import TracebackType

from rich.console import Console
from rich.status import Status

from shards.load.coordinator import Second

_PLAIN_EVERY = 5


class Show:
    """A `Watch` for people. Use as a context manager."""

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        self._live: Status | None = self._console.status("starting") if sys.stderr.isatty() else None
        self._phase = "starting"

    def __enter__(self) -> Show:
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()

    def phase(self, name: str) -> None:
        """A phase begins."""
        self._phase = name
        if self._live:
            self._live.update(name)
        else:
            self._print(f"{name} …")

    def second(self, number: int, second: Second) -> None:
        """A second is complete."""
        line = (
            f"{self._phase:8} {number:4} s  {second.open:,} sockets  {second.delivered:,} msg/s  "
            f"p50 {second.p50_ms:.1f} ms  p99 {second.p99_ms:.1f} ms"
        )
        if self._live:
            self._live.update(line)
        elif number % _PLAIN_EVERY == 0:
            self._print(line)

    def event(self, text: str) -> None:
        """Something happened."""
        self._print(f"· {text}")

    def _print(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)
