"""Puts the local Timestream behind moto's server, so that boto3's two clients are answered by it."""

import json
import logging
from collections.abc import Callable, Iterable, Mapping
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

from moto.timestreamwrite.responses import TimestreamWriteResponse

from onemachine.presto.errors import ServiceError, invalid
from onemachine.presto.kinds import Array, Kind, Row, Series, Type, column_type
from onemachine.timestream.engine import Timestream
from onemachine.timestream.errors import RejectedRecordsError
from onemachine.timestream.queries import Page
from onemachine.timestream.store import Database
from onemachine.timestream.tables import Table, TableSettings

logger = logging.getLogger(__name__)

# https://docs.aws.amazon.com/timestream/latest/developerguide/API_ListTables.html
MAX_LISTED = 20

# RejectedRecordsException is a 419 (seen in dpattmann/prometheus-timestream-adapter#87); errors without an
# entry are 400, as always in this protocol.
REJECTED = 419
_STATUS = {"RejectedRecordsException": REJECTED, "ThrottlingException": 429, "InternalServerException": 500}
_ENDPOINT_MINUTES = 1440
_NANOSECONDS = 1_000_000_000

_Response = TimestreamWriteResponse
_Request = Mapping[str, Any]
_Answer = Mapping[str, Any]
_Operation = Callable[[Timestream, _Response, _Request], _Answer]


def install(timestream: Timestream) -> None:
    """Make moto's server answer the Timestream clients from an engine, in this process, from now on.

    Moto gives both clients' calls to one class: the operations that this replaces are the ones that the
    engine has. A later call puts another engine in this one's place.

    Args:
        timestream: The engine.
    """
    for operation in _OPERATIONS:
        name = operation.__name__.removeprefix("_")
        setattr(TimestreamWriteResponse, name, _method(operation, timestream))


def _method(
    operation: _Operation, timestream: Timestream
) -> Callable[[_Response], tuple[str, dict[str, str]]]:
    """Make an operation's answer, or the error that it raises, what moto sends."""

    def respond(response: _Response) -> tuple[str, dict[str, str]]:
        status, body = _answered(lambda request: operation(timestream, response, request), response.body)
        # Moto writes its request id over whatever looks like <RequestId> in an answer; a row may.
        return body.replace("<", "\\u003c"), {"status": str(status)}

    return respond


def _answered(operation: Callable[[_Request], _Answer], body: str | bytes) -> tuple[int, str]:
    """Return the status and the text that answer a request's body."""
    try:
        return 200, json.dumps(dict(operation(json.loads(body or "{}"))))
    except ServiceError as error:
        answer: dict[str, Any] = {"__type": error.code, "Message": error.message, "message": error.message}
        if isinstance(error, RejectedRecordsError):
            answer["RejectedRecords"] = [
                {"RecordIndex": rejection.index, "Reason": rejection.reason}
                | (
                    {}
                    if rejection.existing_version is None
                    else {"ExistingVersion": rejection.existing_version}
                )
                for rejection in error.rejections
            ]
        return _STATUS.get(error.code, 400), json.dumps(answer)
    # The client must get an answer of the service's, whatever goes wrong here.
    except Exception as error:
        logger.exception("a request to Timestream")
        text = f"onemachine failed: {error!r:.200}"
        return 500, json.dumps({"__type": "InternalServerException", "Message": text, "message": text})


