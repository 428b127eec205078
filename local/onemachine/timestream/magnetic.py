"""Reports the records that the magnetic store took no note of: the service does so in S3, some time later.

https://docs.aws.amazon.com/timestream/latest/developerguide/troubleshoot-rejectedrecords.html lists which
records. How a report is named and laid out is in no document that was found, so both are ours here: one JSON
object for a request, in the words of RejectedRecordsException, with each record as it was sent.
"""

import json
import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Protocol

from onemachine.timestream.errors import Rejection


class Put(Protocol):
    """Writes an object into S3."""

    def __call__(self, bucket: str, key: str, body: bytes) -> None:
        """Write it.

        Args:
            bucket: The bucket's name.
            key: The object's.
            body: Its content.

        Raises:
            OSError: It was not written.
        """


def report(
    database: str,
    table: str,
    magnetic_writes: Mapping[str, Any],
    conflicts: Sequence[Rejection],
    *,
    records: Sequence[Mapping[str, Any]],
    common: Mapping[str, Any],
    now: int,
) -> tuple[str, str, bytes] | None:
    """Make the report of one request.

    Args:
        database: The database's name.
        table: The table's name.
        magnetic_writes: The table's `MagneticStoreWriteProperties`.
        conflicts: At least one.
        records: The request's records.
        common: Its common attributes.
        now: Nanoseconds since 1970.

    Returns:
        Bucket, key and content; None where the table has no place for reports.
    """
    place = (magnetic_writes.get("MagneticStoreRejectedDataLocation") or {}).get("S3Configuration") or {}
    if not place.get("BucketName"):
        return None
    moment = datetime.fromtimestamp(now // 1_000_000_000, UTC)
    prefix = (place.get("ObjectKeyPrefix") or "").strip("/")
    key = f"{prefix}/" if prefix else ""
    key += f"{database}/{table}/{moment:%Y-%m-%dT%H:%M:%SZ}-{uuid.uuid4()}.json"
    content = {
        "DatabaseName": database,
        "TableName": table,
        "RejectedRecords": [
            {
                "RecordIndex": conflict.index,
                "Reason": conflict.reason,
                "ExistingVersion": conflict.existing_version,
                "Record": {
                    **common,
                    **records[conflict.index],
                    "Dimensions": [
                        *common.get("Dimensions", []),
                        *records[conflict.index].get("Dimensions", []),
                    ],
                },
            }
            for conflict in conflicts
        ],
    }
    return place["BucketName"], key, json.dumps(content).encode()
