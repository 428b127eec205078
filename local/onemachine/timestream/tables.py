"""A table's rows: what was written is found by its identity, and asked for in DuckDB.

A table keeps an index (identity to version, digest of the values, row number: some 200 bytes a row) and a
buffer of rows that are not in DuckDB yet. They go there in columns, when a query comes or the buffer is full.
Where DuckDB has a file, what the index needs is in it too, and all but the rows is one document in a table.
"""

import json
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any, NamedTuple

import duckdb

from onemachine.presto.errors import invalid
from onemachine.timestream.errors import RejectedRecordsError, Rejection
from onemachine.timestream.records import (
    MAX_DIMENSIONS,
    MAX_INT64,
    ColumnType,
    Point,
    Shape,
    Value,
    type_of_name,
)

# https://docs.aws.amazon.com/timestream/latest/developerguide/ts-limits.html
MAX_MEASURE_COLUMNS = 1024
MAX_MEASURE_NAMES = 8192
MAX_NAME_BYTES = 256
MAX_MEMORY_HOURS = 8766
MAX_MAGNETIC_DAYS = 73_000
DEFAULT_MEMORY_HOURS = 6
FUTURE_NANOSECONDS = 15 * 60 * 1_000_000_000
# Ways to combine names and types that a table remembers.
REMEMBERED_SHAPES = 4096
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
_INSERTED = {kind: f"unnest(from_json(?, '[\"{kind.value}\"]'))" for kind in ColumnType} | {
    ColumnType.TIMESTAMP: "make_timestamp_ns(unnest(from_json(?, '[\"BIGINT\"]')))"
}


@dataclass(frozen=True, slots=True)
class TableSettings:
    """What CreateTable and UpdateTable set of a table.

    Attributes:
        memory_hours: How long the memory store keeps a row, 1 to 8,766 hours.
        magnetic_days: How long the magnetic store keeps it, 1 to 73,000 days.
        magnetic_writes: `MagneticStoreWriteProperties` as given.
        schema: `Schema` as given.
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

    Attributes:
        name: As it was written.
        kind: Its type, for ever.
        role: What DESCRIBE calls it, e.g. `DIMENSION`.
        physical: Its name in DuckDB, where names do not distinguish case.
    """

    name: str
    kind: ColumnType
    role: str
    physical: str


@dataclass(frozen=True, slots=True)
class Ingested:
    """How many records of a request were written, and where to.

    Attributes:
        memory: Records in the memory store.
        magnetic: Records in the magnetic store.
    """

    memory: int
    magnetic: int


class _Row(NamedTuple):
    time: int
    measure_name: str
    # In the order of the columns that the shape of the record has in the table.
    columns: tuple[str, ...]
    values: tuple[Value, ...]
    version: int
    identity: bytes
    digest: bytes


