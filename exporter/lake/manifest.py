"""The lake's keys and manifests. Pure."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import date

from consumers import documents
from exporter.store import Column, Type

_VERSION = 1
PREFIX = "records/"
# What the lake has to keep for longer than a day's files: under `records/`, it would be gone after a year.
STATE = "lake/"
MANIFEST = "_manifest.json"
# The manifest of a day's hours that are written before the day is: no reader of days looks for it.
HOURS = "_hours.json"
FORMAT = "csv.gz"

# A part is cut at the row that passes this, before compression: about 30 MB as it is kept.
PART_BYTES = 256 * 1024 * 1024

# Parquet's `time` has milliseconds, because engines over the lake read no more; the rest is in this column.
NANOSECONDS = "_time_ns"

# What the lake's documents, and the consumer's rows, call types.
TYPES: dict[str, Type] = {
    "VARCHAR": "text",
    "BIGINT": "integer",
    "DOUBLE": "number",
    "BOOLEAN": "boolean",
    "TIMESTAMP": "timestamp",
}
_TYPE_NAMES = {type_: name for name, type_ in TYPES.items()}


@dataclass(frozen=True, slots=True)
class Part:
    """A manifest's entry about a part.

    Attributes:
        key: Its key in the bucket.
        rows: How many, without the header.
        bytes: Its size as it is kept.
        sha256: Of it as it is kept, in hex.
        first_time: The earliest row's time.
        last_time: The latest row's time.
        text_bytes: Its size before it was packed; None for Parquet, and in older manifests.
        text_sha256: Of it before it was packed, in hex; None as above.
        line_breaks: How many line ends are inside of values: readers that go line by line miscount its rows.
        types: How many rows each `_type` has; None in older manifests.
        formulas: How many cells a spreadsheet would run; None if they were not counted.
    """

    key: str
    rows: int
    bytes: int
    sha256: str
    first_time: str
    last_time: str
    text_bytes: int | None = None
    text_sha256: str | None = None
    line_breaks: int = 0
    types: Mapping[str, int] | None = None
    formulas: int | None = None

    @property
    def content(self) -> tuple[int, str]:
        """What two parts have in common that hold the same, however they were packed."""
        return self.rows, self.text_sha256 or self.sha256


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a day of the lake holds. It is written last: what it does not name is not there.

    Attributes:
        day: The day in UTC.
        revision: Counts the different contents that the day has had.
        columns: Names and types, in the order of the files.
        parts: The files.
        format: What the files are.
        restored: How many rows had a value put back that was too long for the store.
        not_restored: How many rows have a value that stayed cut, because the whole one is gone.
        forgotten: How many rows were left out because their client was to be forgotten.
        partial_since: The time from which on the store still had all rows when the day was first written;
            None if it had the whole day.
        hours: Of a day that is written hour by hour, what each hour was made of: two alike need not be made
            again. Empty for other days.
        day_was_over: Whether the day was over when the store was asked for its rows: later ones have left
            markers. False for a day that is written hour by hour.
        forgotten_list: The digest of the list of forgotten clients at that time; empty without a list.
    """

    day: date
    revision: int
    columns: tuple[Column, ...]
    parts: tuple[Part, ...] = field(default=())
    format: str = FORMAT
    restored: int = 0
    not_restored: int = 0
    forgotten: int = 0
    partial_since: str | None = None
    hours: Mapping[int, str] = field(default_factory=dict)
    day_was_over: bool = False
    forgotten_list: str = ""

    @property
    def rows(self) -> int:
        """How many rows the day has."""
        return sum(part.rows for part in self.parts)

    @property
    def size(self) -> int:
        """How large the day's files are together, in bytes as they are kept."""
        return sum(part.bytes for part in self.parts)

    @property
    def types(self) -> dict[str, int] | None:
        """How many rows each `_type` has; None if an older part did not count them."""
        counts: Counter[str] = Counter()
        for part in self.parts:
            if part.types is None:
                return None
            counts.update(part.types)
        return dict(sorted(counts.items()))

    def to_json(self) -> bytes:
        """Return the manifest as it is stored."""
        document = {
            "day": self.day.isoformat(),
            "revision": self.revision,
            "format": self.format,
            "rows": self.rows,
            "types": self.types,
            "bytes": self.size,
            "first_time": min((part.first_time for part in self.parts), default=None),
            "last_time": max((part.last_time for part in self.parts), default=None),
            "restored": self.restored,
            "not_restored": self.not_restored,
            "forgotten": self.forgotten,
            "partial_since": self.partial_since,
            "hours": dict(sorted(self.hours.items())),
            "day_was_over": self.day_was_over,
            "forgotten_list": self.forgotten_list,
            "columns": columns_to_json(self.columns),
            "parts": [asdict(part) for part in self.parts],
        }
        return json.dumps(documents.stamped(document, _VERSION), indent=1).encode() + b"\n"

    @classmethod
    def from_json(cls, document: bytes) -> Manifest:
        """Return the manifest in a document; a key that older ones lack has its default.

        Raises:
            NewerDocumentError: If a newer Tagline wrote the document.
        """
        read = documents.load(document, _VERSION, "the manifest")
        made = {
            "day": date.fromisoformat(read["day"]),
            "columns": columns_from_json(read["columns"]),
            "parts": tuple(documents.known(Part, part) for part in read["parts"]),
            "hours": {int(hour): made_of for hour, made_of in read.get("hours", {}).items()},
        }
        return documents.known(cls, read | made)

    def succeeding(
        self, known: Manifest | None, whole: Callable[[tuple[Part, ...]], bool] = lambda _: True
    ) -> Manifest:
        """Return the manifest that follows a known one: the next revision, or the same if the rows are.

        The same rows packed by another version of a library are the same; its files then stay as they are.

        Args:
            known: What the lake has of the day.
            whole: Tells whether its parts are there as listed; otherwise these here take their place.
        """
        if known is None:
            return self
        mine, theirs = ([part.content for part in each.parts] for each in (self, known))
        same = mine == theirs and (self.columns, self.format) == (known.columns, known.format)
        if not same or not whole(known.parts):
            return replace(self, revision=known.revision + 1)
        return replace(self, revision=known.revision, parts=known.parts)


