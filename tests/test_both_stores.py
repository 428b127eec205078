"""What both stores do with the same lines, through the real handlers and the services of one machine."""

import gzip
import io
import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from importlib import import_module
from typing import Any

import pytest
from onemachine.pipeline import Pipeline
from rich.console import Console
from rich.progress import Progress
from tagline import Record, write

from cli import lake, stages
from cli.apps import tagline_with_samples
from cli.commands.kept import replay_logs
from cli.compare import differences, export_side, store_side
from cli.reconcile import balances_of
from cli.replay import ReplayOutcome
from cli.target import Target, target_of
from consumers.lines.subscription import encode
from consumers.rows.registry import STORES
from exporter.lake.days import Day
from exporter.lake.formats import Format
from exporter.store import Days, whole
from exporter.usage.stored import view_key
from tests.builders import LOGGED, envelope

# No subscription takes its lines.
GROUP = "/aws/lambda/another"
MANY = 10_000
LONG = "x" * 100_000
TEXT = 'a "quoted"\tline\n end, é 漢 \U0001f600'
VALUES: Mapping[str, Any] = {
    "flag": True,
    "ratio": 1e-7,
    "large": 1e10,
    "item_count": 3,
    "text": TEXT,
    "empty": "",
    "missing": None,
    "no_number": float("nan"),
    "nested": {"a": [1, {"b": "c"}]},
    "long": LONG,
}


@dataclass(frozen=True)
class Run:
    """What a store has of the lines.

    Attributes:
        rows: Rows of the exported csv.gz files, by identity; without a value for null.
        counts: The store's counts: after the lines, their redelivery, and two replays of a log group.
        days: The answers of the store to its questions about each day: all that should agree.
        differences: In which columns the store and the export differ.
        rejected: Lines in quarantine by reason.
        reconciled: What `tagline reconcile` says of each log group, over all days.
        usage: The totals of the usage page's summary.
        forgotten: How many rows of a client the store and the export have after its erasure, and after its
            rows were delivered and exported once more.
    """

    rows: Mapping[str, Sequence[Mapping[str, str | None]]]
    counts: Sequence[int]
    days: Sequence[tuple[int, int, int]]
    differences: Sequence[str]
    rejected: Mapping[str, stages.Count]
    reconciled: Mapping[str, Counter[str]]
    usage: Mapping[str, Any]
    forgotten: Sequence[tuple[int, int]]


def line(
    identity: str, when: int, fields: Mapping[str, Any], type_: str = "api_request", seq: int | None = None
) -> str:
    return write(Record(identity, when, {"route": "/pets", **fields}, type=type_, src="s", seq=seq))


def batches(when: int) -> list[list[str]]:
    """Return lines, a list for each that is stored before the next is sent."""
    many = [line(f"many-{number:05}", when, {"n": number}) for number in range(MANY)]
    return [
        [
            line("values", when, VALUES),
            line("twice", when, {"n": 1}),
            line("twice", when, {"n": 2}),
            line("changing-1", when, {"size": 5}),
            line("of-a-client", when, {"client": "client-1"}),
            line("long-client", when, {"client": "c" * 3_000}),
            # The line between these never comes.
            *[line(f"numbered-{seq}", when, {}, seq=seq) for seq in (0, 1, 3)],
            line("ahead", when + 86_400_000, {}),
            line("unmappable", when, {}, type_="/" * 100),
            "{this is no record of ours but has the tag usage_record",
        ],
        [line("changing-2", when, {"size": "large", "new_field": "y"})],
        *(many[start : start + 2_500] for start in range(0, MANY, 2_500)),
    ]


def put(where: Target, lines: Sequence[str]) -> None:
    """Put lines into the stream, as CloudWatch Logs does."""
    for start in range(0, len(lines), 500):
        where.client("kinesis").put_record(
            StreamName=where.outputs["StreamName"],
            Data=encode(envelope(*lines[start : start + 500], group=GROUP)),
            PartitionKey="key",
        )


