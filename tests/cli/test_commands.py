"""The command, as a person runs it: in a folder, in a process of its own."""

import contextlib
import csv
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
import zipfile
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from cli.main import app

ROOT = Path(__file__).resolve().parent.parent.parent
COMMAND = [sys.executable, "-m", "tagline_pipeline"]
LINE = '192.0.2.{} - - [17/May/2015:10:05:{:02} +0000] "GET /item/{} HTTP/1.1" 200 512 "-" "agent"\n'


def environment() -> dict[str, str]:
    return {
        **os.environ,
        "COLUMNS": "120",
        "NO_COLOR": "1",
    }


def tagline(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


def result(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    read: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return read


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "access.log"
    lines = [LINE.format(number % 5, number % 60, number) for number in range(300)]
    lines[7] = "this is no access log line\n"
    path.write_text("".join(lines))
    return path


def test_the_demo_ends_with_its_counts_and_a_zip_of_as_many_rows(tmp_path: Path) -> None:
    done = tagline(tmp_path, "demo", "--requests", "40")

    assert done.returncode == 0, done.stderr
    counts = result(done)
    assert list(counts) == [
        *("emitted", "delivered", "stored", "quarantined", "lost", "exported", "downloaded"),
        *("seconds", "zip", "report"),
    ]
    assert {name: counts[name] for name in ("emitted", "delivered", "stored", "exported", "downloaded")} == (
        dict.fromkeys(("emitted", "delivered", "stored", "exported", "downloaded"), 40)
    )
    assert (counts["quarantined"], counts["lost"]) == (0, 0)
    with zipfile.ZipFile(counts["zip"]) as zipped:
        assert zipped.testzip() is None
    assert "emitted: lines on stdout" in done.stdout
    assert re.search("lost: [^│]*│ +0 │", done.stdout)
    metrics = re.search(r"metrics: items in CloudWatch, of (\d+) ordered *│ +(\d+) │", done.stdout)
    assert metrics
    assert metrics[1] == metrics[2] > "0"
    assert Path(counts["report"]) == tmp_path / ".tagline" / "report.html"
    assert counts["report"] in done.stdout.splitlines()[-2]
    assert done.stderr.splitlines()[-1].startswith("Next: ")
    # Two of the 40 are orders, which are records of another type.
    assert '<span class="value">38</span>' in Path(counts["report"]).read_text(encoding="utf-8")


def since(day: date) -> set[date]:
    """Return the day, and the next one where midnight has passed since."""
    return {day, datetime.now(UTC).date()}


def test_the_demo_with_the_lake_says_an_access_log_again_up_to_yesterday(tmp_path: Path, log: Path) -> None:
    began = datetime.now(UTC).date()
    page = ("--report", "reports/traffic.html")
    done = tagline(tmp_path, "demo", "--store", "lake", "--access-log", str(log), *page)

    assert done.returncode == 0, done.stderr
    counts = result(done)
    stages = [counts[name] for name in ("emitted", "stored", "exported", "downloaded", "lost")]
    assert stages == [299, 299, 299, 299, 0]
    assert f"{log.name}:8: not in common or combined format" in done.stderr.replace("\n", "")
    with zipfile.ZipFile(counts["zip"]) as zipped:
        (name,) = (name for name in zipped.namelist() if name.endswith(".csv"))
        rows = list(csv.DictReader(io.TextIOWrapper(zipped.open(name), "utf-8")))
    (said,) = {row["time"][:10] for row in rows}
    assert date.fromisoformat(said) + timedelta(days=1) in since(began)
    assert {row["path"] for row in rows} == {f"/item/{number}" for number in range(300)} - {"/item/7"}
    shown = (tmp_path / "reports" / "traffic.html").read_text(encoding="utf-8")
    assert f"<h1>{log.name}</h1>" in shown
    assert '<span class="value">299</span>' in shown


def test_the_version_and_the_help_have_their_usual_options(tmp_path: Path) -> None:
    assert tagline(tmp_path, "--version").stdout.split()[1] == metadata.version("tagline-pipeline")
    assert tagline(tmp_path, "feed", "-h").stdout == tagline(tmp_path, "feed", "--help").stdout


@pytest.mark.parametrize(
    ("arguments", "problem", "advice"),
    [
        (("query", "SELECT 1"), "no pipeline is running in this folder", "tagline up"),
        (("query", " "), "the question is empty", "tagline query --help"),
        (
            ("query", "SELECT 1 FROM {tables}"),
            "{tables} is not a placeholder",
            "{table} for the table's name",
        ),
        (("quarantine", "ls", "--reason", "nosuch"), "'nosuch' is not one of", "--help"),
        (("export",), "no pipeline is running in this folder", "tagline up"),
        (("download",), "no pipeline is running in this folder", "tagline up"),
        (("feed", "nothing.log"), "no pipeline is running in this folder", "tagline up"),
        (("demo", "--access-log", "nothing.log"), "cannot read nothing.log", "give the path of a log file"),
        (("up", "--store", "lake", "--data", "d"), "--data keeps tables of timestream alone", "leave it out"),
        (("up", "--template", "nowhere.yml"), "there is no template nowhere.yml", "give the path"),
        (("demo", "--access-log", "logs[/old]/a.log"), "cannot read logs[/old]/a.log", "give the path"),
        (("filter", "test", "{ $.x = [/b] }", "empty.log"), "Invalid character(s) in term '[/b]'", "filter"),
        (
            ("demo", "--access-log", "empty.log"),
            "empty.log has no line",
            "give a log in one of these formats",
        ),
    ],
)
def test_what_goes_wrong_is_said_with_what_to_do_next(
    arguments: tuple[str, ...], problem: str, advice: str, tmp_path: Path
) -> None:
    (tmp_path / "empty.log").touch()

    done = tagline(tmp_path, *arguments)

    assert done.returncode == (2 if "--reason" in arguments else 1)  # 2: an option is wrong
    assert problem in done.stderr
    assert advice in done.stderr
    assert "Traceback" not in done.stderr


@contextlib.contextmanager
def running(folder: Path, *options: str) -> Iterator[str]:
    """Run `tagline up` in a folder for as long as the block takes, and give what it printed."""
    process = subprocess.Popen(
        [*COMMAND, "up", *options],
        cwd=folder,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    printed = ""
    try:
        assert process.stdout is not None
        for line in process.stdout:
            printed += line
            if "Stop it" in line:
                break
        else:
            pytest.fail(printed)
        yield printed
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.communicate(timeout=120)
        finally:
            process.kill()
    assert process.returncode == 0
    assert not (folder / ".tagline" / "running.json").exists()


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Path]:
    with running(tmp_path):
        yield tmp_path


def until(folder: Path, sql: str, value: str) -> None:
    """Wait until a query's only value is what it is to be."""
    deadline = time.monotonic() + 600
    while (tagline(folder, "query", "--csv", sql).stdout.splitlines() or [""])[-1] != value:
        assert time.monotonic() < deadline


def test_a_running_pipeline_is_fed_asked_exported_and_downloaded_from(up: Path, log: Path) -> None:
    count = "SELECT count(*) FROM {table}"
    for more in (299, 0):  # feeding a file again changes nothing
        fed = tagline(up, "feed", str(log))
        assert fed.stdout.splitlines()[-1] == f"more rows in Timestream: {more}, more lines in quarantine: 0"
        until(up, count, "299")

    by_client = tagline(
        up, "query", "SELECT client, count(*) AS n FROM {table} GROUP BY client ORDER BY client"
    )
    assert "192.0.2.0" in by_client.stdout
    by_route = tagline(up, "insights", "filter status = 200 | stats count_distinct(_id) as n by method")
    assert (by_route.returncode, "299" in by_route.stdout) == (0, True), by_route.stderr
    reconciled = tagline(up, "reconcile")
    assert reconciled.returncode == 0, reconciled.stdout
    # The lines were written today, and none of them is missing; their records are of yesterday.
    assert "table: 299 rows; lake: 0 rows" in reconciled.stdout
    assert "299 more rows than lines: they were written on another day" in reconciled.stdout
    today = datetime.now(UTC)
    both = tagline(
        up, "reconcile", "--from", f"{today - timedelta(days=1):%Y-%m-%d}", "--to", f"{today:%Y-%m-%d}"
    )
    assert both.returncode == 0, both.stdout
    assert "299 more rows than lines: they were written on another day" in both.stdout
    assert "598 more lines than rows: they repeat an _id" in both.stdout
    exported = tagline(up, "export")
    assert exported.returncode == 0, exported.stderr
    assert "299" in exported.stdout
    downloaded = tagline(up, "download", "--out", "usage.zip")
    assert downloaded.returncode == 0, downloaded.stderr
    assert "usage.zip: 299 rows" in downloaded.stdout
    assert tagline(up, "query", count).returncode == 0

    wrong = tagline(up, "query", "SELECT nothing FROM {table}")
    assert (wrong.returncode, "Traceback" in wrong.stderr) == (1, False)
    assert "Column 'nothing' does not exist" in wrong.stderr
    bracketed = tagline(up, "query", 'SELECT "[/x]" FROM {table}')
    assert "line 1:8: Column '[/x]' does not exist" in bracketed.stderr
    malformed = tagline(up, "insights", "fields nothing(")
    assert (malformed.returncode, "Traceback" in malformed.stderr) == (1, False)
    backwards = tagline(up, "download", "--from", "2026-01-02", "--to", "2026-01-01")
    assert "is before the first" in backwards.stderr
    second = tagline(up, "up")
    assert "a pipeline is running in this folder already" in second.stderr


@pytest.mark.parametrize(
    ("pattern", "status", "printed"),
    [
        ('"GET /item/7 "', 0, ["7"]),
        ("nothing", 1, []),
        ("[ip, user, name, when, request, status=2*, bytes]", 0, [str(number) for number in range(9)]),
    ],
)
def test_a_filter_pattern_is_tried_on_a_file(
    pattern: str, status: int, printed: list[str], tmp_path: Path
) -> None:
    path = tmp_path / "lines.log"
    path.write_text("".join(LINE.format(1, number, number) for number in range(9)))

    done = tagline(tmp_path, "filter", "test", pattern, str(path))

    assert done.returncode == status, done.stderr
    assert [line.split("/item/")[1].split(" ")[0] for line in done.stdout.splitlines()] == printed


@pytest.mark.parametrize("end", ["\r", "\x0b", "\x85", "\u2028"])
def test_only_a_newline_ends_a_message_of_a_file(end: str, tmp_path: Path) -> None:
    """Lambda's runtime writes a stack trace with carriage returns."""
    path = tmp_path / "lines.log"
    path.write_text(f"[ERROR] boom{end}Traceback: x{end}ValueError\n", newline="")

    done = CliRunner().invoke(app, ["filter", "test", "--json", '"boom" "Traceback"', str(path)])

    assert json.loads(done.stdout)["message"] == f"[ERROR] boom{end}Traceback: x{end}ValueError"


def test_an_invalid_filter_pattern_is_refused_with_what_is_wrong(tmp_path: Path) -> None:
    done = tagline(tmp_path, "filter", "test", "{ $.a = ", "lines.log")

    assert (done.returncode, "Traceback" in done.stderr) == (1, False)
    assert "Invalid filter pattern" in done.stderr


TEMPLATE = """
Transform: AWS::Serverless-2016-10-31
Resources:
  Orders:
    Type: AWS::Serverless::Function
    Properties:
      CodeUri: .
      Handler: orders.handler
      Runtime: python3.13
      Events:
        Any: {Type: HttpApi, Properties: {Method: ANY, Path: /orders}}
  Cache:
    Type: AWS::ElastiCache::CacheCluster
    Properties: {CacheNodeType: cache.t3.micro, Engine: redis, NumCacheNodes: 1}
Outputs:
  Url:
    Value: !Sub "https://${ServerlessHttpApi}.execute-api.${AWS::Region}.amazonaws.com"
"""
ORDERS = """
from tagline import Emitter
emitter = Emitter(type="order")

@emitter.handler
def handler(event, context):
    return {"statusCode": 200}
"""


def test_functions_of_ones_own_run_beside_the_pipeline_and_their_rows_outlive_it(tmp_path: Path) -> None:
    (tmp_path / "template.yml").write_text(TEMPLATE)
    (tmp_path / "orders.py").write_text(ORDERS)
    options = ("--template", "template.yml", "--data", "data")
    count = "SELECT count(*) FROM {table} WHERE measure_name = 'order'"

    with running(tmp_path, *options) as printed:
        assert "not on this machine: Cache (AWS::ElastiCache::CacheCluster)" in printed
        (url,) = re.findall(r"(http://127.0.0.1:\d+) +Url of your template", printed)
        with urllib.request.urlopen(f"{url}/orders") as response:
            assert response.status == 200
        until(tmp_path, count, "1")
    with running(tmp_path, *options):
        until(tmp_path, count, "1")


def test_a_template_that_cannot_run_is_refused_by_what_it_has(tmp_path: Path) -> None:
    (tmp_path / "template.yml").write_text(TEMPLATE.replace("python3.13", "nodejs22.x"))

    done = tagline(tmp_path, "up", "--template", "template.yml")

    assert (done.returncode, "Traceback" in done.stderr) == (1, False)
    assert "nodejs22.x" in done.stderr


def test_time_passes_and_things_go_wrong_on_demand(up: Path, log: Path) -> None:
    for fault in (
        ("throttle", "--service", "timestream", "--times", "3"),
        ("duplicate", "--times", "2"),
        ("kill",),
    ):
        assert tagline(up, "fault", *fault).returncode == 0
    assert tagline(up, "feed", str(log)).returncode == 0
    until(up, "SELECT count(*) FROM {table}", "299")
    assert tagline(up, "fault", "none").returncode == 0

    began = datetime.now(UTC).date()
    passed = tagline(up, "tick", "--days", "1")

    assert passed.returncode == 0, passed.stderr
    (told,) = re.findall(r"It is (\d{4}-\d\d-\d\d)", passed.stdout)
    assert date.fromisoformat(told) - timedelta(days=1) in since(began)
    assert '"day"' in passed.stdout
    variables = json.loads(tagline(up, "env", "--json").stdout)
    shell = subprocess.run(
        [
            "sh",
            "-c",
            'eval "$0"; printf %s "$DownloadUrl $PetsApiUrl $AWS_ENDPOINT_URL"',
            tagline(up, "env").stdout,
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    assert shell.stdout.split() == [
        variables[name] for name in ("DownloadUrl", "PetsApiUrl", "AWS_ENDPOINT_URL")
    ]

    now = tagline(up, "query", "--csv", "SELECT date_trunc('day', now()) AS d")
    assert [day for day in since(began) if str(day + timedelta(days=1)) in now.stdout], now.stdout
    exported = tagline(up, "export")  # yesterday, by the clock that was put forward
    assert [day for day in since(began) if str(day) in exported.stdout], exported.stderr
    mails = tagline(up, "outbox")
    assert (mails.returncode, mails.stdout) == (0, "No e-mail would have been sent.\n"), mails.stderr
    stranger = tagline(up, "fault", "kill", "--function", "nobody")
    assert (stranger.returncode, "Traceback" in stranger.stderr) == (1, False)
    assert "function nobody does not exist" in stranger.stderr
    unscheduled = tagline(up, "tick", "--function", "nobody")
    assert "error: no schedule calls 'nobody'\n" in unscheduled.stderr
    nowhere = tagline(up, "download", "--from", "2026-01-01", "--out", "nowhere/x.zip")
    assert (nowhere.returncode, "Traceback" in nowhere.stderr) == (1, False)
    assert "nowhere/x.zip cannot be written" in nowhere.stderr
    misnamed = tagline(up, "fault", "throttle", "--service", "dynamo")
    assert (misnamed.returncode, "Traceback" in misnamed.stderr) == (1, False)
    assert "service 'dynamo' is unknown" in misnamed.stderr
    lost = tagline(up, "fault", "lose", "--times", "2")
    assert lost.stdout == "lose: the next 2 deliveries of lines\n", lost.stderr
    assert tagline(up, "fault", "none").returncode == 0


def test_the_commands_of_the_runbook_run(tmp_path: Path, log: Path) -> None:
    with running(tmp_path, "--parameter-overrides", "AlertEmail=ops@example.com"):
        run_the_commands_of_the_runbook(tmp_path, log)


def run_the_commands_of_the_runbook(up: Path, log: Path) -> None:
    assert tagline(up, "feed", str(log)).returncode == 0
    (up / "app.log").write_text('{"_tag": "usage_record", "status": \n')
    assert tagline(up, "feed", "--lines", str(up / "app.log")).returncode == 0
    until(up, "SELECT count(*) FROM {table}", "299")
    key = ""
    text = (ROOT / "docs" / "runbook.md").read_text()
    commands = re.findall(r"(?:`|^)tagline ([^`\n]+)", text, re.MULTILINE)
    # What exports is first, so that there is something to look at.
    for command in sorted(dict.fromkeys(commands), key=lambda each: not each.startswith("export")):
        yesterday = f"{datetime.now(UTC) - timedelta(days=1):%Y-%m-%d}"
        if command == "quarantine show KEY":
            listed = tagline(up, "quarantine", "ls", "--keys", "--json")
            key = json.loads(listed.stdout.splitlines()[0])["key"]
        if command == "forget --client NAME --undo":
            days = ("--from", yesterday, "--to", yesterday)
            forgotten = tagline(up, "forget", "--client", "NAME", *days, "--yes")
            assert forgotten.returncode == 0, forgotten.stderr
        done = tagline(up, *command.replace("DAY", yesterday).replace("KEY", key).split())
        # It finds what is wrong here: a line that cannot be read.
        status = 1 if command == "doctor" else 0
        shown = (command, done.stdout, done.stderr)
        assert (done.returncode, "Traceback" in done.stderr) == (status, False), shown
        assert command != "doctor" or "lines are in quarantine" in done.stdout
    assert key
