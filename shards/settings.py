"""What a process of a fleet is told by its environment."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import msgspec

from shards.errors import UsageError

BESIDE_DATA_BYTES = 1024
"""What a message's frame has beside its data, at most: group, offset, id."""

_SECONDS_AT_ONCE = 16
"""Of SHARDS_BYTES_LIMIT: who has been silent for so long may publish so much at once."""


@dataclass(frozen=True)
class Credentials:
    """What a Redis server is shown; without a password there is no AUTH."""

    username: str = "default"
    password: str = field(default="", repr=False)


@dataclass(frozen=True)
class Settings:
    """What a worker goes by; docs/settings.md is made of this.

    Attributes:
        message_redis_url: MESSAGE_REDIS_URL: the shared control Redis: slot table, registry, orders.
        channel_redis_url: CHANNEL_REDIS_URL: the color's own Redis: sends to a channel by its name.
        redis_username: SHARDS_REDIS_USERNAME: the user of that password; a fleet's replicas are ``app``.
        redis_password_file: SHARDS_REDIS_PASSWORD_FILE: the password of the control Redis, of the colors' own and of
            the fleet's own shards: the first line, read at each connect; empty: none.
        shard_credentials_file: SHARDS_SHARD_CREDENTIALS_FILE: of shards that have others, JSON by URL:
            ``{"redis://host:6379/0": {"username": …, "password": …}}``; empty: none has.
        color: COLOR: blue or green: which release's clients this replica serves.
        replica: SHARDS_REPLICA: its name: what it says of itself in ``welcome``, the registry and /metrics.
        release: SHARDS_RELEASE: which release it says it runs.
        history_messages: SHARDS_HISTORY_MESSAGES: messages that a group's log keeps.
        history_seconds: SHARDS_HISTORY_SECONDS: for how long it keeps them.
        idle_seconds: SHARDS_IDLE_SECONDS: after which a group that nobody reads or writes is forgotten.
        dedupe_seconds: SHARDS_DEDUPE_SECONDS: within which a repeated id is delivered once; not less than
            SHARDS_PUBLISH_SECONDS, and our clients send again for 90 s.
        publish_seconds: SHARDS_PUBLISH_SECONDS: after which a publish that no shard takes is refused.
        message_bytes: SHARDS_MESSAGE_BYTES: the largest ``data`` of a message.
        send_budget_bytes: SHARDS_SEND_BUDGET_BYTES: unsent bytes after which a slow reader is closed (1013); less 1
            KiB, also what ``group_send`` takes at most. At least 1 KiB above SHARDS_MESSAGE_BYTES.
        rate_limit: SHARDS_RATE_LIMIT: frames that a socket may send, twice that at once; 0: any number.
        bytes_limit: SHARDS_BYTES_LIMIT: bytes of ``data`` that a socket may publish, sixteen times that at once; 0: any
            number.
        groups_per_socket: SHARDS_GROUPS_PER_SOCKET: how many groups a socket may subscribe; also how many new ones it
            may reach (subscribe, publish to, read the history of) within SHARDS_HISTORY_SECONDS, twice that at once.
        ping_seconds: SHARDS_PING_SECONDS: silence after which a client is pinged; unanswered for as long again, it is
            closed.
        max_connections: SHARDS_MAX_CONNECTIONS: sockets that a worker holds before it answers 503; 0: any number.
        allowed_origins: SHARDS_ALLOWED_ORIGINS: origins of pages, with commas, that may connect besides the service's
            own; ``*``: any.
        token_key_file: SHARDS_TOKEN_KEY_FILE: the keys of tokens, one a line, 32 characters or more; the first signs,
            all verify; empty: no token is good.
        sockets_per_subject: SHARDS_SOCKETS_PER_SUBJECT: sockets that the bearers of one subject's tokens may have at a
            worker; 0: any number.
        subject_share: SHARDS_SUBJECT_SHARE: how many times what one socket may (SHARDS_RATE_LIMIT, SHARDS_BYTES_LIMIT,
            new groups) they may at a worker in all, on sockets and, but for groups, over HTTP; 0: any number.
        address_share: SHARDS_ADDRESS_SHARE: the same of the sockets of one address (of IPv6, its /64) whose tokens name
            no subject, or that came without one; 0: any number. Many may share an address, or all where a proxy before
            the edges does not say who its clients are.
        require_token: SHARDS_REQUIRE_TOKEN: 1: a ``GroupConsumer`` lets nobody connect without a token.
        token_ends_socket: SHARDS_TOKEN_ENDS_SOCKET: 1: a socket that came with a token is asked to come back with a new
            one before it expires, and closed (1008) when it has; 0: it outlives its token.
        handoff_dir: SHARDS_HANDOFF_DIR: this user's own directory, where a host's workers have the UNIX sockets over
            which they hand their clients to one another; empty: they don't.
        dashboard: SHARDS_DASHBOARD: 0: no dashboard at /fleet/, the path is the app's. It tells what /metrics tells,
            to whoever gets there.
        reports_dir: SHARDS_REPORTS_DIR: of the load scenarios, whose verdicts the dashboard names; empty: none.
    """

    message_redis_url: str = "redis://127.0.0.1:6379/0"
    channel_redis_url: str = "redis://127.0.0.1:6379/0"
    redis_username: str = "default"
    redis_password_file: str = ""
    shard_credentials_file: str = ""
    color: str = "blue"
    replica: str = "blue-0"
    release: str = "dev"
    history_messages: int = 1000
    history_seconds: float = 300.0
    idle_seconds: float = 3600.0
    dedupe_seconds: float = 120.0
    publish_seconds: float = 30.0
    message_bytes: int = 65536
    send_budget_bytes: int = 1 << 20
    rate_limit: float = 100.0
    bytes_limit: float = 262144.0
    groups_per_socket: int = 100
    ping_seconds: float = 20.0
    max_connections: int = 0
    allowed_origins: str = ""
    token_key_file: str = ""
    sockets_per_subject: int = 0
    subject_share: float = 10.0
    address_share: float = 0.0
    require_token: bool = False
    token_ends_socket: bool = True
    handoff_dir: str = ""
    dashboard: bool = True
    reports_dir: str = ""

    @classmethod
    def read(cls, environ: Mapping[str, str] = os.environ) -> Settings:
        """Read the settings from `environ`.

        Raises:
            UsageError: a number is not one, negative, or 0 where that makes no sense, or two don't go together.
        """
        settings = cls(**_values(cls, environ))
        settings._check()
        return settings

    def _check(self) -> None:
        if self.dedupe_seconds < self.publish_seconds:
            # A publish that is sent again after its mark is gone would be doubled.
            raise UsageError("SHARDS_DEDUPE_SECONDS must not be less than SHARDS_PUBLISH_SECONDS")
        if self.send_budget_bytes < self.message_bytes + BESIDE_DATA_BYTES:
            # Whoever is to get such a message would be closed for it, each time he comes back.
            raise UsageError(f"SHARDS_SEND_BUDGET_BYTES must be {BESIDE_DATA_BYTES} or more above SHARDS_MESSAGE_BYTES")

    @property
    def bytes_at_once(self) -> float:
        """Give the bytes of ``data`` that a socket may publish at once; one message, the largest, always fits."""
        return _SECONDS_AT_ONCE * self.bytes_limit + self.message_bytes

    def redis_credentials(self) -> Credentials:
        """Read what the fleet's own Redis servers are shown, anew each time: passwords change while one runs."""
        known = passwords_in(Path(self.redis_password_file).read_text()) if self.redis_password_file else []
        return Credentials(self.redis_username, next(iter(known), ""))

    def credentials(self, url: str) -> Credentials:
        """Read what the shard at `url` is shown, anew each time: shards come while one runs."""
        if self.shard_credentials_file:
            others = read_credentials(Path(self.shard_credentials_file))
            if url in others:
                return others[url]
        return self.redis_credentials()


