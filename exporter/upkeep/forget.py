"""The right to erasure: a client's rows leave the lake, in new revisions of the days that hold them."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from consumers.bucket import Objects
from consumers.documents import load, stamped
from consumers.rows.table import OVERFLOW, SAID
from exporter.lake.batch import Batch
from exporter.lake.days import Day
from exporter.lake.forgotten import CLIENT, clients_of
from exporter.lake.forgotten_list import ForgottenList
from exporter.lake.locks import OvertakenError
from exporter.lake.manifest import STATE, Manifest, Part
from exporter.lake.overflow import is_whole_record
from exporter.lake.progress import Progress
from exporter.store import Values, places

AUDIT = f"{STATE}audit/"
# The tasks that are about the list of clients to be forgotten, not about days.
LIST, UNDO = LIST_TASKS = "list", "undo"
_AUDIT_VERSION = 1


@dataclass(frozen=True, slots=True)
class Found:
    """What the lake has of a client on a day, in the parts that are read so far.

    Attributes:
        tag: The tag of the manifest that names the parts; None if the day has no manifest.
        revision: The manifest's revision.
        read: How many parts are read.
        rows: How many of their rows are the client's.
        whole_records: How many whole records these rows name.
        parts: The places of the parts that have such rows.
        is_done: Whether all parts are read.
    """

    tag: str | None = None
    revision: int = 0
    read: int = 0
    rows: int = 0
    whole_records: int = 0
    parts: tuple[int, ...] = ()
    is_done: bool = False


def find(
    client: str,
    day: Day,
    now: Callable[[], datetime],
    begun: Found | None = None,
    has_time: Callable[[], bool] = lambda: True,
) -> Found:
    """Return what the lake has of a client on a day, as far as there is time to read it.

    Args:
        client: The client.
        day: The day; if the caller has its lock, the lock is renewed.
        now: Gives the time.
        begun: What was found before. A day that was replaced since is read from its beginning.
        has_time: Tells after each part whether there is time for another.

    Raises:
        ValueError: If a part is not as its manifest describes it.
        OvertakenError: If another has the lock by now.
    """
    manifest, tag = day.committed()
    found = Found(tag, manifest.revision if manifest else 0) if begun is None or begun.tag != tag else begun
    parts = manifest.parts if manifest else ()
    for place, part in enumerate(parts[found.read :], found.read):
        assert manifest is not None
        rows = whole_records = 0
        for _, theirs in _sorted_out(manifest, part, client, day):
            day.renew(now())
            rows += len(theirs.rows)
            whole_records += len(list(_overflow_keys(manifest, theirs)))
        found = replace(
            found,
            read=place + 1,
            rows=found.rows + rows,
            whole_records=found.whole_records + whole_records,
            parts=(*found.parts, place) if rows else found.parts,
        )
        if found.read < len(parts) and not has_time():
            return found
    return replace(found, is_done=True)


def listed(clients: ForgottenList) -> list[dict[str, str | None]]:
    """Return the clients that are to be forgotten: hash, and time of the erasure if known."""
    forgotten = clients.read()
    return [
        {"client_hash": client_hash, "erased": None if at is None else at.isoformat()}
        for client_hash, at in (forgotten.clients if forgotten else {}).items()
    ]


def undo(client: str, clients: ForgottenList, now: datetime) -> str | None:
    """Take back that a client is to be forgotten: exports take what the store still has of their rows.

    Returns:
        The key of the audit's entry, or None if the client is not among those that are to be forgotten.
    """
    forgotten = clients.read()
    if forgotten is None or not forgotten.until(client):
        return None
    client_hash = clients.change(lambda forgotten: forgotten.without(client)).hash_of(client)
    key = f"{AUDIT}{now:%Y-%m-%dT%H-%M-%S}-{client_hash[:8]}-undone.json"
    entry = stamped({"time": now.isoformat(), "client_hash": client_hash, "undone": True}, _AUDIT_VERSION)
    clients.objects.put(key, [json.dumps(entry, indent=1).encode() + b"\n"], "application/json")
    return key


def do_list_task(event: dict[str, Any], clients: ForgottenList, now: datetime) -> dict[str, Any]:
    """Do one of `LIST_TASKS`, and return what the function answers.

    Args:
        event: `{"task": "list"}`, or `{"task": "undo", "client": ...}`.
        clients: The clients that are to be forgotten.
        now: The time.
    """
    if event["task"] == LIST:
        return {"clients": listed(clients)}
    return {"audit": undo(event["client"], clients, now)}


def drop_expired(clients: ForgottenList, keeps_for: timedelta | None, now: datetime) -> None:
    """Drop the clients of whom the store can have no row any more.

    Args:
        clients: The clients that are to be forgotten.
        keeps_for: How long the store keeps rows; None for ever.
        now: The time.
    """
    if clients.read() is not None:
        clients.change(
            lambda forgotten: forgotten if keeps_for is None else forgotten.since(now - keeps_for, now)
        )


def forget(
    client: str,
    client_hash: str,
    found: Found,
    day: Day,
    now: Callable[[], datetime],
    *,
    has_time: Callable[[], bool] = lambda: True,
) -> Manifest | None:
    """Write the parts again that have rows of a client, without these, and commit a manifest that names them.

    Files with the client's rows are removed from the bucket at once. It is safe to repeat after a crash:
    whole records are removed while the manifest still leads to them, files once the next manifest does not.
    The caller has the day's lock, and has added the client to the list of forgotten clients.

    Args:
        client: The client.
        client_hash: The client's hash: parts that were written for it before are not written again.
        found: What the day has of the client.
        day: The day.
        now: Gives the time.
        has_time: Tells after each part whether there is time for another.

    Returns:
        The manifest, or None if the time was over before: called again, it resumes.

    Raises:
        ValueError: If a part is not as its manifest describes it.
        OvertakenError: If another has written the day meanwhile.
    """
    known, tag = day.committed()
    if known is None or tag != found.tag:
        raise OvertakenError(f"another run has written {day.date} in {day.kind} since it was searched")
    order, revision = f"forget {client_hash} {tag}", known.revision + 1
    progress, progress_tag = day.progress()
    if progress is None or progress.order != order:
        progress = Progress(order, revision, known.columns)
    progress = replace(progress, attempt=day.attempt)
    for place in found.parts[len(progress.parts) :]:
        part = _write_without(client, known, place, day, now)
        progress = replace(progress, parts=(*progress.parts, part))
        progress_tag = day.write_progress(progress, progress_tag)
        if len(progress.parts) < len(found.parts) and not has_time():
            return None
    written = dict(zip(found.parts, progress.parts, strict=True))
    parts = [written.get(place, part) for place, part in enumerate(known.parts)]
    manifest = replace(
        known,
        revision=revision,
        parts=tuple(part for part in parts if part.rows),
        forgotten=known.forgotten + found.rows,
    )
    day.end_grace()
    day.commit(manifest, tag, now())
    return manifest


def _write_without(client: str, known: Manifest, place: int, day: Day, now: Callable[[], datetime]) -> Part:
    """Write a part again without a client's rows, and remove their whole records.

    Returns:
        The new part; the old one with no rows if all were the client's.
    """
    overflow: list[str] = []

    def others() -> Iterator[Batch]:
        for batch, theirs in _sorted_out(known, known.parts[place], client, day):
            day.renew(now())
            overflow.extend(_overflow_keys(known, theirs))
            if batch.rows:
                yield batch

    # It has fewer rows than the part that it replaces, so it needs not be cut.
    written = list(day.write(others(), known.columns, known.revision + 1, size=sys.maxsize, first=place))
    day.objects.delete(overflow)
    return written[0] if written else replace(known.parts[place], rows=0)


def write_audit(
    client_hash: str,
    objects: Objects,
    began: datetime,
    day: Day | None = None,
    found: Found | None = None,
) -> str:
    """Store what is forgotten, without whose it was but for a hash, and return the entry's key.

    Args:
        client_hash: The hash.
        objects: The lake's bucket.
        began: When the command began: the same time has the same entry.
        day: A day that is written again: it is added to the entry; None to add nothing.
        found: What the day had of the client.
    """
    key = f"{AUDIT}{began:%Y-%m-%dT%H-%M-%S}-{client_hash[:8]}.json"
    document = objects.get(key)
    days = [] if document is None else load(document, _AUDIT_VERSION, f"the audit's entry {key}")["days"]
    if day is not None and found is not None:
        days.append(
            {
                "day": day.date.isoformat(),
                "format": day.kind,
                "rows": found.rows,
                "overflow_objects": found.whole_records,
                "revision": found.revision + 1,
            }
        )
    # The formats of a day name the same whole records.
    overflow = {each["day"]: 0 for each in days}
    for each in days:
        overflow[each["day"]] = max(overflow[each["day"]], each["overflow_objects"])
    entry = {
        "time": began.isoformat(),
        "client_hash": client_hash,
        "rows": sum(each["rows"] for each in days),
        "overflow_objects": sum(overflow.values()),
        "days": days,
    }
    body = json.dumps(stamped(entry, _AUDIT_VERSION), indent=1).encode() + b"\n"
    objects.put(key, [body], "application/json")
    return key


def _sorted_out(manifest: Manifest, part: Part, client: str, day: Day) -> Iterator[tuple[Batch, Batch]]:
    """Yield a part's rows in two: the others', and the client's."""
    place, said = (places(manifest.columns).get(name) for name in (CLIENT, SAID))

    def is_theirs(row: Values) -> bool:
        return client in clients_of(
            None if place is None else row[place], None if said is None else row[said]
        )

    for batch in day.rows(replace(manifest, parts=(part,))):
        theirs: list[Values] = []
        others: list[Values] = []
        for row in batch.rows:
            (theirs if is_theirs(row) else others).append(row)
        yield Batch(others, batch.empties), Batch(theirs)


def _overflow_keys(manifest: Manifest, theirs: Batch) -> Iterator[str]:
    place = places(manifest.columns).get(OVERFLOW)
    if place is not None:
        yield from (key for row in theirs.rows if is_whole_record(key := row[place]))
