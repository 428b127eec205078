"""What all formats of part files share: batches of rows, and a file that is being written. Pure."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

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


class Writer(Protocol):
    """A file of one format while it is written."""

    size: int

    def add(self, batch: Batch) -> bytes:
        """Take rows, and return the bytes of the file that are ready; `size` is the text's size so far."""

    def end(self) -> bytes:
        """Return the rest of the file."""

    def summary(self) -> dict[str, Any]:
        """Return the fields of the file's entry in a manifest that only its format has."""
