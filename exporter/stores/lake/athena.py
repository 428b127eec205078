"""Adapter: SQL over the lake store's rows, which Athena answers. People ask it, and no function does."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from botocore.exceptions import BotoCoreError, ClientError

from exporter.lake.athena_view import VIEW
from exporter.store import Answer, Column, StoreError, Type, Values
from exporter.stores.placeholder import as_asked, filled

DIALECT: Final = "Athena's SQL, over exported days and fragments"
_TYPES: dict[str, Type] = {
    **dict.fromkeys(("bigint", "integer", "smallint", "tinyint"), "integer"),
    **dict.fromkeys(("double", "float", "decimal"), "number"),
    "boolean": "boolean",
    "timestamp": "timestamp",
}
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.05, 1.0


class _TableNotFoundError(StoreError):
    """A question names a table that does not exist."""


class Questions:
    """Questions in a workgroup.

    Args:
        client: A boto3 client for athena.
        database: The database of the lake's tables.
        work_group: The workgroup, which has a limit and a place for answers.
        sleep: Waits so many seconds.
    """

    def __init__(
        self, client: Any, database: str, work_group: str, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self._client = client
        self._database = database
        self._work_group = work_group
        self._sleep = sleep

    def ask(self, text: str) -> Answer:
        """Return the answer to a question.

        Args:
            text: A SELECT; `{table}` stands for the name of the view over all rows.

        Raises:
            StoreError: If Athena refuses or cannot answer it.
        """
        sql = filled(text, VIEW)
        try:
            started = self._client.start_query_execution(
                QueryString=sql,
                QueryExecutionContext={"Database": self._database},
                WorkGroup=self._work_group,
            )
            execution = started["QueryExecutionId"]
            try:
                self._wait(execution)
            except KeyboardInterrupt:
                self._client.stop_query_execution(QueryExecutionId=execution)
                raise
            except StoreError as error:
                raise type(error)(as_asked(str(error), text, VIEW)) from None
            pages = iter(self._client.get_paginator("get_query_results").paginate(QueryExecutionId=execution))
            first = next(pages)
        except (BotoCoreError, ClientError) as error:
            raise StoreError(f"Athena: {error}") from error
        columns = tuple(
            Column(info["Name"], _TYPES.get(info["Type"], "text"))
            for info in first["ResultSet"]["ResultSetMetadata"]["ColumnInfo"]
        )
        return Answer(columns, _rows(first, pages))

    def _wait(self, execution: str) -> None:
        wait = _FIRST_WAIT_S
        while True:
            status = self._client.get_query_execution(QueryExecutionId=execution)["QueryExecution"]["Status"]
            if status["State"] == "SUCCEEDED":
                return
            if status["State"] in ("FAILED", "CANCELLED"):
                reason = status.get("StateChangeReason", "it gives no reason")
                kind = _TableNotFoundError if "TABLE_NOT_FOUND" in reason else StoreError
                raise kind(f"Athena ended the query as {status['State']}: {reason}")
            self._sleep(wait)
            wait = min(2 * wait, _LONGEST_WAIT_S)


def sql_of_stack(outputs: Mapping[str, str], client: Callable[[str], Any]) -> Callable[[str], Answer]:
    """Return what answers SQL over the lake of a stack. The exporter makes the tables if they are missing.

    Args:
        outputs: The stack's outputs.
        client: Gives a boto3 client by a service's name; it is called for the first question.
    """

    def ask(text: str) -> Answer:
        questions = Questions(client("athena"), outputs["LakeDatabase"], outputs["LakeWorkGroup"])
        try:
            return questions.ask(text)
        except _TableNotFoundError:
            _make_tables(client("lambda"), outputs["DailyExporterName"])
            return questions.ask(text)

    return ask


def _make_tables(client: Any, exporter: str) -> None:
    """Have the exporter make the tables, as it does after each export.

    Raises:
        StoreError: If it cannot.
    """
    try:
        answer = client.invoke(FunctionName=exporter, Payload=json.dumps({"tables": True}).encode())
    except (BotoCoreError, ClientError) as error:
        raise StoreError(f"the exporter cannot make Athena's tables: {error}") from error
    if "FunctionError" in answer:
        raise StoreError(f"the exporter cannot make Athena's tables: {answer['Payload'].read().decode()}")


def _rows(first: Any, pages: Iterator[Any]) -> Iterator[list[Values]]:
    """Yield the rows of pages; the first row of all is the columns' names."""
    yield _values(first)[1:]
    try:
        for page in pages:
            yield _values(page)
    except (BotoCoreError, ClientError) as error:
        raise StoreError(f"Athena: {error}") from error


def _values(page: Any) -> list[Values]:
    return [tuple(value.get("VarCharValue") for value in row["Data"]) for row in page["ResultSet"]["Rows"]]
