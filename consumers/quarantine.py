"""Rejected lines, kept whole in S3 with the reason: `quarantine/<reason>/year=/month=/day=/<record>.jsonl`.

One object holds what was rejected of one Kinesis record for one reason, and is named after that record, so
that a second delivery overwrites it with the same.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol

from botocore.exceptions import BotoCoreError, ClientError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from consumers.extract import Rejected
    from consumers.subscription import LogEvent

PREFIX = "quarantine/"


class Objects(Protocol):
    """What is needed of a bucket."""

    def put(self, key: str, body: bytes) -> None:
        """Write an object.

        Raises:
            OSError: If it is not known to be written.
        """


def key(reason: str, kinesis_record: dict[str, Any]) -> str:
    """Return the object's key for what one record of a Kinesis event holds.

    The day is the record's arrival, which no delivery changes.
    """
    arrived = datetime.fromtimestamp(float(kinesis_record["kinesis"]["approximateArrivalTimestamp"]), UTC)
    name = str(kinesis_record["eventID"]).replace(":", "-")
    return f"{PREFIX}{reason}/year={arrived:%Y}/month={arrived:%m}/day={arrived:%d}/{name}.jsonl"


def lines(kinesis_record: dict[str, Any], rejections: Iterable[tuple[LogEvent | None, Rejected]]) -> bytes:
    """Return the object's body: one JSON line per rejection.

    Args:
        kinesis_record: The record of the Kinesis event that they came from.
        rejections: Each log event with why it was rejected; no event where the whole record was, whose data
            is then kept as it came (base64).
    """
    return "".join(
        json.dumps(
            {
                "reason": rejected.reason,
                "detail": rejected.detail,
                "sequence_number": kinesis_record["kinesis"]["sequenceNumber"],
                "stream": kinesis_record["eventSourceARN"],
                **(
                    {"data": kinesis_record["kinesis"]["data"]}
                    if event is None
                    else {
                        "owner": event.owner,
                        "log_group": event.log_group,
                        "log_stream": event.log_stream,
                        "event_id": event.id,
                        "timestamp": event.timestamp,
                        "message": event.message,
                    }
                ),
            }
        )
        + "\n"
        for event, rejected in rejections
    ).encode()


class Bucket:
    """The objects of an S3 bucket.

    Args:
        client: A boto3 client for S3.
        name: The bucket's name.
    """

    def __init__(self, client: Any, name: str) -> None:
        self._client = client
        self._name = name

    def put(self, key: str, body: bytes) -> None:
        """Write an object.

        Raises:
            OSError: If it is not known to be written.
        """
        try:
            self._client.put_object(Bucket=self._name, Key=key, Body=body)
        except (BotoCoreError, ClientError) as error:
            raise OSError(f"cannot write s3://{self._name}/{key}: {error}") from error
