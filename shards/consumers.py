"""The wire protocol, server side: a consumer whose clients can resume.

`GroupConsumer` is an ASGI application like any Channels consumer (``GroupConsumer.as_asgi()`` goes into a
`URLRouter`), but messages don't pass through Channels' per-message task and thread hop, and delivery doesn't pass
through ASGI at all where the server offers a socket to write to.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from dataclasses import replace
from functools import partial
from hashlib import blake2b
from typing import Any, Protocol, cast
from urllib.parse import parse_qs

import msgspec

from shards import history
from shards.carried import Carried, Followed, Passenger, Rider, carried_state, restore_state
from shards.checks import (
    Refused,
    checked_data,
    checked_group,
    checked_id,
    checked_limit,
    checked_place,
    place_of_query,
)
from shards.errors import ShardUnavailable
from shards.hub import Message
from shards.log.log import Place, body_of
from shards.metrics import METRICS
from shards.names import is_name
from shards.plane import Plane
from shards.rate import Reach, TokenBucket
from shards.settings import Settings
from shards.subjects import Account, Subjects
from shards.tokens import BadToken, Grant, Verb

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

_OFFENCES_A_SECOND, _OFFENCES_AT_ONCE = 1.0, 20.0

_DRAIN_SECONDS = 0.05

_TOKEN_WARNING_SECONDS = 10.0
"""Before a token's end its client is asked to come back with another one; half of what is left, where that is less."""

_UNPAID_BYTES = 8192
"""What a client publishes before it is counted against its limit: small messages are too many to look at each."""


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
    events: bool = False


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


_decode = msgspec.json.Decoder(Subscribe | Unsubscribe | Publish | History | PresenceOf | Ping).decode
_encode = msgspec.json.encode


