"""The asking port: questions to a store, what an answer looks like, and how they name types and times. Pure.

A time is text in UTC, `YYYY-MM-DD HH:MM:SS.nnnnnnnnn`: text order is time order, and the files of the
lake hold it as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from typing import Literal, NamedTuple, Protocol

from consumers.errors import TaglineError
from consumers.rows.table import DIMENSIONS, EXTRA, ID, OVERFLOW, PARTITION, SOURCE

# The columns that every file begins with, in this order.
TIME, TYPE = "time", "_type"
FIRST = (TIME, TYPE, ID, SOURCE, *DIMENSIONS)

# A larger time is asked for in pieces: a store sorts an answer before it gives its first page.
SLICE_ROWS = 100_000
MINUTES = 24 * 60

Type = Literal["text", "integer", "number", "boolean", "timestamp"]


class Column(NamedTuple):
    """A column of an answer."""

    name: str
    type: Type


FIRST_COLUMNS = tuple(Column(name, "timestamp" if name == TIME else "text") for name in FIRST)

# A row's values as text, None for a missing value: a whole number without decimals, `true` or `false`.
Values = tuple[str | None, ...] | list[str | None]
# How many rows each minute of a day has; minutes without rows are left out.
Tally = dict[int, int]
# Gets what a question has cost so far: bytes that the store has read, and bytes that it bills.
Bill = Callable[[int, int], None]


class StoreError(TaglineError):
    """The store did not answer a question; the message contains the store's own words."""


class QuestionTooLargeError(StoreError):
    """The answer to a question is larger than the limit; the message names the limit and the setting."""


@dataclass(frozen=True, slots=True)
class Days:
    """A range of days in UTC, both inclusive.

    Raises:
        ValueError: If the last is before the first.
    """

    first: date
    last: date

    def __post_init__(self) -> None:
        if self.last < self.first:
            raise ValueError(f"the last day, {self.last}, is before the first, {self.first}")

    def __iter__(self) -> Iterator[date]:
        """Yield each day."""
        return (self.first + timedelta(days=number) for number in range(len(self)))

    def __len__(self) -> int:
        """Return how many days there are."""
        return (self.last - self.first).days + 1


@dataclass(frozen=True, slots=True)
class Span:
    """From a time up to, and without, another."""

    start: str
    end: str


@dataclass(frozen=True, slots=True)
class Answer:
    """Rows of the store, read while they are iterated, once.

    Attributes:
        columns: Names and types.
        pages: Rows as they come, each with its values in the order of the columns. A page may be empty.
    """

    columns: tuple[Column, ...]
    pages: Iterator[list[Values]]

    @property
    def rows(self) -> Iterator[Values]:
        """The rows of all pages."""
        return (row for page in self.pages for row in page)


class Hour(NamedTuple):
    """An hour of a day, as far as a store can tell without reading rows.

    Attributes:
        rows: How many rows it has, copies counted.
        made_of: Changes when a row is added.
    """

    rows: int
    made_of: str


class Store(Protocol):
    """What a store is asked. Each question raises `StoreError` if the store does not answer it."""

    @property
    def name(self) -> str:
        """What people call the store."""

    @property
    def settles_after(self) -> timedelta:
        """How long after it was written a row can be asked for at the latest."""

    @property
    def keeps_for(self) -> timedelta | None:
        """How long the store keeps a row, by the row's time; None if it keeps all."""

    @property
    def includes_exports(self) -> bool:
        """Whether answers have the rows that were exported as well, and none of forgotten clients.

        Such a store never has less of a day than was exported of it.
        """

    def whole_since(self, day: date, now: datetime) -> str | None:
        """Return the time from which on the store still has a day's rows, or None if it has the whole day."""

    def count(self) -> int:
        """Return how many rows there are."""

    def days(self) -> Days | None:
        """Return the days from the earliest row to the latest; None if there are no rows."""

    def sources(self, day: date) -> dict[str, int]:
        """Return how many rows of a day each log group has."""

    def tally(self, day: date) -> Tally:
        """Return how many rows each minute of a day has."""

    def columns(self, day: date) -> tuple[Column, ...]:
        """Return the columns that have a value in a day's rows, and maybe others; none without rows."""

    def filled(self, day: date, names: Collection[str]) -> set[str]:
        """Return which of these columns have a value in a row of a day."""

    def hours(self, day: date) -> dict[int, Hour]:
        """Return the hours of a day, from 0 to 23, that have rows; none if the store does not keep hours."""

    def within(self, hours: range) -> Store:
        """Return the same store with no other rows than those of these hours, from 0 to 23, of each day."""

    def rows(self, span: Span, columns: tuple[Column, ...]) -> Answer:
        """Return columns of a span's rows, in order of time, identity, type, source and dimensions.

        A record that was written to two log groups is in the store twice, at one time with one identity, and
        so are two records that a program gave one identity. Only everything that distinguishes rows makes the
        order always the same. Dimensions that are not asked for do not order.

        Raises:
            QuestionTooLargeError: If there are more rows than one answer may have.
        """

    def erasable(self, day: date, client: str) -> int:
        """Return how many of a day's rows, copies counted, `erase` would remove for a client."""

    def erase(self, day: date) -> int:
        """Remove a day's rows of forgotten clients and return how many; a store that cannot removes none."""


