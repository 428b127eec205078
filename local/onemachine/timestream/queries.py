"""Runs queries and hands their results out in pages.

A result is kept in a temporary table from its first page on, so rows that are written between two pages do
not shift them.
"""

import base64
import uuid
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import duckdb

from onemachine.presto.errors import ServiceError, invalid
from onemachine.presto.kinds import Datum, Type, datum, printed
from onemachine.presto.scopes import Field
from onemachine.presto.session import execute, reason, set_up
from onemachine.presto.sql import Source, translate
from onemachine.timestream.store import Store, locked

# https://docs.aws.amazon.com/timestream/latest/developerguide/API_query_Query.html
MAX_ROWS = 1000
MAX_PAGE_BYTES = 1_000_000
MAX_TOKEN_USES = 5
TOKEN_NANOSECONDS = 3_600 * 1_000_000_000

# After that a client token is new again: the window of the API's model.
CALL_NANOSECONDS = 300 * 1_000_000_000

# A value's share of a page beside its text: {"ScalarValue": ""}, and a comma.
_DATUM_BYTES = 22
# Results that wait for their next page; the oldest is dropped, as an hour drops it at AWS.
_KEPT_RESULTS = 32
# Rows that are printed at once for the pages to come.
_ROWS_AHEAD = 10_000
# Calls whose client tokens are known; at AWS that is a matter of time.
_KEPT_CALLS = 32


@dataclass(frozen=True, slots=True)
class Page:
    """One answer to Query.

    Attributes:
        query_id: The same for all pages of a result.
        fields: The result's columns.
        rows: Each value as the service prints it; None for null, a tuple for an array, a row, a time series
            or a point of one.
        next_token: Asks for the next page; None on the last one.
        scanned: Bytes of the tables that the query reads.
    """

    query_id: str
    fields: tuple[Field, ...]
    rows: tuple[tuple[Datum, ...], ...]
    next_token: str | None
    scanned: int


@dataclass(slots=True)
class _Result:
    """A result with more pages.

    `start` is where the newest used token reads, `end` where its page ended; `ahead` are rows that were
    printed already, from `ahead_from` on.
    """

    query: str
    table: str
    fields: tuple[Field, ...]
    scanned: int
    made: int
    total: int
    start: int
    uses: int
    end: int
    ahead_from: int = 0
    ahead: list[tuple[Any, ...]] = field(default_factory=list)


# When a client token was used, for what, and the answer.
_Call = tuple[int, tuple[str, int | None], Page]


class _StoreCatalog:
    """The store as the translator sees it at a time. It notes which tables a query names."""

    def __init__(self, store: Store, now: int) -> None:
        self._store = store
        self._now = now
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
        found.expire(self._now)
        self.scanned += found.stored_bytes
        fields = tuple(Field(c.name, Type(c.kind.value), c.physical) for c in found.columns)
        start = found.retained_from(self._now)
        # The default retention, 200 years, is longer than there is time.
        kept = f" WHERE time >= make_timestamp_ns(CAST({start} AS BIGINT))" if start > 0 else ""
        physical = f"(SELECT * FROM {found.physical}{kept})" if kept else found.physical  # noqa: S608 our own
        return Source(physical, fields, tuple(c.role for c in found.columns))


