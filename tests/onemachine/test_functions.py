"""Functions under the real runtime client, in processes of their own."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import threading
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onemachine.functions import MAX_PAYLOAD_BYTES, Function, Functions, ThrottledError
from onemachine.functions.definition import APPLICATION_LEVELS, MAX_RESPONSE_BYTES
from onemachine.functions.log_stream import (
    EVENT_OVERHEAD_BYTES,
    MAX_LINE_BYTES,
    SHIP_BYTES,
    SHIP_LINES,
    SHIP_SPAN_MS,
    TAIL_BYTES,
    _Lines,
)

HANDLERS = """
import json, logging, os, signal, subprocess, sys, threading, time

calls = 0

def echo(event, context):
    return event

def count(event, context):
    global calls
    calls += 1
    return {"calls": calls, "pid": os.getpid()}

def describe(event, context):
    return {
        "environment": dict(os.environ),
        "path": sys.path,
        "directory": os.getcwd(),
        "context": {
            "aws_request_id": context.aws_request_id,
            "function_name": context.function_name,
            "memory_limit_in_mb": context.memory_limit_in_mb,
            "invoked_function_arn": context.invoked_function_arn,
            "log_group_name": context.log_group_name,
            "log_stream_name": context.log_stream_name,
        },
        "remaining": context.get_remaining_time_in_millis(),
    }

def say(event, context):
    print("printed")
    print("to stderr", file=sys.stderr)
    logging.getLogger().warning("logged")
    sys.stdout.write("left open")

def many_threads(event, context):
    def write(number):
        for line in range(500):
            sys.stdout.write(f"thread {number} line {line} {'x' * 100}\\n")
    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

def many_lines(event, context):
    for line in range(10_000):
        sys.stdout.write(f"line {line} {'x' * 150}\\n")

def long_line(event, context):
    sys.stdout.write("x" * event + "\\n")

def sleep(event, context):
    print("asleep")
    time.sleep(60)

def allocate(event, context):
    held = bytearray(event * 1024 * 1024)
    time.sleep(60 if event > 100 else 0)
    return len(held)

def leave(event, context):
    print("last words")
    os._exit(event)

def raises(event, context):
    raise ValueError("no such thing")

def unserialisable(event, context):
    return {1, 2}

def levels(event, context):
    logger = logging.getLogger("own")
    for level in (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR):
        logger.log(level, "logged at %s\\nand more", logging.getLevelName(level))
    print("printed")
    for line in event:
        print(line)

def mixed(event, context):
    for number in range(event):
        sys.stdout.write(f"printed {number}\\n")
        logging.getLogger().error("logged %d\\nand more", number)

def trace(event, context):
    return os.environ.get("_X_AMZN_TRACE_ID")

def large(event, context):
    return "x" * (event - 2)

def wait(event, context):
    os.write(event["began"], b"x")
    os.read(event["go_on"], 1)

def keeps(event, context):
    before = os.environ.get("KEPT", "")
    os.environ["KEPT"] = event
    return [before, subprocess.check_output(["sh", "-c", "echo $KEPT"], text=True).strip()]
