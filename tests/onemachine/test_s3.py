"""Links that S3 refuses, and lifecycle rules against times worked out by hand."""

from __future__ import annotations

import http.client
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any
from urllib.parse import urlsplit

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from moto.server import ThreadedMotoServer
from onemachine import s3
from onemachine.s3 import (
    LEAST_TRANSITION_BYTES,
    Applied,
    Version,
    action,
    apply_lifecycle,
    configure_bucket,
    due,
    lifecycle_rule,
)
from onemachine.signatures import MAX_EXPIRES_S, Keys

KEYS = Keys({"local": "secret"}, "us-east-1")
_names = (f"bucket-{number}" for number in count())


class Clock:
    """The time, which a test moves."""

    def __init__(self) -> None:
        self.later = timedelta()

    def __call__(self) -> datetime:
        return datetime.now(UTC) + self.later


class Bucket:
    """A bucket of a server of moto's, and links to what is in it."""

    def __init__(self, address: str, clock: Clock) -> None:
        self.address = address
        self.clock = clock
        self.name = next(_names)
        self.client = self.client_of("local", "secret")
        self.client.create_bucket(Bucket=self.name)

    def client_of(self, key: str, secret: str, version: str = "s3v4", region: str = "us-east-1") -> Any:
        return boto3.client(
            "s3",
            endpoint_url=self.address,
            region_name=region,
            aws_access_key_id=key,
            aws_secret_access_key=secret,
            config=Config(signature_version=version),
        )

    def put(self, key: str, size: int = 2) -> None:
        self.client.put_object(Bucket=self.name, Key=key, Body=b"x" * size)

    def link(self, key: str, seconds: int = 60, client: Any = None, **more: str) -> str:
        parameters = {"Bucket": self.name, "Key": key, **more}
        url: str = (client or self.client).generate_presigned_url("get_object", parameters, ExpiresIn=seconds)
        return url

    def get(self, url: str, method: str = "GET") -> tuple[int, str]:
        parts = urlsplit(url)
        connection = http.client.HTTPConnection(parts.netloc)
        connection.request(method, f"{parts.path}?{parts.query}")
        response = connection.getresponse()
        answer = response.status, response.read().decode()
        connection.close()
        return answer

    def listed(self) -> dict[str, str]:
        listed = self.client.list_objects_v2(Bucket=self.name).get("Contents", [])
        return {item["Key"]: item["StorageClass"] for item in listed}


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(address: str) -> Iterator[Bucket]:
    clock = Clock()
    s3.install(KEYS, clock)
    bucket = Bucket(address, clock)
    yield bucket
    s3.remove()
    for key in bucket.listed():
        bucket.client.delete_object(Bucket=bucket.name, Key=key)
    bucket.client.close()


def code_of(body: str) -> tuple[str, str]:
    found = re.search("<Code>(.*)</Code><Message>(.*?)</Message>", body)
    assert found, body
    return found[1], found[2]


@pytest.mark.parametrize("key", ["a.txt", "a b/c+d.zip", "umläut/%41.csv", "a//b", "~tilde'()"])
def test_a_link_that_is_as_it_was_signed_is_answered(bucket: Bucket, key: str) -> None:
    bucket.put(key)
    assert bucket.get(bucket.link(key)) == (200, "xx")
    named = bucket.link(key, ResponseContentDisposition='attachment; filename="x y.zip"')
    assert bucket.get(named) == (200, "xx")


def test_a_link_is_answered_until_it_expires_and_not_after(bucket: Bucket) -> None:
    bucket.put("a")
    url = bucket.link("a", MAX_EXPIRES_S)
    bucket.clock.later = timedelta(seconds=MAX_EXPIRES_S - 60)
    assert bucket.get(url)[0] == 200
    bucket.clock.later = timedelta(seconds=MAX_EXPIRES_S + 2)
    status, body = bucket.get(url)
    assert (status, code_of(body)) == (403, ("AccessDenied", "Request has expired"))
    assert f"<X-Amz-Expires>{MAX_EXPIRES_S}</X-Amz-Expires><Expires>" in body
    assert "<ServerTime>" in body


