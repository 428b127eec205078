"""The types of Timestream's SQL, what holds them in DuckDB, and how the service prints their values.

A TIMESTAMP is a TIMESTAMP_NS in DuckDB; a TIME and an interval of days to seconds are a BIGINT of
nanoseconds, an interval of years to months one of months: DuckDB's own intervals and times are in
microseconds, and adding one to a TIMESTAMP_NS drops three digits without a word.
"""

from dataclasses import dataclass
from enum import StrEnum
from itertools import zip_longest
from typing import Any, ClassVar

# A value as the service prints it: null, a text, or those of an array, a row, or the points of a time series.
Datum = str | tuple["Datum", ...] | None


class Type(StrEnum):
    """The types of single values, by their names in ColumnInfo."""

    VARCHAR = "VARCHAR"
    INTEGER = "INTEGER"
    BIGINT = "BIGINT"
    DOUBLE = "DOUBLE"
    DECIMAL = "DECIMAL"
    BOOLEAN = "BOOLEAN"
    TIMESTAMP = "TIMESTAMP"
    DATE = "DATE"
    TIME = "TIME"
    DAYS = "INTERVAL_DAY_TO_SECOND"
    MONTHS = "INTERVAL_YEAR_TO_MONTH"
    UNKNOWN = "UNKNOWN"


@dataclass(frozen=True, slots=True)
class _Several:
    """Values of one type.

    Attributes:
        element: The type.
        outer: What holds them, as in an error.
    """

    element: "Kind"
    outer: ClassVar[str]

    @property
    def value(self) -> str:
        """The type's name, as in an error."""
        return f"{self.outer}({self.element.value.lower()})"


class Array(_Several):
    """An array."""

    __slots__ = ()
    outer = "array"


class Series(_Several):
    """A time series: points of time and value, by time."""

    __slots__ = ()
    outer = "timeseries"


@dataclass(frozen=True, slots=True)
class Row:
    """A row of values.

    Attributes:
        kinds: The types of its values.
        names: The names of its fields; empty where they have none.
    """

    kinds: tuple["Kind", ...]
    names: tuple[str, ...] = ()

    @property
    def value(self) -> str:
        """The type's name, as in an error."""
        return f"row({', '.join(kind.value.lower() for kind in self.kinds)})"


Kind = Type | Array | Series | Row

_WIDER: dict[Type, tuple[Type, ...]] = {
    Type.INTEGER: (Type.BIGINT, Type.DOUBLE),
    Type.BIGINT: (Type.DOUBLE,),
    # Only Trino's dialect has it, and only for what becomes a DOUBLE, which holds it here.
    Type.DECIMAL: (Type.DOUBLE,),
    Type.DATE: (Type.TIMESTAMP,),
}
_DUCKDB_TYPES = {
    Type.DECIMAL: "DOUBLE",
    Type.TIMESTAMP: "TIMESTAMP_NS",
    Type.TIME: "BIGINT",
    Type.DAYS: "BIGINT",
    Type.MONTHS: "BIGINT",
    Type.UNKNOWN: "INTEGER",
}
_CLOCK = (
    "printf('%02d:%02d:%02d.%09d', {0} // 3600000000000, {0} // 60000000000 % 60, "
    "{0} // 1000000000 % 60, {0} % 1000000000)"
)
_PRINTED = {
    Type.VARCHAR: "{0}",
    Type.INTEGER: "CAST({0} AS VARCHAR)",
    Type.BIGINT: "CAST({0} AS VARCHAR)",
    Type.DOUBLE: "print_double({0})",
    Type.DECIMAL: "print_double({0})",
    Type.BOOLEAN: "CAST({0} AS VARCHAR)",
    Type.TIMESTAMP: "strftime({0}, '%Y-%m-%d %H:%M:%S.%n')",
    Type.DATE: "CAST({0} AS VARCHAR)",
    Type.TIME: "print_clock({0})",
    Type.DAYS: "print_days({0})",
    Type.MONTHS: "print_months({0})",
    Type.UNKNOWN: "CAST(NULL AS VARCHAR)",
}
# DuckDB's shortest digits of a double, laid out as Java's Double.toString does, which is how Trino prints
# them. Between a thousandth and ten million both are the same.
MACROS = (
    "CREATE OR REPLACE TEMP MACRO digits_of(whole, fraction) AS rtrim(ltrim(whole || fraction, '0'), '0')",
    # No subquery, as it stands in a lambda where an array is printed.
    (
        "CREATE OR REPLACE TEMP MACRO laid_out(whole, fraction, power) AS ("
        "digits_of(whole, fraction)[1] || '.' || coalesce(nullif(digits_of(whole, fraction)[2:], ''), '0') "
        "|| 'E' || CAST(power + length(ltrim(whole || fraction, '0')) - length(fraction) - 1 AS VARCHAR))"
    ),
    (
        "CREATE OR REPLACE TEMP MACRO scientific(digits) AS laid_out("
        "split_part(split_part(digits, 'e', 1), '.', 1), "
        "rtrim(split_part(split_part(digits, 'e', 1), '.', 2), '0'), "
        "coalesce(TRY_CAST(split_part(digits, 'e', 2) AS INTEGER), 0))"
    ),
    (
        "CREATE OR REPLACE TEMP MACRO print_double(x) AS CASE "
        "WHEN isnan(x) THEN 'NaN' WHEN isinf(x) THEN CASE WHEN x > 0 THEN 'Infinity' ELSE '-Infinity' END "
        "WHEN x = 0 OR (abs(x) >= 1e-3 AND abs(x) < 1e7) THEN CAST(x AS VARCHAR) "
        "WHEN x < 0 THEN '-' || scientific(CAST(-x AS VARCHAR)) ELSE scientific(CAST(x AS VARCHAR)) END"
    ),
    f"CREATE OR REPLACE TEMP MACRO print_clock(n) AS {_CLOCK.format('n')}",
    (
        "CREATE OR REPLACE TEMP MACRO print_days(n) AS "
        "(CASE WHEN n < 0 THEN '-' ELSE '' END || CAST(abs(n) // 86400000000000 AS VARCHAR) || ' ' || "
        "print_clock(abs(n) % 86400000000000))"
    ),
    (
        "CREATE OR REPLACE TEMP MACRO print_months(n) AS "
        "(CASE WHEN n < 0 THEN '-' ELSE '' END || CAST(abs(n) // 12 AS VARCHAR) || '-' || "
        "CAST(abs(n) % 12 AS VARCHAR))"
    ),
)


