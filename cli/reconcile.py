"""What became of a day's lines: the emitters' numbers, the consumer's accounts, the store and the lake."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from datetime import date

from rich.console import Console

from cli import stages
from cli.errors import CommandError
from cli.quarantine import EVER, list_objects, read_object
from cli.screen import print_rows
from cli.target import Target
from consumers.accounts import accounting
from consumers.accounts.handler import UnreadableAccountError, read_accounts, reconcile
from consumers.lines import quarantine
from consumers.lines.quarantine import Kept, UnreadableQuarantineError
from exporter.store import Days


@dataclass(frozen=True, slots=True)
class Balance:
    """What became of the lines of a log group on a day.

    Attributes:
        log_group: Where they were written; empty for Kinesis records of which that is not known.
        totals: What the consumer's accounts say, and what is in quarantine now.
        stored: Rows in the table.
    """

    log_group: str
    totals: accounting.Totals
    stored: int

    @property
    def quarantined(self) -> int:
        """Lines in quarantine, whatever the reason."""
        return sum(self.totals.quarantined.values())

    @property
    def missing(self) -> int:
        """Lines that never came, and neither did what became of them."""
        return self.totals.lost

    @property
    def without_a_row(self) -> int:
        """Lines that came and are neither in quarantine nor a row of their own.

        Nothing tells one that says again what another said, under the same `_id`, from one whose row is gone.
        """
        return max(0, self.totals.delivered - self.quarantined - self.stored)


def balances_of(target: Target, day: date) -> tuple[list[Balance], int]:
    """Return a day's balance for each log group, and how many rows of the day are in the lake.

    Raises:
        CommandError: If an account or an object of quarantine cannot be read: numbers without it are wrong.
    """
    try:
        groups = reconcile(day, read_accounts(target.bucket(), day)).groups
    except UnreadableAccountError as error:
        raise CommandError(str(error), "no consumer wrote it: move it away, and reconcile again") from error
    in_store = target.store().sources(day) if groups else {}
    kept = _kept(target, day, {reason for totals in groups.values() for reason in totals.quarantined})
    nothing = accounting.totals(accounting.Account())
    found = [
        Balance(
            group,
            replace(groups.get(group, nothing), quarantined=kept.get(group, {})),
            in_store.get(group, 0),
        )
        for group in sorted({*groups, *in_store, *kept})
    ]
    return found, stages.exported(target, Days(day, day)).records


def print_balances(day: date, balances: list[Balance], exported: int, screen: Console) -> None:
    """Print the balances as a table, with their sum."""
    screen.print(f"[bold]{day}[/]")
    names = ("log group", "emitted", "delivered", "duplicate", "quarantined", "stored", "missing")
    lines = []
    for balance in balances:
        numbers = balance.totals
        reasons = (f"{count:,} {reason}" for reason, count in sorted(numbers.quarantined.items()))
        before = (f"{number:,}" for number in (numbers.emitted, numbers.delivered, numbers.duplicate))
        after = (f"{number:,}" for number in (balance.stored, balance.missing))
        lines.append((balance.log_group or "(undecodable)", *before, ", ".join(reasons) or "0", *after))
    print_rows(names, lines, screen)
    stored = sum(balance.stored for balance in balances)
    screen.print(f"stored: {stored:,} rows; exported: {exported:,} rows")
    without = sum(balance.without_a_row for balance in balances)
    if without:
        screen.print(
            f"{without:,} lines have no row of their own: they repeat an _id, or their rows are gone",
            highlight=False,
        )


def _kept(target: Target, day: date, reasons: Collection[str]) -> Mapping[str, Mapping[str, int]]:
    """Count the lines of a day in quarantine, by log group and reason; one that is there twice counts once.

    Accounts say what was rejected, not what was replayed since. They say which reasons to look for.
    """
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    seen: set[tuple[str, str]] = set()
    # A line may arrive days after its time, and before it.
    for key, place in list_objects(target, EVER, reasons) if reasons else ():
        try:
            found = list(quarantine.read(read_object(target, key)))
        except UnreadableQuarantineError as error:
            raise CommandError(f"{key}: {error}", "move it away, and reconcile again") from error
        for kept in found:
            if kept.identity not in seen and _day_of(kept, place.day, target.tag) == day:
                seen.add(kept.identity)
                counts[kept.event.log_group if kept.event else ""][kept.reason] += 1
    return counts


def _day_of(kept: Kept, arrived: date, tag: str) -> date:
    """Return the day that a line in quarantine counts for: its own, else that of its Kinesis record."""
    return arrived if kept.event is None else accounting.day_of_event(kept.event, tag)
