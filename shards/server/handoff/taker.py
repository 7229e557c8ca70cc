"""The new side: listens on a UNIX socket for workers that hand theirs over."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from shards.metrics import Metrics
from shards.server.handoff import uncollected
from shards.server.handoff.giver import FULL
from shards.server.handoff.link import Link, Stranger, check_peer
from shards.server.handoff.message import (
    VERSION,
    BadMessage,
    Go,
    Keep,
    Offer,
    Ready,
    Refused,
    Sorry,
    Welcome,
    pack,
    read_hello,
    read_message,
)
from shards.server.handoff.movable import MovableSocket

logger = logging.getLogger(__name__)

BOARD_SECONDS = 4.0
"""Within which the app must connect; sooner than the giver gives up."""

DECIDE_SECONDS = 10.0
"""Within which the giver must then say what it wants."""

QUIET_SECONDS = 30.0
"""After which a giver that says nothing is sent home: no garbage is collected while it is here."""

_BACKLOG = 64


class Arrivals:
    """A worker's UNIX socket, and the sockets that come over it.

    Args:
        path: of the UNIX socket, in a directory that is only this user's.
        make: makes a protocol for a socket.
        is_full: tells whether the worker takes no more.
        metrics: where it counts.
    """

    def __init__(
        self, path: Path, make: Callable[[], MovableSocket], is_full: Callable[[], bool], metrics: Metrics
    ) -> None:
        self.path = path
        self.make = make
        self.is_full = is_full
        self.metrics = metrics
        self._sock: socket.socket | None = None
        self._guests: set[_Guest] = set()

    def listen(self) -> None:
        """Listen from now on.

        Raises:
            OSError: it can't.
        """
        self.path.parent.mkdir(mode=0o700, exist_ok=True)
        _sweep(self.path)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            sock.bind(os.fspath(self.path))
            self.path.chmod(0o600)
            sock.listen(_BACKLOG)
        except OSError:
            sock.close()
            raise
        self._sock = sock
        asyncio.get_running_loop().add_reader(sock, self._accept)

    def _accept(self) -> None:
        assert self._sock is not None
        try:
            guest, _ = self._sock.accept()
        except OSError:  # gone again, or no descriptor left: who waits comes again
            return
        try:
            check_peer(guest)
        except (Stranger, OSError) as error:
            logger.warning("handoff: %s", error)
            guest.close()
            return
        uncollected.begin()
        self._guests.add(_Guest(self, guest))

    def left(self, guest: _Guest) -> None:
        """Hear that a giver is gone."""
        if guest in self._guests:
            self._guests.remove(guest)
            uncollected.end()

    def stop(self) -> None:
        """Listen no more, and take nothing that is not on its way already."""
        if self._sock is not None:
            asyncio.get_running_loop().remove_reader(self._sock)
            self._sock.close()
            self._sock = None
            self.path.unlink(missing_ok=True)
        for guest in list(self._guests):
            guest.end()


@dataclass
class _Boarding:
    """A socket on offer: its descriptor, and the app's end of it, which a timer takes back."""

    descriptor: int
    protocol: MovableSocket
    timer: asyncio.TimerHandle


