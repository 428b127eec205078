"""What brings events to the functions of a stack."""

from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from onemachine.batches import KinesisSettings, MappingSettings, SqsSettings
from onemachine.invocations import MAX_EVENT_AGE_S, MAX_RETRIES, EventSettings
from onemachine.template.stack import Stack, TemplateError, function_name, refuse, text_of


def _is_true(given: Any) -> bool:
    return text_of(given) == "true"


_Readers = Mapping[str, tuple[str, Callable[[Any], Any]]]
# What a mapping's properties are called in its settings, and how they are read.
# https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/aws-resource-lambda-eventsourcemapping.html
_OF_BOTH: _Readers = {
    "BatchSize": ("batch_size", int),
    "Enabled": ("enabled", _is_true),
    "FunctionResponseTypes": ("report_batch_item_failures", lambda given: "ReportBatchItemFailures" in given),
    "MaximumBatchingWindowInSeconds": ("window_s", int),
}
_OF_STREAMS: _Readers = {
    **_OF_BOTH,
    "BisectBatchOnFunctionError": ("bisect", _is_true),
    "DestinationConfig": ("on_failure_arn", lambda given: given.get("OnFailure", {}).get("Destination")),
    "MaximumRecordAgeInSeconds": ("maximum_record_age_s", int),
    "MaximumRetryAttempts": ("maximum_retry_attempts", int),
    "ParallelizationFactor": ("parallelization_factor", int),
    "StartingPosition": ("starting_position", str),
    "StartingPositionTimestamp": (
        "starting_timestamp",
        lambda given: datetime.fromtimestamp(float(given), UTC),
    ),
}
_OF_QUEUES: _Readers = {
    **_OF_BOTH,
    "ScalingConfig": (
        "maximum_concurrency",
        lambda given: int(given["MaximumConcurrency"]) if "MaximumConcurrency" in given else None,
    ),
}
# MetricsConfig counts what happens, and changes nothing of it. FilterCriteria, TumblingWindowInSeconds and
# the rest are refused by name.
_FOLLOWED = {*_OF_STREAMS, *_OF_QUEUES, "EventSourceArn", "FunctionName", "MetricsConfig", "Tags"}


def event_source_mappings(stack: Stack) -> list[MappingSettings]:
    """Return all event source mappings of a stack: see `stream_mappings` and `queue_mappings`."""
    return [*stream_mappings(stack), *queue_mappings(stack)]


def stream_mappings(stack: Stack) -> list[KinesisSettings]:
    """Return what calls a stack's functions with batches of streams.

    Args:
        stack: The stack.

    Returns:
        The event source mappings, in the order of the template's CloudFormation form.

    Raises:
        TemplateError: A source is neither a Kinesis stream nor an SQS queue, or a mapping has a property that
            cannot be followed on one machine.
        ValueError: A property is outside of Lambda's limits.
    """
    return [
        KinesisSettings(stream_arn=arn, **{"starting_position": "", **given})
        for arn, given in _mappings(stack, "kinesis", _OF_STREAMS)
    ]


def queue_mappings(stack: Stack) -> list[SqsSettings]:
    """Return what calls a stack's functions with batches of queues, as `stream_mappings` does of streams."""
    urls = {queue.attributes["Arn"]: queue.physical_id for queue in stack.of_type("AWS::SQS::Queue")}
    return [
        SqsSettings(queue_arn=arn, queue_url=urls.get(arn, ""), **given)
        for arn, given in _mappings(stack, "sqs", _OF_QUEUES)
    ]


def _mappings(stack: Stack, service: str, readers: _Readers) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the source and the settings of each mapping of a service."""
    for mapping in stack.of_type("AWS::Lambda::EventSourceMapping"):
        properties = mapping.properties
        unknown = {name for name, value in properties.items() if value} - _FOLLOWED
        refuse(mapping, properties, unknown, "this part of event source mappings is not run on one machine")
        if "EventSourceArn" not in properties:
            raise TemplateError(f"{mapping.logical_id}: EventSourceArn is missing")
        arn: str = properties["EventSourceArn"]
        if arn.split(":")[2] not in {"kinesis", "sqs"}:
            raise TemplateError(f"{mapping.logical_id}: {arn} is neither a Kinesis stream nor an SQS queue")
        if arn.split(":")[2] == service:
            given = {
                setting: read(properties[name])
                for name, (setting, read) in readers.items()
                if name in properties
            }
            function = function_name(properties["FunctionName"])
            yield arn, {"function": function, "mapping_id": mapping.physical_id, **given}


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
