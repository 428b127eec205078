"""Write one tagged line per request to stdout, and read it back.

The whole emitter is this file: no dependency, no I/O but one write per record, and no exception of its own
ever reaches the handler. Install it, attach it as a layer, or copy the file.

    from tagline import Emitter, add

    emitter = Emitter()

    @emitter.handler
    def handler(event, context):
        add(client="acme", items=3)          # from anywhere in the call
        return {"statusCode": 200}

The line is described in docs/reference/line.md; `write` and `read` are its two directions.
"""

import json
import os
import sys
import time
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from functools import wraps
from itertools import count
from typing import Any, Callable, Dict, Iterator, List, Mapping, Optional, Protocol, Tuple, TypeVar, Union

__all__ = [
    "DEFAULT_MAX_LINE_BYTES",
    "DEFAULT_TAG",
    "DEFAULT_TYPE",
    "Emitter",
    "Record",
    "UnreadableLineError",
    "add",
    "format_timestamp",
    "parse_timestamp",
    "read",
    "write",
]
__version__ = "0.1.0"

DEFAULT_TAG = "usage_record"
DEFAULT_TYPE = "api_request"

# A CloudWatch Logs event of a function splits at 256 KB, and the second half has no tag:
# https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/cloudwatch_limits_cwl.html
DEFAULT_MAX_LINE_BYTES = 200_000

# Values nested deeper than this are cut; it also ends what refers to itself.
MAX_DEPTH = 32
# What stands for a value that cannot be turned into JSON is at most this long, in characters.
MAX_REPR = 1_000

Timestamp = Union[datetime, int, str]
Function = TypeVar("Function", bound=Callable[..., Any])


class UnreadableLineError(ValueError):
    """A line that should be a record and cannot be read as one; the message says why."""


class Stream(Protocol):
    """What the emitter needs of stdout."""

    def write(self, text: str, /) -> Any:
        """Write the text."""


@dataclass(frozen=True)
class Record:
    """What one line says.

    Attributes:
        id: Unique per record, and the same for every copy of it, for ever.
        timestamp: When the request reached the handler, in milliseconds since 1970-01-01T00:00:00Z.
        fields: The user's own fields by name; values are anything that JSON can say.
        type: Kind of record; it becomes the store's measure name.
        tag: The token that the subscription filter looks for.
        level: What the platform's level filter needs to let the line through.
        src: The emitter that wrote the line, unique per execution environment.
        seq: The line's number in `src`, from 0: a gap is a lost line.
        trunc: Names of the fields that were shortened to keep the line in its budget.
    """

    id: str
    timestamp: int
    fields: Mapping[str, Any] = field(default_factory=dict)
    type: str = DEFAULT_TYPE
    tag: str = DEFAULT_TAG
    level: str = "INFO"
    src: Optional[str] = None
    seq: Optional[int] = None
    trunc: Tuple[str, ...] = ()

    def to_json(self) -> Dict[str, Any]:
        """Return the line's object, the tag first, the user's fields last."""
        line: Dict[str, Any] = {
            "_tag": self.tag,
            "timestamp": format_timestamp(self.timestamp),
            "level": self.level,
            "_type": self.type,
            "_id": self.id,
        }
        if self.src is not None:
            line["_src"] = self.src
        if self.seq is not None:
            line["_seq"] = self.seq
        if self.trunc:
            line["_trunc"] = [str(name) for name in self.trunc]
        for name, value in self.fields.items():
            line[_key(name)] = value
        return line

    @classmethod
    def from_json(
        cls, line: Mapping[str, Any], *, default_id: str = "", default_timestamp: Optional[int] = None
    ) -> "Record":
        """Return the record that a line's object says.

        Keys of the format that this version does not know are left out.

        Args:
            line: The object on the line.
            default_id: What identifies a line that carries no `_id` (lines of other loggers do not).
            default_timestamp: When a line without a readable `timestamp` happened, in milliseconds.

        Raises:
            UnreadableLineError: If the tag, the identity or the time is missing or of the wrong kind.
        """
        tag = line.get("_tag")
        if not isinstance(tag, str) or not tag:
            raise UnreadableLineError(f"_tag is {_bounded(tag)}, not a text")
        identity = line.get("_id", default_id)
        if not isinstance(identity, str) or not identity:
            raise UnreadableLineError(f"_id is {_bounded(identity)}, not a text of at least one character")
        type_ = line.get("_type", DEFAULT_TYPE)
        if not isinstance(type_, str) or not type_:
            raise UnreadableLineError(f"_type is {_bounded(type_)}, not a text of at least one character")
        timestamp = parse_timestamp(line.get("timestamp"))
        if timestamp is None:
            timestamp = default_timestamp
        if timestamp is None:
            raise UnreadableLineError(f"timestamp is {_bounded(line.get('timestamp'))}, not RFC 3339")
        level, src, seq = line.get("level"), line.get("_src"), line.get("_seq")
        trunc = line.get("_trunc")
        return cls(
            id=identity,
            timestamp=timestamp,
            fields={
                _name(key): value
                for key, value in line.items()
                if key not in _RESERVED and (not key.startswith("_") or key.endswith("_"))
            },
            type=type_,
            tag=tag,
            level=level if isinstance(level, str) else "INFO",
            src=src if isinstance(src, str) else None,
            seq=seq if isinstance(seq, int) and not isinstance(seq, bool) else None,
            trunc=tuple(str(name) for name in trunc) if isinstance(trunc, list) else (),
        )


