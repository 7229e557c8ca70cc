"""Builds the images: gathers wheels on this host, so that the build itself needs no network, then has Docker build."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import partial
from pathlib import Path

import docker
from docker.errors import APIError, BuildError, ImageNotFound, NotFound
from docker.models.images import Image

from shards.errors import ShardsError
from shards.fleet.engines import app_check
from shards.fleet.engines.docker import stack
from shards.fleet.engines.docker.daemon import TookTooLong, descriptors, errors, reason_of, run_once
from shards.fleet.engines.docker.options import DockerOptions
from shards.fleet.spec import REFERENCE_APP, FleetSpec

_LEFT_OUT = shutil.ignore_patterns(
    ".git", ".venv", "venv", ".nox", ".fleet", "__pycache__", "*.egg-info", "node_modules", "reports", ".*_cache"
)
_BASES = {"python_image": "local/python:3.11", "redis_image": "local/redis:7", "traefik_image": "local/traefik:3.7"}
"""The settings that name what images build on, each with what it could say; a build argument is called the same."""

_TRIES = 3
_LOST_LAYER = re.compile("unknown parent image ID|layer does not exist|No such image: sha256:")
"""What a build ends with whose next layer was in the cache until just now: another fleet's images were deleted."""

_PIP_S = 600
_EPOCH = "315532800"
"""1980, before which there are no times in a wheel."""

_PYTHON = "import sys, sysconfig; print('%d.%d' % sys.version_info[:2], sysconfig.get_platform())"