class Table:
    """One table: its settings, its columns, the index of its points and its rows.

    Args:
        connection: Where its rows go.
        physical: The DuckDB table's name.
        name: The table's name.
        settings: Retention and the rest.
        now: Nanoseconds since 1970.
        save: Keeps all but the rows; None if nothing outlives the process.
    """

    def __init__(
        self,
        connection: duckdb.DuckDBPyConnection,
        physical: str,
        name: str,
        settings: TableSettings,
        now: int,
        *,
        save: Callable[[], None] | None,
    ) -> None:
        self.name = name
        self.physical = physical
        self.settings = settings
        self.created = now
        self.updated = now
        self.stored_bytes = 0
        self._connection = connection
        self._save = save
        self._dimensions: dict[str, Column] = {}
        self._measures: dict[str, Column] = {}
        self._measure_types: dict[str, str] = {}
        # What a shape's columns are called in DuckDB: a shape is held against the table's columns once.
        self._shapes: dict[Shape, tuple[str, ...]] = {}
        self._index: dict[bytes, bytes] = {}
        self._next_row = 0
        self._buffer: dict[int, _Row] = {}
        self._replaced: list[int] = []
        self._unmade: list[Column] = []
        self._oldest = MAX_INT64
        durable = ", _version BIGINT, _identity VARCHAR, _digest VARCHAR" if save is not None else ""
        self._connection.execute(
            f"CREATE TABLE IF NOT EXISTS {physical} "
            f"(_row BIGINT, time TIMESTAMP_NS, measure_name VARCHAR{durable})"
        )

    @property
    def columns(self) -> tuple[Column, ...]:
        """The columns in DESCRIBE's order.

        Returns:
            Dimensions, measure name and time, measures.
        """
        return (
            *self._dimensions.values(),
            Column("measure_name", ColumnType.VARCHAR, "MEASURE_NAME", "measure_name"),
            Column("time", ColumnType.TIMESTAMP, "TIMESTAMP", "time"),
            *self._measures.values(),
        )

    def document(self) -> dict[str, Any]:
        """Describe all of the table but its rows.

        Returns:
            What `restore` reads, fit for JSON.
        """
        return {
            "name": self.name,
            "physical": self.physical,
            "settings": asdict(self.settings),
            "created": self.created,
            "updated": self.updated,
            "stored_bytes": self.stored_bytes,
            "dimensions": [asdict(column) for column in self._dimensions.values()],
            "measures": [asdict(column) for column in self._measures.values()],
            "measure_types": self._measure_types,
            "next_row": self._next_row,
        }

    def restore(self, document: Mapping[str, Any]) -> None:
        """Take up what an earlier process left.

        Args:
            document: From `document`.
        """
        self.updated = document["updated"]
        self.stored_bytes = document["stored_bytes"]
        self._measure_types = document["measure_types"]
        self._next_row = document["next_row"]
        for columns, saved in (
            (self._dimensions, document["dimensions"]),
            (self._measures, document["measures"]),
        ):
            for column in saved:
                columns[column["name"]] = Column(**{**column, "kind": ColumnType(column["kind"])})
                # It may have been announced before it was made.
                self._unmade.append(columns[column["name"]])
        cursor = self._connection.execute(
            f"SELECT _identity, _version, _digest, _row, epoch_ns(time) FROM {self.physical}"  # noqa: S608 our own name
        )
        while rows := cursor.fetchmany(BUFFERED_ROWS):
            for identity, version, digest, row, time in rows:
                self._index[bytes.fromhex(identity)] = _ENTRY.pack(version, bytes.fromhex(digest), row)
                self._oldest = min(self._oldest, time)

    def change(self, settings: TableSettings, now: int) -> None:
        """Change the settings.

        Args:
            settings: The new ones.
            now: Nanoseconds since 1970.
        """
        # A longer retention does not bring back what a shorter one has taken.
        self._expire(self.retained_from(now))
        self.settings = settings
        self.updated = now
        self._shapes.clear()

    def retained_from(self, now: int) -> int:
        """Say since when rows are kept: what is older has left the magnetic store.

        Args:
            now: Nanoseconds since 1970.

        Returns:
            Nanoseconds since 1970.
        """
        return now - max(
            self.settings.memory_hours * _HOUR_NANOSECONDS, self.settings.magnetic_days * _DAY_NANOSECONDS
        )

    def write(
        self, items: Sequence[Point | Rejection], now: int, conflicts: list[Rejection] | None
    ) -> Ingested:
        """Write the points of one request.

        Args:
            items: The request's points, and the rejections that were found when reading.
            now: Nanoseconds since 1970.
            conflicts: Takes the records for the magnetic store whose points are taken by others, which then
                count as written; None rejects them at once.

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
                rejections.append(Rejection(item.place, reason))
                continue
            rejection = self._put(item)
            in_memory = item.time >= memory_start
            if rejection is not None:
                if in_memory or conflicts is None or rejection.existing_version is None:
                    rejections.append(rejection)
                    continue
                conflicts.append(rejection)
            memory += in_memory
            magnetic += not in_memory
        if len(self._buffer) >= BUFFERED_ROWS:
            self.flush()
        if rejections:
            raise RejectedRecordsError(tuple(rejections))
        return Ingested(memory, magnetic)

    def flush(self) -> None:
        """Move the waiting rows into DuckDB, so that a query sees them."""
        if not (self._buffer or self._replaced or self._unmade):
            return
        for column in self._unmade:
            self._connection.execute(
                f"ALTER TABLE {self.physical} ADD COLUMN IF NOT EXISTS "
                f"{column.physical} {_DUCKDB_TYPES[column.kind]}"
            )
        self._unmade.clear()
        self._connection.execute("BEGIN")
        try:
            self._move()
            self._connection.execute("COMMIT")
        except BaseException:
            self._connection.execute("ROLLBACK")
            raise
        self._replaced.clear()
        self._buffer.clear()

    def _move(self) -> None:
        if self._replaced:
            self._connection.execute(
                f"DELETE FROM {self.physical} WHERE _row IN (SELECT unnest(CAST(? AS BIGINT[])))",  # noqa: S608 our own name
                [self._replaced],
            )
        alike: dict[tuple[str, ...], list[tuple[int, _Row]]] = {}
        for number, row in self._buffer.items():
            alike.setdefault(row.columns, []).append((number, row))
        for columns, rows in alike.items():
            self._insert(columns, rows)
        if self._save is not None:
            self._save()

    def _insert(self, columns: tuple[str, ...], rows: Sequence[tuple[int, _Row]]) -> None:
        kinds = {column.physical: column.kind for column in self.columns}
        names = ["_row", "time", "measure_name", *columns]
        types = [ColumnType.BIGINT, ColumnType.TIMESTAMP, ColumnType.VARCHAR, *(kinds[c] for c in columns)]
        values: list[Sequence[Value]] = [
            [number for number, _ in rows],
            [row.time for _, row in rows],
            [row.measure_name for _, row in rows],
            *zip(*(row.values for _, row in rows), strict=True),
        ]
        if self._save is not None:
            names += ["_version", "_identity", "_digest"]
            types += [ColumnType.BIGINT, ColumnType.VARCHAR, ColumnType.VARCHAR]
            values += [
                [row.version for _, row in rows],
                [row.identity.hex() for _, row in rows],
                [row.digest.hex() for _, row in rows],
            ]
        # A column as one JSON text goes in twice as fast as a list, and is the same to the last bit.
        self._connection.execute(
            f"INSERT INTO {self.physical} ({', '.join(names)}) "
            f"SELECT {', '.join(_INSERTED[kind] for kind in types)}",
            [json.dumps(column) for column in values],
        )

    def expire(self, now: int) -> None:
        """Free rows that no query sees any more, once there is a day of them.

        Args:
            now: Nanoseconds since 1970.
        """
        start = self.retained_from(now)
        if self._oldest < start - _DAY_NANOSECONDS:
            self._expire(start)

    def _expire(self, start: int) -> None:
        if self._oldest >= start:
            return
        self.flush()
        self._connection.execute(
            f"DELETE FROM {self.physical} WHERE epoch_ns(time) < ?",  # noqa: S608 our own name
            [start],
        )
        left = self._connection.execute(
            f"SELECT _row, epoch_ns(time) FROM {self.physical}"  # noqa: S608 our own name
        ).fetchall()
        self._oldest = min((time for _, time in left), default=MAX_INT64)
        rows = {row for row, _ in left}
        self._index = {
            identity: entry for identity, entry in self._index.items() if _ENTRY.unpack(entry)[2] in rows
        }

    def drop(self) -> None:
        """Forget the rows."""
        self._connection.execute(f"DROP TABLE {self.physical}")

    def _put(self, point: Point) -> Rejection | None:
        """Write one point, or return why not."""
        columns = self._shapes.get(point.shape)
        if columns is None:
            reason = self._foreign_measure(point.shape) or self._foreign_column(point.shape)
            if reason is not None:
                return Rejection(point.place, reason)
        identity, values = point.identity(), point.values()
        existing = self._index.get(identity)
        if existing is None:
            row = self._append(point, columns, identity, values)
            self._index[identity] = _ENTRY.pack(point.version, values, row)
            return None
        version, stored, row = _ENTRY.unpack(existing)
        if point.version > version:
            # Where a file is kept, the version is in it; else an equal row need not be written again.
            if values != stored or self._save is not None:
                if row not in self._buffer:
                    self._replaced.append(row)
                self._buffer.pop(row, None)
                row = self._append(point, columns, identity, values)
            self._index[identity] = _ENTRY.pack(point.version, values, row)
            return None
        if point.version < version:
            reason = (
                f"The record version {point.version} is lower than the existing version {version}. "
                "A higher version is required to update the measure value."
            )
            return Rejection(point.place, reason, version)
        return None if values == stored else Rejection(point.place, _SAME_VERSION, version)

    def _append(self, point: Point, columns: tuple[str, ...] | None, identity: bytes, digest: bytes) -> int:
        number = self._next_row
        self._next_row += 1
        self._buffer[number] = _Row(
            point.time,
            point.shape.measure_name,
            self._adopt(point.shape) if columns is None else columns,
            point.dimensions + point.measures,
            point.version,
            identity,
            digest,
        )
        self._oldest = min(self._oldest, point.time)
        self.stored_bytes += point.size
        return number

    def _adopt(self, shape: Shape) -> tuple[str, ...]:
        """Name a shape's columns as DuckDB does, making those that are new."""
        physical = []
        for name in shape.dimensions:
            column = self._dimensions.get(name) or self._add(
                self._dimensions, name, ColumnType.VARCHAR, "DIMENSION"
            )
            physical.append(column.physical)
        role = "MULTI" if shape.measure_type == "MULTI" else "MEASURE_VALUE"
        for name, kind in zip(shape.measures, shape.kinds, strict=True):
            column = self._measures.get(name) or self._add(self._measures, name, type_of_name[kind], role)
            physical.append(column.physical)
        self._measure_types[shape.measure_name] = shape.measure_type
        if len(self._shapes) >= REMEMBERED_SHAPES:
            self._shapes.clear()
        self._shapes[shape] = tuple(physical)
        return self._shapes[shape]

    def _add(self, columns: dict[str, Column], name: str, kind: ColumnType, role: str) -> Column:
        column = Column(name, kind, role, f"c{len(self._dimensions) + len(self._measures)}")
        columns[name] = column
        self._unmade.append(column)
        return column

    def _foreign_measure(self, shape: Shape) -> str | None:
        """Say why a shape does not fit this table: the reasons' words are ours, AWS documents none."""
        for key in self.settings.schema.get("CompositePartitionKey") or ():
            if key.get("EnforcementInRecord") == "REQUIRED" and key.get("Name") not in shape.dimensions:
                return f"The record has no dimension {key.get('Name')}, which the partition key requires."
        measure_type = self._measure_types.get(shape.measure_name)
        if measure_type is None:
            if len(self._measure_types) >= MAX_MEASURE_NAMES:
                return f"The table has {MAX_MEASURE_NAMES} measure names already, which is the limit."
        elif measure_type != shape.measure_type:
            return (
                f"The measure {shape.measure_name} is of type {measure_type}. "
                f"A record of type {shape.measure_type} cannot be written to it."
            )
        return None

    def _foreign_column(self, shape: Shape) -> str | None:
        new_dimensions = new_measures = 0
        for name in shape.dimensions:
            if name in self._measures:
                return f"The name {name} is used for a measure already. It cannot be a dimension."
            new_dimensions += name not in self._dimensions
        for name, kind in zip(shape.measures, shape.kinds, strict=True):
            column = self._measures.get(name)
            if column is None:
                if name in self._dimensions:
                    return f"The name {name} is used for a dimension already. It cannot be a measure."
                new_measures += 1
            elif column.kind.value != kind:
                return (
                    f"The measure {name} is of type {column.kind.value}. "
                    f"A value of type {kind} cannot be written to it."
                )
        if new_dimensions and len(self._dimensions) + new_dimensions > MAX_DIMENSIONS:
            return f"The table would have more than {MAX_DIMENSIONS} dimensions, which is the limit."
        if new_measures and len(self._measures) + new_measures > MAX_MEASURE_COLUMNS:
            return f"The table would have more than {MAX_MEASURE_COLUMNS} measures, which is the limit."
        return None


def _iso(nanoseconds: int) -> str:
    moment = datetime.fromtimestamp(max(nanoseconds, 0) // 1_000_000_000, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{max(nanoseconds, 0) // 1_000_000 % 1000:03d}Z"
