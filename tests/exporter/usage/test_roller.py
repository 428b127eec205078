"""The roll-up follows the lake and the store: late rows, erasures, hours that are not over."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from datetime import date, timedelta

import pytest

from consumers.accounts import accounting
from consumers.accounts.accounting import Account
from exporter.lake.formats import Format
from exporter.lake.manifest import MANIFEST, folder
from exporter.usage import questions, stored
from exporter.usage.handler import completeness_of, make_handler
from exporter.usage.position import StreamPosition
from exporter.usage.roller import LIVE_DAYS, RollUpError
from exporter.usage.rollup import Completeness, RollUp, merge
from tests.builders import Context
from tests.exporter.usage.usage_lake import Lake, keep
from tests.exporter.usage.usage_rows import START, rolled, row, traffic
from tests.twins import forget_client

DAYS = [START.date() + timedelta(days=number) for number in range(5)]
MANIFEST_OF_DAY_0 = folder(DAYS[0]) + MANIFEST


def requests_of(lake: Lake) -> list[int]:
    """Return the requests of each day that has a roll-up."""
    there = stored.days_there(lake.bucket)
    days, _ = stored.read_days(lake.bucket, there)
    return [days[day].usage.total.requests for day in sorted(there)]


def read_days(lake: Lake, days: Sequence[date]) -> dict[date, RollUp]:
    """Return the roll-ups of days, from their own objects."""
    return stored.read_days(lake.bucket, dict.fromkeys(days, ""))[0]


def erase(lake: Lake, client: str) -> None:
    """Remove a client's rows from the lake, as `tagline forget` does: the store keeps them."""
    forget_client(client, lake.bucket, START + timedelta(days=30))


def rows_of(lake: Lake, number: int) -> int:
    return sum(str(values[0])[:10] == str(DAYS[number]) for values in lake.store.kept)


@pytest.fixture
def lake() -> Lake:
    """Return a lake of two days; of the next two, only the store has rows."""
    lake = Lake([each for day in traffic(4, routes=5, clients=4, requests=40) for each in day])
    lake.export(0, 1)
    return lake


@pytest.mark.parametrize("kind", Format)
def test_a_day_of_the_lake_is_what_its_files_have_in_any_format(kind: Format) -> None:
    (rows,) = traffic(1, routes=5, clients=4, requests=60)
    rows += [
        row(START, None, None, status=None, timed_out=True),
        row(START, "/=cmd()", 'é,"\n', duration_ms=None),
    ]
    lake = Lake([*rows, row(START, type_="meter")])
    lake.export(0, kind=kind)

    assert str(DAYS[0]) in lake.roll().days

    (day,) = read_days(lake, DAYS[:1]).values()
    hours, _ = stored.read_hours(lake.bucket, DAYS[0])
    assert day.usage == merge(hours).usage == rolled(rows, START).usage
    assert (len(hours), day.complete, day.revision) == (24, True, 1)


def test_each_day_has_its_rows_and_a_run_without_news_changes_the_last_hour_only(lake: Lake) -> None:
    assert lake.roll().days == [str(day) for day in reversed(DAYS[:4])]
    noon = START + timedelta(days=3, hours=12)
    before_noon = sum(str(values[0]) < f"{noon:%Y-%m-%d %H}" for values in lake.store.kept)
    assert sum(requests_of(lake)) == before_noon
    asked, written = len(lake.store.asked), dict(lake.bucket)

    assert lake.roll().days == []
    lake.now += timedelta(minutes=10)
    again = lake.roll()

    assert again.days == [str(DAYS[3])]
    assert again.data_through == lake.now - timedelta(minutes=5)
    # The hour that is not over, each time, and the next one: no other is asked for again.
    assert len(lake.store.asked) - asked <= 3
    changed = {key for key, body in lake.bucket.items() if written.get(key) != body}
    assert changed - {stored.PAGE, stored.COUNTERS, stored.week_key(DAYS[3])} <= {
        *(stored.day_key(DAYS[3]), stored.hours_key(DAYS[3])),
        *(
            stored.view_key(name, each)
            for name in ("summary", "series", "routes", "clients")
            for each in questions.PRESETS
        ),
    }


