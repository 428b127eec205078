"""Documents of batches become documents of days, and the numbers of every source: days are reconciled."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import partial
from typing import Final

from consumers.accounts import accounting, minutes, sources
from consumers.accounts.accounting import Account, Losses, MergedAccount, Totals, accounts_of
from consumers.accounts.minutes import WINDOW_MINUTES, Minutes
from consumers.accounts.sources import SourceNumbers
from consumers.bucket import Objects
from consumers.errors import TaglineError

# Objects that are read at the same time; twice as many are held in memory.
READERS: Final = 32
# Documents of batches that one document of a day is made of.
MAX_BATCHES: Final = 20_000
# Another writer of the sources' numbers was quicker so often: there is only one Reconciler, and its retries.
_TRIES: Final = 5


class UnreadableAccountError(TaglineError, ValueError):
    """An object of `accounting/` cannot be read as one that a consumer has written; the message names it."""


class UnfinishedError(TaglineError):
    """Time was over before all documents of batches were merged; the next invocation merges the rest."""


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
            "implausible": sum(each.implausible for each in totals),
            "mentioned": sum(each.mentioned for each in totals),
        }


class MergedAccounts:
    """The accounts of several documents, merged one by one.

    Args:
        minutes: Gets the documents' requests by minute.
    """

    def __init__(self, minutes: Minutes | None = None) -> None:
        self._minutes = minutes
        self._days: dict[date, dict[str, MergedAccount]] = defaultdict(partial(defaultdict, MergedAccount))

    def add(self, key: str, body: bytes) -> None:
        """Merge a document.

        Raises:
            UnreadableAccountError: If it is not a document of accounts.
        """
        try:
            content = accounting.content_of(body)
            days = accounting.accounts_in(content, key)
            if self._minutes is not None:
                self._minutes.add_batch(content.get("minutes"))
        except (ValueError, TypeError, LookupError, AttributeError) as error:
            raise UnreadableAccountError(
                f"{key}: {type(error).__name__}: {error}; no consumer wrote it: move it away"
            ) from None
        self.add_accounts(days)

    def add_accounts(self, accounts: accounting.Accounts) -> None:
        """Merge accounts."""
        for day, groups in accounts.items():
            for group, account in groups.items():
                self._days[day][group].add(account)

    def accounts(self) -> accounting.Accounts:
        """Return the sum, by day and log group."""
        return accounts_of(self._days)


def compact(objects: Objects, now: datetime, is_over: Callable[[], bool]) -> dict[str, int]:
    """Merge the documents of batches into documents of days and the numbers of every source, and delete them.

    Each is deleted after everything made of it is written, so an interrupted run loses nothing: what is
    merged twice counts once. Requests by minute are kept apart, for as long as no roll-up has them.

    Args:
        objects: The bucket.
        now: The time. Gaps that are old by then are only counted from now on.
        is_over: Tells that the time for this is over.

    Returns:
        How many documents were merged (`batches`), how many sources are known (`sources`), and how many were
        `forgotten`.

    Raises:
        UnreadableAccountError: If a document cannot be read; all others are merged.
        UnfinishedError: If time was over.
    """
    documents = read_objects(objects, objects.keys(accounting.BATCHES))
    unreadable: list[str] = []
    counts = {"batches": 0, "sources": 0, "forgotten": 0}
    earlier = _keys_of_minutes(objects, now - timedelta(minutes=WINDOW_MINUTES))
    known = _merged_minutes(objects, earlier).records
    while True:
        recent, done = Minutes(known), []
        merged = MergedAccounts(recent)
        for key, body in documents:
            try:
                merged.add(key, body)
                done.append(key)
            except UnreadableAccountError as error:
                unreadable.append(str(error))
            if len(done) == MAX_BATCHES or is_over():
                break
        if not done:
            break
        accounts = merged.accounts()
        for day, groups in accounts.items():
            document = accounting.to_json({day: groups})
            objects.put(
                accounting.document_key(accounting.folder(day), document), [document], "application/json"
            )
        counts["sources"], forgotten = _carry(objects, accounts, now.astimezone(UTC).date())
        counts["forgotten"] += forgotten
        if recent.counts:
            _keep_minutes(objects, recent, now)
            known |= recent.records
        objects.delete(done)
        counts["batches"] += len(done)
        if is_over():
            raise UnfinishedError(
                f"merged {counts['batches']:,} documents below {accounting.BATCHES} until time was over: "
                "invoke the function again"
            )
    if unreadable:
        raise UnreadableAccountError("; ".join(unreadable))
    return counts


def _keep_minutes(objects: Objects, recent: Minutes, now: datetime) -> None:
    body = recent.to_json()
    objects.put(accounting.document_key(minutes.folder_of_merge(now), body), [body], "application/json")


def _merged_minutes(objects: Objects, keys: Iterable[str]) -> Minutes:
    found = Minutes()
    for _, body in read_objects(objects, keys):
        found.add_merged(body)
    return found


def _keys_of_minutes(objects: Objects, first: datetime) -> list[str]:
    """Return the keys of the requests by minute of batches that were merged since a time."""
    return [key for key in objects.keys(minutes.PREFIX) if key >= minutes.folder_of_merge(first)]


def recent_minutes(objects: Objects, first: datetime) -> Minutes:
    """Return the requests by minute of all batches, whether or not they have been merged.

    Args:
        objects: The bucket.
        first: Batches that were merged before this time are left out.

    Raises:
        NewerDocumentError: If a newer Tagline wrote a document.
        UnfinishedError: If batches were merged all the time.
    """
    for _ in range(_TRIES):
        merged = _keys_of_minutes(objects, first)
        found = _merged_minutes(objects, merged)
        for _, body in read_objects(objects, objects.keys(accounting.BATCHES)):
            # What cannot be read is named by the merge, which has an alarm.
            with suppress(ValueError, TypeError, LookupError, AttributeError):
                found.add_batch(accounting.content_of(body).get("minutes"))
        # A merge deletes batches, maybe before they were read.
        if _keys_of_minutes(objects, first) == merged:
            return found
    raise UnfinishedError(
        f"batches were merged {_TRIES} times while they were read: invoke the function again"
    )


def _carry(objects: Objects, accounts: accounting.Accounts, today: date) -> tuple[int, int]:
    """Add accounts to the numbers of every source; return how many sources are known, and were forgotten."""
    for _ in range(_TRIES):
        body, tag = objects.read(sources.KEY) or (None, None)
        numbers = read_sources(body)
        numbers.add(accounts)
        forgotten = numbers.settle(today)
        if objects.replace(sources.KEY, numbers.to_json(), tag):
            return len(numbers), forgotten
    raise UnfinishedError(f"{sources.KEY} was replaced by another {_TRIES} times: invoke the function again")


def read_sources(body: bytes | None) -> SourceNumbers:
    """Return the numbers of every source.

    Raises:
        UnreadableAccountError: If the document is not one of them.
    """
    try:
        return SourceNumbers.from_json(body)
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        raise UnreadableAccountError(f"{sources.KEY}: {type(error).__name__}: {error}") from None


def reconcile(objects: Objects, days: Iterable[date]) -> Iterator[Day]:
    """Yield what became of the lines of each day, whether or not their batches have been merged.

    Args:
        objects: The bucket.
        days: The days. Each is read when it is asked for.

    Raises:
        UnreadableAccountError: If an object is not an account: numbers without it would be wrong.
    """
    # Before all else: what a compaction deletes meanwhile is in the documents that are read later.
    batches = MergedAccounts()
    for key, body in read_objects(objects, objects.keys(accounting.BATCHES)):
        batches.add(key, body)
    recent = batches.accounts()
    numbers = read_sources(objects.get(sources.KEY))
    numbers.add(recent)
    losses = numbers.losses()
    for day in days:
        accounts = _merged_day(objects, day, recent.get(day, {}))
        yield Day(day, _totals(accounts, losses.get(day, {})))


def _merged_day(objects: Objects, day: date, recent: Mapping[str, Account]) -> Mapping[str, Account]:
    """Return a day's accounts by log group: those of its documents, and recent ones."""
    merged = MergedAccounts()
    for key, body in read_objects(objects, objects.keys(accounting.folder(day))):
        merged.add(key, body)
    merged.add_accounts({day: recent})
    return merged.accounts().get(day, {})


def _totals(accounts: Mapping[str, Account], losses: Mapping[str, Losses]) -> dict[str, Totals]:
    return {
        group: accounting.totals(accounts.get(group, Account()), losses.get(group, Losses()))
        for group in sorted({*accounts, *losses})
    }


def read_objects(objects: Objects, keys: Iterable[str]) -> Iterator[tuple[str, bytes]]:
    """Yield keys and bodies in the keys' order, read in parallel; objects that are gone are left out."""
    waiting: deque[tuple[str, Future[bytes | None]]] = deque()

    def first() -> Iterator[tuple[str, bytes]]:
        key, reading = waiting.popleft()
        body = reading.result()
        if body is not None:
            yield key, body

    with ThreadPoolExecutor(READERS) as readers:
        for key in keys:
            waiting.append((key, readers.submit(objects.get, key)))
            if len(waiting) == 2 * READERS:
                yield from first()
        while waiting:
            yield from first()
