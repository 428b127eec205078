"""The deployed template, read for one machine: SAM to CloudFormation, and CloudFormation to plain values.

``translate`` is the transform that AWS runs on deployment, offline. ``resolve`` does what CloudFormation
does next: it checks the parameters, drops what conditions leave out and puts values in place of intrinsic
functions. The names and ARNs are of the form that AWS would give, but the same on each run. ``functions``,
``event_source_mappings``, ``schedules`` and ``http_routes`` then say what the runner has to run.
"""

import contextlib
import hashlib
import logging
import re
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import boto3
from samtranslator.model.exceptions import InvalidDocumentException
from samtranslator.parser.parser import Parser
from samtranslator.translator.translator import Translator
from samtranslator.yaml_helper import yaml_parse
from yaml import YAMLError

LOCAL_CODE_BUCKET = "local-directory"
"""The bucket of a function's code after the transform; the key is the template's own ``CodeUri``."""

NOT_RUN_BUCKET = "not-run"
"""The bucket of a function whose code cannot be run on one machine; the key is a key of ``NOT_RUN``."""

NOT_RUN = {
    "image": "an image; only code in a directory runs here",
    "archive": "its code is in an archive; only code in a directory runs here",
    "inline": "inline code; only code in a directory runs here",
}

# Where all of it is said to be. The account is moto's.
REGION, ACCOUNT = "us-east-1", "123456789012"

# What Lambda takes where the template is silent:
# https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/aws-resource-lambda-function.html
# https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/aws-resource-lambda-eventsourcemapping.html
_DEFAULT_MEMORY_MB = 128
_DEFAULT_TIMEOUT_S = 3
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

# The translator warns of its own switches, which a template does not have.
logging.getLogger("samtranslator").addHandler(logging.NullHandler())

_LANGUAGE_EXTENSIONS = "AWS::LanguageExtensions"
_FOR_EACH = "Fn::ForEach::"


class TemplateError(ValueError):
    """The template, or what was asked of it, cannot be turned into a stack."""


class ParameterError(TemplateError):
    """A parameter is unknown, missing, or outside of what the template allows."""


class UnresolvableError(TemplateError):
    """An intrinsic function has no value; the message names the logical id and the function."""


class _ImportedError(UnresolvableError):
    """A value comes from another stack, which is not on this machine."""


# ---- SAM to CloudFormation ---------------------------------------------------------------------------------


def translate(path: Path) -> dict[str, Any]:
    """Applies the SAM transform to a template, without asking AWS.

    The transform refuses code in directories, so each ``CodeUri`` is first made an address in S3 whose bucket
    is ``LOCAL_CODE_BUCKET``. The code of a function that cannot be run here is in ``NOT_RUN_BUCKET``. Nothing
    else changes, and intrinsic functions stay as they are.

    Args:
        path: The SAM template, YAML or JSON.

    Returns:
        The CloudFormation template.

    Raises:
        TemplateError: The file is not YAML, has no resources, is not valid SAM, or has a loop that makes a
            SAM resource.
    """
    template = _parsed(path)
    loops = _loops(template)
    shared = template.get("Globals", {}).get("Function", {})
    for resource in template["Resources"].values():
        properties = resource.get("Properties") or {}
        if resource["Type"] == "AWS::Serverless::Function":
            why = _why_not_run({**shared, **properties})
            if why:
                for name in ("ImageUri", "ImageConfig", "InlineCode"):
                    properties.pop(name, None)
                properties |= {"PackageType": "Zip", "CodeUri": f"s3://{NOT_RUN_BUCKET}/{why}"}
                properties = {"Handler": "none", "Runtime": "none", **properties}
            else:
                code = {**shared, **properties}.get("CodeUri", ".")
                properties["CodeUri"] = f"s3://{LOCAL_CODE_BUCKET}/{code}"
            resource["Properties"] = properties
        if resource["Type"] == "AWS::Serverless::LayerVersion":
            properties["ContentUri"] = f"s3://{LOCAL_CODE_BUCKET}/{properties.get('ContentUri', '.')}"
    # The translator takes the region, which it needs for the partition, from a session.
    session = boto3.Session(region_name=REGION)
    translator = Translator({}, Parser(), None, session)
    try:
        translated: dict[str, Any] = translator.translate(template, {})
    except InvalidDocumentException as error:
        raise TemplateError("; ".join(cause.message for cause in error.causes)) from error
    translator.metrics.publish()  # Nowhere; but unpublished ones are warned of on stderr.
    if loops:
        translated["Transform"] = _LANGUAGE_EXTENSIONS
        translated["Resources"].update(loops)
    return translated


def _parsed(path: Path) -> dict[str, Any]:
    try:
        template = yaml_parse(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, YAMLError) as error:
        raise TemplateError(f"{path} is not YAML or JSON: {' '.join(str(error).split())}") from error
    resources = template.get("Resources") if isinstance(template, dict) else None
    if not isinstance(resources, dict):
        raise TemplateError(f"{path} has no Resources")
    for logical_id, resource in resources.items():
        if not logical_id.startswith(_FOR_EACH) and not isinstance((resource or {}).get("Type"), str):
            raise TemplateError(f"{path}: resource {logical_id} has no Type")
    return cast("dict[str, Any]", template)


def _why_not_run(properties: Mapping[str, Any]) -> str | None:
    """Return the key of ``NOT_RUN`` for a function's code, None for a directory."""
    if properties.get("PackageType") == "Image" or "ImageUri" in properties:
        return "image"
    if "InlineCode" in properties:
        return "inline"
    code = properties.get("CodeUri", ".")
    return None if isinstance(code, str) and not code.startswith("s3://") else "archive"