class Images:
    """The images of one fleet.

    Args:
        client: of the daemon that builds and runs them.
        spec: the fleet's; its app goes into the images.
        options: the base images.
        cache: a directory for wheels.
        say: told of progress.
    """

    def __init__(
        self,
        client: docker.DockerClient,
        spec: FleetSpec,
        options: DockerOptions,
        cache: Path,
        say: Callable[[str], None],
    ) -> None:
        self._client, self._spec, self._options, self._cache, self._say = client, spec, options, cache, say

    def build_servers(self) -> None:
        """Build the images of Redis servers and edges.

        Raises:
            ShardsError: a base image is not there, or the build failed.
        """
        with tempfile.TemporaryDirectory() as context:
            self._copy_docker(Path(context))
            self._build(context, "redis", stack.redis_image(self._spec.project))
            self._build(context, "edge", stack.edge_image(self._spec.project))

    def build_app(self, release: str) -> None:
        """Build the image of a release of the app.

        Raises:
            ShardsError: a base image is not there, or wheels can't be had, or the build failed.
        """
        tag = stack.app_image(self._spec.project, release)
        with tempfile.TemporaryDirectory() as directory:
            context = Path(directory)
            self._copy_docker(context)
            self._gather_wheels(context / "wheelhouse")
            self._copy_app(context / "app")
            self._build(directory, "app", tag)

    def descriptors(self) -> int:
        """Find out how many files a container may open, before there is an image of ours.

        Raises:
            ShardsError: the base image of Redis servers is not there.
        """
        self._need("redis_image")
        return descriptors(self._client, self._options.redis_image, self._options.nofile)

    def check_app(self, release: str) -> str | None:
        """Import the app in its image.

        Returns:
            Its default channel layer, where it has one that is not of this project.

        Raises:
            UsageError: that fails; the message ends with the exception, and where it was raised.
        """
        image, app = stack.app_image(self._spec.project, release), self._spec.app
        settings = {"DJANGO_SETTINGS_MODULE": "app.settings"} if app == REFERENCE_APP else {}
        files = {"SHARDS_SECRET_KEY_FILE": "", **settings}
        program = ["python", "-c", app_check.PROGRAM, app]
        try:
            with errors():
                done = run_once(self._client, image, program, app_check.IMPORT_S, environment=files)
        except TookTooLong:
            raise app_check.too_slow(app) from None
        return app_check.read(app, self._spec.app_dir, done.code, done.stdout, done.stderr)

    # -- what goes into them

    def _copy_docker(self, context: Path) -> None:
        # All of it for each image: a builder without BuildKit also builds the stages it does not need.
        for name in ("Dockerfile", "requirements.txt"):
            shutil.copy(self._options.root / "docker" / name, context)
        shutil.copytree(self._options.root / "docker" / "redis", context / "redis")

    def _copy_app(self, target: Path) -> None:
        source = Path(self._spec.app_dir)
        if source == self._options.root:
            # The reference app is one folder of this project; the project itself comes as a wheel.
            shutil.copytree(source / "app", target / "app", ignore=_LEFT_OUT)
        else:
            shutil.copytree(source, target, ignore=_LEFT_OUT)

    def _gather_wheels(self, target: Path) -> None:
        version, platform = self._base_python()
        requirements = self._options.root / "docker" / "requirements.txt"
        where = _where(version, platform)
        deps = self._cached(f"deps-{version}", [requirements], lambda into: self._download(requirements, into, where))
        shutil.copytree(deps, target / "deps")
        sources = [self._options.root / "pyproject.toml", *(self._options.root / "shards").rglob("*.*")]
        ours = self._cached("shards", sources, self._own_wheel)
        shutil.copytree(ours, target / "shards")
        (target / "app").mkdir()
        theirs = Path(self._spec.app_dir) / "requirements.txt"
        if Path(self._spec.app_dir) != self._options.root and theirs.is_file():
            wheels = self._cached(f"app-{version}", [theirs], lambda into: self._download(theirs, into, where))
            shutil.copytree(wheels, target / "app", dirs_exist_ok=True)

    def _base_python(self) -> tuple[str, str]:
        """Ask the base image for its Python's version and platform, for which wheels are gathered."""
        self._need("python_image")
        said = b""
        with errors():
            try:
                said = run_once(self._client, self._options.python_image, ["python", "-c", _PYTHON]).stdout
            except APIError as error:
                if not _no_such_program(error):
                    raise
        if not said:
            raise ShardsError(f"docker.python_image {self._options.python_image} has no `python` that runs")
        version, _, platform = said.decode().strip().partition(" ")
        return version, platform

    def _cached(self, name: str, sources: Iterable[Path], make: Callable[[Path], None]) -> Path:
        digest = hashlib.blake2b(digest_size=8)
        for source in sorted(source for source in sources if source.is_file() and "__pycache__" not in source.parts):
            digest.update(str(source).encode() + b"\0" + source.read_bytes())
        found = self._cache / f"{name}-{digest.hexdigest()}"
        if not found.exists():
            found.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=found.parent) as directory:
                made = Path(directory) / "wheels"
                made.mkdir()
                make(made)
                for old in found.parent.glob(f"{name}-*"):
                    shutil.rmtree(old, ignore_errors=True)
                made.rename(found)
        return found

    def _download(self, requirements: Path, into: Path, where: list[str]) -> None:
        self._say(f"gathering the wheels of {requirements.name}")
        _pip("wheel" if not where else "download", *where, "-r", str(requirements), into=into)

    def _own_wheel(self, into: Path) -> None:
        self._say("making the wheel of shards")
        with tempfile.TemporaryDirectory() as directory:
            # A copy, since a build leaves its traces beside the sources.
            copy = Path(directory)
            for name in ("pyproject.toml", "README.md", "LICENSE"):
                shutil.copy(self._options.root / name, copy)
            shutil.copytree(self._options.root / "shards", copy / "shards", ignore=_LEFT_OUT)
            _pip("wheel", "--no-deps", str(copy), into=into)

    def _need(self, setting: str) -> None:
        """Have a base image on this host.

        Args:
            setting: which names it.

        Raises:
            ShardsError: it can't be had.
        """
        image = str(getattr(self._options, setting))
        try:
            self._client.images.get(image)
        except ImageNotFound:
            self._say(f"pulling {image}")
            try:
                self._client.images.pull(image)
            except APIError as error:
                raise ShardsError(_no_base(setting, image, error.explanation or error)) from None

    def _build(self, context: str, target: str, tag: str) -> None:
        for setting in _BASES:
            self._need(setting)
        self._say(f"building image {tag}")
        bases = {name.upper(): getattr(self._options, name) for name in _BASES}
        build = partial(
            self._client.images.build,
            path=context,
            target=target,
            tag=tag,
            buildargs={**bases, "FLEET": self._spec.project},
            rm=True,
            forcerm=True,
            network_mode="none",
            labels={stack.FLEET_LABEL: self._spec.project},
        )
        with errors():
            for tries_left in reversed(range(_TRIES)):
                try:
                    build()
                    return
                except BuildError as error:
                    if not (tries_left and _LOST_LAYER.search(str(error))):
                        raise ShardsError(f"image {tag} could not be built: {_reason(error)}") from None


