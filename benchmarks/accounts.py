"""What accounting costs: processor time of merging an hour, and time and memory of reconciling a day.

The traffic is that of 10,000 requests a second by 500 execution environments over 16 shards, with the
template's defaults. A batch of a shard has the lines of five seconds, which are those of some 150
environments, and each environment lives for six hours. The Reconciler carries as many sources as it ever
does. Another process serves the objects: it speaks as much of S3 as is needed.

`python -m benchmarks.accounts costs` prints the table of docs/how-to/reconcile.md.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from hashlib import md5
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import boto3
from botocore.config import Config

from consumers.accounts import accounting, sources
from consumers.accounts.accounting import Account, Intervals
from consumers.accounts.compaction import READERS, compact, reconcile
from consumers.accounts.sources import SourceNumbers
from consumers.bucket import Bucket

DAY = date(2026, 11, 19)
GROUP = "/aws/lambda/orders"
SHARDS = 16
WINDOW_S = 5  # the parameter BatchWindowSeconds
ENVIRONMENTS = 500
# Each environment's lines of a second are a Kinesis record, in a shard by chance.
LINES_PER_RECORD = 20
RECORDS_PER_WINDOW = ENVIRONMENTS * WINDOW_S
HOURS_PER_ENVIRONMENT = 6
SECONDS_PER_MONTH = 30 * 86_400
# Requests a second, and the shards of the stream. One on demand begins with four, and grows with its peaks.
# https://docs.aws.amazon.com/streams/latest/dev/how-do-i-size-a-stream.html
RATES = {1: 4, 10: 4, 100: 4, 1_000: 4, 10_000: SHARDS}
_PAGE = 1_000  # keys of a listing


def run() -> dict[str, float]:
    """Return the numbers by name: objects of an hour and of a day, seconds and megabytes of reading them."""
    numbers: dict[str, float] = {}
    with server() as url:
        numbers["batches"] = _fill(url, "hour")
        numbers |= _measured(url, "compact")
        numbers["day_objects"] = _fill(url, "day")
        numbers |= _measured(url, "reconcile")
    return numbers


def batches_of_an_hour(hour: int) -> Iterator[bytes]:
    """Yield the documents that the consumer writes in an hour."""
    chance = random.Random(hour)
    names = [source(hour // HOURS_PER_ENVIRONMENT, number) for number in range(ENVIRONMENTS)]
    first = hour % HOURS_PER_ENVIRONMENT * 3600 * LINES_PER_RECORD
    for window in range(0, 3600, WINDOW_S):
        delivered: list[dict[str, list[tuple[int, int]]]] = [{} for _ in range(SHARDS)]
        for record in range(RECORDS_PER_WINDOW):
            at = first + (window + record // ENVIRONMENTS) * LINES_PER_RECORD
            ranges = delivered[chance.randrange(SHARDS)].setdefault(names[record % ENVIRONMENTS], [])
            ranges.append((at, at + LINES_PER_RECORD - 1))
        for shard in delivered:
            account = Account({src: accounting.intervals(ranges) for src, ranges in shard.items()})
            yield accounting.to_json({DAY: {GROUP: account}})


def documents_of_a_day() -> Iterator[tuple[str, bytes]]:
    """Yield what the Reconciler has made of a day."""
    for hour in range(24):
        at = hour % HOURS_PER_ENVIRONMENT * 3600 * LINES_PER_RECORD
        numbers: Intervals = ((at, at + 3600 * LINES_PER_RECORD - 1),)
        names = [source(hour // HOURS_PER_ENVIRONMENT, number) for number in range(ENVIRONMENTS)]
        document = accounting.to_json({DAY: {GROUP: Account(dict.fromkeys(names, numbers))}})
        yield accounting.document_key(accounting.folder(DAY), document), document


def carried() -> bytes:
    """Return the numbers of as many sources as the Reconciler carries, those of earlier days."""
    numbers = SourceNumbers()
    for day in range(-10, 0):
        names = [source(day, number) for number in range(sources.MAX_SOURCES // 10)]
        account = Account(dict.fromkeys(names, ((0, 1_000_000),)))
        numbers.add({DAY + timedelta(days=day): {GROUP: account}})
    return numbers.to_json()


def source(generation: int, number: int) -> str:
    """Return a source's name, as an emitter gives itself one."""
    return md5(f"{generation}-{number}".encode(), usedforsecurity=False).hexdigest()[:16]


