"""Gives values their types: what becomes what by itself, what a cast means, what a text means as a time."""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime

from sqlglot import exp

from onemachine.presto.dialect import TIMESTREAM, Dialect
from onemachine.presto.errors import invalid
from onemachine.presto.failures import MOMENT, failure
from onemachine.presto.functions import cut_to_microseconds
from onemachine.presto.kinds import Array, Kind, Type, duckdb_type, printed, widens
from onemachine.presto.syntax import Faults

_TIMESTAMP = re.compile(
    r"(\d{4})-(\d{2})-(\d{2})(?:[ T](\d{2}):(\d{2})(?::(\d{2})(?:\.(\d{1,9}))?)?)?"
    r"(?:Z|([+-])(\d{2}):(\d{2}))?",
    re.ASCII,
)
_CLOCK = re.compile(r"(\d{1,2}):(\d{2})(?::(\d{2})(?:\.(\d{1,9}))?)?", re.ASCII)
# A time or a date in a column, as casts take it.
_TIMESTAMP_TEXT = r"(19[7-9]\d|2[01]\d\d)-\d{2}-\d{2}( \d{2}:\d{2}(:\d{2}(\.\d{1,9})?)?)?"
_DATE_TEXT = r"\d{4}-\d{2}-\d{2}"
INTEGER_TEXT = r"[+-]?[0-9]+"
DOUBLE_TEXT = r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?"
# What 64 bits of nanoseconds since 1970 hold, in whole years.
_FIRST_YEAR, _LAST_YEAR = 1970, 2261

# Casts that DuckDB does as Trino does.
_SAME_IN_DUCKDB: Mapping[Type, Collection[Kind]] = {
    Type.INTEGER: (Type.VARCHAR, Type.BIGINT, Type.DOUBLE),
    Type.BIGINT: (Type.VARCHAR, Type.INTEGER, Type.DOUBLE),
    Type.BOOLEAN: (Type.VARCHAR, Type.INTEGER, Type.BIGINT, Type.DOUBLE),
    Type.DATE: (Type.VARCHAR, Type.TIMESTAMP),
}


@dataclass(frozen=True, slots=True)
class Value:
    """A translated expression.

    Attributes:
        sql: DuckDB's text.
        kind: Its type.
        literal: The text itself, where it is a text that stands in the query.
    """

    sql: str
    kind: Kind
    literal: str | None = None


NO_DECIMALS = (
    "Computing with decimals is not supported here: a number with a point is a decimal, 1.5e0 is a double"
)
_COMPARISONS = frozenset({"=", "<>", "<", "<=", ">", ">=", "BETWEEN", "IN"})


def quoted(value: str) -> str:
    """Write a text as a literal.

    Args:
        value: Any text.

    Returns:
        DuckDB's literal.

    Raises:
        ServiceError: ValidationException, for a text that no literal can hold.
    """
    if "\0" in value:
        raise invalid("A text in a query cannot hold the character NUL.")
    return "'" + value.replace("'", "''") + "'"


