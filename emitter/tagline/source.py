"""Who writes lines: an id per execution environment, and a number for each of its lines."""

from __future__ import annotations

import os
import threading

from .process import IS_SNAPSTART, after_copy

MAX_TAGS = 1_000
# Under SnapStart, draw ids one by one: a snapshot may be restored many times.
_IDS_DRAWN = 1 if IS_SNAPSTART else 64

# Generation of this process; sources of an earlier one renew themselves.
_generation = 0
# Guards ids and counters; reentrant, because a signal handler or a finalizer may emit.
_lock = threading.RLock()


def _begin_generation() -> None:
    global _generation, _lock
    _generation, _lock = _generation + 1, threading.RLock()


after_copy(_begin_generation)


class Source:
    """An emitter's identity in this process. A copy of the process is another source."""

    def __init__(self) -> None:
        self._id = ""
        self._ids: list[str] = []
        self._numbers: dict[str, int] = {}
        self._generation = -1

    def next_number(self, tag: str) -> tuple[str, int]:
        """Return the source's id and the number of its next line with a tag, from 0.

        Each tag has its own numbers: a subscription filter lets one tag through, and the other lines would
        look like lost ones. After 1,000 tags the source takes a new id, so that the counters stay bounded.
        """
        with _lock:
            number = self._numbers.get(tag)
            if self._generation != _generation or (number is None and len(self._numbers) >= MAX_TAGS):
                self._renew()
                number = None
            self._numbers[tag] = 1 if number is None else number + 1
            return self._id, number or 0

    def random_id(self) -> str:
        """Return a random id, and prefetch more: one urandom call for 64 is cheaper than 64 calls.

        Call `next_number` first: it drops what was prefetched in another process.
        """
        try:
            return self._ids.pop()
        except IndexError:
            drawn = os.urandom(16 * _IDS_DRAWN).hex(" ", 16).split()
            identity = drawn.pop()
            self._ids.extend(drawn)
            return identity

    def _renew(self) -> None:
        """Start a new source id: on first use, and in a forked or restored copy of the process."""
        self._id = os.urandom(8).hex()
        self._ids = []
        self._numbers = {}
        self._generation = _generation
