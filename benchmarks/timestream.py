"""How fast the local Timestream takes records, and gives a day of them back.

Issue 3 asks for 20,000 records a second and for a day of a million rows in ten seconds.
"""

import json
import resource
import time
from collections.abc import Iterator
from typing import Any

from onemachine.timestream import Timestream
from onemachine.timestream.tables import TableSettings

WRITTEN = 100_000
DAY_ROWS = 1_000_000
REQUEST = 100
# 2026-11-19 23:00:00 UTC
NOW = 1_795_129_200_000_000_000
_DAY = """SELECT * FROM "app"."usage" WHERE time >= TIMESTAMP '2026-11-19 00:00:00.000000000'
    AND time < TIMESTAMP '2026-11-20 00:00:00.000000000' ORDER BY time ASC, "_id" ASC"""


def run() -> dict[str, float]:
    """Measure both.

    Returns:
        ``timestream_write_records_per_s``, ``timestream_day_query_s``, and beside them
        ``timestream_peak_rss_mb`` of the process after a million rows.
    """
    engine = Timestream(lambda: NOW)
    engine.create_database("app", "key")
    engine.create_table("app", "usage", TableSettings(memory_hours=24))
    took = 0.0
    for written, records in enumerate(_requests(DAY_ROWS)):
        start = time.perf_counter()
        engine.write_records("app", "usage", records)
        if written * REQUEST < WRITTEN:
            took += time.perf_counter() - start
    start = time.perf_counter()
    found = _read(engine, _DAY)
    day = time.perf_counter() - start
    if found != DAY_ROWS:
        raise AssertionError(f"The query found {found} rows of {DAY_ROWS}.")
    engine.close()
    return {
        "timestream_write_records_per_s": WRITTEN / took,
        "timestream_day_query_s": day,
        "timestream_peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def _read(engine: Timestream, query: str) -> int:
    page = engine.query(query)
    found = len(page.rows)
    while page.next_token is not None:
        page = engine.query(query, page.next_token)
        found += len(page.rows)
    return found


def _requests(rows: int) -> Iterator[list[dict[str, Any]]]:
    """Give what the consumer would write: four dimensions, eight measures."""
    for start in range(0, rows, REQUEST):
        yield [_record(number) for number in range(start, start + REQUEST)]


def _record(number: int) -> dict[str, Any]:
    texts = {"_id": f"id-{number:010d}", "year": "2026", "month": "11", "day": "19"}
    measures = [{"Name": name, "Value": text, "Type": "VARCHAR"} for name, text in texts.items()]
    measures += [
        {"Name": "latency_ms", "Value": str(number % 977 * 0.25), "Type": "DOUBLE"},
        {"Name": "status", "Value": "200.0", "Type": "DOUBLE"},
        {"Name": "ok", "Value": "true", "Type": "BOOLEAN"},
        {"Name": "item_count", "Value": str(number % 7), "Type": "BIGINT"},
    ]
    dimensions = {
        "route": f"/users/{number % 50}",
        "method": "GET",
        "client": f"c{number % 20}",
        "source": "/aws/lambda/api",
    }
    return {
        "Dimensions": [{"Name": name, "Value": value} for name, value in dimensions.items()],
        "MeasureName": "api_request",
        "MeasureValueType": "MULTI",
        "MeasureValues": measures,
        # Spread over the day, and out of order as from several shards.
        "Time": str(NOW - (number * 7_919 % DAY_ROWS) * 82_000_000),
        "TimeUnit": "NANOSECONDS",
        "Version": 1,
    }


if __name__ == "__main__":
    print(json.dumps(run(), indent=2))
