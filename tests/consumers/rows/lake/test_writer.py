"""Fragments as they are written."""

import io
import random
from datetime import UTC, datetime
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from botocore.exceptions import ConnectionClosedError
from tagline import Record

from consumers.deadlines import RESERVE
from consumers.outcomes import Outcome, Refused, Stored, Unwritten
from consumers.rows import schema
from consumers.rows.lake import fragments
from consumers.rows.lake.fragments import ALWAYS, HOUR_MS
from consumers.rows.lake.mapping import LakePacker
from consumers.rows.lake.writer import Lake
from consumers.rows.store import UnreadableReportError
from consumers.rows.table import UNDECLARED, Plans, row
from tests.builders import GROUP, LOGGED
from tests.lake_fragments import TIMED_OUT, S3Write, slow_down
from tests.twins import client_error

DECLARED = b"""
revision = 1
[measures]
status = "DOUBLE"
ok = "BOOLEAN"
item_count = "BIGINT"
note = "VARCHAR"
unused = "DOUBLE"
"""
PLANS = schema.plans(schema.parse({"api_request.toml": DECLARED}))
ARROW = {
    "TIMESTAMP": pa.timestamp("ms", "UTC"),
    "INTEGER": pa.int32(),
    "BIGINT": pa.int64(),
    "DOUBLE": pa.float64(),
    "BOOLEAN": pa.bool_(),
    "VARCHAR": pa.string(),
}


def lake_of(client: Any, now: float = LOGGED / 1000) -> Lake:
    return Lake(client, "lake", kept_days=365, clock=lambda: now, sleep=lambda _: None, jitter=lambda: 1.0)


def deliver(lake: Lake, *records: Record, plans: Plans = UNDECLARED, seconds: float = 60.0) -> list[Outcome]:
    packer = LakePacker(plans)
    carried = [(place, packer.pack(row(each, GROUP, plans))) for place, each in enumerate(records)]
    outcomes: dict[int, Outcome] = {}
    for request in lake.requests(carried):
        written = lake.write([packed for _, packed in request], lambda: seconds)
        outcomes |= {place: outcome for (place, _), outcome in zip(request, written, strict=True)}
    return [outcomes[place] for place in range(len(records))]


VALUES: dict[str, Any] = {
    "status": 200,
    "ok": True,
    "item_count": 2**53 + 1,
    "note": 'ÄÖ \U0001f600 \0 "quoted"\n',
    "beds": 3,
    "context": {"a": [1, None, "x"]},
    "seen": False,
    "large_count": 2**63 - 1,
}


def test_a_fragment_has_the_declared_columns_with_their_types_and_the_rest_as_json() -> None:
    client = S3Write()

    deliver(lake_of(client), Record("a", LOGGED, {"route": "/pets", "empty": "", **VALUES}), plans=PLANS)

    ((key, body),) = client.objects.items()
    table = pq.read_table(io.BytesIO(body))
    columns = fragments.columns(PLANS.columns)
    assert {field.name: field.type for field in table.schema} == {
        name: ARROW[columns[name]]
        for name in (*ALWAYS, "status", "ok", "item_count", "note", "_empty", "fields")
    }
    (found,) = table.to_pylist()
    assert found["time"] == datetime.fromtimestamp(LOGGED / 1000, UTC)
    assert {name: found[name] for name in ("status", "ok", "item_count", "note")} == {
        name: VALUES[name] for name in ("status", "ok", "item_count", "note")
    }
    assert found["fields"] == (
        '{"beds":3.0,"context":"{\\"a\\":[1,null,\\"x\\"]}","large_count":9223372036854775807,"seen":false}'
    )
    assert (found["_id"], found["route"], found["method"], found["_v"]) == ("a", "/pets", None, PLANS.version)
    assert fragments.parse_fragment(key).rows == 1


def test_other_libraries_read_the_same(tmp_path: Any) -> None:
    client = S3Write()
    records = [Record(f"r{n}", LOGGED + n, {"status": n, "note": "x" * n, "n": n}) for n in range(50)]
    deliver(lake_of(client), *records, plans=PLANS)
    ((_, body),) = client.objects.items()
    (tmp_path / "fragment.parquet").write_bytes(body)

    with duckdb.connect() as connection:
        connection.read_parquet(str(tmp_path / "fragment.parquet")).create_view("fragment")
        found = connection.sql(
            "select sum(status), count(note), sum((fields->>'n')::double), min(epoch_ms(time)), max(_time_ns)"
            " from fragment"
        ).fetchall()

    times = pq.read_table(io.BytesIO(body)).column("_time_ns").to_pylist()
    assert found == [(sum(range(50)), 49, sum(range(50)), LOGGED, max(times))]


def test_rows_with_values_in_different_columns_share_a_fragment() -> None:
    client = S3Write()
    several: list[dict[str, Any]] = [
        {"status": 1},
        {"ok": True},
        {"status": 2, "note": "n"},
        {},
        {"other": 1},
    ]

    deliver(lake_of(client), *(Record(f"r{n}", LOGGED, each) for n, each in enumerate(several)), plans=PLANS)

    assert len(client.objects) == 1
    found = {each["_id"]: each for each in client.rows()}
    for number, expected in enumerate(several):
        mine = found[f"r{number}"]
        assert {name: mine[name] for name in ("status", "ok", "note", "other") if name in mine} == expected


