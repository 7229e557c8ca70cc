"""Releases of an app, good and bad, which tests deploy from a directory of their own."""

from __future__ import annotations

from pathlib import Path

GOOD = """
import os
os.environ["DJANGO_SETTINGS_MODULE"] = "app.settings"
from app.asgi import application as whole
"""
"""The reference service; what follows it changes what `app` does."""

PLAIN = GOOD + "app = whole\n"

DOES_NOT_IMPORT = "import no_such_thing\n"

# The commands import it too, and there it does.
DIES = """
import os
if os.environ["SHARDS_PORT"] != "1":
    raise RuntimeError("no license")
async def app(*a): ...
"""

NEVER_READY = (
    GOOD
    + """
import shards.server.worker
shards.server.worker.Worker.missing = lambda self: "the moon is not full"
app = whole
"""
)

SWALLOWS = (
    GOOD
    + """
import shards.consumers
shards.consumers.GroupConsumer.on_message = lambda self, message: None
async def app(scope, receive, send):
    if scope["type"] == "websocket":
        # Answers the handshake and says welcome, and nothing that is published comes back.
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": '{"type":"welcome","session":"s","replica":"r"}'})
        while (await receive())["type"] != "websocket.disconnect":
            pass
    else:
        await whole(scope, receive, send)
"""
)

REFUSES = (
    GOOD
    + """
async def app(scope, receive, send):
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.close"})
    else:
        await whole(scope, receive, send)
"""
)

LEAKS = (
    GOOD
    + """
import threading, time
kept = []
def leak():
    while True:
        time.sleep(0.1)
        if os.environ["SHARDS_PORT"] != "1":
            kept.append(b"x" * 4_000_000)
threading.Thread(target=leak, daemon=True).start()
app = whole
"""
)

FAILS_NOW_AND_THEN = (
    GOOD
    + """
served = 0
async def app(scope, receive, send):
    global served
    served += 1
    # The probes get through.
    if scope["type"] == "websocket" and served > 6 and served % 2:
        raise RuntimeError("half of all handshakes fail")
    await whole(scope, receive, send)
"""
)

DIES_OF_SOCKETS = (
    GOOD
    + """
taken = 0
async def app(scope, receive, send):
    global taken
    taken += "shards.handoff" in scope.get("extensions", {})
    if taken == 3:
        os._exit(1)
    await whole(scope, receive, send)
"""
)


class Site:
    """A directory with an app of one file, beside which the reference app can be imported."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.directory.mkdir()
        (self.directory / "app").symlink_to(Path(__file__).resolve().parents[2] / "app")
        self.write(PLAIN)

    def write(self, code: str) -> None:
        (self.directory / "mysite.py").write_text(code)

    @property
    def flags(self) -> tuple[str, ...]:
        """What `inv up` is given to run it."""
        return ("--app", "mysite:app", "--app-dir", str(self.directory))
