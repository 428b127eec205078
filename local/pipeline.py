"""What templates say, run on one machine: resources made, functions, event sources, schedules, HTTP APIs."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast

from local import logs, template
from local.event_sources import KinesisMapping, KinesisSettings, SqsMapping, SqsSettings
from local.functions import Function, Functions
from local.http_api import HttpApi, Route
from local.schedules import Schedule, Scheduler
from local.services import Services
from local.template import EventSourceMappingSpec, Resource, Stack

ROOT = Path(__file__).resolve().parent.parent
POLL_S = 0.02


@dataclass(frozen=True)
class App:
    """A stack to run.

    Attributes:
        name: The stack's name.
        template: Its SAM template; `CodeUri`s are relative to it.
        parameters: Values for the template's parameters, where they are not the defaults.
    """

    name: str
    template: Path
    parameters: Mapping[str, str] = field(default_factory=dict)


class Pipeline:
    """Stacks that run, from the start of the `with` block to its end.

    Args:
        apps: The stacks, each made after the ones before it.
        in_process: Run functions in this interpreter instead of processes of their own.
        ports: Ports for the services and then for each HTTP API; free ones where there are none.

    Attributes:
        services: The AWS services.
        functions: The functions.
        outputs: The stacks' outputs by the stack's name.
    """

    def __init__(self, apps: Sequence[App], *, in_process: bool = False, ports: Sequence[int] = ()) -> None:
        self._apps = apps
        self._ports = list(ports)
        self._in_process = in_process
        self.outputs: dict[str, dict[str, str]] = {}

    def __enter__(self) -> Self:
        """Bring everything up.

        Raises:
            template.TemplateError: If a template cannot be resolved.
            OSError: If a port is taken.
        """
        self._stop: list[Callable[[], None]] = []
        try:
            self._start()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Take everything down, in the opposite order."""
        self._end()

    def client(self, service: str) -> Any:
        """Return a boto3 client of the services."""
        return self.services.client(service)

    def settle(self, timeout_s: float = 60.0) -> None:
        """Wait until everything that was written has gone as far as it goes.

        Raises:
            TimeoutError: If it has not by then.
        """
        deadline = time.monotonic() + timeout_s
        self.functions.flush()
        while not all(mapping.idle() for mapping in self.mappings):
            if time.monotonic() > deadline:
                raise TimeoutError(f"the pipeline was not idle within {timeout_s:g} seconds")
            time.sleep(POLL_S)
        self.functions.flush()

    def _start(self) -> None:
        self.services = Services(self._ports.pop(0) if self._ports else 0)
        self._stop.append(self.services.stop)
        shipper = logs.Shipper(self.client("logs"))
        self.functions = Functions(shipper.ship, self.services.environment(), self._in_process)
        self._stop.append(self.functions.stop)
        self.services.serve(self.functions)
        self.mappings: list[KinesisMapping | SqsMapping] = []
        schedules: list[Schedule] = []
        for app in self._apps:
            stack = template.resolve(
                _translated(app.template, app.template.stat().st_mtime_ns),
                app.parameters,
                stack_name=app.name,
                endpoint=self.services.endpoint,
            )
            self._create(stack)
            for spec in template.functions(stack):
                self.functions.add(_function(spec, app.template.parent))
            for mapping_spec in template.event_source_mappings(stack):
                mapping = self._mapping(mapping_spec, stack)
                mapping.start()
                self._stop.append(mapping.stop)
                self.mappings.append(mapping)
            schedules += [
                Schedule(schedule.expression, schedule.function, (schedule.payload or "").encode())
                for schedule in template.schedules(stack)
                if schedule.enabled
            ]
            self.outputs[app.name] = stack.outputs(self._apis(stack))
        self.scheduler = Scheduler(schedules, self.functions.invoke, lambda: datetime.now(UTC))
        self.scheduler.start()
        self._stop.append(self.scheduler.stop)

    def _end(self) -> None:
        while self._stop:
            self._stop.pop()()

    def _create(self, stack: Stack) -> None:
        """Make a stack's resources, each kind after those that it names."""
        for kind, create in _CREATE.items():
            # A queue's dead letters have to be there before it.
            for resource in sorted(stack.of_type(kind), key=lambda made: "RedrivePolicy" in made.properties):
                create(self.services.client, resource)

    def _mapping(self, spec: EventSourceMappingSpec, stack: Stack) -> KinesisMapping | SqsMapping:
        if spec.service == "sqs":
            url = next(
                resource.physical_id
                for resource in stack.of_type("AWS::SQS::Queue")
                if resource.attributes["Arn"] == spec.source_arn
            )
            settings = SqsSettings(
                spec.function,
                spec.source_arn,
                url,
                batch_size=spec.batch_size,
                window_s=spec.window_s,
                report_batch_item_failures=spec.reports_item_failures,
            )
            return SqsMapping(settings, self.client("sqs"), self.functions.invoke)
        return KinesisMapping(
            KinesisSettings(
                spec.function,
                spec.source_arn,
                batch_size=spec.batch_size,
                window_s=spec.window_s,
                starting_position=cast("Any", spec.starting_position),
                report_batch_item_failures=spec.reports_item_failures,
                bisect=spec.bisects,
                maximum_retry_attempts=spec.maximum_retries,
                maximum_record_age_s=spec.maximum_age_s,
                on_failure_arn=spec.on_failure_arn or None,
                mapping_id=spec.uuid,
            ),
            self.client("kinesis"),
            self.client("s3"),
            self.functions.invoke,
        )

    def _apis(self, stack: Stack) -> dict[str, str]:
        """Start a stack's HTTP APIs and return their addresses by logical id."""
        routes: dict[str, list[Route]] = {}
        for route in template.http_routes(stack):
            routes.setdefault(route.api, []).append(Route(route.method, route.path, route.function))
        addresses = {}
        for api, of_api in routes.items():
            port = self._ports.pop(0) if self._ports else 0
            server = HttpApi(of_api, self.functions.invoke, port=port, api_id=api)
            addresses[api] = f"http://127.0.0.1:{server.start()}"
            self._stop.append(server.stop)
        return addresses


