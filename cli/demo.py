"""The demonstration: requests go in at one end, and their rows come out of a zip at the other."""

from __future__ import annotations

import csv
import io
import time
import zipfile
from dataclasses import dataclass
from datetime import timedelta
from itertools import islice
from pathlib import Path
from typing import Any

from onemachine.pipeline import Pipeline
from rich.console import Console
from rich.progress import Progress

from cli import feed, stages
from cli.download import fetch_zip
from cli.errors import CommandError
from cli.report import write_report
from cli.screen import FoldingTable, advancing, print_rows, progress
from cli.stages import Count
from cli.target import FOLDER, Target
from exporter.store import TIME, Days

# A stage that has not moved for so long has stopped, in seconds.
PATIENCE_S = 120.0
_LOOK_EVERY_S = 0.1
SHOWN_ROWS = 5
# One request in so many is an order, which a function records with aws-embedded-metrics.
ORDER_EVERY = 20
SHOWN_COLUMNS = (TIME, "method", "route", "status", "client", "bytes")

# What a reason means.
MEANING = {
    "late": "older than the table keeps rows",
    "future": "later than the table takes rows",
    "invalid": "a value that the table cannot hold",
    "unparseable": "tagged, and no readable record",
    "undecodable": "no data of CloudWatch's",
}


@dataclass(frozen=True, slots=True)
class Stage:
    """A line of the table: what a stage has, and the seconds since the stage before was complete.

    Lines that detail a stage have no seconds. Nor has the emitter: these would not be its cost.
    """

    name: str
    count: Count
    seconds: float | None = None


class Stopwatch:
    """Seconds since the last look at it."""

    def __init__(self) -> None:
        self._since = self.began = time.monotonic()

    def lap(self) -> float:
        """Return the seconds since the last lap."""
        before, self._since = self._since, time.monotonic()
        return self._since - before


def follow(
    pipeline: Pipeline, target: Target, *, log: feed.AccessLog | None, requests: int, report: Path
) -> tuple[list[Stage], dict[str, Any]]:
    """Follow records through every stage.

    Args:
        pipeline: What runs on this machine.
        target: The same, as commands see it.
        log: An access log whose requests are sent, or None for generated ones.
        requests: How many generated requests.
        report: Where the usage page is written.

    Returns:
        The table's lines, and the result: a count per stage, seconds, and the paths of the zip and the page.
    """
    watch = Stopwatch()
    with progress() as bars:
        items = send_all(pipeline, target, log, requests, bars)
        lines = [Stage("requests: sent", Count(log.lines if log else requests, 0), watch.lap())]
        emitted = stages.emitted(target)
        lines.append(Stage("emitted: lines on stdout", emitted))  # while requests were sent
        if items:
            lines.append(Stage(f"  metrics: items in CloudWatch, of {items} ordered", counted_items(target)))
        delivered = stages.delivered(target)
        lines.append(Stage("delivered: in the Kinesis stream", delivered, watch.lap()))

        stored, reasons = wait_for_rows(target, emitted.records, bars)
        quarantined = stages.total(reasons.values())
        lost = emitted.records - stored - quarantined.records
        lines.append(Stage(f"stored: rows in {target.store().name}", Count(stored, 0), watch.lap()))
        lines.append(Stage("quarantined: kept in S3, with the reason", quarantined, watch.lap()))
        for reason, count in sorted(reasons.items()):
            lines.append(Stage(f"  {reason}: {MEANING.get(reason, '')}".rstrip(": "), count))
        lines.append(Stage("lost: emitted, and in neither of the two", Count(lost, 0)))

        days = export_stored(target, bars)
        exported = stages.exported(target, days)
        lines.append(Stage("exported: csv.gz in S3, by day", exported, watch.lap()))

        FOLDER.mkdir(exist_ok=True)
        path = FOLDER / f"usage_{days.first}_{days.last}.zip"
        fetch_zip(target, days, path, bars)
        downloaded = stages.downloaded(path)
        lines.append(Stage("downloaded: rows in the zip", downloaded, watch.lap()))
    title = log.name if log else "Pets API"
    write_report(target, days, report, title=title, lost=lost, quarantined=reasons)
    return lines, {
        "emitted": emitted.records,
        "delivered": delivered.records,
        "stored": stored,
        "quarantined": quarantined.records,
        "lost": lost,
        "exported": exported.records,
        "downloaded": downloaded.records,
        "seconds": round(time.monotonic() - watch.began, 2),
        "zip": str(path.resolve()),
        "report": str(report.resolve()),
    }


