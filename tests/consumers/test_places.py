"""Log groups of one name in several accounts and regions stay several sources on every way of their lines."""

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from tagline import Record, write

from consumers import replay
from consumers.accounts.compaction import compact, reconcile
from consumers.lines import quarantine
from consumers.lines.extract import Rejected
from consumers.lines.places import Place, place_of_arn, qualify, region_of_filters, split_source
from consumers.lines.subscription import LogEvent, pieces
from consumers.rows.handler import make_handler
from consumers.rows.table import SOURCE
from tests.builders import GROUP, LOGGED, OWNER, Context, data, envelope, kinesis_event, messages_in
from tests.row_store import MemoryStore
from tests.twins import Bucket, Objects

OTHER = "210987654321"
HERE = Place(OWNER, "us-east-1")
# Who owns the log group, the subscription filter's name, and the source that its rows have.
PLACES = [
    (OWNER, "tagline", GROUP),
    (OTHER, "tagline", f"{OTHER}:{GROUP}"),
    (OWNER, "tagline@eu-west-1", f"eu-west-1:{GROUP}"),
    (OTHER, "tagline@eu-west-1", f"{OTHER}:eu-west-1:{GROUP}"),
]


@pytest.mark.parametrize(
    ("log_group", "there", "here", "source"),
    [
        ("/a", Place(OWNER, ""), HERE, "/a"),
        ("/a", Place(OWNER, "us-east-1"), HERE, "/a"),
        ("/a", Place(OTHER, "us-east-1"), HERE, f"{OTHER}:/a"),
        ("/a", Place(OWNER, "eu-west-1"), HERE, "eu-west-1:/a"),
        ("/a", Place(OTHER, "eu-west-1"), HERE, f"{OTHER}:eu-west-1:/a"),
        # Read again from quarantine.
        (f"{OTHER}:/a", Place(OTHER, ""), HERE, f"{OTHER}:/a"),
        ("eu-west-1:/a", Place(OTHER, "eu-west-1"), HERE, "eu-west-1:/a"),
        # Of what is not known, nothing is added.
        ("/a", Place(OTHER, "eu-west-1"), Place(), "/a"),
        ("/a", Place(OTHER, "eu-west-1"), Place("", "us-east-1"), "eu-west-1:/a"),
        ("/a", Place("CloudwatchLogs", ""), HERE, "/a"),
        ("/a", Place("٢" * 12, ""), HERE, "/a"),
        ("", Place(OTHER, ""), HERE, f"{OTHER}:"),
    ],
)
def test_a_name_has_the_account_and_region_that_are_not_the_pipelines(
    log_group: str, there: Place, here: Place, source: str
) -> None:
    assert qualify(log_group, there, here) == source
    assert qualify(source, there, here) == source
    assert split_source(source)[1] == log_group.rpartition(":")[2]


@pytest.mark.parametrize(
    ("names", "region"),
    [
        (["tagline@eu-west-1"], "eu-west-1"),
        (["mine", "a@b@us-gov-west-1"], "us-gov-west-1"),
        (["tagline@eusc-de-east-1", "tagline@ap-southeast-2"], "eusc-de-east-1"),
        (["@us-isob-east-1"], "us-isob-east-1"),
        (["tagline", "eu-west-1", "tagline-eu-west-1", "tagline@eu-west-1-", "tagline@EU-WEST-1"], ""),
        (["tagline@eu-west-1\n", "tagline@eu-west-٢", "tagline@"], ""),
        ([None, 7, ["tagline@eu-west-1"]], ""),
        ("tagline@eu-west-1", ""),
        (None, ""),
    ],
)
def test_a_filters_name_may_end_in_its_region(names: Any, region: str) -> None:
    assert region_of_filters(names) == region


@pytest.mark.parametrize("arn", ["", "function", "arn:aws:lambda:us-east-1"])
def test_what_is_no_arn_has_no_place(arn: str) -> None:
    assert place_of_arn(arn) == Place()


def line(identity: str, seq: int) -> str:
    return write(Record(identity, LOGGED, {"route": "/pets"}, src="s" * 16, seq=seq))


def sent(owner: str, name: str, *messages: str) -> dict[str, Any]:
    # Event ids are CloudWatch's: unique. All else that tells two log groups apart is the same here.
    return {**envelope(*messages), "owner": owner, "subscriptionFilters": [name]}


class Consumer:
    """The handler over a store and a bucket."""

    def __init__(self) -> None:
        self.store, self.objects = MemoryStore(), Objects()
        self._handler = make_handler(
            self.store, self.objects, tag="usage_record", own_log_groups="/tagline/", report=lambda _: None
        )

    def __call__(self, records: list[dict[str, Any]], context: Context | None = None) -> dict[str, Any]:
        return self._handler({"Records": records}, context or Context())

    def sources(self) -> list[str]:
        return sorted(row.dimensions[SOURCE] for row in self.store.rows.values())


