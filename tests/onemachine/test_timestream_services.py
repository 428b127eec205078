"""What the local Timestream does beside rows and SQL: S3, files, time, tokens, and types on the wire."""

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import boto3
import pytest
from moto.server import ThreadedMotoServer
from moto.timestreamwrite.responses import TimestreamWriteResponse
from onemachine.presto.errors import ServiceError
from onemachine.presto.kinds import Datum
from onemachine.timestream import Timestream, install
from onemachine.timestream.errors import RejectedRecordsError
from onemachine.timestream.tables import Ingested, TableSettings
from onemachine.timestream.wire import Direct

# 2026-11-19 00:07:00 UTC
NOW = 1_795_046_820_000_000_000
SECOND = 1_000_000_000
HOUR = 3_600 * SECOND
DAY = 24 * HOUR
USAGE = '"app"."usage"'


class Objects(dict[tuple[str, str], bytes]):
    """S3, as a dictionary; a bucket named "gone" cannot be written to."""

    def put(self, bucket: str, key: str, body: bytes) -> None:
        if bucket == "gone":
            raise OSError("NoSuchBucket")
        self[bucket, key] = body

    def at(self, address: Datum) -> bytes:
        assert isinstance(address, str)
        bucket, _, key = address.removeprefix("s3://").partition("/")
        return self[bucket, key]


