"""A report of the magnetic store says its records' times in their own unit."""

import json
from itertools import count

import pytest

from consumers.rows.table import offset
from consumers.rows.timestream.reports import read_report

TIME = 1_795_168_800_000  # 2026-11-20T10:00:00Z


@pytest.mark.parametrize(("unit", "nanoseconds"), [("NANOSECONDS", 1), ("MICROSECONDS", 1_000)])
def test_a_reported_row_is_the_same_in_each_unit_of_its_time(unit: str, nanoseconds: int) -> None:
    identity = next(f"r{number}" for number in count() if offset(f"r{number}", 0) % 1_000 == 0)
    point = TIME * 1_000_000 + offset(identity, 0)
    record = {
        "Dimensions": [{"Name": "source", "Value": "/g"}],
        "MeasureName": "order",
        "MeasureValues": [{"Name": "_id", "Type": "VARCHAR", "Value": identity}],
        "Time": str(point // nanoseconds),
        "TimeUnit": unit,
        "Version": 3,
    }

    (found,) = read_report(json.dumps({"RejectedRecords": [{"Record": record}]}).encode(), 32)

    assert (found.id, found.time, found.source, found.type) == (identity, TIME, "/g", "order")
    assert found.row.time_ns(0) == TIME * 1_000_000 + offset(identity, 1)
