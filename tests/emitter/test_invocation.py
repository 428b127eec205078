"""What the event and the context tell: who was asked, by what, and what the client saw."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tagline
from tagline import Emitter, add, correlation_id, outgoing_headers, read

from tests.builders import http_event, kinesis_event, sqs_event
from tests.emitter.lines import Lines


def nothing(_event: Any, _context: Any) -> None:
    """Answer nothing."""


def seven(_event: Any, _context: Any) -> int:
    return 7


# --- what the client saw ----------------------------------------------------------------------------------

HTTP_API = http_event("GET /pets/{id}", "/pets/7")
CATCH_ALL = {**HTTP_API, "routeKey": "$default"}
# https://docs.aws.amazon.com/lambda/latest/dg/urls-invocation.html
URL = {
    **CATCH_ALL,
    "requestContext": {**HTTP_API["requestContext"], "domainName": "abc.lambda-url.us-east-1.on.aws"},
}
# https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-develop-integrations-lambda.html
HTTP_API_1 = {
    "version": "1.0",
    "httpMethod": "POST",
    "resource": "/pets",
    "path": "/pets",
    "requestContext": {"apiId": "api-id"},
}
# https://docs.aws.amazon.com/apigateway/latest/developerguide/set-up-lambda-proxy-integrations.html
REST = {"httpMethod": "GET", "resource": "/pets/{id}", "path": "/pets/7", "requestContext": {"stage": "prod"}}
PROXY = {**REST, "resource": "/{proxy+}"}
# https://docs.aws.amazon.com/elasticloadbalancing/latest/application/lambda-functions.html
BALANCER = {"httpMethod": "GET", "path": "/pets/7", "requestContext": {"elb": {"targetGroupArn": "arn"}}}
# https://docs.aws.amazon.com/apigateway/latest/developerguide/apigateway-websocket-api-mapping-template-reference.html
SOCKET = {"requestContext": {"routeKey": "$connect", "eventType": "CONNECT", "connectionId": "c"}}
# https://docs.aws.amazon.com/vpc-lattice/latest/ug/lambda-functions.html
LATTICE = {"version": "2.0", "method": "GET", "path": "/pets/7", "requestContext": {"serviceArn": "arn"}}
LATTICE_1 = {"raw_path": "/pets/7?page=1", "method": "GET", "headers": {}, "is_base64_encoded": False}

# Event; method, route and path; the status of an answer without one, and after an exception.
# https://docs.aws.amazon.com/lambda/latest/dg/services-apigateway-errors.html
SEEN: dict[str, tuple[dict[str, Any], tuple[str | None, str, str | None], int | None, int]] = {
    "HTTP API": (HTTP_API, ("GET", "/pets/{id}", "/pets/7"), 200, 500),
    "HTTP API, catch-all": (CATCH_ALL, ("GET", "$default", "/pets/7"), 200, 500),
    "HTTP API, payload 1.0": (HTTP_API_1, ("POST", "/pets", "/pets"), None, 500),
    "function URL": (URL, ("GET", "$default", "/pets/7"), 200, 502),
    "REST API": (REST, ("GET", "/pets/{id}", "/pets/7"), None, 502),
    "REST API, proxy": (PROXY, ("GET", "/{proxy+}", "/pets/7"), None, 502),
    "load balancer": (BALANCER, ("GET", "unmatched", "/pets/7"), None, 502),
    "WebSocket API": (SOCKET, (None, "$connect", None), None, 500),
    "VPC Lattice": (LATTICE, ("GET", "unmatched", "/pets/7"), None, 502),
    "VPC Lattice, version 1": (LATTICE_1, ("GET", "unmatched", "/pets/7"), None, 502),
}


@pytest.mark.parametrize("source", SEEN)
def test_status_and_route_are_what_the_client_saw(source: str, emitter: Emitter, lines: Lines) -> None:
    event, where, without_status, after_exception = SEEN[source]
    answers: list[Any] = [{"statusCode": 418}, {"pets": []}]
    handler: Any = emitter.handler(lambda _event, _context: answers.pop(0))

    handler(event, None)
    handler(event, None)
    with pytest.raises(IndexError):
        handler(event, None)

    fields = [record.fields for record in lines.records]
    assert [each.get("status") for each in fields] == [418, without_status, after_exception]
    for each in fields:
        assert (each.get("method"), each["route"], each.get("path")) == where


def test_routes_without_a_template_are_one_route(emitter: Emitter, lines: Lines) -> None:
    """A route is a dimension: one per path would be a series and a billed metric each."""
    handler = emitter.handler(nothing)
    for number in range(3):
        path = f"/pets/{number}"
        handler({**URL, "rawPath": path}, None)
        handler({**BALANCER, "path": path}, None)
        handler({**LATTICE, "path": path}, None)

    assert {record.fields["route"] for record in lines.records} == {"$default", "unmatched"}
    assert {record.fields["path"] for record in lines.records} == {"/pets/0", "/pets/1", "/pets/2"}


def test_what_the_handler_adds_wins(emitter: Emitter, lines: Lines) -> None:
    @emitter.handler
    def handler(event: Any, context: Any) -> Any:  # noqa: ARG001 - the handler's signature
        add(route="/pets/{pet}", status=418)
        return {"statusCode": 200}

    handler(HTTP_API, None)

    assert (lines.fields["route"], lines.fields["status"]) == ("/pets/{pet}", 418)


def test_powertools_resolver_gives_its_route_and_its_status(emitter: Emitter, lines: Lines) -> None:
    """As docs/how-to/powertools.md has it."""
    handlers = pytest.importorskip("aws_lambda_powertools.event_handler")
    app = handlers.APIGatewayRestResolver()

    def record_route(app: Any, next_middleware: Any) -> Any:
        add(route=app.context["_route"].path)
        return next_middleware(app)

    def not_found(_error: Any) -> Any:
        add(route="unmatched")  # Powertools' route is the path then
        return handlers.Response(status_code=404)

    app.use(middlewares=[record_route])
    app.not_found(not_found)
    app.get("/pets/<pet_id>")(lambda pet_id: {"id": pet_id})

    @emitter.handler
    def handler(event: Any, context: Any) -> Any:
        return app.resolve(event, context)

    for path in ("/pets/7", "/pets/8", "/nothing"):
        handler({**PROXY, "path": path}, SimpleNamespace())

    fields = [record.fields for record in lines.records]
    assert [each["route"] for each in fields] == ["/pets/<pet_id>", "/pets/<pet_id>", "unmatched"]
    assert [each["status"] for each in fields] == [200, 200, 404]


def test_powertools_event_classes_are_read(emitter: Emitter, lines: Lines) -> None:
    classes = pytest.importorskip("aws_lambda_powertools.utilities.data_classes")

    emitter.handler(nothing)(classes.APIGatewayProxyEventV2(HTTP_API), None)

    assert lines.fields["route"] == "/pets/{id}"


# --- other triggers ---------------------------------------------------------------------------------------

SNS = {"Records": [{"EventSource": "aws:sns", "EventVersion": "1.0", "Sns": {"Message": "m"}}]}
S3 = {"Records": [{"eventSource": "aws:s3", "s3": {"object": {"key": "k"}}}] * 2}
STREAM = {"Records": [{"eventSource": "aws:dynamodb", "eventName": "INSERT", "dynamodb": {}}] * 4}
BUS = {"id": "e1", "detail-type": "OrderPlaced", "source": "shop", "detail": {"id": "o1"}}


@pytest.mark.parametrize(
    ("event", "trigger", "count"),
    [
        (sqs_event("a", "b", "c"), "sqs", 3),
        (SNS, "sns", 1),
        (S3, "s3", 2),
        (BUS, "eventbridge", 1),
        (STREAM, "dynamodb", 4),
        (kinesis_event("", ""), "kinesis", 2),
    ],
)
def test_a_trigger_is_told_with_its_records_and_failures(
    event: dict[str, Any], trigger: str, count: int, emitter: Emitter, lines: Lines
) -> None:
    answers: list[Any] = [None, {"batchItemFailures": []}, {"batchItemFailures": [{"itemIdentifier": "1"}]}]
    handler: Any = emitter.handler(lambda _event, _context: answers.pop(0))
    for _ in range(3):
        handler(event, None)
    with pytest.raises(IndexError):
        handler(event, None)

    fields = [record.fields for record in lines.records]
    assert {(each["trigger"], each["record_count"]) for each in fields} == {(trigger, count)}
    assert [each["failure_count"] for each in fields] == [0, 0, 1, count]
    assert all("status" not in each and "route" not in each for each in fields)


def test_an_event_of_ones_own_has_no_trigger(emitter: Emitter, lines: Lines) -> None:
    emitter.handler(seven)({"Records": [], "id": 7}, None)

    assert not {"trigger", "record_count", "failure_count", "status", "route"} & lines.fields.keys()


# --- the environment --------------------------------------------------------------------------------------

COLD = """
from tagline import Emitter

