"""A day's balance: what is missing is told from what repeats itself."""

from datetime import date

from rich.console import Console

from cli.reconcile import Balance, print_balances
from consumers.accounts.accounting import Account, Totals, totals


def test_lines_between_two_that_came_are_missing_and_others_are_not() -> None:
    account = Account({"s1": ((0, 4), (7, 9))}, {"late": {"s1": ((8, 8),)}}, {"k": {"received": 8}})

    balance = Balance("/a", totals(account), 7)

    assert (balance.totals.emitted, balance.totals.delivered, balance.missing) == (10, 8, 2)
    assert (balance.quarantined, balance.without_a_row) == (1, 0)


def test_a_line_that_says_again_what_another_said_has_no_row_and_is_not_missing() -> None:
    balance = Balance("/a", Totals(10, 10, 0, {}, 0), 9)

    assert (balance.missing, balance.without_a_row) == (0, 1)


def test_the_table_has_a_row_for_each_group_and_the_sums_below() -> None:
    screen = Console(width=120, record=True, quiet=False, file=None, force_terminal=False, no_color=True)
    balances = [Balance("/a", Totals(12, 10, 1, {"late": 2}, 2), 8), Balance("", Totals(0, 0, 0, {}, 0), 0)]

    with screen.capture() as printed:
        print_balances(date(2026, 11, 19), balances, 8, screen)

    text = printed.get()
    (row,) = (line for line in text.splitlines() if "/a" in line)
    assert [cell.strip() for cell in row.strip("│ ").split("│")] == [
        *("/a", "12", "10", "1", "2 late", "8", "2"),
    ]
    assert "(undecodable)" in text
    assert "stored: 8 rows; exported: 8 rows" in text
