"""Which lines were delivered, by source and number, so that those that never came can be counted. Pure.

A consumer sees only its own batch, and a stream has many shards: only all batches together show what is
missing. Each batch writes one document below `accounting/batches/`. The Reconciler merges these into
documents of days, and into the numbers of every source (`consumers.accounts.sources`). Documents are merged
as unions and maxima, so their order and their number of deliveries make no difference.

Lines count for the day of their log event: events are ordered like the numbers, and records are not.
docs/how-to/reconcile.md has the model.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from datetime import date, timedelta
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import orjson
from tagline import Record

from consumers.documents import check_version, stamped
from consumers.lines.extract import extract, written_number
from consumers.lines.quarantine import name
from consumers.rows.table import DAY_MS

if TYPE_CHECKING:
    from consumers.accounts.minutes import BatchMinutes
    from consumers.lines.ledger import Ledger
    from consumers.lines.quarantine import ObjectWriter
    from consumers.lines.subscription import LogEvent

PREFIX: Final = "accounting/"
BATCHES: Final = f"{PREFIX}batches/"
# Version 1 had the groups at its root; version 2 was a document for each batch and day of its records.
FORMAT_VERSION: Final = 3

# What an emitter can write: JSON numbers are exact up to 2**53, and its sources have 16 characters.
MAX_NUMBER: Final = 2**53
MAX_SOURCE_CHARACTERS: Final = 64

Intervals = tuple[tuple[int, int], ...]
"""Whole numbers as ranges, first and last: in order, and with gaps between them."""

Sources = Mapping[str, Intervals]
"""Numbers of lines by the source that wrote them."""

Accounts = Mapping[date, Mapping[str, "Account"]]
"""Accounts by day and log group."""

# Ranges of one source that are kept apart until they are joined.
_LOOSE = 100
_EPOCH = date(1970, 1, 1)
_FIRST_DAY = (date.min - _EPOCH).days
_LAST_DAY = (date.max - _EPOCH).days
_FOLDER = re.compile(rf"{PREFIX}year=(\d{{4}})/month=(\d\d)/day=(\d\d)/")


class Account(NamedTuple):
    """The delivered lines of one log group and one day.

    Attributes:
        delivered: Lines with a number, whatever became of them.
        quarantined: Those of them that were rejected, by reason.
        counts: Lines without a number, by what is counted and by Kinesis record (`record_digest`): those that
            were delivered, `unnumbered`; those of them that were rejected, `unnumbered_<reason>`; and lines
            that only mention the tag, `mentioned`. A rejected Kinesis record counts as one rejected line.
            Lines replayed from quarantine count for the Kinesis record that they came with.
    """

    delivered: Mapping[str, Intervals] = {}
    quarantined: Mapping[str, Sources] = {}
    counts: Mapping[str, Mapping[str, int]] = {}


class Losses(NamedTuple):
    """What the numbers of all days show to be missing on one day.

    Attributes:
        lost: Numbers that did not come, between two of their source that did.
        implausible: Delivered lines whose number is too far from their source's others to be true.
    """

    lost: int = 0
    implausible: int = 0


class Totals(NamedTuple):
    """An account in numbers of lines.

    Attributes:
        emitted: Delivered and lost lines together.
        delivered: Lines that came, each once.
        quarantined: Those of them that were rejected, by reason; they may have been replayed since.
        lost: Lines that did not come, between two of the same source that did.
        implausible: Delivered lines whose number cannot be true. They do not make others look lost.
        mentioned: Lines that contain the tag and are not records; they are not among the others.
    """

    emitted: int
    delivered: int
    quarantined: Mapping[str, int]
    lost: int
    implausible: int = 0
    mentioned: int = 0


_NOTHING_LOST = Losses()


def totals(account: Account, losses: Losses = _NOTHING_LOST) -> Totals:
    """Return an account's numbers.

    Args:
        account: The account of a day.
        losses: What is missing on that day, from `consumers.accounts.sources`.
    """
    counts = Counter({what: sum(lines.values()) for what, lines in account.counts.items()})
    delivered = sum(map(count, account.delivered.values())) + counts["unnumbered"]
    quarantined = Counter(
        {reason: sum(map(count, sources.values())) for reason, sources in account.quarantined.items()}
    )
    quarantined.update(
        {
            what.removeprefix("unnumbered_"): lines
            for what, lines in counts.items()
            if what.startswith("unnumbered_")
        }
    )
    return Totals(
        emitted=delivered + losses.lost,
        delivered=delivered,
        quarantined=dict(quarantined),
        lost=losses.lost,
        implausible=losses.implausible,
        mentioned=counts["mentioned"],
    )


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


# --- The document ------------------------------------------------------------------------------------------


def folder(day: date) -> str:
    """Return the beginning of the keys of a day."""
    return f"{PREFIX}year={day:%Y}/month={day:%m}/day={day:%d}/"


def document_key(prefix: str, document: bytes) -> str:
    """Return a document's key: it contains a digest, so that no document replaces a different one."""
    return f"{prefix}{hashlib.blake2b(document, digest_size=8).hexdigest()}.json"


