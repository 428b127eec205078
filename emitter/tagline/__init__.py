"""Write one tagged line per request to stdout, and read it back.

The whole emitter is this file: no dependency, no I/O but one write per record, and no exception of its own
ever reaches the handler. Install it, attach it as a layer, or copy the file.

    from tagline import Emitter, add

    emitter = Emitter()

    @emitter.handler
    def handler(event, context):
        add(client="acme", items=3)          # from anywhere in the call
        return {"statusCode": 200}

The line is described in docs/reference/line.md; `write` and `read` are its two directions. From top to
bottom: the record, the emitter, collecting, invocations, privacy, metrics, values, the size budget, time.

What Lambda's runtime client has not imported before is imported where it is needed, and types are imported
for the type checker alone.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
import time
from collections import deque
from enum import Enum
from functools import wraps
from itertools import count
from json import encoder as json_encoder
from types import SimpleNamespace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from contextvars import ContextVar
    from datetime import datetime
    from typing import Any, Callable, Iterable, Iterator, Mapping, Sequence, TypeVar

    from _typeshed import SupportsWrite

    Fields = Mapping[str, Any]
    Timestamp = datetime | int | str
    Unit = str | tuple[str, int]  # a metric's unit, or that and its resolution in seconds
    Head = tuple[str, str, str, Iterator[int]]  # what lines have in common, and their numbers
    Function = TypeVar("Function", bound=Callable[..., Any])


__version__ = "0.2.0"

DEFAULT_TAG = "usage_record"
DEFAULT_TYPE = "api_request"
# A CloudWatch Logs event of a function splits at 256 KB, and the second half has no tag:
# https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/cloudwatch_limits_cwl.html
DEFAULT_MAX_LINE_BYTES = 200_000
MIN_LINE_BYTES = 1_000
# A function of 128 MB has a twelfth of a processor, a slice at a time: so long before an invocation's end,
# its record can still be written.
DEFAULT_TIMEOUT_MARGIN_MS = 200
MAX_NAME_BYTES = 200  # of a tag, a type, an id each: the store's row holds an id of so many

_CACHED = 1_000  # how many names, tags and combinations of dimensions are remembered


# --- The record and its line -------------------------------------------------------------------------------


class UnreadableLineError(ValueError):
    """A line that should be a record and cannot be read as one; the message says why."""


class Record(SimpleNamespace):
    """What one line says; it does not change.

    It is no dataclass, because `dataclasses` takes longer to import than this whole file.

    Args:
        id: Unique per record, and the same for every copy of it, for ever.
        timestamp: When the request reached the handler, in milliseconds since 1970-01-01T00:00:00Z.
        fields: The user's own fields by name; values are anything that JSON can say.
        type: Kind of record; it becomes the store's measure name.
        tag: The token that the subscription filter looks for.
        level: What the platform's level filter needs to let the line through.
        src: The emitter that wrote the line, unique per execution environment.
        seq: The line's number among those with its tag in `src`, from 0: a gap is a lost line.
        trunc: Names of the fields that were shortened to keep the line in its budget.
    """

    def __init__(  # noqa: PLR0917 - what a line says, in its order
        self,
        id: str,
        timestamp: int,
        fields: Fields | None = None,
        type: str = DEFAULT_TYPE,
        tag: str = DEFAULT_TAG,
        level: str = "INFO",
        src: str | None = None,
        seq: int | None = None,
        trunc: tuple[str, ...] = (),
    ) -> None:
        said = {"id": id, "timestamp": timestamp, "fields": {} if fields is None else fields, "type": type}
        super().__init__(**said, tag=tag, level=level, src=src, seq=seq, trunc=trunc)

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"a record does not change; replace({name}=...) makes another")

    def __reduce__(self) -> tuple[Any, ...]:
        return Record, tuple(vars(self).values())

    def replace(self, **changes: Any) -> Record:
        """Return the record with other values for some of its attributes."""
        return Record(**{**vars(self), **changes})

    def to_json(self) -> dict[str, Any]:
        """Return the line's object, the tag first, the user's fields last."""
        line: dict[str, Any] = {"_tag": self.tag, "timestamp": format_timestamp(self.timestamp)}
        line.update(level=self.level, _type=self.type, _id=self.id)
        if self.src is not None:
            line["_src"] = self.src
        if self.seq is not None:
            line["_seq"] = self.seq
        if self.trunc:
            line["_trunc"] = [str(name) for name in self.trunc]
        line.update((_key(name), value) for name, value in self.fields.items())
        return line

    @classmethod
    def from_json(cls, line: Fields, *, default_id: str = "", default_timestamp: int | None = None) -> Record:
        """Return the record that a line's object says.

        Keys of the format that this version does not know are left out.

        Args:
            line: The object on the line.
            default_id: What identifies a line that carries no `_id` (lines of other loggers do not).
            default_timestamp: When a line without a readable `timestamp` happened, in milliseconds.

        Raises:
            UnreadableLineError: If the tag, the identity or the time is missing or of the wrong kind.
        """
        named = {"_tag": line.get("_tag"), "_id": line.get("_id", default_id)}
        named["_type"] = line.get("_type", DEFAULT_TYPE)
        for key, value in named.items():
            if not isinstance(value, str) or not value:
                raise UnreadableLineError(f"{key} is {_bounded(value)}, not a text of at least one character")
        timestamp = parse_timestamp(line.get("timestamp"))
        if timestamp is None:
            timestamp = default_timestamp
        if timestamp is None:
            raise UnreadableLineError(f"timestamp is {_bounded(line.get('timestamp'))}, not RFC 3339")
        level, src, seq, trunc = (line.get(key) for key in ("level", "_src", "_seq", "_trunc"))
        return cls(
            id=named["_id"],
            timestamp=timestamp,
            fields={
                _name(key): value
                for key, value in line.items()
                if key not in _RESERVED and (not key.startswith("_") or key.endswith("_"))
            },
            type=named["_type"],
            tag=named["_tag"],
            level=level if isinstance(level, str) else "INFO",
            src=src if isinstance(src, str) else None,
            seq=seq if isinstance(seq, int) and not isinstance(seq, bool) else None,
            trunc=tuple(str(name) for name in trunc) if isinstance(trunc, list) else (),
        )


def write(record: Record) -> str:
    """Return the record as one line of ASCII JSON, without the newline.

    Values that JSON cannot say become text; what is not a number (NaN, infinities) becomes null.
    """
    line = record.to_json()
    try:
        return _encode_any(line)
    except Exception:
        return _encode(_sane(line))


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


_RESERVED = frozenset(["timestamp", "level"])


def _key(name: object) -> str:
    """Return the key of a user's field on the line: a name of the format's gets `_` appended.

    So does a name that this rule made, which keeps it reversible: `level` is `level_`, `level_` is `level__`.
    """
    text = name if isinstance(name, str) else _bounded(name, str)
    return text + "_" if text.startswith("_") or text.rstrip("_") in _RESERVED else text


def _name(key: str) -> str:
    """Return the user's name of a field by its key on the line: the inverse of `_key`."""
    return key[:-1] if key.endswith("_") and (key.startswith("_") or key.rstrip("_") in _RESERVED) else key


# --- The emitter -------------------------------------------------------------------------------------------


