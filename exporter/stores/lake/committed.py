"""The rows of a day that the lake has already: parts in the format that has most of them."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, date, datetime, timedelta
from typing import IO, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from consumers.bucket import Objects
from exporter.lake.days import Day
from exporter.lake.formats import Format
from exporter.lake.manifest import NANOSECONDS, Manifest, Part
from exporter.store import TIME, Column
from exporter.stores.lake.copies import IDENTITY, MOMENT
from exporter.stores.lake.texts import PER_MILLISECOND, texts, time_texts

Read = Callable[[str], Iterator[bytes]]

_NANOSECONDS_PER_SECOND = 10**9
_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - as Parquet's statistics have times: without a zone
# A part is kept in memory up to this size, and in a file beyond it.
_IN_MEMORY = 32 << 20


def find_committed(objects: Objects, day: date) -> Manifest | None:
    """Return the manifest of the day's format with the most rows; None if the day was never exported."""
    # The first of equals: Parquet is read the quickest.
    kinds = sorted(Format, key=lambda kind: not kind.rules.typed)
    manifests = [manifest for kind in kinds if (manifest := Day(objects, day, kind).manifest())]
    return max(manifests, key=lambda manifest: manifest.rows + manifest.forgotten, default=None)


def seconds_of(part: Part) -> tuple[int, int]:
    """Return the earliest and the latest row's time in whole seconds since 1970."""
    first, last = (
        int(datetime.fromisoformat(time[:19]).replace(tzinfo=UTC).timestamp())
        for time in (part.first_time, part.last_time)
    )
    return first, last


class CommittedRows:
    """Reads a committed day by spans of time.

    Args:
        manifest: The day's manifest.
        read: Gives an object in chunks.
    """

    def __init__(self, manifest: Manifest, read: Read) -> None:
        self.manifest = manifest
        self._read = read
        self._kind = Format(manifest.format)
        self._types = {column.name: column.type for column in manifest.columns}
        self._open: tuple[str, IO[bytes]] | None = None

    def rows(self, start: int, end: int, columns: tuple[Column, ...]) -> pa.Table:
        """Return the rows of a span, as text, with the columns `IDENTITY`.

        Args:
            start: In nanoseconds since 1970.
            end: The same, exclusive.
            columns: The columns that are asked for; those that the day does not have are null.
        """
        names = dict.fromkeys([*IDENTITY[1:], *(column.name for column in columns)])
        found = [
            table
            for part in self.manifest.parts
            if seconds_of(part)[0] * _NANOSECONDS_PER_SECOND < end
            and (seconds_of(part)[1] + 1) * _NANOSECONDS_PER_SECOND > start
            for table in self._tables(part, start, end)
        ]
        schema = pa.schema([(MOMENT, pa.int64()), *((name, pa.string()) for name in names)])
        rows = [self._in_span(_shaped(table, schema), start, end) for table in found]
        return pa.concat_tables(rows) if rows else schema.empty_table()

    def _in_span(self, table: pa.Table, start: int, end: int) -> pa.Table:
        moment = table[MOMENT]
        return table.filter(pc.and_(pc.greater_equal(moment, start), pc.less(moment, end)))

    def _tables(self, part: Part, start: int, end: int) -> Iterator[pa.Table]:
        if self._kind.rules.typed:
            yield from self._typed_tables(part, start, end)
            return
        names = [column.name for column in self.manifest.columns]
        for batch in self._kind.read(self._read(part.key), self.manifest.columns):
            values = dict(zip(names, zip(*batch.rows, strict=True), strict=True))
            yield _with_moment({name: pa.array(each, pa.string()) for name, each in values.items()})

    def _typed_tables(self, part: Part, start: int, end: int) -> Iterator[pa.Table]:
        file = self._file(part.key)
        at = file.schema_arrow.names.index(TIME)
        for number in range(file.num_row_groups):
            found = file.metadata.row_group(number).column(at).statistics
            first, last = (_nanoseconds(time) for time in (found.min, found.max))
            if first < end and last + PER_MILLISECOND > start:
                yield self._texts(file.read_row_group(number, use_threads=False))

    def _texts(self, group: pa.Table) -> pa.Table:
        columns = {name: group[name].combine_chunks() for name in group.column_names}
        below = columns.pop(NANOSECONDS).cast(pa.int64())
        moments = pc.add(pc.multiply(columns[TIME].cast(pa.int64()), PER_MILLISECOND), below)
        read = {name: pa.array(texts(values), pa.string()) for name, values in columns.items()}
        return pa.table({MOMENT: moments, **read, TIME: pa.array(time_texts(moments), pa.string())})

    def _file(self, key: str) -> pq.ParquetFile:
        """Return a part; the last one that was asked for is kept, because a span mostly follows another."""
        if self._open is None or self._open[0] != key:
            self.close()
            kept: IO[bytes] = tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY)  # noqa: SIM115 - `close` closes it
            self._open = key, kept
            for chunk in self._read(key):
                kept.write(chunk)
        kept = self._open[1]
        kept.seek(0)
        return pq.ParquetFile(kept)

    def close(self) -> None:
        """Forget the part that is kept."""
        if self._open is not None:
            self._open[1].close()
            self._open = None


def _nanoseconds(time: datetime) -> int:
    return (time - _EPOCH) // timedelta(milliseconds=1) * PER_MILLISECOND


def _with_moment(columns: Mapping[str, pa.Array]) -> pa.Table:
    moments = columns[TIME].cast(pa.timestamp("ns")).cast(pa.int64())
    return pa.table({MOMENT: moments, **columns})


def _shaped(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Return a table with these columns; those that it does not have are null.

    Empty text is null, as in a fragment, where `_empty` names it: an export puts it back.
    """
    columns: list[Any] = []
    for field in schema:
        if field.name not in table.column_names:
            columns.append(pa.nulls(table.num_rows, field.type))
        elif field.name == MOMENT:
            columns.append(table[MOMENT])
        else:
            values = table[field.name]
            columns.append(pc.if_else(pc.equal(values, ""), None, values))
    return pa.table(columns, schema=schema)
