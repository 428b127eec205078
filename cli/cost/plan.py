"""A pipeline at a rate: what each hop handles and costs, which limits bite, and what to set. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from cli.cost import prices
from cli.cost.flow import ROOM, Bite, Flow, HopCost, Setup, Sizes, StoreCost, flow_of
from cli.cost.prices import GIB, HOURS_A_MONTH, SECONDS_A_MONTH, lambda_usd, logs_usd

# CloudWatch's own count for an event (API_PutLogEvents), and what it keeps of it: packed, by AWS's examples.
EVENT_BYTES, KEPT_PART = 26, 0.15
# Microseconds that @emitter.handler adds: docs/reference/cost.md. Up to a processor, memory changes no price.
EMIT_S: Final = 21e-6
PUT_UNIT_BYTES: Final = 25 * 1024
DAYS_BEFORE_COLD: Final = 90
FREE_HOURS: Final = 24
# The roll-ups' processor time for a row, reading included, and the functions' memory.
ROLL_S, ROLLER_MB = 5e-6, 1_769
ALARM_METRICS, COMPOSITES, METRICS = 57, 10, 90
# X-Ray's default: one a second and 5 % of the rest, of each function.
TRACED_PART: Final = 0.05
# Limits; those of accounts can be raised.
MOST_SHARDS, ACCOUNT_CONCURRENCY = 200, 1_000
ON_DEMAND_BYTES, ON_DEMAND_RECORDS = 200 * 1024**2, 200_000
NEW_ON_DEMAND_BYTES, NEW_ON_DEMAND_RECORDS = 4 * 1024**2, 4_000
CONSUMER_TIMEOUT_S: Final = 120
REQUESTS_PER_MINUTE: Final = 2_000  # the alarm's critical threshold
DOWNLOAD_BYTES: Final = 100 * GIB  # DownloadMaxGB


@dataclass(frozen=True, slots=True)
class Plan:
    """A pipeline at a rate.

    Attributes:
        flow: What flows.
        store: The store of the rows.
        stream_mode: Which mode of the stream is cheaper.
        hops: What each hop handles and costs.
        bites: The limits that bite.
        settings: Parameters of the template that have to be others than the defaults.
    """

    flow: Flow
    store: StoreCost
    stream_mode: str
    hops: Sequence[HopCost]
    bites: Sequence[Bite]
    settings: dict[str, str]

    @property
    def stream(self) -> str:
        """The cheaper mode of the stream, in a word or two."""
        if self.stream_mode == "ON_DEMAND":
            return "on demand"
        return f"{self.flow.shards:,} shard{'s' if self.flow.shards > 1 else ''}"

    @property
    def usd(self) -> float:
        """US dollars a month."""
        return sum(hop.usd for hop in self.hops)

    @property
    def usd_per_million(self) -> float:
        """US dollars for a million requests."""
        return self.usd / (self.flow.rate * SECONDS_A_MONTH / 1e6)


def plan_of(rate: float, sizes: Sizes, setup: Setup, store: StoreCost) -> Plan:
    """Return the plan for a rate.

    Args:
        rate: Requests a second, each of which writes one line.
        sizes: What lines are made of.
        setup: The stack's parameters.
        store: The store of the rows.
    """
    flow = flow_of(rate, sizes, setup, store)
    streams = {"ON_DEMAND": on_demand_usd(flow), "PROVISIONED": provisioned_usd(flow)}
    mode = min(streams, key=lambda each: streams[each])
    stream = HopCost(f"stream: {mode}", flow.records_per_s, "records", flow.stream_bytes_per_s, streams[mode])
    hops = (*_lines(flow), stream, _consumer(flow), *store.hops(flow), *_kept(flow), _watching(flow))
    limits = [*_limits(flow, mode), *store.limits(flow)]
    settings = {"StreamMode": mode}
    if mode == "PROVISIONED":
        settings["ShardCount"] = str(flow.shards)
    return Plan(flow, store, mode, hops, [each for each in limits if each.bites], settings)


def on_demand_usd(flow: Flow) -> float:
    """Return what the stream costs a month on demand, where each record counts in whole KiB."""
    gib = flow.records_per_s * math.ceil(flow.record_bytes / 1_024) * 1_024 * SECONDS_A_MONTH / GIB
    kept = flow.stream_bytes_per_s * max(0, flow.setup.retention_hours - FREE_HOURS) * 3_600 / GIB
    return (
        HOURS_A_MONTH * prices.STREAM_HOUR.usd
        + gib * (prices.STREAM_IN.usd + prices.STREAM_OUT.usd)
        + kept * prices.STREAM_KEPT.usd
    )


def provisioned_usd(flow: Flow) -> float:
    """Return what the stream costs a month with as many shards as the rate needs."""
    hour = prices.SHARD_HOUR.usd + (prices.SHARD_KEPT.usd if flow.setup.retention_hours > FREE_HOURS else 0)
    units = flow.records_per_s * math.ceil(flow.record_bytes / PUT_UNIT_BYTES) * SECONDS_A_MONTH
    return flow.shards * hour * HOURS_A_MONTH + units / 1e6 * prices.SHARD_PUT.usd


def _lines(flow: Flow) -> tuple[HopCost, ...]:
    """Return the function's own time, and CloudWatch Logs."""
    rate, size = flow.rate, flow.rate * (flow.sizes.line + EVENT_BYTES)
    kept = size * flow.setup.log_days * 86_400 / GIB * KEPT_PART * prices.LOGS_KEPT.usd
    emit = lambda_usd(0, rate * EMIT_S * SECONDS_A_MONTH, ROLLER_MB)
    return (
        HopCost("emit: in your function", rate, "lines", rate * flow.sizes.line, emit),
        HopCost("CloudWatch Logs: taken in", rate, "lines", size, logs_usd(size * SECONDS_A_MONTH / GIB)),
        HopCost(f"CloudWatch Logs: kept {flow.setup.log_days} days", rate, "lines", size, kept),
    )


