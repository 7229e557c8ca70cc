"""The ledger finds every kind of mistake, and counts each one once."""

from __future__ import annotations

import random
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shards.load.ledger import Account, GroupLedger, Impossible, Member, Tally, worst


def group(members: int = 2, start: int = 0) -> tuple[GroupLedger, list[Member]]:
    ledger = GroupLedger()
    made = [Member(ledger) for _ in range(members)]
    for member in made:
        member.subscribed("e", start, False)
    return ledger, made


def publish(ledger: GroupLedger, member: Member, count: int, acked: bool = True) -> None:
    """Publish messages 0, 1, 2 … that lie at offsets 1, 2, 3 …"""
    for _ in range(count):
        number = ledger.publish()
        if acked:
            ledger.acked(number, number + 1, member.log)


def give(member: Member, *offsets: int) -> None:
    for offset in offsets:
        member.message(offset, offset - 1)


def test_all_well() -> None:
    ledger, (a, b) = group()
    publish(ledger, a, 3)
    give(a, 1, 2, 3)
    give(b, 1, 2, 3)
    assert ledger.tally() == Tally(published=3, acked=3, expected=6, delivered=6)
    assert not ledger.unsettled()


def test_a_late_joiner_owes_nothing_from_before() -> None:
    ledger, (a,) = group(1)
    publish(ledger, a, 3)
    give(a, 1, 2, 3)
    Member(ledger).subscribed("e", 3, False)
    assert ledger.tally() == Tally(published=3, acked=3, expected=3, delivered=3)


def test_a_loss_in_the_middle() -> None:
    ledger, (a, b) = group()
    publish(ledger, a, 3)
    give(a, 1, 2, 3)
    give(b, 1, 3)
    assert ledger.tally() == Tally(published=3, acked=3, expected=6, delivered=5, lost=1, jumps=1)


def test_a_loss_at_the_end() -> None:
    ledger, (a, b) = group()
    publish(ledger, a, 3)
    give(a, 1, 2, 3)
    give(b, 1, 2)
    assert ledger.unsettled()
    assert ledger.tally() == Tally(published=3, acked=3, expected=6, delivered=5, lost=1)


def test_a_loss_that_hits_everyone_is_seen_by_its_ack() -> None:
    ledger, (a, b) = group()
    publish(ledger, a, 3)
    give(a, 1, 2)
    give(b, 1, 2)
    assert ledger.tally().lost == 2


def test_an_acked_message_whose_offset_holds_another_is_lost_for_everyone() -> None:
    ledger, (a, b) = group()
    publish(ledger, a, 2, acked=False)
    for member in (a, b):
        member.message(1, 1)
    ledger.acked(1, 1, a.log)
    ledger.acked(0, 1, a.log)
    assert (ledger.tally().lost, ledger.tally().expected, ledger.tally().delivered) == (2, 4, 2)


def test_a_message_not_acked_is_not_owed() -> None:
    ledger, (a, _) = group()
    publish(ledger, a, 1, acked=False)
    assert ledger.tally() == Tally(published=1)
    assert ledger.unsettled()


def test_a_duplicate_delivery() -> None:
    ledger, (a, b) = group()
    publish(ledger, a, 2)
    give(a, 1, 2)
    give(b, 1, 1, 2)
    assert ledger.tally() == Tally(published=2, acked=2, expected=4, delivered=4, duplicated=1)


def test_a_message_logged_twice_is_a_duplicate_for_each_member() -> None:
    ledger, (a, b) = group()
    publish(ledger, a, 1)
    for member in (a, b):
        member.message(1, 0)
        member.message(2, 0)
    assert ledger.tally().duplicated == 2


def test_a_message_that_is_given_again_in_another_epoch_is_a_duplicate_for_who_saw_both() -> None:
    ledger, (a, b, c) = group(3)
    publish(ledger, a, 2, acked=False)
    give(a, 1, 2)
    give(b, 1)
    c.gap("f", 0)
    for member in (a, b):
        member.gap("f", 0)
    for member in (a, b, c):
        member.message(1, 1)
        member.message(2, 0)
    books = ledger.accounts()
    assert [account.tally.duplicated for account in books] == [2, 1, 0]
    assert "logged twice: offset 2, id 0" in books[1].examples


def test_a_server_that_tells_of_gaps_without_end_does_not_fill_the_memory() -> None:
    ledger, (a, _) = group()
    publish(ledger, a, 2000, acked=False)
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for offset in range(1, 2000, 2):
        give(a, offset)
        a.gap("e", offset + 1)
    taken = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert taken < 60_000
    assert ledger.tally().gaps == 1000


