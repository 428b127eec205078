"""The functions of one machine: environments are started when they are called, and used again.

In a separate process a function has Lambda's runtime client, `awslambdaric`. Where that cannot run (it has
no wheel for macOS), functions run in this interpreter.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping

from onemachine.functions.definition import (
    MAX_PAYLOAD_BYTES,
    Call,
    Function,
    Observe,
    Result,
    Ship,
    ThrottledError,
    new_trace_id,
    unobserved,
)
from onemachine.functions.environment import Environment
from onemachine.functions.in_process import InThisProcess
from onemachine.functions.own_process import OwnProcess

# https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html
ACCOUNT_CONCURRENCY = 1_000


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
        """Whether functions run in this interpreter; `why_in_process` has the reason."""
        return bool(self.why_in_process)

    def add(self, function: Function) -> None:
        """Make a function callable; nothing is started before its first invocation.

        Args:
            function: The function.

        Raises:
            ValueError: A function of that name exists, or this one reserves more than the account has.
        """
        if function.name in self._pools:
            raise ValueError(f"a function named {function.name!r} exists already")
        reserved = function.reserved_concurrency
        if reserved is not None and not 0 <= reserved <= self._unreserved():
            raise ValueError(
                f"{function.name} reserves a concurrency of {reserved}, the account has {self._unreserved()}"
            )
        self._reserved[function.name] = reserved
        self._definitions[function.name] = function
        environment: Callable[[Function, Mapping[str, str], Ship], Environment]
        environment = InThisProcess if self.runs_in_process else OwnProcess
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
            KeyError: If the function does not exist.
            ValueError: The payload is larger than Lambda takes.
            ThrottledError: It has as many invocations as it may.
            RuntimeError: `stop` was called.
        """
        pool = self._pools[name]
        if len(payload) > MAX_PAYLOAD_BYTES:
            raise ValueError(f"payload for {name} has {len(payload)} bytes, the limit is {MAX_PAYLOAD_BYTES}")
        call = Call(payload, request_id or str(uuid.uuid4()), trace_id or new_trace_id(), tail)
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
            ValueError: If no function has this name.
        """
        if name not in self._pools:
            raise ValueError(
                f"function {name} does not exist; the functions are {', '.join(sorted(self._pools))}"
            )
        self._pools[name].kill()

    def restart(self, environment: Mapping[str, str]) -> None:
        """Give every function other shared variables: what runs ends when it is done, and starts again.

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


class _Pool:
    """The environments of one function: each serves one caller at a time, and the last used is used next."""

    def __init__(self, start: Callable[[], Environment], size: int) -> None:
        self._start = start
        self._size = size
        self._changed = threading.Condition()
        self._idle: list[Environment] = []
        self._all: list[Environment] = []
        self._free = size
        self._outdated: set[int] = set()
        self._stopped = False

    @contextlib.contextmanager
    def environment(self) -> Iterator[Environment]:
        environment = self._take()
        try:
            yield environment
        finally:
            self._give_back(environment)

    def _take(self) -> Environment:
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

    def _give_back(self, environment: Environment) -> None:
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