def _consumer(flow: Flow) -> HopCost:
    seconds = flow.batches_per_s * flow.batch_s * SECONDS_A_MONTH
    usd = seconds * flow.setup.memory_mb / 1_024 * prices.LAMBDA_GB_S.usd
    usd += flow.batches_per_s * SECONDS_A_MONTH / 1e6 * prices.LAMBDA_CALL.usd
    return HopCost("consumer", flow.batches_per_s, "batches", flow.stream_bytes_per_s, usd)


def _kept(flow: Flow) -> tuple[HopCost, ...]:
    """Return the accounts of batches, the files of days once all are there, and the roll-ups."""
    size = flow.rate * flow.sizes.exported_row
    day = size * 86_400 / GIB
    warm = min(flow.setup.lake_days, DAYS_BEFORE_COLD)
    files = day * (warm * prices.S3_KEPT.usd + (flow.setup.lake_days - warm) * prices.S3_COLD.usd)
    objects = flow.batches_per_s * SECONDS_A_MONTH / 1_000 * (prices.S3_PUT.usd + prices.S3_GET.usd)
    rolls = lambda_usd(HOURS_A_MONTH, flow.rate * ROLL_S * SECONDS_A_MONTH, ROLLER_MB)
    return (
        HopCost("accounts: an object for each batch", flow.batches_per_s, "objects", 0, objects),
        HopCost(f"files of days, kept {flow.setup.lake_days} days", flow.rate, "rows", size, files),
        HopCost("roll-ups", flow.rate, "rows", 0, rolls),
    )


def _watching(flow: Flow) -> HopCost:
    traces = min(flow.batches_per_s, 1 + flow.batches_per_s * TRACED_PART)
    fixed = ALARM_METRICS * prices.ALARM.usd + COMPOSITES * prices.COMPOSITE.usd
    fixed += METRICS * prices.METRIC.usd + prices.DASHBOARD.usd + prices.SECRET.usd
    usd = fixed + traces * SECONDS_A_MONTH / 1e6 * prices.TRACE.usd
    return HopCost("alarms, metrics, dashboard, traces, secret", traces, "traces", 0, usd)


def _limits(flow: Flow, mode: str) -> list[Bite]:
    size, records = flow.stream_bytes_per_s, flow.records_per_s
    raised = "raise RequestsPerMinute in the template's mapping Thresholds"
    limits = [
        Bite(
            "invocations of the consumer at once, of its shards'", flow.concurrency, flow.lanes, _faster(flow)
        ),
        Bite(
            "invocations at once, of the account's",
            flow.concurrency,
            ACCOUNT_CONCURRENCY,
            "Service Quotas, Lambda",
        ),
        Bite(
            "seconds that a batch takes",
            flow.batch_s,
            CONSUMER_TIMEOUT_S,
            "BatchSize down, or " + _faster(flow),
        ),
        Bite("requests a minute before the alarm", flow.rate * 60, REQUESTS_PER_MINUTE, raised),
        Bite(
            "bytes of a day's files in one download",
            flow.rate * 86_400 * flow.sizes.exported_row,
            DOWNLOAD_BYTES,
            "DownloadMaxGB up to 400; past it, read records/ in the bucket",
        ),
    ]
    if mode == "PROVISIONED":
        more = (
            "raise MaxValue of ShardCount in the template; several stacks, each with a part of the log groups"
        )
        return [*limits, Bite("shards", flow.shards / ROOM, MOST_SHARDS, more)]
    first = "begin with StreamMode=PROVISIONED, and switch once the traffic is there"
    return [
        *limits,
        Bite("bytes a second into a new stream", size, NEW_ON_DEMAND_BYTES, first),
        Bite("records a second into a new stream", records, NEW_ON_DEMAND_RECORDS, first),
        Bite("bytes a second into a stream", size, ON_DEMAND_BYTES, "Service Quotas, Kinesis"),
        Bite("records a second into a stream", records, ON_DEMAND_RECORDS, "Service Quotas, Kinesis"),
    ]


def _faster(flow: Flow) -> str:
    return (
        "ConsumerMemoryMB 1769" if flow.setup.memory_mb < prices.PROCESSOR_MB else "ParallelizationFactor up"
    )