class Emitter:
    """Writes records, one line each.

    Args:
        type: Kind of record, unless one is named when it is written.
        tag: The token that the subscription filter looks for; default `TAGLINE_TAG`, else "usage_record".
        max_line_bytes: Longest line; default `TAGLINE_MAX_LINE_BYTES`, else 200,000. Over it, the largest
            values are shortened and named in `_trunc`.
        stream: Where lines go; default whatever `sys.stdout` is at the time.
        clock: Gives the time in milliseconds since 1970; default the system's.
        privacy: What must not reach the line; default `Privacy()`, which masks credentials.
        metrics: Numeric fields that become CloudWatch metrics, each with its unit, or its unit and 1 for a
            resolution of one second: `{"items": "Count", "latency_ms": ("Milliseconds", 1)}`.
        namespace: The metrics' namespace; needed with `metrics`.
        dimensions: Sets of fields by whose text the metrics are told apart; default one without any.
        timeout_margin_ms: How much time an invocation has left when its record is written as timed out;
            default `TAGLINE_TIMEOUT_MARGIN_MS`, else 200; 0 for never.

    Raises:
        ValueError: If metrics, namespace or dimensions are not what CloudWatch takes, or the longest line is
            under 1,000 bytes. Nothing later raises.
    """

    def __init__(
        self,
        *,
        type: str = DEFAULT_TYPE,
        tag: str | None = None,
        max_line_bytes: int | None = None,
        stream: SupportsWrite[str] | None = None,
        clock: Callable[[], int] | None = None,
        privacy: Privacy | None = None,
        metrics: Mapping[str, Unit] | None = None,
        namespace: str = "",
        dimensions: Sequence[Sequence[str]] = ((),),
        timeout_margin_ms: int | None = None,
    ) -> None:
        if max_line_bytes is None:
            longest = _whole(os.environ.get("TAGLINE_MAX_LINE_BYTES"), DEFAULT_MAX_LINE_BYTES)
            max_line_bytes = max(MIN_LINE_BYTES, longest)
        if max_line_bytes < MIN_LINE_BYTES:
            raise ValueError(f"max_line_bytes is {max_line_bytes}, and at least {MIN_LINE_BYTES}")
        if timeout_margin_ms is None:
            timeout_margin_ms = _whole(os.environ.get("TAGLINE_TIMEOUT_MARGIN_MS"), DEFAULT_TIMEOUT_MARGIN_MS)
        self.type = type
        self.tag = tag or os.environ.get("TAGLINE_TAG") or DEFAULT_TAG
        self.max_line_bytes = max_line_bytes
        self.timeout_margin_ms = timeout_margin_ms
        # With LogFormat JSON, Lambda drops lines below the function's level, and those without one as INFO:
        # https://docs.aws.amazon.com/lambda/latest/dg/monitoring-cloudwatchlogs-log-level.html
        level = os.environ.get("AWS_LAMBDA_LOG_LEVEL", "").upper()
        self._level = level if level in ("WARN", "ERROR", "FATAL") else "INFO"
        self._stream = stream
        self._clock = clock
        self._privacy = privacy or Privacy()
        self._metrics = _Metrics(namespace, metrics, dimensions) if metrics else None
        self._encode = _quickest_encoder(self._privacy.plain)
        started = os.environ.get("AWS_LAMBDA_INITIALIZATION_TYPE")
        self._cold = started != "provisioned-concurrency"
        # Nothing that has to be unique is in store where a snapshot is taken, whoever restores it.
        self._stock = 1 if started == "snap-start" else 64
        self._second = (0, "1970-01-01T00:00:00.")  # the last second that was said, and how
        self._life = -1
        _follow_the_process()

    def emit(  # noqa: C901 - the way of every line: to call for its steps takes time
        self,
        fields: Fields | None = None,
        /,
        *,
        type: str | None = None,
        id: str | None = None,
        timestamp: Timestamp | None = None,
        tag: str | None = None,
    ) -> None:
        """Write one record now. Raises nothing.

        Args:
            fields: The user's fields by name.
            type: Kind of record, if not the emitter's.
            id: Identity, if it must be the same when the same thing is said again (backfill); else random.
            timestamp: When it happened (a datetime, RFC 3339 text, or milliseconds since 1970); else now.
                One that cannot be read is kept as the field `timestamp_`.
            tag: The tag, if not the emitter's.
        """
        try:
            said: dict[Any, Any] = fields if fields.__class__ is dict else _joined({}, fields)
            now = self._clock() if self._clock else time.time_ns() // 1_000_000
            time_ms = now if timestamp is None else parse_timestamp(timestamp)
            if time_ms is None:
                said, time_ms = {"timestamp": timestamp, **said}, now
            if self._life != _life:
                self._renew()
            before, middle, after, numbers = self._heads.get((tag, type)) or self._head(tag, type)
            # The number is taken first: whatever fails from here on leaves a gap that says so.
            number = next(numbers)
            second, text = self._second
            if not second <= time_ms < second + 1000:
                second = time_ms // 1000 * 1000
                text = format_timestamp(second)[:-4]
                self._second = (second, text)
            if id is None or id == "":
                try:
                    identity = self._ids.pop()
                except IndexError:
                    identity = self._draw_ids()
            else:
                identity = _short_name(id)
            millis = str(time_ms - second + 1000)[1:]  # to have it padded takes twice as long
            start = f"{before}{text}{millis}Z{middle}{identity}{after}{number}"
            try:
                body = self._encode(said)
                fine = self._privacy.lets_through(said, body)
            except _NOT_OURS:
                raise
            except BaseException:
                fine = False
            if not fine:
                said, body = self._looked_at(said)
            envelope = self._metrics.envelope(said, time_ms, now) if self._metrics else ""
            line = f"{start}{envelope},{body[1:]}\n" if said else start + "}\n"
            if len(line) > self.max_line_bytes + 1:
                line = self._shortened(start, json.loads(body), time_ms, now) + "\n"
            # One write for the text and its newline: two would let threads break each other's lines.
            (self._stream or sys.stdout).write(line)
        except Exception:
            # A usage record is never worth a failed request; the gap in _seq says that a line is missing.
            return

    def record(
        self,
        fields: Fields | None = None,
        /,
        *,
        type: str | None = None,
        id: str | None = None,
        timestamp: Timestamp | None = None,
        tag: str | None = None,
        event: Any = None,
        context: Any = None,
    ) -> Draft:
        """Collect fields while a `with` block runs, and write one record when it ends, also when it raises.

        The block gets the fields as a dict; `add` reaches the same dict from anywhere in the call.
        `duration_ms` is added, and `error` and `error_type` where the block raised; the exception goes on.

        Args:
            fields: Fields to begin with.
            type: As for `emit`.
            id: As for `emit`.
            timestamp: When it happened, if not when the block began.
            tag: As for `emit`.
            event: What Lambda invoked the function with: gives `method`, `route`, `path`, `correlation_id`.
            context: Lambda's context: gives `request_id`, the function, memory and times. The record is
                written as `timed_out` when little of the invocation's time is left.
        """
        how = {"type": type, "id": id, "timestamp": timestamp, "tag": tag}
        return Draft(self, _joined({}, fields), how, event, context)

    def begin(self, fields: Fields | None = None, /, **how: Any) -> Draft:
        """Begin a record that `end` writes, here or anywhere in the request. The arguments are `record`'s.

        The record of an earlier invocation that was begun with its context and not ended, because the handler
        raised, is written now, as `unfinished`.
        """
        draft = self.record(fields, **how)
        draft.begin()
        return draft

    def end(self, fields: Fields | None = None, /) -> bool:
        """Write the record that was begun last in this request, with some more fields.

        Returns:
            Whether there was one.
        """
        draft = _current()
        return draft.end(fields) if draft is not None else False

    def handler(self, function: Function) -> Function:
        """Decorate a Lambda handler, or an async function like one: one record per invocation.

        The record has what `record` takes from event and context, and for an HTTP event (API Gateway, payload
        1.0 or 2.0) the response's `status`, 500 where the handler raised; what the handler itself says under
        these names wins.
        """

        @wraps(function)
        def recorded(event: Any, context: Any, *args: Any, **kwargs: Any) -> Any:
            draft = self.record(event=event, context=context)
            with draft:
                return draft.answered(function(event, context, *args, **kwargs))

        @wraps(function)
        async def awaited(event: Any, context: Any, *args: Any, **kwargs: Any) -> Any:
            draft = self.record(event=event, context=context)
            with draft:
                return draft.answered(await function(event, context, *args, **kwargs))

        is_async = getattr(getattr(function, "__code__", None), "co_flags", 0) & 0x80  # CO_COROUTINE
        return awaited if is_async else recorded  # type: ignore[return-value]  # wraps() keeps the signature

    def _renew(self) -> None:
        """Be another source of lines: the first, or that of a process that is a copy (fork, snapshot)."""
        with _naming:
            if self._life != _life:
                self._src = os.urandom(8).hex()
                self._ids: list[str] = []
                self._numbers: dict[str, Iterator[int]] = {}
                self._heads: dict[tuple[str | None, str | None], Head] = {}
                self._life = _life

    def _draw_ids(self) -> str:
        """Return an id at random, and put more in store: to ask the kernel for each takes longer."""
        drawn = os.urandom(16 * self._stock).hex(" ", 16).split()
        identity = drawn.pop()
        self._ids.extend(drawn)
        return identity

    def _head(self, tag: str | None, type: str | None) -> Head:
        """Return what lines of a tag and type have in common; each tag, filtered alone, has its numbers."""
        name = _short_name(tag or self.tag)
        with _naming:
            numbers = self._numbers.setdefault(name, count())
        head = (
            f'{{"_tag":"{name}","timestamp":"',
            f'","level":"{self._level}","_type":"{_short_name(type or self.type)}","_id":"',
            f'","_src":"{self._src}","_seq":',
            numbers,
        )
        if len(self._heads) < _CACHED:
            self._heads[tag, type] = head
        return head

    def _looked_at(self, fields: dict[Any, Any]) -> tuple[dict[str, Any], str]:
        """Return the fields by their keys on the line, and their JSON, each value having been looked at."""
        clean = self._privacy.clean
        try:
            said = {_key(name): value for name, value in clean(fields).items()}
            return said, self._encode(said)
        except _NOT_OURS:
            raise
        except BaseException:
            # NaN, a cycle, an object that fails when asked for its text, or a thread that still adds.
            said = {_key(name): value for name, value in clean(_sane(fields)).items()}
            return said, _encode(said)

    def _shortened(self, start: str, said: dict[str, Any], time_ms: int, now: int) -> str:
        """Return the line with its largest values cut to one length, so that it fits the budget."""
        texts = {key: _encode(value) for key, value in said.items()}
        spare = self.max_line_bytes - len(start) - sum(len(_encode(key)) + 2 for key in said)
        while spare > 0:
            allowed = _allowed([len(text) for text in texts.values()], spare)
            trunc = [key for key, text in texts.items() if len(text) > allowed]
            short = {**said, **{key: _cut(said[key], texts[key], allowed) for key in trunc}}
            whole = {key: said[key] for key in said.keys() - trunc}
            envelope = self._metrics.envelope(whole, time_ms, now) if self._metrics else ""
            names = _encode([_name(key) for key in trunc])
            line = f'{start},"_trunc":{names}{envelope},{_encode(short)[1:]}'
            if len(line) <= self.max_line_bytes:
                return line
            spare -= len(line) - self.max_line_bytes
        # Even the names are too many: the record itself is what can still be said.
        return f'{start},"_trunc":["*"]}}'


