"""The lake's limits. A row there has no fixed columns: what is not declared is in one column of JSON."""

from __future__ import annotations

from datetime import date
from typing import Final

from consumers.rows.limits import Limits

# A fragment is written when so many rows wait, or rows that take so many bytes of memory: enough for a minute
# of 160 requests a second, few enough that several fragments under way fit into the consumer's memory.
MAX_ROWS: Final = 10_000
MAX_BYTES: Final = 20 << 20

# A clock that is wrong would otherwise make folders of years to come.
FUTURE_S: Final = 15 * 60

_UNLIMITED: Final = 2**31

LIMITS: Final = Limits(
    name_bytes=_UNLIMITED,
    dimension_name_bytes=_UNLIMITED,
    measures=_UNLIMITED,
    table_measures=_UNLIMITED,
    table_dimensions=_UNLIMITED,
    first_day=0,
    last_day=(date.max - date(1970, 1, 1)).days,
    series_bytes=_UNLIMITED,
    names=frozenset(),
    prefixes=(),
)
