"""Lambda entry: a range of days of the lake becomes a zip. Parts are read, zipped and written as a stream.

What is in memory is two parts of an upload and the beginnings of the next objects, whatever the range. The
bytes of a zip follow from its plan alone. So after a time-out, or after being killed, another invocation goes
on at the last member that begins in what S3 has, and arrives at the same zip.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import date
from functools import cache, partial
from typing import Any

import boto3
from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.metrics import MetricUnit
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from isal import isal_zlib

from consumers.bucket import Bucket, Downloads, PartOfUpload, UploadGoneError, client_config
from consumers.settings import read_settings
from exporter.downloads.jobs import (
    Format,
    Job,
    Plan,
    Request,
    State,
    asked_id,
    chosen_manifests,
    cursor_key,
    discard,
    job_key,
    manifests_of,
    message_of,
    plan_key,
    read_job,
    tail_key,
    zip_key,
)
from exporter.lake.manifest import Manifest, Part
from exporter.zips import selection
from exporter.zips.selection import Selected, Selection
from exporter.zips.zip_file import (
    MAKER,
    Bytes,
    Copied,
    Deflated,
    Entry,
    Kept,
    Member,
    Packed,
    ZipFile,
    inflated,
    skipped,
    watched,
)

Handler = Callable[[dict[str, Any], Any], dict[str, Any]]

# Parts of an upload are at least 5 MiB, and at most 10,000: 8 MiB each makes 80 GB, and a zip that may become
# larger has larger ones. https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html
PART_BYTES = 8 << 20
MAX_PARTS = 10_000
# What is read may grow when it is packed anew: as JSON, each row says the names of its columns.
_GROWTH = 4
# Objects that are opened before they are needed, each with its first chunk: days are many and mostly small.
AHEAD = 3
# What is kept of an invocation's time, to finish the part that is on its way and to write down where it is.
MARGIN_S = 30.0
PUBLISH_EVERY_S = 1.0
# A gzip of the lake has 256 MiB of text. One this large is not of the lake's making, and 32 bits may not be
# enough for the length of what is in it.
_COPIED_BYTES = 1 << 30
_NEARLY_4_GIB = 0xF000_0000
_KINDS = (".csv.gz", ".csv", ".jsonl.gz", ".jsonl", ".parquet")


class UnavailableError(ValueError):
    """What was asked for cannot be had, and trying again does not help; the message says why."""


class TakenOverError(Exception):
    """The job was deleted while its zip was made, or another worker is at it, or is asked to be."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What the function's environment says; docs/reference/settings.md."""

    bucket: str
    download_queue_url: str


