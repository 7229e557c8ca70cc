"""The layer's messages as JSON: dicts of what JSON knows, bytes, and the floats that JSON has no word for.

Bytes go as ``{"__bytes__": base64}``, and what is infinite or not a number as ``{"__float__": "inf"}``: the
``Infinity`` that Python would write would cost each browser in the group its connection. A message may hold a dict that
looks like that (anyone can make an app pass one on): its key gets one underscore more on the way, and loses it again.
"""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from math import isfinite
from typing import Any

Payload = dict[str, Any]

_BYTES, _FLOAT = _MARKS = ("__bytes__", "__float__")


def encode(message: Payload) -> bytes:
    """Give `message` as JSON.

    Raises:
        TypeError: it holds something that is neither JSON nor bytes, or is no dict.
    """
    if not isinstance(message, dict):
        raise TypeError("a message is a dict")
    text = _plain(message)
    if text is None or any(mark in text for mark in _MARKS):
        try:
            text = _dumps(_escape(message))
        except (ValueError, RecursionError) as error:
            raise TypeError(f"JSON cannot say this: {error}") from None
    return text.encode()


def _plain(message: Payload) -> str | None:
    """Give `message` as JSON, the usual way; None where it holds what that can't say."""
    try:
        return _dumps(message)
    except (ValueError, RecursionError):
        return None


def _dumps(message: object) -> str:
    return json.dumps(message, default=_box, separators=(",", ":"), allow_nan=False)


def decode(data: bytes) -> Any:
    """Read what `encode` gave.

    Raises:
        ValueError: it is something else.
    """
    return json.loads(data, object_hook=_unbox)


def _box(value: object) -> object:
    if isinstance(value, bytes | bytearray | memoryview):
        return {_BYTES: b64encode(value).decode()}
    raise TypeError(f"a message holds JSON and bytes, not {type(value).__name__}")


def _escape(value: object) -> object:
    if isinstance(value, float) and not isfinite(value):
        return {_FLOAT: str(value)}
    if isinstance(value, dict):
        lookalike = len(value) == 1 and str(next(iter(value))).startswith(_MARKS)
        return {f"{key}_" if lookalike else key: _escape(inner) for key, inner in value.items()}
    return [_escape(inner) for inner in value] if isinstance(value, list | tuple) else value


def _unbox(value: Payload) -> object:
    if len(value) != 1:
        return value
    [(key, inner)] = value.items()
    if key == _BYTES:
        return b64decode(inner, validate=True)
    if key == _FLOAT:
        return float(inner)
    return {key[:-1]: inner} if key.startswith(_MARKS) else value
