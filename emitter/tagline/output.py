"""Lines on their way out: numbered per source, within their limits, and whole: one write, one flush."""

from __future__ import annotations

import os
import stat
import sys
import threading
from itertools import count

from .annotations import Any, Callable, Iterator, Optional, Stream
from .values import encode, repr_of

MIN_LINE_BYTES = 1_000
# Lambda's lines were cut at 262,119 bytes: github.com/DataDog/datadog-serverless-functions/pull/462.
MAX_LINE_BYTES = 262_118
DEFAULT_MAX_LINE_BYTES = 200_000
# Docker hands on 16 KB at a time, and not every log driver joins them: github.com/moby/moby/issues/41794.
DEFAULT_OUTSIDE_LAMBDA = 16_000
MAX_NAME_BYTES = 200  # of a tag, a type and an id each; a row cannot hold a longer id
MAX_TAGS = 1_000
_is_snapstart = os.environ.get("AWS_LAMBDA_INITIALIZATION_TYPE") == "snap-start"
# Under SnapStart, draw ids one by one: a snapshot may be restored many times, and without the hook at the end
# of this file nothing discards the ids that it holds.
_IDS_DRAWN = 1 if _is_snapstart else 64

# Generation of this process; sources created in an earlier generation renew themselves.
_generation = 0
# Guard ids and counters, and the stream; reentrant, because a signal handler or finalizer may emit.
_numbering = threading.RLock()
_writing = threading.RLock()
_after_copy: list[Callable[[], None]] = []
# The stream that was written to last, its methods, and its descriptor if other processes may write there.
_last: tuple[Any, Any, Any, Optional[int]] = (None, None, None, None)
# Set by `tagline.testing.capture`: take the lines instead of the stream.
captures: list[Callable[[str], None]] = []
# Set by it as well: raise what emitters would swallow.
is_strict = False


class Source:
    """An emitter's identity in this process. In a copy of the process it is another one."""

    def __init__(self) -> None:
        self._ids: list[str] = []
        self._generation = -1
        # The source's id, and a counter for each tag. Replaced as a whole: a signal may come in between.
        self._state: tuple[str, dict[str, Iterator[int]]] = ("", {})

    def next_line(self, tag: str) -> tuple[str, int, str]:
        """Return the source's id, the number of its next line with a tag, from 0, and a random id.

        Each tag has its own numbers: a subscription filter lets one tag through, and the other lines would
        look like lost ones. After 1,000 tags the source takes a new id, so that the counters stay bounded.
        """
        with _numbering:
            identity, numbers = self._state
            if self._generation != _generation or (tag not in numbers and len(numbers) >= MAX_TAGS):
                # First use, or a forked or restored copy of the process, or too many tags.
                self._ids = []
                identity, numbers = self._state = os.urandom(8).hex(), {}
                self._generation = _generation
            # A signal handler that emits may come between any two steps.
            number = next(numbers[tag] if tag in numbers else numbers.setdefault(tag, count()))
            try:
                return identity, number, self._ids.pop()
            except IndexError:  # one urandom call for 64 ids is cheaper than 64 calls
                random_id, *self._ids = os.urandom(16 * _IDS_DRAWN).hex(" ", 16).split()
                return identity, number, random_id


def line_budget(chosen: Optional[int], *, is_in_lambda: bool) -> int:
    """Return the longest line in bytes: what was chosen, or `TAGLINE_MAX_LINE_BYTES`, or the default.

    Raises:
        ValueError: If what was chosen is not between 1,000 and 262,118.
    """
    if chosen is None:
        default = DEFAULT_MAX_LINE_BYTES if is_in_lambda else DEFAULT_OUTSIDE_LAMBDA
        setting = whole_number(os.environ.get("TAGLINE_MAX_LINE_BYTES"), default)
        return max(MIN_LINE_BYTES, min(setting, MAX_LINE_BYTES))
    if not MIN_LINE_BYTES <= chosen <= MAX_LINE_BYTES:
        raise ValueError(f"max_line_bytes is {chosen}; choose {MIN_LINE_BYTES} to {MAX_LINE_BYTES}")
    return chosen


