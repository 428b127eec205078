"""What the consumer says of itself: a summary line, metrics, a trace. No contents of records.

https://docs.aws.amazon.com/xray/latest/devguide/xray-concepts.html
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.metrics import MetricUnit

from consumers.lines.ledger import Ledger
from consumers.rows.timestream.writer import Traffic

# The dimensions of every metric: which stage of the pipeline, and the store that it writes to.
STAGE, STORE = "consumer", "timestream"

STAGES = ("decode", "map", "write", "quarantine")
# Annotations are short: https://docs.aws.amazon.com/xray/latest/devguide/xray-api-segmentdocuments.html
MAX_ANNOTATION = 1_000


class Course:
    """How the batch at hand goes: how long each stage has taken in all, and the log groups in it.

    Attributes:
        seconds: By stage. `write` is how long the other stages waited for the store.
        began: When each stage was begun for the first time, in seconds since 1970.
        log_groups: Whose lines were read.
    """

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """Forget the batch before."""
        self.seconds: Counter[str] = Counter()
        self.began: dict[str, float] = {}
        self.log_groups: set[str] = set()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count the time of a block to a stage."""
        self.began.setdefault(name, time.time())
        began = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] += time.perf_counter() - began  # type: ignore[assignment]  # seconds, not counts


def report_batch(ledger: Ledger, course: Course | None = None, traffic: Traffic | None = None) -> None:
    """Write the invocation's one summary line, and its metrics."""
    course, traffic = course or Course(), traffic or Traffic()
    counts = ledger.counts() | {
        "requests": traffic.requests,
        "retries": traffic.retries,
        "throttled": traffic.throttled,
        **{f"quarantined_{reason}": count for reason, count in ledger.quarantined.items()},
    }
    sizes = {"bytes": ledger.bytes(), "bytes_out": traffic.bytes}
    times = {"write_ms": ledger.write_seconds * 1000} | {
        f"{stage}_ms": course.seconds[stage] * 1000 for stage in STAGES if stage != "write"
    }
    if arrivals := [record["kinesis"]["approximateArrivalTimestamp"] for record in ledger.records]:
        times["iterator_age"] = (time.time() - min(arrivals)) * 1000
    times = {name: round(milliseconds, 3) for name, milliseconds in times.items()}
    Logger().info("batch", extra={**counts, **sizes, **times, "log_groups": len(course.log_groups)})
    metrics = Metrics()
    metrics.add_dimension("stage", STAGE)
    metrics.add_dimension("store", STORE)
    for values, unit in (
        (counts, MetricUnit.Count),
        (sizes, MetricUnit.Bytes),
        (times, MetricUnit.Milliseconds),
    ):
        for name, value in values.items():
            metrics.add_metric(name=name, unit=unit, value=value)
    metrics.flush_metrics()


def trace_batch(ledger: Ledger, course: Course, environ: Mapping[str, str]) -> None:
    """Add the stages to the invocation's trace, where X-Ray has chosen to sample it.

    The stages take turns, chunk by chunk: each is one subsegment from when it began first, as long as all of
    its turns together. X-Ray's library is imported by the first invocation that is sampled, after its rows
    are stored: it takes as long to import as all the rest of the consumer.
    """
    if "Sampled=1" not in environ.get("_X_AMZN_TRACE_ID", "") or not environ.get("AWS_XRAY_DAEMON_ADDRESS"):
        return
    from aws_lambda_powertools import Tracer  # noqa: PLC0415 - see above

    # Calls to AWS are not of interest one by one.
    recorder: Any = Tracer(auto_patch=False).provider
    for stage in STAGES:
        if stage not in course.began:
            continue
        subsegment = recorder.begin_subsegment(f"## {stage}")
        if subsegment is None:
            return  # switched off: POWERTOOLS_TRACE_DISABLED
        subsegment.start_time = course.began[stage]
        subsegment.put_annotation("batch_size", len(ledger.records))
        subsegment.put_annotation("log_groups", ",".join(sorted(course.log_groups))[:MAX_ANNOTATION])
        recorder.end_subsegment(course.began[stage] + course.seconds[stage])
