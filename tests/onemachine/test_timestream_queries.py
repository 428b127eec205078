"""What the local Timestream answers to SQL, what it refuses, and how it pages."""

from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer
from moto.timestreamwrite.responses import TimestreamWriteResponse
from onemachine.presto.errors import ServiceError
from onemachine.presto.kinds import Datum, column_type
from onemachine.presto.sql import MAX_QUERY_CHARACTERS
from onemachine.timestream import Timestream, install
from onemachine.timestream.queries import MAX_PAGE_BYTES, Page
from onemachine.timestream.tables import TableSettings

# 2026-11-19 00:07:00 UTC
NOW = 1_795_046_820_000_000_000
SECOND = 1_000_000_000
Rows = tuple[tuple[Datum, ...], ...]

# route, seconds and nanoseconds before now, latency, hit_count, ok, note
REQUESTS: tuple[tuple[str, int, int, str, str, str, str | None], ...] = (
    ("/a", 400, 1, "1.0", "1", "true", None),
    ("/a", 300, 0, "2.0", "2", "true", "it's"),
    ("/b", 200, 0, "3.0", "3", "false", "500"),
    ("/b", 100, 0, "4.0", "4", "true", None),
    ("/b", 0, 0, "10.0", "7", "true", "0500"),
)


@pytest.fixture(scope="module")
def engine() -> Iterator[Timestream]:
    engine = Timestream(lambda: NOW)
    engine.create_database("app", "key")
    for table in ("usage", "empty", "single", "many"):
        engine.create_table("app", table, TableSettings())
    for route, seconds, nanoseconds, latency, hits, ok, note in REQUESTS:
        values = [("latency", latency, "DOUBLE"), ("hit_count", hits, "BIGINT"), ("ok", ok, "BOOLEAN")]
        if note is not None:
            values.append(("note", note, "VARCHAR"))
        write(engine, "usage", route, NOW - seconds * SECOND - nanoseconds, values)
    engine.write_records(
        "app",
        "single",
        [
            {
                "Dimensions": [{"Name": "host", "Value": "h"}],
                "MeasureName": "cpu",
                "MeasureValue": "0.5",
                "Time": str(NOW // 1_000_000),
            }
        ],
    )
    for n in range(2500):
        write(engine, "many", "/m", NOW - n, [("number", str(n), "BIGINT")])
    yield engine
    engine.close()


def write(engine: Timestream, table: str, route: str, time: int, values: list[tuple[str, str, str]]) -> None:
    engine.write_records(
        "app",
        table,
        [
            {
                "Dimensions": [{"Name": "route", "Value": route}],
                "MeasureName": "api_request",
                "MeasureValueType": "MULTI",
                "MeasureValues": [{"Name": n, "Value": v, "Type": t} for n, v, t in values],
                "Time": str(time),
                "TimeUnit": "NANOSECONDS",
            }
        ],
    )


USAGE = '"app"."usage"'
A1 = "2026-11-19 00:00:19.999999999"
A2 = "2026-11-19 00:02:00.000000000"
B1 = "2026-11-19 00:03:40.000000000"
B2 = "2026-11-19 00:05:20.000000000"
B3 = "2026-11-19 00:07:00.000000000"

ANSWERS: dict[str, Rows] = {
    # Rows and columns.
    f"SELECT * FROM {USAGE} WHERE hit_count = 3": (("/b", "api_request", B1, "3.0", "3", "false", "500"),),
    f"SELECT * FROM {USAGE} WHERE hit_count < 0": (),
    'SELECT * FROM "app"."empty"': (),
    'SELECT measure_value::double, host FROM "app"."single"': (("0.5", "h"),),
    f"SELECT note FROM {USAGE} ORDER BY time": ((None,), ("it's",), ("500",), (None,), ("0500",)),
    f"SELECT u.route, hit_count + 1 AS n FROM {USAGE} AS u ORDER BY n DESC LIMIT 2;": (
        ("/b", "8"),
        ("/b", "5"),
    ),
    f"SELECT DISTINCT route FROM {USAGE} ORDER BY route DESC": (("/b",), ("/a",)),
    f"SELECT hit_count FROM {USAGE} ORDER BY 1 OFFSET 1 LIMIT 2": (("2",), ("3",)),
    f"SELECT note FROM {USAGE} ORDER BY note DESC": (("it's",), ("500",), ("0500",), (None,), (None,)),
    f"SELECT note FROM {USAGE} ORDER BY note NULLS FIRST LIMIT 3": ((None,), (None,), ("0500",)),
    f"SELECT 5, hit_count FROM {USAGE} ORDER BY hit_count DESC LIMIT 1 -- the last": (("5", "7"),),
    # Aggregates.
    f"SELECT count(*), count(note), count(DISTINCT route), sum(hit_count), sum(latency) FROM {USAGE}": (
        ("5", "3", "2", "17", "20.0"),
    ),
    f"SELECT avg(hit_count), min(latency), max(time), min(note) FROM {USAGE}": (("3.4", "1.0", B3, "0500"),),
    f"SELECT count_if(ok), bool_and(ok), bool_or(ok), arbitrary(measure_name) FROM {USAGE}": (
        ("4", "false", "true", "api_request"),
    ),
    f"SELECT approx_percentile(latency, 0.5), approx_percentile(hit_count, 0.95) FROM {USAGE}": (
        ("3.0", "7"),
    ),
    f"SELECT max_by(route, latency), min_by(time, latency), approx_distinct(route) FROM {USAGE}": (
        ("/b", A1, "2"),
    ),
    f"SELECT sum(latency) FILTER (WHERE route = '/a'), sum(hit_count) FILTER (WHERE ok) FROM {USAGE}": (
        ("3.0", "14"),
    ),
    f"SELECT stddev_pop(latency), variance(latency) FROM {USAGE} WHERE route = '/a'": (("0.5", "0.5"),),
    f"SELECT count(*), sum(hit_count), max(time) FROM {USAGE} WHERE route = 'none'": (("0", None, None),),
    f"SELECT route, count(*) AS n FROM {USAGE} GROUP BY route ORDER BY n DESC, route": (
        ("/b", "3"),
        ("/a", "2"),
    ),
    f"SELECT route FROM {USAGE} GROUP BY 1 HAVING sum(latency) > 3 ORDER BY sum(latency)": (("/b",),),
    f"SELECT route, max(hit_count) - min(hit_count) AS d FROM {USAGE} GROUP BY route ORDER BY d + 1": (
        ("/a", "1"),
        ("/b", "4"),
    ),
    f"SELECT 5, count(*) FROM {USAGE} GROUP BY 1": (("5", "5"),),
    f"SELECT CASE WHEN ok THEN 'good' ELSE 'bad' END AS k, count(*) FROM {USAGE} "
    "GROUP BY CASE WHEN ok THEN 'good' ELSE 'bad' END ORDER BY k": (("bad", "1"), ("good", "4")),
    # Time.
    f"SELECT hit_count FROM {USAGE} WHERE time >= '2026-11-19 00:00:19.999999999' "
    "AND time < '2026-11-19 00:02:00.000000000'": (("1",),),
    f"SELECT hit_count FROM {USAGE} WHERE time > TIMESTAMP '2026-11-19 00:05:20'": (("7",),),
    f"SELECT hit_count FROM {USAGE} WHERE time >= from_iso8601_timestamp('2026-11-19T00:05:20Z') "
    "ORDER BY 1": (("4",), ("7",)),
    f"SELECT count(*) FROM {USAGE} WHERE time BETWEEN ago(200s) AND now()": (("3",),),
    f"SELECT count(*) FROM {USAGE} WHERE time < '2026-11-20' AND time >= '2026-11-19'": (("5",),),
    f"SELECT bin(time, 5m) AS b, count(*) FROM {USAGE} GROUP BY bin(time, 5m) ORDER BY b": (
        ("2026-11-19 00:00:00.000000000", "3"),
        ("2026-11-19 00:05:00.000000000", "2"),
    ),
    # 1970-01-01 was a Thursday, and so are the bins of seven days from it.
    "SELECT bin(now(), 7d), date_trunc('week', now())": (
        ("2026-11-19 00:00:00.000000000", "2026-11-16 00:00:00.000000000"),
    ),
    f"SELECT time + 1d, time - 15m, time + interval '2' hour FROM {USAGE} WHERE hit_count = 1": (
        (
            "2026-11-20 00:00:19.999999999",
            "2026-11-18 23:45:19.999999999",
            "2026-11-19 02:00:19.999999999",
        ),
    ),
    f"SELECT date_add('month', 1, time), time - interval '1' year FROM {USAGE} WHERE hit_count = 1": (
        ("2026-12-19 00:00:19.999999999", "2025-11-19 00:00:19.999999999"),
    ),
    f"SELECT date_trunc('minute', time), date_trunc('month', time) FROM {USAGE} WHERE hit_count = 1": (
        ("2026-11-19 00:00:00.000000000", "2026-11-01 00:00:00.000000000"),
    ),
    # The last nanosecond of a year, which DuckDB's calendar would round into the next one.
    "SELECT year(t), day(t), second(t), date_trunc('hour', t), date(t), CAST(t AS DATE), "
    "CAST(t AS VARCHAR), date_add('month', 2, t), t + 1s "
    "FROM (SELECT TIMESTAMP '2026-12-31 23:59:59.999999999' AS t)": (
        (
            *("2026", "31", "59", "2026-12-31 23:00:00.000000000", "2026-12-31", "2026-12-31"),
            "2026-12-31 23:59:59.999999999",
            "2027-02-28 23:59:59.999999999",
            "2027-01-01 00:00:00.999999999",
        ),
    ),
    "SELECT date_diff('hour', TIMESTAMP '2026-01-01 10:59:00', TIMESTAMP '2026-01-01 12:00:00')": (("1",),),
    "SELECT now() - ago(90m), 2 * 1h, ago(1d) - now(), interval '14' month": (
        ("0 01:30:00.000000000", "0 02:00:00.000000000", "-1 00:00:00.000000000", "1-2"),
    ),
    "SELECT current_date, current_timestamp, DATE '2026-02-03', date(now())": (
        ("2026-11-19", B3, "2026-02-03", "2026-11-19"),
    ),
    "SELECT year(now()), month(now()), day(now()), hour(now()), minute(now()), extract(dow FROM now())": (
        ("2026", "11", "19", "0", "7", "4"),
    ),
    "SELECT to_milliseconds(now()), to_nanoseconds(1ms), from_milliseconds(1795046820000)": (
        ("1795046820000", "1000000", B3),
    ),
    # Numbers as in Trino.
    "SELECT 7/2, -7/2, 7.0/2, 7/2.0, 7 % 3, -7 % 3": (("3", "-3", "3.5", "3.5", "1", "-1"),),
    "SELECT 1.0/0, 1e10, 3.0, 0.00001, 123456789.0, 5000000000": (
        ("Infinity", "1.0E10", "3.0", "1.0E-5", "1.23456789E8", "5000000000"),
    ),
    f"SELECT sum(hit_count) / count(*), sum(latency) / count(*) FROM {USAGE}": (("3", "4.0"),),
    "SELECT round(2.5), round(-2.5), round(1.25, 1), floor(1.5), ceil(1.5), abs(-3), power(2, 3)": (
        ("3.0", "-3.0", "1.3", "1.0", "2.0", "3", "8.0"),
    ),
    # Casts as in Trino.
    "SELECT CAST('12' AS BIGINT), TRY_CAST('1.5' AS BIGINT), CAST(2.5 AS BIGINT), CAST(3.5 AS BIGINT)": (
        ("12", None, "3", "4"),
    ),
    "SELECT CAST('1e3' AS DOUBLE), TRY_CAST('x' AS DOUBLE), CAST('TRUE' AS BOOLEAN), CAST(7 AS VARCHAR)": (
        ("1000.0", None, "true", "7"),
    ),
    f"SELECT CAST(time AS VARCHAR), CAST(time AS DATE) FROM {USAGE} WHERE hit_count = 1": (
        (A1, "2026-11-19"),
    ),
    # Text and null.
    "SELECT lower('AbC'), length('é'), substr('hello', 2, 3), substr('abc', 0), 'a' || 'b', "
    "concat('a', 'b')": (("abc", "1", "ell", "", "ab", "ab"),),
    "SELECT concat('a', NULL), 'a' || NULL, greatest(1, NULL), least(3, 2.5), NULL": (
        (None, None, None, "2.5", None),
    ),
    f"SELECT coalesce(note, route), nullif(route, '/a') FROM {USAGE} "
    "WHERE hit_count IN (1, 3) ORDER BY time": (
        ("/a", None),
        ("500", "/b"),
    ),
    f"SELECT hit_count FROM {USAGE} WHERE note IS NOT NULL AND NOT note LIKE '%500' ": (("2",),),
    f"SELECT hit_count FROM {USAGE} WHERE note NOT LIKE '%500' ": (("2",),),
    "SELECT 'a_c' NOT LIKE 'a!_c' ESCAPE '!', 'abc' NOT LIKE 'a!_c' ESCAPE '!', NULL NOT LIKE 'a'": (
        ("false", "true", None),
    ),
    "SELECT 'a_c' LIKE 'a\\_c' ESCAPE '\\', 'abc' LIKE 'a\\_c' ESCAPE '\\', regexp_like('abc', '^a.c$')": (
        ("true", "false", "true"),
    ),
    "SELECT if(1 < 2, 'yes', 'no'), CASE 3 WHEN 3 THEN 1 ELSE 2.5 END, 1 IS NULL, 2 <> 3, NULL = 1": (
        ("yes", "1.0", "false", "true", None),
    ),
    # Queries in queries.
    f"WITH top AS (SELECT route, max(latency) AS worst FROM {USAGE} GROUP BY route) "
    f"SELECT top.route, u.hit_count FROM top JOIN {USAGE} u ON u.route = top.route AND u.latency = top.worst "
    "ORDER BY 1": (("/a", "2"), ("/b", "7")),
    f"SELECT n FROM (SELECT hit_count AS n FROM {USAGE}) WHERE n > (SELECT avg(hit_count) FROM {USAGE}) "
    "ORDER BY n": (("4",), ("7",)),
    f"SELECT count(*) FROM {USAGE} WHERE route IN (SELECT route FROM {USAGE} WHERE note = '500')": (("3",),),
    f"SELECT route, (SELECT max(hit_count) FROM {USAGE}) FROM {USAGE} WHERE note = '500'": (("/b", "7"),),
    f"SELECT EXISTS (SELECT 1 FROM {USAGE} WHERE note = 'none')": (("false",),),
    f"SELECT l.hit_count, r.note FROM {USAGE} l LEFT JOIN {USAGE} r ON r.hit_count = l.hit_count "
    "AND r.note IS NOT NULL ORDER BY 1 LIMIT 2": (("1", None), ("2", "it's")),
    "SELECT 1 AS n UNION ALL SELECT 2.5 ORDER BY n DESC": (("2.5",), ("1.0",)),
    "SELECT 1 UNION SELECT 1": (("1",),),
    # What there is.
    'SHOW MEASURES FROM "app"."usage"': (("api_request", "multi", (("route", "varchar"),)),),
    "SHOW MEASURES FROM app.single": (("cpu", "double", (("host", "varchar"),)),),
    'SHOW MEASURES FROM "app"."usage" LIKE \'api%\'': (("api_request", "multi", (("route", "varchar"),)),),
    'SHOW MEASURES FROM "app"."usage" LIKE \'b%\'': (),
    'SHOW MEASURES FROM "app"."empty"': (),
    "SHOW DATABASES": (("app",),),
    'SHOW TABLES FROM "app"': (("empty",), ("many",), ("single",), ("usage",)),
    "SHOW DATABASES LIKE 'a%'": (("app",),),
    "SHOW DATABASES LIKE 'A%'": (),
    "SHOW TABLES FROM \"app\" LIKE '_an_'": (("many",),),
    "SHOW TABLES": (("empty",), ("many",), ("single",), ("usage",)),
    "SHOW TABLES LIKE '%e%'": (("empty",), ("single",), ("usage",)),
    'DESCRIBE "app"."single"': (
        ("host", "varchar", "DIMENSION"),
        ("measure_name", "varchar", "MEASURE_NAME"),
        ("time", "timestamp", "TIMESTAMP"),
        ("measure_value::double", "double", "MEASURE_VALUE"),
    ),
    f"describe {USAGE}": (
        ("route", "varchar", "DIMENSION"),
        ("measure_name", "varchar", "MEASURE_NAME"),
        ("time", "timestamp", "TIMESTAMP"),
        ("latency", "double", "MULTI"),
        ("hit_count", "bigint", "MULTI"),
        ("ok", "boolean", "MULTI"),
        ("note", "varchar", "MULTI"),
    ),
}


@pytest.mark.parametrize(("query", "rows"), ANSWERS.items(), ids=ANSWERS)
def test_a_query_is_answered_as_timestream_would(engine: Timestream, query: str, rows: Rows) -> None:
    page = engine.query(query)

    assert page.rows == rows
    assert page.next_token is None


REFUSED: dict[str, str] = {
    # What Trino's parser refuses; sqlglot reads other dialects too.
    "SELECT date '2022-05-21' + 1h": "Cannot add hour, minutes or seconds to a date",
    "SELECT 1 AS end": "line 1:13: mismatched input 'end'",
    "SELECT count(*) GROUP BY": "mismatched input '<EOF>'",
    "SELECT 1,": "mismatched input '<EOF>'",
    f"SELECT 1, FROM {USAGE}": "line 1:11: mismatched input 'FROM'",
    "SELECT concat('a',)": "line 1:19: mismatched input ')'",
    "SELECT 1 IN ()": "line 1:14: mismatched input ')'",
    "SELECT 1 == 1": "mismatched input '=='",
    "SELECT [1,2]": "line 1:8: mismatched input '['",
    "SELECT 1::bigint": "mismatched input '::'",
    "SELECT 1 LIMIT 1,2": "mismatched input ','",
    "WITH a AS (SELECT 1), a AS (SELECT 2) SELECT * FROM a": "WITH query name 'a' specified more than once",
    f"SELECT FROM {USAGE}": "line 1:8: mismatched input 'FROM'",
    "SELECT 1 FETCH": "mismatched input '<EOF>'",
    f"SELECT {'(' * 5_000}1": "The query is nested too deeply.",
    "SELECT 1d2month": "Interval literal 1d2month mixes months with days.",
    "SELECT strrpos('a', '')": "strrpos takes an instance from 1",
    # The place is where the name stands, as in "line 1:76: Column 'x' does not exist".
    f"SELECT missing FROM {USAGE}": "line 1:8: Column 'missing' does not exist",
    f"SELECT route,\n  u.missing + 1 FROM {USAGE} AS u": "line 2:3: Column 'u.missing' does not exist",
    f'SELECT "Route" FROM {USAGE}': "line 1:8: Column 'Route' does not exist",
    f"SELECT route FROM {USAGE} JOIN {USAGE} AS b ON true": "Column 'route' is ambiguous",
    'SELECT * FROM "app"."nowhere"': "line 1:15: Table 'app.nowhere' does not exist",
    "SELECT * FROM usage": "Schema must be specified",
    'SHOW TABLES FROM "nowhere"': "Schema 'nowhere' does not exist",
    'DESCRIBE "app"."nowhere"': "Table 'app.nowhere' does not exist",
    # What is not supported is named.
    f"SELECT route, sha256(route) FROM {USAGE}": "line 1:15: Function 'sha256' is not registered or",
    f"SELECT getvariable('x') FROM {USAGE}": "Function 'getvariable' is not registered",
    f"SELECT hit_count FROM {USAGE} TABLESAMPLE BERNOULLI (10)": "SAMPLE of TABLE is not supported here",
    f"SELECT route FROM {USAGE} GROUP BY GROUPING SETS ((route))": "is not supported here",
    f"SELECT a.route FROM {USAGE} a JOIN {USAGE} b USING (route)": "Column 'a.route' does not exist",
    f"SELECT 1 FROM {USAGE} a JOIN {USAGE} b USING (nothing)": "Column 'nothing' does not exist",
    'SHOW MEASURES FROM "app"."nothing"': "Table 'app.nothing' does not exist",
    # A time that is computed is in 1970 or later.
    "SELECT from_milliseconds(1) - 1d": "does not support negative time values",
    "SELECT from_unixtime(-1)": "does not support negative time values",
    "SELECT from_milliseconds(-1)": "does not support negative time values",
    "SELECT from_nanoseconds(-1)": "does not support negative time values",
    "SELECT ago(30000d)": "does not support negative time values",
    "SELECT date_add('year', -60, now())": "does not support negative time values",
    "SELECT TIMESTAMP '1970-01-02 00:00:00' - interval '1' month": "does not support negative time values",
    f"SELECT min(time - 30000d) FROM {USAGE}": "does not support negative time values",
    "SELECT now() AT TIME ZONE 'Europe/Berlin'": "ATTIMEZONE is not supported here",
    "SELECT 'a' 'b'": "CONCAT is not supported here",
    "SELECT CAST(1 AS DECIMAL(3, 1))": "is not supported here",
    "SELECT CAST(ARRAY[1] AS VARCHAR)": "A cast from array(integer) to varchar is not supported here",
    "SELECT date_diff('eon', now(), now())": "date_diff in eon is not supported here",
    "SELECT date_format(now(), '%U')": "date_format: U is not supported here",
    f"SELECT date_format(time, note) FROM {USAGE}": "with a text that stands in the query only",
    "SELECT rank()": "Window function rank requires an OVER clause",
    f"SELECT rank() OVER (ORDER BY time ROWS CURRENT ROW) FROM {USAGE}": "Cannot specify window frame",
    f"SELECT sum(latency) OVER (ORDER BY time RANGE 1 PRECEDING) FROM {USAGE}": "A frame of RANGE with",
    f"SELECT sum(latency) OVER nowhere FROM {USAGE}": "Window 'nowhere' does not exist",
    f"SELECT lower(note) OVER () FROM {USAGE}": "lower is not a window function",
    "SELECT 1 EXCEPT ALL SELECT 1": "EXCEPT ALL is not supported here",
    "SELECT 1 INTERSECT SELECT 1, 2": "INTERSECT query has different number of fields",
    "SELECT * FROM UNNEST(5) AS t(x)": "Cannot unnest type: integer",
    "SELECT * FROM UNNEST(ARRAY[1]) AS t(x, y)": "Column alias list has 2 entries but relation has 1 columns",
    "SELECT * FROM (VALUES (1), (1, 2)) AS t(x)": "Values rows have different numbers of columns",
    "SELECT try(coalesce(CAST('x' AS BIGINT), 1))": "try of an expression that makes a value of null",
    "SELECT regexp_extract('a', '(a)|b', 1)": "for a group that is in every match",
    "SELECT regexp_replace('a', 'a', '$x')": "The replacement $x is not supported here",
    "SELECT regexp_replace('a', 'a', x -> upper(x[1]))": "regexp_replace with a lambda is not supported here",
    "SELECT json_extract_scalar('{}', '$..a')": "The JSON path $..a is not supported here",
    "SELECT parse_duration('1y')": "parse_duration of 1y is not supported here",
    "SELECT filter(ARRAY[1], 2)": "filter takes an array or a time series and a lambda",
    "SELECT transform(ARRAY[1], x -> y)": "Column 'y' does not exist",
    "SELECT date_add('hour', 1, current_date)": "'hour' is not a valid DATE field",
    "SELECT ARRAY[1, 'a']": "'ARRAY' cannot be applied to integer, varchar",
    "SELECT TIME '25:00'": "Value cannot be cast to time: 25:00",
    "SELECT @scheduled_runtime": "PARAMETER is not supported here",
    "SELECT 1y": "Interval literal 1y is not supported here",
    "SELECT derivative_linear(1, 1s)": "Function 'derivative_linear' is not registered or not supported",
    "UNLOAD (SELECT 1) TO 's3://bucket/'": "line 1:1: UNLOAD is not supported here",
    "DROP TABLE usage": "line 1:1: DROP is not supported here",
    "SELECT 1; SELECT 2": "A query is one statement",
    "WITH RECURSIVE r AS (SELECT 1) SELECT * FROM r": "RECURSIVE of WITH is not supported here",
    # Types are not mixed as DuckDB would.
    f"SELECT * FROM {USAGE} WHERE note = 500": "'=' cannot be applied to varchar, integer",
    f"SELECT * FROM {USAGE} WHERE hit_count IN ('1')": "'IN' cannot be applied to bigint, varchar",
    f"SELECT * FROM {USAGE} WHERE time > 5": "cannot be applied to timestamp, integer",
    f"SELECT * FROM {USAGE} WHERE hit_count": "bigint is given where boolean is expected",
    f"SELECT * FROM {USAGE} WHERE time > note": "cannot be applied to timestamp, varchar",
    f"SELECT * FROM {USAGE} WHERE time > '2026-13-01'": "Value cannot be cast to timestamp: 2026-13-01",
    f"SELECT * FROM {USAGE} WHERE time > '2026'": "Value cannot be cast to timestamp: 2026",
    "SELECT sum('a')": "Unexpected parameters (varchar) for function sum",
    "SELECT lower('a', 'b')": "Unexpected parameters (varchar, varchar) for function lower",
    "SELECT coalesce(1, 'a')": "'coalesce' cannot be applied to integer, varchar",
    # Groups.
    f"SELECT route, latency FROM {USAGE} GROUP BY route": "line 1:15: 'latency' must be an aggregate",
    f"SELECT * FROM {USAGE} GROUP BY route": "must be an aggregate expression",
    f"SELECT route, count(*) FROM {USAGE}": "'route' must be an aggregate expression",
    f"SELECT route FROM {USAGE} GROUP BY route ORDER BY latency": "'latency' must be an aggregate",
    f"SELECT route FROM {USAGE} GROUP BY route HAVING latency > 1": "'latency' must be an aggregate",
    f"SELECT route FROM {USAGE} WHERE count(*) > 1": "WHERE clause cannot contain aggregations",
    f"SELECT DISTINCT route FROM {USAGE} ORDER BY latency": "ORDER BY expressions must appear in select list",
    f"SELECT route FROM {USAGE} ORDER BY 2": "position 2 is not in select list",
    # What only shows when it runs.
    "SELECT 1 / 0": "Division by zero",
    "SELECT CAST('1.5' AS BIGINT)": "Cannot cast '1.5' to BIGINT",
    "SELECT 9223372036854775807 + 1": "Overflow",
    "SELECT ARRAY[1][2]": "Array subscript must be between 1 and the size of the array",
    "SELECT element_at(ARRAY[1], 0)": "SQL array indices start at 1",
    "SELECT sequence(1, 20000)": "must not have more than 10000 entries",
    "SELECT sequence(1, 5, -1)": "sequence stop value should be greater",
    "SELECT split_part('a', '.', 0)": "the index must be positive",
    "SELECT levenshtein_distance('é', 'e')": "for ASCII only",
    "SELECT bit_count(128, 8)": "must be representable with the bits specified",
    "SELECT date_parse('2019-1-2', '%Y-%m-%d')": "Invalid format: 2019-1-2",
    f"SELECT create_time_series(time, note) FROM {USAGE}": "The value of a time series must not be null",
    f"SELECT create_time_series(now(), latency) FROM {USAGE}": "Duplicate timestamps are not allowed",
    f"SELECT interpolate_locf(create_time_series(time, latency), ago(1d)) FROM {USAGE}": "outside of",
    f"SELECT (SELECT route FROM {USAGE})": "More than one row",
    # What is no query.
    "": "The query is empty",
    "SELEKT 1": "line 1:1: SELEKT is not supported here",
    "SELECT FROM": "mismatched input",
    f"SELECT route FROM {USAGE} LIMIT -1": "LIMIT must be a whole number",
    "SELECT 'open": "Error tokenizing",
    "SELECT TIMESTAMP '1969-12-31 23:59:59'": "Value cannot be cast to timestamp",
    "SELECT 99999999999999999999": "Invalid numeric literal",
}


@pytest.mark.parametrize(("query", "message"), REFUSED.items(), ids=REFUSED)
def test_a_query_that_is_wrong_or_not_supported_is_refused_by_name(
    engine: Timestream, query: str, message: str
) -> None:
    with pytest.raises(ServiceError) as raised:
        engine.query(query)

    assert raised.value.code == "ValidationException"
    assert message in raised.value.message


def test_the_dimensions_of_measures_are_rows_with_names(engine: Timestream) -> None:
    names = [{"Name": name, "Type": {"ScalarType": "VARCHAR"}} for name in ("dimension_name", "data_type")]

    assert [column_type(field.kind) for field in engine.query(f"SHOW MEASURES FROM {USAGE}").fields] == [
        {"ScalarType": "VARCHAR"},
        {"ScalarType": "VARCHAR"},
        {"ArrayColumnInfo": {"Type": {"RowColumnInfo": names}}},
    ]


def test_columns_have_names_and_types(engine: Timestream) -> None:
    page = engine.query(
        f"SELECT route, time, latency, hit_count, ok, count(*) AS n, now() - 1h, 1, 1h, interval '1' year, "
        f"date(time), NULL FROM {USAGE} GROUP BY route, time, latency, hit_count, ok"
    )

    assert [(field.name, field.kind.value) for field in page.fields] == [
        ("route", "VARCHAR"),
        ("time", "TIMESTAMP"),
        ("latency", "DOUBLE"),
        ("hit_count", "BIGINT"),
        ("ok", "BOOLEAN"),
        ("n", "BIGINT"),
        ("_col6", "TIMESTAMP"),
        ("_col7", "INTEGER"),
        ("_col8", "INTERVAL_DAY_TO_SECOND"),
        ("_col9", "INTERVAL_YEAR_TO_MONTH"),
        ("_col10", "DATE"),
        ("_col11", "UNKNOWN"),
    ]


def test_names_that_differ_only_in_case_are_different_columns() -> None:
    engine = Timestream(lambda: NOW)
    engine.create_database("app", "key")
    engine.create_table("app", "usage", TableSettings())
    write(engine, "usage", "/a", NOW, [("Route", "upper", "VARCHAR"), ("ORDER", "1", "BIGINT")])

    assert engine.query(f'SELECT "Route", "route", "ORDER" FROM {USAGE}').rows == (("upper", "/a", "1"),)
    engine.close()


def test_a_column_that_came_after_a_query_is_there_for_the_next_one() -> None:
    engine = Timestream(lambda: NOW)
    engine.create_database("app", "key")
    engine.create_table("app", "usage", TableSettings())
    write(engine, "usage", "/a", NOW, [("first", "1", "BIGINT")])
    assert engine.query(f"SELECT first FROM {USAGE}").rows == (("1",),)

    write(engine, "usage", "/a", NOW + 1, [("second", "2", "BIGINT")])

    assert engine.query(f"SELECT first, second FROM {USAGE} ORDER BY time").rows == (("1", None), (None, "2"))
    engine.close()


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0.0"),
        (-0.0, "-0.0"),
        (1.0, "1.0"),
        (-2.5, "-2.5"),
        (0.001, "0.001"),
        (0.000999, "9.99E-4"),
        (0.00001, "1.0E-5"),
        (9999999.0, "9999999.0"),
        (10000000.0, "1.0E7"),
        (12345678.9, "1.23456789E7"),
        (-1e10, "-1.0E10"),
        (1.5e300, "1.5E300"),
        (5e-324, "5.0E-324"),
        (123456789012345680.0, "1.2345678901234568E17"),
        (float("inf"), "Infinity"),
        (float("-inf"), "-Infinity"),
        (float("nan"), "NaN"),
    ],
)
def test_doubles_are_printed_as_java_does(engine: Timestream, value: float, text: str) -> None:
    constants = {"inf": "1e0 / 0e0", "-inf": "-1e0 / 0e0", "nan": "0e0 / 0e0"}

    assert engine.query(f"SELECT {constants.get(str(value), repr(value))}").rows == ((text,),)