class Clock:
    """Nanoseconds since 1970, as a test says."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> int:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def objects() -> Objects:
    return Objects()


@pytest.fixture
def engine(clock: Clock, objects: Objects) -> Iterator[Timestream]:
    engine = Timestream(clock, report_magnetic_conflicts=objects.put)
    prepare(engine)
    yield engine
    engine.close()


def prepare(engine: Timestream, settings: TableSettings | None = None) -> None:
    engine.create_database("app", "key")
    engine.create_table("app", "usage", settings or TableSettings())


def record(time: int = NOW, value: str = "1.5", version: int = 1, **more: str) -> dict[str, Any]:
    measures = [{"Name": "latency", "Value": value, "Type": "DOUBLE"}]
    measures += [{"Name": name, "Value": text, "Type": "VARCHAR"} for name, text in more.items()]
    return {
        "Dimensions": [{"Name": "route", "Value": "/a"}],
        "MeasureName": "api_request",
        "MeasureValueType": "MULTI",
        "MeasureValues": measures,
        "Time": str(time),
        "TimeUnit": "NANOSECONDS",
        "Version": version,
    }


def write(engine: Timestream, *records: dict[str, Any]) -> Ingested:
    return engine.write_records("app", "usage", records)


def rows(engine: Timestream, columns: str = "*") -> tuple[tuple[Datum, ...], ...]:
    return engine.query(f"SELECT {columns} FROM {USAGE} ORDER BY time").rows


@pytest.fixture
def days(engine: Timestream) -> Timestream:
    write(
        engine,
        record(NOW - 3, "1.0", day="18"),
        record(NOW - 2, "2.5", day="19"),
        record(NOW - 1, "3.0", day="19"),
    )
    return engine


# Conflicts in the magnetic store.
# https://docs.aws.amazon.com/timestream/latest/developerguide/troubleshoot-rejectedrecords.html


def keep_reports(engine: Timestream, bucket: str) -> None:
    place = {"S3Configuration": {"BucketName": bucket, "ObjectKeyPrefix": "late/"}}
    magnetic_writes = {"EnableMagneticStoreWrites": True, "MagneticStoreRejectedDataLocation": place}
    engine.update_table("app", "usage", {"magnetic_writes": magnetic_writes})


def test_a_conflict_in_the_magnetic_store_is_success_and_reported(
    engine: Timestream, objects: Objects
) -> None:
    keep_reports(engine, "reports")
    old = NOW - 7 * HOUR
    write(engine, record(old, version=2))

    assert write(engine, record(old, "9.0", version=1), record(NOW)) == Ingested(memory=1, magnetic=1)

    assert rows(engine, "latency") == (("1.5",), ("1.5",))
    (((bucket, key), body),) = objects.items()
    assert bucket == "reports"
    assert key.startswith("late/app/usage/2026-11-19T00:07:00Z-")
    (rejected,) = json.loads(body)["RejectedRecords"]
    assert rejected["RecordIndex"] == 0
    assert rejected["ExistingVersion"] == 2
    assert rejected["Reason"].startswith("The record version 1 is lower than the existing version 2.")
    assert rejected["Record"] == record(old, "9.0", version=1)


def test_a_conflict_in_the_memory_store_is_in_the_answer_and_not_reported(
    engine: Timestream, objects: Objects
) -> None:
    keep_reports(engine, "reports")
    write(engine, record())

    with pytest.raises(RejectedRecordsError):
        write(engine, record(value="9.0"))

    assert not objects


def test_one_request_may_have_conflicts_of_both_kinds(engine: Timestream, objects: Objects) -> None:
    keep_reports(engine, "reports")
    old = NOW - 7 * HOUR
    write(engine, record(), record(old))

    with pytest.raises(RejectedRecordsError) as raised:
        write(engine, record(value="9.0"), record(old, "9.0"))

    assert [rejection.index for rejection in raised.value.rejections] == [0]
    (body,) = objects.values()
    assert [rejected["RecordIndex"] for rejected in json.loads(body)["RejectedRecords"]] == [1]


def test_a_report_that_has_no_place_or_cannot_be_written_is_lost(
    engine: Timestream, objects: Objects
) -> None:
    old = NOW - 7 * HOUR
    engine.update_table("app", "usage", {"magnetic_writes": {"EnableMagneticStoreWrites": True}})
    write(engine, record(old))

    assert write(engine, record(old, "9.0")) == Ingested(memory=0, magnetic=1)
    keep_reports(engine, "gone")
    assert write(engine, record(old, "9.0")) == Ingested(memory=0, magnetic=1)
    assert not objects


# A file.


def test_a_file_keeps_tables_settings_rows_and_what_makes_a_point(tmp_path: Path, clock: Clock) -> None:
    path = tmp_path / "timestream.duckdb"
    engine = Timestream(clock, path=path)
    prepare(engine, TableSettings(memory_hours=12, magnetic_days=7))
    write(engine, record(NOW - 2, note="é\n"), record(NOW - 1, version=5))
    write(engine, record(NOW - 1, "2.5", version=6))
    before, described = rows(engine), engine.query(f"DESCRIBE {USAGE}").rows
    write(engine, record(NOW, "7.0"))
    engine.close()

    engine = Timestream(clock, path=path)

    assert rows(engine)[:2] == before
    assert rows(engine, "latency")[2] == ("7.0",)
    assert engine.query(f"DESCRIBE {USAGE}").rows == described
    assert engine.table("app", "usage").settings == TableSettings(memory_hours=12, magnetic_days=7)
    assert engine.database("app").kms_key_id == "key"
    # The same again is nothing new; a lower version is known to be lower; a new column is the last one.
    assert write(engine, record(NOW - 2, note="é\n")) == Ingested(1, 0)
    with pytest.raises(RejectedRecordsError) as raised:
        write(engine, record(NOW - 1, "3.0", version=5))
    assert raised.value.rejections[0].existing_version == 6
    write(engine, record(NOW + 1, more="x"), record(NOW - 1, "3.0", version=7))
    assert rows(engine, "latency, more") == (("1.5", None), ("3.0", None), ("7.0", None), ("1.5", "x"))
    engine.close()


def test_a_file_keeps_that_something_was_deleted(tmp_path: Path, clock: Clock) -> None:
    path = tmp_path / "timestream.duckdb"
    engine = Timestream(clock, path=path)
    prepare(engine)
    write(engine, record())
    engine.delete_table("app", "usage")
    engine.delete_database("app")
    engine.close()

    engine = Timestream(clock, path=path)
    assert engine.databases() == ()
    prepare(engine)
    assert rows(engine) == ()
    engine.close()


def test_what_was_saved_survives_without_an_orderly_end(tmp_path: Path, clock: Clock) -> None:
    path = tmp_path / "timestream.duckdb"
    engine = Timestream(clock, path=path)
    prepare(engine)
    engine.create_table("app", "other", TableSettings())
    write(engine, record())
    # A row that waits, with columns that are told of before they are made, beside what is saved.
    engine.write_records("app", "other", [record()])
    assert len(rows(engine)) == 1
    # As after a crash: the file and its log, taken while the engine still runs.
    copy = tmp_path / "copy.duckdb"
    for suffix in ("", ".wal"):
        if Path(f"{path}{suffix}").exists():
            Path(f"{copy}{suffix}").write_bytes(Path(f"{path}{suffix}").read_bytes())

    other = Timestream(clock, path=copy)

    assert rows(other, "latency") == (("1.5",),)
    assert other.query('SELECT latency FROM "app"."other"').rows == ()
    other.close()
    engine.close()


# Time.


def test_rows_leave_when_the_magnetic_retention_is_over(engine: Timestream, clock: Clock) -> None:
    engine.update_table("app", "usage", {"magnetic_days": 1})
    write(engine, record(NOW - HOUR, "1.0"), record(NOW, "2.0"))

    clock.now = NOW - HOUR + DAY
    assert rows(engine, "latency") == (("1.0",), ("2.0",))
    clock.now += 1
    assert rows(engine, "latency") == (("2.0",),)
    # A longer retention does not bring them back.
    engine.update_table("app", "usage", {"magnetic_days": 30})
    assert rows(engine, "latency") == (("2.0",),)


def test_rows_that_are_long_gone_leave_memory_too(engine: Timestream, clock: Clock) -> None:
    engine.update_table("app", "usage", {"magnetic_days": 1})
    write(engine, *(record(NOW - n) for n in range(50)))
    clock.now = NOW + 3 * DAY
    write(engine, record(clock.now))

    assert len(rows(engine)) == 1
    assert len(engine.table("app", "usage")._index) == 1


def test_memory_longer_than_magnetic_retention_keeps_rows_for_as_long(
    engine: Timestream, clock: Clock
) -> None:
    engine.update_table("app", "usage", {"memory_hours": 48, "magnetic_days": 1})
    write(engine, record())
    clock.now = NOW + 36 * HOUR

    assert len(rows(engine)) == 1


# Tokens.
# https://docs.aws.amazon.com/timestream/latest/developerguide/API_query_Query.html


def test_a_client_token_makes_a_call_happen_once(days: Timestream, clock: Clock) -> None:
    text = f"SELECT count(*) FROM {USAGE}"
    first = days.query(text, client_token="t" * 32)
    write(days, record(NOW))

    assert days.query(text, client_token="t" * 32) == first
    assert days.query(text, client_token="u" * 32).rows == (("4",),)
    with pytest.raises(ServiceError, match="used for another query already"):
        days.query("SELECT 1", client_token="t" * 32)
    clock.now += 300 * SECOND
    assert days.query("SELECT 1", client_token="t" * 32).rows == (("1",),)


def test_a_cancelled_query_has_no_more_pages(days: Timestream) -> None:
    text = f"SELECT * FROM {USAGE}"
    page = days.query(text, max_rows=1)

    assert "has been cancelled" in days.cancel(page.query_id)
    assert "already" in days.cancel(page.query_id)
    with pytest.raises(ServiceError) as raised:
        days.query(text, page.next_token, 1)
    assert raised.value.code == "ConflictException"
    with pytest.raises(ServiceError, match="does not exist or has completed"):
        days.cancel(days.query("SELECT 1").query_id)


# Types on the wire.


@pytest.fixture
def client(engine: Timestream) -> Iterator[Any]:
    moto_s_own = dict(vars(TimestreamWriteResponse))
    install(engine)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    client = boto3.client("timestream-query", endpoint_url=f"http://{host}:{port}")
    yield client
    client.close()
    server.stop()
    for name, value in moto_s_own.items():
        if callable(value):
            setattr(TimestreamWriteResponse, name, value)


def test_boto3_reads_arrays_series_and_single_values_of_every_type(client: Any, engine: Timestream) -> None:
    write(engine, record(NOW - 1, "1.0"), record(NOW, "2.5"))

    answer = client.query(
        QueryString=f"SELECT ARRAY[1, NULL] AS a, create_time_series(time, latency) AS s, "
        f"1d AS d, interval '14' month AS m, DATE '2026-11-19' AS day, TIME '10:00' AS t, NULL AS n, "
        f"ARRAY[ARRAY['x']] AS nested FROM {USAGE}"
    )

    assert answer["Rows"][0]["Data"] == [
        {"ArrayValue": [{"ScalarValue": "1"}, {"NullValue": True}]},
        {
            "TimeSeriesValue": [
                {"Time": "2026-11-19 00:06:59.999999999", "Value": {"ScalarValue": "1.0"}},
                {"Time": "2026-11-19 00:07:00.000000000", "Value": {"ScalarValue": "2.5"}},
            ]
        },
        {"ScalarValue": "1 00:00:00.000000000"},
        {"ScalarValue": "1-2"},
        {"ScalarValue": "2026-11-19"},
        {"ScalarValue": "10:00:00.000000000"},
        {"NullValue": True},
        {"ArrayValue": [{"ArrayValue": [{"ScalarValue": "x"}]}]},
    ]
    assert [column["Type"] for column in answer["ColumnInfo"]] == [
        {"ArrayColumnInfo": {"Type": {"ScalarType": "INTEGER"}}},
        {"TimeSeriesMeasureValueColumnInfo": {"Type": {"ScalarType": "DOUBLE"}}},
        {"ScalarType": "INTERVAL_DAY_TO_SECOND"},
        {"ScalarType": "INTERVAL_YEAR_TO_MONTH"},
        {"ScalarType": "DATE"},
        {"ScalarType": "TIME"},
        {"ScalarType": "UNKNOWN"},
        {"ArrayColumnInfo": {"Type": {"ArrayColumnInfo": {"Type": {"ScalarType": "VARCHAR"}}}}},
    ]


def test_boto3_prepares_and_cancels_queries(client: Any, engine: Timestream) -> None:
    write(engine, record(NOW - 1), record(NOW))
    text = f"SELECT time, count(*) AS n FROM {USAGE} GROUP BY time"

    prepared = client.prepare_query(QueryString=text, ValidateOnly=True)
    page = client.query(QueryString=text, MaxRows=1)

    assert [(column["Name"], column["Type"]["ScalarType"]) for column in prepared["Columns"]] == [
        ("time", "TIMESTAMP"),
        ("n", "BIGINT"),
    ]
    assert prepared["Parameters"] == []
    assert "cancelled" in client.cancel_query(QueryId=page["QueryId"])["CancellationMessage"]
    with pytest.raises(client.exceptions.ConflictException):
        client.query(QueryString=text, NextToken=page["NextToken"])
    with pytest.raises(client.exceptions.ValidationException, match="ValidateOnly"):
        client.prepare_query(QueryString=text)
    with pytest.raises(client.exceptions.ValidationException, match="Column 'x' does not exist"):
        client.prepare_query(QueryString=f"SELECT x FROM {USAGE}", ValidateOnly=True)


class Broken:
    """An engine with a fault that nobody knows of."""

    def query(self, *_: object, **__: object) -> None:
        raise ZeroDivisionError


def test_an_unexpected_fault_is_answered_in_the_services_form(caplog: pytest.LogCaptureFixture) -> None:
    direct = Direct(lambda *_: [], cast("Timestream", Broken()))
    body = json.dumps({"QueryString": "SELECT 1"}).encode()
    heads: list[str] = []

    (answer,) = direct(
        {
            "HTTP_X_AMZ_TARGET": "Timestream_20181101.Query",
            "CONTENT_LENGTH": str(len(body)),
            "wsgi.input": io.BytesIO(body),
        },
        lambda status, _: heads.append(status),
    )

    assert heads == ["500 Internal Server Error"]
    assert json.loads(answer)["__type"] == "InternalServerException"
    assert "ZeroDivisionError" in caplog.text
