"""A deployed consumer in processes that die at a chosen call.

One process makes the consumer, with all that takes time, and is the parent of one process for each batch: a
life costs a fork, and begins with a consumer that has called nobody yet.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from botocore.httpsession import URLLib3Session

from tests.builders import Context

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

NEVER = 1_000_000


class _Death:
    """Kills this process at the nth call of AWS: before it is sent, or after it was carried out."""

    call = NEVER
    carried_out = False
    calls = 0

    def __init__(self) -> None:
        self._send = URLLib3Session.send

    def send(self, session: URLLib3Session, request: Any) -> Any:
        self.calls += 1
        call = self.calls
        if call == self.call and not self.carried_out:
            os.kill(os.getpid(), signal.SIGKILL)
        answer = self._send(session, request)
        if call >= self.call and self.carried_out:
            os.kill(os.getpid(), signal.SIGKILL)
        return answer


def serve(environ: Mapping[str, str], module: str, pipe: Connection) -> None:
    """Answer each (event, call, carried out) with what the handler returns, and how many calls it made.

    Args:
        environ: The function's environment.
        module: The Lambda entry.
        pipe: Where requests come from, until None comes. None goes back where death came first.
    """
    os.environ.update(environ)
    sys.stdout = open(os.devnull, "w")  # noqa: PTH123, SIM115 - as long as the process
    death = _Death()
    URLLib3Session.send = lambda session, request: death.send(session, request)  # noqa: PLW0108 - a method
    entry = importlib.import_module(module)
    handle = entry.from_environment(os.environ)
    while (asked := pipe.recv()) is not None:
        event, death.call, death.carried_out = asked
        if (child := os.fork()) == 0:
            pipe.send((handle(event, Context()), death.calls))
            os._exit(0)
        if os.WIFSIGNALED(os.waitpid(child, 0)[1]):
            pipe.send(None)
