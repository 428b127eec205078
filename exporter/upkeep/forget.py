"""The right to erasure: a client's rows leave the lake, in new revisions of the days that hold them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from typing import Any

from consumers.bucket import Objects
from consumers.documents import load, stamped
from consumers.rows.table import OVERFLOW, SAID
from exporter.lake.batch import Batch
from exporter.lake.days import Day
from exporter.lake.forgotten import CLIENT, KEY, Forgotten, clients_of
from exporter.lake.formats import Format
from exporter.lake.manifest import STATE, Manifest
from exporter.lake.overflow import is_whole_record
from exporter.store import Values, places

AUDIT = f"{STATE}audit/"
# The tasks that are about the list of clients to be forgotten, not about days.
LIST, UNDO = LIST_TASKS = "list", "undo"
_AUDIT_VERSION = 1


@dataclass(frozen=True, slots=True)
class Found:
    """What the lake has of a client on a day.

    Attributes:
        day: The day in UTC.
        kind: The files' format.
        revision: The revision that has them.
        rows: How many rows are the client's.
        overflow: The keys of the client's whole records.
    """

    day: date
    kind: Format
    revision: int
    rows: int
    overflow: tuple[str, ...] = ()


def find(client: str, day: Day, now: Callable[[], datetime]) -> Found | None:
    """Return what the lake has of a client on a day, or None if that is nothing.

    Args:
        client: The client.
        day: The day; if the caller has its lock, the lock is renewed.
        now: Gives the time.

    Raises:
        ValueError: If a part is not as its manifest describes it.
        OvertakenError: If another has the lock by now.
    """
    manifest = day.manifest()
    if manifest is None:
        return None
    overflow: list[str] = []
    rows = 0
    for _, theirs in _sorted_out(manifest, client, day):
        day.renew(now())
        rows += len(theirs.rows)
        overflow += _overflow_keys(manifest, theirs)
    return Found(day.date, day.kind, manifest.revision, rows, tuple(overflow)) if rows else None


def remember_to_forget(client: str, objects: Objects, erased: datetime) -> Forgotten:
    """Keep that a client is erased: from now on, no export takes their rows up to that time from the store.

    Args:
        client: The client.
        objects: The lake's bucket.
        erased: The time.
    """
    return _change(objects, lambda forgotten: forgotten.having(client, erased))


def listed(objects: Objects) -> list[dict[str, str | None]]:
    """Return the clients that are to be forgotten: hash, and time of the erasure if known."""
    found = objects.get(KEY)
    clients = {} if found is None else Forgotten.from_json(found).clients
    return [
        {"client_hash": client_hash, "erased": None if at is None else at.isoformat()}
        for client_hash, at in clients.items()
    ]


def undo(client: str, objects: Objects, now: datetime) -> str | None:
    """Take back that a client is to be forgotten: exports take what the store still has of their rows.

    Returns:
        The key of the audit's entry, or None if the client is not among those that are to be forgotten.
    """
    found = objects.get(KEY)
    if found is None or not Forgotten.from_json(found).until(client):
        return None
    forgotten = _change(objects, lambda forgotten: forgotten.without(client))
    client_hash = forgotten.hash_of(client)
    key = f"{AUDIT}{now:%Y-%m-%dT%H-%M-%S}-{client_hash[:8]}-undone.json"
    entry = stamped({"time": now.isoformat(), "client_hash": client_hash, "undone": True}, _AUDIT_VERSION)
    objects.put(key, [json.dumps(entry, indent=1).encode() + b"\n"], "application/json")
    return key


def do_list_task(event: dict[str, Any], objects: Objects, now: datetime) -> dict[str, Any]:
    """Do one of `LIST_TASKS`, and return what the function answers.

    Args:
        event: `{"task": "list"}`, or `{"task": "undo", "client": ...}`.
        objects: The lake's bucket.
        now: The time.
    """
    if event["task"] == LIST:
        return {"clients": listed(objects)}
    return {"audit": undo(event["client"], objects, now)}


def drop_expired(objects: Objects, keeps_for: timedelta | None, now: datetime) -> None:
    """Drop the clients of whom the store can have no row any more.

    Args:
        objects: The lake's bucket.
        keeps_for: How long the store keeps rows; None for ever.
        now: The time.
    """
    if keeps_for is not None and objects.get(KEY) is not None:
        _change(objects, lambda forgotten: forgotten.since(now - keeps_for, now))


def _change(objects: Objects, change: Callable[[Forgotten], Forgotten]) -> Forgotten:
    """Change the list of those to be forgotten by compare-and-swap, and return it."""
    while True:
        found = objects.read(KEY)
        forgotten = Forgotten(os.urandom(32).hex()) if found is None else Forgotten.from_json(found[0])
        changed = change(forgotten)
        if changed == forgotten or objects.replace(KEY, changed.to_json(), found and found[1]):
            return changed


def forget(client: str, found: Found, day: Day, now: Callable[[], datetime]) -> Manifest:
    """Write a day again without a client's rows, and remove these from the bucket at once.

    It is safe to repeat after a crash: whole records are removed while the manifest still leads to them,
    files once the next manifest does not. The caller has the day's lock, and has called `remember_to_forget`.

    Raises:
        ValueError: If a part is not as its manifest describes it.
        OvertakenError: If another has written the day meanwhile.
    """
    known, tag = day.committed()
    assert known is not None
    revision = known.revision + 1
    removed = 0

    def others() -> Iterator[Batch]:
        nonlocal removed
        for batch, theirs in _sorted_out(known, client, day):
            day.renew(now())
            removed += len(theirs.rows)
            if batch.rows:
                yield batch

    made = tuple(day.write(others(), known.columns, revision))
    manifest = replace(known, revision=revision, parts=made, forgotten=known.forgotten + removed)
    day.objects.delete(found.overflow)
    day.end_grace()
    day.commit(manifest, tag, now())
    return manifest


def write_audit(client_hash: str, found: Found | None, objects: Objects, began: datetime) -> str:
    """Store what is forgotten, without whose it was but for a hash, and return the entry's key.

    Args:
        client_hash: The hash.
        found: What was found on a day that is written again: it is added to the entry; None to add nothing.
        objects: The lake's bucket.
        began: When the command began: the same time has the same entry.
    """
    key = f"{AUDIT}{began:%Y-%m-%dT%H-%M-%S}-{client_hash[:8]}.json"
    document = objects.get(key)
    days = [] if document is None else load(document, _AUDIT_VERSION, f"the audit's entry {key}")["days"]
    if found is not None:
        days.append(
            {
                "day": found.day.isoformat(),
                "format": found.kind,
                "rows": found.rows,
                "overflow_objects": len(found.overflow),
                "revision": found.revision + 1,
            }
        )
    # The formats of a day name the same whole records.
    overflow = {day["day"]: 0 for day in days}
    for day in days:
        overflow[day["day"]] = max(overflow[day["day"]], day["overflow_objects"])
    entry = {
        "time": began.isoformat(),
        "client_hash": client_hash,
        "rows": sum(day["rows"] for day in days),
        "overflow_objects": sum(overflow.values()),
        "days": days,
    }
    body = json.dumps(stamped(entry, _AUDIT_VERSION), indent=1).encode() + b"\n"
    objects.put(key, [body], "application/json")
    return key


def _sorted_out(manifest: Manifest, client: str, day: Day) -> Iterator[tuple[Batch, Batch]]:
    """Yield a day's rows in two: the others', and the client's."""
    place, said = (places(manifest.columns).get(name) for name in (CLIENT, SAID))

    def is_theirs(row: Values) -> bool:
        return client in clients_of(
            None if place is None else row[place], None if said is None else row[said]
        )

    for batch in day.rows(manifest):
        theirs: list[Values] = []
        others: list[Values] = []
        for row in batch.rows:
            (theirs if is_theirs(row) else others).append(row)
        yield Batch(others, batch.empties), Batch(theirs)


def _overflow_keys(manifest: Manifest, theirs: Batch) -> Iterator[str]:
    place = places(manifest.columns).get(OVERFLOW)
    if place is not None:
        yield from (key for row in theirs.rows if is_whole_record(key := row[place]))
