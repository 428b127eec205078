"""How fast a range of the lake becomes a zip in S3, and in what room.

Beside it: `zipfile` in memory and two libraries. The objects are served by a separate process that speaks
as much of S3 as is needed. Each way runs in its own process, all of them once in
each round; ratios are taken inside a round. What the others get is plain CSV: none can copy what is packed.

`python -m benchmarks.zip large` makes zips of 5 GiB in the function, under the local runtime's limit of
256 MB. `python -m benchmarks.zip curves` draws time and memory by size into docs/how-to/download.md.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import io
import json
import random
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import boto3
from isal.isal_zlib import crc32

from consumers.bucket import Bucket, client_config
from exporter.downloads.jobs import Job, Request, job_key, zip_key
from exporter.downloads.stored_jobs import find_job, replace_job
from exporter.lake import manifest as archive
from exporter.lake.manifest import Manifest, Part
from exporter.store import Column, Days
from exporter.zips.making import Budget, Lease, make_zip

ROUNDS = 3
FILES = 30
FILE_BYTES = 20 << 20
LARGE_BYTES = 5 << 30
LARGE_MB = 256
# Different files of a lake, of which there are many; the same few are served under many names.
CONTENTS = 3
DAY = date(2026, 1, 1)
ID = "0" * 32
LAKE = "lake"
# The formats of the lakes, by the names that the results have.
SUFFIXES = {"gz": "csv.gz", "csv": "csv"}
COLUMNS = (Column("time", "timestamp"), Column("client", "text"))
MEBIBYTE = 1 << 20
# What is drawn, by the names that the pictures have.
DRAWN = {
    "gz": "ours, from csv.gz",
    "csv": "ours, from CSV",
    "seed": "zipfile in memory",
    "stream_zip": "stream-zip",
}
DRAWN_FILES = (1, 3, 10, 30)


def run() -> dict[str, float]:
    """Return the ratios, and how much each way takes: seconds of wall and processor, MiB over its imports.

    `gz` is our worker over the lake's csv.gz, `csv` over plain CSV, `seed` is `zipfile` in memory at level 6.
    """
    seen: dict[str, dict[str, list[float]]] = {way: {} for way in WAYS}
    with server() as url:
        for number in range(ROUNDS):
            ways = list(WAYS)
            random.Random(number).shuffle(ways)
            for way in ways:
                for name, value in measured(way, url).items():
                    seen[way].setdefault(name, []).append(value)
                if number == 0:
                    check(url, way)
    seed = seen["seed"]
    numbers: dict[str, float] = {}
    for way, took in seen.items():
        for name in ("wall_s", "cpu_s"):
            ratios = [theirs / ours for theirs, ours in zip(seed[name], took[name], strict=True)]
            suffix = "" if name == "wall_s" else "_cpu"
            numbers[f"{way}_vs_seed{suffix}"] = statistics.median(ratios)
        numbers[f"{way}_wall_s"] = statistics.median(took["wall_s"])
        numbers[f"{way}_cpu_s"] = statistics.median(took["cpu_s"])
        numbers[f"{way}_peak_over_base_mib"] = max(took["peak_over_base_mib"])
        numbers[f"{way}_size_vs_seed"] = took["zip_bytes"][0] / seed["zip_bytes"][0]
    numbers["size_vs_seed"] = max(numbers["gz_size_vs_seed"], numbers["csv_size_vs_seed"])
    numbers["peak_over_base_mib"] = max(numbers["gz_peak_over_base_mib"], numbers["csv_peak_over_base_mib"])
    return numbers


# --- the ways ---------------------------------------------------------------------------------------------


def worker(kind: str, client: Any, files: int) -> None:
    """Make the zip as our worker does."""
    bucket = Bucket(client, kind, crc32)
    job = Job(ID, Request(Days(DAY, DAY + timedelta(days=files - 1))))
    replace_job(bucket, job, find_job(bucket, ID))
    found = find_job(bucket, ID)
    if found is None:
        raise RuntimeError(f"the job {ID} is not in {bucket.uri('')}")
    made = make_zip(Lease(found, bucket, time.time, "benchmark"), Budget(lambda: 900))
    if not made.state.has_zip:
        raise RuntimeError(made.to_json())


def seed(client: Any, files: int) -> None:
    """Make the zip in memory of whole files, and put it."""
    body = io.BytesIO()
    with zipfile.ZipFile(body, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as made:
        for key in _keys("csv", files):
            made.writestr(key, client.get_object(Bucket="csv", Key=key)["Body"].read())
    client.put_object(Bucket="csv", Key=zip_key(ID), Body=body.getvalue())


def by_stream_zip(client: Any, files: int) -> None:
    """Make the zip with stream-zip, at level 6."""
    from stream_zip import ZIP_32, stream_zip

    bucket = Bucket(client, "csv")
    at = datetime(2026, 1, 1, tzinfo=UTC)
    members = ((key, at, 0o100644, ZIP_32, bucket.stream(key)) for key in _keys("csv", files))
    made = stream_zip(members, get_compressobj=lambda: zlib.compressobj(6, zlib.DEFLATED, -15))
    bucket.put(zip_key(ID), made, "application/zip")


def by_zipstream_ng(client: Any, files: int) -> None:
    """Make the zip with zipstream-ng, at level 6."""
    from zipstream import ZipStream

    bucket = Bucket(client, "csv")
    made = ZipStream(compress_type=zipfile.ZIP_DEFLATED, compress_level=6)
    for key in _keys("csv", files):
        made.add(bucket.stream(key), key)
    bucket.put(zip_key(ID), made, "application/zip")


WAYS: dict[str, Callable[[Any, int], None]] = {
    "gz": partial(worker, "gz"),
    "csv": partial(worker, "csv"),
    "seed": seed,
    "stream_zip": by_stream_zip,
    "zipstream_ng": by_zipstream_ng,
}


def measure(way: str, url: str, files: int = FILES) -> dict[str, float]:
    """Make a zip and return what it took."""
    client = _client(url)
    client.head_bucket(Bucket=LAKE)  # what the first call loads is not part of it
    base = _peak_mib()
    wall, cpu = time.perf_counter(), time.process_time()
    WAYS[way](client, files)
    return {
        "wall_s": time.perf_counter() - wall,
        "cpu_s": time.process_time() - cpu,
        "peak_over_base_mib": _peak_mib() - base,
        "zip_bytes": float(_get(f"{url}/length")),
    }


def measured(way: str, url: str, files: int = FILES) -> dict[str, float]:
    """Make a zip in its own process, and return what it took."""
    command = [sys.executable, "-m", "benchmarks.zip", "measure", way, url, str(files)]
    said = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    numbers: dict[str, float] = json.loads(said)
    return numbers


def check(url: str, way: str, files: int = FILES) -> None:
    """Make sure that what was made is a zip of all of it."""
    with zipfile.ZipFile(io.BytesIO(_get(f"{url}/zip"))) as made:
        found = sum(info.file_size for info in made.infolist() if not info.filename.endswith(".json"))
        if made.testzip() is not None or found != files * len(_text(0)):
            raise RuntimeError(f"the zip of {way} has {found} bytes of files")


def _peak_mib() -> float:
    # Not getrusage: what that says begins with the parent's.
    (peak,) = re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(peak) / 1024


def _client(url: str) -> Any:
    return boto3.client(
        "s3",
        endpoint_url=url,
        region_name="us-east-1",
        aws_access_key_id="local",
        aws_secret_access_key="local",
        config=client_config(),
    )


def picture() -> dict[str, float]:
    """Draw what each way takes by the number of files, and return it. It needs matplotlib."""
    from benchmarks.curves import draw

    seen: dict[tuple[str, int], list[dict[str, float]]] = {}
    with server() as url:
        for number in range(ROUNDS):
            turns = [(way, files) for way in DRAWN for files in DRAWN_FILES]
            random.Random(number).shuffle(turns)
            for turn in turns:
                seen.setdefault(turn, []).append(measured(turn[0], url, turn[1]))

    def points(name: str, of: Callable[[list[float]], float]) -> dict[str, list[tuple[float, float]]]:
        return {
            label: [
                (files * FILE_BYTES / MEBIBYTE, of([each[name] for each in seen[way, files]]))
                for files in DRAWN_FILES
            ]
            for way, label in DRAWN.items()
        }

    time_of, memory_of = points("cpu_s", statistics.median), points("peak_over_base_mib", max)
    draw("zip-time", time_of, "MiB of CSV", "processor, s", x_scale="log", y_scale="log")
    draw("zip-memory", memory_of, "MiB of CSV", "peak over the imports, MiB")
    return {
        f"{name} {label} {mib:g} MiB": value
        for name, curves in (("cpu_s", time_of), ("peak_mib", memory_of))
        for label, curve in curves.items()
        for mib, value in curve
    }


# --- the lake, and what serves it -------------------------------------------------------------------------


def _keys(kind: str, files: int) -> list[str]:
    suffix = SUFFIXES[kind]
    return [f"{archive.folder(DAY + timedelta(days=day), suffix)}part-00000.{suffix}" for day in range(files)]


def _text(number: int) -> bytes:
    """Return a file such as an API's records make: times, few routes and clients, ids, and numbers."""
    chance = random.Random(number)
    numbers = [f"measure_{place}" for place in range(8)]
    names = ["time", "_type", "_id", "source", "route", "method", "client", "request_id", "status", *numbers]
    lines, size = [",".join(names).encode() + b"\n"], 0
    while size < FILE_BYTES:
        second = len(lines) // 3
        at = f"2026-01-01 {second // 3600 % 24:02}:{second // 60 % 60:02}:{second % 60:02}"
        values = [
            f"{at}.{chance.randrange(10**9):09}",
            f"api_request,{chance.getrandbits(96):024x},/aws/lambda/orders",
            f"/orders/{{id}}/items/{chance.randrange(20)},{chance.choice(['GET', 'GET', 'POST'])}",
            f"client-{chance.randrange(50):03},{chance.getrandbits(64):016x}",
            f"{chance.choice([200, 200, 200, 404, 500])}",
            *(f"{chance.random() * 300:.{place}f}" for place in range(8)),
        ]
        lines.append(",".join(values).encode() + b"\n")
        size += len(lines[-1])
    return b"".join(lines)[:FILE_BYTES]


