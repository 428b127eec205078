"""Runs one query of Athena: its tables are read, its SQL is translated, DuckDB computes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from onemachine.athena.errors import CutoffError, QueryError, failure_of
from onemachine.athena.tables import Files, Scanned, TableReader, view_of
from onemachine.presto.dialect import Dialect
from onemachine.presto.errors import ServiceError
from onemachine.presto.functions import SCALARS
from onemachine.presto.kinds import Array, Datum, Kind, Row, Type, datum, printed
from onemachine.presto.operators import MILLISECONDS
from onemachine.presto.scopes import Field
from onemachine.presto.session import execute, reason, set_up
from onemachine.presto.sql import Source, Translation, translate
from onemachine.presto.syntax import DURATION_FUNCTION

# Trino has none of them: https://trino.io/docs/current/functions/list.html
TIMESTREAM_ONLY = frozenset(
    {
        DURATION_FUNCTION,
        *("ago", "bin", "create_time_series", "correlate_pearson", "integral_trapezoidal"),
        *(name for name in SCALARS if name.startswith("interpolate_")),
        *("from_milliseconds", "from_nanoseconds", "to_milliseconds", "to_nanoseconds", "nanosecond"),
        "strrpos",
    }
)


@dataclass(frozen=True, slots=True)
class Result:
    """A query's answer.

    Attributes:
        fields: Its columns.
        rows: Each value as Athena prints it; None for null.
        scanned: Bytes that were read.
    """

    fields: tuple[Field, ...]
    rows: list[tuple[str | None, ...]]
    scanned: int


class _Catalog:
    """The Glue catalog as the translator sees it. Tables are read when DuckDB scans them.

    Attributes:
        failure: Why reading a table ended the query: DuckDB only tells that it did.
    """

    def __init__(
        self,
        connection: duckdb.DuckDBPyConnection,
        table: Callable[[str, str], Mapping[str, Any] | None],
        files: Files,
        now: int,
        cutoff: int | None,
    ) -> None:
        self._connection = connection
        self._table = table
        self._files = files
        # Its now() is a timestamp(3).
        self._now = now // 1_000_000 * 1_000_000
        self._cutoff = cutoff
        self._sources: dict[tuple[str, str], Source] = {}
        self._readers: list[TableReader] = []
        self.failure: Exception | None = None

    @property
    def scanned(self) -> int:
        """How many bytes were read."""
        return sum(reader.scanned for reader in self._readers)

    def databases(self) -> Sequence[str]:
        raise QueryError("NOT_SUPPORTED: SHOW is not supported here")

    def tables(self, database: str) -> Sequence[str] | None:
        raise QueryError(f"NOT_SUPPORTED: SHOW is not supported here, of {database}")

    def source(self, database: str, table: str) -> Source | None:
        place = database.lower(), table.lower()
        if place not in self._sources:
            found = self._table(*place)
            if found is None:
                return None
            is_view = found.get("TableType") == "VIRTUAL_VIEW"
            self._sources[place] = self._view(found) if is_view else self._files_of(found)
        return self._sources[place]

    def translate(self, text: str, database: str) -> Translation:
        """Return DuckDB's text of a query."""
        return translate(text, self, self._now, Dialect(database, TIMESTREAM_ONLY, standard=True))

    def _view(self, found: Mapping[str, Any]) -> Source:
        view = view_of(found)
        translation = self.translate(view["originalSql"], view["schema"])
        physical = f"v{len(self._sources)}"
        self._connection.execute(f"CREATE TEMP VIEW {physical} AS {translation.sql}")
        return Source(physical, translation.fields, ("",) * len(translation.fields))

    def _files_of(self, found: Mapping[str, Any]) -> Source:
        today = datetime.fromtimestamp(self._now // 1_000_000_000, UTC).date()
        reader = TableReader(found, self._files, today)
        physical = f"t{len(self._readers)}"
        self._readers.append(reader)
        self._connection.register(physical, Scanned(reader.schema, partial(self._scan, reader)))
        return Source(physical, reader.fields, ("",) * len(reader.fields))

    def _scan(self, reader: TableReader, condition: pc.Expression | None) -> pa.Table:
        try:
            pieces = []
            for piece in reader.read(condition):
                if self._cutoff is not None and self.scanned > self._cutoff:
                    raise CutoffError  # noqa: TRY301 - it is one of the failures
                pieces.append(piece)
            return pa.concat_tables(pieces)
        except Exception as error:
            self.failure = error
            raise


def run(
    text: str,
    database: str,
    *,
    table: Callable[[str, str], Mapping[str, Any] | None],
    files: Files,
    now: int,
    cutoff: int | None = None,
) -> Result:
    """Answer a query.

    Args:
        text: A SELECT.
        database: Where tables are that it names without a database.
        table: Gives a table of the Glue catalog by its database and name.
        files: S3.
        now: Nanoseconds since 1970.
        cutoff: How many bytes it may read.

    Raises:
        QueryError: The query fails.
        CutoffError: It reads more than it may.
    """
    with duckdb.connect(":memory:") as connection:
        set_up(connection, before_1970=True)
        connection.execute("SET python_enable_replacements = false")
        catalog = _Catalog(connection, table, files, now, cutoff)
        try:
            translation = catalog.translate(text, database)
            if any(field.kind is Type.DECIMAL for field in translation.fields):
                raise QueryError("NOT_SUPPORTED: A decimal in a result is not supported here: write 1.5e0")
            execute(connection, f"CREATE TEMP TABLE result AS {translation.sql}")
            values = ", ".join(_printed(field) for field in translation.fields)
            found = connection.execute(f"SELECT {values} FROM result ORDER BY rowid").fetchall()  # noqa: S608 ours
        except ServiceError as error:
            raise QueryError(failure_of(error.message)) from None
        except duckdb.Error as error:
            if catalog.failure is not None:
                raise catalog.failure from None
            raise QueryError(failure_of(reason(error))) from None
    rows = [tuple(map(_text, row, (field.kind for field in translation.fields))) for row in found]
    return Result(translation.fields, rows, catalog.scanned)


def _printed(field: Field) -> str:
    if field.kind is Type.TIMESTAMP:
        return f"strftime({field.physical}, '{MILLISECONDS}')"
    return printed(field.kind, field.physical)


def _text(value: Any, kind: Kind) -> str | None:
    return _written(datum(value), kind)


def _written(value: Datum, kind: Kind) -> str | None:
    """Write arrays as [a, b] and rows as {a, b}."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(kind, Row):
        kinds: Sequence[Kind] = kind.kinds
    else:
        kinds = (kind.element,) * len(value) if isinstance(kind, Array) else ()
    items = [_written(item, inner) for item, inner in zip(value, kinds, strict=True)]
    listed = ", ".join("null" if item is None else item for item in items)
    return f"{{{listed}}}" if isinstance(kind, Row) else f"[{listed}]"
