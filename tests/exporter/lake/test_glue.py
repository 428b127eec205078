"""The tables of the Glue catalog, in moto's, and the saved queries over real files of the lake."""

import re
from collections.abc import Callable, Iterator
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any

import boto3
import duckdb
import pytest
import sqlglot
from hypothesis import given
from hypothesis import strategies as st
from moto import mock_aws
from onemachine.template.resolution import resolve
from onemachine.template.sam import translate
from onemachine.template.stack import Stack

from consumers.rows.lake.fragments import hour_folder, hours_of
from exporter.export.day import export_day
from exporter.lake.athena import list_key
from exporter.lake.columns import extend_lake_columns
from exporter.lake.days import Day
from exporter.lake.formats import Format
from exporter.lake.glue import Catalog, glue_columns
from exporter.store import FIRST_COLUMNS, Column, Type, Values
from tests.twins import Bucket, Rows, client_error

WITH_TABLES = [kind for kind in Format if kind.rules.table]
DAY = date(2025, 1, 9)
DATABASE = "tagline_5af50ebc"
COLUMNS = (
    *FIRST_COLUMNS,
    Column("status", "number"),
    Column("ok", "boolean"),
    Column("Status", "integer"),
    Column("user-agent", "text"),
    Column("two.x20.words", "text"),
    Column("date", "text"),
)


@pytest.fixture
def bucket() -> Bucket:
    bucket = Bucket()
    for column in COLUMNS:
        extend_lake_columns(bucket, [column])
    return bucket


@pytest.fixture(scope="module")
def service() -> Iterator[Any]:
    with mock_aws():
        yield boto3.client("glue")


@pytest.fixture
def glue(service: Any) -> Iterator[Any]:
    service.create_database(DatabaseInput={"Name": DATABASE})
    yield service
    service.delete_database(Name=DATABASE)


def table_of(glue: Any, kind: Format) -> dict[str, Any]:
    table: dict[str, Any] = glue.get_table(DatabaseName=DATABASE, Name=kind.rules.table)["Table"]
    return table


def names_and_types(glue: Any, kind: Format) -> list[tuple[str, str]]:
    columns = table_of(glue, kind)["StorageDescriptor"]["Columns"]
    return [(column["Name"], column["Type"]) for column in columns]


# --- the definition ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", WITH_TABLES)
def test_the_only_partition_is_the_date_up_to_now_where_the_exporter_lists_the_files(
    kind: Format, glue: Any, bucket: Bucket
) -> None:
    # https://docs.aws.amazon.com/athena/latest/ug/partition-projection-supported-types.html
    Catalog(glue, DATABASE, bucket).describe(kind)

    table = table_of(glue, kind)
    parameters = table["Parameters"]
    assert table["PartitionKeys"] == [{"Name": "date", "Type": "date"}]
    assert parameters["projection.enabled"] == "true"
    assert parameters["projection.date.type"] == "date"
    assert parameters["projection.date.format"] == "yyyy-MM-dd"
    first, last = parameters["projection.date.range"].split(",")
    assert (date.fromisoformat(first), last) == (date(2024, 1, 1), "NOW")
    location = parameters["storage.location.template"].replace("${date}", DAY.isoformat())
    assert location == bucket.uri(list_key(DAY, kind)).removesuffix("symlink.txt")
    assert location.startswith(table["StorageDescriptor"]["Location"])
    assert table["StorageDescriptor"]["InputFormat"].endswith(".SymlinkTextInputFormat")
    # https://docs.aws.amazon.com/athena/latest/ug/querying-glacier.html
    assert parameters["read_restored_glacier_objects"] == "true"
    assert parameters.get("skip.header.line.count") == (None if kind is Format.PARQUET else "1")


def test_over_parquet_columns_are_typed_and_read_by_position(glue: Any, bucket: Bucket) -> None:
    Catalog(glue, DATABASE, bucket).describe(Format.PARQUET)

    assert names_and_types(glue, Format.PARQUET) == [
        ("time", "timestamp"),
        ("_time_ns", "int"),
        *((name, "string") for name in ("_type", "_id", "source", "route", "method", "client")),
        ("status", "double"),
        ("ok", "boolean"),
        ("status_9", "bigint"),
        ("user_agent", "string"),
        ("two_x20_words", "string"),
        ("date_12", "string"),
    ]
    serde = table_of(glue, Format.PARQUET)["StorageDescriptor"]["SerdeInfo"]
    assert serde["Parameters"] == {"parquet.column.index.access": "true"}


