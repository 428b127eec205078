"""Runs queries and hands their results out in pages.

A result is kept in a temporary table from its first page on, so rows that are written between two pages do
not shift them.
"""

import base64
import math
import uuid
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import duckdb

from local.timestream.errors import ServiceError, invalid
from local.timestream.expressions import Field
from local.timestream.functions import Type
from local.timestream.sql import Source, translate
from local.timestream.store import Store

# https://docs.aws.amazon.com/timestream/latest/developerguide/API_query_Query.html
MAX_ROWS = 1000
MAX_PAGE_BYTES = 1_000_000
MAX_TOKEN_USES = 5
TOKEN_NANOSECONDS = 3_600 * 1_000_000_000

# A value's share of a page beside its text: {"ScalarValue": ""}, and a comma.
_DATUM_BYTES = 22
# Results that wait for their next page; the oldest is dropped, as an hour drops it at AWS.
_KEPT_RESULTS = 32
_FETCHED_ROWS = 1000
_DAY_NANOSECONDS = 86_400 * 1_000_000_000
_SMALLEST_PLAIN, _LARGEST_PLAIN = 1e-3, 1e7


@dataclass(frozen=True, slots=True)
class Page:
    """One answer to Query.

    Args:
        query_id: The same for all pages of a result.
        fields: The result's columns.
        rows: Each value as the service prints it; None for null.
        next_token: Asks for the next page; None on the last one.
        scanned: Bytes of the tables that the query reads.
    """

    query_id: str
    fields: tuple[Field, ...]
    rows: tuple[tuple[str | None, ...], ...]
    next_token: str | None
    scanned: int


@dataclass(slots=True)
class _Result:
    """A result with more pages: `start` is where the newest used token reads, `end` where its page ended."""

    query: str
    table: str
    fields: tuple[Field, ...]
    scanned: int
    made: int
    total: int
    start: int
    uses: int
    end: int


class _StoreCatalog:
    """The store as the translator sees it. It notes which tables a query names."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.scanned = 0

    def databases(self) -> Sequence[str]:
        return [database.name for database in self._store.databases()]

    def tables(self, database: str) -> Sequence[str] | None:
        found = {d.name: d for d in self._store.databases()}.get(database)
        return None if found is None else sorted(found.tables)

    def source(self, database: str, table: str) -> Source | None:
        try:
            found = self._store.table(database, table)
        except ServiceError:
            return None
        found.flush()
        self.scanned += found.stored_bytes
        fields = tuple(Field(c.name, Type(c.kind.value), c.physical) for c in found.columns)
        return Source(found.physical, fields, tuple(c.role for c in found.columns))


class Queries:
    """Answers Query on a store. It has no lock and no clock: both are its caller's."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, store: Store) -> None:
        """Set DuckDB up to compute as Trino does.

        Args:
            connection: The store's.
            store: What there is to query.
        """
        # One thread sums doubles in one order, and dividing a double by zero is infinite in Trino.
        for setting in (
            "threads = 1",
            "TimeZone = 'UTC'",
            "ieee_floating_point_ops = true",
            "enable_external_access = false",
        ):
            connection.execute(f"SET {setting}")
        self._connection = connection
        self._store = store
        self._results: OrderedDict[str, _Result] = OrderedDict()

    def query(self, text: str, next_token: str | None, max_rows: int | None, now: int) -> Page:
        """Answer one Query call.

        A result of more than one page begins with a page that has no rows: the service may do so, and a
        caller who takes an empty page for the end is found out here.

        Args:
            text: The query.
            next_token: Where to go on, from an earlier page of the same query.
            max_rows: At most this many rows in the page, 1 to 1,000; None for as many as fit.
            now: Nanoseconds since 1970.

        Returns:
            The page.

        Raises:
            ServiceError: ValidationException for a wrong query or token, else QueryExecutionException.
        """
        if max_rows is not None and not 1 <= max_rows <= MAX_ROWS:
            bound = "greater than or equal to 1" if max_rows < 1 else f"less than or equal to {MAX_ROWS}"
            raise invalid(
                f"1 validation error detected: Value '{max_rows}' at 'maxRows' failed to satisfy constraint: "
                f"Member must have value {bound}"
            )
        self._forget(now)
        if next_token is None:
            return self._first(text, max_rows, now)
        return self._next(text, next_token, max_rows)

    def _first(self, text: str, max_rows: int | None, now: int) -> Page:
        catalog = _StoreCatalog(self._store)
        translation = translate(text, catalog, now)
        query_id = uuid.uuid4().hex.upper()
        table = f"result_{query_id}"
        columns = ", ".join(_printable(field) for field in translation.fields)
        try:
            self._connection.execute(
                f"CREATE TEMP TABLE {table} AS SELECT {columns} FROM ({translation.sql}) AS result"  # noqa: S608 translated
            )
        except (
            duckdb.BinderException,
            duckdb.ConversionException,
            duckdb.InvalidInputException,
            duckdb.OutOfRangeException,
        ) as error:
            raise invalid(_reason(error)) from None
        except duckdb.Error as error:
            raise ServiceError("QueryExecutionException", str(error)) from None
        counted = self._connection.execute(f"SELECT count(*) FROM {table}").fetchone()  # noqa: S608 our own name
        total = counted[0] if counted is not None else 0
        result = _Result(text, table, translation.fields, catalog.scanned, now, total, -1, 0, 0)
        try:
            rows = self._read(result, 0, max_rows)
        except ServiceError:
            self._connection.execute(f"DROP TABLE {table}")
            raise
        if len(rows) == total:
            self._connection.execute(f"DROP TABLE {table}")
            return Page(query_id, result.fields, rows, None, result.scanned)
        self._results[query_id] = result
        return Page(query_id, result.fields, (), _token(query_id, 0), result.scanned)

    def _next(self, text: str, next_token: str, max_rows: int | None) -> Page:
        query_id, start = _read_token(next_token)
        result = self._results.get(query_id)
        if result is None or result.query != text:
            raise _bad_token()
        # The newest token may be used again, as after a lost answer; using one kills those before it.
        if start == result.start:
            result.uses += 1
            if result.uses > MAX_TOKEN_USES:
                raise _bad_token()
        elif start == result.end:
            result.start, result.uses = start, 1
        else:
            raise _bad_token()
        rows = self._read(result, start, max_rows)
        result.end = start + len(rows)
        token = _token(query_id, result.end) if result.end < result.total else None
        return Page(query_id, result.fields, rows, token, result.scanned)

    def _read(self, result: _Result, start: int, max_rows: int | None) -> tuple[tuple[str | None, ...], ...]:
        """Read rows from a place on, as many as a page holds."""
        end = result.total if max_rows is None else min(start + max_rows, result.total)
        cursor = self._connection.execute(
            f"SELECT * FROM {result.table} WHERE rowid >= ? AND rowid < ? ORDER BY rowid",  # noqa: S608 our own name
            [start, end],
        )
        rows: list[tuple[str | None, ...]] = []
        size = 0
        while chunk := cursor.fetchmany(_FETCHED_ROWS):
            for values in chunk:
                row = tuple(
                    None if value is None else print_value(field.kind, value)
                    for field, value in zip(result.fields, values, strict=True)
                )
                row_bytes = sum(_DATUM_BYTES + len((value or "").encode()) for value in row)
                if row_bytes > MAX_PAGE_BYTES:
                    raise invalid(f"A row of the result is {row_bytes} bytes. The limit is {MAX_PAGE_BYTES}.")
                size += row_bytes
                if size > MAX_PAGE_BYTES:
                    return tuple(rows)
                rows.append(row)
        return tuple(rows)

    def _forget(self, now: int) -> None:
        """Drop results whose tokens are too old, and the oldest beyond what is kept."""
        while self._results:
            query_id, result = next(iter(self._results.items()))
            if len(self._results) < _KEPT_RESULTS and now - result.made < TOKEN_NANOSECONDS:
                return
            self._connection.execute(f"DROP TABLE {result.table}")
            del self._results[query_id]


