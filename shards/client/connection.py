"""The client's I/O: one connection after the other, for one `Protocol`."""

from __future__ import annotations

import asyncio
import inspect
import logging
import random
import secrets
from collections import deque
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, Self, TypeVar, cast
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as open_socket
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException

from shards.client.protocol import (
    OUTBOX,
    Acked,
    Answered,
    AskedToLeave,
    Complained,
    Event,
    Gap,
    History,
    Joined,
    Left,
    Lost,
    Message,
    Place,
    Presence,
    Protocol,
    PublishFailed,
    Request,
    Subscribed,
    SubscribeFailed,
    Welcomed,
    delay,
)
from shards.errors import ClientClosed, ConnectionFailed, ShardsError, UsageError

logger = logging.getLogger(__name__)

Token = str | Callable[[], str | Awaitable[str]]

Attendance = Callable[[Joined | Left | Presence], None]

AnyEvent = TypeVar("AnyEvent")

_STEADY_SECONDS = 10.0
"""After a connection that lasted this long, from its welcome on, delays are short again."""

_CLOSE_SECONDS = 1.0
_MOST_BYTES = 16 << 20
_FORBIDDEN = {401, 403}


def connect(
    url: str,
    *,
    token: Token | None = None,
    outbox: int = OUTBOX,
    buffer: int = 256,
    open_seconds: float = 10.0,
    ping_seconds: float = 10.0,
    observe: Callable[[Event], None] | None = None,
) -> Client:
    """Make a client; ``async with`` connects it, and closes it in the end.

    Args:
        url: ``ws://host:port/ws/``, or ``wss:``.
        token: goes with every connect; a function, or coroutine function, is asked for a fresh one each time. One that
            raises, or takes longer than `open_seconds`, is asked again at the next attempt.
        outbox: publishes that wait for their acks at most.
        buffer: messages that wait for a slow reader at most; more of them wait in the group's log.
        open_seconds: after which an attempt to connect is given up, and after which the first connect fails.
        ping_seconds: silence after which the service is pinged; without an answer for as long, it is taken for dead.
        observe: told, at once, of what is no message: `Welcomed`, `Lost`, `Subscribed`, `Complained`, ….

    Raises:
        UsageError: the URL is none, or a number makes no sense.
    """
    return Client(url, token, Protocol(outbox=outbox), buffer, open_seconds, ping_seconds, observe)


class _NoToken(Exception):
    """The app gave no token."""


