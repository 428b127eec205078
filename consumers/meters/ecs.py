"""A record becomes a document of the Elastic Common Schema, with the action that creates it. Pure.

https://www.elastic.co/docs/reference/ecs/ecs-field-reference
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Final

import orjson
from tagline import Record
from tagline.values import format_timestamp

from consumers.lines.extract import Rejected, extract
from consumers.lines.ledger import Ledger
from consumers.lines.places import split_source
from consumers.lines.subscription import LogEvent
from consumers.meters.meter import END_OF_TIME, FIRST_TIME, Entry, Unit, units_of

VERSION: Final = "8.17.0"
# Each day's records are in an index whose name begins so. The index template has the same pattern.
INDEX: Final = "tagline-"
_LONG = range(-(2**63), 2**63)
_FIRST_ERROR = 400


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _long(value: Any) -> int | None:
    is_whole = isinstance(value, int | float) and not isinstance(value, bool) and value == value // 1
    return int(value) if is_whole and int(value) in _LONG else None


def _boolean(value: Any) -> bool | None:
    return value if isinstance(value, bool) else None


def _nanoseconds(value: Any) -> int | None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return _long(round(value * 1_000_000)) if is_number and abs(value) < _LONG.stop else None


# Fields of a record that ECS has a name for. A value of another type stays under `tagline`.
NAMES: Final[Mapping[str, tuple[str, Callable[[Any], Any]]]] = {
    "method": ("http.request.method", _text),
    "request_id": ("http.request.id", _text),
    "request_bytes": ("http.request.body.bytes", _long),
    "status": ("http.response.status_code", _long),
    "response_bytes": ("http.response.body.bytes", _long),
    "path": ("url.path", _text),
    "user_agent": ("user_agent.original", _text),
    "client": ("user.id", _text),
    "duration_ms": ("event.duration", _nanoseconds),
    "error": ("error.message", _text),
    "error_type": ("error.type", _text),
    "trace_id": ("trace.id", _text),
    "function_name": ("faas.name", _text),
    "function_version": ("faas.version", _text),
    "cold_start": ("faas.coldstart", _boolean),
}


def read_documents(ledger: Ledger, tag: str, own_log_groups: str, prefix: str = "") -> Iterator[Unit]:
    """Yield the records of a batch as documents, Kinesis record by Kinesis record.

    Args:
        ledger: The batch's ledger.
        tag: The token that marks a record.
        own_log_groups: How the names of the pipeline's own log groups begin; lines from there are dropped.
        prefix: The setting TAGLINE_PREFIX.
    """
    return units_of(ledger, lambda event: extract_document(event, tag, prefix), tag, own_log_groups)


def extract_document(event: LogEvent, tag: str, prefix: str = "") -> Entry | Rejected | None:
    """Return the document of the record on a log event's line, with the action that creates it.

    Args:
        event: The log event.
        tag: The token that marks a record.
        prefix: The setting TAGLINE_PREFIX.

    Returns:
        The document; None for any other line, also for a tagged line that cannot be read, which the records'
        consumer keeps; a rejection with the reason `meter_invalid`.
    """
    record = extract(event, tag, prefix)
    if not isinstance(record, Record):
        return None
    if not FIRST_TIME <= record.timestamp < END_OF_TIME:
        return Rejected(
            "meter_invalid", f"timestamp is {record.timestamp}: an index is for a day from 2000 to 2099"
        )
    day = datetime.fromtimestamp(record.timestamp / 1000, UTC)
    action = {"create": {"_index": f"{INDEX}{day:%Y.%m.%d}", "_id": document_id(record, event.log_group)}}
    return Entry(record.timestamp, f"{_json(action)}\n{_json(document(record, event))}\n")


def document_id(record: Record, source: str) -> str:
    """Return the id of a record's document: every copy has the same, records that are two rows have two.

    Args:
        record: The record. Its `_id` alone is the application's, and another may use it as well.
        source: The log group that the record came from, qualified.

    Returns:
        A hash of both, shorter than the 512 bytes that an id may have:
        https://www.elastic.co/docs/reference/elasticsearch/mapping-reference/mapping-id-field
    """
    text = f"{source}\0{record.replace(src=None, seq=None).to_line()}"
    return hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=16).hexdigest()


def document(record: Record, event: LogEvent) -> dict[str, Any]:
    """Return a record under ECS's names; what ECS has no name for is under `tagline`.

    Args:
        record: The record.
        event: The log event that it came in.
    """
    region, log_group = split_source(event.log_group)
    cloud: dict[str, Any] = {"provider": "aws", "account": {"id": event.owner}}
    found: dict[str, Any] = {
        "@timestamp": format_timestamp(record.timestamp),
        "ecs": {"version": VERSION},
        "event": {"id": record.id, "kind": "event", "dataset": f"tagline.{record.type}"},
        "log": {"level": record.level.lower()},
        "cloud": {**cloud, "region": region} if region else cloud,
        "aws": {"cloudwatch": {"log_group": log_group, "log_stream": event.log_stream}},
    }
    others: dict[str, Any] = {}
    for name, value in record.fields.items():
        path, convert = NAMES.get(name, ("", _text))
        converted = convert(value) if path else None
        if converted is not None:
            _put(found, path, converted)
        elif value is not None:
            others[name] = value
    outcome = _outcome_of(record.fields)
    if outcome:
        found["event"]["outcome"] = outcome
    return {**found, "tagline": others} if others else found


def _outcome_of(fields: Mapping[str, Any]) -> str:
    if any(fields.get(name) for name in ("error_type", "timed_out", "unfinished")):
        return "failure"
    status = _long(fields.get("status"))
    if status is None:
        return ""
    return "success" if status < _FIRST_ERROR else "failure"


def _put(found: dict[str, Any], path: str, value: Any) -> None:
    *outer, last = path.split(".")
    for name in outer:
        found = found.setdefault(name, {})
    found[last] = value


def _json(value: Any) -> str:
    try:
        return orjson.dumps(value).decode()
    except TypeError:  # integers of more than 64 bits, texts with half a character
        return json.dumps(value)
