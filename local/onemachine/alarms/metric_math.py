"""Metric math, as far as our alarms use it: arithmetic, comparisons, AND, OR and IF. Pure.

https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/using-metric-math.html

None of this looks at another time than the one that is computed, so that an expression is computed for one
time after the other.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache

_TOKEN = re.compile(r"\s*(\d+(?:\.\d+)?|\w+|[<>=!]=|&&|\|\||[-+*/<>(),])")
_LEVELS: tuple[dict[str, Callable[[float, float], float]], ...] = (
    {"OR": lambda a, b: float(bool(a or b)), "||": lambda a, b: float(bool(a or b))},
    {"AND": lambda a, b: float(bool(a and b)), "&&": lambda a, b: float(bool(a and b))},
    {
        "==": operator.eq,
        "!=": operator.ne,
        "<=": operator.le,
        ">=": operator.ge,
        "<": operator.lt,
        ">": operator.gt,
    },
    {"+": operator.add, "-": operator.sub},
    {"*": operator.mul, "/": operator.truediv},
)

Values = Mapping[str, float | None]


class UnknownExpressionError(ValueError):
    """The expression is not valid, or uses what is not computed here."""


@dataclass(frozen=True)
class Expression:
    """An expression.

    Attributes:
        names: The ids of the metrics and expressions in it.
        compute: Computes its value at one time from those of `names`; None without a data point there.
        is_scalar: Whether it is a number that needs no data point.
    """

    names: frozenset[str]
    compute: Callable[[Values], float | None]
    is_scalar: bool


@cache
def parse(text: str) -> Expression:
    """Parse an expression.

    Raises:
        UnknownExpressionError: If it is not valid, or uses what is not computed here.
    """
    tokens: list[str] = []
    at = 0
    while text[at:].strip():
        match = _TOKEN.match(text, at)
        if match is None:
            raise UnknownExpressionError(
                f"metric math {text!r}: {text[at:].strip()[0]!r} is not computed here"
            )
        tokens.append(match[1])
        at = match.end()
    parser = _Parser(text, tokens)
    expression = parser.level(0)
    if parser.tokens:
        raise parser.error(parser.tokens[0])
    return expression


class _Parser:
    def __init__(self, text: str, tokens: list[str]) -> None:
        self.text = text
        self.tokens = tokens

    def error(self, token: str) -> UnknownExpressionError:
        return UnknownExpressionError(
            f"metric math {self.text!r}: {token!r} is not expected or not computed here"
        )

    def take(self, *expected: str) -> str:
        if not self.tokens or (expected and self.tokens[0] not in expected):
            raise self.error(self.tokens[0] if self.tokens else "its end")
        return self.tokens.pop(0)

    def level(self, number: int) -> Expression:
        if number == len(_LEVELS):
            return self.operand()
        left = self.level(number + 1)
        while self.tokens and self.tokens[0] in _LEVELS[number]:
            left = _binary(_LEVELS[number][self.take()], left, self.level(number + 1))
        return left

    def operand(self) -> Expression:
        word = self.take()
        if word == "(":
            inside = self.level(0)
            self.take(")")
            return inside
        if word == "-":
            return _binary(operator.mul, _number(-1.0), self.operand())
        if word == "IF":
            return self.conditional()
        if word[0].isdigit():
            return _number(float(word))
        # A metric's id begins with a small letter; functions are written in capital letters.
        if word[0].islower() and self.tokens[:1] != ["("]:
            return Expression(frozenset({word}), lambda values: values[word], is_scalar=False)
        raise self.error(word)

    def conditional(self) -> Expression:
        self.take("(")
        condition = self.level(0)
        self.take(",")
        then = self.level(0)
        otherwise = self.level(0) if self.take(",", ")") == "," else None
        if otherwise is not None:
            self.take(")")

        def compute(values: Values) -> float | None:
            decided = condition.compute(values)
            if decided is None:
                return None
            if decided:
                value = then.compute(values)
                return 0.0 if value is None else value
            return None if otherwise is None else otherwise.compute(values)

        names = condition.names | then.names | (otherwise.names if otherwise else frozenset())
        return Expression(names, compute, is_scalar=False)


def _number(value: float) -> Expression:
    return Expression(frozenset(), lambda _: value, is_scalar=True)


def _binary(function: Callable[[float, float], float], left: Expression, right: Expression) -> Expression:
    def compute(values: Values) -> float | None:
        a, b = left.compute(values), right.compute(values)
        # A value that one of two metrics lacks counts as 0; a time at which no metric has one has no result.
        if all(value is None or side.is_scalar for value, side in ((a, left), (b, right))) and not (
            left.is_scalar and right.is_scalar
        ):
            return None
        try:
            return float(function(a or 0.0, b or 0.0))
        except ZeroDivisionError:
            return None

    return Expression(left.names | right.names, compute, left.is_scalar and right.is_scalar)
