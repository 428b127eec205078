"""What a day's export costs: rows a second and memory, beside the simplest way and awswrangler.

Timestream and S3 are servers of this file in their own processes, shaped like theirs and as quick as may
be, so that what is measured is the client. Each way runs in its own process, all of them once in each
round, and ratios are taken within a round. `csv_vs_seed` and `parquet_vs_seed` are of rows a second by the
clock, `..._cpu` by the client's processor time.

`python -m benchmarks.export --rows 10000000` runs the memory's part with other numbers of rows.
"""

import argparse
import asyncio
import contextlib
import hashlib
import importlib.abc
import io
import json
import os
import random
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import date, datetime, timedelta
from functools import partial
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from consumers.bucket import Bucket
    from exporter.lake.manifest import Manifest

# Exports, and gives what tells afterwards how many rows there are.
Way = Callable[[], Callable[[], int]]

# As the function DailyExporter has it in template.yml.
ALLOCATOR = {"MALLOC_ARENA_MAX": "1"}
ROUNDS = 5
ROWS = 100_800  # 70 a minute
MANY_ROWS = 1_008_000
PAGE_ROWS = 1_000
DAY = date(2026, 11, 19)
COLUMNS = [
    *(("time", "TIMESTAMP"), ("measure_name", "VARCHAR"), ("_id", "VARCHAR"), ("source", "VARCHAR")),
    *(("route", "VARCHAR"), ("method", "VARCHAR"), ("client", "VARCHAR")),
    *((f"note_{number}", "VARCHAR") for number in range(5)),
    *((f"number_{number}", "DOUBLE") for number in range(5)),
    *(("item_count", "BIGINT"), ("ok", "BOOLEAN"), ("error_type", "VARCHAR")),
]


def run() -> dict[str, float]:
    """Measure.

    Returns:
        For each way rows a second (`..._rows_per_s`) and microseconds of processor time for a row
        (`..._cpu_us`), both medians; the ratios; and the peak of memory over that of the imports in MiB
        (`..._peak_over_base_mib`), for 100,000 rows and, with `_1m` behind it, for a million.
    """
    numbers: dict[str, float] = {}
    with servers() as environment:
        rounds = []
        for number in range(ROUNDS):
            ways = list(WAYS)
            random.Random(number).shuffle(ways)
            rounds.append({way: measured(way, ROWS, environment) for way in ways})
        for way in WAYS:
            numbers[f"{way}_rows_per_s"] = statistics.median(ROWS / each[way]["seconds"] for each in rounds)
            numbers[f"{way}_cpu_us"] = statistics.median(each[way]["cpu"] * 1e6 / ROWS for each in rounds)
            numbers[f"{way}_peak_over_base_mib"] = statistics.median(each[way]["peak"] for each in rounds)
        for way in ("csv", "parquet", "jsonl", "wrangler_csv", "wrangler_parquet"):
            for name, of in (("vs_seed", "seconds"), ("vs_seed_cpu", "cpu")):
                numbers[f"{way}_{name}"] = statistics.median(
                    each["seed"][of] / each[way][of] for each in rounds
                )
        for way in ("csv", "parquet"):
            numbers[f"{way}_peak_over_base_mib_1m"] = measured(way, MANY_ROWS, environment)["peak"]
    return numbers


def measured(way: str, rows: int, environment: dict[str, str]) -> dict[str, float]:
    """Run a way in its own process.

    Returns:
        `seconds` by the clock and of processor time (`cpu`), and `peak`, the MiB over what imports take.
    """
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.export", "--way", way, "--rows", str(rows)],
        env={
            **os.environ,
            **environment,
            **(ALLOCATOR if way in OURS else {}),
            "BENCHMARK_ROWS": str(rows),
        },
        check=True,
        capture_output=True,
        text=True,
    )
    numbers: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return numbers


# --- the ways ---------------------------------------------------------------------------------------------


def _ours(kind: str) -> Way:
    import boto3
    from botocore.config import Config

    from consumers.bucket import Bucket, client_config
    from exporter.export.day import export_day
    from exporter.lake.days import Day
    from exporter.lake.formats import Format, module_of
    from exporter.stores.timestream import Timestream

    if kind == "parquet":
        # pyarrow looks for pandas at its first array, and loads it where it is. The function ships none.
        sys.meta_path.insert(0, _WithoutPandas())
    module_of(Format(kind).rules.unpacked)  # imports are part of the base
    table = f"{kind}_{os.environ['BENCHMARK_ROWS']}"
    store = Timestream(boto3.client("timestream-query", config=Config(read_timeout=70)), "app", table)
    config = client_config().merge(Config(s3={"addressing_style": "path"}))
    bucket = Bucket(boto3.client("s3", config=config), f"lake-{os.getpid()}")

    def export() -> Callable[[], int]:
        manifest = export_day(Day(bucket, DAY, Format(kind)), store).manifest
        return lambda: _read_back(manifest, bucket)

    return export


