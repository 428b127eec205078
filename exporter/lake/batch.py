"""What all formats of part files share: batches of rows, and a file that is being written. Pure."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from exporter.store import Values

# What is read of a file at once, as rows and as bytes.
PAGE_ROWS = 1_000
READ_BYTES = 1 << 20


class Batch(NamedTuple):
    """Rows that are written together.

    Attributes:
        rows: The rows.
        empties: Whether one of their values is empty text, which is not the same as no value.
    """

    rows: list[Values]
    empties: bool = False


class Text(NamedTuple):
    """The text of a file, before it was packed.

    Attributes:
        bytes: Its size.
        sha256: Its checksum, in hex.
        line_breaks: How many line ends are inside of values.
    """

    bytes: int
    sha256: str
    line_breaks: int


class Writer(Protocol):
    """A file of one format while it is written."""

    size: int

    def add(self, batch: Batch) -> bytes:
        """Take rows, and return the bytes of the file that are ready; `size` is the text's size so far."""

    def end(self) -> bytes:
        """Return the rest of the file."""

    def text(self) -> Text | None:
        """Return the file's text, summed up; None for a format that is not text."""
