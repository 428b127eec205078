"""Sends what was rejected, given up or never delivered to the consumers again."""

from __future__ import annotations

import contextlib
import hashlib
import json
import random
import re
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError
from rich.table import Column

from cli.errors import CommandError
from cli.quarantine import EVER, ArrivalDays, list_objects
from cli.screen import FoldingTable
from cli.target import Target
from consumers import replay
from consumers.lines import quarantine
from consumers.lines.quarantine import ObjectKey, UnreadableQuarantineError
from consumers.lines.subscription import LogEvent
from consumers.replay import BusyError, FailedError, KinesisRecord, UnreadableSourceError

FAILED_BATCHES = "aws/lambda/"
# What was replayed is kept here for a while, under the key that it had.
REPLAYED = "replayed/"
CURSORS = f"{REPLAYED}cursors/"
# Names the objects of quarantine that a replay may have sent and has not moved yet.
SENDING = f"{REPLAYED}sending.json"
# The pipeline's own log groups: the consumer drops their lines.
OWN_LOG_GROUPS = "/tagline/"
# How the reasons of the second consumer begin.
METER_REASONS = "meter_"

MAX_FRUITLESS = 6
# Halving finds one bad record among the most that an event holds in fewer: a function that fails more often
# without a success in between fails on everything.
MAX_FAILURES = 25
# Waits between tries that get nowhere: a random part of a ceiling that doubles up to the second, in seconds.
# https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
FIRST_WAIT_S, LONGEST_WAIT_S = 1.0, 30.0

# https://docs.aws.amazon.com/lambda/latest/dg/kinesis-on-failure-destination.html
_FAILED_KEY = re.compile(r"aws/lambda/[^/]+/shardId-[^/]+/(\d{4})/(\d\d)/(\d\d)/[^/]+")
_BUSY = frozenset(
    ["TooManyRequestsException", "ServiceException", "EC2ThrottledException", "ThrottlingException"]
)
_JSON = "application/json"


@dataclass(frozen=True, slots=True)
class ReplayItem:
    """Something to replay.

    Attributes:
        name: Its key in the bucket, or the time in milliseconds that lines of a log group reach up to.
        function: Which function gets it.
        records: It, as Kinesis records.
        etag: Of the object when it was read; None if it is not an object.
    """

    name: str
    function: str
    records: list[KinesisRecord]
    etag: str | None = None


