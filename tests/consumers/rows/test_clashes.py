"""What only the store knows to be of another type goes into `_extra`; each record stays one row."""

import json
import random
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onemachine.services import Services
from tagline import Record, write

from consumers.lines.ledger import Ledger
from consumers.rows.handler import make_handler
from consumers.rows.schema import parse, plans
from consumers.rows.table import UNDECLARED, Plans
from consumers.rows.timestream.writer import Timestream
from tests.builders import LOGGED, Context, data, envelope, kinesis_event
from tests.row_store import MemoryStore
from tests.twins import Objects, TimestreamWrite, client_error, measure

Stored = dict[str, dict[str, Any]]
"""The values of rows by identity and column, without those that every row has."""


class TimestreamTable:
    """The consumer over Timestream's twin.

    Attributes:
        client: The twin.
        objects: The bucket.
        ledgers: Those of all batches.
    """

    def __init__(self, client: TimestreamWrite | None = None) -> None:
        self.client = client or TimestreamWrite()
        self.objects = Objects()
        self.ledgers: list[Ledger] = []

    def open(self) -> Any:
        return Timestream(self.client, "tagline", "records", sleep=lambda _: None, jitter=lambda: 0.0)

    def rows(self) -> Stored:
        rows = {
            measure(record, "_id"): {
                item["Name"]: item["Value"] for item in record["MeasureValues"] if is_own(item["Name"])
            }
            for record in self.client.points.values()
        }
        assert len(rows) == len(self.client.points), "a record has two rows"
        return rows


class MemoryTable(TimestreamTable):
    """The same over the store in memory."""

    def __init__(self) -> None:
        super().__init__()
        self.store = MemoryStore()

    def open(self) -> Any:
        return self.store

    def rows(self) -> Stored:
        rows = {
            row.id: {name: str(value) for name, (_, value) in row.measures.items() if is_own(name)}
            for row in self.store.rows.values()
        }
        assert len(rows) == len(self.store.rows), "a record has two rows"
        return rows


class Environment:
    """One execution environment of the consumer."""

    def __init__(self, table: TimestreamTable, plans: Plans = UNDECLARED, threads: int = 1) -> None:
        self.table = table
        self.handle = make_handler(
            table.open(),
            table.objects,
            tag="usage_record",
            own_log_groups="/tagline/",
            report=table.ledgers.append,
            plans=plans,
            threads=threads,
            clock=lambda: LOGGED / 1000,
        )

    def deliver(self, *lines: str) -> Ledger:
        event = kinesis_event(*(data(envelope(*lines[at : at + 50])) for at in range(0, len(lines), 50)))
        assert self.handle(event, Context()) == {"batchItemFailures": []}
        return self.table.ledgers[-1]


def is_own(column: str) -> bool:
    return column not in ("_id", "year", "month", "day")


def line(identity: str, type_: str = "order", **fields: Any) -> str:
    """Return a line as the emitter writes it."""
    return write(Record(identity, LOGGED, fields, type_, src="s", seq=1))


of_every_table = pytest.mark.parametrize("make", [TimestreamTable, MemoryTable])


@of_every_table
def test_a_field_of_another_type_than_its_column_goes_into_extra_and_its_row_is_stored(
    make: Callable[[], TimestreamTable],
) -> None:
    table = make()
    environment = Environment(table)
    environment.deliver(line("first", status=200))

    ledger = environment.deliver(line("a", status="ok", note="n"), line("b", status=404))

    assert table.rows()["a"] == {"note": "n", "_extra": '{"status":"ok"}'}
    assert table.rows()["b"].keys() == {"status"}
    assert (ledger.stored, ledger.extra, ledger.quarantined.total()) == (2, 1, 0)
    assert not list(table.objects.quarantined())


