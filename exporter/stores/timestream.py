"""Adapter: questions to Timestream, every page followed.

https://docs.aws.amazon.com/timestream/latest/developerguide/API_query_Query.html
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any

import msgspec

from consumers.rows.table import DIMENSIONS, ID, SOURCE
from exporter.store import (
    TIME,
    TYPE,
    Answer,
    Column,
    QuestionTooLargeError,
    Span,
    Spent,
    Tally,
    Values,
    minute,
    whole,
)

# A call waits up to 60 seconds for its page.
READ_TIMEOUT = 70
_MEASURE_NAME = "measure_name"
_GB = 10**9


@dataclass(frozen=True, slots=True)
class Limits:
    """How large answers may be; what is larger is refused instead of paid for.

    Attributes:
        rows: Of one question.
        scanned: Bytes that Timestream reads for all questions, until they are counted anew.
    """

    rows: int = 10_000_000
    scanned: int = 1_000 * _GB


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
        # What is no page as documented is left to botocore, and read from what it makes of it.
        with contextlib.suppress(msgspec.MsgspecError):
            customized_response_dict[_PAGE] = _decoder.decode(response_dict["body"])
            response_dict["body"] = b"{}"


class Timestream:
    """A Timestream table.

    Args:
        client: A boto3 client for timestream-query.
        database: The database's name.
        table: The table's name.
        limits: How large answers may be.
    """

    def __init__(self, client: Any, database: str, table: str, limits: Limits | None = None) -> None:
        self._client = client
        self._from = f"{_quoted(database)}.{_quoted(table)}"
        self._limits = limits or Limits()
        self.spent = Spent()
        # The event is botocore's own, of no public list: without it, pages are read as botocore has them.
        events = getattr(client.meta, "events", None)
        if events is not None:
            events.register("before-parse.timestream-query.Query", _parse, unique_id="tagline-pages")

    def count_anew(self) -> None:
        """Begin to count anew what questions cost: limits are for what is asked from here on."""
        self.spent = Spent()

    def tally(self, day: date) -> Tally:
        """Return how many rows each minute of a day has."""
        bin_ = f"bin({TIME}, 1m)"
        answer = self._ask(f"{bin_}, count(*)", whole(day), f" GROUP BY {bin_}")
        return {minute(str(time)): int(str(count)) for page in answer.pages for time, count in page}

    def columns(self, span: Span) -> tuple[Column, ...]:
        """Return the columns that the store has, whatever rows they have values in.

        Args:
            span: A time in which there are rows.
        """
        answer = self._ask("*", span, " LIMIT 1")
        for _ in answer.pages:
            pass
        return answer.columns

    def filled(self, day: date, names: Collection[str]) -> set[str]:
        """Return which of these columns have a value in a row of a day."""
        counts = ", ".join(f"count({_column_sql(name)})" for name in names)
        answer = self._ask(counts, whole(day))
        (row,) = (row for page in answer.pages for row in page)
        return {name for name, count in zip(names, row, strict=True) if count not in (None, "0")}

    def rows(self, span: Span, columns: tuple[Column, ...]) -> Answer:
        """Return the columns of the rows of a time, in order of time, identity, kind, source and dimensions.

        A record that two log groups have said is in the store twice, at one time with one identity, and so
        are two that a program gave one identity: only with all that the store tells rows apart by is the
        order always the same.
        """
        names = ", ".join(_column_sql(column.name) for column in columns)
        # A table that no record has brought a dimension to has no column for it.
        asked = {column.name for column in columns}
        dimensions = (_quoted(name) for name in DIMENSIONS if name in asked)
        order = ", ".join((TIME, _quoted(ID), _MEASURE_NAME, _quoted(SOURCE), *dimensions))
        return self._ask(names, span, f" ORDER BY {order} LIMIT {self._limits.rows + 1}")

    def _ask(self, what: str, span: Span, more: str = "") -> Answer:
        # Timestream takes no parameters; names are quoted, times are the calendar's, and the rest is ours. A
        # question without a condition on time reads, and costs, the whole table.
        sql = (
            f"SELECT {what} FROM {self._from} WHERE {TIME} >= TIMESTAMP '{span.start}'"  # noqa: S608
            f" AND {TIME} < TIMESTAMP '{span.end}'{more}"
        )
        pages = self._pages(sql)
        first = next(pages)
        columns = tuple(
            Column(TYPE if info.Name == _MEASURE_NAME else info.Name, info.Type.ScalarType)
            for info in first.ColumnInfo
        )
        numbers = tuple(place for place, column in enumerate(columns) if column.type == "DOUBLE")
        return Answer(columns, self._rows(first, pages, numbers))

    def _pages(self, sql: str) -> Iterator[_Page]:
        """Yield all pages of an answer; the first may hold no rows, and only a token."""
        # Who has begun to count anew does not count a page that is still on its way to who has left.
        spent = self.spent
        before = Spent(spent.questions + 1, spent.scanned, spent.metered)
        token: Mapping[str, str] = {}
        while True:
            answer = self._client.query(QueryString=sql, **token)
            page: _Page = answer[_PAGE] if _PAGE in answer else _decoder.decode(msgspec.json.encode(answer))
            status = page.QueryStatus
            spent.questions = before.questions
            spent.scanned = before.scanned + status.CumulativeBytesScanned
            spent.metered = before.metered + status.CumulativeBytesMetered
            if spent.scanned > self._limits.scanned:
                raise QuestionTooLargeError(
                    f"Timestream has read {spent.scanned / _GB:,.1f} GB, more than "
                    f"{self._limits.scanned / _GB:,.1f} GB: raise EXPORT_MAX_SCANNED_GB to go on"
                )
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
                    # Timestream has one type of number and says 200.0; a person who counts reads 200.
                    if (text := values[place]) is not None:
                        values[place] = text.removesuffix(".0")
                rows.append(values)
            count += len(rows)
            if count > self._limits.rows:
                raise QuestionTooLargeError(
                    f"an answer has more than {self._limits.rows:,} rows, which is the limit of one question"
                )
            yield rows
            following = next(pages, None)
            if following is None:
                return
            page = following


def _column_sql(name: str) -> str:
    return f"{_MEASURE_NAME} AS {_quoted(TYPE)}" if name == TYPE else _quoted(name)


def _quoted(name: str) -> str:
    """Return a name as SQL: the one place where a value becomes part of a query."""
    return '"' + name.replace('"', '""') + '"'
