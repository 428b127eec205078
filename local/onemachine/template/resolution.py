"""What CloudFormation does with a template: it follows conditions and evaluates intrinsic functions.

The names and ARNs are of the form that AWS would give, but the same on each run.
"""

import contextlib
import re
from collections.abc import Callable, Mapping
from typing import Any

from onemachine.registry import TYPES
from onemachine.service import ResourceType, uuid_of
from onemachine.template.parameters import parameter_values
from onemachine.template.sam import FOR_EACH
from onemachine.template.stack import (
    ACCOUNT,
    REGION,
    Resource,
    Stack,
    TemplateError,
    UnresolvableError,
    text_of,
)


class _ImportedError(UnresolvableError):
    """A value comes from another stack, which is not on this machine."""


def resolve(
    template: Mapping[str, Any],
    parameters: Mapping[str, str],
    *,
    stack_name: str,
    endpoint: str,
    types: Mapping[str, ResourceType] = TYPES,
) -> Stack:
    """Turn a CloudFormation template into a stack of plain values.

    Args:
        template: A template after the SAM transform.
        parameters: Values for the template's parameters; the others take their defaults.
        stack_name: The stack's name, with which the names of its resources begin.
        endpoint: Where the services answer, for instance `http://127.0.0.1:5000`. Queues are under it.
        types: The types of resources whose names are known.

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
            f"arn:aws:cloudformation:{REGION}:{ACCOUNT}:stack/{stack_name}/{uuid_of(stack_name, '')}"
        ),
        "AWS::URLSuffix": "amazonaws.com",
    }
    values = {**parameter_values(template.get("Parameters", {}), parameters), **pseudo}
    resolver = _Resolver(_repeated(template, values), values, endpoint.rstrip("/"), types)
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
        if not key.startswith(FOR_EACH):
            resources[key] = node
            continue
        identifier, collection, fragment = node
        if isinstance(collection, dict):
            collection = values.get(str(collection.get("Ref")))
        if not isinstance(collection, list):
            raise UnresolvableError(f"{key} needs a list, or the Ref of a CommaDelimitedList")
        for item in collection:
            # &{} keeps only the letters and digits of an item, because a logical id has no other characters.
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


class _Fields(dict[str, Any]):
    """The fields of a `ResourceType`'s formats: those given, and beyond them the resource's properties."""

    def __init__(self, given: Mapping[str, Any], find: Callable[[str], Any]) -> None:
        super().__init__(given)
        self._find = find

    def __missing__(self, key: str) -> Any:
        return self._find(key)


_NO_VALUE = object()


class _Resolver:
    """Gives plain values for the nodes of one template.

    `where` is the path of a node, beginning with a logical id, for messages.
    """

    def __init__(
        self,
        template: Mapping[str, Any],
        values: Mapping[str, Any],
        endpoint: str,
        types: Mapping[str, ResourceType],
    ) -> None:
        self._declared: Mapping[str, Any] = template["Resources"]
        self._conditions: Mapping[str, Any] = template.get("Conditions", {})
        self._mappings: Mapping[str, Any] = template.get("Mappings", {})
        self._outputs: Mapping[str, Any] = template.get("Outputs", {})
        self._values = values
        self._endpoint = endpoint
        self._types = types
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
                outputs[name] = text_of(self._value(output["Value"], f"Outputs.{name}"))
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
                return text_of(self._value(local[name], where))
            value = self._ref(name, where) if "." not in name else self._get_att(name, where)
            return text_of(value)

        return re.sub(r"\$\{\s*([^}]+?)\s*\}", replacement, text)

    def _join(self, argument: list[Any], where: str) -> str:
        separator, items = argument
        return str(separator).join(text_of(item) for item in self._value(items, where))

    def _split(self, argument: list[Any], where: str) -> list[str]:
        separator, text = argument
        return text_of(self._value(text, where)).split(separator)

    def _select(self, argument: list[Any], where: str) -> Any:
        index, items = int(self._value(argument[0], where)), self._value(argument[1], where)
        if not 0 <= index < len(items):
            raise UnresolvableError(f"{where}: item {index} is outside of a list of {len(items)}")
        return items[index]

    def _find_in_map(self, argument: list[Any], where: str) -> Any:
        found: Any = self._mappings
        for key in (self._value(part, where) for part in argument):
            if key not in found:
                raise UnresolvableError(f"{where}: {key} is not in the template's mappings")
            found = found[key]
        return found

    def _if(self, argument: list[Any], where: str) -> Any:
        name, then, otherwise = argument
        return self._value(then if self._condition(name, where) else otherwise, where)

    # Conditions.

    def _condition(self, name: str, where: str) -> bool:
        if name not in self._conditions:
            raise UnresolvableError(f"{where}: condition {name} is not in the template")
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
        left, right = (text_of(self._value(side, where)) for side in argument)
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
            raise UnresolvableError(
                f"{where}: {logical_id} is neither a parameter nor a resource of the template"
            )
        if not self._exists(logical_id):
            condition = self._declared[logical_id]["Condition"]
            raise UnresolvableError(f"{where}: resource {logical_id} is left out by condition {condition}")

    def _kind(self, logical_id: str) -> ResourceType:
        name = self._declared[logical_id]["Type"]
        return self._types.get(name) or ResourceType(name)

    def _name(self, logical_id: str) -> str:
        kind = self._kind(logical_id)
        group, _, name = kind.named_by.rpartition(".")
        properties = self._declared[logical_id].get("Properties", {})
        if name in (properties.get(group, {}) if group else properties):
            found = self._property(logical_id, group or name)
            if found is not _NO_VALUE:
                return text_of(found[name] if group else found)
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