class Direct:
    """The calls that carry rows, answered without moto's way through Flask, which takes longer than they do.

    Args:
        application: What answers everything else.
        timestream: The engine.
    """

    def __init__(self, application: Callable[..., Iterable[bytes]], timestream: Timestream) -> None:
        self._application = application
        self._timestream = timestream

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Answer a request."""
        operation = _DIRECT.get(environ.get("HTTP_X_AMZ_TARGET", ""))
        if operation is None:
            return self._application(environ, start_response)
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        status, text = _answered(lambda request: operation(self._timestream, None, request), body)
        answer = text.encode()
        start_response(
            f"{status} {HTTPStatus(status).phrase if status != REJECTED else 'Rejected'}",
            [("content-type", "application/x-amz-json-1.0"), ("content-length", str(len(answer)))],
        )
        return [answer]


def _describe_endpoints(_timestream: Timestream, response: _Response, _request: _Request) -> _Answer:
    # Discovery is required, and botocore puts https:// before an address that does not begin with http:
    # with the scheme in it, a client that has only AWS_ENDPOINT_URL stays with this server.
    here = urlsplit(response.uri)
    address = f"{here.scheme}://{here.netloc}"
    return {"Endpoints": [{"Address": address, "CachePeriodInMinutes": _ENDPOINT_MINUTES}]}


def _write_records(timestream: Timestream, _response: object, request: _Request) -> _Answer:
    ingested = timestream.write_records(
        _name(request, "DatabaseName"),
        _name(request, "TableName"),
        request.get("Records") or [],
        request.get("CommonAttributes"),
    )
    return {
        "RecordsIngested": {
            "Total": ingested.memory + ingested.magnetic,
            "MemoryStore": ingested.memory,
            "MagneticStore": ingested.magnetic,
        }
    }


def _query(timestream: Timestream, _response: object, request: _Request) -> _Answer:
    return _page(
        timestream.query(
            _name(request, "QueryString"),
            request.get("NextToken"),
            request.get("MaxRows"),
            client_token=request.get("ClientToken"),
        )
    )


def _prepare_query(timestream: Timestream, _response: _Response, request: _Request) -> _Answer:
    # "Timestream only supports using this operation with ValidateOnly set to true."
    # https://docs.aws.amazon.com/timestream/latest/developerguide/API_query_PrepareQuery.html
    if request.get("ValidateOnly") is not True:
        raise invalid("PrepareQuery is supported with ValidateOnly set to true only.")
    text = _name(request, "QueryString")
    columns = [
        {"Name": field.name, "Type": column_type(field.kind), "Aliased": False}
        for field in timestream.prepare(text)
    ]
    return {"QueryString": text, "Columns": columns, "Parameters": []}


def _cancel_query(timestream: Timestream, _response: _Response, request: _Request) -> _Answer:
    return {"CancellationMessage": timestream.cancel(_name(request, "QueryId"))}


def _create_database(timestream: Timestream, response: _Response, request: _Request) -> _Answer:
    default_key = f"arn:aws:kms:{response.region}:{response.current_account}:key/timestream"
    database = timestream.create_database(
        _name(request, "DatabaseName"), request.get("KmsKeyId") or default_key
    )
    described = _database(response, database)
    _tag(response, described["Arn"], request)
    return {"Database": described}


def _describe_database(timestream: Timestream, response: _Response, request: _Request) -> _Answer:
    return {"Database": _database(response, timestream.database(_name(request, "DatabaseName")))}


def _update_database(timestream: Timestream, response: _Response, request: _Request) -> _Answer:
    database = timestream.update_database(_name(request, "DatabaseName"), _name(request, "KmsKeyId"))
    return {"Database": _database(response, database)}


def _list_databases(timestream: Timestream, response: _Response, request: _Request) -> _Answer:
    described = [_database(response, database) for database in timestream.databases()]
    return _listed("Databases", described, request)


def _delete_database(timestream: Timestream, _response: _Response, request: _Request) -> _Answer:
    timestream.delete_database(_name(request, "DatabaseName"))
    return {}


def _create_table(timestream: Timestream, response: _Response, request: _Request) -> _Answer:
    database = _name(request, "DatabaseName")
    settings = TableSettings(**_settings(request))
    table = timestream.create_table(database, _name(request, "TableName"), settings)
    described = _table(response, database, table)
    _tag(response, described["Arn"], request)
    return {"Table": described}


def _describe_table(timestream: Timestream, response: _Response, request: _Request) -> _Answer:
    database = _name(request, "DatabaseName")
    return {"Table": _table(response, database, timestream.table(database, _name(request, "TableName")))}


def _update_table(timestream: Timestream, response: _Response, request: _Request) -> _Answer:
    database = _name(request, "DatabaseName")
    table = timestream.update_table(database, _name(request, "TableName"), _settings(request))
    return {"Table": _table(response, database, table)}


def _list_tables(timestream: Timestream, response: _Response, request: _Request) -> _Answer:
    names = (
        [request["DatabaseName"]]
        if request.get("DatabaseName")
        else [database.name for database in timestream.databases()]
    )
    described = [_table(response, name, table) for name in names for table in timestream.tables(name)]
    return _listed("Tables", described, request)


def _delete_table(timestream: Timestream, _response: _Response, request: _Request) -> _Answer:
    timestream.delete_table(_name(request, "DatabaseName"), _name(request, "TableName"))
    return {}


def _name(request: _Request, member: str) -> str:
    value = request.get(member)
    if not isinstance(value, str) or not value:
        raise invalid(
            f"1 validation error detected: Value at '{member[0].lower()}{member[1:]}' failed to satisfy "
            "constraint: Member must not be null"
        )
    return value


def _settings(request: _Request) -> dict[str, Any]:
    """Read a request's settings of a table; what it leaves out is left out."""
    settings: dict[str, Any] = {}
    retention = request.get("RetentionProperties")
    if retention:
        settings["memory_hours"] = retention["MemoryStoreRetentionPeriodInHours"]
        settings["magnetic_days"] = retention["MagneticStoreRetentionPeriodInDays"]
    if request.get("MagneticStoreWriteProperties"):
        settings["magnetic_writes"] = request["MagneticStoreWriteProperties"]
    if request.get("Schema"):
        settings["schema"] = request["Schema"]
    return settings