def write(record: Record) -> str:
    """Return the record as one line of ASCII JSON, without the newline.

    Values that JSON cannot say become text; what is not a number (NaN, infinities) becomes null.
    """
    return _encode(record.to_json())


def read(line: str) -> Record:
    """Return the record on a line that `write` wrote.

    Raises:
        UnreadableLineError: If the line is not one JSON object, or not a record.
    """
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UnreadableLineError(f"not JSON: {error}") from None
    if not isinstance(value, dict):
        raise UnreadableLineError(f"a JSON {type(value).__name__}, not an object")
    return Record.from_json(value)


class Emitter:
    """Writes records, one line each.

    Args:
        type: Kind of record, unless one is named when it is written.
        tag: The token that the subscription filter looks for; default `TAGLINE_TAG`, else "usage_record".
        max_line_bytes: Longest line; default `TAGLINE_MAX_LINE_BYTES`, else 200,000. Over it, the largest
            values are shortened and named in `_trunc`.
        stream: Where lines go; default whatever `sys.stdout` is at the time.
        clock: Gives the time in milliseconds since 1970; default the system's.
    """

    def __init__(
        self,
        *,
        type: str = DEFAULT_TYPE,  # noqa: A002 - the line's own word
        tag: Optional[str] = None,
        max_line_bytes: Optional[int] = None,
        stream: Optional[Stream] = None,
        clock: Optional[Callable[[], int]] = None,
    ) -> None:
        self.type = type
        self.tag = tag or os.environ.get("TAGLINE_TAG") or DEFAULT_TAG
        self.max_line_bytes = max_line_bytes or _max_line_bytes()
        self._stream = stream
        self._clock = clock or _now
        self._level = _passing_level()
        self._src = os.urandom(8).hex()
        self._seq = count()

    def emit(
        self,
        fields: Optional[Mapping[str, Any]] = None,
        /,
        *,
        type: Optional[str] = None,  # noqa: A002 - the line's own word
        id: Optional[str] = None,  # noqa: A002 - the line's own word
        timestamp: Optional[Timestamp] = None,
    ) -> None:
        """Write one record now. Raises nothing.

        Args:
            fields: The user's fields by name.
            type: Kind of record, if not the emitter's.
            id: Identity, if it must be the same when the same thing is said again (backfill); else random.
            timestamp: When it happened (a datetime, RFC 3339 text, or milliseconds since 1970); else now.
                One that cannot be read is kept as the field `timestamp_`.
        """
        try:
            fields = dict(fields or {})
            time_ms = self._clock() if timestamp is None else parse_timestamp(timestamp)
            if time_ms is None:
                fields.setdefault("timestamp", timestamp)
                time_ms = self._clock()
            record = Record(
                id=str(id) if id else os.urandom(16).hex(),
                timestamp=time_ms,
                fields=fields,
                type=type or self.type,
                tag=self.tag,
                level=self._level,
                src=self._src,
                seq=next(self._seq),
            )
            line = _within(record, self.max_line_bytes)
            # One write for the text and its newline: two would let threads break each other's lines.
            (self._stream or sys.stdout).write(line + "\n")
        except Exception:
            # A usage record is never worth a failed request; the gap in _seq says that a line is missing.
            return

    @contextmanager
    def record(
        self,
        fields: Optional[Mapping[str, Any]] = None,
        /,
        *,
        type: Optional[str] = None,  # noqa: A002 - the line's own word
        id: Optional[str] = None,  # noqa: A002 - the line's own word
        timestamp: Optional[Timestamp] = None,
    ) -> Iterator[Dict[str, Any]]:
        """Collect fields while the block runs, and write one record when it ends, also when it raises.

        The block gets the fields as a dict; `add` reaches the same dict from anywhere in the call. The time
        of the record is when the block began. `duration_ms` is added, and `error` and `error_type` where the
        block raised; the exception goes on. Arguments are those of `emit`.
        """
        collected: Dict[str, Any] = dict(fields or {})
        began = time.perf_counter()
        if timestamp is None:
            timestamp = self._clock()
        token = _current.set(collected)
        try:
            yield collected
        except BaseException as error:
            collected.setdefault("error", _bounded(error, str))
            collected.setdefault("error_type", error.__class__.__name__)
            raise
        finally:
            _current.reset(token)
            collected.setdefault("duration_ms", round((time.perf_counter() - began) * 1000, 3))
            self.emit(collected, type=type, id=id, timestamp=timestamp)

    def handler(self, function: Function) -> Function:
        """Decorate a Lambda handler: one record per invocation.

        The record has `request_id`, `duration_ms`, and for an HTTP event (API Gateway, payload 1.0 or 2.0)
        `method`, `route`, `path` and the response's `status` (500 where the handler raised); what the handler
        itself says under these names wins.
        """

        @wraps(function)
        def recorded(event: Any, context: Any, *args: Any, **kwargs: Any) -> Any:
            known = _request_fields(event, context)
            with self.record() as fields:
                try:
                    response = function(event, context, *args, **kwargs)
                    if isinstance(response, dict) and "statusCode" in response:
                        known["status"] = response["statusCode"]
                    return response
                except BaseException:
                    if "method" in known:
                        known["status"] = 500
                    raise
                finally:
                    for name, value in known.items():
                        fields.setdefault(name, value)

        return recorded  # type: ignore[return-value]  # wraps() keeps the signature


