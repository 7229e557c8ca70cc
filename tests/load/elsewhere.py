"""The other end of a coordinator's `Child`, on a host with a monotonic clock of its own."""

from __future__ import annotations

import asyncio
import contextlib
from time import monotonic_ns

from shards.load import wire


class Elsewhere:
    """A generator process that does nothing: it says what time it has, and notes what else it is told.

    Args:
        reader, writer: what it is told, and what it says.
        ahead_ns: how far its host's clock is ahead of this one's.

    Attributes:
        told: the orders, but for those to say what time it is.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, ahead_ns: int = 0) -> None:
        self._reader = reader
        self._writer = writer
        self._ahead_ns = ahead_ns
        self.told: list[wire.Order] = []

    def now_ns(self) -> int:
        return monotonic_ns() + self._ahead_ns

    def say(self, report: wire.Report) -> None:
        self._writer.write(wire.encode(report) + b"\n")

    async def listen(self) -> None:
        """Take orders until there are no more."""
        with contextlib.suppress(OSError):
            while line := await self._reader.readline():
                match wire.decode_order(line):
                    case wire.Ask(asked_ns):
                        self.say(wire.Time(asked_ns, self.now_ns()))
                    case order:
                        self.told.append(order)

    def hang_up(self) -> None:
        self._writer.close()
