"""The local Athena over tables of Glue and objects of S3, asked as its users do."""

from __future__ import annotations

import gzip
import io
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import boto3
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from botocore.exceptions import ClientError
from moto import mock_aws
from onemachine import athena
from onemachine.athena.queries import TIMESTREAM_ONLY
from onemachine.athena.reference import PAGES, page
from onemachine.presto.reference import is_answered

from exporter.lake.formats import Format
from exporter.lake.glue import table_input
from exporter.store import FIRST_COLUMNS, Column

NOW = datetime(2026, 11, 29, 23, 10, 11, 123_000, tzinfo=UTC)
BUCKET, DATABASE, GROUP = "lake", "tagline_1", "lake-group"
COLUMNS = (*FIRST_COLUMNS, Column("status", "number"), Column("User-Agent", "text"))
CUTOFF = 10_000_000
Ask = Callable[[str], list[tuple[str | None, ...]]]


@pytest.fixture(scope="module")
def client() -> Iterator[Callable[[str], Any]]:
    with mock_aws():
        clients = {
            name: boto3.client(
                name, region_name="us-east-1", aws_access_key_id="x", aws_secret_access_key="x"
            )
            for name in ("athena", "glue", "s3")
        }
        athena.install(clients.__getitem__, NOW.timestamp)
        clients["s3"].create_bucket(Bucket=BUCKET)
        clients["glue"].create_database(DatabaseInput={"Name": DATABASE})
        for kind in (Format.PARQUET, Format.CSV_GZ):
            clients["glue"].create_table(
                DatabaseName=DATABASE,
                TableInput=table_input(kind, COLUMNS, f"s3://{BUCKET}/records/tables/{kind}/"),
            )
        clients["athena"].create_work_group(
            Name=GROUP,
            Configuration={
                "EnforceWorkGroupConfiguration": True,
                "BytesScannedCutoffPerQuery": CUTOFF,
                "ResultConfiguration": {"OutputLocation": f"s3://{BUCKET}/athena/"},
            },
        )
        write_days(clients["s3"])
        yield clients.__getitem__


def write_days(s3: Any) -> None:
    """Write a day in Parquet and CSV, a part that its list does not name, and a day after today."""
    time = pa.array([datetime(2026, 11, 19, 1, 2, 3, 456_000)] * 3, pa.timestamp("ms"))  # noqa: DTZ001 in UTC
    texts = pa.array(["api_request", "api_request", None])
    # The file has its own names, and is older than the table's last column.
    names = ("time", "_time_ns", "_type", "_id", "source", "route", "method", "client", "Status")
    status = pa.array([200.0, 503.0, None])
    part = pa.table([time, pa.array([1, 2, 3], pa.int32()), *([texts] * 6), status], names=names)
    for day, key in (("2026-11-19", "a"), ("2026-11-19", "old"), ("2026-11-30", "tomorrow")):
        body = io.BytesIO()
        pq.write_table(part, body)
        s3.put_object(Bucket=BUCKET, Key=f"records/{key}.parquet", Body=body.getvalue())
        if key != "old":
            write_list(s3, "parquet", day, f"records/{key}.parquet")
    lines = 'time,_type,_id,source,route,method,client,status,User-Agent\nt,r,i,"a\\""b, c",,GET,,200,\n'
    s3.put_object(Bucket=BUCKET, Key="records/a.csv.gz", Body=gzip.compress(lines.encode()))
    write_list(s3, "csv.gz", "2026-11-19", "records/a.csv.gz")


def write_list(s3: Any, kind: str, day: str, key: str) -> None:
    place = f"records/tables/{kind}/date={day}/symlink.txt"
    s3.put_object(Bucket=BUCKET, Key=place, Body=f"s3://{BUCKET}/{key}\n".encode())


def finish(service: Any, sql: str) -> tuple[str, dict[str, Any]]:
    """Run a query, and return its id and how it ended."""
    started = service.start_query_execution(
        QueryString=sql, WorkGroup=GROUP, QueryExecutionContext={"Database": DATABASE}
    )
    id_ = started["QueryExecutionId"]
    running = service.get_query_execution(QueryExecutionId=id_)["QueryExecution"]
    assert running["Status"]["State"] == "RUNNING"
    return id_, service.get_query_execution(QueryExecutionId=id_)["QueryExecution"]


@pytest.fixture
def ask(client: Callable[[str], Any]) -> Ask:
    def answer(sql: str) -> list[tuple[str | None, ...]]:
        service = client("athena")
        id_, found = finish(service, sql)
        if found["Status"]["State"] != "SUCCEEDED":
            raise LookupError(found["Status"]["StateChangeReason"])
        rows = service.get_query_results(QueryExecutionId=id_)["ResultSet"]["Rows"]
        return [tuple(value.get("VarCharValue") for value in row["Data"]) for row in rows[1:]]

    return answer


