"""Invoke as botocore reads it, and asynchronous events up to their destinations."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from onemachine.functions import Function, Functions, ThrottledError
from onemachine.invocations import (
    MAX_ASYNC_PAYLOAD_BYTES,
    AsyncInvocations,
    EventSettings,
    answer_invoke,
    invocation_key,
)

TOPIC = "arn:aws:sns:us-east-1:123456789012:alerts"
QUEUE = "arn:aws:sqs:us-east-1:123456789012:done"

HANDLERS = """
calls = 0

def echo(event, context):
    return event

def fails(event, context):
    print("failing")
    raise ValueError("no")

def fails_at_first(event, context):
    global calls
    calls += 1
    if calls < 3:
        raise ValueError("not yet")
    return calls
"""


class Destination:
    """Remembers what was delivered, and to where."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, Any, str]] = []

    def __call__(self, arn: str, document: Any, key: str) -> None:
        self.sent.append((arn, json.loads(json.dumps(document)), key))


@pytest.fixture
def functions(tmp_path: Path) -> Iterator[Functions]:
    (tmp_path / "events_sample.py").write_text(HANDLERS)
    functions = Functions(lambda *_: None, {}, in_process=True)
    for name, reserved in (("echo", None), ("fails", None), ("fails_at_first", None), ("never", 0)):
        handler = f"events_sample.{'echo' if name == 'never' else name}"
        functions.add(
            Function(
                name, handler, 128, 10, {}, f"/aws/lambda/{name}", tmp_path, reserved_concurrency=reserved
            )
        )
    yield functions
    functions.stop()


def until(condition: Callable[[], bool]) -> None:
    waiting = threading.Event()
    for _ in range(6_000):
        if condition():
            return
        waiting.wait(0.01)
    pytest.fail("it did not happen within a minute")


# https://docs.aws.amazon.com/lambda/latest/dg/invocation-async-error-handling.html and
# https://docs.aws.amazon.com/lambda/latest/dg/invocation-async-retain-records.html
ENDS: list[tuple[str, str, dict[str, Any], tuple[str, str, int] | None]] = [
    ("two retries by default", "fails", {}, (TOPIC, "RetriesExhausted", 3)),
    ("one retry", "fails", {"maximum_retry_attempts": 1}, (TOPIC, "RetriesExhausted", 2)),
    ("no retry", "fails", {"maximum_retry_attempts": 0}, (TOPIC, "RetriesExhausted", 1)),
    ("success at the last attempt", "fails_at_first", {}, (QUEUE, "Success", 3)),
    ("success at once", "echo", {}, (QUEUE, "Success", 1)),
    ("no destination", "fails", {"on_failure_arn": None}, None),
    ("a reserved concurrency of zero: no attempt", "never", {}, (TOPIC, "ZeroReservedConcurrency", 0)),
]


@pytest.mark.parametrize(
    ("function", "values", "end"), [case[1:] for case in ENDS], ids=[case[0] for case in ENDS]
)
def test_an_event_ends_at_its_destination(
    functions: Functions, function: str, values: dict[str, Any], end: tuple[str, str, int] | None
) -> None:
    destination = Destination()
    events = AsyncInvocations(functions, destination, retry_after_s=(0, 0))
    events.configure(function, EventSettings(**{"on_failure_arn": TOPIC, "on_success_arn": QUEUE, **values}))
    request_id = events.submit(function, b'{"a": 1}')
    until(events.idle)
    events.stop()
    told = [
        (arn, record["requestContext"]["condition"], record["requestContext"]["approximateInvokeCount"])
        for arn, record, _ in destination.sent
    ]
    assert told == ([end] if end else [])
    for _, record, _ in destination.sent:
        assert record["requestContext"]["requestId"] == request_id
        assert record["requestContext"]["functionArn"].endswith(f":function:{function}:$LATEST")
        assert record["requestPayload"] == {"a": 1}


