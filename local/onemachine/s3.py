"""S3: moto's, with what it takes that AWS refuses, and what AWS does to objects as time goes by.

moto answers links that have expired or were tampered with, and keeps lifecycle rules without following them.
"""

from __future__ import annotations

import logging
import math
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, time, timedelta
from typing import Any
from xml.sax.saxutils import escape

from moto.s3.exceptions import NoSuchUpload, S3ClientError
from moto.s3.models import FakeMultipart, S3Backend, s3_backends
from moto.s3.responses import S3Response

from onemachine.clock import Now, real_time
from onemachine.faults import Kind
from onemachine.functions import ACCOUNT_ID
from onemachine.service import Client, ResourceType, Service, lowercase_name
from onemachine.signatures import Keys, SignatureError, SignedRequest, is_presigned, verify_presigned
from onemachine.template.stack import Resource

logger = logging.getLogger(__name__)


# Smaller objects are not worth a transition, unless a rule names sizes:
# https://docs.aws.amazon.com/AmazonS3/latest/userguide/lifecycle-transition-general-considerations.html
LEAST_TRANSITION_BYTES = 128 * 1024

_PARTITION = "aws"


# --- links ------------------------------------------------------------------------------------------------


@dataclass
class _Checks:
    """What links are checked with; there is one set in a process, as there is one moto."""

    keys: Keys
    clock: Now


_checks: _Checks | None = None
_moto_key_response = S3Response.key_response
_moto_bucket_response = S3Response.bucket_response
_moto_put_lifecycle = S3Backend.put_bucket_lifecycle_configuration
_moto_upload_part = S3Backend.upload_part
_moto_multipart = FakeMultipart.__init__


def install(keys: Keys, clock: Now = real_time) -> None:
    """Put our checks into moto. Doing it again changes what is checked with.

    Args:
        keys: The key pairs that links may be signed with.
        clock: Says what time it is, with a time zone. It has to be the clock that signs them.
    """
    global _checks  # noqa: PLW0603 - moto's server looks up its classes when a call comes, and has no instance
    _checks = _Checks(keys, clock)
    S3Response.key_response = _key_response  # type: ignore[method-assign]
    S3Response.bucket_response = _bucket_response  # type: ignore[method-assign]
    S3Backend.put_bucket_lifecycle_configuration = _put_lifecycle  # type: ignore[method-assign]
    S3Backend.upload_part = _upload_part  # type: ignore[method-assign]
    FakeMultipart.__init__ = _begin_multipart  # type: ignore[method-assign]


def remove() -> None:
    """Check nothing any more."""
    global _checks  # noqa: PLW0603 - as in install
    _checks = None


def _key_response(self: Any, request: Any, full_url: str, headers: Any) -> Any:
    return _refusal(request) or _moto_key_response(self, request, full_url, headers)


def _bucket_response(self: Any, request: Any, full_url: str, headers: Any) -> Any:
    return _refusal(request) or _moto_bucket_response(self, request, full_url, headers)


def _refusal(request: Any) -> tuple[int, dict[str, str], bytes] | None:
    # werkzeug keeps the path as the client wrote it, and that is what was signed.
    target = request.environ.get("RAW_URI", "")
    if _checks is None or not is_presigned(target):
        return None
    signed = SignedRequest(request.method, target, list(request.headers.items()))
    try:
        verify_presigned(signed, _checks.keys, _checks.clock())
    except SignatureError as error:
        headers = {"content-type": "application/xml"}
        return error.status, headers, error_document(error.code, str(error), error.more)
    return None


def error_document(code: str, message: str, more: Mapping[str, str]) -> bytes:
    """Write an error as S3 does.

    Args:
        code: For instance `AccessDenied`.
        message: Its message.
        more: Further elements.

    Returns:
        The XML of https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html.
    """
    elements = {"Code": code, "Message": message, **more, "RequestId": uuid.uuid4().hex[:16].upper()}
    inside = "".join(f"<{name}>{escape(text)}</{name}>" for name, text in elements.items())
    return f'<?xml version="1.0" encoding="UTF-8"?>\n<Error>{inside}</Error>'.encode()


# --- a bucket's configuration -----------------------------------------------------------------------------

_BUCKET_PROPERTIES = {
    "AccelerateConfiguration",
    "BucketEncryption",
    "BucketName",
    "LifecycleConfiguration",
    "LoggingConfiguration",  # S3 writes its access log when it likes: none is written here
    "OwnershipControls",
    "PublicAccessBlockConfiguration",
    "Tags",
    "VersioningConfiguration",
}


