"""The functions of Logs Insights: of values, and of the rows of a group. Pure.

https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/CWL_QuerySyntax-operations-functions.html
https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/CWL_QuerySyntax-Stats.html

Every function takes missing values; they give a missing value unless its entry defines another.
"""

from __future__ import annotations

import ipaddress
import math
import operator
import statistics
from collections.abc import Callable, Sequence
from typing import Any

from onemachine.insights.fields import parse_json
from onemachine.insights.values import (
    Timestamp,
    Value,
    computed,
    equal,
    is_structure,
    less,
    number,
    order,
    printed,
    text,
)

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class UnsupportedValueError(ValueError):
    """A value that a command does not take; the query fails."""


def truth(value: Value) -> bool:
    """Tell whether a condition holds: a number other than 0, or a comparison that is true."""
    size = number(value) if not isinstance(value, str) else None
    return size is not None and size != 0


# ---- of values ---------------------------------------------------------------------------------------------


def _arithmetic(compute: Callable[[Any, Any], Any]) -> Callable[[Value, Value], Value]:
    def calculate(left: Value, right: Value) -> Value:
        one, other = number(left), number(right)
        if one is None or other is None:
            return None
        try:
            return computed(compute(one, other))
        except (ArithmeticError, ValueError):
            return None  # division by zero, and what no double can hold

    return calculate


def _power(base: float, exponent: float) -> complex:
    # As doubles, so that nobody waits for 9 ^ 9 ^ 9.
    power: complex = float(base) ** float(exponent)
    return power


def _of_number(compute: Callable[[Any], Any]) -> Callable[[Value], Value]:
    def calculate(value: Value) -> Value:
        size = number(value)
        if size is None:
            return None
        try:
            return computed(compute(size))
        except (ArithmeticError, ValueError):
            return None

    return calculate


def _of_texts(compute: Callable[..., Value]) -> Callable[..., Value]:
    def calculate(*values: Value) -> Value:
        texts = [text(value) for value in values]
        return None if None in texts else compute(*texts)

    return calculate


def _greatest(*values: Value) -> Value:
    return max((size for size in map(number, values) if size is not None), default=None)


def _least(*values: Value) -> Value:
    return min((size for size in map(number, values) if size is not None), default=None)


def _substring(value: Value, start: Value, length: Value = math.inf) -> Value:
    whole, first, count = text(value), number(start), length if length == math.inf else number(length)
    if whole is None or first is None or count is None or first < 0 or count < 0:
        return None
    return whole[int(first) :][: len(whole) if count == math.inf else int(count)]


def _is_empty(value: Value) -> int:
    return int(text(value) in (None, ""))


def _is_blank(value: Value) -> int:
    return int(not (text(value) or "").strip())


def _from_millis(value: Value) -> Value:
    size = number(value)
    return None if size is None else Timestamp(size)


def _to_millis(value: Value) -> Value:
    size = number(value) if not isinstance(value, str) else None
    return None if size is None else int(size)


def _json_parse(value: Value) -> Value:
    document = parse_json(value) if isinstance(value, str) else None
    return document if is_structure(document) else None


def _json_stringify(value: Value) -> Value:
    return printed(value) if is_structure(value) else None


def _address(value: Value, version: int | None = None) -> Address | None:
    try:
        address = ipaddress.ip_address(text(value) or "")
    except ValueError:
        return None
    return address if version in (None, address.version) else None


def _is_address(version: int | None = None) -> Callable[[Value], bool]:
    return lambda value: _address(value, version) is not None


def _is_in_subnet(version: int | None = None) -> Callable[[Value, Value], bool]:
    def is_in(value: Value, subnet: Value) -> bool:
        address = _address(value, version)
        try:
            return address is not None and address in ipaddress.ip_network(text(subnet) or "", strict=False)
        except ValueError:
            return False

    return is_in