# How many processes this one descends from, by fork or by snapshot: an emitter of an earlier one renews.
_life = 0
_following = False
# Of several threads, one names a source and begins to count. A signal or a finalizer may emit meanwhile.
_naming = threading.RLock()


def _follow_the_process() -> None:
    """Learn when this process becomes a copy: a child, or an environment restored from a snapshot."""
    global _following
    if _following:
        return
    _following = True
    os.register_at_fork(after_in_child=_begin_another_life)
    if os.environ.get("AWS_LAMBDA_INITIALIZATION_TYPE") == "snap-start":
        # https://docs.aws.amazon.com/lambda/latest/dg/snapstart-runtime-hooks-python.html
        try:
            from snapshot_restore_py import register_after_restore  # type: ignore[import-untyped]
        except ImportError:
            return  # an emitter is a source from its first line on, which most write after the restore
        register_after_restore(_begin_another_life)


def _begin_another_life() -> None:
    global _life, _naming, _watcher, _watching
    _life, _naming = _life + 1, threading.RLock()
    if _watcher is not None and not _watcher.is_alive():  # threads are in a snapshot, and not in a child
        _watcher, _watching = None, threading.Lock()
    for draft in list(_open.values()):
        draft.open = False  # its writer is the process that began it
    _open.clear()
    _due.clear()


def _short_name(value: object) -> str:
    """Return a tag, type or id as it stands between quotes; where it is too long, a digest ends it."""
    text = value if isinstance(value, str) else _bounded(value, str)
    name = _encode(text)[1:-1]
    if len(name) <= MAX_NAME_BYTES:
        return name
    from hashlib import blake2b

    digest = blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
    return _encode(_cut(text, name + '""', MAX_NAME_BYTES + 1 - len(digest)))[1:-1] + "~" + digest


def _whole(text: str | None, default: int) -> int:
    try:
        return int(text or default)
    except ValueError:
        return default


# --- Collecting --------------------------------------------------------------------------------------------


class Draft:
    """A record that is being collected, and is written once, whoever ends it first.

    `Emitter.record` and `Emitter.begin` make it. As a context manager, it gives the dict of its fields.
    """

    def __init__(
        self, emitter: Emitter, fields: dict[str, Any], how: dict[str, Any], event: Any, context: Any
    ) -> None:
        self.fields = fields
        self.open = False
        self._emitter = emitter
        self._how = how
        self._event = event
        self._context = context
        self._known: dict[str, Any] = {}

    def begin(self) -> None:
        """Begin to collect: from now on `add` reaches this record from everywhere in the request."""
        is_invoked = self._event is not None or self._context is not None
        if is_invoked:
            try:
                self._known = _invocation_fields(self._event, self._context)
            except Exception:
                self._known = {}  # they are none of Lambda's
            self._known["cold_start"], self._emitter._cold = self._emitter._cold, False
        outer = _own()
        if outer is not None and not outer.open:
            outer = None
        mine = self._known.get("request_id")
        if mine and outer is not None and outer._known.get("request_id", mine) != mine:
            # One invocation at a time runs in an environment: the other one is over, and nobody ended it.
            outer.end({"unfinished": True})
            outer = None
        self._outer = outer
        self._began = time.perf_counter()
        if self._how["timestamp"] is None:
            clock = self._emitter._clock
            self._how["timestamp"] = clock() if clock else time.time_ns() // 1_000_000
        self.open = True
        _open[id(self)] = self
        _set_own(self)
        if self._context is not None and self._emitter.timeout_margin_ms > 0:
            try:
                left_ms = self._context.get_remaining_time_in_millis()
                _watch(self, (left_ms - self._emitter.timeout_margin_ms) / 1000)
            except Exception:
                return  # its time is not known

    def add(self, fields: Fields | None = None, /, **more: Any) -> bool:
        """Add fields.

        Returns:
            Whether the record took them, which it does until it is written.
        """
        if self.open:
            _joined(self.fields, fields).update(more)
        return self.open

    def answered(self, response: Any) -> Any:
        """Take the `status` of a Lambda response, and return the response."""
        try:
            if isinstance(response, dict) and "statusCode" in response:
                self._known["status"] = response["statusCode"]
        except Exception:
            self._known.pop("status", None)  # an answer that cannot be asked has no status
        return response

    def end(self, fields: Fields | None = None, /, *, error: BaseException | None = None) -> bool:
        """Write the record, unless it has been written.

        Args:
            fields: Fields to add before.
            error: What ended it, if something did.

        Returns:
            Whether it was written now.
        """
        if _own() is self:
            outer = self._outer
            while outer is not None and not outer.open:
                outer = outer._outer
            _set_own(outer)
        if _open.pop(id(self), None) is None:  # of two threads, one gets it
            return False
        _due.pop(self, None)
        # First, so that whoever is told that a field was taken finds it on the line.
        self.open = False
        said = self._known
        if error is not None:
            said.update(error=_bounded(error, str), error_type=_class_name(error))
            if "method" in said:
                said["status"] = 500
        said["duration_ms"] = round((time.perf_counter() - self._began) * 1000, 3)
        try:
            said["remaining_ms"] = self._context.get_remaining_time_in_millis()
        except Exception:
            said.pop("remaining_ms", None)  # no context of Lambda's
        self._emitter.emit(_joined(_joined(said, self.fields), fields), **self._how)
        return True

    def __enter__(self) -> dict[str, Any]:
        self.begin()
        return self.fields

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self.end(error=error)


