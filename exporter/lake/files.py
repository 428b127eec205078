"""Rows become part files, and part files rows again: csv, csv.gz, jsonl.gz and Parquet. Streaming.

Whatever the day's size, what is in memory is a batch of rows; with Parquet, a group of them.
"""

from __future__ import annotations

import csv
import hashlib
import json
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator
from enum import StrEnum
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import msgspec
from isal import isal_zlib

from exporter.lake.manifest import PART_BYTES, Part
from exporter.store import TIME, Column, Type, Values

if TYPE_CHECKING:
    from isal.isal_zlib import Compress

# What is read of a file at once, as rows and as bytes.
PAGE_ROWS = 1_000
READ_BYTES = 1 << 20

# What ISA-L raises; its stubs do not say that it is an exception.
_IsalError: type[Exception] = isal_zlib.error  # type: ignore[assignment]
_GZIP = 31  # zlib's window bits for "gzip, largest window"
# Levels of ISA-L are 0 to 3: a tenth of the time of zlib's 6 for a file a tenth larger.
_LEVEL = 2
# What a value has that is in quotes in CSV.
_QUOTED = (",", '"', "\n", "\r")


class Format(StrEnum):
    """What part files are."""

    CSV = "csv"
    CSV_GZ = "csv.gz"
    JSONL_GZ = "jsonl.gz"
    PARQUET = "parquet"


CONTENT_TYPES = {
    Format.CSV: "text/csv",
    Format.CSV_GZ: "application/gzip",
    Format.JSONL_GZ: "application/gzip",
    Format.PARQUET: "application/vnd.apache.parquet",
}


class Batch(NamedTuple):
    """Rows that are written together.

    Attributes:
        rows: The rows.
        empties: Whether a value in them is empty text, which is another thing than none.
    """

    rows: list[Values]
    empties: bool = False


class Writer(Protocol):
    """A file of one format while it is made."""

    size: int

    def add(self, batch: Batch) -> bytes:
        """Take rows, and return what of the file is ready; `size` is how large their text is so far."""

    def end(self) -> bytes:
        """Return the rest of the file."""


class PartFile:
    """A part while it is made: `chunks` is what is kept, and once it has run out, `summary` tells of it.

    Args:
        key: Its key in the bucket.
        kind: Its format.
        columns: Names and types, in the order of the rows' values.
        batches: The rows by time; none is taken after the part's last.
        size: Where it is cut, in bytes before it is packed.
    """

    def __init__(
        self, key: str, kind: Format, columns: tuple[Column, ...], batches: Iterator[Batch], size: int
    ) -> None:
        self.key = key
        self.content_type = CONTENT_TYPES[kind]
        self._writer = _writer(kind, columns)
        self._when = [column.name for column in columns].index(TIME)
        self._batches = batches
        self._size = size
        self._rows = 0
        self._bytes = 0
        self._sha256 = hashlib.sha256()
        self._times: tuple[str, str] = ("", "")

    def chunks(self) -> Iterator[bytes]:
        """Yield the file. Equal rows are equal bytes: there is no time in it, and gzip is one member."""
        for batch in self._batches:
            first, last = batch.rows[0][self._when], batch.rows[-1][self._when]
            self._times = (self._times[0] or first or "", last or "")
            self._rows += len(batch.rows)
            yield self._measured(self._writer.add(batch))
            if self._writer.size >= self._size:
                break
        yield self._measured(self._writer.end())

    def summary(self) -> Part:
        """Return what a manifest says of the part."""
        text = self._writer if isinstance(self._writer, TextWriter) else None
        return Part(
            self.key,
            self._rows,
            self._bytes,
            self._sha256.hexdigest(),
            *self._times,
            text_bytes=text.size if text else None,
            text_sha256=text.sha256.hexdigest() if text else None,
            line_breaks=text.line_breaks if text else 0,
        )

    def _measured(self, chunk: bytes) -> bytes:
        self._bytes += len(chunk)
        self._sha256.update(chunk)
        return chunk


