"""From what a function writes to the events of its log stream: lines, frames, levels."""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import select
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime

from onemachine.functions.definition import APPLICATION_LEVELS, Function, Ship

logger = logging.getLogger(__name__)
# A line from stdout becomes events of 256 KiB, and CloudWatch counts 26 more bytes for every event:
# https://docs.aws.amazon.com/AmazonCloudWatchLogs/latest/APIReference/API_PutLogEvents.html
EVENT_OVERHEAD_BYTES = 26
# The end of an invocation's log that Invoke returns with LogType Tail:
# https://docs.aws.amazon.com/lambda/latest/api/API_Invoke.html
TAIL_BYTES = 4 * 1024
MAX_LINE_BYTES = 256 * 1024 - EVENT_OVERHEAD_BYTES
SHIP_AFTER_S = 0.05
SHIP_LINES = 1_000
SHIP_BYTES = 900_000
SHIP_SPAN_MS = 24 * 3600 * 1000
PIPE_BYTES = 1024 * 1024
GATHER_S = 0.005
"""How long the reader of a pipe lets more lines come before it looks again: waking it for each costs more."""
# The runtime client frames what is logged, as against printed: four bytes of type, four of length, eight of
# time in microseconds, the message. The bytes are no UTF-8, so that no text looks like them.
# https://github.com/aws/aws-lambda-python-runtime-interface-client: FramedTelemetryLogSink
_MAGIC = b"\xa5\x5a\x00"
_HEAD_BYTES = 16
_LEVEL_OF_FRAME = {
    number + as_text: level
    for number, level in (
        (0x02, ""),
        (0x0A, "DEBUG"),
        (0x0E, "INFO"),
        (0x12, "WARN"),
        (0x16, "ERROR"),
        (0x1A, "FATAL"),
    )
    for as_text in (0, 1)
}
ERROR_FRAME = 0x17
# Ours, for the platform's lines.
_PLATFORM_FRAME = 0xF0
_PLATFORM_HEAD = _MAGIC + bytes([_PLATFORM_FRAME])
_LEVELS = {level: place for place, level in enumerate(APPLICATION_LEVELS)}
_LEVELS |= {"WARNING": _LEVELS["WARN"], "CRITICAL": _LEVELS["FATAL"]}
_TIME_KEYS = ("timestamp", "time", "@timestamp")


def least_level_of(function: Function) -> int:
    """Return the lowest level that is kept; only in JSON format are lines filtered at all."""
    return _LEVELS[function.application_level] if function.logs_json else 0


def _level_of_line(line: bytes) -> int | None:
    """Return the level of a printed line, None for one that has none because it is plain text.

    A JSON object without a level, or without a time by RFC 3339, counts as INFO. That plain text passes is
    our reading: AWS documents only what the filter does to objects.
    https://docs.aws.amazon.com/lambda/latest/dg/monitoring-cloudwatchlogs-log-level.html
    """
    if not line.startswith(b"{"):
        return None
    try:
        document = json.loads(line)
    except ValueError:
        return None
    when = next((document[key] for key in _TIME_KEYS if key in document), None)
    level = document.get("level")
    if not isinstance(level, str) or not isinstance(when, str) or not _is_rfc3339(when):
        return _LEVELS["INFO"]
    return _LEVELS.get(level.upper(), _LEVELS["INFO"])


def _is_rfc3339(text: str) -> bool:
    try:
        return datetime.fromisoformat(text).tzinfo is not None and text[10:11] in {"T", "t", " "}
    except ValueError:
        return False


