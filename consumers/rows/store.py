"""The port through which rows are written: what a store is asked to do, and what it answers.

A second store is a package beside this module, with `live.py` and `limits.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from consumers.errors import TaglineError
from consumers.outcomes import Carried, Carrier, Outcome, Undecided
from consumers.rows.clashes import RowKind
from consumers.rows.table import Plans, Row


class PackedRow(Protocol):
    """A row as a store sends it. Only the store looks into it; its time is known to all."""

    @property
    def time(self) -> int:
        """Milliseconds since 1970."""


Packed = TypeVar("Packed", bound=PackedRow)
Packed_co = TypeVar("Packed_co", bound=PackedRow, covariant=True)


class Traffic(NamedTuple):
    """What was sent to a store.

    Attributes:
        requests: Requests that were begun.
        retries: Those of them that repeat a request, for whatever reason.
        throttled: How many the store put off.
        bytes: The size of all their bodies.
    """

    requests: int = 0
    retries: int = 0
    throttled: int = 0
    bytes: int = 0


class UnreadableReportError(TaglineError, ValueError):
    """A store's report cannot be read; the message has the reason."""


class ReportedRow(NamedTuple, Generic[Packed]):
    """A row that the store took, and later reported as not kept.

    Attributes:
        row: The row, to be written at another place.
        id: The record's identity.
        type: Its type.
        source: The log group that it came from.
        time: Its time in milliseconds since 1970.
    """

    row: Packed
    id: str
    type: str
    source: str
    time: int


class Packer(Protocol[Packed_co]):
    """Turns rows into what the store sends. For one thread."""

    @property
    def plans(self) -> Plans: ...

    def pack(self, row: Row) -> Packed_co | None:
        """Return a row as the store sends it, or None if it is too large for the store."""

    def pack_shortened(self, row: Row, overflow_key: str) -> Packed_co:
        """Return as much of a row that is too large as fits, with the measure `_overflow`.

        Args:
            row: The row.
            overflow_key: Where the whole record is kept.
        """

    def pack_line(self, line: dict[str, Any], message: str, source: str) -> Packed_co | None:
        """Return exactly what `pack` makes of a line's row, without making the row; None if that takes more.

        It is None for rows of a kind that is avoided, as well.

        This is only for speed: a store without a fast way returns None.

        Args:
            line: The line's object, which carries the tag.
            message: The line.
            source: The log group that it came from.
        """

    def avoid(self, kind: RowKind) -> None:
        """Leave the lines whose rows are of this kind to `pack` from now on."""


class Store(Protocol[Packed]):
    """Where rows are written. All but its packers is used by several threads at once.

    Attributes:
        kind: A value of the setting `STORE`, and the dimension `store` of the metrics.
        late_after: Age in seconds from which rows, once written, may be invisible to readers for hours.
        reports: What the keys of objects begin with in which the store reports rows that it took and did not
            keep; empty if it keeps what it takes.
    """

    @property
    def kind(self) -> str: ...

    @property
    def late_after(self) -> float: ...

    @property
    def reports(self) -> str: ...

    def packer(self, plans: Plans) -> Packer[Packed]:
        """Return a packer for records of which `plans` are declared."""

    def requests(self, rows: Iterable[Carried[Carrier, Packed]]) -> Iterator[list[Carried[Carrier, Packed]]]:
        """Cut rows into requests of the size, and in the order, that suit the store; none is empty."""

    def write(self, rows: Sequence[Packed], remaining: Callable[[], float]) -> Sequence[Outcome | Undecided]:
        """Write one request's rows and return the outcome of each, in their order.

        A single row is never `Undecided`.

        Writing a row again leaves one row; of two versions of a row, the higher stays. What fails is tried
        again while time remains, and is `Unwritten` after that.

        Args:
            rows: The rows of one request.
            remaining: Gives the seconds that are left of the invocation.
        """

    def reported(self, report: bytes) -> list[ReportedRow[Packed]]:
        """Return the rows of a report. To write one twice leaves one row.

        Raises:
            UnreadableReportError: If it is not such a report.
        """

    def traffic(self) -> Traffic:
        """Return what was sent since the last call of this method."""
