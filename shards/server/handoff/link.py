"""A UNIX socket between two workers of one user, over which frames and descriptors travel."""

from __future__ import annotations

import array
import asyncio
import contextlib
import os
import socket
import struct
from collections import deque
from collections.abc import Callable, Iterable

from shards.errors import ShardsError
from shards.server.handoff.message import BadMessage, Frames

DESCRIPTORS = 128
"""Descriptors in one call; the kernel takes 253 (SCM_MAX_FD)."""

_READ_BYTES = 1 << 18
_INT_BYTES = array.array("i").itemsize
_LAST_WORDS_SECONDS = 0.5
_UCRED = struct.Struct("3i")


class Stranger(ShardsError):
    """The other end of a UNIX socket belongs to another user."""


def check_peer(sock: socket.socket, uid: int | None = None) -> None:
    """Make sure that the other end is of this user.

    Args:
        sock: a connected UNIX socket.
        uid: the user; None: the one this process runs as.

    Raises:
        Stranger: it is not.
    """
    _, found, _ = _UCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    if found != (os.geteuid() if uid is None else uid):
        raise Stranger(f"user {found} may not hand sockets over here, or be handed any")


class Link:
    """One end of a connection; what is posted leaves at once where it can: a turn of a busy event loop is milliseconds.

    Args:
        sock: connected; the link closes it.
        on_frame: called with each frame that comes; it may take a descriptor that came with it. Where it raises
            `BadMessage` the link ends.
        on_end: called once, when the other end is gone or what it says makes no sense; not by `close`.
    """

    def __init__(self, sock: socket.socket, on_frame: Callable[[bytes], None], on_end: Callable[[str], None]) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._on_frame = on_frame
        self._on_end = on_end
        self._loop = asyncio.get_running_loop()
        self._frames = Frames()
        self._arrived: deque[int] = deque()
        self._to_send: deque[tuple[bytes, int | None]] = deque()
        self._flush_due = False
        self.closed = False
        self._loop.add_reader(sock, self._readable)

    # Sending

    def post(self, frame: bytes, descriptor: int | None = None) -> bool:
        """Send a frame, with a copy of a descriptor.

        Returns:
            False where it is certain that the other end will not get it: the link is closed, or broken.
        """
        if self.closed:
            return False
        # A copy at once: until it leaves, the number may come to mean another file.
        self._to_send.append((frame, None if descriptor is None else os.dup(descriptor)))
        if not self._flush_due:
            try:
                self._send_some()
            except BlockingIOError:
                pass
            except OSError as error:
                # No link ends under the feet of who posts, or amid the frames that have come. But nothing leaves it.
                self._drop_unsent()
                self._loop.call_soon(self._end, f"cannot be written to: {error.strerror}")
                return False
        if self._to_send and not self._flush_due:
            self._flush_due = True
            self._loop.call_soon(self._flush)
        return True

    def _flush(self) -> None:
        self._flush_due = False
        try:
            while self._to_send and not self.closed:
                self._send_some()
        except BlockingIOError:
            self._flush_due = True
            self._loop.add_writer(self._sock, self._writable)
        except OSError as error:
            self._end(f"cannot be written to: {error.strerror}")

    def _writable(self) -> None:
        self._loop.remove_writer(self._sock)
        self._flush()

    def _send_some(self) -> None:
        batch = self._batch()
        data = b"".join(frame for frame, _ in batch)
        descriptors = [descriptor for _, descriptor in batch if descriptor is not None]
        rights = array.array("i", descriptors)
        sent = self._sock.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)] if descriptors else [])
        # Descriptors go with the first byte: once anything was sent, all of them were.
        for _ in batch:
            self._to_send.popleft()
        for descriptor in descriptors:
            os.close(descriptor)
        if sent < len(data):
            self._to_send.appendleft((data[sent:], None))

    def _batch(self) -> list[tuple[bytes, int | None]]:
        batch: list[tuple[bytes, int | None]] = []
        size = 0
        for frame, descriptor in self._to_send:
            if batch and (size + len(frame) > _READ_BYTES or len(batch) == DESCRIPTORS):
                break
            batch.append((frame, descriptor))
            size += len(frame)
        return batch

    # Receiving

    def take_descriptor(self) -> int:
        """Take the descriptor that came with the frame at hand; the caller closes it.

        Raises:
            BadMessage: none came.
        """
        if not self._arrived:
            raise BadMessage("an offer without a descriptor")
        return self._arrived.popleft()

    def _readable(self) -> None:
        try:
            data = self._receive()
        except BlockingIOError:
            return
        except OSError as error:
            self._end(f"cannot be read from: {error.strerror}")
            return
        except BadMessage as error:
            self._end(str(error))
            return
        if not data:
            self._end("has gone")
            return
        try:
            for frame in self._frames.feed(data):
                self._on_frame(frame)
        except BadMessage as error:
            self._end(str(error))

    def _receive(self) -> bytes:
        data, ancillary, flags, _ = self._sock.recvmsg(_READ_BYTES, socket.CMSG_SPACE(253 * _INT_BYTES), _CLOEXEC)
        for level, kind, payload in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                rights = array.array("i")
                rights.frombytes(payload[: len(payload) - len(payload) % _INT_BYTES])
                self._arrived.extend(rights)
        if flags & socket.MSG_CTRUNC:
            # Which of them are missing can't be told.
            raise BadMessage("descriptors were lost: this process may open no more of them")
        return data

    # The end

    def _end(self, reason: str) -> None:
        if not self.closed:
            self.close()
            self._on_end(reason)

    def close(self) -> None:
        """Close this end, and what came and was not taken; what was posted leaves first, as far as it can."""
        if self.closed:
            return
        with contextlib.suppress(OSError):
            # Among it may be that a socket is given away, of which this end has let go.
            self._sock.settimeout(_LAST_WORDS_SECONDS)
            while self._to_send:
                self._send_some()
        self.closed = True
        self._loop.remove_reader(self._sock)
        self._loop.remove_writer(self._sock)
        self._sock.close()
        self._drop_unsent()
        _close_all(self._arrived)
        self._arrived.clear()

    def _drop_unsent(self) -> None:
        _close_all(descriptor for _, descriptor in self._to_send if descriptor is not None)
        self._to_send.clear()


def _close_all(descriptors: Iterable[int]) -> None:
    for descriptor in descriptors:
        with contextlib.suppress(OSError):
            os.close(descriptor)


_CLOEXEC = getattr(socket, "MSG_CMSG_CLOEXEC", 0)