def costs() -> list[str]:
    """Return the table's rows: requests a second, shards, PUTs in a month, MB that are kept for a year."""
    rows = []
    for rate, shards in RATES.items():
        environments = max(1, rate // LINES_PER_RECORD)
        puts = min(rate, shards / WINDOW_S) * SECONDS_PER_MONTH
        numbers: Intervals = ((3600 * LINES_PER_RECORD, 2 * 3600 * LINES_PER_RECORD - 1),)
        account = Account({source(0, number): numbers for number in range(environments)})
        kept = len(accounting.to_json({DAY: {GROUP: account}})) * 24 * 365 / 1e6
        rows.append(f"| {rate:,} | {shards} | {puts / 1e6:.1f} million | {kept:,.0f} |")
    return rows


# --- Measuring ---------------------------------------------------------------------------------------------


def _measured(url: str, what: str) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.accounts", what, url]
    answer = subprocess.run(command, check=True, capture_output=True, text=True)
    numbers: dict[str, float] = json.loads(answer.stdout)
    return numbers


def _measure(what: str, url: str) -> dict[str, float]:
    """Merge an hour or reconcile a day; return the seconds and the peak of memory."""
    bucket = Bucket(_client(url), "bucket")
    cpu, begun = time.process_time(), time.perf_counter()
    if what == "compact":
        counts = compact(bucket, datetime(DAY.year, DAY.month, DAY.day, tzinfo=UTC), lambda: False)
        assert counts["batches"] == 3600 // WINDOW_S * SHARDS, counts
        assert (counts["sources"], counts["forgotten"]) == (sources.MAX_SOURCES, ENVIRONMENTS), counts
    else:
        (day,) = reconcile(bucket, [DAY])
        assert day.counts()["delivered"] == 86_400 * ENVIRONMENTS * LINES_PER_RECORD, day
        assert day.counts()["lost"] == 0, day
    return {
        f"{what}_cpu_s": time.process_time() - cpu,
        f"{what}_s": time.perf_counter() - begun,
        f"{what}_peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def _client(url: str) -> Any:
    return boto3.client(
        "s3",
        endpoint_url=url,
        region_name="us-east-1",
        aws_access_key_id="key",
        aws_secret_access_key="secret",
        config=Config(max_pool_connections=READERS, s3={"addressing_style": "path"}),
    )


def _fill(url: str, what: str) -> int:
    """Let the server make its objects, and return how many."""
    import urllib.request

    with urllib.request.urlopen(urllib.request.Request(f"{url}/fill/{what}", method="POST")) as answer:
        return int(answer.read())


# --- The server --------------------------------------------------------------------------------------------


@contextlib.contextmanager
def server() -> Iterator[str]:
    """Serve objects from another process, and yield its address."""
    command = [sys.executable, "-m", "benchmarks.accounts", "serve"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        yield process.stdout.readline().strip()
        process.stdin.close()


class _Bucket(BaseHTTPRequestHandler):
    """As much of S3 as the Reconciler needs, over objects in memory."""

    protocol_version = "HTTP/1.1"
    objects: dict[str, bytes] = {}  # noqa: RUF012 - one for all requests
    wbufsize = 1 << 16

    def do_GET(self) -> None:
        asked = urlsplit(self.path)
        if "list-type" in asked.query:
            query = parse_qs(asked.query)
            after = query.get("continuation-token", [""])[0]
            keys = [key for key in sorted(self.objects) if key.startswith(query["prefix"][0]) and key > after]
            self._answer(_listing(keys))
            return
        body = self.objects.get(_key(asked.path))
        if body is None:
            self._answer(b"<Error><Code>NoSuchKey</Code><Message>none</Message></Error>", 404)
        else:
            self._answer(body)

    def do_PUT(self) -> None:
        self.objects[_key(urlsplit(self.path).path)] = self._body()
        self._answer(b"")

    def do_POST(self) -> None:
        body = self._body()
        if self.path.startswith("/fill/"):
            self.objects.clear()
            if self.path.endswith("/hour"):
                documents = enumerate(batches_of_an_hour(0))
                self.objects.update((f"{accounting.BATCHES}{n:06}.json", each) for n, each in documents)
            else:
                self.objects.update(documents_of_a_day())
            objects = len(self.objects)
            self.objects[sources.KEY] = carried()
            self._answer(str(objects).encode())
            return
        for piece in body.decode().split("<Key>")[1:]:
            self.objects.pop(piece.partition("</Key>")[0], None)
        self._answer(b"<DeleteResult></DeleteResult>")

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            return _unchunked(body) if "aws-chunked" in self.headers.get("Content-Encoding", "") else body
        raise AssertionError("the client sends chunks")

    def _answer(self, body: bytes, status: int = 200) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", '"e"')
        self.send_header("Content-Type", "application/xml")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Write nothing."""


def _key(path: str) -> str:
    return unquote(path).removeprefix("/bucket/")


def _unchunked(body: bytes) -> bytes:
    text = b""
    while body:
        size, _, rest = body.partition(b"\r\n")
        length = int(size.partition(b";")[0], 16)
        text, body = text + rest[:length], rest[length + 2 :] if length else b""
    return text


def _listing(keys: list[str]) -> bytes:
    page, more = keys[:_PAGE], len(keys) > _PAGE
    items = "".join(
        f"<Contents><Key>{key}</Key><LastModified>2026-11-19T00:00:00Z</LastModified>"
        f"<ETag>e</ETag><Size>1</Size></Contents>"
        for key in page
    )
    token = f"<NextContinuationToken>{page[-1]}</NextContinuationToken>" if more else ""
    text = (
        f"<ListBucketResult><IsTruncated>{str(more).lower()}</IsTruncated>{token}{items}</ListBucketResult>"
    )
    return text.encode()


def _serve() -> None:
    serving = ThreadingHTTPServer(("127.0.0.1", 0), _Bucket)
    threading.Thread(target=serving.serve_forever, daemon=True).start()
    print(f"http://127.0.0.1:{serving.server_port}", flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    os.environ.setdefault("AWS_EC2_METADATA_DISABLED", "true")
    match sys.argv[1:]:
        case ["serve"]:
            _serve()
        case ["costs"]:
            print("\n".join(costs()))
        case [what, url]:
            print(json.dumps(_measure(what, url)))
