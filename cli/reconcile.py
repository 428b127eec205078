"""What became of a day's lines: the emitters' numbers, the consumer's accounts, the store and the lake."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any

from rich.console import Console
from rich.text import Text

from cli import stages
from cli.errors import CommandError
from cli.quarantine import EVER, list_objects, read_object
from cli.screen import print_rows
from cli.target import Target
from consumers.accounts import accounting
from consumers.accounts.compaction import UnreadableAccountError, reconcile
from consumers.lines import quarantine
from consumers.lines.quarantine import Kept, UnreadableQuarantineError
from exporter.store import Days


@dataclass(frozen=True, slots=True)
class Balance:
    """What became of the lines of a log group on a day.

    Attributes:
        log_group: Where they were written; empty for Kinesis records of which that is not known.
        totals: The lines written on that day, by the consumer's accounts, and those in quarantine now.
        rows: Rows in the table whose record is of that day, whenever its line was written.
    """

    log_group: str
    totals: accounting.Totals
    rows: int

    @property
    def quarantined(self) -> int:
        """Lines in quarantine, whatever the reason."""
        return sum(self.totals.quarantined.values())

    @property
    def missing(self) -> int:
        """Lines that never came, between two of the same source that did."""
        return self.totals.lost

    @property
    def stored(self) -> int:
        """Lines that came and are not in quarantine."""
        return self.totals.delivered - self.quarantined

    def to_json(self, day: date, exported: int) -> dict[str, Any]:
        """Return the balance for a program.

        Args:
            day: The day.
            exported: Rows of the day in the lake, of all log groups.
        """
        return {
            "day": day.isoformat(),
            "log_group": self.log_group,
            "emitted": self.totals.emitted,
            "delivered": self.totals.delivered,
            "quarantined": dict(self.totals.quarantined),
            "stored": self.stored,
            "missing": self.missing,
            "mentioned": self.totals.mentioned,
            "implausible": self.totals.implausible,
            "rows": self.rows,
            "exported_of_all": exported,
        }


def balances_of(target: Target, day: date) -> tuple[list[Balance], int]:
    """Return a day's balance for each log group, and how many rows of the day are in the lake.

    Raises:
        CommandError: If an account or an object of quarantine cannot be read: numbers without it are wrong.
    """
    try:
        (reconciled,) = reconcile(target.bucket(), [day])
    except UnreadableAccountError as error:
        raise CommandError(str(error), "then reconcile again") from error
    groups = reconciled.groups
    rows = target.store().sources(day)
    kept = _kept(target, day, {reason for totals in groups.values() for reason in totals.quarantined})
    nothing = accounting.totals(accounting.Account())
    found = [
        Balance(
            group,
            groups.get(group, nothing)._replace(quarantined=kept.get(group, {})),
            rows.get(group, 0),
        )
        for group in sorted({*groups, *rows, *kept})
    ]
    return found, stages.exported(target, Days(day, day)).records


def print_balances(day: date, balances: list[Balance], exported: int, screen: Console) -> None:
    """Print the balances as a table, with their sum."""
    screen.print(Text(str(day), "bold"))
    names = ("log group", "emitted", "delivered", "quarantined", "stored", "missing", "mentioned", "rows")
    lines = []
    for balance in balances:
        numbers = balance.totals
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in sorted(numbers.quarantined.items()))
        after = (balance.stored, balance.missing, numbers.mentioned, balance.rows)
        lines.append(
            (
                balance.log_group or "(undecodable)",
                f"{numbers.emitted:,}",
                f"{numbers.delivered:,}",
                reasons or "0",
                *(f"{number:,}" for number in after),
            )
        )
    print_rows(names, lines, screen)
    rows = sum(balance.rows for balance in balances)
    screen.print(f"table: {rows:,} rows; lake: {exported:,} rows")
    more = sum(balance.stored for balance in balances) - rows
    if more > 0:
        screen.print(
            f"{more:,} more lines than rows: they repeat an _id, their records are of another day, or "
            "their rows are gone",
            highlight=False,
        )
    elif more < 0:
        screen.print(f"{-more:,} more rows than lines: they were written on another day", highlight=False)
    implausible = sum(balance.totals.implausible for balance in balances)
    if implausible:
        screen.print(
            f"{implausible:,} lines have a number that cannot be true; it makes no line missing",
            highlight=False,
        )


def _kept(target: Target, day: date, reasons: Collection[str]) -> Mapping[str, Mapping[str, int]]:
    """Count the lines of a day in quarantine, by log group and reason; one that is there twice counts once.

    Accounts have what was rejected, not what was replayed since. They show which reasons to look for.
    """
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    seen: set[tuple[str, str]] = set()
    # A line may arrive days after it was written.
    for key, place in list_objects(target, EVER, reasons) if reasons else ():
        try:
            found = list(quarantine.read(read_object(target, key)))
        except UnreadableQuarantineError as error:
            raise CommandError(f"{key}: {error}", "move it away, and reconcile again") from error
        for kept in found:
            if kept.identity not in seen and _day_of(kept, place.day) == day:
                seen.add(kept.identity)
                counts[kept.event.log_group if kept.event else ""][kept.reason] += 1
    return counts


def _day_of(kept: Kept, arrived: date) -> date:
    """Return the day that a line in quarantine counts for: its log event's, or its Kinesis record's."""
    return arrived if kept.event is None else accounting.day_of_event(kept.event)
