"""Downloads: the request, the job, its documents under `tmp/`, and their keys. Pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from datetime import date, timedelta
from enum import StrEnum
from typing import Any

from consumers.bucket import Listed, Upload
from consumers.documents import VERSION, known, load, stamped
from exporter.lake import manifest as archive
from exporter.lake.formats import Format, ZipFormat
from exporter.lake.manifest import Manifest, Part
from exporter.store import Days

# Downloads, their documents and what is only needed while one is made: gone after a day.
TMP = "tmp/"
_VERSION = 1
# Version 1 of a plan had each day's columns in its manifest.
_PLAN_VERSION = 2


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


# A job that has not changed for this long is stuck: its message may have been lost with its invocation. The
# API then sends the message again, and a worker takes the job from the worker that has it.
STUCK_AFTER = {State.QUEUED: timedelta(minutes=1), State.RUNNING: timedelta(minutes=5)}


class Cells(StrEnum):
    """How text is written into the cells of CSV files."""

    SAFE = "safe"
    EXACT = "exact"


@dataclass(frozen=True, slots=True)
class Request:
    """A request for a download.

    Attributes:
        days: The range.
        format: The format of the files.
        columns: The columns, in this order; empty for all.
        client: Only rows of this client.
        route: Only rows of this route.
        tenant: The client that the caller is, who may have no other rows. None for callers that may have all.
        cells: Whether text in CSV that a spreadsheet would run is behind an apostrophe.
        allowed: The columns that the caller may have; empty for all.
    """

    days: Days
    format: ZipFormat = ZipFormat.CSV
    columns: tuple[str, ...] = ()
    client: str | None = None
    route: str | None = None
    tenant: str | None = None
    cells: Cells = Cells.SAFE
    allowed: tuple[str, ...] = ()

    @property
    def values(self) -> dict[str, str]:
        """The values that a row must have, by column."""
        wanted = {"client": self.client if self.tenant is None else self.tenant, "route": self.route}
        return {name: value for name, value in wanted.items() if value is not None}

    @property
    def whole(self) -> bool:
        """Whether all rows are wanted, with all columns."""
        return not self.columns and not self.values and not self.allowed

    def can_be_made_of(self, kept_as: Format) -> bool:
        """Return whether files of a format of the lake can be put into the zip, or rewritten for it."""
        return kept_as in self.format.made_of and (self.whole or not kept_as.rules.typed)

    def ending(self, kept_as: Format) -> ZipFormat:
        """Return the format, and ending, of a file in the zip.

        Args:
            kept_as: The format of the lake's file that it is made of.
        """
        return kept_as.rules.unpacked if self.format is ZipFormat.ANY else self.format

    @property
    def filename(self) -> str:
        """The name under which a browser saves the zip."""
        return f"usage_{self.days.first}_{self.days.last}.zip"

    def to_dict(self) -> dict[str, Any]:
        """Return the request as a job's document contains it."""
        return {
            **asdict(self),
            "days": [self.days.first.isoformat(), self.days.last.isoformat()],
            "columns": list(self.columns),
            "allowed": list(self.allowed),
        }

    @classmethod
    def from_dict(cls, read: dict[str, Any]) -> Request:
        """Return the request that a job's document contains."""
        first, last = map(date.fromisoformat, read["days"])
        days, format_ = Days(first, last), ZipFormat(read["format"])
        made = {
            "days": days,
            "format": format_,
            "columns": tuple(read["columns"]),
            "cells": Cells(read.get("cells", Cells.SAFE)),
            "allowed": tuple(read.get("allowed", ())),
        }
        return known(cls, read | made)


@dataclass(frozen=True, slots=True)
class Job:
    """A download.

    Attributes:
        id: 32 hexadecimal digits.
        request: The request.
        state: How far it is.
        changed_at: When the job was last written, in seconds since 1970.
        done_bytes: Bytes of the lake that have been read for it.
        total_bytes: Bytes to read; None until they are known.
        rows: Rows in the finished zip.
        kept_from: When the upload of the finished zip began, in seconds since 1970. S3 counts its age from
            then: https://docs.aws.amazon.com/AmazonS3/latest/userguide/UsingMetadata.html.
        reason: Why it failed: a sentence for the caller.
        incident: What to look for in the worker's log if it failed; None otherwise.
        worker: The worker that makes the zip now; empty if another worker may begin or resume.
        retries: How many times in a row storage failed since the last progress.
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
    incident: str | None = None
    worker: str = ""
    retries: int = 0

    def becoming(self, state: State, **more: Any) -> Job:
        """Return the job in another state, with what else is known then. Without `worker` it has none."""
        known_before = {"rows": None, "kept_from": 0, "reason": None, "incident": None, "worker": ""}
        return replace(self, **{**known_before, **more, "state": state})

    def is_stuck(self, now: float) -> bool:
        """Tell whether the job is unfinished and has not changed for a while.

        Args:
            now: The time in seconds since 1970.
        """
        patience = STUCK_AFTER.get(self.state)
        return patience is not None and now - self.changed_at >= patience.total_seconds()

    def to_json(self) -> str:
        """Return the job's document."""
        return json.dumps(stamped({**asdict(self), "request": self.request.to_dict()}, _VERSION))

    @classmethod
    def from_json(cls, document: str | bytes) -> Job:
        """Return the job of a document.

        Raises:
            NewerDocumentError: If a newer Tagline wrote it in a format that this one does not read.
        """
        read = load(document, _VERSION, "the download's job")
        request, state = Request.from_dict(read["request"]), State(read["state"])
        return known(cls, {**read, "request": request, "state": state})


