"""The services on one machine: how soon they are up, how many records a second become rows, in what room.

Each size runs in its own process, so that its memory can be measured. The numbers of the filter patterns and
of Timestream's engine are those of `benchmarks.filters` and `benchmarks.timestream`.
"""

import json
import resource
import statistics
import subprocess
import sys
import time

from benchmarks import filters, timestream

SIZES = (100_000, 400_000)
BATCH = 2_000


def run() -> dict[str, float]:
    """Return `ready_s`, `records_per_s` and `peak_rss_mb` for each size, and the engines' own numbers."""
    numbers: dict[str, float] = {}
    for size in SIZES:
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.local", str(size)], check=True, capture_output=True, text=True
        )
        measured = json.loads(done.stdout)
        if size == SIZES[0]:
            numbers["ready_s"] = measured["ready_s"]
            numbers["records_per_s"] = measured["records_per_s"]
        numbers[f"records_per_s_{size}"] = measured["records_per_s"]
        numbers[f"peak_rss_mb_{size}"] = measured["peak_rss_mb"]
    return numbers | per_test() | filters.run() | timestream.run()


def per_test() -> dict[str, float]:
    """Return how long a test waits for its own pipeline, and for its end: medians in ms."""
    from onemachine.pipeline import Pipeline

    from cli.apps import tagline_with_samples

    up, down = [], []
    for _ in range(8):
        began = time.monotonic()
        with Pipeline(tagline_with_samples(), in_process=True):
            ready = time.monotonic()
        up.append(ready - began)
        down.append(time.monotonic() - ready)
    return {
        "pipeline_up_ms": statistics.median(up[1:]) * 1000,
        "pipeline_down_ms": statistics.median(down[1:]) * 1000,
    }


def measure(size: int) -> dict[str, float]:
    """Send records through the whole path and count them at its end.

    Args:
        size: How many records.
    """
    began = time.monotonic()
    from onemachine.pipeline import Pipeline

    from cli.apps import tagline_with_samples

    with Pipeline(tagline_with_samples()) as pipeline:
        ready = time.monotonic()
        function = pipeline.outputs["sample"]["AccessLogReplayName"]
        now = time.time_ns() // 1_000_000
        for start in range(0, size, BATCH):
            requests = [
                {
                    "id": f"{number:032x}",
                    "timestamp": now - size + number,
                    "route": f"/item/{number % 50}",
                    "method": "GET",
                    "client": f"client-{number % 20}",
                    "status": 200 if number % 10 else 500,
                    "duration_ms": number % 97 / 7,
                    "path": f"/item/{number % 50}?page={number}",
                    "user_agent": "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko)",
                }
                for number in range(start, min(size, start + BATCH))
            ]
            result = pipeline.functions.invoke(function, json.dumps({"requests": requests}).encode())
            if result.error:
                raise RuntimeError(result.payload.decode())
        pipeline.settle(timeout_s=600)
        seconds = time.monotonic() - ready
        where = pipeline.outputs["tagline"]
        sql = f'SELECT count(*) FROM "{where["TimestreamDatabase"]}"."{where["TimestreamTable"]}"'
        pages = pipeline.client("timestream-query").get_paginator("query").paginate(QueryString=sql)
        stored = int(next(row for page in pages for row in page["Rows"])["Data"][0]["ScalarValue"])
        if stored != size:
            raise RuntimeError(f"{size} records were written and {stored} stored")
    return {
        "ready_s": ready - began,
        "records_per_s": size / seconds,
        "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


if __name__ == "__main__":
    print(json.dumps(measure(int(sys.argv[1]))))
