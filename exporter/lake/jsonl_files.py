"""JSON lines: an object for each row, with the values that it has. Pure."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import msgspec

from exporter.lake.batch import Batch
from exporter.lake.text import TextWriter, lines, pages
from exporter.store import Column, Type, Values

_TRUTHS = {"true": True, "false": False}


# Doubles that JSON has no numbers for, and the empty text of a field that has numbers elsewhere.
_NOT_NUMBERS = {"NaN", "Infinity", "-Infinity", ""}


def _number(text: str) -> msgspec.Raw | str:
    """Return a number with the digits that it has, or a text if JSON has no such number."""
    return text if text in _NOT_NUMBERS else msgspec.Raw(text.encode())


_VALUES: dict[Type, Callable[[str], Any]] = {
    "integer": _number,
    "number": _number,
    "boolean": lambda text: _TRUTHS.get(text, text),
}


def writer(columns: tuple[Column, ...], *, pack: bool) -> TextWriter:
    """Return a file of JSON lines to write."""
    return TextWriter(json_lines(columns), pack=pack)


def text(columns: tuple[Column, ...]) -> tuple[Callable[[Batch], bytes], bytes]:
    """Return what writes rows as JSON lines, without a header."""
    return json_lines(columns), b""


def json_lines(columns: tuple[Column, ...]) -> Callable[[Batch], bytes]:
    """Return a function that writes rows as JSON lines: numbers as the store writes them, and no nulls."""
    encode = msgspec.json.Encoder().encode_lines
    places = [(column.name, _VALUES.get(column.type)) for column in columns]

    def text_of(batch: Batch) -> bytes:
        return encode(
            [
                {
                    name: made(value) if made else value
                    for (name, made), value in zip(places, row, strict=True)
                    if value is not None
                }
                for row in batch.rows
            ]
        )

    return text_of


def rows(chunks: Iterable[bytes], columns: tuple[Column, ...]) -> Iterator[list[Values]]:
    """Yield pages of a file's rows.

    Raises:
        ValueError: If a line is not a JSON object, or has another column.
    """
    names = [column.name for column in columns]
    known = set(names)

    def row_of(line: bytes) -> Values:
        read = json.loads(line, parse_float=str, parse_int=str)
        if not isinstance(read, dict):
            raise ValueError(f"a line is not a JSON object: {line[:200]!r}")  # noqa: TRY004 - as the others
        if not read.keys() <= known:
            raise ValueError(f"a line has the columns {sorted(read.keys() - known)}, unlike the manifest")
        values = map(read.get, names)
        return [str(value).lower() if isinstance(value, bool) else value for value in values]

    return pages(lines(chunks), row_of)
