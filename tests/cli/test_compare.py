"""A day of a store beside its export, and beside the same day of the other store."""

from datetime import date
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli import feed
from cli.compare import differences, export_side, store_side
from cli.main import app
from cli.target import Target, target_of, write_running
from local.pipeline import Pipeline


def exported_day(where: Target) -> date:
    """Export all days, and return the only one that has rows."""
    days = where.store().days()
    assert days is not None
    for day in days:
        where.invoke("DailyExporterName", {"day": day.isoformat()})
    assert len(days) == 1
    return days.first


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
