"""What names in a query may mean, and which of its expressions are aggregates."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from sqlglot import exp

from onemachine.presto.conversions import Value
from onemachine.presto.functions import AGGREGATES
from onemachine.presto.kinds import Kind


@dataclass(frozen=True, slots=True)
class Field:
    """A column of a table or of a result.

    Attributes:
        name: The caller's name for it; None where an expression has none.
        kind: Its type.
        physical: Its name in DuckDB.
    """

    name: str | None
    kind: Kind
    physical: str


@dataclass(frozen=True, slots=True)
class Relation:
    """Something in FROM.

    Attributes:
        names: What the query's author may call it.
        alias: Its name in DuckDB; empty where the columns' physical names are expressions of others.
        fields: Its columns.
    """

    names: tuple[str, ...]
    alias: str
    fields: tuple[Field, ...]

    def value(self, column: Field) -> Value:
        """Return the value of one of its columns."""
        return Value(f"{self.alias}.{column.physical}" if self.alias else column.physical, column.kind)


@dataclass(slots=True)
class Scope:
    """Where a name is looked up.

    Attributes:
        relations: What is in FROM.
        outputs: In ORDER BY, the select list with its names, which comes first.
        variables: The arguments of the lambdas that the name stands in; one of a Series is a point of it.
        windows: The named windows, by name.
        outer: Where the query stands that this is the scope of; there names are looked up last.
    """

    relations: list[Relation] = field(default_factory=list)
    outputs: list[tuple[str, Value]] = field(default_factory=list)
    variables: Mapping[str, Value] = field(default_factory=dict)
    windows: Mapping[str, exp.Expr] = field(default_factory=dict)
    outer: "Scope | None" = None


@dataclass(frozen=True, slots=True)
class Query:
    """A translated query, as it stands in parentheses.

    Attributes:
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
    return (
        isinstance(node, exp.Anonymous)
        and (node.name.lower() in AGGREGATES or node.name.lower() == "count")
        and not in_window(node)
    )


def in_window(node: exp.Expr) -> bool:
    """Say whether a call is what a window is for: `sum(x) OVER (...)`, which leaves the rows as they are.

    Args:
        node: A call.

    Returns:
        Whether it has an OVER.
    """
    child, parent = node, node.parent
    while isinstance(parent, (exp.Filter, exp.IgnoreNulls, exp.RespectNulls)) and parent.this is child:
        child, parent = parent, parent.parent
    return isinstance(parent, exp.Window) and parent.this is child


def has_aggregate(node: exp.Expr) -> bool:
    """Say whether there is a call of an aggregate in an expression.

    Args:
        node: An expression; what a query in it aggregates is that query's own.

    Returns:
        Whether there is one.
    """
    return any(is_aggregate(part) for part in node.walk(prune=lambda part: isinstance(part, exp.Query)))
