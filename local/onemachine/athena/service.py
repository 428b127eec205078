"""Answers Athena's operations on queries from moto's work groups, Glue tables and objects."""

from __future__ import annotations

import base64
import binascii
import json
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import ClientError
from moto.athena.responses import AthenaResponse

from onemachine.athena.errors import CutoffError, QueryError
from onemachine.athena.queries import Result, run
from onemachine.presto.kinds import Kind, Type

# https://docs.aws.amazon.com/athena/latest/APIReference/API_GetQueryResults.html
MAX_PAGE_ROWS = 1_000
# https://docs.aws.amazon.com/athena/latest/APIReference/API_StartQueryExecution.html
MAX_QUERY_CHARACTERS = 262_144
# Athena keeps what it has about a query for 45 days; this many are enough for one machine.
MAX_KEPT_QUERIES = 1_000
_USER_ERROR = 2
_PRECISION: Mapping[Kind, int] = {Type.INTEGER: 10, Type.BIGINT: 19, Type.DOUBLE: 17, Type.TIMESTAMP: 3}
_LONGEST_TEXT = 2_147_483_647

_Answer = Mapping[str, Any]
_Client = Callable[[str], Any]


class InvalidRequestError(Exception):
    """An InvalidRequestException."""


@dataclass
class Execution:
    """A query that was started. It runs when it is first asked about, and is over when it is asked again."""

    id: str
    query: str
    database: str
    workgroup: Any
    output: str
    started_s: float
    status: str = "QUEUED"
    reason: str | None = None
    result: Result | None = None
    completed_s: float | None = None
    ending: str = ""

    def advance(self, client: _Client, now_s: float) -> None:
        """Go on to the next state."""
        if self.status == "RUNNING":
            self.status, self.completed_s = self.ending, now_s
        elif self.status == "QUEUED":
            self.status = "RUNNING"
            self._run(client)

    def _run(self, client: _Client) -> None:
        try:
            self.result = run(
                self.query,
                self.database,
                table=_Tables(client("glue")),
                files=_Files(client("s3")),
                now=int(self.started_s * 1000) * 1_000_000,
                cutoff=_whole_number(self.workgroup.configuration.get("BytesScannedCutoffPerQuery")),
            )
            bucket, _, key = self.output.removeprefix("s3://").partition("/")
            client("s3").put_object(Bucket=bucket, Key=key, Body=_as_csv(self.result))
            self.ending = "SUCCEEDED"
        except CutoffError:
            self.ending, self.reason = "CANCELLED", "Bytes scanned limit was exceeded"
        except QueryError as error:
            self.ending, self.reason = "FAILED", str(error)
        except ClientError as error:
            self.ending, self.reason = "FAILED", f"cannot read or write S3: {error}"


class _Files:
    """S3, as the reader of tables needs it."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def keys(self, bucket: str, prefix: str) -> Sequence[str]:
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        return [found["Key"] for page in pages for found in page.get("Contents", ())]

    def read(self, bucket: str, key: str) -> bytes:
        try:
            found: bytes = self._client.get_object(Bucket=bucket, Key=key)["Body"].read()
        except self._client.exceptions.NoSuchKey:
            raise KeyError(key) from None
        return found


class _Tables:
    """The Glue catalog's tables."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def __call__(self, database: str, name: str) -> Mapping[str, Any] | None:
        try:
            found: Mapping[str, Any] = self._client.get_table(DatabaseName=database, Name=name)["Table"]
        except self._client.exceptions.EntityNotFoundException:
            return None
        return found


def install(client: _Client, clock: Callable[[], float] = time.time) -> None:
    """Make moto's server answer queries from here, in this process. Doing it again changes both.

    The queries are kept where moto keeps its own, so that what resets moto forgets them.

    Args:
        client: Gives a boto3 client of glue or s3.
        clock: Gives the time in seconds since 1970.
    """
    operations: dict[str, Callable[[Any], _Answer]] = {
        "start_query_execution": lambda response: _start(response, clock()),
        "get_query_execution": lambda response: _describe(response, client, clock()),
        "get_query_results": _results,
        "stop_query_execution": lambda response: _stop(response, clock()),
    }
    for name, operation in operations.items():
        setattr(AthenaResponse, name, _method(operation))


def _method(operation: Callable[[Any], _Answer]) -> Callable[[Any], str | tuple[str, dict[str, str]]]:
    def respond(response: Any) -> tuple[str, dict[str, str]]:
        try:
            answer, status = operation(response), "200"
        except InvalidRequestError as error:
            code = "InvalidRequestException"
            answer = {"__type": code, "AthenaErrorCode": "INVALID_INPUT", "Message": str(error)}
            status = "400"
        # moto writes its request id over whatever looks like <RequestId> in an answer; a row may.
        return json.dumps(answer).replace("<", "\\u003c"), {"status": status}

    return respond


# ---- the operations ----------------------------------------------------------------------------------------