class Socket(Protocol):
    """A WebSocket that frames can be written to at once, without waiting."""

    on_drain: Callable[[int], None] | None
    answers_due: int
    rider: Rider
    passenger: Passenger

    @property
    def backlog(self) -> int:
        """Bytes that wait to be sent."""

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
        grant: what the client's token grants; None: it came without one. What a token does not cover is refused before
            the methods below are asked.
        handoff: whether its connections may be handed to another worker as they are, when this one goes. What a
            subclass keeps of a connection besides the above is not handed over, unless it has ``async def
            handoff_state(self)``, which gives it, as JSON, and ``async def handoff_restore(self, state)``, which gets
            it after `may_connect`.
    """

    handoff = True

    def __init__(self, scope: Scope) -> None:
        self.scope = scope
        self.plane: Plane = scope["state"]["shards.worker"].plane
        self.settings: Settings = self.plane.settings
        self.query = parse_qs(scope["query_string"].decode("latin-1"))
        self.session = self._asked("session") or secrets.token_urlsafe(16)
        # The same after a reconnect, so that who comes back at once was never away for others.
        self.public_id: str | None = blake2b(self.session.encode(), digest_size=8).hexdigest()
        self.default_group: str | None = scope.get("url_route", {}).get("kwargs", {}).get("group")
        self.grant: Grant | None = None
        self._account: Account | None = None
        self.socket: Socket
        self._groups: dict[str, bool] = {}
        self._parted: list[Followed] = []
        self._deferred = 0
        self._ending: asyncio.TimerHandle | None = None
        self._leaving = False
        self._publishes_freely = type(self).may_publish is GroupConsumer.may_publish
        self._rate = TokenBucket(self.settings.rate_limit, self.settings.rate_limit * 2)
        self._offences = TokenBucket(_OFFENCES_A_SECOND, _OFFENCES_AT_ONCE)
        # A client that comes back with much to say may be too fast for a while; one that never stops is closed.
        self._floods = TokenBucket(self.settings.rate_limit, self.settings.rate_limit * 20)
        self._bytes = TokenBucket(self.settings.bytes_limit, self.settings.bytes_at_once + _UNPAID_BYTES)
        self._unpaid = 0
        most = self.settings.groups_per_socket
        self._reach = Reach(most / self.settings.history_seconds, 2 * most)

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

    async def presence_events(self, group: str) -> bool:
        """Tell whether a client that asks to hear who joins and leaves `group`, which it may follow, shall."""
        return True

    # The connection

    async def serve(self, receive: Receive, send: Send) -> None:
        """Serve the connection from handshake to disconnect."""
        await receive()
        self.socket = self.scope["extensions"]["shards.socket"]
        arrived = self.socket.passenger.arrived
        if not await (self._allowed() if arrived is None else self._may_go_on(arrived)):
            METRICS.refused.labels("forbidden").inc()
            await send({"type": "websocket.close"})
            return
        subject = self.grant.subject if self.grant is not None else ""
        subjects: Subjects = self.scope["state"]["shards.worker"].subjects
        if arrived is None and not subjects.room_for(subject):
            METRICS.refused.labels("too_many").inc()
            await send({"type": "websocket.close"})
            return
        self._account = subjects.account(subject, (self.scope.get("client") or ("",))[0])
        subjects.enter(subject)
        try:
            await send({"type": "websocket.accept"})
            self.socket.on_drain = self._ask_to_reconnect
            self.socket.rider = self
            self.socket.take_over(self._hear, self._close_slow, self.settings.send_budget_bytes)
            if type(self).on_message is GroupConsumer.on_message:
                # What is written to all members of a group goes straight to the socket.
                self.on_message = self.socket.write_message  # type: ignore[method-assign]
            await (self._welcome() if arrived is None else self._go_on(arrived))
            self._watch_token()
            while (event := await receive())["type"] != "websocket.disconnect":
                await self._take_deferred(event)
        finally:
            self._unwatch_token()
            subjects.leave(subject)
            for group in self._groups:
                self._leave(group)

    async def _allowed(self) -> bool:
        if not origin_allowed(self.scope["headers"], self.settings.allowed_origins):
            return False
        if not is_name(self.session) or not self._take_token() or not await self.may_connect():
            return False
        group = self.default_group
        return group is None or (is_name(group) and await self._may_subscribe(group))

    def _take_token(self) -> bool:
        """Read the token, where there is one; it counts from now to the end of the connection."""
        token = self._asked("token")
        if token is None:
            return not self.settings.require_token
        try:
            self.grant = self.scope["state"]["shards.worker"].tokens.verify(token)
        except BadToken:
            return False
        return True

    def _watch_token(self) -> None:
        """Have the connection end when its token does: it expires, or the key it was signed with is taken away."""
        self._unwatch_token()
        if self.grant is None or self._leaving:
            return
        now = time.time()
        self.grant = self._with_key_looked_for(self.grant, now)
        if self.grant.ends:
            self._end_of_token(max(0.0, self.grant.ends - now))
            return
        if not self.grant.expires or not self.settings.token_ends_socket:
            return
        left = max(0.0, self.grant.expires - now)
        warned = min(_TOKEN_WARNING_SECONDS, left / 2)
        self._ending = asyncio.get_running_loop().call_later(left - warned, self._end_of_token, warned)

    def _with_key_looked_for(self, grant: Grant, now: float) -> Grant:
        """Give a grant that says when it ends, where its key was taken away: however often that is looked at."""
        good = self.scope["state"]["shards.worker"].good_keys()
        if not grant.key or good is None:
            return grant
        if grant.key in good:
            return replace(grant, ends=0.0)
        if grant.ends:
            return grant
        ends = now + _TOKEN_WARNING_SECONDS
        expires = grant.expires if self.settings.token_ends_socket else 0.0
        return replace(grant, ends=min(ends, expires) if expires else ends)

    def _unwatch_token(self) -> None:
        if self._ending is not None:
            self._ending.cancel()
            self._ending = None

    def _end_of_token(self, seconds: float) -> None:
        """Ask the client to come back with another token within so many seconds, then close: some do not listen."""
        self._ask_to_reconnect(round(seconds * 1000))
        close = partial(self.socket.close, 1008, "the token is not good any more: come back with a new one")
        self._ending = asyncio.get_running_loop().call_later(seconds, close)

    def _granted(self, verb: Verb, group: str) -> bool:
        return self.grant is None or self.grant.allows(verb, group)

    async def _may_subscribe(self, group: str) -> bool:
        # Whatever an app that overrides it says, a token's limits hold.
        return self._granted("subscribe", group) and await self.may_subscribe(group)

    async def _welcome(self) -> None:
        self._write({"type": "welcome", "session": self.session, "replica": self.settings.replica})
        if self.default_group is not None:
            await self._subscribe_default()

    async def _subscribe_default(self) -> None:
        assert self.default_group is not None
        events = self._asked("events") == "1"
        since = None
        # Otherwise who comes anew each time, with another group in the URL, would have each of them kept.
        try:
            self._check_reach(self.default_group)
        except Refused as refused:
            self._refuse(refused)
            return
        try:
            since = place_of_query(self._asked("epoch"), self._asked("offset"))
        except Refused as refused:
            self._refuse(refused)
        await self._join(self.default_group, since, events)

    def _asked(self, name: str) -> str | None:
        return next(iter(self.query.get(name, ())), None)

    def _hear(self, text: str) -> None:
        """Carry out what a client says: at once where that needs no waiting, else in its turn."""
        command = None
        try:
            command = self._command_in(text)
            if self._deferred or not self._carry_out_now(command):
                self._deferred += 1
                self.socket.defer({"type": "websocket.receive", "command": command})
        except Refused as refused:
            self._refuse(refused, command)

    async def _take_deferred(self, event: MutableMapping[str, Any]) -> None:
        if (command := event.get("command")) is None:
            # It came before the handshake was through, which no client should do.
            self._hear(event.get("text") or "")
            return
        try:
            await self._carry_out(command)
        except Refused as refused:
            self._refuse(refused, command)
        self._deferred -= 1

    def _refuse(self, refused: Refused, command: Command | None = None) -> None:
        """Answer with an error frame that tells what it is about; close who does not stop."""
        if refused.id is None and is_name(group := getattr(command, "group", None) or ""):
            refused.group = group
        self._error(refused)
        bucket = self._floods if refused.code == "rate_limited" else self._offences
        if not bucket.take(time.monotonic()):
            self.socket.close(1008, "too many errors")

    def _command_in(self, text: str) -> Command:
        now = time.monotonic()
        if not self._rate.take(now):
            raise Refused("rate_limited", f"more than {self.settings.rate_limit:g} frames a second", *_about(text))
        if self._account is not None and not self._account.may_ask(now):
            raise Refused("rate_limited", "too many frames on all of your connections together", *_about(text))
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
        if self._carry_out_now(command):
            return
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

    # Commands

    async def _subscribe(self, command: Subscribe) -> None:
        group = checked_group(command.group)
        if not await self._may_subscribe(group):
            raise Refused("forbidden", f"you may not subscribe {group}")
        if group in self._groups:
            raise Refused("already_subscribed", f"{group} is subscribed already")
        if len(self._groups) >= self.settings.groups_per_socket:
            raise Refused("too_many_groups", f"a socket may subscribe {self.settings.groups_per_socket} groups")
        self._check_reach(group)
        await self._join(group, _place(command.since), command.events)

    async def _join(self, group: str, since: Place | None, events: bool) -> None:
        self._groups[group] = False
        self.plane.hub.join(group, self, since, in_time=True)
        if events and await self.presence_events(group) and group in self._groups:
            self._groups[group] = True
            self.plane.attendance.watch(group, self)

    def _leave(self, group: str) -> None:
        self.plane.hub.leave(group, self)
        self.plane.attendance.unwatch(group, self)

    def _unsubscribe(self, command: Unsubscribe) -> None:
        if command.group not in self._groups:
            raise Refused("not_subscribed", "that group is not subscribed")
        del self._groups[command.group]
        self._leave(command.group)

    def _checked_publish(self, command: Publish) -> tuple[str, str, bytes]:
        id = checked_id(command.id)
        group = checked_group((self.default_group or "") if command.group is None else command.group, id)
        data = checked_data(bytes(command.data), self.settings.message_bytes, id)
        if not self._granted("publish", group):
            raise Refused("forbidden", f"your token does not let you publish to {group}", id)
        self._unpaid += len(data)
        if self._unpaid > _UNPAID_BYTES:
            self._pay(len(data), id)
        if group not in self._groups:
            self._check_reach(group, id)
        return group, id, data

    def _pay(self, size: int, id: str) -> None:
        """Count what was published since the last time; where it is too much, refuse the last of it, of `size` bytes.

        A shard keeps what is published for as long as its history goes back, so this bounds what it keeps of a client.
        """
        now = time.monotonic()
        allowed = self._bytes.take(now, self._unpaid)
        if allowed and (self._account is None or self._account.may_publish(self._unpaid, now)):
            self._unpaid = 0
            return
        self._unpaid -= size
        whose = "on all of your connections together" if allowed else "on one connection"
        raise Refused("rate_limited", f"too many bytes of data a second {whose}", id)

    def _check_reach(self, group: str, id: str | None = None) -> None:
        """Refuse a group that its shard would have to keep for a client which has had it keep as many as it may."""
        now = time.monotonic()
        if not self._reach.would_take(group, now):
            most, seconds = self.settings.groups_per_socket, self.settings.history_seconds
            raise Refused("too_many_groups", f"a socket may reach {most} new groups within {seconds:g} s", id, group)
        # Asked in between, so that neither counts a group that the other one refuses.
        if self._account is not None and not self._account.may_reach(group, now, known=group in self._reach):
            raise Refused("too_many_groups", "too many new groups on all of your connections together", id, group)
        self._reach.takes(group, now)

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
        group = checked_group(command.group)
        limit = checked_limit(command.limit)
        if not await self._may_subscribe(group):
            raise Refused("forbidden", f"you may not read {group}")
        if group not in self._groups:
            self._check_reach(group)
        since = _place(command.since)
        most_bytes = self.settings.send_budget_bytes // 2
        # Who asks for much at once is no slow reader: the next answer waits until he has the last one.
        while not self.has_room(most_bytes):
            await asyncio.sleep(_DRAIN_SECONDS)
        try:
            past = await history.read(self.plane.log, group, since, limit, most_bytes)
        except ShardUnavailable:
            raise _unanswered() from None
        self.socket.write(
            b'{"type":"history","group":"%b","epoch":"%b","offset":%d,"messages":%b}'
            % (group.encode(), past.epoch.encode(), past.head, past.messages)
        )
        if past.gap is not None:
            METRICS.gaps.inc()
            self.on_gap(group, past.gap)

    async def _presence(self, command: PresenceOf) -> None:
        group = checked_group(command.group)
        if not await self._may_subscribe(group):
            raise Refused("forbidden", f"you may not see who is in {group}")
        try:
            present = await self.plane.presence.of(group)
        except ShardUnavailable:
            raise _unanswered() from None
        self._write({"type": "presence", "group": group, "count": present.count, "members": present.members})

    # What a handoff calls, see shards.carried.Rider

    async def _may_go_on(self, arrived: Carried) -> bool:
        """Take over from another worker's consumer, which the client knew; what it was allowed then it is now."""
        self.session, self.public_id = arrived.session, arrived.public_id
        self.grant = arrived.grant and arrived.grant.with_an_end(time.time())
        # Without a session it comes from an app that had no group consumer here, and its client knows none.
        return is_name(self.session) and await self.may_connect()

    async def _go_on(self, arrived: Carried) -> None:
        await restore_state(self, arrived.state)
        now = time.monotonic()
        for bucket, level in zip(self._buckets(), arrived.levels, strict=False):
            bucket.set_level(level, now)
        self._rejoin(arrived.groups)

    def _buckets(self) -> tuple[TokenBucket, ...]:
        return self._rate, self._offences, self._floods, self._bytes, self._reach.bucket

    def _rejoin(self, groups: Iterable[Followed]) -> None:
        for followed in groups:
            self._groups[followed.group] = followed.events
            told = followed.told
            self.plane.hub.join(followed.group, self, followed.place, told, in_time=not told)
            if followed.events:
                self.plane.attendance.watch(followed.group, self)

    def settled(self) -> bool:
        """Tell whether every command has been carried out and answered."""
        # Answers are waited for, and not carried: acks come within milliseconds, and only who asked can count them.
        return not self._deferred and not self.socket.answers_due and all(map(self.plane.hub.knows_place, self._groups))

    def part(self) -> bool:
        """Leave the groups, to go on from where that was."""
        # Nothing is said to a client any more that is about to be another worker's.
        self._leaving = True
        self._unwatch_token()
        if not self._parted:
            for group, events in self._groups.items():
                self._parted.append(Followed(group, *self.plane.hub.part(group, self), events))
                self.plane.attendance.unwatch(group, self)
        return False

    async def carry(self) -> Carried:
        """Give what a consumer elsewhere needs to go on."""
        now = time.monotonic()
        return Carried(
            session=self.session,
            public_id=self.public_id,
            grant=self.grant,
            groups=tuple(self._parted),
            levels=tuple(bucket.level(now) for bucket in self._buckets()),
            state=await carried_state(self),
        )

    def stay(self) -> None:
        """Go on here after all."""
        parted, self._parted = self._parted, []
        self._rejoin(parted)
        self._leaving = False
        self._watch_token()

    def keys_changed(self) -> None:
        """Look whether the token is good still."""
        self._watch_token()

    # What the hub calls, see shards.hub.Member

    def has_room(self, size: int) -> bool:
        """Tell whether the client has read enough for `size` bytes more to stay well within its send budget."""
        backlog = self.socket.backlog
        return backlog == 0 or backlog + size <= self.settings.send_budget_bytes // 2

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

    def on_unavailable(self, group: str) -> None:
        """Tell the client that it is not subscribed."""
        self._groups.pop(group, None)
        self.plane.attendance.unwatch(group, self)
        self._error(Refused("unavailable", "the group's shard does not answer; subscribe again", None, group))

    def on_attendance(self, about: str | None, frame: bytes) -> None:
        """Tell the client who came or went, see `shards.attendance`; not of itself."""
        if about != self.public_id:
            self.socket.write(frame)

    def _ask_to_reconnect(self, within_ms: int) -> None:
        self._write({"type": "reconnect", "within_ms": within_ms})

    def _write(self, frame: dict[str, object]) -> None:
        self.socket.write(_encode(frame))

    def _error(self, refused: Refused) -> None:
        METRICS.errors.labels(refused.code).inc()
        about = {name: value for name in ("id", "group") if (value := getattr(refused, name)) is not None}
        self._write({"type": "error", "code": refused.code, "message": str(refused), **about})


def _place(since: Since | None) -> Place | None:
    return checked_place(since.epoch, since.offset) if since else None


def _unanswered() -> Refused:
    return Refused("unavailable", "the group's shard does not answer; ask again")


def _about(text: str) -> tuple[str | None, str | None]:
    """Find id and group of a frame that is not carried out, so that the client knows which of its own was refused.

    The id is given as it came, also where it is none that a message may have: the client knows it by that.
    """
    try:
        about = msgspec.json.decode(text, type=_About)
    except (msgspec.DecodeError, RecursionError):
        return None, None
    id = about.id if isinstance(about.id, str) else None
    return id, about.group if isinstance(about.group, str) and is_name(about.group) else None


def origin_allowed(headers: list[tuple[bytes, bytes]], allowed: str) -> bool:
    """Tell whether a browser page of this origin may connect: its own host's may, and those that are allowed.

    Clients that are no browsers send no origin; what they may do is for tokens to say.
    """
    named = dict(headers)
    origin = named.get(b"origin", b"").decode("latin-1").lower()
    if not origin or allowed == "*" or origin in allowed.lower().replace(" ", "").split(","):
        return True
    return origin.partition("://")[2] == named.get(b"host", b"").decode("latin-1").lower()