def test_numbers_are_complete_until_the_consumer_stopped_also_if_the_lake_has_the_day(lake: Lake) -> None:
    stopped = START + timedelta(days=1, hours=10, minutes=3)
    lake.now = stopped
    lake.roll()
    lake.position = StreamPosition(stopped, 3_600.0)
    lake.now = START + timedelta(days=4, hours=1)
    lake.export(2, 3)

    assert lake.roll().data_through == stopped - timedelta(minutes=5)
    assert "1 hour" in lake.bucket[stored.PAGE].decode().partition("Behind the stream")[2][:60]
    day = read_days(lake, DAYS[1:2])[DAYS[1]]
    assert (day.complete, day.data_through) == (False, stopped - timedelta(minutes=5))

    lake.position = None
    caught_up = lake.roll()

    assert caught_up.data_through == lake.now - timedelta(minutes=5)
    assert all(day.complete for day in read_days(lake, DAYS[:4]).values())
    lake.position = StreamPosition(stopped, 3_600.0)
    assert lake.roll().data_through == caught_up.data_through, "what was complete stays complete"


@pytest.mark.parametrize("is_dropped", [False, True])
def test_an_old_day_that_the_lake_never_got_is_finished_from_the_store(is_dropped: bool, lake: Lake) -> None:
    stopped = START + timedelta(days=2, hours=10, minutes=3)
    lake.now = stopped
    lake.roll()
    unfinished = requests_of(lake)[2]
    in_store = rows_of(lake, 2)
    if is_dropped:
        lake.store.kept[:] = [values for values in lake.store.kept if str(values[0])[:10] != str(DAYS[2])]
    lake.now = stopped + timedelta(days=LIVE_DAYS + 1)

    assert lake.roll().data_through == lake.now - timedelta(minutes=5)

    assert requests_of(lake)[2] == (unfinished if is_dropped else in_store)
    assert 0 < unfinished < in_store
    assert read_days(lake, DAYS[2:3])[DAYS[2]].complete
    asked = len(lake.store.asked)
    assert str(DAYS[2]) not in lake.roll().days
    assert not [span for span in lake.store.asked[asked:] if span.start.startswith(str(DAYS[2]))]


def test_late_rows_and_an_erasure_revise_a_day_once_the_lake_has_changed(lake: Lake) -> None:
    lake.roll()
    before = read_days(lake, DAYS[:1])[DAYS[0]]
    keep(lake.store, [row(START, client="late")] * 2)
    assert lake.roll().days == []

    lake.export(0)
    assert lake.roll().days == [str(DAYS[0])]

    late = read_days(lake, DAYS[:1])[DAYS[0]]
    assert late.usage.total.requests == before.usage.total.requests + 2 == rows_of(lake, 0)
    assert late.usage.clients["late"].requests == 2
    assert (before.revision, late.revision) == (1, 2)
    assert late.source == next(each.etag for each in lake.bucket.listed(MANIFEST_OF_DAY_0))

    erase(lake, "late")
    lake.export(0)
    lake.roll()

    erased = read_days(lake, DAYS[:1])[DAYS[0]]
    assert erased.usage == before.usage
    assert erased.revision == 3
    assert not any(b'"late"' in _plain(body) for key, body in lake.bucket.items() if key.startswith("usage/"))


def _plain(body: bytes) -> bytes:
    """Return an object unpacked; that of a week has a line before its days."""
    head, packed, rest = body.partition(b"\x1f\x8b")
    return head + gzip.decompress(packed + rest) if packed else body


def test_a_week_of_days_is_one_object_and_days_that_changed_since_are_read_one_by_one(lake: Lake) -> None:
    lake.roll()
    there = stored.days_there(lake.bucket)
    weeks = {stored.week_key(day) for day in there}
    lake.bucket.read_keys.clear()

    days, alone = stored.read_days(lake.bucket, there)

    assert (set(lake.bucket.read_keys), alone) == (weeks, [])
    assert days == read_days(lake, DAYS)
    # A run that is killed after it has written a day has not written the week.
    old = lake.bucket[stored.week_key(DAYS[0])]
    keep(lake.store, [row(START, client="late")])
    lake.export(0)
    lake.roll()
    lake.bucket[stored.week_key(DAYS[0])] = old
    there = stored.days_there(lake.bucket)

    days, alone = stored.read_days(lake.bucket, there)

    assert (days, alone) == (read_days(lake, DAYS), [DAYS[0]])
    assert days[DAYS[0]].usage.clients["late"].requests == 1
    assert lake.roll().days == []
    assert stored.read_days(lake.bucket, there) == (days, [])
    assert list(days) == DAYS[:4]