# https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-query-string-auth.html and
# https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html
TAMPERED = [
    ("another key", "/a?", "/b?", 403, "SignatureDoesNotMatch"),
    ("a longer life", "X-Amz-Expires=60", "X-Amz-Expires=3600", 403, "SignatureDoesNotMatch"),
    ("another signature", "X-Amz-Signature=", "X-Amz-Signature=0", 403, "SignatureDoesNotMatch"),
    ("something more", "X-Amz-Algorithm", "versionId=7&X-Amz-Algorithm", 403, "SignatureDoesNotMatch"),
    ("another account", "Credential=local", "Credential=other", 403, "InvalidAccessKeyId"),
    ("another region", "us-east-1", "eu-west-1", 400, "AuthorizationQueryParametersError"),
    ("another service", "%2Fs3%2F", "%2Fsqs%2F", 400, "AuthorizationQueryParametersError"),
    ("no date", "X-Amz-Date=", "X-Date=", 400, "AuthorizationQueryParametersError"),
    ("no signature", "X-Amz-Signature=", "X-Signature=", 400, "AuthorizationQueryParametersError"),
    ("no number", "X-Amz-Expires=60", "X-Amz-Expires=ever", 400, "AuthorizationQueryParametersError"),
]


@pytest.mark.parametrize(
    ("old", "new", "status", "code"), [case[1:] for case in TAMPERED], ids=[case[0] for case in TAMPERED]
)
def test_a_link_that_was_tampered_with_is_refused(
    bucket: Bucket, old: str, new: str, status: int, code: str
) -> None:
    bucket.put("a")
    bucket.put("b")
    url = bucket.link("a")
    assert old in url
    answered, body = bucket.get(url.replace(old, new, 1))
    assert (answered, code_of(body)[0]) == (status, code)


def test_links_are_refused_for_other_methods_and_secrets_and_times(bucket: Bucket) -> None:
    bucket.put("a")
    assert bucket.get(bucket.link("a"), "DELETE")[0] == 403
    wrong = bucket.client_of("local", "wrong")
    assert code_of(bucket.get(bucket.link("a", client=wrong))[1])[0] == "SignatureDoesNotMatch"
    too_long = bucket.get(bucket.link("a", MAX_EXPIRES_S + 1))
    assert (too_long[0], code_of(too_long[1])[0]) == (400, "AuthorizationQueryParametersError")
    url = bucket.link("a")
    bucket.clock.later = -timedelta(minutes=16)
    assert code_of(bucket.get(url)[1]) == ("AccessDenied", "Request is not valid yet")
    assert bucket.listed() == {"a": "STANDARD"}


def test_signature_version_2_is_refused(bucket: Bucket) -> None:
    bucket.put("a")
    old = bucket.client_of("local", "secret", "s3")
    status, body = bucket.get(bucket.link("a", client=old))
    assert (status, code_of(body)[0]) == (400, "InvalidRequest")


def test_a_link_may_be_for_writing(bucket: Bucket) -> None:
    url = bucket.client.generate_presigned_url("put_object", {"Bucket": bucket.name, "Key": "new"})
    assert bucket.get(url, "PUT")[0] == 200
    assert "new" in bucket.listed()


# --- rules, pure ------------------------------------------------------------------------------------------

MADE = datetime(2026, 1, 15, 10, 30, tzinfo=UTC)

# The first is AWS's own example:
# https://docs.aws.amazon.com/AmazonS3/latest/userguide/intro-lifecycle-rules.html#intro-lifecycle-rules-number-of-days
DUE = [
    (datetime(2014, 1, 15, 10, 30, tzinfo=UTC), 3, datetime(2014, 1, 19, tzinfo=UTC)),
    (MADE, 1, datetime(2026, 1, 17, tzinfo=UTC)),
    (datetime.fromisoformat("2026-01-15T23:30:00-05:00"), 1, datetime(2026, 1, 18, tzinfo=UTC)),
    (MADE, 365, datetime(2027, 1, 16, tzinfo=UTC)),
]


@pytest.mark.parametrize(("since", "days", "expected"), DUE)
def test_days_end_at_the_next_midnight_in_utc(since: datetime, days: int, expected: datetime) -> None:
    assert due(since, days) == expected


RECORDS = {
    "Transitions": [{"Days": 60, "StorageClass": "STANDARD_IA"}, {"Days": 90, "StorageClass": "GLACIER"}],
    "Expiration": {"Days": 365},
}
NONCURRENT = {"NoncurrentVersionExpiration": {"NoncurrentDays": 30}}
LARGE = LEAST_TRANSITION_BYTES


def version(size: int | None = LARGE, storage_class: str = "STANDARD", **more: Any) -> Version:
    return Version("records/a", "1", MADE, size, storage_class, **more)


