"""The commands about the lake, over a pipeline in this process."""

import io
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
import pytest
import requests
from botocore.awsrequest import AWSResponse
from onemachine.pipeline import Pipeline
from rich.console import Console
from rich.progress import Progress
from typer.testing import CliRunner, Result

from cli import lake as commands
from cli.apps import tagline_with_samples
from cli.main import app
from cli.target import Target, target_of, write_running
from exporter.downloads.jobs import Job
from exporter.downloads.jobs import Request as DownloadRequest
from exporter.downloads.stored_jobs import read_job, replace_job
from exporter.lake.days import Day
from exporter.lake.formats import Format
from exporter.store import Days


@pytest.fixture
def bars() -> Iterator[Progress]:
    with Progress(console=Console(file=io.StringIO())) as shown:
        yield shown


def results(where: Target, task: str, days: Days, bars: Progress, client: str = "") -> list[dict[str, Any]]:
    answers = commands.do_task(where, task, days, bars, client)
    return [result for answer in answers for result in answer["results"]]


def problems(where: Target, days: Days, bars: Progress) -> list[str]:
    return [text for result in results(where, "verify", days, bars) for text in result["problems"]]


def test_days_are_exported_verified_and_rid_of_a_client(tagline: Pipeline, bars: Progress) -> None:
    where = target_of(tagline)
    for client in ("acme", "acme", "other"):
        url = tagline.outputs["sample"]["SampleApiUrl"] + "/pets"
        assert requests.get(url, headers={"x-client": client}, timeout=60).ok
    tagline.settle()
    days = where.store().days()
    assert days is not None

    exported = list(commands.export_days(where, days, bars))
    assert sum(day["rows"] for day in exported) == 3
    assert all(day["metered_bytes"] >= 0 and day["questions"] > 0 for day in exported)
    assert problems(where, days, bars) == []

    assert sum(each["rows"] for each in results(where, "find", days, bars, "acme")) == 2
    objects = where.bucket()
    download = Job("0" * 32, DownloadRequest(days))
    assert replace_job(objects, download, None)
    (answer,) = commands.do_task(where, "forget", days, bars, "acme")
    assert sum(each["rows"] for each in answer["results"]) == 2
    assert read_job(objects, download.id) is None
    assert b"acme" not in (objects.get(answer["audit"]) or b"acme")
    assert sum(each["rows"] for each in results(where, "find", days, bars, "acme")) == 0

    # Timestream still has the rows; the lake does not take them back.
    again = list(commands.export_days(where, days, bars))
    assert sum(day["rows"] for day in again) == 1
    assert problems(where, days, bars) == []

    # What comes after a day was written is missed, until it is written again.
    assert requests.get(url, headers={"x-client": "other"}, timeout=60).ok
    tagline.settle()
    wrong = problems(where, days, bars)
    today = datetime.now(UTC).date()
    if today in days:  # else midnight has passed in between
        assert len(wrong) == 1
        assert "export the day again" in wrong[0]


def test_a_day_without_rows_is_found_in_no_other_format(tagline: Pipeline, bars: Progress) -> None:
    where = target_of(tagline)
    yesterday = datetime.now(UTC).date() - timedelta(days=1)
    days = Days(yesterday, yesterday)

    (exported,) = commands.export_days(where, days, bars)

    assert (exported["rows"], exported["revision"]) == (0, 1)
    (verified,) = results(where, "verify", days, bars)
    assert (verified["format"], verified["rows"], verified["problems"]) == ("csv.gz", 0, [])
    assert Day(where.bucket(), yesterday, Format.PARQUET).manifest() is None


