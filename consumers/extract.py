"""A log event becomes a record, nothing of ours, or a rejection: the shapes of line that carry the tag."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from tagline import Record, UnreadableLineError

if TYPE_CHECKING:
    from consumers.subscription import LogEvent

_decode = json.JSONDecoder().raw_decode


@dataclass(frozen=True, slots=True)
class Rejected:
    """Why something cannot be stored: the reason is counted, and the detail is for a person."""

    reason: str
    detail: str


def extract(event: LogEvent, tag: str) -> Record | Rejected | None:
    """Return the record that a log event says.

    Read are the emitter's line; an object behind a runtime's prefix, or behind the bare tag; an object whose
    `message` is the tagged object, or its text (Node in JSON format). A line without an `_id` of its own is
    identified by CloudWatch's event id, and one without a `timestamp` by the EMF envelope's or the event's.

    Returns:
        The record; None for what does not carry the tag; a rejection with reason `unparseable` for what
        carries it and is no readable record.
    """
    message = event.message
    if tag not in message:
        return None
    word = _word(tag).search(message)
    if word is None:
        return None  # part of another word
    start = message.find("{")
    if start < 0:
        return Rejected("unparseable", "carries the tag and no JSON object")
    try:
        line, end = _decode(message, start)
    except (ValueError, RecursionError) as error:
        return Rejected("unparseable", f"not JSON: {error}")
    if message[end:].strip():
        return Rejected("unparseable", f"text after the object, from character {end}")
    if word.end() <= start and not message[word.end() : start].strip():
        line.setdefault("_tag", tag)  # the bare tag right before the object: `... <tag> {"a": 1}`
    tagged = _tagged(line, tag)
    if tagged is None:
        return None  # an object that mentions the tag somewhere else
    aws = tagged.get("_aws")
    stamp = aws.get("Timestamp") if isinstance(aws, dict) else None
    try:
        return Record.from_json(
            tagged,
            default_id=event.id,
            default_timestamp=stamp if type(stamp) is int else event.timestamp,
        )
    except UnreadableLineError as error:
        return Rejected("unparseable", str(error))


def _tagged(line: dict[str, Any], tag: str) -> dict[str, Any] | None:
    """Return the object with the tag: the line's own, or the one in its `message`."""
    if line.get("_tag") == tag:
        return line
    message = line.get("message")
    if isinstance(message, str) and tag in message:
        try:
            message = json.loads(message)
        except (ValueError, RecursionError):
            return None
    return message if isinstance(message, dict) and message.get("_tag") == tag else None


@cache
def _word(tag: str) -> re.Pattern[str]:
    return re.compile(rf"(?<![\w-]){re.escape(tag)}(?![\w-])")
