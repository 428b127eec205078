"""What decoding costs: a Kinesis event of CloudWatch envelopes -> the records on its tagged lines.

Every candidate is given the same event, as Lambda gives it, in shuffled order inside each round; ratios are
of processor time inside a round, and the median of them is printed. The lines say what a web server's access
log says; with ``TAGLINE_ACCESS_LOG`` set to such a file, its own requests.
"""

from __future__ import annotations

import base64
import gzip
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import cycle, islice
from pathlib import Path
from typing import Any, Self

import orjson
from aws_lambda_powertools.utilities.data_classes import KinesisStreamEvent
from aws_lambda_powertools.utilities.data_classes.kinesis_stream_event import (
    extract_cloudwatch_logs_from_event,
)
from isal import isal_zlib
from tagline import Record, write

from cli.feed import open_access_log
from consumers.lines.batch import tagged_lines
from consumers.lines.ledger import Ledger

TAG = "usage_record"
EVENTS_PER_RECORD = 100
KINESIS_RECORDS = 20
ROUNDS = 25
REPEATS = 3
NODE_REPEATS = 40
FULL_EVENT_BYTES = 6 * 1024 * 1024
FULL_INFLATED_BYTES = 100_000_000

# The serverless agent for CloudWatch that seed 003 shows, but that its records are only counted. What is
# measured is the processor time of its decoding, warm.
_NODE = """
'use strict';
const fs = require('fs');
const zlib = require('zlib');
const prefix = 'usage_record {';
function decode(event) {
  return event
    .Records
    .map(r => r.kinesis.data)
    .map(d => JSON.parse(zlib.gunzipSync(Buffer.from(d, 'base64')).toString()))
    .filter(m => m.messageType !== 'CONTROL_MESSAGE')
    .map(p => p
      .logEvents
      .map(x => x.message)
      .map(m => {
        const i = m.indexOf(prefix);
        if (i < 0) return;
        return JSON.parse(m.slice(i + prefix.length - 1));
      })
      .filter(x => x)
    ).flat();
}
const event = JSON.parse(fs.readFileSync(process.argv[2]));
const repeats = Number(process.argv[3]);
require('readline').createInterface({input: process.stdin}).on('line', () => {
  const before = process.cpuUsage();
  let records = 0;
  for (let i = 0; i < repeats; i++) records += decode(event).length;
  const used = process.cpuUsage(before);
  const seconds = (used.user + used.system) / 1e6 / repeats;
  console.log(JSON.stringify({seconds, records: records / repeats}));
});
"""


def run() -> dict[str, float]:
    """Measure all of them.

    Returns:
        ``decode_vs_floor``: the least that the same libraries need (base64, inflating, parsing the envelope,
        parsing the tagged lines) by what `tagged_lines` needs; 1 is the floor.
        ``decode_records_vs_floor``: the same with each line's LogEvent and Record, made when asked for.
        ``decode_vs_powertools``, ``decode_vs_stdlib``, ``decode_vs_node``: how many times as much these need.
        ``decode_us_per_event``: microseconds of processor time per log event, tagged or not.
        ``peak_rss_over_base_mb``: for an event of 6 MB that inflates to 100 MB, in many Kinesis
        records or in one, whichever needs more.
    """
    event = kinesis_event(KINESIS_RECORDS, EVENTS_PER_RECORD)
    tagged = KINESIS_RECORDS * EVENTS_PER_RECORD // 2
    candidates: dict[str, Callable[[dict[str, Any]], int]] = {
        "tagline": _tagline,
        "records": _tagline_records,
        "floor": _floor,
        "powertools": _powertools,
        "stdlib": _stdlib,
    }
    took: dict[str, list[float]] = {name: [] for name in candidates}
    chance = random.Random(5)
    with _Node(event) as node:
        if node.is_there:
            took["node"] = []
        for _ in range(ROUNDS):
            for name in chance.sample(sorted(took), len(took)):
                if name == "node":
                    seconds, found = node.decode()
                else:
                    found = candidates[name](event)  # the processor's caches are its own from here on
                    start = time.process_time()
                    for _ in range(REPEATS):
                        found = candidates[name](event)
                    seconds = (time.process_time() - start) / REPEATS
                if found != tagged:
                    raise AssertionError(f"{name} found {found} records of {tagged}")
                took[name].append(seconds)
    ours = took["tagline"]
    numbers = {
        "decode_vs_floor": _ratio(took["floor"], ours),
        "decode_records_vs_floor": _ratio(took["floor"], took["records"]),
        "decode_vs_powertools": _ratio(took["powertools"], ours),
        "decode_vs_stdlib": _ratio(took["stdlib"], ours),
    }
    if "node" in took:
        numbers["decode_vs_node"] = _ratio(took["node"], ours)
    numbers["decode_us_per_event"] = statistics.median(ours) / (KINESIS_RECORDS * EVENTS_PER_RECORD) * 1e6
    numbers["peak_rss_over_base_mb"] = max(peak_rss_over_base_mb(500), peak_rss_over_base_mb(1))
    return numbers


