"""A day's balance: the lines that were written on it, and the rows whose records are of it."""

from datetime import date
from typing import Any

import pytest
from rich.console import Console

from cli.reconcile import Balance, balances_of, print_balances
from cli.target import Target
from consumers.accounts.accounting import Totals
from consumers.rows.table import SOURCE
from exporter.store import TIME, Type
from tests import twins


class Reached(Target):
    """A pipeline whose bucket is empty and whose table has rows."""

    def bucket(self) -> Any:
        return twins.Bucket()

    def store(self) -> Any:
        columns: dict[str, Type] = {TIME: "timestamp", SOURCE: "text"}
        rows = [("2026-11-19 10:00:00.000000000", "/a"), ("2026-11-20 10:00:00.000000000", "/a")]
        return twins.Rows(columns, rows)


def printed(balances: list[Balance], exported: int = 0) -> str:
    screen = Console(width=140, record=True, quiet=False, file=None, force_terminal=False, no_color=True)
    with screen.capture() as text:
        print_balances(date(2026, 11, 19), balances, exported, screen)
    return text.get()


def cells(text: str, log_group: str) -> list[str]:
    (row,) = (line for line in text.splitlines() if log_group in line)
    return [cell.strip() for cell in row.strip("│ ").split("│")]


def test_what_is_stored_is_what_came_and_is_not_in_quarantine() -> None:
    balance = Balance("/a", Totals(10, 8, {"late": 1}, 2), 7)

    assert (balance.stored, balance.quarantined, balance.missing) == (7, 1, 2)


def test_the_table_has_a_row_for_each_group_and_the_sums_below() -> None:
    balances = [
        Balance("/a", Totals(12, 10, {"late": 2}, 2, mentioned=3), 8),
        Balance("", Totals(0, 0, {}, 0), 0),
    ]

    text = printed(balances, exported=8)

    assert cells(text, "/a") == ["/a", "12", "10", "2 late", "8", "2", "3", "8"]
    assert cells(text, "(undecodable)")[1:] == ["0"] * 7
    assert text.rstrip().endswith("table: 8 rows; lake: 8 rows")


@pytest.mark.parametrize(
    ("stored", "rows", "words"),
    [
        (
            10,
            9,
            "1 more lines than rows: they repeat an _id, their records are of another day, or their rows",
        ),
        (9, 10, "1 more rows than lines: they were written on another day"),
    ],
)
def test_a_difference_between_lines_and_rows_is_explained(stored: int, rows: int, words: str) -> None:
    assert words in printed([Balance("/a", Totals(stored, stored, {}, 0), rows)])


def test_lines_with_a_number_that_cannot_be_true_are_named() -> None:
    text = printed([Balance("/a", Totals(2, 2, {}, 0, implausible=1), 2)])

    assert "1 lines have a number that cannot be true" in text


def test_the_store_is_asked_also_if_there_are_no_accounts() -> None:
    ((balance,), exported) = balances_of(Reached(None, {}, {}), date(2026, 11, 19))

    assert (balance.log_group, balance.rows, balance.totals.emitted, exported) == ("/a", 1, 0, 0)
