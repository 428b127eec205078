"""A template with its values: the stack, its resources, and what readers of both share."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

# The region and account of all of it. The account is moto's.
REGION, ACCOUNT = "us-east-1", "123456789012"


class TemplateError(ValueError):
    """The template, or what was asked of it, cannot be turned into a stack."""


class ParameterError(TemplateError):
    """A parameter is unknown, missing, or outside of what the template allows."""


class UnresolvableError(TemplateError):
    """An intrinsic function has no value; the message names the logical id and the function."""


@dataclass(frozen=True)
class Resource:
    """One resource of a stack.

    Attributes:
        logical_id: Its name in the template.
        type: For instance `AWS::S3::Bucket`.
        name: Its name in the service.
        physical_id: What `Ref` gives: mostly the name, but a queue's address and a topic's ARN.
        properties: The template's properties, as plain values.
        attributes: What `Fn::GetAtt` gives, by attribute, for instance `Arn`.
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
        deployed_outputs: Its outputs as they were on AWS; `outputs` gives those of this machine.
        left_out: Why resources are left out, by logical id: they need a value of another stack.
    """

    name: str
    region: str
    account: str
    resources: Mapping[str, Resource]
    deployed_outputs: Mapping[str, str]
    left_out: Mapping[str, str] = field(default_factory=dict)

    def of_type(self, resource_type: str) -> list[Resource]:
        """Return the resources of one type, in the template's order.

        Args:
            resource_type: For instance `AWS::S3::Bucket`.

        Returns:
            The resources, none if there are none.
        """
        return [resource for resource in self.resources.values() if resource.type == resource_type]

    def outputs(self, api_urls: Mapping[str, str] | None = None) -> dict[str, str]:
        """Return the outputs, with APIs at the addresses where they are served.

        The addresses are known only when the servers run, which is after the stack was read for their routes.

        Args:
            api_urls: The address, `http://127.0.0.1:<port>`, for each API's logical id.

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


def text_of(value: Any) -> str:
    """Return a value as CloudFormation writes it into text."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def function_name(name_or_arn: str) -> str:
    """Return a function's name, given it or its ARN."""
    return name_or_arn.rsplit(":", 1)[-1]


def refuse(resource: Resource, given: Mapping[str, Any], names: set[str], advice: str) -> None:
    """Raise TemplateError if some names are among those that a template gives."""
    present = sorted(names & set(given))
    if present:
        raise TemplateError(f"{resource.logical_id}: {present[0]} is not followed here; {advice}")
