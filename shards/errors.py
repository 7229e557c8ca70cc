"""Every error this package raises on purpose, in one tree.

A message is one line that says what is wrong and what to do: commands print it as it is. ``exit_code`` is what a
command returns for it: 2 where the user asked for something impossible, 1 where something failed.
"""

from __future__ import annotations

import time


class ShardsError(Exception):
    """Base of all errors below."""

    exit_code = 1


class UsageError(ShardsError):
    """The caller asked for something that makes no sense; nothing was changed."""

    exit_code = 2


class StaleVersion(ShardsError):
    """A compare-and-set of the slot table met another version than the caller had read."""

    def __init__(self, expected: int, found: int) -> None:
        super().__init__(f"the slot table is at version {found}, not {expected}: read it again and retry")
        self.expected = expected
        self.found = found


class ShardUnavailable(ShardsError):
    """A shard did not take a command before its deadline."""

    def __init__(self, shard: str, reason: str) -> None:
        super().__init__(f"shard {shard} is unavailable: {reason}")
        self.shard = shard
        self.reason = reason


class PartFailed(ShardsError):
    """A part of the fleet did not become healthy."""

    def __init__(self, part: str, reason: str, log: str | None = None) -> None:
        super().__init__(f"{part} {reason}" + (f"; its log: {log}" if log else ""))
        self.part = part
        self.reason = reason
        self.log = log


class LeaseHeld(ShardsError):
    """Another controller changes the fleet."""

    def __init__(self, command: str, pid: int, since: float) -> None:
        at = time.strftime("%H:%M:%S", time.localtime(since))
        super().__init__(f"`inv {command}` (pid {pid}, since {at}) is changing this fleet; wait until it is through")
        self.command = command
        self.pid = pid
        self.since = since


class Overtaken(ShardsError):
    """This controller was silent for so long that another one has taken its place; it must not write any more."""

    def __init__(self) -> None:
        super().__init__("another command has taken this one over, since it stood still for too long: see `inv status`")


class Refused(ShardsError):
    """The service said no to a client; `code` is one of the protocol's (docs/design.md), as is the message."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{message} ({code})")
        self.code = code


class OutboxFull(ShardsError):
    """A client has as many publishes that wait for their acks as it may keep; none was added."""

    def __init__(self, limit: int) -> None:
        super().__init__(
            f"{limit} publishes wait for their acks: await some of them, or give the client a larger outbox"
        )
        self.limit = limit


class Unconfirmed(ShardsError):
    """A publish that was sent has had no answer for so long that sending it again could double it.

    It may be in the log, or not: the group's history tells.
    """

    def __init__(self, id: str, seconds: float) -> None:
        super().__init__(f"no ack for {id} in {seconds:g} s: it may be published or not, look into the group's history")
        self.id = id
        self.seconds = seconds


class ConnectionFailed(ShardsError):
    """A client could not connect, or may not."""

    def __init__(self, url: str, reason: str) -> None:
        super().__init__(f"cannot connect to {url}: {reason}")
        self.url = url
        self.reason = reason


class ClientClosed(ShardsError):
    """The client was closed while, or before, it was asked for this."""

    def __init__(self) -> None:
        super().__init__("the client is closed: connect anew")