def _joined(into: dict[Any, Any], fields: Any) -> dict[Any, Any]:
    """Add fields to others, and return them. What is no mapping costs no record: it is a field itself."""
    try:
        into.update(fields or ())
    except Exception:
        into["fields"] = fields
    return into


def add(fields: Fields | None = None, /, **more: Any) -> bool:
    """Add fields to the record that is being collected in this request; outside of one, do nothing.

    Tasks belong to the request that started them. So does a thread that begins no record of its own, as long
    as one request at a time is in the process, as in Lambda; where there are several, see `carry`.

    Returns:
        Whether a record took them.
    """
    draft = _current()
    return draft.add(fields, **more) if draft is not None else False


def add_copy(fields: Fields | None = None, /, **more: Any) -> bool:
    """Add fields as `add` does, as they are now: what changes in them later does not change the record."""
    draft = _current()
    return draft.add(_sane({**_joined({}, fields), **more})) if draft is not None else False


def carry(function: Function) -> Function:
    """Return the function so that it adds to the record of now, whatever thread it will run in.

    What it adds after that record was written goes nowhere, and never into another request's record:

        pool.submit(carry(work), order)
    """
    draft = _current()

    @wraps(function)
    def carried(*args: Any, **kwargs: Any) -> Any:
        before = _own()
        _set_own(draft)
        try:
            return function(*args, **kwargs)
        finally:
            _set_own(before)

    return carried  # type: ignore[return-value]  # wraps() keeps the signature


# Which record is being collected is known by the context (each of asyncio's tasks has one) where contexts are
# in use, which is when their module has been imported, and by the thread where they are not.
_open: dict[int, Draft] = {}
_threads = threading.local()
_contexts: ContextVar[Draft | None] | None = None


def _own() -> Draft | None:
    """Return the draft that was begun last in this context or thread; it may have been ended elsewhere."""
    draft = _contexts.get() if _contexts is not None else None
    return draft if draft is not None else getattr(_threads, "draft", None)


def _set_own(draft: Draft | None) -> None:
    global _contexts
    if _contexts is None and "contextvars" in sys.modules:
        from contextvars import ContextVar

        _contexts = ContextVar("tagline", default=None)
    if _contexts is not None:
        _contexts.set(draft)
    if _contexts is None or draft is None:
        _threads.draft = draft


def _current() -> Draft | None:
    """Return the draft that this code adds to, if that can be told."""
    draft = _own()
    if draft is not None:
        return draft if draft.open else None
    # A thread without a context: it works for the request in progress, if there is but one.
    requests = [each for each in list(_open.values()) if each._outer is None]
    return requests[0] if len(requests) == 1 else None


# --- Invocations -------------------------------------------------------------------------------------------

# A correlation id that comes in goes out again in a header, and into logs: at most so many characters.
MAX_CORRELATION_ID = 128
CORRELATION_HEADERS = ("x-correlation-id", "x-request-id", "correlation-id", "request-id")


def _invocation_fields(event: Any, context: Any) -> dict[str, Any]:
    """Return what an invocation says of itself, by the names that records use."""
    event = event if isinstance(event, dict) else {}
    request_id = getattr(context, "aws_request_id", None)
    # Root=1-...;Parent=...;Sampled=1: https://docs.aws.amazon.com/lambda/latest/dg/configuration-envvars.html
    trace = dict(part.partition("=")[::2] for part in os.environ.get("_X_AMZN_TRACE_ID", "").split(";"))
    known = {
        "request_id": request_id,
        # A load balancer gives either, as its target group says.
        "correlation_id": correlation_id(event.get("headers") or event.get("multiValueHeaders"))
        or request_id,
        "trace_id": trace.get("Root"),
        "function_name": getattr(context, "function_name", None),
        "function_version": getattr(context, "function_version", None),
        "memory_mb": _whole(str(getattr(context, "memory_limit_in_mb", "")), 0),
    }
    known = {name: value for name, value in known.items() if value}
    request = event.get("requestContext")
    http = request.get("http") if isinstance(request, dict) else None
    if isinstance(http, dict):  # payload 2.0: HTTP APIs and function URLs
        route, path = event.get("routeKey"), event.get("rawPath")
        # The template, not the path: a path is as many routes as there are ids in it.
        route = route.split(" ", 1)[-1] if isinstance(route, str) and route != "$default" else path
        known.update(method=http.get("method"), route=route, path=path)
    elif "httpMethod" in event:  # payload 1.0: REST APIs and load balancers
        path = event.get("path")
        known.update(method=event.get("httpMethod"), route=event.get("resource") or path, path=path)
    return known


def correlation_id(headers: Any, names: Sequence[str] = CORRELATION_HEADERS) -> str | None:
    """Return the correlation id that came in with a request's headers.

    Args:
        headers: A mapping, or pairs of names and values, as text or bytes, in any case; of several values in
            a list, the first counts. What is none of these carries no id.
        names: The headers that may carry it, in lower case.

    Returns:
        That of the first of the names that is there; one that is longer than 128 characters, or has others
        than visible ASCII, is not taken, because it could not be handed on in a header.
    """
    found: dict[str, str] = {}
    try:
        for name, value in list(headers.items() if hasattr(headers, "items") else headers or ()):
            lowered = _header_text(name).lower()
            if lowered in names:
                text = _header_text(value[0] if isinstance(value, list) and value else value)
                if 0 < len(text) <= MAX_CORRELATION_ID and all("!" <= character <= "~" for character in text):
                    found.setdefault(lowered, text)
    except Exception:
        found.clear()  # these are no headers
    return next((found[name] for name in names if name in found), None)


def _header_text(value: object) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else value if isinstance(value, str) else ""


def outgoing_headers(headers: Mapping[str, str] | None = None, /) -> dict[str, str]:
    """Return headers for a request to another service, with this request's correlation id among them."""
    known = dict(headers or {})
    draft = _current()
    if draft is not None and correlation_id(known) is None:
        said = {**draft._known, **draft.fields}
        value = said.get("correlation_id") or said.get("request_id")
        if value:
            known[CORRELATION_HEADERS[0]] = str(value)
    return known


