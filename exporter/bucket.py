"""Adapter: an S3 bucket. Objects of any size pass through as streams."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from typing import Any, Protocol

from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import ClientError

# Parts of an upload are at least 5 MiB, and at most 10,000: 8 MiB each makes 80 GB.
# https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html
# One at a time: more would each hold a part in memory.
_TRANSFER = TransferConfig(multipart_threshold=8 << 20, multipart_chunksize=8 << 20, use_threads=False)
# botocore's default of 1 KiB costs fifteen times the processor time.
_READ_BYTES = 1 << 20
_ABSENT = ("NoSuchKey", "404")
# Another wrote first, writes at this moment, or has removed what was to be replaced.
_LOST = ("PreconditionFailed", "412", "ConditionalRequestConflict", "409", *_ABSENT)
_DELETE_KEYS = 1_000  # https://docs.aws.amazon.com/AmazonS3/latest/API/API_DeleteObjects.html


def client_config(*, accelerate: bool = False) -> Config:
    """Return how a client has to sign so that its links work in every region.

    boto3's own choice is SigV2 in the older regions, which newer buckets refuse, and a host without the
    region: https://docs.aws.amazon.com/AmazonS3/latest/userguide/using-presigned-url.html
    """
    return Config(
        signature_version="s3v4",
        s3={"addressing_style": "virtual", "use_accelerate_endpoint": accelerate},
    )


class Objects(Protocol):
    """What the exporter needs of a bucket; the methods are those of `Bucket`."""

    def put(self, key: str, chunks: Iterable[bytes], content_type: str) -> None: ...
    def get(self, key: str) -> bytes | None: ...
    def stream(self, key: str) -> Iterator[bytes]: ...
    def keys(self, prefix: str) -> Iterator[str]: ...
    def delete(self, keys: Iterable[str]) -> None: ...
    def link(self, key: str, *, seconds: int, filename: str) -> str: ...
    def read(self, key: str) -> tuple[bytes, str] | None: ...
    def replace(self, key: str, body: bytes, tag: str | None) -> bool: ...
    def uri(self, key: str) -> str: ...


class Bucket:
    """An S3 bucket.

    Args:
        client: A boto3 client for S3 with `client_config`.
        name: The bucket's name.
    """

    def __init__(self, client: Any, name: str) -> None:
        self._client = client
        self._name = name

    def put(self, key: str, chunks: Iterable[bytes], content_type: str) -> None:
        """Write an object from its chunks: it is there once all of it is, or not at all."""
        self._client.upload_fileobj(
            io.BufferedReader(_Reader(chunks)),
            self._name,
            key,
            ExtraArgs={"ContentType": content_type},
            Config=_TRANSFER,
        )

    def get(self, key: str) -> bytes | None:
        """Return a small object, or None if there is none."""
        try:
            body: bytes = self._client.get_object(Bucket=self._name, Key=key)["Body"].read()
        except ClientError as error:
            if error.response["Error"]["Code"] in ("NoSuchKey", "404"):
                return None
            raise
        return body

    def stream(self, key: str) -> Iterator[bytes]:
        """Yield an object in chunks."""
        body = self._client.get_object(Bucket=self._name, Key=key)["Body"]
        yield from body.iter_chunks(_READ_BYTES)

    def keys(self, prefix: str) -> Iterator[str]:
        """Yield the keys that begin with a prefix."""
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._name, Prefix=prefix)
        for page in pages:
            for item in page.get("Contents", []):
                yield item["Key"]

    def delete(self, keys: Iterable[str]) -> None:
        """Delete objects; none for no keys."""
        rest = list(keys)
        while rest:
            batch, rest = rest[:_DELETE_KEYS], rest[_DELETE_KEYS:]
            self._client.delete_objects(
                Bucket=self._name, Delete={"Objects": [{"Key": key} for key in batch], "Quiet": True}
            )

    def link(self, key: str, *, seconds: int, filename: str) -> str:
        """Return a presigned link to an object, which need not exist yet.

        Args:
            key: The object's key.
            seconds: How long the link is good for, unless the signer's credentials end before.
            filename: What a browser calls the file.
        """
        link: str = self._client.generate_presigned_url(
            "get_object",
            Params={
                "Bucket": self._name,
                "Key": key,
                "ResponseContentDisposition": f'attachment; filename="{filename}"',
            },
            ExpiresIn=seconds,
        )
        return link

    def read(self, key: str) -> tuple[bytes, str] | None:
        """Return a small object and the tag of what it holds now, or None if there is none."""
        try:
            answer = self._client.get_object(Bucket=self._name, Key=key)
        except ClientError as error:
            if error.response["Error"]["Code"] in _ABSENT:
                return None
            raise
        return answer["Body"].read(), answer["ETag"]

    def replace(self, key: str, body: bytes, tag: str | None) -> bool:
        """Write a small object of JSON unless another was quicker, and tell whether it was written.

        Args:
            key: The object's key.
            body: What it holds from now on.
            tag: What `read` said of what it held; None if there was none.

        https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes.html
        """
        condition = {"IfNoneMatch": "*"} if tag is None else {"IfMatch": tag}
        try:
            self._client.put_object(
                Bucket=self._name, Key=key, Body=body, ContentType="application/json", **condition
            )
        except ClientError as error:
            if error.response["Error"]["Code"] in _LOST:
                return False
            raise
        return True

    def uri(self, key: str) -> str:
        """Return how other services name an object."""
        return f"s3://{self._name}/{key}"


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
