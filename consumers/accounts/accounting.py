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
from functools import partial
from typing import TYPE_CHECKING, Any

import orjson
from tagline import Record, parse_timestamp

from consumers.lines.extract import extract
from consumers.rows.table import DAY_MS

if TYPE_CHECKING:
    from consumers.lines.ledger import Ledger
    from consumers.lines.quarantine import Objects
    from consumers.lines.subscription import LogEvent

PREFIX = "accounting/"

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
    """What came of one log group on one day.

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

    def merge(self, other: Account) -> Account:
        """Return what both tell of together."""
        return Account(
            _union(self.delivered, other.delivered),
            {
                reason: _union(self.quarantined.get(reason, {}), other.quarantined.get(reason, {}))
                for reason in sorted({*self.quarantined, *other.quarantined})
            },
            {
                record: _most(self.records.get(record, {}), other.records.get(record, {}))
                for record in sorted({*self.records, *other.records})
            },
        )


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


def _union(one: Sources, other: Sources) -> Sources:
    return {src: intervals((*one.get(src, ()), *other.get(src, ()))) for src in sorted({*one, *other})}


def _most(one: Mapping[str, int], other: Mapping[str, int]) -> Mapping[str, int]:
    return {name: max(one.get(name, 0), other.get(name, 0)) for name in sorted({*one, *other})}


# --- The object --------------------------------------------------------------------------------------------


def folder(day: date) -> str:
    """Return the beginning of the keys of a day."""
    return f"{PREFIX}year={day:%Y}/month={day:%m}/day={day:%d}/"


def to_json(accounts: Mapping[str, Account]) -> bytes:
    """Return the object that says the accounts of a day, by log group."""
    document = {
        group: {
            "delivered": account.delivered,
            "quarantined": account.quarantined,
            "records": account.records,
        }
        for group, account in sorted(accounts.items())
    }
    try:
        return orjson.dumps(document, option=orjson.OPT_SORT_KEYS)
    except TypeError:
        # It takes no numbers beyond 64 bits, and no halves of surrogate pairs.
        return json.dumps(document, separators=(",", ":"), sort_keys=True).encode()


def from_json(document: bytes) -> dict[str, Account]:
    """Return the accounts that an object says, by log group."""
    return {
        group: Account(
            _sources(said["delivered"]),
            {reason: _sources(sources) for reason, sources in said["quarantined"].items()},
            said["records"],
        )
        for group, said in json.loads(document).items()
    }


def _sources(said: Mapping[str, Any]) -> Sources:
    return {src: intervals((first, last) for first, last in ranges) for src, ranges in said.items()}


# --- A batch -----------------------------------------------------------------------------------------------

Place = tuple[int, str, int]
"""A day since 1970, a log group, and the position of a Kinesis record in the batch."""

Runs = list[list[int]]
"""Whole numbers as they came: runs of them, first and last."""


class Books:
    """What a batch delivers, noted while its lines go by.

    Args:
        tag: The token that marks a line.
    """

    def __init__(self, tag: str) -> None:
        self._tag = tag
        # No counters, because one takes three times as long to make, and each Kinesis record has its own.
        self._counts: dict[Place, dict[str, int]] = defaultdict(partial(defaultdict, int))
        # By the reason of what is in quarantine, none for what came, and by emitter.
        self._runs: dict[tuple[Place, str, str], Runs] = defaultdict(list)

    def note(self, position: int, log_group: str, timestamp: int, src: str | None, seq: int | None) -> None:
        """Note a line.

        Args:
            position: The position of its Kinesis record.
            log_group: Where it was written.
            timestamp: Its milliseconds since 1970.
            src: The emitter that wrote it, if it says so.
            seq: Its number, if it has one.
        """
        place = (timestamp // DAY_MS, log_group, position)
        if src is None or seq is None:
            self._counts[place]["received"] += 1
            self._counts[place]["unnumbered"] += 1
        else:
            _extend(self._runs[place, "", src], seq)

    def close(self, ledger: Ledger) -> dict[date, dict[str, Account]]:
        """Return the accounts of the batch, by day and log group; once, when its ledger is complete.

        Kinesis records from the first that failed on are left out: they are delivered again, and accounted
        for then.
        """
        for position, event, rejected in ledger.rejections():
            if event is None:
                arrived = float(ledger.records[position]["kinesis"]["approximateArrivalTimestamp"])
                place = (int(arrived * 1000) // DAY_MS, "", position)
                self._counts[place][f"unnumbered_{rejected.reason}"] += 1
                continue
            record = extract(event, self._tag)
            if isinstance(record, Record):
                timestamp, src, seq = record.timestamp, record.src, record.seq
            else:
                timestamp, src, seq = _legible(event)
                self.note(position, event.log_group, timestamp, src, seq)  # no line that was yielded
            place = (timestamp // DAY_MS, event.log_group, position)
            if src is None or seq is None:
                self._counts[place][f"unnumbered_{rejected.reason}"] += 1
            else:
                _extend(self._runs[place, rejected.reason, src], seq)
        return self._accounts(ledger)

    def _accounts(self, ledger: Ledger) -> dict[date, dict[str, Account]]:
        until = len(ledger.records) if ledger.failed is None else ledger.failed
        # A batch may have thousands of Kinesis records, so what is of one day and group is joined once.
        drafts: dict[tuple[int, str], _Draft] = defaultdict(_Draft)
        for (place, reason, src), runs in self._runs.items():
            day, group, position = place
            if position < until:
                drafts[day, group].numbers[reason][src] += runs
                if not reason:
                    self._counts[place]["received"] += sum([last - first + 1 for first, last in runs])
        for (day, group, position), counts in self._counts.items():
            if position < until:
                records = drafts[day, group].records
                record = _name(ledger.records[position]).partition(".")[0]
                records[record] = _most(records[record], counts) if record in records else counts
        accounts: dict[date, dict[str, Account]] = defaultdict(dict)
        for (day, group), draft in drafts.items():
            there, account = accounts[_day(day)], draft.account()
            there[group] = there[group].merge(account) if group in there else account
        return accounts


class _Draft:
    """An account in the making: its numbers by reason, none for those that came, and emitter."""

    def __init__(self) -> None:
        self.numbers: dict[str, dict[str, Runs]] = defaultdict(lambda: defaultdict(list))
        self.records: dict[str, Mapping[str, int]] = {}

    def account(self) -> Account:
        """Return it."""
        quarantined = {
            reason: {src: intervals((first, last) for first, last in runs) for src, runs in sources.items()}
            for reason, sources in self.numbers.items()
        }
        return Account(quarantined.pop("", {}), quarantined, self.records)


def keep(books: Books, ledger: Ledger, objects: Objects) -> None:
    """Write the accounts of a batch, after everything else of it is written; else the batch fails.

    Its rows are stored by then, and land on themselves when they come again. Without the accounts, its lines
    would look lost. An object is named after what it says as well, so that none takes the place of another
    that tells of more: a batch that begins with the same Kinesis record can be a longer one.
    """
    for day, accounts in books.close(ledger).items():
        body = to_json(accounts)
        digest = hashlib.blake2b(body, digest_size=8).hexdigest()
        try:
            objects.put(f"{folder(day)}{_name(ledger.records[0])}-{digest}.json", body)
        except OSError:
            ledger.unaccounted += 1
            ledger.fail(0, lines=0)


def day_of(event: LogEvent, tag: str) -> date:
    """Return the day that a line is accounted for on.

    Args:
        event: The line.
        tag: The token that marks a line.
    """
    record = extract(event, tag)
    return _day((record.timestamp if isinstance(record, Record) else _legible(event)[0]) // DAY_MS)


def _name(kinesis_record: Mapping[str, Any]) -> str:
    """Return how a Kinesis record is called in keys; where a replay made it of that, a dot follows."""
    return str(kinesis_record["eventID"]).replace(":", "-")


def _legible(event: LogEvent) -> tuple[int, str | None, int | None]:
    """Return what can be read of a line that is no record: its time, its emitter and its number."""
    said = _TIME.search(event.message)
    timestamp = parse_timestamp(said[1]) if said else None
    number = _NUMBER.search(event.message)
    time = event.timestamp if timestamp is None else timestamp
    return (time, number[1], int(number[2])) if number else (time, None, None)


def _extend(runs: list[list[int]], number: int) -> None:
    """Add a number to runs of them; most lines come in their order."""
    if runs and runs[-1][1] + 1 == number:
        runs[-1][1] = number
    else:
        runs.append([number, number])


def _day(days: int) -> date:
    """Return a day by its number since 1970; one that no calendar has is the nearest that it has."""
    return _EPOCH + timedelta(days=min(max(days, _FIRST_DAY), _LAST_DAY))
