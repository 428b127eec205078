"""The lake's files: rows become csv.gz parts and a manifest. Pure, streaming.

Whatever the day's size, what is in memory is one chunk.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from datetime import date
from typing import Any

from exporter.query import TIME, Answer, Column, Values

PREFIX = "records/"
MANIFEST = "_manifest.json"
FORMAT = "csv.gz"

# A part is cut at the row that passes this, before compression: about 30 MB as it is kept.
PART_BYTES = 256 * 1024 * 1024
CHUNK_BYTES = 256 * 1024

_GZIP = 31  # zlib's window bits for "gzip, largest window"


@dataclass(frozen=True, slots=True)
class Part:
    """What a manifest says of a part.

    Attributes:
        key: Its key in the bucket.
        rows: How many, without the header.
        bytes: Its size as it is kept.
        sha256: Of it as it is kept, in hex.
        first_time: The earliest row's time.
        last_time: The latest row's time.
    """

    key: str
    rows: int
    bytes: int
    sha256: str
    first_time: str
    last_time: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a day of the lake holds. It is written last: what it does not name is not there.

    Attributes:
        day: The day in UTC.
        revision: Counts the different contents that the day has had.
        columns: Names and types, in the order of the files.
        parts: The files.
    """

    day: date
    revision: int
    columns: tuple[Column, ...]
    parts: tuple[Part, ...] = field(default=())

    @property
    def rows(self) -> int:
        """How many rows the day has."""
        return sum(part.rows for part in self.parts)

    @property
    def size(self) -> int:
        """How large the day's files are together, in bytes as they are kept."""
        return sum(part.bytes for part in self.parts)

    def to_json(self) -> bytes:
        """Return the manifest as it is kept."""
        document = {
            "day": self.day.isoformat(),
            "revision": self.revision,
            "format": FORMAT,
            "rows": self.rows,
            "bytes": self.size,
            "first_time": min((part.first_time for part in self.parts), default=None),
            "last_time": max((part.last_time for part in self.parts), default=None),
            "columns": [column._asdict() for column in self.columns],
            "parts": [asdict(part) for part in self.parts],
        }
        return json.dumps(document, indent=1).encode() + b"\n"

    @classmethod
    def from_json(cls, document: bytes) -> Manifest:
        """Return the manifest that a document says."""
        read: dict[str, Any] = json.loads(document)
        return cls(
            day=date.fromisoformat(read["day"]),
            revision=read["revision"],
            columns=tuple(Column(**column) for column in read["columns"]),
            parts=tuple(Part(**part) for part in read["parts"]),
        )

    def succeeding(self, known: Manifest | None) -> Manifest:
        """Return the manifest with its revision: the known one's if nothing changed, else the next."""
        if known is None:
            return self
        same = replace(self, revision=known.revision)
        return same if same == known else replace(self, revision=known.revision + 1)


def folder(day: date) -> str:
    """Return the beginning of the keys of a day."""
    return f"{PREFIX}year={day:%Y}/month={day:%m}/day={day:%d}/"


class PartFile:
    """A part while it is made: `chunks` is what is kept, and once it has run out, `summary` tells of it."""

    def __init__(self, key: str, columns: tuple[Column, ...], rows: Iterator[Values], size: int) -> None:
        self.key = key
        self._columns = columns
        self._rows = rows
        self._size = size
        self._count = 0
        self._bytes = 0
        self._sha256 = hashlib.sha256()
        self._times: tuple[str, str] = ("", "")

    def chunks(self) -> Iterator[bytes]:
        """Yield the file: gzip in one member and with no time in it, so that equal rows are equal bytes."""
        packer = zlib.compressobj(6, zlib.DEFLATED, _GZIP)
        for text in self._texts():
            if packed := packer.compress(text):
                yield self._measured(packed)
        yield self._measured(packer.flush())

    def summary(self) -> Part:
        """Return what a manifest says of the part."""
        return Part(self.key, self._count, self._bytes, self._sha256.hexdigest(), *self._times)

    def _texts(self) -> Iterator[bytes]:
        buffer = _Lines()
        # The module quotes what is in its line end: this one makes it quote carriage returns as well.
        writer = csv.writer(buffer, lineterminator="\r\n")
        writer.writerow([column.name for column in self._columns])
        when = [column.name for column in self._columns].index(TIME)
        total = 0
        for row in self._rows:
            writer.writerow(row)
            time = row[when] or ""
            self._times = (self._times[0] or time, time)
            self._count += 1
            if buffer.tell() >= CHUNK_BYTES:
                text = buffer.getvalue().encode()
                total += len(text)
                yield text
                buffer.seek(0)
                buffer.truncate()
                if total >= self._size:
                    return
        yield buffer.getvalue().encode()

    def _measured(self, chunk: bytes) -> bytes:
        self._bytes += len(chunk)
        self._sha256.update(chunk)
        return chunk


def parts(day: date, answer: Answer, size: int = PART_BYTES) -> Iterator[PartFile]:
    """Yield a day's parts, none for a day without rows. Each must be used up before the next is asked for.

    Args:
        day: The day in UTC.
        answer: Its rows by time.
        size: Where a part is cut, in bytes before compression.
    """
    rows = answer.rows
    number = 0
    while (row := next(rows, None)) is not None:
        rows = _with_first(row, rows)
        yield PartFile(f"{folder(day)}part-{number:05}.{FORMAT}", answer.columns, rows, size)
        number += 1


class _Lines(io.StringIO):
    """Text whose lines end as on Unix, whatever the writer ends them with."""

    def write(self, text: str, /) -> int:
        return super().write(text[:-2] + "\n")


def _with_first(row: Values, rows: Iterator[Values]) -> Iterator[Values]:
    yield row
    yield from rows
