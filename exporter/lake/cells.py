"""Cells that a spreadsheet would run as formulas. Pure.

https://owasp.org/www-community/attacks/CSV_Injection
"""

from __future__ import annotations

import re
from collections.abc import Iterable

# A spreadsheet runs a cell that begins with one of these; the last four are full-width forms of the first.
MARKS = "=+-@\t\r\n＝＋－＠"  # noqa: RUF001 - these are meant
_HARMLESS = re.compile(r"-|[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")


def is_formula(text: str) -> bool:
    """Tell whether a spreadsheet may run a text; numbers and a lone `-` are harmless."""
    return text[:1] in MARKS and text != "" and _HARMLESS.fullmatch(text) is None


def count_formulas(values: Iterable[str | None], together: str) -> int:
    """Return how many values a spreadsheet may run.

    Args:
        values: The values.
        together: All of them in one text: looking for a character in it is quick, and most columns have none.
    """
    if not any(mark in together for mark in MARKS):
        return 0
    return sum(is_formula(value) for value in values if value and value[0] in MARKS)


def safe(text: str | None) -> str | None:
    """Return a text behind an apostrophe if a spreadsheet may run it: it is then shown as it is."""
    return f"'{text}" if text and is_formula(text) else text