def tagline_with_samples(*, window_s: int = 1, pets: bool = False) -> list[App]:
    """Return the pipeline and the sample application whose records it takes.

    Args:
        window_s: How long the consumer waits for a batch to fill, in seconds.
        pets: Whether to run the pets API as well; its requirements have to be installed.
    """
    samples = [App("sample", ROOT / "examples" / "template.yml"), *([pets_app()] if pets else [])]
    functions = ["sample-SampleApi", "sample-AccessLogReplay", *(["pets-PetsApi"] if pets else [])]
    groups = {f"LogGroup{number}": f"/aws/lambda/{name}" for number, name in enumerate(functions, 1)}
    return [*samples, App("tagline", ROOT / "template.yml", {**groups, "BatchWindowSeconds": str(window_s)})]


def pets_app() -> App:
    """Return the pets API: FastAPI under Mangum, with its table in DynamoDB."""
    return App("pets", ROOT / "examples" / "pets_api" / "template.yml")


@cache
def _translated(path: Path, _modified: int) -> dict[str, Any]:
    """Return a translated template; what it was translated to is kept as long as the file is the same."""
    return template.translate(path)


def _function(spec: template.FunctionSpec, folder: Path) -> Function:
    variables = dict(spec.environment)
    if spec.log_format == "JSON":
        variables["AWS_LAMBDA_LOG_FORMAT"] = "JSON"
    return Function(
        name=spec.name,
        handler=spec.handler,
        memory_mb=spec.memory_mb,
        timeout_s=spec.timeout_s,
        environment=variables,
        log_group=spec.log_group,
        code=(folder / spec.code).resolve(),
        # The emitter is copied into artifacts; here it is imported from where it is.
        path=(ROOT / "emitter",),
    )


Client = Callable[[str], Any]


def _create_log_group(client: Client, resource: Resource) -> None:
    logs_client = client("logs")
    logs_client.create_log_group(logGroupName=resource.name)
    if days := resource.properties.get("RetentionInDays"):
        logs_client.put_retention_policy(logGroupName=resource.name, retentionInDays=int(days))


def _create_stream(client: Client, resource: Resource) -> None:
    mode = resource.properties.get("StreamModeDetails", {"StreamMode": "PROVISIONED"})
    shards = resource.properties.get("ShardCount")
    client("kinesis").create_stream(
        StreamName=resource.name, StreamModeDetails=mode, **({"ShardCount": int(shards)} if shards else {})
    )


def _create_bucket(client: Client, resource: Resource) -> None:
    client("s3").create_bucket(Bucket=resource.name)


def _create_dynamodb_table(client: Client, resource: Resource) -> None:
    client("dynamodb").create_table(**{**resource.properties, "TableName": resource.name})


def _create_queue(client: Client, resource: Resource) -> None:
    properties = resource.properties
    attributes = {
        name: str(properties[name])
        for name in ("VisibilityTimeout", "MessageRetentionPeriod", "ReceiveMessageWaitTimeSeconds")
        if name in properties
    }
    if "RedrivePolicy" in properties:
        attributes["RedrivePolicy"] = json.dumps(properties["RedrivePolicy"])
    client("sqs").create_queue(QueueName=resource.name, Attributes=attributes)


def _create_topic(client: Client, resource: Resource) -> None:
    client("sns").create_topic(Name=resource.name)


def _create_database(client: Client, resource: Resource) -> None:
    client("timestream-write").create_database(DatabaseName=resource.name)


def _create_table(client: Client, resource: Resource) -> None:
    properties = resource.properties
    client("timestream-write").create_table(
        DatabaseName=properties["DatabaseName"],
        TableName=resource.name,
        RetentionProperties=properties["RetentionProperties"],
        MagneticStoreWriteProperties=properties["MagneticStoreWriteProperties"],
    )


def _create_subscription(client: Client, resource: Resource) -> None:
    properties = resource.properties
    client("logs").put_subscription_filter(
        logGroupName=properties["LogGroupName"],
        filterName=resource.name,
        filterPattern=properties["FilterPattern"],
        destinationArn=properties["DestinationArn"],
        roleArn=properties["RoleArn"],
        distribution=properties["Distribution"],
    )


# What is made, in this order: a subscription's stream has to be there before it. Roles, alarms, policies and
# saved queries have nothing to do on one machine.
_CREATE: dict[str, Callable[[Client, Resource], None]] = {
    "AWS::Logs::LogGroup": _create_log_group,
    "AWS::S3::Bucket": _create_bucket,
    "AWS::DynamoDB::Table": _create_dynamodb_table,
    "AWS::SNS::Topic": _create_topic,
    "AWS::SQS::Queue": _create_queue,
    "AWS::Kinesis::Stream": _create_stream,
    "AWS::Timestream::Database": _create_database,
    "AWS::Timestream::Table": _create_table,
    "AWS::Logs::SubscriptionFilter": _create_subscription,
}
