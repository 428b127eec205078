"""The formats of downloads and of the lake's part files: a line for each. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from enum import StrEnum
from importlib import import_module
from typing import NamedTuple, Protocol, Self, cast

from exporter.lake.batch import Batch, Writer
from exporter.lake.manifest import beginning
from exporter.store import Column, Values


class ZipFormat(StrEnum):
    """A format of the files in a download, by their ending. To add one, write its module and add its line.

    Attributes:
        module: The module of this package that writes and reads it; empty for any format. It is imported when
            it is first used: libraries are large, and a function that only names files ships none of them.
        typed: Whether its files have types, and are read by the names of their columns; otherwise all values
            are text, and columns are read by their position.
    """

    module: str
    typed: bool

    CSV = "csv", "csv_files"
    JSONL = "jsonl", "jsonl_files"
    PARQUET = "parquet", "parquet", True
    ANY = "any"  # each day in the format that the lake has

    def __new__(cls, ending: str, module: str = "", typed: bool = False) -> Self:
        """Make the member of a line."""
        member = str.__new__(cls, ending)
        member._value_ = ending
        member.module, member.typed = module, typed
        return member

    def text(self, columns: tuple[Column, ...]) -> tuple[Callable[[Batch], bytes], bytes]:
        """Return what writes rows as text, and the text's first line, which may be empty.

        Args:
            columns: Names and types, in the order of the rows' values.
        """
        return cast("_TextModule", module_of(self)).text(columns)

    @property
    def made_of(self) -> tuple[Format, ...]:
        """The lake's formats that its files can be made of, the quickest first."""
        order = list(ZipFormat)
        # What is packed already is copied.
        kinds = sorted(Format, key=lambda kind: (order.index(kind.rules.unpacked), not kind.is_gzip))
        own = [kind for kind in kinds if self in (kind.rules.unpacked, ZipFormat.ANY)]
        others = [kind for kind in kinds if kind.rules.rewritten and not self.typed]
        return tuple(dict.fromkeys([*own, *others]))


class Rules(NamedTuple):
    """The rules of a format of the lake.

    Attributes:
        unpacked: The format of its files in a download, where nothing is packed twice.
        content_type: The media type of its files.
        table: The name of the table over its files; empty without a table.
        rewritten: Whether its files can be written again in another text format.
    """

    unpacked: ZipFormat
    content_type: str
    table: str = ""
    rewritten: bool = False

    @property
    def typed(self) -> bool:
        """Whether its files have types; see `ZipFormat`."""
        return self.unpacked.typed


class Format(StrEnum):
    """A format of the lake, by the ending of its files' keys; `ExportFormats` of the template lists them."""

    rules: Rules

    CSV = "csv", Rules(ZipFormat.CSV, "text/csv", rewritten=True)
    CSV_GZ = "csv.gz", Rules(ZipFormat.CSV, "application/gzip", table="records_csv", rewritten=True)
    JSONL_GZ = "jsonl.gz", Rules(ZipFormat.JSONL, "application/gzip", rewritten=True)
    PARQUET = "parquet", Rules(ZipFormat.PARQUET, "application/vnd.apache.parquet", table="records")

    def __new__(cls, ending: str, *rules: Rules) -> Self:
        """Make the member of a line."""
        member = str.__new__(cls, ending)
        member._value_ = ending
        (member.rules,) = rules
        return member

    @property
    def is_gzip(self) -> bool:
        """Whether its files are text packed with gzip, which goes into a zip as it is packed."""
        return self.endswith(".gz")

    def writer(self, columns: tuple[Column, ...]) -> Writer:
        """Return a file to write.

        Args:
            columns: Names and types, in the order of the rows' values.
        """
        return module_of(self.rules.unpacked).writer(columns, pack=self.is_gzip)

    def read(self, chunks: Iterable[bytes], columns: tuple[Column, ...]) -> Iterator[Batch]:
        """Yield the rows of a file.

        Args:
            chunks: The file.
            columns: The file's columns, as its manifest names them.

        Raises:
            ValueError: If the file is damaged, ends early, or has other columns.
        """
        if self.is_gzip:
            from exporter.lake.text import gunzipped  # noqa: PLC0415 - it needs a library

            chunks = gunzipped(chunks)
        for rows in module_of(self.rules.unpacked).rows(chunks, columns):
            if any(len(row) != len(columns) for row in rows):
                raise ValueError(f"a row does not have {len(columns)} values, one for each column")
            yield Batch(rows, any("" in row for row in rows))


class _Module(Protocol):
    """A module that writes and reads a format."""

    def writer(self, columns: tuple[Column, ...], *, pack: bool) -> Writer: ...
    def rows(self, chunks: Iterable[bytes], columns: tuple[Column, ...]) -> Iterator[list[Values]]: ...


class _TextModule(_Module, Protocol):
    """A module of a text format."""

    def text(self, columns: tuple[Column, ...]) -> tuple[Callable[[Batch], bytes], bytes]: ...


def module_of(kind: ZipFormat) -> _Module:
    """Return the module that writes and reads a format, imported."""
    return cast("_Module", import_module(f"exporter.lake.{kind.module}"))


def format_of_folder(key: str) -> Format:
    """Return the format of a day's folder, or of a key in it."""
    return next(kind for kind in Format if key.startswith(beginning(kind)))


def format_of(key: str) -> Format | None:
    """Return the format of a file by its key, or None if it is not a part's."""
    _, _, ending = key.rpartition("/")[2].partition(".")
    return Format(ending) if ending in set(Format) else None
