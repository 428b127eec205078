"""The rows of forgotten clients leave the fragments: those that have some are written again without them."""

from __future__ import annotations

import io
from datetime import date
from hashlib import blake2b

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from consumers.bucket import Objects
from consumers.rows.lake.fragments import TIME, Fragment, day_folder, parse_fragment
from consumers.rows.table import SAID
from exporter.lake.forgotten import CLIENT, Forgotten, clients_of, forgotten_until
from exporter.lake.formats import Format

# Of a millisecond.
_PER_SECOND, _NANOSECONDS = 1_000, 1_000_000


def count_in_fragments(objects: Objects, day: date, client: str) -> int:
    """Return how many rows of a client a day's fragments have, copies counted.

    Args:
        objects: The bucket.
        day: The day in UTC.
        client: The client.
    """
    found = 0
    for key in objects.keys(day_folder(day)):
        table = _table(objects, key, [CLIENT, SAID])
        found += sum(client in clients_of(*names) for names in zip(*_names(table), strict=True))
    return found


def erase_from_fragments(objects: Objects, day: date, forgotten: Forgotten) -> int:
    """Write a day's fragments again without the rows of forgotten clients, and return how many are removed.

    No reader counts these rows any more, and a row that is in the old fragment and the new one counts once.
    So it does not matter where this ends early. It is safe to repeat.

    Args:
        objects: The bucket.
        day: The day in UTC.
        forgotten: The clients.
    """
    until_of = forgotten_until(forgotten)
    removed = 0
    for key in list(objects.keys(day_folder(day))):
        table = _table(objects, key)
        times = pc.multiply(table[TIME].cast(pa.timestamp("ms")).cast(pa.int64()), _NANOSECONDS).to_pylist()
        rows = zip(*_names(table), times, strict=True)
        kept = pa.array([time > until_of(client, said) for client, said, time in rows])
        if all(kept.to_pylist()):
            continue
        others = table.filter(kept)
        removed += table.num_rows - others.num_rows
        if others.num_rows:
            _write(objects, parse_fragment(key), others)
        objects.delete([key])
    return removed


def _table(objects: Objects, key: str, columns: list[str] | None = None) -> pa.Table:
    """Return a fragment's rows, with those of these columns that it has."""
    file = pq.ParquetFile(pa.BufferReader(b"".join(objects.stream(key))))
    there = file.schema_arrow.names
    return file.read(columns and [name for name in columns if name in there], use_threads=False)


def _names(table: pa.Table) -> tuple[list[str | None], list[str | None]]:
    """Return the clients of a fragment's rows, as `clients_of` takes it."""
    said = table[SAID].to_pylist() if SAID in table.column_names else [None] * table.num_rows
    return table[CLIENT].to_pylist(), said


def _write(objects: Objects, fragment: Fragment, rows: pa.Table) -> None:
    """Write what is left of a fragment under a name that follows from the first one's and its size."""
    sink = io.BytesIO()
    pq.write_table(rows, sink, compression="zstd")
    seconds = pc.min_max(pc.divide(rows[TIME].cast(pa.timestamp("ms")).cast(pa.int64()), _PER_SECOND)).as_py()
    name = blake2b(f"{fragment.hash} {rows.num_rows}".encode(), digest_size=16)
    left = Fragment(fragment.hour, seconds["min"], seconds["max"], rows.num_rows, name.hexdigest())
    objects.put(left.key, [sink.getvalue()], Format.PARQUET.rules.content_type)
