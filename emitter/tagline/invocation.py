"""Lambda's invocations: fields from event, context and answer, and a record written before a timeout."""

from __future__ import annotations

import os
import threading
import time
import weakref

from .annotations import TYPE_CHECKING, Any, Callable, Optional, Sequence
from .output import after_copy

if TYPE_CHECKING:
    from .collecting import Draft

# The route of requests whose event names none: a path would be as many routes as there are ids in it.
UNMATCHED = "unmatched"
# A correlation id that comes in goes out again in a header, and into logs.
MAX_CORRELATION_ID = 128
CORRELATION_HEADERS = ("x-correlation-id", "x-request-id", "correlation-id", "request-id")

# A 128 MB function gets a twelfth of a vCPU in time slices; 200 ms before the deadline there is still time to
# write the record.
DEFAULT_TIMEOUT_MARGIN_MS = 200

_is_cold = os.environ.get("AWS_LAMBDA_INITIALIZATION_TYPE") != "provisioned-concurrency"


class Invocation:
    """One invocation of a function, or none if there is neither an event nor a context."""

    # What the client gets if the function raises, or answers without a status.
    _failed_status: Optional[int] = None
    _default_status: Optional[int] = None
    _record_count: Optional[int] = None

    def __init__(self, event: Any, context: Any) -> None:
        self.fields: dict[str, Any] = {}
        if event is None and context is None:
            return
        global _is_cold
        self.fields["cold_start"], _is_cold = _is_cold, False
        for read in (self._read_context, self._read_event):
            try:
                event = getattr(event, "raw_event", event)  # Powertools' data classes
                read(event if isinstance(event, dict) else {}, context)
            except Exception:  # noqa: PERF203, S112 - not a Lambda event or context
                continue

    @property
    def request_id(self) -> Optional[str]:
        """Lambda's id of the invocation."""
        return self.fields.get("request_id")

    def _read_context(self, event: dict[str, Any], context: Any) -> None:
        request_id = getattr(context, "aws_request_id", None)
        # Root=1-...;Parent=...;Sampled=1:
        # https://docs.aws.amazon.com/lambda/latest/dg/configuration-envvars.html
        parts = [part.partition("=") for part in os.environ.get("_X_AMZN_TRACE_ID", "").split(";")]
        trace = {name: value for name, _, value in parts}
        # A load balancer gives either kind of headers, as its target group is set.
        headers = event.get("headers") or event.get("multiValueHeaders")
        self._add(
            request_id=request_id,
            correlation_id=correlation_id(headers) or request_id,
            trace_id=trace.get("Root"),
            function_name=getattr(context, "function_name", None),
            function_version=getattr(context, "function_version", None),
            memory_mb=int(getattr(context, "memory_limit_in_mb", None) or 0),
        )

    def _read_event(self, event: dict[str, Any], _context: Any) -> None:
        request = event.get("requestContext") or {}
        http = request.get("http")
        if http:  # HTTP API with payload 2.0, function URL
            self._is_http(http.get("method"), event.get("routeKey", "").split(" ")[-1], event.get("rawPath"))
            is_url = ".lambda-url." in request.get("domainName", "")
            self._failed_status, self._default_status = (502 if is_url else 500), 200
        elif "serviceArn" in request or "raw_path" in event:  # VPC Lattice
            self._is_http(event["method"], None, event.get("path") or event.get("raw_path", "").split("?")[0])
        elif "connectionId" in request:  # WebSocket API
            self._add(route=request["routeKey"])
            self._failed_status = 500
        elif "httpMethod" in event:  # REST API, HTTP API with payload 1.0, load balancer
            self._is_http(event["httpMethod"], event.get("resource"), event.get("path"))
            if event.get("version") == "1.0":
                self._failed_status = 500
        elif "detail-type" in event:
            self._is_batch("eventbridge", 1)
        elif event.get("Records"):
            records = event["Records"]
            source = records[0].get("eventSource") or records[0]["EventSource"]  # SNS writes it its own way
            self._is_batch(source.partition(":")[2], len(records))

    def _is_http(self, method: Any, route: Any, path: Any) -> None:
        """Add the fields of an HTTP request, and set the status if the function raises."""
        self._add(method=method, route=route or UNMATCHED, path=path)
        # https://docs.aws.amazon.com/lambda/latest/dg/services-apigateway-errors.html
        self._failed_status = 502

    def _is_batch(self, trigger: str, count: int) -> None:
        """Add the fields of an event that has records."""
        self._add(trigger=trigger)
        self.fields["record_count"] = self._record_count = count

    def _add(self, **fields: Any) -> None:
        self.fields.update((name, value) for name, value in fields.items() if value)

    def answered(self, answer: Any) -> None:
        """Take what an answer tells: the client's status, or how many records of a batch failed."""
        try:
            status = answer.get("statusCode") if isinstance(answer, dict) else None
            status = self._default_status if status is None else status
            if status is not None:
                self.fields["status"] = status
            if self._record_count is not None:
                failures = answer.get("batchItemFailures") if isinstance(answer, dict) else None
                self.fields["failure_count"] = len(failures or ())
        except Exception:
            return  # an answer that fails when it is read has no status

    def failed(self) -> None:
        """Take what the client gets because the function raised, unless a middleware records it."""
        if self._failed_status is not None:
            self.fields.setdefault("status", self._failed_status)
        if self._record_count is not None:
            self.fields["failure_count"] = self._record_count


