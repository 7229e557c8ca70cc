"""Where the pages are."""

from __future__ import annotations

from django.urls import path, re_path

from app import views

urlpatterns = [path("", views.demo), re_path(r"^static/(?P<path>[\w.-]+)$", views.static)]
