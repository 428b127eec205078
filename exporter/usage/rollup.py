"""Roll-ups: an hour's or a day's records of one type as numbers, which add up to those of any range. Pure.

A roll-up has the numbers of every hour, route and client in it. Merging adds them and cuts nothing; only
`bounded` moves the least used routes and clients into the row "other", before a roll-up is written.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import pairwise
from typing import Any, TypeVar

import orjson

from consumers import documents
from consumers.accounts.minutes import UNANSWERED
from consumers.errors import TaglineError
from exporter.usage.groups import Group

_VERSION = 2
RATE_LIMITED = 429
AUTH_FAILED = (401, 403)
_FIRST_CLIENT_ERROR, _FIRST_SERVER_ERROR, _LAST_STATUS = 400, 500, 599

# A route as callers see it: the method and the template of the path, each None where records have none.
Route = tuple[str | None, str | None]
Key = TypeVar("Key", bound=Hashable)


# Parts of a roll-up that a reader may skip, each in a separate document after the roll-up's.
_SECTIONS = ("routes", "clients", "pairs", "errors")
DETAILS = frozenset(_SECTIONS)
# Of routes and clients, their names alone.
NAMES = "names"
# No JSON has it: a text in JSON writes it as `\\t`.
_SEPARATOR = b"\t"


class TotalMismatchError(TaglineError):
    """A roll-up that has another number of records than the lake; the message has both."""


class OverlapError(TaglineError, ValueError):
    """Roll-ups that cannot be added, because a record would count twice."""


class Numbers:
    """What is counted of some requests.

    Rows that were read stay as they were written until somebody asks for their counts: most are only added.

    Args:
        statuses: Requests by status.
        buckets: Requests that have a duration, by the bucket of their duration.
        duration_us: The sum of all durations in microseconds.
        longest_us: The longest duration in microseconds.
        bytes: The sum of the answers' sizes.

    Attributes:
        duration_us: Whole, so that the order of the durations does not matter.
        longest_us: As above.
        bytes: As above.
    """

    __slots__ = (
        "_buckets",
        "_buckets_read",
        "_rows",
        "_statuses",
        "_statuses_read",
        "bytes",
        "duration_us",
        "longest_us",
    )

    def __init__(
        self,
        statuses: dict[int, int] | None = None,
        buckets: dict[int, int] | None = None,
        duration_us: int = 0,
        longest_us: int = 0,
        bytes: int = 0,  # noqa: A002 - as in answers
    ) -> None:
        # None until somebody asks.
        self._statuses, self._buckets = statuses, buckets
        # Rows as they are kept, and how many of them the counts above have.
        self._rows: list[list[Any]] = []
        self._statuses_read = self._buckets_read = 0
        self.duration_us = duration_us
        self.longest_us = longest_us
        self.bytes = bytes

    @classmethod
    def from_row(cls, row: list[Any]) -> Numbers:
        """Return the numbers of a row that is kept: what `packed` returned, after names."""
        numbers = cls(None, None, *row[-3:])
        numbers._rows.append(row)
        return numbers

    def packed(self) -> tuple[list[int], list[int], int, int, int]:
        """Return them as they are kept."""
        return (
            [number for pair in sorted(self.statuses.items()) for number in pair],
            [number for pair in sorted(self.buckets.items()) for number in pair],
            self.duration_us,
            self.longest_us,
            self.bytes,
        )

    def __eq__(self, other: object) -> bool:
        """Tell whether all numbers are the same."""
        return isinstance(other, Numbers) and self.packed() == other.packed()

    __hash__ = None  # type: ignore[assignment]  # they change

    def __repr__(self) -> str:
        """Return the call that makes them."""
        more = f"{self.duration_us}, {self.longest_us}, {self.bytes}"
        return f"Numbers({self.statuses}, {self.buckets}, {more})"

    @property
    def statuses(self) -> dict[int, int]:
        """Requests by status; `NO_STATUS` and `UNANSWERED` for those without."""
        if self._statuses is None:
            self._statuses = {}
        if self._statuses_read < len(self._rows):
            _count([row[-5] for row in self._rows[self._statuses_read :]], self._statuses)
            self._statuses_read = len(self._rows)
        return self._statuses

    @property
    def buckets(self) -> dict[int, int]:
        """Requests that have a duration, by the bucket of their duration."""
        if self._buckets is None:
            self._buckets = {}
        if self._buckets_read < len(self._rows):
            _count([row[-4] for row in self._rows[self._buckets_read :]], self._buckets)
            self._buckets_read = len(self._rows)
        return self._buckets

    @property
    def requests(self) -> int:
        """How many requests there are."""
        return sum(self.statuses.values())

    @property
    def timed(self) -> int:
        """How many requests have a duration."""
        return sum(self.buckets.values())

    @property
    def client_errors(self) -> int:
        """Requests with a 4xx status, including those rate-limited or not authenticated."""
        return self._between(_FIRST_CLIENT_ERROR, _FIRST_SERVER_ERROR - 1)

    @property
    def failures(self) -> int:
        """Requests that the service failed: a 5xx status, or no answer because of a time-out or a crash."""
        return self._between(_FIRST_SERVER_ERROR, _LAST_STATUS) + self.statuses.get(UNANSWERED, 0)

    @property
    def rate_limited(self) -> int:
        """Requests with status 429."""
        return self.statuses.get(RATE_LIMITED, 0)

    @property
    def auth_failures(self) -> int:
        """Requests with status 401 or 403."""
        return sum(self.statuses.get(status, 0) for status in AUTH_FAILED)

    def _between(self, first: int, last: int) -> int:
        return sum(count for status, count in self.statuses.items() if first <= status <= last)

    def add(self, other: Numbers) -> None:
        """Add other numbers to these."""
        if other._statuses is None and other._buckets is None:
            self._rows += other._rows
        else:
            _add(self.statuses, other.statuses)
            _add(self.buckets, other.buckets)
        self.duration_us += other.duration_us
        if other.longest_us > self.longest_us:  # noqa: PLR1730 - max() takes three times as long
            self.longest_us = other.longest_us
        self.bytes += other.bytes


# The numbers of a route or a client that are not read. Nothing is added to it: merging makes its own.
_UNREAD = Numbers()


def total(parts: Iterable[Numbers]) -> Numbers:
    """Return the numbers of several parts together."""
    numbers = Numbers()
    for part in parts:
        numbers.add(part)
    return numbers


@dataclass(slots=True)
class Other:
    """Routes or clients that have no row, together.

    Attributes:
        names: How many there are at least: they are not known by name, so parts may or may not share some.
        numbers: Their numbers.
    """

    names: int = 0
    numbers: Numbers = field(default_factory=Numbers)


@dataclass(slots=True)
class Usage:
    """The numbers of some requests, by hour, route, client and error.

    Attributes:
        hours: By hour in UTC, as in `2026-11-28 13`.
        routes: By method and route.
        clients: By client; None for requests without one.
        pairs: Requests by route and client.
        errors: Requests by route and type of error.
        other_routes: The routes without a row.
        other_clients: The clients without a row.
        other_errors: Errors without a row.
    """

    hours: dict[str, Numbers] = field(default_factory=dict)
    routes: dict[Route, Numbers] = field(default_factory=dict)
    clients: dict[str | None, Numbers] = field(default_factory=dict)
    pairs: dict[tuple[Route, str | None], int] = field(default_factory=dict)
    errors: dict[tuple[Route, str], int] = field(default_factory=dict)
    other_routes: Other = field(default_factory=Other)
    other_clients: Other = field(default_factory=Other)
    other_errors: int = 0

    @property
    def total(self) -> Numbers:
        """The numbers of all requests."""
        return total(self.hours.values())

    def add(self, other: Usage) -> None:
        """Add another usage to this one."""
        _add_numbers(self.hours, other.hours)
        _add_numbers(self.routes, other.routes)
        _add_numbers(self.clients, other.clients)
        _add(self.pairs, other.pairs)
        _add(self.errors, other.errors)
        for mine, others in (
            (self.other_routes, other.other_routes),
            (self.other_clients, other.other_clients),
        ):
            mine.names = max(mine.names, others.names)
            mine.numbers.add(others.numbers)
        self.other_errors += other.other_errors


def usage_of(groups: Iterable[Group]) -> Usage:
    """Return the usage of groups of alike records."""
    usage = Usage()
    hours, routes, clients, pairs, errors = (
        usage.hours,
        usage.routes,
        usage.clients,
        usage.pairs,
        usage.errors,
    )
    for (
        hour,
        method,
        route,
        client,
        status,
        error_type,
        bucket,
        count,
        duration_us,
        longest_us,
        size,
    ) in groups:
        path = (method, route)
        for numbers in (
            hours.get(hour) or hours.setdefault(hour, Numbers()),
            routes.get(path) or routes.setdefault(path, Numbers()),
            clients.get(client) or clients.setdefault(client, Numbers()),
        ):
            statuses = numbers.statuses
            statuses[status] = statuses.get(status, 0) + count
            if bucket is not None:
                buckets = numbers.buckets
                buckets[bucket] = buckets.get(bucket, 0) + count
                numbers.duration_us += duration_us
                if longest_us > numbers.longest_us:  # noqa: PLR1730 - max() takes three times as long
                    numbers.longest_us = longest_us
            numbers.bytes += size
        pair = (path, client)
        pairs[pair] = pairs.get(pair, 0) + count
        if error_type is not None:
            error = (path, error_type)
            errors[error] = errors.get(error, 0) + count
    return usage


@dataclass(frozen=True, slots=True)
class Limits:
    """How many rows a written roll-up has at most: what is used least has none, and is in "other"."""

    routes: int = 5_000
    clients: int = 10_000
    pairs: int = 50_000
    errors: int = 1_000


def bounded(usage: Usage, limits: Limits) -> Usage:
    """Return a usage with at most so many rows; the total stays the same."""
    routes, lost_routes = _largest(usage.routes, limits.routes, lambda numbers: numbers.requests)
    clients, lost_clients = _largest(usage.clients, limits.clients, lambda numbers: numbers.requests)
    named = {pair: count for pair, count in usage.pairs.items() if pair[0] in routes and pair[1] in clients}
    pairs, _ = _largest(named, limits.pairs, int)
    errors, lost_errors = _largest(usage.errors, limits.errors, int)
    return replace(
        usage,
        routes=routes,
        clients=clients,
        pairs=pairs,
        errors=errors,
        other_routes=_with_other(usage.other_routes, lost_routes.values()),
        other_clients=_with_other(usage.other_clients, lost_clients.values()),
        other_errors=usage.other_errors + sum(lost_errors.values()),
    )


@dataclass(frozen=True, slots=True)
class Completeness:
    """What is known of records that are not in the numbers.

    Attributes:
        lost: Lines that were emitted and never arrived; None if that cannot be known.
        quarantined: Records that were put aside with a reason.
        replayed: Records that were put aside, and stored later.
    """

    lost: int | None = 0
    quarantined: int = 0
    replayed: int = 0

    def __add__(self, other: Completeness) -> Completeness:
        """Return both together."""
        lost = None if self.lost is None or other.lost is None else self.lost + other.lost
        return Completeness(lost, self.quarantined + other.quarantined, self.replayed + other.replayed)


@dataclass(frozen=True, slots=True)
class RollUp:
    """The usage of a time, as it is kept.

    Attributes:
        start: Its beginning, a whole hour in UTC.
        end: Its end, exclusive, a whole hour in UTC.
        type: The `_type` of the records.
        data_through: Records up to this time are in it, at most its end.
        usage: The numbers.
        revision: Counts the different contents that it has had.
        completeness: What is known of records that are not in it.
        source: What it was made of: the ETag of the lake's manifest, or how many rows the store had.
    """

    start: datetime
    end: datetime
    type: str
    data_through: datetime
    usage: Usage
    revision: int = 1
    completeness: Completeness = Completeness()
    source: str = ""

    @property
    def complete(self) -> bool:
        """Whether it is over."""
        return self.data_through >= self.end

    def succeeding(self, known: RollUp | None) -> RollUp:
        """Return it with the revision that follows a known one; the same revision if nothing differs."""
        if known is None:
            return self
        same = replace(self, revision=known.revision)
        differs = replace(same, source=known.source) != known
        return replace(self, revision=known.revision + 1) if differs else same

    def to_json(self) -> bytes:
        """Return it as it is kept."""
        usage = self.usage
        document = {
            "type": self.type,
            "start": self.start.isoformat(),
            "end": self.end.isoformat(),
            "data_through": self.data_through.isoformat(),
            "revision": self.revision,
            "source": self.source,
            "requests": usage.total.requests,
            "completeness": {
                "lost": self.completeness.lost,
                "quarantined": self.completeness.quarantined,
                "replayed": self.completeness.replayed,
            },
            "hours": [[hour, *numbers.packed()] for hour, numbers in usage.hours.items()],
            "other_routes": [usage.other_routes.names, *usage.other_routes.numbers.packed()],
            "other_clients": [usage.other_clients.names, *usage.other_clients.numbers.packed()],
            "other_errors": usage.other_errors,
        }
        sections = {
            "routes": [[*route, *numbers.packed()] for route, numbers in usage.routes.items()],
            "clients": [[client, *numbers.packed()] for client, numbers in usage.clients.items()],
            "pairs": _packed_pairs(usage),
            "errors": [[*route, error, count] for (route, error), count in usage.errors.items()],
        }
        parts = [documents.stamped(document, _VERSION), *(sections[name] for name in _SECTIONS)]
        return _SEPARATOR.join(map(orjson.dumps, parts))

    @classmethod
    def from_json(cls, document: bytes, details: Collection[str] = DETAILS) -> RollUp:
        """Return the roll-up that was written.

        Args:
            document: The roll-up as it is kept.
            details: Which of `DETAILS` to read, which are nearly all of it, or `NAMES`. Routes and clients
                whose names alone are read have no numbers.

        Raises:
            NewerDocumentError: If a newer Tagline wrote it.
        """
        head, *sections = document.split(_SEPARATOR)
        read: dict[str, Any] = orjson.loads(head)
        documents.check_version(read, _VERSION, "the roll-up")
        # A document of version 1 has all in one.
        wanted = _sections_of(details)
        for name, section in zip(_SECTIONS, sections, strict=False):
            read[name] = orjson.loads(section) if name in wanted else ()
        return cls(
            start=datetime.fromisoformat(read["start"]),
            end=datetime.fromisoformat(read["end"]),
            type=read["type"],
            data_through=datetime.fromisoformat(read["data_through"]),
            revision=read["revision"],
            source=read.get("source", ""),
            completeness=Completeness(**read["completeness"]),
            usage=_with_pairs(
                read["pairs"] if "pairs" in wanted else [[], [], []],
                Usage(
                    hours={row[0]: Numbers.from_row(row) for row in read["hours"]},
                    routes={
                        (row[0], row[1]): Numbers.from_row(row) if "routes" in details else _UNREAD
                        for row in read["routes"]
                    },
                    clients={
                        row[0]: Numbers.from_row(row) if "clients" in details else _UNREAD
                        for row in read["clients"]
                    },
                    errors={
                        ((method, route), error): count
                        for method, route, error, count in (read["errors"] if "errors" in wanted else ())
                    },
                    other_routes=Other(read["other_routes"][0], Numbers.from_row(read["other_routes"])),
                    other_clients=Other(read["other_clients"][0], Numbers.from_row(read["other_clients"])),
                    other_errors=read["other_errors"],
                ),
            ),
        )


@contextmanager
def without_collection() -> Iterator[None]:
    """Switch garbage collection off meanwhile.

    Roll-ups form no cycles, and looking for some in a hundred thousand objects takes longer than making them
    (`custom_ms_p95_1024mb` of `benchmarks/usage.py`).
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def read(bodies: Iterable[bytes], details: Collection[str] = DETAILS) -> list[RollUp]:
    """Return the roll-ups that were written.

    Args:
        bodies: Roll-ups as they are kept.
        details: Which of `DETAILS` to read.

    Raises:
        NewerDocumentError: If a newer Tagline wrote one.
    """
    with without_collection():
        return [RollUp.from_json(document, details) for document in bodies]


