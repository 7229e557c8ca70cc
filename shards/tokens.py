"""Signed tokens: which groups their bearer may subscribe and publish to, and until when.

A token is a JWT (RFC 7519) signed with HS256, so that any language can make one. Its claims: ``exp``; ``groups``, a
pattern or a list of them, in which ``*`` stands for any characters; ``may``, a list of ``subscribe`` and ``publish``
(both where it is left out); ``sub``, who it is for.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal, get_args

import jwt

from shards.errors import ShardsError, UsageError

logger = logging.getLogger(__name__)

Verb = Literal["subscribe", "publish"]
VERBS: tuple[Verb, ...] = get_args(Verb)

SUBJECT_LENGTH = 256
_ALGORITHM = "HS256"
_UNTOLD_SECONDS = 3600.0
"""For so long a grant is good that an earlier release hands over, which keeps neither when it expires nor its key."""

_KEY_CHARACTERS = 32
"""HS256 asks for a key at least as long as its hash (RFC 7518, section 3.2)."""

# Nothing that is special to fnmatch, but for the asterisk.
_PATTERN = re.compile(r"[A-Za-z0-9_.:*-]{1,100}\Z")


class BadToken(ShardsError):
    """A token that can't be accepted: forged, expired, or not what a token is. Never carries the token."""


@dataclass(frozen=True)
class Grant:
    """What a token grants.

    Attributes:
        groups: patterns of the groups.
        may: what may be done in them.
        subject: who it is for; empty: anyone.
        expires: until when it is good, seconds since 1970; 0: nobody said.
        key: which key has signed it, see `id_of`; empty: nobody said.
        ends: when the connection ends that it was shown for, since that key was taken away; 0: it was not.
    """

    groups: tuple[str, ...]
    may: frozenset[Verb] = frozenset(VERBS)
    subject: str = ""
    expires: float = field(default=0.0, compare=False)
    key: str = field(default="", compare=False)
    ends: float = field(default=0.0, compare=False)

    def allows(self, verb: Verb, group: str) -> bool:
        """Tell whether the bearer may do `verb` in `group`; who may subscribe may also read history and presence."""
        return verb in self.may and any(fnmatchcase(group, pattern) for pattern in self.groups)

    def with_an_end(self, now: float) -> Grant:
        """Give it as it goes on where it was carried to at the moment `now`, seconds since 1970: it has to end."""
        return self if self.key or self.expires else replace(self, expires=now + _UNTOLD_SECONDS)


@lru_cache(maxsize=16)
def id_of(key: str) -> str:
    """Give what a key may be called by: it is not found out from that."""
    return sha256(key.encode()).hexdigest()[:16]


def grant_of(groups: Iterable[str], may: Iterable[str], subject: str = "") -> Grant:
    """Make a grant of what somebody asks for.

    Raises:
        UsageError: a pattern or a verb is none.
    """
    patterns, verbs = tuple(groups), frozenset(may)
    if not patterns or not all(_PATTERN.match(pattern) for pattern in patterns):
        raise UsageError(
            "a token needs groups: patterns of 1-100 characters of A-Z a-z 0-9 _ . : - and * for any of them"
        )
    if not verbs or not verbs <= set(VERBS):
        raise UsageError("what a token's bearer may do is subscribe, publish, or both")
    if len(subject) > SUBJECT_LENGTH:
        raise UsageError(f"a token's subject has {SUBJECT_LENGTH} characters at most")
    return Grant(patterns, frozenset(verb for verb in VERBS if verb in verbs), subject)


def sign(grant: Grant, expires: int, key: str) -> str:
    """Make a token.

    Args:
        grant: what it grants.
        expires: until when, seconds since 1970.
        key: to sign with.
    """
    claims: dict[str, Any] = {"groups": list(grant.groups), "may": sorted(grant.may), "exp": expires}
    return jwt.encode(claims | ({"sub": grant.subject} if grant.subject else {}), key, _ALGORITHM)


def verify(token: str, keys: Sequence[str]) -> Grant:
    """Read a token that one of `keys` has signed.

    Raises:
        BadToken: none has, it has expired, or its claims are not a token's.
    """
    for key in keys:
        try:
            # A clock that is ahead of ours by a moment makes no token bad: when it was issued tells us nothing.
            claims = jwt.decode(token, key, [_ALGORITHM], {"require": ["exp", "groups"], "verify_iat": False})
            expires = float(claims["exp"])
        except jwt.InvalidSignatureError:
            continue
        except jwt.ExpiredSignatureError:
            raise BadToken("the token has expired: get a new one") from None
        except (jwt.InvalidTokenError, RecursionError, ValueError, OverflowError, TypeError) as error:
            # The library does not look at everything: a time may be infinite or beyond all floats, text no UTF-8.
            raise BadToken("that is no token, or it is damaged: get one as `inv token` makes them") from error
        return replace(_grant(claims), expires=expires, key=id_of(key))
    raise BadToken("the token is not signed with a key of this fleet")


def _grant(claims: dict[str, Any]) -> Grant:
    groups, may = claims["groups"], claims.get("may", list(VERBS))
    if isinstance(groups, str):
        groups = [groups]
    if not all(isinstance(value, list) and all(isinstance(text, str) for text in value) for value in (groups, may)):
        raise BadToken("a token's groups and may are lists of text")
    try:
        return grant_of(groups, may, claims.get("sub", ""))
    except UsageError as error:
        raise BadToken(str(error)) from None


class KeyFile:
    """The keys of a fleet: a file with one a line; the first signs, all verify. A change counts at once.

    Args:
        path: the file; empty: there is none, and no token is good.
    """

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path) if path else None
        self._read: tuple[tuple[int, int, int], list[str]] | None = None

    def keys(self) -> list[str]:
        """Read the keys.

        Raises:
            UsageError: the file can't be read, or holds a key that is too short.
        """
        if self._path is None:
            return []
        try:
            found = self._path.stat()
            stamp = (found.st_mtime_ns, found.st_size, found.st_ino)
            if self._read is None or self._read[0] != stamp:
                self._read = (stamp, _keys(self._path.read_text()))
        except (OSError, ValueError) as error:
            raise UsageError(f"cannot read the token keys in {self._path}: {type(error).__name__}") from None
        return self._read[1]

    def ids(self) -> frozenset[str]:
        """Give what the keys are called by, see `id_of`.

        Raises:
            UsageError: as `keys`.
        """
        return frozenset(map(id_of, self.keys()))

    def sign(self, grant: Grant, seconds: float) -> tuple[str, int]:
        """Make a token that is good for so many seconds; gives it and when it expires, seconds since 1970."""
        expires = int(time.time() + seconds)
        return sign(grant, expires, self.keys()[0]), expires

    def verify(self, token: str) -> Grant:
        """Read a token.

        Raises:
            BadToken: it is not good, or this fleet has no keys.
        """
        try:
            keys = self.keys()
        except UsageError as error:
            logger.warning("%s", error)
            keys = []
        return verify(token, keys)


def _keys(text: str) -> list[str]:
    keys = text.split()
    if not keys or any(len(key) < _KEY_CHARACTERS for key in keys):
        raise UsageError(f"a file of token keys holds one a line, of {_KEY_CHARACTERS} characters or more each")
    return keys
