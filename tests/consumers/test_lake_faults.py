"""The fault matrix with the lake: whatever fails at S3, readers see every line exactly once."""

import random
from collections import Counter
from collections.abc import Iterable
from typing import Any

import pytest
from botocore.exceptions import ConnectionClosedError, EndpointConnectionError, ReadTimeoutError
from tagline import Record, write

from consumers.rows import late_days
from consumers.rows.lake.writer import Lake
from consumers.rows.store import Store
from tests.builders import LOGGED
from tests.consumers.test_fault_matrix import (
    DAY,
    FAILS,
    FEW_RETRIES,
    LARGE,
    LINES,
    NOW_S,
    RECORDS,
    VICTIM,
    Failure,
    Life,
    Retry,
    Victim,
    accounts,
    does_and_says,
    ends_the_time,
    ends_the_time_with_all_written,
    kept_identities,
    refuses,
)
from tests.deliveries import DiedError
from tests.lake_fragments import S3Write, read_fragment, slow_down
from tests.twins import client_error

URL = "https://bucket.s3"
YEAR_MS = 365 * 86_400_000


class LakeLife(Life):
    """As `Life`, with the lake."""

    def new_client(self) -> "_FaultyS3":
        return _FaultyS3(self)

    def open_store(self) -> Store[Any]:
        return Lake(
            self.client, "lake", kept_days=365, clock=lambda: NOW_S, sleep=self.sleep, jitter=lambda: 1.0
        )

    def times(self) -> Iterable[tuple[str, int]]:
        return [(row["_id"], int(row["time"].timestamp() * 1000)) for row in self.client.rows()]

    def whole_records(self) -> set[str]:
        """Return none: rows are whole."""
        return set()


class _FaultyS3(S3Write):
    def __init__(self, life: Life) -> None:
        super().__init__()
        self._life = life

    def put_object(self, **request: Any) -> dict[str, Any]:
        put = super().put_object
        ids = {row["_id"] for row in read_fragment(request["Key"], request["Body"])}
        asked = "store" if ids & self._life.batch.victims else "store, for others"
        answer: dict[str, Any] = self._life.do(asked, lambda: put(**request))
        return answer


def at(time: int) -> Victim:
    """Return a record of another time than its neighbours."""

    def text(seq: int) -> str:
        return write(Record(VICTIM, time, {"route": "/pets"}, src="environment", seq=seq))

    return Victim(text)


HOUR_AGO = at(LOGGED - 3_600_000)
KEPT = (Retry.NOT_AT_ALL, *FAILS)
MATRIX = [
    Failure(
        "a record is older than a year",
        "",
        "late",
        at(LOGGED - YEAR_MS),
        effect=refuses(OSError("no")),
        retries=KEPT,
    ),
    Failure(
        "a record is ahead",
        "",
        "future",
        at(LOGGED + 2 * 86_400_000),
        effect=refuses(OSError("no")),
        retries=KEPT,
    ),
    Failure("a record is of another hour", "", "", HOUR_AGO, "store", refuses(slow_down()), retries=KEPT),
    Failure("a record is large", "", "", LARGE, "store", refuses(slow_down()), retries=KEPT),
    *(
        Failure(f"S3 {name}", "", "unwritten", victim, "store", effect)
        for victim in (
            Victim(lambda seq: write(Record(VICTIM, LOGGED, {}, src="environment", seq=seq))),
            HOUR_AGO,
        )
        for name, effect in [
            ("throttles", refuses(slow_down())),
            ("cannot be reached", refuses(EndpointConnectionError(endpoint_url=URL))),
            ("times out with nothing written", refuses(ReadTimeoutError(endpoint_url=URL))),
            ("times out with all written", does_and_says(ReadTimeoutError(endpoint_url=URL))),
            ("answers 500", refuses(client_error("InternalError", 500))),
            ("answers 503 with all written", does_and_says(client_error("ServiceUnavailable", 503))),
            ("closes the connection", does_and_says(ConnectionClosedError(endpoint_url=URL))),
            ("is waited for until the time is over", ends_the_time),
            ("writes all, and the time is over", ends_the_time_with_all_written),
            ("denies", refuses(client_error("AccessDenied", 403))),
            ("has no such bucket", refuses(client_error("NoSuchBucket", 404))),
        ]
    ),
    Failure("the function dies before it writes", "", "", HOUR_AGO, "store", refuses(DiedError())),
    Failure("the function dies between two hours", "", "", HOUR_AGO, "store", does_and_says(DiedError())),
    Failure("a late day cannot be marked", "", "", HOUR_AGO, "late/", refuses(OSError("no"))),
    Failure(
        "the function dies when it has accounted", "", "", HOUR_AGO, "accounting/", does_and_says(DiedError())
    ),
]


@pytest.mark.parametrize("position", [0, RECORDS - 1], ids=["first", "last"])
@pytest.mark.parametrize(
    ("failure", "retry"),
    [
        pytest.param(each, retry, id=f"{each.name}{' of another hour' * (each.victim is HOUR_AGO)}, {retry}")
        for each in MATRIX
        for retry in each.retries
    ],
)
def test_readers_see_every_line_exactly_once(failure: Failure, retry: Retry, position: int) -> None:
    batch = failure.victim.batch(position, position * 7)
    life = LakeLife(failure, batch, retry, threads=1 + position)

    life.mapping.run(batch.records, settings=FEW_RETRIES)

    assert (life.struck > 0) == (retry is not Retry.NOT_AT_ALL)
    assert bool(life.mapping.kept) == (retry is Retry.NEVER)
    life.calm = True
    life.mapping.replay()
    assert life.found() == batch.emitted()
    rows, kept = life.client.rows(), sorted(kept_identities(life.objects))

    life.redeliver(random.Random(position * LINES))

    assert life.client.rows() == rows
    assert sorted(kept_identities(life.objects)) == kept
    assert {late_days.marker_day(key) for key in life.objects.under(late_days.PREFIX)} == {DAY}
    assert not failure.sees or retry is Retry.AT_ONCE or life.seen()[failure.sees] > 0
    (day,) = [day.counts() for day in accounts(life.objects)]
    assert (day["lost"], day["delivered"]) == (0, RECORDS * LINES)
    assert day["quarantined"] == len(kept)
    assert life.objects.under("overflow/") == {}


def test_a_store_that_lost_a_fragment_would_be_noticed() -> None:
    failure = MATRIX[2]
    batch = failure.victim.batch(0, 0)
    life = LakeLife(failure, batch, Retry.NOT_AT_ALL)
    life.mapping.run(batch.records, settings=FEW_RETRIES)

    life.client.objects.pop(min(life.client.objects))

    assert Counter(life.client.ids()) != batch.emitted()