def test_log_groups_of_one_name_are_never_one_source() -> None:
    consumer = Consumer()
    # The same ids, the same numbers of the same emitter; the line 1 of the third is missing.
    batches = [
        data(sent(owner, name, *(line(f"r{seq}", seq) for seq in range(3) if (number, seq) != (2, 1))))
        for number, (owner, name, _) in enumerate(PLACES)
    ]

    assert consumer(kinesis_event(*batches)["Records"]) == {"batchItemFailures": []}

    expected = [
        source for number, (_, _, source) in enumerate(PLACES) for _ in range(2 if number == 2 else 3)
    ]
    assert consumer.sources() == sorted(expected)
    bucket = Bucket(consumer.objects)
    compact(bucket, datetime.fromtimestamp(LOGGED / 1000, UTC) + timedelta(days=1), lambda: False)
    (day,) = reconcile(bucket, [datetime.fromtimestamp(LOGGED / 1000, UTC).date()])
    assert {group: (totals.delivered, totals.lost) for group, totals in day.groups.items()} == {
        source: (2, 1) if number == 2 else (3, 0) for number, (_, _, source) in enumerate(PLACES)
    }


def from_stream(owner: str, name: str) -> list[dict[str, Any]]:
    return kinesis_event(data(sent(owner, name, line("r0", 0))))["Records"]  # type: ignore[no-any-return]


def from_failed_batch(owner: str, name: str) -> list[dict[str, Any]]:
    document = {
        "requestContext": {"functionArn": Context().invoked_function_arn},
        "payload": json.dumps({"Records": from_stream(owner, name)}),
    }
    return replay.from_failed_batch(json.dumps(document).encode()).records


def from_quarantine(owner: str, name: str, *, times: int = 1) -> list[dict[str, Any]]:
    """Return the records of a line that was refused, once or again when it was replayed."""
    records = from_stream(owner, name)
    for _ in range(times):
        consumer = Consumer()
        consumer.store.refused["r0"] = "late"
        assert consumer(records) == {"batchItemFailures": []}
        ((key, body),) = consumer.objects.under(quarantine.PREFIX).items()
        records = replay.from_quarantine(key, body)
    return records


def from_quarantine_twice(owner: str, name: str) -> list[dict[str, Any]]:
    return from_quarantine(owner, name, times=2)


def from_quarantine_of_an_earlier_version(owner: str, name: str) -> list[dict[str, Any]]:
    """Return the records of a line that was refused when log groups had neither account nor region."""
    (record,) = from_stream(owner, name)
    (piece,) = pieces(record["kinesis"]["data"])
    (raw,) = piece.log_events
    event = LogEvent(raw["id"], raw["timestamp"], raw["message"], *piece[:3])
    body = quarantine.lines(record, [(event, Rejected("late", "too old"))])
    return replay.from_quarantine(quarantine.object_key("late", record), body)


def from_log_group(owner: str, name: str) -> list[dict[str, Any]]:
    region = name.partition("@")[2] or "us-east-1"
    event = LogEvent("1", LOGGED, line("r0", 0), GROUP, "stream", owner)
    arn = f"arn:aws:logs:{region}:{owner}:log-group:{GROUP}"
    return [replay.from_log_event(event, LOGGED + 900, arn)]


@pytest.mark.parametrize(("owner", "name", "source"), PLACES)
@pytest.mark.parametrize("way", [from_failed_batch, from_quarantine, from_quarantine_twice, from_log_group])
def test_a_line_becomes_the_same_row_on_every_way(
    way: Callable[[str, str], list[dict[str, Any]]], owner: str, name: str, source: str
) -> None:
    consumer = Consumer()
    assert consumer(from_stream(owner, name)) == {"batchItemFailures": []}

    assert consumer(way(owner, name)) == {"batchItemFailures": []}

    assert consumer.sources() == [source]
    assert list(consumer.objects.accounts()) == [source]


def test_a_line_that_an_earlier_version_rejected_gets_its_account() -> None:
    consumer = Consumer()

    consumer(from_quarantine_of_an_earlier_version(OTHER, "tagline"))

    assert consumer.sources() == [f"{OTHER}:{GROUP}"]


def test_the_pipelines_own_place_is_that_of_its_function() -> None:
    consumer = Consumer()
    arn = f"arn:aws:lambda:eu-west-1:{OTHER}:function:RowConsumer:live"

    consumer(from_stream(OTHER, "tagline@eu-west-1"), replace(Context(), invoked_function_arn=arn))

    assert consumer.sources() == [GROUP]


@pytest.mark.parametrize("last", [False, True])
def test_each_piece_of_a_large_envelope_has_the_region(last: bool) -> None:
    messages = [str(number) + "x" * 50_000 for number in range(100)]
    said = sent(OTHER, "tagline@eu-west-1", *messages)
    if last:
        said["subscriptionFilters"] = said.pop("subscriptionFilters")  # behind the log events

    found = list(pieces(data(said)))

    assert {piece.region for piece in found} == {"eu-west-1"}
    assert len(found) > 1 or last
    assert messages_in(data(said)) == messages