@dataclass(frozen=True)
class Launch:
    """What the process that starts a replica's workers goes by, beside `Settings`; docs/settings.md is made of this.

    Attributes:
        app: SHARDS_APP: the ASGI application, ``module:attribute``.
        app_dir: SHARDS_APP_DIR: the directory that it is imported from; empty: the current one.
        host: SHARDS_HOST: the address on which the replica listens.
        port: SHARDS_PORT: and the port.
        workers: UVICORN_WORKERS: processes of the replica.
    """

    app: str = "app.asgi:application"
    app_dir: str = ""
    host: str = "127.0.0.1"
    port: int = 8000
    workers: int = 1

    @classmethod
    def read(cls, environ: Mapping[str, str] = os.environ) -> Launch:
        """Read it from `environ`.

        Raises:
            UsageError: a number is not one, or makes no sense.
        """
        return cls(**_values(cls, environ))


def passwords_in(text: str) -> list[str]:
    """Read a file of passwords, one a line: the first is shown, and servers take all while they are rotated."""
    return [line.strip() for line in text.splitlines() if line.strip()]


def read_credentials(path: Path) -> dict[str, Credentials]:
    """Read what shards are shown, by URL, from a file of JSON."""
    return msgspec.json.decode(path.read_bytes(), type=dict[str, Credentials])


