"""What the local Timestream takes, what it rejects, and in which words."""

import random
import threading
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from botocore.config import Config
from moto.server import ThreadedMotoServer
from moto.timestreamwrite.responses import TimestreamWriteResponse
from onemachine.presto.errors import ServiceError
from onemachine.presto.kinds import Datum
from onemachine.timestream import Timestream, install
from onemachine.timestream.errors import RejectedRecordsError, Rejection
from onemachine.timestream.tables import BUFFERED_ROWS, Ingested, TableSettings

# 2026-11-19 00:07:00 UTC
NOW = 1_795_046_820_000_000_000
SECOND = 1_000_000_000
HOUR = 3_600 * SECOND
DAY = 24 * HOUR
SAME_VERSION = (
    "A record already exists with the same time, dimensions, measure name, and record version. "
    "A higher record version must be specified in order to update the measure value. "
    "Specifying record version is supported by the latest SDKs."
)


@pytest.fixture
def timestream() -> Iterator[Timestream]:
    engine = Timestream(lambda: NOW)
    engine.create_database("app", "key")
    engine.create_table("app", "usage", TableSettings())
    yield engine
    engine.close()


def measure(name: str = "latency", value: str = "1.5", kind: str = "DOUBLE") -> dict[str, str]:
    return {"Name": name, "Value": value, "Type": kind}


def dimension(name: str = "source", value: str = "s") -> dict[str, str]:
    return {"Name": name, "Value": value}


def record(**changes: Any) -> dict[str, Any]:
    """A record that is fine, with some members changed; a member that is None is left out."""
    whole = {
        "Dimensions": [dimension()],
        "MeasureName": "api_request",
        "MeasureValueType": "MULTI",
        "MeasureValues": [measure()],
        "Time": str(NOW),
        "TimeUnit": "NANOSECONDS",
    } | changes
    return {member: value for member, value in whole.items() if value is not None}


def single(value: str, kind: str, **changes: Any) -> dict[str, Any]:
    return record(**{"MeasureValues": None, "MeasureValue": value, "MeasureValueType": kind} | changes)


def write(engine: Timestream, *records: dict[str, Any], common: dict[str, Any] | None = None) -> Ingested:
    return engine.write_records("app", "usage", records, common)


def rejections(engine: Timestream, *records: dict[str, Any]) -> tuple[Rejection, ...]:
    with pytest.raises(RejectedRecordsError) as raised:
        write(engine, *records)
    return raised.value.rejections


def rows(engine: Timestream, columns: str = "*") -> tuple[tuple[Datum, ...], ...]:
    return engine.query(f'SELECT {columns} FROM "app"."usage" ORDER BY time').rows


