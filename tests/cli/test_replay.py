"""`tagline replay` and `tagline quarantine`: nothing is lost and nothing doubles, wherever they are ended."""

import contextlib
import io
import json
import random
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from hashlib import md5
from pathlib import Path
from typing import Any, cast

import pytest
import requests
from botocore.exceptions import ClientError, EndpointConnectionError
from hypothesis import given, settings
from hypothesis import strategies as st
from onemachine import event_sources, filter_pattern
from onemachine.faults import Fault, Kind
from onemachine.pipeline import Pipeline
from tagline import Record, read, write
from typer.testing import CliRunner, Result

import cli.target
from cli import main, stages
from cli import replay as replaying
from cli.commands.kept import replay_logs
from cli.errors import CommandError
from cli.options import format_time, parse_time
from cli.quarantine import EVER, ArrivalDays, list_objects
from cli.reconcile import balances_of
from cli.replay import ReplayOutcome
from cli.target import Target, target_of, write_running
from consumers import bucket
from consumers.lines import quarantine
from consumers.lines.extract import Rejected
from consumers.lines.subscription import LogEvent, encode
from consumers.rows import schema, table
from consumers.rows.handler import make_handler
from consumers.rows.timestream.writer import Timestream
from tests.builders import GROUP, LOGGED, Context, data, envelope, kinesis_event, messages_in
from tests.consumers.meters.meters import line as meter_line
from tests.row_store import MemoryStore
from tests.twins import client_error

TAG = "usage_record"
LISTED = datetime(2025, 11, 20, tzinfo=UTC)


def line(identity: str, **fields: Any) -> str:
    return write(Record(id=identity, timestamp=LOGGED, fields={"route": "/pets", **fields}))


class KilledError(BaseException):
    """The command was killed: nothing of it runs any more."""


class Account:
    """S3, Lambda and CloudWatch Logs in memory, as far as a replay uses them: a `Target`.

    Attributes:
        objects: The bucket.
        events: What the log group has.
        handlers: The functions by name.
        faults: What the next invocations raise.
        dies_of: A sequence number that every function dies of.
        calls_left: The call at which the command is killed; None for never.
    """

    tag = TAG
    meter_tag = "meter_record_for_stream"
    prefix = ""

    def __init__(self) -> None:
        self.outputs = {"Bucket": "bucket", "RowConsumerName": "consumer"}
        self.objects: dict[str, bytes] = {}
        self.events: list[dict[str, Any]] = []
        self.handlers: dict[str, Callable[[dict[str, Any]], Any]] = {}
        self.faults: list[Exception | dict[str, Any]] = []
        self.dies_of = ""
        self.calls_left: int | None = None
        self.invocations = 0
        self.exceptions = type("Exceptions", (), {"NoSuchKey": _NoSuchKeyError})

    def client(self, _service: str) -> "Account":
        return self

    def bucket(self) -> bucket.Bucket:
        return bucket.Bucket(self, "bucket")

    def write(self, key: str, body: bytes) -> None:
        """Write an object from a handler: `consumers.lines.quarantine.ObjectWriter`."""
        self.objects[key] = body

    def quarantined(self) -> list[str]:
        return sorted(
            kept.identity[1]
            for key, body in self.objects.items()
            if key.startswith("quarantine/")
            for kept in quarantine.read(body)
        )

    def _called(self) -> None:
        if self.calls_left is not None:
            self.calls_left -= 1
            if self.calls_left < 0:
                raise KilledError

    # --- S3

    def get_object(self, *, Bucket: str, Key: str) -> dict[str, Any]:  # noqa: N803 - boto3's names
        self._called()
        assert Bucket == "bucket"
        if Key not in self.objects:
            raise _NoSuchKeyError
        return {"Body": io.BytesIO(self.objects[Key]), "ETag": _etag(self.objects[Key])}

    def upload_fileobj(
        self,
        file: io.BufferedReader,
        bucket: str,
        key: str,
        ExtraArgs: Any,  # noqa: N803
        Config: Any,  # noqa: ARG002, N803
    ) -> None:
        self._called()
        assert (bucket, ExtraArgs) == ("bucket", {"ContentType": "application/json"})
        self.objects[key] = file.read()

    def copy_object(self, *, Bucket: str, Key: str, CopySource: Any, CopySourceIfMatch: str) -> None:  # noqa: ARG002, N803
        self._called()
        source = self.objects.get(CopySource["Key"])
        if source is None or _etag(source) != CopySourceIfMatch:
            raise client_error("PreconditionFailed" if source is not None else "NoSuchKey", 412)
        self.objects[Key] = source

    def delete_object(self, *, Bucket: str, Key: str, IfMatch: str) -> None:  # noqa: ARG002, N803
        self._called()
        if _etag(self.objects[Key]) != IfMatch:
            raise client_error("PreconditionFailed", 412)
        self.objects.pop(Key, None)

    def delete_objects(self, *, Bucket: str, Delete: Any) -> dict[str, Any]:  # noqa: ARG002, N803
        assert 1 <= len(Delete["Objects"]) <= 1_000  # what S3 takes
        for named in Delete["Objects"]:  # not all at once: a command may be killed in between
            self._called()
            self.objects.pop(named["Key"], None)
        return {}

    # --- pages of S3 and CloudWatch Logs, two items each

    def get_paginator(self, operation: str) -> "_Pages":
        return _Pages(self, operation)

    # --- Lambda

    def invoke(self, *, FunctionName: str, Payload: bytes) -> dict[str, Any]:  # noqa: N803
        self._called()
        self.invocations += 1
        assert len(Payload) <= 6_291_456  # what Lambda takes
        if self.faults:
            fault = self.faults.pop(0)
            if isinstance(fault, Exception):
                raise fault
            return {"FunctionError": "Unhandled", "Payload": io.BytesIO(json.dumps(fault).encode())}
        event = json.loads(Payload)
        if self.dies_of in [record["kinesis"]["sequenceNumber"] for record in event["Records"]]:
            died = b'{"errorType": "Runtime.ExitError", "errorMessage": "killed"}'
            return {"FunctionError": "Unhandled", "Payload": io.BytesIO(died)}
        answer = self.handlers[FunctionName](event)
        self._called()  # killed after the function has done its work, before it is known
        return {"Payload": io.BytesIO(json.dumps(answer).encode())}


