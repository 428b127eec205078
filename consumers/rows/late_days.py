"""Days that rows were written to late: one small object each, which the exporter takes as its orders.

`late/<day>/<batch>.<delivery>`: a batch names the days that it wrote to after the fact, and in the object the
minutes; the next export of those days removes the names that it saw. A batch that is delivered again writes
other names: the exporter may just be removing those of the delivery before, and nothing would mark rows
that only the later one stored.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from datetime import date
from typing import Final

from consumers.documents import load, stamped

PREFIX = "late/"
# What is left of a day that the exporter could not write, and has given up.
GIVEN_UP = f"{PREFIX}given-up/"
# A minute in milliseconds; a day has so many minutes.
MINUTE_MS: Final = 60_000
DAY_MINUTES: Final = 24 * 60
_VERSION = 1
_KEY = re.compile(rf"{PREFIX}(\d{{4}}-\d\d-\d\d)/.+")


def marker_key(day: date, batch: str, delivery: str) -> str:
    """Return the key of the object by which a batch marks a day whose rows it wrote late.

    Args:
        day: The rows' day in UTC.
        batch: The name of the batch's first Kinesis record: `quarantine.name`.
        delivery: The request id of the invocation, which no other has.
    """
    return f"{PREFIX}{day.isoformat()}/{batch}.{delivery}"


def marker_day(key: str) -> date:
    """Return the day that a key names.

    Raises:
        ValueError: If it is not a key of `marker_key`'s.
    """
    found = _KEY.fullmatch(key)
    if found is None:
        raise ValueError(f"{key!r} is not a key such as {PREFIX}2026-01-31/BATCH.DELIVERY")
    return date.fromisoformat(found[1])


def marker_body(minutes: Iterable[int]) -> bytes:
    """Return what is in a marker.

    Args:
        minutes: The minutes of its day, from 0 to 1439, of which rows were stored: new rows, and higher
            versions of known ones.
    """
    return json.dumps(stamped({"minutes": sorted(set(minutes))}, _VERSION)).encode()


def marker_minutes(body: bytes) -> frozenset[int] | None:
    """Return the minutes that a marker names; None if it names none, so that the whole day may have changed.

    Args:
        body: What is in it: nothing in the schedule's markers, and in those of earlier releases.
    """
    try:
        minutes = load(body, _VERSION, "the marker")["minutes"]
        if not minutes or not all(type(each) is int and 0 <= each < DAY_MINUTES for each in minutes):
            return None
    except (ValueError, KeyError, TypeError):
        return None
    return frozenset(minutes)
