"""The adapter to the Glue catalog, against moto's, over the template's tables."""

from collections.abc import Iterator
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any

import boto3
import duckdb
import pytest
import sqlglot
from moto import mock_aws

from exporter.lake.athena import list_key
from exporter.lake.formats import Format
from exporter.lake.glue import Catalog, glue_columns
from exporter.store import FIRST_COLUMNS, Column
from local.template import Stack, resolve, translate

WITH_TABLES = [kind for kind in Format if kind.rules.table]
DAY = date(2025, 1, 9)
COLUMNS = (*FIRST_COLUMNS, Column("status", "number"), Column("ok", "boolean"), Column("Status", "integer"))


@cache
def stack() -> Stack:
    template = translate(Path(__file__).parents[3] / "template.yml")
    return resolve(template, {}, stack_name="tagline", endpoint="http://127.0.0.1:5000")


@pytest.fixture(scope="module")
def templates_tables() -> dict[str, dict[str, Any]]:
    tables = [table.properties["TableInput"] for table in stack().of_type("AWS::Glue::Table")]
    return {table["Name"]: table for table in tables}


@pytest.fixture
def glue(templates_tables: dict[str, dict[str, Any]]) -> Iterator[Any]:
    with mock_aws():
        client = boto3.client("glue")
        client.create_database(DatabaseInput={"Name": "lake"})
        for table in templates_tables.values():
            client.create_table(DatabaseName="lake", TableInput=table)
        yield client


@pytest.mark.parametrize("kind", WITH_TABLES)
def test_the_templates_tables_have_the_columns_of_every_lake(
    kind: Format, templates_tables: dict[str, dict[str, Any]]
) -> None:
    table = templates_tables[kind.rules.table]

    assert table["StorageDescriptor"]["Columns"] == glue_columns(kind, FIRST_COLUMNS)


@pytest.mark.parametrize("kind", WITH_TABLES)
def test_partitions_are_projected_to_where_the_exporter_writes_the_names_of_files(
    kind: Format, templates_tables: dict[str, dict[str, Any]]
) -> None:
    # https://docs.aws.amazon.com/athena/latest/ug/partition-projection-supported-types.html
    table = templates_tables[kind.rules.table]
    parameters = table["Parameters"]

    digits = {name: int(parameters[f"projection.{name}.digits"]) for name in ("year", "month", "day")}
    values = {name: f"{getattr(DAY, name):0{digits[name]}}" for name in digits}
    location = parameters["storage.location.template"]
    for name, value in values.items():
        assert parameters[f"projection.{name}.type"] == "integer"
        first, last = map(int, parameters[f"projection.{name}.range"].split(","))
        assert first <= int(value) <= last
        location = location.replace(f"${{{name}}}", value)
    assert location.startswith(table["StorageDescriptor"]["Location"])
    assert location == "s3://tagline-bucket/" + list_key(DAY, kind).removesuffix("symlink.txt")
    assert [each["Name"] for each in table["PartitionKeys"]] == list(digits)
    assert table["StorageDescriptor"]["InputFormat"].endswith(".SymlinkTextInputFormat")


def test_a_table_gets_the_columns_of_the_newest_files_and_keeps_the_rest(glue: Any) -> None:
    before = glue.get_table(DatabaseName="lake", Name="records")["Table"]

    Catalog(glue, "lake").describe(Format.PARQUET, COLUMNS)

    after = glue.get_table(DatabaseName="lake", Name="records")["Table"]
    assert [(each["Name"], each["Type"]) for each in after["StorageDescriptor"]["Columns"]] == [
        ("time", "timestamp"),
        ("_time_ns", "int"),
        *((name, "string") for name in ("_type", "_id", "source", "route", "method", "client")),
        ("status", "double"),
        ("ok", "boolean"),
    ]
    assert after["Parameters"] == before["Parameters"]
    assert after["PartitionKeys"] == before["PartitionKeys"]
    assert after["StorageDescriptor"]["SerdeInfo"] == before["StorageDescriptor"]["SerdeInfo"]


def test_over_csv_every_column_is_in_its_place_and_text(glue: Any) -> None:
    Catalog(glue, "lake").describe(Format.CSV_GZ, COLUMNS)

    columns = glue.get_table(DatabaseName="lake", Name="records_csv")["Table"]["StorageDescriptor"]["Columns"]
    assert [each["Name"] for each in columns] == [
        *(column.name for column in FIRST_COLUMNS),
        *("status", "ok", "status_9"),
    ]
    assert {each["Type"] for each in columns} == {"string"}


