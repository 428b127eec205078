"""The sizes behind `tagline cost`, and its plan beside what a pipeline here counted at three rates.

Lines are those of an API behind Lambda, as the emitter writes them. `planned_vs_counted` is the plan's number
over the pipeline's, the farthest from 1 of all hops and rates.
"""

from __future__ import annotations

import io
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta

import orjson
from onemachine.pipeline import Pipeline
from rich.console import Console
from rich.progress import Progress
from tagline import Record, write

from benchmarks import consume
from benchmarks.decode import requests_of_a_log
from benchmarks.lake import packed, plans
from cli.apps import tagline_with_samples
from cli.cost import lake
from cli.cost.flow import Flow, Setup, Sizes, StoreCost, flow_of
from cli.cost.lake import files_per_s, store_bytes_per_s
from cli.cost.measure import measured_sizes
from cli.lake import export_days
from cli.stages import delivered, exported, streamed
from cli.target import Target, target_of
from consumers.lines.subscription import encode
from consumers.rows.lake.content import content
from consumers.rows.lake.mapping import LakePacker
from consumers.rows.lake.parquet import pack
from exporter.store import Days

GROUP = "/aws/lambda/sample-SampleApi"
FEW, MANY, TOGETHER = 60, 2_000, 25


@dataclass(frozen=True, slots=True)
class Rate:
    """A rate to run at.

    Attributes:
        per_s: Lines a second.
        lines_per_record: How many of them are in a Kinesis record.
        seconds: How long.
    """

    per_s: int
    lines_per_record: int
    seconds: int


RATES = (Rate(1, 1, 60), Rate(10, 5, 60), Rate(50, 25, 60))
# Batches are closed by their size, so that a run does not depend on how fast this machine is.
SETUP = Setup(shards=1, batch_size=30, window_s=300)
DAYS_AGO = 3
"""The day of the first rate's lines; the others' are the days before it."""


def run() -> dict[str, float]:
    """Return the sizes, and how far the plan is from what was counted."""
    found, ratios = counted(lake.COST, RATES)
    worst = max((value for each in ratios for value in each.values()), key=lambda value: abs(value - 1))
    return {
        **fitted(),
        "metered_row_bytes": found.metered_row,
        "exported_row_bytes": found.exported_row,
        "planned_vs_counted": worst,
    }


def fitted() -> dict[str, float]:
    """Return a line's bytes, and those of a Kinesis record and of a file: for itself, and for each line."""
    lines = list(api_lines(MANY, datetime(2026, 11, 19, 12, tzinfo=UTC), 10))
    one, more = len(envelope(lines[:1])), len(envelope(lines[:TOGETHER]))
    packer = LakePacker(plans())
    rows = [packed(packer, orjson.loads(line), line) for line in lines]
    few, many = (len(pack(content(rows[:count]))) for count in (FEW, MANY))
    line_bytes, row_bytes = (more - one) / (TOGETHER - 1), (many - few) / (MANY - FEW)
    return {
        "line_bytes": sum(map(len, lines)) / len(lines),
        "envelope_bytes": one - line_bytes,
        "packed_line_bytes": line_bytes,
        "fragment_bytes": few - FEW * row_bytes,
        "fragment_row_bytes": row_bytes,
    }


def api_lines(count: int, first: datetime, per_s: float) -> Iterator[str]:
    """Yield lines of an API behind Lambda: what a web server logs, and what the invocation adds."""
    chance = random.Random(7)
    for number, fields in zip(range(count), requests_of_a_log(), strict=False):
        record = Record(
            consume.identity(number),
            int(first.timestamp() * 1_000 + number * 1_000 / per_s),
            fields
            | {
                "duration_ms": round(chance.expovariate(1 / 40), 3),
                "response_bytes": chance.randrange(200, 9_000),
                "request_id": str(consume.identity(chance.randrange(10**9))),
                "api_request_id": f"{chance.getrandbits(64):x}=",
                "function": "shop-api",
                "function_version": "$LATEST",
                "memory_mb": 512,
                "cold_start": chance.randrange(100) == 0,
                "stage": "prod",
            },
            type="api_request",
            src=consume.emitter(number),
            seq=number % 50,
        )
        yield write(record)


