"""Lambda functions on one machine, under the runtime client that Lambda itself uses for Python.

Every execution environment is a process of its own that runs `awslambdaric`, with the memory, the timeout and
the environment variables of its function. The thread that invokes a function speaks the other side of the
Runtime API (https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html) itself: between two invocations
the process waits with an open `GET /next`, so an invocation is one answer and two requests on one connection,
and no other thread has to be woken. Where the runtime client cannot run (it has no wheel for macOS), the
functions run in this interpreter.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib
import importlib.util
import json
import logging
import math
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
import uuid
from collections import UserDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path
from typing import Any, Protocol

from onemachine import clock

logger = logging.getLogger(__name__)

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

# The service ends the init phase after 10 s and repeats it on the function's own time; here it just goes on.
# https://docs.aws.amazon.com/lambda/latest/dg/lambda-runtime-environment.html
INIT_LIMIT_S = 10.0

# A line from stdout becomes events of 256 KiB, and CloudWatch counts 26 bytes of its own with every event:
# https://docs.aws.amazon.com/AmazonCloudWatchLogs/latest/APIReference/API_PutLogEvents.html
EVENT_OVERHEAD_BYTES = 26
# The end of an invocation's log that Invoke returns with LogType Tail:
# https://docs.aws.amazon.com/lambda/latest/api/API_Invoke.html
TAIL_BYTES = 4 * 1024
# https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html
ACCOUNT_CONCURRENCY = 1_000
MAX_LINE_BYTES = 256 * 1024 - EVENT_OVERHEAD_BYTES

SHIP_AFTER_S = 0.05
SHIP_LINES = 1_000
SHIP_BYTES = 900_000
PIPE_BYTES = 1024 * 1024
GATHER_S = 0.005
"""How long the reader of a pipe lets more lines come before it looks again: waking it for each costs more."""

WATCH_EVERY_S = 0.01
EXIT_GRACE_S = 1.0
STALLED_S = 30.0
"""How long a process may leave a request or an answer half way through before it counts as gone."""


APPLICATION_LEVELS = ("TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL")
SYSTEM_LEVELS = ("DEBUG", "INFO", "WARN")


@dataclass(frozen=True)
class Function:
    """A function as the template describes it.

    Args:
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
        application_level: The lowest level of its own lines that is kept, `TRACE` to `FATAL`, and
        system_level: that of the platform's lines, `DEBUG` to `WARN`; both count in JSON format only:
            https://docs.aws.amazon.com/lambda/latest/dg/monitoring-cloudwatchlogs-log-level.html
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

    def __post_init__(self) -> None:
        for name, level, levels in (
            ("ApplicationLogLevel", self.application_level, APPLICATION_LEVELS),
            ("SystemLogLevel", self.system_level, SYSTEM_LEVELS),
        ):
            if level not in levels:
                raise ValueError(f"{name} {level!r} is none of {', '.join(levels)}")


@dataclass(frozen=True)
class Result:
    """What an invocation came to.

    Args:
        payload: What the handler returned, as JSON, or the document that describes the error.
        error: None, or `Unhandled`, the only word that the service has for a function that failed.
        request_id: The invocation's id, as in its START line.
        tail: The last 4 KB of its log, where they were asked for.
    """

    payload: bytes
    error: str | None
    request_id: str
    tail: bytes = b""


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


