"""The dashboard's page with views of a test's own: what it draws is not left to what a fleet happens to do."""

from __future__ import annotations

import asyncio
import json
import mimetypes
from http import HTTPStatus
from importlib.resources import files
from typing import Any, Self

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.datastructures import Headers
from websockets.http11 import Request, Response

_STATIC = files("shards.server.dashboard") / "static"

SLOTS = 1024


def view(version: int, **changes: Any) -> dict[str, Any]:
    """Give a view in which all that can be amiss is; slots move from one version to the next."""
    replica = {"color": "blue", "state": "active", "release": "r1", "workers": 1, "ring_version": version}
    figures = {"connections": 3333, "cpu_percent": 41.5, "rss_bytes": 180 << 20}
    run = {"started": "2026-01-01T00:00:00+00:00", "connections": 10_000, "delivered_per_s": 9800.0, "p99_ms": 61.0}
    return {
        "connections": 6666,
        "cutover": {"verb": "promote", "old": "blue", "new": "green", "step": "move"},
        "resharding": True,
        "down": ["shared-1"],
        "missing": ["blue-2"],
        "replicas": [
            {**replica, **figures, "name": "blue-0"},
            {**replica, **figures, "name": "green-0", "color": "green", "state": "mixed"},
        ],
        "ring": {
            "version": version,
            "shards": ["shared-0", "shared-1"],
            "runs": [[0, SLOTS // 2 + 16 * version], [1, SLOTS // 2 - 16 * version]],
        },
        "rates": {"delivered": 10_000.0, "published": 1000.0, "connects": 12.0},
        "latency_ms": {"p50": 3.1, "p99": 61.0},
        "trouble": {"gaps": 3, "error frames": 0},
        "events": [{"at_ms": 1_700_000_000_000 + version, "kind": "worker", "text": f"blue-2/{version} is gone"}],
        "reports": [{**run, "scenario": "stress", "verdict": "fail", "wrong": 2}],
        **changes,
    }


class Stage:
    """Serves the page, and tells it what it is told."""

    def __init__(self) -> None:
        self._pages: set[ServerConnection] = set()
        self._server: Server

    async def __aenter__(self) -> Self:
        self._server = await serve(self._live, "127.0.0.1", 0, process_request=_page)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        await self._server.wait_closed()

    @property
    def url(self) -> str:
        """Of the page."""
        return f"http://127.0.0.1:{next(iter(self._server.sockets)).getsockname()[1]}/fleet/"

    async def _live(self, page: ServerConnection) -> None:
        self._pages.add(page)
        try:
            await page.wait_closed()
        finally:
            self._pages.discard(page)

    async def show(self, seen: dict[str, Any]) -> None:
        """Tell the pages that are open of a view, once one is."""
        async with asyncio.timeout(30):
            while not self._pages:
                await asyncio.sleep(0.02)
        for page in self._pages:
            await page.send(json.dumps(seen))


def _page(_connection: ServerConnection, request: Request) -> Response | None:
    if request.path == "/fleet/live":
        return None
    name = request.path.removeprefix("/fleet/") or "index.html"
    body = (_STATIC / name).read_bytes()
    kind = mimetypes.guess_type(name)[0] or "text/html"
    headers = Headers({"Content-Type": kind, "Content-Length": str(len(body)), "Connection": "close"})
    return Response(HTTPStatus.OK, "OK", headers, body)
