"""Days that rows were written to late: one small object each, which the exporter takes as its orders.

`late/<day>/<batch>.<delivery>`: a batch names the days that it wrote to after the fact; the next export of
those days removes the names that it saw. A batch that is delivered again writes other names: the exporter may
just be removing those of the delivery before, and nothing would tell of rows that only the later one stored.
"""

from __future__ import annotations

import re
from datetime import date

PREFIX = "late/"
# What is left of a day that the exporter could not write, and has given up.
GIVEN_UP = f"{PREFIX}given-up/"
_KEY = re.compile(rf"{PREFIX}(\d{{4}}-\d\d-\d\d)/.+")


def marker_key(day: date, batch: str, delivery: str) -> str:
    """Return the key of the object by which a batch says that it wrote rows of a day late.

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
