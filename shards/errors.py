"""Every error this package raises on purpose, in one tree.

A message is one line that says what is wrong and what to do: commands print it as it is. ``exit_code`` is what a
command returns for it: 2 where the user asked for something impossible, 1 where something failed.
"""

from __future__ import annotations


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
