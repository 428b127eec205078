"""How far the consumer has read the stream: from what came in, and its age when it was read. Pure.

The consumer writes nothing while no record comes, and also while it does not run. What came into the stream
tells the one from the other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

# A consumer that is less behind is not late: it gathers batches, and metrics take a minute or two.
LATE = timedelta(minutes=5)

_MINUTE = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class StreamPosition:
    """How far the consumer has read.

    Attributes:
        through: What came into the stream until then has been read, to a minute.
        lag_s: How long the records that are read now have waited, or the first that waits, in seconds.
    """

    through: datetime
    lag_s: float


def position_of(
    arrivals: Mapping[datetime, float],
    ages_ms: Mapping[datetime, tuple[float, float]],
    since: datetime,
    now: datetime,
) -> StreamPosition:
    """Return how far the consumer has read.

    Args:
        arrivals: How many records came into the stream, by the beginning of the minute.
        ages_ms: The least and the greatest age of the records that were read, by the beginning of the minute,
            in milliseconds.
        since: The time from which on these are known; what came before has been read.
        now: The time.
    """
    read_to, lag_s = since, 0.0
    if ages_ms:
        last = max(ages_ms)
        # While the consumer reads, the shard that is furthest behind counts. Once it reads nothing, the least
        # age counts: whether it has finished or stopped is seen by what came into the stream later.
        age_ms = ages_ms[last][now - last <= LATE]
        lag_s = age_ms / 1_000
        read_to = last + _MINUTE - timedelta(milliseconds=age_ms)
    waiting = min((minute for minute in arrivals if minute >= read_to), default=now)
    if now - waiting > LATE:
        return StreamPosition(waiting, (now - waiting).total_seconds())
    return StreamPosition(now, lag_s)
