"""Which lines were delivered, by emitter and number, so that those which never came can be counted. Pure.

A consumer knows no more than its batch, and a stream has many shards: what is missing can only be told from
all batches of a day. Each leaves an object for each day of its lines, below `accounting/<day>/`.
They are merged as unions and maxima, so that it makes no difference how often and in what order they came.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, Final

import orjson
from tagline import Record, parse_timestamp

from consumers.documents import VERSION, check_version
from consumers.lines.extract import extract
from consumers.lines.quarantine import name
from consumers.rows.table import DAY_MS

if TYPE_CHECKING:
    from consumers.lines.ledger import Ledger
    from consumers.lines.quarantine import ObjectWriter
    from consumers.lines.subscription import LogEvent

PREFIX = "accounting/"
# Version 1 had the groups at its root.
FORMAT_VERSION: Final = 2

Intervals = tuple[tuple[int, int], ...]
"""Whole numbers as ranges, first and last: in order, and with gaps between them."""

Sources = Mapping[str, Intervals]
"""Numbers of lines by the emitter that wrote them."""

_EPOCH = date(1970, 1, 1)
_FIRST_DAY = (date.min - _EPOCH).days
_LAST_DAY = (date.max - _EPOCH).days

# What can still be read of a line that cannot: its quotes are escaped where the object is a text in another.
_NUMBER = re.compile(r'"_src\\*"\s*:\s*\\*"([^"\\]+)\\*",\s*\\*"_seq\\*"\s*:\s*(\d{1,18})\b')
_TIME = re.compile(r'"timestamp\\*"\s*:\s*\\*"([^"\\]+)')


@dataclass(frozen=True, slots=True)
class Account:
    """The lines of one log group and one day that were delivered.

    Attributes:
        delivered: Lines with a number, whatever became of them.
        quarantined: Those of them that were rejected, by reason.
        records: For each Kinesis record, by its name, how many lines were `received`, how many of these are
            `unnumbered`, and how many of the latter were rejected, `unnumbered_<reason>`. A Kinesis record
            that was rejected as a whole counts as one of these. What is replayed from quarantine counts for
            the Kinesis record that it came with: it is the same lines again.
    """

    delivered: Sources = field(default_factory=dict)
    quarantined: Mapping[str, Sources] = field(default_factory=dict)
    records: Mapping[str, Mapping[str, int]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Totals:
    """An account in numbers of lines.

    Attributes:
        emitted: Those that the emitters have numbered, from the lowest that came to the highest, and those
            without a number that came.
        delivered: Those that came, each once.
        duplicate: How many times one of them came again.
        quarantined: Those that were rejected, by reason; they may have been replayed since.
        lost: Those with a number that did not come though a lower and a higher of the same emitter did.
    """

    emitted: int
    delivered: int
    duplicate: int
    quarantined: Mapping[str, int]
    lost: int


def totals(account: Account) -> Totals:
    """Return an account's numbers."""
    counts: Counter[str] = Counter()
    for record in account.records.values():
        counts.update(record)
    numbered = sum(map(count, account.delivered.values()))
    lost = sum(map(gaps, account.delivered.values()))
    delivered = numbered + counts["unnumbered"]
    quarantined = Counter(
        {reason: sum(map(count, sources.values())) for reason, sources in account.quarantined.items()}
    )
    quarantined.update(
        {
            name.removeprefix("unnumbered_"): lines
            for name, lines in counts.items()
            if name.startswith("unnumbered_")
        }
    )
    return Totals(delivered + lost, delivered, counts["received"] - delivered, dict(quarantined), lost)


# --- Intervals ---------------------------------------------------------------------------------------------


def intervals(ranges: Iterable[tuple[int, int]]) -> Intervals:
    """Return ranges as intervals, whatever their order and wherever they overlap."""
    joined: list[tuple[int, int]] = []
    for first, last in sorted(ranges):
        if joined and first <= joined[-1][1] + 1:
            joined[-1] = (joined[-1][0], max(joined[-1][1], last))
        else:
            joined.append((first, last))
    return tuple(joined)


