"""CloudWatch Logs: moto's, with what it lacks on the way into Kinesis and into metrics.

moto delivers every event to every subscription, whatever its pattern; numbers events 0, 1, 2; has no
distribution, no size of a record, and sends no control message when a subscription is made. It takes batches
of any size, reports the wrong places of events that it does not take, and keeps the others for ever.
"""

from __future__ import annotations

import base64
import contextlib
import gzip
import hashlib
import json
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import count, pairwise
from typing import Any
from weakref import WeakKeyDictionary

from moto.core.exceptions import JsonRESTError
from moto.kinesis.models import kinesis_backends
from moto.logs import models
from moto.logs.exceptions import InvalidParameterException, LimitExceededException, ResourceNotFoundException
from moto.logs.models import LogGroup, LogsBackend, SubscriptionFilter
from moto.logs.responses import LogsResponse

from onemachine import kinesis, metrics
from onemachine.faults import OF_DELIVERIES, Kind
from onemachine.filter_pattern import InvalidPatternError, Pattern, compiled
from onemachine.functions.log_stream import EVENT_OVERHEAD_BYTES
from onemachine.service import Client, ResourceType, Service
from onemachine.template.stack import Resource

# A record of a stream is at most 1 MiB, unless the stream has another limit.
# https://docs.aws.amazon.com/streams/latest/dev/service-sizes-and-limits.html
MAX_RECORD_BYTES = 1024 * 1024

# https://docs.aws.amazon.com/AmazonCloudWatchLogs/latest/APIReference/API_PutLogEvents.html
MAX_BATCH_BYTES = 1_048_576
MAX_BATCH_EVENTS = 10_000
DAY_MS = 24 * 3600 * 1000
OLDEST_EVENT_MS = 14 * DAY_MS
NEWEST_EVENT_MS = 2 * 3600 * 1000

# Two according to the API's model, five since September 2026 according to its CloudFormation schema.
MAX_SUBSCRIPTIONS = 5

# https://docs.aws.amazon.com/AmazonCloudWatchLogs/latest/APIReference/API_TestMetricFilter.html
MAX_TEST_MESSAGES = 50

# https://docs.aws.amazon.com/AmazonCloudWatchLogs/latest/APIReference/API_FilterLogEvents.html
MAX_PAGE_EVENTS = 10_000

# What a log group may take of this machine's memory. CloudWatch has no such limit.
MAX_GROUP_BYTES = 128 * 1024 * 1024
_EVENT_OBJECTS_BYTES = 250  # what Python needs for an event, beside its text
_DROPPED_AT_ONCE = 1_000

# An event's id has 56 digits, and is its time in milliseconds with 144 bits behind it, like the one in
# AWS's sample, 37199717562907174288355125807040114704837640994633613312 of 1668093027015.
_ID_SEQUENCE_BITS = 144
_ID_DIGITS = 56


@dataclass(slots=True)
class Event:
    """A log event, in half of the memory of moto's."""

    timestamp: int
    message: str
    ingestion_time: int
    sequence: int

    @property
    def event_id(self) -> str:
        return f"{(self.timestamp << _ID_SEQUENCE_BITS) + self.sequence:0{_ID_DIGITS}d}"

    def to_filter_dict(self) -> dict[str, Any]:
        """Return the event as FilterLogEvents returns it."""
        return {"eventId": self.event_id, **self.to_response_dict()}

    def to_response_dict(self) -> dict[str, Any]:
        """Return the event as GetLogEvents returns it."""
        return {"ingestionTime": self.ingestion_time, "message": self.message, "timestamp": self.timestamp}


