"""One uWebSockets server: ``python server.py PORT``."""

from __future__ import annotations

import sys
from typing import Any

from socketify import App, AppListenOptions, OpCode

MOST_UNSENT_BYTES = 1 << 20


def upgrade(response: Any, request: Any, context: Any) -> None:
    """Accept the handshake, and remember the group of the path."""
    names = ("sec-websocket-key", "sec-websocket-protocol", "sec-websocket-extensions")
    key, protocol, extensions = (request.get_header(name) for name in names)
    response.upgrade(key, protocol, extensions, context, {"group": request.get_parameter(0)})


def main(port: int) -> None:
    """Serve until stopped."""
    app = App()

    def joined(socket: Any) -> None:
        socket.subscribe(socket.get_user_data()["group"])

    def said(socket: Any, message: str, code: OpCode) -> None:
        app.publish(socket.get_user_data()["group"], message, code)

    behavior = {"upgrade": upgrade, "open": joined, "message": said, "max_backpressure": MOST_UNSENT_BYTES}
    app.get("/readyz", lambda response, request: response.end("ok\n"))
    app.ws("/ws/:group/", behavior)
    app.listen(AppListenOptions(port=port, host="127.0.0.1"))
    # Not `app.run()`, which serves asyncio beside it: it polls both in turn and takes a whole core doing so.
    while True:
        app.loop.uv_loop.run_once()


if __name__ == "__main__":
    main(int(sys.argv[1]))
