"""In-memory twins of what is at the edges: they keep what they are given, and fail when they are told to."""

import hashlib
import json
import re
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any

from botocore.exceptions import ClientError

from consumers.accounts import accounting
from consumers.accounts.accounting import Account, Sources, intervals
from consumers.bucket import Listed, PartOfUpload, Upload, UploadGoneError
from consumers.rows.table import DIMENSIONS, ID, SOURCE
from exporter.downloads.jobs import Job, job_key
from exporter.downloads.links import Link
from exporter.downloads.stored_jobs import find_job
from exporter.lake.forgotten import Forgotten
from exporter.lake.forgotten_list import ForgottenList
from exporter.store import (
    TIME,
    TYPE,
    Answer,
    Bill,
    Column,
    Days,
    Hour,
    QuestionTooLargeError,
    Span,
    Store,
    StoreError,
    Tally,
    Type,
    Values,
    minute,
    oldest_kept,
    places,
    unbilled,
    whole,
)
from exporter.zips.making import Lease

Point = tuple[Any, ...]
# What the names of forgotten clients are hashed with.
FORGOTTEN_KEY = b"a key of 32 bytes, for tests only"[:32]
LONG_AGO = datetime.min.replace(tzinfo=UTC)


class Objects(dict[str, bytes]):
    """A bucket: `consumers.lines.quarantine.ObjectWriter`, failing where a key begins as told."""

    def __init__(self, content: Mapping[str, bytes] | None = None, *, failing: str | None = None) -> None:
        super().__init__(content or {})
        self.failing = failing

    def write(self, key: str, body: bytes) -> None:
        if self.failing is not None and key.startswith(self.failing):
            raise OSError(f"cannot write {key}")
        self[key] = body

    def under(self, prefix: str) -> dict[str, bytes]:
        return {key: body for key, body in self.items() if key.startswith(prefix)}

    def accounts(self, day: date | None = None) -> dict[str, Account]:
        """Return the consumer's accounts of a day, or of all, by log group."""
        found: dict[str, Account] = {}
        for key, body in self.under(accounting.PREFIX).items():
            for when, groups in accounting.from_json(body, key).items():
                for group, account in groups.items() if day in {None, when} else ():
                    found[group] = merge(found.get(group, Account()), account)
        return found

    def quarantined(self) -> Iterator[dict[str, Any]]:
        for key in sorted(self):
            if key.startswith("quarantine/"):
                yield from map(json.loads, self[key].decode().splitlines())


def merge(one: Account, other: Account) -> Account:
    """Return the account of all lines that either of two accounts has."""

    def union(one: Sources, other: Sources) -> Sources:
        return {src: intervals((*one.get(src, ()), *other.get(src, ()))) for src in sorted({*one, *other})}

    def highest(one: Mapping[str, int], other: Mapping[str, int]) -> Mapping[str, int]:
        return {name: max(one.get(name, 0), other.get(name, 0)) for name in sorted({*one, *other})}

    return Account(
        union(one.delivered, other.delivered),
        {
            reason: union(one.quarantined.get(reason, {}), other.quarantined.get(reason, {}))
            for reason in sorted({*one.quarantined, *other.quarantined})
        },
        {
            what: highest(one.counts.get(what, {}), other.counts.get(what, {}))
            for what in sorted({*one.counts, *other.counts})
        },
    )


