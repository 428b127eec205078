"""Roll-ups count each record once, add up in any order, and lose none when their rows are limited."""

from __future__ import annotations

import gc
import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import permutations
from typing import Any

import duckdb
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consumers.accounts.minutes import NO_STATUS, UNANSWERED
from consumers.documents import NewerDocumentError
from exporter.usage.counting import usage_of_rows
from exporter.usage.groups import COLUMNS, question, read_groups
from exporter.usage.rollup import (
    DETAILS,
    NAMES,
    Completeness,
    Limits,
    Numbers,
    OverlapError,
    RollUp,
    TotalMismatchError,
    Usage,
    bounded,
    check_total,
    merge,
    read,
    total,
    usage_of,
)
from tests.exporter.usage.usage_rows import START, TYPE, Row, rolled, row, traffic

GIVEN_NAMES = st.sampled_from(["/pets", "/pets/{id}", "/other", None, "", "<script>", "🐈" * 70])
ROWS = st.builds(
    row,
    st.datetimes(datetime(2026, 11, 1), datetime(2026, 11, 1, 23, 59)),  # noqa: DTZ001 - written as UTC
    GIVEN_NAMES,
    st.sampled_from(["acme", "globex", None, ""]),
    method=st.sampled_from(["GET", "POST", None]),
    status=st.sampled_from([200, 201, 302, 404, 429, 401, 403, 500, 503, 99, 600, -1, None, 200.9]),
    error_type=st.sampled_from([None, "ValueError", "KeyError"]),
    duration_ms=st.one_of(st.none(), st.floats(-5, 1e6)),
    size=st.one_of(st.none(), st.floats(-5, 1e9)),
    timed_out=st.booleans(),
    unfinished=st.booleans(),
)
ROW_LISTS = st.lists(ROWS, max_size=30)


def usage(rows: list[Row]) -> Usage:
    """Return the usage of rows."""
    return usage_of_rows(COLUMNS, rows, TYPE)


@given(ROW_LISTS)
def test_hours_routes_and_clients_each_add_up_to_all_rows(rows: list[Row]) -> None:
    counted = usage(rows)

    assert counted.total.requests == len(rows)
    for parts in (counted.hours, counted.routes, counted.clients):
        assert total(parts.values()) == counted.total
    assert sum(counted.pairs.values()) == len(rows)
    assert counted.total.timed == sum(1 for values in rows if float(values[7] or 0) > 0)


@pytest.mark.parametrize(
    ("fields", "status", "counted"),
    [
        ({"status": 200}, 200, set()),
        ({"status": 404}, 404, {"client_errors"}),
        ({"status": 429}, 429, {"client_errors", "rate_limited"}),
        ({"status": 401}, 401, {"client_errors", "auth_failures"}),
        ({"status": 403}, 403, {"client_errors", "auth_failures"}),
        ({"status": 500}, 500, {"failures"}),
        ({"status": 599}, 599, {"failures"}),
        ({"status": None, "timed_out": True}, UNANSWERED, {"failures"}),
        ({"status": None, "unfinished": True}, UNANSWERED, {"failures"}),
        ({"status": 200, "timed_out": True}, 200, set()),
        ({"status": None}, NO_STATUS, set()),
        ({"status": 600}, NO_STATUS, set()),
        ({"status": 99}, NO_STATUS, set()),
    ],
)
def test_each_status_counts_as_defined(
    fields: dict[str, float | None], status: int, counted: set[str]
) -> None:
    numbers = usage([row(START, **fields)]).total  # type: ignore[arg-type]

    assert numbers.statuses == {status: 1}
    names = {"client_errors", "failures", "rate_limited", "auth_failures"}
    assert {name for name in names if getattr(numbers, name)} == counted


def test_records_of_other_types_and_columns_that_are_not_there_do_not_count() -> None:
    rows = [row(START), row(START, type_="meter"), row(START, status=500)]
    columns = ("time", "_type", "status")
    places = [COLUMNS.index(name) for name in columns]

    counted = usage_of_rows(columns, ([each[place] for place in places] for each in rows), TYPE)

    assert counted.total.statuses == {200: 1, 500: 1}
    assert counted.routes.keys() == {(None, None)}
    assert counted.total.timed == 0