class BillingStore(Store, Protocol):
    """A store that reports what its answers cost: `exporter.stores.metered.Metered` adds that up.

    Attributes:
        bill: Called at the beginning of each question. What it returns is called with each page's costs.
    """

    bill: Callable[[], Bill]


class SqlStore(BillingStore, Protocol):
    """A store that also answers questions in its own SQL: `tagline query`.

    Attributes:
        dialect: Which SQL that is, for people.
    """

    dialect: str

    def sql(self, text: str) -> Answer:
        """Return the answer to a question, with the store's own columns and values.

        Args:
            text: A SELECT; `{table}` stands for the table's name.

        Raises:
            StoreError: If the store refuses it.
        """


def oldest_kept(keeps_for: timedelta | None, day: date, now: datetime) -> str | None:
    """Return the time from which on a store still has a day's rows, or None if it has the whole day.

    This is for a store that drops rows by their time: it has lost the first ones of a day that began longer
    ago than it keeps rows.

    Args:
        keeps_for: How long it keeps rows; None for ever.
        day: The day in UTC.
        now: The time.
    """
    if keeps_for is None:
        return None
    oldest = now.astimezone(UTC) - keeps_for
    if oldest <= datetime(day.year, day.month, day.day, tzinfo=UTC):
        return None
    return f"{oldest:%Y-%m-%d %H:%M:%S}.000000000"


def unbilled() -> Bill:
    """Return a bill that nobody reads."""
    return lambda _scanned, _billed: None


def whole(day: date) -> Span:
    """Return the span of a day."""
    return Span(_minute(day, 0), _minute(day, MINUTES))


def minute_of(day: date, minute: int) -> Span:
    """Return the span of one of a day's minutes, from 0 to 1439."""
    return Span(_minute(day, minute), _minute(day, minute + 1))


def minutes_of(day: date, minutes: range) -> Span:
    """Return the span of some of a day's minutes, from 0 to 1439."""
    return Span(_minute(day, minutes.start), _minute(day, minutes.stop))


def slices(
    day: date, tally: Tally, limit: int = SLICE_ROWS, minutes: range = range(MINUTES)
) -> Iterator[Span]:
    """Cut some minutes of a day into spans of at most so many rows each, at whole minutes.

    Args:
        day: The day in UTC.
        tally: How many rows its minutes have.
        limit: How many rows a span may have, unless a single minute has more.
        minutes: The minutes; together, the spans are all of them.
    """
    start, rows = minutes.start, 0
    for minute in sorted(tally.keys() & minutes):
        if rows and rows + tally[minute] > limit:
            yield Span(_minute(day, start), _minute(day, minute))
            start, rows = minute, 0
        rows += tally[minute]
    yield Span(_minute(day, start), _minute(day, minutes.stop))


def minute_ranges(minutes: Collection[int], tally: Tally, limit: int = SLICE_ROWS) -> list[range]:
    """Return the ranges of minutes that are asked for instead of a whole day, in order.

    They are no more than the spans of the whole day would be: where minutes are too scattered for that, the
    ranges with the fewest rows between them are joined.

    Args:
        minutes: The minutes of which rows are wanted.
        tally: How many rows the day's minutes have; others are not asked for.
        limit: How many rows a span may have.
    """
    found: list[range] = []
    for minute in sorted(tally.keys() & minutes):
        if found and found[-1].stop == minute:
            found[-1] = range(found[-1].start, minute + 1)
        else:
            found.append(range(minute, minute + 1))
    gaps = [
        (sum(tally.get(each, 0) for each in range(before.stop, after.start)), before.stop)
        for before, after in pairwise(found)
    ]
    most = max(1, -(-sum(tally.values()) // limit))
    joined = {stop for _, stop in sorted(gaps)[: max(0, len(found) - most)]}
    asked: list[range] = []
    for each in found:
        if asked and asked[-1].stop in joined:
            asked[-1] = range(asked[-1].start, each.stop)
        else:
            asked.append(each)
    return asked


def _minute(day: date, minute: int) -> str:
    midnight = datetime(day.year, day.month, day.day, tzinfo=UTC)
    return f"{midnight + timedelta(minutes=minute):%Y-%m-%d %H:%M:%S}.000000000"


def places(columns: Iterable[Column]) -> dict[str, int]:
    """Return each column's place in a row, by its name."""
    return {column.name: place for place, column in enumerate(columns)}


def minute(time: str) -> int:
    """Return which of its day's minutes a time is in, from 0 to 1439."""
    return int(time[11:13]) * 60 + int(time[14:16])


def extended(known: tuple[Column, ...], found: Iterable[Column]) -> tuple[Column, ...]:
    """Return the columns that files have: the known ones where they were, new ones after them by name.

    The day's own columns are left out: in the lake, they are in the path.
    """
    known = known or FIRST_COLUMNS
    by_name = {column.name: column for column in found if column.name not in PARTITION}
    if OVERFLOW in by_name:
        # For fields of a whole record that the store has no column for.
        by_name.setdefault(EXTRA, Column(EXTRA, "text"))
    return (*known, *(by_name[name] for name in sorted(by_name.keys() - {column.name for column in known})))