class Functions:
    """The functions of one machine: starts environments for them when they are called, ships what they write.

    Args:
        ship: Called from a background thread per environment with up to 1,000 lines at a time.
        environment: Variables that every function gets: credentials, region, the address of the services.
        in_process: Run the functions in this interpreter, without limits of memory and time.
        concurrency: The most environments that one function may have; further callers wait.
        account_concurrency: The invocations, waiting ones too, that may be under way; others are refused.
        observe: Takes a function's metrics after each invocation.
    """

    def __init__(
        self,
        ship: Ship,
        environment: Mapping[str, str],
        in_process: bool = False,
        concurrency: int = 2,
        account_concurrency: int = ACCOUNT_CONCURRENCY,
        *,
        observe: Observe = unobserved,
    ) -> None:
        self._ship = ship
        self._observe = observe
        self._account_concurrency = account_concurrency
        self._reserved: dict[str, int | None] = {}
        self._under_way: dict[str, int] = {}
        self._counting = threading.Lock()
        self._environment = dict(environment)
        self._concurrency = concurrency
        self._pools: dict[str, _Pool] = {}
        self._definitions: dict[str, Function] = {}
        self.why_in_process = "asked for" if in_process else _why_no_processes()

    @property
    def runs_in_process(self) -> bool:
        """Whether functions run in this interpreter; `why_in_process` says for what reason."""
        return bool(self.why_in_process)

    def add(self, function: Function) -> None:
        """Make a function callable; nothing is started before its first invocation.

        Args:
            function: The function.

        Raises:
            ValueError: There is one of that name, or it reserves more than the account has.
        """
        if function.name in self._pools:
            raise ValueError(f"there is already a function named {function.name!r}")
        reserved = function.reserved_concurrency
        if reserved is not None and not 0 <= reserved <= self._unreserved():
            raise ValueError(
                f"{function.name} reserves a concurrency of {reserved}, the account has {self._unreserved()}"
            )
        self._reserved[function.name] = reserved
        self._definitions[function.name] = function
        environment: Callable[[Function, Mapping[str, str], Ship], _Environment]
        environment = _InThisProcess if self.runs_in_process else _OwnProcess
        # In one interpreter there is one os.environ and one stdout, hence one environment per function.
        size = 1 if self.runs_in_process else self._concurrency
        self._pools[function.name] = _Pool(lambda: environment(function, self._environment, self._ship), size)

    def names(self) -> list[str]:
        """Name the functions, in the order in which they were added."""
        return list(self._pools)

    def definitions(self) -> list[Function]:
        """Return the functions, in the order in which they were added."""
        return list(self._definitions.values())

    def invoke(
        self, name: str, payload: bytes, *, request_id: str = "", trace_id: str = "", tail: bool = False
    ) -> Result:
        """Call a function and wait for its answer.

        Args:
            name: The function's name.
            payload: The event, as JSON, at most `MAX_PAYLOAD_BYTES`.
            request_id: The invocation's id, a retry has that of the first attempt; a new one where empty.
            trace_id: The X-Ray header of the caller; a new one, not sampled, where empty.
            tail: Whether the result is to have the end of the invocation's log.

        Returns:
            The result; a function that fails is a result too.

        Raises:
            KeyError: There is no such function.
            ValueError: The payload is larger than Lambda takes.
            ThrottledError: It has as many invocations as it may.
            RuntimeError: `stop` was called.
        """
        pool = self._pools[name]
        if len(payload) > MAX_PAYLOAD_BYTES:
            raise ValueError(f"payload for {name} has {len(payload)} bytes, the limit is {MAX_PAYLOAD_BYTES}")
        call = _Call(payload, request_id or str(uuid.uuid4()), trace_id or _trace_id(), tail)
        try:
            with self._counted(name), pool.environment() as environment:
                began = time.monotonic()
                result = environment.invoke(call)
        except ThrottledError:
            self._observe({"FunctionName": name}, {"Throttles": 1})
            raise
        duration_ms = (time.monotonic() - began) * 1000
        errors = int(result.error is not None)
        values = {"Invocations": 1, "Errors": errors, "Throttles": 0, "Duration": duration_ms}
        self._observe({"FunctionName": name}, values)
        return result

    def zero_reserved(self, name: str) -> bool:
        """Say whether a function reserves a concurrency of zero, so that it is never called."""
        return self._reserved[name] == 0

    def _unreserved(self) -> int:
        return self._account_concurrency - sum(reserved or 0 for reserved in self._reserved.values())

    @contextlib.contextmanager
    def _counted(self, name: str) -> Iterator[None]:
        """Count an invocation while it is under way, or refuse it.

        https://docs.aws.amazon.com/lambda/latest/dg/lambda-concurrency.html
        """
        reserved = self._reserved[name]
        with self._counting:
            if reserved is not None:
                limit, reason = reserved, "ReservedFunctionConcurrentInvocationLimitExceeded"
                under_way = self._under_way.get(name, 0)
            else:
                limit, reason = self._unreserved(), "ConcurrentInvocationLimitExceeded"
                sharing = [each for each, kept in self._reserved.items() if kept is None]
                under_way = sum(self._under_way.get(each, 0) for each in sharing)
            if under_way >= limit:
                raise ThrottledError(name, limit, reason)
            self._under_way[name] = self._under_way.get(name, 0) + 1
        try:
            yield
        finally:
            with self._counting:
                self._under_way[name] -= 1

    def kill(self, name: str) -> None:
        """Kill the processes of a function, with whatever they are doing, as a failing host would.

        Args:
            name: The function's name. Functions in this interpreter are left alone.

        Raises:
            ValueError: If there is none of this name.
        """
        if name not in self._pools:
            raise ValueError(f"there is no function {name}; there are {', '.join(sorted(self._pools))}")
        self._pools[name].kill()

    def restart(self, environment: Mapping[str, str]) -> None:
        """Give every function other shared variables: what runs ends when it is done, and starts anew.

        Args:
            environment: The variables that every function gets from now on.
        """
        self._environment = dict(environment)
        for pool in self._pools.values():
            pool.renew()

    def flush(self) -> None:
        """Return when all whole lines that were written before this call have been shipped."""
        for pool in self._pools.values():
            pool.flush()

    def stop(self) -> None:
        """Kill all processes, ship what they wrote, and refuse further invocations."""
        for pool in self._pools.values():
            pool.stop()


def _why_no_processes() -> str:
    if not sys.platform.startswith("linux"):
        return f"awslambdaric has no build for {sys.platform}"
    # Where its native half has no wheel, awslambdaric installs without it and fails on its first request.
    missing = [name for name in ("awslambdaric", "runtime_client") if importlib.util.find_spec(name) is None]
    return f"{missing[0]} cannot be imported" if missing else ""


# --- environments and who has them -----------------------------------------------------------------------


@dataclass(frozen=True)
class _Call:
    """One invocation: its event, its ids, and whether the caller wants the end of its log."""

    payload: bytes
    request_id: str
    trace_id: str
    tail: bool


class _Environment(Protocol):
    log: _LogStream
    alive: bool

    def invoke(self, call: _Call) -> Result: ...

    def kill(self) -> None: ...

    def close(self) -> None: ...


