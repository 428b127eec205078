"""The pets API as it is deployed: its template, and what its requests leave behind on one machine."""

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests
import tagline
from onemachine.pipeline import Pipeline
from onemachine.template.functions import functions
from onemachine.template.http_apis import http_routes
from onemachine.template.resolution import resolve
from onemachine.template.sam import translate
from onemachine.template.stack import Stack

from cli import feed
from cli.apps import tagline_with_samples
from cli.target import target_of
from tests.builders import http_event
from tests.examples.pets_requests import REQUESTS

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "examples" / "pets_api"
CORRELATION_ID = "order-4711"


# --- the template (what every template has to be is in test_template.py) ----------------------------------


@pytest.fixture(scope="module")
def stack() -> Stack:
    return resolve(
        translate(FOLDER / "template.yml"), {}, stack_name="pets", endpoint="http://127.0.0.1:5000"
    )


def test_one_function_answers_any_request_and_may_reach_its_table_only(stack: Stack) -> None:
    (function,) = functions(stack)
    assert {(route.method, route.path, route.function) for route in http_routes(stack)} == {
        ("ANY", "/", function.name),
        ("ANY", "/{proxy+}", function.name),
    }
    role = stack.resources["PetsApiRole"].properties
    (statement,) = [
        statement for policy in role["Policies"] for statement in policy["PolicyDocument"]["Statement"]
    ]
    table = stack.resources["PetsTable"].attributes["Arn"]
    assert statement["Resource"] == [table, f"{table}/index/*"]
    assert {action.partition(":")[0] for action in statement["Action"]} == {"dynamodb"}


def test_the_function_is_traced_and_has_what_its_code_reads(stack: Stack) -> None:
    (function,) = functions(stack)
    assert stack.resources["PetsApi"].properties["TracingConfig"] == {"Mode": "Active"}
    assert function.log_format == "Text"
    assert function.log_group == "/aws/lambda/pets-PetsApi"
    assert function.environment == {
        "TABLE_NAME": stack.resources["PetsTable"].name,
        "TAGLINE_TAG": tagline.DEFAULT_TAG,
        "POWERTOOLS_SERVICE_NAME": "pets",
        "POWERTOOLS_METRICS_NAMESPACE": "Pets",
    }


def test_the_requirements_are_what_the_code_imports() -> None:
    source = "\n".join(path.read_text() for path in (FOLDER / "pets").glob("*.py"))
    imported = set(re.findall(r"^(?:from|import) (\w+)", source, re.MULTILINE))
    listed = re.findall(r"^([\w-]+)", (FOLDER / "requirements.txt").read_text(), re.MULTILINE)

    in_runtime, ours, with_fastapi = {"boto3"}, {"pets", "tagline"}, {"pydantic"}
    third_party = imported - set(sys.stdlib_module_names) - in_runtime - ours - with_fastapi
    assert third_party == {name.replace("-", "_") for name in listed}


# --- what it does -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Run:
    """Every request was sent once, and all that it left behind has arrived."""

    pipeline: Pipeline
    answers: list[requests.Response]
    pet: str
    messages: list[str]
    rows: list[dict[str, str | None]]

    @property
    def objects(self) -> list[dict[str, Any]]:
        return [json.loads(message) for message in self.messages if message.startswith("{")]

    @property
    def records(self) -> list[dict[str, Any]]:
        return [each for each in self.objects if each.get("_type") == "api_request"]

    def metric(self, name: str) -> list[dict[str, Any]]:
        return [each for each in self.objects if "_aws" in each and name in each]


@pytest.fixture(scope="module")
def ran() -> Iterator[Run]:
    for module in ("fastapi", "mangum", "aws_xray_sdk"):
        pytest.importorskip(module)
    with Pipeline(tagline_with_samples(pets=True)) as pipeline:
        pets, stored = pipeline.outputs["pets"], pipeline.outputs["tagline"]
        answers: list[requests.Response] = []
        pet = ""
        for method, path, body, _, _ in REQUESTS:
            answer = requests.request(
                method,
                pets["PetsApiUrl"] + path.format(pet=pet),
                json=body,
                headers={"x-client": "acme", **({} if answers else {"x-correlation-id": CORRELATION_ID})},
                timeout=30,
            )
            pet = pet or answer.json()["id"]
            answers.append(answer)
        pipeline.settle()
        pages = (
            pipeline.client("logs")
            .get_paginator("filter_log_events")
            .paginate(logGroupName=pets["PetsApiLogGroup"])
        )
        messages = [event["message"] for page in pages for event in page["events"]]
        table = f'"{stored["TimestreamDatabase"]}"."{stored["TimestreamTable"]}"'
        result = pipeline.client("timestream-query").query(
            QueryString=f"SELECT * FROM {table} WHERE measure_name = 'api_request' ORDER BY time"
        )
        names = [column["Name"] for column in result["ColumnInfo"]]
        rows = [
            dict(zip(names, [datum.get("ScalarValue") for datum in row["Data"]], strict=True))
            for row in result["Rows"]
        ]
        yield Run(pipeline, answers, pet, messages, rows)


