"""SNS: moto's, with an outbox for what it drops: the e-mails to subscribers."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from moto.sns.models import Subscription

from onemachine.service import Client, Host, ResourceType, Service
from onemachine.template.stack import Resource, TemplateError

# https://docs.aws.amazon.com/sns/latest/dg/sns-email-notifications.html
EMAIL_PROTOCOLS = ("email", "email-json")
PROTOCOLS = (*EMAIL_PROTOCOLS, "sqs", "http", "https")
"""What a topic delivers to here; moto does the others."""

DEFAULT_SUBJECT = "AWS Notification Message"

_moto_publish = Subscription.publish


@dataclass(frozen=True)
class Mail:
    """An e-mail that SNS would have sent.

    Attributes:
        to: The address.
        subject: The message's subject, or the one that SNS uses without any.
        body: The message; the whole notification as JSON where the protocol is `email-json`.
        topic_arn: The topic.
        message_id: The message's id.
        sent_at: When, RFC 3339 in UTC.
    """

    to: str
    subject: str
    body: str
    topic_arn: str
    message_id: str
    sent_at: str


class Outbox:
    """The e-mails, in the order in which they would have been sent."""

    def __init__(self) -> None:
        self._mails: list[Mail] = []
        self._lock = threading.Lock()

    def add(self, mail: Mail) -> None:
        """Keep an e-mail."""
        with self._lock:
            self._mails.append(mail)

    def mails(self) -> list[Mail]:
        """Return what there is."""
        with self._lock:
            return list(self._mails)


def install(outbox: Outbox) -> None:
    """Put an outbox into moto; a later one takes the place of the earlier.

    Addresses count as confirmed from the start: on AWS their owners have to confirm the subscription.

    Args:
        outbox: What gets the e-mails.
    """

    def publish(self: Any, message: str, message_id: str, subject: str | None = None, **more: Any) -> None:
        if self.protocol not in EMAIL_PROTOCOLS:
            _moto_publish(self, message, message_id, subject=subject, **more)
            return
        matcher = self._filter_policy_matcher
        if matcher is not None and not matcher.matches(more.get("message_attributes"), message):
            return
        if more.get("message_structure") == "json":
            message = self._parse_message_structure(message, self.protocol)
        body = message
        if self.protocol == "email-json":
            attributes = more.get("message_attributes")
            body = json.dumps(self.get_post_data(message, message_id, subject, message_attributes=attributes))
        outbox.add(
            Mail(
                to=self.endpoint,
                subject=subject or DEFAULT_SUBJECT,
                body=body,
                topic_arn=self.topic.arn,
                message_id=message_id,
                sent_at=f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
            )
        )

    # moto has no other place to put this.
    Subscription.publish = publish  # type: ignore[assignment,method-assign]


def _installed(_: Host) -> Outbox:
    outbox = Outbox()
    install(outbox)
    return outbox


def _create_topic(client: Client, resource: Resource) -> None:
    client("sns").create_topic(Name=resource.name)


def create_subscription(client: Client, resource: Resource) -> None:
    """Subscribe to a topic; TemplateError if nothing here delivers by that protocol."""
    protocol = resource.properties["Protocol"]
    if protocol not in PROTOCOLS:
        raise TemplateError(
            f"{resource.logical_id}: topics deliver to {', '.join(PROTOCOLS)} here, not to {protocol}"
        )
    client("sns").subscribe(
        TopicArn=resource.properties["TopicArn"], Protocol=protocol, Endpoint=resource.properties["Endpoint"]
    )


_ARN = "arn:aws:sns:{region}:{account}:{name}"
_TOPIC_ATTRIBUTES = {"TopicArn": _ARN, "TopicName": "{name}"}
SERVICE = Service(
    "sns",
    (
        ResourceType("AWS::SNS::Topic", "TopicName", _ARN, others=_TOPIC_ATTRIBUTES, create=_create_topic),
        ResourceType("AWS::SNS::Subscription", create=create_subscription),
    ),
    install=_installed,
)
