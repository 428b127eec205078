"""`tagline query` and the shipped queries over the lake, in a pipeline whose store it is."""

from collections import Counter
from pathlib import Path

import pytest
import requests
from typer.testing import CliRunner, Result

from cli.apps import tagline_with_samples
from cli.main import app
from cli.target import target_of, write_running
from exporter.stores.lake.athena import Questions
from local.pipeline import Pipeline

PATHS = ("/pets", "/pets", "/pets/1", "/nothing", "/pets")


def query(*arguments: str) -> Result:
    return CliRunner(env={"COLUMNS": "200"}).invoke(app, ["query", *arguments])


def test_the_exported_days_answer_sql_and_the_shipped_queries(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with Pipeline(tagline_with_samples(window_s=0, store="lake"), in_process=True) as pipeline:
        where = target_of(pipeline)
        write_running(where)
        url = pipeline.outputs["sample"]["SampleApiUrl"]
        statuses = [
            requests.get(url + path, headers={"x-client": f"client-{number % 2}"}, timeout=60).status_code
            for number, path in enumerate(PATHS)
        ]
        pipeline.settle()

        early = query("SELECT count(*) FROM {table}")
        assert early.exit_code == 1
        assert "TABLE_NOT_FOUND" in str(early.exception)
        assert "tagline export" in str(early.exception)

        days = where.store().days()
        assert days is not None
        for day in days:
            where.invoke("DailyExporterName", {"day": day.isoformat()})
        asked = query(
            "--csv", "SELECT cast(status AS bigint) AS status, count(*) AS n FROM {table} GROUP BY 1"
        )
        assert asked.exit_code == 0, asked.output
        assert "Athena's SQL" in asked.stderr
        header, *lines = asked.stdout.splitlines()
        assert header == "status,n"
        assert sorted(lines) == sorted(f"{status},{n}" for status, n in Counter(statuses).items())
        wrong = query("SELECT ago(1h)")
        assert wrong.exit_code == 1
        assert "FUNCTION_NOT_FOUND" in str(wrong.exception)

        service, outputs = where.client("athena"), where.outputs
        group = outputs["LakeWorkGroup"]
        questions = Questions(service, outputs["LakeDatabase"], group, sleep=lambda _: None)
        totals = {}
        for id_ in service.list_named_queries(WorkGroup=group)["NamedQueryIds"]:
            shipped = service.get_named_query(NamedQueryId=id_)["NamedQuery"]
            answer = questions.ask(shipped["QueryString"])
            place = [column.name for column in answer.columns].index("requests")
            totals[shipped["Name"]] = sum(int(str(row[place])) for row in answer.rows)
        assert totals == dict.fromkeys(totals, len(statuses))
        assert len(totals) == 3

        many = questions.ask("SELECT n FROM UNNEST(sequence(1, 2500)) AS t(n) ORDER BY n")
        assert [row for (row,) in many.rows] == [str(number) for number in range(1, 2501)]

        # Ctrl-C while it runs: nobody pays for what it would still read.
        def interrupt(_seconds: float) -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            Questions(service, outputs["LakeDatabase"], group, sleep=interrupt).ask("SELECT 1")
        started = service.list_query_executions(WorkGroup=group)["QueryExecutionIds"]
        found = [service.get_query_execution(QueryExecutionId=id_)["QueryExecution"] for id_ in started]
        assert [each["Status"]["State"] for each in found].count("CANCELLED") == 1
