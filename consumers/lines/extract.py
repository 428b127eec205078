"""A log event becomes a record, nothing of ours, or a rejection: the shapes of line that carry the tag."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from gc import is_tracked
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson
from tagline import Record, UnreadableLineError

from consumers.lines.prefix import begin, begin_message
from consumers.lines.times import milliseconds

if TYPE_CHECKING:
    from consumers.lines.subscription import LogEvent

# How deep a line's values may be nested. What comes behind us writes them as JSON again, which the standard
# library can to some 900 levels, and orjson to 254.
MAX_DEPTH = 200

# A longer line is split by CloudWatch Logs, before a character that would not fit: 256 KiB less 26 bytes.
# https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_PutLogEvents.html
SPLIT_BYTES = 256 * 1024 - 26 - 3

# orjson makes floats of whole numbers beyond 64 bits, which have at least 19 digits. So have many identities,
# but these are behind a quote.
_LONG_DIGITS = b"0" * 19
_DIGITS_AS_ZEROS = bytes.maketrans(b"123456789", b"000000000")
_BEFORE_NUMBER = b" \t\r\n:,[-"

# The keys with which every line of the emitter's begins. They are joined by what no key can hold.
_JOINT = "\ud800"
HEAD = ("_tag", "timestamp", "level", "_type", "_id", "_src", "_seq")
_HEAD = _JOINT.join((*HEAD, ""))

# The keys of Lambda's JSON log format for a line without an exception, in Node and in Python.
# https://docs.aws.amazon.com/lambda/latest/dg/monitoring-cloudwatchlogs-logformat.html
_LAMBDA_REQUIRED = frozenset(["timestamp", "level", "message"])
_LAMBDA_KEYS = _LAMBDA_REQUIRED | {"requestId", "logger", "tenantId"}

_TOO_DEEP = f"nested deeper than {MAX_DEPTH} levels"
_SPLIT = "; so long a line is split by CloudWatch Logs, at 256 KB: the rest of it came as another event"

Decode = Callable[[str, int], tuple[Any, int]]
"""Reads JSON in a text from an index on, and returns the value and the index behind it."""

_raw_decode = json.JSONDecoder().raw_decode


class Rejected(NamedTuple):
    """Why something cannot be stored: the reason is counted, and the detail is for a person."""

    reason: str
    detail: str


def extract(event: LogEvent, tag: str, prefix: str = "") -> Record | Rejected | None:
    """Return the record on a log event's line: `read_line`, then `record_of`."""
    line = read_line(event.message, tag, prefix)
    return record_of(line, event) if isinstance(line, dict) else line


def read_line(message: str, tag: str, prefix: str = "") -> dict[str, Any] | Rejected | None:
    """Return the object on a line that carries the tag, from which `record_of` makes the record.

    Args:
        message: The line.
        tag: The token that marks a line.
        prefix: What may be before the object, beside the runtimes' prefixes: the setting TAGLINE_PREFIX.

    Returns:
        The object, which `record_of` can read; None if the line does not contain the tag, or only
        mentions it; a rejection (`unparseable`, `prefix`) if it is marked as a record and is not one.
    """
    return parse_line(message, tag, prefix) if tag in message else None


def parse_line(message: str, tag: str, prefix: str = "") -> dict[str, Any] | Rejected | None:
    """Return `read_line` of a line that contains the tag. This is the fast path of every line."""
    try:
        line = orjson.loads(message)
        name, kind = line["_id"], line["_type"]
        if (
            line["_tag"] == tag
            and name.__class__ is kind.__class__ is str
            and name
            and kind
            # The garbage collector tracks only dicts that hold other containers, and to count brackets is
            # faster than `is_deep`.
            and not (
                is_tracked(line) and message.count("{") + message.count("[") > MAX_DEPTH and is_deep(line)
            )
        ):
            return line  # type: ignore[no-any-return]  # it has keys, so it is an object
    except (ValueError, LookupError, TypeError):
        pass
    return _parse_slowly(message, tag, prefix)


