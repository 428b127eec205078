"""Requests by minute: each counts once, however batches are cut, delivered and merged."""

from __future__ import annotations

import json
import random
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consumers.accounts import accounting, minutes
from consumers.accounts.compaction import compact, recent_minutes
from consumers.accounts.minutes import (
    MAX_ROUTES,
    NO_STATUS,
    OTHER,
    UNANSWERED,
    WINDOW_MINUTES,
    BatchMinutes,
    status_of,
)
from consumers.documents import NewerDocumentError
from consumers.lines.ledger import Ledger
from tests import twins
from tests.builders import LOGGED, data, kinesis_event
from tests.consumers.accounts.batches import TAG, line, lines_of, note, written

NOW = datetime.fromtimestamp(LOGGED / 1_000, UTC)
TYPE = "log"
MINUTE = LOGGED // 60_000


def consume(event: dict[str, Any], bucket: twins.Bucket, *, failing: int | None = None) -> BatchMinutes:
    """Do with a batch what the handler does around its store, which takes everything."""
    ledger, batch = Ledger(event["Records"]), accounting.BatchAccounts(TAG)
    counted = BatchMinutes(TYPE, LOGGED / 1_000)
    for each in lines_of(ledger):
        note(batch, each)
        counted.add(each.position, each.record.timestamp, each.record.fields)
    if failing is not None:
        ledger.fail(failing)
    objects = twins.Objects()
    accounting.write(batch, ledger, objects, counted)
    bucket.update(objects)
    return counted


def counts(bucket: twins.Bucket) -> Counter[minutes.MinuteCell]:
    return recent_minutes(bucket, NOW - timedelta(hours=1)).counts


def event_of(*requests: tuple[int, str, int], records: int = 1) -> dict[str, Any]:
    """Return a batch with a Kinesis record for each few of requests: minutes ago, route and status."""
    texts = [
        (line(seq, timestamp=LOGGED - ago * 60_000, method="GET", route=route, status=status), LOGGED)
        for seq, (ago, route, status) in enumerate(requests)
    ]
    size = -(-len(texts) // records) or 1
    return kinesis_event(*(data(written(*texts[at : at + size])) for at in range(0, len(texts), size)))


def cells(*requests: tuple[int, str, int]) -> Counter[minutes.MinuteCell]:
    return Counter((MINUTE - ago, "GET", route, status) for ago, route, status in requests)


REQUESTS = st.lists(
    st.tuples(st.integers(0, 5), st.sampled_from(["/a", "/b"]), st.sampled_from([200, 404, 500])),
    min_size=1,
    max_size=30,
)


@given(REQUESTS, st.randoms(use_true_random=False))
@settings(max_examples=60)
def test_a_request_counts_once_however_its_record_is_delivered_and_merged(
    requests: list[tuple[int, str, int]], chance: random.Random
) -> None:
    event, bucket = event_of(*requests, records=chance.randrange(1, 7)), twins.Bucket()
    waiting = list(event["Records"])
    while waiting:
        size = chance.randrange(1, len(waiting) + 1)
        failing = chance.choice([None, chance.randrange(size)])
        consume({"Records": waiting[:size]}, bucket, failing=failing)
        waiting = waiting[size if failing is None else failing :]
        if chance.random() < 0.3:
            consume({"Records": event["Records"][: chance.randrange(1, 7)]}, bucket)  # delivered again
        if chance.random() < 0.4:
            compact(bucket, NOW - timedelta(minutes=chance.randrange(60)), lambda: False)

    assert counts(bucket) == cells(*requests)


def test_what_is_too_old_or_in_the_future_is_left_to_the_roll_up() -> None:
    bucket = twins.Bucket()

    consume(event_of((WINDOW_MINUTES + 1, "/a", 200), (-2, "/a", 200), (WINDOW_MINUTES, "/b", 200)), bucket)

    assert counts(bucket) == cells((WINDOW_MINUTES, "/b", 200))


def test_routes_that_are_used_least_are_counted_together() -> None:
    bucket = twins.Bucket()
    many = [(0, f"/{number}", 200) for number in range(MAX_ROUTES + 5)]

    consume(event_of(*many, *many[5:]), bucket)

    found = counts(bucket)
    assert found.total() == 2 * len(many) - 5
    assert len(found) == MAX_ROUTES + 1
    assert found[MINUTE, None, OTHER, 200] == 5


@pytest.mark.parametrize(
    ("fields", "method", "route", "status"),
    [
        ({"method": "GET", "route": "/a", "status": 200}, "GET", "/a", 200),
        ({"route": "/a", "status": "404"}, None, "/a", 404),
        ({"method": "", "route": "", "status": 502.0}, None, None, 502),
        ({"route": ["x"], "status": 42}, None, "['x']", NO_STATUS),
        ({"timed_out": True}, None, None, UNANSWERED),
        ({"unfinished": True}, None, None, UNANSWERED),
        ({"timed_out": True, "status": 200}, None, None, 200),
        ({"timed_out": "yes"}, None, None, NO_STATUS),
    ],
)
def test_a_record_is_counted_by_what_it_has(
    fields: dict[str, Any], method: str | None, route: str | None, status: int
) -> None:
    counted = BatchMinutes(TYPE, LOGGED / 1_000)

    counted.add(0, LOGGED, fields)

    document = counted.document(Ledger(event_of((0, "/a", 200))["Records"]))
    assert document is not None
    assert document["cells"] == [[MINUTE, method, route, status]]


@pytest.mark.parametrize(
    "value", [None, "", "x", 99, 600, float("nan"), float("inf"), 10**400, True, [], "-200"]
)
def test_what_is_no_status_is_counted_without_one(value: Any) -> None:
    assert status_of(value) == NO_STATUS


def test_a_merge_keeps_the_minutes_apart_and_for_a_day() -> None:
    bucket = twins.Bucket()
    consume(event_of((0, "/a", 200)), bucket)

    compact(bucket, NOW, lambda: False)

    (key,) = (key for key in bucket if key.startswith(minutes.PREFIX))
    assert not any("minutes" in json.loads(body) for name, body in bucket.items() if name != key)
    # The lifecycle rule of this prefix deletes after a day.
    assert key.startswith("tmp/")
    assert counts(bucket) == cells((0, "/a", 200))


def test_a_merge_while_the_batches_are_read_loses_nothing() -> None:
    class Merging(twins.Bucket):
        merges = 0

        def keys(self, prefix: str = "") -> Any:
            if prefix == accounting.BATCHES and not self.merges:
                self.merges += 1
                compact(self, NOW, lambda: False)
            return super().keys(prefix)

    bucket = Merging()
    consume(event_of((0, "/a", 200)), bucket)

    assert counts(bucket) == cells((0, "/a", 200))
    assert bucket.merges == 1


def test_minutes_of_a_newer_version_are_refused_and_a_foreign_batch_is_left_out() -> None:
    bucket = twins.Bucket()
    consume(event_of((0, "/a", 200)), bucket)
    bucket[f"{accounting.BATCHES}foreign"] = b"[]"
    assert counts(bucket) == cells((0, "/a", 200))

    bucket[f"{minutes.folder_of_merge(NOW)}x"] = b'{"format_version": 9}'
    with pytest.raises(NewerDocumentError):
        counts(bucket)