def print_value(kind: Type, value: Any) -> str:
    """Print a value as the service does.

    Args:
        kind: Its type.
        value: What DuckDB gave: nanoseconds for a TIMESTAMP or an interval of days, months for one of years.

    Returns:
        The text of ScalarValue.
    """
    if kind is Type.TIMESTAMP:
        seconds, nanoseconds = divmod(value, 1_000_000_000)
        return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S}.{nanoseconds:09d}"
    if kind is Type.DOUBLE:
        return print_double(value)
    if kind is Type.BOOLEAN:
        return "true" if value else "false"
    if kind is Type.DAYS:
        sign = "-" if value < 0 else ""
        days, rest = divmod(abs(value), _DAY_NANOSECONDS)
        seconds, nanoseconds = divmod(rest, 1_000_000_000)
        clock = f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"
        return f"{sign}{days} {clock}.{nanoseconds:09d}"
    if kind is Type.MONTHS:
        return f"{'-' if value < 0 else ''}{abs(value) // 12}-{abs(value) % 12}"
    return str(value)


def print_double(value: float) -> str:
    """Print a double as Java's ``Double.toString`` does, which is how Trino prints it.

    Args:
        value: Any double.

    Returns:
        E.g. ``3.0``, ``1.0E10``, ``1.0E-5``, ``Infinity``.
    """
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    if value == 0 or _SMALLEST_PLAIN <= abs(value) < _LARGEST_PLAIN:
        return repr(value)
    # repr gives the fewest digits that read back as the same double; only their layout differs from Java's.
    mantissa, _, exponent = f"{value!r}".partition("e")
    sign = "-" if mantissa.startswith("-") else ""
    whole, _, fraction = mantissa.lstrip("-").partition(".")
    fraction = "" if fraction == "0" else fraction
    digits = (whole + fraction).lstrip("0")
    leading_zeros = len(whole + fraction) - len(digits)
    power = int(exponent or 0) + len(whole) - 1 - leading_zeros
    digits = digits.rstrip("0") or "0"
    return f"{sign}{digits[0]}.{digits[1:] or '0'}E{power}"


def _printable(field: Field) -> str:
    """Select a column as what Python reads exactly: it would cut a TIMESTAMP_NS to microseconds."""
    if field.kind is Type.TIMESTAMP:
        return f"epoch_ns({field.physical}) AS {field.physical}"
    if field.kind is Type.DATE:
        return f"CAST({field.physical} AS VARCHAR) AS {field.physical}"
    return field.physical


def _reason(error: duckdb.Error) -> str:
    """Leave DuckDB's advice about its own settings out of what the caller reads."""
    text = str(error).split("\n", 1)[0].partition(" Error: ")[2]
    return "Division by zero" if text.startswith("Division by zero") else text


def _token(query_id: str, start: int) -> str:
    return base64.urlsafe_b64encode(f"{query_id}.{start}".encode()).decode()


def _read_token(token: str) -> tuple[str, int]:
    try:
        query_id, _, start = base64.urlsafe_b64decode(token.encode()).decode().partition(".")
        return query_id, int(start)
    except ValueError:
        raise _bad_token() from None


def _bad_token() -> ServiceError:
    return invalid("Invalid pagination token")