@dataclass(slots=True)
class ReplayOutcome:
    """What became of a replay, or of a dry run.

    Attributes:
        items: Objects, or pages of a log group.
        records: Kinesis records that were sent, or would be.
        counts: What the decoder makes of their lines; not of what was left where it is.
        rejected: Lines that are in quarantine after all, by reason.
        failed: What was left where it is, and why.
    """

    items: int = 0
    records: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    rejected: Counter[str] = field(default_factory=Counter)
    failed: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return it for a program."""
        return {
            "items": self.items,
            "records": self.records,
            "lines": dict(self.counts),
            "rejected": dict(self.rejected),
            "failed": self.failed,
        }

    def table(self) -> FoldingTable:
        """Return it as a table."""
        shown = FoldingTable("what", Column("count", justify="right"))
        rows = {
            "objects or pages read": self.items,
            "Kinesis records": self.records,
            **{f"lines: {name}": count for name, count in sorted(self.counts.items())},
            **{f"lines rejected again: {name}": count for name, count in sorted(self.rejected.items())},
            "left where they are": len(self.failed),
        }
        for name, count in rows.items():
            shown.add_row(name, f"{count:,}")
        return shown


@dataclass(frozen=True, slots=True)
class LogSlice:
    """Lines of a log group.

    Attributes:
        group: The log group's name.
        first_ms: From this time on, in milliseconds since 1970.
        end_ms: Before this time.
    """

    group: str
    first_ms: int
    end_ms: int


def consumer_of(target: Target, reason: str) -> str:
    """Return the function of a reason's consumer: it gets what was rejected for it.

    Raises:
        CommandError: If the pipeline has no such function.
    """
    output = "MeterConsumerName" if reason.startswith(METER_REASONS) else "RowConsumerName"
    if output not in target.outputs:
        raise CommandError(
            f"the pipeline has no {output}, which reads lines of the reason {reason}",
            "replay it where that consumer runs, or leave that reason out with --reason",
        )
    return target.outputs[output]


def from_quarantine(
    target: Target, listed: Iterable[tuple[str, ObjectKey]], outcome: ReplayOutcome
) -> Iterator[ReplayItem]:
    """Yield objects of quarantine; one that cannot be read is entered as failed."""
    bucket = target.bucket()
    for key, place in listed:
        found = bucket.read(key)
        if found is None:
            continue  # Another replay has moved it.
        try:
            records = replay.from_quarantine(key, found[0])
        except UnreadableQuarantineError as error:
            outcome.failed[key] = str(error)
        else:
            yield ReplayItem(key, consumer_of(target, place.reason), records, found[1])


def from_failed_batches(target: Target, keys: Iterable[str], outcome: ReplayOutcome) -> Iterator[ReplayItem]:
    """Yield batches that Lambda gave up, each for the function that failed on it."""
    bucket = target.bucket()
    for key in keys:
        found = bucket.read(key)
        if found is None:
            continue
        try:
            batch = replay.from_failed_batch(found[0])
        except UnreadableSourceError as error:
            outcome.failed[key] = str(error)
        else:
            yield ReplayItem(key, batch.function, batch.records, found[1])


def from_log_group(target: Target, wanted: LogSlice, function: str) -> Iterator[ReplayItem]:
    """Yield the lines of a log group that a function reads, a page at a time, in the order of their times.

    Lines that are in quarantine are left out: they would be kept a second time, under another name. They are
    replayed from there.
    """
    logs = target.client("logs")
    arn = log_group_arn(target, wanted.group)
    meter_tag = _meter_tag(target, function)
    known = _quarantined(target, wanted, of_meters=function == target.outputs.get("MeterConsumerName"))
    pages = logs.get_paginator("filter_log_events").paginate(
        logGroupName=wanted.group,
        startTime=wanted.first_ms,
        endTime=wanted.end_ms - 1,  # FilterLogEvents takes what is not later than it.
        # As the subscription filter of template.yml has it.
        filterPattern=f'?"{target.tag}" ?"{meter_tag}"' if meter_tag else f'"{target.tag}"',
    )
    for page in pages:
        events = page["events"]
        records = [
            replay.from_log_event(
                LogEvent(
                    event["eventId"],
                    event["timestamp"],
                    event["message"],
                    wanted.group,
                    event["logStreamName"],
                    arn.split(":")[4],
                ),
                event["ingestionTime"],
                arn,
            )
            for event in events
            if (wanted.group, event["eventId"]) not in known
        ]
        if events:
            yield ReplayItem(str(events[-1]["timestamp"]), function, records)


def failed_batches(target: Target, days: ArrivalDays) -> Iterator[str]:
    """Yield the keys of batches that Lambda gave up on the days of a window."""
    for key in target.bucket().keys(FAILED_BATCHES):
        found = _FAILED_KEY.fullmatch(key)
        if found is not None and date(*map(int, found.groups())) in days:
            yield key


def log_group_arn(target: Target, group: str) -> str:
    """Return the ARN of a log group.

    Raises:
        CommandError: If it does not exist, or is one of the pipeline's own.
    """
    if group.startswith(OWN_LOG_GROUPS):
        raise CommandError(
            f"{group} is one of the pipeline's own log groups",
            "replay the log group of the application that wrote the lines",
        )
    pages = target.client("logs").get_paginator("describe_log_groups").paginate(logGroupNamePrefix=group)
    for page in pages:
        for found in page["logGroups"]:
            if found["logGroupName"] == group:
                return str(found["arn"]).removesuffix(":*")
    raise CommandError(
        f"the log group {group} does not exist", "give the name of one, such as /aws/lambda/my-api"
    )


def count_items(
    target: Target, items: Iterable[ReplayItem], outcome: ReplayOutcome, advance: Callable[[ReplayItem], None]
) -> None:
    """Count what would be replayed, through the consumers' decoder, and change nothing."""
    for item in items:
        outcome.items += 1
        outcome.records += len(item.records)
        outcome.counts += _preview(target, item, item.records)
        advance(item)


def _preview(target: Target, item: ReplayItem, records: list[KinesisRecord]) -> Counter[str]:
    """Count what the decoder of an item's function makes of records."""
    meter_tag = _meter_tag(target, item.function)
    return replay.preview(records, target.tag, OWN_LOG_GROUPS, meter_tag=meter_tag, prefix=target.prefix)


