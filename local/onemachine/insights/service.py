"""Answers CloudWatch Logs' five operations on queries from moto's stored log events."""

from __future__ import annotations

import base64
import binascii
import json
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from moto.logs.exceptions import InvalidParameterException, ResourceNotFoundException
from moto.logs.responses import LogsResponse

from onemachine.insights.engine import Result, execute
from onemachine.insights.fields import Event
from onemachine.insights.functions import UnsupportedValueError
from onemachine.insights.query import compile_query
from onemachine.insights.syntax import MAX_LIMIT, Command, MalformedQueryError
from onemachine.insights.values import Timestamp, printed

# https://docs.aws.amazon.com/AmazonCloudWatchLogs/latest/APIReference/API_StartQuery.html
MAX_LOG_GROUPS = 50
# https://docs.aws.amazon.com/AmazonCloudWatchLogs/latest/APIReference/API_GetQueryResults.html
MAX_PAGE_ROWS = 10_000
# https://docs.aws.amazon.com/AmazonCloudWatchLogs/latest/APIReference/API_DescribeQueries.html
MAX_DESCRIBED = 1_000
# AWS forgets results after days; this many are enough for one machine.
MAX_KEPT_QUERIES = 1_000
# A time in seconds has no 12 digits before the year 5138, one in milliseconds has since 1973.
_FIRST_IN_MILLISECONDS = 10**11

_Answer = Mapping[str, Any]


@dataclass
class Query:
    """A query that was started; it runs when it is first asked for results, over the events of its start."""

    id: str
    text: str
    commands: tuple[Command, ...]
    groups: tuple[str, ...]
    limit: int | None
    started_s: float
    events: Sequence[Event]
    status: str = "Running"
    result: Result | None = None

    def run(self) -> None:
        """Run it, unless that was done or it was stopped."""
        if self.status != "Running":
            return
        try:
            self.result = execute(self.commands, self.events, now_s=int(self.started_s), limit=self.limit)
            self.status = "Complete"
        except UnsupportedValueError:
            self.status = "Failed"
        self.events = ()


def install(clock: Callable[[], float] = time.time) -> None:
    """Make moto's server answer queries from here, in this process. Doing it again changes the clock.

    The queries are kept where moto keeps its own, so that what resets moto forgets them.

    Args:
        clock: Gives the time in seconds since 1970.
    """
    operations: dict[str, Callable[[Any], _Answer]] = {
        "start_query": lambda response: _start_query(response, clock()),
        "get_query_results": _get_query_results,
        "stop_query": _stop_query,
        "describe_queries": _describe_queries,
        "get_log_record": _get_log_record,
    }
    for name, operation in operations.items():
        setattr(LogsResponse, name, _method(operation))


def _method(operation: Callable[[Any], _Answer]) -> Callable[[Any], str | tuple[str, dict[str, str]]]:
    def respond(response: Any) -> str | tuple[str, dict[str, str]]:
        try:
            answer: _Answer = operation(response)
            status = "200"
        except MalformedQueryError as error:
            location = {"startCharOffset": error.start, "endCharOffset": error.end}
            answer = {
                "__type": "MalformedQueryException",
                "message": str(error),
                "queryCompileError": {"location": location, "message": str(error)},
            }
            status = "400"
        # moto writes its request id over whatever looks like <RequestId> in an answer; a line may.
        return json.dumps(answer).replace("<", "\\u003c"), {"status": status}

    return respond


# ---- the operations ----------------------------------------------------------------------------------------


def _start_query(response: Any, now_s: float) -> _Answer:
    language = response._get_param("queryLanguage") or "CWLI"  # noqa: SLF001 - moto's way to a parameter
    if language != "CWLI":
        raise InvalidParameterException(f"the query language {language} is not supported on one machine")
    start_s, end_s = _seconds(response, "startTime"), _seconds(response, "endTime")
    if end_s < start_s:
        raise InvalidParameterException("endTime is before startTime")
    limit = response._get_param("limit")  # noqa: SLF001
    if limit is not None and not 1 <= limit <= MAX_LIMIT:
        raise InvalidParameterException(f"limit is {limit}; it must be between 1 and {MAX_LIMIT}")
    groups = _group_names(response)
    text = response._get_param("queryString") or ""  # noqa: SLF001
    commands = compile_query(text)
    events = sorted(
        (event for group in groups for event in _stored(response, group, start_s * 1000, end_s * 1000)),
        key=lambda numbered: numbered[0],
    )
    query = Query(str(uuid.uuid4()), text, commands, groups, limit, now_s, [event for _, event in events])
    kept = response.logs_backend.queries
    kept[query.id] = query
    while len(kept) > MAX_KEPT_QUERIES:
        del kept[next(iter(kept))]
    return {"queryId": query.id}


