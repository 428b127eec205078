"""Downloads as the API offers them: requested, found, linked and deleted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Protocol

from consumers.bucket import Downloads
from exporter.downloads.jobs import Job, Request, State, job_id, message_of, zip_key
from exporter.downloads.links import Link
from exporter.downloads.stored_jobs import delete_job, find_manifests, read_job, write_job

# The bucket's lifecycle deletes a zip after a day. One that has less than this left is made again.
KEPT_FOR = timedelta(days=1)
NEARLY_GONE = timedelta(hours=2)
# A job that makes no progress for this long is sent again: a message may be lost with its invocation, and an
# extra delivery changes nothing.
SENT_AGAIN_AFTER = {State.QUEUED: timedelta(minutes=1), State.RUNNING: timedelta(minutes=5)}


class Links(Protocol):
    """Makes links: `exporter.downloads.links.Signer`."""

    def link(self, key: str, *, seconds: int, filename: str) -> Link:
        """Return a link that is valid for so many seconds, or for less, as it says."""


@dataclass(frozen=True)
class DownloadService:
    """Downloads, in the lake's bucket.

    Attributes:
        objects: The lake's bucket, which also holds the zips.
        links: Makes links to them.
        send: Puts a message on the download queue.
        link_seconds: Seconds for which a link is valid.
        now: Gives the time.
    """

    objects: Downloads
    links: Links
    send: Callable[[str], None]
    link_seconds: int
    now: Callable[[], datetime]

    def request(self, request: Request) -> Job:
        """Return the download for a request: the existing one for the same request, or a new one."""
        identity = job_id(request, find_manifests(request.days, self.objects))
        job = read_job(self.objects, identity)
        if job is not None and (job.state in SENT_AGAIN_AFTER or self._has_zip(job)):
            return self.resend_if_stuck(job)
        return self._send(Job(identity, request))

    def find(self, identity: str, tenant: str | None) -> Job | None:
        """Return a download by its id, if it belongs to this tenant."""
        job = read_job(self.objects, identity)
        return job if job is not None and job.request.tenant == tenant else None

    def resend_if_stuck(self, job: Job) -> Job:
        """Send a download's message again if the download makes no progress, and return its job."""
        patience = SENT_AGAIN_AFTER.get(job.state)
        changed_at = datetime.fromtimestamp(job.changed_at, UTC)
        return job if patience is None or self.now() - changed_at < patience else self._send(job)

    def delete(self, job: Job) -> None:
        """Delete a download, finished or not."""
        delete_job(job.id, self.objects)

    def link(self, job: Job) -> Link:
        """Return a new link to a download's zip, and its true expiry."""
        return self.links.link(zip_key(job.id), seconds=self._seconds(job), filename=job.request.filename)

    def _seconds(self, job: Job) -> int:
        if not job.state.has_zip:
            return self.link_seconds
        return max(1, min(self.link_seconds, int(self._left(job).total_seconds())))

    def _has_zip(self, job: Job) -> bool:
        """Return whether there is a zip, and it will not be deleted soon."""
        return job.state.has_zip and self._left(job) > NEARLY_GONE and self.objects.has(zip_key(job.id))

    def _left(self, job: Job) -> timedelta:
        """Return how long it takes until a zip is deleted."""
        return datetime.fromtimestamp(job.kept_from, UTC) + KEPT_FOR - self.now()

    def _send(self, job: Job) -> Job:
        job = job.becoming(job.state, changed_at=int(self.now().timestamp()))
        write_job(self.objects, job)
        self.send(message_of(job))
        return job