class TimestreamWrite:
    """A client of timestream-write over one table in memory: identity, versions, types, rejections, faults.

    Args:
        faults: What the next calls raise, before they do anything; None lets a call through.
        window: The first millisecond that the memory store takes, and the first that it does not.

    Attributes:
        points: What is stored: the record by its dimensions, measure name and time.
        types: The type of each measure's column.
        faults: What the next calls raise.
        requests: The records of each call that came through, each with the common attributes in it.
    """

    def __init__(self, *faults: Exception | None, window: tuple[int, int] | None = None) -> None:
        self.points: dict[Point, dict[str, Any]] = {}
        self.types: dict[str, str] = {}
        self.window = window
        self.faults = deque(faults)
        self.requests: list[list[dict[str, Any]]] = []
        self.refusing: dict[str, str] = {}

    def write_records(self, **request: Any) -> dict[str, Any]:
        records = merged(request)
        assert (request["DatabaseName"], request["TableName"]) == ("tagline", "records")
        assert 1 <= len(records) <= 100
        if self.faults and (fault := self.faults.popleft()):
            raise fault
        self.requests.append(records)
        if any(not 0 <= int(record["Time"]) < 2**63 for record in records):
            raise client_error("ValidationException", message="Invalid time for record.")
        rejected = []
        for index, record in enumerate(records):
            if reason := self.refusal(record):
                rejected.append({"RecordIndex": index, "Reason": reason, **self._existing_version(record)})
        if rejected:
            raise client_error("RejectedRecordsException", 419, RejectedRecords=rejected)
        return {"RecordsIngested": {"Total": len(records)}}

    def _existing_version(self, record: dict[str, Any]) -> dict[str, int]:
        stored = self.points.get(point_of(record))
        return (
            {"ExistingVersion": stored["Version"]} if stored and stored["Version"] > record["Version"] else {}
        )

    def refusal(self, record: dict[str, Any]) -> str | None:
        """Return why a record is refused, in AWS's words, or None if it is taken."""
        identity = measure(record, "_id")
        if identity in self.refusing:
            return self.refusing[identity]
        point = point_of(record)
        if self.window and not self.window[0] <= int(record["Time"]) // 1_000_000 < self.window[1]:
            first, end = (datetime.fromtimestamp(at / 1000, UTC).isoformat() for at in self.window)
            return f"The record timestamp is outside the time range [{first}, {end}) of the memory store."
        for item in record["MeasureValues"]:
            if self.types.get(item["Name"], item["Type"]) != item["Type"]:
                return f"The measure value type of {item['Name']} does not match the existing column."
        self.types |= {item["Name"]: item["Type"] for item in record["MeasureValues"]}
        # The order of dimensions is not stored.
        record = {**record, "Dimensions": sorted(record["Dimensions"], key=str)}
        stored = self.points.setdefault(point, record)
        if record["Version"] > stored["Version"]:
            self.points[point] = record
        elif record["Version"] < stored["Version"]:
            return "The record version is lower than the existing version of the record."
        elif record != stored:
            return (
                "A record already exists with the same time, dimensions, measure name, and record version. "
                "A higher record version must be specified in order to update the measure value."
            )
        return None

    def ids(self) -> list[str]:
        """Return the identities of all rows, sorted, one for each row."""
        return sorted(measure(record, "_id") for record in self.points.values())


def point_of(record: dict[str, Any]) -> Point:
    """Return where a record of WriteRecords is stored: measure name, time and dimensions."""
    return (
        record["MeasureName"],
        record["Time"],
        *sorted((dimension["Name"], dimension["Value"]) for dimension in record["Dimensions"]),
    )


