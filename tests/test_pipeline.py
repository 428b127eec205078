"""The whole chain on one machine: a call in a handler comes out of a downloaded zip."""

import csv
import io
import json
import zipfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import requests
from onemachine.faults import Fault, Kind
from onemachine.pipeline import Pipeline
from rich.console import Console
from rich.progress import Progress
from tagline import Record, write

from cli import feed, stages
from cli.download import fetch_zip
from cli.target import target_of
from consumers.lines.subscription import encode
from consumers.rows.table import offset
from exporter.store import Days
from tests.apps import quarantined
from tests.builders import CONTROL, envelope

pytestmark = pytest.mark.tagline(processes=True)


@pytest.fixture
def pipeline(tagline: Pipeline) -> Pipeline:
    return tagline


def rows(pipeline: Pipeline) -> list[tuple[str | None, ...]]:
    """Return all rows of the store, each as the store says it, sorted."""
    return sorted(map(tuple, target_of(pipeline).store().sql("SELECT * FROM {table}").rows), key=str)


def call(pipeline: Pipeline, path: str, client: str = "acme") -> int:
    url = pipeline.outputs["sample"]["SampleApiUrl"] + path
    return requests.get(url, headers={"x-client": client}, timeout=60).status_code


@contextmanager
def access_log(path: Path, count: int) -> Iterator[feed.AccessLog]:
    """Write an access log in which many requests share a second, a client and a route."""
    path.write_text(
        "".join(
            f"192.0.2.{number % 3} - - [{17 + number // 400}/May/2015:10:05:{number % 60 // 20:02} +0000] "
            f'"GET /item/{number % 7}?n={number} HTTP/1.1" 200 {number} "-" "agent"\n'
            for number in range(count)
        )
    )
    with feed.open_access_log(path) as log:
        yield log


def quiet() -> Progress:
    return Progress(console=Console(file=io.StringIO()))


def test_a_call_in_a_handler_comes_out_of_a_downloaded_zip(pipeline: Pipeline, tmp_path: Path) -> None:
    where = target_of(pipeline)

    assert [call(pipeline, path) for path in ("/pets", "/pets/1", "/pets/9", "/fail")] == [200, 200, 404, 500]
    pipeline.settle()
    days = where.store().days()
    assert days is not None
    for day in days:
        where.invoke("DailyExporterName", {"day": day.isoformat()})
    with quiet() as bars:
        fetch_zip(where, days, tmp_path / "usage.zip", bars)

    with zipfile.ZipFile(tmp_path / "usage.zip") as zipped:
        assert zipped.testzip() is None
        names = [name for name in zipped.namelist() if name.endswith(".csv")]
        read = [row for name in names for row in csv.DictReader(io.TextIOWrapper(zipped.open(name), "utf-8"))]
    assert Counter((row["route"], row["status"], row["error_type"]) for row in read) == {
        ("/pets", "200", ""): 1,
        ("/pets/{id}", "200", ""): 1,
        ("/pets/{id}", "404", ""): 1,
        ("/fail", "500", "RuntimeError"): 1,
    }
    assert {row["client"] for row in read} == {"acme"}
    assert {row["source"] for row in read} == {"/aws/lambda/sample-SampleApi"}


def test_every_stage_counts_the_same(pipeline: Pipeline) -> None:
    where = target_of(pipeline)

    feed.send_requests(where, 60, lambda _: None)
    pipeline.settle()

    assert stages.emitted(where).records == 60
    assert stages.delivered(where).records == 60
    assert where.store().count() == 60
    assert stages.quarantined(where) == {}


def test_feeding_a_file_again_changes_nothing_also_when_the_first_time_was_killed_half_way(
    pipeline: Pipeline, tmp_path: Path
) -> None:
    where = target_of(pipeline)
    said = 0

    class KilledError(Exception):
        pass

    def kill_half_way(count: int) -> None:
        nonlocal said
        said += count
        if said >= 500:
            # The emitter's process and the consumer's, in the middle of whatever they do.
            pipeline.functions.kill(where.samples["AccessLogReplayName"])
            pipeline.functions.kill(where.outputs["RowConsumerName"])
            raise KilledError

    with access_log(tmp_path / "access.log", 1_500) as log:
        with pytest.raises(KilledError):
            feed.send_access_log(where, log, kill_half_way)
        feed.send_access_log(where, log, lambda _: None)
        pipeline.settle()
        first = rows(pipeline)
        feed.send_access_log(where, log, lambda _: None)
        pipeline.settle()

    assert len(first) == 1_500
    assert rows(pipeline) == first


def test_a_store_that_throttles_the_first_three_calls_gets_every_record(pipeline: Pipeline) -> None:
    pipeline.services.faults.add(Fault(Kind.THROTTLE, "timestream", "WriteRecords", times=3))

    for _ in range(20):
        call(pipeline, "/")
    pipeline.settle()

    assert target_of(pipeline).store().count() == 20


