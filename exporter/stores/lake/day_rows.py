"""The rows of a day, read in pieces of bounded size from fragments and from the parts that are committed."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date
from itertools import accumulate
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from consumers.rows.lake.fragments import (
    ALWAYS,
    DIGEST,
    FIELDS,
    NANOSECONDS,
    VERSION,
    Fragment,
)
from consumers.rows.table import SAID
from exporter.lake.forgotten import CLIENT, Forgotten, forgotten_until
from exporter.lake.manifest import Manifest
from exporter.store import SLICE_ROWS, TIME, Column, StoreError, Type, Values
from exporter.stores.lake.committed import CommittedRows, Read, seconds_of
from exporter.stores.lake.copies import IDENTITY, MOMENT, merged, without_copies
from exporter.stores.lake.texts import PER_MILLISECOND, put_fields, texts, time_texts, type_of

# Rows that become text at once.
PAGE_ROWS = 1_000
SECOND = 10**9
# Small files are fetched in parallel: each is a round trip.
_FETCHERS = 8
_HOUR = 3_600
# What fragments have for their readers alone.
_OWN = {*ALWAYS, FIELDS}


@dataclass(frozen=True, slots=True)
class Listing:
    """What a day consists of at the moment when it is asked about.

    Attributes:
        day: The day in UTC.
        fragments: Its fragments.
        committed: What the lake has of it already; None if it was never exported.
        forgotten: The clients whose rows are left out; None for no client.
        hours: The hours that are asked about, since 1970.
    """

    day: date
    fragments: tuple[Fragment, ...]
    committed: Manifest | None
    forgotten: Forgotten | None
    hours: range


@dataclass(frozen=True, slots=True)
class Piece:
    """The rows of a span of seconds.

    Attributes:
        fragments: Rows of fragments, with all copies.
        committed: Rows of parts, as text.
        places: The places of the rows that count, in order; those behind the fragments' are committed rows.
    """

    fragments: pa.Table
    committed: pa.Table
    places: pa.Array

    def values(self, name: str) -> pa.Array:
        """Return a column of `IDENTITY` of the rows that count, in order."""
        both = pa.concat_tables([self.fragments.select([name]), self.committed.select([name])])
        return both[name].combine_chunks().take(self.places)

    def pages(self, columns: tuple[Column, ...]) -> Iterator[list[Values]]:
        """Yield the rows that count, as text."""
        for start in range(0, len(self.places), PAGE_ROWS):
            places = self.places.slice(start, PAGE_ROWS)
            if not self.committed.num_rows:
                yield _fragment_rows(self.fragments.take(places), columns)
                continue
            behind = self.fragments.num_rows
            is_fragment = pc.less(places, behind)
            own = _fragment_rows(self.fragments.take(places.filter(is_fragment)), columns)
            taken = self.committed.take(pc.subtract(places.filter(pc.invert(is_fragment)), behind))
            names = [column.name for column in columns]
            others = list(zip(*(taken[name].to_pylist() for name in names), strict=True))
            rows, more = iter(own), iter(others)
            yield [next(rows if each else more) for each in is_fragment.to_pylist()]


class DayRows:
    """Reads a day.

    Args:
        listing: What the day consists of.
        read: Gives an object in chunks.
        limit: How many rows a piece has, unless a single second has more.

    Attributes:
        conflicts: Columns of which a fragment has another type as well.
        types: The first type of each column that the fragments read so far have, but for those that all
            fragments have.
    """

    def __init__(self, listing: Listing, read: Read, limit: int = SLICE_ROWS) -> None:
        self._listing = listing
        self._read = read
        self._limit = limit
        self._committed = CommittedRows(listing.committed, read) if listing.committed else None
        self._known: pa.Schema | None = None
        self.types: dict[str, Type] = {}
        self.conflicts: set[str] = set()

    def pieces(self, start: int, end: int, columns: tuple[Column, ...]) -> Iterator[Piece]:
        """Yield the rows of a span in order.

        Args:
            start: In nanoseconds since 1970.
            end: The same, exclusive.
            columns: The columns that are read, besides those of `IDENTITY`.
        """
        try:
            for files, begin, until in self._cut(start, end):
                piece = self._piece(files, begin, until, columns)
                if len(piece.places):
                    yield piece
        finally:
            if self._committed is not None:
                self._committed.close()

    def moments(self, start: int, end: int) -> Iterator[pa.Array]:
        """Yield the times of the rows of a span, in nanoseconds since 1970, in no order.

        Rows of different times are no copies, so the times of most fragments are all that is read of them.

        Args:
            start: In nanoseconds since 1970.
            end: The same, exclusive.
        """
        if self._committed is not None or self._listing.forgotten is not None:
            yield from (piece.values(MOMENT) for piece in self.pieces(start, end, ()))
            return
        for files, begin, until in self._cut(start, end):
            moments = self._fragments(files, begin, until, _TIMES)[MOMENT].combine_chunks()
            if len(moments) == len(moments.unique()):
                yield moments
            else:
                yield self._piece(files, begin, until, ()).values(MOMENT)

    def _cut(self, start: int, end: int) -> Iterator[tuple[list[Fragment], int, int]]:
        """Cut a span into those of pieces, each with its hour's fragments."""
        for hour in self._listing.hours:
            first, last = max(hour * _HOUR * SECOND, start), min((hour + 1) * _HOUR * SECOND, end)
            if first < last:
                files = [each for each in self._listing.fragments if each.hour == hour]
                yield from ((files, begin, until) for begin, until in self._spans(files, first, last))

    def _spans(self, files: list[Fragment], start: int, end: int) -> Iterator[tuple[int, int]]:
        """Cut a span within an hour at whole seconds, so that each piece has about as many rows as it may.

        Files' names have their number of rows, first and last second; rows are taken to be spread evenly.
        """
        sources = [(file.first, file.last, file.rows) for file in files]
        if self._committed is not None:
            sources += [(*seconds_of(part), part.rows) for part in self._committed.manifest.parts]
        first, last = start // SECOND, -(-end // SECOND)
        sources = [source for source in sources if source[0] < last and source[1] >= first]
        if not sources:
            return
        change = [0.0] * (last - first + 1)
        for begin, until, rows in sources:
            density = rows / (until - begin + 1)
            change[max(begin - first, 0)] += density
            change[min(until + 1, last) - first] -= density
        rows_until, cut = 0.0, start
        for second, density in enumerate(accumulate(change[:-1]), first):
            if rows_until and rows_until + density > self._limit:
                yield cut, second * SECOND
                rows_until, cut = 0.0, second * SECOND
            rows_until += density
        yield cut, end

    def _piece(self, files: list[Fragment], start: int, end: int, columns: tuple[Column, ...]) -> Piece:
        names = {column.name for column in columns}
        if self._listing.forgotten:
            names.add(SAID)
        wanted = {*ALWAYS, *names, *([FIELDS] if names else [])}
        found = self._kept(self._fragments(files, start, end, wanted, columns)).combine_chunks()
        committed = _NO_TEXT
        if self._committed is not None:
            more = (*columns, *(Column(name, "text") for name in names - {each.name for each in columns}))
            committed = self._kept(self._committed.rows(start, end, more)).combine_chunks()
        places = without_copies(found)
        if committed.num_rows:
            first = merged(found.take(places), committed)
            # Places among the fragments without copies become places among all fragments.
            behind = pc.add(pa.array(range(committed.num_rows), pa.uint64()), found.num_rows)
            places = pa.concat_arrays([places.cast(pa.uint64()), behind.cast(pa.uint64())]).take(first)
        return Piece(found, committed, places)

    def _fragments(
        self,
        files: list[Fragment],
        start: int,
        end: int,
        names: Collection[str],
        columns: tuple[Column, ...] = (),
    ) -> pa.Table:
        """Return these columns of the rows of a span, with their times in nanoseconds, in no order."""
        keys = [file.key for file in files if file.first * SECOND < end and (file.last + 1) * SECOND > start]
        with ThreadPoolExecutor(max(1, min(_FETCHERS, len(keys)))) as pool:
            bodies = pool.map(lambda key: b"".join(self._read(key)), keys)
            tables = [self._table(key, body, names, columns) for key, body in zip(keys, bodies, strict=True)]
        nothing = _NOTHING.select([name for name in _NOTHING.column_names if name in names])
        found = pa.concat_tables([nothing, *tables], promote_options="default")
        moments = pc.multiply(found[TIME].cast(pa.int64()), PER_MILLISECOND)
        moments = pc.add(moments, found[NANOSECONDS].cast(pa.int64()))
        found = found.drop_columns([TIME, NANOSECONDS]).add_column(0, MOMENT, moments)
        return found.filter(pc.and_(pc.greater_equal(moments, start), pc.less(moments, end)))

    def _table(self, key: str, body: bytes, names: Collection[str], columns: tuple[Column, ...]) -> pa.Table:
        """Return the columns of a fragment that are asked for."""
        try:
            # A small file in memory is read as it is: to read ahead takes threads, and twice the time.
            file = pq.ParquetFile(pa.BufferReader(body), pre_buffer=False)
            schema = file.schema_arrow
            if schema != self._known:
                self._note_types(schema)
                self._known = schema
            read = [name for name in schema.names if name in names]
            table = file.read(read, use_threads=False)
        except (OSError, pa.ArrowException) as error:
            raise StoreError(
                f"the fragment {key} is damaged: {error}; move it away, and ask again"
            ) from error
        for name, type_ in columns:
            if name in read and type_of(table.schema.field(name).type) != type_:
                table = _moved_to_fields(table, name)
        return table

    def _note_types(self, schema: pa.Schema) -> None:
        for name in schema.names:
            type_ = type_of(schema.field(name).type)
            if name not in _OWN and self.types.setdefault(name, type_) != type_:
                self.conflicts.add(name)

    def _kept(self, table: pa.Table) -> pa.Table:
        """Return the rows of clients that are not forgotten."""
        if self._listing.forgotten is None or not table.num_rows:
            return table
        until_of = forgotten_until(self._listing.forgotten)
        said = table[SAID].to_pylist() if SAID in table.column_names else [None] * table.num_rows
        rows = zip(table[CLIENT].to_pylist(), said, table[MOMENT].to_pylist(), strict=True)
        kept = [moment > until_of(client, other) for client, other, moment in rows]
        return table if all(kept) else table.filter(pa.array(kept))