def test_every_route_answers_as_it_should(ran: Run) -> None:
    assert [answer.status_code for answer in ran.answers] == [status for *_, status, _ in REQUESTS]
    pet = {"id": ran.pet, "name": "Tom", "kind": "cat"}
    created, listed, got = (answer.json() for answer in ran.answers[:3])
    assert (created, listed, got) == (pet, {"pets": [pet], "next_token": None}, pet)


def test_every_request_leaves_one_record_and_that_becomes_a_row(ran: Run) -> None:
    expected = [(method, route, status) for method, _, _, status, route in REQUESTS]
    assert [(each["method"], each["route"], each["status"]) for each in ran.records] == expected
    # Rows of one millisecond are in the order of their identities.
    by_id = {row["_id"]: row for row in ran.rows}
    rows = [by_id[each["_id"]] for each in ran.records]
    assert [(row["method"], row["route"], float(row["status"] or 0)) for row in rows] == expected
    assert len(ran.rows) == len(expected)
    assert {row["client"] for row in rows} == {"acme"}


def test_records_say_what_else_there_is_to_know(ran: Run) -> None:
    by_request = {
        (method, path, status): record
        for (method, path, _, status, _), record in zip(REQUESTS, ran.records, strict=True)
    }
    assert by_request["POST", "/pets", 201]["kind"] == "cat"
    assert by_request["GET", "/pets", 200]["pet_count"] == 1
    assert by_request["GET", "/pets/{pet}", 200]["pet"] == ran.pet
    assert by_request["POST", "/pets", 422]["validation_error_count"] == 2
    assert by_request["GET", "/fail", 500]["error_type"] == "KeyError"
    assert {record["function_name"] for record in ran.records} == {"pets-PetsApi"}
    for record, answer in zip(ran.records, ran.answers, strict=True):
        assert record["response_bytes"] == len(answer.content)


def test_the_correlation_id_comes_in_goes_out_and_is_in_every_line(ran: Run) -> None:
    ids = [answer.headers["x-correlation-id"] for answer in ran.answers]
    assert ids[0] == CORRELATION_ID
    assert ids == [record["correlation_id"] for record in ran.records]
    # Without the header it is Lambda's request id.
    assert ids[1:] == [record["request_id"] for record in ran.records[1:]]
    logged = {line["correlation_id"] for line in ran.objects if "message" in line}
    assert logged == {each for each, (*_, route) in zip(ids, REQUESTS, strict=True) if route != "unmatched"}


def test_log_lines_know_the_route(ran: Run) -> None:
    received = [line for line in ran.objects if line.get("message") == "Received request"]
    routed = [(method, route) for method, _, _, _, route in REQUESTS if route != "unmatched"]
    assert [(line["fastapi"]["method"], line["fastapi"]["route"]) for line in received] == routed
    (failed,) = [line for line in ran.objects if line.get("message") == "Unhandled exception"]
    assert (failed["level"], failed["exception_name"], failed["fastapi"]["route"]) == (
        "ERROR",
        "KeyError",
        "/fail",
    )


def test_powertools_counts_what_it_should(ran: Run) -> None:
    assert [line["ColdStart"] for line in ran.metric("ColdStart")] == [[1.0]]
    assert [line["CreatedPets"] for line in ran.metric("CreatedPets")] == [[1.0]]
    assert [line["UnhandledExceptions"] for line in ran.metric("UnhandledExceptions")] == [[1.0]]
    counted = ran.metric("RequestCount")
    assert [line["route"] for line in counted] == [
        f"{method} {route}" for method, _, _, _, route in REQUESTS if route != "unmatched"
    ]
    (declared,) = {json.dumps(line["_aws"]["CloudWatchMetrics"][0]["Dimensions"]) for line in counted}
    assert json.loads(declared) == [["route", "service"]]