# Pages.

MANY = 'SELECT number FROM "app"."many" ORDER BY time DESC'


def pages(engine: Timestream, query: str, max_rows: int | None = None) -> list[Page]:
    read = [engine.query(query, None, max_rows)]
    while read[-1].next_token is not None:
        read.append(engine.query(query, read[-1].next_token, max_rows))
    return read


def test_a_result_of_several_pages_begins_with_an_empty_one(engine: Timestream) -> None:
    read = pages(engine, MANY, 1000)

    assert [len(page.rows) for page in read] == [0, 1000, 1000, 500]
    assert [row for page in read for row in page.rows] == [(str(n),) for n in range(2500)]
    assert len({page.query_id for page in read}) == 1
    assert all(page.fields == read[0].fields for page in read)


def test_a_result_that_just_fits_is_one_page(engine: Timestream) -> None:
    assert [len(page.rows) for page in pages(engine, MANY + " LIMIT 1000", 1000)] == [1000]
    assert [len(page.rows) for page in pages(engine, MANY + " LIMIT 1001", 1000)] == [0, 1000, 1]


def test_without_max_rows_pages_are_cut_at_a_megabyte(engine: Timestream) -> None:
    # 2,500 rows of one value of 1,000 characters and 22 bytes around it: 978 of them in a page.
    long = "CAST(number + 1000000 AS VARCHAR)" + " || '" + "x" * 993 + "'"
    read = pages(engine, f'SELECT {long} FROM "app"."many"')

    assert [len(page.rows) for page in read] == [0, 978, 978, 544]
    assert 978 * 1022 <= MAX_PAGE_BYTES < 979 * 1022


