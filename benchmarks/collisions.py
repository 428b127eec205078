"""Millions of records of one millisecond, each delivered twice by several threads: each is one row, once.

Records of one series that meet at a nanosecond are what the writer walks apart. Here half of all the points
of a millisecond are taken in each of four series, and every record comes again in another order. The store is
in memory, and knows of a point who came first. Takes some minutes; runs only when it is named.
"""

from __future__ import annotations

import random
import threading
import time
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from botocore.exceptions import ClientError

from consumers import sending
from consumers.lines.telemetry import Timings
from consumers.outcomes import Stored
from consumers.rows import table
from consumers.rows.table import Measure, Row
from consumers.rows.timestream import mapping
from consumers.rows.timestream.limits import MAX_RECORDS
from consumers.rows.timestream.writer import Timestream

SERIES, RECORDS = 4, 2_000_000
NOW = 1_795_129_200_000
FREE = -1


class FirstComeStore:
    """A client of timestream-write over the points of one millisecond: the first to come keeps a point."""

    def __init__(self) -> None:
        self.points = [array("q", [FREE]) * table.OFFSETS for _ in range(SERIES)]
        self._one_record = threading.Lock()

    def write_records(self, **request: Any) -> dict[str, Any]:
        """Write records one by one, with those of other requests in between."""
        common = request["CommonAttributes"].get("Dimensions", [])
        taken = []
        for index, record in enumerate(request["Records"]):
            dimensions = {each["Name"]: each["Value"] for each in common + record.get("Dimensions", [])}
            points = self.points[int(dimensions["client"])]
            offset = int(record["Time"]) - NOW * table.OFFSETS
            number = int(record["MeasureValues"][0]["Value"])
            with self._one_record:
                if points[offset] == FREE:
                    points[offset] = number
            if points[offset] != number:
                taken.append({"RecordIndex": index, "Reason": "A record already exists with the same time"})
        if taken:
            refusal = {"Error": {"Code": "RejectedRecordsException"}, "RejectedRecords": taken}
            raise ClientError(refusal, "WriteRecords")
        return {"RecordsIngested": {"Total": len(request["Records"])}}


def run() -> dict[str, float]:
    """Return how many records there were, how often they met, and how many are missing or there twice.

    Raises:
        AssertionError: If any is, or a second delivery changed anything.
    """
    client = FirstComeStore()
    store = Timestream(client, "tagline", "records", sleep=time.sleep, jitter=random.random)
    began = time.perf_counter()
    deliver(store, random.sample(range(RECORDS), RECORDS))
    took = time.perf_counter() - began
    requests = store.traffic()
    once = [array("q", points) for points in client.points]
    deliver(store, random.sample(range(RECORDS), RECORDS))
    found = Counter(number for points in client.points for number in points if number != FREE)
    numbers = {
        "collisions_records": float(RECORDS),
        "collisions_records_per_s": RECORDS / took,
        "collisions_requests_per_100_records": requests.requests / RECORDS * MAX_RECORDS,
        "collisions_missing": float(RECORDS - len(found)),
        "collisions_doubled": float(found.total() - len(found)),
        "collisions_moved_by_redelivery": float(client.points != once),
    }
    if any(numbers[f"collisions_{name}"] for name in ("missing", "doubled", "moved_by_redelivery")):
        raise AssertionError(numbers)
    return numbers


def deliver(store: Timestream, numbers: Iterable[int]) -> None:
    """Write all records, in an order."""
    batches = mapping.requests(rows(numbers))
    with sending.Pool(sending.THREADS) as pool:
        for batch, outcomes in sending.write(store, batches, lambda: 60.0, pool, Timings()):
            if not all(isinstance(outcome, Stored) for outcome in outcomes):
                raise AssertionError(f"{len(batch)} records, {Counter(outcomes)}")


def rows(numbers: Iterable[int]) -> Iterator[tuple[int, mapping.PackedRecord]]:
    """Yield a row for each number, all of one millisecond."""
    packer = mapping.RecordPacker()
    for number in numbers:
        dimensions = {"source": "/aws/lambda/pets", "client": str(number % SERIES)}
        measures = {"_id": Measure("VARCHAR", str(number))}
        yield number, packer.record(Row(str(number), NOW, "api_request", dimensions, measures))