class _NoSuchKeyError(ClientError):  # type: ignore[misc]  # botocore has no types
    def __init__(self) -> None:
        super().__init__({"Error": {"Code": "NoSuchKey", "Message": "no such key"}}, "GetObject")


class _Pages:
    def __init__(self, account: Account, operation: str) -> None:
        self._account = account
        self._operation = operation

    def paginate(self, **asked: Any) -> Iterator[dict[str, Any]]:
        if self._operation == "list_objects_v2":
            keys = sorted(key for key in self._account.objects if key.startswith(asked["Prefix"]))
            yield {}  # a page may be empty
            for start in range(0, len(keys), 2):
                self._account._called()
                yield {
                    "Contents": [
                        {"Key": key, "ETag": _etag(body), "LastModified": LISTED, "Size": len(body)}
                        for key in keys[start : start + 2]
                        if (body := self._account.objects.get(key)) is not None
                    ]
                }
        elif self._operation == "describe_log_groups":
            arn = f"arn:aws:logs:us-east-1:123456789012:log-group:{GROUP}:*"
            yield {
                "logGroups": [{"logGroupName": GROUP + "-x", "arn": "x"}, {"logGroupName": GROUP, "arn": arn}]
            }
        else:
            within = [
                event
                for event in sorted(self._account.events, key=lambda event: event["timestamp"])
                if filter_pattern.matches(asked["filterPattern"], event["message"])
                and asked["startTime"] <= event["timestamp"] <= asked["endTime"]
            ]
            yield {"events": []}  # a page may be empty, and more follow
            for start in range(0, len(within), 2):
                self._account._called()
                yield {"events": within[start : start + 2]}


def _etag(body: bytes) -> str:
    return md5(body, usedforsecurity=False).hexdigest()


@dataclass
class Case:
    """An account with a consumer over a store."""

    account: Account
    store: MemoryStore

    def deliver(self, event: dict[str, Any]) -> None:
        assert self.account.handlers["consumer"](event) == {"batchItemFailures": []}

    @property
    def target(self) -> Target:
        return cast("Target", self.account)  # as much of one as is used

    def replay_quarantine(self, *reasons: str, chance: random.Random | None = None) -> ReplayOutcome:
        outcome = ReplayOutcome()
        replaying.recover(self.target, outcome)
        listed = list(list_objects(self.target, EVER, reasons))
        if chance is not None:
            chance.shuffle(listed)
        items = replaying.from_quarantine(self.target, listed, outcome)
        replaying.send_items(self.target, items, outcome, lambda _: None)
        return outcome


@pytest.fixture
def case() -> Case:
    return new_case()


def new_case() -> Case:
    account, store = Account(), MemoryStore()
    handler = make_handler(store, account, tag=TAG, own_log_groups="/tagline/", report=lambda _: None)
    account.handlers["consumer"] = lambda event: handler(event, Context())
    return Case(account, store)


FATES = st.sampled_from(["", "late", "invalid", "future"])


