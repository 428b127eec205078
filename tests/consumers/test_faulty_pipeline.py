"""The whole pipeline with services that fail: what was emitted is stored, or quarantined, or missing."""

import json
from collections import Counter
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from onemachine.batches import StreamRecord, event_record
from onemachine.faults import OF_CALLS, Fault, Kind
from onemachine.pipeline import App, Pipeline

from cli import reconcile
from cli.reconcile import Balance
from cli.target import Target, target_of
from tests.apps import app_and_tagline, quarantined

MANY = 1_000_000
# Each call says some lines; every fifth is too large for a row, and every seventh cannot be a row.
FUNCTION = """
from tagline import Emitter

emitter = Emitter()


def handler(event, _context):
    for number in range(event["first"], event["last"]):
        fields = {"route": "/pets", "number": number}
        if number % 5 == 0:
            fields["body"] = "x" * 5_000
        emitter.emit(fields, type="/" * 100 if number % 7 == 0 else "api_request")
"""


@pytest.fixture
def apps(tmp_path: Path) -> list[App]:
    return app_and_tagline(tmp_path, FUNCTION, Store="timestream")


def emit(pipeline: Pipeline, first: int, last: int) -> None:
    result = pipeline.functions.invoke("app-Api", json.dumps({"first": first, "last": last}).encode())
    assert not result.error, result.payload


def where(pipeline: Pipeline) -> Target:
    return target_of(pipeline)


def balances(pipeline: Pipeline, days: list[date]) -> list[Balance]:
    return [each for day in days for each in reconcile.balances_of(where(pipeline), day)[0]]


def days_since(start: datetime) -> list[date]:
    """Return today, and the day before where midnight came in between."""
    first, last = start.date(), datetime.now(UTC).date()
    return [first + timedelta(days=number) for number in range((last - first).days + 1)]


def deliver_again(pipeline: Pipeline) -> None:
    """Give all that is in the stream to the consumer once more."""
    kinesis, target = pipeline.client("kinesis"), where(pipeline)
    name = target.outputs["StreamName"]
    arn = kinesis.describe_stream_summary(StreamName=name)["StreamDescriptionSummary"]["StreamARN"]
    for shard in kinesis.list_shards(StreamName=name)["Shards"]:
        found = kinesis.get_records(
            ShardIterator=kinesis.get_shard_iterator(
                StreamName=name, ShardId=shard["ShardId"], ShardIteratorType="TRIM_HORIZON"
            )["ShardIterator"]
        )
        records = [
            StreamRecord(
                record["SequenceNumber"],
                record["PartitionKey"],
                record["Data"],
                record["ApproximateArrivalTimestamp"],
            )
            for record in found["Records"]
        ]
        if records:
            event = {"Records": [event_record(record, shard["ShardId"], arn) for record in records]}
            answer = target.invoke("RowConsumerName", event)
            assert answer == {"batchItemFailures": []}


def reconciled(pipeline: Pipeline, days: list[date]) -> Counter[str]:
    """Return what the deployed Reconciler says of days."""
    event = {"from": days[0].isoformat(), "to": days[-1].isoformat()}
    answer: dict[str, Any] = where(pipeline).invoke("ReconcilerName", event)
    counts: Counter[str] = Counter()
    for each in answer["days"]:
        counts.update({name: count for name, count in each.items() if name != "day"})
    return counts


def test_what_was_emitted_while_services_failed_is_stored_or_quarantined_and_nothing_is_lost(
    apps: list[App],
) -> None:
    lines = 300
    start = datetime.now(UTC)
    with Pipeline(apps, in_process=True) as pipeline:
        for service, operation in (("timestream", "WriteRecords"), ("s3", "PUT")):
            for kind in OF_CALLS:
                pipeline.services.faults.add(
                    # Of the calls that no rule before has met, a part: a fifth in all.
                    Fault(kind, service, operation, times=MANY, chance=0.044, seconds=0.02)
                )
        for first in range(0, lines, 30):
            emit(pipeline, first, first + 30)
            pipeline.settle()
        struck = sum(pipeline.services.faults.clear().values())
        pipeline.settle()

        assert struck >= 10
        days = days_since(start)
        refused = len(range(0, lines, 7))
        rows = balances(pipeline, days)
        assert sum(each.rows for each in rows) == lines - refused
        # A batch whose accounts S3 denied has come again.
        assert sum(each.totals.delivered for each in rows) == lines
        deliver_again(pipeline)
        rows = balances(pipeline, days)
        assert sum(each.totals.emitted for each in rows) == lines
        assert sum(each.missing for each in rows) == 0
        assert sum(each.quarantined for each in rows) == refused
        assert sum(each.stored for each in rows) == lines - refused
        assert sum(each.rows for each in rows) == lines - refused
        assert quarantined(pipeline) == {"invalid": refused}
        expected = {"emitted": lines, "delivered": lines, "quarantined": refused, "lost": 0}
        assert reconciled(pipeline, days) == Counter(expected)


def test_lines_that_the_delivery_loses_are_counted_exactly(apps: list[App]) -> None:
    start = datetime.now(UTC)
    with Pipeline(apps, in_process=True) as pipeline:
        emit(pipeline, 0, 20)
        pipeline.settle()
        pipeline.services.delivery.disturb(Kind.LOSE, times=100)  # the calls' lines may come in parts
        emit(pipeline, 20, 33)
        emit(pipeline, 33, 40)
        pipeline.settle()
        pipeline.services.delivery.calm()
        emit(pipeline, 40, 60)
        pipeline.settle()

        days = days_since(start)
        rows = balances(pipeline, days)
        assert sum(each.missing for each in rows) == 20
        assert sum(each.totals.emitted for each in rows) == 60
        assert sum(each.totals.delivered for each in rows) == 40
        counts = reconciled(pipeline, days)
        assert (counts["emitted"], counts["delivered"], counts["lost"]) == (60, 40, 20)
