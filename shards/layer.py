"""The channel layer: ``CHANNEL_LAYERS = {"default": {"BACKEND": "shards.layer.ShardedChannelLayer"}}``.

Groups ride on the shards' logs: a group message that `group_send` has taken reaches every member that is a process's
own channel (`new_channel`) once, in order, whatever dies in between, in both colors, as long as no more than `capacity`
messages wait in that channel and they are received within `expiry`. What is dropped beyond that is counted
(``app_layer_dropped_total``), and so is a gap in a group's log: Channels has no word for it.

What has a name that any process may receive from (``runworker thumbnails``) belongs to one color and goes over that
color's own Redis, at most once, as the specification says, also where it is sent by way of a group.

Specification: https://channels.readthedocs.io/en/latest/channel_layer_spec.html
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import logging
import os
import secrets
import threading
import time
import weakref
from collections.abc import Coroutine, Mapping
from functools import partial
from typing import Any, ClassVar, TypeVar

from channels.exceptions import ChannelFull, MessageTooLarge
from channels.layers import BaseChannelLayer
from redis.exceptions import RedisError

from shards.aio import end, keep_on
from shards.carried import passenger
from shards.channel import Channel
from shards.errors import ShardUnavailable
from shards.hub import Hub
from shards.log.log import body_of
from shards.mailbox import Mailboxes
from shards.metrics import METRICS
from shards.payload import Payload, decode, encode
from shards.plane import Plane, serving_plane
from shards.readable import why_unreadable
from shards.settings import BESIDE_DATA_BYTES, Settings

logger = logging.getLogger(__name__)

T = TypeVar("T")

_NODE_CAPACITY = 10_000
"""Messages from other processes that may wait for a process; they fan out to its channels from there."""

_GIVEN_UP_SECONDS = 10.0
"""After a cancelled receive, how long an app has to receive again before the channel is forgotten."""

_RETRY_SECONDS = 0.5
_START_SECONDS = 10.0
_STOP_SECONDS = 5.0
_ENLIST_SECONDS = 10.0
_NAMED_SECONDS = 2.0
_FLUSH_SECONDS = 2.0


class ShardedChannelLayer(BaseChannelLayer):
    """Channel layer on shards.

    Args:
        expiry: seconds after which an undelivered message is dropped.
        capacity: messages that may wait for a channel; one more raises `ChannelFull` in `send`, and is dropped where it
            comes from a group. Both are counted (``app_layer_dropped_total``).
        channel_capacity: pattern → capacity, for some channels.
        group_expiry: seconds after which membership lapses: of a process's own channel, since anybody received from it
            or added it to a group; of a named one, since it was added. A process's own channel is forgotten after 10 s
            unless somebody receives from it again, where its connection has ended: its last receive was cancelled, or
            the task that made the channel has ended since.
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
        self._begin()
        this = weakref.WeakMethod(self._begin)
        os.register_at_fork(after_in_child=lambda: (begin := this()) and begin())

    def _begin(self) -> _Home | None:
        """Be without a home; so is a forked child, which has neither its parent's threads nor who holds its lock."""
        self._lock = threading.Lock()
        self._home_or_none: _Home | None = None
        return None

    # The channel-layer specification

    async def send(self, channel: str, message: Payload) -> None:
        """Send `message` to `channel`.

        Raises:
            TypeError: `channel` is no channel's name, or `message` no dict of JSON and bytes.
            ChannelFull: it holds as many messages as it may.
            redis.exceptions.RedisError: the color's Redis, over which it must go, does not take it.
        """
        self.require_valid_channel_name(channel)
        data = encode(message)
        home = self._home()
        if home.owns(channel):
            home.put(channel, decode(data))
        elif node := _node_of(channel):
            await home.run(home.tell(node, {"do": "put", "channel": channel, "message": message}))
        else:
            await home.run(home.mail(channel, data, self.get_capacity(channel)))

    async def receive(self, channel: str) -> Payload:
        """Wait for the next message on `channel`. A cancelled call takes no message.

        Raises:
            TypeError: `channel` is no channel's name, or another process's.
            redis.exceptions.RedisError: the color's Redis, where a named channel is, refuses; one that is away is
                waited for.
        """
        self.require_valid_channel_name(channel)
        home = self._home()
        if home.owns(channel):
            return await home.channel(channel).get()
        if _node_of(channel):
            raise TypeError(f"{channel} can be received from only in the process that made it")
        message: Payload = decode(await home.take(channel))
        return message

    async def new_channel(self, prefix: str = "specific") -> str:
        """Give the name of a new channel that only this process receives from.

        Raises:
            TypeError: a name that begins with `prefix` would be too long, or no valid one.
        """
        home = self._home()
        name = f"{prefix}.{home.node}!{secrets.token_hex(8)}"
        self.require_valid_channel_name(name)
        channel = home.channel(name)
        channel.made_by(asyncio.current_task())
        if (mine := passenger()) is not None:
            mine.enter(channel, home.hub_here())
        return name

    async def group_add(self, group: str, channel: str) -> None:
        """Make `channel` a member of `group`.

        Once this returns, a channel of this process and a named one get what is sent from then on; another process's is
        told, and gets it from a moment later on. A named channel is in the group for this color only, and gets
        what this color's `group_send` sends.

        Raises:
            TypeError: `group` or `channel` is no valid name.
            ShardUnavailable: the group's shard did not answer in time.
            redis.exceptions.RedisError: the color's Redis did not, where `channel` is not of this process.
        """
        self.require_valid_group_name(group)
        self.require_valid_channel_name(channel)
        if _node_of(channel):
            await self._at_its_node(channel, {"do": "add", "group": group, "channel": channel})
        else:
            home = self._home()
            await home.run(home.mailboxes.join(group, channel, self.group_expiry))

    async def group_discard(self, group: str, channel: str) -> None:
        """Take `channel` out of `group`; nothing happens where it isn't in it.

        Raises:
            TypeError: `group` or `channel` is no valid name.
            redis.exceptions.RedisError: the color's Redis did not answer, where `channel` is not of this process.
        """
        self.require_valid_group_name(group)
        self.require_valid_channel_name(channel)
        if _node_of(channel):
            await self._at_its_node(channel, {"do": "discard", "group": group, "channel": channel})
        else:
            home = self._home()
            await home.run(home.mailboxes.leave(group, channel))

    async def group_send(self, group: str, message: Payload) -> None:
        """Send `message` to every channel in `group`, and to every socket that follows it.

        Raises:
            TypeError: `group` is no group's name, or `message` no dict of JSON and bytes that any client can read.
            MessageTooLarge: it is more than a socket may be sent at once, `SHARDS_SEND_BUDGET_BYTES`.
            ShardUnavailable: the group's shard did not take it in time.
        """
        self.require_valid_group_name(group)
        home = self._home()
        await home.run(home.send_to_group(group, home.checked(encode(message))))

    async def flush(self) -> None:
        """Forget every channel, group membership and waiting message of this color's processes.

        Logs stay: they are history, which sockets resume from, and no channel gets what was sent before it joined.

        Raises:
            redis.exceptions.RedisError: the color's Redis does not answer.
        """
        home = self._home()
        await home.run(home.flush())

    async def close(self) -> None:
        """Disconnect; a later call connects again."""
        with self._lock:
            home, self._home_or_none = self._home_or_none, None
        if home is not None:
            await home.stop()

    # Where the work is done

    def _home(self) -> _Home:
        """Give this process's home, made where there is none yet."""
        with self._lock:
            if self._home_or_none is None or self._home_or_none.over:
                plane = serving_plane() if self._settings is None else None
                self._home_or_none = _Home(self, plane, self._settings or Settings.read())
            return self._home_or_none

    async def _at_its_node(self, channel: str, command: Payload) -> None:
        home = self._home()
        if home.owns(channel):
            await home.run(home.obey(command))
        else:
            await home.run(home.tell(_node_of(channel) or "", command))


