"""What the commands about the lake do: export a range with progress, verify days, forget a client."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from typing import Any

from botocore.exceptions import ClientError
from rich.progress import Progress

from cli.errors import CommandError
from cli.target import Target
from consumers.bucket import Bucket
from exporter.downloads.stored_jobs import delete_jobs_of
from exporter.lake.days import Day, kept_formats
from exporter.lake.formats import Format
from exporter.store import Days, StoreError
from exporter.upkeep import forget
from exporter.upkeep.forget import Found
from exporter.upkeep.verify import verify_day


@dataclass(frozen=True, slots=True)
class Verified:
    """What was found of a day.

    Attributes:
        day: The day.
        kind: The files' format.
        rows: How many rows the lake has; None if it was never exported.
        problems: What is wrong, in sentences.
    """

    day: date
    kind: Format
    rows: int | None
    problems: tuple[str, ...]


def kinds_of(objects: Bucket, days: Days) -> list[Format]:
    """Return the formats that the lake has a day of the range in; the first one for none."""
    found = [kind for kind in Format if any(Day(objects, day, kind).manifest() for day in days)]
    return found or [Format.CSV_GZ]


def export_days(target: Target, days: Days, bars: Progress) -> Iterator[dict[str, Any]]:
    """Export days one by one, resuming each until it is done, and yield the result of each invocation."""
    bar = bars.add_task("days", total=len(days))
    for day in days:
        event: dict[str, Any] | None = {"day": day.isoformat(), "wait": True}
        while event is not None:
            answer = target.invoke("DailyExporterName", event)
            yield from answer["days"]
            event = answer.get("continues")
        bars.advance(bar)


def verify_days(target: Target, days: Days, bars: Progress) -> Iterator[Verified]:
    """Read the days again, and hold them against their manifests and what the store still has."""
    objects = target.bucket()
    store = target.store()
    kinds = kinds_of(objects, days)
    bar = bars.add_task("days", total=len(days) * len(kinds))
    for day in days:
        for kind in kinds:
            lake_day = Day(objects, day, kind)
            manifest = lake_day.manifest()
            try:
                problems = tuple(verify_day(lake_day, target.now(), store))
            except (ClientError, StoreError) as error:  # in the archive, for instance
                problems = (f"it cannot be read: {error}",)
            yield Verified(day, kind, manifest.rows if manifest else None, problems)
            bars.advance(bar)


def find_client(target: Target, client: str, days: Days, bars: Progress) -> Iterator[Found]:
    """Look for a client's rows in the lake.

    Raises:
        CommandError: If a day cannot be read.
    """
    objects = target.bucket()
    kinds = kinds_of(objects, days)
    bar = bars.add_task("days looked through", total=len(days) * len(kinds))
    for day in days:
        for kind in kinds:
            found = _found(client, Day(objects, day, kind))
            if found is not None:
                yield found
            bars.advance(bar)


def _found(client: str, day: Day) -> Found | None:
    try:
        return forget.find(client, day)
    except (ValueError, ClientError) as error:
        raise CommandError(
            f"cannot read {day.date}: {error}", f"see what is wrong: tagline verify --from {day.date}"
        ) from error


def erase_client(target: Target, client: str, days: Days, bars: Progress) -> tuple[list[Found], str]:
    """Remove a client's rows, and return what was found of each day, and the key of the audit entry.

    Each day is looked at, in each format and under its lock, also where nothing was found: it may have files
    that no manifest names, of an export or an erasure that did not come to its end.

    Downloads that may have rows of the client go with them, also those of other days.

    Raises:
        CommandError: If a day cannot be read, or is being written by another.
    """
    objects = target.bucket()
    run, began = uuid.uuid4().hex, target.now()
    client_hash = forget.remember_to_forget(client, objects, lambda: os.urandom(32).hex()).hash_of(client)
    kinds = kept_formats(objects)
    bar = bars.add_task("days cleared of it", total=len(days) * len(kinds))
    done: list[Found] = []
    try:
        for date_ in days:
            for kind in kinds:
                day = Day(objects, date_, kind)
                if not day.take(run, target.now()):
                    raise CommandError(
                        f"{date_} is being written at this moment", "try again in a quarter of an hour"
                    )
                try:
                    if (found := _found(client, day)) is None:
                        day.clear(target.now())
                    else:
                        # Said before it is done: who is killed in between leaves it said twice, not never.
                        forget.write_audit(client_hash, [*done, found], objects, began)
                        forget.forget(client, found, day, target.now)
                        done.append(found)
                finally:
                    day.release()
                bars.advance(bar)
    finally:
        # After the days: what is asked for from now on is made of what they have now.
        delete_jobs_of(client, objects)
        key = forget.write_audit(client_hash, done, objects, began)
    return done, key