def to_json(accounts: Accounts, minutes: Mapping[str, Any] | None = None) -> bytes:
    """Return the document that holds accounts.

    Args:
        accounts: The accounts.
        minutes: A batch's requests by minute, `consumers.accounts.minutes`.
    """
    days = {
        day.isoformat(): {
            group: {
                "delivered": account.delivered,
                "quarantined": account.quarantined,
                "counts": account.counts,
            }
            for group, account in groups.items()
        }
        for day, groups in accounts.items()
    }
    more = {} if minutes is None else {"minutes": minutes}
    return dump(stamped({"days": days, **more}, FORMAT_VERSION))


def dump(document: Mapping[str, Any]) -> bytes:
    """Return a document as JSON, its keys in order."""
    try:
        return orjson.dumps(document, option=orjson.OPT_SORT_KEYS)
    except TypeError:
        # orjson writes no halves of surrogate pairs, which a log group's name may hold.
        return json.dumps(document, separators=(",", ":"), sort_keys=True).encode()


def from_json(document: bytes, key: str) -> dict[date, dict[str, Account]]:
    """Return the accounts of a document; `accounts_in` has the arguments and what is raised."""
    return accounts_in(content_of(document), key)


def content_of(document: bytes) -> Any:
    """Return the content of a document.

    Raises:
        ValueError: If it is not JSON.
    """
    try:
        return orjson.loads(document)
    except ValueError:
        return json.loads(document)  # what orjson could not write


def accounts_in(content: Any, key: str) -> dict[date, dict[str, Account]]:
    """Return the accounts in a document.

    Args:
        content: The document's content.
        key: Its key, which has the day of a document of version 1 or 2.

    Raises:
        consumers.documents.NewerDocumentError: If a newer version of Tagline has written it.
        ValueError: If it is not a document of accounts, or without a day; also TypeError, LookupError,
            AttributeError.
    """
    version = check_version(content, FORMAT_VERSION)
    if version == FORMAT_VERSION:
        return {
            date.fromisoformat(day): {group: _account(of) for group, of in groups.items()}
            for day, groups in content["days"].items()
        }
    found = _FOLDER.match(key)
    if found is None:
        raise ValueError(f"{key!r} has no day")
    year, month, day = map(int, found.groups())
    groups = content if version == 1 else content["groups"]
    return {date(year, month, day): {group: _old_account(of) for group, of in groups.items()}}


def _account(content: Mapping[str, Any]) -> Account:
    return Account(
        _sources(content["delivered"]),
        {reason: _sources(sources) for reason, sources in content["quarantined"].items()},
        content["counts"],
    )


