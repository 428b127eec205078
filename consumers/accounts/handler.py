"""Lambda entry: a day's accounts become how many lines were emitted, came, are quarantined or lost."""

from __future__ import annotations

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import cache
from itertools import islice
from typing import Any, Final, Protocol

import boto3
from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.metrics import MetricUnit

from consumers.accounts import accounting
from consumers.accounts.accounting import Account, Sources, Totals, intervals
from consumers.asked_days import days_of
from consumers.settings import read_settings

Handler = Callable[[dict[str, Any], Any], dict[str, Any]]
Ranges = list[tuple[int, int]]

# Objects that are read at the same time, and held in memory.
READERS: Final = 8
# Ranges of one emitter that are kept apart until they are joined.
_LOOSE = 100
# Log groups that the summary line names.
MAX_NAMED: Final = 20


class UnreadableAccountError(ValueError):
    """An object of `accounting/` is none that a consumer has written; the message names it."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What the function's environment says; docs/reference/settings.md."""

    bucket: str


class Accounts(Protocol):
    """Where the consumers leave their accounts."""

    def of(self, day: date) -> Iterator[tuple[str, bytes]]:
        """Yield the key and the body of each object of a day."""


@dataclass(frozen=True, slots=True)
class Day:
    """What became of a day's lines.

    Attributes:
        day: The day, in UTC.
        groups: The numbers of each log group; that of Kinesis records that cannot be read has no name.
    """

    day: date
    groups: Mapping[str, Totals]

    def counts(self) -> dict[str, int]:
        """Return the sums of all log groups by name."""
        totals = self.groups.values()
        return {
            "emitted": sum(each.emitted for each in totals),
            "delivered": sum(each.delivered for each in totals),
            "quarantined": sum(sum(each.quarantined.values()) for each in totals),
            "lost": sum(each.lost for each in totals),
        }


class Merging:
    """Accounts of a log group, merged one by one: what is in memory is the sum, and no object twice.

    It says the same as `Account.merge` of all of them, which makes every sum anew.
    """

    def __init__(self) -> None:
        # By the reason for quarantine, none for delivered, and by emitter.
        self._ranges: dict[str, dict[str, Ranges]] = defaultdict(lambda: defaultdict(list))
        self._limits: dict[tuple[str, str], int] = {}
        # By what is counted, and by a digest of the Kinesis record's event id: a day may have millions.
        self._counts: dict[str, dict[bytes, int]] = defaultdict(dict)

    def add(self, account: Account) -> None:
        """Merge an account into the sum."""
        for reason, sources in (("", account.delivered), *account.quarantined.items()):
            of = self._ranges[reason]
            for src, numbers in sources.items():
                ranges = of[src]
                ranges += numbers
                if len(ranges) > self._limits.get((reason, src), _LOOSE):
                    ranges[:] = intervals(ranges)
                    # Where many stay apart, joining them for every object would take ever longer.
                    self._limits[reason, src] = max(_LOOSE, 2 * len(ranges))
        for record, counts in account.records.items():
            digest = hashlib.blake2b(record.encode(), digest_size=12).digest()
            for name, count in counts.items():
                seen = self._counts[name]
                seen[digest] = max(seen.get(digest, 0), count)

    def totals(self) -> Totals:
        """Return the sum's numbers."""
        sources: dict[str, Sources] = {
            reason: {src: intervals(ranges) for src, ranges in of.items()}
            for reason, of in self._ranges.items()
        }
        counts = {name: sum(of.values()) for name, of in self._counts.items()}
        return accounting.totals(Account(sources.pop("", {}), sources, {"all": counts}))


def reconcile(day: date, accounts: Accounts) -> Day:
    """Return what became of a day's lines, by all accounts of it that there are now.

    Raises:
        UnreadableAccountError: If an object is no account: a number that leaves it out would be wrong.
    """
    groups: dict[str, Merging] = defaultdict(Merging)
    for key, body in accounts.of(day):
        try:
            said = accounting.from_json(body)
        except (ValueError, TypeError, LookupError, AttributeError) as error:
            raise UnreadableAccountError(f"{key}: {type(error).__name__}: {error}") from None
        for group, account in said.items():
            groups[group].add(account)
    return Day(day, {group: merging.totals() for group, merging in sorted(groups.items())})


def make_handler(
    accounts: Accounts, *, now: Callable[[], datetime], report: Callable[[Day], None]
) -> Handler:
    """Return a Lambda handler that reconciles days.

    Args:
        accounts: Where the consumers leave theirs.
        now: Gives the time.
        report: Is given what became of each day.
    """

    def handler(event: dict[str, Any], _context: Any) -> dict[str, Any]:
        reconciled = []
        for day in days_of(event, now()):
            result = reconcile(day, accounts)
            report(result)
            reconciled.append({"day": day.isoformat(), **result.counts()})
        return {"days": reconciled}

    return handler


class Bucket:
    """The accounts in an S3 bucket.

    Args:
        client: A boto3 client for S3.
        name: The bucket's name.
    """

    def __init__(self, client: Any, name: str) -> None:
        self._client = client
        self._name = name

    def of(self, day: date) -> Iterator[tuple[str, bytes]]:
        """Yield the key and the body of each object of a day; few are in memory at a time."""
        keys = self._keys(accounting.folder(day))
        with ThreadPoolExecutor(READERS) as readers:
            while some := list(islice(keys, READERS)):
                yield from zip(some, readers.map(self._get, some), strict=True)

    def _keys(self, prefix: str) -> Iterator[str]:
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._name, Prefix=prefix)
        return (found["Key"] for page in pages for found in page.get("Contents", ()))

    def _get(self, key: str) -> bytes:
        body: bytes = self._client.get_object(Bucket=self._name, Key=key)["Body"].read()
        return body


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Reconcile the day before the schedule's, or the days that are asked for."""
    return _live()(event, context)


@cache
def _live() -> Handler:
    settings = read_settings(Settings, os.environ)
    return make_handler(
        Bucket(boto3.client("s3"), settings.bucket), now=lambda: datetime.now(UTC), report=report_day
    )


def report_day(result: Day) -> None:
    """Write a day's one summary line, and its metrics.

    The metrics tell how it stands, and not what has been added: a day that is reconciled again counts
    nothing twice where the Maximum is looked at. Log groups are no dimension, because an account may have any
    number of them and each would be four metrics more; the line names those that lines are missing of.
    """
    counts = result.counts()
    reasons: Counter[str] = Counter()
    for totals in result.groups.values():
        reasons.update(totals.quarantined)
    missing = {group: totals.lost for group, totals in result.groups.items() if totals.lost}
    worst = sorted(missing, key=lambda group: (-missing[group], group))[:MAX_NAMED]
    Logger().info(
        "reconciled",
        extra={
            "day": result.day.isoformat(),
            **counts,
            "duplicate": sum(totals.duplicate for totals in result.groups.values()),
            "reasons": dict(sorted(reasons.items())),
            "log_groups": len(result.groups),
            "lost_of": {group: missing[group] for group in worst},
        },
    )
    metrics = Metrics()
    metrics.add_dimension(name="stage", value="reconcile")
    metrics.add_metadata(key="day", value=result.day.isoformat())
    for name, count in counts.items():
        metrics.add_metric(name=name, unit=MetricUnit.Count, value=count)
    metrics.flush_metrics()
