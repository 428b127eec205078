"""The usage page of what a pipeline has stored, as a file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cli.stages import Count
from cli.target import Target
from exporter.store import Days
from exporter.usage.page import Pipeline, render
from exporter.usage.roll import roll_up_day
from exporter.usage.rollup import Completeness

TYPE = "api_request"
# The range that is shown first is the shortest that holds all days.
_RANGES = {1: "24h", 7: "7d", 30: "30d"}


def write_report(
    target: Target, days: Days, path: Path, *, title: str, lost: int, quarantined: Mapping[str, Count]
) -> None:
    """Write the usage page of some days.

    Args:
        target: The pipeline.
        days: The days, all of whose rows are stored.
        path: The file to write.
        title: The page's heading.
        lost: Lines that were emitted and never arrived.
        quarantined: Lines that were not stored, by reason.
    """
    now = target.now()
    last = datetime(days.last.year, days.last.month, days.last.day, tzinfo=UTC)
    through = min(now, last + timedelta(days=1))
    store = target.store()
    rollups = [rollup for day in days for rollup in roll_up_day(store, day, TYPE, through)]
    reasons = {reason: count.records for reason, count in quarantined.items()}
    rollups[-1] = replace(rollups[-1], completeness=Completeness(lost, sum(reasons.values())))
    chosen = next((name for length, name in _RANGES.items() if len(days) <= length), "90d")
    known = Pipeline(now, quarantined=reasons, exported_through=last, running=through == now)
    page = render(rollups, known, title=title, chosen=chosen)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, encoding="utf-8")
