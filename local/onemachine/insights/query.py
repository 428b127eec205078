"""A Logs Insights query, from its text to its rows. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

from onemachine.insights.engine import Result, execute
from onemachine.insights.fields import Event
from onemachine.insights.names import check
from onemachine.insights.syntax import Command, read


@lru_cache(maxsize=64)
def compile_query(query: str) -> tuple[Command, ...]:
    """Read and check a query.

    Args:
        query: Its text.

    Returns:
        Its commands.

    Raises:
        MalformedQueryError: If the service refuses it, or it is not understood here; the error names which
            part.
    """
    commands = read(query)
    check(commands, query)
    return commands


def run(query: str, events: Iterable[Event], *, now_s: int = 0, limit: int | None = None) -> Result:
    """Run a query over log events.

    Args:
        query: Its text.
        events: The events of its log groups in its range of time, in the order of their ingestion.
        now_s: What `now()` gives, in seconds since 1970.
        limit: How many rows at most; default the query's own limit, or 10,000 if it has none.

    Returns:
        The rows, and what was looked at to find them.

    Raises:
        MalformedQueryError: If the query is refused.
        UnsupportedValueError: If a value turns up that a command does not take.
    """
    return execute(compile_query(query), events, now_s=now_s, limit=limit)
