"""What flows from hop to hop at a rate: records, bytes and batches. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from cli.cost.prices import Price, processor_share

# https://docs.aws.amazon.com/streams/latest/dev/service-sizes-and-limits.html
SHARD_BYTES: Final = 1024**2
SHARD_RECORDS: Final = 1_000
# A quarter more than the rate, so that a busy minute fits.
ROOM: Final = 1.25
# https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html
PAYLOAD_BYTES: Final = 6 * 1024**2
# What a Kinesis record takes in an event beside its data, which is in base64.
EVENT_RECORD_BYTES: Final = 480
# An invocation's fixed time, most of it waiting: measured at 512 MB, 30 ms from the store.
BATCH_S: Final = 0.1
# A Kinesis record's processor time beside that of its lines: (42.6 - 24.0) us, benchmarks consume.
RECORD_S: Final = 19e-6


@dataclass(frozen=True, slots=True)
class Sizes:
    """What was measured of lines: by default, by `python -m benchmarks cost` of an API's records.

    Attributes:
        line: Bytes of a line.
        lines_per_record: Lines in a Kinesis record. AWS does not document how many CloudWatch Logs puts
            together; one is the dearest.
        envelope: Bytes of a Kinesis record beside its lines, packed.
        packed_line: Bytes of each line in it, packed.
        fragment: Bytes of a file of the lake store beside its rows.
        fragment_row: Bytes of each row in it.
        metered_row: Bytes of a row's names and values, as a database counts them.
        exported_row: Bytes of a row in the files of days.
    """

    line: float = 700.0
    lines_per_record: float = 1.0
    envelope: float = 560.0
    packed_line: float = 140.0
    fragment: float = 5_700.0
    fragment_row: float = 84.0
    metered_row: float = 555.0
    exported_row: float = 92.0


@dataclass(frozen=True, slots=True)
class Setup:
    """Parameters of a stack; the defaults are the template's.

    Attributes:
        shards: ShardCount; None for as many as the rate needs.
        batch_size: BatchSize; 0 for the store's.
        window_s: BatchWindowSeconds; -1 for the store's.
        parallelization: ParallelizationFactor.
        memory_mb: ConsumerMemoryMB.
        retention_hours: StreamRetentionHours.
        lake_days: LakeDays.
        log_days: Days for which the application's log groups keep lines.
    """

    shards: int | None = None
    batch_size: int = 0
    window_s: float = -1
    parallelization: int = 1
    memory_mb: int = 512
    retention_hours: int = 168
    lake_days: int = 365
    log_days: int = 30


@dataclass(frozen=True, slots=True)
class Flow:
    """What passes each hop.

    Attributes:
        rate: Requests, lines and rows a second.
        sizes: What they are made of.
        setup: The stack's parameters, with the store's where none were given.
        shards: Shards of the stream.
        records_per_s: Kinesis records a second.
        record_bytes: Bytes of each.
        batch_records: Kinesis records in a batch.
        batches_per_s: Batches a second, of all shards.
        batch_s: How long a batch takes.
    """

    rate: float
    sizes: Sizes
    setup: Setup
    shards: int
    records_per_s: float
    record_bytes: float
    batch_records: float
    batches_per_s: float
    batch_s: float

    @property
    def stream_bytes_per_s(self) -> float:
        """Bytes a second into the stream."""
        return self.records_per_s * self.record_bytes

    @property
    def batch_lines(self) -> float:
        """Lines in a batch."""
        return self.rate / self.batches_per_s

    @property
    def concurrency(self) -> float:
        """Invocations of the consumer at the same time."""
        return self.batches_per_s * self.batch_s

    @property
    def lanes(self) -> int:
        """As many invocations as there can be at the same time."""
        return self.shards * self.setup.parallelization


@dataclass(frozen=True, slots=True)
class HopCost:
    """A hop, or something that it costs.

    Attributes:
        name: What it is.
        per_s: How many of its items there are a second.
        items: What these are.
        bytes_per_s: Their bytes a second; 0 where these do not count.
        usd: US dollars a month.
    """

    name: str
    per_s: float
    items: str
    bytes_per_s: float
    usd: float


@dataclass(frozen=True, slots=True)
class Bite:
    """A limit, and how much of it is used.

    Attributes:
        what: What is limited.
        used: How much of it there is.
        limit: How much there can be.
        fix: What to set or to ask for.
    """

    what: str
    used: float
    limit: float
    fix: str

    @property
    def bites(self) -> bool:
        """Whether it is reached, with the room that a busy minute needs."""
        return self.used * ROOM > self.limit


@dataclass(frozen=True, slots=True)
class StoreCost:
    """What distinguishes a store.

    Attributes:
        name: Its name, a value of the parameter `Store`.
        batch_size: What BatchSize 0 stands for.
        window_s: What BatchWindowSeconds -1 stands for.
        line_s: Processor time of the consumer for a line, in seconds.
        hops: Return its hops at a flow.
        limits: Return its limits at a flow.
        prices: Its own prices, by name.
    """

    name: str
    batch_size: int
    window_s: float
    line_s: float
    hops: Callable[[Flow], Sequence[HopCost]]
    limits: Callable[[Flow], Sequence[Bite]]
    prices: Mapping[str, Price]


def flow_of(rate: float, sizes: Sizes, setup: Setup, store: StoreCost) -> Flow:
    """Return what flows at a rate.

    Args:
        rate: Requests a second, each of which writes one line.
        sizes: What lines are made of.
        setup: The stack's parameters.
        store: Where their rows go.
    """
    records_per_s = rate / sizes.lines_per_record
    record_bytes = sizes.envelope + sizes.lines_per_record * sizes.packed_line
    needed = max(records_per_s / SHARD_RECORDS, records_per_s * record_bytes / SHARD_BYTES)
    shards = setup.shards or max(1, math.ceil(ROOM * needed))
    batch_size = setup.batch_size or store.batch_size
    window_s = store.window_s if setup.window_s < 0 else setup.window_s
    in_window = records_per_s * window_s / (shards * setup.parallelization)
    in_payload = PAYLOAD_BYTES / (record_bytes * 4 / 3 + EVENT_RECORD_BYTES)
    batch_records = max(1.0, min(batch_size, in_window, in_payload))
    processor_s = batch_records * (RECORD_S + sizes.lines_per_record * store.line_s)
    return Flow(
        rate=rate,
        sizes=sizes,
        setup=Setup(
            shards,
            batch_size,
            window_s,
            setup.parallelization,
            setup.memory_mb,
            setup.retention_hours,
            setup.lake_days,
            setup.log_days,
        ),
        shards=shards,
        records_per_s=records_per_s,
        record_bytes=record_bytes,
        batch_records=batch_records,
        batches_per_s=records_per_s / batch_records,
        batch_s=BATCH_S + processor_s / processor_share(setup.memory_mb),
    )