def test_nothing_else_is_logged(ran: Run) -> None:
    other = [message for message in ran.messages if not message.startswith("{")]
    assert [line for line in other if not line.startswith(("INIT_START ", "START ", "END ", "REPORT "))] == []


def kind(line: dict[str, Any]) -> str:
    """Name what a line says."""
    if "_aws" in line:
        return str(line["_aws"]["CloudWatchMetrics"][0]["Metrics"][0]["Name"])
    return str(line.get("_type") or line["message"])


def test_the_readme_shows_the_lines_of_the_first_request_as_they_are(ran: Run) -> None:
    blocks = re.findall(r"^```json\n(.*?)^```$", (FOLDER / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    shown = [json.loads(block) for block in blocks]
    assert ran.messages[0].startswith("INIT_START ")
    assert ran.messages[1].startswith("START ")
    first = [json.loads(line) for line in ran.messages[2 : 2 + len(shown)]]

    assert [kind(line) for line in shown] == [kind(line) for line in first]
    for page, live in zip(shown, first, strict=True):
        assert set(page) <= set(live)
    assert ran.messages[2 + len(shown)].startswith("END ")


def test_the_demos_requests_can_go_to_the_pets_api(ran: Run) -> None:
    sent: list[int] = []
    feed.send_requests(target_of(ran.pipeline), 40, sent.append)

    assert sum(sent) == 40


# --- traces -----------------------------------------------------------------------------------------------


def test_a_request_is_traced_with_its_record_and_its_steps(ran: Run) -> None:
    environment = {
        **{name: os.environ[name] for name in ("PATH",)},
        **ran.pipeline.services.environment(),
        "TABLE_NAME": ran.pipeline.outputs["pets"]["PetsTableName"],
        "PYTHONPATH": os.pathsep.join([str(FOLDER), str(ROOT / "emitter"), str(ROOT)]),
        "LAMBDA_TASK_ROOT": str(FOLDER),
        "_X_AMZN_TRACE_ID": "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1",
        "POWERTOOLS_SERVICE_NAME": "pets",
        "POWERTOOLS_METRICS_NAMESPACE": "Pets",
    }
    event = http_event("POST /{proxy+}", "/pets")
    event["body"] = json.dumps({"name": "Tom", "kind": "cat"})
    event["headers"] |= {"content-type": "application/json", "x-correlation-id": CORRELATION_ID}
    script = (
        "from pets.app import handler; from tests.builders import Context\n"
        f"assert handler({event!r}, Context())['statusCode'] == 201\n"
        "from pets.tracing import put_record, tracer\n"
        "@tracer.capture_lambda_handler\n"
        "def put(event, context): put_record(event)\n"
        "put({'route': '/pets', 'token': 's3cret', 'items': [1]}, Context())"
    )
    # The X-Ray daemon takes segments as datagrams.
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as daemon:
        daemon.bind(("127.0.0.1", 0))
        environment["AWS_XRAY_DAEMON_ADDRESS"] = f"127.0.0.1:{daemon.getsockname()[1]}"
        subprocess.run([sys.executable, "-c", script], check=True, env=environment, capture_output=True)
        daemon.setblocking(False)
        segments: dict[str, dict[str, Any]] = {}
        while True:
            try:
                _, _, segment = daemon.recv(65_536).partition(b"\n")
            except BlockingIOError:
                break
            segments[json.loads(segment)["name"]] = json.loads(segment)

    assert {"## handler", "## pets.store.create", "dynamodb"} <= set(segments)
    annotations = segments["## handler"]["annotations"]
    assert annotations == {
        "correlation_id": CORRELATION_ID,
        "method": "POST",
        "route": "/pets",
        "status": 201,
        "client": "anonymous",
        "ColdStart": True,
        "Service": "pets",
    }
    record = segments["## handler"]["metadata"]["tagline"]["record"]
    assert (record["kind"], record["path"], record["status"]) == ("cat", "/pets", 201)
    assert record["response_bytes"] > 0
    # Credentials are masked in a trace as they are on the line.
    put = segments["## put"]
    assert put["annotations"]["route"] == "/pets"
    assert put["metadata"]["tagline"]["record"] == {"route": "/pets", "token": "***", "items": [1]}
    assert {segment["trace_id"] for segment in segments.values()} == {"1-5759e988-bd862e3fe1be46a994272793"}
    assert segments["dynamodb"]["parent_id"] == segments["## pets.store.create"]["id"]
