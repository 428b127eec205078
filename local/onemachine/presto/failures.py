"""What fails a translated expression, and what makes a time that fails where the service has none."""

# What fails an expression, as macros of DuckDB: the first raises, the second, for try(), is null.
FAIL, FAIL_AS_NULL = "fail_e2c94f", "null_e2c94f"
FAILURES = (
    f"CREATE OR REPLACE TEMP MACRO {FAIL}(message) AS error(message)",
    f"CREATE OR REPLACE TEMP MACRO {FAIL_AS_NULL}(message) AS NULL",
)
# A time of nanoseconds since 1970, as a macro of DuckDB. Its name follows that of the failure in it.
MOMENT = f"moment_{FAIL}"
_UNCHECKED = tuple(
    f"CREATE OR REPLACE TEMP MACRO moment_{each}(n) AS make_timestamp_ns(n)" for each in (FAIL, FAIL_AS_NULL)
)
_SINCE_1970 = tuple(
    f"CREATE OR REPLACE TEMP MACRO moment_{each}(n) AS CASE WHEN n < 0 "
    f"THEN {each}('Timestream does not support negative time values') ELSE make_timestamp_ns(n) END"
    for each in (FAIL, FAIL_AS_NULL)
)


def moments(*, before_1970: bool) -> tuple[str, ...]:
    """Return the statements that make the macro `MOMENT`.

    Args:
        before_1970: Whether a time before 1970 is one, and no failure.
    """
    return _UNCHECKED if before_1970 else _SINCE_1970


def failure(message: str) -> str:
    """Write an expression that fails.

    Args:
        message: DuckDB's text of a VARCHAR, the reason.

    Returns:
        DuckDB's text of an expression of any type.
    """
    return f"{FAIL}({message})"


def guarded(wrong: str, message: str, value: str) -> str:
    """Write an expression that fails where something is wrong.

    Args:
        wrong: DuckDB's condition.
        message: Says why; a plain text.
        value: DuckDB's text of the value where nothing is.

    Returns:
        DuckDB's text.
    """
    reason = failure(f"'{message}'")
    return f"CASE WHEN {wrong} THEN {reason} ELSE {value} END"
