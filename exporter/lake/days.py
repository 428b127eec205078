"""A day of the lake in one format: its manifest, its files, its lock, and what is beside them."""

from __future__ import annotations

import hashlib
import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from datetime import date, datetime, timedelta
from os.path import commonprefix

from botocore.exceptions import ClientError

from consumers.bucket import Objects
from consumers.documents import load, stamped
from exporter.lake.ahead import ahead
from exporter.lake.athena import write_file_list
from exporter.lake.batch import Batch
from exporter.lake.files import parts
from exporter.lake.formats import Format
from exporter.lake.locks import DayLease, Lock, OvertakenError
from exporter.lake.manifest import HOURS, MANIFEST, PART_BYTES, STATE, Manifest, Part, folder, part_key
from exporter.lake.progress import Progress
from exporter.store import Column, Days

PROGRESS = "_progress.json"
# A reader that has read the manifest before has this long to read the parts that it names.
GRACE = timedelta(hours=6)
_LOCKS = f"{STATE}locks/"
_REPLACED = f"{STATE}replaced/"
_REPLACED_VERSION = 1
_TRIES = 20
# A piece of a file takes longer to make than the piece before takes to upload.
_PIECE_BYTES = 1 << 20


class Day:
    """A day of the lake in one format.

    Args:
        objects: The lake's bucket.
        day: The day in UTC.
        kind: The files' format.

    Attributes:
        lock: Who writes or removes files of the day has it.
        lease: The lock's lease, once `take` has taken it.
    """

    _document = MANIFEST

    def __init__(self, objects: Objects, day: date, kind: Format) -> None:
        self.objects, self.date, self.kind = objects, day, kind
        self.lock = Lock(objects, f"{_LOCKS}{kind}/{day}.json")
        self.lease: DayLease | None = None
        self._folder = folder(day, kind)
        self._replaced_key = f"{_REPLACED}{kind}/{day}.json"

    # --- who writes it ------------------------------------------------------------------------------------

    def take(self, run: str, now: datetime, token: str | None = None) -> bool:
        """Take the day's lock, and tell whether this has it now; the arguments are those of `Lock.take`."""
        self.lease = self.lock.take(run, now, token)
        return self.lease is not None

    @property
    def attempt(self) -> str:
        """What no other attempt to write the day has; empty without a lease."""
        return self.lease.token[:8] if self.lease else ""

    def renew(self, now: datetime) -> None:
        """Keep the lock for longer.

        Raises:
            OvertakenError: If another has it by now.
        """
        if self.lease:
            self.lease.renew(now)

    def release(self) -> None:
        """Give the lock back."""
        if self.lease:
            self.lease.release()

    # --- what it holds ------------------------------------------------------------------------------------

    def manifest(self) -> Manifest | None:
        """Return what the lake has of the day, or None if the day was never written."""
        return self.committed()[0]

    def committed(self) -> tuple[Manifest | None, str | None]:
        """Return what the lake has of the day and the tag that `commit` compares, or None for both."""
        found = self.objects.read(self._folder + self._document)
        return (None, None) if found is None else (Manifest.from_json(found[0]), found[1])

    def document(self) -> bytes | None:
        """Return the manifest as it is stored."""
        return self.objects.get(self._folder + self._document)

    def commit(self, manifest: Manifest, tag: str | None, now: datetime) -> None:
        """Write the manifest: from here on its files are what the lake has, also for the tables over them.

        Files that nothing names any more are removed: no other attempt can commit them, because it would have
        to replace the manifest that this one has replaced. Files that came since belong to a later attempt.

        Args:
            manifest: The manifest.
            tag: The tag of the manifest that it follows, as `committed` returned it.
            now: The time.

        Raises:
            OvertakenError: If another manifest was committed since, or another has the lock.
        """
        before = self.keys()
        if self.lease:
            self.lease.confirm(now)
        if not self.objects.replace(self._folder + self._document, manifest.to_json(), tag):
            raise OvertakenError(f"another run has written {self.date} in {self.kind}: its files are kept")
        self.list_files(now)
        self.drop_progress()
        self.drop_hours()
        self.objects.delete(before.intersection(self._unnamed(self._replaced()[1])))

    def list_files(self, now: datetime) -> None:
        """Write the file list that the tables read, unless it is right already.

        Args:
            now: The time.

        Raises:
            OSError: If other runs keep changing it.
        """
        for _ in range(_TRIES):
            if write_file_list(self.objects, self.date, self.kind, self.manifest, now):
                return
        raise OSError(f"the file list of {self.date} was changed by others {_TRIES} times in a row")

    def rows(self, manifest: Manifest) -> Iterator[Batch]:
        """Yield the rows of the files that a manifest names.

        Raises:
            ValueError: If a file is damaged, or has other columns.
        """
        for part in manifest.parts:
            yield from self.kind.read(self.objects.stream(part.key), manifest.columns)

    def write(
        self,
        batches: Iterator[Batch],
        columns: tuple[Column, ...],
        revision: int,
        *,
        size: int = PART_BYTES,
        first: int = 0,
    ) -> Iterator[Part]:
        """Write rows as part files, and yield each part once it is there.

        Args:
            batches: The rows by time.
            columns: Names and types, in the order of the rows' values.
            revision: The revision that the parts are for.
            size: Where a part is cut, in bytes before it is packed.
            first: The first part's number.
        """
        for file in parts(
            batches,
            columns,
            lambda number: part_key(self.date, number, revision, self.kind, self.attempt),
            self.kind,
            size=size,
            first=first,
        ):
            self.objects.put(file.key, ahead(_pieces(file.chunks())), self.kind.rules.content_type)
            yield file.summary()

    def is_whole(self, part: Part, check_time: Callable[[], None]) -> bool:
        """Tell whether a part is as its manifest describes it, so that its rows need not be written again.

        Args:
            part: The part.
            check_time: Is called between its pieces; what it raises ends the reading.
        """
        sha256, size = hashlib.sha256(), 0
        try:
            for chunk in self.objects.stream(part.key):
                check_time()
                sha256.update(chunk)
                size += len(chunk)
        except ClientError as error:
            if error.response["Error"]["Code"] == "NoSuchKey":
                return False
            if error.response["Error"]["Code"] == "InvalidObjectState":
                return True  # in the archive, where nobody can change it
            raise
        return (size, sha256.hexdigest()) == (part.bytes, part.sha256)

    # --- while it is written ------------------------------------------------------------------------------

    def progress(self) -> tuple[Progress | None, str | None]:
        """Return how far the day is and the tag that `write_progress` compares, or None."""
        found = self.objects.read(self._folder + PROGRESS)
        return (None, None) if found is None else (Progress.from_json(found[0]), found[1])

    def write_progress(self, progress: Progress, tag: str | None) -> str:
        """Store how far the day is, and return the new tag.

        Args:
            progress: How far it is.
            tag: The tag of the progress that it follows.

        Raises:
            OvertakenError: If another attempt has stored its progress since.
        """
        key, body = self._folder + PROGRESS, progress.to_json()
        if self.objects.replace(key, body, tag):
            found = self.objects.read(key)
            if found is not None and found[0] == body:
                return found[1]
        raise OvertakenError(f"another run writes {self.date} in {self.kind}, and resumes from what is there")

    def drop_progress(self) -> None:
        """Remove how far the day is: the next export begins at the first row."""
        self.objects.delete([self._folder + PROGRESS])

    def drop_hours(self) -> None:
        """Remove the manifest of hours: the day's own names their files, or others."""
        self.objects.delete([self._folder + HOURS])

    def discard(self, progress: Progress, tag: str | None) -> None:
        """Remove an attempt's own progress and files, unless another attempt has resumed from there."""
        key = self._folder + PROGRESS
        if tag is None or not self.objects.remove(key, tag):
            return
        unnamed = set(self._unnamed(self._replaced()[1]))
        self.objects.delete([part.key for part in progress.parts if part.key in unnamed])

    # --- files that are no longer wanted ------------------------------------------------------------------

    def keys(self) -> set[str]:
        """Return the keys of all files of the day, named or not."""
        return set(self.objects.keys(self._folder))

    def unnamed(self) -> list[str]:
        """Return the keys of files that no manifest, no progress and no list of replaced files names."""
        return self._unnamed(self._replaced()[1])

    def retire(self, replaced: Iterable[Part], now: datetime) -> None:
        """Store that parts are replaced: the first `tidy` after their time of grace removes them.

        Raises:
            OSError: If other runs keep changing the list.
        """
        names = [part.key for part in replaced]
        for _ in range(_TRIES):
            found = self.objects.read(self._replaced_key)
            known = [] if found is None else self._parsed(found[0])[1]
            document = stamped(
                {"since": now.isoformat(), "keys": sorted({*known, *names})}, _REPLACED_VERSION
            )
            body = json.dumps(document).encode()
            if self.objects.replace(self._replaced_key, body, found and found[1]):
                return
        raise OSError(f"{self._replaced_key} was changed by others {_TRIES} times in a row")

    def end_grace(self) -> None:
        """End the time of grace of the replaced files: the next commit removes them."""
        self.objects.delete([self._replaced_key])

    def drop_attempt(self) -> None:
        """Remove the files of this attempt, which another has overtaken, unless that one has named them."""
        mine = f"-{self.attempt}."
        self.objects.delete([key for key in self.unnamed() if self.attempt and mine in key])

    def tidy(self, now: datetime) -> None:
        """Remove files that were replaced, or written and never committed, longer ago than `GRACE`.

        The caller has the lock. A younger file may be one that another attempt is about to commit.
        """
        found = self.objects.read(self._replaced_key)
        replaced: list[str] = []
        if found is not None:
            since, replaced = self._parsed(found[0])
            if since + GRACE <= now and self.objects.remove(self._replaced_key, found[1]):
                self.objects.delete(set(replaced).intersection(self._unnamed(())))
        old = {item.key for item in self.objects.listed(self._folder) if item.modified + GRACE <= now}
        self.objects.delete(old.intersection(self._unnamed(replaced)))

    def clear(self, now: datetime) -> None:
        """Remove all files that the manifest does not name, at once: no reader of an older one gets grace.

        If there are any, the manifest gets the next revision, so that nobody commits what is removed here.
        The caller has the lock.

        Raises:
            OvertakenError: If another has written the day meanwhile.
        """
        self.drop_progress()
        self.end_grace()
        self.list_files(now)
        manifest, tag = self.committed()
        unnamed = self._unnamed(())
        if not unnamed:
            return
        if manifest is None:
            self.objects.delete(unnamed)
        else:
            self.commit(replace(manifest, revision=manifest.revision + 1), tag, now)

    def remove(self, now: datetime) -> None:
        """Remove the day. The manifest goes first: no manifest names files that are gone.

        The caller has the lock.

        Raises:
            OvertakenError: If another has written the day meanwhile.
        """
        found = self.objects.read(self._folder + MANIFEST)
        if found is not None and not self.objects.remove(self._folder + MANIFEST, found[1]):
            raise OvertakenError(f"another run has written {self.date} in {self.kind}: it is not removed")
        self.list_files(now)
        self.end_grace()
        self.objects.delete(self.keys())

    def _unnamed(self, replaced: Iterable[str]) -> list[str]:
        named = {self._folder + name for name in (MANIFEST, HOURS, PROGRESS)} | set(replaced)
        there = self.keys()
        progress = self.progress()[0]
        named |= {part.key for part in (progress.parts if progress else ())}
        # In this order: a file goes from the first document to the next, and is never in none of them.
        for name in (HOURS, MANIFEST):
            if (found := self.objects.get(self._folder + name)) is not None:
                named |= {part.key for part in Manifest.from_json(found).parts}
        return sorted(there - named)

    def _replaced(self) -> tuple[datetime | None, list[str]]:
        """Return since when files are replaced, and their keys."""
        document = self.objects.get(self._replaced_key)
        return (None, []) if document is None else self._parsed(document)

    def _parsed(self, document: bytes) -> tuple[datetime, list[str]]:
        read = load(document, _REPLACED_VERSION, self._replaced_key)
        return datetime.fromisoformat(read["since"]), read["keys"]


