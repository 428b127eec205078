"""The numbers of every source: what came is never lost, and what did not come is lost on one day."""

import random
from collections import Counter
from datetime import date, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consumers.accounts import sources
from consumers.accounts.accounting import Account, Losses, intervals
from consumers.accounts.sources import KEPT, MAX_GAP, MAX_RUNS, SETTLED_AFTER, SourceNumbers
from consumers.documents import NewerDocumentError

DAY = date(2026, 11, 19)
NEXT = DAY + timedelta(days=1)

Came = dict[date, list[tuple[int, int]]]


def numbers_of(*came: Came, group: str = "/a", src: str = "s") -> SourceNumbers:
    numbers = SourceNumbers()
    for days in came:
        numbers.add({day: {group: Account({src: intervals(ranges)})} for day, ranges in days.items()})
    return numbers


def lost(numbers: SourceNumbers) -> dict[date, int]:
    """Return how many lines were lost on each day."""
    return {day: of["/a"].lost for day, of in numbers.losses().items()}


@pytest.mark.parametrize(
    ("came", "expected"),
    [
        ({DAY: [(0, 9)]}, {}),
        ({DAY: [(5, 9)]}, {}),  # What was before the first is not known.
        ({DAY: [(0, 3), (6, 9)]}, {DAY: 2}),
        ({DAY: [(0, 3)], NEXT: [(4, 9)]}, {}),
        ({DAY: [(0, 3)], NEXT: [(6, 9)]}, {NEXT: 2}),
        ({DAY: [(0, 3)], NEXT + timedelta(days=90): [(6, 9)]}, {NEXT + timedelta(days=90): 2}),
        # Events over midnight, in another order than the numbers.
        ({DAY: [(0, 3), (5, 5)], NEXT: [(4, 4), (6, 9)]}, {}),
        # An hour's lines of the day before, which were late.
        (
            {DAY: [(0, 3)], NEXT: [(8, 9)], DAY - timedelta(days=1): [(6, 6)]},
            {NEXT: 1, DAY - timedelta(days=1): 2},
        ),
    ],
)
def test_a_number_is_lost_between_two_that_came_on_the_day_of_the_second(
    came: Came, expected: dict[date, int]
) -> None:
    each = [{day: ranges} for day, ranges in came.items()]

    assert lost(numbers_of(came)) == lost(numbers_of(*each)) == lost(numbers_of(*each[::-1])) == expected


def test_a_line_that_comes_later_is_no_longer_lost() -> None:
    numbers = numbers_of({DAY: [(0, 3)], NEXT: [(6, 9)]})

    numbers.add({DAY: {"/a": Account({"s": ((4, 4),)})}})

    assert lost(numbers) == {NEXT: 1}


def test_sources_and_log_groups_are_counted_apart() -> None:
    numbers = SourceNumbers()
    numbers.add({DAY: {"/a": Account({"s": ((0, 0),), "t": ((9, 9),)}), "/b": Account({"s": ((5, 5),)})}})

    assert numbers.losses() == {}
    assert len(numbers) == 3


@given(
    st.lists(
        st.tuples(st.sampled_from([DAY, NEXT, NEXT + timedelta(days=5)]), st.integers(0, 40)), max_size=30
    ),
    st.randoms(use_true_random=False),
)
@settings(max_examples=100)
def test_numbers_added_in_any_order_and_number_lose_the_same(
    came: list[tuple[date, int]], chance: random.Random
) -> None:
    again = [*came, *came]
    chance.shuffle(again)
    days: Came = {}
    for day, number in came:
        days.setdefault(day, []).append((number, number))
    one_by_one = numbers_of(*({day: [(number, number)]} for day, number in again))

    assert lost(one_by_one) == lost(numbers_of(days))
    present = {number for _, number in came}
    missing = set(range(min(present), max(present))) - present if present else set()
    assert sum(lost(one_by_one).values()) == len(missing)
    # A gap counts for the day of the number after it; one that came on several days, for the first of them.
    expected = Counter(
        min(day for day, each in came if each == min(n for n in present if n > number)) for number in missing
    )
    assert lost(one_by_one) == expected


