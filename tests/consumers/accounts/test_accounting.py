"""A batch's accounts hold what came, however often and in what order the batches came."""

from datetime import UTC, date, datetime
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consumers.accounts import accounting
from consumers.accounts.accounting import (
    Account,
    Losses,
    MergedAccount,
    Totals,
    count,
    day_of_event,
    from_json,
    intervals,
    to_json,
    totals,
)
from consumers.lines.extract import Rejected
from consumers.lines.ledger import Ledger
from consumers.lines.subscription import LogEvent
from consumers.replay import from_quarantine
from tests.builders import GROUP, LOGGED, data, envelope, kinesis_event
from tests.consumers.accounts.batches import TAG, consume, line, lines_of, note, written
from tests.twins import Objects, merge

DAY = date(2025, 11, 20)
DAY_MS = 86_400_000

RANGES = st.lists(
    st.tuples(st.integers(0, 40), st.integers(0, 9)).map(lambda at: (at[0], at[0] + at[1])), max_size=6
)
SOURCES = st.dictionaries(st.sampled_from("ab"), RANGES.map(intervals), max_size=2)
SOME_SOURCES = st.dictionaries(st.sampled_from("ab"), RANGES.map(intervals), min_size=1, max_size=2)
COUNTS = st.dictionaries(st.sampled_from(["k1", "k2"]), st.integers(0, 9), min_size=1)
ACCOUNTS = st.builds(
    Account,
    SOURCES,
    st.dictionaries(st.sampled_from(["late", "invalid"]), SOME_SOURCES, max_size=2),
    st.dictionaries(st.sampled_from(["mentioned", "unnumbered", "unnumbered_late"]), COUNTS),
)


@given(RANGES)
def test_intervals_hold_the_same_numbers_in_order_and_apart(ranges: list[tuple[int, int]]) -> None:
    numbers = {number for first, last in ranges for number in range(first, last + 1)}

    joined = intervals(ranges)

    assert [number for first, last in joined for number in range(first, last + 1)] == sorted(numbers)
    assert all(after[0] > before[1] + 1 for before, after in pairwise(joined))
    assert count(joined) == len(numbers)


@given(st.lists(ACCOUNTS, max_size=5))
@settings(max_examples=40)
def test_accounts_merged_in_place_are_the_union_in_any_order_and_number(accounts: list[Account]) -> None:
    expected = Account()
    for each in accounts:
        expected = merge(expected, each)
    for order in (accounts, accounts[::-1], accounts * 2):
        merged = MergedAccount()
        for each in order:
            merged.add(each)

        assert merge(Account(), merged.account()) == merge(Account(), expected)


@settings(max_examples=40)
@given(st.dictionaries(st.dates(), st.dictionaries(st.text(max_size=5), ACCOUNTS, max_size=2), max_size=2))
def test_a_document_holds_the_accounts_that_it_was_made_of(
    accounts: dict[date, dict[str, Account]],
) -> None:
    assert from_json(to_json(accounts), "accounting/batches/x.json") == accounts


def test_totals_add_up() -> None:
    account = Account(
        {"s": ((0, 4), (7, 9))},
        {"late": {"s": ((8, 8),)}},
        {"unnumbered": {"k": 3, "l": 1}, "unnumbered_late": {"k": 1}, "mentioned": {"k": 2}},
    )

    found = totals(account, Losses(lost=2, implausible=1))

    assert found == Totals(14, 12, {"late": 2}, 2, implausible=1, mentioned=2)


def test_a_line_counts_for_the_day_of_its_log_event_and_not_of_its_record() -> None:
    objects = Objects()
    said = written((line(0, timestamp=LOGGED - 3 * DAY_MS), LOGGED), (line(1), LOGGED + DAY_MS))

    consume(kinesis_event(data(said)), objects)

    assert len(objects) == 1
    assert objects.accounts(DAY)[GROUP].delivered == {"s1": ((0, 0),)}
    assert objects.accounts(date(2025, 11, 21))[GROUP].delivered == {"s1": ((1, 1),)}