class Queries(Store):
    """A store that answers Query.

    Args:
        connection: Where the rows go.
        clock: Gives the time in nanoseconds since 1970.
        durable: Whether the connection has a file.
    """

    def __init__(
        self, connection: duckdb.DuckDBPyConnection, clock: Callable[[], int], *, durable: bool = False
    ) -> None:
        super().__init__(connection, clock, durable=durable)
        set_up(connection, before_1970=False)
        self._results: OrderedDict[str, _Result] = OrderedDict()
        self._cancelled: OrderedDict[str, None] = OrderedDict()
        self._calls: OrderedDict[str, _Call] = OrderedDict()

    @locked
    def query(
        self,
        text: str,
        next_token: str | None = None,
        max_rows: int | None = None,
        *,
        client_token: str | None = None,
    ) -> Page:
        """Answer one page of a query.

        A result of more than one page begins with a page that has no rows: the service may do so, and a
        caller who takes an empty page for the end is found out here.

        Args:
            text: The query.
            next_token: Where to go on, from an earlier page of the same query.
            max_rows: At most this many rows in the page, 1 to 1,000; None for as many as fit into 1 MB.
            client_token: Names a call: the same one again is answered as before, and runs nothing.

        Returns:
            The page.

        Raises:
            ServiceError: ValidationException for a wrong query or token, ConflictException for a query that
                was cancelled, else QueryExecutionException.
        """
        if max_rows is not None and not 1 <= max_rows <= MAX_ROWS:
            bound = "greater than or equal to 1" if max_rows < 1 else f"less than or equal to {MAX_ROWS}"
            raise invalid(
                f"1 validation error detected: Value '{max_rows}' at 'maxRows' failed to satisfy constraint: "
                f"Member must have value {bound}"
            )
        now = self.clock()
        self._forget(now)
        if next_token is not None:
            return self._next(text, next_token, max_rows)
        made, called, page = self._calls.get(client_token or "", (0, None, None))
        if page is not None and now - made < CALL_NANOSECONDS:
            if called != (text, max_rows):
                raise invalid("The client token was used for another query already.")
            return page
        page = self._first(text, max_rows, now)
        if client_token:
            self._calls[client_token] = now, (text, max_rows), page
            if len(self._calls) > _KEPT_CALLS:
                self._calls.popitem(last=False)
        return page

    @locked
    def prepare(self, text: str) -> tuple[Field, ...]:
        """Say what a query would answer, without running it.

        Args:
            text: The query.

        Returns:
            The result's columns.

        Raises:
            ServiceError: ValidationException.
        """
        now = self.clock()
        return translate(text, _StoreCatalog(self, now), now).fields

    @locked
    def cancel(self, query_id: str) -> str:
        """Drop what is left of a result.

        Args:
            query_id: From a page of it.

        Returns:
            The service's answer.

        Raises:
            ServiceError: ValidationException, if no result has that name, or none of it is left.
        """
        result = self._results.pop(query_id, None)
        if result is None and query_id not in self._cancelled:
            raise invalid(f"The query {query_id} does not exist or has completed already.")
        if result is None:
            return f"The query {query_id} has been cancelled already."
        self._connection.execute(f"DROP TABLE {result.table}")
        self._cancelled[query_id] = None
        if len(self._cancelled) > _KEPT_CALLS:
            self._cancelled.popitem(last=False)
        return f"The query {query_id} has been cancelled."

    def _first(self, text: str, max_rows: int | None, now: int) -> Page:
        catalog = _StoreCatalog(self, now)
        translation = translate(text, catalog, now)
        query_id = uuid.uuid4().hex.upper()
        table = f"result_{query_id}"
        try:
            execute(self._connection, f"CREATE TEMP TABLE {table} AS {translation.sql}")
        except (
            duckdb.BinderException,
            duckdb.ConversionException,
            duckdb.InvalidInputException,
            duckdb.OutOfRangeException,
        ) as error:
            raise invalid(reason(error)) from None
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
        if query_id in self._cancelled:
            # https://docs.aws.amazon.com/timestream/latest/developerguide/API_query_Query.html
            raise ServiceError("ConflictException", "Unable to poll results for a cancelled query.")
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

    def _read(self, result: _Result, start: int, max_rows: int | None) -> tuple[tuple[Datum, ...], ...]:
        """Read rows from a place on, as many as a page holds."""
        most = MAX_PAGE_BYTES // (_DATUM_BYTES * len(result.fields)) + 1
        wanted = min(start + (most if max_rows is None else min(most, max_rows)), result.total)
        if not result.ahead_from <= start or not wanted <= result.ahead_from + len(result.ahead):
            # Not the whole rest, which DuckDB would make before the first row is fetched; but several pages
            # at once, as planning the statement costs as much as reading some thousand rows.
            end = max(wanted, start + _ROWS_AHEAD) if start else wanted
            result.ahead_from, result.ahead = start, self._print(result, start, end)
        rows = result.ahead[start - result.ahead_from : wanted - result.ahead_from]
        left = MAX_PAGE_BYTES
        for place, row in enumerate(rows):
            left -= row[-1]
            if left < 0:
                if place == 0:
                    raise invalid(f"A row of the result is {row[-1]} bytes. The limit is {MAX_PAGE_BYTES}.")
                rows = rows[:place]
                break
        return tuple([row[:-1] for row in rows])

    def _print(self, result: _Result, start: int, end: int) -> list[tuple[Any, ...]]:
        """Read rows as the service prints them, each with its bytes of a page at its end."""
        rows = self._connection.execute(
            f"{_printing(result.fields)} FROM {result.table} WHERE rowid >= ? AND rowid < ? ORDER BY rowid)",
            [start, end],
        ).fetchall()
        if all(isinstance(column.kind, Type) for column in result.fields):
            return rows
        return [(*(datum(value) for value in row[:-1]), row[-1]) for row in rows]

    def _forget(self, now: int) -> None:
        """Drop results whose tokens are too old, and the oldest beyond what is kept."""
        while self._results:
            query_id, result = next(iter(self._results.items()))
            if len(self._results) < _KEPT_RESULTS and now - result.made < TOKEN_NANOSECONDS:
                return
            self._connection.execute(f"DROP TABLE {result.table}")
            del self._results[query_id]


def _printing(fields: Sequence[Field]) -> str:
    """Select a result's columns as the service prints them, and then how many bytes of a page they are."""
    values = [f"{printed(field.kind, field.physical)} AS p{place}" for place, field in enumerate(fields)]
    sizes = [
        f"strlen(p{place})" if isinstance(field.kind, Type) else f"strlen(CAST(p{place} AS VARCHAR))"
        for place, field in enumerate(fields)
    ]
    size = " + ".join(f"coalesce({size}, 0)" for size in sizes)
    return f"SELECT *, {_DATUM_BYTES * len(values)} + {size} FROM (SELECT {', '.join(values)}"  # noqa: S608 translated


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
