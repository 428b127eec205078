"""The lake held against its manifests, and against the store as long as that still has the day."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from datetime import datetime

from botocore.exceptions import ClientError

from exporter.lake.athena import file_list_problems
from exporter.lake.batch import Batch
from exporter.lake.days import Day
from exporter.lake.manifest import Manifest, Part
from exporter.store import TIME, TYPE, Store, places, whole_since

# Sums in a manifest that follow from its parts.
_SUMS = ("rows", "types", "bytes", "first_time", "last_time")


def verify_day(day: Day, now: datetime, store: Store | None = None) -> Iterator[str]:
    """Yield what is wrong with a day, in sentences; nothing if all is as its manifest describes it.

    Every part is read: its bytes and checksum, its rows and their types, and whether their times are in
    order, of the day and as described. Files that nothing names are reported, and so are a wrong file list
    and a day of which the store had dropped rows before it was exported.

    Args:
        day: The day.
        now: The time.
        store: The store. It is asked as long as it has the whole day.
    """
    while True:
        document = day.document()
        problems = list(_day_problems(day, document, now, store))
        if not problems or day.document() == document:
            break  # otherwise an export has replaced the day, or its files, meanwhile
    yield from problems


def _day_problems(day: Day, document: bytes | None, now: datetime, store: Store | None) -> Iterator[str]:
    if document is None:
        yield "there is no manifest: the day was never exported"
        return
    try:
        manifest = Manifest.from_json(document)
    except (ValueError, KeyError, TypeError) as error:
        yield f"the manifest cannot be read: {type(error).__name__}: {error}"
        return
    if (manifest.day, manifest.format) != (day.date, day.kind):
        yield f"the manifest is of {manifest.day} in {manifest.format}"
        return
    yield from _sum_problems(manifest, document)
    if manifest.partial_since:
        since = manifest.partial_since
        yield f"the day is partial: the store had dropped rows before {since} when it was exported"
    yield from file_list_problems(day.objects, manifest)
    # A run that is at work may have written a file that it has not named yet.
    if not day.lock.is_held(now):
        yield from (f"{_name(key)} is there, but nothing names it" for key in day.unnamed())
    yield from _part_problems(day, manifest)
    if store is not None and whole_since(store, day.date, now) is None:
        rows = sum(store.tally(day.date).values())
        if rows != manifest.rows + manifest.forgotten:
            yield (
                f"the store has {rows:,} rows, the lake {manifest.rows:,} and {manifest.forgotten:,} that "
                "are to be forgotten: export the day again"
            )


def _sum_problems(manifest: Manifest, document: bytes) -> Iterator[str]:
    """Yield which sums in a manifest are not those of its parts."""
    stored, summed_up = json.loads(document), json.loads(manifest.to_json())
    for name in _SUMS:
        if name == "types" and name not in stored:
            continue  # an older manifest
        if stored.get(name) != summed_up[name]:
            yield f"the manifest says {stored.get(name)} {name}, but {summed_up[name]} of its parts"


def _part_problems(day: Day, manifest: Manifest) -> Iterator[str]:
    there = day.keys()
    last = ""
    for part in manifest.parts:
        try:
            problems = list(_problems(day, part, manifest, last)) if part.key in there else None
        except ClientError as error:
            if error.response["Error"]["Code"] != "NoSuchKey":
                raise
            problems = None
        if problems is None:
            yield f"{_name(part.key)} is not there"
            continue
        yield from (f"{_name(part.key)}: {problem}" for problem in problems)
        last = part.last_time


def _name(key: str) -> str:
    return key.rpartition("/")[2]


def _problems(day: Day, part: Part, manifest: Manifest, last: str) -> Iterator[str]:
    read = _Read(day.objects.stream(part.key))
    try:
        problem = _row_problem(part, day.kind.read(read.chunks, manifest.columns), manifest, last)
    except ValueError as error:
        problem = str(error)
    read.to_the_end()
    if (read.size, read.sha256.hexdigest()) != (part.bytes, part.sha256):
        yield (
            f"{read.size:,} bytes with the checksum {read.sha256.hexdigest()[:12]}..., "
            f"not {part.bytes:,} with {part.sha256[:12]}..."
        )
    if problem:
        yield problem


def _row_problem(part: Part, batches: Iterator[Batch], manifest: Manifest, last: str) -> str:
    """Return what is wrong with a part's rows, or nothing."""
    place = places(manifest.columns)
    when, type_at = place[TIME], place[TYPE]
    rows, first_time, last_time = 0, "", last
    types: Counter[str] = Counter()
    for batch in batches:
        for row in batch.rows:
            time = row[when] or ""
            if time < last_time:
                return f"a row of {time} comes after one of {last_time}"
            if not time.startswith(f"{manifest.day} "):
                return f"a row of {time} is of another day"
            first_time, last_time = first_time or time, time
        rows += len(batch.rows)
        types.update([row[type_at] or "" for row in batch.rows])
    if rows != part.rows:
        return f"{rows:,} rows, not {part.rows:,}"
    if part.types is not None and types != part.types:
        return f"rows by type are {dict(sorted(types.items()))}, not {dict(part.types)}"
    if (first_time, last_time) != (part.first_time, part.last_time):
        return f"times from {first_time} to {last_time}, not from {part.first_time} to {part.last_time}"
    return ""


class _Read:
    """An object that is counted and hashed while it is read."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self.size = 0
        self.sha256 = hashlib.sha256()
        self.chunks = self._counted(chunks)

    def to_the_end(self) -> None:
        """Read what comes behind the bytes that a reader needs, too."""
        for _ in self.chunks:
            pass

    def _counted(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        for chunk in chunks:
            self.size += len(chunk)
            self.sha256.update(chunk)
            yield chunk
