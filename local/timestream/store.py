"""Holds databases, tables and rows: what was written is found by its identity, and asked for in DuckDB.

A table keeps an index (identity to version, digest of the values, row number: some 200 bytes a row) and a
buffer of rows that are not in DuckDB yet. They go there in columns, when a query comes or the buffer is full.
"""

import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import duckdb

from local.timestream.errors import RejectedRecordsError, Rejection, ServiceError, invalid
from local.timestream.records import (
    MAX_DIMENSIONS,
    ColumnType,
    Point,
    Value,
    read_records,
)

# https://docs.aws.amazon.com/timestream/latest/developerguide/ts-limits.html
MAX_MEASURE_COLUMNS = 1024
MAX_MEASURE_NAMES = 8192
MAX_NAME_BYTES = 256
MAX_MEMORY_HOURS = 8766
MAX_MAGNETIC_DAYS = 73_000
DEFAULT_MEMORY_HOURS = 6
FUTURE_NANOSECONDS = 15 * 60 * 1_000_000_000

# Large enough that inserting in columns pays, small enough that waiting rows stay below some 20 MB.
BUFFERED_ROWS = 10_000

_HOUR_NANOSECONDS = 3_600 * 1_000_000_000
_DAY_NANOSECONDS = 24 * _HOUR_NANOSECONDS
_SAME_VERSION = (
    "A record already exists with the same time, dimensions, measure name, and record version. "
    "A higher record version must be specified in order to update the measure value. "
    "Specifying record version is supported by the latest SDKs."
)
# Version, digest of the values, row number.
_ENTRY = struct.Struct("<q8sq")
_DUCKDB_TYPES = {kind: kind.value for kind in ColumnType} | {ColumnType.TIMESTAMP: "TIMESTAMP_NS"}


@dataclass(frozen=True, slots=True)
class TableSettings:
    """What CreateTable and UpdateTable say about a table.

    Args:
        memory_hours: How long the memory store keeps a row, 1 to 8,766 hours.
        magnetic_days: How long the magnetic store keeps it, 1 to 73,000 days.
        magnetic_writes: ``MagneticStoreWriteProperties`` as given.
        schema: ``Schema`` as given.
    """

    memory_hours: int = DEFAULT_MEMORY_HOURS
    magnetic_days: int = MAX_MAGNETIC_DAYS
    magnetic_writes: Mapping[str, Any] = field(default_factory=lambda: {"EnableMagneticStoreWrites": False})
    schema: Mapping[str, Any] = field(
        default_factory=lambda: {"CompositePartitionKey": [{"Type": "MEASURE"}]}
    )

    def checked(self) -> "TableSettings":
        """Hold the settings to the service's ranges.

        Returns:
            The settings themselves.

        Raises:
            ServiceError: ValidationException, when a retention is out of its range.
        """
        if not 1 <= self.memory_hours <= MAX_MEMORY_HOURS:
            raise invalid(
                f"MemoryStoreRetentionPeriodInHours is {self.memory_hours}. "
                f"It must be between 1 and {MAX_MEMORY_HOURS}."
            )
        if not 1 <= self.magnetic_days <= MAX_MAGNETIC_DAYS:
            raise invalid(
                f"MagneticStoreRetentionPeriodInDays is {self.magnetic_days}. "
                f"It must be between 1 and {MAX_MAGNETIC_DAYS}."
            )
        return self


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table.

    Args:
        name: As it was written.
        kind: Its type, for ever.
        role: What DESCRIBE calls it, e.g. ``DIMENSION``.
        physical: Its name in DuckDB, where names do not distinguish case.
    """

    name: str
    kind: ColumnType
    role: str
    physical: str


@dataclass(frozen=True, slots=True)
class Ingested:
    """How many records of a request were written, and where to.

    Args:
        memory: Records in the memory store.
        magnetic: Records in the magnetic store.
    """

    memory: int
    magnetic: int


@dataclass(slots=True)
class Database:
    """A database.

    Args:
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


@dataclass(frozen=True, slots=True)
class _Row:
    time: int
    measure_name: str
    values: Mapping[str, Value]