def configure_bucket(client: Any, bucket: str, properties: Mapping[str, Any]) -> None:
    """Set up a bucket as in its template.

    Args:
        client: A boto3 S3 client.
        bucket: The bucket's name.
        properties: The properties of AWS::S3::Bucket, as plain values:
            https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/aws-resource-s3-bucket.html

    Raises:
        ValueError: There is a property that is not followed on one machine.
    """
    if unknown := sorted(set(properties) - _BUCKET_PROPERTIES):
        raise ValueError(f"bucket {bucket}: {unknown[0]} is not followed on one machine")
    lifecycle = properties.get("LifecycleConfiguration", {})
    lifecycle_rules = [lifecycle_rule(bucket, rule) for rule in lifecycle.get("Rules", [])]
    if versioning := properties.get("VersioningConfiguration"):
        client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": versioning["Status"]})
    if block := properties.get("PublicAccessBlockConfiguration"):
        flags = {name: str(value).lower() == "true" for name, value in block.items()}
        client.put_public_access_block(Bucket=bucket, PublicAccessBlockConfiguration=flags)
    if encryption := properties.get("BucketEncryption"):
        rules = [
            {"ApplyServerSideEncryptionByDefault": rule["ServerSideEncryptionByDefault"]}
            for rule in encryption["ServerSideEncryptionConfiguration"]
        ]
        client.put_bucket_encryption(Bucket=bucket, ServerSideEncryptionConfiguration={"Rules": rules})
    if ownership := properties.get("OwnershipControls"):
        client.put_bucket_ownership_controls(Bucket=bucket, OwnershipControls=dict(ownership))
    if acceleration := properties.get("AccelerateConfiguration"):
        client.put_bucket_accelerate_configuration(
            Bucket=bucket, AccelerateConfiguration={"Status": acceleration["AccelerationStatus"]}
        )
    if tags := properties.get("Tags"):
        client.put_bucket_tagging(Bucket=bucket, Tagging={"TagSet": list(tags)})
    if lifecycle_rules:
        client.put_bucket_lifecycle_configuration(
            Bucket=bucket, LifecycleConfiguration={"Rules": lifecycle_rules}
        )


# How a rule's properties are called in CloudFormation, and where the API has them.
_RULE_PLACES: Mapping[str, tuple[str, ...]] = {
    "Id": ("ID",),
    "Status": ("Status",),
    "ExpirationInDays": ("Expiration", "Days"),
    "ExpirationDate": ("Expiration", "Date"),
    "ExpiredObjectDeleteMarker": ("Expiration", "ExpiredObjectDeleteMarker"),
    "NoncurrentVersionExpirationInDays": ("NoncurrentVersionExpiration", "NoncurrentDays"),
    "NoncurrentVersionExpiration": ("NoncurrentVersionExpiration",),
    "AbortIncompleteMultipartUpload": ("AbortIncompleteMultipartUpload",),
}


def lifecycle_rule(bucket: str, rule: Mapping[str, Any]) -> dict[str, Any]:
    """Write a rule of a template as S3's API has it.

    Args:
        bucket: The bucket's name, for messages.
        rule: The rule, as AWS::S3::Bucket has it.

    Returns:
        The rule, as PutBucketLifecycleConfiguration takes it.

    Raises:
        ValueError: The rule has a part that is not followed on one machine.
    """
    written: dict[str, Any] = {}
    parts = dict(rule)
    conditions: dict[str, Any] = {"Prefix": parts.pop("Prefix", "")}
    if tags := parts.pop("TagFilters", []):
        conditions["Tags"] = list(tags)
    transitions = [*parts.pop("Transitions", []), *filter(None, [parts.pop("Transition", None)])]
    if transitions:
        written["Transitions"] = [
            {
                "StorageClass": transition["StorageClass"],
                **({"Days": int(transition["TransitionInDays"])} if "TransitionInDays" in transition else {}),
                **({"Date": transition["TransitionDate"]} if "TransitionDate" in transition else {}),
            }
            for transition in transitions
        ]
    for name, value in parts.items():
        if name not in _RULE_PLACES:
            raise ValueError(f"bucket {bucket}: {name} of lifecycle rules is not followed on one machine")
        *outer, last = _RULE_PLACES[name]
        place = written.setdefault(outer[0], {}) if outer else written
        place[last] = _number(value)
    written["Filter"] = {"And": conditions} if "Tags" in conditions else conditions
    return written


def _number(value: Any) -> Any:
    """Return a value of a template with text that is a number as that number, and `true` as a truth."""
    if isinstance(value, Mapping):
        return {name: _number(part) for name, part in value.items()}
    text = str(value)
    return int(text) if text.isdecimal() else {"true": True, "false": False}.get(text.lower(), value)


# --- time goes by -----------------------------------------------------------------------------------------