def test_a_fragment_may_have_one_column_that_only_some_rows_have() -> None:
    client = S3Write()
    declared = schema.parse({"api_request.toml": b'revision = 1\n[measures]\nstatus = "DOUBLE"\n'})
    records = [Record("a", LOGGED, {}), Record("b", LOGGED, {"status": 200})]

    deliver(lake_of(client), *records, plans=schema.plans(declared))

    assert {each["_id"]: each.get("status") for each in client.rows()} == {"a": None, "b": 200.0}


def test_a_batch_makes_one_object_for_each_hour_named_by_what_is_in_it() -> None:
    once, again = S3Write(), S3Write()
    records = [Record(f"r{n}", LOGGED - n * 600_000, {"n": n}) for n in range(40)]
    deliver(lake_of(once), *records)
    random.Random(7).shuffle(records)
    deliver(lake_of(again), *records)

    assert once.objects == again.objects
    assert len(once.objects) == len({(LOGGED - n * 600_000) // HOUR_MS for n in range(40)})
    assert sum(fragments.parse_fragment(key).rows for key in once.objects) == 40


def test_other_values_make_another_name() -> None:
    client = S3Write()
    for value in (1, 2):
        deliver(lake_of(client), Record("r", LOGGED, {"n": value}))

    assert len(client.objects) == 2
    assert len(client.rows()) == 2, "two records with one identity and different values are both kept"


def test_a_value_of_another_type_than_before_is_kept_as_it_is() -> None:
    client = S3Write()
    outcomes = [*deliver(lake_of(client), Record("a", LOGGED, {"n": 1}))]
    outcomes += deliver(lake_of(client), Record("b", LOGGED, {"n": "one"}))

    assert outcomes == [Stored(), Stored()]
    assert [each["n"] for each in sorted(client.rows(), key=lambda each: each["_id"])] == [1.0, "one"]


def test_a_record_of_any_size_is_stored_whole() -> None:
    client = S3Write()
    text = "ä" * 500_000

    assert deliver(lake_of(client), Record("a", LOGGED, {"body": text})) == [Stored()]
    assert client.rows()[0]["body"] == text


@pytest.mark.parametrize(
    "error",
    [
        pytest.param(slow_down(), id="throttled"),
        pytest.param(TIMED_OUT, id="timed out"),
        pytest.param(ConnectionClosedError(endpoint_url="https://bucket.s3"), id="connection closed"),
        pytest.param(client_error("InternalError", 500), id="500"),
        pytest.param(client_error("RequestTimeout", 400), id="body came too slowly"),
        # Services call it by several names, and not all with a status that says so.
        *[
            pytest.param(client_error(code, 400), id=code)
            for code in ("SlowDown", "RequestLimitExceeded", "ThrottlingException")
        ],
    ],
)
@pytest.mark.parametrize("stored", [False, True], ids=["not stored", "stored"])
def test_what_passes_is_tried_again_with_the_same_key(error: Exception, stored: bool) -> None:
    keys: list[str] = []

    def fail(key: str) -> None:
        keys.append(key)
        if len(keys) < 3:
            raise error

    client = S3Write(after=fail) if stored else S3Write(before=fail)

    assert deliver(lake_of(client), Record("a", LOGGED, {})) == [Stored()]
    assert len(keys) == 3
    assert len(set(keys)) == 1
    assert client.ids() == ["a"]


@pytest.mark.parametrize("code", ["AccessDenied", "NoSuchBucket", "KMS.DisabledException"])
def test_what_does_not_pass_is_not_tried_again(code: str) -> None:
    calls = []

    def refuse(key: str) -> None:
        calls.append(key)
        raise client_error(code, 403)

    (outcome,) = deliver(lake_of(S3Write(before=refuse)), Record("a", LOGGED, {}))

    assert isinstance(outcome, Unwritten)
    assert code in outcome.detail
    assert len(calls) == 1


def test_one_hour_that_fails_leaves_the_others() -> None:
    def refuse(key: str) -> None:
        if fragments.parse_fragment(key).hour == LOGGED // HOUR_MS:
            raise client_error("AccessDenied", 403)

    client = S3Write(before=refuse)

    outcomes = deliver(lake_of(client), Record("a", LOGGED, {}), Record("b", LOGGED - HOUR_MS, {}))

    assert [type(each) for each in outcomes] == [Unwritten, Stored]
    assert client.ids() == ["b"]


def test_rows_outside_the_window_are_refused_and_not_looked_at_again_when_the_others_fail() -> None:
    def refuse(_key: str) -> None:
        raise client_error("AccessDenied", 403)

    ahead = Record("ahead", LOGGED // HOUR_MS * HOUR_MS + 59 * 60_000, {})
    now = (LOGGED // HOUR_MS * HOUR_MS) / 1000

    outcomes = deliver(lake_of(S3Write(before=refuse), now), ahead, Record("a", int(now * 1000), {}))

    assert [type(each) for each in outcomes] == [Refused, Unwritten]


def test_without_time_no_object_is_begun() -> None:
    def fail(_key: str) -> None:
        raise AssertionError

    (outcome,) = deliver(lake_of(S3Write(before=fail)), Record("a", LOGGED, {}), seconds=RESERVE)

    assert outcome == Unwritten("not tried: no time left")


def test_there_are_no_reports_of_rows_that_were_not_kept() -> None:
    with pytest.raises(UnreadableReportError, match="has no reports"):
        lake_of(S3Write()).reported(b"{}")
