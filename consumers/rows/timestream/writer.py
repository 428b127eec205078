"""Rows into Timestream, an outcome for each: nothing is lost, and nothing is written as something else."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

from botocore.exceptions import BotoCoreError, ClientError, ParamValidationError
from tagline import parse_timestamp

from consumers import service_errors
from consumers.deadlines import Retry, TransientError
from consumers.outcomes import Duplicate, Outcome, Refused, Stored, Undecided, Unwritten
from consumers.rows.store import ReportedRow, Traffic
from consumers.rows.table import UNDECLARED, Plans
from consumers.rows.timestream import mapping
from consumers.rows.timestream.calls import Calls
from consumers.rows.timestream.limits import LATE_AFTER_S
from consumers.rows.timestream.mapping import PackedRecord, RecordPacker, body
from consumers.rows.timestream.reports import PREFIX, read_report
from consumers.rows.traffic import TrafficCounter

# How many points a record tries before it is given up: with 100,000 records of one series in one millisecond,
# one in 10 ** 32 fails.
MAX_ATTEMPTS: Final = 32

# Errors that pass although their HTTP status is that of a wrong request.
_TRANSIENT = frozenset(["InternalServerException", "InvalidEndpointException", "RequestTimeout"])

# One object serves for all rows.
_STORED, _DUPLICATE = Stored(), Duplicate()


class Timestream:
    """A Timestream table: `consumers.rows.store.Store`. Several threads may write at once.

    Args:
        client: A boto3 client for timestream-write that does not retry.
        database: The database's name.
        table: The table's name.
        sleep: Waits so many seconds.
        jitter: Gives a random number from 0 to 1.
    """

    kind: Final = "timestream"
    late_after: Final = LATE_AFTER_S
    reports: Final = PREFIX
    requests = staticmethod(mapping.requests)

    def __init__(
        self,
        client: Any,
        database: str,
        table: str,
        *,
        sleep: Callable[[float], None],
        jitter: Callable[[], float],
    ) -> None:
        self._calls = Calls(client)
        self._database = database
        self._table = table
        self._retry = Retry(sleep, jitter)
        self._one_at_a_time = threading.Lock()
        self._traffic = TrafficCounter()

    def packer(self, plans: Plans = UNDECLARED) -> RecordPacker:
        """Return what makes records of rows."""
        return RecordPacker(plans)

    def reported(self, report: bytes) -> list[ReportedRow[PackedRecord]]:
        """Return the rows of a report of the magnetic store, to be written again."""
        return read_report(report, MAX_ATTEMPTS)

    def traffic(self) -> Traffic:
        """Return what was sent since the last call of this method."""
        return self._traffic.take()

    def write(
        self, rows: Sequence[PackedRecord], remaining: Callable[[], float]
    ) -> list[Outcome | Undecided]:
        """Write rows and return the outcome of each, in their order.

        A row whose point is taken by a different record is tried at the next one; what Timestream refuses for
        good is returned with its reason; throttling, time-outs and errors of the service are tried again
        after a random wait, until `RESERVE` seconds remain.

        Two throttles, two answers: for the memory store, waits stay short and all go on sending, since it
        grows with what it is sent; for the magnetic store, waits grow, and of the requests that it put off,
        one at a time is tried again.
        https://docs.aws.amazon.com/timestream/latest/developerguide/troubleshoot-writethrottles.html

        Args:
            rows: At most `limits.MAX_RECORDS`.
            remaining: Seconds that are left for it.
        """
        outcomes: list[Outcome | Undecided] = [Unwritten("not tried: no time left")] * len(rows)
        attempts = [0] * len(rows)
        pending = list(range(len(rows)))
        sent = 0

        def send() -> list[Refused | Duplicate | None]:
            nonlocal sent
            sent += 1
            return self._send(request, retried=sent > 1)

        while pending:
            request = _one_per_point(rows, pending, attempts)
            try:
                refusals = self._retry.call(send, remaining)
            except (_AccessError, TransientError) as error:
                outcomes = _with_outcome(outcomes, pending, Unwritten(str(error)))
                break
            except _InvalidError as error:
                kinds = [mapping.kind_of(rows[index]) for index in pending]
                columns = _clashing_columns(str(error), kinds[0])
                if len(request) > 1 and not (columns and len(set(kinds)) == 1):
                    for index, kind in zip(pending, kinds, strict=True):
                        outcomes[index] = Undecided(str(error), kind)
                    break
                refusals = [Refused("invalid", str(error), columns)] * len(request)
            pending = _apply_refusals(outcomes, attempts, pending, request, refusals)
        return outcomes

    def _send(self, request: list[_Item], *, retried: bool) -> list[Refused | Duplicate | None]:
        """Send one request and return per record why it was not written, or None if it was."""
        content = body(self._database, self._table, [(item.row, item.time) for item in request])
        self._traffic.add(requests=1, retries=int(retried), bytes_=len(content))
        try:
            answer = self._calls.write(content, len(request))
        except ParamValidationError as error:
            raise _InvalidError(str(error)) from error
        except ClientError as error:
            code = service_errors.code(error)
            if code == "RejectedRecordsException":
                return _refusals(error.response.get("RejectedRecords", []), request)
            if code == "ThrottlingException":
                self._traffic.add(throttled=1)
                # Its message points to the metric ActiveMagneticStorePartitions; nothing else in it tells.
                if "magnetic" in str(error).lower():
                    raise TransientError(str(error), alone=self._one_at_a_time) from error
                raise TransientError(str(error), grows=False) from error
            if code in _TRANSIENT or service_errors.is_transient(error):
                raise TransientError(str(error)) from error
            if code == "ValidationException":
                raise _InvalidError(str(error)) from error
            raise _AccessError(str(error)) from error
        except BotoCoreError as error:
            raise TransientError(str(error)) from error
        # botocore takes a 200 whose body was cut off for a success; only this shows it.
        if "RecordsIngested" not in answer:
            raise TransientError("the answer was cut off")
        return [None] * len(request)


class _InvalidError(Exception):
    """The service refuses the request for what is in it."""


class _AccessError(Exception):
    """The service refuses the caller, or the table does not exist."""


class _Item(NamedTuple):
    """A record of a request: its row, its time in nanoseconds, its position, and those of its copies."""

    row: PackedRecord
    time: int
    position: int
    copies: list[int]


def _one_per_point(rows: Sequence[PackedRecord], pending: list[int], attempts: list[int]) -> list[_Item]:
    """Return the items of a request, no two at one point.

    A different record at the same point waits for the next request, where it meets what is stored. Were it
    moved to its next point here, without asking, a second delivery in another order would store it twice.
    Records at one point that are in two requests at once need no such care: the store takes one of them, and
    tells the other, in whichever order they arrive.
    """
    items = [_Item(rows[index], rows[index].time_ns(attempts[index]), index, []) for index in pending]
    points: dict[int, list[_Item]] = {}
    if len({item.time for item in items}) == len(items):
        return items
    for item in items:
        there = points.setdefault(item.time, [])
        row = item.row
        for other in there:
            if other.row.type == row.type and set(other.row.dimensions) == set(row.dimensions):
                known = other.row
                if (known.id, known.version, known.measures) == (row.id, row.version, row.measures):
                    other.copies.append(item.position)
                break
        else:
            there.append(item)
    return [item for there in points.values() for item in there]


def _with_outcome(
    outcomes: list[Outcome | Undecided], indexes: list[int], outcome: Outcome
) -> list[Outcome | Undecided]:
    return [outcome if index in indexes else known for index, known in enumerate(outcomes)]


def _apply_refusals(
    outcomes: list[Outcome | Undecided],
    attempts: list[int],
    pending: list[int],
    request: list[_Item],
    refusals: Sequence[Refused | Duplicate | None],
) -> list[int]:
    """Write a request's outcomes into `outcomes`, and return the indexes that are still pending.

    A record whose point is taken by a different one is still pending, with its next attempt.
    """
    if len(request) == len(outcomes) and not any(refusals):
        outcomes[:] = [_STORED] * len(outcomes)  # as nearly always
        return []
    done: set[int] = set()
    for item, refusal in zip(request, refusals, strict=True):
        outcome: Outcome = refusal or _STORED
        if isinstance(refusal, Refused) and refusal.reason == "taken":
            attempts[item.position] += 1
            if attempts[item.position] < MAX_ATTEMPTS:
                continue
            outcome = Refused("invalid", f"no free point in {MAX_ATTEMPTS} attempts")
        outcomes[item.position] = outcome
        for copy in item.copies:
            outcomes[copy] = _DUPLICATE
        done.add(item.position)
        done.update(item.copies)
    return [index for index in pending if index not in done]


def _refusals(rejected: list[dict[str, Any]], request: list[_Item]) -> list[Refused | Duplicate | None]:
    """Return Timestream's rejections by position; records that are not listed were written.

    A record whose point has a higher version is a duplicate: a newer mapping stored it before the rollback.
    At another point it would be a second row.
    https://docs.aws.amazon.com/timestream/latest/developerguide/troubleshoot-rejectedrecords.html
    """
    if not rejected:
        raise TransientError("records were rejected, and the answer does not list them")
    refusals: list[Refused | Duplicate | None] = [None] * len(request)
    for rejection in rejected:
        index, reason = int(rejection["RecordIndex"]), str(rejection.get("Reason", ""))
        item = request[index]
        if (
            rejection.get("ExistingVersion") or 0
        ) > item.row.version or "lower than the existing version" in reason:
            refusals[index] = _DUPLICATE
        else:
            kind = _classify(reason, item.time)
            columns = (
                _clashing_columns(reason, mapping.kind_of(item.row)) if kind == "invalid" else frozenset()
            )
            refusals[index] = Refused(kind, reason, columns)
    return refusals


def _clashing_columns(reason: str, kind: tuple[Any, ...]) -> frozenset[str]:
    """Return the columns that a reason names, if it is about types; AWS does not document its words.

    Args:
        reason: Timestream's sentence.
        kind: The kind of the record that it is about: `mapping.kind_of`.
    """
    words = {word.rstrip(".") for word in re.findall(r"[\w.-]+", reason)}
    _, *columns = kind
    return frozenset(name for name, _ in columns if name in words) if "type" in words else frozenset()


def _classify(reason: str, time: int) -> str:
    """Return our word for Timestream's sentence about a record at a time in nanoseconds."""
    if "already exists" in reason:
        return "taken"
    if "time range" in reason or "ingestion window" in reason:
        # One sentence for both sides of the window: its end, which is given, tells them apart.
        end = re.search(r", *([^,)\]]+)[)\]]", reason)
        until = parse_timestamp(end[1]) if end else None
        return "future" if until is not None and time >= until * 1_000_000 else "late"
    return "invalid"