MALFORMED: dict[str, tuple[list[dict[str, Any]], str]] = {
    "no records": ([], "Member must have length greater than or equal to 1"),
    "101 records": ([record()] * 101, "Member must have length less than or equal to 100"),
    "no dimension": ([record(Dimensions=None)], "At least one dimension is required for a record."),
    "empty dimension value": ([record(Dimensions=[dimension(value="")])], "must not be empty"),
    "empty dimension name": ([record(Dimensions=[dimension(name="")])], "greater than or equal to 1"),
    "a dimension twice": ([record(Dimensions=[dimension(), dimension()])], "more than once"),
    "a dimension that is no text": (
        [record(Dimensions=[{**dimension(), "DimensionValueType": "BIGINT"}])],
        "enum value set: [VARCHAR]",
    ),
    "129 dimensions": (
        [record(Dimensions=[dimension(f"d{n}") for n in range(129)])],
        "Member must have length less than or equal to 128",
    ),
    "no time": ([record(Time=None)], "Invalid time for record."),
    "time that is no number": ([record(Time="now")], "Invalid time for record."),
    "time with a fraction": ([record(Time="1.5")], "Invalid time for record."),
    "negative time": ([record(Time="-1")], "Invalid time for record."),
    "time beyond 64 bits": ([record(Time=str(2**63))], "Invalid time for record."),
    "unknown unit": ([record(TimeUnit="HOURS")], "enum value set"),
    "version 0": ([record(Version=0)], "must be 1 or greater"),
    "version beyond 64 bits": ([record(Version=2**63)], "must be 1 or greater"),
    "no measure name": ([record(MeasureName=None)], "measure name is required"),
    "unknown type": ([record(MeasureValues=[measure(kind="INTEGER")])], "enum value set"),
    "MULTI inside MULTI": ([record(MeasureValues=[measure(kind="MULTI")])], "enum value set"),
    "MULTI without values": ([record(MeasureValues=[])], "must have MeasureValues"),
    "MULTI with one value": ([record(MeasureValue="1")], "no MeasureValue"),
    "a measure twice": ([record(MeasureValues=[measure(), measure()])], "more than once"),
    "a single TIMESTAMP": ([single("1", "TIMESTAMP")], "not a TIMESTAMP"),
    "a lone surrogate": ([record(MeasureValues=[measure(value="\ud800", kind="VARCHAR")])], "surrogate"),
    "empty value": ([single("", "VARCHAR")], "greater than or equal to 1"),
    "2,049 characters": ([single("x" * 2049, "VARCHAR")], "less than or equal to 2048"),
}


@pytest.mark.parametrize(("records", "message"), MALFORMED.values(), ids=MALFORMED)
def test_a_malformed_request_writes_nothing(
    timestream: Timestream, records: list[dict[str, Any]], message: str
) -> None:
    fine = [record(Time=str(NOW - 1))] if 0 < len(records) < 100 else []

    with pytest.raises(ServiceError) as raised:
        write(timestream, *fine, *records)

    assert raised.value.code == "ValidationException"
    assert message in raised.value.message
    assert rows(timestream) == ()


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("BIGINT", "1.0"),
        ("BIGINT", " 1"),
        ("BIGINT", "1_000"),
        ("BIGINT", str(2**63)),
        ("BIGINT", str(-(2**63) - 1)),
        ("DOUBLE", "NaN"),
        ("DOUBLE", "Infinity"),
        ("DOUBLE", "-inf"),
        ("DOUBLE", "1e999"),
        ("DOUBLE", "-0.0"),
        ("DOUBLE", "1_0"),
        ("DOUBLE", " 1"),
        ("DOUBLE", "\u0661"),
        ("DOUBLE", "one"),
        ("BOOLEAN", "yes"),
        ("BOOLEAN", "1"),
        ("TIMESTAMP", "2026-11-19"),
        ("TIMESTAMP", "-1"),
    ],
)
def test_a_value_that_is_not_of_its_type_fails_the_request(
    timestream: Timestream, kind: str, value: str
) -> None:
    with pytest.raises(ServiceError, match=f"is not a valid {kind}"):
        write(timestream, record(MeasureValues=[measure(value=value, kind=kind)]))


@pytest.mark.parametrize(
    ("kind", "value", "stored"),
    [
        ("BIGINT", "9223372036854775807", "9223372036854775807"),
        ("BIGINT", "-9223372036854775808", "-9223372036854775808"),
        ("DOUBLE", "0.0", "0.0"),
        ("DOUBLE", "3", "3.0"),
        ("DOUBLE", "1e10", "1.0E10"),
        ("DOUBLE", "0.1", "0.1"),
        ("DOUBLE", "1.7976931348623157e308", "1.7976931348623157E308"),
        ("BOOLEAN", "true", "true"),
        ("BOOLEAN", "False", "false"),
        ("VARCHAR", "naïve 'text'\n🙂", "naïve 'text'\n🙂"),
        ("TIMESTAMP", "1795046820123456789", "2026-11-19 00:07:00.123456789"),
    ],
)
def test_a_value_comes_back_as_the_service_prints_it(
    timestream: Timestream, kind: str, value: str, stored: str
) -> None:
    write(timestream, record(MeasureValues=[measure(value=value, kind=kind)]))

    assert rows(timestream, "latency") == ((stored,),)


