"""Generator processes on other hosts, as a coordinator gathers them: it listens, and they come."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

from shards.errors import ShardsError
from shards.load import joining
from shards.load.children import LINE_BYTES, Child


class OtherHosts:
    """A `Team` of processes that workers on other hosts bring.

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
        self._seats: dict[tuple[str, int], Child] = {}
        self._sizes: dict[str, int] = {}
        self._writers: list[asyncio.StreamWriter] = []
        self._changed = asyncio.Event()

    @contextlib.asynccontextmanager
    async def assembled(self) -> AsyncIterator[list[Child]]:
        """Wait until all are there; hang up at the end, which ends their processes."""
        host, port = self._address
        try:
            server = await asyncio.start_server(self._meet, host, port, limit=LINE_BYTES)
        except OSError as error:
            raise ShardsError(f"cannot listen at tcp://{host}:{port}: {error.strerror or error}") from error
        try:
            self._note(f"waiting for {self._workers} workers at tcp://{host}:{server.sockets[0].getsockname()[1]}")
            await self._all_there()
            server.close()
            yield list(self._seats.values())
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

    def _complete(self) -> int:
        """Count the workers of which all processes are there."""
        return sum(all((worker, index) in self._seats for index in range(size)) for worker, size in self._sizes.items())

    async def _meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        joined = False
        with contextlib.suppress(OSError, TimeoutError):
            joining.keep_alive(writer)
            async with asyncio.timeout(joining.HANDSHAKE_SECONDS):
                joined = await self._join(reader, writer)
        if not joined:
            writer.close()

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Let someone join who has the secret, and for whom there is a place."""
        challenge = joining.Challenge(joining.new_nonce())
        joining.say(writer, challenge)
        join = await joining.hear(reader)
        if not isinstance(join, joining.Join):
            return False
        if why := self._objection(challenge, join):
            joining.say(writer, joining.Refused(why))
            await writer.drain()
            return False
        self._sizes[join.worker] = join.of
        self._seats[join.worker, join.index] = Child(len(self._seats), reader, writer, join.host)
        joining.say(writer, joining.Welcome(joining.coordinator_proof(self._secret, challenge, join)))
        if all((join.worker, index) in self._seats for index in range(join.of)):
            self._note(f"{join.host} joined with {join.of} processes")
        self._changed.set()
        return True

    def _objection(self, challenge: joining.Challenge, join: joining.Join) -> str | None:
        if not joining.same(join.proof, joining.worker_proof(self._secret, challenge, join)):
            return "it has another secret"
        if (join.worker, join.index) in self._seats or not 0 <= join.index < join.of:
            return "that place is taken"
        if join.worker not in self._sizes and len(self._sizes) >= self._workers:
            return f"all {self._workers} workers are there already"
        return None
