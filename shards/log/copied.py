"""A connection to a shard of two servers: what the primary says counts once its copy has it.

That goes for acks, and as much for what is read and pushed: who has seen a message and comes back after a switch finds
it in the log, at its place. One question covers all that came before it: PING, then WAIT. What was held when PING is
answered was done before it, and WAIT answers once the copy has confirmed everything up to PING.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence

from shards.aio import end
from shards.log.link import Answered, Link, LinkLost, Nonsense, Reply, tell_lost
from shards.log.pair import COPIED_MS, Address, NotCopied, Pair, pair_of, primary_of
from shards.log.shard import NO_GROUP, Listener, Pushed, Script, ShardConnection
from shards.router.table import Shard
from shards.settings import Credentials

MOST_HELD_BYTES = 64 << 20
"""Pushed messages held back on one connection; with more it is dropped, and the log read instead."""

_LOOK_SECONDS = 1.0


def connection_to(shard: Shard, credentials: Callable[[str], Credentials], listener: Listener) -> ShardConnection:
    """Make the connection that a shard's url asks for; see `ShardConnection`."""
    pair = pair_of(shard.url)
    return PairConnection(shard, credentials, listener, pair) if pair else ShardConnection(shard, credentials, listener)


class Gate:
    """Holds replies and pushes of one connection back, in order, until the copy has what they tell of.

    Args:
        link: the connection.
        on_push: takes each message pushed, once the copy has it.
    """

    def __init__(self, link: Link, on_push: Pushed) -> None:
        self._link = link
        self._on_push = on_push
        self._held: deque[tuple[Answered, Reply] | tuple[bytes, bytes]] = deque()
        self._held_bytes = 0
        self._done_before_ping = 0
        self._asking = False
        self.alone = False
        """The copy did not confirm when it was asked last."""

    def after(self, answered: Answered) -> Answered:
        """Give what takes the reply of a command that is about to be sent, for `answered` to get it in time."""
        self._ask_soon()
        return lambda reply: self._replied(answered, reply)

    def push(self, channel: bytes, payload: bytes) -> None:
        """Take a message that was pushed."""
        self._held.append((channel, payload))
        self._held_bytes += len(payload)
        if self._held_bytes > MOST_HELD_BYTES:
            self._link.abort()
        self._ask_soon()

    def _replied(self, answered: Answered, reply: Reply) -> None:
        if isinstance(reply, Exception):
            if "READONLY" in str(reply):
                self._link.abort()  # no primary any more
            answered(reply)
        else:
            self._held.append((answered, reply))
            self._ask_soon()

    def _ask_soon(self) -> None:
        # One question at a time: while WAIT waits, Redis does nothing else for this connection.
        if not self._asking:
            self._asking = True
            asyncio.get_running_loop().call_soon(self._ask)

    def _ask(self) -> None:
        self._done_before_ping = 0
        self._link.send(self._pinged, "PING")
        self._link.send(self._waited, "WAIT", 1, COPIED_MS)

    def _pinged(self, reply: Reply) -> None:
        self._done_before_ping = len(self._held)

    def _waited(self, reply: Reply) -> None:
        self._asking = False
        if not isinstance(reply, int):
            self._link.abort()
            self._drop(reply if isinstance(reply, Exception) else Nonsense(f"no answer to WAIT: {reply!r:.100}"))
            return
        self.alone = reply < 1
        try:
            if self.alone:
                self._refuse()
            else:
                for _ in range(self._done_before_ping):
                    self._release()
        except Exception as error:
            # Who was told has failed. The link goes for it, and nobody else would tell the others.
            self._drop(LinkLost(f"dropped: {error!r}"))
            raise
        if self._held:
            self._ask_soon()

    def _release(self) -> None:
        first, second = self._held.popleft()
        if callable(first):
            first(second)
        else:
            self._held_bytes -= len(second)
            self._on_push(first, second)

    def _refuse(self) -> None:
        """Have every command that was answered tried again; pushed messages wait on."""
        for _ in range(len(self._held)):
            first, second = self._held.popleft()
            if callable(first):
                first(NotCopied("the copy did not confirm it"))
            else:
                self._held.append((first, second))

    def _drop(self, reason: Exception) -> None:
        held, self._held, self._held_bytes = self._held, deque(), 0
        why = reason if isinstance(reason, LinkLost) else LinkLost(str(reason))
        for first, _ in held:
            if callable(first):
                tell_lost(first, why)


class PairConnection(ShardConnection):
    """Connects to whichever server of a pair Sentinel names the primary.

    Args:
        shard: see `ShardConnection`.
        credentials: see `ShardConnection`; the Sentinels are shown the same.
        listener: see `ShardConnection`.
        pair: the shard's url, read.
    """

    pulse = "ROLE"

    def __init__(self, shard: Shard, credentials: Callable[[str], Credentials], listener: Listener, pair: Pair) -> None:
        super().__init__(shard, credentials, listener)
        self._pair = pair
        self._at: Address | None = None
        self._gate: Gate | None = None

    def run(self, script: Script, answered: Answered, keys: Sequence[str], args: Sequence[str | bytes | int]) -> None:
        """Run a script; `answered` gets its reply once the copy has what it did, or `NotCopied`."""
        if self.up and self._gate:
            answered = self._gate.after(answered)
        super().run(script, answered, keys, args)

    async def _connect(self, link: Link) -> None:
        self._at = await self._primary()
        await asyncio.get_running_loop().create_connection(lambda: link, *self._at)
        await self._greet(link, "0")
        if not self.is_well(await link.ask(self.pulse)):
            raise ConnectionError("the server that Sentinel names is no primary")
        self._gate = Gate(link, super()._hearing())

    async def _primary(self) -> Address:
        return await primary_of(self._pair, self._credentials(self.shard.url))

    def is_well(self, reply: Reply) -> bool:
        """Tell from the answer to ROLE whether the server is a primary."""
        return isinstance(reply, list) and reply[0] == b"master"

    async def _watch(self, link: Link, lost: asyncio.Event) -> None:
        looking = asyncio.create_task(self._look_for_switches(link), name=f"primary of {self.shard.name}")
        try:
            await super()._watch(link, lost)
        finally:
            await end([looking])

    async def _look_for_switches(self, link: Link) -> None:
        """Leave a primary that has lost its copy where Sentinel names another: it was cut off and does not know."""
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            if self._gate and self._gate.alone:
                try:
                    named = await self._primary()
                except ConnectionError:
                    continue
                if named != self._at:
                    link.abort()

    def _hearing(self) -> Pushed:
        heard = super()._hearing()

        def pushed(channel: bytes, payload: bytes) -> None:
            # What is said of groups and of the slot table is in no log.
            if self._gate and channel[0] != NO_GROUP:
                self._gate.push(channel, payload)
            else:
                heard(channel, payload)

        return pushed
