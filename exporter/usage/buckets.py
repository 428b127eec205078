"""Durations counted in exponential buckets, which merge by addition and give percentiles. Pure.

Bucket `i` holds the durations above `2 ** ((i - 1) / 16)` and up to `2 ** (i / 16)` milliseconds. This is
schema 4 of Prometheus' native histograms: https://prometheus.io/docs/specs/native_histograms/#schema
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

# How many buckets there are between a duration and its double.
PER_DOUBLING = 16
# Keeps a duration that is a bucket's upper limit in that bucket: log2 of it may be a little too large.
TOLERANCE = 1e-9

_GROWTH = 2 ** (1 / PER_DOUBLING)
# The largest relative error of a percentile: the value shown is the harmonic middle of its bucket.
ERROR_BOUND = (_GROWTH - 1) / (_GROWTH + 1)

# How many durations each bucket has.
BucketCounts = Mapping[int, int]


def bucket_of(duration_ms: float) -> int:
    """Return a duration's bucket.

    Args:
        duration_ms: In milliseconds; positive and finite.

    Raises:
        ValueError: If the duration is not positive or not finite: it has no bucket.
    """
    if not (duration_ms > 0 and math.isfinite(duration_ms)):
        raise ValueError(f"a duration of {duration_ms} ms has no bucket: it must be positive and finite")
    return math.ceil(math.log2(duration_ms) * PER_DOUBLING - TOLERANCE)


def bucket_sql(column: str) -> str:
    """Return the SQL for the bucket of a column of numbers, for all stores and DuckDB.

    The expression is NULL for a duration that is NULL or not positive.

    Args:
        column: The column, quoted if it has to be.
    """
    bucket = f"CAST(ceil(log2({column}) * {PER_DOUBLING} - {TOLERANCE!r}) AS BIGINT)"
    return f"CASE WHEN {column} > 0 THEN {bucket} END"


def upper_limit(bucket: int) -> float:
    """Return the longest duration that a bucket holds, in milliseconds."""
    return float(2 ** (bucket / PER_DOUBLING))


def middle(bucket: int) -> float:
    """Return the harmonic middle of a bucket in ms: its values differ from it by at most `ERROR_BOUND`."""
    low, high = upper_limit(bucket - 1), upper_limit(bucket)
    return 2 * low * high / (low + high)


def percentiles(
    counts: BucketCounts, shares: Iterable[float], max_ms: float | None = None
) -> list[float | None]:
    """Return percentiles in milliseconds, each at most `ERROR_BOUND` away from the exact one.

    The exact one is the value at rank `ceil(share * n)` of the sorted durations.

    Args:
        counts: How many durations each bucket has.
        shares: The shares, each above 0 and at most 1, in ascending order: 0.95 for p95.
        max_ms: The longest duration, if it is known: no percentile is above it.

    Returns:
        A percentile for each share; None for all without durations.
    """
    total = sum(counts.values())
    buckets = iter(sorted(counts.items()))
    found: list[float | None] = []
    bucket, passed = 0, 0
    for share in shares:
        # The tolerance keeps 0.95 * 100 at rank 95, though the product is a little above 95.
        rank = max(1, math.ceil(share * total - TOLERANCE))
        while passed < rank and passed < total:
            bucket, count = next(buckets)
            passed += count
        value = middle(bucket)
        found.append(None if total == 0 else value if max_ms is None else min(value, max_ms))
    return found


def count_up_to(counts: BucketCounts, limit: int) -> int:
    """Return how many durations are in a bucket or below it."""
    return sum(count for bucket, count in counts.items() if bucket <= limit)
