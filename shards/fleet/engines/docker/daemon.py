"""The Docker daemon: how it is reached, what it can give, and its errors as one line."""

from __future__ import annotations

import contextlib
import os
import re
import socket
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from urllib.parse import urlsplit

import docker
import requests
from docker.errors import APIError, DockerException, ImageNotFound
from docker.types import Ulimit

from shards.errors import ShardsError, UsageError

OLDEST_API = (1, 41)
"""Docker 20.10: older ones give no figures of a container at once, and a swarm's services no limits of files."""

_SOCKET = "/var/run/docker.sock"
_TCP = ("tcp", "http", "https")
_ANSWER_S = 60


def connect() -> docker.DockerClient:
    """Connect to the daemon that the environment names (`DOCKER_HOST`), by default the one of this host.

    Raises:
        ShardsError: there is none, it may not be used, or it is too old.
    """
    _knock()
    with errors():
        version = _version()
        if tuple(map(int, version.split(".")[:2])) < OLDEST_API:
            raise ShardsError(f"the Docker daemon speaks API {version}: it must be 20.10 or newer (API 1.41)")
        return docker.from_env(version=version, timeout=_ANSWER_S)


def _knock() -> None:
    """See whether anybody listens, before the SDK does: where nobody does, it leaves its socket open."""
    scheme, _, path = os.environ.get("DOCKER_HOST", f"unix://{_SOCKET}").partition("://")
    if scheme != "unix":
        return
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(path)
        except OSError as error:
            raise ShardsError(unreachable(repr(error))) from None


def refuse_elsewhere() -> None:
    """Refuse a daemon of another host, where it is asked for containers that mount files of this one.

    Raises:
        UsageError: `DOCKER_HOST` names one.
    """
    if where := elsewhere():
        raise UsageError(
            f"DOCKER_HOST names {where}: the docker engine needs the daemon of this host, since containers mount its "
            "files; unset DOCKER_HOST, or use --engine swarm for other hosts"
        )


def elsewhere() -> str | None:
    """Name the daemon of another host that `DOCKER_HOST` names; None: it names this one's."""
    url = os.environ.get("DOCKER_HOST", "")
    try:
        found = urlsplit(url if "://" in url else f"tcp://{url}")
    except ValueError:
        return None
    # What the end of an ssh is cannot be told, not even where it is called localhost.
    remote = found.scheme == "ssh" or (found.scheme in _TCP and found.hostname and not _is_here(found.hostname))
    return f"{found.scheme}://{found.hostname}" if remote else None


def _is_here(host: str) -> bool:
    """Tell whether a host is this one: nobody can bind another's address."""
    with contextlib.suppress(OSError):
        for family, kind, _, _, address in socket.getaddrinfo(host, 0, type=socket.SOCK_DGRAM):
            with socket.socket(family, kind) as probe, contextlib.suppress(OSError):
                probe.bind(address)
                return True
    return False


def _version() -> str:
    # Asked by a client of its own: one that finds out by itself leaves a socket open where it fails.
    client = docker.from_env(version=".".join(map(str, OLDEST_API)), timeout=_ANSWER_S)
    try:
        return str(client.version(api_version=False)["ApiVersion"])
    finally:
        client.close()


def unreachable(reason: str) -> str:
    """Say why there is no daemon to talk to, and what to do."""
    where = os.environ.get("DOCKER_HOST", f"the default socket, {_SOCKET}")
    if "Read timed out" in reason:
        waited = re.search(r"read timeout=(\d+)", reason)
        return (
            f"the Docker daemon at {where} did not answer within {waited[1] if waited else _ANSWER_S} s: it is busy or "
            "hangs; see whether `docker ps` answers, then run this again"
        )
    if "Permission denied" in reason or "PermissionError" in reason:
        return f"this user may not use Docker at {where}: join the group `docker`, or run the command as root"
    if "FileNotFoundError" in reason or "No such file" in reason or "refused" in reason:
        return f"no Docker daemon answers at {where}: start Docker, or use --engine local"
    if "is too old" in reason or "too new" in reason:
        return f"the Docker daemon does not speak our API: {_short(reason)}; it must be 20.10 or newer"
    return f"no Docker daemon answers at {where}: {_short(reason)}; start Docker, or use --engine local"


