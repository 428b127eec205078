"""Filter patterns of CloudWatch Logs: which messages a subscription delivers. Pure.

https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/FilterAndPatternSyntax.html

Understood are the empty pattern, terms (bare and quoted, `-` to exclude, `?` for any of them) and one JSON
comparison for equality, `{ $.a.b = "x" }`. Any other pattern is refused, never guessed at.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import lru_cache

# https://docs.aws.amazon.com/AmazonCloudWatchLogs/latest/APIReference/API_PutSubscriptionFilter.html
MAX_PATTERN_CHARACTERS = 1024

_TERM = re.compile(r'([?-]?)(?:"((?:[^"\\]|\\.)*)"|([A-Za-z0-9_]+))(?=\s|$)')
_EQUALITY = re.compile(r'\{\s*\$\.([A-Za-z0-9_.-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([A-Za-z0-9_]+))\s*\}')


class InvalidPatternError(ValueError):
    """A pattern that the service refuses, or that is not understood here; the message says which part."""


def matches(pattern: str, message: str) -> bool:
    """Tell whether a pattern selects a message.

    Raises:
        InvalidPatternError: If the pattern is not understood.
    """
    return _compiled(pattern)(message)


@lru_cache(maxsize=256)
def _compiled(pattern: str) -> Callable[[str], bool]:
    if len(pattern) > MAX_PATTERN_CHARACTERS:
        raise InvalidPatternError(
            f"the pattern has {len(pattern)} characters, more than {MAX_PATTERN_CHARACTERS}"
        )
    text = pattern.strip()
    if text.startswith("{"):
        return _equality(text)
    if text.startswith(("[", "%")):
        raise InvalidPatternError(f"not understood on one machine yet: {text[:40]!r}")
    return _terms(text)


def _terms(text: str) -> Callable[[str], bool]:
    required: list[str] = []
    optional: list[str] = []
    excluded: list[str] = []
    position = 0
    while position < len(text):
        term = _TERM.match(text, position)
        if term is None:
            raise InvalidPatternError(f"Invalid character(s) in term {text[position : position + 40]!r}")
        kind = {"": required, "?": optional, "-": excluded}[term[1]]
        kind.append(term[3] if term[2] is None else _unescaped(term[2]))
        position = len(text) - len(text[term.end() :].lstrip())
    if required:
        optional = []  # mixed with others, terms with `?` are ignored

    def select(message: str) -> bool:
        return (
            all(term in message for term in required)
            and (not optional or any(term in message for term in optional))
            and not any(term in message for term in excluded)
        )

    return select


def _equality(text: str) -> Callable[[str], bool]:
    found = _EQUALITY.fullmatch(text)
    if found is None:
        raise InvalidPatternError(f"not understood on one machine yet: {text[:40]!r}")
    names = found[1].split(".")
    wanted = found[3] if found[2] is None else _unescaped(found[2])

    def select(message: str) -> bool:
        try:
            value = json.loads(message)
            for name in names:
                value = value[name]
        except (ValueError, TypeError, KeyError, RecursionError):
            return False  # the whole message has to be JSON, and the selector has to lead to something
        if isinstance(value, (int, float)) and not isinstance(value, bool) and found[2] is None:
            return _number(wanted) == value
        return isinstance(value, str) and value == wanted

    return select


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _unescaped(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text)
