"""The demonstration: requests go in at one end, and their rows come out of a zip at the other."""

from __future__ import annotations

import csv
import io
import json
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from itertools import islice
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Column, Table

from cli import feed, stages
from cli.deployment import FOLDER, CommandError, Deployment
from cli.download import download
from cli.stages import Count
from exporter.query import TIME
from local.pipeline import Pipeline

# A stage that has not moved for so long has stopped, in seconds.
PATIENCE_S = 120.0
LOOK_EVERY_S = 0.1
SHOWN_ROWS = 5
# One request in so many is an order, which a function records with aws-embedded-metrics.
ORDER_EVERY = 20
SHOWN_COLUMNS = (TIME, "method", "route", "status", "client", "bytes")

# What a reason means for the one who reads the table.
MEANING = {
    "late": "older than the table keeps rows",
    "future": "later than the table takes rows",
    "invalid": "a value that the table cannot hold",
    "unparseable": "tagged, and no readable record",
    "undecodable": "no data of CloudWatch's",
}


@dataclass(frozen=True, slots=True)
class Stage:
    """A line of the table: what a stage has, and the seconds since the stage before had all of its own.

    Lines that say more of a stage have no seconds of their own.
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


def run(
    pipeline: Pipeline, deployment: Deployment, *, log: feed.AccessLog | None, requests: int, screen: Console
) -> tuple[list[Stage], dict[str, Any]]:
    """Follow records through every stage.

    Args:
        pipeline: What runs on this machine.
        deployment: Where it is.
        log: An access log to say again, or None for requests of our own.
        requests: How many requests of our own.
        screen: Where the progress is shown.

    Returns:
        The table's lines, and the result: a count per stage, seconds, and the zip's path.
    """
    watch = Stopwatch()
    with progress(screen) as bars:
        total = log.lines if log else requests
        bar = bars.add_task("requests", total=total)
        advance = advancing(bars, bar)
        orders = 0 if log else requests // ORDER_EVERY
        if log:
            feed.send_access_log(deployment, log, advance)
        else:
            feed.send_requests(deployment, requests - orders, advance)
        items = feed.place_orders(deployment, orders, advance)
        pipeline.functions.flush()
        emitted = stages.emitted(deployment)
        lines = [Stage("emitted: lines on stdout", emitted, watch.lap())]
        if orders:
            lines.append(
                Stage(f"  metrics: items in CloudWatch, of {items} ordered", counted_items(deployment))
            )

        delivered = stages.delivered(deployment)
        lines.append(Stage("delivered: in the Kinesis stream", delivered, watch.lap()))

        bar = bars.add_task("rows in Timestream", total=emitted.records)
        stored, reasons = follow(deployment, emitted.records, bars, bar)
        lines.append(Stage("stored: rows in Timestream", Count(stored, 0), watch.lap()))
        quarantined = stages.total(reasons.values())
        lines.append(Stage("quarantined: kept in S3, with the reason", quarantined, watch.lap()))
        for reason, count in sorted(reasons.items()):
            lines.append(Stage(f"  {reason}: {MEANING.get(reason, '')}".rstrip(": "), count))
        lost = emitted.records - stored - quarantined.records
        lines.append(Stage("lost: emitted, and in neither of the two", Count(lost, 0)))

        days = stages.days_stored(deployment)
        if days is None:
            raise CommandError(
                "no row has reached the table", "look at what stopped it: tagline up, then send one"
            )
        bar = bars.add_task("days in the lake", total=len(days))
        for day in days:
            deployment.invoke("DailyExporterName", {"day": day.isoformat()})
            bars.advance(bar)
        exported = stages.exported(deployment, days)
        lines.append(Stage("exported: csv.gz in S3, by day", exported, watch.lap()))

        FOLDER.mkdir(exist_ok=True)
        path = FOLDER / f"usage_{days.first}_{days.last}.zip"
        download(deployment, days, path, bars)
        downloaded = stages.downloaded(path)
        lines.append(Stage("downloaded: rows in the zip", downloaded, watch.lap()))
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
    }


def counted_items(deployment: Deployment) -> Count:
    """Return the sum of the metric that the orders' lines carry."""
    now = deployment.now()
    answer = deployment.client("cloudwatch").get_metric_statistics(
        Namespace="Shop",
        MetricName="items",
        Dimensions=[{"Name": "route", "Value": "/orders"}],
        StartTime=now - timedelta(hours=1),
        EndTime=now + timedelta(hours=1),
        Period=3600,
        Statistics=["Sum"],
    )
    return Count(int(sum(point["Sum"] for point in answer["Datapoints"])), 0)


def follow(
    deployment: Deployment, expected: int, bars: Progress, bar: TaskID
) -> tuple[int, dict[str, Count]]:
    """Watch rows arrive until all are there, or none has come for `PATIENCE_S`."""
    most = -1
    since = time.monotonic()
    while True:
        stored, quarantined = stages.stored(deployment), stages.quarantined(deployment)
        bars.update(bar, completed=stored)
        arrived = stored + stages.total(quarantined.values()).records
        if arrived > most:
            most, since = arrived, time.monotonic()
        if arrived >= expected or time.monotonic() - since > PATIENCE_S:
            return stored, quarantined
        time.sleep(LOOK_EVERY_S)


def progress(screen: Console) -> Progress:
    """Return a progress display with a bar, a count and the time for each task."""
    return Progress(
        TextColumn("{task.description:>20}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=screen,
    )


def advancing(bars: Progress, bar: TaskID) -> Callable[[int], None]:
    """Return what moves a bar on."""
    return lambda count: bars.advance(bar, count)


def show(lines: list[Stage], path: Path, console: Console) -> None:
    """Print the table of stages and the first rows of the zip's first file."""
    table = Table(
        Column("stage", overflow="fold"), title="From a line on stdout to a file", title_justify="left"
    )
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
        table = Table(title=f"The first rows of {name}", title_justify="left")
        for column in shown:
            table.add_column(column, no_wrap=True)
        for row in islice(rows, SHOWN_ROWS):
            # To the millisecond: the rest of a time tells records apart, and nobody reads it.
            table.add_row(*(row[column][:23] if column == TIME else row[column] for column in shown))
    console.print(table)


def verdict(result: dict[str, Any]) -> bool:
    """Tell whether nothing is lost and all that is stored was downloaded."""
    return bool(result["lost"] == 0 and result["downloaded"] == result["stored"])


def last_line(result: dict[str, Any]) -> str:
    """Return the result as one line of JSON."""
    return json.dumps(result)