def _meter_tag(target: Target, function: str) -> str:
    """Return the token of meter records, for the consumer that reads them; empty for the other."""
    return target.meter_tag if function == target.outputs.get("MeterConsumerName") else ""


def recover(target: Target, outcome: ReplayOutcome) -> None:
    """Send again what a replay of quarantine has left half done, before anything else is read.

    Its lines may be in quarantine a second time, under the names of what was sent. Those objects are removed:
    the ones that they were made of are still there, and are sent whole.
    """
    listed = [(key, quarantine.parse_key(key)) for key in sorted(_noted(target))]
    if not listed:
        return
    items = list(from_quarantine(target, listed, outcome))
    # What is gone was moved before the end came.
    _note(target, {item.name for item in items})
    kept = dict(list_objects(target, EVER))
    reasons = {place.reason for place in kept.values()}
    again = {
        quarantine.object_key(reason, each) for reason in reasons for item in items for each in item.records
    }
    target.bucket().delete(sorted(again & set(kept)))
    send_items(target, items, outcome, lambda _: None)


def send_items(
    target: Target,
    items: Iterable[ReplayItem],
    outcome: ReplayOutcome,
    advance: Callable[[ReplayItem], None],
    *,
    pause_s: float = 0.0,
    done: Callable[[ReplayItem], None] | None = None,
) -> None:
    """Replay items, as many in one invocation as fit, one invocation after another.

    An item is done with when its function has stored or rejected all of it: an object is then moved below
    `replayed/`. What is ended in the middle goes on where it was when it is run again; what is sent twice by
    that becomes the same rows and the same objects.

    Args:
        target: The pipeline.
        items: What to replay.
        outcome: Is filled.
        advance: Is called after each item.
        pause_s: Seconds to wait after each invocation.
        done: Is called instead of moving an object, when an item is done with.

    Raises:
        CommandError: If a function cannot be called, or takes nothing for a while.
    """
    bucket = target.bucket()
    names: set[str] = set()
    noted = _noted(target)
    for group in _together(items):
        objects = {item.name for item in group if item.name.startswith(quarantine.PREFIX)}
        if objects - noted:
            noted |= objects
            _note(target, noted)
        records = [record for item in group for record in item.records]
        names.update(quarantine.name(record) for record in records)
        failed = _send(target, group[0].function, records, pause_s)
        for item in group:
            outcome.items += 1
            outcome.records += len(item.records)
            bad = [record["eventID"] for record in item.records if record["eventID"] in failed]
            taken = [record for record in item.records if record["eventID"] not in failed]
            outcome.counts += _preview(target, item, taken)
            if bad and item.etag is not None:
                outcome.failed[item.name] = failed[bad[0]]
            else:
                outcome.failed |= {event_id: failed[event_id] for event_id in bad}
                if done is not None:
                    done(item)
                elif item.etag is not None:
                    bucket.move(item.name, REPLAYED + item.name, item.etag)
                noted.discard(item.name)
            advance(item)
        if objects:
            _note(target, noted)
    outcome.rejected += _rejected(target, names)


def cursor_key(*asked: Any) -> str:
    """Return where in the bucket it is noted how far a replay of a log group has come.

    Args:
        asked: What the replay was asked for: the same again goes on.
    """
    return f"{CURSORS}{hashlib.blake2b(json.dumps(asked).encode(), digest_size=16).hexdigest()}.json"


def read_cursor(target: Target, key: str) -> int | None:
    """Return up to which time a replay has come, in milliseconds since 1970; None where there was none."""
    body = target.bucket().get(key)
    return None if body is None else int(json.loads(body)["replayed_up_to_ms"])


def write_cursor(target: Target, key: str, item: ReplayItem) -> None:
    """Write how far a replay has come. Lines of that very millisecond are sent again."""
    target.bucket().put(key, [json.dumps({"replayed_up_to_ms": int(item.name)}).encode()], _JSON)


def _noted(target: Target) -> set[str]:
    """Return the objects of quarantine that were being sent when a replay ended before them."""
    noted = target.bucket().get(SENDING)
    return set() if noted is None else set(json.loads(noted))


