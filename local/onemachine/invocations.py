"""Lambda's Invoke: what the call answers, and what becomes of events that are invoked asynchronously.

https://docs.aws.amazon.com/lambda/latest/api/API_Invoke.html and
https://docs.aws.amazon.com/lambda/latest/dg/invocation-async-error-handling.html
"""

from __future__ import annotations

import base64
import json
import logging
import threading
import uuid
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import unquote

from onemachine.clock import Now, real_time
from onemachine.destinations import INVOCATION_DESTINATIONS, Send, check_destination
from onemachine.functions import Functions, Result, ThrottledError, function_arn

logger = logging.getLogger(__name__)

# https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html
MAX_ASYNC_PAYLOAD_BYTES = 1024 * 1024
MAX_RETRIES = 2
MIN_EVENT_AGE_S, MAX_EVENT_AGE_S = 60, 21_600

RETRY_AFTER_S = (1.0, 2.0)
"""AWS waits one minute and two; here a person or a test waits for the alert."""
FIRST_THROTTLED_PAUSE_S = 0.05
LONGEST_THROTTLED_PAUSE_S = 1.0
AT_ONCE = 4


@dataclass(frozen=True)
class EventSettings:
    """An AWS::Lambda::EventInvokeConfig.

    Attributes:
        maximum_retry_attempts: How often an event that the function fails on is tried again, 0 to 2.
        maximum_event_age_s: The age at which an event is given up, in seconds, 60 to 21,600.
        on_failure_arn: The bucket, queue, topic or function that gets events that were given up.
        on_success_arn: The queue, topic or function that gets those that were processed.

    Raises:
        ValueError: A value is outside of Lambda's limits, or a destination is not one of Lambda's.
    """

    maximum_retry_attempts: int = MAX_RETRIES
    maximum_event_age_s: float = MAX_EVENT_AGE_S
    on_failure_arn: str | None = None
    on_success_arn: str | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.maximum_retry_attempts <= MAX_RETRIES:
            raise ValueError(f"MaximumRetryAttempts is {self.maximum_retry_attempts}, not 0 to {MAX_RETRIES}")
        if not MIN_EVENT_AGE_S <= self.maximum_event_age_s <= MAX_EVENT_AGE_S:
            raise ValueError(
                f"MaximumEventAgeInSeconds is {self.maximum_event_age_s},"
                f" not {MIN_EVENT_AGE_S} to {MAX_EVENT_AGE_S}"
            )
        if self.on_failure_arn:
            check_destination(self.on_failure_arn, INVOCATION_DESTINATIONS)
        if self.on_success_arn:
            check_destination(self.on_success_arn, tuple(set(INVOCATION_DESTINATIONS) - {"s3"}))


@dataclass(frozen=True)
class _Event:
    function: str
    payload: bytes
    request_id: str
    trace_id: str
    accepted: datetime


