"""CSV: UTF-8, a header, line feeds. No value is nothing, and empty text is `""`. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator

from exporter.lake.batch import Batch
from exporter.lake.text import TextWriter, lines, pages
from exporter.store import Column, Values

# A value that has one of these is in quotes.
_MARKS = (",", '"', "\n", "\r")
_FIELD = re.compile(r',("[^"]*(?:""[^"]*)*"|[^",][^,]*|)')


def writer(columns: tuple[Column, ...], *, pack: bool) -> TextWriter:
    """Return a CSV file to write, with its header."""
    text_of, header = text(columns)
    return TextWriter(text_of, header=header, pack=pack)


def text(columns: tuple[Column, ...]) -> tuple[Callable[[Batch], bytes], bytes]:
    """Return what writes rows as CSV, and the header."""
    return csv_lines, csv_lines(Batch([[column.name for column in columns]]))


def csv_lines(batch: Batch) -> bytes:
    """Return rows as CSV.

    A column at a time: the csv module looks at each character of each value. Most columns have nothing to
    quote, which one look at all their values together tells.
    """
    columns = (_csv_column(values, empties=batch.empties) for values in zip(*batch.rows, strict=True))
    return "".join([f"{line}\n" for line in map(",".join, zip(*columns, strict=True))]).encode()


def _csv_column(values: tuple[str | None, ...], *, empties: bool) -> Iterable[str]:
    """Return a column's values as they are written."""
    texts: Iterable[str] = [value or "" for value in values]
    together = "".join(texts)
    if any(mark in together for mark in _MARKS):
        texts = [_quoted(text) if any(mark in text for mark in _MARKS) else text for text in texts]
    if empties and "" in values:
        texts = ['""' if value == "" else text for value, text in zip(values, texts, strict=True)]
    return texts


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
