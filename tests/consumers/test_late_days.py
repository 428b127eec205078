"""The names of days that late rows touched."""

from datetime import date

import pytest

from consumers import late_days


def test_a_key_names_its_day_and_batch() -> None:
    key = late_days.key(date(2026, 1, 31), "shardId-000000000000:4959033827149025660855969253836157")

    assert key == "late/2026-01-31/shardId-000000000000-4959033827149025660855969253836157"
    assert late_days.day_of(key) == date(2026, 1, 31)


@pytest.mark.parametrize("key", ["records/2026-01-31/x", "late/2026-1-31/x", "late/x", ""])
def test_a_key_of_something_else_is_refused(key: str) -> None:
    with pytest.raises(ValueError, match=r"begin|format|unpack"):
        late_days.day_of(key)