@pytest.mark.parametrize("kind", ["DOUBLE", "BIGINT", "BOOLEAN", "VARCHAR"])
def test_a_single_measure_is_found_in_the_column_of_its_type(timestream: Timestream, kind: str) -> None:
    value = {"DOUBLE": "1.0", "BIGINT": "1", "BOOLEAN": "true", "VARCHAR": "one"}[kind]
    write(timestream, single(value, kind))

    assert rows(timestream, f"measure_value::{kind.lower()}") == ((value,),)


def test_a_record_without_a_type_is_a_double_and_without_a_unit_in_milliseconds(
    timestream: Timestream,
) -> None:
    write(timestream, single("2.5", "DOUBLE", MeasureValueType=None, TimeUnit=None, Time="1795046819001"))

    assert rows(timestream, "time, measure_value::double") == (("2026-11-19 00:06:59.001000000", "2.5"),)


@pytest.mark.parametrize(
    ("unit", "time", "stored"),
    [
        ("SECONDS", "1795046820", "2026-11-19 00:07:00.000000000"),
        ("MILLISECONDS", "1795046820001", "2026-11-19 00:07:00.001000000"),
        ("MICROSECONDS", "1795046820000001", "2026-11-19 00:07:00.000001000"),
        ("NANOSECONDS", "1795046820000000001", "2026-11-19 00:07:00.000000001"),
    ],
)
def test_times_are_in_the_unit_of_their_record(
    timestream: Timestream, unit: str, time: str, stored: str
) -> None:
    write(
        timestream,
        record(Time=time, TimeUnit=unit, MeasureValues=[measure("at", time, "TIMESTAMP")]),
    )

    assert rows(timestream, "time, at") == ((stored, stored),)


def test_a_hundred_records_are_written_at_once(timestream: Timestream) -> None:
    records = [record(Time=str(NOW - n)) for n in range(100)]

    assert write(timestream, *records) == Ingested(memory=100, magnetic=0)
    assert rows(timestream, "time")[0] == ("2026-11-19 00:06:59.999999901",)


# Eight bytes of time, "api_request", and "source" with its "s".
BARE_BYTES = 8 + 11 + 6 + 1

AT_A_LIMIT: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "60 bytes of dimension name": (
        record(Dimensions=[dimension("é" * 30)]),
        record(Dimensions=[dimension("é" * 30 + "x")]),
        "longer than 60 bytes",
    ),
    "256 bytes of measure name": (
        record(MeasureValues=[measure("m" * 256)]),
        record(MeasureValues=[measure("m" * 257)]),
        "longer than 256 bytes",
    ),
    "256 bytes of measure name of the record": (
        record(MeasureName="m" * 256),
        record(MeasureName="m" * 257),
        "longer than 256 bytes",
    ),
    "256 measures": (
        record(MeasureValues=[measure(f"m{n}", "true", "BOOLEAN") for n in range(256)]),
        record(MeasureValues=[measure(f"m{n}", "true", "BOOLEAN") for n in range(257)]),
        "The record has 257 measures",
    ),
    "2,048 bytes": (
        record(MeasureValues=[measure("m", "é" + "x" * (2048 - BARE_BYTES - 3), "VARCHAR")]),
        record(MeasureValues=[measure("m", "é" + "x" * (2048 - BARE_BYTES - 2), "VARCHAR")]),
        "The record is 2049 bytes",
    ),
}


@pytest.mark.parametrize(("at", "past", "reason"), AT_A_LIMIT.values(), ids=AT_A_LIMIT)
def test_a_record_at_a_limit_is_written_and_one_past_it_is_rejected(
    timestream: Timestream, at: dict[str, Any], past: dict[str, Any], reason: str
) -> None:
    assert write(timestream, at) == Ingested(1, 0)

    (rejection,) = rejections(timestream, past)

    assert reason in rejection.reason
    assert rejection.index == 0


