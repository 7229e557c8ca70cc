"""How a generator process on another host joins a coordinator: over TCP, and each proves that it has the secret.

Both throw in a number used once; each answers with an HMAC over both numbers and what it says of itself. The secret is
never sent, and what was overheard proves nothing a second time. The worker wants a proof too: whoever could pretend to
be its coordinator could have it load anything. What follows is neither encrypted nor signed: meant for a network whose
hosts trust each other, or for a tunnel.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import secrets
import socket
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from shards.errors import UsageError

HANDSHAKE_SECONDS = 10.0
_LEAST_SECRET = 16
_LINE_BYTES = 4096
_KEEPALIVE = {socket.TCP_KEEPIDLE: 10, socket.TCP_KEEPINTVL: 5, socket.TCP_KEEPCNT: 4}


class Challenge(msgspec.Struct, tag=True):
    """The coordinator's number."""

    nonce: str


class Join(msgspec.Struct, tag=True):
    """A process wants to join.

    Attributes:
        worker: names the worker that it is of; another one each time.
        host: what its host calls itself.
        index, of: which of the worker's processes it is, and how many those are.
        nonce: its number.
        proof: that it has the secret.
    """

    worker: str
    host: str
    index: int
    of: int
    nonce: str
    proof: str = ""


class Welcome(msgspec.Struct, tag=True):
    """It may; `proof` says that the coordinator has the secret as well."""

    proof: str


class Refused(msgspec.Struct, tag=True):
    """It may not."""

    why: str


Greeting = Challenge | Join | Welcome | Refused

_decode = msgspec.json.Decoder(Greeting).decode


def new_nonce() -> str:
    """Give a number used once."""
    return secrets.token_hex(16)


def worker_proof(secret: bytes, challenge: Challenge, join: Join) -> str:
    """Give the proof for all that `join` says."""
    return _proof(secret, "worker", challenge.nonce, join.nonce, join.worker, join.host, join.index, join.of)


def coordinator_proof(secret: bytes, challenge: Challenge, join: Join) -> str:
    """Give the coordinator's proof in answer to `join`."""
    return _proof(secret, "coordinator", challenge.nonce, join.nonce)


def same(given: str, expected: str) -> bool:
    """Compare two proofs in a time that does not tell how far they agree."""
    return hmac.compare_digest(given.encode(), expected.encode())


def _proof(secret: bytes, *said: str | int) -> str:
    return hmac.digest(secret, json.dumps(said).encode(), "sha256").hex()


def read_secret(path: Path | None) -> bytes:
    """Read the secret that workers and coordinator share.

    Raises:
        UsageError: there is none, or it is too short.
    """
    if path is None:
        raise UsageError("workers and their coordinator share a secret: --secret-file FILE, the same on all hosts")
    try:
        secret = path.read_bytes().strip()
    except OSError as error:
        raise UsageError(f"cannot read the secret in {path}: {error.strerror}") from error
    if len(secret) < _LEAST_SECRET:
        raise UsageError(f"the secret in {path} is too short: make one with `openssl rand -hex 32 > {path}`")
    return secret


def tcp_address(text: str) -> tuple[str, int]:
    """Read ``tcp://host:port``.

    Raises:
        UsageError: it is none.
    """
    try:
        parts = urlsplit(text)
        if parts.scheme == "tcp" and parts.hostname and parts.port is not None and not parts.path.strip("/"):
            return parts.hostname, parts.port
    except ValueError:
        pass
    raise UsageError(f"{text!r} is no address to join at: write for instance tcp://10.0.0.1:7000")


def say(writer: asyncio.StreamWriter, greeting: Greeting) -> None:
    """Send a greeting."""
    writer.write(msgspec.json.encode(greeting) + b"\n")


async def hear(reader: asyncio.StreamReader) -> Greeting | None:
    """Give the next greeting; None: it ended, or that is none. A stranger may send no more than a greeting has."""
    line = b""
    while not line.endswith(b"\n"):
        byte = await reader.read(1)
        if not byte or len(line) > _LINE_BYTES:
            return None
        line += byte
    try:
        greeting: Greeting = _decode(line)
    except msgspec.DecodeError:
        return None
    return greeting


def keep_alive(writer: asyncio.StreamWriter) -> None:
    """Have the system find out, within half a minute, that the other host is gone without a word."""
    connection: socket.socket = writer.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in _KEEPALIVE.items():
        connection.setsockopt(socket.IPPROTO_TCP, option, value)
