"""Requests become the events that API Gateway sends, and answers become what it would respond."""

from __future__ import annotations

import base64
import http.client
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from typing import Any

import pytest
from onemachine.functions import MAX_PAYLOAD_BYTES, Result, ThrottledError
from onemachine.http_api import (
    INTERNAL_SERVER_ERROR,
    MAX_REQUEST_BYTES,
    Cors,
    HttpApi,
    Route,
    Throttle,
    find_route,
    request_event,
    response_of,
)
from onemachine.http_messages import Request

NOW = datetime(2026, 11, 20, 19, 3, 58, 390000, tzinfo=UTC)

ROUTES = [
    Route("ANY", "/{proxy+}", "rest"),
    Route("ANY", "/", "root"),
    Route("GET", "/downloads/{id}", "one"),
    Route("ANY", "/downloads/{id}", "one of any"),
    Route("GET", "/downloads/new", "new"),
    Route("GET", "/downloads/{id}/files/{name+}", "files"),
    Route("GET", "/download/usage", "usage"),
]

CHOICES = [
    ("GET", "/download/usage", "usage", {}),
    ("POST", "/download/usage", "rest", {"proxy": "download/usage"}),
    ("GET", "/download/usage/", "rest", {"proxy": "download/usage/"}),
    ("GET", "/downloads/new", "new", {}),
    ("DELETE", "/downloads/new", "one of any", {"id": "new"}),
    ("GET", "/downloads/a%20b%2Fc", "one", {"id": "a b/c"}),
    ("GET", "/downloads/", "rest", {"proxy": "downloads/"}),
    ("GET", "/downloads/7/files/x/y.zip", "files", {"id": "7", "name": "x/y.zip"}),
    ("GET", "/", "root", {}),
    ("GET", "/anything/else", "rest", {"proxy": "anything/else"}),
]


@pytest.mark.parametrize(("method", "path", "function", "parameters"), CHOICES)
def test_the_most_specific_route_is_taken(
    method: str, path: str, function: str, parameters: dict[str, str]
) -> None:
    found = find_route(ROUTES, method, path)
    assert found is not None
    assert (found[0].function, found[1]) == (function, parameters)


def test_the_default_route_takes_what_no_other_takes() -> None:
    for path in ("$default", "/$default"):
        routes = [Route("ANY", path, "default"), Route("ANY", "/{proxy+}", "rest")]
        chosen = [find_route(routes, "GET", target) for target in ("/a", "/")]
        assert [found and (found[0].function, found[1]) for found in chosen] == [
            ("rest", {"proxy": "a"}),
            ("default", {}),
        ]
        event = event_of(Request("GET", "/", [], b"", "127.0.0.1"), routes[0])
        assert event["routeKey"] == event["requestContext"]["routeKey"] == "$default"


def test_a_path_without_a_route_is_not_found() -> None:
    assert find_route([Route("GET", "/a", "a"), Route("GET", "/b/{rest+}", "b")], "GET", "/b") is None


def event_of(request: Request, route: Route = ROUTES[0], parameters: dict[str, str] | None = None) -> Any:
    return request_event(request, route, parameters or {}, "abc123", NOW)


