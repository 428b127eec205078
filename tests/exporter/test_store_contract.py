"""What every store answers, the twin of the tests like a real one. The next store is one line in STORES."""

import random
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, date, datetime
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer
from moto.timestreamwrite.responses import TimestreamWriteResponse
from onemachine.timestream import Timestream as Engine
from onemachine.timestream import install
from onemachine.timestream.tables import TableSettings

from consumers.rows import registry
from exporter.store import (
    BillingStore,
    Column,
    Days,
    QuestionTooLargeError,
    Span,
    StoreError,
    Type,
    Values,
    whole,
)
from exporter.stores.lake.questions import LakeStore
from exporter.stores.timestream import Timestream
from tests.fragments import write_fragments
from tests.twins import Bucket, Rows

DAY, NEXT = date(2025, 11, 20), date(2025, 11, 21)
COLUMNS: Mapping[str, Type] = {
    "time": "timestamp",
    "_type": "text",
    "_id": "text",
    "source": "text",
    "route": "text",
    "client": "text",
    "status": "number",
    "item_count": "integer",
    "ok": "boolean",
    "note": "text",
    "paid_at": "timestamp",
}
WANTED = tuple(Column(*column) for column in COLUMNS.items())
ALL_DAY = whole(DAY)
MAX_ROWS = 2_500
_TIMESTREAM_TYPES = {
    "text": "VARCHAR",
    "number": "DOUBLE",
    "integer": "BIGINT",
    "boolean": "BOOLEAN",
    "timestamp": "TIMESTAMP",
}

Make = Callable[[Sequence[Values]], BillingStore]


def row(number: int, day: date = DAY, *, source: str = "/g") -> Values:
    time = f"{day} {number // 60 % 24:02}:{number % 60:02}:00.000000{number % 1000:03}"
    status = ("200", "0.25", None)[number % 3]
    return (
        *(time, "api_request", f"id-{number:05}", source, "/pets", "acme"),
        *(status, str(number), ("true", "false")[number % 2], f"note {number}", f"{day} 00:00:00.250000000"),
    )


@contextmanager
def twin() -> Iterator[Make]:
    yield lambda rows: Rows(COLUMNS, rows, max_rows=MAX_ROWS)


@contextmanager
def timestream() -> Iterator[Make]:
    """Timestream's adapter and botocore over the engine of one machine, which writes as the service does."""
    engine = Engine(lambda: _nanoseconds(f"{NEXT} 23:00:00.000000000"))
    engine.create_database("app", "key")
    moto_s_own = dict(vars(TimestreamWriteResponse))
    install(engine)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    client = boto3.client("timestream-query", endpoint_url=f"http://{host}:{port}")
    tables: list[str] = []

    def make(rows: Sequence[Values]) -> BillingStore:
        tables.append(f"table-{len(tables)}")
        engine.create_table("app", tables[-1], TableSettings(memory_hours=100))
        for start in range(0, len(rows), 100):
            engine.write_records("app", tables[-1], list(map(_record, rows[start : start + 100])))
        return Timestream(client, "app", tables[-1], max_rows=MAX_ROWS)

    yield make
    client.close()
    server.stop()
    engine.close()
    for name, value in moto_s_own.items():
        if callable(value):
            setattr(TimestreamWriteResponse, name, value)


def _record(values: Values) -> dict[str, Any]:
    named = {name: value for name, value in zip(COLUMNS, values, strict=True) if value is not None}
    time, kind = named.pop("time"), named.pop("_type")
    dimensions = {name: named.pop(name) for name in ("source", "route", "client") if name in named}
    if "paid_at" in named:
        named["paid_at"] = str(_nanoseconds(named["paid_at"]))
    return {
        "Time": str(_nanoseconds(time)),
        "TimeUnit": "NANOSECONDS",
        "MeasureName": kind,
        "MeasureValueType": "MULTI",
        "Dimensions": [{"Name": name, "Value": value} for name, value in dimensions.items()],
        "MeasureValues": [
            {"Name": name, "Value": value, "Type": _TIMESTREAM_TYPES[COLUMNS[name]]}
            for name, value in named.items()
        ],
    }