def test_a_record_has_the_documented_shape(functions: Functions) -> None:
    destination = Destination()
    now = datetime(2026, 11, 20, 9, 0, tzinfo=UTC)
    events = AsyncInvocations(functions, destination, lambda: now)
    events.configure("fails", EventSettings(0, on_failure_arn="arn:aws:s3:::failed"))
    result = events.run("fails", b"[]")
    events.stop()
    ((_, record, key),) = destination.sent
    payload = record.pop("responsePayload")
    assert (payload["errorType"], payload["errorMessage"]) == ("ValueError", "no")
    assert record == {
        "version": "1.0",
        "timestamp": "2026-11-20T09:00:00.000Z",
        "requestContext": {
            "requestId": result.request_id,
            "functionArn": "arn:aws:lambda:us-east-1:123456789012:function:fails:$LATEST",
            "condition": "RetriesExhausted",
            "approximateInvokeCount": 1,
        },
        "requestPayload": [],
        "responseContext": {"statusCode": 200, "executedVersion": "$LATEST", "functionError": "Unhandled"},
    }
    assert key.startswith("aws/lambda/async/fails/2026/11/20/2026-11-20T09.00.00-")
    assert key != invocation_key("fails", now)


def test_an_event_that_waits_for_too_long_is_given_up(functions: Functions) -> None:
    destination = Destination()
    times = iter([datetime(2026, 11, 20, hour, tzinfo=UTC) for hour in (9, 9, 16, 16)])
    events = AsyncInvocations(functions, destination, lambda: next(times), retry_after_s=(0, 0))
    events.configure("fails", EventSettings(on_failure_arn=TOPIC))
    events.run("fails", b"{}")
    events.stop()
    context = destination.sent[0][1]["requestContext"]
    assert (context["condition"], context["approximateInvokeCount"]) == ("EventAgeExceeded", 1)


def test_a_throttle_is_no_attempt(functions: Functions) -> None:
    class Throttling:
        def __init__(self) -> None:
            self.left = 2

        def __getattr__(self, name: str) -> Any:
            return getattr(functions, name)

        def invoke(self, name: str, payload: bytes, **more: Any) -> Any:
            if self.left:
                self.left -= 1
                raise ThrottledError(name, 1, "ConcurrentInvocationLimitExceeded")
            return functions.invoke(name, payload, **more)

    destination = Destination()
    throttling: Any = Throttling()
    events = AsyncInvocations(throttling, destination)
    events.configure("echo", EventSettings(0, on_success_arn=QUEUE))
    assert events.run("echo", b"7").payload == b"7"
    events.stop()
    assert destination.sent[0][1]["requestContext"]["approximateInvokeCount"] == 1


def test_what_cannot_be_delivered_is_said_and_ends_the_event(
    functions: Functions, caplog: pytest.LogCaptureFixture
) -> None:
    def send(*_: object) -> None:
        raise ConnectionError("away")

    events = AsyncInvocations(functions, send)
    events.configure("echo", EventSettings(on_success_arn=QUEUE))
    events.submit("echo", b"{}")
    until(events.idle)
    events.stop()
    assert any("away" in str(record.exc_info) for record in caplog.records)


SETTINGS_REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"maximum_retry_attempts": 3}, "MaximumRetryAttempts is 3"),
    ({"maximum_retry_attempts": -1}, "MaximumRetryAttempts is -1"),
    ({"maximum_event_age_s": 59}, "MaximumEventAgeInSeconds is 59"),
    ({"maximum_event_age_s": 21_601}, "MaximumEventAgeInSeconds is 21601"),
    (
        {"on_failure_arn": "arn:aws:events:us-east-1:123456789012:event-bus/b"},
        "does not belong to s3, sqs, sns, lambda",
    ),
    ({"on_success_arn": "arn:aws:s3:::bucket"}, "does not belong to"),
]