def test_a_request_is_an_event_of_payload_format_2() -> None:
    request = Request(
        "GET",
        "/downloads/a%20b?day=1&day=2&name=x%26y&empty=",
        [
            ("Host", "127.0.0.1:8080"),
            ("User-Agent", "agent/1"),
            ("X-Twice", "a"),
            ("x-twice", "b"),
            ("Cookie", "one=1; two=2"),
            ("X-Amzn-Trace-Id", "Root=1-0-0"),
        ],
        b"",
        "127.0.0.1",
    )
    event = event_of(request, ROUTES[2], {"id": "a b"})
    assert event["requestContext"].pop("requestId")
    assert event == {
        "version": "2.0",
        "routeKey": "GET /downloads/{id}",
        "rawPath": "/downloads/a b",
        "rawQueryString": "day=1&day=2&name=x%26y&empty=",
        "cookies": ["one=1", "two=2"],
        "headers": {
            "host": "127.0.0.1:8080",
            "user-agent": "agent/1",
            "x-twice": "a,b",
            "x-amzn-trace-id": "Root=1-0-0",
            "x-forwarded-for": "127.0.0.1",
            "x-forwarded-port": "8080",
            "x-forwarded-proto": "http",
        },
        "queryStringParameters": {"day": "1,2", "name": "x&y", "empty": ""},
        "pathParameters": {"id": "a b"},
        "requestContext": {
            "accountId": "123456789012",
            "apiId": "abc123",
            "domainName": "127.0.0.1:8080",
            "domainPrefix": "abc123",
            "http": {
                "method": "GET",
                "path": "/downloads/a b",
                "protocol": "HTTP/1.1",
                "sourceIp": "127.0.0.1",
                "userAgent": "agent/1",
            },
            "routeKey": "GET /downloads/{id}",
            "stage": "$default",
            "time": "20/Nov/2026:19:03:58 +0000",
            "timeEpoch": 1795201438390,
        },
        "isBase64Encoded": False,
    }


BODIES = [
    ("application/json", b'{"a":"\xc3\xa9"}', '{"a":"é"}', False),
    ("application/problem+json; charset=utf-8", b"{}", "{}", False),
    ("text/plain", b"\xff", "/w==", True),
    ("application/x-www-form-urlencoded", b"a=1", "YT0x", True),
    ("application/octet-stream", b"abc", "YWJj", True),
]


@pytest.mark.parametrize(("content_type", "body", "text", "is_base64"), BODIES)
def test_only_what_is_known_as_text_is_passed_on_as_text(
    content_type: str, body: bytes, text: str, is_base64: bool
) -> None:
    event = event_of(Request("POST", "/x", [("Content-Type", content_type)], body, "127.0.0.1"))
    assert (event["body"], event["isBase64Encoded"]) == (text, is_base64)


JSON_TYPE = ("content-type", "application/json")
PLAIN_TYPE = ("content-type", "text/plain;charset=UTF-8")

ANSWERS: list[tuple[Any, int, list[tuple[str, str]], bytes]] = [
    ({"statusCode": 204}, 204, [PLAIN_TYPE], b""),
    ({"statusCode": "201", "body": "é"}, 201, [PLAIN_TYPE], "é".encode()),
    (
        {"statusCode": 200, "headers": {"Content-Type": "text/csv", "X-N": 3}, "cookies": ["a=1", "b=2"]},
        200,
        [("content-type", "text/csv"), ("x-n", "3"), ("set-cookie", "a=1"), ("set-cookie", "b=2")],
        b"",
    ),
    ({"statusCode": 200, "body": "AAH/", "isBase64Encoded": True}, 200, [PLAIN_TYPE], b"\x00\x01\xff"),
    ({"message": "hello"}, 200, [JSON_TYPE], b'{"message": "hello"}'),
    ("hello", 200, [JSON_TYPE], b"hello"),
    ([1, 2], 200, [JSON_TYPE], b"[1, 2]"),
    (None, 200, [JSON_TYPE], b"null"),
]


@pytest.mark.parametrize(("answer", "status", "headers", "body"), ANSWERS)
def test_an_answer_becomes_a_response(
    answer: Any, status: int, headers: list[tuple[str, str]], body: bytes
) -> None:
    response = response_of(Result(json.dumps(answer).encode(), None, "id"))
    assert (response.status, response.headers, response.body) == (status, headers, body)


BAD_ANSWERS: list[Any] = [
    {"statusCode": "many"},
    {"statusCode": 99},
    {"statusCode": None},
    {"statusCode": 200, "body": {"not": "a string"}},
    {"statusCode": 200, "body": "?", "isBase64Encoded": True},
    {"statusCode": 200, "headers": ["x"]},
    {"statusCode": 200, "headers": {"x": "a\r\nset-cookie: b"}},
]


