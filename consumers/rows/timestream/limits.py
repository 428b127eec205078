"""Timestream's limits: https://docs.aws.amazon.com/timestream/latest/developerguide/ts-limits.html."""

from typing import Final

from consumers.rows.limits import Limits

# "2 KB" for a record, without saying whether 2,000 or 2,048, nor what counts: the stricter reading of both.
MAX_RECORD_BYTES: Final = 2_000
MAX_RECORDS: Final = 100  # of one request

# The memory store keeps at least an hour. Older rows go to the magnetic store, where they "will be available
# within 6 hours": https://docs.aws.amazon.com/timestream/latest/developerguide/data-ingest.html
LATE_AFTER_S: Final = 45 * 60

LIMITS: Final = Limits(
    name_bytes=256,
    dimension_name_bytes=60,
    measures=256,
    table_measures=1_024,
    table_dimensions=128,
    # A time is a whole number of nanoseconds since 1970, not negative, in 64 bits with a sign. The last day
    # that is whole in it is 2262-04-10.
    first_day=0,
    last_day=(2**63 - 1) // (86_400 * 10**9) - 1,
    # Of a record's 2,000 bytes; the rest is for what a row cannot be without (its type, `_id`, the day,
    # `_overflow`).
    series_bytes=1_450,
    names=frozenset(["time", "ts_non_existent_col"]),
    prefixes=("ts_", "measure_name", "measure_value"),
)