def parts(
    batches: Iterator[Batch],
    columns: tuple[Column, ...],
    key: Callable[[int], str],
    kind: Format = Format.CSV_GZ,
    *,
    size: int = PART_BYTES,
    first: int = 0,
) -> Iterator[PartFile]:
    """Yield the parts of a day, none for one without rows. Each must be used up before the next is asked for.

    Args:
        batches: The rows by time.
        columns: Names and types, in the order of the rows' values.
        key: Gives the key of the nth part.
        kind: Their format.
        size: Where a part is cut, in bytes before it is packed.
        first: The first part's number.
    """
    number = first
    while (batch := next(batches, None)) is not None:
        yield PartFile(key(number), kind, columns, batches := _with_first(batch, batches), size)
        number += 1


class TextWriter:
    """A text format, packed or not."""

    def __init__(self, head: bytes, text_of: Callable[[Batch], bytes], *, pack: bool, lines: int) -> None:
        self.size = 0
        self.sha256 = hashlib.sha256()
        self.line_breaks = -lines
        self._text_of = text_of
        self._head = head
        self._packer: Compress | None = (
            isal_zlib.compressobj(_LEVEL, isal_zlib.DEFLATED, _GZIP) if pack else None
        )

    def add(self, batch: Batch) -> bytes:
        """Take rows, and return what of the file is ready."""
        self.line_breaks -= len(batch.rows)
        return self._packed(self._text_of(batch))

    def end(self) -> bytes:
        """Return the rest of the file."""
        rest = self._packed(b"")
        return rest + self._packer.flush() if self._packer else rest

    def _packed(self, text: bytes) -> bytes:
        if self._head:
            text, self._head = self._head + text, b""
        self.size += len(text)
        self.sha256.update(text)
        self.line_breaks += text.count(b"\n")
        return self._packer.compress(text) if self._packer else text


def _writer(kind: Format, columns: tuple[Column, ...]) -> Writer:
    names = [column.name for column in columns]
    match kind:
        case Format.PARQUET:
            # Its library takes as much memory as the rest of the function: for this format alone.
            from exporter.lake.parquet import ParquetWriter  # noqa: PLC0415

            return ParquetWriter(columns)
        case Format.JSONL_GZ:
            return TextWriter(b"", _json_lines(columns), pack=True, lines=0)
        case _:
            head = csv_lines(Batch([list(names)]))
            return TextWriter(head, csv_lines, pack=kind is Format.CSV_GZ, lines=1)


# --- CSV --------------------------------------------------------------------------------------------------


def csv_lines(batch: Batch) -> bytes:
    """Return rows as CSV: none is nothing, empty text is `""`, and lines end with a line feed alone.

    A column at a time: the csv module looks at each character of each value. Most columns have nothing to
    quote, which one look at all their values together tells.
    """
    columns = (_csv_column(values, empties=batch.empties) for values in zip(*batch.rows, strict=True))
    return "".join([f"{line}\n" for line in map(",".join, zip(*columns, strict=True))]).encode()


def _csv_column(values: tuple[str | None, ...], *, empties: bool) -> Iterable[str]:
    """Return a column's values as they are written."""
    texts: Iterable[str] = [value or "" for value in values]
    together = "".join(texts)
    if any(mark in together for mark in _QUOTED):
        texts = [_quoted(text) if any(mark in text for mark in _QUOTED) else text for text in texts]
    if empties and "" in values:
        texts = ['""' if value == "" else text for value, text in zip(values, texts, strict=True)]
    return texts


def _quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'


def _csv_rows(text: Iterable[bytes]) -> Iterator[list[Values]]:
    """Yield pages of rows of a CSV file; the first has the names alone.

    Python's reader takes none for empty text. What has a pair of quotes between two ends of a field is told
    apart here.
    """
    # The module's own limit is 128 KiB, for all readers of a process; a record's values can be longer.
    csv.field_size_limit(sys.maxsize)
    rows: list[Values] = []
    record: list[str] = []
    quotes = size = 0
    header = True
    for line in _lines(text):
        record.append(line)
        # A value's quotes come in pairs: after an odd number of them, a value goes on in the next line.
        quotes += line.count('"')
        if quotes % 2:
            continue
        text_of_row = "".join(record)
        record.clear()
        rows.append(_fields(text_of_row))
        size += len(text_of_row)
        if header or len(rows) == PAGE_ROWS or size >= READ_BYTES:
            yield rows
            rows, size, header = [], 0, False
    if record:
        raise ValueError("the file ends inside of a value")
    if rows:
        yield rows


