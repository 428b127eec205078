"""The functions that Timestream's SQL may call here, each with its types and what it is in DuckDB.

What is neither in these tables nor a form of its own in `expressions` is refused by name. A template is
chosen by the arguments' types, as Trino does: an exact match first, then one that widens INTEGER to BIGINT
to DOUBLE, or DATE to TIMESTAMP.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from onemachine.presto.failures import MOMENT, failure, guarded
from onemachine.presto.kinds import Array, Kind, Series, Type


@dataclass(frozen=True, slots=True)
class Signature:
    """One overload of a function.

    Attributes:
        parameters: The types it takes.
        result: The type it gives.
        template: DuckDB's expression; `{0}` is the first argument. An aggregate's says where `{filter}`
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


_V, _I, _B, _D = Type.VARCHAR, Type.INTEGER, Type.BIGINT, Type.DOUBLE
_T, _L, _N, _A = Type.TIMESTAMP, Type.BOOLEAN, Type.DAYS, Type.DATE
# Where a text is for the last time, for the last but one, ...
_LAST_PLACE = guarded(
    "{2} <= 0 OR {1} = ''",
    "strrpos takes an instance from 1, and a text that is not empty",
    "CASE WHEN {0} IS NULL OR {1} IS NULL OR {2} IS NULL THEN NULL ELSE coalesce(list_filter("
    "range(1, length({0}) + 1), lambda $place: substr({0}, $place, length({1})) = {1})[-({2})], 0) END",
)
# DuckDB's calendar works in microseconds and rounds to them, so that 23:59:59.999999999 would be tomorrow:
# this cuts instead.
_CUT = "make_timestamp(epoch_ns({0}) // 1000)"
_ORDERED: tuple[Type, ...] = (_V, _I, _B, _D, _L, _T, _A, Type.TIME, _N, Type.MONTHS)
_WHOLE = (_I, _B)
# What Java's Character.isWhitespace takes for such, which is what Trino trims; DuckDB's trim takes blanks.
_BLANKS = " || ".join(
    f"chr({code})"
    for code in (
        *(*range(9, 14), *range(28, 33), 0x1680, *range(0x2000, 0x2007), *range(0x2008, 0x200B)),
        *(0x2028, 0x2029, 0x205F, 0x3000),
    )
)
_ASCII = "strlen({0}) = length({0}) AND strlen({1}) = length({1})"
# https://trino.io/docs/current/functions/array.html#sequence
_MAX_SEQUENCE = 10_000


def _double(template: str) -> tuple[Signature, ...]:
    return (Signature((_D,), _D, template),)


def _same(template: str, kinds: Iterable[Kind]) -> tuple[Signature, ...]:
    return tuple(Signature((kind,), kind, template) for kind in kinds)


def _pair(template: str, kinds: Iterable[Kind]) -> tuple[Signature, ...]:
    return tuple(Signature((kind, kind), kind, template) for kind in kinds)


def _text(template: str) -> tuple[Signature, ...]:
    return (Signature((_V,), _V, template),)


def _field(name: str) -> tuple[Signature, ...]:
    return (Signature((_T,), _B, f"{name}({_CUT})"),)


def _clock(divisor: int, modulo: int) -> tuple[Signature, ...]:
    """Take a field of the time of day: of a TIMESTAMP, a TIME, an interval."""
    return (
        Signature((_T,), _B, f"(epoch_ns({{0}}) // {divisor} % {modulo})"),
        Signature((Type.TIME,), _B, f"({{0}} // {divisor} % {modulo})"),
        Signature((_N,), _B, f"({{0}} // {divisor} % {modulo})"),
    )


def _array(template: str) -> tuple[Signature, ...]:
    return tuple(Signature((Array(kind),), Array(kind), template) for kind in _ORDERED)


def _arrays(template: str, result: Kind | None = None) -> tuple[Signature, ...]:
    return tuple(Signature((Array(kind), Array(kind)), result or Array(kind), template) for kind in _ORDERED)


def _element(template: str, result: Kind | None = None) -> tuple[Signature, ...]:
    """Take an array and an element of it."""
    return tuple(Signature((Array(kind), kind), result or Array(kind), template) for kind in _ORDERED)


