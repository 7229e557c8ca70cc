"""What an app writes to before its socket is its own: a transport that keeps everything for the real one."""

from __future__ import annotations

import asyncio
from typing import Any


class StandIn(asyncio.Transport):
    """Keeps what is written, and whether it is to be read from, until there is a transport."""

    def __init__(self) -> None:
        super().__init__()
        self._written: list[bytes] = []
        self._size = 0
        self._high: int | None = None
        self._closing = False

    def hand_on(self, transport: asyncio.Transport) -> None:
        """Have `transport` do what this was told."""
        if self._high is not None:
            transport.set_write_buffer_limits(high=self._high)
        if self._written:
            transport.write(b"".join(self._written))
        if self._closing:
            transport.close()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if not self._closing:
            self._written.append(bytes(data))
            self._size += len(data)

    def get_write_buffer_size(self) -> int:
        return self._size

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._high = high

    def pause_reading(self) -> None:
        """Nothing comes yet."""

    def resume_reading(self) -> None:
        """Nothing comes yet."""

    def is_closing(self) -> bool:
        return self._closing

    def close(self) -> None:
        self._closing = True

    def abort(self) -> None:
        self._closing = True

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default