@contextmanager
def lake() -> Iterator[Make]:
    """The lake's adapter over a bucket: some columns are declared, and others are in the fragments' JSON."""
    declared: Mapping[str, Any] = {"status": "DOUBLE", "paid_at": "TIMESTAMP", "note": "VARCHAR"}

    def make(rows: Sequence[Values]) -> BillingStore:
        bucket = Bucket()
        for start in range(0, len(rows), 500):
            write_fragments(bucket, map(_typed, rows[start : start + 500]), declared)
        return LakeStore(bucket, max_rows=MAX_ROWS, piece_rows=1_000)

    yield make


def _typed(values: Values) -> dict[str, Any]:
    read: dict[Type, Callable[[str], Any]] = {
        "number": float,
        "integer": int,
        "boolean": lambda text: text == "true",
        "timestamp": lambda text: datetime.fromisoformat(text[:26]).replace(tzinfo=UTC),
    }
    typed = {
        name: None if value is None else read.get(COLUMNS[name], str)(value)
        for name, value in zip(COLUMNS, values, strict=True)
    }
    return typed | {"time": values[0]}


def _nanoseconds(time: str) -> int:
    return int(datetime.fromisoformat(time[:19]).replace(tzinfo=UTC).timestamp()) * 10**9 + int(time[20:])


STORES: list[Callable[[], AbstractContextManager[Make]]] = [twin, timestream, lake]


def test_the_contract_holds_every_store_that_there_is() -> None:
    assert {store.__name__ for store in STORES} == {*registry.STORES, twin.__name__}


@pytest.fixture(scope="module", params=STORES, ids=lambda store: store.__name__)
def make(request: pytest.FixtureRequest) -> Iterator[Make]:
    with request.param() as made:
        yield made


def answered(store: BillingStore, span: Span = ALL_DAY, columns: Sequence[Column] = WANTED) -> list[Values]:
    """Return the rows of a span, each as a list."""
    return [list(each) for each in store.rows(span, tuple(columns)).rows]


def test_a_store_without_rows_answers_every_question(make: Make) -> None:
    store = make([])

    assert store.count() == 0
    assert store.days() is None
    assert store.sources(DAY) == {}
    assert store.tally(DAY) == {}
    assert store.columns(DAY) == ()


def test_a_store_has_a_name_and_tells_how_long_rows_take_to_be_there(make: Make) -> None:
    store = make([])

    assert store.name
    assert store.settles_after.total_seconds() >= 0


def test_rows_are_counted_by_minute_by_log_group_and_altogether(make: Make) -> None:
    store = make([row(60), row(61), row(62, source="/other"), row(61, source="/other"), row(5, NEXT)])

    assert store.tally(DAY) == {60: 1, 61: 2, 62: 1}
    assert store.tally(NEXT) == {5: 1}
    assert store.sources(DAY) == {"/g": 2, "/other": 2}
    assert store.count() == 5
    assert store.days() == Days(DAY, NEXT)


def test_a_days_columns_are_all_that_have_a_value_with_our_types(make: Make) -> None:
    store = make([(*row(1)[:-2], None, None), row(1, NEXT)])

    columns = {column.name: column.type for column in store.columns(DAY)}

    assert columns.items() <= COLUMNS.items()
    assert columns.keys() >= COLUMNS.keys() - {"note", "paid_at"}
    assert {column.name: column.type for column in store.columns(NEXT)} == dict(COLUMNS)
    assert store.columns(date(2025, 11, 19)) == ()
    assert store.filled(DAY, list(COLUMNS)) == set(COLUMNS) - {"note", "paid_at"}
    assert store.filled(NEXT, ["note", "status"]) == {"note", "status"}


def test_values_are_text_in_one_form_and_times_have_nine_decimals(make: Make) -> None:
    rows: list[Values] = [
        [
            *("2025-11-20 10:00:00.000000001", "api_request", "a", "/g", "/pets", None),
            *("200", "-1", "true", 'quoted "é"\nline', "2025-11-20 09:00:00.250000000"),
        ],
        [
            *("2025-11-20 10:00:00.123456789", "api_request", "b", "/g", "/pets", "acme"),
            *("-0.25", "9007199254740993", "false", None, None),
        ],
    ]

    found = answered(make(rows))

    assert found == rows
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{9}", str(values[0])) for values in found)