def test_lines_without_a_number_are_counted_by_kinesis_record() -> None:
    objects = Objects()
    event = kinesis_event(data(envelope(line(None, src=None), line(None, src=None))))

    consume(event, objects)
    consume(event, objects)

    assert totals(objects.accounts(DAY)[GROUP]) == Totals(2, 2, {}, 0)


@pytest.mark.parametrize(
    ("src", "seq"), [("s" * 65, 0), ("\u00e9", 0), ("s1", -1), ("s1", 2**53 + 1), ("s1", 10**30)]
)
def test_what_no_emitter_writes_as_a_number_is_no_number(src: str, seq: int) -> None:
    objects = Objects()
    batch, ledger = accounting.BatchAccounts(TAG), Ledger(kinesis_event(data(envelope("x")))["Records"])
    batch.add(0, GROUP, LOGGED, src, seq)

    accounting.write(batch, ledger, objects)

    assert objects.accounts(DAY)[GROUP].delivered == {}
    assert totals(objects.accounts(DAY)[GROUP]).delivered == 1


def test_mentions_are_counted_once_for_each_kinesis_record() -> None:
    objects = Objects()
    event = kinesis_event(data(envelope(line(0))), data(envelope(line(1))))
    for _ in range(2):
        ledger, batch = Ledger(event["Records"]), accounting.BatchAccounts(TAG)
        ledger.mentioned.update({(0, LOGGED // DAY_MS, GROUP): 2, (1, LOGGED // DAY_MS, "/other"): 1})
        accounting.write(batch, ledger, objects)

    mentioned = {group: totals(each).mentioned for group, each in objects.accounts(DAY).items()}
    assert mentioned == {GROUP: 2, "/other": 1}


def test_a_cut_line_is_quarantined_and_not_lost() -> None:
    cut = line(1, text="x" * 50)[:-20]
    objects = Objects()

    consume(kinesis_event(data(envelope(line(0), cut, line(2)))), objects)

    assert totals(objects.accounts(DAY)[GROUP]) == Totals(3, 3, {"unparseable": 1}, 0)
    assert objects.accounts(DAY)[GROUP].delivered == {"s1": ((0, 2),)}


def test_text_that_a_user_typed_gives_no_number_and_a_mention_is_counted() -> None:
    objects = Objects()
    typed = f'INFO searched for {{"_tag":"{TAG}","_src":"s1","_seq":999}}'

    consume(kinesis_event(data(envelope(line(0), typed, f"about {TAG}s", line(1)))), objects)

    account = objects.accounts(DAY)[GROUP]
    assert account.delivered == {"s1": ((0, 1),)}
    assert totals(account) == Totals(3, 3, {"prefix": 1}, 0, mentioned=1)


def test_what_the_store_refuses_is_quarantined_on_the_day_on_which_it_was_written() -> None:
    objects, batch = Objects(), accounting.BatchAccounts(TAG)
    ledger = Ledger(kinesis_event(data(envelope(line(7, timestamp=LOGGED - DAY_MS))))["Records"])
    (only,) = lines_of(ledger)
    note(batch, only)
    ledger.reject(only.position, only.event, Rejected("late", "too old"))

    accounting.write(batch, ledger, objects)

    assert objects.accounts(DAY)[GROUP].quarantined == {"late": {"s1": ((7, 7),)}}


def test_an_undecodable_kinesis_record_counts_as_one_of_an_unknown_group() -> None:
    objects = Objects()

    consume(kinesis_event("AAAA"), objects)

    assert totals(objects.accounts(DAY)[""]).quarantined == {"undecodable": 1}


def test_what_is_delivered_again_is_accounted_for_then() -> None:
    objects = Objects()
    event = kinesis_event(*(data(envelope(line(seq), line(None))) for seq in range(3)))

    consume(event, objects, failing=1)

    account = objects.accounts(DAY)[GROUP]
    assert account.delivered == {"s1": ((0, 0),)}
    assert totals(account).delivered == 2


def test_a_batch_whose_accounts_cannot_be_written_is_delivered_again_as_a_whole() -> None:
    event = kinesis_event(data(envelope(line(0))), data(envelope(line(1))))

    ledger = consume(event, Objects(failing="accounting/"))

    first = event["Records"][0]["kinesis"]["sequenceNumber"]
    assert (ledger.unaccounted, ledger.unwritten) == (1, 0)
    assert ledger.response() == {"batchItemFailures": [{"itemIdentifier": first}]}


@pytest.mark.parametrize("fewer", [{"records": 1}, {"records": 3, "failing": 1}])
def test_a_batch_that_begins_like_another_and_has_less_takes_nothing_of_that_away(
    fewer: dict[str, int],
) -> None:
    event = kinesis_event(*(data(envelope(line(seq))) for seq in range(3)))
    objects = Objects()
    consume(event, objects)

    consume({"Records": event["Records"][: fewer["records"]]}, objects, failing=fewer.get("failing"))

    assert objects.accounts(DAY)[GROUP].delivered == {"s1": ((0, 2),)}


@pytest.mark.parametrize("body", ["AAAA", data(envelope(line(None), f"{TAG} {{broken", f"{TAG} {{too"))])
def test_what_is_replayed_from_quarantine_is_the_same_line(body: str) -> None:
    objects = Objects()
    consume(kinesis_event(body), objects)
    before = {group: totals(account) for group, account in objects.accounts(DAY).items()}

    for _ in range(2):  # What is rejected again is replayed again.
        keys = [key for key in objects if key.startswith("quarantine/")]
        for record in [record for key in keys for record in from_quarantine(key, objects.pop(key))]:
            consume({"Records": [record]}, objects)

    assert {group: totals(account) for group, account in objects.accounts(DAY).items()} == before


def test_a_time_beyond_the_calendar_is_accounted_for_on_its_last_day() -> None:
    objects = Objects()

    consume(kinesis_event(data(written((line(0), 10**18)))), objects)

    assert totals(objects.accounts(date.max)[GROUP]).delivered == 1


def test_a_log_group_that_orjson_cannot_write_is_accounted_for() -> None:
    accounts: dict[date, dict[str, Account]] = {DAY: {"\ud800": Account({"s1": ((0, 1),)})}}

    assert from_json(to_json(accounts), "accounting/batches/x.json") == accounts


def test_a_kinesis_record_that_comes_twice_in_a_batch_counts_once_for_each_of_its_lines() -> None:
    event = kinesis_event(data(envelope(line(0), line(1), line(None))))
    event["Records"] *= 2
    objects = Objects()

    consume(event, objects)

    (account,) = objects.accounts(DAY).values()
    assert account.delivered == {"s1": ((0, 1),)}
    assert {what: list(lines.values()) for what, lines in account.counts.items()} == {"unnumbered": [1]}


@pytest.mark.parametrize("step", [1, 2], ids=["one after another", "with gaps"])
def test_a_source_with_lines_in_hundreds_of_kinesis_records_of_a_batch_is_accounted_for(step: int) -> None:
    numbers = range(0, 500 * step, step)
    objects = Objects()

    consume(kinesis_event(*(data(envelope(line(number))) for number in numbers)), objects)

    (account,) = objects.accounts(DAY).values()
    assert account.delivered == {"s1": intervals((number, number) for number in numbers)}


def test_a_batch_without_tagged_lines_writes_no_accounts() -> None:
    objects = Objects()

    consume(kinesis_event(data(envelope("START"))), objects)

    assert objects == {}


def test_the_day_of_a_log_event_is_in_utc() -> None:
    last = int(datetime(2025, 11, 20, 23, 59, 59, tzinfo=UTC).timestamp()) * 1000
    days = [day_of_event(LogEvent("1", time, "", GROUP, "s", "o")) for time in (last, last + 1000)]

    assert days == [DAY, date(2025, 11, 21)]