_MAY_BE_ZERO = {
    *("SHARDS_RATE_LIMIT", "SHARDS_BYTES_LIMIT", "SHARDS_MAX_CONNECTIONS", "SHARDS_SOCKETS_PER_SUBJECT"),
    *("SHARDS_SUBJECT_SHARE", "SHARDS_ADDRESS_SHARE", "SHARDS_PORT"),
}
_NAMED = {
    "color": "COLOR",
    "message_redis_url": "MESSAGE_REDIS_URL",
    "channel_redis_url": "CHANNEL_REDIS_URL",
    "workers": "UVICORN_WORKERS",
}


_CHOSEN = (
    *("history_messages", "history_seconds", "idle_seconds", "dedupe_seconds", "publish_seconds", "message_bytes"),
    *("send_budget_bytes", "rate_limit", "bytes_limit", "groups_per_socket", "ping_seconds", "max_connections"),
    *("allowed_origins", "sockets_per_subject", "subject_share", "address_share", "require_token"),
    *("token_ends_socket", "dashboard"),
)
"""Settings that are somebody's choice; the others follow from what the fleet is."""


def chosen(environ: Mapping[str, str]) -> dict[str, str]:
    """Give what an environment says of a fleet's app that is somebody's choice, by variable.

    Raises:
        UsageError: as `Settings.read`.
    """
    variables = [*map(variable_of, _CHOSEN), "DJANGO_SETTINGS_MODULE"]
    found = {name: environ[name] for name in variables if name in environ}
    Settings.read(found)
    return found


def variable_of(setting: str) -> str:
    """Give the environment variable of a setting."""
    return _NAMED.get(setting, f"SHARDS_{setting.upper()}")


def _values(read: type[Settings | Launch], environ: Mapping[str, str]) -> dict[str, Any]:
    """Read what the environment says; what it does not say keeps its default."""
    said = {one.name: (variable_of(one.name), str(one.type)) for one in fields(read)}
    return {name: _parse(var, environ[var], kind) for name, (var, kind) in said.items() if var in environ}


def _parse(variable: str, text: str, kind: str) -> str | float:
    if kind == "str":
        return text
    if kind == "bool":
        if text not in ("0", "1"):
            raise UsageError(f"{variable} must be 0 or 1, not {text!r}")
        return text == "1"
    try:
        number = int(text) if kind == "int" else float(text)
    except ValueError:
        raise UsageError(f"{variable} must be a number, not {text!r}") from None
    if not 0 <= number < float("inf"):
        raise UsageError(f"{variable} must not be negative: {text}")
    if number == 0 and variable not in _MAY_BE_ZERO:
        raise UsageError(f"{variable} must be more than 0")
    return number