def _reason(error: BuildError) -> str:
    """Say why a build failed, in one line."""
    said = [str(step.get("stream", "")) for step in error.build_log if isinstance(step, dict)]
    wrong = [text for text in said if "ERROR" in text]
    return " ".join((wrong[0] if wrong else str(error)).split())[:300]


def forget_releases(client: docker.DockerClient, project: str, keep: Collection[str]) -> None:
    """Delete a daemon's images of releases of a fleet's app that are over.

    Args:
        client: of the daemon.
        project: the fleet's name.
        keep: tags and ids of those that stay.

    Raises:
        ShardsError: the daemon fails.
    """
    with errors():
        for image in _of_fleet(client, project):
            for name in superfluous(project, str(image.id), image.tags, keep):
                # A container that has ended may still be of it: then it goes after the next promote.
                with contextlib.suppress(APIError):
                    client.images.remove(name)


def forget_all(client: docker.DockerClient, project: str) -> list[str]:
    """Delete all images of a fleet, those too that have no name: newer ones took it, or they are a stage of others.

    Args:
        client: of the daemon.
        project: the fleet's name.

    Returns:
        Why some are still there, a line each.

    Raises:
        DockerException: the daemon fails; see `errors`.
    """
    left = []
    for image in [*_of_fleet(client, project), *_of_fleet(client, project, stack.WHEELS_LABEL)]:
        for name in image.tags or [str(image.id)]:
            try:
                client.images.remove(name, force=True)
            except NotFound:
                continue
            except APIError as error:
                left.append(reason_of(error))
    return left


def _of_fleet(client: docker.DockerClient, project: str, label: str = stack.FLEET_LABEL) -> list[Image]:
    return list(client.images.list(filters={"label": f"{label}={project}"}))


def superfluous(project: str, id: str, tags: Sequence[str], keep: Collection[str]) -> list[str]:
    """Say by which names an image of a fleet is to be removed, since it is of a release that is over.

    Args:
        project: the fleet's name.
        id: of the image.
        tags: of it; none: it was built anew, under the same name, or came to the node without one.
        keep: tags and ids of those that stay.

    Returns:
        Its tags of releases, or its id where it has no tag; nothing where it stays.
    """
    if id in keep:
        return []
    releases = stack.app_image(project, "")
    return [tag for tag in tags if tag.startswith(releases) and tag not in keep] if tags else [id]


def _no_such_program(error: APIError) -> bool:
    """Tell whether it is the program that is not there: a daemon misses files of its own in the same words."""
    said = reason_of(error)
    return "executable file" in said or ("exec:" in said and "no such file or directory" in said)


def _no_base(setting: str, image: str, error: object) -> str:
    reason = " ".join(str(error).split())
    if len(reason) > 160:
        reason = reason[:160] + "…"
    return (
        f"base image {image} is not there and can't be pulled ({reason}): `docker pull` it where there is a network, "
        f"or name another, for instance INVOKE_DOCKER_{setting.upper()}={_BASES[setting]}"
    )


def _where(version: str, platform: str) -> list[str]:
    """Give pip's options for wheels of another Python than this one; none where it is the same."""
    if version == "{}.{}".format(*sys.version_info[:2]) and sys.platform == "linux":
        return []
    machine = platform.removeprefix("linux-")
    platforms = [f"manylinux_2_{glibc}_{machine}" for glibc in (28, 17)] + [f"manylinux2014_{machine}"]
    return [
        *("--only-binary=:all:", "--python-version", version, "--implementation", "cp"),
        *(word for name in platforms for word in ("--platform", name)),
    ]


def _pip(command: str, *arguments: str, into: Path) -> None:
    place = ["-w" if command == "wheel" else "-d", str(into)]
    words = [sys.executable, "-m", "pip", command, "--quiet", "--disable-pip-version-check", *place, *arguments]
    # The same sources give the same wheel, to the byte, and so the image that Docker has of it already.
    environ = {**os.environ, "SOURCE_DATE_EPOCH": _EPOCH}
    try:
        done = subprocess.run(words, check=False, capture_output=True, text=True, timeout=_PIP_S, env=environ)
    except subprocess.TimeoutExpired:
        raise ShardsError(f"`pip {command}` took more than {_PIP_S} s; see whether its index answers") from None
    if done.returncode:
        errors_said = [line for line in done.stderr.splitlines() if "ERROR" in line] or [done.stderr.strip()]
        raise ShardsError(f"`pip {command}` failed, so there are no wheels for the image: {errors_said[-1][:300]}")
