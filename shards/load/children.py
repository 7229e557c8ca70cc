"""The generator processes as their coordinator sees them, on this host or on another.

Times travel as nanoseconds of a monotonic clock, and every host has its own. So the coordinator asks each process on
another host what time it has, several times: the answer that was back soonest tells how far the clocks are apart, to
half of the time that it took (Cristian, "Probabilistic clock synchronization", 1989). From then on whatever goes
there or comes from there is put into the other's time here, and nothing else knows of it.

No latency is affected: a group's members all live in one process, so that a message's publisher and its receivers
have one clock.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from time import monotonic_ns
from typing import Protocol

import msgspec

from shards.load import wire

LINE_BYTES = 1 << 24
"""The longest line that a process and its coordinator tell each other."""

_CLOCK_QUESTIONS = 8
_CLOCK_SECONDS = 5.0
_END_SECONDS = 5.0


class Clock:
    """Another host's monotonic clock.

    Attributes:
        ahead_ns: how far it is ahead of this host's.
        error_ns: by how much that may be wrong, at most.
    """

    def __init__(self) -> None:
        self.ahead_ns = 0
        self.error_ns: int | None = None

    def learn(self, asked_ns: int, theirs_ns: int, back_ns: int) -> None:
        """Take an answer: asked at `asked_ns` and back at `back_ns` here, while it was `theirs_ns` there."""
        error_ns = (back_ns - asked_ns) // 2
        if self.error_ns is None or error_ns < self.error_ns:
            self.ahead_ns, self.error_ns = theirs_ns - asked_ns - error_ns, error_ns


class Child:
    """A generator process.

    Args:
        number: from 0.
        reader, writer: what it says, and what it is told.
        host: the host it is on, as that calls itself; None: this one.
        pid: its process, where it is on this host.

    Attributes:
        hello, connected, done: set once it has said so, or is gone.
        limit, ports: files it may open, and connections its host may hold from one address, once it has said hello.
        open: sockets that it has subscribed, once it is done.
        cpu: percent of a core, each second of the load.
        connect_cpu: the same, of the time in which it should have connected.
        planned: it was given its plan.
        left: it is gone.
    """

    def __init__(
        self,
        number: int,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        host: str | None = None,
        pid: int | None = None,
    ) -> None:
        self.number = number
        self.host = host
        self.pid = pid
        self.clock = Clock()
        self.limit = self.ports = self.open = 0
        self.cpu: list[float] = []
        self.connect_cpu: list[float] = []
        self.planned = self.left = False
        self._reader = reader
        self._writer = writer
        loop = asyncio.get_running_loop()
        self.hello: asyncio.Future[None] = loop.create_future()
        self.connected: asyncio.Future[None] = loop.create_future()
        self.done: asyncio.Future[None] = loop.create_future()
        self._answer: asyncio.Future[None] = loop.create_future()

    @property
    def through(self) -> bool:
        """Whether it said that it is done, and is there."""
        return self.done.done() and not self.left

    def __str__(self) -> str:
        return f"generator process {self.number}" + (f" on {self.host}" if self.host else "")

    @property
    def where(self) -> str | None:
        """The host, told apart by its address from others that call themselves alike; None: it is this one.

        Hosts that come through a tunnel have one address: these are told apart by their names alone.
        """
        peer = self._writer.get_extra_info("peername")
        return f"{self.host} ({peer[0]})" if self.host and peer else self.host

    def tell(self, order: wire.Order) -> None:
        """Give it an order, if it is still there; times in it are this host's."""
        if self._writer.is_closing():
            return
        if isinstance(order, wire.Plan):
            self.planned = True
            order = msgspec.structs.replace(order, start_ns=order.start_ns + self.clock.ahead_ns)
        elif isinstance(order, wire.Go | wire.Stop):
            order = msgspec.structs.replace(order, at_ns=order.at_ns + self.clock.ahead_ns)
        self._writer.write(wire.encode(order) + b"\n")

    async def next(self) -> wire.Report | None:
        """Give what it says next, times in it being this host's; None: it is gone.

        Raises:
            msgspec.DecodeError: that is no report.
        """
        try:
            line = await self._reader.readline()
        except OSError:
            return None
        # A process that is killed may leave half a line.
        if not line.endswith(b"\n"):
            return None
        report: wire.Report = wire.decode_report(line)
        if isinstance(report, wire.Time):
            self.clock.learn(report.asked_ns, report.ns, monotonic_ns())
            if not self._answer.done():
                self._answer.set_result(None)
        elif isinstance(report, wire.Connected):
            report.first_ns -= self.clock.ahead_ns
            # Where nothing opened there is no last one, and 0 is no time.
            report.last_ns -= self.clock.ahead_ns if report.opened else 0
        return report

    async def compare_clocks(self) -> None:
        """Learn what time it has there, where that is another host; somebody must read what it says meanwhile.

        Raises:
            TimeoutError: it does not answer.
        """
        for _ in range(_CLOCK_QUESTIONS if self.host else 0):
            if self.left:
                return
            self._answer = asyncio.get_running_loop().create_future()
            self.tell(wire.Ask(monotonic_ns()))
            async with asyncio.timeout(_CLOCK_SECONDS):
                await self._answer

    def gone(self) -> bool:
        """Let nobody wait for it any more; True where it went before it was done."""
        early, self.left = not self.done.done(), True
        for future in (self.hello, self.connected, self.done, self._answer):
            if not future.done():
                future.set_result(None)
        return early


class Team(Protocol):
    """Where generator processes come from."""

    def assembled(self) -> AbstractAsyncContextManager[list[Child]]:
        """Give the processes; after the context none is left.

        Raises:
            ShardsError: they did not come.
        """


class OwnProcesses:
    """A `Team` of processes on this host.

    Args:
        count: how many.
    """

    def __init__(self, count: int) -> None:
        self._count = count

    @contextlib.asynccontextmanager
    async def assembled(self) -> AsyncIterator[list[Child]]:
        """Start them; kill whoever is left at the end."""
        processes: list[asyncio.subprocess.Process] = []
        try:
            for _ in range(self._count):
                processes.append(await spawn())
            children = [_child(number, process) for number, process in enumerate(processes)]
            yield children
            await _closed(processes, children)
        finally:
            for process in processes:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()


def _child(number: int, process: asyncio.subprocess.Process) -> Child:
    assert process.stdin is not None
    assert process.stdout is not None
    return Child(number, process.stdout, process.stdin, pid=process.pid)


async def _closed(processes: Sequence[asyncio.subprocess.Process], children: Sequence[Child]) -> None:
    """Give those that are through the time to close their sockets in good order; nobody else is waited for."""
    through = [asyncio.create_task(one.wait()) for one, child in zip(processes, children, strict=True) if child.through]
    if through:
        await asyncio.wait(through, timeout=_END_SECONDS)
    for waiting in through:
        waiting.cancel()
    await asyncio.gather(*through, return_exceptions=True)


async def spawn() -> asyncio.subprocess.Process:
    """Start a generator process, in its own session: Ctrl-C is for the coordinator to handle."""
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "shards.load.process",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=LINE_BYTES,
        start_new_session=True,
    )
