"""Supervisor: configuration of the keeper and of each part (pure), and its XML-RPC interface over a UNIX socket."""

from __future__ import annotations

import http.client
import shlex
import socket
import xmlrpc.client
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shards.errors import ShardsError

_RPC_S = 30.0
"""Stopping a part is asked for without waiting, so every answer comes at once from a supervisord that is well."""


@dataclass(frozen=True)
class Program:
    """A process for supervisor to keep.

    Attributes:
        name: what it is called.
        command: program and arguments; no secret: anyone on the host can read them.
        directory: where it runs.
        log: the file its output goes to.
        environment: variables it gets on top of supervisord's.
        settle_s: it has started when it has run for so long; sooner it counts as a failed try, and the next one
            comes a second later than the last.
        stop_s: how long it may take to stop before it is killed.
    """

    name: str
    command: Sequence[str]
    directory: Path
    log: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    settle_s: int = 1
    stop_s: int = 10


def render_keeper(socket_path: Path, directory: Path, user: str | None) -> str:
    """Write supervisord's own configuration; the parts' are in ``parts/`` beside it."""
    lines = [
        "[unix_http_server]",
        f"file={_plain(socket_path)}",
        "chmod=0700",
        "[rpcinterface:supervisor]",
        "supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface",
        "[supervisord]",
        "nodaemon=true",
        "silent=true",
        f"directory={_plain(directory)}",
        f"childlogdir={_plain(directory / 'logs')}",
        f"logfile={_plain(directory / 'logs' / 'supervisord.log')}",
        "logfile_maxbytes=5MB",
        "logfile_backups=1",
        f"pidfile={_plain(directory / 'supervisord.pid')}",
        "umask=077",
        # Said out loud, or supervisord warns of it each time it starts as root.
        *([f"user={user}"] if user else []),
        "[include]",
        "files=parts/*.conf",
        "",
    ]
    return "\n".join(lines)


def render_program(program: Program) -> str:
    """Write the configuration of a part."""
    environment = ",".join(f'{key}="{_plain(value)}"' for key, value in sorted(program.environment.items()))
    lines = [
        f"[program:{program.name}]",
        f"command={_plain(shlex.join(program.command))}",
        f"directory={_plain(program.directory)}",
        f"environment={environment}",
        "autostart=true",
        "autorestart=true",
        f"startsecs={program.settle_s}",
        # It never gives up: the wait between tries grows by a second each time.
        "startretries=1000000",
        f"stopwaitsecs={program.stop_s}",
        "stopasgroup=true",
        "killasgroup=true",
        "redirect_stderr=true",
        f"stdout_logfile={_plain_log(program.log)}",
        "stdout_logfile_maxbytes=10MB",
        "stdout_logfile_backups=2",
        "",
    ]
    return "\n".join(lines)


def _plain(value: object) -> str:
    text = str(value)
    # Supervisor's files have no quotes that would keep these what they are.
    if any(bad in text for bad in ('"', "\n", "\r", " #", " ;", "\t#", "\t;")):
        raise ShardsError(f"supervisor cannot take {text!r}: no quotes, line ends, ' #' or ' ;' there, please")
    return text.replace("%", "%%")


def _plain_log(path: Path) -> str:
    # Supervisor fills this one in twice.
    if "%" in str(path):
        raise ShardsError(f"supervisor cannot keep logs in {str(path.parent)!r}: no % there, please")
    return _plain(path)


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=_RPC_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(_RPC_S)
        try:
            self.sock.connect(str(self._path))
        except OSError:
            self.close()
            raise


class _Transport(xmlrpc.client.Transport):
    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path

    def make_connection(self, host: Any) -> http.client.HTTPConnection:
        connection = _Connection(self._path)
        # Or nobody closes it where nobody listens.
        self._connection = host, connection
        return connection


@dataclass(frozen=True)
class ProcessInfo:
    """What supervisor says of a process: its state (``RUNNING``, ``BACKOFF``, …) and its pid, where it has one."""

    name: str
    state: str
    pid: int | None

    @property
    def stopped(self) -> bool:
        """It does not run, and supervisor does not try to start it."""
        return self.state in {"STOPPED", "EXITED", "FATAL", "UNKNOWN"}


class Supervisor:
    """Asks a supervisord.

    Args:
        socket_path: where it listens.

    Every method raises `OSError` where nobody listens and `ShardsError` where supervisor refuses.
    """

    def __init__(self, socket_path: Path) -> None:
        self.socket_path = socket_path

    def call(self, method: str, *arguments: object) -> Any:
        """Call a method of supervisor's own interface."""
        with xmlrpc.client.ServerProxy("http://localhost", transport=_Transport(self.socket_path)) as proxy:
            try:
                return getattr(proxy.supervisor, method)(*arguments)
            except (xmlrpc.client.Error, http.client.HTTPException) as error:
                raise ShardsError(f"supervisor: {method}{arguments} failed: {error}") from error

    def alive(self) -> bool:
        """Tell whether a supervisord listens and is not on its way out."""
        try:
            return bool(self.call("getState")["statecode"] == 1)
        except (OSError, ShardsError):
            return False


def read_processes(answer: Any) -> dict[str, ProcessInfo]:
    """Read what supervisor says of all it keeps (``getAllProcessInfo``), by name."""
    return {info["name"]: ProcessInfo(info["name"], info["statename"], info["pid"] or None) for info in answer}
