"""How far the files of a day are, so that another invocation resumes behind the last of them. Pure."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from consumers.documents import known, load, stamped
from exporter.lake.manifest import Part, columns_from_json, columns_to_json
from exporter.store import Column

_VERSION = 1


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the files of a day are.

    Attributes:
        order: What the day is written for; another order begins at the first row.
        revision: The revision that the day becomes.
        columns: Names and types, in the order of the files.
        parts: The files that are there.
        time: The last row's time in them.
        at_time: How many rows of that time are in them; these are the last rows.
        rows_before: How many rows the store had up to the end of that row's minute.
        restored: As in the manifest.
        not_restored: As in the manifest.
    """

    order: str
    revision: int
    columns: tuple[Column, ...]
    parts: tuple[Part, ...] = ()
    time: str = ""
    at_time: int = 0
    rows_before: int = 0
    restored: int = 0
    not_restored: int = 0

    def to_json(self) -> bytes:
        """Return the document that is stored."""
        document = asdict(self) | {"columns": columns_to_json(self.columns)}
        return json.dumps(stamped(document, _VERSION)).encode()

    @classmethod
    def from_json(cls, document: bytes) -> Progress:
        """Return the progress in a document.

        Raises:
            NewerDocumentError: If a newer Tagline wrote the document.
        """
        read = load(document, _VERSION, "the export's progress")
        columns = columns_from_json(read["columns"])
        parts = tuple(known(Part, part) for part in read["parts"])
        return known(cls, read | {"columns": columns, "parts": parts})
