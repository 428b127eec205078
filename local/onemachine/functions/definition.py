"""What a function is, its environment's variables, and what an invocation is and comes to."""

from __future__ import annotations

import json
import os
import sys
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

Ship = Callable[[str, str, list[tuple[int, str]]], None]
"""Takes a log group, a log stream and `(milliseconds since 1970, message)` pairs, in order."""
Observe = Callable[[Mapping[str, str], Mapping[str, float]], None]
"""Takes what Lambda tells CloudWatch: dimensions, and the values of their metrics by name."""
ACCOUNT_ID = "123456789012"
DEFAULT_REGION = "us-east-1"
# 6 MB each way for synchronous calls; the service's own error text gives the response's limit to the byte.
# https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html
MAX_PAYLOAD_BYTES = 6 * 1024 * 1024
MAX_RESPONSE_BYTES = 6_291_556
APPLICATION_LEVELS = ("TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL")
SYSTEM_LEVELS = ("DEBUG", "INFO", "WARN")


@dataclass(frozen=True)
class Function:
    """A function as the template describes it.

    Attributes:
        name: Its name, unique on this machine.
        handler: `module.attribute`, as in the template.
        memory_mb: The most resident memory that its process may have, in MiB.
        timeout_s: The longest that one invocation may take, in seconds.
        environment: Variables of the template; what Lambda reserves is added and wins.
        log_group: The log group that gets what it writes.
        code: The directory that is first on the import path, and the working directory.
        path: Further import directories.
        reserved_concurrency: The invocations that it may have at once, and that no other function can take;
            None is a share of the account's.
        application_level: The lowest level of the application's lines that is kept, `TRACE` to `FATAL`, and
        system_level: that of the platform's lines, `DEBUG` to `WARN`; both count in JSON format only:
            https://docs.aws.amazon.com/lambda/latest/dg/monitoring-cloudwatchlogs-log-level.html
        log_format: `JSON` or `Text`.
        logical_id: Its name in the template.
        not_run: Why it cannot be run on one machine, whatever is in its directory; empty if it can.
    """

    name: str
    handler: str
    memory_mb: int
    timeout_s: float
    environment: Mapping[str, str]
    log_group: str
    code: Path
    path: tuple[Path, ...] = ()
    reserved_concurrency: int | None = None
    application_level: str = "INFO"
    system_level: str = "INFO"
    log_format: str = "Text"
    logical_id: str = ""
    not_run: str = ""

    @property
    def logs_json(self) -> bool:
        """Whether it writes JSON, of which levels are known."""
        return self.log_format == "JSON"

    def __post_init__(self) -> None:
        for name, level, levels in (
            ("ApplicationLogLevel", self.application_level, APPLICATION_LEVELS),
            ("SystemLogLevel", self.system_level, SYSTEM_LEVELS),
        ):
            if level not in levels:
                raise ValueError(f"{name} {level!r} is not one of {', '.join(levels)}")


@dataclass(frozen=True)
class Result:
    """What an invocation came to.

    Attributes:
        payload: What the handler returned, as JSON, or the document that describes the error.
        error: None, or `Unhandled`, the only word that the service has for a function that failed.
        request_id: The invocation's id, as in its START line.
        tail: The last 4 KB of its log, where they were asked for.
        raised: What the handler raised, where it ran in this interpreter.
    """

    payload: bytes
    error: str | None
    request_id: str
    tail: bytes = b""
    raised: BaseException | None = None


Invoke = Callable[[str, bytes], Result]
"""Calls a function by its name with an event."""


class FunctionFailedError(RuntimeError):
    """A function that runs in a separate process failed.

    Attributes:
        error_type: The name of what its handler raised, or Lambda's word for how the process ended.
        message: Its message.
        stack: The lines of its traceback; empty where the handler raised nothing.
    """

    def __init__(self, function: str, document: Mapping[str, Any]) -> None:
        self.error_type = str(document.get("errorType", ""))
        self.message = str(document.get("errorMessage", ""))
        self.stack = [str(line) for line in document.get("stackTrace", [])]
        failed = ": ".join(text for text in (f"{function} failed", self.error_type, self.message) if text)
        super().__init__("\n".join([failed, *(line.rstrip("\n") for line in self.stack)]))


class ThrottledError(RuntimeError):
    """The function was not called: as many invocations as it may have are under way.

    Attributes:
        reason: The word of Lambda's `TooManyRequestsException` for it.
    """

    def __init__(self, function: str, limit: int, reason: str) -> None:
        super().__init__(f"{function} has {limit} invocations at once, which is its limit ({reason})")
        self.reason = reason


def unobserved(_dimensions: Mapping[str, str], _values: Mapping[str, float]) -> None:
    """Observe nothing."""


@dataclass(frozen=True)
class Call:
    """One invocation: its event, its ids, and whether the caller asked for the end of its log."""

    payload: bytes
    request_id: str
    trace_id: str
    tail: bool


def function_arn(name: str, region: str = DEFAULT_REGION) -> str:
    """Return the ARN of a function."""
    return f"arn:aws:lambda:{region}:{ACCOUNT_ID}:function:{name}"


def variables_of(function: Function, shared: Mapping[str, str], log_stream: str) -> dict[str, str]:
    """Return the whole environment of a function: nothing of ours is in it but what a process needs to run.

    https://docs.aws.amazon.com/lambda/latest/dg/configuration-envvars.html
    """
    region = shared.get("AWS_REGION") or shared.get("AWS_DEFAULT_REGION") or DEFAULT_REGION
    logged = (
        {"AWS_LAMBDA_LOG_FORMAT": "JSON", "AWS_LAMBDA_LOG_LEVEL": function.application_level}
        if function.logs_json
        else {}
    )
    needed = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH", "TMPDIR") if name in os.environ}
    return {
        **needed,
        "LANG": "en_US.UTF-8",
        "TZ": ":UTC",
        # A developer's own profile must not reach a function: on AWS there are no such files.
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        **shared,
        **function.environment,
        **logged,
        "AWS_REGION": region,
        "AWS_DEFAULT_REGION": region,
        # The interpreter's own version, so that the runtime client does what it does for that version.
        "AWS_EXECUTION_ENV": f"AWS_Lambda_python{sys.version_info.major}.{sys.version_info.minor}",
        "AWS_LAMBDA_FUNCTION_NAME": function.name,
        "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(function.memory_mb),
        "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
        "AWS_LAMBDA_LOG_GROUP_NAME": function.log_group,
        "AWS_LAMBDA_LOG_STREAM_NAME": log_stream,
        "LAMBDA_TASK_ROOT": str(function.code),
        "PYTHONPATH": os.pathsep.join(map(str, import_path_of(function))),
        "_HANDLER": function.handler,
    }


def import_path_of(function: Function) -> tuple[Path, ...]:
    """Return where a function's modules are looked for first."""
    return (function.code, *function.path)


def new_trace_id() -> str:
    """Return an X-Ray header of a new trace that is not sampled."""
    random = uuid.uuid4().hex
    return f"Root=1-{int(time.time()):08x}-{random[:24]};Parent={random[:16]};Sampled=0"


def error_document(error_type: str, message: str, **more: object) -> bytes:
    """Return the document by which a failed invocation is answered."""
    return json.dumps({"errorType": error_type, "errorMessage": message, **more}).encode()


def utc_now() -> str:
    """Return the time as the platform's lines write it."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