_DAY_OF_WEEK = _field("isodow")
_DAY_OF_YEAR = _field("dayofyear")
_DAY_OF_MONTH = (*_field("day"), Signature((_N,), _B, "({0} // 86400000000000)"))
_WEEK = _field("week")
_YEAR_OF_WEEK = _field("isoyear")
_CEILING = (*_same("{0}", _WHOLE), *_double("ceil({0})"))
_POWER = (Signature((_D, _D), _D, "pow({0}, {1})"),)
_RANDOM = (
    Signature((), _D, "random()"),
    *(
        Signature(
            (kind,),
            kind,
            guarded("{0} <= 0", "bound must be positive", f"CAST(floor(random() * {{0}}) AS {kind.value})"),
        )
        for kind in _WHOLE
    ),
    *(
        Signature(
            (kind, kind),
            kind,
            guarded(
                "{1} <= {0}",
                "upper bound must be greater than lower bound",
                f"CAST({{0}} + floor(random() * ({{1}} - {{0}})) AS {kind.value})",
            ),
        )
        for kind in _WHOLE
    ),
)
_DISTINCT = "list_filter({0}, lambda $one, $place: list_position({0}, $one) = $place)"
_KEPT_DISTINCT = "list_filter({kept}, lambda $one, $place: list_position({kept}, $one) = $place)"
_IN_BOTH = "list_filter({0}, lambda $item: list_position({1}, $item) IS NOT NULL)"
_IN_FIRST = "list_filter({0}, lambda $item: list_position({1}, $item) IS NULL)"
_EITHER_NULL = "{0} IS NULL OR {1} IS NULL"
_HAS_NULL = "len({0}) <> list_count({0})"
_SEQUENCE = guarded(
    "({2}) = 0 OR sign({1} - {0}) * sign({2}) < 0",
    "sequence stop value should be greater than or equal to start value if step is greater than zero "
    "otherwise stop should be less than or equal to start",
    guarded(
        f"abs({{1}} - {{0}}) // abs({{2}}) >= {_MAX_SEQUENCE}",
        f"result of sequence function must not have more than {_MAX_SEQUENCE} entries",
        "generate_series({0}, {1}, {2})",
    ),
)
_MOMENTS = guarded(
    "({2}) = 0 OR sign(epoch_ns({1}) - epoch_ns({0})) * sign({2}) < 0",
    "sequence stop value should be greater than or equal to start value if step is greater than zero "
    "otherwise stop should be less than or equal to start",
    guarded(
        f"abs(epoch_ns({{1}}) - epoch_ns({{0}})) // abs({{2}}) >= {_MAX_SEQUENCE}",
        f"result of sequence function must not have more than {_MAX_SEQUENCE} entries",
        "list_transform(generate_series(epoch_ns({0}), epoch_ns({1}), {2}), "
        "lambda $n: make_timestamp_ns($n))",
    ),
)
_TIMES = "list_transform({0}, lambda $point: $point.time)"


def _interpolated(found: str, missing: str, element: Kind, fill: tuple[Kind, ...] = ()) -> list[Signature]:
    """Make an interpolation's two forms of what it gives at a point of the series and elsewhere.

    `{at}` is the moment, and `{before}` how many points of the series are not after it.
    """
    before = "len(list_filter({0}, lambda $point: $point.time <= {at}))"
    at = f"CASE WHEN ({{0}})[{before}].time = {{at}} THEN {found} ELSE {missing} END"
    at = at.replace("{before}", before)
    single = at.replace("{at}", "{1}")
    several = f"list_transform({{1}}, lambda $at: {{{{'time': $at, 'value': {at.replace('{at}', '$at')}}}}})"
    series = Series(element)
    return [
        Signature((series, _T, *fill), element, single),
        Signature((series, Array(_T), *fill), series, several),
    ]