def test_a_server_that_makes_up_epochs_without_end_does_not_fill_the_memory() -> None:
    ledger, (a, _) = group()
    publish(ledger, a, 2, acked=False)
    with pytest.raises(Impossible, match="a log of a new epoch, e99, after 100 others"):
        for number in range(200):
            a.gap(f"e{number}", 0)
    assert (len(ledger.logs), a.epoch) == (100, "e98")


def test_a_message_logged_twice_is_none_for_who_was_told_that_the_first_is_gone() -> None:
    ledger, (a, b) = group()
    publish(ledger, a, 2, acked=False)
    give(a, 1)
    b.gap("e", 2)
    a.gap("e", 2)
    for member in (a, b):
        member.message(3, 0)
    assert [account.tally.duplicated for account in ledger.accounts()] == [1, 0]


def test_a_swap() -> None:
    ledger, (a, b) = group()
    publish(ledger, a, 3)
    give(a, 1, 2, 3)
    give(b, 1, 3, 2)
    assert ledger.tally() == Tally(published=3, acked=3, expected=6, delivered=6, reordered=1, jumps=1)


def test_members_who_see_different_messages_at_one_offset() -> None:
    ledger, (a, b) = group()
    publish(ledger, a, 2, acked=False)
    a.message(1, 0)
    b.message(1, 1)
    assert ledger.tally().reordered == 1


def test_an_announced_gap_is_skipped_not_lost() -> None:
    ledger, (a, b) = group()
    publish(ledger, a, 3)
    give(a, 1, 2, 3)
    b.gap("e", 2)
    give(b, 3)
    assert ledger.tally() == Tally(published=3, acked=3, expected=6, delivered=4, skipped=2, gaps=1)


def test_a_new_epoch_is_skipped_not_lost() -> None:
    ledger, (a, b) = group()
    publish(ledger, a, 2)
    give(a, 1, 2)
    give(b, 1)
    for member in (a, b):
        member.gap("f", 0)
    assert ledger.publish() == 2
    ledger.acked(2, 1, a.log)
    a.message(1, 2)
    b.message(1, 2)
    assert ledger.tally() == Tally(published=3, acked=3, expected=6, delivered=5, skipped=1, gaps=2)


def test_what_a_member_missed_is_no_hole_in_the_next_epoch_and_no_copy_that_it_had() -> None:
    ledger, (a, b) = group()
    publish(ledger, a, 3)
    give(a, 1, 2, 3)
    give(b, 1, 3)
    ledger.publish()
    for member in (a, b):
        member.gap("f", 0)
        member.message(1, 1)
        member.message(2, 3)
    ledger.acked(3, 2, a.log)
    books = ledger.accounts()
    assert [(one.tally.expected, one.tally.delivered, one.tally.lost) for one in books] == [(5, 5, 0), (5, 4, 1)]
    assert [one.tally.duplicated for one in books] == [1, 0]


def test_a_resume_that_silently_skips_is_a_loss() -> None:
    ledger, (a, b) = group()
    publish(ledger, a, 3)
    give(a, 1, 2, 3)
    give(b, 1)
    b.subscribed("e", 2, True)
    give(b, 3)
    assert ledger.tally() == Tally(published=3, acked=3, expected=6, delivered=5, lost=1, jumps=1)


def test_a_resume_that_does_not_recover_is_a_gap_though_no_frame_says_so() -> None:
    ledger, (a, b) = group()
    publish(ledger, a, 3)
    give(a, 1, 2, 3)
    give(b, 1)
    b.subscribed("e", 3, False)
    assert ledger.tally() == Tally(published=3, acked=3, expected=6, delivered=4, skipped=2, gaps=1)


def test_a_gap_told_by_the_subscription_and_by_a_frame_is_one() -> None:
    ledger, (a, b) = group()
    publish(ledger, a, 3)
    give(a, 1, 2, 3)
    b.subscribed("e", 2, False)
    b.gap("e", 2)
    give(b, 3)
    assert ledger.tally() == Tally(published=3, acked=3, expected=6, delivered=4, skipped=2, gaps=1)


def test_a_resume_that_replays_what_was_seen_is_a_duplicate_for_each_message() -> None:
    ledger, (a, b) = group()
    publish(ledger, a, 3)
    give(a, 1, 2, 3)
    give(b, 1, 2)
    b.subscribed("e", 0, True)
    give(b, 1, 2, 3)
    assert ledger.tally() == Tally(published=3, acked=3, expected=6, delivered=6, duplicated=2)


