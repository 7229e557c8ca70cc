"""Asks over HTTP, evenly and whatever the answers, whether the service answers."""

from __future__ import annotations

import asyncio
from collections import Counter
from urllib.parse import urlsplit

from shards.load.tls import Tls

_INTERVAL_SECONDS = 0.05
_ANSWER_SECONDS = 5.0


class HttpProbe:
    """GETs one address 20 times a second, each time over a new connection.

    Args:
        url: ``http://`` or ``https://``.
        tls: how to check the certificate of an ``https://`` one; None: as the system does.

    Attributes:
        requests: how many got their answer, or failed.
        errors: how many got no 200, by what came instead.
    """

    def __init__(self, url: str, tls: Tls | None = None) -> None:
        self._parts = urlsplit(url)
        self._context = (tls or Tls()).context() if self._parts.scheme == "https" else None
        self.requests = 0
        self.errors: Counter[str] = Counter()

    async def run_forever(self) -> None:
        """Probe until cancelled; an answer under way then is not waited for."""
        asked: set[asyncio.Task[None]] = set()
        try:
            while True:
                task = asyncio.create_task(self._ask())
                asked.add(task)
                task.add_done_callback(asked.discard)
                await asyncio.sleep(_INTERVAL_SECONDS)
        finally:
            for task in asked:
                task.cancel()

    async def _ask(self) -> None:
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                status = await self._get()
        except TimeoutError:
            status = "timeout"
        except (OSError, ValueError) as error:
            status = type(error).__name__
        self.requests += 1
        if status != "200":
            self.errors[status] += 1

    async def _get(self) -> str:
        parts = self._parts
        port = parts.port or (443 if self._context else 80)
        reader, writer = await asyncio.open_connection(parts.hostname, port, ssl=self._context)
        try:
            request = f"GET {parts.path or '/'} HTTP/1.1\r\nHost: {parts.netloc}\r\nConnection: close\r\n\r\n"
            writer.write(request.encode())
            head = await reader.readline()
            return head.split()[1].decode() if head else "no answer"
        except IndexError:
            return "garbage"
        finally:
            writer.close()
