"""Making a zip: the lake's files are read, packed and uploaded as a stream, and resumed if time runs out.

Memory holds two parts of an upload and the beginnings of the next objects; parts grow with the zip, up to 128
MiB. The bytes of a zip follow from its plan alone. So after a time-out, or after being killed, another
invocation resumes at the last member that begins in the parts that S3 has, and makes the same zip.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from datetime import date
from typing import Any

from consumers.bucket import Downloads, PartOfUpload, UploadGoneError
from consumers.documents import load, stamped
from consumers.errors import TaglineError
from exporter.downloads.jobs import (
    Job,
    Request,
    State,
    ZipPlan,
    active_key,
    chosen_manifests,
    cursor_key,
    plan_key,
    tail_key,
    zip_key,
)
from exporter.downloads.stored_jobs import StoredJob, abandon_zip, find_job, find_manifests, replace_job
from exporter.lake import manifest as archive
from exporter.lake.manifest import Manifest, Part
from exporter.store import Column
from exporter.zips.failures import DamagedError, SlowError, UnavailableError, file_error, passes
from exporter.zips.packing import check, is_large, kept_format, packing
from exporter.zips.zip_file import MAKER, Bytes, Deflated, Entry, Member, ZipFile, skipped, watched

# Parts of an upload are at least 5 MiB, and at most 10,000. The first 2,000 have 8 MiB each, and the size
# doubles after each 2,000. So a zip has up to 520 GB, and two parts in memory have up to 256 MiB.
# https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html
PART_BYTES = 8 << 20
MAX_PARTS = 10_000
PARTS_OF_A_SIZE = 2_000
# How many objects are opened before they are needed, each with its first chunk: days are many and small.
AHEAD = 3
# The time that an invocation keeps back, to finish the part that is being uploaded and to write the cursor.
MARGIN_S = 30.0
PUBLISH_EVERY_S = 1.0
_CURSOR_VERSION = 1


class TakenOverError(TaglineError):
    """The job was deleted or sent again while its zip was made, or another worker makes it."""


@dataclass(frozen=True, slots=True)
class Cursor:
    """How far a zip is written.

    Attributes:
        upload: S3's name of the upload; the cursor of another upload is ignored.
        parts: The parts that S3 has.
        entries: The members that end in them, or in the tail.
        rows: How many rows each of those has.
        tail_sha256: Checksum of the tail, in hex; empty without a tail.
    """

    upload: str
    parts: tuple[PartOfUpload, ...] = ()
    entries: tuple[Entry, ...] = ()
    rows: tuple[int, ...] = ()
    tail_sha256: str = ""

    def to_json(self) -> bytes:
        """Return the cursor's document."""
        return json.dumps(stamped(asdict(self), _CURSOR_VERSION)).encode()

    @classmethod
    def from_json(cls, document: bytes) -> Cursor:
        """Return the cursor of a document.

        Raises:
            NewerDocumentError: If a newer Tagline wrote it in a format that this one does not read.
        """
        read = load(document, _CURSOR_VERSION, "the zip's cursor")
        return cls(
            read["upload"],
            tuple(read["parts"]),
            tuple(Entry(*each) for each in read["entries"]),
            tuple(read["rows"]),
            read["tail_sha256"],
        )


@dataclass
class Budget:
    """The time and the sizes that an invocation has for a zip.

    Attributes:
        left_s: Gives the seconds that are left of the invocation.
        clock_s: Gives a monotonic time in seconds, which decides when to publish progress.
        now: Gives the time in seconds since 1970.
        part_bytes: The least size of an upload's parts.
        published_at: The clock's time when progress was published last.
    """

    left_s: Callable[[], float]
    clock_s: Callable[[], float] = time.monotonic
    now: Callable[[], float] = time.time
    part_bytes: int = PART_BYTES
    published_at: float = field(default=float("-inf"))

    def is_time_to_publish(self) -> bool:
        """Tell whether progress is due to be published, and start the next interval if so."""
        if self.clock_s() - self.published_at < PUBLISH_EVERY_S:
            return False
        self.published_at = self.clock_s()
        return True


