"""Adapter: questions to Timestream, every page followed.

https://docs.aws.amazon.com/timestream/latest/developerguide/API_query_Query.html
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

import msgspec
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from consumers.rows.table import DIMENSIONS, ID, SOURCE
from consumers.settings import read_settings
from exporter.store import (
    TIME,
    TYPE,
    Answer,
    Bill,
    Column,
    Days,
    Hour,
    QuestionTooLargeError,
    Span,
    Store,
    StoreError,
    Tally,
    Type,
    Values,
    minute,
    minute_of,
    oldest_kept,
    unbilled,
    whole,
)
from exporter.stores.placeholder import as_asked, filled

# A call waits up to 60 seconds for its page.
_READ_TIMEOUT = 70
# Rows that come late are written to the magnetic store, and can be asked for within six hours:
# https://docs.aws.amazon.com/timestream/latest/developerguide/data-ingest.html
_SETTLES_AFTER = timedelta(hours=7)
# How many rows one answer may have; a larger one is refused instead of paid for.
MAX_ROWS = 10_000_000
_MEASURE_NAME = "measure_name"
_TYPES: dict[str, Type] = {
    "VARCHAR": "text",
    "BIGINT": "integer",
    "INTEGER": "integer",
    "DOUBLE": "number",
    "BOOLEAN": "boolean",
    "TIMESTAMP": "timestamp",
}


@dataclass(frozen=True, slots=True)
class Settings:
    """The part of a function's environment that is for this store; docs/reference/settings.md."""

    timestream_database: str
    timestream_table: str
    memory_store_hours: int
    magnetic_store_days: int


def from_environment(environ: Mapping[str, str], client: Callable[..., Any]) -> Timestream:
    """Return the table that a function's environment names.

    Args:
        environ: The environment.
        client: Gives a boto3 client by a service's name.

    Raises:
        SettingsError: If a setting is missing.
    """
    settings = read_settings(Settings, environ)
    return Timestream(
        client("timestream-query", config=Config(read_timeout=_READ_TIMEOUT)),
        settings.timestream_database,
        settings.timestream_table,
        lambda: timedelta(days=settings.magnetic_store_days, hours=settings.memory_store_hours),
    )


def of_stack(outputs: Mapping[str, str], client: Callable[[str], Any]) -> Timestream:
    """Return the table that a stack's outputs name.

    Args:
        outputs: The outputs.
        client: Gives a boto3 client by a service's name.
    """
    database, table = outputs["TimestreamDatabase"], outputs["TimestreamTable"]

    def keeps_for() -> timedelta:
        described = client("timestream-write").describe_table(DatabaseName=database, TableName=table)
        retention = described["Table"]["RetentionProperties"]
        return timedelta(
            days=retention["MagneticStoreRetentionPeriodInDays"],
            hours=retention["MemoryStoreRetentionPeriodInHours"],
        )

    return Timestream(client("timestream-query"), database, table, keeps_for)


class _Datum(msgspec.Struct, gc=False):
    ScalarValue: str | None = None


class _Row(msgspec.Struct, gc=False):
    Data: list[_Datum]


class _Type(msgspec.Struct):
    ScalarType: str = "VARCHAR"


class _Info(msgspec.Struct):
    Type: _Type
    Name: str = ""


class _Status(msgspec.Struct):
    CumulativeBytesScanned: int = 0
    CumulativeBytesMetered: int = 0


class _Page(msgspec.Struct):
    Rows: list[msgspec.Raw]
    ColumnInfo: list[_Info]
    QueryStatus: _Status = msgspec.field(default_factory=_Status)
    NextToken: str | None = None


_PAGE = "TaglinePage"
_decoder = msgspec.json.Decoder(_Page)
# A row at a time: a page of rows as objects is more than a processor keeps at hand, and takes longer.
_row_decoder = msgspec.json.Decoder(_Row)


def _parse(response_dict: dict[str, Any], customized_response_dict: dict[str, Any], **_: Any) -> None:
    """Parse an answer's rows in place of botocore, which takes eight times as long for them."""
    if response_dict["status_code"] == 200:  # noqa: PLR2004 - errors are for botocore
        # An answer that is not a documented page is left to botocore, and read from its result.
        with contextlib.suppress(msgspec.MsgspecError):
            customized_response_dict[_PAGE] = _decoder.decode(response_dict["body"])
            response_dict["body"] = b"{}"


