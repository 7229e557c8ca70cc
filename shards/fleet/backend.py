"""What a backend does with a fleet: tokens, and messages over its HTTP API."""

from __future__ import annotations

import http.client
import json
from typing import Any
from urllib.parse import urlsplit

from shards.checks import Refused, checked_group, checked_id
from shards.errors import ShardsError, UsageError
from shards.fleet import certificate
from shards.fleet.state import FleetDir
from shards.tokens import Grant, KeyFile, grant_of

_SUBJECT = "inv"
"""Whose ids `publish` uses: the same id again is the same message, also in another run."""

_TOKEN_SECONDS = 60
_ANSWER_SECONDS = 45.0
"""A fleet refuses what it can't store within SHARDS_PUBLISH_SECONDS, 30 by default."""


def token(directory: FleetDir, grant: Grant, seconds: float) -> tuple[str, int]:
    """Make a token for a fleet.

    Args:
        directory: of the fleet; it has the key.
        grant: what the token shall grant.
        seconds: for how long it shall be good.

    Returns:
        The token, and when it expires, seconds since 1970.

    Raises:
        ShardsError: the fleet has no key yet.
        UsageError: its key makes no sense.
    """
    if not directory.token_key_file.exists():
        project = directory.project
        raise ShardsError(f"fleet {project} has no key for tokens yet: `inv up --project {project}` makes one")
    return KeyFile(directory.token_key_file).sign(grant, seconds)


def message(group: str, data: str, id: str | None) -> bytes:
    """Give the body of a publish.

    Raises:
        UsageError: `group` or `id` can't be one, or `data` is no JSON.
    """
    try:
        checked_group(group)
        body = {"data": json.loads(data, parse_constant=_no_constant)} | ({} if id is None else {"id": checked_id(id)})
    except Refused as refused:
        raise UsageError(str(refused)) from None
    except (ValueError, RecursionError):
        raise UsageError('--data must be JSON, for instance \'{"text": "hello"}\' or \'"hello"\'') from None
    return json.dumps(body).encode()


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def publish(directory: FleetDir, url: str, group: str, body: bytes) -> int:
    """Publish a message through a fleet's edges; gives its offset.

    Args:
        directory: of the fleet.
        url: where it answers.
        group: a valid name.
        body: from `message`.

    Raises:
        ShardsError: it was not stored, or nobody can tell.
        UsageError: the fleet says that it never will be.
    """
    bearer, _ = token(directory, grant_of([group], ["publish"], _SUBJECT), _TOKEN_SECONDS)
    headers = {"Authorization": f"Bearer {bearer}", "Content-Type": "application/json"}
    connection = _connection(directory, url)
    try:
        connection.request("POST", f"/api/groups/{group}/messages", body, headers)
        answer = connection.getresponse()
        return _offset(answer.status, answer.read())
    except (OSError, http.client.HTTPException) as error:
        raise ShardsError(
            f"no answer from {url}: {error or type(error).__name__}; `inv status` says what runs"
        ) from None
    finally:
        connection.close()


def _connection(directory: FleetDir, url: str) -> http.client.HTTPConnection:
    place = urlsplit(url)
    if place.scheme == "http":
        return http.client.HTTPConnection(place.netloc, timeout=_ANSWER_SECONDS)
    tls = certificate.trusting(directory.certificate_file)
    return http.client.HTTPSConnection(place.netloc, timeout=_ANSWER_SECONDS, context=tls)


def _offset(status: int, body: bytes) -> int:
    said: Any = None
    try:
        said = json.loads(body)
        if status == 200:
            return int(said["offset"])
        reason = str(said["error"])
    except (ValueError, KeyError, TypeError):
        reason = f"status {status}"
    raise (UsageError if status in (400, 413) else ShardsError)(f"not published: {reason}")
