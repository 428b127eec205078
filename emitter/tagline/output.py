"""Lines go out whole: one write, then a flush, and no other emitter's line in between."""

from __future__ import annotations

import os
import stat
import sys
import threading

from .annotations import Any, Callable, Optional, Stream
from .source import after_copy

# Threads of one process take turns; reentrant, because a signal handler or finalizer may emit.
_lock = threading.RLock()
# The stream that was written to last, and its descriptor if other processes may write there as well.
_last: tuple[Any, Optional[int]] = (None, None)
# Set by `tagline.testing.capture`: take the lines instead of the stream.
captures: list[Callable[[str], None]] = []
is_strict = False  # and raise what emitters would swallow


def write_line(line: str, stream: Optional[Stream], *, is_shared: bool) -> None:
    """Write a line that ends in a newline, and flush: a buffered line is lost when the process is killed.

    Several worker processes may share a pipe, where one's write of more than 4,096 bytes (PIPE_BUF) can be cut by
    another one's. A lock on the pipe keeps them apart; the operating system releases it when its owner dies.

    Args:
        line: The text.
        stream: Where it goes; None for what `sys.stdout` is now.
        is_shared: Whether other processes may write there. In Lambda none does, and no lock is taken.
    """
    target: Any = stream or sys.stdout
    if captures:
        captures[-1](line)
    elif not is_shared:
        _write(line, target)
    else:
        with _lock:
            descriptor = _shared_descriptor(target)
            if descriptor is None:
                _write(line, target)
            else:
                _write_locked(line, target, descriptor)


def _write(line: str, target: Any) -> None:
    target.write(line)
    flush = getattr(target, "flush", None)
    if flush is not None:
        flush()


def _write_locked(line: str, target: Any, descriptor: int) -> None:
    from fcntl import LOCK_EX, LOCK_UN, lockf

    target.flush()  # what others have left in the buffer
    try:
        lockf(descriptor, LOCK_EX)
    except OSError:  # the system cannot lock it
        _write(line, target)
        return
    try:
        _write(line, target)
    finally:
        lockf(descriptor, LOCK_UN)


def _shared_descriptor(target: Any) -> Optional[int]:
    """Return the descriptor of a pipe, socket or file, if there are locks on this system."""
    global _last
    if _last[0] is not target:
        descriptor = None
        try:
            import fcntl  # noqa: F401 - not on Windows

            number = int(target.fileno())
            mode = os.fstat(number).st_mode
            if stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or stat.S_ISREG(mode):
                descriptor = number
        except Exception:
            descriptor = None  # a stream in memory
        _last = target, descriptor
    return _last[1]


def _renew_lock() -> None:
    global _lock
    _lock = threading.RLock()  # a thread that does not exist in the child may hold the other one


after_copy(_renew_lock)