@settings(deadline=None, max_examples=150)
@given(
    fates=st.lists(st.tuples(FATES, FATES, FATES), min_size=1, max_size=9),
    killed_at=st.lists(st.integers(0, 40), max_size=3),
    reasons=st.sets(st.sampled_from(["late", "invalid", "future"])),
    seed=st.integers(),
)
def test_after_replays_every_line_is_in_the_store_or_once_in_quarantine(
    fates: list[tuple[str, str, str]], killed_at: list[int], reasons: set[str], seed: int
) -> None:
    """Replays are killed at any call and the store changes its mind in between; then all is replayed."""
    case, chance = new_case(), random.Random(seed)
    ids = [str(number) for number in range(len(fates))]

    def refuse(turn: int) -> None:
        case.store.refused = {
            identity: fate[turn] for identity, fate in zip(ids, fates, strict=True) if fate[turn]
        }

    refuse(0)
    batches = [ids[start : start + 4] for start in range(0, len(ids), 4)]
    case.deliver(kinesis_event(*(data(envelope(*map(line, some), ids=some)) for some in batches)))
    for turn, calls in enumerate(killed_at):
        refuse(1 + turn % 2)
        case.account.calls_left = calls
        with contextlib.suppress(KilledError):
            case.replay_quarantine(*reasons, chance=chance)
        case.account.calls_left = None
        # At no moment is a line nowhere.
        assert {*case.store.ids(), *case.account.quarantined()} == set(ids)
    refuse(2)
    case.replay_quarantine(chance=chance)

    assert {*case.store.ids()} | set(case.account.quarantined()) == set(ids)
    assert set(case.store.ids()) & set(case.account.quarantined()) == set()
    assert max(Counter(case.account.quarantined()).values(), default=1) == 1
    assert replaying.SENDING not in case.account.objects


def test_a_replay_counts_what_it_sent_and_what_was_rejected_again(case: Case) -> None:
    case.store.refused = {"a": "late", "b": "late"}
    case.deliver(kinesis_event(data(envelope(line("a"), line("b"), f"{TAG} {{broken"))))
    case.store.refused = {"b": "late"}

    outcome = case.replay_quarantine()

    assert outcome.counts == {"readable": 2, "unparseable": 1}
    assert outcome.rejected == {"late": 1, "unparseable": 1}


@pytest.mark.parametrize(
    ("meter_tag", "text"),
    [("meter_record_for_stream", meter_line("a")), ("", line("a"))],
    ids=["meters", "documents"],
)
def test_a_dry_run_reads_lines_as_their_consumer_does(meter_tag: str, text: str, case: Case) -> None:
    case.account.outputs["MeterConsumerName"] = "meters"
    case.account.meter_tag = meter_tag
    record = kinesis_event(data(envelope("x")))["Records"][0]
    event = LogEvent("1", LOGGED, text, GROUP, "stream", "1")
    key = quarantine.object_key("meter_refused", record)
    case.account.objects[key] = quarantine.lines(record, [(event, Rejected("meter_refused", "507"))])
    outcome = ReplayOutcome()

    listed = list(list_objects(case.target, EVER))
    items = replaying.from_quarantine(case.target, listed, outcome)
    replaying.count_items(case.target, items, outcome, lambda _: None)

    assert outcome.counts == {"readable": 1}


def test_what_is_mended_is_moved_and_what_is_not_is_kept_under_a_new_name(case: Case) -> None:
    case.store.refused = {"a": "late", "b": "late", "c": "invalid"}
    case.deliver(kinesis_event(data(envelope(line("a"), line("b"), line("c"), ids=["a", "b", "c"]))))
    before = {key for key in case.account.objects if "/late/" in key}
    case.store.refused = {"b": "future", "c": "invalid"}

    outcome = case.replay_quarantine("late")

    assert {*case.store.ids()} == {"a"}
    assert case.account.quarantined() == ["b", "c"]
    assert {
        key.removeprefix("replayed/") for key in case.account.objects if key.startswith("replayed/")
    } == before
    assert (outcome.items, outcome.rejected, outcome.failed) == (1, {"future": 1}, {})


def test_a_dry_run_counts_and_changes_nothing(case: Case) -> None:
    case.store.refused = {"a": "late"}
    case.deliver(kinesis_event(data(envelope(line("a"), "usage_record {")), "undecodable"))
    before = dict(case.account.objects)
    outcome = ReplayOutcome()

    items = replaying.from_quarantine(case.target, list_objects(case.target, EVER), outcome)
    replaying.count_items(case.target, items, outcome, lambda _: None)

    assert (case.account.objects, case.account.invocations) == (before, 0)
    assert outcome.items == 3
    assert outcome.counts == {"readable": 1, "unparseable": 1, "undecodable": 1}


def test_many_small_objects_are_sent_together(case: Case) -> None:
    case.store.refused = {str(number): "late" for number in range(50)}
    case.deliver(kinesis_event(*(data(envelope(line(str(number)))) for number in range(50))))
    case.store.refused = {}

    assert case.replay_quarantine().items == 50
    assert case.account.invocations == 1


