"""In-memory twins of what is at the edges: they keep what they are given, and fail when they are told to."""

import hashlib
import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from botocore.exceptions import ClientError

from exporter.bucket import Link, Listed, PartOfUpload, Upload, UploadGoneError
from exporter.query import Answer, Column, Days, Values

Point = tuple[Any, ...]


class Objects(dict[str, bytes]):
    """A bucket: `consumers.quarantine.Objects`, with what fails given by the beginning of a key."""

    def __init__(self, *, failing: str | None = None) -> None:
        super().__init__()
        self.failing = failing

    def put(self, key: str, body: bytes) -> None:
        if self.failing is not None and key.startswith(self.failing):
            raise OSError(f"cannot write {key}")
        self[key] = body

    def quarantined(self) -> Iterator[dict[str, Any]]:
        for key in sorted(self):
            if key.startswith("quarantine/"):
                yield from map(json.loads, self[key].decode().splitlines())


class TimestreamWrite:
    """A client of timestream-write over one table in memory: identity, versions, rejections, faults.

    Attributes:
        points: What is stored: the record by its dimensions, measure name and time.
        faults: What the next calls raise, before they do anything; None lets a call through.
        requests: The records of each call that came through.
    """

    def __init__(self, *faults: Exception | None) -> None:
        self.points: dict[Point, dict[str, Any]] = {}
        self.faults = deque(faults)
        self.requests: list[list[dict[str, Any]]] = []
        self.refusing: dict[str, str] = {}

    def write_records(self, **request: Any) -> dict[str, Any]:
        records = request["Records"]
        assert (request["DatabaseName"], request["TableName"]) == ("tagline", "records")
        assert 1 <= len(records) <= 100
        if self.faults and (fault := self.faults.popleft()):
            raise fault
        self.requests.append(records)
        rejected = []
        for index, record in enumerate(records):
            if reason := self._refusal(record):
                rejected.append({"RecordIndex": index, "Reason": reason})
        if rejected:
            raise client_error("RejectedRecordsException", 419, RejectedRecords=rejected)
        return {"RecordsIngested": {"Total": len(records)}}

    def _refusal(self, record: dict[str, Any]) -> str | None:
        identity = measure(record, "_id")
        if identity in self.refusing:
            return self.refusing[identity]
        point = (
            record["MeasureName"],
            record["Time"],
            *sorted((dimension["Name"], dimension["Value"]) for dimension in record["Dimensions"]),
        )
        if self.points.setdefault(point, record) != record:
            return (
                "A record already exists with the same time, dimensions, measure name, and record version. "
                "A higher record version must be specified in order to update the measure value."
            )
        return None

    def ids(self) -> list[str]:
        """Return the identities of all rows, sorted, one for each row."""
        return sorted(measure(record, "_id") for record in self.points.values())


def measure(record: dict[str, Any], name: str) -> str:
    """Return the text of a measure in a record of WriteRecords."""
    return str(next(item["Value"] for item in record["MeasureValues"] if item["Name"] == name))


def client_error(code: str, status: int = 400, **more: Any) -> ClientError:
    """Return the exception that botocore raises for a service's error."""
    return ClientError(
        {
            "Error": {"Code": code, "Message": f"the message of {code}"},
            "ResponseMetadata": {"HTTPStatusCode": status},
            **more,
        },
        "WriteRecords",
    )


class Bucket(dict[str, bytes]):
    """A bucket: `exporter.bucket.Downloads`. What was written is in it by key.

    Attributes:
        uploads: The parts of the uploads that are neither complete nor aborted, by their numbers.
        metadata: What completed uploads say of themselves, by key.
        calls: How many parts have been uploaded.
    """

    def __init__(self, content: Mapping[str, bytes] | None = None) -> None:
        super().__init__(content or {})
        self.uploads: dict[str, dict[int, bytes]] = {}
        self.metadata: dict[str, dict[str, str]] = {}
        self.begun: dict[str, dict[str, str]] = {}
        self.calls = 0

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
        return iter([Listed(key, etag(self[key])) for key in self if key.startswith(prefix)])

    def has(self, key: str) -> bool:
        return key in self

    def delete(self, keys: Iterable[str]) -> None:
        for key in list(keys):
            self.pop(key, None)

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


def etag(body: bytes | bytearray) -> str:
    """Return what S3 calls a content that was put in one piece."""
    return hashlib.md5(body, usedforsecurity=False).hexdigest()


class Links:
    """Makes links that name their arguments: `exporter.downloads.Links`."""

    def __init__(self, now: Callable[[], datetime]) -> None:
        self._now = now

    def link(self, key: str, *, seconds: int, filename: str) -> Link:
        url = f"https://bucket/{key}?seconds={seconds}&filename={filename}"
        return Link(url, self._now() + timedelta(seconds=seconds))


class Rows:
    """A store: `exporter.query.Store` over rows in memory.

    Attributes:
        columns: Names by type, in an order that is the store's own.
        rows: Values in that order; the first is the time.
    """

    def __init__(self, columns: dict[str, str], rows: list[Values]) -> None:
        self.columns = columns
        self.rows_ = rows

    def count(self, days: Days) -> int:
        return len(self._of(days))

    def rows(self, days: Days) -> Answer:
        return Answer(tuple(Column(*column) for column in self.columns.items()), iter(self._of(days)))

    def _of(self, days: Days) -> list[Values]:
        wanted = {day.isoformat() for day in days}
        return sorted((row for row in self.rows_ if str(row[0])[:10] in wanted), key=str)