# --- what a zip holds -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Cursor:
    """How far a zip is written.

    Attributes:
        upload: S3's name of the upload that it is of: a late word about another one means nothing.
        parts: The parts that S3 has.
        entries: The members that end in them, or in the tail.
        rows: How many rows each of those has.
        tail_sha256: Of what has been kept of the next part beside the cursor, in hex; empty for nothing.
    """

    upload: str
    parts: tuple[PartOfUpload, ...] = ()
    entries: tuple[Entry, ...] = ()
    rows: tuple[int, ...] = ()
    tail_sha256: str = ""

    def to_json(self) -> bytes:
        """Return the cursor as it is kept."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def from_json(cls, document: bytes) -> Cursor:
        """Return the cursor that a document says."""
        read = json.loads(document)
        return cls(
            read["upload"],
            tuple(read["parts"]),
            tuple(Entry(*each) for each in read["entries"]),
            tuple(read["rows"]),
            read["tail_sha256"],
        )


def check(request: Request, manifests: Iterable[Manifest]) -> None:
    """Make sure that what is asked for can be made of what the lake has.

    Raises:
        UnavailableError: If a day is kept in another format, or no day has a column.
    """
    manifests = [manifest for manifest in manifests if manifest.parts]
    for manifest in manifests:
        for part in manifest.parts:
            kept = kind(part.key).removesuffix(".gz").removeprefix(".")
            if kept == "parquet" and not request.whole:
                raise UnavailableError(f"{manifest.day} is kept as parquet: it can be had only as a whole")
            if request.format != kept and (kept, request.format) != ("csv", Format.JSONL):
                raise UnavailableError(
                    f"{manifest.day} is kept as {kept}: it cannot be had as {request.format}"
                )
    known = {column.name for manifest in manifests for column in manifest.columns}
    for column in request.columns:
        if known and column not in known:
            raise UnavailableError(f"no day has a column {column!r}; there are {', '.join(sorted(known))}")


def kind(key: str) -> str:
    """Return how a part is kept: the end of its key.

    Raises:
        UnavailableError: If it is none that is known here.
    """
    for known in _KINDS:
        if key.endswith(known):
            return known
    raise UnavailableError(f"{key} is kept in no format that is known here: {', '.join(_KINDS)}")


def packing(
    request: Request, manifest: Manifest, part: Part, chunks: Iterator[bytes]
) -> tuple[Packed, Selected | None]:
    """Return how a part goes into a zip, and what counts its rows unless all of them do.

    Args:
        request: What is wanted of it.
        manifest: The manifest of its day.
        part: The part.
        chunks: The part as it is kept.
    """
    kept = kind(part.key)
    as_it_is = request.whole and kept.removesuffix(".gz") == f".{request.format}"
    if kept == ".parquet":
        return Kept(chunks), None
    if as_it_is and kept.endswith(".gz") and part.bytes < _COPIED_BYTES:
        return Copied(chunks), None
    texts = inflated(chunks) if kept.endswith(".gz") else chunks
    if as_it_is:
        return Deflated(texts), None
    wanted = Selection(request.columns, request.values)
    write: Callable[[Iterable[bytes]], Iterator[bytes]] = partial(selection.csv_lines, selection=wanted)
    if kept.startswith(".jsonl"):
        write = partial(selection.jsonl_lines, selection=wanted)
    elif request.format is Format.JSONL:
        kinds = {column.name: column.type for column in manifest.columns}
        write = partial(selection.csv_to_jsonl, selection=wanted, kinds=kinds)
    selected = Selected(texts, write)
    return Deflated(selected), selected


def is_large(request: Request, part: Part) -> bool:
    """Return whether what a part becomes in a zip may reach 4 GiB."""
    if kind(part.key).endswith(".gz"):
        return part.bytes >= _COPIED_BYTES
    growth = 1 if kind(part.key) == f".{request.format}" else _GROWTH
    return part.bytes * growth >= _NEARLY_4_GIB


# --- the worker -------------------------------------------------------------------------------------------


@dataclass
class Turn:
    """What an invocation gives the making of a zip.

    Attributes:
        left_s: Says how many seconds of it are left.
        clock_s: Says what time it is, in seconds, to publish in its measure.
        now: Says what time it is, in seconds since 1970.
        part_bytes: How large the parts of an upload are at least.
    """

    left_s: Callable[[], float]
    clock_s: Callable[[], float] = time.monotonic
    now: Callable[[], float] = time.time
    part_bytes: int = PART_BYTES
    published_at: float = field(default=float("-inf"))

    def is_time_to_publish(self) -> bool:
        """Return whether it is, and count from now on again if so."""
        if self.clock_s() - self.published_at < PUBLISH_EVERY_S:
            return False
        self.published_at = self.clock_s()
        return True


class Held:
    """A job while a worker is at it, who writes what becomes of it only as long as nobody else does.

    So whoever wrote last has the job, what was deleted stays deleted, and no late word of an earlier worker
    stands in the place of a newer one.

    Args:
        job: The job as it was read.
        objects: The bucket.

    Attributes:
        job: The job as this worker knows it.
    """

    def __init__(self, job: Job, objects: Downloads) -> None:
        self.job = job
        self.objects = objects

    def check(self) -> str:
        """Make sure that the job is still this worker's, and return the tag of what it holds.

        Raises:
            TakenOverError: If somebody else has deleted or written it.
        """
        found = self.objects.read(job_key(self.job.id))
        if found is None or Job.from_json(found[0]) != self.job:
            raise TakenOverError
        return found[1]

    def say(self, state: State, **more: Any) -> Job:
        """Write what has become of the job, and return it.

        Raises:
            TakenOverError: If somebody else has deleted or written it.
        """
        said = self.job.becoming(state, **more)
        tag = self.check()
        written = self.objects.replace(job_key(said.id), said.to_json().encode(), tag)
        self.job = said
        # What a client writes a second time, because the first answer was lost, is refused and yet there.
        if not written:
            self.check()
        return said


def make_zip(held: Held, turn: Turn) -> Job:
    """Write the zip of a job, or as much of it as there is time for.

    It holds the parts of each exported day as `<day>-part-<n>.csv`, and at its end `manifest.json`. Doing it
    again for the same files makes the same bytes at the same key.

    Returns:
        The job: ready or empty, or still running where there was not enough time.

    Raises:
        UnavailableError: If what is asked for cannot be made of what the lake has.
        ValueError: If a file of the lake is not what its manifest says.
        TakenOverError: If the job was deleted or taken by another worker meanwhile.
        UploadGoneError: If somebody else completed the upload, or aborted it.
    """
    job, objects = held.job, held.objects
    document = objects.get(plan_key(job.id))
    plan = None if document is None else Plan.from_json(document)
    if plan is not None and plan.maker != MAKER:
        discard(job.id, objects)
        plan = None
    if plan is None:
        plan = begin(job, objects, turn)
    document = objects.get(cursor_key(job.id))
    cursor = None if document is None else Cursor.from_json(document)
    if cursor is None or cursor.upload != plan.upload.id:
        cursor = Cursor(plan.upload.id)
    return _Writing(held, plan, cursor, turn).run()


def begin(job: Job, objects: Downloads, turn: Turn) -> Plan:
    """Begin an upload for a job, and write down what it is to hold.

    Returns:
        The plan; that of another worker, if that was quicker.

    Raises:
        UnavailableError: If what is asked for cannot be made of what the lake has.
        TakenOverError: If another worker was quicker, and is done with it.
    """
    keys = chosen_manifests(job.request, (item.key for item in manifests_of(job.request.days, objects)))
    with ThreadPoolExecutor(AHEAD) as pool:
        documents = list(pool.map(objects.get, keys))
    manifests = tuple(Manifest.from_json(document) for document in documents if document is not None)
    check(job.request, manifests)
    total = sum(manifest.size for manifest in manifests)
    revisions = [[str(each.day), each.revision, [part.sha256 for part in each.parts]] for each in manifests]
    begun_at = int(turn.now())
    upload = objects.begin(
        zip_key(job.id),
        "application/zip",
        filename=job.request.filename,
        metadata={
            "first-day": str(job.request.days.first),
            "last-day": str(job.request.days.last),
            "days": str(len(manifests)),
            "last-revision": str(max((each.revision for each in manifests), default=0)),
            # Of the days, their revisions and the checksums of their files: other files make another.
            "revisions-sha256": hashlib.sha256(json.dumps(revisions).encode()).hexdigest(),
        },
    )
    plan = Plan(upload, begun_at, MAKER, _part_bytes(total, turn.part_bytes), manifests)
    if objects.replace(plan_key(job.id), plan.to_json(), None):
        return plan
    document = objects.get(plan_key(job.id))
    kept = None if document is None else Plan.from_json(document)
    if kept is None or kept.upload != upload:
        objects.abort(upload)
    if kept is None:
        raise TakenOverError
    return kept


def _part_bytes(total: int, least: int) -> int:
    """Return how large the parts of an upload are: larger ones, in MiB, where there would be too many."""
    most = total * _GROWTH
    return least if most < least * MAX_PARTS else -(-most // MAX_PARTS // (1 << 20)) << 20


class _Writing:
    """One turn of writing a zip."""

    def __init__(self, held: Held, plan: Plan, cursor: Cursor, turn: Turn) -> None:
        self._held = held
        self._id, self._request = held.job.id, held.job.request
        self._objects = held.objects
        self._plan = plan
        self._turn = turn
        self._begun_with = (len(cursor.parts), len(cursor.entries))
        self._tail_sha256 = cursor.tail_sha256
        # Two for all of it: one is filled while the other is on its way. Memory that is taken anew for each
        # part comes back to the system late.
        self._filled, self._other = bytearray(plan.part_bytes), bytearray(plan.part_bytes)
        self._length = 0
        self._parts_written_down = len(cursor.parts)
        self._parts = list(cursor.parts)
        self._rows = list(cursor.rows)
        self._zip = ZipFile(cursor.entries)
        self._total = sum(part.bytes for _, _, part in plan.parts)
        self._done = sum(part.bytes for _, _, part in plan.parts[: len(cursor.entries)])

    def run(self) -> Job:
        """Write until the end, or until there is no more time."""
        if self._tail_sha256:
            tail = self._objects.get(tail_key(self._id)) or b""
            if hashlib.sha256(tail).hexdigest() != self._tail_sha256:
                raise UploadGoneError("the zip's tail is another than was kept")
            self._length = len(tail)
            self._filled[: self._length] = tail
        # What S3 has may end inside of a member: that is made again, without what is there.
        there = max(0, self._there - self._zip.offset)
        # Uploading, reading ahead and checksums leave the interpreter to others while they work.
        with (
            ThreadPoolExecutor(1) as uploads,
            ThreadPoolExecutor(1) as checks,
            ThreadPoolExecutor(AHEAD) as reads,
        ):
            try:
                if not self._upload(skipped(self._bytes(reads, checks), there), uploads):
                    return self._left()
            except BaseException:
                reads.shutdown(cancel_futures=True)
                raise
        # Before there is a zip: whoever deletes a download gives up its upload, and then deletes its zip.
        self._held.check()
        self._objects.complete(self._plan.upload, self._parts)
        rows = sum(self._rows)
        ended = self._say(
            State.READY if rows else State.EMPTY,
            rows=rows,
            done_bytes=self._total,
            kept_from=self._plan.begun_at,
        )
        self._objects.delete([plan_key(self._id), cursor_key(self._id), tail_key(self._id)])
        return ended

    @property
    def _there(self) -> int:
        return len(self._parts) * self._plan.part_bytes

    def _left(self) -> Job:
        """Leave it to another invocation, if that can get further than this one."""
        if self._begun_with == (len(self._parts), len(self._zip.entries)):
            raise TimeoutError("not one member of the zip can be made in the time of an invocation")
        # A part of an upload cannot be small. What has been made of the next one, whole members, is kept.
        tail = bytes(self._filled[: max(0, self._zip.offset - self._there)])
        self._held.check()
        self._objects.put(tail_key(self._id), [tail], "application/octet-stream")
        return self._publish(tail)

    def _upload(self, chunks: Iterator[Bytes], uploads: ThreadPoolExecutor) -> bool:
        """Upload the rest of the zip, one part while the next is made; return whether it is all there.

        Args:
            chunks: What follows what there is of the next part.
            uploads: A thread to upload in.
        """
        sending: Future[PartOfUpload] | None = None
        for chunk in chunks:
            view = memoryview(chunk)
            while room := min(len(view), self._plan.part_bytes - self._length):
                self._filled[self._length : self._length + room] = view[:room]
                self._length += room
                view = view[room:]
                if self._length == self._plan.part_bytes:
                    self._sent(sending)
                    sending = self._send(uploads, self._filled)
                    self._filled, self._other, self._length = self._other, self._filled, 0
            if self._turn.is_time_to_publish():
                self._publish()
            if self._turn.left_s() < MARGIN_S:
                self._sent(sending)
                return False
        self._sent(sending)
        if self._length or not self._parts:
            self._sent(self._send(uploads, self._filled[: self._length]))
        return True

    def _send(self, uploads: ThreadPoolExecutor, body: bytearray) -> Future[PartOfUpload]:
        return uploads.submit(self._objects.add, self._plan.upload, len(self._parts) + 1, body)

    def _sent(self, sending: Future[PartOfUpload] | None) -> None:
        if sending is not None:
            self._parts.append(sending.result())

    def _publish(self, tail: bytes = b"") -> Job:
        """Write down how far the job is, and where another invocation can go on."""
        job = self._say(State.RUNNING, done_bytes=self._done)
        # Without another part, the cursor would say less than the one that there is.
        if tail or len(self._parts) > self._parts_written_down:
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
            self._parts_written_down = len(self._parts)
        return job

    def _say(self, state: State, **more: Any) -> Job:
        now = int(self._turn.now())
        return self._held.say(state, total_bytes=self._total, changed_at=now, **more)

    def _bytes(self, reads: ThreadPoolExecutor, checks: ThreadPoolExecutor) -> Iterator[Bytes]:
        """Yield the zip from the first member on that is not in it yet."""
        parts = self._plan.parts
        files = parts[len(self._zip.entries) :]
        streams = _read_ahead(self._objects, (part.key for _, _, part in files), reads)
        for (manifest, number, part), stream in zip(files, streams, strict=True):
            sha256 = _Sha256(checks)
            packed, selected = packing(
                self._request, manifest, part, watched(stream, sha256.update, self._count)
            )
            name = f"{manifest.day}-part-{number:05}.{self._request.format}"
            yield from self._zip.member(Member(name, manifest.day, packed, is_large(self._request, part)))
            if sha256.hexdigest() != part.sha256:
                raise ValueError(f"{part.key} is not what its manifest says: its checksum is another")
            self._rows.append(part.rows if selected is None else selected.rows)
        if len(self._zip.entries) == len(parts):
            packed = Deflated([_manifest(self._request, self._plan, self._zip.entries, self._rows)])
            yield from self._zip.member(Member("manifest.json", self._request.days.last, packed))
        yield self._zip.directory()

    def _count(self, chunk: bytes) -> None:
        self._done += len(chunk)


class _Sha256:
    """A checksum that is made in another thread, at most one chunk behind."""

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


def _manifest(request: Request, plan: Plan, entries: list[Entry], rows: list[int]) -> bytes:
    """Return what the zip says of itself."""
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
            for manifest in plan.manifests
        ],
        "days_not_exported": [day.isoformat() for day in request.days if day not in by_day],
        "files": files,
    }
    return json.dumps(document, indent=1, ensure_ascii=False).encode() + b"\n"


def _read_ahead(
    objects: Downloads, keys: Iterator[str], reads: ThreadPoolExecutor
) -> Iterator[Iterator[bytes]]:
    """Yield the chunks of each object, with the next ones opened."""

    def opened(key: str) -> Iterator[bytes]:
        stream = objects.stream(key)
        return itertools.chain([next(stream, b"")], stream)

    waiting = deque(reads.submit(opened, key) for key in itertools.islice(keys, AHEAD))
    while waiting:
        stream = waiting.popleft().result()
        waiting.extend(reads.submit(opened, key) for key in itertools.islice(keys, 1))
        yield stream


# --- the handler ------------------------------------------------------------------------------------------


def make_handler(
    objects: Downloads,
    *,
    send: Callable[[str], None],
    report: Callable[[Job], None],
    turn: Callable[[Callable[[], float]], Turn] = Turn,
) -> Handler:
    """Return a Lambda handler that makes the zips that a batch of SQS messages asks for.

    Args:
        objects: The lake's bucket, which also holds the zips.
        send: Puts a message on the queue, so that another invocation goes on.
        report: Is given each job as it ends, or as it is left.
        turn: Makes what an invocation gives, of what says how many seconds of it are left.
    """

    def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
        def left_s() -> float:
            return float(context.get_remaining_time_in_millis()) / 1000

        failures = []
        for message in event["Records"]:
            outcome = work_off(asked_id(message["body"]), objects, turn(left_s))
            if outcome.job is not None:
                report(outcome.job)
                if outcome.job.state is State.RUNNING:
                    send(message_of(outcome.job))
            if outcome.again:
                failures.append({"itemIdentifier": message["messageId"]})
        return {"batchItemFailures": failures}

    return handler


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a message.

    Attributes:
        job: The job as it is now, or None where there was nothing to do.
        again: Whether the message is to come again.
    """

    job: Job | None
    again: bool = False


