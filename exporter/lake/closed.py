"""The boundary between fragments and parts: the days of the lake store that people's SQL reads from parts.

A day is closed by one replacement of this document, once its parts are committed and before the markers that
asked for its export are removed. A reader that takes closed days from parts and all others from fragments
counts each row once, before and after.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import suppress
from datetime import date, timedelta

from consumers.bucket import Objects
from consumers.documents import load, stamped
from consumers.rows import late_days
from exporter.lake.manifest import STATE
from exporter.store import Days

KEY = f"{STATE}closed.json"
_VERSION = 1
_TRIES = 20


def closed_days(objects: Objects) -> tuple[Days, ...]:
    """Return the days that are read from parts: ranges in order, with days between them that are not."""
    found = objects.get(KEY)
    return () if found is None else _from_json(found)


def unfinished_days(objects: Objects) -> set[date]:
    """Return the days whose export was asked for and is not done, or was given up."""
    days: set[date] = set()
    for key in objects.keys(late_days.PREFIX):
        with suppress(ValueError):  # an object that others have put there
            days.add(
                date.fromisoformat(key.removeprefix(late_days.GIVEN_UP))
                if key.startswith(late_days.GIVEN_UP)
                else late_days.marker_day(key)
            )
    return days


def close_day(objects: Objects, day: date) -> None:
    """Have a day read from its parts from now on.

    Args:
        objects: The lake's bucket.
        day: A day that is over, with committed parts.

    Raises:
        OSError: If other runs keep changing the document.
    """
    for _ in range(_TRIES):
        found = objects.read(KEY)
        closed = () if found is None else _from_json(found[0])
        if any(days.first <= day <= days.last for days in closed):
            return
        if objects.replace(KEY, _to_json(_joined((*closed, Days(day, day)))), found and found[1]):
            return
    raise OSError(f"{KEY} was changed by others {_TRIES} times in a row")


def _joined(ranges: Iterable[Days]) -> list[Days]:
    """Return ranges in order, those that touch as one."""
    joined: list[Days] = []
    for days in sorted(ranges, key=lambda days: days.first):
        if joined and joined[-1].last + timedelta(days=1) == days.first:
            joined[-1] = Days(joined[-1].first, days.last)
        else:
            joined.append(days)
    return joined


def _to_json(ranges: Iterable[Days]) -> bytes:
    listed = [[days.first.isoformat(), days.last.isoformat()] for days in ranges]
    return json.dumps(stamped({"days": listed}, _VERSION), indent=1).encode() + b"\n"


def _from_json(document: bytes) -> tuple[Days, ...]:
    listed = load(document, _VERSION, KEY)["days"]
    return tuple(Days(date.fromisoformat(first), date.fromisoformat(last)) for first, last in listed)