class _Lake:
    """Two buckets of the same days: of csv.gz, and of plain CSV."""

    def __init__(self, files: dict[str, int]) -> None:
        texts = [_text(number) for number in range(CONTENTS)]
        self.bodies = {"csv": texts, "gz": [gzip.compress(text, 6, mtime=0) for text in texts]}
        self.sums = {
            kind: [hashlib.sha256(body).hexdigest() for body in bodies]
            for kind, bodies in self.bodies.items()
        }
        self.written: dict[str, bytes] = {}
        for kind, count in files.items():
            for day, key in enumerate(_keys(kind, count)):
                body, checksum = self.bodies[kind][day % CONTENTS], self.sums[kind][day % CONTENTS]
                part = Part(key, body.count(b"\n"), len(body), checksum, "", "", formulas=0)
                manifest = Manifest(DAY + timedelta(days=day), 1, COLUMNS, (part,), SUFFIXES[kind])
                self.written[f"/{kind}/{key.rpartition('/')[0]}/{archive.MANIFEST}"] = manifest.to_json()

    def get(self, path: str) -> bytes | None:
        """Return an object; files of the lake are few, under many names."""
        if path in self.written:
            return self.written[path]
        kind, _, key = path[1:].partition("/")
        found = key.startswith(archive.PREFIX) and key.endswith((".csv", ".csv.gz"))
        if not found:
            return None
        year, month, day = (int(part.partition("=")[2]) for part in key.split("/")[-4:-1])
        return self.bodies[kind][(date(year, month, day) - DAY).days % CONTENTS]

    def listing(self, bucket: str, prefix: str) -> bytes:
        """Return what is written under a prefix, manifests among it, as S3 lists it."""
        begin = f"{bucket.rstrip('/')}/"
        keys = [path.removeprefix(begin) for path in self.written if path.startswith(begin + prefix)]
        of_each = "<ETag>e</ETag><LastModified>2026-02-01T00:00:00.000Z</LastModified><Size>1</Size>"
        items = "".join(f"<Contents><Key>{key}</Key>{of_each}</Contents>" for key in keys)
        return f"<ListBucketResult><IsTruncated>false</IsTruncated>{items}</ListBucketResult>".encode()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    lake: _Lake
    parts: dict[int, bytes]
    keep: Path | None
    length = 0

    def handle_expect_100(self) -> bool:
        answered = super().handle_expect_100()
        self.wfile.flush()
        return answered

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        if path == "/length":
            self._answer(200, str(type(self).length).encode())
        elif path == "/zip":
            self._answer(200, b"".join(self.parts[number] for number in sorted(self.parts)))
        elif "list-type" in (query := parse_qs(urlsplit(self.path).query)):
            self._answer(200, self.lake.listing(path, query["prefix"][0]))
        elif (body := self.lake.get(path)) is None:
            self._answer(404, b"<Error><Code>NoSuchKey</Code></Error>")
        else:
            self._answer(200, body)

    def do_HEAD(self) -> None:
        self._answer(200, b"")

    def do_PUT(self) -> None:
        url = urlsplit(self.path)
        number = parse_qs(url.query).get("partNumber")
        body = self.rfile.read(int(self.headers["content-length"]))
        if number is None and not url.path.endswith(".zip"):
            self.lake.written[unquote(url.path)] = body
        else:
            if number is None or number == ["1"]:
                self.parts.clear()
                type(self).length = 0
            type(self).length += len(body)
            if self.keep is None:
                self.parts[int((number or ["1"])[0])] = body
            else:  # too much for the memory: to a file, in order
                with self.keep.open("wb" if number == ["1"] else "ab") as file:
                    file.write(body)
        self._answer(200, b"")

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0)).decode()
        if self.path.endswith("?delete"):
            for key in re.findall("<Key>(.*?)</Key>", body):
                self.lake.written.pop(f"{urlsplit(self.path).path}/{key}", None)
            return self._answer(200, b"<DeleteResult></DeleteResult>")
        begun = b"<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>"
        ended = b"<CompleteMultipartUploadResult><ETag>e</ETag></CompleteMultipartUploadResult>"
        return self._answer(200, begun if "uploads" in self.path else ended)

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response_only(status)
        self.send_header("ETag", '"e"')
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def serve(files: dict[str, int], keep: Path | None) -> None:
    """Serve the lake until the input ends; the address is the first line of the output."""
    _Handler.lake, _Handler.parts, _Handler.keep = _Lake(files), {}, keep
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(f"http://127.0.0.1:{server.server_port}", flush=True)
    sys.stdin.read()


