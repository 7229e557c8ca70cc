"""The pages that are the same for everybody: Django makes each once, and is not asked again."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from typing import Any

from shards.consumers import Receive, Scope, Send

App = Callable[[Scope, Receive, Send], Awaitable[None]]
_OK = 200


class Remembered:
    """An ASGI application that remembers what `app` answers, headers too.

    A request costs Django a millisecond, whatever it shows: synchronous middleware and views take turns in one
    thread. So a page that shows everybody the same is not worth asking it again and again, and who asks for it without
    end takes little. Nothing about who asks, or how, may be in such a page: no user, CSRF token, nonce, cookie.
    Nor does Django see, once it is remembered, whom it would refuse for the host's name, or send to TLS.

    Args:
        app: makes the pages.
        paths: of those to remember, whatever the query; a change to one of them shows after a restart.
    """

    def __init__(self, app: App, paths: Collection[str]) -> None:
        self._app = app
        self._paths = frozenset(paths)
        self._answers: dict[str, list[dict[str, Any]]] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        path = scope["path"]
        if path not in self._paths or scope["method"] not in ("GET", "HEAD"):
            await self._app(scope, receive, send)
            return
        # To a HEAD Django says all that it says to a GET, and the server leaves the body out.
        for message in self._answers.get(path) or await self._ask(scope, receive):
            await send(message)

    async def _ask(self, scope: Scope, receive: Receive) -> list[dict[str, Any]]:
        answer: list[dict[str, Any]] = []

        async def hear(message: Any) -> None:
            answer.append(dict(message))

        await self._app(scope, receive, hear)
        # What went wrong once need not go wrong for good; and who went away before the answer was whole has none.
        if answer and answer[0].get("status") == _OK and not answer[-1].get("more_body", False):
            self._answers[scope["path"]] = answer
        return answer