def test_a_log_that_gives_an_offset_to_another_message_has_lost_the_first() -> None:
    """A shard that comes back without its end: what it had acked there is gone, though nobody misses an offset."""
    ledger, (a, b) = group()
    publish(ledger, a, 2)
    give(a, 1)
    give(b, 1)
    ledger.publish()
    a.message(2, 2)
    b.message(2, 2)
    ledger.acked(2, 2, a.log)
    tally = ledger.tally()
    assert (tally.expected, tally.delivered, tally.lost) == (6, 4, 2)
    assert tally.reordered > 0


def test_a_publisher_that_does_not_get_its_own_message_has_lost_it() -> None:
    ledger, (a, b) = group()
    publish(ledger, a, 1)
    give(b, 1)
    assert ledger.unsettled()
    assert ledger.tally() == Tally(published=1, acked=1, expected=2, delivered=1, lost=1)


def test_a_subscriber_that_never_came_back_has_lost_what_came_meanwhile() -> None:
    ledger, (a, b) = group()
    publish(ledger, a, 2)
    give(a, 1, 2)
    assert b.behind()
    assert ledger.tally().lost == 2


def test_a_message_behind_a_later_one_of_its_publisher_was_overtaken() -> None:
    ledger, (a, b) = group()
    for publisher in (0, 1, 0, 1):
        ledger.publish(publisher)
    for offset, number in enumerate((0, 3, 2, 1, 3), start=1):
        a.message(offset, number)
        b.message(offset, number)
    tally = ledger.tally()
    assert (tally.overtaken, tally.duplicated, tally.reordered) == (1, 2, 0)
    assert ledger.publishers() == 2


def test_what_went_wrong_is_in_the_books_of_the_client_it_happened_to() -> None:
    """Three losses, a duplicate and a swap, each with another client; a fifth is well."""
    ledger, members = group(5)
    publish(ledger, members[4], 6)
    for member, offsets in zip(
        members,
        [(1, 2, 4, 5, 6), (1, 2, 3, 4), (1, 2, 3, 3, 4, 5, 6), (1, 3, 2, 4, 5, 6), (1, 2, 3, 4, 5, 6)],
        strict=True,
    ):
        give(member, *offsets)
    books = ledger.accounts()
    assert [account.examples for account in books[1:]] == [
        ["lost: offset 5, id 4", "lost: offset 6, id 5"],
        ["duplicated: offset 3, id 2"],
        ["reordered: offset 2, id 1, after offset 3"],
        [],
    ]
    assert books[0].examples == ["lost: offset 3, id 2"]
    assert [(a.tally.lost, a.tally.duplicated, a.tally.reordered) for a in books] == [
        (1, 0, 0),
        (2, 0, 0),
        (0, 1, 0),
        (0, 0, 1),
        (0, 0, 0),
    ]
    assert [account.amiss for account in books] == [True, True, True, True, False]


def test_publishes_are_in_the_books_of_their_publisher() -> None:
    ledger, (a, b) = group()
    for publisher in (0, 1, 0):
        ledger.publish(publisher)
    ledger.acked(0, 1, a.log)
    ledger.acked(1, 2, b.log)
    give(a, 1, 2)
    give(b, 1, 2)
    first, second = ledger.accounts()
    assert (first.tally.published, first.tally.acked, first.examples) == (2, 1, ["not acked: id 2"])
    assert (second.tally.published, second.tally.acked, second.examples) == (1, 1, [])


def test_a_message_that_vanished_is_in_the_books_of_all_who_should_have_had_it() -> None:
    ledger, (a, b) = group()
    publish(ledger, a, 1)
    give(a, 1)
    give(b, 1)
    ledger.publish()
    ledger.acked(1, 1, a.log)
    lost = "lost: id 1, which was acked and nobody was given"
    assert [account.examples for account in ledger.accounts()] == [
        [lost, "acked where another message is: id 1"],
        [lost],
    ]


