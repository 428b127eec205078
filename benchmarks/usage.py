"""Usage: how large the page is, how long roll-ups and answers take, and how far off percentiles are.

Lambda gives a function processor time in proportion to its memory, one processor at 1,769 MB: 0.145 of one at
256 MB. Times are the processor time of this process, multiplied by 1,769 over the memory in their name.
`preset` is the whole handler, with its read of S3 in another process; S3's own time is not in it.
`custom` leaves out the reads of S3, and `custom_with_s3` has them.
https://docs.aws.amazon.com/lambda/latest/dg/configuration-memory.html
"""

from __future__ import annotations

import gzip
import math
import random
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, cast

import boto3
from botocore.config import Config

from benchmarks import consume
from benchmarks.lake_rivals import s3
from consumers.accounts.minutes import MinuteCell
from consumers.bucket import Bucket, Listed, Objects, client_config
from exporter.lake.batch import Batch
from exporter.lake.days import Day
from exporter.lake.formats import ZipFormat
from exporter.lake.manifest import Manifest
from exporter.store import FIRST_COLUMNS, Column, Values
from exporter.usage import live, page, stored, views
from exporter.usage.buckets import bucket_of, percentiles, upper_limit
from exporter.usage.counting import usage_of_rows
from exporter.usage.groups import COLUMNS, Group
from exporter.usage.roll import roll_up_files
from exporter.usage.rollup import Limits, RollUp, bounded, usage_of
from exporter.usage_api.answers import Answers
from exporter.usage_api.handler import UsageApi, make_handler
from exporter.usage_api.parameters import Question, parse

MB_PER_PROCESSOR = 1_769
START = datetime(2026, 6, 1, tzinfo=UTC)
TYPE = "api_request"
DAYS, ROUTES, CLIENTS = 90, 1_000, 500
FEW_ROUTES = 50
ROUNDS = 5
PRESET_ROUNDS = 100
RECORDS = 100_000
# Hours are rolled up a few minutes after their end; most bars; most minutes.
LAST_MINUTES = (66, 14, 121)
HOURS, SAMPLES = 720, 200_000
SHARES = (0.5, 0.9, 0.95, 0.99, 0.999)


def run() -> dict[str, float]:
    """Measure.

    Returns:
        Bytes, milliseconds, microseconds and a relative error, by name.
    """
    large, small = rollups(2 * DAYS + 1, ROUTES), rollups(2 * DAYS + 1, FEW_ROUTES)
    written, rows = datetime.now(UTC), _rows()
    few = page.render(small, page.Pipeline(written))
    numbers = {
        f"page_bytes_{ROUTES}_routes": float(_packed_size(page.render(large, page.Pipeline(written)))),
        f"page_bytes_{FEW_ROUTES}_routes": float(_packed_size(few)),
        f"page_bytes_{FEW_ROUTES}_routes_with_last_minutes": float(
            max(_packed_size(page.with_live(few, last_minutes(minutes))) for minutes in LAST_MINUTES)
        ),
        "page_render_ms_1024mb": _scaled(lambda: page.render(large, page.Pipeline(written)), 1_024),
        "rollup_us_per_row": _us_per_row(lambda: usage_of_rows(COLUMNS, rows, TYPE)),
        "percentile_error": percentile_error(),
    }
    kept = Kept(large)
    days = {"from": f"{large[-DAYS].start:%Y-%m-%d}", "to": f"{large[-1].start:%Y-%m-%d}"}
    first, again = [], []
    for path in ("/usage", "/usage/series", "/usage/routes", "/usage/clients"):
        question = parse(path, days)
        first.append(_scaled(partial(kept.answer, None, question), 1_024))
        known = Answers(kept.objects)
        kept.answer(known, question)
        again.append(_scaled(partial(kept.answer, known, question), 1_024))
    with consume.environment(), s3() as endpoint:
        config = client_config().merge(Config(s3={"addressing_style": "path"}))
        client = boto3.client("s3", endpoint_url=endpoint, config=config)
        client.create_bucket(Bucket="usage")
        in_s3 = with_s3(Bucket(client, "usage"), large, kept, parse("/usage/routes", days))
        numbers["rollup_with_reading_us_per_row"] = _with_reading(Bucket(client, "usage"), rows)
    return (
        numbers
        | in_s3
        | {
            "custom_ms_p95_1024mb": max(first),
            "custom_again_ms_p95_1024mb": max(again),
            "day_bytes": statistics.mean(map(len, kept.bodies.values())),
        }
    )


