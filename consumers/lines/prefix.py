"""Where on a line a record may begin: at its beginning, or behind a trusted prefix.

docs/reference/trust.md has the rules. Every pattern takes time in proportion to the line: no part that
repeats gives back what it has matched.
"""

from __future__ import annotations

import re
from functools import cache

from consumers.settings import SettingsError

MAX_PREFIX = 200

# Text formats of Lambda's runtimes: Node's (.NET's is the same), then Python's.
# https://github.com/aws/aws-lambda-nodejs-runtime-interface-client/blob/main/src/LogPatch.js
# https://github.com/aws/aws-lambda-python-runtime-interface-client/blob/main/awslambdaric/bootstrap.py
_TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,9})?Z"
_RUNTIMES = (rf"{_TIME}\t[\w-]*+\t[A-Za-z]++\t", rf"\[[A-Za-z]++\]\t{_TIME}\t[\w-]*+\t")
_LEVELS = "TRACE|DEBUG|INFO|NOTICE|WARN|WARNING|ERROR|CRITICAL|FATAL"
_LEVEL = rf"(?i:\[(?:{_LEVELS})\]:?|(?:{_LEVELS}):?)\s++"


def check_prefix(prefix: str) -> str:
    """Return the setting TAGLINE_PREFIX as it is.

    Args:
        prefix: A text in which `*` stands for any characters but space, and a space for any run of space.

    Raises:
        SettingsError: If it is too long, holds a line break, or nothing but `*` and space.
    """
    problem = ""
    if len(prefix) > MAX_PREFIX:
        problem = f"has {len(prefix)} characters, more than {MAX_PREFIX}: write `*` for what differs"
    elif "\n" in prefix or "\r" in prefix:
        problem = f"is {prefix!r}, which holds a line break: one line has one prefix"
    elif prefix and not re.search(r"[^\s*]", prefix):
        problem = f"is {prefix!r}, which any words match: write a text that all of your lines have"
    if problem:
        raise SettingsError(f"TAGLINE_PREFIX {problem}")
    return prefix


@cache
def begin(tag: str, prefix: str) -> re.Pattern[str]:
    """Return what matches a line up to its object, or up to and with the bare tag, which is the group `tag`.

    Args:
        tag: The token that marks a line.
        prefix: The setting TAGLINE_PREFIX.
    """
    prefixes = [*([_pattern(prefix.strip())] if prefix else []), *_RUNTIMES, _LEVEL]
    return re.compile(rf"\s*+(?:(?:{'|'.join(prefixes)})\s*+)?(?:(?={{)|{_bare(tag)})")


@cache
def begin_message(tag: str) -> re.Pattern[str]:
    """Return the same for the `message` of Lambda's JSON log format, before which nothing may be."""
    return re.compile(rf"\s*+(?:(?={{)|{_bare(tag)})")


def _bare(tag: str) -> str:
    # The agent whose tag for meters was first skips one character behind it, whichever it is.
    return rf"(?P<tag>{re.escape(tag)}(?![\w-])[^\w{{-]?\s*+)"


def _pattern(prefix: str) -> str:
    """Return a prefix as a pattern: each `*` takes as little as it can, and keeps it."""
    first, *others = re.split(r"\*+", prefix)
    return _literal(first) + "".join(rf"(?>\S*?{_literal(other)})" if other else r"\S*+" for other in others)


def _literal(text: str) -> str:
    return r"\s++".join(re.escape(word) for word in re.split(r"\s+", text))