ACTIONS: list[tuple[str, Version, list[Any], datetime, str | None]] = [
    ("a moment before 60 days", version(), [RECORDS], due(MADE, 60) - timedelta(seconds=1), None),
    ("60 days", version(), [RECORDS], due(MADE, 60), "STANDARD_IA"),
    ("is there already", version(storage_class="STANDARD_IA"), [RECORDS], due(MADE, 61), None),
    ("90 days", version(storage_class="STANDARD_IA"), [RECORDS], due(MADE, 90), "GLACIER"),
    ("a year at once", version(), [RECORDS], due(MADE, 365), "expire"),
    ("below 128 KB nothing moves", version(LARGE - 1), [RECORDS], due(MADE, 90), None),
    ("but it expires", version(1), [RECORDS], due(MADE, 365), "expire"),
    (
        "expiry precedes transitions",
        version(),
        [RECORDS, {"Expiration": {"Days": 1}}],
        due(MADE, 90),
        "expire",
    ),
    ("by date", version(), [{"Expiration": {"Date": MADE}}], MADE, "expire"),
    ("not current", version(superseded=MADE), [RECORDS], due(MADE, 365), None),
    ("not current, and a rule", version(superseded=MADE), [NONCURRENT], due(MADE, 30), "expire"),
    ("a marker with versions", version(None, alone=False), [RECORDS], due(MADE, 365), None),
    (
        "a marker alone",
        version(None),
        [{"Expiration": {"ExpiredObjectDeleteMarker": True}}],
        MADE,
        "expire",
    ),
    ("no rule", version(), [], due(MADE, 9_999), None),
]


@pytest.mark.parametrize(
    ("of", "rules", "now", "expected"), [case[1:] for case in ACTIONS], ids=[case[0] for case in ACTIONS]
)
def test_rules_say_what_becomes_of_a_version(
    of: Version, rules: list[Any], now: datetime, expected: str | None
) -> None:
    assert action(of, rules, now) == expected


def test_a_templates_rule_becomes_that_of_the_api() -> None:
    assert lifecycle_rule(
        "b",
        {
            "Id": "records",
            "Status": "Enabled",
            "Prefix": "records/",
            "TagFilters": [{"Key": "k", "Value": "v"}],
            "Transitions": [{"StorageClass": "GLACIER", "TransitionInDays": "90"}],
            "Transition": {"StorageClass": "STANDARD_IA", "TransitionDate": "2026-01-01"},
            "ExpirationInDays": "365",
            "NoncurrentVersionExpirationInDays": 30,
            "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": "1"},
        },
    ) == {
        "ID": "records",
        "Status": "Enabled",
        "Filter": {"And": {"Prefix": "records/", "Tags": [{"Key": "k", "Value": "v"}]}},
        "Transitions": [
            {"StorageClass": "GLACIER", "Days": 90},
            {"StorageClass": "STANDARD_IA", "Date": "2026-01-01"},
        ],
        "Expiration": {"Days": 365},
        "NoncurrentVersionExpiration": {"NoncurrentDays": 30},
        "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 1},
    }


