"""Fragments of the lake store, written by this module's own few lines: what readers are tested with."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, MutableMapping
from datetime import UTC, datetime
from hashlib import blake2b
from io import BytesIO
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from consumers.rows.lake.digest import digest
from consumers.rows.lake.fragments import (
    ALWAYS,
    DIGEST,
    FIELDS,
    NANOSECONDS,
    TIME,
    VERSION,
    Fragment,
    columns,
)
from consumers.rows.table import REVISION, Type

_TYPES = {
    "VARCHAR": pa.string(),
    "BIGINT": pa.int64(),
    "INTEGER": pa.int32(),
    "DOUBLE": pa.float64(),
    "BOOLEAN": pa.bool_(),
    "TIMESTAMP": pa.timestamp("ms", "UTC"),
}


def write_fragments(
    bucket: MutableMapping[str, bytes],
    rows: Iterable[Mapping[str, Any]],
    declared: Mapping[str, Type] | None = None,
    *,
    version: int = REVISION,
) -> list[str]:
    """Write rows as one batch does: a fragment for each hour. Return the keys.

    Args:
        bucket: The bucket.
        rows: Values by column; the time as text, with nine decimals.
        declared: The columns that schemas declare; others are in `fields`.
        version: The rows' version.
    """
    by_hour: dict[int, list[dict[str, Any]]] = defaultdict(list)
    known = columns(declared or {})
    for row in rows:
        second = int(datetime.fromisoformat(row[TIME][:19]).replace(tzinfo=UTC).timestamp())
        below = int(row[TIME][20:])
        values = {name: value for name, value in row.items() if name != TIME and value is not None}
        fields = {name: value for name, value in values.items() if name not in known}
        by_hour[second // 3_600].append(
            {
                **dict.fromkeys(ALWAYS),
                TIME: second * 1_000 + below // 1_000_000,
                NANOSECONDS: below % 1_000_000,
                **{name: value for name, value in values.items() if name in known},
                **({FIELDS: orjson.dumps(fields).decode()} if fields else {}),
                DIGEST: digest({name: value for name, value in values.items() if name != "_id"}),
                VERSION: version,
            }
        )
    return [_write(bucket, hour, of_hour, known) for hour, of_hour in by_hour.items()]


def _write(
    bucket: MutableMapping[str, bytes], hour: int, rows: list[dict[str, Any]], known: Mapping[str, str]
) -> str:
    there = {name for row in rows for name in row}
    table = pa.table(
        {
            name: pa.array([row.get(name) for row in rows], _TYPES[type_])
            for name, type_ in known.items()
            if name in there
        }
    )
    sink = BytesIO()
    pq.write_table(table, sink, compression="zstd")
    seconds = [row[TIME] // 1_000 for row in rows]
    name = blake2b(sink.getvalue(), digest_size=16).hexdigest()
    key = Fragment(hour, min(seconds), max(seconds), len(rows), name).key
    bucket[key] = sink.getvalue()
    return key