@pytest.mark.parametrize(
    "number",
    [
        *("0", "1", "-3", "0.001", "9999999", "9999999.5", "-0.1", "123456.789"),
        *("1.0E7", "1.2345678E7", "1.0E10", "-2.5E15", "1.7976931348623157E308"),
        *("9.0E-4", "1.0E-10", "-1.25E-5"),
    ],
)
def test_a_number_has_one_form_in_every_store(make: Make, number: str) -> None:
    store = make([(*row(1)[:6], number, *row(1)[7:])])

    assert [values[6] for values in answered(store)] == [number]


def test_a_span_begins_with_its_start_and_ends_before_its_end(make: Make) -> None:
    store = make([row(60), row(61), row(62)])

    found = answered(store, Span("2025-11-20 01:00:00.000000060", "2025-11-20 01:02:00.000000062"))

    assert [values[2] for values in found] == ["id-00060", "id-00061"]


def test_rows_have_the_columns_that_are_asked_for_in_that_order(make: Make) -> None:
    asked = (Column("status", "number"), Column("_id", "text"), Column("_type", "text"))
    answer = make([row(1)]).rows(ALL_DAY, asked)

    assert answer.columns == asked
    assert [list(values) for values in answer.rows] == [["0.25", "id-00001", "api_request"]]


def test_the_order_is_that_of_time_identity_type_source_and_dimensions(make: Make) -> None:
    chance = random.Random(8)
    rows: list[Values] = [
        (
            f"2025-11-20 10:00:00.00000000{second}",
            *(
                kind,
                chance.choice("abc"),
                source,
                route,
                client,
                "200",
                "1",
                "true",
                "note",
                f"{DAY} 00:00:00.000000000",
            ),
        )
        for second in (0, 1)
        for kind in ("api_request", "login")
        for source in ("/g", "/h")
        for route in ("/pets", "/shops")
        for client in ("acme", "Zed", "é")
    ]
    ordered = sorted(rows, key=lambda each: tuple(str(each[place]) for place in (0, 2, 1, 3, 4, 5)))
    chance.shuffle(rows)

    assert answered(make(rows)) == [list(each) for each in ordered]


def test_an_answer_comes_in_pages_that_are_read_as_they_are_asked_for(make: Make) -> None:
    # More than the megabyte that a page may have.
    rows = [(*row(number)[:-2], "n" * 1_500, row(number)[-1]) for number in range(1_400)]
    store = make(rows)
    bills: list[int] = []
    store.bill = lambda: lambda scanned, _billed: bills.append(scanned)

    pages = store.rows(ALL_DAY, WANTED).pages
    before = next(page for page in pages if page)
    billed = len(bills)
    rest = [each for page in pages for each in page]

    assert [list(each) for each in (*before, *rest)] == [list(each) for each in rows]
    assert 0 < len(before) < 1_400
    assert billed <= len(bills)
    assert bills == sorted(bills)


def test_an_answer_with_too_many_rows_is_refused_with_the_limit(make: Make) -> None:
    rows = [row(number, source=f"/g{copy}") for number in range(1_440) for copy in range(2)]

    with pytest.raises(QuestionTooLargeError, match="more than 2,500 rows"):
        answered(make(rows))


def test_each_question_is_billed_once_with_what_it_cost(make: Make) -> None:
    store = make([row(1), row(2)])
    bills: list[list[tuple[int, int]]] = []

    def bill() -> Callable[[int, int], None]:
        bills.append([])
        return lambda scanned, billed: bills[-1].append((scanned, billed))

    store.bill = bill
    questions: list[Callable[[], object]] = [
        store.count,
        store.days,
        lambda: store.tally(DAY),
        lambda: store.columns(DAY),
        lambda: store.filled(DAY, ["note"]),
        lambda: answered(store),
    ]
    for question in questions:
        question()

    assert len(bills) == len(questions)
    assert all(costs and 0 <= costs[-1][0] <= costs[-1][1] for costs in bills)


def test_a_question_that_cannot_be_answered_raises_the_ports_error(make: Make) -> None:
    with pytest.raises(StoreError, match="nobody"):
        answered(make([row(1)]), columns=[Column("nobody", "text")])