class Lease:
    """A job leased by a worker, which updates it only while nobody else has.

    The worker's name is in the job's document: other workers give way until the job is stuck. A deleted job
    stays deleted, and a worker whose job was taken cannot overwrite what the next one wrote.

    Args:
        found: The job as it was read.
        objects: The bucket.
        now: Gives the time in seconds since 1970.
        worker: The worker's name, unique for each invocation.

    Attributes:
        job: The job as this worker last read it.

    Raises:
        TakenOverError: If the job was deleted or written by another.
    """

    def __init__(self, found: StoredJob, objects: Downloads, now: Callable[[], float], worker: str) -> None:
        self.objects = objects
        self._now = now
        self._worker = worker
        self.job = found.job
        self._write(found, State.RUNNING, worker=worker)

    def check(self) -> StoredJob:
        """Make sure that the job is still this worker's, and return it as it is stored.

        Raises:
            TakenOverError: If the job was deleted or written by another.
        """
        found = find_job(self.objects, self.job.id)
        if found is None or found.job != self.job:
            raise TakenOverError
        return found

    def update(self, state: State, **more: Any) -> Job:
        """Write the job in another state, and return it.

        Raises:
            TakenOverError: If the job was deleted or written by another.
        """
        return self._write(self.check(), state, **{"worker": self._worker, **more})

    def end(self, state: State, **more: Any) -> Job:
        """Write the job in another state and without a worker, so that another may resume it, and return it.

        Raises:
            TakenOverError: If the job was deleted or written by another.
        """
        if state is not State.RUNNING:
            self.objects.delete([active_key(self.job)])
        return self.update(state, worker="", **more)

    def _write(self, found: StoredJob, state: State, **more: Any) -> Job:
        updated = self.job.becoming(state, changed_at=int(self._now()), **more)
        if not replace_job(self.objects, updated, found):
            raise TakenOverError
        self.job = updated
        return updated


def make_zip(lease: Lease, budget: Budget) -> Job:
    """Write the zip of a job, or as much of it as there is time for.

    It contains the parts of each exported day as `<day>-part-<n>.csv`, and at its end `manifest.json`. The
    same files make the same bytes at the same key.

    Returns:
        The job: ready or empty, or still running if there was not enough time.

    Raises:
        UnavailableError: If the request cannot be made of what the lake has.
        DamagedError: If a file of the lake differs from its manifest.
        GoneError: If a file of the lake is gone.
        SlowError: If there was not enough time for any progress.
        TakenOverError: If the job was deleted or taken by another worker meanwhile.
        UploadGoneError: If another completed or aborted the upload.
    """
    job, objects = lease.job, lease.objects
    document = objects.get(plan_key(job.id))
    plan = None if document is None else ZipPlan.from_json(document)
    if plan is not None and plan.maker != MAKER:
        abandon_zip(job.id, objects)
        plan = None
    if plan is None:
        plan = begin(job, objects, budget)
    document = objects.get(cursor_key(job.id))
    cursor = None if document is None else Cursor.from_json(document)
    if cursor is None or cursor.upload != plan.upload.id:
        cursor = Cursor(plan.upload.id)
    return _Writing(lease, plan, cursor, budget).run()


def begin(job: Job, objects: Downloads, budget: Budget) -> ZipPlan:
    """Begin an upload for a job, and write the plan of its zip.

    Returns:
        The plan; another worker's, if that was quicker.

    Raises:
        UnavailableError: If the request cannot be made of what the lake has.
        TakenOverError: If another worker was quicker, and has finished the zip.
    """
    keys = chosen_manifests(job.request, (item.key for item in find_manifests(job.request.days, objects)))
    with ThreadPoolExecutor(AHEAD) as pool:
        found = list(pool.map(lambda key: _lake_manifest(objects, key), keys))
    columns: dict[tuple[Column, ...], tuple[Column, ...]] = {}
    manifests = tuple(
        replace(manifest, columns=columns.setdefault(manifest.columns, manifest.columns))
        for manifest in found
        if manifest is not None
    )
    check(job.request, manifests)
    revisions = [[str(each.day), each.revision, [part.sha256 for part in each.parts]] for each in manifests]
    begun_at = int(budget.now())
    upload = objects.begin(
        zip_key(job.id),
        "application/zip",
        filename=job.request.filename,
        metadata={
            "first-day": str(job.request.days.first),
            "last-day": str(job.request.days.last),
            "days": str(len(manifests)),
            "last-revision": str(max((each.revision for each in manifests), default=0)),
            # Of the days, their revisions and the checksums of their files.
            "revisions-sha256": hashlib.sha256(json.dumps(revisions).encode()).hexdigest(),
        },
    )
    plan = ZipPlan(upload, begun_at, MAKER, budget.part_bytes, manifests)
    if objects.replace(plan_key(job.id), plan.to_json(), None):
        return plan
    document = objects.get(plan_key(job.id))
    kept = None if document is None else ZipPlan.from_json(document)
    if kept is None or kept.upload != upload:
        objects.abort(upload)
    if kept is None:
        raise TakenOverError
    return kept


