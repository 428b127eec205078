"""Percentiles from bucket counts are within the stated error, and SQL and Python choose the same buckets."""

import math
import random
import statistics
from collections import Counter

import duckdb
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.usage import buckets
from exporter.usage.buckets import (
    ERROR_BOUND,
    bucket_of,
    bucket_sql,
    middle,
    percentiles,
    upper_limit,
)

SHARES = (0.5, 0.9, 0.95, 0.99, 0.999, 1.0)
DURATIONS = st.floats(min_value=1e-6, max_value=1e9, allow_nan=False)

CHANCE = random.Random(15)
DISTRIBUTIONS = {
    "log-normal": [CHANCE.lognormvariate(3.2, 1.1) for _ in range(20_000)],
    "bimodal": [
        CHANCE.gauss(12, 1) if CHANCE.random() < 0.93 else CHANCE.gauss(2_400, 90) for _ in range(20_000)
    ],
    "constant": [37.25] * 5_000,
    "powers of two": [2.0 ** CHANCE.randint(-8, 16) for _ in range(20_000)],
    "limits of buckets": [upper_limit(CHANCE.randint(-80, 240)) for _ in range(20_000)],
    "one": [0.004],
}


def exact(values: list[float], share: float) -> float:
    """Return the value at rank `ceil(share * n)`."""
    return sorted(values)[max(1, math.ceil(round(share * len(values), 6))) - 1]


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_percentiles_of_720_merged_hours_are_within_the_error_bound(name: str) -> None:
    values = DISTRIBUTIONS[name]
    hours = [Counter(bucket_of(value) for value in values[hour::720]) for hour in range(720)]

    merged = sum(hours, Counter())
    assert sum(merged.values()) == len(values)
    for share, found in zip(SHARES, percentiles(merged, SHARES), strict=True):
        assert found == pytest.approx(exact(values, share), rel=ERROR_BOUND + 1e-9)


@pytest.mark.parametrize("name", ["log-normal", "bimodal"])
def test_the_mean_of_hourly_percentiles_is_beyond_the_error_bound(name: str) -> None:
    values = DISTRIBUTIONS[name]

    mean = statistics.mean(exact(values[hour::720], 0.99) for hour in range(720))

    assert abs(mean / exact(values, 0.99) - 1) > ERROR_BOUND


@given(st.lists(DURATIONS, min_size=1, max_size=60), st.floats(0.001, 1))
def test_any_percentile_of_any_durations_is_within_the_error_bound(values: list[float], share: float) -> None:
    counts = Counter(map(bucket_of, values))

    for longest in (None, max(values)):
        (found,) = percentiles(counts, [share], longest)
        assert found == pytest.approx(exact(values, share), rel=ERROR_BOUND + 1e-9)
        assert longest is None or (found or 0) <= longest


@given(DURATIONS)
def test_a_bucket_holds_its_durations(duration_ms: float) -> None:
    bucket = bucket_of(duration_ms)

    assert upper_limit(bucket - 1) < duration_ms * (1 + 1e-9)
    assert duration_ms <= upper_limit(bucket) * (1 + 1e-9)
    assert middle(bucket) == pytest.approx(duration_ms, rel=ERROR_BOUND + 1e-9)


@pytest.mark.parametrize("power", range(-20, 31))
def test_a_power_of_two_is_the_upper_limit_of_its_bucket(power: int) -> None:
    assert bucket_of(2.0**power) == 16 * power
    assert bucket_of(math.nextafter(2.0**power, 0)) == 16 * power
    assert bucket_of(2.0**power * 1.001) == 16 * power + 1


@pytest.mark.parametrize("duration_ms", [0.0, -1.0, math.nan, math.inf, -math.inf])
def test_what_is_no_duration_has_no_bucket(duration_ms: float) -> None:
    with pytest.raises(ValueError, match=r"has no bucket: it must be positive and finite"):
        bucket_of(duration_ms)


def test_no_durations_have_no_percentiles() -> None:
    assert percentiles({}, SHARES) == [None] * len(SHARES)


COUNTS = st.dictionaries(st.integers(-50, 300), st.integers(1, 1_000))


@given(COUNTS, st.integers(-60, 310))
def test_counts_up_to_a_limit_and_above_it_are_all(counts: dict[int, int], limit: int) -> None:
    above = sum(count for bucket, count in counts.items() if bucket > limit)

    assert buckets.count_up_to(counts, limit) + above == sum(counts.values())


def test_duckdb_and_python_choose_the_same_buckets() -> None:
    limits = [upper_limit(bucket) for bucket in range(-160, 481)]
    close = [math.nextafter(limit, towards) for limit in limits for towards in (0, math.inf)]
    values = [*limits, *close, *DISTRIBUTIONS["log-normal"], *DISTRIBUTIONS["bimodal"]]
    values = [value for value in values if value > 0]

    with duckdb.connect() as connection:
        connection.execute('CREATE TABLE t AS SELECT unnest(?::DOUBLE[]) AS "duration_ms"', [values])
        found = connection.execute(
            f'SELECT "duration_ms", {bucket_sql(chr(34) + "duration_ms" + chr(34))} FROM t'
        )
        rows = found.fetchall()

    assert len(rows) == len(values)
    assert [(value, bucket) for value, bucket in rows if bucket != bucket_of(value)] == []


def test_sql_gives_no_bucket_to_what_is_no_duration() -> None:
    with duckdb.connect() as connection:
        found = connection.execute(
            f"SELECT {bucket_sql('d')} FROM (VALUES (0.0), (-1.0), (NULL), (1.0)) t(d)"
        )
        assert [bucket for (bucket,) in found.fetchall()] == [None, None, None, 0]
