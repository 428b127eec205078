"""The expressions of one query in Trino's SQL: what translates each kind of node."""

from collections.abc import Callable

from sqlglot import exp

from onemachine.presto.calls import Calls
from onemachine.presto.conversions import Value
from onemachine.presto.functions import cut_to_microseconds
from onemachine.presto.kinds import Type
from onemachine.presto.operators import NAMED_NANOSECONDS
from onemachine.presto.scopes import Scope

# What translates a node, by its class.
_METHODS: dict[type, str] = {
    exp.Paren: "_parenthesis",
    exp.Column: "_column",
    exp.Literal: "_literal",
    exp.Boolean: "_boolean",
    exp.Null: "_null",
    exp.And: "_logical",
    exp.Or: "_logical",
    exp.Not: "_not",
    **dict.fromkeys((exp.EQ, exp.NEQ, exp.GT, exp.GTE, exp.LT, exp.LTE), "_comparison"),
    **dict.fromkeys((exp.NullSafeEQ, exp.NullSafeNEQ), "_comparison"),
    exp.Between: "_between",
    exp.In: "_in",
    exp.Is: "_is",
    exp.Like: "_like",
    exp.Escape: "_like",
    **dict.fromkeys((exp.Add, exp.Sub, exp.Mul, exp.Div, exp.Mod), "_arithmetic"),
    exp.Neg: "_negative",
    exp.DPipe: "_joined",
    exp.Array: "_array",
    exp.Bracket: "_subscript",
    exp.Identifier: "_variable",
    exp.Dot: "_variable",
    exp.Window: "_window",
    exp.StrPosition: "_position",
    exp.Case: "_case",
    exp.If: "_if",
    exp.Cast: "_cast",
    exp.Interval: "_interval",
    exp.Extract: "_extract",
    **dict.fromkeys((exp.CurrentTimestamp, exp.Localtimestamp, exp.CurrentDate), "_current_moment"),
    exp.CurrentTime: "_current_time",
    exp.Localtime: "_current_time",
    exp.Filter: "_filter",
    exp.Anonymous: "_call",
    exp.Exists: "_exists",
    exp.Subquery: "_scalar",
}


class Expressions(Calls):
    """Translates the expressions of one query."""

    def translate(self, node: exp.Expr, scope: Scope) -> Value:
        """Translate an expression.

        Args:
            node: The expression.
            scope: Where its names are looked up.

        Returns:
            DuckDB's text and the expression's type.

        Raises:
            ServiceError: ValidationException: it is wrong, or not supported here.
        """
        name = next((_METHODS[kind] for kind in type(node).__mro__ if kind in _METHODS), None)
        if name is None:
            raise self._faults.refusal(node)
        method: Callable[[exp.Expr, Scope], Value] = getattr(self, name)
        return method(node, scope)

    def _parenthesis(self, node: exp.Paren, scope: Scope) -> Value:
        self._faults.only(node, "this")
        return self.translate(node.this, scope)

    def _boolean(self, node: exp.Boolean, _scope: Scope) -> Value:
        return Value("true" if node.this else "false", Type.BOOLEAN)

    def _null(self, _node: exp.Null, _scope: Scope) -> Value:
        return Value("NULL", Type.UNKNOWN)

    def _logical(self, node: exp.Expr, scope: Scope) -> Value:
        operator = "AND" if isinstance(node, exp.And) else "OR"
        sides = [
            self._types.expect(self.translate(side, scope), Type.BOOLEAN, side)
            for side in (node.this, node.expression)
        ]
        return Value(f"({sides[0]} {operator} {sides[1]})", Type.BOOLEAN)

    def _not(self, node: exp.Not, scope: Scope) -> Value:
        self._faults.only(node, "this")
        inner = self._types.expect(self.translate(node.this, scope), Type.BOOLEAN, node.this)
        return Value(f"(NOT {inner})", Type.BOOLEAN)

    def _joined(self, node: exp.DPipe, scope: Scope) -> Value:
        return self._concatenation(
            node, [self.translate(side, scope) for side in (node.this, node.expression)]
        )

    def _position(self, node: exp.StrPosition, scope: Scope) -> Value:
        self._faults.only(node, "this", "substr")
        texts = [self.translate(side, scope) for side in (node.this, node.args["substr"])]
        return self._apply(node, "strpos", texts)

    def _if(self, node: exp.If, scope: Scope) -> Value:
        self._faults.only(node, "this", "true", "false")
        return self._branches(node, [(node.this, node.args["true"])], node.args.get("false"), None, scope)

    def _current_moment(self, node: exp.Expr, _scope: Scope) -> Value:
        self._faults.only(node)
        moment = self._types.moment(self._now)
        if isinstance(node, exp.CurrentDate):
            return Value(f"CAST({cut_to_microseconds(moment.sql)} AS DATE)", Type.DATE)
        return moment

    def _current_time(self, node: exp.Expr, _scope: Scope) -> Value:
        self._faults.only(node)
        return Value(f"CAST({self._now % NAMED_NANOSECONDS['day']} AS BIGINT)", Type.TIME)

    def _filter(self, node: exp.Filter, scope: Scope) -> Value:
        self._faults.only(node, "this", "expression")
        if not isinstance(node.this, exp.Anonymous):
            raise self._faults.refusal(node)
        return self._call(node.this, scope, self.condition(node.expression, scope))

    def _exists(self, node: exp.Exists, scope: Scope) -> Value:
        return Value(f"EXISTS ({self._subquery(node.this, scope).sql})", Type.BOOLEAN)

    def _scalar(self, node: exp.Subquery, scope: Scope) -> Value:
        self._faults.only(node, "this")
        query = self._subquery(node.this, scope)
        if len(query.fields) != 1:
            raise self._faults.error(node, "A subquery in an expression must have one column")
        return Value(f"({query.sql})", query.fields[0].kind)
