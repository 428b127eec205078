"""The rows and columns of a lake's file that a download has, in the download's format. Pure, streaming."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from operator import itemgetter

from exporter.downloads.jobs import Cells, Request
from exporter.lake.batch import Batch
from exporter.lake.cells import MARKS, safe
from exporter.lake.formats import Format, ZipFormat
from exporter.store import Column, Values, places


class Selected:
    """The rows of a file that are requested, as text. A file without a column has no value in it.

    Args:
        chunks: The file.
        kept_as: The file's format.
        columns: The file's columns.
        request: The rows, the columns, and the format of the text.

    Attributes:
        rows: How many rows have been written, without the header.
    """

    def __init__(
        self, chunks: Iterable[bytes], kept_as: Format, columns: tuple[Column, ...], request: Request
    ) -> None:
        self.rows = 0
        self._batches = kept_as.read(chunks, columns)
        self._columns = columns
        self._request = request
        self._ending = request.ending(kept_as)

    def __iter__(self) -> Iterator[bytes]:
        """Yield the text."""
        at = places(self._columns)
        allowed = self._request.allowed
        names = self._request.columns or tuple(name for name in at if not allowed or name in allowed)
        asked = tuple(self._columns[at[name]] if name in at else Column(name, "text") for name in names)
        checks = [(at.get(name), value) for name, value in self._request.values.items()]
        project = _projection([at.get(name) for name in names], len(self._columns))
        write, header = self._ending.text(asked)
        if self._ending is ZipFormat.CSV and self._request.cells is Cells.SAFE:
            header = write(Batch([[safe(name) for name in names]]))
            write = _safe_lines(asked, write)
        if header:
            yield header
        for batch in self._batches:
            rows = batch.rows
            for place, value in checks:
                rows = [row for row in rows if row[place] == value] if place is not None else []
            if rows:
                self.rows += len(rows)
                yield write(Batch(rows if project is None else list(map(project, rows)), batch.empties))


def _safe_lines(columns: tuple[Column, ...], write: Callable[[Batch], bytes]) -> Callable[[Batch], bytes]:
    """Return a function that writes rows as `write` does, with text that a spreadsheet does not run."""
    texts = [place for place, column in enumerate(columns) if column.type == "text"]

    def lines(batch: Batch) -> bytes:
        rows: list[Values] = []
        for values in batch.rows:
            row = list(values)
            for place in texts:
                if (value := row[place]) and value[0] in MARKS:
                    row[place] = safe(value)
            rows.append(row)
        return write(Batch(rows, batch.empties))

    return lines


def _projection(wanted: list[int | None], count: int) -> Callable[[Values], Values] | None:
    """Return what takes the wanted values of a row, None for a missing one; None if a row is as wanted.

    Args:
        wanted: The values' places, None for a column that the rows do not have.
        count: How many values a row has.
    """
    if wanted == list(range(count)):
        return None
    if None in wanted or len(wanted) == 1:  # `itemgetter` of one place gives a value, not a tuple
        return lambda row: [None if place is None else row[place] for place in wanted]
    return itemgetter(*wanted)
