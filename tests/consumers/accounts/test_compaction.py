"""Accounts merged at any time come to the same days, and no line that came is ever lost."""

import json
import random
import threading
from collections import Counter
from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta
from itertools import count
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tagline import Emitter

from consumers.accounts import accounting, compaction, sources
from consumers.accounts.accounting import Account, intervals
from consumers.accounts.compaction import (
    READERS,
    Day,
    UnfinishedError,
    UnreadableAccountError,
    compact,
    read_objects,
    reconcile,
)
from tests import twins
from tests.builders import GROUP, LOGGED, data, kinesis_event
from tests.consumers.accounts.batches import consume, line, written
from tests.twins import Objects

DAY = date(2025, 11, 20)
NOW = datetime(DAY.year, DAY.month, DAY.day, 12, tzinfo=UTC) + timedelta(days=9)
DAYS = [DAY + timedelta(days=number) for number in range(-4, 10)]
DAY_MS = 86_400_000


def never() -> bool:
    return False


def days_with_accounts(objects: dict[str, bytes]) -> list[date]:
    keys = [key for key in objects if key.startswith(accounting.PREFIX) and key != sources.KEY]
    return sorted({day for key in keys for day in accounting.from_json(objects[key], key)})


def lost_by_day(objects: twins.Bucket) -> dict[date, int]:
    return {day.day: lost for day in reconcile(objects, DAYS) if (lost := day.counts()["lost"])}


# --- Nothing that came is lost -----------------------------------------------------------------------------


WRITTEN = st.lists(
    st.tuples(
        st.sampled_from("ab"),
        st.integers(-3, 3),  # the day of its log event
        st.integers(-3, 3),  # the day of its record, from there
        st.sampled_from([True, True, True, True, False]),  # whether it comes
    ),
    min_size=1,
    max_size=40,
)


@given(WRITTEN, st.randoms(use_true_random=False))
@settings(max_examples=60)
def test_lost_is_what_did_not_come_between_two_that_did_on_each_day_and_nothing_else(
    lines: list[tuple[str, int, int, bool]], chance: random.Random
) -> None:
    """Whatever the times of events and records, and the order and number of deliveries and of merging."""
    numbers = {src: count() for src in "ab"}
    came: list[tuple[str, int, int]] = []
    texts: list[tuple[str, int]] = []
    for src, day, record_day, comes in lines:
        seq = next(numbers[src])
        if comes:
            came.append((src, seq, day))
            time = LOGGED + day * DAY_MS
            texts.append((line(seq, src=src, timestamp=time + record_day * DAY_MS), time))
    chance.shuffle(texts)
    bucket = twins.Bucket()
    while texts:
        size = chance.randrange(1, 9)
        event = kinesis_event(*(data(written(each)) for each in texts[:size]))
        texts = texts[size:]
        for _ in range(chance.randrange(1, 3)):
            objects = Objects()
            consume(event, objects)
            bucket.update(objects)
            if chance.random() < 0.3:
                compact(bucket, NOW, never)

    expected: Counter[date] = Counter()
    for src in "ab":
        days = {seq: day for each, seq, day in came if each == src}
        for seq in range(min(days, default=0), max(days, default=0)):
            if seq not in days:
                after = min(later for later in days if later > seq)
                expected[DAY + timedelta(days=days[after])] += 1
    assert lost_by_day(bucket) == dict(expected)
    compact(bucket, NOW, never)
    assert lost_by_day(bucket) == dict(expected)
    delivered = {day.day: day.counts()["delivered"] for day in reconcile(bucket, DAYS)}
    assert delivered == {day: sum(DAY + timedelta(days=at) == day for *_, at in came) for day in DAYS}