def _put_lifecycle(self: Any, bucket_name: str, rules: list[dict[str, Any]]) -> None:
    # moto would take these and forget them, and more objects would expire than by the rules.
    for rule in rules:
        condition = rule.get("Filter") or {}
        parts = {
            **condition,
            **(condition.get("And") or {}),
            **(rule.get("NoncurrentVersionExpiration") or {}),
        }
        for name in ("ObjectSizeGreaterThan", "ObjectSizeLessThan", "NewerNoncurrentVersions"):
            if name in parts:
                raise S3ClientError("NotImplemented", f"{name} of lifecycle rules is not followed here")
    _moto_put_lifecycle(self, bucket_name, rules)


def _upload_part(self: Any, bucket_name: str, multipart_id: str, *arguments: Any, **named: Any) -> Any:
    # moto fails on a part of an upload that was completed or aborted.
    if multipart_id not in self.get_bucket(bucket_name).multiparts:
        raise NoSuchUpload(multipart_id)
    return _moto_upload_part(self, bucket_name, multipart_id, *arguments, **named)


def _begin_multipart(self: Any, *arguments: Any, **named: Any) -> None:
    _moto_multipart(self, *arguments, **named)
    # moto has 2010 as the beginning of every upload.
    self.initiated = _checks.clock() if _checks else real_time()


@dataclass(frozen=True)
class Version:
    """A version of an object, or a delete marker.

    Attributes:
        key: The object's key.
        version_id: Its version, `null` where the bucket has none.
        created: When it was made.
        size: Its bytes; None for a delete marker.
        storage_class: Where it is.
        superseded: When the version after it was made; None for the current one.
        alone: Whether it is the object's only version.
    """

    key: str
    version_id: str
    created: datetime
    size: int | None
    storage_class: str
    superseded: datetime | None = None
    alone: bool = True


@dataclass(frozen=True)
class Applied:
    """What lifecycle rules did to a bucket: counts of versions and uploads."""

    expired: int = 0
    transitioned: int = 0
    aborted: int = 0


def due(since: datetime, days: float) -> datetime:
    """Say when a rule of so many days takes hold: at the midnight in UTC after them.

    Args:
        since: When the object was made, or became noncurrent.
        days: The rule's days.

    Returns:
        The time; see "Lifecycle rules: based on an object's age" in
        https://docs.aws.amazon.com/AmazonS3/latest/userguide/intro-lifecycle-rules.html.
    """
    day = (since.astimezone(UTC) + timedelta(days=days)).date() + timedelta(days=1)
    return datetime.combine(day, time(), UTC)


def action(version: Version, rules: Iterable[Mapping[str, Any]], now: datetime) -> str | None:
    """Decide what becomes of a version.

    Args:
        version: The version.
        rules: The enabled rules whose filter it passes.
        now: The time.

    Returns:
        `expire`, or the storage class that it has to be in; None if it stays as it is. Where rules differ,
        expiry precedes transitions, and of transitions the one that was due last holds.
    """
    moves: list[tuple[datetime, str]] = []
    for rule in rules:
        if _expires(version, rule, now):
            return "expire"
        moves += _moves(version, rule)
    past = [move for move in moves if move[0] <= now]
    if not past or version.size is None or version.size < LEAST_TRANSITION_BYTES:
        return None
    storage_class = max(past)[1]
    return storage_class if storage_class != version.storage_class else None


def _expires(version: Version, rule: Mapping[str, Any], now: datetime) -> bool:
    expiration = rule.get("Expiration", {})
    if version.superseded is not None:
        days = rule.get("NoncurrentVersionExpiration", {}).get("NoncurrentDays")
        return days is not None and due(version.superseded, days) <= now
    if version.size is None:
        return version.alone and expiration.get("ExpiredObjectDeleteMarker") is True
    when = _when(expiration, version.created)
    return when is not None and when <= now


def _moves(version: Version, rule: Mapping[str, Any]) -> Iterator[tuple[datetime, str]]:
    if version.superseded is None:
        for transition in rule.get("Transitions", []):
            when = _when(transition, version.created)
            if when is not None:
                yield when, transition["StorageClass"]
    else:
        for transition in rule.get("NoncurrentVersionTransitions", []):
            yield due(version.superseded, transition["NoncurrentDays"]), transition["StorageClass"]


def _when(step: Mapping[str, Any], since: datetime) -> datetime | None:
    if "Days" in step:
        return due(since, step["Days"])
    when: datetime | None = step.get("Date")
    return when


def apply_lifecycle(client: Any, now: datetime) -> dict[str, Applied]:
    """Apply the buckets' lifecycle rules of this time to all objects.

    Args:
        client: A boto3 S3 client of this process's moto.
        now: The time, with a time zone.

    Returns:
        What was done, by the bucket's name.
    """
    done = {}
    for bucket in (each["Name"] for each in client.list_buckets()["Buckets"]):
        if s3_backends[ACCOUNT_ID][_PARTITION].get_bucket(bucket).rules:
            rules = client.get_bucket_lifecycle_configuration(Bucket=bucket)["Rules"]
            done[bucket] = _apply_to(client, bucket, [r for r in rules if r["Status"] == "Enabled"], now)
    return done


