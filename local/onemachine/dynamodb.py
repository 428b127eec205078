"""DynamoDB: moto's, with its tables in templates."""

from __future__ import annotations

from onemachine.service import Client, ResourceType, Service
from onemachine.template.stack import Resource


def _create_table(client: Client, resource: Resource) -> None:
    client("dynamodb").create_table(**{**resource.properties, "TableName": resource.name})


_TABLE = ResourceType(
    "AWS::DynamoDB::Table", "TableName", arn="dynamodb:{region}:{account}:table/{name}", create=_create_table
)
SERVICE = Service("dynamodb", (_TABLE,))
