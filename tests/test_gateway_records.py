"""API Gateway's access log as records: the format that the how-to gives, through the whole pipeline."""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml
from onemachine.pipeline import App, Pipeline

from cli.apps import ROOT
from cli.target import target_of
from tests.onemachine.issuer import Issuer, private_key, token

PAGE = ROOT / "docs" / "how-to" / "gateway-records.md"
GROUP = "/aws/apigateway/shop"
ISSUER = "https://id.example.com"
# An hour is rolled up from its sixth minute on.
ROLLED_UP_AFTER = timedelta(minutes=10)
TIMEOUT_S = 60
TEMPLATE = """
Transform: AWS::Serverless-2016-10-31
Resources:
  Api:
    Type: AWS::Serverless::HttpApi
    Properties:
      DefaultRouteSettings: {ThrottlingRateLimit: 0.001, ThrottlingBurstLimit: 10}
      RouteSettings: {GET /own: {ThrottlingRateLimit: 1000, ThrottlingBurstLimit: 1000}}
      Auth:
        Authorizers:
          Token:
            IdentitySource: $request.header.Authorization
            JwtConfiguration: {issuer: "https://id.example.com", audience: [pets]}
  Shop:
    Type: AWS::Serverless::Function
    Properties:
      Handler: shop.handler
      Runtime: python3.13
      CodeUri: .
      Events:
        Pets: {Type: HttpApi, Properties: {ApiId: !Ref Api, Method: GET, Path: "/pets/{id}"}}
        Crash: {Type: HttpApi, Properties: {ApiId: !Ref Api, Method: GET, Path: /crash}}
        Own:
          Type: HttpApi
          Properties:
            ApiId: !Ref Api
            Method: GET
            Path: /own
            Auth: {Authorizer: Token, AuthorizationScopes: [pets/read]}
  ApiAccessLogs:
    Type: AWS::Logs::LogGroup
    Properties: {LogGroupName: /aws/apigateway/shop}
Outputs:
  Url: {Value: !GetAtt Api.ApiEndpoint}
"""
HANDLER = """
def handler(event, _context):
    if event["rawPath"] == "/crash":
        raise SystemError("crashed")
    return {"statusCode": 200, "body": "ok"}
"""


def given() -> dict[str, str]:
    """Return the AccessLogSettings of the page."""
    (text,) = re.findall(r"```yaml\nAccessLogSettings:\n(.*?)```", PAGE.read_text(), re.DOTALL)
    (line,) = re.findall(r"Format: >-\n(.*)", text, re.DOTALL)
    format_: str = yaml.safe_load(f"Format: >-\n{line}")["Format"]
    return {"DestinationArn": "!GetAtt ApiAccessLogs.Arn", "Format": format_}


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Pipeline]:
    """Return a pipeline that takes the access log of an API as the page says."""
    settings = json.dumps(given()).replace('"!GetAtt ApiAccessLogs.Arn"', "!GetAtt ApiAccessLogs.Arn")
    limits = "      DefaultRouteSettings"
    (tmp_path / "template.yml").write_text(
        TEMPLATE.replace(limits, f"      AccessLogSettings: {settings}\n{limits}")
    )
    (tmp_path / "shop.py").write_text(HANDLER)
    parameters = {
        "LogGroups": GROUP,
        "BatchWindowSeconds": "0",
        "UsageType": "gateway_request",
        "Store": "timestream",
    }
    apps = [App("shop", tmp_path / "template.yml"), App("tagline", ROOT / "template.yml", parameters)]
    with (
        Issuer() as issuer,
        Pipeline(
            apps,
            in_process=True,
            enforce_auth=True,
            enforce_throttling=True,
            issuers={ISSUER: f"{issuer.url}/keys"},
        ) as pipeline,
    ):
        yield pipeline


def asked(pipeline: Pipeline, path: str) -> Any:
    """Return what the API of usage has of the last day."""
    answer = requests.get(
        target_of(pipeline).outputs["DownloadUrl"] + path,
        params={"range": "24h"},
        headers={"x-api-key": pipeline.api_key or ""},
        timeout=TIMEOUT_S,
    )
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_what_never_reaches_a_handler_is_counted_and_no_caller_writes_a_field(shop: Pipeline) -> None:
    where, url = target_of(shop), shop.outputs["shop"]["Url"]
    evil = '1","client":"acme","status":200,"x":"'
    paths = ["/pets/1", "/crash", "/nowhere", f"/pets/{evil}", f'/pets/2?a={evil}"_tag":"usage_record"']
    statuses = [
        requests.get(
            url + path, headers={"user-agent": evil, "x-request-id": evil}, timeout=TIMEOUT_S
        ).status_code
        for path in [*paths, *["/pets/3"] * 9]
    ]
    shop.settle()
    shop.advance(ROLLED_UP_AFTER)
    where.invoke("UsageRollerName", {})

    answer = asked(shop, "/usage/routes")

    assert Counter(statuses)[429] > 0
    assert (answer["base"], statuses[1], statuses[2]) == ("gateway_request", 500, 404)
    rows = {row["route"]: row for row in answer["routes"]}
    assert set(rows) == {"GET /pets/{id}", "GET /crash", "-"}
    assert sum(row["requests"] for row in rows.values()) == len(statuses)
    assert sum(row["rate_limited"] for row in rows.values()) == Counter(statuses)[429]
    assert rows["GET /crash"]["failures"] == 1
    ((timed,),) = where.store().sql("SELECT count(duration_ms) FROM {table} WHERE duration_ms >= 0").rows
    assert int(timed or 0) == len(statuses)
    columns = {column.name for column in where.store().sql("SELECT * FROM {table}").columns}
    assert not columns & {"client", "x", "_tag"}


def test_what_the_gateway_refuses_is_counted_and_does_not_lower_the_availability(shop: Pipeline) -> None:
    url = shop.outputs["shop"]["Url"]
    claims = {"iss": ISSUER, "aud": "pets", "exp": time.time() + 3_600}
    ours, others = (token(private_key(), {**claims, "scope": scope}) for scope in ("pets/read", "pets/write"))

    def call(path: str, bearer: str = "") -> int:
        headers = {"authorization": f"Bearer {bearer}"} if bearer else {}
        return requests.get(url + path, headers=headers, timeout=TIMEOUT_S).status_code

    sent = Counter(
        [call("/own") for _ in range(25)]
        + [call("/own", "forged") for _ in range(25)]
        + [call("/own", others) for _ in range(10)]
        + [call("/own", ours) for _ in range(5)]
        + [call("/pets/1") for _ in range(110)]
    )
    shop.settle()
    shop.advance(ROLLED_UP_AFTER)
    target_of(shop).invoke("UsageRollerName", {})

    assert sent == {401: 50, 403: 10, 429: 100, 200: 15}
    total = asked(shop, "/usage")["total"]
    assert (total["requests"], total["auth_failures"], total["rate_limited"]) == (175, 60, 100)
    assert (total["failures"], total["availability"]) == (0, 1.0)
    routes = {row["route"]: row for row in asked(shop, "/usage/routes")["routes"]}
    assert (routes["GET /own"]["auth_failures"], routes["GET /pets/{id}"]["rate_limited"]) == (60, 100)


@pytest.mark.parametrize("settings", [given()])
def test_the_format_has_only_what_api_gateway_makes_itself(settings: dict[str, str]) -> None:
    variables = set(re.findall(r"\$context\.([\w.]+)", settings["Format"]))

    assert variables == {
        *("extendedRequestId", "requestTimeEpoch", "routeKey"),
        *("status", "responseLatency", "responseLength"),
    }
