"""Formats that are text, packed with gzip or not: written, unpacked, and cut into lines and pages. Pure."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from isal import isal_zlib

from exporter.lake.batch import PAGE_ROWS, READ_BYTES, Batch
from exporter.store import Values

if TYPE_CHECKING:
    from isal.isal_zlib import Compress

# What ISA-L raises; its stubs do not declare it as an exception.
_IsalError: type[Exception] = isal_zlib.error  # type: ignore[assignment]
_GZIP = 31  # zlib's window bits for "gzip, largest window"
# Levels of ISA-L are 0 to 3: a tenth of the time of zlib's 6 for a file a tenth larger.
_LEVEL = 2


class TextWriter:
    """A text file while it is written.

    Args:
        text_of: Returns the text of rows, a line for each.
        header: The file's first line; empty for a format that has none.
        pack: Whether the file is a gzip: one member, without a time or a name.
    """

    def __init__(self, text_of: Callable[[Batch], bytes], *, header: bytes = b"", pack: bool) -> None:
        self.size = 0
        self._sha256 = hashlib.sha256()
        self._line_breaks = -header.count(b"\n")
        self._text_of = text_of
        self._header = header
        self._packer: Compress | None = (
            isal_zlib.compressobj(_LEVEL, isal_zlib.DEFLATED, _GZIP) if pack else None
        )

    def add(self, batch: Batch) -> bytes:
        """Take rows, and return the bytes of the file that are ready."""
        self._line_breaks -= len(batch.rows)
        return self._packed(self._text_of(batch))

    def end(self) -> bytes:
        """Return the rest of the file."""
        rest = self._packed(b"")
        return rest + self._packer.flush() if self._packer else rest

    def summary(self) -> dict[str, Any]:
        """Return the fields of the file's entry in a manifest that are about its text."""
        return {
            "text_bytes": self.size,
            "text_sha256": self._sha256.hexdigest(),
            "line_breaks": self._line_breaks,
        }

    def _packed(self, text: bytes) -> bytes:
        if self._header:
            text, self._header = self._header + text, b""
        self.size += len(text)
        self._sha256.update(text)
        self._line_breaks += text.count(b"\n")
        return self._packer.compress(text) if self._packer else text


def gunzipped(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the text of a gzip, of one member or of several.

    Raises:
        ValueError: If it is damaged, ends early, or is not a gzip.
    """
    unpacker = isal_zlib.decompressobj(_GZIP)
    try:
        for chunk in chunks:
            rest = chunk
            while rest:
                if unpacker.eof:
                    unpacker = isal_zlib.decompressobj(_GZIP)
                if text := unpacker.decompress(rest, READ_BYTES):
                    yield text
                rest = unpacker.unused_data if unpacker.eof else unpacker.unconsumed_tail
    except (zlib.error, _IsalError) as error:
        raise ValueError(f"the gzip is damaged: {error}") from error
    if not unpacker.eof:
        raise ValueError("the gzip ends early")


def lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the lines of a text, without their ends: line feeds."""
    rest = b""
    for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        yield from whole
    if rest:
        yield rest


def pages(records: Iterable[bytes], row_of: Callable[[bytes], Values]) -> Iterator[list[Values]]:
    """Yield rows, as many at a time as a reader keeps in memory.

    Args:
        records: The rows as they are written.
        row_of: Reads one of them.
    """
    rows: list[Values] = []
    size = 0
    for record in records:
        rows.append(row_of(record))
        size += len(record)
        if len(rows) == PAGE_ROWS or size >= READ_BYTES:
            yield rows
            rows, size = [], 0
    if rows:
        yield rows
