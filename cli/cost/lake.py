"""The lake store's hops: a file for each batch and hour, read once by the export. Pure."""

from __future__ import annotations

import math
from typing import Final

from cli.cost import prices
from cli.cost.flow import Bite, Flow, HopCost, StoreCost
from cli.cost.prices import GIB, SECONDS_A_MONTH

# consumers/rows/lake/limits.py: a file is written when so many rows wait.
FILE_ROWS: Final = 10_000
# Processor time a row, in seconds: of the consumer at 512 MB, 125 us with the other store, which takes 1.37
# times as long; of the export, by the rows of a file (python -m benchmarks lake: 2,000 and 60).
CONSUMER_LINE_S: Final = 26e-6
EXPORT_FILE_S, EXPORT_ROW_S = 1.45e-3, 11.3e-6
EXPORTER_MB: Final = 1_024
FRAGMENT_DAYS: Final = 8  # the bucket's lifecycle
# https://docs.aws.amazon.com/AmazonS3/latest/userguide/optimizing-performance.html
PUTS_PER_S: Final = 3_500


def files_per_s(flow: Flow) -> float:
    """Return how many files are written a second: one for each batch, or for 10,000 rows of it."""
    return flow.batches_per_s * math.ceil(flow.batch_lines / FILE_ROWS)


def store_bytes_per_s(flow: Flow) -> float:
    """Return the bytes of these files."""
    return files_per_s(flow) * flow.sizes.fragment + flow.rate * flow.sizes.fragment_row


def hops(flow: Flow) -> tuple[HopCost, ...]:
    """Return what the store's files and their export cost."""
    files, size = files_per_s(flow), store_bytes_per_s(flow)
    kept = size * FRAGMENT_DAYS * 86_400 / GIB * prices.S3_KEPT.usd
    puts = files * SECONDS_A_MONTH / 1_000
    calls = files * SECONDS_A_MONTH / 1_000 * prices.S3_GET.usd
    work = prices.lambda_usd(SECONDS_A_MONTH / 86_400, export_s_per_s(flow) * SECONDS_A_MONTH, EXPORTER_MB)
    return (
        HopCost("store: files written and kept", files, "files", size, puts * prices.S3_PUT.usd + kept),
        HopCost("export: files read once", flow.rate, "rows", size, calls + work),
    )


def export_s_per_s(flow: Flow) -> float:
    """Return the processor time of the export for the rows of a second."""
    return files_per_s(flow) * EXPORT_FILE_S + flow.rate * EXPORT_ROW_S


def limits(flow: Flow) -> tuple[Bite, ...]:
    """Return the store's limits."""
    hours = export_s_per_s(flow) * 86_400 / prices.processor_share(EXPORTER_MB) / 3_600
    fix = "several stacks, each with a part of the log groups; or MemorySize of DailyExporter up to 1769"
    return (
        Bite("hours that the export of a day takes", hours, 24, fix),
        Bite("PUT a second to one prefix of S3", files_per_s(flow), PUTS_PER_S, "BatchWindowSeconds up"),
    )


COST: Final = StoreCost("lake", 10_000, 60, CONSUMER_LINE_S, hops, limits, {})
