"""The functions that Timestream's SQL may call here, each with its types and what it is in DuckDB.

What is not in these tables is refused by name. A template is chosen by the arguments' types, as Trino does:
an exact match first, then one that widens INTEGER to BIGINT to DOUBLE, or DATE to TIMESTAMP.
"""

from dataclasses import dataclass

from local.timestream.kinds import Kind, Type


@dataclass(frozen=True, slots=True)
class Signature:
    """One overload of a function.

    Args:
        parameters: The types it takes.
        result: The type it gives.
        template: DuckDB's expression; ``{0}`` is the first argument. An aggregate's says where ``{filter}``
            goes, and, if the aggregate can have it, ``{distinct}``.
    """

    parameters: tuple[Kind, ...]
    result: Kind
    template: str


def cut_to_microseconds(moment: str) -> str:
    """Make a DuckDB expression of a TIMESTAMP_NS one that DuckDB's calendar reads without rounding it up.

    Args:
        moment: The expression.

    Returns:
        An expression of type TIMESTAMP.
    """
    return _CUT.format(moment)


_V, _I, _B, _D = Type.VARCHAR, Type.INTEGER, Type.BIGINT, Type.DOUBLE
_T, _L, _N = Type.TIMESTAMP, Type.BOOLEAN, Type.DAYS
# DuckDB's calendar works in microseconds and rounds to them, so that 23:59:59.999999999 would be tomorrow:
# this cuts instead.
_CUT = "make_timestamp(epoch_ns({0}) // 1000)"
_ORDERED = (_V, _I, _B, _D, _L, _T, Type.DATE, _N)


def _field(name: str) -> tuple[Signature, ...]:
    return (Signature((_T,), _B, f"{name}({_CUT})"),)


def _double(template: str) -> tuple[Signature, ...]:
    return (Signature((_D,), _D, template),)


def _same(template: str, kinds: tuple[Type, ...]) -> tuple[Signature, ...]:
    return tuple(Signature((kind,), kind, template) for kind in kinds)


_DAY_OF_WEEK = _field("isodow")
_DAY_OF_YEAR = _field("dayofyear")
_DAY_OF_MONTH = _field("day")
_WEEK = _field("week")
_CEILING = (*_same("{0}", (_I, _B)), *_double("ceil({0})"))

