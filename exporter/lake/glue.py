"""Adapter: the tables of the Glue catalog, whose columns follow those of the lake's files."""

from __future__ import annotations

from typing import Any

from botocore.exceptions import ClientError

from exporter.lake.formats import Format
from exporter.lake.manifest import NANOSECONDS
from exporter.store import TIME, Column

# The template's tables, by the format of the files that they are over.
TABLES = {Format.CSV_GZ: "records_csv", Format.PARQUET: "records"}

_TYPES = {"integer": "bigint", "boolean": "boolean", "number": "double", "timestamp": "timestamp"}
# What GetTable says of a table, and UpdateTable takes:
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
)


class Catalog:
    """The tables of a Glue database.

    Args:
        client: A boto3 client for glue.
        database: The database's name.
    """

    def __init__(self, client: Any, database: str) -> None:
        self._client = client
        self._database = database

    def describe(self, kind: Format, columns: tuple[Column, ...]) -> None:
        """Give a format's table the columns of the lake's newest files; nothing where it has no table."""
        name = TABLES.get(kind)
        if name is None:
            return
        try:
            table = self._client.get_table(DatabaseName=self._database, Name=name)["Table"]
        except ClientError as error:
            if error.response["Error"]["Code"] == "EntityNotFoundException":
                return  # whoever has removed it does not want it
            raise
        wanted = glue_columns(kind, columns)
        if table["StorageDescriptor"]["Columns"] != wanted:
            table["StorageDescriptor"]["Columns"] = wanted
            self._client.update_table(
                DatabaseName=self._database,
                TableInput={part: table[part] for part in _INPUT if part in table},
            )


def glue_columns(kind: Format, columns: tuple[Column, ...]) -> list[dict[str, str]]:
    """Return a table's columns by those of the files.

    Over CSV all are text: that reader takes no empty field for a number.
    https://docs.aws.amazon.com/athena/latest/ug/csv-serde.html
    """
    described: list[dict[str, str]] = []
    taken: set[str] = set()
    for column in columns:
        # The catalog knows no capitals. Over CSV a column has to be in its place, under whatever name;
        # Parquet is read by name, and of two that differ in capitals only the first is found.
        name = column.name.lower()
        if name in taken:
            if kind is Format.PARQUET:
                continue
            name = f"{name}_{len(described)}"
        taken.add(name)
        of_type = _TYPES.get(column.type, "string") if kind is Format.PARQUET else "string"
        described.append({"Name": name, "Type": of_type})
        if kind is Format.PARQUET and column.name == TIME:
            described.append({"Name": NANOSECONDS, "Type": "int"})
    return described
