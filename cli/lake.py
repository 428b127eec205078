"""What the commands about the lake do: export a range with progress, verify days, forget a client."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich.progress import Progress

from cli.target import Target
from exporter.store import Days


def export_days(target: Target, days: Days, bars: Progress) -> Iterator[dict[str, Any]]:
    """Export days one by one, resuming each until it is done, and yield the result of each invocation."""
    bar = bars.add_task("days", total=len(days))
    for day in days:
        event: dict[str, Any] | None = {"day": day.isoformat(), "wait": True}
        while event is not None:
            answer = target.invoke("DailyExporterName", event)
            yield from answer["days"]
            event = answer.get("continues")
        bars.advance(bar)


def do_task(
    target: Target, name: str, days: Days, bars: Progress, client: str = ""
) -> Iterator[dict[str, Any]]:
    """Have a task done on a range of days, and yield what the function answers each few seconds.

    Args:
        target: The pipeline.
        name: `verify`, `find` or `forget`; see `exporter.upkeep.tasks`.
        days: The range.
        bars: Where the progress is shown.
        client: Whose rows are found or forgotten.

    Raises:
        CommandError: If the function fails.
    """
    bar = bars.add_task("days", total=None)
    event: dict[str, Any] | None = {
        "task": name,
        "from": days.first.isoformat(),
        "to": days.last.isoformat(),
        "client": client,
        "wait": True,
    }
    while event is not None:
        answer = target.invoke("UpkeepName", event)
        bars.update(bar, total=answer["total"], completed=answer["done"])
        yield answer
        event = answer.get("continues")
