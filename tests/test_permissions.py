"""What functions call while a pipeline runs, held against what their roles allow: it is the same."""

import os
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import boto3
import onemachine.address
import pytest
import requests
from onemachine.pipeline import App, Pipeline
from onemachine.template.http_apis import http_routes
from onemachine.template.resolution import resolve
from onemachine.template.sam import translate
from onemachine.template.stack import Stack
from tagline import Record, write

from cli.target import Target, target_of
from consumers.lines.subscription import encode
from consumers.rows.lake.fragments import Fragment
from consumers.rows.registry import STORES
from exporter.downloads.jobs import Job, Request
from exporter.downloads.stored_jobs import replace_job
from exporter.export.hourly import LARGE_ROWS
from exporter.lake.formats import Format
from exporter.lake.manifest import HOURS, MANIFEST, folder
from exporter.store import Days
from tests.builders import envelope
from tests.consumers.meters.meters import line as meter_line
from tests.test_pipeline import meeting

TEMPLATE = Path(__file__).parents[1] / "template.yml"
PARAMETERS = {
    "BatchWindowSeconds": "0",
    "MeterBatchWindowSeconds": "0",
    "MeterBucket": "ingest",
    "ExportFormats": ",".join(Format),
}
ACCOUNT = "us-east-1:123456789012"
TIMEOUT_S = 60
# So that the same schedules fire at whatever time the test is run.
NOON = datetime(2026, 1, 15, 12, tzinfo=UTC)

# What Lambda itself does with a function's role.
OF_LAMBDA = {
    "logs:CreateLogStream": "keeps what a function prints",
    "logs:PutLogEvents": "keeps what a function prints",
    "xray:PutTraceSegments": "sends traces",
    "xray:PutTelemetryRecords": "sends traces",
    "kinesis:DescribeStream": "reads the stream for a consumer",
    "kinesis:DescribeStreamSummary": "reads the stream for a consumer",
    "kinesis:ListShards": "reads the stream for a consumer",
    "kinesis:GetShardIterator": "reads the stream for a consumer",
    "kinesis:GetRecords": "reads the stream for a consumer",
    "sqs:ReceiveMessage": "reads the queue for a worker",
    "sqs:DeleteMessage": "reads the queue for a worker",
    "sqs:GetQueueAttributes": "reads the queue for a worker",
    "sns:Publish": "tells of nights that failed to the end",
}
# What the scenario below does not bring about, and why it is allowed.
RARE = {
    "s3:AbortMultipartUpload": "an upload that fails, or whose download is deleted meanwhile",
    "lambda:InvokeFunction": "a run that takes longer than an invocation",
    "kms:Decrypt": "a key of the meter API that its owner encrypts",
}
RARE_RESOURCES = {
    ("s3:PutObject", "/aws/lambda/*"): "Lambda keeps the batches that failed to the end",
    ("s3:ListBucket", ""): "Lambda asks for it of an S3 on-failure destination",
    ("s3:GetObject", "/tmp/*.tail"): "a zip that takes longer than an invocation",
    ("s3:PutObject", "/tmp/*.tail"): "a zip that takes longer than an invocation",
    ("glue:UpdateTable", "/fresh"): "columns that are declared later",
    ("s3:GetObject", "/_manifest.json"): "a download near the limit, or of days with files in the archive",
    ("s3:GetObject", "/tmp/usage/*"): "the page of a tenant, who has a token",
    ("s3:PutObject", "/tmp/usage/*"): "the page of a tenant, who has a token",
    ("sqs:SendMessage", "DownloadQueue"): "a zip that takes longer than an invocation",
}
# With the lake, no row is cut.
RARE_WITH_THE_LAKE = {
    ("s3:GetObject", "/overflow/*"): "a day that was exported while the store was Timestream",
    ("s3:DeleteObject", "/overflow/*"): "a day that was exported while the store was Timestream",
}
TIMESTREAM = {
    "Query": ("timestream:Select", "the table"),
    "WriteRecords": ("timestream:WriteRecords", "the table"),
    "DescribeEndpoints": ("timestream:DescribeEndpoints", "*"),
}


class Call(NamedTuple):
    """Something that a function asks AWS for."""

    function: str
    action: str
    resource: str
    prefix: str | None = None


