"""What settings a host shall have, and how far it is from them. Pure.

A setting that is better already is left as it is, and which way is better depends on the setting: `Kind`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

from shards.errors import ShardsError

NOFILE = "nofile"
"""Not the kernel's, but of login sessions: files that a process may open."""

NOFILE_WANTED = 65_536

PORT_RANGE, RESERVED_PORTS = "net.ipv4.ip_local_port_range", "net.ipv4.ip_local_reserved_ports"

_FIRST_PORT = 1024
_CHOSEN_BY_KERNEL = range(32_768, 61_000)
"""Where outgoing connections come from unless somebody has said otherwise, and where those listen who ask for any
port: they come and go."""


class Verdict(StrEnum):
    """How a setting stands."""

    RIGHT = "right"
    BETTER = "better"
    CHANGE = "change"
    ABSENT = "absent"
    FORBIDDEN = "forbidden"


class Kind(StrEnum):
    """Which of two values of a setting is the better one."""

    MORE = "the larger"
    LESS = "the smaller"
    RANGE = "the wider range"
    PORTS = "all ports of both"
    EXACT = "the wanted one"


_KINDS = {
    "net.core.somaxconn": Kind.MORE,
    "net.core.netdev_max_backlog": Kind.MORE,
    "net.ipv4.tcp_max_syn_backlog": Kind.MORE,
    "net.ipv4.tcp_fin_timeout": Kind.LESS,
    "net.ipv4.tcp_keepalive_time": Kind.LESS,
    "net.ipv4.tcp_keepalive_probes": Kind.LESS,
    "net.ipv4.tcp_keepalive_intvl": Kind.LESS,
    PORT_RANGE: Kind.RANGE,
    RESERVED_PORTS: Kind.PORTS,
    "net.netfilter.nf_conntrack_max": Kind.MORE,
    "fs.file-max": Kind.MORE,
    "fs.nr_open": Kind.MORE,
    NOFILE: Kind.MORE,
}

_HOST_WIDE = ("net.core.netdev_max_backlog", "net.netfilter.nf_conntrack_max")
_NAMESPACE, _HOST, _SESSIONS = "network namespace", "host", "login sessions"

_ABSENT = {
    "net.netfilter.nf_conntrack_max": "the kernel counts no connections here (nf_conntrack is not loaded)",
    "net.core.netdev_max_backlog": "it is the host's, and a network namespace of its own does not show it",
    NOFILE: "no /etc/security/limits.d, which login sessions read: set LimitNOFILE or ulimits where the service starts",
}
_FORBIDDEN = {
    _NAMESPACE: "read-only here: set it where the container is started (`sysctls`)",
    _HOST: "read-only here, it is the host's: run `inv tune --apply` there",
    _SESSIONS: "no process may raise it here, root neither (no CAP_SYS_RESOURCE): set it where this machine is started",
}


@dataclass(frozen=True)
class Setting:
    """A setting that is wanted.

    Attributes:
        key: as `sysctl` names it.
        value: what it shall be.
        reason: what it is good for.
    """

    key: str
    value: str
    reason: str


@dataclass(frozen=True)
class Difference:
    """How a setting of this host stands to what is wanted.

    Attributes:
        key: its name.
        current: what it is; None: there is none.
        wanted: what it shall be: the best of both.
        verdict: what follows.
        scope: what it is in force for: ``network namespace``, ``host`` or ``login sessions``.
        reason: what it is good for.
        note: why it can't be had.
    """

    key: str
    current: str | None
    wanted: str
    verdict: Verdict
    scope: str
    reason: str
    note: str = ""


def read_settings(text: str) -> list[Setting]:
    """Read settings as ``sysctl.conf`` has them; the comment right above one is its reason.

    Raises:
        ShardsError: a line is neither a comment nor a setting.
    """
    settings, comment = [], ""
    for number, line in enumerate(map(str.strip, text.splitlines()), 1):
        if not line:
            comment = ""
        elif line[0] in "#;":
            comment = f"{comment} {line.lstrip('#; ')}".strip()
        else:
            settings.append(_setting(number, line, comment))
            comment = ""
    return settings


def _setting(number: int, line: str, reason: str) -> Setting:
    match = re.fullmatch(r"([a-z][\w.-]*)\s*=\s*(\S.*)", line)
    if match is None:
        raise ShardsError(f"line {number} of the settings is none: {line!r}; write `name = value`")
    return Setting(match[1], " ".join(match[2].split()), reason)


def reserving(settings: Iterable[Setting], ports: Iterable[int]) -> list[Setting]:
    """Give the settings with more ports reserved, as far as outgoing connections would not have taken them before.

    Args:
        settings: what is wanted.
        ports: that somebody here listens on.
    """
    more = {port for port in ports if port >= _FIRST_PORT and port not in _CHOSEN_BY_KERNEL}
    return [_reserving(one, more) if one.key == RESERVED_PORTS else one for one in settings]