def test_what_cannot_be_read_is_quarantined_and_its_neighbours_are_stored(pipeline: Pipeline) -> None:
    where = target_of(pipeline)
    kinesis = pipeline.client("kinesis")
    for data in (
        encode(CONTROL),
        b"no gzip at all",
        encode(envelope("usage_record and no JSON"))[:-9],
        encode(envelope("usage_record and no JSON", "noise")),
    ):
        kinesis.put_record(StreamName=where.outputs["StreamName"], Data=data, PartitionKey="k")

    call(pipeline, "/pets")
    pipeline.settle()

    assert where.store().count() == 1
    assert quarantined(pipeline) == {"undecodable": 2, "unparseable": 1}


def test_the_daily_schedule_exports_the_day_before(pipeline: Pipeline) -> None:
    where = target_of(pipeline)

    (result,) = pipeline.scheduler.tick(where.outputs["DailyExporterName"])

    (day,) = json.loads(result.payload)["days"]
    assert (datetime.now(UTC).date() - datetime.fromisoformat(day["day"]).date()).days in (1, 2)
    assert day["rows"] == 0


def test_rows_that_come_after_the_export_are_in_the_next_revision_and_in_the_next_download(
    pipeline: Pipeline, tmp_path: Path
) -> None:
    where = target_of(pipeline)
    kinesis = pipeline.client("kinesis")
    noon = datetime.now(UTC).replace(hour=12, minute=0, second=0, microsecond=0) - timedelta(days=2)

    def say(*identities: str) -> None:
        lines = (
            write(Record(id=name, timestamp=int(noon.timestamp() * 1000), fields={"route": "/"}))
            for name in identities
        )
        data = encode(envelope(*lines))
        kinesis.put_record(StreamName=where.outputs["StreamName"], Data=data, PartitionKey="k")
        pipeline.settle()

    def downloaded() -> list[str]:
        with quiet() as bars:
            fetch_zip(where, Days(noon.date(), noon.date()), tmp_path / "day.zip", bars)
        with zipfile.ZipFile(tmp_path / "day.zip") as zipped:
            names = [name for name in zipped.namelist() if name.endswith(".csv")]
            texts = [io.TextIOWrapper(zipped.open(name), "utf-8") for name in names]
            return sorted(row["_id"] for text in texts for row in csv.DictReader(text))

    say("a", "b")
    (first,) = where.invoke("DailyExporterName", {"day": noon.date().isoformat()})["days"]
    before = downloaded()
    say("late")
    (result,) = pipeline.scheduler.tick(where.outputs["DailyExporterName"])
    told = {day["day"]: day for day in json.loads(result.payload)["days"]}

    assert (first["rows"], first["revision"], before) == (2, 1, ["a", "b"])
    again = told[noon.date().isoformat()]
    assert (again["rows"], again["revision"], downloaded()) == (3, 2, ["a", "b", "late"])


@pytest.mark.tagline(processes=False)
def test_functions_run_in_this_process_where_they_have_to(pipeline: Pipeline, tmp_path: Path) -> None:
    where = target_of(pipeline)

    assert pipeline.functions.runs_in_process
    assert call(pipeline, "/pets/1") == 200
    with access_log(tmp_path / "access.log", 30) as log:
        feed.send_access_log(where, log, lambda _: None)
    pipeline.settle()

    assert where.store().count() == 31


def meeting(count: int) -> list[str]:
    """Return identities of different records that meet at one point."""
    found: dict[int, list[str]] = {}
    while True:
        number = sum(map(len, found.values()))
        alike = found.setdefault(offset(f"r{number}", 0), [])
        alike.append(f"r{number}")
        if len(alike) == count:
            return alike


@pytest.mark.tagline(processes=False)
def test_rows_that_meet_in_the_magnetic_store_are_in_the_store_and_the_lake_after_upkeep(
    pipeline: Pipeline,
) -> None:
    where = target_of(pipeline)
    ids = meeting(2)
    time = pipeline.clock.now() - timedelta(days=2)
    lines = [write(Record(each, int(time.timestamp() * 1000), {"route": "/"}, "order")) for each in ids]
    pipeline.client("kinesis").put_record(
        StreamName=where.outputs["StreamName"], PartitionKey="a", Data=encode(envelope(*lines))
    )
    pipeline.settle()
    assert [row[0] for row in where.store().sql('SELECT "_id" FROM {table}').rows] == ids[:1]

    pipeline.advance(timedelta(hours=14))
    pipeline.settle()

    assert {row[0] for row in where.store().sql('SELECT "_id" FROM {table}').rows} == set(ids)
    assert where.store().count() == 2
    bucket, s3 = where.outputs["Bucket"], where.client("s3")
    assert s3.list_objects_v2(Bucket=bucket, Prefix="timestream-rejected/")["KeyCount"] == 0
    pipeline.advance(timedelta(hours=32))
    pipeline.settle()
    manifest = f"records/year={time:%Y}/month={time:%m}/day={time:%d}/_manifest.json"
    body = s3.get_object(Bucket=bucket, Key=manifest)["Body"].read()
    assert json.loads(body)["rows"] == 2


@pytest.mark.tagline(processes=False)
@pytest.mark.parametrize("turn", [1, 2])
def test_one_pipeline_after_another_runs_functions_in_this_process(pipeline: Pipeline, turn: int) -> None:
    assert [call(pipeline, "/pets/1") for _ in range(turn)] == [200] * turn
    pipeline.settle()

    assert target_of(pipeline).store().count() == turn