def record_of(line: dict[str, Any], event: LogEvent) -> Record:
    """Return the record of an object of `read_line`'s; the object is used up.

    A line without an `_id` is identified by CloudWatch's event id. One without a `timestamp` has the time of
    its EMF envelope, or else CloudWatch's. So has one whose `timestamp` cannot be read; that is kept as a
    field of the same name.
    """
    if has_long_number(event.message):
        # Behind a prefix, the standard library has read it already.
        exact = _parse_slowly(event.message, line["_tag"], "")
        line = exact if isinstance(exact, dict) else line
    is_plain = has_plain_names(line)
    written = line.pop("timestamp", None)
    timestamp = milliseconds(written)
    if is_plain:
        tag, level, type_, identity = line.pop("_tag"), line.pop("level"), line.pop("_type"), line.pop("_id")
        src, seq = line.pop("_src"), line.pop("_seq")
        if timestamp is None:
            _keep_time(line, "timestamp", written)
        return Record(
            identity,
            event.timestamp if timestamp is None else timestamp,
            line,
            type_,
            tag,
            level if level.__class__ is str else "INFO",
            src if src.__class__ is str else None,
            seq if seq.__class__ is int else None,
        )
    if timestamp is None:
        _keep_time(line, "timestamp_", written)  # as a user's field of this name is on the line
        aws = line.get("_aws")
        timestamp = milliseconds(aws.get("Timestamp")) if isinstance(aws, dict) else None
    # A malformed log event may have no id; it is not stored, but has to be accounted for.
    return Record.from_json(
        line,
        default_id=event.id or "-",
        default_timestamp=event.timestamp if timestamp is None else timestamp,
    )


def has_unread_time(line: Mapping[str, Any]) -> bool:
    """Tell whether an object of `read_line`'s has a `timestamp` that cannot be read."""
    written = line.get("timestamp")
    return written is not None and milliseconds(written) is None


def _keep_time(line: dict[str, Any], name: str, written: Any) -> None:
    if written is not None:
        line.setdefault(name, written if isinstance(written, str) else json.dumps(written))


def has_plain_names(line: Iterable[str]) -> bool:
    """Tell whether a line's keys are the emitter's own head, and fields that are named as their users did."""
    names = _JOINT.join(line) + _JOINT
    # No key that begins with `_`, and none that ends with it.
    return names.startswith(_HEAD) and "\ud800_" not in names[len(_HEAD) - 1 :] and "_\ud800" not in names


def has_long_number(message: str) -> bool:
    """Tell whether a line may say a whole number that orjson does not read exactly."""
    digits = message.encode().translate(_DIGITS_AS_ZEROS)
    at = digits.find(_LONG_DIGITS)
    while at >= 0:
        if digits[at - 1 : at] in _BEFORE_NUMBER:
            return True
        at = digits.find(_LONG_DIGITS, at + len(_LONG_DIGITS))
    return False


def is_deep(value: Any) -> bool:
    """Tell whether a value is nested deeper than `MAX_DEPTH` levels."""
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if outer.__class__ is dict else outer)
            if inner.__class__ is dict or inner.__class__ is list
        ]
        if not level:
            return False
    return True


def find_object(
    message: str, tag: str, prefix: str = "", decode: Decode = _raw_decode
) -> dict[str, Any] | Rejected | None:
    """Return the object that a line marks as a record, if it is at a place that is trusted.

    These are the rules of docs/reference/trust.md, for every consumer.

    Args:
        message: A line that contains the tag.
        tag: The token that marks a line.
        prefix: The setting TAGLINE_PREFIX.
        decode: Reads JSON in a text from an index on, and returns the value and the index behind it.

    Returns:
        The object, with the tag in `_tag`; None if the line only mentions the tag; a rejection
        (`unparseable`, `prefix`) if it is marked as a record and is not one.
    """
    start = begin(tag, prefix).match(message)
    if start is None:
        return _elsewhere(message, tag)
    if start["tag"] is not None:
        return _behind_tag(message, tag, start.end(), decode)
    found = _object(message, start.end(), decode)
    if isinstance(found, Rejected):
        is_marked = _marked(tag).search(message) or _cut_message(tag).match(message)
        return found if is_marked else None
    line, end = found
    mark = line.get("_tag")
    if mark == tag:
        return line if end is None else _text_behind(end)
    if mark.__class__ is str:
        return None  # a record with another tag, in which a user's text may be
    if end is None and not message[: start.end()].strip() and _is_lambdas(line):
        inner = line["message"]
        if isinstance(inner, str):
            return _in_message(inner, tag, decode)
        if isinstance(inner, dict) and inner.get("_tag") == tag:
            return inner
    return _elsewhere(message, tag)


def _in_message(message: str, tag: str, decode: Decode) -> dict[str, Any] | Rejected | None:
    """Return the object with which the `message` of Lambda's JSON log format begins."""
    start = begin_message(tag).match(message)
    if start is None:
        return None  # What is further inside may be a user's text.
    if start["tag"] is not None:
        return _behind_tag(message, tag, start.end(), decode)
    found = _object(message, start.end(), decode)
    if isinstance(found, Rejected):
        return found if _marked(tag).search(message) else None
    line, end = found
    if line.get("_tag") != tag:
        return None
    return line if end is None else _text_behind(end)