def log(where: Target, lines: Sequence[str], when: int) -> None:
    """Write lines into the log group, from where only a replay sends them."""
    logs = where.client("logs")
    logs.create_log_group(logGroupName=GROUP)
    logs.create_log_stream(logGroupName=GROUP, logStreamName="stream")
    logs.put_log_events(
        logGroupName=GROUP,
        logStreamName="stream",
        logEvents=[{"timestamp": when + number, "message": text} for number, text in enumerate(lines)],
    )


def export(where: Target, days: Days, bars: Progress) -> None:
    for each in lake.export_days(where, days, bars):
        assert "failed" not in each


def exported_rows(where: Target, days: Days) -> dict[str, list[dict[str, str | None]]]:
    rows: dict[str, list[dict[str, str | None]]] = {}
    for day in days:
        manifest = Day(where.bucket(), day, Format.CSV_GZ).manifest()
        assert manifest is not None
        names = [column.name for column in manifest.columns]
        for part in manifest.parts:
            for batch in Format.CSV_GZ.read(where.bucket().stream(part.key), manifest.columns):
                for values in batch.rows:
                    row = dict(zip(names, values, strict=True))
                    rows.setdefault(str(row["_id"]), []).append(row)
    return rows


def ask(where: Target, day: date) -> tuple[int, int, int]:
    """Return how many rows a day has by its minutes, its log groups and its rows."""
    store = where.store()
    rows = sum(len(page) for page in store.rows(whole(day), tuple(store.columns(day))[:3]).pages)
    return sum(store.tally(day).values()), sum(store.sources(day).values()), rows


def run(pipeline: Pipeline) -> Run:
    where, bars = target_of(pipeline), Progress(console=Console(file=io.StringIO()))
    when = int((datetime.now(UTC) - timedelta(minutes=5)).timestamp() * 1_000)
    counts = []
    for lines in batches(when):
        put(where, lines)
        pipeline.settle()
    counts.append(where.store().count())
    # A producer that did not hear of its success sends its record again: it is another one in the stream.
    again = [text for lines in batches(when)[:2] for text in lines]
    put(where, again)
    pipeline.settle()
    counts.append(where.store().count())
    start = f"{datetime.now(UTC) - timedelta(hours=1):%Y-%m-%dT%H:%M:%S}"
    log(where, [line(f"logged-{number}", when, {"n": number}) for number in range(20)], when)
    for _ in range(2):
        replay_logs(where, ReplayOutcome(), (GROUP, start, None), "", do_it=True, pause=0)
        counts.append(where.store().count())
    days = where.store().days()
    assert days is not None
    export(where, days, bars)
    rows = exported_rows(where, days)
    asked = [ask(where, day) for day in days]
    found = [
        name for day in days for name in differences(store_side(where, day, "store"), export_side(where, day))
    ]
    rejected = stages.quarantined(where)
    reconciled = reconcile(where, days)
    where.invoke("UsageRollerName", {})
    summary = where.bucket().get(view_key("summary", "7d"))
    usage = json.loads(gzip.decompress(summary or b""))["total"]
    forgotten = []
    list(lake.do_task(where, "forget", days, bars, "client-1"))
    forgotten.append(of_client(where, days))
    put(where, [line("of-a-client", when, {"client": "client-1"})])
    pipeline.settle()
    export(where, days, bars)
    forgotten.append(of_client(where, days))
    return Run(rows, counts, asked, found, rejected, reconciled, usage, forgotten)


def reconcile(where: Target, days: Days) -> dict[str, Counter[str]]:
    """Return what `tagline reconcile` says of each log group, over the days of rows and of lines."""
    found: dict[str, Counter[str]] = defaultdict(Counter)
    for day in {*days, datetime.fromtimestamp(LOGGED / 1_000, UTC).date()}:
        balances, exported = balances_of(where, day)
        for balance in balances:
            said = balance.to_json(day, exported)
            numbers = {**said.pop("quarantined"), **said}
            group = numbers.pop("log_group")
            del numbers["day"]
            found[group].update(numbers)
    return dict(found)


def of_client(where: Target, days: Days) -> tuple[int, int]:
    found = lake.do_task(where, "find", days, Progress(console=Console(file=io.StringIO())), "client-1")
    in_lake = sum(each["rows"] for answer in found for each in answer["results"])
    return in_lake, len(exported_rows(where, days).get("of-a-client", []))


