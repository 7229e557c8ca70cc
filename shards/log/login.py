"""What redis-py shows a server, asked for at each connect: a password may change while a process runs."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import urlsplit

from redis.credentials import CredentialProvider
from redis.exceptions import ConnectionError as RedisConnectionError

from shards.errors import ShardsError
from shards.settings import Credentials


class Login(CredentialProvider):
    """Gives redis-py what to show.

    Args:
        ask: gives what is shown now; without a password there is no AUTH.
    """

    def __init__(self, ask: Callable[[], Credentials]) -> None:
        self._ask = ask

    def get_credentials(self) -> tuple[str, str]:
        """See `redis.credentials.CredentialProvider`."""
        try:
            shown = self._ask()
        except (OSError, ShardsError) as error:
            # Only its own errors make redis-py drop a connection on which nobody has logged in.
            raise RedisConnectionError(f"cannot read what to show it: {error}") from None
        return (shown.username, shown.password) if shown.password else ()  # type: ignore[return-value]

    async def get_credentials_async(self) -> tuple[str, str]:
        """See `redis.credentials.CredentialProvider`; what it does where this is left out warns each time."""
        return self.get_credentials()


def login_at(url: str, ask: Callable[[], Credentials]) -> Login | None:
    """Give the login of the server at `url`; None where the url itself says what to show, which wins."""
    parts = urlsplit(url)
    return None if parts.username or parts.password else Login(ask)