def _read_back(manifest: "Manifest", bucket: "Bucket") -> int:
    """Return how many rows the lake has, each of them one that the store had."""
    from exporter.lake.formats import Format

    names = ["_type" if name == "measure_name" else name for name, _ in COLUMNS]
    numbers = {name for name, kind in COLUMNS if kind == "DOUBLE"}
    places = [names.index(column.name) for column in manifest.columns]
    known = set()
    for number in range(PAGE_ROWS):
        row = _row(number)
        texts = [
            (value or "").removesuffix(".0") if name in numbers else value
            for name, value in zip(names, row, strict=True)
        ]
        known.add(tuple(texts[place] for place in places))
    rows = 0
    for part in manifest.parts:
        sha256 = hashlib.sha256()

        def summed(key: str = part.key, sha256: Any = sha256) -> Iterator[bytes]:
            for chunk in bucket.stream(key):
                sha256.update(chunk)
                yield chunk

        for batch in Format(manifest.format).read(summed(), manifest.columns):
            rows += len(batch.rows)
            if not known.issuperset((f"{DAY} 00:00{time[16:]}", *rest) for time, *rest in batch.rows if time):
                raise AssertionError(f"{part.key} has a row that the store has not")
        if sha256.hexdigest() != part.sha256:
            raise AssertionError(f"{part.key} is not what its manifest says")
    return rows


class _WithoutPandas(importlib.abc.MetaPathFinder):
    def find_spec(self, fullname: str, _path: Any, _target: Any = None) -> None:
        if fullname == "pandas":
            raise ModuleNotFoundError(fullname)


def _seed() -> Way:
    """Return the simplest way: what many write first."""
    import csv

    import boto3

    query = boto3.client("timestream-query")
    s3 = boto3.client("s3", config=_path_style())

    def export() -> Callable[[], int]:
        text = io.StringIO()
        writer = csv.writer(text)
        rows = 0
        for page in query.get_paginator("query").paginate(QueryString=_question("seed")):
            if not rows:
                writer.writerow([column["Name"] for column in page["ColumnInfo"]])
            for row in page["Rows"]:
                writer.writerow([datum.get("ScalarValue") for datum in row["Data"]])
                rows += 1
        s3.put_object(Bucket="lake-seed", Key="day.csv", Body=text.getvalue().encode())
        return lambda: rows

    return export


def _wrangler(kind: str) -> Way:
    import awswrangler as wr

    endpoint = os.environ["AWS_ENDPOINT_URL"]
    wr.config.s3_endpoint_url = os.environ["AWS_ENDPOINT_URL_S3"]
    wr.config.timestream_query_endpoint_url = endpoint

    def export() -> Callable[[], int]:
        rows = 0
        chunks = wr.timestream.query(_question("wrangler"), chunked=True)
        for number, frame in enumerate(_of_rows(chunks, 50_000)):
            rows += len(frame)
            path = f"s3://lake-wrangler/day/part-{number}"
            if kind == "csv":
                wr.s3.to_csv(frame, f"{path}.csv.gz", index=False, compression="gzip")
            else:
                wr.s3.to_parquet(frame, f"{path}.parquet", compression="zstd")
        return lambda: rows

    return export


def _of_rows(frames: Iterator[Any], rows: int) -> Iterator[Any]:
    """Yield frames of so many rows together: one object for each page would be one for each thousand rows."""
    import pandas as pd

    some: list[Any] = []
    for frame in frames:
        some.append(frame)
        if sum(map(len, some)) >= rows:
            yield pd.concat(some, ignore_index=True)
            some = []
    if some:
        yield pd.concat(some, ignore_index=True)


OURS = {"csv": "csv.gz", "parquet": "parquet", "jsonl": "jsonl.gz"}
WAYS: dict[str, Callable[[], Way]] = {
    "seed": _seed,
    **{way: partial(_ours, kind) for way, kind in OURS.items()},
    "wrangler_csv": lambda: _wrangler("csv"),
    "wrangler_parquet": lambda: _wrangler("parquet"),
}


def _path_style() -> Any:
    from botocore.config import Config

    return Config(s3={"addressing_style": "path"})


def _question(who: str) -> str:
    return (
        f'SELECT * FROM "app"."{who}_{os.environ["BENCHMARK_ROWS"]}" '
        "WHERE time >= TIMESTAMP '2026-11-19 00:00:00.000000000' "
        "AND time < TIMESTAMP '2026-11-20 00:00:00.000000000' ORDER BY time"
    )


