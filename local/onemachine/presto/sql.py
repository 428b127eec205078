"""Reads Timestream's SQL and writes DuckDB's.

Every expression is given its type, and every name is resolved, here: DuckDB sees only names of ours and sees
no implicit cast, so it cannot answer by rules that are not Timestream's (its integer division, its time
arithmetic in microseconds, its comparing of text with numbers). What has no case below is refused by name.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from sqlglot import exp
from sqlglot.tokenizer_core import Token, TokenType

from onemachine.presto.conversions import Conversions, Value, quoted
from onemachine.presto.dialect import TIMESTREAM, Dialect
from onemachine.presto.errors import invalid
from onemachine.presto.expressions import Expressions
from onemachine.presto.kinds import Array, Row, Series, Type, duckdb_type
from onemachine.presto.scopes import Field, Query, Relation, Scope, has_aggregate, in_window, is_aggregate
from onemachine.presto.syntax import Faults, parse, read_tokens

# https://docs.aws.amazon.com/timestream/latest/developerguide/ts-limits.html
MAX_QUERY_CHARACTERS = 262_144


@dataclass(frozen=True, slots=True)
class Source:
    """A table that can be queried.

    Attributes:
        physical: Its name in DuckDB.
        fields: Its columns.
        roles: What DESCRIBE prints for each column.
    """

    physical: str
    fields: tuple[Field, ...]
    roles: tuple[str, ...]


class Catalog(Protocol):
    """What there is to query."""

    def databases(self) -> Sequence[str]:
        """Name the databases."""

    def tables(self, database: str) -> Sequence[str] | None:
        """Name a database's tables; None if it does not exist."""

    def source(self, database: str, table: str) -> Source | None:
        """Find a table; None if it does not exist."""


@dataclass(frozen=True, slots=True)
class Translation:
    """A query for DuckDB.

    Attributes:
        sql: DuckDB's text; its result columns have the fields' physical names.
        fields: The result's columns.
    """

    sql: str
    fields: tuple[Field, ...]


def translate(query: str, catalog: Catalog, now: int, dialect: Dialect = TIMESTREAM) -> Translation:
    """Translate a query.

    Args:
        query: Timestream's text.
        catalog: What there is to query.
        now: What `now()` is, in nanoseconds since 1970.
        dialect: The service's.

    Returns:
        DuckDB's text and the result's columns.

    Raises:
        ServiceError: ValidationException: the query is wrong, or uses what is not supported here.
    """
    if len(query) > MAX_QUERY_CHARACTERS:
        raise invalid(f"The query has {len(query)} characters. The limit is {MAX_QUERY_CHARACTERS}.")
    tokens = read_tokens(query)
    verb = tokens[0].text.upper()
    if verb in {"SHOW", "DESCRIBE", "DESC"}:
        return _inventory(verb, tokens[1:], catalog)
    if verb not in {"SELECT", "WITH", "("}:
        raise invalid(f"line 1:1: {verb} is not supported here.")
    return _Translator(query, catalog, now, dialect).statement(parse(tokens, query))


_INVENTORY_WORDS = frozenset({"databases", "tables", "measures", "from", "in", "like"})
_DIMENSIONS = Array(Row((Type.VARCHAR, Type.VARCHAR), ("dimension_name", "data_type")))


def _inventory(verb: str, tokens: Sequence[Token], catalog: Catalog) -> Translation:
    """Answer DESCRIBE and SHOW."""
    match [_word(token) for token in tokens]:
        case ["databases", *like] if verb == "SHOW" and _is_like(like):
            return _listing(("Database",), [(name,) for name in catalog.databases() if _matches(name, like)])
        case ["tables", "from" | "in", database, *like] if verb == "SHOW" and _is_like(like):
            tables = catalog.tables(database)
            if tables is None:
                raise invalid(f"Schema '{database}' does not exist")
            return _listing(("Table",), [(name,) for name in tables if _matches(name, like)])
        case ["tables", *like] if verb == "SHOW" and _is_like(like):
            every = {name for database in catalog.databases() for name in catalog.tables(database) or ()}
            return _listing(("Table",), [(name,) for name in sorted(every) if _matches(name, like)])
        case ["measures", "from" | "in", database, ".", table, *like] if verb == "SHOW" and _is_like(like):
            return _measures(_found(catalog, database, table), like)
        case [database, ".", table] if verb != "SHOW":
            source = _found(catalog, database, table)
            rows = [
                (field.name or "", field.kind.value.lower(), role)
                for field, role in zip(source.fields, source.roles, strict=True)
            ]
            return _listing(("Column", "Type", "Timestream attribute type"), rows)
        case _:
            raise invalid(f"line 1:1: This form of {verb} is not supported here.")