class Table:
    """One table: its settings, its columns, the index of its points and its rows."""

    def __init__(
        self,
        connection: duckdb.DuckDBPyConnection,
        physical: str,
        name: str,
        settings: TableSettings,
        now: int,
    ) -> None:
        """Create the table, and the DuckDB table under it.

        Args:
            connection: Where its rows go.
            physical: The DuckDB table's name.
            name: The table's name.
            settings: Retention and the rest.
            now: Nanoseconds since 1970.
        """
        self.name = name
        self.physical = physical
        self.settings = settings
        self.created = now
        self.updated = now
        self.stored_bytes = 0
        self._connection = connection
        self._dimensions: dict[str, Column] = {}
        self._measures: dict[str, Column] = {}
        self._measure_types: dict[str, str] = {}
        self._index: dict[bytes, bytes] = {}
        self._next_row = 0
        self._buffer: dict[int, _Row] = {}
        self._replaced: list[int] = []
        self._unmade: list[Column] = []
        connection.execute(f"CREATE TABLE {physical} (_row BIGINT, time TIMESTAMP_NS, measure_name VARCHAR)")

    @property
    def columns(self) -> tuple[Column, ...]:
        """The columns in the order of ``SELECT *``: dimensions, measure name, time, measures.

        Returns:
            Dimensions and measures each in the order in which they first came.
        """
        return (
            *self._dimensions.values(),
            Column("measure_name", ColumnType.VARCHAR, "MEASURE_NAME", "measure_name"),
            Column("time", ColumnType.TIMESTAMP, "TIMESTAMP", "time"),
            *self._measures.values(),
        )

    def write(self, items: Sequence[Point | Rejection], now: int) -> Ingested:
        """Write a request's points, in their order.

        Of two points of one identity and different values, the first one wins. The service tells of such a
        conflict in the magnetic store only later, in a file in S3 (and the caller reads success); here it is
        a rejection at once, like in the memory store, so that no local run merges two rows unseen.

        Args:
            items: Points, and rejections that were found when reading.
            now: Nanoseconds since 1970.

        Returns:
            How many points were written; equal points that were there already count.

        Raises:
            RejectedRecordsError: Some were not; all others were.
        """
        memory_start = now - self.settings.memory_hours * _HOUR_NANOSECONDS
        magnetic_writes = bool(self.settings.magnetic_writes.get("EnableMagneticStoreWrites"))
        start = now - self.settings.magnetic_days * _DAY_NANOSECONDS if magnetic_writes else memory_start
        start = min(start, memory_start)
        end = now + FUTURE_NANOSECONDS
        window = "data ingestion window" if magnetic_writes else "memory store"
        rejections: list[Rejection] = []
        memory = magnetic = 0
        for item in items:
            if isinstance(item, Rejection):
                rejections.append(item)
                continue
            if not start <= item.time < end:
                reason = (
                    f"The record timestamp is outside the time range [{_iso(start)}, {_iso(end)}) "
                    f"of the {window}."
                )
                rejection: Rejection | None = Rejection(item.index, reason)
            else:
                rejection = self._put(item)
            if rejection is not None:
                rejections.append(rejection)
            elif item.time >= memory_start:
                memory += 1
            else:
                magnetic += 1
        if len(self._buffer) >= BUFFERED_ROWS:
            self.flush()
        if rejections:
            raise RejectedRecordsError(tuple(rejections))
        return Ingested(memory, magnetic)

    def flush(self) -> None:
        """Move the waiting rows into DuckDB, so that a query sees them."""
        for column in self._unmade:
            self._connection.execute(
                f"ALTER TABLE {self.physical} ADD COLUMN {column.physical} {_DUCKDB_TYPES[column.kind]}"
            )
        self._unmade.clear()
        if self._replaced:
            self._connection.execute(
                f"DELETE FROM {self.physical} WHERE _row IN (SELECT unnest(CAST(? AS BIGINT[])))",  # noqa: S608 our own name
                [self._replaced],
            )
            self._replaced.clear()
        if not self._buffer:
            return
        rows = self._buffer.values()
        names = ["_row", "time", "measure_name"]
        selected = [
            "unnest(CAST(? AS BIGINT[]))",
            "make_timestamp_ns(unnest(CAST(? AS BIGINT[])))",
            "unnest(CAST(? AS VARCHAR[]))",
        ]
        values: list[list[Any]] = [
            list(self._buffer),
            [row.time for row in rows],
            [row.measure_name for row in rows],
        ]
        for column in (*self._dimensions.values(), *self._measures.values()):
            names.append(column.physical)
            values.append([row.values.get(column.physical) for row in rows])
            if column.kind is ColumnType.TIMESTAMP:
                selected.append("make_timestamp_ns(unnest(CAST(? AS BIGINT[])))")
            else:
                selected.append(f"unnest(CAST(? AS {column.kind.value}[]))")
        self._connection.execute(
            f"INSERT INTO {self.physical} ({', '.join(names)}) SELECT {', '.join(selected)}",
            values,
        )
        self._buffer.clear()

    def drop(self) -> None:
        """Forget the rows."""
        self._connection.execute(f"DROP TABLE {self.physical}")

    def _put(self, point: Point) -> Rejection | None:
        """Write one point, or say why not."""
        reason = self._misfit(point)
        if reason is not None:
            return Rejection(point.index, reason)
        identity, values = point.identity(), point.values()
        existing = self._index.get(identity)
        if existing is None:
            self._index[identity] = _ENTRY.pack(point.version, values, self._append(point))
            return None
        version, stored, row = _ENTRY.unpack(existing)
        if point.version > version:
            if values != stored:
                row = self._overwrite(row, point)
            self._index[identity] = _ENTRY.pack(point.version, values, row)
            return None
        if point.version < version:
            reason = (
                f"The record version {point.version} is lower than the existing version {version}. "
                "A higher version is required to update the measure value."
            )
            return Rejection(point.index, reason, version)
        return None if values == stored else Rejection(point.index, _SAME_VERSION, version)

    def _append(self, point: Point) -> int:
        number = self._next_row
        self._next_row += 1
        self._buffer[number] = self._row(point)
        self.stored_bytes += point.size
        return number

    def _overwrite(self, number: int, point: Point) -> int:
        if number in self._buffer:
            self._buffer[number] = self._row(point)
            return number
        self._replaced.append(number)
        return self._append(point)

    def _row(self, point: Point) -> _Row:
        """Name a point's values as DuckDB does, making the columns that are new."""
        values: dict[str, Value] = {}
        for name, value in point.dimensions.items():
            column = self._dimensions.get(name) or self._add(
                self._dimensions, name, ColumnType.VARCHAR, "DIMENSION"
            )
            values[column.physical] = value
        for name, measure in point.measures.items():
            column = self._measures.get(name) or self._add(
                self._measures,
                name,
                measure.kind,
                "MULTI" if point.measure_type == "MULTI" else "MEASURE_VALUE",
            )
            values[column.physical] = measure.value
        self._measure_types[point.measure_name] = point.measure_type
        return _Row(point.time, point.measure_name, values)

    def _add(self, columns: dict[str, Column], name: str, kind: ColumnType, role: str) -> Column:
        column = Column(name, kind, role, f"c{len(self._dimensions) + len(self._measures)}")
        columns[name] = column
        self._unmade.append(column)
        return column

    def _misfit(self, point: Point) -> str | None:
        """Say why a point does not fit this table: the reasons' words are ours, AWS documents none."""
        return self._foreign_measure(point) or self._foreign_column(point)

    def _foreign_measure(self, point: Point) -> str | None:
        for key in self.settings.schema.get("CompositePartitionKey") or ():
            if key.get("EnforcementInRecord") == "REQUIRED" and key.get("Name") not in point.dimensions:
                return f"The record has no dimension {key.get('Name')}, which the partition key requires."
        measure_type = self._measure_types.get(point.measure_name)
        if measure_type is None:
            if len(self._measure_types) >= MAX_MEASURE_NAMES:
                return f"The table has {MAX_MEASURE_NAMES} measure names already, which is the limit."
        elif measure_type != point.measure_type:
            return (
                f"The measure {point.measure_name} is of type {measure_type}. "
                f"A record of type {point.measure_type} cannot be written to it."
            )
        return None

    def _foreign_column(self, point: Point) -> str | None:
        new_dimensions = new_measures = 0
        for name in point.dimensions:
            if name in self._measures:
                return f"The name {name} is used for a measure already. It cannot be a dimension."
            new_dimensions += name not in self._dimensions
        for name, measure in point.measures.items():
            column = self._measures.get(name)
            if column is None:
                if name in self._dimensions:
                    return f"The name {name} is used for a dimension already. It cannot be a measure."
                new_measures += 1
            elif column.kind is not measure.kind:
                return (
                    f"The measure {name} is of type {column.kind.value}. "
                    f"A value of type {measure.kind.value} cannot be written to it."
                )
        if new_dimensions and len(self._dimensions) + new_dimensions > MAX_DIMENSIONS:
            return f"The table would have more than {MAX_DIMENSIONS} dimensions, which is the limit."
        if new_measures and len(self._measures) + new_measures > MAX_MEASURE_COLUMNS:
            return f"The table would have more than {MAX_MEASURE_COLUMNS} measures, which is the limit."
        return None