def count(numbers: Intervals) -> int:
    """Return how many numbers there are."""
    return sum(last - first + 1 for first, last in numbers)


def gaps(numbers: Intervals) -> int:
    """Return how many numbers are missing between the lowest and the highest."""
    return numbers[-1][1] - numbers[0][0] + 1 - count(numbers) if numbers else 0


# --- The object --------------------------------------------------------------------------------------------


def folder(day: date) -> str:
    """Return the beginning of the keys of a day."""
    return f"{PREFIX}year={day:%Y}/month={day:%m}/day={day:%d}/"


def to_json(accounts: Mapping[str, Account]) -> bytes:
    """Return the document with the accounts of a day, by log group."""
    groups = {
        group: {
            "delivered": account.delivered,
            "quarantined": account.quarantined,
            "records": account.records,
        }
        for group, account in sorted(accounts.items())
    }
    document = {VERSION: FORMAT_VERSION, "groups": groups}
    try:
        return orjson.dumps(document, option=orjson.OPT_SORT_KEYS)
    except TypeError:
        # It takes no numbers beyond 64 bits, and no halves of surrogate pairs.
        return json.dumps(document, separators=(",", ":"), sort_keys=True).encode()


def from_json(document: bytes) -> dict[str, Account]:
    """Return the accounts of a document, by log group.

    Raises:
        consumers.documents.NewerDocumentError: If a newer version of Tagline has written it.
    """
    content = json.loads(document)
    groups = content if check_version(content, FORMAT_VERSION) == 1 else content["groups"]
    return {
        group: Account(
            _sources(account["delivered"]),
            {reason: _sources(sources) for reason, sources in account["quarantined"].items()},
            account["records"],
        )
        for group, account in groups.items()
    }


def _sources(ranges_by_src: Mapping[str, Any]) -> Sources:
    return {src: intervals((first, last) for first, last in ranges) for src, ranges in ranges_by_src.items()}


# --- A batch -----------------------------------------------------------------------------------------------

Cell = tuple[int, str, int]
"""What is counted together: a day since 1970, a log group, and a Kinesis record's position in the batch."""

Runs = list[list[int]]
"""Whole numbers as they came: runs of them, first and last."""