def check_disjoint(parts: Sequence[RollUp]) -> None:
    """Hold roll-ups in order of time against each other.

    Raises:
        OverlapError: If two share a time, or are of different types: a request would count twice.
    """
    for before, after in pairwise(parts):
        if after.start < before.end:
            raise OverlapError(f"the roll-ups from {before.start} and from {after.start} share a time")
        if after.type != before.type:
            raise OverlapError(
                f"roll-ups of {before.type!r} and of {after.type!r} may count the same requests"
            )


def merge(rollups: Iterable[RollUp]) -> RollUp:
    """Return the roll-up of several times together, with the highest revision.

    It is complete if all of them are; otherwise its data go as far as those of the first that is not.

    Raises:
        OverlapError: If two share a time, or are of different types: a request would count twice.
        ValueError: If there are none.
    """
    parts = sorted(rollups, key=lambda part: part.start)
    if not parts:
        raise ValueError("there are no roll-ups to merge")
    check_disjoint(parts)
    usage, completeness = Usage(), Completeness()
    for part in parts:
        usage.add(part.usage)
        completeness += part.completeness
    unfinished = [part.data_through for part in parts if not part.complete]
    return RollUp(
        start=parts[0].start,
        end=parts[-1].end,
        type=parts[0].type,
        data_through=min(unfinished, default=parts[-1].end),
        usage=usage,
        revision=max(part.revision for part in parts),
        completeness=completeness,
    )


