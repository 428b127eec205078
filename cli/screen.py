"""The terminal: where results and progress go, and the rows of an answer."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


class Screen(Console):
    """A terminal on which a text is a text: no markup in it, and nothing that controls the terminal."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options, markup=False, emoji=False)

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Print where it would now, also while a function that runs in this process has stdout and stderr."""
        self._file = self.file
        try:
            yield
        finally:
            self._file = None

    def render_str(self, text: str, **options: Any) -> Text:
        """Return a string as it is shown: control characters are escaped."""
        return super().render_str(printable(text), **options)


def printable(text: str) -> str:
    """Return a text as a terminal can show it: what would control the terminal is escaped."""
    return "".join(each if each.isprintable() or each == "\n" else ascii(each)[1:-1] for each in text)


class FoldingTable(Table):
    """A table that cuts nothing off: a value that is longer than its column continues below."""

    def __init__(self, *columns: Column | str, **options: Any) -> None:
        super().__init__(*columns, **options)
        for column in self.columns:
            column.overflow = "fold"

    def add_column(self, header: Any = "", *arguments: Any, **options: Any) -> None:
        """Add a column, whose long values continue below."""
        super().add_column(header, *arguments, **{"overflow": "fold", **options})


out = Screen()
# Progress and errors go here, so that a program can read what is printed.
err = Screen(stderr=True)

# Characters; values in a column that is narrower cannot be read.
NARROWEST = 12
BORDER = 3  # characters beside each column
NUMBER = re.compile(r"-?\d[\d,]*(\.\d+)?(E-?\d+)?")


def print_json_lines(values: Iterable[Any]) -> None:
    """Print values for a program: each as JSON on a line."""
    for value in values:
        sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


def progress() -> Progress:
    """Return a progress display with a bar, a count and the time for each task."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    return Progress(
        TextColumn("{task.description:>20}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=err,
    )


def advancing(bars: Progress, bar: TaskID) -> Callable[[int], None]:
    """Return a function that advances a bar by a count."""
    return lambda count: bars.advance(bar, count)


def print_rows(names: Sequence[str], rows: Sequence[Sequence[str]], screen: Console) -> None:
    """Print rows as a table, or each row as a block of its values if the table is too wide to be read.

    Nothing is cut off: a value that is longer than its column continues below.

    Args:
        names: The columns.
        rows: A value for each of them; empty for none.
        screen: Where to print.
    """
    if not names:
        return
    columns = [[row[number] for row in rows] for number in range(len(names))]
    needed = (max(map(len, (name, *column))) for name, column in zip(names, columns, strict=True))
    if rows and sum(min(NARROWEST, width) + BORDER for width in needed) >= screen.width:
        for number, row in enumerate(rows, 1):
            screen.print(Text(f"row {number:,}", "bold"))
            screen.print(_block(names, row))
        return
    table = FoldingTable(
        *(
            Column(name, justify="right" if any(column) and all(map(is_number, column)) else "left")
            for name, column in zip(names, columns, strict=True)
        )
    )
    for row in rows:
        table.add_row(*row)
    screen.print(table)


def print_pairs(pairs: Sequence[tuple[str, str]], screen: Console) -> None:
    """Print what can be copied in one piece, each with a text beside it that may continue below."""
    names, texts = zip(*pairs, strict=True)
    screen.print(_block(names, texts))


def is_number(text: str) -> bool:
    """Tell whether a value of a column is a number, or empty."""
    return not text or NUMBER.fullmatch(text) is not None


def _block(names: Sequence[str], row: Sequence[str]) -> Table:
    block = Table.grid(padding=(0, 2))
    block.add_column(no_wrap=True)
    block.add_column(overflow="fold")
    for name, value in zip(names, row, strict=True):
        if value:
            block.add_row(name, value)
    return block
