"""A pipeline that runs for minutes while everything fails that can: what is lost, doubled or counted wrong.

Several emitters write to the log groups of a whole pipeline, whose functions run in processes. Meanwhile all
services throttle, answer 5xx, are slow, and end connections before and after they have done the work;
processes are killed, batches and deliveries come again, late, broken or never; the clock goes over midnights,
and schedules run. Then nothing fails any more, what was given up is replayed, and everything is counted.
"""

from __future__ import annotations

import json
import logging
import random
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError
from onemachine.faults import Fault, Kind
from onemachine.pipeline import App, Pipeline
from tagline import Emitter

from cli import quarantine as kept_lines
from cli import replay
from cli.apps import ROOT
from cli.errors import CommandError
from cli.target import Target, target_of
from consumers.bucket import Bucket
from consumers.lines import quarantine
from consumers.rows.registry import LOCAL_STORE
from consumers.rows.table import ID
from exporter.store import whole

MINUTES = 10.0
TAG = "usage_record"
GROUPS = ("/soak/orders", "/soak/pets", "/soak/reports")
INGEST = "ingest"
FUNCTIONS = (
    "RowConsumerName",
    "RowConsumerName",
    "MeterConsumerName",
    "ReconcilerName",
    "DailyExporterName",
    "UpkeepName",
    "UsageRollerName",
)
SERVICES = {"timestream": 1.0, "s3": 1.0, "kinesis": 0.3, "sqs": 0.3}
# The part of a service's calls that fail, while the weather is as it is.
WEATHERS = (0.0, 0.05, 0.15, 0.3, 0.5)
REFUSALS = (Kind.THROTTLE, Kind.ERROR, Kind.RESET, Kind.CUT)
# Longer than the function waits for an answer: consumers/bucket.py, consumers/rows/clients.py.
TIMEOUTS_S = {"s3": 6.0, "timestream": 21.0}
LONGEST_DELAY_S = 2.0
# A name has at most 256 bytes, and each of these characters is escaped.
UNMAPPABLE_TYPE = "/" * 100
PATIENCE_S = 300.0
# How likely each kind of line is, in percent, and those that have a number.
NUMBERED_TEXTS = {"usual": 73, "meter": 10, "earlier": 5, "large": 2, "unmappable": 3}
TEXTS = {**NUMBERED_TEXTS, "unreadable": 2, "mention": 2, "unnumbered": 3}
# A backfill, or a request that began long ago.
EARLIEST_MS = 5 * 86_400_000
# The same of deliveries into the stream.
DELIVERIES = {None: 82, Kind.DUPLICATE: 6, Kind.DELAY: 6, Kind.LOSE: 4, Kind.CORRUPT: 2}
# How likely it is at each delivery that a line is in the log group twice, that a new environment begins, and
# that a batch comes again.
WRITTEN_TWICE, NEW_ENVIRONMENT, REDELIVERED = 0.2, 0.02, 0.05
# Given-up batches are replayed every so many steps of the clock: a gap that is 14 days old stays counted.
REPLAY_EVERY = 4
# After so many seconds, in the mean, the weather changes and a function's processes are killed: at most so
# often until the next step of the clock, because to start again takes long on a busy machine.
EVERY_S, KILLS_A_STEP = 2.0, 6
# Runs that are shorter than this do without time-outs and have one shard, in seconds.
LONG_RUN_S = 60.0
# What is wrong is shown by so many examples.
SHOWN = 5


@dataclass(frozen=True, slots=True)
class Line:
    """A line in a log group, as CloudWatch has it.

    Attributes:
        group: The log group.
        day: The day of its log event.
        identity: Its record's `_id`, or its text if no record can be read from it.
        number: The source that wrote it and its number; None for other loggers.
        rejected: Whether it has to be in quarantine, and not in the store.
        arrives: Whether it is delivered to the stream, whole.
        meter: The identity of the meter that it is as well; empty for other lines.
    """

    group: str
    day: date
    identity: str
    number: tuple[str, int] | None
    rejected: bool
    arrives: bool
    meter: str = ""


