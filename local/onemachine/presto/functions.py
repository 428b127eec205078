"""The functions that Timestream's SQL may call here, each with its types and what it is in DuckDB.

What is neither in these tables nor a form of its own in `expressions` is refused by name. A template is
chosen by the arguments' types, as Trino does: an exact match first, then one that widens INTEGER to BIGINT
to DOUBLE, or DATE to TIMESTAMP.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product

from onemachine.presto.failures import MOMENT, failure, guarded
from onemachine.presto.kinds import Array, Kind, Series, Type


@dataclass(frozen=True, slots=True)
class Signature:
    """One overload of a function.

    Attributes:
        parameters: The types it takes.
        result: The type it gives.
        template: DuckDB's expression; `{0}` is the first argument. An aggregate's shows where `{filter}`
            goes, and, if the aggregate can have them, `{distinct}`, `{order}` and `{nulls}`. A
            lambda's variable begins with `$`, which becomes a name that is used once in a query.
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


_OVERLOAD = re.compile(r"([\w|]+)\((.*)\) (\S+)")
_ORDERED = tuple(kind for kind in Type if kind not in {Type.DECIMAL, Type.UNKNOWN})
# Each stands for one of its types throughout an overload.
_VARIABLES = {
    "E": _ORDERED,
    "F": _ORDERED,
    "W": (Type.INTEGER, Type.BIGINT),
    "N": (Type.BIGINT, Type.DOUBLE),
    "I": (Type.DAYS, Type.MONTHS),
    "P": (Type.VARCHAR, Type.INTEGER, Type.BIGINT, Type.DOUBLE, Type.BOOLEAN),
}


def _signatures(table: Mapping[str, str]) -> dict[str, tuple[Signature, ...]]:
    """Read a table of overloads, each with its template.

    Args:
        table: The templates by `name(parameters) result`; several names with `|` between have the same. In
            a template, `{name}` is the function's name, and `{W}` the type that the variable W stands for.

    Returns:
        The overloads by name.
    """
    found: dict[str, tuple[Signature, ...]] = {}
    for overload, template in table.items():
        names, parameters, result = re.findall(_OVERLOAD, overload)[0]
        variables = [each for each in _VARIABLES if re.search(rf"\b{each}\b", overload)]
        for kinds in product(*(_VARIABLES[each] for each in variables)):
            bound = dict(zip(variables, kinds, strict=True))
            text = re.sub(r"\{([A-Z])\}", lambda slot: bound[slot[1]].value, template)  # noqa: B023 used at once
            taken = tuple(_kind(each, bound) for each in parameters.split(", ") if each)
            for name in names.split("|"):
                signature = Signature(taken, _kind(result, bound), text.replace("{name}", name))
                found[name] = (*found.get(name, ()), signature)
    return found


def _kind(text: str, bound: Mapping[str, Type]) -> Kind:
    outer, _, inner = text.removesuffix(")").partition("(")
    if inner:
        return Array(_kind(inner, bound)) if outer == "array" else Series(_kind(inner, bound))
    return bound[text] if text in bound else Type[text.upper()]


# DuckDB's calendar works in microseconds and rounds to them, so that 23:59:59.999999999 would be tomorrow:
# this cuts instead.
_CUT = "make_timestamp(epoch_ns({0}) // 1000)"
# What Java's Character.isWhitespace takes for such, which is what Trino trims; DuckDB's trim takes blanks.
_BLANKS = " || ".join(
    f"chr({code})"
    for code in (
        *(*range(9, 14), *range(28, 33), 0x1680, *range(0x2000, 0x2007), *range(0x2008, 0x200B)),
        *(0x2028, 0x2029, 0x205F, 0x3000),
    )
)
_NOT_ASCII = "NOT (strlen({0}) = length({0}) AND strlen({1}) = length({1}))"
_ANY_NULL = "{0} IS NULL OR {1} IS NULL OR {2} IS NULL"
_PLACES = "list_filter(range(1, length({0}) + 1), lambda $place: substr({0}, $place, length({1})) = {1})"
_LAST_PLACE = guarded(
    "{2} <= 0 OR {1} = ''",
    "strrpos takes an instance from 1, and a text that is not empty",
    f"CASE WHEN {_ANY_NULL} THEN NULL ELSE coalesce({_PLACES}[-({{2}})], 0) END",
)
_NO_EMPTY = "replace of an empty text is not supported here"
_EITHER_NULL = "{0} IS NULL OR {1} IS NULL"
_HAS_NULL = "len({0}) <> list_count({0})"
_DISTINCT = "list_filter({0}, lambda $one, $place: list_position({0}, $one) = $place)"
_IN_BOTH = "list_filter({0}, lambda $item: list_position({1}, $item) IS NOT NULL)"
_IN_FIRST = "list_filter({0}, lambda $item: list_position({1}, $item) IS NULL)"


