"""Adapter: the tables of the Glue catalog over the lake's files. This is their only definition."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date
from typing import Any

import boto3
from botocore.exceptions import ClientError

from consumers.bucket import Objects
from consumers.rows.lake import fragments
from consumers.rows.table import Type
from exporter.lake.athena import (
    BY_POSITION,
    PARTITION,
    column_names,
    fragment_properties,
    lists_prefix,
    table_properties,
)
from exporter.lake.athena_view import VIEW, ViewColumn, sql_type, view_columns, view_sql
from exporter.lake.closed import Closed, closed, unfinished_days
from exporter.lake.columns import lake_columns
from exporter.lake.formats import Format
from exporter.lake.manifest import NANOSECONDS
from exporter.store import TIME, Column

# https://docs.aws.amazon.com/glue/latest/webapi/API_Column.html
_COMMENT_BYTES = 255
_TYPES = {"integer": "bigint", "boolean": "boolean", "number": "double", "timestamp": "timestamp"}
# The fields of GetTable's answer that UpdateTable takes:
# https://docs.aws.amazon.com/glue/latest/webapi/API_TableInput.html
_INPUT = (
    "Name",
    "Description",
    "Owner",
    "Retention",
    "StorageDescriptor",
    "PartitionKeys",
    "TableType",
    "Parameters",
    "ViewOriginalText",
    "ViewExpandedText",
)
_TRIES = 20

# The table over the lake store's fragments.
FRESH = "fresh"
_FRAGMENT_TYPES: Mapping[fragments.ColumnType, str] = {
    "BIGINT": "bigint",
    "BOOLEAN": "boolean",
    "DOUBLE": "double",
    "INTEGER": "int",
    "TIMESTAMP": "timestamp",
    "VARCHAR": "string",
}

_PARQUET_SERDE = "org.apache.hadoop.hive.ql.io.parquet.serde.ParquetHiveSerDe"
_PARQUET: dict[str, Any] = {"SerializationLibrary": _PARQUET_SERDE, "Parameters": BY_POSITION}
_CSV: dict[str, Any] = {
    "SerializationLibrary": "org.apache.hadoop.hive.serde2.OpenCSVSerde",
    # CSV escapes a quote by another. The default, a backslash, would take backslashes out of values.
    "Parameters": {"separatorChar": ",", "quoteChar": '"', "escapeChar": "\x01"},
}


class Catalog:
    """The tables of a Glue database.

    Args:
        client: A boto3 client for glue.
        database: The database's name.
        objects: The lake's bucket.
    """

    def __init__(self, client: Any, database: str, objects: Objects) -> None:
        self._client = client
        self._database = database
        self._objects = objects

    @classmethod
    def of_account(cls, database: str, objects: Objects) -> Catalog:
        """Return the tables of a database in the function's account and region."""
        return cls(boto3.client("glue"), database, objects)

    def describe(self, kind: Format) -> None:
        """Create or update the table over a format's files, with the lake's columns; some have no table.

        The table is compared and swapped: the lake's columns are read after the table's version, so the last
        of several writers has the newest columns.

        Raises:
            OSError: If other runs keep changing the table.
        """
        if name := kind.rules.table:
            location = self._objects.uri(lists_prefix(kind))
            self._put(name, lambda: table_input(kind, lake_columns(self._objects), location))

    def describe_fragments(self, declared: Mapping[str, Type]) -> None:
        """Create or update the table over the lake store's fragments, and the view over all rows.

        The view follows `lake/closed.json`, which is read after the view's version.

        Args:
            declared: Names and types of the columns that schemas declare.

        Raises:
            OSError: If other runs keep changing the table or the view.
        """
        location = self._objects.uri(fragments.PREFIX)
        fresh = fragments_input(declared, location)
        self._put(FRESH, lambda: fresh)
        self._put(VIEW, lambda: self._view(_columns_of(fresh)))

    def _view(self, fresh: Sequence[ViewColumn]) -> dict[str, Any]:
        records = Format.PARQUET.rules.table or ""
        # The columns that the table has by now: the view cannot name others.
        found = self._find(records)
        columns = {FRESH: fresh, **({records: _columns_of(found)} if found else {})}
        boundary, unfinished = closed(self._objects), unfinished_days(self._objects)
        return view_input(self._database, records, columns, boundary, unfinished)

    def _put(self, name: str, definition: Callable[[], dict[str, Any]]) -> None:
        for _ in range(_TRIES):
            found = self._find(name)
            wanted = definition()
            if found is not None and _contains(found, wanted):
                return
            if self._create(wanted) if found is None else self._update(found, wanted):
                return
        raise OSError(f"the table {name} was changed by others {_TRIES} times in a row")

    def _find(self, name: str) -> dict[str, Any] | None:
        try:
            found: dict[str, Any] = self._client.get_table(DatabaseName=self._database, Name=name)["Table"]
        except ClientError as error:
            if error.response["Error"]["Code"] == "EntityNotFoundException":
                return None
            raise
        return found

    def _create(self, wanted: dict[str, Any]) -> bool:
        try:
            self._client.create_table(DatabaseName=self._database, TableInput=wanted)
        except ClientError as error:
            if error.response["Error"]["Code"] == "AlreadyExistsException":
                return False
            raise
        return True

    def _update(self, found: dict[str, Any], wanted: dict[str, Any]) -> bool:
        """Replace a table unless it has changed; parameters that others have set are kept."""
        kept = {part: found[part] for part in _INPUT if part in found}
        parameters = found.get("Parameters", {}) | wanted["Parameters"]
        try:
            self._client.update_table(
                DatabaseName=self._database,
                TableInput={**kept, **wanted, "Parameters": parameters},
                VersionId=found["VersionId"],
            )
        except ClientError as error:
            if error.response["Error"]["Code"] in (
                "ConcurrentModificationException",
                "EntityNotFoundException",
            ):
                return False
            raise
        return True