@pytest.fixture(scope="module")
def runs() -> dict[str, Run]:
    found = {}
    for store in STORES:
        with Pipeline(tagline_with_samples(store=store), in_process=True) as pipeline:
            found[store] = run(pipeline)
    return found


of_every_store = pytest.mark.parametrize("store", STORES)


@of_every_store
def test_every_kind_of_value_comes_back_whole(runs: dict[str, Run], store: str) -> None:
    (row,) = runs[store].rows["values"]

    assert {name: row[name] for name in VALUES if name in row} == {
        "flag": "true",
        "ratio": "1.0E-7",
        "large": "1.0E10",
        "item_count": "3",
        "text": TEXT,
        "nested": '{"a":[1,{"b":"c"}]}',
        "long": LONG,
    }
    assert row["_empty"] == '["empty"]'


@of_every_store
def test_rows_count_once_however_often_they_are_delivered_or_replayed(
    runs: dict[str, Run], store: str
) -> None:
    stored = MANY + 10
    assert runs[store].counts == [stored, stored, stored + 20, stored + 20]
    assert sum(map(len, runs[store].rows.values())) == stored + 20
    assert {len(rows) for identity, rows in runs[store].rows.items() if identity != "twice"} == {1}


@of_every_store
def test_two_records_of_one_identity_are_both_there(runs: dict[str, Run], store: str) -> None:
    assert sorted(str(row["n"]) for row in runs[store].rows["twice"]) == ["1", "2"]


@of_every_store
def test_records_of_one_series_and_millisecond_are_all_there(runs: dict[str, Run], store: str) -> None:
    many = [rows for identity, rows in runs[store].rows.items() if identity.startswith("many-")]
    assert sorted(int(str(row["n"])) for rows in many for row in rows) == list(range(MANY))


@of_every_store
def test_what_cannot_be_a_row_is_in_quarantine_for_the_same_reason(runs: dict[str, Run], store: str) -> None:
    # Twice each: they came in two Kinesis records.
    assert {reason: count.records for reason, count in runs[store].rejected.items()} == {
        "future": 2,
        "invalid": 2,
    }
    (row,) = runs[store].rows["long-client"]
    assert json.loads(str(row["_said"])) == {"client": "c" * 3_000}


@of_every_store
def test_of_a_field_with_two_types_one_has_the_column_and_the_other_value_is_kept(
    runs: dict[str, Run], store: str
) -> None:
    rows = [row for number in (1, 2) for row in runs[store].rows[f"changing-{number}"]]
    values = [row.get("size") or json.loads(str(row["_extra"]))["size"] for row in rows]
    assert [str(value).removesuffix(".0") for value in values] == ["5", "large"]
    assert sum(row.get("size") is not None for row in rows) == 1


@of_every_store
def test_a_new_field_is_a_column_that_older_rows_lack(runs: dict[str, Run], store: str) -> None:
    (older,), (newer,) = runs[store].rows["changing-1"], runs[store].rows["changing-2"]
    assert (older["new_field"], newer["new_field"]) == (None, "y")


@of_every_store
def test_all_questions_agree_and_so_does_the_export(runs: dict[str, Run], store: str) -> None:
    assert sum(by_minute for by_minute, _, _ in runs[store].days) == runs[store].counts[-1]
    assert all(len({*answers}) == 1 for answers in runs[store].days)
    assert runs[store].differences == []


@of_every_store
def test_a_forgotten_client_does_not_come_back(runs: dict[str, Run], store: str) -> None:
    assert len(runs[store].rows["of-a-client"]) == 1
    assert runs[store].forgotten == [(0, 0), (0, 0)]


def test_both_stores_have_the_same_numbers_about_usage(runs: dict[str, Run]) -> None:
    usage = [runs[store].usage for store in STORES]
    assert usage[0] == usage[1]
    assert usage[0]["requests"] == MANY + 30


def test_both_stores_reconcile_alike(runs: dict[str, Run]) -> None:
    one, other = (runs[store].reconciled for store in STORES)
    assert one == other
    assert set(one) == {GROUP}
    assert one[GROUP]["missing"] == 1
    assert one[GROUP]["rows"] == one[GROUP]["exported_of_all"] == MANY + 30


