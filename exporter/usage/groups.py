"""Groups of alike records, as `GROUP BY` answers them for records of one type. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any

from consumers.accounts.minutes import NO_STATUS, UNANSWERED
from exporter.store import TIME, TYPE
from exporter.usage.buckets import bucket_sql

FIRST_STATUS, LAST_STATUS = 100, 599
US_PER_MS = 1_000

# The columns that are read. A store may lack any of them but the time.
_TEXTS = ("method", "route", "client")
_STATUS, _ERROR, _DURATION, _BYTES = "status", "error_type", "duration_ms", "bytes"
_UNANSWERED = ("timed_out", "unfinished")
COLUMNS = (TIME, TYPE, *_TEXTS, _STATUS, _ERROR, _DURATION, _BYTES, *_UNANSWERED)


# How many records of one hour are alike:
#   hour         in UTC, as in `2026-11-28 13`
#   method, route, client
#   status       from 100 to 599, or NO_STATUS, or UNANSWERED
#   error_type   the exception's class
#   bucket       of their duration; None for records without one, or with one that is not positive
#   records      how many there are
#   duration_us  the sum of their durations in microseconds
#   longest_us   the longest duration in microseconds
#   bytes        the sum of their answers' sizes
# A plain tuple: there is one for each group of each hour, and a named one takes as long as counting it.
Group = tuple[str, str | None, str | None, str | None, int, str | None, int | None, int, int, int, int]


def question(columns: Collection[str], table: str, condition: str) -> str:
    """Return the SQL that groups a time's records, in the dialect that all stores and DuckDB understand.

    `read_groups` reads the rows of the answer.

    Args:
        columns: The columns that the table has, of `COLUMNS`.
        table: The table, quoted.
        condition: What the records have to fulfil: their time and their type.
    """
    texts = [_quoted(name) if name in columns else "CAST(NULL AS VARCHAR)" for name in (*_TEXTS, _ERROR)]
    status, duration, size = (
        f'"{name}"' if name in columns else "CAST(NULL AS DOUBLE)" for name in (_STATUS, _DURATION, _BYTES)
    )
    unanswered = " OR ".join(f'"{name}"' for name in _UNANSWERED if name in columns) or "false"
    status = (
        f"CASE WHEN {status} IS NULL AND ({unanswered}) THEN {UNANSWERED} "
        f"WHEN {status} >= {FIRST_STATUS} AND {status} < {LAST_STATUS + 1} "
        f"THEN CAST(floor({status}) AS BIGINT) ELSE {NO_STATUS} END"
    )
    microseconds = (
        f"CASE WHEN {duration} > 0 THEN CAST(floor({duration} * {US_PER_MS} + 0.5) AS BIGINT) ELSE 0 END"
    )
    whole_bytes = f"CASE WHEN {size} > 0 THEN CAST(floor({size}) AS BIGINT) ELSE 0 END"
    alike = [
        f"CAST(date_trunc('hour', {TIME}) AS VARCHAR)",
        *texts[:3],
        status,
        texts[3],
        bucket_sql(duration),
    ]
    counted = ["count(*)", f"sum({microseconds})", f"max({microseconds})", f"sum({whole_bytes})"]
    columns_sql, groups_sql = ", ".join([*alike, *counted]), ", ".join(alike)
    return f"SELECT {columns_sql} FROM {table} WHERE {condition} GROUP BY {groups_sql}"  # noqa: S608 - names of ours


def read_groups(rows: Iterable[Sequence[Any]]) -> Iterator[Group]:
    """Yield the groups of an answer to `question`, whose values are text or numbers."""
    for hour, method, route, client, status, error, bucket, records, duration_us, longest_us, size in rows:
        yield (
            str(hour)[:13],
            method or None,
            route or None,
            client or None,
            int(status),
            error or None,
            None if bucket is None else int(bucket),
            int(records),
            int(duration_us),
            int(longest_us),
            int(size),
        )


def _quoted(name: str) -> str:
    return f'"{name}"'