# ---- Tables ------------------------------------------------------------------------------------------------


def test_parquet_is_read_by_position_in_the_files_that_the_days_list_names(ask: Ask) -> None:
    assert ask("SELECT date, time, _time_ns, status, user_agent FROM records ORDER BY _time_ns") == [
        ("2026-11-19", "2026-11-19 01:02:03.456", "1", "200.0", None),
        ("2026-11-19", "2026-11-19 01:02:03.456", "2", "503.0", None),
        ("2026-11-19", "2026-11-19 01:02:03.456", "3", None, None),
    ]


def test_csv_is_text_and_an_empty_field_an_empty_text(ask: Ask) -> None:
    assert ask("SELECT source, route, method, status, date FROM records_csv") == [
        ('a\\"b, c', "", "GET", "200", "2026-11-19")
    ]


def test_a_list_that_names_no_file_fails_the_query_by_the_files_name(
    client: Callable[[str], Any], ask: Ask
) -> None:
    write_list(client("s3"), "parquet", "2026-11-18", "records/files-are-in-the-archive")
    try:
        with pytest.raises(LookupError, match=r"HIVE_CANNOT_OPEN_SPLIT.*/files-are-in-the-archive"):
            ask("SELECT count(*) FROM records")
    finally:
        client("s3").delete_object(Bucket=BUCKET, Key="records/tables/parquet/date=2026-11-18/symlink.txt")


def test_a_column_of_another_type_fails_the_query(client: Callable[[str], Any], ask: Ask) -> None:
    body = io.BytesIO()
    pq.write_table(pa.table({"time": ["a text"]}), body)
    client("s3").put_object(Bucket=BUCKET, Key="records/wrong.parquet", Body=body.getvalue())
    write_list(client("s3"), "parquet", "2026-11-18", "records/wrong.parquet")
    try:
        with pytest.raises(LookupError, match="HIVE_BAD_DATA: Field time"):
            ask("SELECT count(*) FROM records")
    finally:
        client("s3").delete_object(Bucket=BUCKET, Key="records/tables/parquet/date=2026-11-18/symlink.txt")


# ---- Operations --------------------------------------------------------------------------------------------


def test_results_come_in_pages_of_a_thousand_rows_with_the_columns_names_first(
    client: Callable[[str], Any],
) -> None:
    service = client("athena")
    id_, _ = finish(service, "SELECT n AS number FROM UNNEST(sequence(1, 2500)) AS t(n) ORDER BY n")

    pages = [*service.get_paginator("get_query_results").paginate(QueryExecutionId=id_)]
    assert [len(page["ResultSet"]["Rows"]) for page in pages] == [1000, 1000, 501]
    values = [row["Data"][0]["VarCharValue"] for page in pages for row in page["ResultSet"]["Rows"]]
    assert values == ["number", *map(str, range(1, 2501))]
    (column,) = pages[0]["ResultSet"]["ResultSetMetadata"]["ColumnInfo"]
    assert (column["Name"], column["Type"]) == ("number", "bigint")
    with pytest.raises(ClientError, match="MaxResults is 1001"):
        service.get_query_results(QueryExecutionId=id_, MaxResults=1001)
    with pytest.raises(ClientError, match="NextToken"):
        service.get_query_results(QueryExecutionId=id_, NextToken="another")


def test_the_answer_is_a_file_in_the_output_location_too(client: Callable[[str], Any]) -> None:
    id_, found = finish(client("athena"), "SELECT 'a\"b' AS x, cast(NULL AS bigint) AS y")

    assert found["ResultConfiguration"]["OutputLocation"] == f"s3://{BUCKET}/athena/{id_}.csv"
    body = client("s3").get_object(Bucket=BUCKET, Key=f"athena/{id_}.csv")["Body"].read()
    assert body == b'"x","y"\n"a""b",\n'


def test_a_query_that_is_stopped_has_no_result(client: Callable[[str], Any]) -> None:
    service = client("athena")
    id_ = service.start_query_execution(QueryString="SELECT 1", WorkGroup=GROUP)["QueryExecutionId"]
    with pytest.raises(ClientError, match=r"not yet finished\. Current state: QUEUED"):
        service.get_query_results(QueryExecutionId=id_)

    service.stop_query_execution(QueryExecutionId=id_)

    status = service.get_query_execution(QueryExecutionId=id_)["QueryExecution"]["Status"]
    assert status["State"] == "CANCELLED"
    with pytest.raises(ClientError, match="Final query state: CANCELLED"):
        service.get_query_results(QueryExecutionId=id_)


