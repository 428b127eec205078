"""Usage: how large the page is, how long roll-ups and answers take, and how far off percentiles are.

Lambda gives a function processor time in proportion to its memory, one processor at 1,769 MB. Times are the
the processor time of this process, multiplied by 1,769 over the memory in their name; S3 is left out.
https://docs.aws.amazon.com/lambda/latest/dg/configuration-memory.html
"""

from __future__ import annotations

import base64
import gzip
import math
import random
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import orjson

from exporter.usage import page, questions, views
from exporter.usage.buckets import bucket_of, merge_counts, percentiles, upper_limit
from exporter.usage.groups import COLUMNS, Group, group_rows
from exporter.usage.rollup import Limits, RollUp, bounded, read, usage_of, without_collection

MB_PER_PROCESSOR = 1_769
START = datetime(2026, 6, 1, tzinfo=UTC)
TYPE = "api_request"
DAYS, ROUTES, CLIENTS = 90, 1_000, 500
FEW_ROUTES = 50
ROUNDS = 5
RECORDS = 100_000
HOURS, SAMPLES = 720, 200_000
SHARES = (0.5, 0.9, 0.95, 0.99, 0.999)


def run() -> dict[str, float]:
    """Measure.

    Returns:
        Bytes, milliseconds, microseconds and a relative error, by name.
    """
    large, small = rollups(2 * DAYS + 1, ROUTES), rollups(2 * DAYS + 1, FEW_ROUTES)
    written = datetime.now(UTC)
    numbers = {
        f"page_bytes_{ROUTES}_routes": float(_packed_size(page.render(large, page.Pipeline(written)))),
        f"page_bytes_{FEW_ROUTES}_routes": float(_packed_size(page.render(small, page.Pipeline(written)))),
        "page_render_ms_1024mb": _scaled(lambda: page.render(large, page.Pipeline(written)), 1_024),
        "rollup_us_per_row": _rollup_us(),
        "percentile_error": percentile_error(),
    }
    # The ends of the ranges that are asked for move, so that no two answers are of the same days.
    kept = [gzip.compress(rollup.to_json(), 6) for rollup in large[-DAYS:]]
    answer = gzip.compress(_custom(kept), 6)
    return numbers | {
        "custom_ms_p95_1024mb": _scaled(lambda: _custom(kept), 1_024),
        "preset_ms_p95_256mb": _scaled(lambda: base64.b64encode(answer), 256),
        "preset_answer_bytes": float(len(answer)),
        "day_bytes": statistics.mean(map(len, kept)),
    }


def _custom(kept: list[bytes]) -> bytes:
    """Return an answer to a range that nobody has asked for: its figures, its series and its routes."""
    with without_collection():
        days = read((gzip.decompress(each) for each in kept), pairs=False)
        asked = questions.period(days, questions.Range(days[0].start, days[-1].end, questions.DAY))
        return orjson.dumps([views.content_of(name, asked) for name in ("summary", "series", "routes")])


def rollups(days: int, routes: int) -> list[RollUp]:
    """Return days of usage as APIs have it: a few busy routes and clients, some errors."""
    chance = random.Random(0)
    slowness = [chance.gauss(70, 20) for _ in range(routes)]
    found = []
    for number in range(days):
        day = START + timedelta(days=number)
        usage = bounded(usage_of(_groups(chance, day, slowness)), Limits(pairs=5_000))
        found.append(RollUp(day, day + timedelta(days=1), TYPE, day + timedelta(days=1), usage))
    return found


def _groups(chance: random.Random, day: datetime, slowness: list[float]) -> Iterator[Group]:
    for number, middle in enumerate(slowness):
        for _ in range(12):
            count = max(1, int(chance.uniform(0.5, 1.5) * 2_000 / (number + 1)))
            bucket = int(chance.gauss(middle, 12))
            status = chance.choices((200, 201, 304, 404, 429, 401, 500), (80, 6, 5, 5, 1, 1, 2))[0]
            microseconds = int(upper_limit(bucket) * 1_000)
            yield (
                f"{day:%Y-%m-%d} {int(chance.triangular(0, 24, 14)):02}",
                ("GET", "GET", "POST", "DELETE")[number % 4],
                f"/v1/resource-{number}/{{id}}",
                f"client-{min(CLIENTS, int(chance.paretovariate(0.5)))}",
                status,
                "KeyError" if status >= 500 else None,  # noqa: PLR2004 - server errors
                bucket,
                count,
                count * microseconds,
                microseconds,
                count * 2_000,
            )


def _packed_size(html: str) -> int:
    return len(gzip.compress(html.encode(), 9))


def _scaled(work: Callable[[], object], memory_mb: int) -> float:
    """Return the slowest of a few rounds, in milliseconds of a function with so much memory."""
    taken = []
    for _ in range(ROUNDS):
        began = time.process_time()
        work()
        taken.append(time.process_time() - began)
    return max(taken) * 1_000 * MB_PER_PROCESSOR / memory_mb


def _rollup_us() -> float:
    """Return microseconds for a row of the lake, when no two records are alike."""
    chance = random.Random(0)
    rows = [
        (
            "2026-11-28 13:00:00.000000000",
            TYPE,
            "GET",
            f"/v1/resource-{min(ROUTES, int(chance.paretovariate(0.5)))}",
            f"client-{chance.randrange(CLIENTS)}",
            chance.choice(("200", "200", "200", "404", "500")),
            None,
            repr(round(chance.lognormvariate(3.2, 1.1), 3)),
            "2048",
            None,
            None,
        )
        for _ in range(RECORDS)
    ]
    taken = []
    for _ in range(ROUNDS):
        began = time.process_time()
        usage_of(group_rows(COLUMNS, rows, TYPE))
        taken.append(time.process_time() - began)
    return statistics.median(taken) * 1e6 / RECORDS


def percentile_error() -> float:
    """Return the largest relative error of a percentile of 720 hours that were counted one by one."""
    chance = random.Random(0)
    worst = 0.0
    for values in (
        [chance.lognormvariate(3.2, 1.1) for _ in range(SAMPLES)],
        [chance.gauss(12, 1) if chance.random() < 0.93 else chance.gauss(2_400, 90) for _ in range(SAMPLES)],  # noqa: PLR2004
        [37.25] * SAMPLES,
        [2.0 ** chance.randint(-8, 16) for _ in range(SAMPLES)],
    ):
        merged = merge_counts(Counter(map(bucket_of, values[hour::HOURS])) for hour in range(HOURS))
        values.sort()
        for share, found in zip(SHARES, percentiles(merged, SHARES), strict=True):
            exact = values[math.ceil(round(share * len(values), 6)) - 1]
            worst = max(worst, abs((found or 0) - exact) / exact)
    return worst
