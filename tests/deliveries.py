"""Lambda's event source mapping in memory: a handler gets a stream's records until they are done or given up.

What is decided is decided by the pure part of `onemachine/batches.py`: where a batch is cut, what a
retry is, when it is given up. Here are no threads, no services and no pauses, so that a thousand runs take
seconds.
"""

import json
import random
from collections import deque
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

from onemachine.batches import (
    Batch,
    GivenUp,
    KinesisSettings,
    StreamRecord,
    after_failure,
    batch_length,
    failure_document,
    first_failure,
    whole_event,
)
from onemachine.functions import Result

from consumers import replay
from tests.builders import STREAM_ARN, Context

Handler = Callable[[dict[str, Any], Any], dict[str, Any]]
KinesisRecord = dict[str, Any]

# As template.yml has it.
SETTINGS = KinesisSettings(
    function="consumer",
    stream_arn=STREAM_ARN,
    batch_size=500,
    report_batch_item_failures=True,
    bisect=True,
    maximum_retry_attempts=10,
)


class DiedError(Exception):
    """The function ends in the middle of a batch: its time is over, its memory, or it is taken down."""


class Deliveries:
    """A mapping of a stream to a handler.

    Args:
        handler: The function.
        context: Makes what each invocation is told of itself.
        after: Is told of each batch: its records, and the position from which on they are not done, if any.

    Attributes:
        kept: What the on-failure destination has got.
    """

    def __init__(
        self,
        handler: Handler,
        *,
        context: Callable[[], Context] = Context,
        after: Callable[[Sequence[KinesisRecord], int | None], None] = lambda _records, _failed_at: None,
    ) -> None:
        self._handler = handler
        self._context = context
        self._after = after
        self.kept: list[bytes] = []

    def run(
        self,
        *lanes: Sequence[KinesisRecord],
        settings: KinesisSettings = SETTINGS,
        chance: random.Random | None = None,
        redelivered: float = 0.0,
    ) -> None:
        """Deliver records until each is done, or given up.

        Args:
            lanes: Records in stream order; which lane is next is chance.
            settings: The mapping's.
            chance: Where chance comes from.
            redelivered: How likely a batch that is done comes once more.
        """
        chance = chance or random.Random(0)
        known = {record["kinesis"]["sequenceNumber"]: record for lane in lanes for record in lane}
        waiting = [deque(_cut([_stream_record(record) for record in lane], settings)) for lane in lanes]
        while any(waiting):
            lane = chance.choice([each for each in waiting if each])
            work = lane.popleft()
            if isinstance(work, GivenUp):
                self._keep(work, known, settings)
                continue
            failed_at = self.deliver([known[record.sequence_number] for record in work.records])
            if failed_at is not None:
                lane.extendleft(reversed(after_failure(work, failed_at, settings)))
            elif chance.random() < redelivered:
                lane.appendleft(work)

    def deliver(self, records: Sequence[KinesisRecord]) -> int | None:
        """Deliver one batch, and return the position from which on its records are not done, if any."""
        numbers = [record["kinesis"]["sequenceNumber"] for record in records]
        try:
            answer = self._handler({"Records": list(records)}, self._context())
            result = Result(json.dumps(answer).encode(), None, "1")
        except DiedError:
            result = Result(b"", "Unhandled", "1")
        failed_at = first_failure(result, numbers, reports=True)
        self._after(records, failed_at)
        return failed_at

    def replay(self) -> None:
        """Do what `tagline replay failed --run` does with what was kept, and take it away."""
        kept, self.kept = self.kept, []
        records = [record for body in kept for record in replay.from_failed_batch(body).records]
        for batch in replay.batches(records):
            left = replay.send(
                batch, lambda pending: self._handler({"Records": pending}, self._context()), _wait
            )
            assert left == []

    def _keep(self, given_up: GivenUp, known: dict[str, KinesisRecord], settings: KinesisSettings) -> None:
        document = failure_document(given_up, None, "shardId-000000000006", settings, datetime.now(UTC))
        records = [known[record.sequence_number] for record in given_up.batch.records]
        self.kept.append(json.dumps({**document, "payload": whole_event(records).decode()}).encode())


def _wait(fruitless: int) -> None:
    assert fruitless < 6, "the replay gets nowhere"


def _stream_record(record: KinesisRecord) -> StreamRecord:
    """Return what decides about a record; its data is left as it is in the event."""
    said = record["kinesis"]
    arrived = datetime.fromtimestamp(said["approximateArrivalTimestamp"], UTC)
    return StreamRecord(said["sequenceNumber"], said["partitionKey"], b"", arrived)


def _cut(records: list[StreamRecord], settings: KinesisSettings) -> list[Batch | GivenUp]:
    """Cut records into batches."""
    batches: list[Batch | GivenUp] = []
    while records:
        length = batch_length([1] * len(records), settings.batch_size)
        batches.append(Batch(tuple(records[:length])))
        records = records[length:]
    return batches