@pytest.mark.parametrize(
    "name",
    ["time", "measure_value", "measure_value::double", "ts_non_existent_col", "ts_x", "measure_name", "a:b"],
)
def test_reserved_names_are_rejected_for_dimensions_and_measures(timestream: Timestream, name: str) -> None:
    found = rejections(
        timestream,
        record(Dimensions=[dimension(name)]),
        record(MeasureValues=[measure(name)]),
        record(),
    )

    assert [rejection.index for rejection in found] == [0, 1]
    assert all("is reserved or contains a character" in rejection.reason for rejection in found)
    assert len(rows(timestream)) == 1


def test_a_table_has_at_most_128_dimensions(timestream: Timestream) -> None:
    write(timestream, record(Dimensions=[dimension(f"d{n}") for n in range(128)]))

    (rejection,) = rejections(timestream, record(Dimensions=[dimension("one_more")]))

    assert "more than 128 dimensions" in rejection.reason


def test_a_table_has_at_most_1024_measure_columns(timestream: Timestream) -> None:
    for batch in range(8):
        names = [f"m{batch}_{n}" for n in range(128)]
        write(
            timestream,
            record(MeasureValues=[measure(name, "true", "BOOLEAN") for name in names], Time=str(NOW + batch)),
        )

    (rejection,) = rejections(timestream, record(MeasureValues=[measure("one_more")], Time=str(NOW + 9)))

    assert "more than 1024 measures" in rejection.reason
    assert len(timestream.query('DESCRIBE "app"."usage"').rows) == 1 + 2 + 1024


def test_a_table_has_at_most_8192_measure_names(timestream: Timestream) -> None:
    for batch in range(0, 8192, 64):
        write(timestream, *(record(MeasureName=f"m{n}") for n in range(batch, batch + 64)))

    (rejection,) = rejections(timestream, record(MeasureName="one_more"))

    assert "8192 measure names already" in rejection.reason


def test_the_memory_store_takes_what_is_in_its_half_open_window(timestream: Timestream) -> None:
    found = rejections(
        timestream,
        record(Time=str(NOW - 6 * HOUR)),
        record(Time=str(NOW - 6 * HOUR - 1)),
        record(Time=str(NOW + 15 * 60 * SECOND - 1)),
        record(Time=str(NOW + 15 * 60 * SECOND)),
    )

    reason = (
        "The record timestamp is outside the time range "
        "[2026-11-18T18:07:00.000Z, 2026-11-19T00:22:00.000Z) of the memory store."
    )
    assert found == (Rejection(1, reason), Rejection(3, reason))
    assert len(rows(timestream)) == 2


def test_with_magnetic_writes_older_records_go_to_the_magnetic_store(timestream: Timestream) -> None:
    changes = {"magnetic_writes": {"EnableMagneticStoreWrites": True}, "magnetic_days": 2}
    timestream.update_table("app", "usage", changes)

    assert write(
        timestream, record(), record(Time=str(NOW - 6 * HOUR - 1)), record(Time=str(NOW - 2 * DAY))
    ) == Ingested(memory=1, magnetic=2)
    found = rejections(timestream, record(Time=str(NOW - 2 * DAY - 1)), record(Time=str(NOW + HOUR)))
    reason = (
        "The record timestamp is outside the time range "
        "[2026-11-17T00:07:00.000Z, 2026-11-19T00:22:00.000Z) of the data ingestion window."
    )
    assert found == (Rejection(0, reason), Rejection(1, reason))


