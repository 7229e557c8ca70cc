"""Groups over HTTP, for backends: publish, history, presence. Every request needs a token.

A message that comes this way is like a client's: sockets hear it, Channels consumers don't. Tokens are also given to
browsers, and a message that Channels hands on names the method that gets it: that is for server code alone
(`group_send`).
"""

from __future__ import annotations

import asyncio
import re
import secrets
import time
from dataclasses import dataclass
from hashlib import blake2b
from urllib.parse import parse_qs, quote, unquote

import msgspec

from shards import history
from shards.checks import Refused, checked_data, checked_group, checked_id, checked_limit, place_of_query
from shards.consumers import Receive, Scope, Send
from shards.errors import ShardUnavailable
from shards.log.log import body_of
from shards.metrics import METRICS
from shards.server.worker import Worker
from shards.subjects import Account
from shards.tokens import BadToken, Grant, Verb

Header = tuple[bytes, bytes]

_METHODS = {"messages": ("GET", "HEAD", "POST"), "presence": ("GET", "HEAD")}
_PATH = re.compile(r"/api/groups/([^/]*)/(messages|presence)\Z")
_BESIDE_DATA_BYTES = 4096
"""What a publish may take besides its `data`: its id, names, spaces."""

_BODY_SECONDS = 10.0

_STATUS = {
    **{"unauthorized": 401, "forbidden": 403, "bad_method": 405, "too_large": 413},
    **{"rate_limited": 429, "unavailable": 503},
}
"""Of the codes that are not a 400."""


class _Publish(msgspec.Struct):
    data: msgspec.Raw
    id: str | None = None


_decode = msgspec.json.Decoder(_Publish).decode


class _Gone(Exception):
    """The client went away before it had said what it wants."""


@dataclass(frozen=True)
class _Bearer:
    """Who asks.

    Attributes:
        grant: what the token grants.
        account: whose share this takes of: the subject's, or the token's own where it is nobody's; None: no limit.
    """

    grant: Grant
    account: Account | None


@dataclass(frozen=True)
class Asked:
    """A request to this API.

    Attributes:
        group: of the path; not yet checked.
        what: ``messages`` or ``presence``.
        method: as the client named it; not yet checked.
        query: of the URL.
        headers: by their names, in lower case.
    """

    group: str
    what: str
    method: str
    query: dict[str, list[str]]
    headers: dict[bytes, bytes]

    def first(self, name: str) -> str | None:
        """Give the first value of a query's field."""
        return next(iter(self.query.get(name, ())), None)


def asked(scope: Scope) -> Asked | None:
    """Read what an HTTP request asks of this API; None: it is not for us."""
    if not scope["path"].startswith("/api/groups/"):
        return None
    path = _PATH.match(scope["raw_path"].decode("latin-1"))
    if path is None:
        return None
    query = parse_qs(scope["query_string"].decode("latin-1"))
    return Asked(unquote(path[1]), path[2], scope["method"], query, dict(scope["headers"]))


async def serve(worker: Worker, request: Asked, receive: Receive, send: Send) -> None:
    """Answer a request."""
    try:
        body = await _answer(worker, request, receive)
    except _Gone:
        return
    except Refused as refused:
        METRICS.errors.labels(refused.code).inc()
        said = msgspec.json.encode({"error": str(refused), "code": refused.code})
        await _respond(send, _STATUS.get(refused.code, 400), said, _hints(refused.code, request))
    else:
        await _respond(send, 200, body, [])


async def _answer(worker: Worker, request: Asked, receive: Receive) -> bytes:
    methods = _METHODS[request.what]
    if request.method not in methods:
        raise Refused("bad_method", f"{request.what} knows {', '.join(methods)} only")
    bearer = _bearer(worker, request)
    if bearer.account is not None and not bearer.account.may_ask(time.monotonic()):
        raise Refused("rate_limited", "too many requests with tokens like this one: try again")
    group = checked_group(request.group)
    verb: Verb = "publish" if request.method == "POST" else "subscribe"
    if not bearer.grant.allows(verb, group):
        raise Refused("forbidden", f"the token does not let you {verb} {group}")
    try:
        if verb == "publish":
            return await _publish(worker, bearer, group, request, receive)
        return await (_history if request.what == "messages" else _presence)(worker, group, request)
    except ShardUnavailable:
        raise Refused("unavailable", "the group's shard does not answer; try again, with the same id") from None


