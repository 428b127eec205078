"""What is missing is told from all batches together, however often and in what order they came."""

import random
from datetime import date
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tagline import Record, write

from consumers.accounts import accounting
from consumers.accounts.accounting import Account, count, from_json, gaps, intervals, to_json, totals
from consumers.lines.batch import Line, tagged_lines
from consumers.lines.extract import Rejected
from consumers.lines.ledger import Ledger
from consumers.replay import from_quarantine
from tests.builders import GROUP, LOGGED, data, envelope, kinesis_event
from tests.twins import Objects, merge

TAG = "usage_record"
DAY = date(2025, 11, 20)

RANGES = st.lists(
    st.tuples(st.integers(0, 40), st.integers(0, 9)).map(lambda at: (at[0], at[0] + at[1])), max_size=6
)
SOURCES = st.dictionaries(st.sampled_from("ab"), RANGES.map(intervals), max_size=2)
COUNTS = st.dictionaries(st.sampled_from(["received", "unnumbered", "unnumbered_late"]), st.integers(0, 9))
ACCOUNTS = st.builds(
    Account,
    SOURCES,
    st.dictionaries(st.sampled_from(["late", "invalid"]), SOURCES, max_size=2),
    st.dictionaries(st.sampled_from(["k1", "k2"]), COUNTS, max_size=2),
)


def line(seq: int | None, *, src: str | None = "s1", timestamp: int = LOGGED, **fields: Any) -> str:
    return write(Record(f"{src}-{seq}", timestamp, fields, src=src, seq=seq))


def note(batch: accounting.BatchAccounts, said: Line) -> None:
    record = said.record
    batch.add(said.position, said.origin[0], record.timestamp, record.src, record.seq)


def consume(event: dict[str, Any], objects: Objects, *, failing: int | None = None) -> Ledger:
    """Do with a batch what the handler does around its store, which takes everything."""
    ledger, batch = Ledger(event["Records"]), accounting.BatchAccounts(TAG)
    for each in tagged_lines(ledger, TAG, ""):
        note(batch, each)
    if failing is not None:
        ledger.fail(failing)
    ledger.keep(objects)
    accounting.write(batch, ledger, objects)
    return ledger


@given(RANGES)
def test_intervals_hold_the_same_numbers_in_order_and_apart(ranges: list[tuple[int, int]]) -> None:
    numbers = {number for first, last in ranges for number in range(first, last + 1)}

    joined = intervals(ranges)

    assert [number for first, last in joined for number in range(first, last + 1)] == sorted(numbers)
    assert all(after[0] > before[1] + 1 for before, after in pairwise(joined))
    assert count(joined) == len(numbers)
    assert gaps(joined) == (max(numbers) - min(numbers) + 1 - len(numbers) if numbers else 0)


@given(ACCOUNTS, ACCOUNTS, ACCOUNTS)
def test_accounts_merge_in_any_order_and_any_number_of_times(
    one: Account, two: Account, three: Account
) -> None:
    assert merge(one, two) == merge(two, one)
    assert merge(merge(one, two), three) == merge(one, merge(two, three))
    assert merge(merge(one, two), two) == merge(one, two)
    assert merge(one, one) == merge(one, Account())


@given(st.dictionaries(st.text(), ACCOUNTS))
def test_an_object_says_the_accounts_that_it_was_made_of(accounts: dict[str, Account]) -> None:
    assert from_json(to_json(accounts)) == accounts


@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 60)), min_size=1, max_size=60),
    st.randoms(use_true_random=False),
)
def test_whatever_is_dropped_between_two_that_came_is_lost_and_nothing_else(
    came: list[tuple[str, int]], chance: random.Random
) -> None:
    datas = [data(envelope(line(seq, src=src))) for src, seq in came]
    objects = Objects()
    records = kinesis_event(*datas)["Records"]
    while records:  # batches of any size, each delivered once or twice
        batch = records[: (size := chance.randrange(1, 9))]
        for _ in range(chance.randrange(1, 3)):
            consume({"Records": batch}, objects)
        records = records[size:]

    found = totals(objects.accounts(DAY)[GROUP])

    by_source = {src: {seq for other, seq in came if other == src} for src, _ in came}
    emitted = sum(max(seqs) - min(seqs) + 1 for seqs in by_source.values())
    assert (found.emitted, found.delivered) == (emitted, len(set(came)))
    assert found.lost == emitted - len(set(came))
    assert found.duplicate == len(came) - len(set(came))


def test_lines_of_two_days_are_accounted_for_on_their_own_day() -> None:
    objects = Objects()

    consume(kinesis_event(data(envelope(line(0), line(1, timestamp=LOGGED - 86_400_000)))), objects)

    assert sorted(key[:40] for key in objects) == [
        "accounting/year=2025/month=11/day=19/sha",
        "accounting/year=2025/month=11/day=20/sha",
    ]
    assert objects.accounts(DAY)[GROUP].delivered == {"s1": ((0, 0),)}