@pytest.mark.parametrize("junk", ["fast", "nan", "inf", "-inf", ""])
def test_text_that_is_no_number_is_no_number(junk: str) -> None:
    values = list(row(START))
    for name in ("status", "duration_ms", "bytes"):
        values[COLUMNS.index(name)] = junk

    numbers = usage([tuple(values)]).total

    assert (numbers.statuses, numbers.buckets, numbers.bytes) == ({NO_STATUS: 1}, {}, 0)


@settings(max_examples=25)
@given(ROW_LISTS, st.sets(st.sampled_from(COLUMNS[2:])))
def test_the_stores_groups_and_the_rows_give_one_usage(rows: list[Row], missing: set[str]) -> None:
    kept = [name for name in COLUMNS if name not in missing]
    types = {"time": "TIMESTAMP", "status": "DOUBLE", "duration_ms": "DOUBLE", "bytes": "DOUBLE"}
    types |= {"timed_out": "BOOLEAN", "unfinished": "BOOLEAN"}
    cut = [tuple(value for name, value in zip(COLUMNS, each, strict=True) if name in kept) for each in rows]
    with duckdb.connect() as connection:
        columns = ", ".join(f'"{name}" {types.get(name, "VARCHAR")}' for name in kept)
        connection.execute(f"CREATE TABLE records ({columns})")
        if cut:
            connection.executemany(f"INSERT INTO records VALUES ({', '.join('?' * len(kept))})", cut)
        answer = connection.execute(question(kept, "records", f"\"_type\" = '{TYPE}'")).fetchall()

    assert usage_of(read_groups(answer)) == usage_of_rows(kept, cut, TYPE)


@given(ROW_LISTS, st.integers(1, 29))
def test_rows_counted_in_two_parts_are_the_rows_counted_at_once(rows: list[Row], cut: int) -> None:
    parts = usage(rows[:cut])
    parts.add(usage(rows[cut:]))

    assert parts == usage(rows)


@given(st.lists(ROW_LISTS, min_size=3, max_size=3), st.integers(0, 3), st.integers(0, 2))
def test_roll_ups_merge_in_any_order_and_grouping(
    days: list[list[Row]], routes: int, unfinished: int
) -> None:
    rollups = []
    for number, rows in enumerate(days):
        start = START + timedelta(days=number)
        through = start + timedelta(hours=5) if number == unfinished else None
        day = rolled(rows, start, through=through)
        known = Completeness(lost=None if number == 1 else number, quarantined=number)
        limits = Limits(routes, clients=1, pairs=2, errors=1)
        rollups.append(
            replace(day, usage=bounded(day.usage, limits), revision=number + 1, completeness=known)
        )

    merged = merge(rollups)
    for first, second, third in permutations(rollups):
        if abs((first.start - second.start).days) == 1:
            assert merge([merge([first, second]), third]) == merged
        assert merge([first, second, third]) == merged
    assert merged.usage.total.requests == sum(map(len, days))
    assert merged.revision == 3
    assert (merged.complete, merged.data_through) == (False, START + timedelta(days=unfinished, hours=5))


@pytest.mark.parametrize(
    ("hours", "type_", "problem"), [(23, TYPE, "share a time"), (24, "gateway_request", "the same requests")]
)
def test_roll_ups_that_would_count_a_request_twice_are_refused(hours: int, type_: str, problem: str) -> None:
    first = rolled([], START)
    second = replace(rolled([], START + timedelta(hours=hours)), type=type_)

    with pytest.raises(OverlapError, match=problem):
        merge([second, first])


def test_there_is_no_roll_up_of_nothing() -> None:
    with pytest.raises(ValueError, match="no roll-ups"):
        merge([])