def test_over_fragments_columns_are_read_by_name_in_the_folders_of_hours(glue: Any, bucket: Bucket) -> None:
    catalog = Catalog(glue, DATABASE, bucket)
    catalog.describe_fragments({})
    catalog.describe_fragments({"Status": "BIGINT", "user-agent": "VARCHAR"})

    table = glue.get_table(DatabaseName=DATABASE, Name="fresh")["Table"]
    columns = [(column["Name"], column["Type"]) for column in table["StorageDescriptor"]["Columns"]]
    assert columns == [
        ("time", "timestamp"),
        ("_time_ns", "int"),
        *((name, "string") for name in ("_id", "_type", "source", "route", "method", "client")),
        ("_digest", "bigint"),
        ("_v", "int"),
        *((name, "string") for name in ("_trunc", "_extra", "_empty", "_said")),
        ("status", "bigint"),
        ("fields", "string"),
    ]
    assert table["PartitionKeys"] == [{"Name": "day", "Type": "date"}, {"Name": "hour", "Type": "int"}]
    hour = hours_of(DAY)[7]
    location = table["Parameters"]["storage.location.template"]
    assert location.replace("${day}", str(DAY)).replace("${hour}", "07") == bucket.uri(hour_folder(hour))
    assert table["Parameters"]["projection.hour.digits"] == "2"
    assert not table["StorageDescriptor"]["SerdeInfo"].get("Parameters")


def test_over_csv_columns_are_text_under_the_same_names(glue: Any, bucket: Bucket) -> None:
    catalog = Catalog(glue, DATABASE, bucket)
    for kind in WITH_TABLES:
        catalog.describe(kind)

    typed = [name for name, _ in names_and_types(glue, Format.PARQUET) if name != "_time_ns"]
    assert names_and_types(glue, Format.CSV_GZ) == [(name, "string") for name in typed]


@given(
    st.lists(
        st.text("aAbB_.-é 1", min_size=1, max_size=6).map(lambda name: name * 60)
        | st.sampled_from(["date", "Date", "_time_ns", "status_9", "status", "Status", "status_8"]),
        unique=True,
        max_size=12,
    ),
    st.sampled_from(WITH_TABLES),
)
def test_any_columns_have_names_that_athena_supports_and_that_stay(names: list[str], kind: Format) -> None:
    columns = tuple(Column(name, "text") for name in names)

    described = glue_columns(kind, columns)

    made = [column["Name"] for column in described]
    assert len({*made, "date"}) == len(made) + 1 == len(columns) + 1
    for name, column in zip(names, described, strict=True):
        assert re.fullmatch("[a-z0-9_]{1,255}", column["Name"])
        assert column.get("Comment", column["Name"]) == name[:255]
    assert glue_columns(kind, columns[:-1]) == described[:-1]


# --- created, updated, and swapped ------------------------------------------------------------------------


def test_a_table_gets_the_columns_of_the_newest_files_and_keeps_what_others_have_set(
    glue: Any, bucket: Bucket
) -> None:
    catalog = Catalog(glue, DATABASE, bucket)
    catalog.describe(Format.PARQUET)
    table = table_of(glue, Format.PARQUET)
    theirs = {name: table[name] for name in ("Name", "StorageDescriptor", "PartitionKeys", "TableType")}
    theirs["Parameters"] = table["Parameters"] | {
        "team": "billing",
        "projection.date.range": "2020-01-01,NOW",
    }
    glue.update_table(DatabaseName=DATABASE, TableInput=theirs | {"Owner": "them"})
    extend_lake_columns(bucket, [*COLUMNS, Column("new", "text")])

    catalog.describe(Format.PARQUET)

    after = table_of(glue, Format.PARQUET)
    assert names_and_types(glue, Format.PARQUET)[-1] == ("new", "string")
    assert after["Parameters"] == table["Parameters"] | {"team": "billing"}
    assert after["Owner"] == "them"


def test_a_table_that_is_right_is_not_written_again(glue: Any, bucket: Bucket) -> None:
    catalog = Catalog(glue, DATABASE, bucket)
    catalog.describe(Format.PARQUET)
    before = glue.get_table_versions(DatabaseName=DATABASE, TableName="records")["TableVersions"]

    catalog.describe(Format.PARQUET)

    after = glue.get_table_versions(DatabaseName=DATABASE, TableName="records")["TableVersions"]
    assert len(after) == len(before)


def test_only_formats_with_a_table_get_one(glue: Any, bucket: Bucket) -> None:
    catalog = Catalog(glue, DATABASE, bucket)
    for kind in (Format.JSONL_GZ, Format.CSV, Format.CSV_GZ):
        catalog.describe(kind)

    names = [table["Name"] for table in glue.get_tables(DatabaseName=DATABASE)["TableList"]]
    assert names == ["records_csv"]