# One thread watches all drafts. It sleeps until the earliest time that was due when it looked, however many
# invocations begin and end meanwhile: to be watched costs an invocation no more than an entry in a dict.
_due: dict[Draft, float] = {}
_watching = threading.Lock()
_watcher: _Watcher | None = None


def _watch(draft: Draft, seconds: float) -> None:
    """Have a draft ended as timed out after some seconds, unless it is ended before."""
    global _watcher
    due = time.monotonic() + seconds
    with _watching:
        _due[draft] = due
        if _watcher is None:
            watcher = _Watcher(due)
            watcher.start()
            _watcher = watcher
        elif due < _watcher.until:
            _watcher.until = due
            _watcher.wake.set()


class _Watcher(threading.Thread):
    def __init__(self, until: float) -> None:
        super().__init__(name="tagline-timeout", daemon=True)
        self.until = until
        self.wake = threading.Event()

    def run(self) -> None:
        while True:
            self.wake.wait(min(max(self.until - time.monotonic(), 0), threading.TIMEOUT_MAX))
            with _watching:
                self.wake.clear()
                now = time.monotonic()
                late = [draft for draft, due in list(_due.items()) if due <= now]
                for draft in late:
                    _due.pop(draft, None)
                self.until = min(list(_due.values()), default=float("inf"))
            for draft in late:
                try:
                    draft.end({"timed_out": True})
                except BaseException:  # noqa: PERF203, S112 - whatever a stream raises, the watch goes on
                    continue


class LogHandler(logging.Handler):
    """Writes what goes through `logging` as records: message, logger, level and error, and `extra` as fields.

    Args:
        emitter: What writes the records.
        type: Their kind.
        level: The lowest level that is written.
    """

    def __init__(self, emitter: Emitter, *, type: str = "log", level: int | str = logging.NOTSET) -> None:
        super().__init__(level)
        self._emitter = emitter
        self._type = type

    def emit(self, record: logging.LogRecord) -> None:
        """Write one log record. Raises nothing."""
        said: dict[str, Any] = {"logger": record.name, "log_level": record.levelname}
        try:
            said["message"] = record.getMessage()
        except Exception:
            said["message"] = _bounded(record.msg, str)  # its arguments do not fit it
        error = record.exc_info[1] if record.exc_info else None
        if error is not None:
            said.update(error=_bounded(error, str), error_type=_class_name(error))
        said.update((name, vars(record)[name]) for name in vars(record).keys() - _OF_EVERY_LOG_RECORD)
        self._emitter.emit(said, type=self._type, timestamp=int(record.created * 1000))


# Formatters, Lambda's runtime and Python 3.12 add the last ones.
_OF_EVERY_LOG_RECORD = {
    *vars(logging.makeLogRecord({})),
    *("message", "asctime", "taskName", "aws_request_id", "tenant_id"),
}


# --- Privacy -----------------------------------------------------------------------------------------------

# Values under these names are masked, and under names that end with one: `db_password`, `authtoken`.
MASKED_NAMES = (
    *("authorization", "cookie", "cookies", "password", "passwords", "passwd", "pwd", "passphrase"),
    *("secret", "secrets", "token", "jwt", "api-key", "access-key", "private-key", "secret-key"),
    *("credential", "credentials", "signature", "session-id"),
)
# A shorter name counts as a word of its own only: many words end with `pwd` or `ip`.
MIN_NAME_END = 5
MASK = "***"
MIN_KEY_BYTES = 16


