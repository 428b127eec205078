"""Secrets Manager: moto's, with its secrets in templates."""

from __future__ import annotations

from onemachine.service import Client, ResourceType, Service
from onemachine.template.stack import Resource


def _create_secret(client: Client, resource: Resource) -> None:
    service = client("secretsmanager")
    text = resource.properties.get("SecretString", "")
    if (generated := resource.properties.get("GenerateSecretString")) is not None:
        text = service.get_random_password(**generated)["RandomPassword"]
    service.create_secret(Name=resource.name, SecretString=text)


_ARN = "arn:aws:secretsmanager:{region}:{account}:secret:{name}"
_SECRET = ResourceType("AWS::SecretsManager::Secret", "Name", ref=_ARN, create=_create_secret)
SERVICE = Service("secretsmanager", (_SECRET,))
