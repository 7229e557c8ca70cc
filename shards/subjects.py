"""What the bearers of one subject's tokens may do at a worker in all.

What a socket may say and follow is limited for each, so this limits a person who opens many, or asks over HTTP.
"""

from __future__ import annotations

from collections import Counter

from shards.rate import Shares
from shards.settings import Settings


class Subjects:
    """Counts sockets, frames, requests and bytes by subject; one that is empty is anybody's, and has no limit.

    Args:
        settings: of the worker.
    """

    def __init__(self, settings: Settings) -> None:
        self._most = settings.sockets_per_subject
        self._sockets: Counter[str] = Counter()
        share = settings.subject_share
        self._words = Shares(settings.rate_limit * share, settings.rate_limit * max(1.0, share) * 2)
        # Less than one socket's: the largest message would never fit.
        self._bytes = Shares(settings.bytes_limit * share, settings.bytes_at_once * max(1.0, share))

    def room_for(self, subject: str) -> bool:
        """Tell whether a subject may have one more socket."""
        return not (self._most and subject) or self._sockets[subject] < self._most

    def enter(self, subject: str) -> None:
        """Count a socket, also where it has no room: one that another worker hands over is not cut."""
        if subject:
            self._sockets[subject] += 1

    def leave(self, subject: str) -> None:
        """Count it no more."""
        if subject:
            self._sockets[subject] -= 1
            if not self._sockets[subject]:
                del self._sockets[subject]

    def may_ask(self, subject: str, now: float) -> bool:
        """Tell whether a subject may say one more frame, or make one more request, at the moment `now`, in seconds."""
        return not subject or self._words.take(subject, now)

    def may_publish(self, subject: str, size: int, now: float) -> bool:
        """Tell whether a subject may publish `size` bytes more at the moment `now`, in seconds."""
        return not subject or self._bytes.take(subject, now, size)