@pytest.mark.parametrize(
    ("came", "refused"),
    [
        ([(0, 0), (10**15, 10**15)], {DAY: 1}),  # two forged lines
        ([(0, 99), (10**15, 10**15)], {DAY: 1}),
        ([(10**12, 10**12 + 50), (0, 0)], {DAY: 1}),  # a forged one below
        ([(0, 99), (MAX_GAP + 101, MAX_GAP + 102), (MAX_GAP + 200, MAX_GAP + 200)], {DAY: 3}),
    ],
)
def test_numbers_that_cannot_be_true_make_no_line_lost_and_are_counted(
    came: list[tuple[int, int]], refused: dict[date, int]
) -> None:
    numbers = numbers_of({DAY: came})

    assert {day: of["/a"] for day, of in numbers.losses().items()} == {
        day: Losses(0, lines) for day, lines in refused.items()
    }
    numbers.settle(DAY + timedelta(days=100))
    assert lost(numbers) == {DAY: 0}


def test_the_longest_gap_that_is_believed_is_lost() -> None:
    assert lost(numbers_of({DAY: [(0, 0), (MAX_GAP + 1, MAX_GAP + 1)]})) == {DAY: MAX_GAP}


def test_old_gaps_are_counted_and_no_longer_kept() -> None:
    numbers = numbers_of({DAY: [(0, 3), (6, 9)], NEXT: [(12, 12)]})
    today = DAY + SETTLED_AFTER + timedelta(days=1)

    assert numbers.settle(today) == 0
    assert lost(numbers) == {DAY: 2, NEXT: 2}
    before = len(numbers.to_json())

    # What fills the settled gap changes nothing; the other is still open.
    numbers.add({DAY: {"/a": Account({"s": ((4, 5),)})}})
    assert lost(numbers) == {DAY: 2, NEXT: 2}
    assert len(numbers.to_json()) == before
    numbers.add({NEXT: {"/a": Account({"s": ((10, 10),)})}})
    assert lost(numbers) == {DAY: 2, NEXT: 1}

    numbers.settle(DAY + KEPT)
    assert lost(numbers) == {DAY: 2, NEXT: 1}
    numbers.settle(DAY + KEPT + timedelta(days=1))
    assert lost(numbers) == {NEXT: 1}
    numbers.settle(today + timedelta(days=500))
    assert lost(numbers) == {}


def test_a_source_with_very_many_gaps_is_bounded_and_counted_in_full() -> None:
    numbers = numbers_of({DAY: [(number, number) for number in range(0, 4 * MAX_RUNS, 2)]})
    whole = len(numbers.to_json())

    numbers.settle(DAY)

    assert lost(numbers) == {DAY: 2 * MAX_RUNS - 1}
    assert len(numbers.to_json()) < 0.6 * whole
    numbers.settle(DAY)
    assert lost(numbers) == {DAY: 2 * MAX_RUNS - 1}


def test_the_sources_whose_last_line_is_the_oldest_are_forgotten_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sources, "MAX_SOURCES", 2)
    numbers = SourceNumbers()
    for src, day in (("old", DAY), ("new", NEXT), ("long", DAY), ("long", NEXT)):
        number = 0 if day == DAY else 1
        numbers.add({day: {"/a": Account({src: ((number, number),)})}})

    assert numbers.settle(NEXT) == 1
    assert len(numbers) == 2
    numbers.add({NEXT: {"/a": Account({"old": ((5, 5),), "new": ((5, 5),), "long": ((3, 3),)})}})
    assert lost(numbers) == {NEXT: 3 + 1}  # of new and long: of old, nothing is known


def test_numbers_are_read_back() -> None:
    numbers = numbers_of({DAY: [(0, 3), (6, 9)], NEXT: [(12, 12)]}, {DAY: [(2**53, 2**53)]})
    numbers.settle(DAY + SETTLED_AFTER + timedelta(days=1))

    read = SourceNumbers.from_json(numbers.to_json())

    assert (read.losses(), read.to_json()) == (numbers.losses(), numbers.to_json())
    assert SourceNumbers.from_json(None).losses() == {}


def test_numbers_of_a_newer_version_are_refused() -> None:
    newer = numbers_of({}).to_json().replace(b'"format_version":1', b'"format_version":2')

    with pytest.raises(NewerDocumentError, match="the numbers of sources has format_version 2"):
        SourceNumbers.from_json(newer)
