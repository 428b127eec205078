"""The deployed consumer in a process that dies at a chosen call.

`multiprocessing`'s fork server imports this once: what is read here is not read again in each process.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import TYPE_CHECKING, Any

import boto3

from consumers.timestream import handler
from tests.builders import Context

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

boto3.setup_default_session()
for service in ("s3", "timestream-write"):
    boto3.client(service)  # The session keeps the service's description.


class _Death:
    """Kills this process at the nth call of AWS: before it is sent, or after it was carried out."""

    def __init__(self, call: int, *, carried_out: bool) -> None:
        self._call = call
        self._carried_out = carried_out
        self.calls = 0

    def before(self, **_: Any) -> None:
        self.calls += 1
        if self.calls == self._call and not self._carried_out:
            os.kill(os.getpid(), signal.SIGKILL)

    def after(self, **_: Any) -> None:
        if self.calls >= self._call and self._carried_out:
            os.kill(os.getpid(), signal.SIGKILL)


def consume(event: dict[str, Any], call: int, carried_out: bool, answer: Connection) -> None:
    """Send what the handler returns, and how many calls it made, through a pipe; unless death comes first."""
    sys.stdout = open(os.devnull, "w")  # noqa: PTH123, SIM115 - as long as the process, which is not long
    death = _Death(call, carried_out=carried_out)
    events = boto3.DEFAULT_SESSION.events
    events.register("before-send", death.before)
    events.register("after-call", death.after)
    answer.send((handler.handler(event, Context()), death.calls))
