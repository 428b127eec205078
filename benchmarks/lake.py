"""The lake store: what a row costs to write beside Timestream, and how large it is.

`write_cpu_us_per_row` is the mapping, Parquet and the PUT to a server in another process, without decoding;
`pyarrow_write_cpu_us_per_row` and others are what `lake_rivals` measures beside it.
`consume_vs_timestream` is the CPU of the whole consumer with either store, the median over rounds of the
ratio within a round. Bytes are those of fragments with as many rows; the lines say what a web server's access
log says (`TAGLINE_ACCESS_LOG`, or made ones like it), as `tagline feed` has them said again.
"""

from __future__ import annotations

import io
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path
from typing import Any

import orjson
from tagline import Record, write

from benchmarks import compact, consume, lake_rivals
from benchmarks.decode import requests_of_a_log
from consumers import sending
from consumers.lines.telemetry import Timings
from consumers.rows import handler, schema
from consumers.rows.clients import write_client
from consumers.rows.lake import mapping
from consumers.rows.lake.content import content
from consumers.rows.lake.mapping import FragmentRow, LakePacker
from consumers.rows.lake.parquet import pack
from consumers.rows.lake.writer import Lake
from consumers.rows.table import Plans

ROOT = Path(__file__).parents[1]
ROUNDS, IN_A_TURN = 11, 4
FILE_ROWS = (60, 600, 2_000)
# A shard with 100 requests a second, whose batches are collected for a minute.
RATE, WINDOW_S, MILLION = 100, 60, 1_000_000


def run() -> dict[str, float]:
    """Return CPU per row, the ratio to Timestream's consumer, sizes and numbers of objects."""
    with consume.servers() as ports, consume.environment():
        ours = cpu(ports[0])
    return {**ours, **lake_rivals.run(), **sizes(), **puts(), **artifact(), **compact.costs()}


def cpu(port: int) -> dict[str, float]:
    """Return what writing a row costs, and the whole consumer beside Timestream's, in microseconds."""
    event = consume.kinesis_event(100, consume.TAGGED)
    messages = list(consume.lines(consume.TAGGED))
    store, packer = lake(port), LakePacker(plans())
    write_lines(store, packer, messages)  # the connection is opened
    write = [write_lines(store, packer, messages) for _ in range(ROUNDS * IN_A_TURN)]
    turns: dict[str, Callable[[], Any]] = {
        "lake": partial(consumer(lake(port)), event),
        "timestream": partial(consume.ours(port), event),
    }
    cpus, _ = consume.rounds(turns, ROUNDS, consume.TAGGED, dict.fromkeys(turns, IN_A_TURN))
    return {
        "write_cpu_us_per_row": statistics.median(write),
        "consume_vs_timestream": statistics.median(
            theirs / ours for ours, theirs in zip(cpus["lake"], cpus["timestream"], strict=True)
        ),
        "lake_cpu_us": statistics.median(cpus["lake"]),
        "timestream_cpu_us": statistics.median(cpus["timestream"]),
    }


def lake(port: int) -> Lake:
    """Return the store with its own client, for a server here."""
    os.environ["AWS_ENDPOINT_URL_S3"] = f"http://127.0.0.1:{port}"
    return Lake(
        write_client("s3", sending.THREADS),
        "lake",
        kept_days=365,
        clock=lambda: consume.NOW / 1000,
        sleep=time.sleep,
        jitter=random.random,
    )


def plans() -> Plans:
    """Return the schemas that are shipped."""
    return schema.load_schemas(ROOT / "schemas")


def write_lines(store: Lake, packer: LakePacker, messages: list[str]) -> float:
    """Map and write the rows of lines, and return microseconds of CPU a row, without decoding.

    As in the handler, a chunk of lines is decoded, mapped and cut into requests while it is in the
    processor's cache, and garbage is not collected.
    """
    decoding, written = 0.0, 0

    def rows() -> Iterator[tuple[None, FragmentRow]]:
        nonlocal decoding
        lines: list[tuple[dict[str, Any], str]] = []
        for start in range(0, len(messages), handler.CHUNK):
            began = time.process_time()
            lines = [(orjson.loads(message), message) for message in messages[start : start + handler.CHUNK]]
            decoding += time.process_time() - began
            mapped = [packer.pack_line(line, message, consume.GROUP) for line, message in lines]
            yield from [(None, row) for row in mapped if row is not None]

    with sending.garbage_collection_paused():
        began = time.process_time()
        for request in store.requests(rows()):
            written += len(store.write([row for _, row in request], lambda: 60.0))
        used = time.process_time() - began - decoding
    if written < len(messages):
        raise AssertionError(f"{len(messages) - written} lines were not mapped in the direct way")
    return used / len(messages) * 1e6


def packed(packer: LakePacker, line: dict[str, Any], message: str) -> FragmentRow:
    """Return a line's row, which has to be made in the direct way."""
    row = packer.pack_line(line, message, consume.GROUP)
    if row is None:
        raise AssertionError(message)
    return row


def consumer(store: Lake) -> Callable[[dict[str, Any]], None]:
    """Return the consumer as it is deployed with the lake."""
    timings = Timings()
    handle = handler.make_handler(
        store,
        consume.Bucket(),
        tag=consume.TAG,
        own_log_groups="/tagline/",
        report=lambda ledger: handler.report_rows(ledger, store.kind, timings, store.traffic()),
        threads=sending.THREADS,
        plans=plans(),
        clock=lambda: consume.NOW / 1000,
        timings=timings,
    )

    def handle_event(event: dict[str, Any]) -> None:
        with redirect_stdout(io.StringIO()):
            answer = handle(event, consume.Context())
        if answer["batchItemFailures"]:
            raise AssertionError(answer)

    return handle_event


def sizes() -> dict[str, float]:
    """Return the bytes that a row takes in files of so many rows."""
    packer = LakePacker(plans())
    rows = [packed(packer, orjson.loads(line), line) for line in log_lines(max(FILE_ROWS))]
    return {
        f"bytes_per_row_{count}": statistics.mean(
            len(pack(content(rows[start : start + count]))) / count
            for start in range(0, len(rows) - count + 1, count)
        )
        for count in FILE_ROWS
    }


def log_lines(count: int) -> Iterator[str]:
    """Yield lines of an access log's requests, in order of time."""
    for number, fields in zip(range(count), requests_of_a_log(), strict=False):
        identity = consume.identity(number)
        yield write(Record(identity, consume.NOW - 3_000_000 + number * 500, fields, src="s", seq=number))


def puts() -> dict[str, float]:
    """Return how many objects a million rows make: 100 a second, one shard, a window of a minute."""
    packer = LakePacker(plans())
    line = next(log_lines(1))
    row = packed(packer, orjson.loads(line), line)
    objects = 0
    for start in range(0, MILLION, RATE * WINDOW_S):
        times = (consume.NOW + number * 1_000 // RATE for number in range(start, start + RATE * WINDOW_S))
        objects += sum(1 for _ in mapping.cut_at_hours((None, row._replace(time=each)) for each in times))
    return {"puts_per_million_rows_100rps": objects * MILLION / (start + RATE * WINDOW_S)}


def artifact() -> dict[str, float]:
    """Return how large the consumer is that is deployed, unpacked."""
    with tempfile.TemporaryDirectory() as folder:
        command = ["make", "-s", "build-RowConsumer", f"ARTIFACTS_DIR={folder}", f"PYTHON={sys.executable}"]
        subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
        size = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
    return {"consumer_artifact_mb": size / 1e6}
