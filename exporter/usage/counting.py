"""Rows counted a column at a time, in less than half the time that row by row takes. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from consumers.accounts.minutes import NO_STATUS, UNANSWERED
from exporter.store import TYPE
from exporter.usage.buckets import PER_DOUBLING, TOLERANCE
from exporter.usage.groups import COLUMNS, FIRST_STATUS, LAST_STATUS, US_PER_MS
from exporter.usage.rollup import Numbers, Usage, without_collection

# So many rows are counted together.
_CHUNK = 100_000
_COUNT: list[tuple[Any, str]] = [([], "count_all")]
_SUMS: list[tuple[Any, str]] = [("us", "sum"), ("us", "max"), ("bytes", "sum")]
Texts = Sequence[str | None]


def usage_of_rows(columns: Sequence[str], rows: Iterable[Texts], type_: str) -> Usage:
    """Return the usage of the rows of one type; `usage_by_hour` has the arguments."""
    usage = Usage()
    for of_hour in usage_by_hour(columns, rows, type_).values():
        usage.add(of_hour)
    return usage


def usage_by_hour(columns: Sequence[str], rows: Iterable[Texts], type_: str) -> dict[str, Usage]:
    """Return the usage of the rows of one type by hour, as the store or a file of the lake has rows.

    Args:
        columns: The columns' names.
        rows: The rows; None or empty text for a missing value.
        type_: The type of the records that count.
    """
    usage: dict[str, Usage] = {}
    if TYPE not in columns:
        return usage
    kind, found = columns.index(TYPE), iter(rows)
    places = [columns.index(name) if name in columns else None for name in COLUMNS if name != TYPE]
    while chunk := list(islice(found, _CHUNK)):
        with without_collection():
            texts = list(zip(*(row for row in chunk if row[kind] == type_), strict=True))
            if texts:
                missing = (None,) * len(texts[0])
                _count(usage, [missing if place is None else texts[place] for place in places])
    return usage


def _count(usage: dict[str, Usage], texts: Sequence[Texts]) -> None:
    """Add rows: the columns of `COLUMNS` without the type."""
    times, methods, paths, names, statuses, errors, durations, sizes, *unanswered = texts
    hours, hour = _encoded([(time or "")[:13] for time in times])
    all_methods, method = _encoded(methods)
    all_paths, path = _encoded(paths)
    clients, client = _encoded(names)
    all_errors, error = _encoded(errors)
    duration_ms = _numbers(durations)
    is_timed = pc.greater(duration_ms, 0.0)
    duration_ms = pc.if_else(is_timed, duration_ms, 1.0)  # one that has a logarithm
    bucket = pc.ceil(pc.subtract(pc.multiply(pc.log2(duration_ms), float(PER_DOUBLING)), TOLERANCE))
    microseconds = pc.floor(pc.add(pc.multiply(duration_ms, float(US_PER_MS)), 0.5))
    table = pa.table(
        {
            "hour": hour,
            "route": pc.add(pc.multiply(method, len(all_paths)), path),
            "client": client,
            "error": error,
            "status": _statuses(statuses, unanswered),
            "bucket": pc.if_else(is_timed, bucket.cast(pa.int64()), None),
            "us": pc.if_else(is_timed, microseconds.cast(pa.int64()), 0),
            "bytes": pc.floor(pc.max_element_wise(_numbers(sizes), 0.0)).cast(pa.int64()),
        }
    )
    routes = [(first, second) for first in all_methods for second in all_paths]
    of_hour = [usage.setdefault(name or "", Usage()) for name in hours]
    _add(table, "hour", hours, [each.hours for each in of_hour])
    _add(table, "route", routes, [each.routes for each in of_hour])
    _add(table, "client", clients, [each.clients for each in of_hour])
    for at, place, other, count in _grouped(table, ["hour", "route", "client"], _COUNT):
        pairs, pair = of_hour[at].pairs, (routes[place], clients[other])
        pairs[pair] = pairs.get(pair, 0) + count
    if any(all_errors):
        for at, place, other, count in _grouped(table, ["hour", "route", "error"], _COUNT):
            if (name := all_errors[other]) is not None:
                found, key = of_hour[at].errors, (routes[place], name)
                found[key] = found.get(key, 0) + count


def _add(table: pa.Table, key: str, names: Sequence[Any], into: Sequence[dict[Any, Numbers]]) -> None:
    """Add the numbers of each hour by a key.

    Args:
        table: The rows.
        key: The key's column.
        names: The keys by the column's values.
        into: Numbers by key, of each hour.
    """
    known: dict[tuple[int, int], Numbers] = {}
    for at, place, *sums in _grouped(table, ["hour", key], _SUMS):
        numbers = known[at, place] = into[at].setdefault(names[place], Numbers())
        numbers.duration_us += sums[0]
        numbers.longest_us = max(numbers.longest_us, sums[1])
        numbers.bytes += sums[2]
    for at, place, status, count in _grouped(table, ["hour", key, "status"], _COUNT):
        statuses = known[at, place].statuses
        statuses[status] = statuses.get(status, 0) + count
    for at, place, bucket, count in _grouped(table, ["hour", key, "bucket"], _COUNT):
        if bucket is not None:
            buckets = known[at, place].buckets
            buckets[bucket] = buckets.get(bucket, 0) + count


def _grouped(table: pa.Table, keys: list[str], of: list[tuple[Any, str]]) -> Iterator[tuple[Any, ...]]:
    """Yield a row for each group: its keys, and what is computed of it."""
    by = list(dict.fromkeys(keys))
    found = table.group_by(by, use_threads=False).aggregate(of)
    columns = {name: found.column(name).to_pylist() for name in found.column_names}
    computed = [values for name, values in columns.items() if name not in by]
    return zip(*(columns[name] for name in keys), *computed, strict=True)


def _encoded(texts: Texts) -> tuple[list[str | None], pa.Array]:
    """Return the different texts, and the place of each among them. Empty text is the same as None."""
    values = pa.array([text or None for text in texts] if "" in texts else texts, pa.string())
    encoded = values.dictionary_encode(null_encoding="encode")
    return encoded.dictionary.to_pylist(), encoded.indices.cast(pa.int64())


def _statuses(texts: Texts, unanswered: Sequence[Texts]) -> pa.Array:
    """Return statuses of HTTP; `UNANSWERED` or `NO_STATUS` for rows that have none."""
    numbers = _numbers(texts)
    is_status = pc.and_(pc.greater_equal(numbers, FIRST_STATUS), pc.less(numbers, LAST_STATUS + 1))
    found = pc.if_else(is_status, pc.floor(numbers).cast(pa.int64()), NO_STATUS)
    for flags in unanswered:
        if "true" in flags:
            lost = [flag == "true" and not text for flag, text in zip(flags, texts, strict=True)]
            found = pc.if_else(pa.array(lost), UNANSWERED, found)
    return found


def _numbers(texts: Texts) -> pa.Array:
    """Return finite numbers; 0 for anything else, which has no place in sums."""
    try:
        numbers = pa.array(texts, pa.string()).cast(pa.float64())
    except pa.ArrowInvalid:
        numbers = pa.array([_number(text) for text in texts], pa.float64())
    return pc.if_else(pc.fill_null(pc.is_finite(numbers), False), numbers, 0.0)


def _number(text: str | None) -> float | None:
    try:
        return float(text) if text else None
    except ValueError:
        return None