def merged(request: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the records of a WriteRecords request as Timestream puts them together.

    https://docs.aws.amazon.com/timestream/latest/developerguide/API_WriteRecords.html: common dimensions are
    added to a record's own, and none may be there twice; of other attributes, a record has its own or the
    common one.
    """
    common = request.get("CommonAttributes", {})
    records = [
        {**common, **record, "Dimensions": common.get("Dimensions", []) + record.get("Dimensions", [])}
        for record in request["Records"]
    ]
    for record in records:
        names = [dimension["Name"] for dimension in record["Dimensions"]]
        assert len(names) == len(set(names)), f"a dimension is there twice: {names}"
    return records


def measure(record: dict[str, Any], name: str) -> str:
    """Return the text of a measure in a record of WriteRecords."""
    return str(next(item["Value"] for item in record["MeasureValues"] if item["Name"] == name))


def client_error(code: str, status: int = 400, *, message: str = "", **more: Any) -> ClientError:
    """Return the exception that botocore raises for a service's error."""
    return ClientError(
        {
            "Error": {"Code": code, "Message": message or f"the message of {code}"},
            "ResponseMetadata": {"HTTPStatusCode": status},
            **more,
        },
        "WriteRecords",
    )


class Bucket(dict[str, bytes]):
    """A bucket: `consumers.bucket.Downloads`. What was written is in it by key.

    Attributes:
        uploads: The parts of the uploads that are neither complete nor aborted, by their numbers.
        metadata: What completed uploads say of themselves, by key.
        calls: How many parts have been uploaded.
        modified: When objects were written, of those that were not written long ago.
        archived: The keys of objects that have to be restored first.
        restored: Until when objects can be read that were archived and restored.
        sizes: What a listing says of the sizes of objects, of those that it is to say something else of.
    """

    def __init__(self, content: Mapping[str, bytes] | None = None) -> None:
        super().__init__(content or {})
        self.uploads: dict[str, dict[int, bytes]] = {}
        self.metadata: dict[str, dict[str, str]] = {}
        self.begun: dict[str, dict[str, str]] = {}
        self.calls = 0
        self.modified: dict[str, datetime] = {}
        self.archived: set[str] = set()
        self.restored: dict[str, datetime] = {}
        self.sizes: dict[str, int] = {}

    def put(self, key: str, chunks: Iterable[bytes], content_type: str) -> None:
        assert "/" in content_type
        self[key] = b"".join(chunks)

    def get(self, key: str) -> bytes | None:  # type: ignore[override]  # no default here
        return super().get(key)

    def stream(self, key: str) -> Iterator[bytes]:
        if key not in self:
            raise client_error("NoSuchKey", 404)
        body = self[key]
        yield from (body[start : start + 1_000] for start in range(0, len(body), 1_000))

    def keys(self, prefix: str = "") -> Iterator[str]:  # type: ignore[override]  # those of a prefix
        return (item.key for item in self.listed(prefix))

    def listed(self, prefix: str) -> Iterator[Listed]:
        keys = [key for key in self if key.startswith(prefix)]
        return iter(
            [
                Listed(
                    key,
                    etag(self[key]),
                    self.modified.get(key, LONG_AGO),
                    self.sizes.get(key, len(self[key])),
                    key in self.archived,
                    self.restored.get(key),
                )
                for key in keys
            ]
        )

    def has(self, key: str) -> bool:
        return key in self

    def delete(self, keys: Iterable[str]) -> None:
        for key in list(keys):
            self.pop(key, None)

    def read(self, key: str) -> tuple[bytes, str] | None:
        return (self[key], hashlib.md5(self[key]).hexdigest()) if key in self else None

    def replace(self, key: str, body: bytes, tag: str | None) -> bool:
        found = self.read(key)
        if tag != (found and found[1]):
            return False
        self[key] = body
        return True

    def remove(self, key: str, tag: str) -> bool:
        found = self.read(key)
        if found is None or found[1] != tag:
            return False
        del self[key]
        return True

    def uri(self, key: str) -> str:
        return f"s3://bucket/{key}"

    def lake(self) -> dict[str, bytes]:
        """Return what a reader of the lake sees: manifests and parts, without what is kept beside them."""
        return {key: body for key, body in self.items() if key.startswith("records/year=")}

    def begin(self, key: str, content_type: str, *, filename: str, metadata: Mapping[str, str]) -> Upload:
        assert "/" in content_type
        assert filename.endswith(".zip")
        upload = Upload(key, f"upload-{len(self.begun)}")
        self.uploads[upload.id] = {}
        self.begun[upload.id] = dict(metadata)
        return upload

    def add(self, upload: Upload, number: int, body: bytes | bytearray) -> PartOfUpload:
        self.calls += 1
        self._parts(upload)[number] = bytes(body)
        return {"PartNumber": number, "ETag": etag(body)}

    def complete(self, upload: Upload, parts: Sequence[PartOfUpload]) -> None:
        there = self._parts(upload)
        assert [part["PartNumber"] for part in parts] == list(range(1, len(parts) + 1))
        assert [part["ETag"] for part in parts] == [etag(there[part["PartNumber"]]) for part in parts]
        self[upload.key] = b"".join(there[part["PartNumber"]] for part in parts)
        self.metadata[upload.key] = self.begun[upload.id]
        del self.uploads[upload.id]

    def abort(self, upload: Upload) -> None:
        self.uploads.pop(upload.id, None)

    def _parts(self, upload: Upload) -> dict[int, bytes]:
        if upload.id not in self.uploads:
            raise UploadGoneError(f"the upload of {upload.key} was completed or aborted")
        return self.uploads[upload.id]


def read_key() -> bytes:
    """Return the key of the list of forgotten clients, as the secret has it."""
    return FORGOTTEN_KEY


def forget_client(client: str, bucket: Bucket, erased: datetime) -> Forgotten:
    """Have exports leave out a client's rows up to a time."""
    return ForgottenList(bucket, read_key).change(lambda forgotten: forgotten.having(client, erased))


def etag(body: bytes | bytearray) -> str:
    """Return what S3 calls a content that was put in one piece."""
    return hashlib.md5(body, usedforsecurity=False).hexdigest()


def write_job(bucket: dict[str, bytes], job: Job) -> None:
    """Put a job's document into a bucket, whatever is there."""
    bucket[job_key(job.id)] = job.to_json().encode()


def leased(bucket: "Bucket", job: Job) -> Lease:
    """Return a job that a worker has."""
    write_job(bucket, job)
    found = find_job(bucket, job.id)
    assert found is not None
    return Lease(found, bucket, lambda: 0, "a worker")


class Links:
    """Makes links that name their arguments: `exporter.downloads.Links`."""

    def __init__(self, now: Callable[[], datetime]) -> None:
        self._now = now

    def link(self, key: str, *, seconds: int, filename: str | None) -> Link:
        url = f"https://bucket/{key}?seconds={seconds}&filename={filename}"
        return Link(url, self._now() + timedelta(seconds=seconds))


class Rows:
    """A store in memory: `exporter.store.BillingStore`, as strict as a real one.

    Args:
        columns: Types by name, in an order that only the store knows. One is `time`.
        rows: Values in that order. One that does not fit its column's type is refused.
        page: Rows of a page; the first page of an answer is empty.
        max_rows: Rows of one answer.
        keeps_for: How long rows are kept.

    Attributes:
        kept: The rows.
        asked: The spans that rows were asked of.
        pages_read: How many pages have been read of all answers.
    """

    name = "the twin"
    settles_after = timedelta(hours=7)
    includes_exports = False
    _FITS: Mapping[str, str] = {
        "text": "(?s).*",
        "integer": "-?[0-9]+",
        "number": r"-?[0-9]+(?:\.(?!0$)[0-9]+)?(?:[eE][-+]?[0-9]+)?|NaN|-?Infinity",
        "boolean": "true|false",
        "timestamp": r"[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{9}",
    }

    def __init__(
        self,
        columns: Mapping[str, Type],
        rows: Sequence[Values],
        *,
        page: int = 7,
        max_rows: int = 1_000_000,
        keeps_for: timedelta | None = None,
    ) -> None:
        self.bill: Callable[[], Bill] = unbilled
        self.keeps_for = keeps_for
        self.asked: list[Span] = []
        self.pages_read = 0
        self._columns = tuple(Column(*column) for column in columns.items())
        self._places = places(self._columns)
        self._page, self._max_rows = page, max_rows
        self.kept: list[Values] = []
        self.keep(*rows)

    def keep(self, *rows: Values) -> None:
        """Keep more rows."""
        for row in rows:
            for column, value in zip(self._columns, row, strict=True):
                assert value is None or re.fullmatch(self._FITS[column.type], value), (column, value)
        self.kept += rows

    def _key(self, row: Values) -> tuple[tuple[bool, str], ...]:
        order = (TIME, ID, TYPE, SOURCE, *DIMENSIONS)
        values = (row[self._places[name]] for name in order if name in self._places)
        return tuple((value is None, value or "") for value in values)

    def whole_since(self, day: date, now: datetime) -> str | None:
        return oldest_kept(self.keeps_for, day, now)

    def count(self) -> int:
        self.bill()(100 * len(self.kept), 1_000)
        return len(self.kept)

    def days(self) -> Days | None:
        self.bill()(100 * len(self.kept), 1_000)
        days = [date.fromisoformat(str(row[self._places[TIME]])[:10]) for row in self.kept]
        return Days(min(days), max(days)) if days else None

    def sources(self, day: date) -> dict[str, int]:
        return dict(Counter(str(row[self._places[SOURCE]]) for row in self._of(whole(day))))

    def tally(self, day: date) -> Tally:
        return dict(Counter(minute(str(row[self._places[TIME]])) for row in self._of(whole(day))))

    def columns(self, day: date) -> tuple[Column, ...]:
        return self._columns if self._of(whole(day)) else ()

    def filled(self, day: date, names: Collection[str]) -> set[str]:
        rows = self._of(whole(day))
        return {name for name in names if any(row[self._places[name]] is not None for row in rows)}

    def rows(self, span: Span, columns: tuple[Column, ...]) -> Answer:
        self.asked.append(span)
        for column in columns:
            if column not in self._columns:
                raise StoreError(f"there is no column {column.name} of the type {column.type}")
        at = [self._places[column.name] for column in columns]
        return Answer(columns, self._pages([[row[place] for place in at] for row in self._of(span)]))

    def hours(self, day: date) -> dict[int, Hour]:  # noqa: ARG002 - as a store that does not keep hours
        return {}

    def within(self, hours: range) -> Store:
        raise StoreError(f"the twin does not keep the hours {hours}")

    def erasable(self, day: date, client: str) -> int:  # noqa: ARG002 - as a store that deletes no rows
        return 0

    def erase(self, day: date) -> int:  # noqa: ARG002 - as a store that deletes no rows
        return 0

    def _pages(self, rows: list[Values]) -> Iterator[list[Values]]:
        yield []
        for start in range(0, len(rows), self._page):
            self.pages_read += 1
            if start + self._page > self._max_rows < len(rows):
                raise QuestionTooLargeError(f"an answer has more than {self._max_rows:,} rows")
            yield rows[start : start + self._page]

    def _of(self, span: Span) -> list[Values]:
        time = self._places[TIME]
        rows = sorted((row for row in self.kept if span.start <= str(row[time]) < span.end), key=self._key)
        self.bill()(100 * len(rows), max(100 * len(rows), 1_000))
        return rows


class IngestBucket:
    """A client of S3 over the bucket that meter records are written to.

    Attributes:
        objects: What is stored, by key.
        faults: What the next calls raise, before they do anything; None lets a call through.
        calls: The arguments of each call that came through, without the body.
    """

    def __init__(self, *faults: Exception | None) -> None:
        self.objects: dict[str, bytes] = {}
        self.faults = deque(faults)
        self.calls: list[dict[str, Any]] = []

    def put_object(self, **request: Any) -> dict[str, Any]:
        if self.faults and (fault := self.faults.popleft()):
            raise fault
        self.objects[request["Key"]] = request.pop("Body")
        self.calls.append(request)
        return {}

    def records(self) -> list[Any]:
        """Return the records of all files, each as often as it is in one."""
        return [record for key in sorted(self.objects) for record in json.loads(self.objects[key])]
