"""The Reconciler: a day's accounts in any order and number come to the same numbers, in little memory."""

import io
import json
import time
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consumers.accounts import accounting
from consumers.accounts.accounting import Account, Totals, intervals, to_json, totals
from consumers.accounts.handler import (
    MAX_NAMED,
    READERS,
    Bucket,
    Day,
    UnreadableAccountError,
    make_handler,
    reconcile,
    report_day,
)
from tests.builders import Context
from tests.twins import Objects

DAY = date(2026, 11, 19)
NOW = datetime(2026, 11, 20, 6, 45, tzinfo=UTC)

RANGES = st.lists(
    st.tuples(st.integers(0, 400), st.integers(0, 3)).map(lambda at: (at[0], at[0] + at[1])), max_size=40
)
SOURCES = st.dictionaries(st.sampled_from("ab"), RANGES.map(intervals), max_size=2)
COUNTS = st.dictionaries(st.sampled_from(["received", "unnumbered", "unnumbered_late"]), st.integers(0, 9))
ACCOUNTS = st.dictionaries(
    st.sampled_from(["/a", "/b", ""]),
    st.builds(
        Account,
        SOURCES,
        st.dictionaries(st.sampled_from(["late", "invalid"]), SOURCES, max_size=2),
        st.dictionaries(st.sampled_from(["k1", "k2", "k3"]), COUNTS, max_size=3),
    ),
)


class Folder(list[bytes]):
    """A day's objects: `consumers.reconcile.Accounts`."""

    def of(self, day: date) -> Iterator[tuple[str, bytes]]:
        return ((f"{accounting.folder(day)}{number}.json", body) for number, body in enumerate(self))


def came(*ranges: tuple[int, int], records: str = "k") -> dict[str, Account]:
    lines = sum(last - first + 1 for first, last in ranges)
    return {"/a": Account({"s": intervals(ranges)}, {}, {records: {"received": lines}})}


@given(st.lists(ACCOUNTS, max_size=6))
@settings(max_examples=40)
def test_objects_merged_in_place_say_what_their_accounts_merged_say(days: list[dict[str, Account]]) -> None:
    documents = [to_json(accounts) for accounts in days]
    merged = Objects(
        {f"{accounting.folder(DAY)}{n}.json": body for n, body in enumerate(documents)}
    ).accounts()
    expected = {group: totals(account) for group, account in merged.items()}

    assert reconcile(DAY, Folder(documents)).groups == expected
    assert reconcile(DAY, Folder(documents * 2)).groups == expected
    assert reconcile(DAY, Folder(documents[::-1])).groups == expected


def test_late_lines_that_fill_a_gap_are_no_longer_lost_when_the_day_is_reconciled_again() -> None:
    folder = Folder([to_json(came((0, 4), (8, 9), records="k1"))])
    before = reconcile(DAY, folder).counts()
    folder.append(to_json(came((5, 6), records="k2")))

    assert before == {"emitted": 10, "delivered": 7, "quarantined": 0, "lost": 3}
    assert reconcile(DAY, folder).counts() == {"emitted": 10, "delivered": 9, "quarantined": 0, "lost": 1}


def test_a_day_without_accounts_has_nothing_lost() -> None:
    assert reconcile(DAY, Folder()).counts() == {"emitted": 0, "delivered": 0, "quarantined": 0, "lost": 0}


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'{"/a": {}}', b'{"/a": {"delivered": 1}}', b"\xff"])
def test_an_object_that_is_no_account_is_named_and_not_left_out(body: bytes) -> None:
    with pytest.raises(UnreadableAccountError, match=r"accounting/year=2026/month=11/day=19/1\.json: "):
        reconcile(DAY, Folder([to_json(came((0, 1))), body]))


def test_the_handler_answers_and_reports_each_day() -> None:
    reported: list[Day] = []
    handler = make_handler(Folder([to_json(came((0, 2), (4, 4)))]), now=lambda: NOW, report=reported.append)

    answer = handler({"from": "2026-11-18", "to": "2026-11-19"}, Context())

    assert answer == {
        "days": [
            {"day": f"2026-11-{day}", "emitted": 5, "delivered": 4, "quarantined": 0, "lost": 1}
            for day in (18, 19)
        ]
    }
    assert [each.day.day for each in reported] == [18, 19]


def test_a_day_has_one_line_and_one_data_point_without_the_log_group_as_a_dimension(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # A name of its own: the logger of a name writes to the stdout of its first use for ever.
    monkeypatch.setenv("POWERTOOLS_SERVICE_NAME", f"tagline-{time.monotonic_ns()}")
    monkeypatch.setenv("POWERTOOLS_METRICS_NAMESPACE", "Tagline")
    groups = {f"/g/{number:02}": Totals(number + 10, 10, 1, {"late": 2}, number) for number in range(30)}

    report_day(Day(DAY, groups))

    summary, metrics = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    expected = {"emitted": 735, "delivered": 300, "quarantined": 60, "lost": 435}
    assert {name: summary[name] for name in expected} == expected
    assert (summary["message"], summary["day"], summary["duplicate"]) == ("reconciled", "2026-11-19", 30)
    assert (summary["reasons"], summary["log_groups"]) == ({"late": 60}, 30)
    assert list(summary["lost_of"].items()) == [(f"/g/{number:02}", number) for number in range(29, 9, -1)]
    assert len(summary["lost_of"]) == MAX_NAMED
    assert {name: metrics[name] for name in expected} == {name: [n] for name, n in expected.items()}
    (directive,) = metrics["_aws"]["CloudWatchMetrics"]
    assert [sorted(each) for each in directive["Dimensions"]] == [["service", "stage"]]
    assert (metrics["stage"], metrics["day"]) == ("reconcile", "2026-11-19")


class Pages:
    """A client of S3 that lists pages, and knows how many objects it has given."""

    def __init__(self, keys: list[str]) -> None:
        self.keys = keys
        self.given = 0

    def get_paginator(self, operation: str) -> "Pages":
        assert operation == "list_objects_v2"
        return self

    def paginate(self, Bucket: str, Prefix: str) -> Iterator[dict[str, Any]]:  # noqa: N803 - boto3's names
        found = [key for key in self.keys if key.startswith(Prefix) and Bucket == "b"]
        yield from ({"Contents": [{"Key": key} for key in found[at : at + 30]]} for at in range(0, 90, 30))
        yield {}

    def get_object(self, Bucket: str, Key: str) -> dict[str, Any]:  # noqa: N803 - boto3's names
        assert Bucket == "b"
        self.given += 1
        return {"Body": io.BytesIO(Key.encode())}


def test_every_object_of_the_day_is_read_and_no_more_at_once_than_there_are_readers() -> None:
    of_the_day = [f"{accounting.folder(DAY)}{number}.json" for number in range(70)]
    client = Pages([*of_the_day, f"{accounting.folder(DAY + timedelta(days=1))}0.json"])

    ahead = []
    read = []
    for key, body in Bucket(client, "b").of(DAY):
        read.append(key)
        assert body == key.encode()
        ahead.append(client.given - len(read))

    assert read == of_the_day
    assert max(ahead) < READERS
