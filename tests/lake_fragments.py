"""The other side of the lake store: a client for S3 in memory, and what readers see of its fragments."""

import io
import json
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import pyarrow.parquet as pq
from botocore.exceptions import ClientError, ReadTimeoutError

from consumers.rows.lake import fragments
from consumers.rows.lake.fragments import DIGEST, FIELDS, IDENTITY, VERSION
from tests.twins import client_error

TIMED_OUT = ReadTimeoutError(endpoint_url="https://bucket.s3")


class S3Write:
    """A client for S3 that takes fragments.

    Args:
        before: Called with a key before it is written, and may raise what the service answers instead.
        after: Called when it is written, and may raise what happens to the answer.

    Attributes:
        objects: What is stored.
    """

    def __init__(
        self,
        before: Callable[[str], None] = lambda _: None,
        after: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.objects: dict[str, bytes] = {}
        self._before = before
        self._after = after
        self._lock = threading.Lock()

    def put_object(self, *, Bucket: str, Key: str, Body: bytes, ContentType: str) -> dict[str, Any]:  # noqa: N803
        assert (Bucket, ContentType) == ("lake", "application/vnd.apache.parquet")
        with self._lock:
            self._before(Key)
            fragment = fragments.parse_fragment(Key)
            assert fragment.rows == pq.read_metadata(io.BytesIO(Body)).num_rows
            known = self.objects.setdefault(Key, Body)
            assert known == Body, "a fragment is overwritten with another content"
            self._after(Key)
        return {"ETag": '"etag"'}

    def rows(self) -> list[dict[str, Any]]:
        """Return the rows that readers see."""
        return visible(self.objects)

    def ids(self) -> list[str]:
        """Return the identities of all rows, sorted, one for each row."""
        return sorted(row["_id"] for row in self.rows())


def visible(objects: Mapping[str, bytes]) -> list[dict[str, Any]]:
    """Return the rows that readers see of fragments, each with the values of `fields` among its own."""
    rows = [row for key, body in objects.items() for row in read_fragment(key, body)]
    highest: dict[tuple[Any, ...], int] = {}
    for row in rows:
        identity = tuple(row[name] for name in IDENTITY)
        highest[identity] = max(highest.get(identity, 0), row[VERSION])
    found = {
        (*identity, row[DIGEST]): row
        for row in rows
        if highest[identity := tuple(row[name] for name in IDENTITY)] == row[VERSION]
    }
    return sorted(found.values(), key=str)


def read_fragment(key: str, body: bytes) -> Iterable[dict[str, Any]]:
    """Return a fragment's rows: the values that are there, by column."""
    fragment = fragments.parse_fragment(key)
    table = pq.read_table(io.BytesIO(body))
    for row in table.to_pylist():
        assert fragment.first <= row["time"].timestamp() < fragment.last + 1
        others = json.loads(row.pop(FIELDS, None) or "{}")
        assert not others.keys() & row.keys()
        # Of a fragment's columns only those of the identity are looked for when they have no value.
        yield {name: value for name, value in row.items() if value is not None or name in IDENTITY} | others


def slow_down() -> ClientError:
    """Return what S3 answers when it is asked too often."""
    return client_error("SlowDown", 503)
