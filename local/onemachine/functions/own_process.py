"""An execution environment that is a separate process, under Lambda's runtime client for Python.

It has the memory, the timeout and the variables of its function. The thread that invokes a function speaks
the other side of the Runtime API (https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html) itself:
between two invocations the process waits with an open `GET /next`, so an invocation is one answer and two
requests on one connection, and no other thread has to be woken.
"""

from __future__ import annotations

import contextlib
import math
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path

from onemachine import clock
from onemachine.functions.definition import (
    MAX_RESPONSE_BYTES,
    Call,
    Function,
    Result,
    Ship,
    error_document,
    function_arn,
    utc_now,
)
from onemachine.functions.environment import Environment
from onemachine.functions.platform_lines import Report

# The service ends the init phase after 10 s and repeats it on the function's own time; here it continues.
# https://docs.aws.amazon.com/lambda/latest/dg/lambda-runtime-environment.html
INIT_LIMIT_S = 10.0
WATCH_EVERY_S = 0.01
EXIT_GRACE_S = 1.0
STALLED_S = 30.0
"""How long a process may leave a request or an answer half way through before it counts as gone."""


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
    """A request of the runtime client.

    Attributes:
        action: The last part of its path: next, response or error.
        headers: Its headers, by lowercase name.
        body: Its body.
        of_init: Whether it reports an error of the initialization.
    """

    action: str
    headers: Mapping[bytes, bytes]
    body: bytes
    of_init: bool


class OwnProcess(Environment):
    """One process that runs the runtime client, and the service's end of its connection."""

    def __init__(self, function: Function, shared: Mapping[str, str], ship: Ship) -> None:
        super().__init__(function, shared, ship)
        self._peak_bytes = 0
        self._ready = False
        variables = self._variables
        self._arn = function_arn(function.name, self._region)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._connection: socket.socket | None = None
        variables["AWS_LAMBDA_RUNTIME_API"] = f"127.0.0.1:{self._listener.getsockname()[1]}"
        # What the function logs comes framed through the pipe of what it prints: both keep their order.
        variables["_LAMBDA_TELEMETRY_LOG_FD"] = str(self.log.write_end)
        self.log.write(self._platform.init_start(self._region))
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

    def _invoke(self, call: Call) -> Result:
        """Give the runtime client an event, and wait for its answer."""
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
        duration_ms, memory_mb = (time.monotonic() - began) * 1000, self._function.memory_mb
        used_mb = min(math.ceil(self._peak_bytes / 1024 / 1024), memory_mb)
        report = Report(request_id, duration_ms, memory_mb, used_mb, init_ms, status, error_type)
        self.log.write(self._platform.report(report))
        return result

    def kill(self) -> None:
        """Kill the process, and those that it started."""
        self.alive = False
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def close(self) -> None:
        """End the process and its log stream."""
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

    def _serve(self, call: Call, began: float) -> Result:
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
        """Wait for the process to write something, and end it if it takes too much memory or time."""
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


def _exit_error(error_type: str, request_id: str, reason: str) -> _EndedError:
    what = f"Runtime exited with error: {reason}" if reason else "Runtime exited without providing a reason"
    message = f"RequestId: {request_id} Error: {what}"
    return _EndedError(error_type, error_document(error_type, message), line=message)


def _timed_out(request_id: str, timeout_s: float) -> _EndedError:
    message = f"{utc_now()} {request_id} Task timed out after {timeout_s:.2f} seconds"
    document = error_document("Sandbox.Timedout", message)
    return _EndedError("Sandbox.Timedout", document, status="timeout", line=message)


def _too_large(request_id: str) -> _EndedError:
    name = "Function.ResponseSizeTooLarge"
    message = f"Response payload size exceeded maximum allowed payload size ({MAX_RESPONSE_BYTES} bytes)."
    return _EndedError(name, error_document(name, message), line=f"RequestId: {request_id} Error: {message}")
