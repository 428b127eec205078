"""The consumer beside what is usually written: the same rows of the same events, in rounds that take turns.

The usual consumer is Powertools' data class for the event, `json.loads` for the lines, and boto3 with its
defaults, 100 records to a request. Both send to a server that is another process, keeps connections open,
and answers at once or after a while. CPU is this process's own, of all its threads; a ratio is the median
over the rounds of the ratio within a round. Before anything is measured, both are held to send the same
records.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import gc
import io
import json
import os
import random
import re
import statistics
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

from tagline import Record, write

from benchmarks.emit import FIELDS
from consumers import sending
from consumers.accounts import accounting
from consumers.lines.telemetry import Timings
from consumers.rows import clients, handler, late_days, table
from consumers.rows.table import REVISION, UNDECLARED, Row, row
from consumers.rows.timestream import mapping
from consumers.rows.timestream.writer import Timestream

ROUNDS = 11
TAGGED = 2_000
# So often in each of its turns, which then last as long as the other's: what else the machine does while they
# are measured, and what the caches hold at their beginning, is about the same for both.
OURS_IN_A_TURN = 6
SLOW_ROUNDS, SLOW_ROWS = 5, 4_800
STARTS = 11
TAG, GROUP = "usage_record", "/aws/lambda/pets"
NOW = 1_795_129_140_000  # not where an hour begins: the lake would write two objects
LATENCIES_MS = (0, 10, 30)
LIBRARIES = ("aws_lambda_powertools", "orjson", "isal", "pybase64", "concurrent.futures.thread")
OWN = ("tagline", "consumers")

ENDPOINT = "AWS_ENDPOINT_URL_TIMESTREAM_WRITE"

# What the consumer's function needs to have in its environment.
SETTINGS = {
    "TAGLINE_TAG": TAG,
    "STORE": "timestream",
    "TIMESTREAM_DATABASE": "tagline",
    "TIMESTREAM_TABLE": "records",
    "BUCKET": "lake",
    "OWN_LOG_GROUPS": "/tagline/",
    "POWERTOOLS_METRICS_NAMESPACE": "Tagline",
    "POWERTOOLS_SERVICE_NAME": "tagline",
}

Consumer = Callable[[dict[str, Any]], Any]


def run() -> dict[str, float]:
    """Return CPU per record, records per second at two latencies, the ratios, and the cold start."""
    with servers() as ports, environment():
        return {**cpu(ports[0]), **latency(ports), **cold_start()}


# --- CPU per record -----------------------------------------------------------------------------------------


def cpu(port: int) -> dict[str, float]:
    """Return `cpu_vs_naive_k100`, `cpu_vs_naive_k1` and what they are made of, in microseconds a record."""
    numbers: dict[str, float] = {}
    for k in (100, 1):
        event = kinesis_event(k, TAGGED)
        candidates: dict[str, Consumer] = {"ours": ours(port), "naive": naive(port)}
        same_records(candidates, event, port)
        turns: dict[str, Callable[[], Any]] = {
            name: partial(each, event) for name, each in candidates.items()
        }
        cpus, walls = rounds(turns, ROUNDS, TAGGED, {"ours": OURS_IN_A_TURN})
        numbers[f"cpu_vs_naive_k{k}"] = statistics.median(
            naive_us / our_us for our_us, naive_us in zip(cpus["ours"], cpus["naive"], strict=True)
        )
        for name in candidates:
            numbers[f"{name}_cpu_us_k{k}"] = statistics.median(cpus[name])
            numbers[f"{name}_wall_us_k{k}"] = statistics.median(walls[name])
    return numbers


def ours(port: int) -> Consumer:
    """Return the consumer as it is deployed, with its own summary line and metrics, which go nowhere."""
    store = Timestream(write_client(port), "tagline", "records", sleep=time.sleep, jitter=random.random)
    timings = Timings()
    handle = handler.make_handler(
        store,
        Bucket(),
        tag=TAG,
        own_log_groups="/tagline/",
        report=lambda ledger: handler.report_rows(ledger, store.kind, timings, store.traffic()),
        threads=sending.THREADS,
        clock=lambda: NOW / 1000,
        timings=timings,
    )

    def consume(event: dict[str, Any]) -> None:
        with contextlib.redirect_stdout(io.StringIO()):
            answer = handle(event, Context())
        if answer["batchItemFailures"]:
            raise AssertionError(answer)

    return consume


def naive(port: int) -> Consumer:
    """Return the consumer as it is usually written."""
    from aws_lambda_powertools.utilities.data_classes import KinesisStreamEvent
    from aws_lambda_powertools.utilities.data_classes.kinesis_stream_event import (
        extract_cloudwatch_logs_from_event,
    )

    client = default_client(port)

    def consume(event: dict[str, Any]) -> None:
        records = []
        for logs in extract_cloudwatch_logs_from_event(KinesisStreamEvent(event)):
            records += [
                naive_record(json.loads(log_event.message), logs.log_group)
                for log_event in logs.log_events
                if TAG in log_event.message
            ]
        for start in range(0, len(records), 100):
            client.write_records(
                DatabaseName="tagline", TableName="records", Records=records[start : start + 100]
            )

    return consume


def naive_record(line: dict[str, Any], source: str) -> dict[str, Any]:
    """Return a line as a record of WriteRecords, as the consumer's mapping has it."""
    when = datetime.fromisoformat(line["timestamp"])
    dimensions = [{"Name": "source", "Value": source}]
    measures = [
        {"Name": "_id", "Type": "VARCHAR", "Value": line["_id"]},
        {"Name": "year", "Type": "VARCHAR", "Value": f"{when:%Y}"},
        {"Name": "month", "Type": "VARCHAR", "Value": f"{when:%m}"},
        {"Name": "day", "Type": "VARCHAR", "Value": f"{when:%d}"},
    ]
    for name, value in line.items():
        if name.startswith("_") or name in {"timestamp", "level"} or value is None or value == "":
            continue
        if name in {"route", "method", "client"}:
            dimensions.append({"Name": name, "Value": value})
        elif isinstance(value, bool):
            measures.append({"Name": name, "Type": "BOOLEAN", "Value": str(value).lower()})
        elif isinstance(value, int | float):
            measures.append({"Name": name, "Type": "DOUBLE", "Value": str(float(value))})
        elif isinstance(value, str):
            measures.append({"Name": name, "Type": "VARCHAR", "Value": value})
        else:
            text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
            measures.append({"Name": name, "Type": "VARCHAR", "Value": text})
    time_ns = round(when.timestamp() * 1000) * table.OFFSETS + table.offset(line["_id"], 0)
    return {
        "Dimensions": dimensions,
        "MeasureName": line["_type"],
        "MeasureValueType": "MULTI",
        "MeasureValues": measures,
        "Time": str(time_ns),
        "TimeUnit": "NANOSECONDS",
        "Version": REVISION,
    }