def _word(token: Token) -> str:
    """Return a word of an inventory: a keyword in small letters, a name or a text as it is written."""
    word = token.text.lower()
    is_name = token.token_type in {TokenType.IDENTIFIER, TokenType.STRING} or word not in _INVENTORY_WORDS
    return token.text if is_name else word


def _found(catalog: Catalog, database: str, table: str) -> Source:
    source = catalog.source(database, table)
    if source is None:
        raise invalid(f"Table '{database}.{table}' does not exist")
    return source


def _measures(source: Source, like: Sequence[str]) -> Translation:
    """Answer SHOW MEASURES: the names of measures, with their types and dimensions."""
    columns: dict[str, list[Field]] = {}
    for field, role in zip(source.fields, source.roles, strict=True):
        columns.setdefault(role, []).append(field)
    (name,) = columns["MEASURE_NAME"]
    types = "".join(
        f" WHEN {field.physical} IS NOT NULL THEN {quoted(field.kind.value.lower())}"
        for field in columns.get("MEASURE_VALUE", ())
    )
    dimensions = ", ".join(
        f"CASE WHEN count({field.physical}) > 0 THEN "
        f"{{'f0': {quoted(field.name or '')}, 'f1': {quoted(field.kind.value.lower())}}} END"
        for field in columns.get("DIMENSION", ())
    )
    where = f" WHERE {name.physical} LIKE {quoted(like[1])}" if like else ""
    sql = (
        f"SELECT {name.physical} AS c0, CASE{types or ' WHEN false THEN NULL'} ELSE 'multi' END AS c1, "  # noqa: S608 quoted
        f"list_filter(CAST([{dimensions}] AS {duckdb_type(_DIMENSIONS)}), lambda d: d IS NOT NULL) AS c2 "
        f"FROM {source.physical}{where} GROUP BY 1, 2 ORDER BY 1, 2"
    )
    texts = (Field(column, Type.VARCHAR, f"c{n}") for n, column in enumerate(("measure_name", "data_type")))
    return Translation(sql, (*texts, Field("dimensions", _DIMENSIONS, "c2")))


def _is_like(words: Sequence[str]) -> bool:
    """Return whether the rest of a SHOW is empty, or LIKE and a pattern."""
    return not words or (len(words) == len(("like", "pattern")) and words[0] == "like")


def _matches(name: str, like: Sequence[str]) -> bool:
    """Return whether a name matches the pattern of a LIKE; every name does without one."""
    if not like:
        return True
    pattern = "".join({"%": ".*", "_": "."}.get(each, re.escape(each)) for each in like[1])
    return re.fullmatch(pattern, name, re.DOTALL) is not None


def _listing(names: Sequence[str], rows: Sequence[Sequence[str]]) -> Translation:
    fields = tuple(Field(name, Type.VARCHAR, f"c{place}") for place, name in enumerate(names))
    columns = ", ".join(field.physical for field in fields)
    blank = ", ".join("CAST(NULL AS VARCHAR)" for _ in names)
    values = ", ".join(f"({', '.join(quoted(value) for value in row)})" for row in rows)
    sql = (
        f"SELECT * FROM (VALUES {values}) AS listing({columns})"  # noqa: S608 quoted by _text
        if rows
        else f"SELECT * FROM (VALUES ({blank})) AS listing({columns}) WHERE false"  # noqa: S608 constants
    )
    return Translation(sql, fields)


# What is selected, its name and its translation; a column of a star has no expression.
_Output = tuple[exp.Expr | None, str | None, Value]