class _Guest:
    """A giver."""

    def __init__(self, arrivals: Arrivals, sock: socket.socket) -> None:
        self._arrivals = arrivals
        self._link = Link(sock, self._heard, self._ended)
        self._name: str | None = None
        self._boarding: dict[int, _Boarding] = {}
        self._opening: set[asyncio.Task[None]] = set()
        self._loop = asyncio.get_running_loop()
        self._heard_at = self._loop.time()
        self._listening = self._loop.call_later(QUIET_SECONDS, self._listen)

    def _listen(self) -> None:
        """Send the giver home where it has been quiet for too long."""
        quiet_s = self._loop.time() - self._heard_at
        if quiet_s >= QUIET_SECONDS:
            logger.warning("handoff: %s says nothing any more", self._name or "somebody")
            self.end()
        else:
            self._listening = self._loop.call_later(QUIET_SECONDS - quiet_s, self._listen)

    def _heard(self, frame: bytes) -> None:
        self._heard_at = self._loop.time()
        if self._name is None:
            self._greet(frame)
            return
        match read_message(frame):
            case Offer() as offer:
                self._board(offer, self._link.take_descriptor())
            case Go(id):
                self._go(id)
            case Keep(id):
                self._turn_back(id)
            case other:
                raise BadMessage(f"a giver does not say {type(other).__name__}")

    def _greet(self, frame: bytes) -> None:
        hello = read_hello(frame)
        if VERSION not in hello.versions:
            versions = ", ".join(map(str, hello.versions))
            self._link.post(pack(Sorry(f"versions {versions} are not known here, only {VERSION}")))
            return
        self._name = hello.worker
        self._link.post(pack(Welcome()))

    def _board(self, offer: Offer, descriptor: int) -> None:
        id = offer.id
        if id in self._boarding:
            os.close(descriptor)
            raise BadMessage("an offer that was made already")
        if self._arrivals.is_full():
            os.close(descriptor)
            self._link.post(pack(Refused(id, FULL)))
            return
        protocol = self._arrivals.make()
        timer = self._loop.call_later(BOARD_SECONDS, self._boarded, id, "the app does not connect in time")
        self._boarding[id] = _Boarding(descriptor, protocol, timer)
        protocol.board(offer, self._name or "", partial(self._boarded, id))

    def _boarded(self, id: int, reason: str | None) -> None:
        """Say whether the app has connected; the giver then says what it wants, if it lives."""
        boarding = self._boarding.get(id)
        if boarding is None:
            return
        if reason is None:
            boarding.timer.cancel()
            boarding.timer = self._loop.call_later(DECIDE_SECONDS, self._turn_back, id)
            self._link.post(pack(Ready(id)))
        else:
            self._turn_back(id)
            self._link.post(pack(Refused(id, reason)))

    def _turn_back(self, id: int) -> None:
        boarding = self._boarding.pop(id, None)
        if boarding is not None:
            boarding.timer.cancel()
            os.close(boarding.descriptor)
            boarding.protocol.turn_back()
            self._arrivals.metrics.handoffs.labels("turned_back").inc()

    def _go(self, id: int) -> None:
        boarding = self._boarding.pop(id, None)
        if boarding is not None:
            boarding.timer.cancel()
            opening = asyncio.create_task(self._open(boarding.descriptor, boarding.protocol))
            self._opening.add(opening)
            opening.add_done_callback(self._opening.discard)
        else:
            # The giver has let go of it, and here it was turned back: it took too long to say so.
            self._lose("it was given too late")

    def _lose(self, why: object) -> None:
        logger.error("handoff: a socket that was given here is lost, its client comes back: %s", why)
        self._arrivals.metrics.handoffs.labels("lost").inc()

    async def _open(self, descriptor: int, protocol: MovableSocket) -> None:
        try:
            await self._connect(descriptor, protocol)
        except (OSError, ValueError) as error:
            self._lose(error)
            protocol.turn_back()
            return
        if protocol.read_paused and not protocol.transport.is_closing():
            protocol.transport.pause_reading()
        self._arrivals.metrics.handoffs.labels("taken").inc()
        self._arrivals.metrics.handoff_seconds.observe(protocol.paused_s)
        self._arrivals.metrics.handoff_span.mark()

    async def _connect(self, descriptor: int, protocol: MovableSocket) -> None:
        """Make a connection of a descriptor, and the protocol its own. Raises OSError, with the descriptor closed."""
        try:
            sock = socket.socket(fileno=descriptor)
        except OSError:
            os.close(descriptor)
            raise
        try:
            sock.setblocking(False)
            await self._loop.connect_accepted_socket(lambda: protocol, sock)
        except (OSError, ValueError):
            sock.close()
            raise

    def _ended(self, reason: str) -> None:
        self._listening.cancel()
        for id in list(self._boarding):
            self._turn_back(id)
        self._arrivals.left(self)

    def end(self) -> None:
        """Take nothing more of this giver."""
        self._link.close()
        self._ended("")


def _sweep(path: Path) -> None:
    """Remove what killed workers of the same replica have left: nobody listens there."""
    replica, _, _ = path.name.rpartition("-")
    for file in path.parent.glob(f"{replica}-*"):
        pid = file.name.rpartition("-")[2]
        if pid.isdigit() and (int(pid) == os.getpid() or not _runs(int(pid))):
            file.unlink(missing_ok=True)


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
