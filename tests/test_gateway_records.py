"""API Gateway's access log as records: the format that the how-to gives, through the whole pipeline."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
import yaml
from onemachine.pipeline import ROOT, App, Pipeline

from cli.target import target_of

PAGE = ROOT / "docs" / "how-to" / "gateway-records.md"
GROUP = "/aws/apigateway/shop"
TIMEOUT_S = 60
TEMPLATE = """
Transform: AWS::Serverless-2016-10-31
Resources:
  Api:
    Type: AWS::Serverless::HttpApi
    Properties:
      DefaultRouteSettings: {ThrottlingRateLimit: 1, ThrottlingBurstLimit: 5}
  Shop:
    Type: AWS::Serverless::Function
    Properties:
      Handler: shop.handler
      Runtime: python3.13
      CodeUri: .
      Events:
        Pets: {Type: HttpApi, Properties: {ApiId: !Ref Api, Method: GET, Path: "/pets/{id}"}}
        Crash: {Type: HttpApi, Properties: {ApiId: !Ref Api, Method: GET, Path: /crash}}
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
    with Pipeline(apps, in_process=True, enforce_throttling=True) as pipeline:
        yield pipeline


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
    where.invoke("UsageRollerName", {})

    answer = requests.get(
        where.outputs["DownloadUrl"] + "/usage/routes", params={"range": "24h"}, timeout=TIMEOUT_S
    ).json()

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


@pytest.mark.parametrize("settings", [given()])
def test_the_format_has_only_what_api_gateway_makes_itself(settings: dict[str, str]) -> None:
    variables = set(re.findall(r"\$context\.([\w.]+)", settings["Format"]))

    assert variables == {
        *("extendedRequestId", "requestTimeEpoch", "routeKey"),
        *("status", "responseLatency", "responseLength"),
    }