def test_common_attributes_are_merged_into_each_record(timestream: Timestream) -> None:
    common = {
        "Dimensions": [dimension("region", "eu")],
        "MeasureName": "api_request",
        "MeasureValueType": "MULTI",
        "MeasureValues": [measure("shared", "7", "BIGINT")],
        "Time": str(NOW),
        "TimeUnit": "NANOSECONDS",
        "Version": 3,
    }

    write(
        timestream,
        {"Dimensions": [dimension()], "MeasureValues": [measure()]},
        {"Dimensions": [dimension()], "MeasureValues": [measure()], "Time": str(NOW + 1)},
        common=common,
    )

    assert rows(timestream, "region, source, measure_name, time, shared, latency") == (
        ("eu", "s", "api_request", "2026-11-19 00:07:00.000000000", "7", "1.5"),
        ("eu", "s", "api_request", "2026-11-19 00:07:00.000000001", "7", "1.5"),
    )
    with pytest.raises(ServiceError, match="The dimension name region is given more than once"):
        write(timestream, {"Dimensions": [dimension("region", "us")]}, common=common)


def changed(version: int | None, value: str) -> dict[str, Any]:
    return record(Version=version, MeasureValues=[measure(value=value)])


def lower(version: int, existing: int) -> str:
    return (
        f"The record version {version} is lower than the existing version {existing}. "
        "A higher version is required to update the measure value."
    )


# The two records that are written, why the second is rejected, and the value that is there afterwards.
VERSIONS: dict[str, tuple[list[dict[str, Any]], tuple[str, int] | None, str]] = {
    "the same again": ([changed(None, "1"), changed(None, "1")], None, "1.0"),
    "the same number, written differently": ([changed(None, "1"), changed(None, "1.0")], None, "1.0"),
    "other values": ([changed(None, "1"), changed(1, "2")], (SAME_VERSION, 1), "1.0"),
    "higher version": ([changed(1, "1"), changed(2, "2")], None, "2.0"),
    "lower version": ([changed(200, "1"), changed(2, "2")], (lower(2, 200), 200), "1.0"),
    "lower version, same values": ([changed(2, "1"), changed(None, "1")], (lower(1, 2), 2), "1.0"),
}


@pytest.mark.parametrize("asked_between", [False, True])
@pytest.mark.parametrize(("records", "refused", "value"), VERSIONS.values(), ids=VERSIONS)
def test_a_point_keeps_its_highest_version(
    timestream: Timestream,
    records: list[dict[str, Any]],
    refused: tuple[str, int] | None,
    value: str,
    *,
    asked_between: bool,
) -> None:
    """Whether or not a query between the two has moved the first into DuckDB."""
    write(timestream, records[0])
    if asked_between:
        rows(timestream)

    if refused is None:
        assert write(timestream, records[1]) == Ingested(1, 0)
    else:
        assert rejections(timestream, records[1]) == (Rejection(0, *refused),)

    assert rows(timestream, "latency") == ((value,),)


def test_of_two_records_of_one_point_in_one_request_the_first_wins(timestream: Timestream) -> None:
    found = rejections(timestream, changed(1, "1"), changed(1, "2"), changed(1, "1"))

    assert found == (Rejection(1, SAME_VERSION, 1),)
    assert rows(timestream, "latency") == (("1.0",),)


def test_an_equal_value_with_a_higher_version_raises_the_version(timestream: Timestream) -> None:
    write(timestream, changed(1, "1"), changed(5, "1"))

    (rejection,) = rejections(timestream, changed(5, "2"))

    assert rejection.existing_version == 5


@pytest.mark.parametrize(
    "other",
    [
        record(Dimensions=[dimension(value="t")]),
        record(Dimensions=[dimension("origin")]),
        record(Dimensions=[dimension(), dimension("more")]),
        record(MeasureName="job"),
        record(Time=str(NOW + 1)),
    ],
)
def test_dimensions_measure_name_and_time_make_a_point(timestream: Timestream, other: dict[str, Any]) -> None:
    write(timestream, record(), {**other, "MeasureValues": [measure(value="2")]})

    assert len(rows(timestream)) == 2