class Conversions:
    """Converts the values of one query.

    Args:
        faults: Of the same query.
        dialect: Its service's.
    """

    def __init__(self, faults: Faults, dialect: Dialect = TIMESTREAM) -> None:
        self._faults = faults
        self._texts_are_times = not dialect.standard

    def common_type(self, node: exp.Expr, kinds: Iterable[Kind], operation: str = "UNION") -> Kind:
        """Find the type that values of several types become.

        Args:
            node: The part of the query that needs it.
            kinds: The types.
            operation: What the error calls impossible if the types have nothing in common.

        Returns:
            The type; UNKNOWN where all are null.

        Raises:
            ServiceError: ValidationException.
        """
        known = [kind for kind in kinds if kind is not Type.UNKNOWN]
        of_decimals = Type.DECIMAL in known and Type.DOUBLE not in known and {*known} != {Type.DECIMAL}
        if of_decimals and operation not in _COMPARISONS:
            raise self._faults.error(node, NO_DECIMALS)
        for candidate in (*known, Type.DOUBLE, Type.TIMESTAMP):
            if all(widens(kind, candidate) for kind in known):
                return candidate if known else Type.UNKNOWN
        if not known:
            return Type.UNKNOWN
        if all(isinstance(kind, Array) for kind in known):
            elements = [kind.element for kind in known if isinstance(kind, Array)]
            return Array(self.common_type(node, elements, operation))
        listed = ", ".join(kind.value.lower() for kind in known)
        raise self._faults.error(node, f"'{operation}' cannot be applied to {listed}")

    def alike(self, node: exp.Expr, values: Sequence[Value], operation: str) -> list[Value]:
        """Give values one type: the widest of theirs, or TIMESTAMP for the texts beside a TIMESTAMP.

        Args:
            node: The part of the query that needs them alike.
            values: The values.
            operation: What the error names if they cannot be.

        Returns:
            The values, in their order, all of one type.

        Raises:
            ServiceError: ValidationException.
        """
        kinds = [value.kind for value in values if value.literal is None]
        moments = self._texts_are_times and any(kind in {Type.TIMESTAMP, Type.DATE} for kind in kinds)
        if moments and any(value.literal is not None for value in values):
            return [
                self.moment(self.read_timestamp(node, value.literal))
                if value.literal is not None
                else self.convert(node, value, Type.TIMESTAMP)
                for value in values
            ]
        kind = self.common_type(node, (value.kind for value in values), operation)
        return [self.convert(node, value, kind) for value in values]

    def convert(self, node: exp.Expr, value: Value, kind: Kind) -> Value:
        """Widen a value to a type.

        Args:
            node: The part of the query that needs it.
            value: The value.
            kind: The type.

        Returns:
            The value in that type.

        Raises:
            ServiceError: ValidationException, where that would take a cast.
        """
        if value.kind == kind:
            return value
        if self.reads_as_time(value, kind):
            return self.moment(self.read_timestamp(node, value.literal or ""))
        if not widens(value.kind, kind):
            raise self._faults.error(
                node, f"{value.kind.value.lower()} is given where {kind.value.lower()} is expected"
            )
        return self.widened(value, kind)

    def reads_as_time(self, value: Value, kind: Kind) -> bool:
        """Tell whether a value is a text that the dialect takes for the time that is wanted."""
        return self._texts_are_times and kind is Type.TIMESTAMP and value.literal is not None

    def widened(self, value: Value, kind: Kind) -> Value:
        """Cast a value to a type that is known to be wider.

        Args:
            value: The value.
            kind: The type.

        Returns:
            The value in that type.
        """
        if value.kind == kind:
            return value
        return Value(f"CAST({value.sql} AS {duckdb_type(kind)})", kind)

    def expect(self, value: Value, kind: Kind, node: exp.Expr) -> str:
        """Widen a value to a type, for its text alone.

        Args:
            value: The value.
            kind: The type.
            node: The part of the query that needs it.

        Returns:
            DuckDB's text.

        Raises:
            ServiceError: ValidationException, where that would take a cast.
        """
        return self.convert(node, value, kind).sql

    def moment(self, nanoseconds: int) -> Value:
        """Write a time as a constant.

        Args:
            nanoseconds: Since 1970.

        Returns:
            The time.
        """
        return Value(f"make_timestamp_ns(CAST({nanoseconds} AS BIGINT))", Type.TIMESTAMP)

    def read_timestamp(self, node: exp.Expr, text: str) -> int:
        """Read a time that stands in the query as a text.

        Args:
            node: Where it stands.
            text: E.g. `2026-11-19 00:00:00.000000000`.

        Returns:
            Nanoseconds since 1970.

        Raises:
            ServiceError: ValidationException.
        """
        match = _TIMESTAMP.fullmatch(text.strip())
        if match is None:
            raise self._faults.error(node, f"Value cannot be cast to timestamp: {text}")
        numbers = [int(part or 0) for part in match.groups()[:6]]
        try:
            moment = datetime(*numbers, tzinfo=UTC)  # type: ignore[misc,arg-type] # six whole numbers
        except ValueError:
            raise self._faults.error(node, f"Value cannot be cast to timestamp: {text}") from None
        # No time is before 1970, which also keeps bin() and the calendar from cutting upward to zero:
        # https://docs.aws.amazon.com/timestream/latest/developerguide/date-time-functions.html
        if moment.year < _FIRST_YEAR or moment.year > _LAST_YEAR:
            raise self._faults.error(node, f"Value cannot be cast to timestamp: {text}")
        nanoseconds = int(moment.timestamp()) * 1_000_000_000 + int((match[7] or "").ljust(9, "0"))
        if match[8]:
            ahead = (int(match[9]) * 60 + int(match[10])) * 60 * 1_000_000_000
            nanoseconds += -ahead if match[8] == "+" else ahead
        return nanoseconds

    def time_of_day(self, node: exp.Expr, text: str) -> Value:
        """Read a time of day that stands in the query as a text.

        Args:
            node: Where it stands.
            text: E.g. `17:41:52.827`.

        Returns:
            The TIME.

        Raises:
            ServiceError: ValidationException.
        """
        match = _CLOCK.fullmatch(text.strip())
        hour, minute, second = (int(part or 0) for part in (match.groups()[:3] if match else (24,) * 3))
        if match is None or hour > 23 or minute > 59 or second > 59:  # noqa: PLR2004 a clock's
            raise self._faults.error(node, f"Value cannot be cast to time: {text}")
        seconds = (hour * 60 + minute) * 60 + second
        fraction = int((match[4] or "").ljust(9, "0"))
        return Value(f"CAST({seconds * 1_000_000_000 + fraction} AS BIGINT)", Type.TIME)

    def read_date(self, node: exp.Expr, text: str) -> str:
        """Read a date that stands in the query as a text.

        Args:
            node: Where it stands.
            text: E.g. `2026-11-19`.

        Returns:
            The same, known to be a date.

        Raises:
            ServiceError: ValidationException.
        """
        try:
            return date.fromisoformat(text.strip()).isoformat()
        except ValueError:
            raise self._faults.error(node, f"Value cannot be cast to date: {text}") from None


