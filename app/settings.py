"""Django settings of the reference service; the environment says the rest (docs/settings.md)."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

BASE_DIR = Path(__file__).resolve().parent

_key_file = os.environ.get("SHARDS_SECRET_KEY_FILE")
SECRET_KEY = Path(_key_file).read_text().strip() if _key_file else secrets.token_urlsafe(48)
DEBUG = False
# Every name is answered: the edge decides what reaches us, and no page here makes links out of the host's name.
ALLOWED_HOSTS = ["*"]

INSTALLED_APPS = ["django.contrib.staticfiles", "channels", "app"]
MIDDLEWARE = ["django.middleware.security.SecurityMiddleware", "django.middleware.clickjacking.XFrameOptionsMiddleware"]
ROOT_URLCONF = "app.urls"
ASGI_APPLICATION = "app.asgi.application"
TEMPLATES = [{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True}]
STATIC_URL = "/static/"

CHANNEL_LAYERS = {"default": {"BACKEND": "shards.layer.ShardedChannelLayer"}}

USE_TZ = True
LANGUAGE_CODE = "en"
