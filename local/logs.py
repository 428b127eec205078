"""CloudWatch Logs: moto's, with what it lacks on the way into Kinesis.

moto delivers every event to every subscription, whatever its pattern says; numbers events 0, 1, 2; knows no
distribution, no size of a record, and sends no control message when a subscription is made.
"""

from __future__ import annotations

import base64
import random
import threading
import time
from collections.abc import Sequence
from typing import Any

from moto.kinesis.models import kinesis_backends
from moto.logs.exceptions import InvalidParameterException
from moto.logs.models import LogStream
from moto.logs.responses import LogsResponse

from consumers.subscription import encode
from local.filter_pattern import InvalidPatternError, matches

# A record of a stream is at most 1 MiB, unless the stream says otherwise.
# https://docs.aws.amazon.com/streams/latest/dev/service-sizes-and-limits.html
MAX_RECORD_BYTES = 1024 * 1024

# Event ids have 56 digits, and begin with the event's time; this one is of November 2022.
_FIRST_ID = 37199717562907174288355125807040114704837640994633613312

_chance = random.Random(0)  # noqa: S311 - partition keys, not secrets: a run repeats


def install() -> None:
    """Put our delivery into moto. Doing it again changes nothing."""
    # moto has no other place to put this: its server looks these up when a call comes.
    LogStream._send_log_events = _deliver  # type: ignore[method-assign]  # noqa: SLF001
    LogsResponse.put_subscription_filter = _put_subscription_filter  # type: ignore[method-assign]


def _put_subscription_filter(self: Any) -> str:
    group, name, pattern = (
        self._get_param(parameter) for parameter in ("logGroupName", "filterName", "filterPattern")
    )
    destination = self._get_param("destinationArn")
    try:
        matches(pattern, "")
    except InvalidPatternError as error:
        raise InvalidParameterException(f"Invalid filter pattern: {error}") from None
    self.logs_backend.put_subscription_filter(group, name, pattern, destination, self._get_param("roleArn"))
    made = self.logs_backend.groups[group].subscription_filters[name]
    made.distribution = self._get_param("distribution") or "ByLogStream"
    _put(
        destination,
        "control",
        {
            "messageType": "CONTROL_MESSAGE",
            "owner": "CloudwatchLogs",
            "logGroup": "",
            "logStream": "",
            "subscriptionFilters": [],
            "logEvents": [
                {
                    "id": "",
                    "timestamp": time.time_ns() // 1_000_000,
                    "message": "CWL CONTROL MESSAGE: Checking health of destination Kinesis stream.",
                }
            ],
        },
    )
    return ""


def _deliver(
    self: Any, service: str, destination_arn: str, filter_name: str, log_events: list[dict[str, Any]]
) -> None:
    if service != "kinesis":
        raise InvalidParameterException(f"no delivery to {service} on one machine, only to kinesis")
    subscription = self.log_group.subscription_filters[filter_name]
    events = [
        {**event, "id": str(_FIRST_ID + int(event["id"]))}
        for event in log_events
        if matches(subscription.filter_pattern, event["message"])
    ]
    by_stream = subscription.distribution == "ByLogStream"
    key = self.log_stream_name if by_stream else f"{_chance.getrandbits(128):032x}"
    envelope = {
        "messageType": "DATA_MESSAGE",
        "owner": self.account_id,
        "logGroup": self.log_group.name,
        "logStream": self.log_stream_name,
        "subscriptionFilters": [filter_name],
    }
    for part in _fitting(envelope, events):
        _put(destination_arn, key, part)


def _fitting(envelope: dict[str, Any], events: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return envelopes for the events that each fit into a Kinesis record; none for no events."""
    if not events:
        return []
    whole = {**envelope, "logEvents": list(events)}
    if len(events) == 1 or len(encode(whole)) <= MAX_RECORD_BYTES:
        return [whole]
    half = len(events) // 2
    return _fitting(envelope, events[:half]) + _fitting(envelope, events[half:])


def _put(stream_arn: str, partition_key: str, envelope: dict[str, Any]) -> None:
    _, _, _, region, account, _ = stream_arn.split(":", 5)
    stream = kinesis_backends[account][region].describe_stream(stream_arn=stream_arn, stream_name=None)
    data = base64.b64encode(encode(envelope)).decode()
    stream.put_record(partition_key=partition_key, explicit_hash_key="", data=data)


class Shipper:
    """Puts what functions write into their log groups, as Lambda does.

    Args:
        client: A boto3 client for CloudWatch Logs.
    """

    def __init__(self, client: Any) -> None:
        self._client = client
        self._streams: set[tuple[str, str]] = set()
        self._lock = threading.Lock()

    def ship(self, group: str, stream: str, events: list[tuple[int, str]]) -> None:
        """Put events, as (milliseconds, message), into a log stream, which is made when it is new."""
        with self._lock:
            new = (group, stream) not in self._streams
            self._streams.add((group, stream))
        if new:
            self._client.create_log_stream(logGroupName=group, logStreamName=stream)
        self._client.put_log_events(
            logGroupName=group,
            logStreamName=stream,
            logEvents=[{"timestamp": timestamp, "message": message} for timestamp, message in events],
        )