def same_records(candidates: dict[str, Consumer], event: dict[str, Any], port: int) -> None:
    """Hold the candidates to sending the same records."""
    sent = {}
    for name, consume in candidates.items():
        ask(port, "/forget")
        consume(event)
        sent[name] = ask(port, "/digest")
    if len(set(sent.values())) != 1:
        raise AssertionError(f"The consumers sent different records: {sent}.")


# --- records per second -------------------------------------------------------------------------------------


def latency(ports: dict[int, int]) -> dict[str, float]:
    """Return how many times as many rows per second our writer stores as boto3 with its defaults."""
    rows = some_rows(SLOW_ROWS)
    numbers: dict[str, float] = {}
    for milliseconds in LATENCIES_MS[1:]:
        port = ports[milliseconds]
        _, walls = rounds(
            {"ours": threaded(port, sending.THREADS, rows), "default": one_by_one(port, rows)},
            SLOW_ROUNDS,
            SLOW_ROWS,
        )
        numbers[f"threads_vs_default_{milliseconds}ms"] = statistics.median(
            default / own for own, default in zip(walls["ours"], walls["default"], strict=True)
        )
        for name in walls:
            numbers[f"{name}_rows_per_s_{milliseconds}ms"] = 1e6 / statistics.median(walls[name])
    return numbers


