"""The reference app's pages cost Django one request each, and are what Django said."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from app.asgi import application, django
from app.pages import Remembered
from app.views import SAME_FOR_ALL


class Django:
    """Stands in the place of Django, and counts."""

    def __init__(self, status: int = 200) -> None:
        self.status = status
        self.asked = 0

    async def __call__(self, _scope: Any, _receive: Any, send: Any) -> None:
        self.asked += 1
        await send({"type": "http.response.start", "status": self.status, "headers": [(b"a", b"b")]})
        await send({"type": "http.response.body", "body": b"%d" % self.asked})


async def told(app: Any, path: str, method: str = "GET") -> list[dict[str, Any]]:
    """Give what is said to a request."""
    head = {"type": "http", "method": method, "path": path, "query_string": b"", "headers": [(b"host", b"f")]}
    said: list[dict[str, Any]] = []
    waiting = [{"type": "http.request", "body": b"", "more_body": False}]

    async def receive() -> Any:
        return waiting.pop() if waiting else await asyncio.Event().wait()

    async def send(message: Any) -> None:
        said.append(message)

    await app(head, receive, send)
    return said


async def test_a_page_that_is_the_same_for_all_is_made_once() -> None:
    made = Django()
    pages = Remembered(made, ["/"])
    first = await told(pages, "/")
    assert first[1]["body"] == b"1"
    assert await told(pages, "/") == await told(pages, "/", "HEAD") == first
    assert made.asked == 1


@pytest.mark.parametrize(("path", "method", "status"), [("/else", "GET", 200), ("/", "POST", 200), ("/", "GET", 500)])
async def test_all_else_is_asked_for_each_time(path: str, method: str, status: int) -> None:
    made = Django(status)
    pages = Remembered(made, ["/"])
    assert [(await told(pages, path, method))[1]["body"] for _ in range(3)] == [b"1", b"2", b"3"]


@pytest.mark.parametrize("path", SAME_FOR_ALL)
async def test_what_is_remembered_is_what_django_says(path: str) -> None:
    by_django = await told(django, path)
    assert by_django[0]["status"] == 200
    assert b"Set-Cookie" not in dict(by_django[0]["headers"])
    assert [await told(application, path) for _ in range(2)] == [by_django] * 2


async def test_the_reference_app_asks_django_for_its_page_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def render(*_: object) -> None:
        raise AssertionError("the page is rendered again")

    before = await told(application, "/")
    monkeypatch.setattr("app.views.render", render)
    assert await told(application, "/") == before
