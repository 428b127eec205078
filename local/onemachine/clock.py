"""One clock for everything on this machine: it runs as clocks do, and can be put to another time.

Whatever asks Python for the time gets the clock's, in this process and in those of the functions: moto's
retention, the windows of tables, presigned links, schedules, the emitter's timestamps. Waiting is not
affected.
"""

from __future__ import annotations

import os
import runpy
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta

import time_machine

# How a function's process gets it: seconds ahead of the real time.
OFFSET = "ONEMACHINE_CLOCK_OFFSET_SECONDS"


Now = Callable[[], datetime]
"""Tells the time, with a time zone."""


def real_time() -> datetime:
    """Return the time, in UTC."""
    return datetime.now(UTC)


class Clock:
    """The clock of this process, until it is stopped."""

    def __init__(self) -> None:
        self._travel: time_machine.travel | None = None
        self._traveller: time_machine.Traveller | None = None
        self.offset = timedelta()

    def now(self) -> datetime:
        """Return the time by this clock, in UTC."""
        return real_time()

    def put(self, at: datetime) -> None:
        """Put the clock to a time, from where it goes on.

        Args:
            at: The time, with its zone.
        """
        self.advance(at - self.now())

    def advance(self, by: timedelta) -> None:
        """Put the clock forward, or back. Other threads see the time before or after, and nothing between."""
        self.offset += by
        if self._traveller is not None:
            self._traveller.shift(by)
        elif by:
            self._travel = time_machine.travel(real_time() + by, tick=True)
            self._traveller = self._travel.start()

    def environment(self) -> dict[str, str]:
        """Return the variables by which a process gets the same time."""
        return {OFFSET: str(self.offset.total_seconds())} if self.offset else {}

    def stop(self) -> None:
        """Let time be the real time again."""
        if self._travel is not None:
            self._travel.stop()
        self._travel = self._traveller = None
        self.offset = timedelta()


def module(name: str, environ: Mapping[str, str]) -> list[str]:
    """Return the interpreter's arguments that run a module at the time that an environment gives."""
    # -P: nothing is imported from the folder of this file.
    return ["-P", __file__, name] if OFFSET in environ else ["-m", name]


def follow(environ: Mapping[str, str] = os.environ) -> None:
    """Put this process's clock to the time of its environment; called first in a function's process."""
    seconds = float(environ.get(OFFSET, "0"))
    if seconds:
        time_machine.travel(real_time() + timedelta(seconds=seconds), tick=True).start()


if __name__ == "__main__":
    follow()
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
