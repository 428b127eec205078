"""The formats of part files: a line for each, and the module that writes and reads it. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from enum import StrEnum
from importlib import import_module
from typing import NamedTuple, Protocol, Self, cast

from exporter.lake.batch import Batch, Writer
from exporter.store import Column, Values


class Rules(NamedTuple):
    """The rules of a format.

    Attributes:
        module: The module of this package that writes and reads it. It is imported when it is first used:
            libraries are large, and a function that only names files ships none of them.
        content_type: The media type of its files.
        unpacked: The ending of its files in a download, where nothing is packed twice.
        table: The name of the template's table over its files; empty if there is no table.
        typed: Whether its files have types, and are read by the names of their columns; otherwise all values
            are text, and columns are read by their position.
    """

    module: str
    content_type: str
    unpacked: str
    table: str = ""
    typed: bool = False


class Format(StrEnum):
    """A format, by the ending of its files' keys. To add one, write its module and add its line here."""

    rules: Rules

    CSV = "csv", Rules("csv_files", "text/csv", "csv")
    CSV_GZ = "csv.gz", Rules("csv_files", "application/gzip", "csv", table="records_csv")
    JSONL_GZ = "jsonl.gz", Rules("jsonl_files", "application/gzip", "jsonl")
    PARQUET = (
        "parquet",
        Rules("parquet", "application/vnd.apache.parquet", "parquet", table="records", typed=True),
    )

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
        return self._module().writer(columns, pack=self.is_gzip)

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
        for rows in self._module().rows(chunks, columns):
            if any(len(row) != len(columns) for row in rows):
                raise ValueError(f"a row does not have {len(columns)} values, one for each column")
            yield Batch(rows, any("" in row for row in rows))

    def _module(self) -> _Module:
        return cast("_Module", import_module(f"exporter.lake.{self.rules.module}"))


class _Module(Protocol):
    """A module that writes and reads a format."""

    def writer(self, columns: tuple[Column, ...], *, pack: bool) -> Writer: ...
    def rows(self, chunks: Iterable[bytes], columns: tuple[Column, ...]) -> Iterator[list[Values]]: ...


def format_of(key: str) -> Format | None:
    """Return the format of a file by its key, or None if it is not a part's."""
    _, _, ending = key.rpartition("/")[2].partition(".")
    return Format(ending) if ending in set(Format) else None
