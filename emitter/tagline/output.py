"""Lines go out whole: one write, then a flush, and no other emitter's line in between."""

from __future__ import annotations

import sys
import threading

from .annotations import Any, Callable, Optional, Stream
from .process import after_copy

try:
    from fcntl import LOCK_EX, LOCK_UN, lockf
except ImportError:  # Windows
    lockf = None  # type: ignore[assignment]

# Threads of one process take turns; reentrant, because a signal handler or a finalizer may emit.
_lock = threading.RLock()
# `tagline.testing.capture` puts a function here that takes the lines instead of stdout.
captures: list[Callable[[str], None]] = []


class Errors:
    """The exceptions that cost records, which no caller of an emitter sees.

    Args:
        on_error: Called with each of them.
    """

    is_strict = False  # in tests: raise them

    def __init__(self, on_error: Optional[Callable[[BaseException], object]]) -> None:
        self.count = 0
        self._on_error = on_error

    def report(self, error: BaseException) -> None:
        """Count an exception and call the hook."""
        self.count += 1
        if Errors.is_strict:
            raise error
        try:
            if self._on_error is not None:
                self._on_error(error)
        except Exception:
            return  # the hook failed as well


def _renew_lock() -> None:
    global _lock
    _lock = threading.RLock()  # a thread that does not exist in the child may hold the other one


after_copy(_renew_lock)


def write_line(line: str, stream: Optional[Stream], *, is_shared: bool) -> None:
    """Write a line and its newline, and flush: a buffered line is lost when the process is killed.

    Several worker processes may share one pipe, where a write of more than 4,096 bytes (PIPE_BUF) can be cut by
    another one's. A lock on the pipe keeps them apart; the operating system releases it when its owner dies.

    Args:
        line: The text.
        stream: Where it goes; None for what `sys.stdout` is now.
        is_shared: Whether other processes may write there. In Lambda none does, and no lock is taken.
    """
    if captures:
        captures[-1](line)
        return
    target: Any = stream or sys.stdout
    if not is_shared or lockf is None:
        _write(target, line)
        return
    with _lock:
        descriptor = _descriptor(target)
        if descriptor is None:
            _write(target, line)
            return
        target.flush()  # what others have left in the buffer does not belong to our write
        try:
            lockf(descriptor, LOCK_EX)
        except OSError:  # the system has no such locks for it
            _write(target, line)
            return
        try:
            _write(target, line)
        finally:
            lockf(descriptor, LOCK_UN)


def _write(target: Any, line: str) -> None:
    target.write(line + "\n")
    flush = getattr(target, "flush", None)
    if flush is not None:
        flush()


def _descriptor(target: Any) -> Optional[int]:
    try:
        return int(target.fileno())
    except Exception:  # a StringIO, a capturing test, a stream without one
        return None
