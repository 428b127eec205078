"""Jobs in the bucket: written, read, found by the manifests of their days, and deleted."""

from __future__ import annotations

import re
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from consumers.bucket import Downloads, Listed, Objects
from consumers.documents import NewerDocumentError
from exporter.downloads.jobs import (
    TMP,
    Job,
    ZipPlan,
    cursor_key,
    deleted_key,
    job_key,
    plan_key,
    tail_key,
    zip_key,
)
from exporter.lake import manifest as archive
from exporter.lake.formats import Format
from exporter.store import Days

_ID = re.compile(r"[0-9a-f]{32}")
# Files of up to this many days are listed day by day, of more days by the month.
_FEW_DAYS = 7
_LISTINGS_AT_ONCE = 8


class StoredJob(NamedTuple):
    """A job as it was read.

    Attributes:
        job: The job.
        tag: The ETag of its document.
    """

    job: Job
    tag: str


def find_job(objects: Objects, job_id: str) -> StoredJob | None:
    """Return a job by its id, or None if it does not exist or this is not an id.

    Raises:
        NewerDocumentError: If a newer Tagline wrote it in a format that this one does not read.
    """
    found = objects.read(job_key(job_id)) if _ID.fullmatch(job_id) else None
    return None if found is None else StoredJob(Job.from_json(found[0]), found[1])


def read_job(objects: Objects, job_id: str) -> Job | None:
    """Return a job as `find_job` does, without its tag."""
    found = find_job(objects, job_id)
    return None if found is None else found.job


def replace_job(objects: Objects, job: Job, found: StoredJob | None) -> bool:
    """Write a job in place of the one that was found, unless that changed, and tell whether it is written.

    The API and the workers change jobs with this function only: none overwrites what another wrote, and a
    deleted job stays deleted.

    Args:
        objects: The bucket.
        job: The job as it becomes.
        found: The job as it was read; None if it did not exist.
    """
    body = job.to_json().encode()
    if objects.replace(job_key(job.id), body, None if found is None else found.tag):
        return True
    # If the first answer was lost, a client's retry is refused although the first attempt wrote the job.
    return objects.get(job_key(job.id)) == body


def find_files(days: Days, objects: Objects) -> list[Listed]:
    """Return the files that the lake has of a range, in all formats: manifests, parts and others."""
    wanted = {archive.folder(day, kind) for day in days for kind in Format}
    prefixes = sorted(wanted if len(days) <= _FEW_DAYS else {key.partition("day=")[0] for key in wanted})
    with ThreadPoolExecutor(min(_LISTINGS_AT_ONCE, len(prefixes))) as pool:
        listings = pool.map(lambda prefix: list(objects.listed(prefix)), prefixes)
        files = (item for listing in listings for item in listing)
        return [item for item in files if item.key.rpartition("/")[0] + "/" in wanted]


def find_manifests(days: Days, objects: Objects) -> list[Listed]:
    """Return the manifests that the lake has of a range, in all formats, with their ETags."""
    return manifests_of(find_files(days, objects))


def manifests_of(files: Iterable[Listed]) -> list[Listed]:
    """Return the manifests among the files of a range."""
    return [item for item in files if item.key.endswith(f"/{archive.MANIFEST}")]


def abandon_zip(job_id: str, objects: Downloads) -> None:
    """Abort the upload of a job's zip and delete its documents, if a zip has been begun.

    Raises:
        NewerDocumentError: If a newer Tagline wrote its plan in a format that this one does not read.
    """
    if (document := objects.get(plan_key(job_id))) is not None:
        objects.abort(ZipPlan.from_json(document).upload)
    objects.delete([plan_key(job_id), cursor_key(job_id), tail_key(job_id)])


def delete_job(job_id: str, objects: Downloads) -> None:
    """Delete a job, finished or not, and its zip."""
    # First, so that a worker that makes the zip sees that nobody wants it any more. It checks the job once
    # more before it completes the upload, so no zip appears after the last of these.
    objects.delete([job_key(job_id)])
    abandon_zip(job_id, objects)
    objects.delete([zip_key(job_id)])


def delete_jobs_of(client: str, objects: Downloads) -> int:
    """Delete all jobs whose zips may have rows of a client, and return how many there were."""
    keys = list(objects.keys(TMP))
    # A deletion that was killed leaves a zip without a job. The marker of a deletion stays.
    ids = {key.removeprefix(TMP).partition(".")[0]: key for key in keys if not _is_deleted_marker(key)}
    deleted = [each for each in ids if _ID.fullmatch(each) and _may_have(client, each, objects)]
    for each in deleted:
        delete_job(each, objects)
    objects.delete(key for key in keys if "/active/" in key and key.rpartition("/")[2] in deleted)
    return len(deleted)


def _is_deleted_marker(key: str) -> bool:
    return key == deleted_key(key.removeprefix(TMP).partition(".")[0])


def _may_have(client: str, job_id: str, objects: Downloads) -> bool:
    """Tell whether a job's zip may have rows of a client; one whose job is gone or cannot be read may."""
    try:
        job = read_job(objects, job_id)
    except NewerDocumentError:
        return True
    return job is None or job.request.values.get("client", client) == client
