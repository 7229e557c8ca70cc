"""The pages: a demo in which two clients talk, and the few files it needs."""

from __future__ import annotations

from pathlib import Path

from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe

_STATIC = Path(__file__).resolve().parent / "static"
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
_PANES = ("Alice", "Bob")
_TYPES = {".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8"}

SAME_FOR_ALL = ("/", *(f"/static/{file.name}" for file in _STATIC.iterdir() if file.suffix in _TYPES))
"""Paths of the pages below, none of which looks at who asks for it."""


@require_safe
def demo(request: HttpRequest) -> HttpResponse:
    """Show the demo page."""
    response = render(request, "demo.html", {"panes": _PANES})
    response.headers["Content-Security-Policy"] = _POLICY
    return response


@require_safe
def static(request: HttpRequest, path: str) -> HttpResponse:
    """Serve a file of the demo: three small ones, so that no web server is needed beside the fleet."""
    file = _STATIC / path
    if file.suffix not in _TYPES or not file.is_file():
        raise Http404
    return HttpResponse(file.read_bytes(), content_type=_TYPES[file.suffix])
