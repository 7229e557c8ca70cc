"""The channel layer: ``CHANNEL_LAYERS = {"default": {"BACKEND": "shards.layer.ShardedChannelLayer"}}``.

Groups ride on the shards' logs, so a group message that `group_send` has taken reaches every member once, in order,
whatever dies in between. Sends to a channel by its name belong to one color and go over that color's own Redis, at most
once, as the specification says: within a process they don't leave it.

Specification: https://channels.readthedocs.io/en/latest/channel_layer_spec.html
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import secrets
import threading
import time
from base64 import b64decode, b64encode
from collections import deque
from collections.abc import Coroutine, Mapping
from typing import Any, ClassVar, TypeVar

from channels.exceptions import ChannelFull
from channels.layers import BaseChannelLayer

from shards.aio import end
from shards.errors import ShardUnavailable
from shards.hub import Message
from shards.log.log import BACKEND_MARK, Place, body_of
from shards.mailbox import Mailboxes
from shards.metrics import METRICS
from shards.plane import Plane, serving_plane
from shards.settings import Settings

logger = logging.getLogger(__name__)

T = TypeVar("T")
Payload = dict[str, Any]

_NODE_CAPACITY = 10_000
"""Messages from other processes that may wait for a process; they fan out to its channels from there."""

_RETRY_SECONDS = 0.5


class _Channel:
    """A channel of this process: what waits for it, and who waits on it. Also its groups' member."""

    public_id = None

    def __init__(self, name: str, capacity: int, expiry: float) -> None:
        self.name = name
        self.used_at = time.monotonic()
        self.joined: dict[str, asyncio.Event] = {}
        self._capacity = capacity
        self._expiry = expiry
        self._messages: deque[tuple[float, Payload]] = deque()
        self._waiter: tuple[asyncio.AbstractEventLoop, asyncio.Event] | None = None

    @property
    def idle_since(self) -> float:
        """When somebody last received; now, while somebody waits."""
        return time.monotonic() if self._waiter else self.used_at

    def put(self, message: Payload) -> bool:
        """Add a message; False: the channel is full of messages that have not expired."""
        now = time.monotonic()
        while self._messages and self._messages[0][0] <= now:
            self._messages.popleft()
            METRICS.layer_dropped.inc()
        if len(self._messages) >= self._capacity:
            return False
        self._messages.append((now + self._expiry, message))
        if self._waiter is not None:
            loop, arrived = self._waiter
            loop.call_soon_threadsafe(arrived.set)
        return True

    async def get(self) -> Payload:
        """Wait for a message, in any event loop. A cancelled wait takes nothing."""
        while True:
            self.used_at = time.monotonic()
            arrived = asyncio.Event()
            self._waiter = (asyncio.get_running_loop(), arrived)
            try:
                while self._messages:
                    expires, message = self._messages.popleft()
                    if expires > self.used_at:
                        return message
                    METRICS.layer_dropped.inc()
                await arrived.wait()
            finally:
                self._waiter = None

    # What the hub calls, see shards.hub.Member

    def on_subscribed(self, group: str, place: Place, recovered: bool) -> None:
        """Hear that the group's messages follow."""
        if group in self.joined:
            self.joined[group].set()

    def on_message(self, message: Message) -> None:
        """Queue what server code sent; what a client published is for sockets, and could name any handler."""
        if message.entry.body.endswith(BACKEND_MARK + b"}") and not self.put(_payload_of(message.entry.body)):
            METRICS.layer_dropped.inc()

    def on_gap(self, group: str, place: Place) -> None:
        """Nothing to do: Channels has no word for it; the gap is counted."""