class Privacy:
    """What must not reach the line. Names match in any case and spelling: `api_key`, `Api-Key`, `apikey`.

    Args:
        mask: Values under these names, and under names that end with one (`db_password`), become `***`: in
            fields, in objects at any depth, in pairs of a name and a value, and in text, also that of keys,
            that says `name=value`, `name: value` or `"name": value`, such as a query string.
        allow: The only fields that are written, by their exact names; default all.
        deny: Names that are left out, at any depth.
        truncate: Names under which stand IP addresses: IPv4 keeps its first three bytes, IPv6 its first six.
            What is no address is masked.
        pseudonyms: Names whose values are replaced by a keyed digest (HMAC-SHA-256, 32 hex digits): the same
            value gives the same pseudonym, and without the key nobody can find the value by trying.
        key: The pseudonyms' key, of at least 16 bytes.

    Raises:
        ValueError: If there are pseudonyms without a key, the key is too short, or names are one text.
    """

    def __init__(
        self,
        *,
        mask: Iterable[str] = MASKED_NAMES,
        allow: Iterable[str] | None = None,
        deny: Iterable[str] = (),
        truncate: Iterable[str] = (),
        pseudonyms: Iterable[str] = (),
        key: bytes = b"",
    ) -> None:
        for names in (mask, allow, deny, truncate, pseudonyms):
            if isinstance(names, str):  # each of its letters would be a name
                raise ValueError(f"{names!r} is a text, not a list of names")  # noqa: TRY004 - as all here
        actions = [(pseudonyms, self._pseudonym), (truncate, _truncated), (deny, _drop)]
        self._actions = {_words(name).replace("-", ""): action for names, action in actions for name in names}
        self._masked = tuple(_words(name) for name in mask)
        # How they are spelled in text, in lower case.
        self._spelled = tuple({name.replace("-", by) for name in self._masked for by in ("-", "_", "")})
        self._longest = max(map(len, self._spelled), default=0)
        # Most names end otherwise, which is seen sooner.
        self._end = min([3, *map(len, self._masked)])
        self._ends = {name[-self._end :] for name in self._spelled}
        self._allowed = None if allow is None else frozenset(allow)
        self._key = key
        if self._pseudonym in self._actions.values():
            if not isinstance(key, bytes):
                raise ValueError(f"the pseudonyms' key is bytes, not {type(key).__name__}")
            if len(key) < MIN_KEY_BYTES:
                raise ValueError(f"pseudonyms need a key of at least {MIN_KEY_BYTES} bytes, not {len(key)}")
        # What is done about a name, and names of no concern: of fields, and within values.
        self._known: dict[object, Callable[[Any], Any] | None] = {}
        self._keys: dict[object, str] = {}
        self._fields: set[str] = set()
        self._names: set[str] = set()
        self._objects: tuple[str, ...] = ()  # fields that held an object
        self._pattern: Any = None

    def lets_through(self, fields: dict[Any, Any], body: str) -> bool:
        """Tell whether fields and their JSON can be written as they are. It may say no for nothing."""
        if not (self._fields.issuperset(fields) or self._learns(fields, self._fields)):
            return False
        members = len(fields)
        for name in self._objects:
            value = fields.get(name)
            if type(value) is dict and self._names.issuperset(value):
                members += len(value)
        # Where each colon is that of a member that is known, no text has one, and no other object is there.
        # To count them takes half as long as to look at each value, and at what stands before the colons.
        if body.count(":") != members or "[" in body:
            return self._are_harmless(fields) and not self._is_suspect(body, '\\":')
        return not (("=" in body or "%" in body) and self._is_suspect(body, '\\":'))

    def _are_harmless(self, fields: dict[Any, Any]) -> bool:
        """Tell whether the values of fields hold no name of concern, and remember which are objects."""
        for name, value in fields.items():
            if type(value) in _LEAVES:
                continue
            if type(value) is dict and self._names.issuperset(value):  # as below: a call takes longer
                if name not in self._objects and len(self._objects) < _OBJECTS:
                    self._objects = (*self._objects, name)
                for item in value.values():
                    if type(item) not in _LEAVES and not self._is_harmless(item, 2):
                        return False
            elif not self._is_harmless(value, 1):
                return False
        return True

    def _learns(self, names: Iterable[Any], known: set[str]) -> bool:
        """Tell whether names are of no concern, and remember those that are not."""
        for name in names:
            if type(name) is not str or self._action(name):
                return False
            if known is self._fields and (self._allowed is not None or _key(name) != name):
                return False
        if len(known) < _CACHED:
            known.update(names)
        return True

    def _is_harmless(self, value: Any, depth: int) -> bool:
        """Tell whether a value that JSON can say holds no name of concern. Text is looked at elsewhere."""
        if depth > MAX_DEPTH:
            return False
        if isinstance(value, dict):
            if not (self._names.issuperset(value) or self._learns(value, self._names)):
                return False
            value = value.values()
        elif not isinstance(value, (list, tuple)):
            return True  # `plain` has seen to it
        elif _is_pair(value) and self._action(value[0]):
            return False
        return all(type(item) in _LEAVES or self._is_harmless(item, depth + 1) for item in value)

    def _is_suspect(self, text: str, quoted: str) -> bool:
        """Tell whether a masked name stands before `=` or a colon in a text, or in the JSON of one.

        To look for one character takes a tenth of the time of looking for two, and backwards a third.
        """
        return (
            ("=" in text and self._is_said(text, "="))
            or (text.rfind(": ") >= 0 and self._is_said(text, ": "))
            or (quoted[0] in text and self._is_said(text, quoted))
            or ("'" in text and self._is_said(text, "':"))
            or ("%" in text and (self._is_said(text, "%3D") or self._is_said(text, "%3d")))
        )

    def _is_said(self, text: str, sign: str) -> bool:
        at = text.find(sign)
        while at >= 0:
            end = at
            while end > 0 and (text[end - 1] in _BETWEEN or text[max(0, end - 3) : end].lower() in _BRACKETS):
                end -= 1 if text[end - 1] in _BETWEEN else 3
            if text[max(0, end - self._end) : end].lower() in self._ends:
                name = text[max(0, end - self._longest) : end].lower()
                if name.endswith(self._spelled):
                    return True
            at = text.find(sign, at + 1)
        return False

    def plain(self, value: Any) -> Any:
        """Return what stands on the line for a value that JSON cannot say, clean."""
        return self._cleaned(_plain(value))

    def clean(self, fields: dict[str, Any]) -> dict[str, Any]:
        """Return fields without what must not reach the line; objects in them are left to `plain`."""
        kept: dict[str, Any] = self._cleaned(fields)
        return kept if self._allowed is None else {name: kept[name] for name in kept if name in self._allowed}

    def _cleaned(self, value: Any, depth: int = 0) -> Any:
        if isinstance(value, str):
            return self._text(value)
        if not isinstance(value, (dict, list, tuple)):
            return value
        if depth > MAX_DEPTH:
            raise RecursionError  # `_sane` cuts it
        if isinstance(value, dict):
            kept = {}
            for name, item in list(value.items()):
                action = self._action(name)
                if action is not _drop:
                    kept[self._written(name)] = action(item) if action else self._cleaned(item, depth + 1)
            return kept
        action = self._action(value[0]) if _is_pair(value) else None
        return [value[0], action(value[1])] if action else [self._cleaned(item, depth + 1) for item in value]

    def _action(self, name: object) -> Callable[[Any], Any] | None:
        """Return what is done to the values of a name, or None."""
        if name in self._known:
            return self._known[name]
        words = _words(name.decode("latin-1") if isinstance(name, bytes) else _text_of(name))
        letters = words.replace("-", "")
        action = self._actions.get(letters)
        for masked in () if action else self._masked:
            end = masked.replace("-", "")
            if letters.endswith(end) and (len(end) >= MIN_NAME_END or f"-{words}".endswith(f"-{masked}")):
                action = _mask
        if len(self._known) < _CACHED:
            self._known[name] = action
        return action

    def _written(self, name: object) -> str:
        """Return a name as a key that may be written: `/pets?token=x` is one where requests are counted."""
        known = self._keys.get(name)
        if known is None:
            known = self._text(_text_of(name))
            if len(self._keys) < _CACHED:
                self._keys[name] = known
        return known

    def _pseudonym(self, value: Any) -> Any:
        import hmac

        said = value if isinstance(value, str) else _sane(value)
        text = value if isinstance(value, str) else _encode(said)
        digest = hmac.new(self._key, text.encode("utf-8", "surrogatepass"), "sha256").hexdigest()[:32]
        return None if said is None else digest

    def _text(self, text: str) -> str:
        """Return text with the values of masked names in it masked."""
        if not self._is_suspect(text, '":'):
            return text
        if text[:1] in ("{", "[") and sys.getrecursionlimit() <= _DEEPEST:
            try:
                return _encode(self._cleaned(json.loads(text)))
            except (ValueError, RecursionError):
                pass  # no JSON, but it may say `name=value` all the same
        if self._pattern is None:
            import re

            names = "|".join(re.escape(name).replace("\\-", "[-_]?") for name in self._masked)
            # What is quoted ends with its quote. What is not may have spaces and semicolons in it (a header's
            # value), so that it ends with the next parameter of a query or with the line; what is quoted in
            # a quoted text, with the line.
            value = r""""(?:[^"\\]|\\.)*"?|'(?:[^'\\]|\\.)*'?|\\[^\r\n]*|[^&\r\n]+"""
            between = rf"(?:[\s{re.escape(_BETWEEN)}]|{'|'.join(_BRACKETS)})*"
            self._pattern = re.compile(
                rf"((?:{names}){between}(?:[=:]|%3D)\s*)(?:{value})", re.IGNORECASE | re.DOTALL
            )
        return str(self._pattern.sub(rf"\g<1>{MASK}", text))


_BETWEEN = " \\\"'[]"  # what may stand between a name and the sign after it
_BRACKETS = ("%5b", "%5d")  # as they stand in a query: user%5Bpassword%5D=
_OBJECTS = 8  # so many of them are remembered: each is asked for in each record
_LEAVES = frozenset([str, int, float, bool, type(None)])


def _words(name: str) -> str:
    """Return a name in lower case, its words joined by hyphens."""
    pairs = zip(" " + name, name)
    spread = "".join(f"-{here}" if here.isupper() and before.islower() else here for before, here in pairs)
    return "".join(each if each.isalnum() else "-" for each in spread.lower()).strip("-")


def _is_pair(value: Sequence[Any]) -> bool:
    """Tell whether a list may be a header or a parameter: a name, and a value."""
    return len(value) == 2 and isinstance(value[0], (str, bytes))  # noqa: PLR2004 - two make a pair


def _drop(value: Any) -> Any:  # noqa: ARG001 - as the other actions
    return None


def _mask(value: Any) -> Any:
    return None if value is None else MASK


def _truncated(value: Any) -> Any:
    """Return the network of an address, or of each in a list that commas divide (X-Forwarded-For)."""
    from ipaddress import ip_network

    if isinstance(value, list):
        return [_truncated(item) for item in value]
    networks = []
    for address in value.split(",") if isinstance(value, str) else ():
        try:
            network = ip_network(f"{address.strip()}/{48 if ':' in address else 24}", strict=False)
            networks.append(str(network.network_address))
        except ValueError:  # noqa: PERF203 - each for itself
            networks.append(MASK)
    return ", ".join(networks) or _mask(value)


# --- Metrics in the same line ------------------------------------------------------------------------------