class _Source:
    """An execution environment: an emitter, and the line that it wrote last."""

    def __init__(self) -> None:
        self._last = ""
        self.emitter = Emitter(tag=TAG, stream=self)

    def write(self, text: str) -> int:
        """Take what the emitter writes: always a whole line."""
        self._last = text.rstrip("\n")
        return len(text)

    def flush(self) -> None:
        """Do nothing: nothing is buffered."""

    def line(self, fields: dict[str, Any], **options: Any) -> str:
        """Emit a record, and return its line."""
        self.emitter.emit(fields, **options)
        return self._last


class Writers:
    """Emitters and other loggers, and what they wrote.

    Attributes:
        lines: All lines with a record, or which look like one; twice those that were written twice.
        mentions: Lines that only contain the tag, by day.
        broken: Deliveries that came without their end, by day.
    """

    def __init__(self, pipeline: Pipeline, chance: random.Random) -> None:
        self.lines: list[Line] = []
        self.mentions: Counter[date] = Counter()
        self.broken: Counter[date] = Counter()
        self._pipeline = pipeline
        self._chance = chance
        self._client = pipeline.client("logs")
        self._sources = {group: [_Source(), _Source()] for group in GROUPS}
        self._earlier: dict[str, list[str]] = defaultdict(list)
        self._texts = 0
        for group in GROUPS:
            self._client.create_log_stream(logGroupName=group, logStreamName="stream")

    def write(self, kind: Kind | None = None) -> None:
        """Put some lines into a log group.

        Args:
            kind: What happens to their delivery into the stream.
        """
        chance, group = self._chance, self._chance.choice(GROUPS)
        if chance.random() < NEW_ENVIRONMENT:
            self._sources[group][chance.randrange(2)] = _Source()
        # Lines without a number count again if they are delivered again.
        texts_by_kind = TEXTS if kind is None else NUMBERED_TEXTS
        kinds = chance.choices([*texts_by_kind], [*texts_by_kind.values()], k=chance.randint(1, 30))
        texts = [self._text(group, each) for each in kinds]
        if kind is None and self._earlier[group] and chance.random() < WRITTEN_TWICE:
            texts.append(chance.choice(self._earlier[group]))
        delivery = self._pipeline.services.delivery
        if kind is not None:
            delivery.disturb(kind, seconds=chance.uniform(0.1, LONGEST_DELAY_S))
        now_ms = time.time_ns() // 1_000_000
        self._client.put_log_events(
            logGroupName=group,
            logStreamName="stream",
            logEvents=[{"timestamp": now_ms, "message": text} for text in texts],
        )
        delivery.calm()
        arrives = kind not in {Kind.LOSE, Kind.CORRUPT}
        day = datetime.fromtimestamp(now_ms / 1000, UTC).date()
        if kind is Kind.CORRUPT:
            self.broken[day] += 1
        for text in texts:
            self._note(group, day, text, arrives=arrives)
        if arrives:
            self._earlier[group] = [text for text in texts if '"_seq"' in text and '"/pets"' in text]

    def _text(self, group: str, kind: str) -> str:
        self._texts += 1
        if kind == "unreadable":
            return f'{TAG} {{"number": {self._texts}, '
        if kind == "mention":
            return f"there is no {TAG} here: {self._texts}"
        if kind == "unnumbered":
            return json.dumps({"_tag": TAG, "_id": f"other-{self._texts}", "route": "/other"})
        source = self._chance.choice(self._sources[group])
        if kind == "large":
            return source.line({"route": "/large", "body": "x" * 5_000})
        if kind == "unmappable":
            return source.line({"route": "/unmappable"}, type=UNMAPPABLE_TYPE)
        if kind == "meter":
            return source.line(_meter(str(self._texts), source.emitter.now()), type="meter")
        fields = {"route": "/pets", "number": self._texts}
        if kind == "earlier":
            ago_ms = self._chance.randrange(EARLIEST_MS)
            return source.line(fields, timestamp=source.emitter.now() - ago_ms)
        return source.line(fields)

    def _note(self, group: str, day: date, text: str, *, arrives: bool) -> None:
        if not text.startswith("{"):
            if text.startswith(TAG):
                self.lines.append(Line(group, day, text, None, rejected=True, arrives=arrives))
            else:
                self.mentions[day] += 1
            return
        record = json.loads(text)
        number = (record["_src"], record["_seq"]) if "_seq" in record else None
        rejected, meter = record.get("route") == "/unmappable", record.get("uniqueId", "")
        line = Line(group, day, record["_id"], number, rejected=rejected, arrives=arrives, meter=meter)
        self.lines.append(line)