def table_input(kind: Format, columns: tuple[Column, ...], location: str) -> dict[str, Any]:
    """Return the definition of the table over a format's files.

    Args:
        kind: The format; it has a table.
        columns: The columns of the lake's newest files.
        location: The address of the format's file lists, with a slash at the end.
    """
    parameters = {"EXTERNAL": "TRUE", **table_properties(location)}
    if not kind.rules.typed:
        parameters["skip.header.line.count"] = "1"
    return {
        "Name": kind.rules.table,
        "Description": f"The lake's records, over its files in {kind}.",
        "TableType": "EXTERNAL_TABLE",
        "PartitionKeys": [{"Name": PARTITION, "Type": "date"}],
        "Parameters": parameters,
        "StorageDescriptor": {
            "Location": location,
            # A partition holds a list of the day's files: their folder also has parts that were replaced, or
            # are being written.
            "InputFormat": "org.apache.hadoop.hive.ql.io.SymlinkTextInputFormat",
            "OutputFormat": "org.apache.hadoop.hive.ql.io.IgnoreKeyTextOutputFormat",
            "SerdeInfo": _PARQUET if kind.rules.typed else _CSV,
            "Columns": glue_columns(kind, columns),
        },
    }


def fragments_input(declared: Mapping[str, Type], location: str) -> dict[str, Any]:
    """Return the definition of the table over the lake store's fragments, whose columns are read by name.

    Args:
        declared: Names and types of the columns that schemas declare.
        location: The address of the fragments, with a slash at the end.
    """
    return {
        "Name": FRESH,
        "Description": "The lake store's fragments. A row may be in several.",
        "TableType": "EXTERNAL_TABLE",
        "PartitionKeys": [{"Name": "day", "Type": "date"}, {"Name": "hour", "Type": "int"}],
        "Parameters": {"EXTERNAL": "TRUE", **fragment_properties(location)},
        "StorageDescriptor": {
            "Location": location,
            "InputFormat": "org.apache.hadoop.hive.ql.io.parquet.MapredParquetInputFormat",
            "OutputFormat": "org.apache.hadoop.hive.ql.io.parquet.MapredParquetOutputFormat",
            "SerdeInfo": {"SerializationLibrary": _PARQUET_SERDE, "Parameters": {}},
            "Columns": [
                {"Name": name.lower(), "Type": _FRAGMENT_TYPES[type_]}
                for name, type_ in fragments.columns(declared).items()
            ],
        },
    }


def view_input(
    database: str,
    records: str,
    columns: Mapping[str, Sequence[ViewColumn]],
    closed: Closed,
    unfinished: Iterable[date],
) -> dict[str, Any]:
    """Return the definition of the view over both tables, as CREATE VIEW leaves it in the catalog.

    https://trino.io/docs/current/connector/hive.html has what a view of Presto's is there.

    Args:
        database: The tables' database.
        records: The name of the table over exported days.
        columns: The columns of each table that exists, by its name.
        closed: The days and hours that are read from parts.
        unfinished: Days that are over and not exported.
    """
    described = view_columns(columns.get(records, ()), columns[FRESH])
    view = {
        "originalSql": view_sql(records, FRESH, columns, closed, unfinished),
        "catalog": "awsdatacatalog",
        "schema": database,
        "columns": [{"name": each.name, "type": sql_type(each.type)} for each in described],
    }
    text = base64.b64encode(json.dumps(view).encode()).decode()
    return {
        "Name": VIEW,
        "Description": "Each row once: of exported days, and of the lake store's fragments.",
        "TableType": "VIRTUAL_VIEW",
        "PartitionKeys": [],
        "Parameters": {"presto_view": "true", "comment": "Presto View"},
        "ViewOriginalText": f"/* Presto View: {text} */",
        "ViewExpandedText": "/* Presto View */",
        "StorageDescriptor": {
            "Location": "",
            "SerdeInfo": {"Name": "-", "SerializationLibrary": "-"},
            "Columns": [{"Name": each.name, "Type": each.type} for each in described],
        },
    }


def _columns_of(table: Mapping[str, Any]) -> list[ViewColumn]:
    """Return a table's columns, without its partitions."""
    return [
        ViewColumn(column["Name"], column["Type"], column.get("Comment", column["Name"]))
        for column in table["StorageDescriptor"]["Columns"]
    ]


def glue_columns(kind: Format, columns: tuple[Column, ...]) -> list[dict[str, str]]:
    """Return a table's columns by those of the files, in the same order.

    A column has its name in the files as its comment if that is another.

    Over CSV all are text, because the reader of CSV does not read an empty field as a number:
    docs/reference/lake.md has the link.
    """
    described: list[dict[str, str]] = []
    for column, name in zip(columns, column_names(column.name for column in columns), strict=True):
        of_type = _TYPES.get(column.type, "string") if kind.rules.typed else "string"
        comment = {"Comment": column.name[:_COMMENT_BYTES]} if name != column.name else {}
        described.append({"Name": name, "Type": of_type, **comment})
        if kind.rules.typed and column.name == TIME:
            described.append({"Name": NANOSECONDS, "Type": "int"})
    return described


def _contains(found: Any, wanted: Any) -> bool:
    """Tell whether a table has all of a definition; Glue adds fields that it lacks."""
    if isinstance(wanted, Mapping):
        return isinstance(found, Mapping) and all(
            key in found and _contains(found[key], value) for key, value in wanted.items()
        )
    return bool(found == wanted)
