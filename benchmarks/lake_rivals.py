"""A batch of 2,000 lines into S3 by what else writes tables there: microseconds of this process a row.

Each makes one Arrow table of the decoded lines, with objects as JSON, and writes one file: pyarrow and
awswrangler a Parquet object, deltalake and pyiceberg a file and a commit. S3 is moto in another process; the
Iceberg catalog is SQLite in memory. A writer that is not installed is left out.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import os
import statistics
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import boto3
import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks import consume

ROUNDS = 15
BUCKET = "rivals"
_SERVER = (
    "from moto.server import ThreadedMotoServer as Server; server = Server(port=0, verbose=False); "
    "server.start(); print(server.get_host_and_port()[1], flush=True); input()"
)

Write = Callable[[pa.Table], None]


def run() -> dict[str, float]:
    """Return the CPU per row of each writer that is installed."""
    lines = [orjson.loads(line) for line in consume.lines(consume.TAGGED)]
    with consume.environment(), s3() as endpoint:
        client = boto3.client("s3", endpoint_url=endpoint)
        client.create_bucket(Bucket=BUCKET)
        makers: dict[str, Callable[[str, Any], Write]] = {
            "pyarrow": with_pyarrow,
            "awswrangler": with_awswrangler,
            "deltalake": with_deltalake,
            "pyiceberg": with_pyiceberg,
        }
        return {
            f"{name}_write_cpu_us_per_row": cpu(make(endpoint, client), lines)
            for name, make in makers.items()
            if importlib.util.find_spec(name)
        }


def cpu(write: Write, lines: list[dict[str, Any]]) -> float:
    """Return the median CPU of writing lines, in microseconds a row."""
    write(table_of(lines))  # imports and connections
    used = []
    for _ in range(ROUNDS):
        began = time.process_time()
        write(table_of(lines))
        used.append((time.process_time() - began) / len(lines) * 1e6)
    return statistics.median(used)


def table_of(lines: list[dict[str, Any]]) -> pa.Table:
    """Return lines as a table: an object is text that holds JSON."""
    return pa.Table.from_pylist([{name: _flat(value) for name, value in line.items()} for line in lines])


def _flat(value: Any) -> Any:
    return orjson.dumps(value).decode() if isinstance(value, dict | list) else value


def with_pyarrow(_endpoint: str, client: Any) -> Write:
    """Return what writes a Parquet object by pyarrow and boto3."""

    def write(table: pa.Table) -> None:
        file = io.BytesIO()
        pq.write_table(table, file, compression="zstd")
        client.put_object(Bucket=BUCKET, Key=f"pyarrow/{uuid.uuid4()}.parquet", Body=file.getvalue())

    return write


def with_awswrangler(endpoint: str, _client: Any) -> Write:
    """Return what writes a Parquet object by awswrangler, which takes a DataFrame."""
    import awswrangler

    awswrangler.config.s3_endpoint_url = endpoint

    def write(table: pa.Table) -> None:
        awswrangler.s3.to_parquet(
            table.to_pandas(), f"s3://{BUCKET}/awswrangler/{uuid.uuid4()}.parquet", compression="zstd"
        )

    return write


def with_deltalake(endpoint: str, _client: Any) -> Write:
    """Return what appends to a Delta table."""
    import deltalake

    options: Mapping[str, str] = {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ALLOW_HTTP": "true",
        "AWS_ACCESS_KEY_ID": "x",
        "AWS_SECRET_ACCESS_KEY": "x",
        "AWS_REGION": "us-east-1",
        "conditional_put": "etag",
    }

    def write(table: pa.Table) -> None:
        deltalake.write_deltalake(
            f"s3://{BUCKET}/deltalake", table, mode="append", storage_options=dict(options)
        )

    return write


def with_pyiceberg(endpoint: str, _client: Any) -> Write:
    """Return what appends to an Iceberg table."""
    from pyiceberg.catalog.sql import SqlCatalog

    catalog = SqlCatalog(
        "benchmark",
        **{
            "uri": "sqlite:///:memory:",
            "warehouse": f"s3://{BUCKET}/pyiceberg",
            "s3.endpoint": endpoint,
            "s3.access-key-id": "x",
            "s3.secret-access-key": "x",
            "s3.region": "us-east-1",
        },
    )
    catalog.create_namespace("benchmark")

    def write(table: pa.Table) -> None:
        catalog.create_table_if_not_exists("benchmark.records", table.schema).append(table)

    return write


@contextlib.contextmanager
def s3() -> Iterator[str]:
    """Give the address of an S3 in another process."""
    with subprocess.Popen(
        [sys.executable, "-c", _SERVER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=os.environ,
    ) as process:
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.terminate()


if __name__ == "__main__":
    print(orjson.dumps(run(), option=orjson.OPT_INDENT_2).decode())
