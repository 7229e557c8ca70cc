"""``python -m shards.server``: one replica, told by its environment what to serve and where."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Mapping
from pathlib import Path

import uvicorn
from uvicorn.importer import ImportFromStringError, import_from_string

from shards.errors import UsageError
from shards.server.asgi import Served
from shards.server.backlog import BACKLOG
from shards.server.handoff import hook
from shards.server.serving import serve
from shards.settings import Launch, Settings

STOP_SECONDS = 5
_GC_THRESHOLDS = (10_000, 20, 20)


def load() -> Served:
    """Import the app that SHARDS_APP names, as uvicorn's factory in each worker.

    Raises:
        UsageError: it doesn't import.
    """
    settings, launch = Settings.read(), Launch.read()
    hook.install()
    sys.path.insert(0, launch.app_dir or str(Path.cwd()))
    try:
        served = Served(import_from_string(launch.app), settings)
    except ImportFromStringError as error:
        raise UsageError(f"cannot import the app {launch.app}: {error}") from error
    _collect_garbage_seldom()
    return served


def _collect_garbage_seldom() -> None:
    """Leave what was imported out of garbage collection, and look at the rest less often.

    A full collection stops a worker for as long as it takes to look at every object of every socket.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_GC_THRESHOLDS)


def config(environ: Mapping[str, str] = os.environ) -> uvicorn.Config:
    """Give uvicorn's configuration: no compression (64-316 KiB a socket), pings, one protocol class of ours.

    Raises:
        UsageError: a setting makes no sense.
    """
    settings, launch = Settings.read(environ), Launch.read(environ)
    if settings.require_token and not settings.token_key_file:
        raise UsageError("SHARDS_REQUIRE_TOKEN needs the keys of tokens: set SHARDS_TOKEN_KEY_FILE")
    return uvicorn.Config(
        "shards.server.__main__:load",
        factory=True,
        host=launch.host,
        port=launch.port,
        workers=launch.workers,
        loop="uvloop",
        http="shards.server.http:HttpProtocol",
        ws="shards.server.protocol:SocketProtocol",
        ws_max_size=4 * settings.message_bytes,
        ws_ping_interval=settings.ping_seconds,
        ws_ping_timeout=settings.ping_seconds,
        ws_per_message_deflate=False,
        lifespan="on",
        backlog=BACKLOG,
        access_log=False,
        log_level="warning",
        timeout_graceful_shutdown=STOP_SECONDS,
        server_header=False,
    )


def main() -> None:
    """Serve until SIGTERM."""
    if not serve(config()):
        sys.exit(3)


if __name__ == "__main__":
    try:
        main()
    except UsageError as error:
        sys.exit(f"shards.server: {error}")