def test_lines_without_a_number_are_counted_by_kinesis_record() -> None:
    objects = Objects()
    event = kinesis_event(data(envelope(line(None, src=None), line(None, src=None))))

    consume(event, objects)
    consume(event, objects)

    assert totals(objects.accounts(DAY)[GROUP]) == accounting.Totals(2, 2, 0, {}, 0)


@pytest.mark.parametrize("escaped", [False, True])
def test_a_cut_line_is_quarantined_and_not_lost(escaped: bool) -> None:
    cut = line(1, text="x" * 50)[:-20]
    cut = '{"level":"INFO","message":"' + cut.replace('"', '\\"') if escaped else cut
    objects = Objects()

    consume(kinesis_event(data(envelope(line(0), cut, line(2)))), objects)

    assert totals(objects.accounts(DAY)[GROUP]) == accounting.Totals(3, 3, 0, {"unparseable": 1}, 0)


def test_what_the_store_refuses_is_quarantined_on_its_own_day() -> None:
    objects, batch = Objects(), accounting.BatchAccounts(TAG)
    ledger = Ledger(kinesis_event(data(envelope(line(7, timestamp=LOGGED - 86_400_000))))["Records"])
    (only,) = tagged_lines(ledger, TAG, "")
    note(batch, only)
    ledger.reject(only.position, only.event, Rejected("late", "too old"))

    accounting.write(batch, ledger, objects)

    account = objects.accounts(date(2025, 11, 19))[GROUP]
    assert account.quarantined == {"late": {"s1": ((7, 7),)}}
    assert len(objects) == 1


def test_an_undecodable_kinesis_record_counts_as_one_of_an_unknown_group() -> None:
    objects = Objects()

    consume(kinesis_event("AAAA"), objects)

    assert totals(objects.accounts(DAY)[""]).quarantined == {"undecodable": 1}


def test_what_is_delivered_again_is_accounted_for_then() -> None:
    objects = Objects()
    event = kinesis_event(data(envelope(line(0))), data(envelope(line(1))), data(envelope(line(2))))

    consume(event, objects, failing=1)

    assert objects.accounts(DAY)[GROUP].delivered == {"s1": ((0, 0),)}


def test_a_batch_whose_accounts_cannot_be_written_is_delivered_again_as_a_whole() -> None:
    event = kinesis_event(data(envelope(line(0))), data(envelope(line(1))))

    ledger = consume(event, Objects(failing="accounting/"))

    first = event["Records"][0]["kinesis"]["sequenceNumber"]
    assert (ledger.unaccounted, ledger.unwritten) == (1, 0)
    assert ledger.response() == {"batchItemFailures": [{"itemIdentifier": first}]}


@pytest.mark.parametrize("fewer", [{"records": 1}, {"records": 3, "failing": 1}])
def test_a_batch_that_begins_as_another_and_tells_of_less_takes_nothing_of_that_away(
    fewer: dict[str, int],
) -> None:
    event = kinesis_event(*(data(envelope(line(seq))) for seq in range(3)))
    objects = Objects()
    consume(event, objects)

    consume({"Records": event["Records"][: fewer["records"]]}, objects, failing=fewer.get("failing"))

    assert objects.accounts(DAY)[GROUP].delivered == {"s1": ((0, 2),)}


@pytest.mark.parametrize("body", ["AAAA", data(envelope(line(None), f"{TAG} {{broken", f"{TAG} {{too"))])
def test_what_is_replayed_from_quarantine_is_no_other_line(body: str) -> None:
    objects = Objects()
    consume(kinesis_event(body), objects)
    before = {group: totals(account) for group, account in objects.accounts(DAY).items()}

    for _ in range(2):  # What is rejected again is replayed again.
        keys = [key for key in objects if key.startswith("quarantine/")]
        for record in [record for key in keys for record in from_quarantine(key, objects.pop(key))]:
            consume({"Records": [record]}, objects)

    assert {group: totals(account) for group, account in objects.accounts(DAY).items()} == before


def test_a_time_beyond_the_calendar_is_accounted_for_on_its_last_day() -> None:
    said = envelope(write(Record("r", LOGGED, {})).replace('"2025-', '"x-'))
    said["logEvents"][0]["timestamp"] = 10**18
    objects = Objects()

    consume(kinesis_event(data(said)), objects)

    assert totals(objects.accounts(date.max)[GROUP]).delivered == 1


@pytest.mark.parametrize("sources", [{"\ud800": ((0, 1),)}, {"s1": ((0, 10**18), (2**70, 2**70))}])
def test_what_orjson_cannot_say_is_accounted_for_all_the_same(
    sources: dict[str, tuple[tuple[int, int], ...]],
) -> None:
    accounts = {GROUP: Account(delivered=sources)}

    assert from_json(to_json(accounts)) == accounts


def test_a_kinesis_record_that_comes_twice_in_a_batch_counts_once_for_each_of_its_lines() -> None:
    event = kinesis_event(data(envelope(line(0), line(1), line(None))))
    event["Records"] *= 2
    objects = Objects()

    consume(event, objects)

    (account,) = objects.accounts(DAY).values()
    assert account.delivered == {"s1": ((0, 1),)}
    assert list(account.records.values()) == [{"received": 3, "unnumbered": 1}]