class Client:
    """One session, over as many connections as it takes. Made by `connect`.

    Attributes:
        protocol: what it knows; for a look, not to be changed.
    """

    def __init__(
        self,
        url: str,
        token: Token | None,
        protocol: Protocol,
        buffer: int,
        open_seconds: float,
        ping_seconds: float,
        observe: Callable[[Event], None] | None,
    ) -> None:
        if urlsplit(url).scheme not in ("ws", "wss") or not urlsplit(url).hostname:
            raise UsageError(f"{url!r} is no address of a service: ws://host:port/ws/")
        if min(buffer, open_seconds, ping_seconds) <= 0:
            raise UsageError("buffer, open_seconds and ping_seconds are more than 0")
        self.protocol = protocol
        self._url = url
        self._token = token
        self._buffer = buffer
        self._open_seconds = open_seconds
        self._ping_seconds = ping_seconds
        self._observe = observe
        self._subscriptions: dict[str, Subscription] = {}
        self._acks: dict[str, asyncio.Future[int]] = {}
        self._answers: dict[Request, asyncio.Future[History | Presence]] = {}
        self._something_to_say = asyncio.Event()
        self._opened: asyncio.Future[None] | None = None
        self._task: asyncio.Task[None] | None = None
        self._ended: ShardsError | None = None
        self._attempt = 0
        self._welcomed_at: float | None = None
        self._leaving = False
        self._why_lost = "no answer"

    async def __aenter__(self) -> Self:
        """Connect.

        Raises:
            ConnectionFailed: the service refused us, or was not there in time.
        """
        self._opened = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._run(), name=f"shards client {self._url}")
        try:
            async with asyncio.timeout(self._open_seconds):
                await self._opened
        except TimeoutError:
            await self.close()
            raise ConnectionFailed(self._url, self._why_lost) from None
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connection; whoever still waits for something gets `ClientClosed`."""
        self._end(ClientClosed())
        if self._task is not None and not self._task.done():
            self._task.cancel()
            await asyncio.wait([self._task])

    @property
    def online(self) -> bool:
        """Whether there is a connection now."""
        return self.protocol.online

    @property
    def session(self) -> str | None:
        """The secret by which the service knows us again; None before the first connect."""
        return self.protocol.session

    # What it is for

    async def publish(self, group: str, data: object, *, id: str | None = None) -> int:
        """Publish a message, however often it takes to send it.

        Publishes awaited one after the other are in the log in that order. If this is cancelled, the message may be
        published or not.

        Args:
            group: where to; nobody needs to have subscribed it.
            data: what JSON can say.
            id: 1-64 characters, a new one for each message; None: one is made.

        Returns:
            Its offset: it is in the log.

        Raises:
            Refused: the service said no.
            Unconfirmed: it was sent, and there was no answer for too long to send it again.
            OutboxFull: too many wait for their acks already.
            UsageError: `group`, `id` or `data` can't be such.
            ClientClosed: the client was closed meanwhile.
        """
        self._check_open()
        id = secrets.token_urlsafe(12) if id is None else id
        self.protocol.publish(group, data, id)
        acked: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._acks[id] = acked
        self._something_to_say.set()
        try:
            return await acked
        finally:
            del self._acks[id]
            self.protocol.withdraw(id)

    def subscribe(
        self, group: str, *, since: Place | None = None, attendance: Attendance | None = None, seconds: float = 30.0
    ) -> Subscription:
        """Follow a group, in an ``async with``.

        Args:
            group: which.
            since: a place to resume from, that of the last message handled by an earlier client; None: from now on.
            attendance: told, at once, who else comes and goes: `Joined` and `Left`, or where too many do to be named,
                a `Presence` that has their count only. `presence` says who is there already. Of what happens while
                there is no connection, or while the reader is too slow, nothing is told.
            seconds: within which the service has to answer.
        """
        return Subscription(self, group, since, attendance, seconds, self._buffer)

    async def history(
        self, group: str, *, since: Place | None = None, limit: int = 100, seconds: float = 10.0
    ) -> History:
        """Read a group's past: up to `limit` messages after `since`, or the last ones.

        Raises:
            Refused: the service said no.
            TimeoutError: it did not answer within `seconds`.
            ClientClosed: the client was closed meanwhile.
        """
        return cast(History, await self._ask(Request("history", group, since, limit), seconds))

    async def presence(self, group: str, *, seconds: float = 10.0) -> Presence:
        """Tell who is in a group; raises what `history` does."""
        return cast(Presence, await self._ask(Request("presence", group), seconds))

    async def _ask(self, request: Request, seconds: float) -> History | Presence:
        self._check_open()
        self.protocol.ask(request)
        answer: asyncio.Future[History | Presence] = asyncio.get_running_loop().create_future()
        self._answers[request] = answer
        self._something_to_say.set()
        try:
            async with asyncio.timeout(seconds):
                return await answer
        finally:
            del self._answers[request]
            self.protocol.forget(request)

    # What subscriptions call

    def _follow(self, subscription: Subscription, since: Place | None) -> None:
        self._check_open()
        self.protocol.subscribe(subscription.group, since, subscription._attendance is not None)
        self._subscriptions[subscription.group] = subscription
        self._something_to_say.set()

    def _unfollow(self, subscription: Subscription) -> None:
        if self._subscriptions.get(subscription.group) is subscription:
            del self._subscriptions[subscription.group]
            self.protocol.unsubscribe(subscription.group)
            self._something_to_say.set()

    def _go_on(self, subscription: Subscription) -> None:
        if self._subscriptions.get(subscription.group) is subscription:
            self.protocol.resume(subscription.group)
            self._something_to_say.set()

    # Connections

    def _check_open(self) -> None:
        if self._ended is not None:
            raise self._ended
        if self._task is None:
            raise UsageError("the client is not connected: use it in an `async with`")

    async def _run(self) -> None:
        try:
            while True:
                self._welcomed_at = None
                retry_after = await self._one_connection()
                if self._was_steady():
                    self._attempt = 0
                if not self._leaving:
                    await asyncio.sleep(max(delay(self._attempt), random.random() * retry_after))
                    self._attempt += 1
        except ShardsError as error:
            self._end(error)
        except Exception as error:
            logger.exception("the client failed")
            self._end(ConnectionFailed(self._url, f"{type(error).__name__}: {error}"))

    def _was_steady(self) -> bool:
        """Tell whether the connection that ended had lasted; to wait for an answer in vain takes as long."""
        now = asyncio.get_running_loop().time()
        return self._welcomed_at is not None and now - self._welcomed_at > _STEADY_SECONDS

    async def _one_connection(self) -> float:
        """Connect and talk until it is over; gives the seconds the service wants us to stay away."""
        self._leaving = False
        code, retry_after = None, 0.0
        try:
            async with open_socket(
                await self._address(),
                compression=None,
                open_timeout=self._open_seconds,
                close_timeout=_CLOSE_SECONDS,
                ping_interval=self._ping_seconds,
                ping_timeout=self._ping_seconds,
                max_size=_MOST_BYTES,
            ) as socket:
                try:
                    await self._talk(socket)
                except asyncio.CancelledError:
                    self._why_lost = "closed by this client"
                    await socket.close()
                    raise
                finally:
                    code = socket.close_code
            self._why_lost = "asked to go elsewhere" if self._leaving else f"closed: {code} {socket.close_reason}"
        except InvalidStatus as error:
            status = error.response.status_code
            self._why_lost = f"HTTP {status}"
            if status in _FORBIDDEN:
                forbidden = "not allowed, or nothing is served there; mind path, token and group"
                raise ConnectionFailed(self._url, f"{self._why_lost}, {forbidden}") from None
            retry_after = _seconds(error.response.headers.get("Retry-After", ""))
        except (OSError, TimeoutError, WebSocketException, ValueError, _NoToken) as error:
            self._why_lost = str(error) or type(error).__name__
        finally:
            self.protocol.lost(self._why_lost, code)
            self._tell()
        return retry_after

    async def _address(self) -> str:
        parts = urlsplit(self._url)
        query = dict(parse_qsl(parts.query))
        if self.protocol.session is not None:
            query["session"] = self.protocol.session
            # A place is that of the first connect: what came since we have, and say so with `subscribe`.
            query.pop("epoch", None)
            query.pop("offset", None)
        if self._token is not None:
            query["token"] = await self._fresh_token(self._token)
        return urlunsplit(parts._replace(query=urlencode(query)))

    async def _fresh_token(self, source: Token) -> str:
        """Ask the app for a token; whoever issues them may be gone for a while, as the service may.

        Raises:
            _NoToken: it failed, or was not there in time.
        """
        before, self._why_lost = self._why_lost, "no token in time"
        try:
            async with asyncio.timeout(self._open_seconds):
                token = source() if callable(source) else source
                token = await token if inspect.isawaitable(token) else token
        except TimeoutError as error:
            raise self._no_token(str(error) or "no token in time") from error
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            # It is not we who are cancelled, but what the app waited for.
            raise self._no_token("no token: cancelled") from error
        except Exception as error:
            raise self._no_token(f"no token: {type(error).__name__}: {error}") from error
        self._why_lost = before
        return token

    def _no_token(self, why: str) -> _NoToken:
        logger.warning("%s: %s", self._url, why)
        return _NoToken(why)

    async def _talk(self, socket: ClientConnection) -> None:
        loop = asyncio.get_running_loop()
        speaking = asyncio.create_task(self._speak(socket))
        try:
            async with asyncio.timeout(self._open_seconds) as deadline:
                async for text in socket:
                    self.protocol.receive(text, loop.time())
                    self._tell(deadline)
                    self._something_to_say.set()
        except TimeoutError:
            if not self._leaving:
                raise TimeoutError("no welcome in time") from None
        except ConnectionClosed as closed:
            logger.debug("connection lost: %s", closed)
        finally:
            speaking.cancel()
            await asyncio.wait([speaking])

    async def _speak(self, socket: ClientConnection) -> None:
        loop = asyncio.get_running_loop()
        alarm: asyncio.TimerHandle | None = None
        try:
            while True:
                await self._something_to_say.wait()
                self._something_to_say.clear()
                for text in self.protocol.data_to_send(loop.time()):
                    await socket.send(text)
                self._tell()
                if (at := self.protocol.wakes_at(loop.time())) is not None:
                    if alarm is not None:
                        alarm.cancel()
                    alarm = loop.call_at(at, self._something_to_say.set)
        except ConnectionClosed:
            return
        finally:
            if alarm is not None:
                alarm.cancel()

    # Events

    def _tell(self, deadline: asyncio.Timeout | None = None) -> None:
        """Pass on what happened; `deadline` is that of the connection."""
        for event in self.protocol.events():
            match event:
                case Message() | Gap():
                    self._deliver(event)
                case Acked():
                    _settle(self._acks.get(event.id), event.offset)
                case PublishFailed():
                    _settle(self._acks.get(event.id), event.error)
                case Answered(request=request, answer=answer):
                    _settle(self._answers.get(request), answer)
                case Joined() | Left() | Presence():
                    if (subscription := self._subscriptions.get(event.group)) is not None:
                        _show(subscription._attendance, event)
                case _:
                    self._connection_event(event, deadline)
            if not isinstance(event, Message):
                _show(self._observe, event)

    def _connection_event(self, event: Event, deadline: asyncio.Timeout | None) -> None:
        match event:
            case Welcomed():
                _settle(self._opened, None)
                self._welcomed_at = asyncio.get_running_loop().time()
                if deadline is not None:
                    deadline.reschedule(None)
            case Subscribed():
                self._subscriptions[event.group]._begin()
            case SubscribeFailed():
                self._subscriptions.pop(event.group)._end(event.error)
            case AskedToLeave():
                if deadline is not None and not self._leaving:
                    self._leaving = True
                    now = asyncio.get_running_loop().time()
                    deadline.reschedule(now + random.random() * event.within_seconds)
            case Lost():
                logger.info("%s: offline: %s", self._url, event.reason)
            case Complained():
                logger.warning("%s: %s", self._url, event.error)

    def _deliver(self, item: Message | Gap) -> None:
        subscription = self._subscriptions.get(item.group)
        if subscription is not None and subscription._put(item):
            self.protocol.pause(item.group)
            self._something_to_say.set()

    def _end(self, error: ShardsError) -> None:
        """Tell everyone who waits that nothing comes any more."""
        if self._ended is not None:
            return
        self._ended = error
        _settle(self._opened, error)
        for acked in self._acks.values():
            _settle(acked, error)
        for answer in self._answers.values():
            _settle(answer, error)
        for subscription in self._subscriptions.values():
            subscription._end(error)
        self._subscriptions.clear()


class Subscription:
    """A group that is followed: ``async with`` subscribes it, ``async for`` gives `Message` and `Gap` objects.

    A slow reader holds up nobody else, and takes no memory beyond the client's `buffer`: what comes meanwhile waits in
    the group's log.

    Attributes:
        group: which.
    """

    def __init__(
        self,
        client: Client,
        group: str,
        since: Place | None,
        attendance: Attendance | None,
        seconds: float,
        buffer: int,
    ) -> None:
        self.group = group
        self._client = client
        self._since = since
        self._attendance = attendance
        self._seconds = seconds
        self._buffer = buffer
        self._items: deque[Message | Gap] = deque()
        self._arrived = asyncio.Event()
        self._begun: asyncio.Future[None] | None = None
        self._paused = False
        self._over = False
        self._error: ShardsError | None = None

    async def __aenter__(self) -> Self:
        """Subscribe; returns once messages follow.

        Raises:
            Refused: the service said no.
            TimeoutError: it did not answer in time.
            UsageError: the group is no name, or followed by this client already.
            ClientClosed: the client was closed meanwhile.
        """
        self._begun = asyncio.get_running_loop().create_future()
        self._client._follow(self, self._since)
        try:
            async with asyncio.timeout(self._seconds):
                await self._begun
        except BaseException:
            self._client._unfollow(self)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client._unfollow(self)
        self._end(None)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Message | Gap:
        """Give the next message, or the gap before it.

        Raises:
            Refused: the service refused to resume it.
            ClientClosed: the client was closed.
        """
        while not self._items:
            if self._error is not None:
                raise self._error
            if self._over:
                raise StopAsyncIteration
            self._arrived.clear()
            await self._arrived.wait()
        item = self._items.popleft()
        if self._paused and len(self._items) <= self._buffer // 2:
            self._paused = False
            self._client._go_on(self)
        return item

    def _begin(self) -> None:
        _settle(self._begun, None)

    def _put(self, item: Message | Gap) -> bool:
        """Take an item; tell whether that is enough for now."""
        self._items.append(item)
        self._arrived.set()
        self._paused = self._paused or len(self._items) >= self._buffer
        return self._paused

    def _end(self, error: ShardsError | None) -> None:
        self._over, self._error = True, error
        self._arrived.set()
        if error is not None:
            _settle(self._begun, error)


def _show(observer: Callable[[AnyEvent], None] | None, event: AnyEvent) -> None:
    """Tell an app's function of an event; what it raises is logged, and stops nobody else."""
    if observer is None:
        return
    try:
        observer(event)
    except Exception:
        logger.exception("the client's observer failed")


def _settle(future: asyncio.Future[Any] | None, result: object) -> None:
    """Give a future its result or error, if somebody waits for it."""
    if future is None or future.done():
        return
    if isinstance(result, Exception):
        future.set_exception(result)
    else:
        future.set_result(result)


def _seconds(text: str) -> float:
    return min(float(text), 60.0) if text.isascii() and text.isdigit() else 0.0
