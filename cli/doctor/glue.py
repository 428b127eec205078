"""The tables of the lake in Glue: whether they are there and read this bucket."""

from __future__ import annotations

from collections.abc import Iterator

from botocore.exceptions import ClientError

from cli.doctor.finding import Finding
from cli.target import Target


def tables(target: Target) -> Iterator[Finding]:
    """Look at the lake's tables, which the daily export makes."""
    glue, database, place = target.client("glue"), target.outputs["LakeDatabase"], target.outputs["Bucket"]
    try:
        pages = glue.get_paginator("get_tables").paginate(DatabaseName=database)
        found = [each for page in pages for each in page["TableList"]]
    except ClientError as error:
        if error.response["Error"]["Code"] != "EntityNotFoundException":
            raise
        problem = f"the database {database} of the lake's tables is not there"
        yield Finding("tables", problem, "deploy the stack again; the next export makes its tables")
        return
    for table in found:
        location = table.get("StorageDescriptor", {}).get("Location", "")
        if location and not location.startswith(f"s3://{place}/"):
            problem = f"the table {table['Name']} of {database} reads {location}, not the bucket {place}"
            yield Finding("tables", problem, "delete it: the next export makes it again")
