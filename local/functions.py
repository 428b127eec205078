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
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path
from typing import Any, Protocol

logger = logging.getLogger(__name__)

Ship = Callable[[str, str, list[tuple[int, str]]], None]
"""Takes a log group, a log stream and `(milliseconds since 1970, message)` pairs, in order."""

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
    """

    name: str
    handler: str
    memory_mb: int
    timeout_s: float
    environment: Mapping[str, str]
    log_group: str
    code: Path
    path: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Result:
    """What an invocation came to.

    Args:
        payload: What the handler returned, as JSON, or the document that describes the error.
        error: None, or `Unhandled`, the only word that the service has for a function that failed.
        request_id: The invocation's id, as in its START line.
    """

    payload: bytes
    error: str | None
    request_id: str


class Functions:
    """The functions of one machine: starts environments for them when they are called, ships what they write.

    Args:
        ship: Called from a background thread per environment with up to 1,000 lines at a time.
        environment: Variables that every function gets: credentials, region, the address of the services.
        in_process: Run the functions in this interpreter, without limits of memory and time.
        concurrency: The most environments that one function may have; further callers wait.
    """

    def __init__(
        self, ship: Ship, environment: Mapping[str, str], in_process: bool = False, concurrency: int = 2
    ) -> None:
        self._ship = ship
        self._environment = dict(environment)
        self._concurrency = concurrency
        self._pools: dict[str, _Pool] = {}
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
            ValueError: There is one of that name.
        """
        if function.name in self._pools:
            raise ValueError(f"there is already a function named {function.name!r}")
        environment: Callable[[Function, Mapping[str, str], Ship], _Environment]
        environment = _InThisProcess if self.runs_in_process else _OwnProcess
        # In one interpreter there is one os.environ and one stdout, hence one environment per function.
        size = 1 if self.runs_in_process else self._concurrency
        self._pools[function.name] = _Pool(lambda: environment(function, self._environment, self._ship), size)

    def names(self) -> list[str]:
        """Name the functions, in the order in which they were added."""
        return list(self._pools)

    def invoke(self, name: str, payload: bytes) -> Result:
        """Call a function and wait for its answer.

        Args:
            name: The function's name.
            payload: The event, as JSON, at most `MAX_PAYLOAD_BYTES`.

        Returns:
            The result; a function that fails is a result too.

        Raises:
            KeyError: There is no such function.
            ValueError: The payload is larger than Lambda takes.
            RuntimeError: `stop` was called.
        """
        pool = self._pools[name]
        if len(payload) > MAX_PAYLOAD_BYTES:
            raise ValueError(f"payload for {name} has {len(payload)} bytes, the limit is {MAX_PAYLOAD_BYTES}")
        with pool.environment() as environment:
            return environment.invoke(payload, str(uuid.uuid4()))

    def kill(self, name: str) -> None:
        """Kill the processes of a function, with whatever they are doing, as a failing host would.

        Args:
            name: The function's name. Functions in this interpreter are left alone.
        """
        self._pools[name].kill()

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


class _Environment(Protocol):
    log: _LogStream
    alive: bool

    def invoke(self, payload: bytes, request_id: str) -> Result: ...

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
            if environment.alive and not self._stopped:
                self._idle.append(environment)
                self._changed.notify_all()
                return
        environment.close()
        with self._changed:
            self._all.remove(environment)
            self._free += 1
            self._changed.notify_all()

    def kill(self) -> None:
        with self._changed:
            idle, self._idle = self._idle, []
            for environment in self._all:
                environment.kill()
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


def _arn(function: Function, region: str) -> str:
    return f"arn:aws:lambda:{region}:{ACCOUNT_ID}:function:{function.name}"


