"""The fault matrix of the meter consumer: whatever fails, each meter is in one file, or once in quarantine.

As `tests/consumers/test_fault_matrix.py`, for files: what is asked for is an ingest file or quarantine.
"""

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest
from botocore.exceptions import ConnectionClosedError, EndpointConnectionError, ReadTimeoutError
from hypothesis import given, settings
from hypothesis import strategies as st

from consumers.deadlines import Retry
from consumers.lines.ledger import Ledger
from consumers.meters.destinations import Files
from consumers.meters.handler import make_handler
from tests.builders import CONTROL, Context, data, envelope, kinesis_record
from tests.consumers.meters.meters import METER_TAG, TAG, line
from tests.deliveries import SETTINGS, Deliveries, DiedError, KinesisRecord
from tests.twins import IngestBucket, Objects, client_error

OWN = "/tagline/"
RECORDS, LINES = 3, 3
URL = "https://ingest.s3"
FEW_RETRIES = replace(SETTINGS, maximum_retry_attempts=4)

Effect = Callable[[Callable[[], Any], "Life"], Any]


def refuses(error: Exception) -> Effect:
    def effect(_do: Callable[[], Any], _life: "Life") -> Any:
        raise error

    return effect


def does_and_says(error: Exception) -> Effect:
    def effect(do: Callable[[], Any], _life: "Life") -> Any:
        do()
        raise error

    return effect


def ends_the_time(_do: Callable[[], Any], life: "Life") -> Any:
    life.remaining_ms = 0
    raise ReadTimeoutError(endpoint_url=URL)


INGEST, QUARANTINE = "ingest", "quarantine"
FAILURES: dict[str, tuple[str, Effect]] = {
    "the bucket throttles": (INGEST, refuses(client_error("SlowDown", 503))),
    "the bucket answers 500": (INGEST, refuses(client_error("InternalError", 500))),
    "the bucket answers 500 with the file written": (
        INGEST,
        does_and_says(client_error("InternalError", 500)),
    ),
    "the bucket times out": (INGEST, refuses(ReadTimeoutError(endpoint_url=URL))),
    "the bucket times out with the file written": (INGEST, does_and_says(ReadTimeoutError(endpoint_url=URL))),
    "the bucket cannot be reached": (INGEST, refuses(EndpointConnectionError(endpoint_url=URL))),
    "the connection is closed": (INGEST, does_and_says(ConnectionClosedError(endpoint_url=URL))),
    "the bucket denies": (INGEST, refuses(client_error("AccessDenied", 403))),
    "the bucket is gone": (INGEST, refuses(client_error("NoSuchBucket", 404))),
    "the bucket is waited for until the time is over": (INGEST, ends_the_time),
    "the function dies before it writes": (INGEST, refuses(DiedError())),
    "the function dies when it has written": (INGEST, does_and_says(DiedError())),
    "quarantine cannot be written": (QUARANTINE, refuses(OSError("no"))),
    "quarantine is written and nobody says so": (QUARANTINE, does_and_says(OSError("no"))),
    "the function dies when it has quarantined": (QUARANTINE, does_and_says(DiedError())),
}
# What stands where it fails that is no meter: the line, or the whole Kinesis record.
ODD: dict[str, tuple[str, str]] = {
    "a line without an object": (f"{METER_TAG}: victim", ""),
    "a line that is broken": (f"{METER_TAG} {{victim", ""),
    "a meter that is not valid": (line("victim", meterValue="1"), ""),
    "data that is no base64": ("", "####"),
    "data that is cut off": ("", data(envelope(line("victim")))[:64]),
}
DROPPED: dict[str, str] = {
    "a health check": data(CONTROL),
    "a line of the pipeline's own": data(envelope(line("victim"), group=f"{OWN}stack/MeterConsumer")),
}


@dataclass(frozen=True)
class Batch:
    """Kinesis records, and the identities of what each says that has to be found."""

    records: list[KinesisRecord]
    said: list[list[str]]
    position: int = 0

    def emitted(self) -> Counter[str]:
        return Counter(identity for said in self.said for identity in said)


def batch(position: int, at: int, odd: str = "", whole: str | None = None) -> Batch:
    """Return a batch with something at a place: a line, or a whole Kinesis record; else a meter is there."""
    records, said = [], []
    for record in range(RECORDS):
        ids = [f"{record}-{number}" for number in range(LINES)]
        lines = [line(identity) for identity in ids]
        if record == position and odd:
            lines[at] = ids[at] = odd
        body = data(envelope(*lines))
        if record == position and whole is not None:
            body, ids = whole, [] if whole in DROPPED.values() else [whole]
        records.append(kinesis_record(body, record))
        said.append(ids)
    return Batch(records, said, position)