def send_all(
    pipeline: Pipeline, target: Target, log: feed.AccessLog | None, requests: int, bars: Progress
) -> int:
    """Send the requests, wait for their lines in the log groups, and return how many items were ordered."""
    bar = bars.add_task("requests", total=log.lines if log else requests)
    advance = advancing(bars, bar)
    items = 0
    if log:
        feed.send_access_log(target, log, advance)
    else:
        orders = requests // ORDER_EVERY
        feed.send_requests(target, requests - orders, advance)
        items = feed.place_orders(target, orders, advance)
    pipeline.functions.flush()
    return items


def counted_items(target: Target) -> Count:
    """Return the sum of the metric that the orders' lines carry."""
    now = target.now()
    answer = target.client("cloudwatch").get_metric_statistics(
        Namespace="Shop",
        MetricName="items",
        Dimensions=[{"Name": "route", "Value": "/orders"}],
        StartTime=now - timedelta(hours=1),
        EndTime=now + timedelta(hours=1),
        Period=3600,
        Statistics=["Sum"],
    )
    return Count(int(sum(point["Sum"] for point in answer["Datapoints"])), 0)


def export_stored(target: Target, bars: Progress) -> Days:
    """Export every day of which the store has a row, and return the days.

    Raises:
        CommandError: If the store has no row.
    """
    days = target.store().days()
    if days is None:
        raise CommandError(
            "no row has reached the table", "run tagline up and send a request, to see what stops it"
        )
    bar = bars.add_task("days in the lake", total=len(days))
    for day in days:
        target.invoke("DailyExporterName", {"day": day.isoformat()})
        bars.advance(bar)
    return days


def wait_for_rows(
    target: Target, expected: int, bars: Progress, patience_s: float = PATIENCE_S
) -> tuple[int, dict[str, Count]]:
    """Wait until all rows are there, or none has come for a while; count them and the quarantine.

    Args:
        target: The pipeline.
        expected: How many rows and lines in quarantine there will be.
        bars: Where the count is shown.
        patience_s: The while, in seconds.
    """
    store = target.store()
    bar = bars.add_task(f"rows in {store.name}", total=expected)
    most = -1
    since = time.monotonic()
    while True:
        stored, quarantined = store.count(), stages.quarantined(target)
        bars.update(bar, completed=stored)
        arrived = stored + stages.total(quarantined.values()).records
        if arrived > most:
            most, since = arrived, time.monotonic()
        if arrived >= expected or time.monotonic() - since > patience_s:
            return stored, quarantined
        time.sleep(_LOOK_EVERY_S)


def print_stages(lines: list[Stage], path: Path, console: Console) -> None:
    """Print the table of stages, the first rows of the zip's first file, and what to do next."""
    table = FoldingTable("stage", title="From a line on stdout to a file", title_justify="left")
    for name in ("records", "bytes", "seconds"):
        table.add_column(name, justify="right")
    for line in lines:
        size = f"{line.count.bytes:,}" if line.count.bytes else ""
        seconds = "" if line.seconds is None else f"{line.seconds:.2f}"
        table.add_row(line.name, f"{line.count.records:,}", size, seconds)
    console.print(table)
    with zipfile.ZipFile(path) as zipped:
        names = [name for name in zipped.namelist() if name.endswith(".csv")]
        if not names:
            return
        name = names[0]
        rows = csv.DictReader(io.TextIOWrapper(zipped.open(name), "utf-8"))
        shown = [column for column in SHOWN_COLUMNS if column in (rows.fieldnames or ())]
        console.print(f"The first rows of {name}", style="italic", highlight=False)
        # To the millisecond: the rest of a time tells records apart, and nobody reads it.
        first = [
            [row[column][:23] if column == TIME else row[column] for column in shown]
            for row in islice(rows, SHOWN_ROWS)
        ]
    print_rows(shown, first, console)