class Crossed:
    """Glue, in which another writer acts between a reader's look at a table and what it does next.

    It compares versions as AWS does, and as moto does not:
    https://docs.aws.amazon.com/glue/latest/webapi/API_UpdateTable.html
    """

    def __init__(self, glue: Any, *others: Callable[[], None]) -> None:
        self._glue = glue
        self._others = list(others)

    def get_table(self, **asked: Any) -> Any:
        try:
            return self._glue.get_table(**asked)
        finally:
            if self._others:
                self._others.pop(0)()

    def create_table(self, **given: Any) -> None:
        self._glue.create_table(**given)

    def update_table(self, **given: Any) -> None:
        version = given.pop("VersionId")
        name = given["TableInput"]["Name"]
        table = self._glue.get_table(DatabaseName=given["DatabaseName"], Name=name)["Table"]
        if table["VersionId"] != version:
            raise client_error("ConcurrentModificationException", 400)
        self._glue.update_table(**given)


@pytest.mark.parametrize("is_there", [False, True], ids=["created", "updated"])
def test_no_writer_puts_older_columns_in_the_place_of_newer_ones(
    is_there: bool, glue: Any, bucket: Bucket
) -> None:
    if is_there:
        Catalog(glue, DATABASE, bucket).describe(Format.PARQUET)
        extend_lake_columns(bucket, [*COLUMNS, Column("second", "text")])

    def other() -> None:
        extend_lake_columns(bucket, [*COLUMNS, Column("second", "text"), Column("third", "text")])
        Catalog(glue, DATABASE, bucket).describe(Format.PARQUET)

    crossed = Crossed(glue, other)
    Catalog(crossed, DATABASE, bucket).describe(Format.PARQUET)

    names = [name for name, _ in names_and_types(glue, Format.PARQUET)]
    assert names[-2:] == ["second", "third"]


def test_a_table_that_others_keep_changing_is_an_error(glue: Any, bucket: Bucket) -> None:
    catalog = Catalog(glue, DATABASE, bucket)
    catalog.describe(Format.PARQUET)
    extend_lake_columns(bucket, [*COLUMNS, Column("new", "text")])

    def other() -> None:
        table = table_of(glue, Format.PARQUET)
        changed = {name: table[name] for name in ("Name", "StorageDescriptor", "PartitionKeys")}
        glue.update_table(DatabaseName=DATABASE, TableInput=changed)

    with pytest.raises(OSError, match="the table records was changed by others 20 times in a row"):
        Catalog(Crossed(glue, *[other] * 20), DATABASE, bucket).describe(Format.PARQUET)


def test_a_database_that_is_gone_is_the_services_error(glue: Any, bucket: Bucket) -> None:
    with pytest.raises(glue.exceptions.EntityNotFoundException):
        Catalog(glue, "gone", bucket).describe(Format.PARQUET)


# --- the template -----------------------------------------------------------------------------------------


@cache
def translated() -> dict[str, Any]:
    return translate(Path(__file__).parents[3] / "template.yml")


def stack(formats: str = "csv.gz") -> Stack:
    values = {"Store": "timestream", "ExportFormats": formats}
    return resolve(translated(), values, stack_name="tagline", endpoint="http://127.0.0.1:5000")


def test_the_databases_name_is_one_that_athena_supports_and_no_other_stacks() -> None:
    (database,) = stack().of_type("AWS::Glue::Database")
    assert re.fullmatch("tagline_[0-9a-f]{8}", database.physical_id)
    assert stack().outputs()["LakeDatabase"] == database.properties["DatabaseInput"]["Name"]


@pytest.mark.parametrize(
    ("formats", "table"),
    [
        ("csv.gz", "records_csv"),
        ("parquet", "records"),
        ("csv,csv.gz,parquet", "records"),
        ("jsonl.gz,csv.gz", "records_csv"),
        ("csv,jsonl.gz", None),
    ],
)
def test_saved_queries_name_the_table_of_a_format_that_is_exported(formats: str, table: str | None) -> None:
    queries = stack(formats).of_type("AWS::Athena::NamedQuery")

    asked = [sqlglot.parse_one(query.properties["QueryString"], read="athena") for query in queries]
    assert [each.name for query in asked for each in query.find_all(sqlglot.exp.Table)] == (
        [table] * 3 if table else []
    )


def test_what_a_query_may_scan_is_limited() -> None:
    (group,) = stack().of_type("AWS::Athena::WorkGroup")

    configuration = group.properties["WorkGroupConfiguration"]
    assert configuration["EnforceWorkGroupConfiguration"] is True
    assert int(configuration["BytesScannedCutoffPerQuery"]) == 10_000_000_000


# --- saved queries over exported files --------------------------------------------------------------------


TODAY = date(2026, 11, 20)
STORED: dict[str, Type] = {
    **{column.name: column.type for column in FIRST_COLUMNS},
    "status": "number",
    "duration_ms": "number",
    "user-agent": "text",
    "date": "text",
}


