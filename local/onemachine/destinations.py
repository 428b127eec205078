"""Where Lambda puts what it has given up: a bucket, a queue, a topic or another function.

https://docs.aws.amazon.com/lambda/latest/dg/kinesis-on-failure-destination.html and
https://docs.aws.amazon.com/lambda/latest/dg/invocation-async-retain-records.html
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any

from botocore.exceptions import ClientError

from onemachine.functions import Result

Send = Callable[[str, Mapping[str, Any], str], None]
"""Takes a destination's ARN, a document, and the key that it has where the destination is a bucket."""

# Of errors that pass, though their status is one of the client's.
_PASSING = frozenset({"RequestTimeout", "Throttling", "ThrottlingException", "TooManyRequestsException"})
STREAM_DESTINATIONS = ("s3", "sqs", "sns")
INVOCATION_DESTINATIONS = ("s3", "sqs", "sns", "lambda")


def check_destination(arn: str, allowed: tuple[str, ...]) -> None:
    """Refuse a destination that is not delivered to on one machine.

    Args:
        arn: The destination.
        allowed: The services, as in ARNs, that it may belong to.

    Raises:
        ValueError: It belongs to another service, or is a FIFO queue or topic, which Lambda does not take.
    """
    service = arn.split(":")[2] if arn.count(":") >= 5 else ""  # noqa: PLR2004 - the parts of an ARN
    if service not in allowed:
        raise ValueError(f"destination {arn} does not belong to {', '.join(allowed)}")
    if arn.endswith(".fifo"):
        raise ValueError(f"destination {arn} is a FIFO queue or topic, which Lambda does not deliver to")


def is_refusal(error: ClientError) -> bool:
    """Tell whether a destination does not take a document and will not: access is denied, for instance."""
    status = error.response["ResponseMetadata"]["HTTPStatusCode"]
    return status < HTTPStatus.INTERNAL_SERVER_ERROR and error.response["Error"]["Code"] not in _PASSING


class Destinations:
    """Delivers documents to the services of this machine.

    Args:
        client: Returns the boto3 client of a service by its name.
        invoke: Calls a function by its name, for destinations that are functions.
    """

    def __init__(self, client: Callable[[str], Any], invoke: Callable[[str, bytes], Result]) -> None:
        self._client = client
        self._invoke = invoke

    def send(self, arn: str, document: Mapping[str, Any], key: str) -> None:
        """Deliver a document.

        Args:
            arn: The destination.
            document: What to deliver, as JSON.
            key: Its key, if the destination is a bucket.

        Raises:
            ValueError: The destination belongs to a service that is not delivered to.
        """
        check_destination(arn, INVOCATION_DESTINATIONS)
        _, _, service, _, account, name = arn.split(":", 5)
        text = json.dumps(document)
        if service == "s3":
            self._client("s3").put_object(
                Bucket=name, Key=key, Body=text.encode(), ContentType="application/json"
            )
        elif service == "sqs":
            queues = self._client("sqs")
            url = queues.get_queue_url(QueueName=name, QueueOwnerAWSAccountId=account)["QueueUrl"]
            queues.send_message(QueueUrl=url, MessageBody=text)
        elif service == "sns":
            self._client("sns").publish(TopicArn=arn, Message=text)
        else:
            self._invoke(name.split(":")[1], text.encode())
