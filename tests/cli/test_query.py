"""`tagline query` and the shipped queries over the lake, in a pipeline whose store it is."""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import boto3
import pytest
import requests
from botocore.awsrequest import AWSResponse
from onemachine.pipeline import Pipeline
from typer.testing import CliRunner, Result

from cli.apps import tagline_with_samples
from cli.commands.ask import check_placeholders
from cli.main import app
from cli.target import Target, target_of, write_running
from exporter.store import Days
from exporter.stores.lake.athena import Questions

PATHS = ("/pets", "/pets", "/pets/1", "/nothing", "/pets")


@dataclass(frozen=True)
class Lake:
    """A lake in which days are exported: where it is, and which rows it has."""

    where: Target
    days: Days
    statuses: list[int]
    environment: dict[str, str]


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lake]:
    with (
        pytest.MonkeyPatch.context() as patch,
        Pipeline(tagline_with_samples(store="lake"), in_process=True) as pipeline,
    ):
        patch.chdir(tmp_path_factory.mktemp("lake"))
        where = target_of(pipeline)
        write_running(where)
        url = pipeline.outputs["sample"]["SampleApiUrl"]
        statuses = [
            requests.get(url + path, headers={"x-client": f"client-{number % 2}"}, timeout=60).status_code
            for number, path in enumerate(PATHS)
        ]
        pipeline.settle()
        # The first question makes the tables.
        assert rows("SELECT count(*) FROM {table}") == [str(len(statuses))]
        days = where.store().days()
        assert days is not None
        for day in days:
            where.invoke("DailyExporterName", {"day": day.isoformat()})
        yield Lake(where, days, statuses, pipeline.services.environment())


def query(*arguments: str) -> Result:
    return CliRunner(env={"COLUMNS": "200"}).invoke(app, ["query", *arguments])


def rows(sql: str) -> list[str]:
    """Return the lines that a query prints as CSV, sorted, without the header."""
    answer = query("--csv", sql)
    assert answer.exit_code == 0, answer.exception
    return sorted(answer.stdout.splitlines()[1:])


def questions_of(lake: Lake) -> Questions:
    outputs = lake.where.outputs
    return Questions(
        lake.where.client("athena"), outputs["LakeDatabase"], outputs["LakeWorkGroup"], sleep=lambda _: None
    )


def test_all_rows_answer_sql_and_the_command_says_which(lake: Lake) -> None:
    asked = query("--csv", "SELECT cast(status AS bigint) AS status, count(*) AS n FROM {table} GROUP BY 1")

    assert asked.exit_code == 0, asked.exception
    assert "Athena's SQL" in asked.stderr
    header, *lines = asked.stdout.splitlines()
    assert header == "status,n"
    assert sorted(lines) == sorted(f"{status},{n}" for status, n in Counter(lake.statuses).items())


@pytest.mark.usefixtures("lake")
def test_a_function_of_the_other_store_is_refused_by_its_name() -> None:
    wrong = query("SELECT ago(1h)")

    assert wrong.exit_code == 1
    assert "FUNCTION_NOT_FOUND" in str(wrong.exception)


def test_a_row_that_is_in_several_fragments_counts_once(lake: Lake) -> None:
    s3, bucket = lake.where.client("s3"), lake.where.outputs["Bucket"]
    # The same rows, delivered again in other pieces: their fragments have other names.
    for number, key in enumerate(list(lake.where.bucket().keys("store/"))):
        again = f"{key.removesuffix('.parquet')[:-32]}{number:032}.parquet"
        s3.copy_object(Bucket=bucket, Key=again, CopySource={"Bucket": bucket, "Key": key})

    assert rows("SELECT count(*) FROM fresh") == [str(2 * len(lake.statuses))]
    assert rows("SELECT count(*) FROM {table}") == [str(len(lake.statuses))]
    assert rows("SELECT count(*) FROM records") == [str(len(lake.statuses))]