class _Home:
    """The event loop in which a layer does its work, and what it has there."""

    def __init__(self, layer: ShardedChannelLayer, plane: Plane | None, settings: Settings) -> None:
        self._layer = layer
        self.node = secrets.token_hex(6)
        self.channels: dict[str, Channel] = {}
        self.mailboxes = Mailboxes(settings.channel_redis_url, settings.redis_credentials, layer.expiry)
        self._plane = plane or Plane(settings)
        self._thread: threading.Thread | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._flushing: dict[str, asyncio.Event] = {}
        self._named_unknown = False
        self._stopped = False
        if plane is None:
            self._start_thread()
        assert self._plane.loop is not None
        self._loop = self._plane.loop
        self._loop.call_soon_threadsafe(self._start_tasks)

    def hub_here(self) -> Hub | None:
        """Give where its channels are members of groups; None where that is in another event loop."""
        return self._plane.hub if asyncio.get_running_loop() is self._loop else None

    @property
    def over(self) -> bool:
        """Whether the loop has ended and another home is needed."""
        return self._stopped or self._loop.is_closed()

    def _start_thread(self) -> None:
        started: concurrent.futures.Future[None] = concurrent.futures.Future()

        async def live() -> None:
            try:
                await self._plane.start()
            except Exception as error:
                started.set_exception(error)
                return
            if started.set_running_or_notify_cancel():
                started.set_result(None)
                await asyncio.Event().wait()

        self._thread = threading.Thread(target=_run_until_stopped, args=(live(),), name="shards layer", daemon=True)
        self._thread.start()
        try:
            started.result(_START_SECONDS)
        except TimeoutError:
            started.cancel()
            raise ShardUnavailable("all", f"the layer's thread did not start within {_START_SECONDS:g} s") from None

    def _start_tasks(self) -> None:
        self.mailboxes.start()
        self._tasks = [
            asyncio.create_task(self._receive(), name="layer: from other processes"),
            keep_on(self._enlist, "layer: this process lives"),
            keep_on(self._sweep, "layer: channels nobody uses"),
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
        if self._thread is not None:
            self._loop.call_soon_threadsafe(_cancel_all, self._loop)
            await asyncio.to_thread(self._thread.join, _STOP_SECONDS)

    async def _stop(self) -> None:
        await end(self._tasks)
        self._forget(list(self.channels.values()))
        with contextlib.suppress(RedisError, OSError):
            await self.mailboxes.dismiss(self.node)
        await self.mailboxes.close()
        if self._thread is not None:
            await self._plane.stop()

    # Channels

    def owns(self, channel: str) -> bool:
        """Whether `channel` is one that this process receives from."""
        return _node_of(channel) == _node_channel(self.node)

    def channel(self, name: str) -> Channel:
        """Give a channel of this process, new where it isn't known."""
        if name not in self.channels:
            self.channels[name] = Channel(name, self._layer.get_capacity(name), self._layer.expiry)
        return self.channels[name]

    def _forget(self, channels: list[Channel]) -> None:
        """Take channels out of their groups and forget them, and what waits in them, which is counted."""
        for channel in channels:
            del self.channels[channel.name]
            METRICS.layer_dropped.inc(self._empty(channel))

    def _empty(self, channel: Channel) -> int:
        for group in list(channel.joined):
            self._leave(group, channel)
        return channel.clear()

    def put(self, name: str, message: Payload) -> None:
        """Put a message into a channel of this process.

        Raises:
            ChannelFull: it holds as many messages as it may.
        """
        channel = self.channels.get(name)
        if channel is None:
            METRICS.layer_dropped.inc()
        elif not channel.put(message):
            METRICS.layer_dropped.inc()
            raise ChannelFull

    async def obey(self, command: Payload) -> None:
        """Do what a process, maybe this one, asks."""
        match command["do"]:
            case "put":
                with contextlib.suppress(ChannelFull):
                    self.put(command["channel"], command["message"])
            case "add":
                await self._join(command["group"], self.channels.get(command["channel"]))
            case "discard":
                self._leave(command["group"], self.channels.get(command["channel"]))
            case "flush":
                self._empty_channels()
                await self.tell(command["answer"], {"do": "flushed", "node": self.node})
            case "flushed" if command["node"] in self._flushing:
                self._flushing[command["node"]].set()

    def _leave(self, group: str, channel: Channel | None) -> None:
        if channel is not None and group in channel.joined:
            del channel.joined[group]
            self._plane.hub.leave(group, channel)

    async def _join(self, group: str, channel: Channel | None) -> None:
        if channel is None:
            return
        channel.used_at = time.monotonic()
        if group not in channel.joined:
            channel.joined[group] = asyncio.Event()
            self._plane.hub.join(group, channel, channel.places.pop(group, None))
        try:
            await asyncio.wait_for(channel.joined[group].wait(), self._plane.settings.publish_seconds)
        except TimeoutError:
            raise ShardUnavailable(self._plane.log.owner(group) or "?", f"no answer for group {group}") from None

    # Messages

    def checked(self, data: bytes) -> bytes:
        """Give `data` back where every socket can be sent it, and read it.

        Raises:
            TypeError: some client could not read it.
            MessageTooLarge: each socket would be closed for it, as too slow, whenever it comes back.
        """
        most = self._plane.settings.send_budget_bytes - BESIDE_DATA_BYTES
        if len(data) > most:
            raise MessageTooLarge(f"to a group {most} bytes can be sent, as JSON: this has {len(data)}")
        if (why := why_unreadable(data)) is not None:
            raise TypeError(f"not every client could read this: {why}")
        return data

    async def send_to_group(self, group: str, data: bytes) -> None:
        """Put a message into a group's log, and then into the mailboxes of the named channels in it."""
        named = asyncio.ensure_future(self._named_members(group))
        id = secrets.token_hex(8)
        try:
            await self._plane.log.publish(group, self._plane.session, id, body_of(id, data, backend=True))
        except BaseException:
            named.cancel()
            raise
        METRICS.published.value += 1
        if names := await named:
            await self._put_into_named(group, names, data)

    async def _named_members(self, group: str) -> list[str]:
        try:
            async with asyncio.timeout(_NAMED_SECONDS):
                names = await self.mailboxes.members(group)
        except (RedisError, OSError) as error:
            if not self._named_unknown:
                # Once, not with each message.
                logger.warning("group %s, named channels: %s", group, error or type(error).__name__)
            self._named_unknown = True
            METRICS.layer_dropped.inc()
            return []
        self._named_unknown = False
        return names

    async def _put_into_named(self, group: str, names: list[str], data: bytes) -> None:
        try:
            async with asyncio.timeout(_NAMED_SECONDS):
                await self.mailboxes.put(data, {name: self._layer.get_capacity(name) for name in names})
        except (RedisError, OSError) as error:
            logger.warning("group %s, named channels: %s", group, error or type(error).__name__)
            METRICS.layer_dropped.inc(len(names))

    async def mail(self, channel: str, data: bytes, capacity: int) -> None:
        """Put a message into the mailbox of a channel that any process may receive from."""
        if await self.mailboxes.put(data, {channel: capacity}):
            raise ChannelFull

    async def take(self, channel: str) -> bytes:
        """Take from a mailbox, in any event loop; a cancelled call gives back what was handed to it too late."""
        if asyncio.get_running_loop() is self._loop:
            return await self.mailboxes.take(channel)
        handed: concurrent.futures.Future[bytes] = concurrent.futures.Future()
        self._loop.call_soon_threadsafe(self._hand_out, channel, handed)
        try:
            return await asyncio.wrap_future(handed)
        except asyncio.CancelledError:
            handed.add_done_callback(partial(self._handed_in_vain, channel))
            raise

    def _hand_out(self, channel: str, handed: concurrent.futures.Future[bytes]) -> None:
        taking = asyncio.create_task(self.mailboxes.take(channel))
        taking.add_done_callback(partial(self._hand, channel, handed))
        handed.add_done_callback(lambda _: self._loop.call_soon_threadsafe(taking.cancel))

    def _hand(self, channel: str, handed: concurrent.futures.Future[bytes], taken: asyncio.Task[bytes]) -> None:
        if taken.cancelled():
            handed.cancel()
        elif handed.set_running_or_notify_cancel():
            error = taken.exception()
            handed.set_result(taken.result()) if error is None else handed.set_exception(error)
        elif taken.exception() is None:
            self.mailboxes.give_back(channel, taken.result())

    def _handed_in_vain(self, channel: str, handed: concurrent.futures.Future[bytes]) -> None:
        if not handed.cancelled() and handed.exception() is None:
            self._loop.call_soon_threadsafe(self.mailboxes.give_back, channel, handed.result())

    async def tell(self, node: str, command: Payload) -> None:
        """Have another process obey a command."""
        await self.mail(node, encode(command), _NODE_CAPACITY)

    async def flush(self) -> None:
        """Have every process of the color forget its channels, then empty the mailboxes."""
        self._empty_channels()
        others = [node for node in await self.mailboxes.nodes() if node != self.node]
        self._flushing = {node: asyncio.Event() for node in others}
        for node in others:
            await self.tell(_node_channel(node), {"do": "flush", "answer": _node_channel(self.node)})
        try:
            async with asyncio.timeout(_FLUSH_SECONDS):
                for node in others:
                    await self._flushing[node].wait()
        except TimeoutError:
            # A process that was killed is listed for a while yet.
            silent = [node for node in others if not self._flushing[node].is_set()]
            logger.warning("flush: no answer from %s", ", ".join(silent))
        await self.mailboxes.flush()

    def _empty_channels(self) -> None:
        for channel in list(self.channels.values()):
            self._empty(channel)

    async def _receive(self) -> None:
        while True:
            try:
                await self.obey(decode(await self.mailboxes.take(_node_channel(self.node))))
            except Exception as error:  # whatever the color's Redis or another process says, the next message counts
                logger.warning("from other processes: %s", error or type(error).__name__)
                await asyncio.sleep(_RETRY_SECONDS)

    async def _enlist(self) -> None:
        while True:
            with contextlib.suppress(RedisError, OSError):
                await self.mailboxes.enlist(self.node)
            await asyncio.sleep(_ENLIST_SECONDS)

    async def _sweep(self) -> None:
        while True:
            lapse = self._layer.group_expiry
            await asyncio.sleep(min(_GIVEN_UP_SECONDS / 2, lapse / 4))
            self._forget([c for c in list(self.channels.values()) if c.is_unused(lapse, _GIVEN_UP_SECONDS)])


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
