"""What brings events to the functions of a stack."""

import re
from dataclasses import dataclass

from onemachine.invocations import MAX_EVENT_AGE_S, MAX_RETRIES, EventSettings
from onemachine.template.stack import Stack, TemplateError, function_name, refuse, text_of

_DEFAULT_BATCH_SIZE = {"kinesis": 100, "sqs": 10}


_UNLIMITED = -1


# FilterCriteria, TumblingWindowInSeconds and the rest of a mapping's properties are refused by name.
_MAPPING_PROPERTIES = {
    "BatchSize",
    "BisectBatchOnFunctionError",
    "DestinationConfig",
    "Enabled",
    "EventSourceArn",
    "FunctionName",
    "FunctionResponseTypes",
    "MetricsConfig",  # counts what happens, and changes nothing of it
    "MaximumBatchingWindowInSeconds",
    "MaximumRecordAgeInSeconds",
    "MaximumRetryAttempts",
    "ParallelizationFactor",
    "ScalingConfig",
    "StartingPosition",
    "StartingPositionTimestamp",
    "Tags",
}


@dataclass(frozen=True)
class EventSourceMappingSpec:
    """What calls a function with batches from a stream or a queue.

    Attributes:
        logical_id: Its name in the template.
        uuid: Its identifier in Lambda, part of the keys of failed batches.
        function: The function's name.
        service: ``kinesis`` or ``sqs``.
        source_arn: The stream's or queue's ARN.
        source_name: The stream's or queue's name.
        batch_size: Records for one call at most.
        window_s: Seconds for which a batch is collected.
        starting_position: ``TRIM_HORIZON``, ``LATEST`` or ``AT_TIMESTAMP``; empty for a queue.
        starting_timestamp: The time of ``AT_TIMESTAMP``, seconds since 1970.
        parallelization_factor: Batches of one shard at the same time.
        reports_item_failures: Whether ``batchItemFailures`` of an answer count.
        bisects: Whether a failed batch is halved.
        maximum_retries: Attempts after the first; -1 is without end.
        maximum_age_s: Age in seconds above which records are given up; -1 is without end.
        on_failure_arn: Where given-up batches go, empty for nowhere.
        maximum_concurrency: Invocations of a queue at the same time, None where it is not given.
        enabled: Whether it runs.
    """

    logical_id: str
    uuid: str
    function: str
    service: str
    source_arn: str
    source_name: str
    batch_size: int
    window_s: int
    starting_position: str
    starting_timestamp: float | None
    parallelization_factor: int
    reports_item_failures: bool
    bisects: bool
    maximum_retries: int
    maximum_age_s: int
    on_failure_arn: str
    maximum_concurrency: int | None
    enabled: bool


def event_source_mappings(stack: Stack) -> list[EventSourceMappingSpec]:
    """Lists what calls a stack's functions with batches.

    Args:
        stack: The stack.

    Returns:
        The event source mappings, in the order of the template's CloudFormation form.

    Raises:
        TemplateError: A source is neither a Kinesis stream nor an SQS queue, or a mapping has a property that
            cannot be followed on one machine.
    """
    specs = []
    for mapping in stack.of_type("AWS::Lambda::EventSourceMapping"):
        properties = mapping.properties
        unknown = {name for name, value in properties.items() if value} - _MAPPING_PROPERTIES
        refuse(mapping, properties, unknown, "this part of event source mappings is not run on one machine")
        if "EventSourceArn" not in properties:
            raise TemplateError(f"{mapping.logical_id}: there is no EventSourceArn")
        source_arn: str = properties["EventSourceArn"]
        timestamp = properties.get("StartingPositionTimestamp")
        at_once = properties.get("ScalingConfig", {}).get("MaximumConcurrency")
        service = source_arn.split(":")[2]
        if service not in _DEFAULT_BATCH_SIZE:
            raise TemplateError(
                f"{mapping.logical_id}: {source_arn} is neither a Kinesis stream nor an SQS queue"
            )
        specs.append(
            EventSourceMappingSpec(
                logical_id=mapping.logical_id,
                uuid=mapping.physical_id,
                function=function_name(properties["FunctionName"]),
                service=service,
                source_arn=source_arn,
                source_name=re.split("[:/]", source_arn)[-1],
                batch_size=int(properties.get("BatchSize", _DEFAULT_BATCH_SIZE[service])),
                window_s=int(properties.get("MaximumBatchingWindowInSeconds", 0)),
                starting_position=properties.get("StartingPosition", ""),
                starting_timestamp=None if timestamp is None else float(timestamp),
                parallelization_factor=int(properties.get("ParallelizationFactor", 1)),
                reports_item_failures="ReportBatchItemFailures"
                in properties.get("FunctionResponseTypes", []),
                bisects=properties.get("BisectBatchOnFunctionError", False),
                maximum_retries=int(properties.get("MaximumRetryAttempts", _UNLIMITED)),
                maximum_age_s=int(properties.get("MaximumRecordAgeInSeconds", _UNLIMITED)),
                on_failure_arn=properties.get("DestinationConfig", {})
                .get("OnFailure", {})
                .get("Destination", ""),
                maximum_concurrency=None if at_once is None else int(at_once),
                enabled=text_of(properties.get("Enabled", True)) == "true",
            )
        )
    return specs


def event_invokes(stack: Stack) -> dict[str, EventSettings]:
    """Return what becomes of the asynchronous events of a stack's functions, by their names."""
    found = {}
    for config in stack.of_type("AWS::Lambda::EventInvokeConfig"):
        destinations = config.properties.get("DestinationConfig", {})
        found[function_name(config.properties["FunctionName"])] = EventSettings(
            maximum_retry_attempts=int(config.properties.get("MaximumRetryAttempts", MAX_RETRIES)),
            maximum_event_age_s=int(config.properties.get("MaximumEventAgeInSeconds", MAX_EVENT_AGE_S)),
            on_failure_arn=destinations.get("OnFailure", {}).get("Destination"),
            on_success_arn=destinations.get("OnSuccess", {}).get("Destination"),
        )
    return found