def _note(target: Target, keys: Collection[str]) -> None:
    """Note the objects of quarantine that may be sent, and are not moved yet."""
    if keys:
        target.bucket().put(SENDING, [json.dumps(sorted(keys)).encode()], _JSON)
    else:
        target.bucket().delete([SENDING])


def _together(items: Iterable[ReplayItem]) -> Iterator[list[ReplayItem]]:
    """Yield items that are sent together: for the same function, and about an event's worth of them."""
    group: list[ReplayItem] = []
    size = 0
    for item in items:
        more = sum(map(replay.size_of, item.records))
        if group and (size + more > replay.MAX_EVENT_BYTES or item.function != group[0].function):
            yield group
            group, size = [], 0
        group.append(item)
        size += more
    if group:
        yield group


def _send(target: Target, function: str, records: list[KinesisRecord], pause_s: float) -> dict[str, str]:
    """Give records to a function; return those that it fails on by themselves, by event id, with why."""
    why: dict[str, str] = {}
    failures = 0

    def invoke(some: list[KinesisRecord]) -> Any:
        nonlocal failures
        try:
            answer = _invoke(target, function, some)
        except FailedError as error:
            failures += 1
            if failures > MAX_FAILURES:
                raise CommandError(
                    f"{function} fails on everything: {error}",
                    "its log group has the reason; fix it and run the same command again: it resumes",
                ) from error
            if len(some) == 1:
                why[str(some[0]["eventID"])] = f"{function} failed: {error}"
            raise
        failures = 0
        time.sleep(pause_s)
        return answer

    def wait(fruitless: int) -> None:
        if fruitless >= MAX_FRUITLESS:
            raise CommandError(
                f"{function} has left everything unwritten {fruitless} times in a row",
                "its log group has the reason; fix it and run the same command again: it resumes",
            )
        ceiling = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2 ** (fruitless - 1))
        time.sleep(random.random() * ceiling)  # noqa: S311 - spreads load, guards nothing

    fitting = [record for record in records if replay.size_of(record) <= replay.MAX_EVENT_BYTES]
    for record in records:
        if replay.size_of(record) > replay.MAX_EVENT_BYTES:
            why[str(record["eventID"])] = f"larger than an event of {replay.MAX_EVENT_BYTES:,} bytes"
    for batch in replay.batches(fitting):
        replay.send(batch, invoke, wait)
    return why


def _invoke(target: Target, function: str, records: list[KinesisRecord]) -> Any:
    """Call a function with records and return its answer."""
    try:
        response = target.client("lambda").invoke(
            FunctionName=function, Payload=json.dumps({"Records": records}).encode()
        )
        answer = json.loads(response["Payload"].read())
    except ClientError as error:
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        if error.response["Error"]["Code"] in _BUSY or status >= 500:  # noqa: PLR2004 - HTTP's server errors
            raise BusyError(str(error)) from error
        raise CommandError(
            f"cannot call {function}: {error}", "it must exist, and you must be allowed to invoke it"
        ) from error
    except BotoCoreError as error:
        raise BusyError(str(error)) from error
    if "FunctionError" in response:
        raise FailedError(f"{answer.get('errorType')}: {answer.get('errorMessage')}")
    return answer


def _quarantined(target: Target, wanted: LogSlice, *, of_meters: bool) -> set[tuple[str, str]]:
    """Return the identities of a log group's lines that one of the consumers has in quarantine."""
    # No line arrives before it is written, but CloudWatch takes times that are two hours ahead.
    first = datetime.fromtimestamp(wanted.first_ms / 1000, UTC).date() - timedelta(days=1)
    bucket = target.bucket()
    found: set[tuple[str, str]] = set()
    for key, place in list_objects(target, ArrivalDays(first, None)):
        if place.reason.startswith(METER_REASONS) != of_meters:
            continue
        body = bucket.get(key) or b""
        # An unreadable object is reported when it is replayed, and holds none of these lines.
        with contextlib.suppress(UnreadableQuarantineError):
            found.update(kept.identity for kept in quarantine.read(body) if kept.event is not None)
    return found


def _rejected(target: Target, names: Collection[str]) -> Counter[str]:
    """Count the lines that are in quarantine under names, by reason."""
    counts: Counter[str] = Counter()
    bucket = target.bucket()
    for key, place in list_objects(target, EVER):
        if place.name in names:
            counts[place.reason] += (bucket.get(key) or b"").count(b"\n")
    return counts
