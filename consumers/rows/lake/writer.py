"""Rows into the lake, an outcome for each: one object for the rows of an hour, named by what is in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from operator import attrgetter, eq
from typing import Any, Final

from botocore.exceptions import BotoCoreError, ClientError

from consumers import service_errors
from consumers.deadlines import RESERVE, Retry, TransientError
from consumers.outcomes import Duplicate, Outcome, Refused, Stored, Unwritten
from consumers.rows.lake import mapping, parquet
from consumers.rows.lake.content import content, name_of
from consumers.rows.lake.limits import FUTURE_S
from consumers.rows.lake.mapping import FragmentRow, LakePacker
from consumers.rows.store import ReportedRow, Traffic, UnreadableReportError
from consumers.rows.table import DAY_MS, UNDECLARED, Plans
from consumers.rows.traffic import TrafficCounter

# https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html
_THROTTLES = frozenset(["SlowDown", "RequestLimitExceeded", "ThrottlingException"])
_TIMEOUT = "RequestTimeout"  # it passes, although its HTTP status is that of a wrong request
# One object serves for all rows.
_STORED, _DUPLICATE = Stored(), Duplicate()
_identity = attrgetter("identity")


class Lake:
    """Fragments in a bucket: `consumers.rows.store.Store`. Several threads may write at once.

    It does not look at what the bucket has: a row that is there already is stored again, in another fragment
    or in the same one, and readers count it once. Rows are visible once they are written, however late.

    Args:
        client: A boto3 client for S3 that does not retry.
        bucket: The bucket's name.
        kept_days: For how many days after its date the lake keeps a day.
        clock: Gives the seconds since 1970.
        sleep: Waits so many seconds.
        jitter: Gives a random number from 0 to 1.
    """

    kind: Final = "lake"
    late_after: Final = float("inf")
    reports: Final = ""
    requests = staticmethod(mapping.cut_at_hours)

    def __init__(
        self,
        client: Any,
        bucket: str,
        *,
        kept_days: int,
        clock: Callable[[], float],
        sleep: Callable[[float], None],
        jitter: Callable[[], float],
    ) -> None:
        self._client = client
        self._bucket = bucket
        self._kept_days = kept_days
        self._clock = clock
        self._retry = Retry(sleep, jitter)
        self._traffic = TrafficCounter()

    def packer(self, plans: Plans = UNDECLARED) -> LakePacker:
        """Return what makes rows of fragments."""
        return LakePacker(plans)

    def reported(self, report: bytes) -> list[ReportedRow[FragmentRow]]:
        """Raise an error: what was stored is kept, and nothing is reported."""
        raise UnreadableReportError(f"the lake has no reports, and this one has {len(report)} bytes")

    def traffic(self) -> Traffic:
        """Return what was sent since the last call of this method."""
        return self._traffic.take()

    def write(self, rows: Sequence[FragmentRow], remaining: Callable[[], float]) -> list[Outcome]:
        """Write the rows of an hour as one object and return the outcome of each, in their order.

        The object is there with all rows or not at all. What fails is tried again after a random wait, until
        `RESERVE` seconds remain; if it was written nevertheless, the next try has the same key.

        Args:
            rows: Rows of one hour.
            remaining: Seconds that are left for it.
        """
        now = round(self._clock() * 1000)
        kept = sorted(rows, key=_identity)
        identities = [*map(_identity, kept)]
        # Nearly always, all of them are written.
        outcomes: list[Outcome] = [_STORED] * len(rows)
        if (
            self._refusal(kept[0].time, now)
            or self._refusal(kept[-1].time, now)
            or any(map(eq, identities, identities[1:]))
        ):
            outcomes = [*self._outcomes(rows, now)]
            kept = [row for row, outcome in zip(rows, outcomes, strict=True) if outcome is _STORED]
            kept.sort(key=_identity)
        if kept and (failed := self._put(kept, remaining)):
            outcomes = [each if isinstance(each, Refused) else failed for each in outcomes]
        return outcomes

    def _outcomes(self, rows: Sequence[FragmentRow], now: int) -> Iterator[Outcome]:
        """Yield what becomes of each row if writing does not fail."""
        seen = set()
        for row in rows:
            if refused := self._refusal(row.time, now):
                yield refused
            elif row.identity in seen:
                yield _DUPLICATE
            else:
                seen.add(row.identity)
                yield _STORED

    def _refusal(self, time: int, now: int) -> Refused | None:
        """Return why a row of a time is not stored at another, both in milliseconds, or None if it is."""
        if time // DAY_MS < now // DAY_MS - self._kept_days:
            return Refused(
                "late", f"the row's day is more than {self._kept_days} days ago: the lake keeps no older days"
            )
        if time >= now + FUTURE_S * 1000:
            return Refused("future", f"the row is more than {FUTURE_S // 60} minutes ahead of the clock")
        return None

    def _put(self, rows: Sequence[FragmentRow], remaining: Callable[[], float]) -> Unwritten | None:
        """Write different rows, sorted by identity, as a fragment; return why it failed, if it did."""
        if remaining() <= RESERVE:
            return Unwritten("not tried: no time left")
        columns = content(rows)
        key, body = name_of(columns).key, parquet.pack(columns)
        sent = 0

        def send() -> None:
            nonlocal sent
            sent += 1
            self._send(key, body, retried=sent > 1)

        try:
            self._retry.call(send, remaining)
        except (
            TransientError,
            ClientError,
        ) as error:  # the latter: it may not write, or the bucket does not exist
            return Unwritten(str(error))
        return None

    def _send(self, key: str, body: bytes, *, retried: bool) -> None:
        self._traffic.add(requests=1, retries=int(retried), bytes_=len(body))
        try:
            self._client.put_object(Bucket=self._bucket, Key=key, Body=body, ContentType=parquet.MEDIA_TYPE)
        except ClientError as error:
            if service_errors.code(error) in _THROTTLES:
                self._traffic.add(throttled=1)
            elif service_errors.code(error) != _TIMEOUT and not service_errors.is_transient(error):
                raise
            raise TransientError(str(error)) from error
        except BotoCoreError as error:
            raise TransientError(str(error)) from error
