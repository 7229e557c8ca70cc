"""The local engine: real Redis, Traefik and app servers on this host, kept alive by supervisor, no Docker needed."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import getpass
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import psutil

from shards.addresses import Peer
from shards.cgroup import memory_limit
from shards.descriptors import descriptor_limit, raise_descriptor_limit
from shards.errors import PartFailed, ShardsError, UsageError
from shards.fleet import accounts, certificate, layout, probe, processes
from shards.fleet.engines import app_check, log_files, redis_server, sentinel
from shards.fleet.engines import edge as edges
from shards.fleet.engines.base import EdgePart, Engine, Part, RedisPart, ReplicaPart, Route, Running, SentinelPart
from shards.fleet.engines.docker import by_hand
from shards.fleet.engines.log_files import last_line_of
from shards.fleet.engines.supervisord import (
    ProcessInfo,
    Program,
    Supervisor,
    read_processes,
    render_keeper,
    render_program,
)
from shards.fleet.release import release_of
from shards.fleet.spec import COLORS, REFERENCE_APP, FleetSpec
from shards.fleet.state import FleetDir, FleetState, write_atomically

_SOCKET_PATH_BYTES = 90
"""A UNIX socket's path holds 107 bytes, and supervisor first binds one with its pid appended."""

_KEEPER = "supervisord"
_KEEPER_COMMAND = (sys.executable, "-m", "shards.fleet.engines.keeper")
SYNC, PROMOTABLE = "sync_logs", "promotable"
"""Not parts of the fleet, but of how this engine keeps it."""

_KEEPER_START_S = 15.0
_STOP_S = 40.0


@dataclass(frozen=True)
class LocalOptions:
    """Where the engine finds what it runs.

    Attributes:
        root: the project's own directory, which holds ``docker/`` and the reference app.
        redis_server: program of the Redis server; empty: the first one that is new enough.
        traefik: program of the edge; empty: the first one found.
        redis_memory: bytes that each Redis server may fill before it refuses what comes; 0: any number; None: its share
            of half of this host's memory.
        server: the command of a replica.
    """

    root: Path
    redis_server: str = ""
    traefik: str = ""
    redis_memory: int | None = None
    server: Sequence[str] = (sys.executable, "-m", "shards.server")