def test_the_words_of_the_timestream_that_runs_here_are_understood() -> None:
    class LocalTable(TimestreamTable):
        def open(self) -> Any:
            return Timestream(client, "tagline", "records", sleep=lambda _: None, jitter=lambda: 0.0)

    services = Services()
    try:
        client = services.client("timestream-write")
        client.create_database(DatabaseName="tagline")
        year = {"MemoryStoreRetentionPeriodInHours": 8_760, "MagneticStoreRetentionPeriodInDays": 365}
        client.create_table(DatabaseName="tagline", TableName="records", RetentionProperties=year)
        now = int(time.time() * 1000)
        environment = Environment(LocalTable())
        environment.deliver(write(Record("first", now, {"status": 200, "ok": True}, "order")))

        ledger = environment.deliver(write(Record("a", now, {"status": "ok", "ok": 1, "note": "n"}, "order")))

        question = 'SELECT status, ok, note, _extra FROM "tagline"."records" WHERE _id = \'a\''
        (row,) = services.client("timestream-query").query(QueryString=question)["Rows"]
    finally:
        services.stop()
    status, ok, note, extra = (value.get("ScalarValue") for value in row["Data"])
    assert (status, ok, note) == (None, None, "n")
    assert json.loads(extra) == {"status": "ok", "ok": 1}
    assert (ledger.stored, ledger.extra, ledger.quarantined.total()) == (1, 2, 0)


def test_what_was_refused_once_is_mapped_right_at_once_by_the_next_batch() -> None:
    table = TimestreamTable()
    environment = Environment(table)
    environment.deliver(line("first", status=200))
    clashing = [line(f"r{number}", status="ok") for number in range(100)]
    sent = len(table.client.requests)

    environment.deliver(*clashing[:50])
    assert len(table.client.requests) - sent == 2
    ledger = environment.deliver(*clashing[50:])
    assert len(table.client.requests) - sent == 3
    assert ledger.extra == 50

    Environment(table).deliver(*clashing)  # as delivered again to another environment
    assert len(table.client.requests) - sent == 5
    assert table.rows() == {"first": {"status": "200.0"}} | {
        f"r{number}": {"_extra": '{"status":"ok"}'} for number in range(100)
    }


class Whole(TimestreamWrite):
    """Refuses a request as a whole if a row in it clashes, and stores nothing of it."""

    def write_records(self, **request: Any) -> dict[str, Any]:
        items = [item for record in request["Records"] for item in record["MeasureValues"]]
        for item in items:
            if self.types.get(item["Name"], item["Type"]) != item["Type"]:
                self.requests.append([])
                message = f"The measure {item['Name']} is of another type: {self.types[item['Name']]}."
                raise client_error("ValidationException", message=message)
        return super().write_records(**request)


@pytest.mark.parametrize("make", [TimestreamWrite, Whole], ids=["row by row", "whole requests"])
@pytest.mark.parametrize("threads", [1, 8])
def test_three_thousand_lines_of_which_half_clash_take_few_requests(
    make: Callable[[], TimestreamWrite], threads: int
) -> None:
    table = TimestreamTable(make())
    Environment(table).deliver(line("first", status=200))
    sent = len(table.client.requests)
    lines = [line(f"r{n}", status="ok" if n % 2 else 200.0 + n) for n in range(3_000)]

    ledger = Environment(table, threads=threads).deliver(*lines)

    assert (ledger.stored, ledger.quarantined.total()) == (3_000, 0)
    clashing = {identity for identity, row in table.rows().items() if "_extra" in row}
    assert clashing == {f"r{n}" for n in range(1, 3_000, 2)}
    # 30 if nothing clashed; and up to eight are under way before the first answer is there.
    assert len(table.client.requests) - sent < 80


@of_every_table
def test_columns_that_the_store_names_one_after_the_other_all_go(make: Callable[[], TimestreamTable]) -> None:
    table = make()
    environment = Environment(table)
    environment.deliver(line("first", status=200, ok=True, size=1))

    for attempt in range(2):
        environment.deliver(line(f"a{attempt}", status="ok", ok="yes", size=2, note="n"))
        row = table.rows()[f"a{attempt}"]
        assert json.loads(row.pop("_extra")) == {"status": "ok", "ok": "yes"}
        assert row.keys() == {"size", "note"}


