"""The dashboard's page, the two files it needs, and the WebSocket by which it lives."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from importlib.resources import files
from pathlib import Path

from shards.aio import end
from shards.consumers import Receive, Scope, Send, origin_allowed
from shards.server.dashboard.observer import Observer
from shards.server.dashboard.seats import Seats
from shards.server.worker import Worker
from shards.settings import Settings

Header = tuple[bytes, bytes]

_ROOT, _LIVE = "/fleet/", "/fleet/live"
_FILES = {
    "/fleet/": ("index.html", b"text/html; charset=utf-8"),
    "/fleet/dashboard.js": ("dashboard.js", b"text/javascript; charset=utf-8"),
    "/fleet/dashboard.css": ("dashboard.css", b"text/css; charset=utf-8"),
}
_HEADERS: list[Header] = [
    (b"cache-control", b"no-cache"),
    (
        b"content-security-policy",
        b"default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
        b"base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
]


class Dashboard:
    """Serves /fleet/ and what is below it; to see it takes no token, and it lets nobody do anything.

    Args:
        settings: of this worker.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._observer = Observer(Path(settings.reports_dir) if settings.reports_dir else None)
        self._seats = Seats()

    def asked(self, scope: Scope) -> bool:
        """Tell whether a request is for the dashboard, where there shall be one."""
        path = scope["path"]
        return self._settings.dashboard and (path == "/fleet" or path.startswith(_ROOT))

    async def serve(self, worker: Worker, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] == "http":
            await self._page(scope, send)
        elif scope["path"] != _LIVE or not origin_allowed(scope["headers"], self._settings.allowed_origins):
            await receive()
            await send({"type": "websocket.close"})
        else:
            await self._live(worker, scope, receive, send)

    async def _page(self, scope: Scope, send: Send) -> None:
        if scope["method"] not in ("GET", "HEAD"):
            await _answer(send, 405, b"", [(b"allow", b"GET, HEAD")])
        elif scope["path"] == "/fleet":
            await _answer(send, 308, b"", [(b"location", _ROOT.encode())])
        elif file := _FILES.get(scope["path"]):
            name, kind = file
            body = (files("shards.server.dashboard") / "static" / name).read_bytes()
            await _answer(send, 200, body, [(b"content-type", kind), *_HEADERS])
        else:
            await _answer(send, 404, b"there is no such page\n", [(b"content-type", b"text/plain")])

    async def _live(self, worker: Worker, scope: Scope, receive: Receive, send: Send) -> None:
        """Tell a page what is seen until it goes; what it says is not heard."""
        await receive()
        # Behind an edge the client's own, as the edge says.
        address = (scope.get("client") or ("",))[0]
        if not self._seats.take(address):
            await send({"type": "websocket.http.response.start", "status": 503, "headers": [(b"retry-after", b"10")]})
            await send({"type": "websocket.http.response.body", "body": b"too many watch: try again\n"})
            return
        try:
            await send({"type": "websocket.accept"})
            await self._tell_until_gone(worker, receive, send)
        finally:
            self._seats.give_back(address)

    async def _tell_until_gone(self, worker: Worker, receive: Receive, send: Send) -> None:
        telling = asyncio.create_task(self._tell(worker, send), name="dashboard watcher")
        try:
            while (await receive())["type"] == "websocket.receive":
                pass
        finally:
            await end([telling])

    async def _tell(self, worker: Worker, send: Send) -> None:
        async with aclosing(self._observer.watch(worker.plane.control, worker.servers.down)) as views:
            async for view in views:
                try:
                    await send({"type": "websocket.send", "text": view.decode()})
                except (OSError, RuntimeError):  # the page has gone, and `receive` says so
                    return


async def _answer(send: Send, status: int, body: bytes, headers: list[Header]) -> None:
    headers = [*headers, (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