def whole_number(text: Optional[str], default: int) -> int:
    """Return a setting's number, or the default if it is unset or cannot be read."""
    try:
        return int(text or default)
    except ValueError:
        return default


def short_name(value: object) -> str:
    """Return a tag, type or id, escaped for JSON; over-long values are cut and end in a digest."""
    text = value if isinstance(value, str) else repr_of(value, str)
    name = encode(text)[1:-1]
    if len(name) <= MAX_NAME_BYTES:
        return name
    from .budget import shorten_name

    return shorten_name(text, name, MAX_NAME_BYTES)


def line_level() -> str:
    """Return the level that lets a line through: with LogFormat JSON, Lambda drops lines below its own.

    https://docs.aws.amazon.com/lambda/latest/dg/monitoring-cloudwatchlogs-log-level.html
    """
    level = os.environ.get("AWS_LAMBDA_LOG_LEVEL", "").upper()
    return level if level in ("WARN", "ERROR", "FATAL") else "INFO"


def after_copy(reset: Callable[[], None]) -> None:
    """Have a function called in each copy of this process: a forked child, or a restored snapshot."""
    _after_copy.append(reset)


def _begin_generation() -> None:
    global _generation, _numbering, _writing
    _generation, _numbering, _writing = _generation + 1, threading.RLock(), threading.RLock()
    for reset in _after_copy:
        reset()


def write_line(line: str, stream: Optional[Stream], is_shared: bool) -> None:
    """Write a line that ends in a newline, and flush: a buffered line is lost when the process is killed.

    Several worker processes may share a pipe, where one's write of more than 4,096 bytes (PIPE_BUF) can be
    cut by another one's. A lock on the pipe keeps them apart; the system releases it when its owner dies.

    Args:
        line: The text.
        stream: Where it goes; None for what `sys.stdout` is now.
        is_shared: Whether other processes may write there. In Lambda none does, and no lock is taken.
    """
    if captures:
        captures[-1](line)
        return
    global _last
    target = stream or sys.stdout
    with _writing:
        if _last[0] is not target:
            _last = _look_at(target, is_shared)
        _, write, flush, descriptor = _last
        if descriptor is not None:
            _write_locked(line, write, flush, descriptor)
        else:
            write(line)
            flush()


def _write_locked(line: str, write: Any, flush: Any, descriptor: int) -> None:
    from fcntl import LOCK_EX, LOCK_UN, lockf

    flush()  # what others have left in the buffer
    is_locked = True
    try:
        lockf(descriptor, LOCK_EX)
    except OSError:
        is_locked = False  # the system cannot lock it
    try:
        write(line)
        flush()
    finally:
        if is_locked:
            lockf(descriptor, LOCK_UN)


def _look_at(target: Any, is_shared: bool) -> tuple[Any, Any, Any, Optional[int]]:
    """Return a stream, its methods, and the descriptor of a pipe, socket or file that has to be locked."""
    flush = getattr(target, "flush", lambda: None)
    if not is_shared:
        return target, target.write, flush, None
    try:
        import fcntl  # noqa: F401 - not on Windows

        descriptor = int(target.fileno())
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or stat.S_ISREG(mode):
            return target, target.write, flush, descriptor
    except Exception:  # noqa: S110 - a stream in memory
        pass
    return target, target.write, flush, None


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    # Let other threads finish their writes. In the middle of one, the child's copy of the stream would have a
    # line in its buffer, or its own lock held for ever. Lambdas, because `_begin_generation` replaces ours.
    os.register_at_fork(before=lambda: _writing.acquire())  # noqa: PLW0108
    os.register_at_fork(after_in_parent=lambda: _writing.release())  # noqa: PLW0108
    os.register_at_fork(after_in_child=_begin_generation)
if _is_snapstart:
    # https://docs.aws.amazon.com/lambda/latest/dg/snapstart-runtime-hooks-python.html
    try:
        from snapshot_restore_py import register_after_restore  # type: ignore[import-untyped]

        register_after_restore(_begin_generation)
    except ImportError:
        pass  # a source then begins with its first line, which most functions write after the restore