def add(fields: Optional[Mapping[str, Any]] = None, /, **more: Any) -> None:
    """Add fields to the record that is being collected in this request; outside of one, do nothing."""
    collected = _current.get()
    if collected is not None:
        collected.update(fields or {}, **more)


def format_timestamp(milliseconds: int) -> str:
    """Return milliseconds since 1970 as RFC 3339 UTC with milliseconds."""
    seconds, rest = divmod(milliseconds, 1000)
    return f"{datetime.fromtimestamp(seconds, timezone.utc).isoformat()[:19]}.{rest:03d}Z"


def parse_timestamp(value: Any) -> Optional[int]:
    """Return a datetime, RFC 3339 text or whole number of milliseconds as milliseconds since 1970.

    Text without an offset and datetimes without a zone are taken for UTC.

    Returns:
        The milliseconds, or None for what is no time between the years 1 and 9999.
    """
    try:
        if isinstance(value, str):
            value = datetime.fromisoformat(value[:-1] + "+00:00" if value.endswith(("Z", "z")) else value)
        if isinstance(value, datetime):
            if value.tzinfo is None:
                value = value.replace(tzinfo=timezone.utc)
            since = value - _EPOCH
            value = (since.days * 86_400 + since.seconds) * 1000 + since.microseconds // 1000
        if isinstance(value, int) and not isinstance(value, bool):
            format_timestamp(value)
            return value
    except (ValueError, OverflowError, OSError):
        return None
    return None


_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_RESERVED = frozenset(["timestamp", "level"])
_LEVELS = ("WARN", "ERROR", "FATAL")

_current: "ContextVar[Optional[Dict[str, Any]]]" = ContextVar("tagline", default=None)


def _key(name: object) -> str:
    """Return the key of a user's field on the line: a name of the format's gets `_` appended.

    So does a name that this rule made, which keeps it reversible: `level` is `level_`, `level_` is `level__`.
    """
    text = name if isinstance(name, str) else str(name)
    return text + "_" if text.startswith("_") or text.rstrip("_") in _RESERVED else text


def _name(key: str) -> str:
    """Return the user's name of a field by its key on the line: the inverse of `_key`."""
    return key[:-1] if key.endswith("_") and (key.startswith("_") or key.rstrip("_") in _RESERVED) else key


def _now() -> int:
    return time.time_ns() // 1_000_000


def _max_line_bytes() -> int:
    try:
        return max(1_000, int(os.environ["TAGLINE_MAX_LINE_BYTES"]))
    except (KeyError, ValueError):
        return DEFAULT_MAX_LINE_BYTES


def _passing_level() -> str:
    """Return the level that the function's own filter lets through.

    With LogFormat JSON, Lambda drops lines below the function's ApplicationLogLevel, and takes a line without
    a level for INFO: https://docs.aws.amazon.com/lambda/latest/dg/monitoring-cloudwatchlogs-log-level.html
    """
    level = os.environ.get("AWS_LAMBDA_LOG_LEVEL", "").upper()
    return level if level in _LEVELS else "INFO"


