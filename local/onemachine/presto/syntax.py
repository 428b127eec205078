"""Reads the text of Timestream's SQL into sqlglot's trees, and locates faults in the text."""

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import ClassVar

from sqlglot import exp
from sqlglot.dialects.trino import Trino
from sqlglot.errors import ParseError, TokenError
from sqlglot.parsers.trino import TrinoParser
from sqlglot.tokenizer_core import Token, TokenType

from onemachine.presto.errors import ServiceError, invalid

# "1d" reaches the translator as a call of this, which nobody can write.
DURATION_FUNCTION = "<duration>"


class _Parser(TrinoParser):
    """Reads every call as a name with arguments, so that the tables of functions decide what it means."""

    FUNCTIONS: ClassVar[dict[str, Callable[..., exp.Expr]]] = {}
    FUNCTION_PARSERS: ClassVar[dict[str, Callable[..., exp.Expr | None]]] = {
        name: parser
        for name, parser in TrinoParser.FUNCTION_PARSERS.items()
        if name in {"CAST", "TRY_CAST", "EXTRACT", "POSITION"}
    }


class _Timestream(Trino):
    Parser = _Parser
    # A subscript is kept as it is written, from 1.
    INDEX_OFFSET = 0


def read_tokens(query: str) -> list[Token]:
    """Cut a query into words, without a semicolon at its end.

    Args:
        query: Timestream's text.

    Returns:
        Its words, at least one.

    Raises:
        ServiceError: ValidationException.
    """
    dialect = _Timestream()
    try:
        tokens = [*_splice(dialect.tokenize(query))]
        if tokens and tokens[0].text.upper() == "SHOW":
            # The tokenizer makes one text of what follows SHOW.
            tokens = [tokens[0], *(t for rest in tokens[1:] for t in dialect.tokenize(rest.text))]
    except TokenError as error:
        raise invalid(str(error)) from None
    if tokens and tokens[-1].token_type is TokenType.SEMICOLON:
        tokens.pop()
    if not tokens:
        raise invalid("The query is empty.")
    _check_order(tokens)
    return tokens


def parse(tokens: list[Token], query: str) -> exp.Expr:
    """Make a tree of a query's words.

    Args:
        tokens: From `read_tokens`.
        query: The text that they are from.

    Returns:
        The tree of its one statement.

    Raises:
        ServiceError: ValidationException.
    """
    try:
        parsed = _Timestream().parser().parse(tokens, query)
    except ParseError as error:
        raise _syntax_error(error) from None
    except RecursionError:
        raise invalid("The query is nested too deeply.") from None
    if len(parsed) != 1 or parsed[0] is None:
        raise invalid("A query is one statement.")
    return parsed[0]


# sqlglot reads several dialects; these are in none of Trino's sentences. https://trino.io/docs/current/sql/select.html
_NEEDS_MORE = {
    *(TokenType.COMMA, TokenType.SELECT, TokenType.FROM, TokenType.WHERE, TokenType.GROUP_BY),
    *(TokenType.ORDER_BY, TokenType.HAVING, TokenType.JOIN, TokenType.ON, TokenType.LIMIT, TokenType.OFFSET),
    *(TokenType.FETCH, TokenType.ALIAS),
}
_ENDS = {
    *(TokenType.R_PAREN, TokenType.FROM, TokenType.WHERE, TokenType.GROUP_BY, TokenType.ORDER_BY),
    *(TokenType.HAVING, TokenType.LIMIT, TokenType.OFFSET, TokenType.FETCH, TokenType.COMMA),
}
_BEFORE_SUBSCRIPT = {
    *(TokenType.IDENTIFIER, TokenType.VAR, TokenType.R_BRACKET, TokenType.R_PAREN, TokenType.ARRAY)
}
# https://trino.io/docs/current/language/reserved.html
_RESERVED = frozenset(
    {
        *("ALTER", "AND", "AS", "BETWEEN", "BY", "CASE", "CAST", "CONSTRAINT", "CREATE", "CROSS"),
        *("CUBE", "CURRENT_DATE", "CURRENT_TIME", "CURRENT_TIMESTAMP", "CURRENT_USER", "DEALLOCATE"),
        *("DELETE", "DESCRIBE", "DISTINCT", "DROP", "ELSE", "END", "ESCAPE", "EXCEPT", "EXECUTE"),
        *("EXISTS", "EXTRACT", "FALSE", "FOR", "FROM", "FULL", "GROUP", "GROUPING", "HAVING", "IN"),
        *("INNER", "INSERT", "INTERSECT", "INTO", "IS", "JOIN", "LEFT", "LIKE", "LOCALTIME"),
        *("LOCALTIMESTAMP", "NATURAL", "NORMALIZE", "NOT", "NULL", "ON", "OR", "ORDER", "OUTER"),
        *("PREPARE", "RECURSIVE", "RIGHT", "ROLLUP", "SELECT", "TABLE", "THEN", "TRUE", "UESCAPE"),
        *("UNION", "UNNEST", "USING", "VALUES", "WHEN", "WHERE", "WITH"),
    }
)


