"""Who may do what on the Redis servers of a fleet: their users, and how passwords change while they run. Pure.

`default` is the admin: the commands, the servers of a pair among themselves, the Sentinels. `app` is what replicas are:
it may do nothing about a server, and with data whatever it likes, deleting it included. Its own scripts do that.
Servers are given the digests of passwords: who reads their configuration can't log in with what it says.

A file of passwords has one a line: the first is shown, all are good. So a change has three stages, and whoever is
killed in between leaves nobody locked out: the first line is good everywhere, always.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256

ADMIN, APP = "default", "app"

_ALL = ("~*", "&*", "+@all")

_APP_RULES = (
    *_ALL,
    # Whatever is about the server and not about data: FLUSHALL, CONFIG, SHUTDOWN, KEYS, REPLICAOF, ACL, …
    *("-@admin", "-@dangerous", "-@scripting"),
    # What is about all keys at once, or gives one another name. SCAN stays: a channel layer's `flush` looks with it.
    *("-randomkey", "-dbsize", "-rename", "-renamenx", "-copy", "-move"),
    # What workers ask of it: scripts by their digests, figures for /metrics, whether a server is a pair's primary. They
    # load the scripts themselves, at each connect: a server forgets them when it is killed, and nobody else is there.
    *("+evalsha", "+script|load", "+script|exists", "+info", "+role"),
)
_APP_AT_SENTINEL = ("-@all", "+sentinel|get-master-addr-by-name")

Users = Mapping[str, Sequence[str]]
"""The rules of each user, by its name, as ``ACL SETUSER`` and a configuration have them."""


@dataclass(frozen=True)
class Passwords:
    """The passwords of each user that are good; the first is shown."""

    admin: tuple[str, ...] = field(repr=False)
    app: tuple[str, ...] = field(repr=False)


def server_users(good: Passwords) -> Users:
    """Give the users of a Redis server."""
    return {ADMIN: _user(good.admin, _ALL), APP: _user(good.app, _APP_RULES)}


def sentinel_users(good: Passwords) -> Users:
    """Give the users of a Sentinel: replicas may only ask it which server is the primary."""
    return {ADMIN: _user(good.admin, _ALL), APP: _user(good.app, _APP_AT_SENTINEL)}


def _user(good: Iterable[str], rules: Sequence[str]) -> Sequence[str]:
    return ("on", *(f"#{sha256(password.encode()).hexdigest()}" for password in good), *rules)


def configuration(users: Users) -> list[str]:
    """Write users as lines of a server's configuration."""
    return [f"user {name} {' '.join(rules)}" for name, rules in users.items()]


def rotation(good: Passwords, fresh: Passwords) -> tuple[Passwords, Passwords, Passwords]:
    """Give the stages from the passwords that are good to fresh ones: both, the fresh ones shown, only these.

    However many are good: a rotation that was cut short left some that the next one takes away.
    """
    return _joined(good, fresh), _joined(fresh, good), fresh


def _joined(first: Passwords, second: Passwords) -> Passwords:
    return Passwords(first.admin + second.admin, first.app + second.app)
