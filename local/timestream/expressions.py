"""Translates the expressions of Timestream's SQL: names, operators, casts and calls."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from sqlglot import exp

from local.timestream.conversions import (
    DOUBLE_TEXT,
    INTEGER_TEXT,
    Conversions,
    Value,
    cast_text,
    later,
    months_later,
    quoted,
)
from local.timestream.functions import (
    AGGREGATES,
    SCALARS,
    cut_to_microseconds,
)
from local.timestream.kinds import Kind, Type, widens
from local.timestream.syntax import DURATION_FUNCTION, Faults

_UNIT_NANOSECONDS = {
    "ns": 1,
    "us": 1_000,
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60 * 1_000_000_000,
    "h": 3_600 * 1_000_000_000,
    "d": 86_400 * 1_000_000_000,
}
_NAMED_NANOSECONDS = {
    "nanosecond": 1,
    "microsecond": 1_000,
    "millisecond": 1_000_000,
    "second": 1_000_000_000,
    "minute": 60 * 1_000_000_000,
    "hour": 3_600 * 1_000_000_000,
    "day": 86_400 * 1_000_000_000,
    "week": 7 * 86_400 * 1_000_000_000,
}
_NAMED_MONTHS = {"month": 1, "quarter": 3, "year": 12}
_TRUNCATIONS = ("second", "minute", "hour", "day", "week", "month", "quarter", "year")
_EXTRACTS = frozenset(
    {
        "year",
        "quarter",
        "month",
        "week",
        "day",
        "day_of_week",
        "dow",
        "day_of_year",
        "doy",
        "hour",
        "minute",
        "second",
    }
)
_DURATION = re.compile(r"[0-9]+(?:ns|us|ms|s|m|h|d)")
_MAX_INTEGER = 2**31 - 1
_MAX_BIGINT = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Field:
    """A column of a table or of a result.

    Args:
        name: As the caller knows it; None where an expression has none.
        kind: Its type.
        physical: Its name in DuckDB.
    """

    name: str | None
    kind: Kind
    physical: str


@dataclass(frozen=True, slots=True)
class Relation:
    """Something in FROM.

    Args:
        names: What the query's author may call it.
        alias: Its name in DuckDB.
        fields: Its columns.
    """

    names: tuple[str, ...]
    alias: str
    fields: tuple[Field, ...]


@dataclass(slots=True)
class Scope:
    """Where a name is looked up.

    Args:
        relations: What is in FROM.
        outputs: In ORDER BY, the select list with its names, which comes first.
    """

    relations: list[Relation] = field(default_factory=list)
    outputs: list[tuple[str, Value]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Query:
    """A translated query, as it stands in parentheses.

    Args:
        sql: DuckDB's text.
        fields: Its columns.
    """

    sql: str
    fields: tuple[Field, ...]


def is_aggregate(node: exp.Expr) -> bool:
    """Say whether an expression is a call of an aggregate.

    Args:
        node: An expression.

    Returns:
        Whether it makes one value of many rows.
    """
    return isinstance(node, exp.Anonymous) and (
        node.name.lower() in AGGREGATES or node.name.lower() == "count"
    )


def has_aggregate(node: exp.Expr) -> bool:
    """Say whether there is a call of an aggregate in an expression.

    Args:
        node: An expression; what a query in it aggregates is that query's own.

    Returns:
        Whether there is one.
    """
    return any(is_aggregate(part) for part in node.walk(prune=lambda part: isinstance(part, exp.Query)))


class Expressions:
    """Translates the expressions of one query."""

    def __init__(self, faults: Faults, now: int, subquery: Callable[[exp.Expr], Query]) -> None:
        """Keep what an expression may need.

        Args:
            faults: Names what is wrong in the query.
            now: What ``now()`` is, in nanoseconds since 1970.
            subquery: Translates a query that stands in an expression.
        """
        self._faults = faults
        self._types = Conversions(faults)
        self._now = now
        self._subquery = subquery

    def condition(self, clause: exp.Expr | None, scope: Scope) -> str:
        """Translate WHERE or HAVING.

        Args:
            clause: The clause; None where there is none.
            scope: Where its names are looked up.

        Returns:
            DuckDB's condition; empty where there is none.

        Raises:
            ServiceError: ValidationException.
        """
        if clause is None:
            return ""
        self._faults.only(clause, "this")
        if isinstance(clause, exp.Where) and has_aggregate(clause):
            raise self._faults.error(clause, "WHERE clause cannot contain aggregations")
        return self._types.expect(self.translate(clause.this, scope), Type.BOOLEAN, clause.this)

    def translate(self, node: exp.Expr, scope: Scope) -> Value:  # noqa: C901, PLR0912 a flat table of cases
        """Translate an expression.

        Args:
            node: The expression.
            scope: Where its names are looked up.

        Returns:
            DuckDB's text and the expression's type.

        Raises:
            ServiceError: ValidationException: it is wrong, or not supported here.
        """
        match node:
            case exp.Paren():
                self._faults.only(node, "this")
                return self.translate(node.this, scope)
            case exp.Column():
                return self._column(node, scope)
            case exp.Literal():
                return self._literal(node)
            case exp.Boolean():
                return Value("true" if node.this else "false", Type.BOOLEAN)
            case exp.Null():
                return Value("NULL", Type.UNKNOWN)
            case exp.And() | exp.Or():
                operator = "AND" if isinstance(node, exp.And) else "OR"
                sides = [
                    self._types.expect(self.translate(side, scope), Type.BOOLEAN, side)
                    for side in (node.this, node.expression)
                ]
                return Value(f"({sides[0]} {operator} {sides[1]})", Type.BOOLEAN)
            case exp.Not():
                self._faults.only(node, "this")
                inner = self._types.expect(self.translate(node.this, scope), Type.BOOLEAN, node.this)
                return Value(f"(NOT {inner})", Type.BOOLEAN)
            case exp.EQ() | exp.NEQ() | exp.GT() | exp.GTE() | exp.LT() | exp.LTE():
                return self._comparison(node, scope)
            case exp.NullSafeEQ() | exp.NullSafeNEQ():
                return self._comparison(node, scope)
            case exp.Between():
                return self._between(node, scope)
            case exp.In():
                return self._in(node, scope)
            case exp.Is():
                return self._is(node, scope)
            case exp.Like() | exp.Escape():
                return self._like(node, scope)
            case exp.Add() | exp.Sub() | exp.Mul() | exp.Div() | exp.Mod():
                return self._arithmetic(node, scope)
            case exp.Neg():
                return self._negative(node, scope)
            case exp.DPipe():
                sides = [
                    self._types.expect(self.translate(side, scope), Type.VARCHAR, side)
                    for side in (node.this, node.expression)
                ]
                return Value(f"({sides[0]} || {sides[1]})", Type.VARCHAR)
            case exp.Case():
                return self._case(node, scope)
            case exp.If():
                self._faults.only(node, "this", "true", "false")
                return self._branches(
                    node, [(node.this, node.args["true"])], node.args.get("false"), None, scope
                )
            case exp.Cast():
                return self._cast(node, scope)
            case exp.Interval():
                return self._interval(node)
            case exp.Extract():
                return self._extract(node, scope)
            case exp.CurrentTimestamp() | exp.CurrentDate():
                self._faults.only(node)
                moment = self._types.moment(self._now)
                if isinstance(node, exp.CurrentDate):
                    return Value(f"CAST({cut_to_microseconds(moment.sql)} AS DATE)", Type.DATE)
                return moment
            case exp.Filter():
                self._faults.only(node, "this", "expression")
                if not isinstance(node.this, exp.Anonymous):
                    raise self._faults.refusal(node)
                return self._call(node.this, scope, self.condition(node.expression, scope))
            case exp.Anonymous():
                return self._call(node, scope)
            case exp.Exists():
                query = self._subquery(node.this)
                return Value(f"EXISTS ({query.sql})", Type.BOOLEAN)
            case exp.Subquery():
                self._faults.only(node, "this")
                query = self._subquery(node.this)
                if len(query.fields) != 1:
                    raise self._faults.error(node, "A subquery in an expression must have one column")
                return Value(f"({query.sql})", query.fields[0].kind)
            case _:
                raise self._faults.refusal(node)

    def _column(self, node: exp.Column, scope: Scope) -> Value:
        self._faults.only(node, "this", "table", "db")
        if not isinstance(node.this, exp.Identifier):
            raise self._faults.refusal(node)
        if not node.table:
            outputs = {value.sql: value for name, value in scope.outputs if name == node.name}
            if len(outputs) == 1:
                return next(iter(outputs.values()))
            if len(outputs) > 1:
                raise self._faults.error(node, f"Column '{node.name}' is ambiguous")
        candidates = [
            (column.name, Value(f"{relation.alias}.{column.physical}", column.kind))
            for relation in scope.relations
            if not node.table or node.table in relation.names
            for column in relation.fields
            if column.name is not None
        ]
        found = [value for name, value in candidates if name == node.name]
        if not found and not node.this.quoted:
            # Names keep their case when written; a name without quotes is looked up without it, as in Trino.
            found = [value for name, value in candidates if name and name.lower() == node.name.lower()]
        if len(found) > 1:
            raise self._faults.error(node, f"Column '{node.name}' is ambiguous")
        if not found:
            qualified = f"{node.table}.{node.name}" if node.table else node.name
            raise self._faults.error(node, f"Column '{qualified}' does not exist")
        return found[0]

    def _literal(self, node: exp.Literal) -> Value:
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
        return Value(f"CAST('{text}' AS DOUBLE)", Type.DOUBLE)

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
        left, right = self._types.alike(
            node, [self.translate(node.this, scope), self.translate(node.expression, scope)], operator
        )
        return Value(f"({left.sql} {operator} {right.sql})", Type.BOOLEAN)

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
            inner = self._subquery(query)
            if len(inner.fields) != 1 or inner.fields[0].kind is not value.kind:
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
            escape = f" ESCAPE {self._literal(node.expression).sql}"
            node = node.this
        self._faults.only(node, "this", "expression")
        sides = [
            self._types.expect(self.translate(side, scope), Type.VARCHAR, side)
            for side in (node.this, node.expression)
        ]
        return Value(f"({sides[0]} LIKE {sides[1]}{escape})", Type.BOOLEAN)

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
        numbers = {Type.INTEGER, Type.BIGINT, Type.DOUBLE, Type.UNKNOWN}
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
        if value.kind not in {Type.INTEGER, Type.BIGINT, Type.DOUBLE, Type.DAYS, Type.MONTHS}:
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
        }
        kind = kinds.get(target.this)
        safe = isinstance(node, exp.TryCast)
        value = self.translate(node.this, scope)
        if kind is Type.TIMESTAMP and value.literal is not None:
            # The parser gives TIMESTAMP '...' the precision of its text; any other precision would round.
            _, _, fraction = value.literal.partition(".")
            if parameters and parameters[0].name != str(len(fraction)):
                raise self._faults.error(node, f"A cast to {target.sql()} is not supported here.")
            return self._types.moment(self._types.read_timestamp(node, value.literal))
        if kind is None or parameters:
            raise self._faults.error(node, f"A cast to {target.sql()} is not supported here.")
        if kind is Type.DATE and value.literal is not None:
            return Value(f"CAST({quoted(self._types.read_date(node, value.literal))} AS DATE)", Type.DATE)
        sql = cast_text(value, kind, safe=safe)
        if sql is None:
            raise self._faults.error(
                node,
                f"A cast from {value.kind.value.lower()} to {kind.value.lower()} is not supported here.",
            )
        return Value(sql, kind)

    def _interval(self, node: exp.Interval) -> Value:
        self._faults.only(node, "this", "unit")
        unit = node.args["unit"].name.lower() if node.args.get("unit") else ""
        number = node.this.name
        if not isinstance(node.this, exp.Literal) or not re.fullmatch(INTEGER_TEXT, number):
            raise self._faults.error(node, f"Invalid interval literal: {number}")
        if unit in {"second", "minute", "hour", "day"}:
            return Value(f"CAST({int(number) * _NAMED_NANOSECONDS[unit]} AS BIGINT)", Type.DAYS)
        if unit in {"month", "year"}:
            return Value(f"CAST({int(number) * _NAMED_MONTHS[unit]} AS BIGINT)", Type.MONTHS)
        raise self._faults.error(node, f"An interval in {unit or 'no unit'} is not supported here.")

    def _extract(self, node: exp.Extract, scope: Scope) -> Value:
        self._faults.only(node, "this", "expression")
        name = node.this.name.lower()
        if name not in _EXTRACTS:
            raise self._faults.error(node, f"Extracting {name} is not supported here.")
        return self._apply(node, name, [self.translate(node.expression, scope)])

    # Calls.

    def _call(self, node: exp.Anonymous, scope: Scope, filtered: str = "") -> Value:
        name = node.name.lower()
        if filtered and name not in AGGREGATES and name != "count":
            raise self._faults.error(node, f"FILTER is only for aggregates, and {name} is none")
        special = self._special(name)
        if special is not None and not filtered:
            return special(node, scope)
        arguments = list(node.expressions)
        distinct = len(arguments) == 1 and isinstance(arguments[0], exp.Distinct)
        if distinct:
            self._faults.only(arguments[0], "expressions")
            arguments = arguments[0].expressions
        suffix = f" FILTER (WHERE {filtered})" if filtered else ""
        if name == "count":
            return self._count(node, arguments, "DISTINCT " if distinct else "", suffix, scope)
        values = [self.translate(argument, scope) for argument in arguments]
        if name in AGGREGATES:
            if name == "approx_percentile" and (
                len(arguments) > 1 and not isinstance(arguments[1], exp.Literal)
            ):
                raise self._faults.error(
                    node, "approx_percentile needs its percentile as a number in the query"
                )
            return self._apply(node, name, values, "DISTINCT " if distinct else "", suffix)
        if name not in SCALARS or distinct:
            raise self._faults.error(node, f"Function '{name}' is not registered or not supported here.")
        return self._apply(node, name, values)

    def _count(
        self, node: exp.Expr, arguments: Sequence[exp.Expr], distinct: str, suffix: str, scope: Scope
    ) -> Value:
        if not arguments or (len(arguments) == 1 and isinstance(arguments[0], exp.Star)):
            if distinct:
                raise self._faults.error(node, "count(DISTINCT *) is not supported here.")
            return Value(f"count(*){suffix}", Type.BIGINT)
        if len(arguments) != 1:
            raise self._faults.error(node, "count takes one argument")
        value = self.translate(arguments[0], scope)
        return Value(f"count({distinct}{value.sql}){suffix}", Type.BIGINT)

    def _apply(
        self,
        node: exp.Expr,
        name: str,
        values: Sequence[Value],
        distinct: str = "",
        suffix: str = "",
    ) -> Value:
        fitting = [
            signature
            for signature in AGGREGATES.get(name) or SCALARS[name]
            if len(signature.parameters) == len(values)
            and all(_fits(value, kind) for value, kind in zip(values, signature.parameters, strict=True))
        ]
        if not fitting:
            given = ", ".join(value.kind.value.lower() for value in values)
            raise self._faults.error(node, f"Unexpected parameters ({given}) for function {name}")
        exact = [s for s in fitting if s.parameters == tuple(value.kind for value in values)]
        signature = (exact or fitting)[0]
        arguments = [
            self._types.convert(node, value, kind).sql
            for value, kind in zip(values, signature.parameters, strict=True)
        ]
        if distinct and "{distinct}" not in signature.template:
            raise self._faults.error(node, f"{name}(DISTINCT) is not supported here.")
        sql = signature.template.format(*arguments, distinct=distinct, filter=suffix)
        return Value(f"({sql})" if sql.startswith("CASE") else sql, signature.result)

    def _special(self, name: str) -> Callable[[exp.Anonymous, Scope], Value] | None:
        return {
            DURATION_FUNCTION: self._duration,
            "now": self._now_call,
            "ago": self._ago,
            "from_iso8601_timestamp": self._from_iso,
            "date_trunc": self._date_trunc,
            "date_add": self._date_add,
            "date_diff": self._date_diff,
            "coalesce": self._coalesce,
            "nullif": self._nullif,
            "greatest": self._extreme,
            "least": self._extreme,
            "concat": self._concat,
        }.get(name)

    def _duration(self, node: exp.Anonymous, _scope: Scope) -> Value:
        text = node.expressions[0].name
        match = re.fullmatch(r"([0-9]+)([a-z]+)", text)
        if match is None or not _DURATION.fullmatch(text):
            raise self._faults.error(node, f"Interval literal {text} is not supported here.")
        return Value(f"CAST({int(match[1]) * _UNIT_NANOSECONDS[match[2]]} AS BIGINT)", Type.DAYS)

    def _now_call(self, node: exp.Anonymous, _scope: Scope) -> Value:
        self._arity(node, 0)
        return self._types.moment(self._now)

    def _ago(self, node: exp.Anonymous, scope: Scope) -> Value:
        (span,) = self._arguments(node, scope, 1)
        value = self._time_arithmetic("-", self._types.moment(self._now), span)
        if value is None:
            raise self._faults.error(
                node, f"Unexpected parameters ({span.kind.value.lower()}) for function ago"
            )
        return value

    def _from_iso(self, node: exp.Anonymous, scope: Scope) -> Value:
        (text,) = self._arguments(node, scope, 1)
        if text.literal is None:
            raise self._faults.error(
                node, "from_iso8601_timestamp is supported here for a text in the query only."
            )
        return self._types.moment(self._types.read_timestamp(node, text.literal))

    def _date_trunc(self, node: exp.Anonymous, scope: Scope) -> Value:
        unit, moment = self._arguments(node, scope, 2)
        if unit.literal is None or unit.literal.lower() not in _TRUNCATIONS:
            raise self._faults.error(node, f"date_trunc to {unit.literal} is not supported here.")
        moment = self._timestamp(node, moment)
        return Value(
            f"CAST(date_trunc('{unit.literal.lower()}', {cut_to_microseconds(moment.sql)}) AS TIMESTAMP_NS)",
            Type.TIMESTAMP,
        )

    def _date_add(self, node: exp.Anonymous, scope: Scope) -> Value:
        unit, number, moment = self._arguments(node, scope, 3)
        moment = self._timestamp(node, moment)
        count = self._types.convert(node, number, Type.BIGINT).sql
        name = (unit.literal or "").lower()
        if name in _NAMED_NANOSECONDS:
            return later(moment.sql, f"{count} * CAST({_NAMED_NANOSECONDS[name]} AS BIGINT)")
        if name in _NAMED_MONTHS:
            return months_later(moment.sql, f"{count} * {_NAMED_MONTHS[name]}")
        raise self._faults.error(
            node, f"date_add in {name or 'a unit that is not a text'} is not supported here."
        )

    def _date_diff(self, node: exp.Anonymous, scope: Scope) -> Value:
        unit, start, end = self._arguments(node, scope, 3)
        name = (unit.literal or "").lower()
        if name not in _NAMED_NANOSECONDS:
            raise self._faults.error(
                node, f"date_diff in {name or 'a unit that is not a text'} is not supported here."
            )
        start, end = self._timestamp(node, start), self._timestamp(node, end)
        return Value(
            f"((epoch_ns({end.sql}) - epoch_ns({start.sql})) // {_NAMED_NANOSECONDS[name]})", Type.BIGINT
        )

    def _coalesce(self, node: exp.Anonymous, scope: Scope) -> Value:
        if not node.expressions:
            raise self._faults.error(node, "coalesce takes at least one argument")
        values = self._types.alike(node, self._arguments(node, scope, len(node.expressions)), "coalesce")
        return Value(f"coalesce({', '.join(value.sql for value in values)})", values[0].kind)

    def _nullif(self, node: exp.Anonymous, scope: Scope) -> Value:
        first, second = self._arguments(node, scope, 2)
        left, right = self._types.alike(node, [first, second], "nullif")
        return Value(f"(CASE WHEN {left.sql} = {right.sql} THEN NULL ELSE {first.sql} END)", first.kind)

    def _extreme(self, node: exp.Anonymous, scope: Scope) -> Value:
        if not node.expressions:
            raise self._faults.error(node, f"{node.name.lower()} takes at least one argument")
        values = self._types.alike(
            node, self._arguments(node, scope, len(node.expressions)), node.name.lower()
        )
        # In Trino one null makes the result null; DuckDB passes over it.
        nulls = " OR ".join(f"{value.sql} IS NULL" for value in values)
        call = f"{node.name.lower()}({', '.join(value.sql for value in values)})"
        return Value(f"(CASE WHEN {nulls} THEN NULL ELSE {call} END)", values[0].kind)

    def _concat(self, node: exp.Anonymous, scope: Scope) -> Value:
        # In Trino one null makes the result null, as "||" does; DuckDB's concat passes over it.
        parts = [
            self._types.expect(value, Type.VARCHAR, node)
            for value in self._arguments(node, scope, len(node.expressions))
        ]
        if not parts:
            raise self._faults.error(node, "concat takes at least one argument")
        return Value(f"({' || '.join(parts)})", Type.VARCHAR)

    def _arguments(self, node: exp.Anonymous, scope: Scope, count: int) -> list[Value]:
        self._arity(node, count)
        return [self.translate(argument, scope) for argument in node.expressions]

    def _arity(self, node: exp.Anonymous, count: int) -> None:
        if len(node.expressions) != count:
            raise self._faults.error(
                node, f"{node.name.lower()} takes {count} arguments, not {len(node.expressions)}"
            )

    def _timestamp(self, node: exp.Expr, value: Value) -> Value:
        return self._types.convert(node, value, Type.TIMESTAMP)


def _fits(value: Value, kind: Kind) -> bool:
    return widens(value.kind, kind) or (kind is Type.TIMESTAMP and value.literal is not None)
