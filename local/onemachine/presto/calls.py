"""Names, and calls of Trino's functions, aggregates and windows, as DuckDB has them."""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from sqlglot import exp

from onemachine.presto.conversions import Value, later, months_later, quoted
from onemachine.presto.failures import FAIL, FAIL_AS_NULL, failure, guarded
from onemachine.presto.formats import (
    UnknownFormatError,
    date_format,
    date_parse,
    format_datetime,
    parse_datetime,
    replacement,
)
from onemachine.presto.functions import AGGREGATES, SCALARS, WINDOWS, cut_to_microseconds
from onemachine.presto.kinds import Array, Kind, Series, Type, duckdb_type, printed, widens
from onemachine.presto.operators import NAMED_MONTHS, NAMED_NANOSECONDS, Operators
from onemachine.presto.scopes import Scope, has_aggregate
from onemachine.presto.syntax import DURATION_FUNCTION

_UNIT_NANOSECONDS = dict(
    zip(
        ("ns", "us", "ms", "s", "m", "h", "d"), NAMED_NANOSECONDS.values(), strict=False
    )  # no unit for a week
)
_TRUNCATIONS = ("second", "minute", "hour", "day", "week", "month", "quarter", "year")
_EXTRACTS = frozenset(
    {
        *("year", "quarter", "month", "week", "day", "day_of_week", "dow", "day_of_year", "doy"),
        *("hour", "minute", "second", "year_of_week", "yow"),
    }
)
# Timestream's literals: 15m, 1day, 1h30m.
_DURATION = re.compile(
    r"([0-9]+)(nanosecond|microsecond|millisecond|second|minute|hour|day|week|month|year|ns|us|ms|s|m|h|d)"
)
_DECIMAL_DURATION = re.compile(r"\s*([0-9]+)(?:\.([0-9]+))?\s*(ns|us|ms|s|m|h|d)\s*", re.ASCII)
_FRAMES = {"UNBOUNDED": "UNBOUNDED", "CURRENT ROW": "CURRENT ROW"}
# Functions that are more than a template, by the method that translates them.
SPECIAL_FORMS = {
    DURATION_FUNCTION: "_duration",
    "now": "_now_call",
    "ago": "_ago",
    "from_iso8601_timestamp": "_from_iso",
    "date_trunc": "_date_trunc",
    "date_add": "_date_add",
    "date_diff": "_date_diff",
    "coalesce": "_coalesce",
    "nullif": "_nullif",
    "greatest": "_extreme",
    "least": "_extreme",
    "concat": "_concat",
    "try": "_try",
    "filter": "_lambda_call",
    "transform": "_lambda_call",
    "reduce": "_reduce",
    "array_join": "_array_join",
    "parse_duration": "_parse_duration",
    "typeof": "_typeof",
    "from_iso8601_date": "_from_iso_date",
    "date_format": "_format",
    "format_datetime": "_format",
    "date_parse": "_parse",
    "parse_datetime": "_parse",
    "regexp_replace": "_regexp_replace",
    "regexp_extract": "_regexp_extract",
    "regexp_extract_all": "_regexp_extract",
    "json_extract_scalar": "_json_extract_scalar",
}
# What may give a value where a part of it is null.
_NULL_TAKERS = (
    *(exp.Case, exp.If, exp.Is, exp.NullSafeEQ, exp.NullSafeNEQ, exp.Exists, exp.And, exp.Or),
    *(exp.Array, exp.Lambda, exp.In, exp.Query),
)
# The functions whose value does not depend on a frame, and which have none.
_UNFRAMED = frozenset(
    {"row_number", "rank", "dense_rank", "percent_rank", "cume_dist", "ntile", "lag", "lead"}
)
_JSON_PATH = re.compile(r'\$(?:\.[A-Za-z_][A-Za-z0-9_]*|\[[0-9]+\]|\["[A-Za-z0-9_. -]+"\])*', re.ASCII)