def test_the_order_of_dimensions_and_measures_is_not_part_of_a_point(timestream: Timestream) -> None:
    dimensions = [dimension("a"), dimension("b")]
    measures = [measure("x"), measure("y", "2")]

    write(timestream, record(Dimensions=dimensions, MeasureValues=measures))
    write(timestream, record(Dimensions=dimensions[::-1], MeasureValues=measures[::-1]))

    assert len(rows(timestream)) == 1


def test_a_conflict_in_the_magnetic_store_is_rejected_too(timestream: Timestream) -> None:
    timestream.update_table("app", "usage", {"magnetic_writes": {"EnableMagneticStoreWrites": True}})
    old = str(NOW - 7 * HOUR)
    write(timestream, record(Time=old))

    found = rejections(timestream, record(Time=old, MeasureValues=[measure(value="2")]))

    assert found == (Rejection(0, SAME_VERSION, 1),)


def test_a_column_keeps_its_first_type_and_role(timestream: Timestream) -> None:
    write(timestream, record())

    found = rejections(
        timestream,
        record(Time=str(NOW + 1), MeasureValues=[measure(kind="VARCHAR")]),
        record(Time=str(NOW + 2), MeasureValues=[measure("source")]),
        record(Time=str(NOW + 3), Dimensions=[dimension("latency")], MeasureValues=[measure("other")]),
        record(Time=str(NOW + 4), Dimensions=[dimension("x")], MeasureValues=[measure("source")]),
        single("1", "BIGINT", Time=str(NOW + 5)),
        record(Time=str(NOW + 6), MeasureValues=[measure("fresh")]),
    )

    assert [(rejection.index, rejection.reason) for rejection in found] == [
        (0, "The measure latency is of type DOUBLE. A value of type VARCHAR cannot be written to it."),
        (1, "The name source is used for a dimension and for a measure."),
        (2, "The name latency is used for a measure already. It cannot be a dimension."),
        (3, "The name source is used for a dimension already. It cannot be a measure."),
        (4, "The measure api_request is of type MULTI. A record of type BIGINT cannot be written to it."),
    ]
    assert rows(timestream, "latency, fresh") == (("1.5", None), (None, "1.5"))
    described = timestream.query('DESCRIBE "app"."usage"').rows
    assert [name for name, _, _ in described] == ["source", "measure_name", "time", "latency", "fresh"]


def test_a_required_partition_key_is_required(timestream: Timestream) -> None:
    key = {"Type": "DIMENSION", "Name": "route", "EnforcementInRecord": "REQUIRED"}
    timestream.update_table("app", "usage", {"schema": {"CompositePartitionKey": [key]}})

    (rejection,) = rejections(timestream, record(), record(Dimensions=[dimension("route")]))

    assert rejection.index == 0


def test_more_rows_than_the_buffer_holds_are_all_kept_and_still_updated(timestream: Timestream) -> None:
    for start in range(0, BUFFERED_ROWS + 100, 100):
        write(timestream, *(record(Time=str(NOW - n)) for n in range(start, start + 100)))
    write(
        timestream,
        *(record(Time=str(NOW - n), Version=2, MeasureValues=[measure(value="9")]) for n in range(3)),
    )

    (counted,) = timestream.query('SELECT count(*), sum(latency) FROM "app"."usage"').rows

    # 10,100 rows of 1.5, three of which became 9.
    assert counted == ("10100", "15172.5")


