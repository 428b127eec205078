"""What a pipeline's functions write to their log groups, followed as it comes."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import ClientError

from cli.errors import CommandError
from cli.target import Target

# CloudWatch Logs takes events a little out of their order: each look begins so far before the last event.
OVERLAP_MS = 30_000
# FilterLogEvents takes 5 requests a second of an account in most regions.
LOOK_EVERY_S = 2.0


@dataclass(frozen=True, slots=True)
class LogLine:
    """A line.

    Attributes:
        time_ms: When it was written, in milliseconds since 1970.
        group: The log group.
        stream: The log stream: the execution environment that wrote it.
        message: The line.
    """

    time_ms: int
    group: str
    stream: str
    message: str

    def to_json(self, when: str) -> dict[str, Any]:
        """Return the line for a program; a message that is JSON is an object."""
        try:
            message = json.loads(self.message)
        except ValueError:
            message = self.message
        return {"time": when, "log_group": self.group, "log_stream": self.stream, "message": message}


def own_groups(target: Target, functions: Sequence[str]) -> list[str]:
    """Return the log groups of a pipeline's functions.

    Args:
        target: The pipeline.
        functions: Only of these, by their logical ids; a log group may be given by its name. Empty for all.

    Raises:
        CommandError: If the log group does not exist.
    """
    prefix = target.outputs["DownloadAuditLogGroup"].rpartition("/")[0] + "/"
    logs = target.client("logs")
    if not functions:
        pages = logs.get_paginator("describe_log_groups").paginate(logGroupNamePrefix=prefix)
        return [group["logGroupName"] for page in pages for group in page["logGroups"]]
    named = [name if name.startswith("/") else prefix + name for name in functions]
    for name in named:
        found = logs.describe_log_groups(logGroupNamePrefix=name)["logGroups"]
        if name not in {group["logGroupName"] for group in found}:
            raise CommandError(
                f"the log group {name} does not exist", "give a function's logical id, such as RowConsumer"
            )
    return named


class Tail:
    """Looks for new lines in log groups.

    Args:
        target: The pipeline.
        groups: The log groups.
        pattern: A filter pattern; empty for every line.
        since_ms: The first time, in milliseconds since 1970.
    """

    def __init__(self, target: Target, groups: Sequence[str], pattern: str, since_ms: int) -> None:
        self._logs = target.client("logs")
        self._pattern = pattern
        self._first_ms = since_ms
        self._newest = dict.fromkeys(groups, since_ms)
        self._seen: dict[str, int] = {}

    def look(self) -> list[LogLine]:
        """Return the lines that have come since the last look, in the order of their times.

        Raises:
            CommandError: If CloudWatch Logs refuses the question.
        """
        found = [line for group in self._newest for line in self._look(group)]
        oldest = min(self._newest.values(), default=0) - OVERLAP_MS
        self._seen = {event: at for event, at in self._seen.items() if at >= oldest}
        return sorted(found, key=lambda line: line.time_ms)

    def _look(self, group: str) -> Iterator[LogLine]:
        begin = max(self._first_ms, self._newest[group] - OVERLAP_MS)
        asked = {"filterPattern": self._pattern} if self._pattern else {}
        pages = self._logs.get_paginator("filter_log_events").paginate(
            logGroupName=group, startTime=begin, **asked
        )
        try:
            for event in (event for page in pages for event in page["events"]):
                if event["eventId"] in self._seen:
                    continue
                self._seen[event["eventId"]] = event["timestamp"]
                self._newest[group] = max(self._newest[group], event["timestamp"])
                stream = event.get("logStreamName", "")
                yield LogLine(event["timestamp"], group, stream, event["message"].rstrip("\n"))
        except ClientError as error:
            raise CommandError(
                f"{group}: {error.response['Error']['Message']}", "docs/reference/filter-patterns.md"
            ) from error


def rest() -> None:
    """Wait until the next look."""
    time.sleep(LOOK_EVERY_S)


def follow_lines(tail: Tail, show: Callable[[LogLine], None], wait: Callable[[], None]) -> None:
    """Show lines as they come, until Ctrl-C.

    Args:
        tail: Where to look.
        show: Is given each line.
        wait: Waits until the next look.
    """
    try:
        while True:
            for line in tail.look():
                show(line)
            wait()
    except KeyboardInterrupt:
        return