def _old_account(content: Mapping[str, Any]) -> Account:
    """Return an account of version 1 or 2, whose counts were by Kinesis record first."""
    counts: dict[str, dict[str, int]] = defaultdict(dict)
    for record, of in content["records"].items():
        for what, lines in of.items():
            counts[what][record] = lines
    counts.pop("received", None)
    return _account({**content, "counts": counts})


def _sources(ranges_by_src: Mapping[str, Any]) -> Sources:
    return {src: intervals((first, last) for first, last in ranges) for src, ranges in ranges_by_src.items()}


def record_digest(kinesis_record: Mapping[str, Any]) -> str:
    """Return a short name of a Kinesis record, the same in every delivery and replay of it."""
    event_id = name(dict(kinesis_record)).partition(".")[0]
    return base64.urlsafe_b64encode(hashlib.blake2b(event_id.encode(), digest_size=9).digest()).decode()


# --- A batch -----------------------------------------------------------------------------------------------

Cell = tuple[int, str, int]
"""What is counted together: a day since 1970, a log group, and a Kinesis record's position in the batch."""

Runs = list[list[int]]
"""Whole numbers as they came: runs of them, first and last."""


class BatchAccounts:
    """The accounts of a batch, collected line by line.

    Args:
        tag: The token that marks a line.
        prefix: The setting TAGLINE_PREFIX: what may be before a record on its line.
    """

    def __init__(self, tag: str, prefix: str = "") -> None:
        self._tag = tag
        self._prefix = prefix
        # No counters, because one takes three times as long to make, and each Kinesis record has its own.
        self._counts: dict[Cell, dict[str, int]] = defaultdict(partial(defaultdict, int))
        # By the reason for quarantine, empty for all that were delivered, and by source.
        self._runs: dict[tuple[Cell, str, str], Runs] = defaultdict(list)

    def add(  # noqa: PLR0917 - called for every line
        self,
        position: int,
        log_group: str,
        timestamp: int,
        src: str | None,
        seq: int | None,
        reason: str = "",
    ) -> None:
        """Count a line.

        Args:
            position: The position of its Kinesis record.
            log_group: Where it was written.
            timestamp: The log event's milliseconds since 1970.
            src: The source that wrote it, if known.
            seq: Its number, if it has one.
            reason: Why it was rejected; empty to count it as delivered.
        """
        cell = (timestamp // DAY_MS, log_group, position)
        if src is None or seq is None:
            self._counts[cell][f"unnumbered_{reason}" if reason else "unnumbered"] += 1
        else:
            _extend(self._runs[cell, reason, src], seq)

    def of(self, ledger: Ledger) -> Accounts:
        """Return the accounts of the batch; once, when its ledger is complete.

        Kinesis records from the first that failed on are left out: they are delivered again, and accounted
        for then.
        """
        for position, event, rejected in ledger.rejections():
            if event is None:
                arrived = float(ledger.records[position]["kinesis"]["approximateArrivalTimestamp"])
                self.add(position, "", int(arrived * 1000), None, None, rejected.reason)
                continue
            record = extract(event, self._tag, self._prefix)
            if isinstance(record, Record):
                src, seq = record.src, record.seq
            else:
                src, seq = written_number(event.message, self._tag, self._prefix) or (None, None)
                self.add(position, event.log_group, event.timestamp, src, seq)  # it was not yielded as a line
            self.add(position, event.log_group, event.timestamp, src, seq, rejected.reason)
        for (position, day, log_group), lines in ledger.mentioned.items():
            self._counts[day, log_group, position]["mentioned"] += lines
        return self._accounts(ledger)

    def _accounts(self, ledger: Ledger) -> Accounts:
        until = len(ledger.records) if ledger.failed is None else ledger.failed
        # A batch may have thousands of Kinesis records, so the numbers of a day and group are joined once.
        drafts: dict[date, dict[str, MergedAccount]] = defaultdict(partial(defaultdict, MergedAccount))
        for (cell, reason, src), runs in self._runs.items():
            day, group, position = cell
            if position >= until:
                continue
            if _is_plausible(src) and all(first >= 0 and last <= MAX_NUMBER for first, last in runs):
                drafts[_day(day)][group].add_numbers(reason, src, runs)
            else:
                lines = sum([last - first + 1 for first, last in runs])
                self._counts[cell][f"unnumbered_{reason}" if reason else "unnumbered"] += lines
        for (day, group, position), counts in self._counts.items():
            if position < until:
                record = record_digest(ledger.records[position])
                for what, lines in counts.items():
                    drafts[_day(day)][group].add_counts(what, {record: lines})
        return accounts_of(drafts)


class MergedAccount:
    """Accounts of a log group and a day, merged one by one: only the sum is in memory."""

    def __init__(self) -> None:
        # By the reason for quarantine, empty for delivered, and by source.
        self._ranges: dict[str, dict[str, list[tuple[int, int]]]] = defaultdict(lambda: defaultdict(list))
        self._limits: dict[tuple[str, str], int] = {}
        self._counts: dict[str, dict[str, int]] = defaultdict(dict)

    def add(self, account: Account) -> None:
        """Merge an account into the sum."""
        for reason, sources in (("", account.delivered), *account.quarantined.items()):
            for src, numbers in sources.items():
                self.add_numbers(reason, src, numbers)
        for what, lines in account.counts.items():
            self.add_counts(what, lines)

    def add_numbers(self, reason: str, src: str, numbers: Iterable[Any]) -> None:
        """Merge a source's ranges of numbers: the delivered ones, or those rejected for a reason."""
        ranges = self._ranges[reason][src]
        ranges += [(first, last) for first, last in numbers]  # a batch has them as lists, which change
        if len(ranges) > self._limits.get((reason, src), _LOOSE):
            ranges[:] = intervals(ranges)
            # If many stay separate, joining them for every document would take ever longer.
            self._limits[reason, src] = max(_LOOSE, 2 * len(ranges))

    def add_counts(self, what: str, lines_by_record: Mapping[str, int]) -> None:
        """Merge counts of Kinesis records, which may have come before: the highest is right."""
        known = self._counts[what]
        for record, lines in lines_by_record.items():
            known[record] = max(known.get(record, 0), lines)

    def account(self) -> Account:
        """Return the sum."""
        sources: dict[str, Sources] = {
            reason: {src: intervals(ranges) for src, ranges in of.items()}
            for reason, of in self._ranges.items()
        }
        return Account(sources.pop("", {}), sources, self._counts)


def accounts_of(merged: Mapping[date, Mapping[str, MergedAccount]]) -> Accounts:
    """Return merged accounts by day and log group."""
    return {
        day: {group: each.account() for group, each in sorted(groups.items())}
        for day, groups in sorted(merged.items())
    }


def write(
    batch: BatchAccounts, ledger: Ledger, objects: ObjectWriter, minutes: BatchMinutes | None = None
) -> None:
    """Write the accounts of a batch, after everything else of it is written. If that fails, the batch fails.

    Its rows are stored by then, and stay the same when the batch is delivered again. Without the accounts,
    its lines would look lost.

    Args:
        batch: The accounts.
        ledger: The batch's ledger, complete.
        objects: Where to.
        minutes: The batch's requests by minute.
    """
    accounts = batch.of(ledger)
    if not accounts:
        return
    body = to_json(accounts, None if minutes is None else minutes.document(ledger))
    try:
        objects.write(document_key(f"{BATCHES}{name(ledger.records[0])}-", body), body)
    except OSError:
        ledger.unaccounted += 1
        ledger.fail(0, lines=0)


def day_of_event(event: LogEvent) -> date:
    """Return the day whose accounts have a line."""
    return _day(event.timestamp // DAY_MS)


def _is_plausible(src: str) -> bool:
    return len(src) <= MAX_SOURCE_CHARACTERS and src.isascii()


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
