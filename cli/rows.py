"""The rows of an answer, as a terminal can show them."""

from __future__ import annotations

import re
from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

# Characters; values in a column that is narrower cannot be read.
NARROWEST = 12
BORDER = 3  # characters beside each column
NUMBER = re.compile(r"-?\d[\d,]*(\.\d+)?(E-?\d+)?")


def show(names: Sequence[str], rows: Sequence[Sequence[str]], screen: Console) -> None:
    """Print rows as a table; where it is too wide to be read, each row by itself, a value a line.

    Nothing is cut off: what is longer than its column goes on below.

    Args:
        names: The columns.
        rows: A value for each of them; empty for none.
        screen: Where to.
    """
    if not names:
        return
    columns = [[row[number] for row in rows] for number in range(len(names))]
    needed = (max(map(len, (name, *column))) for name, column in zip(names, columns, strict=True))
    if rows and sum(min(NARROWEST, width) + BORDER for width in needed) >= screen.width:
        for number, row in enumerate(rows, 1):
            screen.print(f"[bold]row {number:,}[/]")
            screen.print(_block(names, row))
        return
    table = Table()
    for name, column in zip(names, columns, strict=True):
        numbers = any(column) and all(NUMBER.fullmatch(value) for value in column if value)
        table.add_column(escape(name), justify="right" if numbers else "left", overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    screen.print(table)


def _block(names: Sequence[str], row: Sequence[str]) -> Table:
    block = Table.grid(padding=(0, 2))
    block.add_column(no_wrap=True)
    block.add_column(overflow="fold")
    for name, value in zip(names, row, strict=True):
        if value:
            block.add_row(Text(name), Text(value))
    return block
