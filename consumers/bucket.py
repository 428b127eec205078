"""Adapter: an S3 bucket. Objects of any size pass through as streams."""

from __future__ import annotations

import base64
import io
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple, Protocol

import boto3
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    IncompleteReadError,
    ParamValidationError,
    ReadTimeoutError,
    ResponseStreamingError,
)

from consumers.errors import TaglineError

# Parts of an upload are at least 5 MiB, and at most 10,000: 8 MiB each makes 80 GB.
# https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html
# One at a time: more would each hold a part in memory.
_TRANSFER = TransferConfig(multipart_threshold=8 << 20, multipart_chunksize=8 << 20, use_threads=False)
# botocore's default of 1 KiB costs fifteen times the processor time.
_READ_BYTES = 1 << 20
_ABSENT = ("NoSuchKey", "404")
# Another wrote first, writes at this moment, or has removed what was to be replaced.
_LOST = ("PreconditionFailed", "412", "ConditionalRequestConflict", "409", *_ABSENT)
# A connection that breaks in the middle of an object is taken up where it broke, unless nothing comes.
_READ_TRIES = 3
# https://docs.aws.amazon.com/AmazonS3/latest/userguide/restoring-objects.html
_ARCHIVE = ("GLACIER", "DEEP_ARCHIVE")
_DELETE_KEYS = 1_000  # https://docs.aws.amazon.com/AmazonS3/latest/API/API_DeleteObjects.html


def client_config(*, accelerate: bool = False) -> Config:
    """Return how a client has to sign so that its links work in every region.

    boto3's own choice is SigV2 in the older regions, which newer buckets refuse, and a host without the
    region: https://docs.aws.amazon.com/AmazonS3/latest/userguide/using-presigned-url.html

    Bodies are not signed: TLS and the checksum that goes with each, whose header is signed, keep them whole.
    A SHA-256 over all that is written would be the dearest thing that the worker does.
    """
    return Config(
        signature_version="s3v4",
        s3={
            "addressing_style": "virtual",
            "use_accelerate_endpoint": accelerate,
            "payload_signing_enabled": False,
        },
    )


def consumer_config(connections: int) -> Config:
    """Return how a client waits whose user has an invocation's remaining time, and not boto3's minutes.

    Args:
        connections: Requests at the same time.
    """
    return Config(
        connect_timeout=2,
        read_timeout=5,
        retries={"mode": "standard", "total_max_attempts": 3},
        max_pool_connections=max(10, connections),
    )


class OutdatedBoto3Error(TaglineError, RuntimeError):
    """boto3, which Lambda's runtime brings, is too old to write on condition; the message has its version."""


class UploadGoneError(TaglineError, OSError):
    """An upload in parts was completed or aborted by somebody else."""


class Listed(NamedTuple):
    """A key of a bucket.

    Attributes:
        key: The key.
        etag: What changes with its content.
        modified: When it was written.
        size: Its size in bytes.
        is_archived: Whether it has to be restored before it can be read.
        restored_until: Until when it can be read, if it is archived and was restored.
    """

    key: str
    etag: str
    modified: datetime
    size: int
    is_archived: bool = False
    restored_until: datetime | None = None


@dataclass(frozen=True, slots=True)
class Upload:
    """An upload in parts that has begun.

    Attributes:
        key: Where the object will be.
        id: S3's name of the upload.
    """

    key: str
    id: str


PartOfUpload = Mapping[str, Any]
"""What completes an upload, of each part: its number, and what S3 answered."""


class Objects(Protocol):
    """What the exporter needs of a bucket; the methods are those of `Bucket`."""

    def put(self, key: str, chunks: Iterable[bytes], content_type: str) -> None: ...
    def get(self, key: str) -> bytes | None: ...
    def stream(self, key: str) -> Iterator[bytes]: ...
    def keys(self, prefix: str) -> Iterator[str]: ...
    def listed(self, prefix: str) -> Iterator[Listed]: ...
    def delete(self, keys: Iterable[str]) -> None: ...
    def read(self, key: str) -> tuple[bytes, str] | None: ...
    def replace(self, key: str, body: bytes, tag: str | None) -> bool: ...
    def remove(self, key: str, tag: str) -> bool: ...
    def uri(self, key: str) -> str: ...


class Downloads(Objects, Protocol):
    """What downloads need of it besides."""

    def has(self, key: str) -> bool: ...
    def begin(self, key: str, content_type: str, *, filename: str, metadata: Mapping[str, str]) -> Upload: ...
    def add(self, upload: Upload, number: int, body: bytes | bytearray) -> PartOfUpload: ...
    def complete(self, upload: Upload, parts: Sequence[PartOfUpload]) -> None: ...
    def abort(self, upload: Upload) -> None: ...


