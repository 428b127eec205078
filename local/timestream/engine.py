"""The local Timestream as its callers see it: one lock, one clock, writes and queries."""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import duckdb

from local.timestream.expressions import Field
from local.timestream.magnetic import Put, report
from local.timestream.queries import Page, Queries
from local.timestream.store import Conflict, Database, Ingested, Store, Table, TableSettings


class Timestream:
    """Databases, tables, records and queries, safe to call from many threads.

    What is written is visible at once, where the service is eventually consistent and may let six hours pass
    in the magnetic store.
    """

    def __init__(
        self,
        clock: Callable[[], int] = time.time_ns,
        *,
        path: Path | None = None,
        report_magnetic_conflicts: Put | None = None,
    ) -> None:
        """Start empty, or with what an earlier one left in a file.

        Args:
            clock: Gives the time in nanoseconds since 1970.
            path: A DuckDB file that outlives the process; None keeps everything in memory. Rows are in it
                after `close`, after `save`, after a query that reads them, and when ten thousand wait.
            report_magnetic_conflicts: Writes a report into S3 of records that lost to a row of the magnetic
                store, which the service answers with success; None rejects such records in the answer.
        """
        self._clock = clock
        self._lock = threading.RLock()
        self._connection = duckdb.connect(":memory:" if path is None else str(path))
        self._store = Store(self._connection, durable=path is not None)
        self._queries = Queries(self._connection, self._store)
        self._report = report_magnetic_conflicts

    def close(self) -> None:
        """Free the memory, and leave the file, if any, complete; nothing can be asked afterwards."""
        with self._lock:
            self._store.save()
            self._connection.close()

    def save(self) -> None:
        """Write all that waits into DuckDB, and so into its file, if it has one."""
        with self._lock:
            self._store.save()

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
            records: ``Records`` of the request.
            common: ``CommonAttributes`` of the request.

        Returns:
            How many records went into which store.

        Raises:
            ServiceError: Nothing was written.
            RejectedRecordsError: All but the named records were written.
        """
        with self._lock:
            now = self._clock()
            conflicts: list[Conflict] | None = None if self._report is None else []
            try:
                return self._store.write(database, table, records, common or {}, now, conflicts=conflicts)
            finally:
                if conflicts and self._report is not None:
                    magnetic_writes = self._store.table(database, table).settings.magnetic_writes
                    object_ = report(database, table, magnetic_writes, conflicts, now)
                    if object_ is not None:
                        # A report that cannot be written is lost, as it is at AWS.
                        with suppress(OSError):
                            self._report(*object_)

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
        with self._lock:
            return self._queries.query(text, next_token, max_rows, self._clock(), client_token=client_token)

    def prepare(self, text: str) -> tuple[Field, ...]:
        """Say what a query would answer, without running it.

        Args:
            text: Timestream's SQL.

        Returns:
            The result's columns.

        Raises:
            ServiceError: ValidationException.
        """
        with self._lock:
            return self._queries.prepare(text, self._clock())

    def cancel(self, query_id: str) -> str:
        """Drop what is left of a query's result.

        Args:
            query_id: From a page of it.

        Returns:
            What the service says.

        Raises:
            ServiceError: ValidationException, if there is nothing to cancel.
        """
        with self._lock:
            return self._queries.cancel(query_id)

    def create_database(self, name: str, kms_key_id: str) -> Database:
        """Create a database.

        Args:
            name: Its name.
            kms_key_id: A key's ARN, to be described.

        Returns:
            The database.

        Raises:
            ServiceError: ConflictException, ValidationException.
        """
        with self._lock:
            return self._store.create_database(name, kms_key_id, self._clock())

    def database(self, name: str) -> Database:
        """Find a database.

        Args:
            name: Its name.

        Returns:
            The database.

        Raises:
            ServiceError: ResourceNotFoundException.
        """
        with self._lock:
            return self._store.database(name)

    def databases(self) -> tuple[Database, ...]:
        """List the databases.

        Returns:
            All of them, by name.
        """
        with self._lock:
            return self._store.databases()

    def update_database(self, name: str, kms_key_id: str) -> Database:
        """Change a database's key.

        Args:
            name: The database's name.
            kms_key_id: The new key's ARN.

        Returns:
            The database.

        Raises:
            ServiceError: ResourceNotFoundException.
        """
        with self._lock:
            database = self._store.database(name)
            database.kms_key_id, database.updated = kms_key_id, self._clock()
            self._store.save()
            return database

    def delete_database(self, name: str) -> None:
        """Delete an empty database.

        Args:
            name: Its name.

        Raises:
            ServiceError: ResourceNotFoundException; ValidationException while it has tables.
        """
        with self._lock:
            self._store.delete_database(name)

    def create_table(self, database: str, name: str, settings: TableSettings) -> Table:
        """Create a table.

        Args:
            database: Its database's name.
            name: Its name.
            settings: Retention and the rest.

        Returns:
            The table.

        Raises:
            ServiceError: ResourceNotFoundException, ConflictException, ValidationException.
        """
        with self._lock:
            return self._store.create_table(database, name, settings, self._clock())

    def table(self, database: str, name: str) -> Table:
        """Find a table.

        Args:
            database: Its database's name.
            name: Its name.

        Returns:
            The table.

        Raises:
            ServiceError: ResourceNotFoundException.
        """
        with self._lock:
            return self._store.table(database, name)

    def tables(self, database: str) -> tuple[Table, ...]:
        """List a database's tables.

        Args:
            database: Its name.

        Returns:
            The tables, by name.

        Raises:
            ServiceError: ResourceNotFoundException.
        """
        with self._lock:
            tables = self._store.database(database).tables
            return tuple(tables[name] for name in sorted(tables))

    def update_table(self, database: str, name: str, changes: Mapping[str, Any]) -> Table:
        """Change a table's settings.

        Args:
            database: Its database's name.
            name: Its name.
            changes: Fields of `TableSettings` by name.

        Returns:
            The table.

        Raises:
            ServiceError: ResourceNotFoundException, ValidationException.
        """
        with self._lock:
            return self._store.update_table(database, name, changes, self._clock())

    def delete_table(self, database: str, name: str) -> None:
        """Delete a table and its rows.

        Args:
            database: Its database's name.
            name: Its name.

        Raises:
            ServiceError: ResourceNotFoundException.
        """
        with self._lock:
            self._store.delete_table(database, name)
