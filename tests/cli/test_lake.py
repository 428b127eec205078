"""The commands about the lake, over a pipeline in this process."""

import io
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import requests
from rich.console import Console
from rich.progress import Progress
from typer.testing import CliRunner, Result

from cli import lake as commands
from cli.main import app
from cli.target import target_of, write_running
from exporter.downloads.jobs import Job
from exporter.downloads.jobs import Request as DownloadRequest
from exporter.downloads.stored_jobs import read_job, replace_job
from exporter.lake.days import Day
from exporter.lake.formats import Format
from exporter.store import Days
from local.pipeline import Pipeline


@pytest.fixture
def bars() -> Iterator[Progress]:
    with Progress(console=Console(file=io.StringIO())) as shown:
        yield shown


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
    assert [each.problems for each in commands.verify_days(where, days, bars)] == [()] * len(days)

    found = list(commands.find_client(where, "acme", days, bars))
    assert sum(each.rows for each in found) == 2
    objects = where.bucket()
    download = Job("0" * 32, DownloadRequest(days))
    assert replace_job(objects, download, None)
    done, key = commands.erase_client(where, "acme", days, bars)
    assert sum(each.rows for each in done) == 2
    assert read_job(objects, download.id) is None
    assert b"acme" not in (objects.get(key) or b"acme")
    assert list(commands.find_client(where, "acme", days, bars)) == []

    # Timestream still has the rows; the lake does not take them back.
    again = list(commands.export_days(where, days, bars))
    assert sum(day["rows"] for day in again) == 1
    assert [each.problems for each in commands.verify_days(where, days, bars)] == [()] * len(days)

    # What comes after a day was written is missed, until it is written again.
    assert requests.get(url, headers={"x-client": "other"}, timeout=60).ok
    tagline.settle()
    wrong = [problem for each in commands.verify_days(where, days, bars) for problem in each.problems]
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
    objects = where.bucket()
    assert commands.kinds_of(objects, days) == [Format.CSV_GZ]
    assert Day(objects, yesterday, Format.PARQUET).manifest() is None


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

    objects = where.bucket()
    before = sorted(objects.keys(""))
    tried = said("forget", "--client", "acme", *asked)
    assert "Nothing was done. To do it, say the same with --yes." in tried.output
    assert sorted(objects.keys("")) == before
    done = said("forget", "--client", "acme", *asked, "--yes")
    assert "Removed 1 of the client's rows; written again: 1 of the lake's days." in done.output
    assert "\nlake/audit/" in done.output

    (part,) = [key for key in before if key.endswith(".csv.gz")]
    assert part not in list(objects.keys("records/year="))
    objects.delete([key for key in objects.keys("records/year=") if key.endswith("_manifest.json")])
    verified = said("verify", *asked)
    assert verified.exit_code == 1
    assert "there is no manifest" in verified.output


def said(*arguments: str) -> Result:
    return CliRunner(env={"COLUMNS": "200"}).invoke(app, arguments)