def threaded(port: int, threads: int, rows: list[Row]) -> Callable[[], None]:
    """Return what writes rows as the handler does, with so many requests at the same time."""
    store = Timestream(
        write_client(port, threads), "tagline", "records", sleep=time.sleep, jitter=random.random
    )

    pool = sending.Pool(threads)

    def store_all() -> None:
        packer = mapping.RecordPacker()
        packed = ((None, packer.record(each)) for each in rows)
        for _ in sending.write(store, mapping.requests(packed), lambda: 60.0, pool, Timings()):
            pass

    return store_all


def one_by_one(port: int, rows: list[Row]) -> Callable[[], None]:
    """Return what writes rows by boto3 with its defaults, one request after the other."""
    client = default_client(port)

    def store_all() -> None:
        for start in range(0, len(rows), 100):
            client.write_records(
                DatabaseName="tagline",
                TableName="records",
                Records=[wire(each) for each in rows[start : start + 100]],
            )

    return store_all


def wire(each: Row) -> dict[str, Any]:
    """Return a row as a record of WriteRecords, all of it in the record itself."""
    return {
        "Dimensions": [{"Name": name, "Value": value} for name, value in each.dimensions.items()],
        "MeasureName": each.type,
        "MeasureValueType": "MULTI",
        "MeasureValues": [
            {
                "Name": name,
                "Type": measure.type,
                "Value": str(measure.value).lower() if measure.type == "BOOLEAN" else str(measure.value),
            }
            for name, measure in each.measures.items()
        ],
        "Time": str(each.time * table.OFFSETS + table.offset(each.id, 0)),
        "TimeUnit": "NANOSECONDS",
        "Version": each.version,
    }


# --- cold start ---------------------------------------------------------------------------------------------


def cold_start() -> dict[str, float]:
    """Return how long a new process takes to make its handler, beyond boto3 with the same two clients."""
    boto = "import boto3; boto3.client('timestream-write'); boto3.client('s3')"
    consumer = "import os; from consumers.rows import handler; handler.from_environment(os.environ)"
    timed = "import time; began = time.perf_counter(); {}; print((time.perf_counter() - began) * 1000)"
    variables = os.environ | SETTINGS | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    variables.pop("PYTHONDONTWRITEBYTECODE", None)

    def started(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *arguments], env=variables, check=True, capture_output=True, text=True
        )

    started("-c", consumer)  # byte code is there from now on
    times: dict[str, list[float]] = {boto: [], consumer: []}
    for _ in range(STARTS):
        for script in shuffled([boto, consumer]):
            times[script].append(float(started("-c", timed.format(script)).stdout))
    over = [ours - theirs for theirs, ours in zip(times[boto], times[consumer], strict=True)]
    trace = started("-X", "importtime", "-c", f"{boto}; import consumers.rows.handler").stderr
    return {
        "cold_start_ms": statistics.median(times[consumer]),
        "cold_start_boto3_ms": statistics.median(times[boto]),
        "cold_start_over_boto3_ms": statistics.median(over),
        **shares(trace),
    }


def shares(trace: str) -> dict[str, float]:
    """Return how long imports take after boto3 and its clients, in milliseconds, out of Python's own list.

    A library counts with all that it imports and nothing before had; our own modules count by themselves.
    """
    took = dict.fromkeys((*LIBRARIES, *OWN), 0.0)
    for own_us, all_us, name in re.findall(r"import time:\s+(\d+) \|\s+(\d+) \|\s+(\S+)", trace):
        if name in LIBRARIES:
            took[name] += int(all_us) / 1000
        elif name.partition(".")[0] in OWN:
            took[name.partition(".")[0]] += int(own_us) / 1000
    return {f"cold_start_{name}_ms": milliseconds for name, milliseconds in took.items()}


# --- what all of them need ----------------------------------------------------------------------------------