def _variables(function: Function, shared: Mapping[str, str], log_stream: str) -> dict[str, str]:
    """Return the whole environment of a function: nothing of ours is in it but what a process needs to run.

    https://docs.aws.amazon.com/lambda/latest/dg/configuration-envvars.html
    """
    region = shared.get("AWS_REGION") or shared.get("AWS_DEFAULT_REGION") or DEFAULT_REGION
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
        "PYTHONPATH": os.pathsep.join(str(directory) for directory in (function.code, *function.path)),
        "_HANDLER": function.handler,
    }


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
        self.log = _LogStream(function.log_group, ship)
        self.alive = True
        self._function = function
        self._peak_bytes = 0
        self._ready = False
        variables = _variables(function, shared, self.log.name)
        self._json = _logs_json(variables)
        self._arn = _arn(function, variables["AWS_REGION"])
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._connection: socket.socket | None = None
        variables["AWS_LAMBDA_RUNTIME_API"] = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._started = time.monotonic()
        self._process = subprocess.Popen(  # noqa: S603 - the command is ours, the handler is the template's
            [sys.executable, "-m", "awslambdaric", function.handler],
            cwd=function.code,
            env=variables,
            stdin=subprocess.DEVNULL,
            stdout=self.log.write_end,
            stderr=self.log.write_end,
            start_new_session=True,
        )

    def invoke(self, payload: bytes, request_id: str) -> Result:
        init_ms = None
        began = time.monotonic()
        try:
            if not self._ready:
                began = self._await_ready(request_id)
                init_ms = (began - self._started) * 1000
            self.log.write(_start_line(request_id, self._json))
            result = self._serve(payload, request_id, began)
            status, error_type = "success", ""
        except _EndedError as end:
            self._end()
            self.log.write(end.line)
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
        self.log.write(report.as_json() if self._json else report.as_text())
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
            self.log.write(_start_line(request_id, self._json))
            raise
        self._ready = True
        return time.monotonic()

    def _serve(self, payload: bytes, request_id: str, began: float) -> Result:
        deadline = began + self._function.timeout_s
        epoch_ms = int((time.time() + self._function.timeout_s) * 1000)
        self._send(
            HTTPStatus.OK,
            payload,
            f"Lambda-Runtime-Aws-Request-Id: {request_id}\r\n"
            f"Lambda-Runtime-Deadline-Ms: {epoch_ms}\r\n"
            f"Lambda-Runtime-Invoked-Function-Arn: {self._arn}\r\n"
            f"Lambda-Runtime-Trace-Id: {_trace_id()}\r\n",
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

# os.environ, sys.path and sys.stdout belong to the whole interpreter, so only one function can have them.
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
        self.log = _LogStream(function.log_group, ship)
        self.alive = True
        self._function = function
        self._variables = _variables(function, shared, self.log.name)
        self._json = _logs_json(self._variables)
        self._handler: Callable[[Any, _Context], Any] | None = None
        # Loggers keep the stdout that they find when their module is loaded, so it stays the same one.
        self._stdout = open(  # noqa: SIM115 - it lives as long as the environment
            self.log.write_end, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False
        )

    def invoke(self, payload: bytes, request_id: str) -> Result:
        with (
            _only_one_runs,
            _own_interpreter(self._variables),
            contextlib.redirect_stdout(self._stdout),
            contextlib.redirect_stderr(self._stdout),
        ):
            began = time.monotonic()
            self.log.write(_start_line(request_id, self._json))
            document, error_type = self._call(payload, request_id, began)
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
        self.log.write(report.as_json() if self._json else report.as_text())
        return Result(document, "Unhandled" if error_type else None, request_id)

    def _call(self, payload: bytes, request_id: str, began: float) -> tuple[bytes, str]:
        context = _Context(
            aws_request_id=request_id,
            function_name=self._function.name,
            memory_limit_in_mb=str(self._function.memory_mb),
            invoked_function_arn=_arn(self._function, self._variables["AWS_REGION"]),
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
            self._stdout.write("\r".join(lines).replace("\n", "\r") + "\n")
            return _document(error_type, str(error), requestId=request_id, stackTrace=stack), error_type

    def kill(self) -> None:
        """Leave it: it has no process of its own."""

    def close(self) -> None:
        self._stdout.close()
        self.log.close()


@contextlib.contextmanager
def _own_interpreter(variables: Mapping[str, str]) -> Iterator[None]:
    environment, path = dict(os.environ), list(sys.path)
    os.environ.clear()
    os.environ.update(variables)
    sys.path[:0] = variables["PYTHONPATH"].split(os.pathsep)
    try:
        yield
    finally:
        sys.path[:] = path
        os.environ.clear()
        os.environ.update(environment)


def _load(function: Function) -> Callable[[Any, _Context], Any]:
    module_name, _, attribute = function.handler.rpartition(".")
    module_name = module_name.replace("/", ".")
    top = module_name.partition(".")[0]
    known = sys.modules.get(top)
    places = [*getattr(known, "__path__", []), str(getattr(known, "__file__", None))]
    if known and not any(place.startswith(f"{function.code}{os.sep}") for place in places):
        # Another function's module has this name: it keeps its own, and this one is loaded anew.
        for name in [name for name in sys.modules if name == top or name.startswith(f"{top}.")]:
            del sys.modules[name]
    importlib.invalidate_caches()
    handler: Callable[[Any, _Context], Any] = getattr(importlib.import_module(module_name), attribute)
    return handler


# --- the platform's own lines ----------------------------------------------------------------------------


def _logs_json(variables: Mapping[str, str]) -> bool:
    return variables.get("AWS_LAMBDA_LOG_FORMAT") == "JSON"


def _utc_now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _platform_event(kind: str, record: Mapping[str, object]) -> str:
    """Write a line of the platform in JSON format, where the time is called `time`, not `timestamp`."""
    return json.dumps({"time": _utc_now(), "type": kind, "record": record}, separators=(",", ":"))


def _start_line(request_id: str, as_json: bool) -> str:
    if as_json:
        return _platform_event("platform.start", {"requestId": request_id, "version": "$LATEST"})
    return f"START RequestId: {request_id} Version: $LATEST"


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

    def as_text(self) -> str:
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
        return f"END RequestId: {self.request_id}\n" + "\t".join(parts) + "\t"

    def as_json(self) -> str:
        metrics: dict[str, object] = {
            "durationMs": round(self.duration_ms, 3),
            "billedDurationMs": self._billed_ms,
            "memorySizeMB": self.memory_mb,
            "maxMemoryUsedMB": self.used_mb,
        }
        if self.init_ms is not None:
            metrics["initDurationMs"] = round(self.init_ms, 3)
        record = {"requestId": self.request_id, "metrics": metrics, "status": self.status}
        if self.error_type:
            record["errorType"] = self.error_type
        return _platform_event("platform.report", record)


# --- from the pipe to the log stream ---------------------------------------------------------------------


class _LogStream:
    """One log stream: what is written to its pipe is shipped line by line and in order.

    The platform's lines go through the same pipe as the function's: that puts them in their place.
    """

    def __init__(self, group: str, ship: Ship) -> None:
        self.group = group
        self.name = f"{datetime.now(UTC):%Y/%m/%d}/[$LATEST]{uuid.uuid4().hex}"
        self._ship = ship
        self._read_end, self.write_end = os.pipe()
        os.set_blocking(self._read_end, False)
        if hasattr(fcntl, "F_SETPIPE_SZ"):
            # With the usual 64 KiB a function that writes much would wait for us again and again.
            with contextlib.suppress(OSError):
                fcntl.fcntl(self.write_end, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        self._lines = _Lines()
        self._turn = threading.Lock()
        self._ended = False
        self._thread = threading.Thread(target=self._pump, name=f"log {group}", daemon=True)
        self._thread.start()

    def write(self, text: str) -> None:
        """Write the platform's lines; a line that the function has left open ends before them."""
        if text:
            os.write(self.write_end, f"\n{text}\n".encode())

    def flush(self) -> None:
        """Ship every whole line that is in the pipe now."""
        with self._turn:
            if not self._ended:
                self._read()
                self._deliver(self._lines.take())

    def close(self) -> None:
        """Ship all that there is. The pipe goes when the last process that can write to it is gone."""
        self.write("\n")
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
            try:
                self._ship(self.group, self.name, batch)
            # What ships is the caller's: whatever it raises, the function's output must go on being read.
            except Exception:
                logger.exception("lost %d lines of %s", len(batch), self.group)


@dataclass
class _Lines:
    """Lines that wait to be shipped."""

    _tail: bytes = b""
    _waiting: list[tuple[int, str, int]] = field(default_factory=list)
    _bytes: int = 0
    _since: float = 0.0
    _last_ms: int = 0

    @property
    def empty(self) -> bool:
        return not self._waiting

    def add(self, chunk: bytes, now_ms: int, now: float) -> None:
        """Cut a piece of output into lines; what follows the last newline waits for its own."""
        # PutLogEvents wants times in order, and a clock can be set back.
        self._last_ms = max(self._last_ms, now_ms)
        if not self._waiting:
            self._since = now
        *lines, rest = (self._tail + chunk).split(b"\n")
        for line in lines:
            self._add_line(line)
        while len(rest) > MAX_LINE_BYTES:
            cut = _character_boundary(rest, MAX_LINE_BYTES)
            self._add_line(rest[:cut])
            rest = rest[cut:]
        self._tail = rest

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

    def _add_line(self, line: bytes) -> None:
        while len(line) > MAX_LINE_BYTES:
            cut = _character_boundary(line, MAX_LINE_BYTES)
            self._add_line(line[:cut])
            line = line[cut:]
        if not line:
            return  # CloudWatch takes no event without a character
        size = len(line) + EVENT_OVERHEAD_BYTES
        self._waiting.append((self._last_ms, line.decode("utf-8", "replace"), size))
        self._bytes += size


def _character_boundary(line: bytes, limit: int) -> int:
    """Return the last place at or before `limit` where no UTF-8 character is cut."""
    cut = limit
    while cut > limit - 3 and line[cut] & 0xC0 == 0x80:  # noqa: PLR2004 - the bits of a continuation byte
        cut -= 1
    return cut
