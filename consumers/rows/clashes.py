"""Columns whose types the store refuses, and the rows that do without them. Pure.

No schema has to declare a field, so only the store may know that its column is of another type. Such a value
goes into `_extra`. A column never changes its type, so a row that was refused is always refused: however
often a record is delivered, and to whichever environment, its row in the end is the same.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final

from tagline import Record

from consumers.rows.table import Plans, Row, row

RowKind = tuple[Any, ...]
"""A type of record, and the names and types of a row's columns."""

MAX_KINDS: Final = 1_000  # so that memory is bounded


def kind_of_row(row: Row) -> RowKind:
    """Return what a row has in common with those that the store judges alike."""
    return (row.type, *((name, measure.type) for name, measure in row.measures.items()))


class Clashes:
    """Which columns the store has refused, by the kind of row: as much as one environment has seen.

    Args:
        plans: What is declared of records.
    """

    def __init__(self, plans: Plans) -> None:
        self._plans = plans
        self._known: dict[RowKind, frozenset[str]] = {}

    def __contains__(self, kind: RowKind) -> bool:
        """Tell whether rows of this kind are known to be refused."""
        return kind in self._known

    def row(self, record: Record, source: str, left_out: frozenset[str]) -> tuple[Row, frozenset[str]]:
        """Return a record's row without the columns that are known to be refused, and all that it leaves out.

        Args:
            record: The record.
            source: The log group that it came from.
            left_out: Columns that the row does not have in any case.

        Raises:
            UnmappableError: As `table.row`.
        """
        made = row(record, source, self._plans, left_out)
        while self._known and (more := self._known.get(kind_of_row(made))):
            left_out |= more
            made = row(record, source, self._plans, left_out)
        return made, left_out

    def leave_out(self, record: Record, refused: Row, named: Collection[str]) -> frozenset[str]:
        """Return which columns a refused row has to do without; none if it cannot do without any.

        If the store names them, they are remembered: it refuses all rows of this kind. If it names none,
        these are all columns that no schema demands.

        Args:
            record: The record.
            refused: Its row.
            named: The columns that the store names.
        """
        kind = kind_of_row(refused)
        if kind in self._known:
            return self._known[kind]
        _, plan = self._plans.of(record.type)
        optional = plan.optional_columns(record.fields) & refused.measures.keys()
        columns = optional & frozenset(named) if named else optional
        if named and columns and len(self._known) < MAX_KINDS:
            self._known[kind] = columns
        return columns
