"""Makes rows of the store whole: long values come back, empty text and missing values differ again. Pure."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from itertools import islice

from consumers.rows.table import (
    DIMENSIONS,
    EMPTY,
    EXTRA,
    ID,
    OVERFLOW,
    PARTITION,
    SOURCE,
    UNDECLARED,
    Measure,
    Plans,
    Row,
    column_name,
    overflow_row,
)
from exporter.lake.batch import Batch
from exporter.lake.manifest import TYPES
from exporter.store import TIME, TYPE, Column, Type, Values, places

# Where a file may end, counted from its beginning: at the same row, whatever pages the rows came in.
BATCH_ROWS = 1_000
# A whole record can be as long as a line, 100 times as long as a row: few of them are in memory at once.
BATCH_WHOLE_ROWS = 16

Fetch = Callable[[list[str]], Iterable[bytes | None]]


class WholeRows:
    """Makes rows whole, and counts what it did.

    Args:
        columns: The columns of the rows.
        fetch: Gives the whole records by their keys, in order; None for one that is gone.
        plans: What is declared of records.

    Attributes:
        restored: Rows that had a value put back.
        not_restored: Rows with a value that stays cut, because the whole record is gone.
    """

    def __init__(self, columns: tuple[Column, ...], fetch: Fetch, plans: Plans = UNDECLARED) -> None:
        self.restored = self.not_restored = 0
        self._columns = columns
        self._places = places(columns)
        self._fetch = fetch
        self._plans = plans

    def batches(self, pages: Iterable[list[Values]]) -> Iterator[Batch]:
        """Yield whole rows, 1,000 together, or fewer where 16 of them were too long for the store."""
        rows: list[Values] = []
        whole, empties = 0, False
        overflow, empty = self._places.get(OVERFLOW), self._places.get(EMPTY)
        for page in pages:
            if _none(page, overflow) and _none(page, empty):
                rows += page
                start = 0
                while len(rows) - start >= BATCH_ROWS:
                    yield Batch(rows[start : start + BATCH_ROWS], empties)
                    start += BATCH_ROWS
                    whole, empties = 0, False
                del rows[:start]
                continue
            for row, is_whole in self._made_whole(page):
                empties |= self._mark_empty(row)
                rows.append(row)
                whole += is_whole
                if len(rows) == BATCH_ROWS or whole == BATCH_WHOLE_ROWS:
                    yield Batch(rows, empties)
                    rows, whole, empties = [], 0, False
        if rows:
            yield Batch(rows, empties)

    def _made_whole(self, page: list[Values]) -> Iterator[tuple[list[str | None], bool]]:
        """Yield each row, whole if the store has it shortened, and whether it had."""
        overflow = self._places.get(OVERFLOW)
        keys = [] if overflow is None else [key for row in page if (key := row[overflow]) is not None]
        bodies = self._bodies(keys)
        for row in page:
            values = list(row)
            cut = overflow is not None and values[overflow] is not None
            if cut:
                self._put_back(values, next(bodies))
            yield values, cut

    def _bodies(self, keys: list[str]) -> Iterator[bytes | None]:
        rest = iter(keys)
        while some := list(islice(rest, BATCH_WHOLE_ROWS)):
            yield from self._fetch(some)

    def _put_back(self, values: list[str | None], body: bytes | None) -> None:
        """Put the whole values in the place of the shortened ones."""
        row = None
        if body is not None:
            try:
                row = overflow_row(body, values[self._places[SOURCE]] or "", self._plans)
            except ValueError:  # no record, or one that the table cannot hold any more
                row = None
        if row is None or not self._is_row_of(row, values):
            self.not_restored += 1
            return
        self.restored += 1
        beyond: dict[str, object] = {}
        for name, type_, value in _texts(row):
            place = self._places.get(name)
            if place is None:
                # No row that fitted has such a field, so the table has no column for it.
                beyond[name] = value
            elif self._columns[place].type == type_:
                if values[place] is None or type_ == "text":
                    # Numbers and truths are never shortened: they stay as in the store.
                    values[place] = value
            elif values[place] is None:
                # It had no place in the row, or the store would have refused a value of another type.
                beyond[name] = value
        self._put_extra(values, row, beyond)

    def _put_extra(self, values: list[str | None], row: Row, beyond: dict[str, object]) -> None:
        """Put the fields without a column into `_extra`, whose own value may be cut."""
        own = row.measures.get(EXTRA)
        if beyond:
            extra = (json.loads(str(own.value)) if own else {}) | beyond
            values[self._places[EXTRA]] = json.dumps(extra, ensure_ascii=False, separators=(",", ":"))
        elif own is None and EXTRA in self._places:
            values[self._places[EXTRA]] = None  # it had fields that the store refused: they have columns here

    def _is_row_of(self, row: Row, values: list[str | None]) -> bool:
        """Tell whether a whole record's row is the one that the store has shortened.

        Releases before `REVISION` 3 gave records of one `_id` the same name, so an object may be another's.
        """
        time = str(values[self._places[TIME]])[: len("YYYY-MM-DD HH:MM:SS.mmm")]
        return (row.id, row.type, _time(row.time)) == (
            values[self._places[ID]],
            values[self._places[TYPE]],
            time,
        )

    def _mark_empty(self, row: list[str | None]) -> bool:
        """Put empty text where `_empty` names the field, and tell whether there is any."""
        place = self._places.get(EMPTY)
        listed = None if place is None else row[place]
        if listed is None:
            return False
        found = False
        try:
            fields = json.loads(listed)
        except ValueError:  # it was cut, and the whole record is gone
            return False
        for field in fields:
            at = self._places.get(field if field in DIMENSIONS else column_name(field))
            # A record's empty text has no place in a number's column. Rows of the lake have theirs already.
            if at is not None and not row[at] and self._columns[at].type == "text":
                row[at] = ""
                found = True
        return found


def _texts(row: Row) -> Iterator[tuple[str, Type, str]]:
    """Yield a row's columns with types and values as in the store, without what is in the path."""
    for name, value in row.dimensions.items():
        yield name, "text", value
    for name, measure in row.measures.items():
        if name not in (OVERFLOW, *PARTITION):
            yield name, TYPES[measure.type], _text(measure)


def _text(measure: Measure) -> str:
    value = measure.value
    if isinstance(value, str):
        return value
    return str(value).lower() if isinstance(value, bool) else str(value).removesuffix(".0")


def _time(milliseconds: int) -> str:
    moment = datetime.fromtimestamp(milliseconds // 1000, UTC).replace(tzinfo=None)
    return f"{moment.isoformat(' ', 'seconds')}.{milliseconds % 1000:03}"


def _none(page: list[Values], place: int | None) -> bool:
    """Tell whether no row of a page has a value at a place."""
    return place is None or all(row[place] is None for row in page)
