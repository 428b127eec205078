"""A day of a store beside its export, and beside the same day of the other store."""

from datetime import date
from pathlib import Path

import pytest
from onemachine.pipeline import Pipeline
from typer.testing import CliRunner

from cli import feed
from cli.apps import tagline_with_samples
from cli.compare import Side, differences, export_side, store_side
from cli.main import app
from cli.target import Target, target_of, write_running
from consumers.rows.registry import STORES
from exporter.lake.days import Day
from exporter.lake.formats import Format

SIZES = ("-", "0", "7", "2326", "12345678", "98765432109876")


def write_log(path: Path) -> Path:
    """Write an access log with numbers and texts of many forms, some of them in one second."""
    path.write_text(
        "".join(
            f"192.0.2.{number % 3} - - [17/May/2015:10:{number // 40:02}:{number % 60 // 20:02} +0000] "
            f'"GET /item/{number % 7}?n={number} HTTP/1.1" {200 + number % 5} {SIZES[number % 6]} "-" '
            f'"agent é, {number}"\n'
            for number in range(120)
        )
    )
    return path


def exported_day(where: Target) -> date:
    """Export all days, and return the only one that has rows."""
    days = where.store().days()
    assert days is not None
    for day in days:
        where.invoke("DailyExporterName", {"day": day.isoformat()})
    assert len(days) == 1
    return days.first


def checksums(where: Target, day: date) -> list[tuple[int, str | None]]:
    """Return the rows and the checksum of the text of each part of a day's csv.gz."""
    manifest = Day(where.bucket(), day, Format.CSV_GZ).manifest()
    assert manifest is not None
    return [(part.rows, part.text_sha256) for part in manifest.parts]


def test_both_stores_have_the_same_rows_of_one_log_and_export_the_same_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = write_log(tmp_path / "access.log")
    sides: dict[str, Side] = {}
    texts: dict[str, list[tuple[int, str | None]]] = {}
    for store in STORES:
        with Pipeline(tagline_with_samples(store=store), in_process=True) as pipeline:
            where = target_of(pipeline)
            with feed.open_access_log(path) as log:
                feed.send_access_log(where, log, lambda _: None)
            pipeline.settle()
            day = exported_day(where)
            sides[store], texts[store] = store_side(where, day, store), checksums(where, day)
            assert differences(sides[store], export_side(where, day)) == []
            write_running(where)
            shown = CliRunner().invoke(app, ["compare", "--day", str(day)])
            assert shown.exit_code == 0, shown.output

    assert sides["lake"].rows == sides["timestream"].rows == 120
    assert differences(sides["lake"], sides["timestream"]) == []
    assert texts["lake"] == texts["timestream"]
    assert texts["lake"][0][1] is not None


def test_what_differs_is_named_and_the_exit_status_is_one(
    tagline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    where = target_of(tagline)
    write_running(where)
    feed.send_requests(where, 10, lambda _: None)
    tagline.settle()
    day = exported_day(where)
    feed.send_requests(where, 5, lambda _: None)
    tagline.settle()

    shown = CliRunner().invoke(app, ["compare", "--day", str(day)])

    assert shown.exit_code == 1
    assert "differs" in shown.output
    assert "rows" in differences(store_side(where, day, "here"), export_side(where, day))
    missing = CliRunner().invoke(app, ["compare", "--day", "2020-01-01"])
    assert "2020-01-01 was never exported" in str(missing.exception)