@dataclass(frozen=True, slots=True)
class ZipPlan:
    """The contents of a zip, and its upload. Written once, before the first byte.

    Attributes:
        upload: The upload.
        begun_at: When it was begun, in seconds since 1970.
        maker: The program that can resume it.
        part_bytes: Bytes of each part of the upload, except the last.
        manifests: The days' manifests when the zip was begun.
    """

    upload: Upload
    begun_at: int
    maker: str
    part_bytes: int
    manifests: tuple[Manifest, ...]

    @property
    def parts(self) -> list[tuple[Manifest, int, Part]]:
        """The lake's files in order, each with its day's manifest and its number in that."""
        return [
            (manifest, number, part)
            for manifest in self.manifests
            for number, part in enumerate(manifest.parts)
        ]

    def to_json(self) -> bytes:
        """Return the plan's document."""
        # Nearly all days have the same columns, and there may be a thousand days of a thousand columns.
        columns = list(dict.fromkeys(manifest.columns for manifest in self.manifests))
        manifests = [
            {
                **json.loads(replace(manifest, columns=()).to_json()),
                "columns": columns.index(manifest.columns),
            }
            for manifest in self.manifests
        ]
        document = {
            "upload": asdict(self.upload),
            "begun_at": self.begun_at,
            "maker": self.maker,
            "part_bytes": self.part_bytes,
            "columns": [archive.columns_to_json(each) for each in columns],
            "manifests": manifests,
        }
        return json.dumps(stamped(document, _PLAN_VERSION)).encode()

    @classmethod
    def from_json(cls, document: bytes) -> ZipPlan:
        """Return the plan of a document.

        Raises:
            NewerDocumentError: If a newer Tagline wrote it in a format that this one does not read.
        """
        read = load(document, _PLAN_VERSION, "the zip's plan")
        columns = [archive.columns_from_json(each) for each in read.get("columns", ())]

        def manifest(of_day: dict[str, Any]) -> Manifest:
            if read.get(VERSION, 1) < _PLAN_VERSION:
                return Manifest.from_json(json.dumps(of_day).encode())
            bare = Manifest.from_json(json.dumps({**of_day, "columns": []}).encode())
            return replace(bare, columns=columns[of_day["columns"]])

        return cls(
            known(Upload, read["upload"]),
            read["begun_at"],
            read["maker"],
            read["part_bytes"],
            tuple(map(manifest, read["manifests"])),
        )


def job_id(request: Request, manifests: Iterable[Listed]) -> str:
    """Return the id of a request: the same for the same request as long as its days' manifests are the same.

    Args:
        request: The request.
        manifests: The manifests of its days. Their ETags change with their content.
    """
    identity = json.dumps(
        [request.to_dict(), sorted((each.key, each.etag) for each in manifests)], sort_keys=True
    )
    return hashlib.sha256(identity.encode()).hexdigest()[:32]


def following_id(job_id: str) -> str:
    """Return the id that a request has instead of one that was deleted: links to that stay without a zip."""
    return hashlib.sha256(job_id.encode()).hexdigest()[:32]


def chosen_manifests(request: Request, there: Iterable[str]) -> list[str]:
    """Return for each day the key of the manifest whose files are used, of the manifests that exist.

    A day that exists only in formats that the request cannot be made of has one of those: it names the format
    in the reason why the zip cannot be made.
    """
    there = set(there)
    kinds = dict.fromkeys((*request.format.made_of, *Format))
    chosen = []
    for day in request.days:
        keys = (archive.folder(day, kind) + archive.MANIFEST for kind in kinds)
        chosen += [key for key in keys if key in there][:1]
    return chosen


def message_of(job: Job) -> str:
    """Return the SQS message for a job: only its id, because a request can exceed SQS's size limit.

    https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/quotas-messages.html
    """
    return json.dumps({"id": job.id})


def id_of_message(message: str) -> str:
    """Return the id of the job that a message is for."""
    return str(json.loads(message)["id"])


def active_prefix(tenant: str | None) -> str:
    """Return how the keys of the markers of a tenant's unfinished jobs begin; None for all other callers."""
    owner = "all" if tenant is None else hashlib.sha256(tenant.encode()).hexdigest()[:32]
    return f"{TMP}active/{owner}/"


def active_key(job: Job) -> str:
    """Return the key of the marker that a job has while it is unfinished."""
    return active_prefix(job.request.tenant) + job.id


def deleted_key(job_id: str) -> str:
    """Return the key of the marker that a job was deleted."""
    return f"{TMP}{job_id}.deleted.json"


def zip_key(job_id: str) -> str:
    """Return the key of a job's zip."""
    return f"{TMP}{job_id}.zip"


def job_key(job_id: str) -> str:
    """Return the key of a job's document."""
    return f"{TMP}{job_id}.json"


def plan_key(job_id: str) -> str:
    """Return the key of the plan of a zip that has been begun."""
    return f"{TMP}{job_id}.plan.json"


def cursor_key(job_id: str) -> str:
    """Return the key of the cursor: how far a zip that has been begun is written."""
    return f"{TMP}{job_id}.cursor.json"


def tail_key(job_id: str) -> str:
    """Return the key of the tail: bytes of a zip that are too few for a part of its upload."""
    return f"{TMP}{job_id}.tail"