# https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html
MAX_METRICS = 100  # in one directive: more are split into several
MAX_METRIC_VALUES = 100
MAX_DIMENSIONS = 30
MAX_DIMENSION_NAME = 250
MAX_DIMENSION_VALUE = 1_024
MAX_METRIC_AGE_MS, MAX_METRIC_AHEAD_MS = 14 * 86_400_000, 2 * 3_600_000
# Names of 1,024 characters would be valid in the format, but CloudWatch's own API has no more than these:
# https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_MetricDatum.html
MAX_METRIC_NAME = 255
MAX_METRIC_NUMBER = 2.0**360
_SIZES = [
    f"{size}{of}".capitalize() for size in ("", "Kilo", "Mega", "Giga", "Tera") for of in ("bytes", "bits")
]
UNITS = frozenset(
    ["None", "Seconds", "Microseconds", "Milliseconds", "Percent", "Count", "Count/Second"]
    + [size + per for size in _SIZES for per in ("", "/Second")]
)
_NUMBERS = frozenset([int, float])


class _Metrics:
    """Which fields become CloudWatch metrics, by an envelope of the Embedded Metric Format."""

    def __init__(
        self, namespace: str, metrics: Mapping[str, Unit], dimensions: Sequence[Sequence[str]]
    ) -> None:
        legal = namespace.strip() and len(namespace) <= MAX_METRIC_NAME and namespace[0] != ":"
        _refuse_unless(legal, "namespace", namespace)
        _refuse_unless(dimensions, "list of sets of dimensions", dimensions)
        self._namespace = json.dumps(namespace)
        self._definitions: dict[str, str] = {}
        for name, declared in metrics.items():
            unit, resolution = (declared, 60) if isinstance(declared, str) else declared
            _refuse_unless(0 < len(name) <= MAX_METRIC_NAME and _key(name) == name, "metric", name)
            _refuse_unless(unit in UNITS, "unit", unit)
            _refuse_unless(resolution in (1, 60), "resolution", resolution)
            self._definitions[name] = _encode({"Name": name, "Unit": unit, "StorageResolution": resolution})
        for names in dimensions:
            few = len(names) <= MAX_DIMENSIONS and not isinstance(names, str)
            _refuse_unless(few, "set of dimensions", names)
            for name in names:
                legal = _is_dimension(name) and len(name) <= MAX_DIMENSION_NAME and name[0] != ":"
                _refuse_unless(legal and _key(name) == name, "dimension", name)
        self._sets = tuple(tuple(names) for names in dimensions)
        self._dimensions = tuple(dict.fromkeys(name for names in self._sets for name in names))
        self._names = tuple(self._definitions)
        self._told: dict[tuple[Any, ...], tuple[tuple[str, ...], ...]] = {}
        self._written: dict[tuple[Any, ...], str] = {}

    def envelope(self, said: dict[str, Any], time_ms: int, now: int) -> str:
        """Return the envelope of the metrics that a line has, as a member of the line; nothing without any.

        Args:
            said: The line's fields.
            time_ms: The record's time, in milliseconds since 1970.
            now: The time now: CloudWatch takes no metric that is too old, or far ahead.
        """
        get = said.get
        values: list[Any] = list(map(get, self._names))
        try:
            legal = _NUMBERS.issuperset(map(type, values)) and sum(map(abs, values)) <= MAX_METRIC_NUMBER
        except OverflowError:  # a whole number beyond what a float holds, beside one
            legal = False
        names = (
            self._names if legal else tuple(name for name in self._names if _is_metric(_on_line(get(name))))
        )
        try:
            sets = self._told[tuple(map(get, self._dimensions))]
        except Exception:  # KeyError: not told apart yet; and what is no text may have any hash, or none
            sets = self._told_apart(said)
        written = self._written.get((names, sets))
        if written is None:
            written = self._directives(names, sets)
        if not written or not -MAX_METRIC_AHEAD_MS <= now - time_ms <= MAX_METRIC_AGE_MS:
            return ""
        return f',"_aws":{{"Timestamp":{time_ms},"CloudWatchMetrics":{written}}}'

    def _told_apart(self, said: dict[str, Any]) -> tuple[tuple[str, ...], ...]:
        """Return the sets of dimensions each of whose fields is a text that CloudWatch takes.

        Without one of them, the numbers would be counted as something else's.
        """
        legal = {name for name in self._dimensions if _is_dimension(said.get(name))}
        sets = tuple(names for names in self._sets if legal.issuperset(names))
        if len(legal) == len(self._dimensions) and len(self._told) < _CACHED:
            self._told[tuple(_text_of(said[name]) for name in self._dimensions)] = sets
        return sets

    def _directives(self, names: tuple[str, ...], sets: tuple[tuple[str, ...], ...]) -> str:
        if len(self._written) >= _CACHED:
            self._written.clear()
        parts = [
            f'{{"Namespace":{self._namespace},"Dimensions":{json.dumps(sets)},"Metrics":['
            + ",".join(self._definitions[name] for name in names[start : start + MAX_METRICS])
            + "]}"
            for start in range(0, len(names) if sets else 0, MAX_METRICS)
        ]
        written = self._written[names, sets] = f"[{','.join(parts)}]" if parts else ""
        return written


def _refuse_unless(legal: object, what: str, value: object) -> None:
    if not legal:
        page = "docs/how-to/metrics-in-the-line.md"
        raise ValueError(f"CloudWatch takes no {what} like {_bounded(value)}: {page}")


def _on_line(value: Any) -> Any:
    """Return what stands on the line for a value: CloudWatch reads the line."""
    return value if type(value) in _LEAVES else _sane(value)


def _is_metric(value: Any) -> bool:
    if isinstance(value, (int, float)):
        return -MAX_METRIC_NUMBER <= value <= MAX_METRIC_NUMBER and not isinstance(value, bool)
    if not isinstance(value, list) or not 0 < len(value) <= MAX_METRIC_VALUES:
        return False
    return all(isinstance(each, (int, float)) and _is_metric(each) for each in value)


def _is_dimension(value: Any) -> bool:
    """Tell whether CloudWatch takes a text as a dimension's value: ASCII, and not only space."""
    if not issubclass(type(value), str):
        return False
    text = _text_of(value)
    return len(text) <= MAX_DIMENSION_VALUE and text.isascii() and text.isprintable() and text.strip() != ""


# --- What values become ------------------------------------------------------------------------------------

# Lists and objects that are nested deeper are cut; so are more of them, where a record is looked at closely.
MAX_DEPTH = 32
MAX_CONTAINERS = 100_000
# What stands for a value that cannot be turned into JSON is at most this long, in characters.
MAX_REPR = 1_000
# Python reads and writes no longer whole numbers than of 4,300 digits:
# https://docs.python.org/3/library/stdtypes.html#integer-string-conversion-length-limitation
_MAX_BITS = 14_000
# Before Python 3.12, its encoder recurses as deep as the interpreter is set to, and where that is deeper than
# the stack, a cycle would end the process. Values are looked at first where it is set above this.
_DEEPEST = 20_000 if sys.version_info < (3, 12) else sys.maxsize


# What an object raises when it is asked for its value is never worth a record, whatever it derives from: a
# panic in an extension in Rust is no Exception. But these are said to the process, and come by chance.
_NOT_OURS = (KeyboardInterrupt, SystemExit)
# A class's own name: its metaclass may make another of it, or none.
_name_of: Callable[[type], str] = type.__dict__["__name__"].__get__


def _class_name(value: object) -> str:
    return _name_of(type(value))


def _bounded(value: Any, text: Callable[[Any], str] = repr) -> str:
    try:
        return str(text(value))[:MAX_REPR]
    except _NOT_OURS:
        raise
    except BaseException:
        return f"<{_class_name(value)}>"


