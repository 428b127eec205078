"""Operators, literals, casts and conditions of Trino's SQL, as DuckDB has them."""

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence

from sqlglot import exp

from onemachine.presto.conversions import (
    DOUBLE_TEXT,
    INTEGER_TEXT,
    NO_DECIMALS,
    Conversions,
    Value,
    cast_text,
    later,
    months_later,
    quoted,
)
from onemachine.presto.dialect import TIMESTREAM, Dialect
from onemachine.presto.errors import ServiceError
from onemachine.presto.failures import guarded
from onemachine.presto.kinds import Array, Type, duckdb_type
from onemachine.presto.scopes import Query, Scope, has_aggregate
from onemachine.presto.syntax import Faults

NAMED_NANOSECONDS = {
    "nanosecond": 1,
    "microsecond": 1_000,
    "millisecond": 1_000_000,
    "second": 1_000_000_000,
    "minute": 60 * 1_000_000_000,
    "hour": 3_600 * 1_000_000_000,
    "day": 86_400 * 1_000_000_000,
    "week": 7 * 86_400 * 1_000_000_000,
}
NAMED_MONTHS = {"month": 1, "quarter": 3, "year": 12}
# How a time of Trino's timestamp(3) is printed.
MILLISECONDS = "%Y-%m-%d %H:%M:%S.%g"
_NEGATED = frozenset({Type.INTEGER, Type.BIGINT, Type.DECIMAL, Type.DOUBLE, Type.DAYS, Type.MONTHS})
# A date may be before 1970.
_ANY_TIME = "make_timestamp_ns"
_MAX_INTEGER = 2**31 - 1
_MAX_BIGINT = 2**63 - 1


