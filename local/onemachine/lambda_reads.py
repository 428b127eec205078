"""Lambda's control plane: the functions and event source mappings of this machine, which can be disabled.

https://docs.aws.amazon.com/lambda/latest/api/API_FunctionConfiguration.html and
https://docs.aws.amazon.com/lambda/latest/api/API_EventSourceMappingConfiguration.html
"""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Any
from urllib.parse import unquote

from moto.awslambda.responses import LambdaResponse

from onemachine.batches import KinesisSettings, MappingSettings
from onemachine.functions import Function, Functions, function_arn

_Answer = tuple[int, dict[str, str], str]


def install(
    functions: Functions,
    mappings: Callable[[], Sequence[MappingSettings]],
    enable: Callable[[MappingSettings, bool], None],
) -> None:
    """Let moto's Lambda answer with what runs here.

    Args:
        functions: The functions.
        mappings: Returns the event source mappings.
        enable: Enables a mapping, or disables it.
    """

    def list_functions(_: Any) -> _Answer:
        return _answer({"Functions": [configuration(each) for each in functions.definitions()]})

    def get_function(response: Any) -> _Answer:
        found = _find(functions, response, -1)
        if isinstance(found, str):
            return _missing("Function", found)
        code = {"RepositoryType": "S3", "Location": found.code.as_uri()}
        return _answer({"Configuration": configuration(found), "Code": code})

    def get_function_configuration(response: Any) -> _Answer:
        found = _find(functions, response, -2)
        return _missing("Function", found) if isinstance(found, str) else _answer(configuration(found))

    def list_event_source_mappings(response: Any) -> _Answer:
        source, function = (
            response.querystring.get(name, [""])[0] for name in ("EventSourceArn", "FunctionName")
        )
        name = function.rpartition(":")[2]
        shown = [
            mapping_configuration(each)
            for each in mappings()
            if source in {"", each.source_arn} and name in {"", each.function}
        ]
        return _answer({"EventSourceMappings": shown})

    def get_event_source_mapping(response: Any) -> _Answer:
        identifier = unquote(response.path.rstrip("/").rsplit("/", 1)[-1])
        found = [mapping_configuration(each) for each in mappings() if each.mapping_id == identifier]
        return _answer(found[0]) if found else _missing("Event source mapping", identifier)

    def update_event_source_mapping(response: Any) -> _Answer:
        identifier = unquote(response.path.rstrip("/").rsplit("/", 1)[-1])
        found = [each for each in mappings() if each.mapping_id == identifier]
        return _updated(response, found[0], enable) if found else _missing("Event source mapping", identifier)

    # moto has no other place to put this: its server looks these up when a call comes.
    for answer in (
        list_functions,
        get_function,
        get_function_configuration,
        list_event_source_mappings,
        get_event_source_mapping,
        update_event_source_mapping,
    ):
        setattr(LambdaResponse, answer.__name__, answer)


def configuration(function: Function) -> dict[str, Any]:
    """Return a function's configuration, with the runtime and the architecture of this machine."""
    group = {"LogFormat": function.log_format, "LogGroup": function.log_group}
    return {
        "FunctionName": function.name,
        "FunctionArn": function_arn(function.name),
        "Runtime": f"python{sys.version_info.major}.{sys.version_info.minor}",
        "Handler": function.handler,
        "Timeout": function.timeout_s,
        "MemorySize": function.memory_mb,
        "Version": "$LATEST",
        "Environment": {"Variables": dict(function.environment)},
        "PackageType": "Zip",
        "Architectures": ["arm64" if platform.machine() in {"arm64", "aarch64"} else "x86_64"],
        "State": "Active",
        "LastUpdateStatus": "Successful",
        "LoggingConfig": group,
    }


def mapping_configuration(mapping: MappingSettings) -> dict[str, Any]:
    """Return an event source mapping's configuration."""
    found: dict[str, Any] = {
        "UUID": mapping.mapping_id,
        "EventSourceArn": mapping.source_arn,
        "FunctionArn": function_arn(mapping.function),
        "BatchSize": mapping.batch_size,
        "MaximumBatchingWindowInSeconds": mapping.window_s,
        "State": "Enabled" if mapping.enabled else "Disabled",
        "FunctionResponseTypes": ["ReportBatchItemFailures"] if mapping.report_batch_item_failures else [],
    }
    if isinstance(mapping, KinesisSettings):
        found |= {
            "StartingPosition": mapping.starting_position,
            "ParallelizationFactor": mapping.parallelization_factor,
            "BisectBatchOnFunctionError": mapping.bisect,
            "MaximumRetryAttempts": mapping.maximum_retry_attempts,
            "MaximumRecordAgeInSeconds": mapping.maximum_record_age_s,
        }
        if mapping.on_failure_arn:
            found["DestinationConfig"] = {"OnFailure": {"Destination": mapping.on_failure_arn}}
    return found


def _find(functions: Functions, response: Any, place: int) -> Function | str:
    """Return the function that a path names, or its name if no function has it."""
    name = unquote(response.path.rstrip("/").split("/")[place]).rpartition(":")[2]
    return next((each for each in functions.definitions() if each.name == name), name)


def _answer(value: Mapping[str, Any]) -> _Answer:
    return HTTPStatus.OK.value, {}, json.dumps(value)


def _missing(what: str, name: str) -> _Answer:
    status = HTTPStatus.NOT_FOUND.value
    message = f"{what} not found: {function_arn(name) if what == 'Function' else name}"
    headers = {"x-amzn-errortype": "ResourceNotFoundException", "status": str(status)}
    return status, headers, json.dumps({"Type": "User", "Message": message})


def _updated(
    response: Any, mapping: MappingSettings, enable: Callable[[MappingSettings, bool], None]
) -> _Answer:
    asked = json.loads(response.body)
    asked.pop("UUID", None)
    if asked.keys() != {"Enabled"}:
        return _refused(f"on one machine, Enabled alone can be changed, not {', '.join(sorted(asked))}")
    enable(mapping, asked["Enabled"])
    status, state = HTTPStatus.ACCEPTED.value, "Enabling" if asked["Enabled"] else "Disabling"
    body = json.dumps({**mapping_configuration(mapping), "State": state})
    return status, {"status": str(status)}, body


def _refused(message: str) -> _Answer:
    status = HTTPStatus.BAD_REQUEST.value
    headers = {"x-amzn-errortype": "InvalidParameterValueException", "status": str(status)}
    return status, headers, json.dumps({"Type": "User", "Message": message})
