"""The old side: hands a worker's sockets over to others, some at a time, and keeps those that nobody takes."""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Callable, Iterable, Sequence
from itertools import count
from typing import NamedTuple, TypeVar

from shards.carried import StateUnfit
from shards.errors import ShardsError
from shards.metrics import Metrics
from shards.router.control import WorkerRecord
from shards.server.handoff.link import Link, check_peer
from shards.server.handoff.message import (
    BadMessage,
    Go,
    Hello,
    Keep,
    Ready,
    Refused,
    Sorry,
    TooLarge,
    pack,
    read_answer,
    read_message,
)
from shards.server.handoff.movable import MovableSocket
from shards.server.handoff.uncollected import uncollected
from shards.server.handoff.window import Window

logger = logging.getLogger(__name__)

STATE_SECONDS = 2.0
"""How long an app's `handoff_state` may take."""

ANSWER_SECONDS = 5.0
CONNECT_SECONDS = 2.0

SHUN_SECONDS = 15.0
"""For how long who has not answered is offered nothing, while there is somebody else."""

_LOOK_SECONDS = 0.001

FULL = "it is full"
"""What a taker says that has no room: another one may have."""


S = TypeVar("S", bound=MovableSocket)


class Try(NamedTuple):
    """A round in which all sockets are offered that are left.

    Attributes:
        pause_s: seconds before it.
        settle_s: seconds within which what a socket has under way must end, for it to go in this round.
    """

    pause_s: float
    settle_s: float


TRIES = (Try(0.0, 0.0), Try(0.1, 0.0), Try(0.3, 0.0), Try(0.5, 0.0), Try(0.5, 1.0), Try(0.5, 1.0))
"""A few go at a time, so who can go at once goes first: else some that have no end to what they do, as where a shard is
away or a client does not read, would take the time of all others."""


class NotTaken(Exception):
    """A socket stays. `again`: it may go later, or to somebody else."""

    def __init__(self, result: str, reason: str, again: bool = False) -> None:
        super().__init__(reason)
        self.result = result
        self.again = again