def test_a_table_that_is_right_is_not_written_again(glue: Any) -> None:
    catalog = Catalog(glue, "lake")
    catalog.describe(Format.PARQUET, COLUMNS)
    before = glue.get_table_versions(DatabaseName="lake", TableName="records")["TableVersions"]

    catalog.describe(Format.PARQUET, COLUMNS)

    after = glue.get_table_versions(DatabaseName="lake", TableName="records")["TableVersions"]
    assert len(after) == len(before)


def test_a_table_that_was_removed_is_left_alone(glue: Any) -> None:
    glue.delete_table(DatabaseName="lake", Name="records")

    Catalog(glue, "lake").describe(Format.PARQUET, COLUMNS)
    Catalog(glue, "lake").describe(Format.JSONL_GZ, COLUMNS)

    names = [table["Name"] for table in glue.get_tables(DatabaseName="lake")["TableList"]]
    assert names == ["records_csv"]


# --- saved queries ----------------------------------------------------------------------------------------


TODAY = date(2026, 11, 20)


@pytest.fixture(scope="module")
def month() -> Iterator[duckdb.DuckDBPyConnection]:
    """Give an engine with this month's rows, all text, as the table over CSV has them."""
    with duckdb.connect() as engine:
        engine.execute(
            "CREATE TABLE records_csv (year TEXT, month TEXT, day TEXT, route TEXT, method TEXT, client TEXT,"
            " status TEXT, duration_ms TEXT)"
        )
        for number in range(100):
            status = ["200", "200", "404", "500"][number % 4]
            day = f"{1 + number % 2:02}"
            engine.execute(
                "INSERT INTO records_csv VALUES (?, ?, ?, ?, 'GET', ?, ?, ?)",
                [f"{TODAY:%Y}", f"{TODAY:%m}", day, f"/r{number % 5}", f"c{number % 2}", status, str(number)],
            )
        # Another month's, and one without numbers: empty fields are empty text to this reader.
        engine.execute("INSERT INTO records_csv VALUES ('2024', '01', '01', '/old', 'GET', 'c0', '500', '1')")
        engine.execute(
            "INSERT INTO records_csv VALUES (?, ?, '02', '/r0', 'GET', 'c0', '', '')",
            [f"{TODAY:%Y}", f"{TODAY:%m}"],
        )
        yield engine


def on_that_day(node: sqlglot.exp.Expr) -> sqlglot.exp.Expr:
    """Let it be that day: an engine's own depends on where and when the test runs."""
    return sqlglot.exp.cast(f"'{TODAY}'", "date") if isinstance(node, sqlglot.exp.CurrentDate) else node


@pytest.mark.parametrize(
    ("query", "first", "rows"),
    [
        ("RequestsByRouteInLake", ("/r0", "GET", 21, 10, 5), 5),
        ("RequestsByClientInLake", ("c0", "2026-11-01", 50, 5), 3),
        ("ErrorRateInLake", ("2026-11-01", 50, 0.0), 2),
        ("LatencyByRouteInLake", ("/r4", "GET", 20), 5),
    ],
)
def test_a_saved_query_is_athenas_sql_and_answers_its_question(
    query: str, first: tuple[Any, ...], rows: int, month: duckdb.DuckDBPyConnection
) -> None:
    (saved,) = [each for each in stack().of_type("AWS::Athena::NamedQuery") if each.logical_id == query]
    assert saved.properties["WorkGroup"] == "tagline-lake"

    asked = sqlglot.parse_one(saved.properties["QueryString"], read="athena").transform(on_that_day)
    answer = month.execute(asked.sql("duckdb")).fetchall()

    assert (len(answer), answer[0][: len(first)]) == (rows, first)


def test_what_a_query_may_scan_is_limited() -> None:
    (group,) = stack().of_type("AWS::Athena::WorkGroup")

    configuration = group.properties["WorkGroupConfiguration"]
    assert configuration["EnforceWorkGroupConfiguration"] is True
    assert int(configuration["BytesScannedCutoffPerQuery"]) == 10_000_000_000