_OUTSIDE = failure("'Interpolation outside of the time series is not supported here'")
_LINEAR = _interpolated(
    "({0})[{before}].value",
    f"CASE WHEN {{before}} = 0 OR {{before}} = len({{0}}) THEN {_OUTSIDE} ELSE "
    "({0})[{before}].value + (({0})[{before} + 1].value - ({0})[{before}].value) * "
    "CAST(epoch_ns({at}) - epoch_ns(({0})[{before}].time) AS DOUBLE) / "
    "CAST(epoch_ns(({0})[{before} + 1].time) - epoch_ns(({0})[{before}].time) AS DOUBLE) END",
    _D,
)
_CARRIED = tuple(
    signature
    for kind in (_I, _B, _D, _V, _L)
    for signature in _interpolated(
        "({0})[{before}].value",
        f"CASE WHEN {{before}} = 0 THEN {_OUTSIDE} ELSE ({{0}})[{{before}}].value END",
        kind,
    )
)
_FILLED = _interpolated("({0})[{before}].value", "{2}", _D, (_D,))
_AREA = (
    "coalesce(list_sum(list_transform(range(1, len({0})), lambda $n: "
    "(({0})[$n].value + ({0})[$n + 1].value) / 2e0 * "
    "CAST(epoch_ns(({0})[$n + 1].time) - epoch_ns(({0})[$n].time) AS DOUBLE))), 0e0)"
)
_DEVIATIONS = "list_sum(list_transform(range(1, len({0}) + 1), lambda $n: {product}))"
_X = "(({0})[$n].value - list_avg(list_transform({0}, lambda $x: $x.value)))"
_Y = "(({1})[$n].value - list_avg(list_transform({1}, lambda $y: $y.value)))"
_PEARSON = guarded(
    f"{_TIMES} <> {_TIMES.replace('{0}', '{1}')}",
    "The timeseries must have the same timestamps",
    " / ".join(
        (
            _DEVIATIONS.replace("{product}", f"{_X} * {_Y}"),
            (
                f"sqrt({_DEVIATIONS.replace('{product}', f'{_X} * {_X}')} * "
                f"{_DEVIATIONS.replace('{product}', f'{_Y} * {_Y}')})"
            ),
        )
    ),
)