@pytest.mark.parametrize("answer", BAD_ANSWERS)
def test_a_malformed_answer_is_an_internal_server_error(answer: Any) -> None:
    assert response_of(Result(json.dumps(answer).encode(), None, "id")) == INTERNAL_SERVER_ERROR


def test_a_function_that_failed_is_an_internal_server_error() -> None:
    assert response_of(Result(b'{"statusCode": 200}', "Unhandled", "id")) == INTERNAL_SERVER_ERROR


# --- other origins, throttles and time --------------------------------------------------------------------

CORS = Cors(
    origins=("https://app.example.com", "http://*"),
    methods=("GET", "PUT"),
    headers=("X-Key", "content-type"),
    exposed=("x-next",),
    max_age_s=600,
    credentials=True,
)
ANYBODY = Cors(("*",), ("*",), ("*",))
APP = "https://app.example.com"

# https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-cors.html
PREFLIGHTS: list[tuple[str, Cors, dict[str, str], dict[str, str]]] = [
    (
        "all that is allowed",
        CORS,
        {"Origin": APP, "Access-Control-Request-Method": "PUT", "Access-Control-Request-Headers": "x-key"},
        {
            "access-control-allow-origin": APP,
            "access-control-allow-credentials": "true",
            "access-control-expose-headers": "x-next",
            "access-control-allow-methods": "GET,PUT",
            "access-control-allow-headers": "X-Key,content-type",
            "access-control-max-age": "600",
        },
    ),
    ("another origin", CORS, {"Origin": "https://x.org", "Access-Control-Request-Method": "GET"}, {}),
    ("another method", CORS, {"Origin": APP, "Access-Control-Request-Method": "DELETE"}, {}),
    (
        "another header",
        CORS,
        {
            "Origin": APP,
            "Access-Control-Request-Method": "GET",
            "Access-Control-Request-Headers": "x-key, x-b",
        },
        {},
    ),
    (
        "anybody",
        ANYBODY,
        {"Origin": APP, "Access-Control-Request-Method": "PATCH", "Access-Control-Request-Headers": "x"},
        {
            "access-control-allow-origin": "*",
            "access-control-allow-methods": "*",
            "access-control-allow-headers": "*",
        },
    ),
]


@pytest.mark.parametrize(
    ("cors", "given", "expected"), [case[1:] for case in PREFLIGHTS], ids=[case[0] for case in PREFLIGHTS]
)
def test_a_preflight_is_answered_without_a_route(
    cors: Cors, given: dict[str, str], expected: dict[str, str]
) -> None:
    api = HttpApi([], echo, cors=cors)
    response = api.answer(Request("OPTIONS", "/x", list(given.items()), b"", "127.0.0.1"))
    assert (response.status, dict(response.headers)) == (204, expected)


def test_options_without_a_question_is_a_request() -> None:
    api = HttpApi([Route("ANY", "/x", "x")], echo, cors=ANYBODY)
    assert api.answer(Request("OPTIONS", "/x", [("Origin", APP)], b"", "127.0.0.1")).status == 200


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [(APP, APP), ("http://any.org", "http://any.org"), ("https://x.org", None), (None, None)],
)
def test_the_api_says_who_may_read_a_response_and_not_the_function(
    origin: str | None, allowed: str | None
) -> None:
    def own(*_: object) -> Result:
        headers = {"Access-Control-Allow-Origin": "own", "x-next": "2"}
        return Result(json.dumps({"statusCode": 200, "headers": headers}).encode(), None, "id")

    api = HttpApi([Route("GET", "/x", "x")], own, cors=CORS)
    given = [("origin", origin)] if origin else []
    headers = dict(api.answer(Request("GET", "/x", given, b"", "127.0.0.1")).headers)
    assert (headers.get("access-control-allow-origin"), headers["x-next"]) == (allowed, "2")
    bare = HttpApi([Route("GET", "/x", "x")], own)
    assert dict(bare.answer(Request("GET", "/x", given, b"", "127.0.0.1")).headers)[
        "access-control-allow-origin"
    ] == ("own")


