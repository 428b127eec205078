"""Regular expressions that users write, in an engine whose time grows with the text only. Pure.

Python's engine tries one way after the other: `a*a*a*a*=` on 400 characters takes it a minute. RE2 follows
all ways at once, so it has no look-around and no back reference: https://github.com/google/re2/wiki/Syntax
"""

from __future__ import annotations

import re2


class LinearRegex:
    """An expression, read once.

    Args:
        expression: The expression, in RE2's syntax.
        over_lines: Whether `.` stands for the end of a line too.

    Raises:
        ValueError: If it is not one, or too large; the message is the engine's.
    """

    def __init__(self, expression: str, *, over_lines: bool = False) -> None:
        options = re2.Options()
        options.log_errors = False
        options.dot_nl = over_lines
        try:
            self._search = re2.compile(expression.encode(errors="replace"), options).search
        except re2.error as error:
            (reason,) = error.args
            raise ValueError(reason.decode() if isinstance(reason, bytes) else str(reason)) from None

    def is_in(self, text: str) -> bool:
        """Tell whether any part of a text fits."""
        # UTF-8 has no half surrogate pairs, which JSON's escapes can write: they are question marks here.
        return self._search(text.encode(errors="replace")) is not None

    def groups(self, text: str) -> tuple[str | None, ...] | None:
        """Return what the groups hold in the first part that fits; None if no part fits."""
        found = self._search(text.encode(errors="replace"))
        if found is None:
            return None
        return tuple(None if held is None else held.decode(errors="replace") for held in found.groups())


def quoted(text: str) -> str:
    """Return the expression that fits this text only."""
    escaped: str = re2.escape(text)
    return escaped