class _Pool:
    """The environments of one function: each serves one caller at a time, and the last used is used next."""

    def __init__(self, start: Callable[[], _Environment], size: int) -> None:
        self._start = start
        self._size = size
        self._changed = threading.Condition()
        self._idle: list[_Environment] = []
        self._all: list[_Environment] = []
        self._free = size
        self._outdated: set[int] = set()
        self._stopped = False

    @contextlib.contextmanager
    def environment(self) -> Iterator[_Environment]:
        environment = self._take()
        try:
            yield environment
        finally:
            self._give_back(environment)

    def _take(self) -> _Environment:
        with self._changed:
            while not (self._stopped or self._idle or self._free):
                self._changed.wait()
            if self._stopped:
                raise RuntimeError("the functions were stopped")
            if self._idle:
                return self._idle.pop()
            self._free -= 1
            try:
                environment = self._start()
            except BaseException:
                self._free += 1
                raise
            self._all.append(environment)
            return environment

    def _give_back(self, environment: _Environment) -> None:
        with self._changed:
            if environment.alive and not self._stopped and id(environment) not in self._outdated:
                self._idle.append(environment)
                self._changed.notify_all()
                return
        environment.close()
        with self._changed:
            self._all.remove(environment)
            self._outdated.discard(id(environment))
            self._free += 1
            self._changed.notify_all()

    def kill(self) -> None:
        with self._changed:
            idle, self._idle = self._idle, []
            for environment in self._all:
                environment.kill()
        for environment in idle:
            self._give_back(environment)

    def renew(self) -> None:
        with self._changed:
            idle, self._idle = self._idle, []
            self._outdated.update(map(id, self._all))
        for environment in idle:
            self._give_back(environment)

    def flush(self) -> None:
        with self._changed:
            environments = list(self._all)
        for environment in environments:
            environment.log.flush()

    def stop(self) -> None:
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        self.kill()
        with self._changed:
            idle, self._idle = self._idle, []
        for environment in idle:
            self._give_back(environment)
        with self._changed:
            while self._all:
                self._changed.wait()


def function_arn(name: str, region: str = DEFAULT_REGION) -> str:
    """Return the ARN of a function."""
    return f"arn:aws:lambda:{region}:{ACCOUNT_ID}:function:{name}"


def _variables(function: Function, shared: Mapping[str, str], log_stream: str) -> dict[str, str]:
    """Return the whole environment of a function: nothing of ours is in it but what a process needs to run.

    https://docs.aws.amazon.com/lambda/latest/dg/configuration-envvars.html
    """
    region = shared.get("AWS_REGION") or shared.get("AWS_DEFAULT_REGION") or DEFAULT_REGION
    logged = {"AWS_LAMBDA_LOG_LEVEL": function.application_level} if _logs_json(function.environment) else {}
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
        "PYTHONPATH": os.pathsep.join(map(str, _import_path(function))),
        "_HANDLER": function.handler,
    }


def _import_path(function: Function) -> tuple[Path, ...]:
    return (function.code, *function.path)


# --- an environment that is a process --------------------------------------------------------------------


class _EndedError(Exception):
    """The environment is at its end: `document` answers the invocation, `status` goes into its REPORT."""

    def __init__(self, error_type: str, document: bytes, status: str = "error", line: str = "") -> None:
        super().__init__(error_type)
        self.error_type = error_type
        self.document = document
        self.status = status
        self.line = line


@dataclass(frozen=True)
class _Request:
    """A request of the runtime client."""

    action: str
    """The last part of its path: next, response or error."""
    headers: Mapping[bytes, bytes]
    body: bytes
    of_init: bool


