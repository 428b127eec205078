"""SQS: moto's, with its queues in templates."""

from __future__ import annotations

import json

from onemachine.service import Client, ResourceType, Service
from onemachine.template.stack import Resource


def _create_queue(client: Client, resource: Resource) -> None:
    properties = resource.properties
    attributes = {
        name: str(properties[name])
        for name in ("VisibilityTimeout", "MessageRetentionPeriod", "ReceiveMessageWaitTimeSeconds")
        if name in properties
    }
    if "RedrivePolicy" in properties:
        attributes["RedrivePolicy"] = json.dumps(properties["RedrivePolicy"])
    client("sqs").create_queue(QueueName=resource.name, Attributes=attributes)


_URL = "{endpoint}/{account}/{name}"
_QUEUE = ResourceType(
    "AWS::SQS::Queue",
    "QueueName",
    ref=_URL,
    arn="sqs:{region}:{account}:{name}",
    others={"QueueName": "{name}", "QueueUrl": _URL},
    create=_create_queue,
)
SERVICE = Service("sqs", (_QUEUE,))
