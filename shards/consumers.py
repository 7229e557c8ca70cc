"""The wire protocol, server side: a consumer whose clients can resume.

`GroupConsumer` is an ASGI application like any Channels consumer (``GroupConsumer.as_asgi()`` goes into a
`URLRouter`), but messages don't pass through Channels' per-message task and thread hop, and delivery doesn't pass
through ASGI at all where the server offers a socket to write to.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable, MutableMapping
from functools import partial
from typing import Any, Protocol, TypeVar, cast
from urllib.parse import parse_qs, urlsplit

import hiredis
import msgspec

from shards.errors import ShardUnavailable
from shards.hub import Message
from shards.log.link import LinkLost
from shards.log.log import Entry, Page, Place, body_of
from shards.metrics import METRICS
from shards.names import is_name
from shards.plane import Plane
from shards.rate import TokenBucket
from shards.settings import Settings

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

ID_LENGTH = 64
MOST_HISTORY = 1000
"""Messages one `history` answers with at most."""

_OFFENCES_A_SECOND, _OFFENCES_AT_ONCE = 1.0, 20.0
_READ_SECONDS = 5.0
"""A history or presence that its shard has not answered by then is refused as unavailable."""


class Since(msgspec.Struct):
    """A place that a client comes back with."""

    epoch: str
    offset: int


class Command(msgspec.Struct, tag_field="type"):
    """What a client may say."""


class Subscribe(Command, tag="subscribe"):
    """Follow a group."""

    group: str
    since: Since | None = None


class Unsubscribe(Command, tag="unsubscribe"):
    """Follow it no more."""

    group: str


class Publish(Command, tag="publish"):
    """Send a message to a group; without one, to that of the URL."""

    id: str
    data: msgspec.Raw
    group: str | None = None


class History(Command, tag="history"):
    """Read a group's past."""

    group: str
    since: Since | None = None
    limit: int = 100


class PresenceOf(Command, tag="presence"):
    """Ask who is in a group."""

    group: str


class Ping(Command, tag="ping"):
    """Ask for a pong."""


class _About(msgspec.Struct):
    id: object = None
    group: object = None


T = TypeVar("T")

_decode = msgspec.json.Decoder(Subscribe | Unsubscribe | Publish | History | PresenceOf | Ping).decode
_encode = msgspec.json.encode


