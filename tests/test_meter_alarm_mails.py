"""A whole pipeline with meters and Timestream, and the mails of the alarms that only such a one has."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from onemachine.pipeline import Pipeline

from tests.consumers.meters.meters import line
from tests.test_alarm_mails import (
    HOUR,
    MINUTE,
    SHOP,
    Watched,
    deployed,
    expire,
    go_to_ten,
    lag,
    put,
    requests,
    run,
    say,
)

BUCKET = "  Ingest: {Type: AWS::S3::Bucket, Properties: {BucketName: ingest}}\n"
CONSUMER = "tagline-MeterConsumer"


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    meters = {"MeterBucket": "ingest", "MeterBatchWindowSeconds": "0"}
    folder = tmp_path_factory.mktemp("shop")
    with deployed(folder, SHOP + BUCKET, Store="timestream", **meters) as pipeline:
        yield pipeline


@pytest.fixture
def pipeline(shop: Pipeline) -> Pipeline:
    go_to_ten(shop)
    return shop


def sent(pipeline: Pipeline) -> int:
    """Return how many files of meters are in the ingest bucket."""
    return int(pipeline.client("s3").list_objects_v2(Bucket="ingest")["KeyCount"])


@pytest.mark.parametrize(
    ("name", "minutes", "also"),
    [("MeterLagWarning", 6, []), ("MeterLagCritical", 11, ["tagline WARNING collection"])],
)
def test_old_meters_that_come_again_and_again_are_one_mail(
    name: str, minutes: int, also: list[str], pipeline: Pipeline
) -> None:
    alarm, before = Watched(pipeline, name), sent(pipeline)
    lines = iter([line(f"{name}-1"), line(f"{name}-2")])
    lag(alarm, CONSUMER, lambda: next(lines), minutes)
    alarm.check(*also)
    assert sent(pipeline) - before == 2


@pytest.mark.parametrize(
    ("name", "refusals"), [("FailedMeterBatchesCritical", 0), ("DroppedMeterBatchesCritical", 1)]
)
def test_meters_that_no_consumer_took_for_six_hours_are_one_mail(
    name: str, refusals: int, pipeline: Pipeline
) -> None:
    alarm, before = Watched(pipeline, name), sent(pipeline)
    expire(alarm, CONSUMER, line(name), refusals)
    alarm.check()
    assert sent(pipeline) == before


def test_rows_of_a_forgotten_client_that_the_store_has_are_one_mail(pipeline: Pipeline) -> None:
    alarm, day = Watched(pipeline, "RowsForgottenWarning"), pipeline.clock.now().date().isoformat()
    say(pipeline, *requests(2, client="eve")(pipeline, 0))
    alarm.go_to(24 * HOUR)
    run(pipeline, "Upkeep", task="forget", client="eve", **{"from": day, "to": day})
    run(pipeline, "DailyExporter")
    alarm.go_to(24 * HOUR + 3 * MINUTE)
    alarm.go_to(26 * HOUR)
    alarm.check()


def test_meters_that_came_before_the_clock_is_put_forward_are_not_too_old(pipeline: Pipeline) -> None:
    before = sent(pipeline)
    put(pipeline, line("before"))
    pipeline.advance(7 * HOUR)
    pipeline.settle()
    assert sent(pipeline) - before == 1