def test_an_object_that_cannot_be_read_is_named_and_left_and_the_others_are_replayed(case: Case) -> None:
    case.store.refused = {"a": "late"}
    case.deliver(kinesis_event(data(envelope(line("a")))))
    case.store.refused = {}
    foreign = "quarantine/late/year=2025/month=11/day=20/foreign.jsonl"
    case.account.objects[foreign] = b"no JSON\n"

    outcome = case.replay_quarantine()

    assert {*case.store.ids()} == {"a"}
    assert list(outcome.failed) == [foreign]
    assert "line 1" in outcome.failed[foreign]
    assert foreign in case.account.objects


def test_an_object_that_is_written_anew_while_it_is_replayed_stays(case: Case) -> None:
    case.store.refused = {"a": "late"}
    case.deliver(kinesis_event(data(envelope(line("a"), ids=["a"]))))
    (key,) = [name for name in case.account.objects if name.startswith("quarantine/")]
    inner = case.account.handlers["consumer"]

    def redelivered(event: dict[str, Any]) -> Any:
        case.account.objects[key] += case.account.objects[key].replace(b'"a"', b'"b"')
        return inner(event)

    case.account.handlers["consumer"] = redelivered
    case.store.refused = {}
    case.replay_quarantine()

    assert case.account.quarantined() == ["a", "b"]


def test_a_function_that_takes_nothing_ends_the_replay_and_nothing_is_moved(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replaying, "FIRST_WAIT_S", 0.0)
    case.store.refused = {"a": "late"}
    event = kinesis_event(data(envelope(line("a"), ids=["a"])))
    case.deliver(event)
    number = event["Records"][0]["kinesis"]["sequenceNumber"]
    inner = case.account.handlers["consumer"]
    case.account.handlers["consumer"] = lambda _: {"batchItemFailures": [{"itemIdentifier": number}]}

    with pytest.raises(CommandError, match="consumer has left everything unwritten 6 times in a row"):
        case.replay_quarantine()
    assert case.account.quarantined() == ["a"]

    case.account.handlers["consumer"], case.store.refused = inner, {}
    case.replay_quarantine()
    assert (case.account.quarantined(), case.store.ids()) == ([], ["a"])


@pytest.mark.parametrize(
    "fault",
    [
        # https://docs.aws.amazon.com/lambda/latest/api/API_Invoke.html
        client_error("TooManyRequestsException", 429),
        client_error("ServiceException", 500),
        client_error("EC2UnexpectedException", 502),
        EndpointConnectionError(endpoint_url="http://127.0.0.1"),
        {"errorType": "Runtime.ExitError", "errorMessage": "out of memory"},
    ],
    ids=lambda fault: getattr(fault, "response", {}).get("Error", {}).get("Code", type(fault).__name__),
)
def test_a_call_that_fails_for_once_is_made_again(
    case: Case, fault: Exception | dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replaying, "FIRST_WAIT_S", 0.0)
    case.store.refused = {"a": "late", "b": "late"}
    case.deliver(kinesis_event(data(envelope(line("a"))), data(envelope(line("b")))))
    case.store.refused = {}
    case.account.faults = [fault]

    assert case.replay_quarantine().failed == {}
    assert {*case.store.ids()} == {"a", "b"}
    assert case.account.quarantined() == []


def test_a_function_that_may_not_be_called_is_a_complaint(case: Case) -> None:
    case.store.refused = {"a": "late"}
    case.deliver(kinesis_event(data(envelope(line("a"), ids=["a"]))))
    case.account.faults = [client_error("AccessDeniedException", 403)]

    with pytest.raises(CommandError, match=r"cannot call consumer: .*AccessDenied"):
        case.replay_quarantine()
    assert case.account.quarantined() == ["a"]


def test_a_record_that_the_function_dies_of_is_named_and_left_and_the_others_are_replayed(case: Case) -> None:
    ids = [str(number) for number in range(9)]
    case.store.refused = dict.fromkeys(ids, "late")
    event = kinesis_event(*(data(envelope(line(identity), ids=[identity])) for identity in ids))
    case.deliver(event)
    case.store.refused = {}
    case.account.dies_of = event["Records"][4]["kinesis"]["sequenceNumber"]

    outcome = case.replay_quarantine()

    assert {*case.store.ids()} == {*ids} - {"4"}
    assert case.account.quarantined() == ["4"]
    ((key, why),) = outcome.failed.items()
    assert key.startswith("quarantine/late/")
    assert why == "consumer failed: Runtime.ExitError: killed"


