"""The lake held against its manifests, and against the store as long as that still has the day."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime

from botocore.exceptions import ClientError

from exporter.lake.athena import file_list_problems
from exporter.lake.batch import Batch
from exporter.lake.days import Day
from exporter.lake.manifest import Manifest, Part
from exporter.store import TIME, TYPE, Store, places

NEVER_EXPORTED = "there is no manifest: the day was never exported"
# Sums in a manifest that follow from its parts.
_SUMS = ("rows", "types", "bytes", "first_time", "last_time")


@dataclass(frozen=True, slots=True)
class Verification:
    """How far a day is verified; the rest is resumed from here.

    Attributes:
        document: The checksum of the manifest that the day is compared with.
        parts: How many parts are read.
        last_time: The last row's time in them.
        rows: How many rows the manifest names; None if it cannot be read.
        problems: What is wrong so far, in sentences.
        is_done: Whether everything is read.
    """

    document: str = ""
    parts: int = 0
    last_time: str = ""
    rows: int | None = None
    problems: tuple[str, ...] = ()
    is_done: bool = False


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
    yield from verify_parts(day, Verification(), now, store, lambda: True).problems


def verify_parts(
    day: Day, begun: Verification, now: datetime, store: Store | None, has_time: Callable[[], bool]
) -> Verification:
    """Verify a day as `verify_day` does, as long as there is time, and return how far it is.

    Args:
        day: The day.
        begun: How far it was. A day that was replaced since begins again.
        now: The time.
        store: The store. It is asked as long as it has the whole day.
        has_time: Tells after each part whether there is time for another.
    """
    while True:
        document = day.document()
        digest = hashlib.sha256(document or b"").hexdigest()
        if begun.document != digest:
            begun = Verification(digest)
        manifest = _read_manifest(day, document)
        if isinstance(manifest, str):
            verified = replace(begun, problems=(manifest,), is_done=True)
        else:
            if begun.parts == 0:
                problems = (*_sum_problems(manifest, document or b""), *_folder_problems(day, manifest, now))
                begun = replace(begun, rows=manifest.rows, problems=problems)
            verified = _read_parts(day, manifest, begun, has_time)
            if verified.is_done:
                in_store = _store_problems(day, manifest, now, store)
                verified = replace(verified, problems=(*verified.problems, *in_store))
        if not verified.problems or day.document() == document:
            return verified


def _read_parts(
    day: Day, manifest: Manifest, begun: Verification, has_time: Callable[[], bool]
) -> Verification:
    there = day.keys()
    for number, part in enumerate(manifest.parts[begun.parts :], begun.parts + 1):
        found = _part_problems(day, part, manifest, begun.last_time) if part.key in there else None
        begun = replace(
            begun,
            parts=number,
            last_time=begun.last_time if found is None else part.last_time,
            problems=(*begun.problems, *_named(part, found)),
        )
        if number < len(manifest.parts) and not has_time():
            return begun
    return replace(begun, is_done=True)


def _read_manifest(day: Day, document: bytes | None) -> Manifest | str:
    """Return the manifest in a document, or what is wrong with it."""
    if document is None:
        return NEVER_EXPORTED
    try:
        manifest = Manifest.from_json(document)
    except (ValueError, KeyError, TypeError) as error:
        return f"the manifest cannot be read: {type(error).__name__}: {error}"
    if (manifest.day, manifest.format) != (day.date, day.kind):
        return f"the manifest is of {manifest.day} in {manifest.format}"
    return manifest


def _folder_problems(day: Day, manifest: Manifest, now: datetime) -> Iterator[str]:
    if manifest.partial_since:
        since = manifest.partial_since
        yield f"the day is partial: the store had dropped rows before {since} when it was exported"
    yield from file_list_problems(day.objects, manifest, now)
    # A run that is at work may have written a file that it has not named yet.
    if not day.lock.is_held(now):
        yield from (f"{_name(key)} is there, but nothing names it" for key in day.unnamed())


def _store_problems(day: Day, manifest: Manifest, now: datetime, store: Store | None) -> Iterator[str]:
    if store is not None and (store.includes_exports or store.whole_since(day.date, now) is None):
        rows = sum(store.tally(day.date).values())
        forgotten = 0 if store.includes_exports else manifest.forgotten
        if rows != manifest.rows + forgotten:
            yield (
                f"the store has {rows:,} rows, the lake {manifest.rows:,} and {forgotten:,} that "
                "are to be forgotten: export the day again"
            )


def _sum_problems(manifest: Manifest, document: bytes) -> Iterator[str]:
    """Yield which sums in a manifest are not those of its parts."""
    stored, summed_up = json.loads(document), json.loads(manifest.to_json())
    for name in _SUMS:
        if name == "types" and name not in stored:
            continue  # an older manifest
        if stored.get(name) != summed_up[name]:
            yield f"the manifest has {stored.get(name)} {name}, its parts {summed_up[name]}"


def _part_problems(day: Day, part: Part, manifest: Manifest, last: str) -> list[str] | None:
    """Return what is wrong with a part; None if it is not there."""
    try:
        return list(_problems(day, part, manifest, last))
    except ClientError as error:
        if error.response["Error"]["Code"] != "NoSuchKey":
            raise
        return None


def _named(part: Part, problems: list[str] | None) -> list[str]:
    """Return the problems of a part in sentences that name it."""
    if problems is None:
        return [f"{_name(part.key)} is not there"]
    return [f"{_name(part.key)}: {problem}" for problem in problems]


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
