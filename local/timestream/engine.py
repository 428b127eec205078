"""The local Timestream as its callers see it: one lock, one clock, writes and queries."""

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import duckdb

from local.timestream.errors import ServiceError
from local.timestream.queries import Page, Queries
from local.timestream.store import Database, Ingested, Store, Table, TableSettings

# What WriteRecords may be made to answer: the errors that its model calls the service's own.
_FAILURES = {
    "ThrottlingException": "Request rate limit exceeded.",
    "InternalServerException": (
        "Timestream was unable to fully process this request because of an internal server error."
    ),
}


class Timestream:
    """Databases, tables, records and queries in memory, safe to call from many threads.

    Two things differ from the service. What is written is visible at once, where the service is eventually
    consistent and may let six hours pass in the magnetic store. And a record of lower or equal version and
    other values is rejected in the answer whichever store it goes to, where the service answers with success
    and rejects it later, in a report in S3, if it goes to the magnetic store.
    """

    def __init__(self, clock: Callable[[], int] = time.time_ns) -> None:
        """Start empty.

        Args:
            clock: Gives the time in nanoseconds since 1970.
        """
        self._clock = clock
        self._lock = threading.RLock()
        self._connection = duckdb.connect(":memory:")
        self._store = Store(self._connection)
        self._queries = Queries(self._connection, self._store)
        self._failures: deque[str] = deque()

    def close(self) -> None:
        """Free the memory; nothing can be asked afterwards."""
        with self._lock:
            self._connection.close()

    def fail_next(self, error_code: str, times: int) -> None:
        """Make the next WriteRecords calls fail, after what earlier calls of this asked for.

        Args:
            error_code: ``ThrottlingException`` or ``InternalServerException``.
            times: How many calls.

        Raises:
            ValueError: The error is neither.
        """
        if error_code not in _FAILURES:
            raise ValueError(f"{error_code} is not one of {', '.join(_FAILURES)}")
        with self._lock:
            self._failures.extend([error_code] * times)

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
            if self._failures:
                code = self._failures.popleft()
                raise ServiceError(code, _FAILURES[code])
            return self._store.write(database, table, records, common or {}, self._clock())

    def query(self, text: str, next_token: str | None = None, max_rows: int | None = None) -> Page:
        """Answer one page of a query.

        Args:
            text: Timestream's SQL.
            next_token: From the page before.
            max_rows: 1 to 1,000; None for as many as fit into 1 MB.

        Returns:
            The page. Of a result that does not fit into one, the first page is empty.

        Raises:
            ServiceError: ValidationException, QueryExecutionException.
        """
        with self._lock:
            return self._queries.query(text, next_token, max_rows, self._clock())

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
