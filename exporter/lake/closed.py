"""The boundary between fragments and parts: what people's SQL over the lake store reads from parts.

A day is closed by one replacement of this document, once its parts are committed and before the markers that
asked for its export are removed. Of a day with very many rows, hours are closed one after the other before
that. A reader that takes what is closed from parts and all else from fragments counts each row once, before
and after.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import date, timedelta

from consumers.bucket import Objects
from consumers.documents import load, stamped
from consumers.rows import late_days
from exporter.lake.manifest import STATE
from exporter.store import Days

KEY = f"{STATE}closed.json"
_VERSION = 1
_TRIES = 20


@dataclass(frozen=True, slots=True)
class Closed:
    """What is read from parts.

    Attributes:
        days: Days, as ranges in order, with days between them that are not closed.
        hours: Of other days, how many of the first hours.
    """

    days: tuple[Days, ...] = ()
    hours: Mapping[date, int] = field(default_factory=dict)

    def has(self, day: date) -> bool:
        """Tell whether a whole day is closed."""
        return any(days.first <= day <= days.last for days in self.days)


def closed(objects: Objects) -> Closed:
    """Return what is read from parts."""
    found = objects.get(KEY)
    return Closed() if found is None else _from_json(found)


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

    def change(found: Closed) -> Closed:
        days = found.days if found.has(day) else _joined((*found.days, Days(day, day)))
        return Closed(days, _without(found.hours, day))

    _change(objects, change)


def close_hours(objects: Objects, day: date, hours: int) -> None:
    """Have so many of a day's first hours read from parts from now on.

    Args:
        objects: The lake's bucket.
        day: The day; nothing changes for one that is closed.
        hours: From 1 to 24. Their parts are in the file list of the day.

    Raises:
        OSError: If other runs keep changing the document.
    """

    def change(found: Closed) -> Closed:
        return found if found.has(day) else Closed(found.days, {**found.hours, day: hours})

    _change(objects, change)


def _change(objects: Objects, change: Callable[[Closed], Closed]) -> None:
    for _ in range(_TRIES):
        found = objects.read(KEY)
        before = Closed() if found is None else _from_json(found[0])
        after = change(before)
        if after == before or objects.replace(KEY, _to_json(after), found and found[1]):
            return
    raise OSError(f"{KEY} was changed by others {_TRIES} times in a row")


def _without(hours: Mapping[date, int], day: date) -> dict[date, int]:
    return {each: count for each, count in hours.items() if each != day}


def _joined(ranges: Iterable[Days]) -> tuple[Days, ...]:
    """Return ranges in order, those that touch as one."""
    joined: list[Days] = []
    for days in sorted(ranges, key=lambda days: days.first):
        if joined and joined[-1].last + timedelta(days=1) == days.first:
            joined[-1] = Days(joined[-1].first, days.last)
        else:
            joined.append(days)
    return tuple(joined)


def _to_json(closed: Closed) -> bytes:
    document = {
        "days": [[days.first.isoformat(), days.last.isoformat()] for days in closed.days],
        "hours": {day.isoformat(): hours for day, hours in sorted(closed.hours.items())},
    }
    return json.dumps(stamped(document, _VERSION), indent=1).encode() + b"\n"


def _from_json(document: bytes) -> Closed:
    read = load(document, _VERSION, KEY)
    return Closed(
        tuple(Days(date.fromisoformat(first), date.fromisoformat(last)) for first, last in read["days"]),
        {date.fromisoformat(day): hours for day, hours in read.get("hours", {}).items()},
    )