class _OwnProcess:
    """One process that runs the runtime client, and the service's end of its connection."""

    def __init__(self, function: Function, shared: Mapping[str, str], ship: Ship) -> None:
        self._platform = _PlatformLines(function)
        self.log = _LogStream(function.log_group, ship, _least_level(function))
        self.alive = True
        self._function = function
        self._peak_bytes = 0
        self._ready = False
        variables = _variables(function, shared, self.log.name)
        self._arn = function_arn(function.name, variables["AWS_REGION"])
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._connection: socket.socket | None = None
        variables["AWS_LAMBDA_RUNTIME_API"] = f"127.0.0.1:{self._listener.getsockname()[1]}"
        # What the function logs comes framed through the pipe of what it prints: both keep their order.
        variables["_LAMBDA_TELEMETRY_LOG_FD"] = str(self.log.write_end)
        self.log.write(self._platform.init_start(variables["AWS_REGION"]))
        self._started = time.monotonic()
        self._process = subprocess.Popen(  # noqa: S603 - the command is ours, the handler is the template's
            [sys.executable, *clock.module("awslambdaric", variables), function.handler],
            cwd=function.code,
            env=variables,
            stdin=subprocess.DEVNULL,
            stdout=self.log.write_end,
            stderr=self.log.write_end,
            pass_fds=(self.log.write_end,),
            start_new_session=True,
        )

    def invoke(self, call: _Call) -> Result:
        with self.log.tail(call.tail) as tail:
            result = self._invoke(call)
        return replace(result, tail=tail()) if call.tail else result

    def _invoke(self, call: _Call) -> Result:
        request_id = call.request_id
        init_ms = None
        began = time.monotonic()
        try:
            if not self._ready:
                began = self._await_ready(request_id)
                init_ms = (began - self._started) * 1000
            self.log.write(self._platform.start(request_id))
            result = self._serve(call, began)
            status, error_type = "success", ""
        except _EndedError as end:
            self._end()
            self.log.write([end.line])
            result = Result(end.document, "Unhandled", request_id)
            status, error_type = end.status, end.error_type
        report = _Report(
            request_id=request_id,
            duration_ms=(time.monotonic() - began) * 1000,
            init_ms=init_ms,
            memory_mb=self._function.memory_mb,
            used_mb=min(math.ceil(self._peak_bytes / 1024 / 1024), self._function.memory_mb),
            status=status,
            error_type=error_type,
        )
        self.log.write(self._platform.report(report))
        return result

    def kill(self) -> None:
        self.alive = False
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def close(self) -> None:
        self._end()
        self.log.close()

    def _end(self) -> None:
        self.kill()
        self._process.wait()
        self._listener.close()
        if self._connection:
            self._reader.close()
            self._connection.close()

    def _await_ready(self, request_id: str) -> float:
        """Wait until the runtime client asks for its first event; return the moment when it did."""
        deadline = self._started + INIT_LIMIT_S + self._function.timeout_s
        try:
            self._await(self._listener, deadline, request_id)
            self._connection, _ = self._listener.accept()
            self._connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._connection.settimeout(STALLED_S)
            self._reader = self._connection.makefile("rb")
            self._receive(deadline, request_id)
        except _EndedError:
            self.log.write(self._platform.start(request_id))
            raise
        self._ready = True
        return time.monotonic()

    def _serve(self, call: _Call, began: float) -> Result:
        request_id = call.request_id
        deadline = began + self._function.timeout_s
        epoch_ms = int((time.time() + self._function.timeout_s) * 1000)
        self._send(
            HTTPStatus.OK,
            call.payload,
            f"Lambda-Runtime-Aws-Request-Id: {request_id}\r\n"
            f"Lambda-Runtime-Deadline-Ms: {epoch_ms}\r\n"
            f"Lambda-Runtime-Invoked-Function-Arn: {self._arn}\r\n"
            f"Lambda-Runtime-Trace-Id: {call.trace_id}\r\n",
        )
        request = self._receive(deadline, request_id)
        error = "Unhandled" if request.action == "error" else None
        if len(request.body) > MAX_RESPONSE_BYTES:
            raise _too_large(request_id)
        self._send(HTTPStatus.ACCEPTED, b'{"status":"OK"}')
        # The handler is done when the client asks for the next event: all that it wrote is then in the pipe.
        self._receive(deadline, request_id)
        self._measure(request_id)
        return Result(request.body, error, request_id)

    def _send(self, status: HTTPStatus, body: bytes, headers: str = "") -> None:
        assert self._connection
        head = (
            f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n{headers}\r\n"
        )
        # A process that is gone shows in the request that does not come.
        with contextlib.suppress(OSError):
            self._connection.sendall(head.encode() + body)

    def _receive(self, deadline: float, request_id: str) -> _Request:
        assert self._connection
        self._await(self._connection, deadline, request_id)
        try:
            request = _read_request(self._reader.readline, self._reader.read)
        except OSError:
            request = None
        if request is None:
            raise self._exited(request_id)
        if request.of_init:
            self._send(HTTPStatus.ACCEPTED, b'{"status":"OK"}')
            error_type = request.headers.get(b"lambda-runtime-function-error-type", b"").decode()
            raise _EndedError(error_type, request.body)
        return request

    def _await(self, readable: socket.socket, deadline: float, request_id: str) -> None:
        """Wait for the process to say something, and end it if it takes too much memory or time."""
        poller = select.poll()
        poller.register(readable, select.POLLIN)
        while not poller.poll(WATCH_EVERY_S * 1000):
            self._measure(request_id)
            if self._process.poll() is not None:
                raise self._exited(request_id)
            if time.monotonic() >= deadline:
                raise _timed_out(request_id, self._function.timeout_s)

    def _measure(self, request_id: str) -> None:
        resident = _resident_bytes(self._process.pid)
        self._peak_bytes = max(self._peak_bytes, resident)
        if resident > self._function.memory_mb * 1024 * 1024:
            self.kill()
            raise _exit_error("Runtime.OutOfMemory", request_id, "signal: killed")

    def _exited(self, request_id: str) -> _EndedError:
        # The connection closes a moment before the process ends: killing it now would hide its exit code.
        try:
            code = self._process.wait(EXIT_GRACE_S)
        except subprocess.TimeoutExpired:
            self.kill()
            code = self._process.wait()
        if code == 0:
            return _exit_error("Runtime.ExitError", request_id, "")
        reason = f"signal: {str(signal.strsignal(-code)).lower()}" if code < 0 else f"exit status {code}"
        return _exit_error("Runtime.ExitError", request_id, reason)


def _read_request(readline: Callable[[], bytes], read: Callable[[int], bytes]) -> _Request | None:
    """Read one HTTP request; None where the connection ends before or in it."""
    words = readline().split()
    if not words:
        return None
    headers: dict[bytes, bytes] = {}
    while line := readline().strip():
        name, _, value = line.partition(b":")
        headers[name.lower()] = value.strip()
    length = int(headers.get(b"content-length", b"0"))
    body = read(length)
    if len(body) < length:
        return None
    *_, owner, action = words[1].decode().split("/")
    return _Request(action, headers, body, of_init=(owner, action) == ("init", "error"))