class AsyncInvocations:
    """The events that wait for functions: each is tried up to three times, then its destination is called.

    Args:
        functions: The functions.
        send: Delivers to destinations.
        clock: Says what time it is, for the age of events.
        retry_after_s: How long to wait before the first and the second retry, in seconds.
    """

    def __init__(
        self,
        functions: Functions,
        send: Send,
        clock: Now = real_time,
        retry_after_s: tuple[float, float] = RETRY_AFTER_S,
    ) -> None:
        self._functions = functions
        self._send = send
        self._clock = clock
        self._retry_after_s = retry_after_s
        self._settings: dict[str, EventSettings] = {}
        self._stopped = threading.Event()
        self._workers = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="asynchronous")
        self._under_way = 0
        self._counting = threading.Lock()

    def configure(self, function: str, settings: EventSettings) -> None:
        """Set what becomes of a function's events.

        Args:
            function: The function's name.
            settings: Its configuration; without any, the defaults hold.
        """
        self._settings[function] = settings

    def submit(self, function: str, payload: bytes, trace_id: str = "") -> str:
        """Take an event; it is processed by another thread.

        Args:
            function: The function's name.
            payload: The event, as JSON, at most `MAX_ASYNC_PAYLOAD_BYTES`.
            trace_id: The X-Ray header of the caller.

        Returns:
            The request's id, which every attempt has.

        Raises:
            KeyError: If the function does not exist.
            ValueError: The payload is larger than Lambda takes.
        """
        event = self._event(function, payload, trace_id)
        with self._counting:
            self._under_way += 1
        self._workers.submit(self._process, event)
        return event.request_id

    def run(self, function: str, payload: bytes) -> Result:
        """Process an event as `submit` does, but wait for the end.

        Args:
            function: The function's name.
            payload: The event.

        Returns:
            The result of the last attempt.

        Raises:
            KeyError: If the function does not exist.
            ValueError: The payload is larger than Lambda takes.
            RuntimeError: The event was given up without an attempt, or `stop` was called.
        """
        result = self._attempt(self._event(function, payload, ""))
        if result is None:
            raise RuntimeError(f"{function} was not called: its event was given up")
        return result

    def idle(self) -> bool:
        """Say whether no event waits or is being processed."""
        with self._counting:
            return not self._under_way

    def stop(self) -> None:
        """Try nothing again; what waits is lost. Attempts that run end when the functions are stopped."""
        self._stopped.set()
        self._workers.shutdown(wait=False, cancel_futures=True)

    def _event(self, function: str, payload: bytes, trace_id: str) -> _Event:
        if function not in self._functions.names():
            raise KeyError(function)
        if len(payload) > MAX_ASYNC_PAYLOAD_BYTES:
            raise ValueError(
                f"event for {function} has {len(payload)} bytes, the limit is {MAX_ASYNC_PAYLOAD_BYTES}"
            )
        return _Event(function, payload, str(uuid.uuid4()), trace_id, self._clock())

    def _process(self, event: _Event) -> None:
        try:
            self._attempt(event)
        # There is nobody to raise to; AWS has a metric for what cannot be delivered.
        except Exception:
            if not self._stopped.is_set():
                logger.exception("event %s of %s", event.request_id, event.function)
        finally:
            with self._counting:
                self._under_way -= 1

    def _attempt(self, event: _Event) -> Result | None:
        settings = self._settings.get(event.function, EventSettings())
        oldest = timedelta(seconds=settings.maximum_event_age_s)
        attempts, throttled_s = 0, FIRST_THROTTLED_PAUSE_S
        result: Result | None = None
        while True:
            if self._functions.zero_reserved(event.function):
                return self._tell(event, settings, "ZeroReservedConcurrency", attempts, result)
            if self._clock() - event.accepted > oldest:
                return self._tell(event, settings, "EventAgeExceeded", attempts, result)
            try:
                result = self._functions.invoke(
                    event.function, event.payload, request_id=event.request_id, trace_id=event.trace_id
                )
            except ThrottledError:
                # Not an attempt: only the event's age ends it.
                self._wait(throttled_s)
                throttled_s = min(2 * throttled_s, LONGEST_THROTTLED_PAUSE_S)
                continue
            attempts += 1
            if not result.error:
                return self._tell(event, settings, "Success", attempts, result)
            if attempts > settings.maximum_retry_attempts:
                return self._tell(event, settings, "RetriesExhausted", attempts, result)
            logger.info("%s failed on an event, attempt %d", event.function, attempts)
            self._wait(self._retry_after_s[attempts - 1])

    def _wait(self, seconds: float) -> None:
        if self._stopped.wait(seconds):
            raise RuntimeError("the functions were stopped")

    def _tell(
        self, event: _Event, settings: EventSettings, condition: str, attempts: int, result: Result | None
    ) -> Result | None:
        arn = settings.on_success_arn if condition == "Success" else settings.on_failure_arn
        if condition != "Success":
            logger.warning("gave up an event of %s: %s", event.function, condition)
        if arn:
            now = self._clock()
            document = invocation_record(event, condition, attempts, result, now)
            self._send(arn, document, invocation_key(event.function, now))
        return result


def invocation_record(
    event: _Event, condition: str, attempts: int, result: Result | None, now: datetime
) -> dict[str, Any]:
    """Describe the end of an event, for its destination.

    Args:
        event: The event.
        condition: Why it ended.
        attempts: How often the function was called.
        result: What it answered last, if it was called.
        now: The time.

    Returns:
        The record of https://docs.aws.amazon.com/lambda/latest/dg/invocation-async-retain-records.html.
    """
    record: dict[str, Any] = {
        "version": "1.0",
        "timestamp": now.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "requestContext": {
            "requestId": event.request_id,
            "functionArn": f"{function_arn(event.function)}:$LATEST",
            "condition": condition,
            "approximateInvokeCount": attempts,
        },
        "requestPayload": json.loads(event.payload),
    }
    if result:
        record["responseContext"] = {"statusCode": 200, "executedVersion": "$LATEST"}
        if result.error:
            record["responseContext"]["functionError"] = result.error
        record["responsePayload"] = json.loads(result.payload)
    return record