def _request_fields(event: Any, context: Any) -> Dict[str, Any]:
    """Return what an invocation says of itself, by the names that records use."""
    known: Dict[str, Any] = {}
    request_id = getattr(context, "aws_request_id", None)
    if request_id:
        known["request_id"] = request_id
    if not isinstance(event, dict):
        return known
    request = event.get("requestContext")
    http = request.get("http") if isinstance(request, dict) else None
    if isinstance(http, dict):  # payload 2.0: HTTP APIs and function URLs
        route = event.get("routeKey")
        path = event.get("rawPath")
        known["method"] = http.get("method")
        # The template, not the path: a path is as many routes as there are ids in it.
        known["route"] = route.split(" ", 1)[-1] if isinstance(route, str) and route != "$default" else path
        known["path"] = path
    elif "httpMethod" in event:  # payload 1.0: REST APIs and load balancers
        known["method"] = event.get("httpMethod")
        known["route"] = event.get("resource") or event.get("path")
        known["path"] = event.get("path")
    return known


def _bounded(value: Any, text: Callable[[Any], str] = repr) -> str:
    try:
        return str(text(value))[:MAX_REPR]
    except Exception:
        return f"<{type(value).__name__}>"


def _plain(value: Any) -> Any:
    """Return what stands on the line for a value that JSON cannot say."""
    if isinstance(value, (set, frozenset)):
        return list(value)
    if isinstance(value, (bytes, bytearray)):
        return bytes(value).decode("utf-8", "backslashreplace")
    if hasattr(value, "isoformat"):
        return str(value.isoformat())
    return _bounded(value, str)


_fast_encode = json.JSONEncoder(allow_nan=False, separators=(",", ":"), default=_plain).encode


def _encode(line: Dict[str, Any]) -> str:
    try:
        return _fast_encode(line)
    except Exception:
        # Not a number, a cycle, a key that is no text, or an object that fails when asked for its text.
        return _fast_encode(_sane(line, ()))


def _sane(value: Any, above: Tuple[int, ...]) -> Any:
    """Return a copy that JSON can say, whatever the value is; `above` holds the containers around it."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        number = int(value)
        return number if abs(number) < 1 << 64 else _bounded(number)
    if isinstance(value, float):
        return float(value) if value - value == 0 else None  # infinite or not a number
    if isinstance(value, (dict, list, tuple, set, frozenset)):
        if id(value) in above or len(above) > MAX_DEPTH:
            return f"<{type(value).__name__}>"
        above = (*above, id(value))
        if isinstance(value, dict):
            return {
                key if isinstance(key, str) else _bounded(key, str): _sane(item, above)
                for key, item in value.items()
            }
        return [_sane(item, above) for item in value]
    try:
        return _sane(_plain(value), above)
    except Exception:
        return f"<{type(value).__name__}>"


def _within(record: Record, budget: int) -> str:
    """Return the record's line, its largest values cut to one length so that the line fits the budget."""
    line = write(record)
    if len(line) <= budget:
        return line
    # What the values became on the line, so that each can be measured and cut as text.
    said = json.loads(line)
    texts = {name: _encode_value(said[_key(name)]) for name in record.fields}
    spare = budget - len(line) + sum(map(len, texts.values()))
    while spare > 0:
        allowed = _allowed([len(text) for text in texts.values()], spare)
        fields = {
            name: said[_key(name)] if len(text) <= allowed else _shortened(said[_key(name)], text, allowed)
            for name, text in texts.items()
        }
        trunc = tuple(name for name, text in texts.items() if len(text) > allowed)
        line = write(replace(record, fields=fields, trunc=trunc))
        if len(line) <= budget:
            return line
        spare -= len(line) - budget
    # Even the names are too many: the record itself is what can still be said.
    return write(replace(record, fields={}, trunc=("*",)))


def _allowed(sizes: List[int], room: int) -> int:
    """Return the length that, put as a limit on every size, makes their sum at most the room."""
    left = len(sizes)
    for size in sorted(sizes):
        if size * left > room:
            return room // left
        room -= size
        left -= 1
    return max(sizes, default=0)


def _shortened(value: Any, text: str, allowed: int) -> str:
    """Return the beginning of a value as text that takes at most `allowed` bytes on the line."""
    start = value if isinstance(value, str) else text
    # A character takes up to twelve bytes: cut in proportion, then until it fits.
    start = start[: max(0, len(start) * (allowed - 2) // len(text))]
    while start and len(_encode_value(start)) > allowed:
        start = start[: len(start) * 9 // 10]
    return start


def _encode_value(value: Any) -> str:
    return _encode({"": value})[4:-1]