def check_total(rollup: RollUp, rows: Mapping[str, int]) -> None:
    """Hold a day's roll-up against the lake.

    Args:
        rollup: The day's roll-up.
        rows: How many rows of each type the lake has of that day.

    Raises:
        TotalMismatchError: If the numbers differ.
    """
    counted, kept = rollup.usage.total.requests, rows.get(rollup.type, 0)
    if counted != kept:
        raise TotalMismatchError(
            f"the roll-up of {rollup.start:%Y-%m-%d} counts {counted} records of type {rollup.type!r}, "
            f"the lake has {kept}: roll the day up again"
        )


def _sections_of(details: Collection[str]) -> set[str]:
    """Return the sections that have details: pairs are places among routes and clients."""
    named = {"routes", "clients"} if {NAMES, "pairs"} & set(details) else set()
    return (named | set(details)) - {NAMES}


def _count(packed: Iterable[list[int]], into: dict[int, int]) -> None:
    """Add counts, from lists that have each key before its count."""
    get = into.get
    for flat in packed:
        numbers = iter(flat)
        for key, count in zip(numbers, numbers, strict=True):
            into[key] = get(key, 0) + count


def _packed_pairs(usage: Usage) -> list[list[int]]:
    """Return the places of pairs among the routes and the clients, and their requests."""
    routes = {route: place for place, route in enumerate(usage.routes)}
    clients = {client: place for place, client in enumerate(usage.clients)}
    return [
        [routes[route] for route, _ in usage.pairs],
        [clients[client] for _, client in usage.pairs],
        list(usage.pairs.values()),
    ]


