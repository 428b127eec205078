"""A download: what was asked for and how far it is, kept as `tmp/<id>.json` beside its zip. Pure."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from datetime import date
from enum import StrEnum
from typing import Any

from consumers.bucket import Downloads, Listed, Objects, Upload
from exporter.lake import manifest as archive
from exporter.lake.manifest import Manifest, Part
from exporter.store import Days

_ID = re.compile(r"[0-9a-f]{32}")
_TMP = "tmp/"

# Up to so many days are looked for one by one, more by their months.
_FEW_DAYS = 7
_LISTINGS_AT_ONCE = 8


class State(StrEnum):
    """How far a job is."""

    QUEUED = "queued"
    RUNNING = "running"
    READY = "ready"
    EMPTY = "empty"
    FAILED = "failed"

    @property
    def has_zip(self) -> bool:
        """Whether the zip can be fetched; that of an empty range holds only a manifest."""
        return self in (State.READY, State.EMPTY)


class Format(StrEnum):
    """What the files in a zip are."""

    CSV = "csv"
    JSONL = "jsonl"
    PARQUET = "parquet"


# Which of the lake's formats the files can be made of, the quickest first.
KEPT_AS = {
    Format.CSV: ("csv.gz", "csv"),
    Format.JSONL: ("jsonl.gz", "csv.gz", "csv"),
    Format.PARQUET: ("parquet",),
}
_KINDS = tuple(dict.fromkeys(kind for kinds in KEPT_AS.values() for kind in kinds))


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked for.

    Attributes:
        days: The range.
        format: What the files are to be.
        columns: The columns, in their order; none for all that there are.
        client: Only rows of this client.
        route: Only rows of this route.
        tenant: The client that the caller is; other rows are not for them. None for callers that may see all.
    """

    days: Days
    format: Format = Format.CSV
    columns: tuple[str, ...] = ()
    client: str | None = None
    route: str | None = None
    tenant: str | None = None

    @property
    def values(self) -> dict[str, str]:
        """What a row has to have, by column."""
        wanted = {"client": self.client if self.tenant is None else self.tenant, "route": self.route}
        return {name: value for name, value in wanted.items() if value is not None}

    @property
    def whole(self) -> bool:
        """Whether all rows are wanted, with all columns."""
        return not self.columns and not self.values

    @property
    def filename(self) -> str:
        """What a browser calls the zip."""
        return f"usage_{self.days.first}_{self.days.last}.zip"

    def to_dict(self) -> dict[str, Any]:
        """Return the request as it is kept."""
        return {
            **asdict(self),
            "days": [self.days.first.isoformat(), self.days.last.isoformat()],
            "columns": list(self.columns),
        }

    @classmethod
    def from_dict(cls, read: dict[str, Any]) -> Request:
        """Return the request that was kept."""
        first, last = map(date.fromisoformat, read["days"])
        return cls(
            **{
                **read,
                "days": Days(first, last),
                "format": Format(read["format"]),
                "columns": tuple(read["columns"]),
            }
        )


@dataclass(frozen=True, slots=True)
class Job:
    """A download.

    Attributes:
        id: 32 hexadecimal digits.
        request: What was asked for.
        state: How far it is.
        changed_at: When that was written, in seconds since 1970.
        done_bytes: How much of the lake has been read for it.
        total_bytes: How much there is to read, once that is known.
        rows: How many rows the zip has, once it is there.
        kept_from: When its upload was begun, once it is there, in seconds since 1970: S3 counts its days from
            then, https://docs.aws.amazon.com/AmazonS3/latest/userguide/UsingMetadata.html.
        reason: Why it failed.
    """

    id: str
    request: Request
    state: State = State.QUEUED
    changed_at: int = 0
    done_bytes: int = 0
    total_bytes: int | None = None
    rows: int | None = None
    kept_from: int = 0
    reason: str | None = None

    def becoming(self, state: State, **more: Any) -> Job:
        """Return the job in another state, and what else is known of it by then."""
        return replace(self, **{"rows": None, "kept_from": 0, "reason": None, **more, "state": state})

    def to_json(self) -> str:
        """Return the job as it is kept and sent."""
        return json.dumps({**asdict(self), "request": self.request.to_dict()})

    @classmethod
    def from_json(cls, document: str | bytes) -> Job:
        """Return the job that a document says."""
        read = json.loads(document)
        return cls(**{**read, "request": Request.from_dict(read["request"]), "state": State(read["state"])})


@dataclass(frozen=True, slots=True)
class Plan:
    """What a zip holds, and where it is being written. Written down once, before the first byte.

    Attributes:
        upload: The upload.
        begun_at: When it was begun, in seconds since 1970.
        maker: Which program can go on with it.
        part_bytes: How large each part of the upload is, but the last.
        manifests: What the lake had of the days when the zip was begun.
    """

    upload: Upload
    begun_at: int
    maker: str
    part_bytes: int
    manifests: tuple[Manifest, ...]

    @property
    def parts(self) -> list[tuple[Manifest, int, Part]]:
        """The files of the lake in their order, each with its day's manifest and its number in it."""
        return [
            (manifest, number, part)
            for manifest in self.manifests
            for number, part in enumerate(manifest.parts)
        ]

    def to_json(self) -> bytes:
        """Return the plan as it is kept."""
        document = {
            "upload": asdict(self.upload),
            "begun_at": self.begun_at,
            "maker": self.maker,
            "part_bytes": self.part_bytes,
            "manifests": [json.loads(manifest.to_json()) for manifest in self.manifests],
        }
        return json.dumps(document).encode()

    @classmethod
    def from_json(cls, document: bytes) -> Plan:
        """Return the plan that a document says."""
        read = json.loads(document)
        return cls(
            Upload(**read["upload"]),
            read["begun_at"],
            read["maker"],
            read["part_bytes"],
            tuple(Manifest.from_json(json.dumps(each).encode()) for each in read["manifests"]),
        )