def duckdb_type(kind: Kind) -> str:
    """Name the type that holds a Timestream value in DuckDB.

    Args:
        kind: Timestream's type.

    Returns:
        DuckDB's.
    """
    match kind:
        case Array(element):
            return f"{duckdb_type(element)}[]"
        case Series(element):
            return f"STRUCT(time TIMESTAMP_NS, value {duckdb_type(element)})[]"
        case Row(kinds):
            members = ", ".join(f"f{place} {duckdb_type(member)}" for place, member in enumerate(kinds))
            return f"STRUCT({members})"
        case _:
            return _DUCKDB_TYPES.get(kind, kind.value)


def widens(source: Kind, target: Kind) -> bool:
    """Say whether a value becomes another type without being asked to.

    Args:
        source: What it is.
        target: What is wanted.

    Returns:
        Whether it is that already, null, or a narrower type of the same family.
    """
    if source == target or source is Type.UNKNOWN:
        return True
    if isinstance(source, Array) and isinstance(target, Array):
        return widens(source.element, target.element)
    if isinstance(source, Series) and isinstance(target, Series):
        return widens(source.element, target.element)
    return isinstance(source, Type) and target in _WIDER.get(source, ())


def printed(kind: Kind, sql: str, depth: int = 0) -> str:
    """Write what prints a value, in DuckDB, as the service does.

    Args:
        kind: Its type.
        sql: DuckDB's text of the value.
        depth: How many arrays it is in.

    Returns:
        DuckDB's text of a VARCHAR, or of a LIST or STRUCT of such.
    """
    item = f"item{depth}"
    match kind:
        case Array(element):
            return f"list_transform({sql}, lambda {item}: {printed(element, item, depth + 1)})"
        case Series(element):
            time, value = f"{item}.time", f"{item}.value"
            return (
                f"list_transform({sql}, lambda {item}: "
                f"{{'t': {printed(Type.TIMESTAMP, time)}, 'v': {printed(element, value, depth + 1)}}})"
            )
        case Row(kinds):
            members = ", ".join(
                f"'f{place}': {printed(member, f'({sql}).f{place}', depth + 1)}"
                for place, member in enumerate(kinds)
            )
            return f"CASE WHEN {sql} IS NULL THEN NULL ELSE {{{members}}} END"
        case _:
            return _PRINTED[kind].format(sql)


def datum(value: Any) -> Datum:
    """Freeze a printed value.

    Args:
        value: What DuckDB gave for what `printed` wrote.

    Returns:
        The value: texts and tuples.
    """
    if isinstance(value, list):
        return tuple(datum(item) for item in value)
    if isinstance(value, dict):
        return tuple(datum(item) for item in value.values())
    return None if value is None else str(value)


def column_type(kind: Kind) -> dict[str, Any]:
    """Describe a type as ColumnInfo does.

    Args:
        kind: The type.

    Returns:
        `Type` of https://docs.aws.amazon.com/timestream/latest/developerguide/API_query_ColumnInfo.html.
    """
    match kind:
        case Array(element):
            return {"ArrayColumnInfo": {"Type": column_type(element)}}
        case Series(element):
            return {"TimeSeriesMeasureValueColumnInfo": {"Type": column_type(element)}}
        case Row(kinds, names):
            return {
                "RowColumnInfo": [
                    {"Name": name, "Type": column_type(member)} if name else {"Type": column_type(member)}
                    for name, member in zip_longest(names, kinds)
                ]
            }
        case _:
            return {"ScalarType": kind.value}
