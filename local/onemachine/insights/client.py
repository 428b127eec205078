"""Asks CloudWatch Logs a query and waits for its rows: AWS's or this machine's, the client decides."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

_ENDED = frozenset({"Complete", "Failed", "Cancelled", "Timeout", "Unknown"})


class QueryFailedError(RuntimeError):
    """A query ended without its rows; the message tells how."""


@dataclass(frozen=True)
class Answer:
    """What a query found.

    Attributes:
        rows: The values by their fields' names, in the order in which the query shows them.
        matched: How many log events it matched.
        scanned: How many log events it looked at.
        bytes_scanned: Their size in bytes.
    """

    rows: tuple[dict[str, str], ...]
    matched: int
    scanned: int
    bytes_scanned: int

    def columns(self) -> tuple[str, ...]:
        """Return the names of the fields that any row has, in the order of their first appearance."""
        return tuple(dict.fromkeys(name for row in self.rows for name in row))


def ask(
    logs: Any,
    query: str,
    *,
    groups: Sequence[str],
    start_s: int,
    end_s: int,
    sleep: Callable[[float], None] = time.sleep,
) -> Answer:
    """Run a query and wait for its end.

    Args:
        logs: A boto3 client for CloudWatch Logs.
        query: The query's text.
        groups: The names of the log groups, at most 50.
        start_s: The first second to look at, since 1970.
        end_s: The last second to look at, since 1970.
        sleep: Waits so many seconds between two looks at the query.

    Returns:
        Its rows, all pages of them, without `@ptr`.

    Raises:
        QueryFailedError: If it failed, timed out or was stopped.
        botocore.exceptions.ClientError: If the service refuses the query, e.g. as malformed.
    """
    started = logs.start_query(
        logGroupNames=list(groups), startTime=start_s, endTime=end_s, queryString=query
    )
    page = logs.get_query_results(queryId=started["queryId"])
    pause_s = 0.1
    while page["status"] not in _ENDED:
        sleep(pause_s)
        pause_s = min(pause_s * 2, 2)
        page = logs.get_query_results(queryId=started["queryId"])
    if page["status"] != "Complete":
        raise QueryFailedError(f"the query ended as {page['status']}")
    statistics = page.get("statistics", {})
    rows = list(page["results"])
    while page.get("nextToken"):
        page = logs.get_query_results(queryId=started["queryId"], nextToken=page["nextToken"])
        rows += page["results"]
    return Answer(
        tuple({cell["field"]: cell["value"] for cell in row if cell["field"] != "@ptr"} for row in rows),
        *(int(statistics.get(name, 0)) for name in ("recordsMatched", "recordsScanned", "bytesScanned")),
    )
