"""Requests by minute, route and status, until a roll-up has them. Pure.

Each batch writes them with its accounts, and by Kinesis record, so that a redelivery counts nothing twice. A
merge of batches deletes their documents: it keeps the sum of their minutes until nobody asks for it any more.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import orjson

from consumers.documents import check_version, stamped

if TYPE_CHECKING:
    from consumers.lines.ledger import Ledger

PREFIX: Final = "tmp/minutes/"
FORMAT_VERSION: Final = 1
# In place of a status: the record has none of HTTP's, or there was no answer (a time-out, a crash).
NO_STATUS, UNANSWERED = 0, -1
# Rows that are older than this when their batch comes are left to the roll-up.
WINDOW_MINUTES: Final = 120
# So many routes of a batch are named, those with most requests; the others are counted together.
MAX_ROUTES: Final = 200
MAX_MERGED_ROUTES: Final = 1_000
OTHER: Final = "(other)"

_MINUTE_MS = 60_000
_FIRST_STATUS, _AFTER_STATUS = 100, 600

MinuteCell = tuple[int, str | None, str | None, int]
"""A minute since 1970, a method, a route and a status."""


def status_of(value: Any) -> int:
    """Return a status of HTTP, or `NO_STATUS` for anything else."""
    try:
        status = float(value)
    except (TypeError, ValueError, OverflowError):
        return NO_STATUS
    return int(status) if _FIRST_STATUS <= status < _AFTER_STATUS else NO_STATUS


class BatchMinutes:
    """The requests of a batch, counted line by line.

    Args:
        type_: The `_type` of the records that count.
        now: Seconds since 1970.
    """

    def __init__(self, type_: str, now: float) -> None:
        self.type = type_
        last = int(now) // 60
        self._first, self._last = last - WINDOW_MINUTES, last + 1
        self._counts: dict[int, dict[MinuteCell, int]] = defaultdict(dict)

    def add(self, position: int, time: int, fields: Mapping[str, Any]) -> None:
        """Count a record of the type.

        Args:
            position: The position of its Kinesis record.
            time: The record's milliseconds since 1970.
            fields: The record's fields.
        """
        minute = time // _MINUTE_MS
        if not self._first <= minute <= self._last:
            return
        method, route, status = fields.get("method"), fields.get("route"), fields.get("status")
        if status is None and (fields.get("timed_out") is True or fields.get("unfinished") is True):
            status = UNANSWERED
        else:
            status = status_of(status)
        cell = (minute, str(method) if method else None, str(route) if route else None, status)
        counts = self._counts[position]
        counts[cell] = counts.get(cell, 0) + 1

    def document(self, ledger: Ledger) -> dict[str, Any] | None:
        """Return what the batch's document has of them; None for nothing.

        Kinesis records from the first that failed on are left out: they are delivered again.

        Args:
            ledger: The batch's ledger, complete.
        """
        until = len(ledger.records) if ledger.failed is None else ledger.failed
        counts = {position: cells for position, cells in self._counts.items() if position < until}
        if not counts:
            return None
        total: Counter[MinuteCell] = Counter()
        for cells in counts.values():
            total.update(cells)
        named = _named_routes(total, MAX_ROUTES)
        places: dict[MinuteCell, int] = {}
        records: dict[str, list[int]] = {}
        for position, cells in counts.items():
            flat = records[str(ledger.records[position]["eventID"])] = []
            for cell, requests in cells.items():
                flat += (places.setdefault(_bounded(cell, named), len(places)), requests)
        return {"cells": [list(cell) for cell in places], "records": records}


class Minutes:
    """Requests of batches merged one by one, each Kinesis record counted once.

    Args:
        known: Kinesis records that count elsewhere.

    Attributes:
        counts: Requests by cell.
        records: The Kinesis records that are counted, by a short name.
    """

    def __init__(self, known: Collection[int] = frozenset()) -> None:
        self.counts: Counter[MinuteCell] = Counter()
        self.records: set[int] = set()
        self._known = known

    def add_batch(self, content: Mapping[str, Any] | None) -> None:
        """Add what a batch's document has; None adds nothing."""
        if content is None:
            return
        sums = [0] * len(content["cells"])
        for record, flat in content["records"].items():
            digest = _digest(record)
            if digest not in self.records and digest not in self._known:
                self.records.add(digest)
                numbers = iter(flat)
                for place, requests in zip(numbers, numbers, strict=True):
                    sums[place] += requests
        for cell, requests in zip(content["cells"], sums, strict=True):
            if requests:
                self.counts[tuple(cell)] += requests

    def add_merged(self, body: bytes) -> None:
        """Add minutes that were merged before; no two of those share a Kinesis record.

        Raises:
            NewerDocumentError: If a newer Tagline wrote them.
        """
        content = orjson.loads(body)
        check_version(content, FORMAT_VERSION, "the minutes")
        self.records.update(content["records"])
        for *cell, requests in content["cells"]:
            self.counts[tuple(cell)] += requests

    def to_json(self) -> bytes:
        """Return them as they are kept."""
        named = _named_routes(self.counts, MAX_MERGED_ROUTES)
        counts: Counter[MinuteCell] = Counter()
        for cell, requests in self.counts.items():
            counts[_bounded(cell, named)] += requests
        cells = [[*cell, requests] for cell, requests in counts.items()]
        return orjson.dumps(stamped({"cells": cells, "records": sorted(self.records)}, FORMAT_VERSION))


def folder_of_merge(now: datetime) -> str:
    """Return what the keys of minutes begin with that are merged at a time: their hour."""
    return f"{PREFIX}{now.astimezone(UTC):%Y-%m-%dT%H}/"


def _named_routes(counts: Mapping[MinuteCell, int], most: int) -> set[tuple[str | None, str | None]]:
    by_route: Counter[tuple[str | None, str | None]] = Counter()
    for (_, method, route, _), requests in counts.items():
        by_route[method, route] += requests
    return {route for route, _ in by_route.most_common(most)}


def _bounded(cell: MinuteCell, named: set[tuple[str | None, str | None]]) -> MinuteCell:
    minute, method, route, status = cell
    return cell if (method, route) in named else (minute, None, OTHER, status)


def _digest(record: str) -> int:
    """Return a short name of a Kinesis record: of a million, two share one in 1 of 100,000 cases."""
    return int.from_bytes(hashlib.blake2b(record.encode(), digest_size=7).digest())