def _reserving(setting: Setting, ports: set[int]) -> Setting:
    known = ports_in(setting.value)
    if ports <= known:
        return setting
    reason = f"{setting.reason} Here also {written_ports(ports - known)}, which are listened on."
    return replace(setting, value=written_ports(known | ports), reason=reason)


def warnings(found: Iterable[Difference]) -> list[str]:
    """Say what changes might do to others on this host."""
    return [
        f"outgoing connections may then come from any port of {one.wanted.replace(' ', '-')} that is not reserved: a "
        f"server that does not run now may find its port taken when it starts; add that to {RESERVED_PORTS} in "
        "docker/sysctl.conf first"
        for one in found
        if one.key == PORT_RANGE and one.verdict is Verdict.CHANGE
    ]


def scope_of(key: str) -> str:
    """Tell what a setting is in force for."""
    if key == NOFILE:
        return _SESSIONS
    return _NAMESPACE if key.startswith("net.") and key not in _HOST_WIDE else _HOST


def difference(setting: Setting, current: str | None, writable: bool) -> Difference:
    """Compare a setting with what it is.

    Args:
        setting: what is wanted.
        current: what there is; None: nothing.
        writable: root may set it here.
    """
    scope = scope_of(setting.key)
    found = Difference(setting.key, current, setting.value, Verdict.RIGHT, scope, setting.reason)
    if current is None:
        note = _ABSENT.get(setting.key, "this kernel does not have it, or does not show it here")
        return replace(found, verdict=Verdict.ABSENT, note=note)
    best = better(setting.key, current, setting.value)
    if best == current:
        return found if current == setting.value else replace(found, wanted=current, verdict=Verdict.BETTER)
    if not writable:
        return replace(found, wanted=best, verdict=Verdict.FORBIDDEN, note=_FORBIDDEN[scope])
    return replace(found, wanted=best, verdict=Verdict.CHANGE)


def better(key: str, current: str, wanted: str) -> str:
    """Give the best of both values of a setting; `current`, unchanged, where nothing is better than that."""
    choose = _CHOOSE[_KINDS.get(key, Kind.EXACT)]
    try:
        best = choose(current, wanted)
    except ValueError:
        return wanted
    return best


def _range(current: str, wanted: str) -> str:
    (low, high), (wanted_low, wanted_high) = (map(int, text.split()) for text in (current, wanted))
    return f"{min(low, wanted_low)} {max(high, wanted_high)}"


def _ports(current: str, wanted: str) -> str:
    have = ports_in(current)
    both = have | ports_in(wanted)
    return current if both == have else written_ports(both)


_CHOOSE: Mapping[Kind, Callable[[str, str], str]] = {
    Kind.MORE: lambda current, wanted: current if int(current) >= int(wanted) else wanted,
    Kind.LESS: lambda current, wanted: current if int(current) <= int(wanted) else wanted,
    Kind.RANGE: _range,
    Kind.PORTS: _ports,
    Kind.EXACT: lambda _, wanted: wanted,
}


def ports_in(text: str) -> set[int]:
    """Read a list of ports as the kernel has it: ``8000-8100,9000``."""
    found: set[int] = set()
    for part in filter(None, text.split(",")):
        low, _, high = part.partition("-")
        found.update(range(int(low), int(high or low) + 1))
    return found


def written_ports(ports: Iterable[int]) -> str:
    """Write a list of ports as the kernel writes it."""
    runs: list[tuple[int, int]] = []
    for port in sorted(ports):
        if runs and runs[-1][1] == port - 1:
            runs[-1] = (runs[-1][0], port)
        else:
            runs.append((port, port))
    return ",".join(str(low) if low == high else f"{low}-{high}" for low, high in runs)


def sysctl_text(values: Mapping[str, str]) -> str:
    """Write the file by which the kernel gets its settings again when the host starts."""
    # The dash: a setting of a module that is not loaded then is no error.
    lines = [f"{'-' if key in _ABSENT else ''}{key} = {value}" for key, value in values.items() if key != NOFILE]
    return "\n".join(["# Written by `inv tune --apply`; `inv tune --revert` takes it away.", *lines, ""])


def limits_text(nofile: str) -> str:
    """Write the file by which login sessions may open so many files; `*` does not include root."""
    lines = [f"{who} {kind} nofile {nofile}" for who in ("*", "root") for kind in ("soft", "hard")]
    return "\n".join(["# Written by `inv tune --apply`; `inv tune --revert` takes it away.", *lines, ""])