class Recorder:
    """Keeps what is called by the clients of its sessions, and by which function.

    In one interpreter one function runs at a time, in an environment of its own.
    """

    def __init__(self) -> None:
        self.calls: set[Call] = set()

    def session(self, **options: Any) -> boto3.Session:
        session = boto3.session.Session(**options)
        session.events.register("before-parameter-build", self._keep)
        session.events.register("before-call", self._record)
        return session

    def _keep(self, params: dict[str, Any], context: dict[str, Any], **_: Any) -> None:
        context["asked"] = dict(params)

    def _record(self, model: Any, context: dict[str, Any], **_: Any) -> None:
        function = os.environ["AWS_LAMBDA_FUNCTION_NAME"]
        asked = context.get("asked", {})
        for action, resource in resources(model.service_model.service_name, model.name, asked):
            self.calls.add(Call(function, action, resource, asked.get("Prefix")))


def resources(service: str, operation: str, asked: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the actions that IAM looks at for a call, each with its resource.

    https://docs.aws.amazon.com/service-authorization/latest/reference/reference_policies_actions-resources-contextkeys.html
    """
    match service, operation:
        case "s3", _:
            yield from s3_resources(operation, f"arn:aws:s3:::{asked['Bucket']}", asked)
        case "glue", _:
            database, table = asked["DatabaseName"], asked.get("Name") or asked["TableInput"]["Name"]
            for resource in ("catalog", f"database/{database}", f"table/{database}/{table}"):
                yield f"glue:{operation}", f"arn:aws:glue:{ACCOUNT}:{resource}"
        case "sqs", _:
            yield f"sqs:{operation}", f"arn:aws:sqs:{ACCOUNT}:{asked['QueueUrl'].rpartition('/')[2]}"
        case "logs", _:
            yield f"logs:{operation}", f"arn:aws:logs:{ACCOUNT}:log-group:{asked['logGroupName']}:*"
        case "cloudwatch", _:
            yield f"cloudwatch:{operation}", f"arn:aws:cloudwatch:{ACCOUNT}:alarm:*"
        case "secretsmanager", _:
            yield f"secretsmanager:{operation}", asked["SecretId"]
        case "sts", _:
            yield f"sts:{operation}", asked["RoleArn"]
        case "timestream-query" | "timestream-write", _:
            yield TIMESTREAM[operation]
        case _:
            raise AssertionError(f"{service} {operation} is new: say here what IAM looks at")


def s3_resources(operation: str, bucket: str, asked: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if operation == "ListObjectsV2":
        yield "s3:ListBucket", bucket
    elif operation == "DeleteObjects":
        yield from (("s3:DeleteObject", f"{bucket}/{each['Key']}") for each in asked["Delete"]["Objects"])
    else:
        puts = ("CreateMultipartUpload", "UploadPart", "CompleteMultipartUpload")
        name = {"HeadObject": "GetObject", **dict.fromkeys(puts, "PutObject")}.get(operation, operation)
        yield f"s3:{name}", f"{bucket}/{asked['Key']}"


class Grant(NamedTuple):
    """One action on one resource, perhaps only for listings of a prefix."""

    function: str
    action: str
    resource: str
    prefix: str | None = None

    def covers(self, call: Call) -> bool:
        if (self.function, self.action) != (call.function, call.action):
            return False
        if not _is_like(call.resource, self.resource):
            return False
        return self.prefix is None or _is_like(call.prefix or "", self.prefix)


def _is_like(text: str, pattern: str) -> bool:
    return re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), text) is not None


def grants(stack: Stack) -> set[Grant]:
    """Return what the roles of a stack's functions allow, each action on each resource apart."""
    documents: list[tuple[str, dict[str, Any]]] = []
    for role in stack.of_type("AWS::IAM::Role"):
        documents += [(role.physical_id, policy["PolicyDocument"]) for policy in role.properties["Policies"]]
    for policy in stack.of_type("AWS::IAM::Policy"):
        documents += [(name, policy.properties["PolicyDocument"]) for name in policy.properties["Roles"]]
    functions = {function.physical_id for function in stack.of_type("AWS::Lambda::Function")}
    found: set[Grant] = set()
    for name, document in documents:
        function = name.removesuffix("Role")
        for statement in document["Statement"] if function in functions else ():
            condition = statement.get("Condition", {})
            (prefixes,) = {
                tuple(listed(each["s3:prefix"])) for each in condition.values() if "s3:prefix" in each
            } or {(None,)}
            for action, resource, prefix in product(
                listed(statement["Action"]), listed(statement["Resource"]), prefixes
            ):
                found.add(Grant(function, action, resource, prefix))
    return found


def listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    # The services' own clients, such as those that read the stream for a function, are of another session.
    monkeypatch.setattr(onemachine.address, "boto3", boto3.Session())
    recorder = Recorder()
    monkeypatch.setattr(boto3, "Session", recorder.session)
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", recorder.session())
    return recorder


@pytest.fixture(params=STORES)
def parameters(request: pytest.FixtureRequest) -> dict[str, str]:
    return {"Store": request.param, **PARAMETERS}


@pytest.fixture
def pipeline(
    recorder: Recorder,  # noqa: ARG001 - it is there before any client
    parameters: dict[str, str],
) -> Iterator[Pipeline]:
    with Pipeline([App("tagline", TEMPLATE, parameters)], in_process=True, now=NOON) as pipeline:
        yield pipeline


def put(pipeline: Pipeline, when: datetime, *lines: str, **fields: Any) -> None:
    """Put lines into the stream, and one with fields."""
    time = int(when.timestamp() * 1000)
    if fields:
        lines = (*lines, write(Record(fields.pop("id"), time, {"route": "/", **fields}, "order")))
    stream = pipeline.outputs["tagline"]["StreamName"]
    pipeline.client("kinesis").put_record(StreamName=stream, PartitionKey="a", Data=encode(envelope(*lines)))
    pipeline.settle()


def of_other(when: datetime, identity: str) -> str:
    """Return a line of another client."""
    fields = {"route": "/", "client": "other", "text": "b" * 4_000}
    return write(Record(identity, int(when.timestamp() * 1000), fields, "order"))


def run_everything(pipeline: Pipeline, stack: Stack) -> None:
    """Have each function do what it is there for."""
    where = target_of(pipeline)
    s3, bucket = pipeline.client("s3"), where.outputs["Bucket"]
    s3.create_bucket(Bucket="ingest")

    # Records of four days, of two clients, some too long for the store; two meet at one point; some lines are
    # no records.
    days = [pipeline.clock.now() - timedelta(days=number) for number in (2, 3, 4, 5)]
    for number, day in enumerate(days):
        # Of one batch: they are in one fragment of the lake.
        put(pipeline, day, of_other(day, f"b{number}"), id=f"a{number}", client="acme", text="a" * 4_000)
    for identity in meeting(2):
        put(pipeline, days[0], id=identity)
    put(
        pipeline, days[0], '{"_tag":"usage_record", no JSON', meter_line(), "meter_record_for_stream {no JSON"
    )
    # Rows of days that the store has dropped; one of them has failed for six nights.
    marks = [f"late/2020-01-01/failed.2026-01-0{night}" for night in range(1, 7)]
    for key in (*marks, "late/2020-01-01/batch.delivery", "late/2020-01-02/batch.delivery"):
        s3.put_object(Bucket=bucket, Key=key, Body=b"")
    if where.outputs["StoreName"] == "lake":
        # The lake has dropped nothing; these days fail for what somebody else has put there.
        for failing in ("2020-01-01", "2020-01-02"):
            s3.put_object(Bucket=bucket, Key=f"store/day={failing}/unknown", Body=b"")
    # Late rows and reports of rejected ones are as old as they have to be, and later replaced files are.
    pipeline.advance(timedelta(hours=8))
    now = int(pipeline.clock.now().timestamp() * 1000)
    put(pipeline, days[0], write(Record("now", now, {"route": "/", "status": 200}, "api_request")))
    for name in ("UpkeepName", "ReconcilerName", "DailyExporterName", "UsageRollerName"):
        pipeline.scheduler.tick(where.outputs[name])
    pipeline.settle()
    for route in http_routes(stack):
        if route.function == where.outputs["UsageApiName"]:
            requests.get(where.outputs["DownloadUrl"] + route.path, timeout=TIMEOUT_S)

    download(pipeline, where, [day.date().isoformat() for day in days])
    unfinished = Job("0" * 32, Request(Days(days[-1].date(), days[0].date())))
    assert replace_job(where.bucket(), unfinished, None)
    s3.put_object(Bucket=bucket, Key=f"tmp/active/someone/{unfinished.id}", Body=b"")
    asked = {"from": str(days[-1].date()), "to": str(days[0].date()), "client": "acme", "wait": True}
    for task in ("verify", "find", "forget"):
        do_task(where, {"task": task, **asked})
    # The exporter removes what is too long of a client that is forgotten, and files that were replaced.
    put(pipeline, days[0], of_other(days[0], "b"), id="again", client="acme", text="a" * 4_000)
    put(pipeline, days[0], id="more", client="other", another_column="x")
    where.invoke("DailyExporterName", {"day": str(days[0].date())})
    pipeline.advance(timedelta(hours=8))
    pipeline.scheduler.tick(where.outputs["DailyExporterName"])
    pipeline.settle()


def do_task(where: Target, event: dict[str, Any] | None) -> None:
    """Have a task done; the function answers after some seconds, whether it is done or not."""
    while event is not None:
        event = where.invoke("UpkeepName", event).get("continues")


def write_hours(pipeline: Pipeline) -> None:
    """Have the exporter write the hours of a day that are over, and then the whole day."""
    where, now = target_of(pipeline), pipeline.clock.now()
    put(pipeline, now - timedelta(hours=1), id="hour", client="other")
    # So that the day is a large one. This hour is not over, so nobody reads the rows.
    second = int(now.timestamp())
    rows = Fragment(second // 3_600, second, second, LARGE_ROWS, "0" * 32)
    where.bucket().put(rows.key, [], "")
    pipeline.scheduler.tick(where.outputs["DailyExporterName"])
    pipeline.settle()
    assert where.bucket().get(folder(now.date(), Format.PARQUET) + HOURS)
    where.bucket().delete([rows.key])
    pipeline.advance(timedelta(days=1))
    pipeline.scheduler.tick(where.outputs["DailyExporterName"])
    pipeline.settle()
    assert where.bucket().get(folder(now.date(), Format.PARQUET) + MANIFEST)


def download(pipeline: Pipeline, where: Target, days: list[str]) -> None:
    """Download days that are there in one format each, and delete that download and another."""
    s3, bucket = pipeline.client("s3"), where.outputs["Bucket"]
    for day, kind in zip(days, Format, strict=True):
        for other in set(Format) - {kind}:
            key = folder(datetime.fromisoformat(day).date(), other) + MANIFEST
            s3.delete_object(Bucket=bucket, Key=key)
    url = where.outputs["DownloadUrl"]
    asked = {"start_date": min(days), "end_date": max(days), "format": "any"}
    whole_day = f"/download/usage?start_date={max(days)}&end_date={max(days)}"
    for path in (whole_day, whole_day, "/openapi.json"):
        assert requests.get(url + path, timeout=TIMEOUT_S).ok
        pipeline.settle()
    answer = requests.post(f"{url}/downloads", json=asked, timeout=TIMEOUT_S).json()
    pipeline.settle()
    ready = requests.get(answer["status_url"], timeout=TIMEOUT_S).json()
    assert ready["status"] == "ready", ready
    assert requests.get(ready["download_link"], timeout=TIMEOUT_S).ok
    assert requests.delete(answer["status_url"], timeout=TIMEOUT_S).ok


def test_functions_call_what_their_roles_allow_and_roles_allow_what_functions_call(
    pipeline: Pipeline, parameters: dict[str, str], recorder: Recorder
) -> None:
    stack = resolve(
        translate(TEMPLATE), parameters, stack_name="tagline", endpoint=pipeline.services.endpoint
    )
    run_everything(pipeline, stack)
    if parameters["Store"] == "lake":
        write_hours(pipeline)

    (table,) = [each.attributes["Arn"] for each in stack.of_type("AWS::Timestream::Table")] or [""]
    calls = {
        call._replace(resource=table) if call.resource == "the table" else call for call in recorder.calls
    }
    granted = grants(stack)
    rare = {*RARE_RESOURCES, *(RARE_WITH_THE_LAKE if parameters["Store"] == "lake" else ())}
    assert {call.function for call in calls} == {grant.function for grant in granted}
    refused = [call for call in calls if not any(grant.covers(call) for grant in granted)]
    assert sorted(map(str, refused)) == []
    unused = [
        grant
        for grant in granted
        if grant.action not in OF_LAMBDA
        and grant.action not in RARE
        and not any(
            grant.action == action and grant.resource.endswith(end) and (end or grant.prefix is None)
            for action, end in rare
        )
        and not any(grant.covers(call) for call in calls)
    ]
    assert "\n".join(sorted(map(str, unused))) == ""