def test_a_function_that_fails_on_everything_ends_the_replay(case: Case) -> None:
    case.store.refused = {str(number): "late" for number in range(60)}
    case.deliver(kinesis_event(*(data(envelope(line(str(number)))) for number in range(60))))
    case.account.faults = [{"errorType": "SettingsError", "errorMessage": "BUCKET is not set"}] * 200

    with pytest.raises(CommandError, match="consumer fails on everything: SettingsError: BUCKET is not set"):
        case.replay_quarantine()
    assert case.account.invocations == replaying.MAX_FAILURES + 1
    assert len(case.account.quarantined()) == 60


@pytest.mark.parametrize(
    ("reason", "function"),
    [("late", "consumer"), ("undecodable", "consumer"), ("meter_invalid", "meters")],
)
def test_what_was_rejected_goes_to_the_consumer_that_rejected_it(
    case: Case, reason: str, function: str
) -> None:
    case.account.outputs["MeterConsumerName"] = "meters"

    assert replaying.consumer_of(case.target, reason) == function


def test_what_a_consumer_rejected_that_is_not_there_is_a_complaint(case: Case) -> None:
    with pytest.raises(
        CommandError, match="no MeterConsumerName, which reads lines of the reason meter_invalid"
    ):
        replaying.consumer_of(case.target, "meter_invalid")


# --- batches that Lambda gave up --------------------------------------------------------------------------


def given_up(event: dict[str, Any]) -> bytes:
    arn = "arn:aws:lambda:us-east-1:123456789012:function:consumer"
    return json.dumps({"requestContext": {"functionArn": arn}, "payload": json.dumps(event)}).encode()


# https://docs.aws.amazon.com/lambda/latest/dg/kinesis-on-failure-destination.html
FAILED_KEY = (
    "aws/lambda/a1b2c3d4-5678-90ab-cdef-EXAMPLE11111/shardId-000000000001/2025/11/{day:02}/"
    "2025-11-{day:02}T00.38.06-a1b2c3d4-5678-90ab-cdef-EXAMPLE{day:05}"
)


@settings(deadline=None, max_examples=60)
@given(
    fates=st.lists(FATES, min_size=1, max_size=9),
    killed_at=st.lists(st.integers(0, 25), max_size=3),
    copies=st.integers(1, 3),
)
def test_batches_that_were_given_up_end_in_the_store_or_in_quarantine(
    fates: list[str], killed_at: list[int], copies: int
) -> None:
    """The same batch may be there more than once, and the replay be killed at any call."""
    case = new_case()
    ids = [str(number) for number in range(len(fates))]
    case.store.refused = {identity: fate for identity, fate in zip(ids, fates, strict=True) if fate}
    batches = [ids[start : start + 4] for start in range(0, len(ids), 4)]
    event = kinesis_event(*(data(envelope(*map(line, some), ids=some)) for some in batches))
    for day in range(1, copies + 1):
        case.account.objects[FAILED_KEY.format(day=day)] = given_up(event)
    for calls in [*killed_at, None]:
        case.account.calls_left = calls
        outcome = ReplayOutcome()
        try:
            keys = list(replaying.failed_batches(case.target, EVER))
            items = replaying.from_failed_batches(case.target, keys, outcome)
            replaying.send_items(case.target, items, outcome, lambda _: None)
        except KilledError:
            continue
        finally:
            case.account.calls_left = None

    assert case.account.quarantined() == sorted(case.store.refused)
    assert {*case.store.ids()} == {*ids} - {*case.store.refused}
    assert list(replaying.failed_batches(case.target, EVER)) == []


def test_a_window_of_batches_is_told_by_the_day_in_the_key(case: Case) -> None:
    for day in (1, 2, 3):
        case.account.objects[FAILED_KEY.format(day=day)] = b""
    case.account.objects["aws/lambda/async/function/2025/11/02/2025-11-02T00.38.06-x"] = b""

    days = ArrivalDays(date(2025, 11, 2), date(2025, 11, 2))
    assert list(replaying.failed_batches(case.target, days)) == [FAILED_KEY.format(day=2)]


def test_a_batch_without_its_event_is_named_and_left(case: Case) -> None:
    key = FAILED_KEY.format(day=1)
    case.account.objects[key] = b"{}"
    outcome = ReplayOutcome()

    items = replaying.from_failed_batches(case.target, [key], outcome)
    replaying.send_items(case.target, items, outcome, lambda _: None)

    assert list(outcome.failed) == [key]
    assert key in case.account.objects


# --- log groups -------------------------------------------------------------------------------------------


def logged(identity: str, timestamp: int, message: str | None = None) -> dict[str, Any]:
    return {
        "eventId": identity,
        "timestamp": timestamp,
        "message": line(identity) if message is None else message,
        "logStreamName": "stream",
        "ingestionTime": timestamp + 800,
    }


