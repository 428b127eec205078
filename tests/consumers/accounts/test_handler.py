"""The Reconciler: every hour it merges accounts, every day it reports what was lost."""

import json
import time
from datetime import UTC, date, datetime
from typing import Any

import pytest

from consumers.accounts import accounting
from consumers.accounts.accounting import Account, Totals, intervals, to_json
from consumers.accounts.compaction import Day, UnfinishedError
from consumers.accounts.handler import KEPT_SECONDS, MAX_NAMED, make_handler, report_day
from tests import twins
from tests.builders import Context

EVE, DAY = date(2026, 11, 18), date(2026, 11, 19)
NOW = datetime(2026, 11, 20, 6, 45, tzinfo=UTC)


def batches() -> twins.Bucket:
    """Return a bucket with a batch of either day, of which two lines are missing on the second."""
    eve, day = ({"/a": Account({"s": intervals(ranges)})} for ranges in ([(0, 2)], [(4, 4), (6, 7)]))
    return twins.Bucket(
        {
            f"{accounting.BATCHES}1.json": to_json({EVE: eve}),
            f"{accounting.BATCHES}2.json": to_json({DAY: day}),
        }
    )


def test_the_handler_answers_and_reports_each_day() -> None:
    reported: list[Day] = []
    handler = make_handler(batches(), now=lambda: NOW, report=reported.append)

    answer = handler({"from": "2026-11-18", "to": "2026-11-19"}, Context(remaining_ms=900_000))

    nothing = {"quarantined": 0, "implausible": 0, "mentioned": 0}
    assert answer == {
        "days": [
            {"day": "2026-11-18", "emitted": 3, "delivered": 3, "lost": 0, **nothing},
            {"day": "2026-11-19", "emitted": 5, "delivered": 3, "lost": 2, **nothing},
        ]
    }
    assert [each.day.day for each in reported] == [18, 19]


def test_the_schedule_reconciles_the_day_before_its_time() -> None:
    reported: list[Day] = []
    handler = make_handler(batches(), now=lambda: NOW, report=reported.append)

    handler({"time": "2026-11-20T06:45:00Z"}, Context(remaining_ms=900_000))

    assert [(each.day, each.counts()["lost"]) for each in reported] == [(DAY, 2)]


def test_the_hourly_schedule_merges_and_reports_no_day() -> None:
    reported: list[Day] = []
    compacted: list[dict[str, int]] = []
    objects = batches()
    handler = make_handler(
        objects,
        now=lambda: NOW,
        report=reported.append,
        report_compaction=lambda counts: compacted.append(dict(counts)),
    )

    assert handler({"compact": True}, Context(remaining_ms=900_000)) == {"days": []}

    assert reported == []
    assert compacted == [{"batches": 2, "sources": 1, "forgotten": 0}]
    assert list(objects.keys(accounting.BATCHES)) == []


def test_an_invocation_without_time_for_all_says_so_and_the_next_one_continues() -> None:
    objects = batches()
    handler = make_handler(objects, now=lambda: NOW, report=lambda _day: None)

    with pytest.raises(UnfinishedError, match="merged 1 documents"):
        handler({"day": "2026-11-19"}, Context(remaining_ms=KEPT_SECONDS * 1000 - 1))

    (day,) = handler({"day": "2026-11-19"}, Context(remaining_ms=900_000))["days"]
    assert (day["delivered"], day["lost"]) == (3, 2)


def test_a_range_without_time_for_all_days_is_reconciled_by_several_invocations() -> None:
    objects, reported = batches(), list[date]()
    handler = make_handler(objects, now=lambda: NOW, report=lambda day: reported.append(day.day))
    handler({"compact": True}, Context(remaining_ms=900_000))
    event: dict[str, Any] | None = {"from": "2026-11-17", "to": "2026-11-19"}
    lost: dict[str, int] = {}

    while event is not None:
        answer = handler(event, Context(remaining_ms=KEPT_SECONDS * 1000 - 1))
        (day,) = answer["days"]
        lost[day["day"]] = day["lost"]
        event = answer.get("continues")

    assert lost == {"2026-11-17": 0, "2026-11-18": 0, "2026-11-19": 2}
    assert reported == [date(2026, 11, 17), EVE, DAY]


def test_a_day_has_one_line_and_one_data_point_without_the_log_group_as_a_dimension(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # A name of its own: the logger of a name writes to the stdout of its first use for ever.
    monkeypatch.setenv("POWERTOOLS_SERVICE_NAME", f"tagline-{time.monotonic_ns()}")
    monkeypatch.setenv("POWERTOOLS_METRICS_NAMESPACE", "Tagline")
    groups = {f"/g/{number:02}": Totals(number + 10, 10, {"late": 2}, number, 1, 3) for number in range(30)}

    report_day(Day(DAY, groups))

    summary, metrics = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    expected = {
        "emitted": 735,
        "delivered": 300,
        "quarantined": 60,
        "lost": 435,
        "implausible": 30,
        "mentioned": 90,
    }
    assert {name: summary[name] for name in expected} == expected
    assert (summary["message"], summary["day"]) == ("reconciled", "2026-11-19")
    assert (summary["reasons"], summary["log_groups"]) == ({"late": 60}, 30)
    assert list(summary["lost_of"].items()) == [(f"/g/{number:02}", number) for number in range(29, 9, -1)]
    assert len(summary["lost_of"]) == MAX_NAMED
    assert {name: metrics[name] for name in expected} == {name: [n] for name, n in expected.items()}
    (directive,) = metrics["_aws"]["CloudWatchMetrics"]
    assert [sorted(each) for each in directive["Dimensions"]] == [["service", "stage"]]
    assert (metrics["stage"], metrics["day"]) == ("reconcile", "2026-11-19")