def rounds(
    candidates: dict[str, Callable[[], Any]],
    count: int,
    records: int,
    in_a_turn: Mapping[str, int] = MappingProxyType({}),
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Return the CPU and the wall time of each round, in microseconds a record, by candidate.

    Args:
        candidates: What is measured, by its name.
        count: How many rounds.
        records: For how many records each call is.
        in_a_turn: How often one is called in each of its turns, if not once.
    """
    cpus: dict[str, list[float]] = {name: [] for name in candidates}
    walls: dict[str, list[float]] = {name: [] for name in candidates}
    for candidate in candidates.values():
        candidate()  # connections are opened
    for _ in range(count):
        for name in shuffled(list(candidates)):
            gc.collect()
            times = in_a_turn.get(name, 1)
            began, used = time.perf_counter(), time.process_time()
            for _ in range(times):
                candidates[name]()
            cpus[name].append((time.process_time() - used) / times / records * 1e6)
            walls[name].append((time.perf_counter() - began) / times / records * 1e6)
    return cpus, walls


def shuffled(items: list[str]) -> list[str]:
    """Return them in another order."""
    return random.sample(items, len(items))


def lines(count: int) -> Iterator[str]:
    """Yield tagged lines of about 0.95 KB."""
    for number in range(count):
        fields = FIELDS | {
            "path": f"/pets/{number}/visits",
            "status": 200 + number % 3,
            "duration_ms": number % 977 * 0.25,
        }
        yield write(Record(identity(number), NOW - number // 7, fields, src=emitter(number), seq=number % 50))


def identity(number: int) -> str:
    """Return an identity as the emitter draws them."""
    return f"{random.Random(number).getrandbits(128):032x}"


def emitter(number: int) -> str:
    """Return the emitter of a line, of which each has written fifty."""
    return identity(-1 - number // 50)[:16]


def some_rows(count: int) -> list[Row]:
    """Return the rows that such lines become."""
    return [
        row(Record(id=identity(number), timestamp=NOW - number // 7, fields=FIELDS), GROUP, UNDECLARED)
        for number in range(count)
    ]


def kinesis_event(k: int, tagged: int) -> dict[str, Any]:
    """Return an event whose Kinesis records have `k` log events each, every second of them tagged."""
    said, filling = lines(tagged), "x" * 300
    messages = [
        next(said) if number % 2 else f"REPORT RequestId: {number:032x} Duration: {number % 97} ms {filling}"
        for number in range(2 * tagged)
    ]
    return {
        "Records": [
            {
                "kinesis": {
                    "kinesisSchemaVersion": "1.0",
                    "partitionKey": str(start),
                    "sequenceNumber": str(10**55 + start),
                    "data": envelope(messages[start : start + k], start),
                    "approximateArrivalTimestamp": NOW / 1000,
                },
                "eventSource": "aws:kinesis",
                "eventID": f"shardId-000000000000:{10**55 + start}",
                "eventSourceARN": "arn:aws:kinesis:us-east-1:123456789012:stream/tagline",
            }
            for start in range(0, len(messages), k)
        ]
    }


def envelope(messages: list[str], start: int) -> str:
    """Return log events as CloudWatch Logs puts them into Kinesis, in base64."""
    said = {
        "messageType": "DATA_MESSAGE",
        "owner": "123456789012",
        "logGroup": GROUP,
        "logStream": "2026/11/19/[$LATEST]26b6a45d574f442ea5b4f7a1b1d3ba44",
        "subscriptionFilters": ["tagline"],
        "logEvents": [
            {"id": f"{10**55 + start + number}", "timestamp": NOW, "message": message}
            for number, message in enumerate(messages)
        ],
    }
    packer = zlib.compressobj(6, zlib.DEFLATED, 31)
    return base64.b64encode(packer.compress(json.dumps(said).encode()) + packer.flush()).decode()


class Bucket:
    """A bucket that takes what a batch leaves when all is well, and nothing else."""

    def write(self, key: str, body: bytes) -> None:
        if not key.startswith((accounting.PREFIX, late_days.PREFIX)):
            raise AssertionError(f"{key}: {body!r}")


class Context:
    """An invocation that has all the time."""

    aws_request_id = "benchmark"
    invoked_function_arn = "arn:aws:lambda:us-east-1:123456789012:function:benchmark"

    def get_remaining_time_in_millis(self) -> int:
        return 60_000


def write_client(port: int, threads: int = sending.THREADS) -> Any:
    """Return the consumer's own client, for a server here."""
    os.environ[ENDPOINT] = f"http://127.0.0.1:{port}"
    return clients.write_client("timestream-write", threads)


def default_client(port: int) -> Any:
    """Return boto3's client with its defaults."""
    import boto3

    os.environ[ENDPOINT] = f"http://127.0.0.1:{port}"
    return boto3.client("timestream-write")


@contextlib.contextmanager
def environment() -> Iterator[None]:
    """Set what boto3 and Powertools read."""
    before = dict(os.environ)
    os.environ.update(
        AWS_DEFAULT_REGION="us-east-1",
        AWS_ACCESS_KEY_ID="x",
        AWS_SECRET_ACCESS_KEY="x",
        **SETTINGS,
    )
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


# --- the server ---------------------------------------------------------------------------------------------


@contextlib.contextmanager
def servers() -> Iterator[dict[int, int]]:
    """Give the ports of a server process by the milliseconds after which they answer."""
    root = str(Path(__file__).parents[1])
    process = subprocess.Popen(
        [sys.executable, "-c", "from benchmarks import consume; consume.serve()"],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([root, *(path for path in sys.path if path)])},
    )
    try:
        assert process.stdout is not None
        yield dict(zip(LATENCIES_MS, map(int, process.stdout.readline().split()), strict=True))
    finally:
        process.terminate()
        process.wait()