class _Translator:
    def __init__(self, query: str, catalog: Catalog, now: int, dialect: Dialect) -> None:
        self._faults = Faults(query)
        self._schema = dialect.schema
        self._types = Conversions(self._faults, dialect)
        self._expressions = Expressions(self._faults, now, self._any_query, dialect)
        self._catalog = catalog
        self._aliases = 0
        self._common: dict[str, tuple[str, tuple[Field, ...]]] = {}

    def statement(self, node: exp.Expr) -> Translation:
        translated = self._any_query(node)
        names = [*translated.fields]
        fields = tuple(
            Field(field.name if field.name is not None else f"_col{place}", field.kind, field.physical)
            for place, field in enumerate(names)
        )
        return Translation(translated.sql, fields)

    # Queries.

    def _any_query(self, node: exp.Expr, outer: Scope | None = None) -> Query:
        """Translate a query, which may use the names of the scope that it stands in."""
        if isinstance(node, exp.Subquery):
            self._faults.only(node, "this")
            return self._any_query(node.this, outer)
        common = dict(self._common)
        prefix = self._with(node.args.get("with_"), outer)
        if isinstance(node, exp.Select):
            query = self._select(node, outer)
        elif isinstance(node, exp.SetOperation):
            query = self._set_operation(node, outer)
        else:
            raise self._faults.refusal(node)
        self._common = common
        return Query(prefix + query.sql, query.fields)

    def _with(self, node: exp.Expr | None, outer: Scope | None) -> str:
        if node is None:
            return ""
        self._faults.only(node, "expressions")
        parts = []
        named: set[str] = set()
        for cte in node.expressions:
            self._faults.only(cte, "this", "alias")
            if cte.alias in named:
                raise self._faults.error(cte, f"WITH query name '{cte.alias}' specified more than once")
            named.add(cte.alias)
            query = self._any_query(cte.this, outer)
            alias = self._alias()
            self._common[cte.alias] = (alias, self._renamed(cte.args["alias"], query.fields))
            parts.append(f"{alias} AS ({query.sql})")
        return f"WITH {', '.join(parts)} "

    def _renamed(self, alias: exp.Expr | None, fields: tuple[Field, ...]) -> tuple[Field, ...]:
        """Give columns the names of `AS alias(a, b)`."""
        names = alias.args.get("columns") if alias is not None else None
        if alias is None or not names:
            return fields
        self._faults.only(alias, "this", "columns")
        if len(names) != len(fields):
            raise self._faults.error(
                alias, f"Column alias list has {len(names)} entries but relation has {len(fields)} columns"
            )
        return tuple(replace(column, name=name.name) for name, column in zip(names, fields, strict=True))

    def _set_operation(self, node: exp.SetOperation, outer: Scope | None) -> Query:
        self._faults.only(node, "this", "expression", "distinct", "order", "limit", "offset", "with_")
        word = node.key.upper()
        if word != "UNION" and not node.args.get("distinct"):
            raise self._faults.error(node, f"{word} ALL is not supported here.")
        left, right = self._any_query(node.this, outer), self._any_query(node.expression, outer)
        if len(left.fields) != len(right.fields):
            raise self._faults.error(node, f"{word} query has different number of fields")
        kinds = [
            self._types.common_type(node, (a.kind, b.kind), word)
            for a, b in zip(left.fields, right.fields, strict=True)
        ]
        fields = tuple(
            Field(a.name, kind, f"c{place}")
            for place, (a, kind) in enumerate(zip(left.fields, kinds, strict=True))
        )
        parts = []
        for query in (left, right):
            columns = ", ".join(
                f"CAST({field.physical} AS {duckdb_type(kind)}) AS c{place}"
                for place, (field, kind) in enumerate(zip(query.fields, kinds, strict=True))
            )
            parts.append(f"SELECT {columns} FROM ({query.sql}) AS {self._alias()}")  # noqa: S608 translated
        operator = f" {word} " if node.args.get("distinct") else f" {word} ALL "
        alias = self._alias()
        scope = Scope(relations=[Relation((), alias, fields)], outer=outer)
        for output in fields:
            scope.outputs.append((output.name or "", Value(f"{alias}.{output.physical}", output.kind)))
        sql = f"SELECT {alias}.* FROM ({operator.join(parts)}) AS {alias}"  # noqa: S608 translated
        return Query(sql + self._tail(node, scope), fields)

    def _select(self, node: exp.Select, outer: Scope | None) -> Query:
        self._faults.only(
            node,
            *("expressions", "from_", "joins", "where", "group", "having", "order", "limit", "offset"),
            *("distinct", "with_", "windows"),
        )
        windows = {window.this.name: window for window in node.args.get("windows") or ()}
        scope = Scope(outer=outer, windows=windows)
        source = self._from(node, scope)
        where = self._expressions.condition(node.args.get("where"), scope)
        outputs = [*self._outputs(node, scope)]
        keys = self._keys(node, scope, outputs)
        if keys is not None:
            self._check_outputs(node, scope, outputs, keys)
        having = self._expressions.condition(node.args.get("having"), scope)
        fields = tuple(Field(name, value.kind, f"c{place}") for place, (_, name, value) in enumerate(outputs))
        scope.outputs = [(name or "", value) for _, name, value in outputs]
        selected = [value.sql for _, _, value in outputs]
        self._check_order(node, scope, [*selected, *(keys or ())] if keys is not None else None, selected)
        columns = ", ".join(f"{sql} AS c{place}" for place, sql in enumerate(selected))
        distinct = ""
        if node.args.get("distinct"):
            self._faults.only(node.args["distinct"])
            distinct = "DISTINCT "
        sql = f"SELECT {distinct}{columns}{source}"
        if where:
            sql += f" WHERE {where}"
        if keys:
            sql += f" GROUP BY {', '.join(keys)}"
        if having:
            sql += f" HAVING {having}"
        return Query(sql + self._tail(node, scope), fields)

    def _outputs(self, node: exp.Select, scope: Scope) -> Iterator[_Output]:
        for item in node.expressions:
            if isinstance(item, exp.Star) or (
                isinstance(item, exp.Column) and isinstance(item.this, exp.Star)
            ):
                table = item.args.get("table")
                star = item.this if isinstance(item, exp.Column) else item
                self._faults.only(star)
                relations = [r for r in scope.relations if table is None or table.name in r.names]
                if not relations:
                    raise self._faults.error(node, "SELECT * not allowed in queries without FROM clause")
                for relation in relations:
                    for column in relation.fields:
                        yield None, column.name, relation.value(column)
            elif isinstance(item, exp.Alias):
                yield item.this, item.alias, self._expressions.translate(item.this, scope)
            else:
                value = self._expressions.translate(item, scope)
                name = item.name if isinstance(item, exp.Column) else None
                yield item, name, value

    def _keys(self, node: exp.Select, scope: Scope, outputs: Sequence[_Output]) -> list[str] | None:
        """Translate GROUP BY; None where nothing is grouped or aggregated."""
        group = node.args.get("group")
        if group is None:
            parts = [item for item, _, _ in outputs if item is not None]
            having = node.args.get("having")
            order = node.args.get("order")
            parts += order.expressions if order is not None else []
            return [] if having is not None or any(has_aggregate(part) for part in parts) else None
        self._faults.only(group, "expressions")
        keys = []
        for item in group.expressions:
            place = self._ordinal(item, len(outputs))
            keys.append(
                self._expressions.translate(item, scope).sql if place is None else outputs[place][2].sql
            )
        return keys

    def _check_outputs(
        self, node: exp.Select, scope: Scope, outputs: Sequence[_Output], keys: Sequence[str]
    ) -> None:
        """See that what is selected of groups is grouped or aggregated."""
        for item, name, value in outputs:
            if item is not None:
                self._check_grouped(item, scope, keys)
            elif value.sql not in keys:
                raise self._faults.error(
                    node, f"'{name}' must be an aggregate expression or appear in GROUP BY clause"
                )
        having = node.args.get("having")
        if having is not None:
            self._check_grouped(having.this, scope, keys)

    def _check_order(
        self, node: exp.Select, scope: Scope, grouped: Sequence[str] | None, selected: Sequence[str]
    ) -> None:
        """See that groups, and rows that were made distinct, are ordered by what there is of them."""
        order = node.args.get("order")
        for item in order.expressions if order is not None else ():
            if self._ordinal(item.this, len(selected)) is not None:
                continue
            if grouped is not None:
                self._check_grouped(item.this, scope, grouped)
            if (
                node.args.get("distinct")
                and self._expressions.translate(item.this, scope).sql not in selected
            ):
                raise self._faults.error(
                    item, "For SELECT DISTINCT, ORDER BY expressions must appear in select list"
                )

    def _check_grouped(self, node: exp.Expr, scope: Scope, keys: Sequence[str]) -> None:
        if isinstance(node, (exp.Query, exp.Literal)) or is_aggregate(node):
            return
        if isinstance(node, exp.Filter) and is_aggregate(node.this):
            return
        if isinstance(node, exp.Lambda):
            for column in node.find_all(exp.Column):
                self._check_grouped(column, scope, keys)
            return
        # What a window is for has no translation without it.
        alone = not in_window(node) and not isinstance(node, (exp.Filter, exp.IgnoreNulls, exp.RespectNulls))
        if alone and isinstance(node, exp.Condition) and self._expressions.translate(node, scope).sql in keys:
            return
        if isinstance(node, exp.Column):
            raise self._faults.error(
                node, f"'{node.name}' must be an aggregate expression or appear in GROUP BY clause"
            )
        for child in node.iter_expressions():
            if not isinstance(child, (exp.Identifier, exp.DataType, exp.Var, exp.WindowSpec)):
                self._check_grouped(child, scope, keys)

    def _tail(self, node: exp.Expr, scope: Scope) -> str:
        """Translate ORDER BY, OFFSET and LIMIT."""
        sql = ""
        order = node.args.get("order")
        if order is not None:
            self._faults.only(order, "expressions")
            sql += f" ORDER BY {', '.join(self._ordered(item, scope) for item in order.expressions)}"
        for name in ("limit", "offset"):
            clause = node.args.get(name)
            if isinstance(clause, exp.Fetch):
                self._faults.only(clause, "direction", "count", "limit_options")
                options = clause.args.get("limit_options")
                if options is not None and options.args.get("with_ties"):
                    raise self._faults.error(clause, "FETCH WITH TIES is not supported here.")
            if clause is not None:
                number = clause.args.get("count") or clause.expression
                if isinstance(clause, exp.Limit) and isinstance(number, exp.Var) and number.name == "ALL":
                    continue
                if not isinstance(number, exp.Literal) or number.is_string or not number.this.isdigit():
                    raise self._faults.error(clause, f"{name.upper()} must be a whole number")
                sql += f" {name.upper()} {int(number.this)}"
        return sql

    def _ordered(self, item: exp.Expr, scope: Scope) -> str:
        place = self._ordinal(item.this, len(scope.outputs))
        return self._expressions.ordered(item, scope, None if place is None else scope.outputs[place][1])

    def _ordinal(self, node: exp.Expr, count: int) -> int | None:
        if isinstance(node, exp.Literal) and not node.is_string:
            if not node.this.isdigit() or not 1 <= int(node.this) <= count:
                raise self._faults.error(
                    node, f"GROUP BY or ORDER BY position {node.this} is not in select list"
                )
            return int(node.this) - 1
        return None

    # FROM.

    def _from(self, node: exp.Select, scope: Scope) -> str:
        start = node.args.get("from_")
        if start is None:
            return ""
        self._faults.only(start, "this")
        sql = " FROM " + self._relation(start.this, scope)
        for join in node.args.get("joins") or ():
            self._faults.only(join, "this", "on", "using", "side", "kind")
            side = (join.args.get("side") or "").upper()
            kind = (join.args.get("kind") or "").upper()
            condition, shared = join.args.get("on"), join.args.get("using") or ()
            relation = self._relation(join.this, scope)
            if kind == "CROSS" or not (condition or shared or side or kind):
                sql += f" CROSS JOIN {relation}"
                continue
            if kind not in {"", "INNER", "OUTER"} or not (condition or shared):
                raise self._faults.refusal(join)
            if shared:
                on = self._share(join, shared, side, scope)
            else:
                on = self._types.expect(
                    self._expressions.translate(condition, scope), Type.BOOLEAN, condition
                )
            sql += f" {side or 'INNER'} JOIN {relation} ON {on}"
        return sql

    def _share(self, join: exp.Join, names: Sequence[exp.Identifier], side: str, scope: Scope) -> str:
        """Make one column of each two that a join names in USING, and return the join's condition.

        They come first, and belong to neither table: https://trino.io/docs/current/sql/select.html#using
        """
        *before, last = scope.relations
        taken: set[str] = set()
        columns, conditions = [], []
        for name in names:
            sides = [
                self._expressions.translate(exp.column(name.copy()), Scope(relations=relations))
                for relations in (before, [last])
            ]
            taken |= {value.sql for value in sides}
            left, right = self._types.alike(join, sides, "=")
            conditions.append(f"{left.sql} = {right.sql}")
            kept = {"RIGHT": right.sql, "FULL": f"coalesce({left.sql}, {right.sql})"}.get(side, left.sql)
            columns.append(Field(name.name, left.kind, kept))
        scope.relations[:] = [
            Relation((), "", tuple(columns)),
            *(
                replace(
                    each, fields=tuple(field for field in each.fields if each.value(field).sql not in taken)
                )
                for each in scope.relations
            ),
        ]
        return " AND ".join(conditions)

    def _relation(self, node: exp.Expr, scope: Scope) -> str:
        alias = self._alias()
        given = node.args.get("alias")
        if isinstance(node, exp.Subquery):
            self._faults.only(node, "this", "alias")
            # Its neighbours in FROM are not in sight, but what is around the whole query is.
            query = self._any_query(node.this, scope.outer)
            name, sql, fields = given.name if given else "", f"({query.sql})", query.fields
        elif isinstance(node, exp.Values):
            self._faults.only(node, "expressions", "alias")
            name, (sql, fields) = given.name if given else "", self._values(node, scope)
        elif isinstance(node, exp.Unnest):
            self._faults.only(node, "expressions", "alias", "offset")
            name, (sql, fields) = given.name if given else "", self._unnest(node, scope)
            if given is not None and isinstance(node.args.get("offset"), exp.Identifier):
                # The parser takes the last column's name for the ordinality's.
                given = given.copy()
                given.append("columns", node.args["offset"].copy())
        else:
            name, sql, fields = self._table(node)
            name = given.name if given else name
        fields = self._renamed(given, fields)
        scope.relations.append(Relation((name,) if name else (), alias, fields))
        return f"{sql} AS {alias}"

    def _table(self, node: exp.Expr) -> tuple[str, str, tuple[Field, ...]]:
        if not isinstance(node, exp.Table) or not isinstance(node.this, exp.Identifier):
            raise self._faults.refusal(node)
        self._faults.only(node, "this", "db", "alias")
        if not node.db and node.name in self._common:
            return node.name, *self._common[node.name]
        schema = node.db or self._schema
        if not schema:
            raise self._faults.error(node, "Schema must be specified when session schema is not set")
        source = self._catalog.source(schema, node.name)
        if source is None:
            raise self._faults.error(node, f"Table '{schema}.{node.name}' does not exist")
        return node.name, source.physical, source.fields

    def _values(self, node: exp.Values, scope: Scope) -> tuple[str, tuple[Field, ...]]:
        rows = [
            [
                self._expressions.translate(item, Scope(outer=scope.outer))
                for item in (row.expressions if isinstance(row, exp.Tuple) else [row])
            ]
            for row in node.expressions
        ]
        if len({len(row) for row in rows}) != 1:
            raise self._faults.error(node, "Values rows have different numbers of columns")
        columns = [self._types.alike(node, column, "VALUES") for column in zip(*rows, strict=True)]
        fields = tuple(
            Field(f"_col{place}", column[0].kind, f"c{place}") for place, column in enumerate(columns)
        )
        names = ", ".join(column.physical for column in fields)
        texts = ", ".join(f"({', '.join(v.sql for v in row)})" for row in zip(*columns, strict=True))
        return f"(SELECT * FROM (VALUES {texts}) AS {self._alias()}({names}))", fields  # noqa: S608 translated

    def _unnest(self, node: exp.Unnest, scope: Scope) -> tuple[str, tuple[Field, ...]]:
        """Turn arrays into rows side by side, and time series into rows of time and value."""
        items = [self._expressions.translate(item, scope) for item in node.expressions]
        opened, taken, kinds = [], [], []
        names: list[str | None] = []
        for place, item in enumerate(items):
            opened.append(f"unnest({item.sql}) AS u{place}")
            match item.kind:
                case Array(element):
                    taken.append(f"u{place}")
                    kinds.append(element)
                    names.append(None)
                case Series(element):
                    taken += [f"u{place}.time", f"u{place}.value"]
                    kinds += [Type.TIMESTAMP, element]
                    names += ["time", "value"]
                case other:
                    raise self._faults.error(node, f"Cannot unnest type: {other.value.lower()}")
        if node.args.get("offset"):
            longest = f"greatest({', '.join(f'coalesce(len({item.sql}), 0)' for item in items)})"
            opened.append(f"unnest(range(1, {longest} + 1)) AS place")
            taken.append("place")
            kinds.append(Type.BIGINT)
            names.append(None)
        fields = tuple(
            Field(name, kind, f"c{place}")
            for place, (name, kind) in enumerate(zip(names, kinds, strict=True))
        )
        columns = ", ".join(f"{sql} AS {column.physical}" for sql, column in zip(taken, fields, strict=True))
        inner = f"(SELECT {', '.join(opened)}) AS {self._alias()}"
        lateral = "LATERAL " if scope.relations else ""
        return f"{lateral}(SELECT {columns} FROM {inner})", fields  # noqa: S608 translated

    def _alias(self) -> str:
        self._aliases += 1
        return f"r{self._aliases}"
