"""The local Timestream as its callers see it: one lock, one clock, writes and queries."""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import duckdb

from onemachine.timestream.errors import Rejection
from onemachine.timestream.magnetic import Put, report
from onemachine.timestream.queries import Queries
from onemachine.timestream.records import read_records
from onemachine.timestream.store import locked
from onemachine.timestream.tables import Ingested


class Timestream(Queries):
    """Databases, tables, records and queries, safe to call from many threads.

    What is written is visible at once, where the service is eventually consistent and may let six hours pass
    in the magnetic store.

    Args:
        clock: Gives the time in nanoseconds since 1970.
        path: A DuckDB file that outlives the process; None keeps everything in memory. Rows are in it
            after `close`, after `save`, after a query that reads them, and when ten thousand wait.
        report_magnetic_conflicts: Writes a report into S3 of records that lost to a row of the magnetic
            store, which the service answers with success; None rejects such records in the answer.
    """

    def __init__(
        self,
        clock: Callable[[], int] = time.time_ns,
        *,
        path: Path | None = None,
        report_magnetic_conflicts: Put | None = None,
    ) -> None:
        connection = duckdb.connect(":memory:" if path is None else str(path))
        super().__init__(connection, clock, durable=path is not None)
        self._report = report_magnetic_conflicts

    @locked
    def close(self) -> None:
        """Free the memory, and leave the file, if any, complete; nothing can be asked afterwards."""
        self.save()
        self._connection.close()

    @locked
    def write_records(
        self,
        database: str,
        table: str,
        records: Sequence[Mapping[str, Any]],
        common: Mapping[str, Any] | None = None,
    ) -> Ingested:
        """Write up to 100 records.

        Args:
            database: The database's name.
            table: The table's name.
            records: `Records` of the request.
            common: `CommonAttributes` of the request.

        Returns:
            How many records went into which store.

        Raises:
            ServiceError: Nothing was written.
            RejectedRecordsError: All but the named records were written.
        """
        now = self.clock()
        conflicts: list[Rejection] | None = None if self._report is None else []
        target = self.table(database, table)
        try:
            return target.write(read_records(records, common or {}), now, conflicts)
        finally:
            if conflicts and self._report is not None:
                object_ = report(
                    database,
                    table,
                    target.settings.magnetic_writes,
                    conflicts,
                    records=records,
                    common=common or {},
                    now=now,
                )
                if object_ is not None:
                    # A report that cannot be written is lost, as it is at AWS.
                    with suppress(OSError):
                        self._report(*object_)
