"""What a worker serves: the app, whichever it is, and beside it the fleet's own few paths."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import parse_qs

import msgspec
from uvicorn.protocols.utils import ClientDisconnected

from shards import ring
from shards.consumers import Receive, Scope, Send
from shards.metrics import METRICS
from shards.names import is_name
from shards.server import api
from shards.server.dashboard.pages import Dashboard
from shards.server.protocol import EXTENSION
from shards.server.scrape import Scrape
from shards.server.worker import Worker
from shards.settings import Settings

App = Callable[[Scope, Receive, Send], Awaitable[None]]
Answer = tuple[int, str, bytes]

_JSON, _TEXT = "application/json", "text/plain; version=0.0.4; charset=utf-8"
_RETRY_AFTER_SECONDS = b"1"
_SERVER_ERROR = 500


class Served:
    """An ASGI application: `app`, and the paths every fleet answers: /livez, /readyz, /metrics, /api/route, and those
    of `shards.server.api` and `shards.server.dashboard`.

    Args:
        app: the application; WebSocket and HTTP scopes that are not the fleet's go to it.
        settings: of this worker.
    """

    def __init__(self, app: App, settings: Settings) -> None:
        self._app = app
        self._settings = settings
        self._dashboard = Dashboard(settings)
        self._scrape = Scrape()
        self._paths: dict[str, Callable[[Worker, dict[str, list[str]]], Awaitable[Answer]]] = {
            "/livez": self._livez,
            "/readyz": self._readyz,
            "/metrics": self._metrics,
            "/api/route": self._route,
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(scope, receive, send)
        elif scope["type"] == "http" and (path := self._paths.get(scope["path"])):
            query = parse_qs(scope["query_string"].decode("latin-1"))
            await _respond(send, *await path(scope["state"]["shards.worker"], query))
        elif scope["type"] == "http" and (asked := api.asked(scope)):
            await api.serve(scope["state"]["shards.worker"], asked, receive, send)
        elif self._dashboard.asked(scope):
            await self._dashboard.serve(scope["state"]["shards.worker"], scope, receive, send)
        elif scope["type"] == "websocket" and scope["state"]["shards.worker"].full:
            await _refuse_full(receive, send)
        else:
            await self._serve_app(scope, receive, send)

    async def _serve_app(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Leave a request to the app, and count where it fails: that is what a canary is judged by."""
        kind = scope["type"]
        try:
            # Of a WebSocket's frames there are too many to look at each.
            await (self._app(scope, receive, _watched(send)) if kind == "http" else self._let_in(scope, receive, send))
        except ClientDisconnected:
            raise
        except Exception:
            METRICS.failures.labels(kind).inc()
            raise

    async def _let_in(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Leave a WebSocket to the app; while that makes up its mind, the socket counts as one that is here."""
        worker, socket = scope["state"]["shards.worker"], scope["extensions"][EXTENSION]
        worker.entering(socket)
        try:
            await self._app(scope, receive, send)
        finally:
            worker.answered(socket)

    async def _lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        worker = Worker(self._settings, METRICS)
        await worker.start()
        scope["state"]["shards.worker"] = worker
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await worker.stop()
        await send({"type": "lifespan.shutdown.complete"})

    async def _livez(self, worker: Worker, _query: dict[str, list[str]]) -> Answer:
        record = worker.record()
        said = {"color": record.color, "replica": record.replica, "release": record.release, "state": record.state}
        return 200, _JSON, _json(said)

    async def _readyz(self, worker: Worker, _query: dict[str, list[str]]) -> Answer:
        reason = worker.why_not_ready()
        if reason:
            return 503, _JSON, _json({"ready": False, "reason": reason})
        return 200, _JSON, _json({"ready": True, "missing": worker.missing()})

    async def _metrics(self, worker: Worker, query: dict[str, list[str]]) -> Answer:
        if query.get("scope") == ["replica"]:
            return 200, _TEXT, self._scrape.own(worker)
        page = await self._scrape.fleet(worker)
        if page is None:
            return 503, _TEXT, b"# the control Redis does not answer; ?scope=replica still does\n"
        return 200, _TEXT, page

    async def _route(self, worker: Worker, query: dict[str, list[str]]) -> Answer:
        group = query.get("group", [""])[0]
        if not is_name(group):
            return 400, _JSON, _json({"error": "group must be 1-100 characters of A-Z a-z 0-9 _ . : -"})
        table = worker.plane.log.table
        if table is None:
            return 503, _JSON, _json({"error": "the slot table is not known yet"})
        slot = ring.slot_of(group)
        serving = sorted({r.replica for r in await worker.plane.workers() if r.state == "active"})
        answer = {"group": group, "slot": slot, "shard": table.owner(slot).name, "version": table.version}
        return 200, _JSON, _json({**answer, "home": ring.home(slot, serving)})


def _watched(send: Send) -> Send:
    async def sent(message: MutableMapping[str, Any]) -> None:
        if message.get("status", 0) >= _SERVER_ERROR:
            METRICS.failures.labels("http").inc()
        await send(message)

    return sent


def _json(value: object) -> bytes:
    return msgspec.json.encode(value) + b"\n"


async def _respond(send: Send, status: int, content_type: str, body: bytes) -> None:
    headers = [(b"content-type", content_type.encode()), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _refuse_full(receive: Receive, send: Send) -> None:
    METRICS.refused.labels("full").inc()
    await receive()
    headers = [(b"retry-after", _RETRY_AFTER_SECONDS), (b"content-type", b"text/plain")]
    await send({"type": "websocket.http.response.start", "status": 503, "headers": headers})
    await send({"type": "websocket.http.response.body", "body": b"full: try again\n"})