def _resident_bytes(pid: int) -> int:
    """Return the resident memory of a process in bytes, 0 if it is gone."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_bytes().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):
        return 0


def _trace_id() -> str:
    random = uuid.uuid4().hex
    return f"Root=1-{int(time.time()):08x}-{random[:24]};Parent={random[:16]};Sampled=0"


def _document(error_type: str, message: str, **more: object) -> bytes:
    return json.dumps({"errorType": error_type, "errorMessage": message, **more}).encode()


def _exit_error(error_type: str, request_id: str, reason: str) -> _EndedError:
    what = f"Runtime exited with error: {reason}" if reason else "Runtime exited without providing a reason"
    message = f"RequestId: {request_id} Error: {what}"
    return _EndedError(error_type, _document(error_type, message), line=message)


def _timed_out(request_id: str, timeout_s: float) -> _EndedError:
    message = f"{_utc_now()} {request_id} Task timed out after {timeout_s:.2f} seconds"
    document = _document("Sandbox.Timedout", message)
    return _EndedError("Sandbox.Timedout", document, status="timeout", line=message)


def _too_large(request_id: str) -> _EndedError:
    name = "Function.ResponseSizeTooLarge"
    message = f"Response payload size exceeded maximum allowed payload size ({MAX_RESPONSE_BYTES} bytes)."
    return _EndedError(name, _document(name, message), line=f"RequestId: {request_id} Error: {message}")


# --- an environment in this interpreter ------------------------------------------------------------------

# os.environ, sys.path and sys.stdout are those of the whole interpreter, so only one function can have them.
_only_one_runs = threading.Lock()


@dataclass(frozen=True)
class _Context:
    """The handler's second argument: https://docs.aws.amazon.com/lambda/latest/dg/python-context.html."""

    aws_request_id: str
    function_name: str
    memory_limit_in_mb: str
    invoked_function_arn: str
    log_group_name: str
    log_stream_name: str
    deadline: float
    function_version: str = "$LATEST"
    client_context: None = None
    identity: None = None

    def get_remaining_time_in_millis(self) -> int:
        return max(0, int((self.deadline - time.monotonic()) * 1000))


class _InThisProcess:
    """A function that is called here: no limit of memory, and a timeout that the handler can only read."""

    def __init__(self, function: Function, shared: Mapping[str, str], ship: Ship) -> None:
        self._platform = _PlatformLines(function)
        self.log = _LogStream(function.log_group, ship, _least_level(function))
        self.alive = True
        self._function = function
        self._variables = _Variables(_variables(function, shared, self.log.name))
        self._region = self._variables["AWS_REGION"]
        self._handler: Callable[[Any, _Context], Any] | None = None
        # Loggers keep the stdout that they find when their module is loaded, so it stays the same one.
        self._stdout = open(  # noqa: SIM115 - it lives as long as the environment
            self.log.write_end, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False
        )
        self.log.write(self._platform.init_start(self._region))

    def invoke(self, call: _Call) -> Result:
        with self.log.tail(call.tail) as tail:
            result = self._invoke(call)
        return replace(result, tail=tail()) if call.tail else result

    def _invoke(self, call: _Call) -> Result:
        request_id = call.request_id
        with (
            _only_one_runs,
            _own_interpreter(self._variables, [str(each) for each in _import_path(self._function)]),
            contextlib.redirect_stdout(self._stdout),
            contextlib.redirect_stderr(self._stdout),
        ):
            os.environ["_X_AMZN_TRACE_ID"] = call.trace_id
            began = time.monotonic()
            self.log.write(self._platform.start(request_id))
            document, error_type = self._call(call.payload, request_id, began)
            self._stdout.flush()
        report = _Report(
            request_id=request_id,
            duration_ms=(time.monotonic() - began) * 1000,
            init_ms=None,
            memory_mb=self._function.memory_mb,
            used_mb=0,
            status="success",
            error_type="",
        )
        self.log.write(self._platform.report(report))
        return Result(document, "Unhandled" if error_type else None, request_id)

    def _call(self, payload: bytes, request_id: str, began: float) -> tuple[bytes, str]:
        context = _Context(
            aws_request_id=request_id,
            function_name=self._function.name,
            memory_limit_in_mb=str(self._function.memory_mb),
            invoked_function_arn=function_arn(self._function.name, self._region),
            log_group_name=self.log.group,
            log_stream_name=self.log.name,
            deadline=began + self._function.timeout_s,
        )
        try:
            if self._handler is None:
                self._handler = _load(self._function)
            answer = self._handler(json.loads(payload), context)
            return json.dumps(answer).encode(), ""
        # Whatever a handler raises is its result, and it must not end the interpreter that others live in.
        except (Exception, SystemExit) as error:  # noqa: BLE001
            error_type = type(error).__name__
            stack = traceback.format_tb(error.__traceback__)
            lines = [f"[ERROR] {error_type}: {error}", "Traceback (most recent call last):", *stack]
            self._stdout.flush()
            self.log.write_frame(_ERROR_FRAME, "\n".join(line.rstrip("\n") for line in lines))
            return _document(error_type, str(error), requestId=request_id, stackTrace=stack), error_type

    def kill(self) -> None:
        """Leave it: it has no process of its own."""

    def close(self) -> None:
        self._stdout.close()
        self.log.close()


class _Variables(UserDict[str, str]):
    """The `os.environ` of a function: an object of its own, in place of ours while it runs.

    Other threads go on reading the one that they hold: no name that they have just found is gone from it.
    HOME is in both, because `os.path.expanduser` looks for it twice.
    """

    def __init__(self, variables: Mapping[str, str]) -> None:
        super().__init__()
        self.data = {**{name: os.environ[name] for name in ("HOME",) if name in os.environ}, **variables}

    def __setitem__(self, name: str, value: str) -> None:
        os.putenv(name, value)
        super().__setitem__(name, value)

    def __delitem__(self, name: str) -> None:
        super().__delitem__(name)
        os.unsetenv(name)