def test_the_commands_say_what_they_found_and_do_nothing_before_they_are_told_to(
    tagline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    where = target_of(tagline)
    write_running(where)
    url = tagline.outputs["sample"]["SampleApiUrl"] + "/pets"
    assert requests.get(url, headers={"x-client": "acme"}, timeout=60).ok
    tagline.settle()
    days = where.store().days()
    assert days is not None
    asked = ["--from", str(days.first), "--to", str(days.last)]

    exported = said("export", *asked, "--usd-per-gb", "0.01")
    assert exported.exit_code == 0
    assert {"MB", "USD", "seconds"} <= set(re.findall(r"\w+", exported.output))
    assert said("verify", *asked).exit_code == 0
    lake = {"DatabaseName": tagline.outputs["tagline"]["LakeDatabase"], "Name": "records_csv"}
    columns = where.client("glue").get_table(**lake)["Table"]["StorageDescriptor"]["Columns"]
    assert {"Name": "duration_ms", "Type": "string"} in columns

    objects = where.bucket()
    before = sorted(objects.keys(""))
    tried = said("forget", "--client", "acme", *asked)
    assert "Nothing was done. To do it, add --yes." in tried.output
    assert sorted(objects.keys("")) == before
    done = said("forget", "--client", "acme", *asked, "--yes")
    assert "Removed 1 of the client's rows; written again: 1 of the lake's days." in done.output
    assert "\nRecorded in lake/audit/" in done.output
    listed = said("forget", "--list")
    assert re.search("[0-9a-f]{32} .*T", listed.output)
    assert "Exports have the client's rows again" in said("forget", "--client", "acme", "--undo").output
    assert not re.search("[0-9a-f]{32}", said("forget", "--list").output)
    assert said("forget", "--client", "acme", "--undo").exit_code == 1
    assert said("forget", "--client", "acme", "--from", "2026-11-01").exit_code == 1

    (part,) = [key for key in before if key.endswith(".csv.gz")]
    assert part not in list(objects.keys("records/year="))
    objects.delete([key for key in objects.keys("records/year=") if key.endswith("_manifest.json")])
    verified = said("verify", *asked)
    assert verified.exit_code == 1
    assert "there is no manifest" in verified.output


def said(*arguments: str) -> Result:
    return CliRunner(env={"COLUMNS": "200"}).invoke(app, arguments)


@pytest.fixture
def stack(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Pipeline]:
    """A pipeline whose API asks for signatures. It is the stack `prod`; in no folder is it found."""
    monkeypatch.chdir(tmp_path)
    with Pipeline(tagline_with_samples(), enforce_auth=True) as pipeline:
        for name, value in pipeline.services.environment().items():
            monkeypatch.setenv(name, value)
        outputs = [
            {"OutputKey": name, "OutputValue": value} for name, value in pipeline.outputs["tagline"].items()
        ]
        answer = AWSResponse("", 200, {}, None), {"Stacks": [{"Outputs": outputs}]}
        session = boto3.Session()
        session.events.register("before-call.cloudformation.DescribeStacks", lambda **_: answer)
        monkeypatch.setattr(boto3, "DEFAULT_SESSION", session)
        yield pipeline


def test_days_of_a_stack_are_exported_verified_downloaded_and_rid_of_a_client(stack: Pipeline) -> None:
    for client in ("acme", "acme", "other"):
        url = stack.outputs["sample"]["SampleApiUrl"] + "/pets"
        assert requests.get(url, headers={"x-client": client}, timeout=60).ok
    stack.settle()
    days = target_of(stack).store().days()
    assert days is not None
    asked = ["--from", str(days.first), "--to", str(days.last), "--stack", "prod"]

    exported = said("export", *asked)
    verified = said("verify", *asked)
    tried = said("forget", "--client", "acme", *asked)
    first = said("download", *asked, "--out", "first.zip")
    done = said("forget", "--client", "acme", *asked, "--yes")
    second = said("download", *asked, "--out", "second.zip")
    refused = said("download", *asked, "--token", "none of theirs")

    assert [each.exit_code for each in (exported, verified, tried, first, done, second)] == [0] * 6
    assert "Nothing was done." in tried.output
    assert "Removed 2 of the client's rows" in done.output
    assert "first.zip: 3 rows" in first.output
    assert "second.zip: 1 rows" in second.output
    assert str(refused.exception) == "Forbidden"
    assert not list(Path().glob(".tagline*"))


@pytest.mark.tagline(processes=True)  # in this process, functions would take stdout from the commands
def test_a_range_of_centuries_is_verified_in_one_invocation(
    tagline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_running(target_of(tagline))

    verified = said("verify", "--from", "1900-01-01", "--to", "2026-01-31")

    assert verified.exit_code == 1
    assert "1900-01-01 to 2026-01-31" in verified.output
    assert verified.output.count("there is no manifest") == 1