class Life:
    """One function after the other among twins, with what goes wrong while `lasts` says so."""

    def __init__(
        self, batch: Batch, fails: str, effect: Effect | None, lasts: Callable[["Life"], bool]
    ) -> None:
        self.batch, self.fails, self.effect, self._lasts = batch, fails, effect, lasts
        self.deliveries = self.struck = self.size = self.remaining_ms = 0
        self.calm = self.here = False
        self.ledgers: list[Ledger] = []
        self.bucket, self.objects = _Ingest(self), _Quarantine(self)
        self._handler = make_handler(
            Files(self.bucket, "ingest", "in/", acl="", retry=Retry(self._sleep, lambda: 1.0)),
            self.objects,
            meter_tag=METER_TAG,
            tag=TAG,
            own_log_groups=OWN,
            report=self.ledgers.append,
        )
        self.mapping = Deliveries(self.handle, context=lambda: _Clock(self), after=self._look)

    def handle(self, event: dict[str, Any], context: Context) -> dict[str, Any]:
        self.here = self.batch.records[self.batch.position] in event["Records"]
        self.size, self.remaining_ms = len(event["Records"]), 2_400
        self.deliveries += self.here
        return self._handler(event, context)

    def _sleep(self, seconds: float) -> None:
        self.remaining_ms -= int(seconds * 1000)

    def do(self, asked: str, of_the_victim: bool, what: Callable[[], Any]) -> Any:
        if self.effect and asked == self.fails and of_the_victim and not self.calm and self._lasts(self):
            self.struck += 1
            return self.effect(what, self)
        return what()

    def _look(self, records: Sequence[KinesisRecord], failed_at: int | None) -> None:
        """See after each delivery that nothing is missing of what counts as done, and the books balance."""
        found = self.found()
        for record in records if failed_at is None else records[:failed_at]:
            said = self.batch.said[self.batch.records.index(record)]
            assert [identity for identity in said if not found[identity]] == []
        if self.ledgers:
            ledger = self.ledgers[-1]
            whole = sum(1 for _, event, _ in ledger.rejections() if event is None)
            ends = ledger.stored + ledger.duplicate + ledger.quarantined.total() + ledger.unwritten
            assert ledger.received + whole == ends

    def found(self) -> Counter[str]:
        """Return how often each thing that was said is in a file or in quarantine."""
        kept = (each.get("data") or each["message"] for each in self.objects.quarantined())
        return Counter(str(meter["uniqueId"]) for meter in self.bucket.records()) + Counter(kept)


class _Ingest(IngestBucket):
    def __init__(self, life: Life) -> None:
        super().__init__()
        self._life = life

    def put_object(self, **request: Any) -> dict[str, Any]:
        put, life = super().put_object, self._life
        of_the_victim = f'"{life.batch.position}-'.encode() in request["Body"]
        answer = life.do(INGEST, of_the_victim, lambda: put(**request))
        return answer or {}


class _Quarantine(Objects):
    def __init__(self, life: Life) -> None:
        super().__init__()
        self._life = life

    def write(self, key: str, body: bytes) -> None:
        put, life = super().write, self._life
        number = life.batch.records[life.batch.position]["kinesis"]["sequenceNumber"]
        life.do(QUARANTINE, number in key, lambda: put(key, body))


class _Clock(Context):
    def __init__(self, life: Life) -> None:
        super().__init__()
        self._life = life

    def get_remaining_time_in_millis(self) -> int:
        return self._life.remaining_ms


def for_ever(_life: Life) -> bool:
    return True


RETRIES: dict[str, Callable[[Life], bool]] = {
    "and the next try is well": lambda life: life.struck == 0,
    "and the fourth delivery is well": lambda life: life.deliveries <= 3,
    "until its Kinesis record is alone in a batch": lambda life: life.size > 1,
    "until the batch is given up and replayed": for_ever,
}
PLACES = [
    pytest.param(position, at, id=f"at the {line_name} line of the {record_name} Kinesis record")
    for position, record_name in ((0, "first"), (1, "middle"), (2, "last"))
    for at, line_name in ((0, "first"), (LINES - 1, "last"))
]


