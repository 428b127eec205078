"""The outbox: what SNS would send by e-mail."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from moto import mock_aws
from onemachine import sns
from onemachine.sns import DEFAULT_SUBJECT, Outbox


@pytest.fixture
def client() -> Iterator[Any]:
    with mock_aws():
        client = boto3.client("sns")
        yield client
        client.close()


def topic(client: Any, protocol: str, to: str, **attributes: str) -> str:
    arn: str = client.create_topic(Name="alerts")["TopicArn"]
    client.subscribe(TopicArn=arn, Protocol=protocol, Endpoint=to, Attributes=attributes)
    return arn


def test_an_e_mail_lands_in_the_outbox(client: Any) -> None:
    outbox = Outbox()
    sns.install(outbox)
    arn = topic(client, "email", "ops@example.com")
    message_id = client.publish(TopicArn=arn, Subject="Failed", Message="line 1\nline 2")["MessageId"]
    client.publish(TopicArn=arn, Message="without a subject")
    first, second = outbox.mails()
    assert (first.to, first.subject, first.body) == ("ops@example.com", "Failed", "line 1\nline 2")
    assert (first.topic_arn, first.message_id) == (arn, message_id)
    assert second.subject == DEFAULT_SUBJECT


def test_email_json_is_the_whole_notification(client: Any) -> None:
    outbox = Outbox()
    sns.install(outbox)
    arn = topic(client, "email-json", "ops@example.com")
    client.publish(TopicArn=arn, Subject="S", Message="M")
    (mail,) = outbox.mails()
    notification = json.loads(mail.body)
    assert (notification["Type"], notification["Message"], notification["TopicArn"]) == (
        "Notification",
        "M",
        arn,
    )


def test_a_message_for_each_protocol_and_a_filter_are_followed(client: Any) -> None:
    outbox = Outbox()
    sns.install(outbox)
    arn = topic(client, "email", "ops@example.com", FilterPolicy='{"level": ["high"]}')
    level = {"DataType": "String", "StringValue": "high"}
    client.publish(TopicArn=arn, Message="dropped")
    client.publish(
        TopicArn=arn,
        Message=json.dumps({"default": "all", "email": "only mail"}),
        MessageStructure="json",
        MessageAttributes={"level": level},
    )
    assert [mail.body for mail in outbox.mails()] == ["only mail"]


def test_other_protocols_are_delivered_as_before(client: Any) -> None:
    outbox = Outbox()
    sns.install(outbox)
    queues = boto3.client("sqs")
    url = queues.create_queue(QueueName="q")["QueueUrl"]
    arn = topic(client, "sqs", "arn:aws:sqs:us-east-1:123456789012:q")
    client.publish(TopicArn=arn, Message="to a queue")
    (message,) = queues.receive_message(QueueUrl=url)["Messages"]
    queues.close()
    assert json.loads(message["Body"])["Message"] == "to a queue"
    assert outbox.mails() == []