class ShardedChannelLayer(BaseChannelLayer):
    """Channel layer on shards.

    Args:
        expiry: seconds after which an undelivered message is dropped.
        capacity: messages that may wait for a channel; more raise `ChannelFull` in `send`, and are dropped and
            counted (``app_layer_dropped_total``) for groups.
        channel_capacity: pattern → capacity, for some channels.
        group_expiry: seconds after which a channel that nobody receives from is forgotten, with its groups.
        settings: where the fleet's Redis servers are; by default what the environment says.

    It may be used from any thread and event loop: what concerns the shards is done in one loop, the server's where
    this process is a worker of a fleet, else that of a thread started for it.
    """

    extensions: ClassVar = ["groups", "flush"]

    def __init__(
        self,
        expiry: int = 60,
        capacity: int = 100,
        channel_capacity: Mapping[Any, int] | None = None,
        group_expiry: float = 86400,
        settings: Settings | None = None,
    ) -> None:
        super().__init__(expiry=expiry, capacity=capacity)
        self.channel_capacity: Any = self.compile_capacities(dict(channel_capacity or {}))
        self.group_expiry = group_expiry
        self._settings = settings
        self._homes: dict[int, _Home] = {}
        self._lock = threading.Lock()

    # The channel-layer specification

    async def send(self, channel: str, message: Payload) -> None:
        """Send `message` to `channel`.

        Raises:
            TypeError: `channel` is no channel's name, or `message` no dict.
            ChannelFull: it holds as many messages as it may.
        """
        self.require_valid_channel_name(channel)
        _require_payload(message)
        home = self._home()
        if home.owns(channel):
            mine = home.channels.get(channel)
            if mine is None:
                METRICS.layer_dropped.inc()
            elif not mine.put(_copy(message)):
                raise ChannelFull
        elif node := _node_of(channel):
            await home.run(home.tell(node, {"do": "put", "channel": channel, "message": message}))
        else:
            await home.run(home.put(channel, message, self.get_capacity(channel)))

    async def receive(self, channel: str) -> Payload:
        """Wait for the next message on `channel`. A cancelled call takes no message."""
        self.require_valid_channel_name(channel)
        home = self._home()
        if home.owns(channel):
            return await home.channel(channel).get()
        if _node_of(channel):
            raise TypeError(f"{channel} can be received from only in the process that made it")
        return _decode(await home.run(home.mailboxes.take(channel)))

    async def new_channel(self, prefix: str = "specific") -> str:
        """Give the name of a new channel that only this process receives from."""
        home = self._home()
        name = f"{prefix}.{home.node}!{secrets.token_hex(8)}"
        self.require_valid_channel_name(name)
        home.channel(name)
        return name

    async def group_add(self, group: str, channel: str) -> None:
        """Make `channel` a member of `group`.

        Once this returns, a channel of this process gets what is sent from then on; another process's is told, and
        gets it from a moment later on.

        Raises:
            TypeError: `group` or `channel` is no valid name, or `channel` belongs to no process.
            ShardUnavailable: the group's shard did not answer in time.
        """
        self.require_valid_group_name(group)
        self.require_valid_channel_name(channel)
        await self._at_its_node(channel, {"do": "add", "group": group, "channel": channel})

    async def group_discard(self, group: str, channel: str) -> None:
        """Take `channel` out of `group`; nothing happens where it isn't in it."""
        self.require_valid_group_name(group)
        self.require_valid_channel_name(channel)
        await self._at_its_node(channel, {"do": "discard", "group": group, "channel": channel})

    async def group_send(self, group: str, message: Payload) -> None:
        """Send `message` to every channel in `group`, and to every socket that follows it.

        Raises:
            TypeError: `group` is no group's name, or `message` no dict.
            ShardUnavailable: the group's shard did not take it in time.
        """
        self.require_valid_group_name(group)
        _require_payload(message)
        home = self._home()
        id = secrets.token_hex(8)
        body = body_of(id, _encode(message), backend=True)
        await home.run(home.publish(group, id, body))

    async def flush(self) -> None:
        """Forget this process's channels and groups, and every message that waits on the color's Redis."""
        home = self._home()
        home.forget_channels(list(home.channels.values()))
        await home.run(home.mailboxes.flush())

    async def close(self) -> None:
        """Disconnect; a later call connects again."""
        with self._lock:
            homes, self._homes = self._homes, {}
        for home in homes.values():
            await home.stop()

    # Where the work is done

    def _home(self) -> _Home:
        """Give this process's home; a forked child gets one of its own."""
        with self._lock:
            home = self._homes.get(os.getpid())
            if home is None or home.over:
                plane = serving_plane() if self._settings is None else None
                home = self._homes[os.getpid()] = _Home(self, plane, self._settings or Settings.read())
            return home

    async def _at_its_node(self, channel: str, command: Payload) -> None:
        home = self._home()
        node = _node_of(channel)
        if home.owns(channel):
            await home.run(home.obey(command))
        elif node:
            await home.run(home.tell(node, command))
        else:
            raise TypeError(f"{channel} belongs to no process: only channels from new_channel() can be in groups")


