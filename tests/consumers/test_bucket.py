"""The adapter to S3, against moto's."""

import io
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError, ResponseStreamingError
from botocore.stub import Stubber
from moto import mock_aws

from consumers.bucket import Bucket, Listed, OutdatedBoto3Error, Upload, UploadGoneError, client_config
from tests.twins import client_error


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


@pytest.mark.parametrize(("operation", "call"), [("PutObject", "replace"), ("DeleteObject", "remove")])
def test_a_boto3_that_knows_no_conditions_is_named(operation: str, call: str) -> None:
    with mock_aws():
        client = boto3.client("s3", config=client_config())
        client.create_bucket(Bucket="lake")
        del client.meta.service_model.operation_model(operation).input_shape.members["IfMatch"]
        arguments = ("k", b"{}", '"tag"') if call == "replace" else ("k", '"tag"')

        with pytest.raises(OutdatedBoto3Error, match=rf"boto3 {boto3.__version__} cannot .*IfMatch"):
            getattr(Bucket(client, "lake"), call)(*arguments)


def test_all_keys_of_a_prefix_are_listed(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOTO_S3_DEFAULT_MAX_KEYS", "3")
    for number in range(10):
        bucket.put(f"a/{number}", [b""], "text/plain")
    bucket.put("b/not", [b""], "text/plain")

    assert list(bucket.keys("a/")) == [f"a/{number}" for number in range(10)]


@pytest.mark.parametrize(
    ("storage_class", "status", "is_archived"),
    [
        ("STANDARD", None, False),
        ("STANDARD_IA", None, False),
        ("GLACIER_IR", None, False),
        ("GLACIER", None, True),
        ("DEEP_ARCHIVE", None, True),
        ("GLACIER", {"IsRestoreInProgress": True}, True),
        (
            "GLACIER",
            {"IsRestoreInProgress": False, "RestoreExpiryDate": datetime(2026, 1, 1, tzinfo=UTC)},
            False,
        ),
    ],
)
def test_a_listing_says_what_has_to_be_restored_first(
    storage_class: str, status: dict[str, Any] | None, is_archived: bool
) -> None:
    """https://docs.aws.amazon.com/AmazonS3/latest/API/API_ListObjectsV2.html; moto lists no restores."""
    client = boto3.client("s3", config=client_config())
    item = {
        "Key": "k",
        "ETag": '"e"',
        "LastModified": datetime(2025, 1, 1, tzinfo=UTC),
        "Size": 7,
        "StorageClass": storage_class,
        **({"RestoreStatus": status} if status else {}),
    }
    with Stubber(client) as stubbed:
        stubbed.add_response(
            "list_objects_v2",
            {"IsTruncated": False, "Contents": [item]},
            {"Bucket": "lake", "Prefix": "k", "OptionalObjectAttributes": ["RestoreStatus"]},
        )
        (found,) = Bucket(client, "lake").listed("k")

    assert (found.size, found.is_archived) == (7, is_archived)


def test_more_keys_are_deleted_than_one_request_takes(bucket: Bucket) -> None:
    # What is not there is deleted too: https://docs.aws.amazon.com/AmazonS3/latest/API/API_DeleteObjects.html
    for key in ("a/0000", "a/0999", "a/1000", "a/1002", "b/kept"):
        bucket.put(key, [b""], "text/plain")

    bucket.delete(f"a/{number:04}" for number in range(1_003))
    bucket.delete([])

    assert list(bucket.keys("")) == ["b/kept"]


def test_an_object_is_made_of_parts_and_says_what_it_is(bucket: Bucket) -> None:
    parts = [b"a" * (5 << 20), b"b" * (5 << 20), b"c"]
    upload = bucket.begin("tmp/x.zip", "application/zip", filename="usage.zip", metadata={"days": "3"})
    assert not bucket.has("tmp/x.zip")

    made = [bucket.add(upload, number, part) for number, part in enumerate(parts, 1)]
    made[1] = bucket.add(upload, 2, parts[1])
    bucket.complete(upload, made)

    assert bucket.has("tmp/x.zip")
    assert bucket.get("tmp/x.zip") == b"".join(parts)
    head = boto3.client("s3").head_object(Bucket="lake", Key="tmp/x.zip")
    assert head["ContentDisposition"] == 'attachment; filename="usage.zip"'
    assert (head["ContentType"], head["Metadata"]) == ("application/zip", {"days": "3"})


def test_an_upload_that_is_given_up_leaves_nothing_and_may_be_given_up_again(bucket: Bucket) -> None:
    upload = bucket.begin("k", "application/zip", filename="f.zip", metadata={})
    bucket.add(upload, 1, b"x")

    bucket.abort(upload)
    bucket.abort(upload)

    assert "Uploads" not in boto3.client("s3").list_multipart_uploads(Bucket="lake")


def test_no_request_deletes_more_keys_than_s3_takes() -> None:
    """https://docs.aws.amazon.com/AmazonS3/latest/API/API_DeleteObjects.html: up to 1,000."""
    numbers: list[int] = []

    class Counting:
        def delete_objects(self, **request: Any) -> dict[str, Any]:
            numbers.append(len(request["Delete"]["Objects"]))
            return {}

    Bucket(Counting(), "lake").delete(map(str, range(2_001)))

    assert numbers == [1_000, 1_000, 1]


def test_what_s3_has_not_removed_is_an_error() -> None:
    # https://docs.aws.amazon.com/AmazonS3/latest/API/API_DeleteObjects.html: the answer is 200 all the same.
    class Keeping:
        def delete_objects(self, **_request: Any) -> dict[str, Any]:
            return {"Errors": [{"Key": "b", "Code": "AccessDenied", "Message": "Access Denied"}]}

    with pytest.raises(OSError, match="b was not removed: AccessDenied"):
        Bucket(Keeping(), "lake").delete(["a", "b"])


class Refusing:
    """A client that refuses every call with a service's error."""

    def __init__(self, code: str) -> None:
        self.code = code

    def __getattr__(self, name: str) -> Any:
        def refuse(**_request: Any) -> None:
            raise client_error(self.code, 404)

        return refuse


def test_an_upload_that_is_gone_is_told_from_what_else_may_fail() -> None:
    # https://docs.aws.amazon.com/AmazonS3/latest/API/API_UploadPart.html: NoSuchUpload
    gone, slow = Bucket(Refusing("NoSuchUpload"), "lake"), Bucket(Refusing("SlowDown"), "lake")
    upload = Upload("k", "id")

    def add(bucket: Bucket) -> None:
        bucket.add(upload, 1, b"x")

    def complete(bucket: Bucket) -> None:
        bucket.complete(upload, [])

    for call in (add, complete):
        with pytest.raises(UploadGoneError, match="the upload of k was completed or aborted"):
            call(gone)
        with pytest.raises(ClientError, match="SlowDown"):
            call(slow)
    gone.abort(upload)


def test_what_is_listed_changes_with_its_content(bucket: Bucket) -> None:
    def listed() -> list[tuple[str, str]]:
        bucket.put("a/k", [b"1"], "text/plain")
        first = contents(bucket.listed("a/"))
        bucket.put("a/k", [b"2"], "text/plain")
        return [*first, *contents(bucket.listed("a/"))]

    def contents(found: Iterator[Listed]) -> list[tuple[str, str]]:
        return [(each.key, each.etag) for each in found]

    before, after = listed()
    assert (before[0], after[0]) == ("a/k", "a/k")
    assert before[1] != after[1]
    assert listed() == [before, after]


class Breaking:
    """A client of one object, whose connection breaks after so many bytes; each time, or once."""

    def __init__(self, body: bytes, breaks: list[int]) -> None:
        self.body, self.breaks, self.asked = body, breaks, list[dict[str, Any]]()

    def get_object(self, **request: Any) -> dict[str, Any]:
        self.asked.append(request)
        begin = int(request.get("Range", "bytes=0-")[6:-1])
        until = self.breaks.pop(0) if self.breaks else None
        return {"ETag": "e", "Body": Body(self.body[begin:], until)}


class Body:
    def __init__(self, body: bytes, until: int | None) -> None:
        self.body, self.until = body, until

    def iter_chunks(self, _size: int) -> Iterator[bytes]:
        for start in range(0, len(self.body[: self.until]), 10):
            yield self.body[start : min(start + 10, self.until or len(self.body))]
        if self.until is not None:
            raise ResponseStreamingError(error="the connection broke")


def test_an_object_whose_connection_breaks_is_read_on_from_there_and_of_the_same_version() -> None:
    body = bytes(range(200))
    client = Breaking(body, [25, 0, 40])

    assert b"".join(Bucket(client, "lake").stream("k")) == body

    assert [request.get("Range") for request in client.asked] == [None, "bytes=25-", "bytes=25-", "bytes=65-"]
    assert {request.get("IfMatch") for request in client.asked[1:]} == {"e"}


def test_an_object_of_which_nothing_comes_is_an_error() -> None:
    with pytest.raises(ResponseStreamingError):
        list(Bucket(Breaking(b"x" * 99, [50, 0, 0, 0, 0]), "lake").stream("k"))


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


def test_an_object_is_removed_only_by_who_has_seen_what_it_holds(bucket: Bucket) -> None:
    assert bucket.replace("lock", b"1", None)
    found = bucket.read("lock")
    assert found
    assert bucket.replace("lock", b"2", found[1])

    assert not bucket.remove("lock", found[1])
    assert bucket.get("lock") == b"2"
    found = bucket.read("lock")
    assert found
    assert bucket.remove("lock", found[1])
    assert bucket.get("lock") is None
    assert not bucket.remove("lock", found[1])


def test_an_object_is_moved_only_by_who_has_seen_what_it_holds(bucket: Bucket) -> None:
    bucket.write("here", b"1")
    found = bucket.read("here")
    assert found
    bucket.write("here", b"2")

    assert not bucket.move("here", "there", found[1])
    assert bucket.get("here") == b"2"
    found = bucket.read("here")
    assert found
    assert bucket.move("here", "there", found[1])
    assert (bucket.get("here"), bucket.get("there")) == (None, b"2")
    assert not bucket.move("here", "there", found[1])


def test_other_services_know_an_object_by_its_uri(bucket: Bucket) -> None:
    assert bucket.uri("records/x") == "s3://lake/records/x"