# The translator cannot read loops: https://github.com/aws/serverless-application-model/issues/3641
# They repeat for each value of a parameter, and parameters have values only when the template is resolved.
def _loops(template: Mapping[str, Any]) -> dict[str, Any]:
    """Take the loops out of a template's resources."""
    resources = template["Resources"]
    loops = {key: resources.pop(key) for key in list(resources) if key.startswith(_FOR_EACH)}
    transforms = template.get("Transform", [])
    if loops and _LANGUAGE_EXTENSIONS not in (transforms if isinstance(transforms, list) else [transforms]):
        raise TemplateError(f"{next(iter(loops))} needs Transform: [{_LANGUAGE_EXTENSIONS}, ...]")
    for key, (_, _, fragment) in loops.items():
        for logical_id, resource in fragment.items():
            if logical_id.startswith(_FOR_EACH) or resource["Type"].startswith("AWS::Serverless::"):
                raise TemplateError(
                    f"{key}: {logical_id} is a loop or a SAM resource, and a loop here can make neither"
                )
    return loops


# ---- CloudFormation to values ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Resource:
    """One resource of a stack.

    Attributes:
        logical_id: Its name in the template.
        type: For instance ``AWS::S3::Bucket``.
        name: Its name in the service.
        physical_id: What ``Ref`` gives: mostly the name, but a queue's address and a topic's ARN.
        properties: The template's properties, as plain values.
        attributes: What ``Fn::GetAtt`` gives, by attribute, for instance ``Arn``.
    """

    logical_id: str
    type: str
    name: str
    physical_id: str
    properties: Mapping[str, Any]
    attributes: Mapping[str, str]


@dataclass(frozen=True)
class Stack:
    """A template with its values.

    Attributes:
        name: The stack's name.
        region: Its AWS region.
        account: Its AWS account, twelve digits.
        resources: Its resources by logical id, in the template's order.
        deployed_outputs: Its outputs as they were on AWS; ``outputs`` gives those of this machine.
        left_out: Why resources are left out, by logical id: they need a value of another stack.
    """

    name: str
    region: str
    account: str
    resources: Mapping[str, Resource]
    deployed_outputs: Mapping[str, str]
    left_out: Mapping[str, str] = field(default_factory=dict)

    def of_type(self, resource_type: str) -> list[Resource]:
        """Gives the resources of one type, in the template's order.

        Args:
            resource_type: For instance ``AWS::S3::Bucket``.

        Returns:
            The resources, none if there are none.
        """
        return [resource for resource in self.resources.values() if resource.type == resource_type]

    def outputs(self, api_urls: Mapping[str, str] | None = None) -> dict[str, str]:
        """Gives the outputs, with APIs at the addresses where they are served.

        The addresses are known only when the servers run, which is after the stack was read for their routes.

        Args:
            api_urls: The address, ``http://127.0.0.1:<port>``, for each API's logical id.

        Returns:
            The outputs' values by name.
        """
        local_by_public = {
            f"https://{self.resources[logical_id].physical_id}.execute-api.{self.region}.amazonaws.com": url
            for logical_id, url in (api_urls or {}).items()
            if logical_id in self.resources
        }
        outputs = dict(self.deployed_outputs)
        for name, value in outputs.items():
            for public, local in local_by_public.items():
                outputs[name] = value = value.replace(public, local.rstrip("/"))  # noqa: PLW2901  # Several APIs in one output.
        return outputs


def resolve(
    template: Mapping[str, Any],
    parameters: Mapping[str, str],
    *,
    stack_name: str,
    endpoint: str,
) -> Stack:
    """Turns a CloudFormation template into a stack of plain values.

    Args:
        template: A template after the SAM transform.
        parameters: Values for the template's parameters; the others take their defaults.
        stack_name: The stack's name, with which the names of its resources begin.
        endpoint: Where the services answer, for instance ``http://127.0.0.1:5000``. Queues are under it.

    Returns:
        The stack.

    Raises:
        ParameterError: A parameter is unknown, missing or not allowed.
        UnresolvableError: An intrinsic function has no value.
    """
    pseudo = {
        "AWS::AccountId": ACCOUNT,
        "AWS::Partition": "aws",
        "AWS::Region": REGION,
        "AWS::StackName": stack_name,
        "AWS::StackId": (
            f"arn:aws:cloudformation:{REGION}:{ACCOUNT}:stack/{stack_name}/{_uuid(stack_name, '')}"
        ),
        "AWS::URLSuffix": "amazonaws.com",
    }
    values = {**_parameter_values(template.get("Parameters", {}), parameters), **pseudo}
    resolver = _Resolver(_repeated(template, values), values, endpoint.rstrip("/"))
    resources: dict[str, Resource] = {}
    left_out: dict[str, str] = {}
    for logical_id in resolver.resource_ids():
        try:
            resources[logical_id] = resolver.resource(logical_id)
        except _ImportedError as error:
            left_out[logical_id] = str(error)
    return Stack(stack_name, REGION, ACCOUNT, resources, resolver.outputs(), left_out)


