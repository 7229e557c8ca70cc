"""The layer's messages as JSON: dicts of what JSON knows, and bytes.

Bytes go as ``{"__bytes__": base64}``. A message may hold a dict that looks like that (anyone can make an app pass one
on): its key gets one underscore more on the way, and loses it again.
"""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from typing import Any

Payload = dict[str, Any]

_MARK = "__bytes__"


def encode(message: Payload) -> bytes:
    """Give `message` as JSON.

    Raises:
        TypeError: it holds something that is neither JSON nor bytes, or is no dict.
    """
    if not isinstance(message, dict):
        raise TypeError("a message is a dict")
    text = json.dumps(message, default=_box, separators=(",", ":"))
    if _MARK in text:
        text = json.dumps(_escape(message), default=_box, separators=(",", ":"))
    return text.encode()


def decode(data: bytes) -> Any:
    """Read what `encode` gave.

    Raises:
        ValueError: it is something else.
    """
    return json.loads(data, object_hook=_unbox)


def _box(value: object) -> object:
    if isinstance(value, bytes | bytearray | memoryview):
        return {_MARK: b64encode(value).decode()}
    raise TypeError(f"a message holds JSON and bytes, not {type(value).__name__}")


def _escape(value: object) -> object:
    if isinstance(value, dict):
        lookalike = len(value) == 1 and str(next(iter(value))).startswith(_MARK)
        return {f"{key}_" if lookalike else key: _escape(inner) for key, inner in value.items()}
    return [_escape(inner) for inner in value] if isinstance(value, list | tuple) else value


def _unbox(value: Payload) -> object:
    if len(value) != 1:
        return value
    [(key, inner)] = value.items()
    if key == _MARK:
        return b64decode(inner, validate=True)
    return {key[:-1]: inner} if key.startswith(_MARK) else value