def days_to_tidy(objects: Objects) -> list[Day]:
    """Return the days that have replaced files, or the lock of a run that may have been killed."""
    keys = (key.removeprefix(prefix) for prefix in (_REPLACED, _LOCKS) for key in objects.keys(prefix))
    places = sorted({tuple(key.removesuffix(".json").split("/")) for key in keys})
    return [Day(objects, date.fromisoformat(day), Format(kind)) for kind, day in places]


def dates_of_files(objects: Objects, days: Days, kind: Format) -> dict[date, set[str]]:
    """Return the names of the files of each day of a range that has any."""
    first, last = folder(days.first, kind), folder(days.last, kind)
    found: defaultdict[date, set[str]] = defaultdict(set)
    for key in objects.keys(commonprefix([first, last])):  # noqa: RUF071 - of texts: one listing
        place, slash, name = key.rpartition("/")
        if first <= place + slash <= last:
            found[date(*map(int, re.findall(r"[a-z]+=(\d+)", place)))].add(name)
    return found


def dates_of_locks(objects: Objects, days: Days, kind: Format) -> Iterator[date]:
    """Yield the days of a range that have a lock."""
    for key in objects.keys(f"{_LOCKS}{kind}/"):
        day = date.fromisoformat(key.rpartition("/")[2].removesuffix(".json"))
        if days.first <= day <= days.last:
            yield day


def _pieces(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield a file in larger pieces."""
    piece = bytearray()
    for chunk in chunks:
        piece += chunk
        if len(piece) >= _PIECE_BYTES:
            yield bytes(piece)
            piece.clear()
    if piece:
        yield bytes(piece)