@contextlib.contextmanager
def _own_interpreter(variables: _Variables, imports: list[str]) -> Iterator[None]:
    ours, path = os.environ, list(sys.path)
    os.environ = variables  # type: ignore[assignment]  # noqa: B003 - a mapping; _hand_down does what it lacks
    _hand_down(ours, variables)
    sys.path[:0] = imports
    try:
        yield
    finally:
        sys.path[:] = path
        os.environ = ours  # noqa: B003
        _hand_down(variables, ours)


def _hand_down(before: Mapping[str, str], after: Mapping[str, str]) -> None:
    """Change what processes that are started, and C's own functions, find."""
    for name in before.keys() - after.keys():
        os.unsetenv(name)
    for name, value in after.items():
        os.putenv(name, value)


def _load(function: Function) -> Callable[[Any, _Context], Any]:
    module_name, _, attribute = function.handler.rpartition(".")
    module_name = module_name.replace("/", ".")
    top = module_name.partition(".")[0]
    # Modules of its own for every environment, as every process has: what a handler keeps in one, such
    # as clients, is not another pipeline's. What was there under the name stays there for everyone else.
    known = _taken_out(top)
    try:
        importlib.invalidate_caches()
        handler: Callable[[Any, _Context], Any] = getattr(importlib.import_module(module_name), attribute)
    finally:
        if known:
            _taken_out(top)
            sys.modules.update(known)
    return handler


def _taken_out(top: str) -> dict[str, Any]:
    """Take a package's modules out of those that are loaded, and return them by name."""
    names = [name for name in sys.modules if name == top or name.startswith(f"{top}.")]
    return {name: sys.modules.pop(name) for name in names}


# --- the platform's own lines ----------------------------------------------------------------------------


def _logs_json(variables: Mapping[str, str]) -> bool:
    return variables.get("AWS_LAMBDA_LOG_FORMAT") == "JSON"


def _utc_now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class _PlatformLines:
    """What the platform writes about a function: nothing below the function's SystemLogLevel in JSON format.

    The levels are those of "System log level event mapping" in
    https://docs.aws.amazon.com/lambda/latest/dg/monitoring-cloudwatchlogs-log-level.html.
    """

    def __init__(self, function: Function) -> None:
        self._name = function.name
        self._json = _logs_json(function.environment)
        self._least = SYSTEM_LEVELS.index(function.system_level)

    def init_start(self, region: str) -> list[str]:
        version = f"python:{sys.version_info.major}.{sys.version_info.minor}.v0"
        arn = f"arn:aws:lambda:{region}::runtime:{'0' * 64}"
        if not self._json:
            return [f"INIT_START Runtime Version: {version}\tRuntime Version ARN: {arn}"]
        record = {
            "initializationType": "on-demand",
            "phase": "init",
            "runtimeVersion": version,
            "runtimeVersionArn": arn,
            "functionName": self._name,
            "functionVersion": "$LATEST",
        }
        return self._event("INFO", "platform.initStart", record)

    def start(self, request_id: str) -> list[str]:
        if not self._json:
            return [f"START RequestId: {request_id} Version: $LATEST"]
        return self._event("INFO", "platform.start", {"requestId": request_id, "version": "$LATEST"})

    def report(self, report: _Report) -> list[str]:
        if not self._json:
            return report.as_text()
        level = "INFO" if report.status == "success" else "WARN"
        return self._event(level, "platform.report", report.record())

    def _event(self, level: str, kind: str, record: Mapping[str, object]) -> list[str]:
        if SYSTEM_LEVELS.index(level) < self._least:
            return []
        # The time is called `time` here, not `timestamp`.
        event = {"time": _utc_now(), "type": kind, "record": record}
        return [json.dumps(event, separators=(",", ":"))]


@dataclass(frozen=True)
class _Report:
    """What the service says at the end of an invocation: times in milliseconds, memory in MiB."""

    request_id: str
    duration_ms: float
    init_ms: float | None
    memory_mb: int
    used_mb: int
    status: str
    error_type: str

    @property
    def _billed_ms(self) -> int:
        # Since August 2025 the init phase is billed as well.
        return math.ceil(self.duration_ms + (self.init_ms or 0))

    def as_text(self) -> list[str]:
        parts = [
            f"REPORT RequestId: {self.request_id}",
            f"Duration: {self.duration_ms:.2f} ms",
            f"Billed Duration: {self._billed_ms} ms",
            f"Memory Size: {self.memory_mb} MB",
            f"Max Memory Used: {self.used_mb} MB",
        ]
        if self.init_ms is not None:
            parts.append(f"Init Duration: {self.init_ms:.2f} ms")
        if self.status != "success":
            parts.append(f"Status: {self.status}")
        if self.status == "error":
            parts.append(f"Error Type: {self.error_type}")
        return [f"END RequestId: {self.request_id}", "\t".join(parts) + "\t"]

    def record(self) -> dict[str, object]:
        metrics: dict[str, object] = {
            "durationMs": round(self.duration_ms, 3),
            "billedDurationMs": self._billed_ms,
            "memorySizeMB": self.memory_mb,
            "maxMemoryUsedMB": self.used_mb,
        }
        if self.init_ms is not None:
            metrics["initDurationMs"] = round(self.init_ms, 3)
        record: dict[str, object] = {"requestId": self.request_id, "metrics": metrics, "status": self.status}
        if self.error_type:
            record["errorType"] = self.error_type
        return record