@contextmanager
def server(files: dict[str, int] | None = None, keep: Path | None = None) -> Iterator[str]:
    wanted = json.dumps({"files": files or {"csv": FILES, "gz": FILES}, "keep": keep and str(keep)})
    command = [sys.executable, "-m", "benchmarks.zip", "serve", wanted]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        yield process.stdout.readline().strip()
        process.stdin.close()


def _get(url: str) -> bytes:
    with urllib.request.urlopen(url) as answer:
        body: bytes = answer.read()
    return body


# --- a large range in a small function --------------------------------------------------------------------


def large(programs: Iterable[str]) -> dict[str, float]:
    """Make zips of 5 GiB of csv.gz and of 5 GiB of CSV in the function, in 256 MB, and test them.

    Args:
        programs: Commands that test a zip, which is given as their last argument.
    """
    numbers: dict[str, float] = {}
    text = _text(0)
    sizes = {"csv": len(text), "gz": len(gzip.compress(text, 6, mtime=0))}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "large.zip"
        for kind, size in sizes.items():
            files = -(-LARGE_BYTES // size)
            with server({kind: files}, path) as url:
                numbers |= {
                    f"{kind}_{name}": value for name, value in _in_the_function(url, kind, files).items()
                }
            for program in programs:
                subprocess.run([*program.split(), path], check=True, stdout=subprocess.DEVNULL)
            _verify(path, files)
    return numbers


def _verify(path: Path, files: int) -> None:
    """Make sure that a zip has all its files: by the directory all, and the first, middle and last whole."""
    texts = [_text(number) for number in range(CONTENTS)]
    known = [(len(text), zlib.crc32(text)) for text in texts]
    with zipfile.ZipFile(path) as made:
        members = [info for info in made.infolist() if info.filename.endswith(".csv")]
        said = json.loads(made.read("manifest.json"))["files"]
        wrong = [
            info.filename
            for place, info in enumerate(members)
            if (info.file_size, info.CRC) != known[place % CONTENTS]
        ]
        names = [info.filename for info in members] == [each["name"] for each in said]
        whole = all(
            made.read(members[place]) == texts[place % CONTENTS] for place in (0, files // 2, files - 1)
        )
    if len(members) != files or wrong or not names or not whole:
        raise RuntimeError(f"{path} has {len(members)} of {files} files, of which {len(wrong)} are wrong")


def _in_the_function(url: str, kind: str, files: int) -> dict[str, float]:
    from onemachine.functions import Function, Functions

    from tests.builders import sqs_event

    job = Job(ID, Request(Days(DAY, DAY + timedelta(days=files - 1))))
    bucket = Bucket(_client(url), kind)
    replace_job(bucket, job, find_job(bucket, ID))
    lines: list[str] = []
    root = Path(__file__).resolve().parent.parent
    shared = {
        "AWS_ACCESS_KEY_ID": "local",
        "AWS_SECRET_ACCESS_KEY": "local",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": url,
        "POWERTOOLS_METRICS_NAMESPACE": "Tagline",
        "POWERTOOLS_SERVICE_NAME": "tagline",
    }
    functions = Functions(
        lambda _group, _stream, events: lines.extend(message for _, message in events), shared
    )
    environment = {"BUCKET": kind, "DOWNLOAD_QUEUE_URL": f"{url}/queue"}
    functions.add(
        Function(
            "zipper",
            "exporter.zips.handler.handler",
            LARGE_MB,
            900,
            environment,
            "/zipper",
            root,
            (root / "emitter",),
        )
    )
    began = time.perf_counter()
    result = functions.invoke("zipper", json.dumps(sqs_event(job.to_json())).encode())
    took = time.perf_counter() - began
    functions.stop()
    ended = Job.from_json(bucket.get(job_key(ID)) or b"")
    if result.error or not ended.state.has_zip:
        raise RuntimeError(f"{result.payload.decode()} {ended.to_json()}")
    used = [
        int(line.partition("Max Memory Used: ")[2].split()[0]) for line in lines if "Max Memory Used" in line
    ]
    return {
        "large_s": took,
        "large_read_gib": (ended.done_bytes or 0) / 1024**3,
        "large_zip_gib": int(_get(f"{url}/length")) / 1024**3,
        "large_memory_mb": float(max(used)),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.zip")
    commands = parser.add_subparsers(dest="command", required=True)
    of_measure = commands.add_parser("measure")
    of_measure.add_argument("way")
    of_measure.add_argument("url")
    of_measure.add_argument("files", type=int)
    commands.add_parser("curves")
    commands.add_parser("serve").add_argument("wanted", type=json.loads)
    commands.add_parser("large").add_argument(
        "programs", nargs="*", help="programs to test the zips with: 'unzip -tqq'"
    )
    given = parser.parse_args()
    if given.command == "serve":
        serve(given.wanted["files"], given.wanted["keep"] and Path(given.wanted["keep"]))
    elif given.command == "measure":
        print(json.dumps(measure(given.way, given.url, given.files)))
    elif given.command == "curves":
        print(json.dumps(picture(), indent=2))
    else:
        print(json.dumps(large(given.programs), indent=2))
