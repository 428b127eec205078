"""Logs Insights' operations as boto3 sees them, over log events that moto stores.

The documented behaviour is that of
https://docs.aws.amazon.com/AmazonCloudWatchLogs/latest/APIReference/ (API_StartQuery and its neighbours).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import boto3
import pytest
import requests
from botocore.exceptions import ClientError
from moto.logs.responses import LogsResponse
from moto.server import ThreadedMotoServer
from onemachine import logs as cloudwatch_logs
from onemachine.insights import QueryFailedError, ask, install

GROUPS = ("/aws/lambda/shop", "/app")
REQUEST = "f612fbaf-65ce-4fd2-8d1b-6718fcb0b269"
# A whole second, so that the ends of a range can be met exactly.
START_S = 1_795_168_800
NOW_S = START_S + 50


@pytest.fixture(scope="module")
def logs() -> Iterator[Any]:
    moto_s_own = dict(vars(LogsResponse))
    install(lambda: float(NOW_S))
    # Only what is about now is taken, by the clock that was installed last: another module's, without this.
    cloudwatch_logs.install(lambda: NOW_S * 10**9)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    requests.post(f"http://{host}:{port}/moto-api/reset", timeout=60)  # what other modules left
    client = boto3.client("logs", endpoint_url=f"http://{host}:{port}")
    for group in GROUPS:
        client.create_log_group(logGroupName=group)
        client.create_log_stream(logGroupName=group, logStreamName="s")
    put(client, GROUPS[0], (0, f'{START_S}\t{REQUEST}\tINFO\t{{"route": "/a", "n": 1}}'))
    put(client, GROUPS[1], (1_000, '{"route": "/b", "n": 2, "text": "<RequestId>"}'))
    put(client, GROUPS[0], (2_000, '{"route": "/a", "n": 3}'), (2_001, "too late"))
    yield client
    client.close()
    server.stop()
    for name in ("stop_query", "get_log_record"):  # moto has none of its own
        delattr(LogsResponse, name)
    for name, value in moto_s_own.items():
        if callable(value):
            setattr(LogsResponse, name, value)


def put(client: Any, group: str, *events: tuple[int, str]) -> None:
    client.put_log_events(
        logGroupName=group,
        logStreamName="s",
        logEvents=[
            {"timestamp": START_S * 1000 + after_ms, "message": message} for after_ms, message in events
        ],
    )


def start(client: Any, query: str, **more: Any) -> str:
    parameters = {"logGroupNames": list(GROUPS), "startTime": START_S, "endTime": START_S + 2, **more}
    started: str = client.start_query(
        queryString=query, **{name: value for name, value in parameters.items() if value is not None}
    )["queryId"]
    return started


def results(client: Any, query: str, **more: Any) -> list[list[tuple[str, str]]]:
    answer = client.get_query_results(queryId=start(client, query, **more))
    assert answer["status"] == "Complete"
    return [[(cell["field"], cell["value"]) for cell in row] for row in answer["results"]]


def test_a_query_is_answered_from_several_groups_newest_first(logs: Any) -> None:
    found = results(logs, "fields route, n, @log")
    assert [row[:-1] for row in found] == [
        [("route", "/a"), ("n", "3"), ("@log", f"123456789012:{GROUPS[0]}")],
        [("route", "/b"), ("n", "2"), ("@log", f"123456789012:{GROUPS[1]}")],
        [("route", "/a"), ("n", "1"), ("@log", f"123456789012:{GROUPS[0]}")],
    ]
    assert [row[-1][0] for row in found] == ["@ptr"] * 3


@pytest.mark.parametrize(
    ("start_s", "end_s", "numbers"),
    [
        (0, 2, ["3", "2", "1"]),
        (1, 2, ["3", "2"]),
        (0, 1, ["2", "1"]),
        (1, 1, ["2"]),
        (3, 4, []),
    ],
)
def test_both_ends_of_the_range_are_in_it(logs: Any, start_s: int, end_s: int, numbers: list[str]) -> None:
    found = results(logs, "display n", startTime=START_S + start_s, endTime=START_S + end_s)
    assert [row[0][1] for row in found] == numbers


@pytest.mark.parametrize(
    "groups",
    [
        {"logGroupNames": None, "logGroupName": GROUPS[1]},
        {"logGroupNames": None, "logGroupIdentifiers": [GROUPS[1]]},
        {
            "logGroupNames": None,
            "logGroupIdentifiers": [f"arn:aws:logs:us-east-1:123456789012:log-group:{GROUPS[1]}"],
        },
    ],
)
def test_groups_are_named_in_any_of_three_ways(logs: Any, groups: dict[str, Any]) -> None:
    assert results(logs, "stats sum(n) as n", **groups) == [[("n", "2")]]


def test_statistics_come_with_the_results(logs: Any) -> None:
    answer = logs.get_query_results(queryId=start(logs, "filter n > 1 | limit 1"))
    sizes = len(f'{START_S}\t{REQUEST}\tINFO\t{{"route": "/a", "n": 1}}') + 46 + 23
    assert answer["queryLanguage"] == "CWLI"
    assert answer["statistics"] == {
        "recordsMatched": 2.0,
        "recordsScanned": 3.0,
        "estimatedRecordsSkipped": 0.0,
        "bytesScanned": float(sizes),
        "estimatedBytesSkipped": 0.0,
        "logGroupsScanned": 2.0,
    }


def test_results_come_in_pages(logs: Any) -> None:
    query = start(logs, "display n")
    first = logs.get_query_results(queryId=query, maxItems=2)
    second = logs.get_query_results(queryId=query, maxItems=2, nextToken=first["nextToken"])
    assert [len(page["results"]) for page in (first, second)] == [2, 1]
    assert "nextToken" not in second


def test_the_parameter_limit_is_as_a_limit_after_the_query(logs: Any) -> None:
    assert len(results(logs, "display n", limit=1)) == 1
    assert len(results(logs, "display n | limit 2", limit=3)) == 2


def test_now_is_the_clock_s(logs: Any) -> None:
    assert results(logs, "stats max(n) as n, now() as t")[0][-1] == ("t", str(NOW_S))


def test_a_query_answers_what_was_there_when_it_was_started(logs: Any) -> None:
    logs.create_log_group(logGroupName="growing")
    logs.create_log_stream(logGroupName="growing", logStreamName="s")
    query = start(logs, "display @message", logGroupNames=["growing"])
    put(logs, "growing", (1_500, "later"))
    assert logs.get_query_results(queryId=query)["results"] == []
    assert len(results(logs, "display @message", logGroupNames=["growing"])) == 1


def test_a_pointer_leads_to_the_whole_event(logs: Any) -> None:
    """GetLogRecord: all fields are retrieved, the unparsed event is in @message."""
    ((_, (_, pointer)),) = results(logs, "fields n | filter n = 1")
    record = logs.get_log_record(logRecordPointer=pointer)["logRecord"]
    assert record == {
        "@ptr": pointer,
        "@message": f'{START_S}\t{REQUEST}\tINFO\t{{"route": "/a", "n": 1}}',
        "@timestamp": str(START_S * 1000),
        "@ingestionTime": record["@ingestionTime"],
        "@log": f"123456789012:{GROUPS[0]}",
        "@logStream": "s",
        "@requestId": REQUEST,
        "route": "/a",
        "n": "1",
    }


def test_a_query_runs_until_its_results_are_asked_for_and_can_be_stopped(logs: Any) -> None:
    query = start(logs, "display n")
    assert query in [described["queryId"] for described in logs.describe_queries(status="Running")["queries"]]
    assert logs.stop_query(queryId=query)["success"] is True
    answer = logs.get_query_results(queryId=query)
    assert (answer["status"], answer["results"]) == ("Cancelled", [])
    with pytest.raises(logs.exceptions.InvalidParameterException, match="is not running"):
        logs.stop_query(queryId=query)


def test_queries_are_described_newest_first(logs: Any) -> None:
    ids = [start(logs, f"limit {number}", logGroupNames=[GROUPS[1]]) for number in (1, 2)]
    logs.get_query_results(queryId=ids[0])
    page = logs.describe_queries(logGroupName=GROUPS[1], maxResults=1)
    (described,) = page["queries"]
    assert described == {
        "queryLanguage": "CWLI",
        "queryId": ids[1],
        "queryString": "limit 2",
        "status": "Running",
        "createTime": NOW_S * 1000,
        "logGroupName": GROUPS[1],
    }
    following = logs.describe_queries(logGroupName=GROUPS[1], maxResults=1, nextToken=page["nextToken"])
    assert following["queries"][0]["queryId"] == ids[0]
    complete = logs.describe_queries(logGroupName=GROUPS[1], status="Complete")["queries"]
    assert complete[0]["queryId"] == ids[0]


def test_a_malformed_query_is_refused_with_its_part(logs: Any) -> None:
    with pytest.raises(logs.exceptions.MalformedQueryException) as refusal:
        start(logs, "fields a | count()")
    assert refusal.value.response["Error"] == {
        "Code": "MalformedQueryException",
        "Message": "unexpected symbol found count at line 1 and position 11",
    }
    assert refusal.value.response["queryCompileError"] == {
        "location": {"startCharOffset": 11, "endCharOffset": 16},
        "message": "unexpected symbol found count at line 1 and position 11",
    }


@pytest.mark.parametrize(
    ("parameters", "code"),
    [
        ({"logGroupNames": ["missing"]}, "ResourceNotFoundException"),
        ({"logGroupName": GROUPS[0]}, "InvalidParameterException"),
        ({"logGroupNames": None}, "InvalidParameterException"),
        ({"logGroupNames": [f"g{number}" for number in range(51)]}, "InvalidParameterException"),
        ({"endTime": START_S - 1}, "InvalidParameterException"),
        ({"startTime": START_S * 1000}, "InvalidParameterException"),
        ({"limit": 100_001}, "InvalidParameterException"),
        ({"queryLanguage": "SQL"}, "InvalidParameterException"),
    ],
)
def test_what_start_query_does_not_take_is_refused(logs: Any, parameters: dict[str, Any], code: str) -> None:
    with pytest.raises(ClientError) as refusal:
        start(logs, "limit 1", **parameters)
    assert refusal.value.response["Error"]["Code"] == code


@pytest.mark.parametrize("operation", ["get_query_results", "stop_query"])
def test_a_query_that_is_not_there_is_not_found(logs: Any, operation: str) -> None:
    with pytest.raises(logs.exceptions.ResourceNotFoundException):
        getattr(logs, operation)(queryId="none")


def test_a_pointer_to_nothing_is_refused(logs: Any) -> None:
    with pytest.raises(logs.exceptions.InvalidParameterException):
        logs.get_log_record(logRecordPointer="nonsense")
    with pytest.raises(logs.exceptions.ResourceNotFoundException):
        logs.get_log_record(logRecordPointer="WyJhIiwgImIiLCAxXQ==")  # ["a", "b", 1]


def test_a_query_that_meets_a_map_where_none_may_be_fails(logs: Any) -> None:
    query = start(logs, "fields jsonParse('[{}]') as j | unnest j into item | sort item")
    assert logs.get_query_results(queryId=query)["status"] == "Failed"


# ---- asking and waiting ------------------------------------------------------------------------------------


def test_ask_gives_rows_by_name_without_their_pointers(logs: Any) -> None:
    answer = ask(logs, "fields route, n | sort n asc", groups=GROUPS, start_s=START_S, end_s=START_S + 2)
    assert answer.rows == (
        {"route": "/a", "n": "1"},
        {"route": "/b", "n": "2"},
        {"route": "/a", "n": "3"},
    )
    assert answer.columns() == ("route", "n")
    assert (answer.matched, answer.scanned) == (3, 3)


@dataclass
class SlowLogs:
    """A client of a service that takes its time, and answers in two pages."""

    ends_as: str = "Complete"
    looks: int = 0

    def start_query(self, **_parameters: Any) -> dict[str, Any]:
        return {"queryId": "q"}

    def get_query_results(self, queryId: str, nextToken: str | None = None) -> dict[str, Any]:  # noqa: N803
        assert queryId == "q"
        self.looks += 1
        if self.looks <= 2:
            return {"status": ("Scheduled", "Running")[self.looks - 1], "results": []}
        row = [{"field": "n", "value": nextToken or "1"}, {"field": "@ptr", "value": "p"}]
        more = {} if nextToken else {"nextToken": "2"}
        return {"status": self.ends_as, "results": [row], "statistics": {"recordsMatched": 2.0}, **more}


def test_ask_waits_and_reads_all_pages() -> None:
    waited: list[float] = []
    answer = ask(SlowLogs(), "fields n", groups=["g"], start_s=0, end_s=1, sleep=waited.append)
    assert answer.rows == ({"n": "1"}, {"n": "2"})
    assert answer.matched == 2
    assert len(waited) == 2


@pytest.mark.parametrize("status", ["Failed", "Cancelled", "Timeout"])
def test_ask_says_how_a_query_ended_without_rows(status: str) -> None:
    with pytest.raises(QueryFailedError, match=status):
        ask(SlowLogs(status), "fields n", groups=["g"], start_s=0, end_s=1, sleep=lambda _s: None)