def test_both_stores_export_the_same_rows(runs: dict[str, Run]) -> None:
    """But for the time of the run, where whole records are, and which type a column has."""

    def same(found: Run) -> dict[str, list[dict[str, str]]]:
        return {
            identity: sorted(
                (
                    {
                        name: value
                        for name, value in row.items()
                        if value is not None and name not in ("time", "_overflow")
                    }
                    for row in rows
                ),
                key=str,
            )
            for identity, rows in found.rows.items()
            if not identity.startswith("changing")
        }

    one, other = (same(runs[store]) for store in STORES)
    assert one == other


# The checks that both stores have to pass, and the tests of each beside those above.
CHECKS: Mapping[str, Sequence[str]] = {
    "every kind of value comes back": [
        "exporter.test_store_contract.test_values_are_text_in_one_form_and_times_have_nine_decimals"
    ],
    "an outcome for each row": [
        "consumers.rows.test_store_contract.test_every_row_has_an_outcome_in_its_place_however_rows_are_cut_into_requests",
        "consumers.rows.test_store_contract.test_copies_in_one_request_are_one_row",
    ],
    "the same batch again": [
        "consumers.rows.test_store_contract.test_rows_that_are_delivered_again_in_any_order_and_any_batches_stay_the_same",
        "consumers.test_lake_faults.test_readers_see_every_line_exactly_once",
        "consumers.test_fault_matrix.test_every_line_is_found_exactly_once",
    ],
    "another Kinesis record, a replay, a backfill": [
        "test_both_stores.test_rows_count_once_however_often_they_are_delivered_or_replayed"
    ],
    "versions": [
        "consumers.rows.test_store_contract.test_a_row_of_a_higher_version_replaces_the_one_that_is_stored",
        "consumers.rows.test_store_contract.test_a_row_of_a_lower_version_changes_nothing",
    ],
    "many records of one millisecond": [
        "test_both_stores.test_records_of_one_series_and_millisecond_are_all_there"
    ],
    "what is refused": [
        "consumers.rows.test_store_contract.test_a_row_outside_the_window_has_a_reason_and_its_neighbours_are_stored",
        "test_both_stores.test_what_cannot_be_a_row_is_in_quarantine_for_the_same_reason",
    ],
    "failures of the service": [
        "consumers.rows.test_store_contract.test_whatever_fails_every_row_is_stored_exactly_once_in_the_end",
        "consumers.rows.test_store_contract.test_throttling_without_end_leaves_rows_unwritten_before_the_reserve_is_used",
    ],
    "a field of two types": [
        "test_both_stores.test_of_a_field_with_two_types_one_has_the_column_and_the_other_value_is_kept"
    ],
    "a new field": ["test_both_stores.test_a_new_field_is_a_column_that_older_rows_lack"],
    "questions and texts agree": [
        "exporter.test_store_contract.test_rows_are_counted_by_minute_by_log_group_and_altogether",
        "cli.test_compare.test_both_stores_have_the_same_rows_of_one_log_and_export_the_same_text",
    ],
    "readers between all changes": [
        "exporter.stores.test_lake_readers.test_no_change_of_an_export_an_erasure_or_of_late_rows_shows_a_wrong_count",
        "exporter.stores.test_lake_view.test_the_view_has_each_row_once_after_every_change",
    ],
    "questions about usage": ["test_both_stores.test_both_stores_have_the_same_numbers_about_usage"],
    "erasure": [
        "exporter.stores.test_lake_readers.test_what_comes_again_of_a_forgotten_client_is_gone_after_the_next_night",
        "test_both_stores.test_a_forgotten_client_does_not_come_back",
    ],
    "retention and budget": [
        "exporter.stores.test_lake.test_a_day_has_lost_rows_only_if_its_export_was_due_before_its_fragments_were_deleted",
        "consumers.lines.test_memory.test_the_worst_events_fit_into_the_functions_memory",
    ],
}


@pytest.mark.parametrize("check", CHECKS)
def test_each_check_has_its_tests(check: str) -> None:
    for test in CHECKS[check]:
        module, _, name = test.rpartition(".")
        assert callable(getattr(import_module(f"tests.{module}"), name)), test


def test_there_are_fifteen_checks() -> None:
    assert len(CHECKS) == 15
