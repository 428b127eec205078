"""CSV: UTF-8, a header, line feeds. No value is nothing, and empty text is `""`. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from exporter.lake.batch import Batch
from exporter.lake.cells import count_formulas, is_formula
from exporter.lake.text import TextWriter, lines, pages
from exporter.store import Column, Values

# A value that has one of these is in quotes.
_MARKS = (",", '"', "\n", "\r")
_FIELD = re.compile(r',("[^"]*(?:""[^"]*)*"|[^",][^,]*|)')


def writer(columns: tuple[Column, ...], *, pack: bool) -> TextWriter:
    """Return a CSV file to write, with its header."""
    return _CsvFile(columns, pack=pack)


def text(columns: tuple[Column, ...]) -> tuple[Callable[[Batch], bytes], bytes]:
    """Return what writes rows as CSV, and the header."""
    return csv_lines, csv_lines(Batch([[column.name for column in columns]]))


class _CsvFile(TextWriter):
    """A CSV file while it is written; it counts the cells that a spreadsheet would run."""

    def __init__(self, columns: tuple[Column, ...], *, pack: bool) -> None:
        self._formulas = sum(is_formula(column.name) for column in columns)
        self._is_text = tuple(column.type == "text" for column in columns)
        _, header = text(columns)
        super().__init__(self._lines, header=header, pack=pack)

    def summary(self) -> dict[str, Any]:
        """Return the fields of the file's entry in a manifest that are about its text."""
        return super().summary() | {"formulas": self._formulas}

    def _lines(self, batch: Batch) -> bytes:
        texts, togethers = _texts(batch)
        for is_text, values, together in zip(self._is_text, texts, togethers, strict=True):
            if is_text:
                self._formulas += count_formulas(values, together)
        return _joined(texts, togethers, batch)


def csv_lines(batch: Batch) -> bytes:
    """Return rows as CSV."""
    return _joined(*_texts(batch), batch)


def _texts(batch: Batch) -> tuple[list[list[str]], list[str]]:
    """Return the columns of rows as texts, and for each column all its texts together."""
    texts = [[value or "" for value in values] for values in zip(*batch.rows, strict=True)]
    return texts, list(map("".join, texts))


def _joined(texts: list[list[str]], togethers: list[str], batch: Batch) -> bytes:
    """Return columns as lines.

    A column at a time: the csv module looks at each character of each value. Most columns have nothing to
    quote, which one look at all their values together tells.
    """
    columns: Iterable[Iterable[str]] = map(_csv_column, texts, togethers)
    if batch.empties:
        columns = map(_with_empties, columns, zip(*batch.rows, strict=True))
    return "".join([f"{line}\n" for line in map(",".join, zip(*columns, strict=True))]).encode()


def _csv_column(texts: list[str], together: str) -> Iterable[str]:
    """Return a column's values as they are written."""
    if any(mark in together for mark in _MARKS):
        # As in `_MARKS`: to write it out takes a quarter of the time of a loop, for each value.
        return [
            _quoted(text) if "," in text or '"' in text or "\n" in text or "\r" in text else text
            for text in texts
        ]
    return texts


def _with_empties(texts: Iterable[str], values: tuple[str | None, ...]) -> Iterable[str]:
    """Return a column's values as they are written, with quotes for empty text."""
    if "" not in values:
        return texts
    return ['""' if value == "" else text for value, text in zip(values, texts, strict=True)]


def _quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'


def rows(chunks: Iterable[bytes], columns: tuple[Column, ...]) -> Iterator[list[Values]]:
    """Yield pages of a file's rows.

    Raises:
        ValueError: If the header does not name these columns, a row cannot be read, or the file ends inside
            of a value.
    """
    records = _records(chunks)
    header = next(records, b"")
    if _values(header) != [column.name for column in columns]:
        raise ValueError(f"the file's columns are {header.decode()}, not those of its manifest")
    yield from pages(records, _values)


def _records(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield rows as they are written: a line each, or several if values have line ends."""
    record: list[bytes] = []
    is_open = False
    for line in lines(chunks):
        # A value's quotes come in pairs: after an odd number of them, a value continues in the next line.
        is_open ^= line.count(b'"') % 2 == 1
        if not is_open and not record:
            yield line
            continue
        record.append(line)
        if not is_open:
            yield b"\n".join(record)
            record.clear()
    if record:
        raise ValueError("the file ends inside of a value")


def _values(record: bytes) -> list[str | None]:
    text = record.decode()
    if '"' not in text:
        return [value or None for value in text.split(",")]
    fields: list[str] = _FIELD.findall(f",{text}")
    if sum(map(len, fields)) + len(fields) != len(text) + 1:
        raise ValueError(f"a row cannot be read: a quote is out of place in {text[:200]!r}")
    return [field[1:-1].replace('""', '"') if field.startswith('"') else field or None for field in fields]
