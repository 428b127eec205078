"""Databases and their tables, in DuckDB, written to and read under one lock."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import wraps
from threading import RLock
from typing import Any, TypeVar, cast

import duckdb

from onemachine.presto.errors import ServiceError, invalid
from onemachine.timestream.tables import MAX_NAME_BYTES, Table, TableSettings

Method = TypeVar("Method", bound=Callable[..., Any])


def locked(method: Method) -> Method:
    """Let one thread at a time call a method of `Store`."""

    @wraps(method)
    def call(self: "Store", *args: Any, **kwargs: Any) -> Any:
        with self.lock:
            return method(self, *args, **kwargs)

    return cast(Method, call)


@dataclass(slots=True)
class Database:
    """A database.

    Attributes:
        name: Its name.
        kms_key_id: The key it was created with.
        created: Nanoseconds since 1970.
        updated: Nanoseconds since 1970.
        tables: Its tables by name.
    """

    name: str
    kms_key_id: str
    created: int
    updated: int
    tables: dict[str, "Table"] = field(default_factory=dict)


class Store:
    """All databases, on one DuckDB connection, safe to call from many threads.

    Args:
        connection: Where the rows go.
        clock: Gives the time in nanoseconds since 1970.
        durable: Whether the connection has a file, which then holds more than rows.
    """

    def __init__(
        self, connection: duckdb.DuckDBPyConnection, clock: Callable[[], int], *, durable: bool = False
    ) -> None:
        self.lock = RLock()
        self.clock = clock
        self._connection = connection
        self._databases: dict[str, Database] = {}
        self._made_tables = 0
        self._saves = self._save if durable else None
        if durable:
            connection.execute("CREATE TABLE IF NOT EXISTS catalog (document VARCHAR)")
            for (document,) in connection.execute("SELECT document FROM catalog").fetchall():
                self._restore(json.loads(document))

    def _save(self) -> None:
        document = {
            "made_tables": self._made_tables,
            "databases": [
                {
                    "name": database.name,
                    "kms_key_id": database.kms_key_id,
                    "created": database.created,
                    "updated": database.updated,
                    "tables": [table.document() for table in database.tables.values()],
                }
                for database in self._databases.values()
            ],
        }
        self._connection.execute("DELETE FROM catalog")
        self._connection.execute("INSERT INTO catalog VALUES (?)", [json.dumps(document)])

    def _restore(self, document: Mapping[str, Any]) -> None:
        self._made_tables = document["made_tables"]
        for saved in document["databases"]:
            database = Database(saved["name"], saved["kms_key_id"], saved["created"], saved["updated"])
            self._databases[database.name] = database
            for table in saved["tables"]:
                database.tables[table["name"]] = Table(
                    self._connection,
                    table["physical"],
                    table["name"],
                    TableSettings(**table["settings"]),
                    table["created"],
                    save=self._saves,
                )
                database.tables[table["name"]].restore(table)

    @locked
    def save(self) -> None:
        """Keep everything, where there is a file: rows that wait, and what is not a row."""
        for database in self._databases.values():
            for table in database.tables.values():
                table.flush()
        if self._saves is not None:
            self._saves()

    @locked
    def databases(self) -> tuple[Database, ...]:
        """List the databases.

        Returns:
            All of them, by name.
        """
        return tuple(self._databases[name] for name in sorted(self._databases))

    @locked
    def database(self, name: str) -> Database:
        """Find a database.

        Args:
            name: Its name.

        Returns:
            The database.

        Raises:
            ServiceError: ResourceNotFoundException.
        """
        try:
            return self._databases[name]
        except KeyError:
            raise ServiceError("ResourceNotFoundException", f"The database {name} does not exist.") from None

    @locked
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
        try:
            return self.database(database).tables[name]
        except KeyError:
            raise ServiceError(
                "ResourceNotFoundException", f"The table {name} does not exist in the database {database}."
            ) from None

    @locked
    def create_database(self, name: str, kms_key_id: str) -> Database:
        """Create a database.

        Args:
            name: Its name.
            kms_key_id: The key to keep in its description.

        Returns:
            The database.

        Raises:
            ServiceError: ConflictException, or ValidationException for its name.
        """
        _check_name("databaseName", name)
        if name in self._databases:
            raise ServiceError("ConflictException", f"The database {name} already exists.")
        self._databases[name] = Database(name, kms_key_id, now := self.clock(), now)
        self.save()
        return self._databases[name]

    @locked
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
        database = self.database(name)
        database.kms_key_id, database.updated = kms_key_id, self.clock()
        self.save()
        return database

    @locked
    def tables(self, database: str) -> tuple[Table, ...]:
        """List a database's tables.

        Args:
            database: Its name.

        Returns:
            The tables, by name.

        Raises:
            ServiceError: ResourceNotFoundException.
        """
        tables = self.database(database).tables
        return tuple(tables[name] for name in sorted(tables))

    @locked
    def delete_database(self, name: str) -> None:
        """Delete an empty database.

        Args:
            name: Its name.

        Raises:
            ServiceError: ResourceNotFoundException, or ValidationException while it has tables.
        """
        if self.database(name).tables:
            raise invalid(f"The database {name} cannot be deleted while it has tables.")
        del self._databases[name]
        self.save()

    @locked
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
        tables = self.database(database).tables
        _check_name("tableName", name)
        settings.checked()
        if name in tables:
            raise ServiceError(
                "ConflictException", f"The table {name} already exists in the database {database}."
            )
        self._made_tables += 1
        tables[name] = Table(
            self._connection, f"table_{self._made_tables}", name, settings, self.clock(), save=self._saves
        )
        self.save()
        return tables[name]

    @locked
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
        table = self.table(database, name)
        table.change(replace(table.settings, **changes).checked(), self.clock())
        self.save()
        return table

    @locked
    def delete_table(self, database: str, name: str) -> None:
        """Delete a table and its rows.

        Args:
            database: Its database's name.
            name: Its name.

        Raises:
            ServiceError: ResourceNotFoundException.
        """
        self.table(database, name).drop()
        del self._databases[database].tables[name]
        self.save()


def _check_name(member: str, name: str) -> None:
    legal = name.isascii() and all(character.isalnum() or character in "_.-" for character in name)
    if not legal or not 1 <= len(name) <= MAX_NAME_BYTES:
        raise invalid(
            f"1 validation error detected: Value '{name}' at '{member}' failed to satisfy constraint: "
            f"Member must be 1 to {MAX_NAME_BYTES} characters of [a-zA-Z0-9_.-]"
        )
