"""Questions to the store, valid by construction, and what an answer looks like."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import NamedTuple, Protocol

from consumers.rows.table import DIMENSIONS, EXTRA, ID, OVERFLOW, PARTITION, SOURCE

# The columns that every file begins with, in this order.
TIME, TYPE = "time", "_type"
FIRST = (TIME, TYPE, ID, SOURCE, *DIMENSIONS)

# A question for more rows than this is cut in time: the store sorts an answer before it gives its first page.
SLICE_ROWS = 100_000
MINUTES = 24 * 60


class Column(NamedTuple):
    """A column of an answer."""

    name: str
    type: str


FIRST_COLUMNS = tuple(Column(name, "TIMESTAMP" if name == TIME else "VARCHAR") for name in FIRST)

# A row's values as text, None where there is none.
Values = tuple[str | None, ...] | list[str | None]
# How many rows each minute of a day has; minutes without rows are left out.
Tally = dict[int, int]


class QuestionTooLargeError(RuntimeError):
    """A question whose answer is larger than it may be; the message names the limit and the setting."""


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
    """A time up to, and without, its end; as the store writes times, with nine decimals."""

    start: str
    end: str


@dataclass(frozen=True, slots=True)
class Answer:
    """Rows of the store. They are read while they are asked for, once.

    Attributes:
        columns: Names and the store's types.
        pages: Rows as they come, each with its values in the order of the columns. A page may be empty.
    """

    columns: tuple[Column, ...]
    pages: Iterator[list[Values]]


@dataclass(slots=True)
class Spent:
    """What questions have cost.

    Attributes:
        questions: How many there were.
        scanned: Bytes that the store read for them.
        metered: Bytes that it bills: at least 10 MB a question, where it bills by bytes at all.
    """

    questions: int = 0
    scanned: int = 0
    metered: int = 0


class Store(Protocol):
    """What the exporter asks of a store."""

    @property
    def spent(self) -> Spent:
        """What the questions so far have cost."""

    def count_anew(self) -> None:
        """Begin to count anew what questions cost: limits are for what is asked from here on."""

    def tally(self, day: date) -> Tally:
        """Return how many rows each minute of a day has."""

    def columns(self, span: Span) -> tuple[Column, ...]:
        """Return the columns that the store has, whatever rows they have values in.

        Args:
            span: A time in which there are rows.
        """

    def filled(self, day: date, names: Collection[str]) -> set[str]:
        """Return which of these columns have a value in a row of a day."""

    def rows(self, span: Span, columns: tuple[Column, ...]) -> Answer:
        """Return the columns of the rows of a time, in an order that is always the same, first by time."""


def whole(day: date) -> Span:
    """Return a day's time."""
    return Span(_minute(day, 0), _minute(day, MINUTES))


def minute_of(day: date, minute: int) -> Span:
    """Return the time of one of a day's minutes, from 0 to 1439."""
    return Span(_minute(day, minute), _minute(day, minute + 1))


def slices(day: date, tally: Tally, limit: int = SLICE_ROWS) -> Iterator[Span]:
    """Cut a day in times of at most so many rows each, at whole minutes; together they are the whole day.

    Args:
        day: The day in UTC.
        tally: How many rows its minutes have.
        limit: How many rows a time may have, unless a single minute has more.
    """
    start, rows = 0, 0
    for minute in sorted(tally):
        if rows and rows + tally[minute] > limit:
            yield Span(_minute(day, start), _minute(day, minute))
            start, rows = minute, 0
        rows += tally[minute]
    yield Span(_minute(day, start), _minute(day, MINUTES))


def _minute(day: date, minute: int) -> str:
    midnight = datetime(day.year, day.month, day.day, tzinfo=UTC)
    return f"{midnight + timedelta(minutes=minute):%Y-%m-%d %H:%M:%S}.000000000"


def places(columns: Iterable[Column]) -> dict[str, int]:
    """Return where columns are in a row, by their names."""
    return {column.name: place for place, column in enumerate(columns)}


def minute(time: str) -> int:
    """Return which of its day's minutes a time is in, from 0 to 1439; the time as the store writes it."""
    return int(time[11:13]) * 60 + int(time[14:16])


def extended(known: tuple[Column, ...], found: Iterable[Column]) -> tuple[Column, ...]:
    """Return the columns that files have: the known ones where they were, new ones after them by name.

    The day's own columns are left out: in the lake, the path says them.
    """
    known = known or FIRST_COLUMNS
    by_name = {column.name: column for column in found if column.name not in PARTITION}
    if OVERFLOW in by_name:
        # Where a whole record has fields that the table has no column for.
        by_name.setdefault(EXTRA, Column(EXTRA, "VARCHAR"))
    return (*known, *(by_name[name] for name in sorted(by_name.keys() - {column.name for column in known})))