@pytest.mark.usefixtures("lake")
def test_a_table_that_does_not_exist_is_named() -> None:
    assert "TABLE_NOT_FOUND" in str(query("SELECT 1 FROM nowhere").exception)


def test_the_shipped_queries_count_every_request(lake: Lake) -> None:
    service, group = lake.where.client("athena"), lake.where.outputs["LakeWorkGroup"]
    totals = {}
    for id_ in service.list_named_queries(WorkGroup=group)["NamedQueryIds"]:
        shipped = service.get_named_query(NamedQueryId=id_)["NamedQuery"]
        answer = questions_of(lake).ask(shipped["QueryString"])
        place = [column.name for column in answer.columns].index("requests")
        totals[shipped["Name"]] = sum(int(str(row[place])) for row in answer.rows)

    assert totals == dict.fromkeys(totals, len(lake.statuses))
    assert len(totals) == 3


@pytest.mark.usefixtures("lake")
def test_numbers_are_numbers_in_json() -> None:
    asked = query("--json", "SELECT count(*) AS n, 1 AS one, avg(1e0) / 4 AS mean, 'a' AS text FROM {table}")

    assert json.loads(asked.stdout) == {"n": len(PATHS), "one": 1, "mean": 0.25, "text": "a"}


@pytest.mark.usefixtures("lake")
def test_an_error_has_the_places_of_the_question() -> None:
    assert "line 1:29:" in str(query("SELECT 1 FROM {table} WHERE [x] = 1").exception)


@pytest.mark.parametrize("sql", ["SELECT a FROM {tables}", "SELECT '{a}' FROM {tables} WHERE b = '{table}'"])
def test_a_placeholder_that_stands_for_nothing_is_named(sql: str) -> None:
    assert "{tables} is not a placeholder" in str(query(sql).exception)


@pytest.mark.parametrize("sql", ["SELECT 1 WHERE '{a}' = \"{b}\"", "SELECT 1 -- {c}\n/* {d} */", "SELECT 1"])
def test_braces_in_texts_are_no_placeholders(sql: str) -> None:
    check_placeholders(sql)


def test_all_pages_are_read(lake: Lake) -> None:
    many = questions_of(lake).ask("SELECT n FROM UNNEST(sequence(1, 2500)) AS t(n) ORDER BY n")

    assert [row for (row,) in many.rows] == [str(number) for number in range(1, 2501)]


def test_a_stack_on_aws_is_asked_to_the_last_page(
    lake: Lake, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)  # where no pipeline runs
    for name, value in lake.environment.items():
        monkeypatch.setenv(name, value)
    outputs = [{"OutputKey": name, "OutputValue": value} for name, value in lake.where.outputs.items()]
    answer = AWSResponse("", 200, {}, None), {"Stacks": [{"Outputs": outputs}]}
    session = boto3.Session()
    session.events.register("before-call.cloudformation.DescribeStacks", lambda **_: answer)
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", session)

    asked = query("--csv", "--stack", "prod", "SELECT n FROM UNNEST(sequence(1, 1500)) AS t(n) ORDER BY n")
    counted = query("--csv", "--stack", "prod", "SELECT count(*) FROM {table}")

    assert asked.exit_code == counted.exit_code == 0, (asked.exception, counted.exception)
    assert asked.stdout.splitlines()[1:] == [str(number) for number in range(1, 1501)]
    assert counted.stdout.splitlines()[1:] == [str(len(lake.statuses))]


def test_an_interrupted_query_is_stopped(lake: Lake) -> None:
    service, outputs = lake.where.client("athena"), lake.where.outputs

    def interrupt(_seconds: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Questions(service, outputs["LakeDatabase"], outputs["LakeWorkGroup"], sleep=interrupt).ask("SELECT 1")

    started = service.list_query_executions(WorkGroup=outputs["LakeWorkGroup"])["QueryExecutionIds"]
    found = [service.get_query_execution(QueryExecutionId=id_)["QueryExecution"] for id_ in started]
    assert [each["Status"]["State"] for each in found].count("CANCELLED") == 1
