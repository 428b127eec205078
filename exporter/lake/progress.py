"""How far the files of a day are, so that another invocation resumes behind the last of them. Pure."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from consumers.documents import VERSION, known, load, stamped
from exporter.lake.manifest import Part, columns_from_json, columns_to_json
from exporter.store import Column

# Version 1 counted the rows of the last time, not of the last minute.
_VERSION = 2


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the files of a day are.

    Attributes:
        order: What the day is written for; another order begins at the first row.
        revision: The revision that the day becomes.
        columns: Names and types, in the order of the files.
        parts: The files that are there.
        time: The last row's time in them.
        at_minute: How many rows of that time's minute are in them; these are the last rows.
        source_rows: How many rows the store had up to the end of that row's minute.
        restored: As in the manifest.
        not_restored: As in the manifest.
        forgotten: As in the manifest, of the minutes before that time's.
        attempt: Who writes on: a writer that finds another's name here was overtaken.
    """

    order: str
    revision: int
    columns: tuple[Column, ...]
    parts: tuple[Part, ...] = ()
    time: str = ""
    at_minute: int = 0
    source_rows: int = 0
    restored: int = 0
    not_restored: int = 0
    forgotten: int = 0
    attempt: str = ""

    @property
    def rows(self) -> int:
        """How many rows the files have."""
        return sum(part.rows for part in self.parts)

    def to_json(self) -> bytes:
        """Return the document that is stored."""
        document = asdict(self) | {"columns": columns_to_json(self.columns)}
        return json.dumps(stamped(document, _VERSION)).encode()

    @classmethod
    def from_json(cls, document: bytes) -> Progress | None:
        """Return the progress in a document, or None if an older Tagline wrote it: the day begins again.

        Raises:
            NewerDocumentError: If a newer Tagline wrote the document.
        """
        read = load(document, _VERSION, "the export's progress")
        if read.get(VERSION, 1) < _VERSION:
            return None
        columns = columns_from_json(read["columns"])
        parts = tuple(known(Part, part) for part in read["parts"])
        return known(cls, read | {"columns": columns, "parts": parts})