def _measure(way: str, rows: int) -> dict[str, float]:
    export = WAYS[way]()
    base = _resident_mib()
    began, cpu = time.perf_counter(), time.process_time()
    read_back = export()
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    # Kilobytes on Linux.
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    if (there := read_back()) != rows:
        raise AssertionError(f"{way} exported {there} rows of {rows}")
    return {"seconds": seconds, "cpu": cpu, "peak": peak - base}


def _resident_mib() -> float:
    with open("/proc/self/statm", encoding="ascii") as statm:  # noqa: PTH123 - a benchmark of Linux
        return int(statm.read().split()[1]) * resource.getpagesize() / (1 << 20)


# --- the servers ------------------------------------------------------------------------------------------


@contextlib.contextmanager
def servers() -> Iterator[dict[str, str]]:
    """Run both servers in their own processes, and give the variables by which clients find them."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "benchmarks.export", "--serve", name], stdout=subprocess.PIPE, text=True
        )
        for name in ("timestream", "s3")
    ]
    try:
        timestream, s3 = (f"http://127.0.0.1:{_line(process)}" for process in processes)
        yield {
            "AWS_ENDPOINT_URL": timestream,
            "AWS_ENDPOINT_URL_S3": s3,
            "AWS_ACCESS_KEY_ID": "nobody",
            "AWS_SECRET_ACCESS_KEY": "nobody",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }
    finally:
        for process in processes:
            process.terminate()
            process.wait()
            if process.stdout:
                process.stdout.close()


def _line(process: "subprocess.Popen[str]") -> str:
    assert process.stdout
    return process.stdout.readline().strip()


def _row(number: int) -> list[str | None]:
    chance = random.Random(number)
    return [
        f"{DAY} 00:00:{number % 60:02}.{chance.randrange(10**9):09}",
        *("api_request", f"{chance.getrandbits(128):032x}", "/aws/lambda/orders"),
        *(
            f"/orders/{chance.randrange(40)}",
            chance.choice(["GET", "POST"]),
            f"client-{chance.randrange(90)}",
        ),
        *(f"note {chance.randrange(10_000)} {'x' * chance.randrange(20)}" for _ in range(5)),
        *(f"{chance.randrange(10_000) / 4}" for _ in range(5)),
        *(str(chance.randrange(9)), chance.choice(["true", "false"]), None),
    ]


class _Timestream:
    """Pages of a table whose minutes all have as many rows; the table's name ends in how many rows it has."""

    def __init__(self) -> None:
        self._rows = [
            json.dumps(
                {"Data": [{"NullValue": True} if v is None else {"ScalarValue": v} for v in _row(number)]}
            )
            for number in range(PAGE_ROWS)
        ]
        self._info = json.dumps([{"Name": name, "Type": {"ScalarType": kind}} for name, kind in COLUMNS])
        self._columns: dict[str, str] = {}
        self.address = ""

    def answer(self, _method: str, _target: str, headers: dict[str, str], body: bytes) -> bytes:
        """Return what answers a request."""
        if headers.get("x-amz-target", "").endswith("DescribeEndpoints"):
            return json.dumps({"Endpoints": [{"Address": self.address, "CachePeriodInMinutes": 60}]}).encode()
        request = json.loads(body)
        sql = request["QueryString"]
        per_minute = int(re.findall(r'_(\d+)" WHERE', sql)[0]) // 1440
        if " GROUP BY " in sql:
            minutes = [(f"2026-11-19 {m // 60:02}:{m % 60:02}:00.000000000", per_minute) for m in range(1440)]
            data = [{"Data": [{"ScalarValue": when}, {"ScalarValue": str(n)}]} for when, n in minutes]
            info = json.dumps(
                [
                    {"Name": f"_col{number}", "Type": {"ScalarType": kind}}
                    for number, kind in enumerate(("TIMESTAMP", "BIGINT"))
                ]
            )
            return self._document(json.dumps(data)[1:-1], info, None)
        if sql.endswith(" LIMIT 1"):
            return self._document(self._rows[0], self._info, None)
        if "SELECT *" not in sql:
            self._arrange(sql)
        start, end = (datetime.fromisoformat(time[:19]) for time in re.findall(r"TIMESTAMP '(.*?)'", sql))
        rows = int((end - start).total_seconds()) // 60 * per_minute
        at = int(request.get("NextToken") or 0)
        size = min(PAGE_ROWS, rows - at)
        page = ",".join(self._of_minutes(start, at, size, per_minute))
        return self._document(page, self._info, str(at + size) if at + size < rows else None)

    def _of_minutes(self, start: datetime, at: int, size: int, per_minute: int) -> Iterator[str]:
        """Yield the rows of each minute, with its time: the client compares them with the tally."""
        end = at + size
        while at < end:
            count = min(end - at, per_minute - at % per_minute)
            rows = ",".join(self._rows[at % PAGE_ROWS :][:count])
            minute = start + timedelta(minutes=at // per_minute)
            yield rows.replace(f'"{DAY} 00:00:', f'"{minute:%Y-%m-%d %H:%M}:')
            at += count

    @staticmethod
    def _document(rows: str, info: str, token: str | None) -> bytes:
        more = f',"NextToken":"{token}"' if token else ""
        status = '{"ProgressPercentage":100.0,"CumulativeBytesScanned":1,"CumulativeBytesMetered":1}'
        return f'{{"QueryId":"q","QueryStatus":{status},"ColumnInfo":{info},"Rows":[{rows}]{more}}}'.encode()

    def _arrange(self, sql: str) -> None:
        """Bring the rows into the order of the columns that are asked for by name."""
        asked = re.findall(r'(?:measure_name AS )?"(\w+)"', sql.partition(" FROM ")[0])
        expected = ["_type" if name == "measure_name" else name for name, _ in COLUMNS]
        if sorted(asked) != sorted(expected):
            raise AssertionError(f"{asked} was asked for")
        if asked != expected:
            order = [expected.index(name) for name in asked]
            for number, text in enumerate(self._rows):
                data = json.loads(text)["Data"]
                self._rows[number] = json.dumps({"Data": [data[place] for place in order]})
            COLUMNS[:] = [COLUMNS[place] for place in order]
            self._info = json.dumps([{"Name": name, "Type": {"ScalarType": kind}} for name, kind in COLUMNS])


class _S3:
    """Keeps what is uploaded."""

    def __init__(self) -> None:
        self._kept: dict[str, IO[bytes]] = {}

    def answer(self, method: str, target: str, _headers: dict[str, str], body: bytes) -> bytes | None:
        """Return what answers a request, None for what is not there."""
        path, _, query = target.partition("?")
        if method == "GET":
            if "list-type" in query:
                return b"<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>"
            return self._read(path)
        if method == "PUT":
            # Parts come one after the other.
            if "partNumber=" not in query or "partNumber=1&" in f"{query}&":
                self._kept[path] = tempfile.TemporaryFile()  # noqa: SIM115 - it is gone with the process
            self._kept[path].write(body)
        if method == "POST" and query.startswith("uploads"):
            return b"<InitiateMultipartUploadResult><UploadId>1</UploadId></InitiateMultipartUploadResult>"
        if method == "POST" and "uploadId" in query:
            return b"<CompleteMultipartUploadResult><ETag>e</ETag></CompleteMultipartUploadResult>"
        if method == "POST":
            return b"<DeleteResult/>"
        return b""

    def _read(self, path: str) -> bytes | None:
        if path not in self._kept:
            return None
        self._kept[path].seek(0)
        return self._kept[path].read()


async def _serve(name: str) -> None:
    service: Any = _Timestream() if name == "timestream" else _S3()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
                method, target, _ = head[0].split(" ")
                headers = {
                    key.lower(): value
                    for key, _, value in (line.partition(": ") for line in head[1:] if line)
                }
                if headers.get("expect") == "100-continue":
                    writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                answer = service.answer(method, target, headers, body)
                status = "200 OK" if answer is not None else "404 Not Found"
                body = b"<Error><Code>NoSuchKey</Code></Error>" if answer is None else answer
                writer.write(
                    f'HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nETag: "e"\r\n\r\n'.encode() + body
                )
                await writer.drain()
        writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0, limit=1 << 24)
    port = server.sockets[0].getsockname()[1]
    service.address = f"http://127.0.0.1:{port}"
    print(port, flush=True)
    await server.serve_forever()


def main() -> None:
    """Be a server, a way, or the measurement of the ways with other numbers of rows."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.export", description=__doc__)
    parser.add_argument("--serve", choices=("timestream", "s3"), help="be a server until the end")
    parser.add_argument("--way", choices=list(WAYS), help="run one way, between servers that are there")
    parser.add_argument("--rows", type=int, default=MANY_ROWS, help="rows; a multiple of 1,440")
    arguments = parser.parse_args()
    if arguments.serve:
        with contextlib.suppress(KeyboardInterrupt):
            asyncio.run(_serve(arguments.serve))
    elif arguments.way:
        print(json.dumps(_measure(arguments.way, arguments.rows)))
    else:
        rows = arguments.rows // 1440 * 1440
        with servers() as environment:
            for way in ("csv", "parquet"):
                print(way, rows, json.dumps(measured(way, rows, environment)))


if __name__ == "__main__":
    main()