def exported(kind: Format) -> Bucket:
    """Return a lake with three days of requests, the first of another month, and a record of another type."""
    bucket = Bucket()
    rows: list[Values] = []
    for day in (date(2026, 10, 31), date(2026, 11, 1), date(2026, 11, 2)):
        for number in range(50):
            status, route = ["200", "200", "404", "500"][number % 4], f"/r{number % 5}"
            row = ("api_request", f"i{number}", "s", route, "GET", f"c{number % 2}", status, str(number))
            rows.append((f"{day} 10:00:{number:02}.000000000", *row, "curl, 8", "soon"))
        rows.append((f"{day} 11:00:00.000000000", "job", "j", "s", "/r0", "GET", "c0", *[None] * 4))
    for day in (date(2026, 10, 31), date(2026, 11, 1), date(2026, 11, 2)):
        export_day(Day(bucket, day, kind), Rows(STORED, rows))
    return bucket


def load(bucket: Bucket, table: dict[str, Any], kind: Format, folder: Path) -> duckdb.DuckDBPyConnection:
    """Return an engine with a table as Athena reads it: the listed files, by the columns' positions."""
    engine = duckdb.connect()
    names = [column["Name"] for column in table["StorageDescriptor"]["Columns"]]
    kinds = {"timestamp": "TIMESTAMP", "int": "INTEGER", "double": "DOUBLE", "string": "TEXT"}
    types = [kinds[column["Type"]] for column in table["StorageDescriptor"]["Columns"]]
    listed = ", ".join(f'"{name}" {type_}' for name, type_ in zip(names, types, strict=True))
    engine.execute(f"CREATE TABLE {table['Name']} ({listed}, date DATE)")
    template = table["Parameters"]["storage.location.template"]
    for key in [key for key in bucket if key.endswith("/symlink.txt")]:
        day = key.split("/")[-2].removeprefix("date=")
        assert bucket.uri(key) == template.replace("${date}", day) + "symlink.txt"
        for name in bucket[key].decode().split():
            file = folder / name.replace("/", "-")
            file.write_bytes(bucket[name.removeprefix("s3://bucket/")])
            read = (
                f"read_parquet('{file}')"
                if kind is Format.PARQUET
                else f"read_csv('{file}', header = false, skip = 1, all_varchar = true, compression = 'gzip')"
            )
            engine.execute(f"INSERT INTO {table['Name']} SELECT *, DATE '{day}' FROM {read}")
    return engine


def on_that_day(node: sqlglot.exp.Expr) -> sqlglot.exp.Expr:
    """Let it be that day: an engine's own depends on where and when the test runs."""
    return sqlglot.exp.cast(f"'{TODAY}'", "date") if isinstance(node, sqlglot.exp.CurrentDate) else node


@pytest.mark.parametrize("kind", WITH_TABLES)
def test_saved_queries_answer_their_questions_over_exported_files(
    kind: Format, glue: Any, tmp_path: Path
) -> None:
    bucket = exported(kind)
    Catalog(glue, DATABASE, bucket).describe(kind)
    engine = load(bucket, table_of(glue, kind), kind, tmp_path)

    answers = {}
    for query in stack(kind).of_type("AWS::Athena::NamedQuery"):
        assert (query.properties["WorkGroup"], query.properties["Database"]) == (
            "tagline-lake",
            stack().outputs()["LakeDatabase"],
        )
        asked = sqlglot.parse_one(query.properties["QueryString"], read="athena").transform(on_that_day)
        answers[query.logical_id] = engine.execute(asked.sql("duckdb")).fetchall()

    first, second = date(2026, 11, 1), date(2026, 11, 2)
    # 20 requests of each route in the month: durations 0, 5, ..., 45, each twice.
    assert answers["RequestsByRouteInLake"][0] == (
        "/r0",
        "GET",
        20,
        8,
        4,
        22.5,
        22.5,
        pytest.approx(45, abs=0.5),
    )
    assert len(answers["RequestsByRouteInLake"]) == 5
    assert answers["RequestsByClientInLake"][0] == (
        "c0",
        first,
        25,
        5,
        24.0,
        24.0,
        pytest.approx(46.8, abs=0.5),
    )
    assert [row[:2] for row in answers["RequestsByClientInLake"]] == [
        *(("c0", day) for day in (first, second)),
        *(("c1", day) for day in (first, second)),
    ]
    assert answers["ErrorRateInLake"] == [
        (day, 50, 24.0, 24.5, 24.5, pytest.approx(47, abs=0.5)) for day in (first, second)
    ]
    (agents,) = engine.execute(
        f"SELECT count(*) FROM {kind.rules.table} WHERE user_agent = 'curl, 8' AND date_7 = 'soon'"
    ).fetchall()
    assert agents == (150,)
