"""Does a replica do its work? A WebSocket straight to it: handshake, subscribe, publish, and the message comes back.

An app need not speak this project's protocol. How far a replica lets a stranger come is found out, and compared with a
replica of the color that serves: a new one must come at least as far.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException

from shards.fleet import probe

WITHIN_S = 10.0
"""A round trip that takes longer has failed: the first one of a replica may have to wake an app up."""

_WELCOME_S = 1.0
"""Who speaks our protocol says welcome at once."""

_ERROR = 500


class Depth(IntEnum):
    """How far a probe came over a WebSocket."""

    NONE = 0
    HANDSHAKE = 1
    ROUND_TRIP = 2


WORDS: Mapping[Depth, str] = {
    Depth.NONE: "no WebSocket",
    Depth.HANDSHAKE: "a WebSocket handshake",
    Depth.ROUND_TRIP: "a message published and delivered",
}


@dataclass(frozen=True)
class Finding:
    """What was found out about a replica.

    Attributes:
        depth: how far the probe came.
        said: what stopped it there, where something did.
        broken: that is a fault, whatever other replicas do.
        page: what is wrong with its front page; empty: nothing.
    """

    depth: Depth
    said: str = ""
    broken: bool = False
    page: str = ""

    def told(self) -> str:
        """Say how far the probe came, and where it came no further, why."""
        if self.page:
            return self.page
        if self.depth is Depth.NONE and self.said:
            return f"{WORDS[self.depth]} ({self.said})"
        return WORDS[self.depth]

    def ailment(self, other: Finding | None) -> str | None:
        """Say what is wrong with a new replica; None: nothing.

        Args:
            other: what was found out about one of the color that serves; None: it could not be asked.
        """
        if self.broken:
            return self.said
        if other and other.depth > self.depth:
            return f"{self.said}, where the release that serves now answers a probe with {WORDS[other.depth]}"
        if other and self.page and not other.page:
            return f"{self.page}, where the release that serves now does not"
        return None


async def find_out(port: int, path: str, token: str, host: str = "127.0.0.1") -> Finding:
    """Probe a replica: its front page, then a WebSocket.

    Args:
        port: where it listens.
        path: of the WebSocket; empty: HTTP only.
        token: good for groups that begin with ``probe-``; shown where the replica lets nobody in without.
        host: where it listens.
    """
    answer = await probe.get(port, "/", host, WITHIN_S)
    page = "does not answer GET /" if answer is None else ""
    if answer and answer.status >= _ERROR:
        page = f"answers GET / with {answer.status}"
    if not path:
        return Finding(Depth.NONE, "was asked for no WebSocket", page=page)
    url = f"ws://{host}:{port}{path}"
    found = await _over_websocket(url, path)
    if found.depth is Depth.NONE:
        found = max(found, await _over_websocket(f"{url}?token={token}", path), key=lambda one: one.depth)
    return replace(found, page=page)


async def _over_websocket(url: str, path: str) -> Finding:
    try:
        async with asyncio.timeout(WITHIN_S):
            return await _connect(url, path)
    except TimeoutError:
        return Finding(Depth.HANDSHAKE, f"a message published at {path} did not come back in {WITHIN_S:.0f} s", True)


async def _connect(url: str, path: str) -> Finding:
    try:
        async with connect(url, compression=None, open_timeout=WITHIN_S / 2, proxy=None) as socket:
            return await _talk(socket, path)
    except InvalidStatus as refused:
        said = f"answers the handshake at {path} with {refused.response.status_code}"
        return Finding(Depth.NONE, f"{said}; fleet.probe_path names the path")
    except ConnectionClosed as closed:
        return Finding(Depth.HANDSHAKE, f"closed the WebSocket at {path}: {closed}", True)
    except (WebSocketException, OSError, TimeoutError) as error:
        return Finding(Depth.NONE, f"no handshake at {path}: {error or type(error).__name__}")


async def _talk(socket: ClientConnection, path: str) -> Finding:
    try:
        welcome = _decoded(await asyncio.wait_for(socket.recv(), _WELCOME_S))
    except TimeoutError:
        welcome = {}
    except ConnectionClosed as closed:
        # It may be for those only who say who they are.
        return Finding(Depth.NONE, f"closes the WebSocket at {path} after the handshake: {closed}")
    if welcome.get("type") != "welcome":
        return Finding(Depth.HANDSHAKE, f"does not say welcome at {path}")
    group = f"probe-{secrets.token_hex(8)}"
    await socket.send(json.dumps({"type": "subscribe", "group": group}))
    if refusal := await _hear(socket, group, "subscribed"):
        return refusal
    await socket.send(json.dumps({"type": "publish", "group": group, "id": "1", "data": group}))
    return await _hear(socket, group, "message", "ack") or Finding(Depth.ROUND_TRIP)


async def _hear(socket: ClientConnection, group: str, *wanted: str) -> Finding | None:
    """Wait until all that is wanted has come; gives why it does not."""
    missing = set(wanted)
    while missing:
        frame = _decoded(await socket.recv())
        if frame.get("group") != group:
            continue
        if frame.get("type") == "error":
            said = f"says {frame.get('code')} to a probe's {'publish' if 'ack' in wanted else 'subscribe'}"
            return Finding(Depth.HANDSHAKE, said, frame.get("code") != "forbidden")
        missing.discard(str(frame.get("type")))
    return None


def _decoded(frame: str | bytes) -> dict[str, Any]:
    try:
        found = json.loads(frame)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
