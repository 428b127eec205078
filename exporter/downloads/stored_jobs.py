"""Jobs in the bucket: written, read, found by the manifests of their days, and deleted."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor

from consumers.bucket import Downloads, Listed, Objects
from consumers.documents import NewerDocumentError
from exporter.downloads.jobs import (
    TMP,
    Job,
    ZipPlan,
    cursor_key,
    job_key,
    plan_key,
    tail_key,
    zip_key,
)
from exporter.lake import manifest as archive
from exporter.lake.formats import Format
from exporter.store import Days

_ID = re.compile(r"[0-9a-f]{32}")
# Manifests of up to this many days are listed one by one, of more days by the month.
_FEW_DAYS = 7
_LISTINGS_AT_ONCE = 8


def write_job(objects: Objects, job: Job) -> None:
    """Write a job's document."""
    objects.put(job_key(job.id), [job.to_json().encode()], "application/json")


def read_job(objects: Objects, job_id: str) -> Job | None:
    """Return a job by its id, or None if there is none or this is not an id.

    Raises:
        NewerDocumentError: If a newer Tagline wrote it in a format that this one does not read.
    """
    if not _ID.fullmatch(job_id):
        return None
    document = objects.get(job_key(job_id))
    return None if document is None else Job.from_json(document)


def find_manifests(days: Days, objects: Downloads) -> list[Listed]:
    """Return the manifests that the lake has of a range, in all formats, with their ETags."""
    wanted = {archive.folder(day, kind) + archive.MANIFEST for day in days for kind in Format}
    prefixes = sorted(wanted if len(days) <= _FEW_DAYS else {key.partition("day=")[0] for key in wanted})
    with ThreadPoolExecutor(min(_LISTINGS_AT_ONCE, len(prefixes))) as pool:
        listings = pool.map(lambda prefix: list(objects.listed(prefix)), prefixes)
        return [item for listing in listings for item in listing if item.key in wanted]


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
    # more before it completes the upload, so there is no zip after the last of these.
    objects.delete([job_key(job_id)])
    abandon_zip(job_id, objects)
    objects.delete([zip_key(job_id)])


def delete_jobs_of(client: str, objects: Downloads) -> int:
    """Delete all jobs whose zips may have rows of a client, and return how many there were."""
    ids = (key.removeprefix(TMP).removesuffix(".json") for key in objects.keys(TMP))
    deleted = [each for each in ids if _ID.fullmatch(each) and _may_have(client, each, objects)]
    for each in deleted:
        delete_job(each, objects)
    return len(deleted)


def _may_have(client: str, job_id: str, objects: Downloads) -> bool:
    """Tell whether a job's zip may have rows of a client; a job that cannot be read may."""
    try:
        job = read_job(objects, job_id)
    except NewerDocumentError:
        return True
    return job is not None and job.request.values.get("client", client) == client