def install(clock: Callable[[], int] = time.time_ns, max_group_bytes: int = MAX_GROUP_BYTES) -> Delivery:
    """Put our CloudWatch Logs into moto. Calling it again starts it empty, with the clock that is given.

    Args:
        clock: Tells the time, in nanoseconds since 1970.
        max_group_bytes: About how much memory the events of one log group may take before the oldest of them
            are dropped.

    Returns:
        What delivers, so that it can be disturbed.
    """
    delivery = Delivery(clock, max_group_bytes)

    def put_log_events(
        self: Any, log_group_name: str, log_stream_name: str, log_events: list[dict[str, Any]]
    ) -> tuple[str, dict[str, int]]:
        return delivery.accept(self, log_group_name, log_stream_name, log_events)

    def put_subscription_filter(self: Any) -> str:
        return delivery.subscribe(self)

    def filter_log_events(self: Any) -> str:
        return delivery.search(self)

    def get_log_events(self: Any, **asked: Any) -> Any:
        group = asked["log_group_name"], asked["log_group_id"]
        delivery.forget(self._find_log_group(log_group_name=group[0], log_group_id=group[1]))
        if asked["end_time"]:
            asked["end_time"] -= 1  # exclusive, other than FilterLogEvents'
        return _moto_get_log_events(self, **asked)

    # moto has no other place to put this: its server looks these up when a call comes.
    LogsBackend.put_log_events = put_log_events  # type: ignore[method-assign]
    LogsBackend.get_log_events = get_log_events  # type: ignore[assignment, method-assign]
    LogsResponse.put_subscription_filter = put_subscription_filter  # type: ignore[method-assign]
    LogsResponse.filter_log_events = filter_log_events  # type: ignore[method-assign]
    LogsResponse.test_metric_filter = _test_metric_filter  # type: ignore[attr-defined]
    LogGroup.put_subscription_filter = _set_subscription  # type: ignore[method-assign]
    SubscriptionFilter.to_json = _subscription_json  # type: ignore[method-assign]
    models.EventMessageFilter = _pattern  # type: ignore[assignment, attr-defined]
    return delivery


_moto_get_log_events = LogsBackend.get_log_events
_moto_subscription_json = SubscriptionFilter.to_json


def _pattern(text: str | None) -> Pattern:
    """Return a pattern, or the service's answer to one that it does not take."""
    try:
        return compiled(text or "")
    except InvalidPatternError as error:
        raise InvalidParameterException(str(error)) from None


def _test_metric_filter(self: Any) -> str:
    messages = self._get_param("logEventMessages") or []
    if not 0 < len(messages) <= MAX_TEST_MESSAGES:
        raise InvalidParameterException(
            constraint=f"Member must have length between 1 and {MAX_TEST_MESSAGES}",
            parameter="logEventMessages",
            value=len(messages),
        )
    fields = _pattern(self._get_param("filterPattern")).fields
    found = ((number, message, fields(message)) for number, message in enumerate(messages))
    return json.dumps(
        {
            "matches": [
                {"eventNumber": number, "eventMessage": message, "extractedValues": values}
                for number, message, values in found
                if values is not None
            ]
        }
    )


def _set_subscription(
    self: Any, filter_name: str, filter_pattern: str, destination_arn: str, role_arn: str
) -> None:
    filters = self.subscription_filters
    if filter_name in filters:
        filters[filter_name].update(filter_pattern, destination_arn, role_arn)
    elif len(filters) >= MAX_SUBSCRIPTIONS:
        raise LimitExceededException
    else:
        filters[filter_name] = SubscriptionFilter(
            filter_name, self.name, filter_pattern, destination_arn, role_arn
        )


def _subscription_json(self: Any) -> dict[str, Any]:
    return {**_moto_subscription_json(self), "distribution": getattr(self, "distribution", "ByLogStream")}


