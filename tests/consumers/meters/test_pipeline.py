"""Meter records on one machine: a function prints them, and each is in one file of the ingest bucket."""

import json
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from onemachine.faults import Fault, Kind
from onemachine.pipeline import App, Pipeline

from cli import stages
from cli.apps import ROOT
from cli.target import target_of
from tests.consumers.meters.meters import METER_TAG, TIME

TEMPLATE = """
Transform: AWS::Serverless-2016-10-31
Resources:
  Ingest: {Type: AWS::S3::Bucket, Properties: {BucketName: ingest}}
  Api:
    Type: AWS::Serverless::Function
    Properties: {Runtime: python3.13, CodeUri: src, Handler: api.handler, Timeout: 10}
"""
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
GROUP = "/aws/lambda/app-Api"


@pytest.fixture
def apps(tmp_path: Path) -> list[App]:
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "api.py").write_text(FUNCTION)
    (tmp_path / "template.yml").write_text(TEMPLATE)
    return [App("app", tmp_path / "template.yml")]


def tagline(**parameters: str) -> App:
    windows = {"BatchWindowSeconds": "0", "MeterBatchWindowSeconds": "0"}
    return App(
        "tagline", ROOT / "template.yml", {"LogGroups": GROUP, "Store": "timestream", **windows, **parameters}
    )


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


def quarantined(pipeline: Pipeline) -> dict[str, int]:
    where = target_of(pipeline)
    return {reason: count.records for reason, count in stages.quarantined(where).items()}


def test_meters_that_a_function_prints_are_files_in_the_bucket_of_another_account(apps: list[App]) -> None:
    parameters = {
        "MeterBucket": "ingest",
        "MeterPrefix": "in/",
        "MeterBucketRegion": "us-west-2",
        "MeterRoleArn": "arn:aws:iam::123456789012:role/ingest",
        "MeterExternalId": "acme-1",
        "MeterObjectAcl": "bucket-owner-full-control",
    }
    with Pipeline([*apps, tagline(**parameters)], in_process=True) as pipeline:
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
        where = target_of(pipeline)
        assert where.store().count() == 10


def test_meters_are_in_one_file_each_whatever_is_killed_and_fails_on_the_way(apps: list[App]) -> None:
    chance = random.Random(7)
    with Pipeline([*apps, tagline(MeterBucket="ingest")]) as pipeline:
        name = pipeline.outputs["tagline"]["MeterConsumerName"]

        def kill() -> None:
            for _ in range(6):  # fewer than a batch is tried
                time.sleep(chance.uniform(0.05, 0.5))
                pipeline.functions.kill(name)

        killer = threading.Thread(target=kill)
        killer.start()
        for kind in (Kind.THROTTLE, Kind.ERROR, Kind.CUT):
            pipeline.services.faults.add(Fault(kind, service="s3", operation="PUT", times=10, chance=0.3))
        for first in range(0, 600, 20):
            print_meters(pipeline, first, first + 20)
        killer.join()
        for mapping in pipeline.mappings:
            mapping.redeliver(1)
        print_meters(pipeline, 600, 601)
        pipeline.settle()

        assert Counter(ids(pipeline)) == Counter(range(601))
        assert quarantined(pipeline) == {"meter_unparseable": 31}


def test_without_a_destination_nothing_of_meters_is_deployed(apps: list[App]) -> None:
    with Pipeline([*apps, tagline()], in_process=True) as pipeline:
        print_meters(pipeline, 0, 3)
        pipeline.settle()

        filters: list[dict[str, Any]] = pipeline.client("logs").describe_subscription_filters(
            logGroupName=GROUP
        )["subscriptionFilters"]
        assert [each["filterPattern"] for each in filters] == ['"usage_record"']
        assert "MeterConsumerName" not in pipeline.outputs["tagline"]
        assert (list(files(pipeline)), quarantined(pipeline)) == ([], {})