def _behind_tag(text: str, tag: str, start: int, decode: Decode) -> dict[str, Any] | Rejected | None:
    """Return the object behind the bare tag."""
    if not text.startswith("{", start):
        return _unparseable("carries the tag and no JSON object right behind it")
    found = _object(text, start, decode)
    if isinstance(found, Rejected):
        return found
    line, end = found
    if end is not None:
        return _text_behind(end)
    return line if line.setdefault("_tag", tag) == tag else None


def _object(text: str, start: int, decode: Decode) -> tuple[dict[str, Any], int | None] | Rejected:
    """Return the object that begins here, and where there is text behind it; None for nothing."""
    try:
        line, end = decode(text, start)
    except RecursionError:
        return _unparseable(_TOO_DEEP)
    except ValueError as error:
        split = len(text.encode("utf-8", "replace")) >= SPLIT_BYTES
        return _unparseable(f"not JSON: {error}" + _SPLIT * split)
    return line, end if text[end:].strip() else None


def _text_behind(end: int) -> Rejected:
    return _unparseable(f"text after the object, from character {end}")


def _elsewhere(text: str, tag: str) -> Rejected | None:
    """Return why a line is rejected that carries `"_tag":"<tag>"`, but not at a place that is trusted."""
    marked = _marked(tag).search(text)
    if marked is None:
        return None
    if text.rfind("{", 0, marked.start()) < 0:
        return _unparseable("carries the tag outside of an object")
    return Rejected(
        "prefix",
        "the object with the tag is behind a text, or in another object, that is not trusted:"
        " if your application writes it there, set TAGLINE_PREFIX and replay",
    )


def _is_lambdas(line: dict[str, Any]) -> bool:
    """Tell whether an object is of Lambda's JSON log format, and has no fields that an application added."""
    return line.keys() <= _LAMBDA_KEYS and line.keys() >= _LAMBDA_REQUIRED


def _parse_slowly(message: str, tag: str, prefix: str) -> dict[str, Any] | Rejected | None:
    """Return what `parse_line` does, as the standard library reads it, which has exact numbers."""
    found = find_object(message, tag, prefix)
    if not isinstance(found, dict):
        return found
    if not _is_unicode(message):
        return _unparseable("not UTF-8, or half a surrogate pair outside of a JSON escape")
    if is_deep(found):
        return _unparseable(_TOO_DEEP)
    try:
        Record.from_json(found, default_id="-", default_timestamp=0)
    except UnreadableLineError as error:
        return _unparseable(str(error))
    return _as_unicode(found)


def written_number(message: str, tag: str, prefix: str = "") -> tuple[str, int] | None:
    """Return the emitter and the number of a line that was rejected, if the emitter wrote it.

    They are read from a line that begins, at a place that is trusted, as the emitter's lines do: text that a
    user typed is further behind.

    Args:
        message: The line, which may be cut.
        tag: The token that marks a line.
        prefix: The setting TAGLINE_PREFIX.
    """
    start = begin(tag, prefix).match(message)
    found = _emitters_head(tag).match(message, start.end()) if start is not None else None
    return (found[1], int(found[2])) if found is not None else None


def _as_unicode(line: dict[str, Any]) -> dict[str, Any]:
    """Return an object whose texts can be written: half a surrogate pair, a cut emoji, becomes U+FFFD."""
    text = json.dumps(line, ensure_ascii=False)
    if _is_unicode(text):
        return line
    whole: dict[str, Any] = json.loads(text.encode("utf-16", "surrogatepass").decode("utf-16", "replace"))
    return whole


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _unparseable(detail: str) -> Rejected:
    return Rejected("unparseable", detail)


@cache
def _marked(tag: str) -> re.Pattern[str]:
    """The key `_tag` with the tag. In a text of JSON its quotes are escaped, and it is only mentioned."""
    return re.compile(rf'"_tag"\s*+:\s*+"{re.escape(tag)}"')


@cache
def _cut_message(tag: str) -> re.Pattern[str]:
    """The beginning of Lambda's JSON log format whose message is a record: the rest may be cut off."""
    text = r'"[^"\\]*+"'
    keys = rf'(?:"(?:timestamp|level|requestId|logger)"\s*+:\s*+{text}\s*+,\s*+)*+'
    record = rf'(?:\{{\s*+\\"_tag\\"\s*+:\s*+\\"{re.escape(tag)}\\"|{re.escape(tag)}(?![\w-]))'
    return re.compile(rf'\s*+\{{\s*+{keys}"message"\s*+:\s*+"{record}')


@cache
def _emitters_head(tag: str) -> re.Pattern[str]:
    """What the emitter writes first, up to the number."""
    text = r'(?:[^"\\]|\\.)*+'
    texts = "".join(f'"{key}":"{text}",' for key in HEAD[1:5])
    return re.compile(rf'\{{"_tag":"{re.escape(tag)}",{texts}"_src":"({text})","_seq":(\d{{1,18}}+)(?=[,}}])')