def _apply_to(client: Any, bucket: str, rules: list[dict[str, Any]], now: datetime) -> Applied:
    backend = s3_backends[ACCOUNT_ID][_PARTITION]
    expired = transitioned = 0
    for version in _versions(client, bucket):
        passing = [rule for rule in rules if _passes(client, bucket, version, rule)]
        what = action(version, passing, now)
        if what is None:
            continue
        if what == "expire":
            # Without a version, a versioned bucket gets a delete marker.
            named = version.superseded is not None or version.size is None
            more = {"VersionId": version.version_id} if named else {}
            client.delete_object(Bucket=bucket, Key=version.key, **more)
            expired += 1
        else:
            version_id = None if version.version_id == "null" else version.version_id
            key = backend.get_object(bucket, version.key, version_id=version_id)
            assert key is not None
            key.set_storage_class(what)
            transitioned += 1
    return Applied(expired, transitioned, _abort_uploads(client, bucket, rules, now))


def _versions(client: Any, bucket: str) -> list[Version]:
    by_key: dict[str, list[Version]] = {}
    for page in client.get_paginator("list_object_versions").paginate(Bucket=bucket):
        for listed in (*page.get("Versions", []), *page.get("DeleteMarkers", [])):
            version = Version(
                key=listed["Key"],
                version_id=listed["VersionId"],
                created=listed["LastModified"],
                size=listed.get("Size"),
                storage_class=listed.get("StorageClass", "STANDARD"),
            )
            versions = by_key.setdefault(version.key, [])
            versions.insert(0 if listed["IsLatest"] else len(versions), version)
    found = []
    for current, *older in by_key.values():
        found.append(replace(current, alone=not older))
        successor = current
        for version in sorted(older, key=lambda each: each.created, reverse=True):
            found.append(replace(version, superseded=successor.created, alone=False))
            successor = version
    return found


def _passes(client: Any, bucket: str, version: Version, rule: Mapping[str, Any]) -> bool:
    condition = rule.get("Filter", {})
    parts = {**condition, **condition.get("And", {})}
    if not version.key.startswith(parts.get("Prefix", rule.get("Prefix", ""))):
        return False
    wanted = [*parts.get("Tags", []), *filter(None, [parts.get("Tag")])]
    if not wanted:
        return True
    if version.size is None:
        return False
    more = {} if version.version_id == "null" else {"VersionId": version.version_id}
    tags = client.get_object_tagging(Bucket=bucket, Key=version.key, **more)["TagSet"]
    return all(tag in tags for tag in wanted)


def _abort_uploads(client: Any, bucket: str, rules: list[dict[str, Any]], now: datetime) -> int:
    aborted = 0
    for upload in list(s3_backends[ACCOUNT_ID][_PARTITION].get_bucket(bucket).multiparts.values()):
        days = min(
            (
                rule["AbortIncompleteMultipartUpload"]["DaysAfterInitiation"]
                for rule in rules
                if "AbortIncompleteMultipartUpload" in rule
                and upload.key_name.startswith(rule.get("Filter", {}).get("Prefix", rule.get("Prefix", "")))
            ),
            default=math.inf,
        )
        began: datetime = upload.initiated  # type: ignore[attr-defined]  # ours, from _begin_multipart
        if days != math.inf and due(began, days) <= now:
            client.abort_multipart_upload(Bucket=bucket, Key=upload.key_name, UploadId=upload.id)
            aborted += 1
    return aborted


def _create_bucket(client: Client, resource: Resource) -> None:
    bucket_client = client("s3")
    bucket_client.create_bucket(Bucket=resource.name)
    configure_bucket(bucket_client, resource.name, resource.properties)


_DOMAINS = {"DomainName": "{name}.s3.amazonaws.com", "RegionalDomainName": "{name}.s3.{region}.amazonaws.com"}
_BUCKET = ResourceType(
    "AWS::S3::Bucket",
    "BucketName",
    arn="s3:::{name}",
    others=_DOMAINS,
    unnamed=lowercase_name,
    create=_create_bucket,
)
SERVICE = Service(
    "s3",
    (_BUCKET, ResourceType("AWS::S3::BucketPolicy")),
    install=lambda host: install(host.keys),
    remove=lambda _: remove(),
    errors={
        Kind.THROTTLE: ("503 Slow Down", "SlowDown"),
        Kind.ERROR: ("500 Internal Server Error", "InternalError"),
        Kind.DENY: ("403 Forbidden", "AccessDenied"),
    },
)
