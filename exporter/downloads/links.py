"""Presigned links to objects of the bucket, with the times when they end."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from consumers.bucket import content_disposition


@dataclass(frozen=True, slots=True)
class Link:
    """A presigned link.

    Attributes:
        url: The link.
        expires_at: When it ends, with a time zone.
    """

    url: str
    expires_at: datetime


class Signer:
    """Makes links to a bucket's objects, and knows when each ends.

    A link ends with the credentials that signed it, and a function cannot find out when its own end. A role
    that it assumes has the time: https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRole.html

    Args:
        assume: Gives new credentials, as STS's AssumeRole answers them.
        client: Gives a client for S3 that signs with such credentials.
        bucket: The bucket's name.
        now: Gives the time.
    """

    def __init__(
        self,
        assume: Callable[[], Mapping[str, Any]],
        client: Callable[[Mapping[str, Any]], Any],
        bucket: str,
        now: Callable[[], datetime],
    ) -> None:
        self._assume = assume
        self._client_of = client
        self._bucket = bucket
        self._now = now
        self._client: Any = None
        self._until = datetime.min.replace(tzinfo=UTC)

    def link(self, key: str, *, seconds: int, filename: str | None) -> Link:
        """Return a link to an object, which need not exist yet.

        Args:
            key: The object's key.
            seconds: How long the link is to be good. It ends earlier where the credentials do, but is good
                for at least half of that time if credentials can be.
            filename: What a browser calls the file when it saves it; None if a browser is to show it.
        """
        if self._until - self._now() < timedelta(seconds=seconds / 2):
            credentials = self._assume()
            self._client, self._until = self._client_of(credentials), credentials["Expiration"]
        now = self._now()
        left = min(seconds, int((self._until - now).total_seconds()))
        params = {"Bucket": self._bucket, "Key": key}
        if filename is not None:
            params["ResponseContentDisposition"] = content_disposition(filename)
        url: str = self._client.generate_presigned_url("get_object", Params=params, ExpiresIn=left)
        return Link(url, now + timedelta(seconds=left))
