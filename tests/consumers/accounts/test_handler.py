"""The Reconciler: a day's accounts in any order and number come to the same numbers, in little memory."""

import io
import json
import time
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from botocore.response import StreamingBody
from hypothesis import given, settings
from hypothesis import strategies as st

from consumers.accounts import accounting
from consumers.accounts.accounting import Account, Totals, intervals, to_json, totals
from consumers.accounts.handler import (
    MAX_NAMED,
    READERS,
    Day,
    UnreadableAccountError,
    make_handler,
    read_accounts,
    reconcile,
    report_day,
)
from consumers.bucket import Bucket
from tests import twins
from tests.builders import Context
from tests.twins import Objects

EVE, DAY = date(2026, 11, 18), date(2026, 11, 19)
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


def folder(*bodies: bytes) -> dict[str, bytes]:
    """Return a day's objects by their keys."""
    return {f"{accounting.folder(DAY)}{number}.json": body for number, body in enumerate(bodies)}


def came(*ranges: tuple[int, int], records: str = "k") -> dict[str, Account]:
    lines = sum(last - first + 1 for first, last in ranges)
    return {"/a": Account({"s": intervals(ranges)}, {}, {records: {"received": lines}})}


@given(st.lists(ACCOUNTS, max_size=6))
@settings(max_examples=40)
def test_objects_merged_in_place_say_what_their_accounts_merged_say(days: list[dict[str, Account]]) -> None:
    documents = [to_json(accounts) for accounts in days]
    merged = Objects(folder(*documents)).accounts()
    expected = {group: totals(account) for group, account in merged.items()}

    assert reconcile(DAY, folder(*documents).items()).groups == expected
    assert reconcile(DAY, folder(*documents * 2).items()).groups == expected
    assert reconcile(DAY, folder(*documents[::-1]).items()).groups == expected


def test_late_lines_that_fill_a_gap_are_no_longer_lost_when_the_day_is_reconciled_again() -> None:
    first, second = to_json(came((0, 4), (8, 9), records="k1")), to_json(came((5, 6), records="k2"))
    before = reconcile(DAY, folder(first).items()).counts()

    assert before == {"emitted": 10, "delivered": 7, "quarantined": 0, "lost": 3}
    assert reconcile(DAY, folder(first, second).items()).counts() == {
        "emitted": 10,
        "delivered": 9,
        "quarantined": 0,
        "lost": 1,
    }


def test_accounts_of_the_first_version_and_with_keys_that_nobody_knows_yet_are_read() -> None:
    document = json.loads(to_json(came((0, 4), (8, 9))))
    group = document["groups"]["/a"] | {"colour": "red"}
    first, later = {"/a": group}, {**document, "groups": {"/a": group}, "shape": "round"}
    expected = reconcile(DAY, folder(to_json(came((0, 4), (8, 9)))).items())

    for each in (first, later):
        assert reconcile(DAY, folder(json.dumps(each).encode()).items()) == expected


def test_accounts_of_a_newer_version_are_refused_with_what_to_do() -> None:
    newer = json.dumps({"format_version": accounting.FORMAT_VERSION + 1, "accounts": []}).encode()

    with pytest.raises(
        UnreadableAccountError, match=r"/0\.json: .*format_version 3, .* versions up to 2: deploy"
    ):
        reconcile(DAY, folder(newer).items())


def test_a_day_without_accounts_has_nothing_lost() -> None:
    assert reconcile(DAY, []).counts() == {"emitted": 0, "delivered": 0, "quarantined": 0, "lost": 0}


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'{"/a": {}}', b'{"/a": {"delivered": 1}}', b"\xff"])
def test_an_object_that_is_no_account_is_named_and_not_left_out(body: bytes) -> None:
    with pytest.raises(UnreadableAccountError, match=r"accounting/year=2026/month=11/day=19/1\.json: "):
        reconcile(DAY, folder(to_json(came((0, 1))), body).items())


def test_the_handler_answers_and_reports_each_day() -> None:
    reported: list[Day] = []
    document = to_json(came((0, 2), (4, 4)))
    objects = twins.Bucket({f"{accounting.folder(day)}1.json": document for day in (EVE, DAY)})
    handler = make_handler(objects, now=lambda: NOW, report=reported.append)

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
        items = [{"Key": key, "ETag": '"e"', "LastModified": NOW} for key in found]
        yield from ({"Contents": items[at : at + 30]} for at in range(0, 90, 30))
        yield {}

    def get_object(self, Bucket: str, Key: str) -> dict[str, Any]:  # noqa: N803 - boto3's names
        assert Bucket == "b"
        self.given += 1
        return {"Body": StreamingBody(io.BytesIO(Key.encode()), len(Key)), "ETag": "e"}


def test_every_object_of_the_day_is_read_and_no_more_at_once_than_there_are_readers() -> None:
    of_the_day = [f"{accounting.folder(DAY)}{number}.json" for number in range(70)]
    client = Pages([*of_the_day, f"{accounting.folder(DAY + timedelta(days=1))}0.json"])

    ahead = []
    read = []
    for key, body in read_accounts(Bucket(client, "b"), DAY):
        read.append(key)
        assert body == key.encode()
        ahead.append(client.given - len(read))

    assert read == of_the_day
    assert max(ahead) < READERS