def _lake_manifest(objects: Downloads, key: str) -> Manifest | None:
    """Return a day's manifest, or None if it is gone.

    Raises:
        DamagedError: If it is damaged.
    """
    document = objects.get(key)
    if document is None:
        return None
    try:
        manifest = Manifest.from_json(document)
        folder = archive.folder(manifest.day, manifest.format)
    except Exception as error:
        raise file_error(key, error) from error
    if key != folder + archive.MANIFEST:
        raise DamagedError(f"{key} is damaged: it is the manifest of {manifest.day} in {manifest.format}")
    for part in manifest.parts:
        if not part.key.startswith(folder) or not part.key.endswith(f".{manifest.format}"):
            raise DamagedError(
                f"{key} is damaged: it names {part.key[:200]!r}, which is not a file of that day"
            )
    return manifest


def part_size(number: int, least: int) -> int:
    """Return the size of a part of an upload, in bytes.

    Args:
        number: The part's number, from 1.
        least: The size of the first.
    """
    return least << (number - 1) // PARTS_OF_A_SIZE


def size_of_parts(count: int, least: int) -> int:
    """Return the size of the first parts of an upload together, in bytes.

    Args:
        count: How many parts.
        least: The size of the first.
    """
    doublings, rest = divmod(count, PARTS_OF_A_SIZE)
    return least * (PARTS_OF_A_SIZE * ((1 << doublings) - 1) + (rest << doublings))


