"""Programs that are not ours work against the services unchanged, told where they are by the environment."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from onemachine.services import Services

DATABASE, TABLE = "usage", "records"


@pytest.fixture
def services(monkeypatch: pytest.MonkeyPatch) -> Iterator[Services]:
    running = Services()
    for name, value in running.environment().items():
        monkeypatch.setenv(name, value)
    write = running.client("timestream-write")
    write.create_database(DatabaseName=DATABASE)
    write.create_table(
        DatabaseName=DATABASE,
        TableName=TABLE,
        RetentionProperties={"MemoryStoreRetentionPeriodInHours": 1, "MagneticStoreRetentionPeriodInDays": 7},
        MagneticStoreWriteProperties={"EnableMagneticStoreWrites": True},
    )
    yield running
    running.stop()


def aws(*arguments: str) -> Any:
    """Run the AWS command line and return what it says."""
    script = "import sys; from awscli.clidriver import main; sys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script, *arguments, "--output", "json"],
        capture_output=True,
        text=True,
        env=dict(os.environ),
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout) if done.stdout else None


@pytest.mark.usefixtures("services")
def test_the_aws_command_line_writes_and_asks_timestream() -> None:
    records = [
        {
            "Dimensions": [{"Name": "route", "Value": "/pets"}],
            "MeasureName": "api_request",
            "MeasureValueType": "MULTI",
            "MeasureValues": [{"Name": "status", "Type": "DOUBLE", "Value": "200"}],
            "Time": str(time.time_ns() // 1_000_000),
        }
    ]

    written = aws(
        *("timestream-write", "write-records", "--database-name", DATABASE, "--table-name", TABLE),
        *("--records", json.dumps(records)),
    )
    asked = aws(
        *("timestream-query", "query", "--query-string"),
        f'SELECT route, status, count(*) AS n FROM "{DATABASE}"."{TABLE}" GROUP BY 1, 2',
    )

    assert written["RecordsIngested"]["MemoryStore"] == 1
    assert [datum["ScalarValue"] for row in asked["Rows"] for datum in row["Data"]] == ["/pets", "200.0", "1"]


def test_the_aws_command_line_follows_a_line_from_its_log_group_into_the_stream(services: Services) -> None:
    aws("kinesis", "create-stream", "--stream-name", "s", "--shard-count", "1")
    aws("logs", "create-log-group", "--log-group-name", "g")
    aws("logs", "create-log-stream", "--log-group-name", "g", "--log-stream-name", "x")
    arn = "arn:aws:kinesis:us-east-1:123456789012:stream/s"
    aws(
        *("logs", "put-subscription-filter", "--log-group-name", "g", "--filter-name", "f"),
        *(
            "--filter-pattern",
            '"usage_record"',
            "--destination-arn",
            arn,
            "--role-arn",
            "arn:aws:iam::1:role/r",
        ),
    )
    events = [
        {"timestamp": time.time_ns() // 1_000_000, "message": text} for text in ("noise", "usage_record")
    ]
    aws(
        *("logs", "put-log-events", "--log-group-name", "g", "--log-stream-name", "x"),
        *("--log-events", json.dumps(events)),
    )

    found = aws("logs", "filter-log-events", "--log-group-name", "g", "--filter-pattern", '"usage_record"')
    assert [event["message"] for event in found["events"]] == ["usage_record"]
    kinesis = services.client("kinesis")
    shard = kinesis.list_shards(StreamName="s")["Shards"][0]["ShardId"]
    iterator = kinesis.get_shard_iterator(StreamName="s", ShardId=shard, ShardIteratorType="TRIM_HORIZON")
    assert (
        len(kinesis.get_records(ShardIterator=iterator["ShardIterator"])["Records"]) == 2
    )  # and the health check


def test_the_aws_command_line_copies_to_and_from_a_bucket(services: Services, tmp_path: Path) -> None:
    services.client("s3").create_bucket(Bucket="lake")
    (tmp_path / "a.csv").write_text("time,route\n")

    aws("s3", "cp", "--quiet", str(tmp_path / "a.csv"), "s3://lake/records/a.csv")
    aws("s3", "cp", "--quiet", "s3://lake/records/a.csv", str(tmp_path / "b.csv"))

    assert (tmp_path / "b.csv").read_text() == "time,route\n"


@pytest.fixture
def in_utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Run in UTC: awswrangler takes times without a zone as the machine's."""
    with monkeypatch.context() as there:
        there.setenv("TZ", "UTC")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.usefixtures("services", "in_utc")
def test_awswrangler_writes_and_reads_a_data_frame() -> None:
    awswrangler = pytest.importorskip(
        "awswrangler", reason="awswrangler is not installed: make bench installs it"
    )
    pd = pytest.importorskip("pandas")
    now = pd.Timestamp.now("UTC").tz_localize(None).floor("ms")
    frame = pd.DataFrame(
        {
            "time": [now - pd.Timedelta(seconds=number) for number in range(250)],
            "route": [f"item-{number % 3}" for number in range(250)],
            "status": [200.0] * 250,
            "note": ["é"] * 250,
        }
    )

    rejected = awswrangler.timestream.write(
        df=frame,
        database=DATABASE,
        table=TABLE,
        time_col="time",
        measure_col=["status", "note"],
        measure_name="api_request",
        dimensions_cols=["route"],
    )
    assert rejected == []
    read = awswrangler.timestream.query(f'SELECT * FROM "{DATABASE}"."{TABLE}" ORDER BY time DESC')

    assert list(read["route"]) == list(frame["route"])
    assert list(read["time"]) == list(frame["time"])
    assert set(read["note"]) == {"é"}
