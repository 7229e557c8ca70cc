"""Opens a Docker daemon by its URL: a socket of this host, ssh, or TCP with the TLS that the environment says."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import docker
import requests
from docker.errors import DockerException
from docker.utils import kwargs_from_env

from shards.errors import ShardsError
from shards.fleet.engines.docker.daemon import OLDEST_API
from shards.fleet.engines.swarm import ssh

_KNOCK_S, _KNOCK_BY_SSH_S = 3, 8
"""How long a daemon may take to say that it is there, in seconds; a host far away has to be logged in to first."""

_ANSWER_S = 60
_ANY_API = ".".join(map(str, OLDEST_API))


def reach(url: str) -> docker.DockerClient:
    """Open the daemon at an URL, as DOCKER_HOST has it; whoever closes it closes what leads there.

    Raises:
        ShardsError: it does not answer; says why, in one line.
    """
    tunnel = None
    try:
        if not url.startswith(ssh.SCHEME):
            return _open(arguments(url, os.environ), _KNOCK_S)
        tunnel = ssh.Tunnel(url)
        return _open({"base_url": tunnel.url}, _KNOCK_BY_SSH_S, partial(_Led, tunnel))
    except (ShardsError, DockerException, requests.RequestException, OSError) as error:
        reason = (tunnel.said() if tunnel else "") or " ".join(str(error).split())[:300]
        if tunnel:
            tunnel.close()
        raise ShardsError(f"no Docker daemon answers at {url}: {reason}") from None


def arguments(url: str, environment: Mapping[str, str]) -> dict[str, Any]:
    """Say how the SDK is to open a daemon: by TCP with the TLS of DOCKER_TLS_VERIFY and DOCKER_CERT_PATH.

    Raises:
        docker.errors.TLSParameterError: the files that these name are not there.
    """
    if url.startswith("unix://"):
        return {"base_url": url}
    # An environment that is empty would be taken for none.
    tls = kwargs_from_env({**environment, "DOCKER_HOST": url}).get("tls")
    return {"base_url": url, **({"tls": tls} if tls else {})}


class _Led(docker.DockerClient):
    """One at the end of a tunnel, which ends with it."""

    def __init__(self, tunnel: ssh.Tunnel, **how: Any) -> None:
        super().__init__(**how)
        self._tunnel = tunnel

    def close(self) -> None:
        super().close()
        self._tunnel.close()


def _open(
    how: Mapping[str, Any], knock_s: int, kind: Callable[..., docker.DockerClient] = docker.DockerClient
) -> docker.DockerClient:
    # By a client of its own, which asks in words of any age: one that finds out by itself leaves a socket open where
    # that fails.
    with contextlib.closing(docker.DockerClient(version=_ANY_API, timeout=knock_s, **how)) as asks:
        version = str(asks.version(api_version=False)["ApiVersion"])
    return kind(version=version, timeout=_ANSWER_S, **how)