class _Writing:
    """The writing of a zip in one invocation."""

    def __init__(self, lease: Lease, plan: ZipPlan, cursor: Cursor, budget: Budget) -> None:
        self._lease = lease
        self._id, self._request = lease.job.id, lease.job.request
        self._objects = lease.objects
        self._plan = plan
        self._budget = budget
        self._begun_with = (len(cursor.parts), len(cursor.entries))
        self._tail_sha256 = cursor.tail_sha256
        # The part that is being filled. Two buffers for all parts of a size: one is filled while the other is
        # uploaded. The system gets memory that is allocated for each part back late.
        self._number = len(cursor.parts) + 1
        self._filled = bytearray(part_size(self._number, plan.part_bytes))
        self._other = bytearray()
        self._length = 0
        self._parts_in_cursor = len(cursor.parts)
        self._parts = list(cursor.parts)
        self._rows = list(cursor.rows)
        self._zip = ZipFile(cursor.entries)
        self._total = sum(part.bytes for _, _, part in plan.parts)
        self._done = sum(part.bytes for _, _, part in plan.parts[: len(cursor.entries)])

    def run(self) -> Job:
        """Write to the end, or until the time runs out."""
        if self._tail_sha256:
            tail = self._objects.get(tail_key(self._id)) or b""
            if hashlib.sha256(tail).hexdigest() != self._tail_sha256:
                raise UploadGoneError("the zip's tail is not the one that was written")
            self._length = len(tail)
            self._filled[: self._length] = tail
        # The parts that S3 has may end inside a member: it is made again, without the bytes that are there.
        there = max(0, self._there - self._zip.offset)
        # Uploads, reads and checksums release the interpreter lock while they work.
        with (
            ThreadPoolExecutor(1) as uploads,
            ThreadPoolExecutor(1) as checks,
            ThreadPoolExecutor(AHEAD) as reads,
        ):
            try:
                if not self._upload(skipped(self._bytes(reads, checks), there), uploads):
                    return self._leave()
            except BaseException as error:
                reads.shutdown(cancel_futures=True)
                if isinstance(error, Exception) and passes(error):
                    self._write_cursor()
                raise
        # Before there is a zip: deleting a download aborts its upload, and then deletes its zip.
        self._lease.check()
        self._objects.complete(self._plan.upload, self._parts)
        rows = sum(self._rows)
        ended = self._lease.end(
            State.READY if rows else State.EMPTY,
            rows=rows,
            done_bytes=self._total,
            total_bytes=self._total,
            kept_from=self._plan.begun_at,
            retries=0,
        )
        self._objects.delete([plan_key(self._id), cursor_key(self._id), tail_key(self._id)])
        return ended

    @property
    def _there(self) -> int:
        return size_of_parts(len(self._parts), self._plan.part_bytes)

    def _leave(self) -> Job:
        """Leave the rest to another invocation, if this one made progress."""
        if self._begun_with == (len(self._parts), len(self._zip.entries)):
            raise SlowError("an invocation has not enough time for a single member of the zip")
        # A part of an upload cannot be small. The whole members that are made of the next part are kept.
        tail = bytes(self._filled[: max(0, self._zip.offset - self._there)])
        self._lease.check()
        self._objects.put(tail_key(self._id), [tail], "application/octet-stream")
        self._write_cursor(tail)
        return self._lease.end(State.RUNNING, **self._progress())

    def _upload(self, chunks: Iterator[Bytes], uploads: ThreadPoolExecutor) -> bool:
        """Upload the rest of the zip, one part while the next is made; return whether it is complete.

        Args:
            chunks: The bytes behind those of the next part that are there.
            uploads: A thread to upload in.
        """
        sending: Future[PartOfUpload] | None = None
        for chunk in chunks:
            view = memoryview(chunk)
            while room := min(len(view), len(self._filled) - self._length):
                self._filled[self._length : self._length + room] = view[:room]
                self._length += room
                view = view[room:]
                if self._length == len(self._filled):
                    self._sent(sending)
                    sending = self._send(uploads, self._filled)
                    self._fill_next()
            if self._budget.is_time_to_publish():
                self._publish()
            if self._budget.left_s() < MARGIN_S:
                self._sent(sending)
                return False
        self._sent(sending)
        if self._length or not self._parts:
            self._sent(self._send(uploads, self._filled[: self._length]))
        return True

    def _fill_next(self) -> None:
        self._number += 1
        size = part_size(self._number, self._plan.part_bytes)
        if len(self._other) != size:
            self._other = bytearray(size)
        self._filled, self._other, self._length = self._other, self._filled, 0

    def _send(self, uploads: ThreadPoolExecutor, body: bytearray) -> Future[PartOfUpload]:
        if self._number > MAX_PARTS:
            most = size_of_parts(MAX_PARTS, self._plan.part_bytes)
            raise UnavailableError(f"the zip has more than {most} bytes: ask for fewer days")
        return uploads.submit(self._objects.add, self._plan.upload, len(self._parts) + 1, body)

    def _sent(self, sending: Future[PartOfUpload] | None) -> None:
        if sending is not None:
            self._parts.append(sending.result())

    def _publish(self) -> None:
        """Write the progress of the job, and the cursor from which another invocation can resume."""
        self._lease.update(State.RUNNING, **self._progress())
        self._write_cursor()

    def _progress(self) -> dict[str, Any]:
        """Return a job's progress, as in its document."""
        retries = 0 if len(self._parts) > self._begun_with[0] else self._lease.job.retries
        return {"done_bytes": self._done, "total_bytes": self._total, "retries": retries}

    def _write_cursor(self, tail: bytes = b"") -> None:
        # Without another part, the cursor that is there may be further than this one.
        if tail or len(self._parts) > self._parts_in_cursor:
            there = self._there + len(tail)
            entries = tuple(entry for entry in self._zip.entries if entry.end <= there)
            cursor = Cursor(
                self._plan.upload.id,
                tuple(self._parts),
                entries,
                tuple(self._rows[: len(entries)]),
                hashlib.sha256(tail).hexdigest() if tail else "",
            )
            self._objects.put(cursor_key(self._id), [cursor.to_json()], "application/json")
            self._parts_in_cursor = len(self._parts)

    def _bytes(self, reads: ThreadPoolExecutor, checks: ThreadPoolExecutor) -> Iterator[Bytes]:
        """Yield the zip from the first member that is not in it yet."""
        parts = self._plan.parts
        files = parts[len(self._zip.entries) :]
        streams = _read_ahead(self._objects, (part.key for _, _, part in files), reads)
        for (manifest, number, part), stream in zip(files, streams, strict=True):
            try:
                yield from self._member(manifest, number, part, stream, _Sha256(checks))
            except Exception as error:
                raise file_error(part.key, error) from error
        if len(self._zip.entries) == len(parts):
            packed = Deflated([_manifest(self._request, self._plan, self._zip.entries, self._rows)])
            yield from self._zip.member(Member("manifest.json", self._request.days.last, packed))
        yield self._zip.directory()

    def _member(
        self, manifest: Manifest, number: int, part: Part, stream: Iterator[bytes], sha256: _Sha256
    ) -> Iterator[Bytes]:
        """Yield a file of the lake as a member of the zip."""
        packed, selected = packing(self._request, manifest, part, watched(stream, sha256.update, self._count))
        name = f"{manifest.day}-part-{number:05}.{self._request.ending(kept_format(part.key))}"
        large = is_large(self._request, manifest, part)
        yield from self._zip.member(Member(name, manifest.day, packed, large))
        if sha256.hexdigest() != part.sha256:
            raise DamagedError(f"{part.key} differs from its manifest: the checksum is not the same")
        self._rows.append(part.rows if selected is None else selected.rows)

    def _count(self, chunk: bytes) -> None:
        self._done += len(chunk)


