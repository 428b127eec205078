"""A day of the lake in one format: its manifest, its files, its lock, and what is beside them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from datetime import date, datetime, timedelta

from botocore.exceptions import ClientError

from consumers.bucket import Objects
from consumers.documents import load, stamped
from exporter.lake.ahead import ahead
from exporter.lake.athena import write_file_list
from exporter.lake.batch import Batch
from exporter.lake.files import parts
from exporter.lake.forgotten import KEY as FORGOTTEN
from exporter.lake.forgotten import Forgotten
from exporter.lake.formats import Format
from exporter.lake.locks import Lock
from exporter.lake.manifest import MANIFEST, PART_BYTES, STATE, Manifest, Part, beginning, folder, part_key
from exporter.lake.progress import Progress
from exporter.store import Column

PROGRESS = "_progress.json"
# A reader that has read the manifest before has this long to read the parts that it names.
GRACE = timedelta(hours=6)
_REPLACED = f"{STATE}replaced/"
_REPLACED_VERSION = 1
# A piece of a file takes longer to make than the piece before takes to upload.
_PIECE_BYTES = 1 << 20


class Day:
    """A day of the lake in one format.

    Args:
        objects: The lake's bucket.
        day: The day in UTC.
        kind: The files' format.

    Attributes:
        lock: Whoever writes or removes files of the day has it.
    """

    def __init__(self, objects: Objects, day: date, kind: Format) -> None:
        self.objects, self.date, self.kind = objects, day, kind
        self.lock = Lock(objects, f"{STATE}locks/{kind}/{day}.json")
        self._folder = folder(day, kind)
        self._replaced_key = f"{_REPLACED}{kind}/{day}.json"

    # --- what it holds ------------------------------------------------------------------------------------

    def manifest(self) -> Manifest | None:
        """Return what the lake has of the day, or None if the day was never written."""
        document = self.document()
        return None if document is None else Manifest.from_json(document)

    def document(self) -> bytes | None:
        """Return the manifest as it is stored."""
        return self.objects.get(self._folder + MANIFEST)

    def commit(self, manifest: Manifest) -> None:
        """Write the manifest: from here on its files are what the lake has, also for the tables over them."""
        self.objects.put(self._folder + MANIFEST, [manifest.to_json()], "application/json")
        self.list_files(manifest)

    def list_files(self, manifest: Manifest) -> None:
        """Write the file list that the tables read: it is as old as the parts, to expire with them."""
        write_file_list(self.objects, manifest)

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
            lambda number: part_key(self.date, number, revision, self.kind),
            self.kind,
            size=size,
            first=first,
        ):
            self.objects.put(file.key, ahead(_pieces(file.chunks())), self.kind.rules.content_type)
            yield file.summary()

    def is_whole(self, part: Part) -> bool:
        """Tell whether a part is as its manifest describes it, so that its rows need not be written again."""
        sha256, size = hashlib.sha256(), 0
        try:
            for chunk in self.objects.stream(part.key):
                sha256.update(chunk)
                size += len(chunk)
        except ClientError as error:
            if error.response["Error"]["Code"] == "NoSuchKey":
                return False
            if error.response["Error"]["Code"] == "InvalidObjectState":
                return True  # in the archive, where nobody can change it
            raise
        return (size, sha256.hexdigest()) == (part.bytes, part.sha256)

    def forgotten(self) -> Forgotten | None:
        """Return the clients whose rows are left out of every day, or None if there are none."""
        document = self.objects.get(FORGOTTEN)
        return None if document is None else Forgotten.from_json(document)

    # --- while it is written ------------------------------------------------------------------------------

    def progress(self) -> Progress | None:
        """Return how far the day is, or None if it is not being written."""
        document = self.objects.get(self._folder + PROGRESS)
        return None if document is None else Progress.from_json(document)

    def write_progress(self, progress: Progress) -> None:
        """Store how far the day is."""
        self.objects.put(self._folder + PROGRESS, [progress.to_json()], "application/json")

    def drop_progress(self) -> None:
        """Remove how far the day is: the next export begins at the first row."""
        self.objects.delete([self._folder + PROGRESS])

    # --- files that are no longer wanted ------------------------------------------------------------------

    def keys(self) -> set[str]:
        """Return the keys of all files of the day, named or not."""
        return set(self.objects.keys(self._folder))

    def unnamed(self) -> list[str]:
        """Return the keys of files that no manifest, no progress and no list of replaced files names."""
        return self._unnamed(self._replaced()[1])

    def retire(self, replaced: Iterable[Part], now: datetime) -> None:
        """Store that parts were replaced: the first `tidy` after their time of grace removes them."""
        keys = sorted({*self._replaced()[1], *(part.key for part in replaced)})
        document = stamped({"since": now.isoformat(), "keys": keys}, _REPLACED_VERSION)
        self.objects.put(self._replaced_key, [json.dumps(document).encode()], "application/json")

    def end_grace(self) -> None:
        """End the time of grace of the replaced files: the next `tidy` removes them."""
        self.objects.delete([self._replaced_key])

    def tidy(self, now: datetime) -> None:
        """Remove files that no reader can want: never committed, or replaced longer ago than `GRACE`.

        The caller has the lock.
        """
        since, replaced = self._replaced()
        is_over = since is not None and since + GRACE <= now
        # Committed files are never overwritten: a file that nothing names is nobody's.
        self.objects.delete(self._unnamed([] if is_over else replaced))
        if is_over:
            self.end_grace()

    def _unnamed(self, replaced: Iterable[str]) -> list[str]:
        named = {self._folder + MANIFEST, self._folder + PROGRESS, *replaced}
        for each in (self.manifest(), self.progress()):
            named |= {part.key for part in (each.parts if each else ())}
        return sorted(self.keys() - named)

    def _replaced(self) -> tuple[datetime | None, list[str]]:
        """Return since when files are replaced, and their keys."""
        document = self.objects.get(self._replaced_key)
        if document is None:
            return None, []
        read = load(document, _REPLACED_VERSION, self._replaced_key)
        return datetime.fromisoformat(read["since"]), read["keys"]


def days_with_replaced_files(objects: Objects) -> Iterator[Day]:
    """Yield the days that have replaced files."""
    for key in objects.keys(_REPLACED):
        kind, day = key.removeprefix(_REPLACED).removesuffix(".json").split("/")
        yield Day(objects, date.fromisoformat(day), Format(kind))


def kept_formats(objects: Objects) -> list[Format]:
    """Return the formats that the lake has files of."""
    return [kind for kind in Format if any(objects.keys(beginning(kind)))]


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
