"""Downloads as the API offers them: requested, found, linked and deleted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Protocol

from consumers.bucket import Downloads
from exporter.downloads.jobs import (
    STUCK_AFTER,
    Job,
    Request,
    active_key,
    deleted_key,
    following_id,
    job_id,
    message_of,
    zip_key,
)
from exporter.downloads.limits import DownloadLimits, check_days, check_in_progress
from exporter.downloads.links import Link
from exporter.downloads.stored_jobs import (
    StoredJob,
    delete_job,
    find_files,
    find_job,
    manifests_of,
    read_job,
    replace_job,
)

# The bucket's lifecycle deletes a zip after a day. One that has less than this left is made again.
KEPT_FOR = timedelta(days=1)
NEARLY_GONE = timedelta(hours=2)
# How many times a request is tried if the job changes each time. A caller can ask again.
_TRIES = 5


class Links(Protocol):
    """Makes links: `exporter.downloads.links.Signer`."""

    def link(self, key: str, *, seconds: int, filename: str | None) -> Link:
        """Return a link that is valid for so many seconds or less, with the time when it ends."""


@dataclass(frozen=True)
class DownloadService:
    """Downloads, in the lake's bucket.

    Attributes:
        objects: The lake's bucket, which also holds the zips.
        links: Makes links to them.
        send: Puts a message on the download queue.
        link_seconds: Seconds for which a link is valid.
        now: Gives the time.
        limits: The limits of requests.
    """

    objects: Downloads
    links: Links
    send: Callable[[str], None]
    link_seconds: int
    now: Callable[[], datetime]
    limits: DownloadLimits

    def request(self, request: Request) -> Job:
        """Return the download for a request: the existing one for the same request, or a new one.

        Raises:
            RefusedError: If a new one is not possible, too large, or one too many.
            OSError: If others keep changing the download.
        """
        files = find_files(request.days, self.objects)
        identity = job_id(request, manifests_of(files))
        for _ in range(_TRIES):
            while self.objects.has(deleted_key(identity)):
                identity = following_id(identity)
            found = find_job(self.objects, identity)
            if found is not None and (found.job.state in STUCK_AFTER or self._has_zip(found.job)):
                job = self._resent_if_stuck(found)
            else:
                check_days(request, files, self.objects, self.limits.max_bytes)
                check_in_progress(request, self.objects, self.limits.max_in_progress)
                job = Job(identity, request)
                self.objects.replace(active_key(job), b"{}", None)
                job = self._sent(job, found)
            if job is not None:
                return job
        raise OSError(f"the download {identity} was changed by others {_TRIES} times in a row")

    def look(self, identity: str, tenant: str | None) -> Job | None:
        """Return a download of this tenant by its id, and send its message again if it is stuck."""
        found = self.find(identity, tenant)
        if found is None:
            return None
        return self._resent_if_stuck(found) or read_job(self.objects, identity)

    def delete(self, job: Job) -> None:
        """Delete a download, finished or not. The same request makes one with another id from now on."""
        self.objects.replace(deleted_key(job.id), b"{}", None)
        self.objects.delete([active_key(job)])
        delete_job(job.id, self.objects)

    def find(self, identity: str, tenant: str | None) -> StoredJob | None:
        """Return a download of this tenant by its id."""
        found = find_job(self.objects, identity)
        return found if found is not None and found.job.request.tenant == tenant else None

    def _resent_if_stuck(self, found: StoredJob) -> Job | None:
        """Return a job, and send its message again if it is stuck; None if it changed meanwhile."""
        is_stuck = found.job.is_stuck(self.now().timestamp())
        return self._sent(found.job, found) if is_stuck else found.job

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

    def _sent(self, job: Job, found: StoredJob | None) -> Job | None:
        """Write a job without a worker in place of the one that was found, and send its message.

        Returns:
            The job; None if another changed or deleted it meanwhile, or deleted one with this id.
        """
        job = job.becoming(job.state, changed_at=int(self.now().timestamp()))
        if not replace_job(self.objects, job, found):
            return None
        if found is None and self.objects.has(deleted_key(job.id)):
            # The deletion may not have come to the zip yet: the download gets another id.
            self.objects.delete([active_key(job)])
            delete_job(job.id, self.objects)
            return None
        self.send(message_of(job))
        return job
