"""AWS's list prices, each with its page and where it was read. Pure.

Prices change, and contracts have others: `tagline cost --json` names the date and the pages.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import date
from typing import Any, Final

READ: Final = date(2026, 11, 29)
REGION: Final = "us-east-1"
GIB: Final = 1024**3
HOURS_A_MONTH: Final = 730
PROCESSOR_MB: Final = 1_769
SECONDS_A_MONTH: Final = HOURS_A_MONTH * 3_600


@dataclass(frozen=True, slots=True)
class Price:
    """A price.

    Attributes:
        usd: US dollars for the unit.
        unit: What they are for.
        page: AWS's page of it.
        read: Where it was read; "not checked" if no copy of the page could be had.
    """

    usd: float
    unit: str
    page: str
    read: str


_LOGS = "https://aws.amazon.com/cloudwatch/pricing/"
_STREAM = "https://aws.amazon.com/kinesis/data-streams/pricing/"
_LAMBDA = "https://aws.amazon.com/lambda/pricing/"
_S3 = "https://aws.amazon.com/s3/pricing/"
_COPY = "a public copy"
_UNCHECKED = "not checked"

LOGS_KEPT: Final = Price(0.03, "GB-month, packed", _LOGS, _COPY)
METRIC: Final = Price(0.30, "custom metric and month", _LOGS, _COPY)
ALARM: Final = Price(0.10, "metric in an alarm and month", _LOGS, _COPY)
COMPOSITE: Final = Price(0.50, "composite alarm and month", _LOGS, _COPY)
DASHBOARD: Final = Price(3.00, "dashboard and month", _LOGS, _COPY)
STREAM_HOUR: Final = Price(0.04, "hour of a stream, on demand", _STREAM, _UNCHECKED)
STREAM_IN: Final = Price(0.08, "GB in, on demand, each record in whole KiB", _STREAM, _UNCHECKED)
STREAM_OUT: Final = Price(0.04, "GB out, on demand", _STREAM, _UNCHECKED)
STREAM_KEPT: Final = Price(0.10, "GB-month past 24 hours, on demand", _STREAM, _UNCHECKED)
SHARD_HOUR: Final = Price(0.015, "hour of a shard", _STREAM, _COPY)
SHARD_PUT: Final = Price(0.014, "million units of 25 KB put", _STREAM, _UNCHECKED)
SHARD_KEPT: Final = Price(0.020, "hour of a shard that keeps 24 hours to 7 days", _STREAM, _COPY)
LAMBDA_GB_S: Final = Price(0.0000133334, "GB-second, arm64", _LAMBDA, _COPY)
LAMBDA_CALL: Final = Price(0.20, "million invocations", _LAMBDA, _COPY)
S3_PUT: Final = Price(0.005, "1,000 PUT", _S3, _COPY)
S3_GET: Final = Price(0.0004, "1,000 GET", _S3, _COPY)
S3_KEPT: Final = Price(0.023, "GB-month", _S3, _COPY)
S3_COLD: Final = Price(0.0036, "GB-month in GLACIER", _S3, _UNCHECKED)
TRACE: Final = Price(5.00, "million traces", "https://aws.amazon.com/xray/pricing/", _COPY)
SECRET: Final = Price(0.40, "secret and month", "https://aws.amazon.com/secrets-manager/pricing/", _COPY)

# Logs of functions: GB in a month up to which a price holds, since 2025-05-01.
LOG_TIERS: Final = (
    (10 * 1024.0, Price(0.50, "GB of a function's logs, up to 10 TB a month", _LOGS, _COPY)),
    (30 * 1024.0, Price(0.25, "GB, up to 30 TB", _LOGS, _COPY)),
    (50 * 1024.0, Price(0.10, "GB, up to 50 TB", _LOGS, _COPY)),
    (float("inf"), Price(0.05, "GB, past 50 TB", _LOGS, _COPY)),
)


def dated() -> dict[str, dict[str, Any]]:
    """Return all prices of this module by name, for a program; a store's own are in its `StoreCost`."""
    named = {name: each for name, each in globals().items() if isinstance(each, Price)}
    named |= {f"LOGS_{number}": price for number, (_, price) in enumerate(LOG_TIERS, 1)}
    return {name.lower(): asdict(each) for name, each in named.items()}


def logs_usd(gib: float) -> float:
    """Return what so many GiB of functions' logs in a month cost to take in."""
    usd = begin = 0.0
    for end, price in LOG_TIERS:
        usd += max(0.0, min(gib, end) - begin) * price.usd
        begin = end
    return usd


def lambda_usd(calls: float, processor_s: float, memory_mb: float) -> float:
    """Return what invocations cost.

    Args:
        calls: How many there are.
        processor_s: Seconds of a whole processor that they need, all together.
        memory_mb: The function's memory, which brings its share of a processor.
    """
    seconds = processor_s / processor_share(memory_mb)
    return calls / 1e6 * LAMBDA_CALL.usd + seconds * memory_mb / 1024 * LAMBDA_GB_S.usd


def processor_share(memory_mb: float) -> float:
    """Return which part of a processor a function's memory brings: one at 1,769 MB, and no more is used.

    https://docs.aws.amazon.com/lambda/latest/dg/configuration-memory.html
    """
    return min(1.0, memory_mb / PROCESSOR_MB)
