"""Commands beside a pipeline that runs: what a newcomer typed, and values that nobody expects."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from onemachine.pipeline import Pipeline
from tagline import Record, write
from typer.testing import CliRunner, Result

from cli.apps import tagline_with_samples
from cli.errors import CommandError
from cli.main import app, problem_of
from cli.target import target_of, write_running
from consumers.lines.subscription import encode
from tests.builders import envelope
from tests.cli.test_commands import tagline
from tests.cli.test_odd_values import ODD, PARAMETERS, arguments, ends_well

RETURNS = "Mozilla\rX-Forged: 1\r\n"
# They run for long, act on files alone, or wait for a person.
ELSEWHERE = {"up", "demo", "cost", "tick", "dashboard", "schema show", "schema check", "filter test", "feed"}


ROOT = Path(__file__).resolve().parents[2]
# Variables that the pages tell a reader to set, and an output of the reader's own template.
NOT_PRINTED = {"AWS_SESSION_TOKEN", "Artifacts", "Authorization", "Cluster", "KEY", "Url"}


def running_samples() -> Pipeline:
    return Pipeline(tagline_with_samples(pets=True), enforce_auth=True)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    """A pipeline with one row, whose functions leave this process's stdout alone."""
    with pytest.MonkeyPatch.context() as patch, running_samples() as pipeline:
        patch.chdir(tmp_path_factory.mktemp("running"))
        target = target_of(pipeline)
        write_running(target)
        now_ms = int(target.now().timestamp() * 1000)
        fields = {"user_agent": RETURNS, "status": 200, "bytes": 28_203_908, "route": "/\x1b]0;owned\x07"}
        record = Record("1", now_ms, fields, "api_request", "usage_record")
        target.client("kinesis").put_record(
            StreamName=target.outputs["StreamName"],
            Data=encode(envelope(write(record))),
            PartitionKey="key",
        )
        pipeline.settle()
        yield pipeline


@pytest.fixture(autouse=True)
def folder(running: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.chdir(tmp_path)
    write_running(target_of(running))


def ran(*line: str) -> Result:
    return CliRunner().invoke(app, line)


def printed(done: Result) -> str:
    """Return what it printed, with its error as the command prints it."""
    problem = problem_of(done.exception) if isinstance(done.exception, Exception) else None
    return done.output + " ".join(problem or ())


@pytest.mark.parametrize(
    ("line", "status", "text"),
    [
        (["quarantine", "show", ""], 1, "nothing is in quarantine under an empty key"),
        (["quarantine", "show", "[/x]"], 1, "nothing is in quarantine under [/x]"),
        (["quarantine", "show", "records/x"], 1, "nothing is in quarantine under records/x"),
        (
            ["insights", "--group", "/aws/lambda/no", "limit 1"],
            1,
            "Log group '/aws/lambda/no' does not exist",
        ),
        (["export", "--from", "1900-01-01"], 1, "no record can be of 1900-01-01"),
        (["download", "--from", "2026-01-01", "--to", "2026-01-19"], 3, "19 of 19"),
        (["download", "--out", "nowhere/x.zip"], 1, "nowhere/x.zip cannot be written"),
        (["download", "--out", "/dev/null"], 1, "/dev/null cannot be written: it is not a regular file"),
        (["query", "--csv", "SELECT time, route FROM {table} WHERE 1 = 2"], 0, "time,route\n"),
        (["query", "SELECT count(*) AS n FROM {table} WHERE route NOT LIKE '/a%'"], 0, " 1 "),
        (["query", "SELECT bytes, status FROM {table}"], 0, "28203908"),
        (["query", "SELECT route FROM {table}"], 0, r"/\x1b]0;owned\x07"),
        (["insights", "--json", "limit 1"], 0, ""),
        (["reconcile", "--stack", "x"], 1, "cannot find the stack x"),
    ],
)
def test_what_a_newcomer_typed_is_answered(line: list[str], status: int, text: str) -> None:
    done = ran(*line)

    assert (done.exit_code, text in printed(done)) == (status, True), printed(done)


def test_a_link_stays_a_link_and_standard_output_is_no_file() -> None:
    Path("link.zip").symlink_to("usage.zip")

    day = ("--from", "2026-01-02")  # other tests may export yesterday
    assert ran("download", *day, "--out", "link.zip").exit_code == 3
    assert Path("link.zip").is_symlink()
    assert Path("usage.zip").read_bytes().startswith(b"PK")
    assert ran("download", *day, "--out", "-").stdout_bytes.startswith(b"PK")
    assert not Path("-").exists()


def test_carriage_returns_in_a_value_are_read_by_others() -> None:
    done = ran("query", "--csv", "SELECT user_agent FROM {table}")

    rows = list(csv.reader(io.StringIO(done.stdout_bytes.decode(), newline="")))
    assert rows == [["user_agent"], [RETURNS]]


@pytest.mark.parametrize(
    ("output", "event", "group"),
    [
        ("DailyExporterName", {"day": "never"}, "DailyExporter"),
        ("AccessLogReplayName", {"requests": 1}, "/aws/lambda/sample-AccessLogReplay"),
    ],
)
def test_a_function_that_fails_leads_to_its_lines(
    output: str, event: Any, group: str, running: Pipeline
) -> None:
    with pytest.raises(CommandError, match="failed: ") as failed:
        target_of(running).invoke(output, event)
    running.settle()

    assert failed.value.advice.endswith(f"tagline logs --function {group}")
    kind = str(failed.value).split("failed: ")[1].partition(":")[0]
    assert kind in ran("logs", "--function", group).output


def test_a_port_that_is_taken_is_named() -> None:
    Path(".tagline/running.json").unlink()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        # Its services would take the place of those in this process.
        done = tagline(Path.cwd(), "up", "--port", port)

    assert (done.returncode, "Traceback" in done.stderr) == (1, False)
    assert "Address already in use" in done.stderr
    assert port in done.stderr


def test_the_variables_are_those_of_the_environment(running: Pipeline) -> None:
    variables = json.loads(ran("env", "--json").stdout)

    assert variables["AWS_ENDPOINT_URL"] == running.services.endpoint
    assert variables.items() >= target_of(running).outputs.items()
    assert "AWS_ENDPOINT_URL" not in os.environ
    pages = [path.read_text() for path in [*(ROOT / "docs").rglob("*.md"), *ROOT.glob("*.md")]]
    blocks = [
        block for page in pages for block in re.findall(r"^ *```sh\n(.*?)```", page, re.MULTILINE | re.DOTALL)
    ]
    used = {name for block in blocks for name in re.findall(r"\$\{?([A-Z]\w+)", block)}
    assert {"PetsApiUrl", "DownloadUrl"} <= used
    assert used - variables.keys() == NOT_PRINTED


@pytest.mark.parametrize(
    ("names", "command", "parameter"),
    [each for each in PARAMETERS if " ".join(cast("tuple[str, ...]", each.values[0])) not in ELSEWHERE],
)
def test_an_odd_value_ends_in_a_sentence_beside_a_pipeline_as_well(
    names: tuple[str, ...], command: Any, parameter: Any
) -> None:
    lines = [arguments(names, command, parameter, value) for value in ODD[::6]]

    assert [line for line in lines if parameter.name != "stack" and not ends_well(line)] == []
