"""Part files: rows go in, and pieces of a file and its description come out. Pure."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import chain

from exporter.lake.batch import Batch
from exporter.lake.formats import Format
from exporter.lake.manifest import PART_BYTES, Part
from exporter.store import TIME, TYPE, Column, places


class PartFile:
    """A part while it is written: `chunks` yields the file, and `summary` describes it afterwards.

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
        self._writer = kind.writer(columns)
        place = places(columns)
        self._when, self._type = place[TIME], place[TYPE]
        self._batches = batches
        self._size = size
        self._rows = 0
        self._bytes = 0
        self._sha256 = hashlib.sha256()
        self._times: tuple[str, str] = ("", "")
        self._types: Counter[str | None] = Counter()

    def chunks(self) -> Iterator[bytes]:
        """Yield the file. Equal rows are equal bytes: it contains no time, and gzip is one member."""
        for batch in self._batches:
            first, last = batch.rows[0][self._when], batch.rows[-1][self._when]
            self._times = (self._times[0] or first or "", last or "")
            self._rows += len(batch.rows)
            self._types.update([row[self._type] for row in batch.rows])
            yield self._measured(self._writer.add(batch))
            if self._writer.size >= self._size:
                break
        yield self._measured(self._writer.end())

    def summary(self) -> Part:
        """Return the part's entry in a manifest."""
        types = {type_ or "": rows for type_, rows in sorted(self._types.items(), key=str)}
        return Part(
            self.key,
            self._rows,
            self._bytes,
            self._sha256.hexdigest(),
            *self._times,
            types=types,
            **self._writer.summary(),
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
        yield PartFile(key(number), kind, columns, chain([batch], batches), size)
        number += 1
