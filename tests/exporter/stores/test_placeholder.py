"""Places in a store's errors are those of the question that was asked."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.stores.placeholder import TABLE, as_asked, filled

NAME = '"a-database"."table"'


@given(st.lists(st.text("ab \n", max_size=6), min_size=1, max_size=4), st.data())
def test_a_place_is_where_the_same_character_was_asked(pieces: list[str], data: st.DataObject) -> None:
    asked, sent = TABLE.join(pieces), filled(TABLE.join(pieces), NAME)
    number = data.draw(st.integers(0, max(len(pieces) - 1, 0)))
    # A character of one of the pieces between the names.
    within = data.draw(st.integers(0, len(pieces[number])))
    in_asked = len(TABLE.join(pieces[:number])) + (len(TABLE) if number else 0) + within
    in_sent = len(NAME.join(pieces[:number])) + (len(NAME) if number else 0) + within

    assert as_asked(f"a: {place(sent, in_sent)}: b", asked, NAME) == f"a: {place(asked, in_asked)}: b"


def place(text: str, at: int) -> str:
    before = text[:at]
    return f"line {before.count(chr(10)) + 1}:{at - before.rfind(chr(10))}"


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        ("line 1:6: in the name", "line 1:6: in the name"),
        ("line 1:20: in the name", "line 1:6: in the name"),
        ("line 9:6: of no line", "line 9:6: of no line"),
        ("line 0:6", "line 0:6"),
        ("without a place", "without a place"),
    ],
)
def test_a_place_in_the_name_is_where_the_name_was_asked(error: str, expected: str) -> None:
    assert as_asked(error, f"FROM {TABLE} x", NAME) == expected
