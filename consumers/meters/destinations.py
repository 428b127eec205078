"""Meter records to where they are counted: files in an ingest bucket, or posts to an ingest API."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from http import HTTPStatus
from typing import Any, Final, Protocol

import boto3
import botocore.session
import urllib3
from botocore.config import Config
from botocore.credentials import CredentialProvider, CredentialResolver, DeferredRefreshableCredentials
from botocore.exceptions import BotoCoreError, ClientError

from consumers import service_errors
from consumers.deadlines import RESERVE, Retry, TransientError
from consumers.meters.meter import Meter, file_body, file_name
from consumers.outcomes import Carried, Carrier, Outcome, Refused, Stored, Undecided, Unwritten
from consumers.settings import SettingsError

# How long one request may take, in seconds.
CONNECT_TIMEOUT, READ_TIMEOUT = 5.0, 20.0

# One post to an ingest API has at most so many records, and so many bytes unless it is a single record.
MAX_POST_RECORDS: Final = 100
MAX_POST_BYTES: Final = 250_000

_TRANSIENT_CODES = frozenset(
    ["SlowDown", "Throttling", "ThrottlingException", "TooManyRequestsException", "RequestTimeout"]
)
# The key is at fault, and not a record.
_KEY_STATUSES = frozenset([HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN])
# Said of a post as a whole where one record may be meant.
_JUDGING_STATUSES = frozenset(
    [HTTPStatus.BAD_REQUEST, HTTPStatus.REQUEST_ENTITY_TOO_LARGE, HTTPStatus.UNPROCESSABLE_ENTITY]
)


class Destination(Protocol):
    """Where meter records go.

    Attributes:
        store: Its kind, as the metrics name it.
    """

    store: str

    def requests(self, unit: list[Carried[Carrier, Meter]]) -> Iterator[list[Carried[Carrier, Meter]]]:
        """Cut the records of one Kinesis record into requests.

        Args:
            unit: The records, each with what it carries along.
        """

    def write(self, meters: Sequence[Meter], remaining: Callable[[], float], /) -> list[Outcome | Undecided]:
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

    def requests(self, unit: list[Carried[Carrier, Meter]]) -> Iterator[list[Carried[Carrier, Meter]]]:
        """Yield the records as they are: a file has all of them."""
        yield unit

    def write(self, meters: Sequence[Meter], remaining: Callable[[], float], /) -> list[Outcome | Undecided]:
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
        self._url = url
        self._read_key = read_key
        self._key = ""
        self._retry = retry
        # Nothing is followed: the key is for this address alone.
        self._http = urllib3.PoolManager(maxsize=16, retries=False)

    def requests(self, unit: list[Carried[Carrier, Meter]]) -> Iterator[list[Carried[Carrier, Meter]]]:
        """Yield the records in parts that fit into a post each."""
        part: list[Carried[Carrier, Meter]] = []
        size = 1  # the first bracket; a comma or the last one follows each record
        for carrier, meter in unit:
            more = len(meter.text.encode()) + 1
            if part and (len(part) == MAX_POST_RECORDS or size + more > MAX_POST_BYTES):
                yield part
                part, size = [], 1
            part.append((carrier, meter))
            size += more
        yield part

    def write(self, meters: Sequence[Meter], remaining: Callable[[], float], /) -> list[Outcome | Undecided]:
        """Post the records; if they are refused for one of them, they are undecided."""
        body = file_body(meters)
        outcome: Outcome | Undecided
        try:
            outcome = self._retry.call(lambda: self._post(body, remaining), remaining)
        except TransientError as error:
            outcome = Unwritten(str(error))
        except _JudgedError as error:
            detail = str(error)
            outcome = Undecided(detail) if len(meters) > 1 else Refused("meter_refused", detail)
        return [outcome] * len(meters)

    def _post(self, body: bytes, remaining: Callable[[], float]) -> Outcome:
        key = self._key or self._renewed_key()
        left = max(0.1, remaining() - RESERVE)
        try:
            answer = self._http.request(
                "POST",
                self._url,
                body=body,
                headers={"Content-Type": "application/json", "X-API-KEY": key},
                redirect=False,
                timeout=urllib3.Timeout(
                    total=left, connect=min(CONNECT_TIMEOUT, left), read=min(READ_TIMEOUT, left)
                ),
            )
        except urllib3.exceptions.HTTPError as error:
            raise TransientError(f"{type(error).__name__}: no answer from the ingest API") from error
        status = answer.status
        said = f"the ingest API answered {status}: {answer.data[:200].decode(errors='replace')}"
        if HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES:
            return Stored()
        if service_errors.is_transient_status(status):
            raise TransientError(said, _retry_after(answer.headers.get("Retry-After", "")))
        if status in _KEY_STATUSES:
            if self._renewed_key() != key:
                raise TransientError("the key of the ingest API has been changed")
            return Unwritten(said)
        if status in _JUDGING_STATUSES:
            raise _JudgedError(said)
        if status >= HTTPStatus.BAD_REQUEST:
            return Refused("meter_refused", said)
        return Unwritten(said)  # It is elsewhere: the address is at fault.

    def _renewed_key(self) -> str:
        try:
            self._key = self._read_key()
        except (BotoCoreError, ClientError) as error:
            raise TransientError(f"the key of the ingest API cannot be read: {error}") from error
        return self._key


class _JudgedError(Exception):
    """The API refuses a post for what is in it."""


def _retry_after(seconds: str) -> float:
    """Return how long a server asks to wait; a date is left to the jitter."""
    return float(seconds) if re.fullmatch("[0-9]{1,4}", seconds) else 0.0


def read_secret(arn: str) -> str:
    """Return the text of a Secrets Manager secret, or of an SSM parameter.

    Args:
        arn: Which one: `arn:aws:secretsmanager:...` or `arn:aws:ssm:...`.

    Raises:
        BotoCoreError: If it cannot be read.
        ClientError: If it may not be read, or is not there.
        SettingsError: If its text cannot be a header's value; the text is not told.
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
    if service == "ssm":
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
        external_id: What its owner wants to be told, against the confused deputy; empty for nothing.
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
