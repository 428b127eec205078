"""The lines of a batch become packed rows; a row that the store refuses becomes one that it may take."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Generic

from tagline import Record

from consumers.accounts.accounting import BatchAccounts
from consumers.accounts.minutes import BatchMinutes
from consumers.lines import quarantine
from consumers.lines.batch import Line
from consumers.lines.extract import Rejected, extract
from consumers.lines.ledger import AtOnce, Ledger
from consumers.outcomes import Refused
from consumers.rows import table
from consumers.rows.clashes import Clashes, kind_of_row
from consumers.rows.store import Packed, Packer
from consumers.rows.table import Row, UnmappableError

LargeRecord = tuple[Line, Record, str]
"""A line whose record is too large for a row, with that record and its key in the bucket."""


class Packing(Generic[Packed]):
    """The rows of one batch.

    Args:
        packer: Packs rows for the store.
        clashes: Which columns the store has refused.
        ledger: The batch's ledger.
        accounts: The batch's accounts.
        minutes: The batch's requests by minute.
        keep: Writes records that are too large for their rows; returns the lines of those that it could not
            write.
        tag: The token that marks a line.
        prefix: The setting TAGLINE_PREFIX.
    """

    def __init__(  # noqa: PLR0917 - as many as a batch has parts
        self,
        packer: Packer[Packed],
        clashes: Clashes,
        ledger: Ledger,
        accounts: BatchAccounts,
        minutes: BatchMinutes,
        keep: Callable[[list[LargeRecord]], set[Line]],
        tag: str,
        prefix: str,
    ) -> None:
        self._packer = packer
        self._clashes = clashes
        self._ledger = ledger
        self._accounts = accounts
        self._minutes = minutes
        self._keep = keep
        self._tag, self._prefix = tag, prefix
        # The columns that lines' rows do without, where there are any.
        self._left_out: dict[Line, frozenset[str]] = {}

    def pack(self, lines: Iterable[Line]) -> list[tuple[Line, Packed]]:
        """Return each line with its row, and account for it; lines without a row are rejected or fail."""
        large: list[LargeRecord] = []
        rows = list(self._pack(lines, large))
        if large:
            lost = self._keep(large)
            rows = [row for row in rows if row[0] not in lost]
        return rows

    def _pack(self, lines: Iterable[Line], large: list[LargeRecord]) -> Iterator[tuple[Line, Packed]]:
        pack_line, account, counted = self._packer.pack_line, self._accounts.add, self._minutes.type
        for line in lines:
            source, fields, written = line.origin[0], line.fields, line.raw["timestamp"]
            is_counted = fields.get("_type") == counted  # making a record takes the type out of the fields
            packed = pack_line(fields, line.raw["message"], source)
            if packed is not None:
                account(line.position, source, written, fields["_src"], fields["_seq"])
            else:
                record = line.record
                account(line.position, source, written, record.src, record.seq)
                packed = self._pack_record(line, large)
            if packed is not None:
                if is_counted:
                    self._minutes.add(line.position, packed.time, fields)
                line.forget()
                yield line, packed

    def _pack_record(self, line: Line, large: list[LargeRecord]) -> Packed | None:
        """Return a line's row, or None if it is rejected; `large` gets a record that is too large for it."""
        try:
            row, left_out = self._clashes.row(line.record, line.origin[0], frozenset())
        except UnmappableError as error:
            self._ledger.reject(line.position, line.event, Rejected("invalid", str(error)))
            return None
        if left_out:
            self._left_out[line] = left_out
        self._ledger.unread_times += line.unread_time
        self._ledger.not_numbers += row.not_numbers
        self._ledger.extra += row.extra
        self._ledger.others += row.others
        return self._packer.pack(row) or self._pack_large(row, line, line.record, large)

    def _pack_large(self, row: Row, line: Line, record: Record, large: list[LargeRecord]) -> Packed:
        key = table.overflow_key(record, line.origin[0])
        large.append((line, record, key))
        return self._packer.pack_shortened(row, key)

    def replace(self, line: Line, refused: Refused) -> Packed | None:
        """Return a row without the columns that the store may have meant, or None if nothing can be left out.

        Args:
            line: The line whose row was refused.
            refused: The store's reason.
        """
        record, source = extract(line.event, self._tag, self._prefix), line.origin[0]
        if not isinstance(record, Record):
            return None  # it was one when it was mapped
        before = self._left_out.get(line, frozenset())
        was = table.row(record, source, self._packer.plans, before)
        columns = self._clashes.leave_out(record, was, refused.columns)
        if not columns:
            return None
        if (kind := kind_of_row(was)) in self._clashes:
            self._packer.avoid(kind)
        row, self._left_out[line] = self._clashes.row(record, source, before | columns)
        self._ledger.extra += row.extra - was.extra
        large: list[LargeRecord] = []
        packed = self._packer.pack(row) or self._pack_large(row, line, record, large)
        if large and self._packer.pack(was) is not None and self._keep(large):
            return None  # it fails, and is delivered again
        return packed


def write_large_records(
    ledger: Ledger, objects: quarantine.ObjectWriter, at_once: AtOnce, large: list[LargeRecord]
) -> set[Line]:
    """Write the records that are too large for their rows; return the lines of those that cannot be written.

    They fail: no row may name an object that does not exist.
    """

    def put(record: LargeRecord) -> bool:
        _, whole, key = record
        try:
            objects.write(key, table.overflow_body(whole))
        except OSError:
            return False
        return True

    lost = {line for (line, _, _), kept in zip(large, at_once(put, large), strict=True) if not kept}
    for line in lost:
        ledger.fail(line.position)
    ledger.overflowed += len(large) - len(lost)
    return lost