def _bearer(worker: Worker, request: Asked) -> _Bearer:
    scheme, _, token = request.headers.get(b"authorization", b"").decode("latin-1").partition(" ")
    if scheme.lower() != "bearer":
        token = request.first("token") or ""
    if not token:
        raise Refused("unauthorized", "a token is needed: Authorization: Bearer TOKEN")
    try:
        grant = worker.tokens.verify(token.strip())
    except BadToken as error:
        raise Refused("unauthorized", str(error)) from None
    nobodys = f"token {blake2b(token.strip().encode(), digest_size=16).hexdigest()}"
    return _Bearer(grant, worker.subjects.account(grant.subject or nobodys))


async def _publish(worker: Worker, bearer: _Bearer, group: str, request: Asked, receive: Receive) -> bytes:
    most = worker.settings.message_bytes
    publish = _read(await _body(receive, request, most + _BESIDE_DATA_BYTES))
    data = checked_data(bytes(publish.data), most)
    id = _id(publish.id, request.headers.get(b"idempotency-key"))
    started = time.monotonic()
    if bearer.account is not None and not bearer.account.may_publish(len(data), started):
        raise Refused("rate_limited", "too many bytes with tokens like this one: try again, with the same id")
    # No client's session has a slash in its name, so none can take the ids of a backend's messages before it does.
    session = f"api/{quote(bearer.grant.subject, safe='')}"
    place = await worker.plane.log.publish(group, session, id, body_of(id, data))
    METRICS.published.value += 1
    METRICS.publish_seconds.observe(time.monotonic() - started)
    return msgspec.json.encode({"group": group, "id": id, "epoch": place.epoch, "offset": place.offset})


def _read(body: bytes) -> _Publish:
    try:
        # As text: what is no UTF-8 would cost each subscriber its connection.
        return _decode(body.decode())
    except msgspec.ValidationError as error:
        raise Refused("bad_message", str(error)) from None
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        raise Refused("bad_json", 'the body is one JSON object in UTF-8: {"data": …, "id": "…"}') from None


def _id(said: str | None, key: bytes | None) -> str:
    named = None if key is None else key.decode("latin-1").strip()
    if said is not None and named is not None and said != named:
        raise Refused("bad_id", "id and Idempotency-Key are the same thing: give one of them")
    id = said if said is not None else named
    return secrets.token_hex(8) if id is None else checked_id(id)


async def _body(receive: Receive, request: Asked, most: int) -> bytes:
    """Read the body, no further than it may go."""
    too_large = Refused("too_large", f"a body may have {most} bytes")
    if int(request.headers.get(b"content-length", b"0")) > most:
        raise too_large
    body = b""
    try:
        async with asyncio.timeout(_BODY_SECONDS):
            more = True
            while more:
                event = await receive()
                if event["type"] == "http.disconnect":
                    raise _Gone
                body += event.get("body", b"")
                more = event.get("more_body", False)
                if len(body) > most:
                    raise too_large
    except TimeoutError:
        raise Refused("bad_message", f"the body did not come within {_BODY_SECONDS:.0f} s") from None
    return body


async def _history(worker: Worker, group: str, request: Asked) -> bytes:
    limit = request.first("limit") or "100"
    if not limit.isascii() or not limit.isdigit() or len(limit) > 9:
        raise Refused("bad_limit", "limit is a whole number")
    since = place_of_query(request.first("epoch"), request.first("offset"))
    past = await history.read(
        worker.plane.log, group, since, checked_limit(int(limit)), worker.settings.send_budget_bytes
    )
    METRICS.gaps.inc(past.gap is not None)
    return b'{"group":"%b","epoch":"%b","offset":%d,"gap":%b,"messages":%b}' % (
        group.encode(),
        past.epoch.encode(),
        past.head,
        b"true" if past.gap else b"false",
        past.messages,
    )


async def _presence(worker: Worker, group: str, _request: Asked) -> bytes:
    present = await worker.plane.presence.of(group)
    return msgspec.json.encode({"group": group, "count": present.count, "members": present.members})


def _hints(code: str, request: Asked) -> list[Header]:
    """Give the header that HTTP wants beside a status."""
    match code:
        case "unauthorized":
            return [(b"www-authenticate", b"Bearer")]
        case "bad_method":
            return [(b"allow", ", ".join(_METHODS[request.what]).encode())]
        case "unavailable" | "rate_limited":
            return [(b"retry-after", b"1")]
    return []


async def _respond(send: Send, status: int, body: bytes, headers: list[Header]) -> None:
    body += b"\n"
    common = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    # What a token lets one see is for nobody's cache.
    headers = [*common, (b"cache-control", b"no-store"), *headers]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