def test_credentials_are_not_for_anybody() -> None:
    with pytest.raises(ValueError, match="does not go with"):
        Cors(("*",), credentials=True)


def test_requests_beyond_the_throttle_are_refused() -> None:
    seconds = [100.0]
    api = HttpApi([Route("GET", "/x", "x")], echo, throttle=Throttle(2, 3), clock_s=lambda: seconds[0])

    def statuses(requests: int) -> list[int]:
        return [api.answer(Request("GET", "/x", [], b"", "127.0.0.1")).status for _ in range(requests)]

    assert statuses(4) == [200, 200, 200, 429]
    seconds[0] += 1
    assert statuses(3) == [200, 200, 429]
    seconds[0] += 100
    assert statuses(4) == [200, 200, 200, 429]


def test_a_route_with_its_own_throttle_takes_nothing_from_the_others() -> None:
    api = HttpApi(
        [Route("GET", "/x", "x"), Route("GET", "/open", "x")],
        echo,
        throttle=Throttle(1, 2),
        route_throttles={"GET /open": Throttle(1, 3)},
        clock_s=lambda: 100.0,
    )

    def statuses(path: str) -> list[int]:
        return [api.answer(Request("GET", path, [], b"", "127.0.0.1")).status for _ in range(5)]

    assert statuses("/open").count(200) == 3
    assert statuses("/x").count(200) == 2


def test_a_function_that_takes_too_long_or_is_throttled_is_unavailable() -> None:
    done = threading.Event()

    def slow(function: str, _: bytes) -> Result:
        if function == "throttled":
            raise ThrottledError(function, 1, "ReservedFunctionConcurrentInvocationLimitExceeded")
        done.wait(60)
        return Result(b"null", None, "id")

    api = HttpApi([Route("GET", "/slow", "slow"), Route("GET", "/x", "throttled")], slow, timeout_s=0.01)
    for path in ("/slow", "/x"):
        response = api.answer(Request("GET", path, [], b"", "127.0.0.1"))
        assert (response.status, response.body) == (503, b'{"message":"Service Unavailable"}')
    done.set()
    api.stop()


# --- over the wire ----------------------------------------------------------------------------------------


def echo(function: str, payload: bytes) -> Result:
    """Answer with the event, as a function would that shows what it got."""
    if function == "raises":
        raise KeyError(function)
    if function == "fails":
        return Result(b'{"errorType":"E"}', "Unhandled", "id")
    body = json.dumps({"function": function, "event": json.loads(payload)})
    return Result(json.dumps({"statusCode": 200, "body": body}).encode(), None, "id")


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    api = HttpApi([Route("GET", "/fails", "fails"), Route("GET", "/raises", "raises"), *ROUTES[1:]], echo)
    yield api.start()
    api.stop()


Ask = Callable[..., tuple[int, dict[str, str], bytes]]


@pytest.fixture
def ask(port: int) -> Iterator[Ask]:
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as connection:

        def ask(
            method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
        ) -> tuple[int, dict[str, str], bytes]:
            connection.request(method, path, body, headers or {})
            response = connection.getresponse()
            return response.status, dict(response.getheaders()), response.read()

        yield ask


def test_many_requests_of_one_connection_are_answered(ask: Ask) -> None:
    for number in range(50):
        status, headers, body = ask("GET", f"/downloads/{number}", headers={"Cookie": "a=1"})
        answer = json.loads(body)
        assert status == 200
        assert headers["content-length"] == str(len(body))
        assert answer["function"] == "one"
        assert answer["event"]["pathParameters"] == {"id": str(number)}
        assert answer["event"]["cookies"] == ["a=1"]


