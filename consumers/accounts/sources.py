"""The numbers of every source over all days, carried from day to day, and what is missing of them. Pure.

A source numbers its lines in the order in which it writes them. A number that did not come, between two that
did, is lost; it counts for the day of the next number that came. The numbers of all days are one union, so
neither the order of lines, nor their times, nor a pause of days can make a line look lost that came.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from datetime import date, timedelta
from itertools import pairwise
from typing import Any, Final, NamedTuple

from consumers.accounts.accounting import PREFIX, Account, Accounts, Losses, dump
from consumers.documents import load, stamped

KEY: Final = f"{PREFIX}sources.json"
FORMAT_VERSION: Final = 1

# No source loses so many lines in a row: at 1,000 lines a second, these are nearly three hours. A number
# further away is forged or damaged, and must not make an alarm of trillions.
MAX_GAP: Final = 10_000_000
# So many are carried; those whose last line is the oldest are forgotten first. Their memory is measured by
# `python -m benchmarks accounts`.
MAX_SOURCES: Final = 500_000
# A gap can still be filled by a replay until it is this old, or its source has so many newer ones. Then it is
# only counted.
SETTLED_AFTER: Final = timedelta(days=14)
MAX_RUNS: Final = 1_000
# Counts of gaps are kept as long as accounts.
KEPT: Final = timedelta(days=400)

_WIDTH = 4


class Run(NamedTuple):
    """Numbers without a gap, and the days of the log events of the first and the last, since the year 1."""

    first: int
    last: int
    first_day: int
    last_day: int


class SourceNumbers:
    """The numbers of every source."""

    def __init__(self) -> None:
        # Runs one behind the other in one list: half a million sources have to fit into memory.
        self._runs: dict[str, dict[str, list[int]]] = {}
        # What was lost, by day and log group, of the gaps that are no longer in the runs.
        self._settled: dict[date, dict[str, int]] = defaultdict(dict)

    def __len__(self) -> int:
        return sum(map(len, self._runs.values()))

    def add(self, accounts: Accounts) -> None:
        """Add the numbers of accounts; those that are known change nothing."""
        for day, groups in accounts.items():
            for group, account in groups.items():
                self._add(day.toordinal(), group, account)

    def _add(self, day: int, group: str, account: Account) -> None:
        sources = self._runs.setdefault(group, {})
        for src, numbers in account.delivered.items():
            known = sources.get(src)
            added = [Run(first, last, day, day) for first, last in numbers]
            sources[src] = _flat(_joined([*_runs(known), *added] if known else added))

    def losses(self) -> dict[date, dict[str, Losses]]:
        """Return what is missing, by day and log group; days and groups without losses are left out."""
        lost: dict[tuple[date, str], int] = defaultdict(int)
        implausible: dict[tuple[date, str], int] = defaultdict(int)
        for day, groups in self._settled.items():
            for group, lines in groups.items():
                lost[day, group] += lines
        for group, sources in self._runs.items():
            for flat in sources.values():
                if len(flat) == _WIDTH:
                    continue
                believed, refused = _clusters(_runs(flat))
                for before, after in pairwise(believed):
                    lost[date.fromordinal(after.first_day), group] += after.first - before.last - 1
                for run in refused:
                    implausible[date.fromordinal(run.first_day), group] += run.last - run.first + 1
        found: dict[date, dict[str, Losses]] = defaultdict(dict)
        for day, group in {**lost, **implausible}:
            found[day][group] = Losses(lost.get((day, group), 0), implausible.get((day, group), 0))
        return dict(found)

    def settle(self, today: date) -> int:
        """Bound what is kept: count old gaps instead of keeping them, and forget the oldest sources.

        Returns:
            How many sources were forgotten.
        """
        settled_before = (today - SETTLED_AFTER).toordinal()
        for group, sources in self._runs.items():
            for src, flat in sources.items():
                if len(flat) > _WIDTH:
                    sources[src] = _flat(self._settled_runs(group, _runs(flat), settled_before))
        for day in [day for day in self._settled if day < today - KEPT]:
            del self._settled[day]
        return self._forget()

    def _settled_runs(self, group: str, runs: list[Run], before: int) -> list[Run]:
        """Return the runs without the gaps that are settled, which are counted."""
        believed, refused = _clusters(runs)
        kept = [believed[0]]
        for position, after in enumerate(believed[1:], 1):
            gap = after.first - kept[-1].last - 1
            if after.first_day < before or position < len(believed) - MAX_RUNS:
                day = self._settled[date.fromordinal(after.first_day)]
                day[group] = day.get(group, 0) + gap
                kept[-1] = kept[-1]._replace(last=after.last, last_day=after.last_day)
            else:
                kept.append(after)
        return sorted([*kept, *refused[-MAX_RUNS:]])

    def _forget(self) -> int:
        """Forget the sources whose last line is the oldest, and return how many."""
        many = len(self) - MAX_SOURCES
        if many <= 0:
            return 0
        oldest = sorted(
            (flat[-1], group, src) for group, of in self._runs.items() for src, flat in of.items()
        )
        for _, group, src in oldest[:many]:
            del self._runs[group][src]
        return many

    def to_json(self) -> bytes:
        """Return the document that holds the numbers."""
        settled = {day.isoformat(): groups for day, groups in self._settled.items()}
        return dump(stamped({"runs": self._runs, "settled": settled}, FORMAT_VERSION))

    @classmethod
    def from_json(cls, document: bytes | None) -> SourceNumbers:
        """Return the numbers of a document; without a document, an object without numbers.

        Raises:
            consumers.documents.NewerDocumentError: If a newer version of Tagline has written it.
            ValueError: If it is not such a document.
        """
        numbers = cls()
        if document is not None:
            content: dict[str, Any] = load(document, FORMAT_VERSION, "the numbers of sources")
            numbers._runs = content["runs"]
            for day, groups in content["settled"].items():
                numbers._settled[date.fromisoformat(day)] = groups
        return numbers


def _runs(flat: list[int]) -> list[Run]:
    return [Run(*flat[at : at + _WIDTH]) for at in range(0, len(flat), _WIDTH)]


def _flat(runs: Iterable[Run]) -> list[int]:
    return [number for run in runs for number in run]


def _joined(runs: Iterable[Run]) -> list[Run]:
    """Return runs in order, those joined that overlap or follow one another."""
    joined: list[Run] = []
    # Of two that begin with the same number, the earlier day counts, whichever was added first.
    for run in sorted(runs, key=lambda run: (run.first, run.first_day, run.last)):
        if not joined or run.first > joined[-1].last + 1:
            joined.append(run)
        elif (run.last, run.last_day) > (joined[-1].last, joined[-1].last_day):
            joined[-1] = joined[-1]._replace(last=run.last, last_day=run.last_day)
    return joined


def _clusters(runs: list[Run]) -> tuple[list[Run], list[Run]]:
    """Return the runs that are believed, and those refused because they are more than `MAX_GAP` away.

    Believed are those with most numbers: a single forged number, too high or too low, refuses only itself.
    """
    clusters = [[runs[0]]]
    for before, after in pairwise(runs):
        if after.first - before.last - 1 > MAX_GAP:
            clusters.append([])
        clusters[-1].append(after)
    believed = max(clusters, key=lambda cluster: sum(run.last - run.first + 1 for run in cluster))
    return believed, [run for cluster in clusters if cluster is not believed for run in cluster]
