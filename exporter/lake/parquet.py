"""Parquet parts: typed columns, zstd, statistics. Imported for this format alone: its library is large."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Iterable, Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from exporter.lake.batch import PAGE_ROWS, Batch
from exporter.lake.manifest import NANOSECONDS
from exporter.store import TIME, Column, Values

# A group is what is in memory at once, and what a reader skips or reads as a whole.
GROUP_ROWS = 25_000
GROUP_BYTES = 16 << 20
_IN_MEMORY = 8 << 20

_PER_MILLISECOND = 1_000_000

_TYPES = {
    "integer": pa.int64(),
    "boolean": pa.bool_(),
    "number": pa.float64(),
    "timestamp": pa.timestamp("ms"),
}


def schema(columns: tuple[Column, ...]) -> pa.Schema:
    """Return a file's columns by those of the rows: after `time` comes what is below milliseconds."""
    fields = [pa.field(column.name, _TYPES.get(column.type, pa.string())) for column in columns]
    at = [column.name for column in columns].index(TIME) + 1
    return pa.schema([*fields[:at], pa.field(NANOSECONDS, pa.int32()), *fields[at:]])


def writer(columns: tuple[Column, ...], *, pack: bool) -> ParquetWriter:  # noqa: ARG001 - it packs itself
    """Return a Parquet file to write."""
    return ParquetWriter(columns)


class ParquetWriter:
    """A Parquet file while it is made.

    Args:
        columns: Names and types, in the order of the rows' values.
    """

    def __init__(self, columns: tuple[Column, ...]) -> None:
        self.size = 0
        self._columns = columns
        self._schema = schema(columns)
        self._sink = _Sink()
        self._file = pq.ParquetWriter(pa.PythonFile(self._sink, mode="w"), self._schema, compression="zstd")
        self._group: list[pa.RecordBatch] = []
        self._group_rows = self._group_bytes = 0

    def add(self, batch: Batch) -> bytes:
        """Take rows, and return what of the file is ready."""
        arrays: list[pa.Array] = []
        for column, values in zip(self._columns, zip(*batch.rows, strict=True), strict=True):
            if batch.empties and column.type != "text":
                # A number's column has no empty text: `_empty` names the field.
                values = tuple(value or None for value in values)  # noqa: PLW2901 - the same column's
            texts = pa.array(values, pa.string())
            self._group_bytes += texts.nbytes
            self.size += texts.nbytes
            if column.type == "timestamp":
                nanoseconds = texts.cast(pa.timestamp("ns")).cast(pa.int64())
                milliseconds = pc.divide(nanoseconds, _PER_MILLISECOND)
                arrays.append(milliseconds.cast(pa.timestamp("ms")))
                if column.name == TIME:
                    below = pc.subtract(nanoseconds, pc.multiply(milliseconds, _PER_MILLISECOND))
                    arrays.append(below.cast(pa.int32()))
            else:
                arrays.append(texts.cast(_TYPES.get(column.type, pa.string())))
        self._group.append(pa.RecordBatch.from_arrays(arrays, schema=self._schema))
        self._group_rows += len(batch.rows)
        if self._group_rows >= GROUP_ROWS or self._group_bytes >= GROUP_BYTES:
            self._write_group()
        return self._sink.take()

    def end(self) -> bytes:
        """Return the rest of the file."""
        if self._group:
            self._write_group()
        self._file.close()
        return self._sink.take()

    def summary(self) -> dict[str, Any]:
        """Return nothing: only text has such fields."""
        return {}

    def _write_group(self) -> None:
        self._file.write_table(pa.Table.from_batches(self._group), row_group_size=self._group_rows)
        self._group.clear()
        self._group_rows = self._group_bytes = 0


def rows(chunks: Iterable[bytes], columns: tuple[Column, ...]) -> Iterator[list[Values]]:
    """Yield pages of a file's rows, as text.

    Raises:
        ValueError: If it is not a Parquet file, or has other columns.
    """
    with tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY) as kept:
        for chunk in chunks:
            kept.write(chunk)
        kept.seek(0)
        try:
            yield from _pages(kept, columns)
        except (OSError, pa.ArrowException) as error:  # its compression or its metadata is broken
            raise ValueError(f"the file is damaged: {error}") from error


def _pages(kept: Any, columns: tuple[Column, ...]) -> Iterator[list[Values]]:
    file = pq.ParquetFile(kept)
    if file.schema_arrow.names != schema(columns).names:
        raise ValueError(f"the file's columns are {file.schema_arrow.names}, not those of its manifest")
    for batch in file.iter_batches(batch_size=PAGE_ROWS):
        yield [list(row) for row in zip(*(_texts(batch, column) for column in columns), strict=True)]


def _texts(batch: pa.RecordBatch, column: Column) -> list[str | None]:
    values: Any = batch.column(column.name)
    if column.type == "timestamp":
        nanoseconds = pc.multiply(values.cast(pa.int64()), _PER_MILLISECOND)
        if column.name == TIME:
            nanoseconds = pc.add(nanoseconds, batch.column(NANOSECONDS).cast(pa.int64()))
        values = nanoseconds.cast(pa.timestamp("ns"))
    texts: list[str | None] = values.cast(pa.string()).to_pylist()
    return texts


class _Sink(io.RawIOBase):
    """Where a file is written to: it cannot seek, and hands out what it was given."""

    def __init__(self) -> None:
        super().__init__()
        self._pieces: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: Any, /) -> int:
        piece = bytes(data)
        self._pieces.append(piece)
        return len(piece)

    def take(self) -> bytes:
        taken = b"".join(self._pieces)
        self._pieces.clear()
        return taken
