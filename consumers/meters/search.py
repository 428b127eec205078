"""Documents into the indices of Elasticsearch or OpenSearch, by their `_bulk` API."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from http import HTTPStatus
from typing import Any, Final

from consumers import service_errors
from consumers.deadlines import Retry, TransientError
from consumers.meters.meter import Entry
from consumers.meters.sender import JUDGING_STATUSES, Posted, Sender, parts
from consumers.outcomes import Carried, Carrier, Duplicate, Outcome, Refused, Stored, Undecided, Unwritten

# Elastic asks to find the best size by trying; Amazon's smallest instances take 10 MiB.
# https://docs.aws.amazon.com/opensearch-service/latest/developerguide/limits.html#network-limits
MAX_BULK_RECORDS: Final = 1_000
MAX_BULK_BYTES: Final = 4_000_000
MAX_DETAIL: Final = 500
# Of these the index or the cluster is the cause, and not the document, although their status is 400.
_CLUSTER_ERRORS = frozenset(
    ["index_closed_exception", "validation_exception", "invalid_index_name_exception"]
)


class Search:
    """Indices of Elasticsearch or OpenSearch: each document is created once.

    Args:
        url: The cluster's address.
        read_key: Gives the header `Authorization`; it is asked again when the cluster no longer takes it.
        retry: Tries again what fails for now.
    """

    store = "search"

    def __init__(self, url: str, read_key: Callable[[], str], *, retry: Retry) -> None:
        self._sender = Sender(
            f"{url.rstrip('/')}/_bulk",
            name="the search cluster",
            header="Authorization",
            content_type="application/x-ndjson",
            read_key=read_key,
        )
        self._retry = retry

    def requests(self, unit: list[Carried[Carrier, Entry]]) -> Iterator[list[Carried[Carrier, Entry]]]:
        """Yield the documents in parts that fit into a request each."""
        yield from parts(unit, MAX_BULK_RECORDS, MAX_BULK_BYTES)

    def write(
        self, documents: Sequence[Entry], remaining: Callable[[], float], /
    ) -> list[Outcome | Undecided]:
        """Create the documents; those that the cluster may take later are sent again, without the others."""
        outcomes: dict[int, Outcome | Undecided] = {}

        def create() -> None:
            left = [at for at in range(len(documents)) if at not in outcomes]
            posted = self._sender.post("".join(documents[at].text for at in left).encode(), remaining)
            items = _items(posted.body, len(left)) if posted.status == HTTPStatus.OK else None
            if items is None:
                outcomes.update(dict.fromkeys(left, _whole(posted, len(left))))
                return
            transient = ""
            for at, item in zip(left, items, strict=True):
                if service_errors.is_transient_status(item["status"]):
                    transient = transient or _detail(item)
                else:
                    outcomes[at] = _outcome_of(item)
            if transient:
                raise TransientError(transient)

        undone: Outcome = Unwritten("no answer")
        try:
            self._retry.call(create, remaining)
        except TransientError as error:
            undone = Unwritten(str(error))
        return [outcomes.get(at, undone) for at in range(len(documents))]


def _whole(posted: Posted, count: int) -> Outcome | Undecided:
    """Return the outcome of all documents of a request that was refused as a whole."""
    if posted.status not in JUDGING_STATUSES:
        return Unwritten(posted.detail)  # The key is at fault, or the address: it is not a cluster's.
    return Undecided(posted.detail) if count > 1 else Refused("meter_refused", posted.detail)


def _items(body: bytes, count: int) -> list[dict[str, Any]] | None:
    """Return what became of each document, or None if the answer is not that of a bulk request."""
    try:
        items = [item["create"] for item in json.loads(body)["items"]]
        is_whole = len(items) == count and all(isinstance(item["status"], int) for item in items)
    except (ValueError, LookupError, TypeError):
        return None
    return items if is_whole else None


def _outcome_of(item: dict[str, Any]) -> Outcome:
    status = item["status"]
    if HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES:
        return Stored()
    if status == HTTPStatus.CONFLICT:
        return Duplicate()  # An earlier delivery created it.
    if status == HTTPStatus.BAD_REQUEST and _type_of(item) not in _CLUSTER_ERRORS:
        return Refused("meter_refused", _detail(item))
    return Unwritten(
        _detail(item)
    )  # The key may not create it, or the index is at fault: never the document.


def _detail(item: dict[str, Any]) -> str:
    error = item.get("error")
    reason = str(error.get("reason", "")) if isinstance(error, dict) else str(error)
    return f"the search cluster answered {item['status']}: {_type_of(item)}: {reason}"[:MAX_DETAIL]


def _type_of(item: dict[str, Any]) -> str:
    error = item.get("error")
    return str(error.get("type", "")) if isinstance(error, dict) else ""
