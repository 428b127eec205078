"""Questions to the store, valid by construction, and what an answer looks like."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from typing import NamedTuple, Protocol

from consumers.table import DIMENSIONS, ID, PARTITION, SOURCE

# The columns that every answer begins with, in this order; the others follow by name.
TIME, TYPE = "time", "_type"
FIRST = (TIME, TYPE, ID, SOURCE, *DIMENSIONS)


class Column(NamedTuple):
    """A column of an answer."""

    name: str
    type: str


Values = tuple[str | None, ...]


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
class Answer:
    """Rows of the store. They are read while they are asked for, once.

    Attributes:
        columns: Names and the store's types.
        rows: The values in the order of the columns, as text; None where there is none.
    """

    columns: tuple[Column, ...]
    rows: Iterator[Values]


class Store(Protocol):
    """What the exporter asks of a store."""

    def count(self, days: Days) -> int:
        """Return how many rows there are."""

    def rows(self, days: Days) -> Answer:
        """Return the rows by time, then identity."""


def arranged(answer: Answer) -> Answer:
    """Return the answer with its columns in the lake's order, which does not depend on the store's.

    The day's own columns are left out: in the lake, the path says them.
    """
    names = [column.name for column in answer.columns]
    order = [name for name in FIRST if name in names]
    order += sorted(set(names) - set(FIRST) - set(PARTITION))
    places = [names.index(name) for name in order]
    return Answer(
        tuple(answer.columns[place] for place in places),
        (tuple(row[place] for place in places) for row in answer.rows),
    )