class Timestream:
    """A Timestream table.

    Args:
        client: A boto3 client for timestream-query.
        database: The database's name.
        table: The table's name.
        keeps_for: Gives how long the table keeps rows; asked only when it is needed.
        max_rows: How many rows one answer may have.
    """

    name = "Timestream"
    dialect = "Timestream's SQL"
    settles_after = _SETTLES_AFTER
    includes_exports = False

    def __init__(
        self,
        client: Any,
        database: str,
        table: str,
        keeps_for: Callable[[], timedelta | None] = lambda: None,
        max_rows: int = MAX_ROWS,
    ) -> None:
        self.bill: Callable[[], Bill] = unbilled
        self._client = client
        self._table = f"{_quoted(database)}.{_quoted(table)}"
        self._keeps_for = keeps_for
        self._max_rows = max_rows
        self._first_minutes: dict[date, int] = {}
        # The event is internal to botocore. If it disappears, botocore parses the pages.
        events = getattr(client.meta, "events", None)
        if events is not None:
            events.register("before-parse.timestream-query.Query", _parse, unique_id="tagline-pages")

    @property
    def keeps_for(self) -> timedelta | None:
        """How long the table keeps a row in its memory and magnetic store together."""
        return self._keeps_for()

    def whole_since(self, day: date, now: datetime) -> str | None:
        """Return the time from which on the table still has a day's rows, or None if it has the whole day."""
        return oldest_kept(self.keeps_for, day, now)

    def count(self) -> int:
        """Return how many rows there are."""
        ((count,),) = self.sql("SELECT count(*) FROM {table}").rows
        return int(count or 0)

    def days(self) -> Days | None:
        """Return the days from the earliest row to the latest; None if there are no rows."""
        ((first, last),) = self.sql(f"SELECT min({TIME}), max({TIME}) FROM {{table}}").rows  # noqa: S608
        if first is None or last is None:
            return None
        return Days(date.fromisoformat(first[:10]), date.fromisoformat(last[:10]))

    def sources(self, day: date) -> dict[str, int]:
        """Return how many rows of a day each log group has."""
        if not self.tally(day):  # a table that was never written to has no such column
            return {}
        source = _quoted(SOURCE)
        answer = self._ask(f"{source}, count(*)", whole(day), f" GROUP BY {source}")
        return {str(name): int(str(count)) for name, count in answer.rows}

    def tally(self, day: date) -> Tally:
        """Return how many rows each minute of a day has."""
        bin_ = f"bin({TIME}, 1m)"
        answer = self._ask(f"{bin_}, count(*)", whole(day), f" GROUP BY {bin_}")
        tally = {minute(str(time)): int(str(count)) for time, count in answer.rows}
        self._first_minutes = {day: min(tally)} if tally else {}
        return tally

    def columns(self, day: date) -> tuple[Column, ...]:
        """Return the columns of a day's rows, also those without a value on that day; none without rows."""
        # One row tells the table's columns, and one minute is the least that can be read for it.
        if day not in self._first_minutes and not self.tally(day):
            return ()
        answer = self._ask("*", minute_of(day, self._first_minutes[day]), " LIMIT 1")
        for _ in answer.pages:
            pass
        return answer.columns

    def filled(self, day: date, names: Collection[str]) -> set[str]:
        """Return which of these columns have a value in a row of a day."""
        counts = ", ".join(f"count({_own_name(name)})" for name in names)
        (row,) = self._ask(counts, whole(day)).rows
        return {name for name, count in zip(names, row, strict=True) if count not in (None, "0")}

    def rows(self, span: Span, columns: tuple[Column, ...]) -> Answer:
        """Return columns of a span's rows, in order of time, identity, type, source and dimensions."""
        names = ", ".join(_column_sql(column.name) for column in columns)
        # A table that no record has brought a dimension to has no column for it.
        asked = {column.name for column in columns}
        dimensions = (_quoted(name) for name in DIMENSIONS if name in asked)
        order = ", ".join((TIME, _quoted(ID), _MEASURE_NAME, _quoted(SOURCE), *dimensions))
        return self._ask(names, span, f" ORDER BY {order} LIMIT {self._max_rows + 1}")

    def hours(self, day: date) -> dict[int, Hour]:  # noqa: ARG002 - the port's
        """Return none: Timestream does not keep hours."""
        return {}

    def within(self, hours: range) -> Store:
        """Raise an error: there are no hours."""
        raise StoreError(f"Timestream does not keep the hours {hours}: export whole days")

    def erasable(self, day: date, client: str) -> int:  # noqa: ARG002 - the port's
        """Return 0: Timestream deletes no rows before their time."""
        return 0

    def erase(self, day: date) -> int:  # noqa: ARG002 - the port's
        """Remove nothing: Timestream deletes no rows."""
        return 0

    def sql(self, text: str) -> Answer:
        """Return the answer to a question in SQL, with the columns and values that Timestream returns.

        Args:
            text: A SELECT; `{table}` stands for the table's name.

        Raises:
            StoreError: If Timestream refuses it.
        """
        return self._answer(text, whole_numbers=False)

    def _answer(self, text: str, *, whole_numbers: bool) -> Answer:
        """Return an answer; a number without decimals as a whole number, or as Timestream writes it."""
        pages = self._pages(filled(text, self._table))
        try:
            first = next(pages)
        except StoreError as error:
            raise StoreError(as_asked(str(error), text, self._table)) from error.__cause__
        columns = tuple(
            Column(info.Name, _TYPES.get(info.Type.ScalarType, "text")) for info in first.ColumnInfo
        )
        numbers = (place for place, column in enumerate(columns) if whole_numbers and column.type == "number")
        return Answer(columns, self._rows(first, pages, tuple(numbers)))

    def _ask(self, what: str, span: Span, more: str = "") -> Answer:
        # Timestream takes no parameters; names are quoted, times are the calendar's, and the rest is ours. A
        # question without a condition on time reads, and costs, the whole table.
        sql = (
            f"SELECT {what} FROM {{table}} WHERE {TIME} >= TIMESTAMP '{span.start}'"  # noqa: S608
            f" AND {TIME} < TIMESTAMP '{span.end}'{more}"
        )
        answer = self._answer(sql, whole_numbers=True)
        columns = (
            column._replace(name=TYPE) if column.name == _MEASURE_NAME else column
            for column in answer.columns
        )
        return Answer(tuple(columns), answer.pages)

    def _pages(self, sql: str) -> Iterator[_Page]:
        """Yield all pages of an answer; the first may hold no rows, and only a token."""
        bill = self.bill()
        token: Mapping[str, str] = {}
        while True:
            try:
                answer = self._client.query(QueryString=sql, **token)
            except ClientError as error:
                raise StoreError(f"Timestream: {error.response['Error']['Message']}") from error
            except BotoCoreError as error:
                raise StoreError(f"Timestream: {error}") from error
            page: _Page = answer[_PAGE] if _PAGE in answer else _decoder.decode(msgspec.json.encode(answer))
            bill(page.QueryStatus.CumulativeBytesScanned, page.QueryStatus.CumulativeBytesMetered)
            yield page
            if page.NextToken is None:
                return
            token = {"NextToken": page.NextToken}

    def _rows(self, page: _Page, pages: Iterator[_Page], numbers: tuple[int, ...]) -> Iterator[list[Values]]:
        count = 0
        decode = _row_decoder.decode
        while True:
            rows: list[Values] = []
            for row in page.Rows:
                values = [datum.ScalarValue for datum in decode(row).Data]
                for place in numbers:
                    # Timestream has one type of number and answers 200.0; a person who counts reads 200.
                    if (text := values[place]) is not None:
                        values[place] = text.removesuffix(".0")
                rows.append(values)
            count += len(rows)
            if count > self._max_rows:
                raise QuestionTooLargeError(
                    f"an answer has more than {self._max_rows:,} rows, which is the limit of one question"
                )
            yield rows
            following = next(pages, None)
            if following is None:
                return
            page = following


def _column_sql(name: str) -> str:
    return f"{_own_name(name)} AS {_quoted(TYPE)}" if name == TYPE else _quoted(name)


def _own_name(name: str) -> str:
    return _MEASURE_NAME if name == TYPE else _quoted(name)


def _quoted(name: str) -> str:
    """Return a name as SQL: the one place where a value becomes part of a query."""
    return '"' + name.replace('"', '""') + '"'
