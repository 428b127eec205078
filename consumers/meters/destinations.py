"""Meter records to where they are counted: files in an ingest bucket, or posts to an ingest API."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from http import HTTPStatus
from typing import Any, Final, Protocol

import boto3
import botocore.session
from botocore.config import Config
from botocore.credentials import CredentialProvider, CredentialResolver, DeferredRefreshableCredentials
from botocore.exceptions import BotoCoreError, ClientError

from consumers import service_errors
from consumers.deadlines import Retry, TransientError
from consumers.meters.meter import Entry, file_body, file_name
from consumers.meters.sender import (
    CONNECT_TIMEOUT,
    JUDGING_STATUSES,
    KEY_STATUSES,
    READ_TIMEOUT,
    Posted,
    Sender,
    parts,
)
from consumers.outcomes import Carried, Carrier, Outcome, Refused, Stored, Undecided, Unwritten
from consumers.settings import SettingsError

# One post to an ingest API has at most so many records, and so many bytes unless it is a single record.
MAX_POST_RECORDS: Final = 100
MAX_POST_BYTES: Final = 250_000

_TRANSIENT_CODES = frozenset(
    ["SlowDown", "Throttling", "ThrottlingException", "TooManyRequestsException", "RequestTimeout"]
)


class Destination(Protocol):
    """Where meter records go.

    Attributes:
        store: Its kind, as the metrics name it.
    """

    store: str

    def requests(self, unit: list[Carried[Carrier, Entry]]) -> Iterator[list[Carried[Carrier, Entry]]]:
        """Cut the records of one Kinesis record into requests.

        Args:
            unit: The records, each with what it carries along.
        """

    def write(self, meters: Sequence[Entry], remaining: Callable[[], float], /) -> list[Outcome | Undecided]:
        """Write one request and return the outcome of each record, in their order.

        It may be called in several threads at once, and again with the same records. A single record is never
        `Undecided`.

        Args:
            meters: At least one.
            remaining: Seconds that are left for it.
        """


class Files:
    """Files in an ingest bucket: one for each Kinesis record, named after its content.

    Args:
        client: A boto3 client for S3 that does not retry.
        bucket: The bucket's name.
        prefix: What the files' keys begin with.
        acl: The ACL to give them; empty for none, which a bucket without ACLs demands.
            https://docs.aws.amazon.com/AmazonS3/latest/userguide/about-object-ownership.html
        retry: Tries again what fails for now.
    """

    store = "s3"

    def __init__(self, client: Any, bucket: str, prefix: str, *, acl: str, retry: Retry) -> None:
        self._client = client
        self._bucket = bucket
        self._prefix = prefix
        self._acl = {"ACL": acl} if acl else {}
        self._retry = retry

    def requests(self, unit: list[Carried[Carrier, Entry]]) -> Iterator[list[Carried[Carrier, Entry]]]:
        """Yield the records as they are: a file has all of them."""
        yield unit

    def write(self, meters: Sequence[Entry], remaining: Callable[[], float], /) -> list[Outcome | Undecided]:
        """Write the records as one file: all of them are stored, or none."""
        body = file_body(meters)
        key = self._prefix + file_name(meters, body)
        try:
            outcome = self._retry.call(lambda: self._put(key, body), remaining)
        except TransientError as error:
            outcome = Unwritten(str(error))
        return [outcome] * len(meters)

    def _put(self, key: str, body: bytes) -> Outcome:
        try:
            self._client.put_object(
                Bucket=self._bucket, Key=key, Body=body, ContentType="application/json", **self._acl
            )
        except ClientError as error:
            if service_errors.code(error) in _TRANSIENT_CODES or service_errors.is_transient(error):
                raise TransientError(str(error)) from error
            return Unwritten(str(error))  # Who asks is at fault, or the bucket: never a record.
        except BotoCoreError as error:
            raise TransientError(str(error)) from error
        return Stored()


class Api:
    """An ingest API that takes a JSON array by POST, with a key in the header `X-API-KEY`.

    Args:
        url: Where to post to.
        read_key: Gives the key; it is asked again when the API no longer takes the one that it gave.
        retry: Tries again what fails for now.
    """

    store = "http"

    def __init__(self, url: str, read_key: Callable[[], str], *, retry: Retry) -> None:
        self._sender = Sender(
            url,
            name="the ingest API",
            header="X-API-KEY",
            content_type="application/json",
            read_key=read_key,
        )
        self._retry = retry

    def requests(self, unit: list[Carried[Carrier, Entry]]) -> Iterator[list[Carried[Carrier, Entry]]]:
        """Yield the records in parts that fit into a post each."""
        yield from parts(unit, MAX_POST_RECORDS, MAX_POST_BYTES)

    def write(self, meters: Sequence[Entry], remaining: Callable[[], float], /) -> list[Outcome | Undecided]:
        """Post the records; if they are refused for one of them, they are undecided."""
        body = file_body(meters)
        outcome: Outcome | Undecided
        try:
            posted = self._retry.call(lambda: self._sender.post(body, remaining), remaining)
        except TransientError as error:
            outcome = Unwritten(str(error))
        else:
            judged = posted.status in JUDGING_STATUSES and len(meters) > 1
            outcome = Undecided(posted.detail) if judged else _outcome(posted)
        return [outcome] * len(meters)


def _outcome(posted: Posted) -> Outcome:
    if HTTPStatus.OK <= posted.status < HTTPStatus.MULTIPLE_CHOICES:
        return Stored()
    if posted.status >= HTTPStatus.BAD_REQUEST and posted.status not in KEY_STATUSES:
        return Refused("meter_refused", posted.detail)
    return Unwritten(posted.detail)  # The key is at fault, or the address: it is elsewhere.


def read_secret(arn: str) -> str:
    """Return the text of a Secrets Manager secret, or of an SSM parameter.

    Args:
        arn: Which one: `arn:aws:secretsmanager:...` or `arn:aws:ssm:...`.

    Raises:
        BotoCoreError: If it cannot be read.
        ClientError: If it may not be read, or is not there.
        SettingsError: If its text cannot be a header's value; the message leaves out the text.
    """
    service, region = arn.split(":")[2:4]
    # The destination tries again, within the time that the invocation has left.
    client = boto3.client(
        service,
        region_name=region,
        config=Config(
            retries={"total_max_attempts": 1}, connect_timeout=CONNECT_TIMEOUT, read_timeout=READ_TIMEOUT
        ),
    )
    return read_key(client, arn)


def read_key(client: Any, arn: str) -> str:
    """Return what `read_secret` does, with a boto3 client of the secret's service."""
    if arn.split(":")[2] == "ssm":
        secret = client.get_parameter(Name=arn, WithDecryption=True)["Parameter"]["Value"]
    else:
        secret = client.get_secret_value(SecretId=arn)["SecretString"]
    key = str(secret).strip()
    if not (key and key.isascii() and key.isprintable()):
        raise SettingsError(f"{arn} holds no key: it is empty, or has characters that no header can have")
    return key


def assume(sts: Any, role_arn: str, external_id: str) -> boto3.Session:
    """Return a session that acts as a role, usually of the bucket's account, and renews its credentials.

    Args:
        sts: A boto3 client for STS.
        role_arn: The role. It is assumed when credentials are first needed.
        external_id: The external id that its owner asks for, against the confused deputy; may be empty.
            https://docs.aws.amazon.com/IAM/latest/UserGuide/confused-deputy.html
    """

    def renew() -> dict[str, str]:
        told = {"ExternalId": external_id} if external_id else {}
        given = sts.assume_role(RoleArn=role_arn, RoleSessionName="tagline-meters", **told)["Credentials"]
        return {
            "access_key": given["AccessKeyId"],
            "secret_key": given["SecretAccessKey"],
            "token": given["SessionToken"],
            "expiry_time": given["Expiration"].isoformat(),
        }

    class Assumed(CredentialProvider):  # type: ignore[misc] # botocore has no types
        METHOD = "assume-role"

        def load(self) -> Any:
            return DeferredRefreshableCredentials(refresh_using=renew, method=self.METHOD)

    core = botocore.session.get_session()
    core.register_component("credential_provider", CredentialResolver([Assumed()]))
    return boto3.Session(botocore_session=core)
