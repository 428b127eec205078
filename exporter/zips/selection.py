"""Which rows and columns of the lake's text a download has, and as which text. Pure, streaming.

Values are passed on as they are written, quotes and all: in the lake's CSV, nothing and empty text differ by
their quotes, and a reader that takes them off could not put them back.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

# What is collected before it is passed on.
_CHUNK_BYTES = 256 * 1024

_FIELD = re.compile(rb',("(?:[^"]|"")*"|[^,]*)')
_NUMBER = re.compile(rb"-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][-+]?\d+)?")
_NUMBERS = {"integer", "number"}
_BOOLEAN = "boolean"
_TRUTHS = {b"true", b"false"}
# Made once: `json.dumps` with an argument makes an encoder for each value.
_to_json = json.JSONEncoder(ensure_ascii=False).encode


@dataclass(frozen=True, slots=True)
class Selection:
    """Which rows and columns.

    Attributes:
        columns: The columns in their order; none for all of a file.
        values: What a row has to have, by column. A file without the column has no such row.
    """

    columns: tuple[str, ...] = ()
    values: Mapping[str, str] = field(default_factory=dict)


class Selected:
    """The rows of a file that are wanted, as text.

    Args:
        texts: The file, in pieces of any size.
        write: What makes text of it: `csv_lines`, `csv_to_jsonl` or `jsonl_lines`, with all but the text.

    Attributes:
        rows: How many rows there have been, without the header.
    """

    def __init__(self, texts: Iterable[bytes], write: Callable[[Iterable[bytes]], Iterator[bytes]]) -> None:
        self._texts = texts
        self._write = write
        self.rows = 0

    def __iter__(self) -> Iterator[bytes]:
        """Yield the text. The first line that is written is the header, or empty where there is none."""
        lines = self._write(self._texts)
        held = bytearray(next(lines, b""))
        for line in lines:
            held += line
            self.rows += 1
            if len(held) >= _CHUNK_BYTES:
                yield bytes(held)
                held.clear()
        yield bytes(held)


def csv_lines(texts: Iterable[bytes], selection: Selection) -> Iterator[bytes]:
    """Yield the header and the wanted rows of a CSV file, with the wanted columns."""
    names, rows = _read_csv(texts)
    columns = selection.columns or names
    places = [_place(names, column) for column in columns]
    if places == list(range(len(names))):
        places = []
    yield b",".join(map(_quoted, columns)) + b"\n"
    for row in _wanted(names, rows, selection.values):
        yield b",".join([row[place] for place in places] if places else row[:-1]) + b"\n"


def csv_to_jsonl(texts: Iterable[bytes], selection: Selection, kinds: Mapping[str, str]) -> Iterator[bytes]:
    """Yield the wanted rows of a CSV file as JSON objects, after a header that is empty.

    Args:
        texts: The file.
        selection: The rows and columns.
        kinds: The columns' types: integers and numbers become numbers, booleans `true` or `false`, all others
            text. A missing value is null.
    """
    yield b""
    names, rows = _read_csv(texts)
    columns = selection.columns or names
    wanted = [
        (_to_json(column).encode() + b": ", _place(names, column), kinds.get(column)) for column in columns
    ]
    for row in _wanted(names, rows, selection.values):
        values = (name + _json(row[place], kind) for name, place, kind in wanted)
        yield b"{" + b", ".join(values) + b"}\n"


def jsonl_lines(texts: Iterable[bytes], selection: Selection) -> Iterator[bytes]:
    """Yield the wanted rows of a file of JSON objects, after a header that is empty."""
    yield b""
    for line in _lines(texts):
        row = json.loads(line)
        if all(row.get(name) == value for name, value in selection.values.items()):
            if selection.columns:
                row = {column: row.get(column) for column in selection.columns}
                yield _to_json(row).encode() + b"\n"
            else:
                yield line + b"\n"


def _lines(texts: Iterable[bytes]) -> Iterator[bytes]:
    """Yield lines without their ends."""
    rest = b""
    for text in texts:
        *lines, rest = (rest + text).split(b"\n")
        yield from lines
    if rest:
        yield rest


def _csv_lines(texts: Iterable[bytes]) -> Iterator[bytes]:
    """Yield lines without their ends; an end inside quotes is none."""
    open_line: list[bytes] = []
    for line in _lines(texts):
        quote = line.count(b'"') % 2 == 1
        if open_line or quote:
            open_line.append(line)
            if not quote or len(open_line) == 1:
                continue
            yield b"\n".join(open_line)
            open_line.clear()
        else:
            yield line
    if open_line:
        yield b"\n".join(open_line)


def _read_csv(texts: Iterable[bytes]) -> tuple[tuple[str, ...], Iterator[list[bytes]]]:
    """Return the names in the header, and each row's values as they are written and then an empty one."""
    lines = _csv_lines(texts)
    names = tuple(_text(value).decode() for value in _values(next(lines, b""))[:-1])
    return names, map(_values, lines)


def _values(line: bytes) -> list[bytes]:
    values = _FIELD.findall(b"," + line) if b'"' in line else line.split(b",")
    values.append(b"")
    return values


def _place(names: tuple[str, ...], column: str) -> int:
    """Return where a column is; where there is none, the empty value at each row's end."""
    return names.index(column) if column in names else -1


def _wanted(
    names: tuple[str, ...], rows: Iterator[list[bytes]], values: Mapping[str, str]
) -> Iterator[list[bytes]]:
    checks = [(_place(names, name), value.encode()) for name, value in values.items()]
    for row in rows:
        if all(place >= 0 and _text(row[place]) == value for place, value in checks):
            yield row


def _text(value: bytes) -> bytes:
    return value[1:-1].replace(b'""', b'"') if value.startswith(b'"') else value


def _quoted(name: str) -> bytes:
    text = name.encode()
    return b'"' + text.replace(b'"', b'""') + b'"' if re.search(rb'[",\r\n]', text) else text


def _json(value: bytes, kind: str | None) -> bytes:
    if not value:
        return b"null"
    if (kind in _NUMBERS and _NUMBER.fullmatch(value)) or (kind == _BOOLEAN and value in _TRUTHS):
        return value
    return _to_json(_text(value).decode()).encode()
