"""The ledger of a batch: what becomes of each line, and where a retry begins."""

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