def test_threads_write_without_losing_a_record(timestream: Timestream) -> None:
    def run(number: int) -> None:
        for start in range(0, 500, 100):
            dimensions = [dimension(value=str(number))]
            write(
                timestream,
                *(record(Dimensions=dimensions, Time=str(NOW - n)) for n in range(start, start + 100)),
            )

    threads = [threading.Thread(target=run, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    counted = timestream.query('SELECT source, count(*) FROM "app"."usage" GROUP BY source ORDER BY 1').rows
    assert counted == (("0", "500"), ("1", "500"), ("2", "500"), ("3", "500"))


@pytest.mark.parametrize("seed", range(20))
def test_any_sequence_of_writes_leaves_what_a_dictionary_would(timestream: Timestream, seed: int) -> None:
    chance = random.Random(seed)
    requests = [
        [
            (chance.randrange(4), chance.randint(1, 3), chance.randrange(3))
            for _ in range(chance.randint(1, 6))
        ]
        for _ in range(chance.randint(0, 6))
    ]
    expected: dict[int, tuple[int, int]] = {}
    for request in requests:
        refused = []
        for index, (time, version, value) in enumerate(request):
            there = expected.get(time)
            if there is None or version > there[0]:
                expected[time] = (version, value)
            elif (version, value) != there:
                refused.append(index)
        records = [
            record(Time=str(NOW + time), Version=version, MeasureValues=[measure(value=str(value))])
            for time, version, value in request
        ]
        if refused:
            assert [rejection.index for rejection in rejections(timestream, *records)] == refused
        else:
            assert write(timestream, *records) == Ingested(len(request), 0)

    stored = rows(timestream, "to_nanoseconds(time), latency") if expected else ()
    assert stored == tuple((str(NOW + time), f"{value}.0") for time, (_, value) in sorted(expected.items()))


# The wire: boto3's client, which knows nothing but AWS_ENDPOINT_URL.


@pytest.fixture(scope="module")
def engine() -> Iterator[Timestream]:
    engine = Timestream(lambda: NOW)
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def client(engine: Timestream) -> Iterator[Any]:
    moto_s_own = dict(vars(TimestreamWriteResponse))
    install(engine)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        client = boto3.client("timestream-write", config=Config(retries={"total_max_attempts": 1}))
        client.create_database(DatabaseName="wire")
        client.create_table(DatabaseName="wire", TableName="usage")
        yield client
        client.close()
    server.stop()
    for name, value in moto_s_own.items():
        if callable(value):
            setattr(TimestreamWriteResponse, name, value)


def test_endpoint_discovery_leads_back_to_the_server_that_was_asked(client: Any) -> None:
    (endpoint,) = client.describe_endpoints()["Endpoints"]

    assert endpoint["Address"] == client.meta.endpoint_url
    assert endpoint["Address"].startswith("http://127.0.0.1:")


def test_boto3_reads_how_many_records_were_ingested(client: Any) -> None:
    answer = client.write_records(
        DatabaseName="wire",
        TableName="usage",
        Records=[{"Dimensions": [dimension()], "MeasureValues": [measure()], "Time": str(NOW)}],
        CommonAttributes={"MeasureName": "counted", "MeasureValueType": "MULTI", "TimeUnit": "NANOSECONDS"},
    )

    assert answer["RecordsIngested"] == {"Total": 1, "MemoryStore": 1, "MagneticStore": 0}


def test_boto3_raises_rejected_records_with_their_places_and_versions(client: Any) -> None:
    records = [record(MeasureName="twice"), record(MeasureName="twice", MeasureValues=[measure(value="2")])]

    with pytest.raises(client.exceptions.RejectedRecordsException) as raised:
        client.write_records(DatabaseName="wire", TableName="usage", Records=[*records, record(Time="1")])

    answer = raised.value.response
    assert answer["ResponseMetadata"]["HTTPStatusCode"] == 419
    assert answer["Error"]["Message"] == (
        "One or more records have been rejected. See RejectedRecords for details."
    )
    assert "RecordsIngested" not in answer
    same, late = answer["RejectedRecords"]
    assert same == {"RecordIndex": 1, "Reason": SAME_VERSION, "ExistingVersion": 1}
    assert late["RecordIndex"] == 2
    assert "ExistingVersion" not in late


def test_boto3_raises_the_errors_of_the_model(client: Any) -> None:
    errors = client.exceptions
    where = {"DatabaseName": "wire", "TableName": "usage"}
    with pytest.raises(errors.ValidationException, match="less than or equal to 100"):
        client.write_records(**where, Records=[record()] * 101)
    with pytest.raises(errors.ResourceNotFoundException):
        client.write_records(DatabaseName="wire", TableName="nowhere", Records=[record()])
    with pytest.raises(errors.ResourceNotFoundException):
        client.describe_database(DatabaseName="nowhere")
    with pytest.raises(errors.ConflictException):
        client.create_database(DatabaseName="wire")
    with pytest.raises(errors.ConflictException):
        client.create_table(**where)
    with pytest.raises(errors.ValidationException):
        client.delete_database(DatabaseName="wire")
    with pytest.raises(errors.ValidationException):
        client.create_database(DatabaseName="no spaces")


def test_a_table_is_described_as_it_was_made_and_changed(client: Any) -> None:
    client.create_database(DatabaseName="described", Tags=[{"Key": "team", "Value": "api"}])
    made = client.create_table(
        DatabaseName="described",
        TableName="t",
        RetentionProperties={
            "MemoryStoreRetentionPeriodInHours": 24,
            "MagneticStoreRetentionPeriodInDays": 30,
        },
        MagneticStoreWriteProperties={"EnableMagneticStoreWrites": True},
    )["Table"]

    assert made["Arn"] == "arn:aws:timestream:us-east-1:123456789012:database/described/table/t"
    assert made["TableStatus"] == "ACTIVE"
    assert made["MagneticStoreWriteProperties"] == {"EnableMagneticStoreWrites": True}
    assert made["CreationTime"].timestamp() == NOW / SECOND
    assert client.describe_table(DatabaseName="described", TableName="t")["Table"] == made
    retention = {"MemoryStoreRetentionPeriodInHours": 1, "MagneticStoreRetentionPeriodInDays": 7}
    client.update_table(DatabaseName="described", TableName="t", RetentionProperties=retention)
    after = client.describe_table(DatabaseName="described", TableName="t")["Table"]
    assert after["RetentionProperties"] == retention
    assert after["MagneticStoreWriteProperties"] == {"EnableMagneticStoreWrites": True}
    database = client.describe_database(DatabaseName="described")["Database"]
    assert database["TableCount"] == 1
    tags = client.list_tags_for_resource(ResourceARN=database["Arn"])["Tags"]
    assert tags == [{"Key": "team", "Value": "api"}]
    client.update_database(DatabaseName="described", KmsKeyId="other")
    assert client.describe_database(DatabaseName="described")["Database"]["KmsKeyId"] == "other"
    client.delete_table(DatabaseName="described", TableName="t")
    client.delete_database(DatabaseName="described")
    assert "described" not in {d["DatabaseName"] for d in client.list_databases()["Databases"]}


@pytest.mark.parametrize(
    ("hours", "days", "fine"),
    [(1, 1, True), (8766, 73_000, True), (0, 1, False), (8767, 1, False), (1, 0, False), (1, 73_001, False)],
)
def test_retention_is_held_to_its_ranges(
    timestream: Timestream, hours: int, days: int, *, fine: bool
) -> None:
    chosen = TableSettings(memory_hours=hours, magnetic_days=days)
    if fine:
        timestream.create_table("app", "t", chosen)
    else:
        with pytest.raises(ServiceError, match="It must be between"):
            timestream.create_table("app", "t", chosen)


def test_tables_are_listed_in_pages(client: Any) -> None:
    client.create_database(DatabaseName="many")
    for name in ("c", "a", "b"):
        client.create_table(DatabaseName="many", TableName=name)

    first = client.list_tables(DatabaseName="many", MaxResults=2)
    second = client.list_tables(DatabaseName="many", MaxResults=2, NextToken=first["NextToken"])

    assert [table["TableName"] for table in first["Tables"]] == ["a", "b"]
    assert [table["TableName"] for table in second["Tables"]] == ["c"]
    assert "NextToken" not in second
