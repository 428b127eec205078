"""Event source mappings and schedules that a client disables and enables again, as an operator does."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from botocore.exceptions import ClientError
from onemachine.pipeline import App, Pipeline

TEMPLATE = """
Transform: AWS::Serverless-2016-10-31
Resources:
  Lines: {Type: AWS::Kinesis::Stream, Properties: {Name: lines, ShardCount: 1}}
  Count:
    Type: AWS::Serverless::Function
    Properties:
      CodeUri: code
      Handler: count.handler
      Runtime: python3.13
      Events:
        Read: {Type: Kinesis, Properties: {Stream: !GetAtt Lines.Arn, StartingPosition: TRIM_HORIZON}}
        Daily: {Type: ScheduleV2, Properties: {ScheduleExpression: rate(1 day)}}
"""
CODE = """
def handler(event, context):
    print("read", len(event["Records"]) if "Records" in event else "daily")
"""


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    folder = tmp_path_factory.mktemp("app")
    (folder / "code").mkdir()
    (folder / "template.yml").write_text(TEMPLATE)
    (folder / "code" / "count.py").write_text(CODE)
    with Pipeline([App("app", folder / "template.yml")]) as pipeline:
        pipeline.advance(timedelta(minutes=1))
        yield pipeline


def printed(pipeline: Pipeline) -> list[str]:
    events = pipeline.client("logs").filter_log_events(logGroupName="/aws/lambda/app-Count")["events"]
    return [event["message"].strip() for event in events if event["message"].startswith("read")]


def put(pipeline: Pipeline) -> None:
    pipeline.client("kinesis").put_record(StreamName="lines", Data=b"a", PartitionKey="a")
    pipeline.settle()


def test_a_disabled_mapping_reads_nothing_and_resumes_where_it_was(pipeline: Pipeline) -> None:
    functions = pipeline.client("lambda")
    (mapping,) = functions.list_event_source_mappings()["EventSourceMappings"]
    put(pipeline)
    before = printed(pipeline)

    answer = functions.update_event_source_mapping(UUID=mapping["UUID"], Enabled=False)
    put(pipeline)

    assert (answer["UUID"], answer["State"]) == (mapping["UUID"], "Disabling")
    assert functions.get_event_source_mapping(UUID=mapping["UUID"])["State"] == "Disabled"
    assert printed(pipeline) == before

    functions.update_event_source_mapping(UUID=mapping["UUID"], Enabled=True)
    pipeline.settle()

    assert functions.get_event_source_mapping(UUID=mapping["UUID"])["State"] == "Enabled"
    assert printed(pipeline) == [*before, "read 1"]


def test_the_stream_counts_what_comes_in_and_the_function_how_old_it_is(pipeline: Pipeline) -> None:
    put(pipeline)
    now = pipeline.clock.now()

    def total(namespace: str, name: str, **dimensions: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = pipeline.client("cloudwatch").get_metric_statistics(
            Namespace=namespace,
            MetricName=name,
            Dimensions=[{"Name": each, "Value": value} for each, value in dimensions.items()],
            StartTime=now - timedelta(hours=1),
            EndTime=now + timedelta(hours=1),
            Period=7200,
            Statistics=["Sum", "SampleCount"],
        )["Datapoints"]
        return found

    (incoming,) = total("AWS/Kinesis", "IncomingRecords", StreamName="lines")
    (ages,) = total("AWS/Lambda", "IteratorAge", FunctionName="app-Count")
    assert incoming["Sum"] == ages["SampleCount"]


def test_a_disabled_schedule_does_not_fire(pipeline: Pipeline) -> None:
    schedules = pipeline.client("scheduler")
    (name,) = (each["Name"] for each in schedules.list_schedules()["Schedules"])
    known = schedules.get_schedule(Name=name)
    kept = {each: known[each] for each in ("Name", "ScheduleExpression", "FlexibleTimeWindow", "Target")}

    for state, fired in (("DISABLED", 0), ("ENABLED", 1)):
        before = printed(pipeline).count("read daily")
        schedules.update_schedule(**kept, State=state)
        pipeline.advance(timedelta(days=1))
        pipeline.settle()
        assert printed(pipeline).count("read daily") - before == fired


def test_nothing_else_of_a_mapping_can_be_changed(pipeline: Pipeline) -> None:
    functions = pipeline.client("lambda")
    (mapping,) = functions.list_event_source_mappings()["EventSourceMappings"]
    with pytest.raises(ClientError, match="on one machine, Enabled alone can be changed, not BatchSize"):
        functions.update_event_source_mapping(UUID=mapping["UUID"], BatchSize=5)
    with pytest.raises(ClientError, match="Event source mapping not found"):
        functions.update_event_source_mapping(UUID="0" * 36, Enabled=True)
