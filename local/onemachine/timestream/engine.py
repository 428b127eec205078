"""The local Timestream as its callers see it: one lock, one clock, writes and queries."""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import duckdb

from onemachine.presto.scopes import Field
from onemachine.timestream.errors import Rejection
from onemachine.timestream.magnetic import Put, report
from onemachine.timestream.queries import Page, Queries
from onemachine.timestream.records import read_records
from onemachine.timestream.store import Store, locked
from onemachine.timestream.tables import Ingested


class Timestream(Store):
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
        self._queries = Queries(connection, self)
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

    @locked
    def query(
        self,
        text: str,
        next_token: str | None = None,
        max_rows: int | None = None,
        *,
        client_token: str | None = None,
    ) -> Page:
        """Answer one page of a query.

        Args:
            text: Timestream's SQL.
            next_token: From the page before.
            max_rows: 1 to 1,000; None for as many as fit into 1 MB.
            client_token: Names the call: the same one again is answered as before, and runs nothing.

        Returns:
            The page. Of a result that does not fit into one, the first page is empty.

        Raises:
            ServiceError: ValidationException, ConflictException, QueryExecutionException.
        """
        return self._queries.query(text, next_token, max_rows, self.clock(), client_token=client_token)

    @locked
    def prepare(self, text: str) -> tuple[Field, ...]:
        """Say what a query would answer, without running it.

        Args:
            text: Timestream's SQL.

        Returns:
            The result's columns.

        Raises:
            ServiceError: ValidationException.
        """
        return self._queries.prepare(text, self.clock())

    @locked
    def cancel(self, query_id: str) -> str:
        """Drop what is left of a query's result.

        Args:
            query_id: From a page of it.

        Returns:
            What the service says.

        Raises:
            ServiceError: ValidationException, if there is nothing to cancel.
        """
        return self._queries.cancel(query_id)
