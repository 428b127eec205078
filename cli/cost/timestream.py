"""Timestream's hops: writes, its two stores, and the questions of the export and the roll-ups. Pure."""

from __future__ import annotations

import math
from typing import Final

from cli.cost.flow import Bite, Flow, HopCost, StoreCost
from cli.cost.prices import GIB, HOURS_A_MONTH, SECONDS_A_MONTH, Price

_PAGE = "https://aws.amazon.com/timestream/pricing/"
WRITE: Final = Price(0.50, "million writes of 1 KiB", _PAGE, "a copy of 2020")
MEMORY: Final = Price(0.036, "GB-hour in the memory store", _PAGE, "a copy of 2020")
MAGNETIC: Final = Price(0.03, "GB-month in the magnetic store", _PAGE, "a copy of 2020")
COMPUTE: Final = Price(0.518, "hour of a compute unit (TCU)", _PAGE, "a public copy")

PRICES: Final = {"write": WRITE, "memory": MEMORY, "magnetic": MAGNETIC, "compute": COMPUTE}

# Processor time of the consumer for a line, in seconds: 125 us at 512 MB (docs/how-to/tune-the-consumer.md).
CONSUMER_LINE_S: Final = 36e-6
REQUEST_ROWS: Final = 100
MEMORY_HOURS, MAGNETIC_DAYS = 1, 7
# A question takes at least 4 units for 30 seconds; the roller asks every hour, the export for 100,000 rows.
# https://docs.aws.amazon.com/timestream/latest/developerguide/tcu.html
QUESTION_UNIT_H: Final = 4 * 30 / 3_600
EXPORT_ROWS: Final = 100_000
# Beside these, a night asks for the minutes of the day before that changed, and of both days for the rows of
# each minute, counted, and for the columns.
NIGHT_QUESTIONS: Final = 5


def requests_per_s(flow: Flow) -> float:
    """Return the requests a second: 100 rows each, and the last of a batch has what is left."""
    return flow.batches_per_s * math.ceil(flow.batch_lines / REQUEST_ROWS)


def hops(flow: Flow) -> tuple[HopCost, ...]:
    """Return what writes, rows and questions cost."""
    requests, size = requests_per_s(flow), flow.rate * flow.sizes.metered_row
    units = requests * math.ceil(size / requests / 1_024)
    kept = size * 3_600 * MEMORY_HOURS / GIB * MEMORY.usd * HOURS_A_MONTH
    kept += size * 86_400 * MAGNETIC_DAYS / GIB * MAGNETIC.usd
    a_night = math.ceil(flow.rate * 86_400 / EXPORT_ROWS) + NIGHT_QUESTIONS
    questions = 1 / 3_600 + a_night / 86_400
    asked = questions * SECONDS_A_MONTH * QUESTION_UNIT_H * COMPUTE.usd
    return (
        HopCost(
            "store: requests of up to 100 rows",
            requests,
            "requests",
            size,
            units * SECONDS_A_MONTH / 1e6 * WRITE.usd,
        ),
        HopCost("store: rows kept", flow.rate, "rows", size, kept),
        HopCost("export and roll-ups: questions, at most", questions, "questions", size, asked),
    )


def limits(_flow: Flow) -> tuple[Bite, ...]:
    """Return the store's limits: AWS publishes none for the rows of a second."""
    return ()


COST: Final = StoreCost("timestream", 500, 5, CONSUMER_LINE_S, hops, limits, PRICES)
