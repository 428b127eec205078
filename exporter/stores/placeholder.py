"""`{table}` in a question: the table's name for the store, and as it was asked in the store's errors."""

from __future__ import annotations

import re
from typing import Final

TABLE: Final = "{table}"
_PLACE = re.compile(r"\bline (\d{1,9}):(\d{1,9})")


def filled(question: str, name: str) -> str:
    """Return a question with the table's name."""
    return question.replace(TABLE, name)


def as_asked(error: str, question: str, name: str) -> str:
    """Return a store's error with the places of the question, which are others in what the store was sent.

    Args:
        error: The error, whose places are like `line 1:15`.
        question: As it was asked, with `{table}`.
        name: The table's name in what was sent.
    """
    lines = question.split("\n")

    def place(found: re.Match[str]) -> str:
        line, column = int(found[1]), int(found[2])
        if not 1 <= line <= len(lines):
            return found[0]
        first, *others = lines[line - 1].split(TABLE)
        asked = sent = len(first)
        for other in others:
            if column <= sent:
                break
            if column <= sent + len(name):
                return f"line {line}:{asked + 1}"
            asked, sent = asked + len(TABLE) + len(other), sent + len(name) + len(other)
        return f"line {line}:{column - sent + asked}"

    return _PLACE.sub(place, error)
