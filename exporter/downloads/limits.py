"""What the download API refuses at once: days in the archive, and requests that are too large or too many."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import date, timedelta
from http import HTTPStatus
from typing import NamedTuple

from consumers.bucket import Listed, Objects
from consumers.errors import TaglineError
from exporter.downloads.jobs import STUCK_AFTER, Request, active_prefix, chosen_manifests
from exporter.downloads.stored_jobs import read_job
from exporter.lake.formats import ZipFormat, format_of_folder
from exporter.lake.manifest import MANIFEST, Manifest

# How long a caller is to wait before the next request, in seconds.
LOOK_AFTER_S = 1
ASK_AFTER_S = 30
# Ranges of days that a message names; the answer's `days` has all of them.
_SHOWN_RANGES = 5


class DownloadLimits(NamedTuple):
    """The limits of requests.

    Attributes:
        max_bytes: How large the files of a request's days may be together, as the lake keeps them.
        max_in_progress: How many downloads of one tenant may be in progress.
    """

    max_bytes: int
    max_in_progress: int


class RefusedError(TaglineError):
    """A request that is refused at once; the message has the reason and the limit.

    Args:
        status: The status of the answer.
        message: Why, with the value and the limit, and what to do.
        retry_after_s: When to ask again, in seconds; None if that does not help.
        days: The days that it is about.
    """

    def __init__(
        self,
        status: HTTPStatus,
        message: str,
        *,
        retry_after_s: int | None = None,
        days: Sequence[date] = (),
    ) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after_s = retry_after_s
        self.days = days


def check_days(request: Request, files: Iterable[Listed], objects: Objects, max_bytes: int) -> None:
    """Make sure that a request's days can be read, and are not too large together.

    Args:
        request: The request.
        files: The files that the lake has of these days.
        objects: The lake's bucket.
        max_bytes: How large they may be together.

    Raises:
        RefusedError: If days are in the archive or in a format that does not serve, or the files are larger.
    """
    by_folder: defaultdict[str, list[Listed]] = defaultdict(list)
    for file in files:
        by_folder[file.key.rpartition("/")[0] + "/"].append(file)
    manifests = chosen_manifests(request, (file.key for each in by_folder.values() for file in each))
    chosen = {key: by_folder[key.removesuffix(MANIFEST)] for key in manifests}
    unfit = {key for key in manifests if not request.can_be_made_of(format_of_folder(key))}
    is_large = sum(file.size for each in chosen.values() for file in each) > max_bytes
    size, archived, unmakeable = 0, [], []
    for key, of_day in chosen.items():
        # A folder may also have files that no manifest names any more. So manifests are read only in doubt.
        if not is_large and key not in unfit and not any(file.is_archived for file in of_day):
            continue
        manifest = _manifest(objects, key)
        if manifest is None:
            continue  # the worker reports what is wrong with it
        named = {part.key for part in manifest.parts}
        if named and key in unfit:
            unmakeable.append(manifest.day)
        if any(file.is_archived for file in of_day if file.key in named):
            archived.append(manifest.day)
        size += manifest.size
    if archived:
        raise RefusedError(
            HTTPStatus.CONFLICT,
            f"in the archive are {ranges(archived)}: restore these days, or ask for others",
            days=archived,
        )
    if unmakeable:
        asked_for = request.format if request.whole else f"{request.format} with a selection"
        raise RefusedError(
            HTTPStatus.CONFLICT,
            f"{ranges(unmakeable)} cannot be downloaded as {asked_for}: the lake has these days in other"
            f" formats; ask for others, or for format {ZipFormat.ANY} without columns, client and route",
            days=unmakeable,
        )
    if size > max_bytes:
        # How much there is of others is not a tenant's to know.
        found = "" if request.tenant is not None else f"the lake's files of these days have {size} bytes: "
        raise RefusedError(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            f"{found}a request may be for at most {max_bytes} bytes of the lake; ask for fewer days",
        )


def check_in_progress(request: Request, objects: Objects, most: int) -> None:
    """Make sure that a request's tenant has not too many downloads in progress.

    Requests at the same moment may be one more each.

    Raises:
        RefusedError: If there are as many as there may be.
    """
    prefix = active_prefix(request.tenant)
    keys = list(objects.keys(prefix))
    if len(keys) < most:
        return
    ended = []
    for key in keys:
        job = read_job(objects, key.removeprefix(prefix))
        if job is None or job.state not in STUCK_AFTER:
            ended.append(key)
    objects.delete(ended)
    if len(keys) - len(ended) >= most:
        raise RefusedError(
            HTTPStatus.TOO_MANY_REQUESTS,
            f"{len(keys) - len(ended)} downloads are in progress, and at most {most} may be: wait for one,"
            " or delete one",
            retry_after_s=ASK_AFTER_S,
        )


def ranges(days: Sequence[date]) -> str:
    """Return days in words, those that follow each other as a range."""
    runs: list[list[date]] = []
    for day in sorted(days):
        if runs and day - runs[-1][-1] == timedelta(days=1):
            runs[-1].append(day)
        else:
            runs.append([day])
    shown = [f"{run[0]} to {run[-1]}" if len(run) > 1 else f"{run[0]}" for run in runs[:_SHOWN_RANGES]]
    rest = sum(map(len, runs[_SHOWN_RANGES:]))
    return ", ".join([*shown, *([f"and {rest} more days"] if rest else [])])


def _manifest(objects: Objects, key: str) -> Manifest | None:
    document = objects.get(key)
    try:
        return None if document is None else Manifest.from_json(document)
    except (ValueError, KeyError, TypeError):
        return None
