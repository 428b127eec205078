"""The curves of docs/how-to/tune-the-consumer.md: measured here, drawn, and written over the pictures there.

Runs only when it is named, and takes minutes; `python -m benchmarks.curves NAME` draws some of them, by the
names of `DRAWN`. It needs matplotlib, and Linux.
"""

from __future__ import annotations

import base64
import gzip
import importlib
import json
import random
import statistics
import sys
import threading
import time
from collections.abc import Callable
from itertools import count, pairwise
from pathlib import Path
from typing import Any

from onemachine import kinesis
from onemachine.batches import KinesisSettings
from onemachine.event_sources import KinesisMapping
from onemachine.functions import Result

from benchmarks import consume, decode
from benchmarks._lambda import Consumer
from consumers import sending
from consumers.lines import subscription

PICTURES = Path(__file__).parents[1] / "docs" / "how-to" / "pictures"
LINES = (1, 3, 10, 30, 100, 300, 1_000, 3_000, 10_000)
PER_SECOND = (1, 10, 100, 1_000)
WINDOWS_S = (0, 1, 2, 5, 10, 20, 30, 60)
THREADS = (1, 2, 4, 8, 16, 32)
ROUNDS = 5

STORE_MS = 30
EVENT_MB = (0.5, 1, 2, 3, 4, 5, 5.9)
MEMORY_MB = (256, 512, 768, 1_024, 1_536, 1_769, 2_048, 3_008)
BATCHES = (100, 1_000, 10_000)
# https://aws.amazon.com/lambda/pricing/: us-east-1, arm64, US dollars.
PER_GB_SECOND, PER_REQUEST = 0.0000133334, 0.0000002

FACTORS = (1, 2, 4, 10)
# So many environments must not wait for this machine's processors: each has what little memory brings.
FACTORS_MB = 192
FACTORS_ROUNDS = 3
BACKLOG = 20_000
KINESIS_RECORDS_A_BATCH = 10

Curves = dict[str, list[tuple[float, float]]]


def run(names: tuple[str, ...] = ()) -> dict[str, float]:
    """Measure, draw, and return what was measured.

    Args:
        names: Of `DRAWN`; all if there are none.
    """
    numbers: dict[str, float] = {}
    for name in names or DRAWN:
        numbers |= DRAWN[name]()
    return numbers


def batches() -> dict[str, float]:
    """Draw what a record costs by the size of its batch, and by the batching window."""
    with consume.servers() as ports, consume.environment():
        cost = by_batch_size(ports[0])
    draw("batch-size", {"": cost}, "records in a batch", "CPU per record, µs", x_scale="log", y_scale="log")
    draw("window", by_window(cost), "batching window, s", "CPU per record, µs", y_scale="log")
    return {f"cpu_us_of_{records:g}_records": cpu_us for records, cpu_us in cost}


def threads() -> dict[str, float]:
    """Draw rows per second by the requests at the same time."""
    with consume.servers() as ports, consume.environment():
        speed = by_threads(ports)
    draw("threads", speed, "requests at the same time", "rows per second")
    return flat("rows_per_s", speed)


def parallelization() -> dict[str, float]:
    """Draw records per second, and the age of the last, by the batches of a shard at the same time."""
    rates: Curves = {}
    ages: Curves = {}
    with consume.servers() as ports:
        for threads in (1, sending.THREADS):
            seconds = by_factor(ports[STORE_MS], threads)
            name = "one request at a time" if threads == 1 else f"{threads} requests at the same time"
            rates[name] = [(factor, BACKLOG / median) for factor, median in seconds]
            ages[name] = seconds
    x = "batches of one shard at the same time"
    draw("parallelization", rates, x, "records per second")
    draw("parallelization-age", ages, x, f"age of the last of {BACKLOG:,} records, s")
    return flat("records_per_s", rates) | flat("age_s", ages)


def memory() -> dict[str, float]:
    """Draw how much memory a function uses, by the size of its event."""
    used = by_event()
    draw("memory", used, "event, MB", "memory used, MB")
    return flat("used_mb", used)


def memory_size() -> dict[str, float]:
    """Draw what a batch takes, and a million records cost, by the memory that a function has."""
    with consume.servers() as ports, Consumer(ports[STORE_MS]) as consumer:
        ms = by_memory(consumer)
    names = {records: f"{records:,} records in a batch" for records in BATCHES}
    times: Curves = {names[records]: points for records, points in ms.items()}
    costs: Curves = {
        names[records]: [(mb, dollars_per_million(mb, took, records)) for mb, took in points]
        for records, points in ms.items()
    }
    draw("memory-time", times, "memory of the function, MB", "duration of a batch, ms", y_scale="log")
    draw("memory-cost", costs, "memory of the function, MB", "US dollars per million records", y_scale="log")
    return flat("ms", times) | flat("dollars", costs)


