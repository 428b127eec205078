"""Meter records on one machine: a function prints them, and each is in one file of the ingest bucket."""

import json
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from onemachine.faults import Fault, Kind
from onemachine.pipeline import App, Pipeline

from cli.target import target_of
from tests.apps import GROUP, app_and_tagline, kills, quarantined
from tests.consumers.meters.meters import METER_TAG, TIME

INGEST = "Ingest: {Type: AWS::S3::Bucket, Properties: {BucketName: ingest}}"
# What a function of anyone's does: one line for each meter, in three ways, and a broken one.
FUNCTION = """
import json

from tagline import Emitter

emitter = Emitter(type="meter")


def handler(event, _context):
    tag = event["tag"]
    for number in range(event["first"], event["last"]):
        meter = {
            "meterApiName": "api-calls", "customerId": "acme", "meterTimeInMillis": event["time"],
            "meterValue": 1.0, "uniqueId": str(number), "dimensions": {"method": "GET"},
        }
        if number % 3 == 0:
            print(tag, json.dumps(meter), flush=True)
        elif number % 3 == 1:
            print("2022-09-13T18:35:05.062Z\\tc6af\\tINFO\\t" + tag, json.dumps(meter), flush=True)
        else:
            emitter.emit(meter)
    print(tag, "{broken", flush=True)
"""


def apps(folder: Path, **parameters: str) -> list[App]:
    return app_and_tagline(folder, FUNCTION, INGEST, Store="timestream", **parameters)


def print_meters(pipeline: Pipeline, first: int, last: int) -> None:
    event = {"first": first, "last": last, "tag": METER_TAG, "time": TIME}
    pipeline.functions.invoke("app-Api", json.dumps(event).encode())


def files(pipeline: Pipeline, bucket: str = "ingest") -> Iterator[tuple[str, bytes]]:
    s3 = pipeline.client("s3")
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket):
        for each in page.get("Contents", ()):
            yield each["Key"], s3.get_object(Bucket=bucket, Key=each["Key"])["Body"].read()


def ids(pipeline: Pipeline) -> list[int]:
    return sorted(int(meter["uniqueId"]) for _, body in files(pipeline) for meter in json.loads(body))


def test_meters_that_a_function_prints_are_files_in_the_bucket_of_another_account(tmp_path: Path) -> None:
    parameters = {
        "MeterBucket": "ingest",
        "MeterPrefix": "in/",
        "MeterBucketRegion": "us-west-2",
        "MeterRoleArn": "arn:aws:iam::123456789012:role/ingest",
        "MeterExternalId": "acme-1",
        "MeterObjectAcl": "bucket-owner-full-control",
    }
    with Pipeline(apps(tmp_path, **parameters), in_process=True) as pipeline:
        print_meters(pipeline, 0, 30)
        pipeline.settle()
        before = dict(files(pipeline))
        for mapping in pipeline.mappings:
            mapping.redeliver(1)
        print_meters(pipeline, 30, 31)
        pipeline.settle()

        after = dict(files(pipeline))
        assert ids(pipeline) == list(range(31))
        assert before.items() <= after.items()
        assert {key[: len("in/2022-09-13/")] for key in after} == {"in/2022-09-13/"}
        assert b'"meterValue":1,' in b"".join(after.values())
        assert quarantined(pipeline) == {"meter_unparseable": 2}
        # The tagged ones are rows of the table as well.
        assert target_of(pipeline).store().count() == 10


def test_meters_are_in_one_file_each_whatever_is_killed_and_fails_on_the_way(tmp_path: Path) -> None:
    chance = random.Random(7)
    with Pipeline(apps(tmp_path, MeterBucket="ingest")) as pipeline:
        for kind in (Kind.THROTTLE, Kind.ERROR, Kind.CUT):
            pipeline.services.faults.add(Fault(kind, service="s3", operation="PUT", times=10, chance=0.3))
        with kills(pipeline, "MeterConsumerName", 6, chance):  # fewer than a batch is tried
            for first in range(0, 600, 20):
                print_meters(pipeline, first, first + 20)
        for mapping in pipeline.mappings:
            mapping.redeliver(1)
        print_meters(pipeline, 600, 601)
        pipeline.settle()

        assert Counter(ids(pipeline)) == Counter(range(601))
        assert quarantined(pipeline) == {"meter_unparseable": 31}


def test_without_a_destination_nothing_of_meters_is_deployed(tmp_path: Path) -> None:
    with Pipeline(apps(tmp_path), in_process=True) as pipeline:
        print_meters(pipeline, 0, 3)
        pipeline.settle()

        filters: list[dict[str, Any]] = pipeline.client("logs").describe_subscription_filters(
            logGroupName=GROUP
        )["subscriptionFilters"]
        assert [each["filterPattern"] for each in filters] == ['"usage_record"']
        assert "MeterConsumerName" not in pipeline.outputs["tagline"]
        assert (list(files(pipeline)), quarantined(pipeline)) == ([], {})
