"""Sets a connection of DuckDB up to compute as Trino does, and runs what was translated."""

import duckdb

from onemachine.presto.failures import FAILURES, moments
from onemachine.presto.kinds import MACROS

# One thread sums doubles in one order, and dividing a double by zero is infinite in Trino.
_STATEMENTS = (
    "SET threads = 1",
    "SET TimeZone = 'UTC'",
    "SET ieee_floating_point_ops = true",
    "SET enable_external_access = false",
    *MACROS,
    *FAILURES,
)


def set_up(connection: duckdb.DuckDBPyConnection, *, before_1970: bool) -> None:
    """Have a connection compute as Trino does, and reach no file and no network.

    Args:
        connection: The connection.
        before_1970: Whether the service computes times before 1970.
    """
    for statement in (*_STATEMENTS, *moments(before_1970=before_1970)):
        connection.execute(statement)


def execute(connection: duckdb.DuckDBPyConnection, statement: str) -> None:
    """Run a translated statement.

    Raises:
        duckdb.Error: The statement fails.
    """
    try:
        connection.execute(statement)
    except duckdb.InvalidInputException as error:
        # DuckDB 2.0's optimizer trips over some comparisons, as split_part(c, ...) = '0', where c is null
        # in every row. Without it the answer is the same.
        if "BindBuiltinScalarFunction" not in str(error):
            raise
        connection.execute("PRAGMA disable_optimizer")
        try:
            connection.execute(statement)
        finally:
            connection.execute("PRAGMA enable_optimizer")


def reason(error: duckdb.Error) -> str:
    """Return why a statement failed, without DuckDB's advice about its own settings."""
    text = str(error).split("\n", 1)[0].partition(" Error: ")[2]
    return "Division by zero" if text.startswith("Division by zero") else text