SCALARS: dict[str, tuple[Signature, ...]] = {
    # https://docs.aws.amazon.com/timestream/latest/developerguide/mathematical-functions.html
    "abs": _same("abs({0})", (_I, _B, _D)),
    "ceil": _CEILING,
    "ceiling": _CEILING,
    "floor": (*_same("{0}", (_I, _B)), *_double("floor({0})")),
    "round": (
        *_same("{0}", (_I, _B)),
        *_double("round({0})"),
        Signature((_D, _I), _D, "round({0}, {1})"),
    ),
    "exp": _double("exp({0})"),
    "ln": _double("ln({0})"),
    "log2": _double("log2({0})"),
    "log10": _double("log10({0})"),
    "sqrt": _double("sqrt({0})"),
    "power": (Signature((_D, _D), _D, "pow({0}, {1})"),),
    "pow": (Signature((_D, _D), _D, "pow({0}, {1})"),),
    "mod": (
        Signature((_I, _I), _I, "({0} % {1})"),
        Signature((_B, _B), _B, "({0} % {1})"),
        Signature((_D, _D), _D, "({0} % {1})"),
    ),
    # https://docs.aws.amazon.com/timestream/latest/developerguide/string-functions.html
    "length": (Signature((_V,), _B, "length({0})"),),
    "lower": (Signature((_V,), _V, "lower({0})"),),
    "upper": (Signature((_V,), _V, "upper({0})"),),
    "reverse": (Signature((_V,), _V, "reverse({0})"),),
    "replace": (
        Signature((_V, _V), _V, "replace({0}, {1}, '')"),
        Signature((_V, _V, _V), _V, "replace({0}, {1}, {2})"),
    ),
    "strpos": (Signature((_V, _V), _B, "strpos({0}, {1})"),),
    "starts_with": (Signature((_V, _V), _L, "starts_with({0}, {1})"),),
    # From position 0, and from before the first character, Trino takes nothing and DuckDB something.
    "substr": (
        Signature((_V, _B), _V, "CASE WHEN {1} = 0 OR {1} < -length({0}) THEN '' ELSE substr({0}, {1}) END"),
        Signature(
            (_V, _B, _B),
            _V,
            "CASE WHEN {1} = 0 OR {1} < -length({0}) OR {2} <= 0 THEN '' ELSE substr({0}, {1}, {2}) END",
        ),
    ),
    "regexp_like": (Signature((_V, _V), _L, "regexp_matches({0}, {1})"),),
    # https://docs.aws.amazon.com/timestream/latest/developerguide/date-time-functions.html
    "bin": (Signature((_T, _N), _T, "make_timestamp_ns(epoch_ns({0}) - epoch_ns({0}) % {1})"),),
    "date": (Signature((_T,), Type.DATE, f"CAST({_CUT} AS DATE)"),),
    "from_milliseconds": (Signature((_B,), _T, "make_timestamp_ns({0} * 1000000)"),),
    "from_nanoseconds": (Signature((_B,), _T, "make_timestamp_ns({0})"),),
    "to_milliseconds": (
        Signature((_T,), _B, "(epoch_ns({0}) // 1000000)"),
        Signature((_N,), _B, "({0} // 1000000)"),
    ),
    "to_nanoseconds": (Signature((_T,), _B, "epoch_ns({0})"), Signature((_N,), _B, "{0}")),
    "to_unixtime": (Signature((_T,), _D, "(epoch_ns({0}) / CAST(1e9 AS DOUBLE))"),),
    "year": _field("year"),
    "quarter": _field("quarter"),
    "month": _field("month"),
    "week": _WEEK,
    "week_of_year": _WEEK,
    "day": _DAY_OF_MONTH,
    "day_of_month": _DAY_OF_MONTH,
    "day_of_week": _DAY_OF_WEEK,
    "dow": _DAY_OF_WEEK,
    "day_of_year": _DAY_OF_YEAR,
    "doy": _DAY_OF_YEAR,
    "hour": _field("hour"),
    "minute": _field("minute"),
    "second": _field("second"),
    "millisecond": (Signature((_T,), _B, "(epoch_ns({0}) // 1000000 % 1000)"),),
}

# https://docs.aws.amazon.com/timestream/latest/developerguide/aggregate-functions.html
AGGREGATES: dict[str, tuple[Signature, ...]] = {
    "avg": _double("avg({distinct}{0}){filter}"),
    # DuckDB sums into 128 bits; Trino's sum of BIGINT is a BIGINT, or an error.
    "sum": (
        Signature((_B,), _B, "CAST(sum({distinct}{0}){filter} AS BIGINT)"),
        *_double("sum({distinct}{0}){filter}"),
    ),
    "min": _same("min({distinct}{0}){filter}", _ORDERED),
    "max": _same("max({distinct}{0}){filter}", _ORDERED),
    "arbitrary": _same("any_value({0}){filter}", _ORDERED),
    "min_by": tuple(
        Signature((a, b), a, "arg_min_null({0}, {1}){filter}") for a in _ORDERED for b in _ORDERED
    ),
    "max_by": tuple(
        Signature((a, b), a, "arg_max_null({0}, {1}){filter}") for a in _ORDERED for b in _ORDERED
    ),
    "count_if": (Signature((_L,), _B, "CAST(count_if({0}){filter} AS BIGINT)"),),
    "bool_and": (Signature((_L,), _L, "bool_and({0}){filter}"),),
    "every": (Signature((_L,), _L, "bool_and({0}){filter}"),),
    "bool_or": (Signature((_L,), _L, "bool_or({0}){filter}"),),
    "stddev": _double("stddev_samp({0}){filter}"),
    "stddev_samp": _double("stddev_samp({0}){filter}"),
    "stddev_pop": _double("stddev_pop({0}){filter}"),
    "variance": _double("var_samp({0}){filter}"),
    "var_samp": _double("var_samp({0}){filter}"),
    "var_pop": _double("var_pop({0}){filter}"),
    # Both are approximations at AWS. Here they are exact, so that no result depends on the rows' order.
    "approx_distinct": tuple(Signature((kind,), _B, "count(DISTINCT {0}){filter}") for kind in _ORDERED),
    "approx_percentile": tuple(
        Signature((kind, _D), kind, "quantile_disc({0}, {1}){filter}") for kind in (_B, _D)
    ),
}
