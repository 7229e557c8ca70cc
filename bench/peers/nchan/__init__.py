"""nchan, nginx's pub/sub module, with Redis: one nginx of two workers."""

from __future__ import annotations

import contextlib
import getpass
import shutil
from collections.abc import Iterator
from pathlib import Path
from string import Template

from bench.peers.base import Missing, Peer, Stack, Started, stack
from shards.descriptors import descriptor_limit

_CONFIGURATION = Path(__file__).resolve().parent / "nginx.conf"
_MODULES = [Path(folder) / "nginx/modules/ngx_nchan_module.so" for folder in ("/usr/lib", "/usr/lib64")]


def _module() -> Path | None:
    return next((path for path in _MODULES if path.is_file()), None)


def _nginx() -> str | None:
    return shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")


def _prepare(cache: Path) -> None:
    """Look for it: it is the system's package manager that installs it."""
    if not (_nginx() and _module()):
        raise Missing("nginx with nchan is not installed (Debian: apt install nginx libnginx-mod-nchan)")


@contextlib.contextmanager
def _start(cache: Path) -> Iterator[Started]:
    nginx = _nginx()
    assert nginx is not None
    with stack() as made:
        redis, port = made.redis(), made.port()
        configuration = made.directory / "nginx.conf"
        configuration.write_text(_configuration(made, redis, port))
        made.spawn("app", [nginx, "-c", str(configuration), "-p", str(made.directory), "-e", "stderr"])
        yield made.apps([port])


def _configuration(made: Stack, redis: int, port: int) -> str:
    return Template(_CONFIGURATION.read_text()).substitute(
        module=_module(),
        descriptors=descriptor_limit(),
        user=getpass.getuser(),
        directory=made.directory,
        redis=redis,
        port=port,
    )


NCHAN = Peer("nchan", "nchan + Redis, nginx of 2 workers", "plain", _prepare, _start)
