"""A pipeline with the lake store: rows sent again, late, replayed or forgotten, through the real handlers."""

import io
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from onemachine.pipeline import Pipeline
from rich.console import Console
from rich.progress import Progress
from tagline import Record, write

from cli import lake
from cli.apps import tagline_with_samples
from cli.compare import differences, export_side, store_side
from cli.reconcile import balances_of
from cli.target import Target, target_of
from consumers.lines.subscription import encode
from exporter.lake.closed import closed
from exporter.store import Days
from tests.builders import envelope

# A day that is over: rows of more than a year ago are refused.
DAY = datetime.now(UTC).date() - timedelta(days=3)
GROUP = "/aws/lambda/sample-SampleApi"
APPS = tagline_with_samples(store="lake")


@pytest.fixture
def bars() -> Iterator[Progress]:
    with Progress(console=Console(file=io.StringIO())) as shown:
        yield shown


def send(pipeline: Pipeline, numbers: range) -> None:
    """Put lines into the stream as CloudWatch Logs does, and wait until they are stored."""
    when = int(datetime(DAY.year, DAY.month, DAY.day, tzinfo=UTC).timestamp() * 1_000)
    lines = [
        write(
            Record(
                f"{number:032x}",
                when + number * 600_000,
                {"client": f"client-{number % 4}", "route": "/pets", "status": 200, "size": number / 3},
                type="api_request",
                src="source",
                seq=number,
            )
        )
        for number in numbers
    ]
    where = target_of(pipeline)
    where.client("kinesis").put_record(
        StreamName=where.outputs["StreamName"],
        Data=encode(envelope(*lines, group=GROUP)),
        PartitionKey="key",
    )
    pipeline.settle()


def problems(where: Target, bars: Progress) -> list[str]:
    answers = lake.do_task(where, "verify", Days(DAY, DAY), bars, "")
    return [text for answer in answers for each in answer["results"] for text in each["problems"]]


def of_client(where: Target, bars: Progress, task: str) -> dict[str, int]:
    """Find or forget a client, and return how many rows each format had."""
    answers = lake.do_task(where, task, Days(DAY, DAY), bars, "client-1")
    return {each["format"]: each["rows"] for answer in answers for each in answer["results"] if each["rows"]}


def exported(where: Target, bars: Progress) -> list[dict[str, Any]]:
    return list(lake.export_days(where, Days(DAY, DAY), bars))


@pytest.mark.tagline(apps=APPS)
def test_rows_count_once_and_late_ones_are_merged_also_when_their_days_fragments_are_gone(
    tagline: Pipeline, bars: Progress
) -> None:
    where = target_of(tagline)
    bucket = where.bucket()
    send(tagline, range(60))
    send(tagline, range(30, 80))
    assert where.store().count() == 80

    assert {(each["format"], each["rows"]) for each in exported(where, bars)} == {
        ("csv.gz", 80),
        ("parquet", 80),
    }
    assert closed(bucket).days == (Days(DAY, DAY),)
    assert problems(where, bars) == []
    assert list(bucket.keys("late/")) == []

    bucket.delete(list(bucket.keys("store/")))
    send(tagline, range(70, 90))
    assert list(bucket.keys("late/")) != []
    assert where.store().count() == 90
    assert any("export the day again" in text for text in problems(where, bars))

    assert {(each["rows"], each["revision"]) for each in exported(where, bars)} == {(90, 2)}
    assert problems(where, bars) == []
    assert differences(store_side(where, DAY, "here"), export_side(where, DAY)) == []
    (balance,) = balances_of(where, DAY)[0]
    assert (balance.rows, balances_of(where, DAY)[1]) == (90, 90)


@pytest.mark.tagline(apps=APPS)
def test_a_forgotten_client_is_in_no_answer_and_does_not_come_back(tagline: Pipeline, bars: Progress) -> None:
    where = target_of(tagline)
    send(tagline, range(40))
    assert of_client(where, bars, "find") == {"store": 10}
    exported(where, bars)
    everywhere = {"csv.gz": 10, "parquet": 10, "store": 10}
    assert of_client(where, bars, "find") == everywhere

    assert of_client(where, bars, "forget") == everywhere
    assert of_client(where, bars, "find") == {}
    assert where.store().count() == 30
    assert problems(where, bars) == []

    send(tagline, range(40))
    assert where.store().count() == 30
    assert of_client(where, bars, "find") == {"store": 10}
    assert {each["rows"] for each in exported(where, bars)} == {30}
    assert of_client(where, bars, "find") == {}
    assert problems(where, bars) == []
    assert differences(store_side(where, DAY, "here"), export_side(where, DAY)) == []
