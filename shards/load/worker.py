"""A worker: this host's generator processes, led by a coordinator on another one.

It stands between: what the coordinator says goes to the process, what that reports goes back. So when this worker is
gone, both notice, the coordinator by the connection and the process by its standard input, which ends it.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import re
import socket
import sys
from collections import Counter
from collections.abc import Callable, Collection
from time import monotonic

from shards.errors import ShardsError
from shards.load import joining
from shards.load.children import LINE_BYTES, spawn

_AGAIN_SECONDS = 0.5
_END_SECONDS = 20.0


class End(enum.Enum):
    """How a process and the coordinator parted."""

    THROUGH = "it was told to stop, and was through by then"
    SPARE = "it was sent home without a plan: there was nothing for it to do"
    EARLY = "one of them ended before"


class Worker:
    """One worker, for one run.

    Args:
        address: where the coordinator listens.
        secret: shared with it.
        processes: how many to bring.
        wait_s: how long the coordinator may take to be there.
        note: told how it goes.
    """

    def __init__(
        self, address: tuple[str, int], secret: bytes, processes: int, wait_s: float, note: Callable[[str], None]
    ) -> None:
        self._address = address
        self._secret = secret
        self._processes = processes
        self._wait_s = wait_s
        self._note = note
        self._name = joining.new_nonce()

    async def run(self) -> Counter[End]:
        """Join, and do what the coordinator says until it hangs up.

        Returns:
            How many of its processes came to which end.

        Raises:
            ShardsError: it could not join; says why.
        """
        tasks = [asyncio.create_task(self._carry(index)) for index in range(self._processes)]
        try:
            return Counter(await asyncio.gather(*tasks))
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _carry(self, index: int) -> End:
        """Bring one process to the coordinator."""
        reader, writer = await self._connect()
        try:
            await self._join(index, reader, writer)
            return await _relay(reader, writer)
        finally:
            writer.close()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        deadline = monotonic() + self._wait_s
        while True:
            try:
                return await asyncio.open_connection(*self._address, limit=LINE_BYTES)
            except OSError as error:
                if monotonic() > deadline:
                    raise ShardsError(f"{self._where()} does not answer: {error.strerror or error}") from error
            await asyncio.sleep(_AGAIN_SECONDS)

    def _where(self) -> str:
        return f"the coordinator at tcp://{self._address[0]}:{self._address[1]}"

    async def _join(self, index: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            joining.keep_alive(writer)
            async with asyncio.timeout(joining.HANDSHAKE_SECONDS):
                await self._greet(index, reader, writer)
        except TimeoutError:
            raise ShardsError(f"{self._where()} says nothing: is it one?") from None
        except OSError as error:
            raise ShardsError(f"{self._where()} hung up: {error.strerror or error}") from error
        if index == 0:
            self._note(f"joined {self._where()} with {self._processes} processes")

    async def _greet(self, index: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        challenge = await joining.hear(reader)
        if not isinstance(challenge, joining.Challenge):
            raise ShardsError(f"{self._where()} is none, or the run is under way already")
        join = joining.Join(self._name, socket.gethostname(), index, self._processes, joining.new_nonce())
        join.proof = joining.worker_proof(self._secret, challenge, join)
        joining.say(writer, join)
        answer = await joining.hear(reader)
        if isinstance(answer, joining.Refused):
            raise ShardsError(f"{self._where()} refused this worker: {answer.why}")
        if not isinstance(answer, joining.Welcome):
            raise ShardsError(f"{self._where()} hung up")
        if not joining.same(answer.proof, joining.coordinator_proof(self._secret, challenge, join)):
            raise ShardsError(f"{self._where()} has another secret: it is not obeyed")


async def _relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> End:
    """Stand between a coordinator and a new generator process until one of them ends."""
    process = await spawn()
    assert process.stdin is not None
    assert process.stdout is not None
    told: set[str] = set()
    orders = asyncio.create_task(_pass_on(reader, process.stdin, told))
    try:
        end = end_of(told, await _report(process.stdout, writer))
        orders.cancel()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_END_SECONDS):
                await process.wait()
        return end
    finally:
        orders.cancel()
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def end_of(told: Collection[str], said: str) -> End:
    """Tell how a process ended that was `told` orders of these kinds, and `said` a report of that kind last."""
    if "Stop" in told and said == "Done":
        return End.THROUGH
    return End.SPARE if "Bye" in told and "Plan" not in told else End.EARLY


def _kind(line: bytes) -> str:
    """Give what kind of order or report a line is."""
    found = re.match(rb'\{"type":"(\w+)"', line)
    return found[1].decode() if found else ""


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, told: set[str]) -> None:
    """Hand orders on, noting of which kinds they are; the end of the coordinator is the end of the process's orders."""
    with contextlib.suppress(OSError):
        while line := await reader.readline():
            told.add(_kind(line))
            writer.write(line)
            await writer.drain()
    writer.close()


async def _report(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> str:
    """Hand reports on until there are no more; give of which kind the last one was."""
    kind = ""
    while line := await reader.readline():
        kind = _kind(line)
        with contextlib.suppress(OSError):
            writer.write(line)
            await writer.drain()
    return kind


def told_of(ends: Counter[End]) -> str:
    """Tell in a line how a worker's processes ended."""
    through, spare, all_of_them = ends[End.THROUGH], ends[End.SPARE], ends.total()
    if spare == all_of_them:
        return "this worker was not needed: the load has fewer groups than there are processes"
    line = f"{through} of {all_of_them} processes were through"
    return f"{line}, {spare} not needed: the load has fewer groups than there are processes" if spare else line


def run(worker: Worker) -> int:
    """Run a worker; give the exit status.

    Raises:
        ShardsError: it could not join.
    """
    ends = asyncio.run(worker.run())
    print(told_of(ends), file=sys.stderr)
    return 1 if ends[End.EARLY] else 0