def test_a_work_group_limits_what_a_query_reads(client: Callable[[str], Any]) -> None:
    large = table_input(Format.CSV_GZ, COLUMNS, f"s3://{BUCKET}/large/")
    client("glue").create_table(DatabaseName=DATABASE, TableInput={**large, "Name": "large"})
    # Its one line is the header.
    client("s3").put_object(Bucket=BUCKET, Key="records/large.csv", Body=b"x" * CUTOFF)
    client("s3").put_object(
        Bucket=BUCKET,
        Key="large/date=2026-11-19/symlink.txt",
        Body=f"s3://{BUCKET}/records/large.csv".encode(),
    )
    _, found = finish(client("athena"), "SELECT count(*) FROM large")

    assert found["Status"]["State"] == "CANCELLED"
    assert "Bytes scanned limit was exceeded" in found["Status"]["StateChangeReason"]
    _, allowed = finish(client("athena"), "SELECT count(*) FROM records")
    assert allowed["Status"]["State"] == "SUCCEEDED"
    assert 0 < allowed["Statistics"]["DataScannedInBytes"] < CUTOFF


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({"WorkGroup": "nobody's"}, "WorkGroup is not found"),
        (
            {"WorkGroup": GROUP, "QueryString": "x" * 262_145},
            "262145 characters",
        ),
        ({"WorkGroup": "primary"}, "No output location provided"),
    ],
)
def test_what_cannot_be_started_is_refused(
    client: Callable[[str], Any], wanted: dict[str, Any], message: str
) -> None:
    with pytest.raises(ClientError, match=message):
        client("athena").start_query_execution(**{"QueryString": "SELECT 1", **wanted})


# ---- SQL ---------------------------------------------------------------------------------------------------

# https://trino.io/docs/current/functions.html; what other translations of it to DuckDB get wrong is here.
ANSWERS: Sequence[tuple[str, str | None]] = [
    ("7 / 2", "3"),
    ("-7 / 2", "-3"),
    ("7 / 2e0", "3.5"),
    ("7 % 4", "3"),
    ("sum(n) / count(*)", "2"),
    ("avg(n)", "2.6666666666666665"),
    ("date_diff('day', TIMESTAMP '2026-11-18 23:00:00', TIMESTAMP '2026-11-19 01:00:00')", "0"),
    ("date_diff('hour', TIMESTAMP '2026-11-18 23:30:00', TIMESTAMP '2026-11-19 01:00:00')", "1"),
    ("date_diff('month', DATE '2026-01-31', DATE '2026-02-27')", "0"),
    ("date_diff('day', DATE '2026-11-20', DATE '2026-11-19')", "-1"),
    ("date_add('month', 1, DATE '2026-01-31')", "2026-02-28"),
    ("date_add('hour', -1, TIMESTAMP '2026-11-19 00:30:00')", "2026-11-18 23:30:00.000"),
    ("DATE '2026-11-19' + INTERVAL '1' DAY", "2026-11-20"),
    ("DATE '2026-03-31' - INTERVAL '1' MONTH", "2026-02-28"),
    ("date_trunc('month', DATE '2026-11-19')", "2026-11-01"),
    ("date_trunc('week', TIMESTAMP '2026-11-19 10:00:00')", "2026-11-16 00:00:00.000"),
    ("current_date", "2026-11-29"),
    ("from_unixtime(1.5)", "1970-01-01 00:00:01.500"),
    ("to_unixtime(TIMESTAMP '1970-01-01 00:00:01.500')", "1.5"),
    ("cast(TIMESTAMP '2026-11-19 01:02:03' AS varchar)", "2026-11-19 01:02:03.000"),
    ("cast(2.5e0 AS bigint)", "3"),
    ("cast(1e7 AS varchar)", "1.0E7"),
    ("try_cast('x' AS double)", None),
    ("approx_percentile(n, 0.5)", "3"),
    ("approx_percentile(n, ARRAY[0.0, 1.0])", "[1, 4]"),
    ("count_if(n > 2.5)", "2"),
    ("max_by(n, -n)", "1"),
    ("array_agg(n ORDER BY n DESC)", "[4, 3, 1]"),
    ("ARRAY['a', NULL, '']", "[a, null, ]"),
    ("date_format(TIMESTAMP '2026-11-19 01:02:03', '%Y-%m-%d %H:%i')", "2026-11-19 01:02"),
    ("substr('abc', 0)", ""),
    ("split_part('a/b', '/', 3)", None),
    ("greatest(1, NULL)", None),
    ("json_extract_scalar('{\"a\": {\"b\": 200}}', '$.a.b')", "200"),
    ("regexp_extract('GET /pets', '/(\\w+)', 1)", "pets"),
    ("5e0 / 0", "Infinity"),
    ("round(-2.5e0)", "-3.0"),
]