@contextlib.contextmanager
def errors() -> Iterator[None]:
    """Let errors of the daemon through as ours, a line each."""
    try:
        yield
    except ImageNotFound as error:
        raise ShardsError(_no_image(_short(error.explanation or str(error)))) from None
    except APIError as error:
        raise ShardsError(_explained(reason_of(error))) from None
    except (DockerException, requests.RequestException) as error:
        raise ShardsError(unreachable(str(error))) from None


def reason_of(error: APIError) -> str:
    """Give what a daemon says of an error, in one line."""
    return _short(str(error.explanation or error))


def not_all(what: str, left: Sequence[str]) -> str:
    """Say that not all of something is deleted.

    Args:
        what: its name, in the plural.
        left: why some are still there, a line each.
    """
    return f"not all {what} are deleted, run this again: {_short('; '.join(left))}"


def _no_image(said: str) -> str:
    # By the names that `stack` gives them: without --project another fleet's would be made.
    named = re.search(r"shards-(?:(?:redis|edge):([\w.-]+)|app:([\w.-]+)-dev\b)", said)
    project = (named[1] or named[2]) if named else "NAME"
    return f"{said}; `inv build --project {project}` makes it"


def _explained(text: str) -> str:
    taken = re.search(r'container name "/?([^"]+)" is already in use', text)
    if taken:
        return (
            f"a container {taken[1]} is there that is none of this fleet: `docker rm -f {taken[1]}`, or --project NAME"
        )
    port = re.search(r"(?:Bind for|listen tcp4?) [\d.]+:(\d+)", text)
    if port:
        return f"port {port[1]} is in use; choose another with --port, or `inv up` again where it is none of yours"
    if "no space left on device" in text:
        return "the disk of Docker is full: free some (`docker system df` says what takes it), then run this again"
    return f"Docker says: {text}"


def _short(text: str) -> str:
    return " ".join(text.split())[:300]


def descriptors(client: docker.DockerClient, image: str, wanted: int) -> int:
    """Find out how many files a container may open: as many as wanted, or what the daemon has itself.

    Args:
        client: of the daemon.
        image: to try it with.
        wanted: what would be enough.

    Raises:
        ShardsError: the image is not there, or the daemon fails.
    """
    limit = Ulimit(name="nofile", soft=wanted, hard=wanted)
    with errors():
        try:
            run_once(client, image, ["-c", "true"], entrypoint="sh", ulimits=[limit])
            return wanted
        except APIError as error:
            if "rlimit" not in str(error.explanation):
                raise
        said = run_once(client, image, ["-c", "ulimit -Hn"], entrypoint="sh").stdout
    return min(wanted, int(said)) if said.strip().isdigit() else wanted


@dataclass(frozen=True)
class Done:
    """How a program in a container ended."""

    code: int
    stdout: bytes
    stderr: bytes


class TookTooLong(ShardsError):
    """A program in a container was not through in time."""

    def __init__(self, command: Sequence[str], image: str, within_s: float) -> None:
        super().__init__(f"`{' '.join(command)[:60]}` in {image} took more than {within_s:.0f} s")


def run_once(
    client: docker.DockerClient,
    image: str,
    command: Sequence[str],
    within_s: float = _ANSWER_S,
    entrypoint: str | None = None,
    environment: Mapping[str, str] = MappingProxyType({}),
    ulimits: Sequence[Ulimit] = (),
) -> Done:
    """Run a program in a container without a network, of which nothing is left.

    Args:
        client: of the daemon.
        image: to run it in.
        command: the program, or what the entrypoint is told.
        within_s: how long it may take, in seconds.
        entrypoint: what runs instead of the image's own.
        environment: what it is told.
        ulimits: its limits.

    Raises:
        TookTooLong: it takes longer.
        DockerException: the image is not there, it could not be started, or the daemon fails; see `errors`.
    """
    container = client.containers.create(
        image,
        list(command),
        entrypoint=entrypoint,
        environment=dict(environment),
        ulimits=list(ulimits),
        network_mode="none",
        labels={"shards.fleet": ""},
    )
    try:
        container.start()
        try:
            code = int(container.wait(timeout=within_s)["StatusCode"])
        except requests.RequestException as error:
            if "timed out" not in str(error):
                raise
            raise TookTooLong(command, image, within_s) from None
        return Done(code, container.logs(stderr=False), container.logs(stdout=False))
    finally:
        # Also one that could not be started is there. Its image may have it mount a volume without a name.
        with contextlib.suppress(APIError):
            container.remove(force=True, v=True)


def cpus(client: docker.DockerClient) -> float:
    """Tell how many cores the daemon's host has."""
    with errors():
        return float(client.info()["NCPU"])
