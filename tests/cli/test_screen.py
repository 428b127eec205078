"""Rows of an answer on a terminal: readable at any width, and nothing cut off."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.table import Column, Table

from cli.screen import FoldingTable, Screen, print_rows

ROOT = Path(__file__).parents[2]
WORDS = st.text("abcdefghij[]/:*0123456789", min_size=1, max_size=40)


def printed(names: list[str], rows: list[list[str]], width: int) -> list[str]:
    screen = Screen(width=width, force_terminal=False, no_color=True, highlight=False)
    with screen.capture() as text:
        print_rows(names, rows, screen)
    return text.get().splitlines()


@given(
    rows=st.integers(1, 12).flatmap(
        lambda columns: st.lists(st.lists(WORDS, min_size=columns, max_size=columns), min_size=1, max_size=3)
    ),
    width=st.sampled_from([40, 80, 120]),
)
def test_every_value_is_printed_whole_within_the_width(rows: list[list[str]], width: int) -> None:
    names = [f"c{number}" for number in range(len(rows[0]))]

    lines = printed(names, rows, width)

    assert max(map(len, lines)) <= width
    # What is longer than its column goes on below: each character is there as often as it was said.
    said = sorted("".join(value for row in rows for value in row))
    shown = "".join(lines)
    for character in set(said) - set("c0123456789row"):
        assert shown.count(character) == said.count(character)


@given(st.lists(st.lists(WORDS, min_size=4, max_size=4), min_size=1, max_size=3))
def test_every_value_of_a_table_is_printed_whole_at_40_columns(rows: list[list[str]]) -> None:
    table = FoldingTable("day", Column("rows", justify="right"), title="t")
    table.add_column("c")
    table.add_column("c", justify="right")
    for row in rows:
        table.add_row(*row)
    screen = Screen(width=40, force_terminal=False, no_color=True, highlight=False)
    with screen.capture() as text:
        screen.print(table)

    assert max(map(len, text.get().splitlines())) <= 40
    said = "".join(value for row in rows for value in row)
    for character in set(said) - set("dayrowsct"):
        assert text.get().count(character) == said.count(character)


def test_every_command_prints_tables_of_this_kind() -> None:
    for path in (ROOT / "cli").rglob("*.py"):
        if path.name != "screen.py":
            assert not re.search(r"import .*\bTable\b|(?<!Folding)Table\(", path.read_text()), path


def test_rows_that_are_too_wide_for_a_table_are_printed_one_by_one_without_what_is_empty() -> None:
    names = [f"column_{number:02}" for number in range(20)]
    rows = [[f"value {number}" if number % 2 else "" for number in range(20)]] * 2

    lines = [line.rstrip() for line in printed(names, rows, 80)]

    assert lines == [
        line
        for number in (1, 2)
        for line in (f"row {number}", *(f"column_{each:02}  value {each}" for each in range(1, 20, 2)))
    ]


@pytest.mark.parametrize(
    ("values", "right"),
    [(["1", "20,000.5"], True), (["1", ""], True), (["1", "/a"], False), (["", ""], False)],
)
def test_columns_of_numbers_are_justified_to_the_right(values: list[str], right: bool) -> None:
    lines = printed(["a long column"], [[value] for value in values], 80)

    (line,) = (line for line in lines if re.search(r"│ *1 *│", line)) if values[0] else (lines[3],)
    assert line.rstrip("│ ").endswith("1") is bool(values[0])
    assert line.startswith("│             ") is (right or not values[0])


@pytest.mark.parametrize(("names", "count"), [([], 0), (["a"], 4)])
def test_an_answer_without_rows_is_its_columns(names: list[str], count: int) -> None:
    assert len(printed(names, [], 80)) == count


@pytest.mark.parametrize(
    "text", ["[/x]", "[app]", "[bold]a[/]", ":smile:", "logs[/old]/access.log", "[link=a]"]
)
def test_text_in_brackets_is_printed_as_it_is(text: str) -> None:
    screen = Screen(width=80, force_terminal=True)
    table = Table(text, title=text)
    table.add_row(text)
    with screen.capture() as printed:
        screen.print(text, highlight=False)
        screen.print(table)

    assert printed.get().count(text) == 4


@given(st.text())
def test_nothing_that_controls_the_terminal_is_printed(text: str) -> None:
    screen = Screen(width=80, force_terminal=True, no_color=True, highlight=False)
    with screen.capture() as shown:
        screen.print(text)
        print_rows(["name"], [[text]], screen)

    assert all(each.isprintable() or each == "\n" for each in re.sub(r"\x1b\[[0-9;]*m", "", shown.get()))