@pytest.mark.parametrize("retry", RETRIES)
@pytest.mark.parametrize(("position", "at"), PLACES)
@pytest.mark.parametrize("failure", FAILURES)
def test_every_meter_is_found_exactly_once(failure: str, position: int, at: int, retry: str) -> None:
    fails, effect = FAILURES[failure]
    for odd in ODD if fails == QUARANTINE else ["a line without an object"]:
        text, whole = ODD[odd]
        emitted = batch(position, at, text, whole or None)
        life = Life(emitted, fails, effect, RETRIES[retry])

        life.mapping.run(emitted.records, settings=FEW_RETRIES)

        assert life.struck > 0
        assert bool(life.mapping.kept) == (RETRIES[retry] is for_ever)
        life.calm = True
        life.mapping.replay()
        assert life.found() == emitted.emitted()
        files, kept = dict(life.bucket.objects), dict(life.objects)
        life.mapping.run(emitted.records[1:], emitted.records[:1])
        assert (life.bucket.objects, life.objects) == (files, kept)


@pytest.mark.parametrize("odd", [*ODD, *DROPPED])
@pytest.mark.parametrize(("position", "at"), PLACES)
def test_what_is_no_meter_costs_its_neighbours_nothing(odd: str, position: int, at: int) -> None:
    text, whole = ODD.get(odd) or ("", DROPPED[odd])
    emitted = batch(position, at, text, whole or None)
    life = Life(emitted, "", None, for_ever)

    life.mapping.run(emitted.records)

    assert life.mapping.kept == []
    assert life.found() == emitted.emitted()
    assert life.ledgers[-1].counts()["unwritten"] == 0


class Storm(Life):
    """Anything goes wrong anywhere, until so many batches were delivered."""

    def __init__(self, batch: Batch, chance: random.Random, likely: float, until: int) -> None:
        super().__init__(batch, "", None, for_ever)
        self._chance, self._likely, self._until = chance, likely, until

    def handle(self, event: dict[str, Any], context: Context) -> dict[str, Any]:
        self._until -= 1
        self.calm = self.calm or self._until < 0
        return super().handle(event, context)

    def do(self, asked: str, of_the_victim: bool, what: Callable[[], Any]) -> Any:  # noqa: ARG002 - any will do
        if self.calm or self._chance.random() > self._likely:
            return what()
        return self._chance.choice([effect for fails, effect in FAILURES.values() if fails == asked])(
            what, self
        )


def anything(chance: random.Random) -> Batch:
    """Return a batch of anything."""
    records, said = [], []
    for record in range(chance.randint(1, 20)):
        ids = [f"{record}-{number}" for number in range(chance.randint(0, 12))]
        lines = [line(identity) for identity in ids]
        for place, _ in enumerate(lines):
            if chance.random() < 0.1:
                lines[place] = ids[place] = f"{METER_TAG} {{{ids[place]}"
        body = data(envelope(*lines))
        if chance.random() < 0.2:
            body, ids = chance.choice([(f"no base64 {record}", [f"no base64 {record}"]), (data(CONTROL), [])])
        records.append(kinesis_record(body, record))
        said.append(ids)
    return Batch(records, said)


@given(
    st.integers(0, 2**32),
    st.sampled_from([0.05, 0.2, 0.5]),
    st.integers(1, 30),
    st.tuples(st.sampled_from([0, 1, 4, 10]), st.booleans()),
)
@settings(max_examples=40)
def test_whatever_fails_together_every_meter_is_found_exactly_once_in_any_order(
    seed: int, likely: float, until: int, mapping: tuple[int, bool]
) -> None:
    chance = random.Random(seed)
    emitted = anything(chance)
    life = Storm(emitted, chance, likely, until)
    lanes: list[list[KinesisRecord]] = [[], []]
    for record in emitted.records:
        chance.choice(lanes).append(record)
    retries, bisects = mapping

    life.mapping.run(
        *lanes,
        settings=replace(
            SETTINGS, maximum_retry_attempts=retries, bisect=bisects, batch_size=chance.randint(1, 9)
        ),
        chance=chance,
        redelivered=0.2,
    )
    life.calm = True
    life.mapping.replay()

    assert life.found() == emitted.emitted()
    files, kept = dict(life.bucket.objects), dict(life.objects)
    life.mapping.run(emitted.records, settings=replace(SETTINGS, batch_size=chance.randint(1, 9)))
    assert (life.bucket.objects, life.objects) == (files, kept)
