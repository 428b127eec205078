"""Rows into Timestream, an outcome for each: nothing is lost, and nothing is written as something else."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from botocore.exceptions import BotoCoreError, ClientError, ParamValidationError
from tagline import parse_timestamp

from consumers.table import Row
from consumers.timestream.mapping import WireRecord, wire

# https://docs.aws.amazon.com/timestream/latest/developerguide/ts-limits.html
MAX_RECORDS: Final = 100

# How many points a record tries before it is given up: with 100,000 records of one series in one millisecond,
# one in 10 ** 32 fails.
MAX_ATTEMPTS: Final = 32

# What is left of the invocation when no further request is begun, in seconds.
RESERVE: Final = 2.0
# Waits between tries: a random part of a ceiling that doubles from the first to the second, in seconds.
# https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
FIRST_WAIT, LONGEST_WAIT = 0.05, 5.0

_TRANSIENT = frozenset(
    ["ThrottlingException", "InternalServerException", "InvalidEndpointException", "RequestTimeout"]
)


@dataclass(frozen=True, slots=True)
class Stored:
    """The store has the row."""


@dataclass(frozen=True, slots=True)
class Duplicate:
    """The same record is in the same request already."""


@dataclass(frozen=True, slots=True)
class Refused:
    """The store will never take the row: `late`, `future` or `invalid`."""

    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class Unwritten:
    """The row may be missing; trying again can help."""

    detail: str


Outcome = Stored | Duplicate | Refused | Unwritten


class Store(Protocol):
    """Where a consumer puts rows."""

    def write(self, rows: Sequence[Row], remaining: Callable[[], float]) -> list[Outcome]:
        """Write rows and say what became of each, in their order.

        Args:
            rows: At most `MAX_RECORDS`.
            remaining: Seconds that are left for it.
        """


class Timestream:
    """A Timestream table.

    Args:
        client: A boto3 client for timestream-write that does not retry by itself.
        database: The database's name.
        table: The table's name.
        sleep: Waits so many seconds.
        jitter: Gives a random number from 0 to 1.
    """

    def __init__(
        self,
        client: Any,
        database: str,
        table: str,
        *,
        sleep: Callable[[float], None],
        jitter: Callable[[], float],
    ) -> None:
        self._client = client
        self._database = database
        self._table = table
        self._sleep = sleep
        self._jitter = jitter

    def write(self, rows: Sequence[Row], remaining: Callable[[], float]) -> list[Outcome]:
        """Write rows and say what became of each, in their order.

        A row whose point is taken by a different record is tried at the next one; what Timestream refuses for
        good is told with its reason; throttling, time-outs and errors of the service are tried again, each
        time after a longer random wait, until `RESERVE` seconds remain.
        """
        outcomes: list[Outcome] = [Unwritten("not tried: no time left")] * len(rows)
        attempts = [0] * len(rows)
        pending = list(range(len(rows)))
        ceiling = FIRST_WAIT
        while pending and remaining() > RESERVE:
            request = _one_per_point(rows, pending, attempts)
            try:
                refusals = self._send([item.record for item in request])
            except _AccessError as error:
                outcomes = _settled(outcomes, pending, Unwritten(str(error)))
                break
            except _TransientError as error:
                outcomes = _settled(outcomes, pending, Unwritten(str(error)))
                wait = self._jitter() * ceiling
                ceiling = min(LONGEST_WAIT, ceiling * 2)
                if remaining() - wait > RESERVE:
                    self._sleep(wait)
                    continue
                break
            except _InvalidError as error:
                if len(request) > 1:  # Judged as a whole: halves find the record that is meant.
                    for part in (pending[: len(pending) // 2], pending[len(pending) // 2 :]):
                        written = self.write([rows[index] for index in part], remaining)
                        for index, outcome in zip(part, written, strict=True):
                            outcomes[index] = outcome
                    break
                refusals = [Refused("invalid", str(error))]
            pending = _settle(outcomes, attempts, pending, request, refusals)
        return outcomes

    def _send(self, records: list[WireRecord]) -> list[Refused | None]:
        """Send one request and return per record why it was not written, or None where it was."""
        try:
            answer = self._client.write_records(
                DatabaseName=self._database, TableName=self._table, Records=records
            )
        except ParamValidationError as error:
            raise _InvalidError(str(error)) from error
        except ClientError as error:
            code = error.response.get("Error", {}).get("Code", "")
            if code == "RejectedRecordsException":
                return _refusals(error.response.get("RejectedRecords", []), records)
            status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
            if code in _TRANSIENT or status >= 500:  # noqa: PLR2004 - HTTP's server errors
                raise _TransientError(str(error)) from error
            if code == "ValidationException":
                raise _InvalidError(str(error)) from error
            raise _AccessError(str(error)) from error
        except BotoCoreError as error:
            raise _TransientError(str(error)) from error
        # botocore takes a 200 whose body was cut off for a success; only this shows it.
        if "RecordsIngested" not in answer:
            raise _TransientError("the answer was cut off")
        return [None] * len(records)


class _TransientError(Exception):
    """The request may not have been carried out; it can be sent again."""


class _InvalidError(Exception):
    """The service refuses the request for what is in it."""


class _AccessError(Exception):
    """The service refuses the request for who asks, or because there is no such table."""


@dataclass(frozen=True, slots=True)
class _Item:
    """A record of a request, the index of its row, and those of rows that say the same."""

    record: WireRecord
    index: int
    copies: list[int]


def _one_per_point(rows: Sequence[Row], pending: list[int], attempts: list[int]) -> list[_Item]:
    """Return the items of a request, no two at one point.

    A different record at the same point waits for the next request, where it meets what is stored. Were it
    moved to its next point here, without asking, a second delivery in another order would store it twice.
    """
    points: dict[tuple[Any, ...], _Item] = {}
    for index in pending:
        row = rows[index]
        record = wire(row, attempts[index])
        point = (row.type, record["Time"], *sorted(row.dimensions.items()))
        item = points.setdefault(point, _Item(record, index, []))
        if item.index != index and item.record == record:
            item.copies.append(index)
    return list(points.values())


def _settled(outcomes: list[Outcome], indexes: list[int], outcome: Outcome) -> list[Outcome]:
    return [outcome if index in indexes else known for index, known in enumerate(outcomes)]


def _settle(
    outcomes: list[Outcome],
    attempts: list[int],
    pending: list[int],
    request: list[_Item],
    refusals: list[Refused | None],
) -> list[int]:
    """Enter what became of a request, and return the indexes that are still pending.

    A record whose point is taken by a different one is still pending, with its next attempt.
    """
    done: set[int] = set()
    for item, refusal in zip(request, refusals, strict=True):
        outcome: Outcome = refusal or Stored()
        if refusal is not None and refusal.reason == "taken":
            attempts[item.index] += 1
            outcomes[item.index] = Unwritten("no time left for another point")
            if attempts[item.index] < MAX_ATTEMPTS:
                continue
            outcome = Refused("invalid", f"no free point in {MAX_ATTEMPTS} attempts")
        outcomes[item.index] = outcome
        for copy in item.copies:
            outcomes[copy] = Duplicate()
        done.update([item.index, *item.copies])
    return [index for index in pending if index not in done]


def _refusals(rejected: list[dict[str, Any]], records: list[WireRecord]) -> list[Refused | None]:
    """Return Timestream's rejections by position; records that are not listed were written.

    https://docs.aws.amazon.com/timestream/latest/developerguide/troubleshoot-rejectedrecords.html
    """
    if not rejected:
        raise _TransientError("records were rejected, and the answer does not say which")
    refusals: list[Refused | None] = [None] * len(records)
    for item in rejected:
        index, reason = int(item["RecordIndex"]), str(item.get("Reason", ""))
        refusals[index] = Refused(_classify(reason, int(records[index]["Time"])), reason)
    return refusals


def _classify(reason: str, time: int) -> str:
    """Return our word for Timestream's sentence about a record at a time in nanoseconds."""
    if "already exists" in reason or "lower than the existing version" in reason:
        return "taken"
    if "time range" in reason or "ingestion window" in reason:
        # One sentence for both sides of the window: its end, which is given, tells them apart.
        end = re.search(r", *([^,)\]]+)[)\]]", reason)
        until = parse_timestamp(end[1]) if end else None
        return "future" if until is not None and time >= until * 1_000_000 else "late"
    return "invalid"