DRAWN: dict[str, Callable[[], dict[str, float]]] = {
    "batches": batches,
    "threads": threads,
    "parallelization": parallelization,
    "memory": memory,
    "memory-size": memory_size,
}


def flat(what: str, curves: Curves) -> dict[str, float]:
    """Return all points of some curves, by a name for each."""
    return {f"{what} {name} {x:g}": y for name, points in curves.items() for x, y in points}


def by_batch_size(port: int) -> list[tuple[float, float]]:
    """Return the CPU per record of a whole invocation, by how many records it has."""
    consumer = consume.ours(port)
    points = []
    for records in LINES:
        event = consume.kinesis_event(10, records)
        times = max(1, 1_000 // records)

        def again(event: dict[str, Any] = event, times: int = times) -> None:
            for _ in range(times):
                consumer(event)

        cpus, _ = consume.rounds({"": again}, ROUNDS, records * times)
        points.append((float(records), statistics.median(cpus[""])))
    return points


def by_window(cost: list[tuple[float, float]]) -> Curves:
    """Return what a record costs by the batching window, at some rates: a batch has what comes in it."""
    return {
        f"{rate:,} record{'s' * (rate > 1)} a second": [
            (float(seconds), _between(cost, max(1.0, rate * seconds))) for seconds in WINDOWS_S
        ]
        for rate in PER_SECOND
    }


def _between(points: list[tuple[float, float]], x: float) -> float:
    """Return a curve's value between the points where it was measured, and its last beyond."""
    for (x0, y0), (x1, y1) in pairwise(points):
        if x0 <= x <= x1:
            return y0 + (y1 - y0) * (x - x0) / (x1 - x0)
    return points[-1][1]


def by_threads(ports: dict[int, int]) -> Curves:
    """Return rows per second by requests at the same time, at two latencies of the store."""
    rows = consume.some_rows(3_200)
    curves: Curves = {}
    for milliseconds in consume.LATENCIES_MS[1:]:
        turns = {str(threads): consume.threaded(ports[milliseconds], threads, rows) for threads in THREADS}
        _, walls = consume.rounds(turns, ROUNDS, len(rows))
        curves[f"{milliseconds} ms a request"] = [
            (float(threads), 1e6 / statistics.median(walls[str(threads)])) for threads in THREADS
        ]
    return curves


def by_factor(port: int, threads: int) -> list[tuple[float, float]]:
    """Return the seconds until a shard's backlog is stored, by the batches of it at the same time."""
    moto: Any = importlib.import_module("moto")
    data = [
        base64.b64decode(record["kinesis"]["data"])
        for record in consume.kinesis_event(100, BACKLOG)["Records"]
    ]
    times: dict[int, list[float]] = {factor: [] for factor in FACTORS}
    kinesis.install()
    with moto.mock_aws(), Consumer(port, max(FACTORS), threads) as consumer:
        client = importlib.import_module("boto3").client("kinesis", "us-east-1")
        streams = map("backlog-{}".format, count())
        for _ in range(FACTORS_ROUNDS):
            for factor in random.sample(FACTORS, len(FACTORS)):
                arn = filled_stream(client, next(streams), data)
                with consumer.held(FACTORS_MB):
                    times[factor].append(seconds_to_the_end(consumer, client, arn, factor, len(data)))
    return [(float(factor), statistics.median(seconds)) for factor, seconds in times.items()]


def filled_stream(client: Any, name: str, data: list[bytes]) -> str:
    """Return the ARN of a stream of one shard with so many Kinesis records."""
    client.create_stream(StreamName=name, ShardCount=1)
    for start in range(0, len(data), 100):
        client.put_records(
            StreamName=name,
            Records=[
                {"Data": each, "PartitionKey": f"{start + place}"}
                for place, each in enumerate(data[start : start + 100])
            ],
        )
    arn: str = client.describe_stream_summary(StreamName=name)["StreamDescriptionSummary"]["StreamARN"]
    return arn


def seconds_to_the_end(consumer: Consumer, client: Any, arn: str, factor: int, records: int) -> float:
    """Return how long an event source mapping takes for all of a stream's records."""
    done = threading.Semaphore(0)

    def invoke(_: str, payload: bytes) -> Result:
        consumer.invoke(payload)
        done.release(len(json.loads(payload)["Records"]))
        return Result(b"", None, "")

    settings = KinesisSettings(
        function=Consumer.name,
        stream_arn=arn,
        batch_size=KINESIS_RECORDS_A_BATCH,
        parallelization_factor=factor,
    )
    mapping = KinesisMapping(settings, client, lambda *_: None, invoke)
    began = time.perf_counter()
    mapping.start()
    for _ in range(records):
        done.acquire()
    took = time.perf_counter() - began
    mapping.stop()
    return took


def by_event() -> Curves:
    """Return how much memory a function has used after one event, by its megabytes."""
    curves: Curves = {}
    events: dict[str, Callable[[int], dict[str, Any]]] = {
        "lines of a web server": lambda records: decode.kinesis_event(records, 100),
        "lines much like each other": lambda records: consume.kinesis_event(100, 50 * records),
        "the same, each record rejected": rejected_event,
    }
    with consume.servers() as ports:
        for name, event in events.items():
            each = len(json.dumps(event(20))) / 20
            points = []
            for mb in EVENT_MB:
                payload = json.dumps(event(int(mb * 2**20 / each))).encode()
                with Consumer(ports[0]) as consumer:
                    points.append((len(payload) / 2**20, consumer.invoke(payload).memory_mb))
            curves[name] = points
    return curves


def rejected_event(records: int) -> dict[str, Any]:
    """Return an event whose tagged lines are cut off, so that all of them go to quarantine."""
    event = consume.kinesis_event(100, 50 * records)
    for record in event["Records"]:
        envelope = json.loads(gzip.decompress(base64.b64decode(record["kinesis"]["data"])))
        for log_event in envelope["logEvents"]:
            log_event["message"] = log_event["message"][:-1]
        record["kinesis"]["data"] = base64.b64encode(subscription.encode(envelope)).decode()
    return event


def by_memory(consumer: Consumer) -> dict[int, list[tuple[float, float]]]:
    """Return how long a batch of each size takes, by the memory whose share of a processor there is."""
    payloads = {records: json.dumps(consume.kinesis_event(100, records)).encode() for records in BATCHES}
    times: dict[tuple[int, int], list[float]] = {}
    for _ in range(ROUNDS):
        for mb in random.sample(MEMORY_MB, len(MEMORY_MB)):
            with consumer.held(mb):
                for records, payload in payloads.items():
                    times.setdefault((records, mb), []).append(consumer.invoke(payload).ms)
    return {
        records: [(float(mb), statistics.median(times[records, mb])) for mb in MEMORY_MB]
        for records in BATCHES
    }


def dollars_per_million(memory_mb: float, ms: float, records: int) -> float:
    """Return what Lambda costs for a million records, in batches that take so long."""
    invocations = 1_000_000 / records
    return invocations * (memory_mb / 1024 * ms / 1000 * PER_GB_SECOND + PER_REQUEST)


def draw(
    name: str,
    curves: Curves,
    x: str,
    y: str,
    *,
    x_scale: str = "linear",
    y_scale: str = "linear",
    folder: Path = PICTURES,
) -> None:
    """Write curves as a picture whose text is text.

    Args:
        name: The file's name, without its suffix.
        curves: The points of each curve, by its label.
        x: What the horizontal axis shows, with its unit.
        y: What the vertical axis shows, with its unit.
        x_scale: linear or log.
        y_scale: linear or log.
        folder: Where the file is written.
    """
    matplotlib: Any = importlib.import_module("matplotlib")
    matplotlib.use("svg")
    matplotlib.rcParams |= {"svg.fonttype": "none", "svg.hashsalt": "tagline", "font.size": 11}
    pyplot = importlib.import_module("matplotlib.pyplot")
    ticker = importlib.import_module("matplotlib.ticker")
    figure, axes = pyplot.subplots(figsize=(6.4, 3.6), layout="constrained")
    # One that lies on another is seen through its gaps.
    for (label, points), line, marker in zip(curves.items(), ("-", "--", "-.", ":"), "osD^", strict=False):
        axes.plot(*zip(*points, strict=True), marker=marker, linestyle=line, label=label, markersize=5)
    axes.set(xlabel=x, ylabel=y, xscale=x_scale, yscale=y_scale)
    if y_scale == "linear":
        axes.set_ylim(bottom=0)
    for axis, scale in ((axes.xaxis, x_scale), (axes.yaxis, y_scale)):
        axis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:,.10g}"))
        if scale == "log":
            low, high = axis.get_view_interval()
            axis.set_major_locator(ticker.LogLocator(subs=(1,) if high > 150 * low else (1, 2, 5)))
            axis.set_minor_formatter(ticker.NullFormatter())
    axes.grid(visible=True, alpha=0.3)
    if len(curves) > 1:
        figure.legend(loc="outside upper center", ncols=2, frameon=False)
    folder.mkdir(exist_ok=True)
    figure.savefig(folder / f"{name}.svg", metadata={"Date": None})
    pyplot.close(figure)


if __name__ == "__main__":
    for label, number in run(tuple(sys.argv[1:])).items():
        print(f"{label:<60}{number:>14,.5g}")