class _Home:
    """The event loop in which a layer does its work, and what it has there."""

    def __init__(self, layer: ShardedChannelLayer, plane: Plane | None, settings: Settings) -> None:
        self._layer = layer
        self.node = secrets.token_hex(6)
        self.channels: dict[str, _Channel] = {}
        self.mailboxes = Mailboxes(settings.channel_redis_url, settings.redis_password(), layer.expiry)
        self._own_thread = plane is None
        self._plane = plane or Plane(settings)
        self._tasks: list[asyncio.Task[None]] = []
        self._stopped = False
        if plane is None:
            self._start_thread()
        assert self._plane.loop is not None
        self._loop = self._plane.loop
        self._loop.call_soon_threadsafe(self._start_tasks)

    @property
    def over(self) -> bool:
        """Whether the loop has ended and another home is needed."""
        return self._stopped or self._loop.is_closed()

    def _start_thread(self) -> None:
        started = threading.Event()

        async def live() -> None:
            await self._plane.start()
            started.set()
            await asyncio.Event().wait()

        threading.Thread(target=lambda: _run_until_stopped(live()), name="shards layer", daemon=True).start()
        started.wait()

    def _start_tasks(self) -> None:
        self._tasks = [
            asyncio.create_task(self._receive(), name="layer: from other processes"),
            asyncio.create_task(self._sweep(), name="layer: channels nobody uses"),
        ]

    async def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Do `work` in the home loop, whichever loop this is called in."""
        if asyncio.get_running_loop() is self._loop:
            return await work
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._loop))

    async def stop(self) -> None:
        """End what was started, and the thread where there is one."""
        self._stopped = True
        await self.run(self._stop())
        if self._own_thread:
            self._loop.call_soon_threadsafe(_cancel_all, self._loop)

    async def _stop(self) -> None:
        await end(self._tasks)
        self.forget_channels(list(self.channels.values()))
        await self.mailboxes.close()
        if self._own_thread:
            await self._plane.stop()

    # Channels

    def owns(self, channel: str) -> bool:
        """Whether `channel` is one that this process receives from."""
        return _node_of(channel) == _node_channel(self.node)

    def channel(self, name: str) -> _Channel:
        """Give a channel of this process, new where it isn't known."""
        if name not in self.channels:
            self.channels[name] = _Channel(name, self._layer.get_capacity(name), self._layer.expiry)
        return self.channels[name]

    def forget_channels(self, channels: list[_Channel]) -> None:
        """Take channels out of their groups and forget them."""
        for channel in channels:
            self.channels.pop(channel.name, None)
            for group in channel.joined:
                self._loop.call_soon_threadsafe(self._plane.hub.leave, group, channel)

    async def obey(self, command: Payload) -> None:
        """Do what a process, maybe this one, asks of a channel that lives here."""
        channel = self.channels.get(command["channel"])
        if channel is None:
            METRICS.layer_dropped.inc(command["do"] == "put")
        elif command["do"] == "put":
            METRICS.layer_dropped.inc(not channel.put(command["message"]))
        elif command["do"] == "add":
            await self._join(command["group"], channel)
        elif channel.joined.pop(command["group"], None):
            self._plane.hub.leave(command["group"], channel)

    async def _join(self, group: str, channel: _Channel) -> None:
        if group not in channel.joined:
            channel.joined[group] = asyncio.Event()
            self._plane.hub.join(group, channel)
        try:
            await asyncio.wait_for(channel.joined[group].wait(), self._plane.settings.publish_seconds)
        except TimeoutError:
            raise ShardUnavailable(self._plane.log.owner(group) or "?", f"no answer for group {group}") from None

    async def publish(self, group: str, id: str, body: bytes) -> None:
        """Put a message into a group's log."""
        await self._plane.log.publish(group, self._plane.session, id, body)
        METRICS.published.value += 1

    async def put(self, channel: str, message: Payload, capacity: int) -> None:
        """Put a message into the mailbox of a channel that any process may receive from."""
        if not await self.mailboxes.put(channel, _encode(message), capacity):
            raise ChannelFull

    async def tell(self, node: str, command: Payload) -> None:
        """Have another process obey a command."""
        await self.put(node, command, _NODE_CAPACITY)

    async def _receive(self) -> None:
        while True:
            try:
                await self.obey(_decode(await self.mailboxes.take(_node_channel(self.node))))
            except Exception as error:  # whatever the color's Redis or another process says, the next message counts
                logger.warning("from other processes: %s", error or type(error).__name__)
                await asyncio.sleep(_RETRY_SECONDS)

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(min(60.0, self._layer.group_expiry))
            horizon = time.monotonic() - self._layer.group_expiry
            self.forget_channels([c for c in list(self.channels.values()) if c.idle_since < horizon])


def _run_until_stopped(work: Coroutine[Any, Any, None]) -> None:
    with contextlib.suppress(asyncio.CancelledError):
        asyncio.run(work)


def _cancel_all(loop: asyncio.AbstractEventLoop) -> None:
    for task in asyncio.all_tasks(loop):
        task.cancel()


def _node_channel(node: str) -> str:
    return f"shards.node.{node}"


def _node_of(channel: str) -> str | None:
    """Give the channel of the process that receives from `channel`; None for one that any process may."""
    prefix, mark, _ = channel.partition("!")
    return _node_channel(prefix.rpartition(".")[2]) if mark else None


def _require_payload(message: object) -> None:
    if not isinstance(message, dict):
        raise TypeError("a message is a dict")


def _payload_of(body: bytes) -> Payload:
    payload: Payload = json.loads(b"{" + body[1:], object_hook=_decode_bytes)["data"]
    return payload


def _copy(message: Payload) -> Payload:
    return _decode(_encode(message))


def _encode(message: Payload) -> bytes:
    return json.dumps(message, default=_encode_bytes, separators=(",", ":")).encode()


def _decode(data: bytes) -> Payload:
    payload: Payload = json.loads(data, object_hook=_decode_bytes)
    return payload


def _encode_bytes(value: object) -> object:
    if isinstance(value, bytes | bytearray | memoryview):
        return {"__bytes__": b64encode(value).decode()}
    raise TypeError(f"a message holds JSON and bytes, not {type(value).__name__}")


def _decode_bytes(value: dict[str, Any]) -> object:
    return b64decode(value["__bytes__"]) if value.keys() == {"__bytes__"} else value