@pytest.mark.parametrize("unfit", ["quarantine", "extra"])
@of_every_table
def test_a_declared_field_follows_its_schema(make: Callable[[], TimestreamTable], unfit: str) -> None:
    table = make()
    Environment(table).deliver(line("first", status="ok", note=1))
    text = f'revision = 1\nunfit = "{unfit}"\nmeasures.status = "DOUBLE"'
    environment = Environment(table, plans(parse({"order.toml": text.encode()})))

    environment.deliver(line("a", status=200), line("b", note="n"))

    assert table.rows()["b"] == {"_extra": '{"note":"n"}'}
    kept = [each["reason"] for each in table.objects.quarantined()]
    if unfit == "extra":
        assert table.rows()["a"] == {"_extra": '{"status":200}'}
        assert kept == []
    else:
        assert "a" not in table.rows()
        assert kept == ["invalid"]


def test_a_row_that_is_refused_for_no_column_is_tried_with_nothing_but_what_is_declared() -> None:
    """As one that would add the 1,025th column: no schema demands that it has one."""

    class Full(TimestreamWrite):
        def refusal(self, record: dict[str, Any]) -> str | None:
            if any(item["Name"] == "new" for item in record["MeasureValues"]):
                return "The table would have more than 1024 measures, which is the limit."
            return super().refusal(record)

    table = TimestreamTable(Full())
    text = 'revision = 1\nmeasures.total = "DOUBLE"'
    environment = Environment(table, plans(parse({"order.toml": text.encode()})))

    environment.deliver(line("a", total=1, new=2, note="n"), line("b", total=2, note="n"))

    assert json.loads(table.rows()["a"].pop("_extra")) == {"new": 2, "note": "n"}
    assert table.rows()["a"].keys() == {"total", "_extra"}
    assert table.rows()["b"].keys() == {"total", "note"}


def test_a_row_that_is_refused_whatever_it_leaves_out_is_kept() -> None:
    table = TimestreamTable()
    table.client.refusing["a"] = "no such thing"

    ledger = Environment(table).deliver(line("a", status=1), line("b", status=1))

    assert table.rows().keys() == {"b"}
    assert ledger.quarantined == {"invalid": 1}


@of_every_table
def test_a_row_that_is_too_large_without_a_column_as_well_is_kept_whole_once(
    make: Callable[[], TimestreamTable],
) -> None:
    table = make()
    environment = Environment(table)
    environment.deliver(line("first", status=200))

    ledger = environment.deliver(line("a", status="ok", body="x" * 20_000))

    assert len(table.objects.under("overflow/")) == 1
    assert "_overflow" in table.rows()["a"]
    assert "status" not in table.rows()["a"]
    assert (ledger.stored, ledger.overflowed) == (1, 1)


VALUES = st.sampled_from([1, 2.5, True, "a text", {"a": 1}, "", None])
RECORDS = st.lists(
    st.tuples(st.sampled_from(["order", "payment"]), st.dictionaries(st.sampled_from("abc"), VALUES)),
    min_size=1,
    max_size=12,
)


@of_every_table
@given(RECORDS, st.randoms(use_true_random=False), st.booleans())
@settings(max_examples=60, deadline=None)
def test_however_often_and_wherever_records_are_delivered_each_is_one_row_that_stays(
    make: Callable[[], TimestreamTable],
    records: list[tuple[str, dict[str, Any]]],
    chance: random.Random,
    warm: bool,
) -> None:
    table = make()
    lines = [line(f"r{number}", type_, **fields) for number, (type_, fields) in enumerate(records)]
    environments = [Environment(table) for _ in range(3)]
    environments[0].deliver(*lines)
    stored = table.rows()
    assert stored.keys() == {f"r{number}" for number in range(len(records))}

    for _ in range(4):
        again = chance.choices(lines, k=len(lines))
        chance.choice(environments if warm else [Environment(table)]).deliver(*again)

    assert table.rows() == stored
    assert not list(table.objects.quarantined())
