"""A row becomes a Timestream record: its point in time, its size, its wire form.

https://docs.aws.amazon.com/timestream/latest/developerguide/API_Record.html
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

from consumers.table import ID, OVERFLOW, PARTITION, Measure, Row

# "2 KB" for a record, without saying whether 2,000 or 2,048, nor what counts: the stricter reading of both.
# https://docs.aws.amazon.com/timestream/latest/developerguide/ts-limits.html
MAX_RECORD_BYTES = 2_000
# So long that all dimensions and what the table adds by itself fit into a record together.
MAX_DIMENSION_BYTES = 300
SHORTEST_TEXT_BYTES = 16  # a text is cut no further than to half of this

OFFSETS = 1_000_000  # nanoseconds in a millisecond

WireRecord = dict[str, Any]


def offset(record_id: str, attempt: int) -> int:
    """Return the nanoseconds that are added to a record's millisecond, from 0 to 999,999.

    Timestream knows a point by its dimensions, measure name and time, and CloudWatch's time has milliseconds
    only: without an offset, two requests of one millisecond are one point. Derived from the identity, the
    offset is the same for every copy; another attempt gives another place when one is taken.
    """
    digest = hashlib.blake2b(f"{record_id}\0{attempt}".encode("utf-8", "replace"), digest_size=8).digest()
    return int.from_bytes(digest, "big") % OFFSETS


def wire(row: Row, attempt: int) -> WireRecord:
    """Return a row as an item of WriteRecords' `Records`, at the point of its nth attempt."""
    return {
        "Dimensions": [{"Name": name, "Value": value} for name, value in row.dimensions.items()],
        "MeasureName": row.type,
        "MeasureValueType": "MULTI",
        "MeasureValues": [
            {"Name": name, "Type": measure.type, "Value": _text(measure)}
            for name, measure in row.measures.items()
        ],
        "Time": str(row.time * OFFSETS + offset(row.id, attempt)),
        "TimeUnit": "NANOSECONDS",
        "Version": row.version,
    }


def fit(row: Row, overflow_key: str) -> Row:
    """Return the row, or if it is over the size of a record, a shortened one that names the whole record.

    The longest text is cut until the row fits; where no text is left to cut, the last measure is left out.

    Args:
        row: The row.
        overflow_key: Where the whole record is kept; becomes the measure `_overflow`.
    """
    dimensions = {name: _cut(value, MAX_DIMENSION_BYTES) for name, value in row.dimensions.items()}
    if dimensions == row.dimensions and _size(row) <= MAX_RECORD_BYTES:
        return row
    measures = {OVERFLOW: Measure("VARCHAR", overflow_key), **row.measures}
    texts = {
        name: str(measure.value)
        for name, measure in row.measures.items()
        if measure.type == "VARCHAR" and name not in (ID, *PARTITION)
    }
    while True:
        short = replace(row, dimensions=dimensions, measures=measures)
        excess = _size(short) - MAX_RECORD_BYTES
        if excess <= 0:
            return short
        longest = max(texts, key=lambda name: len(texts[name].encode()), default="")
        size = len(texts.get(longest, "").encode())
        if size > SHORTEST_TEXT_BYTES:
            # At most in half: then the next longest is cut as well, and none is lost for all.
            texts[longest] = _cut(texts[longest], max(size - excess, size // 2, 1))
            measures[longest] = Measure("VARCHAR", texts[longest])
        else:
            last, _ = measures.popitem()
            texts.pop(last, None)


def _size(row: Row) -> int:
    return (
        len(row.type)
        + sum(len(name) + len(value.encode()) for name, value in row.dimensions.items())
        + sum(len(name) + len(_text(measure).encode()) for name, measure in row.measures.items())
    )


def _cut(text: str, size: int) -> str:
    """Return the beginning of a text that takes at most `size` bytes in UTF-8."""
    return text.encode()[:size].decode("utf-8", "ignore")


def _text(measure: Measure) -> str:
    value = measure.value
    return str(value).lower() if isinstance(value, bool) else str(value)
