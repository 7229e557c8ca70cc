"""What a process of a fleet is told by its environment."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path

import msgspec

from shards.errors import UsageError


@dataclass(frozen=True)
class Credentials:
    """What a Redis server is shown; without a password there is no AUTH."""

    username: str = "default"
    password: str = field(default="", repr=False)


@dataclass(frozen=True)
class Settings:
    """The environment, read.

    Attributes:
        message_redis_url: MESSAGE_REDIS_URL: the shared control Redis.
        channel_redis_url: CHANNEL_REDIS_URL: the color's own Redis.
        redis_password_file: SHARDS_REDIS_PASSWORD_FILE: the password of all of them; empty: none.
        shard_credentials_file: SHARDS_SHARD_CREDENTIALS_FILE: of shards that have others, JSON by URL; empty: none has.
        color: COLOR.
        replica: SHARDS_REPLICA.
        release: SHARDS_RELEASE.
        history_messages: SHARDS_HISTORY_MESSAGES: messages a group's log keeps.
        history_seconds: SHARDS_HISTORY_SECONDS: for how long it keeps them.
        idle_seconds: SHARDS_IDLE_SECONDS: after which a group that nobody reads or writes is forgotten.
        dedupe_seconds: SHARDS_DEDUPE_SECONDS: within which a repeated id is delivered once.
        publish_seconds: SHARDS_PUBLISH_SECONDS: after which a publish that no shard takes is refused.
        message_bytes: SHARDS_MESSAGE_BYTES: the largest `data` of a message.
        send_budget_bytes: SHARDS_SEND_BUDGET_BYTES: unsent bytes after which a slow reader is closed.
        rate_limit: SHARDS_RATE_LIMIT: frames a second a socket may send; 0: any number.
        groups_per_socket: SHARDS_GROUPS_PER_SOCKET: how many groups a socket may subscribe.
        ping_seconds: SHARDS_PING_SECONDS: silence after which a client is pinged; unanswered for as long, it is closed.
        max_connections: SHARDS_MAX_CONNECTIONS: sockets a worker holds before it answers 503; 0: any number.
        allowed_origins: SHARDS_ALLOWED_ORIGINS: origins, comma-separated, that may connect besides our own; ``*``: any.
        token_key_file: SHARDS_TOKEN_KEY_FILE: the keys of tokens, one a line, the first signs; empty: no token is good.
        require_token: SHARDS_REQUIRE_TOKEN: whether a client needs a token to connect: 0 or 1.
    """

    message_redis_url: str = "redis://127.0.0.1:6379/0"
    channel_redis_url: str = "redis://127.0.0.1:6379/0"
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
    groups_per_socket: int = 100
    ping_seconds: float = 20.0
    max_connections: int = 0
    allowed_origins: str = ""
    token_key_file: str = ""
    require_token: bool = False

    @classmethod
    def read(cls, environ: Mapping[str, str] = os.environ) -> Settings:
        """Read the settings from `environ`.

        Raises:
            UsageError: a number is not one, negative, or 0 where that makes no sense.
        """
        values: dict[str, str | float] = {}
        for setting in fields(cls):
            variable = variable_of(setting.name)
            if variable in environ:
                values[setting.name] = _parse(variable, environ[variable], str(setting.type))
        return cls(**values)  # type: ignore[arg-type]

    def redis_password(self) -> str | None:
        """Read the password of the fleet's Redis servers; None where there is none."""
        return Path(self.redis_password_file).read_text().strip() if self.redis_password_file else None

    def credentials(self, url: str) -> Credentials:
        """Read what the shard at `url` is shown, anew each time: shards come, and passwords change, while one runs."""
        if self.shard_credentials_file:
            others = read_credentials(Path(self.shard_credentials_file))
            if url in others:
                return others[url]
        return Credentials(password=self.redis_password() or "")


def read_credentials(path: Path) -> dict[str, Credentials]:
    """Read what shards are shown, by URL, from a file of JSON."""
    return msgspec.json.decode(path.read_bytes(), type=dict[str, Credentials])


_MAY_BE_ZERO = {"SHARDS_RATE_LIMIT", "SHARDS_MAX_CONNECTIONS"}
_UNPREFIXED = {"color", "message_redis_url", "channel_redis_url"}


def variable_of(setting: str) -> str:
    """Give the environment variable of a setting."""
    return setting.upper() if setting in _UNPREFIXED else f"SHARDS_{setting.upper()}"


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