def test_an_hour_of_the_store_that_got_rows_is_asked_again_and_no_other(lake: Lake) -> None:
    lake.roll()
    asked = len(lake.store.asked)
    at = START + timedelta(days=2, hours=3)
    keep(lake.store, [row(at)])

    assert lake.roll().days == [str(DAYS[2])]

    spans = [span.start for span in lake.store.asked[asked:]]
    assert [start for start in spans if not start.startswith(str(DAYS[3]))] == [
        f"{at:%Y-%m-%d %H}:00:00.000000000"
    ]
    hours, _ = stored.read_hours(lake.bucket, DAYS[2])
    assert [hour.revision for hour in hours] == [1, 1, 1, 2, *[1] * 20]


def test_what_is_known_of_lost_lines_is_revised_without_reading_the_day_again(lake: Lake) -> None:
    lake.roll()
    lake.completeness = {DAYS[2]: Completeness(2, 1), DAYS[0]: Completeness(9, 9)}

    lake.roll()

    days = read_days(lake, DAYS[:4])
    assert days[DAYS[2]].completeness == Completeness(2, 1)
    # A day that is older than those whose accounts are read keeps what was known of it.
    assert days[DAYS[0]].completeness == Completeness()
    assert LIVE_DAYS == 3


def test_what_was_lost_comes_from_the_accounts_and_is_unknown_if_one_cannot_be_read(lake: Lake) -> None:
    day, before = DAYS[2], DAYS[1]
    account = Account({"s": ((0, 4), (6, 9))}, {"late": {"s": ((2, 3),)}})
    document = accounting.to_json({day: {"/g": account}})
    lake.bucket[accounting.document_key(accounting.BATCHES, document)] = document

    assert completeness_of(lake.bucket, [day, before]) == {day: Completeness(1, 2), before: Completeness()}
    lake.bucket[f"{accounting.BATCHES}no-account"] = b"{"
    assert completeness_of(lake.bucket, [day, before]) == dict.fromkeys([day, before], Completeness(None))


def test_a_day_that_differs_from_its_manifest_fails_alone_and_keeps_its_numbers(lake: Lake) -> None:
    manifest = json.loads(lake.bucket[MANIFEST_OF_DAY_0])
    manifest["parts"][0]["types"]["api_request"] += 1
    lake.bucket[MANIFEST_OF_DAY_0] = json.dumps(manifest).encode()
    reports: list[int] = []
    handler = make_handler(lake.roller, report=lambda done: reports.append(len(done.days)))

    with pytest.raises(
        RollUpError, match=rf"{DAYS[0]}: TotalMismatchError: the roll-up of .* roll the day up"
    ):
        handler({}, Context(remaining_ms=900_000))

    assert reports == [3]
    assert sorted(stored.days_there(lake.bucket)) == DAYS[1:4]
    assert stored.PAGE in lake.bucket


def test_another_base_counts_other_records_and_never_both(lake: Lake) -> None:
    keep(lake.store, [row(START, type_="gateway_request")] * 3)
    lake.export(0)
    lake.roll()
    assert requests_of(lake)[0] == rows_of(lake, 0) - 3

    lake.type = "gateway_request"
    lake.roll()

    assert requests_of(lake) == [3, 0, 0, 0]


def test_without_time_nothing_is_begun_and_the_next_run_does_it(lake: Lake) -> None:
    short = lake.roll(seconds=60)

    assert (short.days, short.left) == ([], [str(day) for day in reversed(DAYS[:4])])
    assert lake.roll().days == short.left


def test_a_run_that_was_overtaken_writes_no_day_and_a_day_is_in_the_archive_as_it_is(lake: Lake) -> None:
    lake.roll()
    lake.bucket.archived.add(MANIFEST_OF_DAY_0)
    keep(lake.store, [row(START)])
    lake.export(0)

    assert lake.roll().days == []


def test_the_counters_go_up_with_late_rows_and_stay_when_rows_are_erased(lake: Lake) -> None:
    def counted() -> int:
        counters, _ = stored.read_counters(lake.bucket)
        assert counters is not None
        return sum(count for series, count in counters.totals().items() if series[0] == "requests")

    lake.roll()
    first = counted()
    keep(lake.store, [row(START, client="late")])
    lake.export(0)
    lake.roll()
    assert counted() == first + 1
    erase(lake, "late")
    lake.export(0)
    lake.roll()
    assert counted() == first + 1


def test_the_first_run_of_a_new_stack_has_a_page_of_nothing() -> None:
    lake = Lake()

    lake.roll()

    assert b"0 routes" in lake.bucket[stored.PAGE]
    assert requests_of(lake) == [0] * LIVE_DAYS