def work_off(asked: str, objects: Downloads, turn: Turn) -> Outcome:
    """Make the zip of a job, or say in the job why not.

    Args:
        asked: The job's id.
        objects: The lake's bucket, which also holds the zips.
        turn: What there is to make it with.
    """
    job = read_job(objects, asked)
    # SQS delivers at least once; and what is deleted is not wanted any more.
    if job is None or job.state.has_zip:
        return Outcome(None)
    held = Held(job, objects)
    try:
        return _worked_off(held, turn)
    except TakenOverError:
        now = read_job(objects, job.id)
        if now is None or now.state.has_zip:
            discard(job.id, objects)
            return Outcome(None)
        # Should the other worker not get to the end, there is still this message.
        return Outcome(None, again=True)


def _worked_off(held: Held, turn: Turn) -> Outcome:
    try:
        return Outcome(_made(held, turn))
    except (ClientError, BotoCoreError, ValueError, OSError) as error:
        held.check()
        with suppress(ClientError, BotoCoreError):  # what went wrong may go wrong here, too
            discard(held.job.id, held.objects)
        failed = held.say(State.FAILED, reason=_reason(error), changed_at=int(turn.now()))
        return Outcome(failed, again=not (isinstance(error, UnavailableError) or _is_archived(error)))


def _made(held: Held, turn: Turn) -> Job:
    try:
        return make_zip(held, turn)
    except UploadGoneError:
        # By another worker, who has then written the job. If nobody has, it is begun anew.
        held.check()
        discard(held.job.id, held.objects)
        return make_zip(held, turn)