def test_rows_written_between_pages_do_not_shift_them() -> None:
    engine = Timestream(lambda: NOW)
    engine.create_database("app", "key")
    engine.create_table("app", "usage", TableSettings())
    for n in range(4):
        write(engine, "usage", "/a", NOW + 2 * n, [("number", str(n), "BIGINT")])
    query = f"SELECT number FROM {USAGE} ORDER BY time"
    first = engine.query(query, None, 2)
    second = engine.query(query, first.next_token, 2)

    write(engine, "usage", "/a", NOW + 1, [("number", "9", "BIGINT")])
    third = engine.query(query, second.next_token, 2)

    assert [*second.rows, *third.rows] == [("0",), ("1",), ("2",), ("3",)]
    assert len(engine.query(query).rows) == 5
    engine.close()


def test_a_token_belongs_to_its_query(engine: Timestream) -> None:
    token = engine.query(MANY, None, 1000).next_token

    for query, used in ((MANY + " ", token), (MANY, "bm9uc2Vuc2U="), (MANY, "?"), (MANY, "é")):
        with pytest.raises(ServiceError, match="Invalid pagination token"):
            engine.query(query, used, 1000)


def test_a_token_is_good_five_times_and_until_a_newer_one_is_used(engine: Timestream) -> None:
    first = engine.query(MANY, None, 1000).next_token
    answers = [engine.query(MANY, first, 1000) for _ in range(5)]
    with pytest.raises(ServiceError, match="Invalid pagination token"):
        engine.query(MANY, first, 1000)

    assert all(answer == answers[0] for answer in answers)
    assert engine.query(MANY, answers[0].next_token, 1000).rows[0] == ("1000",)
    with pytest.raises(ServiceError, match="Invalid pagination token"):
        engine.query(MANY, first, 1000)