def _ratio(others: list[float], ours: list[float]) -> float:
    return statistics.median(other / our for other, our in zip(others, ours, strict=True))


def _tagline(event: dict[str, Any]) -> int:
    return sum(1 for _ in tagged_lines(Ledger(event["Records"]), TAG, "/tagline/"))


def _tagline_records(event: dict[str, Any]) -> int:
    found = 0
    for line in tagged_lines(Ledger(event["Records"]), TAG, "/tagline/"):
        if line.event.log_group and line.record.fields:
            found += 1
    return found


def _floor(event: dict[str, Any]) -> int:
    found = 0
    marker = TAG
    for record in event["Records"]:
        envelope = orjson.loads(isal_zlib.decompress(base64.b64decode(record["kinesis"]["data"]), 31))
        for log_event in envelope["logEvents"]:
            message = log_event["message"]
            if marker in message:
                orjson.loads(message)
                found += 1
    return found


def _powertools(event: dict[str, Any]) -> int:
    found = 0
    for envelope in extract_cloudwatch_logs_from_event(KinesisStreamEvent(event)):
        for log_event in envelope.log_events:
            message = log_event.message
            if TAG in message:
                json.loads(message)
                found += 1
    return found


def _stdlib(event: dict[str, Any]) -> int:
    found = 0
    for record in event["Records"]:
        envelope = json.loads(gzip.decompress(base64.b64decode(record["kinesis"]["data"])))
        for log_event in envelope["logEvents"]:
            if TAG in log_event["message"]:
                json.loads(log_event["message"])
                found += 1
    return found


class _Node:
    """The seed's agent in its own process, which decodes the event each time it is asked."""

    def __init__(self, event: dict[str, Any]) -> None:
        self.is_there = shutil.which("node") is not None
        self._event = event

    def __enter__(self) -> Self:
        if self.is_there:
            self._folder = tempfile.TemporaryDirectory()
            # The seed's lines have the bare tag before the object.
            lines = {"Records": [_bare(record) for record in self._event["Records"]]}
            Path(self._folder.name, "event.json").write_text(json.dumps(lines))
            Path(self._folder.name, "agent.js").write_text(_NODE)
            self._process = subprocess.Popen(
                ["node", "agent.js", "event.json", str(NODE_REPEATS)],
                cwd=self._folder.name,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            self.decode()  # its compiler is warm from here on
        return self

    def decode(self) -> tuple[float, int]:
        """Return the seconds of processor time for the event, and how many records were in it."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        return answer["seconds"], answer["records"]

    def __exit__(self, *_: object) -> None:
        if self.is_there:
            self._process.communicate()
            self._folder.cleanup()


def _bare(record: dict[str, Any]) -> dict[str, Any]:
    envelope = json.loads(gzip.decompress(base64.b64decode(record["kinesis"]["data"])))
    for log_event in envelope["logEvents"]:
        if TAG in log_event["message"]:
            log_event["message"] = "usage_record " + log_event["message"]
    return {"kinesis": {"data": _packed(envelope)}}


# --- The event ---------------------------------------------------------------------------------------------


def kinesis_event(records: int, events: int, *, rest: str = "") -> dict[str, Any]:
    """Return a Kinesis event of so many records with so many log events each, every second one tagged.

    Args:
        records: Kinesis records.
        events: Log events in each.
        rest: Stands behind every untagged line.
    """
    said = cycle(list(islice(requests_of_a_log(), 5_000)))
    numbers = iter(range(records * events))
    return {
        "Records": [
            _kinesis_record([_log_event(next(said), next(numbers), rest) for _ in range(events)], number)
            for number in range(records)
        ]
    }


def _kinesis_record(log_events: list[dict[str, Any]], number: int) -> dict[str, Any]:
    envelope = {
        "messageType": "DATA_MESSAGE",
        "owner": "123456789012",
        "logGroup": f"/aws/lambda/orders-{number % 3}",
        "logStream": f"2026/11/20/[$LATEST]{number:032x}",
        "subscriptionFilters": ["tagline"],
        "logEvents": log_events,
    }
    sequence = str(49_590_338_271_490_256_608_559_692_538_361_571_095_921_575_989_136_588_898 + number)
    return {
        "kinesis": {
            "kinesisSchemaVersion": "1.0",
            "partitionKey": f"{number:032x}",
            "sequenceNumber": sequence,
            "data": _packed(envelope),
            "approximateArrivalTimestamp": 1_795_168_800.5 + number,
        },
        "eventSource": "aws:kinesis",
        "eventVersion": "1.0",
        "eventID": f"shardId-000000000006:{sequence}",
        "eventName": "aws:kinesis:record",
        "awsRegion": "us-east-1",
        "eventSourceARN": "arn:aws:kinesis:us-east-1:123456789012:stream/tagline",
    }


def _packed(envelope: dict[str, Any]) -> str:
    text = json.dumps(envelope, separators=(",", ":")).encode()
    return base64.b64encode(gzip.compress(text, 6, mtime=0)).decode()


def _log_event(said: dict[str, Any], number: int, rest: str) -> dict[str, Any]:
    at = 1_795_168_800_000 + number * 7
    # Every fourth untagged line is as long as a stack trace.
    again = 6 if number % 8 == 1 else 1
    message = (
        f'{said["client"]} "{said["method"]} {said["path"]}" {said["status"]} {said["user_agent"]}' * again
    )
    message += rest + "\n"
    if number % 2 == 0:
        chance = random.Random(number)
        fields = {
            **said,
            "request_id": f"{chance.getrandbits(128):032x}",
            "trace_id": f"1-{chance.getrandbits(32):08x}-{chance.getrandbits(96):024x}",
            "latency_ms": round(chance.expovariate(0.02), 3),
            "cold_start": chance.randrange(100) == 0,
            "memory_mb": 256,
            "items_count": chance.randrange(50),
            "region": "us-east-1",
            "function": "orders-api-PetsFunction-1A2B3C4D5E6F",
            "function_version": "$LATEST",
            "host": "api.example.com",
            "note": "the quick brown fox jumps over the lazy dog and back again, twice",
            "principal": f"customer-{chance.randrange(5_000)}",
            "plan": "team",
            "country": "DE",
            "db_ms": round(chance.expovariate(0.1), 3),
            "query_count": chance.randrange(9),
            "error": None,
        }
        message = write(
            Record(
                id=f"{chance.getrandbits(128):032x}",
                timestamp=at - 120,
                fields=fields,
                src=f"{number // 100:016x}",
                seq=number // 2 % 50,
            )
        )
    return {
        "id": f"{37199717562907174288355125807040114704837640994633613312 + number:056d}",
        "timestamp": at,
        "message": message,
    }


def requests_of_a_log() -> Iterator[dict[str, Any]]:
    """Yield what requests say: those of an access log, or made ones like them."""
    path = os.environ.get("TAGLINE_ACCESS_LOG")
    if path is not None:
        with open_access_log(Path(path)) as log:
            yield from (request.fields for request in log.requests() if "user_agent" in request.fields)
        return
    chance = random.Random(1)
    for number in range(5_000):
        item = chance.randrange(20_000)
        yield {
            "client": f"192.0.2.{chance.randrange(255)}",
            "method": chance.choice(["GET", "GET", "GET", "POST"]),
            "route": "/items/*",
            "path": f"/items/{item}/reviews?page={number % 9}",
            "status": chance.choice([200, 200, 200, 304, 404]),
            "bytes": chance.randrange(200, 90_000),
            "referrer": f"https://www.example.com/search?q=item+{item}",
            "user_agent": f"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.{chance.randrange(40)} "
            f"(KHTML, like Gecko) Chrome/{chance.randrange(80, 130)}.0.0.0 Safari/537.36",
        }


# --- Memory ------------------------------------------------------------------------------------------------


def peak_rss_over_base_mb(kinesis_records: int) -> float:
    """Return by how much a fresh process grows that decodes a full event, in MB; the event itself counts.

    Args:
        kinesis_records: How many records make up the event of 6 MB that inflates to 100 MB.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "event.jsonl")
        inflated = _write_full_event(path, kinesis_records)
        script = f"import sys; from benchmarks import decode; decode.report_memory({str(path)!r})"
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    grown, found = map(int, done.stdout.split())
    if found == 0 or inflated < FULL_INFLATED_BYTES * 0.95:
        raise AssertionError(f"{found} records in {inflated} bytes")
    return grown / 1024