def columns_to_json(columns: tuple[Column, ...]) -> list[dict[str, str]]:
    """Return columns as the lake's documents contain them."""
    return [{"name": column.name, "type": _TYPE_NAMES[column.type]} for column in columns]


def columns_from_json(read: list[dict[str, str]]) -> tuple[Column, ...]:
    """Return the columns that a document of the lake contains."""
    return tuple(Column(column["name"], TYPES[column["type"]]) for column in read)


def folder(day: date, kind: str = FORMAT) -> str:
    """Return the beginning of the keys of a day in a format; the first format has the shortest."""
    return f"{beginning(kind)}{day:%Y}/month={day:%m}/day={day:%d}/"


def beginning(kind: str) -> str:
    """Return how the keys of all days in a format begin."""
    of_format = "" if kind == FORMAT else f"{kind}/"
    return f"{PREFIX}{of_format}year="


_DAY = re.compile(r"year=(\d{4})/month=(\d{2})/day=(\d{2})/")


def day_of_folder(key: str) -> date:
    """Return the day of a folder, or of a key in it.

    Raises:
        ValueError: If the key is not in such a folder.
    """
    found = _DAY.search(key)
    if not found:
        raise ValueError(f"{key} is not in the folder of a day")
    return date(*map(int, found.groups()))


def part_key(day: date, number: int, revision: int, kind: str = FORMAT, attempt: str = "") -> str:
    """Return the key of a part.

    Two attempts never share one: no reader sees half of each, and nobody overwrites what another committed.

    Args:
        day: The day in UTC.
        number: The part's number, from 0.
        revision: The revision that it is for.
        kind: Its format.
        attempt: What no other attempt to write the day has.
    """
    of_revision = f"-r{revision}" if revision > 1 else ""
    of_attempt = f"-{attempt}" if attempt else ""
    return f"{folder(day, kind)}part-{number:05}{of_revision}{of_attempt}.{kind}"
