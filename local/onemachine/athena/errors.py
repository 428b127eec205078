"""Why a query of Athena ends without a result."""

import re

_CODES = (
    (re.compile(r"Function '.*' is not registered"), "FUNCTION_NOT_FOUND"),
    (re.compile(r"Column '.*' does not exist"), "COLUMN_NOT_FOUND"),
    (re.compile(r"Table '.*' does not exist"), "TABLE_NOT_FOUND"),
    (re.compile(r"cannot be applied to|Unexpected parameters|is given where"), "TYPE_MISMATCH"),
    (re.compile(r"Division by zero"), "DIVISION_BY_ZERO"),
    (re.compile(r"Cannot cast"), "INVALID_CAST_ARGUMENT"),
    (re.compile(r"is not supported here"), "NOT_SUPPORTED"),
)


class QueryError(Exception):
    """A query's `StateChangeReason`: a code of Athena's, and what is wrong."""


class CutoffError(Exception):
    """A query would read more bytes than its work group allows: it is cancelled."""


def failure_of(message: str) -> str:
    """Return the reason of a failed query from the translator's or DuckDB's message, with Athena's code."""
    code = next((code for pattern, code in _CODES if pattern.search(message)), "SYNTAX_ERROR")
    return f"{code}: {message}"
