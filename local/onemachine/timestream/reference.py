"""What of Timestream's SQL is answered here and what is refused: python -m onemachine.timestream.reference.

The names are those of AWS's reference, by page; the tables that answer them decide whether one is answered.
"""
# ruff: noqa: S608 the queries are constants

from collections.abc import Iterator
from typing import NamedTuple

from onemachine.presto.reference import function_table, note_list, page_list

GUIDE = "https://docs.aws.amazon.com/timestream/latest/developerguide"
TRINO = "https://trino.io/docs/current"

PAGES: dict[str, str] = {
    "comparison-functions": "greatest least all any some",
    "conditional-expressions": "case coalesce if nullif try",
    "conversion-functions": "cast try_cast",
    "mathematical-functions": (
        "abs cbrt ceiling ceil degrees e exp floor from_base ln log2 log10 mod pi pow power radians rand "
        "random round sign sqrt to_base truncate acos asin atan atan2 cos cosh sin tan tanh infinity "
        "is_finite is_infinite is_nan nan"
    ),
    "string-functions": (
        "chr codepoint concat hamming_distance length levenshtein_distance lower lpad ltrim replace reverse "
        "rpad rtrim split split_part strpos position substr trim upper"
    ),
    "array-functions": (
        "array_distinct array_intersect array_union array_except array_join array_max array_min "
        "array_position array_remove array_sort arrays_overlap cardinality concat element_at repeat reverse "
        "sequence shuffle slice zip"
    ),
    "bitwise-functions": "bit_count bitwise_and bitwise_not bitwise_or bitwise_xor",
    "regex-functions": "regexp_extract_all regexp_extract regexp_like regexp_replace regexp_split",
    "date-time-functions": (
        "current_date current_time current_timestamp now current_timezone date last_day_of_month "
        "from_iso8601_timestamp from_iso8601_date to_iso8601 from_milliseconds from_nanoseconds "
        "from_unixtime localtime localtimestamp to_milliseconds to_nanoseconds to_unixtime date_trunc "
        "date_add date_diff parse_duration bin ago human_readable_seconds date_format date_parse "
        "format_datetime parse_datetime extract day day_of_month day_of_week day_of_year dow doy hour "
        "minute month quarter second week week_of_year year year_of_week yow"
    ),
    "aggregate-functions": (
        "arbitrary array_agg avg bool_and bool_or count count_if every geometric_mean max_by min_by max min "
        "sum bitwise_and_agg bitwise_or_agg approx_distinct approx_percentile corr covar_pop covar_samp "
        "kurtosis regr_intercept regr_slope skewness stddev_pop stddev stddev_samp var_pop variance var_samp"
    ),
    "window-functions": (
        "cume_dist dense_rank ntile percent_rank rank row_number first_value last_value nth_value lead lag"
    ),
    "timeseries-specific-constructs.views": "create_time_series unnest",
    "timeseries-specific-constructs.functions": (
        "interpolate_linear interpolate_spline_cubic interpolate_locf interpolate_fill derivative_linear "
        "non_negative_derivative_linear integral_trapezoidal correlate_pearson correlate_spearman filter "
        "transform reduce"
    ),
}
# What AWS's reference does not have and Trino does. The rest of Trino's is refused by name too.
BESIDE = (
    "contains date_bin format histogram json_array_contains json_array_length json_extract "
    "json_extract_scalar json_format json_parse map_agg millisecond nanosecond starts_with typeof checksum"
)

NOTES = {
    "approx_percentile": "exact; the percentile must be a literal number or an array of them; no weights",
    "approx_distinct": "exact",
    "create_time_series": "a null value, or two values of one time, is an error",
    "date_format": "the format must be a literal, without %D %U %u %V %w %X",
    "date_parse": "the format must be a literal, of %Y %m %d %H %i %s %S %T",
    "format_datetime": "the pattern must be a literal",
    "parse_datetime": "the pattern must be a literal, of yyyy MM dd HH mm ss",
    "from_iso8601_timestamp": "only of a literal",
    "from_iso8601_date": "only of a literal",
    "to_iso8601": "only of a DATE: no source documents how many digits a TIMESTAMP has",
    "parse_duration": "only of a literal with one unit",
    "hamming_distance": "only of ASCII",
    "levenshtein_distance": "only of ASCII",
    "interpolate_linear": "refused outside of the series",
    "interpolate_locf": "refused before the series",
    "filter": "also of arrays",
    "transform": "also of arrays; of a time series, it gets the values",
    "regexp_extract": "RE2's expressions; refused if a group may be absent from a match",
    "regexp_extract_all": "RE2's expressions; refused if a group may be absent from a match",
    "regexp_like": "RE2's expressions: no look-around or back references",
    "regexp_replace": "RE2's expressions; the replacement must be a literal, not a lambda",
    "regexp_split": "RE2's expressions",
    "replace": "refused for an empty text",
    "round": "refused for a whole number to tens or more",
    "try": "refused if a cast or check in it may fail and a function in it, such as coalesce, takes null",
    "derivative_linear": "refused: no source documents the first point",
    "non_negative_derivative_linear": "refused: no source documents the first point",
    "interpolate_spline_cubic": "refused: no source documents the spline's ends",
    "json_extract_scalar": "the path must be a literal; a number has as few digits as it needs",
}


