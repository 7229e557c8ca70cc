"""A WebSocket client that sends bytes as they are, to try what no proper client does."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.http11 import Response
from websockets.uri import parse_uri

_SECONDS = 60


class RawSocket:
    """Connects to a replica; reads with the websockets library, writes what it is told."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._protocol = ClientProtocol(parse_uri(f"ws://127.0.0.1:{port}/ws/"))
        self._frames: list[Frame] = []

    async def __aenter__(self) -> RawSocket:
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        self._protocol.send_request(self._protocol.connect())
        await self.send(b"".join(self._protocol.data_to_send()))
        await self.texts(1, "welcome")
        return self

    async def __aexit__(self, *_: object) -> None:
        self._writer.close()
        await self._writer.wait_closed()

    async def send(self, data: bytes) -> None:
        """Send bytes, and let them go out by themselves."""
        self._writer.write(data)
        await self._writer.drain()
        await asyncio.sleep(0)

    @property
    def pongs(self) -> list[bytes]:
        """What the server has answered pings with so far."""
        return [bytes(frame.data) for frame in self._frames if frame.opcode is Opcode.PONG]

    async def texts(self, count: int, kind: str) -> list[dict[str, Any]]:
        """Wait for `count` texts of a type, of all that came so far."""
        async with asyncio.timeout(_SECONDS):
            while len(found := self._of_type(kind)) < count:
                await self._read()
        return found

    async def closed(self) -> int:
        """Wait until the server has closed the socket; give its code."""
        async with asyncio.timeout(_SECONDS):
            while self._protocol.close_rcvd is None:
                await self._read()
        return self._protocol.close_rcvd.code

    def _of_type(self, kind: str) -> list[dict[str, Any]]:
        texts = [json.loads(frame.data) for frame in self._frames if frame.opcode is Opcode.TEXT]
        return [text for text in texts if text["type"] == kind]

    async def _read(self) -> None:
        data = await self._reader.read(65536)
        assert data, "the server has dropped the connection without a close frame"
        self._protocol.receive_data(data)
        self._frames += [event for event in self._protocol.events_received() if not isinstance(event, Response)]