# --- from the pipe to the log stream ---------------------------------------------------------------------

# The runtime client frames what is logged, as against printed: four bytes of type, four of length, eight of
# time in microseconds, the message. The bytes are no UTF-8, so that no text looks like them.
# https://github.com/aws/aws-lambda-python-runtime-interface-client: FramedTelemetryLogSink
_MAGIC = b"\xa5\x5a\x00"
_HEAD_BYTES = 16
_LEVEL_OF_FRAME = {
    number + as_text: level
    for number, level in (
        (0x02, ""),
        (0x0A, "DEBUG"),
        (0x0E, "INFO"),
        (0x12, "WARN"),
        (0x16, "ERROR"),
        (0x1A, "FATAL"),
    )
    for as_text in (0, 1)
}
_ERROR_FRAME = 0x17
# Ours, for the platform's lines.
_PLATFORM_FRAME = 0xF0
_PLATFORM_HEAD = _MAGIC + bytes([_PLATFORM_FRAME])

_LEVELS = {level: place for place, level in enumerate(APPLICATION_LEVELS)}
_LEVELS |= {"WARNING": _LEVELS["WARN"], "CRITICAL": _LEVELS["FATAL"]}
_TIME_KEYS = ("timestamp", "time", "@timestamp")


def _least_level(function: Function) -> int:
    """Return the lowest level that is kept; only in JSON format are lines filtered at all."""
    return _LEVELS[function.application_level] if _logs_json(function.environment) else 0


def _level_of_line(line: bytes) -> int | None:
    """Return the level of a printed line, None for one that has none because it is plain text.

    A JSON object without a level, or without a time by RFC 3339, counts as INFO. That plain text passes is
    our reading: AWS says only of objects what the filter does.
    https://docs.aws.amazon.com/lambda/latest/dg/monitoring-cloudwatchlogs-log-level.html
    """
    if not line.startswith(b"{"):
        return None
    try:
        document = json.loads(line)
    except ValueError:
        return None
    when = next((document[key] for key in _TIME_KEYS if key in document), None)
    level = document.get("level")
    if not isinstance(level, str) or not isinstance(when, str) or not _is_rfc3339(when):
        return _LEVELS["INFO"]
    return _LEVELS.get(level.upper(), _LEVELS["INFO"])


def _is_rfc3339(text: str) -> bool:
    try:
        return datetime.fromisoformat(text).tzinfo is not None and text[10:11] in {"T", "t", " "}
    except ValueError:
        return False