def test_a_token_is_good_for_an_hour() -> None:
    now = [NOW]
    engine = Timestream(lambda: now[0])
    query = "SELECT 1 UNION ALL SELECT 2 UNION ALL SELECT 3"
    token = engine.query(query, None, 1).next_token
    now[0] += 3_600 * SECOND - 1
    assert len(engine.query(query, token, 1).rows) == 1

    now[0] += 1

    with pytest.raises(ServiceError, match="Invalid pagination token"):
        engine.query(query, token, 1)
    engine.close()


@pytest.mark.parametrize(("max_rows", "fine"), [(1, True), (1000, True), (0, False), (1001, False)])
def test_a_page_has_one_to_a_thousand_rows(engine: Timestream, max_rows: int, *, fine: bool) -> None:
    if fine:
        assert engine.query("SELECT 1", None, max_rows).rows == (("1",),)
    else:
        with pytest.raises(ServiceError, match="Member must have value"):
            engine.query("SELECT 1", None, max_rows)


def test_a_query_has_at_most_256_kilobytes(engine: Timestream) -> None:
    longest = "SELECT 1".ljust(MAX_QUERY_CHARACTERS)

    assert engine.query(longest).rows == (("1",),)
    with pytest.raises(ServiceError, match="The limit is 262144"):
        engine.query(longest + " ")


