"""The pets API and its Flask twin answer alike, as Lambda handlers, behind an HTTP API and a REST API."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import tagline
from onemachine.template.resolution import resolve
from onemachine.template.sam import translate
from onemachine.template.stack import Stack

from tests.builders import http_event, rest_event
from tests.examples.pets_requests import REQUESTS

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "examples" / "pets_api"

# Invokes a handler with one event after the other; `{pet}` is the id in the first answer.
SCRIPT = """
import importlib, json, sys
from tests.builders import Context

handler = importlib.import_module(sys.argv[1]).handler
pet = ""
for line in sys.stdin:
    event = json.loads(line.replace("{pet}", pet))
    answer = handler(event, Context())
    pet = pet or json.loads(answer["body"])["id"]
    print(json.dumps(answer), file=sys.stderr)
"""


@pytest.fixture(scope="module")
def environment() -> Iterator[dict[str, str]]:
    """Yield the environment of a function whose table is on this machine."""
    boto3 = pytest.importorskip("boto3")
    server = pytest.importorskip("moto.server").ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    keys = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"}
    here = {**keys, "AWS_DEFAULT_REGION": "us-east-1", "AWS_ENDPOINT_URL": f"http://{host}:{port}"}
    boto3.client(
        "dynamodb",
        endpoint_url=here["AWS_ENDPOINT_URL"],
        region_name="us-east-1",
        aws_access_key_id="key",
        aws_secret_access_key="secret",
    ).create_table(
        TableName="pets",
        KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
        BillingMode="PAY_PER_REQUEST",
    )
    paths = [FOLDER, ROOT / "examples" / "pets_flask", ROOT / "emitter", ROOT]
    yield {
        **here,
        "PATH": os.environ["PATH"],
        "PYTHONPATH": os.pathsep.join(map(str, paths)),
        "TABLE_NAME": "pets",
        "POWERTOOLS_SERVICE_NAME": "pets",
        "POWERTOOLS_METRICS_NAMESPACE": "Pets",
    }
    server.stop()


def event_of(version: str, method: str, path: str, body: Any) -> dict[str, Any]:
    path, _, query = path.partition("?")
    parameters = dict([query.split("=")]) if query else None
    if version == "1.0":
        event = rest_event("/{proxy+}", path, parameters, method)
        event["multiValueHeaders"].update({"content-type": ["application/json"], "x-client": ["acme"]})
    else:
        event = http_event(f"{method} /{{proxy+}}", path, parameters)
    event["headers"] |= {"content-type": "application/json", "x-client": "acme"}
    return {**event, "body": None if body is None else json.dumps(body)}


@dataclass(frozen=True)
class Ran:
    """What a handler answered to each request, and the records that it wrote."""

    answers: list[dict[str, Any]]
    records: list[dict[str, Any]]


def run(module: str, version: str, environment: dict[str, str]) -> Ran:
    """Send every request of the table to a handler, in a process."""
    events = [event_of(version, method, path, body) for method, path, body, _, _ in REQUESTS]
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", SCRIPT, module],
        input="\n".join(map(json.dumps, events)),
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    answers = [json.loads(line) for line in done.stderr.splitlines() if line.startswith("{")]
    assert done.returncode == 0, done.stderr
    objects = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return Ran(answers, [each for each in objects if each.get("_tag") == tagline.DEFAULT_TAG])


@pytest.mark.parametrize("version", ["1.0", "2.0"])
@pytest.mark.parametrize("module", ["pets.app", "pets_flask"])
def test_every_route_answers_and_leaves_one_record(
    module: str, version: str, environment: dict[str, str]
) -> None:
    for needed in ("fastapi", "mangum", "aws_xray_sdk", "apig_wsgi"):
        pytest.importorskip(needed)
    ran = run(module, version, environment)

    assert [answer["statusCode"] for answer in ran.answers] == [status for *_, status, _ in REQUESTS]
    templates = [route.replace("{", "<").replace("}", ">") for *_, route in REQUESTS]
    assert [record["route"].replace("{", "<").replace("}", ">") for record in ran.records] == templates
    assert [record["status"] for record in ran.records] == [status for *_, status, _ in REQUESTS]
    assert {record["client"] for record in ran.records} == {"acme"}
    assert {record["function_name"] for record in ran.records} == {"function"}
    by_status = {record["status"]: record for record in ran.records}
    assert (by_status[201]["kind"], by_status[422]["validation_error_count"]) == ("cat", 2)
    assert (by_status[500]["error_type"], by_status[500]["error"]) == ("KeyError", "'missing_key'")
    for record, answer in zip(ran.records, ran.answers, strict=True):
        assert record["response_bytes"] == len(answer.get("body", ""))


@pytest.mark.parametrize("version", ["1.0", "2.0"])
def test_the_twin_answers_what_the_pets_api_answers(version: str, environment: dict[str, str]) -> None:
    for needed in ("fastapi", "mangum", "aws_xray_sdk", "apig_wsgi"):
        pytest.importorskip(needed)

    def bodies(module: str) -> list[Any]:
        ran = run(module, version, environment)
        pet = json.loads(ran.answers[0]["body"])["id"]
        found = zip(REQUESTS, ran.answers, strict=True)
        # What a framework says of a route that does not exist, or of validation, is its own.
        return [
            json.loads(answer["body"].replace(pet, "{pet}") or "null")
            for (*_, status, route), answer in found
            if route != "unmatched" and status != 422
        ]

    listed = slice(1, 2)  # what earlier tests left in the table
    ours, theirs = bodies("pets_flask"), bodies("pets.app")
    ours[listed] = theirs[listed] = []
    assert ours == theirs


def test_the_twins_requirements_are_what_its_code_imports() -> None:
    sources = [ROOT / "examples" / "pets_flask" / "pets_flask.py"]
    sources += [FOLDER / "pets" / f"{name}.py" for name in ("models", "store", "telemetry", "tracing")]
    source = "\n".join(path.read_text() for path in sources)
    imported = set(re.findall(r"^(?:from|import) (\w+)", source, re.MULTILINE))
    listed = re.findall(
        r"^([\w-]+)", (ROOT / "examples" / "pets_flask" / "requirements.txt").read_text(), re.MULTILINE
    )

    third_party = imported - set(sys.stdlib_module_names) - {"boto3", "pets", "tagline"}
    assert third_party == {name.replace("-", "_") for name in listed}


# --- the REST API's template ------------------------------------------------------------------------------


def stack_of(name: str) -> Stack:
    return resolve(translate(FOLDER / name), {}, stack_name="pets", endpoint="http://127.0.0.1:5000")


def test_the_rest_api_is_traced_and_has_one_stage() -> None:
    resources = stack_of("template-rest.yml").resources
    (stage,) = [each for each in resources.values() if each.type == "AWS::ApiGateway::Stage"]

    assert (stage.properties["StageName"], stage.properties["TracingEnabled"]) == ("Prod", True)
    (api,) = [each for each in resources.values() if each.type == "AWS::ApiGateway::RestApi"]
    assert set(api.properties["Body"]["paths"]) == {"/", "/{proxy+}"}


def test_the_rest_apis_accesses_and_executions_are_logged_for_some_time_and_its_traces_sampled() -> None:
    resources = stack_of("template-rest.yml").resources
    by_type = {each.type: each.properties for each in resources.values()}
    stage = by_type["AWS::ApiGateway::Stage"]
    api = resources["PetsRestApi"].name
    groups = {
        each.name: each.properties.get("RetentionInDays")
        for each in resources.values()
        if each.type == "AWS::Logs::LogGroup"
    }

    assert groups == dict.fromkeys(
        [
            *("/aws/lambda/pets-PetsApi", "/aws/apigateway/pets-PetsRestApi"),
            f"API-Gateway-Execution-Logs_{api}/{stage['StageName']}",
        ],
        30,
    )
    assert "log-group:/aws/apigateway/pets-PetsRestApi" in stage["AccessLogSetting"]["DestinationArn"]
    assert {"requestId", "status", "error"} <= json.loads(stage["AccessLogSetting"]["Format"]).keys()
    (settings,) = stage["MethodSettings"]
    assert (settings["LoggingLevel"], settings["DataTraceEnabled"]) == ("ERROR", False)
    rule = by_type["AWS::XRay::SamplingRule"]["SamplingRule"]
    (group,) = [each for each in resources.values() if each.type == "AWS::XRay::Group"]
    assert rule["ServiceName"] == "pets/Prod"
    assert len(rule["RuleName"]) <= 32
    assert group.properties["FilterExpression"] == f'service("{resources["PetsApi"].name}")'


def test_the_role_for_the_gateways_logs_is_set_where_it_is_asked_for() -> None:
    template = translate(FOLDER / "template-rest.yml")
    asked = {"SetGatewayRole": "true"}
    stack = resolve(template, asked, stack_name="pets", endpoint="http://127.0.0.1:5000")

    assert "AWS::ApiGateway::Account" in {each.type for each in stack.resources.values()}
    assert "AWS::ApiGateway::Account" not in {
        each.type for each in stack_of("template-rest.yml").resources.values()
    }


def test_the_two_templates_differ_in_the_gateway_only() -> None:
    http, rest = stack_of("template.yml").resources, stack_of("template-rest.yml").resources
    gateways = ("AWS::ApiGateway", "AWS::Lambda::Permission", "AWS::XRay")
    of_the_gateway = {"PetsAccessLogs", "PetsExecutionLogs"}
    shared = [
        {
            each.logical_id: each.properties
            for each in stack.values()
            if not each.type.startswith(gateways) and each.logical_id not in of_the_gateway
        }
        for stack in (http, rest)
    ]

    assert shared[0] == shared[1]
    assert shared[0]["PetsApi"]["TracingConfig"] == {"Mode": "Active"}
