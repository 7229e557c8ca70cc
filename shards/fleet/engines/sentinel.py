"""The Sentinels of the local engine: their configuration, and what they have written down themselves. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from shards.fleet import accounts
from shards.fleet.accounts import Passwords


def render(*, port: int, directory: Path, good: Passwords) -> str:
    """Write a Sentinel's first configuration; what it shall watch, and finds out, it adds itself.

    Args:
        port: where it shall listen, on loopback only.
        directory: that it may write in.
        good: the passwords of its users.
    """
    lines = [
        "bind 127.0.0.1",
        f"port {port}",
        "daemonize no",
        'logfile ""',
        # A title of its own would overwrite the environment, by which the processes of a fleet are found.
        "set-proc-title no",
        f'dir "{directory}"',
        *accounts.configuration(accounts.sentinel_users(good)),
        f'sentinel sentinel-pass "{good.admin[0]}"',
        "sentinel deny-scripts-reconfig yes",
        "",
    ]
    return "\n".join(lines)


def written_primaries(files: Iterable[str]) -> dict[str, int]:
    """Read the primaries' ports, by their pairs' names, from what the Sentinels wrote down.

    A Sentinel writes a switch down before it tells anyone of it, and every switch has an epoch of its own, greater than
    all before: so what has the greatest epoch is true, be it in one file only.
    """
    newest: dict[str, tuple[int, int]] = {}
    for text in files:
        ports, epochs = _directives(text, "monitor", 4), _directives(text, "config-epoch", 3)
        for name, port in ports.items():
            newest[name] = max(newest.get(name, (-1, 0)), (epochs.get(name, 0), port))
    return {name: port for name, (_, port) in newest.items()}


def _directives(text: str, directive: str, position: int) -> dict[str, int]:
    """Read lines like ``sentinel monitor shared-0 127.0.0.1 6379 2``: the number at a position, by the pair's name."""
    words = (line.split() for line in text.splitlines())
    return {w[2]: int(w[position]) for w in words if w[:2] == ["sentinel", directive] and len(w) > position}


def choose_primary(servers: Sequence[str], last: str | None, with_data: Collection[str]) -> str:
    """Choose which server of a pair shall lead: the other one loses whatever it alone has.

    Args:
        servers: the two, the first of which leads where nothing is known.
        last: which led last.
        with_data: those that have data at all.
    """
    first = last if last is not None and last in servers else servers[0]
    if first in with_data:
        return first
    return next((server for server in servers if server in with_data), first)