"""

NAMES = [
    "echo",
    "count",
    "describe",
    "say",
    "many_threads",
    "many_lines",
    "long_line",
    "allocate",
    "leave",
    "raises",
    "unserialisable",
    "large",
    "trace",
    "wait",
    "keeps",
]


class Shipped:
    """Stands for CloudWatch Logs: remembers what was shipped, by group."""

    def __init__(self) -> None:
        self.batches: dict[str, list[tuple[str, list[tuple[int, str]]]]] = defaultdict(list)

    def __call__(self, group: str, stream: str, lines: list[tuple[int, str]]) -> None:
        self.batches[group].append((stream, lines))

    def messages(self, group: str) -> list[str]:
        return [message for _, lines in self.batches[group] for _, message in lines]

    def of_the_function(self, group: str) -> list[str]:
        platform = ("INIT_START ", "START ", "END ", "REPORT ")
        return [message for message in self.messages(group) if not message.startswith(platform)]


@pytest.fixture(scope="module")
def code(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("code")
    (directory / "sample.py").write_text(HANDLERS)
    (directory / "fails_to_load.py").write_text("raise RuntimeError('not today')\n")
    return directory


def function(code: Path, name: str, handler: str = "", **values: Any) -> Function:
    defaults: dict[str, Any] = {
        "memory_mb": 128,
        "timeout_s": 20.0,
        "environment": {},
        "log_group": f"/aws/lambda/{name}",
    }
    return Function(name=name, handler=handler or f"sample.{name}", code=code, **{**defaults, **values})


def started(code: Path, shipped: Shipped, in_process: bool = False) -> Functions:
    functions = Functions(shipped, {"AWS_ACCESS_KEY_ID": "local", "AWS_REGION": "eu-central-1"}, in_process)
    for name in NAMES:
        functions.add(function(code, name))
    return functions


@pytest.fixture(scope="module")
def shipped() -> Shipped:
    return Shipped()


@pytest.fixture(scope="module")
def functions(code: Path, shipped: Shipped) -> Iterator[Functions]:
    functions = started(code, shipped)
    yield functions
    functions.stop()


@pytest.fixture
def local(code: Path) -> Iterator[tuple[Functions, Shipped]]:
    """Functions that run in this interpreter."""
    shipped = Shipped()
    functions = started(code, shipped, in_process=True)
    yield functions, shipped
    functions.stop()
    sys.modules.pop("sample", None)


def document(payload: bytes) -> Any:
    return json.loads(payload)


def test_functions_run_in_processes_where_the_runtime_client_is_there(functions: Functions) -> None:
    assert (functions.runs_in_process, functions.why_in_process) == (False, "")
    assert functions.names()[:2] == ["echo", "count"]


@pytest.mark.parametrize(
    "payload", ['{"a": [1, "é", null]}', '"text"', "null", '{"long": "' + "x" * 3_000_000 + '"}']
)
def test_a_result_is_what_the_handler_returned(functions: Functions, payload: str) -> None:
    result = functions.invoke("echo", payload.encode())
    assert (document(result.payload), result.error) == (json.loads(payload), None)


def test_an_environment_is_used_again(functions: Functions) -> None:
    answers = [document(functions.invoke("count", b"{}").payload) for _ in range(3)]
    assert [answer["calls"] for answer in answers] == [1, 2, 3]
    assert len({answer["pid"] for answer in answers}) == 1


def test_callers_share_at_most_two_environments(code: Path) -> None:
    functions = Functions(Shipped(), {})
    functions.add(function(code, "count"))
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda _: document(functions.invoke("count", b"{}").payload), range(60)))
    functions.stop()
    assert 1 <= len({answer["pid"] for answer in answers}) <= 2
    assert sum(answer["calls"] == 1 for answer in answers) == len({answer["pid"] for answer in answers})


def test_the_environment_is_that_of_lambda_and_nothing_of_ours(
    code: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OUR_SECRET", "x")
    shipped = Shipped()
    functions = Functions(shipped, {"AWS_ACCESS_KEY_ID": "local", "AWS_REGION": "eu-central-1"})
    library = code / "library"
    functions.add(
        function(
            code,
            "describe",
            environment={"TABLE": "t", "AWS_REGION": "no"},
            log_group="/own/group",
            path=(library,),
        )
    )
    result = functions.invoke("describe", b"{}")
    functions.stop()
    answer = document(result.payload)
    environment = answer["environment"]
    (stream, _), *_ = shipped.batches["/own/group"]
    expected = {
        "AWS_ACCESS_KEY_ID": "local",
        "TABLE": "t",
        "AWS_REGION": "eu-central-1",
        "AWS_DEFAULT_REGION": "eu-central-1",
        "AWS_EXECUTION_ENV": f"AWS_Lambda_python{sys.version_info.major}.{sys.version_info.minor}",
        "AWS_LAMBDA_FUNCTION_NAME": "describe",
        "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "128",
        "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
        "AWS_LAMBDA_LOG_GROUP_NAME": "/own/group",
        "AWS_LAMBDA_LOG_STREAM_NAME": stream,
        "LAMBDA_TASK_ROOT": str(code),
        "_HANDLER": "sample.describe",
        "TZ": ":UTC",
    }
    assert {name: environment.get(name) for name in expected} == expected
    assert environment["_X_AMZN_TRACE_ID"].startswith("Root=1-")
    assert "OUR_SECRET" not in environment
    assert answer["directory"] == str(code)
    assert str(library) in answer["path"]
    assert answer["context"] == {
        "aws_request_id": result.request_id,
        "function_name": "describe",
        "memory_limit_in_mb": "128",
        "invoked_function_arn": "arn:aws:lambda:eu-central-1:123456789012:function:describe",
        "log_group_name": "/own/group",
        "log_stream_name": stream,
    }
    assert 0 < answer["remaining"] <= 20_000


def test_output_is_shipped_between_the_lines_of_the_platform(functions: Functions, shipped: Shipped) -> None:
    request_id = functions.invoke("say", b"{}").request_id
    second = functions.invoke("say", b"{}").request_id
    functions.flush()
    init, *messages = shipped.messages("/aws/lambda/say")
    start, printed, err, logged, left_open, end, report, *following = messages
    assert init.startswith("INIT_START Runtime Version: python:3.")
    assert start == f"START RequestId: {request_id} Version: $LATEST"
    assert (printed, err, left_open) == ("printed", "to stderr", "left open")
    assert logged.startswith("[WARNING]\t")
    assert logged.endswith(f"\t{request_id}\tlogged")
    assert end == f"END RequestId: {request_id}"
    fields = [field.partition(": ")[0] for field in report.split("\t")]
    assert fields == [
        "REPORT RequestId",
        "Duration",
        "Billed Duration",
        "Memory Size",
        "Max Memory Used",
        "Init Duration",
        "",
    ]
    assert following[0] == f"START RequestId: {second} Version: $LATEST"
    assert "Init Duration" not in following[-1]


def test_the_platform_writes_json_where_the_function_logs_json(code: Path) -> None:
    shipped = Shipped()
    functions = Functions(shipped, {})
    functions.add(function(code, "say", log_format="JSON"))
    request_id = functions.invoke("say", b"{}").request_id
    functions.stop()
    init, start, printed, *_, report = shipped.messages("/aws/lambda/say")
    assert document(init.encode())["type"] == "platform.initStart"
    assert document(start.encode())["record"] == {"requestId": request_id, "version": "$LATEST"}
    assert printed == "printed"
    assert document(report.encode())["type"] == "platform.report"
    assert document(report.encode())["record"]["metrics"]["memorySizeMB"] == 128


def test_lines_of_eight_threads_arrive_whole(functions: Functions, shipped: Shipped) -> None:
    functions.invoke("many_threads", b"{}")
    functions.flush()
    lines = shipped.of_the_function("/aws/lambda/many_threads")
    expected = {f"thread {number} line {line} {'x' * 100}" for number in range(8) for line in range(500)}
    assert len(lines) == 4_000
    assert set(lines) == expected


def test_ten_thousand_lines_are_shipped_in_order_and_in_batches(
    functions: Functions, shipped: Shipped
) -> None:
    functions.invoke("many_lines", b"{}")
    functions.flush()
    assert shipped.of_the_function("/aws/lambda/many_lines") == [
        f"line {line} {'x' * 150}" for line in range(10_000)
    ]
    batches = shipped.batches["/aws/lambda/many_lines"]
    assert len({stream for stream, _ in batches}) == 1
    assert max(len(lines) for _, lines in batches) <= SHIP_LINES
    times = [when for _, lines in batches for when, _ in lines]
    assert times == sorted(times)


@pytest.mark.parametrize(
    ("length", "pieces"),
    [(MAX_LINE_BYTES, [MAX_LINE_BYTES]), (MAX_LINE_BYTES + 1, [MAX_LINE_BYTES, 1])],
)
def test_a_line_is_split_past_256_kb(code: Path, length: int, pieces: list[int]) -> None:
    shipped = Shipped()
    functions = Functions(shipped, {})
    functions.add(function(code, "long_line"))
    functions.invoke("long_line", str(length).encode())
    functions.stop()
    assert [len(line) for line in shipped.of_the_function("/aws/lambda/long_line")] == pieces


def test_a_timeout_kills_the_process_and_the_next_call_starts_another(code: Path) -> None:
    shipped = Shipped()
    functions = Functions(shipped, {})
    functions.add(function(code, "sleep", timeout_s=0.2))
    first, second = (functions.invoke("sleep", b"{}") for _ in range(2))
    functions.stop()
    assert first.error == second.error == "Unhandled"
    answer = document(first.payload)
    assert answer["errorType"] == "Sandbox.Timedout"
    assert answer["errorMessage"].endswith(f"Z {first.request_id} Task timed out after 0.20 seconds")
    messages = shipped.messages("/aws/lambda/sleep")
    assert answer["errorMessage"] in messages
    assert sum("Status: timeout" in message for message in messages) == 2
    assert len({stream for stream, _ in shipped.batches["/aws/lambda/sleep"]}) == 2


def test_memory_past_the_limit_kills_the_process(functions: Functions, shipped: Shipped) -> None:
    assert document(functions.invoke("allocate", b"60").payload) == 60 * 1024 * 1024
    result = functions.invoke("allocate", b"200")
    assert result.error == "Unhandled"
    assert document(result.payload)["errorType"] == "Runtime.OutOfMemory"
    assert document(functions.invoke("allocate", b"60").payload) == 60 * 1024 * 1024
    report = next(line for line in shipped.messages("/aws/lambda/allocate") if "Status: error" in line)
    assert "Max Memory Used: 128 MB" in report


@pytest.mark.parametrize(
    ("status", "reason"),
    [(3, "Runtime exited with error: exit status 3"), (0, "Runtime exited without providing a reason")],
)
def test_a_process_that_exits_is_an_exit_error(
    functions: Functions, shipped: Shipped, status: int, reason: str
) -> None:
    result = functions.invoke("leave", str(status).encode())
    assert document(result.payload) == {
        "errorType": "Runtime.ExitError",
        "errorMessage": f"RequestId: {result.request_id} Error: {reason}",
    }
    assert "last words" in shipped.messages("/aws/lambda/leave")


def test_an_exception_is_described_and_the_environment_lives_on(
    functions: Functions, shipped: Shipped
) -> None:
    first, second = (functions.invoke("raises", b"{}") for _ in range(2))
    answer = document(first.payload)
    assert (first.error, answer["errorType"], answer["errorMessage"]) == (
        "Unhandled",
        "ValueError",
        "no such thing",
    )
    assert answer["requestId"] == first.request_id
    assert "in raises" in answer["stackTrace"][0]
    assert second.error == "Unhandled"
    functions.flush()
    errors = [
        line for line in shipped.messages("/aws/lambda/raises") if line.startswith("[ERROR] ValueError")
    ]
    assert len(errors) == 2
    assert errors[0].splitlines()[:2] == [
        "[ERROR] ValueError: no such thing",
        "Traceback (most recent call last):",
    ]
    assert len({stream for stream, _ in shipped.batches["/aws/lambda/raises"]}) == 1


def test_an_answer_that_is_not_json_is_an_error(functions: Functions) -> None:
    result = functions.invoke("unserialisable", b"{}")
    assert (result.error, document(result.payload)["errorType"]) == ("Unhandled", "Runtime.MarshalError")


INIT_ERRORS = [
    ("missing.handler", "Runtime.ImportModuleError", "No module named 'missing'"),
    ("sample.missing", "Runtime.HandlerNotFound", "Handler 'missing' missing on module 'sample'"),
    ("fails_to_load.handler", "RuntimeError", "not today"),
]


@pytest.mark.parametrize(("handler", "error_type", "message"), INIT_ERRORS)
def test_a_function_that_cannot_be_loaded_says_why(
    code: Path, handler: str, error_type: str, message: str
) -> None:
    shipped = Shipped()
    functions = Functions(shipped, {})
    functions.add(function(code, "broken", handler))
    result = functions.invoke("broken", b"{}")
    functions.stop()
    answer = document(result.payload)
    assert (result.error, answer["errorType"]) == ("Unhandled", error_type)
    assert message in answer["errorMessage"]
    messages = shipped.messages("/aws/lambda/broken")
    assert any(message in line for line in messages)
    assert f"Error Type: {error_type}" in messages[-1]


def test_an_answer_may_have_6291556_bytes_and_no_more(functions: Functions) -> None:
    assert len(functions.invoke("large", str(MAX_RESPONSE_BYTES).encode()).payload) == MAX_RESPONSE_BYTES
    result = functions.invoke("large", str(MAX_RESPONSE_BYTES + 1).encode())
    assert document(result.payload)["errorType"] == "Function.ResponseSizeTooLarge"


def test_an_event_may_have_6_mb_and_no_more(functions: Functions) -> None:
    largest = b'"' + b"x" * (MAX_PAYLOAD_BYTES - 2) + b'"'
    assert functions.invoke("echo", largest).error is None
    with pytest.raises(ValueError, match=f"{MAX_PAYLOAD_BYTES + 1} bytes"):
        functions.invoke("echo", largest + b" ")


def test_a_killed_function_answers_its_caller_and_starts_again(code: Path) -> None:
    asleep = threading.Event()

    def ship(_: str, __: str, lines: list[tuple[int, str]]) -> None:
        if any(message == "asleep" for _, message in lines):
            asleep.set()

    functions = Functions(ship, {})
    functions.add(function(code, "sleep"))
    functions.add(function(code, "count"))
    assert functions.invoke("count", b"{}").error is None
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(functions.invoke, "sleep", b"{}")
        assert asleep.wait(60)
        functions.kill("sleep")
        functions.kill("count")
        result = running.result(60)
    answer = document(result.payload)
    assert answer["errorType"] == "Runtime.ExitError"
    assert answer["errorMessage"].endswith("Runtime exited with error: signal: killed")
    assert document(functions.invoke("count", b"{}").payload)["calls"] == 1
    functions.stop()


def test_stopping_ends_what_runs_and_refuses_what_comes(code: Path) -> None:
    asleep = threading.Event()
    functions = Functions(lambda *_: asleep.set(), {})
    functions.add(function(code, "sleep"))
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(functions.invoke, "sleep", b"{}")
        assert asleep.wait(60)
        functions.stop()
        assert running.result(60).error == "Unhandled"
    with pytest.raises(RuntimeError, match="stopped"):
        functions.invoke("sleep", b"{}")


def test_names_are_unique_and_known(functions: Functions, code: Path) -> None:
    with pytest.raises(ValueError, match="'echo'"):
        functions.add(function(code, "echo"))
    with pytest.raises(KeyError, match="nobody"):
        functions.invoke("nobody", b"{}")


def test_output_goes_on_being_read_when_shipping_fails(code: Path, caplog: pytest.LogCaptureFixture) -> None:
    def ship(*_: object) -> None:
        raise ConnectionError("no such stream")

    functions = Functions(ship, {})
    functions.add(function(code, "many_lines"))
    assert functions.invoke("many_lines", b"{}").error is None
    functions.stop()
    lost = [record.args for record in caplog.records if record.msg.startswith("lost")]
    assert sum(args[0] for args in lost if isinstance(args, tuple) and isinstance(args[0], int)) == 10_004


# --- what is logged, and what is kept of it ---------------------------------------------------------------


def test_what_is_logged_stays_one_event_and_keeps_its_place(code: Path) -> None:
    shipped = Shipped()
    functions = Functions(shipped, {})
    functions.add(function(code, "mixed"))
    functions.invoke("mixed", b"1000")
    functions.stop()
    messages = shipped.of_the_function("/aws/lambda/mixed")
    assert messages[::2] == [f"printed {number}" for number in range(1_000)]
    assert [message.split("\t")[-1] for message in messages[1::2]] == [
        f"logged {number}\nand more" for number in range(1_000)
    ]


AT = '"timestamp":"2026-11-20T09:00:00Z"'

# https://docs.aws.amazon.com/lambda/latest/dg/monitoring-cloudwatchlogs-log-level.html
PRINTED = [
    ("no level is INFO", '{"a":1}', "INFO"),
    ("its own level", f'{{"level":"debug",{AT}}}', "DEBUG"),
    ("its own level, in capitals", f'{{"level":"ERROR",{AT}}}', "ERROR"),
    ("the word of Python", f'{{"level":"WARNING",{AT}}}', "WARN"),
    ("a level that is none is INFO", f'{{"level":"loud",{AT}}}', "INFO"),
    ("a level that is no text is INFO", f'{{"level":40,{AT}}}', "INFO"),
    ("without a time it is INFO", '{"level":"ERROR"}', "INFO"),
    ("a time that is not RFC 3339 makes it INFO", '{"level":"ERROR","timestamp":"20 Nov 2026"}', "INFO"),
    ("a time without a zone makes it INFO", '{"level":"ERROR","timestamp":"2026-11-20T09:00:00"}', "INFO"),
    ("the time may be called time", '{"level":"FATAL","time":"2026-11-20T09:00:00.123+01:00"}', "FATAL"),
    ("plain text is not filtered (our reading)", "ERROR is not a level", "FATAL"),
    ("broken JSON is plain text", '{"level":"debug"', "FATAL"),
    ("an array is plain text", '["level"]', "FATAL"),
]


@pytest.mark.parametrize("least", ["TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL"])
@pytest.mark.parametrize(("line", "level"), [case[1:] for case in PRINTED], ids=[case[0] for case in PRINTED])
def test_a_printed_line_below_the_level_is_dropped(line: str, level: str, least: str) -> None:
    lines = _Lines(APPLICATION_LEVELS.index(least))
    lines.add(f"{line}\n".encode(), 1, 0.0)
    kept = [message for batch in lines.take() for _, message in batch]
    assert kept == ([line] if APPLICATION_LEVELS.index(level) >= APPLICATION_LEVELS.index(least) else [])


def test_the_level_filters_what_is_logged_in_json_format(code: Path) -> None:
    shipped = Shipped()
    functions = Functions(shipped, {})
    for name, level in (("levels", "WARN"), ("others", "INFO")):
        functions.add(
            function(
                code,
                name,
                "sample.levels",
                log_format="JSON",
                application_level=level,
                system_level="WARN",
            )
        )
        functions.invoke(name, json.dumps(['{"no":"level"}']).encode())
    functions.stop()
    logged = shipped.messages("/aws/lambda/levels")
    levels = [document(line.encode()).get("level") for line in logged if line.startswith("{")]
    assert levels == ["WARNING", "ERROR"]
    assert "printed" in logged
    others = [line for line in shipped.messages("/aws/lambda/others") if line.startswith("{")]
    assert [document(line.encode()).get("level") for line in others] == ["INFO", "WARNING", "ERROR", None]
    assert document(others[0].encode())["message"] == "logged at INFO\nand more"


def test_in_text_format_nothing_is_filtered(code: Path) -> None:
    shipped = Shipped()
    functions = Functions(shipped, {})
    functions.add(function(code, "levels", application_level="FATAL", system_level="WARN"))
    functions.invoke("levels", b'["{}"]')
    functions.stop()
    messages = shipped.messages("/aws/lambda/levels")
    assert messages[1].startswith("START ")
    assert "{}" in messages
    assert sum("logged at" in message for message in messages) == 2  # Python's own level is WARNING


@pytest.mark.parametrize("values", [{"application_level": "LOUD"}, {"system_level": "ERROR"}])
def test_levels_that_lambda_does_not_have_are_refused(code: Path, values: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"LogLevel '\w+' is not one of"):
        function(code, "echo", **values)


FRAME_TYPES = st.sampled_from([0x02, 0x03, 0x0B, 0x0F, 0x13, 0x17, 0x1B])
WRITTEN = st.lists(
    st.one_of(
        st.tuples(FRAME_TYPES, st.text(min_size=1)),
        st.tuples(
            st.none(), st.text(st.characters(exclude_characters="\n", exclude_categories=["Cs"]), min_size=1)
        ),
    ),
    max_size=10,
)


@settings(deadline=None)
@given(WRITTEN, st.lists(st.integers(0, 400), max_size=6))
def test_lines_and_frames_are_the_same_however_the_pipe_cuts_them(
    written: list[tuple[int | None, str]], cuts: list[int]
) -> None:
    output = b"".join(
        text.encode() + b"\n"
        if kind is None
        else bytes([0xA5, 0x5A, 0, kind]) + len(text.encode()).to_bytes(4, "big") + bytes(8) + text.encode()
        for kind, text in written
    )
    lines = _Lines()
    places = [0, *sorted(min(cut, len(output)) for cut in cuts), len(output)]
    for first, last in pairwise(places):
        lines.add(output[first:last], 1, 0.0)
    expected = [text if kind is None else text.removesuffix("\n") for kind, text in written]
    assert [message for batch in lines.take() for _, message in batch] == [text for text in expected if text]


def test_a_frame_that_a_killed_process_left_torn_does_not_swallow_the_platforms_lines() -> None:
    lines = _Lines()
    torn = bytes([0xA5, 0x5A, 0, 3]) + (1_000).to_bytes(4, "big") + bytes(8) + b"half"
    report = bytes([0xA5, 0x5A, 0, 0xF0]) + (6).to_bytes(4, "big") + bytes(8) + b"REPORT"
    lines.add(torn, 1, 0.0)
    lines.add(report, 1, 0.0)
    assert [message for _, message in lines.take()[0]] == ["half", "REPORT"]


# --- concurrency, traces and tails ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reserved", "account", "reason"),
    [
        (1, 1_000, "ReservedFunctionConcurrentInvocationLimitExceeded"),
        (None, 1, "ConcurrentInvocationLimitExceeded"),
    ],
)
def test_one_invocation_too_many_is_throttled(
    code: Path, reserved: int | None, account: int, reason: str
) -> None:
    asleep = threading.Event()

    def ship(_: str, __: str, lines: list[tuple[int, str]]) -> None:
        if any(message == "asleep" for _, message in lines):
            asleep.set()

    functions = Functions(ship, {}, account_concurrency=account)
    functions.add(function(code, "sleep", reserved_concurrency=reserved))
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(functions.invoke, "sleep", b"{}")
        assert asleep.wait(60)
        with pytest.raises(ThrottledError, match="1 invocations at once") as caught:
            functions.invoke("sleep", b"{}")
        functions.kill("sleep")
        assert running.result(60).error == "Unhandled"
    functions.stop()
    assert caught.value.reason == reason


def test_what_a_function_reserves_is_not_the_others(code: Path) -> None:
    functions = Functions(Shipped(), {}, account_concurrency=2)
    functions.add(function(code, "never", "sample.echo", reserved_concurrency=0))
    functions.add(function(code, "reserves", "sample.echo", reserved_concurrency=2))
    functions.add(function(code, "echo"))
    with pytest.raises(ValueError, match="reserves a concurrency of 1, the account has 0"):
        functions.add(function(code, "late", "sample.echo", reserved_concurrency=1))
    for name in ("never", "echo"):
        with pytest.raises(ThrottledError):
            functions.invoke(name, b"{}")
    assert functions.zero_reserved("never")
    assert functions.invoke("reserves", b"{}").error is None
    functions.stop()


def test_the_trace_and_the_request_are_the_callers(functions: Functions) -> None:
    header = "Root=1-67891233-abcdef012345678912345678;Parent=463ac35c9f6413ad;Sampled=1"
    result = functions.invoke("trace", b"{}", request_id="the-request", trace_id=header)
    assert (document(result.payload), result.request_id) == (header, "the-request")
    first, second = (document(functions.invoke("trace", b"{}").payload) for _ in range(2))
    assert first.startswith("Root=1-")
    assert first != second


def test_the_tail_is_the_end_of_this_invocations_log(code: Path) -> None:
    functions = Functions(Shipped(), {})
    for name in ("say", "many_lines"):
        functions.add(function(code, name))
    functions.invoke("say", b"{}")
    result = functions.invoke("say", b"{}", tail=True)
    first, *_, last = result.tail.decode().splitlines()
    assert first == f"START RequestId: {result.request_id} Version: $LATEST"
    assert last.startswith(f"REPORT RequestId: {result.request_id}")
    assert functions.invoke("say", b"{}").tail == b""
    long = functions.invoke("many_lines", b"{}", tail=True)
    assert len(long.tail) == TAIL_BYTES
    assert long.tail.decode().splitlines()[-1].startswith("REPORT ")
    functions.stop()


# --- in this interpreter ----------------------------------------------------------------------------------


def test_in_this_interpreter_a_function_sees_the_same_things(
    local: tuple[Functions, Shipped], monkeypatch: pytest.MonkeyPatch
) -> None:
    functions, shipped = local
    monkeypatch.setenv("OUR_SECRET", "x")
    before, path = dict(os.environ), list(sys.path)
    assert (functions.runs_in_process, functions.why_in_process) == (True, "asked for")
    result = functions.invoke("describe", b"{}")
    functions.flush()
    answer = document(result.payload)
    assert answer["environment"]["AWS_LAMBDA_FUNCTION_NAME"] == "describe"
    assert answer["environment"]["AWS_REGION"] == "eu-central-1"
    assert "OUR_SECRET" not in answer["environment"]
    assert answer["context"] == {
        "aws_request_id": result.request_id,
        "function_name": "describe",
        "memory_limit_in_mb": "128",
        "invoked_function_arn": "arn:aws:lambda:eu-central-1:123456789012:function:describe",
        "log_group_name": "/aws/lambda/describe",
        "log_stream_name": shipped.batches["/aws/lambda/describe"][0][0],
    }
    assert 0 < answer["remaining"] <= 20_000
    assert (dict(os.environ), sys.path) == (before, path)


def test_while_a_function_has_this_interpreter_others_keep_the_variables_that_they_hold(
    local: tuple[Functions, Shipped], monkeypatch: pytest.MonkeyPatch
) -> None:
    functions, _ = local
    monkeypatch.setenv("OUR_SECRET", "x")
    held, before, home = os.environ, dict(os.environ), Path("~").expanduser()
    (began, says_began), (go_on, says_go_on) = os.pipe(), os.pipe()
    event = json.dumps({"began": says_began, "go_on": go_on}).encode()
    with ThreadPoolExecutor() as pool:
        running = pool.submit(functions.invoke, "wait", event)
        assert select.select([began], [], [], 30)[0]
        during = (dict(held), Path("~").expanduser(), os.environ.get("OUR_SECRET"))
        os.write(says_go_on, b"x")
        assert running.result().error is None
    for end in (began, says_began, go_on, says_go_on):
        os.close(end)
    assert during == (before, home, None)
    assert (os.environ is held, dict(held)) == (True, before)


@pytest.mark.parametrize("where", ["functions", "local"])
def test_what_a_function_sets_stays_set_and_reaches_its_processes(
    where: str, request: pytest.FixtureRequest
) -> None:
    found = request.getfixturevalue(where)
    functions = found[0] if where == "local" else found
    answers = [document(functions.invoke("keeps", event).payload) for event in (b'"a"', b'"b"')]
    assert answers == [["", "a"], ["a", "b"]]
    assert "KEPT" not in os.environ
    assert subprocess.check_output(["sh", "-c", "echo $KEPT"], text=True) == "\n"


def test_in_this_interpreter_output_is_shipped_too(local: tuple[Functions, Shipped]) -> None:
    functions, shipped = local
    functions.invoke("say", b"{}")
    functions.invoke("many_threads", b"{}")
    functions.flush()
    assert shipped.of_the_function("/aws/lambda/say")[:2] == ["printed", "to stderr"]
    assert "left open" in shipped.of_the_function("/aws/lambda/say")
    assert len(shipped.messages("/aws/lambda/say")) >= 6
    lines = shipped.of_the_function("/aws/lambda/many_threads")
    assert len(lines) == len(set(lines)) == 4_000


def test_in_this_interpreter_traces_tails_and_levels_are_the_same(code: Path) -> None:
    shipped = Shipped()
    functions = Functions(shipped, {}, in_process=True)
    functions.add(function(code, "trace"))
    functions.add(
        function(
            code,
            "levels",
            log_format="JSON",
            application_level="ERROR",
            system_level="WARN",
        )
    )
    result = functions.invoke("trace", b"{}", trace_id="Root=1-0-0", tail=True)
    functions.invoke("levels", b'["{}"]')
    functions.stop()
    sys.modules.pop("sample", None)
    assert document(result.payload) == "Root=1-0-0"
    assert result.tail.decode().splitlines()[-1].startswith(f"REPORT RequestId: {result.request_id}")
    assert "printed" in shipped.messages("/aws/lambda/levels")
    assert "{}" not in shipped.messages("/aws/lambda/levels")


def test_in_this_interpreter_errors_are_results(local: tuple[Functions, Shipped], code: Path) -> None:
    functions, shipped = local
    functions.add(function(code, "broken", "missing.handler"))
    raised, unserialisable, broken = (
        functions.invoke(name, b"{}") for name in ("raises", "unserialisable", "broken")
    )
    functions.flush()
    answer = document(raised.payload)
    assert (raised.error, answer["errorType"], answer["errorMessage"]) == (
        "Unhandled",
        "ValueError",
        "no such thing",
    )
    assert any(
        line.startswith("[ERROR] ValueError: no such thing\nTraceback")
        for line in shipped.messages("/aws/lambda/raises")
    )
    assert (unserialisable.error, broken.error) == ("Unhandled", "Unhandled")
    assert document(broken.payload)["errorMessage"] == "No module named 'missing'"


def test_in_this_interpreter_two_functions_may_have_a_module_of_one_name(tmp_path: Path) -> None:
    functions = Functions(Shipped(), {}, in_process=True)
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "twin.py").write_text(f"def handler(event, context): return {name!r}\n")
        functions.add(function(tmp_path / name, name, "twin.handler"))
    answers = [document(functions.invoke(name, b"{}").payload) for name in ("first", "second", "first")]
    functions.stop()
    sys.modules.pop("twin", None)
    assert answers == ["first", "second", "first"]


# --- lines ------------------------------------------------------------------------------------------------

CUTS: list[tuple[list[bytes], list[str]]] = [
    ([b"a\nb", b"c\n"], ["a", "bc"]),
    ([b"\n\na\n"], ["a"]),
    ([b"\xff\n"], ["�"]),
    ([b"\xc3", b"\xa9\n"], ["é"]),
    ([b"x" * (MAX_LINE_BYTES - 1) + "é".encode() + b"\n"], ["x" * (MAX_LINE_BYTES - 1), "é"]),
    ([b"x" * MAX_LINE_BYTES, b"y", b"z\n"], ["x" * MAX_LINE_BYTES, "yz"]),
]


@pytest.mark.parametrize(("chunks", "expected"), CUTS)
def test_output_is_cut_into_lines(chunks: list[bytes], expected: list[str]) -> None:
    lines = _Lines()
    for chunk in chunks:
        lines.add(chunk, 1, 0.0)
    assert [message for batch in lines.take() for _, message in batch] == expected
    assert lines.empty


def test_lines_keep_their_order_in_time_when_the_clock_is_set_back() -> None:
    lines = _Lines()
    lines.add(b"a\n", 1_000, 0.0)
    lines.add(b"b\n", 900, 0.0)
    assert lines.take() == [[(1_000, "a"), (1_000, "b")]]


@pytest.mark.parametrize(("count", "batches"), [(SHIP_LINES, 1), (SHIP_LINES + 1, 2)])
def test_a_batch_has_a_thousand_lines_at_most(count: int, batches: int) -> None:
    lines = _Lines()
    lines.add(b"a\n" * count, 1, 0.0)
    assert len(lines.take()) == batches


@pytest.mark.parametrize(("more", "batches"), [(0, 1), (1, 2)])
def test_a_batch_is_of_a_day_at_most_though_the_clock_is_put_forward(more: int, batches: int) -> None:
    lines = _Lines()
    lines.add(b"a\n", 1, 0.0)
    lines.add(b"b\n", 1 + SHIP_SPAN_MS + more, 0.0)
    assert len(lines.take()) == batches


@pytest.mark.parametrize(("more", "batches"), [(0, 1), (1, 2)])
def test_a_batch_has_900_kb_at_most(more: int, batches: int) -> None:
    lines = _Lines()
    each = SHIP_BYTES // 4 - EVENT_OVERHEAD_BYTES
    lines.add((b"x" * each + b"\n") * 3 + b"x" * (each + more) + b"\n", 1, 0.0)
    assert len(lines.take()) == batches


def test_lines_are_due_when_they_are_many_or_have_waited() -> None:
    lines = _Lines()
    assert not lines.due(100.0)
    lines.add(b"a\n", 1, 100.0)
    assert not lines.due(100.01)
    assert lines.due(100.06)
    lines.add(b"a\n" * SHIP_LINES, 1, 100.0)
    assert lines.due(100.01)