@pytest.mark.parametrize(("expression", "answer"), ANSWERS)
def test_expressions_are_what_trino_says(ask: Ask, expression: str, answer: str | None) -> None:
    assert ask(f"SELECT {expression} FROM (VALUES 1, 3, 4) AS t(n) LIMIT 1") == [(answer,)]


REFUSED = [
    ("SELECT bin(time, INTERVAL '1' HOUR) FROM records", "FUNCTION_NOT_FOUND: .*'bin'"),
    ("SELECT ago(INTERVAL '1' HOUR)", "FUNCTION_NOT_FOUND: .*'ago'"),
    ("SELECT xxhash64(to_utf8('a'))", "FUNCTION_NOT_FOUND: .*"),
    ("SELECT now() - 15m", "FUNCTION_NOT_FOUND: .*"),
    ("SELECT nothing FROM records", "COLUMN_NOT_FOUND: line 1:8: .*'nothing'"),
    ("SELECT 1 FROM nowhere", "TABLE_NOT_FOUND: .*nowhere"),
    ("SELECT 1 FROM records WHERE date = '2026-11-19'", "TYPE_MISMATCH: "),
    ("SELECT 1 FROM records WHERE time > '2026-11-19 00:00:00'", "TYPE_MISMATCH: "),
    ("SELECT 1 FROM records WHERE status = '200'", "TYPE_MISMATCH: "),
    ("SELECT 100.0 * count(*) / 3 FROM records", "NOT_SUPPORTED: .*1.5e0 is a double"),
    ("SELECT coalesce(1, 0.5)", "NOT_SUPPORTED: .*1.5e0 is a double"),
    ("SELECT 1.5", "NOT_SUPPORTED: .*1.5e0"),
    ("SELECT DATE '2026-11-19' + INTERVAL '1' HOUR", "Cannot add hour"),
    ("SELECT 1 / 0", "DIVISION_BY_ZERO: "),
    ("SELECT cast('x' AS bigint)", "INVALID_CAST_ARGUMENT: "),
    ("SELEC 1", ": "),
]


@pytest.mark.parametrize(("sql", "message"), REFUSED)
def test_what_is_wrong_or_unknown_fails_by_its_name(ask: Ask, sql: str, message: str) -> None:
    with pytest.raises(LookupError, match=message):
        ask(sql)


def test_the_page_of_functions_is_what_the_command_writes() -> None:
    root = Path(__file__).parents[2]
    assert (root / "docs" / "reference" / "athena-sql.md").read_text() == page()


@pytest.mark.parametrize("names", PAGES.values(), ids=PAGES)
def test_exactly_the_functions_that_the_page_refuses_are_refused_by_their_names(ask: Ask, names: str) -> None:
    for name in names.split():
        # What is no call has no parentheses.
        call = name if name.startswith(("current_", "local")) and name != "current_timezone" else f"{name}(1)"
        call = "1 = SOME (SELECT 1)" if name == "some" else call
        try:
            ask(f"SELECT {call}")
            reason = ""
        except LookupError as error:
            reason = str(error)
        is_refused = f"Function '{name}' is not registered or not supported here" in reason
        assert is_refused == (not is_answered(name) or name in TIMESTREAM_ONLY), reason


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM read_csv('/etc/passwd')",
        "SELECT * FROM read_text('/etc/passwd')",
        "SELECT * FROM '/etc/passwd'",
        'SELECT * FROM "/etc/passwd"',
        "SELECT * FROM t0",
        "SELECT * FROM result",
        "SELECT * FROM duckdb_settings()",
        "SELECT * FROM information_schema.tables",
        "SELECT getenv('HOME')",
        "SELECT error('x')",
        "SELECT current_setting('threads')",
        "COPY records TO '/tmp/x.csv'",
        "ATTACH '/tmp/x.db' AS x",
        "PRAGMA database_list",
        "INSTALL httpfs",
        "LOAD httpfs",
        "SET threads = 2",
        "CREATE TABLE x AS SELECT 1",
        "INSERT INTO records SELECT * FROM records",
        "SELECT 1; SELECT 2",
        "EXPLAIN SELECT 1",
    ],
)
def test_nothing_of_the_engine_below_can_be_reached(ask: Ask, sql: str) -> None:
    with pytest.raises(
        LookupError, match=r"^(SYNTAX_ERROR|NOT_SUPPORTED|FUNCTION_NOT_FOUND|TABLE_NOT_FOUND): "
    ):
        ask(sql)