_NOTHING = pa.schema(
    [
        (TIME, pa.timestamp("ms", "UTC")),
        (NANOSECONDS, pa.int32()),
        *((name, pa.string()) for name in IDENTITY[1:]),
        (DIGEST, pa.int64()),
        (VERSION, pa.int32()),
    ]
).empty_table()
_TIMES = (TIME, NANOSECONDS)
_NO_TEXT = pa.schema([(MOMENT, pa.int64()), *((name, pa.string()) for name in IDENTITY[1:])]).empty_table()


def _fragment_rows(taken: pa.Table, columns: tuple[Column, ...]) -> list[Values]:
    """Return rows of fragments as text."""
    if not taken.num_rows:
        return []
    there = {name: taken[name].combine_chunks() for name in taken.column_names}
    values: list[list[str | None]] = []
    for name, _ in columns:
        if name == TIME:
            values.append(time_texts(there[MOMENT]))
        else:
            is_there = name in there and name != FIELDS
            values.append(texts(there[name]) if is_there else [None] * taken.num_rows)
    if FIELDS in there:
        put_fields(there[FIELDS].to_pylist(), columns, values)
    return list(zip(*values, strict=True))


def _moved_to_fields(table: pa.Table, name: str) -> pa.Table:
    """Return a table without a column of another type than the day's; its values are in `fields`."""
    fields = table[FIELDS].to_pylist() if FIELDS in table.column_names else [None] * table.num_rows
    values = table[name].to_pylist()
    moved: list[Any] = [
        text if value is None else orjson.dumps({**orjson.loads(text or "{}"), name: value}).decode()
        for text, value in zip(fields, values, strict=True)
    ]
    table = table.drop_columns([name] + [FIELDS] * (FIELDS in table.column_names))
    return table.append_column(FIELDS, pa.array(moved, pa.string()))