def envelope(lines: Sequence[str]) -> bytes:
    """Return a Kinesis record's data, as CloudWatch Logs makes it: an event's id begins with its time."""
    times = [
        int(datetime.fromisoformat(orjson.loads(line)["timestamp"]).timestamp() * 1_000) for line in lines
    ]
    return encode(
        {
            "messageType": "DATA_MESSAGE",
            "owner": "123456789012",
            "logGroup": GROUP,
            "logStream": "2026/11/19/[$LATEST]26b6a45d574f442ea5b4f7a1b1d3ba44",
            "subscriptionFilters": ["tagline"],
            "logEvents": [
                {"id": f"{(time << 144) + number:056d}", "timestamp": time, "message": line}
                for number, (time, line) in enumerate(zip(times, lines, strict=True))
            ],
        }
    )


def counted(store: StoreCost, rates: Sequence[Rate]) -> tuple[Sizes, list[dict[str, float]]]:
    """Run a pipeline at some rates, one after the other.

    Returns:
        The sizes that it measured, and for each rate, by hop, the plan's number over what was counted.
    """
    batches = {"BatchSize": str(SETUP.batch_size), "BatchWindowSeconds": str(int(SETUP.window_s))}
    stream = {"StreamMode": "PROVISIONED", "ShardCount": "1", **batches}
    apps = tagline_with_samples(store=store.name, parameters=stream)
    first = datetime.now(UTC).date() - timedelta(days=DAYS_AGO)
    ratios = []
    with Pipeline(apps, in_process=True) as pipeline, Progress(console=Console(file=io.StringIO())) as bars:
        target = target_of(pipeline)
        fill_batch(target)
        pipeline.settle()
        before = counts(target, first)
        for number, rate in enumerate(rates):
            day = first - timedelta(days=number)
            send(target, rate, day)
            pipeline.settle()
            list(export_days(target, Days(day, day), bars))
            after = counts(target, day)
            planned = expected(rate, flow_of(rate.per_s, sizes_of(rate), SETUP, store), store)
            ratios.append({name: planned[name] / (after[name] - before.get(name, 0)) for name in planned})
            before = {name: value for name, value in after.items() if not name.startswith("export")}
        sizes, _ = measured_sizes(target)
    return sizes, ratios


def sizes_of(rate: Rate) -> Sizes:
    """Return the sizes that the plan takes, with the lines of a Kinesis record at a rate."""
    return replace(Sizes(), lines_per_record=rate.lines_per_record)


def fill_batch(target: Target) -> None:
    """Fill up the batch that CloudWatch's control messages began when the log groups were subscribed."""
    data = list(streamed(target))
    for number in range(-len(data) % SETUP.batch_size):
        target.client("kinesis").put_record(
            StreamName=target.outputs["StreamName"], Data=data[0], PartitionKey=str(number)
        )


def send(target: Target, rate: Rate, day: date) -> None:
    """Write the lines of a rate into a log group, each Kinesis record's in one call."""
    logs, stream = target.client("logs"), f"{day}/[$LATEST]{rate.per_s}"
    logs.create_log_stream(logGroupName=GROUP, logStreamName=stream)
    first = datetime(day.year, day.month, day.day, 12, tzinfo=UTC)
    lines = list(api_lines(rate.per_s * rate.seconds, first, rate.per_s))
    for start in range(0, len(lines), rate.lines_per_record):
        events = [
            {"timestamp": int((first.timestamp() + number / rate.per_s) * 1_000), "message": lines[number]}
            for number in range(start, start + rate.lines_per_record)
        ]
        logs.put_log_events(logGroupName=GROUP, logStreamName=stream, logEvents=events)


def counts(target: Target, day: date) -> dict[str, float]:
    """Return what each hop has counted by now; of the export, a day's."""
    data = list(streamed(target))
    files = [each for each in target.bucket().listed("store/") if each.key.endswith(".parquet")]
    there = exported(target, Days(day, day))
    return {
        "lines": delivered(target).records,
        "stream_records": len(data),
        "stream_bytes": sum(map(len, data)),
        "batches": sum(1 for _ in target.bucket().keys("accounting/batches/")),
        "files": len(files),
        "file_bytes": sum(each.size for each in files),
        "exported_rows": there.records,
        "exported_bytes": there.bytes,
    }


def expected(rate: Rate, flow: Flow, store: StoreCost) -> dict[str, float]:
    """Return the plan's numbers for as long as a rate was run at."""
    plan = {
        "lines": flow.rate,
        "stream_records": flow.records_per_s,
        "stream_bytes": flow.stream_bytes_per_s,
        "batches": flow.batches_per_s,
        "exported_rows": flow.rate,
        "exported_bytes": flow.rate * flow.sizes.exported_row,
    }
    if store.name == "lake":
        plan |= {"files": files_per_s(flow), "file_bytes": store_bytes_per_s(flow)}
    return {name: value * rate.seconds for name, value in plan.items()}