class _LogStream:
    """One log stream: what is written to its pipe is shipped line by line and in order.

    The platform's lines and what the function logs go through the same pipe as what it prints, in frames:
    that puts them in their place.
    """

    def __init__(self, group: str, ship: Ship, least_level: int = 0) -> None:
        self.group = group
        self.name = f"{datetime.now(UTC):%Y/%m/%d}/[$LATEST]{uuid.uuid4().hex}"
        self._ship = ship
        self._read_end, self.write_end = os.pipe()
        os.set_blocking(self._read_end, False)
        if hasattr(fcntl, "F_SETPIPE_SZ"):
            # With the usual 64 KiB a function that writes much would wait for us again and again.
            with contextlib.suppress(OSError):
                fcntl.fcntl(self.write_end, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        self._lines = _Lines(least_level)
        self._turn = threading.Lock()
        self._ended = False
        self._kept: list[str] | None = None
        self._thread = threading.Thread(target=self._pump, name=f"log {group}", daemon=True)
        self._thread.start()

    def write(self, messages: list[str]) -> None:
        """Write the platform's lines; a line that the function has left open ends before them."""
        for message in messages:
            if message:
                self.write_frame(_PLATFORM_FRAME, message)

    def write_frame(self, kind: int, message: str) -> None:
        """Write a message that may have several lines and stays one event."""
        body = message.encode()
        head = (
            _MAGIC
            + bytes([kind])
            + len(body).to_bytes(4, "big")
            + (time.time_ns() // 1000).to_bytes(8, "big")
        )
        os.write(self.write_end, head + body)

    @contextlib.contextmanager
    def tail(self, wanted: bool) -> Iterator[Callable[[], bytes]]:
        """Keep what is logged until the end of the block, if it is wanted, and give the end of it."""
        if wanted:
            self.flush()
            self._kept = []
        yield self._tail

    def _tail(self) -> bytes:
        self.flush()
        kept, self._kept = self._kept or [], None
        return "".join(f"{message}\n" for message in kept).encode()[-TAIL_BYTES:]

    def flush(self) -> None:
        """Ship every whole line that is in the pipe now."""
        with self._turn:
            if not self._ended:
                self._read()
                self._deliver(self._lines.take())

    def close(self) -> None:
        """Ship all that there is. The pipe goes when the last process that can write to it is gone."""
        os.write(self.write_end, b"\n")
        self.flush()
        os.close(self.write_end)

    def _pump(self) -> None:
        poller = select.poll()
        poller.register(self._read_end, select.POLLIN)
        while True:
            poller.poll(None if self._lines.empty else SHIP_AFTER_S * 1000)
            with self._turn:
                more = self._read()
                if not more or self._lines.due(time.monotonic()):
                    self._deliver(self._lines.take())
                if not more:
                    self._ended = True
                    os.close(self._read_end)
                    return
            time.sleep(GATHER_S)

    def _read(self) -> bool:
        """Take what is in the pipe, False at its end: one read of the pipe's size takes all that it holds."""
        try:
            chunk = os.read(self._read_end, PIPE_BYTES)
        except BlockingIOError:
            return True
        self._lines.add(chunk, time.time_ns() // 1_000_000, time.monotonic())
        return bool(chunk)

    def _deliver(self, batches: list[list[tuple[int, str]]]) -> None:
        for batch in batches:
            if self._kept is not None:
                self._kept += [message for _, message in batch]
            try:
                self._ship(self.group, self.name, batch)
            # What ships is the caller's: whatever it raises, the function's output must go on being read.
            except Exception:
                logger.exception("lost %d lines of %s", len(batch), self.group)


@dataclass
class _Lines:
    """Lines and framed messages that wait to be shipped."""

    _least_level: int = 0
    _unread: bytes = b""
    """A frame that has not come whole."""
    _tail: bytes = b""
    """A line that has no end yet."""
    _waiting: list[tuple[int, str, int]] = field(default_factory=list)
    _bytes: int = 0
    _since: float = 0.0
    _last_ms: int = 0

    @property
    def empty(self) -> bool:
        return not self._waiting

    def add(self, chunk: bytes, now_ms: int, now: float) -> None:
        """Cut a piece of output into lines and messages; what follows the last newline waits for its own."""
        if not self._waiting:
            self._since = now
        data, self._unread = self._unread + chunk, b""
        start = _frame_start(data)
        while start >= 0:
            self._add_text(data[:start], now_ms)
            data = data[start:]
            size = _HEAD_BYTES + int.from_bytes(data[4:8], "big")
            # A process that was killed while it wrote leaves a frame that the platform's next one cuts short.
            torn = data.find(_PLATFORM_HEAD, 1, size)
            size = torn if torn >= 0 else size
            if torn < 0 and len(data) < max(size, _HEAD_BYTES):
                self._unread = data
                return
            self._add_frame(data[:size])
            data = data[size:]
            start = _frame_start(data)
        self._add_text(data, now_ms)

    def due(self, now: float) -> bool:
        """Say whether there is enough, or something has waited for long enough."""
        if not self._waiting:
            return False
        return (
            len(self._waiting) >= SHIP_LINES or self._bytes >= SHIP_BYTES or now - self._since >= SHIP_AFTER_S
        )

    def take(self) -> list[list[tuple[int, str]]]:
        """Take all, in batches that one PutLogEvents call accepts."""
        batches: list[list[tuple[int, str]]] = []
        room = 0
        for when, message, size in self._waiting:
            if not batches or len(batches[-1]) == SHIP_LINES or size > room:
                batches.append([])
                room = SHIP_BYTES
            batches[-1].append((when, message))
            room -= size
        self._waiting = []
        self._bytes = 0
        return batches

    def _add_text(self, text: bytes, now_ms: int) -> None:
        *lines, rest = (self._tail + text).split(b"\n")
        for line in lines:
            self._add_line(line, now_ms)
        while len(rest) > MAX_LINE_BYTES:
            cut = _character_boundary(rest, MAX_LINE_BYTES)
            self._add_event(rest[:cut], now_ms)
            rest = rest[cut:]
        self._tail = rest

    def _add_line(self, line: bytes, now_ms: int) -> None:
        if self._least_level:
            level = _level_of_line(line)
            if level is not None and level < self._least_level:
                return
        self._add_event(line, now_ms)

    def _add_frame(self, frame: bytes) -> None:
        kind, body = frame[3], frame[_HEAD_BYTES:].removesuffix(b"\n")
        when_ms = int.from_bytes(frame[8:16], "big") // 1000
        if kind == _PLATFORM_FRAME:
            self._add_text(b"\n", when_ms)
        elif _LEVELS.get(_LEVEL_OF_FRAME[kind], _LEVELS["INFO"]) < self._least_level:
            return
        self._add_event(body, when_ms)

    def _add_event(self, event: bytes, when_ms: int) -> None:
        # PutLogEvents wants times in order, and a clock can be set back.
        self._last_ms = max(self._last_ms, when_ms)
        while len(event) > MAX_LINE_BYTES:
            cut = _character_boundary(event, MAX_LINE_BYTES)
            self._add_event(event[:cut], when_ms)
            event = event[cut:]
        if not event:
            return  # CloudWatch takes no event without a character
        size = len(event) + EVENT_OVERHEAD_BYTES
        self._waiting.append((self._last_ms, event.decode("utf-8", "replace"), size))
        self._bytes += size


def _frame_start(data: bytes) -> int:
    """Return where a frame begins, or what may be the beginning of one at the end; -1 for nowhere."""
    found = data.find(_MAGIC)
    while found >= 0:
        kind = data[found + 3 : found + 4]
        if not kind or kind[0] in _LEVEL_OF_FRAME or kind[0] == _PLATFORM_FRAME:
            return found
        found = data.find(_MAGIC, found + 1)
    return next((len(data) - length for length in (2, 1) if data.endswith(_MAGIC[:length])), -1)


def _character_boundary(line: bytes, limit: int) -> int:
    """Return the last place at or before `limit` where no UTF-8 character is cut."""
    cut = limit
    while cut > limit - 3 and line[cut] & 0xC0 == 0x80:  # noqa: PLR2004 - the bits of a continuation byte
        cut -= 1
    return cut
