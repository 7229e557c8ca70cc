"""The pages: a demo in which two tabs talk, and the few files it needs."""

from __future__ import annotations

from pathlib import Path

from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import render
from django.views.decorators.http import require_safe
from django.views.static import serve

_STATIC = Path(__file__).resolve().parent / "static"


@require_safe
def demo(request: HttpRequest) -> HttpResponse:
    """Show the demo page."""
    return render(request, "demo.html")


@require_safe
def static(request: HttpRequest, path: str) -> HttpResponseBase:
    """Serve a file of the demo: three small ones, so that no web server is needed beside the fleet."""
    return serve(request, path, document_root=str(_STATIC))