def serve() -> None:
    """Answer WriteRecords, on a port for each latency, until the process is ended."""
    asyncio.run(_serve())


async def _serve() -> None:
    bodies: list[bytes] = []
    listening = [
        await asyncio.start_server(_answering(milliseconds / 1000, bodies), "127.0.0.1", 0, limit=2**24)
        for milliseconds in LATENCIES_MS
    ]
    print(*[each.sockets[0].getsockname()[1] for each in listening], flush=True)
    await asyncio.gather(*[each.serve_forever() for each in listening])


def _answering(seconds: float, bodies: list[bytes]) -> Callable[..., Any]:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                if b"100-continue" in head:
                    writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                length = re.search(rb"content-length: *(\d+)", head)
                body = await reader.readexactly(int(length[1]) if length else 0)
                target = head.split(b" ", 2)[1]
                if target == b"/forget":
                    bodies.clear()
                    bodies.append(b"")
                    said = b"{}"
                elif head.startswith(b"put "):
                    said = b""  # an object for S3
                elif b".describeendpoints" in head:
                    here = "http://{}:{}".format(*writer.get_extra_info("sockname"))
                    said = json.dumps({"Endpoints": [{"Address": here, "CachePeriodInMinutes": 60}]}).encode()
                elif target == b"/digest":
                    said = json.dumps(_digest(bodies[1:])).encode()
                    bodies.clear()
                else:
                    said = b'{"RecordsIngested":{"Total":%d}}' % body.count(b'"MeasureValues"')
                    if bodies:
                        bodies.append(body)
                if seconds:
                    await asyncio.sleep(seconds)
                writer.write(
                    b"HTTP/1.1 200 OK\r\nContent-Type: application/x-amz-json-1.0\r\n"
                    b"Content-Length: %d\r\n\r\n%b" % (len(said), said)
                )
                await writer.drain()
        writer.close()

    return answer


def _digest(bodies: list[bytes]) -> list[str]:
    """Return the records of some requests, common attributes put to them, each as text, in an order."""
    records = []
    for body in bodies:
        request = json.loads(body)
        common = request.get("CommonAttributes", {})
        for record in request["Records"]:
            whole = common | record
            whole["Dimensions"] = sorted(
                common.get("Dimensions", []) + record.get("Dimensions", []),
                key=lambda each: str(each["Name"]),
            )
            records.append(json.dumps(whole, sort_keys=True))
    return sorted(records)


def ask(port: int, path: str) -> str:
    """Return what the server answers."""
    import urllib.request

    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}") as answer:  # our own server
        return str(answer.read().decode())