class Bucket:
    """An S3 bucket.

    Args:
        client: A boto3 client for S3 with `client_config`.
        name: The bucket's name.
        crc32: Makes the checksums of the parts of uploads, as `zlib.crc32` does; a quicker one saves some of
            the processor's time where much is uploaded.
    """

    def __init__(
        self, client: Any, name: str, crc32: Callable[[bytes | bytearray], int] = zlib.crc32
    ) -> None:
        self._client = client
        self._name = name
        self._crc32 = crc32

    def put(self, key: str, chunks: Iterable[bytes], content_type: str) -> None:
        """Write an object from its chunks: it is there once all of it is, or not at all."""
        self._client.upload_fileobj(
            io.BufferedReader(_Reader(chunks)),
            self._name,
            key,
            ExtraArgs={"ContentType": content_type},
            Config=_TRANSFER,
        )

    def write(self, key: str, body: bytes) -> None:
        """Write a small object in one request.

        Raises:
            OSError: If it is not known to be written.
        """
        try:
            self._client.put_object(Bucket=self._name, Key=key, Body=body)
        except (BotoCoreError, ClientError) as error:
            raise OSError(f"cannot write {self.uri(key)}: {error}") from error

    def get(self, key: str) -> bytes | None:
        """Return a small object, or None if it does not exist."""
        found = self.read(key)
        return None if found is None else found[0]

    def stream(self, key: str) -> Iterator[bytes]:
        """Yield an object in chunks, all of the one version that was there at first."""
        answer = self._client.get_object(Bucket=self._name, Key=key)
        done, tries = 0, _READ_TRIES
        while True:
            try:
                for chunk in answer["Body"].iter_chunks(_READ_BYTES):
                    done, tries = done + len(chunk), _READ_TRIES
                    yield chunk
                return
            except (ReadTimeoutError, ResponseStreamingError, IncompleteReadError):
                tries -= 1
                if not tries:
                    raise
            answer = self._client.get_object(
                Bucket=self._name, Key=key, Range=f"bytes={done}-", IfMatch=answer["ETag"]
            )

    def keys(self, prefix: str) -> Iterator[str]:
        """Yield the keys that begin with a prefix."""
        return (item.key for item in self.listed(prefix))

    def listed(self, prefix: str) -> Iterator[Listed]:
        """Yield the keys that begin with a prefix, with their entries in the listing."""
        pages = self._client.get_paginator("list_objects_v2").paginate(
            Bucket=self._name, Prefix=prefix, OptionalObjectAttributes=["RestoreStatus"]
        )
        for page in pages:
            for item in page.get("Contents", []):
                restored_until = _restored_until(item)
                yield Listed(
                    item["Key"],
                    item["ETag"].strip('"'),
                    item["LastModified"],
                    item["Size"],
                    item.get("StorageClass") in _ARCHIVE and restored_until is None,
                    restored_until,
                )

    def has(self, key: str) -> bool:
        """Return whether there is an object, without reading it."""
        try:
            self._client.head_object(Bucket=self._name, Key=key)
        except ClientError as error:
            if error.response["Error"]["Code"] == "404":
                return False
            raise
        return True

    def begin(self, key: str, content_type: str, *, filename: str, metadata: Mapping[str, str]) -> Upload:
        """Begin an upload in parts.

        Args:
            key: Where the object will be, once it is complete.
            content_type: Its media type.
            filename: What a browser calls it, also if the link does not name it.
            metadata: At most 2 KB of ASCII:
                https://docs.aws.amazon.com/AmazonS3/latest/userguide/UsingMetadata.html
        """
        begun = self._client.create_multipart_upload(
            Bucket=self._name,
            Key=key,
            ContentType=content_type,
            ContentDisposition=content_disposition(filename),
            Metadata=dict(metadata),
            ChecksumAlgorithm="CRC32",
        )
        return Upload(key, begun["UploadId"])

    def add(self, upload: Upload, number: int, body: bytes | bytearray) -> PartOfUpload:
        """Upload a part. The same number again replaces it.

        Raises:
            UploadGoneError: If the upload was completed or aborted.
        """
        # Given here, the checksum costs no second pass, and no copy of the part on its way.
        checksum = base64.b64encode(self._crc32(body).to_bytes(4, "big")).decode()
        with _upload_there(upload):
            answer = self._client.upload_part(
                Bucket=self._name,
                Key=upload.key,
                UploadId=upload.id,
                PartNumber=number,
                Body=body,
                ChecksumCRC32=checksum,
            )
        return {"PartNumber": number, "ETag": answer["ETag"], "ChecksumCRC32": checksum}

    def complete(self, upload: Upload, parts: Sequence[PartOfUpload]) -> None:
        """Make the object of its parts.

        Raises:
            UploadGoneError: If the upload was completed or aborted.
        """
        with _upload_there(upload):
            self._client.complete_multipart_upload(
                Bucket=self._name,
                Key=upload.key,
                UploadId=upload.id,
                MultipartUpload={"Parts": list(parts)},
            )

    def abort(self, upload: Upload) -> None:
        """Give an upload up, and what was paid for its parts. One that is gone is not an error."""
        try:
            self._client.abort_multipart_upload(Bucket=self._name, Key=upload.key, UploadId=upload.id)
        except ClientError as error:
            if error.response["Error"]["Code"] != "NoSuchUpload":
                raise

    def read(self, key: str) -> tuple[bytes, str] | None:
        """Return a small object and the tag of its content, or None if it does not exist."""
        try:
            answer = self._client.get_object(Bucket=self._name, Key=key)
        except ClientError as error:
            if error.response["Error"]["Code"] in _ABSENT:
                return None
            raise
        return answer["Body"].read(), answer["ETag"]

    def replace(self, key: str, body: bytes, tag: str | None) -> bool:
        """Write a small object unless another was quicker, and tell whether it was written.

        It is JSON, or HTML if its key ends so.

        Args:
            key: The object's key.
            body: What it holds from now on.
            tag: What `read` returned for what it held; None if there was none.

        https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes.html
        """
        condition = {"IfNoneMatch": "*"} if tag is None else {"IfMatch": tag}
        content_type = "text/html; charset=utf-8" if key.endswith(".html") else "application/json"
        with _conditions_known():
            try:
                self._client.put_object(
                    Bucket=self._name, Key=key, Body=body, ContentType=content_type, **condition
                )
            except ClientError as error:
                if error.response["Error"]["Code"] in _LOST:
                    return False
                raise
        return True

    def remove(self, key: str, tag: str) -> bool:
        """Remove an object unless it has changed, and return whether it was removed.

        Args:
            key: The object's key.
            tag: The tag that `read` returned.

        https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-deletes.html
        """
        with _conditions_known():
            try:
                self._client.delete_object(Bucket=self._name, Key=key, IfMatch=tag)
            except ClientError as error:
                if error.response["Error"]["Code"] in _LOST:
                    return False
                raise
        return True

    def move(self, key: str, to: str, tag: str) -> bool:
        """Move an object to another key, unless it has changed, and return whether it was moved.

        Args:
            key: The object's key.
            to: Its new key. If it changes during the move, the copy there stays.
            tag: The tag that `read` returned.

        https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-deletes.html
        """
        source = {"Bucket": self._name, "Key": key}
        try:
            self._client.copy_object(Bucket=self._name, Key=to, CopySource=source, CopySourceIfMatch=tag)
            self._client.delete_object(Bucket=self._name, Key=key, IfMatch=tag)
        except ClientError as error:
            if error.response["Error"]["Code"] in _LOST:
                return False
            raise
        return True

    def uri(self, key: str) -> str:
        """Return how other services name an object."""
        return f"s3://{self._name}/{key}"

    def delete(self, keys: Iterable[str]) -> None:
        """Delete objects; none for no keys.

        Raises:
            OSError: If one is still there: S3 reports that in an answer that is not an error.
        """
        rest = list(keys)
        while rest:
            batch, rest = rest[:_DELETE_KEYS], rest[_DELETE_KEYS:]
            answer = self._client.delete_objects(
                Bucket=self._name, Delete={"Objects": [{"Key": key} for key in batch], "Quiet": True}
            )
            for error in answer.get("Errors", []):
                raise OSError(f"{error['Key']} was not removed: {error['Code']}")