def _distinct(kept: str) -> str:
    """Write the elements of a list that is made of two, each once."""
    return f"CASE WHEN {_EITHER_NULL} THEN NULL ELSE {_DISTINCT.replace('{0}', kept)} END"


# https://trino.io/docs/current/functions/array.html#sequence
_MAX_SEQUENCE = 10_000


def _sequence(start: str, stop: str, values: str) -> str:
    return guarded(
        f"({{2}}) = 0 OR sign({stop} - {start}) * sign({{2}}) < 0",
        "sequence stop value should be greater than or equal to start value if step is greater than zero "
        "otherwise stop should be less than or equal to start",
        guarded(
            f"abs({stop} - {start}) // abs({{2}}) >= {_MAX_SEQUENCE}",
            f"result of sequence function must not have more than {_MAX_SEQUENCE} entries",
            values.replace("{values}", f"generate_series({start}, {stop}, {{2}})"),
        ),
    )


_NUMBERS = _sequence("{0}", "{1}", "{values}")
_SECONDS = "CAST(floor(abs({0}) + 0.5e0) AS BIGINT)"
_UNITS = ", ".join(
    f"CASE WHEN {number} = 0 THEN NULL ELSE CAST({number} AS VARCHAR) || ' {unit}' || "
    f"CASE WHEN {number} = 1 THEN '' ELSE 's' END END"
    for unit, number in (
        ("week", f"{_SECONDS} // 604800"),
        ("day", f"{_SECONDS} // 86400 % 7"),
        ("hour", f"{_SECONDS} // 3600 % 24"),
        ("minute", f"{_SECONDS} // 60 % 60"),
        ("second", f"{_SECONDS} % 60"),
    )
)
_TIMES = "list_transform({0}, lambda $point: $point.time)"


def _interpolation(series: str, fill: str, found: str, missing: str) -> dict[str, str]:
    """Make an interpolation's two rows of what it gives at a point of the series and elsewhere.

    `{at}` is the moment, and `{before}` how many points of the series are not after it.
    """
    name, _, element = series.partition(" ")
    before = "len(list_filter({0}, lambda $point: $point.time <= {at}))"
    at = f"CASE WHEN ({{0}})[{before}].time = {{at}} THEN {found} ELSE {missing} END"
    at = at.replace("{before}", before)
    several = f"list_transform({{1}}, lambda $at: {{{{'time': $at, 'value': {at.replace('{at}', '$at')}}}}})"
    return {
        f"{name}(series({element}), timestamp{fill}) {element}": at.replace("{at}", "{1}"),
        f"{name}(series({element}), array(timestamp){fill}) series({element})": several,
    }


_OUTSIDE = failure("'Interpolation outside of the time series is not supported here'")
_AREA = (
    "coalesce(list_sum(list_transform(range(1, len({0})), lambda $n: "
    "(({0})[$n].value + ({0})[$n + 1].value) / 2e0 * "
    "CAST(epoch_ns(({0})[$n + 1].time) - epoch_ns(({0})[$n].time) AS DOUBLE))), 0e0)"
)
_X = "(({0})[$n].value - list_avg(list_transform({0}, lambda $x: $x.value)))"
_Y = "(({1})[$n].value - list_avg(list_transform({1}, lambda $y: $y.value)))"


def _deviations(one: str, other: str) -> str:
    return f"list_sum(list_transform(range(1, len({{0}}) + 1), lambda $n: {one} * {other}))"


