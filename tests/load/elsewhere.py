"""The other end of a coordinator's `Child`, on a host with a monotonic clock of its own."""

from __future__ import annotations

import asyncio
import contextlib
from time import monotonic_ns

from shards.load import joining, wire


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


async def greeted(
    address: tuple[str, int], secret: bytes, join: joining.Join, source: str | None = None
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter, joining.Greeting | None]:
    """Join a coordinator, once it is there, from an address of this host; give what it answers."""
    while True:
        try:
            reader, writer = await asyncio.open_connection(*address, local_addr=(source, 0) if source else None)
            break
        except OSError:
            await asyncio.sleep(0.05)
    challenge = await joining.hear(reader)
    assert isinstance(challenge, joining.Challenge)
    join.proof = joining.worker_proof(secret, challenge, join)
    joining.say(writer, join)
    return reader, writer, await joining.hear(reader)


async def joined(
    address: tuple[str, int], secret: bytes, join: joining.Join, source: str | None = None, ports: int = 20_000
) -> Elsewhere:
    """Give a process that has joined, and waits for its plan."""
    reader, writer, answer = await greeted(address, secret, join, source)
    assert isinstance(answer, joining.Welcome), answer
    process = Elsewhere(reader, writer)
    process.say(wire.Hello(20_000, ports))
    return process
