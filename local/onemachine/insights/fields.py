"""The fields that Logs Insights finds in a log event. Pure.

https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/CWL_AnalyzeLogData-discoverable-fields.html
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import Any

from onemachine.insights.values import Decimal, Timestamp, Value

# "CloudWatch Logs Insights can extract a maximum of 200 log event fields from a JSON log."
# https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/CWL_AnalyzeLogData-discoverable-fields.html
MAX_DISCOVERED_FIELDS = 200

SYSTEM_FIELDS = frozenset({"@timestamp", "@message", "@logStream", "@log", "@ingestionTime", "@ptr"})

# A Lambda function's log stream, in its own group or in one that it shares.
_LAMBDA_STREAM = re.compile(r"\d{4}/\d\d/\d\d/.*\[[^\]]+\][0-9a-f]{32}")
_UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
_PLATFORM_LINE = re.compile(rf"(START|END|REPORT) RequestId: ({_UUID})")
# What a runtime writes before a line of a handler's has the request between tabs.
_RUNTIME_LINE = re.compile(rf"[^\t\n]*\t(?:[^\t\n]*\t)?({_UUID})\t")
_REPORT_FIELDS = (
    ("@duration", re.compile(r"\tDuration: ([\d.]+) ms"), 1),
    ("@billedDuration", re.compile(r"\tBilled Duration: ([\d.]+) ms"), 1),
    # Megabytes, in bytes: AWS's own sample query divides by 1000 twice.
    # https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/CWL_QuerySyntax-examples.html
    ("@memorySize", re.compile(r"\tMemory Size: (\d+) MB"), 1_000_000),
    ("@maxMemoryUsed", re.compile(r"\tMax Memory Used: (\d+) MB"), 1_000_000),
    ("@initDuration", re.compile(r"\tInit Duration: ([\d.]+) ms"), 1),
    ("@xrayTraceId", re.compile(r"XRAY TraceId: (\S+)"), None),
    ("@xraySegmentId", re.compile(r"SegmentId: (\S+)"), None),
)


@dataclass(frozen=True)
class Event:
    """One log event of a log group.

    Attributes:
        timestamp: When it happened, in milliseconds since 1970.
        message: The line.
        log_stream: The name of its stream.
        log_group: The name of its group.
        ingestion_time: When CloudWatch Logs received it, in milliseconds since 1970.
        account: The account of the group.
        pointer: What names the event in results; GetLogRecord takes it.
    """

    timestamp: int
    message: str
    log_stream: str = "stream"
    log_group: str = "group"
    ingestion_time: int = 0
    account: str = "123456789012"
    pointer: str = ""

    @property
    def is_of_lambda(self) -> bool:
        """Whether a function wrote it, by the names of its group and its stream."""
        return self.log_group.startswith("/aws/lambda/") or bool(_LAMBDA_STREAM.fullmatch(self.log_stream))

    @cached_property
    def system_fields(self) -> Mapping[str, Value]:
        """The fields that every event has, by name."""
        return {
            "@timestamp": Timestamp(self.timestamp),
            "@message": self.message,
            "@logStream": self.log_stream,
            "@log": f"{self.account}:{self.log_group}",
            "@ingestionTime": Timestamp(self.ingestion_time),
            "@ptr": self.pointer,
        }

    @cached_property
    def discovered_fields(self) -> Mapping[str, Value]:
        """The fields that are found in the message, by name."""
        if not self.is_of_lambda:
            return _discovered(parse_json(self.message))
        return {**_discovered(_first_object(self.message)), **_lambda_fields(self.message)}

    def field(self, name: str) -> Value:
        """Return a field's value; None if it has none."""
        if name in SYSTEM_FIELDS:  # most queries look at no more, and reading JSON takes its time
            return self.system_fields[name]
        return self.discovered_fields.get(name)


def parse_json(document: str) -> Any:
    """Return the value of a JSON text; None if it is not JSON."""
    try:
        return _DECODER.decode(document)
    except (ValueError, RecursionError):
        return None


def _discovered(document: Any) -> dict[str, Value]:
    """Return the fields of a message's object by their names in a query; of anything else there are none."""
    if not isinstance(document, dict):
        return {}
    return {
        f"@{name}" if name.startswith("@") else name: value
        for name, value in islice(_leaves(document), MAX_DISCOVERED_FIELDS)
    }


def _first_object(message: str) -> Any:
    start = message.find("{")
    while start >= 0:
        try:
            return _DECODER.raw_decode(message, start)[0]
        except (ValueError, RecursionError):
            start = message.find("{", start + 1)
    return None


def _leaves(document: dict[str, Any]) -> Iterator[tuple[str, Value]]:
    """Walk a document in its own order: `a.b` is in a map, `a.0` in a list. Nulls are missing."""
    path: list[Iterator[tuple[str, Any]]] = [iter(document.items())]
    while path:
        for name, value in path[-1]:
            if isinstance(value, (dict, list)):
                path.append(_items(name, value))
                break
            if value is not None:
                yield name, value
        else:
            path.pop()


def _items(name: str, value: dict[str, Any] | list[Any]) -> Iterator[tuple[str, Any]]:
    for key, item in value.items() if isinstance(value, dict) else enumerate(value):
        yield f"{name}.{key}", item


def _lambda_fields(message: str) -> dict[str, Value]:
    if platform := _PLATFORM_LINE.match(message):
        fields: dict[str, Value] = {"@type": platform[1], "@requestId": platform[2]}
        for name, pattern, factor in _REPORT_FIELDS if platform[1] == "REPORT" else ():
            if found := pattern.search(message):
                said = found[1]
                fields[name] = said if factor is None else _number(said) * factor
        return fields
    line = _RUNTIME_LINE.match(message)
    return {"@requestId": line[1]} if line else {}


def _number(said: str) -> int | float:
    return float(said) if "." in said else int(said)


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


_DECODER = json.JSONDecoder(parse_float=Decimal, parse_constant=_no_constant)