class Taker:
    """A worker that takes sockets, as the giver knows it; `connections` grows with what it is given."""

    def __init__(self, record: WorkerRecord) -> None:
        self.name = record.name
        self.connections = record.connections
        self._path = record.handoff
        self._greeted: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()
        self._answers: dict[int, asyncio.Future[str | None]] = {}
        self._link: Link | None = None

    @property
    def there(self) -> bool:
        """Whether it can be offered something."""
        return self._link is not None and not self._link.closed

    async def greet(self, worker: str) -> None:
        """Connect, and agree on a version; see `there`."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.setblocking(False)
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                await asyncio.get_running_loop().sock_connect(sock, self._path)
            check_peer(sock)
        except BaseException:
            sock.close()
            raise
        self._link = Link(sock, self._heard, self._ended)
        self._link.post(pack(Hello(worker)))
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                sorry = await self._greeted
        except BaseException:
            self.close()
            raise
        if sorry is not None:
            self.close()
            raise NotTaken("refused", sorry)

    def give_up(self) -> None:
        """Offer it nothing more: it does not answer, and would be offered each of the others in turn."""
        self.close()
        self._ended("does not answer")

    def _heard(self, frame: bytes) -> None:
        if not self._greeted.done():
            answer = read_answer(frame)
            self._greeted.set_result(answer.reason if isinstance(answer, Sorry) else None)
            return
        match read_message(frame):
            case Ready(id):
                self._answer(id, None)
            case Refused(id, reason):
                self._answer(id, reason)
            case other:
                raise BadMessage(f"a taker does not say {type(other).__name__}")

    def _answer(self, id: int, reason: str | None) -> None:
        answer = self._answers.get(id)
        if answer is not None and not answer.done():
            answer.set_result(reason)

    def _ended(self, reason: str) -> None:
        logger.warning("handoff: %s %s", self.name, reason)
        for answer in [self._greeted, *self._answers.values()]:
            if not answer.done():
                answer.set_result(f"{self.name} {reason}")

    async def offer(self, id: int, frame: bytes, descriptor: int) -> str | None:
        """Offer a socket; give why it is not taken, or None: it is ready for it, and `go` or `keep` must follow.

        Raises:
            TimeoutError: there is no answer; `give_up` must follow.
        """
        assert self._link is not None
        # One that is refused counts, too: else who refuses all would be offered all.
        self.connections += 1
        answer: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()
        self._answers[id] = answer
        try:
            if not self.there:
                return f"{self.name} has gone"
            self._link.post(frame, descriptor)
            async with asyncio.timeout(ANSWER_SECONDS):
                return await answer
        finally:
            del self._answers[id]

    def go(self, id: int) -> bool:
        """Give the socket away; False: there is nobody any more."""
        return self._link is not None and self._link.post(pack(Go(id)))

    def keep(self, id: int) -> None:
        """Take an offer back."""
        if self._link is not None:
            self._link.post(pack(Keep(id)))

    def close(self) -> None:
        """Disconnect."""
        if self._link is not None:
            self._link.close()


class Giver:
    """Hands sockets over.

    Args:
        worker: this worker's name.
        metrics: where it counts.
    """

    def __init__(self, worker: str, metrics: Metrics) -> None:
        self._worker = worker
        self._metrics = metrics
        self._ids = count(1)
        self._shunned: dict[str, float] = {}

    async def give(self, sockets: Iterable[S], to: Sequence[WorkerRecord], settle_s: float) -> list[S] | None:
        """Hand sockets over, each to whoever has fewest.

        Args:
            sockets: which; those that close meanwhile are left alone.
            to: who shall get them.
            settle_s: see `Try`.

        Returns:
            Those that may go if it is tried again; None: nobody is there who takes any.
        """
        now = time.monotonic()
        wanted = [record for record in to if self._shunned.get(record.name, now) <= now] or to
        takers = [taker for taker in await asyncio.gather(*(self._greet(record) for record in wanted)) if taker]
        if not takers:
            return None
        try:
            with uncollected():
                return await self._give_all(sockets, takers, settle_s)
        finally:
            for taker in takers:
                taker.close()

    async def _greet(self, record: WorkerRecord) -> Taker | None:
        taker = Taker(record)
        try:
            await taker.greet(self._worker)
        except (OSError, NotTaken, ShardsError) as error:
            logger.warning("handoff: %s takes no sockets: %s", record.name, error or type(error).__name__)
            return None
        return taker

    async def _give_all(self, sockets: Iterable[S], takers: list[Taker], settle_s: float) -> list[S]:
        left = iter(sockets)
        again: list[S] = []
        window, at_once = Window(), 0

        async def give_some() -> None:
            nonlocal at_once
            for one in left:
                there = [taker for taker in takers if taker.there]
                fewest = min(there, key=lambda taker: taker.connections, default=None)
                if fewest is None or await self._give(one, fewest, settle_s, window):
                    again.append(one)
                if at_once > window.size:
                    break
                begin_some()
            at_once -= 1

        def begin_some() -> None:
            nonlocal at_once
            while at_once < window.size:
                at_once += 1
                giving.create_task(give_some())

        async with asyncio.TaskGroup() as giving:
            begin_some()
        return again

    async def _give(self, socket: MovableSocket, taker: Taker, settle_s: float, window: Window) -> bool:
        """Hand a socket over; give whether to try it again."""
        if not socket.open_here:
            return False
        if socket.moving:  # a drain that was called off has not let go of it yet
            return True
        if not socket.movable:
            self._count("unfit")
            return False
        socket.freeze()
        try:
            await self._pass(socket, taker, settle_s, window)
        except BaseException as error:
            socket.rider.stay()
            socket.thaw()
            if not isinstance(error, NotTaken):
                raise
            logger.info("handoff: a socket stays: %s", error)
            self._count(error.result)
            return error.again
        self._count("given")
        return False

    def _count(self, result: str) -> None:
        self._metrics.handoffs.labels(result).inc()

    async def _pass(self, socket: MovableSocket, taker: Taker, settle_s: float, window: Window) -> None:
        """Pass a frozen socket on. Raises `NotTaken`."""
        await self._until_still(socket, settle_s)
        id = next(self._ids)
        frame = await self._sealed(socket, id)
        began = time.monotonic()
        if not socket.open_here:
            raise NotTaken("failed", "it has closed")
        try:
            if (reason := await taker.offer(id, frame, socket.descriptor())) is not None:
                raise NotTaken("refused", reason, again=reason == FULL or not taker.there)
            if not socket.open_here or not taker.go(id):
                raise NotTaken("failed", "it has closed, or there is nobody any more", again=True)
        except TimeoutError:
            self._shunned[taker.name] = time.monotonic() + SHUN_SECONDS
            taker.give_up()
            raise NotTaken("failed", f"{taker.name} does not answer", again=True) from None
        except OSError as error:  # no descriptor is left for a copy
            taker.keep(id)
            raise NotTaken("failed", str(error), again=True) from None
        except BaseException:
            taker.keep(id)
            raise
        now = time.monotonic()
        window.took(now - began, now)
        socket.release()

    async def _sealed(self, socket: MovableSocket, id: int) -> bytes:
        """Give the offer of a socket. Raises `NotTaken`."""
        try:
            async with asyncio.timeout(STATE_SECONDS):
                carried = await socket.rider.carry()
            return pack(socket.seal(id, carried))
        except (StateUnfit, TooLarge) as error:
            raise NotTaken("unfit", str(error)) from None
        except TimeoutError:
            raise NotTaken("failed", f"handoff_state takes longer than {STATE_SECONDS:g} s") from None
        except Exception as error:  # the app's own handoff_state
            logger.exception("handoff: handoff_state")
            raise NotTaken("failed", str(error)) from None

    async def _until_still(self, socket: MovableSocket, seconds: float) -> None:
        """Wait until nothing of a socket is under way, here or in its app; with no time for it, only look."""
        try:
            async with asyncio.timeout(seconds):
                await _until(socket, socket.settled)
                while socket.rider.part():
                    await _until(socket, socket.settled)
                await _until(socket, socket.flushed)
        except TimeoutError:
            raise NotTaken("busy", "what it has under way does not end", again=True) from None


async def _until(socket: MovableSocket, condition: Callable[[], bool]) -> None:
    while not condition():
        if not socket.open_here:
            raise NotTaken("failed", "it has closed")
        await asyncio.sleep(_LOOK_SECONDS)
