"""What a consumer reports of a batch: a summary line, metrics, a trace. No contents of records.

https://docs.aws.amazon.com/xray/latest/devguide/xray-concepts.html
"""

from __future__ import annotations

import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.metrics import MetricUnit

if TYPE_CHECKING:
    from consumers.lines.ledger import Ledger

STAGES = ("decode", "map", "write", "quarantine")
# Annotations are short: https://docs.aws.amazon.com/xray/latest/devguide/xray-api-segmentdocuments.html
MAX_ANNOTATION = 1_000


class Timings:
    """How long each stage of the current batch has taken in all, and the log groups in the batch.

    Attributes:
        seconds: By stage. `write` is how long the other stages waited for the store.
        began: When each stage was begun for the first time, in seconds since 1970.
        log_groups: The log groups whose lines were read.
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
        """Add the time of a block to a stage."""
        self.began.setdefault(name, time.time())
        began = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] += time.perf_counter() - began  # type: ignore[assignment]  # seconds, not counts


class BestEffort:
    """Reports batches. A report that fails is counted in the next one, because the batch itself is stored.

    Args:
        report: Reports a batch.
    """

    def __init__(self, report: Callable[[Ledger], None]) -> None:
        self._report = report
        self._unreported = 0

    def __call__(self, ledger: Ledger) -> None:
        """Report a batch, and never raise."""
        ledger.unreported = self._unreported
        try:
            self._report(ledger)
        except Exception:  # noqa: BLE001 - whatever it is, the rows are stored
            self._unreported += 1
            with suppress(Exception):
                Metrics().clear_metrics()  # else the next report would have what this one got together
                traceback.print_exc(file=sys.stderr)
        else:
            self._unreported = 0


def report_batch(
    ledger: Ledger,
    dimensions: Mapping[str, str],
    counts: Mapping[str, int],
    *,
    sizes: Mapping[str, int] | None = None,
    times: Mapping[str, float] | None = None,
    fields: Mapping[str, Any] | None = None,
) -> None:
    """Write the invocation's one summary line, and its metrics.

    Args:
        ledger: The batch's ledger.
        dimensions: The dimensions of every metric: the stage of the pipeline, and what it writes to.
        counts: What is counted, beside what was quarantined by reason.
        sizes: Sizes in bytes, beside that of the batch.
        times: Durations in milliseconds, beside those of writing and of the oldest record's age.
        fields: Fields that only the summary line has.
    """
    counts = {**counts, **{f"quarantined_{reason}": count for reason, count in ledger.quarantined.items()}}
    sizes = {"bytes": ledger.bytes(), **(sizes or {})}
    times = {"write_ms": ledger.write_seconds * 1000, **(times or {})}
    if arrivals := [record["kinesis"]["approximateArrivalTimestamp"] for record in ledger.records]:
        times["iterator_age"] = (time.time() - min(arrivals)) * 1000
    times = {name: round(milliseconds, 3) for name, milliseconds in times.items()}
    Logger().info("batch", extra={**counts, **sizes, **times, **(fields or {})})
    metrics = Metrics()
    for name, text in dimensions.items():
        metrics.add_dimension(name, text)
    for values, unit in (
        (counts, MetricUnit.Count),
        (sizes, MetricUnit.Bytes),
        (times, MetricUnit.Milliseconds),
    ):
        for name, value in values.items():
            metrics.add_metric(name=name, unit=unit, value=value)
    metrics.flush_metrics()


def trace_batch(ledger: Ledger, timings: Timings, environ: Mapping[str, str]) -> None:
    """Add the stages to the invocation's trace, if X-Ray samples it.

    The stages alternate, chunk by chunk: each is one subsegment from when it first began, as long as all of
    its parts together. X-Ray's library is imported by the first invocation that is sampled, after its rows
    are stored: it takes as long to import as all the rest of the consumer.
    """
    if "Sampled=1" not in environ.get("_X_AMZN_TRACE_ID", "") or not environ.get("AWS_XRAY_DAEMON_ADDRESS"):
        return
    from aws_lambda_powertools import Tracer  # noqa: PLC0415 - see above

    # Calls to AWS are not of interest one by one.
    recorder: Any = Tracer(auto_patch=False).provider
    for stage in STAGES:
        if stage not in timings.began:
            continue
        subsegment = recorder.begin_subsegment(f"## {stage}")
        if subsegment is None:
            return  # switched off: POWERTOOLS_TRACE_DISABLED
        subsegment.start_time = timings.began[stage]
        subsegment.put_annotation("batch_size", len(ledger.records))
        subsegment.put_annotation("log_groups", ",".join(sorted(timings.log_groups))[:MAX_ANNOTATION])
        recorder.end_subsegment(timings.began[stage] + timings.seconds[stage])