@pytest.mark.parametrize(("values", "complaint"), SETTINGS_REFUSED)
def test_settings_that_lambda_refuses_are_refused(values: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        EventSettings(**values)


# --- the call ---------------------------------------------------------------------------------------------

PATH = "/2015-03-31/functions/{}/invocations"
ARN = "arn%3Aaws%3Alambda%3Aus-east-1%3A123456789012%3Afunction%3Aecho"

# https://docs.aws.amazon.com/lambda/latest/api/API_Invoke.html
CALLS: list[tuple[str, str, dict[str, str], bytes, int, str]] = [
    ("by name", "echo", {}, b"{}", 200, ""),
    ("by name and version", "echo:%24LATEST", {}, b"{}", 200, ""),
    ("by ARN", ARN, {}, b"{}", 200, ""),
    ("by ARN and version", f"{ARN}%3A%24LATEST", {}, b"{}", 200, ""),
    ("by partial ARN", "123456789012%3Afunction%3Aecho", {}, b"{}", 200, ""),
    ("without a payload", "echo", {}, b"", 200, ""),
    ("an event", "echo", {"X-Amz-Invocation-Type": "Event"}, b"{}", 202, ""),
    ("a dry run", "echo", {"X-Amz-Invocation-Type": "DryRun"}, b"{}", 204, ""),
    (
        "a type that is none",
        "echo",
        {"X-Amz-Invocation-Type": "x"},
        b"",
        400,
        "InvalidParameterValueException",
    ),
    ("no such function", "nobody", {}, b"{}", 404, "ResourceNotFoundException"),
    ("no such version", "echo:7", {}, b"{}", 404, "ResourceNotFoundException"),
    ("no JSON", "echo", {}, b"{", 400, "InvalidRequestContentException"),
    ("throttled", "never", {}, b"{}", 429, "TooManyRequestsException"),
    (
        "an event above 1 MB",
        "echo",
        {"X-Amz-Invocation-Type": "Event"},
        b'"' + b"x" * (MAX_ASYNC_PAYLOAD_BYTES - 1) + b'"',
        413,
        "RequestTooLargeException",
    ),
    (
        "an event of 1 MB",
        "echo",
        {"X-Amz-Invocation-Type": "Event"},
        b'"' + b"x" * (MAX_ASYNC_PAYLOAD_BYTES - 2) + b'"',
        202,
        "",
    ),
]


@pytest.mark.parametrize("call", CALLS, ids=[call[0] for call in CALLS])
def test_invoke_answers_as_lambda_does(
    functions: Functions, call: tuple[str, str, dict[str, str], bytes, int, str]
) -> None:
    _, name, headers, body, status, error = call
    events = AsyncInvocations(functions, Destination())
    answered, given, _ = answer_invoke(functions, events, PATH.format(name), headers, body)
    events.stop()
    assert (answered, given.get("x-amzn-errortype", "")) == (status, error)


def test_a_throttle_names_its_reason(functions: Functions) -> None:
    events = AsyncInvocations(functions, Destination())
    _, _, body = answer_invoke(functions, events, PATH.format("never"), {}, b"{}")
    events.stop()
    assert json.loads(body) == {
        "Reason": "ReservedFunctionConcurrentInvocationLimitExceeded",
        "Type": "User",
        "message": "Rate Exceeded.",
    }


def test_a_function_error_and_the_tail_are_in_the_headers(functions: Functions) -> None:
    events = AsyncInvocations(functions, Destination())
    status, headers, body = answer_invoke(
        functions, events, PATH.format("fails"), {"X-Amz-Log-Type": "Tail"}, b"{}"
    )
    events.stop()
    assert (status, headers["x-amz-function-error"], headers["x-amz-executed-version"]) == (
        200,
        "Unhandled",
        "$LATEST",
    )
    assert json.loads(body)["errorType"] == "ValueError"
    lines = base64.b64decode(headers["x-amz-log-result"]).decode().splitlines()
    assert lines[0].startswith("START RequestId: ")
    assert lines[1] == "failing"