class Refused(Exception):
    """A command that can't be carried out; the client gets an error frame."""

    def __init__(self, code: str, message: str, id: str | None = None, group: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.id = id
        self.group = group


class Socket(Protocol):
    """A WebSocket that frames can be written to at once, without waiting."""

    on_drain: Callable[[int], None] | None
    answers_due: int

    def take_over(self, on_text: Callable[[str], None], on_slow: Callable[[], None], send_budget: int) -> None:
        """Give each text to `on_text` from now on, and call `on_slow` where over `send_budget` bytes wait."""

    def defer(self, event: dict[str, object]) -> None:
        """Have ASGI's `receive` give an event; nothing more is read from the client until it has."""

    def write(self, payload: bytes) -> None:
        """Send text."""

    def write_message(self, message: Message) -> None:
        """Send a message."""

    def close(self, code: int, reason: str = "") -> None:
        """Close; the consumer gets its `websocket.disconnect`."""


class GroupConsumer:
    """One client: its subscriptions, its publishes, its answers.

    Subclass it to say who may do what; every method below that is not private may be overridden::

        class Rooms(GroupConsumer):
            async def may_subscribe(self, group):
                return group in await rooms_of(self.scope["user"])

    Attributes:
        scope: the connection's ASGI scope.
        session: the secret by which the client continues its dedupe marks.
        public_id: what others may know this client by.
        default_group: the group of the URL, which is subscribed on connect; None: none.
    """

    def __init__(self, scope: Scope) -> None:
        self.scope = scope
        self.plane: Plane = scope["state"]["shards.worker"].plane
        self.settings: Settings = self.plane.settings
        self.query = parse_qs(scope["query_string"].decode("latin-1"))
        self.session = self._asked("session") or secrets.token_urlsafe(16)
        self.public_id: str | None = secrets.token_hex(6)
        self.default_group: str | None = scope.get("url_route", {}).get("kwargs", {}).get("group")
        self.socket: Socket
        self._groups: set[str] = set()
        self._deferred = 0
        self._publishes_freely = type(self).may_publish is GroupConsumer.may_publish
        self._rate = TokenBucket(self.settings.rate_limit, self.settings.rate_limit * 2)
        self._offences = TokenBucket(_OFFENCES_A_SECOND, _OFFENCES_AT_ONCE)
        # A client that comes back with much to say may be too fast for a while; one that never stops is closed.
        self._floods = TokenBucket(self.settings.rate_limit, self.settings.rate_limit * 20)

    @classmethod
    def as_asgi(cls) -> Callable[[Scope, Receive, Send], Awaitable[None]]:
        """Give the ASGI application that makes one consumer a connection."""

        async def application(scope: Scope, receive: Receive, send: Send) -> None:
            await cls(scope).serve(receive, send)

        return application

    # What apps may override

    async def may_connect(self) -> bool:
        """Tell whether the client may connect; False: HTTP 403 before the upgrade."""
        return True

    async def may_subscribe(self, group: str) -> bool:
        """Tell whether the client may follow `group`, read its history and see who is in it."""
        return True

    async def may_publish(self, group: str) -> bool:
        """Tell whether the client may publish to `group`."""
        return True

    # The connection

    async def serve(self, receive: Receive, send: Send) -> None:
        """Serve the connection from handshake to disconnect."""
        await receive()
        if not await self._allowed():
            METRICS.refused.labels("forbidden").inc()
            await send({"type": "websocket.close"})
            return
        await send({"type": "websocket.accept"})
        self.socket = self.scope["extensions"]["shards.socket"]
        self.socket.on_drain = self._ask_to_reconnect
        self.socket.take_over(self._hear, self._close_slow, self.settings.send_budget_bytes)
        # What is written to all members of a group goes straight to the socket.
        self.on_message = self.socket.write_message  # type: ignore[method-assign]
        try:
            self._write({"type": "welcome", "session": self.session, "replica": self.settings.replica})
            if self.default_group is not None:
                self._subscribe_default()
            while (event := await receive())["type"] != "websocket.disconnect":
                await self._take_deferred(event)
        finally:
            for group in self._groups:
                self.plane.hub.leave(group, self)

    async def _allowed(self) -> bool:
        if not _origin_allowed(self.scope["headers"], self.settings.allowed_origins):
            return False
        if not is_name(self.session) or not await self.may_connect():
            return False
        group = self.default_group
        return group is None or (is_name(group) and await self.may_subscribe(group))

    def _subscribe_default(self) -> None:
        assert self.default_group is not None
        epoch, offset = self._asked("epoch"), self._asked("offset")
        since = None
        if epoch is not None or offset is not None:
            if epoch is None or offset is None or not offset.isascii() or not offset.isdigit() or len(offset) > 18:
                self._refuse(Refused("bad_place", "epoch and offset go together; offset is a whole number, 0 or more"))
            else:
                since = Place(epoch, int(offset))
        self._join(self.default_group, since)

    def _asked(self, name: str) -> str | None:
        return next(iter(self.query.get(name, ())), None)

    def _hear(self, text: str) -> None:
        """Carry out what a client says: at once where that needs no waiting, else in its turn."""
        try:
            command = self._command_in(text)
            if self._deferred or not self._carry_out_now(command):
                self._deferred += 1
                self.socket.defer({"type": "websocket.receive", "command": command})
        except Refused as refused:
            self._refuse(refused)

    async def _take_deferred(self, event: MutableMapping[str, Any]) -> None:
        if (command := event.get("command")) is None:
            # It came before the handshake was through, which no client should do.
            self._hear(event.get("text") or "")
            return
        try:
            await self._carry_out(command)
        except Refused as refused:
            self._refuse(refused)
        self._deferred -= 1

    def _refuse(self, refused: Refused) -> None:
        """Answer what can't be carried out with an error frame; close who does not stop."""
        self._error(refused)
        bucket = self._floods if refused.code == "rate_limited" else self._offences
        if not bucket.take(time.monotonic()):
            self.socket.close(1008, "too many errors")

    def _command_in(self, text: str) -> Command:
        if not self._rate.take(time.monotonic()):
            raise Refused("rate_limited", f"more than {self.settings.rate_limit:g} frames a second", *_about(text))
        try:
            return cast(Command, _decode(text))
        except msgspec.ValidationError as error:
            raise Refused("bad_message", str(error), *_about(text)) from None
        except (msgspec.DecodeError, RecursionError):
            raise Refused("bad_json", "a frame is one JSON object", None) from None

    def _carry_out_now(self, command: Command) -> bool:
        """Carry out a command that needs no waiting; False: it does."""
        match command:
            case Publish() if self._publishes_freely:
                self._publish(*self._checked_publish(command))
            case Ping():
                self.socket.write(b'{"type":"pong"}')
            case _:
                return False
        return True

    async def _carry_out(self, command: Command) -> None:
        match command:
            case Publish():
                await self._publish_if_allowed(command)
            case Subscribe():
                await self._subscribe(command)
            case Unsubscribe():
                self._unsubscribe(command)
            case History():
                await self._history(command)
            case PresenceOf():
                await self._presence(command)
            case Ping():
                self.socket.write(b'{"type":"pong"}')

    # Commands

    async def _subscribe(self, command: Subscribe) -> None:
        group = _checked(command.group)
        if not await self.may_subscribe(group):
            raise Refused("forbidden", f"you may not subscribe {group}")
        if group in self._groups:
            raise Refused("already_subscribed", f"{group} is subscribed already")
        if len(self._groups) >= self.settings.groups_per_socket:
            raise Refused("too_many_groups", f"a socket may subscribe {self.settings.groups_per_socket} groups")
        self._join(group, _place(command.since))

    def _join(self, group: str, since: Place | None) -> None:
        self._groups.add(group)
        self.plane.hub.join(group, self, since)

    def _unsubscribe(self, command: Unsubscribe) -> None:
        if command.group not in self._groups:
            raise Refused("not_subscribed", "that group is not subscribed")
        self._groups.remove(command.group)
        self.plane.hub.leave(command.group, self)

    def _checked_publish(self, command: Publish) -> tuple[str, str, bytes]:
        id, data = command.id, bytes(command.data)
        if not 1 <= len(id) <= ID_LENGTH:
            raise Refused("bad_id", f"an id has 1-{ID_LENGTH} characters")
        group = _checked(command.group or self.default_group or "", id)
        if len(data) > self.settings.message_bytes:
            raise Refused("too_large", f"data may have {self.settings.message_bytes} bytes", id)
        return group, id, data

    async def _publish_if_allowed(self, command: Publish) -> None:
        group, id, data = self._checked_publish(command)
        if not await self.may_publish(group):
            raise Refused("forbidden", f"you may not publish to {group}", id)
        self._publish(group, id, data)

    def _publish(self, group: str, id: str, data: bytes) -> None:
        self.socket.answers_due += 1
        published = partial(self._published, group, id, time.monotonic())
        self.plane.log.append(group, self.session, id, body_of(id, data), published)

    def _published(self, group: str, id: str, started: float, answer: Place | ShardUnavailable) -> None:
        self.socket.answers_due -= 1
        if not isinstance(answer, Place):
            self._error(Refused("unavailable", "it could not be stored; publish it again with the same id", id, group))
            return
        METRICS.published.value += 1
        METRICS.publish_seconds.observe(time.monotonic() - started)
        self.socket.write(
            b'{"type":"ack","id":%b,"group":"%b","offset":%d}' % (_encode(id), group.encode(), answer.offset)
        )

    async def _history(self, command: History) -> None:
        group = _checked(command.group)
        if not 1 <= command.limit <= MOST_HISTORY:
            raise Refused("bad_limit", f"limit is 1-{MOST_HISTORY}")
        if not await self.may_subscribe(group):
            raise Refused("forbidden", f"you may not read {group}")
        since = _place(command.since)
        page: asyncio.Future[Page | None] = asyncio.get_running_loop().create_future()
        after = since.offset if since else -command.limit
        self.plane.log.read(group, after, command.limit, lambda p: None if page.done() else page.set_result(p))
        found = await self._within(page)
        if found is None:
            raise Refused("unavailable", "the group's shard does not answer; ask again")
        lost = since is not None and (since.epoch != found.epoch or since.offset > found.head)
        entries = [] if lost else _within_bytes(found.entries, self.settings.send_budget_bytes)
        self.socket.write(
            b'{"type":"history","group":"%b","epoch":"%b","offset":%d,"messages":[%b]}'
            % (
                group.encode(),
                found.epoch.encode(),
                found.head,
                b",".join(b'{"offset":%d%b' % (entry.offset, entry.body) for entry in entries),
            )
        )
        if lost or (since and entries and entries[0].offset > since.offset + 1):
            METRICS.gaps.inc()
            self.on_gap(group, Place(found.epoch, entries[0].offset - 1 if entries else found.head))

    async def _presence(self, command: PresenceOf) -> None:
        group = _checked(command.group)
        if not await self.may_subscribe(group):
            raise Refused("forbidden", f"you may not see who is in {group}")
        try:
            present = await self._within(asyncio.ensure_future(self.plane.presence.of(group)))
        except (LinkLost, hiredis.ReplyError):
            raise Refused("unavailable", "the group's shard does not answer; ask again") from None
        self._write({"type": "presence", "group": group, "count": present.count, "members": present.members})

    async def _within(self, answer: asyncio.Future[T]) -> T:
        try:
            return await asyncio.wait_for(answer, _READ_SECONDS)
        except TimeoutError:
            raise Refused("unavailable", "the group's shard does not answer; ask again") from None

    # What the hub calls, see shards.hub.Member

    def on_subscribed(self, group: str, place: Place, recovered: bool) -> None:
        """Tell the client what follows."""
        self._write(
            {"type": "subscribed", "group": group, "epoch": place.epoch, "offset": place.offset, "recovered": recovered}
        )

    def on_message(self, message: Message) -> None:
        """Write the message."""
        self.socket.write_message(message)

    def _close_slow(self) -> None:
        """Close a client that does not read; it can come back to its place."""
        METRICS.slow.inc()
        self.socket.close(1013, "too slow: come back with your place")

    def on_gap(self, group: str, place: Place) -> None:
        """Tell the client what it can't have any more."""
        self._write({"type": "gap", "group": group, "epoch": place.epoch, "offset": place.offset})

    def _ask_to_reconnect(self, within_ms: int) -> None:
        self._write({"type": "reconnect", "within_ms": within_ms})

    def _write(self, frame: dict[str, object]) -> None:
        self.socket.write(_encode(frame))

    def _error(self, refused: Refused) -> None:
        METRICS.errors.labels(refused.code).inc()
        about = {name: value for name in ("id", "group") if (value := getattr(refused, name)) is not None}
        self._write({"type": "error", "code": refused.code, "message": str(refused), **about})


def _checked(group: str, id: str | None = None) -> str:
    if not is_name(group):
        raise Refused("bad_name", "a group has 1-100 characters of A-Z a-z 0-9 _ . : -", id)
    return group


def _place(since: Since | None) -> Place | None:
    if since is None:
        return None
    if not 0 <= since.offset < 10**18:
        raise Refused("bad_place", "an offset is a whole number, 0 or more")
    return Place(since.epoch, since.offset)


def _about(text: str) -> tuple[str | None, str | None]:
    """Find id and group of a frame that is not carried out, so that the client knows which of its own was refused."""
    try:
        about = msgspec.json.decode(text, type=_About)
    except (msgspec.DecodeError, RecursionError):
        return None, None
    id = about.id if isinstance(about.id, str) and len(about.id) <= ID_LENGTH else None
    return id, about.group if isinstance(about.group, str) and is_name(about.group) else None


def _within_bytes(entries: list[Entry], most: int) -> list[Entry]:
    """Give as many of the entries, from the oldest on, as fit; at least one, so that a reader gets on."""
    size = 0
    for count, entry in enumerate(entries):
        size += len(entry.body)
        if size > most and count:
            return entries[:count]
    return entries


def _origin_allowed(headers: list[tuple[bytes, bytes]], allowed: str) -> bool:
    """Tell whether a browser page of this origin may connect: its own host's may, and those that are allowed.

    Clients that are no browsers send no origin; what they may do is for tokens to say.
    """
    named = dict(headers)
    origin = named.get(b"origin", b"").decode("latin-1").lower()
    if not origin or allowed == "*" or origin in allowed.lower().replace(" ", "").split(","):
        return True
    return urlsplit(origin).netloc == named.get(b"host", b"").decode("latin-1").lower()