def _is_archived(error: Exception) -> bool:
    return isinstance(error, ClientError) and error.response["Error"]["Code"] == "InvalidObjectState"


def _reason(error: Exception) -> str:
    """Return why a zip could not be made, for the one who asked for it."""
    if _is_archived(error):
        return "some of these days are in the archive and have to be restored first"
    if isinstance(error, ClientError) and error.response["Error"]["Code"] in (
        "NoSuchKey",
        "PreconditionFailed",
    ):
        return "some of these days were exported anew meanwhile: ask again"
    return str(error) if isinstance(error, UnavailableError) else f"{type(error).__name__}: {error}"


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Make the zips that a batch of messages asks for."""
    return _live()(event, context)


@cache
def _live() -> Handler:
    settings = read_settings(Settings, os.environ)
    sqs = boto3.client("sqs")
    # What does not answer is given up well within the margin.
    config = client_config().merge(
        Config(connect_timeout=5, read_timeout=15, retries={"mode": "standard", "total_max_attempts": 5})
    )
    return make_handler(
        Bucket(boto3.client("s3", config=config), settings.bucket, isal_zlib.crc32),
        send=lambda message: sqs.send_message(QueueUrl=settings.download_queue_url, MessageBody=message),
        report=_report,
    )


def _report(job: Job) -> None:
    Logger().info(
        "zip",
        extra={
            "job": job.id,
            "state": job.state,
            "rows": job.rows,
            "reason": job.reason,
            "bytes": job.done_bytes,
        },
    )
    metrics = Metrics()
    metrics.add_metric(name=f"zips_{job.state}", unit=MetricUnit.Count, value=1)
    metrics.flush_metrics()
