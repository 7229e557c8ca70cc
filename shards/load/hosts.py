"""Generator processes on other hosts, as a coordinator gathers them: it listens, and they come."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

from shards.errors import ShardsError
from shards.load import joining
from shards.load.children import LINE_BYTES, Child


class _Reader(asyncio.StreamReader):
    """What someone says; `ended` once they have hung up, whether or not it has been read by then."""

    def __init__(self) -> None:
        super().__init__(limit=LINE_BYTES)
        self.ended = asyncio.Event()

    def feed_eof(self) -> None:
        super().feed_eof()
        self.ended.set()

    def set_exception(self, exc: Exception) -> None:
        super().set_exception(exc)
        self.ended.set()


@dataclass(frozen=True)
class _Seat:
    """A process that has joined."""

    host: str
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter


@dataclass(frozen=True)
class _Place:
    """A worker's place.

    Attributes:
        size: how many processes it brings.
        seats: those that are there, by their index.
    """

    size: int
    seats: dict[int, _Seat] = field(default_factory=dict)

    @property
    def complete(self) -> bool:
        return len(self.seats) == self.size


class OtherHosts:
    """A `Team` of processes that workers on other hosts bring.

    Who leaves before all are there gives its place back, with all its processes: a worker is there whole or not at all.

    Args:
        address: host and port to listen at.
        secret: shared with the workers.
        workers: how many shall come.
        wait_s: how long to wait for them.
        note: told who has joined.
    """

    def __init__(
        self, address: tuple[str, int], secret: bytes, workers: int, wait_s: float, note: Callable[[str], None]
    ) -> None:
        self._address = address
        self._secret = secret
        self._workers = workers
        self._wait_s = wait_s
        self._note = note
        self._places: dict[str, _Place] = {}
        self._left: set[str] = set()
        self._writers: list[asyncio.StreamWriter] = []
        self._changed = asyncio.Event()
        self._waiting = True

    @contextlib.asynccontextmanager
    async def assembled(self) -> AsyncIterator[list[Child]]:
        """Wait until all are there; hang up at the end, which ends their processes."""
        host, port = self._address
        try:
            server = await asyncio.get_running_loop().create_server(self._caller, host, port)
        except OSError as error:
            raise ShardsError(f"cannot listen at tcp://{host}:{port}: {error.strerror or error}") from error
        try:
            self._note(f"waiting for {self._workers} workers at tcp://{host}:{server.sockets[0].getsockname()[1]}")
            await self._all_there()
            server.close()
            seats = [seat for place in self._places.values() for seat in place.seats.values()]
            yield [Child(number, seat.reader, seat.writer, seat.host) for number, seat in enumerate(seats)]
        finally:
            server.close()
            for writer in self._writers:
                writer.close()

    async def _all_there(self) -> None:
        try:
            async with asyncio.timeout(self._wait_s):
                while self._complete() < self._workers:
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise ShardsError(
                f"{self._complete()} of {self._workers} workers joined within {self._wait_s:g} s: start the others "
                f"with `python -m shards.load --worker tcp://THIS-HOST:{self._address[1]} --secret-file FILE`"
            ) from None
        finally:
            self._waiting = False

    def _complete(self) -> int:
        """Count the workers of which all processes are there."""
        return sum(place.complete for place in self._places.values())

    def _caller(self) -> asyncio.StreamReaderProtocol:
        reader = _Reader()
        return asyncio.StreamReaderProtocol(reader, lambda _, writer: self._meet(reader, writer))

    async def _meet(self, reader: _Reader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        join = None
        with contextlib.suppress(OSError, TimeoutError):
            joining.keep_alive(writer)
            async with asyncio.timeout(joining.HANDSHAKE_SECONDS):
                join = await self._join(reader, writer)
        if join is None:
            writer.close()
            return
        # Ended by the end of the run, it has nothing to tell: asyncio would print a traceback for each.
        with contextlib.suppress(asyncio.CancelledError):
            await reader.ended.wait()
        if self._waiting:
            self._give_back(join)

    def _give_back(self, left: joining.Join) -> None:
        """Let another one have a worker's place, for one of its processes is gone; the others of it go as well."""
        place = self._places.pop(left.worker, None)
        if place is None:
            return
        self._left.add(left.worker)
        for seat in place.seats.values():
            seat.writer.close()
        self._note(f"{left.host} left before all workers were there: its place is free again")

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> joining.Join | None:
        """Let someone join who has the secret, and for whom there is a place; None: they may not."""
        challenge = joining.Challenge(joining.new_nonce())
        joining.say(writer, challenge)
        join = await joining.hear(reader)
        if not isinstance(join, joining.Join):
            return None
        if why := self._objection(challenge, join):
            joining.say(writer, joining.Refused(why))
            await writer.drain()
            return None
        place = self._places.setdefault(join.worker, _Place(join.of))
        place.seats[join.index] = _Seat(join.host, reader, writer)
        joining.say(writer, joining.Welcome(joining.coordinator_proof(self._secret, challenge, join)))
        if place.complete:
            self._note(f"{join.host} joined with {join.of} processes")
        self._changed.set()
        return join

    def _objection(self, challenge: joining.Challenge, join: joining.Join) -> str | None:
        if not joining.same(join.proof, joining.worker_proof(self._secret, challenge, join)):
            return "it has another secret"
        if join.worker in self._left:
            return "another process of this worker has left"
        if join.worker not in self._places and len(self._places) >= self._workers:
            return f"all {self._workers} workers are there already"
        place = self._places.get(join.worker, _Place(join.of))
        if join.index in place.seats or not 0 <= join.index < join.of == place.size:
            return "that place is taken"
        return None