def invocation_key(function: str, now: datetime) -> str:
    """Name the object of a record in a bucket: in UTC, and never the same twice."""
    utc = now.astimezone(UTC)
    return f"aws/lambda/async/{function}/{utc:%Y/%m/%d}/{utc:%Y-%m-%dT%H.%M.%S}-{uuid.uuid4()}"


# --- the call ---------------------------------------------------------------------------------------------

Answer = tuple[int, dict[str, str], bytes]
"""Status, headers and body."""


def answer_invoke(
    functions: Functions, events: AsyncInvocations, path: str, headers: Mapping[str, str], body: bytes
) -> Answer:
    """Answer an Invoke request.

    Args:
        functions: The functions.
        events: What takes events of InvocationType Event.
        path: The request's path, `/2015-03-31/functions/{name}/invocations`, percent-encoded.
        headers: Its headers.
        body: The payload; empty for none.

    Returns:
        The response: the function's answer, or the error that Lambda gives.
    """
    given = {name.lower(): value for name, value in headers.items()}
    name, qualifier = _name_and_qualifier(
        unquote(path.split("/functions/", 1)[1].rsplit("/invocations", 1)[0])
    )
    if name not in functions.names() or qualifier not in {"", "$LATEST"}:
        arn = function_arn(name) + (f":{qualifier}" if qualifier else "")
        return _error(404, "ResourceNotFoundException", f"Function not found: {arn}", Type="User")
    try:
        return _carry_out(functions, events, name, given, body or b"{}")
    except json.JSONDecodeError as error:
        message = f"Could not parse request body into json: {error}"
        return _error(400, "InvalidRequestContentException", message, Type="User")
    except ThrottledError as error:
        # https://docs.aws.amazon.com/lambda/latest/api/API_Invoke.html#API_Invoke_Errors
        return _error(
            429, "TooManyRequestsException", "Rate Exceeded.", "message", Reason=error.reason, Type="User"
        )
    except ValueError as error:
        return _error(413, "RequestTooLargeException", str(error), Type="User")
    except RuntimeError as error:
        return _error(500, "ServiceException", str(error), Type="Service")


def _carry_out(
    functions: Functions, events: AsyncInvocations, name: str, headers: Mapping[str, str], payload: bytes
) -> Answer:
    kind = headers.get("x-amz-invocation-type", "RequestResponse")
    trace_id = headers.get("x-amzn-trace-id", "")
    wants_tail = headers.get("x-amz-log-type") == "Tail"
    json.loads(payload)
    if kind == "DryRun":
        return 204, {"x-amz-executed-version": "$LATEST"}, b""
    if kind == "Event":
        return 202, {"x-amzn-requestid": events.submit(name, payload, trace_id)}, b""
    if kind != "RequestResponse":
        return _error(400, "InvalidParameterValueException", f"InvocationType {kind} is not one of Lambda's")
    result = functions.invoke(name, payload, trace_id=trace_id, tail=wants_tail)
    answer = {
        "content-type": "application/json",
        "x-amz-executed-version": "$LATEST",
        "x-amzn-requestid": result.request_id,
    }
    if result.error:
        answer["x-amz-function-error"] = result.error
    if wants_tail:
        answer["x-amz-log-result"] = base64.b64encode(result.tail).decode("ascii")
    return 200, answer, result.payload


def _error(status: int, kind: str, message: str, key: str = "Message", **more: str) -> Answer:
    headers = {"content-type": "application/json", "x-amzn-errortype": kind}
    return status, headers, json.dumps({**more, key: message}).encode()


def _name_and_qualifier(text: str) -> tuple[str, str]:
    """Take apart a name, a partial ARN or an ARN, each with or without a qualifier."""
    parts = text.split(":")
    if "function" in parts[:-1]:
        parts = parts[parts.index("function") + 1 :]
    return parts[0], parts[1] if len(parts) > 1 else ""
