"""JSON as JavaScript's `JSON.stringify` writes it: what reads ingest files has been fed by Node.

https://tc39.es/ecma262/#sec-json.stringify
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable
from decimal import Decimal
from typing import Final

# Deeper values are refused: no meter has them, and a reader's stack ends somewhere.
MAX_DEPTH: Final = 64
# JavaScript's only numbers are doubles: whole numbers beyond this one can no longer be distinguished.
# https://tc39.es/ecma262/#sec-number.max_safe_integer
MAX_SAFE_INTEGER: Final = 2**53 - 1
# Keys up to this one are an array's indexes, and come first, in the order of their numbers.
# https://tc39.es/ecma262/#sec-ordinaryownpropertykeys
MAX_INDEX: Final = 2**32 - 2

_INDEX = re.compile(r"(?:0|[1-9][0-9]{0,9})", re.ASCII)
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")
# Between these exponents a number is written out, and with one outside of them.
_SMALLEST_PLAIN, _LARGEST_PLAIN = -6, 21


def stringify(value: object) -> str:
    """Return a value's JSON text as `JSON.stringify(JSON.parse(...))` gives it, byte for byte.

    Args:
        value: What `json.loads` returns.

    Raises:
        ValueError: If JavaScript would write another number than the text had, or the value is nested deeper
            than `MAX_DEPTH`; the message names the number or the depth.
    """
    return _value(value, MAX_DEPTH)


def _value(value: object, depth: int) -> str:
    if depth < 0:
        raise ValueError(f"nested deeper than {MAX_DEPTH}")
    match value:
        case str():
            return _text(value)
        case None | bool():
            return json.dumps(value)
        case int() | float():
            return _number(value)
        case dict():
            members = (f"{_text(key)}:{_value(value[key], depth - 1)}" for key in _ordered(value))
            return "{" + ",".join(members) + "}"
        case list():
            return "[" + ",".join(_value(item, depth - 1) for item in value) + "]"
    raise TypeError(f"{type(value).__name__} is not one of JSON's types")


def _text(text: str) -> str:
    quoted = json.dumps(text, ensure_ascii=False)
    if _LONE_SURROGATE.search(quoted):  # Two halves that meet are one character there.
        quoted = quoted.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")
    return _LONE_SURROGATE.sub(lambda half: f"\\u{ord(half[0]):04x}", quoted)


def _ordered(members: dict[str, object]) -> Iterable[str]:
    indexes = {key for key in members if _INDEX.fullmatch(key) and int(key) <= MAX_INDEX}
    return (
        [*sorted(indexes, key=int), *(key for key in members if key not in indexes)] if indexes else members
    )


def _number(value: float) -> str:
    """Return a number's shortest text: https://tc39.es/ecma262/#sec-numeric-types-number-tostring."""
    if isinstance(value, int) and abs(value) <= MAX_SAFE_INTEGER:
        return str(value)
    try:
        double = float(value)
    except OverflowError:
        double = math.inf
    if math.isinf(double):
        raise ValueError("a number is beyond 1.8e308, the largest that JavaScript has")
    text = _shortest(double)
    if isinstance(value, int) and Decimal(text) != value:
        raise ValueError(f"{value} would become {text}: JavaScript has no such number")
    return text


def _shortest(double: float) -> str:
    if double == 0:
        return "0"  # without the sign of -0
    sign = "-" if double < 0 else ""
    # Python's repr has the same digits, the fewest that identify this double, but other exponents.
    shown = Decimal(repr(abs(double))).as_tuple()
    digits = "".join(map(str, shown.digits))
    point = len(digits) + int(shown.exponent)  # so many digits stand before the point
    digits = digits.rstrip("0")
    if not _SMALLEST_PLAIN < point <= _LARGEST_PLAIN:
        fraction = f".{digits[1:]}" if digits[1:] else ""
        return f"{sign}{digits[0]}{fraction}e{point - 1:+d}"
    if point <= 0:
        return f"{sign}0.{'0' * -point}{digits}"
    if len(digits) <= point:
        return f"{sign}{digits:0<{point}}"
    return f"{sign}{digits[:point]}.{digits[point:]}"