class _Sha256:
    """A checksum that another thread makes, at most one chunk behind."""

    def __init__(self, checks: ThreadPoolExecutor) -> None:
        self._checks = checks
        self._sha256 = hashlib.sha256()
        self._behind: Future[None] = Future()
        self._behind.set_result(None)

    def update(self, chunk: bytes) -> None:
        """Take a chunk into account."""
        self._behind.result()
        self._behind = self._checks.submit(self._sha256.update, chunk)

    def hexdigest(self) -> str:
        """Return the checksum."""
        self._behind.result()
        return self._sha256.hexdigest()


def _manifest(request: Request, plan: ZipPlan, entries: list[Entry], rows: list[int]) -> bytes:
    """Return the zip's own manifest."""
    by_day: dict[date, int] = {manifest.day: 0 for manifest in plan.manifests}
    files = []
    for (manifest, _, part), entry, count in zip(plan.parts, entries, rows, strict=True):
        by_day[manifest.day] += count
        files.append(
            {
                "name": entry.name,
                "rows": count,
                "bytes": entry.size,
                "crc32": f"{entry.crc:08x}",
                "source_sha256": part.sha256,
            }
        )
    document = {
        "start_date": request.days.first.isoformat(),
        "end_date": request.days.last.isoformat(),
        "format": request.format,
        "columns": list(request.columns) or None,
        "only": request.values,
        "rows": sum(rows),
        "days": [
            {"day": manifest.day.isoformat(), "rows": by_day[manifest.day], "revision": manifest.revision}
            | ({"partial_since": manifest.partial_since} if manifest.partial_since else {})
            for manifest in plan.manifests
        ],
        "days_not_exported": [day.isoformat() for day in request.days if day not in by_day],
        "files": files,
    }
    return json.dumps(document, indent=1, ensure_ascii=False).encode() + b"\n"


def _read_ahead(
    objects: Downloads, keys: Iterator[str], reads: ThreadPoolExecutor
) -> Iterator[Iterator[bytes]]:
    """Yield the chunks of each object, and open the next objects meanwhile."""

    def opened(key: str) -> Iterator[bytes]:
        try:
            stream = objects.stream(key)
            return itertools.chain([next(stream, b"")], stream)
        except Exception as error:
            raise file_error(key, error) from error

    waiting = deque(reads.submit(opened, key) for key in itertools.islice(keys, AHEAD))
    while waiting:
        stream = waiting.popleft().result()
        waiting.extend(reads.submit(opened, key) for key in itertools.islice(keys, 1))
        yield stream