SCALARS: dict[str, tuple[Signature, ...]] = {
    # https://docs.aws.amazon.com/timestream/latest/developerguide/mathematical-functions.html
    "abs": _same("abs({0})", (_I, _B, _D)),
    # DuckDB is one digit off at the cubes, Java is not.
    "cbrt": _double("CASE WHEN pow(round(cbrt({0})), 3) = {0} THEN round(cbrt({0})) ELSE cbrt({0}) END"),
    "ceil": _CEILING,
    "ceiling": _CEILING,
    "degrees": _double("degrees({0})"),
    "e": (Signature((), _D, "exp(1e0)"),),
    "exp": _double("exp({0})"),
    "floor": (*_same("{0}", _WHOLE), *_double("floor({0})")),
    "ln": _double("ln({0})"),
    "log2": _double("log2({0})"),
    "log10": _double("log10({0})"),
    "mod": _pair("({0} % {1})", (_I, _B, _D)),
    "pi": (Signature((), _D, "pi()"),),
    "pow": _POWER,
    "power": _POWER,
    "radians": _double("radians({0})"),
    "rand": _RANDOM,
    "random": _RANDOM,
    "round": (
        *_same("{0}", _WHOLE),
        *_double("round({0})"),
        *(
            Signature(
                (kind, _I),
                kind,
                guarded("{1} < 0", "Rounding a whole number to tens or more is not supported here", "{0}"),
            )
            for kind in _WHOLE
        ),
        Signature((_D, _I), _D, "round({0}, {1})"),
    ),
    "sign": (
        *(Signature((kind,), kind, f"CAST(sign({{0}}) AS {kind.value})") for kind in _WHOLE),
        *_double("CASE WHEN isnan({0}) THEN {0} ELSE CAST(sign({0}) AS DOUBLE) END"),
    ),
    "sqrt": _double("sqrt({0})"),
    "to_base": (
        Signature(
            (_B, _B),
            _V,
            guarded(
                "{1} < 2 OR {1} > 36",
                "Radix must be between 2 and 36",
                "CASE WHEN {0} < 0 THEN '-' ELSE '' END || lower(to_base(abs({0}), CAST({1} AS INTEGER)))",
            ),
        ),
    ),
    "truncate": _double("trunc({0})"),
    "acos": _double("acos({0})"),
    "asin": _double("asin({0})"),
    "atan": _double("atan({0})"),
    "atan2": (Signature((_D, _D), _D, "atan2({0}, {1})"),),
    "cos": _double("cos({0})"),
    "cosh": _double("cosh({0})"),
    "sin": _double("sin({0})"),
    "tan": _double("tan({0})"),
    "tanh": _double("tanh({0})"),
    "infinity": (Signature((), _D, "CAST('Infinity' AS DOUBLE)"),),
    "is_finite": (Signature((_D,), _L, "isfinite({0})"),),
    "is_infinite": (Signature((_D,), _L, "isinf({0})"),),
    "is_nan": (Signature((_D,), _L, "isnan({0})"),),
    "nan": (Signature((), _D, "CAST('NaN' AS DOUBLE)"),),
    # https://docs.aws.amazon.com/timestream/latest/developerguide/bitwise-functions.html
    "bit_count": (
        Signature(
            (_B, _B),
            _B,
            guarded(
                "{1} < 2 OR {1} > 64 OR ({1} < 64 AND ({0} >= CAST(1 AS BIGINT) << (({1} - 1) % 63) "
                "OR {0} < -(CAST(1 AS BIGINT) << (({1} - 1) % 63))))",
                "Number must be representable with the bits specified",
                "CAST(bit_count(CASE WHEN {1} = 64 THEN {0} "
                "ELSE {0} & ((CAST(1 AS BIGINT) << ({1} % 64)) - 1) END) AS BIGINT)",
            ),
        ),
    ),
    "bitwise_and": (Signature((_B, _B), _B, "({0} & {1})"),),
    "bitwise_not": (Signature((_B,), _B, "(~{0})"),),
    "bitwise_or": (Signature((_B, _B), _B, "({0} | {1})"),),
    "bitwise_xor": (Signature((_B, _B), _B, "xor({0}, {1})"),),
    # https://docs.aws.amazon.com/timestream/latest/developerguide/string-functions.html
    "chr": (Signature((_B,), _V, "chr(CAST({0} AS INTEGER))"),),
    "codepoint": (
        Signature(
            (_V,),
            _I,
            guarded("length({0}) <> 1", "codepoint takes a text of one character", "unicode({0})"),
        ),
    ),
    "hamming_distance": (
        Signature(
            (_V, _V),
            _B,
            guarded(
                f"NOT ({_ASCII})",
                "hamming_distance is supported here for ASCII only",
                guarded(
                    "length({0}) <> length({1})",
                    "The input strings to hamming_distance function must have the same length",
                    "CASE WHEN {0} = '' THEN 0 ELSE CAST(hamming({0}, {1}) AS BIGINT) END",
                ),
            ),
        ),
    ),
    "length": (Signature((_V,), _B, "length({0})"),),
    "levenshtein_distance": (
        Signature(
            (_V, _V),
            _B,
            guarded(
                f"NOT ({_ASCII})",
                "levenshtein_distance is supported here for ASCII only",
                "levenshtein({0}, {1})",
            ),
        ),
    ),
    "lower": _text("lower({0})"),
    # In Java this letter is its own capital; DuckDB has another for it.
    "upper": _text(
        "CASE WHEN contains({0}, 'ß') THEN array_to_string("
        "list_transform(string_split({0}, 'ß'), lambda $part: upper($part)), 'ß') ELSE upper({0}) END"
    ),
    **{
        name: (
            Signature(
                (_V, _B, _V),
                _V,
                guarded(
                    "{1} < 0 OR {2} = ''",
                    "Target length must not be negative, and the padding not be empty",
                    name + "({0}, CAST({1} AS INTEGER), {2})",
                ),
            ),
        )
        for name in ("lpad", "rpad")
    },
    **{name: _text(name + f"({{0}}, {_BLANKS})") for name in ("trim", "ltrim", "rtrim")},
    "replace": (
        Signature(
            (_V, _V),
            _V,
            guarded("{1} = ''", "replace of an empty text is not supported here", "replace({0}, {1}, '')"),
        ),
        Signature(
            (_V, _V, _V),
            _V,
            guarded("{1} = ''", "replace of an empty text is not supported here", "replace({0}, {1}, {2})"),
        ),
    ),
    # By code points; DuckDB's own reverse keeps what looks like one character together.
    "reverse": (
        *_text("array_to_string(list_reverse(regexp_extract_all({0}, '(?s).')), '')"),
        *_array("list_reverse({0})"),
    ),
    "split": (
        Signature(
            (_V, _V),
            Array(_V),
            guarded("{1} = ''", "The delimiter may not be the empty string", "string_split({0}, {1})"),
        ),
        Signature(
            (_V, _V, _B),
            Array(_V),
            guarded(
                "{1} = '' OR {2} <= 0",
                "The delimiter may not be the empty string, and the limit must be positive",
                "CASE WHEN len(string_split({0}, {1})) <= {2} THEN string_split({0}, {1}) ELSE "
                "list_append(list_slice(string_split({0}, {1}), 1, {2} - 1), "
                "array_to_string(list_slice(string_split({0}, {1}), {2}, len(string_split({0}, {1}))), {1})) "
                "END",
            ),
        ),
    ),
    "split_part": (
        Signature(
            (_V, _V, _B),
            _V,
            guarded(
                "{1} = '' OR {2} <= 0",
                "The delimiter may not be the empty string, and the index must be positive",
                "string_split({0}, {1})[{2}]",
            ),
        ),
    ),
    "starts_with": (Signature((_V, _V), _L, "starts_with({0}, {1})"),),
    "strrpos": (
        Signature((_V, _V), _B, _LAST_PLACE.replace("{2}", "1")),
        Signature((_V, _V, _B), _B, _LAST_PLACE),
    ),
    "strpos": (
        Signature((_V, _V), _B, "strpos({0}, {1})"),
        Signature(
            (_V, _V, _B),
            _B,
            guarded(
                "{2} = 0 OR {1} = ''",
                "strpos takes an instance other than 0, and a text that is not empty",
                "CASE WHEN {0} IS NULL OR {1} IS NULL OR {2} IS NULL THEN NULL ELSE coalesce(list_filter("
                "range(1, length({0}) + 1), "
                "lambda $place: substr({0}, $place, length({1})) = {1})[{2}], 0) END",
            ),
        ),
    ),
    # From position 0, and from before the first character, Trino takes nothing and DuckDB something.
    "substr": (
        Signature((_V, _B), _V, "CASE WHEN {1} = 0 OR {1} < -length({0}) THEN '' ELSE substr({0}, {1}) END"),
        Signature(
            (_V, _B, _B),
            _V,
            "CASE WHEN {1} = 0 OR {1} < -length({0}) OR {2} <= 0 THEN '' ELSE substr({0}, {1}, {2}) END",
        ),
    ),
    # https://docs.aws.amazon.com/timestream/latest/developerguide/regex-functions.html
    "regexp_like": (Signature((_V, _V), _L, "regexp_matches({0}, {1})"),),
    "regexp_extract_all": (Signature((_V, _V), Array(_V), "regexp_extract_all({0}, {1})"),),
    "regexp_extract": (
        Signature(
            (_V, _V), _V, "CASE WHEN regexp_matches({0}, {1}) THEN regexp_extract({0}, {1}) ELSE NULL END"
        ),
    ),
    "regexp_split": (Signature((_V, _V), Array(_V), "string_split_regex({0}, {1})"),),
    # https://docs.aws.amazon.com/timestream/latest/developerguide/array-functions.html
    "array_distinct": _array(_DISTINCT),
    "array_intersect": _arrays(
        f"CASE WHEN {_EITHER_NULL} THEN NULL ELSE {_KEPT_DISTINCT.replace('{kept}', _IN_BOTH)} END"
    ),
    "array_except": _arrays(
        f"CASE WHEN {_EITHER_NULL} THEN NULL ELSE {_KEPT_DISTINCT.replace('{kept}', _IN_FIRST)} END"
    ),
    "array_union": _arrays(
        f"CASE WHEN {_EITHER_NULL} THEN NULL "
        f"ELSE {_KEPT_DISTINCT.replace('{kept}', 'list_concat({0}, {1})')} END"
    ),
    "array_max": tuple(
        Signature((Array(kind),), kind, f"CASE WHEN {_HAS_NULL} THEN NULL ELSE list_max({{0}}) END")
        for kind in _ORDERED
    ),
    "array_min": tuple(
        Signature((Array(kind),), kind, f"CASE WHEN {_HAS_NULL} THEN NULL ELSE list_min({{0}}) END")
        for kind in _ORDERED
    ),
    "array_position": _element(
        f"CASE WHEN {_EITHER_NULL} THEN NULL "
        "ELSE coalesce(CAST(list_position({0}, {1}) AS BIGINT), 0) END",
        _B,
    ),
    "array_remove": _element(
        f"CASE WHEN {_EITHER_NULL} THEN NULL "
        "ELSE list_filter({0}, lambda $item: $item IS DISTINCT FROM {1}) END"
    ),
    "array_sort": _array("list_sort({0}, 'ASC', 'NULLS LAST')"),
    "arrays_overlap": _arrays(
        "CASE WHEN list_has_any({0}, {1}) THEN true "
        f"WHEN {_HAS_NULL} OR {_HAS_NULL.replace('{0}', '{1}')} THEN NULL "
        f"WHEN {_EITHER_NULL} THEN NULL ELSE false END",
        _L,
    ),
    "cardinality": tuple(
        Signature((outer,), _B, "len({0})")
        for kind in _ORDERED
        for outer in (Array(kind), Series(kind), Array(Array(kind)))
    ),
    "contains": _element(
        f"CASE WHEN {_EITHER_NULL} THEN NULL WHEN list_contains({{0}}, {{1}}) THEN true "
        f"WHEN {_HAS_NULL} THEN NULL ELSE false END",
        _L,
    ),
    "element_at": tuple(
        Signature(
            (Array(kind), _B),
            kind,
            guarded("{1} = 0", "SQL array indices start at 1", "({0})[{1}]"),
        )
        for kind in _ORDERED
    ),
    "repeat": tuple(
        Signature(
            (kind, _B),
            Array(kind),
            guarded(
                f"{{1}} > {_MAX_SEQUENCE}",
                f"count argument of repeat function must be less than or equal to {_MAX_SEQUENCE}",
                "list_transform(range({1}), lambda $n: {0})",
            ),
        )
        for kind in _ORDERED
    ),
    "sequence": (
        Signature(
            (_B, _B),
            Array(_B),
            _SEQUENCE.replace("{2}", "CASE WHEN {0} <= {1} THEN 1 ELSE -1 END"),
        ),
        Signature((_B, _B, _B), Array(_B), _SEQUENCE),
        Signature((_T, _T, _N), Array(_T), _MOMENTS),
    ),
    "slice": tuple(
        Signature(
            (Array(kind), _B, _B),
            Array(kind),
            guarded(
                "{1} = 0 OR {2} < 0",
                "SQL array indices start at 1, and a length must not be negative",
                "CASE WHEN abs({1}) > len({0}) THEN list_slice({0}, 1, 0) ELSE list_slice({0}, "
                "CASE WHEN {1} > 0 THEN {1} ELSE len({0}) + {1} + 1 END, "
                "CASE WHEN {1} > 0 THEN {1} ELSE len({0}) + {1} + 1 END + {2} - 1) END",
            ),
        )
        for kind in _ORDERED
    ),
    # https://docs.aws.amazon.com/timestream/latest/developerguide/date-time-functions.html
    "bin": (Signature((_T, _N), _T, "make_timestamp_ns(epoch_ns({0}) - epoch_ns({0}) % {1})"),),
    "current_timezone": (Signature((), _V, "'UTC'"),),
    "date": (Signature((_A,), _A, "{0}"), Signature((_T,), _A, f"CAST({_CUT} AS DATE)")),
    "from_milliseconds": (Signature((_B,), _T, f"{MOMENT}({{0}} * 1000000)"),),
    "from_nanoseconds": (Signature((_B,), _T, f"{MOMENT}({{0}})"),),
    "from_unixtime": (
        Signature((_D,), _T, f"{MOMENT}(CAST(floor({{0}} * 1000 + 0.5e0) AS BIGINT) * 1000000)"),
    ),
    "human_readable_seconds": (
        Signature(
            (_D,),
            _V,
            guarded(
                "NOT isfinite({0})",
                "Invalid argument: a number of seconds is finite",
                "CASE WHEN {0} < 0 THEN '-' ELSE '' END || coalesce(nullif(array_to_string(list_filter(["
                + ", ".join(
                    f"CASE WHEN {number} = 0 THEN NULL ELSE CAST({number} AS VARCHAR) || ' {unit}' || "
                    f"CASE WHEN {number} = 1 THEN '' ELSE 's' END END"
                    for unit, number in (
                        ("week", "CAST(floor(abs({0}) + 0.5e0) AS BIGINT) // 604800"),
                        ("day", "CAST(floor(abs({0}) + 0.5e0) AS BIGINT) // 86400 % 7"),
                        ("hour", "CAST(floor(abs({0}) + 0.5e0) AS BIGINT) // 3600 % 24"),
                        ("minute", "CAST(floor(abs({0}) + 0.5e0) AS BIGINT) // 60 % 60"),
                        ("second", "CAST(floor(abs({0}) + 0.5e0) AS BIGINT) % 60"),
                    )
                )
                + "], lambda $part: $part IS NOT NULL), ', '), ''), '0 seconds')",
            ),
        ),
    ),
    "last_day_of_month": (
        Signature((_A,), _A, "last_day({0})"),
        Signature((_T,), _A, f"last_day({_CUT})"),
    ),
    "to_iso8601": (Signature((_A,), _V, "CAST({0} AS VARCHAR)"),),
    "to_milliseconds": (
        Signature((_T,), _B, "(epoch_ns({0}) // 1000000)"),
        Signature((_N,), _B, "({0} // 1000000)"),
    ),
    "to_nanoseconds": (Signature((_T,), _B, "epoch_ns({0})"), Signature((_N,), _B, "{0}")),
    "to_unixtime": (Signature((_T,), _D, "(epoch_ns({0}) / CAST(1e9 AS DOUBLE))"),),
    "year": (*_field("year"), Signature((Type.MONTHS,), _B, "({0} // 12)")),
    "quarter": _field("quarter"),
    "month": (*_field("month"), Signature((Type.MONTHS,), _B, "({0} % 12)")),
    "week": _WEEK,
    "week_of_year": _WEEK,
    "year_of_week": _YEAR_OF_WEEK,
    "yow": _YEAR_OF_WEEK,
    "day": _DAY_OF_MONTH,
    "day_of_month": _DAY_OF_MONTH,
    "day_of_week": _DAY_OF_WEEK,
    "dow": _DAY_OF_WEEK,
    "day_of_year": _DAY_OF_YEAR,
    "doy": _DAY_OF_YEAR,
    "hour": _clock(3_600_000_000_000, 24),
    "minute": _clock(60_000_000_000, 60),
    "second": _clock(1_000_000_000, 60),
    "millisecond": _clock(1_000_000, 1000),
    "nanosecond": (Signature((_T,), _B, "(epoch_ns({0}) % 1000000000)"),),
    # https://docs.aws.amazon.com/timestream/latest/developerguide/timeseries-specific-constructs.functions.html
    "interpolate_linear": tuple(_LINEAR),
    "interpolate_locf": _CARRIED,
    "interpolate_fill": tuple(_FILLED),
    "integral_trapezoidal": (
        Signature((Series(_D),), _D, f"({_AREA} / 1e9)"),
        Signature((Series(_D), _N), _D, f"({_AREA} / CAST({{1}} AS DOUBLE))"),
    ),
    "correlate_pearson": (Signature((Series(_D), Series(_D)), _D, _PEARSON),),
    # https://trino.io/docs/current/functions/json.html; AWS's reference has no page on them.
    "json_array_length": (
        Signature(
            (_V,),
            _B,
            "CASE WHEN NOT json_valid({0}) THEN NULL WHEN json_type({0}) <> 'ARRAY' THEN NULL "
            "ELSE CAST(json_array_length({0}) AS BIGINT) END",
        ),
    ),
}