class Written:
    """The stdout of a function: its lines, each with the time at which it was written."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, int]] = []
        self.now = LOGGED

    def write(self, text: str) -> int:
        self.lines += [(each, self.now) for each in text.splitlines()]
        return len(text)

    def flush(self) -> None:
        """Nothing is buffered."""


MIDNIGHT = 1_763_596_800_000


def long_stream(out: Written) -> None:
    """Begin a record before midnight and end it a thousand requests after."""
    out.now = MIDNIGHT - 600_000
    emitter = Emitter(stream=out, clock=lambda: out.now)
    emitter.emit({"n": 0})
    stream = emitter.record({"route": "/sse"})
    stream.begin()
    out.now = MIDNIGHT + 1
    for number in range(1_000):
        emitter.emit({"n": number})
    stream.end()


def handler_over_midnight(out: Written) -> None:
    """Log in an invocation that begins before midnight, and is written after what it logged."""
    emitter = Emitter(stream=out, clock=lambda: out.now)

    @emitter.handler
    def handler(_event: Any, _context: Any) -> None:
        if out.now == MIDNIGHT - 100:
            out.now = MIDNIGHT + 100
            for _ in range(3):
                emitter.emit({"message": "work"}, type="log")

    for out.now in (MIDNIGHT - 100_000, MIDNIGHT - 100, MIDNIGHT + 5_000):
        handler({}, None)


def backfill(out: Written) -> None:
    """Emit orders of three days in the order of their ids."""
    emitter = Emitter(stream=out)
    for number in range(300):
        emitter.emit({"n": number}, id=f"order-{number}", timestamp=f"2025-11-{18 + number % 3}T10:00:00Z")


def environment_that_rests_for_days(out: Written) -> None:
    """Write a line now, and the next when the environment is thawed."""
    emitter = Emitter(stream=out, clock=lambda: out.now)
    for out.now in (LOGGED, LOGGED + 3 * DAY_MS, LOGGED + 8 * DAY_MS):
        emitter.emit({})


@pytest.mark.parametrize(
    ("write", "lines"),
    [
        (long_stream, 1_002),
        (handler_over_midnight, 6),
        (backfill, 300),
        (environment_that_rests_for_days, 3),
    ],
)
def test_what_is_written_in_another_order_than_its_times_is_not_lost(write: Any, lines: int) -> None:
    out = Written()
    write(out)
    objects = Objects()

    consume(kinesis_event(data(written(*out.lines))), objects)

    days = list(reconcile(twins.Bucket(objects), days_with_accounts(objects)))
    assert [day.counts()["lost"] for day in days] == [0] * len(days)
    assert sum(day.counts()["emitted"] for day in days) == lines


def test_two_lines_with_numbers_of_a_strangers_make_nothing_lost() -> None:
    objects = Objects()

    consume(kinesis_event(data(written((line(0), LOGGED), (line(10**15), LOGGED)))), objects)

    (day,) = reconcile(twins.Bucket(objects), [DAY])
    counts = day.counts()
    assert (counts["lost"], counts["emitted"], counts["implausible"]) == (0, 2, 1)


# --- Merging -----------------------------------------------------------------------------------------------


def batch(number: int, *ranges: tuple[int, int], day: date = DAY, group: str = GROUP) -> dict[str, bytes]:
    body = accounting.to_json({day: {group: Account({"s": intervals(ranges)}, {}, {})}})
    return {f"{accounting.BATCHES}{number:05}.json": body}


def counts(objects: twins.Bucket, *days: date) -> list[dict[str, int]]:
    return [day.counts() for day in reconcile(objects, days)]


def test_batches_become_a_document_a_day_and_the_numbers_of_every_source() -> None:
    tomorrow = DAY + timedelta(days=1)
    objects = twins.Bucket(
        batch(0, (0, 4)) | batch(1, (5, 6), day=tomorrow) | batch(2, (7, 7)) | batch(3, (9, 9))
    )
    before = counts(objects, DAY, tomorrow)

    assert compact(objects, NOW, never) == {"batches": 4, "sources": 1, "forgotten": 0}

    assert sorted(key.rpartition("/")[0] for key in objects) == [
        "accounting",
        accounting.folder(DAY)[:-1],
        accounting.folder(tomorrow)[:-1],
    ]
    assert counts(objects, DAY, tomorrow) == before
    assert (before[0]["emitted"], before[0]["delivered"], before[0]["lost"]) == (8, 7, 1)
    assert compact(objects, NOW, never) == {"batches": 0, "sources": 0, "forgotten": 0}


class Dying(twins.Bucket):
    """A bucket whose user dies at a call that changes it: before or after it is done."""

    def __init__(self, content: dict[str, bytes], at: int, *, done: bool) -> None:
        super().__init__(content)
        self.left, self.done = at, done

    def _do(self, change: Any) -> Any:
        self.left -= 1
        if self.left == 0 and not self.done:
            raise ConnectionError
        answer = change()
        if self.left == 0:
            raise ConnectionError
        return answer

    def put(self, key: str, chunks: Iterable[bytes], content_type: str) -> None:
        self._do(lambda: twins.Bucket.put(self, key, chunks, content_type))

    def replace(self, key: str, body: bytes, tag: str | None) -> bool:
        return bool(self._do(lambda: twins.Bucket.replace(self, key, body, tag)))

    def delete(self, keys: Iterable[str]) -> None:
        self._do(lambda: twins.Bucket.delete(self, keys))


@pytest.mark.parametrize("done", [False, True])
@pytest.mark.parametrize("at", [1, 2, 3, 4])
def test_a_run_that_dies_anywhere_changes_no_number_and_the_next_one_ends_it(at: int, *, done: bool) -> None:
    content = batch(0, (0, 4)) | batch(1, (6, 6)) | batch(2, (9, 9), day=DAY + timedelta(days=1))
    expected = counts(twins.Bucket(content), *DAYS)
    objects = Dying(content, at, done=done)

    with pytest.raises(ConnectionError):
        compact(objects, NOW, never)

    assert counts(objects, *DAYS) == expected
    compact(objects, NOW, never)
    assert list(objects.keys(accounting.BATCHES)) == []
    assert counts(objects, *DAYS) == expected


def test_a_run_out_of_time_keeps_what_it_merged_and_the_next_one_continues() -> None:
    content = {key: body for number in range(9) for key, body in batch(number, (number, number)).items()}
    objects = twins.Bucket(content)
    left = iter([False, False, True, True])

    with pytest.raises(UnfinishedError, match=r"merged 3 documents below accounting/batches/ until .*invoke"):
        compact(objects, NOW, lambda: next(left))

    assert len(list(objects.keys(accounting.BATCHES))) == 6
    assert counts(objects, DAY)[0]["delivered"] == 9
    assert compact(objects, NOW, never)["batches"] == 6
    assert counts(objects, DAY)[0]["delivered"] == 9


def test_many_batches_are_merged_some_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compaction, "MAX_BATCHES", 4)
    content = {key: body for number in range(9) for key, body in batch(number, (number, number)).items()}
    objects = twins.Bucket(content)

    assert compact(objects, NOW, never)["batches"] == 9

    assert len(list(objects.keys(accounting.folder(DAY)))) == 3
    assert counts(objects, DAY)[0] == counts(twins.Bucket(content), DAY)[0]


def test_two_runs_at_the_same_time_lose_nothing() -> None:
    content = batch(0, (0, 9)) | batch(1, (10, 19))
    rival = twins.Bucket(content | batch(2, (25, 29)))
    compact(rival, NOW, never)

    class Raced(twins.Bucket):
        raced = False

        def replace(self, key: str, body: bytes, tag: str | None) -> bool:
            if not self.raced:
                self.raced = True
                self.update(rival)  # which has merged the same batches, and one more
            return super().replace(key, body, tag)

    objects = Raced(content)
    compact(objects, NOW, never)

    assert counts(objects, DAY)[0]["delivered"] == 25
    assert lost_by_day(objects) == {DAY: 5}


def test_a_document_that_cannot_be_read_is_named_and_left_and_all_others_are_merged() -> None:
    objects = twins.Bucket(batch(0, (0, 0)) | {f"{accounting.BATCHES}1.json": b"{"} | batch(2, (1, 1)))

    with pytest.raises(UnreadableAccountError, match=r"accounting/batches/1\.json: .*move it away"):
        compact(objects, NOW, never)

    assert list(objects.keys(accounting.BATCHES)) == [f"{accounting.BATCHES}1.json"]
    del objects[f"{accounting.BATCHES}1.json"]
    assert counts(objects, DAY)[0]["delivered"] == 2


# --- Reading -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'{"/a": {}}', b'{"/a": {"delivered": 1}}', b"\xff"])
@pytest.mark.parametrize(
    "key", [f"{accounting.BATCHES}1.json", f"{accounting.folder(DAY)}1.json", sources.KEY]
)
def test_an_object_that_is_no_account_is_named_and_not_left_out(key: str, body: bytes) -> None:
    with pytest.raises(UnreadableAccountError, match=key):
        list(reconcile(twins.Bucket({**batch(0, (0, 1)), key: body}), [DAY]))


def test_accounts_of_earlier_versions_and_with_unknown_keys_are_read() -> None:
    group = {
        "delivered": {"s": [[0, 4], [8, 9]]},
        "quarantined": {"late": {"s": [[8, 8]]}},
        "records": {"shardId-0-1": {"received": 9, "unnumbered": 2}},
        "colour": "red",
    }
    key = f"{accounting.folder(DAY)}1.json"
    for document in ({"/a": group}, {"format_version": 2, "groups": {"/a": group}, "shape": "round"}):
        (day,) = counts(twins.Bucket({key: json.dumps(document).encode()}), DAY)

        # Their numbers were those of a record's day, whose gaps mean nothing.
        assert (day["delivered"], day["quarantined"], day["lost"]) == (9, 1, 0)


def test_accounts_of_a_newer_version_are_refused_with_what_to_do() -> None:
    newer = json.dumps({"format_version": accounting.FORMAT_VERSION + 1, "accounts": []}).encode()

    with pytest.raises(
        UnreadableAccountError, match=r"/0\.json: .*format_version 4, .* versions up to 3: deploy"
    ):
        list(reconcile(twins.Bucket({f"{accounting.folder(DAY)}0.json": newer}), [DAY]))


def test_a_day_without_accounts_has_nothing_lost() -> None:
    assert list(reconcile(twins.Bucket(), [DAY])) == [Day(DAY, {})]


class Slow(twins.Bucket):
    """A bucket that waits until as many reads have begun as may begin at the same time."""

    def __init__(self, content: dict[str, bytes]) -> None:
        super().__init__(content)
        self.together = threading.Barrier(READERS, timeout=30)
        self.numbers = count()
        self.reads = 0

    def get(self, key: str) -> bytes | None:  # type: ignore[override]  # no default here
        self.reads = next(self.numbers) + 1
        self.together.wait()
        return super().get(key)


def test_objects_are_read_in_parallel_in_their_order_and_few_are_in_memory() -> None:
    content = {f"{number:03}": b"%d" % number for number in range(4 * READERS)}
    objects = Slow(content)

    ahead, read = [], []
    for key, body in read_objects(objects, iter(content)):
        read.append((key, body))
        ahead.append(objects.reads - len(read))

    assert read == list(content.items())
    assert max(ahead) < 2 * READERS


def test_objects_that_were_deleted_meanwhile_are_left_out() -> None:
    assert list(read_objects(twins.Bucket({"b": b"1"}), ["a", "b", "c"])) == [("b", b"1")]


def test_a_batch_that_is_merged_while_a_day_is_read_counts_once() -> None:
    class Merging(twins.Bucket):
        """A bucket whose batches are merged right after they were listed, or after one was read."""

        def get(self, key: str) -> bytes | None:  # type: ignore[override]  # no default here
            body = super().get(key)
            if key.startswith(accounting.BATCHES) and sources.KEY not in self:
                other = twins.Bucket(self)
                compact(other, NOW, never)
                for gone in [each for each in self if each not in other]:
                    del self[gone]
                self.update(other)
            return body

    objects = Merging(batch(0, (0, 4)) | batch(1, (6, 6)))

    (day,) = counts(objects, DAY)
    assert (day["delivered"], day["lost"]) == (6, 1)