def _check_order(tokens: Sequence[Token]) -> None:
    """Refuse clauses without their rest, reserved words as names, and forms of other dialects.

    Raises:
        ServiceError: ValidationException.
    """
    for before, token in pairwise(tokens):
        kind = token.token_type
        is_wrong = (
            (before.token_type in _NEEDS_MORE and kind in _ENDS)
            or kind is TokenType.DCOLON
            or token.text == "=="
            or (kind is TokenType.L_BRACKET and before.token_type not in _BEFORE_SUBSCRIPT)
            or (
                before.token_type is TokenType.ALIAS
                and kind is not TokenType.IDENTIFIER
                and token.text.upper() in _RESERVED
            )
        )
        if is_wrong:
            raise _mismatched(token)
    for first, second, third in zip(tokens, tokens[1:], tokens[2:], strict=False):
        if (first.token_type, second.token_type, third.token_type) == (
            *(TokenType.IN, TokenType.L_PAREN, TokenType.R_PAREN),
        ) or (first.token_type is TokenType.LIMIT and third.token_type is TokenType.COMMA):
            raise _mismatched(third)
    if tokens[-1].token_type in _NEEDS_MORE:
        raise invalid(f"line {tokens[-1].line}:{tokens[-1].col + 1}: mismatched input '<EOF>'")


def _mismatched(token: Token) -> ServiceError:
    # The tokenizer's column is where the word ends.
    return invalid(
        f"line {token.line}:{max(token.col - len(token.text) + 1, 1)}: mismatched input '{token.text}'"
    )


class Faults:
    """Says what is wrong with a part of a query, and where.

    Args:
        query: The whole query.
    """

    def __init__(self, query: str) -> None:
        self._query = query

    def only(self, node: exp.Expr, *known: str) -> None:
        """Check that a node has nothing that the translation would leave out.

        Args:
            node: A part of the query.
            known: The arguments of it that are translated.

        Raises:
            ServiceError: ValidationException, naming an argument that is not.
        """
        for name, value in node.args.items():
            if name not in known and value not in (None, [], False):
                raise self.error(
                    node, f"{name.strip('_').upper()} of {node.key.upper()} is not supported here."
                )

    def refusal(self, node: exp.Expr) -> ServiceError:
        """Name a part that is not supported.

        Args:
            node: The part.

        Returns:
            The error to raise.
        """
        return self.error(node, f"{node.key.upper()} is not supported here.")

    def error(self, node: exp.Expr, text: str) -> ServiceError:
        """Name a fault and where it is, as `line 1:8: ...`.

        Args:
            node: The part of the query that is at fault.
            text: What is wrong.

        Returns:
            The error to raise.
        """
        starts = [part.meta["start"] for part in node.walk() if "start" in part.meta]
        if not starts:
            return invalid(text)
        before = self._query[: min(starts)]
        line = before.count("\n") + 1
        column = len(before) - (before.rfind("\n") + 1) + 1
        return invalid(f"line {line}:{column}: {text}")


def _syntax_error(error: ParseError) -> ServiceError:
    first = error.errors[0]
    near = first.get("highlight") or ""
    # The parser's place is where the word ends.
    column = max(int(first.get("col") or 1) - len(near) + 1, 1)
    return invalid(f"line {first.get('line') or 1}:{column}: mismatched input '{near}'")


def _splice(tokens: Sequence[Token]) -> Iterator[Token]:
    """Turn what only Timestream has into what the parser supports: `15m` and `measure_value::double`."""
    position = 0
    while position < len(tokens):
        token = tokens[position]
        after = tokens[position + 1 : position + 3]
        if (
            token.token_type is TokenType.NUMBER
            and after
            and after[0].token_type is TokenType.VAR
            and after[0].start == token.end + 1
        ):
            for kind, text in (
                (TokenType.VAR, DURATION_FUNCTION),
                (TokenType.L_PAREN, "("),
                (TokenType.STRING, token.text + after[0].text),
                (TokenType.R_PAREN, ")"),
            ):
                yield Token(kind, text, token.line, token.col, token.start, after[0].end)
            position += 2
        elif (
            token.text.lower() == "measure_value"
            and len(after) > 1
            and after[0].token_type is TokenType.DCOLON
        ):
            yield Token(
                TokenType.IDENTIFIER,
                f"measure_value::{after[1].text.lower()}",
                line=token.line,
                col=token.col,
                start=token.start,
                end=after[1].end,
            )
            position += 3
        else:
            yield token
            position += 1
