"""What became of a day's lines: the emitters' numbers, the consumer's accounts, the store and the lake."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta

from rich.console import Console

from cli import rows, stages
from cli.deployment import Deployment
from consumers import accounting
from consumers.reconcile import Bucket, reconcile
from exporter.query import Days


@dataclass(frozen=True, slots=True)
class Balance:
    """What became of the lines of a log group on a day.

    Attributes:
        log_group: Where they were written; empty for Kinesis records of which that is not known.
        totals: What the consumer's accounts say.
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


def balances(deployment: Deployment, day: date) -> tuple[list[Balance], int]:
    """Return a day's balance for each log group, and how many rows of the day are in the lake."""
    groups = reconcile(day, Bucket(deployment.client("s3"), deployment.outputs["Bucket"])).groups
    in_store = _stored(deployment, day) if groups else {}
    nothing = accounting.totals(accounting.Account())
    found = [
        Balance(group, groups.get(group, nothing), in_store.get(group, 0))
        for group in sorted({*groups, *in_store})
    ]
    return found, stages.exported(deployment, Days(day, day)).records


def show(day: date, balances: list[Balance], exported: int, screen: Console) -> None:
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
    rows.show(names, lines, screen)
    stored = sum(balance.stored for balance in balances)
    screen.print(f"stored: {stored:,} rows; exported: {exported:,} rows")
    without = sum(balance.without_a_row for balance in balances)
    if without:
        screen.print(
            f"{without:,} lines have no row of their own: they repeat an _id, or their rows are gone",
            highlight=False,
        )


def _stored(deployment: Deployment, day: date) -> dict[str, int]:
    """Count the rows of a day in the table, by log group."""
    sql = (
        f'SELECT "source", count(*) FROM {deployment.table} '  # noqa: S608 - no value of a user's
        f"WHERE time >= TIMESTAMP '{day} 00:00:00' AND time < TIMESTAMP '{day + timedelta(days=1)} 00:00:00' "
        'GROUP BY "source"'
    )
    return {str(source): int(count or 0) for source, count in stages.ask(deployment, sql)[1]}