def admitted(
    events: Sequence[Mapping[str, Any]], now_ms: int, retention_days: int | None
) -> tuple[Sequence[Mapping[str, Any]], dict[str, int]]:
    """Return the events of a batch that PutLogEvents takes, and its `rejectedLogEventsInfo`.

    Args:
        events: The request's events.
        now_ms: The time, in milliseconds since 1970.
        retention_days: The log group's; None keeps events for ever.

    Raises:
        InvalidParameterException: If the batch as a whole is not as the service requires.
    """
    if not 0 < len(events) <= MAX_BATCH_EVENTS:
        raise InvalidParameterException(
            constraint=f"Member must have length between 1 and {MAX_BATCH_EVENTS}",
            parameter="logEvents",
            value=len(events),
        )
    times = [event["timestamp"] for event in events]
    if any(earlier > later for earlier, later in pairwise(times)):
        raise InvalidParameterException(
            "Log events in a single PutLogEvents request must be in chronological order."
        )
    size = sum(_utf8_bytes(event["message"]) for event in events) + EVENT_OVERHEAD_BYTES * len(events)
    if size > MAX_BATCH_BYTES:
        raise InvalidParameterException(f"Upload too large: {size} bytes exceeds limit of {MAX_BATCH_BYTES}")
    too_old = sum(at < now_ms - OLDEST_EVENT_MS for at in times)
    oldest_ms = now_ms - retention_days * DAY_MS if retention_days else 0
    expired = sum(at < oldest_ms for at in times)
    end = len(times) - sum(at > now_ms + NEWEST_EVENT_MS for at in times)
    start = max(too_old, expired)
    if end > start and times[end - 1] - times[start] > DAY_MS:
        raise InvalidParameterException(
            "The batch of log events in a single PutLogEvents request cannot span more than 24 hours."
        )
    rejected = {}
    if too_old:
        rejected["tooOldLogEventEndIndex"] = too_old
    if expired > too_old:
        rejected["expiredLogEventEndIndex"] = expired
    if end < len(times):
        rejected["tooNewLogEventStartIndex"] = end
    return events[start:end], rejected


def _utf8_bytes(text: str) -> int:
    # Half of a surrogate pair can come in JSON, and has no UTF-8.
    return len(text) if text.isascii() else len(text.encode(errors="surrogatepass"))


