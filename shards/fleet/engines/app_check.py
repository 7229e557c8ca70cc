"""The program that looks at an app before it is deployed, run with the Python that replicas will run with.

It fails, with the reason in its last line, where replicas would fail at their start, or at their first socket. A
channel layer of the app that is not of this project is named on stdout.
"""

from __future__ import annotations

from shards.errors import UsageError
from shards.fleet.engines.log_files import last_line

IMPORT_S = 20.0
"""How long an app may take to be imported, in seconds."""

_NOT_SET_UP = ("ImproperlyConfigured", "AppRegistryNotReady")
_SET_UP_FIRST = (
    "asgi.py has to set DJANGO_SETTINGS_MODULE, then call get_asgi_application(), and only then import consumers; "
    "`runserver` hides that"
)

_LAYER = "shards: CHANNEL_LAYERS has "

PROGRAM = f"""
import os, sys, traceback
from uvicorn.importer import import_from_string


def load(name):
    app = import_from_string(name)
    if not callable(app):
        sys.exit("it is no ASGI application: it can't be called")
    if "channels.layers" in sys.modules and "django.conf" in sys.modules:
        from channels.layers import get_channel_layer
        from django.conf import settings
        if settings.configured:
            # A consumer makes it, so that a wrong CONFIG would be met by each client; this connects to nothing.
            get_channel_layer()


def place(error):
    if isinstance(error, SyntaxError) and error.filename:
        return error.filename, error.lineno
    frames = [(frame.filename, frame.lineno) for frame in traceback.extract_tb(error.__traceback__)]
    ours = [frame for frame in frames if frame[0].startswith(os.getcwd() + os.sep) and "site-packages" not in frame[0]]
    return ours[-1] if ours else None


def reason(error):
    said = " ".join(str(error.msg if isinstance(error, SyntaxError) else error).split())
    text = type(error).__name__ + (": " + said if said else "")
    if found := place(error):
        text += f" ({{found[0].removeprefix(os.getcwd() + os.sep)}}, line {{found[1]}})"
    return text


def other_layer():
    from django.conf import settings
    if not settings.configured:
        return None
    backend = getattr(settings, "CHANNEL_LAYERS", {{}}).get("default", {{}}).get("BACKEND")
    if not backend:
        return None
    from django.utils.module_loading import import_string
    from shards.layer import ShardedChannelLayer
    try:
        return None if issubclass(import_string(backend), ShardedChannelLayer) else backend
    except Exception:
        return backend


try:
    load(sys.argv[1])
except Exception as error:
    traceback.print_exc()
    sys.exit(reason(error))
if "django.conf" in sys.modules and (other := other_layer()):
    print("\\n{_LAYER}" + other)
"""


def too_slow(app: str) -> UsageError:
    """Give the error of an app that is not through with its import in time."""
    return UsageError(f"--app {app} took more than {IMPORT_S:.0f} s to import")


def read(app: str, app_dir: str, code: int, stdout: bytes, stderr: bytes) -> str | None:
    """Read what the program has found.

    Args:
        app: which it was.
        app_dir: from where it was imported.
        code: with which the program ended.
        stdout: what it said.
        stderr: the same.

    Returns:
        The app's default channel layer, where it has one that is not of this project; None: nothing to be told of.

    Raises:
        UsageError: the app does not import; the message ends with the exception, and where it was raised.
    """
    if code:
        reason = last_line(stderr.decode(errors="replace")) or f"exit code {code}"
        way = f". {_SET_UP_FIRST}" if any(name in reason for name in _NOT_SET_UP) else ""
        raise UsageError(f"--app {app} does not import from {app_dir}: {reason}{way}")
    said = stdout.decode(errors="replace").splitlines()
    return next((line.removeprefix(_LAYER) for line in said if line.startswith(_LAYER)), None)