for emitter in (Emitter(), Emitter()):
    for _ in range(2):
        Emitter().handler(lambda event, context: None)({}, None)
        emitter.handler(lambda event, context: None)({}, None)
"""


@pytest.mark.parametrize(
    ("started", "cold"), [("on-demand", 1), ("provisioned-concurrency", 0), ("snap-start", 1)]
)
def test_the_first_invocation_of_an_environment_is_cold_whichever_emitter_writes_it(
    started: str, cold: int
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", COLD],
        capture_output=True,
        text=True,
        check=True,
        env={
            "PYTHONPATH": str(Path(tagline.__file__).parents[1]),
            "AWS_LAMBDA_INITIALIZATION_TYPE": started,
        },
    )

    colds = [read(line).fields["cold_start"] for line in done.stdout.splitlines()]
    assert colds == [True] * cold + [False] * (8 - cold)


def test_a_record_says_which_invocation_it_is_of(
    monkeypatch: pytest.MonkeyPatch, emitter: Emitter, lines: Lines
) -> None:
    monkeypatch.setenv("_X_AMZN_TRACE_ID", "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=557abc;Sampled=1")
    context = SimpleNamespace(
        aws_request_id="r1",
        function_name="orders",
        function_version="7",
        memory_limit_in_mb="128",
        get_remaining_time_in_millis=lambda: 2_900,
    )
    handler = emitter.handler(nothing)

    handler({"headers": {"X-Correlation-Id": "c1"}}, context)
    handler({}, context)

    first, second = (dict(record.fields) for record in lines.records)
    assert first.pop("duration_ms") >= 0
    assert isinstance(first.pop("cold_start"), bool)
    assert first == {
        "request_id": "r1",
        "correlation_id": "c1",
        "trace_id": "1-5759e988-bd862e3fe1be46a994272793",
        "function_name": "orders",
        "function_version": "7",
        "memory_mb": 128,
        "remaining_ms": 2_900,
    }
    assert (second["cold_start"], second["correlation_id"]) == (False, "r1")


class Broken:
    """An event and a context that answer nothing."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise RuntimeError(name)


