"""The lake held against its manifests, and against the store as long as that still has the day."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from datetime import date

from consumers.bucket import Objects
from exporter.lake import days as lake
from exporter.lake import manifest as archive
from exporter.lake.batch import Batch
from exporter.lake.formats import Format
from exporter.lake.manifest import Manifest, Part
from exporter.store import TIME, Store, places


def verify_day(day: date, kind: Format, objects: Objects, store: Store | None = None) -> Iterator[str]:
    """Yield what is wrong with a day, in sentences; nothing if all is as its manifest says.

    Every part is read: its bytes and checksum, its rows, and that their times are in order, of the day and as
    said. Files that nothing names are named, and what Athena is told to read is compared.

    Args:
        day: The day in UTC.
        kind: The files' format.
        objects: The lake's bucket.
        store: The store, while it still has the day; None if it may have forgotten some of it.
    """
    try:
        manifest = lake.read_manifest(objects, day, kind)
    except (ValueError, KeyError, TypeError) as error:
        yield f"the manifest cannot be read: {type(error).__name__}: {error}"
        return
    if manifest is None:
        yield "there is no manifest: the day was never exported"
        return
    if (manifest.day, manifest.format) != (day, kind):
        yield f"the manifest is of {manifest.day} in {manifest.format}"
        return
    yield from _manifest_problems(manifest, kind, objects)
    there = set(objects.keys(archive.folder(day, kind)))
    last = ""
    for part in manifest.parts:
        name = _name(part.key)
        if part.key not in there:
            yield f"{name} is not there"
            continue
        for problem in _problems(part, manifest, objects, last):
            yield f"{name}: {problem}"
        last = part.last_time
    if store is not None:
        rows = sum(store.tally(day).values())
        if rows != manifest.rows + manifest.forgotten:
            yield (
                f"the store has {rows:,} rows, the lake {manifest.rows:,} and {manifest.forgotten:,} that "
                "are to be forgotten: export the day again"
            )


def _manifest_problems(manifest: Manifest, kind: Format, objects: Objects) -> Iterator[str]:
    """Yield what is wrong with what is said of a day's files, and beside them."""
    document = json.loads(objects.get(archive.folder(manifest.day, kind) + archive.MANIFEST) or b"{}")
    summed_up = json.loads(manifest.to_json())
    for name in ("rows", "bytes", "first_time", "last_time"):
        if (said := document.get(name)) != summed_up[name]:
            yield f"the manifest says {said} {name}, but {summed_up[name]} of its parts"
    if (objects.get(lake.table_key(manifest.day, kind)) or b"") != lake.table(objects, manifest):
        yield "Athena is told of other files than the manifest names: export the day again"
    # A run that is at work may have written a file that it has not named yet.
    if not lake.is_locked(objects, manifest.day, kind):
        for key in lake.unnamed(objects, manifest.day, kind):
            yield f"{_name(key)} is there, but nothing names it"


def _name(key: str) -> str:
    return key.rpartition("/")[2]


def _problems(part: Part, manifest: Manifest, objects: Objects, last: str) -> Iterator[str]:
    read = _Read(objects.stream(part.key))
    try:
        batches = Format(manifest.format).read(read.chunks, manifest.columns)
        problem = _row_problem(part, batches, manifest, last)
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
    when = places(manifest.columns)[TIME]
    times = (row[when] or "" for batch in batches for row in batch.rows)
    rows, first_time, last_time = 0, "", last
    for rows, time in enumerate(times, 1):  # noqa: B007 - how many there were
        if time < last_time:
            return f"a row of {time} comes after one of {last_time}"
        if not time.startswith(f"{manifest.day} "):
            return f"a row of {time} is of another day"
        first_time, last_time = first_time or time, time
    if rows != part.rows:
        return f"{rows:,} rows, not {part.rows:,}"
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
        """Read also what comes behind what a reader needs."""
        for _ in self.chunks:
            pass

    def _counted(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        for chunk in chunks:
            self.size += len(chunk)
            self.sha256.update(chunk)
            yield chunk
