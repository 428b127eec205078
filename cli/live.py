"""What happens in a pipeline on this machine, line by line as it does."""

from __future__ import annotations

import contextlib
import json
import queue
import re
import sys
import threading
from collections import Counter
from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from onemachine.access_logs import Access
from onemachine.faults import Kind
from rich.text import Text
from tagline.record import Record

from cli.screen import Screen, printable
from consumers.lines.extract import Rejected, extract
from consumers.lines.subscription import LogEvent

FIRST_ERROR_STATUS, FIRST_FAILURE_STATUS = 400, 500
# Lines that the service writes around each invocation.
_PLATFORM = re.compile(
    r"INIT_START|(START|END|REPORT) RequestId:|XRAY TraceId:|\[WARNING\]\t.*LAMBDA_WARNING:"
)
_FAILED = re.compile(
    r"\[ERROR\]|Traceback \(most recent call last\)|RequestId: \S+ Error:|.*Task timed out after "
)
# Lines that wait to be printed, and how long the end waits for them in seconds.
MAX_WAITING, CLOSE_WITHIN_S = 10_000, 5.0
COUNTED = ("request", "failed request", "record", "rejected line", "error")
# Fields of a record that are shown, in this order.
_SHOWN = ("method", "route", "status", "duration_ms", "client")


class LiveView:
    """Prints requests, records, what functions write, tracebacks and faults; counts them.

    Of the pipeline's own functions only failures are printed. A thread prints, so that a terminal that stands
    still stops nothing else; what it cannot keep up with is left out.

    Args:
        tag: The token that marks a record.
        collected: The log groups whose lines the pipeline collects.
        prefix: What may be before a record: the parameter LinePrefix.
        screen: Where to print; by default the terminal, also while functions run in this process.
    """

    def __init__(
        self, tag: str, collected: Collection[str], prefix: str = "", screen: Screen | None = None
    ) -> None:
        self._tag, self._prefix = tag, prefix
        self._collected = frozenset(collected)
        self._screen = screen or Screen(file=sys.stdout)
        self._waiting: queue.Queue[Text | None] = queue.Queue(MAX_WAITING)
        self._printer = threading.Thread(target=self._print_waiting, name="live view", daemon=True)
        self._printer.start()
        self.counts: Counter[str] = Counter()

    def request(self, api: str, access: Access) -> None:
        """Print a request that an HTTP API answered."""
        self.counts["request"] += 1
        style = "green"
        if access.status >= FIRST_FAILURE_STATUS:
            style = "bold red"
            self.counts["failed request"] += 1
        elif access.status >= FIRST_ERROR_STATUS:
            style = "yellow"
        self._print(
            "request",
            f"{access.method} {access.path} ",
            Text.assemble((str(access.status), style), f" {access.latency_ms} ms {api}"),
        )

    def lines(self, log_group: str, texts: Sequence[str]) -> None:
        """Print what a function wrote: records in short, tracebacks whole."""
        name = log_group.rpartition("/")[2]
        for text in texts:
            if _PLATFORM.match(text) and not _FAILED.match(text):
                continue
            found = _object_of(text)
            if _FAILED.match(text) or (found and ("stackTrace" in found or found.get("level") == "ERROR")):
                self.counts["error"] += 1
                self._print("error", f"{name}: ", Text(_failure(text, found), "red"))
            elif log_group not in self._collected or (
                found and str(found.get("type", "")).startswith("platform.")
            ):
                continue
            else:
                self._line(name, text)

    def _line(self, name: str, text: str) -> None:
        # As the consumer reads it.
        found = extract(LogEvent("-", 0, text, "", "", ""), self._tag, self._prefix)
        if found is None:
            self._print("line", f"{name}: ", Text(printable(text.rstrip().expandtabs(4)), "dim"))
        elif isinstance(found, Rejected):
            self.counts["rejected line"] += 1
            self._print("rejected", f"{name}: ", Text(printable(f"{found.reason}: {found.detail}"), "red"))
        else:
            self.counts["record"] += 1
            self._print("record", f"{name}: ", Text(_record(found), "cyan"))

    def fault(self, kind: Kind, what: str) -> None:
        """Print a fault that was asked for."""
        self._print("fault", f"{kind} {what}".rstrip(), Text())

    def reloaded(self, path: Path) -> None:
        """Print that code changed and functions start again."""
        self._print("reload", f"{path} changed; functions start again with it", Text())

    def summary(self) -> str:
        """Return the counts as a sentence."""
        return ", ".join(f"{self.counts[name]:,} {name}{'s' * (self.counts[name] != 1)}" for name in COUNTED)

    def _print(self, kind: str, text: str, rest: Text) -> None:
        now = datetime.now(UTC)
        line = Text.assemble((f"{now:%H:%M:%S} ", "dim"), f"{kind:<9}", printable(text), rest)
        with contextlib.suppress(queue.Full):
            self._waiting.put_nowait(line)

    def close(self) -> None:
        """Print what waits, for at most `CLOSE_WITHIN_S`, and end."""
        with contextlib.suppress(queue.Full):
            self._waiting.put_nowait(None)
        self._printer.join(CLOSE_WITHIN_S)

    def _print_waiting(self) -> None:
        # Nobody looks any more at a terminal that is gone; rich ends the program then.
        with contextlib.suppress(OSError, SystemExit):
            while (line := self._waiting.get()) is not None:
                self._screen.print(line, soft_wrap=True, highlight=False)


def _object_of(text: str) -> dict[str, Any] | None:
    """Return the JSON object that a log event is, None for another text."""
    if not text.startswith("{"):
        return None
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _failure(text: str, found: dict[str, Any] | None) -> str:
    """Return an error as people read it: the message, and the stack below."""
    if found is None:
        # The runtime client writes its lines with returns and fixed spaces, so that they are one log event.
        return printable(text.replace("\r", "\n").replace("\xa0", " ").rstrip().expandtabs(4))
    message = found.get("errorMessage") or found.get("message") or text
    kind = f"{found['errorType']}: " if "errorType" in found else ""
    stack = found.get("stackTrace") or found.get("exception") or []
    lines = stack if isinstance(stack, list) else [str(stack)]
    return printable("\n".join([f"{kind}{message}", *(str(line).rstrip() for line in lines)]))


def _record(record: Record) -> str:
    shown = [f"{name}={record.fields[name]}" for name in _SHOWN if name in record.fields]
    return printable(" ".join([record.type, *shown]))


class CodeWatch:
    """Says when code changes.

    Args:
        folders: The folders of the code.
    """

    def __init__(self, folders: Collection[Path]) -> None:
        self._folders = folders
        self._times = self._look()

    def changed(self) -> Path | None:
        """Return a file that is new, changed or gone since the last look; None if all is as it was."""
        before, self._times = self._times, self._look()
        differing = before.items() ^ self._times.items()
        return min((path for path, _ in differing), default=None)

    def _look(self) -> dict[Path, int]:
        times = {}
        for folder in self._folders:
            for path in folder.rglob("*.py"):
                try:
                    times[path] = path.stat().st_mtime_ns
                except OSError:  # it is being replaced
                    continue
        return times
