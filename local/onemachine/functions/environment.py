"""What an execution environment is, in whichever process its function runs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import replace

from onemachine.functions.definition import Call, Function, Result, Ship, variables_of
from onemachine.functions.log_stream import LogStream, least_level_of
from onemachine.functions.platform_lines import PlatformLines


class Environment(ABC):
    """An execution environment: it serves one invocation after the other.

    Args:
        function: Its function.
        shared: Variables that every function gets.
        ship: Takes what it writes.

    Attributes:
        log: Its log stream.
        alive: Whether it can serve another invocation.
    """

    def __init__(self, function: Function, shared: Mapping[str, str], ship: Ship) -> None:
        self._platform = PlatformLines(function)
        self.log = LogStream(function.log_group, ship, least_level_of(function))
        self.alive = True
        self._function = function
        self._variables = variables_of(function, shared, self.log.name)
        self._region = self._variables["AWS_REGION"]

    def invoke(self, call: Call) -> Result:
        """Serve an invocation."""
        with self.log.tail(call.tail) as tail:
            result = self._invoke(call)
        return replace(result, tail=tail()) if call.tail else result

    @abstractmethod
    def _invoke(self, call: Call) -> Result:
        """Serve an invocation, and write what the platform writes of it."""

    @abstractmethod
    def kill(self) -> None:
        """End what runs at once, if that can be done without ending others."""

    @abstractmethod
    def close(self) -> None:
        """End the environment and its log stream."""