SCALARS = _signatures(
    {
        # https://docs.aws.amazon.com/timestream/latest/developerguide/mathematical-functions.html
        "abs(W) W": "abs({0})",
        "abs(double) double": "abs({0})",
        # DuckDB is one digit off at the cubes, Java is not.
        "cbrt(double) double": (
            "CASE WHEN pow(round(cbrt({0})), 3) = {0} THEN round(cbrt({0})) ELSE cbrt({0}) END"
        ),
        "ceil|ceiling|floor|round(W) W": "{0}",
        "ceil|ceiling(double) double": "ceil({0})",
        "degrees|exp|floor|ln|log2|log10|radians|round|sqrt(double) double": "{name}({0})",
        "acos|asin|atan|cos|cosh|sin|tan|tanh(double) double": "{name}({0})",
        "e() double": "exp(1e0)",
        "mod(W, W) W": "({0} % {1})",
        "mod(double, double) double": "({0} % {1})",
        "pi() double": "pi()",
        "pow|power(double, double) double": "pow({0}, {1})",
        "rand|random() double": "random()",
        "rand|random(W) W": guarded(
            "{0} <= 0", "bound must be positive", "CAST(floor(random() * {0}) AS {W})"
        ),
        "rand|random(W, W) W": guarded(
            "{1} <= {0}",
            "upper bound must be greater than lower bound",
            "CAST({0} + floor(random() * ({1} - {0})) AS {W})",
        ),
        "round(W, integer) W": guarded(
            "{1} < 0", "Rounding a whole number to tens or more is not supported here", "{0}"
        ),
        "round(double, integer) double": "round({0}, {1})",
        "sign(W) W": "CAST(sign({0}) AS {W})",
        "sign(double) double": "CASE WHEN isnan({0}) THEN {0} ELSE CAST(sign({0}) AS DOUBLE) END",
        "to_base(bigint, bigint) varchar": guarded(
            "{1} < 2 OR {1} > 36",
            "Radix must be between 2 and 36",
            "CASE WHEN {0} < 0 THEN '-' ELSE '' END || lower(to_base(abs({0}), CAST({1} AS INTEGER)))",
        ),
        "truncate(double) double": "trunc({0})",
        "atan2(double, double) double": "atan2({0}, {1})",
        "infinity() double": "CAST('Infinity' AS DOUBLE)",
        "is_finite(double) boolean": "isfinite({0})",
        "is_infinite(double) boolean": "isinf({0})",
        "is_nan(double) boolean": "isnan({0})",
        "nan() double": "CAST('NaN' AS DOUBLE)",
        # https://docs.aws.amazon.com/timestream/latest/developerguide/bitwise-functions.html
        "bit_count(bigint, bigint) bigint": guarded(
            "{1} < 2 OR {1} > 64 OR ({1} < 64 AND ({0} >= CAST(1 AS BIGINT) << (({1} - 1) % 63) "
            "OR {0} < -(CAST(1 AS BIGINT) << (({1} - 1) % 63))))",
            "Number must be representable with the bits specified",
            "CAST(bit_count(CASE WHEN {1} = 64 THEN {0} "
            "ELSE {0} & ((CAST(1 AS BIGINT) << ({1} % 64)) - 1) END) AS BIGINT)",
        ),
        "bitwise_and(bigint, bigint) bigint": "({0} & {1})",
        "bitwise_not(bigint) bigint": "(~{0})",
        "bitwise_or(bigint, bigint) bigint": "({0} | {1})",
        "bitwise_xor(bigint, bigint) bigint": "xor({0}, {1})",
        # https://docs.aws.amazon.com/timestream/latest/developerguide/string-functions.html
        "chr(bigint) varchar": "chr(CAST({0} AS INTEGER))",
        "codepoint(varchar) integer": guarded(
            "length({0}) <> 1", "codepoint takes a text of one character", "unicode({0})"
        ),
        "hamming_distance(varchar, varchar) bigint": guarded(
            _NOT_ASCII,
            "hamming_distance is supported here for ASCII only",
            guarded(
                "length({0}) <> length({1})",
                "The input strings to hamming_distance function must have the same length",
                "CASE WHEN {0} = '' THEN 0 ELSE CAST(hamming({0}, {1}) AS BIGINT) END",
            ),
        ),
        "length(varchar) bigint": "length({0})",
        "levenshtein_distance(varchar, varchar) bigint": guarded(
            _NOT_ASCII, "levenshtein_distance is supported here for ASCII only", "levenshtein({0}, {1})"
        ),
        "lower(varchar) varchar": "lower({0})",
        # In Java this letter is its own capital; DuckDB has another for it.
        "upper(varchar) varchar": (
            "CASE WHEN contains({0}, 'ß') THEN array_to_string("
            "list_transform(string_split({0}, 'ß'), lambda $part: upper($part)), 'ß') ELSE upper({0}) END"
        ),
        "lpad|rpad(varchar, bigint, varchar) varchar": guarded(
            "{1} < 0 OR {2} = ''",
            "Target length must not be negative, and the padding not be empty",
            "{name}({0}, CAST({1} AS INTEGER), {2})",
        ),
        "trim|ltrim|rtrim(varchar) varchar": f"{{name}}({{0}}, {_BLANKS})",
        "replace(varchar, varchar) varchar": guarded("{1} = ''", _NO_EMPTY, "replace({0}, {1}, '')"),
        "replace(varchar, varchar, varchar) varchar": guarded(
            "{1} = ''", _NO_EMPTY, "replace({0}, {1}, {2})"
        ),
        # By code points; DuckDB's own reverse keeps what looks like one character together.
        "reverse(varchar) varchar": "array_to_string(list_reverse(regexp_extract_all({0}, '(?s).')), '')",
        "reverse(array(E)) array(E)": "list_reverse({0})",
        "split(varchar, varchar) array(varchar)": guarded(
            "{1} = ''", "The delimiter may not be the empty string", "string_split({0}, {1})"
        ),
        "split(varchar, varchar, bigint) array(varchar)": guarded(
            "{1} = '' OR {2} <= 0",
            "The delimiter may not be the empty string, and the limit must be positive",
            "CASE WHEN len(string_split({0}, {1})) <= {2} THEN string_split({0}, {1}) ELSE "
            "list_append(list_slice(string_split({0}, {1}), 1, {2} - 1), "
            "array_to_string(list_slice(string_split({0}, {1}), {2}, len(string_split({0}, {1}))), {1})) "
            "END",
        ),
        "split_part(varchar, varchar, bigint) varchar": guarded(
            "{1} = '' OR {2} <= 0",
            "The delimiter may not be the empty string, and the index must be positive",
            "string_split({0}, {1})[{2}]",
        ),
        "starts_with(varchar, varchar) boolean": "starts_with({0}, {1})",
        # Where a text is for the last time, for the last but one, ...
        "strrpos(varchar, varchar) bigint": _LAST_PLACE.replace("{2}", "1"),
        "strrpos(varchar, varchar, bigint) bigint": _LAST_PLACE,
        "strpos(varchar, varchar) bigint": "strpos({0}, {1})",
        "strpos(varchar, varchar, bigint) bigint": guarded(
            "{2} = 0 OR {1} = ''",
            "strpos takes an instance other than 0, and a text that is not empty",
            f"CASE WHEN {_ANY_NULL} THEN NULL ELSE coalesce({_PLACES}[{{2}}], 0) END",
        ),
        # From position 0, and from before the first character, Trino takes nothing and DuckDB something.
        "substr(varchar, bigint) varchar": (
            "CASE WHEN {1} = 0 OR {1} < -length({0}) THEN '' ELSE substr({0}, {1}) END"
        ),
        "substr(varchar, bigint, bigint) varchar": (
            "CASE WHEN {1} = 0 OR {1} < -length({0}) OR {2} <= 0 THEN '' ELSE substr({0}, {1}, {2}) END"
        ),
        # https://docs.aws.amazon.com/timestream/latest/developerguide/regex-functions.html
        "regexp_like(varchar, varchar) boolean": "regexp_matches({0}, {1})",
        "regexp_extract_all(varchar, varchar) array(varchar)": "regexp_extract_all({0}, {1})",
        "regexp_extract(varchar, varchar) varchar": (
            "CASE WHEN regexp_matches({0}, {1}) THEN regexp_extract({0}, {1}) ELSE NULL END"
        ),
        "regexp_split(varchar, varchar) array(varchar)": "string_split_regex({0}, {1})",
        # https://docs.aws.amazon.com/timestream/latest/developerguide/array-functions.html
        "array_distinct(array(E)) array(E)": _DISTINCT,
        "array_intersect(array(E), array(E)) array(E)": _distinct(_IN_BOTH),
        "array_except(array(E), array(E)) array(E)": _distinct(_IN_FIRST),
        "array_union(array(E), array(E)) array(E)": _distinct("list_concat({0}, {1})"),
        "array_max(array(E)) E": f"CASE WHEN {_HAS_NULL} THEN NULL ELSE list_max({{0}}) END",
        "array_min(array(E)) E": f"CASE WHEN {_HAS_NULL} THEN NULL ELSE list_min({{0}}) END",
        "array_position(array(E), E) bigint": (
            f"CASE WHEN {_EITHER_NULL} THEN NULL "
            "ELSE coalesce(CAST(list_position({0}, {1}) AS BIGINT), 0) END"
        ),
        "array_remove(array(E), E) array(E)": (
            f"CASE WHEN {_EITHER_NULL} THEN NULL "
            "ELSE list_filter({0}, lambda $item: $item IS DISTINCT FROM {1}) END"
        ),
        "array_sort(array(E)) array(E)": "list_sort({0}, 'ASC', 'NULLS LAST')",
        "arrays_overlap(array(E), array(E)) boolean": (
            "CASE WHEN list_has_any({0}, {1}) THEN true "
            f"WHEN {_HAS_NULL} OR {_HAS_NULL.replace('{0}', '{1}')} THEN NULL "
            f"WHEN {_EITHER_NULL} THEN NULL ELSE false END"
        ),
        "cardinality(array(E)) bigint": "len({0})",
        "cardinality(series(E)) bigint": "len({0})",
        "cardinality(array(array(E))) bigint": "len({0})",
        "contains(array(E), E) boolean": (
            f"CASE WHEN {_EITHER_NULL} THEN NULL WHEN list_contains({{0}}, {{1}}) THEN true "
            f"WHEN {_HAS_NULL} THEN NULL ELSE false END"
        ),
        "element_at(array(E), bigint) E": guarded("{1} = 0", "SQL array indices start at 1", "({0})[{1}]"),
        "repeat(E, bigint) array(E)": guarded(
            f"{{1}} > {_MAX_SEQUENCE}",
            f"count argument of repeat function must be less than or equal to {_MAX_SEQUENCE}",
            "list_transform(range({1}), lambda $n: {0})",
        ),
        "sequence(bigint, bigint) array(bigint)": _NUMBERS.replace(
            "{2}", "CASE WHEN {0} <= {1} THEN 1 ELSE -1 END"
        ),
        "sequence(bigint, bigint, bigint) array(bigint)": _NUMBERS,
        "sequence(timestamp, timestamp, days) array(timestamp)": _sequence(
            "epoch_ns({0})", "epoch_ns({1})", "list_transform({values}, lambda $n: make_timestamp_ns($n))"
        ),
        "slice(array(E), bigint, bigint) array(E)": guarded(
            "{1} = 0 OR {2} < 0",
            "SQL array indices start at 1, and a length must not be negative",
            "CASE WHEN abs({1}) > len({0}) THEN list_slice({0}, 1, 0) ELSE list_slice({0}, "
            "CASE WHEN {1} > 0 THEN {1} ELSE len({0}) + {1} + 1 END, "
            "CASE WHEN {1} > 0 THEN {1} ELSE len({0}) + {1} + 1 END + {2} - 1) END",
        ),
        # https://docs.aws.amazon.com/timestream/latest/developerguide/date-time-functions.html
        "bin(timestamp, days) timestamp": "make_timestamp_ns(epoch_ns({0}) - epoch_ns({0}) % {1})",
        "current_timezone() varchar": "'UTC'",
        "date(date) date": "{0}",
        "date(timestamp) date": f"CAST({_CUT} AS DATE)",
        "from_milliseconds(bigint) timestamp": f"{MOMENT}({{0}} * 1000000)",
        "from_nanoseconds(bigint) timestamp": f"{MOMENT}({{0}})",
        "from_unixtime(double) timestamp": (
            f"{MOMENT}(CAST(floor({{0}} * 1000 + 0.5e0) AS BIGINT) * 1000000)"
        ),
        "human_readable_seconds(double) varchar": guarded(
            "NOT isfinite({0})",
            "Invalid argument: a number of seconds is finite",
            "CASE WHEN {0} < 0 THEN '-' ELSE '' END || coalesce(nullif(array_to_string(list_filter(["
            f"{_UNITS}], lambda $part: $part IS NOT NULL), ', '), ''), '0 seconds')",
        ),
        "last_day_of_month(date) date": "last_day({0})",
        "last_day_of_month(timestamp) date": f"last_day({_CUT})",
        "to_iso8601(date) varchar": "CAST({0} AS VARCHAR)",
        "to_milliseconds(timestamp) bigint": "(epoch_ns({0}) // 1000000)",
        "to_milliseconds(days) bigint": "({0} // 1000000)",
        "to_nanoseconds(timestamp) bigint": "epoch_ns({0})",
        "to_nanoseconds(days) bigint": "{0}",
        "to_unixtime(timestamp) double": "(epoch_ns({0}) / CAST(1e9 AS DOUBLE))",
        "year|quarter|month|week(timestamp) bigint": f"{{name}}({_CUT})",
        "year(months) bigint": "({0} // 12)",
        "month(months) bigint": "({0} % 12)",
        "week_of_year(timestamp) bigint": f"week({_CUT})",
        "year_of_week|yow(timestamp) bigint": f"isoyear({_CUT})",
        "day|day_of_month(timestamp) bigint": f"day({_CUT})",
        "day|day_of_month(days) bigint": "({0} // 86400000000000)",
        "day_of_week|dow(timestamp) bigint": f"isodow({_CUT})",
        "day_of_year|doy(timestamp) bigint": f"dayofyear({_CUT})",
        **{
            f"{name}({kind}) bigint": f"({moment} // {divisor} % {modulo})"
            for name, divisor, modulo in (
                ("hour", 3_600_000_000_000, 24),
                ("minute", 60_000_000_000, 60),
                ("second", 1_000_000_000, 60),
                ("millisecond", 1_000_000, 1000),
            )
            for kind, moment in (("timestamp", "epoch_ns({0})"), ("time", "{0}"), ("days", "{0}"))
        },
        "nanosecond(timestamp) bigint": "(epoch_ns({0}) % 1000000000)",
        # https://docs.aws.amazon.com/timestream/latest/developerguide/timeseries-specific-constructs.functions.html
        **_interpolation(
            "interpolate_linear double",
            "",
            "({0})[{before}].value",
            f"CASE WHEN {{before}} = 0 OR {{before}} = len({{0}}) THEN {_OUTSIDE} ELSE "
            "({0})[{before}].value + (({0})[{before} + 1].value - ({0})[{before}].value) * "
            "CAST(epoch_ns({at}) - epoch_ns(({0})[{before}].time) AS DOUBLE) / "
            "CAST(epoch_ns(({0})[{before} + 1].time) - epoch_ns(({0})[{before}].time) AS DOUBLE) END",
        ),
        **_interpolation(
            "interpolate_locf P",
            "",
            "({0})[{before}].value",
            f"CASE WHEN {{before}} = 0 THEN {_OUTSIDE} ELSE ({{0}})[{{before}}].value END",
        ),
        **_interpolation("interpolate_fill double", ", double", "({0})[{before}].value", "{2}"),
        "integral_trapezoidal(series(double)) double": f"({_AREA} / 1e9)",
        "integral_trapezoidal(series(double), days) double": f"({_AREA} / CAST({{1}} AS DOUBLE))",
        "correlate_pearson(series(double), series(double)) double": guarded(
            f"{_TIMES} <> {_TIMES.replace('{0}', '{1}')}",
            "The timeseries must have the same timestamps",
            f"{_deviations(_X, _Y)} / sqrt({_deviations(_X, _X)} * {_deviations(_Y, _Y)})",
        ),
        # https://trino.io/docs/current/functions/json.html; AWS's reference has no page on them.
        "json_array_length(varchar) bigint": (
            "CASE WHEN NOT json_valid({0}) THEN NULL WHEN json_type({0}) <> 'ARRAY' THEN NULL "
            "ELSE CAST(json_array_length({0}) AS BIGINT) END"
        ),
    }
)