def _arn(response: _Response, resource: str) -> str:
    return f"arn:aws:timestream:{response.region}:{response.current_account}:{resource}"


def _tag(response: _Response, arn: str, request: _Request) -> None:
    """Leave tags to moto, which answers the operations on them."""
    if request.get("Tags"):
        response.timestreamwrite_backend.tag_resource(arn, request["Tags"])


def _database(response: _Response, database: Database) -> dict[str, Any]:
    return {
        "Arn": _arn(response, f"database/{database.name}"),
        "DatabaseName": database.name,
        "TableCount": len(database.tables),
        "KmsKeyId": database.kms_key_id,
        "CreationTime": database.created / _NANOSECONDS,
        "LastUpdatedTime": database.updated / _NANOSECONDS,
    }


def _table(response: _Response, database: str, table: Table) -> dict[str, Any]:
    settings = table.settings
    return {
        "Arn": _arn(response, f"database/{database}/table/{table.name}"),
        "TableName": table.name,
        "DatabaseName": database,
        "TableStatus": "ACTIVE",
        "RetentionProperties": {
            "MemoryStoreRetentionPeriodInHours": settings.memory_hours,
            "MagneticStoreRetentionPeriodInDays": settings.magnetic_days,
        },
        "CreationTime": table.created / _NANOSECONDS,
        "LastUpdatedTime": table.updated / _NANOSECONDS,
        "MagneticStoreWriteProperties": dict(settings.magnetic_writes),
        "Schema": dict(settings.schema),
    }


def _listed(member: str, described: list[dict[str, Any]], request: _Request) -> _Answer:
    """Cut a listing into pages: the token is the last ARN of the page before."""
    limit = request.get("MaxResults") or MAX_LISTED
    if not 1 <= limit <= MAX_LISTED:
        raise invalid(f"MaxResults is {limit}. It must be between 1 and {MAX_LISTED}.")
    token = request.get("NextToken") or ""
    rest = sorted((item for item in described if item["Arn"] > token), key=lambda item: str(item["Arn"]))
    answer: dict[str, Any] = {member: rest[:limit]}
    if len(rest) > limit:
        answer["NextToken"] = rest[limit - 1]["Arn"]
    return answer


def _datum(kind: Kind, value: Any) -> dict[str, Any]:
    if value is None:
        return {"NullValue": True}
    match kind:
        case Array(element):
            return {"ArrayValue": [_datum(element, item) for item in value]}
        case Series(element):
            return {
                "TimeSeriesValue": [{"Time": time, "Value": _datum(element, item)} for time, item in value]
            }
        case Row(kinds):
            return {"RowValue": {"Data": [_datum(*pair) for pair in zip(kinds, value, strict=True)]}}
        case _:
            return {"ScalarValue": value}


def _page(page: Page) -> dict[str, Any]:
    kinds = [field.kind for field in page.fields]
    if all(isinstance(kind, Type) for kind in kinds):
        # Most results, and large ones: a call for each value would take as long as the query.
        data = [
            [{"NullValue": True} if value is None else {"ScalarValue": value} for value in row]
            for row in page.rows
        ]
    else:
        data = [[_datum(*pair) for pair in zip(kinds, row, strict=True)] for row in page.rows]
    answer: dict[str, Any] = {
        "QueryId": page.query_id,
        "Rows": [{"Data": values} for values in data],
        "ColumnInfo": [{"Name": field.name, "Type": column_type(field.kind)} for field in page.fields],
        "QueryStatus": {
            "ProgressPercentage": 100.0,
            "CumulativeBytesScanned": page.scanned,
            "CumulativeBytesMetered": page.scanned,
        },
    }
    if page.next_token is not None:
        answer["NextToken"] = page.next_token
    return answer


_OPERATIONS: tuple[_Operation, ...] = (
    *(_describe_endpoints, _write_records, _query, _prepare_query, _cancel_query),
    *(_create_database, _describe_database, _update_database, _list_databases, _delete_database),
    *(_create_table, _describe_table, _update_table, _list_tables, _delete_table),
)
_DIRECT: Mapping[str, Callable[[Timestream, object, _Request], _Answer]] = {
    "Timestream_20181101.WriteRecords": _write_records,
    "Timestream_20181101.Query": _query,
}
