"""Who writes lines: an id per execution environment, and a number for each of its lines."""

from __future__ import annotations

import os
import threading

from .annotations import Callable

MAX_TAGS = 1_000
_is_snapstart = os.environ.get("AWS_LAMBDA_INITIALIZATION_TYPE") == "snap-start"
# Under SnapStart, draw ids one by one: a snapshot may be restored many times.
_IDS_DRAWN = 1 if _is_snapstart else 64

# Generation of this process; sources created in an earlier generation renew themselves.
_generation = 0
# Guards ids and counters; reentrant, because a signal handler or finalizer may emit.
_lock = threading.RLock()
_after_copy: list[Callable[[], None]] = []


class Source:
    """An emitter's identity in this process. In a copy of the process it is another one."""

    def __init__(self) -> None:
        self._id = ""
        self._ids: list[str] = []
        self._numbers: dict[str, int] = {}
        self._generation = -1

    def next_number(self, tag: str) -> tuple[str, int]:
        """Return the source's id and the number of its next line with a tag, from 0.

        Each tag has its own numbers: a subscription filter lets one tag through, and the other lines would look
        like lost ones. After 1,000 tags the source takes a new id, so that the counters stay bounded.
        """
        with _lock:
            number = self._numbers.get(tag, 0)
            if self._generation != _generation or (number == 0 and len(self._numbers) >= MAX_TAGS):
                # First use, or a forked or restored copy of the process, or too many tags.
                self._id, self._ids, self._numbers, number = os.urandom(8).hex(), [], {}, 0
                self._generation = _generation
            self._numbers[tag] = number + 1
            return self._id, number

    def random_id(self) -> str:
        """Return a random id, and prefetch more: one urandom call for 64 is cheaper than 64 calls.

        Call `next_number` first: it drops what was prefetched before a fork.
        """
        try:
            return self._ids.pop()
        except IndexError:
            first, *more = os.urandom(16 * _IDS_DRAWN).hex(" ", 16).split()
            self._ids.extend(more)
            return first


def after_copy(reset: Callable[[], None]) -> None:
    """Have a function called in each copy of this process: a forked child, or a restored snapshot."""
    _after_copy.append(reset)


def _begin_generation() -> None:
    global _generation, _lock
    _generation, _lock = _generation + 1, threading.RLock()
    for reset in _after_copy:
        reset()


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=_begin_generation)
if _is_snapstart:
    # https://docs.aws.amazon.com/lambda/latest/dg/snapstart-runtime-hooks-python.html
    try:
        from snapshot_restore_py import register_after_restore  # type: ignore[import-untyped]

        register_after_restore(_begin_generation)
    except ImportError:
        pass  # a source then begins with its first line, which most functions write after the restore
