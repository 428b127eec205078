"""Posts to an HTTP API with a key, within the time that the invocation has left."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

import urllib3
from botocore.exceptions import BotoCoreError, ClientError

from consumers import service_errors
from consumers.deadlines import RESERVE, TransientError
from consumers.meters.meter import Entry
from consumers.outcomes import Carried, Carrier

# How long one request may take, in seconds.
CONNECT_TIMEOUT, READ_TIMEOUT = 5.0, 20.0
# The key is at fault, and not a record.
KEY_STATUSES: Final = frozenset([HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN])
# A post is refused as a whole where one record may be meant.
JUDGING_STATUSES: Final = frozenset(
    [HTTPStatus.BAD_REQUEST, HTTPStatus.REQUEST_ENTITY_TOO_LARGE, HTTPStatus.UNPROCESSABLE_ENTITY]
)


@dataclass(frozen=True, slots=True)
class Posted:
    """What was answered to a post.

    Attributes:
        status: The HTTP status.
        body: The answer's body.
        detail: Status and first words, for a person.
    """

    status: int
    body: bytes
    detail: str


class Sender:
    """Posts with a key in a header.

    Args:
        url: Where to post to.
        name: What messages call the API.
        header: The header that has the key.
        content_type: The content type of what is posted.
        read_key: Gives the key; it is asked again when the API no longer takes the one that it gave.
    """

    def __init__(
        self, url: str, *, name: str, header: str, content_type: str, read_key: Callable[[], str]
    ) -> None:
        self._url = url
        self._name = name
        self._header = header
        self._content_type = content_type
        self._read_key = read_key
        self._key = ""
        # Nothing is followed: the key is for this address alone.
        self._http = urllib3.PoolManager(maxsize=16, retries=False)

    def post(self, body: bytes, remaining: Callable[[], float]) -> Posted:
        """Post once, and return the answer; its status is not transient.

        Args:
            body: What is posted.
            remaining: Gives the seconds that are left.

        Raises:
            TransientError: The API did not answer, or may answer otherwise later; or the key has changed.
        """
        key = self._key or self._renewed_key()
        left = max(0.1, remaining() - RESERVE)
        try:
            answer = self._http.request(
                "POST",
                self._url,
                body=body,
                headers={"Content-Type": self._content_type, self._header: key},
                redirect=False,
                timeout=urllib3.Timeout(
                    total=left, connect=min(CONNECT_TIMEOUT, left), read=min(READ_TIMEOUT, left)
                ),
            )
        except urllib3.exceptions.HTTPError as error:
            raise TransientError(f"{type(error).__name__}: no answer from {self._name}") from error
        detail = f"{self._name} answered {answer.status}: {answer.data[:200].decode(errors='replace')}"
        if service_errors.is_transient_status(answer.status):
            raise TransientError(detail, _retry_after(answer.headers.get("Retry-After", "")))
        if answer.status in KEY_STATUSES and self._renewed_key() != key:
            raise TransientError(f"the key of {self._name} has been changed")
        return Posted(answer.status, answer.data, detail)

    def _renewed_key(self) -> str:
        try:
            self._key = self._read_key()
        except (BotoCoreError, ClientError) as error:
            raise TransientError(f"the key of {self._name} cannot be read: {error}") from error
        return self._key


def parts(
    unit: list[Carried[Carrier, Entry]], most_records: int, most_bytes: int
) -> Iterator[list[Carried[Carrier, Entry]]]:
    """Yield entries in parts that fit into a post each; a single entry may be larger.

    Args:
        unit: The entries, each with what it carries along.
        most_records: So many in one part.
        most_bytes: Of their texts, with one byte after each, and one before them.
    """
    part: list[Carried[Carrier, Entry]] = []
    size = 1
    for carrier, entry in unit:
        more = len(entry.text.encode()) + 1
        if part and (len(part) == most_records or size + more > most_bytes):
            yield part
            part, size = [], 1
        part.append((carrier, entry))
        size += more
    yield part


def _retry_after(seconds: str) -> float:
    """Return how long a server asks to wait; a date is left to the jitter."""
    return float(seconds) if re.fullmatch("[0-9]{1,4}", seconds) else 0.0