FIRST, LAST = "2025-11-20T10:00:00", "2025-11-20T10:01:00"
FIRST_MS = 1_763_632_800_000


@settings(deadline=None, max_examples=60)
@given(
    fates=st.lists(FATES, min_size=1, max_size=9),
    times=st.lists(st.integers(0, 3), min_size=9, max_size=9),
    delivered=st.sets(st.integers(0, 8)),
    killed_at=st.lists(st.integers(0, 25), max_size=3),
)
def test_lines_of_a_log_group_end_in_the_store_or_once_in_quarantine(
    fates: list[str], times: list[int], delivered: set[int], killed_at: list[int]
) -> None:
    """Some have come through the stream before, many share a millisecond, and the replay is killed."""
    case = new_case()
    ids = [str(number) for number in range(len(fates))]
    case.store.refused = {identity: fate for identity, fate in zip(ids, fates, strict=True) if fate}
    case.account.events = [
        logged(identity, FIRST_MS + time) for identity, time in zip(ids, times, strict=False)
    ]
    before = [identity for identity in ids if int(identity) in delivered]
    if before:
        case.deliver(kinesis_event(data(envelope(*map(line, before), ids=before))))
    for calls in [*killed_at, None]:
        case.account.calls_left = calls
        try:
            replay_logs(case.target, ReplayOutcome(), (GROUP, FIRST, LAST), "", do_it=True, pause=0)
        except KilledError:
            continue
        finally:
            case.account.calls_left = None

    assert case.account.quarantined() == sorted(case.store.refused)
    assert {*case.store.ids()} == {*ids} - {*case.store.refused}
    assert not any(key.startswith(replaying.CURSORS) for key in case.account.objects)


@pytest.mark.parametrize("meter_tag", ["meter_record_for_stream", ""], ids=["meters", "documents"])
def test_each_consumer_gets_the_lines_of_a_log_group_that_it_reads_and_has_not_in_quarantine(
    meter_tag: str,
    case: Case,
) -> None:
    case.account.meter_tag = meter_tag
    sent: dict[str, list[str]] = {"consumer": [], "meters": []}
    for name, messages in sent.items():

        def take(event: dict[str, Any], messages: list[str] = messages) -> dict[str, Any]:
            for record in event["Records"]:
                messages += messages_in(record["kinesis"]["data"])
            return {"batchItemFailures": []}

        case.account.handlers[name] = take
    case.account.outputs["MeterConsumerName"] = "meters"
    both, metered, late = write(Record("1", LOGGED, {}, type="meter")), meter_line("2"), line("3")
    case.account.events = [
        logged(str(number), FIRST_MS + number, text)
        for number, text in enumerate((both, metered, late, "START"))
    ]
    record = kinesis_event("")["Records"][0]
    for number, reason in ((0, "meter_refused"), (2, "late")):
        event = LogEvent(str(number), LOGGED, "", GROUP, "stream", "1")
        lines = quarantine.lines(record, [(event, Rejected(reason, ""))])
        case.account.objects[quarantine.object_key(reason, record)] = lines

    for function in ("", "meters"):
        replay_logs(case.target, ReplayOutcome(), (GROUP, FIRST, LAST), function, do_it=True, pause=0)

    assert sent == {"consumer": [both], "meters": [metered, late] if meter_tag else [late]}


def test_a_replay_of_a_log_group_goes_on_where_it_ended(
    case: Case, capsys: pytest.CaptureFixture[str]
) -> None:
    case.account.events = [logged(str(number), FIRST_MS + number * 10) for number in range(6)]
    asked = (GROUP, FIRST, LAST)
    cursor = replaying.cursor_key(*asked, "consumer")
    (last_sent,) = [
        replaying.ReplayItem(str(FIRST_MS + 30), "consumer", []),
    ]
    replaying.write_cursor(case.target, cursor, last_sent)

    replay_logs(case.target, ReplayOutcome(), asked, "", do_it=True, pause=0)

    assert {*case.store.ids()} == {"3", "4", "5"}
    assert "replayed up to 2025-11-20T10:00:00.030+00:00 already" in capsys.readouterr().err.replace(
        "\n", " "
    )


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (("", FIRST, LAST), "a replay of logs needs a log group and a first time"),
        ((GROUP, None, LAST), "a replay of logs needs a log group and a first time"),
        ((GROUP, "yesterday", LAST), "--from yesterday is not a time"),
        ((GROUP, LAST, FIRST), "2025-11-20T10:00:00.000.00:00 is not after 2025-11-20T10:01:00"),
        (("/aws/lambda/none", FIRST, LAST), "the log group /aws/lambda/none does not exist"),
        (("/tagline/prod/RowConsumer", FIRST, LAST), "is one of the pipeline's own log groups"),
    ],
)
def test_a_log_group_or_window_that_there_is_not_is_a_complaint(
    case: Case, asked: tuple[str, str | None, str | None], said: str
) -> None:
    with pytest.raises(CommandError, match=said):
        replay_logs(case.target, ReplayOutcome(), asked, "", do_it=True, pause=0)
    assert case.account.invocations == 0