class Operators(ABC):
    """Translates all but the names and calls of one query's expressions.

    Args:
        faults: Names what is wrong in the query.
        now: What `now()` is, in nanoseconds since 1970.
        subquery: Translates a query that stands in an expression, whose names may be of that scope.
        dialect: The service's.
    """

    def __init__(
        self,
        faults: Faults,
        now: int,
        subquery: Callable[[exp.Expr, Scope], Query],
        dialect: Dialect = TIMESTREAM,
    ) -> None:
        self._faults = faults
        self._dialect = dialect
        self._types = Conversions(faults, dialect)
        self._now = now
        self._subquery = subquery
        self._names = 0

    @abstractmethod
    def translate(self, node: exp.Expr, scope: Scope) -> Value:
        """Translate an expression."""

    def condition(self, clause: exp.Expr | None, scope: Scope) -> str:
        """Translate WHERE or HAVING.

        Args:
            clause: The clause; None if the query has no such clause.
            scope: Where its names are looked up.

        Returns:
            DuckDB's condition; empty without a clause.

        Raises:
            ServiceError: ValidationException.
        """
        if clause is None:
            return ""
        self._faults.only(clause, "this")
        if isinstance(clause, exp.Where) and has_aggregate(clause):
            raise self._faults.error(clause, "WHERE clause cannot contain aggregations")
        return self._types.expect(self.translate(clause.this, scope), Type.BOOLEAN, clause.this)

    def _literal(self, node: exp.Literal, _scope: Scope) -> Value:
        text = node.this
        if node.is_string:
            return Value(quoted(text), Type.VARCHAR, text)
        if text.isdigit():
            number = int(text)
            if number > _MAX_BIGINT:
                raise self._faults.error(node, f"Invalid numeric literal: {text}")
            kind = Type.INTEGER if number <= _MAX_INTEGER else Type.BIGINT
            # A bare number in GROUP BY or ORDER BY would be a place in the select list for DuckDB.
            return Value(f"CAST({number} AS {kind.value})", kind)
        if not re.fullmatch(DOUBLE_TEXT, text):
            raise self._faults.error(node, f"Invalid numeric literal: {text}")
        is_decimal = self._dialect.standard and "e" not in text.lower()
        return Value(f"CAST('{text}' AS DOUBLE)", Type.DECIMAL if is_decimal else Type.DOUBLE)

    def _comparison(self, node: exp.Expr, scope: Scope) -> Value:
        operators: Mapping[type[exp.Expr], str] = {
            exp.EQ: "=",
            exp.NEQ: "<>",
            exp.GT: ">",
            exp.GTE: ">=",
            exp.LT: "<",
            exp.LTE: "<=",
            exp.NullSafeEQ: "IS NOT DISTINCT FROM",
            exp.NullSafeNEQ: "IS DISTINCT FROM",
        }
        operator = operators[type(node)]
        if isinstance(node.expression, (exp.Any, exp.All)):
            return self._quantified(node, operator, scope)
        left, right = self._types.alike(
            node, [self.translate(node.this, scope), self.translate(node.expression, scope)], operator
        )
        return Value(f"({left.sql} {operator} {right.sql})", Type.BOOLEAN)

    def _quantified(self, node: exp.Expr, operator: str, scope: Scope) -> Value:
        """Compare with what a subquery gives: `= ANY (SELECT ...)`."""
        quantifier = node.expression
        if not isinstance(quantifier.this, exp.Query) or operator.startswith("IS"):
            raise self._faults.refusal(quantifier)
        left, query = self.translate(node.this, scope), self._subquery(quantifier.this, scope)
        if len(query.fields) != 1 or query.fields[0].kind != left.kind:
            raise self._faults.error(node, "ANY and ALL need a subquery of one column of the same type")
        word = "ANY" if isinstance(quantifier, exp.Any) else "ALL"
        return Value(f"({left.sql} {operator} {word} ({query.sql}))", Type.BOOLEAN)

    def _between(self, node: exp.Between, scope: Scope) -> Value:
        self._faults.only(node, "this", "low", "high")
        parts = [self.translate(part, scope) for part in (node.this, node.args["low"], node.args["high"])]
        value, low, high = self._types.alike(node, parts, "BETWEEN")
        return Value(f"({value.sql} BETWEEN {low.sql} AND {high.sql})", Type.BOOLEAN)

    def _in(self, node: exp.In, scope: Scope) -> Value:
        self._faults.only(node, "this", "expressions", "query")
        value = self.translate(node.this, scope)
        query = node.args.get("query")
        if query is not None:
            inner = self._subquery(query, scope)
            if len(inner.fields) != 1 or inner.fields[0].kind != value.kind:
                raise self._faults.error(node, "IN needs a subquery of one column of the same type")
            return Value(f"({value.sql} IN ({inner.sql}))", Type.BOOLEAN)
        parts = [value, *(self.translate(item, scope) for item in node.expressions)]
        value, *items = self._types.alike(node, parts, "IN")
        return Value(f"({value.sql} IN ({', '.join(item.sql for item in items)}))", Type.BOOLEAN)

    def _is(self, node: exp.Is, scope: Scope) -> Value:
        self._faults.only(node, "this", "expression")
        if not isinstance(node.expression, exp.Null):
            raise self._faults.refusal(node)
        return Value(f"({self.translate(node.this, scope).sql} IS NULL)", Type.BOOLEAN)

    def _like(self, node: exp.Expr, scope: Scope) -> Value:
        escape = ""
        if isinstance(node, exp.Escape):
            if not isinstance(node.expression, exp.Literal) or not isinstance(node.this, exp.Like):
                raise self._faults.refusal(node)
            escape = f" ESCAPE {self._literal(node.expression, scope).sql}"
            node = node.this
        self._faults.only(node, "this", "expression", "negate")
        sides = [
            self._types.expect(self.translate(side, scope), Type.VARCHAR, side)
            for side in (node.this, node.expression)
        ]
        like = "NOT LIKE" if node.args.get("negate") else "LIKE"
        return Value(f"({sides[0]} {like} {sides[1]}{escape})", Type.BOOLEAN)

    def _arithmetic(self, node: exp.Expr, scope: Scope) -> Value:
        symbols: Mapping[type[exp.Expr], str] = {
            exp.Add: "+",
            exp.Sub: "-",
            exp.Mul: "*",
            exp.Div: "/",
            exp.Mod: "%",
        }
        symbol = symbols[type(node)]
        left, right = self.translate(node.this, scope), self.translate(node.expression, scope)
        numbers = {Type.INTEGER, Type.BIGINT, Type.DECIMAL, Type.DOUBLE, Type.UNKNOWN}
        if Type.DECIMAL in {left.kind, right.kind} and Type.DOUBLE not in {left.kind, right.kind}:
            raise self._faults.error(node, NO_DECIMALS)
        if left.kind in numbers and right.kind in numbers:
            left, right = self._types.alike(node, [left, right], symbol)
            # Trino divides whole numbers as whole numbers, toward zero; so does DuckDB's "//".
            operator = "//" if symbol == "/" and left.kind is not Type.DOUBLE else symbol
            return Value(f"({left.sql} {operator} {right.sql})", left.kind)
        time_arithmetic = self._time_arithmetic(symbol, left, right)
        if time_arithmetic is None:
            raise self._faults.error(
                node, f"'{symbol}' cannot be applied to {left.kind.value.lower()}, {right.kind.value.lower()}"
            )
        return time_arithmetic

    def _time_arithmetic(self, symbol: str, left: Value, right: Value) -> Value | None:
        whole = {Type.INTEGER, Type.BIGINT}
        spans = {Type.DAYS, Type.MONTHS}
        if symbol == "+" and left.kind in spans and right.kind in {Type.TIMESTAMP, Type.DATE}:
            left, right = right, left
        if symbol in "+-" and right.kind in spans and left.kind in {Type.TIMESTAMP, Type.DATE}:
            moment = self._types.widened(left, Type.TIMESTAMP)
            sign = "-" if symbol == "-" else ""
            if left.kind is Type.DATE:
                return _date_later(moment.sql, right, sign)
            if right.kind is Type.DAYS:
                return later(moment.sql, f"{sign}({right.sql})")
            return months_later(moment.sql, f"{sign}({right.sql})")
        if symbol in "+-" and left.kind in spans and right.kind is left.kind:
            return Value(f"({left.sql} {symbol} {right.sql})", left.kind)
        if symbol == "-" and left.kind is Type.TIMESTAMP and right.kind is Type.TIMESTAMP:
            return Value(f"(epoch_ns({left.sql}) - epoch_ns({right.sql}))", Type.DAYS)
        if symbol == "*" and left.kind in whole and right.kind in spans:
            left, right = right, left
        if symbol == "*" and left.kind in spans and right.kind in whole:
            return Value(f"({left.sql} * CAST({right.sql} AS BIGINT))", left.kind)
        return None

    def _negative(self, node: exp.Neg, scope: Scope) -> Value:
        value = self.translate(node.this, scope)
        if value.kind not in _NEGATED:
            raise self._faults.error(node, f"'-' cannot be applied to {value.kind.value.lower()}")
        return Value(f"(-{value.sql})", value.kind)

    def _case(self, node: exp.Case, scope: Scope) -> Value:
        self._faults.only(node, "this", "ifs", "default")
        pairs = [(item.this, item.args["true"]) for item in node.args["ifs"]]
        return self._branches(node, pairs, node.args.get("default"), node.this, scope)

    def _branches(
        self,
        node: exp.Expr,
        pairs: Sequence[tuple[exp.Expr, exp.Expr]],
        default: exp.Expr | None,
        subject: exp.Expr | None,
        scope: Scope,
    ) -> Value:
        results = [self.translate(result, scope) for _, result in pairs]
        if default is not None:
            results.append(self.translate(default, scope))
        results = self._types.alike(node, results, "CASE")
        sql = "CASE"
        for (condition, _), result in zip(pairs, results, strict=False):
            if subject is None:
                test = self._types.expect(self.translate(condition, scope), Type.BOOLEAN, condition)
            else:
                left, right = self._types.alike(
                    node, [self.translate(subject, scope), self.translate(condition, scope)], "="
                )
                test = f"{left.sql} = {right.sql}"
            sql += f" WHEN {test} THEN {result.sql}"
        if default is not None:
            sql += f" ELSE {results[-1].sql}"
        return Value(f"({sql} END)", results[0].kind)

    def _cast(self, node: exp.Cast, scope: Scope) -> Value:
        self._faults.only(node, "this", "to", "safe")
        target = node.args["to"]
        parameters = target.expressions
        kinds = {
            exp.DType.VARCHAR: Type.VARCHAR,
            exp.DType.INT: Type.INTEGER,
            exp.DType.BIGINT: Type.BIGINT,
            exp.DType.DOUBLE: Type.DOUBLE,
            exp.DType.BOOLEAN: Type.BOOLEAN,
            exp.DType.TIMESTAMP: Type.TIMESTAMP,
            exp.DType.DATE: Type.DATE,
            exp.DType.TIME: Type.TIME,
        }
        kind = kinds.get(target.this)
        safe = isinstance(node, exp.TryCast)
        value = self.translate(node.this, scope)
        if kind is Type.TIMESTAMP and value.literal is not None:
            # The parser gives TIMESTAMP '...' the precision of its text; any other precision would round.
            _, _, fraction = value.literal.partition(".")
            if parameters and parameters[0].name != str(len(fraction)):
                raise self._faults.error(node, f"A cast to {target.sql()} is not supported here.")
            return self._constant(node, kind, value.literal, safe=safe)
        if kind is Type.TIME and value.literal is not None:
            return self._constant(node, kind, value.literal, safe=safe)
        if kind is None or parameters:
            raise self._faults.error(node, f"A cast to {target.sql()} is not supported here.")
        if kind is Type.DATE and value.literal is not None:
            return self._constant(node, kind, value.literal, safe=safe)
        if self._dialect.standard and (value.kind, kind) == (Type.TIMESTAMP, Type.VARCHAR):
            return Value(f"strftime({value.sql}, '{MILLISECONDS}')", kind)
        sql = cast_text(value, kind, safe=safe)
        if sql is None:
            raise self._faults.error(
                node, f"A cast from {value.kind.value.lower()} to {kind.value.lower()} is not supported here."
            )
        return Value(sql, kind)

    def _constant(self, node: exp.Expr, kind: Type, text: str, *, safe: bool) -> Value:
        """Read a time or a date that stands in the query."""
        try:
            match kind:
                case Type.TIMESTAMP:
                    return self._types.moment(self._types.read_timestamp(node, text))
                case Type.TIME:
                    return self._types.time_of_day(node, text)
                case _:
                    return Value(f"CAST({quoted(self._types.read_date(node, text))} AS DATE)", Type.DATE)
        except ServiceError:
            if not safe:
                raise
            return Value(f"CAST(NULL AS {duckdb_type(kind)})", kind)

    def _interval(self, node: exp.Interval, _scope: Scope) -> Value:
        self._faults.only(node, "this", "unit")
        unit = node.args["unit"].name.lower() if node.args.get("unit") else ""
        number = node.this.name
        if not isinstance(node.this, exp.Literal) or not re.fullmatch(INTEGER_TEXT, number):
            raise self._faults.error(node, f"Invalid interval literal: {number}")
        if unit in {"second", "minute", "hour", "day", "week"}:
            return Value(f"CAST({int(number) * NAMED_NANOSECONDS[unit]} AS BIGINT)", Type.DAYS)
        if unit in {"month", "year"}:
            return Value(f"CAST({int(number) * NAMED_MONTHS[unit]} AS BIGINT)", Type.MONTHS)
        raise self._faults.error(node, f"An interval in {unit or 'no unit'} is not supported here.")

    def _array(self, node: exp.Array, scope: Scope) -> Value:
        values = self._types.alike(node, [self.translate(item, scope) for item in node.expressions], "ARRAY")
        kind = Array(values[0].kind if values else Type.UNKNOWN)
        return Value(f"CAST([{', '.join(value.sql for value in values)}] AS {duckdb_type(kind)})", kind)

    def _name(self) -> str:
        """Make a name for a lambda's argument; two of one name cannot stand in each other."""
        self._names += 1
        return f"l{self._names}"


def _date_later(moment: str, span: Value, sign: str) -> Value:
    """Add an interval to a date, which stays one."""
    if span.kind is Type.MONTHS:
        return Value(f"CAST({months_later(moment, f'{sign}({span.sql})', _ANY_TIME).sql} AS DATE)", Type.DATE)
    day = NAMED_NANOSECONDS["day"]
    sum_ = f"CAST({later(moment, f'{sign}({span.sql})', _ANY_TIME).sql} AS DATE)"
    guard = guarded(f"({span.sql}) % {day} <> 0", "Cannot add hour, minutes or seconds to a date", sum_)
    return Value(f"({guard})", Type.DATE)