class BatchAccounts:
    """The accounts of a batch, collected line by line.

    Args:
        tag: The token that marks a line.
    """

    def __init__(self, tag: str) -> None:
        self._tag = tag
        # No counters, because one takes three times as long to make, and each Kinesis record has its own.
        self._counts: dict[Cell, dict[str, int]] = defaultdict(partial(defaultdict, int))
        # By the reason for quarantine, empty for all that were delivered, and by emitter.
        self._runs: dict[tuple[Cell, str, str], Runs] = defaultdict(list)

    def add(self, position: int, log_group: str, timestamp: int, src: str | None, seq: int | None) -> None:
        """Count a line.

        Args:
            position: The position of its Kinesis record.
            log_group: Where it was written.
            timestamp: Its milliseconds since 1970.
            src: The emitter that wrote it, if known.
            seq: Its number, if it has one.
        """
        cell = (timestamp // DAY_MS, log_group, position)
        if src is None or seq is None:
            self._counts[cell]["received"] += 1
            self._counts[cell]["unnumbered"] += 1
        else:
            _extend(self._runs[cell, "", src], seq)

    def by_day(self, ledger: Ledger) -> dict[date, dict[str, Account]]:
        """Return the accounts of the batch, by day and log group; once, when its ledger is complete.

        Kinesis records from the first that failed on are left out: they are delivered again, and accounted
        for then.
        """
        for position, event, rejected in ledger.rejections():
            if event is None:
                arrived = float(ledger.records[position]["kinesis"]["approximateArrivalTimestamp"])
                cell = (int(arrived * 1000) // DAY_MS, "", position)
                self._counts[cell][f"unnumbered_{rejected.reason}"] += 1
                continue
            record = extract(event, self._tag)
            if isinstance(record, Record):
                timestamp, src, seq = record.timestamp, record.src, record.seq
            else:
                timestamp, src, seq = _readable_parts(event)
                self.add(position, event.log_group, timestamp, src, seq)  # it was not yielded as a line
            cell = (timestamp // DAY_MS, event.log_group, position)
            if src is None or seq is None:
                self._counts[cell][f"unnumbered_{rejected.reason}"] += 1
            else:
                _extend(self._runs[cell, rejected.reason, src], seq)
        return self._accounts(ledger)

    def _accounts(self, ledger: Ledger) -> dict[date, dict[str, Account]]:
        until = len(ledger.records) if ledger.failed is None else ledger.failed
        # A batch may have thousands of Kinesis records, so the numbers of a day and group are joined once.
        drafts: dict[tuple[date, str], _Draft] = defaultdict(_Draft)
        for (cell, reason, src), runs in self._runs.items():
            day, group, position = cell
            if position < until:
                drafts[_day(day), group].numbers[reason][src] += runs
                if not reason:
                    self._counts[cell]["received"] += sum([last - first + 1 for first, last in runs])
        for (day, group, position), counts in self._counts.items():
            if position < until:
                records = drafts[_day(day), group].records
                record = name(ledger.records[position]).partition(".")[0]
                known = records.setdefault(record, counts)
                if known is not counts:
                    known.update({what: max(known.get(what, 0), count) for what, count in counts.items()})
        accounts: dict[date, dict[str, Account]] = defaultdict(dict)
        for (when, group), draft in drafts.items():
            accounts[when][group] = draft.account()
        return accounts


class _Draft:
    """An account in the making: its numbers by reason, empty for all that were delivered, and by emitter."""

    def __init__(self) -> None:
        self.numbers: dict[str, dict[str, Runs]] = defaultdict(lambda: defaultdict(list))
        self.records: dict[str, dict[str, int]] = {}

    def account(self) -> Account:
        """Return the account."""
        quarantined = {
            reason: {src: intervals((first, last) for first, last in runs) for src, runs in sources.items()}
            for reason, sources in self.numbers.items()
        }
        return Account(quarantined.pop("", {}), quarantined, self.records)


def write(batch: BatchAccounts, ledger: Ledger, objects: ObjectWriter) -> None:
    """Write the accounts of a batch, after everything else of it is written. If that fails, it fails.

    Its rows are stored by then, and stay the same when they are delivered again. Without the accounts, its
    lines would look lost. An object is named after its content as well, so that none overwrites one with more
    lines: a batch that begins with the same Kinesis record can be longer.
    """
    for day, accounts in batch.by_day(ledger).items():
        body = to_json(accounts)
        digest = hashlib.blake2b(body, digest_size=8).hexdigest()
        try:
            objects.write(f"{folder(day)}{name(ledger.records[0])}-{digest}.json", body)
        except OSError:
            ledger.unaccounted += 1
            ledger.fail(0, lines=0)


def day_of_event(event: LogEvent, tag: str) -> date:
    """Return the day whose accounts have a line.

    Args:
        event: The line.
        tag: The token that marks a line.
    """
    record = extract(event, tag)
    return _day((record.timestamp if isinstance(record, Record) else _readable_parts(event)[0]) // DAY_MS)


def _readable_parts(event: LogEvent) -> tuple[int, str | None, int | None]:
    """Return what can be read of a line that is not a record: its time, its emitter and its number."""
    found = _TIME.search(event.message)
    timestamp = parse_timestamp(found[1]) if found else None
    number = _NUMBER.search(event.message)
    time = event.timestamp if timestamp is None else timestamp
    return (time, number[1], int(number[2])) if number else (time, None, None)


def _extend(runs: list[list[int]], number: int) -> None:
    """Add a number to runs of them; most lines come in their order."""
    if runs and runs[-1][1] + 1 == number:
        runs[-1][1] = number
    else:
        runs.append([number, number])


@lru_cache(maxsize=64)
def _day(days: int) -> date:
    """Return a day by its number since 1970; one beyond the calendar is its nearest day."""
    return _EPOCH + timedelta(days=min(max(days, _FIRST_DAY), _LAST_DAY))