# The wire: boto3's client, which knows nothing but AWS_ENDPOINT_URL.


@pytest.fixture(scope="module")
def client(engine: Timestream) -> Iterator[Any]:
    moto_s_own = dict(vars(TimestreamWriteResponse))
    install(engine)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        client = boto3.client("timestream-query")
        yield client
        client.close()
    server.stop()
    for name, value in moto_s_own.items():
        if callable(value):
            setattr(TimestreamWriteResponse, name, value)


def test_boto3_reads_rows_types_and_nulls(client: Any) -> None:
    answer = client.query(QueryString=f"SELECT time, note, ok FROM {USAGE} ORDER BY time LIMIT 2")

    assert answer["Rows"] == [
        {"Data": [{"ScalarValue": A1}, {"NullValue": True}, {"ScalarValue": "true"}]},
        {"Data": [{"ScalarValue": A2}, {"ScalarValue": "it's"}, {"ScalarValue": "true"}]},
    ]
    assert answer["ColumnInfo"] == [
        {"Name": "time", "Type": {"ScalarType": "TIMESTAMP"}},
        {"Name": "note", "Type": {"ScalarType": "VARCHAR"}},
        {"Name": "ok", "Type": {"ScalarType": "BOOLEAN"}},
    ]
    assert answer["QueryStatus"]["ProgressPercentage"] == 100.0
    assert answer["QueryStatus"]["CumulativeBytesScanned"] > 0
    assert answer["QueryId"]


