"""An execution environment in this interpreter, for one invocation at a time."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import sys
import threading
import time
import traceback
from collections import UserDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TextIO

import boto3

from onemachine.functions.definition import (
    Call,
    Function,
    Result,
    Ship,
    error_document,
    function_arn,
    import_path_of,
)
from onemachine.functions.environment import Environment
from onemachine.functions.log_stream import ERROR_FRAME
from onemachine.functions.own_modules import OwnModules
from onemachine.functions.platform_lines import Report

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


class _Output:
    """The stdout of the function that runs.

    Loggers are the interpreter's, and keep the stdout that they find first for environments that come later.
    """

    target: TextIO

    def write(self, text: str) -> int:
        # Some keep the method, not the stream: it must not be that of one environment.
        return self.target.write(text)

    def flush(self) -> None:
        self.target.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.target, name)


_output: Any = _Output()


class InThisProcess(Environment):
    """A function that is called here: no limit of memory, and a timeout that the handler can only read."""

    def __init__(self, function: Function, shared: Mapping[str, str], ship: Ship) -> None:
        super().__init__(function, shared, ship)
        self._environ = _Variables(self._variables)
        self._modules = OwnModules(import_path_of(function))
        self._handler: Callable[[Any, _Context], Any] | None = None
        self._stdout = open(  # noqa: SIM115 - it lives as long as the environment
            self.log.write_end, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False
        )
        self.log.write(self._platform.init_start(self._region))

    def _invoke(self, call: Call) -> Result:
        request_id = call.request_id
        with (
            _only_one_runs,
            _own_interpreter(self._environ, [str(each) for each in import_path_of(self._function)]),
            contextlib.redirect_stdout(_output),
            contextlib.redirect_stderr(_output),
        ):
            _output.target = self._stdout
            os.environ["_X_AMZN_TRACE_ID"] = call.trace_id
            began = time.monotonic()
            self.log.write(self._platform.start(request_id))
            document, raised = self._call(call.payload, request_id, began)
            self._stdout.flush()
        report = Report(request_id, (time.monotonic() - began) * 1000, self._function.memory_mb)
        self.log.write(self._platform.report(report))
        return Result(document, "Unhandled" if raised else None, request_id, raised=raised)

    def _call(self, payload: bytes, request_id: str, began: float) -> tuple[bytes, BaseException | None]:
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
                self._handler = self._load()
            answer = self._handler(json.loads(payload), context)
            return json.dumps(answer).encode(), None
        # Whatever a handler raises is its result, and it must not end the interpreter that others live in.
        except (Exception, SystemExit) as error:  # noqa: BLE001
            error_type = type(error).__name__
            stack = traceback.format_tb(error.__traceback__)
            lines = [f"[ERROR] {error_type}: {error}", "Traceback (most recent call last):", *stack]
            self._stdout.flush()
            self.log.write_frame(ERROR_FRAME, "\n".join(line.rstrip("\n") for line in lines))
            return error_document(error_type, str(error), requestId=request_id, stackTrace=stack), error

    def _load(self) -> Callable[[Any, _Context], Any]:
        importlib.invalidate_caches()
        module, _, attribute = self._function.handler.rpartition(".")
        handler: Callable[[Any, _Context], Any]
        handler = getattr(self._modules.import_module(module.replace("/", ".")), attribute)
        return handler

    def kill(self) -> None:
        """Do nothing: it runs in this process."""

    def close(self) -> None:
        """End its log stream."""
        self._stdout.close()
        self.log.close()


class _Variables(UserDict[str, str]):
    """The `os.environ` of a function: a separate object that replaces ours while it runs.

    Other threads go on reading the one that they hold: no name that they have just found is gone from it.
    HOME is in both, because `os.path.expanduser` looks for it twice.

    Attributes:
        session: boto3's default session, which keeps the variables of its first use. None before that.
    """

    def __init__(self, variables: Mapping[str, str]) -> None:
        super().__init__()
        self.session: boto3.Session | None = None
        self.data = {**{name: os.environ[name] for name in ("HOME",) if name in os.environ}, **variables}

    def __setitem__(self, name: str, value: str) -> None:
        os.putenv(name, value)
        super().__setitem__(name, value)

    def __delitem__(self, name: str) -> None:
        super().__delitem__(name)
        os.unsetenv(name)


@contextlib.contextmanager
def _own_interpreter(variables: _Variables, imports: list[str]) -> Iterator[None]:
    ours, path, session = os.environ, list(sys.path), boto3.DEFAULT_SESSION
    os.environ = variables  # type: ignore[assignment]  # noqa: B003 - a mapping; _hand_down does what it lacks
    _hand_down(ours, variables)
    sys.path[:0] = imports
    boto3.DEFAULT_SESSION = variables.session
    try:
        yield
    finally:
        variables.session, boto3.DEFAULT_SESSION = boto3.DEFAULT_SESSION, session
        sys.path[:] = path
        os.environ = ours  # noqa: B003
        _hand_down(variables, ours)


def _hand_down(before: Mapping[str, str], after: Mapping[str, str]) -> None:
    """Change what processes that are started, and C's own functions, find."""
    for name in before.keys() - after.keys():
        os.unsetenv(name)
    for name, value in after.items():
        os.putenv(name, value)
