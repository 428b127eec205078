"""What questions cost, whichever store answers them."""

from datetime import date

import pytest

from exporter.store import QuestionTooLargeError, whole
from exporter.stores.metered import Metered, Spent
from tests.twins import Rows

DAY = date(2025, 11, 20)


def rows(count: int = 20) -> Rows:
    return Rows({"time": "timestamp"}, [[f"2025-11-20 10:00:00.{number:09}"] for number in range(count)])


def test_every_question_of_the_port_is_counted() -> None:
    store = Metered(rows())

    store.tally(DAY)
    store.columns(DAY)
    store.filled(DAY, ["time"])
    store.count()
    store.days()
    list(store.rows(whole(DAY), store.columns(DAY)).pages)

    # The twin reads 100 bytes for each row.
    assert store.spent == Spent(7, 7 * 2_000, 5 * 2_000 + 2 * 1_000)


def test_what_was_spent_after_a_moment_is_the_difference() -> None:
    assert Spent(7, 500, 900).since(Spent(2, 100, 400)) == Spent(5, 400, 500)


def test_a_question_that_reads_more_than_the_limit_is_refused_with_the_name_of_the_setting() -> None:
    store = Metered(rows(), max_scanned=1_999)

    with pytest.raises(QuestionTooLargeError, match=r"the twin has read .* raise EXPORT_MAX_SCANNED_GB"):
        store.tally(DAY)


def test_the_limit_applies_to_what_is_asked_after_a_reset() -> None:
    store = Metered(rows(), max_scanned=3_000)

    for _ in range(3):
        store.reset()
        store.tally(DAY)
    with pytest.raises(QuestionTooLargeError):
        store.tally(DAY)


def test_a_page_that_is_read_after_a_reset_counts_for_what_was_before() -> None:
    inner = rows()
    store = Metered(inner)
    late = inner.bill()

    store.reset()
    late(5_000, 5_000)

    assert store.spent == Spent()