def _start(response: Any, now_s: float) -> _Answer:
    text = response._get_param("QueryString") or ""  # noqa: SLF001 - moto's way to a parameter
    if not 1 <= len(text) <= MAX_QUERY_CHARACTERS:
        raise InvalidRequestError(
            f"The query has {len(text)} characters. The limit is {MAX_QUERY_CHARACTERS}."
        )
    if response._get_param("ExecutionParameters"):  # noqa: SLF001
        raise InvalidRequestError("ExecutionParameters are not supported on one machine: write the values")
    name = response._get_param("WorkGroup") or "primary"  # noqa: SLF001
    group = response.athena_backend.work_groups.get(name)
    if group is None:
        raise InvalidRequestError("WorkGroup is not found.")
    given = (response._get_param("ResultConfiguration") or {}).get("OutputLocation")  # noqa: SLF001
    enforced = group.configuration.get("ResultConfiguration", {}).get("OutputLocation")
    place = enforced if group.configuration.get("EnforceWorkGroupConfiguration") else given or enforced
    if not place:
        raise InvalidRequestError(
            "No output location provided. An output location is required either through the Workgroup result "
            "configuration setting or as an API input."
        )
    context = response._get_param("QueryExecutionContext") or {}  # noqa: SLF001
    id_ = str(uuid.uuid4())
    output = f"{place.rstrip('/')}/{id_}.csv"
    kept = response.athena_backend.executions
    kept[id_] = Execution(id_, text, context.get("Database", "default"), group, output, now_s)
    while len(kept) > MAX_KEPT_QUERIES:
        del kept[next(iter(kept))]
    return {"QueryExecutionId": id_}


def _describe(response: Any, client: _Client, now_s: float) -> _Answer:
    execution = _execution(response)
    execution.advance(client, now_s)
    status: dict[str, Any] = {"State": execution.status, "SubmissionDateTime": execution.started_s}
    statistics: dict[str, Any] = {}
    if execution.completed_s is not None:
        status["CompletionDateTime"] = execution.completed_s
        if execution.reason is not None:
            status["StateChangeReason"] = execution.reason
            error = {"ErrorCategory": _USER_ERROR, "Retryable": False, "ErrorMessage": execution.reason}
            status["AthenaError"] = error
        statistics["DataScannedInBytes"] = execution.result.scanned if execution.result else 0
    return {
        "QueryExecution": {
            "QueryExecutionId": execution.id,
            "Query": execution.query,
            "StatementType": "DML",
            "ResultConfiguration": {"OutputLocation": execution.output},
            "QueryExecutionContext": {"Database": execution.database},
            "Status": status,
            "Statistics": statistics,
            "WorkGroup": execution.workgroup.name,
            "EngineVersion": {"EffectiveEngineVersion": "Athena engine version 3"},
        }
    }


def _results(response: Any) -> _Answer:
    execution = _execution(response)
    if execution.status in ("QUEUED", "RUNNING"):
        raise InvalidRequestError(f"Query has not yet finished. Current state: {execution.status}")
    if execution.status != "SUCCEEDED" or execution.result is None:
        raise InvalidRequestError(f"Query did not finish successfully. Final query state: {execution.status}")
    size = response._get_param("MaxResults")  # noqa: SLF001
    size = MAX_PAGE_ROWS if size is None else size
    if not 1 <= size <= MAX_PAGE_ROWS:
        raise InvalidRequestError(f"MaxResults is {size}; it must be between 1 and {MAX_PAGE_ROWS}")
    first = _place(response._get_param("NextToken"), execution.id)  # noqa: SLF001
    fields = execution.result.fields
    # The names of the columns are the first row.
    rows = [tuple(name.name or "" for name in fields), *execution.result.rows]
    answer: dict[str, Any] = {
        "UpdateCount": 0,
        "ResultSet": {
            "Rows": [
                {"Data": [{} if value is None else {"VarCharValue": value} for value in row]}
                for row in rows[first : first + size]
            ],
            "ResultSetMetadata": {"ColumnInfo": [_column(field.name or "", field.kind) for field in fields]},
        },
    }
    if first + size < len(rows):
        answer["NextToken"] = base64.b64encode(f"{execution.id} {first + size}".encode()).decode()
    return answer


def _stop(response: Any, now_s: float) -> _Answer:
    execution = _execution(response)
    if execution.status in ("QUEUED", "RUNNING"):
        execution.status, execution.completed_s, execution.result = "CANCELLED", now_s, None
        execution.reason = "Query cancelled by user"
    return {}


# ---- what they are asked -----------------------------------------------------------------------------------


def _execution(response: Any) -> Execution:
    id_ = response._get_param("QueryExecutionId")  # noqa: SLF001
    found = response.athena_backend.executions.get(id_)
    if not isinstance(found, Execution):
        raise InvalidRequestError(f"QueryExecution {id_} was not found")
    return found


def _place(token: str | None, id_: str) -> int:
    if token is None:
        return 0
    try:
        of, _, place = base64.b64decode(token, validate=True).decode().partition(" ")
        if of == id_:
            return int(place)
    except (binascii.Error, ValueError):
        pass
    raise InvalidRequestError("The NextToken is not one of this query's")


def _column(name: str, kind: Kind) -> dict[str, Any]:
    # As in Athena, what is in an array or a row is not described.
    type_ = kind.value.lower() if isinstance(kind, Type) else type(kind).__name__.lower()
    return {
        "CatalogName": "hive",
        "SchemaName": "",
        "TableName": "",
        "Name": name,
        "Label": name,
        "Type": type_,
        "Precision": _LONGEST_TEXT if kind is Type.VARCHAR else _PRECISION.get(kind, 0),
        "Scale": 0,
        "Nullable": "UNKNOWN",
        "CaseSensitive": kind is Type.VARCHAR,
    }


def _as_csv(result: Result) -> bytes:
    """Write the file that Athena puts into the output location: every value in quotes, null as nothing."""
    lines: Iterable[tuple[str | None, ...]] = (
        tuple(field.name or "" for field in result.fields),
        *result.rows,
    )
    return "".join(
        ",".join("" if value is None else '"' + value.replace('"', '""') + '"' for value in line) + "\n"
        for line in lines
    ).encode()


def _whole_number(value: Any) -> int | None:
    return None if value is None else int(value)