def later(moment: str, nanoseconds: str, made: str = MOMENT) -> Value:
    """Add nanoseconds to a time.

    Args:
        moment: DuckDB's text of the time.
        nanoseconds: DuckDB's text of a BIGINT.
        made: DuckDB's function that makes a time of nanoseconds.

    Returns:
        The later time.
    """
    return Value(f"{made}(epoch_ns({moment}) + {nanoseconds})", Type.TIMESTAMP)


def months_later(moment: str, months: str, made: str = MOMENT) -> Value:
    """Add months to a time.

    Args:
        moment: DuckDB's text of the time.
        months: DuckDB's text of a number.
        made: DuckDB's function that makes a time of nanoseconds.

    Returns:
        The later time, on the month's last day where it has no such day.
    """
    # DuckDB adds months in microseconds, so what is below one is taken off first and put back.
    whole = f"epoch_ns({cut_to_microseconds(moment)} + to_months(CAST({months} AS INTEGER)))"
    return Value(f"{made}({whole} + epoch_ns({moment}) % 1000)", Type.TIMESTAMP)


def cast_text(value: Value, kind: Kind, *, safe: bool) -> str | None:
    """Write a cast that means in DuckDB what it means in Trino.

    Args:
        value: What is cast.
        kind: Into what.
        safe: Whether what cannot be cast is null, as TRY_CAST has it.

    Returns:
        DuckDB's text; None where no cast of DuckDB's is known to mean the same.
    """
    cast = "TRY_CAST" if safe else "CAST"
    plain = f"{cast}({value.sql} AS {duckdb_type(kind)})"
    numbers = {Type.INTEGER, Type.BIGINT}
    if value.kind == kind or value.kind is Type.UNKNOWN:
        return plain
    if value.kind is Type.VARCHAR and kind in {*numbers, Type.DOUBLE, Type.BOOLEAN}:
        # DuckDB reads more texts as numbers than Trino does, and rounds '1.5' to a whole 2.
        pattern = {Type.DOUBLE: DOUBLE_TEXT, Type.BOOLEAN: "(?i)true|false|t|f|1|0"}.get(kind, INTEGER_TEXT)
        return _matching(value.sql, pattern, plain, kind, safe=safe)
    if value.kind is Type.VARCHAR and kind in {Type.TIMESTAMP, Type.DATE}:
        pattern = _DATE_TEXT if kind is Type.DATE else _TIMESTAMP_TEXT
        return _matching(value.sql, pattern, plain, kind, safe=safe)
    if value.kind in {*numbers, Type.DOUBLE} and kind is Type.BOOLEAN:
        return f"({value.sql} <> 0)"
    if value.kind is Type.TIMESTAMP and kind is Type.TIME:
        return f"(epoch_ns({value.sql}) % 86400000000000)"
    if kind is Type.VARCHAR and value.kind in {Type.DOUBLE, Type.TIME, Type.DAYS, Type.MONTHS}:
        return printed(value.kind, value.sql)
    if value.kind is Type.DOUBLE and kind in numbers:
        # Trino rounds halves away from zero, DuckDB's cast to the even neighbour.
        return f"{cast}(round({value.sql}) AS {kind.value})"
    if value.kind is Type.TIMESTAMP and kind is Type.VARCHAR:
        return f"strftime({value.sql}, '%Y-%m-%d %H:%M:%S.%n')"
    if value.kind is Type.TIMESTAMP and kind is Type.DATE:
        return f"CAST({cut_to_microseconds(value.sql)} AS DATE)"
    is_same = isinstance(value.kind, Type) and kind in _SAME_IN_DUCKDB.get(value.kind, ())
    return plain if is_same else None


def _matching(sql: str, pattern: str, cast: str, kind: Kind, *, safe: bool) -> str:
    # Only texts that Trino would cast.
    otherwise = "NULL" if safe else failure(f"concat('Cannot cast ''', {sql}, ''' to {kind.value}')")
    return (
        f"(CASE WHEN {sql} IS NULL THEN NULL WHEN regexp_full_match({sql}, {quoted(pattern)}) THEN {cast} "
        f"ELSE {otherwise} END)"
    )
