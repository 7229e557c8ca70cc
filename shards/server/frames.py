"""A client's frames, cut from the stream of bytes (RFC 6455, section 5.2). Pure."""

from __future__ import annotations

try:
    from websockets.speedups import apply_mask
except ImportError:  # no wheel for this platform
    from websockets.utils import apply_mask

_TEXT, _MASKED = 0x81, 0x80
_LENGTH_IN_2, _LENGTH_IN_8 = 126, 127


def frame_end(data: bytes, start: int) -> int | None:
    """Tell where a client's frame ends, which may be after `data`; None where its head is not whole.

    Args:
        data: what was received.
        start: where the frame begins in it.
    """
    if len(data) < start + 2:
        return None
    length, head = data[start + 1] & 0x7F, 6 if data[start + 1] & _MASKED else 2
    if length < _LENGTH_IN_2:
        return start + head + length
    size = 2 if length == _LENGTH_IN_2 else 8
    if len(data) < start + 2 + size:
        return None
    return start + head + size + int.from_bytes(data[start + 2 : start + 2 + size], "big")


def payload_start(data: bytes, start: int) -> int:
    """Tell where the payload of a client's frame begins whose head is whole."""
    length, mask = data[start + 1] & 0x7F, 4 if data[start + 1] & _MASKED else 0
    return start + 2 + mask + (0 if length < _LENGTH_IN_2 else 2 if length == _LENGTH_IN_2 else 8)


def text_at(data: bytes, start: int, end: int) -> str | None:
    """Read a client's frame; None where it is not one plain text of less than 64 KiB (RFC 6455, section 5.2)."""
    length = data[start + 1]
    if data[start] != _TEXT or length < _MASKED or length & 0x7F == _LENGTH_IN_8:
        return None
    mask = start + (2 if length & 0x7F < _LENGTH_IN_2 else 4)
    try:
        return apply_mask(data[mask + 4 : end], data[mask : mask + 4]).decode()
    except UnicodeDecodeError:
        return None
