"""What one subject, or one address, may do at a worker in all, on however many sockets, and over HTTP.

What a socket may say and follow is limited for each, so this limits who opens many.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from shards.addresses import network_of
from shards.rate import Reaches, Shares
from shards.settings import Settings


@dataclass(frozen=True)
class Account:
    """The share of one.

    Attributes:
        name: whose it is.
        few: tells whether it has no more sockets than its share is of.
    """

    name: str
    few: Callable[[], bool]
    _words: Shares
    _bytes: Shares
    _groups: Reaches

    def may_ask(self, now: float) -> bool:
        """Tell whether one more frame may be said, or request made, at the moment `now`, in seconds."""
        return self._words.take(self.name, now)

    def may_publish(self, size: int, now: float) -> bool:
        """Tell whether `size` bytes more may be published at the moment `now`, in seconds."""
        return self._bytes.take(self.name, now, size)

    def may_reach(self, group: str, now: float, *, known: bool = False) -> bool:
        """Tell whether a group may be reached: it is no new one, or one that it may.

        Args:
            group: its name.
            now: the moment, in seconds.
            known: to the socket it is not new. So many as the share is of know no more than all may reach at once; and
                since each has counted what is new to it, all together are never over the limit of all.
        """
        return self._groups.takes(self.name, group, now, free=known and self.few())


class Subjects:
    """Counts sockets, requests, frames, bytes, new groups: of each subject, and of each address where nobody is named.

    Args:
        settings: of the worker.
    """

    def __init__(self, settings: Settings) -> None:
        self._most = settings.sockets_per_subject
        self._sockets: Counter[str] = Counter()
        self._subject_share = settings.subject_share
        self._of_subjects = _shares(settings, settings.subject_share)
        self._of_addresses = _shares(settings, settings.address_share)

    def room_for(self, subject: str) -> bool:
        """Tell whether a subject may have one more socket; one that is empty is anybody's, and has no limit."""
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

    def account(self, subject: str, address: str = "") -> Account | None:
        """Give the account of a client; None: it has none, and no limit but its own.

        Args:
            subject: of its token; empty: nobody's, or there is none.
            address: where it comes from; empty: it is not known.
        """
        if subject:
            return Account(subject, partial(self._has_few, subject), *self._of_subjects) if self._of_subjects else None
        # Sockets of an address are not counted.
        return Account(network_of(address), _never, *self._of_addresses) if self._of_addresses and address else None

    def _has_few(self, subject: str) -> bool:
        return self._sockets[subject] <= self._subject_share


def _never() -> bool:
    return False


def _shares(settings: Settings, share: float) -> tuple[Shares, Shares, Reaches] | None:
    if not share:
        return None
    groups = settings.groups_per_socket
    # At once never less than one socket may: the largest message would not fit.
    at_once = max(1.0, share)
    return (
        Shares(settings.rate_limit * share, settings.rate_limit * at_once * 2),
        Shares(settings.bytes_limit * share, settings.bytes_at_once * at_once),
        # As many are known as it may reach at once: who has the sockets of its share, and they their groups, comes back
        # to them over and over without naming new ones.
        Reaches(
            groups / settings.history_seconds * share, 2 * groups * at_once, int(2 * groups * at_once), least=2 * groups
        ),
    )
