"""Answers to questions: as a table for people, as CSV or as JSON for programs."""

from __future__ import annotations

import csv as csv_files
import io
import json as json_texts
import sys
from collections.abc import Iterable, Sequence
from decimal import Decimal, InvalidOperation
from typing import Any

import typer

from cli.screen import out, print_rows
from exporter.store import Column, Values

Value = int | float | bool | str | None


def values_of(columns: Sequence[Column], row: Values) -> list[Value]:
    """Return a row's values in the types of their columns.

    Args:
        columns: The columns.
        row: The values as a store gives them.
    """
    return [_value(column.type, text) for column, text in zip(columns, row, strict=True)]


def _value(kind: str, text: str | None) -> Value:
    if text is None:
        return None
    if kind == "boolean":
        return text == "true"
    if kind in ("integer", "number"):
        try:
            number = Decimal(text)
        except InvalidOperation:
            return text
        if number.is_finite():
            return int(number) if number == number.to_integral_value() else float(number)
    return text


def print_answer(names: Sequence[str], rows: Iterable[Sequence[Value]], *, csv: bool, json: bool) -> None:
    """Print an answer on stdout.

    Args:
        names: The columns.
        rows: A value for each of them.
        csv: As CSV.
        json: As a JSON object a line.

    Raises:
        typer.BadParameter: If both are asked for.
    """
    if csv and json:
        raise typer.BadParameter("--csv and --json exclude each other")
    if csv:
        for row in (names, *rows):
            sys.stdout.write(_csv_line([written(value) for value in row]))
    elif json:
        for row in rows:
            sys.stdout.write(json_texts.dumps(dict(zip(names, row, strict=True))) + "\n")
    else:
        print_rows(names, [[written(value) for value in row] for row in rows], out)


def _csv_line(values: Sequence[str]) -> str:
    # Only the characters of the line's end are quoted: with both of them, a lone return is, too.
    line = io.StringIO()
    csv_files.writer(line, lineterminator="\r\n").writerow(values)
    return line.getvalue().removesuffix("\r\n") + "\n"


def written(value: Any) -> str:
    """Return a value as people write it: 200 and not 200.0, 28203908 and not 2.8203908E7."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{Decimal(repr(value)):f}"
    return str(value)