# https://docs.aws.amazon.com/timestream/latest/developerguide/aggregate-functions.html
AGGREGATES = _signatures(
    {
        "avg(double) double": "avg({distinct}{0}){filter}",
        # DuckDB sums into 128 bits; Trino's sum of BIGINT is a BIGINT, or an error.
        "sum(bigint) bigint": "CAST(sum({distinct}{0}){filter} AS BIGINT)",
        "sum(double) double": "sum({distinct}{0}){filter}",
        "sum(I) I": "CAST(sum({distinct}{0}){filter} AS BIGINT)",
        "min|max(E) E": "{name}({distinct}{0}){filter}",
        "min|max(E, bigint) array(E)": "{name}({0}, {1}){filter}",
        "arbitrary(E) E": "any_value({0}){filter}",
        "array_agg(E) array(E)": "list({distinct}{0}{order}){filter}",
        "min_by(E, F) E": "arg_min_null({0}, {1}){filter}",
        "max_by(E, F) E": "arg_max_null({0}, {1}){filter}",
        # In a struct, as rows of which the value is null count too.
        "min_by(E, F, bigint) array(E)": (
            "list_transform(arg_min({{'v': {0}}}, {1}, {2}){filter}, lambda $one: $one.v)"
        ),
        "max_by(E, F, bigint) array(E)": (
            "list_transform(arg_max({{'v': {0}}}, {1}, {2}){filter}, lambda $one: $one.v)"
        ),
        "count_if(boolean) bigint": "CAST(count_if({0}){filter} AS BIGINT)",
        "bool_and|every(boolean) boolean": "bool_and({0}){filter}",
        "bool_or(boolean) boolean": "bool_or({0}){filter}",
        "bitwise_and_agg(bigint) bigint": "bit_and({0}){filter}",
        "bitwise_or_agg(bigint) bigint": "bit_or({0}){filter}",
        "geometric_mean(double) double": "exp(avg(ln({0})){filter})",
        "stddev|stddev_samp(double) double": "stddev_samp({0}){filter}",
        "stddev_pop(double) double": "stddev_pop({0}){filter}",
        "variance|var_samp(double) double": "var_samp({0}){filter}",
        "var_pop(double) double": "var_pop({0}){filter}",
        "corr|covar_pop|covar_samp|regr_intercept|regr_slope(double, double) double": (
            "{name}({0}, {1}){filter}"
        ),
        # DuckDB's is the estimate for a population that was sampled, Trino's that of the values themselves.
        "skewness(double) double": (
            "(skewness({0}){filter} * (count({0}){filter} - 2) / "
            "sqrt(CAST(count({0}){filter} AS DOUBLE) * (count({0}){filter} - 1)))"
        ),
        "kurtosis(double) double": "kurtosis({0}){filter}",
        # Both are approximations at AWS. Here they are exact, so that no result depends on the rows' order.
        "approx_distinct(E) bigint": "count(DISTINCT {0}){filter}",
        "approx_distinct(E, double) bigint": "count(DISTINCT {0}){filter}",
        "approx_percentile(N, double) N": "quantile_disc({0}, {1}){filter}",
        "approx_percentile(N, array(double)) array(N)": "quantile_disc({0}, {1}){filter}",
        # A value that is null is an error, and so are two values of one time.
        # https://docs.aws.amazon.com/timestream/latest/developerguide/timeseries-specific-constructs.views.html
        "create_time_series(timestamp, P) series(P)": guarded(
            "count(*){filter} <> count({1}){filter}",
            "The value of a time series must not be null",
            guarded(
                "count(*){filter} <> count(DISTINCT {0}){filter}",
                "Duplicate timestamps are not allowed in a timeseries",
                "list({{'time': {0}, 'value': {1}}} ORDER BY {0}){filter}",
            ),
        ),
    }
)

# https://docs.aws.amazon.com/timestream/latest/developerguide/window-functions.html
WINDOWS = _signatures(
    {
        "row_number|rank|dense_rank() bigint": "{name}(){filter}",
        "percent_rank|cume_dist() double": "{name}(){filter}",
        "ntile(bigint) bigint": "ntile({0}){filter}",
        "first_value|last_value(E) E": "{name}({0}{nulls}){filter}",
        "nth_value(E, bigint) E": "nth_value({0}, {1}{nulls}){filter}",
        "lag|lead(E) E": "{name}({0}{nulls}){filter}",
        "lag|lead(E, bigint) E": "{name}({0}, {1}{nulls}){filter}",
        "lag|lead(E, bigint, E) E": "{name}({0}, {1}, {2}{nulls}){filter}",
    }
)