def _fields(line: str) -> Values:
    try:
        (values,) = csv.reader([line], strict=True)
    except (csv.Error, ValueError) as error:
        raise ValueError(f"a row cannot be read: {error}") from error
    if '""' not in line:
        return [value or None for value in values]
    # Each value as it is written, to see whether an empty one has quotes.
    found: list[str | None] = []
    at = 0
    for value in values:
        written = 2 if value == "" and line.startswith('""', at) else 0
        if value == "":
            found.append("" if written else None)
            at += written + 1
        else:
            quoted = line[at] == '"'
            found.append(value)
            at += len(value) + (2 + value.count('"') if quoted else 0) + 1
    return found


def _lines(text: Iterable[bytes]) -> Iterator[str]:
    rest = b""
    for chunk in text:
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            yield line.decode() + "\n"
    if rest:
        yield rest.decode()


# --- JSON lines -------------------------------------------------------------------------------------------


def _number(text: str) -> msgspec.Raw:
    return msgspec.Raw(text.encode())


_JSON_VALUES: dict[Type, Callable[[str], Any]] = {
    "integer": _number,
    "number": _number,
    "boolean": "true".__eq__,
}


def _json_lines(columns: tuple[Column, ...]) -> Callable[[Batch], bytes]:
    """Return what writes rows as JSON lines: numbers as the store says them, and none is left out."""
    encode = msgspec.json.Encoder().encode_lines
    places = [(column.name, _JSON_VALUES.get(column.type)) for column in columns]

    def lines(batch: Batch) -> bytes:
        return encode(
            [
                {
                    name: made(value) if made else value
                    for (name, made), value in zip(places, row, strict=True)
                    if value is not None
                }
                for row in batch.rows
            ]
        )

    return lines


def _json_rows(text: Iterable[bytes], columns: tuple[Column, ...]) -> Iterator[list[Values]]:
    rows: list[Values] = []
    size = 0
    for line in _lines(text):
        read = json.loads(line, parse_float=str, parse_int=str)
        values = (read.get(column.name) for column in columns)
        rows.append([str(value).lower() if isinstance(value, bool) else value for value in values])
        size += len(line)
        if len(rows) == PAGE_ROWS or size >= READ_BYTES:
            yield rows
            rows, size = [], 0
    if rows:
        yield rows


# --- reading ----------------------------------------------------------------------------------------------


def read_rows(chunks: Iterable[bytes], kind: Format, columns: tuple[Column, ...]) -> Iterator[Batch]:
    """Yield the rows of a part file.

    Args:
        chunks: The file.
        kind: Its format.
        columns: What its manifest says of its columns.

    Raises:
        ValueError: If it is not what its manifest says, or ends early.
    """
    if kind is Format.PARQUET:
        from exporter.lake.parquet import parquet_rows  # noqa: PLC0415

        pages = parquet_rows(chunks, columns)
    elif kind is Format.JSONL_GZ:
        pages = _json_rows(unpacked(chunks), columns)
    else:
        pages = _csv_rows(unpacked(chunks) if kind is Format.CSV_GZ else chunks)
        header = next(pages, [[]])[0]
        if list(header) != [column.name for column in columns]:
            raise ValueError(f"the file's columns are {header}, not those of its manifest")
    for rows in pages:
        if any(len(row) != len(columns) for row in rows):
            raise ValueError(f"a row has not {len(columns)} values, as its file has columns")
        yield Batch(rows, any("" in row for row in rows))


def unpacked(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield what is in a gzip of one member.

    Raises:
        ValueError: If it ends early, or is none.
    """
    unpacker = isal_zlib.decompressobj(_GZIP)
    try:
        for chunk in chunks:
            rest = chunk
            while rest:
                if text := unpacker.decompress(rest, READ_BYTES):
                    yield text
                rest = unpacker.unconsumed_tail
    except (zlib.error, _IsalError) as error:
        raise ValueError(f"the gzip is damaged: {error}") from error
    if not unpacker.eof:
        raise ValueError("the gzip ends early")


def _with_first(batch: Batch, batches: Iterator[Batch]) -> Iterator[Batch]:
    yield batch
    yield from batches