def _plain(value: Any) -> Any:  # noqa: C901 - a table of kinds
    """Return what stands on the line for a value that JSON cannot say; it may hold more of them.

    Kinds of values from elsewhere are known by what they can do, so that nothing is imported for them.
    """
    if isinstance(value, (tuple, set, frozenset, deque)):
        return list(value)
    if isinstance(value, float):  # of a class of its own, which orjson asks about
        return float.__add__(value, 0.0)
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value).decode("utf-8", "backslashreplace")
    if isinstance(value, Enum):
        return value.value
    if not isinstance(value, type):
        if hasattr(value, "isoformat"):
            return str(value.isoformat())
        if hasattr(value, "model_dump"):  # pydantic
            return value.model_dump()
        if hasattr(value, "__dataclass_fields__"):
            return {name: getattr(value, name, None) for name in value.__dataclass_fields__}
        if hasattr(value, "dtype") and hasattr(value, "tolist"):  # numpy
            return value.tolist()
        if hasattr(value, "keys") and hasattr(value, "__getitem__"):  # headers, rows, environ
            return {name: value[name] for name in value.keys()}  # noqa: SIM118 - not all are iterable
    return _bounded(value, str)


def _encoder(plain: Callable[[Any], Any], deepest: int = _DEEPEST) -> Callable[[Any], str]:
    """Return what makes JSON of a value: ASCII, no space, no NaN; a cycle ends in a RecursionError.

    Where recursion may go deeper than `deepest`, so does any value, before it is written.
    """
    make = getattr(json_encoder, "c_make_encoder", None)
    if make is None:
        how: dict[str, Any] = {"check_circular": False, "allow_nan": False, "separators": (",", ":")}
        return json.JSONEncoder(**how, default=plain).encode
    # What JSONEncoder.encode makes anew each time.
    chunks = make(None, plain, json_encoder.encode_basestring_ascii, None, ":", ",", False, False, False)

    def encode(value: Any) -> str:
        if sys.getrecursionlimit() > deepest:
            raise RecursionError("this may be deeper than the stack")
        return "".join(chunks(value, 0))

    return encode


def _quickest_encoder(plain: Callable[[Any], Any]) -> Callable[[Any], str]:
    """Return the same as `_encoder`, by orjson if the process has imported it: importing it costs 12 ms."""
    encode = _encoder(plain)
    orjson = sys.modules.get("orjson")
    if orjson is None:
        return encode
    dumps = orjson.dumps
    own = orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_DATETIME

    def encode_quickly(value: Any) -> str:
        try:
            text = dumps(value, plain, own)
        except TypeError:
            return encode(value)
        # Its text is UTF-8, and the line is ASCII.
        return str(text, "ascii") if text.isascii() else encode(value)

    return encode_quickly


_encode = _encoder(_plain, sys.maxsize)  # what is known not to be deep
_encode_any = _encoder(_plain)


def _sane(value: Any) -> Any:
    """Return a copy that JSON can say, whatever the value is."""
    room = count(MAX_CONTAINERS, -1)

    def copied(value: Any, above: tuple[int, ...], depth: int) -> Any:  # `above`: what the value stands in
        try:
            if type(value) is str or value is None:
                return value
            if isinstance(value, (str, int, float)):
                return _leaf(value)
            if id(value) not in above and depth <= MAX_DEPTH and next(room) > 0:
                above = (*above, id(value))
                if isinstance(value, dict):
                    items = list(dict.items(value))  # as orjson: its class may say others, or none
                    return {_text_of(name): copied(item, above, depth + 1) for name, item in items}
                if isinstance(value, (list, tuple)):
                    return [copied(item, above, depth + 1) for item in list(value)]
                return copied(_plain(value), above, depth)
        except _NOT_OURS:
            raise
        except BaseException:
            pass  # what fails is named as what is too deep
        return f"<{_class_name(value)}>"

    return copied(value, (), 0)


def _leaf(value: str | float) -> str | float | None:
    """Return text, a number or a boolean as JSON can say it: of no class that makes another of it.

    Raises:
        ValueError: If it is a whole number of more digits than Python writes.
    """
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, float):
        number = float.__add__(value, 0.0)
        return number if number - number == 0 else None  # infinite or not a number
    if isinstance(value, bool):
        return value
    whole = int.__add__(value, 0)
    if whole.bit_length() >= _MAX_BITS or not str(whole):  # its text may fail sooner: that limit is a setting
        raise ValueError("a whole number of too many digits")
    return whole


def _text_of(name: object) -> str:
    """Return a key as text, of no class of its own."""
    return str.__str__(name) if isinstance(name, str) else _bounded(name, str)


# --- The size budget ---------------------------------------------------------------------------------------


def _allowed(sizes: list[int], room: int) -> int:
    """Return the length that, put as a limit on every size, makes their sum at most the room."""
    left = len(sizes)
    for size in sorted(sizes):
        if size * left > room:
            return room // left
        room -= size
        left -= 1
    return max(sizes, default=0)


def _cut(value: Any, text: str, allowed: int) -> str:
    """Return the beginning of a value, whose JSON is the text, as text whose JSON takes at most `allowed`."""
    start = value if isinstance(value, str) else text
    # A character takes up to twelve bytes: cut in proportion, then until it fits.
    start = start[: max(0, len(start) * (allowed - 2) // len(text))]
    while start and len(_encode(start)) > allowed:
        start = start[: len(start) * 9 // 10]
    return start


# --- Time --------------------------------------------------------------------------------------------------

_FIRST_MS, _LAST_MS = -62_135_596_800_000, 253_402_300_799_999
_dates: Any = None


def format_timestamp(milliseconds: int) -> str:
    """Return milliseconds since 1970 as RFC 3339 UTC with milliseconds.

    Raises:
        ValueError: If the year is not between 1 and 9999.
    """
    if not _FIRST_MS <= milliseconds <= _LAST_MS:
        raise ValueError(f"{milliseconds} ms is not between the years 1 and 9999")
    at = time.gmtime(milliseconds // 1000)
    return "%04d-%02d-%02dT%02d:%02d:%02d" % at[:6] + ".%03dZ" % (milliseconds % 1000)


def parse_timestamp(value: Any) -> int | None:
    """Return a datetime, RFC 3339 text or whole number of milliseconds as milliseconds since 1970.

    Text without an offset and datetimes without a zone are taken for UTC.

    Returns:
        The milliseconds, or None for what is no time between the years 1 and 9999.
    """
    global _dates
    if isinstance(value, int):
        return int(value) if _FIRST_MS <= value <= _LAST_MS and not isinstance(value, bool) else None
    if _dates is None:
        import datetime as dt

        _dates = dt  # a handler that writes lines reads no times
    try:
        if isinstance(value, str):
            value = _parsed(value[:-1] + "+00:00" if value.endswith(("Z", "z")) else value)
        if isinstance(value, _dates.datetime):
            zoned = value if value.tzinfo is not None else value.replace(tzinfo=_dates.timezone.utc)
            since = zoned - _dates.datetime(1970, 1, 1, tzinfo=_dates.timezone.utc)
            return int((since.days * 86_400 + since.seconds) * 1000 + since.microseconds // 1000)
    except (ValueError, OverflowError):
        pass  # no time
    return None


def _parsed(text: str) -> datetime:
    parse: Callable[[str], datetime] = _dates.datetime.fromisoformat
    try:
        return parse(text)
    except ValueError:
        import re

        # Before Python 3.11, it takes fractions of three or six digits only, and offsets with a colon.
        found = re.fullmatch(r"(.{10}[T ]\d\d:\d\d:\d\d)(?:[.,](\d+))?(?:([+-]\d\d):?(\d\d))?", text)
        if not found:
            raise
        fraction = f".{found[2][:6]:0<6}" if found[2] else ""
        return parse(found[1] + fraction + (f"{found[3]}:{found[4]}" if found[3] else ""))