def job_id(request: Request, manifests: Iterable[Listed]) -> str:
    """Return the id of a request: the same for the same request, while the days' manifests are the same.

    Args:
        request: What is asked for, and by whom.
        manifests: The manifests of its days. What S3 calls their ETag changes with their content.
    """
    said = json.dumps(
        [request.to_dict(), sorted((each.key, each.etag) for each in manifests)], sort_keys=True
    )
    return hashlib.sha256(said.encode()).hexdigest()[:32]


def manifests_of(days: Days, objects: Downloads) -> list[Listed]:
    """Return which manifests the lake has of a range, in all formats, and what changes with their content."""
    wanted = {archive.folder(day, kind) + archive.MANIFEST for day in days for kind in _KINDS}
    prefixes = sorted(wanted if len(days) <= _FEW_DAYS else {key.partition("day=")[0] for key in wanted})
    with ThreadPoolExecutor(min(_LISTINGS_AT_ONCE, len(prefixes))) as pool:
        listings = pool.map(lambda prefix: list(objects.listed(prefix)), prefixes)
        return [item for listing in listings for item in listing if item.key in wanted]


def chosen_manifests(request: Request, there: Iterable[str]) -> list[str]:
    """Return the key of the manifest that each day's files are to be taken from, of those that are there.

    A day that is there in other formats only has one of those: it can then be said what it is kept as.
    """
    there = set(there)
    kinds = dict.fromkeys((*KEPT_AS[request.format], *_KINDS))
    chosen = []
    for day in request.days:
        keys = (archive.folder(day, kind) + archive.MANIFEST for kind in kinds)
        chosen += [key for key in keys if key in there][:1]
    return chosen


def message_of(job: Job) -> str:
    """Return what is sent to have a job worked off: its id. A message is short, and a request need not be.

    https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/quotas-messages.html
    """
    return json.dumps({"id": job.id})


def asked_id(message: str) -> str:
    """Return the id of the job that a message asks for."""
    return str(json.loads(message)["id"])


def zip_key(job_id: str) -> str:
    """Return where a job's zip is, or will be."""
    return f"{_TMP}{job_id}.zip"


def job_key(job_id: str) -> str:
    """Return where a job's state is kept."""
    return f"{_TMP}{job_id}.json"


def plan_key(job_id: str) -> str:
    """Return where it is kept what a zip that has been begun will hold."""
    return f"{_TMP}{job_id}.plan.json"


def cursor_key(job_id: str) -> str:
    """Return where it is kept how far a zip that has been begun is written."""
    return f"{_TMP}{job_id}.cursor.json"


def tail_key(job_id: str) -> str:
    """Return where it is kept what was made and is too short to be a part of an upload."""
    return f"{_TMP}{job_id}.tail"


def write_job(objects: Objects, job: Job) -> None:
    """Keep a job's state."""
    objects.put(job_key(job.id), [job.to_json().encode()], "application/json")


def read_job(objects: Objects, job_id: str) -> Job | None:
    """Return a job by its id, or None if there is none; what is no id is none, too."""
    if not _ID.fullmatch(job_id):
        return None
    document = objects.get(job_key(job_id))
    return None if document is None else Job.from_json(document)


def discard(job_id: str, objects: Downloads) -> None:
    """Give up what has been begun of a job's zip, if anything has."""
    if (document := objects.get(plan_key(job_id))) is not None:
        objects.abort(Plan.from_json(document).upload)
    objects.delete([plan_key(job_id), cursor_key(job_id), tail_key(job_id)])


def drop(job_id: str, objects: Downloads) -> None:
    """Delete a job, finished or not, and its zip."""
    # First, so that a worker that is at it finds that nobody wants it any more. It looks once more before it
    # completes the upload, so there is no zip of it after the last of these.
    objects.delete([job_key(job_id)])
    discard(job_id, objects)
    objects.delete([zip_key(job_id)])


def drop_all_of(client: str, objects: Downloads) -> int:
    """Delete all jobs whose zips may have rows of a client, and return how many these were."""
    ids = [
        key.removeprefix(_TMP).removesuffix(".json")
        for key in objects.keys(_TMP)
        if _ID.fullmatch(key.removeprefix(_TMP).removesuffix(".json"))
    ]
    jobs = [job for job in (read_job(objects, each) for each in ids) if job is not None]
    dropped = [job.id for job in jobs if job.request.values.get("client", client) == client]
    for each in dropped:
        drop(each, objects)
    return len(dropped)
