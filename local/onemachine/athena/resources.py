"""Athena as a service of this machine, with the Glue catalog: what templates have of them."""

from __future__ import annotations

import contextlib

from onemachine.athena.service import install
from onemachine.service import Client, ResourceType, Service
from onemachine.template.stack import Resource


def _create_catalog_database(client: Client, resource: Resource) -> None:
    glue = client("glue")
    with contextlib.suppress(glue.exceptions.AlreadyExistsException):  # there from an earlier run
        glue.create_database(DatabaseInput=dict(resource.properties["DatabaseInput"]))


def _create_work_group(client: Client, resource: Resource) -> None:
    properties = resource.properties
    configuration = dict(properties.get("WorkGroupConfiguration", {}))
    if limit := configuration.get("BytesScannedCutoffPerQuery"):
        configuration["BytesScannedCutoffPerQuery"] = int(limit)
    service = client("athena")
    with contextlib.suppress(service.exceptions.InvalidRequestException):  # there from an earlier run
        service.create_work_group(
            Name=properties["Name"],
            Description=properties.get("Description", ""),
            Configuration=configuration,
        )


def _create_named_query(client: Client, resource: Resource) -> None:
    named = ("Name", "Description", "Database", "QueryString", "WorkGroup")
    properties = {name: resource.properties[name] for name in named if name in resource.properties}
    client("athena").create_named_query(**properties)


SERVICE = Service(
    "athena",
    (
        ResourceType("AWS::Glue::Database", "DatabaseInput.Name", create=_create_catalog_database),
        ResourceType("AWS::Athena::WorkGroup", "Name", create=_create_work_group),
        ResourceType("AWS::Athena::NamedQuery", create=_create_named_query),
    ),
    install=lambda host: install(host.client),
)