class LocalEngine(Engine):
    """Keeps a fleet's parts as processes of this host.

    Args:
        spec: what the fleet is.
        directory: where its files are.
        options: where its programs are.
    """

    def __init__(self, spec: FleetSpec, directory: FleetDir, options: LocalOptions) -> None:
        self.spec = spec
        self.directory = directory
        self.options = options
        self.path = directory.path
        self.supervisor = Supervisor(socket_path_of(self.path))
        self._parts = self.path / "conf" / "parts"
        self._watched = self.path / "edge" / "dynamic"
        # Short, as supervisor's socket must be, and a directory of this user's own.
        self._handoff = self.supervisor.socket_path.parent / "handoff"

    # -- before anything starts

    def check(self, port_is_ours: bool) -> None:
        if not Path(self.spec.app_dir).is_dir():
            raise UsageError(f"--app-dir {self.spec.app_dir} is no directory")
        redis_server.find_server(self.options.redis_server)
        edges.find_traefik(self.options.traefik)
        if not port_is_ours:
            self._check_port()

    def _check_port(self) -> None:
        error = processes.port_taken(self.spec.host, self.spec.port)
        if error is None:
            return
        if error.errno == errno.EADDRINUSE:
            # Of what Docker publishes, only its proxy could be named.
            composed = by_hand.find(self.spec.project)
            if composed and composed.spec.port == self.spec.port:
                raise ShardsError(by_hand.elsewhere(self.spec.project))
            user = processes.listener(self.spec.port) or "another process"
            raise ShardsError(f"port {self.spec.port} is in use by {user}; choose another with --port")
        raise ShardsError(
            f"cannot listen on {self.spec.host}:{self.spec.port}: {error.strerror}; choose another --port"
        )

    async def check_app(self, release: str) -> str | None:
        sample = ReplicaPart("blue-0", 1, "blue", 1, "check", 1, 1)
        environment = {**os.environ, **self._replica_environment(sample)}
        check = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            app_check.PROGRAM,
            self.spec.app,
            cwd=self.spec.app_dir,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        try:
            stdout, stderr = await asyncio.wait_for(check.communicate(), app_check.IMPORT_S)
        except TimeoutError:
            raise app_check.too_slow(self.spec.app) from None
        finally:
            if check.returncode is None:
                check.kill()
                await check.wait()
        return app_check.read(self.spec.app, self.spec.app_dir, check.returncode or 0, stdout, stderr)

    def holds(self, release: str) -> str:
        return release_of(Path(self.spec.app_dir))

    async def forget_releases(self, stay: Collection[str]) -> None:
        """Nothing: the app's directory holds the only one."""

    # -- the keeper

    async def alive(self) -> bool:
        return await asyncio.to_thread(self.supervisor.alive)

    async def start(self) -> None:
        if await self.alive():
            return
        await asyncio.to_thread(self._sweep)
        self._write_keeper()
        keeper = self._spawn_keeper()

        async def settled() -> bool:
            return keeper.poll() is not None or await self.alive()

        await probe.until(settled, _KEEPER_START_S)
        if keeper.poll() is not None or not await self.alive():
            log = self._log(_KEEPER)
            reason = last_line_of(self.path / "logs" / "supervisord.out") or last_line_of(log) or "it says nothing"
            raise PartFailed(_KEEPER, f"did not start: {reason}", str(log))

    def _spawn_keeper(self) -> subprocess.Popen[bytes]:
        raise_descriptor_limit()
        with (self.path / "logs" / "supervisord.out").open("wb") as output:
            return subprocess.Popen(
                [*_KEEPER_COMMAND, "-c", str(self.path / "conf" / "supervisord.conf")],
                cwd=self.path,
                env={**os.environ, **self._mark(_KEEPER)},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                # Ctrl-C in the terminal is for the command that runs there, not for the fleet.
                start_new_session=True,
            )

    def _write_keeper(self) -> None:
        shutil.rmtree(self._parts, ignore_errors=True)
        self._parts.mkdir(parents=True, mode=0o700)
        self._watched.mkdir(exist_ok=True, mode=0o700)
        socket_path = self.supervisor.socket_path
        socket_path.parent.mkdir(mode=0o700, exist_ok=True)
        if socket_path.parent.stat().st_uid != os.geteuid():
            raise ShardsError(f"{socket_path.parent} belongs to somebody else: set TMPDIR to a directory of your own")
        user = getpass.getuser() if os.geteuid() == 0 else None
        helpers = [self._sync(), self._promotable()] if self.spec.durability == "replicated" else [self._sync()]
        text = render_keeper(socket_path, self.path, user) + "".join(render_program(helper) for helper in helpers)
        write_atomically(self.path / "conf" / "supervisord.conf", text)

    def _sync(self) -> Program:
        data = self.path / "data"
        command = [sys.executable, "-m", "shards.fleet.engines.sync_logs", str(data)]
        return self._program(SYNC, command, self.path, stop_s=5)

    def _promotable(self) -> Program:
        command = [sys.executable, "-m", "shards.fleet.engines.promotable", str(self.path)]
        return self._program(PROMOTABLE, command, self.path, stop_s=5)

    async def stop(self) -> bool:
        alive = await self.alive()
        if alive:
            # Replicas first: they say goodbye to their clients through the edges, and to the control Redis. Sentinels
            # before the servers they watch, whose end is no failure.
            for kinds in (("blue-", "green-"), ("edge-",), ("sentinel-",), ("shared-", "redis_")):
                kept = await self._processes()
                await self._halt([name for name in kept if name.startswith(kinds)])
            await self._end_keeper()
        swept = await asyncio.to_thread(self._sweep)
        return alive or swept

    async def _end_keeper(self) -> None:
        pid = int(await self._ask("getPID"))
        # One that still knows of programs takes a second for each of them, also where they have ended.
        await self._forget(list(await self._processes()))
        with contextlib.suppress(ShardsError):
            await self._ask("shutdown")

        async def gone() -> bool:
            return not _runs(pid)

        await probe.until(gone, _KEEPER_START_S)

    def _sweep(self) -> bool:
        """End what carries this fleet's mark, the keeper first, so that it starts nothing again."""
        left = processes.of_fleet(self.path)
        processes.end(left.pop(_KEEPER, ()), 3)
        processes.end([process for part in left.values() for process in part], 10)
        # Whatever started while the first ones ended.
        processes.end([process for part in processes.of_fleet(self.path).values() for process in part], 3)
        self._forget_sockets()
        (self.path / "supervisord.pid").unlink(missing_ok=True)
        return bool(left)

    def _forget_sockets(self) -> None:
        """Delete the sockets that were left, and the short directory they are in, where the fleet's own is too deep."""
        socket_path, folder = self.supervisor.socket_path, self.supervisor.socket_path.parent
        with contextlib.suppress(OSError):
            if folder != self.path and folder.lstat().st_uid != os.geteuid():
                # In a directory of all users, its name may be anybody's.
                return
            for file in folder.glob(f"{socket_path.name}*"):
                file.unlink()
            shutil.rmtree(self._handoff, ignore_errors=True)
            if folder != self.path:
                folder.rmdir()

    # -- parts

    async def add(self, parts: Sequence[Part]) -> None:
        kept = await self._processes()
        new = [part for part in parts if part.name not in kept]
        for part in new:
            self._write_part(part)
        if new:
            await self._ask("reloadConfig")
        for part in new:
            await self._ask("addProcessGroup", part.name)
        for part in parts:
            if part.name in kept and kept[part.name].stopped:
                await self._ask("startProcess", part.name, False)

    def _write_part(self, part: Part) -> None:
        match part:
            case RedisPart():
                program = self._redis(part)
            case SentinelPart():
                program = self._sentinel(part)
            case ReplicaPart():
                program = self._replica(part)
            case EdgePart():
                program = self._edge(part)
        write_atomically(self._parts / f"{part.name}.conf", render_program(program), self.path)

    async def remove(self, names: Collection[str]) -> None:
        kept = await self._processes()
        await self._forget([name for name in names if name in kept])
        for name in names:
            (self._parts / f"{name}.conf").unlink(missing_ok=True)
        await self._ask("reloadConfig")

    async def _forget(self, names: Collection[str]) -> None:
        await self._halt(names)
        for name in names:
            await self._ask("removeProcessGroup", name)

    async def _halt(self, names: Collection[str]) -> None:
        """Stop parts, all at once; each is killed where it takes longer than it may."""
        kept = await self._processes()
        for name in names:
            # A command that was killed may have begun to stop it.
            if not kept[name].stopped and kept[name].state != "STOPPING":
                await self._ask("stopProcess", name, False)

        async def stopped() -> bool:
            kept = await self._processes()
            return all(kept[name].stopped for name in names)

        if not await probe.until(stopped, _STOP_S):
            raise ShardsError(f"some of {', '.join(names)} did not stop within {_STOP_S:.0f} s; `inv down` kills them")

    async def _ask(self, method: str, *arguments: object) -> Any:
        try:
            return await asyncio.to_thread(self.supervisor.call, method, *arguments)
        except OSError as error:
            raise PartFailed(_KEEPER, f"does not answer: {error}", str(self._log(_KEEPER))) from None

    async def _processes(self) -> dict[str, ProcessInfo]:
        return read_processes(await self._ask("getAllProcessInfo"))

    async def running(self) -> dict[str, Running]:
        try:
            kept = await self._processes()
        except ShardsError:
            return await asyncio.to_thread(self._left_behind)
        return {
            name: Running(info.pid is not None and _runs(info.pid), info.pid, retried=info.state == "BACKOFF")
            for name, info in kept.items()
        }

    def _left_behind(self) -> dict[str, Running]:
        found = processes.of_fleet(self.path)
        parts = {name: part[0].pid for name, part in found.items() if name not in ("", _KEEPER)}
        return {name: Running(True, pid, kept=False) for name, pid in parts.items()}

    async def usage(self, running: Mapping[str, Running]) -> dict[str, processes.Usage]:
        return await processes.usage({name: part.pid for name, part in running.items()})

    async def log(self, name: str) -> Path:
        return self._log(name)

    def _log(self, name: str) -> Path:
        return self.directory.logs / f"{name}.log"

    def lines(self, name: str | None, follow: bool) -> AsyncIterator[tuple[str, str]]:
        return log_files.lines(self.directory.logs, name, follow)

    async def forget_data(self, names: Collection[str]) -> None:
        for name in names:
            self.directory.forget_data(name)

    async def spread_secrets(self, parts: Sequence[Part]) -> None:
        # Everything else reads them where they are; a Sentinel writes down itself what it is told.
        for part in parts:
            if isinstance(part, RedisPart):
                self._configure_redis(part)

    async def purge(self) -> None:
        """Nothing: all of it is in the fleet's directory."""

    # -- what each part is

    def _mark(self, part: str) -> dict[str, str]:
        return {processes.FLEET_VARIABLE: str(self.path), processes.PART_VARIABLE: part}

    def _redis(self, part: RedisPart) -> Program:
        data = self.path / "data" / part.name
        data.mkdir(mode=0o700, exist_ok=True)
        configuration = self._configure_redis(part)
        server = redis_server.find_server(self.options.redis_server)
        if part.twin:
            return self._paired(part, server)
        return self._program(part.name, [server, str(configuration)], data, stop_s=20)

    def _configure_redis(self, part: RedisPart) -> Path:
        configuration = self.path / "conf" / f"{part.name}.conf"
        text = redis_server.render(
            self._redis_base(),
            port=part.port,
            directory=self.path / "data" / part.name,
            good=self.directory.passwords(),
            descriptors=descriptor_limit(),
            backlog=redis_server.somaxconn(),
            memory=self._redis_memory(),
            sync_first=part.sync_first,
            paired=part.twin is not None,
        )
        write_atomically(configuration, text)
        return configuration

    def _redis_memory(self) -> int:
        if self.options.redis_memory is not None:
            return self.options.redis_memory
        total = psutil.virtual_memory().total
        return redis_server.share_of(min(total, memory_limit() or total), servers_of(self.spec))

    def _paired(self, part: RedisPart, server: str) -> Program:
        description = msgspec.json.encode(part).decode()
        write_atomically(self.path / "conf" / f"{part.name}.json", description, self.path)
        command = [sys.executable, "-m", "shards.fleet.engines.take_place", str(self.path), part.name, server]
        return self._program(part.name, command, self.path, stop_s=20)

    def _sentinel(self, part: SentinelPart) -> Program:
        data = self.path / "data" / part.name
        data.mkdir(mode=0o700, exist_ok=True)
        # It writes down there what it finds out: what an earlier run has found was read by `newest`.
        configuration = data / "sentinel.conf"
        text = sentinel.render(port=part.port, directory=data, good=self.directory.passwords())
        write_atomically(configuration, text)
        server = redis_server.find_server(self.options.redis_server)
        return self._program(part.name, [server, str(configuration), "--sentinel"], self.path, stop_s=5)

    def newest(self, state: FleetState) -> dict[str, str]:
        data = self.path / "data"
        written = sentinel.written_primaries(file.read_text() for file in data.glob("sentinel-*/sentinel.conf"))
        names = {port: name for name, port in state.ports.items()}
        chosen = {}
        for shard in layout.local_shard_names(state):
            servers = layout.server_names(state, shard)
            last = names.get(written.get(shard, 0)) or state.primaries.get(shard)
            with_data = {name for name in servers if redis_server.has_data(data / name)}
            chosen[shard] = sentinel.choose_primary(servers, last, with_data)
        return chosen

    def _redis_base(self) -> str:
        path = self.options.root / "docker" / "redis" / "redis.conf"
        try:
            return path.read_text()
        except OSError as error:
            raise ShardsError(f"cannot read {path}: {error.strerror}; it comes with this project") from None

    def _replica(self, part: ReplicaPart) -> Program:
        environment = self._replica_environment(part)
        command = [sys.executable, "-m", "shards.fleet.engines.relaunch", *self.options.server]
        return self._program(part.name, command, Path(self.spec.app_dir), environment, settle_s=3, stop_s=15)

    def _replica_environment(self, part: ReplicaPart) -> dict[str, str]:
        environment = {
            "COLOR": part.color,
            "CHANNEL_REDIS_URL": f"redis://127.0.0.1:{part.redis_port}/0",
            "MESSAGE_REDIS_URL": f"redis://127.0.0.1:{part.control_port}/0",
            "UVICORN_WORKERS": str(part.workers),
            "SHARDS_APP": self.spec.app,
            "SHARDS_APP_DIR": self.spec.app_dir,
            "SHARDS_REPLICA": part.name,
            "SHARDS_HOST": "127.0.0.1",
            "SHARDS_PORT": str(part.port),
            "SHARDS_REDIS_USERNAME": accounts.APP,
            "SHARDS_REDIS_PASSWORD_FILE": str(self.directory.app_password_file),
            "SHARDS_SHARD_CREDENTIALS_FILE": str(self.directory.credentials_file),
            "SHARDS_SECRET_KEY_FILE": str(self.directory.secret_key_file),
            "SHARDS_TOKEN_KEY_FILE": str(self.directory.token_key_file),
            "SHARDS_RELEASE": part.release,
            "SHARDS_HANDOFF_DIR": str(self._handoff),
            "SHARDS_REPORTS_DIR": str(self.options.root / "reports"),
            "PYTHONUNBUFFERED": "1",
            **self._mark(part.name),
        }
        # Other projects name their settings themselves, in their asgi.py or in the caller's environment.
        if self.spec.app == REFERENCE_APP and Path(self.spec.app_dir) == self.options.root:
            environment["DJANGO_SETTINGS_MODULE"] = "app.settings"
        return environment

    def _edge(self, part: EdgePart) -> Program:
        configuration = self.path / "edge" / f"{part.name}.yml"
        text = edges.dump(edges.static(part, self.spec.host, self.spec.port, self._watched))
        write_atomically(configuration, text)
        command = [edges.find_traefik(self.options.traefik), f"--configFile={configuration}"]
        # Collecting garbage twice as often costs nothing that can be measured and saves a tenth of the memory. Edges
        # that each run as many threads as there are cores take them from one another and from the replicas.
        cores = len(os.sched_getaffinity(0))
        environment = {"GOGC": "50", "GOMAXPROCS": str(max(1, cores // self.spec.edges))}
        return self._program(part.name, command, self.path, environment, stop_s=edges.GRACE_S + 5)

    def _program(
        self,
        name: str,
        command: Sequence[str],
        directory: Path,
        environment: Mapping[str, str] | None = None,
        *,
        settle_s: int = 1,
        stop_s: int,
    ) -> Program:
        marked = {**(environment or {}), **self._mark(name)}
        return Program(name, command, directory, self._log(name), marked, settle_s, stop_s)

    # -- where requests go

    async def route(self, route: Route) -> None:
        path, text = (
            self._watched / "fleet.yml",
            edges.dump(edges.dynamic(route, certificate.kept(self.directory, self.spec))),
        )
        # What is right already is left alone: the way back of a switch must not need room on the disk.
        if path.exists() and path.read_text() == text:
            return
        try:
            # Outside the watched directory first: Traefik reads whatever it finds in there.
            write_atomically(path, text, self.path)
        except OSError as error:
            raise ShardsError(f"cannot write {path}, by which the edges work: {error.strerror}") from None

    async def routed(self, edge: EdgePart, route: Route) -> bool:
        return await edges.works_by(partial(self.ask_edge, edge), route)

    async def connects_from(self, edge: EdgePart) -> set[Peer]:
        pid = (await self.running()).get(edge.name, Running(False)).pid
        # A socket that was handed over has the port of the replica that it came to, which may be gone.
        return await asyncio.to_thread(processes.connects_from, pid, (self.spec.port, edge.port)) if pid else set()


def servers_of(spec: FleetSpec) -> int:
    """Count the Redis servers of a fleet: shards of its own, twice as many where replicated, colors' own, control."""
    own = spec.shards if isinstance(spec.shards, int) else 0
    return own * (2 if spec.durability == "replicated" else 1) + len(COLORS) + 1


def socket_path_of(directory: Path) -> Path:
    """Give the path of a fleet's supervisor socket: in its directory, or in a short one where that is too deep."""
    path = directory / "supervisor.sock"
    if len(os.fsencode(path)) <= _SOCKET_PATH_BYTES:
        return path
    digest = hashlib.blake2b(os.fsencode(directory), digest_size=6).hexdigest()
    folder = Path(tempfile.gettempdir()) / f"shards-{os.geteuid()}-{digest}"
    if len(os.fsencode(folder / "s")) > _SOCKET_PATH_BYTES:
        folder = Path("/tmp") / folder.name
    return folder / "s"


def _runs(pid: int) -> bool:
    with contextlib.suppress(psutil.Error):
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False
