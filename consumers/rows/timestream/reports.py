"""Reports of the rows that Timestream took and whose points the magnetic store then gave to others. Pure.

Which rows are reported: https://docs.aws.amazon.com/timestream/latest/developerguide/troubleshoot-rejectedrecords.html
AWS documents neither the name nor the layout of a report. This reads JSON in the words of
RejectedRecordsException, with each record as it was sent; anything else is unreadable, and stays where it is.
"""

from __future__ import annotations

from typing import Any, Final

import orjson

from consumers.rows.store import ReportedRow, UnreadableReportError
from consumers.rows.table import ID, OFFSETS, SOURCE, offset
from consumers.rows.timestream.mapping import PackedRecord

# Where the table writes them: MagneticStoreRejectedDataLocation in template.yml.
PREFIX: Final = "timestream-rejected/"
_UNITS: Final = {"SECONDS": 10**9, "MILLISECONDS": 10**6, "MICROSECONDS": 10**3, "NANOSECONDS": 1}


def read_report(report: bytes, attempts: int) -> list[ReportedRow[PackedRecord]]:
    """Return the rows of a report that have to be written again, each at the point after the reported one.

    A row that lost to a higher version is left out: a newer mapping has stored the same record.

    Args:
        report: The object, whole.
        attempts: How many points a record tries.

    Raises:
        UnreadableReportError: If it is not such a report, or has a record that is not from the consumer.
    """
    try:
        rejections = orjson.loads(report)["RejectedRecords"]
        return [
            _row(rejection["Record"], attempts)
            for rejection in rejections
            if (rejection.get("ExistingVersion") or 0) <= int(rejection["Record"].get("Version", 1))
        ]
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UnreadableReportError(f"{type(error).__name__}: {error}") from None


def _row(record: dict[str, Any], attempts: int) -> ReportedRow[PackedRecord]:
    measures = record["MeasureValues"]
    dimensions = tuple((each["Name"], each["Value"]) for each in record["Dimensions"])
    identity = next(item["Value"] for item in measures if item["Name"] == ID)
    time, place = divmod(int(record["Time"]) * _UNITS[record.get("TimeUnit", "MILLISECONDS")], OFFSETS)
    tried = next((number for number in range(attempts) if offset(identity, number) == place), None)
    if tried is None:
        raise ValueError(
            f"{identity!r} is not a record of the consumer's: its time does not follow from its _id"
        )
    body = orjson.dumps([{name: item[name] for name in ("Name", "Type", "Value")} for item in measures])
    packed = PackedRecord(
        identity,
        time,
        record["MeasureName"],
        int(record["Version"]),
        dimensions,
        body,
        len(body),
        tried + 1,
    )
    return ReportedRow(packed, identity, record["MeasureName"], dict(dimensions)[SOURCE], time)