@pytest.mark.parametrize(
    ("properties", "complaint"),
    [
        ({"ReplicationConfiguration": {}}, "ReplicationConfiguration is not followed"),
        ({"LifecycleConfiguration": {"Rules": [{"ObjectSizeLessThan": 1}]}}, "ObjectSizeLessThan of"),
    ],
)
def test_what_is_not_followed_is_refused_by_name(properties: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        configure_bucket(None, "b", properties)


# --- rules, in a bucket -----------------------------------------------------------------------------------

TEMPLATE = {
    "VersioningConfiguration": {"Status": "Suspended"},
    "PublicAccessBlockConfiguration": {"BlockPublicAcls": "true", "BlockPublicPolicy": True},
    "BucketEncryption": {
        "ServerSideEncryptionConfiguration": [{"ServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}]
    },
    "OwnershipControls": {"Rules": [{"ObjectOwnership": "BucketOwnerEnforced"}]},
    "AccelerateConfiguration": {"AccelerationStatus": "Suspended"},
    "LifecycleConfiguration": {
        "Rules": [
            {"Id": "tmp", "Status": "Enabled", "Prefix": "tmp/", "ExpirationInDays": 1},
            {
                "Id": "records",
                "Status": "Enabled",
                "Prefix": "records/",
                "Transitions": [{"StorageClass": "GLACIER", "TransitionInDays": 90}],
                "ExpirationInDays": 365,
            },
            {"Id": "off", "Status": "Disabled", "Prefix": "kept/", "ExpirationInDays": 1},
            {
                "Id": "uploads",
                "Status": "Enabled",
                "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 1},
            },
        ]
    },
}


def test_a_bucket_has_what_its_template_says(bucket: Bucket) -> None:
    configure_bucket(bucket.client, bucket.name, TEMPLATE)
    client, name = bucket.client, {"Bucket": bucket.name}
    block = client.get_public_access_block(**name)["PublicAccessBlockConfiguration"]
    assert block["BlockPublicAcls"] is True
    (encryption,) = client.get_bucket_encryption(**name)["ServerSideEncryptionConfiguration"]["Rules"]
    assert encryption["ApplyServerSideEncryptionByDefault"] == {"SSEAlgorithm": "AES256"}
    assert client.get_bucket_versioning(**name)["Status"] == "Suspended"
    rules = client.get_bucket_lifecycle_configuration(**name)["Rules"]
    assert [rule["ID"] for rule in rules] == ["tmp", "records", "off", "uploads"]


def test_time_moves_and_removes_objects(bucket: Bucket) -> None:
    configure_bucket(bucket.client, bucket.name, TEMPLATE)
    for key in ("tmp/a", "kept/a", "records/small", "other"):
        bucket.put(key)
    bucket.put("records/large", LARGE)
    bucket.client.create_multipart_upload(Bucket=bucket.name, Key="unfinished")
    now = bucket.clock()

    assert apply_lifecycle(bucket.client, now)[bucket.name] == Applied()
    assert apply_lifecycle(bucket.client, now + timedelta(days=2))[bucket.name] == Applied(1, 0, 1)
    assert apply_lifecycle(bucket.client, now + timedelta(days=91))[bucket.name] == Applied(0, 1, 0)
    assert bucket.listed() == {
        "kept/a": "STANDARD",
        "other": "STANDARD",
        "records/large": "GLACIER",
        "records/small": "STANDARD",
    }
    with pytest.raises(ClientError, match="InvalidObjectState"):
        bucket.client.get_object(Bucket=bucket.name, Key="records/large")
    assert apply_lifecycle(bucket.client, now + timedelta(days=366))[bucket.name] == Applied(2, 0, 0)
    assert sorted(bucket.listed()) == ["kept/a", "other"]


def test_versions_go_after_what_superseded_them(bucket: Bucket) -> None:
    rule = {
        "Status": "Enabled",
        "Prefix": "",
        "NoncurrentVersionExpirationInDays": 30,
        "ExpirationInDays": 60,
    }
    configure_bucket(
        bucket.client,
        bucket.name,
        {"VersioningConfiguration": {"Status": "Enabled"}, "LifecycleConfiguration": {"Rules": [rule]}},
    )
    for _ in range(3):
        bucket.put("a")
    now = bucket.clock()

    def left(days: int) -> tuple[int, int]:
        apply_lifecycle(bucket.client, now + timedelta(days=days))
        listed = bucket.client.list_object_versions(Bucket=bucket.name)
        return len(listed.get("Versions", [])), len(listed.get("DeleteMarkers", []))

    assert left(29) == (3, 0)
    assert left(31) == (1, 0)
    assert left(61) == (1, 1)


def test_tags_choose_objects(bucket: Bucket) -> None:
    rule = {"Status": "Enabled", "TagFilters": [{"Key": "k", "Value": "v"}], "ExpirationInDays": 1}
    configure_bucket(bucket.client, bucket.name, {"LifecycleConfiguration": {"Rules": [rule]}})
    bucket.client.put_object(Bucket=bucket.name, Key="tagged", Tagging="k=v")
    bucket.put("plain")
    apply_lifecycle(bucket.client, bucket.clock() + timedelta(days=2))
    assert list(bucket.listed()) == ["plain"]


@pytest.mark.parametrize(
    "part",
    [
        {"Filter": {"ObjectSizeGreaterThan": 1}, "Expiration": {"Days": 1}},
        {"Filter": {"And": {"Prefix": "a", "ObjectSizeLessThan": 9}}, "Expiration": {"Days": 1}},
        {
            "Filter": {"Prefix": ""},
            "NoncurrentVersionExpiration": {"NoncurrentDays": 1, "NewerNoncurrentVersions": 2},
        },
    ],
)
def test_rules_that_moto_would_forget_are_refused(bucket: Bucket, part: dict[str, Any]) -> None:
    with pytest.raises(ClientError, match="NotImplemented"):
        bucket.client.put_bucket_lifecycle_configuration(
            Bucket=bucket.name, LifecycleConfiguration={"Rules": [{"Status": "Enabled", **part}]}
        )
