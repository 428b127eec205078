"""What questions to a store cost, counted and limited, whichever store it is."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta

from exporter.store import (
    Answer,
    Bill,
    BillingStore,
    Column,
    Days,
    Hour,
    QuestionTooLargeError,
    Span,
    Store,
    Tally,
)

_GB = 10**9


@dataclass(slots=True)
class Spent:
    """What questions have cost.

    Attributes:
        questions: How many there were.
        scanned: Bytes that the store read for them.
        billed: Bytes that it bills; a store may bill more than it reads.
    """

    questions: int = 0
    scanned: int = 0
    billed: int = 0

    def since(self, before: Spent) -> Spent:
        """Return what was spent after `before`, an earlier copy of this."""
        return Spent(
            self.questions - before.questions, self.scanned - before.scanned, self.billed - before.billed
        )


class Metered:
    """A store whose questions are counted, and refused once they have read more than a limit.

    Args:
        store: The store; this object receives its bills from now on.
        max_scanned: Bytes that the store may read until the count is reset.

    Attributes:
        spent: What the questions since the last reset have cost.
    """

    def __init__(self, store: BillingStore, max_scanned: int = 1_000 * _GB) -> None:
        self._store = store
        self._max_scanned = max_scanned
        self.spent = Spent()
        store.bill = self._open_bill

    def reset(self, scanned: int = 0) -> None:
        """Start to count again: the limit applies to the questions from here on.

        Args:
            scanned: Bytes that count towards the limit already.
        """
        self.spent = Spent(scanned=scanned)

    def _open_bill(self) -> Bill:
        # A page that another thread still reads after a reset counts for what was spent before.
        spent = self.spent
        before = replace(spent)

        def bill(scanned: int, billed: int) -> None:
            spent.questions = before.questions + 1
            spent.scanned = before.scanned + scanned
            spent.billed = before.billed + billed
            if spent.scanned > self._max_scanned:
                raise QuestionTooLargeError(
                    f"{self.name} has read {spent.scanned / _GB:,.1f} GB, and the limit is "
                    f"{self._max_scanned / _GB:,.1f} GB: raise EXPORT_MAX_SCANNED_GB"
                )

        return bill

    @property
    def name(self) -> str:
        """As the store."""
        return self._store.name

    @property
    def settles_after(self) -> timedelta:
        """As the store."""
        return self._store.settles_after

    @property
    def keeps_for(self) -> timedelta | None:
        """As the store."""
        return self._store.keeps_for

    @property
    def includes_exports(self) -> bool:
        """As the store."""
        return self._store.includes_exports

    def whole_since(self, day: date, now: datetime) -> str | None:
        """As the store."""
        return self._store.whole_since(day, now)

    def count(self) -> int:
        """As the store."""
        return self._store.count()

    def days(self) -> Days | None:
        """As the store."""
        return self._store.days()

    def sources(self, day: date) -> dict[str, int]:
        """As the store."""
        return self._store.sources(day)

    def tally(self, day: date) -> Tally:
        """As the store."""
        return self._store.tally(day)

    def columns(self, day: date) -> tuple[Column, ...]:
        """As the store."""
        return self._store.columns(day)

    def filled(self, day: date, names: Collection[str]) -> set[str]:
        """As the store."""
        return self._store.filled(day, names)

    def hours(self, day: date) -> dict[int, Hour]:
        """As the store."""
        return self._store.hours(day)

    def within(self, hours: range) -> Store:
        """As the store, whose bill comes here."""
        return self._store.within(hours)

    def rows(self, span: Span, columns: tuple[Column, ...]) -> Answer:
        """As the store."""
        return self._store.rows(span, columns)

    def erasable(self, day: date, client: str) -> int:
        """Return how many rows of a client can be removed, which costs no question."""
        return self._store.erasable(day, client)

    def erase(self, day: date) -> int:
        """As the store."""
        return self._store.erase(day)