def _restored_until(item: Mapping[str, Any]) -> datetime | None:
    status = item.get("RestoreStatus", {})
    expiry: datetime | None = status.get("RestoreExpiryDate")
    return None if status.get("IsRestoreInProgress") else expiry


@contextmanager
def _conditions_known() -> Iterator[None]:
    """Name the cause if boto3 lacks a condition's parameter."""
    try:
        yield
    except ParamValidationError as error:
        raise OutdatedBoto3Error(
            f"boto3 {boto3.__version__} cannot write to S3 on condition: ship a newer one with the function,"
            f" or update its runtime ({str(error).splitlines()[-1].partition(', must be')[0]})"
        ) from None


@contextmanager
def _upload_there(upload: Upload) -> Iterator[None]:
    try:
        yield
    except ClientError as error:
        if error.response["Error"]["Code"] == "NoSuchUpload":
            raise UploadGoneError(f"the upload of {upload.key} was completed or aborted") from error
        raise


def content_disposition(filename: str) -> str:
    """Return the header that makes a browser save an object under a name."""
    return f'attachment; filename="{filename}"'


class _Reader(io.RawIOBase):
    """Chunks as a file to read from."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        super().__init__()
        self._chunks = iter(chunks)
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        while not self._rest:
            chunk = next(self._chunks, None)
            if chunk is None:
                return 0
            self._rest = memoryview(chunk)
        size = min(len(buffer), len(self._rest))
        buffer[:size] = self._rest[:size]
        self._rest = self._rest[size:]
        return size