class Store:
    """All databases, on one DuckDB connection. It has no lock and no clock: both are its caller's."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Start empty.

        Args:
            connection: Where the rows go.
        """
        self._connection = connection
        self._databases: dict[str, Database] = {}
        self._made_tables = 0

    def databases(self) -> tuple[Database, ...]:
        """List the databases.

        Returns:
            All of them, by name.
        """
        return tuple(self._databases[name] for name in sorted(self._databases))

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

    def create_database(self, name: str, kms_key_id: str, now: int) -> Database:
        """Create a database.

        Args:
            name: Its name.
            kms_key_id: The key to keep in its description.
            now: Nanoseconds since 1970.

        Returns:
            The database.

        Raises:
            ServiceError: ConflictException, or ValidationException for its name.
        """
        _check_name("databaseName", name)
        if name in self._databases:
            raise ServiceError("ConflictException", f"The database {name} already exists.")
        self._databases[name] = Database(name, kms_key_id, now, now)
        return self._databases[name]

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

    def create_table(self, database: str, name: str, settings: TableSettings, now: int) -> Table:
        """Create a table.

        Args:
            database: Its database's name.
            name: Its name.
            settings: Retention and the rest.
            now: Nanoseconds since 1970.

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
        tables[name] = Table(self._connection, f"table_{self._made_tables}", name, settings, now)
        return tables[name]

    def update_table(self, database: str, name: str, changes: Mapping[str, Any], now: int) -> Table:
        """Change a table's settings.

        Args:
            database: Its database's name.
            name: Its name.
            changes: Fields of `TableSettings` by name.
            now: Nanoseconds since 1970.

        Returns:
            The table.

        Raises:
            ServiceError: ResourceNotFoundException, ValidationException.
        """
        table = self.table(database, name)
        table.settings = replace(table.settings, **changes).checked()
        table.updated = now
        return table

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

    def write(
        self,
        database: str,
        table: str,
        records: Sequence[Mapping[str, Any]],
        common: Mapping[str, Any],
        now: int,
    ) -> Ingested:
        """Write a request's records.

        Args:
            database: The database's name.
            table: The table's name.
            records: ``Records`` of the request.
            common: ``CommonAttributes`` of the request.
            now: Nanoseconds since 1970.

        Returns:
            How many records went where.

        Raises:
            ServiceError: ValidationException, ResourceNotFoundException: nothing was written.
            RejectedRecordsError: What it does not name was written.
        """
        target = self.table(database, table)
        return target.write(read_records(records, common), now)

    def flush(self, tables: Iterable[Table]) -> None:
        """Make what was written visible to a query.

        Args:
            tables: The tables that it reads.
        """
        for table in tables:
            table.flush()


def _check_name(member: str, name: str) -> None:
    legal = name.isascii() and all(character.isalnum() or character in "_.-" for character in name)
    if not legal or not 1 <= len(name) <= MAX_NAME_BYTES:
        raise invalid(
            f"1 validation error detected: Value '{name}' at '{member}' failed to satisfy constraint: "
            f"Member must be 1 to {MAX_NAME_BYTES} characters of [a-zA-Z0-9_.-]"
        )


def _iso(nanoseconds: int) -> str:
    moment = datetime.fromtimestamp(max(nanoseconds, 0) // 1_000_000_000, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{max(nanoseconds, 0) // 1_000_000 % 1000:03d}Z"
