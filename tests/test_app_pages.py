"""The reference app's pages cost Django one request each, and are what Django said."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from typing import Any

import pytest

from app.pages import Remembered
from tests.fleet.runner import ROOT


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


THE_APP = """
import asyncio
from app import views
from app.asgi import application, django
from tests.test_app_pages import told

async def main():
    for path in views.SAME_FOR_ALL:
        by_django = await told(django, path)
        assert by_django[0]["status"] == 200, path
        assert b"Set-Cookie" not in dict(by_django[0]["headers"]), path
        assert await told(application, path) == by_django, path
    views.render = views.HttpResponse = None
    for path in views.SAME_FOR_ALL:
        assert (await told(django, path))[0]["status"] == 500, "nobody can make a page any more"
        assert (await told(application, path))[0]["status"] == 200, path
    print(len(views.SAME_FOR_ALL))

asyncio.run(main())
"""


def test_what_the_reference_app_remembers_is_what_django_says() -> None:
    """In a process of its own: Django takes its settings once, for all that is in the process."""
    command = [sys.executable, "-c", THE_APP]
    done = subprocess.run(command, check=False, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "4\n"), done.stderr