class Calls(Operators):
    """Translates the names and calls of one query's expressions."""

    def _column(self, node: exp.Column, scope: Scope) -> Value:
        self._faults.only(node, "this", "table", "db")
        if not isinstance(node.this, exp.Identifier):
            raise self._faults.refusal(node)
        if not node.table and node.name in scope.variables:
            return self._variable(node.this, scope)
        if not node.table:
            outputs = {value.sql: value for name, value in scope.outputs if name == node.name}
            if len(outputs) == 1:
                return next(iter(outputs.values()))
            if len(outputs) > 1:
                raise self._faults.error(node, f"Column '{node.name}' is ambiguous")
        candidates = [
            (column.name, relation.value(column))
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
        if not found and scope.outer is not None:
            return self._column(node, scope.outer)
        if not found:
            qualified = f"{node.table}.{node.name}" if node.table else node.name
            raise self._faults.error(node, f"Column '{qualified}' does not exist")
        return found[0]

    def _extract(self, node: exp.Extract, scope: Scope) -> Value:
        self._faults.only(node, "this", "expression")
        name = node.this.name.lower()
        if name not in _EXTRACTS:
            raise self._faults.error(node, f"Extracting {name} is not supported here.")
        return self._apply(node, name, [self.translate(node.expression, scope)])

    def _concatenation(self, node: exp.Expr, values: Sequence[Value]) -> Value:
        """Join texts or arrays: in Trino one null makes the result null."""
        if any(isinstance(value.kind, Array) for value in values):
            values = self._types.alike(node, values, "||")
            nulls = " OR ".join(f"{value.sql} IS NULL" for value in values)
            joined = values[0].sql
            for value in values[1:]:
                joined = f"list_concat({joined}, {value.sql})"
            return Value(f"(CASE WHEN {nulls} THEN NULL ELSE {joined} END)", values[0].kind)
        parts = [self._types.expect(value, Type.VARCHAR, node) for value in values]
        return Value(f"({' || '.join(parts)})", Type.VARCHAR)

    def _subscript(self, node: exp.Bracket, scope: Scope) -> Value:
        self._faults.only(node, "this", "expressions")
        array = self.translate(node.this, scope)
        if not isinstance(array.kind, Array) or len(node.expressions) != 1:
            raise self._faults.refusal(node)
        place = self._types.expect(self.translate(node.expressions[0], scope), Type.BIGINT, node)
        sql = guarded(
            f"{place} < 1 OR {place} > len({array.sql})",
            "Array subscript must be between 1 and the size of the array",
            f"({array.sql})[{place}]",
        )
        return Value(f"({sql})", array.kind.element)

    def _variable(self, node: exp.Expr, scope: Scope) -> Value:
        """Translate a lambda's argument, or the time or value of one that is a point of a time series."""
        whole = node.this if isinstance(node, exp.Dot) else node
        if not isinstance(whole, exp.Identifier):
            raise self._faults.refusal(node)
        variable = scope.variables.get(whole.name)
        if variable is None:
            if isinstance(node, exp.Dot):
                column = exp.column(node.expression.copy(), whole.copy())
            else:
                column = exp.column(whole.copy())
            return self._column(column, replace(scope, variables={}))
        if isinstance(node, exp.Dot) != isinstance(variable.kind, Series):
            raise self._faults.error(node, "A point of a time series is used by its .time or .value")
        if not isinstance(variable.kind, Series):
            return variable
        match node.expression.name.lower():
            case "time":
                return Value(f"{variable.sql}.time", Type.TIMESTAMP)
            case "value":
                return Value(f"{variable.sql}.value", variable.kind.element)
            case other:
                raise self._faults.error(node, f"A point of a time series has no {other}")

    def _lambda_call(self, node: exp.Anonymous, scope: Scope) -> Value:
        """Translate filter and transform, of arrays and of time series."""
        self._arity(node, 2)
        items, function = self.translate(node.expressions[0], scope), node.expressions[1]
        if not isinstance(items.kind, (Array, Series)) or not isinstance(function, exp.Lambda):
            raise self._faults.error(
                node, f"{node.name.lower()} takes an array or a time series and a lambda"
            )
        name = self._name()
        bound = Value(name, items.kind if isinstance(items.kind, Series) else items.kind.element)
        body = self._body(function, scope, [bound])
        if node.name.lower() == "filter":
            test = self._types.expect(body, Type.BOOLEAN, function)
            return Value(f"list_filter({items.sql}, lambda {name}: {test})", items.kind)
        if isinstance(items.kind, Array):
            sql = f"list_transform({items.sql}, lambda {name}: {body.sql})"
            return Value(sql, Array(body.kind))
        sql = f"list_transform({items.sql}, lambda {name}: {{'time': {name}.time, 'value': {body.sql}}})"
        return Value(sql, Series(body.kind))

    def _reduce(self, node: exp.Anonymous, scope: Scope) -> Value:
        """Translate reduce: a state that each element changes, and what is made of the last."""
        self._arity(node, 4)
        items, first = (self.translate(part, scope) for part in node.expressions[:2])
        if not isinstance(items.kind, (Array, Series)):
            raise self._faults.error(node, "reduce takes an array or a time series first")
        element = items.kind if isinstance(items.kind, Series) else items.kind.element
        # DuckDB's states are of the elements' type: each is a pair, of which one or the other is null.
        so_far, item, last = self._name(), self._name(), self._name()
        held, single = duckdb_type(first.kind), duckdb_type(items.kind).removesuffix("[]")
        step = self._body(
            node.expressions[2], scope, [Value(f"{so_far}.s", first.kind), Value(f"{item}.e", element)]
        )
        changed = self._types.expect(step, first.kind, node.expressions[2])
        result = self._body(node.expressions[3], scope, [Value(last, first.kind)])
        pairs = f"list_transform({items.sql}, lambda {item}: {{'s': CAST(NULL AS {held}), 'e': {item}}})"
        states = [
            f"{{'s': CAST({sql} AS {held}), 'e': CAST(NULL AS {single})}}" for sql in (changed, first.sql)
        ]
        reduced = f"list_reduce({pairs}, lambda {so_far}, {item}: {states[0]}, {states[1]})"
        return Value(f"list_transform([{reduced}.s], lambda {last}: {result.sql})[1]", result.kind)

    def _body(self, function: exp.Expr, scope: Scope, arguments: Sequence[Value]) -> Value:
        """Translate what a lambda makes of its arguments."""
        if not isinstance(function, exp.Lambda) or len(function.expressions) != len(arguments):
            raise self._faults.error(function, f"A lambda of {len(arguments)} arguments is expected")
        self._faults.only(function, "this", "expressions")
        names = (name.name for name in function.expressions)
        variables = {**scope.variables, **dict(zip(names, arguments, strict=True))}
        return self.translate(function.this, replace(scope, variables=variables))

    def _window(self, node: exp.Window, scope: Scope) -> Value:
        named = node.args.get("alias")
        if named is not None:
            self._faults.only(node, "this", "alias", "over")
            if named.name not in scope.windows:
                raise self._faults.error(node, f"Window '{named.name}' does not exist")
            window = scope.windows[named.name]
        else:
            window = node
        self._faults.only(window, "this", "partition_by", "order", "spec", "over")
        over = f" OVER ({' '.join(self._window_parts(window, scope))})"
        framed = bool(window.args.get("spec"))
        inner = node.this
        nulls = filtered = ""
        if isinstance(inner, exp.Filter):
            self._faults.only(inner, "this", "expression")
            filtered = f" FILTER (WHERE {self.condition(inner.expression, scope)})"
            inner = inner.this
        if isinstance(inner, (exp.IgnoreNulls, exp.RespectNulls)):
            nulls = " IGNORE NULLS" if isinstance(inner, exp.IgnoreNulls) else ""
            inner = inner.this
        if not isinstance(inner, exp.Anonymous):
            raise self._faults.refusal(node)
        return self._over(inner, over, filtered, nulls, scope, framed=framed)

    def _over(
        self, inner: exp.Anonymous, over: str, filtered: str, nulls: str, scope: Scope, *, framed: bool
    ) -> Value:
        """Call a function or an aggregate for a window."""
        name = inner.name.lower()
        arguments = inner.expressions
        if name == "count":
            return self._count(inner, arguments, "", filtered + over, scope)
        if name in WINDOWS and filtered:
            raise self._faults.error(inner, f"FILTER is only for aggregates; {name} is not one")
        if name not in WINDOWS and (name not in AGGREGATES or nulls):
            raise self._faults.error(inner, f"{name} is not a window function, or is not supported here.")
        if any(isinstance(argument, (exp.Distinct, exp.Order)) for argument in arguments):
            raise self._faults.error(
                inner, f"{name} with DISTINCT or ORDER BY and OVER is not supported here."
            )
        if framed and name in _UNFRAMED:
            raise self._faults.error(inner, f"Cannot specify window frame for {name} function")
        values = [self.translate(argument, scope) for argument in arguments]
        return self._apply(inner, name, values, suffix=filtered + over, nulls=nulls)

    def _window_parts(self, window: exp.Expr, scope: Scope) -> Iterator[str]:
        keys = [self.translate(key, scope).sql for key in window.args.get("partition_by") or ()]
        if keys:
            yield f"PARTITION BY {', '.join(keys)}"
        order = window.args.get("order")
        if order is not None:
            self._faults.only(order, "expressions")
            # Here a number is a value, not a position in the select list.
            yield f"ORDER BY {', '.join(self.ordered(item, scope) for item in order.expressions)}"
        spec = window.args.get("spec")
        if spec is None:
            return
        self._faults.only(spec, "kind", "start", "start_side", "end", "end_side")
        kind = spec.args["kind"]
        bounds = [self._bound(spec, "start")]
        bounds.append(self._bound(spec, "end") if spec.args.get("end") is not None else "CURRENT ROW")
        if kind not in {"ROWS", "RANGE"} or (kind == "RANGE" and any(bound[0].isdigit() for bound in bounds)):
            raise self._faults.error(window, f"A frame of {kind} with an offset is not supported here.")
        yield f"{kind} BETWEEN {bounds[0]} AND {bounds[1]}"

    def _bound(self, spec: exp.Expr, name: str) -> str:
        bound, side = spec.args.get(name), spec.args.get(f"{name}_side") or ""
        if isinstance(bound, exp.Literal) and not bound.is_string and bound.this.isdigit():
            return f"{int(bound.this)} {side}"
        word = _FRAMES.get(bound if isinstance(bound, str) else "")
        if word is None:
            raise self._faults.error(spec, "A frame begins and ends at a number of rows in the query")
        return f"{word} {side}".strip()

    def ordered(self, item: exp.Expr, scope: Scope, value: Value | None = None) -> str:
        """Translate one key of an ORDER BY.

        Args:
            item: The key, with its direction.
            scope: Where its names are looked up.
            value: The key's translation, where it is known already.

        Returns:
            DuckDB's text; nulls come last unless the query orders otherwise, as in Trino.

        Raises:
            ServiceError: ValidationException.
        """
        self._faults.only(item, "this", "desc", "nulls_first")
        sql = (value or self.translate(item.this, scope)).sql
        direction = " DESC" if item.args.get("desc") else " ASC"
        return sql + direction + (" NULLS FIRST" if item.args.get("nulls_first") else " NULLS LAST")

    def _call(self, node: exp.Anonymous, scope: Scope, filtered: str = "") -> Value:
        name = node.name.lower()
        if filtered and name not in AGGREGATES and name != "count":
            raise self._faults.error(node, f"FILTER is only for aggregates; {name} is not one")
        special = self._special(node, name)
        if special is not None and not filtered:
            return special(node, scope)
        if name in WINDOWS:
            raise self._faults.error(node, f"Window function {name} requires an OVER clause")
        arguments = list(node.expressions)
        order = ""
        if len(arguments) == 1 and isinstance(arguments[0], exp.Order):
            self._faults.only(arguments[0], "this", "expressions")
            keys = ", ".join(self.ordered(item, scope) for item in arguments[0].expressions)
            order, arguments = f" ORDER BY {keys}", [arguments[0].this]
        distinct = len(arguments) == 1 and isinstance(arguments[0], exp.Distinct)
        if distinct:
            self._faults.only(arguments[0], "expressions")
            arguments = arguments[0].expressions
        suffix = f" FILTER (WHERE {filtered})" if filtered else ""
        if name == "count":
            return self._count(node, arguments, "DISTINCT " if distinct else "", suffix, scope)
        values = [self.translate(argument, scope) for argument in arguments]
        if name in AGGREGATES:
            if name == "approx_percentile" and not all(
                isinstance(part, (exp.Literal, exp.Array))
                for argument in arguments[1:]
                for part in argument.walk(prune=lambda part: not isinstance(part, exp.Array))
            ):
                raise self._faults.error(
                    node, "approx_percentile needs its percentile as a number in the query"
                )
            return self._apply(
                node, name, values, distinct="DISTINCT " if distinct else "", suffix=suffix, order=order
            )
        if name not in SCALARS or distinct or order:
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
        *,
        distinct: str = "",
        suffix: str = "",
        order: str = "",
        nulls: str = "",
    ) -> Value:
        fitting = [
            signature
            for signature in WINDOWS.get(name) or AGGREGATES.get(name) or SCALARS[name]
            if len(signature.parameters) == len(values)
            and all(self._fits(value, kind) for value, kind in zip(values, signature.parameters, strict=True))
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
        template = signature.template
        for given, slot in ((distinct, "{distinct}"), (order, "{order}"), (nulls, "{nulls}")):
            if given and slot not in template:
                raise self._faults.error(node, f"{given.strip()} in {name} is not supported here.")
        around = "{}"
        if "$" in template:
            name = self._name()
            template = template.replace("$", f"{name}_")
            if any("SELECT" in argument for argument in arguments):
                # DuckDB takes no subquery in a lambda: the arguments are columns of one around it.
                columns = ", ".join(f"{argument} AS a{place}" for place, argument in enumerate(arguments))
                around = f"(SELECT {{}} FROM (SELECT {columns}) AS {name})"  # noqa: S608 translated
                arguments = [f"{name}.a{place}" for place in range(len(arguments))]
        sql = template.format(*arguments, distinct=distinct, filter=suffix, order=order, nulls=nulls)
        sql = around.replace("{}", sql, 1)
        return Value(f"({sql})" if sql.startswith("CASE") else sql, signature.result)

    def _special(self, node: exp.Expr, name: str) -> Callable[[exp.Anonymous, Scope], Value] | None:
        if name in self._dialect.refused:
            raise self._faults.error(node, f"Function '{name}' is not registered or not supported here.")
        method = SPECIAL_FORMS.get(name)
        return None if method is None else getattr(self, method)

    def _duration(self, node: exp.Anonymous, _scope: Scope) -> Value:
        text = node.expressions[0].name
        parts = _DURATION.findall(text)
        if "".join(number + unit for number, unit in parts) != text:
            raise self._faults.error(node, f"Interval literal {text} is not supported here.")
        months = sum(int(number) * NAMED_MONTHS.get(unit, 0) for number, unit in parts)
        if months and any(unit not in NAMED_MONTHS for _, unit in parts):
            raise self._faults.error(node, f"Interval literal {text} mixes months with days.")
        if months:
            return Value(f"CAST({months} AS BIGINT)", Type.MONTHS)
        sizes = {**NAMED_NANOSECONDS, **_UNIT_NANOSECONDS}
        return Value(
            f"CAST({sum(int(number) * sizes.get(unit, 0) for number, unit in parts)} AS BIGINT)", Type.DAYS
        )

    def _typeof(self, node: exp.Anonymous, scope: Scope) -> Value:
        (value,) = self._arguments(node, scope, 1)
        return Value(quoted(value.kind.value.lower().replace("_", " ")), Type.VARCHAR)

    def _parse_duration(self, node: exp.Anonymous, scope: Scope) -> Value:
        (text,) = self._arguments(node, scope, 1)
        match = _DECIMAL_DURATION.fullmatch(text.literal or "")
        if match is None:
            raise self._faults.error(node, f"parse_duration of {text.literal} is not supported here.")
        whole, fraction, unit = match[1], match[2] or "", match[3]
        nanoseconds, rest = divmod(int(whole + fraction) * _UNIT_NANOSECONDS[unit], 10 ** len(fraction))
        if rest:
            raise self._faults.error(
                node, f"parse_duration of {text.literal} is not a whole number of nanoseconds."
            )
        return Value(f"CAST({nanoseconds} AS BIGINT)", Type.DAYS)

    def _from_iso_date(self, node: exp.Anonymous, scope: Scope) -> Value:
        (text,) = self._arguments(node, scope, 1)
        if text.literal is None:
            raise self._faults.error(
                node, "from_iso8601_date is supported here for a text in the query only."
            )
        return Value(f"CAST({quoted(self._types.read_date(node, text.literal))} AS DATE)", Type.DATE)

    def _try(self, node: exp.Anonymous, scope: Scope) -> Value:
        (value,) = self._arguments(node, scope, 1)
        if has_aggregate(node):
            raise self._faults.error(node, "try of an aggregate is not supported here.")
        # TRY takes no error() of ours. Null in its place is the same where nothing makes a value of null.
        if FAIL in value.sql and any(
            isinstance(part, _NULL_TAKERS) or part.name.lower() in {"coalesce", "array_join", "nullif"}
            for part in node.walk()
        ):
            raise self._faults.error(
                node, "try of an expression that makes a value of null is not supported here."
            )
        return Value(f"TRY({value.sql.replace(FAIL, FAIL_AS_NULL)})", value.kind)

    def _array_join(self, node: exp.Anonymous, scope: Scope) -> Value:
        with_null = len(node.expressions) == 3  # noqa: PLR2004 its third argument
        array, delimiter, *null = self._arguments(node, scope, 3 if with_null else 2)
        if not isinstance(array.kind, Array) or not isinstance(array.kind.element, Type):
            raise self._faults.error(
                node, f"Unexpected parameters ({array.kind.value}) for function array_join"
            )
        name = self._name()
        item = printed(array.kind.element, name)
        if with_null:
            item = f"coalesce({item}, {self._types.expect(null[0], Type.VARCHAR, node)})"
        joined = f"array_to_string(list_transform({array.sql}, lambda {name}: {item}), {{}})"
        return Value(joined.format(self._types.expect(delimiter, Type.VARCHAR, node)), Type.VARCHAR)

    def _format(self, node: exp.Anonymous, scope: Scope) -> Value:
        moment, text = self._arguments(node, scope, 2)
        write = date_format if node.name.lower() == "date_format" else format_datetime
        try:
            sql = write(self._timestamp(node, moment).sql, self._literal_text(node, text))
        except UnknownFormatError as error:
            raise self._faults.error(node, f"{node.name.lower()}: {error} is not supported here.") from None
        return Value(sql, Type.VARCHAR)

    def _parse(self, node: exp.Anonymous, scope: Scope) -> Value:
        text, layout = self._arguments(node, scope, 2)
        read = date_parse if node.name.lower() == "date_parse" else parse_datetime
        value = self._types.expect(text, Type.VARCHAR, node)
        try:
            fits, sql = read(value, self._literal_text(node, layout))
        except UnknownFormatError as error:
            raise self._faults.error(node, f"{node.name.lower()}: {error} is not supported here.") from None
        reason = failure(f"concat('Invalid format: ', {value})")
        return Value(
            f"(CASE WHEN {value} IS NULL THEN NULL WHEN {fits} THEN {sql} ELSE {reason} END)", Type.TIMESTAMP
        )

    def _regexp_replace(self, node: exp.Anonymous, scope: Scope) -> Value:
        count = 2 if len(node.expressions) == 2 else 3  # noqa: PLR2004 without a replacement
        if isinstance(node.expressions[-1], exp.Lambda):
            raise self._faults.error(node, "regexp_replace with a lambda is not supported here.")
        value, pattern, *rest = self._arguments(node, scope, count)
        try:
            new = replacement(self._literal_text(node, rest[0])) if rest else ""
        except UnknownFormatError as error:
            raise self._faults.error(node, f"The replacement {error} is not supported here.") from None
        texts = [self._types.expect(text, Type.VARCHAR, node) for text in (value, pattern)]
        return Value(f"regexp_replace({texts[0]}, {texts[1]}, {quoted(new)}, 'g')", Type.VARCHAR)

    def _regexp_extract(self, node: exp.Anonymous, scope: Scope) -> Value:
        name = node.name.lower()
        if len(node.expressions) != 3:  # noqa: PLR2004 without a group
            return self._apply(node, name, [self.translate(part, scope) for part in node.expressions])
        value, pattern, _ = self._arguments(node, scope, 3)
        group, regex = node.expressions[2], pattern.literal
        # For a group that takes no part in a match DuckDB has '', Trino null: so only groups that always do.
        if (
            not isinstance(group, exp.Literal)
            or not re.fullmatch(r"[1-9]", group.name)
            or regex is None
            or re.search(r"\||\)(?:[?*]|\{0)|\\[QE]", regex)
        ):
            raise self._faults.error(
                node, f"{name} is supported here for a group that is in every match of a text in the query."
            )
        text = self._types.expect(value, Type.VARCHAR, node)
        call = f"{name}({text}, {pattern.sql}, {group.name})"
        if name == "regexp_extract_all":
            return Value(call, Array(Type.VARCHAR))
        return Value(
            f"(CASE WHEN regexp_matches({text}, {pattern.sql}) THEN {call} ELSE NULL END)", Type.VARCHAR
        )

    def _json_extract_scalar(self, node: exp.Anonymous, scope: Scope) -> Value:
        text, path = self._arguments(node, scope, 2)
        if path.literal is None or not _JSON_PATH.fullmatch(path.literal):
            raise self._faults.error(node, f"The JSON path {path.literal} is not supported here.")
        value = self._types.expect(text, Type.VARCHAR, node)
        place = quoted(re.sub(r'\["([^"]*)"\]', r'."\1"', path.literal))
        return Value(
            f"(CASE WHEN NOT json_valid({value}) THEN NULL "
            f"WHEN json_type({value}, {place}) IN ('OBJECT', 'ARRAY', 'NULL') THEN NULL "
            f"ELSE json_extract_string({value}, {place}) END)",
            Type.VARCHAR,
        )

    def _literal_text(self, node: exp.Anonymous, value: Value) -> str:
        if value.literal is None:
            raise self._faults.error(
                node, f"{node.name.lower()} is supported here with a text that stands in the query only."
            )
        return value.literal

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
        kind = moment.kind if moment.kind is Type.DATE else Type.TIMESTAMP
        if kind is Type.DATE and unit.literal.lower() in {"second", "minute", "hour"}:
            raise self._faults.error(node, f"'{unit.literal}' is not a valid DATE field")
        moment = self._timestamp(node, moment)
        cut = f"date_trunc('{unit.literal.lower()}', {cut_to_microseconds(moment.sql)})"
        return Value(f"CAST({cut} AS {duckdb_type(kind)})", kind)

    def _date_add(self, node: exp.Anonymous, scope: Scope) -> Value:
        unit, number, moment = self._arguments(node, scope, 3)
        count = self._types.convert(node, number, Type.BIGINT).sql
        name = (unit.literal or "").lower()
        if moment.kind is Type.DATE:
            if name not in {"day", "week", *NAMED_MONTHS}:
                raise self._faults.error(node, f"'{name}' is not a valid DATE field")
            months = name in NAMED_MONTHS
            size = NAMED_MONTHS[name] if months else NAMED_NANOSECONDS[name] // NAMED_NANOSECONDS["day"]
            span = f"{'to_months' if months else 'to_days'}(CAST({count} * {size} AS INTEGER))"
            return Value(f"CAST({moment.sql} + {span} AS DATE)", Type.DATE)
        moment = self._timestamp(node, moment)
        if name in NAMED_NANOSECONDS:
            return later(moment.sql, f"{count} * CAST({NAMED_NANOSECONDS[name]} AS BIGINT)")
        if name in NAMED_MONTHS:
            return months_later(moment.sql, f"{count} * {NAMED_MONTHS[name]}")
        raise self._faults.error(
            node, f"date_add in {name or 'a unit that is not a text'} is not supported here."
        )

    def _date_diff(self, node: exp.Anonymous, scope: Scope) -> Value:
        unit, start, end = self._arguments(node, scope, 3)
        name = (unit.literal or "").lower()
        if name not in NAMED_NANOSECONDS and name not in NAMED_MONTHS:
            raise self._faults.error(
                node, f"date_diff in {name or 'a unit that is not a text'} is not supported here."
            )
        start, end = self._timestamp(node, start), self._timestamp(node, end)
        if name in NAMED_MONTHS:
            # Whole ones: datediff would count how often one begins.
            cuts = ", ".join(cut_to_microseconds(moment.sql) for moment in (start, end))
            return Value(f"datesub('{name}', {cuts})", Type.BIGINT)
        return Value(
            f"((epoch_ns({end.sql}) - epoch_ns({start.sql})) // {NAMED_NANOSECONDS[name]})", Type.BIGINT
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
        # As "||" does; DuckDB's concat passes over null.
        values = self._arguments(node, scope, len(node.expressions))
        if not values:
            raise self._faults.error(node, "concat takes at least one argument")
        return self._concatenation(node, values)

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

    def _fits(self, value: Value, kind: Kind) -> bool:
        return widens(value.kind, kind) or self._types.reads_as_time(value, kind)