def _get_query_results(response: Any) -> _Answer:
    query = _query(response)
    query.run()
    answer: dict[str, Any] = {"queryLanguage": "CWLI", "results": [], "status": query.status}
    if query.result is None:
        return answer
    size = response._get_param("maxItems") or MAX_PAGE_ROWS  # noqa: SLF001
    token = response._get_param("nextToken") or "0"  # noqa: SLF001
    if not 1 <= size <= MAX_PAGE_ROWS or not token.isdecimal():
        raise InvalidParameterException("maxItems or nextToken is not valid")
    first = int(token)
    answer["results"] = [
        [{"field": name, "value": value} for name, value in row]
        for row in query.result.rows[first : first + size]
    ]
    if first + size < len(query.result.rows):
        answer["nextToken"] = str(first + size)
    answer["statistics"] = {
        "recordsMatched": float(query.result.matched),
        "recordsScanned": float(query.result.scanned),
        "estimatedRecordsSkipped": 0.0,
        "bytesScanned": float(query.result.bytes_scanned),
        "estimatedBytesSkipped": 0.0,
        "logGroupsScanned": float(len(query.groups)),
    }
    return answer


def _stop_query(response: Any) -> _Answer:
    query = _query(response)
    if query.status != "Running":
        raise InvalidParameterException(f"Specified query {query.id} is not running")
    query.status, query.events = "Cancelled", ()
    return {"success": True}


def _describe_queries(response: Any) -> _Answer:
    group = response._get_param("logGroupName")  # noqa: SLF001
    status = response._get_param("status")  # noqa: SLF001
    size = response._get_param("maxResults") or MAX_DESCRIBED  # noqa: SLF001
    token = response._get_param("nextToken") or "0"  # noqa: SLF001
    if not 1 <= size <= MAX_DESCRIBED or not token.isdecimal():
        raise InvalidParameterException("maxResults or nextToken is not valid")
    found = [
        query
        for query in reversed(response.logs_backend.queries.values())
        if (group is None or group in query.groups) and (status is None or status == query.status)
    ]
    first = int(token)
    answer: dict[str, Any] = {
        "queries": [
            {
                "queryLanguage": "CWLI",
                "queryId": query.id,
                "queryString": query.text,
                "status": query.status,
                "createTime": int(query.started_s * 1000),
                "logGroupName": group or query.groups[0],
            }
            for query in found[first : first + size]
        ]
    }
    if first + size < len(found):
        answer["nextToken"] = str(first + size)
    return answer


def _get_log_record(response: Any) -> _Answer:
    pointer = response._get_param("logRecordPointer") or ""  # noqa: SLF001
    try:
        group, stream, number = json.loads(base64.b64decode(pointer, validate=True))
    except (binascii.Error, ValueError, TypeError):
        raise InvalidParameterException("the logRecordPointer is not valid") from None
    for _, event in _stored(response, group, stream=stream, number=number):
        fields = {**event.discovered_fields, **event.system_fields}
        # Times are numbers in a record.
        return {
            "logRecord": {
                name: str(int(value)) if isinstance(value, Timestamp) else printed(value)
                for name, value in fields.items()
            }
        }
    raise ResourceNotFoundException("The specified log record does not exist.")


# ---- what they are asked, and what moto has ----------------------------------------------------------------


def _query(response: Any) -> Query:
    found = response.logs_backend.queries.get(response._get_param("queryId"))  # noqa: SLF001
    if not isinstance(found, Query):
        raise ResourceNotFoundException("The specified query does not exist.")
    return found


def _seconds(response: Any, name: str) -> int:
    value = response._get_param(name)  # noqa: SLF001
    if not isinstance(value, int) or not 0 <= value < _FIRST_IN_MILLISECONDS:
        raise InvalidParameterException(f"{name} is {value}; it must be in seconds since 1970")
    return value


def _group_names(response: Any) -> tuple[str, ...]:
    """Read which groups are asked, which exactly one parameter names, or lists as ARNs."""
    one, names, identifiers = (
        response._get_param(name)  # noqa: SLF001
        for name in ("logGroupName", "logGroupNames", "logGroupIdentifiers")
    )
    given = [groups for groups in ([one] if one else None, names, identifiers) if groups]
    if len(given) != 1:
        raise InvalidParameterException(
            "exactly one of logGroupName, logGroupNames and logGroupIdentifiers must be given"
        )
    groups = [name.split(":log-group:", 1)[-1] for name in given[0]]
    if len(groups) > MAX_LOG_GROUPS:
        raise InvalidParameterException(f"{len(groups)} log groups; there may be {MAX_LOG_GROUPS}")
    for name in groups:
        if name not in response.logs_backend.groups:
            raise ResourceNotFoundException(f"Log group '{name}' does not exist")
    return tuple(dict.fromkeys(groups))


def _stored(
    response: Any,
    group: str,
    start_ms: int = 0,
    end_ms: int = 10**18,
    *,
    stream: str | None = None,
    number: int | None = None,
) -> Iterator[tuple[int, Event]]:
    """Walk the events of a group that moto keeps, with the number of their order of ingestion."""
    found = response.logs_backend.groups.get(group)
    for name, kept in list(found.streams.items()) if found else ():
        if stream is not None and name != stream:
            continue
        for event in list(kept.events):
            if not start_ms <= event.timestamp <= end_ms or number not in (None, event.event_id):
                continue
            pointer = base64.b64encode(json.dumps([group, name, event.event_id]).encode()).decode()
            yield (
                event.event_id,
                Event(
                    timestamp=event.timestamp,
                    message=event.message,
                    log_stream=name,
                    log_group=group,
                    ingestion_time=event.ingestion_time,
                    account=response.current_account,
                    pointer=pointer,
                ),
            )