# https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/intrinsic-function-reference-foreach.html
def _repeated(template: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the template with each loop replaced by what it makes."""
    resources: dict[str, Any] = {}
    for key, node in template["Resources"].items():
        if not key.startswith(_FOR_EACH):
            resources[key] = node
            continue
        identifier, collection, fragment = node
        if isinstance(collection, dict):
            collection = values.get(str(collection.get("Ref")))
        if not isinstance(collection, list):
            raise UnresolvableError(f"{key} needs a list, or the Ref of a CommaDelimitedList")
        for item in collection:
            # A log group's name is no logical id; &{} leaves letters and digits of it.
            name = re.sub("[^A-Za-z0-9]", "", item)
            for output_key, output in fragment.items():
                logical_id = output_key.replace(f"${{{identifier}}}", item)
                logical_id = logical_id.replace(f"&{{{identifier}}}", name)
                if logical_id in resources:
                    raise TemplateError(f"{key}: {item!r} makes {logical_id}, which exists already")
                resources[logical_id] = _with_item(output, identifier, item)
    return {**template, "Resources": resources}


def _with_item(node: Any, identifier: str, item: str) -> Any:
    if node == {"Ref": identifier}:
        return item
    if isinstance(node, dict):
        return {key: _with_item(value, identifier, item) for key, value in node.items()}
    if isinstance(node, list):
        return [_with_item(value, identifier, item) for value in node]
    return node.replace(f"${{{identifier}}}", item) if isinstance(node, str) else node


_Parameter = str | int | float | list[str]


def _parameter_values(declared: Mapping[str, Any], given: Mapping[str, str]) -> dict[str, _Parameter]:
    unknown = sorted(set(given) - set(declared))
    if unknown:
        raise ParameterError(f"parameter {unknown[0]} is unknown; the template has {', '.join(declared)}")
    values: dict[str, _Parameter] = {}
    for name, declaration in declared.items():
        if name not in given and "Default" not in declaration:
            raise ParameterError(f"parameter {name} has no default and was not given")
        text = str(given.get(name, declaration.get("Default")))
        # CloudFormation trims the members, and holds each against the constraints.
        members = [member.strip() for member in text.split(",")]
        is_list = declaration["Type"] == "CommaDelimitedList"
        for member in members if is_list else [text]:
            broken = next(_broken_constraints(declaration, member), None)
            if broken:
                why = declaration.get("ConstraintDescription")
                raise ParameterError(f"parameter {name} = {member!r} {broken}" + (f": {why}" if why else ""))
        if is_list:
            values[name] = members
        else:
            values[name] = _number(text) if declaration["Type"] == "Number" else text
    return values


def _broken_constraints(declaration: Mapping[str, Any], text: str) -> Iterator[str]:
    if declaration["Type"] not in {"String", "Number", "CommaDelimitedList"}:
        yield f"is of type {declaration['Type']}; String, Number and CommaDelimitedList can be resolved"
    if "AllowedValues" in declaration:
        allowed = [str(value) for value in declaration["AllowedValues"]]
        if text not in allowed:
            yield f"is not one of {', '.join(allowed)}"
    # CloudFormation compares the whole value with the pattern.
    if "AllowedPattern" in declaration and not re.fullmatch(declaration["AllowedPattern"], text):
        yield f"does not match AllowedPattern {declaration['AllowedPattern']}"
    if declaration["Type"] == "Number" and not re.fullmatch(r"-?\d+(\.\d+)?", text):
        yield "is not a number"
    elif declaration["Type"] == "Number":
        yield from _broken_bounds(declaration, "Value", _number(text))
    else:
        yield from _broken_bounds(declaration, "Length", len(text))


def _broken_bounds(declaration: Mapping[str, Any], of: str, size: float) -> Iterator[str]:
    if f"Min{of}" in declaration and size < float(declaration[f"Min{of}"]):
        yield f"is below Min{of} {declaration[f'Min{of}']}"
    if f"Max{of}" in declaration and size > float(declaration[f"Max{of}"]):
        yield f"is above Max{of} {declaration[f'Max{of}']}"


def _number(text: str) -> int | float:
    return float(text) if "." in text else int(text)


# ---- What a resource is called -----------------------------------------------------------------------------


def _plain(stack_name: str, logical_id: str) -> str:
    return f"{stack_name}-{logical_id}"


def _lowercase(stack_name: str, logical_id: str) -> str:
    return _plain(stack_name, logical_id).lower()


def _api_id(stack_name: str, logical_id: str) -> str:
    return hashlib.sha256(_plain(stack_name, logical_id).encode()).hexdigest()[:10]


def _uuid(stack_name: str, logical_id: str) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"onemachine:{stack_name}/{logical_id}"))


@dataclass(frozen=True)
class _Kind:
    """What CloudFormation answers for a type of resource.

    ``ref`` and ``attributes`` are formats of ``{name}``, ``{region}``, ``{account}``, ``{endpoint}`` and
    any of the resource's own properties. The forms are those of the page of each type, under "Return values":
    https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/aws-template-resource-type-ref.html
    """

    named_by: str = ""
    ref: str = "{name}"
    attributes: Mapping[str, str] = field(default_factory=dict)
    unnamed: Callable[[str, str], str] = _plain


_ANY_KIND = _Kind()
_KINDS: Mapping[str, _Kind] = {
    "AWS::ApiGateway::RestApi": _Kind(attributes={"RootResourceId": "root"}, unnamed=_api_id),
    "AWS::ApiGateway::Stage": _Kind("StageName"),
    "AWS::ApiGatewayV2::Api": _Kind(
        attributes={"ApiId": "{name}", "ApiEndpoint": "https://{name}.execute-api.{region}.amazonaws.com"},
        unnamed=_api_id,
    ),
    "AWS::CloudWatch::Alarm": _Kind(
        "AlarmName", attributes={"Arn": "arn:aws:cloudwatch:{region}:{account}:alarm:{name}"}
    ),
    "AWS::CloudWatch::CompositeAlarm": _Kind(
        "AlarmName", attributes={"Arn": "arn:aws:cloudwatch:{region}:{account}:alarm:{name}"}
    ),
    "AWS::DynamoDB::Table": _Kind(
        "TableName", attributes={"Arn": "arn:aws:dynamodb:{region}:{account}:table/{name}"}
    ),
    "AWS::Events::Rule": _Kind("Name", attributes={"Arn": "arn:aws:events:{region}:{account}:rule/{name}"}),
    "AWS::Athena::WorkGroup": _Kind("Name"),
    "AWS::Glue::Database": _Kind("DatabaseInput.Name"),
    "AWS::IAM::Role": _Kind("RoleName", attributes={"Arn": "arn:aws:iam::{account}:role/{name}"}),
    "AWS::Kinesis::Stream": _Kind(
        "Name", attributes={"Arn": "arn:aws:kinesis:{region}:{account}:stream/{name}"}
    ),
    "AWS::Lambda::EventSourceMapping": _Kind(attributes={"Id": "{name}"}, unnamed=_uuid),
    "AWS::Lambda::Function": _Kind(
        "FunctionName", attributes={"Arn": "arn:aws:lambda:{region}:{account}:function:{name}"}
    ),
    "AWS::Lambda::LayerVersion": _Kind("LayerName", ref="arn:aws:lambda:{region}:{account}:layer:{name}:1"),
    "AWS::Logs::LogGroup": _Kind(
        "LogGroupName", attributes={"Arn": "arn:aws:logs:{region}:{account}:log-group:{name}:*"}
    ),
    "AWS::Logs::QueryDefinition": _Kind("Name", attributes={"QueryDefinitionId": "{name}"}),
    "AWS::Logs::SubscriptionFilter": _Kind("FilterName"),
    "AWS::S3::Bucket": _Kind(
        "BucketName",
        attributes={
            "Arn": "arn:aws:s3:::{name}",
            "DomainName": "{name}.s3.amazonaws.com",
            "RegionalDomainName": "{name}.s3.{region}.amazonaws.com",
        },
        unnamed=_lowercase,
    ),
    "AWS::SNS::Topic": _Kind(
        "TopicName",
        ref="arn:aws:sns:{region}:{account}:{name}",
        attributes={"TopicArn": "arn:aws:sns:{region}:{account}:{name}", "TopicName": "{name}"},
    ),
    "AWS::SQS::Queue": _Kind(
        "QueueName",
        ref="{endpoint}/{account}/{name}",
        attributes={
            "Arn": "arn:aws:sqs:{region}:{account}:{name}",
            "QueueName": "{name}",
            "QueueUrl": "{endpoint}/{account}/{name}",
        },
    ),
    "AWS::SecretsManager::Secret": _Kind(
        "Name", ref="arn:aws:secretsmanager:{region}:{account}:secret:{name}"
    ),
    "AWS::Scheduler::Schedule": _Kind(
        "Name", attributes={"Arn": "arn:aws:scheduler:{region}:{account}:schedule/default/{name}"}
    ),
    "AWS::Timestream::Database": _Kind(
        "DatabaseName", attributes={"Arn": "arn:aws:timestream:{region}:{account}:database/{name}"}
    ),
    "AWS::Timestream::Table": _Kind(
        "TableName",
        ref="{DatabaseName}|{name}",
        attributes={
            "Arn": "arn:aws:timestream:{region}:{account}:database/{DatabaseName}/table/{name}",
            "Name": "{name}",
        },
    ),
}


class _Fields(dict[str, Any]):
    """The fields of a ``_Kind``'s formats: those given, and beyond them the resource's properties."""

    def __init__(self, given: Mapping[str, Any], find: Callable[[str], Any]) -> None:
        super().__init__(given)
        self._find = find

    def __missing__(self, key: str) -> Any:
        return self._find(key)


# ---- Intrinsic functions -----------------------------------------------------------------------------------

_NO_VALUE = object()


class _Resolver:
    """Gives plain values for the nodes of one template.

    ``where`` is the path of a node, beginning with a logical id, for messages.
    """

    def __init__(self, template: Mapping[str, Any], values: Mapping[str, Any], endpoint: str) -> None:
        self._declared: Mapping[str, Any] = template["Resources"]
        self._conditions: Mapping[str, Any] = template.get("Conditions", {})
        self._mappings: Mapping[str, Any] = template.get("Mappings", {})
        self._outputs: Mapping[str, Any] = template.get("Outputs", {})
        self._values = values
        self._endpoint = endpoint
        self._being_named: list[str] = []
        self._intrinsics: Mapping[str, Callable[[Any, str], Any]] = {
            "Ref": self._ref,
            "Fn::GetAtt": self._get_att,
            "Fn::Sub": self._sub,
            "Fn::Join": self._join,
            "Fn::Split": self._split,
            "Fn::Select": self._select,
            "Fn::FindInMap": self._find_in_map,
            "Fn::If": self._if,
            "Fn::Equals": self._equals,
            "Fn::Not": self._not,
            "Fn::And": self._and,
            "Fn::Or": self._or,
        }

    def resource_ids(self) -> list[str]:
        return [logical_id for logical_id in self._declared if self._exists(logical_id)]

    def resource(self, logical_id: str) -> Resource:
        declared = self._declared[logical_id]
        return Resource(
            logical_id=logical_id,
            type=declared["Type"],
            name=self._name(logical_id),
            physical_id=self._formatted(logical_id, self._kind(logical_id).ref),
            properties=self._value(declared.get("Properties", {}), logical_id),
            attributes={
                attribute: self._formatted(logical_id, form)
                for attribute, form in self._kind(logical_id).attributes.items()
            },
        )

    def outputs(self) -> dict[str, str]:
        outputs = {}
        for name, output in self._outputs.items():
            if "Condition" in output and not self._condition(output["Condition"], f"Outputs.{name}"):
                continue
            with contextlib.suppress(_ImportedError):
                outputs[name] = _text(self._value(output["Value"], f"Outputs.{name}"))
        return outputs

    # Nodes.

    def _value(self, node: Any, where: str) -> Any:
        if isinstance(node, dict):
            if len(node) == 1:
                (key, argument), *_ = node.items()
                if key in self._intrinsics:
                    return self._intrinsics[key](argument, f"{where}, {key}")
                if key == "Fn::ImportValue":
                    raise _ImportedError("it needs a value of another stack, by Fn::ImportValue")
                if key.startswith("Fn::"):
                    raise UnresolvableError(f"{where}: the intrinsic function {key} is not supported")
            values = {key: self._value(value, f"{where}.{key}") for key, value in node.items()}
            return {key: value for key, value in values.items() if value is not _NO_VALUE}
        if isinstance(node, list):
            items = [self._value(item, f"{where}[{index}]") for index, item in enumerate(node)]
            return [item for item in items if item is not _NO_VALUE]
        return node

    def _ref(self, name: str, where: str) -> Any:
        if name == "AWS::NoValue":
            return _NO_VALUE
        if name in self._values:
            return self._values[name]
        self._expect(name, where)
        return self._formatted(name, self._kind(name).ref)

    def _get_att(self, argument: str | list[str], where: str) -> str:
        logical_id, attribute = argument.split(".", 1) if isinstance(argument, str) else argument
        self._expect(logical_id, where)
        attributes = self._kind(logical_id).attributes
        if attribute not in attributes:
            kind = self._declared[logical_id]["Type"]
            asking = self._declared.get(re.split("[.,[]", where)[0], {}).get("Type", "")
            if asking.startswith("AWS::IAM::"):
                return f"{logical_id}.{attribute}"  # Nobody reads policies here, so that any text will do.
            raise UnresolvableError(f"{where}: {kind} {logical_id} has no known attribute {attribute}")
        return self._formatted(logical_id, attributes[attribute])

    def _sub(self, argument: str | list[Any], where: str) -> str:
        text, local = (argument, {}) if isinstance(argument, str) else argument

        def replacement(match: re.Match[str]) -> str:
            name = match[1]
            if name.startswith("!"):
                return "${" + name[1:] + "}"
            if name in local:
                return _text(self._value(local[name], where))
            value = self._ref(name, where) if "." not in name else self._get_att(name, where)
            return _text(value)

        return re.sub(r"\$\{\s*([^}]+?)\s*\}", replacement, text)

    def _join(self, argument: list[Any], where: str) -> str:
        separator, items = argument
        return str(separator).join(_text(item) for item in self._value(items, where))

    def _split(self, argument: list[Any], where: str) -> list[str]:
        separator, text = argument
        return _text(self._value(text, where)).split(separator)

    def _select(self, argument: list[Any], where: str) -> Any:
        index, items = int(self._value(argument[0], where)), self._value(argument[1], where)
        if not 0 <= index < len(items):
            raise UnresolvableError(f"{where}: there is no item {index} in a list of {len(items)}")
        return items[index]

    def _find_in_map(self, argument: list[Any], where: str) -> Any:
        found: Any = self._mappings
        for key in (self._value(part, where) for part in argument):
            if key not in found:
                raise UnresolvableError(f"{where}: there is no {key} in the template's mappings")
            found = found[key]
        return found

    def _if(self, argument: list[Any], where: str) -> Any:
        name, then, otherwise = argument
        return self._value(then if self._condition(name, where) else otherwise, where)

    # Conditions.

    def _condition(self, name: str, where: str) -> bool:
        if name not in self._conditions:
            raise UnresolvableError(f"{where}: there is no condition {name}")
        return self._truth(self._conditions[name], f"Conditions.{name}")

    def _truth(self, node: Any, where: str) -> bool:
        # Only here does {"Condition": name} refer to a condition; elsewhere it may be part of a policy.
        if isinstance(node, dict) and list(node) == ["Condition"]:
            return self._condition(node["Condition"], where)
        value = self._value(node, where)
        if not isinstance(value, bool):
            raise UnresolvableError(f"{where}: {value!r} is neither true nor false")
        return value

    def _equals(self, argument: list[Any], where: str) -> bool:
        left, right = (_text(self._value(side, where)) for side in argument)
        return left == right

    def _not(self, argument: list[Any], where: str) -> bool:
        return not self._truth(argument[0], where)

    def _and(self, argument: list[Any], where: str) -> bool:
        return all(self._truth(part, where) for part in argument)

    def _or(self, argument: list[Any], where: str) -> bool:
        return any(self._truth(part, where) for part in argument)

    # Names.

    def _exists(self, logical_id: str) -> bool:
        condition = self._declared[logical_id].get("Condition")
        return condition is None or self._condition(condition, logical_id)

    def _expect(self, logical_id: str, where: str) -> None:
        if logical_id not in self._declared:
            raise UnresolvableError(f"{where}: there is no parameter or resource {logical_id}")
        if not self._exists(logical_id):
            condition = self._declared[logical_id]["Condition"]
            raise UnresolvableError(f"{where}: resource {logical_id} is left out by condition {condition}")

    def _kind(self, logical_id: str) -> _Kind:
        return _KINDS.get(self._declared[logical_id]["Type"], _ANY_KIND)

    def _name(self, logical_id: str) -> str:
        kind = self._kind(logical_id)
        group, _, name = kind.named_by.rpartition(".")
        properties = self._declared[logical_id].get("Properties", {})
        if name in (properties.get(group, {}) if group else properties):
            found = self._property(logical_id, group or name)
            if found is not _NO_VALUE:
                return _text(found[name] if group else found)
        return kind.unnamed(self._values["AWS::StackName"], logical_id)

    def _property(self, logical_id: str, name: str) -> Any:
        where = f"{logical_id}.{name}"
        if where in self._being_named:
            raise UnresolvableError(
                f"{where}: the name depends on itself, by way of {', '.join(self._being_named)}"
            )
        properties = self._declared[logical_id].get("Properties", {})
        if name not in properties:
            raise UnresolvableError(f"{where}: Ref and Fn::GetAtt need this property")
        self._being_named.append(where)
        value = self._value(properties[name], where)
        self._being_named.remove(where)
        return value

    def _formatted(self, logical_id: str, form: str) -> str:
        given = {
            "name": self._name(logical_id),
            "region": self._values["AWS::Region"],
            "account": self._values["AWS::AccountId"],
            "endpoint": self._endpoint,
        }
        return form.format_map(_Fields(given, lambda name: self._property(logical_id, name)))


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


# ---- What there is to run ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class FunctionSpec:
    """A Lambda function.

    Attributes:
        logical_id: Its name in the template.
        name: Its name in Lambda.
        handler: ``package.module.function``.
        code: The template's ``CodeUri``: a directory, relative to the template.
        memory_mb: Its memory in MiB.
        timeout_s: Seconds after which an invocation is ended.
        environment: Its environment variables.
        log_group: Where its lines go.
        log_format: ``JSON`` or ``Text``.
        runtime: For instance ``python3.13``.
        application_level: The lowest level of the application's lines that is kept, in JSON format.
        system_level: The lowest level of the platform's lines that is kept, in JSON format.
        reserved_concurrency: The invocations at once that are kept for it, None for a share of the account's.
        not_run: Why it cannot be run on one machine, whatever is in its directory; empty if it can.
    """

    logical_id: str
    name: str
    handler: str
    code: str
    memory_mb: int
    timeout_s: int
    environment: Mapping[str, str]
    log_group: str
    log_format: str
    runtime: str
    application_level: str
    system_level: str
    reserved_concurrency: int | None
    not_run: str = ""


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


@dataclass(frozen=True)
class EventInvokeSpec:
    """What becomes of a function's asynchronous events.

    Attributes:
        function: The function's name.
        maximum_retries: Attempts after the first.
        maximum_age_s: Age in seconds above which an event is given up.
        on_failure_arn: What is told of events that were given up, empty for nothing.
        on_success_arn: What is told of events that were processed, empty for nothing.
    """

    function: str
    maximum_retries: int
    maximum_age_s: int
    on_failure_arn: str
    on_success_arn: str


@dataclass(frozen=True)
class ScheduleSpec:
    """What calls a function at certain times.

    Attributes:
        logical_id: Its name in the template.
        function: The function's name.
        expression: ``cron(...)`` or ``rate(...)``, as AWS writes them.
        timezone: The IANA time zone of a cron expression.
        payload: The event's JSON text; None for the service's own event.
        enabled: Whether it runs.
    """

    logical_id: str
    function: str
    expression: str
    timezone: str
    payload: str | None
    enabled: bool


@dataclass(frozen=True)
class AuthorizerSpec:
    """What lets requests to a route through.

    Attributes:
        kind: ``iam`` or ``jwt``.
        issuer: The issuer of tokens.
        audience: What tokens are for.
        identity_source: Where a request has its token.
    """

    kind: str
    issuer: str = ""
    audience: tuple[str, ...] = ()
    identity_source: str = "$request.header.Authorization"


@dataclass(frozen=True)
class HttpRoute:
    """A route of an HTTP API.

    Attributes:
        api: The API's logical id.
        method: For instance ``GET``, or ``ANY``.
        path: For instance ``/downloads/{id}`` or ``/{proxy+}``, or ``$default``.
        function: The name of the function that answers.
        authorizer: What lets requests through, None for nothing.
        scopes: What a token has to allow, one of them.
        payload: The format of events and answers, ``2.0`` or ``1.0``.
    """

    api: str
    method: str
    path: str
    function: str
    authorizer: AuthorizerSpec | None = None
    scopes: tuple[str, ...] = ()
    payload: str = "2.0"


@dataclass(frozen=True)
class CorsSpec:
    """Which pages of other origins may call an HTTP API; the attributes are those that it has for them."""

    origins: tuple[str, ...]
    methods: tuple[str, ...]
    headers: tuple[str, ...]
    exposed: tuple[str, ...]
    max_age_s: int | None
    credentials: bool


@dataclass(frozen=True)
class HttpApiSpec:
    """An HTTP API.

    Attributes:
        api: Its logical id.
        routes: Its routes.
        cors: Its CORS configuration, if it has one.
        throttle: Requests per second, and at once, if its stage limits them.
        route_throttles: The same of routes that have their own limits, by the route's key.
        access_log: The ARN of the log group that has a line for each request, and the line's format.
    """

    api: str
    routes: tuple[HttpRoute, ...]
    cors: CorsSpec | None
    throttle: tuple[float, int] | None
    route_throttles: Mapping[str, tuple[float, int]] = field(default_factory=dict)
    access_log: tuple[str, str] | None = None


def functions(stack: Stack) -> list[FunctionSpec]:
    """Lists a stack's Lambda functions.

    Args:
        stack: The stack.

    Returns:
        The functions, in the order of the template's CloudFormation form.

    Raises:
        TemplateError: A function has what cannot be run on one machine.
    """
    specs = []
    for function in stack.of_type("AWS::Lambda::Function"):
        properties = function.properties
        _refuse(function, properties, {"DeadLetterConfig"}, "use an EventInvokeConfig with a destination")
        logging = properties.get("LoggingConfig", {})
        reserved = properties.get("ReservedConcurrentExecutions")
        variables = properties.get("Environment", {}).get("Variables", {})
        code, runtime = properties["Code"], properties.get("Runtime", "")
        not_run = NOT_RUN[code["S3Key"]] if code["S3Bucket"] == NOT_RUN_BUCKET else ""
        if not not_run and not runtime.startswith("python3."):
            not_run = f"its runtime is {runtime or 'not given'}; only Python runs here"
        specs.append(
            FunctionSpec(
                logical_id=function.logical_id,
                name=function.name,
                handler=properties["Handler"],
                code=code["S3Key"],
                memory_mb=int(properties.get("MemorySize", _DEFAULT_MEMORY_MB)),
                timeout_s=int(properties.get("Timeout", _DEFAULT_TIMEOUT_S)),
                environment={name: _text(value) for name, value in variables.items()},
                log_group=logging.get("LogGroup", f"/aws/lambda/{function.name}"),
                log_format=logging.get("LogFormat", "Text"),
                runtime=runtime,
                application_level=logging.get("ApplicationLogLevel", "INFO"),
                system_level=logging.get("SystemLogLevel", "INFO"),
                reserved_concurrency=None if reserved is None else int(reserved),
                not_run=not_run,
            )
        )
    return specs


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
        _refuse(mapping, properties, unknown, "this part of event source mappings is not run on one machine")
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
                enabled=_text(properties.get("Enabled", True)) == "true",
            )
        )
    return specs


def event_invokes(stack: Stack) -> list[EventInvokeSpec]:
    """Lists what becomes of the asynchronous events of a stack's functions.

    Args:
        stack: The stack.

    Returns:
        The configurations, in the order of the template's CloudFormation form.
    """
    specs = []
    for config in stack.of_type("AWS::Lambda::EventInvokeConfig"):
        destinations = config.properties.get("DestinationConfig", {})
        specs.append(
            EventInvokeSpec(
                function=function_name(config.properties["FunctionName"]),
                maximum_retries=int(config.properties.get("MaximumRetryAttempts", 2)),
                maximum_age_s=int(config.properties.get("MaximumEventAgeInSeconds", 21_600)),
                on_failure_arn=destinations.get("OnFailure", {}).get("Destination", ""),
                on_success_arn=destinations.get("OnSuccess", {}).get("Destination", ""),
            )
        )
    return specs


def _refuse(resource: Resource, given: Mapping[str, Any], names: set[str], advice: str) -> None:
    present = sorted(names & set(given))
    if present:
        raise TemplateError(f"{resource.logical_id}: {present[0]} is not followed here; {advice}")


def schedules(stack: Stack) -> list[ScheduleSpec]:
    """Lists what calls a stack's functions at certain times: EventBridge Scheduler and EventBridge rules.

    Args:
        stack: The stack.

    Returns:
        One schedule for each function that is called.

    Raises:
        TemplateError: A schedule has a target or an event that cannot be followed on one machine.
    """
    for schedule in stack.of_type("AWS::Scheduler::Schedule"):
        _expect_function(schedule, schedule.properties["Target"]["Arn"])
    for rule in stack.of_type("AWS::Events::Rule"):
        _refuse(rule, rule.properties, {"EventPattern"}, "no events come here but those of schedules")
        for target in rule.properties["Targets"]:
            _refuse(rule, target, {"InputPath", "InputTransformer"}, "use Input")
            _expect_function(rule, target["Arn"])
    by_scheduler = [
        ScheduleSpec(
            logical_id=schedule.logical_id,
            function=function_name(schedule.properties["Target"]["Arn"]),
            expression=schedule.properties["ScheduleExpression"],
            timezone=schedule.properties.get("ScheduleExpressionTimezone", "UTC"),
            payload=schedule.properties["Target"].get("Input"),
            enabled=schedule.properties.get("State", "ENABLED") == "ENABLED",
        )
        for schedule in stack.of_type("AWS::Scheduler::Schedule")
    ]
    by_rule = [
        ScheduleSpec(
            logical_id=rule.logical_id,
            function=function_name(target["Arn"]),
            expression=rule.properties["ScheduleExpression"],
            timezone="UTC",
            payload=target.get("Input"),
            enabled=rule.properties.get("State", "ENABLED") == "ENABLED",
        )
        for rule in stack.of_type("AWS::Events::Rule")
        if "ScheduleExpression" in rule.properties
        for target in rule.properties["Targets"]
    ]
    return by_scheduler + by_rule


def _expect_function(resource: Resource, arn: str) -> None:
    if ":lambda:" not in arn:
        raise TemplateError(
            f"{resource.logical_id}: target {arn} is no function, and only those are called here"
        )


def http_routes(stack: Stack) -> list[HttpRoute]:
    """Lists the routes of a stack's HTTP APIs.

    Args:
        stack: The stack.

    Returns:
        The routes, API by API.

    Raises:
        TemplateError: As of ``http_apis``.
    """
    return [route for api in http_apis(stack) for route in api.routes]


def http_apis(stack: Stack) -> list[HttpApiSpec]:
    """Lists a stack's HTTP APIs, from the OpenAPI documents that the SAM transform made.

    Args:
        stack: The stack.

    Returns:
        The APIs.

    Raises:
        TemplateError: An API has what is not served on one machine: stage variables, a named stage, a Lambda
            authorizer, integrations that are no functions.
    """
    stages = {stage.properties["ApiId"]: stage for stage in stack.of_type("AWS::ApiGatewayV2::Stage")}
    specs = []
    for api in stack.of_type("AWS::ApiGatewayV2::Api"):
        if "Body" not in api.properties:
            raise TemplateError(f"{api.logical_id}: only APIs of AWS::Serverless::HttpApi are served here")
        body = api.properties["Body"]
        stage = stages.get(api.physical_id)
        specs.append(
            HttpApiSpec(
                api=api.logical_id,
                routes=tuple(
                    _http_route(api, body, path, verb, operation)
                    for path, verbs in body["paths"].items()
                    for verb, operation in verbs.items()
                ),
                cors=_cors(body.get("x-amazon-apigateway-cors")),
                throttle=_throttle(stage) if stage else None,
                route_throttles=_route_throttles(stage) if stage else {},
                access_log=_access_log(stage) if stage else None,
            )
        )
    return specs


def _access_log(stage: Resource) -> tuple[str, str] | None:
    given = stage.properties.get("AccessLogSettings")
    return None if given is None else (str(given["DestinationArn"]), str(given["Format"]))


def _http_route(
    api: Resource, body: Mapping[str, Any], path: str, verb: str, operation: Mapping[str, Any]
) -> HttpRoute:
    where = f"{api.logical_id}, {verb} {path}"
    integration = operation["x-amazon-apigateway-integration"]
    uri = str(integration.get("uri", ""))
    if integration.get("type", "").lower() != "aws_proxy" or "/functions/" not in uri:
        raise TemplateError(f"{where}: only integrations with functions are served here")
    payload = str(integration.get("payloadFormatVersion"))
    if payload not in {"1.0", "2.0"}:
        raise TemplateError(f"{where}: PayloadFormatVersion has to be '2.0' or '1.0'")
    authorizer, scopes = _authorizer(where, body, operation)
    return HttpRoute(
        api=api.logical_id,
        method="ANY" if verb == "x-amazon-apigateway-any-method" else verb.upper(),
        path=path,
        function=function_name(uri.split("/functions/")[1].split("/invocations", maxsplit=1)[0]),
        authorizer=authorizer,
        scopes=scopes,
        payload=payload,
    )


def _authorizer(
    where: str, body: Mapping[str, Any], operation: Mapping[str, Any]
) -> tuple[AuthorizerSpec | None, tuple[str, ...]]:
    schemes = body.get("components", {}).get("securitySchemes", {})
    required = [pair for each in operation.get("security", []) for pair in each.items() if pair[0] != "NONE"]
    if not required:
        return None, ()
    name, scopes = required[0]
    scheme = schemes.get(name, {})
    if scheme.get("x-amazon-apigateway-authtype") == "awsSigv4":
        return AuthorizerSpec("iam"), ()
    settings = scheme.get("x-amazon-apigateway-authorizer", {})
    if settings.get("type") != "jwt":
        raise TemplateError(f"{where}: authorizer {name} is neither AWS_IAM nor of JSON Web Tokens")
    tokens = settings["jwtConfiguration"]
    sources = settings.get("identitySource", "$request.header.Authorization")
    source = sources[0] if isinstance(sources, list) else sources
    audience = tokens.get("audience", [])
    audience = [audience] if isinstance(audience, str) else audience
    return AuthorizerSpec("jwt", tokens["issuer"], tuple(audience), source), tuple(scopes)


def _cors(configuration: Mapping[str, Any] | None) -> CorsSpec | None:
    if configuration is None:
        return None
    age = configuration.get("maxAge")
    return CorsSpec(
        origins=tuple(configuration.get("allowOrigins", ())),
        methods=tuple(configuration.get("allowMethods", ())),
        headers=tuple(configuration.get("allowHeaders", ())),
        exposed=tuple(configuration.get("exposeHeaders", ())),
        max_age_s=None if age is None else int(age),
        credentials=_text(configuration.get("allowCredentials", False)) == "true",
    )


def _throttle(stage: Resource) -> tuple[float, int] | None:
    properties = stage.properties
    _refuse(stage, properties, {"StageVariables"}, "give functions environment variables instead")
    if properties.get("StageName") != "$default":
        raise TemplateError(f"{stage.logical_id}: only the stage $default is served here")
    return throttling_limits(properties.get("DefaultRouteSettings", {}))


def _route_throttles(stage: Resource) -> dict[str, tuple[float, int]]:
    found = {
        key: throttling_limits(settings)
        for key, settings in stage.properties.get("RouteSettings", {}).items()
    }
    return {key: limits for key, limits in found.items() if limits is not None}


def throttling_limits(settings: Mapping[str, Any]) -> tuple[float, int] | None:
    """Returns the requests per second and at once of a stage's settings; None if they do not limit them."""
    if "ThrottlingRateLimit" not in settings or "ThrottlingBurstLimit" not in settings:
        return None
    return float(settings["ThrottlingRateLimit"]), int(settings["ThrottlingBurstLimit"])


def function_name(name_or_arn: str) -> str:
    """Returns a function's name, given it or its ARN."""
    return name_or_arn.rsplit(":", 1)[-1]