def with_s3(bucket: Bucket, days: list[RollUp], kept: Kept, custom: Question) -> dict[str, float]:
    """Return how long answers that are ready take in the handler, and one for another range."""
    stored.write_views(bucket, views.ready_answers(days, None))
    for key, body in kept.bodies.items():
        bucket.put(key, [body], "application/gzip")
    stored.write_weeks(bucket, {day.start.date() for day in days})
    bucket.put(stored.hours_key(days[-1].start.date()), [kept.newest], "application/gzip")
    handler = make_handler(UsageApi(bucket, cast("Any", None), 0, dict, lambda: datetime.now(UTC)))
    paths = ("/usage", "/usage/series", "/usage/routes", "/usage/clients")
    taken = []
    for number in range(PRESET_ROUNDS):
        event = _event(paths[number % len(paths)], range="90d")
        began = time.process_time()
        answer = handler(event, None)
        taken.append(time.process_time() - began)
        if answer["statusCode"] != 200:  # noqa: PLR2004 - what HTTP has
            raise AssertionError(answer)
    p95 = statistics.quantiles(taken[len(paths) :], n=20)[-1]
    return {
        "preset_ms_p95_256mb": p95 * 1_000 * MB_PER_PROCESSOR / 256,
        "custom_with_s3_ms_p95_1024mb": _scaled(lambda: Answers(bucket).answer(custom, None).body(), 1_024),
    }


def _event(path: str, **query: str) -> dict[str, Any]:
    context = {"http": {"method": "GET", "path": path}, "stage": "$default"}
    headers = {"accept-encoding": "gzip"}
    return {
        "rawPath": path,
        "headers": headers,
        "queryStringParameters": query,
        "requestContext": context,
    }


class Kept:
    """Roll-ups of days as they are kept, without the time that S3 takes.

    Args:
        days: The roll-ups. The last one has its hours as well, as a single one.
    """

    def __init__(self, days: list[RollUp]) -> None:
        self.bodies = {stored.day_key(day.start.date()): gzip.compress(day.to_json(), 6) for day in days}
        last = days[-1]
        self.newest = self.bodies[stored.day_key(last.start.date())]
        self._newest = {stored.hours_key(last.start.date()): self.newest}

    @property
    def objects(self) -> Objects:
        """The bucket."""
        return cast("Objects", self)

    def answer(self, known: Answers | None, question: Question) -> bytes:
        """Return an answer as it is sent, from others that are known or as the first one."""
        return (known or Answers(self.objects)).answer(question, None).body()

    def listed(self, prefix: str) -> Iterator[Listed]:
        """Yield the days."""
        return (Listed(key, "", START, 0) for key in self.bodies if key.startswith(prefix))

    def get(self, key: str) -> bytes | None:
        """Return a roll-up."""
        return self.bodies.get(key)

    def read(self, key: str) -> tuple[bytes, str] | None:
        """Return the newest day's hours."""
        found = self._newest.get(key)
        return None if found is None else (found, "")


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


def last_minutes(length: int) -> dict[str, Any] | None:
    """Return so many minutes in which each route is busy, with errors in all of them."""
    chance = random.Random(0)
    counts: dict[MinuteCell, int] = {
        (minute, "GET", f"/v1/resource-{number}/{{id}}", status): chance.randint(1, 2_000 // (number + 1))
        for minute in range(length)
        for number in range(FEW_ROUTES)
        for status in (200, 304, 404, 500)
    }
    first = datetime.fromtimestamp(0, UTC)
    return live.summarize(counts, first, first + timedelta(minutes=length - 1))


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


def _rows() -> list[tuple[str | None, ...]]:
    """Return rows of the lake of which no two are alike."""
    chance = random.Random(0)
    return [
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


def _us_per_row(roll_up: Callable[[], object]) -> float:
    """Return the median of a few rounds, in microseconds for a row."""
    taken = []
    for _ in range(ROUNDS):
        began = time.process_time()
        roll_up()
        taken.append(time.process_time() - began)
    return statistics.median(taken) * 1e6 / RECORDS


def _with_reading(bucket: Bucket, rows: list[tuple[str | None, ...]]) -> float:
    """Return microseconds for a row of a day's files, which are read from S3, unpacked and parsed."""
    numbers = {"status", "duration_ms", "bytes"}
    more = tuple(
        Column(name, "number" if name in numbers else "text")
        for name in COLUMNS
        if name not in {column.name for column in FIRST_COLUMNS}
    )
    columns = FIRST_COLUMNS + more
    values = [dict(zip(COLUMNS, row, strict=True)) for row in rows]
    records: list[Values] = [[row.get(column.name, "x") for column in columns] for row in values]
    pages = [Batch(records[start : start + 1_000]) for start in range(0, len(records), 1_000)]
    kind = ZipFormat.ANY.made_of[0]
    day = Day(bucket, datetime(2026, 11, 28, tzinfo=UTC).date(), kind)
    manifest = Manifest(day.date, 1, columns, tuple(day.write(iter(pages), columns, 1)))
    return _us_per_row(lambda: list(roll_up_files(day, manifest, TYPE, "", START)))


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
        merged = sum((Counter(map(bucket_of, values[hour::HOURS])) for hour in range(HOURS)), Counter())
        values.sort()
        for share, found in zip(SHARES, percentiles(merged, SHARES), strict=True):
            exact = values[math.ceil(round(share * len(values), 6)) - 1]
            worst = max(worst, abs((found or 0) - exact) / exact)
    return worst