# https://docs.aws.amazon.com/timestream/latest/developerguide/aggregate-functions.html
AGGREGATES: dict[str, tuple[Signature, ...]] = {
    "avg": _double("avg({distinct}{0}){filter}"),
    # DuckDB sums into 128 bits; Trino's sum of BIGINT is a BIGINT, or an error.
    "sum": (
        Signature((_B,), _B, "CAST(sum({distinct}{0}){filter} AS BIGINT)"),
        *_double("sum({distinct}{0}){filter}"),
        *(
            Signature((kind,), kind, "CAST(sum({distinct}{0}){filter} AS BIGINT)")
            for kind in (_N, Type.MONTHS)
        ),
    ),
    **{
        name: (
            *_same(name + "({distinct}{0}){filter}", _ORDERED),
            *(Signature((kind, _B), Array(kind), name + "({0}, {1}){filter}") for kind in _ORDERED),
        )
        for name in ("min", "max")
    },
    "arbitrary": _same("any_value({0}){filter}", _ORDERED),
    "array_agg": tuple(
        Signature((kind,), Array(kind), "list({distinct}{0}{order}){filter}") for kind in _ORDERED
    ),
    **{
        name: (
            *(
                Signature((a, b), a, f"{duckdb}_null({{0}}, {{1}}){{filter}}")
                for a in _ORDERED
                for b in _ORDERED
            ),
            # In a struct, as rows of which the value is null count too.
            *(
                Signature(
                    (a, b, _B),
                    Array(a),
                    f"list_transform({duckdb}({{{{'v': {{0}}}}}}, {{1}}, {{2}}){{filter}}, "
                    "lambda $one: $one.v)",
                )
                for a in _ORDERED
                for b in _ORDERED
            ),
        )
        for name, duckdb in (("min_by", "arg_min"), ("max_by", "arg_max"))
    },
    "count_if": (Signature((_L,), _B, "CAST(count_if({0}){filter} AS BIGINT)"),),
    "bool_and": (Signature((_L,), _L, "bool_and({0}){filter}"),),
    "every": (Signature((_L,), _L, "bool_and({0}){filter}"),),
    "bool_or": (Signature((_L,), _L, "bool_or({0}){filter}"),),
    "bitwise_and_agg": (Signature((_B,), _B, "bit_and({0}){filter}"),),
    "bitwise_or_agg": (Signature((_B,), _B, "bit_or({0}){filter}"),),
    "geometric_mean": _double("exp(avg(ln({0})){filter})"),
    "stddev": _double("stddev_samp({0}){filter}"),
    "stddev_samp": _double("stddev_samp({0}){filter}"),
    "stddev_pop": _double("stddev_pop({0}){filter}"),
    "variance": _double("var_samp({0}){filter}"),
    "var_samp": _double("var_samp({0}){filter}"),
    "var_pop": _double("var_pop({0}){filter}"),
    **{
        name: (Signature((_D, _D), _D, name + "({0}, {1}){filter}"),)
        for name in ("corr", "covar_pop", "covar_samp", "regr_intercept", "regr_slope")
    },
    # DuckDB's is the estimate for a population that was sampled, Trino's that of the values themselves.
    "skewness": _double(
        "(skewness({0}){filter} * (count({0}){filter} - 2) / "
        "sqrt(CAST(count({0}){filter} AS DOUBLE) * (count({0}){filter} - 1)))"
    ),
    "kurtosis": _double("kurtosis({0}){filter}"),
    # Both are approximations at AWS. Here they are exact, so that no result depends on the rows' order.
    "approx_distinct": tuple(
        signature
        for kind in _ORDERED
        for signature in (
            Signature((kind,), _B, "count(DISTINCT {0}){filter}"),
            Signature((kind, _D), _B, "count(DISTINCT {0}){filter}"),
        )
    ),
    "approx_percentile": tuple(
        signature
        for kind in (_B, _D)
        for signature in (
            Signature((kind, _D), kind, "quantile_disc({0}, {1}){filter}"),
            Signature((kind, Array(_D)), Array(kind), "quantile_disc({0}, {1}){filter}"),
        )
    ),
    # A value that is null is an error, and so are two values of one time.
    # https://docs.aws.amazon.com/timestream/latest/developerguide/timeseries-specific-constructs.views.html
    "create_time_series": tuple(
        Signature(
            (_T, kind),
            Series(kind),
            guarded(
                "count(*){filter} <> count({1}){filter}",
                "The value of a time series must not be null",
                guarded(
                    "count(*){filter} <> count(DISTINCT {0}){filter}",
                    "Duplicate timestamps are not allowed in a timeseries",
                    "list({{'time': {0}, 'value': {1}}} ORDER BY {0}){filter}",
                ),
            ),
        )
        for kind in (_V, _I, _B, _D, _L)
    ),
}

# https://docs.aws.amazon.com/timestream/latest/developerguide/window-functions.html
WINDOWS: dict[str, tuple[Signature, ...]] = {
    **{name: (Signature((), _B, name + "(){filter}"),) for name in ("row_number", "rank", "dense_rank")},
    **{name: (Signature((), _D, name + "(){filter}"),) for name in ("percent_rank", "cume_dist")},
    "ntile": (Signature((_B,), _B, "ntile({0}){filter}"),),
    **{name: _same(name + "({0}{nulls}){filter}", _ORDERED) for name in ("first_value", "last_value")},
    "nth_value": tuple(
        Signature((kind, _B), kind, "nth_value({0}, {1}{nulls}){filter}") for kind in _ORDERED
    ),
    **{
        name: tuple(
            signature
            for kind in _ORDERED
            for signature in (
                Signature((kind,), kind, name + "({0}{nulls}){filter}"),
                Signature((kind, _B), kind, name + "({0}, {1}{nulls}){filter}"),
                Signature((kind, _B, kind), kind, name + "({0}, {1}, {2}{nulls}){filter}"),
            )
        )
        for name in ("lag", "lead")
    },
}
