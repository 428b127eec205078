"""Which rows count, of those in several fragments or in a committed day as well, and their order. Pure.

docs/reference/lake-store.md explains why that counts every row exactly once.
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from consumers.rows.lake.fragments import DIGEST, VERSION
from consumers.rows.table import DIMENSIONS, ID, SOURCE
from exporter.store import TYPE

# A row's time in nanoseconds since 1970.
MOMENT = "_moment"
# What all copies of a row have in common, in the order of the asking port.
IDENTITY = (MOMENT, ID, TYPE, SOURCE, *DIMENSIONS)


def without_copies(rows: pa.Table) -> pa.Array:
    """Return the places of the rows of fragments that count, in the port's order.

    Of the rows of one identity, those of the highest version count, each digest once.

    Args:
        rows: The columns `IDENTITY`, `VERSION` and `DIGEST`.
    """
    moments = rows[MOMENT].combine_chunks()
    places = pc.sort_indices(moments)
    if not _has_equal_neighbours(moments.take(places)):
        return places
    keys = [(name, "ascending") for name in IDENTITY]
    places = pc.sort_indices(rows, [*keys, (VERSION, "descending"), (DIGEST, "ascending")])
    ordered = rows.take(places)
    group = _groups(ordered)
    version, digest = (ordered[name].combine_chunks() for name in (VERSION, DIGEST))
    highest = version.take(_firsts(group)).take(group)
    is_copy = pc.and_(_equals_before(group), _equals_before(digest))
    return places.filter(pc.and_not(pc.equal(version, highest), is_copy))


def merged(fragments: pa.Table, committed: pa.Table) -> pa.Array:
    """Return the places of the rows that count, of fragments and of a committed day, in the port's order.

    A committed row has neither version nor digest. While the fragments that it was read from are there, they
    have as many rows of its identity; once they are gone, the committed day has more.

    Args:
        fragments: The columns `IDENTITY` of rows without copies.
        committed: The same of the committed day; places behind the fragments' are these rows.
    """
    both = pa.concat_tables([fragments.select(IDENTITY), committed.select(IDENTITY)]).combine_chunks()
    places = pc.sort_indices(both, [(name, "ascending") for name in IDENTITY])
    group = _groups(both.take(places))
    is_fragment = pc.less(places, fragments.num_rows)
    counts = pa.table({"group": group, "fragments": is_fragment.cast(pa.int64())})
    sums = counts.group_by("group", use_threads=False).aggregate(
        [("fragments", "sum"), ("fragments", "count")]
    )
    sums = sums.sort_by("group")
    fragments_win = pc.greater_equal(
        pc.multiply(sums["fragments_sum"], 2), sums["fragments_count"]
    ).combine_chunks()
    return places.filter(pc.equal(is_fragment, fragments_win.take(group)))


def _groups(ordered: pa.Table) -> pa.Array:
    """Number the identities of ordered rows, from 0."""
    same = pa.array([True] * ordered.num_rows)
    for name in IDENTITY:
        same = pc.and_(same, _equals_before(ordered[name].combine_chunks()))
    return pc.subtract(pc.cumulative_sum(pc.invert(same).cast(pa.int64())), 1)


def _firsts(group: pa.Array) -> pa.Array:
    """Return the place of each group's first row."""
    return pc.indices_nonzero(pc.invert(_equals_before(group)))


def _equals_before(values: pa.Array) -> pa.Array:
    """Tell for each value whether it is the one before it; two nulls are equal."""
    if not len(values):
        return pa.array([], pa.bool_())
    here, before = values.slice(1), values.slice(0, len(values) - 1)
    equal = pc.fill_null(pc.equal(here, before), False)
    if values.null_count:
        equal = pc.or_(equal, pc.and_(here.is_null(), before.is_null()))
    return pa.concat_arrays([pa.array([False]), _array(equal)])


def _has_equal_neighbours(ordered: pa.Array) -> bool:
    return bool(pc.any(_equals_before(ordered)).as_py())


def _array(values: Any) -> pa.Array:
    return values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
