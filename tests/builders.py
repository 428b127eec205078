"""The envelopes of AWS: what Lambda, Kinesis and CloudWatch Logs wrap around a line, and nothing else."""

import base64
from dataclasses import dataclass, field
from typing import Any

from consumers.lines.subscription import LogEvent, Malformed, encode, log_event, pieces

OWNER = "123456789012"
GROUP = "/aws/lambda/orders"
STREAM_ARN = f"arn:aws:kinesis:us-east-1:{OWNER}:stream/tagline"
ARRIVED = 1_763_632_801.5  # 2025-11-20T10:00:01.5Z
LOGGED = 1_763_632_800_500


@dataclass
class Context:
    """What Lambda tells a handler of its invocation."""

    remaining_ms: int = 60_000
    aws_request_id: str = "c6af9ac6-7b61-11e6-9a41-93e8deadbeef"
    function_name: str = "function"
    function_version: str = "$LATEST"
    memory_limit_in_mb: int = 256
    invoked_function_arn: str = f"arn:aws:lambda:us-east-1:{OWNER}:function:function"

    def get_remaining_time_in_millis(self) -> int:
        return self.remaining_ms


@dataclass
class Ids:
    """Hands out event ids as CloudWatch does: 56 digits."""

    last: int = field(default=37199717562907174288355125807040114704837640994633613312)

    def next(self) -> str:
        self.last += 1
        return str(self.last)


_ids = Ids()


def envelope(*messages: str, group: str = GROUP, ids: list[str] | None = None) -> dict[str, Any]:
    return {
        "messageType": "DATA_MESSAGE",
        "owner": OWNER,
        "logGroup": group,
        "logStream": "2025/11/20/[$LATEST]26b6a45d574f442ea5b4f7a1b1d3ba44",
        "subscriptionFilters": ["tagline"],
        "logEvents": [
            {"id": ids[number] if ids else _ids.next(), "timestamp": LOGGED, "message": message}
            for number, message in enumerate(messages)
        ],
    }


CONTROL_EVENT = {
    "id": "",
    "timestamp": LOGGED,
    "message": "CWL CONTROL MESSAGE: Checking health of destination Kinesis stream.",
}
CONTROL = {
    "messageType": "CONTROL_MESSAGE",
    "owner": "CloudwatchLogs",
    "logGroup": "",
    "logStream": "",
    "subscriptionFilters": [],
    "logEvents": [CONTROL_EVENT],
}


def data(envelope: dict[str, Any]) -> str:
    """Return an envelope as the data of a record in a Kinesis event."""
    return base64.b64encode(encode(envelope)).decode()


def log_events(data: object) -> list[LogEvent | Malformed | None]:
    """Return the log events in a Kinesis record's data; None for messages of CloudWatch's own."""
    return [log_event(raw, piece) for piece in pieces(data) for raw in piece.log_events]


def messages_in(data: object) -> list[str]:
    """Return the lines in a Kinesis record's data."""
    return [event.message for event in log_events(data) if isinstance(event, LogEvent)]


def kinesis_record(data: str, number: int) -> dict[str, Any]:
    sequence_number = str(49_590_338_271_490_256_608_559_692_538_361_571_095_921_575_989_136_588_898 + number)
    return {
        "kinesis": {
            "kinesisSchemaVersion": "1.0",
            "partitionKey": f"{number:032x}",
            "sequenceNumber": sequence_number,
            "data": data,
            "approximateArrivalTimestamp": ARRIVED,
        },
        "eventSource": "aws:kinesis",
        "eventVersion": "1.0",
        "eventID": f"shardId-000000000006:{sequence_number}",
        "eventName": "aws:kinesis:record",
        "invokeIdentityArn": f"arn:aws:iam::{OWNER}:role/consumer",
        "awsRegion": "us-east-1",
        "eventSourceARN": STREAM_ARN,
    }


def kinesis_event(*datas: str) -> dict[str, Any]:
    return {"Records": [kinesis_record(data, number) for number, data in enumerate(datas)]}


def sqs_event(*bodies: str) -> dict[str, Any]:
    return {
        "Records": [
            {
                "messageId": f"059f36b4-87a3-44ab-83d2-66197598{number:04d}",
                "receiptHandle": "AQEBwJnKyrHigUMZj6rYigCgxlaS3SLy0a...",
                "body": body,
                "attributes": {
                    "ApproximateReceiveCount": "1",
                    "SentTimestamp": str(LOGGED),
                    "SenderId": "AIDAIENQZJOLO23YVJ4VO",
                    "ApproximateFirstReceiveTimestamp": str(LOGGED + 1),
                },
                "messageAttributes": {},
                "md5OfBody": "098f6bcd4621d373cade4e832627b4f6",
                "eventSource": "aws:sqs",
                "eventSourceARN": f"arn:aws:sqs:us-east-1:{OWNER}:downloads",
                "awsRegion": "us-east-1",
            }
            for number, body in enumerate(bodies)
        ]
    }


def http_event(
    route: str, path: str, query: dict[str, str] | None = None, **parameters: str
) -> dict[str, Any]:
    """Return an HTTP API's event, payload format 2.0, for a route such as `GET /downloads/{id}`."""
    method = route.split(" ", 1)[0]
    return {
        "version": "2.0",
        "routeKey": route,
        "rawPath": path,
        "rawQueryString": "&".join(f"{name}={value}" for name, value in (query or {}).items()),
        "headers": {"host": "api.example.com", "accept": "*/*"},
        **({"queryStringParameters": query} if query else {}),
        **({"pathParameters": parameters} if parameters else {}),
        "requestContext": {
            "accountId": OWNER,
            "apiId": "api-id",
            "domainName": "api.example.com",
            "domainPrefix": "api",
            "http": {
                "method": method,
                "path": path,
                "protocol": "HTTP/1.1",
                "sourceIp": "192.0.2.1",
                "userAgent": "agent",
            },
            "requestId": "JKJaXmPLvHcESHA=",
            "routeKey": route,
            "stage": "$default",
            "time": "20/Nov/2025:10:00:00 +0000",
            "timeEpoch": LOGGED,
        },
        "isBase64Encoded": False,
    }


def rest_event(
    resource: str, path: str, query: dict[str, str] | None = None, method: str = "GET"
) -> dict[str, Any]:
    """Return a REST API's event, payload format 1.0, for a resource such as `/{proxy+}`."""
    headers = {"Host": "api.example.com", "Accept": "*/*"}
    return {
        "resource": resource,
        "path": path,
        "httpMethod": method,
        "headers": headers,
        "multiValueHeaders": {name: [value] for name, value in headers.items()},
        "queryStringParameters": query,
        "multiValueQueryStringParameters": {name: [value] for name, value in query.items()}
        if query
        else None,
        "pathParameters": {"proxy": path.lstrip("/")} if resource == "/{proxy+}" else None,
        "stageVariables": None,
        "requestContext": {
            "accountId": OWNER,
            "apiId": "api-id",
            "domainName": "api.example.com",
            "domainPrefix": "api",
            "extendedRequestId": "JKJaXmPLvHcESHA=",
            "httpMethod": method,
            "identity": {"sourceIp": "192.0.2.1", "userAgent": "agent"},
            "path": f"/Prod{path}",
            "protocol": "HTTP/1.1",
            "requestId": "c6af9ac6-7b61-11e6-9a41-93e8deadbeef",
            "requestTime": "20/Nov/2025:10:00:00 +0000",
            "requestTimeEpoch": LOGGED,
            "resourceId": "abcdef",
            "resourcePath": resource,
            "stage": "Prod",
        },
        "body": None,
        "isBase64Encoded": False,
    }