@pytest.mark.parametrize("event", [Broken(), {"headers": Broken()}, {"headers": [1]}, [], "text", None])
def test_an_event_or_context_of_any_kind_costs_no_request(event: Any, emitter: Emitter, lines: Lines) -> None:
    assert emitter.handler(seven)(event, Broken() if event is None else None) == 7

    assert len(lines.records) == 1


@pytest.mark.parametrize(
    ("headers", "said"),
    [
        ({"x-correlation-id": "a", "x-request-id": "b"}, "a"),
        ({"X-Request-ID": "b"}, "b"),
        ([(b"host", b"x"), (b"x-request-id", b"b")], "b"),
        ({"x-correlation-id": "two words"}, None),
        ({"x-correlation-id": "a\r\nset-cookie: x"}, None),
        ({"x-correlation-id": "x" * 129}, None),
        # https://docs.aws.amazon.com/lambda/latest/dg/services-alb.html: with multi-value headers
        ({"X-Request-Id": ["b", "c"]}, "b"),
        ({"x-request-id": [], "x-correlation-id": "a"}, "a"),
        ([(10**18, "x"), ("x-request-id", 7), (b"x-correlation-id", b"a")], "a"),
        ([("x-request-id",)], None),
        (7, None),
        ({}, None),
        (None, None),
    ],
)
def test_a_correlation_id_is_taken_if_it_can_be_handed_on(headers: Any, said: str | None) -> None:
    assert correlation_id(headers) == said


def test_a_load_balancers_headers_of_several_values_carry_a_correlation_id(
    emitter: Emitter, lines: Lines
) -> None:
    """https://docs.aws.amazon.com/elasticloadbalancing/latest/application/lambda-functions.html."""
    event = {"httpMethod": "GET", "path": "/pets", "multiValueHeaders": {"x-request-id": ["b"]}}

    emitter.handler(nothing)(event, None)

    assert (lines.fields["correlation_id"], lines.fields["route"]) == ("b", "unmatched")


def test_an_answer_that_cannot_be_asked_is_handed_on(emitter: Emitter, lines: Lines) -> None:
    class Answer(dict[str, Any]):
        def get(self, key: str, default: Any = None) -> Any:  # noqa: ARG002 - dict's signature
            raise RuntimeError("not now")

    answer = Answer(statusCode=200)

    assert (
        emitter.handler(lambda _event, _context: answer)({"httpMethod": "GET", "path": "/"}, None) is answer
    )
    assert "status" not in lines.fields


def test_an_exception_of_any_kind_is_in_the_record_and_goes_on(emitter: Emitter, lines: Lines) -> None:
    class Odd(Exception):  # noqa: N818 - as odd as can be
        @property  # type: ignore[misc]  # this as well
        def __class__(self) -> type:
            raise RuntimeError("no class")

        def __str__(self) -> str:
            raise BaseException("no text")  # noqa: TRY002 - the least that one can raise

    with pytest.raises(Odd), emitter.collect():
        raise Odd

    assert (lines.fields["error"], lines.fields["error_type"]) == ("<Odd>", "Odd")


def test_the_headers_that_carry_a_correlation_id_can_be_chosen() -> None:
    headers = {"X-Trace": "t", "x-correlation-id": "c"}

    assert correlation_id(headers, ["x-missing", "x-trace"]) == "t"
    assert correlation_id(headers, []) is None


def test_a_correlation_id_is_handed_on(emitter: Emitter) -> None:
    with emitter.collect({"correlation_id": "c1"}):
        assert outgoing_headers({"accept": "*/*"}) == {"accept": "*/*", "x-correlation-id": "c1"}
        assert outgoing_headers({"X-Correlation-Id": "mine"}) == {"X-Correlation-Id": "mine"}
    with emitter.collect(context=SimpleNamespace(aws_request_id="r1")):
        assert outgoing_headers() == {"x-correlation-id": "r1"}

    assert outgoing_headers() == {}
