"""What goes into the images."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import requests
from docker.errors import APIError, BuildError, ImageNotFound

from shards.errors import ShardsError
from shards.fleet.engines.docker.daemon import TookTooLong, run_once
from shards.fleet.engines.docker.images import Images
from shards.fleet.engines.docker.options import DockerOptions
from shards.fleet.spec import FleetSpec
from tests.fleet.runner import ROOT


def test_the_same_sources_give_the_same_wheel(tmp_path: Path) -> None:
    """Else each `inv up` of each fleet would have Docker install it anew."""
    client: Any = None
    images = Images(client, FleetSpec("t"), DockerOptions(ROOT), tmp_path, lambda _: None)
    wheels = []
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        images._own_wheel(tmp_path / name)
        wheels += [(wheel.name, wheel.read_bytes()) for wheel in (tmp_path / name).iterdir()]
    assert len(wheels) == 2
    assert wheels[0] == wheels[1]


class Builds:
    """A daemon that has every image, and whose builds end in some way each."""

    def __init__(self, *ends: str) -> None:
        self.ends = list(ends)
        self.images = self

    def get(self, name: str) -> str:
        return name

    def build(self, **_: object) -> None:
        if end := self.ends.pop(0):
            raise BuildError(end, [])


LOST = "failed to export image: failed to set parent sha256:95: unknown parent image ID sha256:95"


def test_a_build_whose_cache_another_fleet_takes_away_is_tried_again(tmp_path: Path) -> None:
    daemon: Any = Builds(LOST, "", "")
    Images(daemon, FleetSpec("t"), DockerOptions(ROOT), tmp_path, lambda _: None).build_servers()
    assert daemon.ends == []


@pytest.mark.parametrize(("ends", "left"), [((LOST,) * 4, 1), (("a step failed", ""), 1)])
def test_a_build_that_fails_by_itself_is_told(tmp_path: Path, ends: tuple[str, ...], left: int) -> None:
    daemon: Any = Builds(*ends)
    images = Images(daemon, FleetSpec("t"), DockerOptions(ROOT), tmp_path, lambda _: None)
    with pytest.raises(ShardsError, match="could not be built"):
        images.build_servers()
    assert len(daemon.ends) == left


class FakeContainer:
    """A container of a daemon that may fail."""

    def __init__(self, started: Exception | None = None, ended: Exception | None = None) -> None:
        self.started, self.ended = started, ended
        self.removed = False

    def start(self) -> None:
        if self.started:
            raise self.started

    def wait(self, timeout: float) -> dict[str, int]:
        if self.ended:
            raise self.ended
        return {"StatusCode": 127}

    def logs(self, **asked: bool) -> bytes:
        return b""

    def remove(self, force: bool, v: bool) -> None:
        self.removed = True


class FakeDaemon:
    """A daemon which has every image, and gives one container."""

    def __init__(self, container: FakeContainer) -> None:
        self.container = container
        self.images = self.containers = self

    def get(self, image: str) -> None:
        pass

    def create(self, image: str, command: list[str], **rest: object) -> FakeContainer:
        return self.container


def _said(text: str) -> APIError:
    return APIError("500 Server Error", explanation=text)


@pytest.mark.parametrize(
    ("container", "told"),
    [
        (lambda: FakeContainer(_said('exec: "python": executable file not found in $PATH')), "has no `python`"),
        (lambda: FakeContainer(_said("crun: executable file `python` not found")), "has no `python`"),
        (lambda: FakeContainer(_said('exec: "/run": stat /run: no such file or directory')), "has no `python`"),
        (FakeContainer, "has no `python`"),
        (
            lambda: FakeContainer(_said("write /var/lib/docker/x: no space left on device")),
            "the disk of Docker is full",
        ),
        (lambda: FakeContainer(_said("open /var/lib/docker/x: no such file or directory")), "Docker says: open /var"),
        (lambda: FakeContainer(ended=requests.ConnectionError("Connection aborted")), "no Docker daemon answers"),
    ],
    ids=["none", "none, of crun", "no entrypoint", "fails", "disk full", "a file of the daemon's", "restarted"],
)
def test_why_there_is_no_python_is_told_as_it_is(
    tmp_path: Path, container: Callable[[], FakeContainer], told: str
) -> None:
    made = container()
    client: Any = FakeDaemon(made)
    images = Images(client, FleetSpec("t"), DockerOptions(ROOT), tmp_path, lambda _: None)
    with pytest.raises(ShardsError, match=told):
        images._base_python()
    assert made.removed


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (requests.ReadTimeout("UnixHTTPConnectionPool: Read timed out. (read timeout=20)"), TookTooLong),
        (requests.ConnectionError("UnixHTTPConnectionPool: Read timed out."), TookTooLong),
        (requests.ConnectionError("Connection aborted: RemoteDisconnected"), requests.ConnectionError),
    ],
)
def test_only_what_took_too_long_is_said_to_have(error: Exception, told: type[Exception]) -> None:
    client: Any = FakeDaemon(FakeContainer(ended=error))
    with pytest.raises(told):
        run_once(client, "image", ["true"])


class EmptyDaemon:
    """A daemon which lacks one image, and can't have it from anywhere."""

    def __init__(self, lacks: str) -> None:
        self.lacks = lacks
        self.images = self

    def get(self, image: str) -> None:
        if image == self.lacks:
            raise ImageNotFound("404 Client Error")

    def pull(self, image: str) -> None:
        raise _said("no route to host")


@pytest.mark.parametrize("setting", ["python_image", "redis_image", "traefik_image"])
def test_a_base_image_that_is_not_there_is_told_with_the_setting_that_names_it(tmp_path: Path, setting: str) -> None:
    options = DockerOptions(ROOT, **{setting: "local/none:1"})  # type: ignore[arg-type]
    client: Any = EmptyDaemon("local/none:1")
    images = Images(client, FleetSpec("t"), options, tmp_path, lambda _: None)
    with pytest.raises(ShardsError, match=r"local/none:1 is not there .*no route to host") as told:
        images.build_servers()
    assert set(re.findall(r"INVOKE_\w+", str(told.value))) == {f"INVOKE_DOCKER_{setting.upper()}"}
