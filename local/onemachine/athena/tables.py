"""Reads tables of the Glue catalog as Athena does: the partitions that a projection names, and their files.

Tables are those of the lake: Parquet by position or by name, and CSV; folders of files, or lists of files.
Any other table is refused. Partitions that a query's conditions leave out are not read.
"""

from __future__ import annotations

import base64
import csv
import gzip
import io
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date, datetime
from functools import cache, partial
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from onemachine.athena.errors import QueryError
from onemachine.presto.kinds import Type
from onemachine.presto.scopes import Field

_PARQUET = "org.apache.hadoop.hive.ql.io.parquet.serde.ParquetHiveSerDe"
_CSV = "org.apache.hadoop.hive.serde2.OpenCSVSerde"
_SYMLINKS = "org.apache.hadoop.hive.ql.io.SymlinkTextInputFormat"
# https://docs.aws.amazon.com/athena/latest/ug/data-types.html; a TIMESTAMP has nanoseconds in DuckDB here.
_TYPES: Mapping[str, tuple[Type, pa.DataType]] = {
    "bigint": (Type.BIGINT, pa.int64()),
    "int": (Type.INTEGER, pa.int32()),
    "double": (Type.DOUBLE, pa.float64()),
    "boolean": (Type.BOOLEAN, pa.bool_()),
    "string": (Type.VARCHAR, pa.string()),
    "timestamp": (Type.TIMESTAMP, pa.timestamp("ns")),
    "date": (Type.DATE, pa.date32()),
}
# A value may be as long as a line.
csv.field_size_limit(2**31 - 1)
_PLACE = re.compile(r"\$\{(\w+)\}")
_DATE = "yyyy-MM-dd"
_FORMAT = ds.ParquetFileFormat()


class Files(Protocol):
    """Objects of S3."""

    def keys(self, bucket: str, prefix: str) -> Sequence[str]:
        """Return the keys that begin so, in order."""

    def read(self, bucket: str, key: str) -> bytes:
        """Return an object; `KeyError` if it does not exist."""


class Scanned(ds.InMemoryDataset):  # type: ignore[misc]
    """A table whose rows DuckDB asks for when it runs a query, with the conditions that it can pass on.

    Args:
        schema: The table's columns.
        rows: Gives the rows for a condition; it may give others too, which DuckDB leaves out.
    """

    def __init__(self, schema: pa.Schema, rows: Callable[[pc.Expression | None], pa.Table]) -> None:
        super().__init__(schema.empty_table())
        self._rows = rows

    def scanner(self, columns: Any = None, filter: Any = None, **options: Any) -> Any:  # noqa: A002 - Arrow's
        """Return the rows as Arrow does."""
        return ds.InMemoryDataset(self._rows(filter)).scanner(columns=columns, filter=filter, **options)