class Delivery:
    """What becomes of log events: they are kept for a while, delivered to subscriptions, and counted.

    Args:
        clock: Tells the time, in nanoseconds since 1970.
        max_group_bytes: About how much memory the events of one log group may take.

    Attributes:
        watch: Called with each log group's new messages.
    """

    def __init__(self, clock: Callable[[], int], max_group_bytes: int) -> None:
        self.watch: Callable[[str, Sequence[str]], None] | None = None
        self._disturbances: deque[tuple[Kind, float]] = deque()
        self._clock = clock
        self._max_group_bytes = max_group_bytes
        self.metrics = metrics.install(clock)
        kinesis.count_arrivals(self.metrics)
        self._lock = threading.Lock()
        self._sequence = count()
        self._held: WeakKeyDictionary[Any, int] = WeakKeyDictionary()
        self._swept: WeakKeyDictionary[Any, int] = WeakKeyDictionary()
        self._chance = random.Random(0)  # noqa: S311 - partition keys, not secrets: a run repeats

    def accept(
        self, logs: Any, group_name: str, stream_name: str, log_events: Sequence[Mapping[str, Any]]
    ) -> tuple[str, dict[str, int]]:
        """Take a PutLogEvents request.

        Args:
            logs: moto's backend.
            group_name: The log group's name.
            stream_name: The log stream's name.
            log_events: The events, as the request has them.

        Returns:
            The next sequence token, and where in the request the events are that were not taken.
        """
        group = logs.groups.get(group_name)
        if group is None:
            raise ResourceNotFoundException
        stream = group.streams.get(stream_name)
        if stream is None:
            raise ResourceNotFoundException("The specified log stream does not exist.")
        now_ms = self._now_ms()
        taken, rejected = admitted(log_events, now_ms, group.retention_in_days)
        with self._lock:
            events = [
                Event(each["timestamp"], each["message"], now_ms, next(self._sequence)) for each in taken
            ]
            stream.events += events
            stream.last_ingestion_time = datetime.fromtimestamp(now_ms / 1000, UTC).replace(tzinfo=None)
            stream.upload_sequence_token += 1
            size = sum(_utf8_bytes(event.message) + EVENT_OVERHEAD_BYTES for event in events)
            stream.stored_bytes += size
            self._held[group] = self._held.get(group, 0) + sum(map(_memory_bytes, events))
        self.forget(group, swept_within_ms=60_000)
        if events:
            self._count(logs, size, len(events), group_name)
            for subscription in list(group.subscription_filters.values()):
                self._deliver(logs, stream, subscription, events)
            self.metrics.observe(logs, group_name, [(event.timestamp, event.message) for event in events])
            if self.watch is not None:
                self.watch(group_name, [event.message for event in events])
        return f"{stream.upload_sequence_token:056d}", rejected

    def forget(self, group: Any, *, swept_within_ms: int = 0) -> None:
        """Drop events that are past their log group's retention, and the oldest of a group that has too many.

        Args:
            group: moto's log group.
            swept_within_ms: Do not look for the former if that was done in so many milliseconds.
        """
        now_ms = self._now_ms()
        with self._lock:
            streams = list(group.streams.values())
            if group.retention_in_days and not 0 <= now_ms - self._swept.get(group, 0) < swept_within_ms:
                self._swept[group] = now_ms
                oldest_ms = now_ms - group.retention_in_days * DAY_MS
                for stream in streams:
                    stream.events = [event for event in stream.events if event.timestamp >= oldest_ms]
            if self._held.get(group, 0) <= self._max_group_bytes:
                return
            # What was dropped or deleted since was not taken off.
            held = sum(_memory_bytes(event) for stream in streams for event in stream.events)
            while held > self._max_group_bytes * 7 // 8:
                first = min(
                    (each for each in streams if each.events), key=lambda each: each.events[0].sequence
                )
                held -= sum(map(_memory_bytes, first.events[:_DROPPED_AT_ONCE]))
                del first.events[:_DROPPED_AT_ONCE]
            self._held[group] = held

    def subscribe(self, response: Any) -> str:
        """Answer PutSubscriptionFilter: keep the filter and send its stream a control message."""
        asked = response._get_param  # noqa: SLF001 - as moto's own responses do
        logs, group_name, name = response.logs_backend, asked("logGroupName"), asked("filterName")
        destination = asked("destinationArn")
        if destination.split(":")[2] != "kinesis":
            raise InvalidParameterException(
                f"no delivery to {destination} on one machine, only to Kinesis data streams"
            )
        if group_name not in logs.groups:
            raise ResourceNotFoundException
        pattern = _pattern(asked("filterPattern"))
        metrics.check_regex_quota(logs, group_name, pattern, name)
        logs.put_subscription_filter(group_name, name, asked("filterPattern"), destination, asked("roleArn"))
        made = logs.groups[group_name].subscription_filters[name]
        made.distribution = asked("distribution") or "ByLogStream"
        message = "CWL CONTROL MESSAGE: Checking health of destination Kinesis stream."
        envelope = {
            "messageType": "CONTROL_MESSAGE",
            "owner": "CloudwatchLogs",
            "logGroup": "",
            "logStream": "",
            "subscriptionFilters": [],
            "logEvents": [{"id": "", "timestamp": self._now_ms(), "message": message}],
        }
        self._put(destination, self._random_key(), packed(envelope))
        return ""

    def search(self, response: Any) -> str:
        """Answer FilterLogEvents."""
        asked = response._get_param  # noqa: SLF001 - as moto's own responses do
        group = response.logs_backend._find_log_group(  # noqa: SLF001 - as moto's own methods do
            log_group_name=asked("logGroupName"), log_group_id=asked("logGroupIdentifier")
        )
        names, prefix = asked("logStreamNames") or [], asked("logStreamNamePrefix")
        if names and prefix:
            raise InvalidParameterException("logStreamNames and logStreamNamePrefix exclude each other.")
        limit = asked("limit") or MAX_PAGE_EVENTS
        if limit > MAX_PAGE_EVENTS:
            raise InvalidParameterException(
                constraint=f"Member must have value less than or equal to {MAX_PAGE_EVENTS}",
                parameter="limit",
                value=limit,
            )
        pattern = asked("filterPattern") or ""
        _pattern(pattern)
        self.forget(group)
        if prefix:
            names = [name for name in group.streams if name.startswith(prefix)]
        if prefix and not names:
            return json.dumps({"events": [], "searchedLogStreams": []})
        # Streams are always mixed: the service ignores `interleaved` since 2019.
        events, token, searched = group.filter_log_events(
            group.name, names, asked("startTime"), asked("endTime"), limit, asked("nextToken"), pattern, True
        )
        return json.dumps({"events": events, "nextToken": token, "searchedLogStreams": searched})

    def _deliver(self, logs: Any, stream: Any, subscription: Any, events: Sequence[Event]) -> None:
        entries = _selected(compiled(subscription.filter_pattern), events)
        envelope = {
            "messageType": "DATA_MESSAGE",
            "owner": stream.account_id,
            "logGroup": stream.log_group.name,
            "logStream": stream.log_stream_name,
            "subscriptionFilters": [subscription.name],
        }
        names = {
            "LogGroupName": stream.log_group.name,
            "DestinationType": "Kinesis",
            "FilterName": subscription.name,
        }
        by_stream = subscription.distribution == "ByLogStream"
        for data, number in fitting(envelope, entries):
            key = _stream_key(stream) if by_stream else self._random_key()
            if len(data) <= MAX_RECORD_BYTES and self._send(subscription.destination_arn, key, data):
                points = [("ForwardedLogEvents", number, "None"), ("ForwardedBytes", len(data), "Bytes")]
            else:
                points = [("DeliveryErrors", number, "None")]
            self.metrics.record(
                logs, [self.metrics.of_logs(name, value, unit, **names) for name, value, unit in points]
            )

    def _count(self, logs: Any, size: int, number: int, group_name: str) -> None:
        # With the log group's name, and for the account without one.
        self.metrics.record(
            logs,
            [
                self.metrics.of_logs(name, value, unit, **names)
                for name, value, unit in (
                    ("IncomingLogEvents", number, "None"),
                    ("IncomingBytes", size, "Bytes"),
                )
                for names in ({"LogGroupName": group_name}, {})
            ],
        )

    def disturb(self, kind: Kind, *, times: int = 1, seconds: float = 1.0) -> None:
        """Let something happen to the next deliveries.

        Args:
            kind: One of `OF_DELIVERIES`.
            times: How many.
            seconds: How much later.

        Raises:
            ValueError: It is not.
        """
        if kind not in OF_DELIVERIES:
            raise ValueError(f"{kind} happens to no delivery, only {', '.join(OF_DELIVERIES)}")
        self._disturbances.extend([(kind, seconds)] * times)

    def calm(self) -> None:
        """Let nothing happen to deliveries any more."""
        self._disturbances.clear()

    def _send(self, stream_arn: str, partition_key: str, data: bytes) -> bool:
        """Put a record of lines into a stream, with what is to happen to it."""
        try:
            kind, seconds = self._disturbances.popleft()
        except IndexError:
            return self._put(stream_arn, partition_key, data)
        if kind is Kind.LOSE:
            return True
        if kind is Kind.CORRUPT:
            return self._put(stream_arn, partition_key, data[: len(data) * 2 // 3])
        if kind is Kind.DELAY:
            timer = threading.Timer(seconds, self._put, [stream_arn, partition_key, data])
            timer.daemon = True
            timer.start()
            return True
        return self._put(stream_arn, partition_key, data) and self._put(stream_arn, partition_key, data)

    def _put(self, stream_arn: str, partition_key: str, data: bytes) -> bool:
        """Put a record into a stream; return whether there is one."""
        _, _, _, region, account, _ = stream_arn.split(":", 5)
        try:
            stream = kinesis_backends[account][region].describe_stream(
                stream_arn=stream_arn, stream_name=None
            )
        except JsonRESTError:
            return False
        stream.put_record(
            partition_key=partition_key, explicit_hash_key="", data=base64.b64encode(data).decode()
        )
        return True

    def _now_ms(self) -> int:
        return self._clock() // 1_000_000

    def _random_key(self) -> str:
        return f"{self._chance.getrandbits(128):032x}"


def _memory_bytes(event: Event) -> int:
    return len(event.message) + _EVENT_OBJECTS_BYTES


def _stream_key(stream: Any) -> str:
    # A partition key has at most 256 characters, a log stream's name 512. AWS's samples have such keys.
    name = f"{stream.log_group.name}:{stream.log_stream_name}"
    return hashlib.md5(name.encode(), usedforsecurity=False).hexdigest()


def _selected(pattern: Pattern, events: Sequence[Event]) -> list[dict[str, Any]]:
    """Return the events that a pattern selects, as an envelope has them."""
    if pattern.kind != "fields":
        return [
            {"id": event.event_id, "timestamp": event.timestamp, "message": event.message}
            for event in events
            if pattern.matches(event.message)
        ]
    found = ((event, pattern.fields(event.message)) for event in events)
    return [
        {
            "id": event.event_id,
            "timestamp": event.timestamp,
            "message": event.message,
            "extractedFields": {name.removeprefix("$"): value for name, value in fields.items()},
        }
        for event, fields in found
        if fields is not None
    ]


def packed(envelope: Mapping[str, Any]) -> bytes:
    """Return an envelope as CloudWatch Logs writes it into a stream: JSON, gzipped."""
    return gzip.compress(json.dumps(envelope, separators=(",", ":")).encode(), compresslevel=6, mtime=0)


def fitting(
    envelope: Mapping[str, Any], entries: Sequence[Mapping[str, Any]], limit: int = MAX_RECORD_BYTES
) -> list[tuple[bytes, int]]:
    """Return records' data and how many events are in each; none for no events.

    Args:
        envelope: The fields beside the events.
        entries: The events.
        limit: The size of a record, in bytes. One event alone may exceed it.
    """
    if not entries:
        return []
    data = packed({**envelope, "logEvents": entries})
    if len(entries) == 1 or len(data) <= limit:
        return [(data, len(entries))]
    half = len(entries) // 2
    return fitting(envelope, entries[:half], limit) + fitting(envelope, entries[half:], limit)


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
        with self._lock:  # Others that have events for it wait until it is there.
            if (group, stream) not in self._streams:
                with contextlib.suppress(self._client.exceptions.ResourceAlreadyExistsException):
                    self._client.create_log_stream(logGroupName=group, logStreamName=stream)
                self._streams.add((group, stream))
        self._client.put_log_events(
            logGroupName=group,
            logStreamName=stream,
            logEvents=[{"timestamp": timestamp, "message": message} for timestamp, message in events],
        )


def _create_log_group(client: Client, resource: Resource) -> None:
    logs_client = client("logs")
    logs_client.create_log_group(logGroupName=resource.name)
    if days := resource.properties.get("RetentionInDays"):
        logs_client.put_retention_policy(logGroupName=resource.name, retentionInDays=int(days))


def _create_metric_filter(client: Client, resource: Resource) -> None:
    properties = resource.properties
    client("logs").put_metric_filter(
        logGroupName=properties["LogGroupName"],
        filterName=resource.name,
        filterPattern=properties["FilterPattern"],
        metricTransformations=[
            {
                "metricNamespace": each["MetricNamespace"],
                "metricName": each["MetricName"],
                "metricValue": str(each["MetricValue"]),
                **({"unit": each["Unit"]} if "Unit" in each else {}),
                **({"defaultValue": float(each["DefaultValue"])} if "DefaultValue" in each else {}),
                **({"dimensions": _named(each["Dimensions"])} if "Dimensions" in each else {}),
            }
            for each in properties["MetricTransformations"]
        ],
    )


def _named(dimensions: Sequence[Mapping[str, str]]) -> dict[str, str]:
    return {each["Key"]: each["Value"] for each in dimensions}


def _create_subscription(client: Client, resource: Resource) -> None:
    properties = resource.properties
    client("logs").put_subscription_filter(
        logGroupName=properties["LogGroupName"],
        filterName=resource.name,
        filterPattern=properties["FilterPattern"],
        destinationArn=properties["DestinationArn"],
        roleArn=properties["RoleArn"],
        distribution=properties["Distribution"],
    )


_GROUP_ARN = "logs:{region}:{account}:log-group:{name}:*"
SERVICE = Service(
    "logs",
    (
        ResourceType("AWS::Logs::LogGroup", "LogGroupName", arn=_GROUP_ARN, create=_create_log_group),
        ResourceType("AWS::Logs::MetricFilter", create=_create_metric_filter),
        ResourceType("AWS::Logs::SubscriptionFilter", "FilterName", create=_create_subscription),
        ResourceType("AWS::Logs::QueryDefinition", "Name", others={"QueryDefinitionId": "{name}"}),
    ),
    install=lambda _: install(),
)