class Construct(NamedTuple):
    """A part of the language that is not a function.

    Args:
        name: What it is.
        example: A query with it.
        answered: Whether it is answered.
    """

    name: str
    example: str
    answered: bool = True


_VALUES = "(VALUES (1, 'a'), (2, 'b'))"
CONSTRUCTS = (
    Construct("WITH", "WITH t AS (SELECT 1 AS n) SELECT n FROM t"),
    Construct("WITH RECURSIVE", "WITH RECURSIVE t AS (SELECT 1) SELECT * FROM t", answered=False),
    Construct("SELECT DISTINCT", f"SELECT DISTINCT n FROM {_VALUES} AS t(n, s)"),
    Construct("VALUES in FROM", f"SELECT * FROM {_VALUES} AS t(n, s)"),
    Construct("VALUES as a query", "VALUES (1)", answered=False),
    Construct("GROUP BY names and places", f"SELECT s, count(*) FROM {_VALUES} AS t(n, s) GROUP BY 1"),
    Construct(
        "GROUP BY GROUPING SETS",
        f"SELECT s FROM {_VALUES} AS t(n, s) GROUP BY GROUPING SETS (s)",
        answered=False,
    ),
    Construct("GROUP BY CUBE", f"SELECT s FROM {_VALUES} AS t(n, s) GROUP BY CUBE (s)", answered=False),
    Construct("GROUP BY ROLLUP", f"SELECT s FROM {_VALUES} AS t(n, s) GROUP BY ROLLUP (s)", answered=False),
    Construct("HAVING", f"SELECT s FROM {_VALUES} AS t(n, s) GROUP BY s HAVING count(*) > 1"),
    Construct("UNION, UNION ALL", "SELECT 1 UNION SELECT 2 UNION ALL SELECT 3"),
    Construct("INTERSECT", "SELECT 1 INTERSECT SELECT 1"),
    Construct("EXCEPT", "SELECT 1 EXCEPT SELECT 2"),
    Construct("INTERSECT ALL, EXCEPT ALL", "SELECT 1 EXCEPT ALL SELECT 2", answered=False),
    Construct(
        "ORDER BY with NULLS FIRST or LAST", f"SELECT n FROM {_VALUES} AS t(n, s) ORDER BY n NULLS FIRST"
    ),
    Construct("OFFSET, LIMIT n, LIMIT ALL", "SELECT 1 OFFSET 0 LIMIT 1"),
    Construct("FETCH FIRST n ROWS ONLY", "SELECT 1 FETCH FIRST 1 ROWS ONLY"),
    Construct(
        "FETCH FIRST n ROWS WITH TIES", "SELECT 1 ORDER BY 1 FETCH FIRST 1 ROWS WITH TIES", answered=False
    ),
    Construct("TABLESAMPLE", f"SELECT * FROM {_VALUES} AS t(n, s) TABLESAMPLE BERNOULLI (9)", answered=False),
    Construct("UNNEST, WITH ORDINALITY", "SELECT * FROM UNNEST(ARRAY[1]) WITH ORDINALITY AS t(x, n)"),
    Construct(
        "INNER, LEFT, RIGHT, FULL and CROSS JOIN",
        f"SELECT 1 FROM {_VALUES} AS t(n, s) CROSS JOIN {_VALUES} AS u(n, s)",
    ),
    Construct("JOIN USING", f"SELECT 1 FROM {_VALUES} AS t(n, s) JOIN {_VALUES} AS u(n, s) USING (n)"),
    Construct(
        "NATURAL JOIN",
        f"SELECT 1 FROM {_VALUES} AS t(n, s) NATURAL JOIN {_VALUES} AS u(n, s)",
        answered=False,
    ),
    Construct("LATERAL", f"SELECT 1 FROM {_VALUES} AS t(n, s), LATERAL (SELECT n)", answered=False),
    Construct(
        "EXISTS, IN, scalar subquery, correlated or not",
        "SELECT EXISTS (SELECT 1), 1 IN (SELECT 1), (SELECT 1)",
    ),
    Construct("= ANY, ALL, SOME", "SELECT 1 = ANY (SELECT 1)"),
    Construct(
        "OVER, WINDOW, frames of ROWS",
        f"SELECT sum(n) OVER w FROM {_VALUES} AS t(n, s) WINDOW w AS (ORDER BY n ROWS 1 PRECEDING)",
    ),
    Construct(
        "frames of RANGE to UNBOUNDED and CURRENT ROW",
        f"SELECT sum(n) OVER (ORDER BY n RANGE UNBOUNDED PRECEDING) FROM {_VALUES} AS t(n, s)",
    ),
    Construct(
        "frames of RANGE with an offset, of GROUPS",
        f"SELECT sum(n) OVER (ORDER BY n RANGE 1 PRECEDING) FROM {_VALUES} AS t(n, s)",
        answered=False,
    ),
    Construct("IGNORE NULLS", f"SELECT lag(n) IGNORE NULLS OVER (ORDER BY n) FROM {_VALUES} AS t(n, s)"),
    Construct("FILTER (WHERE ...)", f"SELECT sum(n) FILTER (WHERE n > 1) FROM {_VALUES} AS t(n, s)"),
    Construct("array_agg(x ORDER BY y)", f"SELECT array_agg(n ORDER BY s) FROM {_VALUES} AS t(n, s)"),
    Construct("ARRAY[...], x[n], ||", "SELECT (ARRAY[1] || ARRAY[2])[1]"),
    Construct("ROW(...)", "SELECT ROW(1, 'a')", answered=False),
    Construct("durations: 1d, 15m, 1d12h, 2week, 12month", "SELECT 1d12h"),
    Construct("interval '1' day to year", "SELECT interval '1' year"),
    Construct("AT TIME ZONE", "SELECT now() AT TIME ZONE 'UTC'", answered=False),
    Construct("LIKE, ESCAPE", "SELECT 'a' LIKE 'b' ESCAPE '#'"),
    Construct("IS DISTINCT FROM", "SELECT 1 IS DISTINCT FROM 2"),
    Construct("SHOW DATABASES, SHOW TABLES, FROM, LIKE", "SHOW DATABASES LIKE 'a%'"),
    Construct("SHOW MEASURES FROM, LIKE", 'SHOW MEASURES FROM "app"."usage" LIKE \'a%\''),
    Construct("DESCRIBE", 'DESCRIBE "app"."usage"'),
    Construct("UNLOAD", "UNLOAD (SELECT 1 AS n) TO 's3://bucket/folder'", answered=False),
    Construct("@scheduled_runtime and other parameters", "SELECT @scheduled_runtime", answered=False),
)


def _lines() -> Iterator[str]:
    yield "# Timestream's SQL on one machine"
    yield ""
    yield "Generated by `python -m onemachine.timestream.reference`; a test keeps it true. What is answered"
    yield "was compared with values that were worked out by hand or by another engine. All else is refused"
    yield "with a ValidationException that names it."
    yield "\n## Functions\n"
    yield "All functions of these pages are answered, except those named here:"
    yield ""
    yield from page_list(PAGES, GUIDE)
    yield "\nBeside AWS's reference:\n"
    yield from function_table({"functions": BESIDE}, TRINO)
    yield "\nLimits:\n"
    yield from note_list(NOTES)
    yield f"\n## [Constructs]({GUIDE}/supported-sql-constructs.html)"
    for heading, answered in (("Answered", True), ("Refused", False)):
        names = [construct.name for construct in CONSTRUCTS if construct.answered is answered]
        yield f"\n{heading}: {'; '.join(names)}."


def page() -> str:
    """Write the page.

    Returns:
        Markdown.
    """
    return "\n".join(_lines()) + "\n"


if __name__ == "__main__":
    print(page(), end="")  # noqa: T201 it is what the command is for