def test_boto3_pages_through_a_result(client: Any) -> None:
    paginator = client.get_paginator("query")
    answers = list(paginator.paginate(QueryString=MANY, PaginationConfig={"PageSize": 1000}))

    assert [len(answer["Rows"]) for answer in answers] == [0, 1000, 1000, 500]
    assert answers[-1]["Rows"][-1] == {"Data": [{"ScalarValue": "2499"}]}


def test_boto3_raises_the_errors_of_the_model(client: Any) -> None:
    with pytest.raises(client.exceptions.ValidationException, match="Column 'x' does not exist"):
        client.query(QueryString=f"SELECT x FROM {USAGE}", ClientToken="t" * 32)
    with pytest.raises(client.exceptions.ValidationException, match="Invalid pagination token"):
        client.query(QueryString="SELECT 1", NextToken="none")


def test_the_query_client_discovers_the_server_that_was_asked(client: Any) -> None:
    assert client.describe_endpoints()["Endpoints"][0]["Address"] == client.meta.endpoint_url


def test_text_that_moto_would_write_over_arrives_as_it_is(client: Any) -> None:
    answer = client.query(QueryString="SELECT '<RequestId>mine</RequestId>'")

    assert answer["Rows"] == [{"Data": [{"ScalarValue": "<RequestId>mine</RequestId>"}]}]
