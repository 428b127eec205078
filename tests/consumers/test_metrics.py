"""The consumers' metrics, whole: name, unit and value of each, as CloudWatch reads them from the line."""

import json
import time
from collections.abc import Callable
from datetime import date
from typing import Any

import pytest

from consumers.accounts.accounting import Totals
from consumers.accounts.compaction import Day
from consumers.accounts.handler import report_day
from consumers.lines import telemetry
from consumers.lines.extract import Rejected
from consumers.lines.ledger import Ledger
from consumers.lines.telemetry import Timings
from consumers.meters.handler import report_meters
from consumers.rows.handler import report_rows
from consumers.rows.store import Traffic
from tests.builders import ARRIVED, kinesis_record
from tests.twins import Objects

# Of both consumers of the batch below.
OF_A_BATCH = {
    **dict.fromkeys(("duplicate", "control", "mentioned", "unreported"), ("Count", 0.0)),
    "records": ("Count", 2.0),
    "received": ("Count", 9.0),
    "ignored": ("Count", 3.0),
    "recursion": ("Count", 4.0),
    "stored": ("Count", 5.0),
    "quarantined": ("Count", 1.0),
    "quarantined_late": ("Count", 1.0),
    "unwritten": ("Count", 1.0),
    "bytes": ("Bytes", 7.0),
    "write_ms": ("Milliseconds", 2_500.0),
    # Of the record that came first.
    "iterator_age": ("Milliseconds", 61_250.0),
}
OF_ROWS = {
    **OF_A_BATCH,
    **dict.fromkeys(("not_numbers", "unread_times", "others", "unaccounted"), ("Count", 0.0)),
    "extra": ("Count", 6.0),
    "overflowed": ("Count", 2.0),
    "requests": ("Count", 3.0),
    "retries": ("Count", 2.0),
    "throttled": ("Count", 1.0),
    "bytes_out": ("Bytes", 4_000.0),
    "decode_ms": ("Milliseconds", 250.0),
    "map_ms": ("Milliseconds", 500.0),
    "quarantine_ms": ("Milliseconds", 0.125),
}
OF_A_DAY = {
    "emitted": ("Count", 7.0),
    "delivered": ("Count", 4.0),
    "quarantined": ("Count", 1.0),
    "lost": ("Count", 2.0),
    "implausible": ("Count", 3.0),
    "mentioned": ("Count", 5.0),
}


def batch() -> Ledger:
    records = [kinesis_record("four", 0), kinesis_record("333", 1)]
    records[0]["kinesis"]["approximateArrivalTimestamp"] = ARRIVED + 60
    ledger = Ledger(records, received=9, ignored=3, recursion=4, stored=5, extra=6, overflowed=2)
    ledger.reject(0, None, Rejected("late", "the row's day is over"))
    ledger.keep(Objects())
    ledger.fail(1)
    ledger.write_seconds = 2.5
    return ledger


def of_rows() -> None:
    timings = Timings()
    for stage, seconds in {"decode": 0.25, "map": 0.5, "write": 9.0, "quarantine": 0.000_125}.items():
        timings.seconds[stage] = seconds  # type: ignore[assignment] # seconds, not counts
    report_rows(batch(), "lake", timings, Traffic(requests=3, retries=2, throttled=1, bytes=4_000))


def of_meters() -> None:
    report_meters(batch(), "s3")


def of_a_day() -> None:
    report_day(Day(date(2026, 11, 20), {"/g": Totals(7, 4, {"late": 1}, 2, 3, 5)}))


@pytest.mark.parametrize(
    ("report", "dimensions", "expected"),
    [
        (of_rows, {"stage": "consumer", "store": "lake"}, OF_ROWS),
        (of_meters, {"stage": "meters", "store": "s3"}, OF_A_BATCH),
        (of_a_day, {"stage": "reconcile"}, OF_A_DAY),
    ],
)
def test_each_metric_has_its_unit_and_its_value(
    report: Callable[[], None],
    dimensions: dict[str, str],
    expected: dict[str, tuple[str, float]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    # A name of its own: the logger of a name writes to the stdout of its first use for ever.
    service = f"tagline-{time.monotonic_ns()}"
    monkeypatch.setenv("POWERTOOLS_SERVICE_NAME", service)
    monkeypatch.setenv("POWERTOOLS_METRICS_NAMESPACE", "Tagline")
    monkeypatch.setattr(telemetry, "time", Clock(ARRIVED + 61.25))

    report()

    metrics = json.loads(capsys.readouterr().out.splitlines()[-1])
    (directive,) = metrics["_aws"]["CloudWatchMetrics"]
    assert directive["Namespace"] == "Tagline"
    assert [{name: metrics[name] for name in each} for each in directive["Dimensions"]] == [
        {"service": service, **dimensions}
    ]
    found = {each["Name"]: (each["Unit"], *metrics[each["Name"]]) for each in directive["Metrics"]}
    assert found == expected


class Clock:
    """The module `time` at one time."""

    def __init__(self, now: float) -> None:
        self._now = now

    def time(self) -> float:
        return self._now

    def __getattr__(self, name: str) -> Any:
        return getattr(time, name)