@given(ROW_LISTS, st.integers(0, 4), st.integers(0, 3), st.integers(0, 3))
def test_a_limit_on_rows_moves_the_least_used_into_other(
    rows: list[Row], routes: int, clients: int, errors: int
) -> None:
    whole = usage(rows)

    cut = bounded(whole, Limits(routes, clients, pairs=3, errors=errors))

    assert cut.total == whole.total
    for name, limit in (("routes", routes), ("clients", clients)):
        kept, other, all_rows = getattr(cut, name), getattr(cut, f"other_{name}"), getattr(whole, name)
        assert len(kept) == min(limit, len(all_rows))
        assert other.names == len(all_rows) - len(kept)
        assert total([*kept.values(), other.numbers]) == whole.total
        left_out = [all_rows[key].requests for key in all_rows.keys() - kept.keys()]
        assert max(left_out, default=0) <= min((each.requests for each in kept.values()), default=len(rows))
    assert sum(cut.errors.values()) + cut.other_errors == sum(whole.errors.values())
    assert len(cut.pairs) <= 3
    assert all(route in cut.routes and client in cut.clients for route, client in cut.pairs)


@given(ROW_LISTS)
def test_a_roll_up_is_read_back(rows: list[Row]) -> None:
    day = rolled(rows, START, through=START + timedelta(hours=3))
    limits = Limits(routes=2, clients=1, pairs=2, errors=1)
    day = replace(
        day, usage=bounded(day.usage, limits), revision=7, completeness=Completeness(None, quarantined=2)
    )

    assert RollUp.from_json(day.to_json()) == day
    without_pairs = replace(day, usage=replace(day.usage, pairs={}))
    assert read([day.to_json()], DETAILS - {"pairs"}) == [without_pairs]
    unread: dict[str, Any] = {"routes": dict.fromkeys(day.usage.routes, Numbers())}
    unread |= {"clients": dict.fromkeys(day.usage.clients, Numbers()), "pairs": {}, "errors": {}}
    assert read([day.to_json()], {NAMES}) == [replace(day, usage=replace(day.usage, **unread))]
    unread |= {"routes": {}, "clients": {}}
    assert read([day.to_json()], ()) == [replace(day, usage=replace(day.usage, **unread))]
    # As version 1 wrote it.
    head, *sections = map(orjson.loads, day.to_json().split(b"\t"))
    old = head | dict(zip(("routes", "clients", "pairs", "errors"), sections, strict=True))
    assert RollUp.from_json(orjson.dumps({**old, "format_version": 1})) == day
    merge(read([day.to_json()], ()))
    assert read([day.to_json()], ()) == [replace(day, usage=replace(day.usage, **unread))], "none was changed"
    assert gc.isenabled()


def test_a_roll_up_of_another_format_is_refused() -> None:
    document = orjson.loads(rolled([], START).to_json().split(b"\t")[0]) | {"format_version": 3}

    with pytest.raises(NewerDocumentError, match="the roll-up has format_version 3"):
        RollUp.from_json(orjson.dumps(document))


def test_a_revision_counts_different_contents() -> None:
    first = rolled([row(START)], START)
    assert first.succeeding(None).revision == 1
    assert rolled([row(START)], START).succeeding(first).revision == 1

    late = rolled([row(START), row(START)], START).succeeding(first)
    assert late.revision == 2
    assert rolled([row(START), row(START)], START).succeeding(late).revision == 2
    assert rolled([row(START)], START).succeeding(late).revision == 3


def test_a_day_is_held_against_the_lakes_count_of_its_type() -> None:
    day = rolled([row(START), row(START)], START)

    check_total(day, {TYPE: 2, "meter": 9})
    with pytest.raises(
        TotalMismatchError, match=r"of 2026-11-01 counts 2 records of type 'api_request'.* has 3:"
    ):
        check_total(day, {TYPE: 3})
    with pytest.raises(TotalMismatchError, match="the lake has 0"):
        check_total(day, {"meter": 2})


def test_a_day_of_hours_is_the_day_counted_at_once() -> None:
    (rows,) = traffic(1, routes=20, clients=10, requests=2_000)
    random.Random(1).shuffle(rows)
    hours = []
    for number in range(24):
        start = START + timedelta(hours=number)
        of_hour = [each for each in rows if str(each[0]).startswith(f"{start:%Y-%m-%d %H}")]
        hours.append(RollUp.from_json(rolled(of_hour, start, 1).to_json()))

    day = merge(hours)

    assert (day.start, day.end, day.complete) == (START, START + timedelta(days=1), True)
    assert day.usage == rolled(rows, START).usage
    assert day.start.tzinfo is UTC
