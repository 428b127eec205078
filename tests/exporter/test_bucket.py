"""The adapter to S3, against moto's."""

import io
from collections.abc import Iterator
from urllib.parse import parse_qs, urlsplit

import boto3
import pytest
from moto import mock_aws

from exporter.bucket import Bucket, client_config


@pytest.fixture
def bucket() -> Iterator[Bucket]:
    with mock_aws():
        client = boto3.client("s3", config=client_config())
        client.create_bucket(Bucket="lake")
        yield Bucket(client, "lake")


@pytest.mark.parametrize("size", [0, 1, 8 << 20, (8 << 20) + 1, 20 << 20])
def test_objects_of_any_size_are_written_and_read_as_streams(bucket: Bucket, size: int) -> None:
    body = (b"0123456789abcdef" * (size // 16 + 1))[:size]

    bucket.put("k", (body[start : start + 99_999] for start in range(0, size, 99_999)), "text/plain")

    assert b"".join(bucket.stream("k")) == body


def test_an_upload_that_fails_leaves_nothing(bucket: Bucket) -> None:
    def breaking() -> Iterator[bytes]:
        yield b"x" * (17 << 20)
        raise ValueError("the gzip ends early")

    with pytest.raises(ValueError, match="the gzip ends early"):
        bucket.put("k", breaking(), "text/plain")

    assert bucket.get("k") is None
    client = boto3.client("s3")
    assert "Uploads" not in client.list_multipart_uploads(Bucket="lake")


def test_what_is_not_there_is_none(bucket: Bucket) -> None:
    assert bucket.get("nothing") is None


def test_all_keys_of_a_prefix_are_listed_and_deleted(bucket: Bucket) -> None:
    for number in range(1_003):
        bucket.put(f"a/{number:04}", [b""], "text/plain")
    bucket.put("b/kept", [b""], "text/plain")

    assert len(list(bucket.keys("a/"))) == 1_003
    bucket.delete(bucket.keys("a/"))

    assert list(bucket.keys("")) == ["b/kept"]
    bucket.delete([])


def test_a_link_is_signed_with_version_4_for_the_regions_own_host_and_names_the_file() -> None:
    client = boto3.client("s3", region_name="eu-west-1", config=client_config())

    link = urlsplit(Bucket(client, "lake").link("tmp/x.zip", seconds=600, filename="usage.zip"))

    assert link.hostname == "lake.s3.eu-west-1.amazonaws.com"
    query = parse_qs(link.query)
    assert query["X-Amz-Algorithm"] == ["AWS4-HMAC-SHA256"]
    assert query["X-Amz-Expires"] == ["600"]
    assert query["response-content-disposition"] == ['attachment; filename="usage.zip"']


def test_an_accelerated_link_names_the_accelerating_host() -> None:
    client = boto3.client("s3", config=client_config(accelerate=True))

    link = Bucket(client, "lake").link("k", seconds=60, filename="f")

    assert urlsplit(link).hostname == "lake.s3-accelerate.amazonaws.com"


def test_the_content_type_is_kept(bucket: Bucket) -> None:
    bucket.put("k", iter([b"x"]), "application/zip")

    head = boto3.client("s3").head_object(Bucket="lake", Key="k")
    assert head["ContentType"] == "application/zip"
    assert io.BytesIO(bucket.get("k") or b"").read() == b"x"


def test_an_object_is_replaced_only_by_who_has_seen_what_it_holds(bucket: Bucket) -> None:
    # https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes.html
    assert bucket.read("lock") is None
    assert bucket.replace("lock", b"1", None)
    assert not bucket.replace("lock", b"2", None)
    found = bucket.read("lock")
    assert found is not None
    assert found[0] == b"1"

    assert bucket.replace("lock", b"3", found[1])
    assert not bucket.replace("lock", b"4", found[1])
    assert bucket.get("lock") == b"3"
    bucket.delete(["lock"])
    assert not bucket.replace("lock", b"5", found[1])


def test_other_services_know_an_object_by_its_uri(bucket: Bucket) -> None:
    assert bucket.uri("records/x") == "s3://lake/records/x"