def _write_full_event(path: Path, kinesis_records: int) -> int:
    """Write an event record by record, a JSON line each; return how many bytes it inflates to."""
    # Text that repeats itself behind every untagged line brings gzip's ratio to what fills both limits.
    said = list(islice(requests_of_a_log(), 1_000))
    repeats = 420 if kinesis_records > 1 else 300
    each = FULL_INFLATED_BYTES // kinesis_records
    size = 0
    with path.open("w") as file:
        number = 0
        for position in range(kinesis_records):
            log_events: list[dict[str, Any]] = []
            length = 0
            while length < each:
                log_event = _log_event(said[number % len(said)], number, " and again" * repeats)
                log_events.append(log_event)
                length += len(log_event["message"]) + 120
                number += 1
            size += length
            file.write(json.dumps(_kinesis_record(log_events, position)) + "\n")
    packed = path.stat().st_size
    if not FULL_EVENT_BYTES * 0.8 < packed < FULL_EVENT_BYTES * 1.02:
        raise AssertionError(f"the event has {packed:,} bytes, not 6 MB")
    return size


def report_memory(path: str) -> None:
    """Print by how many KiB this process grows while it decodes the event, and how many records are in it."""
    list(tagged_lines(Ledger([]), TAG, ""))
    base = _status("VmRSS")
    with Path(path).open(encoding="utf-8") as file:
        records = [json.loads(line) for line in file]
    found = sum(1 for line in tagged_lines(Ledger(records), TAG, "") if line.record.fields)
    print(_status("VmHWM") - base, found)


def _status(name: str) -> int:
    """Return one of Linux's numbers on this process, in KiB."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith(name))
