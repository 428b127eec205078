"""The local Timestream, DuckDB and Python put the same records into the same groups and buckets."""

from __future__ import annotations

import math
import random
from datetime import UTC, datetime, timedelta

import duckdb
from onemachine.timestream import Timestream
from onemachine.timestream.tables import TableSettings

from exporter.usage.buckets import upper_limit
from exporter.usage.counting import usage_of_rows
from exporter.usage.groups import COLUMNS, question, read_groups
from exporter.usage.rollup import usage_of
from tests.exporter.usage.usage_rows import TYPE, Row, row

NOW = datetime(2026, 11, 19, 12, tzinfo=UTC)
KINDS = {
    "status": "DOUBLE",
    "duration_ms": "DOUBLE",
    "bytes": "DOUBLE",
    "timed_out": "BOOLEAN",
    "unfinished": "BOOLEAN",
}
DIMENSIONS = ("method", "route", "client")


def records() -> list[Row]:
    """Return records whose durations are limits of buckets, beside them and between them."""
    chance = random.Random(15)
    limits = [upper_limit(bucket) for bucket in range(-40, 200)]
    durations = [*limits, *(math.nextafter(limit, math.inf) for limit in limits), 0.0, -3.0, None]
    durations += [chance.lognormvariate(3, 1.2) for _ in range(200)]
    return [
        row(
            NOW - timedelta(seconds=10 * number),
            chance.choice(("/pets", "/pets/{id}", None)),
            chance.choice(("acme", None)),
            status=chance.choice((200, 404, 500, 700, None)),
            error_type=chance.choice((None, "KeyError")),
            duration_ms=duration,
            size=chance.choice((None, 10, 2_048.5)),
            timed_out=chance.random() < 0.2,
        )
        for number, duration in enumerate(durations)
    ]


def in_timestream(rows: list[Row]) -> list[list[str | None]]:
    """Return what the local Timestream answers."""
    engine = Timestream(lambda: int(NOW.timestamp()) * 10**9)
    engine.create_database("app", "key")
    engine.create_table("app", "usage", TableSettings())
    written = [_record(dict(zip(COLUMNS, each, strict=True))) for each in rows]
    for first in range(0, len(written), 100):
        engine.write_records("app", "usage", written[first : first + 100])
    answer = engine.query(question(COLUMNS, '"app"."usage"', f"measure_name = '{TYPE}'"))
    found = [list(each) for each in answer.rows]
    engine.close()
    return found  # type: ignore[return-value]  # no value of an answer to this question is a list


def _record(values: dict[str, str | None]) -> dict[str, object]:
    measures = [
        {"Name": name, "Value": value, "Type": KINDS.get(name, "VARCHAR")}
        for name, value in values.items()
        if value is not None and name not in ("time", "_type", *DIMENSIONS)
    ]
    time = datetime.fromisoformat(f"{str(values['time'])[:19]}+00:00")
    return {
        "Dimensions": [
            {"Name": name, "Value": values[name]} for name in DIMENSIONS if values[name] is not None
        ],
        "MeasureName": str(values["_type"]),
        "MeasureValueType": "MULTI",
        "MeasureValues": [*measures, {"Name": "unfinished", "Value": "false", "Type": "BOOLEAN"}],
        "Time": str(int(time.timestamp()) * 1000),
    }


def in_duckdb(rows: list[Row]) -> list[tuple[str | int | None, ...]]:
    """Return what DuckDB answers."""
    types = {"time": "TIMESTAMP", **KINDS}
    with duckdb.connect() as connection:
        columns = ", ".join(f'"{name}" {types.get(name, "VARCHAR")}' for name in COLUMNS)
        connection.execute(f"CREATE TABLE usage ({columns})")
        connection.executemany(f"INSERT INTO usage VALUES ({', '.join('?' * len(COLUMNS))})", rows)
        return connection.execute(question(COLUMNS, "usage", "true")).fetchall()


def test_three_engines_count_the_same() -> None:
    rows = records()

    expected = usage_of_rows(COLUMNS, rows, TYPE)

    assert usage_of(read_groups(in_duckdb(rows))) == expected
    assert usage_of(read_groups(in_timestream(rows))) == expected
    assert expected.total.requests == len(rows)
