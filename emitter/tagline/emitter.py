"""The emitter: makes a record's line and writes it."""

from __future__ import annotations

import os
import time

from . import output
from .annotations import (  # fmt: skip
    TYPE_CHECKING,
    Any,
    Callable,
    Fields,
    Function,
    Mapping,
    Optional,
    Sequence,
    Stream,
    Timestamp,
    Union,
    Unit,
    overload,
)
from .collecting import Draft, current
from .handlers import decorate
from .invocation import DEFAULT_TIMEOUT_MARGIN_MS
from .output import line_budget, short_name, whole_number
from .privacy import Privacy
from .values import DEFAULT_TAG, DEFAULT_TYPE, as_dict, encode, event_time, field_key, format_timestamp

if TYPE_CHECKING:
    from .metrics import Metrics


class Emitter:
    """Writes records, one line each.

    Args:
        type: Kind of record, unless one is given with the record.
        tag: The token that the subscription filter looks for; default `TAGLINE_TAG`, else "usage_record".
        max_line_bytes: Longest line; default `TAGLINE_MAX_LINE_BYTES`, else 200,000 in Lambda and 16,000
            elsewhere, where Docker cuts at 16 KB. Over it, the largest values are shortened and named in
            `_trunc`.
        stream: Where lines go; default `sys.stdout` as it is when a line is written.
        clock: Returns the time in milliseconds since 1970; default the system's.
        privacy: What must not reach the line; default `Privacy()`, which masks credentials.
        metrics: Numeric fields that become CloudWatch metrics, each with its unit, or with its unit and 1 for
            a resolution of one second: `{"items": "Count", "latency_ms": ("Milliseconds", 1)}`.
        namespace: The metrics' namespace; needed with `metrics`.
        dimensions: Sets of fields whose texts are the metrics' dimensions; default one empty set.
        timeout_margin_ms: How long before an invocation's deadline, in milliseconds, its record is written as
            timed out; default `TAGLINE_TIMEOUT_MARGIN_MS`, else 200; 0 for never.
        sample_rate: Share of the records that are written, above 0 and at most 1. Below 1, each line has it
            as the field `sample_rate`: a line stands for `1 / sample_rate` records.
        on_error: Called with each exception that cost a record or a field; `errors` counts them.

    Raises:
        ValueError: If CloudWatch refuses the metrics, namespace or dimensions, the longest line is not 1,000
            to 262,118 bytes, or the sample rate is not above 0 and at most 1. Nothing later raises.
    """

    def __init__(
        self,
        *,
        type: str = DEFAULT_TYPE,
        tag: Optional[str] = None,
        max_line_bytes: Optional[int] = None,
        stream: Optional[Stream] = None,
        clock: Optional[Callable[[], int]] = None,
        privacy: Optional[Privacy] = None,
        metrics: Optional[Mapping[str, Unit]] = None,
        namespace: str = "",
        dimensions: Sequence[Sequence[str]] = ((),),
        timeout_margin_ms: Optional[int] = None,
        sample_rate: float = 1,
        on_error: Optional[Callable[[BaseException], object]] = None,
    ) -> None:
        setting, is_in_lambda = os.environ.get, "AWS_LAMBDA_FUNCTION_NAME" in os.environ
        if not 0 < sample_rate <= 1:
            raise ValueError(f"sample_rate is {sample_rate}; it must be above 0 and at most 1")
        if timeout_margin_ms is None:
            timeout_margin_ms = whole_number(setting("TAGLINE_TIMEOUT_MARGIN_MS"), DEFAULT_TIMEOUT_MARGIN_MS)
        self.type = type
        self.tag = tag or setting("TAGLINE_TAG") or DEFAULT_TAG
        self.max_line_bytes = line_budget(max_line_bytes, is_in_lambda=is_in_lambda)
        self.timeout_margin_ms = timeout_margin_ms
        self.sample_rate = sample_rate
        self.privacy = privacy or Privacy()
        self.errors = 0
        self._on_error = on_error
        self._level = output.line_level()
        self._is_disabled = setting("TAGLINE_DISABLED", "").lower() in ("1", "true", "yes", "on")
        self._is_shared = not is_in_lambda
        self._stream = stream
        self._clock = clock
        self._metrics: Optional[Metrics] = None
        if metrics:
            from .metrics import Metrics

            self._metrics = Metrics(namespace, metrics, dimensions)
        self._source = output.Source()
        self._short_tag, self._short_type = short_name(self.tag), short_name(type)
        self._bound: dict[str, Any] = {"sample_rate": sample_rate} if sample_rate < 1 else {}

    def emit(
        self,
        fields: Optional[Fields] = None,
        /,
        *,
        type: Optional[str] = None,
        id: Optional[str] = None,
        timestamp: Optional[Timestamp] = None,
        tag: Optional[str] = None,
    ) -> None:
        """Write one record now. Raises nothing.

        Args:
            fields: The user's fields by name.
            type: Kind of record, if not the emitter's.
            id: A stable id, for records that may be emitted more than once (backfills). Random by default.
            timestamp: When it happened: a datetime, RFC 3339 text, milliseconds since 1970 as a whole number,
                or seconds as a float; default now. One that cannot be read is kept as the field `timestamp_`.
            tag: The tag, if not the emitter's.
        """
        if self._is_disabled and not output.captures:
            return
        if self.sample_rate < 1 and int.from_bytes(os.urandom(4), "big") >= self.sample_rate * 2**32:
            return  # it took no number, so it does not count as lost
        try:
            # Take the number first: any failure after this leaves a gap.
            tag = short_name(tag) if tag else self._short_tag
            source, number, random_id = self._source.next_line(tag)
            now = time.time_ns() // 1_000_000 if self._clock is None else self.now()
            time_ms = now if timestamp is None else event_time(timestamp)
            if time_ms is None:
                fields, time_ms = {"timestamp": timestamp, **as_dict(fields)}, now
            start = (
                f'{{"_tag":"{tag}","timestamp":"{format_timestamp(time_ms)}","level":"{self._level}"'
                f',"_type":"{short_name(type) if type else self._short_type}"'
                f',"_id":"{short_name(id) if id else random_id}"'
                f',"_src":"{source}","_seq":{number}'
            )
            plain, body = self._plain(fields)
            metrics = self._metrics.envelope(plain, time_ms, now) if self._metrics else ""
            line = f"{start}{metrics},{body[1:]}\n" if plain else start + "}\n"
            if len(line) > self.max_line_bytes + 1:
                from .budget import shorten

                budget, declared = self.max_line_bytes, self._metrics
                line = shorten(start, plain, budget, metrics=declared, time_ms=time_ms, now=now)
            output.write_line(line, self._stream, self._is_shared)
        except Exception as error:
            # A usage record is never worth a failed request; the gap in _seq shows that a line is missing.
            self.report(error)

    def collect(
        self,
        fields: Optional[Fields] = None,
        /,
        *,
        type: Optional[str] = None,
        id: Optional[str] = None,
        timestamp: Optional[Timestamp] = None,
        tag: Optional[str] = None,
        event: Any = None,
        context: Any = None,
    ) -> Draft:
        """Collect fields while a `with` block runs, and write one record when it ends, also when it raises.

        The block gets the draft, a dict of the fields; `add` reaches it from anywhere in the call.
        `duration_ms` is added, and `error` and `error_type` if the block raises; the exception propagates.

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
        options = {"type": type, "id": id, "timestamp": timestamp, "tag": tag}
        return Draft(self, fields, event, context, options)

    record = collect  # the older name

    def begin(
        self,
        fields: Optional[Fields] = None,
        /,
        *,
        type: Optional[str] = None,
        id: Optional[str] = None,
        timestamp: Optional[Timestamp] = None,
        tag: Optional[str] = None,
        event: Any = None,
        context: Any = None,
    ) -> Draft:
        """Begin a record that `end` writes, here or anywhere in the request. The arguments are `collect`'s.

        If an earlier invocation left a record open because its handler raised, that record is written now, as
        `unfinished`. So is a record that nothing refers to any more.
        """
        return self.collect(
            fields, type=type, id=id, timestamp=timestamp, tag=tag, event=event, context=context
        ).begin()

    def end(self, fields: Optional[Fields] = None, /) -> bool:
        """Write this emitter's record that was begun last in this request; return whether there was one."""
        draft = current(self)
        return draft is not None and draft.end(fields)

    @overload
    def handler(self, function: Function, /) -> Function: ...

    @overload
    def handler(  # noqa: F811 - an overload
        self,
        *,
        type: Optional[str] = None,
        route: Optional[Callable[[Any], Optional[str]]] = None,
        fields: Union[Fields, Callable[[Any], Fields], None] = None,
    ) -> Callable[[Function], Function]: ...

    def handler(  # noqa: F811
        self, function: Any = None, *, type: Any = None, route: Any = None, fields: Any = None
    ) -> Any:
        """Decorate a Lambda handler, with arguments or without: one record per invocation.

        Functions, methods, coroutine and generator functions, partials and callable objects all work: the
        record is written when the result has been returned, awaited or iterated. It has what `collect` takes
        from event and context, and the client's `status`; fields that the handler adds take precedence.

        Args:
            function: The handler.
            type: Kind of record, if not the emitter's.
            route: Gives the route's template from the event, where the event has none.
            fields: Fields to begin with, or a function that gives them from the event.

        Raises:
            TypeError: If the function cannot be decorated.
        """

        def draft_of(event: Any, context: Any) -> Draft:
            first: dict[str, Any] = {}
            try:
                first.update(as_dict(fields(event) if callable(fields) else fields))
                if route and (template := route(event)):
                    first.setdefault("route", template)
            except Exception as error:
                self.report(error)
            return self.collect(first, type=type, event=event, context=context)

        if function is None:
            return lambda function: decorate(function, draft_of)
        return decorate(function, draft_of)

    def bind(self, **fields: Any) -> Emitter:
        """Return an emitter that adds fields to each record, such as `service="shop"`, and shares `_src`."""
        bound = object.__new__(self.__class__)
        bound.__dict__.update(self.__dict__, _bound={**self._bound, **fields})
        return bound

    def now(self) -> int:
        """Return the time in milliseconds since 1970: the system's if the emitter's clock fails."""
        if self._clock is not None:
            try:
                return int(self._clock())
            except Exception as error:
                self.report(error)
        return time.time_ns() // 1_000_000

    def _plain(self, fields: Any) -> tuple[dict[str, Any], str]:
        """Return fields as plain JSON values by their keys on the line, and as JSON; clean ones uncopied."""
        if self._bound or type(fields) is not dict:
            fields = {**self._bound, **as_dict(fields)}
        try:
            if self.privacy.is_clean(fields, texts=False):
                body = encode(fields)
                if "=" not in body and not self.privacy.searches_texts:  # one search for all texts
                    return fields, body
                if self.privacy.is_clean(fields, texts=True):
                    return fields, body
        except (ValueError, RuntimeError):
            pass  # NaN, too many digits, or a thread that still adds
        plain = {field_key(name): value for name, value in self.privacy.clean(dict(fields)).items()}
        return plain, encode(plain)

    def report(self, error: BaseException) -> None:
        """Count an exception that cost a record or a field, and call `on_error`. Strict tests raise it."""
        self.errors += 1
        if output.is_strict:
            raise error
        try:
            if self._on_error is not None:
                self._on_error(error)
        except Exception:
            return