def correlation_id(headers: Any, names: Sequence[str] = CORRELATION_HEADERS) -> Optional[str]:
    """Return the correlation id that came in with a request's headers.

    Args:
        headers: A mapping, or pairs of names and values, as text or bytes, in any case. Of several values in
            a list, the first counts. Anything else carries no id.
        names: The headers that may carry it, in lower case.

    Returns:
        The value of the first of the names that is there. A value that is longer than 128 characters, or has
        others than visible ASCII, is ignored, because it could not be sent on in a header.
    """
    found: dict[str, str] = {}
    try:
        pairs: Any = headers.items() if hasattr(headers, "items") else headers or ()
        for name, value in list(pairs):
            lowered = (name if isinstance(name, str) else _header_text(name)).lower()
            if lowered in names:
                text = _header_text(value[0] if isinstance(value, list) and value else value)
                if is_correlation_id(text):
                    found.setdefault(lowered, text)
    except Exception:
        found.clear()  # not headers
    return next((found[name] for name in names if name in found), None)


def is_correlation_id(text: str) -> bool:
    """Return whether a text can be sent on in a header: visible ASCII, at most 128 characters."""
    return 0 < len(text) <= MAX_CORRELATION_ID and text.isascii() and text.isprintable() and " " not in text


def _header_text(value: object) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else value if isinstance(value, str) else ""


def weakly(context: Any) -> Callable[[], Any]:
    """Return a function that gives a context as long as its invocation holds it."""
    try:
        return weakref.ref(context)
    except TypeError:
        return lambda: context


# By the draft's id(). Watching an invocation costs one dict entry: the thread sleeps until the earliest time
# that was due when it last looked. An earlier one wakes it; `forget` does not.
_due: dict[int, tuple[float, weakref.ref[Draft]]] = {}
_lock = threading.Lock()
_watcher: Optional[_Watcher] = None


def watch(draft: Draft, seconds: float) -> None:
    """Have a draft's time run out after some seconds, unless it is written before."""
    global _watcher
    due = time.monotonic() + seconds
    with _lock:
        _due[id(draft)] = due, weakref.ref(draft)
        if _watcher is None:
            watcher = _Watcher(due)
            try:
                watcher.start()
            except RuntimeError:
                return  # no more threads: the invocation runs without a watch
            _watcher = watcher
        elif due < _watcher.until:
            _watcher.until = due
            _watcher.wake.set()


def forget(draft: Draft) -> None:
    """Stop watching a draft. Takes no lock: a finalizer may call this in the thread that holds it."""
    _due.pop(id(draft), None)


class _Watcher(threading.Thread):
    def __init__(self, until: float) -> None:
        super().__init__(name="tagline-timeout", daemon=True)
        self.until = until
        self.wake = threading.Event()

    def run(self) -> None:
        while True:
            self.wake.wait(min(max(self.until - time.monotonic(), 0), threading.TIMEOUT_MAX))
            self._run_out()

    def _run_out(self) -> None:
        with _lock:
            self.wake.clear()
            now = time.monotonic()
            late = [_due.pop(key, None) for key, (due, _) in list(_due.items()) if due <= now]
            self.until = min((due for due, _ in list(_due.values())), default=float("inf"))
        for draft in [found[1]() for found in late if found]:
            if draft is not None:
                draft.run_out()


def _forget_all() -> None:
    global _watcher, _lock
    _due.clear()
    # A restored snapshot has the thread, a forked child has not.
    if _watcher is not None and not _watcher.is_alive():
        _watcher, _lock = None, threading.Lock()


after_copy(_forget_all)