def test_bodies_arrive(ask: Ask) -> None:
    status, _, body = ask("PUT", "/downloads/new", b'{"a":1}', {"Content-Type": "application/json"})
    assert status == 200
    assert json.loads(body)["event"]["body"] == '{"a":1}'


REFUSALS = [
    ("/nowhere/to/be/found", 404, {"message": "Not Found"}),
    ("/fails", 500, {"message": "Internal Server Error"}),
    ("/raises", 500, {"message": "Internal Server Error"}),
]


@pytest.mark.parametrize(("path", "status", "message"), REFUSALS)
def test_the_service_answers_where_no_function_can(
    ask: Ask, path: str, status: int, message: dict[str, str]
) -> None:
    answered, headers, body = ask("GET", path)
    assert (answered, json.loads(body)) == (status, message)
    assert headers["content-type"] == "application/json"


def test_head_has_the_length_but_no_body(ask: Ask) -> None:
    status, headers, body = ask("HEAD", "/")
    assert (status, body) == (200, b"")
    assert int(headers["content-length"]) > 0
    assert ask("GET", "/")[0] == 200


def test_a_request_is_refused_beyond_10_mb(port: int) -> None:
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
        connection.putrequest("PUT", "/downloads/new")
        connection.putheader("Content-Length", str(MAX_REQUEST_BYTES + 1))
        connection.endheaders()
        response = connection.getresponse()
        assert (response.status, response.read()) == (413, b'{"message":"Request Entity Too Large"}')


def test_a_body_of_unknown_length_is_refused(port: int) -> None:
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
        connection.putrequest("PUT", "/downloads/new")
        connection.putheader("Transfer-Encoding", "chunked")
        connection.endheaders()
        assert connection.getresponse().status == 411


def test_an_event_may_be_as_large_as_lambda_takes_and_no_larger() -> None:
    sizes = []

    def measure(_: str, payload: bytes) -> Result:
        sizes.append(len(payload))
        return Result(b"null", None, "id")

    api = HttpApi([Route("PUT", "/x", "x")], measure)
    kind = ("Content-Type", "text/plain")
    api.answer(Request("PUT", "/x", [kind], b"a", "127.0.0.1"))
    # The request id is as long in every event, and so is all but the body.
    fits = MAX_PAYLOAD_BYTES - sizes[0] + 1
    assert api.answer(Request("PUT", "/x", [kind], b"a" * fits, "127.0.0.1")).status == 200
    assert sizes[1] == MAX_PAYLOAD_BYTES
    assert api.answer(Request("PUT", "/x", [kind], b"a" * (fits + 1), "127.0.0.1")).status == 413


def test_several_apis_run_side_by_side_and_stop_while_clients_are_connected() -> None:
    first, second = HttpApi([Route("GET", "/", "a")], echo), HttpApi([Route("GET", "/", "b")], echo)
    ports = [first.start(), second.start()]
    connections = [http.client.HTTPConnection("127.0.0.1", port, timeout=60) for port in ports]

    def function_behind(connection: http.client.HTTPConnection) -> str:
        connection.request("GET", "/")
        return str(json.loads(connection.getresponse().read())["function"])

    assert [function_behind(connection) for connection in connections] == ["a", "b"]
    first.stop()
    second.stop()
    for connection in connections:
        with closing(connection), pytest.raises((http.client.HTTPException, OSError)):
            function_behind(connection)


def test_binary_bodies_survive_both_ways() -> None:
    def reverse(_: str, payload: bytes) -> Result:
        event = json.loads(payload)
        data = base64.b64decode(event["body"])[::-1]
        answer = {"statusCode": 200, "body": base64.b64encode(data).decode(), "isBase64Encoded": True}
        return Result(json.dumps(answer).encode(), None, "id")

    api = HttpApi([Route("POST", "/", "reverse")], reverse)
    response = api.answer(
        Request("POST", "/", [("content-type", "application/zip")], bytes(range(256)), "127.0.0.1")
    )
    assert response.body == bytes(range(256))[::-1]