def _with_pairs(packed: list[list[int]], usage: Usage) -> Usage:
    routes, clients = list(usage.routes), list(usage.clients)
    pairs = {(routes[route], clients[client]): count for route, client, count in zip(*packed, strict=True)}
    return replace(usage, pairs=pairs)


def _add(into: dict[Key, int], counts: Mapping[Key, int]) -> None:
    if not into:
        into.update(counts)
        return
    get = into.get
    for key, count in counts.items():
        into[key] = get(key, 0) + count


def _add_numbers(into: dict[Key, Numbers], parts: Mapping[Key, Numbers]) -> None:
    if next(iter(parts.values()), None) is _UNREAD:
        into.update(dict.fromkeys(parts.keys() - into.keys(), _UNREAD))
        return
    for key, numbers in parts.items():
        mine = into.get(key)
        if mine is None:
            mine = into[key] = Numbers()
        mine.add(numbers)


def _largest(
    rows: dict[Key, Any], limit: int, size: Callable[[Any], int]
) -> tuple[dict[Key, Any], dict[Key, Any]]:
    """Return the largest rows, and the others; of rows of one size, those whose name comes first."""
    if len(rows) <= limit:
        return rows, {}
    ordered = sorted(rows.items(), key=lambda row: (-size(row[1]), repr(row[0])))
    return dict(ordered[:limit]), dict(ordered[limit:])


def _with_other(other: Other, rows: Iterable[Numbers]) -> Other:
    lost = list(rows)
    return Other(other.names + len(lost), total([other.numbers, *lost]))
