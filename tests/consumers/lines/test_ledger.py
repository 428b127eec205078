"""The ledger of a batch: what becomes of each line, and where a retry begins."""

import pytest

from consumers.lines.extract import Rejected
from consumers.lines.ledger import Ledger
from consumers.lines.subscription import LogEvent
from tests.builders import GROUP, LOGGED, OWNER, kinesis_record
from tests.twins import Objects

A_LINE = LogEvent("0", LOGGED, "usage_record {", GROUP, "stream", OWNER)
LINE = Rejected("unparseable", "no JSON")
WHOLE = Rejected("undecodable", "no gzip")


def test_a_kinesis_record_that_is_rejected_whole_is_kept_once_and_not_by_its_lines() -> None:
    ledger = Ledger([kinesis_record(f"data {number}", number) for number in range(3)])
    for position in range(3):
        ledger.reject(position, A_LINE, LINE)

    ledger.reject_whole(1, WHOLE)
    ledger.keep(objects := Objects())

    assert ledger.is_given_up(1)
    assert not ledger.is_given_up(0)
    assert sorted(kept.get("message") or kept["data"] for kept in objects.quarantined()) == [
        "data 1",
        A_LINE.message,
        A_LINE.message,
    ]
    assert ledger.counts()["quarantined"] == 3


@pytest.mark.parametrize("day", [0, 1, 20_000, 40_000])
def test_a_mention_counts_for_the_day_of_its_log_event_from_the_first_millisecond_to_the_last(
    day: int,
) -> None:
    ledger = Ledger([])

    ledger.mention(0, day * 24 * 3600 * 1000, GROUP)
    ledger.mention(0, (day + 1) * 24 * 3600 * 1000 - 1, GROUP)

    assert ledger.mentioned == {(0, day, GROUP): 2}
