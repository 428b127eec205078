"""What a service of AWS has on one machine: what it installs, its resources in templates, its errors.

A service that runs here is a file (or folder) with a `Service`, and one line in `onemachine.registry`.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from onemachine.faults import Kind
from onemachine.protocols import Application
from onemachine.signatures import Keys
from onemachine.template.stack import Resource

Client = Callable[[str], Any]
"""Returns the boto3 client of a service."""


class Host(Protocol):
    """What services are installed on."""

    @property
    def data(self) -> Path | None:
        """A folder for what outlives the process."""

    @property
    def keys(self) -> Keys:
        """The key pairs of signed requests."""

    def client(self, service: str) -> Any:
        """Return the boto3 client of a service."""


def plain_name(stack_name: str, logical_id: str) -> str:
    """Return the name that a resource has where its template gives it none."""
    return f"{stack_name}-{logical_id}"


def lowercase_name(stack_name: str, logical_id: str) -> str:
    """Return such a name for a service that takes no capitals."""
    return plain_name(stack_name, logical_id).lower()


def api_id(stack_name: str, logical_id: str) -> str:
    """Return an identifier of ten hexadecimal digits."""
    return hashlib.sha256(plain_name(stack_name, logical_id).encode()).hexdigest()[:10]


def uuid_of(stack_name: str, logical_id: str) -> str:
    """Return a UUID that is the same on each run."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"onemachine:{stack_name}/{logical_id}"))


@dataclass(frozen=True)
class ResourceType:
    """A type of CloudFormation's resources.

    The forms are those of the page of each type, under "Return values":
    https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/aws-template-resource-type-ref.html

    Attributes:
        name: For instance `AWS::S3::Bucket`.
        named_by: The property with a resource's name; a name within a property has a point.
        ref: What `Ref` gives: a format of `{name}`, `{region}`, `{account}`, `{endpoint}` and of any of the
            resource's properties.
        arn: What `Fn::GetAtt` gives for `Arn`, as such a format, without `arn:aws:`; empty if it has none.
        others: What it gives for other attributes, as such formats.
        unnamed: Makes the name of a resource to which the template gives none, of the stack's name and the
            logical id.
        create: Makes a resource by calls of the services; None where there is nothing to make, or where the
            pipeline runs it.
    """

    name: str
    named_by: str = ""
    ref: str = "{name}"
    arn: str = ""
    others: Mapping[str, str] = field(default_factory=dict)
    unnamed: Callable[[str, str], str] = plain_name
    create: Callable[[Client, Resource], None] | None = None

    @property
    def attributes(self) -> Mapping[str, str]:
        """What `Fn::GetAtt` gives, as formats, by attribute."""
        return {**({"Arn": f"arn:aws:{self.arn}"} if self.arn else {}), **self.others}


@dataclass(frozen=True)
class Service:
    """A service of AWS on one machine.

    Attributes:
        name: Its name in the signatures of requests.
        types: The types of its resources, each after those that it needs.
        install: Puts what stands for the service into moto, and returns what of it can be asked; None where
            moto is enough.
        remove: Ends what `install` returned.
        front: Puts an application before moto's, given what `install` returned.
        clients: The names of its clients in boto3, where it has several.
        errors: Status and code with which it answers a call that has a fault, where they are its own.
    """

    name: str
    types: tuple[ResourceType, ...] = ()
    install: Callable[[Host], Any] | None = None
    remove: Callable[[Any], None] | None = None
    front: Callable[[Application, Any], Application] | None = None
    clients: tuple[str, ...] = ()
    errors: Mapping[Kind, tuple[str, str]] = field(default_factory=dict)
