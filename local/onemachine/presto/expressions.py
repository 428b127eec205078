"""The expressions of one query in Trino's SQL: what translates each kind of node."""

from sqlglot import exp

from onemachine.presto.calls import Calls
from onemachine.presto.conversions import Value
from onemachine.presto.functions import cut_to_microseconds
from onemachine.presto.kinds import Type
from onemachine.presto.operators import NAMED_NANOSECONDS
from onemachine.presto.scopes import Scope


class Expressions(Calls):
    """Translates the expressions of one query."""

    def translate(self, node: exp.Expr, scope: Scope) -> Value:  # noqa: C901, PLR0912, PLR0915 a flat table of cases
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
                return self._concatenation(
                    node, [self.translate(side, scope) for side in (node.this, node.expression)]
                )
            case exp.Array():
                return self._array(node, scope)
            case exp.Bracket():
                return self._subscript(node, scope)
            case exp.Identifier() | exp.Dot():
                return self._variable(node, scope)
            case exp.Window():
                return self._window(node, scope)
            case exp.StrPosition():
                self._faults.only(node, "this", "substr")
                texts = [self.translate(side, scope) for side in (node.this, node.args["substr"])]
                return self._apply(node, "strpos", texts)
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
            case exp.CurrentTimestamp() | exp.Localtimestamp() | exp.CurrentDate():
                self._faults.only(node)
                moment = self._types.moment(self._now)
                if isinstance(node, exp.CurrentDate):
                    return Value(f"CAST({cut_to_microseconds(moment.sql)} AS DATE)", Type.DATE)
                return moment
            case exp.CurrentTime() | exp.Localtime():
                self._faults.only(node)
                return Value(f"CAST({self._now % NAMED_NANOSECONDS['day']} AS BIGINT)", Type.TIME)
            case exp.Filter():
                self._faults.only(node, "this", "expression")
                if not isinstance(node.this, exp.Anonymous):
                    raise self._faults.refusal(node)
                return self._call(node.this, scope, self.condition(node.expression, scope))
            case exp.Anonymous():
                return self._call(node, scope)
            case exp.Exists():
                query = self._subquery(node.this, scope)
                return Value(f"EXISTS ({query.sql})", Type.BOOLEAN)
            case exp.Subquery():
                self._faults.only(node, "this")
                query = self._subquery(node.this, scope)
                if len(query.fields) != 1:
                    raise self._faults.error(node, "A subquery in an expression must have one column")
                return Value(f"({query.sql})", query.fields[0].kind)
            case _:
                raise self._faults.refusal(node)
