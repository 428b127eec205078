"""A download job: what was asked for and how far it is, kept as `tmp/<id>.json` beside its zip."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from datetime import date
from enum import StrEnum

from exporter.bucket import Objects
from exporter.query import Days

_ID = re.compile(r"[0-9a-f]{32}")


class State(StrEnum):
    """How far a job is."""

    QUEUED = "queued"
    RUNNING = "running"
    READY = "ready"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Job:
    """A download.

    Attributes:
        id: 32 hexadecimal digits.
        days: The range that was asked for.
        state: How far it is.
        rows: How many rows the zip has, once it is ready.
        reason: Why it failed.
    """

    id: str
    days: Days
    state: State = State.QUEUED
    rows: int | None = None
    reason: str | None = None

    def becoming(self, state: State, *, rows: int | None = None, reason: str | None = None) -> Job:
        """Return the job in another state."""
        return replace(self, state=state, rows=rows, reason=reason)

    def to_json(self) -> str:
        """Return the job as it is kept and sent."""
        return json.dumps(
            {
                "id": self.id,
                "start_date": self.days.first.isoformat(),
                "end_date": self.days.last.isoformat(),
                "state": self.state,
                "rows": self.rows,
                "reason": self.reason,
            }
        )

    @classmethod
    def from_json(cls, document: str | bytes) -> Job:
        """Return the job that a document says."""
        read = json.loads(document)
        return cls(
            id=read["id"],
            days=Days(date.fromisoformat(read["start_date"]), date.fromisoformat(read["end_date"])),
            state=State(read["state"]),
            rows=read["rows"],
            reason=read["reason"],
        )


def zip_key(job_id: str) -> str:
    """Return where a job's zip is, or will be."""
    return f"tmp/{job_id}.zip"


def write_job(objects: Objects, job: Job) -> None:
    """Keep a job's state."""
    objects.put(f"tmp/{job.id}.json", [job.to_json().encode()], "application/json")


def read_job(objects: Objects, job_id: str) -> Job | None:
    """Return a job by its id, or None if there is none; what is no id is none, too."""
    if not _ID.fullmatch(job_id):
        return None
    document = objects.get(f"tmp/{job_id}.json")
    return None if document is None else Job.from_json(document)