def _meter(identity: str, time_ms: int) -> dict[str, Any]:
    return {
        "meterApiName": "requests",
        "customerId": "acme",
        "meterTimeInMillis": time_ms,
        "meterValue": 1,
        "uniqueId": identity,
        "dimensions": {"route": "/metered"},
    }


class Chaos:
    """Lets services fail and kills functions, until it ends.

    Attributes:
        kills: How often a function's processes were killed.
        kills_left: How often they still may be.
        faults: How many calls failed, by what happened to them.
    """

    def __init__(self, pipeline: Pipeline, chance: random.Random, *, times_out: bool) -> None:
        self.kills = self.kills_left = 0
        self.faults: Counter[str] = Counter()
        self._pipeline = pipeline
        self._chance = chance
        self._timeouts = TIMEOUTS_S if times_out else {}

    def change_weather(self) -> None:
        """Let another part of the services' calls fail."""
        self._clear()
        share = self._chance.choice(WEATHERS)
        for service, exposure in SERVICES.items():
            likely = share * exposure / len(REFUSALS)
            for kind in REFUSALS:
                self._add(Fault(kind, service, times=None, chance=likely))
            self._add(Fault(Kind.LATENCY, service, times=None, chance=likely, seconds=0.3))
            if service in self._timeouts:
                seconds = self._timeouts[service]
                self._add(Fault(Kind.LATENCY, service, times=2, chance=share / 10, seconds=seconds))

    def kill(self, functions: Sequence[str]) -> None:
        """Kill the processes of one of some functions, if it has not been done too often."""
        if self.kills_left > 0:
            self._pipeline.functions.kill(self._chance.choice(functions))
            self.kills += 1
            self.kills_left -= 1

    def end(self) -> None:
        """Let nothing fail any more."""
        self._clear()
        for mapping in self._pipeline.mappings:
            mapping.redeliver(0)

    def _add(self, fault: Fault) -> None:
        self._pipeline.services.faults.add(fault)

    def _clear(self) -> None:
        for fault, times in self._pipeline.services.faults.clear().items():
            is_timeout = fault.seconds in TIMEOUTS_S.values()
            self.faults["timeout" if is_timeout else str(fault.kind)] += times