class LogStream:
    """One log stream: what is written to its pipe is shipped line by line and in order.

    The platform's lines and what the function logs go through the same pipe as what it prints, in frames:
    that puts them in their place.
    """

    def __init__(self, group: str, ship: Ship, least_level: int = 0) -> None:
        self.group = group
        self.name = f"{datetime.now(UTC):%Y/%m/%d}/[$LATEST]{uuid.uuid4().hex}"
        self._ship = ship
        self._read_end, self.write_end = os.pipe()
        os.set_blocking(self._read_end, False)
        if hasattr(fcntl, "F_SETPIPE_SZ"):
            # With the usual 64 KiB a function that writes much would wait for us again and again.
            with contextlib.suppress(OSError):
                fcntl.fcntl(self.write_end, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        self._lines = _Lines(least_level)
        self._turn = threading.Lock()
        self._ended = False
        self._kept: list[str] | None = None
        self._thread = threading.Thread(target=self._pump, name=f"log {group}", daemon=True)
        self._thread.start()

    def write(self, messages: list[str]) -> None:
        """Write the platform's lines; a line that the function has left open ends before them."""
        for message in messages:
            if message:
                self.write_frame(_PLATFORM_FRAME, message)

    def write_frame(self, kind: int, message: str) -> None:
        """Write a message that may have several lines and stays one event."""
        body = message.encode()
        head = (
            _MAGIC
            + bytes([kind])
            + len(body).to_bytes(4, "big")
            + (time.time_ns() // 1000).to_bytes(8, "big")
        )
        os.write(self.write_end, head + body)

    @contextlib.contextmanager
    def tail(self, wanted: bool) -> Iterator[Callable[[], bytes]]:
        """Keep what is logged until the end of the block, if it is wanted, and give the end of it."""
        if wanted:
            self.flush()
            self._kept = []
        yield self._tail

    def _tail(self) -> bytes:
        self.flush()
        kept, self._kept = self._kept or [], None
        return "".join(f"{message}\n" for message in kept).encode()[-TAIL_BYTES:]

    def flush(self) -> None:
        """Ship every whole line that is in the pipe now."""
        with self._turn:
            if not self._ended:
                self._read()
                self._deliver(self._lines.take())

    def close(self) -> None:
        """Ship all that there is. The pipe goes when the last process that can write to it is gone."""
        os.write(self.write_end, b"\n")
        self.flush()
        os.close(self.write_end)

    def _pump(self) -> None:
        poller = select.poll()
        poller.register(self._read_end, select.POLLIN)
        while True:
            poller.poll(None if self._lines.empty else SHIP_AFTER_S * 1000)
            with self._turn:
                more = self._read()
                if not more or self._lines.due(time.monotonic()):
                    self._deliver(self._lines.take())
                if not more:
                    self._ended = True
                    os.close(self._read_end)
                    return
            time.sleep(GATHER_S)

    def _read(self) -> bool:
        """Take what is in the pipe, False at its end: one read of the pipe's size takes all that it holds."""
        try:
            chunk = os.read(self._read_end, PIPE_BYTES)
        except BlockingIOError:
            return True
        self._lines.add(chunk, time.time_ns() // 1_000_000, time.monotonic())
        return bool(chunk)

    def _deliver(self, batches: list[list[tuple[int, str]]]) -> None:
        for batch in batches:
            if self._kept is not None:
                self._kept += [message for _, message in batch]
            try:
                self._ship(self.group, self.name, batch)
            # What ships is the caller's: whatever it raises, the function's output must go on being read.
            except Exception:
                logger.exception("lost %d lines of %s", len(batch), self.group)


@dataclass
class _Lines:
    """Lines and framed messages that wait to be shipped.

    Attributes:
        _unread: A frame that has not come whole.
        _tail: A line that has no end yet.
    """

    _least_level: int = 0
    _unread: bytes = b""
    _tail: bytes = b""
    _waiting: list[tuple[int, str, int]] = field(default_factory=list)
    _bytes: int = 0
    _since: float = 0.0
    _last_ms: int = 0

    @property
    def empty(self) -> bool:
        return not self._waiting

    def add(self, chunk: bytes, now_ms: int, now: float) -> None:
        """Cut a piece of output into lines and messages; what follows the last newline waits for its own."""
        if not self._waiting:
            self._since = now
        data, self._unread = self._unread + chunk, b""
        start = _frame_start(data)
        while start >= 0:
            self._add_text(data[:start], now_ms)
            data = data[start:]
            size = _HEAD_BYTES + int.from_bytes(data[4:8], "big")
            # A process that was killed while it wrote leaves a frame that the platform's next one cuts short.
            torn = data.find(_PLATFORM_HEAD, 1, size)
            size = torn if torn >= 0 else size
            if torn < 0 and len(data) < max(size, _HEAD_BYTES):
                self._unread = data
                return
            self._add_frame(data[:size])
            data = data[size:]
            start = _frame_start(data)
        self._add_text(data, now_ms)

    def due(self, now: float) -> bool:
        """Say whether there is enough, or something has waited for long enough."""
        if not self._waiting:
            return False
        return (
            len(self._waiting) >= SHIP_LINES or self._bytes >= SHIP_BYTES or now - self._since >= SHIP_AFTER_S
        )

    def take(self) -> list[list[tuple[int, str]]]:
        """Take all, in batches that one PutLogEvents call accepts."""
        batches: list[list[tuple[int, str]]] = []
        room = 0
        for when, message, size in self._waiting:
            if (
                not batches
                or len(batches[-1]) == SHIP_LINES
                or size > room
                or when - batches[-1][0][0] > SHIP_SPAN_MS
            ):
                batches.append([])
                room = SHIP_BYTES
            batches[-1].append((when, message))
            room -= size
        self._waiting = []
        self._bytes = 0
        return batches

    def _add_text(self, text: bytes, now_ms: int) -> None:
        *lines, rest = (self._tail + text).split(b"\n")
        for line in lines:
            self._add_line(line, now_ms)
        while len(rest) > MAX_LINE_BYTES:
            cut = _character_boundary(rest, MAX_LINE_BYTES)
            self._add_event(rest[:cut], now_ms)
            rest = rest[cut:]
        self._tail = rest

    def _add_line(self, line: bytes, now_ms: int) -> None:
        if self._least_level:
            level = _level_of_line(line)
            if level is not None and level < self._least_level:
                return
        self._add_event(line, now_ms)

    def _add_frame(self, frame: bytes) -> None:
        kind, body = frame[3], frame[_HEAD_BYTES:].removesuffix(b"\n")
        when_ms = int.from_bytes(frame[8:16], "big") // 1000
        if kind == _PLATFORM_FRAME:
            self._add_text(b"\n", when_ms)
        elif _LEVELS.get(_LEVEL_OF_FRAME[kind], _LEVELS["INFO"]) < self._least_level:
            return
        self._add_event(body, when_ms)

    def _add_event(self, event: bytes, when_ms: int) -> None:
        # PutLogEvents requires times in order, and a clock can be set back.
        self._last_ms = max(self._last_ms, when_ms)
        while len(event) > MAX_LINE_BYTES:
            cut = _character_boundary(event, MAX_LINE_BYTES)
            self._add_event(event[:cut], when_ms)
            event = event[cut:]
        if not event:
            return  # CloudWatch takes no event without a character
        size = len(event) + EVENT_OVERHEAD_BYTES
        self._waiting.append((self._last_ms, event.decode("utf-8", "replace"), size))
        self._bytes += size


def _frame_start(data: bytes) -> int:
    """Return where a frame begins, or what may be the beginning of one at the end; -1 for nowhere."""
    found = data.find(_MAGIC)
    while found >= 0:
        kind = data[found + 3 : found + 4]
        if not kind or kind[0] in _LEVEL_OF_FRAME or kind[0] == _PLATFORM_FRAME:
            return found
        found = data.find(_MAGIC, found + 1)
    return next((len(data) - length for length in (2, 1) if data.endswith(_MAGIC[:length])), -1)


def _character_boundary(line: bytes, limit: int) -> int:
    """Return the last place at or before `limit` where no UTF-8 character is cut."""
    cut = limit
    while cut > limit - 3 and line[cut] & 0xC0 == 0x80:  # noqa: PLR2004 - the bits of a continuation byte
        cut -= 1
    return cut
