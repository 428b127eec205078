"""A twin of the port through which rows are written: a store in memory, as strict as the real ones."""

import json
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import count
from typing import Any

from consumers.deadlines import Retry, TransientError
from consumers.outcomes import Carried, Carrier, Duplicate, Outcome, Refused, Stored, Unwritten
from consumers.rows.clashes import RowKind
from consumers.rows.registry import LIMITS
from consumers.rows.store import ReportedRow, Traffic, UnreadableReportError
from consumers.rows.table import DIMENSIONS, FIXED, OVERFLOW, UNDECLARED, Measure, Plans, Row, offset

Identity = tuple[Any, ...]


class Fault(Enum):
    """What happens to a request."""

    THROTTLED = "it is put off"
    DENIED = "the caller may not write"
    LOST_ANSWER = "it is carried out, and the answer is lost"


@dataclass(frozen=True)
class PackedRow:
    """A row with its size."""

    row: Row
    size: int

    @property
    def time(self) -> int:
        return self.row.time

    @property
    def identity(self) -> Identity:
        row = self.row
        dimensions = tuple(sorted(row.dimensions.items()))
        return dimensions, row.type, row.time, offset(row.id, 0), row.id


class RowPacker:
    """Packs rows: `consumers.rows.store.Packer`."""

    def __init__(self, plans: Plans, max_row_bytes: int) -> None:
        self.plans = plans
        self.max_row_bytes = max_row_bytes

    def pack(self, row: Row) -> PackedRow | None:
        size = len(json.dumps([row.id, row.type, dict(row.dimensions), dict(row.measures)]))
        return PackedRow(row, size) if size <= self.max_row_bytes else None

    def pack_shortened(self, row: Row, overflow_key: str) -> PackedRow:
        needed = {name: row.measures[name] for name in FIXED}
        short = row._replace(measures={**needed, OVERFLOW: Measure("VARCHAR", overflow_key)})
        packed = self.pack(short)
        assert packed is not None, "the dimensions alone are too large"
        return packed

    def pack_line(self, line: dict[str, Any], message: str, source: str) -> None:
        """Return None for every line: there is no faster way here."""

    def avoid(self, kind: RowKind) -> None:
        """Do nothing: no line is packed without `pack`."""


class MemoryStore:
    """A table in memory: `consumers.rows.store.Store`. Several threads may write at once.

    Args:
        faults: What happens to the next requests; None for nothing.
        window: The first millisecond that is taken, and the first that is not.
        request_rows: Rows of one request.
        max_row_bytes: A row's size.
        latency: How long a request takes, in seconds.
        sleep: Waits so many seconds.

    Attributes:
        rows: What is stored.
        refused: Reasons by the identity of rows that are not stored yet.
    """

    kind = "memory"
    late_after = 45 * 60.0
    reports = ""

    def __init__(
        self,
        *faults: Fault | None,
        window: tuple[float, float] = (0, float("inf")),
        request_rows: int = 250,
        max_row_bytes: int = 4_000,
        latency: float = 0.0,
        sleep: Callable[[float], None] = lambda _: None,
    ) -> None:
        self.faults = deque(faults)
        self.rows: dict[Identity, Row] = {}
        self.refused: dict[str, str] = {}
        self._types: dict[str, str] = {}
        self._window = window
        self._request_rows = request_rows
        self._max_row_bytes = max_row_bytes
        self._latency = latency
        self._retry = Retry(sleep, lambda: 1.0)
        self._lock = threading.Lock()
        self._traffic = Traffic()

    def packer(self, plans: Plans = UNDECLARED) -> RowPacker:
        return RowPacker(plans, self._max_row_bytes)

    def requests(
        self, rows: Iterable[Carried[Carrier, PackedRow]]
    ) -> Iterator[list[Carried[Carrier, PackedRow]]]:
        request = []
        for row in rows:
            request.append(row)
            if len(request) == self._request_rows:
                yield request
                request = []
        if request:
            yield request

    def write(self, rows: Sequence[PackedRow], remaining: Callable[[], float]) -> list[Outcome]:
        assert 1 <= len(rows) <= self._request_rows
        tries = count()
        try:
            return self._retry.call(lambda: self._send(rows, retried=next(tries) > 0), remaining)
        except (PermissionError, TransientError) as error:
            return [Unwritten(str(error))] * len(rows)

    def reported(self, report: bytes) -> list[ReportedRow[PackedRow]]:
        raise UnreadableReportError(f"there are no reports, and this one has {len(report)} bytes")

    def traffic(self) -> Traffic:
        with self._lock:
            traffic, self._traffic = self._traffic, Traffic()
        return traffic

    def ids(self) -> list[str]:
        """Return the identities of all rows, sorted, one for each row."""
        return sorted(row.id for row in self.rows.values())

    def _send(self, rows: Sequence[PackedRow], *, retried: bool) -> list[Outcome]:
        time.sleep(self._latency)
        with self._lock:
            fault = self.faults.popleft() if self.faults else None
            self._count(rows, throttled=fault is Fault.THROTTLED, retried=retried)
            if fault is Fault.DENIED:
                raise PermissionError(fault.value)
            if fault is Fault.THROTTLED:
                raise TransientError(fault.value)
            seen: set[Identity] = set()
            outcomes = [self._store(packed, seen) for packed in rows]
        if fault is Fault.LOST_ANSWER:
            raise TransientError(fault.value)
        return outcomes

    def _count(self, rows: Sequence[PackedRow], *, throttled: bool, retried: bool) -> None:
        now, size = self._traffic, sum(packed.size for packed in rows)
        self._traffic = Traffic(
            now.requests + 1, now.retries + retried, now.throttled + throttled, now.bytes + size
        )

    def _store(self, packed: PackedRow, seen: set[Identity]) -> Outcome:
        row, identity = packed.row, packed.identity
        if identity in seen and self.rows[identity] == row:
            return Duplicate()
        stored = self.rows.get(identity)
        if stored == row:
            return Stored()
        if refused := self._refusal(packed):
            return refused
        if stored is not None and stored.version == row.version:
            return Refused("invalid", f"{row.id} is stored with other values, under the same version")
        if stored is not None and stored.version > row.version:
            return Duplicate()
        self.rows[identity] = row
        self._types |= {name: measure.type for name, measure in row.measures.items()}
        seen.add(identity)
        return Stored()

    def _refusal(self, packed: PackedRow) -> Refused | None:
        row = packed.row
        first, end = self._window
        if row.id in self.refused:
            return Refused(self.refused[row.id], "on demand")
        if not first <= row.time < end:
            return Refused("late" if row.time < first else "future", f"{row.time} is not in [{first}, {end})")
        names = [*row.dimensions, *row.measures]
        assert packed.size <= self._max_row_bytes
        assert len(row.measures) <= LIMITS.measures
        assert all(1 <= len(name.encode()) <= LIMITS.name_bytes for name in names)
        assert not LIMITS.names & {*names}
        assert not any(name.startswith(LIMITS.prefixes) for name in names)
        assert set(row.dimensions) & set(row.measures) == set()
        assert not set(DIMENSIONS) & set(row.measures)
        for name, measure in row.measures.items():
            if (known := self._types.get(name, measure.type)) != measure.type:
                detail = f"{name} is {measure.type}, and {known} in the table"
                return Refused("invalid", detail, frozenset([name]))
        return None