@contextmanager
def _disturbing(chaos: Chaos, chance: random.Random, functions: Sequence[str]) -> Iterator[None]:
    """Change the weather and kill functions in a thread while the block runs, and end it with the block."""
    ended = threading.Event()

    def disturb() -> None:
        while not ended.wait(chance.expovariate(1 / EVERY_S)):
            chaos.change_weather()
            chaos.kill(functions)

    chaos.change_weather()
    thread = threading.Thread(target=disturb, name="chaos", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        chaos.end()


def _settle(pipeline: Pipeline) -> None:
    """Wait until the pipeline is idle; the questions whether it is may fail as well."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            pipeline.settle(timeout_s=max(0.0, deadline - time.monotonic()))
        except (ClientError, BotoCoreError):
            continue
        return


def _step_over_midnight(now: datetime, chance: random.Random) -> timedelta:
    """Return how far the clock is put: just before midnight, or to some hour of the next day."""
    midnight = datetime.combine(now.date() + timedelta(days=1), datetime.min.time(), UTC)
    seconds = chance.choice([-1.0, chance.uniform(0, 2), chance.uniform(0, 10 * 3600)])
    return max(midnight + timedelta(seconds=seconds) - now, timedelta(seconds=1))


def _replay_given_up(target: Target) -> int:
    """Do what `tagline replay failed --run` does; return how many batches that Lambda gave up were sent."""
    outcome = replay.ReplayOutcome()
    keys = replay.failed_batches(target, kept_lines.EVER)
    replay.send_items(target, replay.from_failed_batches(target, keys, outcome), outcome, lambda _: None)
    if outcome.failed:
        raise RuntimeError(f"not replayed: {outcome.failed}")
    return outcome.items


def _recover(pipeline: Pipeline, target: Target) -> int:
    """Let the pipeline finish now that nothing fails; return how many batches were replayed."""
    time.sleep(LONGEST_DELAY_S)
    _settle(pipeline)
    replayed = _replay_given_up(target)
    # Reports of the magnetic store are read when they are old enough.
    pipeline.advance(timedelta(hours=2))
    target.invoke("UpkeepName", {})
    _settle(pipeline)
    return replayed


# --- What has to be, and what is ---------------------------------------------------------------------------


def expected_days(
    lines: Iterable[Line], mentions: Mapping[date, int], broken: Mapping[date, int]
) -> dict[date, Counter[str]]:
    """Return for each day what `reconcile` has to count.

    Args:
        lines: All lines that look like records.
        mentions: Lines that only contain the tag, by day.
        broken: Kinesis records that cannot be read, by day.
    """
    days: dict[date, Counter[str]] = defaultdict(Counter)
    numbers: dict[tuple[str, str], dict[int, date]] = defaultdict(dict)
    counted: set[Any] = set()
    for line in lines:
        if not line.arrives:
            continue
        if line.number is not None:
            src, seq = line.number
            known = numbers[line.group, src]
            known[seq] = min(line.day, known.get(seq, line.day))
            if (line.group, line.number, line.day) in counted:
                continue
            counted.add((line.group, line.number, line.day))
        days[line.day].update(emitted=1, delivered=1, quarantined=int(line.rejected))
    for known in numbers.values():
        for before, after in pairwise(sorted(known)):
            days[known[after]].update(lost=after - before - 1, emitted=after - before - 1)
    for name, counts in (("mentioned", mentions), ("quarantined", broken)):
        for day, number in counts.items():
            days[day][name] += number
    return days


def reconciled_days(target: Target, days: Iterable[date]) -> dict[date, Counter[str]]:
    """Return what the deployed Reconciler counts for each day from the first to the last."""
    first, last = min(days), max(days)
    answer = target.invoke("ReconcilerName", {"from": first.isoformat(), "to": last.isoformat()})
    days_counted: dict[date, Counter[str]] = defaultdict(Counter)
    days_counted |= {
        date.fromisoformat(each["day"]): Counter({name: n for name, n in each.items() if name != "day"})
        for each in answer["days"]
    }
    return days_counted


def stored(target: Target) -> Counter[str]:
    """Return how often each identity is in the store."""
    store, found = target.store(), Counter[str]()
    for day in store.days() or ():
        columns = tuple(column for column in store.columns(day) if column.name == ID)
        if columns:
            found.update(str(identity) for (identity,) in store.rows(whole(day), columns).rows)
    return found


def metered(pipeline: Pipeline) -> Counter[str]:
    """Return how often each meter is in the bucket that meters are written to."""
    bucket = Bucket(pipeline.client("s3"), INGEST)
    files = (bucket.get(key) or b"[]" for key in bucket.keys(""))
    return Counter(str(meter["uniqueId"]) for file in files for meter in json.loads(file))


def quarantined(target: Target) -> tuple[Counter[str], int]:
    """Return how often each identity is in quarantine, and how many Kinesis records are.

    A line that was delivered to the stream twice is there twice, and counts once, as in `tagline reconcile`.
    """
    lines: dict[tuple[str, str], str] = {}
    for key, _ in kept_lines.list_objects(target, kept_lines.EVER):
        for kept in quarantine.read(kept_lines.read_object(target, key)):
            lines[kept.identity] = "" if kept.event is None else kept.event.message
    found = Counter(_identity(text) for text in lines.values())
    return found, found.pop("", 0)


def _identity(text: str) -> str:
    return str(json.loads(text)["_id"]) if text.startswith("{") else text


def differences(
    lines: Iterable[Line], in_store: Counter[str], in_quarantine: Counter[str], in_meters: Counter[str]
) -> dict[str, list[str]]:
    """Return the identities that are `lost`, `doubled`, or `misplaced`: in the other of the two places.

    Args:
        lines: All lines that look like records.
        in_store: How often each identity is in the store.
        in_quarantine: How often each is in quarantine.
        in_meters: How often each meter is among those that were sent on.
    """
    arrived = [line for line in lines if line.arrives]
    rows = {line.identity for line in arrived if not line.rejected}
    rejected = {line.identity for line in arrived if line.rejected}
    found, expected = in_store + in_quarantine, Counter([*rows, *rejected])
    meters = Counter({line.meter for line in arrived if line.meter})
    return {
        "lost": sorted((expected - found).elements()),
        "doubled": sorted((found - expected).elements()),
        "misplaced": sorted((rows & set(in_quarantine)) | (rejected & set(in_store))),
        "meters_lost": sorted((meters - in_meters).elements()),
        "meters_doubled": sorted((in_meters - meters).elements()),
    }


def _checked(pipeline: Pipeline, target: Target, writers: Writers) -> dict[str, float]:
    """Return what is stored and what is wrong, counted; examples of what is wrong go to stderr."""
    in_store, (in_quarantine, broken), in_meters = stored(target), quarantined(target), metered(pipeline)
    wrong = differences(writers.lines, in_store, in_quarantine, in_meters)
    wanted = expected_days(writers.lines, writers.mentions, writers.broken)
    counted = reconciled_days(target, wanted)
    wrong["days_wrong"] = [
        f"{day}: {dict(+wanted[day])} and not {dict(+counted[day])}"
        for day in sorted({*wanted, *counted})
        if +wanted[day] != +counted[day]
    ]
    if broken != writers.broken.total():
        wrong["undecodable_wrong"] = [f"{writers.broken.total()} Kinesis records and not {broken}"]
    for what, several in wrong.items():
        for each in several[:SHOWN]:
            _say(f"{what}: {each}")
    return {
        "rows": in_store.total(),
        "meters": in_meters.total(),
        "quarantined": in_quarantine.total(),
        "losses_injected": sum(day["lost"] for day in wanted.values()),
        "days": len(wanted),
        **{what: len(several) for what, several in wrong.items()},
        "wrong": sum(map(len, wrong.values())),
    }


# --- The run -----------------------------------------------------------------------------------------------


def run(minutes: float = MINUTES, seed: int = 0, store: str = LOCAL_STORE) -> dict[str, float]:
    """Return what was done and what is wrong afterwards: `wrong` is 0 if nothing is.

    Args:
        minutes: How long everything fails.
        seed: Where chance begins. Threads and processes run as they do, so a run is similar, not the same.
        store: The stack's parameter Store.
    """
    shards = 2 if minutes * 60 >= LONG_RUN_S else 1
    # What fails is logged by what retries it.
    logger = logging.getLogger("onemachine")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with (
            tempfile.TemporaryDirectory() as folder,
            Pipeline(_apps(Path(folder), shards, store)) as pipeline,
        ):
            return _soak(pipeline, minutes * 60, seed)
    finally:
        logger.setLevel(level)


def _soak(pipeline: Pipeline, seconds: float, seed: int) -> dict[str, float]:
    _say(f"seed {seed}, {seconds:g} s")
    chance, target = random.Random(seed), target_of(pipeline)
    writers = Writers(pipeline, random.Random(seed + 1))
    chaos = Chaos(pipeline, random.Random(seed + 2), times_out=seconds >= LONG_RUN_S)
    functions = [target.outputs[name] for name in FUNCTIONS]
    done: Counter[str] = Counter()
    first_day = pipeline.clock.now().date()
    with _disturbing(chaos, random.Random(seed + 3), functions):
        began = time.monotonic()
        while (passed := time.monotonic() - began) < seconds:
            chaos.kills_left = KILLS_A_STEP
            _write_for(writers, chance, pipeline, done, seconds=chance.uniform(1, min(8.0, seconds / 3)))
            # No record is in the stream for two steps of the clock: it would be older than a stream keeps it.
            _settle(pipeline)
            _write_for(writers, chance, pipeline, done, seconds=chance.uniform(0.2, 1))
            pipeline.advance(_step_over_midnight(pipeline.clock.now(), chance))
            _write_for(writers, chance, pipeline, done, seconds=1.2)
            done["clock_steps"] += 1
            done["midnights"] = (pipeline.clock.now().date() - first_day).days
            if done["clock_steps"] % REPLAY_EVERY == 0:
                done["replayed_batches"] += _replayed_or_none(target)
            now = f"{pipeline.clock.now():%F %T}"
            _say(f"{passed:.0f} s: {len(writers.lines)} lines, {chaos.kills} kills, the clock is at {now}")
    done["replayed_batches"] += _recover(pipeline, target)
    return {
        "seconds": time.monotonic() - began,
        "lines": len(writers.lines),
        **{f"faults_{kind}": times for kind, times in sorted(chaos.faults.items())},
        "kills": chaos.kills,
        "kills_in_an_invocation": _killed_invocations(pipeline, set(functions)),
        **done,
        **_checked(pipeline, target, writers),
    }


def _write_for(
    writers: Writers, chance: random.Random, pipeline: Pipeline, done: Counter[str], *, seconds: float
) -> None:
    """Write lines for some seconds, with deliveries and batches that go wrong."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        (kind,) = chance.choices([*DELIVERIES], [*DELIVERIES.values()])
        if kind is Kind.CORRUPT and _is_near_midnight(pipeline.clock.now()):
            kind = None  # it would count for the day of its arrival, which may be either
        writers.write(kind)
        if kind is not None:
            done[f"deliveries_{kind}"] += 1
        if chance.random() < REDELIVERED:
            chance.choice(pipeline.mappings).redeliver()
            done["redeliveries_asked"] += 1
        time.sleep(chance.uniform(0, 0.1))


def _is_near_midnight(now: datetime) -> bool:
    return (now + timedelta(seconds=2)).date() != (now - timedelta(seconds=2)).date()


def _replayed_or_none(target: Target) -> int:
    """Replay what was given up while services fail: what does not succeed is replayed later."""
    try:
        return _replay_given_up(target)
    except (CommandError, ClientError, BotoCoreError, OSError, RuntimeError):
        return 0


def _killed_invocations(pipeline: Pipeline, functions: Iterable[str]) -> int:
    """Return how many invocations ended because their process was killed."""
    ended = 0
    for function in functions:
        group = f"/tagline/tagline/{function.removeprefix('tagline-')}"
        pages = pipeline.client("logs").get_paginator("filter_log_events")
        for page in pages.paginate(logGroupName=group, filterPattern='"signal: killed"'):
            ended += len(page["events"])
    return ended


def _apps(folder: Path, shards: int, store: str) -> list[App]:
    """Return the pipeline's stack, and one with the log groups that it collects from."""
    groups = {
        f"Group{number}": {"Type": "AWS::Logs::LogGroup", "Properties": {"LogGroupName": group}}
        for number, group in enumerate(GROUPS)
    }
    ingest = {"Ingest": {"Type": "AWS::S3::Bucket", "Properties": {"BucketName": INGEST}}}
    (folder / "template.yml").write_text(
        json.dumps({"Transform": "AWS::Serverless-2016-10-31", "Resources": groups | ingest})
    )
    parameters = {
        "LogGroups": ",".join(GROUPS),
        "Store": store,
        "BatchWindowSeconds": "0",
        "MeterBucket": INGEST,
        "MeterBatchWindowSeconds": "0",
        "StreamMode": "PROVISIONED",
        "ShardCount": str(shards),
        # Rows are counted at the end.
        "MagneticStoreDays": "3650",
    }
    return [App("soak", folder / "template.yml"), App("tagline", ROOT / "template.yml", parameters)]


def _say(text: str) -> None:
    sys.stderr.write(f"soak: {text}\n")
    sys.stderr.flush()