FUNCTIONS: dict[str, Callable[..., Value]] = {
    "=": equal,
    "!=": lambda left, right: (
        left is not None
        and right is not None
        and not is_structure(left)
        and not is_structure(right)
        and not equal(left, right)
    ),
    "<": less,
    ">": lambda left, right: less(right, left),
    "<=": lambda left, right: less(left, right) or equal(left, right),
    ">=": lambda left, right: less(right, left) or equal(left, right),
    "in": lambda value, *items: any(equal(value, item) for item in items),
    "not": lambda value: not truth(value),
    "+": _arithmetic(operator.add),
    "-": _arithmetic(operator.sub),
    "*": _arithmetic(operator.mul),
    "/": _arithmetic(operator.truediv),
    "%": _arithmetic(math.fmod),
    "^": _arithmetic(_power),
    "abs": _of_number(abs),
    "ceil": _of_number(math.ceil),
    "floor": _of_number(math.floor),
    "log": _of_number(math.log),
    "sqrt": _of_number(math.sqrt),
    "greatest": _greatest,
    "least": _least,
    "ispresent": lambda value: value is not None,
    "coalesce": lambda *values: next((value for value in values if value is not None), None),
    "isempty": _is_empty,
    "isblank": _is_blank,
    "concat": _of_texts(lambda *texts: "".join(texts)),
    "ltrim": _of_texts(str.lstrip),
    "rtrim": _of_texts(str.rstrip),
    "trim": _of_texts(str.strip),
    "strlen": _of_texts(len),
    "toupper": _of_texts(str.upper),
    "tolower": _of_texts(str.lower),
    "substr": _substring,
    "replace": _of_texts(str.replace),
    "strcontains": _of_texts(lambda whole, part: int(part in whole)),
    "frommillis": _from_millis,
    "tomillis": _to_millis,
    "jsonparse": _json_parse,
    "jsonstringify": _json_stringify,
    "isvalidip": _is_address(),
    "isvalidipv4": _is_address(4),
    "isvalidipv6": _is_address(6),
    "isipinsubnet": _is_in_subnet(),
    "isipv4insubnet": _is_in_subnet(4),
    "isipv6insubnet": _is_in_subnet(6),
}


# ---- of the rows of a group --------------------------------------------------------------------------------


def group_value(value: Value) -> Value:
    """Return a value that rows may be grouped, sorted or aggregated by.

    Raises:
        UnsupportedValueError: If it is a map or a list.
    """
    if is_structure(value):
        raise UnsupportedValueError("dedup, sort and stats do not take a map or a list")
    return value


def _numbers(values: Sequence[Value]) -> list[int | float]:
    return [size for size in map(number, values) if size is not None]


def _of_numbers(compute: Callable[[list[int | float]], Any]) -> Callable[[Sequence[Value]], Value]:
    def calculate(values: Sequence[Value]) -> Value:
        numbers = _numbers(values)
        try:
            return computed(compute(numbers)) if numbers else None
        except OverflowError:
            return None  # what no double can hold

    return calculate


def _total(numbers: list[int | float]) -> int | float:
    return sum(numbers) if all(isinstance(size, int) for size in numbers) else math.fsum(numbers)


def _extreme(choose: Callable[..., Value]) -> Callable[[Sequence[Value]], Value]:
    def extreme(values: Sequence[Value]) -> Value:
        found = choose(values, key=order, default=None)
        size = number(found)
        return found if size is None else computed(size)

    return extreme


def percentile(values: Sequence[Value], percent: Value) -> Value:
    """Return the smallest number that so many percent of the numbers do not exceed (nearest rank)."""
    numbers, share = sorted(_numbers(values)), number(percent)
    if not numbers or share is None or not 0 <= share <= 100:  # noqa: PLR2004 - percent
        return None
    return computed(numbers[max(math.ceil(share * len(numbers) / 100), 1) - 1])


# What is made of the values of an expression that are not missing.
AGGREGATES: dict[str, Callable[[Sequence[Value]], Value]] = {
    "count": len,
    "count_distinct": lambda values: len({printed(value) for value in values}),
    "sum": _of_numbers(_total),
    "avg": _of_numbers(lambda numbers: math.fsum(numbers) / len(numbers)),
    "stddev": _of_numbers(statistics.pstdev),
    "min": _extreme(min),
    "max": _extreme(max),
    "sortsfirst": lambda values: min(values, key=order, default=None),
    "sortslast": lambda values: max(values, key=order, default=None),
}
