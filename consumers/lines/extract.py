"""A log event becomes a record, nothing of ours, or a rejection: the shapes of line that carry the tag."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache, lru_cache
from gc import is_tracked
from typing import TYPE_CHECKING, Any

import orjson
from tagline import Record, UnreadableLineError, parse_timestamp

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

_MARKED_OBJECT = re.compile(r'\{\s*"_tag"')
_TOO_DEEP = f"nested deeper than {MAX_DEPTH} levels"
_SPLIT = "; so long a line is split by CloudWatch Logs, at 256 KB: the rest of it came as another event"

_raw_decode = json.JSONDecoder().raw_decode


@dataclass(frozen=True, slots=True)
class Rejected:
    """Why something cannot be stored: the reason is counted, and the detail is for a person."""

    reason: str
    detail: str


def extract(event: LogEvent, tag: str) -> Record | Rejected | None:
    """Return the record that a log event says: `read_line`, then `record_of`.

    Returns:
        The record; None for what does not carry the tag; a rejection with reason `unparseable` for what
        carries it and is no readable record.
    """
    line = read_line(event.message, tag)
    return record_of(line, event) if isinstance(line, dict) else line


def read_line(message: str, tag: str) -> dict[str, Any] | Rejected | None:
    """Return the object on a line that carries the tag, from which `record_of` makes the record.

    Read are the emitter's line; an object behind a runtime's prefix, or behind the bare tag; and an object
    whose `message` is the tagged object, or a text with it (Node and Python in JSON format).

    Returns:
        The object, of which it is certain that it makes a record; None for what does not carry the tag; a
        rejection with reason `unparseable` for what carries it and is no readable record.
    """
    return parse_line(message, tag) if tag in message else None


def parse_line(message: str, tag: str) -> dict[str, Any] | Rejected | None:
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
    return _search(message, tag, is_whole=True)


def record_of(line: dict[str, Any], event: LogEvent) -> Record:
    """Return the record that an object of `read_line`'s says; the object is used up.

    A line without an `_id` of its own is identified by CloudWatch's event id, and one without a `timestamp`
    happened when the EMF envelope says, or CloudWatch.
    """
    if has_long_number(event.message):
        exact = _search(event.message, line["_tag"], is_whole=True)
        line = exact if isinstance(exact, dict) else line
    if has_plain_names(line):
        tag = line.pop("_tag")
        timestamp = milliseconds(line.pop("timestamp"))
        level, type_, identity = line.pop("level"), line.pop("_type"), line.pop("_id")
        src, seq = line.pop("_src"), line.pop("_seq")
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
    aws = line.get("_aws")
    stamp = aws.get("Timestamp") if isinstance(aws, dict) else None
    stamp = parse_timestamp(stamp) if type(stamp) is int else None
    # A malformed log event may have no id; it is not stored, but has to be accounted for.
    return Record.from_json(
        line, default_id=event.id or "-", default_timestamp=event.timestamp if stamp is None else stamp
    )


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


def _search(text: str, tag: str, *, is_whole: bool) -> dict[str, Any] | Rejected | None:
    """Find the object with the tag in a text, whatever is before it, as the standard library reads it.

    Args:
        text: A line, or the `message` of an object on it.
        tag: The token that marks a line.
        is_whole: That it is a line, which is rejected if it begins with the tag and has no object.
    """
    rejected = None
    if is_whole and not _is_unicode(text):
        return _unparseable("not UTF-8, or half a surrogate pair outside of a JSON escape")
    for start, bare in _starts(text, tag).items():
        found = _object(text, tag, start, bare=bare)
        if isinstance(found, dict):
            return found or None
        # What cannot be read is ours if the tag marks it, and else some sentence with a brace in it.
        if rejected is None and (bare or _marked(tag).search(text, start)):
            rejected = found
    if is_whole and "{" not in text and _alone(tag).search(text):
        return _unparseable("carries the tag and no JSON object")
    return rejected


def _starts(text: str, tag: str) -> dict[int, bool]:
    """Return where the object may begin, and whether the bare tag is right before it."""
    starts = {text.find("{"): False}
    marked = _MARKED_OBJECT.search(text)
    if marked is not None:
        starts[marked.start()] = False
    bare = _bare(tag).search(text)
    if bare is not None:
        starts[bare.end() - 1] = True
    starts.pop(-1, None)
    return starts


def _object(text: str, tag: str, start: int, *, bare: bool) -> dict[str, Any] | Rejected | None:
    """Return the object with the tag that begins here; an empty one if all that follows is one without it."""
    try:
        line, end = _raw_decode(text, start)
    except RecursionError:
        return _unparseable(_TOO_DEEP)
    except ValueError as error:
        split = len(text.encode("utf-8", "replace")) >= SPLIT_BYTES
        return _unparseable(f"not JSON: {error}" + _SPLIT * split)
    if bare:
        line.setdefault("_tag", tag)
    found = _tagged(line, tag)
    if found is None:
        return None if text[end:].strip() else {}
    if isinstance(found, Rejected):
        return found
    if text[end:].strip():
        return _unparseable(f"text after the object, from character {end}")
    if is_deep(found):
        return _unparseable(_TOO_DEEP)
    try:
        Record.from_json(found, default_id="-", default_timestamp=0)
    except UnreadableLineError as error:
        return _unparseable(str(error))
    return _as_unicode(found)


def _tagged(line: dict[str, Any], tag: str) -> dict[str, Any] | Rejected | None:
    """Return the object with the tag: the line's own, or the one in its `message`."""
    if line.get("_tag") == tag:
        return line
    message = line.get("message")
    if isinstance(message, str) and tag in message:
        return _search(message, tag, is_whole=False)
    return message if isinstance(message, dict) and message.get("_tag") == tag else None


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


@lru_cache(maxsize=1024)
def _second(text: str) -> int | None:
    """Return the milliseconds of a time without its fraction; the lines of a batch share a few of them."""
    return parse_timestamp(text + "Z")


def milliseconds(value: Any) -> int | None:
    """Return what `parse_timestamp` does, sooner for a time as the emitter writes it."""
    if (
        value.__class__ is str
        and len(value) == len("2026-11-20T10:00:00.123Z")
        and value[19] == "."
        and value[23] == "Z"
    ):
        rest = value[20:23]
        if rest.isdecimal() and rest.isascii():
            second = _second(value[:19])
            if second is not None:
                return second + int(rest)
    return parse_timestamp(value)


@cache
def _bare(tag: str) -> re.Pattern[str]:
    """`... <tag> {`: the tag as a word of its own, right before an object."""
    return re.compile(rf"(?<![\w-]){re.escape(tag)}\s*{{")


@cache
def _marked(tag: str) -> re.Pattern[str]:
    """The key `_tag` with the tag, its quotes escaped where the object is a text in another."""
    return re.compile(rf'"_tag\\*"\s*:\s*\\*"{re.escape(tag)}\\*"')


@cache
def _alone(tag: str) -> re.Pattern[str]:
    """The tag at the beginning of a line, or behind a runtime's prefix."""
    return re.compile(rf"(?:^|\t)\s*{re.escape(tag)}(?![\w-])")
