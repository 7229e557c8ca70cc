"""What a subject may reach on all of its sockets together: pure."""

from __future__ import annotations

from itertools import count

import pytest

from shards.rate import Reach
from shards.settings import Settings
from shards.subjects import Account, Subjects


class Sockets:
    """Sockets of one subject, each with its own limit, as `shards.consumers` asks both.

    Args:
        number: how many.
    """

    def __init__(self, number: int) -> None:
        self.settings = Settings()
        self.most = self.settings.groups_per_socket
        subjects = Subjects(self.settings)
        for _ in range(number):
            subjects.enter("backend")
        account = subjects.account("backend")
        assert account
        self.account: Account = account
        self.reaches = [self.another() for _ in range(number)]

    def another(self) -> Reach:
        return Reach(self.most / self.settings.history_seconds, 2 * self.most)

    def told(self, which: int, group: str, now: float) -> str:
        """Give what a socket that reaches a group hears: nothing, or whose limit it is over."""
        if not self.reaches[which].would_take(group, now):
            return "its own"
        if not self.account.may_reach(group, now, known=group in self.reaches[which]):
            return "the subject's"
        assert self.reaches[which].takes(group, now)
        return ""


@pytest.mark.parametrize("sockets", [3, 10])
def test_sockets_that_keep_to_their_groups_are_never_refused(sockets: int) -> None:
    """Each goes round its own, as many as it may have: the whole subject's are far more than of one socket."""
    subject = Sockets(sockets)
    for turn in range(12_000):
        which, number = turn % sockets, turn // sockets % subject.most
        assert subject.told(which, f"{which}-{number}", turn / 100) == "", turn


def test_sockets_that_come_anew_to_the_groups_of_before_are_not_refused() -> None:
    """Ten waves within a minute, twice the subscriptions that may be new."""
    subject = Sockets(10)
    for wave in range(10):
        subject.reaches = [subject.another() for _ in range(10)]
        for which in range(10):
            for number in range(2 * subject.most):
                assert subject.told(which, f"{which}-{number}", wave * 6.0) == ""


def test_groups_that_are_reached_all_the_time_are_not_new_however_many_others_are() -> None:
    """More groups than are known: those of one socket stay, those that another one names once make room."""
    subject = Sockets(10)
    known = 10 * 2 * subject.most
    fresh = count()
    for second in range(3 * known):
        if second % 3 == 0:
            # Nine sockets name a new one each 30 seconds.
            assert subject.told(1 + second // 3 % 9, f"once-{next(fresh)}", float(second)) == ""
        assert subject.told(0, f"home-{second % (2 * subject.most)}", float(second)) == "", second
    assert next(fresh) >= known


def come_back(sockets: int) -> list[str]:
    """Have nine name new groups for half an hour, and the rest come back to theirs then, and name as many new ones."""
    subject = Sockets(sockets)
    both = 2 * subject.most
    assert not any(subject.told(which, f"{which}-{n}", 0.0) for which in range(9, sockets) for n in range(both))
    for second in range(1800):
        for which in range(9):
            if second % 3 == 0:
                assert subject.told(which, f"once-{which}-{second}", float(second)) == ""
    back = [f"{{}}-{number}" for number in range(both)] + [f"{{}}-more-{number}" for number in range(both)]
    told = [subject.told(which, group.format(which), 1800.0) for group in back for which in range(9, sockets)]
    return told + [subject.told(w, f"{w}-last-{n}", 1800.0) for n in range(both) for w in range(9)]


def test_so_many_sockets_as_the_share_is_of_are_never_refused_for_the_subject() -> None:
    """Also where the subject's account no longer knows what is known to a socket."""
    assert set(come_back(10)) == {""}


def test_of_more_sockets_each_counts_what_the_subject_does_not_know() -> None:
    assert "the subject's" in come_back(15)


def test_new_groups_without_end_are_refused_all_the_same() -> None:
    subject = Sockets(20)
    told = [subject.told(number % 20, f"new-{number}", 0.0) for number in range(20 * 2 * subject.most)]
    assert told == [""] * 2000 + ["the subject's"] * 2000


def test_who_is_refused_for_the_subject_has_lost_nothing_of_its_own() -> None:
    subject = Sockets(11)
    for number in range(2000):
        assert subject.told(number % 10, f"new-{number}", 0.0) == ""
    for number in range(2 * subject.most + 1):
        assert subject.told(10, f"more-{number}", 0.0) == "the subject's"
    assert [subject.told(10, f"more-{number}", 600.0) for number in range(2 * subject.most)] == [""] * 200


def test_who_is_refused_for_itself_has_cost_the_subject_nothing() -> None:
    subject = Sockets(10)
    for number in range(5000):
        subject.told(0, f"new-{number}", 0.0)
    for which in range(1, 10):
        for number in range(2 * subject.most):
            assert subject.told(which, f"{which}-{number}", 0.0) == ""


def test_what_all_subjects_have_remembered_is_bounded() -> None:
    settings = Settings()
    subjects = Subjects(settings)
    for which in range(200):
        account = subjects.account(f"s{which}")
        assert account
        assert all(account.may_reach(f"{which}-{number}", 0.0) for number in range(2000))
        kept = account._groups._reaches._kept
    assert sum(len(reach) for reach in kept.values()) == 200_000 + 200 * 200
