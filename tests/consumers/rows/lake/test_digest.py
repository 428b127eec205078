"""What distinguishes rows of one identity."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumers.rows.lake.digest import Value, digest


@given(st.dictionaries(st.text(), st.booleans() | st.text() | st.integers(-(2**63), 2**63 - 1), max_size=5))
def test_a_digest_follows_from_the_values_in_any_order(values: dict[str, bool | str | int]) -> None:
    found = digest(values)

    assert -(2**63) <= found < 2**63
    assert digest(dict(reversed(values.items()))) == found


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({}, {"a": 1}),
        ({"a": 1}, {"a": 1.0}),
        ({"a": 1}, {"b": 1}),
        ({"a": "1"}, {"a": 1}),
        ({"a": True}, {"a": 1}),
    ],
)
def test_different_values_have_different_digests(one: dict[str, Value], other: dict[str, Value]) -> None:
    assert digest(one) != digest(other)


def test_a_digest_is_the_same_in_every_version() -> None:
    # Fragments of older versions of the consumer are read beside those of newer ones.
    assert digest({"status": 200.0, "route": "/pets", "ok": True}) == 4984426471785722024
