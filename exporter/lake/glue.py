"""Adapter: the tables of the Glue catalog, whose columns follow those of the lake's files."""

from __future__ import annotations

from typing import Any

import boto3
from botocore.exceptions import ClientError

from exporter.lake.formats import Format
from exporter.lake.manifest import NANOSECONDS
from exporter.store import TIME, Column

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

    @classmethod
    def of_account(cls, database: str) -> Catalog:
        """Return the tables of a database in the function's account and region."""
        return cls(boto3.client("glue"), database)

    def describe(self, kind: Format, columns: tuple[Column, ...]) -> None:
        """Give a format's table the columns of the lake's newest files; nothing if it has no table."""
        if not (name := kind.rules.table):
            return
        try:
            table = self._client.get_table(DatabaseName=self._database, Name=name)["Table"]
        except ClientError as error:
            if error.response["Error"]["Code"] == "EntityNotFoundException":
                return  # it was removed on purpose
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

    Over CSV all are text, because the reader of CSV does not read an empty field as a number:
    docs/reference/lake.md has the link.
    """
    described: list[dict[str, str]] = []
    taken: set[str] = set()
    for column in columns:
        # The catalog knows no capitals. Over CSV a column has to be in its place, under whatever name;
        # Parquet is read by name, and of two that differ in capitals only the first is found.
        name = column.name.lower()
        if name in taken:
            if kind.rules.typed:
                continue
            name = f"{name}_{len(described)}"
        taken.add(name)
        of_type = _TYPES.get(column.type, "string") if kind.rules.typed else "string"
        described.append({"Name": name, "Type": of_type})
        if kind.rules.typed and column.name == TIME:
            described.append({"Name": NANOSECONDS, "Type": "int"})
    return described
