"""What a fleet shall be, as a value: read from flags and settings, and checked.

Pure: nothing here looks at a host. Limits of the host (the descriptor limit) are arguments.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import Literal, get_args

from shards.descriptors import MOST_EDGES, sockets_per_edge
from shards.errors import UsageError
from shards.fleet.shard_list import External, Wanted, read_externals

Color = Literal["blue", "green"]
COLORS: tuple[Color, ...] = get_args(Color)

ENGINES = ("local", "docker", "swarm")

DURABILITIES = ("everysec", "always", "replicated")

REFERENCE_APP = "app.asgi:application"

_PROJECT = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}\Z")
_APP = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*\Z")

# setting → (least, most, why not more)
_BOUNDS = {
    "replicas": (1, 64, "each is a process of its own on this host; add --workers or hosts instead"),
    "shards": (1, 64, "each is a Redis server of its own, and there are 1,024 slots to share"),
    "workers": (1, 32, "more processes than a host has cores only take memory"),
    "edges": (1, MOST_EDGES, "one edge carries thousands of sockets; `auto` counts how many it takes"),
    "port": (1, 65535, "there is no such port"),
    "connections": (1, 1_000_000, "one host does not hold more; spread them over several"),
    "hsts_seconds": (0, 63_072_000, "that is two years"),
    "address_connects": (0, 1_000_000, "0 is any number"),
    "address_sockets": (0, 1_000_000, "0 is any number"),
}
_READ_APART = {"edges", "shards", "hsts_seconds"}


@dataclass(frozen=True)
class FleetSpec:
    """What a fleet shall be.

    Attributes:
        project: names the fleet: 1-32 of ``a-z 0-9 _ -``.
        engine: where it runs.
        replicas: app servers of a color.
        shards: Redis servers that own slots: so many of our own, or those that run elsewhere.
        workers: processes of a replica.
        edges: proxies that share the port.
        app: the ASGI application, ``module:attribute``.
        app_dir: the directory it is imported from, absolute.
        host: the address the edges listen on.
        port: the port they listen on.
        connections: the sockets it shall hold; `edges` is counted from it where it is ``auto``.
        durability: what an ack of a message says: ``everysec``: its shard has written it, and syncs each second;
            ``always``: its shard has synced it; ``replicated``: two servers have it.
        tls_certificate: the file with the certificate that the edges show, and those between it and its root, PEM;
            empty: the edges speak plain HTTP.
        tls_key: the file with its private key.
        hsts_seconds: for so long browsers that came by TLS come by nothing else to this host's name
            (Strict-Transport-Security); 0: what they were told of that is taken back; None: edges tell them nothing.
        address_connects: requests a second that one address may make at an edge, twice that at once; 0: any number.
        address_sockets: sockets that one address may open at an edge from one change of its route (a promote) to the
            next, those not counted that are closed; 0: any number.
    """

    project: str = "shards"
    engine: str = "local"
    replicas: int = 3
    shards: Wanted = 2
    workers: int = 1
    edges: int = 1
    app: str = REFERENCE_APP
    app_dir: str = "."
    host: str = "127.0.0.1"
    port: int = 8000
    connections: int = 10_000
    durability: str = "everysec"
    tls_certificate: str = ""
    tls_key: str = ""
    hsts_seconds: int | None = None
    address_connects: int = 0
    address_sockets: int = 0

    @property
    def url(self) -> str:
        """Where the fleet answers."""
        return f"{'https' if self.tls_certificate else 'http'}://{self.address}:{self.port}"

    @property
    def address(self) -> str:
        """The address at which this host itself reaches the edges."""
        return "127.0.0.1" if self.host in {"", "0.0.0.0"} else self.host

    @classmethod
    def read(
        cls, values: Mapping[str, object], descriptors: int, variables: Mapping[str, str] = MappingProxyType({})
    ) -> FleetSpec:
        """Make a spec of flags and settings, numbers given as text or not.

        Args:
            values: by the attributes' names; `edges` may be ``auto``, `shards` a list of URLs.
            descriptors: how many files a process of the host may open (the hard limit).
            variables: of the environment, by the attributes' names, that values come from, for messages.

        Raises:
            UsageError: a value makes no sense.
        """
        said = {name: f"{_flag(name)} ({variable})" for name, variable in variables.items()}
        text = {field.name: _text(values.get(field.name, field.default)) for field in fields(cls)}
        _check_names(text, said)
        numbers = {name: _number(name, text[name], said) for name in _BOUNDS if name not in _READ_APART}
        hsts = _number("hsts_seconds", text["hsts_seconds"], said) if text["hsts_seconds"] else None
        if text["edges"] == "auto":
            numbers["edges"] = edges_for(numbers["connections"], descriptors)
        else:
            numbers["edges"] = _number("edges", text["edges"], said)
        shards = _shards(values.get("shards", 2), said)
        if text["durability"] == "replicated" and not isinstance(shards, int):
            raise UsageError(
                "--durability replicated is for shards of the fleet's own, whose copies it keeps: "
                "give --shards a number, or choose everysec or always"
            )
        return cls(**text | numbers | {"shards": shards, "hsts_seconds": hsts})  # type: ignore[arg-type]

    def differences(self, other: FleetSpec) -> set[str]:
        """Give the attributes in which two specs differ."""
        return {f.name for f in fields(self) if getattr(self, f.name) != getattr(other, f.name)}


def edges_for(connections: int, descriptors: int) -> int:
    """Count the edges it takes to hold so many sockets.

    Args:
        connections: sockets.
        descriptors: how many files a process may open.

    Raises:
        UsageError: no sensible number of edges does.
    """
    held = sockets_per_edge(descriptors)
    if held < 1 or connections > held * MOST_EDGES:
        raise UsageError(
            f"{connections:,} connections do not fit: an edge may open {descriptors:,} files (2 a socket) and a host "
            f"takes {MOST_EDGES} edges; raise the hard nofile limit, or lower `connections`"
        )
    return -(-connections // held)


def other_color(color: Color) -> Color:
    """Give the color that is not `color`."""
    return "green" if color == "blue" else "blue"


def one_of(values: Iterable[str]) -> str:
    """Write a choice of names for a message."""
    *most, last = values
    return f"{', '.join(most)} or {last}" if most else last


def _flag(name: str) -> str:
    return name if name == "connections" else f"--{name.replace('_', '-')}"


def _text(value: object) -> str:
    return "" if value is None else str(value).strip()


def _check_names(text: Mapping[str, str], said: Mapping[str, str]) -> None:
    named = {name: said.get(name, _flag(name)) for name in text}
    if not _PROJECT.match(text["project"]):
        rule = "1-32 of a-z 0-9 _ - and starts with a letter or digit"
        raise UsageError(f"{named['project']} is {rule}, not {text['project']!r}")
    for name, choices in (("engine", ENGINES), ("durability", DURABILITIES)):
        if text[name] not in choices:
            origin = f", which {said[name]} names" if name in said else ""
            raise UsageError(f"there is no {name} {text[name]!r}{origin}: choose {one_of(choices)}")
    if not _APP.match(text["app"]):
        raise UsageError(
            f"{named['app']} is module:attribute, for instance mysite.asgi:application, not {text['app']!r}"
        )
    if bool(text["tls_certificate"]) != bool(text["tls_key"]):
        raise UsageError(f"{named['tls_certificate']} and {named['tls_key']} go together: give both, or neither")
    if text["tls_certificate"] and text["engine"] == "swarm":
        raise UsageError("the edges of engine swarm speak no TLS yet: end it before them, at a load balancer")
    # The files that are written for supervisor have no way to quote these.
    if re.search(r'["\r\n]|\s[#;]', text["app_dir"]):
        raise UsageError(f"{named['app_dir']} must not hold quotes, line ends, ' #' or ' ;': {text['app_dir']!r}")


def shards_text(value: object) -> str:
    """Write what is asked for as shards, a list in a configuration file too, as the command line has it."""
    return ",".join(map(str, value)) if isinstance(value, list) else str(value).strip()


def _shards(value: object, said: Mapping[str, str]) -> Wanted:
    if isinstance(value, tuple) and all(isinstance(one, External) for one in value):
        return value
    text = shards_text(value)
    if not re.search("[:/,]", text):
        return _number("shards", text, said)
    externals = read_externals(text)
    _number("shards", str(len(externals)), said)
    return externals


def _number(name: str, text: str, said: Mapping[str, str]) -> int:
    least, most, reason = _BOUNDS[name]
    flag = said.get(name, _flag(name))
    try:
        number = int(text)
    except ValueError:
        kind = "a whole number or auto" if name == "edges" else "a whole number"
        raise UsageError(f"{flag} must be {kind}, not {text!r}") from None
    if number < least:
        raise UsageError(f"{flag} must be {least} or more, not {number}")
    if number > most:
        raise UsageError(f"{flag} must be {most:,} or less, not {number:,}: {reason}")
    return number