@given(
    messages=st.integers(1, 40),
    given_to=st.lists(st.lists(st.integers(1, 40), max_size=60), min_size=1, max_size=5),
    acked=st.sets(st.integers(0, 39)),
    publishers=st.lists(st.integers(0, 4), min_size=40, max_size=40),
)
def test_the_clients_books_make_the_total(
    messages: int, given_to: list[list[int]], acked: set[int], publishers: list[int]
) -> None:
    """Whatever was delivered in whatever order: counted here a second way, from the lists alone."""
    ledger, members = group(len(given_to))
    for number in range(messages):
        ledger.publish(publishers[number] % len(members))
        if number in acked:
            ledger.acked(number, number + 1, members[0].log)
    lists = [[offset for offset in offsets if offset <= messages] for offsets in given_to]
    for member, offsets in zip(members, lists, strict=True):
        give(member, *offsets)
    end = max([offset for offsets in lists for offset in offsets] + [n + 1 for n in acked if n < messages], default=0)
    for account, offsets in zip(ledger.accounts(), lists, strict=True):
        assert account.tally.delivered == len(set(offsets))
        assert account.tally.duplicated == len(offsets) - len(set(offsets))
        assert account.tally.lost == end - len(set(offsets))
    total = ledger.tally()
    assert (total.published, total.acked) == (messages, len([n for n in acked if n < messages]))
    assert total == sum((account.tally for account in ledger.accounts()), start=Tally())


@pytest.mark.parametrize("kind", ["lost", "skipped", "duplicated", "reordered", "overtaken", "gaps", "jumps"])
def test_one_fault_of_any_kind_is_worse_than_any_lateness(kind: str) -> None:
    late, hit = Account(0, Tally(published=9, acked=9, expected=9, delivered=9, late=9), []), Account(1, Tally(), [])
    setattr(hit.tally, kind, 1)
    assert hit.amiss
    assert worst([late, hit], 1) == [hit]


def test_the_worst_accounts_come_first() -> None:
    accounts = [Account(n, Tally(lost=lost, late=late), []) for n, (lost, late) in enumerate([(0, 9), (2, 0), (0, 1)])]
    assert [account.client for account in worst(accounts, 2)] == [1, 0]


def test_ten_minutes_of_a_thousand_messages_a_second_fit_in_the_memory_that_is_promised() -> None:
    """By the member and by the message, as docs/load.md says; a group of ten of them stands for all."""
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    groups = [group(10) for _ in range(100)]
    members = tracemalloc.get_traced_memory()[0]
    assert (members - before) / 1000 < 1000
    for ledger, them in groups:
        for number in range(600):
            ledger.publish(number % 10)
            for member in them:
                member.message(number + 1, number)
            ledger.acked(number, number + 1, them[0].log)
    after = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert (after - members) / 60_000 < 20


@pytest.mark.parametrize("number", [1, -1])
def test_an_ack_for_what_was_never_published_is_refused(number: int) -> None:
    ledger, (a, _) = group()
    ledger.publish()
    a.message(1, 0)
    with pytest.raises(Impossible):
        ledger.acked(number, 1, a.log)
    assert ledger.tally().acked == 0


def test_a_message_that_was_never_published_is_refused_in_a_hole_too() -> None:
    ledger, (a, b) = group()
    publish(ledger, a, 2, acked=False)
    a.message(2, 1)
    with pytest.raises(Impossible):
        b.message(1, 7)


@pytest.mark.parametrize(("offset", "number"), [(1, 1), (1, -1), (10**15, 0)], ids=["number", "negative", "offset"])
def test_the_impossible_is_refused(offset: int, number: int) -> None:
    ledger, (a, _) = group()
    ledger.publish()
    with pytest.raises(Impossible):
        a.message(offset, number)


def test_a_resume_at_a_place_that_the_log_cannot_have_reached_is_refused() -> None:
    """What lies up to there would all be missed, one by one."""
    ledger, (a, _) = group()
    ledger.publish()
    with pytest.raises(Impossible):
        a.subscribed("e", 5000, True)
    assert (a.position, ledger.tally().lost) == (0, 0)


@given(count=st.integers(0, 60), seed=st.integers(), drops=st.sets(st.integers(1, 60)), start=st.integers(0, 1000))
def test_whatever_the_order_each_delivery_is_counted_once(count: int, seed: int, drops: set[int], start: int) -> None:
    ledger, (a, b) = group(2, start)
    for _ in range(count):
        number = ledger.publish()
        ledger.acked(number, start + number + 1, a.log)
    order = [n for n in range(1, count + 1) if n not in drops]
    for n in range(1, count + 1):
        a.message(start + n, n - 1)
    random.Random(seed).shuffle(order)
    for n in order:
        assert b.message(start + n, n - 1)
    tally = ledger.tally()
    assert (tally.expected, tally.delivered) == (2 * count, count + len(order))
    assert (tally.lost, tally.duplicated) == (count - len(order), 0)