def view_of(table: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the definition of a view of the catalog: `originalSql` and the `schema` of its tables.

    Raises:
        QueryError: If it is not a view of Presto's.
    """
    found = re.fullmatch(r"/\* Presto View: ([A-Za-z0-9+/=]+) \*/", table.get("ViewOriginalText", ""))
    if found is None:
        raise QueryError(f"INVALID_VIEW: {table['Name']} has no text of a Presto view")
    view: Mapping[str, Any] = json.loads(base64.b64decode(found[1]))
    return view


class TableReader:
    """Reads one table.

    Args:
        table: `Table` of Glue's answer.
        files: What its files are read from.
        today: The day, in UTC, up to which `NOW` projects.

    Attributes:
        fields: The table's columns, then those of its partitions; each has its place as its physical name.
        schema: The same columns as Arrow has them.
        scanned: How many bytes were read.
    """

    def __init__(self, table: Mapping[str, Any], files: Files, today: date) -> None:
        self._name = table["Name"]
        self._files = files
        self._today = today
        self._parameters: Mapping[str, str] = table.get("Parameters", {})
        storage = table["StorageDescriptor"]
        self._by_list = storage.get("InputFormat") == _SYMLINKS
        self._serde = storage["SerdeInfo"]["SerializationLibrary"]
        self._serde_parameters: Mapping[str, str] = storage["SerdeInfo"].get("Parameters", {})
        if self._serde not in (_PARQUET, _CSV):
            raise QueryError(f"NOT_SUPPORTED: the SerDe {self._serde} of {self._name} is not supported here")
        self._columns = [(column["Name"], column["Type"]) for column in storage["Columns"]]
        self._partitions = [(column["Name"], column["Type"]) for column in table.get("PartitionKeys", ())]
        for name, type_ in (*self._columns, *self._partitions):
            if type_ not in _TYPES:
                raise QueryError(
                    f"NOT_SUPPORTED: the type {type_} of {self._name}.{name} is not supported here"
                )
        self.fields = tuple(
            Field(name, _TYPES[type_][0], f"c{place}")
            for place, (name, type_) in enumerate((*self._columns, *self._partitions))
        )
        types = [_TYPES[type_][1] for _, type_ in (*self._columns, *self._partitions)]
        names = [field.physical for field in self.fields]
        self.schema = pa.schema(list(zip(names, types, strict=True)))
        self.scanned = 0

    def read(self, condition: pc.Expression | None = None) -> Iterator[pa.Table]:
        """Yield the rows of each file of the partitions that a condition does not leave out.

        Raises:
            QueryError: Athena would fail the query.
        """
        types = self.schema.types[len(self._columns) :]
        yield self.schema.empty_table()
        for values, bucket, key in self._data_files(condition):
            columns = self._file(bucket, key)
            rows = len(columns[0])
            columns += [pa.array([value] * rows, type_) for value, type_ in zip(values, types, strict=True)]
            yield pa.Table.from_arrays(columns, schema=self.schema)

    def _data_files(self, condition: pc.Expression | None) -> Iterator[tuple[list[Any], str, str]]:
        """Yield the values of the partition, bucket and key of each file."""
        may_hold = cache(partial(self._may_hold, condition))
        for values, bucket, key in self._partition_files():
            if not may_hold(*values):
                continue
            if not self._by_list:
                yield values, bucket, key
                continue
            for address in self._bytes(bucket, key).decode().splitlines():
                listed, _, name = address.removeprefix("s3://").partition("/")
                yield values, listed, name

    def _may_hold(self, condition: pc.Expression | None, *values: Any) -> bool:
        """Tell whether a partition can have rows of a condition, which may be of other columns too."""
        if condition is None:
            return True
        known = pc.scalar(True)
        for field, value in zip(self.fields[len(self._columns) :], values, strict=True):
            known &= pc.field(field.physical) == pa.scalar(value, self.schema.field(field.physical).type)
        # Arrow asks no file for that: it identifies a partition by its expression.
        partition = _FORMAT.make_fragment(pa.BufferReader(b""), partition_expression=known)
        dataset = ds.FileSystemDataset([partition], self.schema, _FORMAT)
        return any(True for _ in dataset.get_fragments(condition))

    def _partition_files(self) -> Iterator[tuple[list[Any], str, str]]:
        template = self._parameters.get("storage.location.template", "")
        if self._parameters.get("projection.enabled") != "true" or not template:
            raise QueryError(f"NOT_SUPPORTED: {self._name} has no partition projection with a template")
        bucket, _, path = template.removeprefix("s3://").partition("/")
        parts = _PLACE.split(path)
        pattern = "".join(
            f"(?P<{part}>[^/]+)" if place % 2 else re.escape(part) for place, part in enumerate(parts)
        )
        for key in self._files.keys(bucket, parts[0]):
            found = re.match(pattern, key)
            # https://docs.aws.amazon.com/athena/latest/ug/tables-location-format.html: hidden files
            if found is None or key.rpartition("/")[2].startswith(("_", ".")):
                continue
            values = [self._projected(name, found[name]) for name, _ in self._partitions]
            if None not in values:
                yield values, bucket, key

    def _projected(self, name: str, text: str) -> Any:
        """Return the value that a partition's text stands for; None if the projection does not make it."""
        prefix = f"projection.{name}."
        kind = self._parameters.get(f"{prefix}type")
        first, _, last = self._parameters.get(f"{prefix}range", "").partition(",")
        if kind == "date" and self._parameters.get(f"{prefix}format") == _DATE:
            try:
                day = datetime.strptime(text, "%Y-%m-%d").date()  # noqa: DTZ007 a date
            except ValueError:
                return None
            end = self._today if last == "NOW" else date.fromisoformat(last)
            if not date.fromisoformat(first) <= day <= end or str(day) != text:
                return None
            return day if dict(self._partitions)[name] == "date" else text
        if kind == "integer":
            digits = int(self._parameters.get(f"{prefix}digits", "0"))
            if not text.isdecimal() or text != str(int(text)).zfill(digits):
                return None
            if not int(first) <= int(text) <= int(last):
                return None
            return text if dict(self._partitions)[name] == "string" else int(text)
        raise QueryError(f"NOT_SUPPORTED: the projection of {self._name}.{name} is not supported here")

    def _bytes(self, bucket: str, key: str) -> bytes:
        try:
            found = self._files.read(bucket, key)
        except KeyError:
            raise QueryError(
                f"HIVE_CANNOT_OPEN_SPLIT: Error opening Hive split s3://{bucket}/{key}: "
                "The specified key does not exist."
            ) from None
        self.scanned += len(found)
        return found

    def _file(self, bucket: str, key: str) -> list[pa.Array]:
        body = self._bytes(bucket, key)
        return self._csv(body, key) if self._serde == _CSV else self._parquet(body, f"s3://{bucket}/{key}")

    def _csv(self, body: bytes, key: str) -> list[pa.Array]:
        """Read CSV as the reader of CSV does, which does not support line ends in values."""
        text = (gzip.decompress(body) if key.endswith(".gz") else body).decode()
        lines = text.split("\n")[int(self._parameters.get("skip.header.line.count", "0")) :]
        rows = [next(csv.reader([line.removesuffix("\r")])) for line in lines if line]
        return [
            pa.array([row[place] if place < len(row) else None for row in rows], pa.string())
            for place in range(len(self._columns))
        ]

    def _parquet(self, body: bytes, address: str) -> list[pa.Array]:
        found = pq.read_table(io.BytesIO(body), partitioning=None)
        names = [name.lower() for name in found.column_names]
        by_position = self._serde_parameters.get("parquet.column.index.access") == "true"
        columns = []
        for place, (name, type_) in enumerate(self._columns):
            at = place if by_position else names.index(name) if name in names else len(names)
            if at >= len(names):
                columns.append(pa.nulls(found.num_rows, _TYPES[type_][1]))
                continue
            values = found.column(at).combine_chunks()
            if not _is_readable(values.type, type_):
                raise QueryError(
                    f"HIVE_BAD_DATA: Field {name}'s type {values.type} in parquet file {address} is "
                    f"incompatible with type {type_} defined in table schema"
                )
            columns.append(values.cast(_TYPES[type_][1]))
        return columns


def _is_readable(found: pa.DataType, type_: str) -> bool:
    if type_ == "timestamp":
        return bool(pa.types.is_timestamp(found))
    if type_ == "string":
        return bool(pa.types.is_string(found) or pa.types.is_large_string(found))
    wanted = _TYPES[type_][1]
    return bool(found == wanted or (found == pa.int32() and wanted == pa.int64()))
