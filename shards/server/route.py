"""``python -m shards.server.route``: one on each host of a swarm tells the edges there where to send requests.

Edges ask for it again and again, on loopback (Traefik's HTTP provider). It reads the route from the control Redis, and
goes on with the last one it knows where that is away: no edge loses its way because a host elsewhere is gone.

The edges' own ports are on loopback too. Commands, on whichever host, ask them through here, and show a token.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import os
import urllib.error
import urllib.request
from typing import Any

import uvicorn
from redis.asyncio import Redis
from redis.exceptions import RedisError

from shards.log.login import login_at
from shards.router.control import Control
from shards.settings import Settings

logger = logging.getLogger(__name__)

_REDIS_S, _EDGE_S = 1.0, 2.0
_LOOPBACK = ("127.0.0.1", "::1")
_ASKED = ("/ping", "/api/http/")
_STRAIGHT = urllib.request.build_opener(urllib.request.ProxyHandler({}))

Reply = tuple[int, bytes]


def token_of(password: str) -> str:
    """Give the token that commands show: who knows the app's password of the control Redis knows it too."""
    return hashlib.blake2b(b"route", key=password.encode()[:64], digest_size=24).hexdigest()


class Route:
    """The ASGI application.

    Args:
        control: where the route is.
        token: that commands show.
    """

    def __init__(self, control: Control, token: str) -> None:
        self._control, self._token = control, token
        self._last: bytes | None = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        status, body = await self._answer(scope)
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _answer(self, scope: Any) -> Reply:
        path = scope["path"]
        if path == "/livez":
            return 200, b"{}"
        if path == "/route" and scope["client"][0] in _LOOPBACK:
            return await self._route()
        _, kind, port, *rest = [*path.split("/", 3), "", "", ""][:4]
        if kind != "edges" or scope["method"] != "GET":
            return 404, b"{}"
        shown = dict(scope["headers"]).get(b"authorization", b"").removeprefix(b"Bearer ")
        if not hmac.compare_digest(shown, self._token.encode()):
            return 403, b"{}"
        return await self._ask(port, f"/{rest[0]}")

    async def _route(self) -> Reply:
        try:
            async with asyncio.timeout(_REDIS_S):
                self._last = await self._control.route() or self._last
        except (RedisError, OSError, TimeoutError) as error:
            logger.warning("the control Redis does not answer, the last route stays: %s", error)
        return (200, self._last) if self._last else (503, b"{}")

    async def _ask(self, port: str, path: str) -> Reply:
        if not port.isdigit() or not path.startswith(_ASKED):
            return 404, b"{}"
        return await asyncio.to_thread(_get, f"http://127.0.0.1:{port}{path}")


def _get(url: str) -> Reply:
    try:
        with _STRAIGHT.open(url, timeout=_EDGE_S) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as refusal:
        return refusal.code, refusal.read()
    except OSError:
        return 502, b"{}"


def main() -> None:
    """Answer until SIGTERM."""
    settings = Settings.read()
    url = settings.message_redis_url
    login = login_at(url, settings.redis_credentials)
    redis = Redis.from_url(url, credential_provider=login, socket_timeout=_REDIS_S, socket_connect_timeout=_REDIS_S)
    app = Route(Control(redis), token_of(settings.redis_credentials().password))
    port = int(os.environ["SHARDS_PORT"])
    uvicorn.run(app, host="0.0.0.0", port=port, access_log=False, log_level="warning", lifespan="off")


if __name__ == "__main__":
    main()
