"""A program's output on its way into a log group, while the program runs."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, Queue
from uuid import uuid4

from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from onemachine import address

from cli.access_logs.files import MAX_LINE, DamagedFileError, read_output
from cli.access_logs.requests import Unreadable
from cli.errors import CommandError
from cli.stages import collected_groups
from cli.target import Target
from consumers.lines.extract import extract
from consumers.lines.subscription import LogEvent

# A call of PutLogEvents may have 10,000 events and 1 MB, counted with 26 bytes an event:
# https://docs.aws.amazon.com/AmazonCloudWatchLogs/latest/APIReference/API_PutLogEvents.html
BATCH, BATCH_BYTES, EVENT_BYTES = 1_000, 1_000_000, 26
# Seconds that a line waits for others.
BATCH_S = 0.1
# Lines that wait while a batch is sent; the program waits then, as it does for any pipe.
MAX_WAITING = 10_000
ATTEMPTS = 5


@dataclass(slots=True)
class Sent:
    """What was sent.

    Attributes:
        lines: How many lines.
        marked: How many of them carry the tag: records, and what cannot be read as one.
    """

    lines: int = 0
    marked: int = 0


def send_lines(
    target: Target, path: Path, stopped: threading.Event, report: Callable[[Unreadable], None]
) -> Sent:
    """Write a program's output to a log group whose lines are collected, as events of now, as it comes.

    Args:
        target: The pipeline.
        path: The output: a pipe or a file, packed or not; `-` is standard input.
        stopped: Ends it before the output does; what was read is sent.
        report: Is given each line that is not sent: it is too long for an event. Empty lines are not events.

    Raises:
        CommandError: If the output cannot be read, no log group is collected, or the pipeline is gone.
    """
    group = next(iter(collected_groups(target)), None)
    if group is None:
        raise CommandError("no log group is collected here", "start the pipeline with: tagline up")
    # Sent twice, a record is still one row.
    config = Config(retries={"mode": "standard", "total_max_attempts": ATTEMPTS})
    logs = address.client(str(target.endpoint), "logs", config)
    stream = f"feed/{uuid4().hex}"
    sent = Sent()
    try:
        logs.create_log_stream(logGroupName=group, logStreamName=stream)
        for batch in batches(path, stopped, report):
            now_ms = int(target.now().timestamp() * 1000)
            events = [{"timestamp": now_ms, "message": line} for line in batch]
            logs.put_log_events(logGroupName=group, logStreamName=stream, logEvents=events)
            sent.lines += len(batch)
            sent.marked += sum(_is_marked(line, target) for line in batch)
    except (BotoCoreError, ClientError, OSError) as error:
        raise CommandError(
            f"the pipeline is gone after {sent.lines:,} lines: {error}",
            "start tagline up again, and send the output again: a record that is sent twice is one row",
        ) from error
    return sent


def _is_marked(line: str, target: Target) -> bool:
    return extract(LogEvent("-", 0, line, "", "", ""), target.tag, target.prefix) is not None


_Arrival = str | Unreadable | CommandError | None
"""A line; one that is not sent; why nothing more can be read; the end."""


def _read(path: Path, arrivals: Queue[_Arrival], stopped: threading.Event) -> None:
    number = 0
    try:
        for number, line in enumerate(read_output(path), 1):
            if len(line) > MAX_LINE:
                arrivals.put(Unreadable(number, f"longer than {MAX_LINE:,} characters: not sent"))
            elif line.strip():
                arrivals.put(line)
            if stopped.is_set():
                break
    except DamagedFileError as error:
        arrivals.put(Unreadable(number + 1, str(error)))
    except CommandError as error:
        arrivals.put(error)
    arrivals.put(None)


def batches(
    path: Path, stopped: threading.Event, report: Callable[[Unreadable], None]
) -> Iterator[list[str]]:
    """Yield the lines of a program's output, full batches at once and each line within `BATCH_S`.

    A thread reads them. See `send_lines` for the arguments.

    Raises:
        CommandError: If the output cannot be read, or not on; after the lines that were.
    """
    arrivals: Queue[_Arrival] = Queue(MAX_WAITING)
    threading.Thread(target=_read, args=(path, arrivals, stopped), name="output", daemon=True).start()
    batch: list[str] = []
    size, due = 0, 0.0
    while True:
        try:
            arrival = arrivals.get(timeout=max(0.0, due - time.monotonic()) if batch else BATCH_S)
        except Empty:
            if not batch and stopped.is_set():
                return
            arrival = ""
        if isinstance(arrival, Unreadable):
            report(arrival)
            continue
        length = len(arrival.encode("utf-8", "replace")) + EVENT_BYTES if isinstance(arrival, str) else 0
        if batch and (
            not arrival
            or isinstance(arrival, CommandError)
            or len(batch) == BATCH
            or size + length > BATCH_BYTES
        ):
            yield batch
            batch, size = [], 0
        if arrival is None:
            return
        if isinstance(arrival, CommandError):
            raise arrival
        if arrival:
            due = due if batch else time.monotonic() + BATCH_S
            batch.append(arrival)
            size += length
