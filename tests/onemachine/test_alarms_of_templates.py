"""Alarms in a template of yours: what Lambda and SQS tell CloudWatch, and the e-mail that comes of it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest
from onemachine.pipeline import App, Pipeline

TEMPLATE = """
Transform: AWS::Serverless-2016-10-31
Resources:
  Alerts: {Type: AWS::SNS::Topic}
  Mail:
    Type: AWS::SNS::Subscription
    Properties: {TopicArn: !Ref Alerts, Protocol: email, Endpoint: ops@example.com}
  Stream: {Type: AWS::Kinesis::Stream, Properties: {ShardCount: 1}}
  Orders: {Type: AWS::SQS::Queue}
  Fails:
    Type: AWS::Serverless::Function
    Properties:
      Runtime: python3.13
      Handler: app.fails
      CodeUri: src
      Events:
        Lines:
          Type: Kinesis
          Properties: {Stream: !GetAtt Stream.Arn, StartingPosition: TRIM_HORIZON, MaximumRetryAttempts: 0}
  Errors:
    Type: AWS::CloudWatch::Alarm
    Properties: &alarm
      Namespace: AWS/Lambda
      MetricName: Errors
      Dimensions: [{Name: FunctionName, Value: !Ref Fails}]
      Statistic: Sum
      Period: 60
      EvaluationPeriods: 1
      Threshold: 1
      ComparisonOperator: GreaterThanOrEqualToThreshold
      TreatMissingData: notBreaching
  Dropped:
    Type: AWS::CloudWatch::Alarm
    Properties:
      <<: *alarm
      MetricName: DroppedEventCount
      Dimensions: [{Name: EventSourceMappingUUID, Value: !Ref FailsLines}]
  Lag:
    Type: AWS::CloudWatch::Alarm
    Properties: {<<: *alarm, MetricName: IteratorAge, Statistic: Maximum, Threshold: 0}
  Waiting:
    Type: AWS::CloudWatch::Alarm
    Properties:
      <<: *alarm
      Namespace: AWS/SQS
      MetricName: ApproximateNumberOfMessagesVisible
      Dimensions: [{Name: QueueName, Value: !GetAtt Orders.QueueName}]
      Statistic: Maximum
  Trained:
    Type: AWS::CloudWatch::Alarm
    Properties:
      EvaluationPeriods: 1
      ComparisonOperator: LessThanLowerOrGreaterThanUpperThreshold
      ThresholdMetricId: band
      Metrics: [{Id: band, Expression: ANOMALY_DETECTION_BAND(m1)}]
  Any:
    Type: AWS::CloudWatch::CompositeAlarm
    Properties:
      AlarmName: !Sub "${AWS::StackName} CRITICAL"
      AlarmRule: !Sub 'ALARM("${Errors}") OR ALARM("${Waiting}")'
      AlarmActions: [!Ref Alerts]
      OKActions: [!Ref Alerts]
"""


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    folder = tmp_path_factory.mktemp("alarmed")
    (folder / "src").mkdir()
    (folder / "src" / "app.py").write_text("def fails(event, context):\n    raise ValueError(event)\n")
    (folder / "template.yml").write_text(TEMPLATE)
    with Pipeline([App("own", folder / "template.yml")]) as pipeline:
        pipeline.advance(timedelta(minutes=1))
        yield pipeline


def states(pipeline: Pipeline) -> dict[str, str]:
    found = pipeline.client("cloudwatch").describe_alarms(AlarmTypes=["MetricAlarm", "CompositeAlarm"])
    alarms = found["MetricAlarms"] + found["CompositeAlarms"]
    return {alarm["AlarmName"].removeprefix("own-"): alarm["StateValue"] for alarm in alarms}


def test_a_function_that_fails_and_a_full_queue_are_one_mail_and_their_end_another(
    pipeline: Pipeline,
) -> None:
    before = len(pipeline.services.outbox.mails())
    queue = pipeline.client("sqs").get_queue_url(QueueName="own-Orders")["QueueUrl"]

    pipeline.client("kinesis").put_record(StreamName="own-Stream", Data=b"{}", PartitionKey="a")
    pipeline.client("sqs").send_message(QueueUrl=queue, MessageBody="an order")
    pipeline.settle()
    pipeline.advance(timedelta(minutes=1))

    assert states(pipeline) == {
        "Errors": "ALARM",
        "Dropped": "ALARM",
        "Lag": "ALARM",
        "Waiting": "ALARM",
        "own CRITICAL": "ALARM",
    }
    pipeline.client("sqs").purge_queue(QueueUrl=queue)
    pipeline.advance(timedelta(hours=1))
    assert set(states(pipeline).values()) == {"OK"}
    mails = pipeline.services.outbox.mails()[before:]
    assert [(mail.to, mail.subject) for mail in mails] == [
        ("ops@example.com", 'ALARM: "own CRITICAL" in US East (N. Virginia)'),
        ("ops@example.com", 'OK: "own CRITICAL" in US East (N. Virginia)'),
    ]
    assert "own-Errors" in mails[0].body


def test_an_alarm_that_cannot_be_evaluated_here_is_named(pipeline: Pipeline) -> None:
    (named,) = pipeline.not_run
    assert named.startswith("Trained (AWS::CloudWatch::Alarm: ")
    assert "Trained" not in states(pipeline)