@pytest.mark.parametrize(
    ("text", "end", "expected"),
    [
        ("2025-11-20", False, "2025-11-20T00:00:00.000+00:00"),
        ("2025-11-20", True, "2025-11-21T00:00:00.000+00:00"),
        ("20251120", True, "2025-11-21T00:00:00.000+00:00"),
        ("2025-W47-4", True, "2025-11-21T00:00:00.000+00:00"),
        ("2025-11-20T10:00:00", True, "2025-11-20T10:00:00.000+00:00"),
        ("2025-11-20T10:00:00.250Z", False, "2025-11-20T10:00:00.250+00:00"),
        ("2025-11-20T10:00:00+01:00", False, "2025-11-20T09:00:00.000+00:00"),
    ],
)
def test_a_day_means_all_of_it_and_a_time_is_utc(text: str, end: bool, expected: str) -> None:
    assert format_time(parse_time("--to", text, end=end)) == expected


# --- the commands, against a pipeline ---------------------------------------------------------------------


@pytest.fixture
def here(tagline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pipeline:
    """Return a pipeline that the commands find."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(replaying, "FIRST_WAIT_S", 0.01)
    write_running(target_of(tagline))
    return tagline


def command(*arguments: str) -> Result:
    return CliRunner(env={"COLUMNS": "200"}).invoke(main.app, arguments)


def put(pipeline: Pipeline, *datas: bytes) -> None:
    kinesis = pipeline.client("kinesis")
    for each in datas:
        kinesis.put_record(StreamName=pipeline.outputs["tagline"]["StreamName"], Data=each, PartitionKey="k")


def now_ms() -> int:
    return int(datetime.now(UTC).timestamp() * 1000)


def stored_ids(where: Target) -> list[str]:
    if where.store().count() == 0:
        return []  # A table without rows has no columns.
    return sorted(str(row[0]) for row in where.store().sql('SELECT "_id" FROM {table}').rows)


@pytest.mark.tagline(processes=True)
def test_the_commands_list_show_and_replay_what_is_in_quarantine(here: Pipeline) -> None:
    where = target_of(here)
    assert "Nothing is in quarantine." in command("quarantine", "ls").stdout
    ahead = write(Record(id="ahead", timestamp=now_ms() + 3_600_000, fields={"route": "/\x1b[31m"}))
    put(here, encode(envelope(ahead, "usage_record [bold]no object", ids=["1" * 56, "2" * 56])), b"no gzip")
    here.settle()

    rows = [json.loads(row) for row in command("quarantine", "ls", "--json").stdout.splitlines()]
    assert [(row["reason"], row["objects"], row["lines"]) for row in rows] == [
        ("future", 1, 1),
        ("undecodable", 1, 1),
        ("unparseable", 1, 1),
    ]
    listed = command("quarantine", "ls", "--reason", "unparseable", "--keys").stdout
    (key,) = re.findall(r"quarantine/unparseable/\S+\.jsonl", listed)
    shown = command("quarantine", "show", key).stdout
    assert "carries the tag and no JSON object" in shown
    assert "usage_record [bold]no object" in shown
    (whole,) = command("quarantine", "show", key, "--json").stdout.splitlines()
    assert json.loads(whole)["message"] == "usage_record [bold]no object"
    (future,) = re.findall(
        r"quarantine/future/\S+\.jsonl", command("quarantine", "ls", "--keys", "--reason", "future").stdout
    )
    assert "\x1b[31m" not in command("quarantine", "show", future).stdout

    day = datetime.fromtimestamp(read(ahead).timestamp / 1000, UTC).date()
    line_written = datetime.fromtimestamp(LOGGED / 1000, UTC).date()
    arrived = date.fromisoformat(rows[1]["day"])

    def quarantined(day: date) -> Counter[str]:
        balances, _ = balances_of(where, day)
        return sum((Counter(each.totals.quarantined) for each in balances), Counter())

    assert quarantined(line_written)["future"] == 1

    dry = command("replay", "quarantine")
    assert re.search(r"lines: readable\W+1\b", dry.stdout)
    assert (dry.exit_code, stored_ids(where)) == (0, [])
    # The hour passes, and what was too early is not any more.
    here.advance(timedelta(hours=1, minutes=1))
    done = command("replay", "quarantine", "--run")

    assert done.exit_code == 0, done.output
    assert stored_ids(where) == ["ahead"]
    kept = {reason: each.records for reason, each in stages.quarantined(where).items()}
    assert kept == {"undecodable": 1, "unparseable": 1}
    assert re.search(r"rejected again: unparseable\W+1\b", done.stdout)
    assert quarantined(line_written)["future"] == 0
    assert quarantined(arrived)["undecodable"] == 1  # It was replayed as well, and is one as before.
    assert "table: 1 rows" in command("reconcile", "--day", day.isoformat()).stdout


@pytest.mark.tagline(processes=True)
def test_batches_that_lambda_gave_up_are_replayed_and_the_counts_add_up(
    here: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    where = target_of(here)
    monkeypatch.setattr(event_sources, "LONGEST_PAUSE_S", 0.02)
    here.services.faults.add(Fault(Kind.DENY, "timestream", "WriteRecords", times=None))
    lines = [write(Record(id=f"{number:02}", timestamp=now_ms())) for number in range(12)]
    put(here, *(encode(envelope(*lines[start : start + 4])) for start in range(0, 12, 4)))
    here.settle()
    assert stored_ids(where) == []
    assert len(list(replaying.failed_batches(where, EVER))) > 0

    refused = command("replay", "failed", "--run")
    assert isinstance(refused.exception, CommandError)
    here.services.faults.clear()
    first = command("replay", "failed", "--run")
    again = command("replay", "failed", "--run")

    assert (first.exit_code, again.exit_code) == (0, 0), first.output
    assert stored_ids(where) == [f"{number:02}" for number in range(12)]
    assert stages.quarantined(where) == {}
    assert list(replaying.failed_batches(where, EVER)) == []


@pytest.mark.tagline(processes=True)
def test_a_log_group_is_replayed_into_an_empty_table_and_into_a_full_one(here: Pipeline) -> None:
    where = target_of(here)
    url = here.outputs["sample"]["SampleApiUrl"]
    group = "/aws/lambda/sample-SampleApi"
    here.services.delivery.disturb(Kind.CORRUPT, times=2)
    for number in range(6):
        requests.get(f"{url}/pets/{number}", timeout=60)
    here.settle()
    before = stored_ids(where)
    assert len(before) < 6
    start = datetime.now(UTC) - timedelta(minutes=2)

    for _ in range(2):
        done = command(
            "replay", "logs", "--log-group", group, "--from", f"{start:%Y-%m-%dT%H:%M:%S}", "--run"
        )
        assert done.exit_code == 0, done.output

    after = stored_ids(where)
    assert len(after) == 6
    assert set(before) < set(after)


def test_a_replay_with_a_changed_schema_updates_rows_and_one_without_leaves_them(tagline: Pipeline) -> None:
    where = target_of(tagline)
    bucket = where.bucket()
    timestream = Timestream(
        tagline.client("timestream-write"),
        where.outputs["TimestreamDatabase"],
        where.outputs["TimestreamTable"],
        sleep=lambda _: None,
        jitter=lambda: 0.0,
    )

    def declared(revision: int) -> table.Plans:
        text = f'type = "api_request"\nrevision = {revision}\n[measures]\n'
        column = f'mapped = {{ type = "VARCHAR", default = "by {revision}" }}\n'
        return schema.plans(schema.parse({"api_request.toml": (text + column).encode()}))

    event = kinesis_event(
        data(envelope(*(write(Record(id=str(number), timestamp=now_ms())) for number in range(20))))
    )
    for revision in (1, 1, 2):
        handler = make_handler(
            timestream,
            bucket,
            tag=TAG,
            own_log_groups="/tagline/",
            report=lambda _: None,
            plans=declared(revision),
        )
        assert handler(event, Context()) == {"batchItemFailures": []}

    rows = where.store().sql('SELECT "_id", mapped FROM {table}').rows
    assert sorted(map(tuple, rows)) == sorted((str(number), "by 2") for number in range(20))
    assert stages.quarantined(where) == {}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("replay", "quarantine", "--from", "2026-11-20T10:00:00"), "is not a day"),
        (
            ("replay", "failed", "--from", "2026-11-20", "--to", "2026-11-19"),
            "2026-11-19 is before 2026-11-20",
        ),
        (
            ("quarantine", "ls", "--from", "2026-11-20", "--to", "2026-11-19"),
            "2026-11-19 is before 2026-11-20",
        ),
        (
            ("quarantine", "show", "quarantine/none.jsonl"),
            "nothing is in quarantine under quarantine/none.jsonl",
        ),
        (("replay", "logs"), "a replay of logs needs a log group and a first time"),
    ],
)
def test_what_cannot_be_done_is_a_complaint(case: Case, arguments: tuple[str, ...], said: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cli.target, "running_target", lambda: case.target)
        complaint = command(*arguments).exception

    assert isinstance(complaint, CommandError)
    assert said in str(complaint)
